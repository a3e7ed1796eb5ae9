//! Sorting the log into the tables: many runs at a time, so that they share the pages they land on.
//!
//! One transaction: either all of it is as it was, or what was sorted lies in the tables and is gone from the log.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::ops::{Book, execute};
use super::pack::pack_line;
use super::record::{AWAKE, status_number};
use super::schema::{BLOCK, PART_BITS};
use super::tail::{Line, Pending, Tail};
use crate::journal::{RunNo, RunStatus, StoreError};

/// Keys of runs that are kept in memory before they go into their index, which has no order that they could share.
const RECENT: usize = 4096;

/// The tables, changed for what the log holds. Runs that go on just now stay in the log, once and up to `carry` bytes of
/// them: nearly all of them end soon, and then they are one part. Answers the tail that stays; the caller commits, and then
/// calls `done`.
pub(super) fn fold(book: &mut Book, connection: &Connection, carry: usize) -> Result<Tail, StoreError> {
    let mut tail = std::mem::take(&mut book.tail);
    let mut stays = Tail::default();
    for (no, mut pending) in std::mem::take(&mut tail.runs) {
        let weight = pending.parts.len() + 256;
        let asleep = pending.wake.is_some_and(|wake| wake != AWAKE);
        if pending.ended.is_none() && !asleep && !pending.carried && stays.bytes + weight <= carry {
            stays.bytes += weight;
            pending.carried = true;
            stays.runs.insert(no, pending);
        } else {
            tail.runs.insert(no, pending);
        }
    }
    let mut totals = Totals::default();
    tables(book, connection, &tail.runs, &mut totals)?;
    totals.write(connection)?;
    audit(connection, &tail.audit)?;
    merge_keys(book, connection)?;
    execute(connection, "DELETE FROM log", [])?;
    // Rows of the log get numbers from 1 again: who kept what they held begins anew.
    let sql = "INSERT INTO marks (name, value) VALUES ('folds', 1) ON CONFLICT DO UPDATE SET value = value + 1";
    execute(connection, sql, [])?;
    if !stays.is_empty() {
        let mut entries = Vec::with_capacity(stays.bytes);
        stays.write(&mut entries);
        execute(connection, "INSERT INTO log (body) VALUES (?1)", [book.models.pack_log(&entries)])?;
    }
    Ok(stays)
}

/// After the commit.
pub(super) fn done(book: &mut Book, stays: Tail) {
    book.turns.retain(|run, _| stays.runs.contains_key(run));
    book.tail = stays;
    if book.recent.len() >= RECENT {
        book.recent.clear();
    }
}

fn tables(
    book: &mut Book,
    connection: &Connection,
    runs: &BTreeMap<RunNo, Pending>,
    totals: &mut Totals,
) -> Result<(), StoreError> {
    for (no, pending) in runs {
        let (origin, part) = match &pending.start {
            Some(_) => (insert(connection, *no, pending, totals)?, 0),
            None => match update(connection, *no, pending, totals)? {
                Some(found) => found,
                None => continue,
            },
        };
        if pending.parts.is_empty() {
            continue;
        }
        let at = pending.ended.or(pending.start.as_ref().map(|start| start.accepted)).unwrap_or(0);
        let whole = || {
            let mut whole = Vec::new();
            for before in 0..part {
                whole.extend(super::read::part(connection, *no, before)?.unwrap_or_default());
            }
            whole.extend_from_slice(&pending.parts);
            Ok(whole)
        };
        let whole = (pending.ended.is_some() && part < 8).then_some(whole);
        let body = book.models.pack(connection, origin, at, &pending.parts, whole)?;
        execute(connection, "INSERT INTO parts (no, body) VALUES (?1, ?2)", params![(no << PART_BITS) | part, body])?;
    }
    Ok(())
}

/// A run's row, with its origin.
fn insert(connection: &Connection, no: RunNo, pending: &Pending, totals: &mut Totals) -> Result<i64, StoreError> {
    let Some(start) = &pending.start else { return Ok(0) };
    let (status, reason) = match &pending.status {
        Some((status, reason)) => (*status, reason.as_deref()),
        None => (RunStatus::Queued, None),
    };
    let (ended, effects) = (pending.ended, pending.effects.as_deref().filter(|it| !it.is_empty()));
    let sql = "INSERT INTO runs (no, flow, origin, key, status, reason, accepted, occurred, ended, effects, turns, parts, wake)
               SELECT ?1, o.flow, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 FROM origins o WHERE o.no = ?2";
    let parts = i64::from(!pending.parts.is_empty());
    let number = status_number(status);
    let wake = pending.wake.filter(|wake| *wake != AWAKE);
    let values = params![
        no,
        start.origin,
        start.key,
        number,
        reason,
        start.accepted,
        start.occurred,
        ended,
        effects,
        pending.turns,
        parts,
        wake
    ];
    execute(connection, sql, values)?;
    totals.count(number, 1);
    totals.stretch(no, start.accepted);
    Ok(start.origin)
}

