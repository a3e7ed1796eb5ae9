//! The part of OData that the services accept: `$filter` with comparisons, `and`, `or` and brackets, `$top`, `$skip`,
//! `$orderby` and `$select`, over the JSON that would be answered.

use std::cmp::Ordering;

use jiff::Timestamp;
use serde_json::{Map, Value as Json};

/// A parsed filter.
#[derive(Debug, PartialEq)]
pub(super) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Compare { field: String, op: String, value: Json },
}

const OPS: [&str; 6] = ["eq", "ne", "gt", "ge", "lt", "le"];

impl Filter {
    /// Reads a filter that may name only `fields`. The message is what the service would put into its 400.
    pub(super) fn parse(text: &str, fields: &[&str]) -> Result<Filter, String> {
        if text.len() > 4000 {
            return Err("the filter is too long".into());
        }
        let tokens = tokens(text)?;
        let mut at = 0;
        let filter = any(&tokens, &mut at, fields, 0)?;
        match tokens.get(at) {
            None => Ok(filter),
            Some(extra) => Err(format!("syntax error at '{extra}' in '{text}'")),
        }
    }

    pub(super) fn matches(&self, item: &Json) -> bool {
        match self {
            Filter::All(parts) => parts.iter().all(|part| part.matches(item)),
            Filter::Any(parts) => parts.iter().any(|part| part.matches(item)),
            Filter::Compare { field, op, value } => {
                let have = field.split('/').try_fold(item, |json, key| json.get(key)).unwrap_or(&Json::Null);
                match have {
                    // A collection matches where one of its members does.
                    Json::Array(members) => members.iter().any(|member| compare(member, op, value)),
                    _ => compare(have, op, value),
                }
            }
        }
    }
}

fn compare(have: &Json, op: &str, want: &Json) -> bool {
    let order = match (have, want) {
        (Json::Null, Json::Null) => Some(Ordering::Equal),
        (Json::String(a), Json::String(b)) => match (a.parse::<Timestamp>(), b.parse::<Timestamp>()) {
            (Ok(a), Ok(b)) => Some(a.cmp(&b)),
            _ => Some(a.cmp(b)),
        },
        (Json::Bool(a), Json::Bool(b)) => Some(a.cmp(b)),
        // Ids are numbers in some services and text in others; people write both forms.
        (Json::Number(a), Json::String(b)) => Some(a.to_string().cmp(b)),
        (Json::Number(a), Json::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        _ => None,
    };
    match (op, order) {
        ("eq", order) => order == Some(Ordering::Equal),
        ("ne", order) => order != Some(Ordering::Equal),
        (_, None) => false,
        ("gt", Some(order)) => order.is_gt(),
        ("ge", Some(order)) => order.is_ge(),
        ("lt", Some(order)) => order.is_lt(),
        (_, Some(order)) => order.is_le(),
    }
}

fn any(tokens: &[String], at: &mut usize, fields: &[&str], depth: u8) -> Result<Filter, String> {
    let mut parts = vec![all(tokens, at, fields, depth)?];
    while tokens.get(*at).is_some_and(|token| token == "or") {
        *at += 1;
        parts.push(all(tokens, at, fields, depth)?);
    }
    Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::Any(parts) })
}

fn all(tokens: &[String], at: &mut usize, fields: &[&str], depth: u8) -> Result<Filter, String> {
    let mut parts = vec![leaf(tokens, at, fields, depth)?];
    while tokens.get(*at).is_some_and(|token| token == "and") {
        *at += 1;
        parts.push(leaf(tokens, at, fields, depth)?);
    }
    Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::All(parts) })
}

fn leaf(tokens: &[String], at: &mut usize, fields: &[&str], depth: u8) -> Result<Filter, String> {
    let mut next = || {
        let token = tokens.get(*at).cloned();
        *at += 1;
        token.ok_or_else(|| "the filter ends in the middle".to_owned())
    };
    let field = next()?;
    if field == "(" {
        if depth > 8 {
            return Err("the filter nests too deep".into());
        }
        let inner = any(tokens, at, fields, depth + 1)?;
        let closed = tokens.get(*at).is_some_and(|token| token == ")");
        *at += 1;
        return if closed { Ok(inner) } else { Err("a bracket is not closed".into()) };
    }
    if !fields.contains(&field.as_str()) {
        return Err(format!("Could not find a property named '{field}' that can be filtered on"));
    }
    let op = next()?;
    if !OPS.contains(&op.as_str()) {
        return Err(format!("'{op}' is not an operator"));
    }
    let value = literal(&next()?)?;
    Ok(Filter::Compare { field, op, value })
}

