//! Text with `{{ path }}`, `{{ helper args }}` and `{{= CEL }}`: Handlebars syntax in strict mode, typed when a flow is
//! loaded, escaped for where it goes, bounded.
//!
//! A text is scanned (bounds, refusals, places), parsed by the `handlebars` crate, typed, and rendered by us: the crate's
//! renderer knows neither types nor absence.
//!
//! Interpolated values are data: nothing in them is ever parsed again.

mod compile;
mod escape;
pub mod helpers;
mod parse;
mod render;
mod scan;
mod words;

use std::sync::Arc;

use super::ast::Node;
use super::{Env, EvalError, Fault, Reference, TypeEnv};
use crate::catalog::{Context, Type};
use crate::value::Value;

use helpers::Helper;

/// Longest template text, in bytes.
pub(super) const MAX_TEXT: usize = 64 * 1024;
/// Longest rendered text, in bytes.
pub(super) const MAX_OUTPUT: usize = 256 * 1024;
/// Most tags of a template: the parser counts lines from the start of the text for each.
pub(super) const MAX_TAGS: usize = 1_000;
/// Deepest nesting of blocks and of helper calls.
pub(super) const MAX_DEPTH: usize = 8;
/// Most items that one rendering visits.
pub(super) const MAX_ITEMS: usize = 20_000;

/// A compiled template.
#[derive(Clone, Debug)]
pub struct Template {
    /// The type of its value: that of the one expression where the text is exactly one, else `string`.
    pub ty: Type,
    pub references: Vec<Reference>,
    parts: Arc<Vec<Part>>,
    context: Context,
    /// The text is exactly one expression, whose value keeps its type.
    single: bool,
    explains: Vec<Arc<str>>,
}

/// One piece of a compiled template.
#[derive(Clone, Debug)]
enum Part {
    Text(Arc<str>),
    Value(Piece),
    If { test: Piece, then: Vec<Part>, other: Vec<Part> },
    Each { list: Piece, body: Vec<Part>, other: Vec<Part> },
}

/// What stands between `{{` and `}}`.
#[derive(Clone, Debug)]
enum Piece {
    Literal(Value),
    /// A path, or `{{= CEL }}`.
    Expr(Arc<Node>),
    /// A member of the item of an `{{#each}}`, so many blocks up.
    Item {
        up: usize,
        path: Vec<Arc<str>>,
        shown: Arc<str>,
    },
    Call {
        helper: &'static Helper,
        args: Vec<Piece>,
    },
    Explain(Arc<str>),
}

impl Template {
    /// `file` allows `{{#each}}`, `{{#if}}` and `{{else}}`.
    pub fn compile(
        text: &str,
        env: &dyn TypeEnv,
        context: Context,
        file: bool,
    ) -> Result<(Template, Vec<Fault>), Vec<Fault>> {
        compile::compile(text, env, context, file)
    }

    /// Whether the text has no expression at all: then its value is the text.
    pub fn is_plain(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// The value, typed where the text is exactly one expression, else text escaped for the context.
    pub fn eval(&self, env: &dyn Env) -> Result<Value, EvalError> {
        render::render(self, env)
    }

    /// Ids whose explanation it prints.
    pub fn explains(&self) -> Vec<Arc<str>> {
        self.explains.clone()
    }
}
