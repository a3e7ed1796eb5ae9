//! Stores of earlier formats, brought to this one: first a backup beside the store, then one transaction.
//!
//! Format 1 had a row for each turn, answer and status at once; format 2 knew which runs sleep. Journals of each are kept
//! in `tests/journals` and read for ever.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::fold::Totals;
use super::ops::{Book, execute};
use super::record::{Part, status_number};
use super::schema::{self, PART_BITS, VERSION, instant};
use super::{backup, moments, pack};
use crate::journal::chain::{self, ROOT};
use crate::journal::{RunNo, RunStatus, StoreError};

/// What the names of copies begin with.
const COPY: &str = "watchfloor.format-";

/// Bytes after which a run gets another part.
const PART: usize = 1 << 20;

/// Copies the store beside itself and migrates it. Killed in the middle, it is as it was, and the next start begins again.
///
/// # Errors
/// `Full` where there is no room for the backup or the new tables; the store is as it was then.
pub(super) fn forward(connection: &Connection, file: &Path, found: i64, now: Timestamp) -> Result<(), StoreError> {
    sweep(file);
    let name = format!("{COPY}{found}.{}.db", now.strftime("%Y%m%dT%H%M%S%.3fZ"));
    let to = file.with_file_name(name);
    let size = backup::copy(connection, &to, now).map_err(|error| {
        let what =
            format!("the store has format {found} and must be copied before it is brought to {VERSION}: {error}");
        match error {
            StoreError::Full(_) => StoreError::Full(what),
            _ => StoreError::Failed(what),
        }
    })?;
    tracing::info!(backup = %to.display(), bytes = size, "the store is brought from format {found} to {VERSION}");
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let done = tables(connection, found).and_then(|()| {
        moments::at("migrate.before")?;
        connection.execute_batch(&format!("PRAGMA user_version = {VERSION}; COMMIT"))?;
        Ok(())
    });
    if done.is_err() {
        // The first error is the one to tell. The store is as it was, and a service that is started again and again must
        // not fill the disk with copies of it.
        drop(connection.execute_batch("ROLLBACK"));
        drop(std::fs::remove_file(&to));
    }
    done?;
    moments::at("migrate.after")
}

