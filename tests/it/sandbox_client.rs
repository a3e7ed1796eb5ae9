//! Our own client against the simulated tenant, with the demo's configuration: what it reads is what the world is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use watchfloor::catalog::Catalog;
use watchfloor::check::program::Keep;
use watchfloor::clock::Clock;
use watchfloor::connector::Client;
use watchfloor::engine::command::{Call, Purpose};
use watchfloor::engine::input::Outcome;
use watchfloor::flow::model::Mode;
use watchfloor::guard::{Asker, Check, Guard};
use watchfloor::id::RunId;
use watchfloor::sandbox::{DEMO_FLOWS, Options, Sandbox, Source, demo_config};
use watchfloor::value::{Map, Value};

struct Reader {
    sandbox: Sandbox,
    client: Client,
    catalog: Arc<Catalog>,
    guard: Mutex<Guard>,
    _folder: tempfile::TempDir,
}

impl Reader {
    async fn new() -> Reader {
        let clock = Clock::system();
        let sandbox = Sandbox::start(Options::new(11, 80, clock.now()), clock.clone()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = demo_config(sandbox.http_addr(), sandbox.smtp_addr(), folder.path()).unwrap();
        let catalog = Arc::new(Catalog::builtin().unwrap());
        let client = Client::open(&config, Arc::clone(&catalog), clock).unwrap();
        let guard = Mutex::new(Guard::new(&config, Vec::new()));
        sandbox.feed(usize::MAX);
        Reader { sandbox, client, catalog, guard, _folder: folder }
    }

    async fn read(&self, connection: &str, action: &str, inputs: &[(&str, Value)]) -> Value {
        let inputs: Map = inputs.iter().map(|(key, value)| (Arc::from(*key), value.clone())).collect();
        self.client.fetch(connection, action, inputs).await.unwrap_or_else(|outcome| panic!("{action}: {outcome:?}"))
    }
}

#[tokio::test]
async fn every_mailbox_and_risk_is_read_as_it_is() {
    let reader = Reader::new().await;
    let world = reader.sandbox.world();
    for user in &world.plan.users {
        let id = [("user", Value::str(&user.id))];
        let replies = reader.read("graph", "exchange.get_automatic_replies", &id).await;
        assert_eq!(replies.get("active"), Some(&Value::Bool(user.replies.active)), "{:?}: {replies:?}", user.replies);
        let risk = reader.read("graph", "entra.get_user_risk", &id).await;
        let level = risk.get("level").and_then(Value::as_str).unwrap().to_lowercase();
        assert_eq!(level, user.risk.wire(), "{user:?}");
    }
}

#[tokio::test]
async fn alerts_of_each_product_name_their_device_user_and_policy() {
    let reader = Reader::new().await;
    let world = reader.sandbox.world();
    let mut kinds = BTreeMap::new();
    for alert in &world.plan.alerts {
        let id = [("alert_id", Value::str(&alert.id))];
        match &alert.source {
            Source::Endpoint { device } => {
                let read = reader.read("mde", "mde.get_alert", &id).await;
                let device = &world.plan.devices[*device];
                assert_eq!(read.at(&["device", "id"]).and_then(Value::as_str), Some(device.id.as_str()));
                assert_eq!(read.get("title").and_then(Value::as_str), Some(alert.title.as_str()));
                *kinds.entry("mde").or_insert(0) += 1;
            }
            Source::CloudApps { user, policy } => {
                let read = reader.read("mdca", "cloud_apps.get_alert", &id).await;
                let user = &world.plan.users[*user];
                assert_eq!(read.at(&["user", "upn"]).and_then(Value::as_str), Some(user.upn.as_str()));
                assert_eq!(read.get("policy").and_then(Value::as_str), Some(*policy));
                *kinds.entry("mdca").or_insert(0) += 1;
            }
            other => panic!("no seed gives {other:?}"),
        }
        let graph = [("alert_id", Value::str(&alert.graph_id))];
        let read = reader.read("graph", "xdr.get_alert", &graph).await;
        assert_eq!(read.get("id").and_then(Value::as_str), Some(alert.graph_id.as_str()));
    }
    assert_eq!(kinds.len(), 2);
}

#[tokio::test]
async fn the_lists_that_pollers_read_are_understood() {
    let reader = Reader::new().await;
    let since = ("since", Value::Datetime("2020-01-01T00:00:00Z".parse().unwrap()));
    for (connection, action) in [
        ("mde", "mde.list_alerts"),
        ("graph", "xdr.list_alerts"),
        ("graph", "xdr.list_incidents"),
        ("mdca", "cloud_apps.list_alerts"),
        ("graph", "entra.list_risk_detections"),
    ] {
        let page = reader.read(connection, action, std::slice::from_ref(&since)).await;
        let items = page.get("value").and_then(Value::as_list).map_or(0, <[Value]>::len);
        assert!(items > 0, "{action}: {page:?}");
    }
}

impl Reader {
    /// Sends one effect past the demo's guard, as the worker does.
    async fn act(&self, connection: &str, action: &str, inputs: &[(&str, Value)]) -> Outcome {
        let action = Arc::clone(self.catalog.action(action).unwrap());
        let given = inputs.iter().map(|(key, value)| (Arc::from(*key), value.clone()));
        let defaults = action.inputs.iter().filter_map(|p| Some((Arc::clone(&p.name), p.default.clone()?)));
        let now = Clock::system().now();
        let run = RunId::new(now, "test", &format!("{inputs:?}"));
        let call = Call {
            path: Arc::from("/steps[0]"),
            attempt: 1,
            purpose: Purpose::Main,
            connection: Arc::from(connection),
            inputs: defaults.chain(given).collect(),
            keep: Keep::All.into(),
            target: None,
            timeout_ms: 10_000,
            secure: false,
            output: action.output.clone(),
            maybe_sent: false,
            handled: false,
            action,
        };
        let asker = Asker { run: run.clone(), flow: Arc::from("test"), mode: Mode::Live, occurred: now, now };
        let check = self.guard.lock().unwrap().check(&asker, &call, &[]);
        match check {
            Check::Decided(decision) => self.client.send(decision.permit.unwrap(), &run, call.into()).await.outcome,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn work_done_exactly_as_due_leaves_clean_books_and_once_more_does_not() {
    let reader = Reader::new().await;
    let world = reader.sandbox.world();
    let mut isolated = std::collections::BTreeSet::new();
    let done = |outcome: Outcome| assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    for alert in &world.plan.alerts {
        let id = Value::str(&alert.id);
        if let Source::Endpoint { device } = alert.source {
            if alert.severity != "High" {
                continue;
            }
            if isolated.insert(device) {
                let machine = Value::str(&world.plan.devices[device].id);
                let inputs = [("machine_id", machine), ("comment", Value::str("test"))];
                done(reader.act("mde", "mde.isolate_machine", &inputs).await);
            }
            let to = Value::list(vec![Value::str("soc@contoso.example")]);
            let inputs = [("to", to), ("subject", Value::str(&alert.title)), ("text", id)];
            done(reader.act("mail", "email.send", &inputs).await);
        } else if world.plan.traveller(alert).is_some() {
            if world.plan.legitimate(alert) {
                done(reader.act("mdca", "cloud_apps.close_benign", &[("alert_id", id.clone())]).await);
            }
            let inputs = [("title", Value::str("Travel")), ("text", Value::str(format!("alert {}", alert.id)))];
            done(reader.act("soc-triage", "teams.post", &inputs).await);
        }
    }
    let books = reader.sandbox.ledger(&DEMO_FLOWS);
    assert_eq!((books.duplicates, books.losses, books.wrong), (0, 0, 0), "{:?}", books.findings);
    assert_eq!(books.effects, books.expected);
    assert_eq!(books.effects.len(), 4);
    let high = world.plan.alerts.iter().find(|alert| alert.severity == "High" && alert.id.starts_with("da")).unwrap();
    let to = Value::list(vec![Value::str("soc@contoso.example")]);
    let inputs = [("to", to), ("subject", Value::str(&high.id)), ("text", Value::str("again"))];
    done(reader.act("mail", "email.send", &inputs).await);
    assert_eq!(reader.sandbox.ledger(&DEMO_FLOWS).duplicates, 1);
}
