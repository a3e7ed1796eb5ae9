//! The demo ends by itself and did exactly what was due, by the books of the simulated tenant.

use serde_json::{Value as Json, json};

use crate::bin::command;

fn demo(seed: &str) -> Json {
    let folder = tempfile::tempdir().unwrap();
    let said = command(folder.path(), &["demo", "--alerts", "40", "--seed", seed, "--exit", "-o", "json"]);
    let report = said.json();
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing behind");
    report
}

fn clean(report: &Json) {
    let keys: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = ["alerts", "cpu_s", "duplicates", "effects", "expected", "losses", "runs", "wall_s", "wrong"];
    assert_eq!(keys, wanted);
    for count in ["duplicates", "losses", "wrong"] {
        assert_eq!(report[count], 0, "{count}: {report}");
    }
    assert_eq!(report["alerts"], 40);
    assert_eq!(report["effects"], report["expected"]);
    assert!(report["effects"]["mde.isolate_machine"].as_u64() > Some(3), "{report}");
    for (flow, outcomes) in report["runs"].as_object().unwrap() {
        let all: Vec<_> = outcomes.as_object().unwrap().keys().collect();
        assert_eq!(all, ["succeeded"], "{flow}: {report}");
    }
}

#[test]
fn two_tenants_are_handled_without_a_double_or_a_loss() {
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(|| demo("1234"));
        (demo("7"), other.join().unwrap())
    });
    clean(&first);
    clean(&second);
    assert_ne!(first["effects"], json!({}));
    assert_ne!(first["effects"], second["effects"], "another seed is another tenant");
}
