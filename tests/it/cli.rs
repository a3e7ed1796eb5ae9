//! The real binary: commands that need no network, their exit codes and the JSON that tools rely on.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value as Json;

fn watchfloor(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_watchfloor"))
        .args(args)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

fn json(output: &Output) -> Json {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn actions_have_the_documented_shape() {
    let folder = tempfile::tempdir().unwrap();
    let output = watchfloor(folder.path(), &["actions", "list", "-o", "json"]);
    assert!(output.status.success());
    let list = json(&output);
    let isolate = list.as_array().unwrap().iter().find(|item| item["name"] == "mde.isolate_machine").unwrap();
    assert_eq!((&isolate["connector"], &isolate["effect"]), (&"mde".into(), &"destructive".into()));
    assert_eq!((&isolate["undo"], &isolate["method"]), (&"mde.release_machine".into(), &"POST".into()));
    let mail = list.as_array().unwrap().iter().find(|item| item["name"] == "email.send").unwrap();
    assert!(mail["method"].is_null() && mail["path"].is_null());
    let shown = watchfloor(folder.path(), &["actions", "show", "mde.isolate_machine"]);
    assert!(text(&shown.stdout).contains("isolation_type"));
    let missing = watchfloor(folder.path(), &["actions", "show", "mde.isolate_machin"]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(text(&missing.stderr).contains("did you mean `mde.isolate_machine`?"));
}

#[test]
fn check_prints_its_findings_and_their_number() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("flows")).unwrap();
    let write = |name: &str, body: &str| std::fs::write(folder.path().join("flows").join(name), body).unwrap();
    write("good.yaml", "flow: good\ntrigger: { type: manual }\nsteps: [ { wait: 1s } ]\n");
    let good = watchfloor(folder.path(), &["check", "-o", "json"]);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    assert_eq!(json(&good)["files"], 1);
    write("bad.yaml", "flow: bad\ntriger: { type: manual }\nsteps: [ { wait: 1s } ]\n");
    write("again.yaml", "flow: good\ntrigger: { type: manual }\nsteps: [ { wait: 1s } ]\n");
    let bad = watchfloor(folder.path(), &["check", "-o", "json"]);
    assert_eq!(bad.status.code(), Some(1));
    let report = json(&bad);
    let found = report["diagnostics"].as_array().unwrap();
    let unknown = found.iter().find(|item| item["file"].as_str().unwrap().ends_with("bad.yaml")).unwrap();
    assert_eq!((&unknown["severity"], unknown["line"].is_u64()), (&"error".into(), true));
    assert!(unknown["code"].as_str().unwrap().starts_with("WF"));
    assert!(found.iter().any(|item| item["message"].as_str().unwrap().contains("is also in")), "{report}");
    let github = watchfloor(folder.path(), &["check", "-o", "github"]);
    assert!(text(&github.stdout).lines().all(|line| line.starts_with("::")), "{github:?}");
    let nothing = watchfloor(folder.path(), &["check", "nowhere"]);
    assert_eq!(nothing.status.code(), Some(78));
}

#[test]
fn wrong_use_and_wrong_configuration_have_their_codes() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(watchfloor(folder.path(), &["nope"]).status.code(), Some(2));
    assert_eq!(watchfloor(folder.path(), &["run"]).status.code(), Some(78));
    assert_eq!(watchfloor(folder.path(), &["actions", "list", "-o", "github"]).status.code(), Some(2));
    std::fs::write(folder.path().join("config.yaml"), "webhooks: { w: { auth: { bearer: hunter2 } } }").unwrap();
    let output = watchfloor(folder.path(), &["run", "--allow-insecure-permissions"]);
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    assert!(said.contains("env: NAME") && !said.contains("hunter2"), "{said}");
    std::fs::write(folder.path().join("config.yaml"), "mode: shadow\n").unwrap();
    let start = watchfloor(folder.path(), &["start", "x", "--allow-insecure-permissions"]);
    assert_eq!(start.status.code(), Some(69), "{start:?}");
}

#[test]
fn schema_completions_and_pages_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    assert!(json(&watchfloor(folder.path(), &["schema"])).is_object());
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let output = watchfloor(folder.path(), &["completions", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("watchfloor"));
    }
    let page = watchfloor(folder.path(), &["explain", "wf0108", "-o", "json"]);
    assert_eq!(json(&page)["code"], "WF0108");
    assert_eq!(watchfloor(folder.path(), &["explain", "WF9999"]).status.code(), Some(3));
    let triggers = json(&watchfloor(folder.path(), &["triggers", "list", "-o", "json"]));
    assert!(triggers.as_array().unwrap().iter().any(|item| item["name"] == "mde.alert.new"));
}
