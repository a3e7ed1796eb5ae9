//! What is known of a checked flow without its compiled form: enough to tell which events it wants, and whether what is
//! compiled later is the same flow.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::program::{CheckedFlow, FlowLimit, Follows, Schedule};
use crate::catalog::Effect;
use crate::flow::model::Mode;

/// One flow, told in a few hundred bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    pub name: Arc<str>,
    pub version: Arc<str>,
    /// The trigger type.
    pub trigger: Arc<str>,
    /// The connection that its events come from, or the name of its webhook.
    pub source: Option<Arc<str>>,
    /// Whether `source` is a webhook.
    pub hook: bool,
    pub schedule: Option<Schedule>,
    /// The flow whose ends start it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Follows>,
    /// Whether its events may wait until they are ready.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
    /// Whether several events start a run together.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gathers: bool,
    /// The file's own `mode:`.
    pub mode: Option<Mode>,
    pub limits: Vec<FlowLimit>,
    pub effect: Effect,
    /// Every action that it can call, with the connection.
    pub uses: BTreeSet<(Arc<str>, Arc<str>)>,
    /// How many warnings its file has.
    pub warnings: usize,
}

impl Card {
    pub fn of(flow: &CheckedFlow, warnings: usize) -> Card {
        let trigger = &flow.trigger;
        let hook = trigger.webhook.as_ref().map(|(name, _)| name);
        Card {
            name: Arc::clone(&flow.name),
            version: Arc::clone(&flow.version),
            trigger: Arc::clone(&trigger.kind),
            source: hook.or(trigger.connection.as_ref()).cloned(),
            hook: hook.is_some(),
            schedule: trigger.schedule.clone(),
            follows: trigger.follows.clone(),
            waits: trigger.ready.is_some(),
            gathers: trigger.batch.is_some(),
            mode: flow.mode,
            limits: flow.limits.clone(),
            effect: flow.effect,
            uses: flow.uses.clone(),
            warnings,
        }
    }
}
