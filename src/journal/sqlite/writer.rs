//! The writer's thread: takes what is queued, commits it as one transaction, answers everybody.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use rusqlite::Connection;

use super::{moments, ops};
use crate::clock;
use crate::journal::{Answer, Batch, StoreError};

/// Batches that share one commit at most.
const GROUP: usize = 1024;

/// How long a batch that nobody waits for may wait for company.
const COMPANY: Duration = Duration::from_millis(50);

/// How long an awaited batch waits for company when the last group held several: under load they share a sync, and a lone
/// run pays nothing.
const LINGER: Duration = Duration::from_millis(1);

type Answers = Result<Vec<Answer>, StoreError>;

pub(super) struct WriterLoop {
    connection: Connection,
    commits: Arc<AtomicU64>,
}

impl WriterLoop {
    pub(super) fn new(connection: Connection, commits: Arc<AtomicU64>) -> Self {
        WriterLoop { connection, commits }
    }

    /// Writes until the store is dropped and the queue is empty.
    pub(super) fn run(&mut self, queue: &Receiver<Batch>) {
        let mut crowded = false;
        while let Ok(first) = queue.recv() {
            let group = gather(first, queue, if crowded { LINGER } else { Duration::ZERO });
            crowded = group.iter().filter(|batch| batch.urgent).nth(1).is_some();
            self.write(group);
        }
    }

    /// Commits a group and answers each of its batches.
    pub(super) fn write(&mut self, group: Vec<Batch>) {
        let results = self.commit(&group);
        for (batch, result) in group.into_iter().zip(results) {
            if let Some(done) = batch.done {
                // A fault in one listener must not end the writing for everybody.
                if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
                    tracing::error!("a listener to a commit panicked");
                }
            }
        }
    }

    /// First all batches straight through, since nearly always all of them go in. Where one fails, everything is taken
    /// back and done again with a savepoint around each batch, so that a failing one leaves nothing and harms nobody.
    fn commit(&mut self, group: &[Batch]) -> Vec<Answers> {
        let first = self.transaction(group, false);
        let result = match first {
            Err(StoreError::Failed(_)) if group.len() > 1 => self.transaction(group, true),
            other => other,
        };
        match result {
            Ok(results) => results,
            Err(error) => {
                if matches!(error, StoreError::Full(_)) {
                    tracing::warn!(%error, "nothing was committed; writing goes on when there is room again");
                }
                vec![Err(error); group.len()]
            }
        }
    }

    /// One transaction. With `apart`, a failing batch is taken back alone and its error is its answer.
    fn transaction(&mut self, group: &[Batch], apart: bool) -> Result<Vec<Answers>, StoreError> {
        let result = self.within(group, apart);
        if result.is_err() && !self.connection.is_autocommit() {
            // The first error is the one to tell; after a failed rollback the next BEGIN fails and says so.
            drop(self.statement("ROLLBACK"));
        }
        result
    }

    fn within(&mut self, group: &[Batch], apart: bool) -> Result<Vec<Answers>, StoreError> {
        self.statement("BEGIN IMMEDIATE")?;
        let mut results = Vec::with_capacity(group.len());
        for batch in group {
            results.push(if apart { self.savepoint(batch)? } else { Ok(self.apply(batch)?) });
        }
        moments::pass(group, "before")?;
        self.statement("COMMIT")?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        moments::pass(group, "after")?;
        Ok(results)
    }

    /// The outer error ends the whole transaction: a full disk, or a transaction that SQLite itself has taken back.
    fn savepoint(&self, batch: &Batch) -> Result<Answers, StoreError> {
        self.statement("SAVEPOINT batch")?;
        let result = self.apply(batch);
        if let Err(error) = &result {
            if matches!(error, StoreError::Full(_)) || self.connection.is_autocommit() {
                return Err(error.clone());
            }
            self.statement("ROLLBACK TO batch")?;
        }
        self.statement("RELEASE batch")?;
        Ok(result)
    }

    fn apply(&self, batch: &Batch) -> Answers {
        batch.ops.iter().map(|op| ops::apply(&self.connection, op)).collect()
    }

    fn statement(&self, sql: &str) -> Result<(), StoreError> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// The first batch and all that is queued behind it. With an urgent one among them there is no waiting beyond `linger`.
fn gather(first: Batch, queue: &Receiver<Batch>, linger: Duration) -> Vec<Batch> {
    let began = clock::stopwatch();
    let mut urgent = first.urgent;
    let mut since_urgent = began;
    let mut group = vec![first];
    while group.len() < GROUP {
        let next = match queue.try_recv() {
            Ok(batch) => batch,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                let patience = if urgent {
                    linger.saturating_sub(since_urgent.elapsed())
                } else {
                    COMPANY.saturating_sub(began.elapsed())
                };
                if patience.is_zero() {
                    break;
                }
                match queue.recv_timeout(patience) {
                    Ok(batch) => batch,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
        };
        if next.urgent && !urgent {
            urgent = true;
            since_urgent = clock::stopwatch();
        }
        group.push(next);
    }
    group
}
