//! How a condition came out, in one line for people.

use super::Env;
use super::functions::short_duration;
use super::{Reference, Trace, TraceResult};
use crate::value::Value;

/// Longest text of one value in an explanation, in characters.
const MAX_VALUE: usize = 80;
/// Longest explanation, in characters.
const MAX_SENTENCE: usize = 2_000;

impl Trace {
    /// The leaves that decided, with what they read: `a.b == 1 (a.b = 2) is false; c is false`.
    pub fn sentence(&self) -> String {
        let mut parts = Vec::new();
        self.deciding(&mut parts);
        let text = parts.join("; ");
        match text.char_indices().nth(MAX_SENTENCE) {
            Some((at, _)) => format!("{}…", text.get(..at).unwrap_or("")),
            None => text,
        }
    }

    fn deciding(&self, parts: &mut Vec<String>) {
        if self.parts.is_empty() {
            parts.push(self.leaf());
            return;
        }
        // An operand that decides outweighs the others; where none does, all of them matter.
        let wanted = |part: &&Trace| match (&self.result, self.text.as_str()) {
            (TraceResult::Error(_), _) => matches!(part.result, TraceResult::Error(_)),
            (TraceResult::False, "all") => part.result == TraceResult::False,
            (TraceResult::True, "any") => part.result == TraceResult::True,
            (TraceResult::False, "none") => part.result == TraceResult::True,
            _ => true,
        };
        for part in self.parts.iter().filter(wanted) {
            part.deciding(parts);
        }
    }

    fn leaf(&self) -> String {
        let others: Vec<String> = self
            .reads
            .iter()
            .filter(|(path, _)| *path != self.text)
            .map(|(path, value)| format!("{path} = {value}"))
            .collect();
        let reads = if others.is_empty() { String::new() } else { format!(" ({})", others.join(", ")) };
        match &self.result {
            TraceResult::True => format!("{}{reads} is true", self.text),
            TraceResult::False => format!("{}{reads} is false", self.text),
            TraceResult::Error(message) => format!("{}{reads} could not be decided: {message}", self.text),
        }
    }
}

/// The values behind references as short text, each path once.
pub(super) fn reads(references: &[Reference], env: &dyn Env) -> Vec<(String, String)> {
    let mut reads: Vec<(String, String)> = Vec::new();
    for reference in references {
        let mut path = reference.root.to_string();
        for part in &reference.path {
            path.push('.');
            path.push_str(part);
        }
        if reads.iter().any(|(seen, _)| *seen == path) {
            continue;
        }
        let names: Vec<&str> = reference.path.iter().map(|part| &**part).collect();
        let now = Value::Datetime(env.now());
        let root = env.lookup(&reference.root).or((&*reference.root == "now").then_some(&now));
        let shown = root.and_then(|value| value.at(&names)).map_or_else(|| "absent".to_owned(), short);
        reads.push((path, shown));
    }
    reads
}

/// A value as short text: quoted text, RFC 3339 instants, JSON for the rest.
pub(super) fn short(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("'{text}'"),
        Value::Datetime(at) => at.to_string(),
        Value::Duration(span) => short_duration(*span),
        Value::List(items) if items.len() > 8 => format!("{} items", items.len()),
        Value::Map(members) if members.len() > 8 => format!("a map of {} members", members.len()),
        Value::List(items) => format!("[{}]", items.iter().map(short).collect::<Vec<_>>().join(", ")),
        Value::Map(members) => {
            let members: Vec<String> = members.iter().map(|(key, value)| format!("{key}: {}", short(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
    };
    match text.char_indices().nth(MAX_VALUE) {
        Some(_) => format!("{}…", text.chars().take(MAX_VALUE - 1).collect::<String>()),
        None => text,
    }
}
