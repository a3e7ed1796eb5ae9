//! A run in memory: its state, and the operations that it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::hold::OnHold;
use crate::catalog::{Effect, Type};
use crate::check::CheckedFlow;
use crate::engine::{Call, Command, InputKind, RunState, Target};
use crate::flow::model::OnFull;
use crate::guard::Permit;
use crate::id::OpId;
use crate::journal::{RunRow, RunStatus, Sleep};

/// What the reason of a run begins with that is held and needs no person.
pub const HELD_BACK: &str = "held: ";

/// An operation without an answer yet.
#[derive(Debug)]
pub(super) enum Open {
    /// The permit is here until the intent is on disk.
    Call {
        call: Arc<Call>,
        permit: Option<Permit>,
    },
    Check(Arc<Call>),
    Lock {
        target: Target,
        destructive: bool,
    },
    Timer(Timestamp),
    Once {
        key: Arc<str>,
        until: Timestamp,
    },
    Enter {
        key: Arc<str>,
        max: u32,
        on_full: OnFull,
    },
    Park {
        uncertain: bool,
        reason: String,
        /// What the waiting call's output is; `None` where the run has ended but for what it cut off.
        output: Option<Type>,
    },
}

impl Open {
    fn is_effect(&self) -> bool {
        matches!(self, Open::Call { call, .. } if call.effect() != Effect::Read)
    }
}

#[derive(Debug)]
pub(super) struct Live {
    pub(super) row: RunRow,
    pub(super) flow: Arc<CheckedFlow>,
    pub(super) state: RunState,
    /// Number of the next turn.
    pub(super) seq: u32,
    pub(super) open: BTreeMap<OpId, Open>,
    pub(super) held: Vec<Target>,
    /// The concurrency group in which it has or wants a place.
    pub(super) group: Option<Arc<str>>,
    /// Calls handed to the client and not answered.
    pub(super) sent: BTreeSet<OpId>,
    /// A turn did not reach the disk: nothing more is applied, and once what was sent is answered the run is read again.
    pub(super) stale: bool,
    /// Answers for people that ride with the next turn.
    pub(super) blobs: Vec<crate::journal::Op>,
    /// The guard's permits for the calls that the engine derives from its verdicts, by path.
    pub(super) decided: BTreeMap<Arc<str>, Permit>,
    /// Operations that are held back before they are sent; see `hold`.
    pub(super) on_hold: BTreeMap<OpId, OnHold>,
    /// Until when an operation may be held for a connection that fails, where the flow handles errors itself.
    pub(super) patience: BTreeMap<OpId, Timestamp>,
    /// Counted among those that make calls.
    pub(super) busy: bool,
    /// Counted among those that could sleep.
    pub(super) naps: bool,
    /// Counted among those that rest.
    pub(super) rests: bool,
    /// Counted among those that wait in memory and could wait on disk.
    pub(super) near: bool,
    /// The number of the turn after which it is to leave memory.
    pub(super) leaves: Option<u32>,
    /// What the store says of its sleep, where that is known.
    pub(super) sleep: Option<Sleep>,
}

impl Live {
    pub(super) fn new(row: RunRow, flow: Arc<CheckedFlow>, state: RunState) -> Self {
        Live {
            row,
            flow,
            state,
            seq: 0,
            open: BTreeMap::new(),
            held: Vec::new(),
            group: None,
            sent: BTreeSet::new(),
            stale: false,
            blobs: Vec::new(),
            decided: BTreeMap::new(),
            on_hold: BTreeMap::new(),
            patience: BTreeMap::new(),
            busy: false,
            naps: false,
            rests: false,
            near: false,
            leaves: None,
            sleep: Some(Sleep::Awake),
        }
    }

    /// Whether the run makes calls now, as against waiting for a time, a lock, a person, or the end of what holds it.
    pub(super) fn calls(&self) -> bool {
        let calls = |open: &Open| matches!(open, Open::Call { .. } | Open::Check(_) | Open::Once { .. });
        self.open.iter().any(|(op, open)| calls(open) && !self.on_hold.contains_key(op))
    }

    /// Whether it waits for a person.
    pub(super) fn is_parked(&self) -> bool {
        self.open.values().any(|open| matches!(open, Open::Park { .. }))
    }

