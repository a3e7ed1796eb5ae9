//! Runs that have not begun. The queue is on disk; the loop keeps the next few of it.
//!
//! A run that is accepted while there is room goes straight to the loop. Where there is none it stays on disk, and the
//! loop reads on from the number up to which it took everything.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::journal::{Queued, RunNo, RunRow};

/// The way in, shared with whoever hands runs over: how many are on their way, and whether the disk has more.
#[derive(Debug)]
pub(super) struct Inlet {
    /// Rows in memory, at most.
    room: usize,
    /// Rows handed over and not begun.
    held: AtomicUsize,
    /// Rows were left on disk since the loop last began to read.
    behind: AtomicBool,
}

/// What becomes of rows that are handed over.
#[derive(Debug, PartialEq)]
pub(super) enum Passed {
    /// They go to the loop.
    On(Vec<RunRow>),
    /// They stay on disk, and the loop must hear of it.
    Left,
    /// They stay on disk, as others before them.
    LeftToo,
}

impl Inlet {
    fn new(room: usize) -> Self {
        // What an earlier life accepted is on disk.
        Inlet { room, held: AtomicUsize::new(0), behind: AtomicBool::new(true) }
    }

    pub(super) fn pass(&self, rows: Vec<RunRow>) -> Passed {
        // Nothing overtakes what is on disk.
        if !self.behind.load(Ordering::SeqCst) {
            let had = self.held.fetch_add(rows.len(), Ordering::SeqCst);
            if had + rows.len() <= self.room {
                return Passed::On(rows);
            }
            self.held.fetch_sub(rows.len(), Ordering::SeqCst);
        }
        if self.behind.swap(true, Ordering::SeqCst) { Passed::LeftToo } else { Passed::Left }
    }
}

/// The loop's part of the queue.
#[derive(Debug)]
pub(super) struct Queue {
    inlet: Arc<Inlet>,
    rows: VecDeque<RunRow>,
    /// Every queued run up to this number was taken.
    floor: RunNo,
    /// Taken beyond `floor`.
    taken: BTreeSet<RunNo>,
    reading: bool,
}

impl Queue {
    /// `room`: rows in memory, at most.
    pub(super) fn new(room: usize) -> Self {
        Queue {
            inlet: Arc::new(Inlet::new(room)),
            rows: VecDeque::new(),
            floor: 0,
            taken: BTreeSet::new(),
            reading: false,
        }
    }

    pub(super) fn inlet(&self) -> Arc<Inlet> {
        Arc::clone(&self.inlet)
    }

