//! Several events in one run, with the real binary: through kills and failing disks at every point, over restarts, pauses and
//! reloads. Each event is in one batch, and each batch is one run.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value as Json, json};
use watchfloor::clock::Clock;

use crate::bin::{Service, Site, Tenant, wait_for};
use crate::invariants::{self, Rules};
use crate::matrix::{PACE, each};

/// Three events of one device, or those of some minutes, make a mail.
fn digest(within: &str) -> String {
    format!(
        "flow: digest\nowner: soc@contoso.example\ntrigger:\n  type: webhook\n  name: w\n  fields: {{ alertId: string, \
         machineId: string }}\n  dedupe: trigger.alertId\n  batch: {{ key: trigger.machineId, max: 3, within: {within} }}\n\
         steps:\n  - action: email.send\n    with:\n      to: [soc@contoso.example]\n      subject: \"{{{{ trigger.count }}}} of \
         {{{{ trigger.key }}}}\"\n      text: \"{{{{= trigger.items.map(it, it.alertId).join(' ') }}}}\"\n"
    )
}

fn event(alert: &str, machine: &str) -> Json {
    json!({ "alertId": alert, "machineId": machine })
}

/// Sends an event until it is said to be taken, to whichever life of the service is there.
fn send(tenant: &Tenant, url: &str, event: &Json) -> Option<Json> {
    tenant.hook(url, event).filter(|(status, _)| *status == 202).map(|(_, body)| body)
}

