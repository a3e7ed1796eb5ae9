//! Defender for Cloud Apps: alerts with numeric words, closed by filter. Facts: its API pages at learn.microsoft.com.

use serde_json::{Map, Value as Json, json};

use super::call::{Answer, Call};
use super::state::{State, World};
use super::world::{Alert, Source};

/// `None` where there is no handler for this route.
pub(super) fn answer(world: &World, state: &mut State, call: &Call, path: &[&str]) -> Option<Answer> {
    Some(match (call.method.as_str(), path) {
        ("GET" | "POST", ["alerts"]) => list(world, state, call),
        ("POST", ["alerts", "close_benign"]) => {
            close(world, state, call, "closed_benign", "cloud_apps.close_benign", 4, &[2, 4, 5, 6])
        }
        ("POST", ["alerts", "close_false_positive"]) => {
            close(world, state, call, "closed_false_positive", "cloud_apps.close_false_positive", 3, &[0, 1, 3, 4])
        }
        ("POST", ["alerts", "close_true_positive"]) => {
            close(world, state, call, "closed_true_positive", "cloud_apps.close_true_positive", 5, &[])
        }
        ("GET", ["alerts", id]) => match find(world, state, id) {
            Some(index) => Answer::ok(alert_json(world, state, index)),
            None => missing(id),
        },
        ("POST", ["alerts", id, verb @ ("read" | "unread")]) => match find(world, state, id) {
            Some(index) => {
                let read = *verb == "read";
                state.alerts.get_mut(index).into_iter().for_each(|alert| alert.read = read);
                state.marks.alert(index, if read { "cloud_apps.mark_read" } else { "cloud_apps.mark_unread" });
                Answer::ok(json!({}))
            }
            None => missing(id),
        },
        _ => return None,
    })
}

fn missing(id: &str) -> Answer {
    Answer::new(404, json!({"detail": format!("Alert {id} was not found")}))
}

fn refuse(message: &str) -> Answer {
    Answer::new(400, json!({"detail": message}))
}

fn find(world: &World, state: &State, id: &str) -> Option<usize> {
    let index = *world.alert_ids.get(id)?;
    let alert = world.plan.alerts.get(index)?;
    (index < state.born.len() && alert.id == id && matches!(alert.source, Source::CloudApps { .. })).then_some(index)
}

fn body_of(call: &Call) -> Result<Map<String, Json>, Answer> {
    if call.body.is_empty() {
        return Ok(Map::new());
    }
    call.object().map_err(|message| refuse(&message))
}

