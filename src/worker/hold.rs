//! Operations that are held: by a pause, or because their connection fails. They wait here, in order, with a reason on
//! their run, and go on from here.
//!
//! Nothing of it is on disk: a run that is resumed asks again for what was open, and is held again where that is due. What
//! is held has no permit yet, so mode, freshness, limits and protection are judged when it goes on. A read is held as it
//! is; its failure while its connection fails is not told to the run, so that no try of its is used up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::live::{HELD_BACK, Live, Open};
use super::run_loop::{Loop, Work};
use super::shelf::Wish;
use crate::catalog::Effect;
use crate::engine::{Call, InputKind, Outcome, Target, Verdict};
use crate::flow::model::Mode;
use crate::guard;
use crate::guard::breaker::Heard;
use crate::guard::hold::{Ask, HELD, Stop};
use crate::id::OpId;
use crate::journal::{Op, RunNo, RunStatus};

/// Operations held. With so many no further run begins, whatever it would use: their runs wait on disk, and each keeps some
/// hundred bytes in memory.
const MOST: usize = 131_072;
/// Runs in memory that go on soon: some wait for several things at a time, and stay. Those that rest are not counted, since
/// they may do so for days, and no other run would begin.
pub(super) const NEAR: usize = if cfg!(test) { 64 } else { 8_192 };
/// What was looked up about a target before so long a hold is looked up again.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// How soon the same connection is asked again whether it is there, whatever became of the last question.
const ASK_EVERY: SignedDuration = SignedDuration::from_secs(2);

type Queue = VecDeque<(RunNo, OpId)>;

/// What waits, in the order in which it came. An entry whose run no longer holds it is passed over.
#[derive(Debug, Default)]
pub(super) struct Held {
    paused: Queue,
    /// By the connection that fails.
    behind: BTreeMap<Arc<str>, Queue>,
    /// Free to go, as soon as fewer than `in_flight` runs make calls.
    free: Queue,
    /// When a connection may be asked again.
    ask_at: BTreeMap<Arc<str>, Timestamp>,
    /// The pauses that `paused` was sorted by.
    version: u64,
}

impl Held {
    fn len(&self) -> usize {
        self.paused.len() + self.free.len() + self.behind.values().map(VecDeque::len).sum::<usize>()
    }
}

/// Why an operation is held.
#[derive(Debug)]
pub(super) struct OnHold {
    pub(super) reason: String,
    /// Since when what was looked up before it was held may be out of date.
    pub(super) since: Timestamp,
}

impl Live {
    /// What was looked up before a restart is out of date, however short the hold is.
    pub(super) fn hold_is_old(&mut self, op: OpId) {
        if let Some(hold) = self.on_hold.get_mut(&op) {
            hold.since = Timestamp::MIN;
        }
    }
}

impl Loop {
    /// Whether no run begins or wakes: all is paused, or as many are held in memory as may be. They stay on disk.
    pub(super) fn takes_nothing(&self) -> bool {
        self.held.len() >= MOST
            || self.runs.len().saturating_sub(self.sleepers.resting()) >= NEAR
            || self.deps.guard.holds().all_paused().is_some()
    }

    /// Holds a wait for a target, so that what is paused stands in nobody's way.
    pub(super) fn hold_lock(&mut self, live: &mut Live, op: OpId, destructive: bool, now: Timestamp) -> bool {
        let Some(reason) = self.lock_stops(live, destructive) else { return false };
        self.hold(live, op, Stop::Paused(reason), None, now);
        true
    }

    /// Holds a question to the guard: what is not judged now is judged when it goes on.
    pub(super) fn hold_check(
        &mut self,
        live: &mut Live,
        op: OpId,
        call: &Call,
        now: Timestamp,
        work: &mut Work,
    ) -> bool {
        let effect = self.deps.guard.effect(call);
        if effect != Effect::Read && self.mode(live) == Mode::Shadow {
            return false;
        }
        let Some(stop) = self.stops(live, call, effect, now) else { return false };
        let locked = call.target.as_ref().is_some_and(|target| live.held.contains(target));
        // Never sent, and its target would be locked for as long as the pause lasts.
        if locked && call.attempt == 0 && self.lock_stops(live, effect == Effect::Destructive).is_some() {
            work.inputs.push_back(InputKind::Checked { op, verdict: Verdict::Again });
        } else {
            self.hold(live, op, stop, Some(call), now);
        }
        true
    }

    /// Holds a read.
    pub(super) fn hold_read(&mut self, live: &mut Live, op: OpId, call: &Call, now: Timestamp) -> bool {
        let Some(stop) = self.stops(live, call, Effect::Read, now) else { return false };
        self.hold(live, op, stop, Some(call), now);
        true
    }

