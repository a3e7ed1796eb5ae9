//! A tenant that fails one request in eight, in every way that services fail: nothing is lost or isolated twice.

use std::time::Duration;

use watchfloor::sandbox::Faults;

use crate::bin::{Site, Tenant};
use crate::crash::nothing_lost_and_nothing_twice;

#[test]
fn throttles_errors_and_resets_before_and_after_the_effect_lose_nothing() {
    let tenant = Tenant::new(61, 40, |options| {
        options.latency = Duration::from_millis(5);
        // A second isolation counts as one at once.
        options.action_delay = Duration::ZERO;
        options.faults = Faults {
            throttled: 30,
            throttled_bare: 10,
            server_error: 40,
            reset_before: 25,
            reset_after: 25,
            retry_after_s: 1,
            ..Faults::default()
        };
    });
    tenant.feed(40);
    let site = Site::new(&tenant).shipped("isolate-high-severity");
    let service = site.start(&["--from", "1d"]);
    // A read that is lost four times in a row waits half a minute for its next round.
    let runs = site.settled(tenant.endpoint_alerts(40), 170);
    assert!(service.stop().success());
    let ledger = tenant.ledger();
    assert!(ledger.injected.values().sum::<u64>() >= 4, "{:?}", ledger.injected);
    nothing_lost_and_nothing_twice(&site, &tenant, &runs, &ledger);
}

/// Every fifth or sixth answer is lost after the effect: isolations among them are looked up, found by their tag, adopted.
#[test]
fn an_isolation_whose_answer_is_lost_is_adopted() {
    let tenant = Tenant::new(62, 30, |options| {
        options.action_delay = Duration::ZERO;
        options.faults = Faults { reset_after: 180, ..Faults::default() };
    });
    tenant.feed(30);
    let site = Site::new(&tenant).shipped("isolate-high-severity").shipped("resolve-legitimate-travel");
    let service = site.start(&["--from", "1d"]);
    let travel = tenant.travel_alerts();
    // A read that is lost four times in a row waits half a minute for its next round.
    let runs = site.settled(tenant.endpoint_alerts(30) + travel, 170);
    assert!(service.stop().success());
    let ledger = tenant.ledger();
    assert!(ledger.injected["reset_after"] >= 6, "{:?}", ledger.injected);
    nothing_lost_and_nothing_twice(&site, &tenant, &runs, &ledger);
    // A close that is repeated finds nothing left to close: its first attempt did it.
    let closed: Vec<_> = runs.iter().filter(|run| run["flow"] == "resolve-legitimate-travel").collect();
    assert_eq!(closed.len(), travel);
    assert!(closed.iter().all(|run| run["status"] == "succeeded"), "{closed:#?}");
}
