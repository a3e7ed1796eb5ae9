//! Alerts at the command line: the queue, one alert with all around it, and what a person does with them.

use serde_json::Value as Json;

use crate::bin::{Site, Tenant};

/// Twenty alerts, all of them there, over two products.
fn tenant(seed: u64) -> Tenant {
    let tenant = Tenant::new(seed, 20, |_| {});
    tenant.feed(20);
    tenant
}

fn ids(list: &Json) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

/// An open endpoint alert that others are like, and how many are like it.
fn with_similar(site: &Site) -> (String, usize) {
    let listed = site.json(&["alerts", "list", "--source", "endpoint"]);
    let alerts = listed.as_array().unwrap();
    let like = |alert: &Json| alerts.iter().filter(|other| other["title"] == alert["title"]).count() - 1;
    let most = alerts.iter().max_by_key(|alert| like(alert)).unwrap();
    assert!(like(most) > 0, "the world has no two alerts of a kind");
    (most["id"].as_str().unwrap().to_owned(), like(most))
}

#[test]
fn alerts_of_all_products_are_listed_by_the_portal_s_filters() {
    let tenant = tenant(61);
    let site = Site::new(&tenant);
    let run = |args: &[&str]| site.json(&[&["alerts", "list"], args].concat());
    let all = run(&[]);
    assert_eq!(ids(&all).len(), 20, "new and in progress, all products");
    let created: Vec<_> = all.as_array().unwrap().iter().map(|it| it["created"].as_str().unwrap()).collect();
    assert!(created.is_sorted_by(|a, b| a >= b), "the newest first: {created:?}");
    let endpoint = run(&["--source", "endpoint"]);
    let cloud = run(&["--source", "MicrosoftDefenderForCloudApps"]);
    assert_eq!(ids(&endpoint).len() + ids(&cloud).len(), 20);
    assert_eq!(endpoint[0]["product"], "Microsoft Defender for Endpoint");
    let high = run(&["--severity", "high"]);
    assert!(high.as_array().unwrap().iter().all(|it| it["severity"] == "High"));
    assert_eq!(ids(&high).len(), all.as_array().unwrap().iter().filter(|it| it["severity"] == "High").count());
    let device = endpoint[0]["devices"][0].as_str().unwrap();
    let on_device = run(&["--entity", &device.to_uppercase()]);
    assert!(!ids(&on_device).is_empty() && ids(&on_device).len() < 20);
    assert!(on_device.as_array().unwrap().iter().all(|it| it["devices"].to_string().contains(device)));
    assert_eq!(ids(&run(&["--limit", "3"])), ids(&all)[..3]);
    assert_eq!(site.cli(&["alerts", "list", "--status", "resolved"]).code, 3);
    assert_eq!(site.cli(&["alerts", "list", "--investigation", "running"]).code, 3);
    assert_eq!(site.cli(&["alerts", "list", "--severity", "worst"]).code, 2);
    let human = site.cli(&["alerts", "list", "--limit", "2"]);
    assert!(
        human.code == 0 && human.out.trim_start().starts_with("ID") && human.err.contains("there are more"),
        "{human:?}"
    );
}

