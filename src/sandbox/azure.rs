//! Azure: incidents of Microsoft Sentinel below one workspace of Resource Manager, and queries of Log Analytics.
//! Facts: `tests/contract/other-openapi.yaml`.

use serde_json::{Value as Json, json};

use super::call::{Answer, Call};
use super::odata::Filter;
use super::state::{State, World};
use super::{graph, scenario};

const FIELDS: [&str; 3] = ["properties/createdTimeUtc", "properties/severity", "properties/status"];
const API_VERSION: &str = "2023-11-01";

/// What is below a workspace. `None` where there is no handler for this route.
pub(super) fn answer(world: &World, state: &mut State, call: &Call, path: &[&str]) -> Option<Answer> {
    let ["providers", "Microsoft.SecurityInsights", "incidents", rest @ ..] = path else { return None };
    if call.param("api-version") != Some(API_VERSION) {
        return Some(fail(400, "MissingApiVersionParameter", "The api-version query parameter is required."));
    }
    Some(match (call.method.as_str(), rest) {
        ("GET", []) => list(world, state, call),
        ("GET", [name]) => incident(world, state, name).map_or_else(|| missing(name), Answer::ok),
        ("PUT", [name]) => update(world, state, call, name),
        ("PUT", [name, "comments", comment]) => match (incident(world, state, name), message(call)) {
            (None, _) => missing(name),
            (_, None) => fail(400, "BadRequest", "Invalid data model: properties.message is required"),
            (Some(_), Some(text)) => {
                let key = format!("{name}/{comment}").to_lowercase();
                let status = if state.sentinel.contains_key(&key) { 200 } else { 201 };
                if status == 201 {
                    state.marks.stray("azure.comment_incident");
                }
                let body = json!({
                    "id": format!("{}/comments/{comment}", id_of(name)), "name": comment,
                    "type": "Microsoft.SecurityInsights/incidents/comments",
                    "properties": { "message": text, "createdTimeUtc": world.clock.now().to_string() },
                });
                state.sentinel.insert(key, body.clone());
                Answer::new(status, body)
            }
        },
        _ => return None,
    })
}

/// A query of Log Analytics: the hunting answers in its own form.
pub(super) fn query(world: &World, state: &State, call: &Call) -> Answer {
    let body = call.object().unwrap_or_default();
    let Some(query) = body.get("query").and_then(Json::as_str).filter(|query| !query.is_empty()) else {
        return fail(400, "BadArgumentError", "The request had some invalid properties: query is required");
    };
    let (columns, rows) = scenario::hunt(world, state, query);
    let named: Vec<(String, &str)> = columns
        .into_iter()
        .map(|(name, kind)| {
            let kind = match kind.to_lowercase().as_str() {
                "datetime" => "datetime",
                "int32" | "int" => "int",
                "int64" | "long" => "long",
                "boolean" | "bool" | "sbyte" => "bool",
                "double" | "real" => "real",
                _ => "string",
            };
            (name, kind)
        })
        .collect();
    let row =
        |row: &Json| -> Json { named.iter().map(|(name, _)| row.get(name).cloned().unwrap_or(Json::Null)).collect() };
    let columns: Vec<Json> = named.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect();
    let rows: Vec<Json> = rows.iter().map(row).collect();
    Answer::ok(json!({"tables": [{"name": "PrimaryResult", "columns": columns, "rows": rows}]}))
}

fn fail(status: u16, code: &str, message: &str) -> Answer {
    Answer::new(status, json!({"error": {"code": code, "message": message}}))
}

fn missing(name: &str) -> Answer {
    fail(404, "NotFound", &format!("Incident '{name}' was not found"))
}

fn message(call: &Call) -> Option<String> {
    let body = call.object().ok()?;
    let text = body.get("properties")?.get("message")?.as_str()?;
    (!text.is_empty() && text.len() <= 30_000).then(|| text.to_owned())
}

fn id_of(name: &str) -> String {
    format!(
        "/subscriptions/0f9d1e6e-3c0c-4a6b-9b47-5a8c7d2e1f00/resourceGroups/soc/providers/Microsoft.OperationalInsights\
         /workspaces/soc/providers/Microsoft.SecurityInsights/incidents/{name}"
    )
}

/// The name of the incident with a number of the Defender portal.
pub(super) fn name_of(number: u64) -> String {
    format!("73e01a99-5cd7-4139-a149-{number:012x}")
}

fn numbers(world: &World, state: &State) -> std::collections::BTreeSet<u64> {
    world.plan.alerts.iter().take(state.born.len()).map(|alert| alert.incident).collect()
}

