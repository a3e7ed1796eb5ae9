//! Machine actions: requested, listed, cancelled. The awkward part is what a second request does (a public issue of
//! the service's documentation, 5903, and its pages): it is answered with the open action or with a 400, by chance of
//! timing, and an isolation on top of an isolation waits and strikes after the release.

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::call::{Answer, Call};
use super::mde::{ACTION_FIELDS, entity, find_device, missing, page, time};
use super::seed::Seed;
use super::state::{MachineAction, State, World};

/// A verb of `/machines/{id}/…`: the type of its action, what the ledger calls it, its other required member and values.
struct Verb {
    kind: &'static str,
    mark: &'static str,
    scope: Option<(&'static str, bool, &'static [&'static str])>,
    /// A member of any value that is required too.
    also: Option<&'static str>,
}

fn verb(name: &str) -> Option<Verb> {
    let plain = |kind, mark| Verb { kind, mark, scope: None, also: None };
    Some(match name {
        "isolate" => Verb {
            kind: "Isolate",
            mark: "mde.isolate_machine",
            scope: Some(("IsolationType", false, &["Full", "Selective", "UnManagedDevice"])),
            also: None,
        },
        "unisolate" => plain("Unisolate", "mde.release_machine"),
        "runAntiVirusScan" => Verb {
            kind: "RunAntiVirusScan",
            mark: "mde.run_antivirus_scan",
            scope: Some(("ScanType", true, &["Quick", "Full"])),
            also: None,
        },
        "restrictCodeExecution" => plain("RestrictCodeExecution", "mde.restrict_code_execution"),
        "unrestrictCodeExecution" => plain("UnrestrictCodeExecution", "mde.unrestrict_code_execution"),
        "collectInvestigationPackage" => plain("CollectInvestigationPackage", "mde.collect_investigation_package"),
        "offboard" => plain("Offboard", "mde.offboard_machine"),
        "StopAndQuarantineFile" => {
            Verb { also: Some("Sha1"), ..plain("StopAndQuarantineFile", "mde.stop_and_quarantine_file") }
        }
        "runliveresponse" => Verb { also: Some("Commands"), ..plain("LiveResponse", "mde.run_live_response") },
        _ => return None,
    })
}

/// `POST /machines/{id}/{verb}`; `None` for a verb that has no handler.
pub(super) fn request(
    world: &World,
    state: &mut State,
    call: &Call,
    id: &str,
    name: &str,
    now: Timestamp,
) -> Option<Answer> {
    let verb = verb(name)?;
    let Some((device, _)) = find_device(world, id) else { return Some(missing("Machine", id)) };
    let (comment, scope, external) = match read_body(call, &verb) {
        Ok(body) => body,
        Err(refusal) => return Some(refusal),
    };
    if let Some(answer) = while_open(world, state, device, verb.kind, now) {
        return Some(answer);
    }
    let mut draw = Seed::new(world.plan.seed ^ state.actions.len() as u64, "machine action");
    let action = MachineAction {
        id: draw.guid(),
        kind: verb.kind,
        scope,
        comment,
        external,
        device,
        created: now,
        stuck: verb.kind == "Isolate" && state.isolated(device, world, now),
        cancelled: None,
    };
    state.marks.device(device, verb.mark);
    let body = action_json(world, state, &action, now, false);
    state.actions.push(action);
    // Offboarding is documented with another status than all others.
    let status = if verb.kind == "Offboard" { 200 } else { 201 };
    Some(Answer::new(status, entity("MachineActions/$entity", body)))
}

/// Comment, scope and external id of a request; the members' case matters.
fn read_body(call: &Call, verb: &Verb) -> Result<(String, Option<String>, Option<String>), Answer> {
    let members = call.object().map_err(|message| Answer::error(400, "InvalidRequestBody", message))?;
    let scope = verb.scope.map(|(name, ..)| name);
    for key in members.keys() {
        let known = [Some("Comment"), Some("ExternalId"), scope, verb.also];
        if !known.contains(&Some(key.as_str())) {
            return Err(Answer::error(400, "InvalidRequestBody", format!("the property '{key}' does not exist")));
        }
    }
    let text = |key: &str| members.get(key).and_then(Json::as_str).filter(|text| !text.trim().is_empty());
    let required = |key: &str| Answer::error(400, "MissingRequiredParameter", format!("{key} is required"));
    let comment = text("Comment").ok_or_else(|| required("Comment"))?.to_owned();
    let external = text("ExternalId").map(str::to_owned);
    if let Some(also) = verb.also.filter(|also| !members.contains_key(*also)) {
        return Err(required(also));
    }
    let Some((name, mandatory, values)) = verb.scope else { return Ok((comment, None, external)) };
    match text(name) {
        Some(value) if values.contains(&value) => Ok((comment, Some(value.to_owned()), external)),
        Some(value) => Err(Answer::error(400, "InvalidInput", format!("'{value}' is not a value of {name}"))),
        None if mandatory => Err(required(name)),
        None => Ok((comment, values.first().map(|value| (*value).to_owned()), external)),
    }
}

/// What a second request of the same type gets while the first is open.
fn while_open(world: &World, state: &mut State, device: usize, kind: &'static str, now: Timestamp) -> Option<Answer> {
    let open = state.actions.iter().rev().find(|action| {
        action.device == device
            && action.kind == kind
            && matches!(state.status(action, world, now), "Pending" | "InProgress")
    })?;
    let body = action_json(world, state, open, now, false);
    let repeats = state.repeats.entry((device, kind)).or_default();
    *repeats += 1;
    Some(if *repeats % 2 == 1 {
        Answer::new(201, entity("MachineActions/$entity", body))
    } else {
        Answer::error(400, "ActiveRequestAlreadyExists", "Action is already in progress")
    })
}

pub(super) fn list(world: &World, state: &State, call: &Call, now: Timestamp) -> Answer {
    let items = state.actions.iter().rev().map(|action| action_json(world, state, action, now, true)).collect();
    page(call, "MachineActions", &ACTION_FIELDS, items)
}

pub(super) fn get(world: &World, state: &State, id: &str, now: Timestamp) -> Answer {
    match state.actions.iter().find(|action| action.id == id) {
        Some(action) => Answer::ok(entity("MachineActions/$entity", action_json(world, state, action, now, false))),
        None => missing("MachineAction", id),
    }
}

pub(super) fn cancel(world: &World, state: &mut State, call: &Call, id: &str, now: Timestamp) -> Answer {
    let comment = call.object().is_ok_and(|members| members.get("Comment").is_some_and(Json::is_string));
    if !comment {
        return Answer::error(400, "MissingRequiredParameter", "Comment is required");
    }
    let Some(at) = state.actions.iter().position(|action| action.id == id) else {
        return missing("MachineAction", id);
    };
    let open = state
        .actions
        .get(at)
        .is_some_and(|action| matches!(state.status(action, world, now), "Pending" | "InProgress"));
    if !open {
        return Answer::error(400, "BadRequest", "the action has ended");
    }
    if let Some(action) = state.actions.get_mut(at) {
        action.cancelled = Some(now);
    }
    get(world, state, id, now)
}

/// `{"machine": "…", "status": "…"}`: how what is asked of this device ends from now on.
pub(super) fn ends(world: &World, call: &Call) -> Result<(), String> {
    const WORDS: [&str; 4] = ["Succeeded", "Failed", "TimeOut", "Pending"];
    let body = call.object()?;
    let text = |key: &str| body.get(key).and_then(Json::as_str).unwrap_or("");
    let (device, _) = find_device(world, text("machine")).ok_or("machine: there is no such device")?;
    let word = WORDS.into_iter().find(|word| *word == text("status"));
    let word = word.ok_or_else(|| format!("status: one of {}", WORDS.join(", ")))?;
    world.state().ends.insert(device, word);
    Ok(())
}

/// Lists print `lastUpdateTimeUtc`, single answers `lastUpdateDateTimeUtc`.
fn action_json(world: &World, state: &State, action: &MachineAction, now: Timestamp, listed: bool) -> Json {
    let device = world.plan.devices.get(action.device);
    let status = state.status(action, world, now);
    let ended = action.created.checked_add(world.settings.action_delay).unwrap_or(action.created);
    let updated = if status == "Succeeded" { ended } else { action.created };
    let mut body = json!({
        "id": action.id,
        "type": action.kind,
        "title": null,
        "scope": action.scope,
        "requestor": "watchfloor",
        "requestSource": "PublicApi",
        "externalId": action.external,
        "requestorComment": action.comment,
        "cancellationRequestor": action.cancelled.map(|_| "watchfloor"),
        "cancellationComment": null,
        "cancellationDateTimeUtc": action.cancelled.map(time),
        "status": status,
        "machineId": device.map(|device| device.id.as_str()),
        "computerDnsName": device.map(|device| device.name.as_str()),
        "creationDateTimeUtc": time(action.created),
        "errorHResult": 0,
        "relatedFileInfo": null,
        "commands": [],
    });
    if let Json::Object(members) = &mut body {
        let key = if listed { "lastUpdateTimeUtc" } else { "lastUpdateDateTimeUtc" };
        members.insert(key.into(), json!(time(updated)));
    }
    body
}
