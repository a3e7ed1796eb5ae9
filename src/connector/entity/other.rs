//! Devices, machine actions, incidents, users, their risk and their automatic replies.

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::{Wanted, alert, determination, id_text, list, only, said, severity, text};
use crate::catalog::decode;

pub(super) fn device(body: &Json, wanted: Wanted<'_>) -> Json {
    let tags: Vec<&Json> = list(body, "machineTags").collect();
    let build = body.get("osBuild").and_then(|build| build.as_i64().or_else(|| build.as_str()?.parse().ok()));
    only!(wanted, {
        "id": id_text(body, "id"),
        "name": text(body, "computerDnsName"),
        "os_platform": text(body, "osPlatform"),
        "os_version": text(body, "version"),
        "os_build": build,
        "health_status": text(body, "healthStatus"),
        "onboarding_status": text(body, "onboardingStatus"),
        "risk_score": text(body, "riskScore"),
        "exposure_level": text(body, "exposureLevel"),
        "device_value": text(body, "deviceValue"),
        "aad_device_id": text(body, "aadDeviceId"),
        "ip": text(body, "lastIpAddress"),
        "external_ip": text(body, "lastExternalIpAddress"),
        "group": text(body, "rbacGroupName"),
        "tags": tags,
        "first_seen": text(body, "firstSeen"),
        "last_seen": text(body, "lastSeen"),
        "raw": body,
    })
}

pub(super) fn machine_action(body: &Json, wanted: Wanted<'_>) -> Json {
    only!(wanted, {
        "id": id_text(body, "id"),
        "type": text(body, "type"),
        "status": text(body, "status"),
        "scope": text(body, "scope"),
        "machine_id": text(body, "machineId"),
        "machine_name": text(body, "computerDnsName"),
        "requestor": text(body, "requestor"),
        "comment": text(body, "requestorComment"),
        "external_id": text(body, "externalId"),
        "created": text(body, "creationDateTimeUtc"),
        // Lists print the one spelling, single actions the other.
        "updated": text(body, "lastUpdateDateTimeUtc").or_else(|| text(body, "lastUpdateTimeUtc")),
        "cancelled_by": text(body, "cancellationRequestor"),
    })
}

/// A user as Defender for Endpoint knows one: by account, without an object id.
pub(super) fn mde_user(body: &Json, wanted: Wanted<'_>) -> Json {
    // Logon lists print `domain\\account` as the id of a user.
    let (domain, account) = text(body, "id").and_then(|id| id.split_once('\\')).unzip();
    only!(wanted, {
        "account_name": text(body, "accountName").or(account),
        "domain": text(body, "accountDomain").or(domain),
        "sid": text(body, "accountSid"),
        "raw": body,
    })
}

pub(super) fn indicator(body: &Json, wanted: Wanted<'_>) -> Json {
    let groups: Vec<&Json> = list(body, "rbacGroupNames").collect();
    only!(wanted, {
        "id": id_text(body, "id"),
        "value": text(body, "indicatorValue"),
        "type": text(body, "indicatorType"),
        "action": text(body, "action"),
        "severity": text(body, "severity"),
        "title": text(body, "title"),
        "description": text(body, "description"),
        "recommended_actions": text(body, "recommendedActions"),
        "application": text(body, "application"),
        "created": text(body, "creationTimeDateTimeUtc"),
        "updated": text(body, "lastUpdateTime"),
        "expires": text(body, "expirationTime"),
        "created_by": text(body, "createdBy"),
        "generate_alert": body.get("generateAlert"),
        "groups": groups,
        "external_id": text(body, "externalId"),
        "raw": body,
    })
}

pub(super) fn incident(body: &Json, wanted: Wanted<'_>) -> Json {
    let tags: Vec<&Json> = list(body, "customTags").chain(list(body, "systemTags")).collect();
    let alerts: Vec<Json> = list(body, "alerts").map(|alert| alert::graph(alert, Wanted::ALL)).collect();
    let mut incident = only!(wanted, {
        "id": id_text(body, "id"),
        "title": text(body, "displayName").unwrap_or("(no title)"),
        "description": text(body, "description").or_else(|| text(body, "summary")),
        "severity": severity(body),
        "status": text(body, "status").unwrap_or("Unknown"),
        "classification": said(body, "classification"),
        "determination": determination(body),
        "created": text(body, "createdDateTime"),
        "updated": text(body, "lastUpdateDateTime"),
        "assigned_to": text(body, "assignedTo"),
        "url": text(body, "incidentWebUrl"),
        "redirect_id": id_text(body, "redirectIncidentId"),
        "tags": tags,
        "alerts": alerts,
        "raw": body,
    });
    alert::together(&mut incident, &alerts, wanted);
    incident
}