fn list(world: &World, state: &State, call: &Call) -> Answer {
    let body = match body_of(call) {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let number = |key: &str, default: u64| match body.get(key) {
        None => Some(default),
        Some(value) => value.as_u64(),
    };
    let (Some(limit @ 1..=100), Some(skip)) = (number("limit", 100), number("skip", 0)) else {
        return refuse("limit is 1 to 100 and skip is a number");
    };
    let filters = body.get("filters").and_then(Json::as_object).cloned().unwrap_or_default();
    for (field, condition) in &filters {
        let known = [
            "date",
            "alertOpen",
            "severity",
            "resolutionStatus",
            "id",
            "read",
            "entity.ip",
            "entity.policy",
            "entity.service",
        ]
        .contains(&field.as_str());
        if !known || !condition.is_object() {
            return refuse(&format!("the filter on '{field}' is not understood"));
        }
    }
    let mut items: Vec<Json> = (0..state.born.len())
        .filter(|index| {
            world.plan.alerts.get(*index).is_some_and(|alert| matches!(alert.source, Source::CloudApps { .. }))
        })
        .map(|index| alert_json(world, state, index))
        .filter(|item| filters.iter().all(|(field, condition)| holds(item, field, condition)))
        .collect();
    items.sort_by_key(|item| item.get("timestamp").and_then(Json::as_i64));
    if body.get("sortDirection").and_then(Json::as_str) != Some("asc") {
        items.reverse();
    }
    let total = items.len();
    let page: Vec<Json> = items
        .into_iter()
        .skip(usize::try_from(skip).unwrap_or(usize::MAX))
        .take(usize::try_from(limit).unwrap_or(100))
        .collect();
    let more = usize::try_from(skip).unwrap_or(usize::MAX).saturating_add(page.len()) < total;
    Answer::ok(json!({"data": page, "hasNext": more, "max": 10_000, "total": total, "moreThanTotal": false}))
}

/// Operators are ANDed, the values of one are ORed.
fn holds(item: &Json, field: &str, condition: &Json) -> bool {
    if let Some(kind) = field.strip_prefix("entity.") {
        let kind = if kind == "policy" { "policyRule" } else { kind };
        let of = |entity: &&Json| entity.get("type").and_then(Json::as_str) == Some(kind);
        let ids: Vec<&Json> = item.get("entities").and_then(Json::as_array).into_iter().flatten().filter(of).collect();
        let wanted = condition.get("eq").and_then(Json::as_array);
        return wanted
            .is_some_and(|list| list.iter().any(|want| ids.iter().any(|entity| entity.get("id") == Some(want))));
    }
    let have = match field {
        "date" => item.get("timestamp").cloned(),
        "severity" => item.get("severityValue").cloned(),
        "resolutionStatus" => item.get("resolutionStatusValue").cloned(),
        "alertOpen" => item.get("resolutionStatusValue").map(|value| json!(*value == json!(0))),
        "read" => item.get("statusValue").map(|value| json!(*value == json!(1))),
        _ => item.get("_id").cloned(),
    };
    let Some(have) = have else { return false };
    condition.as_object().into_iter().flatten().all(|(op, want)| {
        let wanted = want.as_array().cloned().unwrap_or_else(|| vec![want.clone()]);
        let number = |json: &Json| json.as_f64().unwrap_or(f64::NAN);
        wanted.iter().any(|want| match op.as_str() {
            "eq" => have == *want,
            "neq" => have != *want,
            "gte" => number(&have) >= number(want),
            "lte" => number(&have) <= number(want),
            "gt" => number(&have) > number(want),
            "lt" => number(&have) < number(want),
            _ => false,
        })
    })
}

/// Closes what the filter names. An alert that is closed already is counted as not found: nothing is closed twice.
fn close(
    world: &World,
    state: &mut State,
    call: &Call,
    counter: &str,
    mark: &'static str,
    resolution: u8,
    reasons: &[u64],
) -> Answer {
    let body = match call.object() {
        Ok(body) => body,
        Err(message) => return refuse(&message),
    };
    let ids = body.get("filters").and_then(|filters| filters.pointer("/id/eq")).and_then(Json::as_array);
    let Some(ids) = ids.filter(|ids| !ids.is_empty() && ids.iter().all(Json::is_string)) else {
        return refuse("filters.id.eq must be a list of ids");
    };
    match body.get("reasonId") {
        None => {}
        Some(reason) if reason.as_u64().is_some_and(|reason| reasons.contains(&reason)) => {}
        Some(reason) => return refuse(&format!("reasonId {reason} is not valid here")),
    }
    let now = world.clock.now();
    let comment = body.get("comment").and_then(Json::as_str).map(str::to_owned);
    let (mut closed, mut lost) = (0, Vec::new());
    for id in ids.iter().filter_map(Json::as_str) {
        let Some(index) = find(world, state, id) else {
            lost.push(id);
            continue;
        };
        let Some(alert) = state.alerts.get_mut(index).filter(|alert| alert.resolution == 0) else {
            lost.push(id);
            continue;
        };
        alert.resolution = resolution;
        alert.handling.updated = Some(now);
        alert.handling.comments.extend(comment.clone().map(|text| (text, now)));
        state.marks.alert(index, mark);
        closed += 1;
    }
    let mut answer = Map::from_iter([(counter.to_owned(), json!(closed))]);
    if !lost.is_empty() {
        answer.insert("alertsNotFound".into(), json!(lost));
    }
    Answer::ok(Json::Object(answer))
}

fn alert_json(world: &World, state: &State, index: usize) -> Json {
    let found = (world.plan.alerts.get(index), state.born.get(index), state.alerts.get(index));
    let (Some(alert), Some(born), Some(status)) = found else { return Json::Null };
    let (user, policy) = match alert.source {
        Source::CloudApps { user, policy } => (world.plan.users.get(user), policy),
        _ => return Json::Null,
    };
    let name = user.map_or("", |user| user.name.as_str());
    let upn = user.map_or("", |user| user.upn.as_str());
    let handling = &status.handling;
    json!({
        "_id": alert.id,
        "contextId": format!("206e2965-6533-48a6-ba9e-{:012x}", index),
        "timestamp": born.as_millisecond(),
        "title": alert.title,
        "description": format!("{name} ({upn}) was active in two countries that no one travels between in the time."),
        "isMarkdown": false,
        "statusValue": u8::from(status.read),
        "severityValue": severity(alert),
        "resolutionStatusValue": status.resolution,
        "stories": [0],
        "evidence": [],
        "intent": [1],
        "isPreview": false,
        "audits": [],
        "threatScore": 34,
        "idValue": 15_795_401,
        "isSystemAlert": false,
        "comment": handling.comments.last().map_or("", |(text, _)| text.as_str()),
        "handledByUser": handling.updated.map(|_| "watchfloor@contoso.example"),
        "resolveTime": (status.resolution > 0).then_some(handling.updated).flatten().map(|at| at.to_string()),
        "URL": format!("https://contoso.us2.portal.cloudappsecurity.com/#/alerts/{}", alert.id),
        "entities": [
            {"type": "account", "id": user.map(|user| user.id.as_str()), "label": name, "entityRole": "Source",
             "entityType": 2, "inst": 0, "pa": upn},
            {"type": "ip", "id": "203.0.113.77", "label": "203.0.113.77", "entityRole": "Related"},
            {"type": "ip", "id": "198.51.100.14", "label": "198.51.100.14", "entityRole": "Related"},
            {"type": "service", "id": 11161, "label": "Microsoft 365"},
            {"type": "country", "id": "JP", "label": "JP"},
            {"type": "policyRule", "id": format!("5bfd18bfab73c36ba10d{:04x}", policy.len()), "label": policy,
             "policyType": "ANOMALY_DETECTION"},
        ],
    })
}

/// 0 low, 1 medium, 2 high, 3 informational.
fn severity(alert: &Alert) -> u8 {
    match alert.severity {
        "Low" => 0,
        "Medium" => 1,
        "High" => 2,
        _ => 3,
    }
}
