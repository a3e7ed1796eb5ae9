//! Notices that files changed: the configuration, flows and what they include, secrets. It says that something changed, not
//! what: whoever hears of it reads everything again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::config::{Config, SecretRef};

/// Files change in bursts, and an editor writes one in several steps: a change counts when nothing has followed it so long.
const QUIET: Duration = Duration::from_millis(300);
/// Files that never rest are read at last.
const LONGEST: Duration = Duration::from_secs(5);

/// What is watched.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Watched {
    /// Files and folders of flows: all below them counts.
    roots: Vec<PathBuf>,
    /// Single files. Their folder is watched, since editors and roll-outs put a new file in the place of the old one.
    files: Vec<PathBuf>,
    /// Below a root, perhaps, and written to all the time.
    store: PathBuf,
}

impl Watched {
    /// What a service reads with these configurations: the one that it runs with, and the one that could not be taken.
    pub(super) fn of(file: &Path, configs: &[&Config]) -> Self {
        if configs.iter().all(|config| !config.watch) {
            return Watched::default();
        }
        let mut watched = Watched { files: vec![whole(file)], ..Watched::default() };
        for config in configs {
            watched.store = whole(&config.store);
            watched.roots.extend(
                config.flows.iter().chain(&config.catalogues).chain(&config.suppressions).map(|path| whole(path)),
            );
            for (_, secret) in config.secrets() {
                if let SecretRef::File(path) = secret {
                    watched.files.push(whole(path));
                }
            }
            watched.files.extend(config.connections.values().filter_map(|it| it.ca_file.as_deref()).map(whole));
        }
        for list in [&mut watched.roots, &mut watched.files] {
            list.sort();
            list.dedup();
        }
        watched
    }

    fn folders(&self) -> Vec<(PathBuf, RecursiveMode)> {
        let mut folders: Vec<_> = self.roots.iter().map(|root| (root.clone(), RecursiveMode::Recursive)).collect();
        for folder in self.files.iter().filter_map(|file| file.parent()) {
            if folders.iter().all(|(known, _)| known != folder) {
                folders.push((folder.to_path_buf(), RecursiveMode::NonRecursive));
            }
        }
        folders
    }

    fn concerns(&self, event: &Event) -> bool {
        // To be read is no change, or every reload would bring the next one.
        let written = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            EventKind::Access(_) => false,
            _ => true,
        };
        written && (event.need_rescan() || event.paths.iter().any(|path| self.is_ours(path)))
    }

    fn is_ours(&self, path: &Path) -> bool {
        if !self.store.as_os_str().is_empty() && path.starts_with(&self.store) {
            return false;
        }
        let below = |root: &PathBuf| {
            path.strip_prefix(root).is_ok_and(|rest| rest.components().all(|part| part.as_os_str() != ".git"))
        };
        // Mounted configuration changes by a link named `..data` beside the files.
        let swapped = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
        let beside = |file: &PathBuf| swapped && file.parent() == path.parent();
        self.roots.iter().any(below) || self.files.iter().any(|file| file == path || beside(file))
    }
}

/// A path as events name it. What does not exist stays as it is written.
fn whole(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.canonicalize().unwrap_or_else(|_| path.to_path_buf()),
    }
}

/// Hears of changes until it is dropped.
pub(super) struct Watch {
    watched: Watched,
    watcher: Option<RecommendedWatcher>,
    changes: mpsc::Receiver<()>,
    sender: mpsc::Sender<()>,
}

impl Watch {
    pub(super) fn new(watched: Watched) -> Self {
        let (sender, changes) = mpsc::channel(1);
        let mut watch = Watch { watched: Watched::default(), watcher: None, changes, sender };
        watch.follow(watched);
        watch
    }

    /// Watches something else from now on. Between the old and the new nothing is missed.
    pub(super) fn follow(&mut self, watched: Watched) {
        if watched == self.watched {
            return;
        }
        self.watcher = if watched == Watched::default() { None } else { self.watcher(&watched) };
        self.watched = watched;
    }

    fn watcher(&self, watched: &Watched) -> Option<RecommendedWatcher> {
        let (sender, ours) = (self.sender.clone(), watched.clone());
        let heard = move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| ours.concerns(&event)) {
                // One that waits already is enough.
                let _ = sender.try_send(());
            }
        };
        let unwatched = |what: &dyn std::fmt::Display, error: &notify::Error| {
            tracing::warn!(%what, %error, "changes are not noticed here; SIGHUP reloads");
        };
        let mut watcher = match notify::recommended_watcher(heard) {
            Ok(watcher) => watcher,
            Err(error) => {
                unwatched(&"any file", &error);
                return None;
            }
        };
        for (folder, mode) in watched.folders() {
            if let Err(error) = watcher.watch(&folder, mode) {
                unwatched(&folder.display(), &error);
            }
        }
        Some(watcher)
    }

    /// Returns when something has changed and it is quiet again.
    pub(super) async fn changed(&mut self) {
        // The sender is ours, so that this ends with a change alone.
        let _ = self.changes.recv().await;
        let until = tokio::time::Instant::now() + LONGEST;
        while let Ok(Some(())) = tokio::time::timeout(QUIET, self.changes.recv()).await {
            if tokio::time::Instant::now() >= until {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, ModifyKind};

    use super::*;

    #[test]
    fn what_concerns_the_service_is_told_from_what_does_not() {
        let watched = Watched {
            roots: vec!["/etc/wf".into()],
            files: vec!["/etc/wf.yaml".into(), "/run/secrets/mde".into()],
            store: "/etc/wf/data".into(),
        };
        let concerns = |kind: EventKind, path: &str| watched.concerns(&Event::new(kind).add_path(path.into()));
        let modify = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        for path in ["/etc/wf/a.yaml", "/etc/wf/kql/x.kql", "/etc/wf.yaml", "/run/secrets/mde", "/run/secrets/..data"] {
            assert!(concerns(modify, path), "{path}");
        }
        for path in ["/etc/wf/data/journal.db", "/etc/wf/.git/index.lock", "/etc/other", "/run/secrets/graph"] {
            assert!(!concerns(modify, path), "{path}");
        }
        assert!(concerns(EventKind::Create(CreateKind::File), "/etc/wf/new.yaml"));
        assert!(concerns(EventKind::Access(AccessKind::Close(AccessMode::Write)), "/etc/wf/a.yaml"));
        assert!(
            !concerns(EventKind::Access(AccessKind::Close(AccessMode::Read)), "/etc/wf/a.yaml"),
            "it was read by us"
        );
    }

    #[tokio::test]
    async fn a_file_that_is_written_is_one_change() {
        let folder = tempfile::tempdir().unwrap();
        let flows = folder.path().join("flows");
        std::fs::create_dir(&flows).unwrap();
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, "flows: [./flows]").unwrap();
        let config = Config::read(&file).unwrap();
        let mut watch = Watch::new(Watched::of(&file, &[&config]));
        for number in 0..20 {
            std::fs::write(flows.join(format!("{number}.yaml")), "flow: x").unwrap();
        }
        watch.changed().await;
        assert!(watch.changes.try_recv().is_err(), "the burst was one change");
        std::fs::write(folder.path().join("new"), "flows: [./flows]\n").unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
        watch.changed().await;
    }
}
