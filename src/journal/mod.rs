//! The durable record from which runs are resumed, behind one narrow trait.
//!
//! Writes are batches: all of a batch or none of it, in the order of submission. Many batches share one commit.

pub mod chain;
#[cfg(test)]
pub mod conformance;
pub mod memory;
pub mod sqlite;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::chain::AuditLine;
use crate::id::RunId;
use crate::value::Value;

/// The named value that a backup has and a living store has not: when it was taken. A service that finds it works on a
/// restored copy, whose past may be older than the world's.
pub const BACKUP: &str = "store/backup";

/// Number of a run in its store, in the order of acceptance; the key of its rows.
pub type RunNo = i64;

/// Status of a run, as `runs list` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    Queued,
    Running,
    Waiting,
    Succeeded,
    Failed,
    Cancelled,
    Uncertain,
    Dead,
}

impl RunStatus {
    pub const ALL: [RunStatus; 8] = [
        RunStatus::Queued,
        RunStatus::Running,
        RunStatus::Waiting,
        RunStatus::Succeeded,
        RunStatus::Failed,
        RunStatus::Cancelled,
        RunStatus::Uncertain,
        RunStatus::Dead,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Queued => "queued",
            RunStatus::Running => "running",
            RunStatus::Waiting => "waiting",
            RunStatus::Succeeded => "succeeded",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "cancelled",
            RunStatus::Uncertain => "uncertain",
            RunStatus::Dead => "dead",
        }
    }

    /// The status that a word names, `None` for any other word.
    pub fn parse(text: &str) -> Option<Self> {
        RunStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether nothing more will happen to the run by itself and its rows need no replay at start.
    /// `waiting` and `uncertain` runs are alive: a person ends them.
    pub fn is_final(self) -> bool {
        matches!(self, RunStatus::Succeeded | RunStatus::Failed | RunStatus::Cancelled | RunStatus::Dead)
    }
}

/// An event offered for one flow. Refused as a duplicate while its key is remembered (400 days).
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub flow: Arc<str>,
    /// Hash of the bundle that the run is pinned to; the bundle is stored before (see `Op::Bundle`).
    pub version: Arc<str>,
    /// The trigger type, `mde.alert.new`.
    pub trigger: Arc<str>,
    /// Readable key of the event, `mde:da637…_1`; unique per flow. Its hash with the flow's name is what is unique.
    pub key: String,
    pub accepted: Timestamp,
    /// When it happened at the source: what `fresh_for` measures from.
    pub occurred: Timestamp,
    /// `trigger.*`.
    pub payload: Value,
    /// `inputs.*`.
    pub inputs: Value,
}

/// Number of a gathering in its store; never given twice.
pub type GatheringNo = i64;

/// An event that waits for others, to start one run with them.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    pub event: Offer,
    /// Which events of the flow belong together.
    pub slot: String,
    /// When its gathering is to be closed, where this event begins it.
    pub due: Timestamp,
    /// Events of a gathering, at most.
    pub most: u32,
    /// Bytes of their payloads as JSON, at most; one event alone may have more.
    pub most_bytes: u64,
}

/// Events of one flow and version that will start a run together.
#[derive(Clone, Debug, PartialEq)]
pub struct Gathering {
    pub no: GatheringNo,
    pub flow: Arc<str>,
    pub version: Arc<str>,
    pub slot: String,
    /// When its first event came.
    pub opened: Timestamp,
    pub due: Timestamp,
    pub events: u32,
    /// Nothing joins it any more.
    pub full: bool,
}

/// What an event became that was taken for a flow.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// It started this run, alone or with others. The run itself may be forgotten.
    Run(RunNo),
    Gathering(Gathering),
}

/// A run's row.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    pub no: RunNo,
    pub id: RunId,
    pub flow: Arc<str>,
    pub version: Arc<str>,
    pub trigger: Arc<str>,
    pub key: String,
    pub status: RunStatus,
    /// Why it waits or how it ended, one line.
    pub reason: Option<String>,
    pub accepted: Timestamp,
    pub occurred: Timestamp,
    pub ended: Option<Timestamp>,
    pub payload: Value,
    pub inputs: Value,
    /// How often each action that is no read took effect; known at the end.
    pub effects: BTreeMap<String, u64>,
    /// What of the row can't be read, where something can't: such a run is listed and can be cancelled, and never goes on.
    pub damaged: Option<String>,
}

