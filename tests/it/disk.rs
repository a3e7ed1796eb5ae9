//! A disk that is full (S14): no intent on disk, no call; nothing is promised that is not on disk; all of it goes on by
//! itself when there is room.

use std::process::Command;

use watchfloor::journal::Store;

use crate::bin::{ISOLATE, MAIL, Service, Site, Tenant, wait_for};
use crate::service::{BY_HOOK, event};

/// The service, with the signal ignored that would end a process whose file grows over its limit: what is left of the limit
/// is a write that fails, as on a full disk.
fn start(site: &Site, args: &[&str]) -> Service {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" run \"$@\"", env!("CARGO_BIN_EXE_watchfloor")]).args(args);
    let mut service = site.begin(command);
    service.url = service.says("ready on ");
    service
}

fn watermark(site: &Site) -> Option<Vec<u8>> {
    site.store().get("poll/mde/mde.alert.new").unwrap()
}

const LATE: &str = r#"
flow: late
trigger: { type: webhook, name: w, fields: { alertId: string, machineId: string } }
steps:
  - { wait: 3s }
  - action: mde.isolate_machine
    with: { machine_id: "{{ trigger.machineId }}", comment: "late" }
  - action: email.send
    with: { to: [soc@contoso.example], subject: "Isolated {{ trigger.alertId }}", text: "{{ trigger.alertId }}" }
"#;

#[test]
fn a_full_disk_lets_nothing_out_and_nothing_in_and_loses_nothing() {
    let tenant = Tenant::new(91, 40, |_| {});
    tenant.feed(10);
    let site = Site::new(&tenant).flow("late", LATE).shipped("isolate-high-severity");
    let service = start(&site, &["--from", "1d"]);
    let polled = tenant.endpoint_alerts(10);
    site.settled(polled, 60);
    let before = tenant.effects();
    let moved = watermark(&site).unwrap();
    let (alert, machine) = tenant.high().pop().unwrap();
    let (status, body) = tenant.hook(&service.url, &event(&alert, &machine)).unwrap();
    assert_eq!(status, 202, "{body}");
    let run = body["run"].as_str().unwrap().to_owned();
    service.limit_files("0");
    // A delivery in that moment is not promised, and the caller is told to bring it again.
    let (status, after) = tenant.knock(&service.url, &event("a", "m")).unwrap();
    assert!(status == 503 && after.is_some(), "{status}");
    tenant.feed(30);
    // The wait ends, the look is a read; the isolation has no intent on disk.
    wait_for("the intent could not be written", 40, || {
        let log = service.log();
        (log.contains("a turn could not be written") && log.contains("storing what was polled")).then_some(())
    });
    assert_eq!(tenant.effects(), before, "a call went out without its intent on disk");
    assert_eq!(watermark(&site).unwrap(), moved, "the watermark moved past alerts that started nothing");
    assert_eq!(site.runs().len(), polled + 1);
    service.limit_files("unlimited");
    site.run_is(&run, &["succeeded"], 60);
    let runs = site.settled(tenant.endpoint_alerts(40) + 1, 90);
    assert!(runs.iter().all(|run| run["status"] == "succeeded"), "{runs:#?}");
    let ledger = tenant.ledger();
    assert_eq!((ledger.losses, ledger.devices[&machine].done[ISOLATE]), (0, 1), "{:?}", ledger.findings);
    let (status, body) = tenant.hook(&service.url, &event("a", "m")).unwrap();
    assert_eq!(status, 202, "{body}");
    assert!(service.stop().success());
}

/// What is answered 202 is on disk, whatever the moment at which the store begins to fail.
#[test]
fn a_webhook_is_never_promised_what_a_failing_disk_did_not_take() {
    let tenant = Tenant::new(92, 20, |_| {});
    tenant.feed(20);
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK).set("mode", "shadow");
    let service = start(&site, &[]);
    let (alert, machine) = tenant.high().swap_remove(0);
    let mut promised = Vec::new();
    let mut refused = 0;
    for round in 0..60 {
        // The limit comes and goes while calls come in.
        match round % 10 {
            3 => service.limit_files("0"),
            8 => service.limit_files("unlimited"),
            _ => {}
        }
        let (status, body) = tenant.hook(&service.url, &event(&alert, &machine)).unwrap();
        match status {
            202 => promised.push(body["run"].as_str().unwrap().to_owned()),
            503 => refused += 1,
            _ => panic!("{status}: {body}"),
        }
    }
    assert!(refused >= 20 && promised.len() >= 20, "{refused} refused, {} promised", promised.len());
    service.kill();
    let kept: Vec<_> = site.runs().iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect();
    assert!(promised.iter().all(|run| kept.contains(run)), "{} promised, {} kept", promised.len(), kept.len());
    let service = site.start(&[]);
    let runs = site.settled(kept.len(), 60);
    assert!(runs.iter().all(|run| run["status"] == "succeeded"), "{runs:#?}");
    assert_eq!(tenant.effects().get(MAIL), None);
    assert!(service.stop().success());
}
