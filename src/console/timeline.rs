//! What a run did, step by step, read from its rows by replaying them with an observer.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use crate::check::CheckedFlow;
use crate::engine::observe::{Event, Observer};
use crate::engine::{Call, Outcome, Said, Verdict};
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
    /// `step`, `condition`, `call`, `answer`, `guard`, `wait`, `skip`, `done`, `failed`, `retry`, `settle`.
    pub what: &'static str,
    /// One line for people.
    pub text: String,
    /// Line of the flow file, where a step begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// The answer to an earlier attempt was lost: this call may be the second that took effect.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub maybe_sent: bool,
    /// Inputs of a call or the output of a step; absent where the step is `secure`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<serde_json::Value>,
}

impl Entry {
    fn new(at: Timestamp, path: &str) -> Self {
        Entry {
            at,
            path: path.to_owned(),
            what: "step",
            text: String::new(),
            line: None,
            trace: None,
            maybe_sent: false,
            values: None,
        }
    }
}

/// Reads the timeline of a run; the error says why its rows can't be followed.
pub fn read(row: &RunRow, flow: Arc<CheckedFlow>, turns: &[Vec<u8>]) -> Result<Vec<Entry>, String> {
    let mut watcher = Watcher { entries: vec![], secure: BTreeSet::new() };
    worker::recover::tell(row.clone(), flow, turns, &mut watcher)?;
    Ok(watcher.entries)
}

struct Watcher {
    entries: Vec<Entry>,
    /// The paths of the secure steps that began: several may go at once, and in shadow none of them makes a call.
    secure: BTreeSet<String>,
}

impl Watcher {
    /// Whether a path is of a secure step, or lies inside of one.
    fn is_secure(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.filter_map(|end| path.get(..end)).any(|part| self.secure.contains(part))
    }
}

impl Observer for Watcher {
    fn event(&mut self, at: Timestamp, path: &str, event: Event<'_>) {
        let mut entry = Entry::new(at, path);
        match event {
            Event::StepStarted { label, line, kind, secure } => {
                entry.text = format!("{kind}: {label}");
                entry.line = Some(line);
                if secure {
                    self.secure.insert(path.to_owned());
                }
            }
            Event::Decided { trace } => {
                entry.what = "condition";
                entry.text = trace.text.clone();
                // A trace holds the values that the condition read.
                entry.trace = (!self.is_secure(path)).then(|| trace.clone());
            }
            Event::Called { call } => {
                entry.what = "call";
                entry.maybe_sent = call.maybe_sent;
                entry.text = attempt(call);
                if !call.secure && !self.is_secure(path) {
                    entry.values = Some(Value::map(call.inputs.clone()).to_json());
                }
            }
            Event::Answered { outcome } => {
                entry.what = "answer";
                entry.text = answer(outcome);
            }
            Event::Guarded { verdict } => {
                entry.what = "guard";
                let Some(text) = guard(verdict) else { return };
                entry.text = text;
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
                if !self.is_secure(path) {
                    entry.values = output.map(Value::to_json);
                }
            }
            Event::Retried { by, reason } => {
                entry.what = "retry";
                entry.text = format!("{by} had it go on at the step that failed: {reason}");
            }
            Event::Settled { said, by, reason } => {
                entry.what = "settle";
                entry.text = format!("{by} says {}: {reason}", word(said));
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

fn attempt(call: &Call) -> String {
    let maybe = if call.maybe_sent { " (maybe sent: the answer to an earlier attempt was lost)" } else { "" };
    format!("{} over {}, attempt {}{maybe}", call.action.name, call.connection, call.attempt)
}

/// What the guard's word is worth telling.
fn guard(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Go | Verdict::GoRead => None,
        Verdict::Shadow => Some("shadow: recorded, not sent".to_owned()),
        Verdict::Refuse { code, message } => Some(format!("refused, {code}: {message}")),
        Verdict::Ask { reason } => Some(format!("a person must decide: {reason}")),
        Verdict::Again => Some("held back: it is asked again from the lock on".to_owned()),
        Verdict::Unavailable { message } => Some(format!("not sent: {message}")),
    }
}

fn word(said: &Said) -> &'static str {
    match said {
        Said::Done { .. } => "that it was done",
        Said::NotDone => "that it was not done",
        Said::Failed => "that the step fails",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secure_steps_tell_no_values() {
        let mut watcher = Watcher { entries: vec![], secure: BTreeSet::new() };
        let at = Timestamp::UNIX_EPOCH;
        let started = |secure| Event::StepStarted { label: "x", line: 1, kind: "action", secure };
        // Two at once, in shadow: neither makes a call.
        for (path, secure) in [("/a", true), ("/b", true), ("/bc", false)] {
            watcher.event(at, path, started(secure));
        }
        let output = Value::str("hunter2");
        for path in ["/a", "/b", "/b/loop[1]/c", "/bc"] {
            watcher.event(at, path, Event::Done { output: Some(&output) });
        }
        let told: Vec<_> =
            watcher.entries.iter().filter(|entry| entry.values.is_some()).map(|entry| &entry.path).collect();
        assert_eq!(told, ["/bc"]);
    }
}
