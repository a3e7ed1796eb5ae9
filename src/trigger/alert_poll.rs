//! Polling for new alerts, incidents and detections: one poller per connection and trigger type, shared by all flows (S4).
//!
//! The watermark moves in the transaction of the last page's runs, and never on an error. Every poll reads again what is
//! at most an hour older than the watermark, since services show alerts late; ids seen before are not offered again, and
//! the journal's unique key decides where memory was lost.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::changes::Changes;
use super::listing::{Cursor, Listing, MAX_PAGES, Span};
pub use super::listing::{Fetch, PollError};
use super::{Deployment, Event, Intake};
use crate::catalog::Catalog;
use crate::journal::{self, Op, StoreError};
use crate::value::Value;

/// How late an alert may become visible and still be picked up.
pub(super) const OVERLAP: SignedDuration = SignedDuration::from_mins(60);
/// Ids that a poller remembers; beyond that the journal alone tells duplicates.
const MAX_SEEN: usize = 200_000;
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// Until a poller whose watermark could not be read is tried again.
const REOPEN: Duration = Duration::from_secs(5);
/// A list that is too long to be read at once is read in parts, and none is shorter.
const SHORTEST: SignedDuration = SignedDuration::from_mins(1);

/// One poller.
pub struct Poller {
    listing: Listing,
    /// The catalogue's interval; the configuration's, where it has one, is looked up each time.
    default: Duration,
    intake: Arc<Intake>,
    watermark: Timestamp,
    /// Whether the store has a watermark of this poller. Without one, the next start would begin at its own time and lose
    /// what came in between.
    stored: bool,
    seen: HashMap<String, Timestamp>,
    /// What is known of each entity, where its changes are the events.
    changes: Option<Changes>,
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
        let begun = deployment.activated(kind, connection);
        Poller::open(&self.intake, &self.catalog, &self.client, (kind, connection), begun, from)
    }
}

/// The lists that the flows of now are started from: one for each connection and trigger type.
pub(super) fn listings(intake: &Intake, catalog: &Catalog, client: &Arc<dyn Fetch>) -> Vec<Listing> {
    let flows = intake.flows.now();
    let listing = |(kind, connection): (&Arc<str>, &Arc<str>)| {
        Listing::of(catalog.triggers.get(kind)?, catalog, connection, client)
    };
    flows.polled().filter_map(listing).collect()
}

pub(super) fn name(listing: &Listing) -> String {
    format!("poll/{}/{}", listing.connection, listing.kind)
}

impl Poller {
    /// The poller of a trigger type and a connection, from where the store says that the last one was. `begun` is when the
    /// first of its flows began; `from` stands in for the stored watermark. `None` for what is not polled.
    pub fn open(
        intake: &Arc<Intake>,
        catalog: &Catalog,
        client: &Arc<dyn Fetch>,
        (kind, connection): (&Arc<str>, &Arc<str>),
        begun: Option<Timestamp>,
        from: Option<Timestamp>,
    ) -> Result<Option<Poller>, StoreError> {
        let Some(spec) = catalog.triggers.get(kind) else { return Ok(None) };
        let Some(listing) = Listing::of(spec, catalog, connection, client) else { return Ok(None) };
        let stored = super::instant(&*intake.store, &name(&listing))?;
        // No flow wants what was before all of them: a poller that was not needed for a week does not read that week.
        let resumed = stored.map(|stored| begun.map_or(stored, |begun| stored.max(begun)));
        let changes = kind.ends_with(".changed").then(|| Changes::new(&listing, catalog, intake));
        // What changed in the past can't be told any more: changes begin with what is known of the entities.
        let from = from.filter(|_| changes.is_none());
        Ok(Some(Poller {
            stored: from.is_none() && stored.is_some(),
            watermark: from.or(resumed).unwrap_or_else(|| intake.clock.now()),
            listing,
            default: spec.poll.unwrap_or(Duration::from_secs(60)),
            intake: Arc::clone(intake),
            seen: HashMap::new(),
            changes,
        }))
    }

