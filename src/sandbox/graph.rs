//! Microsoft Graph, security: alerts and incidents of every product, hunting. Words are camelCase here, pages follow a
//! next link. Users, mailboxes and risk are in `graph_users`.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value as Json, json};

use super::call::{Answer, Call};
use super::odata::{self, Filter};
use super::state::{Handling, State, World};
use super::world::{Source, TENANT};
use super::{graph_users, scenario};

const CONTEXT: &str = "https://graph.microsoft.com/v1.0/$metadata#";
const ALERT_FIELDS: [&str; 8] = [
    "assignedTo",
    "classification",
    "determination",
    "createdDateTime",
    "lastUpdateDateTime",
    "severity",
    "serviceSource",
    "status",
];

/// `None` where there is no handler for this route.
pub(super) fn answer(world: &World, state: &mut State, call: &Call, path: &[&str]) -> Option<Answer> {
    let ["security", rest @ ..] = path else { return graph_users::answer(world, state, call, path) };
    Some(match (call.method.as_str(), rest) {
        ("GET", ["alerts_v2"]) => {
            let items = (0..state.born.len()).rev().map(|index| alert_json(world, state, index)).collect();
            page(call, "security/alerts_v2", &ALERT_FIELDS, items, 100)
        }
        ("GET", ["incidents"]) => list_incidents(world, state, call),
        ("POST", ["runHuntingQuery" | "microsoft.graph.security.runHuntingQuery"]) => hunt(world, state, call),
        ("POST", ["alerts_v2", "moveAlerts"]) => move_alerts(world, state, call),
        ("GET" | "PATCH", ["alerts_v2", id]) => match find_alert(world, state, id) {
            None => missing(id),
            Some(index) if call.method == "GET" => alert(world, state, index),
            Some(index) => update_alert(world, state, call, index),
        },
        ("POST", ["alerts_v2", id, "comments"]) => match find_alert(world, state, id) {
            None => missing(id),
            Some(index) => {
                let now = world.clock.now();
                let Some(slot) = state.alerts.get_mut(index) else { return Some(missing(id)) };
                let answer = comment(call, &mut slot.handling, now);
                if answer.status == 200 {
                    state.marks.alert(index, "xdr.comment_alert");
                }
                answer
            }
        },
        ("GET" | "PATCH", ["incidents", id]) => match find_incident(world, state, id) {
            None => missing(id),
            Some(number) if call.method == "GET" => incident(world, state, call, number),
            Some(number) => update_incident(world, state, call, number),
        },
        ("GET", ["incidents", id, "alerts"]) => match find_incident(world, state, id) {
            None => missing(id),
            Some(number) => {
                let alerts = members_of(world, state, number);
                let items = alerts.into_iter().map(|index| alert_json(world, state, index)).collect();
                page(call, "security/alerts_v2", &ALERT_FIELDS, items, 100)
            }
        },
        ("POST", ["incidents", id, "comments"]) => match find_incident(world, state, id) {
            None => missing(id),
            Some(number) => {
                let answer = comment(call, state.incidents.entry(number).or_default(), world.clock.now());
                if answer.status == 200 {
                    state.marks.stray("xdr.comment_incident");
                }
                answer
            }
        },
        _ => return None,
    })
}

pub(super) fn missing(id: &str) -> Answer {
    fail(404, "NotFound", &format!("Resource '{id}' does not exist"))
}

pub(super) fn fail(status: u16, code: &str, message: &str) -> Answer {
    let inner = json!({"date": "2026-11-20T07:15:00", "request-id": TENANT, "client-request-id": TENANT});
    Answer::new(status, json!({"error": {"code": code, "message": message, "innerError": inner}}))
}

pub(super) fn entity(context: &str, mut body: Json) -> Answer {
    if let Json::Object(members) = &mut body {
        members.insert("@odata.context".into(), json!(format!("{CONTEXT}{context}")));
    }
    Answer::ok(body)
}

