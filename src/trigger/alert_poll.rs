//! Polling for new alerts, incidents and detections: one poller per connection and trigger type, shared by all flows (S4).
//!
//! The watermark moves in the transaction of the last page's runs, and never on an error. Every poll reads again what is
//! at most an hour older than the watermark, since services show alerts late; ids seen before are not offered again, and
//! the journal's unique key decides where memory was lost.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{Event, Intake, entity};
use crate::catalog::{Action, Catalog, Paging, TriggerSpec};
use crate::connector::client::Client;
use crate::engine::Outcome;
use crate::journal::{Op, StoreError};
use crate::value::{Map, Value};

/// How late an alert may become visible and still be picked up.
const OVERLAP: SignedDuration = SignedDuration::from_mins(60);
/// Pages of one poll, against a service that never ends.
const MAX_PAGES: usize = 1_000;
/// Ids that a poller remembers; beyond that the journal alone tells duplicates.
const MAX_SEEN: usize = 200_000;
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// Reads lists; the client does, and tests do.
pub trait Fetch: Send + Sync {
    fn fetch(
        &self,
        connection: &str,
        action: &str,
        inputs: Map,
    ) -> futures_util::future::BoxFuture<'static, Result<Value, Outcome>>;
}

impl Fetch for Client {
    fn fetch(
        &self,
        connection: &str,
        action: &str,
        inputs: Map,
    ) -> futures_util::future::BoxFuture<'static, Result<Value, Outcome>> {
        Client::fetch(self, connection, action, inputs)
    }
}

/// One poller.
pub struct Poller {
    kind: Arc<str>,
    connection: Arc<str>,
    action: Arc<Action>,
    since: Arc<str>,
    every: Duration,
    intake: Arc<Intake>,
    client: Arc<dyn Fetch>,
    watermark: Timestamp,
    /// Whether the store has a watermark of this poller. Without one, the next start would begin at its own time and lose
    /// what came in between.
    stored: bool,
    seen: HashMap<String, Timestamp>,
}

/// Why a poll came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    #[error("{0}")]
    Service(String, Option<Duration>),
    #[error("storing what was polled: {0}")]
    Store(#[from] StoreError),
    #[error("the list did not end after {MAX_PAGES} pages")]
    Endless,
}

/// The pollers that the flows of now need.
pub fn pollers(
    intake: &Arc<Intake>,
    catalog: &Catalog,
    client: &Arc<dyn Fetch>,
    intervals: &std::collections::BTreeMap<String, Duration>,
    from: Option<Timestamp>,
) -> Result<Vec<Poller>, StoreError> {
    let flows = intake.flows.now();
    let wanted: BTreeSet<(Arc<str>, Arc<str>)> = flows
        .iter()
        .filter_map(|deployed| {
            let trigger = &deployed.flow.trigger;
            Some((Arc::clone(&trigger.kind), Arc::clone(trigger.connection.as_ref()?)))
        })
        .collect();
    let mut pollers = vec![];
    for (kind, connection) in wanted {
        let Some(spec) = catalog.triggers.get(&kind) else { continue };
        let Some((action, since)) = list_of(spec, catalog) else { continue };
        let stored = intake.store.get(&name(&connection, &kind))?;
        let stored = stored.and_then(|body| std::str::from_utf8(&body).ok()?.parse::<Timestamp>().ok());
        let every = intervals.get(&*kind).copied().or(spec.poll).unwrap_or(Duration::from_secs(60));
        pollers.push(Poller {
            stored: from.is_none() && stored.is_some(),
            watermark: from.or(stored).unwrap_or_else(|| intake.clock.now()),
            kind,
            connection,
            action,
            since,
            every,
            intake: Arc::clone(intake),
            client: Arc::clone(client),
            seen: HashMap::new(),
        });
    }
    Ok(pollers)
}

fn list_of(spec: &TriggerSpec, catalog: &Catalog) -> Option<(Arc<Action>, Arc<str>)> {
    Some((Arc::clone(catalog.action(spec.list.as_ref()?)?), Arc::clone(spec.since.as_ref()?)))
}

fn name(connection: &str, kind: &str) -> String {
    format!("poll/{connection}/{kind}")
}

