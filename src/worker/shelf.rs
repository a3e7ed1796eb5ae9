//! Runs that wait for others leave memory, as sleepers do: for a target, for a place in their group, for the end of a pause or
//! of an outage. What stays is their place in the queue that they wait in, and what they hold; when they have their turn
//! they are read, and go on.
//!
//! The first few stay in memory, since they go on soon. On disk a run that holds nothing is one that sleeps until an instant
//! that has passed: a start reads it after all that hold something, a few at a time. One that holds something is awake.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use super::Msg;
use super::hold::OnHold;
use super::live::{HELD_BACK, Live, Open};
use super::run_loop::Loop;
use super::sleep::{SLICE, SLICES};
use crate::catalog::Effect;
use crate::engine::InputKind;
use crate::flow::model::Mode;
use crate::guard;
use crate::id::OpId;
use crate::journal::{Batch, Op, RunNo, Sleep};

/// The runs that wait on disk.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    runs: HashMap<RunNo, Shelved>,
    /// Whose turn it is: they are to be read.
    wanted: VecDeque<RunNo>,
    /// Runs in memory that could be here.
    near: usize,
}

/// What is kept of a run that waits on disk.
#[derive(Debug)]
pub(super) struct Shelved {
    op: OpId,
    waits: Waits,
    flow: Arc<str>,
    /// How far its flow's file lets effects go.
    own: Option<Mode>,
    /// The group in which it has or wants a place.
    group: Option<Arc<str>>,
    /// Until when it waits for a connection that fails.
    patience: Option<Timestamp>,
    /// What it is to be given when it was read.
    inputs: Vec<InputKind>,
    /// What held it holds it no more.
    goes: bool,
}

/// What a run waits for.
#[derive(Debug)]
enum Waits {
    /// Its target, or a place in its group: the queue of that names it.
    Turn,
    Held {
        /// That it would use; nothing where it would ask for its target.
        connection: Option<Arc<str>>,
        effect: Effect,
        since: Timestamp,
    },
}

/// What a held operation would do, for whoever asks if it may.
pub(super) struct Wish<'a> {
    pub(super) flow: &'a Arc<str>,
    pub(super) own: Option<Mode>,
    pub(super) connection: Option<&'a Arc<str>>,
    pub(super) effect: Effect,
}

impl Shelf {
    /// What a run here holds back, unless it has its turn already.
    pub(super) fn wish(&self, no: RunNo, op: OpId) -> Option<Wish<'_>> {
        let shelved = self.runs.get(&no).filter(|shelved| shelved.op == op && !shelved.goes)?;
        let Waits::Held { connection, effect, .. } = &shelved.waits else { return None };
        Some(Wish { flow: &shelved.flow, own: shelved.own, connection: connection.as_ref(), effect: *effect })
    }

    /// A run that was read, or is given up.
    pub(super) fn take(&mut self, no: RunNo) -> Option<Shelved> {
        self.runs.remove(&no)
    }
}

impl Live {
    /// Whether it waits for others with all that it does, and nothing of it is in memory alone but why it is held.
    pub(super) fn queues(&self) -> bool {
        let waits = |(op, open): (&OpId, &Open)| match open {
            Open::Lock { .. } | Open::Enter { .. } => true,
            Open::Call { .. } | Open::Check(_) => self.on_hold.contains_key(op),
            Open::Timer(_) | Open::Once { .. } | Open::Park { .. } => false,
        };
        self.open.len() == 1
            && self.open.iter().all(waits)
            && self.sent.is_empty()
            && self.blobs.is_empty()
            && self.decided.is_empty()
            && !self.stale
    }
}

impl Loop {
    /// Puts a run that goes on, or waits, back among those in memory. Where enough wait there already, it leaves when all that
    /// was written of it is on disk.
    pub(super) fn put_back(&mut self, mut live: Box<Live>) {
        self.count_near(&mut live, false);
        if live.near && self.shelf.near > self.deps.in_flight && live.leaves != Some(live.seq) {
            live.leaves = Some(live.seq);
            let (run, seq, sender) = (live.row.no, live.seq, self.sender.clone());
            let sleep = Sleep::Until(live.row.accepted);
            let mut ops = Vec::new();
            if live.held.is_empty() && !live.entered() && live.sleep.replace(sleep) != Some(sleep) {
                ops.push(Op::Sleep { run, sleep });
            }
            // Where it fails the run stays; its next turn says anew whether it sleeps.
            let done = move |result: Result<_, _>| {
                if result.is_ok() {
                    drop(sender.send(Msg::Sleeps { run, seq }));
                }
            };
            self.submit(Batch { ops, urgent: false, done: Some(Box::new(done)) });
        }
        self.runs.insert(live.row.no, live);
    }

