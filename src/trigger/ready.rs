//! Events that wait for their evidence: each is read again until the flow's `ready:` holds of it, or its time is up.
//!
//! They stand in a list for each flow, written in the batch that would have started their runs and changed in the batch that
//! does. So none is lost or started twice, and a restart goes on with the list.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::listing::Fetch;
use super::offer::{self, TriggerEnv};
use super::{Deployed, Event, Intake, manual};
use crate::catalog::Catalog;
use crate::journal::{Op, Store, StoreError};
use crate::value::Value;

/// How often each is read.
const EVERY: Duration = Duration::from_secs(5);
/// Events of one flow that wait at the same time; another one starts as if its time were up.
const MOST: usize = 200;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Waiting {
    /// Under which it will start a run.
    key: String,
    event_key: String,
    id: String,
    occurred: Timestamp,
    until: Timestamp,
    payload: Value,
}

/// Whether an event must wait for a flow. A person who starts a flow by hand does not wait.
pub(super) fn waits(deployed: &Deployed, event: &Event, now: Timestamp) -> Result<bool, String> {
    if !deployed.card.waits || event.flow.is_some() || id(event).is_none() {
        return Ok(false);
    }
    let trigger = deployed.trigger()?;
    Ok(trigger.ready.as_ref().is_some_and(|ready| !holds(&ready.cond, &event.payload, now)))
}

/// A member that is not there yet is evidence that is not there yet.
fn holds(cond: &crate::expr::Cond, payload: &Value, now: Timestamp) -> bool {
    let env = TriggerEnv { trigger: payload, inputs: &Value::empty(), now };
    matches!(cond.eval(&env), (Ok(true), _))
}

/// The id by which an event is read again.
fn id(event: &Event) -> Option<String> {
    let id = |name: &str| event.payload.get(name)?.as_str().map(str::to_owned);
    match event.kind.split('.').nth(1)? {
        "alert" => id("alert_id"),
        "incident" => id("incident_id"),
        _ => id("detection_id"),
    }
}

/// The lists with these events, to be written where nothing else changes them meanwhile.
pub(super) fn keep(
    store: &dyn Store,
    new: Vec<(Deployed, String, Event)>,
    now: Timestamp,
) -> Result<Vec<Op>, StoreError> {
    let mut lists: BTreeMap<Arc<str>, Vec<Waiting>> = BTreeMap::new();
    for (deployed, key, event) in new {
        let flow = deployed.name();
        if store.is_known(flow, &key)? {
            continue;
        }
        let list = match lists.entry(Arc::clone(flow)) {
            std::collections::btree_map::Entry::Occupied(list) => list.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => free.insert(list(store, flow)?),
        };
        if list.iter().any(|waiting| waiting.key == key) {
            continue;
        }
        let timeout = deployed.trigger().ok().and_then(|it| it.ready.as_ref().map(|ready| ready.timeout));
        let timeout = timeout.and_then(|it| SignedDuration::try_from(it).ok()).unwrap_or(SignedDuration::ZERO);
        let full = list.len() >= MOST;
        if full {
            tracing::warn!(%flow, key, "{MOST} events wait for their evidence: this one does not wait");
        }
        let until = if full { now } else { now.checked_add(timeout).unwrap_or(now) };
        let Some(id) = id(&event) else { continue };
        list.push(Waiting { key, event_key: event.key, id, occurred: event.occurred, until, payload: event.payload });
    }
    Ok(lists.into_iter().map(|(flow, list)| put(&flow, &list)).collect())
}

/// Whether an event waits for a flow under a key.
pub(super) fn is_waiting(store: &dyn Store, flow: &str, key: &str) -> Result<bool, StoreError> {
    Ok(list(store, flow)?.iter().any(|waiting| waiting.key == key))
}

fn name(flow: &str) -> String {
    format!("ready/{flow}")
}

fn list(store: &dyn Store, flow: &str) -> Result<Vec<Waiting>, StoreError> {
    let body = store.get(&name(flow))?;
    body.map_or(Ok(vec![]), |body| {
        serde_json::from_slice(&body)
            .map_err(|error| StoreError::Failed(format!("reading the events of {flow} that wait: {error}")))
    })
}

fn put(flow: &str, list: &[Waiting]) -> Op {
    Op::Put { name: name(flow), body: serde_json::to_vec(list).unwrap_or_default() }
}

/// Reads the events that wait until the token is cancelled.
pub async fn run(intake: Arc<Intake>, catalog: Arc<Catalog>, client: Arc<dyn Fetch>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let look = look(&intake, &catalog, &*client);
        tokio::select! {
            () = stop.cancelled() => return,
            () = look => {}
        }
    }
}

/// Looks once at every event that waits.
pub async fn look(intake: &Intake, catalog: &Catalog, client: &dyn Fetch) {
    let flows = intake.flows.now();
    for deployed in flows.iter().filter(|deployed| deployed.card.waits) {
        let waiting = match list(&*intake.store, deployed.name()) {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!(flow = %deployed.name(), %error, "events that wait could not be read");
                continue;
            }
        };
        for one in waiting {
            if let Err(error) = settle(intake, catalog, client, deployed, one).await {
                tracing::warn!(flow = %deployed.name(), %error, "an event that waits could not be settled");
            }
        }
    }
}

async fn settle(
    intake: &Intake,
    catalog: &Catalog,
    client: &dyn Fetch,
    deployed: &Deployed,
    mut waiting: Waiting,
) -> Result<(), StoreError> {
    let trigger = deployed.trigger().map_err(StoreError::Failed)?;
    let (Some(ready), Some(connection)) = (&trigger.ready, &trigger.connection) else { return Ok(()) };
    match manual::read(catalog, client, &trigger.kind, connection, &waiting.id).await {
        Ok(seen) => {
            // What the poll alone knew (the fields that changed) stays.
            let mut payload = waiting.payload.as_map().cloned().unwrap_or_default();
            payload.extend(seen.payload.as_map().cloned().unwrap_or_default());
            waiting.payload = Value::map(payload);
        }
        Err(error) => tracing::debug!(flow = %deployed.name(), %error, "an event that waits could not be read again"),
    }
    let now = intake.clock.now();
    let is_ready = holds(&ready.cond, &waiting.payload, now);
    if !is_ready && now < waiting.until {
        return Ok(());
    }
    let event = Event {
        kind: Arc::clone(&trigger.kind),
        connection: Some(Arc::clone(connection)),
        flow: None,
        only: Some(Arc::clone(deployed.name())),
        key: waiting.event_key.clone(),
        occurred: waiting.occurred,
        payload: waiting.payload.clone(),
        inputs: Value::empty(),
    };
    // With its evidence a rule may fit it that did not before.
    let mut versions = vec![];
    if let Some((mut ops, offered)) = intake.held_back(&event, &mut versions).await? {
        let _list = intake.waiting.lock().await;
        let mut left = list(&*intake.store, deployed.name())?;
        left.retain(|other| other.key != waiting.key);
        ops.push(put(deployed.name(), &left));
        return intake.commit(ops, versions, offered).await.map(drop);
    }
    let decided = if is_ready || !ready.or_fail {
        offer::decide(deployed, &event, now).map_err(StoreError::Failed)?
    } else {
        let error = "ready: it was not so in time".to_owned();
        vec![offer::letter(deployed, &event, now, error, None)]
    };
    let _list = intake.waiting.lock().await;
    let mut left = list(&*intake.store, deployed.name())?;
    left.retain(|other| other.key != waiting.key);
    intake.start(deployed, decided, vec![put(deployed.name(), &left)]).await.map(drop)
}
