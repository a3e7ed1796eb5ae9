//! The crash matrix: the real binary is killed, or its disk fails, at every named transition of the journal, for every
//! kind of action. Afterwards the run has succeeded, each effect took place as often as it may, and the ten invariants
//! hold.
//!
//! Each case is one event in one installation with a tenant of its own. The clocks of both run fast, so that the half
//! minute for which a lost answer is looked up takes a second.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use watchfloor::clock::{Clock, stopwatch};

use crate::bin::{Site, Tenant, wait_for};
use crate::invariants::{self, Rules};

pub(crate) const PACE: u32 = 25;
/// Cases that wait at the same time: each spends most of its time asleep.
const TOGETHER: usize = 6;
/// SIGABRT: the process ended itself where it was told to.
pub(crate) const ENDED_ITSELF: i32 = 6;

/// What a case does, and what is known about its effect.
#[derive(Clone, Copy)]
struct Kind {
    /// `ALERT`, `CLOUD`, `DEVICE` and `DEVICES` stand for ids of the tenant.
    step: &'static str,
    action: &'static str,
    /// Effects that are due.
    due: u32,
    /// The number of the turn that holds the action's result, among those that nobody waits for.
    result: u32,
    /// Whether a service can be asked if it took effect: then it never takes effect twice.
    verifiable: bool,
}

const READ: Kind = Kind {
    step: "{ id: it, action: mde.get_alert, with: { alert_id: ALERT } }",
    action: "mde.get_alert",
    due: 0,
    result: 2,
    verifiable: true,
};
const MAIL: Kind = Kind {
    step: "{ action: email.send, with: { to: [soc@contoso.example], subject: x, text: \"about ALERT\" } }",
    action: "email.send",
    due: 1,
    result: 2,
    verifiable: false,
};
const TEAMS: Kind = Kind {
    step: "{ action: teams.post, with: { title: x, text: \"about ALERT\" } }",
    action: "teams.post",
    due: 1,
    result: 2,
    verifiable: false,
};
const UPDATE: Kind = Kind {
    step: "{ action: mde.update_alert, with: { alert_id: ALERT, status: InProgress } }",
    action: "mde.update_alert",
    due: 1,
    result: 2,
    verifiable: false,
};
const CLOSE: Kind = Kind {
    step: "{ action: cloud_apps.close_benign, with: { alert_id: CLOUD, comment: fine } }",
    action: "cloud_apps.close_benign",
    due: 1,
    result: 2,
    verifiable: true,
};
const SCAN: Kind = Kind {
    step: "{ action: mde.run_antivirus_scan, with: { machine_id: DEVICE, comment: x } }",
    action: "mde.run_antivirus_scan",
    due: 1,
    result: 3,
    verifiable: true,
};
const ISOLATE: Kind = Kind {
    step: "{ action: mde.isolate_machine, with: { machine_id: DEVICE, comment: x } }",
    action: "mde.isolate_machine",
    due: 1,
    result: 3,
    verifiable: true,
};
const EACH: Kind = Kind {
    step: "{ foreach: \"DEVICES\", as: device, max_items: 9, at_once: 2, do: [ { action: mde.isolate_machine, with: \
           { machine_id: \"{{ device }}\", comment: x } } ] }",
    action: "mde.isolate_machine",
    due: 3,
    result: 4,
    verifiable: true,
};

/// One after the other, so that each claims its device in a commit of its own.
const ONCE: Kind = Kind {
    step: "{ foreach: \"DEVICES\", as: device, key: device, once_per: 1h, max_items: 9, at_once: 1, do: [ { action: \
           mde.isolate_machine, with: { machine_id: \"{{ device }}\", comment: x } } ] }",
    ..EACH
};

#[derive(Clone, Debug)]
struct Case {
    point: &'static str,
    nth: u32,
    fault: &'static str,
}

impl Case {
    /// Whether the service's reply may be lost to the journal here, so that what cannot be looked up may go out again.
    fn loses_the_reply(&self, kind: &Kind) -> bool {
        match self.point {
            "send.after" | "finish.before" => true,
            "turn.before" => self.nth >= kind.result,
            _ => false,
        }
    }
}

