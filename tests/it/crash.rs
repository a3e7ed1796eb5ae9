//! kill -9 while calls are on their way, again and again: nothing is lost, and no device is isolated twice.
//!
//! When to kill is told by the tenant's own count of requests, so that each life of the service gets a share of the work
//! and dies in the middle of some. The tenant finishes an action at once: a second isolation of a device is a second
//! effect in its books, never hidden behind an open one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value as Json, json};
use watchfloor::sandbox::Ledger;

use crate::bin::{ISOLATE, MAIL, Service, Site, Tenant, wait_for};

const ALERTS: usize = 100;
const KILLS: usize = 8;

/// A write: repeated after a crash, it sets the same state again.
const NOTE: &str = r#"
flow: note
trigger: { type: webhook, name: w, fields: { alertId: string, machineId: string } }
steps:
  - action: mde.update_alert
    with: { alert_id: "{{ trigger.alertId }}", comment: "seen {{ trigger.machineId }}" }
"#;

#[test]
fn kill_9_in_the_middle_loses_nothing_and_isolates_nothing_twice() {
    let tenant = Tenant::new(51, ALERTS, |options| {
        options.latency = Duration::from_millis(40);
        options.action_delay = Duration::ZERO;
    });
    let site = Site::new(&tenant).shipped("isolate-high-severity").flow("note", NOTE).set("in_flight", "8");
    let mut hooked = Vec::new();
    let mut hit = 0;
    for life in 0..KILLS {
        let service = site.start(&["--from", "1d"]);
        if life % 4 == 0 {
            tenant.feed(ALERTS / 2);
        }
        let before = tenant.calls();
        hooked.extend(call_hook(&tenant, &service, life));
        // From life to life another number, so that other moments are hit.
        let share = 13 + 3 * (life as u64 % 4);
        wait_for("the service makes calls", 40, || (tenant.calls() >= before + share).then_some(()));
        service.kill();
        hit += usize::from(site.runs().iter().any(|run| run["status"] == "running"));
    }
    assert!(hit >= KILLS / 2, "only {hit} of {KILLS} kills came in the middle of a run");
    let service = site.start(&["--from", "1d"]);
    let runs = site.settled(tenant.endpoint_alerts(ALERTS) + hooked.len(), 80);
    assert!(service.stop().success());
    let ledger = tenant.ledger();
    nothing_lost_and_nothing_twice(&site, &tenant, &runs, &ledger);
    for id in &hooked {
        let run = runs.iter().find(|run| run["id"] == id.as_str());
        assert_eq!(run.map(|run| &run["status"]), Some(&json!("succeeded")), "202 was answered for {id}");
    }
}

/// A webhook call in each life; the ids of the runs that it was promised.
fn call_hook(tenant: &Tenant, service: &Service, life: usize) -> Option<String> {
    let (alert, _) = tenant.high().swap_remove(0);
    let (status, body) = tenant.hook(&service.url, &json!({ "alertId": alert, "machineId": life.to_string() }))?;
    assert_eq!(status, 202, "{body}");
    body["run"].as_str().map(str::to_owned)
}

/// The books against the runs. A run that waits for a person is not lost: it is listed, and may miss its effects.
pub(crate) fn nothing_lost_and_nothing_twice(site: &Site, tenant: &Tenant, runs: &[Json], ledger: &Ledger) {
    let by_key: BTreeMap<&str, &Json> = runs.iter().map(|run| (run["key"].as_str().unwrap(), run)).collect();
    assert_eq!(by_key.len(), runs.len(), "an event started two runs");
    let isolated_twice: Vec<_> =
        ledger.devices.iter().filter(|(_, entry)| entry.done.get(ISOLATE) > Some(&1)).collect();
    assert!(isolated_twice.is_empty(), "{isolated_twice:?}");
    let world = tenant.world();
    let (mut listed, mut mailed) = (0, 0);
    for alert in world.plan.alerts.iter().take(ledger.visible) {
        let Some(device) = world.plan.device_of(alert) else { continue };
        let run = by_key.get(format!("mde:{}", alert.id).as_str());
        let run = run.unwrap_or_else(|| panic!("alert {} was lost: no run", alert.id));
        let status = run["status"].as_str().unwrap();
        if matches!(status, "uncertain" | "dead") {
            listed += 1;
            continue;
        }
        let said = || site.cli(&["runs", "show", run["id"].as_str().unwrap(), "-o", "json"]).out;
        assert_eq!(status, "succeeded", "{}", said());
        let done = |entries: &BTreeMap<String, watchfloor::sandbox::Entry>, id: &str, action: &str| {
            entries.get(id).and_then(|entry| entry.done.get(action)).copied().unwrap_or(0)
        };
        let mails = done(&ledger.alerts, &alert.id, MAIL);
        if alert.severity == "High" {
            assert!(mails >= 1, "no mail for {}: {}", alert.id, said());
            assert_eq!(done(&ledger.devices, &device.id, ISOLATE), 1, "{} is not isolated: {}", device.id, said());
            mailed += 1;
        } else {
            assert_eq!(mails, 0, "{} is not High", alert.id);
        }
    }
    assert!(listed * 5 <= mailed, "{listed} runs want a person, {mailed} went through");
}