impl RunRow {
    /// The row of an offer that was just accepted.
    fn accepted(no: RunNo, id: RunId, offer: &Offer) -> Self {
        RunRow {
            no,
            id,
            flow: Arc::clone(&offer.flow),
            version: Arc::clone(&offer.version),
            trigger: Arc::clone(&offer.trigger),
            key: offer.key.clone(),
            status: RunStatus::Queued,
            reason: None,
            accepted: offer.accepted,
            occurred: offer.occurred,
            ended: None,
            payload: offer.payload.clone(),
            inputs: offer.inputs.clone(),
            effects: BTreeMap::new(),
            damaged: None,
        }
    }
}

/// One thing to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A run, unless its key is known. Answer: `Answer::Offered`.
    Offer(Box<Offer>),
    /// An event for a run of several, unless its key is known: from now on it is, as if it had started a run. It joins the
    /// gathering of its flow, version and slot that has room, else it begins another one. Answer: `Answer::Gathered`.
    Gather(Box<Gather>),
    /// A run for all events of a gathering, which is none any more. Answer: `Answer::Offered`, with `None` where the
    /// gathering is gone or holds another number of events: then the run would not be for what it says.
    Close { gathering: GatheringNo, events: u32, offer: Box<Offer> },
    /// One turn of a run that was accepted. `(run, seq)` is unique; a second row with the same number fails the batch, and
    /// so does one whose predecessor is missing: a run with a gap could never be resumed.
    Turn { run: RunNo, seq: u32, body: Vec<u8> },
    /// The status and why of a run that has not ended, or goes on again; `Waiting` and `Uncertain` with a reason.
    Status { run: RunNo, status: RunStatus, reason: Option<String> },
    /// Whether a run needs a place in memory. Its end wakes it for good.
    Sleep { run: RunNo, sleep: Sleep },
    /// The end of a run.
    Finish { run: RunNo, status: RunStatus, reason: Option<String>, ended: Timestamp, effects: BTreeMap<String, u64> },
    /// A full, redacted answer for people; at most 1 MiB, longer ones are cut by the caller. The last one of a path and
    /// attempt stands.
    Blob { run: RunNo, path: String, attempt: u32, body: Vec<u8> },
    /// The texts behind a version; ignored where known.
    Bundle { version: String, body: Vec<u8> },
    /// A named small value: watermarks, schedules, activations.
    Put { name: String, body: Vec<u8> },
    /// A use of a limit: `scope` is what is counted (`mde/destructive`, `*/destructive`), `key` the call's key.
    /// The same (scope, key) counts once, at its latest time.
    Reserve { scope: String, key: String, at: Timestamp },
    /// Claims a key until an instant, unless it is claimed. Answer: `Answer::Claimed`.
    /// The same run claiming until the same instant is the same claim asked for again (a restart), and has it.
    Claim { key: String, run: RunNo, at: Timestamp, until: Timestamp },
    /// Frees a run's own claim; another run's stays.
    Release { key: String, run: RunNo },
    /// An event that started nothing, for `why`; replaces an earlier one of the same flow and key.
    Skipped { flow: String, key: String, at: Timestamp, body: Vec<u8> },
    /// An event that could not be judged for a flow: a dead letter; replaces an earlier one of the same flow and key,
    /// unless a person dropped that.
    Letter { flow: String, key: String, at: Timestamp, body: Vec<u8> },
    /// A dead letter is none any more: gone, since it was offered again, or kept as `dropped`, so that the same event
    /// offered once more does not bring it back.
    LetterDone { flow: String, key: String, dropped: bool },
    /// Forgets something whose time is over, a bounded part of it. Answer: `Answer::Pruned`.
    Prune(Prune),
    /// One line of the audit log, chained to the one before it (see `chain`).
    Audit { at: Timestamp, body: Vec<u8> },
}

/// How long a run's key refuses its event, whether the run is still there or not.
pub const REMEMBERED: std::time::Duration = std::time::Duration::from_secs(400 * 86_400);

/// What is forgotten. Runs that have not ended are never touched. Steps over runs go from number to number.
#[derive(Clone, Debug, PartialEq)]
pub enum Prune {
    /// Runs that ended before an instant, dead ones before another, with all that belongs to them but their keys.
    Runs {
        after: RunNo,
        ended: Timestamp,
        dead: Timestamp,
    },
    /// What runs were given, did and were answered, where they ended well or not before an instant; never of dead ones,
    /// which can go on.
    Payloads {
        after: RunNo,
        ended: Timestamp,
    },
    Letters {
        before: Timestamp,
    },
    Skipped {
        before: Timestamp,
    },
    Reservations {
        before: Timestamp,
    },
    /// Claims that have run out.
    Claims {
        before: Timestamp,
    },
    /// Lines from the first on; the chain is verified from what the last of them was.
    Audit {
        before: Timestamp,
    },
    /// Keys of runs that are gone, one 256th of them.
    Keys {
        before: Timestamp,
        slice: u8,
    },
}

