//! Hunting queries: parameters as typed `let` statements before the query, and rows typed by the columns that a flow declares.

use std::fmt::Write as _;

use serde_json::{Map as JsonMap, Value as Json};

use super::BadInput;
use crate::catalog::{Type, decode};
use crate::value::{Map, Value, duration_text};

/// Puts the parameters before the query and brings the time span into ISO 8601.
pub(super) fn finish(body: &mut JsonMap<String, Json>, inputs: &Map) -> Result<(), BadInput> {
    if let Some(params) = inputs.get("params").and_then(Value::as_map)
        && let Some(Json::String(query)) = cased(body, "Query")
    {
        let mut head = String::new();
        for (name, value) in params {
            let text = identifier(name).and_then(|name| Ok((name, literal(value, 0)?)));
            let (name, text) = text.map_err(|message| bad(&format!("params.{name}"), message))?;
            let _ = writeln!(head, "let {name} = {text};");
        }
        *query = head + query;
    }
    if let Some(Json::String(span)) = cased(body, "Timespan") {
        let looks_iso = span.starts_with('P') || span.contains('/');
        let allowed = span.len() <= 80 && span.bytes().all(|b| b.is_ascii_alphanumeric() || b"/:.-+".contains(&b));
        match decode::parse_duration(span) {
            Some(length) if length.is_positive() => *span = format!("PT{}S", length.as_secs()),
            _ if looks_iso && allowed => {}
            _ => return Err(bad("timespan", format!("{span:?} is no span; write 7d, 12h or P7D"))),
        }
    }
    Ok(())
}

/// A member by its name; Log Analytics writes it with a small first letter.
fn cased<'a>(body: &'a mut JsonMap<String, Json>, name: &str) -> Option<&'a mut Json> {
    let small = name.to_ascii_lowercase();
    if body.contains_key(name) { body.get_mut(name) } else { body.get_mut(&small) }
}

fn bad(param: &str, message: impl Into<String>) -> BadInput {
    BadInput { param: param.to_owned(), message: message.into() }
}

fn identifier(name: &str) -> Result<&str, String> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && name.len() <= 64;
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if plain && starts { Ok(name) } else { Err("the name must be letters, digits and underscores".into()) }
}

/// A KQL literal of the value's own type; text can't end its quotes.
fn literal(value: &Value, depth: usize) -> Result<String, String> {
    Ok(match value {
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => format!("long({number})"),
        Value::Number(number) if number.is_finite() => format!("real({number})"),
        Value::Number(_) => return Err("the number is not finite".into()),
        Value::Datetime(at) => format!("datetime({at})"),
        Value::Duration(span) => format!("time({})", duration_text(*span)),
        Value::String(text) => quoted(text)?,
        Value::List(_) | Value::Map(_) if depth > 0 => return Err("lists in lists are not supported".into()),
        // What stands in dynamic(…) is JSON, whose strings end at their quotes too.
        Value::List(items) => {
            if let Some(inner) = items.iter().find(|item| matches!(item, Value::List(_) | Value::Map(_))) {
                return Err(format!("a list may hold plain values, not a {}", inner.kind()));
            }
            format!("dynamic({})", value.to_json())
        }
        Value::Map(_) => return Err("a map is no parameter; pass its members one by one".into()),
    })
}

fn quoted(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => return Err("it holds control characters".into()),
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(out)
}

