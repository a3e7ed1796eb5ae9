//! Flows and configuration change under a running service: all or nothing, and nothing is lost or done twice by it.

use serde_json::{Value as Json, json};

use crate::bin::{HOOK_TOKEN, ISOLATE, Service, Site, Tenant, wait_for};
use crate::crash::nothing_lost_and_nothing_twice;
use crate::service::{BY_HOOK, event};

/// Waits, then writes; the text tells one version from another.
fn later(text: &str, wait: &str) -> String {
    format!(
        "flow: later\ntrigger: {{ type: webhook, name: w, fields: {{ alertId: string, machineId: string }} }}\nsteps:\n  \
         - {{ wait: {wait} }}\n  - action: mde.update_alert\n    with: {{ alert_id: \"{{{{ trigger.alertId }}}}\", comment: \"{text}\" }}\n"
    )
}

fn started(tenant: &Tenant, service: &Service, alert: &str, machine: &str) -> String {
    let (status, body) = tenant.hook(&service.url, &event(alert, machine)).unwrap();
    assert_eq!(status, 202, "{body}");
    body["run"].as_str().unwrap().to_owned()
}

/// How the last reload ended; null before the first.
fn last(site: &Site) -> Json {
    site.json(&["status"])["last_reload"].clone()
}

/// Waits for a reload after this one, and answers how it ended.
fn next(site: &Site, before: &Json) -> Json {
    wait_for("a reload", 40, || Some(last(site)).filter(|now| now["at"] != before["at"]))
}

/// Asks for a reload, and answers how it ended.
fn reload(site: &Site, service: &Service) -> Json {
    let before = last(site);
    service.hangup();
    next(site, &before)
}

/// Only SIGHUP reloads, so that a test knows what came of what.
fn by_hangup(tenant: &Tenant) -> Site {
    Site::new(tenant).set("server", "{ listen: \"127.0.0.1:0\", watch: off }")
}

#[test]
fn a_run_keeps_its_version_through_a_reload() {
    let tenant = Tenant::new(61, 10, |_| {});
    tenant.feed(10);
    let (alert, machine) = tenant.high().swap_remove(0);
    let site = by_hangup(&tenant).flow("later", &later("one", "8s"));
    let service = site.start(&[]);
    let waits = started(&tenant, &service, &alert, &machine);
    let version = site.run_is(&waits, &["running", "waiting"], 20)["version"].clone();
    let site = site.flow("later", &later("two", "1s"));
    let told = reload(&site, &service);
    assert_eq!((&told["ok"], &told["text"]), (&json!(true), &json!("1 flow changed (later)")), "{told}");
    let logged = || service.log().contains("reloaded: 1 flow changed (later)").then_some(());
    wait_for("it is in the log", 20, logged);
    let (first, second) = (waits.clone(), started(&tenant, &service, &alert, &machine));
    let [first, second] = [&first, &second].map(|run| site.run_is(run, &["succeeded"], 60));
    assert_eq!(first["version"], version, "it went on as it began");
    assert_ne!(second["version"], version);
    assert_eq!(tenant.effects()["mde.update_alert"], 2);
    assert!(service.stop().success());
}

#[test]
fn a_fault_leaves_everything_as_it_was_and_every_fault_is_told() {
    let tenant = Tenant::new(62, 10, |_| {});
    tenant.feed(10);
    let (alert, machine) = tenant.high().swap_remove(0);
    let site = by_hangup(&tenant).flow("later", &later("one", "1s"));
    let service = site.start(&[]);
    let before = started(&tenant, &service, &alert, &machine);
    // A flow that would be new, one that is broken, one that was written half, a secret that is gone, a limit.
    let site = site
        .flow("fine", &BY_HOOK.replace("by-hook", "fine"))
        .flow("broken", "flow: broken\ntrigger: { type: manual }\nsteps:\n  - action: mde.isolate_machines\n")
        .flow("half", "flow: half\ntrigger: { type: manual }\nsteps:\n  - action: \"mde.")
        .set("webhooks", "{ w: { auth: { bearer: { file: secret-gone } } } }")
        .set("limits", "{ destructive: [{ max: 0, per: 1d }] }");
    let told = reload(&site, &service);
    assert_eq!(told["ok"], false);
    for word in ["broken.yaml:4:", "half.yaml:4:", "secret-gone"] {
        assert!(told["faults"].to_string().contains(word), "{word}: {told}");
        assert!(service.log().contains(word), "{word}");
    }
    let human = site.cli(&["status"]);
    assert!(human.out.contains("the last reload failed: ") && human.out.contains("broken.yaml:4:"), "{human:?}");
    let after = started(&tenant, &service, &alert, &machine);
    let [before, after] = [&before, &after].map(|run| site.run_is(run, &["succeeded"], 60));
    assert_eq!(before["version"], after["version"]);
    assert_eq!(site.json(&["status"])["flows"], json!({ "live": 1, "shadow": 0 }));
    // Mended, all of it is taken.
    std::fs::remove_file(site.path().join("flows/half.yaml")).unwrap();
    std::fs::remove_file(site.path().join("flows/broken.yaml")).unwrap();
    let site = site.set("webhooks", "{ w: { auth: { bearer: { file: secret-hook } } } }");
    let told = reload(&site, &service);
    assert_eq!((&told["ok"], &told["text"]), (&json!(true), &json!("1 flow new (fine), limits changed")), "{told}");
    // A file that cannot be read as a configuration at all.
    let whole = std::fs::read_to_string(site.path().join("config.yaml")).unwrap();
    site.write("config.yaml", "flows: [./flows\n");
    service.hangup();
    wait_for("it is told", 40, || service.log().contains("config.yaml:1:8").then_some(()));
    site.write("config.yaml", &whole);
    assert_eq!(reload(&site, &service)["text"], "nothing changed");
    assert!(service.stop().success());
}

