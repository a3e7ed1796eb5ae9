//! Declared fields: `inputs:`, `fields:`, `columns:`, `response:`, and the words for types that people write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::cx::Checker;
use super::program::{FlowLimit, InputDecl};
use crate::catalog::{Effect, Field, ObjectType, Type};
use crate::diag::{Span, suggestion};
use crate::flow::model::{FieldDecl, Name, Payload};
use crate::flow::words;
use crate::value::Value;
use crate::yaml::{Kind, Node, Style};

pub(super) fn field(ty: Type, optional: bool) -> Field {
    Field { ty, optional, doc: Arc::from(""), untrusted: false }
}

/// A type as flows write it, or as KQL calls it.
pub(super) fn type_word(word: &str) -> Option<Type> {
    words::declared_type(word).or(match word {
        "guid" => Some(Type::String),
        "long" => Some(Type::Int),
        "real" | "double" | "decimal" => Some(Type::Number),
        "timespan" => Some(Type::Duration),
        "dynamic" => Some(Type::Any),
        _ => None,
    })
}

/// An object type of declared fields.
pub(super) fn object_of(name: &str, fields: &[InputDecl]) -> Type {
    let fields = fields
        .iter()
        .map(|decl| {
            let optional = !decl.required && decl.default.is_none();
            (
                Arc::clone(&decl.name),
                Field { doc: Arc::clone(&decl.doc), untrusted: true, ..field(decl.ty.clone(), optional) },
            )
        })
        .collect();
    Type::Object(Arc::new(ObjectType { name: name.into(), fields, open: false }))
}

impl Checker<'_> {
    pub(super) fn declared(&mut self, decls: &[FieldDecl]) -> Vec<InputDecl> {
        let mut done = Vec::with_capacity(decls.len());
        for decl in decls {
            let default = decl.default.as_ref().and_then(|node| self.default_value(node, decl));
            if let Some(zone) = &decl.timezone {
                self.zone(zone, decl.name.span);
            }
            done.push(InputDecl {
                name: Arc::clone(&decl.name.text),
                ty: decl.ty.clone(),
                required: decl.required && decl.default.is_none(),
                default,
                doc: Arc::from(decl.doc.as_deref().unwrap_or("")),
            });
        }
        done
    }

    fn default_value(&mut self, node: &Node, decl: &FieldDecl) -> Option<Value> {
        let value = constant(node);
        let fits = match (&decl.ty, &value) {
            (Type::Any, value) => value.clone(),
            (Type::Number, Some(Value::Int(int))) =>
            {
                #[allow(clippy::cast_precision_loss)]
                Some(Value::Number(*int as f64))
            }
            (Type::Bool, Some(Value::Bool(_)))
            | (Type::Int, Some(Value::Int(_)))
            | (Type::Number, Some(Value::Number(_)))
            | (Type::String, Some(Value::String(_)))
            | (Type::List(_), Some(Value::List(_)))
            | (Type::Map(_) | Type::Object(_), Some(Value::Map(_))) => value.clone(),
            (Type::Enum(words), Some(Value::String(text))) => words.canonical(text).cloned().map(Value::String),
            (Type::Datetime, Some(Value::String(text))) => text.parse().ok().map(Value::Datetime),
            (Type::Duration, Some(Value::String(text))) => {
                words::duration(text).and_then(|it| it.try_into().ok()).map(Value::Duration)
            }
            _ => None,
        };
        if fits.is_none() {
            let wants = super::payload::wanted(&decl.ty);
            self.error("WF0401", node.span, format!("the default of `{}` must be {wants}", decl.name.text));
        }
        fits
    }

    /// `columns:` of a hunting query or `response:` of a request: names and types, nested where they are maps or lists.
    pub(super) fn shape(&mut self, given: &Payload, name: &str) -> Option<Type> {
        match given {
            Payload::Text(text) => {
                let word = text.text.trim();
                let known = type_word(word);
                if known.is_none() {
                    let help = suggestion(word, words::SCALAR_TYPES).unwrap_or_else(known_types);
                    self.error("WF0405", text.span, format!("`{word}` is not a type")).help(help);
                }
                known
            }
            Payload::List(items, span) => match items.as_slice() {
                [item] => self.shape(item, name).map(Type::list),
                _ => {
                    self.error("WF0405", *span, "a list type has exactly one item, the type of its items");
                    None
                }
            },
            Payload::Map(members, _) => {
                let mut fields = BTreeMap::new();
                for (key, member) in members {
                    let ty = self.shape(member, &key.text)?;
                    fields.insert(Arc::clone(&key.text), Field { untrusted: true, ..field(ty, true) });
                }
                Some(Type::Object(Arc::new(ObjectType { name: name.into(), fields, open: false })))
            }
            other => {
                self.error("WF0405", other.span(), "a type is a word").help(known_types());
                None
            }
        }
    }

    pub(super) fn zone(&mut self, zone: &str, span: Span) {
        if jiff::tz::db().get(zone).is_err() {
            let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
            let help = suggestion(zone, known.iter().map(String::as_str))
                .unwrap_or_else(|| "write a name such as Europe/Paris or UTC".to_owned());
            self.error("WF0704", span, format!("`{zone}` is not a time zone")).help(help);
        }
    }
}

