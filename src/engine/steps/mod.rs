//! How each kind of step runs. Each file has a `poll`: begin or go on, and say whether it waits, is done or failed.

pub(super) mod action;
pub(super) mod attempt;
pub(super) mod branch;
pub(super) mod call;
pub(super) mod foreach;
pub(super) mod look;
pub(super) mod parallel;
pub(super) mod shadow;
pub(super) mod simple;
pub(super) mod until;
