//! Polling for new alerts, incidents and detections: one poller per connection and trigger type, shared by all flows (S4).
//!
//! The watermark moves in the transaction of the last page's runs, and never on an error. Every poll reads again what is
//! at most an hour older than the watermark, since services show alerts late; ids seen before are not offered again, and
//! the journal's unique key decides where memory was lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Deployment, Event, Intake, entity};
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
/// Until a poller whose watermark could not be read is tried again.
const REOPEN: Duration = Duration::from_secs(5);

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
    /// The catalogue's interval; the configuration's, where it has one, is looked up each time.
    default: Duration,
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

/// What a poller is told by: the trigger type and the connection.
type Key = (Arc<str>, Arc<str>);

/// The pollers that the flows of now need: begun and ended as the flows change. One that stays keeps its watermark and
/// what it has seen.
pub struct Pollers {
    intake: Arc<Intake>,
    catalog: Arc<Catalog>,
    client: Arc<dyn Fetch>,
    flows: watch::Receiver<Arc<Deployment>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    running: BTreeMap<Key, CancellationToken>,
}

impl Pollers {
    /// Begins what is needed now; `from` stands in for the stored watermarks.
    pub fn start(
        intake: Arc<Intake>,
        catalog: Arc<Catalog>,
        client: Arc<dyn Fetch>,
        from: Option<Timestamp>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Pollers, StoreError> {
        let flows = intake.flows.watch();
        let mut pollers = Pollers { intake, catalog, client, flows, tasks, stop, running: BTreeMap::new() };
        pollers.adapt(from)?;
        Ok(pollers)
    }

    /// Follows the flows until the token is cancelled.
    pub async fn run(mut self) {
        let mut again = None;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                changed = self.flows.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(again.unwrap_or(Duration::MAX)), if again.is_some() => {}
            }
            again = self.adapt(None).err().map(|error| {
                tracing::error!(%error, "a poller could not be started; it is tried again");
                REOPEN
            });
        }
    }

    fn adapt(&mut self, from: Option<Timestamp>) -> Result<(), StoreError> {
        let deployment = Arc::clone(&self.flows.borrow_and_update());
        let wanted: BTreeSet<Key> =
            deployment.polled().map(|(kind, connection)| (Arc::clone(kind), Arc::clone(connection))).collect();
        self.running.retain(|key, stop| {
            let stays = wanted.contains(key);
            if !stays {
                tracing::info!(trigger = %key.0, connection = %key.1, "no flow needs this poller any more");
                stop.cancel();
            }
            stays
        });
        for key in wanted {
            if self.running.contains_key(&key) {
                continue;
            }
            if let Some(poller) = self.poller(&key, &deployment, from)? {
                let stop = self.stop.child_token();
                self.tasks.spawn(poller.run(stop.clone()));
                self.running.insert(key, stop);
            }
        }
        Ok(())
    }

    fn poller(
        &self,
        (kind, connection): &Key,
        deployment: &Deployment,
        from: Option<Timestamp>,
    ) -> Result<Option<Poller>, StoreError> {
        let Some(spec) = self.catalog.triggers.get(kind) else { return Ok(None) };
        let Some((action, since)) = list_of(spec, &self.catalog) else { return Ok(None) };
        let stored = self.intake.store.get(&name(connection, kind))?;
        let stored = stored.and_then(|body| std::str::from_utf8(&body).ok()?.parse::<Timestamp>().ok());
        // No flow wants what was before all of them: a poller that was not needed for a week does not read that week.
        let begun = deployment.activated(kind, connection);
        let resumed = stored.map(|stored| begun.map_or(stored, |begun| stored.max(begun)));
        Ok(Some(Poller {
            stored: from.is_none() && stored.is_some(),
            watermark: from.or(resumed).unwrap_or_else(|| self.intake.clock.now()),
            kind: Arc::clone(kind),
            connection: Arc::clone(connection),
            action,
            since,
            default: spec.poll.unwrap_or(Duration::from_secs(60)),
            intake: Arc::clone(&self.intake),
            client: Arc::clone(&self.client),
            seen: HashMap::new(),
        }))
    }
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
        let mut flows = self.intake.flows.watch();
        loop {
            let every = self.every();
            let pause = if self.intake.gate.is_full() {
                tracing::warn!(trigger = %self.kind, "the backlog is full: polling pauses");
                every
            } else {
                match self.poll().await {
                    Ok(()) => {
                        failures = 0;
                        every
                    }
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        let pause = backoff(every, failures, &error);
                        let seconds = pause.as_secs();
                        tracing::warn!(trigger = %self.kind, connection = %self.connection, %error, seconds,
                            "polling failed; it is tried again");
                        pause
                    }
                }
            };
            let mut due = Instant::now() + pause;
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep_until(due) => break,
                    // A shorter interval counts at once; a reload alone is no reason to ask sooner.
                    changed = flows.changed() => match changed {
                        Ok(()) if self.every() != every => due = due.min(Instant::now() + self.every()),
                        Ok(()) => {}
                        Err(_) => return,
                    }
                }
            }
        }
    }

    fn every(&self) -> Duration {
        self.intake.flows.now().given.poll.get(&*self.kind).copied().unwrap_or(self.default)
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
