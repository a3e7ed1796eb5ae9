//! A store that commits what it was given a while later, as one group, or not: the disk is full for a time, a commit fails
//! once, or the process dies before or after it. What had no commit is lost with the process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};
use watchfloor::id::RunId;
use watchfloor::journal::memory::MemoryStore;
use watchfloor::journal::{
    Answer, AuditLine, Batch, Blob, Gathering, GatheringNo, Letter, LetterQuery, Offer, Op, Queued, Reservation, RunNo,
    RunQuery, RunRow, RunStatus, Store, StoreError, Taken, Whole,
};

use super::Dice;
use super::tenant::Tenant;

/// How often commits go wrong, in thousand.
#[derive(Clone, Copy)]
pub(super) struct Wear {
    pub(super) fails: u64,
    pub(super) fills: u64,
    pub(super) crashes: u64,
}

/// One life's view of the disk that outlives it.
pub(super) struct Disk {
    kept: Arc<dyn Store>,
    queue: mpsc::UnboundedSender<Batch>,
}

/// What a life can be asked about its disk.
pub(super) struct Fate {
    /// The process is to die now.
    pub(super) crash: Notify,
    pub(super) dead: AtomicBool,
    pub(super) failed: AtomicU64,
}

impl Disk {
    /// Starts the writer of a life, inside its runtime.
    pub(super) fn start(kept: Arc<MemoryStore>, dice: Dice, wear: Wear, tenant: Arc<Tenant>) -> (Arc<Disk>, Arc<Fate>) {
        let (queue, batches) = mpsc::unbounded_channel();
        let fate = Arc::new(Fate { crash: Notify::new(), dead: AtomicBool::new(false), failed: AtomicU64::new(0) });
        let writer = Writer { kept: Arc::clone(&kept), dice, wear, tenant, fate: Arc::clone(&fate), full: 0 };
        tokio::spawn(writer.run(batches));
        (Arc::new(Disk { kept, queue }), fate)
    }

    /// Over another store, with a writer of its own: what is to be written comes out of the queue.
    pub(super) fn over(kept: Arc<dyn Store>) -> (Arc<Disk>, mpsc::UnboundedReceiver<Batch>) {
        let (queue, batches) = mpsc::unbounded_channel();
        (Arc::new(Disk { kept, queue }), batches)
    }
}

struct Writer {
    kept: Arc<MemoryStore>,
    dice: Dice,
    wear: Wear,
    tenant: Arc<Tenant>,
    fate: Arc<Fate>,
    /// Commits that will still find the disk full.
    full: u64,
}

impl Writer {
    async fn run(mut self, mut batches: mpsc::UnboundedReceiver<Batch>) {
        while let Some(first) = batches.recv().await {
            tokio::time::sleep(Duration::from_millis(self.dice.between(1, 12))).await;
            let mut group = vec![first];
            while let Ok(next) = batches.try_recv() {
                group.push(next);
            }
            if self.dice.in_thousand(self.wear.crashes) {
                let before = self.dice.below(2) == 0;
                if !before {
                    for batch in group {
                        self.commit(Batch { done: None, ..batch });
                    }
                }
                self.fate.dead.store(true, Ordering::SeqCst);
                self.fate.crash.notify_one();
                return;
            }
            if self.full == 0 && self.dice.in_thousand(self.wear.fills) {
                self.full = self.dice.between(1, 30);
            }
            let error = if self.full > 0 {
                self.full -= 1;
                Some(StoreError::Full("no space left on device".into()))
            } else {
                self.dice.in_thousand(self.wear.fails).then(|| StoreError::Failed("disk I/O error".into()))
            };
            for batch in group {
                match (&error, batch.done) {
                    (None, done) => self.commit(Batch { done, ..batch }),
                    (Some(error), done) => {
                        self.fate.failed.fetch_add(1, Ordering::Relaxed);
                        if let Some(done) = done {
                            done(Err(error.clone()));
                        }
                    }
                }
            }
        }
    }

