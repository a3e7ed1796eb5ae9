//! The real pollers and the real client against the simulated tenant, with a clock that the test drives: what is on the edge
//! of a page, of an hour, of a clock that is set.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use watchfloor::catalog::Catalog;
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
use watchfloor::trigger::{Deployed, Deployment, Flows, Gate, Given, Intake, sweep};
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
