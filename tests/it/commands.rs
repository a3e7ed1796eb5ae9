//! Exit codes, and the JSON shapes that other tools rely on.

use serde_json::Value as Json;

use crate::bin::{Site, Tenant, command};
use crate::service::BY_HOOK;

fn keys(item: &Json) -> Vec<&str> {
    item.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn check_says_what_is_wrong_where_and_how_badly() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| command(folder.path(), args);
    assert_eq!(run(&["check", "absent.yaml"]).code, 78);
    std::fs::create_dir(folder.path().join("flows")).unwrap();
    assert_eq!(run(&["check"]).code, 3, "a folder without flows matches nothing");
    std::fs::write(folder.path().join("flows/a.yaml"), BY_HOOK).unwrap();
    let fine = run(&["check", "-o", "json"]);
    assert_eq!((fine.code, keys(&fine.json())), (0, vec!["diagnostics", "files", "notes"]));
    assert_eq!(
        (fine.json()["files"].as_u64(), fine.json()["diagnostics"].as_array().map(Vec::len)),
        (Some(1), Some(0))
    );
    std::fs::write(folder.path().join("flows/a.yaml"), BY_HOOK.replace("'High'", "'high'")).unwrap();
    let wrong = run(&["check", "-o", "json"]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    let faults = wrong.json();
    let fault = &faults["diagnostics"][0];
    assert_eq!(keys(fault), ["code", "column", "file", "help", "line", "message", "severity"]);
    assert_eq!((fault["line"].as_u64(), &fault["severity"]), (Some(9), &Json::from("error")), "{fault}");
    assert_eq!(run(&["explain", fault["code"].as_str().unwrap()]).code, 0);
    let human = run(&["check"]);
    assert!(human.code == 1 && human.out.contains("a.yaml:9:") && human.err.contains("1 errors"), "{human:?}");
    let github = run(&["check", "-o", "github"]);
    assert!(github.code == 1 && github.out.starts_with("::error file=flows/a.yaml,line=9,"), "{github:?}");
}

#[test]
fn actions_are_listed_with_their_effect_and_route() {
    let folder = tempfile::tempdir().unwrap();
    let said = command(folder.path(), &["actions", "list", "-o", "json"]);
    assert_eq!(said.code, 0);
    let listed = said.json();
    let actions = listed.as_array().unwrap();
    for action in actions {
        assert_eq!(keys(action), ["connector", "effect", "method", "name", "path", "permission", "undo"]);
        assert!(["read", "notify", "write", "destructive"].contains(&action["effect"].as_str().unwrap()));
    }
    let find = |name: &str| actions.iter().find(|action| action["name"] == name).unwrap();
    let isolate = find("mde.isolate_machine");
    assert_eq!(
        (&isolate["effect"], &isolate["undo"]),
        (&Json::from("destructive"), &Json::from("mde.release_machine"))
    );
    assert_eq!((&isolate["method"], &isolate["path"]), (&"POST".into(), &"/api/machines/{machine_id}/isolate".into()));
    let mail = find("email.send");
    assert_eq!((&mail["method"], &mail["path"]), (&Json::Null, &Json::Null));
    let lines = command(folder.path(), &["actions", "list", "mde", "-o", "jsonl"]).out;
    assert!(lines.lines().count() > 5);
    assert!(lines.lines().all(|line| serde_json::from_str::<Json>(line).unwrap()["connector"] == "mde"));
    assert_eq!(command(folder.path(), &["actions", "list", "nothing"]).code, 3);
    let near = command(folder.path(), &["actions", "show", "mde.isolate_machin"]);
    assert!(near.code == 3 && near.err.contains("mde.isolate_machine"), "{near:?}");
}

#[test]
fn runs_are_listed_in_the_documented_shape() {
    let tenant = Tenant::new(41, 20, |_| {});
    tenant.feed(20);
    let site = Site::new(&tenant).shipped("isolate-high-severity");
    let none = site.cli(&["runs", "list", "-o", "json"]);
    assert_ne!(none.code, 0, "there is no store yet: {none:?}");
    let service = site.start(&["--from", "1d"]);
    assert_eq!(site.cli(&["runs", "list", "--flow", "another"]).code, 3);
    let n = tenant.endpoint_alerts(20);
    let runs = site.settled(n, 60);
    assert!(service.stop().success());
    for run in &runs {
        let wanted = ["effects", "ended", "flow", "id", "key", "started", "status", "trigger", "version"];
        assert_eq!(keys(run), wanted);
        for key in ["started", "ended"] {
            assert!(run[key].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{run}");
        }
    }
    let started: Vec<_> = runs.iter().map(|run| run["started"].as_str().unwrap()).collect();
    assert!(started.is_sorted_by(|a, b| a >= b), "the newest first");
    let done: u64 = runs.iter().filter_map(|run| run["effects"]["mde.isolate_machine"].as_u64()).sum();
    assert_eq!(done, u64::from(tenant.effects()["mde.isolate_machine"]), "effects are what was done");
    assert_eq!(site.json(&["runs", "list", "--limit", "2"]).as_array().unwrap().len(), 2);
    assert_eq!(site.json(&["runs", "list", "--alert", runs[0]["key"].as_str().unwrap()])[0]["id"], runs[0]["id"]);
    assert_eq!(site.cli(&["runs", "list", "--status", "failed"]).code, 3);
    assert_eq!(site.cli(&["runs", "list", "--status", "broken"]).code, 2);
    assert_eq!(site.cli(&["runs", "show", "nonsense"]).code, 2);
    assert_eq!(site.cli(&["runs", "show", "01ARZ3NDEKTSV4RRFFQ69G5FAV"]).code, 3);
}

#[test]
fn exit_codes_say_whose_fault_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let code = |args: &[&str]| command(folder.path(), args).code;
    assert_eq!(code(&["no-such-command"]), 2);
    assert_eq!(code(&["runs", "list", "-o", "github"]), 2);
    assert_eq!(code(&["run"]), 78, "there is no configuration");
    std::fs::write(folder.path().join("config.yaml"), "moed: live\n").unwrap();
    let typo = command(folder.path(), &["run"]);
    assert!(typo.code == 78 && typo.err.contains("mode"), "{typo:?}");
    assert_eq!(code(&["--version"]), 0);
    assert_eq!(code(&["explain", "WF9999"]), 3);
    assert_eq!((code(&["explain", "aadsts7000222"]), code(&["explain", "AADSTS1"])), (0, 3));
}

#[test]
fn two_services_do_not_share_a_store() {
    let tenant = Tenant::new(42, 1, |_| {});
    let site = Site::new(&tenant).flow("by-hook", BY_HOOK);
    let service = site.start(&[]);
    let second = site.cli(&["run"]);
    assert_eq!(second.code, 69, "{second:?}");
    assert!(service.stop().success());
}

#[test]
fn a_store_is_copied_while_the_service_runs_and_its_audit_log_is_verified() {
    let tenant = Tenant::new(51, 14, |_| {});
    let site = Site::new(&tenant).shipped("isolate-high-severity");
    let service = site.start(&["--from", "1d"]);
    tenant.feed(14);
    site.settled(tenant.endpoint_alerts(14), 60);
    let copied = site.json(&["backup", "copy.db"]);
    assert_eq!(keys(&copied), ["at", "bytes", "file", "seconds"]);
    assert_eq!(site.cli(&["backup", "copy.db"]).code, 75, "a file is never replaced");
    let whole = site.cli(&["audit", "verify", "--checkpoint", "seen.json", "-o", "json"]);
    assert!(whole.code == 0 && whole.json()["lines"].as_u64() > Some(0), "{whole:?}");
    let lines = site.cli(&["audit", "export"]).out;
    let first: Json = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((keys(&first), &first["no"]), (vec!["at", "body", "hash", "no"], &Json::from(1)));
    assert!(service.stop().success());
    assert_eq!(site.cli(&["audit", "verify", "--against", "seen.json"]).code, 0);
    // The end is cut off: only a checkpoint tells.
    let store = rusqlite::Connection::open(site.path().join("data/watchfloor.db")).unwrap();
    store.execute("DELETE FROM audit WHERE no = (SELECT max(no) FROM audit)", []).unwrap();
    drop(store);
    assert_eq!(site.cli(&["audit", "verify"]).code, 0);
    let cut = site.cli(&["audit", "verify", "--against", "seen.json"]);
    assert!(cut.code == 1 && cut.out.contains("lines were cut off"), "{cut:?}");
}
