//! Text with `{{ path }}`, `{{ helper args }}` and `{{= CEL }}`.

use super::{Env, EvalError, Fault, Reference, TypeEnv};
use crate::catalog::{Context, Type};
use crate::value::Value;

/// A compiled template.
#[derive(Clone, Debug)]
pub struct Template {
    /// The type of its value: that of the one expression where the text is exactly one, else `string`.
    pub ty: Type,
    pub references: Vec<Reference>,
}

impl Template {
    /// `file` allows `{{#each}}`, `{{#if}}` and `{{else}}`.
    pub fn compile(
        _text: &str,
        _env: &dyn TypeEnv,
        _context: Context,
        _file: bool,
    ) -> Result<(Template, Vec<Fault>), Vec<Fault>> {
        Err(vec![])
    }

    /// Whether the text has no expression at all: then its value is the text.
    pub fn is_plain(&self) -> bool {
        false
    }

    /// The value, typed where the text is exactly one expression, else text escaped for the context.
    pub fn eval(&self, _env: &dyn Env) -> Result<Value, EvalError> {
        Err(EvalError::new("not built"))
    }

    /// Ids whose explanation it prints.
    pub fn explains(&self) -> Vec<std::sync::Arc<str>> {
        vec![]
    }
}
