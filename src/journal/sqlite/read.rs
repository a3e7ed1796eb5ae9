//! Reading rows, on a few read-only connections that are shared by whoever asks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params, params_from_iter};

use super::schema::{self, instant, nanos};
use crate::id::{RunId, digest16};
use crate::journal::{Blob, Letter, LetterQuery, Queued, Reservation, RunNo, RunQuery, RunRow, RunStatus, StoreError};
use crate::value::Value;

/// Connections kept open for the next reader.
const KEPT: usize = 4;

pub(super) struct Pool {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    pub(super) fn new(file: PathBuf) -> Self {
        Pool { file, idle: Mutex::default() }
    }

    /// Reads with a connection of its own: readers wait neither for the writer nor for each other.
    pub(super) fn with<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.file)?,
        };
        let result = read(&connection);
        let mut idle = self.idle();
        if result.is_ok() && idle.len() < KEPT {
            idle.push(connection);
        }
        result
    }

    pub(super) fn close(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const RUN: &str = "SELECT r.no, r.id, r.flow, r.version, r.trigger_type, r.key, r.status, r.reason, r.accepted,
    r.occurred, r.ended, r.effects, d.payload, d.inputs FROM runs r LEFT JOIN run_data d ON d.run = r.no";

pub(super) fn run(connection: &Connection, id: &RunId) -> Result<Option<RunRow>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{RUN} WHERE r.id = ?1"))?;
    let mut found = statement.query([id.as_str()])?;
    found.next()?.map(run_row).transpose()
}

pub(super) fn runs(connection: &Connection, query: &RunQuery) -> Result<Vec<RunRow>, StoreError> {
    let mut clauses: Vec<&str> = vec![];
    let mut values: Vec<Box<dyn ToSql>> = vec![];
    let mut add = |clause: &'static str, value: Box<dyn ToSql>| {
        clauses.push(clause);
        values.push(value);
    };
    if let Some(flow) = &query.flow {
        add("r.flow = ?", Box::new(flow.clone()));
    }
    if let Some(status) = query.status {
        add("r.status = ?", Box::new(status.as_str()));
    }
    if let Some(since) = query.since {
        add("r.accepted >= ?", Box::new(nanos(since)));
    }
    if let Some(before) = query.before {
        add("r.no < ?", Box::new(before));
    }
    if let Some(key) = &query.key {
        // Compared as text, not with LIKE: what people type holds `_` and `%`, and case matters in ids.
        add("(r.key = ? OR substr(r.key, -length(?)) = ?)", Box::new(key.clone()));
        let ending = format!(":{key}");
        values.extend([Box::new(ending.clone()) as Box<dyn ToSql>, Box::new(ending)]);
    }
    let filter = if clauses.is_empty() { String::new() } else { format!(" WHERE {}", clauses.join(" AND ")) };
    values.push(Box::new(if query.limit == 0 { -1 } else { i64::try_from(query.limit).unwrap_or(i64::MAX) }));
    let sql = format!("{RUN}{filter} ORDER BY r.no DESC LIMIT ?");
    let values: Vec<&dyn ToSql> = values.iter().map(|value| &**value).collect();
    rows(connection, &sql, &values)
}

pub(super) fn run_numbered(connection: &Connection, no: RunNo) -> Result<Option<RunRow>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{RUN} WHERE r.no = ?1"))?;
    let mut found = statement.query([no])?;
    found.next()?.map(run_row).transpose()
}

/// The last number is read first: what is accepted between the two reads is beyond the horizon.
pub(super) fn queued(connection: &Connection, after: RunNo, limit: usize) -> Result<Queued, StoreError> {
    let last = connection.prepare_cached("SELECT coalesce(max(no), 0) FROM runs")?.query_row([], |row| row.get(0))?;
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = "SELECT no FROM runs WHERE status = ?1 AND no > ?2 AND no <= ?3 ORDER BY no LIMIT ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let numbers = statement.query_map(params![RunStatus::Queued.as_str(), after, last, most], |row| row.get(0))?;
    let numbers: Vec<RunNo> = numbers.collect::<Result<_, _>>()?;
    // Where the limit cut the list, only what is in it was seen.
    let more = numbers.len() >= limit;
    let horizon = numbers.last().filter(|_| more).copied().unwrap_or(last);
    let sql = format!("{RUN} WHERE r.status = ?1 AND r.no > ?2 AND r.no <= ?3 ORDER BY r.no");
    let rows = rows(connection, &sql, &[&RunStatus::Queued.as_str(), &after, &horizon])?;
    Ok(Queued { rows, horizon, more })
}

