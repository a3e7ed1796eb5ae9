//! The writer's thread: takes what is queued, commits it as one transaction, answers everybody.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;

use super::fold;
use super::moments;
use super::ops::Book;
use crate::clock;
use crate::journal::{Answer, Batch, Op, StoreError};

/// Batches that share one commit at most, and about how many bytes.
const GROUP: usize = 1024;
const GROUP_BYTES: usize = 8 << 20;

/// How long a batch that nobody waits for may wait for company.
const COMPANY: Duration = Duration::from_millis(50);

/// Awaited batches in one commit from which on the next ones wait for company too: there are many at work, and they share
/// syncs. A lone run pays nothing.
const CROWD: usize = 6;

/// Awaited batches for which it waits then, and how long at most.
const COMPANIONS: usize = 24;
const LINGER: Duration = Duration::from_millis(4);

/// The log's usual bound.
pub(super) const LOG: usize = 1 << 20;

/// Quiet after which it is sorted anyhow.
const QUIET: Duration = Duration::from_millis(500);

/// What is queued. Batches come in lists, so that one wake-up brings many.
struct Inbox {
    queue: Receiver<Vec<Batch>>,
    hand: VecDeque<Batch>,
}

impl Inbox {
    /// The next one, if nobody has to be waited for.
    fn at_hand(&mut self) -> Option<Batch> {
        while self.hand.is_empty() {
            self.hand.extend(self.queue.try_recv().ok()?);
        }
        self.hand.pop_front()
    }

    fn next_within(&mut self, patience: Duration) -> Result<Batch, RecvTimeoutError> {
        loop {
            if let Some(batch) = self.hand.pop_front() {
                return Ok(batch);
            }
            self.hand.extend(self.queue.recv_timeout(patience)?);
        }
    }

    /// The next one; nothing when the store is dropped.
    fn next(&mut self) -> Option<Batch> {
        while self.hand.is_empty() {
            self.hand.extend(self.queue.recv().ok()?);
        }
        self.hand.pop_front()
    }
}

type Answers = Result<Vec<Answer>, StoreError>;

pub(super) struct WriterLoop {
    connection: Connection,
    commits: Arc<AtomicU64>,
    /// `None` after a failed commit: it is read again before the next one.
    book: Option<Book>,
    /// What the log may hold, in bytes of memory, before it is sorted into the tables.
    log: usize,
}

impl WriterLoop {
    /// # Errors
    /// What the store holds cannot be read.
    pub(super) fn new(connection: Connection, commits: Arc<AtomicU64>, log: usize) -> Result<Self, StoreError> {
        let book = Some(Book::read(&connection)?);
        Ok(WriterLoop { connection, commits, book, log })
    }

