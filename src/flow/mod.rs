//! Flow files: the model, and lowering from the node tree with every fault at once.

mod lower;
pub mod model;
pub mod schema;

use std::sync::Arc;

pub use model::Flow;

use crate::diag::{Diagnostic, Source};

/// Reads one flow file. On any error there is no flow; warnings come with a flow.
pub fn read(source: &Arc<Source>) -> (Option<Flow>, Vec<Diagnostic>) {
    match crate::yaml::parse(source) {
        Ok(node) => lower::lower(source, &node),
        Err(faults) => (None, faults),
    }
}
