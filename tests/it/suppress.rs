//! Suppression rules through the real binary: alerts that start nothing, that are resolved, that stay so after a kill.

use std::os::unix::process::ExitStatusExt;

use serde_json::Value as Json;

use crate::alerts::arguments;
use crate::bin::{Site, Tenant, wait_for};
use crate::matrix::ENDED_ITSELF;

/// Reads each alert, and nothing else.
const READS: &str = "flow: reads
owner: soc@contoso.example
trigger: { type: mde.alert.new, connection: mde }
steps:
  - { id: alert, action: mde.get_alert, with: { alert_id: '{{ trigger.alert_id }}' } }
";

fn rule(title: &str, action: &str) -> String {
    let title = Json::from(title).to_string();
    format!(
        "suppression: known\ncomment: c\nowner: soc@contoso.example\nexpires: {}\nalert: {{ source: endpoint, title: {title} }}\naction: {action}\n",
        until()
    )
}

/// A date that lies ahead, whenever this runs.
fn until() -> String {
    let at = watchfloor::clock::Clock::system().now() + jiff::SignedDuration::from_hours(24 * 60);
    at.strftime("%Y-%m-%d").to_string()
}

fn tenant(seed: u64) -> Tenant {
    let tenant = Tenant::new(seed, 20, |_| {});
    tenant.feed(20);
    tenant
}

fn site(tenant: &Tenant) -> Site {
    let site = Site::new(tenant).flow("reads", READS).set("suppressions", "[./suppressions]");
    std::fs::create_dir(site.path().join("suppressions")).unwrap();
    site
}

/// A title that several alerts of Defender for Endpoint have, with their ids; and the ids of the others.
fn split(site: &Site) -> (String, Vec<String>, Vec<String>) {
    let listed = site.json(&["alerts", "list", "--source", "endpoint", "--status", "all"]);
    let all: Vec<(String, String)> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["id"].as_str().unwrap().to_owned(), it["title"].as_str().unwrap().to_owned()))
        .collect();
    let of = |title: &str| all.iter().filter(|(_, it)| it == title).count();
    let title = all.iter().map(|(_, title)| title.clone()).max_by_key(|title| of(title)).unwrap();
    let ids = |same: bool| all.iter().filter(|(_, it)| (*it == title) == same).map(|(id, _)| id.clone()).collect();
    (title.clone(), ids(true), ids(false))
}

#[test]
fn suppressed_alerts_start_nothing_and_stay_so_through_a_kill_and_the_end_of_their_rule() {
    let tenant = Tenant::new(71, 20, |_| {});
    tenant.feed(15);
    let site = site(&tenant);
    let (title, held, free) = split(&site);
    site.write("suppressions/known.yaml", &rule(&title, "ignore"));
    assert_eq!(site.cli(&["check"]).code, 0);
    let service = site.start(&["--from", "1d"]);
    site.settled(free.len(), 60);
    let suppressed = || {
        let listed = site.json(&["alerts", "list", "--source", "endpoint"]);
        let by = |it: &&Json| it["suppressed"]["rule"] == "known";
        listed.as_array().unwrap().iter().filter(by).count()
    };
    wait_for("the alerts to be suppressed", 20, || (suppressed() == held.len()).then_some(()));
    let why = site.cli(&["why", "reads", "--alert", &held[0]]);
    assert!(
        why.code == 0 && why.out.contains("the suppression rule known of soc@contoso.example suppressed it"),
        "{why:?}"
    );
    assert!(site.cli(&["audit", "export"]).out.contains("suppressed"));
    service.kill();
    std::fs::remove_file(site.path().join("suppressions/known.yaml")).unwrap();
    let service = site.start(&[]);
    // Later alerts show that polls have gone by, which read the earlier ones again: none of those starts a run.
    tenant.feed(5);
    let later = tenant.endpoint_alerts(20) - tenant.endpoint_alerts(15);
    assert!(later > 0, "the seed has no later alert");
    site.settled(free.len() + later, 60);
    let runs = site.runs();
    assert_eq!(runs.len(), free.len() + later, "{runs:?}");
    assert!(service.stop().success());
    assert_eq!(suppressed(), held.len());
}

#[test]
fn a_rule_that_resolves_closes_the_alert_through_the_guard() {
    let tenant = tenant(72);
    let site = site(&tenant);
    let (title, held, free) = split(&site);
    let action = "{ resolve: { classification: FalsePositive, determination: NotMalicious, comment: Known. } }";
    site.write("suppressions/known.yaml", &rule(&title, action));
    let service = site.start(&["--from", "1d"]);
    site.settled(free.len() + held.len(), 60);
    let runs = site.json(&["runs", "list", "--flow", "watchfloor-suppressions"]);
    assert_eq!(runs.as_array().unwrap().len(), held.len());
    assert!(runs.as_array().unwrap().iter().all(|run| run["status"] == "succeeded"), "{runs}");
    for id in &held {
        let shown = site.json(&["alerts", "show", id, "--connection", "mde"]);
        assert_eq!((&shown["status"], &shown["classification"]), (&"Resolved".into(), &"FalsePositive".into()));
        assert_eq!(shown["suppressed"]["action"], "resolve");
    }
    assert!(service.stop().success());
}