    /// Looks at an answer before its run does. A read that was not let out, or whose connection fails, waits for its turn
    /// again; of any other call that did nothing the run hears that it was held. `None`: the answer is dealt with.
    pub(super) fn sift(&mut self, no: RunNo, op: OpId, outcome: Outcome) -> Option<Outcome> {
        let live = self.runs.get(&no).filter(|live| !live.stale);
        let Some(Open::Call { call, .. }) = live.and_then(|live| live.open.get(&op)) else { return Some(outcome) };
        let call = call.clone();
        let fails = || self.deps.guard.holds().is_open(&call.connection);
        let (held, failed) = (is_held(&outcome), matches!(Heard::of(&outcome), Heard::Failed { .. }));
        if !(held || (failed && fails())) {
            return Some(outcome);
        }
        if call.effect() != Effect::Read {
            let nothing = held || matches!(outcome, Outcome::NotSent { .. } | Outcome::Refused { .. });
            return Some(if nothing { held_back(&outcome) } else { outcome });
        }
        let now = self.deps.clock.now();
        let mut live = self.runs.remove(&no)?;
        let ask = Ask { flow: Some(&live.row.flow), connection: Some(&call.connection), effect: Effect::Read };
        let stop = self.deps.guard.holds().stops(&ask, now);
        let stop = stop.unwrap_or_else(|| Stop::Fails(message(&outcome)));
        if let Some(Open::Call { permit, .. }) = live.open.get_mut(&op) {
            *permit = guard::read_permit(&call);
        }
        self.hold(&mut live, op, stop, Some(&call), now);
        self.count_busy(&mut live);
        self.restate_now(&mut live);
        self.put_back(live);
        None
    }

    /// Facts about a target that could not be read because of a pause or a connection that fails: the question waits.
    pub(super) fn sift_facts(&mut self, no: RunNo, op: OpId, call: &Call, outcome: &Outcome) -> bool {
        let failed = matches!(Heard::of(outcome), Heard::Failed { .. });
        if !(is_held(outcome) || (failed && self.deps.guard.holds().is_open(&call.connection))) {
            return false;
        }
        let now = self.deps.clock.now();
        let Some(mut live) = self.runs.remove(&no) else { return true };
        let effect = self.deps.guard.effect(call);
        let stop = self.stops(&live, call, effect, now).unwrap_or_else(|| Stop::Fails(message(outcome)));
        self.hold(&mut live, op, stop, Some(call), now);
        self.count_busy(&mut live);
        self.restate_now(&mut live);
        self.put_back(live);
        true
    }

    /// Lets go what may go, and asks connections that fail whether they are there again.
    pub(super) fn let_go(&mut self) {
        if self.draining.is_some() {
            return;
        }
        let now = self.deps.clock.now();
        let version = self.deps.guard.holds().version();
        if version != self.held.version {
            self.held.version = version;
            self.sort_paused();
        }
        self.deps.guard.holds().settle_all_but(&|connection| self.held.behind.contains_key(connection));
        let connections: Vec<Arc<str>> = self.held.behind.keys().cloned().collect();
        for connection in connections {
            self.ask_connection(&connection, now);
            self.follow(&connection, now);
        }
        while self.busy + self.sleepers.waking() < self.deps.in_flight {
            let Some((no, op)) = self.held.free.pop_front() else { break };
            self.go_on(no, op, now);
            self.settle();
        }
    }

    /// When a connection behind which something waits is to be looked at.
    pub(super) fn next_ask(&self) -> Option<Timestamp> {
        if self.busy >= self.deps.in_flight || self.draining.is_some() {
            // Nothing could go; a run that ends or waits brings the loop round.
            return None;
        }
        let due = |connection: &Arc<str>| {
            let due = self.deps.guard.holds().due(connection)?;
            Some(self.held.ask_at.get(connection).map_or(due, |at| due.max(*at)))
        };
        self.held.behind.keys().filter_map(due).min()
    }

    /// A hold has lasted for as long as a flow that handles errors itself wants to wait.
    pub(super) fn tire(&mut self, no: RunNo, op: OpId, now: Timestamp) {
        if self.shelf.wish(no, op).is_some() {
            return self.fetch(no);
        }
        let Some(live) = self.runs.get_mut(&no) else { return };
        if live.patience.get(&op).is_none_or(|until| *until > now) {
            return;
        }
        // On its way as a probe: its answer, or the next hold, decides.
        let Some(hold) = live.on_hold.remove(&op) else { return };
        let message = hold.reason;
        let input = match live.open.get(&op) {
            Some(Open::Check(_)) => InputKind::Checked { op, verdict: Verdict::Unavailable { message } },
            Some(Open::Call { .. }) => {
                let outcome = Outcome::NotSent { code: "unavailable".into(), message, transient: true };
                InputKind::Outcome { op, outcome }
            }
            _ => return,
        };
        self.turn(no, vec![input]);
    }

