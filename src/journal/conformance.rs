//! What every store must do, as one suite: a new store calls `suite` with a way to open an empty one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::channel;

use jiff::{SignedDuration, Timestamp};

use super::chain::ROOT;
use super::{
    Answer, Batch, Blob, Gather, Gathering, GatheringNo, Letter, LetterQuery, Offer, Op, Prune, Queued, Reservation,
    RunNo, RunQuery, RunRow, RunStatus, Sleep, Store, StoreError, Taken,
};
use crate::id::RunId;
use crate::value::Value;

/// Runs every case on an empty store of its own.
pub fn suite(open: &dyn Fn() -> Arc<dyn Store>) {
    let cases: [fn(&dyn Store); 21] = [
        answers_come_in_the_order_of_submission,
        an_event_starts_one_run,
        a_duplicate_in_one_batch_is_refused,
        a_gathered_event_is_known_and_starts_nothing_by_itself,
        a_gathering_is_full_by_number_and_by_bytes,
        a_gathering_starts_one_run_of_all_its_events_once,
        a_row_comes_back_as_it_was_given,
        turns_have_no_gap_and_no_double,
        a_failing_batch_leaves_nothing_and_harms_nobody,
        statuses_and_the_end_are_kept,
        what_has_not_begun_is_read_in_slices,
        who_sleeps_is_known_by_its_instant,
        runs_are_listed_by_every_criterion,
        runs_are_listed_in_pages,
        claims_end_and_are_released,
        reservations_count_once,
        bundles_are_written_once_and_names_are_replaced,
        blobs_are_kept_by_attempt,
        skipped_events_are_replaced,
        letters_are_listed_until_they_are_done,
        lines_of_the_audit_log_are_a_chain,
    ];
    for case in cases {
        case(&*open());
    }
}

/// Writes a batch and waits for its answer.
pub fn write(store: &dyn Store, ops: Vec<Op>) -> Result<Vec<Answer>, StoreError> {
    let (sender, receiver) = channel();
    store.write(Batch { ops, urgent: true, done: Some(Box::new(move |answer| sender.send(answer).unwrap())) });
    receiver.recv().unwrap()
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::new(1_795_000_000, 123_456_789).unwrap() + SignedDuration::from_secs(second)
}

pub fn offer(flow: &str, key: &str) -> Offer {
    Offer {
        flow: flow.into(),
        version: "00ff".into(),
        trigger: "mde.alert.new".into(),
        key: key.into(),
        accepted: at(10),
        occurred: at(0),
        payload: Value::object([("alert_id", Value::str("da1_1")), ("seen", Value::Datetime(at(3)))]),
        inputs: Value::empty(),
    }
}

/// Offers an event that must be new.
pub fn start(store: &dyn Store, flow: &str, key: &str) -> RunRow {
    match write(store, vec![Op::Offer(Box::new(offer(flow, key)))]).unwrap().remove(0) {
        Answer::Offered(Some(row)) => *row,
        other => panic!("not accepted: {other:?}"),
    }
}

fn turn(run: RunNo, seq: u32) -> Op {
    Op::Turn { run, seq, body: format!("turn {seq}").into_bytes() }
}

fn put(name: &str, text: &str) -> Op {
    Op::Put { name: name.into(), body: text.into() }
}

fn answers_come_in_the_order_of_submission(store: &dyn Store) {
    let (sender, receiver) = channel();
    for n in 0..100 {
        let sender = sender.clone();
        let done = Box::new(move |answer: Result<_, StoreError>| sender.send((n, answer.is_ok())).unwrap());
        store.write(Batch { ops: vec![put("last", &n.to_string())], urgent: n % 7 == 6, done: Some(done) });
    }
    drop(sender);
    let order: Vec<(i32, bool)> = receiver.iter().collect();
    assert_eq!(order, (0..100).map(|n| (n, true)).collect::<Vec<_>>());
    assert_eq!(store.get("last").unwrap().unwrap(), b"99");
}