/// Whether a run that has begun may lie on disk alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// No: it makes calls, holds something or waits for it, and is taken up again at every start.
    Awake,
    /// Nothing happens to it before this instant, unless a person does something.
    Until(Timestamp),
    /// Only a person makes it go on.
    ForPerson,
}

/// A run as it is read to go on.
#[derive(Clone, Debug)]
pub struct Whole {
    pub row: RunRow,
    /// As `Store::turns` gives them. Where they can't be read, the other runs can.
    pub turns: Result<Vec<Vec<u8>>, StoreError>,
}

/// Runs that wait to begin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queued {
    pub rows: Vec<RunRow>,
    /// Up to this number `rows` has all that are queued.
    pub horizon: RunNo,
    /// Whether the limit was reached, so that there may be more behind the horizon.
    pub more: bool,
}

/// What an operation answers; `None` for most.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    None,
    /// The new run's row, or `None` for a duplicate.
    Offered(Option<Box<RunRow>>),
    Claimed(bool),
    /// The gathering that the event belongs to now, or `None` for a duplicate.
    Gathered(Option<Box<Gathering>>),
    /// Where to go on, `None` where nothing is left. For what has no numbers it is 0.
    Pruned {
        next: Option<RunNo>,
    },
}

/// Called once on the writer's thread after the commit, or with the error. Must not block.
pub type Done = Box<dyn FnOnce(Result<Vec<Answer>, StoreError>) + Send>;

/// Writes that stand or fall together.
pub struct Batch {
    pub ops: Vec<Op>,
    /// Somebody waits for the commit. A batch that nobody waits for may wait for company (at most 50 ms).
    pub urgent: bool,
    pub done: Option<Done>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the disk is full: {0}")]
    Full(String),
    #[error("{0}")]
    Failed(String),
    #[error("the store was made by a newer watchfloor (format {found}, this one knows {known}); install that version")]
    Newer { found: i64, known: i64 },
    #[error("another watchfloor uses this store: {0}")]
    Locked(String),
    /// What one run's rows hold can't be used; others' can.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    #[error("the store is closed")]
    Closed,
}

/// Which runs to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct RunQuery {
    pub flow: Option<String>,
    pub status: Option<RunStatus>,
    /// Accepted at or after.
    pub since: Option<Timestamp>,
    /// Runs with a number below this one: the next page.
    pub before: Option<RunNo>,
    /// Exact event key, or an alert id that the key ends with.
    pub key: Option<String>,
    /// 0 is all of them.
    pub limit: usize,
}

impl RunQuery {
    /// Whether a run is among those that are asked for, apart from the limit.
    fn fits(&self, row: &RunRow) -> bool {
        let key = |wanted: &String| {
            row.key == *wanted || row.key.strip_suffix(wanted.as_str()).is_some_and(|head| head.ends_with(':'))
        };
        self.flow.as_deref().is_none_or(|flow| *flow == *row.flow)
            && self.status.is_none_or(|status| status == row.status)
            && self.since.is_none_or(|since| row.accepted >= since)
            && self.before.is_none_or(|before| row.no < before)
            && self.key.as_ref().is_none_or(key)
    }
}

/// A use of a limit that still counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Reservation {
    pub scope: String,
    pub key: String,
    pub at: Timestamp,
}

/// A full answer as it was kept for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Blob {
    pub path: String,
    pub attempt: u32,
    pub body: Vec<u8>,
}

/// Which dead letters of events to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct LetterQuery {
    pub flow: Option<String>,
    /// Last offered at or after.
    pub since: Option<Timestamp>,
    /// 0 is all of them.
    pub limit: usize,
}

/// An event that could not be judged for a flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    pub flow: String,
    pub key: String,
    pub at: Timestamp,
    pub body: Vec<u8>,
}

impl Letter {
    /// Its name: `event-` and the first 16 hex digits of a hash of flow and key.
    pub fn id(flow: &str, key: &str) -> String {
        format!("event-{}", crate::id::hex(&crate::id::digest16(&[flow, key])[..8]))
    }
}

