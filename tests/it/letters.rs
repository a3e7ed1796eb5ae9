//! Dead letters and effects of unknown outcome in the real binary: an outage, an event that cannot be judged, a lost answer,
//! and the commands with which a person ends each of them well.

use serde_json::{Value as Json, json};

use crate::bin::{ISOLATE, MAIL, Service, Site, Tenant, wait_for};
use crate::service::event;

/// Isolates, pauses, and reads the alert within a `try`, where a passing failure is not tried in rounds.
const OUTAGE: &str = r#"
flow: outage
owner: soc@contoso.example
trigger: { type: webhook, name: w, fields: { alertId: string, machineId: string } }
steps:
  - id: isolation
    action: mde.isolate_machine
    with: { machine_id: "{{ trigger.machineId }}", comment: "{{ run.id }}" }
  - { wait: 3s }
  - try:
      - { id: alert, action: mde.get_alert, with: { alert_id: "{{ trigger.alertId }}" }, retry: { max: 2, first: 100ms } }
      - action: email.send
        with: { to: [soc@contoso.example], subject: "{{ isolation.status }}: {{ alert.title }}", text: "{{ alert.id }}" }
    catch: [ { when: error.status == 404, do: [ { stop: failed, reason: gone } ] } ]
"#;

fn started(tenant: &Tenant, service: &Service, body: &Json) -> String {
    let (status, body) = tenant.hook(&service.url, body).unwrap();
    assert_eq!(status, 202, "{body}");
    body["run"].as_str().unwrap().to_owned()
}

fn done(tenant: &Tenant, action: &str) -> u32 {
    tenant.effects().get(action).copied().unwrap_or(0)
}

