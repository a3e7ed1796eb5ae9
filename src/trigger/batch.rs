//! `batch:` gathers several events into one run.
//!
//! Each event is on disk, and known by its key, before its sender hears of it; the store puts it into a gathering of its flow,
//! version and key. A gathering becomes one run when it is full or its time is over, also after a restart, and at once where
//! its flow was changed or removed: what was accepted runs as it was accepted. The run and the end of the gathering are one
//! commit, so that no event is lost and none is in two runs.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{Deployment, Intake, Offered};
use crate::check::program::Batch;
use crate::journal::{self, Gather, Gathering, Offer, Op, StoreError};
use crate::value::Value;

/// What the payloads of one run's events may have together, in bytes of JSON; a larger event starts a run alone.
const MOST_BYTES: u64 = 256 * 1024;
/// How often it is looked which are due, at least, where there may be some.
const EVERY: Duration = Duration::from_secs(1);
/// After the disk failed.
const PAUSE: Duration = Duration::from_secs(5);
/// Gatherings that become runs in one commit.
const TOGETHER: usize = 16;

/// An event as one of several.
pub(super) fn gather(batch: &Batch, event: Offer, slot: String) -> Gather {
    let within = SignedDuration::try_from(batch.within).unwrap_or(SignedDuration::ZERO);
    let due = event.accepted.checked_add(within).unwrap_or(event.accepted);
    Gather { event, slot, due, most: batch.max, most_bytes: MOST_BYTES }
}

/// `trigger.*` of a run for several events.
pub(super) fn payload(items: Vec<Value>, key: &str, opened: Timestamp, closed: Timestamp) -> Value {
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    Value::object([
        ("items", Value::list(items)),
        ("count", Value::Int(count)),
        ("key", Value::str(key)),
        ("opened", Value::Datetime(opened)),
        ("closed", Value::Datetime(closed)),
    ])
}

/// Starts the runs of gatherings when they are due, until the token is cancelled.
pub async fn run(intake: Arc<Intake>, stop: CancellationToken) {
    let mut deployments = intake.flows.watch();
    loop {
        let looked = tokio::select! {
            () = stop.cancelled() => return,
            looked = look(&intake) => looked,
        };
        let pause = match looked {
            Ok(Some(next)) => {
                let left = Duration::try_from(next.duration_since(intake.clock.now())).unwrap_or(Duration::ZERO);
                Some(left.clamp(Duration::from_millis(10), EVERY))
            }
            // What follows the end of a run is gathered without a word to us.
            Ok(None) => intake.flows.now().iter().any(|deployed| deployed.card.gathers).then_some(EVERY),
            Err(error) => {
                tracing::warn!(%error, "runs of gathered events could not be started; it is tried again");
                Some(PAUSE)
            }
        };
        let over = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = over => {}
            () = intake.gatherings.notified() => {}
            changed = deployments.changed() => if changed.is_err() { return },
        }
    }
}

