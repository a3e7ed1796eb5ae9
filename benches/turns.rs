//! CPU time of the loop and the engine alone: the work W over a store in memory and services that answer at once.
//! `cargo bench --bench turns [-- RUNS]`. It prints and judges nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt};
use watchfloor::catalog::Catalog;
use watchfloor::check::{CheckedFlow, World, check};
use watchfloor::clock::Clock;
use watchfloor::config::Config;
use watchfloor::connector::client::{Reply, Sends};
use watchfloor::diag::Source;
use watchfloor::engine::{Call, Outcome};
use watchfloor::flow::model::Mode;
use watchfloor::guard::{Guard, Permit};
use watchfloor::id::RunId;
use watchfloor::journal::memory::MemoryStore;
use watchfloor::journal::{self, Answer, Offer, Op, RunRow, Store};
use watchfloor::value::{Map, Value};
use watchfloor::worker::{Deps, Registry, RunEvent, Worker};

const FLOW: &str = r#"
flow: w
description: The work that is measured.
owner: bench@contoso.example
trigger: { type: webhook, name: w, fields: { alertId: string, machineId: string } }
steps:
  - id: alert
    action: mde.get_alert
    with: { alert_id: "{{ trigger.alertId }}" }
  - if: alert.severity == 'High'
    then:
      - action: mde.isolate_machine
        with:
          machine_id: "{{ trigger.machineId }}"
          isolation_type: Full
          comment: "Isolated by {{ flow.name }} {{ run.id }} for alert {{ alert.id }}"
      - action: email.send
        with:
          to: [soc@contoso.example]
          subject: "High alert {{ alert.id }}"
          text: |
            Alert {{ alert.id }} on machine {{ trigger.machineId }}: {{ alert.title }}
            Machine was isolated.
"#;

const CONFIG: &str = "
store: { path: ./data }
flows: [./w.yaml]
mode: live
limits: { destructive: off, write: off }
protected: { devices: [], users: [] }
fresh_for: off
";

struct Flows(Arc<CheckedFlow>);

impl Registry for Flows {
    fn flow(&self, _: &str, _: &str) -> Result<Arc<CheckedFlow>, String> {
        Ok(Arc::clone(&self.0))
    }

    fn mode(&self, _: &str) -> Mode {
        Mode::Live
    }
}

/// Services that answer at once.
struct Services;

impl Sends for Services {
    fn send(&self, _: Permit, _: &RunId, call: Arc<Call>) -> BoxFuture<'static, Reply> {
        let output = match &*call.action.name {
            "mde.get_alert" => Value::object([
                ("id", Value::str("da1_1")),
                ("severity", Value::str("High")),
                ("title", Value::str("A script was started")),
            ]),
            "mde.isolate_machine" => Value::object([("id", Value::str("1")), ("status", Value::str("Pending"))]),
            "email.send" => Value::empty(),
            _ => Value::object([("value", Value::list(vec![]))]),
        };
        let outcome = Outcome::Done { status: 200, output };
        async move { Reply { outcome, blob: None, took: Duration::ZERO } }.boxed()
    }

    fn fetch(&self, _: &str, action: &str, _: Map) -> BoxFuture<'static, Result<Value, Outcome>> {
        let message = format!("{action} is not asked for here");
        let outcome = Outcome::NotSent { code: "unexpected".into(), message, transient: false };
        async move { Err(outcome) }.boxed()
    }
}

fn compiled() -> Option<CheckedFlow> {
    let catalog = Catalog::builtin().ok()?;
    let include = |path: &str| Err(format!("there is no file {path}"));
    let called = |_: &str| -> Option<Arc<Source>> { None };
    let world = World { catalog: &catalog, connections: None, webhooks: None, include: &include, called: &called };
    check(&Source::new("w.yaml".to_owned(), FLOW.to_owned()), &world, true).0
}

async fn accept(store: &dyn Store, flow: &CheckedFlow, runs: u32, clock: &Clock) -> Vec<RunRow> {
    let offer = |n: u32| Offer {
        flow: Arc::clone(&flow.name),
        version: Arc::clone(&flow.version),
        trigger: "webhook".into(),
        key: format!("w:{n}"),
        accepted: clock.now(),
        occurred: clock.now(),
        payload: Value::object([
            ("alertId", Value::str(format!("da{n}_1"))),
            ("machineId", Value::str(format!("{n:040x}"))),
        ]),
        inputs: Value::empty(),
    };
    let ops = (0..runs).map(|n| Op::Offer(Box::new(offer(n)))).collect();
    let answers = journal::commit(store, ops).await.unwrap_or_default();
    let row = |answer| if let Answer::Offered(row) = answer { row.map(|row| *row) } else { None };
    answers.into_iter().filter_map(row).collect()
}

#[allow(clippy::print_stdout, clippy::disallowed_methods)] // A bench measures and prints.
async fn measure(runs: u32) -> Option<()> {
    let flow = Arc::new(compiled()?);
    let config = Config::parse(CONFIG, "config.yaml", Path::new(".")).ok()?;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = Clock::system();
    let deps = Deps {
        store: Arc::clone(&store),
        client: Arc::new(Services),
        guard: Guard::new(&config, vec![]),
        registry: Arc::new(Flows(Arc::clone(&flow))),
        clock: clock.clone(),
        public_url: None,
        in_flight: 256,
    };
    let worker = Worker::start(deps).await.ok()?;
    let mut events = worker.subscribe();
    let rows = accept(&*store, &flow, runs, &clock).await;
    let start = Instant::now();
    worker.accepted(rows);
    let mut ended = 0;
    while ended < runs {
        match events.recv().await? {
            RunEvent::Ended(row) if row.status == journal::RunStatus::Succeeded => ended += 1,
            other => {
                println!("unexpected: {other:?}");
                return None;
            }
        }
    }
    let took = start.elapsed();
    println!("{runs} runs, {took:?}, {:?} each", took / runs.max(1));
    Some(())
}

fn main() {
    let runs: u32 = std::env::args().filter_map(|it| it.parse().ok()).next().unwrap_or(20_000);
    // One thread: wall time is CPU time, but for the reading of the queue.
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(measure(runs));
}
