//! The ledger: what was done to each alert, device and user, and what the shipped flows should have done.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::scenario;
use super::state::{MachineAction, State, World};

/// The flows that the demo runs and that the ledger expects by default.
pub const DEMO_FLOWS: [&str; 2] = ["isolate-high-severity", "resolve-legitimate-travel"];

type Counts = BTreeMap<String, u32>;

/// A copy of the books at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ledger {
    /// Visible alerts.
    pub visible: usize,
    /// What took effect, by action.
    pub effects: Counts,
    /// What should have, by action, if exactly the named flows had handled every visible alert.
    pub expected: Counts,
    /// Effects beyond what was due once.
    pub duplicates: u64,
    /// Effects that were due and are missing.
    pub losses: u64,
    /// Effects where none was due.
    pub wrong: u64,
    /// Up to 50 sentences about the three counts above.
    pub findings: Vec<String>,
    /// By alert, device and user: only those to which something was done or is due.
    pub alerts: BTreeMap<String, Entry>,
    pub devices: BTreeMap<String, Entry>,
    pub users: BTreeMap<String, Entry>,
    /// Effects that name nothing of ours (a mail without an alert's id).
    pub stray: Counts,
    /// Machine actions that were begun, in order.
    pub actions: Vec<Acted>,
    /// Requests by route, and faults by kind.
    pub calls: BTreeMap<String, u64>,
    pub injected: BTreeMap<String, u64>,
}

/// One machine action, with the marks by which its asker finds it again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Acted {
    pub kind: String,
    pub device: String,
    pub comment: String,
    pub external: Option<String>,
    pub created: Timestamp,
}

/// One line of the books.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Entry {
    pub done: Counts,
    pub due: Counts,
}

type Due = BTreeMap<usize, BTreeMap<&'static str, u32>>;

impl World {
    /// The books, with what `flows` should have done by now.
    pub fn ledger(&self, flows: &[&str]) -> Ledger {
        let state = self.state();
        let (alert_due, device_due) = due(self, &state, flows);
        let mut ledger = Ledger { visible: state.born.len(), ..Ledger::default() };
        let alert_name = |index: usize| self.plan.alerts.get(index).map(|alert| alert.id.clone());
        let device_name = |index: usize| self.plan.devices.get(index).map(|device| device.id.clone());
        let user_name = |index: usize| self.plan.users.get(index).map(|user| user.upn.clone());
        ledger.alerts = ledger.book("alert", &state.marks.alerts, &alert_due, alert_name);
        ledger.devices = ledger.book("device", &state.marks.devices, &device_due, device_name);
        ledger.users = ledger.book("user", &state.marks.users, &Due::new(), user_name);
        for (action, count) in &state.marks.stray {
            ledger.stray.insert((*action).to_owned(), *count);
            *ledger.effects.entry((*action).to_owned()).or_default() += count;
            ledger.wrong += u64::from(*count);
            ledger.find(format!("{action} named nothing of ours {count} times"));
        }
        let acted = |action: &MachineAction| Acted {
            kind: action.kind.to_owned(),
            device: device_name(action.device).unwrap_or_default(),
            comment: action.comment.clone(),
            external: action.external.clone(),
            created: action.created,
        };
        ledger.actions = state.actions.iter().map(acted).collect();
        ledger.calls = state.by_route.clone();
        ledger.injected = state.injected.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
        ledger
    }
}

impl Ledger {
    fn find(&mut self, sentence: String) {
        if self.findings.len() < 50 {
            self.findings.push(sentence);
        }
    }

    fn book(
        &mut self,
        what: &str,
        done: &BTreeMap<usize, BTreeMap<&'static str, u32>>,
        due: &Due,
        name: impl Fn(usize) -> Option<String>,
    ) -> BTreeMap<String, Entry> {
        let none = BTreeMap::new();
        let mut lines = BTreeMap::new();
        let targets: BTreeSet<usize> = done.keys().chain(due.keys()).copied().collect();
        for target in targets {
            let (done, due) = (done.get(&target).unwrap_or(&none), due.get(&target).unwrap_or(&none));
            let Some(name) = name(target) else { continue };
            for action in done.keys().chain(due.keys()).copied().collect::<BTreeSet<_>>() {
                let count = |of: &BTreeMap<&'static str, u32>| of.get(action).copied().unwrap_or(0);
                let (have, want) = (count(done), count(due));
                *self.effects.entry(action.to_owned()).or_default() += have;
                *self.expected.entry(action.to_owned()).or_default() += want;
                if have == want {
                    continue;
                }
                let slot = match (have, want) {
                    (_, 0) => &mut self.wrong,
                    (have, want) if have > want => &mut self.duplicates,
                    _ => &mut self.losses,
                };
                *slot += u64::from(have.abs_diff(want));
                self.find(format!("{action} on {what} {name}: {have} done, {want} due"));
            }
            let owned = |of: &BTreeMap<&'static str, u32>| of.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
            lines.insert(name, Entry { done: owned(done), due: owned(due) });
        }
        self.effects.retain(|_, count| *count > 0);
        self.expected.retain(|_, count| *count > 0);
        lines
    }
}

/// What is due on alerts and on devices.
fn due(world: &World, state: &State, flows: &[&str]) -> (Due, Due) {
    let mut alerts = Due::new();
    let mut devices = Due::new();
    let runs = |flow: &str| flows.contains(&flow);
    let guarded = runs("resolve-legitimate-travel-guarded");
    for (index, alert) in world.plan.alerts.iter().enumerate().take(state.born.len()) {
        let mut owe = |action: &'static str| *alerts.entry(index).or_default().entry(action).or_default() += 1;
        if let super::world::Source::Endpoint { device } = alert.source {
            if alert.severity == "High" && runs("isolate-high-severity") {
                owe("email.send");
                devices.entry(device).or_default().insert("mde.isolate_machine", 1);
            }
            continue;
        }
        let Some(user) = world.plan.traveller(alert) else { continue };
        let legitimate = world.plan.legitimate(alert);
        if runs("resolve-legitimate-travel") || guarded {
            owe("teams.post");
            if legitimate && !(guarded && user.tampered) {
                owe("cloud_apps.close_benign");
            }
        }
        if runs("resolve-travel-risk-detection") && alert.detection.is_some() {
            owe("teams.post");
        }
    }
    if runs("hunt-encoded-powershell") {
        for index in scenario::encoded_devices(world) {
            if world.plan.devices.get(index).is_some_and(|device| matches!(device.risk, "High" | "Medium")) {
                devices.entry(index).or_default().insert("mde.run_antivirus_scan", 1);
            }
        }
    }
    (alerts, devices)
}
