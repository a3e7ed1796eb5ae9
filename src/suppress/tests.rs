use serde_json::{Value as Json, json};

use super::*;
use crate::diag::{Diagnostic, Source};

const RULE: &str = r#"
suppression: deploy-tool
comment: The deployment tool unpacks itself.
owner: soc@contoso.example
expires: 2027-02-01
alert: { title: "Suspicious PowerShell*", source: endpoint }
scope: { devices: ["build-*"], device_groups: Servers }
evidence:
  any:
    - all:
        - file: { name: "deploy*.exe", sha256: [aa, bb], role: source }
        - process: { command_line: "*\\deploy\\*" }
    - ip: { address: 192.0.2.7 }
action: { resolve: { classification: falsePositive, determination: NotMalicious, comment: "Known." } }
allow:
  - { type: filesha256, value: aa, groups: [Servers] }
"#;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-11-24T00:00:00Z")
}

fn parse(text: &str) -> (Option<Rule>, Vec<Diagnostic>) {
    read(&Source::new("rule.yaml", text), Given { now: now(), user_scoped: Some(&["named".to_owned()]) })
}

fn rule(text: &str) -> Rule {
    let (rule, faults) = parse(text);
    rule.unwrap_or_else(|| panic!("{}", crate::diag::render(&faults, false)))
}

fn alert() -> Json {
    json!({
        "id": "da1_1", "title": "suspicious POWERSHELL command line", "source": "MicrosoftDefenderForEndpoint",
        "devices": [{"id": "m1", "name": "BUILD-07", "group": "servers"}], "users": [],
        "evidence": [
            {"type": "File", "roles": ["Source"], "raw": {"fileName": "Deploy-2.EXE", "sha256": "BB"}},
            {"type": "Process", "roles": [], "raw": {"fileName": "powershell.exe", "processCommandLine": r"ps C:\Deploy\x.ps1"}},
        ],
        "raw": {},
    })
}

fn matches(rule: &Rule, alert: &Json) -> bool {
    rule.suppresses(&Judged::new(Alert(alert)), now())
}

#[test]
fn a_rule_fits_by_type_scope_and_evidence_in_any_case() {
    let rule = rule(RULE);
    assert!(matches(&rule, &alert()));
    for (path, value) in [
        ("/title", json!("Something else")),
        ("/source", json!("MicrosoftDefenderForOffice365")),
        ("/devices/0/name", json!("pc-1")),
        ("/devices/0/group", json!("Workstations")),
        ("/evidence/0/roles", json!(["target"])),
        ("/evidence/0/raw/sha256", json!("cc")),
        ("/evidence/1/raw/processCommandLine", json!("whoami")),
    ] {
        let mut other = alert();
        *other.pointer_mut(path).unwrap() = value;
        assert!(!matches(&rule, &other), "{path}");
    }
    let mut by_ip = alert();
    by_ip["evidence"] = json!([{"type": "Ip", "raw": {"ipAddress": "192.0.2.7"}}]);
    assert!(matches(&rule, &by_ip), "the other branch");
    assert!(!rule.suppresses(&Judged::new(Alert(&alert())), at("2027-02-01T00:00:00Z")), "expired");
    let Action::Resolve { classification, determination, .. } = &rule.action else { panic!("{rule:?}") };
    assert_eq!((*classification, *determination), ("FalsePositive", Some("NotMalicious")));
    assert_eq!(
        (rule.allow[0].kind, rule.scope.words().as_str()),
        ("FileSha256", "devices build-*; device groups Servers")
    );
}

#[test]
fn fields_of_one_condition_are_of_one_piece_of_evidence() {
    let rule = rule(&RULE.replace(
        "file: { name: \"deploy*.exe\", sha256: [aa, bb], role: source }",
        "file: { name: a.exe, sha256: bb }",
    ));
    let mut two = alert();
    two["evidence"][0]["raw"]["fileName"] = json!("other.exe");
    two["evidence"].as_array_mut().unwrap().push(json!({"type": "File", "raw": {"fileName": "a.exe", "sha256": "dd"}}));
    assert!(!matches(&rule, &two), "one file has the name, another the hash");
}

#[test]
fn every_kind_of_evidence_can_be_a_condition() {
    for kind in evidence::KINDS {
        let field = kind.fields.last().unwrap().name;
        let text = format!(
            "suppression: a\ncomment: c\nowner: o\nexpires: 2027-01-01\nalert: any\nevidence: {{ {}: {{ {field}: \"x*\", role: attacker }} }}\naction: ignore\n",
            kind.name
        );
        assert!(parse(&text).0.is_some(), "{}", kind.name);
    }
    for (kind, field, raw) in [
        ("script", "content", json!({"type": "AmsiScript", "raw": {"content": "Invoke-X"}})),
        ("wmi", "query", json!({"type": "WmiEvent", "raw": {"query": "invoke-x"}})),
        ("scheduled_task", "name", json!({"type": "ScheduledTask", "raw": {"taskName": "invoke-x"}})),
        ("registry", "key", json!({"type": "RegistryKey", "raw": {"registryKey": "invoke-x"}})),
        ("url", "url", json!({"type": "Url", "raw": {"url": "invoke-x"}})),
        ("mail", "subject", json!({"type": "AnalyzedMessage", "raw": {"subject": "invoke-x"}})),
        ("other", "text", json!({"type": "BrandNew", "raw": {"deep": {"er": "invoke-x"}}})),
    ] {
        let rule = rule(&format!(
            "suppression: a\ncomment: c\nowner: o\nexpires: 2027-01-01\nalert: any\nevidence: {{ {kind}: {{ {field}: \"invoke*\" }} }}\naction: ignore\n"
        ));
        let mut other = alert();
        assert!(!matches(&rule, &other), "{kind}");
        other["evidence"].as_array_mut().unwrap().push(raw);
        assert!(matches(&rule, &other), "{kind}");
    }
}

