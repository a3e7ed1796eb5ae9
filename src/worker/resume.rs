//! How runs come back, and how they end from outside: replay at the start, again after a failed write, cancellation.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::groups::{Groups, Place};
use super::hold::Held;
use super::live::{Live, Open};
use super::poison::Stuck;
use super::queue::Queue;
use super::reading::{self, Found, Wanted, Wants};
use super::recover::Replayed;
use super::run_loop::{After, CancelAnswer, Loop, Work, ended, finish_op, hand_over};
use super::shelf::Shelf;
use super::sleep::{self, Sleepers};
use super::timers::Timers;
use super::{Deps, Msg, RunEvent};
use crate::engine::{InputKind, Outcome, Verdict};
use crate::guard::locks::Locks;
use crate::id::{OpId, RunId};
use crate::journal::{self, Answer, Batch, Op, RunNo, RunRow, RunStatus, StoreError};

/// After a write failed, the run is read again from the disk.
pub(super) const RELOAD: std::time::Duration = std::time::Duration::from_secs(2);

impl Loop {
    /// Replays what the store has going, takes its locks back, and asks again for what was open. What is queued or asleep
    /// stays on disk.
    pub(super) async fn resume(deps: Deps, sender: mpsc::UnboundedSender<Msg>) -> Result<Loop, crate::error::Error> {
        let mut this = Loop {
            queue: Queue::new(2 * deps.in_flight),
            deps,
            sender,
            runs: HashMap::new(),
            sleepers: Sleepers::default(),
            shelf: Shelf::default(),
            wants: Wants::default(),
            locks: Locks::default(),
            groups: Groups::default(),
            timers: Timers::default(),
            busy: 0,
            subscribers: Vec::new(),
            draining: None,
            outbox: Vec::new(),
            pending: VecDeque::new(),
            again: VecDeque::new(),
            panics: HashMap::new(),
            held: Held::default(),
        };
        let (store, registry) = (this.deps.store.clone(), this.deps.registry.clone());
        let read = journal::off_loop(&store, move |store| {
            let numbers = store.awake()?;
            let slices = numbers.chunks(sleep::SLICE);
            let awake: Vec<_> = slices.flat_map(|slice| reading::find_all(store, &*registry, slice)).collect();
            Ok::<_, StoreError>((awake, store.sleepers()?))
        });
        let unreadable = |e: String| crate::error::Error::unavailable(format!("reading unfinished runs: {e}"));
        let (awake, sleepers) = read.await.map_err(unreadable)?.map_err(|e| unreadable(e.to_string()))?;
        for (no, at) in sleepers {
            this.sleepers.add(at, no);
        }
        let mut resumed = Vec::new();
        for (no, found) in awake {
            match found {
                Ok(Found::Begun(replayed)) => resumed.extend(this.restore(*replayed)),
                Ok(Found::Stuck(row, why)) => this.stuck(*row, why),
                Ok(Found::Unbegun(row)) => this.queue.again(*row),
                Ok(Found::Ended(_) | Found::Dead(..)) => {}
                Err(error) => {
                    tracing::error!(run = no, %error, "an unfinished run can't be read; it is tried again in a minute");
                    this.read_later(no);
                }
            }
        }
        for no in resumed {
            this.reopen(no);
        }
        this.settle();
        Ok(this)
    }

    /// Ends a run; the answer comes when that is on disk.
    pub(super) fn cancel(&mut self, run: RunId, by: String, reason: String, answer: CancelAnswer) {
        let wanted = Wanted::Cancel { by, reason, answer };
        match self.runs.values().find(|live| live.row.id == run && !live.stale).map(|live| live.row.no) {
            Some(no) => self.give(no, vec![wanted]),
            None => self.want(run, wanted),
        }
    }

    /// Gives a run in memory what it was wanted for.
    pub(super) fn give(&mut self, no: RunNo, wanted: Vec<Wanted>) {
        for wanted in wanted {
            match wanted {
                _ if !self.runs.contains_key(&no) => wanted.refuse("the run has ended"),
                Wanted::Back => {}
                Wanted::Cancel { by, reason, answer } => {
                    self.turn_for(no, vec![InputKind::Cancel { by, reason }], Some(answer));
                    self.settle();
                }
                Wanted::Word(asked) => {
                    self.heard(no, asked);
                    self.settle();
                }
            }
        }
    }

