use std::sync::Arc;

use super::*;
use crate::catalog::{Catalog, Mapping, decode};
use crate::check::program::Keep;
use crate::value::Value;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn read(mapping: &str, entity: &str, body: &Json) -> (Value, Vec<String>) {
    let mut notes = vec![];
    let ty = Catalog::builtin().unwrap().entities.get(entity).unwrap().clone();
    let json = normal(mapping, &ty, body, at("2026-11-20T07:00:00Z")).unwrap();
    (decode::decode_noting(&ty, &json, &mut notes).unwrap(), notes)
}

#[test]
fn every_mapping_of_the_catalogue_exists() {
    for action in Catalog::builtin().unwrap().actions.values() {
        if let Mapping::Entity(name) = &action.mapping {
            assert!(MAPPINGS.contains(&&**name), "{}: {name}", action.name);
        }
    }
}

#[test]
fn what_nobody_reads_is_left_out_and_the_rest_is_as_ever() {
    let body = json!({
        "id": "da1_2", "title": "t", "severity": "High", "machineId": "m", "computerDnsName": "pc",
        "evidence": [{"entityType": "User", "accountName": "lena"}, {"entityType": "Ip", "ipAddress": "203.0.113.7"}],
    });
    let whole = normal("mde_alert", &Type::Any, &body, at("2026-11-20T07:00:00Z")).unwrap();
    let alert = Catalog::builtin().unwrap().entities["Alert"].clone();
    for members in [&["severity", "id"][..], &["device"], &["users", "raw", "ips"], &["url", "evidence"]] {
        let mut keep = Keep::default();
        members.iter().for_each(|member| keep.add(&[Arc::from(*member)]));
        let ty = keep.narrow(&alert);
        let part = normal("mde_alert", &ty, &body, at("2026-11-20T07:00:00Z")).unwrap();
        let wanted = members.iter().map(|member| ((*member).to_owned(), whole[*member].clone())).collect();
        assert_eq!(part, Json::Object(wanted), "{members:?}");
        let list = normal("mde_alerts", &page_of(&ty), &json!({"value": [body]}), at("2026-11-20T07:00:00Z")).unwrap();
        assert_eq!(list, json!({"value": [part]}));
    }
}

fn page_of(item: &Type) -> Type {
    Type::object("Page", [("value", Type::list(item.clone()), false)])
}

#[test]
fn both_dialects_of_an_alert_come_out_alike() {
    let mde = json!({
        "id": "da1_2", "title": "t", "severity": "UnSpecified", "status": "InProgress", "classification": "Unknown",
        "determination": "Clean", "alertCreationTime": "2026-11-20T06:00:00.1234567Z", "incidentId": 7, "machineId": "m",
        "computerDnsName": "pc", "relatedUser": {"userName": "Lena", "domainName": "D"},
        "evidence": [
            {"entityType": "User", "accountName": "lena", "userPrincipalName": "lena@contoso.example"},
            {"entityType": "Ip", "ipAddress": "203.0.113.7"}, {"entityType": "Ip", "ipAddress": "203.0.113.7"},
            {"entityType": "Hologram", "fileName": "x"},
        ],
    });
    let graph = json!({
        "id": "da1_2", "title": "t", "severity": "unknown", "status": "inProgress", "classification": "unknown",
        "determination": "notMalicious", "createdDateTime": "2026-11-20T06:00:00.1234567Z", "incidentId": "7",
        "serviceSource": "microsoftDefenderForEndpoint",
        "evidence": [
            {"@odata.type": "#microsoft.graph.security.deviceEvidence", "mdeDeviceId": "M", "deviceDnsName": "pc"},
            {"@odata.type": "#microsoft.graph.security.userEvidence",
             "userAccount": {"accountName": "lena", "userPrincipalName": "lena@contoso.example"}},
            {"@odata.type": "#microsoft.graph.security.ipEvidence", "ipAddress": "203.0.113.7"},
            {"@odata.type": "#microsoft.graph.security.hologramEvidence", "colour": "blue"},
        ],
    });
    let ((one, _), (other, _)) = (read("mde_alert", "Alert", &mde), read("graph_alert", "Alert", &graph));
    for key in
        ["id", "source", "severity", "status", "classification", "determination", "created", "incident_id", "ips"]
    {
        assert_eq!(one.get(key), other.get(key), "{key}");
    }
    assert_eq!(one.get("severity"), Some(&Value::str("Unknown")));
    assert_eq!((one.get("classification"), one.get("determination")), (None, Some(&Value::str("NotMalicious"))));
    for alert in [&one, &other] {
        assert_eq!(alert.at(&["device", "id"]), Some(&Value::str("m")));
        assert_eq!(alert.at(&["user", "upn"]), Some(&Value::str("lena@contoso.example")));
        let evidence = alert.get("evidence").unwrap().as_list().unwrap();
        let last = evidence.last().unwrap();
        assert_eq!(last.get("type"), Some(&Value::str("Hologram")));
    }
    assert_eq!(one.get("users").unwrap().as_list().unwrap().len(), 1);
}

