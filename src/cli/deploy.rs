//! From checked files to flows that start runs: modes, when each began, and their compiled forms as they are needed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::load::{self, Loaded, Site, Texts};
use super::runs;
use crate::catalog::Catalog;
use crate::check::{self, Card, CheckedFlow};
use crate::config::Config;
use crate::error::Error;
use crate::flow::model::Mode;
use crate::journal::{Op, RunRow, Store};
use crate::trigger::{Compile, Deployed, Deployment, Flows, Given, follow};
use crate::worker::Registry;

/// Compiled flows that are kept. One takes some 40 KiB; those beyond are compiled again when they are needed.
const COMPILED: usize = 512;
/// A flow that comes back within this time was not away: files move about while a new version is rolled out, and an alert of
/// these moments may still be to come.
const AWAY: SignedDuration = SignedDuration::from_mins(60);
const ACTIVATIONS: &str = "flows/activated";

/// The flows compiled last, by version.
#[derive(Default)]
pub(super) struct Shelf(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    flows: HashMap<Arc<str>, (Arc<CheckedFlow>, u64)>,
    uses: u64,
}

impl Shelf {
    fn get(&self, version: &str) -> Option<Arc<CheckedFlow>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let uses = kept.uses;
        let (flow, used) = kept.flows.get_mut(version)?;
        *used = uses;
        Some(Arc::clone(flow))
    }

    fn put(&self, flow: &Arc<CheckedFlow>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        if kept.flows.len() >= COMPILED {
            // Half of them at once, so that making room costs little for each.
            let mut ages: Vec<u64> = kept.flows.values().map(|(_, used)| *used).collect();
            ages.sort_unstable();
            let edge = ages.get(COMPILED / 2).copied().unwrap_or(0);
            kept.flows.retain(|_, (_, used)| *used > edge);
        }
        let uses = kept.uses;
        kept.flows.insert(Arc::clone(&flow.version), (Arc::clone(flow), uses));
    }
}

/// The texts behind a deployment, and what they are checked against: makes the compiled forms.
pub(super) struct Library {
    texts: Texts,
    /// The file of each flow.
    files: HashMap<Arc<str>, usize>,
    catalog: Arc<Catalog>,
    site: Site,
    shelf: Arc<Shelf>,
    /// Told when a flow is not what was deployed: then what is known of the flows is to be made afresh.
    doubt: Arc<Notify>,
}

impl Compile for Library {
    fn compile(&self, card: &Card) -> Result<Arc<CheckedFlow>, String> {
        // The version is what the card says: what was compiled under it must be what the card says of the rest, too.
        if let Some(flow) = self.shelf.get(&card.version).filter(|flow| Card::of(flow, card.warnings) == *card) {
            return Ok(flow);
        }
        let flow = self.checked(card).inspect_err(|error| {
            tracing::error!(flow = %card.name, error, "a deployed flow could not be compiled: all flows are read again");
            self.doubt.notify_one();
        })?;
        self.shelf.put(&flow);
        Ok(flow)
    }
}

impl Library {
    /// The flow checked in full; whatever was known of it before must still be so.
    fn checked(&self, card: &Card) -> Result<Arc<CheckedFlow>, String> {
        let file = self.files.get(&card.name).and_then(|index| self.texts.files.get(*index));
        let file = file.ok_or_else(|| format!("the flow {} has no file", card.name))?;
        let (flow, faults) = load::check_one(file, &self.texts, &self.catalog, &self.site);
        let flow = flow.ok_or_else(|| {
            let why = faults.first().map_or_else(String::new, |fault| format!(": {}", fault.message));
            format!("the flow {} does not check{why}", card.name)
        })?;
        if Card::of(&flow, faults.len()) != *card {
            return Err(format!("the flow {} is not what was deployed; nothing of it runs", card.name));
        }
        Ok(Arc::new(flow))
    }
}

/// What stays from one deployment to the next.
#[derive(Clone, Default)]
pub(super) struct Stock {
    pub(super) shelf: Arc<Shelf>,
    pub(super) doubt: Arc<Notify>,
}

/// When a flow began, and since when it is away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Begun {
    at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<Timestamp>,
}

/// When each flow began, as the store keeps it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Activations(BTreeMap<String, Begun>);

impl Activations {
    pub(super) fn read(store: &dyn Store, flows: &[(Card, usize)]) -> Result<Self, Error> {
        if let Some(body) = store.get(ACTIVATIONS).map_err(runs::failed)? {
            let kept = serde_json::from_slice(&body);
            return kept
                .map(Activations)
                .map_err(|error| Error::unavailable(format!("reading from the store when the flows began: {error}")));
        }
        // Until this was one row, each flow had its own.
        let mut kept = BTreeMap::new();
        for (card, _) in flows {
            let body = store.get(&format!("flow/{}/activated", card.name)).map_err(runs::failed)?;
            let at = body.and_then(|body| std::str::from_utf8(&body).ok()?.parse().ok());
            kept.extend(at.map(|at| (card.name.to_string(), Begun { at, gone: None })));
        }
        Ok(Activations(kept))
    }

