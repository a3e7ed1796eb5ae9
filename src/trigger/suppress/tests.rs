use std::sync::Mutex;

use futures_util::future::BoxFuture;

use super::super::testing::{Desk, event, flow, now};
use super::*;
use crate::catalog::{ConnectionKind, Type};
use crate::diag::Source;
use crate::engine::Outcome;
use crate::suppress::{Given as RuleGiven, read};
use crate::trigger::{Deployed, Deployment, Event, Given};
use crate::value::{Map, Value};

/// A service that answers one alert, or fails, and counts how often it is asked.
#[derive(Default)]
struct Service {
    alert: Option<Json>,
    asked: Mutex<usize>,
}

impl Fetch for Service {
    fn fetch(&self, _: &str, _: &str, _: Map) -> BoxFuture<'static, Result<Value, Outcome>> {
        *self.asked.lock().unwrap() += 1;
        let answer = self.alert.clone().map(|alert| value(&alert)).ok_or_else(|| Outcome::Refused {
            status: 503,
            code: "x".into(),
            message: "away".into(),
            transient: true,
            retry_after_ms: None,
        });
        Box::pin(async move { answer })
    }

    fn fetch_as(
        &self,
        connection: &str,
        action: &str,
        inputs: Map,
        _: &Type,
    ) -> BoxFuture<'static, Result<Value, Outcome>> {
        self.fetch(connection, action, inputs)
    }
}

fn value(alert: &Json) -> Value {
    let mut members = Value::from_json(alert).unwrap().as_map().cloned().unwrap();
    members.insert("created".into(), Value::Datetime(now()));
    Value::map(members)
}

const IGNORE: &str = "suppression: known\ncomment: c\nowner: soc\nexpires: 2026-12-01\nalert: { title: Known* }\n\
     evidence: { file: { name: a.exe } }\naction: ignore\n";

fn rules(text: &str) -> Rules {
    let given = RuleGiven { now: now(), user_scoped: None };
    let (rule, faults) = read(&Source::new("r.yaml", text), given);
    Rules::new(vec![rule.unwrap_or_else(|| panic!("{faults:?}"))])
}

fn alert(file: Option<&str>) -> Json {
    let evidence: Vec<Json> =
        file.iter().map(|name| json!({"type": "File", "roles": [], "raw": {"fileName": name}})).collect();
    json!({"id": "da1_1", "title": "Known thing", "source": "MicrosoftDefenderForEndpoint", "status": "New", "evidence": evidence})
}

fn polled(file: Option<&str>) -> Event {
    let payload = Value::object([("alert_id", Value::str("da1_1")), ("alert", value(&alert(file)))]);
    Event { payload, ..event("mde:da1_1") }
}

/// Two flows for the same alerts, and the rule; `answers` is the alert as the service knows it.
fn desk(rule: &str, answers: Option<Json>) -> (Desk, Arc<Service>) {
    let desk = Desk::new(vec![flow("a", "mde.alert.new", "mde"), flow("b", "mde.alert.new", "mde")]);
    let service = Arc::new(Service { alert: answers, asked: Mutex::default() });
    let catalog = Arc::new(Catalog::builtin().unwrap());
    let client: Arc<dyn Fetch> = Arc::<Service>::clone(&service);
    let suppressor = Suppressor::new(rules(rule), catalog, client, &*desk.intake.store).unwrap();
    (desk.suppressing(Arc::new(suppressor)), service)
}

#[tokio::test]
async fn an_alert_that_a_rule_fits_starts_no_flow_and_why_names_the_rule() {
    let (mut desk, service) = desk(IGNORE, None);
    let put = Op::Put { name: "poll/mde".into(), body: b"x".to_vec() };
    let offered = desk.intake.offer(vec![polled(Some("A.EXE"))], vec![put]).await.unwrap();
    assert_eq!((offered.started.len(), offered.skipped), (0, 2));
    assert!(desk.taken().is_empty());
    let store = &*desk.intake.store;
    for flow in ["a", "b"] {
        let (_, body) = store.skipped(flow, "mde:da1_1").unwrap().unwrap();
        let skip: super::super::offer::Skip = serde_json::from_slice(&body).unwrap();
        assert_eq!(skip.suppressed.map(|by| (by.rule, by.action)), Some(("known".into(), "ignore".into())));
    }
    assert_eq!(suppressed::of(store, "DA1_1").map(|by| by.owner), Some("soc".into()));
    assert!(store.get("poll/mde").unwrap().is_some(), "with its watermark");
    assert_eq!(*service.asked.lock().unwrap(), 0, "what came with its evidence is not read again");
}