pub(super) fn awake(connection: &Connection) -> Result<Vec<RunNo>, StoreError> {
    // One step of the index for each word that stands there, a damaged one among them, however many runs have it.
    let sql = "WITH RECURSIVE words (word) AS (SELECT min(status) FROM runs
               UNION ALL SELECT (SELECT min(status) FROM runs WHERE status > word) FROM words WHERE word IS NOT NULL)
               SELECT word FROM words WHERE word IS NOT NULL";
    let mut statement = connection.prepare_cached(sql)?;
    let mut words = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    let begun = |status: RunStatus| !status.is_final() && status != RunStatus::Queued;
    words.retain(|word| RunStatus::parse(word).is_none_or(begun));
    let places = vec!["?"; words.len()].join(", ");
    let sql = format!("SELECT no FROM runs WHERE status IN ({places}) AND wake IS NULL ORDER BY no");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map(params_from_iter(words), |row| row.get(0))?;
    Ok(found.collect::<Result<_, _>>()?)
}

pub(super) fn sleepers(connection: &Connection) -> Result<Vec<(RunNo, Timestamp)>, StoreError> {
    let sql = "SELECT no, wake FROM runs WHERE wake IS NOT NULL AND wake < ?1 ORDER BY wake, no";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map([schema::NEVER], |row| Ok((row.get(0)?, instant(row.get(1)?))))?;
    Ok(found.collect::<Result<_, _>>()?)
}

pub(super) fn turns(connection: &Connection, run: RunNo) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT seq, body FROM turns WHERE run = ?1 ORDER BY seq")?;
    let found = statement.query_map([run], |row| Ok((row.get::<_, u32>(0)?, row.get(1)?)))?;
    let mut bodies = vec![];
    for turn in found {
        let (seq, body) = turn?;
        if usize::try_from(seq) != Ok(bodies.len()) {
            return Err(StoreError::Damaged(format!("run number {run} lacks turn {}", bodies.len())));
        }
        bodies.push(body);
    }
    Ok(bodies)
}

pub(super) fn blobs(connection: &Connection, run: RunNo) -> Result<Vec<Blob>, StoreError> {
    let sql = "SELECT path, attempt, body FROM blobs WHERE run = ?1 ORDER BY path, attempt";
    let mut statement = connection.prepare_cached(sql)?;
    let found =
        statement.query_map([run], |row| Ok(Blob { path: row.get(0)?, attempt: row.get(1)?, body: row.get(2)? }))?;
    Ok(found.collect::<Result<_, _>>()?)
}

pub(super) fn bundle(connection: &Connection, version: &str) -> Result<Option<Vec<u8>>, StoreError> {
    one(connection, "SELECT body FROM bundles WHERE version = ?1", version)
}

pub(super) fn named(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    one(connection, "SELECT body FROM named WHERE name = ?1", name)
}

pub(super) fn reservations(connection: &Connection, since: Timestamp) -> Result<Vec<Reservation>, StoreError> {
    let sql = "SELECT scope, key, at FROM reservations WHERE at >= ?1 ORDER BY at, scope, key";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map([nanos(since)], |row| {
        Ok(Reservation { scope: row.get(0)?, key: row.get(1)?, at: instant(row.get(2)?) })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

pub(super) fn is_known(connection: &Connection, flow: &str, key: &str) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM runs WHERE dedupe = ?1")?;
    Ok(statement.exists([digest16(&[flow, key])])?)
}

pub(super) fn skipped(
    connection: &Connection,
    flow: &str,
    key: &str,
) -> Result<Option<(Timestamp, Vec<u8>)>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT at, body FROM skipped WHERE flow = ?1 AND key = ?2")?;
    let found = statement.query_row(params![flow, key], |row| Ok((instant(row.get(0)?), row.get(1)?)));
    Ok(found.optional()?)
}

pub(super) fn letters(connection: &Connection, query: &LetterQuery) -> Result<Vec<Letter>, StoreError> {
    if !has_letters(connection)? {
        return Ok(vec![]);
    }
    let sql = "SELECT flow, key, at, body FROM letters WHERE dropped = 0 AND (?1 IS NULL OR flow = ?1) AND at >= ?2
               ORDER BY at DESC, flow DESC, key DESC LIMIT ?3";
    let limit = if query.limit == 0 { -1 } else { i64::try_from(query.limit).unwrap_or(i64::MAX) };
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map(params![query.flow, query.since.map_or(i64::MIN, nanos), limit], a_letter)?;
    Ok(found.collect::<Result<_, _>>()?)
}

pub(super) fn letter(connection: &Connection, id: &str) -> Result<Option<Letter>, StoreError> {
    if !has_letters(connection)? {
        return Ok(None);
    }
    let sql = "SELECT flow, key, at, body FROM letters WHERE id = ?1 AND dropped = 0";
    Ok(connection.prepare_cached(sql)?.query_row([id], a_letter).optional()?)
}

fn a_letter(row: &Row<'_>) -> rusqlite::Result<Letter> {
    Ok(Letter { flow: row.get(0)?, key: row.get(1)?, at: instant(row.get(2)?), body: row.get(3)? })
}

/// A store that no service of this version has opened yet has no table of letters.
fn has_letters(connection: &Connection) -> Result<bool, StoreError> {
    let found = connection.prepare_cached("SELECT 1 FROM sqlite_master WHERE name = 'letters'")?.exists([])?;
    Ok(found)
}

pub(super) fn counts(connection: &Connection) -> Result<BTreeMap<RunStatus, u64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT status, count(*) FROM runs GROUP BY status")?;
    let found = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    let mut counts = BTreeMap::new();
    for pair in found {
        let (word, count) = pair?;
        // A status that is no word is listed as one that waits.
        *counts.entry(RunStatus::parse(&word).unwrap_or(RunStatus::Waiting)).or_default() += count;
    }
    Ok(counts)
}