    /// The flows that are deployed from now on. What is new begins now, or where polls begin.
    fn follow(&mut self, flows: &[(Card, usize)], from: Option<Timestamp>, now: Timestamp) {
        let mut kept = BTreeMap::new();
        for (card, _) in flows {
            // An earlier beginning is for what is polled: no schedule makes up for time before the installation.
            let begin = from.filter(|_| card.source.is_some() && !card.hook).unwrap_or(now);
            let before = self.0.remove(&*card.name);
            let stayed = before.filter(|begun| begun.gone.is_none_or(|gone| now.duration_since(gone) < AWAY));
            let at = stayed.map_or(begin, |begun| begun.at.min(begin));
            kept.insert(card.name.to_string(), Begun { at, gone: None });
        }
        for (name, begun) in std::mem::take(&mut self.0) {
            let gone = begun.gone.unwrap_or(now);
            if now.duration_since(gone) < AWAY {
                kept.insert(name, Begun { at: begun.at, gone: Some(gone) });
            }
        }
        self.0 = kept;
    }

    fn at(&self, flow: &str) -> Option<Timestamp> {
        self.0.get(flow).map(|begun| begun.at)
    }

    pub(super) fn op(&self) -> Result<Op, Error> {
        let body = serde_json::to_vec(&self.0)
            .map_err(|error| Error::unavailable(format!("writing when the flows began: {error}")))?;
        Ok(Op::Put { name: ACTIVATIONS.to_owned(), body })
    }
}

/// The flows with their modes and when each began. The activations that come back are to be stored before the flows start
/// anything.
pub(super) fn deploy(
    loaded: Loaded,
    config: &Config,
    catalog: &Arc<Catalog>,
    stock: Stock,
    mut activations: Activations,
    (from, now): (Option<Timestamp>, Timestamp),
) -> (Deployment, Activations) {
    activations.follow(&loaded.flows, from, now);
    let given = given(config);
    let files = loaded.flows.iter().map(|(card, file)| (Arc::clone(&card.name), *file)).collect();
    let (texts, site) = (loaded.texts, Site::of(config));
    let Stock { shelf, doubt } = stock;
    let library: Arc<dyn Compile> =
        Arc::new(Library { texts, files, catalog: Arc::clone(catalog), site, shelf, doubt });
    let flows = loaded.flows.into_iter().map(|(card, _)| {
        let mode = mode(&given, &card);
        let activated = activations.at(&card.name).unwrap_or(now);
        Deployed::new(card, mode, activated, Arc::clone(&library))
    });
    let flows = flows.collect();
    (Deployment::new(flows, given), activations)
}

fn given(config: &Config) -> Given {
    Given {
        mode: config.mode,
        modes: config.flow_modes.clone(),
        poll: config.poll.clone(),
        connections: config.connections.values().map(|c| (Arc::clone(&c.name), c.kind)).collect(),
        webhooks: config.webhooks.keys().cloned().collect(),
    }
}

/// How far a flow's effects go: what the installation gives it, tightened by its own file.
fn mode(given: &Given, card: &Card) -> Mode {
    let word = given.mode(&card.name);
    card.mode.map_or(word, |own| own.min(word))
}

/// The flows that runs are pinned to: those of now, and earlier versions compiled again from their bundles.
pub(super) struct Pinned {
    store: Arc<dyn Store>,
    flows: Flows,
    catalog: Arc<Catalog>,
    earlier: Shelf,
}

impl Pinned {
    pub(super) fn new(store: Arc<dyn Store>, flows: Flows, catalog: Arc<Catalog>) -> Self {
        Pinned { store, flows, catalog, earlier: Shelf::default() }
    }

    /// For commands beside the service, which know no flow of now.
    pub(super) fn beside(store: Arc<dyn Store>, catalog: Catalog, config: &Config) -> Self {
        let flows = Flows::new(Deployment::new(vec![], given(config)));
        Pinned::new(store, flows, Arc::new(catalog))
    }

    fn compile(&self, name: &str, version: &str) -> Result<Arc<CheckedFlow>, String> {
        let body = self.store.bundle(version).map_err(|error| error.to_string())?;
        let body = body.ok_or_else(|| format!("the store has no texts of {name} {version}"))?;
        let bundle: check::program::Bundle =
            serde_json::from_slice(&body).map_err(|error| format!("reading the texts of {name} {version}: {error}"))?;
        if &*check::bundle::version(&bundle) != version {
            return Err(format!("the texts of {name} {version} in the store are not those that it was started with"));
        }
        let connections = &self.flows.now().given.connections;
        let flow = check::recompile(&bundle, &self.catalog, Some(connections)).map_err(|faults| {
            let why = faults.first().map_or_else(String::new, |fault| format!(": {}", fault.message));
            format!("{name} {version} no longer checks against the catalogue and the connections{why}")
        });
        // The catalogue or the engine may be newer than the run. It keeps the version that it began with; the replay
        // compares what is derived now with what was recorded, and parks the run where the two differ.
        let mut flow = flow?;
        flow.version = version.into();
        Ok(Arc::new(flow))
    }
}

