//! The real pollers and the real client against the simulated tenant, with a clock that the test drives: what is on the edge
//! of a page, of an hour, of a clock that is set.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use watchfloor::catalog::{Catalog, Type};
use watchfloor::check::{CheckedFlow, World, check};
use watchfloor::clock::Clock;
use watchfloor::connector::Client;
use watchfloor::diag::Source as Text;
use watchfloor::engine::Outcome;
use watchfloor::flow::model::Mode;
use watchfloor::journal::memory::MemoryStore;
use watchfloor::journal::{RunRow, Store};
use watchfloor::sandbox::{Options, Sandbox, Source, demo_config};
use watchfloor::trigger::alert_poll::{Fetch, Poller};
use watchfloor::trigger::suppress::Suppressor;
use watchfloor::trigger::{Deployed, Deployment, Event, Flows, Gate, Given, Intake, hunts, ready, sweep};
use watchfloor::value::{Map, Value};

/// A tenant, a client and an intake with one flow, at a time that stands still until it is moved.
struct Bench {
    sandbox: Sandbox,
    catalog: Arc<Catalog>,
    intake: Arc<Intake>,
    store: Arc<MemoryStore>,
    client: Arc<dyn Fetch>,
    accepted: UnboundedReceiver<Vec<RunRow>>,
    time: Arc<Mutex<Timestamp>>,
    _folder: tempfile::TempDir,
}

/// The client, with alerts that become visible after each of the first answers.
struct Busy {
    client: Client,
    world: Arc<watchfloor::sandbox::World>,
    pages: AtomicUsize,
    each: usize,
}

impl Fetch for Busy {
    fn fetch(&self, connection: &str, action: &str, inputs: Map) -> BoxFuture<'static, Result<Value, Outcome>> {
        let fetch = self.client.fetch(connection, action, inputs);
        let feed = self.pages.fetch_add(1, Ordering::Relaxed) < 3;
        let (world, each) = (Arc::clone(&self.world), self.each);
        Box::pin(async move {
            let answer = fetch.await;
            if feed {
                world.feed(each);
            }
            answer
        })
    }

    fn fetch_as(
        &self,
        connection: &str,
        action: &str,
        inputs: Map,
        output: &Type,
    ) -> BoxFuture<'static, Result<Value, Outcome>> {
        self.client.fetch_as(connection, action, inputs, Some(output.clone()))
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOON: &str = "2026-11-20T12:00:00Z";

fn compiled(catalog: &Catalog, trigger: &str) -> CheckedFlow {
    let text = format!("flow: f\ntrigger: {trigger}\nsteps:\n  - {{ wait: 1s }}\n");
    let world =
        World { catalog, connections: None, webhooks: None, include: &|_| Err("none".into()), called: &|_| None };
    let (flow, faults) = check(&Text::new("f.yaml", text), &world, true);
    flow.unwrap_or_else(|| panic!("{faults:?}"))
}

