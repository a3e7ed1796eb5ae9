//! The soak: simulated days of work over the real store on disk, with a restart every few hours, half of them as a kill.
//! What the process holds (memory, descriptors) and what the store takes is written down at the end of each day, and must
//! not grow; and no alert is lost and no device is isolated twice meanwhile.
//!
//! It plays in a process of its own, since the harness runs other tests beside it. `scripts/sim --soak` plays thirty days.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use watchfloor::clock::Clock;
use watchfloor::connector::client::{Reply, Sends};
use watchfloor::engine::{Call, Outcome};
use watchfloor::guard::Permit;
use watchfloor::id::{RunId, call_key, tag};
use watchfloor::journal::sqlite::SqliteStore;
use watchfloor::journal::{self, Answer, Batch, Op, Prune, RunQuery, RunStatus, Store};
use watchfloor::trigger::alert_poll::Fetch;
use watchfloor::value::{Map, Value};

use super::disk::Disk;
use super::life::Host;
use super::{Dice, after, locked, say};

/// Days that the gate plays.
const DAYS: u64 = 3;
const DAY: u64 = 24 * 3_600_000;
/// Milliseconds from one alert to the next: 800 a day, with three or four runs for each, or 240 where the gate plays.
const STEP: u64 = 108_000;
const SHORT_STEP: u64 = 360_000;
/// Every twentieth is High: never so many at once that a limit asks a person.
const HIGH: u64 = 20;
/// Every seventh becomes visible so much later than it was created.
const LATE: u64 = 20 * 60_000;
/// What is kept: short, so that the store has its size before the first day is over.
const KEEP: SignedDuration = SignedDuration::from_hours(6);
const PLAYS: &str = "WATCHFLOOR_SOAK_PLAYS";
const LENGTH: &str = "WATCHFLOOR_SOAK_DAYS";

/// The last third of the days may hold no more than the first third held, but for a twentieth and this: what an allocator
/// keeps goes up and down by that much.
const SLACK_KIB: u64 = 2048;

