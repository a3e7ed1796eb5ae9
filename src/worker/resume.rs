//! How runs come back, and how they end from outside: replay at the start, again after a failed write, cancellation.

use std::collections::{HashMap, HashSet, VecDeque};

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::groups::{Groups, Place};
use super::live::{Live, Open};
use super::recover::{self, Replayed};
use super::run_loop::{After, CancelAnswer, Loop, Work, finish_op};
use super::timers::Timers;
use super::{Deps, Msg, RunEvent};
use crate::engine::{InputKind, Outcome};
use crate::guard::locks::Locks;
use crate::id::{OpId, RunId};
use crate::journal::{Answer, Batch, Op, RunNo, RunRow, RunStatus};

/// After a write failed, the run is read again from the disk.
const RELOAD: std::time::Duration = std::time::Duration::from_secs(2);

impl Loop {
    /// Replays what the store has not finished, takes its locks back, and asks again for what was open.
    pub(super) async fn resume(deps: Deps, sender: mpsc::UnboundedSender<Msg>) -> Result<Loop, crate::error::Error> {
        let mut this = Loop {
            deps,
            sender,
            runs: HashMap::new(),
            queue: VecDeque::new(),
            cancelled: HashSet::new(),
            locks: Locks::default(),
            groups: Groups::default(),
            timers: Timers::default(),
            busy: 0,
            subscribers: Vec::new(),
            draining: None,
            pending: VecDeque::new(),
        };
        let store = this.deps.store.clone();
        let rows = tokio::task::spawn_blocking(move || {
            let rows = store.unfinished()?;
            rows.into_iter().map(|row| Ok((store.turns(row.no)?, row))).collect::<Result<Vec<_>, _>>()
        });
        let unreadable = |e: String| crate::error::Error::unavailable(format!("reading unfinished runs: {e}"));
        let rows = rows
            .await
            .map_err(|e| unreadable(e.to_string()))?
            .map_err(|e: crate::journal::StoreError| unreadable(e.to_string()))?;
        let mut resumed = Vec::new();
        for (turns, row) in rows {
            if turns.is_empty() {
                this.queue.push_back(row);
            } else if let Some(no) = this.restore(row, &turns) {
                resumed.push(no);
            }
        }
        for no in resumed {
            this.reopen(no);
        }
        this.settle();
        Ok(this)
    }

    /// Ends a run; the answer comes when that is on disk.
    pub(super) fn cancel(&mut self, id: &RunId, by: String, reason: String, answer: CancelAnswer) {
        if let Some(no) = self.runs.values().find(|live| live.row.id == *id && !live.stale).map(|live| live.row.no) {
            return self.turn_for(no, vec![InputKind::Cancel { by, reason }], Some(answer));
        }
        let row = match self.deps.store.run(id) {
            Ok(Some(row)) if row.status.is_final() => Err(format!("run {id} has ended: {}", row.status.as_str())),
            Ok(Some(row)) => Ok(row),
            Ok(None) => Err(format!("no run {id}")),
            Err(error) => Err(error.to_string()),
        };
        match row {
            Ok(row) => self.end_unbegun(row, &by, &reason, answer),
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    /// Ends a run that is queued, stranded, or not heard of yet: only its row is there.
    fn end_unbegun(&mut self, mut row: RunRow, by: &str, reason: &str, answer: CancelAnswer) {
        let before = self.queue.len();
        self.queue.retain(|queued| queued.no != row.no);
        if self.queue.len() == before {
            self.cancelled.insert(row.no);
        }
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
        let done = move |result: Result<Vec<Answer>, crate::journal::StoreError>| {
            let result = result.map(drop).map_err(|error| error.to_string());
            if result.is_err() {
                drop(sender.send(Msg::Reload { run: again }));
            }
            let _ = answer.send(result);
        };
        self.deps.store.write(Batch { ops: vec![op], urgent: true, done: Some(Box::new(done)) });
        self.publish(RunEvent::Ended(Box::new(row)));
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

    pub(super) fn keep_stale(&mut self, live: Live) {
        if !live.sent.is_empty() {
            self.runs.insert(live.row.no, live);
            return;
        }
        let id = live.row.id.clone();
        self.forget(live);
        self.reload_later(id);
    }

    fn reload_later(&self, run: RunId) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            tokio::time::sleep(RELOAD).await;
            drop(sender.send(Msg::Reload { run }));
        });
    }

