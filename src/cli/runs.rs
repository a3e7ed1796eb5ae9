//! `runs list`, `runs show`, `runs cancel`, `runs settle`.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::deploy::Pinned;
use super::out::{Out, cell, safe};
use super::{Global, catalogues, control, since};
use crate::console::timeline::{self, Entry};
use crate::error::{Error, ExitCode};
use crate::id::RunId;
use crate::journal::sqlite::SqliteStore;
use crate::journal::{RunQuery, RunRow, RunStatus, Store, StoreError};
use crate::worker::Registry;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The newest runs
    List(List),
    /// One run: what it did and why
    Show {
        /// The run's id
        run: String,
    },
    /// Say whether an effect of unknown outcome took place; needs the running service
    Settle(Settle),
    /// End a run that has not ended; needs the running service
    Cancel {
        /// The run's id
        run: String,
        /// Kept with the run
        #[arg(long, default_value = "cancelled on the command line")]
        reason: String,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Settle {
    /// The run's id
    run: String,
    /// done: it took place, the run goes on · not-done: it did not, it is made again under all guards · failed: the step fails
    #[arg(long = "as", value_name = "WHAT", value_parser = ["done", "not-done", "failed"])]
    said: String,
    /// Which call, by its path, where several of the run are uncertain
    #[arg(long, value_name = "PATH")]
    step: Option<String>,
    /// What it gave, as JSON, where no look-up tells: what is left out is filled in as `(unknown)`
    #[arg(long, value_name = "JSON")]
    result: Option<String>,
    /// How you know; kept with the run and in the audit log
    #[arg(long)]
    reason: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only runs of this flow
    #[arg(long)]
    flow: Option<String>,
    /// queued running waiting succeeded failed cancelled uncertain dead
    #[arg(long, value_parser = status)]
    status: Option<RunStatus>,
    /// Started at or after an instant, or within the last 7d
    #[arg(long, value_parser = since, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only runs for this alert or event
    #[arg(long, value_name = "ID")]
    alert: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

pub(super) fn status(text: &str) -> Result<RunStatus, String> {
    let all = || RunStatus::ALL.iter().map(|status| status.as_str());
    RunStatus::ALL
        .into_iter()
        .find(|status| status.as_str().eq_ignore_ascii_case(text))
        .ok_or_else(|| format!("wanted one of {}", all().collect::<Vec<_>>().join(" ")))
}

pub(super) fn run(command: Command, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    match command {
        Command::List(list) => {
            let store = open(global)?;
            let query = RunQuery {
                flow: list.flow,
                status: list.status,
                since: list.since,
                key: list.alert,
                limit: list.limit,
                before: None,
            };
            let rows = store.runs(&query).map_err(failed)?;
            // Why a run waits is for people; the shape that tools rely on does not have it, `runs show` does.
            let item = |row: &RunRow| {
                let mut item = summary(row);
                if let (true, Some(members)) = (out.is_human(), item.as_object_mut()) {
                    members.insert("why".into(), json!(row.reason));
                }
                item
            };
            let items: Vec<Json> = rows.iter().map(item).collect();
            let header = ["id", "flow", "key", "status", "started", "effects", "why"];
            out.list(&items, &header, |item| header.map(|key| cell(item, key)).to_vec());
            Ok(if items.is_empty() { ExitCode::NothingMatched } else { ExitCode::Ok })
        }
        Command::Settle(settle) => {
            let run = parse(&settle.run)?;
            let output = settle.result.as_deref().map(serde_json::from_str::<Json>).transpose();
            let output = output.map_err(|error| Error::usage(format!("--result: {error}")))?;
            let body = json!({
                "run": run.as_str(), "said": settle.said, "step": settle.step, "output": output,
                "by": whoami(), "reason": settle.reason,
            });
            control::call(&global.config()?.store, "settle", &body)?;
            out.say(&format!("run {run} is settled as {}", settle.said));
            Ok(ExitCode::Ok)
        }
        Command::Show { run } => show(global, &parse(&run)?, out),
        Command::Cancel { run, reason } => {
            let run = parse(&run)?;
            let body = json!({ "run": run.as_str(), "by": whoami(), "reason": reason });
            control::call(&global.config()?.store, "cancel", &body)?;
            out.say(&format!("run {run} is cancelled"));
            Ok(ExitCode::Ok)
        }
    }
}

/// The shape of `runs list -o json`.
pub(super) fn summary(row: &RunRow) -> Json {
    json!({
        "id": row.id.as_str(), "flow": row.flow, "version": row.version, "trigger": row.trigger, "key": row.key,
        "status": row.status, "started": row.accepted, "ended": row.ended, "effects": row.effects,
    })
}

/// What a run did, step by step; the error is a sentence.
pub(super) fn steps(
    store: Arc<SqliteStore>,
    row: &RunRow,
    global: &Global,
) -> Result<Result<Vec<Entry>, String>, Error> {
    let turns = store.turns(row.no).map_err(failed)?;
    let config = global.config()?;
    let pinned = Pinned::beside(store, catalogues::open(Some(&config))?, &config);
    Ok(pinned.flow(&row.flow, &row.version).and_then(|flow| timeline::read(row, flow, &turns)))
}

fn show(global: &Global, run: &RunId, out: &Out) -> Result<ExitCode, Error> {
    let store = Arc::new(open(global)?);
    let row = store.run(run).map_err(failed)?;
    let row = row.ok_or_else(|| Error::new(ExitCode::NothingMatched, format!("there is no run {run}")))?;
    let blobs = store.blobs(row.no).map_err(failed)?;
    let answers = blobs.iter().map(|blob| {
        let text = String::from_utf8_lossy(&blob.body);
        let answer = serde_json::from_str(&text).unwrap_or_else(|_| Json::String(text.into_owned()));
        json!({ "path": blob.path, "attempt": blob.attempt, "answer": answer })
    });
    let answers: Vec<Json> = answers.collect();
    let steps = steps(store, &row, global)?;
    if !out.is_human() {
        let mut item = summary(&row);
        if let Some(members) = item.as_object_mut() {
            members.insert("reason".into(), json!(row.reason));
            members.insert("occurred".into(), json!(row.occurred));
            members.insert("payload".into(), row.payload.to_json());
            members.insert("inputs".into(), row.inputs.to_json());
            match &steps {
                Ok(steps) => drop(members.insert("steps".into(), json!(steps))),
                Err(error) => drop(members.insert("steps_error".into(), json!(error))),
            }
            members.insert("answers".into(), Json::Array(answers));
        }
        out.json(&item);
        return Ok(ExitCode::Ok);
    }
    let ended = row.ended.map_or_else(|| "not yet".to_owned(), |at| at.to_string());
    let effects = cell(&summary(&row), "effects");
    for (label, text) in [
        ("run", row.id.to_string()),
        ("flow", format!("{} ({})", row.flow, row.version)),
        ("for", format!("{} {}", row.trigger, row.key)),
        ("status", row.status.as_str().to_owned()),
        ("why", row.reason.clone().unwrap_or_default()),
        ("happened", row.occurred.to_string()),
        ("started", row.accepted.to_string()),
        ("ended", ended),
        ("did", effects),
    ] {
        if !text.is_empty() {
            out.line(&format!("{label:<9} {}", safe(&text)));
        }
    }
    match &steps {
        Ok(steps) => steps.iter().for_each(|entry| tell(entry, out)),
        Err(error) => out.say(&safe(&format!("the steps can't be told: {error}"))),
    }
    if !answers.is_empty() {
        out.say("full answers: `-o json`, or the page in the browser");
    }
    Ok(ExitCode::Ok)
}

/// One line of the timeline, with the leaves of a condition below it.
pub(super) fn tell(entry: &Entry, out: &Out) {
    let at = entry.at.strftime("%H:%M:%S%.3f");
    out.line(&safe(&format!("  {at}  {:<9} {}  {}", entry.what, entry.path, entry.text)));
    entry.trace.iter().for_each(|trace| super::why::tree(trace, 3, out));
}

/// The store of the configuration, beside a service that may be running.
pub(super) fn open(global: &Global) -> Result<SqliteStore, Error> {
    SqliteStore::open_read(&global.config()?.store).map_err(failed)
}

pub(super) fn failed(error: StoreError) -> Error {
    let code = match &error {
        StoreError::Newer { .. } => ExitCode::Config,
        StoreError::Locked(_) | StoreError::Closed => ExitCode::Unavailable,
        StoreError::Full(_) | StoreError::Failed(_) | StoreError::Damaged(_) => ExitCode::Temporary,
    };
    Error::new(code, format!("the store: {error}"))
}

fn parse(text: &str) -> Result<RunId, Error> {
    RunId::parse(text).ok_or_else(|| {
        Error::usage(format!("`{}` is no run id", text.chars().take(40).collect::<String>()))
            .help("26 letters and digits, as `watchfloor runs list` prints them")
    })
}

/// Who is at the keyboard, as far as the system says.
pub(super) fn whoami() -> String {
    std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "unknown".to_owned())
}