/// Filters and cuts a list; what is left is behind `@odata.nextLink`, whose `$skiptoken` is the number of items before it.
pub(super) fn page(call: &Call, context: &str, fields: &[&str], mut items: Vec<Json>, size: usize) -> Answer {
    let read = || -> Result<(usize, usize), String> {
        let top = call.number("$top")?.unwrap_or(size);
        if top == 0 || top > 2000 {
            return Err(format!("Invalid page size specified: '{top}'"));
        }
        Ok((top, call.number("$skiptoken")?.or(call.number("$skip")?).unwrap_or(0)))
    };
    let (top, skip) = match read() {
        Ok(bounds) => bounds,
        Err(message) => return fail(400, "BadRequest", &message),
    };
    if let Some(filter) = call.param("$filter") {
        match Filter::parse(filter, fields) {
            Ok(filter) => items.retain(|item| filter.matches(item)),
            Err(message) => return fail(400, "BadRequest", &message),
        }
    }
    odata::order(&mut items, call.param("$orderby"));
    let total = items.len();
    let value: Vec<Json> =
        items.into_iter().skip(skip).take(top).map(|item| odata::select(item, call.param("$select"))).collect();
    let end = skip.saturating_add(value.len());
    let mut body = json!({"@odata.context": format!("{CONTEXT}{context}"), "value": value});
    if let Json::Object(members) = &mut body {
        if call.param("$count") == Some("true") && skip == 0 {
            members.insert("@odata.count".into(), json!(total));
        }
        if end < total {
            members.insert("@odata.nextLink".into(), json!(next_link(call, end)));
        }
    }
    Answer::ok(body)
}

fn next_link(call: &Call, end: usize) -> String {
    link_with(call, "$skiptoken", end)
}

/// The address of a page, with what is before it in a parameter of this name.
pub(super) fn link_with(call: &Call, name: &str, end: usize) -> String {
    let mut link = format!("{}?", call.url);
    for (key, value) in call.query.iter().filter(|(key, _)| key != "$skip" && key != name) {
        link.push_str(&format!("{}={}&", encode(key), encode(value)));
    }
    link.push_str(&format!("{name}={end}"));
    link
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"$-_.:,".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn find_alert(world: &World, state: &State, id: &str) -> Option<usize> {
    let index = *world.alert_ids.get(id)?;
    (index < state.born.len() && world.plan.alerts.get(index)?.graph_id == id).then_some(index)
}

fn alert(world: &World, state: &State, index: usize) -> Answer {
    entity("security/alerts_v2/$entity", alert_json(world, state, index))
}

/// The words of Endpoint as this service spells them.
fn camel(word: &str) -> String {
    match word {
        "UnSpecified" => return "unknown".to_owned(),
        "ConfirmedUserActivity" => return "confirmedActivity".to_owned(),
        "CompromisedUser" => return "compromisedAccount".to_owned(),
        "Clean" => return "notMalicious".to_owned(),
        "InsufficientData" => return "notEnoughDataToValidate".to_owned(),
        _ => {}
    }
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + chars.as_str())
}

