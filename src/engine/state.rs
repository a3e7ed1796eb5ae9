//! A run's state: serialisable data, never closures or futures. It is rebuilt by replaying the journal's inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::command::{FinishStatus, StepError, Target};
use super::input::Outcome;
use crate::id::{OpId, RunId};
use crate::value::{Map, Value};

/// Version of the serialised form.
pub const FORMAT: u32 = 1;

/// What a run begins with; it stands in the run's row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seed {
    pub run: RunId,
    pub trigger: Value,
    pub inputs: Value,
    pub accepted: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    pub format: u32,
    pub seed: Seed,
    /// `run.url`, where the installation had a public address when the run began.
    pub(super) url: Option<String>,
    pub(super) next_op: u32,
    pub(super) top: Top,
    /// How often each action that is no read took effect.
    pub effects: BTreeMap<String, u64>,
    /// Calls that were sent and then cut off by a branch that won, a time limit or a person; their locks stand until
    /// they are answered.
    pub(super) orphans: BTreeMap<OpId, Orphan>,
    /// Effects that were cut off while their outcome was unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unsettled: Vec<Unsettled>,
    /// Where it failed for a passing reason: from here a person can have it go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<Box<Failed>>,
    /// What became of calls that were cut off, by path: answers that came later, and what a person said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) late: BTreeMap<Arc<str>, Outcome>,
    /// How often a person had it go on.
    #[serde(default)]
    pub retries: u32,
}

/// A flow as it stood when a step failed, before any handler ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Failed {
    pub(super) frame: Frame,
    pub(super) block: BlockState,
    pub(super) error: StepError,
}

/// An effect that was cut off: where, and of which action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Unsettled {
    pub(super) path: Arc<str>,
    pub(super) action: Arc<str>,
}

