//! `doctor`, `permissions` and the dates of back ends, as the real binary tells them about the simulated tenant.

use jiff::SignedDuration;
use serde_json::{Value as Json, json};
use watchfloor::clock::Clock;

use crate::bin::{Said, Site, Tenant};

fn grant(tenant: &Tenant, roles: &[&str]) {
    let url = format!("http://{}/_sandbox/roles", tenant.http_addr());
    assert_eq!(tenant.post(&url, &[], json!(roles).to_string()).0, 204);
}

/// What was found about something, by level: text and what to do.
fn found(said: &Said, about: &str, check: &str, level: &str) -> Vec<String> {
    let json = said.json();
    let all = json["findings"].as_array().unwrap().iter();
    all.filter(|it| it["about"] == about && it["check"] == check && it["level"] == level)
        .map(|it| format!("{} | {}", it["text"].as_str().unwrap(), it["todo"].as_str().unwrap_or("")))
        .collect()
}

fn doctor(site: &Site) -> Said {
    site.cli(&["doctor", "-o", "json"])
}

/// Changes the configuration as a person would, in a text editor.
fn edit(site: &Site, change: impl FnOnce(String) -> String) {
    let config = std::fs::read_to_string(site.path().join("config.yaml")).unwrap();
    let changed = change(config.clone());
    assert_ne!(config, changed);
    site.write("config.yaml", &changed);
}

#[test]
fn doctor_says_what_is_missing_and_what_is_too_much() {
    let tenant = Tenant::new(3, 4, |_| {});
    let site = Site::new(&tenant).shipped("isolate-high-severity");
    grant(&tenant, &["Alert.ReadWrite.All", "Machine.Read.All", "Machine.Offboard"]);
    let said = doctor(&site);
    assert_eq!(said.code, 1, "{said:?}");
    let failed = found(&said, "mde", "permissions", "fail");
    let tells = |what: &[&str]| failed.iter().any(|text| what.iter().all(|what| text.contains(what)));
    assert!(tells(&["Machine.Isolate is missing", "mde.isolate_machine of isolate-high-severity"]), "{failed:?}");
    assert!(tells(&["Machine.Isolate is missing", "WindowsDefenderATP", "Grant admin consent"]), "{failed:?}");
    assert!(tells(&["Machine.Offboard is granted, and no flow needs it", "Revoke admin consent"]), "{failed:?}");
    assert_eq!(failed.len(), 2, "{failed:?}");
    let noted = found(&said, "mde", "permissions", "note");
    assert!(
        noted[0].contains("Alert.ReadWrite.All is granted where Alert.Read.All would do; people use it"),
        "{noted:?}"
    );
    grant(&tenant, &["Alert.Read.All", "Machine.Read.All", "Machine.ReadWrite.All", "Machine.Isolate"]);
    let failed = found(&doctor(&site), "mde", "permissions", "fail");
    assert!(failed[0].contains("Machine.ReadWrite.All is granted, and no flow needs it"), "{failed:?}");
    grant(&tenant, &["Alert.Read.All", "Machine.ReadWrite.All", "Machine.Isolate"]);
    let failed = found(&doctor(&site), "mde", "permissions", "fail");
    assert!(failed[0].contains("Machine.ReadWrite.All is granted where Machine.Read.All would do"), "{failed:?}");
    grant(&tenant, &["Alert.Read.All", "Machine.Read.All", "Machine.Isolate"]);
    let said = doctor(&site);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(found(&said, "mde", "permissions", "ok").len(), 1);
    for about in ["mde", "graph", "mdca", "mail", "soc-triage"] {
        assert_eq!(found(&said, about, "answer", "ok").len(), 1, "{about}: {said:?}");
    }
    assert!(found(&said, "graph", "use", "note")[0].contains("no flow uses this connection"));
    assert!(found(&said, "mdca", "rights", "note")[0].contains("the person who made it"));
    let dates = found(&said, "back ends", "date", "note").join("\n");
    assert!(dates.contains("2027-02-01; in its place: none known") && dates.contains("MC1220762"), "{dates}");
    assert!(tenant.effects().values().all(|n| *n == 0), "nothing was sent: {:?}", tenant.effects());
    let human = site.cli(&["doctor", "mde"]);
    assert!(human.out.starts_with("mde\n  ok    name") && human.err.contains("0 failed"), "{human:?}");
}

