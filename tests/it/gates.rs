//! Pauses, and the states in which a webhook is told to come again.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use watchfloor::clock::stopwatch;
use watchfloor::journal::Store;

use crate::bin::{ISOLATE, MAIL, Service, Site, Tenant, wait_for};
use crate::safety::{reason, started};
use crate::service::{BY_HOOK, event};

fn paused(site: &Site, args: &[&str]) {
    let said = site.cli(&[&["pause", "--reason", "maintenance"], args].concat());
    assert_eq!(said.code, 0, "{said:?}");
}

fn resumed(site: &Site, args: &[&str]) {
    let said = site.cli(&[&["resume"], args].concat());
    assert_eq!(said.code, 0, "{said:?}");
}

/// Waits until a run is held, and answers why.
fn held(site: &Site, run: &str) -> String {
    let row = site.run_is(run, &["waiting"], 30);
    assert!(reason(&row).starts_with("held: "), "{row}");
    reason(&row).to_owned()
}

/// Answers 503 and says when to come again.
fn turned_away(tenant: &Tenant, url: &str) -> bool {
    let (status, after) = tenant.knock(url, &event("a", "m")).unwrap();
    if status == 503 {
        assert!(after.unwrap().parse::<u32>().unwrap() > 0);
    }
    status == 503
}

#[test]
fn a_pause_holds_before_the_next_send_and_over_a_crash_until_it_is_lifted() {
    let tenant = Tenant::new(71, 20, |_| {});
    tenant.feed(20);
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK);
    let service = site.start(&[]);
    let (alert, machine) = tenant.high().swap_remove(0);
    paused(&site, &["--destructive"]);
    let run = started(&tenant, &service, &alert, &machine);
    let why = held(&site, &run);
    assert!(why.contains("containment is paused by") && why.contains("maintenance"), "{why}");
    let status = site.json(&["status"]);
    assert_eq!((&status["paused"][0]["scope"], &status["held"]), (&json!("destructive"), &json!(1)), "{status}");
    assert_eq!(status["attention"], 0, "nobody is needed for what is held: {status}");
    let page = tenant.get(&format!("{}/", service.url)).unwrap().2;
    assert!(page.contains("containment is paused by") && page.contains("held: "), "{page}");
    let listed = site.cli(&["runs", "list"]).out;
    assert!(listed.contains("held: containment is paused"), "{listed}");
    // The pause was on disk when the command answered.
    service.kill();
    let service = site.start(&[]);
    held(&site, &run);
    assert_eq!(tenant.effects(), Default::default());
    resumed(&site, &["--destructive"]);
    let row = site.run_is(&run, &["succeeded"], 30);
    assert_eq!(row["effects"], json!({ ISOLATE: 1, MAIL: 1 }));
    assert_eq!(tenant.ledger().devices[&machine].done[ISOLATE], 1);
    let nothing = site.cli(&["resume"]);
    assert!(nothing.code == 3 && nothing.err.contains("not paused"), "{nothing:?}");
    assert!(service.stop().success());
    let lines = site.store().audit(0, 10_000).unwrap();
    let texts: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(&line.body).into_owned()).collect();
    for (event, reason) in [("\"pause\"", "maintenance"), ("\"resume\"", "")] {
        let told = texts.iter().filter(|text| text.contains(event) && text.contains(reason));
        assert_eq!(told.count(), 1, "{event}: {texts:#?}");
    }
}

#[test]
fn a_paused_flow_stands_in_nobodys_way_and_a_paused_connection_holds_what_goes_over_it() {
    let tenant = Tenant::new(72, 20, |_| {});
    tenant.feed(20);
    let other = BY_HOOK.replace("flow: by-hook", "flow: other");
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK).flow("other", &other);
    let service = site.start(&[]);
    let (alert, machine) = tenant.high().swap_remove(0);
    paused(&site, &["--flow", "by-hook"]);
    assert_eq!(site.cli(&["pause", "--flow", "nobody"]).code, 3);
    assert_eq!(site.cli(&["pause", "--connection", "nobody"]).code, 3);
    assert_eq!(site.cli(&["pause", "--flow", "by-hook", "--destructive"]).code, 2);
    let (status, body) = tenant.hook(&service.url, &event(&alert, &machine)).unwrap();
    assert_eq!(status, 202, "{body}");
    let run_of = |flow: &str| {
        let runs = site.runs();
        runs.iter().find(|run| run["flow"] == flow).unwrap()["id"].as_str().unwrap().to_owned()
    };
    // Both want the same device; the one that is paused does not lock it.
    let row = site.run_is(&run_of("other"), &["succeeded"], 30);
    assert_eq!(row["effects"], json!({ ISOLATE: 1, MAIL: 1 }));
    let why = held(&site, &run_of("by-hook"));
    assert!(why.contains("the flow by-hook is paused"), "{why}");
    paused(&site, &["--connection", "mail"]);
    resumed(&site, &["--flow", "by-hook"]);
    // What it finds now counts: the device is isolated already.
    wait_for("the mail is held", 30, || held(&site, &run_of("by-hook")).contains("connection mail").then_some(()));
    assert_eq!(tenant.ledger().devices[&machine].done[ISOLATE], 1);
    resumed(&site, &["--connection", "mail"]);
    let row = site.run_is(&run_of("by-hook"), &["succeeded"], 30);
    assert_eq!(row["effects"], json!({ MAIL: 1 }));
    assert!(service.stop().success());
}

