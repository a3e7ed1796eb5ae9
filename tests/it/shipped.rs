//! The shipped flows pass the checker as they are, and the table in `docs/flows.md` says of each what it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use watchfloor::catalog::{Catalog, ConnectionKind};
use watchfloor::check::{Card, CheckedFlow, World, check};
use watchfloor::diag::Source;

use crate::library::shipped;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every shipped flow, checked; what was found of those that are not clean.
fn checked(catalog: &Catalog) -> (Vec<CheckedFlow>, String) {
    let connections: BTreeMap<Arc<str>, ConnectionKind> = [
        ("mde", ConnectionKind::Mde),
        ("graph", ConnectionKind::Graph),
        ("mdca", ConnectionKind::CloudApps),
        ("mail", ConnectionKind::Email),
        ("soc-triage", ConnectionKind::Teams),
    ]
    .into_iter()
    .map(|(name, kind)| (Arc::from(name), kind))
    .collect();
    let include =
        |path: &str| std::fs::read_to_string(root().join("flows").join(path)).map_err(|error| error.to_string());
    let world =
        World { catalog, connections: Some(&connections), webhooks: None, include: &include, called: &|_| None };
    let (mut flows, mut faults) = (vec![], String::new());
    for (name, text) in shipped() {
        let (flow, found) = check(&Source::new(name.as_str(), text), &world, true);
        if !found.is_empty() {
            faults.push_str(&watchfloor::diag::render(&found, false));
        }
        flows.extend(flow.inspect(|flow| assert_eq!(*flow.name, *name, "a file is called as its flow")));
    }
    (flows, faults)
}

#[test]
fn shipped_flows_have_no_errors_and_no_warnings() {
    let catalog = Catalog::builtin().unwrap();
    let (flows, faults) = checked(&catalog);
    assert!(faults.is_empty(), "{faults}");
    assert_eq!(flows.len(), shipped().len());
}

/// The least application permissions of a flow, by the catalogue: of its actions, and of what its trigger polls.
fn needs(flow: &CheckedFlow, catalog: &Catalog) -> BTreeSet<String> {
    let card = Card::of(flow, 0);
    let polled = catalog.trigger(&card.trigger).and_then(|trigger| trigger.list.clone());
    let actions = card.uses.iter().map(|(action, _)| action.clone()).chain(polled);
    let words = |action: Arc<str>| -> Vec<String> {
        let permission = &catalog.action(&action).unwrap().permission;
        let words = permission.split([' ', ',']).filter(|word| word.contains('.'));
        words.map(str::to_owned).collect()
    };
    let all: BTreeSet<String> = actions.flat_map(words).collect();
    let covered = |word: &str| {
        let wider = [word.replacen(".Read.", ".ReadWrite.", 1), word.replacen(".read", ".manage", 1)];
        wider.iter().any(|wide| *wide != *word && all.contains(wide))
    };
    all.iter().filter(|word| !covered(word)).cloned().collect()
}

#[test]
fn the_table_of_flows_names_each_with_its_least_permissions() {
    let catalog = Catalog::builtin().unwrap();
    let needed: BTreeMap<String, BTreeSet<String>> =
        checked(&catalog).0.iter().map(|flow| (flow.name.to_string(), needs(flow, &catalog))).collect();
    let page = std::fs::read_to_string(root().join("docs/flows.md")).unwrap();
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let mut told = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 5, "{line}");
        told.insert(quoted(cells[0]).pop_first().unwrap(), quoted(cells[3]));
    }
    assert_eq!(told, needed);
}
