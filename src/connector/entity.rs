//! A service's JSON to the normalised entities of the catalogue, as JSON that is then typed by the entity's declaration: enum
//! words are matched in any case there, and null is dropped. What has no place in an entity stays in `raw`.

mod alert;
mod other;

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use crate::catalog::{Mapping, ObjectType, Type};

/// Which members of an entity are asked for: what nobody reads is not put together.
#[derive(Clone, Copy)]
struct Wanted<'a>(Option<&'a ObjectType>);

impl<'a> Wanted<'a> {
    const ALL: Wanted<'static> = Wanted(None);

    fn of(ty: &'a Type) -> Self {
        match ty {
            Type::Object(object) if !object.open => Wanted(Some(object)),
            _ => Wanted::ALL,
        }
    }

    /// Those of the items of a list that is the member `value`.
    fn items(ty: &'a Type) -> Self {
        let Wanted(Some(page)) = Wanted::of(ty) else { return Wanted::ALL };
        match page.fields.get("value").map(|field| &field.ty) {
            Some(Type::List(item)) => Wanted::of(item),
            _ => Wanted::ALL,
        }
    }

    fn has(self, key: &str) -> bool {
        self.0.is_none_or(|object| object.fields.contains_key(key))
    }

    fn any(self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.has(key))
    }
}

/// As `json!` for an object, without the members that are not wanted.
macro_rules! only {
    ($wanted:expr, { $($key:literal: $value:expr),* $(,)? }) => {{
        let wanted: Wanted<'_> = $wanted;
        let mut members = serde_json::Map::new();
        $(if wanted.has($key) {
            members.insert($key.to_owned(), json!($value));
        })*
        Json::Object(members)
    }};
}
use only;

/// The normalised form of an answer. `name` is a mapping of the catalogue; `ty` what will be read of it: members that it does
/// not have may be left out; `now` the instant of reading.
///
/// # Errors
/// One sentence where the answer says that nothing was done, or is no such thing.
pub fn normal(name: &str, ty: &Type, body: &Json, now: Timestamp) -> Result<Json, String> {
    let wanted = Wanted::of(ty);
    let page = |key: &str, one: One| page(body, key, one, Wanted::items(ty));
    Ok(match name {
        "mde_alert" => alert::mde(body, wanted),
        "graph_alert" => alert::graph(body, wanted),
        "cloud_apps_alert" => alert::cloud_apps(body, wanted),
        "mde_machine" => other::device(body, wanted),
        "machine_action" => other::machine_action(body, wanted),
        "mde_user" => other::mde_user(body, wanted),
        "indicator" => other::indicator(body, wanted),
        "graph_incident" => other::incident(body, wanted),
        "graph_user" => other::user(body, wanted),
        "user_risk" => other::user_risk(body, wanted),
        "risk_detection" => other::risk_detection(body, wanted),
        "automatic_replies" => other::automatic_replies(body, now)?,
        "graph_comments" => json!({"comments": items(body, "value")?.iter().map(other::comment).collect::<Vec<_>>()}),
        "mde_alerts" => page("value", alert::mde)?,
        "graph_alerts" => page("value", alert::graph)?,
        "cloud_apps_alerts" => page("data", alert::cloud_apps)?,
        "mde_machines" => page("value", other::device)?,
        "machine_actions" => page("value", other::machine_action)?,
        "mde_users" => page("value", other::mde_user)?,
        "indicators" => page("value", other::indicator)?,
        "graph_incidents" => page("value", other::incident)?,
        "risk_detections" => page("value", other::risk_detection)?,
        "graph_users" => page("value", other::user)?,
        "user_risks" => page("value", other::user_risk)?,
        "sentinel_incident" => other::sentinel_incident(body, wanted),
        "sentinel_incidents" => page("value", other::sentinel_incident)?,
        "cloud_activities" | "cloud_entities" => page("data", |item, _| item.clone())?,
        "accepted" => json!({}),
        _ => match name.strip_prefix("closed_") {
            Some(_) => closed(name, body)?,
            None => return Err(format!("there is no mapping {name}")),
        },
    })
}

