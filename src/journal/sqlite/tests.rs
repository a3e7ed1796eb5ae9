//! What the conformance suite cannot ask of every store: files, locks, group commit, a full disk.

use std::path::Path;
use std::sync::mpsc::{Sender, channel};

use rusqlite::types::Value as Cell;

use super::writer::WriterLoop;
use super::*;
use crate::journal::chain::{Anchor, Walk};
use crate::journal::conformance::{self, at, offer, start, write};
use crate::journal::{self, Answer, Op};

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
    // With all that is read still in the log, and with all of it sorted into the tables after each commit.
    for log in [writer::LOG, 0] {
        conformance::suite(&|| {
            let n = opened.fetch_add(1, Ordering::Relaxed);
            Arc::new(SqliteStore::open_with(&dir.path().join(n.to_string()), log).unwrap())
        });
    }
}

/// A run whose first half is in the tables and whose second half is in the log is one run.
#[test]
fn tables_and_log_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let turn = |run, seq: u32| Op::Turn { run, seq, body: format!("turn {seq}").into_bytes() };
    let blob = |run, attempt| Op::Blob { run, path: "/a".into(), attempt, body: vec![7; 300] };
    let store = open(dir.path());
    let row = start(&store, "f", "mde:a");
    write(&store, vec![turn(row.no, 0), blob(row.no, 1)]).unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.counts().unwrap(), BTreeMap::from([(RunStatus::Queued, 1)]));
    let other = start(&store, "f", "mde:b");
    let effects = BTreeMap::from([("email.send".to_owned(), 2)]);
    let (run, status, ended) = (row.no, RunStatus::Failed, at(50));
    let finish = Op::Finish { run, status, reason: Some("why".into()), ended, effects: effects.clone() };
    write(&store, vec![turn(row.no, 1), blob(row.no, 2), finish]).unwrap();
    assert!(write(&store, vec![turn(row.no, 1)]).is_err());
    let (duplicate, id) = (vec![Op::Offer(Box::new(offer("f", "mde:a")))], row.id.clone());
    assert_eq!(write(&store, duplicate.clone()).unwrap(), [Answer::Offered(None)]);
    let want = RunRow { status, reason: Some("why".into()), ended: Some(ended), effects, ..row };
    let look = |store: &dyn Store| {
        assert_eq!(store.run(&id).unwrap().as_ref(), Some(&want));
        assert_eq!(store.turns(want.no).unwrap(), [b"turn 0".to_vec(), b"turn 1".to_vec()]);
        assert_eq!(store.blobs(want.no).unwrap().len(), 2);
        assert_eq!(store.counts().unwrap(), BTreeMap::from([(RunStatus::Queued, 1), (RunStatus::Failed, 1)]));
        assert_eq!(store.queued(0, 9).unwrap().rows, std::slice::from_ref(&other));
        assert!(store.awake().unwrap().is_empty());
        let query = RunQuery { status: Some(RunStatus::Queued), key: Some("b".into()), ..RunQuery::default() };
        assert_eq!(store.runs(&query).unwrap(), std::slice::from_ref(&other));
        assert_eq!(store.runs(&RunQuery::default()).unwrap(), [other.clone(), want.clone()]);
    };
    look(&store);
    look(&SqliteStore::open_read(dir.path()).unwrap());
    drop(store);
    look(&open(dir.path()));
}

/// Who reads often keeps the log's tail; whatever is sorted meanwhile, it reads what one sees who reads all of it.
#[test]
fn what_a_reader_keeps_of_the_log_is_never_out_of_date() {
    for log in [0, 700, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open_with(dir.path(), log).unwrap();
        let runs: Vec<i64> = (0..5).map(|n| start(&store, "f", &format!("mde:{n}")).no).collect();
        for round in 0..60 {
            let (run, seq) = (runs[round % 5], u32::try_from(round / 5).unwrap());
            write(&store, vec![Op::Turn { run, seq, body: format!("turn {seq} of {run}").into_bytes() }]).unwrap();
            let whole = store.whole(&runs).unwrap();
            for (whole, no) in whole.iter().zip(&runs) {
                assert_eq!(whole.turns.as_ref().unwrap(), &store.turns(*no).unwrap(), "log {log}, round {round}");
            }
            assert_eq!((whole.len(), &whole[0].row), (5, &store.run(&whole[0].row.id).unwrap().unwrap()));
            assert_eq!(store.queued(0, 9).unwrap().rows.len(), 5);
        }
    }
}

