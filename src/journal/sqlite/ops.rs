//! One batch as entries of the log and rows of tables. Every value is bound; every statement is prepared once.
//!
//! What belongs to runs goes into the log, one row a commit, and is sorted into tables later (see `fold`): a run then costs
//! no page of its own at each turn. Small named things are rows at once, in the same transaction.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Params, params};

use super::pack::Models;
use super::record::{AWAKE, Entry, FOR_PERSON, Part};
use super::schema::{instant, nanos};
use super::tail::Tail;
use crate::id::{RunId, digest16};
use crate::journal::chain::{ANCHOR, Anchor, Hash, ROOT, link};
use crate::journal::{Answer, Letter, Offer, Op, RunNo, RunRow, Sleep, StoreError};

/// Prefixes of keys that one version of a flow may have; further keys are kept whole.
const PREFIXES: i64 = 16;

/// Longest prefix that is shared.
const PREFIX: usize = 64;

/// Origins kept in memory.
const ORIGINS: usize = 4096;

/// What the writer knows beside the tables: all of it can be read again from them.
pub(super) struct Book {
    pub(super) tail: Tail,
    /// Number of the next run.
    pub(super) next: RunNo,
    /// The next turn of runs that were asked for since the last fold; `None` where there is no such run.
    pub(super) turns: HashMap<RunNo, Option<u32>>,
    /// Keys of runs that are not in `seen` yet.
    pub(super) recent: HashMap<[u8; 16], RunNo>,
    pub(super) models: Models,
    origins: HashMap<OriginKey, i64>,
    /// Number and hash of the last line of the audit log.
    chain: (i64, Hash),
    /// Entries of the commit that is being made.
    entries: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct OriginKey {
    flow: Arc<str>,
    version: Arc<str>,
    trigger: Arc<str>,
    prefix: String,
    whole: bool,
}

impl Book {
    /// Reads it from a store.
    pub(super) fn read(connection: &Connection) -> Result<Book, StoreError> {
        let tail = Tail::read(connection)?;
        let last: i64 = connection.query_row("SELECT coalesce(max(no), 0) FROM runs", [], |row| row.get(0))?;
        // The number of a run that is gone is never given again: keys and parts of before may still name it.
        let sql = "SELECT coalesce(max(value), 0) FROM marks WHERE name = 'pruned'";
        let last = last.max(connection.query_row(sql, [], |row| row.get(0))?);
        let last = tail.runs.last_key_value().map_or(last, |(no, _)| last.max(*no));
        let last_line = match tail.audit.last() {
            Some(line) => Some((line.no, line.hash.clone())),
            None => {
                let sql = "SELECT no, hash FROM audit ORDER BY no DESC LIMIT 1";
                connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?
            }
        };
        let last_line = match last_line {
            Some(line) => Some(line),
            None => {
                let sql = "SELECT body FROM named WHERE name = ?1";
                let body: Option<Vec<u8>> = connection.query_row(sql, [ANCHOR], |row| row.get(0)).optional()?;
                let anchor = body.and_then(|body| Anchor::parse(std::str::from_utf8(&body).ok()?));
                anchor.map(|anchor| (anchor.no, anchor.hash.to_vec()))
            }
        };
        // A hash that is none is a fault that `audit verify` tells of; what comes after it is chained all the same.
        let chain = last_line.map_or((0, ROOT), |(no, hash)| (no, hash.try_into().unwrap_or(ROOT)));
        let recent = super::read::unseen(connection, &tail)?;
        Ok(Book {
            tail,
            next: last + 1,
            turns: HashMap::new(),
            recent,
            models: Models::default(),
            origins: HashMap::new(),
            chain,
            entries: Vec::new(),
        })
    }

    /// Whether a batch can go in: what can be wrong with it is found here, before anything is changed.
    ///
    /// # Errors
    /// A turn without its predecessor or a second time, a run that does not exist.
    pub(super) fn check(&mut self, connection: &Connection, ops: &[Op]) -> Result<(), StoreError> {
        let mut new = BTreeMap::new();
        for op in ops {
            let (run, turn) = match op {
                Op::Turn { run, seq, .. } => (*run, Some(*seq)),
                Op::Status { run, .. } | Op::Sleep { run, .. } | Op::Finish { run, .. } | Op::Blob { run, .. } => {
                    (*run, None)
                }
                _ => continue,
            };
            let Some(stored) = self.next_turn(connection, run)? else {
                return Err(StoreError::Failed(format!("there is no run number {run}")));
            };
            if let Some(seq) = turn {
                let next = new.entry(run).or_insert(stored);
                if seq != *next {
                    let what = if seq < *next { "exists" } else { "has no predecessor" };
                    return Err(StoreError::Failed(format!("turn {seq} of run {run} {what}")));
                }
                *next += 1;
            }
        }
        Ok(())
    }

