//! The one way in: an event is matched against the flows, and what it starts is on disk before anybody hears of it.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::letters::Undelivered;
use super::suppress::Suppressor;
use super::suppressed::By;
use super::{Deployed, Event, Flows, Gate, batch, ready, schedule, split};
use crate::clock::Clock;
use crate::expr::{Env, Trace};
use crate::id::RunId;
use crate::journal::{self, Answer, Gather, Offer, Op, RunRow, Store, StoreError};
use crate::value::Value;

/// Longest key of an event; a longer one is replaced by its hash.
const MAX_KEY: usize = 512;

/// Hears of accepted runs when they are on disk, in the order of their numbers within each call. Must not block.
pub type Accepted = Box<dyn Fn(Vec<RunRow>) + Send + Sync>;

/// Takes events, for every trigger.
pub struct Intake {
    pub store: Arc<dyn Store>,
    pub flows: Flows,
    pub clock: Clock,
    pub gate: Arc<Gate>,
    accepted: Accepted,
    bundles: Mutex<HashSet<Arc<str>>>,
    /// Schedules whose next occurrence waits for the end of a run.
    pub queue: schedule::Queue,
    /// Told of gatherings that begin or are full.
    pub(super) gatherings: tokio::sync::Notify,
    /// Who changes the lists of events that wait.
    pub(super) waiting: tokio::sync::Mutex<()>,
    /// What holds alerts back before any flow is asked.
    suppressor: Option<Arc<Suppressor>>,
}

/// What became of a list of events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offered {
    pub started: Vec<RunId>,
    /// On disk, to start a run with others.
    pub gathered: usize,
    pub duplicates: usize,
    /// Filtered out by `where`, or its evaluation failed.
    pub skipped: usize,
}

/// Why an event started nothing, as `why` prints it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Skip {
    pub trigger: Arc<str>,
    /// The filter or the key could not be evaluated: the event is on the dead-letter list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// The daily sweep found it: it became visible too late for any poll.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// A suppression rule kept it from the flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<By>,
}

impl Skip {
    pub(super) fn late(trigger: &Arc<str>) -> Skip {
        Skip { trigger: Arc::clone(trigger), error: None, trace: None, late: true, suppressed: None }
    }
}

impl Intake {
    pub fn new(store: Arc<dyn Store>, flows: Flows, clock: Clock, gate: Arc<Gate>, accepted: Accepted) -> Self {
        Intake {
            store,
            flows,
            clock,
            gate,
            accepted,
            bundles: Mutex::default(),
            queue: schedule::Queue::default(),
            gatherings: tokio::sync::Notify::new(),
            waiting: tokio::sync::Mutex::default(),
            suppressor: None,
        }
    }

    /// The same, with suppression rules at the door.
    #[must_use]
    pub fn suppressing(self, suppressor: Arc<Suppressor>) -> Self {
        Intake { suppressor: Some(suppressor), ..self }
    }

    /// What holds an event back before any flow is asked, and what is to be committed for it.
    pub(super) async fn held_back(
        &self,
        event: &Event,
        versions: &mut Vec<Arc<str>>,
    ) -> Result<Option<(Vec<Op>, Offered)>, StoreError> {
        let Some(suppressor) = &self.suppressor else { return Ok(None) };
        let held = suppressor.judge(self, std::slice::from_ref(event)).await.pop().flatten();
        held.map(|held| suppressor.ops(self, event, &held, versions)).transpose()
    }

    /// The start of an event that nothing is asked about any more, with the texts of its flow.
    pub(super) fn starting(
        &self,
        deployed: &Deployed,
        event: &Event,
        versions: &mut Vec<Arc<str>>,
    ) -> Result<Vec<Op>, StoreError> {
        let mut ops = vec![];
        self.bundle(deployed, versions, &mut ops).map_err(StoreError::Failed)?;
        for decided in decide(deployed, event, self.clock.now()).map_err(StoreError::Failed)? {
            ops.extend(decided.ops());
        }
        Ok(ops)
    }