/// A durable store. Reads see all that was committed before they began. Reads may block for a disk access: call them
/// off the worker's loop.
pub trait Store: Send + Sync + 'static {
    /// Queues a batch. Order of submission is order of commit. Never blocks on a disk.
    fn write(&self, batch: Batch);

    /// As `write` for each, in this order.
    fn write_all(&self, batches: Vec<Batch>) {
        batches.into_iter().for_each(|batch| self.write(batch));
    }

    fn run(&self, id: &RunId) -> Result<Option<RunRow>, StoreError>;
    fn runs(&self, query: &RunQuery) -> Result<Vec<RunRow>, StoreError>;
    /// Runs with their turns, in the order in which they are asked for; one that does not exist is left out.
    fn whole(&self, runs: &[RunNo]) -> Result<Vec<Whole>, StoreError>;
    /// The first `limit` runs with numbers above `after` that have not begun, in the order of acceptance.
    fn queued(&self, after: RunNo, limit: usize) -> Result<Queued, StoreError>;
    /// Numbers of the runs that have begun, have not ended and do not sleep, in the order of acceptance.
    fn awake(&self) -> Result<Vec<RunNo>, StoreError>;
    /// Runs that sleep until an instant, the earliest first.
    fn sleepers(&self) -> Result<Vec<(RunNo, Timestamp)>, StoreError>;
    /// Bodies of a run's turns in order of `seq`, from 0 without a gap.
    fn turns(&self, run: RunNo) -> Result<Vec<Vec<u8>>, StoreError>;
    fn blobs(&self, run: RunNo) -> Result<Vec<Blob>, StoreError>;
    fn bundle(&self, version: &str) -> Result<Option<Vec<u8>>, StoreError>;
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// Uses of limits at or after an instant, oldest first.
    fn reservations(&self, since: Timestamp) -> Result<Vec<Reservation>, StoreError>;
    /// Whether an event has started a run of a flow or waits to: whether offering it again would be refused as a duplicate.
    fn is_known(&self, flow: &str, key: &str) -> Result<bool, StoreError>;
    /// What became of an event of a flow, by its key; `None` where it is not known.
    fn taken(&self, flow: &str, key: &str) -> Result<Option<Taken>, StoreError>;
    /// All gatherings, in the order in which they began.
    fn gatherings(&self) -> Result<Vec<Gathering>, StoreError>;
    /// The events of a gathering, in the order in which they came; none where there is no such gathering.
    fn gathered(&self, gathering: GatheringNo) -> Result<Vec<Offer>, StoreError>;
    fn skipped(&self, flow: &str, key: &str) -> Result<Option<(Timestamp, Vec<u8>)>, StoreError>;
    /// Dead letters of events that are neither done nor dropped.
    fn letters(&self, query: &LetterQuery) -> Result<Vec<Letter>, StoreError>;
    /// One of them, by its id.
    fn letter(&self, id: &str) -> Result<Option<Letter>, StoreError>;
    /// Lines of the audit log with a number above this one, in order; at most so many.
    fn audit(&self, after: i64, limit: usize) -> Result<Vec<AuditLine>, StoreError>;
    /// How many runs have each status.
    fn counts(&self) -> Result<BTreeMap<RunStatus, u64>, StoreError>;
    /// Commits (and so syncs) since the store was opened.
    fn commits(&self) -> u64;
    /// Whether a read may wait for a disk.
    fn blocks(&self) -> bool {
        true
    }
}

/// Reads off the loop where the store may block, and at once where it does not: then all happens in one order.
///
/// # Errors
/// A sentence, where the read panicked.
pub async fn off_loop<T: Send + 'static>(
    store: &Arc<dyn Store>,
    read: impl FnOnce(&dyn Store) -> T + Send + 'static,
) -> Result<T, String> {
    if !store.blocks() {
        return Ok(read(&**store));
    }
    let store = Arc::clone(store);
    tokio::task::spawn_blocking(move || read(&*store)).await.map_err(|error| error.to_string())
}

/// Since when this store is a copy, where it is one that was restored: its past may be older than the world's.
///
/// # Errors
/// The store can't be read.
pub fn restored(store: &dyn Store) -> Result<Option<Timestamp>, StoreError> {
    let body = store.get(BACKUP)?;
    Ok(body.and_then(|body| std::str::from_utf8(&body).ok()?.parse().ok()))
}

/// What makes a restored copy a living store again.
pub fn settled() -> Op {
    Op::Put { name: BACKUP.to_owned(), body: Vec::new() }
}

/// Writes a batch and waits for its commit.
pub async fn commit(store: &dyn Store, ops: Vec<Op>) -> Result<Vec<Answer>, StoreError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    store.write(Batch { ops, urgent: true, done: Some(Box::new(move |answer| drop(sender.send(answer)))) });
    receiver.await.unwrap_or(Err(StoreError::Closed))
}
