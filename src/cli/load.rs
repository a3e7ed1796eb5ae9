//! Flow files from folders to cards: found, bounded, read, checked on all cores.
//!
//! What is checked is not kept compiled: ten thousand flows would fill hundreds of megabytes, and few of them run at once.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::cache::{Cache, Entry};
use crate::catalog::{Catalog, ConnectionKind};
use crate::check::{self, Card, CheckedFlow, World, follow};
use crate::config::Config;
use crate::diag::{Diagnostic, Severity, Source, Span};
use crate::error::Error;
use crate::trigger::house;

/// Largest flow file or included file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
const MAX_FILES: usize = 100_000;
const MAX_DEPTH: usize = 32;

/// What came of a list of paths.
pub(super) struct Loaded {
    pub(super) texts: Texts,
    /// The flows without errors, each with the index of its file.
    pub(super) flows: Vec<(Card, usize)>,
    /// Of the files with errors, and of those without that were checked now.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// What is known of the files now, for the next start; empty without a cache.
    pub(super) entries: HashMap<String, Arc<Entry>>,
}

impl Loaded {
    pub(super) fn files(&self) -> usize {
        self.texts.files.len()
    }

    pub(super) fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|fault| fault.severity == Severity::Error).count()
    }
}

/// A flow file that was read.
pub(super) struct File {
    pub(super) source: Arc<Source>,
    /// The folder that what it includes lies below.
    pub(super) folder: PathBuf,
    stamp: Stamp,
}

/// What tells a file that was written to from one that was not.
type Stamp = Option<(u64, SystemTime)>;

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

/// An included file as it was first read.
struct Included {
    text: Result<Arc<str>, String>,
    stamp: Stamp,
}

/// The texts of one moment: flow files, and what they include as it was first read. A flow that is compiled later is
/// compiled from these, whatever has happened to the files since.
pub(super) struct Texts {
    pub(super) files: Vec<File>,
    by_name: HashMap<String, usize>,
    included: Mutex<HashMap<PathBuf, Included>>,
}

impl Texts {
    fn new(files: Vec<File>) -> Self {
        let names = files.iter().enumerate();
        let by_name =
            names.filter_map(|(index, file)| Some((flow_name(&file.source.text)?.to_owned(), index))).collect();
        Texts { files, by_name, included: Mutex::default() }
    }

    /// A file that a flow includes; read once.
    pub(super) fn include(&self, folder: &Path, path: &str) -> Result<Arc<str>, String> {
        let key = folder.join(path);
        let included = || self.included.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = included().get(&key) {
            return known.text.clone();
        }
        let stamp = stamp(&key);
        let text = include(folder, path).map(Arc::from);
        included().entry(key).or_insert(Included { text, stamp }).text.clone()
    }

    /// Whether the files are still those that were read. One that somebody is writing may have been read half.
    pub(super) fn settled(&self) -> bool {
        let included = self.included.lock().unwrap_or_else(PoisonError::into_inner);
        self.files.iter().all(|file| stamp(Path::new(&file.source.name)) == file.stamp)
            && included.iter().all(|(path, known)| stamp(path) == known.stamp)
    }

    /// The file of the flow that a `call:` names.
    pub(super) fn called(&self, name: &str) -> Option<Arc<Source>> {
        self.by_name.get(name).and_then(|index| self.files.get(*index)).map(|file| Arc::clone(&file.source))
    }
}

/// What flows are checked against, besides the catalogue.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Site {
    pub(super) connections: Option<BTreeMap<Arc<str>, ConnectionKind>>,
    pub(super) webhooks: Option<Vec<Arc<str>>>,
    /// The hash of the user's own connectors, for what is kept between starts.
    pub(super) catalogues: Arc<str>,
}

impl Site {
    pub(super) fn of(config: &Config) -> Self {
        Site {
            connections: Some(config.connections.values().map(|c| (Arc::clone(&c.name), c.kind)).collect()),
            webhooks: Some(config.webhooks.keys().cloned().collect()),
            catalogues: Arc::default(),
        }
    }

    pub(super) fn with(config: &Config, catalog: &Catalog) -> Self {
        Site { catalogues: Arc::clone(&catalog.own_digest), ..Site::of(config) }
    }
}

