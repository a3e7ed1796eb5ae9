//! `status`: how many runs stand where, and how the service that works on them is.

use serde_json::{Value as Json, json};

use super::out::{Out, cell, safe};
use super::{Global, control, runs};
use crate::clock::Clock;
use crate::error::{Error, ExitCode};
use crate::guard::hold;
use crate::journal::sqlite::SqliteStore;
use crate::journal::{LetterQuery, RunQuery, RunStatus, Store};
use crate::trigger::sweep;
use crate::worker::HELD_BACK;

/// The waiting runs that are looked at, the newest ones.
const LOOKED_AT: usize = 20_000;

/// What ends within this time is told.
const SOON: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

pub(super) fn run(global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let config = global.config()?;
    let service = control::running(&config.store);
    let store = SqliteStore::open_read(&config.store).map_err(runs::failed)?;
    let counts = store.counts().map_err(runs::failed)?;
    let waiting = counts.iter().filter(|(status, _)| matches!(status.as_str(), "waiting" | "uncertain" | "dead"));
    let held = held(&store)?;
    let attention = waiting.map(|(_, n)| n).sum::<u64>().saturating_sub(held);
    let pauses = hold::stored(&store).map_err(runs::failed)?;
    let letters = store.letters(&LetterQuery::default()).map_err(runs::failed)?.len();
    let late = sweep::found(&store).map_err(runs::failed)?;
    if out.is_human() {
        match &service {
            Some((url, said)) => tell(url, said, out),
            None => out.line("service   not running"),
        }
        for pause in &pauses {
            out.line(&safe(&format!("paused    {}", pause.sentence())));
        }
        for (status, n) in &counts {
            out.line(&format!("{:<9} {n}", status.as_str()));
        }
        if held > 0 {
            out.line(&format!("held      {held} of those that wait"));
        }
        if attention > 0 {
            out.say(&format!(
                "{attention} runs want a person: `watchfloor runs list --status waiting` (uncertain), `watchfloor dlq list`"
            ));
        }
        if letters > 0 {
            out.say(&format!("{letters} events could not be judged: `watchfloor dlq list`"));
        }
        if let Some(newest) = late.first() {
            out.say(&safe(&format!(
                "the daily sweep found {} alerts that became visible too late to start a flow, the last one at {}: {} for {}; \
                 `watchfloor start FLOW --alert ID` starts it",
                late.len(),
                newest.at,
                newest.key,
                newest.flow
            )));
        }
    } else {
        let runs: serde_json::Map<_, _> =
            counts.iter().map(|(status, n)| (status.as_str().to_owned(), json!(n))).collect();
        let url = service.as_ref().map(|(url, _)| url);
        let mut answer = json!({
            "running": url.is_some(), "url": url, "runs": runs, "attention": attention, "held": held, "paused": pauses,
            "letters": letters, "late": late,
        });
        if let (Some(members), Some((_, Json::Object(said)))) = (answer.as_object_mut(), &service) {
            members.extend(said.clone());
        }
        out.json(&answer);
    }
    Ok(if service.is_some() { ExitCode::Ok } else { ExitCode::Unavailable })
}

/// What the service says of itself, a line for each thing.
fn tell(url: &str, said: &Json, out: &Out) {
    let at = |path: &str| said.pointer(path).map_or_else(String::new, |value| cell(&json!({ "it": value }), "it"));
    let line = |label: &str, text: String| out.line(&format!("{label:<9} {}", safe(&text)));
    line("service", format!("running, {url}, version {} since {}", at("/version"), at("/since")));
    line("flows", format!("{} live, {} in shadow", at("/flows/live"), at("/flows/shadow")));
    if let Some(last) = said.get("last_reload").filter(|last| !last.is_null()) {
        let (when, text) = (at("/last_reload/at"), at("/last_reload/text"));
        let ok = last.get("ok") == Some(&Json::Bool(true));
        line("reload", if ok { format!("{when}: {text}") } else { format!("the last reload failed: {text} ({when})") });
        for fault in last.get("faults").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            line("", fault.to_owned());
        }
    }
    for it in said.get("connections").and_then(Json::as_array).into_iter().flatten() {
        line("held back", format!("{}: {}", cell(it, "connection"), cell(it, "reason")));
    }
    for it in said.get("expires").and_then(Json::as_array).into_iter().flatten() {
        let at = cell(it, "at");
        let soon = at.parse().is_ok_and(|at: jiff::Timestamp| at.duration_since(Clock::system().now()) < SOON);
        if soon {
            line("expires", format!("{} on {at}: renew it before that", cell(it, "what")));
        }
    }
    line("backlog", format!("{} of at most {} open runs", at("/backlog/open"), at("/backlog/max")));
}

/// How many of the runs that wait are held back, by a pause or for a connection: they want nobody.
fn held(store: &SqliteStore) -> Result<u64, Error> {
    let query = RunQuery { status: Some(RunStatus::Waiting), limit: LOOKED_AT, ..RunQuery::default() };
    let rows = store.runs(&query).map_err(runs::failed)?;
    Ok(rows.iter().filter(|row| row.reason.as_ref().is_some_and(|why| why.starts_with(HELD_BACK))).count() as u64)
}
