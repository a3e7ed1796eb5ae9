//! Runs that are read from the store: off the loop, since a disk may be slow and a replay long.
//!
//! Not here: what a replay is (see `recover`), what becomes of a run that was read (see `resume`).

use std::collections::HashMap;
use std::sync::Arc;

use super::letters::Asked;
use super::poison::{Stuck, guarded};
use super::recover::{self, Replayed};
use super::run_loop::{CancelAnswer, Loop};
use super::{Msg, Registry};
use crate::id::RunId;
use crate::journal::{self, RunNo, RunRow, RunStatus, Store, StoreError, Whole};

/// A run as the store has it.
pub(super) enum Found {
    Ended(Box<RunRow>),
    /// It has no turn yet.
    Unbegun(Box<RunRow>),
    Begun(Box<Replayed>),
    /// It can't go on by itself, and why.
    Stuck(Box<RunRow>, Stuck),
    /// It is a dead letter, with how it stood; nothing where it has no turn.
    Dead(Box<RunRow>, Result<Option<Box<Replayed>>, Stuck>),
}

/// What a run that is not in memory is wanted for.
pub(super) enum Wanted {
    /// Only to come back.
    Back,
    Cancel {
        by: String,
        reason: String,
        answer: CancelAnswer,
    },
    /// For a person's word.
    Word(Asked),
}

impl Wanted {
    pub(super) fn refuse(self, why: &str) {
        match self {
            Wanted::Back => {}
            Wanted::Cancel { answer, .. } | Wanted::Word(Asked { answer, .. }) => {
                let _ = answer.send(Err(why.to_owned()));
            }
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

    /// How many runs are read at this moment, or wait to come back.
    pub(super) fn len(&self) -> usize {
        self.0.len()
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
        self.flush();
        let (store, registry) = (Arc::clone(&self.deps.store), Arc::clone(&self.deps.registry));
        let sender = self.sender.clone();
        tokio::spawn(async move {
            // An empty batch: what this loop wrote before is on disk when it is answered.
            let fenced = journal::commit(&*store, Vec::new()).await.map(drop);
            let id = run.clone();
            let read = journal::off_loop(&store, move |store| {
                fenced?;
                let Some(row) = store.run(&id)? else { return Ok(None) };
                let turns = store.turns(row.no);
                find(&*registry, row, turns).map(Some)
            });
            let found = read.await.and_then(|found| found.map_err(|e| e.to_string()));
            drop(sender.send(Msg::Read { run, found }));
        });
    }

    /// Reads the next queued runs, if there is room for them.
    pub(super) fn read_queue(&mut self) {
        let Some((after, limit)) = self.queue.wants() else { return };
        let (store, sender) = (Arc::clone(&self.deps.store), self.sender.clone());
        tokio::spawn(async move {
            let read = journal::off_loop(&store, move |store| store.queued(after, limit)).await;
            let queued = match read.and_then(|queued| queued.map_err(|e| e.to_string())) {
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
        tokio::spawn(async move {
            let read = journal::off_loop(&store, move |store| {
                drop(sender.send(Msg::Due(find_all(store, &*registry, &numbers))));
            });
            if let Err(error) = read.await {
                tracing::error!(error, "runs whose time has come can't be read");
            }
        });
    }
}

/// Runs by their numbers, all of them.
pub(super) fn find_all(
    store: &dyn Store,
    registry: &dyn Registry,
    runs: &[RunNo],
) -> Vec<(RunNo, Result<Found, StoreError>)> {
    let mut whole = match store.whole(runs) {
        Ok(whole) => whole.into_iter().peekable(),
        Err(error) => return runs.iter().map(|no| (*no, Err(error.clone()))).collect(),
    };
    let found = |no: &RunNo| match whole.next_if(|whole| whole.row.no == *no) {
        Some(Whole { row, turns }) => (*no, find(registry, row, turns)),
        None => (*no, Err(StoreError::Failed(format!("there is no run number {no}")))),
    };
    runs.iter().map(found).collect()
}

fn find(registry: &dyn Registry, row: RunRow, turns: Result<Vec<Vec<u8>>, StoreError>) -> Result<Found, StoreError> {
    let dead = row.status == RunStatus::Dead;
    if row.status.is_final() && !dead {
        return Ok(Found::Ended(Box::new(row)));
    }
    let turns = match (&row.damaged, turns) {
        (Some(damage), _) => Err(damage.clone()),
        (None, Ok(turns)) => Ok(turns),
        (None, Err(StoreError::Damaged(why))) => Err(StoreError::Damaged(why).to_string()),
        (None, Err(error)) => return Err(error),
    };
    let replayed = guarded(|| {
        let turns = turns?;
        if turns.is_empty() {
            return Ok(None);
        }
        let flow = registry.flow(&row.flow, &row.version)?;
        let replayed = recover::replay(row.clone(), flow, &turns, &mut recover::silent())?;
        Ok(Some(Box::new(replayed)))
    });
    let row = Box::new(row);
    Ok(match replayed {
        replayed if dead => Found::Dead(row, replayed),
        Ok(Some(replayed)) => Found::Begun(replayed),
        Ok(None) => Found::Unbegun(row),
        Err(why) => Found::Stuck(row, why),
    })
}
