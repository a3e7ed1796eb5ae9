//! The closed list of functions: one row each, with types, a line of documentation and an example that is also its test.
//! Typing, suggestions and documentation read this table; nothing else adds a function.

mod format;
mod lists;
mod strings;
mod time;

use std::fmt::Write as _;

pub(super) use lists::sort_keyed;
pub(super) use time::{parse_duration, short_duration};

use super::eval::Val;
use crate::catalog::Type;
use crate::diag::did_you_mean;

/// A kind of parameter or result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum K {
    Any,
    Bool,
    Int,
    Number,
    String,
    Datetime,
    Duration,
    /// A list of any one type, which `Item` and `SameList` refer to.
    List,
    /// A list of text.
    Strings,
    /// A list of lists, and its flattened form.
    Nested,
    Map,
    Item,
    SameList,
    Optional,
    /// The optional of the first parameter's type, or of no type.
    ToOptional,
    /// What an optional holds, joined with the other operand.
    Inner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Function,
    Method,
    /// `sum(list)` and `list.sum()`.
    Both,
}

#[derive(Debug)]
pub(super) struct Signature(pub &'static [K], pub K);

type Run = fn(&[Val]) -> Result<Val, String>;

/// One function of the language.
#[derive(Debug)]
pub struct Function {
    pub name: &'static str,
    pub(super) style: Style,
    pub(super) signatures: &'static [Signature],
    pub doc: &'static str,
    /// A CEL expression that is true.
    pub example: &'static str,
    /// Its second operand is evaluated only when it is needed.
    pub(super) lazy: bool,
    pub(super) run: Run,
}

impl Function {
    const fn new(
        name: &'static str,
        style: Style,
        signatures: &'static [Signature],
        run: Run,
        doc: &'static str,
        example: &'static str,
    ) -> Self {
        Function { name, style, signatures, doc, example, lazy: false, run }
    }

    /// `text.contains(string) → bool`, one line per form.
    pub fn signature(&self) -> String {
        let mut lines = String::new();
        for (at, Signature(params, result)) in self.signatures.iter().enumerate() {
            let words: Vec<&str> = params.iter().map(|k| k.word()).collect();
            let separator = if at == 0 { "" } else { "\n" };
            let _ = match (self.style, words.split_first()) {
                (Style::Method, Some((of, rest))) => {
                    write!(lines, "{separator}{of}.{}({}) → {}", self.name, rest.join(", "), result.word())
                }
                _ => write!(lines, "{separator}{}({}) → {}", self.name, words.join(", "), result.word()),
            };
        }
        lines
    }

    pub(super) fn example_help(&self) -> String {
        format!("for example `{}`", self.example)
    }
}

impl K {
    pub(in crate::expr) fn word(self) -> &'static str {
        match self {
            K::Any => "any",
            K::Bool => "bool",
            K::Int => "int",
            K::Number => "number",
            K::String => "string",
            K::Datetime => "datetime",
            K::Duration => "duration",
            K::List | K::SameList => "list",
            K::Strings => "list of string",
            K::Nested => "list of lists",
            K::Map => "map",
            K::Item => "item",
            K::Optional | K::ToOptional => "optional",
            K::Inner => "value",
        }
    }

    /// Whether a value of this static type may be given; optionals are judged by the caller.
    pub(in crate::expr) fn accepts(self, ty: &Type) -> bool {
        match (self, ty) {
            (K::Any | K::Item | K::Inner | K::ToOptional, _) | (_, Type::Any) => true,
            (K::Bool, Type::Bool)
            | (K::Int, Type::Int)
            | (K::Number, Type::Number | Type::Int)
            | (K::String, Type::String | Type::Enum(_))
            | (K::Datetime, Type::Datetime)
            | (K::Duration, Type::Duration)
            | (K::List | K::SameList, Type::List(_))
            | (K::Map, Type::Map(_) | Type::Object(_)) => true,
            (K::Strings, Type::List(item)) => item.is_text() || **item == Type::Any,
            (K::Nested, Type::List(item)) => matches!(**item, Type::List(_) | Type::Any),
            _ => false,
        }
    }
}

/// Names that qualify functions (`optional.of`, `strings.quote`); they are no values.
pub(super) const NAMESPACES: [&str; 2] = ["optional", "strings"];

