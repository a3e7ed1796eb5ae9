//! The small words of flow files: names, durations, declared types.

use std::time::Duration;

use crate::catalog::Type;

const MAX_DURATION: Duration = Duration::from_secs(3650 * 24 * 3600);

/// Words that a step id, a variable or an item cannot be, with what they are.
const TAKEN: &[(&str, &[&str])] = &[
    ("a name that the engine binds", &["trigger", "inputs", "run", "flow", "steps", "item", "index", "error", "now"]),
    (
        "a reserved word of conditions",
        &[
            "true",
            "false",
            "null",
            "in",
            "as",
            "break",
            "const",
            "continue",
            "else",
            "for",
            "function",
            "if",
            "import",
            "let",
            "loop",
            "package",
            "namespace",
            "return",
            "var",
            "void",
            "while",
        ],
    ),
    (
        "a type of conditions",
        &[
            "bool",
            "int",
            "uint",
            "double",
            "number",
            "string",
            "bytes",
            "list",
            "map",
            "any",
            "dyn",
            "null_type",
            "type",
            "datetime",
            "timestamp",
            "duration",
            "optional",
            "strings",
            "enum",
        ],
    ),
    (
        "a function of conditions",
        &[
            "size",
            "has",
            "all",
            "exists",
            "exists_one",
            "filter",
            "matches",
            "contains",
            "startswith",
            "endswith",
            "in_cidr",
            "sum",
            "min",
            "max",
            "distinct",
            "flatten",
            "sort_by",
            "first",
            "last",
            "cel",
            "bind",
            "math",
            "strings",
            "lists",
        ],
    ),
    (
        "a helper of templates",
        &[
            "json",
            "join",
            "table",
            "count",
            "date",
            "default",
            "upper",
            "lower",
            "truncate",
            "url_encode",
            "base64",
            "explain",
            "each",
            "this",
            "unless",
            "with",
            "lookup",
            "log",
        ],
    ),
];

/// What a word already is, where it cannot be a step's id.
pub fn taken(word: &str) -> Option<&'static str> {
    TAKEN.iter().find(|(_, words)| words.contains(&word)).map(|(what, _)| *what)
}

/// Whether a text is a step id: `[a-z][a-z0-9_]*`, at most 64 letters.
pub fn is_id(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Whether a text is a flow's name: `[a-z0-9][a-z0-9-_]*`, at most 100 letters.
pub fn is_flow_name(text: &str) -> bool {
    text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

/// Whether a text can be read as a member of a map: a letter or `_`, then letters, digits and `_`.
pub fn is_member(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A duration as flows write it: a whole number and `ms`, `s`, `m`, `h` or `d`; more than zero, at most ten years.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text.get(..digits)?.parse().ok()?;
    let span = match text.get(digits..)? {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        "d" => Duration::from_secs(number.checked_mul(24 * 3600)?),
        _ => return None,
    };
    (!span.is_zero() && span <= MAX_DURATION).then_some(span)
}

/// The names of the scalar types, in the spelling that flows use.
pub const SCALAR_TYPES: [&str; 7] = ["any", "bool", "int", "number", "string", "datetime", "duration"];

/// A declared type: `string`, `list of int`, `map of any`. Nested at most four deep.
pub fn declared_type(text: &str) -> Option<Type> {
    nested_type(text.trim(), 4)
}

fn nested_type(text: &str, depth: u8) -> Option<Type> {
    let inner = |rest: &str| nested_type(rest.trim(), depth.checked_sub(1)?);
    if let Some(rest) = text.strip_prefix("list of ") {
        return inner(rest).map(Type::list);
    }
    if let Some(rest) = text.strip_prefix("map of ") {
        return inner(rest).map(Type::map);
    }
    Some(match text {
        "any" => Type::Any,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "number" => Type::Number,
        "string" => Type::String,
        "datetime" => Type::Datetime,
        "duration" => Type::Duration,
        "list" => Type::list(Type::Any),
        "map" => Type::map(Type::Any),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(duration("30m"), Some(Duration::from_secs(1800)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(604_800)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for wrong in
            ["", "5", "m", "0s", "-1m", "1.5h", "5 m", "5M", "1h30m", "99999d", "99999999999999999999s", "12:30:45"]
        {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_that_expressions_could_not_tell_apart_are_taken() {
        for word in ["trigger", "in", "string", "filter", "json"] {
            assert!(taken(word).is_some() && is_id(word), "{word}");
        }
        for word in ["alert", "user", "machine", "risk", "page", "go", "answer", "out_of_office"] {
            assert!(taken(word).is_none() && is_id(word), "{word}");
        }
        for word in ["", "Alert", "9a", "a-b", "a.b", "é"] {
            assert!(!is_id(word), "{word}");
        }
        assert!(is_flow_name("9-a_b") && !is_flow_name("-a") && !is_flow_name("A"));
    }

    #[test]
    fn types_nest() {
        assert_eq!(declared_type("list of map of int").map(|ty| ty.to_string()).as_deref(), Some("list of map of int"));
        assert_eq!(declared_type(&"list of ".repeat(9)), None);
        assert_eq!(declared_type("str"), None);
    }
}
