//! Defender for Endpoint: alerts, machines, machine actions, hunting. Facts: the API pages at learn.microsoft.com.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value as Json, json};

use super::call::{Answer, Call};
use super::odata::{self, Filter};
use super::scenario;
use super::state::{State, World};
use super::world::{Alert, Device, TENANT};

const CONTEXT: &str = "https://api.securitycenter.microsoft.com/api/$metadata#";

const ALERT_FIELDS: [&str; 12] = [
    "alertCreationTime",
    "lastUpdateTime",
    "incidentId",
    "investigationId",
    "InvestigationId",
    "id",
    "assignedTo",
    "detectionSource",
    "lastEventTime",
    "status",
    "severity",
    "category",
];
const MACHINE_FIELDS: [&str; 14] = [
    "computerDnsName",
    "id",
    "version",
    "deviceValue",
    "aadDeviceId",
    "machineTags",
    "lastSeen",
    "exposureLevel",
    "onboardingStatus",
    "lastIpAddress",
    "healthStatus",
    "osPlatform",
    "riskScore",
    "rbacGroupId",
];
pub(super) const ACTION_FIELDS: [&str; 6] = ["id", "status", "machineId", "type", "requestor", "creationDateTimeUtc"];

/// `None` where there is no handler for this route.
pub(super) fn answer(world: &World, state: &mut State, call: &Call, path: &[&str]) -> Option<Answer> {
    let now = world.clock.now();
    Some(match (call.method.as_str(), path) {
        ("GET", ["alerts"]) => list_alerts(world, state, call),
        ("POST", ["alerts", "batchUpdate"]) => batch_update(world, state, call, now),
        ("GET", ["alerts", id]) => match find_alert(world, state, id) {
            Some((index, _)) => Answer::ok(entity("Alerts/$entity", alert_json(world, state, index, true))),
            None => missing("Alert", id),
        },
        ("PATCH", ["alerts", id]) => match find_alert(world, state, id) {
            Some((index, _)) => update_alert(world, state, call, index, now),
            None => missing("Alert", id),
        },
        ("GET", ["alerts", id, "machine"]) => match find_alert(world, state, id) {
            Some((_, device)) => Answer::ok(entity("Machines/$entity", machine_json(world, state, device))),
            None => missing("Alert", id),
        },
        ("GET", ["machines"]) => list_machines(world, state, call),
        ("GET", ["machines", id])
            if !id.starts_with("findby") && !id.ends_with("Export") && !id.ends_with("ByMachine") =>
        {
            match find_device(world, id) {
                Some((_, device)) => Answer::ok(entity("Machines/$entity", machine_json(world, state, device))),
                None => missing("Machine", id),
            }
        }
        ("GET", ["machines", id, "alerts"]) => match find_device(world, id) {
            Some((_, device)) => machine_alerts(world, state, device),
            None => missing("Machine", id),
        },
        (_, ["libraryfiles", ..]) => return super::library::answer(world, state, call, path),
        (_, ["indicators", rest @ ..]) => return super::indicators::answer(state, call, rest, now),
        ("POST", ["machines", id, verb]) => {
            return super::machine_action::request(world, state, call, id, verb, now)
                .or_else(|| super::mde_devices::answer(world, state, call, path));
        }
        ("GET", ["machineactions"]) => super::machine_action::list(world, state, call, now),
        ("GET", ["machineactions", id]) => super::machine_action::get(world, state, id, now),
        ("POST", ["machineactions", id, "cancel"]) => super::machine_action::cancel(world, state, call, id, now),
        ("POST", ["advancedqueries", "run"]) => hunt(world, state, call),
        _ => return super::mde_devices::answer(world, state, call, path),
    })
}

pub(super) fn missing(what: &str, id: &str) -> Answer {
    Answer::error(404, "ResourceNotFound", format!("{what} {id} was not found"))
}

pub(super) fn entity(context: &str, mut body: Json) -> Json {
    if let Json::Object(members) = &mut body {
        members.insert("@odata.context".into(), json!(format!("{CONTEXT}{context}")));
    }
    body
}