/// An incident as somebody left it, or as it was made.
fn incident(world: &World, state: &State, name: &str) -> Option<Json> {
    if let Some(known) = state.sentinel.get(&name.to_lowercase()) {
        return Some(known.clone());
    }
    let number = numbers(world, state).into_iter().find(|number| name_of(*number).eq_ignore_ascii_case(name))?;
    let alerts: Vec<usize> = (0..state.born.len())
        .filter(|index| world.plan.alerts.get(*index).is_some_and(|alert| alert.incident == number))
        .collect();
    let first = alerts.first().and_then(|index| world.plan.alerts.get(*index))?;
    let born = alerts.iter().filter_map(|index| state.born.get(*index)).min()?.to_string();
    Some(json!({
        "id": id_of(&name_of(number)), "name": name_of(number), "type": "Microsoft.SecurityInsights/incidents",
        "etag": "\"0300bf09-0000-0000-0000-000000000001\"",
        "properties": {
            "incidentNumber": number, "title": first.title, "description": format!("{} alerts", alerts.len()),
            "severity": first.severity, "status": "New", "createdTimeUtc": born, "lastModifiedTimeUtc": born,
            "firstActivityTimeUtc": born, "lastActivityTimeUtc": born, "labels": [],
            "owner": {"objectId": null, "email": null, "assignedTo": null, "userPrincipalName": null},
            "incidentUrl": format!("https://portal.azure.com/#asset/Microsoft_Azure_Security_Insights/Incident{}", id_of(&name_of(number))),
            "providerName": "Azure Sentinel", "providerIncidentId": number.to_string(), "relatedAnalyticRuleIds": [],
            "additionalData": {"alertsCount": alerts.len(), "bookmarksCount": 0, "commentsCount": 0,
                "alertProductNames": ["Microsoft Defender XDR"], "tactics": ["Execution"]},
        },
    }))
}

fn list(world: &World, state: &State, call: &Call) -> Answer {
    let all = numbers(world, state);
    let mut items: Vec<Json> = all.into_iter().filter_map(|number| incident(world, state, &name_of(number))).collect();
    if let Some(filter) = call.param("$filter") {
        match Filter::parse(filter, &FIELDS) {
            Ok(filter) => items.retain(|item| filter.matches(item)),
            Err(message) => return fail(400, "BadRequest", &message),
        }
    }
    let created = |item: &Json| item.pointer("/properties/createdTimeUtc").map(Json::to_string);
    items.sort_by_key(|item| std::cmp::Reverse(created(item)));
    let (top, skip) = match (call.number("$top"), call.number("$skipToken")) {
        (Ok(top), Ok(skip)) => (top.unwrap_or(50).clamp(1, 1000), skip.unwrap_or(0)),
        (Err(message), _) | (_, Err(message)) => return fail(400, "BadRequest", &message),
    };
    let total = items.len();
    let value: Vec<Json> = items.into_iter().skip(skip).take(top).collect();
    let end = skip.saturating_add(value.len());
    let mut body = json!({ "value": value });
    if end < total
        && let Json::Object(members) = &mut body
    {
        members.insert("nextLink".into(), json!(graph::link_with(call, "$skipToken", end)));
    }
    Answer::ok(body)
}

/// A PUT of the whole: what it leaves out is gone, and an etag of before is refused.
fn update(world: &World, state: &mut State, call: &Call, name: &str) -> Answer {
    let Some(before) = incident(world, state, name) else { return missing(name) };
    let body = match call.object() {
        Ok(body) => body,
        Err(message) => return fail(400, "BadRequest", &message),
    };
    if body.get("etag").is_some_and(|etag| !etag.is_null() && Some(etag) != before.get("etag")) {
        return fail(409, "Conflict", "Newer instance of Incident exists. Incident etag does not match.");
    }
    let given = body.get("properties").and_then(Json::as_object).cloned().unwrap_or_default();
    let word = |key: &str| given.get(key).and_then(Json::as_str).unwrap_or("");
    for (key, words) in [
        ("severity", ["High", "Medium", "Low", "Informational"].as_slice()),
        ("status", ["New", "Active", "Closed"].as_slice()),
    ] {
        if !words.contains(&word(key)) {
            return fail(
                400,
                "BadRequest",
                &format!("Invalid data model: properties.{key} is none of {}", words.join(", ")),
            );
        }
    }
    if word("title").is_empty() || (word("status") == "Closed" && word("classification").is_empty()) {
        return fail(400, "BadRequest", "Invalid data model: title, and a classification to close, are required");
    }
    let mut properties = given;
    for kept in
        ["incidentNumber", "createdTimeUtc", "incidentUrl", "providerName", "providerIncidentId", "additionalData"]
    {
        let was = before.pointer(&format!("/properties/{kept}")).cloned().unwrap_or(Json::Null);
        properties.insert(kept.to_owned(), was);
    }
    properties.insert("lastModifiedTimeUtc".into(), json!(world.clock.now().to_string()));
    let mut after = before;
    state.etags += 1;
    if let Json::Object(members) = &mut after {
        members.insert("properties".into(), Json::Object(properties));
        members.insert("etag".into(), json!(format!("\"0300bf09-0000-0000-0000-{:012x}\"", state.etags + 1)));
    }
    state.sentinel.insert(name.to_lowercase(), after.clone());
    state.marks.stray("azure.update_incident");
    Answer::ok(after)
}