/// As after a kill: the log was not sorted, and the next start finds all of it.
#[test]
fn a_log_that_was_left_behind_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(schema::FILE);
    std::fs::write(&file, []).unwrap();
    let mut writer = WriterLoop::new(schema::open_writer(&file).unwrap(), Arc::default(), writer::LOG).unwrap();
    let ops = vec![Op::Offer(Box::new(offer("f", "mde:a"))), Op::Audit { at: at(0), body: b"{}".to_vec() }];
    writer.write(vec![Batch { ops: ops.clone(), urgent: true, done: None }]);
    drop(writer);
    let mut writer = WriterLoop::new(schema::open_writer(&file).unwrap(), Arc::default(), writer::LOG).unwrap();
    let (sender, answer) = channel();
    let done = Box::new(move |result: Result<Vec<Answer>, _>| sender.send(result).unwrap());
    writer.write(vec![Batch { ops, urgent: true, done: Some(done) }]);
    assert_eq!(answer.recv().unwrap().unwrap()[0], Answer::Offered(None));
    drop(writer);
    let store = SqliteStore { reads: read::Pool::new(file), writer: None, commits: Arc::default(), _lock: None };
    assert_eq!(store.queued(0, 9).unwrap().rows.len(), 1);
}

/// Stores of each earlier format, as SQL.
const OLD: [(&str, i64); 2] = [
    (include_str!("../../../tests/journals/format-1.sql"), 1),
    (include_str!("../../../tests/journals/format-2.sql"), 2),
];

fn old_store(dir: &Path, sql: &str) -> rusqlite::Connection {
    let file = dir.join(schema::FILE);
    drop(schema::private_file(&file).unwrap());
    let store = rusqlite::Connection::open(&file).unwrap();
    store.execute_batch(sql).unwrap();
    store
}

fn backups(dir: &Path) -> Vec<std::path::PathBuf> {
    let files = dir.read_dir().unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("watchfloor.format-")).collect()
}

#[test]
fn a_store_of_an_earlier_format_is_copied_and_brought_forward() {
    for (sql, format) in OLD {
        let dir = tempfile::tempdir().unwrap();
        let old = old_store(dir.path(), sql);
        let rows = |sql: &str| {
            let mut statement = old.prepare(sql).unwrap();
            let columns = statement.column_count();
            let found = statement
                .query_map([], |row| (0..columns).map(|n| row.get::<_, Cell>(n)).collect::<Result<Vec<_>, _>>());
            found.unwrap().collect::<Result<Vec<_>, _>>().unwrap()
        };
        let (runs, turns) =
            (rows("SELECT no, id, key FROM runs ORDER BY no DESC"), rows("SELECT run, body FROM turns"));
        let (answers, lines) = (rows("SELECT run, path, body FROM blobs"), rows("SELECT at, body FROM audit"));
        drop(old);
        assert!(matches!(SqliteStore::open_read(dir.path()), Err(StoreError::Failed(_))), "only the service migrates");
        let store = open(dir.path());
        let found = store.runs(&RunQuery::default()).unwrap();
        let as_rows = found
            .iter()
            .map(|run| vec![Cell::from(run.no), Cell::from(run.id.to_string()), Cell::from(run.key.clone())]);
        assert_eq!(as_rows.collect::<Vec<_>>(), runs);
        let mut now = (vec![], vec![]);
        for run in found.iter().rev() {
            assert!(store.is_known(&run.flow, &run.key).unwrap());
            assert!(!run.payload.as_map().unwrap().is_empty());
            now.0.extend(
                store.turns(run.no).unwrap().into_iter().map(|body| vec![Cell::from(run.no), Cell::from(body)]),
            );
            let blobs = store.blobs(run.no).unwrap().into_iter();
            now.1.extend(blobs.map(|blob| vec![Cell::from(run.no), Cell::from(blob.path), Cell::from(blob.body)]));
        }
        assert_eq!(now.0, turns);
        assert_eq!(now.1.len(), answers.len());
        assert!(now.1.iter().all(|answer| answers.contains(answer)));
        let chain = store.audit(0, 1000).unwrap();
        assert_eq!(chain.len(), lines.len());
        let counted: u64 = store.counts().unwrap().values().sum();
        assert_eq!(counted, runs.len() as u64);
        assert_eq!(store.awake().unwrap().len(), found.iter().filter(|run| !run.status.is_final()).count());
        drop(store);
        drop(open(dir.path()));
        let [backup] = &backups(dir.path())[..] else { panic!("{:?}", backups(dir.path())) };
        let copy = rusqlite::Connection::open(backup).unwrap();
        let kept: i64 = copy.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, format);
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&backup.metadata().unwrap().permissions()) & 0o777, 0o600);
    }
}

