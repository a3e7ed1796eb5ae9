//! The value model of flows: what conditions compare, templates print and the journal keeps.
//!
//! There is no null: absence is a missing member. JSON integers are `Int`; a fraction or an exponent makes a `Number`.
//! Not here: types (see `catalog::types`) and expressions (see `expr`).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

/// Members of a map in key order, so that every rendering and every journal row is the same on each run.
pub type Map = BTreeMap<Arc<str>, Value>;

/// One value at run time. Cloning is cheap: text, lists and maps are shared.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Int(i64),
    Number(f64),
    String(Arc<str>),
    /// An instant in UTC.
    Datetime(Timestamp),
    Duration(SignedDuration),
    List(Arc<Vec<Value>>),
    Map(Arc<Map>),
}

impl Value {
    /// A string value.
    pub fn str(text: impl AsRef<str>) -> Self {
        Value::String(Arc::from(text.as_ref()))
    }

    pub fn list(items: Vec<Value>) -> Self {
        Value::List(Arc::new(items))
    }

    pub fn map(members: Map) -> Self {
        Value::Map(Arc::new(members))
    }

    /// A map from pairs, for callers that build small values.
    pub fn object<K: AsRef<str>>(members: impl IntoIterator<Item = (K, Value)>) -> Self {
        Value::map(members.into_iter().map(|(key, value)| (Arc::from(key.as_ref()), value)).collect())
    }

    /// The empty map: what a step that did not run is bound to.
    pub fn empty() -> Self {
        Value::map(Map::new())
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Value::Map(members) => Some(members),
            _ => None,
        }
    }

    pub fn as_datetime(&self) -> Option<Timestamp> {
        match self {
            Value::Datetime(at) => Some(*at),
            _ => None,
        }
    }

    /// The member of a map, `None` where this is no map or has no such member.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_map()?.get(key)
    }

    /// The value below a path of member names.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The word for this value's type in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Datetime(_) => "datetime",
            Value::Duration(_) => "duration",
            Value::List(_) => "list",
            Value::Map(_) => "map",
        }
    }

    /// A value from a service's JSON: null members and null items are dropped, since null is absence.
    /// Returns `None` for null itself.
    pub fn from_json(json: &Json) -> Option<Self> {
        Some(match json {
            Json::Null => return None,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(int) => Value::Int(int),
                None => Value::Number(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::str(text),
            Json::Array(items) => Value::list(items.iter().filter_map(Value::from_json).collect()),
            Json::Object(members) => Value::map(
                members
                    .iter()
                    .filter_map(|(key, value)| Some((Arc::from(key.as_str()), Value::from_json(value)?)))
                    .collect(),
            ),
        })
    }

    /// Plain JSON for people and services: an instant is RFC 3339 text, a duration is seconds with an `s` (`"14400s"`).
    pub fn to_json(&self) -> Json {
        match self {
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => Json::from(*value),
            Value::Number(value) => serde_json::Number::from_f64(*value).map_or(Json::Null, Json::Number),
            Value::String(text) => Json::String(text.to_string()),
            Value::Datetime(at) => Json::String(at.to_string()),
            Value::Duration(span) => Json::String(duration_text(*span)),
            Value::List(items) => Json::Array(items.iter().map(Value::to_json).collect()),
            Value::Map(members) => {
                Json::Object(members.iter().map(|(key, value)| (key.to_string(), value.to_json())).collect())
            }
        }
    }

    /// A rough size in bytes, for the bound on a run's state.
    pub fn weight(&self) -> usize {
        match self {
            Value::Bool(_) => 5,
            Value::Int(_) | Value::Number(_) => 8,
            Value::Datetime(_) | Value::Duration(_) => 24,
            Value::String(text) => text.len() + 2,
            Value::List(items) => 2 + items.iter().map(|item| item.weight() + 1).sum::<usize>(),
            Value::Map(members) => 2 + members.iter().map(|(key, value)| key.len() + 4 + value.weight()).sum::<usize>(),
        }
    }
}

/// A duration as CEL writes it: seconds with up to nine decimals and an `s`.
pub fn duration_text(span: SignedDuration) -> String {
    let nanos = span.subsec_nanos().unsigned_abs();
    let sign = if span.is_negative() { "-" } else { "" };
    let seconds = span.as_secs().unsigned_abs();
    if nanos == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// The journal's form: JSON in which the types that JSON lacks are tagged (`{"$t": …}` instants, `{"$d": …}` durations,
/// `{"$f": …}` numbers that are not finite), and an only key that starts with `$` is written with one `$` more. Wrapping such
/// a map would double its depth, and the reader of a row stops at 128 levels.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let tagged = |serializer: S, tag: &str, text: &str| {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(tag, text)?;
            map.end()
        };
        match self {
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i64(*value),
            Value::Number(value) if value.is_finite() => serializer.serialize_f64(*value),
            Value::Number(value) => tagged(serializer, "$f", &value.to_string()),
            Value::String(text) => serializer.serialize_str(text),
            Value::Datetime(at) => tagged(serializer, "$t", &at.to_string()),
            Value::Duration(span) => tagged(serializer, "$d", &duration_text(*span)),
            Value::List(items) => serializer.collect_seq(items.iter()),
            Value::Map(members) => {
                if let (1, Some((key, value))) = (members.len(), members.first_key_value())
                    && key.starts_with('$')
                {
                    let mut map = serializer.serialize_map(Some(1))?;
                    map.serialize_entry(&format!("${key}"), value)?;
                    return map.end();
                }
                serializer.collect_map(members.iter())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Json::deserialize(deserializer)?;
        from_tagged(&json).map_err(serde::de::Error::custom)
    }
}

