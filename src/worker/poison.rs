//! A bug ends one run, not the process and not the other runs: what panics is tried again from its rows, and the third time
//! it is a dead letter.
//!
//! The count is on disk, so that a run that panics while the service starts cannot keep it from starting.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::RunEvent;
use super::live::Live;
use super::run_loop::Loop;
use crate::check::CheckedFlow;
use crate::journal::{Op, RunRow, RunStatus};

/// So often a run may panic.
const PANICS: u32 = 3;

/// Why a run can't go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stuck {
    Because(String),
    /// With what was said.
    Panicked(String),
}

impl std::fmt::Display for Stuck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stuck::Because(why) => f.write_str(why),
            Stuck::Panicked(what) => write!(f, "it panicked, which is a bug, please report it: {what}"),
        }
    }
}

/// Runs what may hold a bug.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, Stuck> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(Stuck::Because),
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
            Err(Stuck::Panicked(text.unwrap_or_default().chars().take(300).collect()))
        }
    }
}

impl Loop {
    /// The flow that a run is pinned to.
    pub(super) fn flow_of(&self, row: &RunRow) -> Result<Arc<CheckedFlow>, Stuck> {
        guarded(|| self.deps.registry.flow(&row.flow, &row.version))
    }

    /// What can't go on waits for a person; what panicked is tried again.
    pub(super) fn stuck(&mut self, row: RunRow, why: Stuck) {
        match why {
            Stuck::Because(reason) => self.strand(row, &reason),
            Stuck::Panicked(what) => {
                self.count_panic(&row, &what);
                if !self.dead_of_panics(&row) {
                    self.reload_later(row.id);
                }
            }
        }
    }

    /// A run panicked in memory: it is read again from the disk, once what it sent is answered.
    pub(super) fn abandon(&mut self, mut live: Box<Live>, what: &str) {
        self.count_panic(&live.row, what);
        live.stale = true;
        self.keep_stale(live);
    }

    fn count_panic(&mut self, row: &RunRow, what: &str) {
        let stored = || self.deps.store.get(&name(row)).ok().flatten();
        let stored = || stored().and_then(|body| String::from_utf8(body).ok()?.parse().ok()).unwrap_or(0);
        let count = self.panics.get(&row.no).map_or_else(stored, |(count, _)| *count) + 1;
        tracing::error!(run = %row.id, flow = %row.flow, what, count, "a run panicked; this is a bug, please report it");
        self.write(vec![Op::Put { name: name(row), body: count.to_string().into_bytes() }]);
        self.panics.insert(row.no, (count, what.to_owned()));
    }

    /// Ends a run that has panicked too often.
    pub(super) fn dead_of_panics(&mut self, row: &RunRow) -> bool {
        let Some((count, what)) = self.panics.get(&row.no).filter(|(count, _)| *count >= PANICS) else { return false };
        let mut row = row.clone();
        let now = self.deps.clock.now();
        row.status = RunStatus::Dead;
        row.ended = Some(now);
        row.reason = Some(format!("it panicked {count} times, which is a bug, please report it: {what}"));
        let mut ops = vec![Op::Finish {
            run: row.no,
            status: row.status,
            reason: row.reason.clone(),
            ended: now,
            effects: row.effects.clone(),
        }];
        ops.extend(self.deps.registry.ended(&row, now));
        self.write(ops);
        self.publish(|| RunEvent::Ended(Arc::new(row)));
        true
    }

    /// A person has it go on: it may panic as often again.
    pub(super) fn pardon(&mut self, row: &RunRow) -> Op {
        self.panics.remove(&row.no);
        Op::Put { name: name(row), body: b"0".to_vec() }
    }
}

fn name(row: &RunRow) -> String {
    format!("poison/{}", row.id)
}
