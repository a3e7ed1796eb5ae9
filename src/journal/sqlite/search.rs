//! Finding runs: by id, by status, flow, time and key, newest first, without looking at those that are not asked for.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, ToSql, params, params_from_iter};

use super::ops::seen;
use super::read::{run_no, unseen};
use super::record::status_number;
use super::schema::{BLOCK, nanos};
use super::tail::Tail;
use crate::id::{RunId, digest16};
use crate::journal::{RunNo, RunQuery, RunRow, RunStatus, StoreError};

/// A run by its id, which begins with the time of its acceptance.
pub(super) fn run(connection: &Connection, id: &RunId) -> Result<Option<RunRow>, StoreError> {
    let tail = Tail::read(connection)?;
    let accepted = nanos(id.accepted());
    let (from, to) = (accepted, accepted.saturating_add(999_999));
    let sql = "SELECT r.no FROM blocks b JOIN runs r ON r.no >= b.no * ?3 AND r.no < (b.no + 1) * ?3
               WHERE b.high >= ?1 AND b.low <= ?2 AND r.accepted BETWEEN ?1 AND ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let stored = statement.query_map(params![from, to, BLOCK], |row| row.get(0))?;
    let mut numbers: Vec<RunNo> = stored.collect::<Result<_, _>>()?;
    let recent = tail
        .runs
        .iter()
        .filter(|(_, pending)| pending.start.as_ref().is_some_and(|start| (from..=to).contains(&start.accepted)));
    numbers.extend(recent.map(|(no, _)| *no));
    for no in numbers {
        if let Some(run) = run_no(connection, &tail, no)?.filter(|run| run.id == *id) {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

pub(super) fn runs(connection: &Connection, query: &RunQuery) -> Result<Vec<RunRow>, StoreError> {
    let tail = Tail::read(connection)?;
    let limit = if query.limit == 0 { usize::MAX } else { query.limit };
    let mut numbers = match &query.key {
        Some(key) => by_key(connection, &tail, key)?,
        None => stored(connection, query, limit.saturating_add(tail.runs.len()))?,
    };
    // What the log says of a run may change whether it is asked for.
    numbers.extend(tail.runs.keys());
    let mut found = vec![];
    for no in numbers.into_iter().rev() {
        if found.len() >= limit {
            break;
        }
        found.extend(readable(connection, &tail, no).filter(|run| query.fits(run)));
    }
    Ok(found)
}

/// One row that can't be read must not take the others from whoever asks: a service that could not start for it would be
/// worse. It is left out, and said.
pub(super) fn readable(connection: &Connection, tail: &Tail, no: RunNo) -> Option<RunRow> {
    run_no(connection, tail, no).unwrap_or_else(|error| {
        tracing::error!(run = no, %error, "a run is left out; take the store from a backup, or report this");
        None
    })
}

/// Numbers of runs that have a row and fit, as far as rows tell: the newest.
fn stored(connection: &Connection, query: &RunQuery, limit: usize) -> Result<BTreeSet<RunNo>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let flow = match &query.flow {
        None => None,
        Some(name) => {
            let sql = "SELECT no FROM flows WHERE name = ?1";
            match connection.prepare_cached(sql)?.query_row([name], |row| row.get::<_, i64>(0)).optional()? {
                Some(no) => Some(no),
                None => return Ok(BTreeSet::new()),
            }
        }
    };
    // The index of a flow's runs is by status: the newest of a flow are the newest of its newest.
    let statuses: Vec<Option<RunStatus>> = match (flow, query.status) {
        (Some(_), None) => RunStatus::ALL.into_iter().map(Some).collect(),
        (_, status) => vec![status],
    };
    let mut numbers = BTreeSet::new();
    for status in statuses {
        let mut clauses = vec![];
        let mut values: Vec<Box<dyn ToSql>> = vec![];
        let mut add = |clause: &'static str, value: Box<dyn ToSql>| {
            clauses.push(clause);
            values.push(value);
        };
        if let Some(flow) = flow {
            add("flow = ?", Box::new(flow));
        }
        if let Some(status) = status {
            add("status = ?", Box::new(status_number(status)));
        }
        if let Some(before) = query.before {
            add("no < ?", Box::new(before));
        }
        if let Some(since) = query.since {
            let sql = "SELECT min(no) FROM blocks WHERE high >= ?1";
            let block: Option<i64> = connection.prepare_cached(sql)?.query_row([nanos(since)], |row| row.get(0))?;
            let Some(block) = block else { return Ok(BTreeSet::new()) };
            add("no >= ?", Box::new(block * BLOCK));
            add("accepted >= ?", Box::new(nanos(since)));
        }
        let filter = if clauses.is_empty() { String::new() } else { format!(" WHERE {}", clauses.join(" AND ")) };
        values.push(Box::new(limit));
        let sql = format!("SELECT no FROM runs{filter} ORDER BY no DESC LIMIT ?");
        let mut statement = connection.prepare_cached(&sql)?;
        let values = params_from_iter(values.iter().map(|value| &**value));
        for no in statement.query_map(values, |row| row.get(0))? {
            numbers.insert(no?);
        }
    }
    Ok(numbers)
}

/// What an event of a flow is known as: the number of the run that it started or, below zero, of its gathering.
pub(super) fn known(connection: &Connection, flow: &str, key: &str) -> Result<Option<i64>, StoreError> {
    if let Some(no) = seen(connection, &digest16(&[flow, key]))? {
        return Ok(Some(no));
    }
    let sql = "SELECT r.no FROM runs r JOIN origins o ON o.no = r.origin JOIN flows f ON f.no = r.flow
               WHERE r.no > coalesce((SELECT value FROM marks WHERE name = 'seen'), 0)
               AND o.prefix || r.key = ?2 AND f.name = ?1";
    let found: Option<RunNo> = connection.prepare_cached(sql)?.query_row([flow, key], |row| row.get(0)).optional()?;
    if found.is_some() {
        return Ok(found);
    }
    let tail = Tail::read(connection)?;
    for (no, pending) in &tail.runs {
        let likely = pending.start.as_ref().is_some_and(|start| key.ends_with(&start.key));
        if likely && run_no(connection, &tail, *no)?.is_some_and(|run| &*run.flow == flow && run.key == key) {
            return Ok(Some(*no));
        }
    }
    Ok(None)
}

/// Runs with an event key, or with an alert's id that their key ends with: by the hash of each key that it may be.
fn by_key(connection: &Connection, tail: &Tail, wanted: &str) -> Result<BTreeSet<RunNo>, StoreError> {
    let rest = wanted.rsplit(':').next().unwrap_or(wanted);
    let sql = "SELECT DISTINCT f.name, o.prefix, o.whole FROM origins o JOIN flows f ON f.no = o.flow";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let recent = unseen(connection, tail)?;
    let mut numbers = BTreeSet::new();
    let mut whole = false;
    while let Some(row) = rows.next()? {
        let (flow, prefix): (String, String) = (row.get(0)?, row.get(1)?);
        whole |= row.get::<_, bool>(2)?;
        for key in [format!("{prefix}{rest}").as_str(), wanted] {
            let hash = digest16(&[&flow, key]);
            numbers.extend(recent.get(&hash).copied().or(seen(connection, &hash)?));
        }
    }
    if whole {
        // Keys with too many prefixes to share them. Compared as text, not with LIKE: keys hold `_` and `%`.
        let sql = "SELECT no FROM runs WHERE origin IN (SELECT no FROM origins WHERE whole)
                   AND substr(key, -length(?1)) = ?1";
        let mut statement = connection.prepare_cached(sql)?;
        for no in statement.query_map([format!(":{wanted}")], |row| row.get(0))? {
            numbers.insert(no?);
        }
    }
    Ok(numbers)
}