fn from_tagged(json: &Json) -> Result<Value, String> {
    Ok(match json {
        Json::Null => return Err("null is not a value of the journal".into()),
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(int) => Value::Int(int),
            None => Value::Number(number.as_f64().ok_or("a number beyond 64 bits")?),
        },
        Json::String(text) => Value::str(text),
        Json::Array(items) => Value::list(items.iter().map(from_tagged).collect::<Result<_, _>>()?),
        Json::Object(members) => {
            if let (1, Some((tag, inner))) = (members.len(), members.iter().next())
                && tag.starts_with('$')
            {
                return from_tag(tag, inner);
            }
            members_from(members)?
        }
    })
}

fn members_from(members: &serde_json::Map<String, Json>) -> Result<Value, String> {
    let members = members.iter().map(|(key, value)| Ok((Arc::from(key.as_str()), from_tagged(value)?)));
    Ok(Value::map(members.collect::<Result<_, String>>()?))
}

fn from_tag(tag: &str, inner: &Json) -> Result<Value, String> {
    if let Some(key) = tag.strip_prefix('$').filter(|key| key.starts_with('$')) {
        return Ok(Value::object([(key, from_tagged(inner)?)]));
    }
    let text = || inner.as_str().ok_or_else(|| format!("the tag {tag} wants text"));
    match tag {
        "$t" => text()?.parse().map(Value::Datetime).map_err(|e| format!("instant: {e}")),
        "$d" => parse_seconds(text()?).map(Value::Duration).ok_or_else(|| "duration: wants seconds".into()),
        "$f" => text()?.parse().map(Value::Number).map_err(|e| format!("number: {e}")),
        // Rows of before the escape wrapped such a map.
        "$m" => members_from(inner.as_object().ok_or("the tag $m wants a map")?),
        _ => Err(format!("unknown tag {tag}")),
    }
}

fn parse_seconds(text: &str) -> Option<SignedDuration> {
    let digits = text.strip_suffix('s')?;
    let (negative, digits) = digits.strip_prefix('-').map_or((false, digits), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let digits_only = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.len() > 9 || !digits_only(whole) || !digits_only(fraction) {
        return None;
    }
    // The shortest duration of all has one second more than fits when its sign is off.
    let seconds: i128 = whole.parse::<u64>().ok()?.into();
    let nanos: i128 = format!("{fraction:0<9}").parse().ok()?;
    let total = seconds * 1_000_000_000 + nanos;
    SignedDuration::try_from_nanos_i128(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_form_keeps_every_type() {
        let value = Value::object([
            ("when", Value::Datetime("2026-11-20T07:20:00.1234567Z".parse().unwrap())),
            ("span", Value::Duration(SignedDuration::new(-3, -500_000_000))),
            ("int", Value::Int(3)),
            ("number", Value::Number(3.0)),
            ("endless", Value::Number(f64::INFINITY)),
            ("dollar", Value::object([("$t", Value::str("not an instant"))])),
        ]);
        let text = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value, "{text}");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut deep = Value::Int(1);
        for _ in 0..100 {
            deep = Value::object([("$", deep)]);
        }
        let dollars =
            ["$t", "$m", "$$t", "$"].map(|key| Value::object([(key, Value::object([("$m", Value::Int(1))]))]));
        let spans = [SignedDuration::MIN, SignedDuration::MAX].map(Value::Duration);
        for value in [deep].into_iter().chain(dollars).chain(spans) {
            let text = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&text).ok(), Some(value), "{text}");
        }
        let wrapped = Value::object([("$t", Value::object([("$d", Value::Int(1))]))]);
        let before = r#"{"$m":{"$t":{"$m":{"$d":1}}}}"#;
        assert_eq!(serde_json::from_str::<Value>(before).ok(), Some(wrapped), "rows of before the escape");
        for wrong in
            [r#"{"$d":"99999999999999999999s"}"#, r#"{"$d":"9223372036854775807.9999999999s"}"#, r#"{"$d":"--1s"}"#]
        {
            assert!(serde_json::from_str::<Value>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn null_is_absence() {
        let json = serde_json::json!({"a": null, "b": [1, null], "c": 18446744073709551615u64});
        let value = Value::from_json(&json).unwrap();
        assert_eq!(value.get("a"), None);
        assert_eq!(value.get("b"), Some(&Value::list(vec![Value::Int(1)])));
        assert_eq!(value.get("c").map(Value::kind), Some("number"));
    }
}
