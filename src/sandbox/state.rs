//! What changes while the tenant is served: which alerts are visible, what was done to them, machine actions, tokens.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value as Json;

use super::Settings;
use super::assertion::Trust;
use super::faults::{Faults, Throttle};
use super::vault::Secrets;
use super::world::Plan;
use crate::catalog::Catalog;
use crate::clock::Clock;

/// The tenant: the plan, and its state behind one lock that no handler holds across a wait.
#[derive(Debug)]
pub struct World {
    pub plan: Plan,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    /// Its routes are served by sample where nothing else serves them.
    pub(super) catalog: Catalog,
    /// Alerts by every id that they have: their own, Graph's, their risk detection's.
    pub(super) alert_ids: HashMap<String, usize>,
    /// Devices by id and by name.
    pub(super) device_ids: HashMap<String, usize>,
    /// Users by id and by lower-case UPN.
    pub(super) user_ids: HashMap<String, usize>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// When each visible alert was created; its length is the number of visible alerts.
    pub(super) born: Vec<Timestamp>,
    pub(super) alerts: Vec<AlertState>,
    pub(super) actions: Vec<MachineAction>,
    /// How machine actions of a device end, by its index, where somebody set it; `Pending` never ends.
    pub(super) ends: BTreeMap<usize, &'static str>,
    /// Tags and values of devices that were changed, by the device's index.
    pub(super) tags: BTreeMap<usize, Vec<String>>,
    pub(super) values: BTreeMap<usize, String>,
    pub(super) indicators: BTreeMap<u64, Json>,
    /// Users whose account or risk was changed, and their inbox rules that were switched off, by the user's index.
    pub(super) disabled: BTreeSet<usize>,
    pub(super) risks: BTreeMap<usize, (&'static str, &'static str)>,
    pub(super) rules_off: BTreeSet<usize>,
    /// Refused or repeated machine actions by device and type: every other one is answered with the open action.
    pub(super) repeats: BTreeMap<(usize, &'static str), u32>,
    pub(super) incidents: BTreeMap<u64, Handling>,
    /// Incidents and comments of Sentinel that were written, by name in small letters; and how often.
    pub(super) sentinel: BTreeMap<String, Json>,
    pub(super) etags: u64,
    /// The live response library; what it begins with until somebody asks.
    pub(super) library: Option<BTreeMap<String, Json>>,
    pub(super) marks: Marks,
    pub(super) tokens: HashMap<String, Token>,
    /// What the app registration trusts, and the permissions that it was granted where somebody set them.
    pub(super) trust: Trust,
    pub(super) roles: Option<BTreeSet<String>>,
    pub(super) secrets: Secrets,
    /// How often an application in a refused state was refused, by number.
    pub(super) refused: BTreeMap<u64, u32>,
    pub(super) throttle: Throttle,
    pub(super) faults: Faults,
    /// Answered requests, the control routes not counted.
    pub(super) calls: u64,
    /// Mails that came in whole, whatever became of them.
    pub(super) mails: u64,
    pub(super) by_route: BTreeMap<String, u64>,
    pub(super) injected: BTreeMap<&'static str, u64>,
    /// Hunting answers that somebody set, before the built-in ones.
    pub(super) hunts: Vec<Hunt>,
}

/// What people and automation do to an alert or an incident, in the spelling of Defender for Endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Handling {
    pub(super) status: Option<String>,
    pub(super) classification: Option<String>,
    pub(super) determination: Option<String>,
    pub(super) assigned: Option<String>,
    pub(super) tags: Vec<String>,
    /// Text and time; the author is always the application.
    pub(super) comments: Vec<(String, Timestamp)>,
    pub(super) updated: Option<Timestamp>,
    /// The incident that an alert was moved to.
    pub(super) incident: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct AlertState {
    pub(super) handling: Handling,
    /// Cloud Apps: `resolutionStatusValue`, 0 is open.
    pub(super) resolution: u8,
    pub(super) read: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct MachineAction {
    pub(super) id: String,
    pub(super) kind: &'static str,
    pub(super) scope: Option<String>,
    pub(super) comment: String,
    pub(super) external: Option<String>,
    pub(super) device: usize,
    pub(super) created: Timestamp,
    /// An isolation on top of an isolation: it waits until the device is released, and isolates it again then.
    pub(super) stuck: bool,
    pub(super) cancelled: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) audience: String,
    pub(super) expires: Timestamp,
    pub(super) roles: bool,
    /// A vault asks its own roles, not those in the token.
    pub(super) reads_vaults: bool,
}

/// A hunting answer for every query that contains all of `words`.
#[derive(Clone, Debug)]
pub(super) struct Hunt {
    pub(super) words: Vec<String>,
    pub(super) schema: Json,
    pub(super) rows: Vec<Json>,
}

/// How often each action took effect, by what it took effect on.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    pub(super) alerts: BTreeMap<usize, BTreeMap<&'static str, u32>>,
    pub(super) devices: BTreeMap<usize, BTreeMap<&'static str, u32>>,
    pub(super) users: BTreeMap<usize, BTreeMap<&'static str, u32>>,
    /// Effects that name none of our alerts, devices or users.
    pub(super) stray: BTreeMap<&'static str, u32>,
}

impl Marks {
    pub(super) fn alert(&mut self, index: usize, action: &'static str) {
        *self.alerts.entry(index).or_default().entry(action).or_default() += 1;
    }

    pub(super) fn device(&mut self, index: usize, action: &'static str) {
        *self.devices.entry(index).or_default().entry(action).or_default() += 1;
    }

    pub(super) fn user(&mut self, index: usize, action: &'static str) {
        *self.users.entry(index).or_default().entry(action).or_default() += 1;
    }

