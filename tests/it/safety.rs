//! What stands between a flow and the world: modes, protected assets, limits, freshness, and what is not in this version.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;

use crate::bin::{ISOLATE, MAIL, Service, Site, Tenant};
use crate::service::{BY_HOOK, event};

pub(crate) fn started(tenant: &Tenant, service: &Service, alert: &str, machine: &str) -> String {
    let (status, body) = tenant.hook(&service.url, &event(alert, machine)).unwrap();
    assert_eq!(status, 202, "{body}");
    body["run"].as_str().unwrap().to_owned()
}

pub(crate) fn reason(row: &Json) -> &str {
    row["reason"].as_str().unwrap_or("")
}

#[test]
fn shadow_sends_reads_alone_and_live_acts() {
    let tenant = Tenant::new(31, 20, |_| {});
    tenant.feed(20);
    let (alert, machine) = tenant.high().swap_remove(0);
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK).set("mode", "shadow");
    let service = site.start(&[]);
    let run = started(&tenant, &service, &alert, &machine);
    site.run_is(&run, &["succeeded"], 60);
    let ledger = tenant.ledger();
    assert_eq!(ledger.effects, BTreeMap::new(), "{:?}", ledger.findings);
    assert!(ledger.calls.contains_key("GET /api/alerts/{id}"), "{:?}", ledger.calls);
    let sent: Vec<_> = ledger.calls.keys().filter(|r| !r.starts_with("GET ") && !r.ends_with("/token")).collect();
    assert!(sent.is_empty(), "{sent:?}");
    assert!(service.stop().success());
    // The same folder, live for this flow only.
    let site = site.set("flow_modes", "{ by-hook: live }");
    let service = site.start(&[]);
    let run = started(&tenant, &service, &alert, &machine);
    site.run_is(&run, &["succeeded"], 60);
    assert_eq!((tenant.effects()[ISOLATE], tenant.effects()[MAIL]), (1, 1));
    // A flow's own file can only tighten it.
    assert!(service.stop().success());
    let site = site.flow("by-hook", &format!("{BY_HOOK}mode: shadow\n"));
    let service = site.start(&[]);
    let (alert, machine) = tenant.high().swap_remove(1);
    let run = started(&tenant, &service, &alert, &machine);
    site.run_is(&run, &["succeeded"], 60);
    assert_eq!((tenant.effects()[ISOLATE], tenant.effects()[MAIL]), (1, 1));
}

#[test]
fn a_protected_device_asks_or_is_refused() {
    let tenant = Tenant::new(32, 30, |_| {});
    tenant.feed(30);
    let mut high = tenant.high().into_iter();
    let ((alert, kept), (other, free)) = (high.next().unwrap(), high.next().unwrap());
    let world = tenant.world();
    let name = &world.plan.devices.iter().find(|device| device.id == kept).unwrap().name;
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK);
    let site = site.set("protected", &format!("{{ devices: [{{ name: \"{name}\" }}] }}"));
    let service = site.start(&[]);
    let run = started(&tenant, &service, &alert, &kept);
    let row = site.run_is(&run, &["waiting", "succeeded", "failed"], 60);
    assert!(row["status"] == "waiting" && reason(&row).contains("is protected"), "{row}");
    // The rule is for one device: another is isolated.
    let free_run = started(&tenant, &service, &other, &free);
    site.run_is(&free_run, &["succeeded"], 60);
    let waits = site.json(&["runs", "list", "--status", "waiting"]);
    assert_eq!(waits[0]["id"], run.as_str(), "{waits}");
    assert_eq!(site.json(&["status"])["attention"], 1);
    assert_eq!(site.cli(&["runs", "cancel", &run]).code, 0);
    site.run_is(&run, &["cancelled"], 20);
    assert!(service.stop().success());
    let site = site.set("protected", &format!("{{ devices: [{{ name: \"{name}\" }}], on_match: refuse }}"));
    let service = site.start(&[]);
    let run = started(&tenant, &service, &alert, &kept);
    let row = site.run_is(&run, &["waiting", "succeeded", "failed"], 60);
    assert!(row["status"] == "failed" && reason(&row).contains("is protected"), "{row}");
    let devices = tenant.ledger().devices;
    assert_eq!(devices[&kept].done.get(ISOLATE), None);
    assert_eq!(devices[&free].done[ISOLATE], 1);
}