fn pascal(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

const STATUSES: [&str; 3] = ["new", "inProgress", "resolved"];
const INCIDENT_STATUSES: [&str; 3] = ["active", "inProgress", "resolved"];
const CLASSIFICATIONS: [&str; 4] = ["unknown", "falsePositive", "truePositive", "informationalExpectedActivity"];
const DETERMINATIONS: [&str; 17] = [
    "unknown",
    "apt",
    "malware",
    "securityPersonnel",
    "securityTesting",
    "unwantedSoftware",
    "other",
    "multiStagedAttack",
    "compromisedAccount",
    "phishing",
    "maliciousUserActivity",
    "notMalicious",
    "notEnoughDataToValidate",
    "confirmedActivity",
    "confirmedUserActivity",
    "lineOfBusinessApplication",
    "compromisedUser",
];

/// Applies a PATCH, or says why the service would refuse it.
fn update(call: &Call, handling: &mut Handling, statuses: &[&str], tags: bool, now: Timestamp) -> Result<(), Answer> {
    let refuse = |message: String| fail(400, "BadRequest", &message);
    let members = call.object().map_err(refuse)?;
    if members.is_empty() {
        return Err(refuse("there is nothing to update".into()));
    }
    for (key, value) in &members {
        let allowed: &[&str] = match key.as_str() {
            "status" => statuses,
            "classification" => &CLASSIFICATIONS,
            "determination" => &DETERMINATIONS,
            "assignedTo" => &[],
            "customTags" if tags && value.is_array() => continue,
            _ => return Err(refuse(format!("the property '{key}' can't be set"))),
        };
        let Some(text) = value.as_str() else { return Err(refuse(format!("'{key}' is no text"))) };
        if !allowed.is_empty() && !allowed.contains(&text) {
            return Err(refuse(format!("'{text}' is not a value of '{key}'")));
        }
    }
    let text = |key: &str| members.get(key).and_then(Json::as_str);
    handling.status = text("status").map(pascal).or(handling.status.take());
    handling.classification = text("classification").map(pascal).or(handling.classification.take());
    handling.determination = text("determination").map(pascal).or(handling.determination.take());
    handling.assigned = text("assignedTo").map(str::to_owned).or(handling.assigned.take());
    if let Some(tags) = members.get("customTags").and_then(Json::as_array) {
        handling.tags = tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect();
    }
    handling.updated = Some(now);
    Ok(())
}

fn update_alert(world: &World, state: &mut State, call: &Call, index: usize) -> Answer {
    let now = world.clock.now();
    let Some(slot) = state.alerts.get_mut(index) else { return missing("") };
    if let Err(refusal) = update(call, &mut slot.handling, &STATUSES, false, now) {
        return refusal;
    }
    state.marks.alert(index, "xdr.update_alert");
    alert(world, state, index)
}

/// Appends a comment and answers all of them; the call is not idempotent.
/// All of them, or none.
fn move_alerts(world: &World, state: &mut State, call: &Call) -> Answer {
    let body = call.object().unwrap_or_default();
    let incident = body.get("incidentId").and_then(Json::as_str).unwrap_or("");
    let Some(number) = find_incident(world, state, incident) else { return missing(incident) };
    let ids: Vec<&str> =
        body.get("alertIds").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
    let found: Option<Vec<usize>> = ids.iter().map(|id| find_alert(world, state, id)).collect();
    let Some(found) = found.filter(|found| !found.is_empty()) else { return missing("alertIds") };
    let now = world.clock.now();
    for index in found {
        let Some(slot) = state.alerts.get_mut(index) else { continue };
        slot.handling.incident = Some(number);
        slot.handling.updated = Some(now);
        if let Some(text) = body.get("alertComment").and_then(Json::as_str) {
            slot.handling.comments.push((text.to_owned(), now));
        }
        state.marks.alert(index, "xdr.move_alerts");
    }
    Answer::ok(json!({"incidentId": number.to_string()}))
}

fn comment(call: &Call, handling: &mut Handling, now: Timestamp) -> Answer {
    let body = call.object().unwrap_or_default();
    let Some(text) = body.get("comment").and_then(Json::as_str).filter(|text| !text.is_empty()) else {
        return fail(400, "BadRequest", "comment is required");
    };
    let kind = body.get("@odata.type").and_then(Json::as_str).unwrap_or("");
    if kind.trim_start_matches('#') != "microsoft.graph.security.alertComment" {
        return fail(400, "BadRequest", "@odata.type must be microsoft.graph.security.alertComment");
    }
    handling.comments.push((text.to_owned(), now));
    handling.updated = Some(now);
    Answer::ok(
        json!({"@odata.context": format!("{CONTEXT}Collection(security.alertComment)"), "value": comments(handling)}),
    )
}

fn comments(handling: &Handling) -> Vec<Json> {
    let one = |(text, at): &(String, Timestamp)| json!({"comment": text, "createdByDisplayName": "API App: watchfloor", "createdDateTime": at.to_string()});
    handling.comments.iter().map(one).collect()
}

fn hunt(world: &World, state: &State, call: &Call) -> Answer {
    let body = call.object().unwrap_or_default();
    let text = |a: &str, b: &str| body.get(a).or(body.get(b)).and_then(Json::as_str).unwrap_or("").to_owned();
    let query = text("Query", "query");
    if query.trim().is_empty() {
        return fail(400, "BadRequest", "Query is required");
    }
    let (columns, rows) = scenario::hunt(world, state, &query);
    let schema: Vec<Json> = columns.iter().map(|(name, ty)| json!({"name": name, "type": ty})).collect();
    entity("microsoft.graph.security.huntingQueryResults", json!({"schema": schema, "results": rows}))
}

/// `serviceSource`, `detectionSource` and `productName` of an alert.
fn product(source: &Source) -> (&'static str, &'static str, &'static str) {
    match source {
        Source::Endpoint { .. } => {
            ("microsoftDefenderForEndpoint", "microsoftDefenderForEndpoint", "Microsoft Defender for Endpoint")
        }
        Source::CloudApps { .. } => {
            ("microsoftDefenderForCloudApps", "cloudAppSecurity", "Microsoft Defender for Cloud Apps")
        }
        Source::Office { .. } => {
            ("microsoftDefenderForOffice365", "microsoftDefenderForOffice365", "Microsoft Defender for Office 365")
        }
        Source::Identity { .. } => {
            ("azureAdIdentityProtection", "azureAdIdentityProtection", "Microsoft Entra ID Protection")
        }
    }
}

fn alert_json(world: &World, state: &State, index: usize) -> Json {
    let found = (world.plan.alerts.get(index), state.born.get(index), state.alerts.get(index));
    let (Some(alert), Some(born), Some(status)) = found else { return Json::Null };
    let handling = &status.handling;
    let updated = handling.updated.unwrap_or(*born);
    let before = |minutes| born.checked_sub(SignedDuration::from_mins(minutes)).unwrap_or(*born).to_string();
    let closed = status.resolution > 0;
    let state_word = handling.status.as_deref().map_or(if closed { "resolved".into() } else { "new".into() }, camel);
    let word = |word: &Option<String>| word.as_deref().map_or_else(|| "unknown".to_owned(), camel);
    let mut members = Map::new();
    let mut put = |key: &str, value: Json| members.insert(key.to_owned(), value);
    put("@odata.type", json!("#microsoft.graph.security.alert"));
    put("id", json!(alert.graph_id));
    put("providerAlertId", json!(alert.id));
    let incident = handling.incident.unwrap_or(alert.incident);
    put("incidentId", json!(incident.to_string()));
    put("status", json!(state_word));
    put("severity", json!(camel(alert.severity)));
    put("classification", json!(word(&handling.classification)));
    put("determination", json!(word(&handling.determination)));
    let (source, detection, product) = product(&alert.source);
    put("serviceSource", json!(source));
    put("detectionSource", json!(detection));
    put("productName", json!(product));
    put("detectorId", json!(alert.detector()));
    put("tenantId", json!(TENANT));
    put("title", json!(alert.title));
    put("description", json!(format!("{} (alert {}).", alert.title, alert.id)));
    put("recommendedActions", json!("1. Look at the evidence.\n2. Ask the user whether it was them."));
    put("category", json!(alert.category));
    put("assignedTo", json!(handling.assigned));
    put("alertWebUrl", json!(format!("https://security.microsoft.com/alerts/{}?tid={TENANT}", alert.graph_id)));
    put("incidentWebUrl", json!(format!("https://security.microsoft.com/incidents/{incident}?tid={TENANT}")));
    for key in ["actorDisplayName", "threatDisplayName", "threatFamilyName", "alertPolicyId"] {
        put(key, Json::Null);
    }
    put(
        "mitreTechniques",
        json!([match alert.source {
            Source::Endpoint { .. } => "T1059.001",
            Source::Office { .. } => "T1566",
            _ => "T1078",
        }]),
    );
    put("createdDateTime", json!(born.to_string()));
    put("lastUpdateDateTime", json!(updated.to_string()));
    put("resolvedDateTime", json!((state_word == "resolved").then(|| updated.to_string())));
    put("firstActivityDateTime", json!(before(90)));
    put("lastActivityDateTime", json!(before(1)));
    put("comments", json!(comments(handling)));
    put("systemTags", json!([]));
    put("evidence", Json::Array(graph_users::evidence(world, alert, &born.to_string())));
    Json::Object(members)
}

/// Visible alerts of an incident.
fn members_of(world: &World, state: &State, number: u64) -> Vec<usize> {
    let moved = |index: usize| state.alerts.get(index).and_then(|it| it.handling.incident);
    let of = |index: &usize| {
        world.plan.alerts.get(*index).is_some_and(|alert| moved(*index).unwrap_or(alert.incident) == number)
    };
    (0..state.born.len()).filter(of).collect()
}

fn find_incident(world: &World, state: &State, id: &str) -> Option<u64> {
    let number = id.parse().ok()?;
    (!members_of(world, state, number).is_empty()).then_some(number)
}

fn list_incidents(world: &World, state: &State, call: &Call) -> Answer {
    let mut numbers: Vec<u64> =
        world.plan.alerts.iter().take(state.born.len()).rev().map(|alert| alert.incident).collect();
    let mut seen = std::collections::BTreeSet::new();
    numbers.retain(|number| seen.insert(*number));
    let items = numbers.into_iter().map(|number| incident_json(world, state, call, number)).collect();
    let fields = [
        "assignedTo",
        "classification",
        "createdDateTime",
        "determination",
        "lastUpdateDateTime",
        "severity",
        "status",
    ];
    page(call, "security/incidents", &fields, items, 50)
}

fn incident(world: &World, state: &State, call: &Call, number: u64) -> Answer {
    entity("security/incidents/$entity", incident_json(world, state, call, number))
}

fn update_incident(world: &World, state: &mut State, call: &Call, number: u64) -> Answer {
    let now = world.clock.now();
    if let Err(refusal) = update(call, state.incidents.entry(number).or_default(), &INCIDENT_STATUSES, true, now) {
        return refusal;
    }
    state.marks.stray("xdr.update_incident");
    incident(world, state, call, number)
}

fn incident_json(world: &World, state: &State, call: &Call, number: u64) -> Json {
    let alerts = members_of(world, state, number);
    let default = Handling::default();
    let handling = state.incidents.get(&number).unwrap_or(&default);
    let born = alerts.iter().filter_map(|index| state.born.get(*index)).min().copied().unwrap_or(world.plan.start);
    let updated = handling.updated.unwrap_or(born);
    let first = alerts.first().and_then(|index| world.plan.alerts.get(*index));
    let worst = ["High", "Medium", "Low", "Informational"].into_iter().find(|severity| {
        alerts.iter().any(|index| world.plan.alerts.get(*index).is_some_and(|alert| alert.severity == *severity))
    });
    let word = |word: &Option<String>, none: &str| word.as_deref().map_or_else(|| none.to_owned(), camel);
    let mut body = json!({
        "id": number.to_string(),
        "tenantId": TENANT,
        "status": word(&handling.status, "active"),
        "severity": worst.map_or_else(|| "unknown".to_owned(), camel),
        "classification": word(&handling.classification, "unknown"),
        "determination": word(&handling.determination, "unknown"),
        "assignedTo": handling.assigned,
        "createdDateTime": born.to_string(),
        "lastUpdateDateTime": updated.to_string(),
        "lastModifiedBy": "API App: watchfloor",
        "displayName": first.map(|alert| format!("{} ({} alerts)", alert.title, alerts.len())),
        "description": null,
        "incidentWebUrl": format!("https://security.microsoft.com/incidents/{number}?tid={TENANT}"),
        "redirectIncidentId": null,
        "customTags": handling.tags,
        "systemTags": [],
        "comments": comments(handling),
    });
    if call.param("$expand") == Some("alerts")
        && let Json::Object(members) = &mut body
    {
        let alerts = alerts.iter().map(|index| alert_json(world, state, *index)).collect();
        members.insert("alerts".into(), Json::Array(alerts));
    }
    body
}
