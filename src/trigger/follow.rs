//! The end of a run as the event of other flows. What it starts is committed with the end itself, so that a crash leaves
//! both or neither.

use jiff::Timestamp;

use super::offer::{self, Decided};
use super::{Deployment, Event};
use crate::check::program::Follows;
use crate::journal::{Op, RunRow};
use crate::value::Value;

/// What the end of a run writes beside it: the runs of the flows that follow, with their texts. `row` is as it ends.
pub fn ops(flows: &Deployment, row: &RunRow, now: Timestamp) -> Vec<Op> {
    let (status, mut ops) = (row.status.as_str(), vec![]);
    for deployed in flows.followers(&row.flow) {
        let wants = |it: &Follows| it.statuses.iter().any(|word| **word == *status);
        if now < deployed.activated || !deployed.card.follows.as_ref().is_some_and(wants) {
            continue;
        }
        let event = event(row, now);
        let bundle = deployed.flow().and_then(|flow| serde_json::to_vec(&flow.bundle).map_err(|e| e.to_string()));
        match offer::decide(deployed, &event, now).and_then(|decided| Ok((decided, bundle?))) {
            Ok((decided, body)) => {
                let version = deployed.card.version.to_string();
                ops.push(Op::Bundle { version, body });
                ops.extend(decided.into_iter().flat_map(Decided::ops));
            }
            // It was compiled when it was deployed; the run that ends must end all the same.
            Err(error) => {
                tracing::error!(flow = %deployed.name(), run = %row.id, error, "a flow that follows could not be asked");
            }
        }
    }
    ops
}

/// The key is the run and how it ended: a dead run that a person takes up again ends a second time, with another word.
fn event(row: &RunRow, now: Timestamp) -> Event {
    let status = row.status;
    let members = [
        ("run_id", Some(Value::str(row.id.as_str()))),
        ("flow", Some(Value::str(&row.flow))),
        ("status", Some(Value::str(status.as_str()))),
        ("reason", row.reason.as_deref().map(Value::str)),
        ("ended", Some(Value::Datetime(row.ended.unwrap_or(now)))),
        ("key", Some(Value::str(&row.key))),
        ("event", Some(row.payload.clone())),
    ];
    Event {
        kind: "flow.finished".into(),
        connection: None,
        flow: None,
        only: None,
        key: format!("{}:{}", status.as_str(), row.id),
        occurred: now,
        payload: Value::object(members.into_iter().filter_map(|(name, value)| Some((name, value?)))),
        inputs: Value::empty(),
    }
}
