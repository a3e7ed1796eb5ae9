//! The daily sweep: once a day every list is read again over a week, and alerts that became visible too late for any poll
//! are reported (S4). They start nothing by themselves: what is days old is for a person to judge.
//!
//! It reads slowly, one page at a time with a pause between, so that polls and runs have the service's rate to themselves.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::alert_poll::{self, OVERLAP, listings, polled};
use super::listing::{Cursor, Fetch, Listing, MAX_PAGES, PollError, Span};
use super::offer::{self, Skip};
use super::{Event, Intake, instant, ready};
use crate::catalog::Catalog;
use crate::journal::{Op, Store, StoreError};

/// How far back a sweep reads.
const REACH: SignedDuration = SignedDuration::from_hours(7 * 24);
const EVERY: SignedDuration = SignedDuration::from_hours(24);
/// How often it is looked whether a sweep is due.
const LOOK: Duration = Duration::from_secs(600);
/// Between two pages.
const PAUSE: Duration = Duration::from_secs(5);
/// Findings that are kept for `status`, the newest first.
const KEPT: usize = 100;
const FOUND: &str = "sweep/found";

/// An alert that a flow should have been started by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Late {
    pub at: Timestamp,
    pub flow: String,
    pub key: String,
    /// When it happened at the source.
    pub occurred: Timestamp,
}

/// What sweeps have found, the newest first.
///
/// # Errors
/// Where the store can't be read.
pub fn found(store: &dyn Store) -> Result<Vec<Late>, StoreError> {
    let body = store.get(FOUND)?;
    Ok(body.and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default())
}

/// Sweeps every list once a day until the token is cancelled.
pub async fn run(intake: Arc<Intake>, catalog: Arc<Catalog>, client: Arc<dyn Fetch>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let sweep = all(&intake, &catalog, &client, PAUSE);
        tokio::select! {
            () = stop.cancelled() => return,
            () = sweep => {}
        }
    }
}

/// Sweeps the lists that are due. The first time of a list is a day after its first look.
pub async fn all(intake: &Intake, catalog: &Catalog, client: &Arc<dyn Fetch>, pause: Duration) {
    for listing in listings(intake, catalog, client) {
        // The memory of changes is its own record: what changed long ago can't be told any more.
        if listing.kind.ends_with(".changed") {
            continue;
        }
        if intake.gate.unpolled(&listing.connection, intake.clock.now()).is_some() {
            continue;
        }
        if let Err(error) = one(intake, &listing, pause).await {
            tracing::warn!(trigger = %listing.kind, connection = %listing.connection, %error,
                "the daily sweep failed; it is tried again");
        }
    }
}

async fn one(intake: &Intake, listing: &Listing, pause: Duration) -> Result<(), PollError> {
    let now = intake.clock.now();
    let name = format!("sweep/{}/{}", listing.connection, listing.kind);
    let done = Op::Put { name: name.clone(), body: now.to_string().into_bytes() };
    let last = instant(&*intake.store, &name)?;
    // A clock that was ahead once must not put the sweep off until that time has come.
    let due = last.is_some_and(|last| last > now || now.duration_since(last) >= EVERY);
    if !due {
        if last.is_none() {
            intake.offer(vec![], vec![done]).await?;
        }
        return Ok(());
    }
    // What polls have still to read, or read again, is theirs to start.
    let Some(watermark) = instant(&*intake.store, &alert_poll::name(listing))? else { return Ok(()) };
    let polled_from = watermark.min(now).checked_sub(OVERLAP).unwrap_or(watermark);
    let span = Span { from: now.checked_sub(REACH).unwrap_or(now), until: listing.until.as_ref().map(|_| polled_from) };
    let mut cursor = Cursor::default();
    for _ in 0..MAX_PAGES {
        let page = listing.page(span, &mut cursor).await?;
        let seen = page.items.iter().filter_map(|item| listing.read(item, span));
        let events = seen.filter(|seen| seen.occurred < polled_from).map(|seen| {
            let key = format!("{}:{}", listing.connection, seen.id);
            polled(listing, key, seen.occurred, seen.payload)
        });
        let mut ops = report(intake, &events.collect::<Vec<_>>(), now)?;
        if page.is_last {
            ops.push(done);
            intake.offer(vec![], ops).await?;
            return Ok(());
        }
        intake.offer(vec![], ops).await?;
        tokio::time::sleep(pause).await;
    }
    Err(PollError::Endless)
}

/// The events that would have started a run and were never offered: a line for `why`, one in the audit log, one for `status`.
fn report(intake: &Intake, events: &[Event], now: Timestamp) -> Result<Vec<Op>, StoreError> {
    let flows = intake.flows.now();
    let mut late = vec![];
    let mut ops = vec![];
    for event in events {
        for deployed in flows.wanting(event) {
            for key in offer::would_start(deployed, event, now).map_err(StoreError::Failed)? {
                let flow = deployed.name();
                let store = &*intake.store;
                if store.is_known(flow, &key)? || store.skipped(flow, &key)?.is_some() {
                    continue;
                }
                if deployed.card.waits && ready::is_waiting(store, flow, &key)? {
                    continue;
                }
                tracing::warn!(%flow, key, occurred = %event.occurred, "an alert became visible too late to start its flow; \
                    `watchfloor start FLOW --alert ID` starts it");
                let skip = Skip::late(&event.kind);
                let body = serde_json::to_vec(&skip).unwrap_or_default();
                ops.push(Op::Skipped { flow: flow.to_string(), key: key.clone(), at: now, body });
                let line = serde_json::json!({
                    "at": now.to_string(), "flow": &**flow, "event": &key, "occurred": event.occurred.to_string(),
                    "found": "late",
                });
                ops.push(Op::Audit { at: now, body: line.to_string().into_bytes() });
                late.push(Late { at: now, flow: flow.to_string(), key, occurred: event.occurred });
            }
        }
    }
    if !late.is_empty() {
        late.extend(found(&*intake.store)?);
        late.truncate(KEPT);
        ops.push(Op::Put { name: FOUND.into(), body: serde_json::to_vec(&late).unwrap_or_default() });
    }
    Ok(ops)
}