/// Every mapping that [`normal`] knows, and `hunting`, which needs the inputs too.
pub const MAPPINGS: [&str; 33] = [
    "sentinel_incident",
    "sentinel_incidents",
    "mde_alert",
    "graph_alert",
    "cloud_apps_alert",
    "mde_machine",
    "machine_action",
    "mde_user",
    "indicator",
    "graph_incident",
    "graph_user",
    "user_risk",
    "risk_detection",
    "automatic_replies",
    "graph_comments",
    "mde_alerts",
    "graph_alerts",
    "cloud_apps_alerts",
    "mde_machines",
    "machine_actions",
    "mde_users",
    "indicators",
    "graph_incidents",
    "risk_detections",
    "graph_users",
    "user_risks",
    "cloud_activities",
    "cloud_entities",
    "accepted",
    "closed_benign",
    "closed_false_positive",
    "closed_true_positive",
    "hunting",
];

type One = fn(&Json, Wanted<'_>) -> Json;

fn page(body: &Json, key: &str, one: One, wanted: Wanted<'_>) -> Result<Json, String> {
    Ok(json!({"value": items(body, key)?.iter().map(|item| one(item, wanted)).collect::<Vec<_>>()}))
}

/// The list of an answer; some pages show it bare.
fn items<'a>(body: &'a Json, key: &str) -> Result<&'a Vec<Json>, String> {
    body.get(key).unwrap_or(body).as_array().ok_or_else(|| format!("there is no list {key}"))
}

/// Defender for Cloud Apps answers 200 also where it closed nothing.
fn closed(name: &str, body: &Json) -> Result<Json, String> {
    match body.get(name).and_then(Json::as_i64) {
        Some(count) if count > 0 => Ok(json!({"closed": count})),
        Some(_) => Err("no alert was closed: there is none with this id, or it is closed already".into()),
        None => Err(format!("it has no {name}")),
    }
}

/// Whether an answer says that there was nothing (more) to close.
pub(super) fn nothing_left(mapping: &Mapping, body: &Json) -> bool {
    let Mapping::Entity(name) = mapping else { return false };
    name.starts_with("closed_") && body.get(&**name).and_then(Json::as_i64) == Some(0)
}

/// Text that says something: null and empty text are absence.
fn text<'a>(json: &'a Json, key: &str) -> Option<&'a str> {
    json.get(key)?.as_str().filter(|text| !text.is_empty())
}

/// A member that is text or a number, as text: ids come as both.
fn id_text(json: &Json, key: &str) -> Option<String> {
    match json.get(key)? {
        Json::String(text) if !text.is_empty() => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn list<'a>(json: &'a Json, key: &str) -> impl Iterator<Item = &'a Json> + use<'a> {
    json.get(key).and_then(Json::as_array).into_iter().flatten()
}

/// An enum word whose "unknown" is absence: nobody has said anything yet.
fn said<'a>(json: &'a Json, key: &str) -> Option<&'a str> {
    text(json, key).filter(|word| !word.eq_ignore_ascii_case("unknown") && !word.eq_ignore_ascii_case("NotAvailable"))
}

/// Both dialects of a determination, and the old names of one, as the portal calls them.
fn determination(json: &Json) -> Option<&str> {
    let word = said(json, "determination")?;
    let renamed = [
        ("CompromisedUser", "CompromisedAccount"),
        ("Clean", "NotMalicious"),
        ("InsufficientData", "NotEnoughDataToValidate"),
        ("ConfirmedUserActivity", "ConfirmedActivity"),
    ];
    Some(renamed.iter().find(|(old, _)| old.eq_ignore_ascii_case(word)).map_or(word, |(_, new)| new))
}

/// One word for "not rated" in both dialects.
fn severity(json: &Json) -> &str {
    match text(json, "severity") {
        Some(word) if !word.eq_ignore_ascii_case("UnSpecified") => word,
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests;