#[test]
fn days_of_work_with_restarts_leave_memory_descriptors_and_store_as_they_were() {
    let days = std::env::var(LENGTH).map_or(DAYS, |days| days.parse().unwrap());
    if std::env::var_os(PLAYS).is_some() {
        return play(days);
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([
        "--exact",
        "--nocapture",
        "sim::soak::days_of_work_with_restarts_leave_memory_descriptors_and_store_as_they_were",
    ]);
    let mut child = child.env(PLAYS, "1").env("RUST_BACKTRACE", "0").stderr(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        say(&format!("{line}\n"));
        told.push_str(&line);
    }
    assert!(child.wait().unwrap().success(), "{told}");
    assert!(told.contains("the soak is over"), "it did not play: {told}");
}

/// What one day left behind.
#[derive(Clone, Copy, Debug)]
struct Mark {
    rss_kib: u64,
    descriptors: u64,
    store_kib: u64,
}

fn play(days: u64) {
    let folder = Path::new("/dev/shm").is_dir().then(|| tempfile::tempdir_in("/dev/shm").unwrap());
    // A disk in memory: what is measured is what we hold, not how fast a disk is.
    let folder = folder.unwrap_or_else(|| tempfile::tempdir().unwrap());
    let dice = Dice::new(days);
    let begin: Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
    let field = Arc::new(Field::new(dice.clone(), begin, if days > DAYS { STEP } else { SHORT_STEP }));
    let mut marks: Vec<Mark> = Vec::new();
    let (mut now, mut lives) = (begin, 0);
    say("day  lives  alerts  effects  resident KiB  descriptors  store KiB\n");
    while marks.len() < usize::try_from(days).unwrap() {
        let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
        let ends = after(begin, DAY * (marks.len() as u64 + 1));
        now = live(&store, &field, now, &dice);
        lives += 1;
        assert_eq!(Arc::strong_count(&store), 1, "a life that is over holds the store");
        field.judge(&*store, now);
        if now >= ends {
            let mark = Mark {
                rss_kib: resident(),
                descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count() as u64,
                store_kib: size(folder.path()) / 1024,
            };
            marks.push(mark);
            let (alerts, effects) = field.counts(now);
            let Mark { rss_kib, descriptors, store_kib } = mark;
            let day = marks.len();
            say(&format!(
                "{day:>3}  {lives:>5}  {alerts:>6}  {effects:>7}  {rss_kib:>12}  {descriptors:>11}  {store_kib:>9}\n"
            ));
        }
        drop(store);
        now = after(now, dice.between(1_000, 20 * 60_000));
    }
    let wrong = field.wrong();
    assert!(wrong.is_empty(), "{} faults\n{}", wrong.len(), wrong.join("\n"));
    flat("resident KiB", &marks, SLACK_KIB, |mark| mark.rss_kib);
    flat("descriptors", &marks, 0, |mark| mark.descriptors);
    // What is remembered for 400 days, sixteen bytes of each key, may grow; the log beside the tables comes and goes.
    flat("store KiB", &marks, 256 * days + 1024, |mark| mark.store_kib);
    say("the soak is over\n");
}

/// The most of the last third of the days against the most of the first third.
fn flat(what: &str, marks: &[Mark], slack: u64, of: impl Fn(&Mark) -> u64) {
    let third = marks.len() / 3;
    let most = |marks: &[Mark]| marks.iter().map(&of).max().unwrap();
    let (first, last) = (most(&marks[..third]), most(&marks[marks.len() - third..]));
    say(&format!("{what}: at most {first} in the first third of the days, {last} in the last\n"));
    assert!(last <= first + first / 20 + slack, "{what} grew from {first} to {last}");
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn size(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// One life of some hours, on a runtime of its own; answers when it ended.
fn live(store: &Arc<SqliteStore>, field: &Arc<Field>, from: Timestamp, dice: &Dice) -> Timestamp {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let until = runtime.block_on(async {
        *locked(&field.epoch) = (from, Some(Instant::now()));
        let kept: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
        let (disk, batches) = Disk::over(Arc::clone(&kept));
        let dead = Arc::new(AtomicBool::new(false));
        tokio::spawn(commit(kept, batches, Arc::clone(&dead)));
        let stop = CancellationToken::new();
        let clock = {
            let field = Arc::clone(field);
            Clock::from_fn(move || field.now())
        };
        let first = disk.get("poll/mde/mde.alert.new").unwrap().is_none().then_some(field.begin);
        let line = Line(Arc::clone(field));
        let (begin, store) = (field.begin, Arc::clone(&disk) as Arc<dyn Store>);
        let (worker, _) = Host { store, line, clock, begin, from: first, in_flight: 4 }.start(&stop).await.unwrap();
        tokio::spawn(forget(disk, Arc::clone(field)));
        sleep(Duration::from_millis(dice.between(3_600_000, 6 * 3_600_000))).await;
        if dice.below(2) == 0 {
            stop.cancel();
            drop(tokio::time::timeout(Duration::from_secs(25), worker.drain()).await);
        } else {
            dead.store(true, Ordering::SeqCst);
        }
        field.now()
    });
    drop(runtime);
    *locked(&field.epoch) = (until, None);
    until
}

/// The way to the disk: what comes within some milliseconds is a group. Time stands still while it is committed, and of a
/// process that is dead nothing is.
async fn commit(kept: Arc<dyn Store>, mut batches: mpsc::UnboundedReceiver<Batch>, dead: Arc<AtomicBool>) {
    while let Some(first) = batches.recv().await {
        sleep(Duration::from_millis(5)).await;
        let mut group = vec![first];
        while let Ok(next) = batches.try_recv() {
            group.push(next);
        }
        if dead.load(Ordering::SeqCst) {
            return;
        }
        let kept = Arc::clone(&kept);
        let committed = tokio::task::spawn_blocking(move || {
            let (told, tells) = std::sync::mpsc::channel::<()>();
            let watched = |batch: Batch| {
                let told = told.clone();
                let done: journal::Done = Box::new(move |result| {
                    if let Some(done) = batch.done {
                        done(result);
                    }
                    drop(told);
                });
                Batch { ops: batch.ops, urgent: true, done: Some(done) }
            };
            kept.write_all(group.into_iter().map(watched).collect());
            drop(told);
            // It ends when every batch has been answered.
            let _answered = tells.recv();
        });
        committed.await.unwrap();
    }
}

/// Retention, as `cli::retention` does it, of what is a day old.
async fn forget(disk: Arc<Disk>, field: Arc<Field>) {
    for round in 0_u64.. {
        sleep(Duration::from_secs(3600)).await;
        let before = field.now().checked_sub(KEEP).unwrap();
        for step in [
            |after, before| Prune::Runs { after, ended: before, dead: before },
            |after, ended| Prune::Payloads { after, ended },
        ] {
            let mut next = Some(0);
            while let Some(after) = next {
                next = one(&disk, step(after, before)).await;
            }
        }
        let (now, keys) = (field.now(), before.checked_sub(SignedDuration::from_hours(400 * 24)).unwrap());
        let steps = [
            Prune::Letters { before },
            Prune::Skipped { before },
            Prune::Reservations { before },
            Prune::Claims { before: now },
            Prune::Audit { before },
        ];
        for step in steps {
            while one(&disk, step.clone()).await.is_some() {}
        }
        // The keys of 400 days: there are none so old, and each slice is a commit.
        for slice in (0..=u8::MAX).filter(|_| round % 4 == 0) {
            one(&disk, Prune::Keys { before: keys, slice }).await;
        }
    }
}

async fn one(disk: &Disk, step: Prune) -> Option<i64> {
    let answers = journal::commit(disk, vec![Op::Prune(step)]).await.ok()?;
    answers.into_iter().find_map(|answer| match answer {
        Answer::Pruned { next } => next,
        _ => None,
    })
}

/// A tenant that follows from the time: it remembers only what was done to it in the last hours.
struct Field {
    dice: Dice,
    begin: Timestamp,
    /// Milliseconds from one alert to the next.
    step: u64,
    epoch: Mutex<(Timestamp, Option<Instant>)>,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    /// When, what kind, on which device, with which tag.
    actions: Vec<(Timestamp, &'static str, String, String)>,
    /// Alerts up to this number are judged.
    judged: u64,
    effects: u64,
    wrong: Vec<String>,
}

impl Field {
    fn new(dice: Dice, begin: Timestamp, step: u64) -> Field {
        Field { dice, begin, step, epoch: Mutex::new((begin, None)), books: Mutex::default() }
    }

    fn now(&self) -> Timestamp {
        let (from, began) = *locked(&self.epoch);
        let passed = began.map_or(Duration::ZERO, |began| began.elapsed());
        from.checked_add(SignedDuration::try_from(passed).unwrap()).unwrap()
    }

    fn created(&self, n: u64) -> Timestamp {
        after(self.begin, n * self.step)
    }

    /// How many alerts were created by an instant.
    fn born(&self, at: Timestamp) -> u64 {
        u64::try_from(at.duration_since(self.begin).as_millis()).unwrap_or(0) / self.step + 1
    }

    fn counts(&self, now: Timestamp) -> (u64, u64) {
        (self.born(now), locked(&self.books).effects)
    }

    fn wrong(&self) -> Vec<String> {
        locked(&self.books).wrong.clone()
    }

    /// Alerts of some hours ago: each has its runs, and where it is High its device was isolated, or a person is told.
    fn judge(&self, store: &dyn Store, now: Timestamp) {
        let mut books = locked(&self.books);
        let until = self.born(now.checked_sub(SignedDuration::from_hours(3)).unwrap());
        let isolated: BTreeSet<String> =
            books.actions.iter().filter(|acted| acted.1 == "Isolate").map(|acted| acted.2.clone()).collect();
        for n in books.judged..until {
            let (key, high) = (format!("mde:{}", name(n)), n % HIGH == 0);
            for flow in ["isolate", "dry"].into_iter().chain((!high).then_some("note")) {
                if !store.is_known(flow, &key).unwrap() {
                    books.wrong.push(format!("I1: {key} of {} started no run of {flow}", self.created(n)));
                }
            }
            if high && !isolated.contains(&host(n)) {
                let query = RunQuery { flow: Some("isolate".into()), key: Some(key.clone()), ..RunQuery::default() };
                let rows = store.runs(&query).unwrap();
                let told = rows.iter().any(|row| matches!(row.status, RunStatus::Uncertain | RunStatus::Dead));
                if !told {
                    let ends: Vec<_> = rows.iter().map(|row| (row.status, row.reason.clone())).collect();
                    books.wrong.push(format!("{key} of {} is not isolated: {ends:?}", self.created(n)));
                }
            }
        }
        books.judged = until;
        let old = now.checked_sub(SignedDuration::from_hours(12)).unwrap();
        books.actions.retain(|acted| acted.0 >= old);
        let open = store.counts().unwrap().into_iter().filter(|(status, _)| !status.is_final());
        let open: BTreeMap<RunStatus, u64> = open.collect();
        // Notes sleep for five minutes; the rest of what stays open would pile up.
        if open.values().sum::<u64>() > 100 {
            books.wrong.push(format!("at {now} too many runs are open: {open:?}"));
        }
    }

    fn acts(&self, run: &RunId, call: &Call) {
        let kind = match &*call.action.name {
            "mde.isolate_machine" => "Isolate",
            "mde.run_antivirus_scan" => "RunAntiVirusScan",
            "email.send" | "teams.post" | "mde.update_alert" => "",
            _ => return,
        };
        let now = self.now();
        let (device, ours) = (text(&call.inputs, "machine_id"), tag(&call_key(run, &call.path)));
        let mut books = locked(&self.books);
        books.effects += 1;
        if kind.is_empty() {
            return;
        }
        if books.actions.iter().any(|acted| acted.3 == ours) {
            books.wrong.push(format!("I3: {kind} of {run} {} took effect twice", call.path));
        }
        if kind == "Isolate" && books.actions.iter().any(|acted| acted.1 == kind && acted.2 == device) {
            books.wrong.push(format!("I3: {device} is isolated on top of an isolation"));
        }
        books.actions.push((now, kind, device, ours));
    }

    fn answer(&self, call: &Call) -> Value {
        let words = |pairs: &[(&str, &str)]| Value::object(pairs.iter().map(|(key, value)| (*key, Value::str(*value))));
        match &*call.action.name {
            "mde.get_alert" => {
                let id = text(&call.inputs, "alert_id");
                let n: u64 = id.rsplit('_').next().unwrap().parse().unwrap();
                words(&[("id", &id), ("severity", severity(n)), ("title", "a thing")])
            }
            "mde.list_machine_actions" => {
                let machine = text(&call.inputs, "machine_id");
                let types = call.inputs.get("types").and_then(Value::as_list).unwrap_or_default();
                let books = locked(&self.books);
                let listed = books.actions.iter().filter(|(_, kind, device, _)| {
                    *device == machine && types.iter().any(|wanted| wanted.as_str() == Some(kind))
                });
                let entity = |(at, kind, device, tag): &(Timestamp, &'static str, String, String)| {
                    Value::object([
                        ("id", Value::str("5382f7ea-7557-4ab7-9782-d50480024a4e")),
                        ("type", Value::str(*kind)),
                        ("status", Value::str("Succeeded")),
                        ("created", Value::Datetime(*at)),
                        ("comment", Value::str(format!("c [wf:{tag}]"))),
                        ("machine_id", Value::str(device)),
                    ])
                };
                Value::object([("value", Value::list(listed.map(entity).collect()))])
            }
            "mde.get_machine_action" => words(&[("status", "Succeeded")]),
            _ => words(&[("id", "5382f7ea-7557-4ab7-9782-d50480024a4e"), ("status", "Pending")]),
        }
    }

    fn list(&self, inputs: &Map) -> Value {
        let now = self.now();
        let since = inputs.get("since").and_then(Value::as_datetime).unwrap_or(self.begin).max(self.begin);
        let visible = |n: &u64| n % 7 != 6 || after(self.created(*n), LATE) <= now;
        let first = self.born(since).saturating_sub(1);
        let seen = (first..self.born(now)).filter(|n| self.created(*n) >= since).filter(visible);
        let entity = |n: u64| {
            Value::object([
                ("id", Value::str(name(n))),
                ("created", Value::Datetime(self.created(n))),
                ("severity", Value::str(severity(n))),
                ("title", Value::str("a thing")),
                ("device", Value::object([("id", Value::str(host(n)))])),
            ])
        };
        let skip = match inputs.get("skip") {
            Some(Value::Int(skip)) => usize::try_from(*skip).unwrap(),
            _ => 0,
        };
        Value::object([("value", Value::list(seen.skip(skip).map(entity).collect()))])
    }
}

fn name(n: u64) -> String {
    format!("da{n:012}_{n}")
}

fn severity(n: u64) -> &'static str {
    if n.is_multiple_of(HIGH) { "High" } else { "Medium" }
}

fn host(n: u64) -> String {
    format!("{:040x}", 0x0abc_def1_0000_0000_u64 + n)
}

fn text(inputs: &Map, name: &str) -> String {
    inputs.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[derive(Clone)]
struct Line(Arc<Field>);

impl Sends for Line {
    fn send(&self, _: Permit, run: &RunId, call: Arc<Call>) -> BoxFuture<'static, Reply> {
        let (field, run) = (Arc::clone(&self.0), run.clone());
        let (there, back) = (field.dice.between(1, 300), field.dice.between(1, 300));
        let draw = field.dice.below(1000);
        Box::pin(async move {
            sleep(Duration::from_millis(there)).await;
            let unknown =
                || Outcome::Unknown { status: 0, code: "reset".into(), message: "the answer was lost".into() };
            let outcome = match draw {
                0..5 => unknown(),
                5..10 => {
                    field.acts(&run, &call);
                    unknown()
                }
                10..15 => Outcome::Refused {
                    status: 429,
                    code: "throttled".into(),
                    message: "later".into(),
                    transient: true,
                    retry_after_ms: Some(2_000),
                },
                _ => {
                    field.acts(&run, &call);
                    Outcome::Done { status: 200, output: call.keep.project(&field.answer(&call)) }
                }
            };
            sleep(Duration::from_millis(back)).await;
            Reply { outcome, blob: None, took: Duration::ZERO }
        })
    }

    fn fetch(&self, connection: &str, action: &str, inputs: Map) -> BoxFuture<'static, Result<Value, Outcome>> {
        Fetch::fetch(self, connection, action, inputs)
    }
}

impl Fetch for Line {
    fn fetch(&self, _: &str, action: &str, inputs: Map) -> BoxFuture<'static, Result<Value, Outcome>> {
        let field = Arc::clone(&self.0);
        let facts = action == "mde.get_machine";
        Box::pin(async move {
            sleep(Duration::from_millis(200)).await;
            if facts {
                let id = text(&inputs, "machine_id");
                return Ok(Value::object([
                    ("id", Value::str(&id)),
                    ("name", Value::str("host")),
                    ("tags", Value::list(vec![])),
                ]));
            }
            Ok(field.list(&inputs))
        })
    }
}
