//! `confirm:` follows a machine action to its end, as the real binary does it in the simulated tenant.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::bin::{ISOLATE, Service, Site, Tenant, wait_for};

const FINISH: &str = r#"
flow: finish
trigger: { type: manual }
inputs: { machine_id: string }
steps:
  - id: isolation
    action: mde.isolate_machine
    with: { machine_id: "{{ inputs.machine_id }}", comment: "{{ run.id }}" }
    confirm: { timeout: 10m, on_timeout: fail }
  - { stop: succeeded, reason: "the end is {{ isolation.status }}" }
"#;

/// How what is asked of a device ends.
fn ends(tenant: &Tenant, machine: &str, status: &str) {
    let url = format!("http://{}/_sandbox/ends", tenant.http_addr());
    let said = tenant.post(&url, &[], json!({ "machine": machine, "status": status }).to_string());
    assert_eq!(said.0, 204, "{said:?}");
}

fn start(site: &Site, flow: &str, machine: &str) -> String {
    let started = site.json(&["start", flow, "-i", &format!("machine_id={machine}")]);
    started["run"].as_str().unwrap().to_owned()
}

/// Its status and reason at the end.
fn end(site: &Site, run: &str) -> (String, String) {
    let row = site.run_is(run, &["succeeded", "failed", "dead", "uncertain", "waiting", "cancelled"], 60);
    let text = |key: &str| row[key].as_str().unwrap_or("").to_owned();
    (text("status"), text("reason"))
}

fn machines(tenant: &Tenant, n: usize) -> Vec<String> {
    let machines: Vec<String> = tenant.high().into_iter().take(n).map(|(_, machine)| machine).collect();
    assert_eq!(machines.len(), n, "the world is too small");
    machines
}

fn isolated(tenant: &Tenant, machine: &str) -> u32 {
    tenant.ledger().devices.get(machine).and_then(|it| it.done.get(ISOLATE).copied()).unwrap_or(0)
}

fn polls(tenant: &Tenant) -> u64 {
    tenant.ledger().calls.get("GET /api/machineactions/{id}").copied().unwrap_or(0)
}

fn service(site: &Site) -> Service {
    site.start(&[])
}

#[test]
fn a_machine_action_is_followed_to_its_end_or_as_long_as_there_is_time() {
    let tenant = Tenant::new(71, 40, |options| options.action_delay = Duration::from_secs(1));
    tenant.feed(40);
    let site = Site::new(&tenant).flow("finish", FINISH);
    let site = ["fail", "continue"].into_iter().fold(site, |site, word| {
        // Asks once, and has no more time then.
        let hurries = format!("timeout: 2s, on_timeout: {word}");
        let text = FINISH
            .replace("flow: finish", &format!("flow: hurry-{word}"))
            .replace("timeout: 10m, on_timeout: fail", &hurries);
        site.flow(&format!("hurry-{word}"), &text)
    });
    let cases = [
        ("finish", "Succeeded", "succeeded", "the end is Succeeded"),
        ("finish", "Failed", "failed", "the service accepted it, then ended it as Failed"),
        ("finish", "TimeOut", "failed", "the service accepted it, then ended it as TimeOut"),
        ("hurry-fail", "Pending", "failed", "accepted, but not finished in time"),
        ("hurry-continue", "Pending", "succeeded", "the end is Pending"),
    ];
    let machines = machines(&tenant, cases.len());
    let service = service(&site);
    let runs: Vec<String> = cases
        .iter()
        .zip(&machines)
        .map(|((flow, status, ..), machine)| {
            ends(&tenant, machine, status);
            start(&site, flow, machine)
        })
        .collect();
    for (((flow, ends, status, reason), machine), run) in cases.iter().zip(&machines).zip(&runs) {
        let found = end(&site, run);
        assert!(found.0 == *status && found.1.contains(reason), "{flow} {ends}: {found:?}");
        assert_eq!(isolated(&tenant, machine), 1, "{flow} {ends}");
    }
    assert!(polls(&tenant) >= cases.len() as u64, "{:?}", tenant.ledger().calls);
    assert!(service.stop().success());
}

#[test]
fn kill_9_between_an_isolation_and_its_end_goes_on_asking_and_isolates_once() {
    let tenant = Tenant::new(72, 40, |_| {});
    tenant.feed(40);
    let machines = machines(&tenant, 2);
    machines.iter().for_each(|machine| ends(&tenant, machine, "Pending"));
    let site = Site::new(&tenant).flow("finish", FINISH);
    let life = service(&site);
    let runs: Vec<String> = machines.iter().map(|machine| start(&site, "finish", machine)).collect();
    wait_for("the devices are asked", 40, || machines.iter().all(|it| isolated(&tenant, it) == 1).then_some(()));
    life.kill();
    let before = polls(&tenant);
    let life = service(&site);
    wait_for("it goes on asking", 40, || (polls(&tenant) >= before + 2).then_some(()));
    life.kill();
    ends(&tenant, &machines[0], "Succeeded");
    ends(&tenant, &machines[1], "Failed");
    let life = service(&site);
    let found: Vec<_> = runs.iter().map(|run| end(&site, run)).collect();
    assert_eq!(found[0], ("succeeded".to_owned(), "the end is Succeeded".to_owned()));
    assert!(found[1].0 == "failed" && found[1].1.contains("ended it as Failed"), "{found:?}");
    // A second request would be answered with the open action: what was sent counts, not what came of it.
    let calls = tenant.ledger().calls;
    let sent: u64 = calls.iter().filter(|(route, _)| route.ends_with("/isolate")).map(|(_, n)| n).sum();
    assert_eq!(sent, machines.len() as u64, "{calls:?}");
    let all: &Json = &site.json(&["runs", "list"]);
    assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
    assert!(life.stop().success());
}