    fn commit(&self, batch: Batch) {
        let watermark = batch.ops.iter().find_map(|op| match op {
            Op::Put { name, body } if name.starts_with("poll/") => Some(body.clone()),
            _ => None,
        });
        let failed = Arc::new(Mutex::new(None));
        let (done, heard) = (batch.done, Arc::clone(&failed));
        let done = move |result: Result<Vec<Answer>, StoreError>| {
            *super::locked(&heard) = result.as_ref().err().map(ToString::to_string);
            if let Some(done) = done {
                done(result);
            }
        };
        self.kept.write(Batch { ops: batch.ops, urgent: batch.urgent, done: Some(Box::new(done)) });
        match (super::locked(&failed).take(), watermark) {
            (None, Some(body)) => {
                let watermark: Timestamp = std::str::from_utf8(&body).unwrap().parse().unwrap();
                self.tenant.watermark_is(watermark, &*self.kept);
            }
            (Some(error), _) => self.tenant.note(format!("a batch was refused: {error}")),
            (None, None) => {}
        }
    }
}

impl Store for Disk {
    fn write(&self, batch: Batch) {
        if let Err(refused) = self.queue.send(batch)
            && let Some(done) = refused.0.done
        {
            done(Err(StoreError::Closed));
        }
    }

    fn blocks(&self) -> bool {
        false
    }

    fn run(&self, id: &RunId) -> Result<Option<RunRow>, StoreError> {
        self.kept.run(id)
    }

    fn runs(&self, query: &RunQuery) -> Result<Vec<RunRow>, StoreError> {
        self.kept.runs(query)
    }

    fn whole(&self, runs: &[RunNo]) -> Result<Vec<Whole>, StoreError> {
        self.kept.whole(runs)
    }

    fn queued(&self, after: RunNo, limit: usize) -> Result<Queued, StoreError> {
        self.kept.queued(after, limit)
    }

    fn awake(&self) -> Result<Vec<RunNo>, StoreError> {
        self.kept.awake()
    }

    fn sleepers(&self) -> Result<Vec<(RunNo, Timestamp)>, StoreError> {
        self.kept.sleepers()
    }

    fn turns(&self, run: RunNo) -> Result<Vec<Vec<u8>>, StoreError> {
        self.kept.turns(run)
    }

    fn blobs(&self, run: RunNo) -> Result<Vec<Blob>, StoreError> {
        self.kept.blobs(run)
    }

    fn bundle(&self, version: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.kept.bundle(version)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.kept.get(name)
    }

    fn reservations(&self, since: Timestamp) -> Result<Vec<Reservation>, StoreError> {
        self.kept.reservations(since)
    }

    fn skipped(&self, flow: &str, key: &str) -> Result<Option<(Timestamp, Vec<u8>)>, StoreError> {
        self.kept.skipped(flow, key)
    }

    fn counts(&self) -> Result<BTreeMap<RunStatus, u64>, StoreError> {
        self.kept.counts()
    }

    fn is_known(&self, flow: &str, key: &str) -> Result<bool, StoreError> {
        self.kept.is_known(flow, key)
    }

    fn taken(&self, flow: &str, key: &str) -> Result<Option<Taken>, StoreError> {
        self.kept.taken(flow, key)
    }

    fn gatherings(&self) -> Result<Vec<Gathering>, StoreError> {
        self.kept.gatherings()
    }

    fn gathered(&self, gathering: GatheringNo) -> Result<Vec<Offer>, StoreError> {
        self.kept.gathered(gathering)
    }

    fn letters(&self, query: &LetterQuery) -> Result<Vec<Letter>, StoreError> {
        self.kept.letters(query)
    }

    fn letter(&self, id: &str) -> Result<Option<Letter>, StoreError> {
        self.kept.letter(id)
    }

    fn audit(&self, after: i64, limit: usize) -> Result<Vec<AuditLine>, StoreError> {
        self.kept.audit(after, limit)
    }

    fn commits(&self) -> u64 {
        self.kept.commits()
    }
}
