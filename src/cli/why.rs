//! `why FLOW --alert ID`: the run that an event started, or the condition that kept it from starting one.

use serde_json::{Value as Json, json};

use super::out::{Out, safe};
use super::{Global, runs};
use crate::error::{Error, ExitCode};
use crate::expr::{Trace, TraceResult};
use crate::journal::{Gathering, RunQuery, Store, Taken};
use crate::trigger::offer::Skip;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    flow: String,
    /// The alert's id, or the whole key of an event
    #[arg(long, value_name = "ID")]
    alert: String,
}

pub(super) fn run(args: &Args, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let config = global.config()?;
    let store = runs::open(global)?;
    // The key of an alert begins with its connection.
    let keys = config.connections.keys().map(|name| format!("{name}:{}", args.alert));
    let keys: Vec<String> = std::iter::once(args.alert.clone()).chain(keys).collect();
    for key in &keys {
        if let Some(told) = gathered(&store, &args.flow, key, out)? {
            return Ok(told);
        }
    }
    let query =
        RunQuery { flow: Some(args.flow.clone()), key: Some(args.alert.clone()), limit: 20, ..RunQuery::default() };
    let found = store.runs(&query).map_err(runs::failed)?;
    if !found.is_empty() {
        let items: Vec<Json> = found.iter().map(runs::summary).collect();
        if out.is_human() {
            for row in &found {
                let why = row.reason.as_deref().map_or_else(String::new, |why| format!(": {why}"));
                out.line(&safe(&format!("{} started run {}, {}{why}", row.key, row.id, row.status.as_str())));
            }
            out.say("`watchfloor runs show ID` tells what it did");
        } else {
            out.json(&json!({ "flow": args.flow, "runs": items }));
        }
        return Ok(ExitCode::Ok);
    }
    for key in keys {
        let Some((at, body)) = store.skipped(&args.flow, &key).map_err(runs::failed)? else { continue };
        let skip: Skip = serde_json::from_slice(&body)
            .map_err(|error| Error::new(ExitCode::Temporary, format!("reading why {key} was skipped: {error}")))?;
        if out.is_human() {
            out.line(&safe(&format!("{key} started nothing at {at}: {}", reason(&skip))));
            skip.trace.iter().for_each(|trace| tree(trace, 1, out));
        } else {
            out.json(&json!({ "flow": args.flow, "key": key, "at": at, "skipped": skip }));
        }
        return Ok(ExitCode::Ok);
    }
    Err(Error::new(ExitCode::NothingMatched, format!("the flow {} was offered no event {}", args.flow, args.alert))
        .help("was the flow deployed when it happened, and is its trigger for this kind of event?"))
}

/// Tells of an event that is or was one of several; `None` where it is not.
fn gathered(store: &dyn Store, flow: &str, key: &str, out: &Out) -> Result<Option<ExitCode>, Error> {
    match store.taken(flow, key).map_err(runs::failed)? {
        Some(Taken::Gathering(Gathering { events, due, opened, .. })) => {
            if out.is_human() {
                let many = if events == 1 { "1 event".to_owned() } else { format!("{events} events") };
                out.line(&safe(&format!(
                    "{key} is in a batch of {many} so far, which starts a run at {due} or earlier"
                )));
            } else {
                let gathering = json!({ "events": events, "opened": opened, "due": due });
                out.json(&json!({ "flow": flow, "key": key, "gathering": gathering }));
            }
        }
        Some(Taken::Run(no)) => {
            let found = store.whole(&[no]).map_err(runs::failed)?.into_iter().next().map(|whole| whole.row);
            let Some(row) = found.filter(|row| row.key != key) else { return Ok(None) };
            if out.is_human() {
                let why = row.reason.as_deref().map_or_else(String::new, |why| format!(": {why}"));
                let status = row.status.as_str();
                let line = format!("{key} is in the batch {} that started run {}, {status}{why}", row.key, row.id);
                out.line(&safe(&line));
                out.say("`watchfloor runs show ID` tells what it did");
            } else {
                out.json(&json!({ "flow": flow, "key": key, "runs": [runs::summary(&row)] }));
            }
        }
        None => return Ok(None),
    }
    Ok(Some(ExitCode::Ok))
}

fn reason(skip: &Skip) -> String {
    match &skip.error {
        Some(error) => format!("it could not be judged ({error})"),
        None if skip.late => "it became visible too late for any poll, and the daily sweep found it; \
            `watchfloor start FLOW --alert ID` starts it"
            .to_owned(),
        None => match &skip.suppressed {
            Some(by) => format!("the suppression rule {} of {} suppressed it ({})", by.rule, by.owner, by.action),
            None => "`where` is false".to_owned(),
        },
    }
}

/// A condition, leaf by leaf, with the values that were read.
pub(super) fn tree(trace: &Trace, depth: usize, out: &Out) {
    let mark = match &trace.result {
        TraceResult::True => "true ".to_owned(),
        TraceResult::False => "false".to_owned(),
        TraceResult::Error(error) => format!("error ({error})"),
    };
    let reads: Vec<_> = trace.reads.iter().map(|(path, value)| format!("{path} = {value}")).collect();
    let reads = if reads.is_empty() { String::new() } else { format!("   [{}]", reads.join(", ")) };
    out.line(&format!("{}{}", "  ".repeat(depth), safe(&format!("{mark}  {}{reads}", trace.text))));
    trace.parts.iter().for_each(|part| tree(part, depth + 1, out));
}
