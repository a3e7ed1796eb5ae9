//! Retention: every hour, what its time is over for is forgotten, a little in each commit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Retention;
use crate::journal::{self, Answer, Op, Prune, REMEMBERED, Store, StoreError};

const EVERY: Duration = Duration::from_secs(3600);

/// Between two steps of which the first left something to do, so that the work of the service goes first.
const PAUSE: Duration = Duration::from_millis(20);

/// How long what is kept, and how far back limits count: changed by a reload.
#[derive(Clone)]
pub(super) struct Retained(Arc<Mutex<(Retention, Duration)>>);

impl Retained {
    pub(super) fn new(retention: Retention, horizon: Duration) -> Self {
        Retained(Arc::new(Mutex::new((retention, horizon))))
    }

    pub(super) fn set(&self, retention: Retention, horizon: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (retention, horizon);
    }

    async fn sweep(&self, store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
        let (retention, horizon) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sweep(store, &retention, horizon, now).await
    }
}

/// Forgets until the service stops.
pub(super) async fn run(store: Arc<dyn Store>, retained: Retained, clock: Clock, stop: CancellationToken) {
    let mut wait = Duration::from_secs(60);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait / clock.pace()) => {}
        }
        wait = EVERY;
        tokio::select! {
            () = stop.cancelled() => return,
            done = retained.sweep(&*store, clock.now()) => {
                if let Err(error) = done {
                    tracing::warn!(%error, "not all whose time is over was forgotten; it is tried again in an hour");
                }
            }
        }
    }
}

/// Forgets once what is due at an instant. `horizon` is how far back limits count.
pub(super) async fn sweep(
    store: &dyn Store,
    retention: &Retention,
    horizon: Duration,
    now: Timestamp,
) -> Result<(), StoreError> {
    let before = |age: Duration| {
        let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
        now.checked_sub(age).unwrap_or(Timestamp::MIN)
    };
    let (ended, dead) = (before(retention.runs), before(retention.dead_letters));
    numbered(store, |after| Prune::Runs { after, ended, dead }).await?;
    let payloads = before(retention.payloads);
    numbered(store, |after| Prune::Payloads { after, ended: payloads }).await?;
    let counted = before(horizon).min(ended);
    let steps = [
        Prune::Letters { before: dead },
        Prune::Skipped { before: ended },
        Prune::Reservations { before: counted },
        Prune::Claims { before: now },
        Prune::Audit { before: before(retention.audit) },
    ];
    for step in steps {
        while one(store, step.clone()).await?.is_some() {}
    }
    let remembered = before(REMEMBERED);
    for slice in 0..=u8::MAX {
        one(store, Prune::Keys { before: remembered, slice }).await?;
    }
    Ok(())
}

async fn numbered(store: &dyn Store, step: impl Fn(journal::RunNo) -> Prune) -> Result<(), StoreError> {
    let mut after = 0;
    while let Some(next) = one(store, step(after)).await? {
        after = next;
    }
    Ok(())
}

