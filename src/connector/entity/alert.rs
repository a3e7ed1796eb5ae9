//! Alerts of the three services as one shape, and their evidence as devices, users, addresses, files, URLs and mailboxes.

use jiff::Timestamp;
use serde_json::{Map as JsonMap, Value as Json, json};

use super::{Wanted, determination, id_text, list, only, said, severity, text};

/// Members of an alert that are gathered from its evidence.
const GATHERED: [&str; 9] = ["user", "device", "devices", "users", "ips", "files", "urls", "mailboxes", "evidence"];

/// What evidence gathers into.
#[derive(Default)]
struct Gathered {
    devices: Vec<Json>,
    users: Vec<Json>,
    ips: Vec<Json>,
    files: Vec<Json>,
    urls: Vec<Json>,
    mailboxes: Vec<Json>,
    evidence: Vec<Json>,
}

impl Gathered {
    /// Adds what is not there yet and says something.
    fn add(into: &mut Vec<Json>, mut item: Json) {
        if let Json::Object(members) = &mut item {
            members.retain(|_, value| !value.is_null());
        }
        let empty = item.is_null() || item.as_object().is_some_and(JsonMap::is_empty);
        if !empty && !into.contains(&item) {
            into.push(item);
        }
    }

    fn into_alert(self, mut alert: Json, raw: &Json, wanted: Wanted<'_>) -> Json {
        let first_user = self.users.iter().find(|user| user.get("upn").is_some()).or(self.users.first()).cloned();
        let first_device = self.devices.iter().find(|device| device.get("id").is_some()).or(self.devices.first());
        let first_device = first_device.cloned();
        if let Some(members) = alert.as_object_mut() {
            let gathered = [
                ("user", first_user.unwrap_or(Json::Null)),
                ("device", first_device.unwrap_or(Json::Null)),
                ("devices", Json::Array(self.devices)),
                ("users", Json::Array(self.users)),
                ("ips", Json::Array(self.ips)),
                ("files", Json::Array(self.files)),
                ("urls", Json::Array(self.urls)),
                ("mailboxes", Json::Array(self.mailboxes)),
                ("evidence", Json::Array(self.evidence)),
            ];
            members.extend(gathered.into_iter().filter(|(key, _)| wanted.has(key)).map(|(key, v)| (key.to_owned(), v)));
            if wanted.has("raw") {
                members.insert("raw".to_owned(), raw.clone());
            }
        }
        alert
    }
}

/// An alert of the Defender for Endpoint API.
pub(super) fn mde(body: &Json, wanted: Wanted<'_>) -> Json {
    let found = if wanted.any(&GATHERED) { mde_gathered(body) } else { Gathered::default() };
    let id = id_text(body, "id");
    let url = id.as_deref().filter(|_| wanted.has("url")).map(|id| {
        let prefix = if id.starts_with(|c: char| c.is_ascii_digit()) { "da" } else { "" };
        let tenant = text(body, "aadTenantId").map(|tenant| format!("?tid={tenant}")).unwrap_or_default();
        format!("https://security.microsoft.com/alerts/{prefix}{id}{tenant}")
    });
    let alert = only!(wanted, {
        "id": id,
        "source": "MicrosoftDefenderForEndpoint",
        "title": text(body, "title").unwrap_or("(no title)"),
        "description": text(body, "description"),
        "severity": severity(body),
        "status": text(body, "status").unwrap_or("Unknown"),
        "classification": said(body, "classification"),
        "determination": determination(body),
        "category": text(body, "category"),
        "created": text(body, "alertCreationTime"),
        "updated": text(body, "lastUpdateTime"),
        "first_activity": text(body, "firstEventTime"),
        "last_activity": text(body, "lastEventTime"),
        "assigned_to": text(body, "assignedTo"),
        "incident_id": id_text(body, "incidentId"),
        "url": url,
    });
    found.into_alert(alert, body, wanted)
}

fn mde_gathered(body: &Json) -> Gathered {
    let mut found = Gathered::default();
    let device = json!({
        "id": text(body, "machineId"),
        "name": text(body, "computerDnsName"),
        "group": text(body, "rbacGroupName"),
    });
    Gathered::add(&mut found.devices, device);
    for item in list(body, "evidence") {
        mde_evidence(item, &mut found);
    }
    let upn = text(body, "userPrincipalName");
    let related = body.get("relatedUser").unwrap_or(&Json::Null);
    let account = text(related, "userName");
    let known = found.users.iter().any(|user| {
        let same = |key: &str, want: Option<&str>| {
            want.is_some_and(|want| text(user, key).is_some_and(|have| have.eq_ignore_ascii_case(want)))
        };
        same("account_name", account) || same("upn", upn)
    });
    if !known {
        let user = json!({"upn": upn, "account_name": account, "domain": text(related, "domainName")});
        Gathered::add(&mut found.users, user);
    }
    found
}