/// What can't be brought forward stays as it was, and a later start begins again.
#[test]
fn a_migration_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let old = old_store(dir.path(), OLD[0].0);
    old.execute_batch("UPDATE runs SET status = 'melted' WHERE no = 9").unwrap();
    drop(old);
    assert!(matches!(SqliteStore::open(dir.path()), Err(StoreError::Failed(_))));
    let file = rusqlite::Connection::open(dir.path().join(schema::FILE)).unwrap();
    let turns: i64 = file.query_row("SELECT count(*) FROM turns", [], |row| row.get(0)).unwrap();
    assert!(turns > 0 && backups(dir.path()).is_empty());
    file.execute_batch("UPDATE runs SET status = 'running' WHERE no = 9").unwrap();
    drop(file);
    assert_eq!(open(dir.path()).runs(&RunQuery::default()).unwrap().len(), 10);
}

#[test]
fn a_backup_is_whole_and_knows_that_it_is_one() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path());
    let row = start(&store, "f", "mde:a");
    write(&store, vec![put("n", vec![7; 3 << 20]), Op::Turn { run: row.no, seq: 0, body: b"t".to_vec() }]).unwrap();
    let file = other.path().join(schema::FILE);
    let reader = SqliteStore::open_read(dir.path()).unwrap();
    let bytes = reader.copy_to(&file, at(77)).unwrap();
    assert!(bytes > 3 << 20 && bytes == file.metadata().unwrap().len());
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions()) & 0o777, 0o600);
    assert!(matches!(reader.copy_to(&file, at(78)), Err(StoreError::Failed(_))), "it never replaces a file");
    assert_eq!(other.path().read_dir().unwrap().count(), 1, "nothing else is left beside it");
    start(&store, "f", "mde:b");
    let restored = open(other.path());
    assert_eq!(restored.runs(&RunQuery::default()).unwrap(), std::slice::from_ref(&row));
    assert_eq!(restored.turns(row.no).unwrap(), [b"t".to_vec()]);
    assert_eq!(journal::restored(&restored).unwrap(), Some(at(77)));
    write(&restored, vec![journal::settled()]).unwrap();
    assert_eq!((journal::restored(&restored).unwrap(), journal::restored(&store).unwrap()), (None, None));
}