/// Filters, sorts and cuts a list as this service does: `$top` of at most 10,000 and no next link.
pub(super) fn page(call: &Call, context: &str, fields: &[&str], mut items: Vec<Json>) -> Answer {
    let bounds = || -> Result<(usize, usize), String> {
        let top = call.number("$top")?.unwrap_or(10_000);
        if top > 10_000 {
            return Err(format!("The limit of '10000' for Top query has been exceeded: {top}"));
        }
        Ok((top, call.number("$skip")?.unwrap_or(0)))
    };
    let (top, skip) = match bounds() {
        Ok(bounds) => bounds,
        Err(message) => return Answer::error(400, "ODataError", message),
    };
    if let Some(filter) = call.param("$filter") {
        match Filter::parse(filter, fields) {
            Ok(filter) => items.retain(|item| filter.matches(item)),
            Err(message) => return Answer::error(400, "ODataError", message),
        }
    }
    odata::order(&mut items, call.param("$orderby"));
    let value: Vec<Json> = items.into_iter().skip(skip).take(top).collect();
    Answer::ok(json!({"@odata.context": format!("{CONTEXT}{context}"), "value": value}))
}

fn list_alerts(world: &World, state: &State, call: &Call) -> Answer {
    let evidence = match call.param("$expand") {
        None => false,
        Some("evidence") => true,
        Some(other) => return Answer::error(400, "ODataError", format!("'{other}' can't be expanded")),
    };
    // Newest first: an alert that arrives between two pages shifts the second one.
    let items = (0..state.born.len())
        .rev()
        .filter(|index| world.plan.alerts.get(*index).is_some_and(|alert| world.plan.device_of(alert).is_some()))
        .map(|index| alert_json(world, state, index, evidence))
        .collect();
    page(call, "Alerts", &ALERT_FIELDS, items)
}

fn list_machines(world: &World, state: &State, call: &Call) -> Answer {
    if world.plan.devices.is_empty() {
        return missing("Machines", "recent");
    }
    let items = world.plan.devices.iter().map(|device| machine_json(world, state, device)).collect();
    page(call, "Machines", &MACHINE_FIELDS, items)
}

fn machine_alerts(world: &World, state: &State, device: &Device) -> Answer {
    let of_device = |index: &usize| {
        let alert = world.plan.alerts.get(*index);
        alert.and_then(|alert| world.plan.device_of(alert)).is_some_and(|found| found.id == device.id)
    };
    let items: Vec<Json> =
        (0..state.born.len()).filter(of_device).map(|index| alert_json(world, state, index, false)).collect();
    Answer::ok(json!({"@odata.context": format!("{CONTEXT}Alerts"), "value": items}))
}

/// A visible alert of this product by its id.
pub(super) fn find_alert<'w>(world: &'w World, state: &State, id: &str) -> Option<(usize, &'w Device)> {
    let index = *world.alert_ids.get(id)?;
    let alert = world.plan.alerts.get(index).filter(|alert| index < state.born.len() && alert.id == id)?;
    Some((index, world.plan.device_of(alert)?))
}

pub(super) fn find_device<'w>(world: &'w World, id: &str) -> Option<(usize, &'w Device)> {
    let index = *world.device_ids.get(id)?;
    Some((index, world.plan.devices.get(index)?))
}

/// The members of an update and the values that the service takes for them. Their case matters here.
fn check_update(members: &serde_json::Map<String, Json>, also: &[&str]) -> Result<(), Answer> {
    let refuse = |message: String| Err(Answer::error(400, "InvalidRequestBody", message));
    for (key, value) in members {
        let allowed: &[&str] = match key.as_str() {
            "status" => &["New", "InProgress", "Resolved"],
            "classification" => &["TruePositive", "InformationalExpectedActivity", "FalsePositive"],
            "determination" => &DETERMINATIONS,
            "assignedTo" | "comment" => &[],
            key if also.contains(&key) => continue,
            _ => return refuse(format!("the property '{key}' does not exist")),
        };
        let Some(text) = value.as_str() else { return refuse(format!("'{key}' is no text")) };
        if !allowed.is_empty() && !allowed.contains(&text) {
            return Err(Answer::error(400, "InvalidInput", format!("'{text}' is not a value of '{key}'")));
        }
    }
    Ok(())
}

const DETERMINATIONS: [&str; 15] = [
    "MultiStagedAttack",
    "MaliciousUserActivity",
    "CompromisedUser",
    "Malware",
    "Phishing",
    "UnwantedSoftware",
    "Other",
    "SecurityTesting",
    "LineOfBusinessApplication",
    "ConfirmedActivity",
    "ConfirmedUserActivity",
    "NotMalicious",
    "Clean",
    "InsufficientData",
    "NotAvailable",
];

