//! Late alerts, pages, errors: what is offered and when the watermark moves.

use std::sync::Mutex;

use futures_util::future::BoxFuture;

use super::super::testing::{Desk, flow, now};
use super::*;

use crate::engine::Outcome;
use crate::value::Map;

type Answers = Vec<Result<Value, Outcome>>;

/// Answers in turn, and keeps what was asked.
struct Service {
    answers: Mutex<Answers>,
    asked: Mutex<Vec<Map>>,
}

impl Fetch for Service {
    fn fetch(&self, _: &str, _: &str, inputs: Map) -> BoxFuture<'static, Result<Value, Outcome>> {
        self.asked.lock().unwrap().push(inputs);
        let answer = self.answers.lock().unwrap().remove(0);
        Box::pin(async move { answer })
    }
}

fn setup(answers: Answers) -> (Desk, Arc<Service>, Poller) {
    let desk = Desk::new(vec![flow("a", "mde.alert.new", "mde")]);
    let service = Arc::new(Service { answers: Mutex::new(answers), asked: Mutex::default() });
    let poller = pollers_of(&desk, &service).remove(0);
    (desk, service, poller)
}

fn pollers_of(desk: &Desk, service: &Arc<Service>) -> Vec<Poller> {
    let client = Arc::clone(service) as Arc<dyn Fetch>;
    let catalog = Catalog::builtin().unwrap();
    let flows = desk.intake.flows.now();
    let open = |key| Poller::open(&desk.intake, &catalog, &client, key, None, None).unwrap().unwrap();
    flows.polled().map(open).collect()
}

fn alert(id: usize, second: i64) -> Value {
    let created = now().checked_add(SignedDuration::from_secs(second)).unwrap();
    Value::object([("id", Value::str(format!("da{id}"))), ("created", Value::Datetime(created))])
}

fn page(alerts: Vec<Value>) -> Result<Value, Outcome> {
    Ok(Value::object([("value", Value::list(alerts))]))
}

#[tokio::test]
async fn a_late_alert_is_picked_up_and_none_twice() {
    let answers = vec![page(vec![alert(1, 0)]), page(vec![alert(1, 0), alert(2, 0)]), page(vec![alert(1, -3601)])];
    let (mut desk, service, mut poller) = setup(answers);
    poller.poll().await.unwrap();
    poller.poll().await.unwrap();
    // A service that ignores the filter is filtered here.
    poller.poll().await.unwrap();
    let keys: Vec<_> = desk.taken().into_iter().map(|row| row.key).collect();
    assert_eq!(keys, ["mde:da1", "mde:da2"]);
    let asked = service.asked.lock().unwrap();
    assert_eq!(asked[1].get("since"), Some(&Value::Datetime(now().checked_sub(OVERLAP).unwrap())));
}

#[tokio::test]
async fn all_pages_are_read_before_the_watermark_moves() {
    let full: Vec<_> = (0..1000).map(|id| alert(id, 0)).collect();
    let lost = Outcome::Unknown { status: 0, code: "reset".into(), message: "reset".into() };
    let rest = (950..1001).map(|id| alert(id, 60)).collect();
    let (mut desk, service, mut poller) = setup(vec![page(full.clone()), Err(lost), page(full), page(rest)]);
    let begun = now().checked_sub(SignedDuration::from_mins(5)).unwrap();
    poller.watermark = begun;
    assert!(poller.poll().await.is_err());
    assert_eq!(desk.intake.store.get("poll/mde/mde.alert.new").unwrap(), Some(begun.to_string().into_bytes()));
    // As after a kill between two pages: nothing is remembered but what the store has.
    let mut poller = pollers_of(&desk, &service).remove(0);
    poller.poll().await.unwrap();
    assert_eq!(desk.taken().len(), 1001);
    assert_eq!(service.asked.lock().unwrap()[3].get("skip"), Some(&Value::Int(950)));
    assert!(desk.intake.store.get("poll/mde/mde.alert.new").unwrap().is_some());
}

#[tokio::test]
async fn an_alert_that_vanishes_from_a_page_that_was_read_hides_none_behind_it() {
    // Ascending or not: while the second page is asked for, an alert of the first is gone, and all behind it moved up.
    let full = (0..1000).map(|id| alert(id, 0)).collect();
    let moved = (951..1003).map(|id| alert(id, 0)).collect();
    let (mut desk, _service, mut poller) = setup(vec![page(full), page(moved)]);
    poller.poll().await.unwrap();
    assert_eq!(desk.taken().len(), 1003);
}

