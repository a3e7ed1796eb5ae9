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
    /// Devices that a file or a process was found on, by their ids.
    mentioned: Vec<String>,
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

    /// Devices that no evidence of their own tells of come last.
    fn mention(&mut self) {
        for id in std::mem::take(&mut self.mentioned) {
            if !self.devices.iter().any(|device| text(device, "id") == Some(&id)) {
                Gathered::add(&mut self.devices, json!({"id": id}));
            }
        }
    }

    fn into_alert(mut self, mut alert: Json, raw: &Json, wanted: Wanted<'_>) -> Json {
        self.mention();
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

/// The members of an incident that are gathered from its alerts.
const OF_ALERTS: [&str; 6] = ["devices", "users", "ips", "files", "urls", "mailboxes"];

/// What the alerts of an incident name, each once.
pub(super) fn together(incident: &mut Json, alerts: &[Json], wanted: Wanted<'_>) {
    let Some(members) = incident.as_object_mut() else { return };
    for name in OF_ALERTS.into_iter().filter(|name| wanted.has(name)) {
        let mut all: Vec<Json> = vec![];
        let mut seen = std::collections::HashSet::new();
        for item in alerts.iter().flat_map(|alert| list(alert, name)) {
            if seen.insert(item.to_string()) {
                all.push(item.clone());
            }
        }
        members.insert(name.to_owned(), Json::Array(all));
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
    // A process has the account that it ran under, often a system's own: only one that is somebody's is a user.
    let lower = kind.to_ascii_lowercase();
    let person = text(item, "userPrincipalName").is_some() || text(item, "aadUserId").is_some();
    if lower == "user" || person {
        let user = json!({
            "id": text(item, "aadUserId"),
            "upn": text(item, "userPrincipalName"),
            "account_name": text(item, "accountName"),
            "domain": text(item, "domainName"),
            "sid": text(item, "userSid"),
        });
        Gathered::add(&mut found.users, user);
    }
    if ["fileName", "sha1", "sha256"].iter().any(|name| text(item, name).is_some()) {
        let file = json!({
            "name": text(item, "fileName"),
            "path": text(item, "filePath"),
            "sha1": text(item, "sha1"),
            "sha256": text(item, "sha256"),
        });
        Gathered::add(&mut found.files, file);
    }
    if lower.starts_with("mailbox") {
        let mailbox = json!({"address": text(item, "primaryAddress"), "upn": text(item, "userPrincipalName")});
        Gathered::add(&mut found.mailboxes, mailbox);
    }
    Gathered::add(&mut found.ips, json!(text(item, "ipAddress")));
    Gathered::add(&mut found.urls, json!(text(item, "url")));
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

/// Evidence of Graph is told apart by `@odata.type`. What a piece of any kind names is gathered, also of a kind that is not
/// known here: by the names of its members, which mean the same in all of them.
fn graph_evidence(item: &Json, found: &mut Gathered) {
    let full = text(item, "@odata.type").unwrap_or("");
    let word = full.rsplit('.').next().unwrap_or("").trim_start_matches('#');
    let word = word.strip_suffix("Evidence").unwrap_or(word);
    walk(item, found, 0);
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

/// How deep evidence lies inside of evidence: a session has a host, malware has processes that have files.
const DEEPEST: usize = 4;

/// The entities that a piece of evidence names.
fn walk(item: &Json, found: &mut Gathered, depth: usize) {
    let Some(members) = item.as_object().filter(|_| depth <= DEEPEST) else { return };
    let is_device = text(item, "@odata.type").is_some_and(|word| word.ends_with(".deviceEvidence"));
    if is_device || members.contains_key("deviceDnsName") || members.contains_key("hostName") {
        // A device's own addresses and accesses are not what the alert is about.
        return graph_device(item, found);
    }
    for (name, value) in members {
        match name.as_str() {
            "userAccount" => account(Some(value), found),
            "fileDetails" | "imageFile" => file(Some(value), found),
            "mdeDeviceId" => found.mentioned.extend(value.as_str().map(str::to_ascii_lowercase)),
            "ipAddress" | "senderIp" | "senderIP" if value.is_string() => {
                Gathered::add(&mut found.ips, json!(text(item, name)));
            }
            "url" => Gathered::add(&mut found.urls, json!(text(item, "url"))),
            // Mail lists them as text, messages of Teams as evidence.
            "urls" => list(item, "urls").for_each(|url| match url {
                Json::String(_) => Gathered::add(&mut found.urls, url.clone()),
                _ => walk(url, found, depth + 1),
            }),
            "deviceName" => Gathered::add(&mut found.devices, json!({"name": text(item, "deviceName")})),
            "primaryAddress" | "mailboxPrimaryAddress" => {
                let mailbox = json!({
                    "address": text(item, name),
                    "upn": text(item, "upn").or_else(|| text(item.get("userAccount")?, "userPrincipalName")),
                    "display_name": text(item, "displayName"),
                });
                Gathered::add(&mut found.mailboxes, mailbox);
            }
            "recipientEmailAddress" | "recipient" if value.is_string() => {
                Gathered::add(&mut found.mailboxes, json!({"address": text(item, name)}));
            }
            "submitter" => Gathered::add(&mut found.users, json!({"upn": text(item, "submitter")})),
            "algorithm" => hash(item, found),
            // What started a process is not what the alert is about.
            "parentProcessImageFile" => {}
            _ => match value {
                Json::Object(_) => walk(value, found, depth + 1),
                Json::Array(items) => items.iter().for_each(|item| walk(item, found, depth + 1)),
                _ => {}
            },
        }
    }
}

/// A file of which nothing but a hash is known.
fn hash(item: &Json, found: &mut Gathered) {
    let name = match text(item, "algorithm").map(str::to_ascii_lowercase).as_deref() {
        Some("sha1") => "sha1",
        Some("sha256") => "sha256",
        Some("md5") => "md5",
        _ => return,
    };
    let mut file = JsonMap::new();
    file.insert(name.to_owned(), json!(text(item, "value")));
    Gathered::add(&mut found.files, Json::Object(file));
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
            "file" => Gathered::add(&mut found.files, json!({"name": label})),
            "url" => Gathered::add(&mut found.urls, json!(label)),
            "mailbox" => Gathered::add(&mut found.mailboxes, json!({"address": label})),
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