impl Bench {
    /// `trigger` is the flow's trigger as it is written; `busy` alerts become visible while pages are read.
    async fn new(alerts: usize, trigger: &str, busy: usize) -> Bench {
        let time = Arc::new(Mutex::new(at(NOON)));
        let shared = Arc::clone(&time);
        let clock = Clock::from_fn(move || *shared.lock().unwrap());
        let sandbox = Sandbox::start(Options::new(31, alerts, clock.now()), clock.clone()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = demo_config(sandbox.http_addr(), sandbox.smtp_addr(), folder.path()).unwrap();
        let catalog = Arc::new(Catalog::builtin().unwrap());
        let client = Client::open(&config, Arc::clone(&catalog), clock.clone()).unwrap();
        let client = Busy { client, world: sandbox.world(), pages: AtomicUsize::new(0), each: busy };
        let flow = Arc::new(compiled(&catalog, trigger));
        let store = Arc::new(MemoryStore::new());
        let (sender, accepted) = unbounded_channel();
        let begin = at(NOON).checked_sub(SignedDuration::from_hours(24)).unwrap();
        let deployed = Deployed::of(flow, Mode::Live, begin);
        let flows = Flows::new(Deployment::new(vec![deployed], Given::default()));
        let gate = Arc::new(Gate::new(0, 1_000_000));
        let hand = move |rows| drop(sender.send(rows));
        let intake = Arc::new(Intake::new(Arc::clone(&store) as Arc<dyn Store>, flows, clock, gate, Box::new(hand)));
        Bench { sandbox, catalog, intake, store, client: Arc::new(client), accepted, time, _folder: folder }
    }

    /// The same, with a suppression rule at the door.
    fn suppressing(self, rule: &str) -> Bench {
        let given = watchfloor::suppress::Given { now: at(NOON), user_scoped: None };
        let (rule, faults) = watchfloor::suppress::read(&Text::new("r.yaml", rule), given);
        let rules = watchfloor::suppress::Rules::new(vec![rule.unwrap_or_else(|| panic!("{faults:?}"))]);
        let client = Arc::clone(&self.client);
        let suppressor = Suppressor::new(rules, Arc::clone(&self.catalog), client, &*self.store).unwrap();
        let Bench { intake, .. } = self;
        let Ok(intake) = Arc::try_unwrap(intake) else { panic!("somebody else holds the intake") };
        Bench { intake: Arc::new(intake.suppressing(Arc::new(suppressor))), ..self }
    }

    fn poller(&self, from: Option<Timestamp>) -> Poller {
        let flows = self.intake.flows.now();
        let key = flows.polled().next().unwrap();
        Poller::open(&self.intake, &self.catalog, &self.client, key, None, from).unwrap().unwrap()
    }

    fn set(&self, time: &str) {
        *self.time.lock().unwrap() = at(time);
    }

    fn pass(&self, span: SignedDuration) {
        let mut time = self.time.lock().unwrap();
        *time = time.checked_add(span).unwrap();
    }

    async fn look(&self) {
        ready::look(&self.intake, &self.catalog, &*self.client).await;
    }

    async fn sweep(&self) {
        sweep::all(&self.intake, &self.catalog, &self.client, Duration::ZERO).await;
    }

    /// The runs that were started since the last time.
    fn rows(&mut self) -> Vec<RunRow> {
        std::iter::from_fn(|| self.accepted.try_recv().ok()).flatten().collect()
    }

    fn started(&mut self) -> Vec<String> {
        self.rows().into_iter().map(|row| row.key).collect()
    }

    /// Ids of the visible alerts that a trigger type of this connection lists.
    fn visible(&self, connection: &str) -> BTreeSet<String> {
        let world = self.sandbox.world();
        let alerts = world.plan.alerts.iter().take(world.visible());
        let listed = alerts.filter_map(|alert| match (connection, &alert.source) {
            ("mde", Source::Endpoint { .. }) | ("mdca", Source::CloudApps { .. }) => Some(alert.id.clone()),
            ("graph", _) => Some(alert.graph_id.clone()),
            _ => None,
        });
        listed.collect()
    }
}

async fn each_once(trigger: &str, connection: &str, first: usize) {
    let mut bench = Bench::new(first + 200, trigger, 20).await;
    // All of them share one instant, so that every border of a page lies between equals.
    assert_eq!(bench.sandbox.world().feed_created(first, at(NOON)), first);
    let mut poller = bench.poller(Some(at("2026-11-20T11:00:00Z")));
    poller.poll().await.unwrap();
    let early = bench.started();
    assert!(bench.sandbox.world().visible() > first, "nothing arrived while the pages were read");
    // Arrivals come to an end, and the polls after it have them all.
    for _ in 0..3 {
        poller.poll().await.unwrap();
    }
    // A new process that remembers nothing asks again, and starts nothing again.
    let late = bench.started();
    bench.poller(None).poll().await.unwrap();
    assert_eq!(bench.started(), Vec::<String>::new());
    let wanted: BTreeSet<String> =
        bench.visible(connection).into_iter().map(|id| format!("{connection}:{id}")).collect();
    let taken: BTreeSet<String> = early.iter().chain(&late).cloned().collect();
    assert_eq!((taken.len(), early.len() + late.len()), (wanted.len(), wanted.len()), "one twice, or one lost");
    assert_eq!(taken, wanted);
}

#[tokio::test]
async fn alerts_that_arrive_while_positions_are_paged_are_each_taken_once() {
    each_once("{ type: mde.alert.new, connection: mde }", "mde", 1_700).await;
}

#[tokio::test]
async fn alerts_that_arrive_while_the_oldest_come_first_are_each_taken_once() {
    each_once("{ type: cloud_apps.alert.new, connection: mdca }", "mdca", 800).await;
}

#[tokio::test]
async fn alerts_that_arrive_while_links_are_followed_are_each_taken_once() {
    each_once("{ type: xdr.alert.new, connection: graph }", "graph", 260).await;
}

#[tokio::test]
async fn a_clock_that_is_set_loses_nothing_and_doubles_nothing() {
    let mut bench = Bench::new(80, "{ type: xdr.alert.new, connection: graph }", 0).await;
    let mut poller = bench.poller(None);
    let mut taken = vec![];
    // Forward by two days and back, back by a day, and on. Alerts carry the time of the service, which goes its own way.
    for (step, time) in
        [NOON, "2026-11-22T12:00:00Z", "2026-11-20T12:01:00Z", "2026-11-19T13:00:00Z", "2026-11-20T12:03:00Z"]
            .into_iter()
            .enumerate()
    {
        bench.set(time);
        let service = at(NOON).checked_add(SignedDuration::from_secs(i64::try_from(step).unwrap() * 30)).unwrap();
        bench.sandbox.world().feed_created(10, service);
        poller.poll().await.unwrap();
        taken.extend(bench.started());
        if step == 2 {
            poller = bench.poller(None);
        }
    }
    let distinct: BTreeSet<_> = taken.iter().collect();
    assert_eq!((taken.len(), distinct.len()), (50, 50));
}

#[tokio::test]
async fn what_became_visible_too_late_is_reported_once_and_started_by_nobody() {
    let trigger = "{ type: xdr.alert.new, connection: graph, where: \"trigger.alert.severity == 'High'\" }";
    let mut bench = Bench::new(60, trigger, 0).await;
    let mut poller = bench.poller(None);
    let world = bench.sandbox.world();
    bench.sweep().await;
    // An alert an hour late is picked up; those three hours late are not.
    world.feed_created(10, at(NOON));
    poller.poll().await.unwrap();
    bench.pass(SignedDuration::from_mins(1));
    world.feed_created(10, at("2026-11-20T11:00:01Z"));
    world.feed_created(20, at("2026-11-20T09:00:00Z"));
    poller.poll().await.unwrap();
    let high = |from: usize, to: usize| {
        let alerts = world.plan.alerts[from..to].iter().filter(|alert| alert.severity == "High");
        alerts.map(|alert| format!("graph:{}", alert.graph_id)).collect::<BTreeSet<_>>()
    };
    assert_eq!(bench.started().into_iter().collect::<BTreeSet<_>>(), high(0, 20));
    bench.sweep().await;
    assert_eq!(sweep::found(&*bench.store).unwrap(), [], "a sweep is due a day after the first look");
    bench.pass(SignedDuration::from_hours(24));
    bench.sweep().await;
    let found = sweep::found(&*bench.store).unwrap();
    let keys: BTreeSet<String> = found.iter().map(|late| late.key.clone()).collect();
    assert_eq!((keys.len(), keys), (found.len(), high(20, 40)));
    assert!(found.iter().all(|late| late.flow == "f" && late.occurred == at("2026-11-20T09:00:00Z")));
    assert_eq!(bench.started(), Vec::<String>::new());
    let (_, why) = bench.store.skipped("f", &found[0].key).unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&why).unwrap()["late"], true);
    bench.pass(SignedDuration::from_hours(25));
    bench.sweep().await;
    assert_eq!(sweep::found(&*bench.store).unwrap(), found, "reported twice");
}

