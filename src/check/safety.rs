//! Warnings about what a flow may do: few, and each worth acting on.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::cx::Checker;
use crate::catalog::{Action, Effect};
use crate::diag::Span;
use crate::flow::model::Flow;

const REPLIES: &str = "exchange.get_automatic_replies";

/// Outputs that say what happened and to whom; none of them is evidence about the person.
const DESCRIBING: [&str; 5] =
    ["mde.get_alert", "xdr.get_alert", "cloud_apps.get_alert", "xdr.get_incident", "entra.get_user"];

impl Checker<'_> {
    /// Whoever holds a mailbox can switch its replies on, an attacker too: they must not close an alert by themselves.
    pub(super) fn replies_alone(&mut self, action: &Action, span: Span) {
        if action.effect < Effect::Write || !closes(&action.name) {
            return;
        }
        let deciding: BTreeSet<Arc<str>> = self
            .deciding
            .iter()
            .flatten()
            .filter_map(|root| self.scope.entry(root).and_then(|entry| entry.action.clone()))
            .filter(|by| !DESCRIBING.contains(&&**by))
            .collect();
        if deciding.len() == 1 && deciding.contains(REPLIES) {
            self.warning("WF0801", span, "automatic replies alone decide that this alert is closed").help(
                "whoever controls a mailbox can switch them on; ask for the user's risk as well (entra.get_user_risk)",
            );
        }
    }

    pub(super) fn ownerless(&mut self, flow: &Flow) {
        if self.effect == Effect::Destructive && flow.owner.is_none() {
            self.warning("WF0803", flow.name.span, "this flow can contain devices or users, and nobody owns it")
                .help("add `owner:` with the address of the team that answers for it");
        }
    }
}

/// Actions that take an alert or an incident off the queue.
fn closes(action: &str) -> bool {
    let verb = action.split('.').nth(1).unwrap_or("");
    verb.starts_with("close_") || verb.starts_with("resolve") || matches!(verb, "update_alert" | "update_incident")
}
