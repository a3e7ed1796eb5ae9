//! The service end to end: webhooks, polls, manual starts, and what the commands say about its runs.

use serde_json::{Value as Json, json};

use crate::bin::{HOOK_TOKEN, ISOLATE, MAIL, Site, Tenant, wait_for};

/// Isolates the device that a webhook names, if the alert that it names is High.
pub(crate) const BY_HOOK: &str = r#"
flow: by-hook
owner: soc@contoso.example
trigger: { type: webhook, name: w, fields: { alertId: string, machineId: string } }
steps:
  - id: alert
    action: mde.get_alert
    with: { alert_id: "{{ trigger.alertId }}" }
  - if: alert.severity == 'High'
    then:
      - id: isolation
        action: mde.isolate_machine
        with: { machine_id: "{{ trigger.machineId }}", comment: "{{ run.id }}: {{ alert.id }}" }
      - action: email.send
        with: { to: [soc@contoso.example], subject: "Isolated: {{ alert.title }}", text: "{{ alert.id }} {{ isolation.status }}" }
"#;

pub(crate) fn event(alert: &str, machine: &str) -> Json {
    json!({ "alertId": alert, "machineId": machine, "undeclared": "dropped" })
}

#[test]
fn a_webhook_that_was_accepted_is_on_disk_and_runs_to_its_end() {
    let tenant = Tenant::new(21, 20, |_| {});
    tenant.feed(20);
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK);
    let service = site.start(&[]);
    let (alert, machine) = tenant.high().swap_remove(0);
    let (status, body) = tenant.hook(&service.url, &event(&alert, &machine)).unwrap();
    // At once after the answer: what is not on disk now is lost.
    service.kill();
    assert_eq!(status, 202, "{body}");
    let run = body["run"].as_str().unwrap();
    let row = site.json(&["runs", "show", run]);
    assert_eq!(row["payload"], json!({ "alertId": alert, "machineId": machine }));
    let service = site.start(&[]);
    let row = site.run_is(run, &["succeeded"], 60);
    assert_eq!(row["effects"], json!({ ISOLATE: 1, MAIL: 1 }));
    let ledger = tenant.ledger();
    assert_eq!(ledger.devices[&machine].done[ISOLATE], 1);
    assert!(ledger.alerts[&alert].done[MAIL] >= 1);
    assert!(service.stop().success());
}

#[test]
fn webhooks_refuse_what_they_should() {
    let tenant = Tenant::new(21, 20, |_| {});
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK);
    let service = site.start(&[]);
    let bearer = format!("Bearer {HOOK_TOKEN}");
    let json_type = ("content-type", "application/json");
    let good = event("da1_1", "m").to_string();
    let big = json!({ "alertId": "x".repeat(300 * 1024), "machineId": "m" }).to_string();
    // Wanted status, name, headers, body.
    type Case<'a> = (u16, &'a str, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 7] = [
        (401, "w", &[("authorization", "Bearer wrong"), json_type], &good),
        (401, "w", &[json_type], &good),
        (413, "w", &[("authorization", &bearer), json_type], &big),
        (415, "w", &[("authorization", &bearer), ("content-type", "text/plain")], &good),
        (404, "nobody", &[("authorization", &bearer), json_type], &good),
        (400, "w", &[("authorization", &bearer), json_type], "{\"alertId\": 1}"),
        (400, "w", &[("authorization", &bearer), json_type], "not json"),
    ];
    for (wanted, hook, headers, body) in cases {
        let (status, answer) = tenant.post(&format!("{}/hooks/{hook}", service.url), headers, body.to_owned());
        assert_eq!(status, wanted, "{hook} {headers:?}: {answer}");
        assert!(answer["error"].is_string(), "{answer}");
    }
    assert_eq!(site.cli(&["runs", "list"]).code, 3, "a refused call started a run");
    let once = [("authorization", bearer.as_str()), json_type, ("idempotency-key", "k1")];
    let url = format!("{}/hooks/w", service.url);
    let (first, second) = (tenant.post(&url, &once, good.clone()), tenant.post(&url, &once, good));
    assert_eq!((first.0, second.0), (202, 202));
    assert!(first.1["run"].is_string(), "{first:?}");
    assert_eq!(second.1["duplicate"], true, "{second:?}");
    assert_eq!(site.runs().len(), 1);
}

