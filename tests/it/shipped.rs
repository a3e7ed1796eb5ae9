//! The shipped flows pass the checker as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use watchfloor::catalog::{Catalog, ConnectionKind};
use watchfloor::check::{World, check};
use watchfloor::diag::{Severity, Source};
use watchfloor::sandbox::SHIPPED;

#[test]
fn shipped_flows_have_no_errors() {
    let catalog = Catalog::builtin().unwrap();
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
    let include = |path: &str| {
        let found = SHIPPED.iter().find(|(name, _)| name.ends_with(path));
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| format!("{path} is not shipped"))
    };
    let world = World {
        catalog: &catalog,
        connections: Some(&connections),
        webhooks: None,
        include: &include,
        called: &|_| None,
    };
    for (name, text) in SHIPPED.iter().filter(|(name, _)| name.ends_with(".yaml")) {
        let (flow, diagnostics) = check(&Source::new(*name, *text), &world, true);
        let errors: Vec<_> = diagnostics.iter().filter(|d| d.severity == Severity::Error).collect();
        assert!(flow.is_some() && errors.is_empty(), "{name}: {diagnostics:#?}");
    }
}
