//! What goes into `apply`: everything that happens to a run, with its time.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::OpId;
use crate::value::Value;

/// One thing that happened, and when: `at` is the `now` of the turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    pub at: Timestamp,
    pub kind: InputKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputKind {
    /// The run begins. Trigger values and inputs come from the run's row.
    Started {
        /// `run.url`, pinned here so that a changed public address does not change a replay.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
    },
    /// A place in its concurrency group was had, or not (`skip`).
    Entered { op: OpId, entered: bool },
    /// A call was answered, or its answer was lost.
    Outcome { op: OpId, outcome: Outcome },
    /// The guard's word on a call that is no read.
    Checked { op: OpId, verdict: Verdict },
    /// The lock on a target was had.
    Locked { op: OpId },
    /// A timer ran out.
    Fired { op: OpId },
    /// A `once_per` key was claimed, or was taken.
    Once { op: OpId, claimed: bool },
    /// A person, or `cancel_running`, ends the run.
    Cancel { by: String, reason: String },
    /// A person has a dead run go on at the step that failed. `nth` counts these from 0, so that the same one twice is one.
    Retry { nth: u32, by: String, reason: String },
    /// A person says what became of an effect whose outcome nobody knows: of the call that waits as `op`, or of those that
    /// were cut off before the run waited as `op` (`step` names one of them by its path, else all).
    Settle {
        op: OpId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        said: Said,
        by: String,
        reason: String,
    },
}

/// What a person found out about an effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It took effect; with the output where the person gave one.
    Done {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Value>,
    },
    /// It did not: the call is made again, under all guards.
    NotDone,
    /// The step fails, whatever became of it.
    Failed,
}

/// How one attempt of a call ended (S2). 429, other 4xx and connect errors are `Refused` or `NotSent`: the service did
/// nothing. 5xx, reset and time-out are `Unknown`: it may have acted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The kept part of the output.
    Done {
        status: u16,
        output: Value,
    },
    Refused {
        status: u16,
        /// The service's error code, or ours (`throttled`, `bad_input`, `invalid_answer`).
        code: String,
        message: String,
        /// Whether a later attempt may succeed (429, and what a service says is transient).
        transient: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    NotSent {
        /// `held`: it was held back at the last moment; `unavailable`: its connection fails for longer than a flow that
        /// handles errors itself wants to wait.
        code: String,
        message: String,
        transient: bool,
    },
    Unknown {
        status: u16,
        code: String,
        message: String,
    },
}

/// What the guard says before a call that is no read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Go,
    /// The connection lists this `http.request` as read: it is sent and repeated as a read.
    GoRead,
    /// Recorded, not sent.
    Shadow,
    Refuse {
        code: String,
        message: String,
    },
    /// A person must decide; until approvals exist the run waits and only cancelling ends it.
    Ask {
        reason: String,
    },
    /// It is held back and was never sent: everything is asked again, from the lock on.
    Again,
    /// Its connection fails for longer than the flow, which handles errors itself, wants to wait.
    Unavailable {
        message: String,
    },
}
