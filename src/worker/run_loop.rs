//! The loop: it owns every run in memory, and nothing else touches them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::groups::{Groups, Place};
use super::live::{Live, Open};
use super::recover::{self, Replayed};
use super::timers::Timers;
use super::turn::Turn;
use super::{Deps, Load, Msg, RunEvent, Sending};
use crate::catalog::Effect;
use crate::engine::{Call, Command, Finish, FinishStatus, Input, InputKind, Outcome, RunState, Target, apply};
use crate::flow::model::Mode;
use crate::guard::locks::Locks;
use crate::guard::{self, Asker, Check, Facts};
use crate::id::{OpId, RunId};
use crate::journal::{Answer, Batch, Op, RunNo, RunRow, RunStatus};
use crate::value::{Map, Value};

/// Messages taken in one go: answers that came together share a commit.
const BATCH: usize = 256;
/// After a write failed, the run is read again from the disk.
const RELOAD: std::time::Duration = std::time::Duration::from_secs(2);

pub(super) struct Loop {
    deps: Deps,
    sender: mpsc::UnboundedSender<Msg>,
    runs: HashMap<RunNo, Live>,
    queue: VecDeque<RunRow>,
    locks: Locks,
    groups: Groups,
    timers: Timers,
    busy: usize,
    subscribers: Vec<mpsc::UnboundedSender<RunEvent>>,
    draining: Option<oneshot::Sender<()>>,
    /// Inputs that one run's turn brought for another: locks handed on, places in groups, cancellations.
    pending: VecDeque<(RunNo, InputKind)>,
}