/// One flat shape holds every kind; `entityType` tells which members mean something.
fn mde_evidence(item: &Json, found: &mut Gathered) {
    let kind = text(item, "entityType").unwrap_or("Unknown");
    match kind.to_ascii_lowercase().as_str() {
        "user" => Gathered::add(
            &mut found.users,
            json!({
                "id": text(item, "aadUserId"),
                "upn": text(item, "userPrincipalName"),
                "account_name": text(item, "accountName"),
                "domain": text(item, "domainName"),
                "sid": text(item, "userSid"),
            }),
        ),
        "file" | "process" => Gathered::add(
            &mut found.files,
            json!({
                "name": text(item, "fileName"),
                "path": text(item, "filePath"),
                "sha1": text(item, "sha1"),
                "sha256": text(item, "sha256"),
            }),
        ),
        "ip" => Gathered::add(&mut found.ips, json!(text(item, "ipAddress"))),
        "url" => Gathered::add(&mut found.urls, json!(text(item, "url"))),
        _ => {}
    }
    found.evidence.push(json!({
        "type": kind,
        "created": text(item, "evidenceCreationTime"),
        "remediation": text(item, "detectionStatus"),
        "roles": [],
        "raw": item,
    }));
}

/// An alert of Microsoft Graph, of any product.
pub(super) fn graph(body: &Json, wanted: Wanted<'_>) -> Json {
    let mut found = Gathered::default();
    if wanted.any(&GATHERED) {
        list(body, "evidence").for_each(|item| graph_evidence(item, &mut found));
    }
    let tags: Vec<&Json> = list(body, "systemTags").collect();
    let alert = only!(wanted, {
        "id": id_text(body, "id"),
        "source": text(body, "serviceSource").unwrap_or("Unknown"),
        "title": text(body, "title").unwrap_or("(no title)"),
        "description": text(body, "description"),
        "severity": severity(body),
        "status": text(body, "status").unwrap_or("Unknown"),
        "classification": said(body, "classification"),
        "determination": determination(body),
        "category": text(body, "category"),
        "created": text(body, "createdDateTime"),
        "updated": text(body, "lastUpdateDateTime"),
        "first_activity": text(body, "firstActivityDateTime"),
        "last_activity": text(body, "lastActivityDateTime"),
        "assigned_to": text(body, "assignedTo"),
        "incident_id": id_text(body, "incidentId"),
        "url": text(body, "alertWebUrl"),
        "policy": text(body, "alertPolicyId"),
        "tags": tags,
    });
    found.into_alert(alert, body, wanted)
}

/// Evidence of Graph is told apart by `@odata.type`; kinds without a list of their own are kept in `evidence` alone.
fn graph_evidence(item: &Json, found: &mut Gathered) {
    let full = text(item, "@odata.type").unwrap_or("");
    let word = full.rsplit('.').next().unwrap_or("").trim_start_matches('#');
    let word = word.strip_suffix("Evidence").unwrap_or(word);
    match word {
        "user" => account(item.get("userAccount"), found),
        "process" => {
            account(item.get("userAccount"), found);
            file(item.get("imageFile"), found);
        }
        "file" => file(item.get("fileDetails"), found),
        "device" => graph_device(item, found),
        "ip" => Gathered::add(&mut found.ips, json!(text(item, "ipAddress"))),
        "url" => Gathered::add(&mut found.urls, json!(text(item, "url"))),
        "mailbox" => {
            let mailbox = json!({
                "address": text(item, "primaryAddress"),
                "upn": text(item, "upn").or_else(|| text(item.get("userAccount")?, "userPrincipalName")),
                "display_name": text(item, "displayName"),
            });
            Gathered::add(&mut found.mailboxes, mailbox);
            account(item.get("userAccount"), found);
        }
        "analyzedMessage" => {
            Gathered::add(&mut found.ips, json!(text(item, "senderIp")));
            for url in list(item, "urls") {
                Gathered::add(&mut found.urls, url.clone());
            }
        }
        _ => {}
    }
    let mut letters = word.chars();
    let kind: String = letters.next().map_or_else(|| "Unknown".into(), |c| c.to_uppercase().chain(letters).collect());
    let roles: Vec<&Json> = list(item, "roles").collect();
    found.evidence.push(json!({
        "type": kind,
        "created": text(item, "createdDateTime"),
        "verdict": text(item, "verdict"),
        "remediation": text(item, "remediationStatus"),
        "roles": roles,
        "raw": item,
    }));
}