/// Starts the runs of all gatherings that are due. Answers when the next one is.
///
/// # Errors
/// The store; the gatherings are as they were.
pub async fn look(intake: &Intake) -> Result<Option<Timestamp>, StoreError> {
    let all = journal::off_loop(&intake.store, |store| store.gatherings()).await.map_err(StoreError::Failed)??;
    let (flows, now) = (intake.flows.now(), intake.clock.now());
    let events = |all: &[Gathering]| all.iter().map(|it| u64::from(it.events)).sum();
    let (due, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|gathering| is_due(gathering, &flows, now));
    intake.gate.recount_gathered(events(&due) + events(&later));
    let mut failed = None;
    for some in due.chunks(TOGETHER) {
        // One that can't be read must not keep the others.
        match start(intake, some).await {
            Err(StoreError::Damaged(_)) if some.len() > 1 => {
                for one in some {
                    failed = start(intake, std::slice::from_ref(one)).await.err().or(failed);
                }
            }
            started => failed = started.err().or(failed),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    intake.gate.recount_gathered(events(&later));
    Ok(later.iter().map(|gathering| gathering.due).min())
}

/// A clock that was set back behind its beginning says nothing of its end.
fn is_due(gathering: &Gathering, flows: &Deployment, now: Timestamp) -> bool {
    let deployed = flows.find(&gathering.flow).is_some_and(|it| it.card.version == gathering.version);
    gathering.full || !deployed || now >= gathering.due || now < gathering.opened
}

/// The runs of some gatherings, in one commit. One that another event joined meanwhile stays for the next look.
async fn start(intake: &Intake, gatherings: &[Gathering]) -> Result<Offered, StoreError> {
    let numbers: Vec<_> = gatherings.iter().map(|gathering| gathering.no).collect();
    let read = move |store: &dyn journal::Store| -> Result<Vec<Vec<Offer>>, StoreError> {
        numbers.iter().map(|no| store.gathered(*no)).collect()
    };
    let events = journal::off_loop(&intake.store, read).await.map_err(StoreError::Failed)??;
    let now = intake.clock.now();
    let close = |(gathering, events): (&Gathering, Vec<Offer>)| {
        let number = u32::try_from(events.len()).ok()?;
        let offer = Box::new(offer(gathering, events, now)?);
        Some(Op::Close { gathering: gathering.no, events: number, offer })
    };
    let ops: Vec<Op> = gatherings.iter().zip(events).filter_map(close).collect();
    let started = intake.commit(ops, vec![], Offered::default()).await?;
    if started.duplicates > 0 {
        intake.gatherings.notify_one();
    }
    Ok(started)
}

/// The run of these events: it happened when the first of them did, so that nothing stale is taken for fresh.
fn offer(gathering: &Gathering, events: Vec<Offer>, now: Timestamp) -> Option<Offer> {
    let first = events.first()?;
    let (trigger, key) = (Arc::clone(&first.trigger), super::offer::bounded(format!("batch:{}", first.key)));
    let occurred = events.iter().map(|event| event.occurred).min()?;
    let items = events.into_iter().map(|event| event.payload).collect();
    Some(Offer {
        flow: Arc::clone(&gathering.flow),
        version: Arc::clone(&gathering.version),
        trigger,
        key,
        accepted: now,
        occurred,
        payload: payload(items, &gathering.slot, gathering.opened, now),
        inputs: Value::empty(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::super::testing::{Desk, Untyped, event, flow, now};
    use super::super::{Event, follow};
    use super::*;
    use crate::check::CheckedFlow;
    use crate::clock::Clock;
    use crate::expr::Expr;
    use crate::journal::memory::MemoryStore;
    use crate::journal::{RunRow, RunStatus, Store};

    /// Gathers three events, or those of five minutes, by a member of theirs.
    fn gathers(name: &str, key: Option<&str>) -> CheckedFlow {
        let mut gathers = flow(name, "mde.alert.new", "mde");
        let key = key.map(|key| Expr::compile(key, &Untyped).unwrap().0);
        gathers.trigger.batch = Some(Batch { max: 3, within: Duration::from_secs(300), key });
        gathers
    }

    struct Bench {
        store: Arc<MemoryStore>,
        seconds: Arc<AtomicI64>,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { store: Arc::new(MemoryStore::new()), seconds: Arc::default() }
        }

        /// Another life of the service over the same store.
        fn desk(&self, flows: Vec<CheckedFlow>) -> Desk {
            let seconds = Arc::clone(&self.seconds);
            let clock = move || now().checked_add(SignedDuration::from_secs(seconds.load(Ordering::Relaxed))).unwrap();
            Desk::on(Arc::clone(&self.store), flows, Clock::from_fn(clock))
        }

        fn is_at(&self, second: i64) {
            self.seconds.store(second, Ordering::Relaxed);
        }
    }

    fn ids(row: &RunRow) -> Vec<&str> {
        let items = row.payload.get("items").and_then(Value::as_list).unwrap();
        items.iter().map(|item| item.get("alert_id").and_then(Value::as_str).unwrap()).collect()
    }

    async fn offer(desk: &Desk, keys: &[&str]) -> Offered {
        desk.intake.offer(keys.iter().map(|key| event(key)).collect(), vec![]).await.unwrap()
    }

    #[tokio::test]
    async fn events_start_one_run_when_there_are_enough_or_their_time_is_over() {
        let bench = Bench::new();
        let mut desk = bench.desk(vec![gathers("a", None)]);
        let offered = offer(&desk, &["mde:1", "mde:2", "mde:3", "mde:4"]).await;
        assert_eq!((offered.gathered, offered.started.len(), offered.duplicates), (4, 0, 0));
        let again = offer(&desk, &["mde:1", "mde:4"]).await;
        assert_eq!((again.gathered, again.duplicates), (0, 2), "a repeated poll brings nothing twice");
        let next = look(&desk.intake).await.unwrap();
        assert_eq!(next, Some(now().checked_add(SignedDuration::from_secs(300)).unwrap()));
        let rows = desk.taken();
        assert_eq!(rows.iter().map(ids).collect::<Vec<_>>(), [["mde:1", "mde:2", "mde:3"]]);
        assert_eq!((rows[0].key.as_str(), &*rows[0].trigger), ("batch:mde:1", "mde.alert.new"));
        assert_eq!(rows[0].payload.get("count"), Some(&Value::Int(3)));
        // Another life of the service.
        let mut desk = bench.desk(vec![gathers("a", None)]);
        bench.is_at(299);
        look(&desk.intake).await.unwrap();
        assert_eq!(desk.taken(), []);
        bench.is_at(300);
        assert_eq!(look(&desk.intake).await.unwrap(), None);
        let rows = desk.taken();
        assert_eq!(rows.iter().map(ids).collect::<Vec<_>>(), [["mde:4"]]);
        assert_eq!(rows[0].payload.get("opened"), Some(&Value::Datetime(now())));
        assert_eq!(offer(&desk, &["mde:1", "mde:4"]).await.duplicates, 2);
        look(&desk.intake).await.unwrap();
        assert_eq!(desk.taken(), []);
    }

    #[tokio::test]
    async fn equal_keys_belong_together_and_a_key_that_cannot_be_told_is_a_dead_letter() {
        let bench = Bench::new();
        let mut desk = bench.desk(vec![gathers("a", Some("trigger.device"))]);
        let on = |key: &str, device: Option<&str>| {
            let device = device.map(|device| ("device", Value::str(device)));
            Event { payload: Value::object([("alert_id", Value::str(key))].into_iter().chain(device)), ..event(key) }
        };
        let events = vec![on("1", Some("x")), on("2", Some("y")), on("3", Some("x")), on("4", None)];
        let offered = desk.intake.offer(events, vec![]).await.unwrap();
        assert_eq!((offered.gathered, offered.skipped), (3, 1));
        let letters = bench.store.letters(&crate::journal::LetterQuery::default()).unwrap();
        assert_eq!(letters.len(), 1);
        bench.is_at(300);
        look(&desk.intake).await.unwrap();
        let rows = desk.taken();
        assert_eq!(rows.iter().map(ids).collect::<Vec<_>>(), [vec!["1", "3"], vec!["2"]]);
        let keys: Vec<_> = rows.iter().map(|row| row.payload.get("key").and_then(Value::as_str)).collect();
        assert_eq!(keys, [Some("x"), Some("y")]);
    }

    #[tokio::test]
    async fn a_run_is_as_old_as_the_oldest_of_its_events_and_no_larger_than_it_may_be() {
        let bench = Bench::new();
        let mut desk = bench.desk(vec![gathers("a", None)]);
        let large = |key: &str| {
            let text = Value::str("x".repeat(150 * 1024));
            Event { payload: Value::object([("alert_id", Value::str(key)), ("text", text)]), ..event(key) }
        };
        let late = Event { occurred: now().checked_add(SignedDuration::from_secs(9)).unwrap(), ..large("1") };
        let small = event("2");
        desk.intake.offer(vec![late, small, large("3")], vec![]).await.unwrap();
        bench.is_at(300);
        look(&desk.intake).await.unwrap();
        let rows = desk.taken();
        assert_eq!(rows.iter().map(ids).collect::<Vec<_>>(), [vec!["1", "2"], vec!["3"]]);
        assert_eq!(rows[0].occurred, now());
    }

    #[tokio::test]
    async fn a_changed_or_removed_flow_and_a_clock_set_back_end_the_waiting() {
        let bench = Bench::new();
        let mut desk = bench.desk(vec![gathers("a", None), gathers("b", None), gathers("c", None)]);
        offer(&desk, &["mde:1"]).await;
        // Of `a` there is another version, `b` is gone.
        let mut changed = gathers("a", None);
        changed.version = "v-a2".into();
        desk.deploy(vec![changed, gathers("c", None)]);
        offer(&desk, &["mde:2"]).await;
        look(&desk.intake).await.unwrap();
        let taken = |desk: &mut Desk| {
            let mut rows = desk.taken();
            rows.sort_by(|a, b| a.flow.cmp(&b.flow));
            rows.iter().map(|row| format!("{} {} {:?}", row.flow, row.version, ids(row))).collect::<Vec<_>>()
        };
        assert_eq!(taken(&mut desk), ["a v-a [\"mde:1\"]", "b v-b [\"mde:1\"]"]);
        bench.is_at(-3600);
        look(&desk.intake).await.unwrap();
        assert_eq!(taken(&mut desk), ["a v-a2 [\"mde:2\"]", "c v-c [\"mde:1\", \"mde:2\"]"]);
        assert!(bench.store.bundle("v-a2").unwrap().is_some());
    }

    #[tokio::test]
    async fn gathered_events_fill_the_backlog_and_their_run_starts_all_the_same() {
        let bench = Bench::new();
        let mut desk = bench.desk(vec![gathers("a", None)]);
        let gate = Arc::clone(&desk.intake.gate);
        gate.set_max(2);
        offer(&desk, &["mde:1"]).await;
        assert!(!gate.is_full());
        offer(&desk, &["mde:2"]).await;
        assert!(gate.is_full());
        // So it is after a restart.
        let again = bench.desk(vec![gathers("a", None)]);
        again.intake.gate.set_max(2);
        look(&again.intake).await.unwrap();
        assert!(again.intake.gate.is_full());
        bench.is_at(300);
        look(&desk.intake).await.unwrap();
        assert_eq!(desk.taken().len(), 1);
        assert_eq!((gate.open_runs(), gate.is_full()), (1, false));
    }

    #[tokio::test]
    async fn whom_a_person_starts_waits_for_nobody() {
        let mut desk = Bench::new().desk(vec![gathers("a", None)]);
        let chosen = Event { flow: Some("a".into()), ..event("mde:1") };
        desk.intake.offer(vec![chosen], vec![]).await.unwrap();
        assert_eq!(desk.taken().iter().map(ids).collect::<Vec<_>>(), [["mde:1"]]);
    }

    #[tokio::test]
    async fn the_ends_of_runs_are_gathered_in_the_commit_of_the_end() {
        let bench = Bench::new();
        let mut follows = gathers("after", None);
        follows.trigger.kind = "flow.finished".into();
        follows.trigger.connection = None;
        let statuses = vec!["succeeded".into()];
        follows.trigger.follows = Some(crate::check::program::Follows { flow: "f".into(), statuses, start: 0, end: 0 });
        let mut desk = bench.desk(vec![flow("f", "mde.alert.new", "mde"), follows]);
        offer(&desk, &["mde:1"]).await;
        let row = RunRow { status: RunStatus::Succeeded, ..desk.taken().remove(0) };
        let ops = follow::ops(&desk.intake.flows.now(), &row, now());
        journal::commit(&*bench.store, ops).await.unwrap();
        assert_eq!(bench.store.gatherings().unwrap().len(), 1);
        bench.is_at(300);
        look(&desk.intake).await.unwrap();
        let rows = desk.taken();
        assert_eq!(
            (rows.len(), &*rows[0].flow, rows[0].key.as_str()),
            (1, "after", &*format!("batch:succeeded:{}", row.id))
        );
    }
}