fn an_event_starts_one_run(store: &dyn Store) {
    let row = start(store, "isolate", "mde:a");
    assert_eq!((row.status, row.accepted), (RunStatus::Queued, at(10)));
    let again = Offer { accepted: at(500), ..offer("isolate", "mde:a") };
    assert_eq!(write(store, vec![Op::Offer(Box::new(again))]).unwrap(), [Answer::Offered(None)]);
    let finish =
        Op::Finish { run: row.no, status: RunStatus::Succeeded, reason: None, ended: at(20), effects: BTreeMap::new() };
    write(store, vec![finish]).unwrap();
    let after_its_end = vec![Op::Offer(Box::new(offer("isolate", "mde:a")))];
    assert_eq!(write(store, after_its_end).unwrap(), [Answer::Offered(None)]);
    let known = |flow: &str, key: &str| store.is_known(flow, key).unwrap();
    assert!(known("isolate", "mde:a") && !known("notify", "mde:a") && !known("isolate", "mde:b"));
    assert!(start(store, "notify", "mde:a").no > row.no, "another flow has a run of its own");
    assert_eq!(store.runs(&RunQuery::default()).unwrap().len(), 2);
}

fn a_duplicate_in_one_batch_is_refused(store: &dyn Store) {
    let offers = [("f", "k"), ("f", "k"), ("f", "l")].map(|(flow, key)| Op::Offer(Box::new(offer(flow, key))));
    let answers = write(store, offers.into_iter().chain([put("watermark", "7")]).collect()).unwrap();
    let [Answer::Offered(Some(first)), Answer::Offered(None), Answer::Offered(Some(second)), Answer::None] = &*answers
    else {
        panic!("{answers:?}")
    };
    assert!(first.no < second.no);
    assert_eq!(store.get("watermark").unwrap().unwrap(), b"7");
}

fn gather(flow: &str, key: &str, slot: &str) -> Op {
    let event = offer(flow, key);
    Op::Gather(Box::new(Gather { event, slot: slot.into(), due: at(70), most: 3, most_bytes: 1_000 }))
}

/// The gathering that an event which must be new belongs to.
fn gathered(store: &dyn Store, op: Op) -> Gathering {
    match write(store, vec![op]).unwrap().remove(0) {
        Answer::Gathered(Some(gathering)) => *gathering,
        other => panic!("not gathered: {other:?}"),
    }
}

fn a_gathered_event_is_known_and_starts_nothing_by_itself(store: &dyn Store) {
    let first = gathered(store, gather("f", "k", "s"));
    assert_eq!((&*first.flow, &*first.version, first.slot.as_str(), first.events), ("f", "00ff", "s", 1));
    assert_eq!((first.opened, first.due, first.full), (at(10), at(70), false));
    assert!(store.is_known("f", "k").unwrap() && !store.is_known("g", "k").unwrap());
    assert_eq!(write(store, vec![gather("f", "k", "s")]).unwrap(), [Answer::Gathered(None)]);
    assert_eq!(write(store, vec![gather("f", "k", "t")]).unwrap(), [Answer::Gathered(None)], "whatever its slot");
    assert_eq!(write(store, vec![Op::Offer(Box::new(offer("f", "k")))]).unwrap(), [Answer::Offered(None)]);
    start(store, "f", "alone");
    assert_eq!(write(store, vec![gather("f", "alone", "s")]).unwrap(), [Answer::Gathered(None)]);
    let twice = write(store, vec![gather("f", "l", "s"), gather("f", "l", "s")]).unwrap();
    assert!(matches!(&*twice, [Answer::Gathered(Some(it)), Answer::Gathered(None)] if it.events == 2), "{twice:?}");
    // Another slot, another flow and another version gather by themselves.
    let mut newer = offer("f", "m");
    newer.version = "01ff".into();
    let newer = Gather { event: newer, slot: "s".into(), due: at(80), most: 3, most_bytes: 1_000 };
    for op in [gather("f", "n", "t"), gather("g", "k", "s"), Op::Gather(Box::new(newer))] {
        assert_eq!(gathered(store, op).events, 1);
    }
    let numbers: Vec<u32> = store.gatherings().unwrap().iter().map(|it| it.events).collect();
    assert_eq!(numbers, [2, 1, 1, 1]);
    assert_eq!(store.gathered(first.no).unwrap(), [offer("f", "k"), offer("f", "l")]);
    assert_eq!(store.gathered(99).unwrap(), []);
    assert_eq!(store.runs(&RunQuery::default()).unwrap().len(), 1);
    let open = store.gatherings().unwrap().remove(0);
    assert_eq!(store.taken("f", "k").unwrap(), Some(Taken::Gathering(open)));
    assert_eq!(store.taken("f", "z").unwrap(), None);
}

