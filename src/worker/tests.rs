//! The loop over a store in memory and a clock that the test drives: what sleeps, what comes back, what a person ends.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::catalog::Catalog;
use crate::check::{World, check};
use crate::config::Config;
use crate::diag::Source;
use crate::guard::Holds;
use crate::journal::memory::MemoryStore;
use crate::journal::{self, Answer, Offer, Op, RunQuery, RunStatus};

const WAITS: &str = "
flow: f
owner: o@contoso.example
trigger: { type: manual }
steps:
  - { wait: 1h }
  - { wait: 2h }
";

/// With a bug, while that is switched on.
struct Flows(Arc<CheckedFlow>, Arc<AtomicBool>);

impl Registry for Flows {
    fn flow(&self, _: &str, version: &str) -> Result<Arc<CheckedFlow>, String> {
        assert!(!self.1.load(Ordering::SeqCst), "a bug that a test put here");
        if *self.0.version == *version { Ok(Arc::clone(&self.0)) } else { Err("there is no such version".into()) }
    }

    fn mode(&self, _: &str) -> Mode {
        Mode::Live
    }

    /// The end of each run of a flow that says so starts one more.
    fn ended(&self, row: &RunRow, now: Timestamp) -> Vec<Op> {
        let follow = || Offer {
            flow: Arc::clone(&self.0.name),
            version: Arc::clone(&self.0.version),
            trigger: "flow.finished".into(),
            key: format!("end:{}", row.key),
            accepted: now,
            occurred: now,
            payload: Value::empty(),
            inputs: Value::empty(),
        };
        let follows = &*self.0.description == "followed" && !row.key.starts_with("end:");
        follows.then(|| Op::Offer(Box::new(follow()))).into_iter().collect()
    }
}

/// A service that answers nothing until the door is opened.
struct Door(tokio::sync::watch::Receiver<bool>);

impl Sends for Door {
    fn send(&self, _: Permit, _: &RunId, _: Arc<crate::engine::Call>) -> BoxFuture<'static, Reply> {
        let mut open = self.0.clone();
        Box::pin(async move {
            let _opened = open.wait_for(|open| *open).await;
            let output = Value::object([("id", Value::str("m"))]);
            Reply { outcome: Outcome::Done { status: 200, output }, blob: None, took: Duration::ZERO }
        })
    }

    fn fetch(&self, _: &str, _: &str, _: crate::value::Map) -> BoxFuture<'static, Result<Value, Outcome>> {
        Box::pin(async { Ok(Value::empty()) })
    }
}

const CONFIG: &str = "store: { path: ./data }\nflows: [./flows]\n";

/// A store, a flow and a clock; workers come and go.
pub(super) struct Desk {
    pub(super) store: Arc<MemoryStore>,
    flow: Arc<CheckedFlow>,
    now: Arc<Mutex<Timestamp>>,
    bug: Arc<AtomicBool>,
    holds: Arc<Holds>,
    pub(super) config: &'static str,
}

impl Desk {
    pub(super) fn new(flow: &str) -> Self {
        let catalog = Catalog::builtin().unwrap();
        let include = |_: &str| Err("nothing is included".to_owned());
        let called = |_: &str| None;
        let world = World { catalog: &catalog, connections: None, webhooks: None, include: &include, called: &called };
        let (flow, faults) = check(&Source::new("f.yaml", flow), &world, true);
        let flow = Arc::new(flow.unwrap_or_else(|| panic!("{faults:?}")));
        let now = Arc::new(Mutex::new("2026-11-24T08:00:00Z".parse().unwrap()));
        Desk {
            store: Arc::new(MemoryStore::new()),
            flow,
            now,
            bug: Arc::default(),
            holds: Arc::default(),
            config: CONFIG,
        }
    }

