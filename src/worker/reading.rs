//! Runs that are read from the store: off the loop, since a disk may be slow and a replay long.
//!
//! Not here: what a replay is (see `recover`), what becomes of a run that was read (see `resume`).

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::recover::{self, Replayed};
use super::run_loop::{CancelAnswer, Loop};
use super::{Msg, Registry};
use crate::engine::InputKind;
use crate::id::RunId;
use crate::journal::{self, RunNo, RunRow, Store, StoreError};

/// A run as the store has it.
pub(super) enum Found {
    Ended(Box<RunRow>),
    /// It has no turn yet.
    Unbegun(Box<RunRow>),
    Begun(Box<Replayed>),
    /// It can't go on by itself, and why.
    Stuck(Box<RunRow>, String),
}

/// What a run that is not in memory is wanted for.
pub(super) struct Wanted {
    /// Nothing, where it is only to come back.
    pub(super) input: Option<InputKind>,
    pub(super) answer: Option<CancelAnswer>,
}

impl Wanted {
    pub(super) fn refuse(self, why: &str) {
        if let Some(answer) = self.answer {
            let _ = answer.send(Err(why.to_owned()));
        }
    }
}

/// Runs by the ids under which they are wanted.
#[derive(Default)]
pub(super) struct Wants(HashMap<RunId, Want>);

#[derive(Default)]
struct Want {
    list: Vec<Wanted>,
    reading: bool,
}

impl Wants {
    /// Takes what a run is wanted for, when it came back by whatever way.
    pub(super) fn take(&mut self, run: &RunId) -> Vec<Wanted> {
        // Asked for every run that begins or ends, and nearly always for nothing.
        if self.0.is_empty() {
            return Vec::new();
        }
        self.0.remove(run).map(|want| want.list).unwrap_or_default()
    }

    /// Puts back what can't be done yet: the run comes back by itself.
    pub(super) fn keep(&mut self, run: RunId, list: Vec<Wanted>) {
        self.0.insert(run, Want { list, reading: false });
    }
}

impl Loop {
    /// Wants a run that is not in memory; `Msg::Read` brings it.
    pub(super) fn want(&mut self, run: RunId, wanted: Wanted) {
        let want = self.wants.0.entry(run.clone()).or_default();
        want.list.push(wanted);
        if std::mem::replace(&mut want.reading, true) {
            return;
        }
        let (store, registry) = (Arc::clone(&self.deps.store), Arc::clone(&self.deps.registry));
        let sender = self.sender.clone();
        tokio::spawn(async move {
            // An empty batch: what this loop wrote before is on disk when it is answered.
            let fenced = journal::commit(&*store, Vec::new()).await.map(drop);
            let id = run.clone();
            let read = tokio::task::spawn_blocking(move || {
                fenced?;
                store.run(&id)?.map(|row| find(&*store, &*registry, row)).transpose()
            });
            let found = read.await.map_err(|e| e.to_string()).and_then(|found| found.map_err(|e| e.to_string()));
            drop(sender.send(Msg::Read { run, found }));
        });
    }

    /// Reads the next queued runs, if there is room for them.
    pub(super) fn read_queue(&mut self) {
        let Some((after, limit)) = self.queue.wants() else { return };
        let (store, sender) = (Arc::clone(&self.deps.store), self.sender.clone());
        tokio::spawn(async move {
            let read = tokio::task::spawn_blocking(move || store.queued(after, limit)).await;
            let queued = match read.map_err(|e| e.to_string()).and_then(|queued| queued.map_err(|e| e.to_string())) {
                Ok(queued) => Some(queued),
                Err(error) => {
                    tracing::error!(error, "the queue can't be read; it is tried again");
                    tokio::time::sleep(super::resume::RELOAD).await;
                    None
                }
            };
            drop(sender.send(Msg::Queued(queued)));
        });
    }

    /// Reads runs whose time has come.
    pub(super) fn read_due(&self, numbers: Vec<RunNo>) {
        let (store, registry) = (Arc::clone(&self.deps.store), Arc::clone(&self.deps.registry));
        let sender = self.sender.clone();
        tokio::task::spawn_blocking(move || {
            let found = numbers.into_iter().map(|no| (no, find_numbered(&*store, &*registry, no))).collect();
            drop(sender.send(Msg::Due(found)));
        });
    }
}

pub(super) fn find_numbered(store: &dyn Store, registry: &dyn Registry, no: RunNo) -> Result<Found, StoreError> {
    match store.run_numbered(no)? {
        Some(row) => find(store, registry, row),
        None => Err(StoreError::Failed(format!("there is no run number {no}"))),
    }
}

fn find(store: &dyn Store, registry: &dyn Registry, row: RunRow) -> Result<Found, StoreError> {
    if row.status.is_final() {
        return Ok(Found::Ended(Box::new(row)));
    }
    let turns = store.turns(row.no)?;
    if turns.is_empty() {
        return Ok(Found::Unbegun(Box::new(row)));
    }
    let replayed = registry.flow(&row.flow, &row.version).and_then(|flow| {
        let replay = || recover::replay(row.clone(), flow, &turns, &mut recover::silent());
        let bug = "an internal error in the engine; this is a bug, please report it";
        catch_unwind(AssertUnwindSafe(replay)).unwrap_or_else(|_| Err(bug.to_owned()))
    });
    Ok(match replayed {
        Ok(replayed) => Found::Begun(Box::new(replayed)),
        Err(why) => Found::Stuck(Box::new(row), why),
    })
}
