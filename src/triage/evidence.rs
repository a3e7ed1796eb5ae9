//! An alert's evidence as facts of a few kinds, each with fields of the same name whatever service says it.
//!
//! A kind that is not in the table is a fact of the kind `other`, with its type and every text in it: nothing is left out
//! because it is new.

use serde_json::Value as Json;

use super::Alert;

/// Facts of one alert; more evidence than this is not looked at.
const MOST: usize = 2_000;
/// Texts of one fact of an unknown kind.
const TEXTS: usize = 200;
const DEEPEST: usize = 6;

/// A kind of evidence: its name here, the services' words for it in lower case, and its fields.
pub struct Kind {
    pub name: &'static str,
    words: &'static [&'static str],
    pub fields: &'static [Field],
}

/// A field, and where in the service's own members it is found: paths with dots.
pub struct Field {
    pub name: &'static str,
    paths: &'static [&'static str],
}

const fn kind(name: &'static str, words: &'static [&'static str], fields: &'static [Field]) -> Kind {
    Kind { name, words, fields }
}

const fn field(name: &'static str, paths: &'static [&'static str]) -> Field {
    Field { name, paths }
}

/// Every kind. Scripts, WMI and scheduled tasks have no type in the services' published schemas: their fields are read
/// under each name that such evidence is known to use.
pub const KINDS: &[Kind] = &[
    kind(
        "file",
        &["file"],
        &[
            field("name", &["fileDetails.fileName", "fileName", "label"]),
            field("path", &["fileDetails.filePath", "filePath"]),
            field("sha1", &["fileDetails.sha1", "sha1"]),
            field("sha256", &["fileDetails.sha256", "sha256"]),
            field("md5", &["fileDetails.md5", "md5"]),
            field("signer", &["fileDetails.signer", "signer"]),
        ],
    ),
    kind(
        "process",
        &["process"],
        &[
            field("name", &["imageFile.fileName", "fileName"]),
            field("path", &["imageFile.filePath", "filePath"]),
            field("sha1", &["imageFile.sha1", "sha1"]),
            field("sha256", &["imageFile.sha256", "sha256"]),
            field("command_line", &["processCommandLine"]),
            field(
                "user",
                &["userAccount.userPrincipalName", "userAccount.accountName", "userPrincipalName", "accountName"],
            ),
            field("parent", &["parentProcessImageFile.fileName", "parentProcessFileName"]),
            field("parent_path", &["parentProcessImageFile.filePath", "parentProcessFilePath"]),
        ],
    ),
    kind(
        "script",
        &["amsiscript", "amsicontent", "amsi", "script"],
        &[
            field("content", &["content", "scriptContent", "amsiContent"]),
            field("name", &["fileName", "name", "scriptName"]),
            field("sha256", &["sha256", "contentHash", "hash"]),
        ],
    ),
    kind(
        "wmi",
        &["wmi", "wmievent", "wmicommand", "wmiquery"],
        &[
            field("query", &["query", "wmiQuery", "filter"]),
            field("consumer", &["consumer", "consumerName"]),
            field("command", &["command", "processCommandLine"]),
            field("namespace", &["namespace", "wmiNamespace"]),
        ],
    ),
    kind(
        "scheduled_task",
        &["scheduledtask", "task"],
        &[field("name", &["taskName", "name"]), field("command", &["taskCommand", "command", "processCommandLine"])],
    ),
    kind(
        "registry",
        &["registrykey", "registryvalue", "registry"],
        &[
            field("hive", &["registryHive"]),
            field("key", &["registryKey"]),
            field("name", &["registryValueName"]),
            field("value", &["registryValue"]),
        ],
    ),
    kind("url", &["url"], &[field("url", &["url", "label"])]),
    kind(
        "ip",
        &["ip"],
        &[
            field("address", &["ipAddress", "label", "id"]),
            field("country", &["countryLetterCode", "location.countryName"]),
        ],
    ),
    kind(
        "domain",
        &["dns", "domain", "activedirectorydomain"],
        &[field("name", &["domainName", "activeDirectoryDomainName"])],
    ),
    kind(
        "mail",
        &["analyzedmessage", "mailmessage", "submissionmail"],
        &[
            field("subject", &["subject"]),
            field("sender", &["p2Sender.emailAddress", "p1Sender.emailAddress", "sender"]),
            field("sender_ip", &["senderIp"]),
            field("recipient", &["recipientEmailAddress", "recipient"]),
            field("message_id", &["internetMessageId", "networkMessageId"]),
        ],
    ),
    kind(
        "mail_cluster",
        &["mailcluster"],
        &[field("query", &["query"]), field("by", &["clusterByValue", "clusterBy"])],
    ),
    kind(
        "teams_message",
        &["teamsmessage"],
        &[field("subject", &["subject"]), field("sender", &["senderFromAddress"]), field("sender_ip", &["senderIP"])],
    ),
    kind(
        "mailbox",
        &["mailbox", "mailboxconfiguration"],
        &[
            field("address", &["primaryAddress", "mailboxPrimaryAddress"]),
            field("upn", &["upn", "userAccount.userPrincipalName", "userPrincipalName"]),
        ],
    ),
    kind(
        "user",
        &["user", "account"],
        &[
            field("upn", &["userAccount.userPrincipalName", "userPrincipalName", "upn", "pa"]),
            field("name", &["userAccount.accountName", "accountName", "account_name", "label"]),
            field("domain", &["userAccount.domainName", "domainName", "domain"]),
            field("sid", &["userAccount.userSid", "userSid", "sid"]),
            field("id", &["userAccount.azureAdUserId", "aadUserId", "id"]),
        ],
    ),
    kind(
        "device",
        &["device", "machine", "host"],
        &[
            field("name", &["deviceDnsName", "hostName", "computerDnsName", "name", "label"]),
            field("id", &["mdeDeviceId", "machineId", "id"]),
            field("group", &["rbacGroupName", "group"]),
            field("os", &["osPlatform", "os_platform"]),
        ],
    ),
    kind(
        "app",
        &["cloudapplication", "oauthapplication", "service", "serviceprincipal"],
        &[
            field("name", &["displayName", "servicePrincipalName", "label"]),
            field("id", &["appId", "id"]),
            field("publisher", &["publisher"]),
        ],
    ),
    kind(
        "session",
        &["cloudlogonsession", "hostlogonsession"],
        &[
            field("user", &["account.userAccount.userPrincipalName", "account.userAccount.accountName"]),
            field("agent", &["userAgent"]),
            field("os", &["operatingSystem"]),
        ],
    ),
    kind(
        "resource",
        &["azureresource", "amazonresource", "googlecloudresource", "blob", "blobcontainer"],
        &[
            field("id", &["resourceId", "amazonResourceId", "fullResourceName", "url"]),
            field("name", &["resourceName", "name"]),
            field("type", &["resourceType"]),
        ],
    ),
    kind(
        "container",
        &["container", "containerimage", "kubernetespod", "kubernetescluster", "kubernetesservice"],
        &[
            field("name", &["name", "containerId"]),
            field("image", &["image.imageId", "imageId"]),
            field("namespace", &["namespace.name"]),
        ],
    ),
    kind("group", &["securitygroup"], &[field("name", &["displayName", "friendlyName"]), field("sid", &["sid"])]),
    kind("other", &[], &[field("type", &[]), field("text", &[])]),
];

/// One piece of evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// The name of a kind of [`KINDS`].
    pub kind: &'static str,
    /// A field may have several values: the services name some things twice.
    pub fields: Vec<(&'static str, String)>,
    pub roles: Vec<String>,
    pub verdict: Option<String>,
    pub created: Option<jiff::Timestamp>,
}

impl Fact {
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(field, _)| *field == name).map(|(_, value)| value.as_str())
    }

    pub fn first(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// It in a few words.
    pub fn words(&self) -> String {
        let shown = |(name, value): &(&str, String)| match self.kind {
            "other" if *name == "type" => value.clone(),
            _ => format!("{name} {value}"),
        };
        let parts: Vec<String> = self.fields.iter().take(3).map(shown).collect();
        format!("{} {}", self.kind.replace('_', " "), parts.join(", "))
    }
}

/// The kind of this name.
pub fn kind_named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// Everything that an alert's evidence says. What the alert names besides its evidence, its device and its users, is there
/// too.
pub fn facts(alert: Alert<'_>) -> Vec<Fact> {
    let mut facts: Vec<Fact> = alert.list("evidence").take(MOST).map(fact).collect();
    for (name, kind) in [("devices", "device"), ("users", "user")] {
        for item in alert.list(name).take(MOST) {
            let Some(found) = kind_named(kind).map(|kind| read(kind, item)) else { continue };
            let said = |fact: &Fact| found.fields.iter().any(|pair| fact.kind == kind && fact.fields.contains(pair));
            if !found.fields.is_empty() && !facts.iter().any(said) {
                facts.push(found);
            }
        }
    }
    facts
}

fn fact(item: &Json) -> Fact {
    let word = item.get("type").and_then(Json::as_str).unwrap_or("Unknown");
    let raw = item.get("raw").unwrap_or(item);
    let lower = word.to_ascii_lowercase();
    let known = KINDS.iter().find(|kind| kind.words.contains(&lower.as_str()));
    let mut fact = known.map_or_else(|| other(word, raw), |kind| read(kind, raw));
    let roles = item.get("roles").and_then(Json::as_array).into_iter().flatten();
    fact.roles = roles.filter_map(|role| role.as_str().map(str::to_owned)).collect();
    fact.verdict = item.get("verdict").and_then(Json::as_str).map(str::to_owned);
    fact.created = item.get("created").and_then(Json::as_str).and_then(|at| at.parse().ok());
    fact
}

fn read(kind: &Kind, raw: &Json) -> Fact {
    let mut fields = vec![];
    for field in kind.fields {
        for path in field.paths {
            let at = path.split('.').try_fold(raw, |at, name| at.get(name));
            let text = at.and_then(text_of).filter(|text| !text.is_empty());
            if let Some(text) = text.filter(|text| !fields.contains(&(field.name, text.clone()))) {
                fields.push((field.name, text));
            }
        }
    }
    Fact { kind: kind.name, fields, roles: vec![], verdict: None, created: None }
}

fn text_of(json: &Json) -> Option<String> {
    match json {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn other(word: &str, raw: &Json) -> Fact {
    let mut texts = vec![];
    gather(raw, 0, &mut texts);
    let mut fields = vec![("type", word.to_owned())];
    fields.extend(texts.into_iter().map(|text| ("text", text)));
    Fact { kind: "other", fields, roles: vec![], verdict: None, created: None }
}

fn gather(json: &Json, depth: usize, into: &mut Vec<String>) {
    if depth > DEEPEST || into.len() >= TEXTS {
        return;
    }
    match json {
        Json::String(text) if !text.is_empty() => into.push(text.clone()),
        Json::Array(items) => items.iter().for_each(|item| gather(item, depth + 1, into)),
        // What every piece of evidence has says nothing of this one.
        Json::Object(members) => {
            let common = ["@odata.type", "createdDateTime", "verdict", "remediationStatus", "roles", "entityType"];
            let members = members.iter().filter(|(name, _)| !common.contains(&name.as_str()));
            members.for_each(|(_, value)| gather(value, depth + 1, into));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(kind: &str, raw: Json) -> Fact {
        fact(&json!({"type": kind, "roles": ["attacker"], "created": "2026-11-20T07:00:00Z", "raw": raw}))
    }

    #[test]
    fn both_services_evidence_reads_the_same() {
        let graph =
            of("Process", json!({"imageFile": {"fileName": "a.exe", "sha256": "ff"}, "processCommandLine": "a -x"}));
        let mde =
            of("Process", json!({"fileName": "a.exe", "sha256": "ff", "processCommandLine": "a -x", "sha1": null}));
        assert_eq!(graph, mde);
        assert_eq!((graph.first("command_line"), graph.first("name")), (Some("a -x"), Some("a.exe")));
        assert_eq!(graph.roles, ["attacker"]);
        assert_eq!(of("RegistryValue", json!({"registryHive": "HKLM", "registryKey": "Run"})).kind, "registry");
        assert_eq!(of("AmsiScript", json!({"content": "iex"})).first("content"), Some("iex"));
        assert_eq!(of("ScheduledTask", json!({"taskName": "t"})).first("name"), Some("t"));
    }

    #[test]
    fn a_kind_that_nobody_knows_keeps_what_it_says() {
        let fact = of(
            "QuantumPortal",
            json!({"@odata.type": "#x", "verdict": "suspicious", "gate": {"label": "north"}, "n": 1}),
        );
        assert_eq!(
            (fact.kind, fact.first("type"), fact.first("text")),
            ("other", Some("QuantumPortal"), Some("north"))
        );
        assert_eq!(fact.values("text").count(), 1);
        let mut deep = json!("x");
        (0..50).for_each(|_| deep = json!([deep]));
        assert_eq!(of("Deep", deep).values("text").count(), 0);
        assert_eq!(
            of("Wide", json!((0..5000).map(|n| n.to_string()).collect::<Vec<_>>())).values("text").count(),
            TEXTS
        );
    }

    #[test]
    fn the_device_of_an_alert_is_a_fact_also_where_no_evidence_says_so() {
        let alert = json!({"devices": [{"id": "m1", "name": "pc-1"}], "users": [{"upn": "a@b.c"}], "evidence": [
            {"type": "User", "raw": {"userPrincipalName": "a@b.c"}},
        ]});
        let facts = facts(Alert(&alert));
        let kinds: Vec<_> = facts.iter().map(|fact| fact.kind).collect();
        assert_eq!(kinds, ["user", "device"]);
    }
}