#[test]
fn connections_that_share_an_application_share_its_permissions() {
    let tenant = Tenant::new(3, 4, |_| {});
    let read = "flow: read-device\ndescription: Reads a device.\nowner: soc@contoso.example\ntrigger: { type: manual }\n\
                inputs: { id: string }\nsteps:\n  - { id: it, action: mde.get_machine, connection: other, with: { machine_id: \"{{ inputs.id }}\" } }\n";
    let hunts = "flow: file-of\ndescription: Reads a file.\nowner: soc@contoso.example\ntrigger: { type: manual }\n\
                 inputs: { id: string }\nsteps:\n  - { id: it, action: mde.get_file, connection: mde, with: { file: \"{{ inputs.id }}\" } }\n";
    let site = Site::new(&tenant).flow("read-device", read).flow("file-of", hunts);
    edit(&site, |config| {
        config.replace("{ mde: {", "{ other: { kind: mde, base_url: \"http://127.0.0.1:1\", THE_SAME }, mde: {")
    });
    edit(&site, |config| {
        let entra = config.split("kind: graph").nth(1).unwrap();
        let entra = entra.split_once("credential: ").unwrap().1.split_once(", rate").unwrap().0.to_owned();
        config.replace("THE_SAME", &format!("credential: {entra}"))
    });
    grant(&tenant, &["Machine.Read.All", "File.Read.All"]);
    let said = site.cli(&["doctor", "mde", "-o", "json"]);
    assert_eq!(found(&said, "mde", "permissions", "fail"), Vec::<String>::new(), "{said:?}");
    grant(&tenant, &["Machine.Read.All", "File.Read.All", "Machine.LiveResponse"]);
    let said = site.cli(&["doctor", "mde", "-o", "json"]);
    assert!(found(&said, "mde", "permissions", "fail")[0].contains("Machine.LiveResponse"), "{said:?}");
}

#[test]
fn the_least_permissions_are_listed_by_connection() {
    let tenant = Tenant::new(3, 1, |_| {});
    let site = Site::new(&tenant).shipped("isolate-high-severity").shipped("resolve-legitimate-travel");
    let list = site.json(&["permissions"]);
    let listed: Vec<(&str, &str)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["connection"].as_str().unwrap(), it["permission"].as_str().unwrap()))
        .collect();
    for needed in [
        ("graph", "IdentityRiskyUser.Read.All"),
        ("graph", "MailboxSettings.Read"),
        ("graph", "User.Read.All"),
        ("mdca", "Investigation.manage"),
        ("mde", "Alert.Read.All"),
        ("mde", "Machine.Isolate"),
        ("mde", "Machine.Read.All"),
        ("mail", "SMTP.SendAsApp"),
        ("soc-triage", "a Workflows webhook"),
    ] {
        assert!(listed.contains(&needed), "{needed:?}: {listed:?}");
    }
    assert_eq!(listed.len(), 9, "Investigation.manage covers Investigation.read: {listed:?}");
    let isolate = list.as_array().unwrap().iter().find(|it| it["permission"] == "Machine.Isolate").unwrap();
    assert_eq!((&isolate["api"], &isolate["flows"]), (&json!("WindowsDefenderATP"), &json!(["isolate-high-severity"])));
}

/// Reads and closes incidents, and reads logs.
const SENTINEL: &str = r#"
flow: close-incident
description: Closes an incident of Sentinel.
owner: soc@contoso.example
trigger: { type: manual }
inputs: { id: string }
steps:
  - { id: it, action: azure.get_incident, with: { incident_id: "{{ inputs.id }}" } }
  - { id: rows, action: azure.query_logs, with: { query: "SigninLogs | count" } }
  - { action: azure.update_incident, with: { incident_id: "{{ it.id }}", severity: Low } }
"#;