    /// Polls until the token is cancelled. An error is logged, the pause grows, and nothing moves.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0u32;
        let mut flows = self.intake.flows.watch();
        loop {
            let every = self.every();
            let held = self.intake.gate.unpolled(&self.listing.connection, self.intake.clock.now());
            let pause = if let Some(why) = held {
                // The watermark stays: what comes meanwhile is read afterwards.
                tracing::debug!(trigger = %self.listing.kind, connection = %self.listing.connection, why, "polling waits");
                every
            } else if self.intake.gate.is_full() {
                tracing::warn!(trigger = %self.listing.kind, "the backlog is full: polling pauses");
                every
            } else {
                match self.poll().await {
                    Ok(()) => {
                        failures = 0;
                        every
                    }
                    Err(PollError::Held(why)) => {
                        let connection = &self.listing.connection;
                        tracing::debug!(trigger = %self.listing.kind, %connection, why, "polling waits");
                        every
                    }
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        let pause = backoff(every, failures, &error);
                        let seconds = pause.as_secs();
                        tracing::warn!(trigger = %self.listing.kind, connection = %self.listing.connection, %error, seconds,
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
        self.intake.flows.now().given.poll.get(&*self.listing.kind).copied().unwrap_or(self.default)
    }

    /// Where this poller begins, on disk before anything is read: a start that dies before the first watermark must not
    /// leave out what a later one, beginning at its own time, would take for old. What is told by its changes is learnt first.
    async fn begin(&mut self) -> Result<(), StoreError> {
        if !self.stored && self.changes.is_none() {
            journal::commit(&*self.intake.store, vec![self.mark(self.watermark)]).await?;
            self.stored = true;
        }
        Ok(())
    }

    fn mark(&self, watermark: Timestamp) -> Op {
        Op::Put { name: name(&self.listing), body: watermark.to_string().into_bytes() }
    }

    /// One poll: everything from the watermark minus the overlap on.
    pub async fn poll(&mut self) -> Result<(), PollError> {
        self.begin().await?;
        let now = self.intake.clock.now();
        // A clock that was ahead once must not leave this poller deaf until that time has come.
        let from = self.watermark.min(now);
        let back = match &self.changes {
            // What is there at the beginning is learnt, so that later it can be told what changed.
            Some(_) if !self.stored => super::changes::LEARNT,
            _ => OVERLAP,
        };
        let from = from.checked_sub(back).unwrap_or(from);
        match self.read(Span { from, until: None }, now).await {
            Err(PollError::TooMuch(message)) if self.listing.until.is_some() => {
                tracing::warn!(trigger = %self.listing.kind, message, "the list is read in parts");
                self.in_parts(from, now).await
            }
            done => done,
        }
    }

    /// The same in parts, the oldest first, each half of what was too much.
    async fn in_parts(&mut self, from: Timestamp, now: Timestamp) -> Result<(), PollError> {
        let halves = |part: Span| {
            let length = part.until.unwrap_or(now).duration_since(part.from);
            let middle = part.from.checked_add(length / 2).unwrap_or(part.from);
            let parts = [Span { from: middle, ..part }, Span { from: part.from, until: Some(middle) }];
            (length > SHORTEST).then_some(parts)
        };
        let mut parts = Vec::from_iter(halves(Span { from, until: None }).into_iter().flatten());
        while let Some(part) = parts.pop() {
            match (self.read(part, now).await, halves(part)) {
                (Err(PollError::TooMuch(_)), Some(halves)) => parts.extend(halves),
                (read, _) => read?,
            }
        }
        Ok(())
    }

    /// Every page of one span, each page's events in one transaction; with the last one the watermark moves.
    async fn read(&mut self, span: Span, now: Timestamp) -> Result<(), PollError> {
        let mut highest = span.until.map_or(self.watermark, |until| until.max(self.watermark));
        let mut cursor = Cursor::default();
        for _ in 0..MAX_PAGES {
            let page = self.listing.page(span, &mut cursor).await?;
            let (fresh, mut also) = self.fresh(&page.items, span, &mut highest)?;
            // A clock ahead of ours must not carry the watermark past alerts that are still to come.
            let watermark = highest.min(now);
            if page.is_last && (watermark != self.watermark || !self.stored || !fresh.is_empty()) {
                also.push(self.mark(watermark));
            }
            if !fresh.is_empty() || !also.is_empty() {
                let ids: Vec<_> = fresh.iter().map(|(id, event)| (id.clone(), event.occurred)).collect();
                let offered = self.intake.offer(fresh.into_iter().map(|(_, event)| event).collect(), also).await?;
                self.seen.extend(ids);
                tracing::debug!(trigger = %self.listing.kind, started = offered.started.len(), "polled");
            }
            crate::fail::at("page");
            if page.is_last {
                self.watermark = watermark;
                self.stored = true;
                self.forget();
                return Ok(());
            }
        }
        Err(PollError::Endless)
    }

    /// The entities that were not seen before, as events, and what is to be remembered of them.
    #[expect(clippy::type_complexity, reason = "used once, right above")]
    fn fresh(
        &self,
        items: &[Value],
        span: Span,
        highest: &mut Timestamp,
    ) -> Result<(Vec<(String, Event)>, Vec<Op>), StoreError> {
        let mut fresh = vec![];
        let mut met = HashSet::new();
        for item in items {
            let Some(seen) = self.listing.read(item, span) else { continue };
            *highest = (*highest).max(seen.occurred);
            let id = match &self.changes {
                None => seen.id.clone(),
                Some(_) => format!("{}@{}", seen.occurred, seen.id),
            };
            if self.seen.contains_key(&id) || !met.insert(id.clone()) {
                continue;
            }
            fresh.push((id, seen));
        }
        match &self.changes {
            Some(changes) => changes.judge(fresh),
            None => {
                let event = |(id, seen): (String, super::entity::Seen)| {
                    let key = format!("{}:{}", self.listing.connection, seen.id);
                    (id, polled(&self.listing, key, seen.occurred, seen.payload))
                };
                Ok((fresh.into_iter().map(event).collect(), vec![]))
            }
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

/// The event of something that a service listed.
pub(super) fn polled(listing: &Listing, key: String, occurred: Timestamp, payload: Value) -> Event {
    Event {
        kind: Arc::clone(&listing.kind),
        connection: Some(Arc::clone(&listing.connection)),
        flow: None,
        only: None,
        key,
        occurred,
        payload,
        inputs: Value::empty(),
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