#[test]
fn changed_files_are_noticed_and_a_removed_flow_starts_nothing_more() {
    let tenant = Tenant::new(63, 30, |_| {});
    tenant.feed(10);
    let site = Site::new(&tenant).flow("later", &later("one", "6s"));
    let service = site.start(&[]);
    let (alert, machine) = tenant.high().swap_remove(0);
    let waits = started(&tenant, &service, &alert, &machine);
    // A poller begins with the first flow that needs it; the flow begins now.
    let site = site.shipped("isolate-high-severity");
    let added = next(&site, &Json::Null);
    assert_eq!(added["text"], "1 flow new (isolate-high-severity)", "{added}");
    tenant.feed(10);
    let (before, all) = (tenant.endpoint_alerts(10), tenant.endpoint_alerts(20));
    let polled = |site: &Site| site.json(&["runs", "list", "--flow", "isolate-high-severity"]);
    wait_for("the new alerts start runs", 40, || {
        (polled(&site).as_array().unwrap().len() == all - before).then_some(())
    });
    std::fs::remove_file(site.path().join("flows/isolate-high-severity.yaml")).unwrap();
    let removed = next(&site, &added);
    assert_eq!(removed["text"], "1 flow gone (isolate-high-severity)", "{removed}");
    wait_for("its poller ends", 20, || service.log().contains("no flow needs this poller").then_some(()));
    let asked = tenant.ledger().calls["GET /api/alerts"];
    std::fs::remove_file(site.path().join("flows/later.yaml")).unwrap();
    next(&site, &removed);
    // What waits goes on, and nothing new starts.
    let (status, body) = tenant.hook(&service.url, &event(&alert, &machine)).unwrap();
    assert_eq!(status, 404, "{body}");
    site.run_is(&waits, &["succeeded"], 60);
    site.settled(all - before + 1, 60);
    assert_eq!(tenant.ledger().calls["GET /api/alerts"], asked);
    assert!(service.stop().success());
}