#[test]
fn a_poll_takes_what_is_new_and_from_takes_what_was_before() {
    let tenant = Tenant::new(22, 30, |_| {});
    tenant.feed(15);
    let site = Site::new(&tenant).shipped("isolate-high-severity");
    let service = site.start(&[]);
    tenant.feed(15);
    let (before, all) = (tenant.endpoint_alerts(15), tenant.endpoint_alerts(30));
    site.settled(all - before, 60);
    assert!(service.stop().success());
    assert_eq!(site.runs().len(), all - before, "a new flow begins at its activation");
    let service = site.start(&["--from", "1d"]);
    let runs = site.settled(all, 60);
    assert_eq!(runs.len(), all, "an alert started a run twice");
    assert!(runs.iter().all(|run| run["status"] == "succeeded" && run["trigger"] == "mde.alert.new"), "{runs:#?}");
    let ledger = tenant.ledger();
    assert_eq!((ledger.duplicates, ledger.losses, ledger.wrong), (0, 0, 0), "{:?}", ledger.findings);
    assert!(ledger.effects[ISOLATE] > 2, "{:?}", ledger.effects);
    assert!(service.stop().success());
}

const PARKED: &str = r#"
flow: parked
trigger: { type: webhook, name: w, fields: { alertId: string, machineId: string } }
steps:
  - { wait: 1h }
  - action: mde.isolate_machine
    with: { machine_id: "{{ trigger.machineId }}", comment: "late" }
"#;

#[test]
fn commands_tell_and_end_the_runs_of_a_service_that_runs_and_of_one_that_does_not() {
    let tenant = Tenant::new(23, 10, |_| {});
    let site = Site::new(&tenant).flow("parked", PARKED);
    let service = site.start(&[]);
    let start = || tenant.hook(&service.url, &event("a", "m")).unwrap().1["run"].as_str().unwrap().to_owned();
    let (first, second) = (start(), start());
    for run in [&first, &second] {
        site.run_is(run, &["running", "waiting"], 20);
    }
    let status = site.json(&["status"]);
    assert_eq!((&status["running"], &status["url"]), (&json!(true), &json!(service.url)));
    let cancelled = site.cli(&["runs", "cancel", &first, "--reason", "a test"]);
    assert_eq!(cancelled.code, 0, "{cancelled:?}");
    let row = site.run_is(&first, &["cancelled"], 20);
    assert!(row["reason"].as_str().unwrap().contains("a test") && row["ended"].is_string(), "{row}");
    assert_eq!(site.cli(&["runs", "cancel", &first]).code, 3, "it had ended");
    assert_eq!(site.json(&["runs", "list", "--status", "cancelled"]).as_array().unwrap().len(), 1);
    assert!(service.stop().success());
    // Without the service its store still answers; what needs it says so.
    let listed: Vec<_> = site.runs().iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect();
    assert!(listed.contains(&first) && listed.contains(&second), "{listed:?}");
    assert_eq!(site.cli(&["status"]).code, 69);
    assert_eq!(site.cli(&["runs", "cancel", &second]).code, 69);
    // A timer outlives the process: the other run is there again, and can be ended.
    let service = site.start(&[]);
    assert_eq!(site.cli(&["runs", "cancel", &second]).code, 0);
    site.run_is(&second, &["cancelled"], 20);
    assert!(service.stop().success());
    assert_eq!(tenant.effects(), Default::default());
}

