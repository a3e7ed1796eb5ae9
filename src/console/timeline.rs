//! What a run did, step by step, read from its rows by replaying them with an observer.

use std::sync::Arc;

use jiff::Timestamp;

use crate::check::CheckedFlow;
use crate::engine::observe::{Event, Observer};
use crate::engine::{Outcome, Verdict};
use crate::expr::Trace;
use crate::journal::RunRow;
use crate::value::Value;
use crate::worker;

/// Longest text of one entry.
const MAX_TEXT: usize = 2_000;

/// One line of the timeline.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Entry {
    pub at: Timestamp,
    /// The operation's stable path.
    pub path: String,
    /// `step`, `condition`, `call`, `answer`, `guard`, `wait`, `skip`, `done`, `failed`.
    pub what: &'static str,
    /// One line for people.
    pub text: String,
    /// Line of the flow file, where a step begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// Inputs of a call or the output of a step; absent where the step is `secure`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<serde_json::Value>,
}

/// Reads the timeline of a run; the error says why its rows can't be followed.
pub fn read(row: &RunRow, flow: Arc<CheckedFlow>, turns: &[Vec<u8>]) -> Result<Vec<Entry>, String> {
    let mut watcher = Watcher { entries: vec![], secure: None };
    worker::recover::tell(row.clone(), flow, turns, &mut watcher)?;
    Ok(watcher.entries)
}

struct Watcher {
    entries: Vec<Entry>,
    /// The path of a call whose inputs and outputs are hidden.
    secure: Option<String>,
}

impl Observer for Watcher {
    fn event(&mut self, at: Timestamp, path: &str, event: Event<'_>) {
        let mut entry = Entry {
            at,
            path: path.to_owned(),
            what: "step",
            text: String::new(),
            line: None,
            trace: None,
            values: None,
        };
        match event {
            Event::StepStarted { label, line, kind, secure: _ } => {
                entry.text = format!("{kind}: {label}");
                entry.line = Some(line);
            }
            Event::Decided { trace } => {
                entry.what = "condition";
                entry.text = trace.text.clone();
                entry.trace = Some(trace.clone());
            }
            Event::Called { call } => {
                entry.what = "call";
                entry.text = format!("{} over {}, attempt {}", call.action.name, call.connection, call.attempt);
                if call.secure {
                    self.secure = Some(path.to_owned());
                } else {
                    entry.values = Some(Value::map(call.inputs.clone()).to_json());
                }
            }
            Event::Answered { outcome } => {
                entry.what = "answer";
                entry.text = answer(outcome);
            }
            Event::Guarded { verdict } => {
                entry.what = "guard";
                entry.text = match verdict {
                    Verdict::Go | Verdict::GoRead => return,
                    Verdict::Shadow => "shadow: recorded, not sent".to_owned(),
                    Verdict::Refuse { code, message } => format!("refused, {code}: {message}"),
                    Verdict::Ask { reason } => format!("a person must decide: {reason}"),
                };
            }
            Event::Waits { reason, until } => {
                entry.what = "wait";
                entry.text = until.map_or_else(|| reason.to_owned(), |until| format!("{reason}, until {until}"));
            }
            Event::Skipped { reason } => {
                entry.what = "skip";
                entry.text = reason.to_owned();
            }
            Event::Done { output } => {
                entry.what = "done";
                if self.secure.as_deref() != Some(path) {
                    entry.values = output.map(Value::to_json);
                }
            }
            Event::Failed { error } => {
                entry.what = "failed";
                entry.text = format!("{} {}: {}", error.step, error.code, error.message);
            }
        }
        entry.text = entry.text.chars().take(MAX_TEXT).collect();
        self.entries.push(entry);
    }
}

fn answer(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { status, .. } => format!("done ({status})"),
        Outcome::Refused { status, code, message, .. } => format!("refused ({status} {code}): {message}"),
        Outcome::NotSent { code, message, .. } => format!("not sent ({code}): {message}"),
        Outcome::Unknown { status, code, message } => format!("unknown outcome ({status} {code}): {message}"),
    }
}
