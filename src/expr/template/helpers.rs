//! The closed list of helpers: one row each, with a line of documentation and an example that is also its test.

use base64::Engine as _;

use super::super::functions::short_duration;
use super::super::trace;
use super::escape::{escape, percent};
use crate::catalog::{Context, Type};
use crate::diag::did_you_mean;
use crate::value::Value;

type Run = fn(&[Option<Value>]) -> Result<Value, String>;

/// One helper.
#[derive(Debug)]
pub struct Helper {
    pub name: &'static str,
    /// Its operands as people write them; those in square brackets may be left out.
    pub usage: &'static str,
    pub doc: &'static str,
    /// A template over `sample()` and what it renders.
    pub example: (&'static str, &'static str),
    pub(super) min: usize,
    pub(super) max: usize,
    pub(super) takes: Takes,
    pub(super) gives: Type,
    pub(super) run: Run,
}

/// What the first operand may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Anything,
    Scalar,
    Text,
    List,
    /// A list, a map or text: what can be counted.
    Countable,
    Datetime,
    /// The id of an `if` step.
    Step,
}

/// Helpers by name.
pub static TABLE: &[Helper] = &[
    Helper {
        name: "default",
        usage: "default path fallback",
        doc: "the value, or the fallback where it is absent; the only helper that tolerates absence",
        example: ("{{ default missing 'none' }}", "none"),
        min: 2,
        max: 2,
        takes: Takes::Anything,
        gives: Type::Any,
        run: |args| first_present(args),
    },
    Helper {
        name: "join",
        usage: "join list [separator]",
        doc: "the items of a list with `, ` or the separator between them",
        example: ("{{ join tags ' / ' }}", "a / b"),
        min: 1,
        max: 2,
        takes: Takes::List,
        gives: Type::String,
        run: join,
    },
    Helper {
        name: "count",
        usage: "count list",
        doc: "the number of items, members or characters",
        example: ("{{ count tags }}", "2"),
        min: 1,
        max: 1,
        takes: Takes::Countable,
        gives: Type::Int,
        run: count,
    },
    Helper {
        name: "json",
        usage: "json value",
        doc: "the value as JSON text",
        example: ("{{ json tags }}", "[\"a\",\"b\"]"),
        min: 1,
        max: 1,
        takes: Takes::Anything,
        gives: Type::String,
        run: |args| Ok(Value::str(value(args, 0)?.to_json().to_string())),
    },
    Helper {
        name: "table",
        usage: "table list [column…]",
        doc: "a list of maps as a Markdown table, with all columns or those named",
        example: ("{{ table rows 'name' }}", "| name |\n| --- |\n| dc-01 |\n| dc-02 |"),
        min: 1,
        max: 16,
        takes: Takes::List,
        gives: Type::String,
        run: table,
    },
    Helper {
        name: "date",
        usage: "date datetime [format] [zone]",
        doc: "a datetime in a strftime format, in UTC or in an IANA zone",
        example: ("{{ date at '%d.%m.%Y %H:%M' 'Europe/Paris' }}", "20.11.2026 08:20"),
        min: 1,
        max: 3,
        takes: Takes::Datetime,
        gives: Type::String,
        run: date,
    },
    Helper {
        name: "upper",
        usage: "upper text",
        doc: "the text in upper case",
        example: ("{{ upper name }}", "DC-01"),
        min: 1,
        max: 1,
        takes: Takes::Text,
        gives: Type::String,
        run: |args| Ok(Value::str(text(args, 0)?.to_uppercase())),
    },
    Helper {
        name: "lower",
        usage: "lower text",
        doc: "the text in lower case",
        example: ("{{ lower 'ABC' }}", "abc"),
        min: 1,
        max: 1,
        takes: Takes::Text,
        gives: Type::String,
        run: |args| Ok(Value::str(text(args, 0)?.to_lowercase())),
    },
    Helper {
        name: "truncate",
        usage: "truncate text length",
        doc: "at most so many characters, the last of them `…` where text was cut",
        example: ("{{ truncate 'a long title' 6 }}", "a lon…"),
        min: 2,
        max: 2,
        takes: Takes::Text,
        gives: Type::String,
        run: truncate,
    },
    Helper {
        name: "url_encode",
        usage: "url_encode text",
        doc: "the text percent-encoded for a URL",
        example: ("{{ url_encode 'a b/c' }}", "a%20b%2Fc"),
        min: 1,
        max: 1,
        takes: Takes::Scalar,
        gives: Type::String,
        run: |args| Ok(Value::str(percent(&scalar(value(args, 0)?)?))),
    },
    Helper {
        name: "base64",
        usage: "base64 text",
        doc: "the text in base64",
        example: ("{{ base64 'abc' }}", "YWJj"),
        min: 1,
        max: 1,
        takes: Takes::Scalar,
        gives: Type::String,
        run: |args| Ok(Value::str(base64::engine::general_purpose::STANDARD.encode(scalar(value(args, 0)?)?))),
    },
    Helper {
        name: "explain",
        usage: "explain step",
        doc: "why an `if` step decided as it did",
        example: ("{{ explain verdict }}", "risk.level is 'High'"),
        min: 1,
        max: 1,
        takes: Takes::Step,
        gives: Type::String,
        run: |_| Err("wants the id of an `if` step".into()),
    },
];

