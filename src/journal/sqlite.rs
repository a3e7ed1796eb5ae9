//! The embedded store: one SQLite file in WAL mode, one writer thread with group commit, a few read-only connections.
//!
//! A commit is one sync for all batches that were queued, and one row of the log for what they say of runs; the log is sorted
//! into tables by and by, many runs at a time (`fold`). Not here: what the rows mean (see `journal` and `engine`).

mod backup;
mod fold;
mod gather;
mod going;
mod migrate;
mod moments;
mod ops;
mod pack;
mod prune;
mod read;
mod record;
mod schema;
mod search;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use jiff::Timestamp;

use super::{
    AuditLine, Batch, Blob, Gathering, GatheringNo, Letter, LetterQuery, Offer, Queued, Reservation, RunNo, RunQuery,
    RunRow, RunStatus, Store, StoreError, Taken, Whole,
};
use crate::id::RunId;

/// A store in a folder of its own.
pub struct SqliteStore {
    reads: read::Pool,
    /// `None` where the store was opened for reading.
    writer: Option<Writer>,
    commits: Arc<AtomicU64>,
    /// Held while this process owns the store; the system lets go of it however the process ends.
    _lock: Option<File>,
}

struct Writer {
    queue: Sender<Vec<Batch>>,
    thread: JoinHandle<()>,
}

impl SqliteStore {
    /// Opens the store of a folder for the service: makes the folder (for its owner only) and the file where missing.
    ///
    /// # Errors
    /// `Locked` where another process owns it, `Newer` where a later version made it, `Failed` and `Full` otherwise.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, writer::LOG)
    }

    /// As `open`; `log` is how many bytes the log may hold before it is sorted into the tables.
    fn open_with(dir: &Path, log: usize) -> Result<Self, StoreError> {
        let lock = schema::lock_folder(dir)?;
        let file = dir.join(schema::FILE);
        let connection = schema::open_writer(&file)?;
        let commits = Arc::new(AtomicU64::new(0));
        let (queue, batches) = std::sync::mpsc::channel();
        let mut writer = writer::WriterLoop::new(connection, Arc::clone(&commits), log)?;
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run(batches))
            .map_err(|error| StoreError::Failed(format!("starting the store's writer: {error}")))?;
        let writer = Some(Writer { queue, thread });
        Ok(SqliteStore { reads: read::Pool::new(file), writer, commits, _lock: Some(lock) })
    }

    /// Opens the store of a folder for reading, beside a service that may be running. Writes to it are refused.
    ///
    /// # Errors
    /// `Failed` where there is no store yet, `Newer` where a later version made it.
    pub fn open_read(dir: &Path) -> Result<Self, StoreError> {
        let file = dir.join(schema::FILE);
        if !file.is_file() {
            let message = format!("there is no store in {}; `watchfloor run` makes it", dir.display());
            return Err(StoreError::Failed(message));
        }
        let reads = read::Pool::new(file);
        reads.with(schema::check_version)?;
        Ok(SqliteStore { reads, writer: None, commits: Arc::default(), _lock: None })
    }

    /// Copies all that is committed to a new file, beside a service that may be writing; answers its size in bytes. The
    /// copy is marked (see `BACKUP`).
    ///
    /// # Errors
    /// The file exists or can't be written.
    pub fn copy_to(&self, file: &Path, at: Timestamp) -> Result<u64, StoreError> {
        backup::copy(&schema::open_reader(self.reads.file())?, file, at)
    }
}

impl Store for SqliteStore {
    fn write(&self, batch: Batch) {
        self.write_all(vec![batch]);
    }

    fn write_all(&self, batches: Vec<Batch>) {
        let (refused, error) = match &self.writer {
            None => (batches, StoreError::Failed("the store was opened for reading only".into())),
            Some(writer) => match writer.queue.send(batches) {
                Ok(()) => return,
                Err(unsent) => (unsent.0, StoreError::Closed),
            },
        };
        for done in refused.into_iter().filter_map(|batch| batch.done) {
            done(Err(error.clone()));
        }
    }

    fn run(&self, id: &RunId) -> Result<Option<RunRow>, StoreError> {
        self.reads.with(|connection| search::run(connection, id))
    }

    fn runs(&self, query: &RunQuery) -> Result<Vec<RunRow>, StoreError> {
        self.reads.with(|connection| search::runs(connection, query))
    }

    fn whole(&self, runs: &[RunNo]) -> Result<Vec<Whole>, StoreError> {
        self.reads.with_tail(|connection, tail| going::whole(connection, tail, runs))
    }

    fn queued(&self, after: RunNo, limit: usize) -> Result<Queued, StoreError> {
        self.reads.with_tail(|connection, tail| going::queued(connection, tail, after, limit))
    }

    fn awake(&self) -> Result<Vec<RunNo>, StoreError> {
        self.reads.with(going::awake)
    }

    fn sleepers(&self) -> Result<Vec<(RunNo, Timestamp)>, StoreError> {
        self.reads.with(going::sleepers)
    }

    fn turns(&self, run: RunNo) -> Result<Vec<Vec<u8>>, StoreError> {
        self.reads.with(|connection| read::turns(connection, &tail::Tail::read(connection)?, run))
    }

    fn blobs(&self, run: RunNo) -> Result<Vec<Blob>, StoreError> {
        self.reads.with(|connection| read::blobs(connection, run))
    }

    fn bundle(&self, version: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.reads.with(|connection| read::bundle(connection, version))
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.reads.with(|connection| read::named(connection, name))
    }

    fn reservations(&self, since: Timestamp) -> Result<Vec<Reservation>, StoreError> {
        self.reads.with(|connection| read::reservations(connection, since))
    }

    fn is_known(&self, flow: &str, key: &str) -> Result<bool, StoreError> {
        self.reads.with(|connection| Ok(search::known(connection, flow, key)?.is_some()))
    }

    fn taken(&self, flow: &str, key: &str) -> Result<Option<Taken>, StoreError> {
        self.reads.with(|connection| gather::taken(connection, flow, key))
    }

    fn gatherings(&self) -> Result<Vec<Gathering>, StoreError> {
        self.reads.with(gather::gatherings)
    }

    fn gathered(&self, gathering: GatheringNo) -> Result<Vec<Offer>, StoreError> {
        self.reads.with(|connection| gather::gathered(connection, gathering))
    }

    fn skipped(&self, flow: &str, key: &str) -> Result<Option<(Timestamp, Vec<u8>)>, StoreError> {
        self.reads.with(|connection| read::skipped(connection, flow, key))
    }

    fn letters(&self, query: &LetterQuery) -> Result<Vec<Letter>, StoreError> {
        self.reads.with(|connection| read::letters(connection, query))
    }

    fn letter(&self, id: &str) -> Result<Option<Letter>, StoreError> {
        self.reads.with(|connection| read::letter(connection, id))
    }

    fn audit(&self, after: i64, limit: usize) -> Result<Vec<AuditLine>, StoreError> {
        self.reads.with(|connection| read::audit(connection, after, limit))
    }

    fn counts(&self) -> Result<BTreeMap<RunStatus, u64>, StoreError> {
        self.reads.with(read::counts)
    }

    fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

impl Drop for SqliteStore {
    /// Commits what is queued. Readers go first, so that the writer's connection is the last one and folds the WAL in.
    fn drop(&mut self) {
        self.reads.close();
        let Some(writer) = self.writer.take() else { return };
        drop(writer.queue);
        // The last owner may be a callback on the writer's own thread, which cannot wait for itself.
        if writer.thread.thread().id() != std::thread::current().id() {
            drop(writer.thread.join());
        }
    }
}
