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

/// A tail that a reader keeps, to read on where it ended: the log only grows, until it is sorted.
#[derive(Debug, Default)]
pub(super) struct Kept {
    tail: Tail,
    /// Its last row of the log.
    last: i64,
    /// How often the log had been sorted then.
    folds: i64,
}

impl Kept {
    /// The tail as a snapshot has it, which must be no older than the last one. After an error it is of no use.
    pub(super) fn catch_up(&mut self, connection: &Connection) -> Result<&Tail, StoreError> {
        let sql = "SELECT coalesce((SELECT value FROM marks WHERE name = 'folds'), 0)";
        let folds: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        if folds != self.folds {
            *self = Kept { folds, ..Kept::default() };
        }
        self.last = self.tail.read_on(connection, self.last)?;
        Ok(&self.tail)
    }
}

impl Tail {
    /// What a store's log holds.
    pub(super) fn read(connection: &Connection) -> Result<Tail, StoreError> {
        let mut tail = Tail::default();
        tail.read_on(connection, 0)?;
        Ok(tail)
    }

    /// Takes in what the log holds after a row; answers its last one.
    fn read_on(&mut self, connection: &Connection, after: i64) -> Result<i64, StoreError> {
        let mut last = after;
        let mut statement = connection.prepare_cached("SELECT no, body FROM log WHERE no > ?1 ORDER BY no")?;
        let mut rows = statement.query([after])?;
        while let Some(row) = rows.next()? {
            last = row.get(0)?;
            let raw = pack::unpack(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?, |model| {
                pack::model_text(connection, model)
            })?;
            let mut rest = raw.as_slice();
            while !rest.is_empty() {
                let Some(entry) = Entry::read(&mut rest) else {
                    return Err(StoreError::Damaged(format!("row {last} of its log cannot be read")));
                };
                self.apply(&entry);
            }
        }
        Ok(last)
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
