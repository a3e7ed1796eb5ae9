//! A rule made from an alert: its type, and conditions filled from its evidence with their roles.

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use crate::triage::{Alert, evidence};

/// Pieces of evidence that a draft takes; a person narrows it from there.
const MOST: usize = 50;

/// What a person says of the rule.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    pub name: &'a str,
    pub comment: &'a str,
    pub owner: &'a str,
    pub expires: Timestamp,
    /// Not what is suspicious alone, but everything.
    pub all_evidence: bool,
    /// For any type of alert with this evidence.
    pub any_type: bool,
    /// The devices of the alert alone.
    pub on_devices: bool,
    pub resolve: Option<(&'a str, Option<&'a str>)>,
}

/// Fields that tell one piece from all others; a kind that is not here takes all of its fields.
const TELLING: [(&str, &[&str]); 6] = [
    ("file", &["sha256"]),
    ("process", &["name", "path", "command_line"]),
    ("user", &["upn"]),
    ("device", &["name"]),
    ("mail", &["sender", "subject"]),
    ("ip", &["address"]),
];

/// The text of a rule for alerts like this one.
///
/// # Errors
/// One sentence: a custom detection is never suppressed, and a rule for any type needs evidence.
pub fn draft(alert: Alert<'_>, draft: &Draft<'_>) -> Result<String, String> {
    let source = alert.source();
    if source.custom {
        return Err(
            "a custom detection raised it: mend that rule in the portal, such alerts can't be suppressed".into()
        );
    }
    let facts = evidence::facts(alert);
    let conditions: Vec<Json> = chosen(&facts, draft.all_evidence).filter_map(condition).take(MOST).collect();
    if draft.any_type && conditions.is_empty() {
        return Err("it has no evidence, and a rule for any type of alert needs a condition".into());
    }
    let mut kind = Map::new();
    kind.insert("source".into(), json!(source.service));
    match alert.detector() {
        Some(detector) => drop(kind.insert("detector_id".into(), json!(detector))),
        None => drop(kind.insert("title".into(), json!(alert.text("title").unwrap_or("")))),
    }
    let mut rule = vec![
        ("suppression", json!(draft.name)),
        ("comment", json!(draft.comment)),
        ("owner", json!(draft.owner)),
        ("expires", json!(draft.expires.strftime("%Y-%m-%d").to_string())),
        ("alert", if draft.any_type { json!("any") } else { Json::Object(kind) }),
    ];
    if draft.on_devices {
        let names: Vec<&str> =
            facts.iter().filter(|fact| fact.kind == "device").filter_map(|it| it.first("name")).collect();
        rule.push(("scope", json!({ "devices": names })));
    }
    if !conditions.is_empty() {
        rule.push(("evidence", json!({ "all": conditions })));
    }
    rule.push((
        "action",
        match draft.resolve {
            None => json!("ignore"),
            Some((classification, None)) => json!({ "resolve": { "classification": classification } }),
            Some((classification, Some(determination))) => {
                json!({ "resolve": { "classification": classification, "determination": determination } })
            }
        },
    ));
    let title: String = alert.text("title").unwrap_or("").chars().filter(|c| !c.is_control()).take(100).collect();
    let mut text = format!(
        "# Made from the alert {}: {title}\n",
        alert.id().chars().filter(|c| c.is_ascii_graphic()).collect::<String>()
    );
    for (name, value) in rule {
        write(name, &value, 0, &mut text);
    }
    Ok(text)
}

/// What is suspicious, or else what is no mere bystander; all of it, where a person wants that.
fn chosen(facts: &[evidence::Fact], all: bool) -> impl Iterator<Item = &evidence::Fact> {
    let is_bad = |fact: &evidence::Fact| {
        let verdict = fact.verdict.as_deref().unwrap_or("");
        verdict.eq_ignore_ascii_case("suspicious") || verdict.eq_ignore_ascii_case("malicious")
    };
    let by_verdict = facts.iter().any(is_bad);
    facts.iter().filter(move |fact| {
        all || if by_verdict { is_bad(fact) } else { !matches!(fact.kind, "user" | "device" | "other") }
    })
}

fn condition(fact: &evidence::Fact) -> Option<Json> {
    let telling = TELLING.iter().find(|(kind, _)| *kind == fact.kind).map(|(_, names)| *names);
    let usable = |value: &&str| !value.trim().is_empty() && value.chars().count() <= super::pattern::LONGEST;
    let mut fields = Map::new();
    let mut take = |names: &mut dyn Iterator<Item = &'static str>| {
        for name in names {
            if let Some(value) = fact.first(name).filter(usable) {
                fields.insert(name.to_owned(), json!(value));
            }
        }
    };
    let of_kind = || fact.fields.iter().map(|(name, _)| *name);
    match telling {
        Some(names) if names.iter().any(|name| fact.first(name).is_some_and(|it| usable(&it))) => {
            take(&mut names.iter().copied())
        }
        _ => take(&mut of_kind()),
    }
    if fields.values().all(|value| value.as_str().is_some_and(|text| text.chars().all(|c| c == '*'))) {
        return None;
    }
    if !fact.roles.is_empty() {
        fields.insert("role".into(), json!(fact.roles));
    }
    Some(json!({ fact.kind: fields }))
}

/// A value as YAML that people go on to edit; every text is quoted, so that none means more than itself.
fn write(name: &str, value: &Json, indent: usize, into: &mut String) {
    let space = " ".repeat(indent);
    match value {
        Json::Object(members) if indent == 0 => {
            into.push_str(&format!("{space}{name}:\n"));
            members.iter().for_each(|(name, value)| write(name, value, indent + 2, into));
        }
        Json::Array(items) if items.iter().all(Json::is_object) && !items.is_empty() => {
            into.push_str(&format!("{space}{name}:\n"));
            items.iter().for_each(|item| into.push_str(&format!("{space}  - {}\n", flow(item))));
        }
        other => into.push_str(&format!("{space}{name}: {}\n", flow(other))),
    }
}

fn flow(value: &Json) -> String {
    match value {
        Json::Object(members) => {
            let members: Vec<String> = members.iter().map(|(name, value)| format!("{name}: {}", flow(value))).collect();
            format!("{{ {} }}", members.join(", "))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Json::String(text) if text == "any" || text == "ignore" || is_plain(text) => text.clone(),
        // JSON's text is YAML's.
        other => other.to_string(),
    }
}

/// A word that YAML reads as itself.
fn is_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.len() > 5
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
}