    /// A run that was wanted has been read.
    pub(super) fn was_read(&mut self, run: RunId, found: Result<Option<Found>, String>) {
        // Nothing is wanted any more where it came back or ended meanwhile: then what was read is out of date.
        let wanted = self.wants.take(&run);
        if wanted.is_empty() {
            return;
        }
        if self.runs.values().any(|live| live.row.id == run) {
            // Set aside: it is read again when what it sent is answered.
            return self.wants.keep(run, wanted);
        }
        match found {
            Ok(Some(Found::Dead(row, stood))) => self.dead_was_read(&row, stood, wanted),
            Ok(Some(Found::Begun(replayed))) => {
                if self.dead_of_panics(&replayed.live.row) {
                    return wanted.into_iter().for_each(|wanted| wanted.refuse("the run is a dead letter now"));
                }
                self.wants.keep(run.clone(), wanted);
                self.bring_back(*replayed);
                // Where it could not come back, or had ended.
                self.wants.take(&run).into_iter().for_each(|wanted| wanted.refuse("the run can't go on"));
            }
            Ok(Some(Found::Unbegun(row))) => self.not_begun(*row, wanted, None),
            Ok(Some(Found::Stuck(row, why))) => {
                self.give_up(row.no);
                self.not_begun(*row, wanted, Some(why));
                self.settle();
            }
            Ok(Some(Found::Ended(row))) => wanted.into_iter().for_each(|wanted| wanted.refuse(&ended(&row))),
            Ok(None) => wanted.into_iter().for_each(|wanted| wanted.refuse(&format!("no run {run}"))),
            Err(error) => {
                tracing::error!(%run, error, "the run can't be read");
                if wanted.iter().any(|wanted| matches!(wanted, Wanted::Back)) {
                    self.reload_later(run);
                }
                wanted.into_iter().for_each(|wanted| wanted.refuse(&error));
            }
        }
    }

    /// A run that is queued, or stuck: it can be ended, and nothing else.
    fn not_begun(&mut self, row: RunRow, wanted: Vec<Wanted>, mut stuck: Option<Stuck>) {
        let no_more = match &stuck {
            None => "the run has not begun".to_owned(),
            Some(why) => format!("the run can't go on: {why}; `watchfloor runs cancel` ends it"),
        };
        let mut row = Some(row);
        for wanted in wanted {
            match (wanted, row.take()) {
                (Wanted::Cancel { by, reason, answer }, Some(row)) => self.end_unbegun(row, &by, &reason, answer),
                (Wanted::Back, Some(back)) => match stuck.take() {
                    Some(why) => self.stuck(back, why),
                    None if self.dead_of_panics(&back) => {}
                    None => self.queue.again(back),
                },
                (wanted, back) => {
                    row = back;
                    wanted.refuse(&no_more);
                }
            }
        }
    }

    /// Ends a run that is queued, stranded, or not heard of yet: only its row is there.
    fn end_unbegun(&mut self, mut row: RunRow, by: &str, reason: &str, answer: CancelAnswer) {
        self.queue.withdraw(row.no);
        let now = self.deps.clock.now();
        row.status = RunStatus::Cancelled;
        row.ended = Some(now);
        row.reason = Some(format!("cancelled by {by}{}{reason}", if reason.is_empty() { "" } else { ": " }));
        let op = Op::Finish {
            run: row.no,
            status: row.status,
            reason: row.reason.clone(),
            ended: now,
            effects: row.effects.clone(),
        };
        let (sender, again) = (self.sender.clone(), row.id.clone());
        let mut ops = vec![op];
        ops.extend(self.deps.registry.ended(&row, now));
        let done = move |result: Result<Vec<Answer>, crate::journal::StoreError>| {
            let result = result.map(|answers| hand_over(&answers, &sender)).map_err(|error| error.to_string());
            if result.is_err() {
                drop(sender.send(Msg::Reload { run: again }));
            }
            let _ = answer.send(result);
        };
        self.submit(Batch { ops, urgent: true, done: Some(Box::new(done)) });
        self.publish(|| RunEvent::Ended(Arc::new(row)));
    }

    /// A turn did not reach the disk: what is in memory is ahead of the journal, so the run begins again from there. It
    /// keeps its locks until what it sent is answered.
    pub(super) fn set_aside(&mut self, no: RunNo, id: RunId, error: &str) {
        tracing::error!(run = %id, error, "a turn could not be written; the run is read again from the disk");
        match self.runs.remove(&no) {
            Some(mut live) if !live.stale => {
                live.stale = true;
                self.keep_stale(live);
            }
            Some(live) => drop(self.runs.insert(no, live)),
            None => self.reload_later(id),
        }
    }

    pub(super) fn keep_stale(&mut self, live: Box<Live>) {
        if !live.sent.is_empty() {
            self.runs.insert(live.row.no, live);
            return;
        }
        let id = live.row.id.clone();
        self.forget(live);
        self.reload_later(id);
    }

