//! The pure state machine: inputs in, commands out. The same inputs on the same state give the same commands, always.
//!
//! Nothing here reads time, randomness, environment, files or hash-map order.

mod again;
mod apply;
mod block;
pub mod command;
mod context;
pub mod input;
pub mod observe;
mod retry;
pub mod state;
mod steps;

pub use apply::{apply, apply_observed};
pub use command::{Call, Command, Finish, FinishStatus, Purpose, StepError, Target};
pub use input::{Input, InputKind, Outcome, Said, Verdict};
pub use state::{RunState, Seed};

/// Raised whenever the commands derived from the same inputs change: part of what a run is pinned to.
pub const REVISION: u32 = crate::check::program::ENGINE_REVISION;