fn update_alert(world: &World, state: &mut State, call: &Call, index: usize, now: Timestamp) -> Answer {
    let members = match call.object() {
        Ok(members) if !members.is_empty() => members,
        Ok(_) => return Answer::error(400, "MissingRequiredParameter", "there is nothing to update"),
        Err(message) => return Answer::error(400, "InvalidRequestBody", message),
    };
    if let Err(refusal) = check_update(&members, &[]) {
        return refusal;
    }
    apply_update(state, index, &members, now);
    state.marks.alert(index, "mde.update_alert");
    Answer::ok(entity("Alerts/$entity", alert_json(world, state, index, true)))
}

fn apply_update(state: &mut State, index: usize, members: &serde_json::Map<String, Json>, now: Timestamp) {
    let text = |key: &str| members.get(key).and_then(Json::as_str).map(str::to_owned);
    let Some(alert) = state.alerts.get_mut(index) else { return };
    let handling = &mut alert.handling;
    handling.status = text("status").or(handling.status.take());
    handling.classification = text("classification").or(handling.classification.take());
    handling.determination = text("determination").or(handling.determination.take());
    handling.assigned = text("assignedTo").or(handling.assigned.take());
    // A comment is appended each time: the call is not idempotent.
    handling.comments.extend(text("comment").map(|comment| (comment, now)));
    handling.updated = Some(now);
}

fn batch_update(world: &World, state: &mut State, call: &Call, now: Timestamp) -> Answer {
    let members = match call.object() {
        Ok(members) => members,
        Err(message) => return Answer::error(400, "InvalidRequestBody", message),
    };
    if let Err(refusal) = check_update(&members, &["alertIds"]) {
        return refusal;
    }
    let Some(ids) = members.get("alertIds").and_then(Json::as_array).filter(|ids| !ids.is_empty()) else {
        return Answer::error(400, "MissingRequiredParameter", "alertIds is required");
    };
    let mut found = Vec::new();
    for id in ids {
        match id.as_str().and_then(|id| find_alert(world, state, id)) {
            Some((index, _)) => found.push(index),
            None => return missing("Alert", id.as_str().unwrap_or("")),
        }
    }
    for index in found {
        apply_update(state, index, &members, now);
        state.marks.alert(index, "mde.update_alert");
    }
    Answer::empty(200)
}

fn hunt(world: &World, state: &State, call: &Call) -> Answer {
    let query = call.object().ok().and_then(|members| Some(members.get("Query")?.as_str()?.to_owned()));
    let Some(query) = query.filter(|query| !query.trim().is_empty()) else {
        return Answer::error(400, "MissingRequiredParameter", "Query is required");
    };
    let (columns, rows) = scenario::hunt(world, state, &query);
    let schema: Vec<Json> = columns.iter().map(|(name, ty)| json!({"Name": name, "Type": ty})).collect();
    Answer::ok(json!({"Stats": {"ExecutionTime": 0.08}, "Schema": schema, "Results": rows}))
}

pub(super) fn alert_json(world: &World, state: &State, index: usize, evidence: bool) -> Json {
    let found = (world.plan.alerts.get(index), state.born.get(index), state.alerts.get(index));
    let (Some(alert), Some(born), Some(status)) = found else { return Json::Null };
    let Some(device) = world.plan.device_of(alert) else { return Json::Null };
    let user = world.plan.users.get(device.user);
    let upn = user.map_or("", |user| user.upn.as_str());
    let account = upn.split('@').next().unwrap_or("");
    let before = |minutes| born.checked_sub(SignedDuration::from_mins(minutes)).unwrap_or(*born);
    let handling = &status.handling;
    let updated = handling.updated.unwrap_or(*born);
    let resolved = (handling.status.as_deref() == Some("Resolved")).then(|| time(updated));
    let comments: Vec<Json> = handling
        .comments
        .iter()
        .map(|(text, at)| json!({"comment": text, "createdBy": "watchfloor", "createdTime": time(*at)}))
        .collect();
    let mut body = json!({
        "id": alert.id,
        "incidentId": handling.incident.unwrap_or(alert.incident),
        "investigationId": null,
        "assignedTo": handling.assigned,
        "severity": alert.severity,
        "status": handling.status.as_deref().unwrap_or("New"),
        "classification": handling.classification,
        "determination": handling.determination,
        "investigationState": "UnsupportedAlertType",
        "detectionSource": "WindowsDefenderAtp",
        "detectorId": alert.detector(),
        "category": alert.category,
        "threatFamilyName": null,
        "threatName": null,
        "title": alert.title,
        "description": format!("{} was seen on {}. Look at the process tree before you act.", alert.title, device.name),
        "alertCreationTime": time(*born),
        "firstEventTime": time(before(10)),
        "lastEventTime": time(before(1)),
        "lastUpdateTime": time(updated),
        "resolvedTime": resolved,
        "machineId": device.id,
        "computerDnsName": device.name,
        "rbacGroupName": "Workstations",
        "aadTenantId": TENANT,
        "mitreTechniques": ["T1059.001"],
        "relatedUser": {"userName": account, "domainName": "CONTOSO"},
        "comments": comments,
        "evidence": [],
    });
    if evidence && let Some(slot) = body.get_mut("evidence") {
        *slot = evidence_json(alert, account, upn, user.map(|user| user.id.as_str()), time(before(1)));
    }
    body
}