#[tokio::test]
async fn pages_that_do_not_join_fail_the_poll() {
    let full = |from: usize| page((from..from + 1000).map(|id| alert(id, 60)).collect());
    let begun = now().checked_sub(SignedDuration::from_mins(5)).unwrap();
    let (desk, _service, mut poller) = setup(vec![full(0), full(2000)]);
    poller.watermark = begun;
    assert!(matches!(poller.poll().await, Err(PollError::Moved)));
    assert_eq!(desk.intake.store.get("poll/mde/mde.alert.new").unwrap(), Some(begun.to_string().into_bytes()));
    // The same page again and again is a service that ignores the position.
    let (desk, _service, mut poller) = setup(vec![full(0), full(0)]);
    poller.watermark = begun;
    assert!(matches!(poller.poll().await, Err(PollError::Endless)));
    assert_eq!(desk.intake.store.get("poll/mde/mde.alert.new").unwrap(), Some(begun.to_string().into_bytes()));
}

#[tokio::test]
async fn a_service_that_gives_smaller_pages_than_asked_is_read_to_its_end() {
    let pages = [(0, 500), (450, 950), (900, 940)].map(|(from, to)| page((from..to).map(|id| alert(id, 0)).collect()));
    let (mut desk, _service, mut poller) = setup(pages.into());
    poller.poll().await.unwrap();
    assert_eq!(desk.taken().len(), 950);
}

#[tokio::test]
async fn a_list_that_is_too_long_is_read_in_parts() {
    let mut desk = Desk::new(vec![flow("a", "xdr.alert.new", "graph")]);
    let too_much = || Err(Outcome::Unknown { status: 200, code: "endless_list".into(), message: "too long".into() });
    let answers = vec![too_much(), page(vec![alert(1, -2400)]), too_much(), page(vec![]), page(vec![alert(2, 0)])];
    let service = Arc::new(Service { answers: Mutex::new(answers), asked: Mutex::default() });
    let mut poller = pollers_of(&desk, &service).remove(0);
    // Alerts of before the activation start nothing; here the whole hour counts.
    desk.activate("2026-11-19T00:00:00Z");
    poller.poll().await.unwrap();
    let keys: Vec<_> = desk.taken().into_iter().map(|row| row.key).collect();
    assert_eq!(keys, ["graph:da1", "graph:da2"]);
    let asked = service.asked.lock().unwrap();
    let bound = |index: usize, name: &str| asked[index].get(name).cloned();
    assert_eq!((bound(1, "until"), bound(2, "until")), (bound(2, "since"), None), "the halves join");
    assert_eq!((bound(3, "since"), bound(3, "until"), bound(4, "until")), (bound(2, "since"), bound(4, "since"), None));
}

#[tokio::test]
async fn a_clock_ahead_does_not_carry_the_watermark_away() {
    let (_desk, _service, mut poller) = setup(vec![page(vec![alert(1, 86_400)])]);
    poller.poll().await.unwrap();
    assert_eq!(poller.watermark, now());
}

#[tokio::test]
async fn the_first_poll_stores_its_watermark_though_nothing_was_seen() {
    let (desk, _service, mut poller) = setup(vec![page(vec![])]);
    poller.poll().await.unwrap();
    let stored = desk.intake.store.get("poll/mde/mde.alert.new").unwrap();
    assert_eq!(stored, Some(now().to_string().into_bytes()));
}

#[tokio::test]
async fn a_watermark_of_the_future_is_mended() {
    let (mut desk, service, mut poller) = setup(vec![page(vec![alert(1, 0)])]);
    poller.watermark = now().checked_add(SignedDuration::from_hours(48)).unwrap();
    poller.poll().await.unwrap();
    assert_eq!(desk.taken().len(), 1);
    assert_eq!(poller.watermark, now());
    let since = Value::Datetime(now().checked_sub(OVERLAP).unwrap());
    assert_eq!(service.asked.lock().unwrap()[0].get("since"), Some(&since));
}

#[test]
fn pauses_grow_and_are_bounded() {
    let every = Duration::from_secs(30);
    let error = PollError::Service("x".into(), None);
    assert_eq!(backoff(every, 1, &error), every);
    assert_eq!(backoff(every, 3, &error), Duration::from_secs(120));
    assert_eq!(backoff(every, 60, &error), MAX_BACKOFF);
    let asked = PollError::Service("x".into(), Some(Duration::from_secs(99_999_999)));
    assert_eq!(backoff(every, 1, &asked), MAX_BACKOFF);
}
