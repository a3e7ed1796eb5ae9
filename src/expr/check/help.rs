//! The words of the type checker: how a type is named, and what to write instead.

use std::sync::Arc;

use crate::catalog::Type;
use crate::expr::ast::{Kind, Node};
use crate::value::Value;

pub(super) fn compare_help(one: (&Node, &Type), other: (&Node, &Type)) -> Option<String> {
    let text = literal_text(other.0);
    match (one.1, other.1, text) {
        (Type::Datetime, Type::String, Some(text)) => Some(format!("write `timestamp('{text}')`")),
        (Type::Duration, Type::String, Some(text)) => Some(format!("write `duration('{text}')`")),
        (Type::Int | Type::Number, Type::String, Some(text)) if text.parse::<f64>().is_ok() => {
            Some(format!("write {text} without quotes"))
        }
        (Type::Bool, Type::String, Some("true" | "false")) => Some("write it without quotes".into()),
        (Type::String | Type::Enum(_), Type::Int | Type::Number | Type::Bool, _) => {
            Some("put the value in quotes".into())
        }
        (Type::List(_), ty, _) if !matches!(ty, Type::List(_)) => {
            Some(format!("ask whether it is in the list: `x in {}`", one.0.describe()))
        }
        _ => None,
    }
}

pub(in crate::expr) fn bool_help(ty: &Type, node: &Node) -> String {
    let shown = node.describe();
    match ty {
        Type::List(_) | Type::Map(_) => format!("write `size({shown}) > 0`"),
        Type::Enum(words) => {
            words.values.first().map_or(String::new(), |value| format!("compare it: `{shown} == '{value}'`"))
        }
        Type::Object(_) => format!("ask for a member: `has({shown}.{})`", some_field(ty)),
        Type::String => format!("compare it: `{shown} == '…'`"),
        _ => "compare it with a value".into(),
    }
}

/// The member that a `has(…)` would most likely name.
pub(super) fn some_field(ty: &Type) -> String {
    match ty {
        Type::Object(object) if object.fields.contains_key("id") => "id".into(),
        Type::Object(object) => {
            let required =
                object.fields.iter().find(|(_, field)| !field.optional).or_else(|| object.fields.iter().next());
            required.map_or_else(|| "field".into(), |(name, _)| name.to_string())
        }
        _ => "field".into(),
    }
}

/// A type with its article where a sentence needs one.
pub(super) fn named(ty: &Type) -> String {
    match ty {
        Type::List(_) => format!("a {ty}"),
        Type::Map(_) => format!("a {ty}"),
        Type::Object(object) if &*object.name == "map" => "a map".into(),
        Type::Object(_) | Type::Enum(_) => format!("{ty}"),
        _ => ty.to_string(),
    }
}

pub(super) fn list_some<'s>(lead: &str, names: impl Iterator<Item = &'s Arc<str>>) -> String {
    let all: Vec<&str> = names.map(|name| &**name).collect();
    let shown = all.iter().take(8).copied().collect::<Vec<_>>().join(", ");
    let more = if all.len() > 8 { ", …" } else { "" };
    format!("{lead} {shown}{more}")
}

pub(super) fn literal_text(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Literal(Value::String(text)) => Some(text),
        _ => None,
    }
}