    fn next_turn(&mut self, connection: &Connection, run: RunNo) -> Result<Option<u32>, StoreError> {
        if let Some(next) = self.turns.get(&run) {
            return Ok(*next);
        }
        let sql = "SELECT turns FROM runs WHERE no = ?1";
        let stored: Option<u32> = connection.prepare_cached(sql)?.query_row([run], |row| row.get(0)).optional()?;
        let pending = self.tail.runs.get(&run);
        let next = match (stored, pending) {
            (Some(stored), pending) => Some(stored + pending.map_or(0, |pending| pending.turns)),
            (None, Some(pending)) if pending.start.is_some() => Some(pending.turns),
            (None, _) => None,
        };
        self.turns.insert(run, next);
        Ok(next)
    }

    /// Carries out one operation of a batch that was checked, inside the transaction that is open.
    ///
    /// # Errors
    /// The disk; the caller takes the whole transaction back and reads the book again.
    pub(super) fn apply(&mut self, connection: &Connection, op: &Op) -> Result<Answer, StoreError> {
        match op {
            Op::Offer(offer) => return self.offer(connection, offer),
            Op::Gather(gather) => return super::gather::gather(self, connection, gather),
            Op::Close { gathering, events, offer } => {
                return super::gather::close(self, connection, *gathering, *events, offer);
            }
            Op::Turn { run, seq, body } => {
                self.turns.insert(*run, Some(seq + 1));
                self.note(&Entry::Part { run: *run, part: Part::Turn { seq: *seq, body } });
            }
            Op::Blob { run, path, attempt, body } => {
                self.note(&Entry::Part { run: *run, part: Part::Answer { path, attempt: *attempt, body } });
            }
            Op::Status { run, status, reason } => {
                self.note(&Entry::Status { run: *run, status: *status, reason: reason.as_deref() });
            }
            Op::Sleep { run, sleep } => {
                let wake = match sleep {
                    Sleep::Awake => AWAKE,
                    Sleep::Until(at) => nanos(*at).clamp(AWAKE + 1, FOR_PERSON - 1),
                    Sleep::ForPerson => FOR_PERSON,
                };
                self.note(&Entry::Sleep { run: *run, wake });
            }
            Op::Finish { run, status, reason, ended, effects } => {
                let effects = if effects.is_empty() { String::new() } else { json(effects)? };
                let (reason, ended) = (reason.as_deref(), nanos(*ended));
                self.note(&Entry::Finish { run: *run, status: *status, reason, ended, effects: &effects });
            }
            Op::Audit { at, body } => {
                let no = self.chain.0 + 1;
                let at = nanos(*at);
                // Over the time as it will be read.
                let hash = link(&self.chain.1, no, instant(at), body);
                self.chain = (no, hash);
                self.note(&Entry::Audit { no, at, hash: &hash, body });
            }
            Op::Prune(step) => return super::prune::prune(self, connection, step),
            other => return row(connection, other),
        }
        Ok(Answer::None)
    }

    fn note(&mut self, entry: &Entry<'_>) {
        entry.write(&mut self.entries);
        self.tail.apply(entry);
    }

    /// Writes the entries of this commit, as one row.
    pub(super) fn seal(&mut self, connection: &Connection) -> Result<(), StoreError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let body = self.models.pack_log(&self.entries);
        self.entries.clear();
        execute(connection, "INSERT INTO log (body) VALUES (?1)", [body])?;
        Ok(())
    }

    /// A duplicate, which a poller offers again and again, is found before anything of it is written out.
    fn offer(&mut self, connection: &Connection, offer: &Offer) -> Result<Answer, StoreError> {
        if self.knows(connection, &digest16(&[&offer.flow, &offer.key]))? {
            return Ok(Answer::Offered(None));
        }
        Ok(Answer::Offered(Some(Box::new(self.begin(connection, offer)?))))
    }

    /// Whether an event's key is known, by its hash.
    pub(super) fn knows(&self, connection: &Connection, hash: &[u8; 16]) -> Result<bool, StoreError> {
        Ok(self.recent.contains_key(hash) || seen(connection, hash)?.is_some())
    }

    /// The run of an offer that may start one.
    pub(super) fn begin(&mut self, connection: &Connection, offer: &Offer) -> Result<RunRow, StoreError> {
        let hash = digest16(&[&offer.flow, &offer.key]);
        let (flow, version, trigger) = (&offer.flow, &offer.version, &offer.trigger);
        let (origin, key) = self.origin(connection, flow, version, trigger, &offer.key)?;
        let no = self.next;
        self.next += 1;
        self.recent.insert(hash, no);
        self.turns.insert(no, Some(0));
        let (accepted, occurred) = (nanos(offer.accepted), nanos(offer.occurred));
        self.note(&Entry::Start { run: no, origin, key, accepted, occurred });
        let (payload, inputs) = (json(&offer.payload)?, json(&offer.inputs)?);
        let part = Part::Given { payload: payload.as_bytes(), inputs: inputs.as_bytes() };
        self.note(&Entry::Part { run: no, part });
        let id = RunId::new(offer.accepted, &offer.flow, &offer.key);
        Ok(RunRow::accepted(no, id, offer))
    }