fn a_gathering_is_full_by_number_and_by_bytes(store: &dyn Store) {
    for (key, full) in [("a", false), ("b", false), ("c", true)] {
        assert_eq!(gathered(store, gather("f", key, "")).full, full, "{key}");
    }
    let next = gathered(store, gather("f", "d", ""));
    assert_eq!((next.events, next.full), (1, false));
    let large = |key: &str, size: usize| {
        let mut event = offer("f", key);
        event.payload = Value::object([("text", Value::str("x".repeat(size)))]);
        Op::Gather(Box::new(Gather { event, slot: "large".into(), due: at(70), most: 9, most_bytes: 1_000 }))
    };
    // One alone may be larger than all may be together.
    let numbers = [("e", 2_000, 1), ("g", 400, 1), ("h", 400, 2), ("i", 400, 1), ("j", 10, 2)];
    for (key, size, events) in numbers {
        assert_eq!(gathered(store, large(key, size)).events, events, "{key}");
    }
    let full: Vec<(u32, bool)> = store.gatherings().unwrap().iter().map(|it| (it.events, it.full)).collect();
    assert_eq!(full, [(3, true), (1, false), (1, true), (2, true), (2, false)]);
}

fn a_gathering_starts_one_run_of_all_its_events_once(store: &dyn Store) {
    gathered(store, gather("f", "a", ""));
    let gathering = gathered(store, gather("f", "b", ""));
    let close = |gathering: GatheringNo, events: u32| {
        let offer = Box::new(Offer { accepted: at(70), ..offer("f", "batch:a") });
        vec![Op::Close { gathering, events, offer }, put("closed", "yes")]
    };
    let refused = [Answer::Offered(None), Answer::None];
    assert_eq!(write(store, close(gathering.no, 1)).unwrap(), refused, "one came meanwhile");
    assert_eq!(write(store, close(gathering.no + 1, 2)).unwrap(), refused);
    assert_eq!(store.gathered(gathering.no).unwrap().len(), 2);
    let Answer::Offered(Some(row)) = write(store, close(gathering.no, 2)).unwrap().remove(0) else { panic!() };
    assert_eq!((row.key.as_str(), row.status), ("batch:a", RunStatus::Queued));
    assert_eq!(write(store, close(gathering.no, 2)).unwrap(), refused, "it is started once");
    assert_eq!((store.gatherings().unwrap(), store.gathered(gathering.no).unwrap()), (vec![], vec![]));
    // Nothing of it is old enough to be forgotten.
    let keys = |slice| Op::Prune(Prune::Keys { before: at(0), slice });
    write(store, (0..=u8::MAX).map(keys).collect()).unwrap();
    for key in ["a", "b"] {
        assert_eq!(store.taken("f", key).unwrap(), Some(Taken::Run(row.no)));
        assert_eq!(write(store, vec![gather("f", key, "")]).unwrap(), [Answer::Gathered(None)]);
    }
    assert_eq!(store.queued(0, 10).unwrap().rows, [*row]);
    // The number of a gathering that is gone is not given again.
    let next = gathered(store, gather("f", "c", ""));
    assert!(next.no > gathering.no);
    assert_eq!(write(store, close(next.no, 1)).unwrap().len(), 2);
    let single = start(store, "f", "d");
    assert_eq!(store.taken("f", "d").unwrap(), Some(Taken::Run(single.no)));
}

