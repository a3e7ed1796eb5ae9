//! What a condition proves about the roots that it reads: `has(isolation.id)` shows that the step ran.

use std::sync::Arc;

use super::ast::{Kind, Node};

/// Roots that have a value where this is true.
pub(super) fn proves(node: &Node) -> Vec<Arc<str>> {
    match &node.kind {
        Kind::Has { .. } => node.static_path().map(|(root, _)| Arc::clone(root)).into_iter().collect(),
        Kind::And(parts) => union(parts.iter().map(proves)),
        Kind::Or(parts) => common(parts.iter().map(proves)),
        Kind::Not(operand) => refutes(operand),
        _ => vec![],
    }
}

/// Roots that have a value where this is false.
pub(super) fn refutes(node: &Node) -> Vec<Arc<str>> {
    match &node.kind {
        Kind::Not(operand) => proves(operand),
        Kind::Or(parts) => union(parts.iter().map(refutes)),
        Kind::And(parts) => common(parts.iter().map(refutes)),
        _ => vec![],
    }
}

pub(super) fn union(sets: impl Iterator<Item = Vec<Arc<str>>>) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = sets.flatten().collect();
    names.sort();
    names.dedup();
    names
}

pub(super) fn common(mut sets: impl Iterator<Item = Vec<Arc<str>>>) -> Vec<Arc<str>> {
    let first = sets.next().unwrap_or_default();
    sets.fold(first, |so_far, set| so_far.into_iter().filter(|name| set.contains(name)).collect())
}