/// One flat shape for every kind of evidence; what a kind does not have is null.
fn evidence_json(alert: &Alert, account: &str, upn: &str, aad: Option<&str>, at: String) -> Json {
    let blank = json!({
        "entityType": null, "evidenceCreationTime": at, "sha1": null, "sha256": null, "fileName": null, "filePath": null,
        "processId": null, "processCommandLine": null, "processCreationTime": null, "parentProcessId": null,
        "parentProcessCreationTime": null, "parentProcessFileName": null, "parentProcessFilePath": null, "ipAddress": null,
        "url": null, "registryKey": null, "registryHive": null, "registryValueType": null, "registryValue": null,
        "accountName": null, "domainName": null, "userSid": null, "aadUserId": null, "userPrincipalName": null,
        "detectionStatus": null
    });
    let make = |members: Json| {
        let mut evidence = blank.clone();
        if let (Json::Object(all), Json::Object(own)) = (&mut evidence, members) {
            all.extend(own);
        }
        evidence
    };
    let sha1: String =
        alert.id.bytes().map(|byte| format!("{byte:02x}")).collect::<String>().chars().take(40).collect();
    json!([
        make(json!({"entityType": "User", "accountName": account, "domainName": "CONTOSO", "aadUserId": aad,
            "userSid": "S-1-5-21-1004336348-1177238915-682003330-1105", "userPrincipalName": upn})),
        make(json!({"entityType": "Process", "sha1": sha1, "fileName": "powershell.exe", "processId": 4780,
            "filePath": "C:\\Windows\\System32\\WindowsPowerShell\\v1.0", "processCommandLine": "powershell.exe -nop -w hidden -enc SQBFAFgA",
            "parentProcessId": 2112, "parentProcessFileName": "winword.exe", "detectionStatus": "Detected"})),
        make(json!({"entityType": "Ip", "ipAddress": "203.0.113.77"})),
    ])
}

pub(super) fn machine_json(world: &World, state: &State, device: &Device) -> Json {
    let index = world.device_ids.get(&device.id);
    let tags = index.and_then(|index| state.tags.get(index)).map_or_else(|| json!(device.tags), |tags| json!(tags));
    let value = index.and_then(|index| state.values.get(index)).map_or(device.value, String::as_str);
    let seen = if device.offline { SignedDuration::from_hours(-24 * 9) } else { SignedDuration::from_mins(-4) };
    let at = |offset| time(world.plan.start.checked_add(offset).unwrap_or(world.plan.start));
    json!({
        "id": device.id,
        "computerDnsName": device.name,
        "firstSeen": at(SignedDuration::from_hours(-24 * 200)),
        "lastSeen": at(seen),
        "osPlatform": device.os,
        "onboardingStatus": "onboarded",
        "osProcessor": "x64",
        "osArchitecture": "64-bit",
        "version": "23H2",
        "osBuild": 22631,
        "lastIpAddress": device.ip,
        "lastExternalIpAddress": "198.51.100.14",
        "healthStatus": if device.offline { "Inactive" } else { "Active" },
        "deviceValue": value,
        "rbacGroupId": 140,
        "rbacGroupName": "Workstations",
        "riskScore": device.risk,
        "exposureLevel": "Medium",
        "aadDeviceId": null,
        "machineTags": tags,
        "ipAddresses": [{"ipAddress": device.ip, "macAddress": "02005E100001", "type": "Ethernet", "operationalStatus": "Up"}],
    })
}

/// UTC with seven digits, as this service prints it.
pub(super) fn time(at: Timestamp) -> String {
    format!("{at:.7}")
}