fn a_row_comes_back_as_it_was_given(store: &dyn Store) {
    let row = start(store, "f", "'; DROP TABLE runs; --");
    assert_eq!(store.run(&row.id).unwrap(), Some(row.clone()));
    assert_eq!(row.id, RunId::new(at(10), "f", "'; DROP TABLE runs; --"));
    assert_eq!(row.payload, offer("f", "k").payload);
    assert_eq!(store.run(&RunId::new(at(11), "f", "other")).unwrap(), None);
}

fn turns_have_no_gap_and_no_double(store: &dyn Store) {
    let (run, other) = (start(store, "f", "k").no, start(store, "f", "l").no);
    write(store, vec![turn(run, 0), turn(run, 1)]).unwrap();
    write(store, vec![turn(run, 2), turn(other, 0)]).unwrap();
    for wrong in [2, 4] {
        assert!(matches!(write(store, vec![turn(run, wrong)]), Err(StoreError::Failed(_))), "turn {wrong}");
    }
    let bodies = store.turns(run).unwrap();
    assert_eq!(bodies, [b"turn 0".to_vec(), b"turn 1".to_vec(), b"turn 2".to_vec()]);
    assert_eq!(store.turns(other).unwrap().len(), 1);
    assert!(store.turns(other + 1).unwrap().is_empty());
}

/// Submitted without waiting, so that a store with group commit has all of them in one group.
fn a_failing_batch_leaves_nothing_and_harms_nobody(store: &dyn Store) {
    let run = start(store, "f", "k").no;
    let unknown = Op::Status { run: 999, status: RunStatus::Running, reason: None };
    let batches = [
        vec![turn(run, 0), put("before", "1")],
        vec![put("half", "1"), Op::Offer(Box::new(offer("f", "half"))), turn(run, 0), put("half", "2")],
        vec![put("half", "3"), unknown],
        vec![turn(run, 1), put("after", "1")],
    ];
    let (sender, receiver) = channel();
    for (n, ops) in batches.into_iter().enumerate() {
        let sender = sender.clone();
        let done = Box::new(move |answer: Result<_, StoreError>| sender.send((n, answer.is_ok())).unwrap());
        store.write(Batch { ops, urgent: n == 3, done: Some(done) });
    }
    drop(sender);
    assert_eq!(receiver.iter().collect::<Vec<_>>(), [(0, true), (1, false), (2, false), (3, true)]);
    assert_eq!(store.turns(run).unwrap().len(), 2);
    let names = ["before", "half", "after"].map(|name| store.get(name).unwrap().is_some());
    assert_eq!(names, [true, false, true]);
    start(store, "f", "half");
}

fn statuses_and_the_end_are_kept(store: &dyn Store) {
    let row = start(store, "f", "k");
    let read = || store.run(&row.id).unwrap().unwrap();
    let reason = Some("asks: 5 in 10m".to_owned());
    write(store, vec![Op::Status { run: row.no, status: RunStatus::Waiting, reason: reason.clone() }]).unwrap();
    assert_eq!((read().status, read().reason), (RunStatus::Waiting, reason));
    assert_eq!(store.awake().unwrap(), [row.no]);
    write(store, vec![Op::Status { run: row.no, status: RunStatus::Running, reason: None }]).unwrap();
    assert_eq!((read().status, read().reason, read().ended), (RunStatus::Running, None, None));
    let effects = BTreeMap::from([("mde.isolate_machine".to_owned(), 1)]);
    let finish = Op::Finish {
        run: row.no,
        status: RunStatus::Dead,
        reason: Some("3 failures".into()),
        ended: at(99),
        effects: effects.clone(),
    };
    write(store, vec![finish]).unwrap();
    let end = read();
    assert_eq!((end.status, end.ended, end.effects), (RunStatus::Dead, Some(at(99)), effects));
    assert_eq!(end.payload, row.payload);
    assert!(store.awake().unwrap().is_empty());
    write(store, vec![Op::Status { run: row.no, status: RunStatus::Running, reason: None }]).unwrap();
    assert_eq!((read().status, read().ended), (RunStatus::Running, None), "a dead run goes on");
    assert_eq!(store.awake().unwrap(), [row.no]);
    let again =
        Op::Finish { run: row.no, status: RunStatus::Dead, reason: None, ended: at(120), effects: BTreeMap::new() };
    write(store, vec![again]).unwrap();
    start(store, "f", "l");
    let counts = BTreeMap::from([(RunStatus::Queued, 1), (RunStatus::Dead, 1)]);
    assert_eq!(store.counts().unwrap(), counts);
}