    fn stops(&self, live: &Live, call: &Call, effect: Effect, now: Timestamp) -> Option<Stop> {
        let ask = Ask { flow: Some(&live.row.flow), connection: Some(&call.connection), effect };
        self.deps.guard.holds().stops(&ask, now)
    }

    /// The pause that a wait for a target stands under.
    fn lock_stops(&self, live: &Live, destructive: bool) -> Option<String> {
        let effect = if destructive { Effect::Destructive } else { Effect::Write };
        self.wish_stops(&Wish { flow: &live.row.flow, own: live.flow.mode, connection: None, effect })
    }

    /// The pause that an operation stands under. Who would only ask for a target is asked first whether it would act there.
    fn wish_stops(&self, wish: &Wish<'_>) -> Option<String> {
        if wish.connection.is_none() && self.mode_of(wish.flow, wish.own) == Mode::Shadow {
            return None;
        }
        let connection = wish.connection.map(|name| &**name);
        self.deps.guard.holds().paused(&Ask { flow: Some(wish.flow), connection, effect: wish.effect })
    }

    fn hold(&mut self, live: &mut Live, op: OpId, stop: Stop, call: Option<&Call>, now: Timestamp) {
        let no = live.row.no;
        match (&stop, call) {
            (Stop::Fails(_), Some(call)) => {
                self.held.behind.entry(Arc::clone(&call.connection)).or_default().push_back((no, op));
                if call.handled && !live.patience.contains_key(&op) {
                    let patience = i64::try_from(call.timeout_ms).unwrap_or(i64::MAX);
                    let until = now.checked_add(SignedDuration::from_millis(patience)).unwrap_or(Timestamp::MAX);
                    live.patience.insert(op, until);
                    self.timers.add(until, no, op);
                } else if live.patience.get(&op).is_some_and(|until| *until <= now) {
                    // Its time ran out while it was on its way.
                    self.timers.add(now, no, op);
                }
            }
            _ => self.held.paused.push_back((no, op)),
        }
        live.on_hold.insert(op, OnHold { reason: stop.reason().to_owned(), since: now });
    }

    /// Pauses came or went: what no pause holds any more is free; it is looked at again when it goes.
    fn sort_paused(&mut self) {
        for (no, op) in std::mem::take(&mut self.held.paused) {
            match self.pause_of(no, op) {
                Some(Some(_)) => self.held.paused.push_back((no, op)),
                Some(None) => self.held.free.push_back((no, op)),
                None => {}
            }
        }
    }

    /// The pause that a held operation stands under; the outer `None` where nothing holds it any more.
    fn pause_of(&self, no: RunNo, op: OpId) -> Option<Option<String>> {
        if let Some(wish) = self.shelf.wish(no, op) {
            return Some(self.wish_stops(&wish));
        }
        let live = self.runs.get(&no).filter(|live| live.on_hold.contains_key(&op))?;
        let holds = self.deps.guard.holds();
        let ask = |call: &Call| {
            let effect = self.deps.guard.effect(call);
            holds.paused(&Ask { flow: Some(&live.row.flow), connection: Some(&call.connection), effect })
        };
        match live.open.get(&op)? {
            Open::Call { call, .. } | Open::Check(call) => Some(ask(call)),
            Open::Lock { destructive, .. } => Some(self.lock_stops(live, *destructive)),
            _ => None,
        }
    }

    /// The read that waits longest goes out to see whether its connection is there again. Where what waits first is no
    /// read, the service is asked without one.
    fn ask_connection(&mut self, connection: &Arc<str>, now: Timestamp) {
        let due = self.held.ask_at.get(connection).is_none_or(|at| *at <= now);
        if !due || !self.deps.guard.holds().wants_probe(connection, now) {
            return;
        }
        let Some((no, op)) = self.first(connection) else { return };
        self.held.ask_at.insert(Arc::clone(connection), later(now, ASK_EVERY));
        if self.pause_of(no, op) == Some(None)
            && let Some(live) = self.runs.get_mut(&no)
            && let Some(Open::Call { .. }) = live.open.get(&op)
        {
            live.on_hold.remove(&op);
            self.drop_first(connection);
            self.recount_busy(no);
            return self.send(no, op);
        }
        drop(tokio::spawn(self.deps.client.probe(connection)));
    }

    /// What waited for a connection goes on, as far as the connection lets it.
    fn follow(&mut self, connection: &Arc<str>, now: Timestamp) {
        while self.busy + self.held.free.len() + self.sleepers.waking() < self.deps.in_flight {
            let Some(first) = self.first(connection) else {
                self.held.behind.remove(connection);
                self.held.ask_at.remove(connection);
                return self.deps.guard.holds().settle(connection);
            };
            if !self.deps.guard.holds().take(connection, now) {
                return;
            }
            self.drop_first(connection);
            self.held.free.push_back(first);
        }
    }

