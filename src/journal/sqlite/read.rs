//! Reading rows, on a few read-only connections that are shared by whoever asks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params, params_from_iter};

use super::schema::{self, instant, nanos};
use crate::id::{RunId, digest16};
use crate::journal::{Blob, Queued, Reservation, RunNo, RunQuery, RunRow, RunStatus, StoreError};
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
    let begun = |status: &RunStatus| !status.is_final() && *status != RunStatus::Queued;
    let begun: Vec<&str> = RunStatus::ALL.into_iter().filter(begun).map(RunStatus::as_str).collect();
    let places = vec!["?"; begun.len()].join(", ");
    let sql = format!("SELECT no FROM runs WHERE status IN ({places}) AND wake IS NULL ORDER BY no");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map(params_from_iter(begun), |row| row.get(0))?;
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
            let message = format!("run number {run} lacks turn {}: the store is damaged", bodies.len());
            return Err(StoreError::Failed(message));
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

pub(super) fn counts(connection: &Connection) -> Result<BTreeMap<RunStatus, u64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT status, count(*) FROM runs GROUP BY status")?;
    let found = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    let mut counts = BTreeMap::new();
    for pair in found {
        let (word, count) = pair?;
        match status(&word) {
            Ok(status) => drop(counts.insert(status, count)),
            Err(error) => tracing::error!(%error, count, "runs are left out of the counts"),
        }
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

fn run_row(row: &Row<'_>) -> Result<RunRow, StoreError> {
    let no = row.get(0)?;
    let id: String = row.get(1)?;
    let id = RunId::parse(&id).ok_or_else(|| damaged(no, "id"))?;
    let effects: Option<String> = row.get(11)?;
    let effects = effects.map_or(Ok(BTreeMap::new()), |text| serde_json::from_str(&text));
    Ok(RunRow {
        no,
        id,
        flow: row.get(2)?,
        version: row.get(3)?,
        trigger: row.get(4)?,
        key: row.get(5)?,
        status: status(&row.get::<_, String>(6)?)?,
        reason: row.get(7)?,
        accepted: instant(row.get(8)?),
        occurred: instant(row.get(9)?),
        ended: row.get::<_, Option<i64>>(10)?.map(instant),
        payload: value(row.get(12)?).ok_or_else(|| damaged(no, "payload"))?,
        inputs: value(row.get(13)?).ok_or_else(|| damaged(no, "inputs"))?,
        effects: effects.map_err(|_| damaged(no, "effects"))?,
    })
}

/// A payload that was forgotten after its time is an empty map.
fn value(text: Option<String>) -> Option<Value> {
    text.map_or(Some(Value::empty()), |text| serde_json::from_str(&text).ok())
}

fn status(word: &str) -> Result<RunStatus, StoreError> {
    RunStatus::parse(word).ok_or_else(|| StoreError::Failed(format!("the store has a run with the status {word:?}")))
}

fn damaged(no: RunNo, what: &str) -> StoreError {
    StoreError::Failed(format!("run number {no}: its {what} cannot be read: the store is damaged"))
}