#[test]
fn an_alert_of_cloud_apps_speaks_in_words() {
    let body = json!({
        "_id": "691f0c3caf7417985bbf3b22", "timestamp": 1_763_622_764_000i64, "title": "Impossible travel activity",
        "severityValue": 1, "statusValue": 1, "resolutionStatusValue": 4, "URL": "https://x.example/#/alerts/1",
        "entities": [
            {"type": "account", "entityRole": "Related", "id": 11161, "label": "Bystander"},
            {"type": "account", "entityRole": "Source", "id": "3b7d1c52-0c44-4d8e-9a37-5f2b6c81d904", "label": "Lena",
             "pa": "lena@contoso.example"},
            {"type": "ip", "id": "203.0.113.7", "label": "203.0.113.7"},
            {"type": "policyRule", "id": "5b", "label": "Impossible travel"},
        ],
    });
    let (alert, notes) = read("cloud_apps_alert", "Alert", &body);
    assert!(notes.is_empty(), "{notes:?}");
    for (path, want) in [
        (&["severity"][..], "Medium"),
        (&["status"], "Resolved"),
        (&["classification"], "InformationalExpectedActivity"),
        (&["policy"], "Impossible travel"),
        (&["user", "upn"], "lena@contoso.example"),
        (&["user", "id"], "3b7d1c52-0c44-4d8e-9a37-5f2b6c81d904"),
    ] {
        assert_eq!(alert.at(path), Some(&Value::str(want)), "{path:?}");
    }
    assert_eq!(alert.get("created"), Some(&Value::Datetime(at("2025-11-20T07:12:44Z"))));
}

#[test]
fn replies_are_active_by_the_clock_and_not_by_a_stale_date() {
    let of = |status: &str, start: &str, end: &str, zone: &str| {
        let body = json!({"status": status, "scheduledStartDateTime": {"dateTime": start, "timeZone": zone},
            "scheduledEndDateTime": {"dateTime": end, "timeZone": zone}});
        read("automatic_replies", "AutomaticReplies", &body).0
    };
    let always = of("AlwaysEnabled", "2016-03-14T07:00:00.0000000", "2016-03-28T07:00:00.0000000", "UTC");
    assert_eq!((always.get("active"), always.get("start")), (Some(&Value::Bool(true)), None));
    // 08:00 in Berlin is the instant of reading: the start is within, the end is not.
    let berlin = "W. Europe Standard Time";
    let begins = of("Scheduled", "2026-11-20T08:00:00.0000000", "2026-11-21T08:00:00.0000000", berlin);
    assert_eq!(begins.get("active"), Some(&Value::Bool(true)));
    assert_eq!(begins.get("start"), Some(&Value::Datetime(at("2026-11-20T07:00:00Z"))));
    let over = of("scheduled", "2026-11-19T08:00:00.0000000", "2026-11-20T08:00:00.0000000", berlin);
    assert_eq!(over.get("active"), Some(&Value::Bool(false)));
    let off = of("disabled", "2026-11-19T08:00:00.0000000", "2026-11-21T08:00:00.0000000", "nowhere");
    assert_eq!(off.get("active"), Some(&Value::Bool(false)));
    let unknown_zone = json!({"status": "scheduled", "scheduledEndDateTime": {"dateTime": "2026-11-21T08:00:00", "timeZone": "nowhere"}});
    assert!(normal("automatic_replies", &Type::Any, &unknown_zone, at("2026-11-20T07:00:00Z")).is_err());
}

#[test]
fn machine_actions_are_read_in_both_spellings() {
    let body = json!({"value": [{"id": "a", "type": "Isolate", "status": "pending", "lastUpdateTimeUtc": "2026-11-20T07:00:00Z"}]});
    let page = normal("machine_actions", &Type::Any, &body, at("2026-11-20T07:00:00Z")).unwrap();
    let (action, _) = read("machine_action", "MachineAction", &body["value"][0]);
    assert_eq!(page["value"][0]["updated"], "2026-11-20T07:00:00Z");
    assert_eq!(action.get("status"), Some(&Value::str("Pending")));
}

#[test]
fn a_new_word_of_a_service_is_kept_and_noted() {
    let body = json!({"id": "u", "riskLevel": "hidden", "riskState": "beingLookedAt"});
    let (risk, notes) = read("user_risk", "UserRisk", &body);
    assert_eq!(risk.get("level"), Some(&Value::str("Hidden")));
    assert_eq!(risk.get("state"), Some(&Value::str("beingLookedAt")));
    assert_eq!(notes.len(), 1);
}
