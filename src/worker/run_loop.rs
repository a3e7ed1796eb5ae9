//! The loop: it owns every run in memory, and nothing else touches them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::groups::{Groups, Place};
use super::hold::Held;
use super::letters::Asked;
use super::live::{Live, Open};
use super::poison::{Stuck, guarded};
use super::queue::Queue;
use super::reading::Wants;
use super::recover;
use super::shelf::Shelf;
use super::sleep::Sleepers;
use super::timers::Timers;
use super::turn::Turn;
use super::{Deps, Load, Msg, RunEvent, Sending};
use crate::catalog::Effect;
use crate::connector::client::Reply;
use crate::engine::{Call, Command, Finish, FinishStatus, Input, InputKind, Outcome, Purpose, RunState, Target, apply};
use crate::flow::model::Mode;
use crate::guard::locks::Locks;
use crate::guard::{self, Asker, Check, Facts};
use crate::id::{OpId, RunId};
use crate::journal::{Answer, Batch, Op, RunNo, RunRow, RunStatus, Sleep};
use crate::value::{Map, Value};

/// Messages taken in one go: answers that came together share a commit.
const BATCH: usize = 256;

pub(super) struct Loop {
    pub(super) deps: Deps,
    pub(super) sender: mpsc::UnboundedSender<Msg>,
    pub(super) runs: HashMap<RunNo, Box<Live>>,
    pub(super) queue: Queue,
    pub(super) sleepers: Sleepers,
    /// Runs that wait for others, and are not in memory.
    pub(super) shelf: Shelf,
    /// What runs that are not in memory are wanted for.
    pub(super) wants: Wants,
    pub(super) locks: Locks,
    pub(super) groups: Groups,
    pub(super) timers: Timers,
    pub(super) busy: usize,
    pub(super) subscribers: Vec<mpsc::UnboundedSender<RunEvent>>,
    pub(super) draining: Option<oneshot::Sender<()>>,
    /// What is written when this round of the loop is over.
    pub(super) outbox: Vec<Batch>,
    /// Inputs that one run's turn brought for another: locks handed on, places in groups, cancellations.
    pub(super) pending: VecDeque<(RunNo, InputKind)>,
    /// Retries of dead runs that wait for room.
    pub(super) again: VecDeque<Asked>,
    /// How often a run panicked, and what it said.
    pub(super) panics: HashMap<RunNo, (u32, String)>,
    /// What is held back before it is sent.
    pub(super) held: Held,
}