fn what_has_not_begun_is_read_in_slices(store: &dyn Store) {
    let rows: Vec<RunRow> = (0..5).map(|n| start(store, "f", &n.to_string())).collect();
    let [first, second, third, fourth, last] = &rows[..] else { panic!("five were started") };
    let queued = |after, limit| store.queued(after, limit).unwrap();
    let slice = |rows: &[&RunRow], horizon, more| Queued {
        rows: rows.iter().map(|row| (*row).clone()).collect(),
        horizon,
        more,
    };
    assert_eq!(queued(0, 2), slice(&[first, second], second.no, true));
    assert_eq!(queued(second.no, 9), slice(&[third, fourth, last], last.no, false));
    write(store, vec![Op::Status { run: third.no, status: RunStatus::Running, reason: None }, turn(third.no, 0)])
        .unwrap();
    assert_eq!(queued(second.no, 2), slice(&[fourth, last], last.no, true));
    assert_eq!(queued(last.no, 2), slice(&[], last.no, false));
    assert_eq!(store.awake().unwrap(), [third.no]);
    let whole = store.whole(&[third.no, last.no + 1, first.no]).unwrap();
    let [begun, unbegun] = &whole[..] else { panic!("{whole:?}") };
    assert_eq!((begun.row.no, begun.row.status, &unbegun.row), (third.no, RunStatus::Running, first));
    assert_eq!(begun.turns.as_ref().unwrap(), &store.turns(third.no).unwrap());
    assert!(unbegun.turns.as_ref().unwrap().is_empty() && begun.turns.as_ref().unwrap().len() == 1);
}

fn who_sleeps_is_known_by_its_instant(store: &dyn Store) {
    let runs: Vec<RunNo> = (0..5).map(|n| start(store, "f", &n.to_string()).no).collect();
    let begin = |run: &RunNo| Op::Status { run: *run, status: RunStatus::Running, reason: None };
    write(store, runs.iter().map(begin).collect()).unwrap();
    let sleep = |run: usize, sleep| Op::Sleep { run: runs[run], sleep };
    let until = |second| Sleep::Until(at(second));
    write(store, vec![sleep(0, until(9)), sleep(1, Sleep::ForPerson), sleep(2, until(5)), sleep(3, until(7))]).unwrap();
    assert_eq!(store.awake().unwrap(), [runs[4]]);
    assert_eq!(store.sleepers().unwrap(), [(runs[2], at(5)), (runs[3], at(7)), (runs[0], at(9))]);
    let end =
        Op::Finish { run: runs[3], status: RunStatus::Succeeded, reason: None, ended: at(8), effects: BTreeMap::new() };
    write(store, vec![sleep(2, Sleep::Awake), sleep(0, until(3)), end]).unwrap();
    assert_eq!(store.awake().unwrap(), [runs[2], runs[4]]);
    assert_eq!(store.sleepers().unwrap(), [(runs[0], at(3))]);
    let unknown = Op::Sleep { run: runs[4] + 1, sleep: Sleep::ForPerson };
    assert!(matches!(write(store, vec![unknown]), Err(StoreError::Failed(_))));
}

