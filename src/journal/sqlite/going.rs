//! Runs that have not ended: queued, awake, asleep.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::read;
use super::record::{AWAKE, FOR_PERSON, status_number, status_of};
use super::schema::instant;
use super::search::readable;
use super::tail::Tail;
use crate::journal::{Queued, RunNo, RunStatus, StoreError, Whole};

/// The first runs after a number that have not begun.
pub(super) fn queued(connection: &Connection, tail: &Tail, after: RunNo, limit: usize) -> Result<Queued, StoreError> {
    let last: RunNo =
        connection.prepare_cached("SELECT coalesce(max(no), 0) FROM runs")?.query_row([], |row| row.get(0))?;
    let last = tail.runs.last_key_value().map_or(last, |(no, _)| last.max(*no));
    // The log may say of each of its runs that it has begun.
    let most = i64::try_from(limit.saturating_add(tail.runs.len())).unwrap_or(i64::MAX);
    let sql = "SELECT no FROM runs WHERE status = ?1 AND no > ?2 ORDER BY no LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let values = params![status_number(RunStatus::Queued), after, most];
    let mut numbers: BTreeSet<RunNo> = statement.query_map(values, |row| row.get(0))?.collect::<Result<_, _>>()?;
    for (no, pending) in tail.runs.range(after + 1..) {
        match &pending.status {
            Some((RunStatus::Queued, _)) => drop(numbers.insert(*no)),
            Some(_) => drop(numbers.remove(no)),
            None if pending.start.is_some() => drop(numbers.insert(*no)),
            None => {}
        }
    }
    // Where the limit cut the list, only what is in it was seen.
    let numbers: Vec<RunNo> = numbers.into_iter().take(limit).collect();
    let more = numbers.len() >= limit;
    let horizon = numbers.last().filter(|_| more).copied().unwrap_or(last);
    let rows = numbers.into_iter().filter_map(|no| readable(connection, tail, no)).collect();
    Ok(Queued { rows, horizon, more })
}

/// Runs with their turns.
pub(super) fn whole(connection: &Connection, tail: &Tail, runs: &[RunNo]) -> Result<Vec<Whole>, StoreError> {
    let mut found = Vec::with_capacity(runs.len());
    let mut texts = read::Texts::new();
    for no in runs {
        found.extend(read::whole(connection, tail, *no, &mut texts)?);
    }
    Ok(found)
}

/// Numbers of the runs that have begun, have not ended and do not sleep.
pub(super) fn awake(connection: &Connection) -> Result<Vec<RunNo>, StoreError> {
    let tail = Tail::read(connection)?;
    let begun = |status: RunStatus| !status.is_final() && status != RunStatus::Queued;
    // Those with a damaged status are among them: somebody must say so.
    let (first, last) = (status_number(RunStatus::Queued), status_number(RunStatus::Dead));
    let clauses = RunStatus::ALL.into_iter().filter(|status| begun(*status)).map(status_number);
    let clauses: String = clauses.map(|number| format!("status = {number} OR ")).collect();
    let sql = format!("SELECT no FROM runs WHERE ({clauses} status < {first} OR status > {last}) AND wake IS NULL");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map([], |row| row.get(0))?;
    let mut numbers: BTreeSet<RunNo> = found.collect::<Result<_, _>>()?;
    for no in tail.runs.keys() {
        match standing(connection, &tail, *no)? {
            Some((status, wake)) if begun(status) && wake == AWAKE => drop(numbers.insert(*no)),
            _ => drop(numbers.remove(no)),
        }
    }
    Ok(numbers.into_iter().collect())
}

/// Runs that sleep until an instant, the earliest first.
pub(super) fn sleepers(connection: &Connection) -> Result<Vec<(RunNo, Timestamp)>, StoreError> {
    let tail = Tail::read(connection)?;
    let mut statement = connection.prepare_cached("SELECT no, wake FROM runs WHERE wake IS NOT NULL")?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut asleep: BTreeMap<RunNo, i64> = found.collect::<Result<_, _>>()?;
    for (no, pending) in &tail.runs {
        if let Some(wake) = pending.wake {
            asleep.insert(*no, wake);
        }
    }
    let until = asleep.into_iter().filter(|(_, wake)| *wake != AWAKE && *wake != FOR_PERSON);
    let mut until: Vec<(RunNo, Timestamp)> = until.map(|(no, wake)| (no, instant(wake))).collect();
    until.sort_by_key(|(no, at)| (*at, *no));
    Ok(until)
}

/// The status of a run of the log and when it wakes, as tables and log have it.
fn standing(connection: &Connection, tail: &Tail, no: RunNo) -> Result<Option<(RunStatus, i64)>, StoreError> {
    let sql = "SELECT status, coalesce(wake, ?2) FROM runs WHERE no = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let stored: Option<(i64, i64)> =
        statement.query_row([no, AWAKE], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some(pending) = tail.runs.get(&no) else { return Ok(None) };
    let before = stored.map(|(status, wake)| (status_of(status).unwrap_or(RunStatus::Waiting), wake));
    let Some(before) = before.or(pending.start.is_some().then_some((RunStatus::Queued, AWAKE))) else {
        return Ok(None);
    };
    let status = pending.status.as_ref().map_or(before.0, |(status, _)| *status);
    Ok(Some((status, pending.wake.unwrap_or(before.1))))
}