/// The helper of a name. Most words of a template are paths, so asking costs no search for what may have been meant.
pub(super) fn known(name: &str) -> Option<&'static Helper> {
    TABLE.iter().find(|helper| helper.name == name)
}

/// The helper of a name, or a help line.
pub(super) fn find(name: &str) -> Result<&'static Helper, Option<String>> {
    known(name).ok_or_else(|| {
        if let Some(near) = did_you_mean(name, TABLE.iter().map(|helper| helper.name)) {
            return Some(format!("did you mean `{near}`?"));
        }
        let names: Vec<&str> = TABLE.iter().map(|helper| helper.name).collect();
        Some(format!("the helpers are {}; an expression is written `{{{{= … }}}}`", names.join(", ")))
    })
}

impl Takes {
    pub(super) fn accepts(self, ty: &Type) -> bool {
        match (self, ty) {
            (Takes::Anything, _) | (_, Type::Any) => true,
            (Takes::Scalar, ty) => ty.is_scalar(),
            (Takes::Text, ty) => ty.is_text(),
            (Takes::List, Type::List(_)) => true,
            (Takes::Countable, ty) => !ty.is_scalar() || ty.is_text(),
            (Takes::Datetime, Type::Datetime) => true,
            _ => false,
        }
    }
}

/// A scalar as text: instants in RFC 3339, durations as `4h`.
pub(super) fn scalar(value: &Value) -> Result<String, String> {
    Ok(match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) => text.to_string(),
        Value::Datetime(at) => at.to_string(),
        Value::Duration(span) => short_duration(*span),
        Value::List(_) | Value::Map(_) => {
            return Err(format!(
                "a {} can't be printed in text; use a helper such as `join`, `json` or `count`",
                value.kind()
            ));
        }
    })
}

fn value(args: &[Option<Value>], at: usize) -> Result<&Value, String> {
    args.get(at).and_then(Option::as_ref).ok_or_else(|| "an operand is absent".into())
}

fn text(args: &[Option<Value>], at: usize) -> Result<&str, String> {
    let value = value(args, at)?;
    value.as_str().ok_or_else(|| format!("wants text, not {}", value.kind()))
}

fn list(args: &[Option<Value>], at: usize) -> Result<&[Value], String> {
    let value = value(args, at)?;
    value.as_list().ok_or_else(|| format!("wants a list, not {}", value.kind()))
}

fn first_present(args: &[Option<Value>]) -> Result<Value, String> {
    args.iter().flatten().next().cloned().ok_or_else(|| "both operands are absent".into())
}

fn join(args: &[Option<Value>]) -> Result<Value, String> {
    let separator = if args.len() > 1 { text(args, 1)? } else { ", " };
    let mut joined = String::new();
    for (at, item) in list(args, 0)?.iter().enumerate() {
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(&scalar(item)?);
        if joined.len() > super::MAX_OUTPUT {
            return Err(format!("the text has more than {} bytes", super::MAX_OUTPUT));
        }
    }
    Ok(Value::str(joined))
}

