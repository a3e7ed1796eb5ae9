//! The tenant of a simulation: alerts that appear late, devices, machine actions; a line to it on which requests and
//! answers are lost. It checks what can be checked at the moment when something is sent or takes effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};
use watchfloor::catalog::Effect;
use watchfloor::connector::client::{Reply, Sends};
use watchfloor::engine::{Call, Outcome, Purpose};
use watchfloor::guard::Permit;
use watchfloor::id::{RunId, call_key, tag};
use watchfloor::journal::memory::MemoryStore;
use watchfloor::journal::{RunQuery, Store};
use watchfloor::trigger::alert_poll::Fetch;
use watchfloor::value::{Map, Value};
use watchfloor::worker::turn::Turn;

use super::site::device;
use super::{Dice, after, locked};

/// Devices; the last one is protected.
const DEVICES: u64 = 6;
/// Nothing arrives later than this after its sender has given it up: less than the half minute of looking.
const STRAY: u64 = 20_000;

#[derive(Clone, Debug)]
pub(super) struct Alert {
    pub(super) id: String,
    pub(super) created: Timestamp,
    pub(super) visible: Timestamp,
    pub(super) severity: &'static str,
    pub(super) device: String,
}

struct Acted {
    kind: &'static str,
    device: String,
    tag: String,
    at: Timestamp,
}

#[derive(Default)]
struct Books {
    actions: Vec<Acted>,
    /// What took effect for a run, and how often.
    done: BTreeMap<(RunId, String), u64>,
    /// By tag, how often.
    tags: BTreeMap<(String, String), u64>,
    lost: u64,
    /// Alerts of which a watermark has told that they are read.
    read: BTreeSet<String>,
    listed: Option<Timestamp>,
    wrong: Vec<String>,
    story: Vec<String>,
}

pub(super) struct Tenant {
    dice: Dice,
    kept: Arc<MemoryStore>,
    pub(super) alerts: Vec<Alert>,
    books: Mutex<Books>,
    /// True time of the moment of the paused clock.
    epoch: Mutex<(Timestamp, Option<Instant>)>,
    /// Of a thousand calls, so many times ten go wrong in each way.
    rough: Mutex<u64>,
}

/// How a call fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Fine,
    Throttled,
    Refused,
    NotSent,
    LostBefore,
    LostAfter,
    ErrorAfter,
    /// Given up by its sender, and then it arrives.
    Stray,
    TimedOut,
}

impl Tenant {
    pub(super) fn new(dice: Dice, start: Timestamp, kept: Arc<MemoryStore>) -> Tenant {
        let mut alerts = Vec::new();
        let mut at = after(start, 60_000);
        for n in 0..dice.between(6, 12) {
            // Some share their instant.
            if dice.below(3) > 0 {
                at = after(at, dice.between(1, 900_000));
            }
            let late = if dice.below(4) == 0 { dice.between(1, 59 * 60_000) } else { dice.below(3_000) };
            alerts.push(Alert {
                id: format!("da{n:012}_{n}"),
                created: at,
                visible: after(at, late),
                severity: if dice.below(3) == 0 { "Medium" } else { "High" },
                device: device(dice.below(DEVICES)),
            });
        }
        let rough = Mutex::new(dice.below(4));
        Tenant { dice, kept, alerts, books: Mutex::default(), epoch: Mutex::new((start, None)), rough }
    }

    /// A life of the process begins at this true time.
    pub(super) fn life_begins(&self, at: Timestamp) {
        *locked(&self.epoch) = (at, Some(Instant::now()));
    }

    pub(super) fn now(&self) -> Timestamp {
        let (at, instant) = *locked(&self.epoch);
        let passed = instant.map_or(Duration::ZERO, |instant| instant.elapsed());
        at.checked_add(SignedDuration::try_from(passed).unwrap()).unwrap()
    }

    pub(super) fn calms_down(&self) {
        *locked(&self.rough) = 0;
    }

    pub(super) fn note(&self, what: String) {
        let at = self.now();
        locked(&self.books).story.push(format!("{at} {what}"));
    }

    pub(super) fn wrong(&self, what: String) {
        self.note(format!("WRONG {what}"));
        locked(&self.books).wrong.push(what);
    }

