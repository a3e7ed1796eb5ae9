//! What the conformance suite cannot ask of every store: files, locks, group commit, a full disk.

use std::path::Path;
use std::sync::mpsc::{Sender, channel};

use super::writer::WriterLoop;
use super::*;
use crate::journal::conformance::{self, at, offer, start, write};
use crate::journal::{Answer, Op, Sleep};

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir).unwrap()
}

fn put(name: impl ToString, body: Vec<u8>) -> Op {
    Op::Put { name: name.to_string(), body }
}

/// Holds the writer's thread inside an answer until the sender is dropped: what is queued meanwhile is one group.
fn hold(store: &dyn Store) -> Sender<()> {
    let (release, held) = channel::<()>();
    let (entered, inside) = channel();
    let done = Box::new(move |_| {
        entered.send(()).unwrap();
        let _released = held.recv();
    });
    store.write(Batch { ops: vec![], urgent: true, done: Some(done) });
    inside.recv().unwrap();
    release
}

#[test]
fn it_keeps_the_contract_of_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let opened = AtomicU64::new(0);
    conformance::suite(&|| {
        let n = opened.fetch_add(1, Ordering::Relaxed);
        Arc::new(open(&dir.path().join(n.to_string())))
    });
}

#[test]
fn a_reopened_store_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let row = start(&store, "f", "mde:a");
    write(&store, vec![Op::Turn { run: row.no, seq: 0, body: b"t".to_vec() }]).unwrap();
    // Nobody waits for this one: closing commits it.
    store.write(Batch { ops: vec![put("late", b"1".to_vec())], urgent: false, done: None });
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.run(&row.id).unwrap(), Some(row.clone()));
    assert_eq!(store.turns(row.no).unwrap(), [b"t".to_vec()]);
    assert_eq!(store.get("late").unwrap().unwrap(), b"1");
    let again = write(&store, vec![Op::Offer(Box::new(offer("f", "mde:a")))]).unwrap();
    assert_eq!(again, [Answer::Offered(None)]);
}

#[test]
fn a_damaged_run_does_not_take_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (bad, good) = (start(&store, "f", "mde:a"), start(&store, "f", "mde:b"));
    let odd = start(&store, "f", "mde:c");
    let other = rusqlite::Connection::open(dir.path().join(schema::FILE)).unwrap();
    other.execute("UPDATE run_data SET payload = '{' WHERE run = ?1", [bad.no]).unwrap();
    other.execute("UPDATE runs SET status = 'melted' WHERE no = ?1", [odd.no]).unwrap();
    let rows = [bad.clone(), odd.clone()].map(|row| store.run(&row.id).unwrap().unwrap());
    assert!(rows.iter().all(|row| row.status == RunStatus::Waiting && row.damaged.is_some()), "{rows:?}");
    let reasons = rows.each_ref().map(|row| row.reason.clone().unwrap_or_default());
    assert!(reasons[0].contains("its payload cannot be read") && reasons[1].contains("its status"), "{reasons:?}");
    let queued = store.queued(0, 9).unwrap().rows;
    assert_eq!(queued, [rows[0].clone(), good], "listed, and known to be damaged");
    assert_eq!(store.awake().unwrap(), [odd.no]);
    assert_eq!(store.runs(&RunQuery::default()).unwrap().len(), 3);
    assert_eq!(store.counts().unwrap(), BTreeMap::from([(RunStatus::Queued, 2), (RunStatus::Waiting, 1)]));
    // What a person ended is over, whatever can be read of it.
    let ended = at(50);
    let cancel = |run| Op::Finish { run, status: RunStatus::Cancelled, reason: None, ended, effects: BTreeMap::new() };
    write(&store, vec![cancel(bad.no), cancel(odd.no)]).unwrap();
    assert!(store.awake().unwrap().is_empty() && store.queued(0, 9).unwrap().rows.len() == 1);
    assert_eq!(store.run(&bad.id).unwrap().unwrap().status, RunStatus::Cancelled);
}

#[cfg(unix)]
#[test]
fn a_store_that_others_can_reach_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let file = dir.path().join(schema::FILE);
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let refused = || SqliteStore::open(dir.path()).err().map(|error| error.to_string()).unwrap_or_default();
    mode(dir.path(), 0o770);
    assert!(refused().contains("chmod go-w"), "{}", refused());
    mode(dir.path(), 0o700);
    mode(&file, 0o640);
    assert!(refused().contains("chmod 600"), "{}", refused());
    mode(&file, 0o600);
    let elsewhere = dir.path().join("elsewhere.db");
    std::fs::rename(&file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    assert!(refused().contains("link"), "{}", refused());
}

#[test]
fn a_second_service_is_refused_and_a_reader_is_not() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(SqliteStore::open_read(dir.path()), Err(StoreError::Failed(_))));
    let store = open(dir.path());
    assert!(matches!(SqliteStore::open(dir.path()), Err(StoreError::Locked(_))));
    let reader = SqliteStore::open_read(dir.path()).unwrap();
    let row = start(&store, "f", "k");
    assert_eq!(reader.run(&row.id).unwrap(), Some(row));
    assert!(matches!(write(&reader, vec![put("n", vec![])]), Err(StoreError::Failed(_))));
    drop(store);
    open(dir.path());
}