fn count(args: &[Option<Value>]) -> Result<Value, String> {
    let size = match value(args, 0)? {
        Value::List(items) => items.len(),
        Value::Map(members) => members.len(),
        Value::String(text) => text.chars().count(),
        other => return Err(format!("wants a list, a map or text, not {}", other.kind())),
    };
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

fn date(args: &[Option<Value>]) -> Result<Value, String> {
    let given = value(args, 0)?;
    let at = given.as_datetime().ok_or_else(|| format!("wants a datetime, not {}", given.kind()))?;
    let format = if args.len() > 1 { text(args, 1)? } else { "%Y-%m-%d %H:%M:%S %Z" };
    let zone = if args.len() > 2 {
        let name = text(args, 2)?;
        jiff::tz::TimeZone::get(name).map_err(|_| format!("'{name}' is no time zone"))?
    } else {
        jiff::tz::TimeZone::UTC
    };
    let shown = jiff::fmt::strtime::format(format, &at.to_zoned(zone));
    shown.map(Value::str).map_err(|_| format!("'{format}' is no date format; write '%Y-%m-%d %H:%M'"))
}

fn truncate(args: &[Option<Value>]) -> Result<Value, String> {
    let given = text(args, 0)?;
    let limit = value(args, 1)?.as_int().and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let limit = limit.ok_or("wants a length above 0")?;
    if given.chars().nth(limit).is_none() {
        return Ok(Value::str(given));
    }
    let kept: String = given.chars().take(limit - 1).collect();
    Ok(Value::str(format!("{kept}…")))
}

/// Most rows that a table shows.
const MAX_ROWS: usize = 200;

fn table(args: &[Option<Value>]) -> Result<Value, String> {
    markup(args, Context::Plain).map(Value::str)
}

/// The table as markup of a context: its cells are escaped, its own lines are not.
pub(super) fn markup(args: &[Option<Value>], context: Context) -> Result<String, String> {
    let rows = list(args, 0)?;
    let mut columns: Vec<String> =
        (1..args.len()).map(|at| text(args, at).map(str::to_owned)).collect::<Result<_, _>>()?;
    if columns.is_empty() {
        for row in rows.iter().take(MAX_ROWS) {
            let members = row.as_map().ok_or_else(|| format!("wants a list of maps, not of {}", row.kind()))?;
            for key in members.keys() {
                if !columns.iter().any(|seen| **seen == **key) {
                    columns.push(key.to_string());
                }
            }
        }
        columns.truncate(16);
    }
    let html = context == Context::Html;
    let line = |cells: Vec<String>, tag: &str| {
        if html {
            format!("<tr><{tag}>{}</{tag}></tr>", cells.join(&format!("</{tag}><{tag}>")))
        } else {
            format!("| {} |", cells.join(" | "))
        }
    };
    let head = columns.iter().map(|column| cell(column, context)).collect();
    let mut lines = vec![line(head, "th")];
    if !html {
        lines.push(line(vec!["---".into(); columns.len()], ""));
    }
    for row in rows.iter().take(MAX_ROWS) {
        let shown = |value: &Value| scalar(value).unwrap_or_else(|_| trace::short(value));
        let cells = columns.iter().map(|column| row.get(column).map_or_else(String::new, |v| cell(&shown(v), context)));
        lines.push(line(cells.collect(), "td"));
    }
    if rows.len() > MAX_ROWS {
        lines.push(line(vec![format!("and {} more", rows.len() - MAX_ROWS)], "td"));
    }
    let joined = lines.join("\n");
    Ok(if html { format!("<table>\n{joined}\n</table>") } else { joined })
}

/// A cell must not end its row or its column.
fn cell(text: &str, context: Context) -> String {
    match context {
        Context::Html | Context::Markdown | Context::Card => escape(&text.replace(['\r', '\n'], " "), context),
        _ => text.replace(['\r', '\n'], " ").replace('|', "\\|"),
    }
}