impl Loop {
    /// Replays what the store has not finished, takes its locks back, and asks again for what was open.
    pub(super) async fn resume(deps: Deps, sender: mpsc::UnboundedSender<Msg>) -> Result<Loop, crate::error::Error> {
        let mut this = Loop {
            deps,
            sender,
            runs: HashMap::new(),
            queue: VecDeque::new(),
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

    pub(super) async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<Msg>) {
        let mut messages = Vec::with_capacity(BATCH);
        loop {
            self.fire_due();
            self.begin_queued();
            self.settle();
            if self.drained() {
                return;
            }
            let timer = self.until_next_timer();
            tokio::select! {
                taken = receiver.recv_many(&mut messages, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                }
                () = tokio::time::sleep(timer) => {}
            }
            for message in messages.drain(..) {
                self.handle(message);
                self.settle();
            }
        }
    }

    fn handle(&mut self, message: Msg) {
        match message {
            Msg::Accepted(rows) => self.queue.extend(rows),
            Msg::Committed { run, calls } => calls.into_iter().for_each(|op| self.send(run, op)),
            Msg::NotWritten { run, error } => self.set_aside(run, &error),
            Msg::Replied { run, op, reply } => {
                if let Some(live) = self.runs.get_mut(&run) {
                    if let (Some(body), Some(Open::Call { call, .. })) = (reply.blob, live.open.get(&op)) {
                        let path = call.path.to_string();
                        live.blobs.push(Op::Blob { run, path, attempt: call.attempt, body });
                    }
                    self.turn(run, vec![InputKind::Outcome { op, outcome: reply.outcome }]);
                }
            }
            Msg::Facts { run, op, facts } => self.decide_with(run, op, facts),
            Msg::Claimed { run, op, claimed } => self.turn(run, vec![InputKind::Once { op, claimed }]),
            Msg::Reload { run } => self.reload(&run),
            Msg::Cancel { run, by, reason, answer } => {
                drop(answer.send(self.cancel(&run, by, reason)));
            }
            Msg::Subscribe(subscriber) => self.subscribers.push(subscriber),
            Msg::Load(answer) => {
                let load = Load { queued: self.queue.len(), live: self.runs.len(), busy: self.busy };
                let _ = answer.send(load);
            }
            Msg::Drain(answer) => self.draining = Some(answer),
        }
    }

    /// Gives what was brought for other runs, until nothing is left.
    fn settle(&mut self) {
        while let Some((run, input)) = self.pending.pop_front() {
            self.turn(run, vec![input]);
        }
    }

    fn begin_queued(&mut self) {
        if self.draining.is_some() {
            return;
        }
        while self.busy < self.deps.in_flight {
            let Some(row) = self.queue.pop_front() else { return };
            match self.deps.registry.flow(&row.flow, &row.version) {
                Ok(flow) => {
                    let no = row.no;
                    let url = self.deps.public_url.as_deref();
                    let url = url.map(|base| format!("{}/runs/{}", base.trim_end_matches('/'), row.id));
                    let state = RunState::new(recover::seed(&row));
                    self.runs.insert(no, Live::new(row, flow, state));
                    self.turn(no, vec![InputKind::Started { url }]);
                    self.settle();
                }
                Err(error) => self.strand(row, &error),
            }
        }
    }

    /// A run that can't go on by itself: it waits with the reason, and cancelling ends it.
    fn strand(&mut self, mut row: RunRow, reason: &str) {
        tracing::error!(run = %row.id, flow = %row.flow, reason, "the run can't go on");
        let status = RunStatus::Waiting;
        let reason = Some(format!("can't go on: {reason}"));
        self.write(vec![Op::Status { run: row.no, status, reason: reason.clone() }]);
        row.status = status;
        row.reason = reason;
        self.publish(RunEvent::Waiting(Box::new(row)));
    }

    fn abandon(&mut self, live: Live) {
        let row = live.row.clone();
        self.forget(live);
        self.strand(row, "an internal error in the engine; this is a bug, please report it");
    }

    /// Applies inputs, and all that can be answered at once; writes the turn; sends what needs no commit.
    fn turn(&mut self, no: RunNo, inputs: Vec<InputKind>) {
        let Some(mut live) = self.runs.remove(&no) else { return };
        let now = self.deps.clock.now();
        let mut work =
            Work { inputs: VecDeque::from(inputs), permits: std::mem::take(&mut live.decided), ..Work::default() };
        while let Some(kind) = work.inputs.pop_front() {
            live.note_input(&kind);
            work.applied.push(kind.clone());
            // A bug in one flow's way ends that run's progress, not the process and not the other runs.
            let applied = std::panic::AssertUnwindSafe(|| apply(&live.flow, &mut live.state, Input { at: now, kind }));
            let Ok(commands) = std::panic::catch_unwind(applied) else {
                return self.abandon(live);
            };
            for command in commands {
                live.note_command(&command);
                self.carry_out(&mut live, &command, now, &mut work);
                work.commands.push(command);
            }
        }
        self.append(&mut live, now, &mut work);
        self.count_busy(&mut live);
        let ended = work.finish.is_some();
        if ended {
            self.forget(live);
        } else {
            self.runs.insert(no, live);
        }
        for op in work.reads {
            self.send(no, op);
        }
        if ended {
            self.pending.retain(|(run, _)| *run != no);
        }
    }

    /// One command: answered at once where that can be, else asked for.
    fn carry_out(&mut self, live: &mut Live, command: &Command, now: Timestamp, work: &mut Work) {
        let no = live.row.no;
        match command {
            Command::Enter { op, key, max, on_full } => match self.groups.ask(key, no, *op, *max, *on_full) {
                Place::Had => work.inputs.push_back(InputKind::Entered { op: *op, entered: true }),
                Place::Skipped => work.inputs.push_back(InputKind::Entered { op: *op, entered: false }),
                Place::Waits { cancel } => {
                    for run in cancel {
                        let reason = format!("run {} of the same group began", live.row.id);
                        let cancel = InputKind::Cancel { by: "concurrency".into(), reason };
                        self.pending.push_back((run, cancel));
                    }
                }
            },
            Command::Lock { op, target, destructive } => {
                if self.locks.acquire(no, *op, target, *destructive) {
                    work.inputs.push_back(InputKind::Locked { op: *op });
                }
            }
            Command::Unlock { target } => self.unlock(no, target),
            Command::Check { op, call } => self.check(live, *op, call, now, work),
            Command::Call { op, call } => {
                if call.effect() == Effect::Read {
                    work.reads.push(*op);
                } else {
                    work.intents.push(*op);
                }
                if let Some(Open::Call { permit, .. }) = live.open.get_mut(op) {
                    *permit = guard::read_permit(call).or_else(|| work.permits.remove(&call.path));
                }
            }
            Command::Timer { op, at } => self.timers.add(*at, no, *op),
            Command::Cancel { op } => {
                if let Some((run, op)) = self.locks.cancel(no, *op) {
                    self.pending.push_back((run, InputKind::Locked { op }));
                }
            }
            Command::Once { op, key, until } => {
                if self.deps.registry.mode(&live.row.flow) == Mode::Shadow {
                    work.inputs.push_back(InputKind::Once { op: *op, claimed: true });
                } else {
                    work.claims.push(*op);
                    work.ops.push(Op::Claim { key: key.to_string(), run: no, at: now, until: *until });
                }
            }
            // In shadow nothing was claimed, and another run's claim is not ours to free.
            Command::OnceRelease { .. } if self.deps.registry.mode(&live.row.flow) == Mode::Shadow => {}
            Command::OnceRelease { key } => work.ops.push(Op::Release { key: key.to_string() }),
            Command::Park { uncertain, reason, .. } => {
                let status = if *uncertain { RunStatus::Uncertain } else { RunStatus::Waiting };
                live.row.status = status;
                live.row.reason = Some(reason.clone());
                work.ops.push(Op::Status { run: no, status, reason: Some(reason.clone()) });
                self.publish(RunEvent::Waiting(Box::new(live.row.clone())));
            }
            Command::Finish(finish) => work.finish = Some(finish.clone()),
        }
    }

    fn check(&mut self, live: &mut Live, op: OpId, call: &Call, now: Timestamp, work: &mut Work) {
        let asker = self.asker(live, now);
        match self.deps.guard.check(&asker, call, &live.flow.limits) {
            Check::Decided(decision) => {
                work.ops.extend(decision.reserve);
                work.permits.extend(decision.permit.map(|permit| (call.path.clone(), permit)));
                work.inputs.push_back(InputKind::Checked { op, verdict: decision.verdict });
            }
            Check::NeedsDevice { machine_id, connection } => {
                let inputs = Map::from([("machine_id".into(), Value::str(machine_id))]);
                self.fetch_facts(live.row.no, op, &connection, "mde.get_machine", inputs);
            }
            Check::NeedsUser { user, connection } => {
                let inputs = Map::from([("user".into(), Value::str(user))]);
                self.fetch_facts(live.row.no, op, &connection, "entra.get_user", inputs);
            }
        }
    }

    fn asker(&self, live: &Live, now: Timestamp) -> Asker {
        Asker {
            run: live.row.id.clone(),
            flow: live.row.flow.clone(),
            mode: self.deps.registry.mode(&live.row.flow),
            occurred: live.row.occurred,
            now,
        }
    }

    fn fetch_facts(&self, run: RunNo, op: OpId, connection: &str, action: &str, inputs: Map) {
        let fetch = self.deps.client.fetch(connection, action, inputs);
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let facts = fetch.await;
            drop(sender.send(Msg::Facts { run, op, facts }));
        });
    }

    fn decide_with(&mut self, no: RunNo, op: OpId, facts: Result<Value, Outcome>) {
        let Some(live) = self.runs.get(&no) else { return };
        let Some(Open::Check(call)) = live.open.get(&op) else { return };
        let call = call.clone();
        let facts = match facts {
            Ok(value) if matches!(call.target.as_ref().map(|target| &*target.kind), Some("user")) => Facts::User(value),
            Ok(value) => Facts::Device(value),
            Err(outcome) => Facts::Missing(message(&outcome)),
        };
        let now = self.deps.clock.now();
        let flow = live.flow.clone();
        let asker = self.asker(live, now);
        let decision = self.deps.guard.check_with(&asker, &call, &flow.limits, &facts);
        if let Some(live) = self.runs.get_mut(&no) {
            live.blobs.extend(decision.reserve);
            live.decided.extend(decision.permit.map(|permit| (call.path.clone(), permit)));
        }
        self.turn(no, vec![InputKind::Checked { op, verdict: decision.verdict }]);
    }

    fn unlock(&mut self, no: RunNo, target: &Target) {
        if let Some((run, op)) = self.locks.release(no, target) {
            self.pending.push_back((run, InputKind::Locked { op }));
        }
    }

    /// Queues the turn's row and what must stand or fall with it.
    fn append(&mut self, live: &mut Live, now: Timestamp, work: &mut Work) {
        let no = live.row.no;
        let turn = Turn::new(now, std::mem::take(&mut work.applied), &work.commands);
        let body = match turn.encode() {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(run = %live.row.id, error, "a turn can't be written");
                return;
            }
        };
        let mut ops = vec![Op::Turn { run: no, seq: live.seq, body }];
        if live.seq == 0 && work.finish.is_none() {
            live.row.status = RunStatus::Running;
            ops.push(Op::Status { run: no, status: RunStatus::Running, reason: None });
        }
        live.seq += 1;
        let claims_at = ops.len();
        ops.append(&mut work.ops);
        ops.append(&mut live.blobs);
        if let Some(finish) = &work.finish {
            ops.push(finish_op(live, finish, now));
        }
        let urgent = !work.intents.is_empty() || !work.claims.is_empty();
        let done = self.done(no, std::mem::take(&mut work.intents), std::mem::take(&mut work.claims), claims_at);
        self.deps.store.write(Batch { ops, urgent, done: Some(done) });
    }

    /// What the commit sets going: calls, and the answers to claims, in the order in which they were asked.
    fn done(&self, run: RunNo, calls: Vec<OpId>, claims: Vec<OpId>, claims_at: usize) -> crate::journal::Done {
        let sender = self.sender.clone();
        Box::new(move |result| match result {
            Ok(answers) => {
                if !calls.is_empty() {
                    drop(sender.send(Msg::Committed { run, calls }));
                }
                let answers = answers.into_iter().skip(claims_at).filter_map(|answer| match answer {
                    Answer::Claimed(claimed) => Some(claimed),
                    _ => None,
                });
                for (op, claimed) in claims.into_iter().zip(answers) {
                    drop(sender.send(Msg::Claimed { run, op, claimed }));
                }
            }
            Err(error) => drop(sender.send(Msg::NotWritten { run, error: error.to_string() })),
        })
    }

    fn send(&mut self, no: RunNo, op: OpId) {
        let Some(live) = self.runs.get_mut(&no) else { return };
        let Some(Open::Call { call, permit }) = live.open.get_mut(&op) else { return };
        let Some(permit) = permit.take() else {
            let outcome = Outcome::NotSent {
                code: "no_permit".into(),
                message: "the guard gave no permit for this call".into(),
                transient: false,
            };
            self.pending.push_back((no, InputKind::Outcome { op, outcome }));
            return;
        };
        let sending = Sending { sender: self.sender.clone(), run: no, op, answered: false };
        tokio::spawn(sending.go(self.deps.client.clone(), permit, live.row.id.clone(), (**call).clone()));
    }

    fn cancel(&mut self, id: &RunId, by: String, reason: String) -> Result<(), String> {
        if let Some(no) = self.runs.values().find(|live| live.row.id == *id).map(|live| live.row.no) {
            self.turn(no, vec![InputKind::Cancel { by, reason }]);
            return Ok(());
        }
        let queued = self.queue.iter().position(|row| row.id == *id).and_then(|at| self.queue.remove(at));
        let row = match queued {
            Some(row) => row,
            // A stranded run is not in memory: its row says whether it has ended.
            None => match self.deps.store.run(id) {
                Ok(Some(row)) if row.status.is_final() => {
                    return Err(format!("run {id} has ended: {}", row.status.as_str()));
                }
                Ok(Some(row)) => row,
                Ok(None) => return Err(format!("no run {id}")),
                Err(error) => return Err(error.to_string()),
            },
        };
        let reason = format!("cancelled by {by}{}{reason}", if reason.is_empty() { "" } else { ": " });
        self.write(vec![Op::Finish {
            run: row.no,
            status: RunStatus::Cancelled,
            reason: Some(reason),
            ended: self.deps.clock.now(),
            effects: Default::default(),
        }]);
        Ok(())
    }

    fn forget(&mut self, live: Live) {
        let no = live.row.no;
        if live.busy {
            self.busy -= 1;
        }
        for (run, op) in self.locks.release_all(no) {
            self.pending.push_back((run, InputKind::Locked { op }));
        }
        if let Some(key) = &live.group
            && let Some((run, op)) = self.groups.leave(key, no)
        {
            self.pending.push_back((run, InputKind::Entered { op, entered: true }));
        }
        if live.row.status.is_final() {
            self.publish(RunEvent::Ended(Box::new(live.row)));
        }
    }

    fn count_busy(&mut self, live: &mut Live) {
        let busy = live.calls();
        if busy != live.busy {
            self.busy = if busy { self.busy + 1 } else { self.busy - 1 };
            live.busy = busy;
        }
    }

    /// A turn did not reach the disk: what is in memory is ahead of the journal, so the run begins again from there.
    fn set_aside(&mut self, no: RunNo, error: &str) {
        let Some(live) = self.runs.remove(&no) else { return };
        tracing::error!(run = %live.row.id, error, "a turn could not be written; the run is read again from the disk");
        let (sender, run) = (self.sender.clone(), live.row.id.clone());
        self.forget(live);
        tokio::spawn(async move {
            tokio::time::sleep(RELOAD).await;
            drop(sender.send(Msg::Reload { run }));
        });
    }

    fn reload(&mut self, id: &RunId) {
        let store = &self.deps.store;
        let read = store.run(id).and_then(|row| match row {
            Some(row) if !row.status.is_final() => Ok(Some((store.turns(row.no)?, row))),
            _ => Ok(None),
        });
        match read {
            Ok(Some((turns, row))) if turns.is_empty() => self.queue.push_back(row),
            Ok(Some((turns, row))) => {
                if let Some(no) = self.restore(row, &turns) {
                    self.reopen(no);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(run = %id, %error, "the run can't be read; it goes on at the next start"),
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
            self.locks.acquire(no, OpId(op), target, true);
        }
        if let Some(key) = &live.group {
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
            None | Some(Open::Park) => {}
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
                let done = self.done(no, Vec::new(), vec![op], 0);
                self.deps.store.write(Batch { ops, urgent: true, done: Some(done) });
            }
            Some(Open::Enter { key, max, on_full }) => match self.groups.ask(key, no, op, *max, *on_full) {
                Place::Had => self.pending.push_back((no, InputKind::Entered { op, entered: true })),
                Place::Skipped => self.pending.push_back((no, InputKind::Entered { op, entered: false })),
                Place::Waits { .. } => {}
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

    fn fire_due(&mut self) {
        let now = self.deps.clock.now();
        while let Some((no, op)) = self.timers.due(now) {
            if self.runs.get(&no).is_some_and(|live| matches!(live.open.get(&op), Some(Open::Timer(_)))) {
                self.turn(no, vec![InputKind::Fired { op }]);
                self.settle();
            }
        }
    }

    /// How long the loop may sleep. Bounded, so that a clock that was set forward is noticed.
    fn until_next_timer(&self) -> std::time::Duration {
        let most = std::time::Duration::from_secs(30);
        let Some(at) = self.timers.next() else { return most };
        let wait = at.duration_since(self.deps.clock.now());
        std::time::Duration::try_from(wait).unwrap_or_default().min(most)
    }

    fn drained(&mut self) -> bool {
        if self.draining.is_none() || self.busy > 0 {
            return false;
        }
        if let Some(answer) = self.draining.take() {
            let _ = answer.send(());
        }
        true
    }

    fn write(&self, ops: Vec<Op>) {
        let done = |result: Result<Vec<Answer>, crate::journal::StoreError>| {
            if let Err(error) = result {
                tracing::error!(%error, "writing to the store failed");
            }
        };
        self.deps.store.write(Batch { ops, urgent: false, done: Some(Box::new(done)) });
    }

    fn publish(&mut self, event: RunEvent) {
        self.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }
}

/// What one turn gathers.
#[derive(Default)]
struct Work {
    inputs: VecDeque<InputKind>,
    applied: Vec<InputKind>,
    commands: Vec<Command>,
    ops: Vec<Op>,
    /// Reads, which may go before the commit.
    reads: Vec<OpId>,
    /// Calls that go when the turn is on disk.
    intents: Vec<OpId>,
    claims: Vec<OpId>,
    /// The guard's permits for the calls that the engine derives from its verdicts, by path.
    permits: BTreeMap<Arc<str>, guard::Permit>,
    finish: Option<Finish>,
}

fn finish_op(live: &mut Live, finish: &Finish, now: Timestamp) -> Op {
    let status = match finish.status {
        FinishStatus::Succeeded => RunStatus::Succeeded,
        FinishStatus::Failed => RunStatus::Failed,
        FinishStatus::Cancelled => RunStatus::Cancelled,
        FinishStatus::Dead => RunStatus::Dead,
    };
    live.row.status = status;
    live.row.reason.clone_from(&finish.reason);
    live.row.ended = Some(now);
    live.row.effects = live.state.effects.clone();
    Op::Finish {
        run: live.row.no,
        status,
        reason: finish.reason.clone(),
        ended: now,
        effects: live.state.effects.clone(),
    }
}

fn message(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { .. } => "no error".to_owned(),
        Outcome::Refused { message, .. } | Outcome::NotSent { message, .. } | Outcome::Unknown { message, .. } => {
            message.clone()
        }
    }
}