fn runs_are_listed_by_every_criterion(store: &dyn Store) {
    for (n, key) in ["mde:da1_1", "mde:da1%1", "xdr:DA1_1", "da1_1", "mde:xda1_1"].into_iter().enumerate() {
        let late = Offer { accepted: at(n as i64), ..offer(if n < 3 { "f" } else { "g" }, key) };
        write(store, vec![Op::Offer(Box::new(late))]).unwrap();
    }
    let keys = |query: RunQuery| store.runs(&query).unwrap().into_iter().map(|row| row.key).collect::<Vec<_>>();
    let by_key = |key: &str| keys(RunQuery { key: Some(key.into()), ..RunQuery::default() });
    assert_eq!(by_key("da1_1"), ["da1_1", "mde:da1_1"]);
    assert_eq!(by_key("mde:da1%1"), ["mde:da1%1"]);
    assert!(by_key("%").is_empty() && by_key("1").is_empty());
    let flow = RunQuery { flow: Some("g".into()), ..RunQuery::default() };
    assert_eq!(keys(flow), ["mde:xda1_1", "da1_1"]);
    let since = RunQuery { since: Some(at(2)), flow: Some("f".into()), ..RunQuery::default() };
    assert_eq!(keys(since), ["xdr:DA1_1"]);
    let status = |status| keys(RunQuery { status: Some(status), ..RunQuery::default() }).len();
    assert_eq!((status(RunStatus::Queued), status(RunStatus::Failed)), (5, 0));
}

fn runs_are_listed_in_pages(store: &dyn Store) {
    let mut numbers: Vec<RunNo> = (0..7).map(|n| start(store, "f", &n.to_string()).no).collect();
    numbers.reverse();
    let mut query = RunQuery { limit: 3, ..RunQuery::default() };
    let mut seen = vec![];
    loop {
        let page = store.runs(&query).unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 3);
        query.before = Some(last.no);
        seen.extend(page.iter().map(|row| row.no));
    }
    assert_eq!(seen, numbers);
}

fn claims_end_and_are_released(store: &dyn Store) {
    let claim = |run, now, until| {
        let op = Op::Claim { key: "hunt/x".into(), run, at: at(now), until: at(until) };
        write(store, vec![op]).unwrap().remove(0) == Answer::Claimed(true)
    };
    assert!(claim(1, 0, 100));
    assert!(!claim(2, 50, 150), "another run, while it lasts");
    assert!(!claim(1, 50, 150), "the same run, for a later item");
    assert!(claim(1, 50, 100), "the same claim again, after a restart");
    assert!(!claim(2, 99, 199));
    assert!(claim(2, 100, 200), "its time is over");
    write(store, vec![Op::Release { key: "hunt/x".into(), run: 1 }]).unwrap();
    assert!(!claim(3, 101, 201), "another run's claim is not freed");
    write(store, vec![Op::Release { key: "hunt/x".into(), run: 2 }]).unwrap();
    assert!(claim(3, 101, 201), "it was released");
}

fn reservations_count_once(store: &dyn Store) {
    let reserve = |scope: &str, key: &str, second| Op::Reserve { scope: scope.into(), key: key.into(), at: at(second) };
    let ops =
        [("*/write", "a", 2), ("*/write", "a", 5), ("mde/write", "a", 1), ("*/write", "b", 3), ("*/write", "a", 4)];
    write(store, ops.map(|(scope, key, second)| reserve(scope, key, second)).into()).unwrap();
    let row = |scope: &str, key: &str, second| Reservation { scope: scope.into(), key: key.into(), at: at(second) };
    let all = [row("mde/write", "a", 1), row("*/write", "b", 3), row("*/write", "a", 5)];
    assert_eq!(store.reservations(at(1)).unwrap(), all);
    assert_eq!(store.reservations(at(2)).unwrap(), all[1..]);
}

fn bundles_are_written_once_and_names_are_replaced(store: &dyn Store) {
    let bundle = |body: &str| Op::Bundle { version: "v1".into(), body: body.into() };
    write(store, vec![bundle("first"), put("n", "1")]).unwrap();
    write(store, vec![bundle("second"), put("n", "2")]).unwrap();
    assert_eq!(store.bundle("v1").unwrap().unwrap(), b"first");
    assert_eq!(store.get("n").unwrap().unwrap(), b"2");
    assert_eq!((store.bundle("v2").unwrap(), store.get("m").unwrap()), (None, None));
}

