//! Conditions (CEL) and templates (Handlebars): parsed, typed and bounded when a flow is loaded; evaluated with a trace.
//!
//! Pure: `now` is a value that the caller gives. References are known with their positions before anything runs.

mod ast;
mod check;
pub mod cond;
mod eval;
pub mod functions;
mod lex;
mod narrow;
mod ops;
mod parse;
pub mod template;
mod trace;

use std::sync::Arc;

use jiff::Timestamp;

use crate::catalog::Type;
use crate::value::Value;

pub use cond::{Cond, Expr};
pub use template::Template;

/// What names mean to the checker.
pub trait TypeEnv {
    /// The binding of a root name; `None` where there is no such name.
    fn lookup(&self, name: &str) -> Option<Binding>;
    /// All names in scope, for suggestions.
    fn names(&self) -> Vec<Arc<str>>;
    /// Ids of `if` steps whose decision `explain` can print.
    fn explainable(&self, _id: &str) -> bool {
        false
    }
    /// Whether unlike types are faults. Off only for text that is untyped by design, such as the conformance cases.
    fn strict(&self) -> bool {
        true
    }
}

#[derive(Clone, Debug)]
pub struct Binding {
    pub ty: Type,
    pub presence: Presence,
}

/// Whether a name has a value when it is read.
#[derive(Clone, Debug, PartialEq)]
pub enum Presence {
    Always,
    /// The step may not have run: reading wants a guard (`has(id.field)`); the text says why.
    Maybe(String),
    /// It can't have a value here; the text says why.
    Never(String),
}

/// What names mean at run time.
pub trait Env {
    /// The value of a root name. A step that did not run is `None`.
    fn lookup(&self, name: &str) -> Option<&Value>;
    /// The time of the turn.
    fn now(&self) -> Timestamp;
    /// The kept explanation of an `if` step.
    fn explanation(&self, _id: &str) -> Option<&str> {
        None
    }
}

/// Reads of a compiled expression or template: a root name and the member names below it as far as they are static.
/// The checker keeps only these fields of each output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub root: Arc<str>,
    /// Stops at the first index, call or comprehension; an empty path reads all of it.
    pub path: Vec<Arc<str>>,
}

/// Why a value could not be had at run time.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalError {
    /// One sentence that names the path or the operation: `alert.device is absent`.
    pub message: String,
}

impl EvalError {
    pub fn new(message: impl Into<String>) -> Self {
        EvalError { message: message.into() }
    }
}

impl std::fmt::Display for EvalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// A fault of an expression's or a template's text; offsets are bytes within that text.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub code: &'static str,
    pub start: usize,
    pub end: usize,
    pub message: String,
    pub help: Option<String>,
    pub warning: bool,
}

/// How a condition came out, leaf by leaf: what `why`, `explain` and the run page show.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Trace {
    /// The text of the leaf, or `all`, `any`, `none`.
    pub text: String,
    pub result: TraceResult,
    /// The values that were read: path and value as short text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Trace>,
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceResult {
    True,
    False,
    Error(String),
}

#[cfg(test)]
mod tests;
