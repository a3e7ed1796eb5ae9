//! Triggers: what starts runs. Each ends in `Intake::offer`, which is the only way in.
//!
//! Not here: carrying runs out (see `worker`), the list of trigger types (see `catalog`).

pub mod alert_poll;
pub mod entity;
pub mod form;
pub mod gate;
pub mod manual;
pub mod offer;
pub mod origin;
pub mod schedule;
pub mod webhook;

use std::sync::{Arc, RwLock};

use jiff::Timestamp;

pub use gate::{Gate, Phase};
pub use offer::{Intake, Offered};

use crate::check::CheckedFlow;
use crate::flow::model::Mode;
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

/// A flow that starts runs.
#[derive(Clone, Debug)]
pub struct Deployed {
    pub flow: Arc<CheckedFlow>,
    /// The effective mode: what the installation gives, tightened by the flow's file.
    pub mode: Mode,
    /// Events of before start nothing.
    pub activated: Timestamp,
}

/// The flows of now. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Flows(Arc<RwLock<Arc<Vec<Deployed>>>>);

impl Flows {
    pub fn new(flows: Vec<Deployed>) -> Self {
        Flows(Arc::new(RwLock::new(Arc::new(flows))))
    }

    pub fn now(&self) -> Arc<Vec<Deployed>> {
        Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub fn replace(&self, flows: Vec<Deployed>) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(flows);
    }

    pub fn find(&self, name: &str) -> Option<Deployed> {
        self.now().iter().find(|deployed| &*deployed.flow.name == name).cloned()
    }
}

#[cfg(test)]
pub(crate) mod testing;