pub(super) fn sentinel_incident(body: &Json, wanted: Wanted<'_>) -> Json {
    let empty = json!({});
    let of = body.get("properties").unwrap_or(&empty);
    let more = of.get("additionalData").unwrap_or(&empty);
    let labels: Vec<&str> = list(of, "labels").filter_map(|label| text(label, "labelName")).collect();
    let tactics: Vec<&Json> = list(more, "tactics").collect();
    only!(wanted, {
        "id": text(body, "name"),
        "number": of.get("incidentNumber"),
        "title": text(of, "title").unwrap_or("(no title)"),
        "description": text(of, "description"),
        "severity": text(of, "severity"),
        "status": text(of, "status"),
        "classification": text(of, "classification"),
        "classification_reason": text(of, "classificationReason"),
        "classification_comment": text(of, "classificationComment"),
        "created": text(of, "createdTimeUtc"),
        "updated": text(of, "lastModifiedTimeUtc"),
        "first_activity": text(of, "firstActivityTimeUtc"),
        "last_activity": text(of, "lastActivityTimeUtc"),
        "assigned_to": of.get("owner").and_then(|owner| text(owner, "userPrincipalName")),
        "url": text(of, "incidentUrl"),
        "labels": labels,
        "tactics": tactics,
        "alert_count": more.get("alertsCount"),
        "etag": text(body, "etag"),
        "raw": body,
    })
}

pub(super) fn comment(body: &Json) -> Json {
    json!({
        "text": body.get("comment").and_then(Json::as_str).unwrap_or(""),
        "by": text(body, "createdByDisplayName"),
        "at": text(body, "createdDateTime"),
    })
}

pub(super) fn user(body: &Json, wanted: Wanted<'_>) -> Json {
    only!(wanted, {
        "id": text(body, "id"),
        "upn": text(body, "userPrincipalName"),
        "display_name": text(body, "displayName"),
        "mail": text(body, "mail"),
        "account_name": text(body, "onPremisesSamAccountName"),
        "domain": text(body, "onPremisesDomainName"),
        "sid": text(body, "onPremisesSecurityIdentifier"),
        "enabled": body.get("accountEnabled"),
        "type": text(body, "userType"),
        "job_title": text(body, "jobTitle"),
        "department": text(body, "department"),
        "office": text(body, "officeLocation"),
        "country": text(body, "country"),
        "raw": body,
    })
}

pub(super) fn user_risk(body: &Json, wanted: Wanted<'_>) -> Json {
    only!(wanted, {
        "user_id": text(body, "id"),
        "upn": text(body, "userPrincipalName"),
        "level": text(body, "riskLevel"),
        "state": text(body, "riskState"),
        "detail": text(body, "riskDetail"),
        "updated": text(body, "riskLastUpdatedDateTime"),
    })
}

pub(super) fn risk_detection(body: &Json, wanted: Wanted<'_>) -> Json {
    let place = body.get("location").unwrap_or(&Json::Null);
    only!(wanted, {
        "id": id_text(body, "id"),
        "event_type": text(body, "riskEventType").unwrap_or("generic"),
        "level": text(body, "riskLevel"),
        "state": text(body, "riskState"),
        "detail": text(body, "riskDetail"),
        "source": text(body, "source"),
        "activity": text(body, "activity"),
        "timing": text(body, "detectionTimingType"),
        "detected": text(body, "detectedDateTime"),
        "activity_time": text(body, "activityDateTime"),
        "updated": text(body, "lastUpdatedDateTime"),
        "user": json!({
            "id": text(body, "userId"),
            "upn": text(body, "userPrincipalName"),
            "display_name": text(body, "userDisplayName"),
        }),
        "ip": text(body, "ipAddress"),
        "city": text(place, "city"),
        "country": text(place, "countryOrRegion"),
        "raw": body,
    })
}

/// Automatic replies as they are at `now`. `alwaysEnabled` carries the dates of some earlier schedule, which mean nothing and
/// are dropped; a schedule holds from its start until just before its end.
///
/// # Errors
/// Where a schedule's date can't be read: a guess would answer whether the user is away.
pub(super) fn automatic_replies(body: &Json, now: Timestamp) -> Result<Json, String> {
    // The whole of mailboxSettings holds the setting as a member.
    let body = body.get("automaticRepliesSetting").unwrap_or(body);
    let status = text(body, "status").ok_or("it has no status")?;
    let scheduled = status.eq_ignore_ascii_case("scheduled");
    let bound = |key: &str| match (scheduled, body.get(key)) {
        (true, Some(member)) if !member.is_null() => local(member).map(Some).ok_or(format!("{key} is no instant")),
        _ => Ok(None),
    };
    let (start, end) = (bound("scheduledStartDateTime")?, bound("scheduledEndDateTime")?);
    let within = start.is_none_or(|start| start <= now) && end.is_none_or(|end| now < end);
    let active = status.eq_ignore_ascii_case("alwaysEnabled") || (scheduled && within);
    Ok(json!({
        "active": active,
        "status": status,
        "start": start.map(|at| at.to_string()),
        "end": end.map(|at| at.to_string()),
        "audience": text(body, "externalAudience"),
        "internal_message": text(body, "internalReplyMessage"),
        "external_message": text(body, "externalReplyMessage"),
    }))
}

/// `{dateTime, timeZone}`: the date has no offset, the zone may have a Windows name.
fn local(json: &Json) -> Option<Timestamp> {
    decode::instant(text(json, "dateTime")?, text(json, "timeZone"))
}
