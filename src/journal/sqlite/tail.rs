//! The end of the log that is not sorted into the tables yet: what happened to each run since, and lines of the audit log.
//!
//! The writer keeps it in memory; a reader makes it from the rows of the log, inside the same snapshot as the tables.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::pack;
use super::record::{AWAKE, Entry, Part};
use crate::journal::{RunNo, RunStatus, StoreError};

#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) runs: BTreeMap<RunNo, Pending>,
    pub(super) audit: Vec<Line>,
    /// What it weighs in memory, about.
    pub(super) bytes: usize,
}

/// What happened to one run since its row was last written.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// It was accepted since, so it has no row.
    pub(super) start: Option<Start>,
    pub(super) status: Option<(RunStatus, Option<String>)>,
    /// When it ended, where it has not gone on since.
    pub(super) ended: Option<i64>,
    /// Its effects as JSON (empty: none), as its last end had them.
    pub(super) effects: Option<String>,
    /// When it wakes, where that has changed.
    pub(super) wake: Option<i64>,
    /// It stayed in the log when that was last sorted, since more of it was to come soon.
    pub(super) carried: bool,
    /// How many turns are among the parts.
    pub(super) turns: u32,
    /// Its parts, one after the other.
    pub(super) parts: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Start {
    pub(super) origin: i64,
    pub(super) key: String,
    pub(super) accepted: i64,
    pub(super) occurred: i64,
}

/// A line of the audit log (see `chain`).
#[derive(Debug)]
pub(super) struct Line {
    pub(super) no: i64,
    pub(super) at: i64,
    pub(super) hash: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl Tail {
    /// What a store's log holds.
    pub(super) fn read(connection: &Connection) -> Result<Tail, StoreError> {
        let mut tail = Tail::default();
        let mut statement = connection.prepare_cached("SELECT no, body FROM log ORDER BY no")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let raw = pack::unpack(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?, |model| {
                pack::model_text(connection, model)
            })?;
            let mut rest = raw.as_slice();
            while !rest.is_empty() {
                let Some(entry) = Entry::read(&mut rest) else {
                    let no: i64 = row.get(0)?;
                    return Err(StoreError::Damaged(format!("row {no} of its log cannot be read")));
                };
                tail.apply(&entry);
            }
        }
        Ok(tail)
    }

    pub(super) fn apply(&mut self, entry: &Entry<'_>) {
        self.bytes += 48;
        match *entry {
            Entry::Start { run, origin, key, accepted, occurred } => {
                self.bytes += 200 + key.len();
                self.run(run).start = Some(Start { origin, key: key.to_owned(), accepted, occurred });
            }
            Entry::Part { run, part } => {
                let pending = self.run(run);
                let before = pending.parts.len();
                part.write(&mut pending.parts);
                pending.turns += u32::from(matches!(part, Part::Turn { .. }));
                self.bytes += self.run(run).parts.len() - before;
            }
            Entry::Status { run, status, reason } => {
                let pending = self.run(run);
                pending.status = Some((status, reason.map(str::to_owned)));
                // A run that had ended goes on.
                pending.ended = None;
            }
            Entry::Sleep { run, wake } => self.run(run).wake = Some(wake),
            Entry::Finish { run, status, reason, ended, effects } => {
                self.bytes += effects.len();
                let pending = self.run(run);
                pending.status = Some((status, reason.map(str::to_owned)));
                pending.ended = Some(ended);
                pending.effects = Some(effects.to_owned());
                pending.wake = Some(AWAKE);
            }
            Entry::Audit { no, at, hash, body } => {
                self.bytes += body.len();
                self.audit.push(Line { no, at, hash: hash.to_vec(), body: body.to_vec() });
            }
        }
    }

    /// What it holds, as entries. A run's status and its end are given where it has them.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (run, pending) in &self.runs {
            let run = *run;
            if let Some(start) = &pending.start {
                let Start { origin, ref key, accepted, occurred } = *start;
                Entry::Start { run, origin, key, accepted, occurred }.write(out);
            }
            let mut parts = pending.parts.as_slice();
            while let Some(part) = Part::read(&mut parts) {
                Entry::Part { run, part }.write(out);
            }
            if let Some((status, reason)) = &pending.status {
                let (status, reason) = (*status, reason.as_deref());
                if let Some(effects) = &pending.effects {
                    Entry::Finish { run, status, reason, ended: pending.ended.unwrap_or(0), effects }.write(out);
                }
                if pending.ended.is_none() {
                    Entry::Status { run, status, reason }.write(out);
                }
            }
            if let Some(wake) = pending.wake {
                Entry::Sleep { run, wake }.write(out);
            }
        }
        for Line { no, at, hash, body } in &self.audit {
            Entry::Audit { no: *no, at: *at, hash, body }.write(out);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.audit.is_empty()
    }

    fn run(&mut self, run: RunNo) -> &mut Pending {
        self.runs.entry(run).or_default()
    }
}