#[test]
fn whoever_changes_the_audit_log_is_found() {
    let line = |n: i64| Op::Audit { at: at(n), body: format!("{{\"n\":{n}}}").into_bytes() };
    let changes = [
        (
            "UPDATE audit SET body = (SELECT body FROM audit WHERE no = 2) WHERE no = 5",
            "line 5 is not what was written",
        ),
        ("UPDATE audit SET at = at + 1 WHERE no = 3", "line 3 is not what was written"),
        ("UPDATE audit SET hash = zeroblob(32) WHERE no = 9", "line 9 is not what was written"),
        ("DELETE FROM audit WHERE no = 4", "line 4 is missing"),
        ("DELETE FROM audit WHERE no <= 2", "line 1 is missing"),
        ("UPDATE audit SET no = -no WHERE no IN (6, 7); UPDATE audit SET no = 13 + no WHERE no < 0", "line 6 is not"),
    ];
    for (sql, wanted) in changes {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        write(&store, (1..=10).map(line).collect()).unwrap();
        let walk = |store: &SqliteStore| {
            let mut walk = Walk::new(Anchor::read(store).unwrap());
            let lines = store.audit(0, 100).unwrap();
            lines.iter().try_for_each(|line| walk.step(line)).map(|()| walk.last().no)
        };
        assert_eq!(walk(&store), Ok(10));
        drop(store);
        rusqlite::Connection::open(dir.path().join(schema::FILE)).unwrap().execute_batch(sql).unwrap();
        let fault = walk(&open(dir.path())).unwrap_err();
        assert!(fault.contains(wanted), "{sql}: {fault}");
    }
}

/// More keys than are kept in memory, and more prefixes than are shared.
#[test]
fn keys_are_known_wherever_they_lie() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open_with(dir.path(), 0).unwrap();
    let key = |n: usize| format!("{}:k{n}", ["mde", "xdr", "x:y"].get(n % 3).copied().unwrap_or_default());
    let ops = |keys: std::ops::Range<usize>| keys.map(|n| Op::Offer(Box::new(offer("f", &key(n))))).collect::<Vec<_>>();
    write(&store, ops(0..5000)).unwrap();
    let odd: Vec<Op> = (0..40).map(|n| Op::Offer(Box::new(offer("f", &format!("p{n}:odd{n}"))))).collect();
    write(&store, odd.clone()).unwrap();
    write(&store, ops(5000..5100)).unwrap();
    let all = ops(0..5100).into_iter().chain(odd);
    let again = write(&store, all.collect()).unwrap();
    assert!(again.iter().all(|answer| *answer == Answer::Offered(None)));
    let found = |wanted: &str| {
        let query = RunQuery { key: Some(wanted.into()), ..RunQuery::default() };
        store.runs(&query).unwrap().into_iter().map(|run| run.key).collect::<Vec<_>>()
    };
    for (wanted, key) in [("k3", "mde:k3"), ("x:y:k5", "x:y:k5"), ("y:k5", "x:y:k5"), ("k5099", "x:y:k5099")] {
        assert_eq!(found(wanted), [key], "{wanted}");
    }
    assert_eq!(found("odd39"), ["p39:odd39"]);
    assert_eq!(found("p39:odd39"), ["p39:odd39"]);
    assert!(found("5").is_empty());
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
    let store = SqliteStore::open_with(dir.path(), 0).unwrap();
    let (bad, good) = (start(&store, "f", "mde:a"), start(&store, "f", "mde:b"));
    let odd = start(&store, "f", "mde:c");
    drop(store);
    let other = rusqlite::Connection::open(dir.path().join(schema::FILE)).unwrap();
    other.execute("UPDATE parts SET body = x'00' WHERE no >> ?1 = ?2", [i64::from(schema::PART_BITS), bad.no]).unwrap();
    other.execute("UPDATE runs SET status = 99 WHERE no = ?1", [odd.no]).unwrap();
    let store = open(dir.path());
    let rows = [bad.clone(), odd.clone()].map(|row| store.run(&row.id).unwrap().unwrap());
    assert!(rows.iter().all(|row| row.status == RunStatus::Waiting && row.damaged.is_some()), "{rows:?}");
    let reasons = rows.each_ref().map(|row| row.reason.clone().unwrap_or_default());
    assert!(reasons[0].contains("its payload cannot be read") && reasons[1].contains("its status"), "{reasons:?}");
    let queued = store.queued(0, 9).unwrap().rows;
    assert_eq!(queued, [rows[0].clone(), good], "listed, and known to be damaged");
    assert_eq!(store.awake().unwrap(), [odd.no]);
    assert_eq!(store.runs(&RunQuery::default()).unwrap().len(), 3);
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
    let mut writer = WriterLoop::new(schema::open_writer(&file).unwrap(), Arc::default(), writer::LOG).unwrap();
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