#[tokio::test]
async fn a_change_by_a_person_is_one_event_that_names_its_fields() {
    let mut bench = Bench::new(30, "{ type: xdr.alert.changed, connection: graph }", 0).await;
    let world = bench.sandbox.world();
    // Older than the poller, and known to it from its first look; and one that nothing changed for longer than it looks back.
    world.feed_created(10, at("2026-11-18T12:00:00Z"));
    world.feed_created(1, at("2026-11-01T12:00:00Z"));
    let mut poller = bench.poller(None);
    poller.poll().await.unwrap();
    // A new alert is no change of one.
    bench.pass(SignedDuration::from_mins(1));
    world.feed_created(1, at("2026-11-20T12:00:30Z"));
    poller.poll().await.unwrap();
    assert_eq!(bench.started(), Vec::<String>::new());
    bench.pass(SignedDuration::from_mins(1));
    for alert in [0, 10, 11] {
        assert!(world.set_status(&world.plan.alerts[alert].graph_id, "InProgress"));
    }
    poller.poll().await.unwrap();
    poller.poll().await.unwrap();
    let rows = bench.rows();
    let changed = |alert: usize| {
        let id = &world.plan.alerts[alert].graph_id;
        let row = rows.iter().find(|row| row.key == format!("2026-11-20T12:02:00Z@graph:{id}")).unwrap();
        row.payload.get("changed").unwrap().to_json()
    };
    assert_eq!((changed(0), changed(11)), (serde_json::json!(["status"]), serde_json::json!(["status"])));
    assert_eq!(changed(10), serde_json::json!([]), "what changed of an alert that was never seen can't be told");
    assert_eq!(rows.len(), 3);
    // The next change of the same alert is another event, also for a process that remembers nothing.
    bench.pass(SignedDuration::from_mins(1));
    assert!(world.set_status(&world.plan.alerts[0].graph_id, "Resolved"));
    let mut poller = bench.poller(None);
    poller.poll().await.unwrap();
    assert_eq!(bench.rows().len(), 1);
}