    pub(super) fn reload(&mut self, id: &RunId) {
        let store = &self.deps.store;
        let read = store.run(id).and_then(|row| match row {
            Some(row) if !row.status.is_final() => Ok(Some((store.turns(row.no)?, row))),
            _ => Ok(None),
        });
        match read {
            Ok(Some((_, row))) if self.runs.contains_key(&row.no) => {}
            Ok(Some((turns, row))) if turns.is_empty() => self.queue.push_back(row),
            Ok(Some((turns, row))) => {
                if let Some(no) = self.restore(row, &turns) {
                    self.reopen(no);
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(run = %id, %error, "the run can't be read; it is tried again");
                self.reload_later(id.clone());
            }
        }
    }

    /// A run from its rows, with its locks and its place in a group; what it waited for is still to be reopened.
    fn restore(&mut self, row: RunRow, turns: &[Vec<u8>]) -> Option<RunNo> {
        let replayed = self
            .deps
            .registry
            .flow(&row.flow, &row.version)
            .and_then(|flow| recover::replay(row.clone(), flow, turns, &mut recover::silent()));
        let Replayed { mut live, finish } = match replayed {
            Ok(replayed) => replayed,
            Err(error) => {
                self.strand(row, &error);
                return None;
            }
        };
        if let Some(finish) = finish {
            let now = self.deps.clock.now();
            let op = finish_op(&mut live, &finish, now);
            self.write(vec![op]);
            return None;
        }
        let no = live.row.no;
        for (op, target) in (0..u32::MAX).rev().zip(&live.held) {
            // Numbers from the far end, which no operation of the run has.
            if !self.locks.acquire(no, OpId(op), target, true) {
                self.locks.release_all(no);
                self.strand(live.row, "another run took its target while the disk could not be written");
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
    fn reopen(&mut self, no: RunNo) {
        let Some(live) = self.runs.get(&no) else { return };
        let ops: Vec<OpId> = live.open.keys().copied().collect();
        for op in ops {
            self.reopen_one(no, op);
        }
        if let Some(mut live) = self.runs.remove(&no) {
            self.count_busy(&mut live);
            self.runs.insert(no, live);
        }
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
                if self.locks.acquire(no, op, target, *destructive) {
                    self.pending.push_back((no, InputKind::Locked { op }));
                }
            }
            Some(Open::Once { key, until }) => {
                let ops = vec![Op::Claim { key: key.to_string(), run: no, at: now, until: *until }];
                let id = live.row.id.clone();
                let after = After { run: no, id, calls: Vec::new(), claims: vec![op], claims_at: 0, answer: None };
                self.deps.store.write(Batch { ops, urgent: true, done: Some(after.done(self.sender.clone())) });
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
            Some(Open::Check(_)) => self.recheck(no, op, now),
        }
    }

    fn recheck(&mut self, no: RunNo, op: OpId, now: Timestamp) {
        let Some(mut live) = self.runs.remove(&no) else { return };
        let call = match live.open.get(&op) {
            Some(Open::Check(call)) => call.clone(),
            _ => return,
        };
        let mut work = Work::default();
        self.check(&mut live, op, &call, now, &mut work);
        live.blobs.append(&mut work.ops);
        live.decided.append(&mut work.permits);
        self.runs.insert(no, live);
        self.pending.extend(work.inputs.into_iter().map(|input| (no, input)));
    }
}
