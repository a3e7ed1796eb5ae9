//! `hunt.rows`: a query is asked at its pace over a window, and each row that was not there before starts a run.
//!
//! A window begins two hours before the last one's end, since evidence arrives late, and never before the flow began. Its end
//! is stored in the batch of the rows; where there are more new rows than may start at once, it is not, and the next
//! evaluation goes on with the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::listing::{self, Fetch, PollError};
use super::offer::{self, TriggerEnv, key_text};
use super::{Deployed, Event, Intake, instant};
use crate::catalog::Catalog;
use crate::check::program::Hunt;
use crate::id::{digest16, hex};
use crate::journal::{Op, StoreError};
use crate::value::{Map, Value};

const ACTION: &str = "xdr.run_hunting_query";
/// What a window reaches back before the last one's end.
const OVERLAP: SignedDuration = SignedDuration::from_hours(2);
/// How far back the service can hunt.
const REACH: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Rows of one answer, at most; a query that gives more fails, and says so.
const ROWS: i64 = 10_000;
/// Queries that are asked at the same time.
const AT_ONCE: usize = 4;
/// How often it is looked which are due.
const LOOK: Duration = Duration::from_secs(1);
/// After a query failed.
const LONGEST_RETRY: SignedDuration = SignedDuration::from_mins(15);