    /// Offers events to the flows they match. All runs they start, and `also` (a watermark, a schedule's instant), are
    /// one batch: committed together or not at all. Returns after the commit. Where a flow that an event is for can't be
    /// compiled, nothing is offered: the event is not lost, since whoever offers it must come again.
    pub async fn offer(&self, events: Vec<Event>, also: Vec<Op>) -> Result<Offered, StoreError> {
        let flows = self.flows.now();
        let now = self.clock.now();
        let mut offered = Offered::default();
        let mut ops = Vec::with_capacity(events.len() + also.len() + 1);
        let mut versions: Vec<Arc<str>> = vec![];
        let mut waiting = vec![];
        let mut held = match &self.suppressor {
            Some(suppressor) => suppressor.judge(self, &events).await.into_iter(),
            None => vec![].into_iter(),
        };
        for event in &events {
            if let (Some(Some(held)), Some(suppressor)) = (held.next(), &self.suppressor) {
                let (more, counted) = suppressor.ops(self, event, &held, &mut versions)?;
                offered.skipped += counted.skipped;
                ops.extend(more);
                continue;
            }
            for deployed in flows.wanting(event) {
                for decided in decide(deployed, event, now).map_err(StoreError::Failed)? {
                    if let Some(key) = decided.key()
                        && ready::waits(deployed, event, now).map_err(StoreError::Failed)?
                    {
                        waiting.push((deployed.clone(), key.to_owned(), event.clone()));
                        continue;
                    }
                    if decided.key().is_some() {
                        self.bundle(deployed, &mut versions, &mut ops).map_err(StoreError::Failed)?;
                    } else {
                        offered.skipped += 1;
                    }
                    ops.extend(decided.ops());
                }
            }
        }
        // Held to the commit: the list of a flow is read, changed and written as one.
        let _list = if waiting.is_empty() { None } else { Some(self.waiting.lock().await) };
        ops.extend(ready::keep(&*self.store, waiting, now)?);
        ops.extend(also);
        self.commit(ops, versions, offered).await
    }

    /// Starts what was decided for one flow, with `also` in one batch.
    pub(super) async fn start(
        &self,
        deployed: &Deployed,
        decided: Vec<Decided>,
        also: Vec<Op>,
    ) -> Result<Offered, StoreError> {
        let (mut ops, mut versions) = (vec![], vec![]);
        for decided in decided {
            if decided.key().is_some() {
                self.bundle(deployed, &mut versions, &mut ops).map_err(StoreError::Failed)?;
            }
            ops.extend(decided.ops());
        }
        ops.extend(also);
        self.commit(ops, versions, Offered::default()).await
    }

    pub(super) async fn commit(
        &self,
        ops: Vec<Op>,
        versions: Vec<Arc<str>>,
        mut offered: Offered,
    ) -> Result<Offered, StoreError> {
        if ops.is_empty() {
            return Ok(offered);
        }
        let answers = journal::commit(&*self.store, ops).await?;
        self.bundles.lock().unwrap_or_else(PoisonError::into_inner).extend(versions);
        let mut rows = vec![];
        for answer in answers {
            match answer {
                Answer::Offered(Some(row)) => rows.push(*row),
                Answer::Gathered(Some(gathering)) => {
                    offered.gathered += 1;
                    if gathering.events == 1 || gathering.full {
                        self.gatherings.notify_one();
                    }
                }
                Answer::Offered(None) | Answer::Gathered(None) => offered.duplicates += 1,
                Answer::None | Answer::Claimed(_) | Answer::Pruned { .. } => {}
            }
        }
        self.gate.gathered(offered.gathered as u64);
        if !rows.is_empty() {
            offered.started = rows.iter().map(|row| row.id.clone()).collect();
            self.gate.accepted(rows.len() as u64);
            (self.accepted)(rows);
        }
        Ok(offered)
    }

    /// As [`Intake::offer`], to its end even where the caller is dropped while it waits: a run that is on disk but was never
    /// handed over would lie still until the next start.
    pub async fn offer_whole(self: &Arc<Self>, events: Vec<Event>) -> Result<Offered, StoreError> {
        let intake = Arc::clone(self);
        let offered = tokio::spawn(async move { intake.offer(events, vec![]).await });
        offered.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The texts behind a version are stored with the first run that is pinned to it.
    fn bundle(&self, deployed: &Deployed, versions: &mut Vec<Arc<str>>, ops: &mut Vec<Op>) -> Result<(), String> {
        let version = &deployed.card.version;
        let known = self.bundles.lock().unwrap_or_else(PoisonError::into_inner).contains(version);
        if known || versions.contains(version) {
            return Ok(());
        }
        let body = serde_json::to_vec(&deployed.flow()?.bundle)
            .map_err(|error| format!("storing the texts of the flow {}: {error}", deployed.name()))?;
        ops.push(Op::Bundle { version: version.to_string(), body });
        versions.push(Arc::clone(version));
        Ok(())
    }
}

pub(super) enum Decided {
    Start(Box<Offer>),
    /// It starts a run together with others.
    Gather(Box<Gather>),
    Skip(Op),
    /// It can't be judged.
    Letter {
        error: String,
        ops: Vec<Op>,
    },
}

impl Decided {
    /// The key under which it starts a run, alone or with others; `None` where it starts nothing.
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Decided::Start(offer) => Some(&offer.key),
            Decided::Gather(gather) => Some(&gather.event.key),
            Decided::Skip(_) | Decided::Letter { .. } => None,
        }
    }

    /// What is written for it; the texts of its flow are not among it.
    pub(super) fn ops(self) -> Vec<Op> {
        match self {
            Decided::Start(offer) => vec![Op::Offer(offer)],
            Decided::Gather(gather) => vec![Op::Gather(gather)],
            Decided::Skip(op) => vec![op],
            Decided::Letter { ops, .. } => ops,
        }
    }
}