/// All functions, sorted as people look for them: by theme.
pub fn table() -> impl Iterator<Item = &'static Function> {
    strings::TABLE.iter().chain(lists::TABLE).chain(time::TABLE)
}

/// Functions of CEL that the language leaves out on purpose, and what to write instead.
const LEFT_OUT: [(&str, &str); 12] = [
    ("type", "there are no type values; types are checked when the flow is loaded"),
    ("dyn", "there are no dynamic values; write the expression without it"),
    ("uint", "there are no unsigned numbers; write `int(x)`"),
    ("bytes", "there are no bytes; compare text"),
    ("quote", "write `strings.quote(text)`"),
    ("bind", "name the value with a `set` step"),
    ("lookup", "read members with a dot: `a.b`"),
    ("env", "expressions can't read the environment"),
    ("getenv", "expressions can't read the environment"),
    ("lower", "write `text.lowerAscii()`"),
    ("upper", "write `text.upperAscii()`"),
    ("length", "write `size(x)`"),
];

/// The function that a call means: by name, by how it is called, and by its number of operands (the receiver is one).
pub(super) fn resolve(name: &str, method: bool, count: usize) -> Result<&'static Function, (String, Option<String>)> {
    let named: Vec<&'static Function> = table().filter(|function| function.name == name).collect();
    if named.is_empty() {
        if let Some((_, help)) = LEFT_OUT.iter().find(|(word, _)| *word == name) {
            return Err((format!("`{name}` is not in the language"), Some((*help).to_owned())));
        }
        let macros = ["has", "all", "exists", "exists_one", "map", "filter", "sort_by"];
        let known = table().map(|function| function.name).chain(macros);
        let help = did_you_mean(name, known).map(|near| format!("did you mean `{near}`?"));
        return Err((format!("unknown function `{name}`"), help));
    }
    let fits_style = |function: &&&'static Function| match function.style {
        Style::Both => true,
        Style::Method => method,
        Style::Function => !method,
    };
    let Some(function) = named.iter().find(fits_style) else {
        let shown = named.first().map(|f| f.signature()).unwrap_or_default();
        return Err((format!("`{name}` is called differently"), Some(format!("write {}", first_line(&shown)))));
    };
    if !function.signatures.iter().any(|signature| signature.0.len() == count) {
        let given = count - usize::from(method);
        return Err((
            format!("`{name}` does not take {given} arguments"),
            Some(format!("write {}", first_line(&function.signature()))),
        ));
    }
    Ok(function)
}

fn first_line(text: &str) -> String {
    format!("`{}`", text.lines().next().unwrap_or(""))
}

/// Whether a literal argument means something to a function that reads it: `None` where the function reads no literals.
pub(super) fn check_literal(function: &Function, text: &str) -> Option<Result<(), String>> {
    match function.name {
        "duration" => Some(parse_duration(text).map(|_| ())),
        "timestamp" => Some(time::parse_timestamp(text).map(|_| ())),
        "in_cidr" => Some(strings::parse_network(text).map(|_| ())),
        "int" | "double" => None,
        name if name.starts_with("get") => Some(time::zone(text).map(|_| ())),
        _ => None,
    }
}

/// The operand as a plain value; optionals reach only the functions that take them.
pub(super) fn plain(args: &[Val], at: usize) -> Result<&crate::value::Value, String> {
    match args.get(at) {
        Some(Val::Plain(value)) => Ok(value),
        Some(Val::Optional(_)) => Err("an optional value needs a default: `.orValue(…)`".into()),
        None => Err("an operand is missing".into()),
    }
}

pub(super) fn text(args: &[Val], at: usize) -> Result<&str, String> {
    let value = plain(args, at)?;
    value.as_str().ok_or_else(|| format!("wants text, not {}", value.kind()))
}

pub(super) fn int(args: &[Val], at: usize) -> Result<i64, String> {
    let value = plain(args, at)?;
    value.as_int().ok_or_else(|| format!("wants an int, not {}", value.kind()))
}

pub(super) fn items(args: &[Val], at: usize) -> Result<&[crate::value::Value], String> {
    let value = plain(args, at)?;
    value.as_list().ok_or_else(|| format!("wants a list, not {}", value.kind()))
}
