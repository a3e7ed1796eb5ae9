//! Values with templates in their leaves, against the type that is wanted: `with:`, `outputs:`, `body:`.

use std::sync::Arc;

use super::cx::Checker;
use super::program::Dyn;
use crate::catalog::{Context, EnumType, ObjectType, Type};
use crate::diag::{Span, suggestion};
use crate::flow::model::{Name, Payload, Text};
use crate::flow::words;
use crate::triage::verdict;
use crate::value::{Map, Value};

impl Payload {
    pub(super) fn span(&self) -> Span {
        match self {
            Payload::Text(text) => text.span,
            Payload::Bool(_, span)
            | Payload::Int(_, span)
            | Payload::Number(_, span)
            | Payload::List(_, span)
            | Payload::Map(_, span) => *span,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Payload::Text(_) => "text",
            Payload::Bool(..) => "a bool",
            Payload::Int(..) => "an int",
            Payload::Number(..) => "a number",
            Payload::List(..) => "a list",
            Payload::Map(..) => "a map",
        }
    }
}

impl Checker<'_> {
    /// The value compiled, and its type. `what` names the parameter in messages.
    pub(super) fn payload(
        &mut self,
        given: &Payload,
        want: &Type,
        context: Context,
        what: &str,
    ) -> Option<(Dyn, Type)> {
        let constant = |value: Value, ty: Type| Some((Dyn::Const(value), ty));
        match (given, want) {
            (Payload::Text(text), _) => self.text(text, want, context, what),
            (Payload::Bool(value, _), Type::Bool | Type::Any) => constant(Value::Bool(*value), Type::Bool),
            (Payload::Int(value, _), Type::Int | Type::Any) => constant(Value::Int(*value), Type::Int),
            #[allow(clippy::cast_precision_loss)]
            // A literal beyond 2^53 was not meant to be exact where a number is wanted.
            (Payload::Int(value, _), Type::Number) => constant(Value::Number(*value as f64), Type::Number),
            (Payload::Number(value, _), Type::Number | Type::Any) => constant(Value::Number(*value), Type::Number),
            (Payload::List(items, _), Type::List(item)) => self.list(items, item, context, what),
            (Payload::List(items, _), Type::Any) => self.list(items, &Type::Any, context, what),
            (Payload::Map(members, span), Type::Object(object)) => self.object(members, *span, object, context, what),
            (Payload::Map(members, _), Type::Map(value)) => self.map(members, value, context, what),
            (Payload::Map(members, _), Type::Any) => self.map(members, &Type::Any, context, what),
            _ => {
                let help = mend(given, want);
                let message = format!("{what} wants {}, and this is {}", wanted(want), given.kind());
                self.error("WF0401", given.span(), message).help_opt(help);
                None
            }
        }
    }

    fn text(&mut self, text: &Text, want: &Type, context: Context, what: &str) -> Option<(Dyn, Type)> {
        let template = self.template(text, context)?;
        if template.is_plain() {
            let value = self.literal(&text.text, text.span, want, what)?;
            let ty = if *want == Type::Any { Type::String } else { want.clone() };
            return Some((Dyn::Const(value), ty));
        }
        if context == Context::Kql {
            self.error(
                "WF0407",
                text.span,
                format!("{what} can't have a template in it: values are bound, never spliced"),
            )
            .help("use `params:`, and the names declared there in the query");
            return None;
        }
        let ty = template.ty.clone();
        // Words that are known only at run time are compared with the enum's values when the call is made.
        let fits = want.accepts(&ty) || (matches!(want, Type::Enum(_)) && ty == Type::String);
        if fits {
            return Some((Dyn::Text(template), ty));
        }
        let help = match want {
            Type::String if ty.is_scalar() => Some("put it into text: `{{= string(…) }}`".to_owned()),
            Type::String => Some("a helper renders it: `{{ join … }}`, `{{ table … }}` or `{{ json … }}`".to_owned()),
            Type::List(item) if item.accepts(&ty) => Some(format!("write a list of one: [ \"{}\" ]", text.text.trim())),
            Type::Int | Type::Number if ty.is_text() => Some("`{{= int(…) }}` reads an int from text".to_owned()),
            _ => None,
        };
        self.error("WF0401", text.span, format!("{what} wants {}, and this is {}", wanted(want), shown(&ty)))
            .help_opt(help);
        None
    }

    /// Text without a template, as a value of the type.
    fn literal(&mut self, text: &str, span: Span, want: &Type, what: &str) -> Option<Value> {
        match want {
            Type::Any | Type::String => return Some(Value::str(text)),
            Type::Enum(words) => return self.word(text, span, words, what).map(Value::String),
            Type::Datetime => {
                if let Ok(at) = text.trim().parse() {
                    return Some(Value::Datetime(at));
                }
            }
            Type::Duration => {
                if let Some(span) = words::duration(text.trim()).and_then(|it| it.try_into().ok()) {
                    return Some(Value::Duration(span));
                }
            }
            _ => {}
        }
        let help = match want {
            Type::Int | Type::Number if text.trim().parse::<f64>().is_ok() => {
                Some(format!("write it without quotes: {}", text.trim()))
            }
            Type::Bool if matches!(text.trim(), "true" | "false") => {
                Some(format!("write it without quotes: {}", text.trim()))
            }
            Type::List(item) if item.is_text() || **item == Type::Any => {
                Some(format!("write a list of one: [{}]", quoted(text)))
            }
            Type::Datetime => Some("write an instant such as 2026-11-20T07:00:00Z".to_owned()),
            Type::Duration => Some("write a duration such as 30m, 4h or 7d".to_owned()),
            _ => None,
        };
        self.error("WF0401", span, format!("{what} wants {}, and this is text", wanted(want))).help_opt(help);
        None
    }

    /// A word of a closed set, in its canonical spelling.
    pub(super) fn word(&mut self, text: &str, span: Span, words: &EnumType, what: &str) -> Option<Arc<str>> {
        if &*words.name == "Determination"
            && let Some(known) = verdict::determination(text)
            && let Some(word) = words.canonical(known.word)
        {
            if let Some(instead) = known.instead {
                self.warning("WF0417", span, format!("`{}` is out of use", text.trim()))
                    .help(format!("write `{instead}`"));
            }
            return Some(Arc::clone(word));
        }
        if let Some(word) = words.canonical(text.trim()) {
            return Some(Arc::clone(word));
        }
        let what = what.strip_prefix("an item of ").unwrap_or(what);
        let help = suggestion(text, words.values.iter().map(|value| &**value)).unwrap_or_else(|| one_of(&words.values));
        self.error("WF0402", span, format!("`{text}` is not a value of {what}")).help(help);
        None
    }

    fn list(&mut self, items: &[Payload], item: &Type, context: Context, what: &str) -> Option<(Dyn, Type)> {
        let what = format!("an item of {what}");
        let items: Vec<_> =
            items.iter().map(|given| self.payload(given, item, inner_context(context), &what)).collect();
        let items: Vec<(Dyn, Type)> = items.into_iter().collect::<Option<_>>()?;
        let ty = items
            .iter()
            .map(|(_, ty)| ty.clone())
            .reduce(|all, next| all.join(&next).unwrap_or(Type::Any))
            .unwrap_or_else(|| item.clone());
        Some((fold_list(items.into_iter().map(|(item, _)| item).collect()), Type::list(ty)))
    }

    fn map(&mut self, given: &[(Name, Payload)], value: &Type, context: Context, what: &str) -> Option<(Dyn, Type)> {
        let mut members = Vec::with_capacity(given.len());
        let mut fields = std::collections::BTreeMap::new();
        let mut whole = true;
        for (name, payload) in given {
            let what = format!("`{}` of {what}", name.text);
            match self.payload(payload, value, inner_context(context), &what) {
                Some((member, ty)) => {
                    members.push((Arc::clone(&name.text), member));
                    fields.insert(Arc::clone(&name.text), super::fields::field(ty, false));
                }
                None => whole = false,
            }
        }
        let ty = Type::Object(Arc::new(ObjectType { name: Arc::from("a map"), fields, open: false }));
        whole.then(|| (fold_map(members), ty))
    }

    fn object(
        &mut self,
        given: &[(Name, Payload)],
        span: Span,
        object: &Arc<ObjectType>,
        context: Context,
        what: &str,
    ) -> Option<(Dyn, Type)> {
        let mut members = Vec::with_capacity(given.len());
        let mut whole = true;
        for (name, payload) in given {
            let ty = match object.fields.get(&name.text) {
                Some(field) => field.ty.clone(),
                None if object.open => Type::Any,
                None => {
                    let help = suggestion(&name.text, object.fields.keys().map(|key| &**key));
                    self.error("WF0404", name.span, format!("{what} has no member `{}`", name.text)).help_opt(help);
                    whole = false;
                    continue;
                }
            };
            let what = format!("`{}` of {what}", name.text);
            match self.payload(payload, &ty, inner_context(context), &what) {
                Some((member, _)) => members.push((Arc::clone(&name.text), member)),
                None => whole = false,
            }
        }
        for (key, field) in &object.fields {
            if !field.optional && !given.iter().any(|(name, _)| name.text == *key) {
                self.error("WF0403", span, format!("{what} lacks its member `{key}` ({})", field.ty));
                whole = false;
            }
        }
        whole.then(|| (fold_map(members), Type::Object(Arc::clone(object))))
    }
}

