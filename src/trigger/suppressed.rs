//! What suppression rules kept from the flows, as the store has it: one entry for each alert, written in the batch of its
//! watermark.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journal::{Op, Store};

/// The name under which entries stand: no flow can have it.
const UNDER: &str = "(suppressed)";

/// By which rule an alert was suppressed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct By {
    pub rule: String,
    /// `ignore` or `resolve`.
    pub action: String,
    pub owner: String,
    pub at: Timestamp,
}

/// The entry of an alert, to be committed with whatever keeps it from being offered again.
pub(super) fn note(id: &str, by: &By) -> Op {
    let body = serde_json::to_vec(by).unwrap_or_default();
    Op::Skipped { flow: UNDER.to_owned(), key: id.to_lowercase(), at: by.at, body }
}

/// The rule that suppressed an alert, whichever service's id is given: Graph puts two letters before an id of Defender for
/// Cloud Apps.
pub fn of(store: &dyn Store, id: &str) -> Option<By> {
    let id = id.to_lowercase();
    let bare = id.get(2..).unwrap_or("");
    let found = [id.as_str(), bare].into_iter().filter(|id| !id.is_empty());
    let (_, body) = found.filter_map(|id| store.skipped(UNDER, id).ok().flatten()).next()?;
    serde_json::from_slice(&body).ok()
}