fn blobs_are_kept_by_attempt(store: &dyn Store) {
    let blob = |run, attempt, text: &str| Op::Blob { run, path: "/alert".into(), attempt, body: text.into() };
    let (run, other) = (start(store, "f", "k").no, start(store, "f", "l").no);
    write(store, vec![blob(run, 2, "b"), blob(run, 1, "old"), blob(other, 1, "else")]).unwrap();
    write(store, vec![blob(run, 1, "a")]).unwrap();
    let want = |attempt, text: &str| Blob { path: "/alert".into(), attempt, body: text.into() };
    assert_eq!(store.blobs(run).unwrap(), [want(1, "a"), want(2, "b")]);
    for of_no_run in [blob(999, 1, "x"), turn(999, 0)] {
        assert!(matches!(write(store, vec![of_no_run]), Err(StoreError::Failed(_))));
    }
}

fn skipped_events_are_replaced(store: &dyn Store) {
    let skip =
        |second, text: &str| Op::Skipped { flow: "f".into(), key: "k".into(), at: at(second), body: text.into() };
    write(store, vec![skip(1, "old"), Op::Audit { at: at(1), body: b"{}".to_vec() }]).unwrap();
    write(store, vec![skip(2, "new")]).unwrap();
    assert_eq!(store.skipped("f", "k").unwrap(), Some((at(2), b"new".to_vec())));
    assert_eq!(store.skipped("g", "k").unwrap(), None);
}

fn letters_are_listed_until_they_are_done(store: &dyn Store) {
    let letter = |flow: &str, key: &str, second, text: &str| Op::Letter {
        flow: flow.into(),
        key: key.into(),
        at: at(second),
        body: text.into(),
    };
    let done = |key: &str, dropped| Op::LetterDone { flow: "f".into(), key: key.into(), dropped };
    let keys = |query: &LetterQuery| store.letters(query).unwrap().into_iter().map(|it| it.key).collect::<Vec<_>>();
    let all = || keys(&LetterQuery::default());
    assert!(all().is_empty());
    write(store, vec![letter("f", "a", 1, "old"), letter("f", "b", 2, "b"), letter("g", "c", 3, "c")]).unwrap();
    write(store, vec![letter("f", "a", 4, "new")]).unwrap();
    assert_eq!(all(), ["a", "c", "b"], "the newest first, one for each flow and key");
    let a = Letter { flow: "f".into(), key: "a".into(), at: at(4), body: b"new".to_vec() };
    assert_eq!(store.letter(&Letter::id("f", "a")).unwrap(), Some(a));
    assert_eq!(keys(&LetterQuery { flow: Some("f".into()), ..LetterQuery::default() }), ["a", "b"]);
    assert_eq!(keys(&LetterQuery { since: Some(at(3)), limit: 1, ..LetterQuery::default() }), ["a"]);
    write(store, vec![done("a", true), done("b", false)]).unwrap();
    assert_eq!(all(), ["c"]);
    assert_eq!(store.letter(&Letter::id("f", "a")).unwrap(), None);
    write(store, vec![letter("f", "a", 5, "again"), letter("f", "b", 6, "again")]).unwrap();
    assert_eq!(all(), ["b", "c"], "what a person dropped stays dropped");
}

fn lines_of_the_audit_log_are_a_chain(store: &dyn Store) {
    let audit = |n: i64| Op::Audit { at: at(n), body: format!("{{\"n\":{n}}}").into_bytes() };
    write(store, vec![audit(1), audit(2)]).unwrap();
    write(store, vec![Op::Status { run: 999, status: RunStatus::Running, reason: None }, audit(9)]).unwrap_err();
    write(store, vec![audit(3)]).unwrap();
    let lines = store.audit(0, 100).unwrap();
    let mut previous = ROOT;
    for (n, line) in (1..).zip(&lines) {
        assert_eq!((line.no, line.at), (n, at(n)));
        assert_eq!(line.body, format!("{{\"n\":{n}}}").into_bytes());
        assert_eq!(line.hash, line.expected(&previous));
        previous = line.hash;
    }
    assert_eq!(lines.len(), 3);
    assert_eq!(store.audit(1, 1).unwrap(), lines[1..2]);
    assert!(store.audit(3, 5).unwrap().is_empty());
}