/// The keys under which an event would start runs of a flow.
pub(super) fn would_start(deployed: &Deployed, event: &Event, now: Timestamp) -> Result<Vec<String>, String> {
    let decided = decide(deployed, event, now)?.into_iter();
    Ok(decided.filter_map(|it| it.key().map(str::to_owned)).collect())
}

/// What an event that is for a flow becomes, one or several where the flow splits it. The error says why the flow can't be
/// asked.
pub(super) fn decide(deployed: &Deployed, event: &Event, now: Timestamp) -> Result<Vec<Decided>, String> {
    match split::parts(deployed, event, now)? {
        Ok(parts) => parts.iter().map(|part| judge(deployed, part, now)).collect(),
        Err(error) => Ok(vec![letter(deployed, event, now, format!("split: {error}"), None)]),
    }
}

/// As `decide`, of an event that is not to be split any more. A bug in judging one event for one flow must not keep the
/// others from being offered.
pub(super) fn judge(deployed: &Deployed, event: &Event, now: Timestamp) -> Result<Decided, String> {
    catch_unwind(AssertUnwindSafe(|| decide_one(deployed, event, now))).unwrap_or_else(|_| {
        let error = "judging it panicked, which is a bug, please report it".to_owned();
        Ok(letter(deployed, event, now, error, None))
    })
}

/// Whether an event starts a flow, and with which key. The error says why the flow can't be asked.
fn decide_one(deployed: &Deployed, event: &Event, now: Timestamp) -> Result<Decided, String> {
    let (flow, trigger) = (&deployed.card, deployed.trigger()?);
    let env = TriggerEnv { trigger: &event.payload, inputs: &event.inputs, now };
    // A person who starts a flow by hand has decided: the filter is for events that nobody chose.
    if let (Some(filter), None) = (&trigger.filter, &event.flow) {
        match filter.eval(&env) {
            (Ok(true), _) => {}
            (Ok(false), trace) => return Ok(Decided::Skip(skipped(deployed, event, now, None, Some(trace)))),
            (Err(error), trace) => return Ok(letter(deployed, event, now, format!("where: {error}"), Some(trace))),
        }
    }
    let key = match (&trigger.dedupe, &event.flow) {
        (Some(dedupe), None) => match dedupe.eval(&env) {
            Ok(value) => key_text(&value),
            Err(error) => return Ok(letter(deployed, event, now, format!("dedupe: {error}"), None)),
        },
        _ => event.key.clone(),
    };
    let mut offer = Offer {
        flow: Arc::clone(&flow.name),
        version: Arc::clone(&flow.version),
        trigger: Arc::clone(&event.kind),
        key: bounded(key),
        accepted: now,
        occurred: event.occurred,
        payload: event.payload.clone(),
        inputs: event.inputs.clone(),
    };
    let Some(batch) = &trigger.batch else { return Ok(Decided::Start(Box::new(offer))) };
    let slot = match batch.key.as_ref().map(|key| key.eval(&env)) {
        None => String::new(),
        Some(Ok(value)) => bounded(key_text(&value)),
        Some(Err(error)) => return Ok(letter(deployed, event, now, format!("the key of `batch`: {error}"), None)),
    };
    // Whom a person starts by hand waits for nobody.
    if event.flow.is_some() {
        offer.payload = batch::payload(vec![offer.payload], &slot, now, now);
        return Ok(Decided::Start(Box::new(offer)));
    }
    Ok(Decided::Gather(Box::new(batch::gather(batch, offer, slot))))
}

