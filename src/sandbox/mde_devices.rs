//! Defender for Endpoint beyond alerts and machine actions: tags and values of devices, who logged on, what an alert, a
//! file, a domain, an address or an account is part of.

use serde_json::{Value as Json, json};

use super::call::{Answer, Call};
use super::mde::{alert_json, entity, find_alert, find_device, machine_json, missing, time};
use super::state::{State, World};

/// `None` where there is no handler for this route.
pub(super) fn answer(world: &World, state: &mut State, call: &Call, path: &[&str]) -> Option<Answer> {
    Some(match (call.method.as_str(), path) {
        ("GET", ["alerts", id, part @ ("domains" | "files" | "ips" | "user")]) => of_alert(world, state, id, part)?,
        ("POST", ["alerts", "createAlertByReference"]) => create_alert(world, state, call),
        ("GET", ["machines", "findbytag"]) => by_tag(world, state, call),
        ("GET", ["machines", by]) if by.starts_with("findbyip(") => by_ip(world, state, by),
        ("GET", ["machines", id, "logonusers"]) => logged_on(world, id),
        ("PATCH", ["machines", id]) => update(world, state, call, id),
        ("POST", ["machines", "AddOrRemoveTagForMultipleMachines"]) => tag_many(world, state, call),
        ("POST", ["machines", id, "tags"]) => tag(world, state, call, id),
        ("POST", ["machines", id, "setDeviceValue"]) => set_value(world, state, call, id),
        ("GET", [kind @ ("files" | "domains" | "ips" | "users"), id, rest @ ..]) => seen(world, state, kind, id, rest)?,
        _ => return None,
    })
}

fn list(what: &str, items: Vec<Json>) -> Answer {
    Answer::ok(entity(what, json!({ "value": items })))
}

fn device(world: &World, state: &State, index: usize) -> Json {
    world.plan.devices.get(index).map_or(Json::Null, |device| machine_json(world, state, device))
}

fn of_alert(world: &World, state: &State, id: &str, part: &str) -> Option<Answer> {
    let Some((index, device)) = find_alert(world, state, id) else { return Some(missing("Alert", id)) };
    let alert = alert_json(world, state, index, true);
    let evidence = alert.get("evidence").and_then(Json::as_array).cloned().unwrap_or_default();
    let texts = |key: &str| -> Vec<String> {
        evidence.iter().filter_map(|item| item.get(key)?.as_str().map(str::to_owned)).collect()
    };
    Some(match part {
        "domains" => list("Domains", vec![]),
        "files" => list("Files", texts("sha1").iter().map(|sha1| file(sha1)).collect()),
        "ips" => list("Ips", texts("ipAddress").iter().map(|ip| json!({ "id": ip })).collect()),
        _ => Answer::ok(entity("Users/$entity", account(world, device.user)?)),
    })
}

/// The alert that is answered stands for the new one: the world's alerts are planned, so it is not listed later.
fn create_alert(world: &World, state: &mut State, call: &Call) -> Answer {
    let members = call.object().unwrap_or_default();
    let text = |key: &str| members.get(key).and_then(Json::as_str).filter(|text| !text.is_empty());
    let wanted =
        ["machineId", "severity", "title", "description", "recommendedAction", "eventTime", "reportId", "category"];
    if let Some(absent) = wanted.into_iter().find(|key| text(key).is_none()) {
        return Answer::error(400, "MissingRequiredParameter", format!("{absent} is required"));
    }
    let id = text("machineId").unwrap_or("");
    let Some((_, device)) = find_device(world, id) else { return missing("Machine", id) };
    let like = (0..state.born.len()).find(|index| {
        let alert = world.plan.alerts.get(*index);
        alert.and_then(|alert| world.plan.device_of(alert)).is_some_and(|of| of.id == device.id)
    });
    let like = like.or_else(|| {
        (0..state.born.len())
            .find(|index| world.plan.alerts.get(*index).is_some_and(|alert| world.plan.device_of(alert).is_some()))
    });
    let Some(index) = like else { return missing("Event", text("reportId").unwrap_or("")) };
    let mut body = alert_json(world, state, index, false);
    if let Json::Object(all) = &mut body {
        for key in ["title", "description", "severity", "category", "machineId"] {
            all.insert(key.into(), json!(text(key)));
        }
        all.insert("id".into(), json!(format!("da{}_{}", 638_990_000_000_000_000_u64, state.calls)));
        all.insert("computerDnsName".into(), json!(device.name));
    }
    state.marks.stray("mde.create_alert");
    Answer::ok(entity("Alerts/$entity", body))
}