/// Reads and checks every flow file below the paths. What is not in this version is refused. A file that the cache knows is
/// not checked again.
pub(super) fn load(paths: &[PathBuf], catalog: &Catalog, site: &Site, cache: Option<&Cache>) -> Result<Loaded, Error> {
    let mut found = vec![];
    let mut diagnostics = vec![];
    for path in paths {
        find(path, &mut found, &mut diagnostics)?;
    }
    found.sort();
    found.dedup();
    let mut files = vec![];
    for path in &found {
        let stamp = stamp(path);
        match read(path) {
            Ok(text) => {
                let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
                files.push(File { source: Source::new(path.display().to_string(), text), folder, stamp });
            }
            Err(message) => diagnostics.push(unreadable(path, message)),
        }
    }
    let texts = Texts::new(files);
    let (flows, found, entries) = check_all(&texts, catalog, site, cache);
    diagnostics.extend(found);
    let flows = unique(flows, &texts, &mut diagnostics);
    let flows = followed(flows, &texts, &mut diagnostics);
    diagnostics.sort_by(|a, b| (&a.source.name, a.span.start).cmp(&(&b.source.name, b.span.start)));
    Ok(Loaded { texts, flows, diagnostics, entries })
}

type Checked = (Vec<(Card, usize)>, Vec<Diagnostic>, HashMap<String, Arc<Entry>>);

