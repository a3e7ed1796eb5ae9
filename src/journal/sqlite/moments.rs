//! The points of a commit at which tests end the process or fail the disk (see `fail`).
//!
//! `.before`: all is written and not committed. `.after`: it is committed and nobody has heard of it. A failure after the
//! commit is one that reports a lie, as a disk does that has lost its mind.

use crate::fail::{self, Fault};
use crate::journal::{Batch, Op, StoreError};

/// What the batches of a group are about, and what a test has armed for that.
pub(super) fn pass(group: &[Batch], when: &str) -> Result<(), StoreError> {
    if !cfg!(debug_assertions) {
        return Ok(());
    }
    group.iter().flat_map(names).try_for_each(|name| at(&format!("{name}.{when}")))
}

/// A point that is no commit of batches.
pub(super) fn at(point: &str) -> Result<(), StoreError> {
    match fail::at(point) {
        None => Ok(()),
        Some(Fault::Full) => Err(StoreError::Full("no space left on device (asked for)".into())),
        Some(Fault::Io) => Err(StoreError::Failed("the store: disk I/O error (asked for)".into())),
    }
}

fn names(batch: &Batch) -> Vec<&'static str> {
    let has = |wanted: fn(&Op) -> bool| batch.ops.iter().any(wanted);
    let turn = has(|op| matches!(op, Op::Turn { .. }));
    let finish = has(|op| matches!(op, Op::Finish { .. }));
    let table = [
        ("offer", has(|op| matches!(op, Op::Offer(_)))),
        ("gather", has(|op| matches!(op, Op::Gather(_)))),
        ("close", has(|op| matches!(op, Op::Close { .. }))),
        ("watermark", has(|op| matches!(op, Op::Put { name, .. } if name.starts_with("poll/")))),
        ("claim", has(|op| matches!(op, Op::Claim { .. }))),
        ("prune", has(|op| matches!(op, Op::Prune(_)))),
        // Somebody waits for the turn of an intent, and for no other.
        ("intent", turn && batch.urgent),
        ("turn", turn && !batch.urgent && !finish),
        ("finish", finish),
    ];
    table.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect()
}