    pub(super) fn reload_later(&self, run: RunId) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            tokio::time::sleep(RELOAD).await;
            drop(sender.send(Msg::Reload { run }));
        });
    }

    pub(super) fn reload(&mut self, run: RunId) {
        if self.runs.values().all(|live| live.row.id != run) {
            self.want(run, Wanted::Back);
        }
    }

    /// A run that was read goes on.
    pub(super) fn bring_back(&mut self, replayed: Replayed) {
        let (no, id) = (replayed.live.row.no, replayed.live.row.id.clone());
        if self.restore(replayed).is_none() {
            self.give_up(no);
            return self.settle();
        }
        match self.shelf.take(no) {
            Some(shelved) => self.take_down(no, shelved),
            None => self.reopen(no),
        }
        self.settle();
        let wanted = self.wants.take(&id);
        self.give(no, wanted);
    }

    /// A replayed run takes its locks and its place in a group; what it waited for is still to be reopened.
    pub(super) fn restore(&mut self, replayed: Replayed) -> Option<RunNo> {
        let Replayed { mut live, finish } = replayed;
        self.sleepers.came_back(live.row.no);
        // Read after it slept, or not: its next turn says it anew.
        live.sleep = None;
        if let Some(finish) = finish {
            let now = self.deps.clock.now();
            let mut ops = vec![finish_op(&mut live, &finish, now)];
            ops.extend(self.deps.registry.ended(&live.row, now));
            self.write(ops);
            return None;
        }
        let no = live.row.no;
        for (op, target) in (0..u32::MAX).rev().zip(&live.held) {
            // It waited on disk, and held it all the while.
            if self.locks.owner(target).is_some_and(|(owner, _)| owner == no) {
                continue;
            }
            // Numbers from the far end, which no operation of the run has.
            if !self.locks.acquire(no, OpId(op), target, true) {
                // Another run took its target while the disk could not be written: what this one had done there was answered
                // before. It comes back when the other is done.
                let next = self.locks.release_all(no);
                self.pending.extend(next.into_iter().map(|(run, op)| (run, InputKind::Locked { op })));
                tracing::warn!(run = %live.row.id, target = &*target.id, "another run has its target: it goes on later");
                self.reload_later(live.row.id);
                return None;
            }
        }
        if let (Some(key), true) = (&live.group, live.entered()) {
            self.groups.restore(key, no);
        }
        self.runs.insert(no, live);
        Some(no)
    }

    /// Asks again for what a resumed run waited for. A call may have been sent: its outcome is unknown, and the engine
    /// decides whether to look, to call again, or to ask a person.
    pub(super) fn reopen(&mut self, no: RunNo) {
        let Some(live) = self.runs.get(&no) else { return };
        let ops: Vec<OpId> = live.open.keys().copied().collect();
        for op in ops {
            self.reopen_one(no, op);
        }
        self.recount_busy(no);
    }

    fn reopen_one(&mut self, no: RunNo, op: OpId) {
        let now = self.deps.clock.now();
        let Some(live) = self.runs.get(&no) else { return };
        match live.open.get(&op) {
            None | Some(Open::Park { .. }) => {}
            Some(Open::Call { .. }) => {
                let message = "watchfloor was restarted before the answer was written".to_owned();
                let outcome = Outcome::Unknown { status: 0, code: "restart".into(), message };
                self.pending.push_back((no, InputKind::Outcome { op, outcome }));
            }
            Some(Open::Timer(at)) => self.timers.add(*at, no, op),
            Some(Open::Lock { target, destructive }) => {
                let (target, destructive) = (target.clone(), *destructive);
                let Some(mut live) = self.runs.remove(&no) else { return };
                let held = self.hold_lock(&mut live, op, destructive, now);
                self.runs.insert(no, live);
                if !held {
                    self.ask_lock(no, op, &target, destructive);
                }
            }
            Some(Open::Once { key, until }) => {
                let ops = vec![Op::Claim { key: key.to_string(), run: no, at: now, until: *until }];
                let id = live.row.id.clone();
                let after = After {
                    run: no,
                    id,
                    calls: Vec::new(),
                    claims: vec![op],
                    claims_at: 0,
                    answer: None,
                    sleeps: None,
                };
                self.submit(Batch { ops, urgent: true, done: Some(after.done(self.sender.clone())) });
            }
            Some(Open::Enter { key, max, on_full }) => match self.groups.ask(key, no, op, *max, *on_full) {
                Place::Had => self.pending.push_back((no, InputKind::Entered { op, entered: true })),
                Place::Skipped => self.pending.push_back((no, InputKind::Entered { op, entered: false })),
                Place::Waits { cancel } => {
                    for run in cancel {
                        let reason = "another run of the same group waits".to_owned();
                        self.pending.push_back((run, InputKind::Cancel { by: "concurrency".into(), reason }));
                    }
                }
            },
            // Another run may have had the target since it was looked at: it is locked and looked at again.
            Some(Open::Check(call)) if call.action.look.is_some() => {
                self.pending.push_back((no, InputKind::Checked { op, verdict: Verdict::Again }));
            }
            Some(Open::Check(_)) => self.recheck(no, op, now, false),
        }
    }

    /// Puts an open question to the guard again. `turn` says that it was held and now has its turn.
    pub(super) fn recheck(&mut self, no: RunNo, op: OpId, now: Timestamp, turn: bool) {
        let Some(mut live) = self.runs.remove(&no) else { return };
        let call = match live.open.get(&op) {
            Some(Open::Check(call)) => call.clone(),
            _ => return drop(self.runs.insert(no, live)),
        };
        let mut work = Work::default();
        if turn || !self.hold_check(&mut live, op, &call, now, &mut work) {
            self.check(&mut live, op, &call, now, &mut work);
        } else {
            live.hold_is_old(op);
        }
        live.blobs.append(&mut work.ops);
        live.decided.append(&mut work.permits);
        self.runs.insert(no, live);
        self.pending.extend(work.inputs.into_iter().map(|input| (no, input)));
    }
}