#[test]
fn five_isolations_in_ten_minutes_and_then_a_person_even_after_a_crash() {
    let tenant = Tenant::new(33, 40, |_| {});
    tenant.feed(40);
    let high = tenant.high();
    assert!(high.len() >= 8, "the world is too small");
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK);
    let site = site.set("limits", "{ destructive: [{ max: 5, per: 10m }] }");
    let service = site.start(&[]);
    let first: Vec<_> =
        high.iter().take(7).map(|(alert, machine)| started(&tenant, &service, alert, machine)).collect();
    let runs = site.settled(first.len(), 60);
    let count = |status: &str| runs.iter().filter(|run| run["status"] == status).count();
    assert_eq!((count("succeeded"), count("waiting")), (5, 2), "{runs:#?}");
    assert_eq!(tenant.effects()[ISOLATE], 5);
    // What was used is in the store: a restart gives no new places.
    service.kill();
    let service = site.start(&[]);
    let run = started(&tenant, &service, &high[7].0, &high[7].1);
    let row = site.run_is(&run, &["waiting", "succeeded", "failed"], 60);
    assert!(row["status"] == "waiting" && reason(&row).contains("limit"), "{row}");
    assert_eq!(tenant.effects()[ISOLATE], 5);
}

#[test]
fn containment_for_an_old_alert_asks() {
    // Every seventh alert was created two hours before it became visible.
    let tenant = Tenant::new(34, 40, |options| options.lateness = Duration::from_secs(2 * 3600));
    tenant.feed(40);
    let site = Site::new(&tenant).shipped("isolate-high-severity");
    let service = site.start(&["--from", "1d"]);
    let runs = site.settled(tenant.endpoint_alerts(40), 60);
    assert!(service.stop().success());
    let world = tenant.world();
    let (mut asked, mut done) = (0, 0);
    for (index, alert) in world.plan.alerts.iter().enumerate() {
        if alert.severity != "High" || world.plan.device_of(alert).is_none() {
            continue;
        }
        let run = runs.iter().find(|run| run["key"] == format!("mde:{}", alert.id)).unwrap();
        let row = site.json(&["runs", "show", run["id"].as_str().unwrap()]);
        // On a device that is isolated already nothing is destroyed, so nobody is asked.
        match (index % 7 == 6, row["status"].as_str().unwrap()) {
            (true, "waiting") => {
                assert!(reason(&row).contains("fresh_for"), "{row}");
                asked += 1;
            }
            (true, "succeeded") => {}
            (false, "succeeded") => done += 1,
            _ => panic!("{row}"),
        }
    }
    assert!(asked >= 1 && done >= 5, "{asked} asked, {done} done");
}

#[test]
fn what_is_not_in_this_version_is_refused_at_load() {
    let tenant = Tenant::new(35, 1, |_| {});
    let step = "  - { approve: \"Isolate?\", id: go, to: [soc-leads], timeout: 30m, on_timeout: deny }\n";
    let (head, rest) = BY_HOOK.split_once("steps:\n").unwrap();
    let site = Site::new(&tenant).flow("by-hook", &format!("{head}steps:\n{step}{rest}"));
    let checked = site.cli(&["check", "-o", "json"]);
    assert_eq!(checked.code, 1, "{checked:?}");
    let faults = checked.json();
    let fault = &faults["diagnostics"][0];
    assert!(fault["message"].as_str().unwrap().contains("not in this version"), "{faults}");
    let refused = site.cli(&["run"]);
    assert!(refused.code == 78 && refused.err.contains("not in this version"), "{refused:?}");
    assert!(!site.path().join("data/control.json").exists());
}