#[test]
fn why_tells_the_run_or_the_condition() {
    let tenant = Tenant::new(24, 20, |_| {});
    let picky = "flow: picky\ntrigger: { type: mde.alert.new, connection: mde, where: trigger.alert.severity == 'High' }\n\
                 steps:\n  - { id: alert, action: mde.get_alert, with: { alert_id: \"{{ trigger.alert_id }}\" } }\n";
    let site = Site::new(&tenant).flow("picky", picky);
    tenant.feed(20);
    let service = site.start(&["--from", "1d"]);
    let (high, _) = tenant.high().swap_remove(0);
    let low = wait_for("an alert that is not High", 1, || {
        let world = tenant.world();
        let low = world.plan.alerts.iter().find(|a| a.severity != "High" && world.plan.device_of(a).is_some());
        low.map(|alert| alert.id.clone())
    });
    wait_for("the filtered alert is offered", 30, || {
        (site.cli(&["why", "picky", "--alert", &low]).code == 0).then_some(())
    });
    let told = |site: &Site| {
        let kept = site.json(&["why", "picky", "--alert", &high]);
        assert_eq!(kept["runs"].as_array().unwrap().len(), 1, "{kept}");
        let skipped = site.cli(&["why", "picky", "--alert", &low]);
        assert!(skipped.out.contains("false  trigger.alert.severity == 'High'"), "{skipped:?}");
        assert_eq!(site.json(&["why", "picky", "--alert", &low])["skipped"]["trace"]["result"], "false");
        assert_eq!(site.cli(&["why", "picky", "--alert", "da0_0"]).code, 3);
    };
    told(&site);
    assert!(service.stop().success());
    told(&site);
}

#[test]
fn a_person_starts_a_flow_for_an_alert() {
    let tenant = Tenant::new(25, 20, |_| {});
    tenant.feed(20);
    let site = Site::new(&tenant).shipped("isolate-high-severity");
    let (alert, machine) = tenant.high().swap_remove(0);
    assert_eq!(site.cli(&["start", "isolate-high-severity", "--alert", &alert]).code, 69, "no service yet");
    let service = site.start(&[]);
    let started = site.json(&["start", "isolate-high-severity", "--alert", &alert]);
    let row = site.run_is(started["run"].as_str().unwrap(), &["succeeded"], 60);
    assert_eq!(row["effects"], json!({ ISOLATE: 1, MAIL: 1 }));
    assert_eq!(tenant.ledger().devices[&machine].done[ISOLATE], 1);
    let unknown = site.cli(&["start", "isolate-high-severity", "--alert", "da1_1"]);
    assert!(matches!(unknown.code, 1 | 3) && unknown.err.contains("da1_1"), "{unknown:?}");
    let flow = site.cli(&["start", "isolate-high-severit", "--alert", &alert]);
    assert_eq!(flow.code, 3, "{flow:?}");
    assert!(service.stop().success());
}

const ASSIGN: &str = r#"
flow: assign
trigger: { type: xdr.alert.changed, connection: graph, where: "'status' in trigger.changed" }
steps:
  - action: xdr.update_alert
    with: { alert_id: "{{ trigger.alert_id }}", status: Resolved, assigned_to: soc@contoso.example }
"#;

#[test]
fn our_own_change_of_an_alert_starts_no_second_run() {
    let tenant = Tenant::new(26, 20, |_| {});
    tenant.feed(20);
    let site = Site::new(&tenant).flow("assign", ASSIGN).set("poll", "{ xdr.alert.changed: 1s }");
    let service = site.start(&[]);
    let world = tenant.world();
    wait_for("the alerts are learnt", 30, || {
        (tenant.ledger().calls.get("GET /v1.0/security/alerts_v2").copied() >= Some(2)).then_some(())
    });
    let alert = &world.plan.alerts[0].graph_id;
    assert!(world.set_status(alert, "InProgress"));
    let run = site.settled(1, 60).remove(0);
    assert_eq!((run["status"].as_str(), run["trigger"].as_str()), (Some("succeeded"), Some("xdr.alert.changed")));
    // The change that the run made is listed too; another person's is told from it, before and after a kill.
    let calls = tenant.calls();
    wait_for("three more polls", 30, || (tenant.calls() >= calls + 3).then_some(()));
    assert_eq!(site.runs().len(), 1, "our own change started a run");
    service.kill();
    let service = site.start(&[]);
    assert!(world.set_status(alert, "InProgress"));
    site.settled(2, 60);
    let calls = tenant.calls();
    wait_for("three more polls", 30, || (tenant.calls() >= calls + 3).then_some(()));
    assert_eq!(site.runs().len(), 2);
    assert!(service.stop().success());
}

const HUNT: &str = r#"
flow: hunt
trigger: { type: hunt.rows, query: "DeviceProcessEvents // powershell", every: 10s, columns: { DeviceId: string, CommandHash: string } }
steps:
  - { id: machine, action: mde.get_machine, with: { machine_id: "{{ trigger.row.DeviceId }}" } }
