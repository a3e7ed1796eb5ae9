//! The end of a run as the event of other flows. What it starts is committed with the end itself, so that a crash leaves
//! both or neither.

use jiff::Timestamp;

use super::offer::{self, Decided};
use super::{Deployment, Event};
use crate::journal::{Op, RunRow, RunStatus};
use crate::value::Value;

/// What the end of a run writes beside it: the runs of the flows that follow, with their texts. `row` is as it ends.
pub fn ops(flows: &Deployment, row: &RunRow, now: Timestamp) -> Vec<Op> {
    let event = event(row, now);
    let mut ops = vec![];
    for deployed in flows.wanting(&event) {
        let follows = deployed.card.follows.as_ref();
        let status = row.status.as_str();
        if !follows.is_some_and(|it| it.flow == row.flow && it.statuses.iter().any(|word| **word == *status)) {
            continue;
        }
        let bundle = deployed.flow().and_then(|flow| serde_json::to_vec(&flow.bundle).map_err(|e| e.to_string()));
        match offer::decide(deployed, &event, now).and_then(|decided| Ok((decided, bundle?))) {
            Ok((decided, body)) => {
                let version = deployed.card.version.to_string();
                ops.push(Op::Bundle { version, body });
                ops.extend(decided.into_iter().map(|it| match it {
                    Decided::Start(offer) => Op::Offer(offer),
                    Decided::Skip(op) => op,
                }));
            }
            // It was compiled when it was deployed; the run that ends must end all the same.
            Err(error) => {
                tracing::error!(flow = %deployed.name(), run = %row.id, error, "a flow that follows could not be asked");
            }
        }
    }
    ops
}

/// Nothing but the run and how it ended is in the key: a dead run that a person takes up again ends a second time, with
/// another word.
fn event(row: &RunRow, now: Timestamp) -> Event {
    let status = if row.status.is_final() { row.status } else { RunStatus::Failed };
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
