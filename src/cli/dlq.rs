//! `dlq list|show|retry|drop`: what a person must see through. A dead run goes on at the step that failed; an event that
//! could not be judged is offered again.

use std::io::{BufRead, IsTerminal};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::out::{Out, cell, safe};
use super::{Global, control, runs, since, why};
use crate::console::timeline::Entry;
use crate::error::{Error, ExitCode};
use crate::id::RunId;
use crate::journal::sqlite::SqliteStore;
use crate::journal::{Letter, LetterQuery, RunQuery, RunRow, RunStatus, Store};
use crate::trigger::letters::Undelivered;

/// Dead letters that one command retries, at most.
const MOST: usize = 1000;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Dead runs and events that could not be judged, newest first
    List(List),
    /// One of them: its payload, the step that failed, the error, the attempts
    Show {
        /// As `dlq list` prints it: a run's id, or event-…
        id: String,
    },
    /// Have them go on: a run at the step that failed, an event by being offered again; needs the running service
    Retry(Retry),
    /// End them for good; needs the running service
    Drop {
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// Kept with each, and in the audit log
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only those of this flow
    #[arg(long)]
    flow: Option<String>,
    /// Accepted or offered at or after an instant, or within the last 7d
    #[arg(long, value_parser = since, value_name = "TIME")]
    since: Option<Timestamp>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

#[derive(Debug, clap::Args)]
pub(super) struct Retry {
    #[arg(required_unless_present_any = ["flow", "all"], conflicts_with_all = ["flow", "all"], value_name = "ID")]
    ids: Vec<String>,
    /// All of this flow, the oldest first, at most 1000
    #[arg(long, conflicts_with = "all")]
    flow: Option<String>,
    /// All, the oldest first, at most 1000
    #[arg(long)]
    all: bool,
    /// Do not ask back
    #[arg(long, short)]
    yes: bool,
    /// Kept with each, and in the audit log
    #[arg(long, default_value = "retried on the command line")]
    reason: String,
}

pub(super) fn run(command: Command, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    match command {
        Command::List(list) => {
            let store = runs::open(global)?;
            let mut items = gather(&store, list.flow.as_deref(), list.since, list.limit)?;
            items.truncate(if list.limit == 0 { usize::MAX } else { list.limit });
            let header = ["id", "flow", "key", "at", "error"];
            out.list(&items, &header, |item| header.map(|key| cell(item, key)).to_vec());
            Ok(if items.is_empty() { ExitCode::NothingMatched } else { ExitCode::Ok })
        }
        Command::Show { id } => show(global, &id, out),
        Command::Retry(retry) => {
            let ids = if retry.ids.is_empty() {
                let store = runs::open(global)?;
                let mut items = gather(&store, retry.flow.as_deref(), None, 0)?;
                items.reverse();
                let all = items.len();
                items.truncate(MOST);
                if items.is_empty() {
                    return Err(Error::new(ExitCode::NothingMatched, "there are no dead letters"));
                }
                let question = match all.checked_sub(MOST).filter(|left| *left > 0) {
                    None => format!("retry {all} dead letters?"),
                    Some(left) => format!("retry the oldest {MOST} dead letters, and leave {left}?"),
                };
                if !retry.yes && !confirm(&question, global, out)? {
                    out.say("nothing is retried");
                    return Ok(ExitCode::Findings);
                }
                items.iter().map(|item| cell(item, "id")).collect()
            } else {
                retry.ids
            };
            each(&ids, "retry", &retry.reason, global, out)
        }
        Command::Drop { ids, reason } => each(&ids, "drop", &reason, global, out),
    }
}

/// Runs and events together, newest first.
fn gather(store: &SqliteStore, flow: Option<&str>, since: Option<Timestamp>, limit: usize) -> Result<Vec<Json>, Error> {
    let flow = flow.map(str::to_owned);
    let query = RunQuery { flow: flow.clone(), status: Some(RunStatus::Dead), since, limit, ..RunQuery::default() };
    let dead = store.runs(&query).map_err(runs::failed)?;
    let letters = store.letters(&LetterQuery { flow, since, limit }).map_err(runs::failed)?;
    let mut items: Vec<(Timestamp, Json)> =
        dead.iter().map(|row| (row.ended.unwrap_or(row.accepted), of_run(row))).collect();
    items.extend(letters.iter().map(|letter| (letter.at, of_event(letter))));
    items.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    Ok(items.into_iter().map(|(_, item)| item).collect())
}

fn of_run(row: &RunRow) -> Json {
    json!({
        "id": row.id.as_str(), "kind": "run", "flow": row.flow, "trigger": row.trigger, "key": row.key,
        "at": row.ended, "error": row.reason,
    })
}

fn of_event(letter: &Letter) -> Json {
    let (trigger, error) = match Undelivered::read(letter) {
        Ok(kept) => (Some(kept.trigger), kept.error),
        Err(error) => (None, error),
    };
    json!({
        "id": Letter::id(&letter.flow, &letter.key), "kind": "event", "flow": letter.flow, "trigger": trigger,
        "key": letter.key, "at": letter.at, "error": error,
    })
}

fn show(global: &Global, id: &str, out: &Out) -> Result<ExitCode, Error> {
    let store = Arc::new(runs::open(global)?);
    let none = |why: &str| Error::new(ExitCode::NothingMatched, format!("{id} is no dead letter{why}"));
    let (item, entries) = match RunId::parse(id) {
        Some(run) => {
            let row = store.run(&run).map_err(runs::failed)?.ok_or_else(|| none(": there is no such run"))?;
            if row.status != RunStatus::Dead {
                return Err(none(&format!(": it is {}", row.status.as_str())));
            }
            let steps = runs::steps(store, &row, global)?;
            dead_run(&row, steps)
        }
        None => {
            let letter = store.letter(id).map_err(runs::failed)?.ok_or_else(|| none(""))?;
            let kept = Undelivered::read(&letter).map_err(|error| Error::new(ExitCode::Temporary, error))?;
            let mut item = of_event(&letter);
            for (name, value) in [
                ("occurred", json!(kept.occurred)),
                ("payload", kept.payload.to_json()),
                ("inputs", kept.inputs.to_json()),
                ("trace", json!(kept.trace)),
            ] {
                item[name] = value;
            }
            if out.is_human() {
                lines(&item, out);
                kept.trace.iter().for_each(|trace| why::tree(trace, 1, out));
                return Ok(ExitCode::Ok);
            }
            (item, vec![])
        }
    };
    if out.is_human() {
        lines(&item, out);
        entries.iter().for_each(|entry| runs::tell(entry, out));
    } else {
        out.json(&item);
    }
    Ok(ExitCode::Ok)
}

/// The run with the step that failed last, and how often that was tried.
fn dead_run(row: &RunRow, steps: Result<Vec<Entry>, String>) -> (Json, Vec<Entry>) {
    let mut item = of_run(row);
    item["occurred"] = json!(row.occurred);
    item["payload"] = row.payload.to_json();
    item["inputs"] = row.inputs.to_json();
    item["effects"] = json!(row.effects);
    match steps {
        Ok(entries) => {
            // An enclosing step fails with what failed inside of it; the call is the innermost.
            let calls = |path: &str| entries.iter().filter(|it| it.what == "call" && it.path == path).count();
            let begun = entries.iter().rposition(|it| it.what == "retry").unwrap_or(0);
            let mut failed = entries.iter().skip(begun).filter(|it| it.what == "failed" && calls(&it.path) > 0);
            let outside = |it: &&Entry| !it.path.starts_with("/on_failure/") && !it.path.starts_with("/finally/");
            if let Some(failed) = failed.rfind(outside) {
                item["step"] = json!(failed.path.trim_start_matches('/'));
                item["attempts"] = json!(calls(&failed.path));
            }
            item["retries"] = json!(entries.iter().filter(|it| it.what == "retry").count());
            (item, entries)
        }
        Err(error) => {
            item["steps_error"] = json!(error);
            (item, vec![])
        }
    }
}

fn lines(item: &Json, out: &Out) {
    for name in [
        "id", "kind", "flow", "trigger", "key", "occurred", "at", "step", "error", "attempts", "retries", "effects",
        "payload", "inputs",
    ] {
        let text = match item.get(name) {
            Some(Json::Object(members)) if members.is_empty() => String::new(),
            Some(value @ Json::Object(_)) => value.to_string(),
            _ => cell(item, name),
        };
        if !text.is_empty() {
            out.line(&format!("{name:<9} {}", safe(&text)));
        }
    }
}

/// One after the other: the service takes each when it has room. What is refused is said, and the others go on.
fn each(ids: &[String], what: &str, reason: &str, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let store = global.config()?.store;
    let (mut done, mut refused) = (vec![], None);
    for id in ids {
        let body = json!({ "id": id, "what": what, "by": runs::whoami(), "reason": reason });
        match control::call(&store, "dlq", &body) {
            Ok(mut answer) => {
                answer["id"] = json!(id);
                if out.is_human() {
                    let run = answer.get("run").and_then(Json::as_str).filter(|run| run != id);
                    let run = run.map(|run| format!(": run {run}")).unwrap_or_default();
                    out.line(&safe(&format!("{id}  {}{run}", cell(&answer, "outcome"))));
                }
                done.push(answer);
            }
            // Nobody is there for the next one either.
            Err(error) if matches!(error.code, ExitCode::Unavailable | ExitCode::Permission) => return Err(error),
            Err(error) => {
                out.error(&Error::new(error.code, format!("{id}: {}", error.message)));
                refused = Some(error.code);
            }
        }
    }
    if !out.is_human() {
        out.json(&Json::Array(done));
    }
    Ok(refused.unwrap_or(ExitCode::Ok))
}

/// Asks a person; where nobody can answer, the command says how to go on without.
pub(super) fn confirm(question: &str, global: &Global, out: &Out) -> Result<bool, Error> {
    if global.no_input || !std::io::stdin().is_terminal() {
        return Err(Error::usage(format!("{question} nobody is asked here")).help("add --yes"));
    }
    out.ask(&format!("{question} [y/N] "));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Error::usage(format!("reading the answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