fn file(sha1: &str) -> Json {
    json!({
        "sha1": sha1, "sha256": null, "md5": null, "fileType": "PortableExecutable", "filePublisher": "Contoso",
        "fileProductName": null, "signer": null, "issuer": null, "signerHash": null, "determinationType": "Unknown",
        "determinationValue": null, "globalPrevalence": 3, "globalFirstObserved": "2026-11-02T10:00:00Z",
        "globalLastObserved": "2026-11-19T10:00:00Z", "size": 22_139_496, "isPeFile": true, "isValidCertificate": null
    })
}

fn account(world: &World, user: usize) -> Option<Json> {
    let name = world.plan.users.get(user)?.upn.split('@').next().unwrap_or("").to_owned();
    let at =
        |hours| time(world.plan.start.checked_add(jiff::SignedDuration::from_hours(hours)).unwrap_or(world.plan.start));
    Some(json!({
        "id": format!("contoso\\{name}"), "accountName": name, "accountDomain": "contoso",
        "accountSid": "S-1-5-21-1004336348-1177238915-682003330-1105", "mostPrevalentMachineId": null,
        "leastPrevalentMachineId": null, "logonTypes": "Interactive", "firstSeen": at(-24 * 100), "lastSeen": at(-1),
        "logOnMachinesCount": 1, "isDomainAdmin": false, "isOnlyNetworkUser": null
    }))
}

fn by_tag(world: &World, state: &State, call: &Call) -> Answer {
    let Some(tag) = call.param("tag").filter(|tag| !tag.is_empty()) else {
        return Answer::error(400, "MissingRequiredParameter", "tag is required");
    };
    let begins = call.param("useStartsWithFilter") == Some("true");
    let fits = |json: &Json| {
        let tags = json.get("machineTags").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        tags.into_iter().any(|have| if begins { have.starts_with(tag) } else { have == tag })
    };
    let all = (0..world.plan.devices.len()).map(|index| device(world, state, index));
    list("Machines", all.filter(fits).collect())
}

fn by_ip(world: &World, state: &State, by: &str) -> Answer {
    let quoted = by.split('\'').nth(1).unwrap_or("");
    if quoted.parse::<std::net::IpAddr>().is_err() || !by.contains(",timestamp=") {
        return Answer::error(400, "InvalidIpAddress", format!("'{quoted}' is no address"));
    }
    let here = world.plan.devices.iter().filter(|device| device.ip == quoted);
    list("Machines", here.map(|device| machine_json(world, state, device)).collect())
}

fn logged_on(world: &World, id: &str) -> Answer {
    match find_device(world, id) {
        Some((_, device)) => list("Users", account(world, device.user).into_iter().collect()),
        None => missing("Machine", id),
    }
}

fn changed(world: &World, state: &mut State, index: usize, mark: &'static str) -> Answer {
    state.marks.device(index, mark);
    Answer::ok(entity("Machines/$entity", device(world, state, index)))
}

fn tags_of(world: &World, state: &State, index: usize) -> Vec<String> {
    let planned =
        || world.plan.devices.get(index).map(|device| device.tags.iter().map(|tag| (*tag).to_owned()).collect());
    state.tags.get(&index).cloned().or_else(planned).unwrap_or_default()
}

fn retag(world: &World, state: &mut State, index: usize, tag: &str, add: bool) {
    let mut tags = tags_of(world, state, index);
    tags.retain(|have| have != tag);
    if add {
        tags.push(tag.to_owned());
    }
    state.tags.insert(index, tags);
}

/// The tag and whether it is added; the members' case matters.
fn wanted(members: &serde_json::Map<String, Json>) -> Result<(String, bool), Answer> {
    let text = |key: &str| members.get(key).and_then(Json::as_str).filter(|text| !text.is_empty());
    let required = |key: &str| Answer::error(400, "MissingRequiredParameter", format!("{key} is required"));
    let tag = text("Value").ok_or_else(|| required("Value"))?;
    match text("Action") {
        Some("Add") => Ok((tag.to_owned(), true)),
        Some("Remove") => Ok((tag.to_owned(), false)),
        Some(other) => Err(Answer::error(400, "InvalidInput", format!("'{other}' is not a value of Action"))),
        None => Err(required("Action")),
    }
}

fn tag(world: &World, state: &mut State, call: &Call, id: &str) -> Answer {
    let Some((index, _)) = find_device(world, id) else { return missing("Machine", id) };
    match call.object().map_err(|why| Answer::error(400, "InvalidRequestBody", why)).and_then(|body| wanted(&body)) {
        Ok((tag, add)) => {
            retag(world, state, index, &tag, add);
            changed(world, state, index, if add { "mde.add_tag" } else { "mde.remove_tag" })
        }
        Err(refusal) => refusal,
    }
}

