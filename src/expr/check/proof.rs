//! What a condition proves: the names that have a value where it is true, and where it is false.

use std::sync::Arc;

use crate::expr::ast::{Kind, Node};

/// Roots that have a value where this is true.
pub(in crate::expr) fn proves(node: &Node) -> Vec<Arc<str>> {
    match &node.kind {
        Kind::Has { .. } => node.static_path().map(|(root, _)| Arc::clone(root)).into_iter().collect(),
        Kind::And(parts) => union(parts.iter().map(proves)),
        Kind::Or(parts) => common(parts.iter().map(proves)),
        Kind::Not(operand) => refutes(operand),
        _ => vec![],
    }
}

/// Roots that have a value where this is false.
pub(in crate::expr) fn refutes(node: &Node) -> Vec<Arc<str>> {
    match &node.kind {
        Kind::Not(operand) => proves(operand),
        Kind::Or(parts) => union(parts.iter().map(refutes)),
        Kind::And(parts) => common(parts.iter().map(refutes)),
        _ => vec![],
    }
}

pub(in crate::expr) fn union(sets: impl Iterator<Item = Vec<Arc<str>>>) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = sets.flatten().collect();
    names.sort();
    names.dedup();
    names
}

pub(in crate::expr) fn common(mut sets: impl Iterator<Item = Vec<Arc<str>>>) -> Vec<Arc<str>> {
    let first = sets.next().unwrap_or_default();
    sets.fold(first, |so_far, set| so_far.into_iter().filter(|name| set.contains(name)).collect())
}
