//! The crash matrix of what a store does to itself: it is brought forward from an earlier format, forgets what its time is
//! over for, and is copied. Killed or failed by its disk anywhere in that, it starts again with nothing lost.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value as Json, json};
use watchfloor::clock::Clock;
use watchfloor::journal::sqlite::SqliteStore;
use watchfloor::journal::{self, Answer, Offer, Op, RunQuery, RunRow, RunStatus, Store};
use watchfloor::value::Value;

use crate::bin::{Site, Tenant, wait_for};
use crate::journals::lay_out;
use crate::matrix::{ENDED_ITSELF, each};

/// Sixty seconds from the start to the first sweep are thirty milliseconds, the hour to the next one two seconds.
const PACE: u32 = 2000;

type Case = (&'static str, u32, &'static str);

/// Each point with each fault.
fn cross(points: &[(&'static str, u32)]) -> Vec<Case> {
    points.iter().flat_map(|(point, nth)| ["kill", "enospc", "eio"].map(|fault| (*point, *nth, fault))).collect()
}

/// The service, which may end before it says that it is ready.
fn run() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchfloor"));
    command.arg("run");
    command
}

/// A store of before and its tenant; what its runs wait for comes soon.
fn old_site(name: &str) -> (Tenant, Site) {
    let from = Clock::system().now().as_second();
    let tenant = Tenant::with_clock(Clock::paced(Timestamp::from_second(from).unwrap(), 25), 51, 14, |_| {});
    let site = Site::new(&tenant).shipped("isolate-high-severity").set("fresh_for", "off");
    lay_out(&site, name);
    (tenant, site.env("WATCHFLOOR_CLOCK", &format!("{from}:25")))
}

/// What became of each run of an old store, by id: key, acceptance and status.
type Ends = BTreeMap<String, [String; 3]>;

fn ends(site: &Site) -> Ends {
    let text = |run: &Json, key: &str| run[key].as_str().unwrap_or_default().to_owned();
    let runs = site.settled(10, 60);
    runs.iter().map(|run| (text(run, "id"), ["key", "accepted", "status"].map(|key| text(run, key)))).collect()
}

#[test]
fn a_migration_that_dies_anywhere_is_begun_again_and_loses_nothing() {
    const FORMATS: [&str; 2] = ["format-1.sql", "format-2.sql"];
    static CALM: [OnceLock<Ends>; 2] = [OnceLock::new(), OnceLock::new()];
    let points =
        [("backup.before", 1), ("backup.after", 1), ("migrate.run", 7), ("migrate.before", 1), ("migrate.after", 1)];
    let cases: Vec<(usize, Case)> =
        [0, 1].into_iter().flat_map(|format| cross(&points).into_iter().map(move |case| (format, case))).collect();
    each(&cases, |(format, (point, nth, fault))| {
        let calm = CALM[*format].get_or_init(|| {
            let (_tenant, site) = old_site(FORMATS[*format]);
            let service = site.start(&[]);
            let ends = ends(&site);
            service.kill();
            ends
        });
        let (_tenant, site) = old_site(FORMATS[*format]);
        let site = site.env("WATCHFLOOR_FAIL", &format!("{point}:{nth}:{fault}"));
        let mut service = site.begin(run());
        let ended = wait_for("the start ends at the point", 40, || service.ended());
        match *fault {
            "kill" => assert_eq!(ended.signal(), Some(ENDED_ITSELF), "{}", service.log()),
            _ => {
                let why = if *fault == "enospc" { "no space left on device" } else { "disk I/O error" };
                wait_for("it says why", 10, || service.log().contains(why).then_some(()));
                assert!(ended.code().is_some_and(|code| code != 0), "{ended:?}");
            }
        }
        let site = site.env("WATCHFLOOR_FAIL", "");
        let service = site.start(&[]);
        assert_eq!(&ends(&site), calm);
        assert!(service.stop().success());
        let kept = site.path().join("data").read_dir().unwrap();
        let kept: Vec<_> = kept.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let copies = kept.iter().filter(|name| name.starts_with("watchfloor.format-") && name.ends_with(".db")).count();
        // What was killed after its copy was whole leaves that one too; what failed takes it away.
        assert!((1..=2).contains(&copies), "{kept:?}");
        assert!(!kept.iter().any(|name| name.ends_with(".part")), "a half copy is left behind: {kept:?}");
    });
}

/// Waits longer than anything is kept.
const SLEEPY: &str = "
flow: sleepy
owner: soc@contoso.example
trigger: { type: webhook, name: w, fields: { n: int }, dedupe: string(trigger.n) }
steps:
  - { wait: 1000d }
  - { set: { seen: trigger.n } }
";

const OLD: usize = 600;

/// Runs of long ago, by how many days ago they ended: forgotten altogether, and kept without what they were given.
async fn fill(store: &SqliteStore, now: Timestamp) {
    let mut lines = 0;
    for n in 0..OLD + 40 {
        let days = if n < OLD { 200 } else { 60 };
        let at = now.checked_sub(SignedDuration::from_hours(24 * days)).unwrap();
        let offer = Offer {
            flow: "old".into(),
            version: "00ff".into(),
            trigger: "webhook".into(),
            key: format!("w:{n}"),
            accepted: at,
            occurred: at,
            payload: Value::object([("n", Value::Int(i64::try_from(n).unwrap()))]),
            inputs: Value::empty(),
        };
        let answers = journal::commit(store, vec![Op::Offer(Box::new(offer))]).await.unwrap();
        let Some(Answer::Offered(Some(row))) = answers.into_iter().next() else { panic!("{n} was known") };
        let (run, status) = (row.no, if n < OLD && n % 50 == 0 { RunStatus::Dead } else { RunStatus::Succeeded });
        let mut ops = vec![Op::Turn { run, seq: 0, body: b"{}".to_vec() }];
        if n % 3 == 0 {
            lines += 1;
            let at = now.checked_sub(SignedDuration::from_hours(24 * 500)).unwrap();
            ops.push(Op::Audit { at, body: format!("{{\"line\":{lines}}}").into_bytes() });
        }
        ops.push(Op::Finish { run, status, reason: None, ended: at, effects: BTreeMap::new() });
        journal::commit(store, ops).await.unwrap();
    }
}

#[test]
fn forgetting_that_dies_anywhere_loses_no_live_run_and_no_key() {
    let points =
        [("prune.before", 1), ("prune.after", 1), ("prune.before", 3), ("prune.after", 4), ("prune.before", 9)];
    let cases = cross(&points);
    each(&cases, |(point, nth, fault)| {
        let tenant = Tenant::new(84, 2, |_| {});
        let site = Site::new(&tenant).flow("sleepy", SLEEPY);
        let service = site.start(&[]);
        let live: BTreeSet<String> = (0..3)
            .map(|n| {
                let (status, body) = tenant.hook(&service.url, &json!({ "n": n })).unwrap();
                assert_eq!(status, 202, "{body}");
                body["run"].as_str().unwrap().to_owned()
            })
            .collect();
        assert!(service.stop().success());
        let now = Clock::system().now();
        let folder = site.path().join("data");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(fill(&SqliteStore::open(&folder).unwrap(), now));

        let armed = format!("{point}:{nth}:{fault}");
        let site = site.env("WATCHFLOOR_CLOCK", &format!("{}:{PACE}", now.as_second()));
        let site = site.env("WATCHFLOOR_FAIL", &armed);
        let mut service = site.begin(run());
        let (site, service) = if *fault == "kill" {
            let ended = wait_for(&format!("{armed} is passed"), 40, || service.ended());
            assert_eq!(ended.signal(), Some(ENDED_ITSELF), "{}", service.log());
            let site = site.env("WATCHFLOOR_FAIL", "");
            let service = site.begin(run());
            (site, service)
        } else {
            let said = "as WATCHFLOOR_FAIL asks";
            wait_for(&format!("{armed} is passed"), 40, || service.log().contains(said).then_some(()));
            (site, service)
        };
        let forgotten = wait_for("the runs of long ago are forgotten", 60, || {
            let store = site.store();
            let rows = store.runs(&RunQuery::default()).unwrap();
            let kept = rows.iter().filter(|row| &*row.flow == "old").count();
            let bare = rows.iter().filter(|row| &*row.flow == "old").all(|row| row.payload == Value::empty());
            (kept == 40 && bare && store.audit(0, 1000).unwrap().is_empty()).then_some(rows)
        });
        service.kill();
        let still: BTreeSet<String> = forgotten
            .iter()
            .filter(|row| &*row.flow == "sleepy" && !row.status.is_final() && row.damaged.is_none())
            .map(|row| row.id.as_str().to_owned())
            .collect();
        assert_eq!(still, live);
        let store = site.store();
        for n in 0..OLD + 40 {
            assert!(store.is_known("old", &format!("w:{n}")).unwrap(), "the key of {n} is forgotten");
        }
        let turns = |row: &RunRow| store.turns(row.no).unwrap().len();
        assert!(forgotten.iter().filter(|row| &*row.flow == "sleepy").all(|row| turns(row) > 0));
        let audit = site.cli(&["audit", "verify"]);
        assert_eq!(audit.code, 0, "{audit:?}");
    });
}

/// How many runs the store in a file has.
fn runs_in(file: &Path) -> usize {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(file, folder.path().join("watchfloor.db")).unwrap();
    SqliteStore::open_read(folder.path()).unwrap().runs(&RunQuery::default()).unwrap().len()
}

#[test]
fn a_backup_that_dies_leaves_no_half_copy_and_the_next_one_is_whole() {
    let tenant = Tenant::new(85, 30, |_| {});
    tenant.feed(30);
    let site = Site::new(&tenant).shipped("isolate-high-severity");
    let service = site.start(&["--from", "1d"]);
    let runs = site.settled(tenant.endpoint_alerts(30), 60).len();
    each(&cross(&[("backup.before", 1), ("backup.after", 1)]), |(point, nth, fault)| {
        let to = site.path().join(format!("{point}-{fault}.db"));
        let backup = |armed: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_watchfloor"));
            command.arg("backup").arg(&to).current_dir(site.path()).env("WATCHFLOOR_FAIL", armed);
            command.output().unwrap()
        };
        let done = backup(&format!("{point}:{nth}:{fault}"));
        match *fault {
            "kill" => assert_eq!(done.status.signal(), Some(ENDED_ITSELF), "{done:?}"),
            _ => assert!(done.status.code().is_some_and(|code| code != 0), "{done:?}"),
        }
        // A file of that name is whole or is not there.
        assert_eq!(to.is_file(), *point == "backup.after");
        if *point == "backup.before" {
            let again = backup("");
            assert!(again.status.success(), "{again:?}");
        }
        assert_eq!(runs_in(&to), runs);
    });
    assert!(service.stop().success());
}