impl Poller {
    /// Polls until the token is cancelled. An error is logged, the pause grows, and nothing moves.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0u32;
        loop {
            let pause = if self.intake.gate.is_full() {
                tracing::warn!(trigger = %self.kind, "the backlog is full: polling pauses");
                self.every
            } else {
                match self.poll().await {
                    Ok(()) => {
                        failures = 0;
                        self.every
                    }
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        let pause = backoff(self.every, failures, &error);
                        let seconds = pause.as_secs();
                        tracing::warn!(trigger = %self.kind, connection = %self.connection, %error, seconds,
                            "polling failed; it is tried again");
                        pause
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One poll: every page from the watermark minus the overlap on.
    pub async fn poll(&mut self) -> Result<(), PollError> {
        let now = self.intake.clock.now();
        // A clock that was ahead once must not leave this poller deaf until that time has come.
        let from = self.watermark.min(now);
        let from = from.checked_sub(OVERLAP).unwrap_or(from);
        let mut highest = self.watermark;
        let mut skip = 0i64;
        for _ in 0..MAX_PAGES {
            let page = self.page(from, skip).await?;
            let items = page.get("value").and_then(Value::as_list).unwrap_or(&[]);
            let fresh = self.fresh(items, from, &mut highest);
            let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
            skip = skip.saturating_add(count);
            let last = !self.is_paged() || count < self.page_size();
            // A clock ahead of ours must not carry the watermark past alerts that are still to come.
            let watermark = highest.min(now);
            let mut also = vec![];
            if last {
                also.push(Op::Put {
                    name: name(&self.connection, &self.kind),
                    body: watermark.to_string().into_bytes(),
                });
            }
            if !fresh.is_empty() || (last && (watermark != self.watermark || !self.stored)) {
                let ids: Vec<_> = fresh.iter().map(|(id, event)| (id.clone(), event.occurred)).collect();
                let offered = self.intake.offer(fresh.into_iter().map(|(_, event)| event).collect(), also).await?;
                self.seen.extend(ids);
                tracing::debug!(trigger = %self.kind, started = offered.started.len(), "polled");
            }
            crate::fail::at("page");
            if last {
                self.watermark = watermark;
                self.stored = true;
                self.forget();
                return Ok(());
            }
        }
        Err(PollError::Endless)
    }

    /// The entities that were not seen before, as events. The filter is checked again here: services have ignored it.
    fn fresh(&self, items: &[Value], from: Timestamp, highest: &mut Timestamp) -> Vec<(String, Event)> {
        let mut fresh = vec![];
        for item in items {
            let Some(seen) = entity::read(&self.kind, &self.since, item) else {
                tracing::warn!(trigger = %self.kind, connection = %self.connection,
                    "the service listed something without an id or a time; it is left out");
                continue;
            };
            if seen.occurred < from {
                continue;
            }
            *highest = (*highest).max(seen.occurred);
            if self.seen.contains_key(&seen.id) {
                continue;
            }
            let event = Event {
                kind: Arc::clone(&self.kind),
                connection: Some(Arc::clone(&self.connection)),
                flow: None,
                only: None,
                key: format!("{}:{}", self.connection, seen.id),
                occurred: seen.occurred,
                payload: seen.payload,
                inputs: Value::empty(),
            };
            fresh.push((seen.id, event));
        }
        fresh
    }

    async fn page(&self, from: Timestamp, skip: i64) -> Result<Value, PollError> {
        let mut inputs = Map::new();
        inputs.insert("since".into(), Value::Datetime(from));
        if self.is_paged() {
            inputs.insert("top".into(), Value::Int(self.page_size()));
            inputs.insert("skip".into(), Value::Int(skip));
        }
        // The client fills in the catalogue's defaults; what it is given here are the inputs that differ.
        for param in &self.action.inputs {
            if let Some(default) = &param.default {
                inputs.entry(Arc::clone(&param.name)).or_insert_with(|| default.clone());
            }
        }
        self.client.fetch(&self.connection, &self.action.name, inputs).await.map_err(|outcome| failure(&outcome))
    }

    fn is_paged(&self) -> bool {
        matches!(self.action.paging, Paging::TopSkip | Paging::HasNext)
    }

    fn page_size(&self) -> i64 {
        match self.action.paging {
            Paging::HasNext => 100,
            _ => 1_000,
        }
    }

    fn forget(&mut self) {
        // Twice the overlap, so that nothing at its edge is offered again and again.
        if let Ok(edge) = self.watermark.checked_sub(OVERLAP + OVERLAP) {
            self.seen.retain(|_, occurred| *occurred >= edge);
        }
        if self.seen.len() > MAX_SEEN {
            self.seen.clear();
        }
    }
}

fn failure(outcome: &Outcome) -> PollError {
    match outcome {
        Outcome::Done { .. } => PollError::Service("an answer came as a failure".into(), None),
        Outcome::Refused { status, code, message, retry_after_ms, .. } => {
            PollError::Service(format!("{status} {code}: {message}"), retry_after_ms.map(Duration::from_millis))
        }
        Outcome::NotSent { code, message, .. } | Outcome::Unknown { code, message, .. } => {
            PollError::Service(format!("{code}: {message}"), None)
        }
    }
}

/// The interval doubled with each failure, or what the service asked for, at most five minutes.
fn backoff(every: Duration, failures: u32, error: &PollError) -> Duration {
    let doubled = every.saturating_mul(1 << failures.min(6).saturating_sub(1));
    let asked = match error {
        PollError::Service(_, Some(after)) => *after,
        _ => Duration::ZERO,
    };
    doubled.max(asked).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests;