#[tokio::test]
async fn an_alert_without_its_evidence_is_read_once_for_all_flows() {
    let (desk, service) = desk(IGNORE, Some(alert(Some("a.exe"))));
    let offered = desk.intake.offer(vec![polled(None)], vec![]).await.unwrap();
    assert_eq!((offered.started.len(), offered.skipped, *service.asked.lock().unwrap()), (0, 2, 1));
    let mut other = polled(None);
    let payload = json!({"alert_id": "da2_1", "alert": {"id": "da2_1", "title": "Another", "evidence": []}});
    other.payload = Value::from_json(&payload).unwrap();
    other.key = "mde:da2_1".into();
    let offered = desk.intake.offer(vec![other], vec![]).await.unwrap();
    assert_eq!(
        (offered.started.len(), *service.asked.lock().unwrap()),
        (2, 1),
        "no rule is for its type: it is not read"
    );
}

#[tokio::test]
async fn an_alert_that_can_not_be_read_is_not_suppressed() {
    let (desk, service) = desk(IGNORE, None);
    let offered = desk.intake.offer(vec![polled(None)], vec![]).await.unwrap();
    assert_eq!((offered.started.len(), *service.asked.lock().unwrap()), (2, 1));
}

#[tokio::test]
async fn what_was_suppressed_stays_so_when_the_rule_is_gone_and_it_is_polled_again() {
    let (desk, _) = desk(IGNORE, None);
    desk.intake.offer(vec![polled(Some("a.exe"))], vec![]).await.unwrap();
    // As after a restart: a new suppressor, no rules, the same store.
    let catalog = Arc::new(Catalog::builtin().unwrap());
    let none: Arc<dyn Fetch> = Arc::new(Service::default());
    let suppressor = Suppressor::new(Rules::default(), catalog, none, &*desk.intake.store).unwrap();
    let desk = desk.suppressing(Arc::new(suppressor));
    let again = desk.intake.offer(vec![polled(Some("a.exe"))], vec![]).await.unwrap();
    assert_eq!((again.started.len(), again.skipped), (0, 2));
    // A person who starts a flow for it has decided.
    let chosen = Event { flow: Some("a".into()), key: "manual:1".into(), ..polled(Some("a.exe")) };
    assert_eq!(desk.intake.offer(vec![chosen], vec![]).await.unwrap().started.len(), 1);
}

#[tokio::test]
async fn a_rule_that_resolves_starts_one_run_of_its_own_however_often_the_alert_is_polled() {
    let resolve =
        IGNORE.replace("ignore", "{ resolve: { classification: FalsePositive, determination: NotMalicious } }");
    let (mut desk, _) = desk(&resolve, None);
    let flows = desk.intake.flows.now();
    let flows =
        flows.iter().map(|it| Deployed::of(it.flow().unwrap(), crate::flow::model::Mode::Live, now())).collect();
    let given = Given { connections: [("mde".into(), ConnectionKind::Mde)].into(), ..Given::default() };
    desk.intake.flows.replace(Deployment::new(flows, given));
    for _ in 0..3 {
        desk.intake.offer(vec![polled(Some("a.exe"))], vec![]).await.unwrap();
    }
    let runs = desk.taken();
    assert_eq!(runs.len(), 1);
    assert_eq!(
        (&*runs[0].flow, runs[0].inputs.get("alert_ids").unwrap().to_json()),
        (house::SUPPRESSIONS, json!(["da1_1"]))
    );
    assert!(runs[0].inputs.get("by").unwrap().as_str().unwrap().contains("the suppression rule known"));
}
