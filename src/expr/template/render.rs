//! From a compiled template and the values of a run to its value.

use super::super::eval::evaluate;
use super::super::{Env, EvalError};
use super::escape::escape;
use super::{MAX_ITEMS, MAX_OUTPUT, Part, Piece, Template, helpers};
use crate::catalog::Context;
use crate::value::Value;

pub(super) fn render(template: &Template, env: &dyn Env) -> Result<Value, EvalError> {
    let mut renderer = Renderer { env, context: template.context, out: String::new(), items: vec![], visited: 0 };
    if let (true, [Part::Value(piece)]) = (template.single, template.parts.as_slice()) {
        if let (Piece::Call { helper, args }, true) = (piece, renderer.marks_up())
            && helper.name == "table"
        {
            return renderer.table(args).map(Value::str);
        }
        let value = renderer.piece(piece)?;
        // Typed values reach their sink as data; text is escaped for it like any other interpolation.
        return Ok(match value {
            Value::String(text) => Value::str(escape(&text, template.context)),
            other => other,
        });
    }
    renderer.parts(&template.parts)?;
    Ok(Value::str(renderer.out))
}

struct Renderer<'e> {
    env: &'e dyn Env,
    context: Context,
    out: String,
    items: Vec<Value>,
    visited: usize,
}

impl Renderer<'_> {
    fn parts(&mut self, parts: &[Part]) -> Result<(), EvalError> {
        for part in parts {
            match part {
                Part::Text(text) => self.push(text)?,
                Part::Value(Piece::Call { helper, args }) if helper.name == "table" && self.marks_up() => {
                    let text = self.table(args)?;
                    self.push(&text)?;
                }
                Part::Value(piece) => {
                    let value = self.piece(piece)?;
                    let text = helpers::scalar(&value).map_err(EvalError::new)?;
                    let text = escape(&text, self.context);
                    self.push(&text)?;
                }
                Part::If { test, then, other } => {
                    let chosen = if self.maybe(test)?.is_some_and(|value| truthy(&value)) { then } else { other };
                    self.parts(chosen)?;
                }
                Part::Each { list, body, other } => self.each(list, body, other)?,
            }
        }
        Ok(())
    }

    /// Whether tables are markup here, which escaping would spoil.
    fn marks_up(&self) -> bool {
        matches!(self.context, Context::Html | Context::Markdown | Context::Card | Context::CardJson)
    }

    fn table(&self, args: &[Piece]) -> Result<String, EvalError> {
        let values = args.iter().map(|arg| self.piece(arg).map(Some)).collect::<Result<Vec<_>, _>>()?;
        let failed = |reason| EvalError::new(format!("table: {reason}"));
        match self.context {
            // The rows' line breaks are markup for the card, and must not end the JSON text that holds them.
            Context::CardJson => {
                helpers::markup(&values, Context::Card).map(|table| escape(&table, Context::Json)).map_err(failed)
            }
            context => helpers::markup(&values, context).map_err(failed),
        }
    }

    fn each(&mut self, list: &Piece, body: &[Part], other: &[Part]) -> Result<(), EvalError> {
        let value = self.piece(list)?;
        let items = value
            .as_list()
            .ok_or_else(|| EvalError::new(format!("`{{{{#each}}}}` wants a list, not {}", value.kind())))?;
        if items.is_empty() {
            return self.parts(other);
        }
        for item in items {
            self.visited += 1;
            if self.visited > MAX_ITEMS {
                return Err(EvalError::new(format!("the template visits more than {MAX_ITEMS} items")));
            }
            self.items.push(item.clone());
            let result = self.parts(body);
            self.items.pop();
            result?;
        }
        Ok(())
    }

    fn push(&mut self, text: &str) -> Result<(), EvalError> {
        if self.out.len() + text.len() > MAX_OUTPUT {
            return Err(EvalError::new(format!("the rendered text has more than {MAX_OUTPUT} bytes")));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn piece(&self, piece: &Piece) -> Result<Value, EvalError> {
        match piece {
            Piece::Literal(value) => Ok(value.clone()),
            Piece::Expr(node) => evaluate(node, self.env),
            Piece::Item { shown, .. } => self.maybe(piece)?.ok_or_else(|| EvalError::new(format!("{shown} is absent"))),
            Piece::Explain(id) => {
                let text = self.env.explanation(id).map(Value::str);
                text.ok_or_else(|| EvalError::new(format!("there is no explanation of `{id}`: the step did not run")))
            }
            Piece::Call { helper, args } => {
                let tolerant = helper.name == "default";
                let mut values = Vec::with_capacity(args.len());
                for (at, arg) in args.iter().enumerate() {
                    let value = if tolerant && at == 0 { self.maybe(arg)? } else { Some(self.piece(arg)?) };
                    values.push(value);
                }
                (helper.run)(&values).map_err(|reason| EvalError::new(format!("{}: {reason}", helper.name)))
            }
        }
    }

    /// The value, or `None` where its path is absent.
    fn maybe(&self, piece: &Piece) -> Result<Option<Value>, EvalError> {
        match piece {
            Piece::Expr(node) => match node.static_path() {
                Some((root, path)) => {
                    let names: Vec<&str> = path.iter().map(|name| &**name).collect();
                    let now = Value::Datetime(self.env.now());
                    let root = self.env.lookup(root).or((&**root == "now").then_some(&now));
                    Ok(root.and_then(|value| value.at(&names)).cloned())
                }
                None => evaluate(node, self.env).map(Some),
            },
            Piece::Item { up, path, .. } => {
                let item = self.items.iter().rev().nth(*up);
                let names: Vec<&str> = path.iter().map(|name| &**name).collect();
                Ok(item.and_then(|item| item.at(&names)).cloned())
            }
            other => self.piece(other).map(Some),
        }
    }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::Int(value) => *value != 0,
        Value::Number(value) => *value != 0.0,
        Value::String(text) => !text.is_empty(),
        Value::List(items) => !items.is_empty(),
        Value::Map(members) => !members.is_empty(),
        Value::Datetime(_) | Value::Duration(_) => true,
    }
}