    /// Its timers that have not run out.
    pub(super) fn timers(&self) -> impl Iterator<Item = (Timestamp, OpId)> {
        self.open.iter().filter_map(|(op, open)| match open {
            Open::Timer(at) => Some((*at, *op)),
            _ => None,
        })
    }

    /// Whether it has its place in its group, as against waiting for one.
    pub(super) fn entered(&self) -> bool {
        self.group.is_some() && !self.open.values().any(|open| matches!(open, Open::Enter { .. }))
    }

    /// What `runs list` should say: the worst of what it waits for.
    pub(super) fn standing(&self) -> (RunStatus, Option<String>) {
        let parks = || {
            self.open.values().filter_map(|open| match open {
                Open::Park { uncertain, reason, .. } => Some((*uncertain, reason)),
                _ => None,
            })
        };
        let worst = parks().find(|(uncertain, _)| *uncertain).or_else(|| parks().next());
        match worst {
            Some((true, reason)) => (RunStatus::Uncertain, Some(reason.clone())),
            Some((false, reason)) => (RunStatus::Waiting, Some(reason.clone())),
            None => match self.on_hold.values().next() {
                Some(hold) if !self.calls() => (RunStatus::Waiting, Some(format!("{HELD_BACK}{}", hold.reason))),
                _ => (RunStatus::Running, None),
            },
        }
    }

    /// Keeps the books for an input: which operation it answers and what that changes.
    pub(super) fn note_input(&mut self, input: &InputKind) {
        if let InputKind::Outcome { op, .. } | InputKind::Checked { op, .. } | InputKind::Locked { op } = input {
            self.let_go(*op);
        }
        match input {
            InputKind::Started { .. } | InputKind::Cancel { .. } => {}
            // It had ended: whatever it waited for then is of no more meaning.
            InputKind::Retry { .. } => {
                self.open.clear();
                self.held.clear();
                self.on_hold.clear();
                self.patience.clear();
                self.group = None;
            }
            InputKind::Outcome { op, .. }
            | InputKind::Fired { op }
            | InputKind::Once { op, .. }
            | InputKind::Settle { op, .. } => {
                self.open.remove(op);
            }
            InputKind::Checked { op, .. } => {
                self.open.remove(op);
            }
            InputKind::Locked { op } => {
                if let Some(Open::Lock { target, .. }) = self.open.remove(op) {
                    self.held.push(target);
                }
            }
            InputKind::Entered { op, .. } => {
                self.open.remove(op);
            }
        }
    }

    fn let_go(&mut self, op: OpId) {
        if !self.on_hold.is_empty() {
            self.on_hold.remove(&op);
        }
        if !self.patience.is_empty() {
            self.patience.remove(&op);
        }
    }

    /// Keeps the books for a command.
    pub(super) fn note_command(&mut self, command: &Command) {
        let (op, open) = match command {
            Command::Enter { op, key, max, on_full } => {
                self.group = Some(Arc::clone(key));
                (*op, Open::Enter { key: Arc::clone(key), max: *max, on_full: *on_full })
            }
            Command::Lock { op, target, destructive } => {
                (*op, Open::Lock { target: target.clone(), destructive: *destructive })
            }
            Command::Check { op, call } => (*op, Open::Check(Arc::clone(call))),
            Command::Call { op, call } => (*op, Open::Call { call: Arc::clone(call), permit: None }),
            Command::Timer { op, at } => (*op, Open::Timer(*at)),
            Command::Once { op, key, until } => (*op, Open::Once { key: Arc::clone(key), until: *until }),
            Command::Park { op, uncertain, reason, output } => {
                (*op, Open::Park { uncertain: *uncertain, reason: reason.clone(), output: output.clone() })
            }
            // A call that is no read stays: whether it was sent or not, its answer settles it.
            Command::Cancel { op } => {
                if !self.open.get(op).is_some_and(Open::is_effect) {
                    self.open.remove(op);
                    self.let_go(*op);
                }
                return;
            }
            Command::Unlock { target } => {
                self.held.retain(|held| held != target);
                return;
            }
            Command::OnceRelease { .. } | Command::Finish(_) => return,
        };
        self.open.insert(op, open);
    }
}