/// A leaf inside a list or a map is put in place by the serialiser or the binder, not by the template.
fn inner_context(context: Context) -> Context {
    match context {
        Context::Json | Context::Kql | Context::UrlSegment => Context::Plain,
        Context::CardJson => Context::Card,
        other => other,
    }
}

/// A list without expressions is one constant.
pub(super) fn fold_list(items: Vec<Dyn>) -> Dyn {
    let constants: Option<Vec<Value>> = items.iter().map(constant).collect();
    constants.map_or(Dyn::List(items), |items| Dyn::Const(Value::list(items)))
}

pub(super) fn fold_map(members: Vec<(Arc<str>, Dyn)>) -> Dyn {
    let constants: Option<Map> =
        members.iter().map(|(key, member)| Some((Arc::clone(key), constant(member)?))).collect();
    constants.map_or(Dyn::Map(members), |members| Dyn::Const(Value::map(members)))
}

fn constant(value: &Dyn) -> Option<Value> {
    match value {
        Dyn::Const(value) => Some(value.clone()),
        _ => None,
    }
}

/// The type as a message names it: the words of an enum say more than its name.
pub(super) fn wanted(want: &Type) -> String {
    match want {
        Type::Enum(words) => {
            let words: Vec<&str> = words.values.iter().map(|word| &**word).collect();
            format!("one of {}", words.join(", "))
        }
        Type::String => "text".to_owned(),
        Type::Bool | Type::Number | Type::Datetime | Type::Duration => format!("a {want}"),
        Type::Int => "an int".to_owned(),
        Type::List(item) => format!("a list of {item}"),
        _ => want.to_string(),
    }
}

