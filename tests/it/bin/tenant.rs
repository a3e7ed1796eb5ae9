//! The simulated tenant in the test's process, on threads of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;
use watchfloor::clock::Clock;
use watchfloor::sandbox::{Faults, Ledger, Options, Sandbox, Source, World};

use super::HOOK_TOKEN;

pub(crate) const ISOLATE: &str = "mde.isolate_machine";
pub(crate) const MAIL: &str = "email.send";

pub(crate) struct Tenant {
    // Before the runtime, so that it is dropped first.
    sandbox: Sandbox,
    runtime: Runtime,
    http: reqwest::Client,
}

impl Tenant {
    pub(crate) fn new(seed: u64, alerts: usize, change: impl FnOnce(&mut Options)) -> Tenant {
        Tenant::with_clock(Clock::system(), seed, alerts, change)
    }

    pub(crate) fn with_clock(clock: Clock, seed: u64, alerts: usize, change: impl FnOnce(&mut Options)) -> Tenant {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut options = Options::new(seed, alerts, clock.now());
        change(&mut options);
        let sandbox = runtime.block_on(Sandbox::start(options, clock)).unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Tenant { sandbox, runtime, http }
    }

    pub(crate) fn http_addr(&self) -> SocketAddr {
        self.sandbox.http_addr()
    }

    pub(crate) fn smtp_addr(&self) -> SocketAddr {
        self.sandbox.smtp_addr()
    }

    pub(crate) fn world(&self) -> Arc<World> {
        self.sandbox.world()
    }

    /// Makes so many more alerts visible.
    pub(crate) fn feed(&self, n: usize) {
        assert_eq!(self.sandbox.feed(n), n, "the tenant has no {n} more alerts");
    }

    /// The books, with what the isolation flow should have done.
    pub(crate) fn ledger(&self) -> Ledger {
        self.sandbox.ledger(&["isolate-high-severity"])
    }

    /// What was done in all, by action.
    pub(crate) fn effects(&self) -> BTreeMap<String, u32> {
        self.ledger().effects
    }

    /// From now on it fails like this: chances per mille by kind.
    pub(crate) fn fails(&self, faults: &Json) {
        let url = format!("http://{}/_sandbox/faults", self.http_addr());
        let (status, answer) = self.post(&url, &[], faults.to_string());
        assert_eq!(status, 200, "{answer}");
    }

    /// How many requests came in.
    pub(crate) fn calls(&self) -> u64 {
        self.ledger().calls.values().sum()
    }

    /// Ids of High alerts on devices with those devices' ids; one alert a device, in the order of the world.
    pub(crate) fn high(&self) -> Vec<(String, String)> {
        let world = self.sandbox.world();
        let mut found: Vec<(String, String)> = Vec::new();
        for alert in world.plan.alerts.iter().filter(|alert| alert.severity == "High") {
            let Source::Endpoint { device } = alert.source else { continue };
            let device = world.plan.devices[device].id.clone();
            if found.iter().all(|(_, known)| *known != device) {
                found.push((alert.id.clone(), device));
            }
        }
        found
    }

    /// Endpoint alerts among the first `n`: the events of `mde.alert.new`.
    pub(crate) fn endpoint_alerts(&self, n: usize) -> usize {
        let world = self.sandbox.world();
        world.plan.alerts.iter().take(n).filter(|alert| matches!(alert.source, Source::Endpoint { .. })).count()
    }

    /// The events of the travel flow: all alerts about travel.
    pub(crate) fn travel_alerts(&self) -> usize {
        let world = self.sandbox.world();
        world.plan.alerts.iter().filter(|alert| world.plan.traveller(alert).is_some()).count()
    }

    /// A POST from outside: status and JSON.
    pub(crate) fn post(&self, url: &str, headers: &[(&str, &str)], body: String) -> (u16, Json) {
        let mut request = self.http.post(url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.runtime.block_on(async {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let text = response.text().await.unwrap();
            (status, serde_json::from_str(&text).unwrap_or(Json::String(text)))
        })
    }

    /// A GET: status, `Retry-After` and text; `None` where nobody answers.
    pub(crate) fn get(&self, url: &str) -> Option<(u16, Option<String>, String)> {
        self.runtime.block_on(async {
            let response = self.http.get(url).send().await.ok()?;
            let after = response.headers().get("retry-after").and_then(|it| Some(it.to_str().ok()?.to_owned()));
            Some((response.status().as_u16(), after, response.text().await.ok()?))
        })
    }

    /// Calls the webhook `w` as it should be called: status and `Retry-After`.
    pub(crate) fn knock(&self, url: &str, body: &Json) -> Option<(u16, Option<String>)> {
        let request = self.http.post(format!("{url}/hooks/w")).bearer_auth(HOOK_TOKEN).json(body);
        self.runtime.block_on(async {
            let response = request.send().await.ok()?;
            let after = response.headers().get("retry-after").and_then(|it| Some(it.to_str().ok()?.to_owned()));
            Some((response.status().as_u16(), after))
        })
    }

    /// What goes wrong from now on.
    pub(crate) fn fail(&self, faults: &Faults) {
        let (status, answer) =
            self.post(&format!("http://{}/_sandbox/faults", self.http_addr()), &[], json!(faults).to_string());
        assert_eq!(status, 200, "{answer}");
    }

    /// The text behind a URL.
    pub(crate) fn text(&self, url: &str) -> String {
        self.runtime.block_on(async { self.http.get(url).send().await.unwrap().text().await.unwrap() })
    }

    /// Calls the webhook `w` as it should be called; `None` when the service is not there.
    pub(crate) fn hook(&self, url: &str, body: &Json) -> Option<(u16, Json)> {
        let request = self.http.post(format!("{url}/hooks/w")).bearer_auth(HOOK_TOKEN).json(body);
        self.runtime.block_on(async {
            let response = request.send().await.ok()?;
            Some((response.status().as_u16(), response.json().await.ok()?))
        })
    }
}