fn check_all(texts: &Texts, catalog: &Catalog, site: &Site, cache: Option<&Cache>) -> Checked {
    let all: Vec<usize> = (0..texts.files.len()).collect();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(all.len().max(1));
    let chunk = all.len().div_ceil(threads).max(1);
    let work = |part: &[usize]| {
        let (mut cards, mut diagnostics, mut entries) = (vec![], vec![], vec![]);
        for (index, file) in part.iter().filter_map(|index| Some((*index, texts.files.get(*index)?))) {
            if let Some(entry) = cache.and_then(|cache| cache.known(file, texts)) {
                cards.push((entry.card().clone(), index));
                entries.push((file.source.name.clone(), entry));
                continue;
            }
            let (flow, faults) = check_one(file, texts, catalog, site);
            if let Some(flow) = flow {
                cards.push((Card::of(&flow, faults.len()), index));
                if cache.is_some() {
                    entries.push((file.source.name.clone(), Arc::new(Entry::of(file, &flow, faults.len()))));
                }
            }
            diagnostics.extend(faults);
        }
        (cards, diagnostics, entries)
    };
    let results = std::thread::scope(|scope| {
        let work = &work;
        let handles: Vec<_> = all.chunks(chunk).map(|part| scope.spawn(move || work(part))).collect();
        handles.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let (mut cards, mut diagnostics, mut entries) = (vec![], vec![], HashMap::new());
    for result in results {
        match result {
            Ok((some, faults, known)) => {
                cards.extend(some);
                diagnostics.extend(faults);
                entries.extend(known);
            }
            // A bug in checking: it must not look like a clean file.
            Err(_) => {
                let source = Source::new("<check>", "");
                let message = "checking stopped with a bug in watchfloor; please report the files";
                diagnostics.push(Diagnostic::error("WF0199", &source, Span::default(), message));
            }
        }
    }
    (cards, diagnostics, entries)
}

/// Checks one file among its texts. Without errors, what was found are warnings.
pub(super) fn check_one(
    file: &File,
    texts: &Texts,
    catalog: &Catalog,
    site: &Site,
) -> (Option<CheckedFlow>, Vec<Diagnostic>) {
    let include = |path: &str| texts.include(&file.folder, path).map(|text| text.to_string());
    let called = |name: &str| texts.called(name);
    let world = World {
        catalog,
        connections: site.connections.as_ref(),
        webhooks: site.webhooks.as_deref(),
        include: &include,
        called: &called,
    };
    check::check(&file.source, &world, true)
}

/// The name on a file's `flow:` line, to find called flows by; the checker reads it properly.
fn flow_name(text: &str) -> Option<&str> {
    let line = text.lines().find_map(|line| line.strip_prefix("flow:"))?;
    let name = line.split(" #").next()?.trim().trim_matches(['"', '\'']);
    (!name.is_empty()).then_some(name)
}

/// Two files with one name would share runs, keys and limits: neither is taken.
fn unique(flows: Vec<(Card, usize)>, texts: &Texts, diagnostics: &mut Vec<Diagnostic>) -> Vec<(Card, usize)> {
    let mut first: HashMap<Arc<str>, usize> = HashMap::new();
    let mut kept = vec![];
    for (card, index) in flows {
        if house::is_ours(&card.name)
            && let Some(file) = texts.files.get(index)
        {
            let at = file.source.text.find("flow:").map_or_else(Span::default, |at| Span::new(at, at + 5));
            let message = format!("the name {} belongs to watchfloor's own flow", card.name);
            diagnostics.push(Diagnostic::error("WF0198", &file.source, at, message).help("give it another name"));
            continue;
        }
        match first.get(&card.name).and_then(|other| texts.files.get(*other)).zip(texts.files.get(index)) {
            None => {
                first.insert(Arc::clone(&card.name), index);
                kept.push((card, index));
            }
            Some((other, file)) => {
                let source = &file.source;
                let at = source.text.find("flow:").map_or_else(Span::default, |at| Span::new(at, at + 5));
                let message = format!("the flow {} is also in {}", card.name, other.source.name);
                let fault = Diagnostic::error("WF0198", source, at, message);
                diagnostics.push(fault.help("give one of the two another name"));
            }
        }
    }
    kept
}

/// Flows that follow one another in a circle, or a flow that is not there, are not taken.
fn followed(flows: Vec<(Card, usize)>, texts: &Texts, diagnostics: &mut Vec<Diagnostic>) -> Vec<(Card, usize)> {
    let cards: Vec<&Card> = flows.iter().map(|(card, _)| card).collect();
    let faults = follow::faults(&cards);
    for fault in &faults {
        let Some((card, index)) = flows.get(fault.flow) else { continue };
        let (Some(file), Some(follows)) = (texts.files.get(*index), &card.follows) else { continue };
        // A flow whose own file has errors is there: those errors are what is to be mended.
        if fault.code == "WF0708" && texts.called(&follows.flow).is_some() {
            continue;
        }
        let at = Span::new(follows.start, follows.end);
        diagnostics.push(Diagnostic::error(fault.code, &file.source, at, fault.message.as_str()).help(fault.help));
    }
    let wrong = |index: usize| faults.iter().any(|fault| fault.flow == index);
    let kept = flows.into_iter().enumerate().filter(|(index, _)| !wrong(*index));
    kept.map(|(_, flow)| flow).collect()
}

pub(super) fn unreadable(path: &Path, message: String) -> Diagnostic {
    Diagnostic::error("WF0197", &Source::new(path.display().to_string(), ""), Span::default(), message)
}

/// The flow files below a path. A path that a person names must exist; what lies below is looked at with care.
pub(super) fn find(path: &Path, found: &mut Vec<PathBuf>, diagnostics: &mut Vec<Diagnostic>) -> Result<(), Error> {
    let meta = std::fs::metadata(path)
        .map_err(|error| Error::config(format!("reading flows from {}: {error}", path.display())))?;
    if !meta.is_dir() {
        found.push(path.to_path_buf());
        return Ok(());
    }
    let root = path.canonicalize().map_err(|error| Error::config(format!("reading {}: {error}", path.display())))?;
    walk(path, &root, 0, found, diagnostics)
}

fn walk(
    folder: &Path,
    root: &Path,
    depth: usize,
    found: &mut Vec<PathBuf>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::config(format!("reading the folder {}: {error}", folder.display()));
    if depth > MAX_DEPTH {
        return Err(Error::config(format!("{} is more than {MAX_DEPTH} folders deep", folder.display())));
    }
    if open_to_all(folder) {
        let message = "every user of this machine can put flows into this folder; `chmod o-w` it";
        diagnostics.push(unreadable(folder, message.into()));
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if name.is_empty() || name.starts_with('.') {
            continue;
        }
        let is_flow = (name.ends_with(".yaml") || name.ends_with(".yml")) && !crate::check::is_card(name);
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if meta.is_symlink() {
            let inside = path.canonicalize().is_ok_and(|target| target.starts_with(root) && target.is_file());
            match (is_flow, inside) {
                (true, true) => found.push(path),
                (true, false) => diagnostics.push(unreadable(&path, "a link out of the folder is not followed".into())),
                (false, _) => {}
            }
        } else if meta.is_dir() {
            walk(&path, root, depth + 1, found, diagnostics)?;
        } else if is_flow {
            found.push(path);
        }
        if found.len() > MAX_FILES {
            return Err(Error::config(format!("more than {MAX_FILES} flow files below {}", root.display())));
        }
    }
    Ok(())
}

#[cfg(unix)]
fn open_to_all(folder: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(folder).is_ok_and(|meta| meta.permissions().mode() & 0o002 != 0)
}

#[cfg(not(unix))]
fn open_to_all(_: &Path) -> bool {
    false
}

/// A bounded regular file's text; the error is a sentence.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let meta = std::fs::metadata(path).map_err(|error| format!("this file cannot be read: {error}"))?;
    if !meta.is_file() {
        return Err("this is no regular file".into());
    }
    if meta.len() > MAX_BYTES {
        return Err("this file is larger than 1 MiB".into());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if meta.permissions().mode() & 0o002 != 0 {
            return Err("every user of this machine can change this file; `chmod o-w` it".into());
        }
    }
    let bytes = std::fs::read(path).map_err(|error| format!("this file cannot be read: {error}"))?;
    String::from_utf8(bytes).map_err(|_| "this file is not UTF-8 text".into())
}

/// A file that a flow names, below the flow's own folder.
fn include(folder: &Path, path: &str) -> Result<String, String> {
    let parts = || Path::new(path).components();
    if path.is_empty() || !parts().all(|part| matches!(part, std::path::Component::Normal(_))) {
        return Err(format!("`{path}` does not stay below the flow's folder"));
    }
    // `.env` and `.git` lie beside flows too, and hold what no message should.
    if parts().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b".")) {
        return Err(format!("`{path}` is a hidden file or lies in a hidden folder; give it another name"));
    }
    let whole = folder.join(path);
    let root = folder.canonicalize().map_err(|error| format!("reading `{path}`: {error}"))?;
    let target = whole.canonicalize().map_err(|error| format!("reading `{path}`: {error}"))?;
    if !target.starts_with(&root) {
        return Err(format!("`{path}` is a link out of the flow's folder"));
    }
    if let Ok(below) = target.strip_prefix(&root)
        && below.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
    {
        return Err(format!("`{path}` is a link to a hidden file"));
    }
    read(&target).map_err(|error| format!("`{path}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_on_their_line() {
        assert_eq!(flow_name("# x\nflow: isolate-high # y\n"), Some("isolate-high"));
        assert_eq!(flow_name("flow: 'a'"), Some("a"));
        assert_eq!(flow_name("  flow: a"), None);
    }

    #[cfg(unix)]
    #[test]
    fn files_stay_in_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let flows = folder.path().join("flows");
        std::fs::create_dir_all(flows.join("kql")).unwrap();
        std::fs::write(folder.path().join("secret.yaml"), "x").unwrap();
        std::fs::write(flows.join("kql/a.kql"), "AlertInfo").unwrap();
        std::fs::write(flows.join("a.yaml"), "flow: a").unwrap();
        std::fs::write(flows.join("seen.card.yaml"), "type: AdaptiveCard").unwrap();
        std::os::unix::fs::symlink("../secret.yaml", flows.join("out.yaml")).unwrap();
        std::os::unix::fs::symlink("../../secret.yaml", flows.join("kql/out.kql")).unwrap();
        let (mut found, mut faults) = (vec![], vec![]);
        find(&flows, &mut found, &mut faults).unwrap();
        assert_eq!(found, [flows.join("a.yaml")]);
        assert_eq!(faults.len(), 1);
        assert_eq!(include(&flows, "kql/a.kql").as_deref(), Ok("AlertInfo"));
        std::fs::write(flows.join(".env"), "x").unwrap();
        std::fs::create_dir(flows.join(".git")).unwrap();
        std::fs::write(flows.join(".git/config"), "x").unwrap();
        std::os::unix::fs::symlink(".git/config", flows.join("link.kql")).unwrap();
        for path in [".env", ".git/config", "link.kql"] {
            assert!(include(&flows, path).is_err_and(|error| error.contains("hidden")), "{path}");
        }
        use std::os::unix::fs::PermissionsExt;
        let shared = flows.join("shared");
        std::fs::create_dir(&shared).unwrap();
        std::fs::write(shared.join("b.yaml"), "flow: b").unwrap();
        std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o777)).unwrap();
        let (mut found, mut faults) = (vec![], vec![]);
        find(&flows, &mut found, &mut faults).unwrap();
        assert_eq!(found, [flows.join("a.yaml")]);
        assert!(faults.iter().any(|fault| fault.message.contains("chmod o-w")), "{faults:?}");
        for path in ["../secret.yaml", "/etc/passwd", "kql/../../secret.yaml", "", "kql/out.kql", "kql"] {
            assert!(include(&flows, path).is_err(), "{path}");
        }
    }
}
