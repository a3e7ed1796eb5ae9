//! Forgetting what its time is over for: a little in each transaction, so that nobody waits for it.
//!
//! Runs that have not ended are never touched, and the hash of a run's key outlives the run. Freed pages are used again.

use rusqlite::{Connection, OptionalExtension, params};

use super::ops::{Book, execute};
use super::pack::{MODEL_SERVES, Models};
use super::record::status_number;
use super::schema::{BLOCK, PART_BITS, nanos};
use crate::id::digest16;
use crate::journal::chain::{ANCHOR, Anchor};
use crate::journal::{Answer, Prune, RunNo, RunStatus, StoreError};

/// Rows that one operation takes away at most.
const ROWS: i64 = 256;

/// Numbers of runs that one operation looks at.
const NUMBERS: i64 = 16_384;

/// Carries out one step inside the transaction that is open.
pub(super) fn prune(book: &mut Book, connection: &Connection, prune: &Prune) -> Result<Answer, StoreError> {
    let next = match prune {
        Prune::Runs { after, ended, dead } => {
            runs(book, connection, *after, nanos(*ended), Some(nanos(*dead)), |book, no| remove(book, connection, no))?
        }
        Prune::Payloads { after, ended } => {
            let cutoff = nanos(*ended);
            let next = runs(book, connection, *after, cutoff, None, |_, no| {
                parts(connection, no)?;
                execute(connection, "UPDATE runs SET parts = 0 WHERE no = ?1", [no])?;
                Ok(())
            })?;
            if next.is_none() {
                models(book, connection, cutoff)?;
            }
            next
        }
        Prune::Letters { before } => rows(connection, "letters", "at", nanos(*before))?,
        Prune::Skipped { before } => rows(connection, "skipped", "at", nanos(*before))?,
        Prune::Reservations { before } => {
            let sql = "DELETE FROM reservations WHERE (scope, key) IN
                       (SELECT scope, key FROM reservations WHERE at < ?1 ORDER BY at LIMIT ?2)";
            more(execute(connection, sql, params![nanos(*before), ROWS])?)
        }
        Prune::Claims { before } => {
            let sql = "DELETE FROM claims WHERE key IN (SELECT key FROM claims WHERE until < ?1 LIMIT ?2)";
            more(execute(connection, sql, params![nanos(*before), ROWS])?)
        }
        Prune::Audit { before } => audit(connection, nanos(*before))?,
        Prune::Keys { before, slice } => keys(book, connection, nanos(*before), *slice)?,
    };
    Ok(Answer::Pruned { next })
}

fn more(removed: usize) -> Option<RunNo> {
    (i64::try_from(removed) == Ok(ROWS)).then_some(0)
}

/// The oldest rows of a table, which lie in the order in which they came.
fn rows(connection: &Connection, table: &str, column: &str, before: i64) -> Result<Option<RunNo>, StoreError> {
    let sql = format!(
        "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} ORDER BY rowid LIMIT ?2) AND {column} < ?1"
    );
    Ok(more(execute(connection, &sql, params![before, ROWS])?))
}

/// Calls `each` with ended runs after a number; answers where to go on.
fn runs(
    book: &mut Book,
    connection: &Connection,
    after: RunNo,
    ended: i64,
    dead: Option<i64>,
    mut each: impl FnMut(&mut Book, RunNo) -> Result<(), StoreError>,
) -> Result<Option<RunNo>, StoreError> {
    let [succeeded, failed, cancelled, died] =
        [RunStatus::Succeeded, RunStatus::Failed, RunStatus::Cancelled, RunStatus::Dead].map(status_number);
    let sql = "SELECT no FROM runs WHERE no > ?1 AND no <= ?2 AND (?9 OR parts > 0)
               AND ((status IN (?3, ?4, ?5) AND ended < ?6) OR (status = ?7 AND ended < ?8)) ORDER BY no LIMIT ?10";
    let to = after.saturating_add(NUMBERS);
    let mut statement = connection.prepare_cached(sql)?;
    // A dead run can go on at its failed step: what that needs is kept as long as the run.
    let values =
        params![after, to, succeeded, failed, cancelled, ended, died, dead.unwrap_or(i64::MIN), dead.is_some(), ROWS];
    let found: Vec<RunNo> = statement.query_map(values, |row| row.get(0))?.collect::<Result<_, _>>()?;
    let full = i64::try_from(found.len()) == Ok(ROWS);
    let seen = found.last().copied().filter(|_| full).unwrap_or(to);
    for no in found {
        // Of what the log still says something, the tables do not know all.
        if !book.tail.runs.contains_key(&no) {
            each(book, no)?;
        }
    }
    let sql = "SELECT coalesce(max(no), 0) FROM runs";
    let last: RunNo = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok((seen < last).then_some(seen))
}