    /// Writes until the store is dropped and the queue is empty.
    pub(super) fn run(&mut self, queue: Receiver<Vec<Batch>>) {
        let mut queue = Inbox { queue, hand: VecDeque::new() };
        let mut crowded = false;
        self.fold(0);
        loop {
            let first = match queue.next_within(QUIET) {
                Ok(batch) => batch,
                Err(RecvTimeoutError::Timeout) => {
                    self.fold(0);
                    let Some(batch) = queue.next() else { break };
                    batch
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let group = gather(first, &mut queue, crowded);
            crowded = group.iter().filter(|batch| batch.urgent).count() >= CROWD;
            self.write(group);
            if self.book.as_ref().is_some_and(|book| book.tail.bytes > self.log) {
                self.fold(self.log / 2);
            }
        }
        self.fold(0);
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

    /// What is wrong with a batch is found before anything of it is written, so it fails alone. Where a group fails for
    /// another reason than a full disk, each of its batches is tried by itself.
    fn commit(&mut self, group: &[Batch]) -> Vec<Answers> {
        let committed = self.transaction(|writer| writer.apply(group));
        match committed.and_then(|results| moments::pass(group, "after").map(|()| results)) {
            Ok(results) => results,
            Err(StoreError::Failed(_)) if group.len() > 1 => {
                let alone = |batch| {
                    let result = self.transaction(|writer| writer.apply(std::slice::from_ref(batch)));
                    result.and_then(|results| results.into_iter().next().unwrap_or(Err(StoreError::Closed)))
                };
                group.iter().map(alone).collect()
            }
            Err(error) => {
                if matches!(error, StoreError::Full(_)) {
                    tracing::warn!(%error, "nothing was committed; writing goes on when there is room again");
                }
                vec![Err(error); group.len()]
            }
        }
    }

    fn apply(&mut self, group: &[Batch]) -> Result<Vec<Answers>, StoreError> {
        let WriterLoop { connection, book, .. } = self;
        let Some(book) = book else { return Err(StoreError::Closed) };
        let mut results = Vec::with_capacity(group.len());
        for batch in group {
            results.push(match book.check(connection, &batch.ops) {
                Ok(()) => Ok(batch.ops.iter().map(|op| book.apply(connection, op)).collect::<Result<_, _>>()?),
                Err(wrong) => Err(wrong),
            });
        }
        book.seal(connection)?;
        moments::pass(group, "before")?;
        Ok(results)
    }

    /// One transaction. After an error the book is read again before the next one: it is ahead of the disk.
    fn transaction<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.book.is_none() {
            self.book = Some(Book::read(&self.connection)?);
        }
        let result = self.within(work);
        match &result {
            Ok(_) => drop(self.commits.fetch_add(1, Ordering::Relaxed)),
            Err(_) => {
                if !self.connection.is_autocommit() {
                    // The first error is the one to tell; after a failed rollback the next BEGIN fails and says so.
                    drop(self.statement("ROLLBACK"));
                }
                self.book = None;
            }
        }
        result
    }

    fn within<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.statement("BEGIN IMMEDIATE")?;
        let done = work(self)?;
        self.statement("COMMIT")?;
        Ok(done)
    }

    /// Sorts the log into the tables, apart from about `carry` bytes of runs that go on. What fails stays in the log.
    fn fold(&mut self, carry: usize) {
        if self.book.as_ref().is_none_or(|book| book.tail.is_empty()) {
            return;
        }
        let folded = self.transaction(|writer| {
            let WriterLoop { connection, book, .. } = writer;
            book.as_mut().map_or(Ok(None), |book| fold::fold(book, connection, carry).map(Some))
        });
        match (folded, &mut self.book) {
            (Ok(Some(stays)), Some(book)) => fold::done(book, stays),
            (Ok(_), _) => {}
            (Err(error), _) => tracing::warn!(%error, "the log of the store could not be sorted; it is tried again"),
        }
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

/// The first batch and all that is queued behind it. With an urgent one among them there is no waiting, unless many are
/// at work: then it waits for some more of them.
fn gather(first: Batch, queue: &mut Inbox, crowded: bool) -> Vec<Batch> {
    let began = clock::stopwatch();
    let mut urgent = usize::from(first.urgent);
    let mut since_urgent = began;
    let mut bytes = weight(&first);
    let mut group = vec![first];
    while group.len() < GROUP && bytes < GROUP_BYTES {
        let next = match queue.at_hand() {
            Some(batch) => batch,
            None => {
                let patience = match urgent {
                    0 => COMPANY.saturating_sub(began.elapsed()),
                    some if crowded && some < COMPANIONS => LINGER.saturating_sub(since_urgent.elapsed()),
                    _ => break,
                };
                if patience.is_zero() {
                    break;
                }
                match queue.next_within(patience) {
                    Ok(batch) => batch,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
        };
        if next.urgent {
            if urgent == 0 {
                since_urgent = clock::stopwatch();
            }
            urgent += 1;
        }
        bytes += weight(&next);
        group.push(next);
    }
    group
}

/// What a batch adds to a commit, about.
fn weight(batch: &Batch) -> usize {
    let op = |op: &Op| match op {
        Op::Turn { body, .. } | Op::Blob { body, .. } | Op::Bundle { body, .. } | Op::Put { body, .. } => body.len(),
        Op::Skipped { body, .. } | Op::Audit { body, .. } => body.len(),
        _ => 256,
    };
    batch.ops.iter().map(op).sum()
}