/// Takes away the half copies of starts that were killed: nobody else knows their names, and each is as large as the store.
fn sweep(file: &Path) {
    let Some(entries) = file.parent().and_then(|folder| folder.read_dir().ok()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(COPY) && (name.ends_with(".part") || name.ends_with("-journal")) {
            // What cannot be taken away costs room and nothing else.
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

fn tables(connection: &Connection, found: i64) -> Result<(), StoreError> {
    connection.execute_batch(
        "DROP INDEX runs_by_status; DROP INDEX runs_by_flow; DROP INDEX IF EXISTS runs_asleep;
         ALTER TABLE runs RENAME TO old_runs; ALTER TABLE audit RENAME TO old_audit;",
    )?;
    connection.execute_batch(schema::RUN_TABLES)?;
    connection.execute_batch(schema::LETTERS)?;
    let mut book = Book::read(connection)?;
    let mut totals = Totals::default();
    let wake = if found >= 2 { "r.wake" } else { "NULL" };
    let sql = format!(
        "SELECT r.no, r.flow, r.version, r.trigger_type, r.key, r.dedupe, r.status, r.reason, r.accepted, r.occurred,
         r.ended, r.effects, {wake}, coalesce(d.payload, '{{}}'), coalesce(d.inputs, '{{}}')
         FROM old_runs r LEFT JOIN run_data d ON d.run = r.no ORDER BY r.no"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        moments::at("migrate.run")?;
        run(connection, &mut book, &mut totals, row)?;
    }
    drop(rows);
    drop(statement);
    totals.write(connection)?;
    let last: i64 = connection.query_row("SELECT coalesce(max(no), 0) FROM runs", [], |row| row.get(0))?;
    execute(connection, "INSERT INTO marks (name, value) VALUES ('seen', ?1)", [last])?;
    audit(connection)?;
    connection.execute_batch(
        "DROP TABLE old_runs; DROP TABLE run_data; DROP TABLE turns; DROP TABLE blobs; DROP TABLE old_audit;",
    )?;
    Ok(())
}

fn run(connection: &Connection, book: &mut Book, totals: &mut Totals, row: &Row<'_>) -> Result<(), StoreError> {
    let no: RunNo = row.get(0)?;
    let (flow, version, trigger): (Arc<str>, Arc<str>, Arc<str>) = (row.get(1)?, row.get(2)?, row.get(3)?);
    let (key, hash): (String, Vec<u8>) = (row.get(4)?, row.get(5)?);
    let word: String = row.get(6)?;
    let Some(status) = RunStatus::parse(&word) else {
        let message = format!("run number {no} has the status {word:?}; take the store from a backup, or report this");
        return Err(StoreError::Failed(message));
    };
    let (reason, accepted, occurred): (Option<String>, i64, i64) = (row.get(7)?, row.get(8)?, row.get(9)?);
    let (ended, effects, wake): (Option<i64>, Option<String>, Option<i64>) = (row.get(10)?, row.get(11)?, row.get(12)?);
    let (payload, inputs): (String, String) = (row.get(13)?, row.get(14)?);
    let (origin, rest) = book.origin(connection, &flow, &version, &trigger, &key)?;

    let mut parts = Parts { connection, book, no, origin, at: ended.unwrap_or(accepted), raw: Vec::new(), count: 0 };
    parts.add(Part::Given { payload: payload.as_bytes(), inputs: inputs.as_bytes() })?;
    let mut turns = 0;
    let mut statement = connection.prepare_cached("SELECT seq, body FROM turns WHERE run = ?1 ORDER BY seq")?;
    let mut found = statement.query([no])?;
    while let Some(turn) = found.next()? {
        let body: Vec<u8> = turn.get(1)?;
        parts.add(Part::Turn { seq: turn.get(0)?, body: &body })?;
        turns += 1;
    }
    let sql = "SELECT path, attempt, body FROM blobs WHERE run = ?1 ORDER BY rowid";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query([no])?;
    while let Some(answer) = found.next()? {
        let (path, body): (String, Vec<u8>) = (answer.get(0)?, answer.get(2)?);
        parts.add(Part::Answer { path: &path, attempt: answer.get(1)?, body: &body })?;
    }
    let count = parts.end(ended.is_some())?;

    let number = status_number(status);
    let sql = "INSERT INTO runs (no, flow, origin, key, status, reason, accepted, occurred, ended, effects, turns, parts, wake)
               SELECT ?1, o.flow, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 FROM origins o WHERE o.no = ?2";
    let values = params![no, origin, rest, number, reason, accepted, occurred, ended, effects, turns, count, wake];
    execute(connection, sql, values)?;
    execute(connection, "INSERT INTO seen (hash, run) VALUES (?1, ?2)", params![hash, no])?;
    totals.count(number, 1);
    totals.stretch(no, accepted);
    Ok(())
}

/// The parts of one run, as they grow.
struct Parts<'a> {
    connection: &'a Connection,
    book: &'a mut Book,
    no: RunNo,
    origin: i64,
    at: i64,
    raw: Vec<u8>,
    count: i64,
}

impl Parts<'_> {
    fn add(&mut self, part: Part<'_>) -> Result<(), StoreError> {
        part.write(&mut self.raw);
        if self.raw.len() > PART { self.put(false) } else { Ok(()) }
    }

    fn put(&mut self, ended: bool) -> Result<(), StoreError> {
        let raw = std::mem::take(&mut self.raw);
        let whole = (ended && self.count == 0).then_some(|| Ok(raw.clone()));
        let body = self.book.models.pack(self.connection, self.origin, self.at, &raw, whole)?;
        let no = (self.no << PART_BITS) | self.count;
        execute(self.connection, "INSERT INTO parts (no, body) VALUES (?1, ?2)", params![no, body])?;
        self.count += 1;
        Ok(())
    }

    fn end(mut self, ended: bool) -> Result<i64, StoreError> {
        if !self.raw.is_empty() {
            self.put(ended)?;
        }
        Ok(self.count)
    }
}

/// Lines of before had no hashes: the chain begins with the first of them as it stands now.
fn audit(connection: &Connection) -> Result<(), StoreError> {
    let mut statement = connection.prepare("SELECT at, body FROM old_audit ORDER BY no")?;
    let mut rows = statement.query([])?;
    let (mut no, mut hash) = (0, ROOT);
    while let Some(row) = rows.next()? {
        let (at, body): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        no += 1;
        hash = chain::link(&hash, no, instant(at), &body);
        let sql = "INSERT INTO audit (no, at, hash, body) VALUES (?1, ?2, ?3, ?4)";
        execute(connection, sql, params![no, at, hash.as_slice(), pack::pack_line(&body)])?;
    }
    Ok(())
}
