//! Events that wait for others to start one run with them, and that run.
//!
//! An event's key is remembered when it joins, as the number of its gathering below zero, and as the run's when that begins.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::ops::{Book, execute, json};
use super::schema::{instant, nanos};
use super::search;
use crate::id::digest16;
use crate::journal::{Answer, Gather, Gathering, GatheringNo, Offer, StoreError, Taken};
use crate::value::Value;

const GATHERING: &str = "SELECT no, flow, version, slot, opened, due, events, full FROM gatherings";

/// An event joins the gathering of its flow, version and slot, or begins one.
pub(super) fn gather(book: &Book, connection: &Connection, gather: &Gather) -> Result<Answer, StoreError> {
    let Gather { event, slot, due, most, most_bytes } = gather;
    let hash = digest16(&[&event.flow, &event.key]);
    if book.knows(connection, &hash)? {
        return Ok(Answer::Gathered(None));
    }
    let (payload, inputs) = (json(&event.payload)?, json(&event.inputs)?);
    let size = i64::try_from(payload.len()).unwrap_or(i64::MAX);
    let sql = "SELECT no, bytes FROM gatherings WHERE flow = ?1 AND version = ?2 AND slot = ?3 AND full = 0";
    let open = connection
        .prepare_cached(sql)?
        .query_row(params![event.flow, event.version, slot], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let room = |bytes: i64| u64::try_from(bytes.saturating_add(size)).is_ok_and(|bytes| bytes <= *most_bytes);
    let no: GatheringNo = match open {
        Some((no, bytes)) if room(bytes) => no,
        open => {
            if let Some((no, _)) = open {
                execute(connection, "UPDATE gatherings SET full = 1 WHERE no = ?1", [no])?;
            }
            let sql = "INSERT INTO gatherings (flow, version, slot, opened, due, events, bytes, full)
                       VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 0)";
            let values = params![event.flow, event.version, slot, nanos(event.accepted), nanos(*due)];
            execute(connection, sql, values)?;
            connection.last_insert_rowid()
        }
    };
    let sql = "UPDATE gatherings SET events = events + 1, bytes = bytes + ?2, full = events + 1 >= ?3 WHERE no = ?1";
    execute(connection, sql, params![no, size, most])?;
    let sql = "INSERT INTO gathered (gathering, no, trigger_type, key, accepted, occurred, payload, inputs)
               SELECT ?1, events, ?2, ?3, ?4, ?5, ?6, ?7 FROM gatherings WHERE no = ?1";
    let (accepted, occurred) = (nanos(event.accepted), nanos(event.occurred));
    execute(connection, sql, params![no, event.trigger, event.key, accepted, occurred, payload, inputs])?;
    execute(connection, "INSERT INTO seen (hash, run) VALUES (?1, ?2)", params![hash.as_slice(), -no])?;
    Ok(Answer::Gathered(one(connection, no)?.map(Box::new)))
}

/// The run of a gathering, where that is still what the run was made of.
pub(super) fn close(
    book: &mut Book,
    connection: &Connection,
    no: GatheringNo,
    events: u32,
    offer: &Offer,
) -> Result<Answer, StoreError> {
    let Some(gathering) = one(connection, no)?.filter(|gathering| gathering.events == events) else {
        return Ok(Answer::Offered(None));
    };
    let row = book.begin(connection, offer)?;
    let mut statement = connection.prepare_cached("SELECT key FROM gathered WHERE gathering = ?1")?;
    let mut rows = statement.query([no])?;
    while let Some(event) = rows.next()? {
        let hash = digest16(&[&gathering.flow, event.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?]);
        execute(connection, "UPDATE seen SET run = ?2 WHERE hash = ?1", params![hash.as_slice(), row.no])?;
    }
    execute(connection, "DELETE FROM gathered WHERE gathering = ?1", [no])?;
    execute(connection, "DELETE FROM gatherings WHERE no = ?1", [no])?;
    Ok(Answer::Offered(Some(Box::new(row))))
}

pub(super) fn taken(connection: &Connection, flow: &str, key: &str) -> Result<Option<Taken>, StoreError> {
    match search::known(connection, flow, key)? {
        Some(no) if no < 0 => Ok(one(connection, -no)?.map(Taken::Gathering)),
        known => Ok(known.map(Taken::Run)),
    }
}

pub(super) fn gatherings(connection: &Connection) -> Result<Vec<Gathering>, StoreError> {
    if !exist(connection)? {
        return Ok(vec![]);
    }
    let mut statement = connection.prepare_cached(&format!("{GATHERING} ORDER BY no"))?;
    let rows = statement.query_map([], gathering)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn gathered(connection: &Connection, no: GatheringNo) -> Result<Vec<Offer>, StoreError> {
    if !exist(connection)? {
        return Ok(vec![]);
    }
    let sql = "SELECT g.flow, g.version, e.trigger_type, e.key, e.accepted, e.occurred, e.payload, e.inputs
               FROM gathered e JOIN gatherings g ON g.no = e.gathering WHERE e.gathering = ?1 ORDER BY e.no";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([no])?;
    let mut events = vec![];
    while let Some(row) = rows.next()? {
        let value = |index: usize| -> Result<Value, StoreError> {
            let text = row.get_ref(index)?.as_str().map_err(rusqlite::Error::from)?;
            let key = || row.get::<_, String>(3).unwrap_or_default();
            serde_json::from_str(text)
                .map_err(|_| StoreError::Damaged(format!("what the gathered event {} holds cannot be read", key())))
        };
        events.push(Offer {
            flow: row.get::<_, Arc<str>>(0)?,
            version: row.get(1)?,
            trigger: row.get(2)?,
            key: row.get(3)?,
            accepted: instant(row.get(4)?),
            occurred: instant(row.get(5)?),
            payload: value(6)?,
            inputs: value(7)?,
        });
    }
    Ok(events)
}

fn one(connection: &Connection, no: GatheringNo) -> Result<Option<Gathering>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{GATHERING} WHERE no = ?1"))?;
    Ok(statement.query_row([no], gathering).optional()?)
}

fn gathering(row: &Row<'_>) -> rusqlite::Result<Gathering> {
    Ok(Gathering {
        no: row.get(0)?,
        flow: row.get(1)?,
        version: row.get(2)?,
        slot: row.get(3)?,
        opened: instant(row.get(4)?),
        due: instant(row.get(5)?),
        events: row.get(6)?,
        full: row.get(7)?,
    })
}

/// Whether the tables are there: a store that no service of this version had open has none.
fn exist(connection: &Connection) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'gatherings')";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}