    /// Rows in memory.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn pop(&mut self) -> Option<RunRow> {
        let row = self.rows.pop_front()?;
        self.inlet.held.fetch_sub(1, Ordering::SeqCst);
        Some(row)
    }

    /// Rows that came straight from their acceptance, and are counted.
    pub(super) fn accept(&mut self, rows: Vec<RunRow>) {
        for row in rows {
            if self.take(row.no) {
                self.rows.push_back(row);
            } else {
                self.inlet.held.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Rows that the loop's own batches accepted. They go the way of all others: where there is no room they stay on disk, and
    /// the next round of the loop reads them.
    pub(super) fn started(&mut self, rows: Vec<RunRow>) {
        if let Passed::On(rows) = self.inlet.pass(rows) {
            self.accept(rows);
        }
    }

    /// A run that was taken before and is to begin once more: its first turn did not reach the disk.
    pub(super) fn again(&mut self, row: RunRow) {
        self.take(row.no);
        if self.rows.iter().all(|queued| queued.no != row.no) {
            self.inlet.held.fetch_add(1, Ordering::SeqCst);
            self.rows.push_back(row);
        }
    }

    /// A person ended a run that has not begun.
    pub(super) fn withdraw(&mut self, no: RunNo) {
        let before = self.rows.len();
        self.rows.retain(|row| row.no != no);
        self.inlet.held.fetch_sub(before - self.rows.len(), Ordering::SeqCst);
        // Where it was not heard of yet, it is not to be taken later.
        self.take(no);
    }

    /// From where to read, and how many, if it is time. The answer goes to `arrived`.
    pub(super) fn wants(&mut self) -> Option<(RunNo, usize)> {
        let room = self.inlet.room.saturating_sub(self.inlet.held.load(Ordering::SeqCst));
        // A number that never comes would keep all later ones in `taken`: reading on moves the floor beyond it.
        let behind = self.inlet.behind.load(Ordering::SeqCst) || self.taken.len() > 4 * self.inlet.room;
        if self.reading || !behind || room < self.inlet.room.div_ceil(2) {
            return None;
        }
        self.reading = true;
        // Before the read: what is accepted from now on may be missing in it, and says so again.
        self.inlet.behind.store(false, Ordering::SeqCst);
        Some((self.floor, room))
    }

    /// What the disk had.
    pub(super) fn arrived(&mut self, queued: Queued) {
        self.reading = false;
        if queued.more {
            self.inlet.behind.store(true, Ordering::SeqCst);
        }
        for row in queued.rows {
            if self.take(row.no) {
                self.inlet.held.fetch_add(1, Ordering::SeqCst);
                self.rows.push_back(row);
            }
        }
        self.floor = self.floor.max(queued.horizon);
        self.taken = self.taken.split_off(&(self.floor + 1));
    }

    /// The disk could not be read: it is tried again.
    pub(super) fn unread(&mut self) {
        self.reading = false;
        self.inlet.behind.store(true, Ordering::SeqCst);
    }

    /// Notes that a run was taken; `false` where it was before.
    fn take(&mut self, no: RunNo) -> bool {
        if no <= self.floor || !self.taken.insert(no) {
            return false;
        }
        while self.taken.first() == Some(&(self.floor + 1)) {
            self.taken.pop_first();
            self.floor += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::journal::RunStatus;
    use crate::value::Value;

    const ROOM: usize = 4;

    fn row(no: RunNo) -> RunRow {
        RunRow {
            no,
            id: crate::id::RunId::new(Timestamp::UNIX_EPOCH, "f", &no.to_string()),
            flow: "f".into(),
            version: "v".into(),
            trigger: "manual".into(),
            key: no.to_string(),
            status: RunStatus::Queued,
            reason: None,
            accepted: Timestamp::UNIX_EPOCH,
            occurred: Timestamp::UNIX_EPOCH,
            ended: None,
            payload: Value::empty(),
            inputs: Value::empty(),
            effects: std::collections::BTreeMap::new(),
            damaged: None,
        }
    }

    /// A disk, what is on its way to the loop, and the loop's queue.
    struct Desk {
        queue: Queue,
        last: RunNo,
        /// Accepted, not begun on disk.
        disk: BTreeSet<RunNo>,
        /// Committed and not handed over: other acceptances may overtake them.
        committed: Vec<RunNo>,
        messages: VecDeque<Vec<RunRow>>,
        read: Option<Queued>,
        begun: Vec<RunNo>,
    }

    impl Desk {
        fn step(&mut self, what: u8) {
            match what {
                0 | 1 => {
                    self.last += 1;
                    self.disk.insert(self.last);
                    self.committed.push(self.last);
                }
                // The last one first, the others later.
                2 => self.hand_over(self.committed.len().saturating_sub(1)),
                3 => self.hand_over(0),
                4 => {
                    if let Some(rows) = self.messages.pop_front() {
                        self.queue.accept(rows);
                    }
                }
                5 => {
                    if let Some((after, limit)) = self.queue.wants() {
                        let numbers: Vec<_> = self.disk.range(after + 1..).take(limit).copied().collect();
                        let more = numbers.len() == limit;
                        let horizon = numbers.last().filter(|_| more).copied().unwrap_or(self.last);
                        let rows = numbers.into_iter().map(row).collect();
                        self.read = Some(Queued { rows, horizon, more });
                    }
                }
                6 => {
                    if let Some(read) = self.read.take() {
                        self.queue.arrived(read);
                    }
                }
                _ => {
                    if let Some(row) = self.queue.pop() {
                        self.begun.push(row.no);
                        // Its first turn is written a while later; here at once, or not yet.
                        if row.no % 2 == 0 {
                            self.disk.remove(&row.no);
                        }
                    }
                }
            }
            let messages: usize = self.messages.iter().map(Vec::len).sum();
            assert!(messages + self.queue.len() <= 2 * ROOM, "more rows in memory than there is room for");
        }

        fn hand_over(&mut self, at: usize) {
            if at < self.committed.len() {
                let no = self.committed.remove(at);
                if let Passed::On(rows) = self.queue.inlet().pass(vec![row(no)]) {
                    self.messages.push_back(rows);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_accepted_run_begins_once_and_few_wait_in_memory(steps in prop::collection::vec(0u8..9, 0..400)) {
            let mut desk = Desk {
                queue: Queue::new(ROOM), last: 0, disk: BTreeSet::new(), committed: vec![], messages: VecDeque::new(),
                read: None, begun: vec![],
            };
            steps.into_iter().for_each(|step| desk.step(step));
            // Nothing new comes; what is there is worked off.
            for _ in 0..10 * (desk.last + 5) {
                (2..9).for_each(|step| desk.step(step));
            }
            desk.begun.sort_unstable();
            prop_assert_eq!(desk.begun, (1..=desk.last).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_withdrawn_run_does_not_begin_and_one_that_was_not_written_does_again() {
        let mut queue = Queue::new(ROOM);
        assert_eq!(queue.wants(), Some((0, ROOM)));
        queue.arrived(Queued { rows: vec![row(1), row(2)], horizon: 2, more: false });
        queue.withdraw(2);
        // Not heard of yet.
        queue.withdraw(3);
        let Passed::On(rows) = queue.inlet().pass(vec![row(3), row(4)]) else { panic!("there is room") };
        queue.accept(rows);
        let begun: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|row| row.no).collect();
        assert_eq!(begun, [1, 4]);
        queue.again(row(1));
        queue.again(row(1));
        assert_eq!((queue.len(), queue.pop().map(|row| row.no)), (1, Some(1)));
        assert_eq!(queue.inlet().pass(vec![row(5); ROOM]), Passed::On(vec![row(5); ROOM]), "all room is free again");
    }

    #[test]
    fn a_number_that_never_comes_keeps_nothing_in_memory() {
        let mut queue = Queue::new(ROOM);
        queue.wants();
        queue.arrived(Queued { rows: vec![], horizon: 0, more: false });
        for no in 2..=RunNo::try_from(4 * ROOM + 2).unwrap() {
            let Passed::On(rows) = queue.inlet().pass(vec![row(no)]) else { panic!("there is room") };
            queue.accept(rows);
            queue.pop();
        }
        assert!(queue.wants().is_some());
        queue.arrived(Queued { rows: vec![], horizon: 40, more: false });
        assert!(queue.taken.is_empty());
    }
}
