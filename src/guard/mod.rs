//! The only maker of a `Permit`: modes, freshness, limits, protected assets, target locks, pauses and breakers.
//!
//! Everything here stands below the flows, at the one place that sends: no flow can go round it. It reads nothing by
//! itself: where a rule needs facts about a device or a user, it asks the worker to read them afresh.

pub mod breaker;
pub mod edits;
pub mod hold;
pub mod limits;
pub mod locks;
pub mod protected;
mod reads;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use hold::Holds;
use jiff::{SignedDuration, Timestamp};
pub use limits::{LimitHit, Limits};
pub use locks::Locks;
use protected::{DeviceFacts, Found, UserFacts};

use crate::catalog::{Effect, Type};
use crate::check::program::FlowLimit;
use crate::config::{Config, OnLimit, OnMatch, Protected};
use crate::engine::{Call, Target, Verdict};
use crate::flow::model::Mode;
use crate::id::call_key;
use crate::journal::{Op, Reservation};
use crate::value::Value;

/// Leave to send one call. Only `guard` makes one; `connector::client::send` consumes it.
#[derive(Debug)]
pub struct Permit {
    effect: Effect,
    flow: Option<Arc<str>>,
}

impl Permit {
    /// What the call does, as the guard sees it: a request that its connection lists as a read is one.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The flow that it is for; none for a read, which is everybody's.
    pub fn flow(&self) -> Option<&Arc<str>> {
        self.flow.as_ref()
    }
}

/// Leave to read.
const READ: Permit = Permit { effect: Effect::Read, flow: None };

/// What the guard must know about the run that asks.
#[derive(Clone, Debug)]
pub struct Asker {
    pub run: crate::id::RunId,
    pub flow: Arc<str>,
    pub mode: Mode,
    /// When the event happened at its source.
    pub occurred: Timestamp,
    pub now: Timestamp,
}

/// The guard's answer: the verdict for the engine, and what must be committed together with the intent.
#[derive(Debug)]
pub struct Decision {
    pub verdict: Verdict,
    pub permit: Option<Permit>,
    /// Reservations and the audit line; to be committed whatever the verdict.
    pub reserve: Vec<Op>,
}

/// What `Guard::check` answers.
#[derive(Debug)]
pub enum Check {
    Decided(Decision),
    /// Read this device afresh over the connection, then call `check_with`.
    NeedsDevice {
        machine_id: Arc<str>,
        connection: Arc<str>,
    },
    /// Read this user afresh, with directory roles and groups, then call `check_with`.
    NeedsUser {
        user: Arc<str>,
        connection: Arc<str>,
    },
}

/// What was read about the target of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Facts {
    /// The entity `Device`.
    Device(Value),
    /// The entity `User`, with `roles` and `groups` as lists of names.
    User(Value),
    /// Nothing could be read; why, in a sentence.
    Missing(String),
}

/// A read needs no more than this.
pub fn read_permit(call: &Call) -> Option<Permit> {
    (call.effect() == Effect::Read).then_some(READ)
}

/// The rules of the configuration and the uses that count. Owned by the worker's loop.
#[derive(Debug)]
pub struct Guard {
    limits: Limits,
    on_limit: OnLimit,
    protected: Protected,
    fresh_for: Option<Duration>,
    reads: reads::Reads,
    holds: Arc<Holds>,
}

impl Guard {
    /// `recent` are the reservations of at least the last `limits::horizon`.
    pub fn new(config: &Config, recent: Vec<Reservation>) -> Self {
        Guard {
            limits: Limits::new(config.limits.clone(), recent),
            on_limit: config.limits.on_limit,
            protected: config.protected.clone(),
            fresh_for: config.fresh_for,
            reads: reads::Reads::new(config.connections.values()),
            holds: Arc::default(),
        }
    }

    /// The same rules, with the pauses and breakers that all who send share.
    #[must_use]
    pub fn holding(self, holds: Arc<Holds>) -> Self {
        Guard { holds, ..self }
    }

    pub fn holds(&self) -> &Arc<Holds> {
        &self.holds
    }

    /// What a call does: a request that its connection lists as a read is one.
    pub fn effect(&self, call: &Call) -> Effect {
        if self.reads.allow(call) { Effect::Read } else { call.effect() }
    }

    /// Takes over a changed configuration; what was used stays used. `recent` as for `new`, by the new windows.
    pub fn reload(&mut self, config: &Config, recent: Vec<Reservation>) {
        self.limits.reload(config.limits.clone(), recent);
        self.on_limit = config.limits.on_limit;
        self.protected = config.protected.clone();
        self.fresh_for = config.fresh_for;
        self.reads = reads::Reads::new(config.connections.values());
    }