#[test]
fn roles_in_azure_are_told_as_such_and_never_as_missing() {
    let tenant = Tenant::new(3, 1, |_| {});
    let site = Site::new(&tenant).flow("close-incident", SENTINEL);
    let base = format!("http://{}", tenant.http_addr());
    edit(&site, |config| {
        let entra = config.split_once("kind: mde, ").unwrap().1.split_once("credential: ").unwrap().1;
        let entra = entra.split_once(", rate").unwrap().0.to_owned();
        let azure = ["azure", "log_analytics"].map(|kind| {
            format!(
                "{kind}: {{ kind: {kind}, base_url: \"{base}/v1/workspaces/9c2f\", credential: {entra}, rate: off }}, "
            )
        });
        config.replace("{ mde: {", &format!("{{ {}mde: {{", azure.concat()))
    });
    let listed = site.json(&["permissions"]);
    let of = |connection: &str| {
        let mine = listed.as_array().unwrap().iter().filter(|it| it["connection"] == connection);
        mine.map(|it| (it["permission"].clone(), it["api"].clone(), it["actions"].clone())).collect::<Vec<_>>()
    };
    let role = json!("Azure role on the workspace");
    let both = json!(["azure.get_incident", "azure.update_incident"]);
    assert_eq!(of("azure"), [(json!("Microsoft Sentinel Responder"), role.clone(), both)], "it covers the reader's");
    assert_eq!(of("log_analytics"), [(json!("Log Analytics Reader"), role, json!(["azure.query_logs"]))]);
    // What is granted elsewhere is in no token for Azure.
    grant(&tenant, &["Alert.Read.All"]);
    let said = site.cli(&["doctor", "azure", "log_analytics", "-o", "json"]);
    assert_eq!(said.code, 0, "{said:?}");
    for (about, role) in [("azure", "Microsoft Sentinel Responder"), ("log_analytics", "Log Analytics Reader")] {
        assert_eq!(found(&said, about, "permissions", "fail"), Vec::<String>::new());
        assert_eq!(found(&said, about, "permissions", "ok"), Vec::<String>::new(), "nobody can see that");
        let notes = found(&said, about, "permissions", "note");
        let tells = [role, "no token tells whether it is assigned", "Access control (IAM)"];
        assert!(notes.len() == 1 && tells.iter().all(|it| notes[0].contains(it)), "{notes:?}");
        assert_eq!(found(&said, about, "token", "ok").len(), 1, "{said:?}");
    }
}

#[test]
fn doctor_names_the_step_for_what_is_broken() {
    let ahead = Clock::from_fn(|| Clock::system().now().checked_add(SignedDuration::from_mins(20)).unwrap());
    let tenant = Tenant::with_clock(ahead, 3, 4, |_| {});
    let site = Site::new(&tenant).shipped("isolate-high-severity");
    site.write("secret-client", "wrong");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let base = format!("http://{}", tenant.http_addr());
    edit(&site, |config| {
        config.replace(&tenant.smtp_addr().to_string(), &gone.to_string()).replace("secret-teams", "not-there").replace(
            &format!("kind: cloud_apps, base_url: \"{base}\""),
            "kind: cloud_apps, base_url: \"https://no-such-host.invalid\"",
        )
    });
    let said = doctor(&site);
    assert_eq!(said.code, 1);
    for (about, check, what) in [
        ("mde", "token", "the client secret is wrong; put the secret's value"),
        ("mde", "clock", "timedatectl"),
        ("mail", "answer", "connecting to the mail server"),
        ("soc-triage", "credential", "webhook_url can't be read"),
        ("mdca", "name", "no-such-host.invalid does not resolve"),
    ] {
        let failed = found(&said, about, check, "fail");
        assert!(failed.len() == 1 && failed[0].contains(what), "{about} {check}: {failed:?} {said:?}");
    }
    assert_eq!(site.cli(&["doctor", "nobody"]).code, 3);
}

#[test]
fn check_tells_which_back_ends_end() {
    let tenant = Tenant::new(3, 1, |_| {});
    let site = Site::new(&tenant).shipped("isolate-high-severity").shipped("resolve-legitimate-travel");
    let said = site.cli(&["check"]);
    assert_eq!(said.code, 0, "{said:?}");
    let notes: Vec<&str> = said.err.lines().filter(|line| line.starts_with("note: ")).collect();
    assert_eq!(notes.len(), 2, "alerts and machines of one API, which ends: {notes:?}");
    assert!(notes[0].contains("isolate-high-severity uses mde.get_alert"), "{notes:?}");
    assert!(notes[0].contains("2027-02-01; in its place: the actions and triggers of xdr"), "{notes:?}");
    assert!(notes[1].contains("mde.isolate_machine") && notes[1].contains("none known"), "{notes:?}");
    let json: Json = site.json(&["check"]);
    assert_eq!(json["notes"][1]["end"], "2027-02-01");
    assert_eq!(json["notes"][1]["flows"], json!(["isolate-high-severity"]));
    let sink = format!("server: \"{}\", tls: none", tenant.smtp_addr());
    let exchange = "server: \"smtp.office365.com:587\", credential: { username: u, password: { file: secret-hook } }";
    edit(&site, |config| config.replace(&sink, exchange));
    let said = site.cli(&["check"]);
    assert!(said.err.contains("connection mail") && said.err.contains("2026-12-31; in its place: XOAUTH2"), "{said:?}");
}
