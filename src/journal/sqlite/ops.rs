//! One operation of a batch as SQL. Every value is bound; every statement is prepared once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, Params, params};

use super::schema::{NEVER, nanos};
use crate::id::{RunId, digest16};
use crate::journal::{Answer, Letter, Offer, Op, RunNo, RunRow, RunStatus, Sleep, StoreError};

/// Carries out one operation inside the transaction that is open.
///
/// # Errors
/// What was written before the error stays in the transaction: the caller takes it back.
pub(super) fn apply(connection: &Connection, op: &Op) -> Result<Answer, StoreError> {
    let at = |sql: &str, params: &[&dyn rusqlite::ToSql]| execute(connection, sql, params);
    match op {
        Op::Turn { run, seq, body } => return turn(connection, *run, *seq, body),
        Op::Offer(offer) => return self::offer(connection, offer),
        Op::Status { run, status, reason } => return set_status(connection, *run, *status, reason.as_deref()),
        Op::Finish { run, status, reason, ended, effects } => {
            return finish(connection, *run, *status, reason.as_deref(), *ended, effects);
        }
        Op::Sleep { run, sleep } => return self::sleep(connection, *run, *sleep),
        Op::Claim { key, run, at, until } => return claim(connection, key, *run, *at, *until),
        Op::Blob { run, path, attempt, body } => at(
            "INSERT OR REPLACE INTO blobs (run, path, attempt, body) VALUES (?1, ?2, ?3, ?4)",
            &[run, path, attempt, body],
        )?,
        Op::Bundle { version, body } => {
            at("INSERT INTO bundles (version, body) VALUES (?1, ?2) ON CONFLICT DO NOTHING", &[version, body])?
        }
        Op::Put { name, body } => at("INSERT OR REPLACE INTO named (name, body) VALUES (?1, ?2)", &[name, body])?,
        Op::Reserve { scope, key, at: when } => at(
            "INSERT INTO reservations (scope, key, at) VALUES (?1, ?2, ?3)
             ON CONFLICT (scope, key) DO UPDATE SET at = max(at, excluded.at)",
            &[scope, key, &nanos(*when)],
        )?,
        Op::Release { key, run } => at("DELETE FROM claims WHERE key = ?1 AND run = ?2", &[key, run])?,
        Op::Skipped { flow, key, at: when, body } => at(
            "INSERT OR REPLACE INTO skipped (flow, key, at, body) VALUES (?1, ?2, ?3, ?4)",
            &[flow, key, &nanos(*when), body],
        )?,
        Op::Letter { flow, key, at: when, body } => at(
            "INSERT INTO letters (id, flow, key, at, dropped, body) VALUES (?1, ?2, ?3, ?4, 0, ?5)
             ON CONFLICT (id) DO UPDATE SET at = excluded.at, body = excluded.body WHERE dropped = 0",
            &[&Letter::id(flow, key), flow, key, &nanos(*when), body],
        )?,
        Op::LetterDone { flow, key, dropped: true } => {
            at("UPDATE letters SET dropped = 1, body = x'' WHERE id = ?1", &[&Letter::id(flow, key)])?
        }
        Op::LetterDone { flow, key, dropped: false } => {
            at("DELETE FROM letters WHERE id = ?1", &[&Letter::id(flow, key)])?
        }
        Op::Audit { at: when, body } => at("INSERT INTO audit (at, body) VALUES (?1, ?2)", &[&nanos(*when), body])?,
    };
    Ok(Answer::None)
}

/// The hot path: one row, next to its predecessor on the same page.
fn turn(connection: &Connection, run: RunNo, seq: u32, body: &[u8]) -> Result<Answer, StoreError> {
    let sql = "INSERT INTO turns (run, seq, body) SELECT ?1, ?2, ?3
               WHERE ?2 = 0 OR EXISTS (SELECT 1 FROM turns WHERE run = ?1 AND seq = ?2 - 1)";
    match execute(connection, sql, params![run, seq, body])? {
        0 => Err(StoreError::Failed(format!("turn {seq} of run {run} has no predecessor"))),
        _ => Ok(Answer::None),
    }
}

