//! Timers of the runs in memory: which are due, and when the next one is.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::id::OpId;
use crate::journal::RunNo;

#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Timestamp, RunNo, OpId)>);

impl Timers {
    pub(super) fn add(&mut self, at: Timestamp, run: RunNo, op: OpId) {
        self.0.insert((at, run, op));
    }

    pub(super) fn remove(&mut self, at: Timestamp, run: RunNo, op: OpId) {
        self.0.remove(&(at, run, op));
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(at, _, _)| *at)
    }

    /// Takes the next timer that is due.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<(RunNo, OpId)> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop_first().map(|(_, run, op)| (run, op))
    }
}