#[test]
fn a_custom_detection_is_never_suppressed() {
    let rule = rule(RULE);
    for custom in [json!({"id": "ed1_1"}), json!({"raw": {"detectionSource": "customDetection"}})] {
        let mut other = alert();
        custom.as_object().unwrap().iter().for_each(|(name, value)| other[name] = value.clone());
        assert!(!matches(&rule, &other), "{custom}");
    }
}

#[test]
fn every_fault_of_a_rule_is_told_with_its_code() {
    let base = "suppression: a\ncomment: c\nowner: o\nexpires: 2027-01-01\nalert: { title: t }\naction: ignore\n";
    assert_eq!(parse(base).1, []);
    for (text, code) in [
        (base.replace("owner: o", "onwer: o"), "WF0901"),
        (base.replace("owner: o\n", ""), "WF0902"),
        (base.replace("expires: 2027-01-01\n", ""), "WF0902"),
        (base.replace("suppression: a", "suppression: A b"), "WF0903"),
        (base.replace("2027-01-01", "soon"), "WF0903"),
        (base.replace("{ title: t }", "{ source: nothing }"), "WF0903"),
        (base.replace("ignore", "hide"), "WF0903"),
        (base.replace("2027-01-01", "2026-01-01"), "WF0904"),
        (base.replace("{ title: t }", "any"), "WF0905"),
        (format!("{base}scope: {{ users: [ana@contoso.example] }}\n"), "WF0907"),
        (base.replace("title: t", "title: \"*\""), "WF0908"),
        (format!("{base}evidence: {{ file: {{ role: source }} }}\n"), "WF0908"),
        (base.replace("2027-01-01", "2029-01-01"), "WF0909"),
        (base.replace("ignore", "{ resolve: { classification: FalsePositive, determination: Malware } }"), "WF0718"),
        (base.replace("ignore", "{ resolve: { classification: FalsePositive, determination: Clean } }"), "WF0417"),
        (format!("{base}evidence: {{ file: {{ nmae: x }} }}\n"), "WF0901"),
        (format!("{base}allow: [ {{ type: Url, value: \"https://*\" }} ]\n"), "WF0903"),
    ] {
        let found = parse(&text).1;
        assert!(found.iter().any(|fault| fault.code == code), "{code}: {found:?}\n{text}");
    }
    let named = base.replace("suppression: a", "suppression: named") + "scope: { users: [ana@contoso.example] }\n";
    assert!(parse(&named).0.is_some(), "the configuration names it");
    let deep = format!("{base}evidence: {}{{ url: {{ url: x }} }}{}\n", "{ all: [".repeat(30), "] }".repeat(30));
    assert!(parse(&deep).0.is_none());
}

#[test]
fn a_draft_is_a_rule_that_fits_its_alert_and_hostile_text_stays_text() {
    let mut hostile = alert();
    hostile["title"] = json!("x\"\n}}: {{ title\u{1b}[2J # y");
    hostile["evidence"][1]["raw"]["processCommandLine"] = json!("a \" b: } { c # \n - d: 'e' *f* &g !h %i\u{7}");
    for all_evidence in [false, true] {
        for any_type in [false, true] {
            let said = Draft {
                name: "mine",
                comment: "why: \"this\"",
                owner: "o",
                expires: at("2027-01-01T00:00:00Z"),
                all_evidence,
                any_type,
                on_devices: true,
                resolve: Some(("FalsePositive", Some("NotMalicious"))),
            };
            let text = draft(Alert(&hostile), &said).unwrap();
            let (rule, faults) = parse(&text);
            let rule = rule.unwrap_or_else(|| panic!("{}\n{text}", crate::diag::render(&faults, false)));
            assert!(matches(&rule, &hostile), "{text}");
            assert!(text.contains("role: [Source]"), "{text}");
            let mut other = hostile.clone();
            other["evidence"] = json!([]);
            assert!(!matches(&rule, &other), "{text}");
        }
    }
    let mut custom = alert();
    custom["id"] = json!("ed1_1");
    let said = Draft {
        name: "mine",
        comment: "c",
        owner: "o",
        expires: now(),
        all_evidence: true,
        any_type: false,
        on_devices: false,
        resolve: None,
    };
    assert!(draft(Alert(&custom), &said).is_err_and(|why| why.contains("custom detection")));
}

#[test]
fn the_schema_knows_every_key_and_kind() {
    let schema = json_schema();
    for key in ["suppression", "comment", "owner", "expires", "alert", "scope", "evidence", "action", "allow"] {
        assert!(schema["properties"].get(key).is_some(), "{key}");
    }
    let kinds = schema["definitions"]["condition"]["properties"].as_object().unwrap();
    assert_eq!(kinds.len(), evidence::KINDS.len() + 2);
}