#[test]
fn one_alert_is_shown_with_its_story_its_likes_and_what_was_done() {
    let tenant = tenant(62);
    let site = Site::new(&tenant);
    let (id, like) = with_similar(&site);
    let shown = site.json(&["alerts", "show", &id]);
    assert_eq!(shown["similar"]["count"], like);
    assert!(!shown["recommended_actions"].as_str().unwrap().is_empty());
    assert!(!shown["evidence"].as_array().unwrap().is_empty());
    assert_eq!(shown["missing"], serde_json::json!([]));
    let story = shown["story"].as_array().unwrap();
    let at: Vec<_> = story.iter().map(|it| it["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()).collect();
    assert!(at.is_sorted() && story.iter().any(|it| it["what"] == "alert"), "{story:?}");
    // The page of the portal is an id, too, and the Endpoint's own API serves where Graph is not configured.
    let page = format!("https://security.microsoft.com/alerts/{id}?tid=6f1c2a44-9d0e-4b53-8a1f-3c5d7e9b1f20");
    assert_eq!(site.json(&["alerts", "show", &page])["id"], shown["id"]);
    let mde = site.json(&["alerts", "show", &id, "--connection", "mde"]);
    assert_eq!((&mde["title"], &mde["similar"]["count"]), (&shown["title"], &Json::from(like)));
    let human = site.cli(&["alerts", "show", &id]);
    assert!(
        human.code == 0 && human.out.contains("\nstory\n") && human.out.contains("\nsimilar alerts\n"),
        "{human:?}"
    );
    let none = site.cli(&["alerts", "show", "da000000000000000000_1"]);
    assert_eq!(none.code, 3, "{none:?}");
}

#[test]
fn what_a_person_does_with_alerts_is_a_run_under_the_same_guard() {
    let tenant = tenant(63);
    let site = Site::new(&tenant);
    let (id, like) = with_similar(&site);
    let alone = site.cli(&["alerts", "assign", &id, "--to", "ana@contoso.example"]);
    assert_eq!(alone.code, 69, "no service, and nothing is sent past it: {alone:?}");
    let service = site.start(&[]);
    let done = site.json(&["alerts", "assign", &id, "--to", "ana@contoso.example"]);
    assert_eq!((&done["status"], &done["live"]), (&Json::from("succeeded"), &Json::from(true)), "{done}");
    assert_eq!(site.json(&["alerts", "show", &id])["assigned_to"], "ana@contoso.example");
    let wrong = site.cli(&["alerts", "classify", &id, "--as", "FalsePositive", "--determination", "Malware"]);
    assert!(wrong.code == 2 && wrong.err.contains("which takes NotMalicious"), "{wrong:?}");
    let old = site.cli(&[
        "alerts",
        "classify",
        &id,
        "--as",
        "falsePositive",
        "--determination",
        "Clean",
        "--comment",
        "known",
    ]);
    assert!(old.code == 0 && old.err.contains("`Clean` is out of use: write `NotMalicious`"), "{old:?}");
    let shown = site.json(&["alerts", "show", &id]);
    assert_eq!((&shown["classification"], &shown["determination"]), (&"FalsePositive".into(), &"NotMalicious".into()));
    assert_eq!(shown["comments"][0]["text"], "known");
    let ask = site.cli(&["alerts", "resolve", &id, "--similar"]);
    assert!(ask.code == 2 && ask.err.contains("add --yes") && ask.err.contains(&id), "{ask:?}");
    let all = site.json(&[
        "alerts",
        "resolve",
        &id,
        "--similar",
        "--yes",
        "--as",
        "FalsePositive",
        "--determination",
        "NotMalicious",
    ]);
    assert_eq!(all["alerts"].as_array().map(Vec::len), Some(1 + like), "{all}");
    assert_eq!(all["effects"]["xdr.update_alert"], 1 + like, "each counts by itself");
    let shown = site.json(&["alerts", "show", &id]);
    assert_eq!(shown["similar"]["closed_as"][0]["count"], like);
    assert_eq!(shown["similar"]["closed_as"][0]["classification"], "FalsePositive");
    let other = site.json(&["alerts", "list", "--source", "cloud-apps"])[0].clone();
    let incident = other["incident_id"].as_str().unwrap();
    let linked = site.json(&["alerts", "link", &id, "--incident", incident, "--comment", "one campaign"]);
    assert_eq!(linked["status"], "succeeded", "{linked}");
    assert_eq!(site.json(&["alerts", "show", &id])["incident_id"], *incident);
    let audit = site.cli(&["audit", "export"]).out;
    assert!(
        audit
            .lines()
            .filter(|line| line.contains("\\\"event\\\":\\\"alerts\\\"") || line.contains("\"event\":\"alerts\""))
            .count()
            >= 4,
        "{audit}"
    );
    assert!(service.stop().success());
}

#[test]
fn modes_and_limits_hold_for_a_person_at_the_command_line_too() {
    let tenant = tenant(64);
    let site = Site::new(&tenant).set("mode", "shadow").set("limits", "{ write: [{ max: 2, per: 1h }] }");
    let (id, like) = with_similar(&site);
    let service = site.start(&[]);
    let before = tenant.effects();
    let shadow = site.cli(&["alerts", "comment", &id, "--text", "hello"]);
    assert!(shadow.code == 0 && shadow.err.contains("flow_modes: { watchfloor-alerts: live }"), "{shadow:?}");
    assert_eq!(tenant.effects(), before, "in shadow nothing is sent");
    assert!(service.stop().success());
    let site = site.set("flow_modes", "{ watchfloor-alerts: live }");
    let service = site.start(&[]);
    let some = site.cli(&["alerts", "comment", &id, "--text", "hello", "--similar", "--yes", "-o", "json"]);
    assert_eq!(some.code, if like > 1 { 75 } else { 0 }, "{some:?}");
    let sent = tenant.effects().get("xdr.comment_alert").copied().unwrap_or(0);
    assert_eq!(sent as usize, (1 + like).min(2), "two writes an hour, and then a person is asked");
    assert!(service.stop().success());
}

/// The arguments of a command as a shell splits them: only double quotes are used on the pages.
pub(crate) fn arguments(line: &str) -> Vec<String> {
    let line = line.split(" #").next().unwrap();
    let mut out = vec![];
    for (at, part) in line.split('"').enumerate() {
        if at % 2 == 1 { out.push(part.to_owned()) } else { out.extend(part.split_whitespace().map(str::to_owned)) }
    }
    out
}

#[test]
fn every_example_of_the_page_on_triage_runs() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/triage.md")).unwrap();
    let tenant = tenant(65);
    let site = Site::new(&tenant);
    let (id, _) = with_similar(&site);
    let listed = site.json(&["alerts", "list", "--source", "cloud-apps"]);
    let incident = listed[0]["incident_id"].as_str().unwrap();
    let service = site.start(&[]);
    let examples = crate::docs::commands(&page);
    let examples = examples
        .iter()
        .filter(|line| line.contains("ALERT") || line.contains("alerts list -") || line.ends_with("first"));
    let mut ran = 0;
    for line in examples {
        let words = arguments(&line.replace("ALERT", &id).replace("INCIDENT", incident));
        let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        let said = site.cli(&words);
        // A list that nothing is in is an answer, too.
        assert!(said.code == 0 || (said.code == 3 && words[1] == "list"), "{line}: {said:?}");
        ran += 1;
    }
    assert_eq!(ran, 12, "{page}");
    assert!(service.stop().success());
}