/// Every point that the kind passes, with every fault that can come there.
fn cases(kind: &Kind) -> Vec<Case> {
    const ALL: &[&str] = &["kill", "enospc", "eio"];
    const LIES: &[&str] = &["kill", "eio"];
    const KILL: &[&str] = &["kill"];
    let mut points = vec![
        ("offer.before", 1, ALL),
        ("offer.after", 1, KILL),
        ("turn.before", 1, ALL),
        ("turn.after", 1, LIES),
        ("read.before", 1, KILL),
        ("read.after", 1, KILL),
        ("turn.before", kind.result, ALL),
        ("turn.after", kind.result, LIES),
        ("finish.before", 1, ALL),
        ("finish.after", 1, LIES),
    ];
    if kind.due > 0 {
        points.extend([
            ("intent.before", 1, ALL),
            ("intent.after", 1, LIES),
            ("send.before", 1, KILL),
            ("send.after", 1, KILL),
        ]);
    }
    if kind.due > 1 {
        points.extend([
            ("intent.before", 2, ALL),
            ("intent.after", 3, LIES),
            ("send.before", 2, KILL),
            ("send.after", 3, KILL),
        ]);
    }
    // The look-up before the call.
    if kind.result > 2 {
        points.extend([("read.before", 2, KILL), ("read.after", 2, KILL), ("turn.before", 2, ALL)]);
    }
    let each = |(point, nth, faults): (&'static str, u32, &'static [&'static str])| {
        faults.iter().map(move |fault| Case { point, nth, fault })
    };
    points.into_iter().flat_map(each).collect()
}

#[test]
fn a_read_survives_every_fault_at_every_point() {
    all(&READ);
}

#[test]
fn a_mail_survives_every_fault_at_every_point() {
    all(&MAIL);
}

#[test]
fn a_post_survives_every_fault_at_every_point() {
    all(&TEAMS);
}

#[test]
fn a_write_survives_every_fault_at_every_point() {
    all(&UPDATE);
}

#[test]
fn a_close_survives_every_fault_at_every_point() {
    all(&CLOSE);
}

#[test]
fn a_scan_survives_every_fault_at_every_point() {
    all(&SCAN);
}

#[test]
fn an_isolation_survives_every_fault_at_every_point() {
    all(&ISOLATE);
}

#[test]
fn isolations_of_a_loop_survive_every_fault_at_every_point() {
    all(&EACH);
}

/// The claim of an item is in the same commit as the turn that asked for it: no item is left out, and none is taken twice.
#[test]
fn a_claim_survives_every_fault_at_every_point() {
    let faults = [("claim.before", 1), ("claim.before", 3), ("claim.after", 1), ("claim.after", 2)];
    let cases: Vec<Case> = faults
        .into_iter()
        .flat_map(|(point, nth)| ["kill", "enospc", "eio"].map(|fault| Case { point, nth, fault }))
        .filter(|case| (case.point, case.fault) != ("claim.after", "enospc"))
        .collect();
    each(&cases, |case| carry_out(&ONCE, case));
}

/// Each life dies at another point of the same isolation, the next one while it puts right what the last one left.
#[test]
fn a_crash_while_recovering_from_a_crash_loses_nothing_either() {
    let from = Clock::system().now().as_second();
    let clock = Clock::paced(Timestamp::from_second(from).unwrap(), PACE);
    let tenant = Tenant::with_clock(clock, 82, 24, |options| options.action_delay = Duration::ZERO);
    tenant.feed(24);
    let (alert, machine) = tenant.high().swap_remove(0);
    let event = json!({ "alertId": alert, "machineId": machine });
    let mut site = site(&ISOLATE, &tenant, &alert, &machine).env("WATCHFLOOR_CLOCK", &format!("{from}:{PACE}"));
    const FIRST: &str = "offer.after";
    // The effect takes place in the third life; those after it look for it.
    let points =
        ["read.before", "send.after", "read.before", "read.after", "turn.before", "finish.before", "finish.after"];
    for point in [FIRST].iter().chain(&points) {
        site = site.env("WATCHFLOOR_FAIL", &format!("{point}:1:kill"));
        // A life may be over before it says that it is ready.
        if let Ok(mut service) = site.try_start(&[]) {
            let watch = stopwatch();
            if *point == FIRST {
                assert!(tenant.hook(&service.url, &event).is_none(), "the service ends before it answers");
            }
            let ended = wait_for(&format!("{point} is passed"), 60, || {
                let said = || site.cli(&["runs", "show", site.runs()[0]["id"].as_str().unwrap()]).out;
                assert!(watch.elapsed().as_secs() < 40, "{point} is not passed: {}", said());
                service.ended()
            });
            assert_eq!(ended.signal(), Some(ENDED_ITSELF), "{point}: {}", service.log());
        }
        intents_were_first(&site, &tenant);
    }
    let site = site.env("WATCHFLOOR_FAIL", "");
    let service = site.start(&[]);
    let runs = site.settled(1, 60);
    assert_eq!(runs[0]["status"], "succeeded", "{runs:?}");
    service.kill();
    assert_eq!(tenant.effects()[ISOLATE.action], 1);
    let events = vec![("one", BTreeSet::from([alert]))];
    invariants::hold(&site, &tenant, &Rules { events, ..Rules::default() });
}

const LISTED: &str = "
flow: one
owner: soc@contoso.example
trigger: { type: cloud_apps.alert.new, connection: mdca }
steps:
  - { set: { seen: trigger.alert_id } }
";

/// The list has more than one page. Killed between two of them, before and after their runs and the watermark are
/// committed, and with a disk that fails there, the next life reads on and nothing is left out: not even what is older than
/// the overlap, since the first life was told to begin earlier.
#[test]
fn a_poll_that_dies_between_pages_leaves_no_alert_out() {
    let cases = [
        ("page", 1, "kill"),
        ("offer.before", 1, "kill"),
        ("offer.after", 1, "kill"),
        ("offer.before", 2, "kill"),
        ("offer.before", 1, "enospc"),
        ("offer.before", 2, "eio"),
        ("watermark.before", 2, "kill"),
        ("watermark.after", 2, "kill"),
        ("watermark.before", 2, "enospc"),
        ("watermark.before", 1, "eio"),
        ("watermark.before", 2, "eio"),
    ];
    each(&cases, |(point, nth, fault)| {
        let tenant = Tenant::new(83, 420, |options| options.lateness = Duration::from_secs(3 * 3600));
        tenant.feed(420);
        let world = tenant.world();
        let cloud =
            |id: &str| world.plan.alerts.iter().any(|alert| alert.id == id && world.plan.device_of(alert).is_none());
        let listed = world.born().into_iter().filter(|(id, _)| cloud(id));
        let listed: BTreeMap<String, Timestamp> = listed.map(|(id, at)| (format!("mdca:{id}"), at)).collect();
        assert!(listed.len() > 100, "more than a page: {}", listed.len());
        let armed = format!("{point}:{nth}:{fault}");
        let site = Site::new(&tenant).flow("one", LISTED).env("WATCHFLOOR_FAIL", &armed);
        let first = site.try_start(&["--from", "1d"]);
        let (site, service) = match (*fault, first) {
            ("kill", first) => {
                // It may be over before it says that it is ready.
                if let Ok(mut service) = first {
                    wait_for(&format!("{armed} is passed"), 40, || service.ended());
                }
                let site = site.env("WATCHFLOOR_FAIL", "");
                let service = site.start(&[]);
                (site, service)
            }
            (_, first) => (site, first.unwrap()),
        };
        site.settled(listed.len(), 60);
        let events = vec![("one", listed.keys().cloned().collect())];
        let watermark = wait_for("the watermark is stored", 20, || invariants::read(&site).watermark(POLLER));
        assert!(watermark <= Clock::system().now());
        service.kill();
        let watermark = Some((POLLER, listed));
        invariants::hold(&site, &tenant, &Rules { events, watermark, ..Rules::default() });
    });
}

const POLLER: &str = "poll/mdca/cloud_apps.alert.new";

/// Carries all cases of a kind out.
fn all(kind: &Kind) {
    each(&cases(kind), |case| carry_out(kind, case));
}

/// Does something for each case, some at a time, and says for which it failed.
pub(crate) fn each<C: std::fmt::Debug + Sync>(cases: &[C], work: impl Fn(&C) + Sync) {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..TOGETHER {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(case))) {
                        let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                        failed.lock().unwrap().push(format!("{case:?}: {why}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} cases\n{}", failed.len(), cases.len(), failed.join("\n"));
}

fn carry_out(kind: &Kind, case: &Case) {
    let from = Clock::system().now().as_second();
    let clock = Clock::paced(Timestamp::from_second(from).unwrap(), PACE);
    let tenant = Tenant::with_clock(clock, 81, 24, |_| {});
    tenant.feed(24);
    let (alert, machine) = tenant.high().swap_remove(0);
    let event = json!({ "alertId": alert, "machineId": machine });
    let armed = format!("{}:{}:{}", case.point, case.nth, case.fault);
    let site = site(kind, &tenant, &alert, &machine).env("WATCHFLOOR_CLOCK", &format!("{from}:{PACE}"));
    let site = site.env("WATCHFLOOR_FAIL", &armed);
    let mut service = site.start(&[]);
    let told = tenant.hook(&service.url, &event).is_some_and(|(status, _)| status == 202);
    let site = if case.fault == "kill" {
        let ended = wait_for(&format!("{armed} is passed"), 40, || service.ended());
        assert_eq!(ended.signal(), Some(ENDED_ITSELF), "{}", service.log());
        intents_were_first(&site, &tenant);
        let site = site.env("WATCHFLOOR_FAIL", "");
        service = site.start(&[]);
        site
    } else {
        site
    };
    // Who is not told that an event was taken sends it again.
    if !told {
        wait_for("the event is taken", 20, || tenant.hook(&service.url, &event).filter(|(status, _)| *status == 202));
    }
    let runs = site.settled(1, 60);
    assert!(case.fault == "kill" || service.log().contains("as WATCHFLOOR_FAIL asks"), "{armed} was not passed");
    assert_eq!(runs[0]["status"], "succeeded", "{runs:?}\n{}", service.log());
    service.kill();
    let done = tenant.effects().get(kind.action).copied().unwrap_or(0);
    let may = kind.due + u32::from(!kind.verifiable && case.loses_the_reply(kind));
    assert!((kind.due..=may).contains(&done), "{} took effect {done} times, {}..={may} are due", kind.action, kind.due);
    let events = vec![("one", BTreeSet::from([alert]))];
    invariants::hold(&site, &tenant, &Rules { events, ..Rules::default() });
}

/// Between the crash and the restart: whatever took effect has an intent on disk.
fn intents_were_first(site: &Site, tenant: &Tenant) {
    let mut wrong = Vec::new();
    invariants::effects_have_intents(&invariants::read(site), &tenant.ledger(), &mut wrong);
    assert!(wrong.is_empty(), "before the restart: {}", wrong.join("\n"));
}

/// Reads before and after the action, so that its result is a turn of its own.
fn site(kind: &Kind, tenant: &Tenant, alert: &str, machine: &str) -> Site {
    let devices: Vec<String> = tenant.high().into_iter().take(3).map(|(_, device)| format!("'{device}'")).collect();
    let world = tenant.world();
    let cloud = world.plan.alerts.iter().find(|alert| world.plan.traveller(alert).is_some()).unwrap();
    let step = kind.step.replace("ALERT", alert).replace("CLOUD", &cloud.id);
    let step = step.replace("DEVICES", &format!("[{}]", devices.join(", "))).replace("DEVICE", machine);
    let read = |id: &str| format!("  - {{ id: {id}, action: mde.get_machine, with: {{ machine_id: {machine} }} }}\n");
    let flow = format!(
        "flow: one\nowner: soc@contoso.example\ntrigger: {{ type: webhook, name: w, fields: {{ alertId: string, machineId: \
         string }}, dedupe: trigger.alertId }}\nsteps:\n{}  - {step}\n{}",
        read("before"),
        read("after")
    );
    Site::new(tenant).flow("one", &flow)
}