    /// The number of what a run has in common with others, and the rest of its key.
    pub(super) fn origin<'a>(
        &mut self,
        connection: &Connection,
        flow: &Arc<str>,
        version: &Arc<str>,
        trigger: &Arc<str>,
        event: &'a str,
    ) -> Result<(i64, &'a str), StoreError> {
        let split = event.rfind(':').map_or(0, |colon| colon + 1);
        let (prefix, rest) = event.split_at_checked(split).unwrap_or(("", event));
        let mut key = OriginKey {
            flow: Arc::clone(flow),
            version: Arc::clone(version),
            trigger: Arc::clone(trigger),
            prefix: prefix.to_owned(),
            whole: false,
        };
        if prefix.len() <= PREFIX
            && let Some(no) = self.origin_no(connection, &key, true)?
        {
            return Ok((no, rest));
        }
        key.prefix.clear();
        key.whole = true;
        match self.origin_no(connection, &key, false)? {
            Some(no) => Ok((no, event)),
            None => Err(StoreError::Failed(format!("the flow {flow} has no origin"))),
        }
    }

    /// Makes it where it is new; `None` where there are too many already and `bounded` says so.
    fn origin_no(
        &mut self,
        connection: &Connection,
        key: &OriginKey,
        bounded: bool,
    ) -> Result<Option<i64>, StoreError> {
        if let Some(no) = self.origins.get(key) {
            return Ok(Some(*no));
        }
        let (name, version, trigger, prefix) = (&*key.flow, &*key.version, &*key.trigger, &*key.prefix);
        execute(connection, "INSERT INTO flows (name) VALUES (?1) ON CONFLICT DO NOTHING", [name])?;
        let sql = "SELECT no FROM flows WHERE name = ?1";
        let flow: i64 = connection.prepare_cached(sql)?.query_row([name], |row| row.get(0))?;
        let sql = "SELECT no FROM origins
                   WHERE flow = ?1 AND version = ?2 AND trigger_type = ?3 AND prefix = ?4 AND whole = ?5";
        let values = params![flow, version, trigger, prefix, key.whole];
        let found: Option<i64> = connection.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?;
        let no = match found {
            Some(no) => no,
            None => {
                let sql = "SELECT count(*) FROM origins WHERE flow = ?1 AND version = ?2 AND trigger_type = ?3";
                let count: i64 =
                    connection.prepare_cached(sql)?.query_row(params![flow, version, trigger], |row| row.get(0))?;
                if bounded && count >= PREFIXES {
                    return Ok(None);
                }
                let sql =
                    "INSERT INTO origins (flow, version, trigger_type, prefix, whole) VALUES (?1, ?2, ?3, ?4, ?5)";
                execute(connection, sql, values)?;
                connection.last_insert_rowid()
            }
        };
        if self.origins.len() >= ORIGINS {
            self.origins.clear();
        }
        self.origins.insert(key.clone(), no);
        Ok(Some(no))
    }
}

/// What a key stands for, where its hash was merged already: the run that it started, or, below zero, the gathering in which
/// its event waits.
pub(super) fn seen(connection: &Connection, hash: &[u8; 16]) -> Result<Option<RunNo>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT run FROM seen WHERE hash = ?1")?;
    Ok(statement.query_row([hash.as_slice()], |row| row.get(0)).optional()?)
}

/// What is a row of a table at once.
fn row(connection: &Connection, op: &Op) -> Result<Answer, StoreError> {
    let at = |sql: &str, params: &[&dyn rusqlite::ToSql]| execute(connection, sql, params);
    match op {
        Op::Claim { key, run, at, until } => return claim(connection, key, *run, *at, *until),
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
        Op::Prune(_)
        | Op::Offer(_)
        | Op::Gather(_)
        | Op::Close { .. }
        | Op::Turn { .. }
        | Op::Status { .. }
        | Op::Sleep { .. }
        | Op::Finish { .. }
        | Op::Blob { .. }
        | Op::Audit { .. } => {
            let message = "an entry of the log is no row of a table; this is a bug, please report it";
            return Err(StoreError::Failed(message.into()));
        }
    };
    Ok(Answer::None)
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

pub(super) fn execute(connection: &Connection, sql: &str, params: impl Params) -> Result<usize, StoreError> {
    Ok(connection.prepare_cached(sql)?.execute(params)?)
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Failed(format!("writing a value out: {error}")))
}