/// The row is tried first: of a duplicate, which a poller offers again and again, nothing else is even written out.
fn offer(connection: &Connection, offer: &Offer) -> Result<Answer, StoreError> {
    let id = RunId::new(offer.accepted, &offer.flow, &offer.key);
    let dedupe = digest16(&[&offer.flow, &offer.key]);
    let sql = "INSERT INTO runs (id, flow, version, trigger_type, key, dedupe, status, accepted, occurred)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING";
    let (flow, version, trigger) = (&*offer.flow, &*offer.version, &*offer.trigger);
    let (status, accepted, occurred) = (RunStatus::Queued.as_str(), nanos(offer.accepted), nanos(offer.occurred));
    let row = params![id.as_str(), flow, version, trigger, offer.key, dedupe.as_slice(), status, accepted, occurred];
    if execute(connection, sql, row)? == 0 {
        return Ok(Answer::Offered(None));
    }
    let no = connection.last_insert_rowid();
    let (payload, inputs) = (json(&offer.payload)?, json(&offer.inputs)?);
    let sql = "INSERT OR REPLACE INTO run_data (run, payload, inputs) VALUES (?1, ?2, ?3)";
    execute(connection, sql, params![no, payload, inputs])?;
    Ok(Answer::Offered(Some(Box::new(RunRow::accepted(no, id, offer)))))
}

fn set_status(
    connection: &Connection,
    run: RunNo,
    status: RunStatus,
    reason: Option<&str>,
) -> Result<Answer, StoreError> {
    let sql = "UPDATE runs SET status = ?2, reason = ?3, ended = NULL WHERE no = ?1";
    known(run, execute(connection, sql, params![run, status.as_str(), reason])?)
}

fn sleep(connection: &Connection, run: RunNo, sleep: Sleep) -> Result<Answer, StoreError> {
    let wake = match sleep {
        Sleep::Awake => None,
        Sleep::Until(at) => Some(nanos(at).min(NEVER - 1)),
        Sleep::ForPerson => Some(NEVER),
    };
    known(run, execute(connection, "UPDATE runs SET wake = ?2 WHERE no = ?1", params![run, wake])?)
}

fn finish(
    connection: &Connection,
    run: RunNo,
    status: RunStatus,
    reason: Option<&str>,
    ended: Timestamp,
    effects: &BTreeMap<String, u64>,
) -> Result<Answer, StoreError> {
    let sql = "UPDATE runs SET status = ?2, reason = ?3, ended = ?4, effects = ?5, wake = NULL WHERE no = ?1";
    let effects = (!effects.is_empty()).then(|| json(effects)).transpose()?;
    known(run, execute(connection, sql, params![run, status.as_str(), reason, nanos(ended), effects])?)
}

fn claim(
    connection: &Connection,
    key: &str,
    run: RunNo,
    at: Timestamp,
    until: Timestamp,
) -> Result<Answer, StoreError> {
    let sql = "INSERT INTO claims (key, run, until) VALUES (?1, ?2, ?4) ON CONFLICT (key)
               DO UPDATE SET run = excluded.run, until = excluded.until
               WHERE claims.until <= ?3 OR (claims.run = excluded.run AND claims.until = excluded.until)";
    let changed = execute(connection, sql, params![key, run, nanos(at), nanos(until)])?;
    Ok(Answer::Claimed(changed > 0))
}

fn known(run: RunNo, changed: usize) -> Result<Answer, StoreError> {
    match changed {
        0 => Err(StoreError::Failed(format!("there is no run number {run}"))),
        _ => Ok(Answer::None),
    }
}

fn execute(connection: &Connection, sql: &str, params: impl Params) -> Result<usize, StoreError> {
    Ok(connection.prepare_cached(sql)?.execute(params)?)
}

fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Failed(format!("writing a value out: {error}")))
}