fn literal(token: &str) -> Result<Json, String> {
    if let Some(text) = token.strip_prefix('\'') {
        return Ok(Json::String(text.to_owned()));
    }
    match token {
        "null" => return Ok(Json::Null),
        "true" | "false" => return Ok(Json::Bool(token == "true")),
        _ => {}
    }
    if let Ok(number) = token.parse::<i64>() {
        return Ok(Json::from(number));
    }
    token.parse::<Timestamp>().map(|_| Json::String(token.to_owned())).map_err(|_| format!("'{token}' is no literal"))
}

/// Words, brackets and quoted texts; a quoted text keeps its opening quote as a mark.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        match c {
            ' ' | '\t' => {
                chars.next();
            }
            '(' | ')' => {
                out.push(c.to_string());
                chars.next();
            }
            '\'' => {
                chars.next();
                let mut word = String::from('\'');
                loop {
                    match chars.next() {
                        Some('\'') if chars.peek() == Some(&'\'') => {
                            chars.next();
                            word.push('\'');
                        }
                        Some('\'') => break,
                        Some(other) => word.push(other),
                        None => return Err("a quote is not closed".into()),
                    }
                }
                out.push(word);
            }
            _ => {
                let mut word = String::new();
                while let Some(&c) = chars.peek() {
                    if matches!(c, ' ' | '\t' | '(' | ')' | '\'') {
                        break;
                    }
                    word.push(c);
                    chars.next();
                }
                out.push(word);
            }
        }
    }
    Ok(out)
}

/// Sorts by `$orderby` (`field`, `field desc`); leaves the order as it is without one.
pub(super) fn order(items: &mut [Json], by: Option<&str>) {
    let Some(by) = by else { return };
    let mut words = by.split_whitespace();
    let Some(field) = words.next() else { return };
    let down = words.next() == Some("desc");
    items.sort_by(|a, b| {
        let (a, b) = (a.get(field), b.get(field));
        let order = match (a.and_then(Json::as_f64), b.and_then(Json::as_f64)) {
            (Some(a), Some(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            _ => a.and_then(Json::as_str).cmp(&b.and_then(Json::as_str)),
        };
        if down { order.reverse() } else { order }
    });
}

/// Keeps the members of `$select`.
pub(super) fn select(item: Json, members: Option<&str>) -> Json {
    let (Some(members), Json::Object(object)) = (members, &item) else { return item };
    let names: Vec<&str> = members.split(',').map(str::trim).collect();
    let kept: Map<String, Json> = object
        .iter()
        .filter(|(key, _)| names.contains(&key.as_str()) || key.starts_with("@odata"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Json::Object(kept)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FIELDS: [&str; 4] = ["severity", "alertCreationTime", "incidentId", "machineTags"];

    #[test]
    fn instants_compare_as_instants_and_not_as_text() {
        let item = json!({"alertCreationTime": "2026-11-20T07:20:00.1000000Z", "severity": "High", "incidentId": 7});
        let holds = |text: &str| Filter::parse(text, &FIELDS).unwrap().matches(&item);
        assert!(holds("alertCreationTime ge 2026-11-20T07:20:00.1Z"));
        assert!(!holds("alertCreationTime gt 2026-11-20T07:20:00.1Z"));
        assert!(holds("alertCreationTime ge 2026-11-20T07:20:00Z and severity eq 'High'"));
        assert!(holds("(severity eq 'Low' or severity eq 'High') and incidentId eq 7"));
        assert!(!holds("severity eq 'high'"));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in [
            "",
            "severity",
            "severity is 'High'",
            "nope eq 1",
            "severity eq 'High",
            "(severity eq 'a'",
            "severity eq High",
        ] {
            assert!(Filter::parse(text, &FIELDS).is_err(), "{text}");
        }
    }

    #[test]
    fn quotes_are_doubled_inside_text() {
        let filter = Filter::parse("severity eq 'O''Hara'", &FIELDS).unwrap();
        assert!(filter.matches(&json!({"severity": "O'Hara"})));
    }
}
