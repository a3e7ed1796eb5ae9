//! Connections that fail (S7): their work waits and says so, no run fails for it, and all of it goes on afterwards.

use std::collections::BTreeMap;

use watchfloor::sandbox::Faults;

use crate::bin::{ISOLATE, MAIL, Service, Site, Switch, Tenant, wait_for};
use crate::safety::{reason, started};
use crate::service::BY_HOOK;

fn begin(tenant: &Tenant, service: &Service, n: usize) -> Vec<String> {
    let high = tenant.high();
    assert!(high.len() >= n, "the world is too small");
    high.iter().take(n).map(|(alert, machine)| started(tenant, service, alert, machine)).collect()
}

/// Waits until every run is held because of a connection, and no run has ended.
fn all_held(site: &Site, runs: &[String], connection: &str) {
    wait_for("all runs are held", 60, || {
        let held = runs.iter().filter(|run| {
            let row = site.run_is(run, &["running", "waiting"], 5);
            reason(&row).starts_with(&format!("held: the connection {connection} is held back"))
        });
        (held.count() == runs.len()).then_some(())
    });
    let status = site.json(&["status"]);
    assert_eq!(status["connections"][0]["connection"], connection, "{status}");
    assert_eq!((&status["held"], &status["attention"]), (&runs.len().into(), &0.into()), "{status}");
}

fn all_succeed(site: &Site, runs: &[String]) {
    for run in runs {
        site.run_is(run, &["succeeded"], 90);
    }
    let status = site.json(&["status"]);
    assert_eq!(status["connections"].as_array().unwrap().len(), 0, "{status}");
}

#[test]
fn a_mail_server_that_is_away_holds_its_mails_and_each_goes_out_once_when_it_is_back() {
    let tenant = Tenant::new(81, 60, |_| {});
    tenant.feed(60);
    let switch = Switch::new(tenant.smtp_addr());
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK).lead(tenant.smtp_addr(), switch.address());
    let service = site.start(&[]);
    let runs = begin(&tenant, &service, 8);
    all_held(&site, &runs, "mail");
    let effects = tenant.effects();
    assert_eq!((effects[ISOLATE], effects.get(MAIL)), (8, None), "the other connections go on");
    let page = tenant.get(&format!("{}/", service.url)).unwrap().2;
    assert!(page.contains("the connection mail is held back"), "{page}");
    assert!(service.log().contains("the connection fails: its work waits"), "{}", service.log());
    // A new process finds out for itself.
    service.kill();
    let service = site.start(&[]);
    all_held(&site, &runs, "mail");
    switch.on();
    all_succeed(&site, &runs);
    assert_eq!(tenant.effects()[MAIL], 8, "each mail once");
    assert!(service.stop().success());
}

#[test]
fn a_service_that_is_away_holds_reads_and_polls_and_nothing_is_lost() {
    let tenant = Tenant::new(82, 60, |_| {});
    let switch = Switch::new(tenant.http_addr());
    let shipped = "isolate-high-severity";
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK).shipped(shipped).lead(tenant.http_addr(), switch.address());
    switch.on();
    let service = site.start(&["--from", "1d"]);
    wait_for("it polls", 20, || (tenant.calls() > 2).then_some(()));
    switch.off();
    tenant.feed(60);
    let runs = begin(&tenant, &service, 3);
    all_held(&site, &runs, "mde");
    switch.on();
    let all = site.settled(tenant.endpoint_alerts(60) + 3, 120);
    assert!(all.iter().all(|run| run["status"] == "succeeded"), "{all:#?}");
    all_succeed(&site, &runs);
    let ledger = tenant.ledger();
    // The two flows share devices: what one has isolated the other leaves as it is.
    let twice: BTreeMap<_, _> = ledger.devices.iter().filter(|(_, it)| it.done.get(ISOLATE) > Some(&1)).collect();
    assert!(twice.is_empty() && ledger.losses == 0, "{:?}", ledger.findings);
    assert!(service.stop().success());
}

#[test]
fn a_credential_that_is_refused_holds_the_work_of_its_connection() {
    let tenant = Tenant::new(83, 60, |_| {});
    tenant.feed(60);
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK);
    let service = site.start(&[]);
    tenant.fail(&Faults { unauthorized: 1000, ..Faults::default() });
    let runs = begin(&tenant, &service, 6);
    all_held(&site, &runs, "mde");
    let calls = tenant.calls();
    // While it is shut one read asks after each pause, and nothing else: far fewer than six runs would.
    let row = site.run_is(&runs[0], &["waiting"], 5);
    assert!(reason(&row).contains("401"), "{row}");
    wait_for("a probe", 30, || (tenant.calls() > calls).then_some(()));
    assert!(tenant.calls() - calls <= 3, "{} calls of a connection that is shut", tenant.calls() - calls);
    tenant.fail(&Faults::default());
    all_succeed(&site, &runs);
    assert_eq!(tenant.effects()[ISOLATE], 6);
    assert!(service.stop().success());
}

#[test]
fn a_service_that_answers_429_is_not_taken_for_one_that_fails() {
    let tenant = Tenant::new(84, 60, |options| {
        options.faults = Faults { throttled: 1000, retry_after_s: 1, ..Faults::default() };
    });
    tenant.feed(60);
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK);
    let service = site.start(&[]);
    // The token endpoint is throttled too, which no connection can work without.
    tenant.fail(&Faults::default());
    let first = begin(&tenant, &service, 1);
    all_succeed(&site, &first);
    tenant.fail(&Faults { throttled: 1000, retry_after_s: 1, ..Faults::default() });
    let calls = tenant.ledger().injected.get("throttled").copied().unwrap_or(0);
    let runs: Vec<_> = tenant
        .high()
        .iter()
        .skip(1)
        .take(8)
        .map(|(alert, machine)| started(&tenant, &service, alert, machine))
        .collect();
    wait_for("enough calls were throttled", 30, || {
        (tenant.ledger().injected.get("throttled").copied().unwrap_or(0) >= calls + 8).then_some(())
    });
    assert_eq!(site.json(&["status"])["connections"].as_array().unwrap().len(), 0);
    tenant.fail(&Faults::default());
    all_succeed(&site, &runs);
    assert!(service.stop().success());
}

#[test]
fn a_flow_that_handles_errors_waits_for_its_timeout_and_then_goes_its_own_way() {
    let tenant = Tenant::new(85, 60, |_| {});
    tenant.feed(60);
    let switch = Switch::new(tenant.smtp_addr());
    let handles = "flow: handles\ntrigger: { type: manual }\nsteps:\n  - action: email.send\n    timeout: 3s\n    on_error: \
                   [{ stop: cancelled, reason: \"{{ error.code }}: {{ error.message }}\" }]\n    with: { to: \
                   [soc@contoso.example], subject: hello, text: hello }\n";
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK).flow("handles", handles);
    let site = site.lead(tenant.smtp_addr(), switch.address());
    let service = site.start(&[]);
    let runs = begin(&tenant, &service, 5);
    all_held(&site, &runs, "mail");
    let run = site.json(&["start", "handles"])["run"].as_str().unwrap().to_owned();
    let row = site.run_is(&run, &["cancelled", "failed", "succeeded"], 30);
    assert!(row["status"] == "cancelled" && reason(&row).contains("unavailable"), "{row}");
    switch.on();
    all_succeed(&site, &runs);
    assert_eq!(tenant.effects()[MAIL], 5);
    assert!(service.stop().success());
}
