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
    for name in group.iter().flat_map(names) {
        match fail::at(&format!("{name}.{when}")) {
            None => {}
            Some(Fault::Full) => return Err(StoreError::Full("no space left on device (asked for)".into())),
            Some(Fault::Io) => return Err(StoreError::Failed("the store: disk I/O error (asked for)".into())),
        }
    }
    Ok(())
}

fn names(batch: &Batch) -> Vec<&'static str> {
    let has = |wanted: fn(&Op) -> bool| batch.ops.iter().any(wanted);
    let turn = has(|op| matches!(op, Op::Turn { .. }));
    let finish = has(|op| matches!(op, Op::Finish { .. }));
    let table = [
        ("offer", has(|op| matches!(op, Op::Offer(_)))),
        ("watermark", has(|op| matches!(op, Op::Put { name, .. } if name.starts_with("poll/")))),
        ("claim", has(|op| matches!(op, Op::Claim { .. }))),
        // Somebody waits for the turn of an intent, and for no other.
        ("intent", turn && batch.urgent),
        ("turn", turn && !batch.urgent && !finish),
        ("finish", finish),
    ];
    table.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect()
}