#[test]
fn what_has_become_stale_while_it_was_held_asks() {
    let tenant = Tenant::new(73, 20, |_| {});
    tenant.feed(20);
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK).set("fresh_for", "2s");
    let service = site.start(&[]);
    let (alert, machine) = tenant.high().swap_remove(0);
    paused(&site, &["--destructive"]);
    let run = started(&tenant, &service, &alert, &machine);
    let watch = stopwatch();
    held(&site, &run);
    wait_for("the event is stale", 10, || (watch.elapsed() > Duration::from_secs(3)).then_some(()));
    resumed(&site, &["--destructive"]);
    wait_for("it asks", 30, || {
        let row = site.run_is(&run, &["waiting", "succeeded"], 5);
        assert_ne!(row["status"], "succeeded");
        reason(&row).contains("fresh_for").then_some(())
    });
    assert_eq!(tenant.effects(), Default::default());
    assert!(service.stop().success());
}

#[test]
fn while_all_is_paused_nothing_is_asked_and_no_alert_is_lost() {
    let tenant = Tenant::new(74, 30, |_| {});
    let site = Site::new(&tenant).shipped("isolate-high-severity");
    // Paused before it ever ran: it holds at the next start.
    let said = site.cli(&["pause", "--reason", "not yet"]);
    assert!(said.code == 0 && said.err.contains("next start"), "{said:?}");
    let service = site.start(&["--from", "1d"]);
    tenant.feed(30);
    let watch = stopwatch();
    // Twice the interval of the polls.
    wait_for("polls would have come", 10, || (watch.elapsed() > Duration::from_secs(3)).then_some(()));
    assert_eq!((tenant.calls(), site.cli(&["runs", "list"]).code), (0, 3), "something was sent");
    let start = site.cli(&["start", "isolate-high-severity", "--alert", "da1_1"]);
    assert!(start.code == 75 && start.err.contains("paused"), "{start:?}");
    let ready = tenant.get(&format!("{}/readyz", service.url)).unwrap();
    assert_eq!((ready.0, ready.2.as_str()), (200, "watchfloor is paused"));
    resumed(&site, &[]);
    let runs = site.settled(tenant.endpoint_alerts(30), 60);
    assert!(runs.iter().all(|run| run["status"] == "succeeded"), "{runs:#?}");
    let ledger = tenant.ledger();
    assert_eq!((ledger.duplicates, ledger.losses, ledger.wrong), (0, 0, 0), "{:?}", ledger.findings);
    assert!(service.stop().success());
}

#[test]
fn webhooks_are_told_to_come_again_while_paused_and_while_full() {
    let tenant = Tenant::new(75, 20, |_| {});
    tenant.feed(20);
    let parked = "flow: parked\ntrigger: { type: webhook, name: w, fields: { alertId: string, machineId: string } }\n\
                  steps:\n  - { wait: 1h }\n";
    let site = Site::new(&tenant).flow("parked", parked).set("max_backlog", "1");
    let service = site.start(&[]);
    paused(&site, &[]);
    assert!(turned_away(&tenant, &service.url));
    resumed(&site, &[]);
    assert_eq!(site.cli(&["runs", "list"]).code, 3, "a run was started while all was paused");
    assert!(!turned_away(&tenant, &service.url));
    assert!(turned_away(&tenant, &service.url), "one run is the whole backlog");
    let run = site.runs()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(site.runs().len(), 1);
    assert_eq!(site.cli(&["runs", "cancel", &run]).code, 0);
    wait_for("there is room again", 20, || (!turned_away(&tenant, &service.url)).then_some(()));
    assert!(service.stop().success());
}

#[test]
fn webhooks_are_told_to_come_again_while_starting() {
    let tenant = Tenant::new(76, 20, |_| {});
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK);
    assert!(site.start(&[]).stop().success());
    // Somebody else writes to the store, so that the start has to wait: a new flow has to be noted there.
    let other = BY_HOOK.replace("flow: by-hook", "flow: other");
    let site = site.flow("other", &other);
    let database = site.database();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchfloor"));
    command.arg("run");
    let service: Service = site.begin(command);
    let address = service.says("address=");
    let url = format!("http://{}", address.split(' ').next().unwrap());
    assert!(turned_away(&tenant, &url));
    assert_eq!(tenant.get(&format!("{url}/healthz")).unwrap().0, 200);
    let (status, after, text) = tenant.get(&format!("{url}/readyz")).unwrap();
    assert!(status == 503 && after.is_some() && text.contains("starting"), "{status} {text}");
    database.execute_batch("COMMIT").unwrap();
    service.says("ready on ");
    wait_for("it is ready", 10, || (tenant.get(&format!("{url}/readyz"))?.0 == 200).then_some(()));
    assert!(!turned_away(&tenant, &url));
    assert!(service.stop().success());
}

#[test]
fn webhooks_are_told_to_come_again_while_stopping() {
    // Slow, so that what is in flight keeps the service from ending.
    let tenant = Tenant::new(77, 20, |options| options.latency = Duration::from_secs(3));
    tenant.feed(20);
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK);
    let service = site.start(&[]);
    let (alert, machine) = tenant.high().swap_remove(0);
    let run = started(&tenant, &service, &alert, &machine);
    site.run_is(&run, &["running"], 20);
    service.signal("-TERM");
    let ready = format!("{}/readyz", service.url);
    wait_for("it is stopping", 10, || (tenant.get(&ready)?.0 == 503).then_some(()));
    assert!(turned_away(&tenant, &service.url));
    let url = service.url.clone();
    assert!(service.end().success());
    assert_eq!(tenant.knock(&url, &event("a", "m")), None);
    assert_eq!(site.runs().len(), 1, "a call was taken while stopping");
}