impl Unsettled {
    /// What a person reads about it.
    pub(super) fn sentence(&self) -> String {
        let path = self.path.trim_start_matches('/');
        format!("{path}: cut off while its outcome was unknown; it may have taken effect")
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Orphan {
    pub(super) action: Arc<str>,
    pub(super) target: Option<Target>,
    /// Where it stood, for people.
    pub(super) path: Arc<str>,
    /// A lost answer leaves open whether it took effect, and a person must know.
    pub(super) risky: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Top {
    New,
    Entering(OpId),
    Running(FlowState),
    /// Ended, but sent calls are still to be answered.
    Ending(End),
    /// Ended with calls cut off of which nobody knows whether they took effect: a person closes it.
    Uncertain(End, OpId),
    Finished,
}

/// How a flow ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum End {
    Succeeded,
    Failed(StepError),
    Stopped { status: FinishStatus, reason: Option<String> },
}

/// A flow in progress: the run's own, or one that it calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FlowState {
    pub(super) frame: Frame,
    pub(super) phase: FlowPhase,
    /// How its steps stood when one failed: what a retry goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<Box<Failed>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum FlowPhase {
    Steps(BlockState),
    OnFailure(BlockState, StepError),
    Finally(BlockState, End),
}

/// Names bound in one scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Frame {
    pub(super) vars: BTreeMap<Arc<str>, Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) explanations: BTreeMap<Arc<str>, String>,
    /// A called flow sees nothing of its caller.
    #[serde(default)]
    pub(super) barrier: bool,
    /// Bytes bound here, roughly.
    #[serde(default)]
    pub(super) weight: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct BlockState {
    pub(super) pc: usize,
    pub(super) step: Option<Box<StepState>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StepState {
    pub(super) since: Timestamp,
    /// Runs out when a step that is no action takes longer than its `timeout:`.
    pub(super) timer: Option<OpId>,
    pub(super) active: Active,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Active {
    New,
    Action(Box<ActionState>),
    /// `if` (0 then, 1 else) and `switch` (case index; the number of cases is `default`).
    Branch {
        taken: usize,
        block: BlockState,
    },
    Foreach(Box<ForeachState>),
    Until(Box<UntilState>),
    Try {
        block: BlockState,
        caught: Option<(usize, StepError)>,
    },
    Parallel(Vec<BranchState>),
    Wait(OpId),
    Call(Box<FlowState>),
    /// The step failed and its `on_error:` steps run.
    Handling {
        error: StepError,
        block: BlockState,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum BranchState {
    Running(BlockState),
    Done,
    /// With how it stood then.
    Failed(StepError, BlockState),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ForeachState {
    pub(super) items: Vec<Value>,
    pub(super) next: usize,
    pub(super) running: Vec<ItemState>,
    pub(super) results: BTreeMap<usize, Value>,
    pub(super) errors: BTreeMap<usize, StepError>,
    /// `once_per` keys that an item of this loop asked for: a second item with the same key is skipped here, since the
    /// store gives a run its own claim again after a restart.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) keys: BTreeSet<Arc<str>>,
    /// The items under way when one failed, that one among them, as they stood before they were cut off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) kept: Vec<ItemState>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ItemState {
    pub(super) index: usize,
    pub(super) frame: Frame,
    pub(super) block: BlockState,
    pub(super) once: Once,
    /// Something other than a read was sent for it: its `once_per` key stays claimed even if it fails.
    pub(super) sent: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Once {
    None,
    Claiming(OpId, Arc<str>),
    Claimed(Arc<str>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct UntilState {
    pub(super) pass: u32,
    pub(super) block: BlockState,
    pub(super) pause: Option<OpId>,
}

/// One action step on its way: see `steps::action`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ActionState {
    pub(super) inputs: Map,
    pub(super) target: Option<Target>,
    pub(super) locked: bool,
    pub(super) phase: ActionPhase,
    /// Attempts so far, over all rounds: the number recorded beside the call's key.
    pub(super) attempt: u32,
    /// Attempts of this round.
    pub(super) tries: u32,
    /// How many of them found nothing there.
    #[serde(default)]
    pub(super) absent: u32,
    /// Rounds that failed for a passing reason.
    pub(super) round: u32,
    /// Intents whose outcome is unknown.
    pub(super) unknowns: u32,
    pub(super) looks: u32,
    /// Looks since the answer was lost that found no trace.
    pub(super) clean_looks: u32,
    pub(super) intent_at: Option<Timestamp>,
    pub(super) maybe_sent: bool,
    /// The guard knows this call as a read (a listed `http.request`).
    pub(super) as_read: bool,
    /// The accepted output while it is confirmed.
    pub(super) accepted: Option<Value>,
    pub(super) error: Option<StepError>,
    /// It waits for a person because its outcome is unknown, as against a question of the guard.
    #[serde(default)]
    pub(super) uncertain: bool,
    /// An answer was lost that no look-up can find: it is not sent again without a person.
    #[serde(default)]
    pub(super) lost: bool,
    /// The output of a call that a person knows to have taken effect, while it is looked up once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) said: Option<Value>,
    /// The output of a call that was cut off, answered later, and counted then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) late: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum ActionPhase {
    Ready,
    Locking(OpId),
    /// Reading what stands in the way, or (`settle`) whether our own call took effect.
    Looking {
        op: OpId,
        settle: bool,
    },
    LookPause {
        op: OpId,
        settle: bool,
    },
    Checking(OpId),
    Calling(OpId),
    Backoff(OpId),
    RoundPause(OpId),
    ConfirmPause {
        op: OpId,
        since: Timestamp,
    },
    Confirming {
        op: OpId,
        since: Timestamp,
    },
    Parked(OpId),
}

impl RunState {
    pub fn new(seed: Seed) -> Self {
        RunState {
            format: FORMAT,
            seed,
            url: None,
            next_op: 0,
            top: Top::New,
            effects: BTreeMap::new(),
            orphans: BTreeMap::new(),
            unsettled: Vec::new(),
            failed: None,
            late: BTreeMap::new(),
            retries: 0,
        }
    }

    /// The paths of what was cut off, where it waits for a person to say what became of it.
    pub fn cut_off(&self) -> Vec<String> {
        self.unsettled.iter().map(|it| it.path.trim_start_matches('/').to_owned()).collect()
    }

    /// Whether it failed for a passing reason and knows the step to go on from.
    pub fn can_retry(&self) -> bool {
        self.top == Top::Finished && self.failed.is_some()
    }

    pub fn is_finished(&self) -> bool {
        self.top == Top::Finished
    }
}
