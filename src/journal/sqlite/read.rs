//! Reading rows, on a few read-only connections that are shared by whoever asks.
//!
//! What a reader sees is one snapshot: the tables, and over them the tail of the log. Lists of runs: see `search`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::pack;
use super::record::{Part, status_of};
use super::schema::{self, PART_BITS, instant, nanos};
use super::tail::{Kept, Line, Pending, Tail};
use crate::id::{RunId, digest16};
use crate::journal::{AuditLine, Blob, Letter, LetterQuery, Reservation, RunNo, RunRow, RunStatus, StoreError, Whole};
use crate::value::Value;

/// Connections kept open for the next reader.
const KEPT: usize = 4;

pub(super) struct Pool {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
    /// For the next reader that wants it; others read their own meanwhile.
    tail: Mutex<Option<Kept>>,
}

impl Pool {
    pub(super) fn new(file: PathBuf) -> Self {
        Pool { file, idle: Mutex::default(), tail: Mutex::default() }
    }

    /// Reads with a connection of its own: readers wait neither for the writer nor for each other.
    pub(super) fn with<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.file)?,
        };
        // What is read in several steps is of one moment.
        let result = snapshot(&connection, read);
        let mut idle = self.idle();
        if result.is_ok() && idle.len() < KEPT {
            idle.push(connection);
        }
        result
    }

    /// As `with`, with the tail of the log. For who reads often: of the log only what is new is read.
    pub(super) fn with_tail<T>(
        &self,
        read: impl FnOnce(&Connection, &Tail) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // Taken before the snapshot begins, so that it is no newer.
        let mut kept = self.tail.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        let result = self.with(|connection| read(connection, kept.catch_up(connection)?));
        if result.is_ok() {
            *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        }
        result
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn close(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn snapshot<T>(
    connection: &Connection,
    read: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    connection.prepare_cached("BEGIN")?.execute([])?;
    let result = read(connection);
    let ended = connection.prepare_cached("ROLLBACK")?.execute([]);
    let result = result?;
    ended?;
    Ok(result)
}

/// A run's row, with what the log says of it.
const RUN: &str = "SELECT r.no, f.name, o.version, o.trigger_type, o.prefix, r.key, r.status, r.reason, r.accepted,
    r.occurred, r.ended, r.effects, r.parts FROM runs r JOIN origins o ON o.no = r.origin JOIN flows f ON f.no = r.flow
    WHERE r.no = ?1";

/// A run by its number; `None` where there is none. What of it can't be read is said and left empty: the run is listed as
/// one that waits, and never goes on.
pub(super) fn run_no(connection: &Connection, tail: &Tail, no: RunNo) -> Result<Option<RunRow>, StoreError> {
    run_with(connection, tail, no, || part(connection, no, 0))
}

/// Texts of models that were used a moment ago, by number.
pub(super) type Texts = HashMap<i64, Vec<u8>>;

/// A run with its turns, each of its parts unpacked once.
pub(super) fn whole(
    connection: &Connection,
    tail: &Tail,
    no: RunNo,
    texts: &mut Texts,
) -> Result<Option<Whole>, StoreError> {
    let Ok(stored) = stored(connection, no, texts) else {
        // One damaged part does not make all of it unreadable.
        let run = run_no(connection, tail, no)?;
        return Ok(run.map(|row| Whole { row, turns: turns(connection, tail, no) }));
    };
    let Some(row) = run_with(connection, tail, no, || Ok(stored.as_deref()))? else { return Ok(None) };
    let logged = tail.runs.get(&no).map_or(&[][..], |pending| pending.parts.as_slice());
    let turns = Turns::default().take(no, stored.as_deref().unwrap_or_default());
    let turns = turns.and_then(|turns| turns.take(no, logged)).map(|turns| turns.0);
    Ok(Some(Whole { row, turns }))
}

/// All parts of a run that are in the tables, one after the other; `None` where it has none.
fn stored(connection: &Connection, no: RunNo, texts: &mut Texts) -> Result<Option<Vec<u8>>, StoreError> {
    let sql = "SELECT body FROM parts WHERE no >= ?1 AND no < ?2 ORDER BY no";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query([no << PART_BITS, (no + 1) << PART_BITS])?;
    let mut all: Option<Vec<u8>> = None;
    while let Some(row) = found.next()? {
        let body = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        let raw = pack::unpack(body, |model| {
            if let Some(text) = texts.get(&model) {
                return Ok(Some(text.clone()));
            }
            let text = pack::model_text(connection, model)?;
            if let Some(text) = &text {
                texts.insert(model, text.clone());
            }
            Ok(text)
        })?;
        match &mut all {
            Some(all) => all.extend(raw),
            None => all = Some(raw),
        }
    }
    Ok(all)
}

/// Bodies of turns, in their order and without a gap.
#[derive(Default)]
struct Turns(Vec<Vec<u8>>);

impl Turns {
    fn take(mut self, run: RunNo, mut raw: &[u8]) -> Result<Turns, StoreError> {
        while !raw.is_empty() {
            self.add(run, &Part::read(&mut raw).ok_or_else(|| damaged(run, "rows"))?)?;
        }
        Ok(self)
    }

    fn add(&mut self, run: RunNo, part: &Part<'_>) -> Result<(), StoreError> {
        let Part::Turn { seq, body } = part else { return Ok(()) };
        if usize::try_from(*seq) != Ok(self.0.len()) {
            return Err(StoreError::Damaged(format!("run number {run} lacks turn {}", self.0.len())));
        }
        self.0.push(body.to_vec());
        Ok(())
    }
}

fn run_with<P: AsRef<[u8]>>(
    connection: &Connection,
    tail: &Tail,
    no: RunNo,
    first: impl FnOnce() -> Result<Option<P>, StoreError>,
) -> Result<Option<RunRow>, StoreError> {
    let pending = tail.runs.get(&no);
    let mut unread = vec![];
    let mut statement = connection.prepare_cached(RUN)?;
    let mut found = statement.query([no])?;
    let mut run = match (found.next()?, pending) {
        (Some(row), _) => {
            let (mut run, parts) = run_row(row, &mut unread)?;
            // What it was given is in its first part. A payload that was forgotten after its time is an empty map.
            let first = match first() {
                Ok(Some(first)) if parts > 0 => given(first.as_ref()),
                Err(StoreError::Damaged(_)) => None,
                Err(error) => return Err(error),
                Ok(_) => Some((Value::empty(), Value::empty())),
            };
            match first {
                Some(given) => (run.payload, run.inputs) = given,
                None => unread.push("payload"),
            }
            run
        }
        (None, Some(pending)) => match started(connection, no, pending)? {
            Some(run) => run,
            None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    if let Some(pending) = pending {
        if let Some((status, reason)) = &pending.status {
            (run.status, run.reason, run.ended) = (*status, reason.clone(), pending.ended.map(instant));
            unread.retain(|what| *what != "status");
        }
        if let Some(effects) = &pending.effects {
            match effects_of(Some(effects)) {
                Some(effects) => run.effects = effects,
                None => unread.push("effects"),
            }
        }
    }
    if !unread.is_empty() {
        let what = unread.join(", ");
        let damage =
            format!("its {what} cannot be read: the store is damaged; cancel it, or take the store from a backup");
        if !run.status.is_final() {
            (run.status, run.reason) = (RunStatus::Waiting, Some(damage.clone()));
        }
        run.damaged = Some(damage);
    }
    Ok(Some(run))
}

/// A run that only the log knows.
fn started(connection: &Connection, no: RunNo, pending: &Pending) -> Result<Option<RunRow>, StoreError> {
    let Some(start) = &pending.start else { return Ok(None) };
    let sql = "SELECT f.name, o.version, o.trigger_type, o.prefix FROM origins o JOIN flows f ON f.no = o.flow
               WHERE o.no = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let (flow, version, trigger, prefix): (String, String, String, String) =
        statement.query_row([start.origin], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let (payload, inputs) = given(&pending.parts).ok_or_else(|| damaged(no, "payload"))?;
    let key = prefix + &start.key;
    let accepted = instant(start.accepted);
    Ok(Some(RunRow {
        no,
        id: RunId::new(accepted, &flow, &key),
        flow: flow.into(),
        version: version.into(),
        trigger: trigger.into(),
        key,
        status: RunStatus::Queued,
        reason: None,
        accepted,
        occurred: instant(start.occurred),
        ended: None,
        payload,
        inputs,
        effects: BTreeMap::new(),
        damaged: None,
    }))
}

fn run_row(row: &Row<'_>, unread: &mut Vec<&str>) -> Result<(RunRow, i64), StoreError> {
    let no = row.get(0)?;
    let flow: String = row.get(1)?;
    let key = row.get::<_, String>(4)? + row.get_ref(5)?.as_str().map_err(rusqlite::Error::from)?;
    let accepted = instant(row.get(8)?);
    let effects: Option<String> = row.get(11)?;
    let (effects, status) = (effects_of(effects.as_deref()), status_of(row.get(6)?));
    if effects.is_none() {
        unread.push("effects");
    }
    if status.is_none() {
        unread.push("status");
    }
    let run = RunRow {
        no,
        id: RunId::new(accepted, &flow, &key),
        flow: flow.into(),
        version: row.get(2)?,
        trigger: row.get(3)?,
        key,
        status: status.unwrap_or(RunStatus::Waiting),
        reason: row.get(7)?,
        accepted,
        occurred: instant(row.get(9)?),
        ended: row.get::<_, Option<i64>>(10)?.map(instant),
        payload: Value::empty(),
        inputs: Value::empty(),
        effects: effects.unwrap_or_default(),
        damaged: None,
    };
    Ok((run, row.get(12)?))
}

fn effects_of(text: Option<&str>) -> Option<BTreeMap<String, u64>> {
    text.filter(|text| !text.is_empty()).map_or(Some(BTreeMap::new()), |text| serde_json::from_str(text).ok())
}

/// Payload and inputs, from the parts that hold them.
fn given(mut parts: &[u8]) -> Option<(Value, Value)> {
    match Part::read(&mut parts)? {
        Part::Given { payload, inputs } => {
            Some((serde_json::from_slice(payload).ok()?, serde_json::from_slice(inputs).ok()?))
        }
        _ => Some((Value::empty(), Value::empty())),
    }
}

pub(super) fn part(connection: &Connection, run: RunNo, number: i64) -> Result<Option<Vec<u8>>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT body FROM parts WHERE no = ?1")?;
    let body: Option<Vec<u8>> = statement.query_row([(run << PART_BITS) | number], |row| row.get(0)).optional()?;
    body.map(|body| pack::unpack(&body, |model| pack::model_text(connection, model))).transpose()
}

/// Calls `each` with every part of a run, in the order in which they were written.
fn parts(
    connection: &Connection,
    tail: &Tail,
    run: RunNo,
    mut each: impl FnMut(Part<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let sql = "SELECT body FROM parts WHERE no >= ?1 AND no < ?2 ORDER BY no";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query([run << PART_BITS, (run + 1) << PART_BITS])?;
    let mut read = |mut raw: &[u8]| {
        while !raw.is_empty() {
            each(Part::read(&mut raw).ok_or_else(|| damaged(run, "rows"))?)?;
        }
        Ok::<(), StoreError>(())
    };
    while let Some(row) = found.next()? {
        let body = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        read(&pack::unpack(body, |model| pack::model_text(connection, model))?)?;
    }
    tail.runs.get(&run).map_or(Ok(()), |pending| read(&pending.parts))
}

pub(super) fn turns(connection: &Connection, tail: &Tail, run: RunNo) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut turns = Turns::default();
    parts(connection, tail, run, |part| turns.add(run, &part))?;
    Ok(turns.0)
}

/// The last one of each path and attempt.
pub(super) fn blobs(connection: &Connection, run: RunNo) -> Result<Vec<Blob>, StoreError> {
    let mut found = BTreeMap::new();
    parts(connection, &Tail::read(connection)?, run, |part| {
        if let Part::Answer { path, attempt, body } = part {
            found.insert((path.to_owned(), attempt), body.to_vec());
        }
        Ok(())
    })?;
    Ok(found.into_iter().map(|((path, attempt), body)| Blob { path, attempt, body }).collect())
}

/// Runs whose keys are not in `seen` yet, by the hash of flow and key.
pub(super) fn unseen(connection: &Connection, tail: &Tail) -> Result<HashMap<[u8; 16], RunNo>, StoreError> {
    let sql = "SELECT r.no, f.name, o.prefix || r.key FROM runs r
               JOIN origins o ON o.no = r.origin JOIN flows f ON f.no = r.flow
               WHERE r.no > coalesce((SELECT value FROM marks WHERE name = 'seen'), 0)";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut found = HashMap::new();
    let mut add = |no: RunNo, flow: &str, key: &str| found.insert(digest16(&[flow, key]), no);
    while let Some(row) = rows.next()? {
        let (flow, key): (String, String) = (row.get(1)?, row.get(2)?);
        add(row.get(0)?, &flow, &key);
    }
    for (no, pending) in &tail.runs {
        if let Some(run) = started(connection, *no, pending)? {
            add(*no, &run.flow, &run.key);
        }
    }
    Ok(found)
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
    let sql = "SELECT flow, key, at, body FROM letters WHERE dropped = 0 AND (?1 IS NULL OR flow = ?1) AND at >= ?2
               ORDER BY at DESC, flow DESC, key DESC LIMIT ?3";
    let limit = if query.limit == 0 { -1 } else { i64::try_from(query.limit).unwrap_or(i64::MAX) };
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map(params![query.flow, query.since.map_or(i64::MIN, nanos), limit], a_letter)?;
    Ok(found.collect::<Result<_, _>>()?)
}

pub(super) fn letter(connection: &Connection, id: &str) -> Result<Option<Letter>, StoreError> {
    let sql = "SELECT flow, key, at, body FROM letters WHERE id = ?1 AND dropped = 0";
    Ok(connection.prepare_cached(sql)?.query_row([id], a_letter).optional()?)
}

fn a_letter(row: &Row<'_>) -> rusqlite::Result<Letter> {
    Ok(Letter { flow: row.get(0)?, key: row.get(1)?, at: instant(row.get(2)?), body: row.get(3)? })
}

/// How many runs have each status: what the tables say, corrected by the log.
pub(super) fn counts(connection: &Connection) -> Result<BTreeMap<RunStatus, u64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT status, n FROM tallies")?;
    let found = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let mut counts: BTreeMap<RunStatus, i64> = BTreeMap::new();
    for pair in found {
        let (number, count) = pair?;
        // A status that is no number of ours is listed as one that waits.
        *counts.entry(status_of(number).unwrap_or(RunStatus::Waiting)).or_default() += count;
    }
    for (no, pending) in &Tail::read(connection)?.runs {
        let after = pending.status.as_ref().map(|(status, _)| *status);
        if pending.start.is_some() {
            *counts.entry(after.unwrap_or(RunStatus::Queued)).or_default() += 1;
        } else if let Some(after) = after {
            let sql = "SELECT status FROM runs WHERE no = ?1";
            let before: Option<i64> = connection.prepare_cached(sql)?.query_row([no], |row| row.get(0)).optional()?;
            if let Some(before) = before.and_then(status_of) {
                *counts.entry(before).or_default() -= 1;
                *counts.entry(after).or_default() += 1;
            }
        }
    }
    Ok(counts.into_iter().filter(|(_, n)| *n > 0).map(|(status, n)| (status, n.unsigned_abs())).collect())
}

pub(super) fn audit(connection: &Connection, after: i64, limit: usize) -> Result<Vec<AuditLine>, StoreError> {
    let line = |no: i64, at: i64, hash: &[u8], body: Vec<u8>| {
        // A hash of another length is a fault that whoever verifies the chain finds.
        AuditLine { no, at: instant(at), hash: hash.try_into().unwrap_or_default(), body }
    };
    let sql = "SELECT no, at, hash, body FROM audit WHERE no > ?1 ORDER BY no LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![after, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut lines = vec![];
    while let Some(row) = rows.next()? {
        let (hash, body): (Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?);
        // So is a body that can't be unpacked: it is given as it lies there.
        lines.push(line(row.get(0)?, row.get(1)?, &hash, pack::unpack_line(&body).unwrap_or(body)));
    }
    let recent = Tail::read(connection)?.audit.into_iter().filter(|line| line.no > after);
    lines.extend(recent.take(limit - lines.len()).map(|Line { no, at, hash, body }| line(no, at, &hash, body)));
    Ok(lines)
}

fn one(connection: &Connection, sql: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(connection.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?)
}

fn damaged(no: RunNo, what: &str) -> StoreError {
    StoreError::Damaged(format!("run number {no}: its {what} cannot be read"))
}