/// The type of what was given, as a message names it.
pub(super) fn shown(have: &Type) -> String {
    match have {
        Type::Enum(words) => format!("a value of {}", words.name),
        Type::Object(object) if object.name.contains(' ') => object.name.to_string(),
        Type::Object(object) => {
            let vowel = object.name.starts_with(|c: char| "AEIOUaeiou".contains(c));
            format!("{} {}", if vowel { "an" } else { "a" }, object.name)
        }
        _ => wanted(have),
    }
}

fn one_of(words: &[Arc<str>]) -> String {
    let shown: Vec<&str> = words.iter().take(12).map(|word| &**word).collect();
    let more = if words.len() > shown.len() { ", …" } else { "" };
    format!("one of {}{more}", shown.join(", "))
}

fn quoted(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '@'));
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}

fn mend(given: &Payload, want: &Type) -> Option<String> {
    let literal = match given {
        Payload::Bool(value, _) => value.to_string(),
        Payload::Int(value, _) => value.to_string(),
        Payload::Number(value, _) => value.to_string(),
        Payload::List(..) if want.is_scalar() => return Some("write a single value, without brackets".to_owned()),
        Payload::List(..) | Payload::Map(..) | Payload::Text(_) => return None,
    };
    match want {
        Type::String | Type::Enum(_) => Some(format!("write it in quotes: \"{literal}\"")),
        Type::List(_) => Some(format!("write a list of one: [{literal}]")),
        _ => None,
    }
}