/// The answer as a `HuntingResult`. Both spellings of its members are read (`Schema`, `schema`; `Name`, `name`).
pub(super) fn result(ty: &Type, body: &Json, inputs: &Map) -> Result<Value, String> {
    let tables;
    let body = match body.get("tables") {
        Some(_) => {
            tables = of_tables(body)?;
            &tables
        }
        None => body,
    };
    let rows = either(body, "results", "Results").and_then(Json::as_array).ok_or("there are no results")?;
    let most = inputs.get("max_rows").and_then(Value::as_int).unwrap_or(1_000);
    if usize::try_from(most).unwrap_or(0) < rows.len() {
        let count = rows.len();
        return Err(format!("{count} rows are more than max_rows ({most}); narrow the query or raise max_rows"));
    }
    let columns: Vec<(String, String)> = either(body, "schema", "Schema")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(|column| {
            let text = |a, b| Some(either(column, a, b)?.as_str()?.to_owned());
            Some((text("name", "Name")?, text("type", "Type").unwrap_or_default()))
        })
        .collect();
    let row_type = match ty.field("rows").map(|field| field.ty) {
        Some(Type::List(item)) => (*item).clone(),
        _ => Type::Any,
    };
    if let Type::Object(declared) = &row_type {
        let there = |name: &str| columns.iter().any(|(column, _)| column == name);
        if let Some(missing) = declared.fields.keys().find(|name| !there(name)) {
            let names = columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(format!("the query gave no column {missing}; it gave {names}"));
        }
    }
    let read = |(index, json): (usize, &Json)| row(&row_type, json).map_err(|e| format!("row {index}: {e}"));
    let rows = rows.iter().enumerate().map(read).collect::<Result<Vec<_>, String>>()?;
    let columns =
        columns.iter().map(|(name, ty)| Value::object([("name", Value::str(name)), ("type", Value::str(ty))]));
    Ok(Value::object([
        ("count", Value::Int(i64::try_from(rows.len()).unwrap_or(i64::MAX))),
        ("columns", Value::list(columns.collect())),
        ("rows", Value::list(rows)),
    ]))
}

/// The form of Log Analytics: tables of columns and of rows that are lists. A part of an answer is none.
fn of_tables(body: &Json) -> Result<Json, String> {
    if let Some(error) = body.get("error") {
        let said = error.pointer("/details/0/message").or_else(|| error.get("message")).and_then(Json::as_str);
        return Err(format!("the service answered in part only: {}", said.unwrap_or("it does not say why")));
    }
    let table = body.pointer("/tables/0").ok_or("there is no table")?;
    let columns = table.get("columns").and_then(Json::as_array).ok_or("the table has no columns")?;
    let names: Vec<&str> = columns.iter().map(|it| it.get("name").and_then(Json::as_str).unwrap_or("")).collect();
    let row = |cells: &Json| -> Json {
        let cells = cells.as_array().into_iter().flatten().cloned();
        names.iter().map(|name| (*name).to_owned()).zip(cells).collect::<JsonMap<_, _>>().into()
    };
    let rows: Vec<Json> = table.get("rows").and_then(Json::as_array).into_iter().flatten().map(row).collect();
    Ok(serde_json::json!({"schema": columns, "results": rows}))
}

/// One row. An empty cell is absent, also where its column is declared.
fn row(ty: &Type, json: &Json) -> Result<Value, String> {
    let Type::Object(declared) = ty else {
        return decode::decode(&Type::map(Type::Any), json).map_err(|e| e.to_string());
    };
    let mut members = Map::new();
    for (name, field) in &declared.fields {
        let cell = match (json.get(&**name), &field.ty) {
            (None | Some(Json::Null), _) => continue,
            // Instants and dynamic values of an empty cell come as empty text.
            (Some(Json::String(text)), Type::Datetime | Type::Int | Type::Number) if text.is_empty() => continue,
            // KQL's bool is a number from 0 to 1 in some answers.
            (Some(Json::Number(number)), Type::Bool) => Json::Bool(number.as_i64() != Some(0)),
            // A dynamic column comes as the text of its JSON.
            (Some(Json::String(text)), Type::List(_) | Type::Map(_) | Type::Object(_)) => {
                serde_json::from_str(text).map_err(|_| format!("{name} is text, not {}", field.ty))?
            }
            (Some(cell), _) => cell.clone(),
        };
        let value = decode::decode(&field.ty, &cell).map_err(|e| format!("{name}: {}", e.message))?;
        members.insert(name.clone(), value);
    }
    Ok(Value::map(members))
}

fn either<'a>(json: &'a Json, one: &str, other: &str) -> Option<&'a Json> {
    json.get(one).or_else(|| json.get(other))
}