    pub(super) fn count_near(&mut self, live: &mut Live, gone: bool) {
        let near = !gone && live.queues();
        if near != live.near {
            self.shelf.near = if near { self.shelf.near + 1 } else { self.shelf.near.saturating_sub(1) };
            live.near = near;
        }
    }

    /// All that was written of a run is on disk: it leaves, and keeps its place in its queue and what it holds.
    pub(super) fn shelve(&mut self, no: RunNo) {
        let Some(mut live) = self.runs.remove(&no) else { return };
        let Some((op, waits)) = self.waits_of(&live) else { return drop(self.runs.insert(no, live)) };
        self.count_near(&mut live, true);
        let flow = Arc::clone(&live.flow.name);
        let (own, group) = (live.flow.mode, live.group.take());
        let patience = live.patience.get(&op).copied();
        self.shelf.runs.insert(no, Shelved { op, waits, flow, own, group, patience, inputs: Vec::new(), goes: false });
    }

    fn waits_of(&self, live: &Live) -> Option<(OpId, Waits)> {
        let (op, open) = live.open.iter().next()?;
        let held = |connection: Option<&Arc<str>>, effect| {
            let since = live.on_hold.get(op)?.since;
            Some(Waits::Held { connection: connection.cloned(), effect, since })
        };
        let waits = match open {
            Open::Enter { .. } => Waits::Turn,
            Open::Lock { destructive, .. } => {
                let effect = if *destructive { Effect::Destructive } else { Effect::Write };
                held(None, effect).unwrap_or(Waits::Turn)
            }
            Open::Call { call, .. } | Open::Check(call) => held(Some(&call.connection), self.deps.guard.effect(call))?,
            _ => return None,
        };
        Some((*op, waits))
    }

    /// Gives a run an input; one that waits on disk has it when it was read.
    pub(super) fn pass_on(&mut self, no: RunNo, input: InputKind) {
        match self.shelf.runs.get_mut(&no) {
            Some(shelved) => {
                shelved.inputs.push(input);
                self.fetch(no);
            }
            None => self.turn(no, vec![input]),
        }
    }

    /// A held operation of a run on disk has its turn.
    pub(super) fn goes(&mut self, no: RunNo) {
        if let Some(shelved) = self.shelf.runs.get_mut(&no) {
            shelved.goes = true;
            self.fetch(no);
        }
    }

    pub(super) fn fetch(&mut self, no: RunNo) {
        if self.sleepers.wake(no) {
            self.shelf.wanted.push_back(no);
        }
    }

    /// Has those read whose turn it is.
    pub(super) fn read_shelved(&mut self) {
        while self.draining.is_none() && !self.shelf.wanted.is_empty() && self.sleepers.has_room(SLICES) {
            let most = self.shelf.wanted.len().min(SLICE);
            let numbers: Vec<RunNo> = self.shelf.wanted.drain(..most).collect();
            self.sleepers.begin_slice();
            self.read_due(numbers);
        }
    }

    /// A run that was read stands as it stood, and goes on with what it was given meanwhile.
    pub(super) fn take_down(&mut self, no: RunNo, shelved: Shelved) {
        let now = self.deps.clock.now();
        let Some(live) = self.runs.get_mut(&no) else { return };
        let Shelved { op, waits, patience, inputs, goes, .. } = shelved;
        if let Some(until) = patience {
            live.patience.insert(op, until);
            self.timers.add(until, no, op);
        }
        if let Waits::Held { since, .. } = waits {
            let reason = live.row.reason.as_deref().unwrap_or_default();
            let reason = reason.strip_prefix(HELD_BACK).unwrap_or(reason).to_owned();
            live.on_hold.insert(op, OnHold { reason, since });
            if let Some(Open::Call { call, permit }) = live.open.get_mut(&op) {
                *permit = guard::read_permit(call);
            }
        }
        self.recount_busy(no);
        self.pending.extend(inputs.into_iter().map(|input| (no, input)));
        if goes {
            self.go_on(no, op, now);
        }
    }

