//! What is known of flows that were checked before: a file beside the store, so that a start need not check again what has
//! not changed.
//!
//! It is taken for what it is, a shortcut: it holds for the same program, connections and webhooks, and for the same bytes of
//! the flow, of what it includes and of the flows that it calls. Damaged, it is not there. And whatever it says, a flow is
//! checked in full when it is compiled, and does not run if it is not what was said.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::control::write_private;
use super::load::{File, Site, Texts};
use crate::check::program::ENGINE_REVISION;
use crate::check::{Card, CheckedFlow};
use crate::id::{digest16, hex};

const FILE: &str = "flows.cache";
/// A larger one is not ours.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// One flow file: what it was checked with, and what came of it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    text: String,
    /// Hashes of included files by their path as written, and of called flows' files by the flow's name.
    included: BTreeMap<String, String>,
    called: BTreeMap<String, String>,
    card: Card,
}

#[derive(Default, Serialize, Deserialize)]
struct Kept {
    environment: String,
    files: HashMap<String, Arc<Entry>>,
}

/// The entries of an earlier start.
pub(super) struct Cache {
    file: PathBuf,
    kept: Kept,
}

impl Cache {
    /// Reads what an earlier start left; nothing where that is for another program or other connections, or is damaged.
    pub(super) fn open(store: &Path, site: &Site) -> Self {
        let mut cache = Cache::none(store, site);
        if let Some(kept) = read(&cache.file).filter(|kept| kept.environment == cache.kept.environment) {
            cache.kept = kept;
        }
        cache
    }

    /// Knows nothing: every flow is checked.
    pub(super) fn none(store: &Path, site: &Site) -> Self {
        let kept = Kept { environment: environment(site), files: HashMap::new() };
        Cache { file: store.join(FILE), kept }
    }

    /// What is known of a file, if all that it was checked with is as it was.
    pub(super) fn known(&self, file: &File, texts: &Texts) -> Option<Arc<Entry>> {
        let entry = self.kept.files.get(&file.source.name)?;
        let same = entry.text == hash(&file.source.text)
            && entry.called.iter().all(|(name, was)| texts.called(name).is_some_and(|it| hash(&it.text) == *was))
            && entry
                .included
                .iter()
                .all(|(path, was)| texts.include(&file.folder, path).is_ok_and(|it| hash(&it) == *was));
        same.then(|| Arc::clone(entry))
    }

    /// Whether these entries are what it holds already.
    pub(super) fn holds(&self, entries: &HashMap<String, Arc<Entry>>) -> bool {
        let known = |(name, entry): (&String, &Arc<Entry>)| {
            self.kept.files.get(name).is_some_and(|known| Arc::ptr_eq(known, entry))
        };
        entries.len() == self.kept.files.len() && entries.iter().all(known)
    }

    /// Leaves entries for the next start. A failure costs that start its time and nothing else.
    pub(super) fn leave(self, entries: HashMap<String, Arc<Entry>>) {
        let Cache { file, kept } = self;
        let kept = Kept { files: entries, ..kept };
        let written = serde_json::to_string(&kept).map_err(std::io::Error::from).and_then(|body| {
            let next = file.with_extension("cache-next");
            write_private(&next, format!("{}\n{body}", hash(&body)).as_bytes())?;
            std::fs::rename(next, &file)
        });
        if let Err(error) = written {
            tracing::warn!(%error, file = %file.display(), "what was checked could not be kept for the next start");
        }
    }
}

impl Entry {
    pub(super) fn of(file: &File, flow: &CheckedFlow, warnings: usize) -> Self {
        let bundle = &flow.bundle;
        Entry {
            text: hash(&file.source.text),
            included: bundle.included.iter().map(|(path, text)| (path.clone(), hash(text))).collect(),
            called: bundle.called.iter().map(|(name, (_, text))| (name.clone(), hash(text))).collect(),
            card: Card::of(flow, warnings),
        }
    }

    pub(super) fn card(&self) -> &Card {
        &self.card
    }
}