fn one(connection: &Connection, sql: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(connection.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?)
}

/// A list of runs. One row that can't be read must not take the others from whoever asks: a service that could not start
/// for it would be worse. It is left out, and said.
fn rows(connection: &Connection, sql: &str, values: &[&dyn ToSql]) -> Result<Vec<RunRow>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params_from_iter(values))?;
    let mut rows = vec![];
    while let Some(row) = found.next()? {
        match run_row(row) {
            Ok(run) => rows.push(run),
            Err(error) => {
                let id: String = row.get(1).unwrap_or_default();
                tracing::error!(run = %id, %error, "a run is left out; take the store from a backup, or report this");
            }
        }
    }
    Ok(rows)
}

/// A run. What of it can't be read is said and left empty: the run is listed as one that waits, and never goes on.
fn run_row(row: &Row<'_>) -> Result<RunRow, StoreError> {
    let no = row.get(0)?;
    let id: String = row.get(1)?;
    let id = RunId::parse(&id).ok_or_else(|| damaged(no, "id"))?;
    let mut unread: Vec<&str> = vec![];
    let mut note = |what: &'static str| unread.push(what);
    let effects: Option<String> = row.get(11)?;
    let effects = effects.map_or(Ok(BTreeMap::new()), |text| serde_json::from_str(&text));
    let (payload, inputs) = (value(row.get(12)?), value(row.get(13)?));
    let status = RunStatus::parse(&row.get::<_, String>(6)?);
    if effects.is_err() {
        note("effects");
    }
    if payload.is_none() {
        note("payload");
    }
    if inputs.is_none() {
        note("inputs");
    }
    if status.is_none() {
        note("status");
    }
    let damaged = (!unread.is_empty()).then(|| {
        let what = unread.join(", ");
        format!("its {what} cannot be read: the store is damaged; cancel it, or take the store from a backup")
    });
    let (mut status, mut reason) = (status.unwrap_or(RunStatus::Waiting), row.get(7)?);
    if let (Some(damage), false) = (&damaged, status.is_final()) {
        (status, reason) = (RunStatus::Waiting, Some(damage.clone()));
    }
    Ok(RunRow {
        no,
        id,
        flow: row.get(2)?,
        version: row.get(3)?,
        trigger: row.get(4)?,
        key: row.get(5)?,
        status,
        reason,
        accepted: instant(row.get(8)?),
        occurred: instant(row.get(9)?),
        ended: row.get::<_, Option<i64>>(10)?.map(instant),
        payload: payload.unwrap_or_else(Value::empty),
        inputs: inputs.unwrap_or_else(Value::empty),
        effects: effects.unwrap_or_default(),
        damaged,
    })
}

/// A payload that was forgotten after its time is an empty map.
fn value(text: Option<String>) -> Option<Value> {
    text.map_or(Some(Value::empty()), |text| serde_json::from_str(&text).ok())
}

fn damaged(no: RunNo, what: &str) -> StoreError {
    StoreError::Failed(format!("run number {no}: its {what} cannot be read: the store is damaged"))
}
