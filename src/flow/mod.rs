//! Flow files: the model, and lowering from the node tree with every fault at once.

pub(crate) mod keys;
mod lower;
pub mod model;
pub mod schema;
pub mod words;

use std::sync::Arc;

pub use model::Flow;

use crate::diag::{Diagnostic, Severity, Source};
use crate::yaml;

/// Reads one flow file. On any error there is no flow; warnings come with a flow.
///
/// Faults of the YAML and of the shape are reported together, in the order of the file, at most `yaml::MAX_FAULTS`.
pub fn read(source: &Arc<Source>) -> (Option<Flow>, Vec<Diagnostic>) {
    let (node, mut faults) = yaml::parse_lenient(source);
    let mut flow = None;
    if let Some(node) = node {
        let (lowered, shape) = lower::lower(source, &node);
        flow = lowered;
        // What was put in the place of refused YAML is not what the person wrote: its shape says nothing.
        let new: Vec<Diagnostic> =
            shape.into_iter().filter(|new| !faults.iter().any(|old| overlaps(old, new))).collect();
        faults.extend(new);
    }
    faults.sort_by_key(|fault| (fault.span.start, fault.code));
    faults.truncate(yaml::MAX_FAULTS);
    let broken = faults.iter().any(|fault| fault.severity == Severity::Error);
    (flow.filter(|_| !broken), faults)
}

/// Reads a file that is one value with templates in its texts. On any error there is no value.
pub(crate) fn read_value(source: &Arc<Source>) -> (Option<model::Payload>, Vec<Diagnostic>) {
    match yaml::parse(source) {
        Ok(node) => lower::value(source, &node),
        Err(faults) => (None, faults),
    }
}

fn overlaps(old: &Diagnostic, new: &Diagnostic) -> bool {
    new.span.start < old.span.end && old.span.start < new.span.end
        || new.span.start == old.span.start
        || new.span.start == old.span.end
}