/// Killed around each commit and each call, every alert is handled once: by its flow, or by the rule that fits it.
#[test]
fn a_rule_suppresses_and_resolves_once_through_kills_at_every_point() {
    let points =
        ["watermark.before:2", "watermark.after:2", "offer.before:1", "offer.after:1", "send.before:1", "send.after:1"];
    for (seed, point) in (80..).zip(points) {
        let tenant = tenant(seed);
        let site = site(&tenant);
        let (title, held, free) = split(&site);
        let action = "{ resolve: { classification: FalsePositive, determination: NotMalicious } }";
        site.write("suppressions/known.yaml", &rule(&title, action));
        let site = site.env("WATCHFLOOR_FAIL", &format!("{point}:kill"));
        // It may be over before it says that it is ready.
        if let Ok(mut service) = site.try_start(&["--from", "1d"]) {
            let ended = wait_for(&format!("{point} is passed"), 40, || service.ended());
            assert_eq!(ended.signal(), Some(ENDED_ITSELF), "{point}: {}", service.log());
        }
        let site = site.env("WATCHFLOOR_FAIL", "");
        let service = site.start(&["--from", "1d"]);
        let runs = site.settled(free.len() + held.len(), 60);
        let of = |flow: &str| runs.iter().filter(|run| run["flow"] == flow && run["status"] == "succeeded").count();
        assert_eq!((of("watchfloor-suppressions"), of("reads")), (held.len(), free.len()), "{point}: {runs:?}");
        assert_eq!(site.runs().len(), runs.len(), "{point}");
        for id in &held {
            assert_eq!(site.json(&["alerts", "show", id, "--connection", "mde"])["status"], "Resolved", "{point}");
        }
        assert!(service.stop().success());
    }
}

#[test]
fn rules_change_without_a_restart_and_a_fault_in_one_changes_nothing() {
    let tenant = Tenant::new(73, 20, |_| {});
    tenant.feed(10);
    let site = site(&tenant);
    let service = site.start(&["--from", "1d"]);
    let (before, all) = (tenant.endpoint_alerts(10), tenant.endpoint_alerts(20));
    site.settled(before, 60);
    let reloaded = |text: &str| {
        wait_for("a reload", 20, || {
            let last = site.json(&["status"])["last_reload"].clone();
            last.to_string().contains(text).then_some(last)
        })
    };
    site.write("suppressions/known.yaml", "suppression: known\n");
    assert_eq!(reloaded("WF0902")["ok"], false);
    // All of the product, whatever they are called.
    site.write("suppressions/known.yaml", &rule("", "ignore").replace(", title: \"\"", ""));
    assert_eq!(reloaded("suppressions changed")["ok"], true);
    tenant.feed(10);
    wait_for("the new alerts to be suppressed", 30, || {
        let listed = site.json(&["alerts", "list", "--source", "endpoint", "--status", "all"]);
        let held = listed.as_array().unwrap().iter().filter(|it| !it["suppressed"].is_null()).count();
        (held == all - before).then_some(())
    });
    assert!(all > before && site.runs().len() == before, "those of before had started their runs, no later one has");
    assert!(service.stop().success());
}

#[test]
fn a_rule_with_a_fault_keeps_the_service_from_starting_and_check_shows_it() {
    let tenant = tenant(74);
    let site = site(&tenant);
    site.write(
        "suppressions/bad.yaml",
        "suppression: bad\ncomment: c\nowner: o\nexpires: 2026-12-31\nalert: any\naction: ignore\n",
    );
    let checked = site.cli(&["check", "-o", "json"]);
    assert_eq!(checked.code, 1);
    assert_eq!(checked.json()["diagnostics"][0]["code"], "WF0905");
    let run = site.cli(&["run"]);
    assert!(run.code == 78 && run.err.contains("suppression rules"), "{run:?}");
    assert_eq!(site.cli(&["suppress", "list"]).code, 1);
}

#[test]
fn every_example_of_the_page_on_suppressions_runs() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/suppressions.md")).unwrap();
    let tenant = tenant(75);
    let site = site(&tenant);
    let (title, held, _) = split(&site);
    let allow = "ignore\nallow: [ { type: FileSha256, value: 220e7d15b0b3d7fac48f2bd61114db1022197f7f4e2a0e1e1a5e0c4b2f6d7a90, groups: [Workstations] } ]";
    site.write("suppressions/known.yaml", &rule(&title, allow));
    let service = site.start(&[]);
    let mut ran = 0;
    for line in crate::docs::commands(&page).iter().filter(|line| line.starts_with("watchfloor suppress ")) {
        let words = arguments(&line.replace("ALERT", &held[0]).replace("RULE", "known"));
        let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        let said = site.cli(&words);
        assert_eq!(said.code, 0, "{line}: {said:?}");
        ran += 1;
    }
    assert_eq!(ran, 7);
    let matched = site.json(&["suppress", "test", "known"]);
    assert_eq!(matched.as_array().unwrap().len(), held.len());
    assert!(site.path().join("suppressions/known-tool.yaml").is_file(), "--write wrote it");
    let again =
        site.cli(&["suppress", "new", "--from-alert", &held[0], "--name", "known-tool", "--comment", "c", "--write"]);
    assert_eq!(again.code, 75, "a file is never replaced: {again:?}");
    assert_eq!(site.cli(&["suppress", "new", "--from-alert", &held[0], "--write"]).code, 2, "nobody says why");
    let written = site.json(&["suppress", "test", "known-tool"]);
    assert!(written.as_array().unwrap().iter().any(|it| it["alert"] == *held[0]), "it fits the alert it was made from");
    assert_eq!(tenant.effects().get("mde.submit_indicator"), Some(&1));
    assert!(service.stop().success());
}