    /// A run that can't go on gives up its place, and what it holds.
    pub(super) fn give_up(&mut self, no: RunNo) {
        let Some(shelved) = self.shelf.take(no) else { return };
        for (run, op) in self.locks.release_all(no) {
            self.pending.push_back((run, InputKind::Locked { op }));
        }
        if let Some(key) = &shelved.group
            && let Some((run, op)) = self.groups.leave(key, no)
        {
            self.pending.push_back((run, InputKind::Entered { op, entered: true }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use futures_util::future::BoxFuture;
    use jiff::SignedDuration;

    use super::super::tests::{Desk, until};
    use super::super::{Load, Worker};
    use crate::connector::client::{Reply, Sends};
    use crate::engine::{Call, Outcome, Purpose};
    use crate::guard::Permit;
    use crate::guard::breaker::Heard;
    use crate::guard::hold::{Pause, Scope};
    use crate::id::RunId;
    use crate::journal::{RunQuery, RunRow, RunStatus, Store};
    use crate::value::{Map, Value};

    use super::*;

    const DEVICE: &str = "0000000000000000000000000000000000000001";

    /// Scans a device, or isolates it.
    fn acts() -> String {
        let action = |name: &str| {
            format!("[ {{ action: {name}, connection: mde, with: {{ machine_id: \"{DEVICE}\", comment: c }} }} ]")
        };
        format!(
            "flow: f\nowner: o@contoso.example\ntrigger: {{ type: manual }}\ninputs: {{ contain: bool }}\nsteps:\n  - if: \
             inputs.contain\n    then: {}\n    else: {}\n",
            action("mde.isolate_machine"),
            action("mde.run_antivirus_scan")
        )
    }

    const READS: &str = "
flow: f
owner: o@contoso.example
trigger: { type: manual }
steps:
  - { action: mde.get_machine, connection: mde, with: { machine_id: \"0000000000000000000000000000000000000001\" } }
";

    /// A service that is slow while the door is shut, and its book of what came in, in order.
    struct Service {
        door: tokio::sync::watch::Sender<bool>,
        /// Whether it tells what a device is.
        facts: tokio::sync::watch::Sender<bool>,
        looks: Mutex<usize>,
        book: Mutex<Vec<(RunId, String)>>,
    }

    impl Service {
        fn new(open: bool) -> Arc<Service> {
            let [door, facts] = [open, true].map(|open| tokio::sync::watch::channel(open).0);
            Arc::new(Service { door, facts, looks: Mutex::default(), book: Mutex::default() })
        }

        fn open(&self) {
            self.door.send_replace(true);
        }

        /// Which runs' effects or reads came in; looks are left out.
        fn book(&self) -> Vec<(RunId, String)> {
            self.book.lock().unwrap().clone()
        }
    }

    struct Line(Arc<Service>);

    impl Sends for Line {
        fn send(&self, _: Permit, run: &RunId, call: Arc<Call>) -> BoxFuture<'static, Reply> {
            if call.purpose == Purpose::Look {
                *self.0.looks.lock().unwrap() += 1;
            }
            if call.purpose == Purpose::Main {
                self.0.book.lock().unwrap().push((run.clone(), call.action.name.to_string()));
            }
            let mut door = self.0.door.subscribe();
            Box::pin(async move {
                let _opened = door.wait_for(|open| *open).await;
                let output = Value::object([("id", Value::str("m")), ("value", Value::list(vec![]))]);
                Reply { outcome: Outcome::Done { status: 200, output }, blob: None, took: Duration::ZERO }
            })
        }

        fn fetch(&self, _: &str, _: &str, _: Map) -> BoxFuture<'static, Result<Value, Outcome>> {
            let mut facts = self.0.facts.subscribe();
            Box::pin(async move {
                let _told = facts.wait_for(|told| *told).await;
                Ok(Value::object([("id", Value::str(DEVICE)), ("tags", Value::list(vec![]))]))
            })
        }
    }

    async fn worker(desk: &Desk, service: &Arc<Service>) -> Worker {
        desk.worker_of(Arc::new(Line(Arc::clone(service)))).await
    }

    fn contains(key: u32) -> Value {
        Value::object([("contain", Value::Bool(key % 10 == 7))])
    }

    /// As many stay in memory as may make calls at a time (2), beside those that make them or have their turn.
    fn few(load: Load) -> bool {
        load.live <= 5 && load.queued == 0
    }

    fn ids(rows: &[RunRow]) -> Vec<RunId> {
        rows.iter().map(|row| row.id.clone()).collect()
    }

    #[tokio::test]
    async fn who_waits_for_a_target_leaves_memory_and_has_it_in_order() {
        let (desk, service) = (Desk::new(&acts()), Service::new(false));
        let worker = worker(&desk, &service).await;
        let rows = desk.accept_with(0..40, contains).await;
        let all = ids(&rows);
        worker.accepted(rows);
        until("all but a few wait on disk", &worker, |load| few(load) && desk.with(RunStatus::Queued) == 0).await;
        service.open();
        until("all end", &worker, |_| desk.with(RunStatus::Succeeded) == 40).await;
        // The first had the target when the others came; then containment in the order in which it was asked for, and then
        // the others.
        let contain = |nth: &usize| nth % 10 == 7;
        let order = std::iter::once(0).chain((1..40).filter(contain)).chain((1..40).filter(|nth| !contain(nth)));
        let wanted: Vec<RunId> = order.map(|nth| all[nth].clone()).collect();
        let came: Vec<RunId> = service.book().into_iter().map(|(run, _)| run).collect();
        assert_eq!(came, wanted);
        assert_eq!(worker.load().await.live, 0);
    }

    #[tokio::test]
    async fn who_waits_for_a_place_in_its_group_leaves_memory_and_has_it_in_order() {
        let flow = READS.replace("type: manual", "type: manual, concurrency: { max: 1 }");
        let (desk, service) = (Desk::new(&flow), Service::new(false));
        let worker = worker(&desk, &service).await;
        let rows = desk.accept_with(0..40, |_| Value::empty()).await;
        let all = ids(&rows);
        worker.accepted(rows);
        until("all but a few wait on disk", &worker, |load| few(load) && desk.with(RunStatus::Queued) == 0).await;
        service.open();
        until("all end", &worker, |_| desk.with(RunStatus::Succeeded) == 40).await;
        assert_eq!(service.book().into_iter().map(|(run, _)| run).collect::<Vec<_>>(), all);
    }

    #[tokio::test]
    async fn who_cancels_those_that_run_cancels_them_on_disk_too() {
        let group = "type: manual, concurrency: { max: 30, on_full: cancel_running }";
        let (desk, service) = (Desk::new(&acts().replace("type: manual", group)), Service::new(false));
        let worker = worker(&desk, &service).await;
        worker.accepted(desk.accept_with(0..30, |_| contains(0)).await);
        until("all but a few wait on disk", &worker, |load| few(load) && desk.with(RunStatus::Queued) == 0).await;
        worker.accepted(desk.accept_with(30..31, |_| contains(0)).await);
        // The first one's call was sent, and is waited for.
        until("the others are cancelled", &worker, |_| desk.with(RunStatus::Cancelled) >= 29).await;
        service.open();
        until("the last one ends", &worker, |_| {
            desk.with(RunStatus::Succeeded) + desk.with(RunStatus::Cancelled) == 31
        })
        .await;
        let last = desk.store.runs(&RunQuery::default()).unwrap().remove(0);
        assert_eq!(last.status, RunStatus::Succeeded);
    }

    async fn pause(desk: &Desk, scope: Scope) {
        let pause = Pause { scope, reason: String::new(), by: "jane".into(), at: desk.clock().now() };
        desk.holds().pause(&*desk.store, pause).await.unwrap();
    }

    async fn resume(desk: &Desk, scope: &Scope) {
        desk.holds().resume(&*desk.store, scope, "jane", desk.clock().now()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_is_held_by_a_pause_leaves_memory_and_goes_on_in_order_when_it_is_lifted() {
        let (desk, service) = (Desk::new(READS), Service::new(true));
        let worker = worker(&desk, &service).await;
        let scope = Scope::Connection("mde".into());
        pause(&desk, scope.clone()).await;
        let rows = desk.accept_with(0..40, |_| Value::empty()).await;
        let all = ids(&rows);
        worker.accepted(rows);
        until("all but a few wait on disk", &worker, |load| few(load) && desk.with(RunStatus::Waiting) == 40).await;
        // Another pause, and one of them lifted: they are held as before, and say by what.
        pause(&desk, Scope::All).await;
        resume(&desk, &scope).await;
        for _ in 0..50 {
            assert!(few(worker.load().await));
        }
        // A person ends one of them.
        worker.cancel(all[20].clone(), "jane".into(), String::new()).await.unwrap();
        assert_eq!(service.book(), []);
        resume(&desk, &Scope::All).await;
        until("all others end", &worker, |_| desk.with(RunStatus::Succeeded) == 39).await;
        let wanted: Vec<RunId> =
            all.iter().enumerate().filter(|(nth, _)| *nth != 20).map(|(_, id)| id.clone()).collect();
        assert_eq!(
            service.book().into_iter().map(|(run, _)| run).collect::<Vec<_>>(),
            wanted,
            "in order, and once each"
        );
    }

    #[tokio::test]
    async fn a_restart_goes_on_with_who_waited_on_disk() {
        let (desk, service) = (Desk::new(&acts()), Service::new(true));
        let first = worker(&desk, &service).await;
        let scope = Scope::Flow("f".into());
        pause(&desk, scope.clone()).await;
        first.accepted(desk.accept_with(0..40, contains).await);
        until("all but a few wait on disk", &first, |load| few(load) && desk.with(RunStatus::Waiting) == 40).await;
        first.drain().await;
        let second = worker(&desk, &service).await;
        assert!(few(second.load().await), "all of them were replayed at the start");
        until("they wait as before", &second, |load| few(load) && desk.with(RunStatus::Waiting) == 40).await;
        assert_eq!(service.book(), []);
        resume(&desk, &scope).await;
        until("all end", &second, |_| desk.with(RunStatus::Succeeded) == 40).await;
        let mut came = service.book();
        came.sort();
        came.dedup();
        assert_eq!(came.len(), 40);
        assert!(desk.store.sleepers().unwrap().is_empty());
    }

    /// Another run may have had the target meanwhile, however short the time was.
    #[tokio::test]
    async fn what_was_looked_at_before_a_restart_is_looked_at_again() {
        let (mut desk, service) = (Desk::new(&acts()), Service::new(true));
        desk.config = "store: { path: ./data }\nflows: [./flows]\nprotected: { devices: [{ tag: no-automation }] }\n";
        service.facts.send_replace(false);
        let first = worker(&desk, &service).await;
        first.accepted(desk.accept_with(0..1, |_| contains(7)).await);
        let looks = || *service.looks.lock().unwrap();
        until("it was looked at, and what it is is asked", &first, |_| {
            looks() == 1 && desk.store.turns(1).unwrap().len() == 2
        })
        .await;
        drop(first);
        service.facts.send_replace(true);
        let second = worker(&desk, &service).await;
        until("it ends", &second, |_| desk.with(RunStatus::Succeeded) == 1).await;
        assert_eq!((looks(), service.book().len()), (2, 1));
    }

    #[tokio::test]
    async fn who_waits_for_a_connection_leaves_memory_and_is_let_go_with_it() {
        // One of two flows of errors: with a time of its own, or without one.
        for (handled, ends) in [(false, 40), (true, 0)] {
            let flow = if handled {
                READS.replace("mde, with", "mde, timeout: 1m, on_error: continue, with")
            } else {
                READS.into()
            };
            let (desk, service) = (Desk::new(&flow), Service::new(true));
            let worker = worker(&desk, &service).await;
            let mde: Arc<str> = "mde".into();
            let failed = Heard::of(&Outcome::Unknown { status: 503, code: "x".into(), message: "away".into() });
            for _ in 0..20 {
                desk.holds().heard(&mde, &failed, 0, true, desk.clock().now());
            }
            assert!(desk.holds().is_open("mde"));
            worker.accepted(desk.accept_with(0..40, |_| Value::empty()).await);
            until("all but a few wait on disk", &worker, |load| few(load) && desk.with(RunStatus::Waiting) == 40).await;
            if handled {
                desk.pass(SignedDuration::from_secs(61));
                until("all have waited long enough", &worker, |_| desk.with(RunStatus::Succeeded) == 40).await;
            } else {
                let mut asked = 0;
                while desk.with(RunStatus::Succeeded) < 40 {
                    desk.pass(SignedDuration::from_secs(30));
                    desk.holds().heard(&mde, &Heard::Answered, 0, true, desk.clock().now());
                    worker.load().await;
                    asked += 1;
                    assert!(asked < 10_000, "{} have ended", desk.with(RunStatus::Succeeded));
                }
            }
            assert!(service.book().len() >= ends, "{}", service.book().len());
            assert_eq!(worker.load().await.live, 0);
        }
    }
}