"#;

const AFTER: &str = r#"
flow: after
trigger: { type: flow.finished, flow: hunt, status: succeeded }
steps:
  - { set: { followed: trigger.run_id, device: trigger.event.row.DeviceId } }
"#;

const LAST: &str = "flow: last\ntrigger: { type: flow.finished, flow: after }\nsteps:\n  - { wait: 1s }\n";

#[test]
fn each_row_of_a_hunt_and_each_end_of_a_run_starts_one_run_through_kills() {
    let tenant = Tenant::new(27, 100, |options| options.latency = std::time::Duration::from_millis(20));
    let site = Site::new(&tenant).flow("hunt", HUNT).flow("after", AFTER).flow("last", LAST).set("in_flight", "2");
    let devices = tenant.world().plan.devices.len();
    let rows = (0..devices).filter(|index| index % 4 == 1).count();
    // Killed while runs end and others start by that, and at once after the query was answered.
    for life in 0..4 {
        let service = site.start(&[]);
        let calls = tenant.calls();
        wait_for("some calls", 40, || (tenant.calls() >= calls + 2 + 2 * life).then_some(()));
        service.kill();
    }
    let service = site.start(&[]);
    let runs = site.settled(3 * rows, 90);
    assert!(runs.iter().all(|run| run["status"] == "succeeded"), "{runs:#?}");
    let of = |flow: &str| runs.iter().filter(|run| run["flow"] == flow).collect::<Vec<_>>();
    assert_eq!((of("hunt").len(), of("after").len(), of("last").len()), (rows, rows, rows));
    let ended: std::collections::BTreeSet<String> =
        of("hunt").iter().map(|run| format!("succeeded:{}", run["id"].as_str().unwrap())).collect();
    let followed = of("after").iter().map(|run| run["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ended, followed);
    assert!(service.stop().success());
}

#[test]
fn flows_that_start_each_other_are_refused_with_the_place() {
    let tenant = Tenant::new(28, 1, |_| {});
    let follow = |name: &str, flow: &str| {
        format!("flow: {name}\ntrigger: {{ type: flow.finished, flow: {flow} }}\nsteps:\n  - {{ wait: 1s }}\n")
    };
    let site =
        Site::new(&tenant).flow("a", &follow("a", "b")).flow("b", &follow("b", "a")).flow("c", &follow("c", "nobody"));
    let checked = site.cli(&["check", "-o", "json"]);
    assert_eq!(checked.code, 1, "{checked:?}");
    let found = checked.json();
    let found: Vec<_> = found["diagnostics"].as_array().unwrap().iter().collect();
    let told: Vec<_> =
        found.iter().map(|it| (it["code"].as_str().unwrap(), it["line"].as_u64(), it["column"].as_u64())).collect();
    assert_eq!(told, [("WF0716", Some(2), Some(39)), ("WF0716", Some(2), Some(39)), ("WF0708", Some(2), Some(39))]);
    assert_eq!(site.cli(&["run"]).code, 78);
}

const READY: &str = r#"
flow: ready
trigger: { type: xdr.alert.new, connection: graph, ready: trigger.alert.status == 'InProgress', ready_timeout: 1h }
steps:
  - { set: { status: trigger.alert.status } }
"#;

#[test]
fn an_alert_that_waits_for_its_evidence_outlives_a_kill() {
    let tenant = Tenant::new(29, 10, |_| {});
    let site = Site::new(&tenant).flow("ready", READY).set("poll", "{ xdr.alert.new: 1s }");
    let service = site.start(&[]);
    tenant.feed(10);
    let reads =
        || tenant.ledger().calls.iter().filter(|(route, _)| route.contains("alerts_v2/")).map(|(_, n)| n).sum::<u64>();
    wait_for("the alerts that wait are read again", 40, || (reads() >= 10).then_some(()));
    service.kill();
    assert_eq!(site.runs().len(), 0);
    let world = tenant.world();
    for alert in &world.plan.alerts[..3] {
        assert!(world.set_status(&alert.graph_id, "InProgress"));
    }
    let service = site.start(&[]);
    let runs = site.settled(3, 60);
    assert_eq!(runs.len(), 3);
    assert!(service.stop().success());
}