/// What `why` tells of an event that started nothing.
fn skipped(deployed: &Deployed, event: &Event, at: Timestamp, error: Option<String>, trace: Option<Trace>) -> Op {
    let skip = Skip { trigger: Arc::clone(&event.kind), error, trace, late: false, suppressed: None };
    let body = serde_json::to_vec(&skip).unwrap_or_default();
    Op::Skipped { flow: deployed.name().to_string(), key: bounded(event.key.clone()), at, body }
}

/// What `why` tells of an event that a suppression rule held back.
pub(super) fn suppressed(deployed: &Deployed, event: &Event, at: Timestamp, by: By) -> Op {
    let skip = Skip { trigger: Arc::clone(&event.kind), error: None, trace: None, late: false, suppressed: Some(by) };
    let body = serde_json::to_vec(&skip).unwrap_or_default();
    Op::Skipped { flow: deployed.name().to_string(), key: bounded(event.key.clone()), at, body }
}

/// An event that could not be judged.
pub(super) fn letter(
    deployed: &Deployed,
    event: &Event,
    at: Timestamp,
    error: String,
    trace: Option<Trace>,
) -> Decided {
    tracing::warn!(flow = %deployed.name(), key = %event.key, error, "an event can't be judged: it is a dead letter");
    let skipped = skipped(deployed, event, at, Some(error.clone()), trace.clone());
    let kept = Undelivered::new(event, error.clone(), trace);
    let body = serde_json::to_vec(&kept).unwrap_or_default();
    let (flow, key) = (deployed.name().to_string(), bounded(event.key.clone()));
    Decided::Letter { error, ops: vec![skipped, Op::Letter { flow, key, at, body }] }
}

pub(super) fn key_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        other => other.to_json().to_string(),
    }
}

pub(super) fn bounded(key: String) -> String {
    if key.len() <= MAX_KEY {
        return key;
    }
    format!("sha256:{}", crate::id::hex(&crate::id::digest16(&[&key])))
}

/// What the texts of a trigger can read.
pub(super) struct TriggerEnv<'a> {
    pub(super) trigger: &'a Value,
    pub(super) inputs: &'a Value,
    pub(super) now: Timestamp,
}

impl Env for TriggerEnv<'_> {
    fn lookup(&self, name: &str) -> Option<&Value> {
        match name {
            "trigger" => Some(self.trigger),
            "inputs" => Some(self.inputs),
            _ => None,
        }
    }

    fn now(&self) -> Timestamp {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, event, flow};
    use super::*;

    #[tokio::test]
    async fn one_event_starts_each_matching_flow_once() {
        let mut desk = Desk::new(vec![flow("a", "mde.alert.new", "mde"), flow("b", "mde.alert.new", "other")]);
        let first = desk.intake.offer(vec![event("mde:1"), event("mde:2")], vec![]).await.unwrap();
        assert_eq!((first.started.len(), first.duplicates), (2, 0));
        let again = desk.intake.offer(vec![event("mde:2"), event("mde:3")], vec![]).await.unwrap();
        assert_eq!((again.started.len(), again.duplicates), (1, 1));
        assert_eq!(desk.taken().len(), 3);
        assert_eq!(desk.intake.gate.open_runs(), 3);
        assert!(desk.intake.store.bundle("v-a").unwrap().is_some());
    }

    #[tokio::test]
    async fn what_happened_before_the_activation_starts_nothing() {
        let desk = Desk::new(vec![flow("a", "mde.alert.new", "mde")]);
        let mut early = event("mde:1");
        early.occurred = "2026-11-19T23:59:59Z".parse().unwrap();
        let offered = desk.intake.offer(vec![early], vec![]).await.unwrap();
        assert_eq!(offered, Offered::default());
    }

    #[tokio::test]
    async fn a_watermark_moves_with_its_runs() {
        let desk = Desk::new(vec![flow("a", "mde.alert.new", "mde")]);
        let put = Op::Put { name: "poll/mde".into(), body: b"x".to_vec() };
        desk.intake.offer(vec![event("mde:1")], vec![put]).await.unwrap();
        assert_eq!(desk.intake.store.get("poll/mde").unwrap().as_deref(), Some(b"x".as_slice()));
    }

    #[test]
    fn endless_keys_are_hashed() {
        assert_eq!(bounded("k".into()), "k");
        assert!(bounded("k".repeat(600)).len() < 50);
    }
}