impl Registry for Pinned {
    fn flow(&self, name: &str, version: &str) -> Result<Arc<CheckedFlow>, String> {
        let now = self.flows.now();
        if let Some(deployed) = now.find(name).filter(|deployed| &*deployed.card.version == version) {
            return deployed.flow();
        }
        if let Some(flow) = self.earlier.get(version) {
            return Ok(flow);
        }
        let flow = self.compile(name, version)?;
        self.earlier.put(&flow);
        Ok(flow)
    }

    fn mode(&self, name: &str) -> Mode {
        let now = self.flows.now();
        // A flow that is gone keeps what the installation gives it.
        now.find(name).map_or_else(|| now.given.mode(name), |deployed| deployed.mode)
    }

    fn ended(&self, row: &RunRow, now: Timestamp) -> Vec<Op> {
        follow::ops(&self.flows.now(), row, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trigger::testing::flow;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cards(names: &[&str]) -> Vec<(Card, usize)> {
        names.iter().map(|name| (Card::of(&flow(name, "mde.alert.new", "mde"), 0), 0)).collect()
    }

    #[test]
    fn a_flow_begins_at_its_activation_and_again_when_it_was_away() {
        let (noon, later) = (at("2026-11-20T12:00:00Z"), at("2026-11-20T12:30:00Z"));
        let mut begun = Activations::default();
        begun.follow(&cards(&["a", "b"]), None, noon);
        assert_eq!((begun.at("a"), begun.at("b")), (Some(noon), Some(noon)));
        // Gone for the time of a roll-out: nothing that its connection shows late is lost.
        begun.follow(&cards(&["b", "c"]), None, later);
        assert_eq!(begun.at("c"), Some(later));
        begun.follow(&cards(&["a", "b", "c"]), None, at("2026-11-20T12:40:00Z"));
        assert_eq!((begun.at("a"), begun.at("b"), begun.at("c")), (Some(noon), Some(noon), Some(later)));
        // Gone for longer: it is a new flow.
        begun.follow(&cards(&["b"]), None, at("2026-11-20T13:00:00Z"));
        let evening = at("2026-11-20T18:00:00Z");
        begun.follow(&cards(&["a", "b"]), None, evening);
        assert_eq!((begun.at("a"), begun.at("b"), begun.at("c")), (Some(evening), Some(noon), None));
        // An earlier beginning is taken, and is kept.
        begun.follow(&cards(&["a", "b"]), Some(at("2026-11-19T00:00:00Z")), evening);
        begun.follow(&cards(&["a", "b"]), None, evening);
        assert_eq!(begun.at("a"), Some(at("2026-11-19T00:00:00Z")));
    }

    /// An upgrade changes the catalogue's or the engine's part of every version; what was begun before goes on all the same.
    #[test]
    fn a_run_of_before_an_upgrade_keeps_its_version_and_goes_on() {
        let store: Arc<dyn Store> = Arc::new(crate::journal::memory::MemoryStore::new());
        let catalog = Arc::new(Catalog::builtin().unwrap());
        let text = "flow: old\ntrigger: { type: manual }\nsteps: [ { wait: 1h } ]\n".to_owned();
        let keep = |bundle: &check::program::Bundle, version: &str| {
            let body = serde_json::to_vec(bundle).unwrap();
            let ops = vec![Op::Bundle { version: version.to_owned(), body }];
            store.write(crate::journal::Batch { ops, urgent: true, done: None });
        };
        let mut bundle = check::program::Bundle { flow: text, file: "old.yaml".into(), ..Default::default() };
        (bundle.catalog, bundle.engine) = ("of an earlier release".into(), 0);
        let version = check::bundle::version(&bundle);
        keep(&bundle, &version);
        let pinned = Pinned::new(Arc::clone(&store), Flows::default(), catalog);
        let flow = pinned.flow("old", &version).unwrap();
        assert_eq!((&*flow.name, &flow.version), ("old", &version));
        // Texts that somebody changed in the store are not what the run was started with.
        bundle.flow = bundle.flow.replace("1h", "1s");
        keep(&bundle, "ffff");
        assert!(pinned.flow("old", "ffff").is_err_and(|why| why.contains("not those that it was started with")));
    }

    #[test]
    fn the_flows_used_last_stay_compiled() {
        let shelf = Shelf::default();
        let keep = Arc::new(flow("keep", "manual", ""));
        shelf.put(&keep);
        for number in 0..3 * COMPILED {
            shelf.put(&Arc::new(flow(&format!("f{number}"), "manual", "")));
            assert!(shelf.get("v-keep").is_some(), "used all the time");
        }
        let kept = shelf.0.lock().unwrap().flows.len();
        assert!((COMPILED / 2..=COMPILED).contains(&kept), "{kept}");
        assert!(shelf.get("v-f0").is_none());
    }
}
