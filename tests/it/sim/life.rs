//! A seed's course: lives of the process, one after the other, until all is quiet; then the invariants.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use watchfloor::clock::Clock;
use watchfloor::connector::client::Sends;
use watchfloor::guard::Guard;
use watchfloor::journal::memory::MemoryStore;
use watchfloor::journal::{RunQuery, RunRow, RunStatus, Store};
use watchfloor::trigger::alert_poll::{Fetch, Pollers};
use watchfloor::trigger::{Event, Flows, Gate, Intake, Phase, batch, schedule};
use watchfloor::value::Value;
use watchfloor::worker::turn::Turn;
use watchfloor::worker::{Deps, Worker};

use super::disk::{Disk, Wear};
use super::site::{CAP, Shared, site};
use super::tenant::{Line, Tenant};
use super::{Dice, Tally, after, locked};

/// For so long things go wrong, in milliseconds.
const STORM: u64 = 3 * 3_600_000;
/// Runs that are asked for at one moment.
const CROWD: u64 = 6;
/// For so long the last life may take to bring everything to an end.
const CALM: u64 = 12 * 3_600_000;

pub(super) struct Course {
    pub(super) wrong: Vec<String>,
    pub(super) story: Vec<String>,
    pub(super) tally: Tally,
}

/// What outlives the process.
struct Ground {
    dice: Dice,
    kept: Arc<MemoryStore>,
    tenant: Arc<Tenant>,
    /// What the process's clock is off by, in milliseconds.
    offset: Arc<AtomicI64>,
    jumps: bool,
    wear: Wear,
    begin: Timestamp,
    /// Events that somebody sends until he is told that they were taken: when, and which.
    asks: Vec<(Timestamp, &'static str, u64)>,
    taken: Arc<Mutex<BTreeSet<u64>>>,
}

pub(super) fn play(seed: u64) -> Course {
    let dice = Dice::new(seed);
    let begin: Timestamp = "2026-11-20T08:00:00Z".parse().unwrap();
    let kept = Arc::new(MemoryStore::new());
    let tenant = Arc::new(Tenant::new(dice.clone(), begin, Arc::clone(&kept)));
    let mut asks: Vec<_> = (0..dice.between(1, 4)).map(|n| (after(begin, dice.below(STORM)), "asked", n)).collect();
    // Crowds that want one target and few places, one of them when nothing goes wrong any more.
    let crowds = [after(begin, dice.below(STORM)), after(begin, STORM + dice.below(STORM))];
    for (at, flow, n) in crowds.iter().zip([100, 200]).flat_map(|(at, n)| [(at, "rush", n), (at, "crowd", n + 50)]) {
        asks.extend((n..n + CROWD).map(|n| (*at, flow, n)));
    }
    let wear = Wear { fails: dice.below(3) * 8, fills: dice.below(3) * 3, crashes: dice.below(3) * 5 };
    let jumps = dice.below(4) == 0;
    let (offset, taken) = (Arc::default(), Arc::default());
    let ground = Ground { dice, kept, tenant, offset, jumps, wear, begin, asks, taken };
    let mut tally = Tally::default();
    let mut now = begin;
    let storm_ends = after(begin, STORM);
    loop {
        let calm = now >= storm_ends;
        if calm {
            ground.tenant.calms_down();
        }
        tally.lives += 1;
        let life = ground.live(now, calm);
        tally.failed_commits += life.failed;
        tally.crashed_commits += u64::from(life.crashed);
        now = life.until;
        if life.over {
            break;
        }
        let down = if ground.dice.below(20) == 0 { 2 * 3_600_000 } else { ground.dice.between(1, 300_000) };
        now = after(now, down);
    }
    ground.judge();
    let rows = ground.rows();
    tally.runs = rows.len() as u64;
    tally.waiting = rows.iter().filter(|row| !row.status.is_final()).count() as u64;
    (tally.effects, tally.lost_answers) = ground.tenant.counts();
    let (wrong, story) = ground.tenant.told();
    Course { wrong, story, tally }
}

struct Life {
    until: Timestamp,
    /// Nothing is left to be done.
    over: bool,
    crashed: bool,
    failed: u64,
}

/// What a process is made of, for one life.
pub(super) struct Host<L> {
    pub(super) store: Arc<dyn Store>,
    pub(super) line: L,
    pub(super) clock: Clock,
    /// When the flows were first deployed.
    pub(super) begin: Timestamp,
    /// Where a first reading begins.
    pub(super) from: Option<Timestamp>,
    pub(super) in_flight: usize,
}

impl<L: Sends + Fetch + Clone + 'static> Host<L> {
    /// As `cli::service` puts it together, without what listens; nothing where the store does not let it start.
    pub(super) async fn start(self, stop: &CancellationToken) -> Option<(Worker, Arc<Intake>)> {
        let Host { store, line, clock, begin, from, in_flight } = self;
        let flows = Flows::new(site().deployment(begin));
        let recent = store.reservations(Timestamp::UNIX_EPOCH).unwrap();
        let worker = Worker::start(Deps {
            store: Arc::clone(&store),
            client: Arc::new(line.clone()),
            guard: Guard::new(&site().config, recent),
            registry: Arc::new(Shared),
            clock: clock.clone(),
            public_url: None,
            in_flight,
        })
        .await
        .ok()?;
        let gate = Arc::new(Gate::new(0, 1_000_000));
        let hand_over = {
            let worker = worker.clone();
            Box::new(move |rows| worker.accepted(rows))
        };
        let intake = Arc::new(Intake::new(store, flows, clock, Arc::clone(&gate), hand_over));
        gate.enter(Phase::Serving);
        let catalog = Arc::clone(&site().catalog);
        let pollers =
            Pollers::start(Arc::clone(&intake), catalog, Arc::new(line), from, TaskTracker::new(), stop.clone());
        tokio::spawn(pollers.unwrap().run());
        tokio::spawn(batch::run(Arc::clone(&intake), stop.clone()));
        tokio::spawn(schedule::run(Arc::clone(&intake), stop.clone()));
        Some((worker, intake))
    }
}

