//! Triggers: what starts runs. Each ends in `Intake::offer`, which is the only way in.
//!
//! Not here: carrying runs out (see `worker`), the list of trigger types (see `catalog`).

pub mod alert_poll;
pub mod batch;
mod changes;
mod deployed;
pub mod entity;
pub mod follow;
pub mod form;
pub mod gate;
pub mod house;
pub mod hunts;
pub mod letters;
mod listing;
pub mod manual;
pub mod offer;
pub mod origin;
pub mod ready;
pub mod schedule;
mod split;
pub mod suppress;
pub mod suppressed;
pub mod sweep;
pub mod webhook;

use std::sync::Arc;

use jiff::Timestamp;

pub use deployed::{Compile, Deployed, Deployment, Flows, Given};
pub use gate::{Gate, Phase};
pub use offer::{Intake, Offered};

use crate::journal::{Store, StoreError};
use crate::value::Value;

/// One occurrence of a trigger, before it is known which flows it starts.
#[derive(Clone, Debug)]
pub struct Event {
    /// The trigger type.
    pub kind: Arc<str>,
    /// The connection it was read from, or the name of a webhook.
    pub connection: Option<Arc<str>>,
    /// For one flow alone: schedules and manual starts.
    pub flow: Option<Arc<str>>,
    /// For one flow alone, which judges it by its filter and its key as any other: the fields of a webhook are each flow's own.
    pub only: Option<Arc<str>>,
    /// Readable key, unique among the events of one flow.
    pub key: String,
    /// When it happened at the source.
    pub occurred: Timestamp,
    /// `trigger.*`.
    pub payload: Value,
    /// `inputs.*`.
    pub inputs: Value,
}

/// A named instant of the store.
fn instant(store: &dyn Store, name: &str) -> Result<Option<Timestamp>, StoreError> {
    let body = store.get(name)?;
    Ok(body.and_then(|body| std::str::from_utf8(&body).ok()?.parse().ok()))
}

#[cfg(test)]
pub(crate) mod testing;
