//! Whether new work is taken: the phase of the service, a pause of everything, and the backlog (S9).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use jiff::Timestamp;

use crate::catalog::Effect;
use crate::guard::Holds;
use crate::guard::hold::Ask;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Serving,
    Stopping,
}

/// Counts open runs against `max_backlog`.
#[derive(Debug)]
pub struct Gate {
    phase: AtomicU8,
    open: AtomicU64,
    /// Events that wait to start a run with others.
    gathered: AtomicU64,
    max: AtomicU64,
    holds: Arc<Holds>,
}

impl Gate {
    /// `open` is how many runs in the store are not final.
    pub fn new(open: u64, max: u64) -> Self {
        Gate {
            phase: AtomicU8::new(0),
            open: AtomicU64::new(open),
            gathered: AtomicU64::new(0),
            max: AtomicU64::new(max),
            holds: Arc::default(),
        }
    }

    /// The same, with the pauses and breakers that all who send share.
    #[must_use]
    pub fn holding(self, holds: Arc<Holds>) -> Self {
        Gate { holds, ..self }
    }

    pub fn is_paused(&self) -> bool {
        self.holds.all_paused().is_some()
    }

    /// Why a connection is not polled now; `None` where it is. One that fails is polled once its pause is over: the poll is
    /// the question whether it is there again.
    pub fn unpolled(&self, connection: &str, now: Timestamp) -> Option<String> {
        let ask = Ask { flow: None, connection: Some(connection), effect: Effect::Read };
        self.holds.stops(&ask, now).map(|stop| stop.reason().to_owned())
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Stopping,
        }
    }

    pub fn enter(&self, phase: Phase) {
        let number = match phase {
            Phase::Starting => 0,
            Phase::Serving => 1,
            Phase::Stopping => 2,
        };
        self.phase.store(number, Ordering::Release);
    }

    pub fn open_runs(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub fn is_full(&self) -> bool {
        self.open_runs().saturating_add(self.gathered.load(Ordering::Relaxed)) >= self.max()
    }

    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    pub fn set_max(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Why nothing new is taken now; `None` where it is.
    pub fn closed(&self) -> Option<&'static str> {
        match self.phase() {
            Phase::Starting => Some("watchfloor is starting"),
            Phase::Stopping => Some("watchfloor is stopping"),
            Phase::Serving if self.is_paused() => Some("watchfloor is paused"),
            Phase::Serving if self.is_full() => Some("the backlog is full"),
            Phase::Serving => None,
        }
    }

    pub(super) fn gathered(&self, events: u64) {
        self.gathered.fetch_add(events, Ordering::Relaxed);
    }

    /// What the store counts as gathered.
    pub(super) fn recount_gathered(&self, events: u64) {
        self.gathered.store(events, Ordering::Relaxed);
    }

    pub(super) fn accepted(&self, runs: u64) {
        self.open.fetch_add(runs, Ordering::Relaxed);
    }

    /// What the store counts as open: corrects what was missed.
    pub fn recount(&self, open: u64) {
        self.open.store(open, Ordering::Relaxed);
    }

    /// A run reached its end.
    pub fn finished(&self, runs: u64) {
        let less = |open: u64| Some(open.saturating_sub(runs));
        // The closure always gives a value, so that there is no failure to look at.
        let _ = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}