fn tag_many(world: &World, state: &mut State, call: &Call) -> Answer {
    let body = match call.object() {
        Ok(body) => body,
        Err(why) => return Answer::error(400, "InvalidRequestBody", why),
    };
    let ids: Vec<&str> =
        body.get("MachineIds").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
    if ids.is_empty() || ids.len() > 500 {
        return Answer::error(400, "InvalidInput", "MachineIds wants 1 to 500 devices");
    }
    let (tag, add) = match wanted(&body) {
        Ok(wanted) => wanted,
        Err(refusal) => return refusal,
    };
    let mut found = vec![];
    for id in ids {
        match find_device(world, id) {
            Some((index, _)) => found.push(index),
            None => return missing("Machine", id),
        }
    }
    for index in &found {
        retag(world, state, *index, &tag, add);
        state.marks.device(*index, "mde.tag_machines");
    }
    list("Machines", found.into_iter().map(|index| device(world, state, index)).collect())
}

const VALUES: [&str; 3] = ["Normal", "Low", "High"];

fn set_value(world: &World, state: &mut State, call: &Call, id: &str) -> Answer {
    let Some((index, _)) = find_device(world, id) else { return missing("Machine", id) };
    let body = call.object().unwrap_or_default();
    match body.get("DeviceValue").and_then(Json::as_str) {
        Some(value) if VALUES.contains(&value) => {
            state.values.insert(index, value.to_owned());
            changed(world, state, index, "mde.set_device_value")
        }
        _ => Answer::error(400, "InvalidInput", "DeviceValue is Normal, Low or High"),
    }
}

fn update(world: &World, state: &mut State, call: &Call, id: &str) -> Answer {
    let Some((index, _)) = find_device(world, id) else { return missing("Machine", id) };
    let body = match call.object() {
        Ok(body) if !body.is_empty() => body,
        _ => return Answer::error(400, "MissingRequiredParameter", "there is nothing to update"),
    };
    for (key, value) in &body {
        let tags =
            || Some(value.as_array()?.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect::<Vec<_>>());
        match (key.as_str(), value.as_str()) {
            ("machineTags", _) if value.is_array() => drop(state.tags.insert(index, tags().unwrap_or_default())),
            ("deviceValue", Some(word)) if VALUES.contains(&word) => drop(state.values.insert(index, word.to_owned())),
            _ => return Answer::error(400, "InvalidRequestBody", format!("the property '{key}' can't be set so")),
        }
    }
    changed(world, state, index, "mde.update_machine")
}

/// What a file, a domain, an address or an account is part of, by the evidence of the alerts that are visible.
fn seen(world: &World, state: &State, kind: &str, id: &str, rest: &[&str]) -> Option<Answer> {
    let key = match kind {
        "files" => "sha1",
        "domains" => "url",
        "ips" => "ipAddress",
        _ => "accountName",
    };
    let names = |alert: &Json| {
        let evidence = alert.get("evidence").and_then(Json::as_array).into_iter().flatten();
        evidence
            .into_iter()
            .any(|item| item.get(key).and_then(Json::as_str).is_some_and(|have| have.eq_ignore_ascii_case(id)))
    };
    let all = (0..state.born.len()).map(|index| (index, alert_json(world, state, index, true)));
    let found: Vec<(usize, Json)> = all.filter(|(_, alert)| names(alert)).collect();
    Some(match rest {
        [] if kind == "files" => Answer::ok(entity("Files/$entity", file(id))),
        ["alerts"] => list("Alerts", found.into_iter().map(|(_, alert)| alert).collect()),
        ["machines"] => {
            let devices = found.iter().filter_map(|(index, _)| world.plan.device_of(world.plan.alerts.get(*index)?));
            list("Machines", devices.map(|device| machine_json(world, state, device)).collect())
        }
        ["stats"] => {
            let name = match kind {
                "files" => "sha1",
                "domains" => "host",
                _ => "ipAddress",
            };
            let first = time(world.plan.start);
            Answer::ok(entity(
                "Stats",
                json!({
                    name: id, "organizationPrevalence": found.len(), "orgFirstSeen": first, "orgLastSeen": first,
                    "globallyPrevalence": 1_204, "globalFirstObserved": first, "globalLastObserved": first, "topFileNames": []
                }),
            ))
        }
        _ => return None,
    })
}