    /// Decides about a call, or says what must be read first. `flow_limits` are the limits of the flow's own file.
    pub fn check(&mut self, asker: &Asker, call: &Call, flow_limits: &[FlowLimit]) -> Check {
        if let Some(read) = self.read(call) {
            return Check::Decided(read);
        }
        if let Some(verdict) = self.without_facts(asker, call) {
            return Check::Decided(decision(asker, call, verdict, vec![]));
        }
        match self.judge(call, None) {
            Judged::Clear => Check::Decided(self.admit(asker, call, flow_limits)),
            Judged::Verdict(verdict) => Check::Decided(decision(asker, call, verdict, vec![])),
            Judged::NeedsDevice(machine_id) => {
                Check::NeedsDevice { machine_id, connection: Arc::clone(&call.connection) }
            }
            Judged::NeedsUser(user) => Check::NeedsUser { user, connection: Arc::clone(&call.connection) },
        }
    }

    /// Decides about a call with what was read about its target. Time has passed since `check`: all is judged again.
    pub fn check_with(&mut self, asker: &Asker, call: &Call, flow_limits: &[FlowLimit], facts: &Facts) -> Decision {
        if let Some(read) = self.read(call) {
            return read;
        }
        if let Some(verdict) = self.without_facts(asker, call) {
            return decision(asker, call, verdict, vec![]);
        }
        match self.judge(call, Some(facts)) {
            Judged::Clear => self.admit(asker, call, flow_limits),
            Judged::Verdict(verdict) => decision(asker, call, verdict, vec![]),
            Judged::NeedsDevice(id) | Judged::NeedsUser(id) => {
                let reason = format!("what was read about {id} does not tell whether it is protected");
                decision(asker, call, Verdict::Ask { reason }, vec![])
            }
        }
    }

    /// A call that only reads is free in every mode, and leaves no line in the audit log.
    fn read(&self, call: &Call) -> Option<Decision> {
        let verdict = match call.effect() {
            Effect::Read => Verdict::Go,
            _ if self.reads.allow(call) => Verdict::GoRead,
            _ => return None,
        };
        Some(Decision { verdict, permit: Some(READ), reserve: vec![] })
    }

    /// What is decided by the mode and by time alone.
    fn without_facts(&self, asker: &Asker, call: &Call) -> Option<Verdict> {
        if asker.mode == Mode::Shadow {
            return Some(Verdict::Shadow);
        }
        let fresh_for = self.fresh_for.filter(|_| call.effect() == Effect::Destructive)?;
        let bound = SignedDuration::try_from(fresh_for).unwrap_or(SignedDuration::MAX);
        (asker.now.duration_since(asker.occurred) > bound).then(|| {
            let (occurred, now, limit) = (second(asker.occurred), second(asker.now), limits::short(fresh_for));
            let reason =
                format!("the event happened at {occurred} and it is {now} now: older than fresh_for ({limit})");
            Verdict::Ask { reason }
        })
    }

    fn judge(&self, call: &Call, facts: Option<&Facts>) -> Judged {
        if call.effect() < Effect::Write {
            return Judged::Clear;
        }
        let Some(target) = call.target.as_ref() else { return self.judge_many(call) };
        let found = match (&*target.kind, facts) {
            ("device", _) if self.protected.devices.is_empty() => return Judged::Clear,
            ("user", _) if self.protected.users.is_empty() => return Judged::Clear,
            ("device" | "user", Some(Facts::Missing(why))) => Found::Unknown(why.clone()),
            ("device", None) => {
                let id = DeviceFacts { id: Some(target.id.to_string()), ..DeviceFacts::default() };
                match protected::device(&self.protected.devices, &id) {
                    Found::Unknown(_) => return Judged::NeedsDevice(Arc::clone(&target.id)),
                    sure => sure,
                }
            }
            ("user", None) => return Judged::NeedsUser(Arc::clone(&target.id)),
            ("device", Some(Facts::Device(device))) => self.judge_device(target, device),
            ("user", Some(Facts::User(user))) => protected::user(&self.protected.users, &UserFacts::from_value(user)),
            ("device" | "user", Some(_)) => Found::Unknown("something else was read".into()),
            _ => return Judged::Clear,
        };
        let (kind, id) = (&target.kind, &target.id);
        match (found, self.protected.on_match) {
            (Found::Clear, _) => Judged::Clear,
            (Found::Protected(rule), OnMatch::Ask) => {
                Judged::Verdict(Verdict::Ask { reason: format!("{kind} {id} is protected ({rule})") })
            }
            (Found::Protected(rule), OnMatch::Refuse) => {
                let message = format!("{kind} {id} is protected ({rule}): the call is not sent");
                Judged::Verdict(Verdict::Refuse { code: "protected".into(), message })
            }
            (Found::Unknown(why), _) => {
                let reason = format!("whether {kind} {id} is protected cannot be told: {why}");
                Judged::Verdict(Verdict::Ask { reason })
            }
        }
    }

