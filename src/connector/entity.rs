//! A service's JSON to the normalised entities of the catalogue, as JSON that is then typed by the entity's declaration: enum
//! words are matched in any case there, and null is dropped. What has no place in an entity stays in `raw`.

mod alert;
mod other;

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use crate::catalog::Mapping;

/// The normalised form of an answer. `name` is a mapping of the catalogue; `now` the instant of reading.
///
/// # Errors
/// One sentence where the answer says that nothing was done, or is no such thing.
pub fn normal(name: &str, body: &Json, now: Timestamp) -> Result<Json, String> {
    Ok(match name {
        "mde_alert" => alert::mde(body),
        "graph_alert" => alert::graph(body),
        "cloud_apps_alert" => alert::cloud_apps(body),
        "mde_machine" => other::device(body),
        "machine_action" => other::machine_action(body),
        "mde_user" => other::mde_user(body),
        "indicator" => other::indicator(body),
        "graph_incident" => other::incident(body),
        "graph_user" => other::user(body),
        "user_risk" => other::user_risk(body),
        "risk_detection" => other::risk_detection(body),
        "automatic_replies" => other::automatic_replies(body, now)?,
        "graph_comments" => json!({"comments": items(body, "value")?.iter().map(other::comment).collect::<Vec<_>>()}),
        "mde_alerts" => page(body, "value", alert::mde)?,
        "graph_alerts" => page(body, "value", alert::graph)?,
        "cloud_apps_alerts" => page(body, "data", alert::cloud_apps)?,
        "mde_machines" => page(body, "value", other::device)?,
        "machine_actions" => page(body, "value", other::machine_action)?,
        "mde_users" => page(body, "value", other::mde_user)?,
        "indicators" => page(body, "value", other::indicator)?,
        "graph_incidents" => page(body, "value", other::incident)?,
        "risk_detections" => page(body, "value", other::risk_detection)?,
        "graph_users" => page(body, "value", other::user)?,
        "user_risks" => page(body, "value", other::user_risk)?,
        "cloud_activities" | "cloud_entities" => page(body, "data", Json::clone)?,
        "accepted" => json!({}),
        _ => match name.strip_prefix("closed_") {
            Some(_) => closed(name, body)?,
            None => return Err(format!("there is no mapping {name}")),
        },
    })
}

/// Every mapping that [`normal`] knows, and `hunting`, which needs the inputs too.
pub const MAPPINGS: [&str; 31] = [
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

fn page(body: &Json, key: &str, one: fn(&Json) -> Json) -> Result<Json, String> {
    Ok(json!({"value": items(body, key)?.iter().map(one).collect::<Vec<_>>()}))
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