    pub(super) fn clock(&self) -> Clock {
        let now = Arc::clone(&self.now);
        Clock::from_fn(move || *now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another life finds out for itself what fails.
    pub(super) fn holds(&self) -> &Arc<Holds> {
        &self.holds
    }

    pub(super) fn pass(&self, time: SignedDuration) {
        *self.now.lock().unwrap() += time;
    }

    async fn worker(&self) -> Worker {
        let (_closed, door) = tokio::sync::watch::channel(false);
        self.worker_with(Door(door)).await
    }

    async fn worker_with(&self, door: Door) -> Worker {
        self.worker_of(Arc::new(door)).await
    }

    pub(super) async fn worker_of(&self, client: Arc<dyn Sends>) -> Worker {
        let config = Config::parse(self.config, "config.yaml", Path::new(".")).unwrap();
        let deps = Deps {
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            client,
            guard: Guard::new(&config, Vec::new()).holding(Arc::clone(&self.holds)),
            registry: Arc::new(Flows(Arc::clone(&self.flow), Arc::clone(&self.bug))),
            clock: self.clock(),
            public_url: None,
            in_flight: 2,
        };
        Worker::start(deps).await.unwrap()
    }

    /// Accepts runs on disk; whether anybody hears of them is the caller's.
    async fn accept(&self, keys: std::ops::Range<u32>) -> Vec<RunRow> {
        self.accept_with(keys, |_| Value::empty()).await
    }

    pub(super) async fn accept_with(&self, keys: std::ops::Range<u32>, inputs: impl Fn(u32) -> Value) -> Vec<RunRow> {
        let offer = |key: u32| Offer {
            flow: Arc::clone(&self.flow.name),
            version: Arc::clone(&self.flow.version),
            trigger: "manual".into(),
            key: key.to_string(),
            accepted: self.clock().now(),
            occurred: self.clock().now(),
            payload: Value::empty(),
            inputs: inputs(key),
        };
        let ops = keys.map(|key| Op::Offer(Box::new(offer(key)))).collect();
        let answers = journal::commit(&*self.store, ops).await.unwrap();
        let row = |answer| match answer {
            Answer::Offered(Some(row)) => *row,
            other => panic!("{other:?}"),
        };
        answers.into_iter().map(row).collect()
    }

    pub(super) fn with(&self, status: RunStatus) -> usize {
        self.store.runs(&RunQuery { status: Some(status), ..RunQuery::default() }).unwrap().len()
    }

    fn asleep(&self) -> usize {
        self.store.sleepers().unwrap().len()
    }
}

/// Asking the loop how much is going on makes it look at the clock.
pub(super) async fn until(what: &str, worker: &Worker, mut holds: impl FnMut(Load) -> bool) {
    let watch = crate::clock::stopwatch();
    while !holds(worker.load().await) {
        assert!(watch.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
    }
}

#[tokio::test]
async fn who_waits_for_a_timer_leaves_memory_and_goes_on_when_it_is_due() {
    let desk = Desk::new(WAITS);
    let worker = desk.worker().await;
    // More than fit into the window at once.
    worker.accepted(desk.accept(0..50).await);
    until("all sleep", &worker, |load| load.live == 0 && desk.asleep() == 50).await;
    desk.pass(SignedDuration::from_mins(59));
    for _ in 0..100 {
        assert_eq!((worker.load().await.live, desk.with(RunStatus::Running)), (0, 50));
    }
    desk.pass(SignedDuration::from_mins(2));
    let later = desk.clock().now() + SignedDuration::from_mins(100);
    until("all sleep again", &worker, |load| {
        load.live == 0 && desk.store.sleepers().unwrap().iter().all(|(_, at)| *at > later)
    })
    .await;
    desk.pass(SignedDuration::from_hours(3));
    until("all end", &worker, |_| desk.with(RunStatus::Succeeded) == 50).await;
    assert_eq!((worker.load().await.live, desk.asleep()), (0, 0));
}

#[tokio::test]
async fn who_rests_in_memory_for_its_group_keeps_no_other_run_from_beginning() {
    let desk = Desk::new(&WAITS.replace("type: manual", "type: manual, concurrency: { max: 1000 }"));
    let worker = desk.worker().await;
    let many = 2 * u32::try_from(super::hold::NEAR).unwrap();
    worker.accepted(desk.accept(0..many).await);
    until("all wait, each with its place in the group", &worker, |load| load.live == many as usize && load.busy == 0)
        .await;
}

#[tokio::test]
async fn a_restart_leaves_sleepers_and_the_queue_on_disk_and_goes_on_with_both() {
    let desk = Desk::new(WAITS);
    let first = desk.worker().await;
    first.accepted(desk.accept(0..10).await);
    until("all sleep", &first, |load| load.live == 0 && desk.asleep() == 10).await;
    first.drain().await;
    // Accepted while nothing ran.
    desk.accept(10..30).await;
    let second = desk.worker().await;
    assert_eq!(second.load().await.live, 0, "a sleeper was replayed at the start");
    until("the queue was read", &second, |load| load.live == 0 && desk.asleep() == 30).await;
    desk.pass(SignedDuration::from_hours(1));
    until("all fired once", &second, |load| {
        load.live == 0 && (1..=30).all(|no| desk.store.turns(no).unwrap().len() == 2)
    })
    .await;
    desk.pass(SignedDuration::from_hours(2));
    until("all end", &second, |_| desk.with(RunStatus::Succeeded) == 30).await;
}

#[tokio::test]
async fn a_person_ends_a_run_that_sleeps() {
    let desk = Desk::new(WAITS);
    let worker = desk.worker().await;
    let rows = desk.accept(0..3).await;
    let (id, other) = (rows[0].id.clone(), rows[1].id.clone());
    worker.accepted(rows);
    until("all sleep", &worker, |load| load.live == 0 && desk.asleep() == 3).await;
    let cancel = |id: &RunId| worker.cancel(id.clone(), "jane".into(), "not ours".into());
    cancel(&id).await.unwrap();
    let row = desk.store.run(&id).unwrap().unwrap();
    assert_eq!((row.status, row.reason.as_deref()), (RunStatus::Cancelled, Some("cancelled by jane: not ours")));
    let again = cancel(&id).await.unwrap_err();
    assert!(again.contains("has ended: cancelled"), "{again}");
    // Both ask for the same run while it is read.
    let (one, two) = tokio::join!(cancel(&other), cancel(&other));
    assert!(one.is_ok() && two.is_err_and(|why| why.contains("ended")));
    let nobody = cancel(&RunId::new(Timestamp::UNIX_EPOCH, "f", "k")).await.unwrap_err();
    assert!(nobody.starts_with("no run "), "{nobody}");
    desk.pass(SignedDuration::from_hours(1));
    until("the third goes on", &worker, |_| desk.store.turns(3).unwrap().len() == 2).await;
    assert_eq!((desk.with(RunStatus::Cancelled), desk.asleep()), (2, 1));
}

#[tokio::test]
async fn short_waits_stay_in_memory() {
    let desk = Desk::new(&WAITS.replace("1h", "5s"));
    let worker = desk.worker().await;
    worker.accepted(desk.accept(0..1).await);
    until("it waits", &worker, |_| desk.with(RunStatus::Running) == 1).await;
    assert_eq!((worker.load().await.live, desk.asleep()), (1, 0));
    desk.pass(SignedDuration::from_secs(5));
    until("it sleeps", &worker, |load| load.live == 0 && desk.asleep() == 1).await;
}

#[tokio::test]
async fn a_sleeper_whose_flow_is_gone_waits_for_a_person() {
    let mut desk = Desk::new(WAITS);
    let first = desk.worker().await;
    let rows = desk.accept(0..1).await;
    let id = rows[0].id.clone();
    first.accepted(rows);
    until("it sleeps", &first, |load| load.live == 0 && desk.asleep() == 1).await;
    first.drain().await;
    desk.flow = Desk::new(&WAITS.replace("2h", "3h")).flow;
    let second = desk.worker().await;
    desk.pass(SignedDuration::from_hours(1));
    until("it is stuck", &second, |_| desk.with(RunStatus::Waiting) == 1).await;
    let why = desk.store.run(&id).unwrap().unwrap().reason.unwrap();
    assert!(why.contains("there is no such version"), "{why}");
    second.cancel(id.clone(), "jane".into(), String::new()).await.unwrap();
    assert_eq!(desk.with(RunStatus::Cancelled), 1);
}

/// Another release may derive something else from the same inputs. What was recorded is what may have been done: the run
/// waits for a person, and nothing of it is sent.
#[tokio::test]
async fn a_replay_that_differs_parks_the_run() {
    let mut desk = Desk::new(WAITS);
    let worker = desk.worker().await;
    worker.accepted(desk.accept(0..1).await);
    until("it sleeps", &worker, |load| load.live == 0 && desk.asleep() == 1).await;
    worker.drain().await;
    let mut other = Desk::new(&WAITS.replace("wait: 1h", "wait: 3h"));
    let flow = Arc::get_mut(&mut other.flow).unwrap();
    flow.version = Arc::clone(&desk.flow.version);
    desk.flow = other.flow;
    let worker = desk.worker().await;
    desk.pass(SignedDuration::from_hours(4));
    until("it is parked", &worker, |_| desk.with(RunStatus::Waiting) == 1).await;
    let row = desk.store.runs(&RunQuery::default()).unwrap().remove(0);
    let reason = row.reason.unwrap();
    assert!(reason.contains("derives `timer") && reason.contains("is recorded"), "{reason}");
}

#[tokio::test]
async fn what_panics_three_times_is_a_dead_letter_and_the_service_starts() {
    let desk = Desk::new(&WAITS.replace("1h", "5s"));
    let first = desk.worker().await;
    let rows = desk.accept(0..1).await;
    let id = rows[0].id.clone();
    first.accepted(rows);
    until("it waits in memory", &first, |load| load.live == 1 && desk.store.turns(1).unwrap().len() == 1).await;
    first.drain().await;
    desk.bug.store(true, Ordering::SeqCst);
    let second = desk.worker().await;
    until("it is a dead letter", &second, |_| desk.with(RunStatus::Dead) == 1).await;
    let why = desk.store.run(&id).unwrap().unwrap().reason.unwrap();
    assert!(why.contains("panicked 3 times") && why.contains("a bug that a test put here"), "{why}");
    // Still there: it is told so, and stays dead.
    let word = |word| second.word(id.clone(), word, "jane".into(), "mended".into());
    let again = word(Word::Retry).await.unwrap_err();
    assert!(again.contains("panicked"), "{again}");
    assert_eq!(desk.with(RunStatus::Dead), 1);
    desk.bug.store(false, Ordering::SeqCst);
    word(Word::Retry).await.unwrap();
    assert_eq!(desk.with(RunStatus::Running), 1);
    desk.pass(SignedDuration::from_secs(5));
    until("it sleeps", &second, |load| load.live == 0 && desk.asleep() == 1).await;
    desk.pass(SignedDuration::from_hours(2));
    until("it ends", &second, |_| desk.with(RunStatus::Succeeded) == 1).await;
    let audit = desk.store.audit();
    assert!(audit.len() == 1 && audit[0].contains("jane") && audit[0].contains("mended"), "{audit:?}");
}

/// It panics before its first turn, in the one life of a service.
#[tokio::test]
async fn a_run_that_can_not_even_begin_is_dropped_by_a_person() {
    let desk = Desk::new(WAITS);
    desk.bug.store(true, Ordering::SeqCst);
    let worker = desk.worker().await;
    let rows = desk.accept(0..1).await;
    let id = rows[0].id.clone();
    worker.accepted(rows);
    until("it is a dead letter", &worker, |_| desk.with(RunStatus::Dead) == 1).await;
    let settle = Word::Settle { step: None, said: Told::NotDone };
    let refused = worker.word(id.clone(), settle, "jane".into(), "?".into()).await.unwrap_err();
    assert!(refused.contains("has ended: dead"), "{refused}");
    worker.word(id.clone(), Word::Drop, "jane".into(), "a bug".into()).await.unwrap();
    let row = desk.store.run(&id).unwrap().unwrap();
    assert_eq!(row.status, RunStatus::Cancelled);
    assert!(row.reason.unwrap().starts_with("dropped by jane: a bug; it was dead: it panicked"));
    assert!(desk.store.audit()[0].contains("\"drop\""), "{:?}", desk.store.audit());
}

#[tokio::test]
async fn a_damaged_run_waits_with_its_reason_and_a_person_ends_it() {
    let desk = Desk::new(&WAITS.replace("1h", "5s"));
    let first = desk.worker().await;
    first.accepted(desk.accept(0..1).await);
    until("it waits in memory", &first, |load| load.live == 1 && desk.store.turns(1).unwrap().len() == 1).await;
    first.drain().await;
    let ids: Vec<_> = desk.accept(1..3).await.into_iter().map(|row| row.id).collect();
    // One that had begun, and one that had not.
    desk.store.damage(1);
    desk.store.damage(2);
    let second = desk.worker().await;
    until("the third goes on", &second, |_| desk.store.turns(3).unwrap().len() == 1).await;
    until("the others wait", &second, |_| desk.with(RunStatus::Waiting) == 2).await;
    let row = desk.store.run(&ids[0]).unwrap().unwrap();
    assert!(row.reason.unwrap().contains("its payload cannot be read"));
    second.cancel(ids[0].clone(), "jane".into(), String::new()).await.unwrap();
    assert_eq!((desk.with(RunStatus::Cancelled), desk.with(RunStatus::Waiting)), (1, 1));
}

#[tokio::test]
async fn a_drain_waits_for_what_was_sent_and_begins_nothing_new() {
    let desk = Desk::new(
        "
flow: f
owner: o@contoso.example
trigger: { type: manual }
steps:
  - { action: mde.get_machine, connection: mde, with: { machine_id: \"0000000000000000000000000000000000000001\" } }
  - { wait: 1h }
",
    );
    let (open, door) = tokio::sync::watch::channel(false);
    let worker = desk.worker_with(Door(door)).await;
    worker.accepted(desk.accept(0..20).await);
    until("two calls are open", &worker, |load| load.busy == 2 && load.queued > 0).await;
    let mut drain = std::pin::pin!(worker.drain());
    // The loop has heard of it when it answers what was asked later.
    tokio::select! {
        biased;
        () = &mut drain => panic!("two calls are open"),
        load = worker.load() => assert_eq!(load.busy, 2),
    }
    open.send(true).unwrap();
    drain.await;
    // What was answered is written, and what followed from it; the others wait for the next start.
    assert_eq!((desk.asleep(), desk.with(RunStatus::Queued)), (2, 18));
    let second = desk.worker_with(Door(open.subscribe())).await;
    until("all sleep", &second, |load| load.live == 0 && desk.asleep() == 20).await;
}

/// What the end of a run starts takes a place in the queue like everything else: else the count of what is in memory is
/// wrong, and the loop reads no more from the disk.
#[tokio::test]
async fn what_the_ends_of_runs_start_begins_too_however_full_the_queue_is() {
    let flow = "flow: f\ndescription: followed\ntrigger: { type: manual }\nsteps: [ { set: { x: 1 } } ]\n";
    let desk = Desk::new(flow);
    let worker = desk.worker().await;
    for batch in 0..10 {
        worker.accepted(desk.accept(batch * 20..(batch + 1) * 20).await);
    }
    until("all end", &worker, |_| desk.with(RunStatus::Succeeded) == 400).await;
    let load = worker.load().await;
    assert_eq!((load.queued, load.live), (0, 0));
}