fn event(key: &str, payload: Value) -> Event {
    Event {
        kind: "mde.alert.new".into(),
        connection: Some("mde".into()),
        flow: None,
        only: None,
        key: key.into(),
        occurred: at(NOON),
        payload,
        inputs: Value::empty(),
    }
}

#[tokio::test]
async fn a_split_event_starts_one_run_for_each_item() {
    let trigger =
        "{ type: mde.alert.new, connection: mde, split: trigger.alert.ips, where: \"trigger.item != '10.0.0.9'\" }";
    let mut bench = Bench::new(1, trigger, 0).await;
    let alert = |ips: &[&str]| {
        let ips = Value::list(ips.iter().map(Value::str).collect());
        event("mde:da1", Value::object([("alert", Value::object([("ips", ips)]))]))
    };
    bench.intake.offer(vec![alert(&["10.0.0.1", "10.0.0.9", "10.0.0.2", "10.0.0.1"])], vec![]).await.unwrap();
    let rows = bench.rows();
    let keys: Vec<_> = rows.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, ["10.0.0.1/mde:da1", "10.0.0.2/mde:da1"]);
    assert_eq!(rows[1].payload.get("item"), Some(&Value::str("10.0.0.2")));
    assert!(bench.store.skipped("f", "10.0.0.9/mde:da1").unwrap().is_some());
    // Read again with one more: only that one is new.
    bench.intake.offer(vec![alert(&["10.0.0.3", "10.0.0.2", "10.0.0.1"])], vec![]).await.unwrap();
    assert_eq!(bench.started(), ["10.0.0.3/mde:da1"]);
    // What has no list is told as what could not be judged, as is what has far too many items.
    let many: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (key, lists) in [("mde:da2", None), ("mde:da3", Some(many))] {
        let event = Event { key: key.into(), ..lists.map_or_else(|| event(key, Value::empty()), |ips| alert(&ips)) };
        bench.intake.offer(vec![event], vec![]).await.unwrap();
        let (_, why) = bench.store.skipped("f", key).unwrap().unwrap();
        let why: serde_json::Value = serde_json::from_slice(&why).unwrap();
        assert!(why["error"].as_str().unwrap().starts_with("split: "), "{why}");
    }
    assert_eq!(bench.started(), Vec::<String>::new());
}

#[tokio::test]
async fn an_event_waits_until_it_is_ready_or_its_time_is_up() {
    let ready = "ready: trigger.alert.status == 'InProgress', ready_timeout: 10m";
    let trigger = |on: &str| format!("{{ type: xdr.alert.new, connection: graph, {ready}, on_not_ready: {on} }}");
    let mut bench = Bench::new(10, &trigger("run"), 0).await;
    let world = bench.sandbox.world();
    world.feed_created(3, at(NOON));
    bench.poller(None).poll().await.unwrap();
    // Asked again by a process that remembers nothing, it still waits once.
    bench.poller(None).poll().await.unwrap();
    bench.look().await;
    assert_eq!(bench.started(), Vec::<String>::new());
    bench.pass(SignedDuration::from_mins(5));
    assert!(world.set_status(&world.plan.alerts[1].graph_id, "InProgress"));
    bench.look().await;
    let rows = bench.rows();
    let key = |alert: usize| format!("graph:{}", world.plan.alerts[alert].graph_id);
    assert_eq!(rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>(), [key(1)]);
    assert_eq!(rows[0].payload.at(&["alert", "status"]), Some(&Value::str("InProgress")), "as it was read last");
    bench.pass(SignedDuration::from_mins(5));
    bench.look().await;
    bench.look().await;
    assert_eq!(bench.started().into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([key(0), key(2)]));
    // Where an event that is not ready fails, it is told as one that could not be judged.
    let mut bench = Bench::new(10, &trigger("fail"), 0).await;
    bench.sandbox.world().feed_created(1, at(NOON));
    bench.poller(None).poll().await.unwrap();
    bench.pass(SignedDuration::from_mins(10));
    bench.look().await;
    assert_eq!(bench.started(), Vec::<String>::new());
    let (_, why) = bench.store.skipped("f", &key(0)).unwrap().unwrap();
    assert!(String::from_utf8(why).unwrap().contains("ready: "));
}

