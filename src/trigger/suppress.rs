//! Suppression rules at the door: an alert that one fits starts no flow. It is judged before any flow is asked, once for all
//! of them, and what was decided is on disk in the batch of its watermark.
//!
//! Where an alert came without its evidence and a rule might be for it, it is read once more. One that can't be read is not
//! suppressed: what starts too much is better here than what hides an attack.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Value as Json, json};

use super::alert_poll::Fetch;
use super::house::{self, Order};
use super::suppressed::{self, By};
use super::{Event, Intake, Offered, manual};
use crate::catalog::Catalog;
use crate::id::digest16;
use crate::journal::{Op, Store, StoreError};
use crate::suppress::{Action, Judged, Rule, Rules};
use crate::triage::Alert;

/// Alerts that are read once more for one page of a poll.
const READS: usize = 100;
/// Whether the store has an entry of a suppressed alert at all.
const EVER: &str = "suppressed/ever";

/// The rules of now, and the way to alerts.
pub struct Suppressor {
    rules: RwLock<Arc<Rules>>,
    catalog: Arc<Catalog>,
    client: Arc<dyn Fetch>,
    ever: AtomicBool,
}

/// What keeps an event from the flows.
pub(super) struct Held {
    by: By,
    /// It was decided before: a poller reads what is an hour old again.
    again: bool,
    order: Option<Order>,
}

impl Suppressor {
    /// # Errors
    /// Where the store can't be read.
    pub fn new(
        rules: Rules,
        catalog: Arc<Catalog>,
        client: Arc<dyn Fetch>,
        store: &dyn Store,
    ) -> Result<Suppressor, StoreError> {
        let ever = AtomicBool::new(store.get(EVER)?.is_some());
        Ok(Suppressor { rules: RwLock::new(Arc::new(rules)), catalog, client, ever })
    }

    /// Takes other rules; what is being judged is judged by those of before.
    pub fn replace(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// The rules of now.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The rules that hold events back, in the order of the events. A person who chose an alert has decided; only alerts
    /// are judged.
    pub(super) async fn judge(&self, intake: &Intake, events: &[Event]) -> Vec<Option<Held>> {
        let rules = self.rules();
        if rules.is_empty() && !self.ever.load(Ordering::Relaxed) {
            return events.iter().map(|_| None).collect();
        }
        let mut reads = READS;
        let mut held = Vec::with_capacity(events.len());
        for event in events {
            held.push(self.one(intake, &rules, event, &mut reads).await);
        }
        held
    }

    async fn one(&self, intake: &Intake, rules: &Rules, event: &Event, reads: &mut usize) -> Option<Held> {
        if event.flow.is_some() || event.kind.split('.').nth(1) != Some("alert") {
            return None;
        }
        let id = event.payload.get("alert_id")?.as_str()?.to_owned();
        // What was suppressed as new stays so: a rule that ended meanwhile starts no flow for what is an hour old.
        if event.kind.ends_with(".new")
            && self.ever.load(Ordering::Relaxed)
            && let Some(by) = suppressed::of(&*intake.store, &id)
        {
            return Some(Held { by, again: true, order: None });
        }
        let now = intake.clock.now();
        let polled = event.payload.get("alert").map(crate::value::Value::to_json).unwrap_or_default();
        let judged = Judged::new(Alert(&polled));
        if let Some(rule) = rules.find(&judged, now) {
            return Some(held(rule, event, Alert(&polled), now));
        }
        let bare = polled.get("evidence").and_then(Json::as_array).is_none_or(Vec::is_empty);
        if !bare || !rules.concern(&judged, now) {
            return None;
        }
        if *reads == 0 {
            tracing::warn!(
                alert = id,
                "{READS} alerts of this page were read for suppression rules: this one is not judged"
            );
            return None;
        }
        *reads -= 1;
        let connection = event.connection.as_ref()?;
        match manual::read(&self.catalog, &*self.client, &event.kind, connection, &id).await {
            Ok(seen) => {
                let whole = seen.payload.get("alert").map(crate::value::Value::to_json).unwrap_or_default();
                let rule = rules.find(&Judged::new(Alert(&whole)), now)?;
                Some(held(rule, event, Alert(&whole), now))
            }
            Err(error) => {
                tracing::warn!(alert = id, %error, "an alert could not be read for suppression rules: its flows start");
                None
            }
        }
    }

    /// What is to be committed for an event that is held back: a line for `why` of each flow that it was for, one for the
    /// list of alerts, one in the audit log, and the run that resolves the alert.
    pub(super) fn ops(
        &self,
        intake: &Intake,
        event: &Event,
        held: &Held,
        versions: &mut Vec<Arc<str>>,
    ) -> Result<(Vec<Op>, Offered), StoreError> {
        let now = intake.clock.now();
        let mut ops = vec![];
        let mut offered = Offered::default();
        for deployed in intake.flows.now().wanting(event) {
            offered.skipped += 1;
            ops.push(super::offer::suppressed(deployed, event, now, held.by.clone()));
        }
        if held.again {
            return Ok((ops, offered));
        }
        let id = event.payload.get("alert_id").and_then(crate::value::Value::as_str).unwrap_or("");
        tracing::info!(alert = id, rule = held.by.rule, action = held.by.action, "an alert is suppressed");
        let line = json!({
            "at": now.to_string(), "event": "suppressed", "key": event.key, "alert": id, "rule": held.by.rule,
            "action": held.by.action, "owner": held.by.owner,
        });
        ops.push(suppressed::note(id, &held.by));
        ops.push(Op::Audit { at: now, body: line.to_string().into_bytes() });
        ops.push(Op::Put { name: EVER.to_owned(), body: b"1".to_vec() });
        self.ever.store(true, Ordering::Relaxed);
        if let Some(order) = &held.order {
            // One event is resolved once by one rule, however often it is read.
            let key = format!("suppress:{}:{}", event.key, crate::id::hex(&digest16(&[&held.by.rule])));
            match house::made(house::SUPPRESSIONS, intake, &self.catalog, order, key) {
                Ok((deployed, event)) => ops.extend(intake.starting(&deployed, &event, versions)?),
                Err(error) => {
                    tracing::error!(alert = id, %error, "a suppressed alert can't be resolved; it is ignored")
                }
            }
        }
        Ok((ops, offered))
    }
}

/// Only what is new and open is resolved: a person who opens an alert again is not argued with.
fn held(rule: &Rule, event: &Event, alert: Alert<'_>, now: jiff::Timestamp) -> Held {
    let by =
        By { rule: rule.name.to_string(), action: rule.action.as_str().to_owned(), owner: rule.owner.clone(), at: now };
    let order = match &rule.action {
        Action::Resolve { classification, determination, comment }
            if event.kind.ends_with(".new") && alert.is_open() =>
        {
            Some(Order {
                connection: event.connection.as_deref().unwrap_or("").to_owned(),
                alert_ids: vec![alert.id().to_owned()],
                status: Some("Resolved".to_owned()),
                classification: Some((*classification).to_owned()),
                determination: determination.map(str::to_owned),
                comment: comment.clone(),
                by: format!("the suppression rule {}, of {}", rule.name, rule.owner),
                ..Order::default()
            })
        }
        Action::Ignore | Action::Resolve { .. } => None,
    };
    Held { by, again: false, order }
}

#[cfg(test)]
mod tests;