fn read(file: &Path) -> Option<Kept> {
    if std::fs::metadata(file).ok()?.len() > MAX_BYTES {
        return None;
    }
    let text = std::fs::read_to_string(file).ok()?;
    let (sum, body) = text.split_once('\n')?;
    if sum != hash(body) {
        tracing::warn!(file = %file.display(), "what was kept of the last start is damaged: all flows are checked again");
        return None;
    }
    serde_json::from_str(body).ok()
}

/// Everything beside the files that a check depends on. The shipped catalogue is a part of the program.
fn environment(site: &Site) -> String {
    // Two builds of one version may differ in what they check.
    let built = std::env::current_exe().and_then(std::fs::metadata).ok();
    let built = built.map(|meta| (meta.len(), meta.modified().ok()));
    hash(&format!(
        "1 {} {ENGINE_REVISION} {built:?} {:?} {:?} {}",
        env!("CARGO_PKG_VERSION"),
        site.connections,
        site.webhooks,
        site.catalogues
    ))
}

fn hash(text: &str) -> String {
    hex(&digest16(&[text]))
}

#[cfg(test)]
mod tests {
    use super::super::load;
    use super::*;
    use crate::catalog::Catalog;

    /// How many flows a load had to check.
    fn checked(folder: &Path, store: &Path) -> usize {
        let site = Site::default();
        let cache = Cache::open(store, &site);
        let loaded = load::load(&[folder.to_path_buf()], &Catalog::builtin().unwrap(), &site, Some(&cache)).unwrap();
        assert_eq!((loaded.errors(), loaded.flows.len()), (0, loaded.files()));
        let known = loaded
            .entries
            .iter()
            .filter(|(name, it)| cache.kept.files.get(*name).is_some_and(|known| Arc::ptr_eq(known, it)));
        let fresh = loaded.entries.len() - known.count();
        assert_eq!(cache.holds(&loaded.entries), fresh == 0 && cache.kept.files.len() == loaded.entries.len());
        cache.leave(loaded.entries);
        fresh
    }

    #[test]
    fn only_what_changed_is_checked_again() {
        let (folder, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (flows, store) = (folder.path(), store.path());
        let write = |name: &str, text: &str| std::fs::write(flows.join(name), text).unwrap();
        let calls = "flow: outer\ntrigger: { type: manual }\nsteps: [ { id: sub, call: inner } ]\n";
        let mail = "flow: mail\ntrigger: { type: manual }\nsteps:\n  - { action: email.send, with: { to: [a@contoso.example], \
                    subject: s, text_file: t.txt } }\n";
        write("inner.yaml", "flow: inner\ntrigger: { type: manual }\nsteps: [ { wait: 1m } ]\n");
        write("outer.yaml", calls);
        write("mail.yaml", mail);
        write("t.txt", "hello");
        assert_eq!(checked(flows, store), 3);
        assert_eq!(checked(flows, store), 0);
        write("t.txt", "hello again");
        assert_eq!(checked(flows, store), 1, "the mail includes it");
        write("inner.yaml", "flow: inner\ntrigger: { type: manual }\nsteps: [ { wait: 2m } ]\n");
        assert_eq!(checked(flows, store), 2, "it and its caller");
        std::fs::remove_file(flows.join("mail.yaml")).unwrap();
        assert_eq!(checked(flows, store), 0);
        // Damage, of any kind, is as if nothing were there.
        let file = store.join(FILE);
        let whole = std::fs::read_to_string(&file).unwrap();
        for damaged in [
            whole.replacen("1m", "9m", 1).replacen("manual", "webhook", 1),
            whole.get(..whole.len() / 2).unwrap().to_owned(),
            String::new(),
        ] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(checked(flows, store), 2);
            assert_eq!(checked(flows, store), 0);
        }
        // Other connections, another check.
        let site = Site { connections: Some(BTreeMap::new()), ..Site::default() };
        assert!(Cache::open(store, &site).kept.files.is_empty());
    }
}
