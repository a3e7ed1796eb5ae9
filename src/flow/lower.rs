//! Node tree to flow.
use std::sync::Arc;

use super::Flow;
use crate::diag::{Diagnostic, Source};
use crate::yaml::Node;

pub(super) fn lower(_source: &Arc<Source>, _node: &Node) -> (Option<Flow>, Vec<Diagnostic>) {
    (None, vec![])
}