fn remove(book: &mut Book, connection: &Connection, no: RunNo) -> Result<(), StoreError> {
    let sql = "SELECT f.name, o.prefix || r.key, r.status FROM runs r
               JOIN origins o ON o.no = r.origin JOIN flows f ON f.no = r.flow WHERE r.no = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let (flow, key, status): (String, String, i64) =
        statement.query_row([no], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    // Its key refuses its event for longer than the run is kept.
    let sql = "INSERT INTO seen (hash, run) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    execute(connection, sql, params![digest16(&[&flow, &key]).as_slice(), no])?;
    parts(connection, no)?;
    execute(connection, "DELETE FROM runs WHERE no = ?1", [no])?;
    let sql = "INSERT INTO marks (name, value) VALUES ('pruned', ?1)
               ON CONFLICT DO UPDATE SET value = max(value, excluded.value)";
    execute(connection, sql, [no])?;
    execute(connection, "UPDATE tallies SET n = n - 1 WHERE status = ?1", [status])?;
    book.turns.remove(&no);
    Ok(())
}

fn parts(connection: &Connection, no: RunNo) -> Result<(), StoreError> {
    let sql = "DELETE FROM parts WHERE no >= ?1 AND no < ?2";
    execute(connection, sql, [no << PART_BITS, (no + 1) << PART_BITS])?;
    Ok(())
}

/// Models hold what runs were answered: they go with the last run that may be packed against them. One of them may also
/// be what the log was packed against, unless it is empty.
fn models(book: &mut Book, connection: &Connection, ended: i64) -> Result<(), StoreError> {
    let sql = "SELECT min(accepted) FROM runs WHERE parts > 0";
    let oldest: Option<i64> = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    let before = oldest.unwrap_or(ended).min(ended).saturating_sub(2 * MODEL_SERVES);
    let logged: bool = connection.query_row("SELECT EXISTS (SELECT 1 FROM log)", [], |row| row.get(0))?;
    let free = !logged && book.tail.is_empty();
    let sql = "DELETE FROM models WHERE made < ?1
               AND (?2 OR no < (SELECT max(m.no) FROM models m WHERE m.origin = models.origin))";
    if execute(connection, sql, params![before, free])? > 0 && free {
        book.models = Models::default();
    }
    Ok(())
}

/// Lines from the first on; what the next one is chained to stays as the anchor.
fn audit(connection: &Connection, before: i64) -> Result<Option<RunNo>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT no, at, hash FROM audit ORDER BY no LIMIT ?1")?;
    let found = statement.query_map([ROWS], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut last: Option<(i64, Vec<u8>)> = None;
    let mut count = 0;
    for line in found {
        let (no, at, hash): (i64, i64, Vec<u8>) = line?;
        if at >= before {
            break;
        }
        last = Some((no, hash));
        count += 1;
    }
    let Some((no, hash)) = last else { return Ok(None) };
    let hash = hash.try_into().map_err(|_| StoreError::Damaged(format!("the hash of line {no} of the audit log")))?;
    execute(connection, "DELETE FROM audit WHERE no <= ?1", [no])?;
    let sql = "INSERT OR REPLACE INTO named (name, body) VALUES (?1, ?2)";
    execute(connection, sql, params![ANCHOR, Anchor { no, hash }.to_string().into_bytes()])?;
    Ok(more(count))
}

/// Keys of runs that are gone and were accepted before an instant, one 256th of all hashes.
fn keys(book: &Book, connection: &Connection, before: i64, slice: u8) -> Result<Option<RunNo>, StoreError> {
    let sql = "SELECT min(no) FROM blocks WHERE high >= ?1";
    let kept: Option<i64> = connection.prepare_cached(sql)?.query_row([before], |row| row.get(0)).optional()?.flatten();
    // Runs that the log alone knows stand in no block yet.
    let logged = book.tail.runs.first_key_value().map_or(i64::MAX, |(no, _)| *no);
    let below = kept.map_or(i64::MAX, |block| block * BLOCK).min(logged);
    let to = if slice == u8::MAX { vec![u8::MAX; 17] } else { vec![slice + 1] };
    let sql = "DELETE FROM seen WHERE hash >= ?1 AND hash < ?2 AND run > 0 AND run < ?3
               AND NOT EXISTS (SELECT 1 FROM runs WHERE no = seen.run)";
    execute(connection, sql, params![vec![slice], to, below])?;
    if slice == u8::MAX {
        let sql = "DELETE FROM blocks WHERE (no + 1) * ?1 <= ?2
                   AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.no >= blocks.no * ?1 AND r.no < (blocks.no + 1) * ?1)";
        execute(connection, sql, params![BLOCK, below])?;
    }
    Ok(None)
}