    pub(super) fn stray(&mut self, action: &'static str) {
        *self.stray.entry(action).or_default() += 1;
    }
}

impl World {
    pub(super) fn new(plan: Plan, settings: Settings, faults: Faults, clock: Clock, catalog: Catalog) -> Self {
        let mut alert_ids = HashMap::new();
        for (index, alert) in plan.alerts.iter().enumerate() {
            alert_ids.insert(alert.id.clone(), index);
            alert_ids.insert(alert.graph_id.clone(), index);
            if let Some(detection) = &alert.detection {
                alert_ids.insert(detection.clone(), index);
            }
        }
        let devices = plan.devices.iter().enumerate();
        let device_ids = devices.flat_map(|(i, d)| [(d.id.clone(), i), (d.name.clone(), i)]).collect();
        let users = plan.users.iter().enumerate();
        let user_ids = users.flat_map(|(i, u)| [(u.id.clone(), i), (u.upn.to_lowercase(), i)]).collect();
        let alerts = vec![AlertState::default(); plan.alerts.len()];
        let state = Mutex::new(State { alerts, faults, ..State::default() });
        World { plan, settings, clock, catalog, alert_ids, device_ids, user_ids, state }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A handler that panicked left counters behind that are still counters.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next `n` alerts visible, created now; returns how many there were left to show.
    pub fn feed(&self, n: usize) -> usize {
        let now = self.clock.now();
        let mut state = self.state();
        let n = n.min(self.plan.alerts.len().saturating_sub(state.born.len()));
        for i in 0..n {
            // Two alerts share each instant, the second half arrives late: a poller that asks for "greater than" loses some.
            let step = i64::try_from(i / 2).unwrap_or(0);
            let late = if i % 7 == 6 { self.settings.lateness } else { SignedDuration::ZERO };
            let back = late.checked_add(SignedDuration::from_micros(step)).unwrap_or(late);
            state.born.push(now.checked_sub(back).unwrap_or(now));
        }
        n
    }

    /// Makes the next `n` alerts visible, all created at one instant; returns how many there were left to show.
    pub fn feed_created(&self, n: usize, at: Timestamp) -> usize {
        let mut state = self.state();
        let n = n.min(self.plan.alerts.len().saturating_sub(state.born.len()));
        state.born.extend(std::iter::repeat_n(at, n));
        n
    }

    /// A person sets an alert's status, in the spelling of Defender for Endpoint; whether there is such a visible alert.
    pub fn set_status(&self, alert: &str, status: &str) -> bool {
        self.set_verdict(alert, status, None, self.clock.now())
    }

    /// As `set_status`, with a classification and a determination, and as of an instant.
    pub fn set_verdict(&self, alert: &str, status: &str, verdict: Option<(&str, &str)>, at: Timestamp) -> bool {
        let mut state = self.state();
        let visible = state.born.len();
        let index = self.alert_ids.get(alert).copied().filter(|index| *index < visible);
        let Some(slot) = index.and_then(|index| state.alerts.get_mut(index)) else { return false };
        slot.handling.status = Some(status.to_owned());
        slot.handling.updated = Some(at);
        if let Some((classification, determination)) = verdict {
            slot.handling.classification = Some(classification.to_owned());
            slot.handling.determination = Some(determination.to_owned());
        }
        true
    }

    /// Alerts that can be seen.
    pub fn visible(&self) -> usize {
        self.state().born.len()
    }

    /// The visible alerts with the times at which they were created.
    pub fn born(&self) -> Vec<(String, Timestamp)> {
        let state = self.state();
        self.plan.alerts.iter().zip(&state.born).map(|(alert, born)| (alert.id.clone(), *born)).collect()
    }

    /// Books a mail that the sink took.
    pub(super) fn mail(&self, text: &str) {
        let mut state = self.state();
        match self.alert_in(text).filter(|index| *index < state.born.len()) {
            Some(index) => state.marks.alert(index, "email.send"),
            None => state.marks.stray("email.send"),
        }
    }

    /// The alert that a text speaks about: the first of our ids in it.
    pub(super) fn alert_in(&self, text: &str) -> Option<usize> {
        let plain = text.replace('\\', "");
        plain
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .filter(|word| word.len() >= 20)
            .find_map(|word| self.alert_ids.get(word).copied())
    }
}

impl State {
    /// The state of an action at `now`: nothing is moved by a timer, so that a paused clock pauses the tenant.
    pub(super) fn status(&self, action: &MachineAction, world: &World, now: Timestamp) -> &'static str {
        let offline = world.plan.devices.get(action.device).is_some_and(|device| device.offline);
        if action.cancelled.is_some() {
            return "Cancelled";
        }
        let end = self.ends.get(&action.device).copied().unwrap_or("Succeeded");
        if offline || end == "Pending" {
            return "Pending";
        }
        if action.stuck {
            let released = self.actions.iter().any(|other| {
                other.device == action.device
                    && other.kind == "Unisolate"
                    && other.created >= action.created
                    && self.status(other, world, now) == "Succeeded"
            });
            return if released { "Succeeded" } else { "Pending" };
        }
        let age = now.duration_since(action.created);
        let delay = world.settings.action_delay;
        if age >= delay {
            end
        } else if age.as_millis() * 2 >= delay.as_millis() {
            "InProgress"
        } else {
            "Pending"
        }
    }

    /// Whether the device is isolated at `now`.
    pub(super) fn isolated(&self, device: usize, world: &World, now: Timestamp) -> bool {
        let mut isolated = false;
        for action in self.actions.iter().filter(|action| action.device == device) {
            match (action.kind, self.status(action, world, now)) {
                ("Isolate", "Succeeded") => isolated = true,
                ("Unisolate", "Succeeded") => isolated = false,
                _ => {}
            }
        }
        isolated
    }
}