    /// A call on many devices at once: none of them was looked at, so that none may be protected.
    fn judge_many(&self, call: &Call) -> Judged {
        let many = |form: &str| {
            let lists = call.action.inputs.iter().filter(|param| matches!(param.ty, Type::List(_)));
            lists.into_iter().any(|param| param.id_form.as_deref() == Some(form))
        };
        let (devices, users) = (!self.protected.devices.is_empty(), !self.protected.users.is_empty());
        if (devices && many("machine")) || (users && many("user")) {
            let name = &call.action.name;
            let reason = format!("{name} acts on many at once, and some are protected; act on one at a time in a loop");
            return Judged::Verdict(Verdict::Ask { reason });
        }
        Judged::Clear
    }

    fn judge_device(&self, target: &Target, device: &Value) -> Found {
        let mut facts = DeviceFacts::from_value(device);
        let names = [&facts.id, &facts.name];
        if facts.id.is_some() && !names.into_iter().flatten().any(|name| name.eq_ignore_ascii_case(&target.id)) {
            return Found::Unknown("the service answered with another device".into());
        }
        facts.id.get_or_insert_with(|| target.id.to_string());
        protected::device(&self.protected.devices, &facts)
    }

    /// The last word: a place in every window, or what the configuration says where there is none.
    fn admit(&mut self, asker: &Asker, call: &Call, flow_limits: &[FlowLimit]) -> Decision {
        let key = call_key(&asker.run, &call.path);
        let keys: Vec<String> = match many(call) {
            0 | 1 => vec![key.clone()],
            many => (0..many).map(|index| format!("{key}#{index}")).collect(),
        };
        let taken = self.limits.reserve(&call.connection, call.effect(), &keys, &asker.flow, flow_limits, asker.now);
        match (taken, self.on_limit) {
            (Ok(mut places), _) => {
                places.extend(edits::of(call, &key, asker.now));
                decision(asker, call, Verdict::Go, places)
            }
            (Err(hit), OnLimit::Ask) => decision(asker, call, Verdict::Ask { reason: hit.message }, vec![]),
            (Err(hit), OnLimit::Stop) => {
                decision(asker, call, Verdict::Refuse { code: "limit".into(), message: hit.message }, vec![])
            }
        }
    }
}

/// On how many things a call acts that names several at once: each counts against the limits.
fn many(call: &Call) -> usize {
    let lists = call.action.inputs.iter().filter(|param| matches!(&param.ty, Type::List(_)) && param.id_form.is_some());
    let sizes = lists.filter_map(|param| Some(call.inputs.get(&param.name)?.as_list()?.len()));
    sizes.max().unwrap_or(1)
}

/// What the rules for assets say about a call.
enum Judged {
    Clear,
    Verdict(Verdict),
    NeedsDevice(Arc<str>),
    NeedsUser(Arc<str>),
}

/// A decision with its line for the audit log. Only `Go` carries a permit.
fn decision(asker: &Asker, call: &Call, verdict: Verdict, mut reserve: Vec<Op>) -> Decision {
    let (word, reason) = match &verdict {
        Verdict::Go | Verdict::GoRead => ("go", None),
        Verdict::Shadow => ("shadow", None),
        Verdict::Refuse { message, .. } => ("refuse", Some(message)),
        Verdict::Ask { reason } => ("ask", Some(reason)),
        // What is held is not judged: it is when its turn has come.
        Verdict::Again => ("again", None),
        Verdict::Unavailable { message } => ("unavailable", Some(message)),
    };
    let mut line = serde_json::json!({
        "run": asker.run.as_str(),
        "flow": &*asker.flow,
        "action": &*call.action.name,
        "effect": call.effect().as_str(),
        "connection": &*call.connection,
        "path": &*call.path,
        "attempt": call.attempt,
        "verdict": word,
    });
    if let Some(target) = &call.target {
        line["target"] = format!("{}:{}", target.kind, target.id).into();
    }
    if let Some(reason) = reason {
        line["reason"] = reason.as_str().into();
    }
    reserve.push(Op::Audit { at: asker.now, body: line.to_string().into_bytes() });
    let permit =
        (verdict == Verdict::Go).then(|| Permit { effect: call.effect(), flow: Some(Arc::clone(&asker.flow)) });
    Decision { verdict, permit, reserve }
}

fn second(at: Timestamp) -> impl std::fmt::Display {
    at.strftime("%Y-%m-%d %H:%M:%SZ")
}
