//! `status`: how many runs stand where, and whether a service works on them.

use serde_json::json;

use super::out::{Out, safe};
use super::{Global, control, runs};
use crate::error::{Error, ExitCode};
use crate::journal::Store;
use crate::journal::sqlite::SqliteStore;
use crate::trigger::sweep;

pub(super) fn run(global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let config = global.config()?;
    let service = control::running(&config.store);
    let store = SqliteStore::open_read(&config.store).map_err(runs::failed)?;
    let counts = store.counts().map_err(runs::failed)?;
    let waiting = counts.iter().filter(|(status, _)| matches!(status.as_str(), "waiting" | "uncertain" | "dead"));
    let attention: u64 = waiting.map(|(_, n)| n).sum();
    let late = sweep::found(&store).map_err(runs::failed)?;
    if out.is_human() {
        match &service {
            Some(url) => out.line(&safe(&format!("service   running, {url}"))),
            None => out.line("service   not running"),
        }
        for (status, n) in &counts {
            out.line(&format!("{:<9} {n}", status.as_str()));
        }
        if attention > 0 {
            out.say(&format!(
                "{attention} runs want a person: `watchfloor runs list --status waiting` (uncertain, dead)"
            ));
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
        out.json(&json!({ "running": service.is_some(), "url": service, "runs": runs, "attention": attention, "late": late }));
    }
    Ok(if service.is_some() { ExitCode::Ok } else { ExitCode::Unavailable })
}
