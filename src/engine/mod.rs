//! The pure state machine: inputs in, commands out. The same inputs on the same state give the same commands, always.
//!
//! Nothing here reads time, randomness, environment, files or hash-map order.

pub mod command;
pub mod input;

pub use command::{Call, Command, Finish, FinishStatus, Purpose, StepError, Target};
pub use input::{Input, InputKind, Outcome, Verdict};

/// Raised whenever the commands derived from the same inputs change: part of what a run is pinned to.
pub const REVISION: u32 = 1;