/// Three runs die in an outage. One is retried and the service killed at once, one is retried with the others of its flow,
/// one is dropped.
#[test]
fn after_an_outage_dead_runs_go_on_where_they_failed_even_through_a_crash() {
    let tenant = Tenant::new(71, 30, |options| options.action_delay = std::time::Duration::ZERO);
    tenant.feed(30);
    let site = Site::new(&tenant).flow("outage", OUTAGE);
    let service = site.start(&[]);
    let high = tenant.high();
    let runs: Vec<_> = high.iter().take(3).map(|(a, m)| started(&tenant, &service, &event(a, m))).collect();
    wait_for("the devices are isolated", 30, || (done(&tenant, ISOLATE) == 3).then_some(()));
    // A service that is down is waited for; one that throttles everything is there.
    tenant.fails(&json!({ "throttled_bare": 1000 }));
    for run in &runs {
        site.run_is(run, &["dead"], 60);
    }
    assert_eq!(site.json(&["status"])["attention"], 3);
    let listed = site.json(&["dlq", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 3, "{listed}");
    assert_eq!((&listed[0]["kind"], &listed[0]["flow"]), (&json!("run"), &json!("outage")));
    assert_eq!(site.cli(&["dlq", "list", "--flow", "another"]).code, 3);
    let shown = site.json(&["dlq", "show", &runs[0]]);
    assert_eq!((&shown["step"], &shown["attempts"]), (&json!("steps[2]/try/alert"), &json!(2)), "{shown}");
    assert_eq!(shown["payload"]["alertId"], high[0].0.as_str());
    assert!(shown["error"].as_str().unwrap().contains("alert"), "{shown}");
    // A retry into the outage is a dead letter again, with a try of its own.
    assert_eq!(site.cli(&["dlq", "retry", &runs[0]]).code, 0);
    wait_for("it is dead again", 60, || {
        let shown = site.cli(&["dlq", "show", &runs[0], "-o", "json"]);
        (shown.code == 0 && shown.json()["retries"] == 1 && shown.json()["attempts"] == 4).then_some(())
    });
    tenant.fails(&json!({}));
    let dropped = site.cli(&["dlq", "drop", &runs[2], "--reason", "the device is gone"]);
    assert_eq!(dropped.code, 0, "{dropped:?}");
    let row = site.run_is(&runs[2], &["cancelled"], 10);
    assert!(row["reason"].as_str().unwrap().contains("the device is gone; it was dead"), "{row}");
    assert_eq!(site.cli(&["dlq", "retry", &runs[0]]).code, 0);
    // At once after the answer: what is on disk now says that it goes on.
    service.kill();
    assert_eq!(site.cli(&["dlq", "retry", &runs[1]]).code, 69, "nobody is there to do it");
    let service = site.start(&[]);
    let row = site.run_is(&runs[0], &["succeeded"], 60);
    assert!(row["ended"].is_string() && row["reason"].is_null(), "{row}");
    let asks = site.cli(&["dlq", "retry", "--flow", "outage"]);
    assert!(asks.code == 2 && asks.err.contains("retry 1 dead letters?"), "{asks:?}");
    let retried = site.json(&["dlq", "retry", "--all", "--yes"]);
    assert_eq!((&retried[0]["run"], &retried[0]["outcome"]), (&json!(runs[1]), &json!("goes on")), "{retried}");
    let row = site.run_is(&runs[1], &["succeeded"], 60);
    assert_eq!(row["effects"], json!({ ISOLATE: 1, MAIL: 1 }));
    let told = row["steps"].as_array().unwrap();
    assert_eq!(told.iter().filter(|step| step["what"] == "retry").count(), 1, "{row}");
    for ended in [&runs[1], &runs[2]] {
        let again = site.cli(&["dlq", "retry", ended]);
        assert!(again.code == 3 && again.err.contains("has ended"), "{again:?}");
    }
    assert_eq!(site.cli(&["dlq", "list"]).code, 3);
    assert_eq!((done(&tenant, ISOLATE), site.runs().len()), (3, 3));
    // Killed between a mail and its answer, the first run sends it again, and says so.
    let first = site.json(&["runs", "show", &runs[0]]);
    let repeated = first["steps"].as_array().unwrap().iter().any(|step| step["maybe_sent"] == true);
    let mails = done(&tenant, MAIL);
    assert!(mails == 2 || (mails == 3 && repeated), "{mails} mails: {first}");
    assert!(service.stop().success());
}

/// The answer to revoking sessions can't be looked up: when it is lost, only a person knows.
const REVOKE: &str = r#"
flow: revoke
owner: soc@contoso.example
trigger: { type: webhook, name: w, fields: { user: string } }
steps:
  - { id: user, action: entra.get_user, with: { user: "{{ trigger.user }}" } }
  - { wait: 3s }
  - { action: entra.revoke_sessions, with: { user: "{{ user.id }}" } }
  - { action: email.send, with: { to: [soc@contoso.example], subject: "revoked", text: "{{ user.upn }}" } }
"#;

const REVOKED: &str = "entra.revoke_sessions";

#[test]
fn a_person_settles_what_nobody_can_look_up() {
    let tenant = Tenant::new(72, 10, |_| {});
    let site = Site::new(&tenant).flow("revoke", REVOKE);
    let service = site.start(&[]);
    let users: Vec<_> = tenant.world().plan.users.iter().take(4).map(|user| user.upn.clone()).collect();
    let lost = |user: &str, fault: &str| {
        let reads = || {
            tenant
                .ledger()
                .calls
                .iter()
                .filter(|(call, _)| call.starts_with("GET /v1.0/users/"))
                .map(|(_, n)| n)
                .sum::<u64>()
        };
        let before = reads();
        let run = started(&tenant, &service, &json!({ "user": user }));
        wait_for("the user is read", 30, || (reads() > before).then_some(()));
        tenant.fails(&json!({ fault: 1000 }));
        let row = site.run_is(&run, &["uncertain", "succeeded", "dead", "failed"], 60);
        assert_eq!(row["status"], "uncertain", "{row}");
        tenant.fails(&json!({}));
        run
    };
    let settle = |run: &str, said: &str| site.cli(&["runs", "settle", run, "--as", said, "--reason", "asked the user"]);
    // It took effect: the run goes on, and nothing is sent again.
    let run = lost(&users[0], "reset_after");
    assert_eq!(done(&tenant, REVOKED), 1);
    assert_eq!(site.cli(&["runs", "settle", &run, "--as", "perhaps", "--reason", "x"]).code, 2);
    let wrong = site.cli(&["runs", "settle", &run, "--as", "done", "--step", "steps[9]", "--reason", "x"]);
    assert!(wrong.code == 3 && wrong.err.contains("steps[2]"), "{wrong:?}");
    let said = settle(&run, "done");
    assert_eq!(said.code, 0, "{said:?}");
    let row = site.run_is(&run, &["succeeded"], 30);
    assert_eq!(row["effects"], json!({ REVOKED: 1, MAIL: 1 }));
    assert!(row["steps"].to_string().contains("says that it was done: asked the user"), "{row}");
    assert_eq!(done(&tenant, REVOKED), 1);
    let again = settle(&run, "done");
    assert!(again.code == 3 && again.err.contains("has ended"), "{again:?}");
    // It did not: it is sent again, also after a crash.
    let run = lost(&users[1], "reset_before");
    assert_eq!(done(&tenant, REVOKED), 1);
    assert_eq!(settle(&run, "not-done").code, 0);
    site.run_is(&run, &["succeeded"], 30);
    assert_eq!(done(&tenant, REVOKED), 2);
    // A person has the step fail; a run that a person cancelled is settled before it ends.
    let run = lost(&users[2], "reset_before");
    assert_eq!(settle(&run, "failed").code, 0);
    let row = site.run_is(&run, &["failed"], 30);
    assert!(row["reason"].as_str().unwrap().contains("asked the user"), "{row}");
    assert_eq!((done(&tenant, REVOKED), done(&tenant, MAIL)), (2, 2));
    assert!(service.stop().success());
}

/// A question of the guard waits for a decision; settling is none.
#[test]
fn settling_approves_nothing() {
    let tenant = Tenant::new(73, 30, |_| {});
    tenant.feed(30);
    let (alert, machine) = tenant.high().swap_remove(0);
    let site = Site::new(&tenant).flow("outage", OUTAGE).set("protected", "{ devices: [{ name: \"*\" }] }");
    let service = site.start(&[]);
    let run = started(&tenant, &service, &event(&alert, &machine));
    site.run_is(&run, &["waiting"], 60);
    for said in ["done", "not-done", "failed"] {
        let refused = site.cli(&["runs", "settle", &run, "--as", said, "--reason", "let it go"]);
        assert!(refused.code == 3 && refused.err.contains("settling approves nothing"), "{refused:?}");
    }
    assert_eq!(site.run_is(&run, &["waiting"], 5)["status"], "waiting");
    assert_eq!(tenant.effects(), Default::default());
    assert!(service.stop().success());
}

#[test]
fn an_event_that_cannot_be_judged_is_a_dead_letter_of_one_flow_and_is_offered_again() {
    let tenant = Tenant::new(74, 12, |_| {});
    tenant.feed(12);
    let all = tenant.endpoint_alerts(12);
    assert!(all >= 3, "the world is too small");
    let flow = |name: &str, filter: &str| {
        format!(
            "flow: {name}\ntrigger: {{ type: mde.alert.new, connection: mde{filter} }}\nsteps:\n  \
             - {{ id: alert, action: mde.get_alert, with: {{ alert_id: \"{{{{ trigger.alert_id }}}}\" }} }}\n"
        )
    };
    let site = Site::new(&tenant).flow("plain", &flow("plain", ""));
    let site = site.flow("picky", &flow("picky", ", where: \"trigger.alert.title.split('|')[7] == 'x'\""));
    let service = site.start(&["--from", "1d"]);
    let runs = site.settled(all, 60);
    assert!(runs.iter().all(|run| run["flow"] == "plain" && run["status"] == "succeeded"), "{runs:#?}");
    let listed = site.json(&["dlq", "list", "--flow", "picky"]);
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), all, "{listed}");
    assert_eq!(site.json(&["status"])["letters"], all);
    let shown = site.json(&["dlq", "show", &ids[0]]);
    assert_eq!((&shown["kind"], &shown["trigger"]), (&json!("event"), &json!("mde.alert.new")));
    assert!(shown["payload"]["alert"]["title"].is_string() && shown["trace"]["text"].is_string(), "{shown}");
    assert!(shown["error"].as_str().unwrap().starts_with("where: "), "{shown}");
    let still = site.cli(&["dlq", "retry", &ids[0]]);
    assert!(still.code == 3 && still.err.contains("still can't be judged"), "{still:?}");
    assert_eq!(site.cli(&["dlq", "drop", &ids[0], "--reason", "known"]).code, 0);
    assert!(service.stop().success());
    // The flow is mended. What is polled again meanwhile brings nothing back that was dropped, and starts nothing twice.
    let site = site.flow("picky", &flow("picky", ", where: \"trigger.alert.title.split('|')[0] != 'x'\""));
    let service = site.start(&[]);
    let retried = site.cli(&["dlq", "retry", "--all", "--yes", "-o", "json"]);
    let outcomes: Vec<_> =
        retried.json().as_array().unwrap().iter().map(|it| it["outcome"].as_str().unwrap().to_owned()).collect();
    assert!(outcomes.iter().all(|it| matches!(it.as_str(), "started" | "duplicate")), "{retried:?}");
    assert_eq!(site.cli(&["dlq", "list"]).code, 3);
    wait_for("each event has one run", 60, || {
        let runs = site.json(&["runs", "list", "--flow", "picky", "--status", "succeeded", "--limit", "100"]);
        (runs.as_array().unwrap().len() >= all - 1).then_some(())
    });
    let picky = site.runs().into_iter().filter(|run| run["flow"] == "picky").count();
    assert!((all - 1..=all).contains(&picky), "{picky} runs of {all} events");
    assert!(service.stop().success());
}

