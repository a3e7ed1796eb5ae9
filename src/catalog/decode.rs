//! A service's JSON to values, by type. Null is absence; enum words are matched in any case and unknown ones kept as they
//! are; an instant without a zone is read in the zone that the caller gives, UTC where it gives none.
//!
//! Not here: the meaning of one service's members (see `connector::entity`).

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use serde_json::Value as Json;

use super::{ObjectType, Type, zones};
use crate::value::{Map, Value};

/// Levels of lists and maps that are read; deeper ones are refused.
pub const MAX_DEPTH: usize = 64;

/// Why JSON is no value of a type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", if path.is_empty() { "the value" } else { path.as_str() })]
pub struct DecodeError {
    /// `devices[0].risk_score`; empty for the value itself.
    pub path: String,
    pub message: String,
}

/// Reads a value of a type. Unknown enum words are kept without a word.
///
/// # Errors
/// Where a member that must be there is absent, has another type, or lies too deep.
pub fn decode(ty: &Type, json: &Json) -> Result<Value, DecodeError> {
    decode_noting(ty, json, &mut Vec::new())
}

/// As [`decode`], and notes one sentence for each unknown enum word.
///
/// # Errors
/// As [`decode`].
pub fn decode_noting(ty: &Type, json: &Json, warnings: &mut Vec<String>) -> Result<Value, DecodeError> {
    let mut reader = Reader { warnings, path: Vec::new() };
    match reader.value(ty, json) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(DecodeError { path: String::new(), message: "it is null".into() }),
        Err(message) => Err(DecodeError { path: written(&reader.path), message }),
    }
}

/// An instant as services write it: RFC 3339, or without an offset, then in `zone` (an IANA or a Windows name; UTC where
/// `None`). `None` for any other text, and for a zone that is not known.
pub fn instant(text: &str, zone: Option<&str>) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    let local: civil::DateTime = text.parse().ok()?;
    let zone = match zone {
        None => TimeZone::UTC,
        Some(name) => zones::zone(name)?,
    };
    zone.to_ambiguous_timestamp(local).compatible().ok()
}

/// A duration as flows write it (`90s`, `15m`, `4h`, `7d`, `1h30m`) or as CEL and the journal do (`14400s`, `1.5s`).
pub fn parse_duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    if rest.is_empty() {
        return None;
    }
    let mut total = SignedDuration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(letters)?;
        total = total.checked_add(unit_of(number, unit)?)?;
        rest = tail;
    }
    Some(if negative { -total } else { total })
}

fn unit_of(number: &str, unit: &str) -> Option<SignedDuration> {
    let seconds: i64 = match unit {
        "ms" => return Some(SignedDuration::from_millis(number.parse().ok()?)),
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i64 = whole.parse().ok()?;
    let nanos: i64 = match fraction.len() {
        0 => 0,
        1..=9 => format!("{fraction:0<9}").parse().ok()?,
        _ => return None,
    };
    let fraction = SignedDuration::from_nanos(nanos.checked_mul(seconds)?);
    SignedDuration::from_secs(whole.checked_mul(seconds)?).checked_add(fraction)
}

struct Reader<'w, 'a> {
    warnings: &'w mut Vec<String>,
    /// Where the reader is, outermost first; kept on an error. Borrowed, since every answer walks this way.
    path: Vec<Place<'a>>,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Key(&'a str),
    Index(usize),
}

/// `a.b[3].c`.
fn written(path: &[Place<'_>]) -> String {
    let mut out = String::new();
    for place in path {
        match place {
            Place::Key(key) if out.is_empty() => out.push_str(key),
            Place::Key(key) => {
                out.push('.');
                out.push_str(key);
            }
            Place::Index(index) => out.push_str(&format!("[{index}]")),
        }
    }
    out
}

impl<'a> Reader<'_, 'a> {
    /// `None` for null.
    fn value(&mut self, ty: &'a Type, json: &'a Json) -> Result<Option<Value>, String> {
        if self.path.len() > MAX_DEPTH {
            return Err(format!("it lies more than {MAX_DEPTH} levels deep"));
        }
        let wrong = || format!("it is {}, not {ty}", kind(json));
        let value = match (ty, json) {
            (_, Json::Null) => return Ok(None),
            (Type::Any, Json::Array(_)) | (Type::List(_), Json::Array(_)) => return self.list(ty, json),
            (Type::Any, Json::Object(_)) => return self.members(&Type::Any, json),
            (Type::Any, _) => return Ok(Value::from_json(json)),
            (Type::Map(item), Json::Object(_)) => return self.members(item, json),
            (Type::Object(object), Json::Object(members)) => return self.object(object, members),
            (Type::Bool, Json::Bool(value)) => Value::Bool(*value),
            (Type::Int, Json::Number(number)) => Value::Int(number.as_i64().ok_or_else(wrong)?),
            (Type::Number, Json::Number(number)) => Value::Number(number.as_f64().ok_or_else(wrong)?),
            (Type::String, Json::String(text)) => Value::str(text),
            (Type::Datetime, Json::String(text)) => {
                Value::Datetime(instant(text, None).ok_or_else(|| format!("{} is no instant", short(text)))?)
            }
            (Type::Duration, Json::String(text)) => {
                Value::Duration(parse_duration(text).ok_or_else(|| format!("{} is no duration", short(text)))?)
            }
            (Type::Enum(words), Json::String(text)) => match words.canonical(text) {
                Some(word) => Value::String(Arc::clone(word)),
                None => {
                    let path = written(&self.path);
                    self.warnings.push(format!("{path}: {} is no known value of {}", short(text), words.name));
                    Value::str(text)
                }
            },
            _ => return Err(wrong()),
        };
        Ok(Some(value))
    }

    fn list(&mut self, ty: &'a Type, json: &'a Json) -> Result<Option<Value>, String> {
        let item = match ty {
            Type::List(item) => item,
            _ => &Type::Any,
        };
        let mut items = Vec::new();
        for (index, json) in json.as_array().into_iter().flatten().enumerate() {
            self.path.push(Place::Index(index));
            items.extend(self.value(item, json)?);
            self.path.pop();
        }
        Ok(Some(Value::list(items)))
    }

    fn members(&mut self, item: &'a Type, json: &'a Json) -> Result<Option<Value>, String> {
        let mut members = Map::new();
        for (key, json) in json.as_object().into_iter().flatten() {
            self.path.push(Place::Key(key));
            if let Some(value) = self.value(item, json)? {
                members.insert(key.as_str().into(), value);
            }
            self.path.pop();
        }
        Ok(Some(Value::map(members)))
    }

    fn object(&mut self, ty: &'a ObjectType, json: &'a serde_json::Map<String, Json>) -> Result<Option<Value>, String> {
        let mut members = Map::new();
        for (key, field) in &ty.fields {
            self.path.push(Place::Key(key));
            let value = match json.get(&**key) {
                Some(json) => self.value(&field.ty, json)?,
                None => None,
            };
            match (value, &field.ty) {
                (Some(value), _) => drop(members.insert(Arc::clone(key), value)),
                (None, _) if field.optional => {}
                // A list that a service leaves out is an empty one: flows count and loop without a guard.
                (None, Type::List(_)) => drop(members.insert(Arc::clone(key), Value::list(vec![]))),
                (None, _) => return Err("it is absent".into()),
            }
            self.path.pop();
        }
        if ty.open {
            for (key, json) in json.iter().filter(|(key, _)| !ty.fields.contains_key(key.as_str())) {
                self.path.push(Place::Key(key));
                if let Some(value) = self.value(&Type::Any, json)? {
                    members.insert(key.as_str().into(), value);
                }
                self.path.pop();
            }
        }
        Ok(Some(Value::map(members)))
    }
}

fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_f64() => "number",
        Json::Number(_) => "int",
        Json::String(_) => "string",
        Json::Array(_) => "list",
        Json::Object(_) => "map",
    }
}

/// Text of a service in a message: quoted, without control characters, cut at 60 characters.
fn short(text: &str) -> String {
    let mut out: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        out.push('…');
    }
    format!("\"{out}\"")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn severity() -> Type {
        Type::Enum(Arc::new(super::super::EnumType {
            name: "Severity".into(),
            values: vec!["Low".into(), "High".into()],
        }))
    }

    #[test]
    fn enum_words_match_in_any_case_and_unknown_ones_are_kept() {
        let mut warnings = vec![];
        assert_eq!(decode_noting(&severity(), &json!("hIGH"), &mut warnings), Ok(Value::str("High")));
        assert!(warnings.is_empty());
        assert_eq!(decode_noting(&severity(), &json!("urgent"), &mut warnings), Ok(Value::str("urgent")));
        assert_eq!(warnings, [": \"urgent\" is no known value of Severity"]);
    }

    #[test]
    fn text_is_no_integer_and_the_place_is_named() {
        let ty = Type::object("T", [("devices", Type::list(Type::object("D", [("build", Type::Int, true)])), false)]);
        let error = decode(&ty, &json!({"devices": [{"build": 1}, {"build": "12"}]})).unwrap_err();
        assert_eq!(error.to_string(), "devices[1].build: it is string, not int");
        assert_eq!(decode(&ty, &json!({"devices": null})).unwrap().get("devices"), Some(&Value::list(vec![])));
    }

    #[test]
    fn absence_of_a_required_member_is_an_error_and_null_is_absence() {
        let ty = Type::object("T", [("id", Type::String, false), ("note", Type::String, true)]);
        assert_eq!(decode(&ty, &json!({"id": null})).unwrap_err().to_string(), "id: it is absent");
        let value = decode(&ty, &json!({"id": "a", "note": null, "other": 1})).unwrap();
        assert_eq!(value, Value::object([("id", Value::str("a"))]));
    }

    #[test]
    fn depth_is_bounded() {
        let mut json = json!(1);
        for _ in 0..80 {
            json = json!([json]);
        }
        assert!(decode(&Type::Any, &json).unwrap_err().message.contains("64 levels"));
    }

    #[test]
    fn instants_are_read_with_and_without_a_zone() {
        let at: Timestamp = "2026-11-20T07:00:00.1234567Z".parse().unwrap();
        assert_eq!(instant("2026-11-20T07:00:00.1234567Z", None), Some(at));
        assert_eq!(instant("2026-11-20T08:00:00.1234567", Some("W. Europe Standard Time")), Some(at));
        assert_eq!(instant("2026-11-20T07:00:00.1234567", None), Some(at));
        assert_eq!(instant("2026-11-20T08:00:00", Some("Middle Earth")), None);
        assert_eq!(instant("yesterday", None), None);
    }

    #[test]
    fn durations_are_read_in_both_spellings() {
        assert_eq!(parse_duration("1h30m"), Some(SignedDuration::from_mins(90)));
        assert_eq!(parse_duration("-1.5s"), Some(SignedDuration::from_millis(-1_500)));
        assert_eq!(parse_duration("7d"), Some(SignedDuration::from_hours(168)));
        for wrong in ["", "-", "5", "h", "1y", "1.2.3s", "99999999999999999999s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