/// Evidence that comes late: a rule that did not fit the alert as it was polled fits it when its time has come.
#[tokio::test]
async fn an_alert_that_waited_is_judged_by_suppression_rules_with_its_evidence() {
    let trigger =
        "{ type: xdr.alert.new, connection: graph, ready: trigger.alert.status == 'InProgress', ready_timeout: 10m }";
    let bench = Bench::new(10, trigger, 0).await;
    let world = bench.sandbox.world();
    world.feed_created(1, at(NOON));
    let id = world.plan.alerts[0].graph_id.clone();
    let inputs = Map::from([("alert_id".into(), Value::str(&id))]);
    let whole = bench.client.fetch("graph", "xdr.get_alert", inputs).await.unwrap();
    let said = watchfloor::suppress::Draft {
        name: "late",
        comment: "c",
        owner: "o",
        expires: at("2026-12-01T00:00:00Z"),
        all_evidence: true,
        any_type: false,
        on_devices: false,
        resolve: None,
    };
    let rule = watchfloor::suppress::draft(watchfloor::triage::Alert(&whole.to_json()), &said).unwrap();
    let mut bench = bench.suppressing(&rule);
    let mut early = whole.as_map().cloned().unwrap();
    let other = serde_json::json!([{"type": "Ip", "roles": [], "raw": {"ipAddress": "192.0.2.99"}}]);
    early.insert("evidence".into(), Value::from_json(&other).unwrap());
    early.insert("users".into(), Value::list(vec![]));
    let payload = Value::object([("alert_id", Value::str(&id)), ("alert", Value::map(early))]);
    let key = format!("graph:{id}");
    let polled = Event { kind: "xdr.alert.new".into(), connection: Some("graph".into()), ..event(&key, payload) };
    bench.intake.offer(vec![polled], vec![]).await.unwrap();
    assert!(bench.store.skipped("f", &key).unwrap().is_none(), "as it was polled the rule does not fit it: it waits");
    assert!(world.set_status(&id, "InProgress"));
    bench.look().await;
    let (_, why) = bench.store.skipped("f", &key).unwrap().unwrap();
    assert!(String::from_utf8(why).unwrap().contains("\"rule\":\"late\""));
    bench.look().await;
    assert_eq!(bench.started(), Vec::<String>::new());
}

#[tokio::test]
async fn each_new_row_of_a_hunt_starts_one_run_and_none_is_cut_away() {
    let trigger = "{ type: hunt.rows, connection: graph, query: \"DeviceProcessEvents // powershell\", every: 15m, max_rows: 7, \
                   columns: { DeviceId: string, CommandHash: string, Timestamp: datetime }, \
                   key: trigger.row.DeviceId + '|' + trigger.row.CommandHash }";
    let mut bench = Bench::new(120, trigger, 0).await;
    let devices = bench.sandbox.world().plan.devices.len();
    let wanted = (0..devices).filter(|index| index % 4 == 1).count();
    assert!(wanted > 10, "{wanted} rows are too few for this test");
    let deployed = bench.intake.flows.find("f").unwrap();
    let mut taken = vec![];
    // One after the other until all have started; the end of the window is stored with the last of them alone.
    while bench.store.get("hunt/f/end").unwrap().is_none() {
        hunts::evaluate(&bench.intake, &bench.catalog, &*bench.client, &deployed).await.unwrap();
        let rows = bench.rows();
        assert!((1..=7).contains(&rows.len()), "{}", rows.len());
        taken.extend(rows);
    }
    let keys: BTreeSet<_> = taken.iter().map(|row| row.key.clone()).collect();
    assert_eq!((keys.len(), taken.len()), (wanted, wanted));
    let row = &taken[0];
    assert!(row.key.starts_with("row:") && matches!(row.payload.at(&["row", "Timestamp"]), Some(Value::Datetime(_))));
    assert_eq!(row.payload.get("window_end"), Some(&Value::Datetime(at(NOON))));
    bench.pass(SignedDuration::from_mins(15));
    hunts::evaluate(&bench.intake, &bench.catalog, &*bench.client, &deployed).await.unwrap();
    assert_eq!(bench.started(), Vec::<String>::new());
}
