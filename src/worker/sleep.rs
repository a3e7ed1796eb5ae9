//! Runs that only wait for a time or a person leave memory: their rows are all that they need. What stays is a number and
//! an instant.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::live::{Live, Open};
use super::reading::Found;
use super::run_loop::Loop;
use crate::journal::{RunNo, Sleep, StoreError};

/// A wait shorter than this is kept in memory …
const NAP: Duration = Duration::from_secs(10);
/// … while not more runs than these wait there.
const NAPS: usize = 1024;
/// Runs read at a time when they are due, so that a crowd of them starves nobody.
pub(super) const SLICE: usize = 128;
/// Slices on their way at a time.
pub(super) const SLICES: usize = 2;
/// After this a run that could not be read is tried again.
const AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Sleepers {
    due: BTreeSet<(Timestamp, RunNo)>,
    /// Read at this moment, to go on.
    waking: HashSet<RunNo>,
    slices: usize,
    /// Runs that could sleep and are in memory.
    naps: usize,
    /// Runs in memory that wait for nothing but times and people, whatever they hold meanwhile.
    resting: usize,
}

impl Sleepers {
    pub(super) fn add(&mut self, at: Timestamp, run: RunNo) {
        self.due.insert((at, run));
    }

    /// Notes that a run is read; `false` where it is being read already.
    pub(super) fn wake(&mut self, run: RunNo) -> bool {
        self.waking.insert(run)
    }

    /// How many are being read, or are to be.
    pub(super) fn waking(&self) -> usize {
        self.waking.len()
    }

    pub(super) fn resting(&self) -> usize {
        self.resting
    }

    pub(super) fn has_room(&self, slices: usize) -> bool {
        self.slices < slices
    }

    pub(super) fn begin_slice(&mut self) {
        self.slices += 1;
    }

    /// A run is in memory again, or has ended: what is being read of it is out of date.
    pub(super) fn came_back(&mut self, run: RunNo) {
        self.waking.remove(&run);
    }
}

impl Live {
    /// Whether nothing happens to it but a timer or a person.
    fn rests(&self) -> bool {
        !self.open.is_empty()
            && self.open.values().all(|open| matches!(open, Open::Timer(_) | Open::Park { .. }))
            && self.sent.is_empty()
    }

    /// Whether it rests, and nobody waits for what it holds.
    fn idle(&self) -> bool {
        self.rests() && self.held.is_empty() && self.group.is_none()
    }
}

impl Loop {
    /// Whether a run can lie on disk alone after this turn.
    pub(super) fn sleep_of(&self, live: &Live, now: Timestamp) -> Sleep {
        if !live.idle() {
            return Sleep::Awake;
        }
        match live.timers().map(|(at, _)| at).min() {
            None => Sleep::ForPerson,
            Some(at) if at.duration_since(now) > jiff::SignedDuration::try_from(NAP).unwrap_or_default() => {
                Sleep::Until(at)
            }
            Some(at) if self.sleepers.naps >= NAPS => Sleep::Until(at),
            Some(_) => Sleep::Awake,
        }
    }

    pub(super) fn count_nap(&mut self, live: &mut Live, gone: bool) {
        let naps = !gone && live.idle();
        if naps != live.naps {
            self.sleepers.naps = if naps { self.sleepers.naps + 1 } else { self.sleepers.naps.saturating_sub(1) };
            live.naps = naps;
        }
        let rests = !gone && live.rests();
        if rests != live.rests {
            let resting = self.sleepers.resting;
            self.sleepers.resting = if rests { resting + 1 } else { resting.saturating_sub(1) };
            live.rests = rests;
        }
    }

    /// The turn after which a run sleeps is on disk: unless something happened since, it leaves memory.
    pub(super) fn fall_asleep(&mut self, no: RunNo, seq: u32) {
        let Some(live) = self.runs.get(&no) else { return };
        if live.seq != seq || live.stale {
            return;
        }
        if live.queues() {
            return self.shelve(no);
        }
        if !live.idle() {
            return;
        }
        if let Some(Sleep::Until(at)) = live.sleep {
            self.sleepers.add(at, no);
        }
        if let Some(live) = self.runs.remove(&no) {
            self.forget(live);
        }
    }

    /// Has the runs read whose time has come: as many as could make calls now, and not all places where others wait.
    pub(super) fn wake_due(&mut self) {
        let now = self.deps.clock.now();
        while self.next_sleeper().is_some_and(|at| at <= now) {
            let free = self.free();
            let most = if self.queue.len() == 0 { free } else { free.div_ceil(2) };
            let mut numbers = Vec::new();
            while numbers.len() < most.min(SLICE) {
                let Some((_, no)) = self.sleepers.due.first().copied().filter(|(at, _)| *at <= now) else { break };
                self.sleepers.due.pop_first();
                if !self.runs.contains_key(&no) && self.sleepers.waking.insert(no) {
                    numbers.push(no);
                }
            }
            if numbers.is_empty() {
                return;
            }
            self.sleepers.begin_slice();
            self.read_due(numbers);
        }
    }

    /// When the next sleeper is due; nothing while none can be read anyway.
    pub(super) fn next_sleeper(&self) -> Option<Timestamp> {
        let can = self.draining.is_none() && !self.takes_nothing() && self.sleepers.slices < SLICES && self.free() > 0;
        self.sleepers.due.first().filter(|_| can).map(|(at, _)| *at)
    }

    /// Runs that could begin to make calls.
    fn free(&self) -> usize {
        self.deps.in_flight.saturating_sub(self.busy + self.sleepers.waking())
    }

    pub(super) fn woken(&mut self, found: Vec<(RunNo, Result<Found, StoreError>)>) {
        self.sleepers.slices = self.sleepers.slices.saturating_sub(1);
        for (no, found) in found {
            if !self.sleepers.waking.remove(&no) {
                continue;
            }
            match found {
                Ok(Found::Begun(replayed)) => self.bring_back(*replayed),
                Ok(Found::Stuck(row, why)) => {
                    self.give_up(no);
                    self.stuck(*row, why);
                }
                Ok(Found::Ended(_) | Found::Dead(..) | Found::Unbegun(_)) => self.give_up(no),
                Err(error) => {
                    tracing::error!(run = no, %error, "a run that is due can't be read; it is tried again in a minute");
                    self.read_later(no);
                }
            }
        }
    }

    /// Has a run read after a while.
    pub(super) fn read_later(&mut self, no: RunNo) {
        let now = self.deps.clock.now();
        self.sleepers.add(now.checked_add(AGAIN).unwrap_or(now), no);
    }
}