/// A mail whose answer was lost is sent again, and the run says so.
#[test]
fn a_repeated_notification_says_that_it_was_maybe_sent() {
    let tenant = Tenant::new(75, 10, |_| {});
    let flow = "flow: tell\nowner: soc@contoso.example\ntrigger: { type: webhook, name: w, fields: { text: string } }\nsteps:\n  \
                - { action: teams.post, connection: soc-triage, with: { title: t, text: \"{{ trigger.text }}\" }, retry: { max: 9, first: 500ms, cap: 1s } }\n";
    let site = Site::new(&tenant).flow("tell", flow);
    let service = site.start(&[]);
    tenant.fails(&json!({ "reset_after": 1000 }));
    let run = started(&tenant, &service, &json!({ "text": "x" }));
    wait_for("an answer was lost", 30, || {
        tenant.ledger().injected.get("reset_after").is_some_and(|n| *n > 0).then_some(())
    });
    tenant.fails(&json!({}));
    let row = site.run_is(&run, &["succeeded"], 60);
    let calls: Vec<_> = row["steps"].as_array().unwrap().iter().filter(|step| step["what"] == "call").collect();
    assert!(calls.len() >= 2 && calls[0]["maybe_sent"].is_null(), "{row}");
    assert!(calls[1..].iter().all(|call| call["maybe_sent"] == true), "{row}");
    let told = site.cli(&["runs", "show", &run]);
    assert!(told.out.contains("attempt 2 (maybe sent:"), "{told:?}");
    let page = tenant.text(&format!("{}/runs/{run}", service.url));
    assert!(page.contains("attempt 2 (maybe sent:"), "{page}");
    assert!(service.stop().success());
}
