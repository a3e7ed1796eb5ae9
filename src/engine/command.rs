//! What `apply` answers: what the worker is to do.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalog::{Action, Effect};
use crate::check::program::Keep;
use crate::flow::model::{OnFull, StopStatus};
use crate::id::OpId;
use crate::value::{Map, Value};

#[derive(Clone, Debug)]
pub enum Command {
    /// Take a place in a concurrency group; answered by `Entered`.
    Enter {
        op: OpId,
        key: Arc<str>,
        max: u32,
        on_full: OnFull,
    },
    /// Lock a target; answered by `Locked`. Destructive ones go first.
    Lock {
        op: OpId,
        target: Target,
        destructive: bool,
    },
    Unlock {
        target: Target,
    },
    /// Ask the guard about a call that is no read; answered by `Checked`.
    Check {
        op: OpId,
        call: Arc<Call>,
    },
    /// One attempt; answered by `Outcome`.
    Call {
        op: OpId,
        call: Arc<Call>,
    },
    /// Answered by `Fired`.
    Timer {
        op: OpId,
        at: Timestamp,
    },
    /// Forget a timer, a wait for a lock or a call not yet sent.
    Cancel {
        op: OpId,
    },
    /// Claim a `once_per` key until an instant; answered by `Once`.
    Once {
        op: OpId,
        key: Arc<str>,
        until: Timestamp,
    },
    OnceRelease {
        key: Arc<str>,
    },
    /// The run waits for a person.
    Park {
        op: OpId,
        uncertain: bool,
        reason: String,
        /// What its output is, where a call waits; `None` where the run has ended but for what it cut off.
        output: Option<crate::catalog::Type>,
    },
    Finish(Finish),
}

/// One attempt of one operation. It goes through many hands and none of them changes it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The stable path of the operation, such as `/steps[1]/then/isolation`.
    pub path: Arc<str>,
    pub attempt: u32,
    pub purpose: Purpose,
    pub action: Arc<Action>,
    pub connection: Arc<str>,
    /// Inputs by parameter name, typed and complete with defaults.
    pub inputs: Map,
    /// What of the output comes back in `Outcome::Done`.
    pub keep: Arc<Keep>,
    pub target: Option<Target>,
    /// Limit of one attempt, in milliseconds.
    pub timeout_ms: u64,
    /// Hide inputs and outputs in history.
    pub secure: bool,
    /// The output type where the step declares more than the action (columns, response schema).
    pub output: crate::catalog::Type,
    /// Answered before and sent again because the answer was lost: the page says "maybe sent".
    pub maybe_sent: bool,
    /// The flow handles errors here itself, so it wants to hear of a connection that fails for longer than `timeout_ms`.
    pub handled: bool,
}

impl Call {
    pub fn effect(&self) -> Effect {
        self.action.effect
    }
}

/// Why a call is made. Guard reads, look-ups, confirmations and retries always ask afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    Main,
    /// Before a destructive call, or to settle an unknown outcome.
    Look,
    Confirm,
}

/// What a call acts on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    pub kind: Arc<str>,
    /// Lower case, so that no spelling escapes a lock or a rule.
    pub id: Arc<str>,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    pub status: FinishStatus,
    pub reason: Option<String>,
    pub error: Option<StepError>,
    pub outputs: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishStatus {
    Succeeded,
    Failed,
    Cancelled,
    /// Failed again and again for a passing reason: on the dead-letter list.
    Dead,
}

impl From<StopStatus> for FinishStatus {
    fn from(status: StopStatus) -> Self {
        match status {
            StopStatus::Succeeded => FinishStatus::Succeeded,
            StopStatus::Failed => FinishStatus::Failed,
            StopStatus::Cancelled => FinishStatus::Cancelled,
        }
    }
}

/// Why a step failed: `error.step .code .status .message` in handlers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepError {
    pub step: Arc<str>,
    pub code: String,
    pub status: u16,
    pub message: String,
    /// Passing by nature: another attempt later may succeed.
    #[serde(default)]
    pub transient: bool,
}