impl Ground {
    fn rows(&self) -> Vec<RunRow> {
        self.kept.runs(&RunQuery::default()).unwrap()
    }

    /// One life, on a runtime of its own: what is dropped with it is what a process loses.
    fn live(&self, from: Timestamp, calm: bool) -> Life {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let life = runtime.block_on(async {
            self.tenant.life_begins(from);
            self.tenant.note(format!("a life begins, its clock is off by {} ms", self.offset.load(Ordering::SeqCst)));
            self.go_on(calm).await
        });
        drop(runtime);
        life
    }

    fn clock(&self) -> Clock {
        let (from, began, offset) = (self.tenant.now(), Instant::now(), Arc::clone(&self.offset));
        Clock::from_fn(move || {
            let passed = SignedDuration::try_from(began.elapsed()).unwrap();
            let off = SignedDuration::from_millis(offset.load(Ordering::SeqCst));
            from.checked_add(passed).unwrap().checked_add(off).unwrap()
        })
    }

    async fn go_on(&self, calm: bool) -> Life {
        let wear = if calm { Wear { fails: 0, fills: 0, crashes: 0 } } else { self.wear };
        let (disk, fate) = Disk::start(Arc::clone(&self.kept), self.dice.clone(), wear, Arc::clone(&self.tenant));
        let stop = CancellationToken::new();
        let ends = |over, crashed| Life {
            until: self.tenant.now(),
            over,
            crashed,
            failed: fate.failed.load(Ordering::Relaxed),
        };
        // The fewer make calls at a time, the more wait on disk.
        let in_flight = if calm { 1 } else { usize::try_from(self.dice.between(1, 4)).unwrap() };
        let Some(worker) = self.start(disk, &stop, in_flight).await else { return ends(false, false) };
        if self.jumps && !calm {
            tokio::spawn(jump(self.dice.clone(), Arc::clone(&self.offset)));
        }
        if calm {
            return ends(self.quiet().await, false);
        }
        let span = Duration::from_millis(self.dice.between(1_000, 1_500_000));
        tokio::select! {
            biased;
            () = fate.crash.notified() => {
                self.tenant.note("dies at a commit".into());
                ends(false, true)
            }
            () = sleep(span) => {
                // Half of them are asked to stop, as by SIGTERM; the others are killed.
                if self.dice.below(2) == 0 {
                    stop.cancel();
                    drop(tokio::time::timeout(Duration::from_secs(25), worker.drain()).await);
                    self.tenant.note("stops".into());
                } else {
                    self.tenant.note("is killed".into());
                }
                ends(false, fate.dead.load(Ordering::SeqCst))
            }
        }
    }

    /// The service, and who asks it.
    async fn start(&self, disk: Arc<Disk>, stop: &CancellationToken, in_flight: usize) -> Option<Worker> {
        let store: Arc<dyn Store> = disk;
        // The first start is told where to begin; until that is on disk, each one is the first.
        let from = self.kept.get("poll/mde/mde.alert.new").unwrap().is_none().then_some(self.begin);
        let line = Line(Arc::clone(&self.tenant));
        let (clock, begin) = (self.clock(), self.begin);
        let (worker, intake) = Host { store, line, clock, begin, from, in_flight }.start(stop).await?;
        for (at, flow, number) in &self.asks {
            if !locked(&self.taken).contains(number) {
                let wait = Duration::try_from(at.duration_since(self.tenant.now())).unwrap_or_default();
                tokio::spawn(ask(Arc::clone(&intake), wait, flow, *number, Arc::clone(&self.taken)));
            }
        }
        Some(worker)
    }