    pub(super) fn told(&self) -> (Vec<String>, Vec<String>) {
        let mut books = locked(&self.books);
        (std::mem::take(&mut books.wrong), std::mem::take(&mut books.story))
    }

    /// Effects, and answers that were lost.
    pub(super) fn counts(&self) -> (u64, u64) {
        let books = locked(&self.books);
        (books.tags.values().sum(), books.lost)
    }

    /// A watermark is on disk: all that could be read up to it has its run.
    pub(super) fn watermark_is(&self, watermark: Timestamp, store: &dyn Store) {
        let Some(listed) = locked(&self.books).listed else { return };
        for alert in self.alerts.iter().filter(|alert| alert.created <= watermark && alert.visible <= listed) {
            if locked(&self.books).read.contains(&alert.id) {
                continue;
            }
            let gathered = store.taken("digest", &format!("mde:{}", alert.id)).unwrap().is_some();
            if gathered && self.has_run("isolate", &alert.id, store) {
                locked(&self.books).read.insert(alert.id.clone());
            } else {
                self.wrong(format!(
                    "I8: the watermark is {watermark}, and {} of {} has no run",
                    alert.id, alert.created
                ));
            }
        }
    }

    pub(super) fn has_run(&self, flow: &str, alert: &str, store: &dyn Store) -> bool {
        let query = RunQuery { flow: Some(flow.into()), key: Some(format!("mde:{alert}")), ..RunQuery::default() };
        store.runs(&query).unwrap().len() == 1
    }

    /// The last look before a call leaves: is it allowed to?
    fn leaves(&self, run: &RunId, call: &Call) {
        let what = format!("{run} {} {:?} attempt {}", call.path, call.purpose, call.attempt);
        self.note(format!("sends {} {what}", call.action.name));
        if call.effect() == Effect::Read {
            return;
        }
        let Some(row) = self.kept.run(run).unwrap() else {
            return self.wrong(format!("I2: {what}: no such run on disk"));
        };
        if &*row.flow == "dry" {
            self.wrong(format!("I9: {what} of a flow in shadow is sent"));
        }
        let (path, attempt) = (call.path.to_string(), call.attempt.to_string());
        let wanted = ["main", &*call.action.name, &*call.connection, path.as_str(), attempt.as_str()];
        let has = |body: Vec<u8>| {
            let turn = Turn::decode(&body).unwrap();
            turn.commands.iter().any(|command| command.split(' ').skip(2).take(5).eq(wanted))
        };
        if !self.kept.turns(row.no).unwrap().into_iter().any(has) {
            self.wrong(format!("I2: {what} of {} is sent, and its intent is not on disk", call.action.name));
        }
    }

    fn takes_effect(&self, run: &RunId, call: &Call) {
        if call.effect() == Effect::Read {
            return;
        }
        let now = self.now();
        let ours = tag(&call_key(run, &call.path));
        let action = call.action.name.to_string();
        self.note(format!("takes effect: {action} {run} {}", call.path));
        let mut wrong = Vec::new();
        let mut books = locked(&self.books);
        *books.done.entry((run.clone(), action.clone())).or_default() += 1;
        let times = books.tags.entry((action.clone(), ours.clone())).or_default();
        *times += 1;
        let times = *times;
        let kind = match &*action {
            "mde.isolate_machine" => "Isolate",
            "mde.run_antivirus_scan" => "RunAntiVirusScan",
            _ => return,
        };
        let target = text(call, "machine_id");
        if times > 1 {
            wrong.push(format!("I3: {action} of {run} {} took effect {times} times", call.path));
        }
        if kind == "Isolate" {
            if books.actions.iter().any(|acted| acted.kind == kind && acted.device == target) {
                wrong.push(format!("I3: {target} is isolated on top of an isolation"));
            }
            if target == device(DEVICES - 1) {
                wrong.push(format!("I4: the protected {target} is isolated"));
            }
        }
        books.actions.push(Acted { kind, device: target, tag: ours, at: now });
        drop(books);
        wrong.into_iter().for_each(|what| self.wrong(what));
    }

