//! Suppression rules: files that say which alerts are known to be harmless. Flows do not start for those, or they are
//! resolved with a verdict.
//!
//! The model and the judgement, pure. Not here: reading files from disks (see `cli`), keeping events from flows (see
//! `trigger`). The portal's own hiding of alerts has no API: what is suppressed here stays in the portal's queue.

mod draft;
pub mod pattern;
mod read;
mod schema;

use std::sync::Arc;

use jiff::Timestamp;

pub use draft::{Draft, draft};
use pattern::{Pattern, lower};
pub use read::{Given, read};
pub use schema::json_schema;

use crate::triage::{Alert, evidence, source};

/// One rule, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub name: Arc<str>,
    pub comment: String,
    pub owner: String,
    /// It suppresses nothing from here on.
    pub expires: Timestamp,
    pub kind: Kind,
    pub scope: Scope,
    /// None for a rule that an alert's type alone decides.
    pub evidence: Option<Cond>,
    pub action: Action,
    pub allow: Vec<Indicator>,
}

/// Which alerts by what they are; every part that is given must fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kind {
    pub title: Vec<Pattern>,
    /// Service sources in the catalogue's spelling.
    pub source: Vec<&'static str>,
    pub detector_id: Vec<Pattern>,
    pub category: Vec<Pattern>,
}

impl Kind {
    /// Any type of alert.
    pub fn is_any(&self) -> bool {
        *self == Kind::default()
    }
}

/// Where it holds; empty is the whole organisation. Every list that is given must fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    pub devices: Vec<Pattern>,
    pub device_groups: Vec<Pattern>,
    pub users: Vec<Pattern>,
}

impl Scope {
    /// Whether nothing but users narrows it.
    pub fn is_users_only(&self) -> bool {
        !self.users.is_empty() && self.devices.is_empty() && self.device_groups.is_empty()
    }

    /// It in a few words.
    pub fn words(&self) -> String {
        let lists = [("devices", &self.devices), ("device groups", &self.device_groups), ("users", &self.users)];
        let given = lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| {
            let texts: Vec<&str> = list.iter().map(Pattern::text).collect();
            format!("{name} {}", texts.join(", "))
        });
        let given: Vec<String> = given.collect();
        if given.is_empty() { "organisation".to_owned() } else { given.join("; ") }
    }
}

/// A condition on evidence.
#[derive(Clone, Debug, PartialEq)]
pub enum Cond {
    All(Vec<Cond>),
    Any(Vec<Cond>),
    Piece(Piece),
}

/// One piece of evidence that all of this is true of.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// A kind of `triage::evidence::KINDS`.
    pub kind: &'static str,
    /// Each field with the patterns of which one must fit.
    pub fields: Vec<(&'static str, Vec<Pattern>)>,
    pub roles: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Flows do not start.
    Ignore,
    /// Flows do not start, and the alert is closed.
    Resolve { classification: &'static str, determination: Option<&'static str>, comment: Option<String> },
}

impl Action {
    pub fn as_str(&self) -> &'static str {
        match self {
            Action::Ignore => "ignore",
            Action::Resolve { .. } => "resolve",
        }
    }
}

/// What goes on the allow-list with the rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Indicator {
    pub kind: &'static str,
    pub value: String,
    /// Device groups; empty is the whole organisation.
    pub groups: Vec<String>,
}

/// The rules of an installation. The first that fits counts, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    pub fn new(mut rules: Vec<Rule>) -> Rules {
        rules.sort_by(|a, b| a.name.cmp(&b.name));
        Rules(rules)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Rule> {
        self.0.iter()
    }

    /// The rule that suppresses an alert, if one does at this time.
    pub fn find(&self, alert: &Judged<'_>, now: Timestamp) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.suppresses(alert, now))
    }

    /// Whether a rule might suppress an alert of which the evidence is not known.
    pub fn concern(&self, alert: &Judged<'_>, now: Timestamp) -> bool {
        self.0.iter().any(|rule| rule.is_active(now) && rule.is_for(alert))
    }
}

/// An alert made ready to be compared with many rules.
pub struct Judged<'a> {
    alert: Alert<'a>,
    source: source::Source,
    facts: Vec<evidence::Fact>,
}

impl<'a> Judged<'a> {
    pub fn new(alert: Alert<'a>) -> Judged<'a> {
        let mut facts = evidence::facts(alert);
        for fact in &mut facts {
            fact.fields.iter_mut().for_each(|(_, value)| *value = lower(value));
        }
        Judged { alert, source: alert.source(), facts }
    }
}

impl Rule {
    pub fn is_active(&self, now: Timestamp) -> bool {
        now < self.expires
    }

    pub fn suppresses(&self, alert: &Judged<'_>, now: Timestamp) -> bool {
        self.is_active(now) && self.matches(alert)
    }

    /// Whether an alert is what the rule describes, whatever the time.
    pub fn matches(&self, alert: &Judged<'_>) -> bool {
        self.is_for(alert)
            && self.scope.holds(&alert.facts)
            && self.evidence.as_ref().is_none_or(|cond| cond.holds(&alert.facts))
    }

    /// Whether an alert is of the rule's type. What a customer's own rule raised is never suppressed: that rule is to be
    /// mended.
    fn is_for(&self, alert: &Judged<'_>) -> bool {
        let fits = |patterns: &[Pattern], have: Option<&str>| {
            patterns.is_empty() || have.is_some_and(|have| any(patterns, &lower(have)))
        };
        let (kind, it) = (&self.kind, alert.alert);
        !alert.source.custom
            && (kind.source.is_empty()
                || kind.source.iter().any(|word| word.eq_ignore_ascii_case(&alert.source.service)))
            && fits(&kind.title, it.text("title"))
            && fits(&kind.detector_id, it.detector())
            && fits(&kind.category, it.text("category"))
    }
}

impl Scope {
    fn holds(&self, facts: &[evidence::Fact]) -> bool {
        let one = |patterns: &[Pattern], kind: &str, names: &[&str]| {
            let of_kind = || facts.iter().filter(|fact| fact.kind == kind);
            let values = || of_kind().flat_map(|fact| names.iter().flat_map(move |name| fact.values(name)));
            patterns.is_empty() || values().any(|value| any(patterns, value))
        };
        one(&self.devices, "device", &["name", "id"])
            && one(&self.device_groups, "device", &["group"])
            && one(&self.users, "user", &["upn", "name", "sid", "id"])
    }
}

impl Cond {
    fn holds(&self, facts: &[evidence::Fact]) -> bool {
        match self {
            Cond::All(parts) => parts.iter().all(|part| part.holds(facts)),
            Cond::Any(parts) => parts.iter().any(|part| part.holds(facts)),
            Cond::Piece(piece) => facts.iter().any(|fact| piece.is(fact)),
        }
    }
}

impl Piece {
    fn is(&self, fact: &evidence::Fact) -> bool {
        fact.kind == self.kind
            && (self.roles.is_empty()
                || fact.roles.iter().any(|role| self.roles.iter().any(|want| want.eq_ignore_ascii_case(role))))
            && self.fields.iter().all(|(name, patterns)| fact.values(name).any(|value| any(patterns, value)))
    }
}

fn any(patterns: &[Pattern], lower: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches_lower(lower))
}

#[cfg(test)]
mod tests;
