//! Stores as earlier versions left them, kept as SQL in `tests/journals` and brought forward for ever: what had ended is
//! shown, and what had not goes on.
//!
//! Each was made by killing the service of its time in the middle of the shipped isolation flow, against the simulated
//! tenant with the seed 51 and 14 alerts.

use std::path::Path;

use crate::bin::{Site, Tenant};

/// A store's folder as that version would have left it.
pub(crate) fn lay_out(site: &Site, name: &str) {
    let folder = site.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("watchfloor.db");
    let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journals").join(name);
    let store = rusqlite::Connection::open(&file).unwrap();
    store.execute_batch(&std::fs::read_to_string(sql).unwrap()).unwrap();
    drop(store);
    #[cfg(unix)]
    for (path, mode) in [(&folder, 0o700), (&file, 0o600)] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn journals_of_every_version_are_resumed_and_shown() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journals");
    let mut names: Vec<_> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 2, "{names:?}");
    for name in names {
        let tenant = Tenant::new(51, 14, |_| {});
        let site = Site::new(&tenant).shipped("isolate-high-severity").set("fresh_for", "off");
        lay_out(&site, &name);
        let service = site.start(&[]);
        let runs = site.settled(10, 60);
        for run in &runs {
            let reason = run["reason"].as_str().unwrap_or_default();
            assert!(!reason.contains("can't go on"), "{name}: {run}");
            let shown = site.cli(&["runs", "show", run["id"].as_str().unwrap()]);
            assert_eq!(shown.code, 0, "{name}: {shown:?}");
            assert!(shown.out.contains("alert"), "{name}: {shown:?}");
        }
        assert!(runs.iter().any(|run| run["status"] == "succeeded"), "{name}: {runs:?}");
        assert!(service.stop().success());
        let kept = site.path().join("data").read_dir().unwrap();
        let kept: Vec<_> = kept.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let copied = kept.iter().filter(|file| file.starts_with("watchfloor.format-")).count();
        assert_eq!(copied, 1, "{name}: the store was not copied once before it was changed: {kept:?}");
    }
}