/// What each batch holds, by the key of its run.
fn batches(site: &Site) -> Vec<(String, Vec<String>)> {
    let mut rows = invariants::read(site).rows;
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    let items = |row: &watchfloor::journal::RunRow| {
        let payload = row.payload.to_json();
        let items = payload["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["alertId"].as_str().unwrap().to_owned()).collect()
    };
    rows.iter().map(|row| (row.key.clone(), items(row))).collect()
}

#[derive(Debug)]
struct Case {
    point: &'static str,
    nth: u32,
    fault: &'static str,
}

#[test]
fn a_batch_survives_every_fault_at_every_point() {
    const ALL: &[&str] = &["kill", "enospc", "eio"];
    const LIES: &[&str] = &["kill", "eio"];
    const KILL: &[&str] = &["kill"];
    // The third event fills a batch, the fifth waits for the other's time.
    let points = [
        ("gather.before", 1, ALL),
        ("gather.after", 1, LIES),
        ("gather.before", 3, ALL),
        ("gather.after", 3, LIES),
        ("gather.before", 5, KILL),
        ("gather.after", 5, KILL),
        ("close.before", 1, ALL),
        ("close.after", 1, KILL),
        ("close.before", 2, ALL),
        ("close.after", 2, KILL),
        ("intent.before", 1, ALL),
        ("intent.after", 2, LIES),
        ("finish.after", 1, KILL),
    ];
    let cases =
        points.iter().flat_map(|(point, nth, faults)| faults.iter().map(move |fault| Case { point, nth: *nth, fault }));
    each(&cases.collect::<Vec<_>>(), carry_out);
}

fn carry_out(case: &Case) {
    let from = Clock::system().now().as_second();
    let clock = Clock::paced(Timestamp::from_second(from).unwrap(), PACE);
    let tenant = Tenant::with_clock(clock, 84, 8, |_| {});
    let armed = format!("{}:{}:{}", case.point, case.nth, case.fault);
    let site = Site::new(&tenant).flow("digest", &digest("2m"));
    let site = site.env("WATCHFLOOR_CLOCK", &format!("{from}:{PACE}")).env("WATCHFLOOR_FAIL", &armed);
    let mut lives = Lives { site: Some(site), service: None, died: false };
    let events = [("a1", "A"), ("a2", "A"), ("a3", "A"), ("b1", "B"), ("b2", "B")];
    for (alert, machine) in events {
        wait_for("the event is taken", 40, || send(&tenant, &lives.url(), &event(alert, machine)));
    }
    wait_for("both batches have run", 60, || {
        lives.url();
        let done = |run: &&Json| run["status"] == "succeeded";
        (lives.site().runs().iter().filter(done).count() == 2).then_some(())
    });
    let (site, service) = (lives.site(), lives.service.as_ref().unwrap());
    // Whoever is not told sends again: it is known.
    for (alert, machine) in events {
        let told = send(&tenant, &service.url, &event(alert, machine)).unwrap();
        assert_eq!(told, json!({ "run": null, "duplicate": true, "skipped": false }));
    }
    let passed = if case.fault == "kill" { lives.died } else { service.log().contains("as WATCHFLOOR_FAIL asks") };
    assert!(passed, "{armed} was not passed");
    let whole =
        |key: &str, items: &[&str]| (key.to_owned(), items.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
    let wanted = [whole("batch:w:a1", &["a1", "a2", "a3"]), whole("batch:w:b1", &["b1", "b2"])];
    let found: Vec<_> = batches(site);
    assert_eq!(
        found.iter().map(|(_, items)| items).collect::<Vec<_>>(),
        wanted.iter().map(|(_, items)| items).collect::<Vec<_>>()
    );
    let keys: BTreeSet<String> = found.into_iter().map(|(key, _)| key).collect();
    // The other batch's mail may be on its way when the process ends; its content is then maybe sent twice.
    let lost = matches!(case.point, "finish.after" | "intent.after") || (case.fault == "kill" && case.nth > 1);
    let may = 2..=2 + u32::from(lost);
    let mails = tenant.effects()["email.send"];
    assert!(may.contains(&mails), "{mails} mails");
    let Lives { site, service, .. } = lives;
    service.unwrap().kill();
    let batched = vec![("digest", events.iter().map(|(alert, _)| (*alert).to_owned()).collect())];
    invariants::hold(&site.unwrap(), &tenant, &Rules { events: vec![("digest", keys)], batched, ..Rules::default() });
}

/// A service that is started again where it ended itself, with nothing armed any more.
struct Lives {
    site: Option<Site>,
    service: Option<Service>,
    died: bool,
}

impl Lives {
    fn site(&self) -> &Site {
        self.site.as_ref().unwrap()
    }

    fn url(&mut self) -> String {
        if self.service.as_mut().is_some_and(|service| service.ended().is_some()) {
            (self.service, self.died) = (None, true);
            self.site = self.site.take().map(|site| site.env("WATCHFLOOR_FAIL", ""));
        }
        if self.service.is_none() {
            self.service = Some(self.site().start(&[]));
        }
        self.service.as_ref().unwrap().url.clone()
    }
}

#[test]
fn a_batch_closes_at_its_time_over_a_kill_and_why_tells_where_an_event_is() {
    let from = Clock::system().now().as_second();
    let clock = Clock::paced(Timestamp::from_second(from).unwrap(), PACE);
    let tenant = Tenant::with_clock(clock, 85, 8, |_| {});
    let site = Site::new(&tenant).flow("digest", &digest("5m")).env("WATCHFLOOR_CLOCK", &format!("{from}:{PACE}"));
    let service = site.start(&[]);
    for alert in ["a1", "a2"] {
        assert_eq!(send(&tenant, &service.url, &event(alert, "A")).unwrap(), json!({ "run": null, "gathered": 1 }));
    }
    let why = |alert: &str| site.json(&["why", "digest", "--alert", alert]);
    assert_eq!(why("a2")["gathering"]["events"], 2);
    let said = site.cli(&["why", "digest", "--alert", "a2"]).out;
    assert!(said.contains("a2 is in a batch of 2 events so far, which starts a run at "), "{said}");
    assert!(site.runs().is_empty());
    service.kill();
    // While everything is paused its run is there as well, and is held.
    let service = site.start(&[]);
    assert_eq!(site.cli(&["pause", "--reason", "a test"]).code, 0);
    let run = wait_for("it has begun", 60, || site.runs().into_iter().next());
    let id = run["id"].as_str().unwrap();
    site.run_is(id, &["queued", "waiting"], 20);
    assert_eq!(tenant.hook(&service.url, &event("a3", "A")).unwrap().0, 503);
    assert!(!tenant.effects().contains_key("email.send"));
    assert_eq!(site.cli(&["resume"]).code, 0);
    site.run_is(id, &["succeeded"], 60);
    assert_eq!(tenant.effects()["email.send"], 1);
    for alert in ["a1", "a2"] {
        let told = why(alert);
        assert_eq!((&told["key"], &told["runs"][0]["id"]), (&json!(alert), &run["id"]), "{told}");
    }
    let said = site.cli(&["why", "digest", "--alert", "a2"]).out;
    assert!(said.contains(&format!("a2 is in the batch batch:a1 that started run {id}")), "{said}");
    drop(service);
}

/// What was accepted runs as it was accepted: with the version that gathered it.
#[test]
fn a_removed_flow_still_runs_what_it_had_gathered() {
    let tenant = Tenant::new(86, 8, |_| {});
    let site =
        Site::new(&tenant).set("server", "{ listen: \"127.0.0.1:0\", watch: off }").flow("digest", &digest("1h"));
    let service = site.start(&[]);
    assert!(send(&tenant, &service.url, &event("a1", "A")).is_some());
    std::fs::remove_file(site.path().join("flows/digest.yaml")).unwrap();
    site.write("flows/other.yaml", "flow: other\ntrigger: { type: manual }\nsteps:\n  - { set: { n: 1 } }\n");
    service.hangup();
    let runs = site.settled(1, 60);
    assert_eq!((&runs[0]["status"], &runs[0]["flow"]), (&json!("succeeded"), &json!("digest")));
    assert_eq!(tenant.effects()["email.send"], 1);
    assert_eq!(tenant.hook(&service.url, &event("a2", "A")).unwrap().0, 404);
}