/// What changed in a run that has a row: its origin and the number of its next part. `None`: there is no such run.
fn update(
    connection: &Connection,
    no: RunNo,
    pending: &Pending,
    totals: &mut Totals,
) -> Result<Option<(i64, i64)>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT origin, parts, status FROM runs WHERE no = ?1")?;
    let found = statement.query_row([no], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?))).optional()?;
    let Some((origin, parts, before)) = found else { return Ok(None) };
    let more = i64::from(!pending.parts.is_empty());
    let sql = "UPDATE runs SET turns = turns + ?2, parts = parts + ?3 WHERE no = ?1";
    execute(connection, sql, params![no, pending.turns, more])?;
    if let Some((status, reason)) = &pending.status {
        let number = status_number(*status);
        if number != before {
            totals.count(before, -1);
            totals.count(number, 1);
        }
        let sql = "UPDATE runs SET status = ?2, reason = ?3, ended = ?4 WHERE no = ?1";
        execute(connection, sql, params![no, number, reason, pending.ended])?;
    }
    if let Some(wake) = pending.wake {
        let wake = Some(wake).filter(|wake| *wake != AWAKE);
        execute(connection, "UPDATE runs SET wake = ?2 WHERE no = ?1", params![no, wake])?;
    }
    if let Some(effects) = &pending.effects {
        let effects = Some(effects.as_str()).filter(|it| !it.is_empty());
        execute(connection, "UPDATE runs SET effects = ?2 WHERE no = ?1", params![no, effects])?;
    }
    Ok(Some((origin, parts)))
}

/// What is kept so that nobody has to count or to search through all runs.
#[derive(Default)]
pub(super) struct Totals {
    /// By number of the status.
    counts: BTreeMap<i64, i64>,
    /// The first and the last acceptance of each block of runs.
    blocks: BTreeMap<i64, (i64, i64)>,
}

impl Totals {
    pub(super) fn count(&mut self, status: i64, by: i64) {
        *self.counts.entry(status).or_default() += by;
    }

    pub(super) fn stretch(&mut self, no: RunNo, accepted: i64) {
        let block = self.blocks.entry(no / BLOCK).or_insert((accepted, accepted));
        *block = (block.0.min(accepted), block.1.max(accepted));
    }

    pub(super) fn write(&self, connection: &Connection) -> Result<(), StoreError> {
        for (status, by) in &self.counts {
            let sql = "INSERT INTO tallies (status, n) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET n = n + excluded.n";
            execute(connection, sql, params![status, by])?;
        }
        for (block, (low, high)) in &self.blocks {
            let sql = "INSERT INTO blocks (no, low, high) VALUES (?1, ?2, ?3)
                       ON CONFLICT DO UPDATE SET low = min(low, excluded.low), high = max(high, excluded.high)";
            execute(connection, sql, params![block, low, high])?;
        }
        Ok(())
    }
}

fn audit(connection: &Connection, lines: &[Line]) -> Result<(), StoreError> {
    for line in lines {
        let sql = "INSERT INTO audit (no, at, hash, body) VALUES (?1, ?2, ?3, ?4)";
        execute(connection, sql, params![line.no, line.at, line.hash, pack_line(&line.body)])?;
    }
    Ok(())
}

/// In the order of the index, so that each of its pages is changed once.
fn merge_keys(book: &Book, connection: &Connection) -> Result<(), StoreError> {
    if book.recent.len() < RECENT {
        return Ok(());
    }
    let mut keys: Vec<_> = book.recent.iter().collect();
    keys.sort_unstable();
    for (hash, run) in keys {
        let sql = "INSERT INTO seen (hash, run) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        execute(connection, sql, params![hash.as_slice(), run])?;
    }
    let sql = "INSERT OR REPLACE INTO marks (name, value) VALUES ('seen', ?1)";
    execute(connection, sql, [book.next - 1])?;
    Ok(())
}
