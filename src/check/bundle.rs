//! What a run is pinned to, and its hash. A bundle is enough to compile the flow again after a restart.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::World;
use super::program::{Bundle, CheckedFlow, ENGINE_REVISION};
use crate::catalog::{Action, Catalog, ConnectionKind};
use crate::diag::{Diagnostic, Source};
use crate::id::{digest16, hex};

/// Compiles a bundle again. The result's `version` differs from the stored one where the catalogue or the engine
/// has changed since; the caller decides what that means.
pub fn recompile(
    bundle: &Bundle,
    catalog: &Catalog,
    connections: Option<&BTreeMap<Arc<str>, ConnectionKind>>,
) -> Result<CheckedFlow, Vec<Diagnostic>> {
    let include = |path: &str| {
        bundle.included.get(path).cloned().ok_or_else(|| format!("`{path}` is not part of this version of the flow"))
    };
    let called = |name: &str| bundle.called.get(name).map(|(file, text)| Source::new(file.as_str(), text.as_str()));
    let world = World { catalog, connections, webhooks: None, include: &include, called: &called };
    let source = Source::new(bundle.file.as_str(), bundle.flow.as_str());
    match super::check(&source, &world, true) {
        (Some(flow), _) => Ok(flow),
        (None, found) => Err(found),
    }
}

/// Completes a bundle with the hash of the catalogue entries used, and gives the version.
pub(super) fn seal<'a>(bundle: &mut Bundle, catalog: &Catalog, actions: impl Iterator<Item = &'a str>) -> Arc<str> {
    let mut entries: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    for name in actions {
        let Some(action) = catalog.action(name) else { continue };
        let helpers = [action.look.as_ref().map(|look| &look.action), action.confirm.as_ref().map(|it| &it.action)];
        entries.insert(Arc::clone(&action.name), entry_digest(action));
        for helper in helpers.into_iter().flatten().filter_map(|name| catalog.action(name)) {
            entries.insert(Arc::clone(&helper.name), entry_digest(helper));
        }
    }
    let parts: Vec<&str> = entries.iter().flat_map(|(name, digest)| [&**name, &**digest]).collect();
    bundle.catalog = hex(&digest16(&parts));
    bundle.engine = ENGINE_REVISION;
    version(bundle)
}

/// The version that a bundle's own words add up to: what it was stored under, unless somebody changed it since.
pub fn version(bundle: &Bundle) -> Arc<str> {
    let engine = bundle.engine.to_string();
    let mut parts: Vec<&str> = vec!["flow", &bundle.flow, "catalog", &bundle.catalog, "engine", &engine];
    for (name, (_, text)) in &bundle.called {
        parts.extend(["called", name, text]);
    }
    for (path, text) in &bundle.included {
        parts.extend(["included", path, text]);
    }
    Arc::from(hex(&digest16(&parts)))
}

/// Hashes by the address of their entry.
type Digests = BTreeMap<usize, (Weak<Action>, Arc<str>)>;

/// The hash of one entry, made once: an entry never changes, and writing it out costs more than checking a flow.
fn entry_digest(action: &Arc<Action>) -> Arc<str> {
    static KNOWN: Mutex<Digests> = Mutex::new(BTreeMap::new());
    // The weak pointer keeps the address from being given to another entry while it stands here.
    let address = Arc::as_ptr(action).addr();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, digest)) = known.get(&address) {
        return Arc::clone(digest);
    }
    known.retain(|_, (entry, _)| entry.strong_count() > 0);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(text, "{action:?}");
    let digest: Arc<str> = Arc::from(hex(&digest16(&[&text])));
    known.insert(address, (Arc::downgrade(action), Arc::clone(&digest)));
    digest
}