    /// The first entry that is still held.
    fn first(&mut self, connection: &Arc<str>) -> Option<(RunNo, OpId)> {
        loop {
            let (no, op) = *self.held.behind.get(connection)?.front()?;
            let held = || self.runs.get(&no).is_some_and(|live| live.on_hold.contains_key(&op));
            if self.shelf.wish(no, op).is_some() || held() {
                return Some((no, op));
            }
            self.drop_first(connection);
        }
    }

    fn drop_first(&mut self, connection: &Arc<str>) {
        if let Some(queue) = self.held.behind.get_mut(connection) {
            queue.pop_front();
        }
    }

    /// A held operation has its turn: a read goes out, a question is put to the guard, a target is asked for.
    pub(super) fn go_on(&mut self, no: RunNo, op: OpId, now: Timestamp) {
        let shelved = self.shelf.wish(no, op).is_some();
        match self.pause_of(no, op) {
            None => return,
            Some(Some(reason)) if shelved => {
                self.held.paused.push_back((no, op));
                let (status, reason) = (RunStatus::Waiting, Some(format!("{HELD_BACK}{reason}")));
                return self.write(vec![Op::Status { run: no, status, reason }]);
            }
            Some(None) if shelved => return self.goes(no),
            // Another pause came meanwhile.
            Some(Some(reason)) => {
                self.held.paused.push_back((no, op));
                let Some(mut live) = self.runs.remove(&no) else { return };
                if let Some(hold) = live.on_hold.get_mut(&op) {
                    hold.reason = reason;
                }
                self.restate_now(&mut live);
                return self.put_back(live);
            }
            Some(None) => {}
        }
        let Some(live) = self.runs.get_mut(&no) else { return };
        let since = live.on_hold.remove(&op).map_or(now, |hold| hold.since);
        let stopped = match live.open.get(&op) {
            Some(Open::Call { call, .. } | Open::Check(call)) => Some(call.clone()),
            Some(Open::Lock { target, destructive }) => {
                let (target, destructive) = (target.clone(), *destructive);
                self.ask_lock(no, op, &target, destructive);
                None
            }
            _ => None,
        };
        let Some(call) = stopped else { return };
        if self.deps.guard.holds().is_open(&call.connection) {
            return self.hold_again(no, op, &call, now);
        }
        match self.runs.get(&no).and_then(|live| live.open.get(&op)) {
            Some(Open::Check(_)) if call.action.look.is_some() && now.duration_since(since) > LOOK_AGAIN => {
                self.turn(no, vec![InputKind::Checked { op, verdict: Verdict::Again }]);
            }
            Some(Open::Check(_)) => {
                self.recheck(no, op, now, true);
                self.recount_busy(no);
            }
            _ => {
                self.recount_busy(no);
                self.send(no, op);
            }
        }
    }

    pub(super) fn ask_lock(&mut self, no: RunNo, op: OpId, target: &Target, destructive: bool) {
        if self.locks.acquire(no, op, target, destructive) {
            self.pending.push_back((no, InputKind::Locked { op }));
        }
    }

    fn hold_again(&mut self, no: RunNo, op: OpId, call: &Call, now: Timestamp) {
        let Some(mut live) = self.runs.remove(&no) else { return };
        let effect = self.deps.guard.effect(call);
        let stop = self.stops(&live, call, effect, now);
        let stop = stop.unwrap_or_else(|| Stop::Fails(format!("the connection {} fails", call.connection)));
        self.hold(&mut live, op, stop, Some(call), now);
        self.restate_now(&mut live);
        self.put_back(live);
    }

    pub(super) fn recount_busy(&mut self, no: RunNo) {
        if let Some(mut live) = self.runs.remove(&no) {
            self.count_busy(&mut live);
            self.put_back(live);
        }
    }

    /// Writes the run's status where it differs, without a turn.
    fn restate_now(&mut self, live: &mut Live) {
        let ops: Vec<Op> = self.restate(live).into_iter().collect();
        if !ops.is_empty() {
            self.write(ops);
        }
    }
}

fn is_held(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::NotSent { code, .. } if code == HELD)
}

fn held_back(outcome: &Outcome) -> Outcome {
    Outcome::NotSent { code: HELD.into(), message: message(outcome), transient: true }
}

fn message(outcome: &Outcome) -> String {
    super::run_loop::message(outcome)
}

fn later(at: Timestamp, span: SignedDuration) -> Timestamp {
    at.checked_add(span).unwrap_or(Timestamp::MAX)
}