fn account(json: Option<&Json>, found: &mut Gathered) {
    let Some(json) = json else { return };
    let user = json!({
        "id": text(json, "azureAdUserId"),
        "upn": text(json, "userPrincipalName"),
        "display_name": text(json, "displayName"),
        "account_name": text(json, "accountName"),
        "domain": text(json, "domainName"),
        "sid": text(json, "userSid"),
    });
    Gathered::add(&mut found.users, user);
}

fn file(json: Option<&Json>, found: &mut Gathered) {
    let Some(json) = json else { return };
    let file = json!({
        "name": text(json, "fileName"),
        "path": text(json, "filePath"),
        "sha1": text(json, "sha1"),
        "sha256": text(json, "sha256"),
        "md5": text(json, "md5"),
        "size": json.get("fileSize").and_then(Json::as_i64),
    });
    Gathered::add(&mut found.files, file);
}

fn graph_device(item: &Json, found: &mut Gathered) {
    let device = json!({
        "id": text(item, "mdeDeviceId").map(str::to_ascii_lowercase),
        "name": text(item, "deviceDnsName").or_else(|| text(item, "hostName")),
        "aad_device_id": text(item, "azureAdDeviceId"),
        "os_platform": text(item, "osPlatform"),
        "os_version": text(item, "version"),
        "os_build": item.get("osBuild").and_then(Json::as_i64),
        "health_status": text(item, "healthStatus"),
        "onboarding_status": text(item, "onboardingStatus"),
        "risk_score": text(item, "riskScore"),
        "group": text(item, "rbacGroupName"),
        "first_seen": text(item, "firstSeenDateTime"),
    });
    Gathered::add(&mut found.devices, device);
    for user in list(item, "loggedOnUsers") {
        let user = json!({"account_name": text(user, "accountName"), "domain": text(user, "domainName")});
        Gathered::add(&mut found.users, user);
    }
}

/// An alert of Defender for Cloud Apps. Words are numbers there, and times are milliseconds.
pub(super) fn cloud_apps(body: &Json, wanted: Wanted<'_>) -> Json {
    let mut found = Gathered::default();
    let mut policy = None;
    // Those that did something come before those that are merely related.
    let mut entities: Vec<&Json> = list(body, "entities").collect();
    entities.sort_by_key(|entity| text(entity, "entityRole") != Some("Source"));
    for item in entities {
        let label = text(item, "label");
        match text(item, "type").unwrap_or("") {
            "account" => {
                let id = text(item, "id").filter(|id| id.len() == 36);
                let upn = text(item, "pa").or(label.filter(|label| label.contains('@')));
                let name = label.filter(|label| !label.contains('@'));
                Gathered::add(&mut found.users, json!({"id": id, "upn": upn, "display_name": name}));
            }
            "device" => Gathered::add(&mut found.devices, json!({"name": label})),
            "ip" => Gathered::add(&mut found.ips, json!(label.or_else(|| text(item, "id")))),
            "policyRule" => policy = policy.or(label),
            _ => {}
        }
        found.evidence.push(json!({
            "type": text(item, "type").unwrap_or("Unknown"),
            "roles": text(item, "entityRole").into_iter().collect::<Vec<_>>(),
            "raw": item,
        }));
    }
    let number = |key: &str| body.get(key).and_then(Json::as_i64);
    let (status, classification) = match number("resolutionStatusValue") {
        None | Some(0) => ("New", None),
        Some(3) => ("Resolved", Some("FalsePositive")),
        Some(4) => ("Resolved", Some("InformationalExpectedActivity")),
        Some(5) => ("Resolved", Some("TruePositive")),
        Some(_) => ("Resolved", None),
    };
    let severity = match number("severityValue") {
        Some(0) => "Low",
        Some(1) => "Medium",
        Some(2) => "High",
        Some(3) => "Informational",
        _ => "Unknown",
    };
    let created = number("timestamp").and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let alert = only!(wanted, {
        "id": id_text(body, "_id").or_else(|| id_text(body, "id")),
        "source": "MicrosoftDefenderForCloudApps",
        "title": text(body, "title").unwrap_or("(no title)"),
        "description": text(body, "description"),
        "severity": severity,
        "status": status,
        "classification": classification,
        "created": created.map(|at| at.to_string()),
        "updated": text(body, "resolveTime"),
        "assigned_to": text(body, "handledByUser"),
        "url": text(body, "URL"),
        "policy": policy,
    });
    found.into_alert(alert, body, wanted)
}