async fn one(store: &dyn Store, step: Prune) -> Result<Option<journal::RunNo>, StoreError> {
    let answers = journal::commit(store, vec![Op::Prune(step)]).await?;
    let next = answers.into_iter().find_map(|answer| match answer {
        Answer::Pruned { next } => next,
        _ => None,
    });
    if next.is_some() {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::journal::chain::{Anchor, Walk};
    use crate::journal::sqlite::SqliteStore;
    use crate::journal::{Batch, Offer, RunQuery, RunRow, RunStatus};
    use crate::value::Value;

    fn day(n: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + n * 86_400).unwrap()
    }

    async fn offer(store: &SqliteStore, key: &str, accepted: Timestamp) -> Option<RunRow> {
        let payload = Value::object([("alert_id", Value::str(key))]);
        let (flow, version, trigger, key) = ("f".into(), "00ff".into(), "mde.alert.new".into(), key.to_owned());
        let (occurred, inputs) = (accepted, Value::empty());
        let offer = Offer { flow, version, trigger, key, accepted, occurred, payload, inputs };
        match journal::commit(store, vec![Op::Offer(Box::new(offer))]).await.unwrap().remove(0) {
            Answer::Offered(row) => row.map(|row| *row),
            other => panic!("{other:?}"),
        }
    }

    /// A run with a turn and an answer, ended or waiting.
    async fn run(store: &SqliteStore, key: &str, accepted: i64, end: Option<(RunStatus, i64)>) -> RunRow {
        let row = offer(store, key, day(accepted)).await.unwrap();
        let run = row.no;
        let body = vec![b'x'; 500];
        let mut ops = vec![
            Op::Turn { run, seq: 0, body: body.clone() },
            Op::Blob { run, path: "/a".into(), attempt: 1, body },
            Op::Audit { at: day(accepted), body: key.as_bytes().to_vec() },
        ];
        ops.push(match end {
            Some((status, at)) => Op::Finish { run, status, reason: None, ended: day(at), effects: BTreeMap::new() },
            None => Op::Status { run, status: RunStatus::Waiting, reason: None },
        });
        journal::commit(store, ops).await.unwrap();
        row
    }

    async fn at(store: &SqliteStore, n: i64) {
        sweep(store, &Retention::default(), Duration::from_secs(86_400), day(n)).await.unwrap();
    }

    fn keys(store: &SqliteStore) -> Vec<String> {
        store.runs(&RunQuery::default()).unwrap().into_iter().map(|run| run.key).collect()
    }

    #[tokio::test]
    async fn what_its_time_is_over_for_is_forgotten_and_live_runs_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let fill = SqliteStore::open(dir.path()).unwrap();
        let done = run(&fill, "mde:done", 0, Some((RunStatus::Succeeded, 0))).await;
        let waits = run(&fill, "mde:waits", 0, None).await;
        let dead = run(&fill, "mde:dead", 0, Some((RunStatus::Dead, 1))).await;
        let later = run(&fill, "mde:later", 0, Some((RunStatus::Failed, 80))).await;
        let letter = Op::Letter { flow: "f".into(), key: "k".into(), at: day(0), body: b"{}".to_vec() };
        let skipped = Op::Skipped { flow: "f".into(), key: "s".into(), at: day(0), body: b"{}".to_vec() };
        let used = Op::Reserve { scope: "*/write".into(), key: "k".into(), at: day(0) };
        journal::commit(&fill, vec![letter, skipped, used]).await.unwrap();
        drop(fill);
        let store = SqliteStore::open(dir.path()).unwrap();

        at(&store, 31).await;
        let kept = |row: &RunRow| store.turns(row.no).unwrap().len() + store.blobs(row.no).unwrap().len();
        assert_eq!([&done, &waits, &dead, &later].map(kept), [0, 2, 2, 2]);
        let row = store.run(&done.id).unwrap().unwrap();
        assert_eq!((row.status, row.payload, row.damaged), (RunStatus::Succeeded, Value::empty(), None));
        assert_eq!(keys(&store).len(), 4);

        at(&store, 92).await;
        assert_eq!(keys(&store), ["mde:later", "mde:waits"]);
        assert_eq!((kept(&waits), kept(&later)), (2, 2));
        let counts = BTreeMap::from([(RunStatus::Waiting, 1), (RunStatus::Failed, 1)]);
        assert_eq!(store.counts().unwrap(), counts);
        assert!(store.letters(&Default::default()).unwrap().is_empty());
        assert_eq!(store.skipped("f", "s").unwrap(), None);
        assert!(store.reservations(day(0)).unwrap().is_empty());
        assert_eq!(offer(&store, "mde:done", day(92)).await, None, "its key is remembered");
        assert_eq!(store.audit(0, 9).unwrap().len(), 4);

        run(&store, "mde:new", 399, None).await;
        at(&store, 402).await;
        assert_eq!(keys(&store), ["mde:new", "mde:waits"]);
        let line = Op::Audit { at: day(402), body: b"last".to_vec() };
        journal::commit(&store, vec![line]).await.unwrap();
        let lines = store.audit(0, 9).unwrap();
        let mut walk = Walk::new(Anchor::read(&store).unwrap());
        lines.iter().try_for_each(|line| walk.step(line)).unwrap();
        assert_eq!((walk.first().no, walk.last().no), (4, 6), "the chain goes on from its anchor");
    }

    #[tokio::test]
    async fn a_key_is_forgotten_after_four_hundred_days_and_its_number_is_not_given_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        let done = run(&store, "mde:done", 0, Some((RunStatus::Succeeded, 0))).await;
        drop(store);
        let store = SqliteStore::open(dir.path()).unwrap();
        at(&store, 399).await;
        assert!(keys(&store).is_empty());
        drop(store);
        let store = SqliteStore::open(dir.path()).unwrap();
        assert_eq!(offer(&store, "mde:done", day(399)).await, None);
        at(&store, 401).await;
        let again = offer(&store, "mde:done", day(401)).await.unwrap();
        assert!(again.no > done.no);
    }

    #[tokio::test]
    async fn many_runs_are_forgotten_in_many_steps_and_the_room_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let size = || dir.path().join("watchfloor.db").metadata().unwrap().len();
        let mut grown = 0;
        for round in 0..3 {
            let store = SqliteStore::open(dir.path()).unwrap();
            for n in 0..600 {
                let row = offer(&store, &format!("mde:{round}-{n}"), day(100 * round)).await.unwrap();
                let (status, ended, run) = (RunStatus::Succeeded, day(100 * round), row.no);
                // No two bodies are alike, so that they can't be packed away.
                let body = (0..64).flat_map(|part| crate::id::digest16(&[&row.key, &part.to_string()])).collect();
                let ops = vec![
                    Op::Turn { run, seq: 0, body },
                    Op::Finish { run, status, reason: None, ended, effects: BTreeMap::new() },
                ];
                store.write(Batch { ops, urgent: false, done: None });
            }
            drop(store);
            let store = SqliteStore::open(dir.path()).unwrap();
            assert_eq!(keys(&store).len(), 600);
            at(&store, 100 * round + 99).await;
            assert!(keys(&store).is_empty());
            drop(store);
            grown = grown.max(size() * u64::from(round == 0));
        }
        assert!(size() < grown * 3 / 2, "{} after {grown}", size());
    }
}