    fn fate(&self, call: &Call) -> (Fate, Duration, Duration) {
        let rough = *locked(&self.rough);
        let draw = self.dice.below(1000);
        let there = Duration::from_millis(self.dice.between(1, 300));
        let back = Duration::from_millis(self.dice.between(1, 300));
        let table = [
            (25, Fate::Throttled),
            (6, Fate::Refused),
            (20, Fate::NotSent),
            (20, Fate::LostBefore),
            (25, Fate::LostAfter),
            (10, Fate::ErrorAfter),
            (10, Fate::Stray),
            (3, Fate::TimedOut),
        ];
        let mut least = 0;
        for (weight, fate) in table {
            least += weight * rough;
            if draw < least {
                let there = if fate == Fate::TimedOut { Duration::from_millis(call.timeout_ms) } else { there };
                return (fate, there, back);
            }
        }
        (Fate::Fine, there, back)
    }

    fn answer(&self, call: &Call) -> Value {
        let words = |pairs: &[(&str, &str)]| Value::object(pairs.iter().map(|(key, value)| (*key, Value::str(*value))));
        match &*call.action.name {
            "mde.get_alert" => {
                let id = text(call, "alert_id");
                let alert = self.alerts.iter().find(|alert| alert.id == id);
                let severity = alert.map_or("Low", |alert| alert.severity);
                words(&[("id", &id), ("severity", severity), ("title", "a thing")])
            }
            "mde.list_machine_actions" => {
                let machine = text(call, "machine_id");
                let types = call.inputs.get("types").and_then(Value::as_list).unwrap_or_default();
                let books = locked(&self.books);
                let listed = books.actions.iter().filter(|acted| {
                    acted.device == machine && types.iter().any(|wanted| wanted.as_str() == Some(acted.kind))
                });
                let entity = |acted: &Acted| {
                    Value::object([
                        ("id", Value::str("5382f7ea-7557-4ab7-9782-d50480024a4e")),
                        ("type", Value::str(acted.kind)),
                        ("status", Value::str("Succeeded")),
                        ("created", Value::Datetime(acted.at)),
                        ("comment", Value::str(format!("c [wf:{}]", acted.tag))),
                        ("machine_id", Value::str(&acted.device)),
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
        locked(&self.books).listed = Some(now);
        let since = inputs.get("since").and_then(Value::as_datetime).unwrap_or(Timestamp::MIN);
        let seen = self.alerts.iter().filter(|alert| alert.visible <= now && alert.created >= since);
        let entity = |alert: &Alert| {
            Value::object([
                ("id", Value::str(&alert.id)),
                ("created", Value::Datetime(alert.created)),
                ("severity", Value::str(alert.severity)),
                ("title", Value::str("a thing")),
                ("device", Value::object([("id", Value::str(&alert.device))])),
            ])
        };
        let skip = match inputs.get("skip") {
            Some(Value::Int(skip)) => usize::try_from(*skip).unwrap(),
            _ => 0,
        };
        Value::object([("value", Value::list(seen.skip(skip).map(entity).collect()))])
    }

    /// What must be true when all is over; `capped` where the process's clock never went ahead.
    pub(super) fn judge(&self, capped: Option<usize>) {
        let isolations: Vec<Timestamp> = {
            let books = locked(&self.books);
            books.actions.iter().filter(|acted| acted.kind == "Isolate").map(|acted| acted.at).collect()
        };
        if let Some(cap) = capped {
            for first in &isolations {
                // An effect may come a lost answer later than its place was taken.
                let window = SignedDuration::from_mins(5);
                let within = isolations.iter().filter(|at| *at >= first && at.duration_since(*first) < window).count();
                if within > cap {
                    self.wrong(format!("I5: {within} isolations within five minutes from {first}"));
                }
            }
        }
        for row in self.kept.runs(&RunQuery::default()).unwrap() {
            let alert = self.alerts.iter().find(|alert| row.key == format!("mde:{}", alert.id));
            let high = alert.is_some_and(|alert| alert.severity == "High");
            let due = match &*row.flow {
                "isolate" if high => "email.send",
                "note" => "teams.post",
                "asked" | "digest" => "email.send",
                _ => continue,
            };
            let succeeded = row.status == watchfloor::journal::RunStatus::Succeeded;
            if succeeded && !locked(&self.books).done.contains_key(&(row.id.clone(), due.to_owned())) {
                self.wrong(format!("run {} of {} succeeded without its {due}", row.id, row.flow));
            }
        }
    }
}

fn text(call: &Call, name: &str) -> String {
    call.inputs.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A request on its way. If the process dies meanwhile, it may still arrive.
struct Flight {
    tenant: Arc<Tenant>,
    run: RunId,
    call: Arc<Call>,
    /// Whether it still takes effect when nobody waits for it any more.
    stray: bool,
    landed: bool,
}

impl Flight {
    fn land(&mut self) {
        if !std::mem::replace(&mut self.landed, true) {
            self.tenant.takes_effect(&self.run, &self.call);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.stray {
            self.land();
        }
    }
}

/// The line to the tenant, as the worker and the pollers have it.
#[derive(Clone)]
pub(super) struct Line(pub(super) Arc<Tenant>);

fn lost(status: u16, code: &str) -> Outcome {
    Outcome::Unknown { status, code: code.into(), message: "the answer was lost".into() }
}

impl Sends for Line {
    fn send(&self, _: Permit, run: &RunId, call: Arc<Call>) -> BoxFuture<'static, Reply> {
        let tenant = Arc::clone(&self.0);
        tenant.leaves(run, &call);
        let (fate, there, back) = tenant.fate(&call);
        let acts = matches!(fate, Fate::Fine | Fate::LostAfter | Fate::ErrorAfter | Fate::Stray);
        let stray = acts && tenant.dice.below(2) == 0;
        let lag = Duration::from_millis(tenant.dice.below(STRAY));
        let mut flight = Flight { tenant, run: run.clone(), call, stray, landed: false };
        Box::pin(async move {
            sleep(there).await;
            if acts && fate != Fate::Stray {
                flight.land();
            }
            let answer = flight.tenant.answer(&flight.call);
            sleep(back).await;
            let throttled = |status: u16, code: &str, transient| Outcome::Refused {
                status,
                code: code.into(),
                message: "refused".into(),
                transient,
                retry_after_ms: transient.then_some(2_000),
            };
            let outcome = match fate {
                Fate::Fine => Outcome::Done { status: 200, output: flight.call.keep.project(&answer) },
                Fate::Throttled => throttled(429, "throttled", true),
                // A read that finds nothing fails its run, which is dull; only effects are refused for good.
                Fate::Refused if flight.call.purpose == Purpose::Main => throttled(400, "refused", false),
                Fate::Refused => throttled(429, "throttled", true),
                Fate::NotSent => {
                    Outcome::NotSent { code: "connect".into(), message: "no connection".into(), transient: true }
                }
                Fate::LostBefore | Fate::LostAfter | Fate::Stray => lost(0, "reset"),
                Fate::ErrorAfter => lost(500, "InternalServerError"),
                Fate::TimedOut => lost(0, "timeout"),
            };
            if matches!(outcome, Outcome::Unknown { .. }) {
                locked(&flight.tenant.books).lost += 1;
            }
            if fate == Fate::Stray {
                tokio::spawn(async move {
                    sleep(lag).await;
                    flight.land();
                });
            }
            Reply { outcome, blob: None, took: Duration::ZERO }
        })
    }

    fn fetch(&self, connection: &str, action: &str, inputs: Map) -> BoxFuture<'static, Result<Value, Outcome>> {
        Fetch::fetch(self, connection, action, inputs)
    }
}

impl Fetch for Line {
    fn fetch(&self, _: &str, action: &str, inputs: Map) -> BoxFuture<'static, Result<Value, Outcome>> {
        let tenant = Arc::clone(&self.0);
        let fails = tenant.dice.below(1000) < 60 * *locked(&tenant.rough);
        let there = Duration::from_millis(tenant.dice.between(1, 300));
        let back = Duration::from_millis(tenant.dice.between(1, 300));
        let facts = action == "mde.get_machine";
        Box::pin(async move {
            sleep(there).await;
            if fails {
                return Err(lost(0, "reset"));
            }
            let answer = if facts {
                let id = inputs.get("machine_id").and_then(Value::as_str).unwrap_or_default().to_owned();
                let tags = if id == device(DEVICES - 1) { vec![Value::str("no-automation")] } else { vec![] };
                Value::object([("id", Value::str(&id)), ("name", Value::str("host")), ("tags", Value::list(tags))])
            } else {
                tenant.list(&inputs)
            };
            sleep(back).await;
            Ok(answer)
        })
    }
}