#[test]
fn limits_modes_and_secrets_change_without_a_restart() {
    let tenant = Tenant::new(64, 30, |_| {});
    tenant.feed(30);
    let mut high = tenant.high().into_iter();
    let mut one = || high.next().unwrap();
    let site = by_hangup(&tenant).flow("by-hook", BY_HOOK).set("limits", "{ destructive: [{ max: 9, per: 1h }] }");
    // The application's secret was mistyped.
    site.write("secret-client", "not the secret");
    let service = site.start(&[]);
    site.write("secret-client", watchfloor::sandbox::CLIENT_SECRET);
    assert_eq!(reload(&site, &service)["text"], "secrets changed");
    let (alert, machine) = one();
    site.run_is(&started(&tenant, &service, &alert, &machine), &["succeeded"], 60);
    assert_eq!(tenant.effects()[ISOLATE], 1);
    // What was done before the limit was set counts.
    let site = site.set("limits", "{ destructive: [{ max: 1, per: 1d }] }");
    assert_eq!(reload(&site, &service)["text"], "limits changed");
    let (alert, machine) = one();
    let row = site.run_is(&started(&tenant, &service, &alert, &machine), &["waiting"], 60);
    assert!(row["reason"].as_str().unwrap().contains("limit"), "{row}");
    let site = site.set("limits", "{ destructive: off }").set("flow_modes", "{ by-hook: shadow }");
    assert_eq!(reload(&site, &service)["text"], "1 flow changed (by-hook), flow_modes changed, limits changed");
    let (alert, machine) = one();
    site.run_is(&started(&tenant, &service, &alert, &machine), &["succeeded"], 60);
    assert_eq!(tenant.effects()[ISOLATE], 1);
    // The webhook's token is another one.
    site.write("secret-hook", "another");
    assert_eq!(reload(&site, &service)["text"], "secrets changed");
    let (alert, machine) = one();
    assert_eq!(tenant.hook(&service.url, &event(&alert, &machine)).unwrap().0, 401, "{HOOK_TOKEN} is the old one");
    let headers = [("authorization", "Bearer another"), ("content-type", "application/json")];
    let url = format!("{}/hooks/w", service.url);
    assert_eq!(tenant.post(&url, &headers, event(&alert, &machine).to_string()).0, 202);
    // These two need a restart, and are said.
    let site = site.set("server", "{ listen: \"127.0.0.1:1\", watch: off }").set("store", "{ path: ./elsewhere }");
    let before = site.path().join("data");
    service.hangup();
    wait_for("both are said", 40, || {
        service.log().contains("store, server.listen changes with a restart only").then_some(())
    });
    assert!(before.join("control.json").exists() && !site.path().join("elsewhere").exists());
    assert!(service.stop().success());
}

#[test]
fn a_storm_of_reloads_and_a_kill_in_the_middle_lose_nothing() {
    const ALERTS: usize = 60;
    let tenant = Tenant::new(65, ALERTS, |options| options.action_delay = std::time::Duration::ZERO);
    let mut site = by_hangup(&tenant).shipped("isolate-high-severity");
    let text = std::fs::read_to_string(site.path().join("flows/isolate-high-severity.yaml")).unwrap();
    for life in 0..4 {
        let service = site.start(&["--from", "1d"]);
        tenant.feed(ALERTS / 4);
        let before = tenant.calls();
        for storm in 0..10 {
            site = site.flow("isolate-high-severity", &format!("# {life} {storm}\n{text}"));
            service.hangup();
            service.hangup();
            wait_for("the service makes calls", 40, || (tenant.calls() > before + storm).then_some(()));
        }
        service.kill();
    }
    let service = site.start(&["--from", "1d"]);
    let runs = site.settled(tenant.endpoint_alerts(ALERTS), 80);
    assert_eq!(runs.len(), tenant.endpoint_alerts(ALERTS));
    nothing_lost_and_nothing_twice(&site, &tenant, &runs, &tenant.ledger());
    let versions: std::collections::BTreeSet<_> = runs.iter().map(|run| run["version"].to_string()).collect();
    assert!(versions.len() > 1, "no run met a reload");
    assert!(service.stop().success());
}

#[test]
fn what_was_kept_of_an_earlier_start_lets_no_flow_do_more_than_its_file() {
    let tenant = Tenant::new(66, 10, |_| {});
    tenant.feed(10);
    let (alert, machine) = tenant.high().swap_remove(0);
    let tight = format!("{BY_HOOK}mode: shadow\n");
    let site = by_hangup(&tenant).flow("by-hook", &tight);
    assert!(site.start(&[]).stop().success());
    // Somebody who can write to the store's folder makes the flow live there, and mends the sum.
    let file = site.path().join("data/flows.cache");
    let kept = wait_for("what was checked is kept", 20, || std::fs::read_to_string(&file).ok());
    let (_, body) = kept.split_once('\n').unwrap();
    let body = body.replacen("\"mode\":\"shadow\"", "\"mode\":null", 1);
    assert!(!body.contains("shadow"), "{body}");
    let sum = watchfloor::id::hex(&watchfloor::id::digest16(&[&body]));
    std::fs::write(&file, format!("{sum}\n{body}")).unwrap();
    let service = site.start(&[]);
    assert_eq!(site.json(&["status"])["flows"], json!({ "live": 1, "shadow": 0 }), "the shortcut was taken");
    let (status, body) = tenant.hook(&service.url, &event(&alert, &machine)).unwrap();
    assert_eq!(status, 503, "{body}");
    service.says("is not what was deployed");
    // It was noticed, and all files were read again.
    next(&site, &Json::Null);
    assert_eq!(site.json(&["status"])["flows"], json!({ "live": 0, "shadow": 1 }));
    site.run_is(&started(&tenant, &service, &alert, &machine), &["succeeded"], 60);
    assert_eq!(tenant.effects(), Default::default());
    assert!(service.stop().success());
}