fn known_types() -> String {
    format!("one of {}", words::SCALAR_TYPES.join(", "))
}

/// `limits:` of a flow: `{ destructive: [{ max: 5, per: 10m }] }`. Lowering has refused every other shape.
pub(super) fn limits(node: &Node) -> Vec<FlowLimit> {
    let Kind::Map(entries) = &node.kind else { return Vec::new() };
    let effects = entries.iter().filter_map(|entry| match entry.key.as_str() {
        "write" => Some((Effect::Write, &entry.value)),
        "destructive" => Some((Effect::Destructive, &entry.value)),
        _ => None,
    });
    let windows = effects.filter_map(|(effect, value)| match &value.kind {
        Kind::List(items) => Some((effect, items)),
        _ => None,
    });
    windows
        .flat_map(|(effect, items)| {
            items.iter().filter_map(limit_window).map(move |(max, per)| FlowLimit { effect, max, per })
        })
        .collect()
}

fn limit_window(node: &Node) -> Option<(u32, Duration)> {
    let Kind::Map(entries) = &node.kind else { return None };
    let (mut max, mut per) = (None, None);
    for entry in entries {
        match entry.key.as_str() {
            "max" => max = scalar(&entry.value)?.parse().ok(),
            "per" => per = words::duration(scalar(&entry.value)?),
            _ => return None,
        }
    }
    Some((max?, per.filter(|per| !per.is_zero())?))
}

pub(super) fn scalar(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Scalar(scalar) => Some(&scalar.text),
        _ => None,
    }
}

/// A constant as YAML reads it: plain words may be bools and numbers, quoted ones are text.
pub(super) fn constant(node: &Node) -> Option<Value> {
    Some(match &node.kind {
        Kind::Scalar(scalar) if scalar.style == Style::Plain => match scalar.text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" | "~" | "" => return None,
            text => match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(int), _) => Value::Int(int),
                (_, Ok(number)) if number.is_finite() => Value::Number(number),
                _ => Value::str(text),
            },
        },
        Kind::Scalar(scalar) => Value::str(&scalar.text),
        Kind::List(items) => Value::list(items.iter().map(constant).collect::<Option<_>>()?),
        Kind::Map(entries) => Value::map(
            entries
                .iter()
                .map(|entry| Some((Arc::from(entry.key.as_str()), constant(&entry.value)?)))
                .collect::<Option<_>>()?,
        ),
    })
}

/// The payload given under a name.
pub(super) fn given<'a>(with: &'a [(Name, Payload)], name: &str) -> Option<(&'a Name, &'a Payload)> {
    with.iter().find(|(key, _)| &*key.text == name).map(|(key, payload)| (key, payload))
}
