//! Timers of all runs in one heap: which are due, and when the next one is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use jiff::Timestamp;

use crate::id::OpId;
use crate::journal::RunNo;

#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Timestamp, RunNo, OpId)>>);

impl Timers {
    pub(super) fn add(&mut self, at: Timestamp, run: RunNo, op: OpId) {
        self.0.push(Reverse((at, run, op)));
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.peek().map(|Reverse((at, _, _))| *at)
    }

    /// The next timer that is due. A cancelled one is due too: its run no longer knows it.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<(RunNo, OpId)> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop().map(|Reverse((_, run, op))| (run, op))
    }
}