/// Asks the queries of all flows until the token is cancelled.
pub async fn run(intake: Arc<Intake>, catalog: Arc<Catalog>, client: Arc<dyn Fetch>, stop: CancellationToken) {
    let mut asked: JoinSet<(Arc<str>, bool)> = JoinSet::new();
    let mut going = BTreeSet::new();
    // Not before these instants: after a failure the pause grows.
    let mut later: BTreeMap<Arc<str>, (Timestamp, u32)> = BTreeMap::new();
    loop {
        let flows = intake.flows.now();
        let hunts = flows.iter().filter(|deployed| &*deployed.card.trigger == "hunt.rows");
        let now = intake.clock.now();
        for deployed in hunts {
            let name = deployed.name();
            let waits = later.get(name).is_some_and(|(at, _)| *at > now);
            if waits || going.contains(name) || going.len() >= AT_ONCE || intake.gate.is_full() {
                continue;
            }
            if !is_due(&intake, deployed, now) {
                continue;
            }
            going.insert(Arc::clone(name));
            let (intake, catalog, client) = (Arc::clone(&intake), Arc::clone(&catalog), Arc::clone(&client));
            let deployed = deployed.clone();
            asked.spawn(async move {
                let done = evaluate(&intake, &catalog, &*client, &deployed).await;
                if let Err(error) = &done {
                    tracing::warn!(flow = %deployed.name(), %error, "a hunt failed; it is tried again");
                }
                (Arc::clone(deployed.name()), done.is_ok())
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            Some(done) = asked.join_next() => match done {
                Ok((name, true)) => {
                    going.remove(&name);
                    later.remove(&name);
                }
                Ok((name, false)) => {
                    going.remove(&name);
                    let failures = later.get(&name).map_or(1, |(_, failures)| failures.saturating_add(1));
                    let pause = SignedDuration::from_secs(15 << failures.min(6)).min(LONGEST_RETRY);
                    later.insert(name, (now.checked_add(pause).unwrap_or(now), failures));
                }
                // A query that panicked is asked again at once where it is due: its name is not known any more.
                Err(_) => going.clear(),
            },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn end_name(flow: &str) -> String {
    format!("hunt/{flow}/end")
}

fn is_due(intake: &Intake, deployed: &Deployed, now: Timestamp) -> bool {
    let hunt = deployed.trigger().ok().and_then(|trigger| trigger.hunt.as_ref().map(|hunt| hunt.every));
    let (Some(every), Ok(last)) = (hunt, instant(&*intake.store, &end_name(deployed.name()))) else { return false };
    let every = SignedDuration::try_from(every).unwrap_or(SignedDuration::MAX);
    // A clock that was ahead once must not put the hunt off until that time has come.
    let last = last.unwrap_or(deployed.activated);
    last > now || now.duration_since(last) >= every
}

/// Asks one query over its window and starts a run for each new row.
pub async fn evaluate(
    intake: &Intake,
    catalog: &Catalog,
    client: &dyn Fetch,
    deployed: &Deployed,
) -> Result<(), PollError> {
    let trigger = deployed.trigger().map_err(StoreError::Failed)?;
    let (Some(hunt), Some(connection)) = (&trigger.hunt, &trigger.connection) else { return Ok(()) };
    let end = intake.clock.now();
    let last = instant(&*intake.store, &end_name(deployed.name()))?.map(|last| last.min(end));
    let start = last.and_then(|last| last.checked_sub(OVERLAP).ok()).unwrap_or(deployed.activated);
    let oldest = end.checked_sub(REACH).unwrap_or(start);
    let start = start.max(deployed.activated).max(oldest).min(end);
    let action = catalog.action(ACTION).ok_or_else(|| PollError::Service(format!("there is no {ACTION}"), None))?;
    let mut inputs = asked(hunt, start, end);
    listing::defaults(action, &mut inputs);
    let answer = client.fetch_as(connection, ACTION, inputs, &hunt.output).await;
    let answer = answer.map_err(|outcome| listing::failure(&outcome))?;
    let rows = answer.get("rows").and_then(Value::as_list).unwrap_or(&[]);
    let mut fresh = vec![];
    let mut keys = BTreeSet::new();
    let window = (start, end);
    for row in rows {
        let event = event(deployed, connection, hunt, row, window).map_err(|e| PollError::Service(e, None))?;
        if keys.insert(event.key.clone()) && is_new(intake, deployed, &event, end)? {
            fresh.push(event);
        }
    }
    let rest = fresh.len().saturating_sub(hunt.max_rows);
    fresh.truncate(hunt.max_rows);
    let mut also = vec![];
    if rest == 0 {
        also.push(Op::Put { name: end_name(deployed.name()), body: end.to_string().into_bytes() });
    } else {
        let (flow, max) = (deployed.name(), hunt.max_rows);
        tracing::warn!(%flow, max, rest, "a hunt found more new rows than max_rows: the rest start at the next evaluation");
        let line = serde_json::json!({ "at": end.to_string(), "flow": &**flow, "found": "more rows", "rest": rest });
        also.push(Op::Audit { at: end, body: line.to_string().into_bytes() });
    }
    intake.offer(fresh, also).await?;
    Ok(())
}

fn asked(hunt: &Hunt, start: Timestamp, end: Timestamp) -> Map {
    let mut inputs = hunt.inputs.clone();
    let mut params = inputs.get("params").and_then(Value::as_map).cloned().unwrap_or_default();
    params.insert("window_start".into(), Value::Datetime(start));
    params.insert("window_end".into(), Value::Datetime(end));
    inputs.insert("params".into(), Value::map(params));
    inputs.insert("max_rows".into(), Value::Int(ROWS));
    // The service itself keeps to the window, also where the query does not read it.
    inputs.insert("timespan".into(), Value::str(format!("{start}/{end}")));
    inputs
}

fn event(
    deployed: &Deployed,
    connection: &Arc<str>,
    hunt: &Hunt,
    row: &Value,
    (start, end): (Timestamp, Timestamp),
) -> Result<Event, String> {
    let payload = Value::object([
        ("row", row.clone()),
        ("window_start", Value::Datetime(start)),
        ("window_end", Value::Datetime(end)),
    ]);
    let key = match &hunt.key {
        None => hex(&digest16(&[&row.to_json().to_string()])),
        Some(key) => {
            let env = TriggerEnv { trigger: &payload, inputs: &Value::empty(), now: end };
            key_text(&key.eval(&env).map_err(|error| format!("the key of a row: {error}"))?)
        }
    };
    let happened = row.get("Timestamp").and_then(Value::as_datetime).unwrap_or(end);
    Ok(Event {
        kind: "hunt.rows".into(),
        connection: Some(Arc::clone(connection)),
        flow: None,
        only: Some(Arc::clone(deployed.name())),
        key: format!("row:{key}"),
        // A row that sums up may carry the beginning of what it sums up.
        occurred: happened.clamp(deployed.activated.min(end), end),
        payload,
        inputs: Value::empty(),
    })
}

fn is_new(intake: &Intake, deployed: &Deployed, event: &Event, now: Timestamp) -> Result<bool, StoreError> {
    let flow = deployed.name();
    if intake.store.skipped(flow, &event.key)?.is_some() {
        return Ok(false);
    }
    let keys = offer::would_start(deployed, event, now).map_err(StoreError::Failed)?;
    let known = keys.iter().map(|key| intake.store.is_known(flow, key)).collect::<Result<Vec<_>, _>>()?;
    Ok(known.is_empty() || known.contains(&false))
}