impl Loop {
    pub(super) async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<Msg>) {
        let mut messages = Vec::with_capacity(BATCH);
        let holds = Arc::clone(self.deps.guard.holds());
        loop {
            self.fire_due();
            self.let_go();
            self.read_shelved();
            self.wake_due();
            self.begin_queued();
            self.begin_again();
            self.settle();
            let drained = self.drained();
            self.flush();
            if drained {
                return;
            }
            let timer = self.until_next_timer();
            // In this order, so that the same messages at the same times are taken the same way.
            tokio::select! {
                biased;
                taken = receiver.recv_many(&mut messages, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                }
                () = holds.changed() => {}
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
            Msg::Accepted(rows) => self.queue.accept(rows),
            Msg::Started(rows) => self.queue.started(rows),
            // The next round of the loop reads them.
            Msg::Left => {}
            Msg::Queued(Some(queued)) => self.queue.arrived(queued),
            Msg::Queued(None) => self.queue.unread(),
            Msg::Due(found) => self.woken(found),
            Msg::Read { run, found } => self.was_read(run, found),
            Msg::Sleeps { run, seq } => self.fall_asleep(run, seq),
            Msg::Committed { run, calls } => calls.into_iter().for_each(|op| self.send(run, op)),
            Msg::NotWritten { run, id, error } => self.set_aside(run, id, &error),
            Msg::Replied { run, op, reply } => self.replied(run, op, *reply),
            Msg::Facts { run, op, facts } => self.decide_with(run, op, facts),
            Msg::Claimed { run, op, claimed } => self.turn(run, vec![InputKind::Once { op, claimed }]),
            Msg::Reload { run } => self.reload(run),
            Msg::Cancel { run, by, reason, answer } => self.cancel(run, by, reason, answer),
            Msg::Asked(asked) => self.asked(asked),
            Msg::Change { change, done } => {
                change(&mut self.deps);
                let _ = done.send(());
            }
            Msg::Subscribe(subscriber) => self.subscribers.push(subscriber),
            Msg::Load(answer) => {
                let load = Load { queued: self.queue.len(), live: self.runs.len(), busy: self.busy };
                let _ = answer.send(load);
            }
            Msg::Drain(answer) => self.draining = Some(answer),
        }
    }

    fn replied(&mut self, run: RunNo, op: OpId, reply: Reply) {
        let Some(live) = self.runs.get_mut(&run) else { return };
        live.sent.remove(&op);
        let Some(outcome) = self.sift(run, op, reply.outcome) else { return };
        let Some(live) = self.runs.get_mut(&run) else { return };
        if let (Some(body), Some(Open::Call { call, .. })) = (reply.blob, live.open.get(&op))
            && !found_nothing(call, &outcome)
        {
            let path = call.path.to_string();
            live.blobs.push(Op::Blob { run, path, attempt: call.attempt, body });
        }
        self.turn(run, vec![InputKind::Outcome { op, outcome }]);
    }

    /// Gives what was brought for other runs, until nothing is left.
    pub(super) fn settle(&mut self) {
        while let Some((run, input)) = self.pending.pop_front() {
            self.pass_on(run, input);
        }
    }

    fn begin_queued(&mut self) {
        if self.draining.is_some() || self.takes_nothing() {
            return;
        }
        while self.busy < self.deps.in_flight {
            let Some(row) = self.queue.pop() else { break };
            if let Some(damage) = row.damaged.clone() {
                self.strand(row, &damage);
                continue;
            }
            match self.flow_of(&row) {
                Ok(flow) => {
                    let no = row.no;
                    let url = self.deps.public_url.as_deref();
                    let url = url.map(|base| format!("{}/runs/{}", base.trim_end_matches('/'), row.id));
                    let state = RunState::new(recover::seed(&row));
                    let wanted = self.wants.take(&row.id);
                    self.runs.insert(no, Box::new(Live::new(row, flow, state)));
                    self.turn(no, vec![InputKind::Started { url }]);
                    self.settle();
                    self.give(no, wanted);
                }
                Err(why) => self.stuck(row, why),
            }
        }
        self.read_queue();
    }

    /// A run that can't go on by itself: it waits with the reason, and cancelling ends it.
    pub(super) fn strand(&mut self, mut row: RunRow, reason: &str) {
        tracing::error!(run = %row.id, flow = %row.flow, reason, "the run can't go on");
        // What was uncertain stays so: a person must still find out what the effect did.
        let uncertain = row.status == RunStatus::Uncertain;
        let status = if uncertain { RunStatus::Uncertain } else { RunStatus::Waiting };
        let before = row.reason.take().filter(|_| uncertain).map(|before| format!("; before: {before}"));
        let reason = Some(format!("can't go on: {reason}{}", before.unwrap_or_default()));
        self.write(vec![Op::Status { run: row.no, status, reason: reason.clone() }]);
        row.status = status;
        row.reason = reason;
        self.publish(|| RunEvent::Waiting(Arc::new(row)));
    }

    /// Applies inputs, and all that can be answered at once; writes the turn; sends what needs no commit.
    pub(super) fn turn(&mut self, no: RunNo, inputs: Vec<InputKind>) {
        self.turn_for(no, inputs, None);
    }

    /// As `turn`; `answer` hears when it is on disk.
    pub(super) fn turn_for(&mut self, no: RunNo, inputs: Vec<InputKind>, answer: Option<CancelAnswer>) {
        let Some(mut live) = self.runs.remove(&no) else { return };
        if live.stale {
            return self.keep_stale(live);
        }
        let now = self.deps.clock.now();
        let mut work = Work {
            inputs: VecDeque::from(inputs),
            permits: std::mem::take(&mut live.decided),
            answer,
            ..Work::default()
        };
        while let Some(kind) = work.inputs.pop_front() {
            live.note_input(&kind);
            work.applied.push(kind.clone());
            let applied = guarded(|| {
                for command in apply(&live.flow, &mut live.state, Input { at: now, kind }) {
                    if let Command::Cancel { op } = &command
                        && let Some(Open::Timer(at)) = live.open.get(op)
                    {
                        self.timers.remove(*at, no, *op);
                    }
                    live.note_command(&command);
                    self.carry_out(&mut live, &command, now, &mut work);
                    work.commands.push(command);
                }
                Ok(())
            });
            if let Err(Stuck::Panicked(what) | Stuck::Because(what)) = applied {
                return self.abandon(live, &what);
            }
        }
        self.append(&mut live, now, &mut work);
        live.decided.append(&mut work.permits);
        self.count_busy(&mut live);
        let ended = work.finish.is_some();
        if ended {
            self.forget(live);
        } else {
            self.put_back(live);
        }
        for op in work.reads {
            self.send(no, op);
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
                if !self.hold_lock(live, *op, *destructive, now) && self.locks.acquire(no, *op, target, *destructive) {
                    work.inputs.push_back(InputKind::Locked { op: *op });
                }
            }
            Command::Unlock { target } => self.unlock(no, target),
            Command::Check { op, call } => {
                if !self.hold_check(live, *op, call, now, work) {
                    self.check(live, *op, call, now, work);
                }
            }
            Command::Call { op, call } => {
                if call.effect() == Effect::Read {
                    if !self.hold_read(live, *op, call, now) {
                        work.reads.push(*op);
                    }
                } else {
                    work.intents.push(*op);
                }
                if let Some(Open::Call { permit, .. }) = live.open.get_mut(op) {
                    *permit = guard::read_permit(call).or_else(|| work.permits.remove(&call.path));
                }
            }
            Command::Timer { op, at } => self.timers.add(*at, no, *op),
            Command::Cancel { op } => {
                // A call whose intent is not on disk yet, or that was not handed out, never leaves.
                if let Some(Open::Call { permit, .. }) = live.open.get_mut(op)
                    && permit.take().is_some()
                {
                    let message = "cancelled before it was sent".to_owned();
                    let outcome = Outcome::NotSent { code: "cancelled".into(), message, transient: false };
                    work.inputs.push_back(InputKind::Outcome { op: *op, outcome });
                    work.intents.retain(|intent| intent != op);
                }
                if let Some((run, op)) = self.locks.cancel(no, *op) {
                    self.pending.push_back((run, InputKind::Locked { op }));
                }
            }
            Command::Once { op, key, until } => {
                if self.mode(live) == Mode::Shadow {
                    work.inputs.push_back(InputKind::Once { op: *op, claimed: true });
                } else {
                    work.claims.push(*op);
                    work.ops.push(Op::Claim { key: key.to_string(), run: no, at: now, until: *until });
                }
            }
            // In shadow nothing was claimed, and another run's claim is not ours to free.
            Command::OnceRelease { .. } if self.mode(live) == Mode::Shadow => {}
            Command::OnceRelease { key } => work.ops.push(Op::Release { key: key.to_string(), run: no }),
            // The row's status follows from what the run waits for; see `append`.
            Command::Park { .. } => {}
            Command::Finish(finish) => work.finish = Some(finish.clone()),
        }
    }

    pub(super) fn check(&mut self, live: &mut Live, op: OpId, call: &Call, now: Timestamp, work: &mut Work) {
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

    /// How far the run's effects go now: the installation's word, and what the flow that it is pinned to allows itself.
    pub(super) fn mode(&self, live: &Live) -> Mode {
        self.mode_of(&live.row.flow, live.flow.mode)
    }

    pub(super) fn mode_of(&self, flow: &str, own: Option<Mode>) -> Mode {
        let given = self.deps.registry.mode(flow);
        own.map_or(given, |own| own.min(given))
    }

    fn asker(&self, live: &Live, now: Timestamp) -> Asker {
        Asker {
            run: live.row.id.clone(),
            flow: live.row.flow.clone(),
            mode: self.mode(live),
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
        if let Err(outcome) = &facts
            && self.sift_facts(no, op, &call, outcome)
        {
            return;
        }
        let Some(live) = self.runs.get(&no) else { return };
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
        if work.finish.is_none() {
            ops.extend(self.restate(live));
            ops.extend(self.resleep(live, now));
        }
        live.seq += 1;
        let claims_at = ops.len();
        ops.append(&mut work.ops);
        ops.append(&mut live.blobs);
        if let Some(finish) = &work.finish {
            ops.push(finish_op(live, finish, now));
            ops.extend(self.deps.registry.ended(&live.row, now));
        }
        let after = After {
            run: no,
            id: live.row.id.clone(),
            calls: std::mem::take(&mut work.intents),
            claims: std::mem::take(&mut work.claims),
            claims_at,
            answer: work.answer.take(),
            sleeps: (work.finish.is_none() && live.sleep != Some(Sleep::Awake)).then_some(live.seq),
        };
        let urgent = !after.calls.is_empty() || !after.claims.is_empty() || after.answer.is_some();
        self.submit(Batch { ops, urgent, done: Some(after.done(self.sender.clone())) });
    }

    /// The row's status as the run stands now, where it differs from what is written.
    pub(super) fn restate(&mut self, live: &mut Live) -> Option<Op> {
        let (status, reason) = live.standing();
        if status == live.row.status && reason == live.row.reason {
            return None;
        }
        live.row.status = status;
        live.row.reason.clone_from(&reason);
        if live.is_parked() {
            self.publish(|| RunEvent::Waiting(Arc::new(live.row.clone())));
        }
        Some(Op::Status { run: live.row.no, status, reason })
    }

    /// The row's word on the run's sleep, where it differs from what is written.
    fn resleep(&self, live: &mut Live, now: Timestamp) -> Option<Op> {
        let sleep = self.sleep_of(live, now);
        let known = live.sleep.replace(sleep);
        (known != Some(sleep)).then_some(Op::Sleep { run: live.row.no, sleep })
    }

    pub(super) fn send(&mut self, no: RunNo, op: OpId) {
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
        live.sent.insert(op);
        let sending = Sending { sender: self.sender.clone(), run: no, op, answered: false };
        tokio::spawn(sending.go(Arc::clone(&self.deps.client), permit, live.row.id.clone(), Arc::clone(call)));
    }

    pub(super) fn forget(&mut self, mut live: Box<Live>) {
        let no = live.row.no;
        self.sleepers.came_back(no);
        self.count_nap(&mut live, true);
        self.count_near(&mut live, true);
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
        for (at, op) in live.timers() {
            self.timers.remove(at, no, op);
        }
        self.pending.retain(|(run, _)| *run != no);
        if live.row.status.is_final() {
            for wanted in self.wants.take(&live.row.id) {
                wanted.refuse(&ended(&live.row));
            }
            self.publish(|| RunEvent::Ended(Arc::new(live.row)));
        }
    }

    pub(super) fn count_busy(&mut self, live: &mut Live) {
        let busy = live.calls();
        if busy != live.busy {
            self.busy = if busy { self.busy + 1 } else { self.busy - 1 };
            live.busy = busy;
        }
        self.count_nap(live, false);
    }

    fn fire_due(&mut self) {
        let now = self.deps.clock.now();
        for _ in 0..BATCH {
            let Some((no, op)) = self.timers.due(now) else { return };
            if self.runs.get(&no).is_some_and(|live| matches!(live.open.get(&op), Some(Open::Timer(_)))) {
                self.turn(no, vec![InputKind::Fired { op }]);
            } else {
                self.tire(no, op, now);
            }
            self.settle();
        }
    }

    /// How long the loop may sleep. Bounded, so that a clock that was set forward is noticed.
    fn until_next_timer(&self) -> std::time::Duration {
        let most = std::time::Duration::from_secs(30);
        let next = self.timers.next().into_iter().chain(self.next_sleeper()).chain(self.next_ask()).min();
        let Some(at) = next else { return most };
        self.deps.clock.until(at).min(most)
    }

    fn drained(&mut self) -> bool {
        if self.draining.is_none() || self.busy > 0 {
            return false;
        }
        // Drained is who has written what was answered, too.
        if let Some(answer) = self.draining.take() {
            let done = move |_| {
                let _ = answer.send(());
            };
            self.submit(Batch { ops: Vec::new(), urgent: true, done: Some(Box::new(done)) });
        }
        true
    }

    /// A batch for the store. It goes with all others of this round of the loop, so that its writer is woken once.
    pub(super) fn submit(&mut self, batch: Batch) {
        self.outbox.push(batch);
    }

    pub(super) fn flush(&mut self) {
        if !self.outbox.is_empty() {
            self.deps.store.write_all(std::mem::take(&mut self.outbox));
        }
    }

    pub(super) fn write(&mut self, ops: Vec<Op>) {
        let sender = self.sender.clone();
        let done = move |result: Result<Vec<Answer>, crate::journal::StoreError>| match result {
            Ok(answers) => hand_over(&answers, &sender),
            Err(error) => tracing::error!(%error, "writing to the store failed"),
        };
        self.submit(Batch { ops, urgent: false, done: Some(Box::new(done)) });
    }

    /// Tells subscribers; where there is none, the event is not even made.
    pub(super) fn publish(&mut self, event: impl FnOnce() -> RunEvent) {
        if self.subscribers.is_empty() {
            return;
        }
        let event = event();
        self.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }
}

/// A look-up that found nothing tells people nothing that the turn does not say.
fn found_nothing(call: &Call, outcome: &Outcome) -> bool {
    let Outcome::Done { output, .. } = outcome else { return false };
    call.purpose == Purpose::Look && output.get("value").and_then(Value::as_list).is_some_and(<[Value]>::is_empty)
}

/// What one turn gathers.
#[derive(Default)]
pub(super) struct Work {
    pub(super) inputs: VecDeque<InputKind>,
    pub(super) applied: Vec<InputKind>,
    pub(super) commands: Vec<Command>,
    pub(super) ops: Vec<Op>,
    /// Reads, which may go before the commit.
    pub(super) reads: Vec<OpId>,
    /// Calls that go when the turn is on disk.
    pub(super) intents: Vec<OpId>,
    pub(super) claims: Vec<OpId>,
    pub(super) answer: Option<CancelAnswer>,
    /// The guard's permits for the calls that the engine derives from its verdicts, by path.
    pub(super) permits: BTreeMap<Arc<str>, guard::Permit>,
    pub(super) finish: Option<Finish>,
}

/// What a turn's commit sets going.
pub(super) struct After {
    pub(super) run: RunNo,
    pub(super) id: RunId,
    pub(super) calls: Vec<OpId>,
    pub(super) claims: Vec<OpId>,
    /// Where the answers of the claims begin among the batch's.
    pub(super) claims_at: usize,
    pub(super) answer: Option<CancelAnswer>,
    /// The run may sleep when this is on disk, unless it has another turn by then.
    pub(super) sleeps: Option<u32>,
}

impl After {
    /// Calls may go, claims are answered in the order in which they were asked, a person hears.
    pub(super) fn done(self, sender: mpsc::UnboundedSender<Msg>) -> crate::journal::Done {
        let After { run, id, calls, claims, claims_at, answer, sleeps } = self;
        Box::new(move |result| match result {
            Ok(answers) => {
                if !calls.is_empty() {
                    drop(sender.send(Msg::Committed { run, calls }));
                }
                hand_over(&answers, &sender);
                let answers = answers.into_iter().skip(claims_at).filter_map(|answer| match answer {
                    Answer::Claimed(claimed) => Some(claimed),
                    _ => None,
                });
                for (op, claimed) in claims.into_iter().zip(answers) {
                    drop(sender.send(Msg::Claimed { run, op, claimed }));
                }
                if let Some(answer) = answer {
                    let _ = answer.send(Ok(()));
                }
                if let Some(seq) = sleeps {
                    drop(sender.send(Msg::Sleeps { run, seq }));
                }
            }
            Err(error) => {
                if let Some(answer) = answer {
                    let _ = answer.send(Err(error.to_string()));
                }
                drop(sender.send(Msg::NotWritten { run, id, error: error.to_string() }));
            }
        })
    }
}

/// Runs that the end of another one has started.
pub(super) fn hand_over(answers: &[Answer], sender: &mpsc::UnboundedSender<Msg>) {
    let started = answers.iter().filter_map(|answer| match answer {
        Answer::Offered(Some(row)) => Some((**row).clone()),
        _ => None,
    });
    let started: Vec<RunRow> = started.collect();
    if !started.is_empty() {
        drop(sender.send(Msg::Started(started)));
    }
}

pub(super) fn ended(row: &RunRow) -> String {
    format!("run {} has ended: {}", row.id, row.status.as_str())
}

pub(super) type CancelAnswer = oneshot::Sender<Result<(), String>>;

pub(super) fn finish_op(live: &mut Live, finish: &Finish, now: Timestamp) -> Op {
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

pub(super) fn message(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { .. } => "no error".to_owned(),
        Outcome::Refused { message, .. } | Outcome::NotSent { message, .. } | Outcome::Unknown { message, .. } => {
            message.clone()
        }
    }
}