#[test]
fn a_newer_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let file = rusqlite::Connection::open(dir.path().join(schema::FILE)).unwrap();
    file.execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(matches!(SqliteStore::open(dir.path()), Err(StoreError::Newer { found: 99, .. })));
    assert!(matches!(SqliteStore::open_read(dir.path()), Err(StoreError::Newer { found: 99, .. })));
}

#[test]
fn a_store_of_the_first_format_is_brought_forward() {
    let dir = tempfile::tempdir().unwrap();
    let row = start(&open(dir.path()), "f", "mde:a");
    let file = rusqlite::Connection::open(dir.path().join(schema::FILE)).unwrap();
    file.execute_batch("DROP INDEX runs_asleep; ALTER TABLE runs DROP COLUMN wake; PRAGMA user_version = 1").unwrap();
    drop(file);
    let store = open(dir.path());
    assert_eq!(store.queued(0, 9).unwrap().rows, std::slice::from_ref(&row));
    write(&store, vec![Op::Sleep { run: row.no, sleep: Sleep::Until(at(1)) }]).unwrap();
    assert_eq!(store.sleepers().unwrap(), [(row.no, at(1))]);
}

#[cfg(unix)]
#[test]
fn only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("data");
    let _store = open(&folder);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn waiting_writers_share_commits() {
    const THREADS: u64 = 64;
    const EACH: u64 = 50;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let release = hold(&store);
    let before = store.commits();
    let (sender, answers) = channel();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, sender) = (&store, sender.clone());
            scope.spawn(move || {
                for n in 0..EACH {
                    let sender = sender.clone();
                    let done = Box::new(move |answer: Result<_, StoreError>| sender.send(answer.is_ok()).unwrap());
                    let ops = vec![put(format!("{thread}/{n}"), vec![])];
                    store.write(Batch { ops, urgent: true, done: Some(done) });
                }
            });
        }
    });
    drop((sender, release));
    assert_eq!(answers.iter().filter(|ok| *ok).count() as u64, THREADS * EACH);
    assert_eq!(store.commits() - before, (THREADS * EACH).div_ceil(1024));
}

#[test]
fn an_urgent_batch_takes_the_waiting_ones_along() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let release = hold(&store);
    let before = store.commits();
    store.write(Batch { ops: vec![put("n", b"idle".to_vec())], urgent: false, done: None });
    let (sender, answer) = channel();
    let done = Box::new(move |result: Result<_, StoreError>| sender.send(result.is_ok()).unwrap());
    store.write(Batch { ops: vec![put("m", vec![])], urgent: true, done: Some(done) });
    drop(release);
    assert!(answer.recv().unwrap());
    assert_eq!(store.commits() - before, 1);
    assert_eq!(store.get("n").unwrap().unwrap(), b"idle");
}

#[test]
fn a_listener_that_panics_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let done = Box::new(|_| std::panic::resume_unwind(Box::new("a fault of a listener")));
    store.write(Batch { ops: vec![], urgent: true, done: Some(done) });
    assert!(write(&store, vec![put("n", vec![])]).is_ok());
}

#[test]
fn the_last_owner_may_be_a_listener() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    let (sender, dropped) = channel();
    let owner = Arc::clone(&store);
    let release = hold(&*store);
    let done = Box::new(move |_| {
        drop(owner);
        sender.send(()).unwrap();
    });
    store.write(Batch { ops: vec![], urgent: true, done: Some(done) });
    drop(store);
    drop(release);
    dropped.recv().unwrap();
}

#[test]
fn a_full_disk_fails_the_group_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(schema::FILE);
    std::fs::write(&file, []).unwrap();
    let mut writer = WriterLoop::new(schema::open_writer(&file).unwrap(), Arc::default());
    let pages = |writer: &WriterLoop, limit: u64| {
        writer.connection().execute_batch(&format!("PRAGMA max_page_count = {limit}")).unwrap();
    };
    pages(&writer, 1);
    let group = |writer: &mut WriterLoop, size: usize| {
        let (sender, answers) = channel();
        let batch = |n: usize| {
            let sender = sender.clone();
            let done = Box::new(move |answer: Result<Vec<Answer>, StoreError>| sender.send(answer).unwrap());
            Batch { ops: vec![put(n, vec![7; size])], urgent: true, done: Some(done) }
        };
        writer.write((0..3).map(batch).collect());
        drop(sender);
        answers.iter().collect::<Vec<_>>()
    };
    let full = group(&mut writer, 100_000);
    assert!(full.len() == 3 && full.iter().all(|answer| matches!(answer, Err(StoreError::Full(_)))), "{full:?}");
    pages(&writer, 1_000_000);
    let again = group(&mut writer, 100_000);
    assert!(again.len() == 3 && again.iter().all(Result::is_ok), "{again:?}");
}

#[test]
fn instants_come_back_exactly() {
    for instant in [at(0), jiff::Timestamp::UNIX_EPOCH, "1969-12-31T23:59:59.999999999Z".parse().unwrap()] {
        assert_eq!(schema::instant(schema::nanos(instant)), instant);
    }
    let far = schema::instant(schema::nanos(jiff::Timestamp::MAX));
    assert!(far > "2262-01-01T00:00:00Z".parse().unwrap());
}
