//! Defender for Endpoint: indicators. Setting one that is there with the same value and type updates it.

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use super::call::{Answer, Call};
use super::mde::{entity, missing, page, time};
use super::state::State;

const FIELDS: [&str; 12] = [
    "application",
    "createdByDisplayName",
    "expirationTime",
    "generateAlert",
    "title",
    "rbacGroupNames",
    "rbacGroupIds",
    "indicatorValue",
    "indicatorType",
    "creationTimeDateTimeUtc",
    "createdBy",
    "severity",
];
const TYPES: [&str; 7] =
    ["FileSha1", "FileSha256", "FileMd5", "CertificateThumbprint", "IpAddress", "DomainName", "Url"];
const ACTIONS: [&str; 7] = ["Warn", "Block", "Audit", "Alert", "AlertAndBlock", "BlockAndRemediate", "Allowed"];

/// `None` where there is no handler for this route.
pub(super) fn answer(state: &mut State, call: &Call, path: &[&str], now: Timestamp) -> Option<Answer> {
    let body = || call.object().map_err(|why| Answer::error(400, "InvalidRequestBody", why));
    Some(match (call.method.as_str(), path) {
        ("GET", []) => {
            let fields: Vec<&str> = FIELDS.into_iter().chain(["action"]).collect();
            page(call, "Indicators", &fields, state.indicators.values().cloned().collect())
        }
        ("POST", []) => match body().and_then(|members| submit(state, &members, now)) {
            Ok(indicator) => Answer::ok(entity("Indicators/$entity", indicator)),
            Err(refusal) => refusal,
        },
        ("POST", ["import"]) => body().map_or_else(|refusal| refusal, |members| import(state, &members, now)),
        ("POST", ["BatchDelete"]) => body().map_or_else(|refusal| refusal, |members| delete_many(state, &members)),
        ("DELETE", [id]) => match state.indicators.remove(&id.parse().unwrap_or(0)) {
            Some(_) => {
                state.marks.stray("mde.delete_indicator");
                Answer::empty(204)
            }
            None => missing("Indicator", id),
        },
        _ => return None,
    })
}

fn submit(state: &mut State, members: &Map<String, Json>, now: Timestamp) -> Result<Json, Answer> {
    let text = |key: &str| members.get(key).and_then(Json::as_str).filter(|text| !text.is_empty());
    for key in ["indicatorValue", "indicatorType", "action", "title", "description"] {
        if text(key).is_none() {
            return Err(Answer::error(400, "MissingRequiredParameter", format!("{key} is required")));
        }
    }
    for (key, known) in [("indicatorType", TYPES), ("action", ACTIONS)] {
        if text(key).is_none_or(|word| !known.contains(&word)) {
            return Err(Answer::error(400, "InvalidInput", format!("{key} has no such value")));
        }
    }
    if text("action") == Some("Audit") && members.get("generateAlert") != Some(&Json::Bool(true)) {
        return Err(Answer::error(400, "InvalidInput", "generateAlert must be true with Audit"));
    }
    let same = |known: &Json| ["indicatorValue", "indicatorType"].iter().all(|key| known.get(key) == members.get(*key));
    let found = state.indicators.iter().find(|(_, known)| same(known)).map(|(id, _)| *id);
    let id = found.unwrap_or_else(|| state.indicators.last_key_value().map_or(995, |(id, _)| id + 1));
    let mut indicator = json!({
        "id": id.to_string(), "creationTimeDateTimeUtc": time(now), "lastUpdateTime": time(now), "createdBy": "watchfloor",
        "sourceType": "AadApp", "severity": "Informational", "generateAlert": false, "rbacGroupNames": [], "rbacGroupIds": [],
    });
    if let Json::Object(all) = &mut indicator {
        all.extend(members.clone());
    }
    state.indicators.insert(id, indicator.clone());
    state.marks.stray("mde.submit_indicator");
    Ok(indicator)
}

fn import(state: &mut State, members: &Map<String, Json>, now: Timestamp) -> Answer {
    let given = members.get("Indicators").and_then(Json::as_array).cloned().unwrap_or_default();
    if given.is_empty() || given.len() > 500 {
        return Answer::error(400, "MaximumBatchSizeExceeded", "Indicators wants 1 to 500 entries");
    }
    let one = |entry: Json| {
        let members = entry.as_object().cloned().unwrap_or_default();
        let value = members.get("indicatorValue").and_then(Json::as_str).unwrap_or("").to_owned();
        match submit(state, &members, now) {
            Ok(done) => json!({"id": done.get("id"), "indicator": value, "isFailed": false, "failureReason": null}),
            Err(refusal) => {
                let why = refusal.body.as_ref().and_then(|body| body.pointer("/error/message").cloned());
                json!({"id": null, "indicator": value, "isFailed": true, "failureReason": why})
            }
        }
    };
    let results: Vec<Json> = given.into_iter().map(one).collect();
    Answer::ok(entity("ImportIndicatorResult", json!({ "value": results })))
}

fn delete_many(state: &mut State, members: &Map<String, Json>) -> Answer {
    let given = members.get("IndicatorIds").and_then(Json::as_array).into_iter().flatten();
    let ids: Vec<u64> = given.filter_map(|id| id.as_str()?.parse().ok()).collect();
    if ids.is_empty() || ids.len() > 500 {
        return Answer::error(400, "InvalidInput", "IndicatorIds wants 1 to 500 numbers");
    }
    if let Some(stray) = ids.iter().find(|id| !state.indicators.contains_key(id)) {
        return missing("Indicator", &stray.to_string());
    }
    for id in ids {
        state.indicators.remove(&id);
        state.marks.stray("mde.delete_indicator");
    }
    Answer::empty(204)
}
