//! Time to check the isolation flow under many names: `cargo bench --bench check [-- COUNT]`. It prints and judges nothing.

use std::sync::Arc;
use std::time::Instant;

use watchfloor::catalog::Catalog;
use watchfloor::check::{World, check};
use watchfloor::diag::Source;

const FLOW: &str = include_str!("../tests/cases/check/right-isolate.yaml");

#[allow(clippy::print_stdout, clippy::disallowed_methods)] // A bench measures and prints.
fn main() {
    let count: u32 = std::env::args().filter_map(|it| it.parse().ok()).next().unwrap_or(10_000);
    let Ok(catalog) = Catalog::builtin() else { return };
    let include = |path: &str| Err(format!("there is no file {path}"));
    let called = |_: &str| -> Option<Arc<Source>> { None };
    let world = World { catalog: &catalog, connections: None, webhooks: None, include: &include, called: &called };
    let start = Instant::now();
    let mut found = 0;
    for n in 0..count {
        let text = FLOW.replace("flow: isolate-high-severity", &format!("flow: isolate-{n}"));
        let (flow, diagnostics) = check(&Source::new(format!("{n}.yaml"), text), &world, true);
        found += diagnostics.len() + usize::from(flow.is_none());
    }
    let took = start.elapsed();
    println!("{count} flows, {found} findings, {took:?}, {:?} each", took / count.max(1));
}