    /// Waits until every event has its run, and every run has ended or waits for a person.
    async fn quiet(&self) -> bool {
        let limit = Instant::now() + Duration::from_millis(CALM);
        while Instant::now() < limit {
            sleep(Duration::from_secs(120)).await;
            let last = self.alerts_are_in() && locked(&self.taken).len() == self.asks.len();
            let last = last && self.kept.gatherings().unwrap().is_empty();
            if last && self.rows().iter().all(is_settled) {
                return true;
            }
        }
        self.tenant.note("it does not become quiet".into());
        for row in self.rows().iter().filter(|row| !row.status.is_final()) {
            let turns = self.kept.turns(row.no).unwrap();
            let commands: Vec<_> = turns.iter().map(|body| Turn::decode(body).unwrap().commands).collect();
            let RunRow { id, flow, status, reason, .. } = row;
            self.tenant.note(format!("{id} of {flow} is {status:?}, {reason:?}: {commands:?}"));
        }
        true
    }

    fn alerts_are_in(&self) -> bool {
        self.tenant.alerts.iter().all(|alert| self.tenant.has_run("isolate", &alert.id, &*self.kept))
    }

    fn judge(&self) {
        let tenant = &self.tenant;
        let rows = self.rows();
        for alert in &tenant.alerts {
            for flow in ["isolate", "dry"] {
                if !tenant.has_run(flow, &alert.id, &*self.kept) {
                    tenant.wrong(format!("I1: {} of {} has not one run of {flow}", alert.id, alert.created));
                }
            }
        }
        self.judge_batches(&rows);
        let asked = rows.iter().filter(|row| matches!(&*row.flow, "asked" | "rush" | "crowd")).count();
        if asked != self.asks.len() {
            tenant.wrong(format!("I1: {asked} runs of asked, {} were asked for", self.asks.len()));
        }
        for row in rows.iter().filter(|row| !is_settled(row)) {
            tenant.wrong(format!("I10: run {} of {} is {:?}: {:?}", row.id, row.flow, row.status, row.reason));
        }
        if let (_, Some(broken)) = crate::invariants::audit(&*self.kept) {
            tenant.wrong(broken);
        }
        tenant.judge((!self.jumps).then_some(CAP));
    }
}

impl Ground {
    /// Each alert is in one batch, with none but its like.
    fn judge_batches(&self, rows: &[RunRow]) {
        let mut batched: Vec<String> = Vec::new();
        for row in rows.iter().filter(|row| &*row.flow == "digest") {
            let items = row.payload.get("items").and_then(Value::as_list).unwrap();
            let text = |item: &Value, path: &[&str]| {
                let found = path.iter().try_fold(item.clone(), |value, name| value.get(name).cloned());
                found.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let key = text(&row.payload, &["key"]);
            if items.is_empty() || items.len() > 3 || items.iter().any(|it| text(it, &["alert", "severity"]) != key) {
                self.tenant.wrong(format!("I1: the batch {} of {key} has {} items: {items:?}", row.key, items.len()));
            }
            batched.extend(items.iter().map(|item| text(item, &["alert_id"])));
        }
        for alert in &self.tenant.alerts {
            let times = batched.iter().filter(|id| **id == alert.id).count();
            if times != 1 {
                self.tenant.wrong(format!("I1: {} is in {times} batches", alert.id));
            }
        }
    }
}

fn is_settled(row: &RunRow) -> bool {
    let waits = matches!(row.status, RunStatus::Waiting | RunStatus::Uncertain);
    row.status.is_final() || (waits && row.reason.as_ref().is_some_and(|reason| !reason.is_empty()))
}

/// Sends an event until it is taken.
async fn ask(intake: Arc<Intake>, wait: Duration, flow: &'static str, number: u64, taken: Arc<Mutex<BTreeSet<u64>>>) {
    sleep(wait).await;
    loop {
        let event = Event {
            kind: "manual".into(),
            connection: None,
            flow: Some(flow.into()),
            only: None,
            key: format!("manual:{number}"),
            occurred: intake.clock.now(),
            payload: Value::empty(),
            inputs: Value::object([("alert_id", Value::str(format!("da{number:012}_{number}")))]),
        };
        if intake.offer_whole(vec![event]).await.is_ok() {
            locked(&taken).insert(number);
            return;
        }
        sleep(Duration::from_secs(7)).await;
    }
}

/// The clock is set, forward and back, by up to two hours.
async fn jump(dice: Dice, offset: Arc<AtomicI64>) {
    loop {
        sleep(Duration::from_millis(dice.between(60_000, 1_800_000))).await;
        let by = i64::try_from(dice.below(4 * 3_600_000)).unwrap() - 2 * 3_600_000;
        offset.store(by, Ordering::SeqCst);
    }
}
