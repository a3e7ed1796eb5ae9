//! Declared fields filled from outside: webhook bodies and the inputs of a manual start. Strict: `"12"` is no integer.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::catalog::{Type, decode};
use crate::check::program::InputDecl;
use crate::value::{Map, Value};

/// The declared members of an object; undeclared ones are dropped, missing ones take their default.
/// The error is one sentence that names the field.
pub fn fill(declared: &[InputDecl], given: &serde_json::Map<String, Json>) -> Result<Value, String> {
    let mut members = Map::new();
    for field in declared {
        let value = match given.get(&*field.name) {
            None | Some(Json::Null) => field.default.clone(),
            Some(json) => {
                // Rows are read back with a bound on depth: what is deeper must not get in.
                if matches!(field.ty, Type::Any | Type::List(_) | Type::Map(_)) {
                    decode::decode(&Type::Any, json).map_err(|error| format!("`{}`: {}", field.name, error.message))?;
                }
                Some(read(json, &field.ty).map_err(|wanted| format!("`{}` wants {wanted}", field.name))?)
            }
        };
        match value {
            Some(value) => drop(members.insert(Arc::clone(&field.name), value)),
            None if field.required => return Err(format!("`{}` is missing", field.name)),
            None => {}
        }
    }
    Ok(Value::map(members))
}

/// A value that a person typed, as JSON of the declared type: text stays text, all else is read as JSON.
pub fn typed(text: &str, ty: &Type) -> Json {
    match ty {
        Type::String | Type::Enum(_) | Type::Datetime | Type::Duration => Json::String(text.to_owned()),
        _ => serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_owned())),
    }
}

fn read(json: &Json, ty: &Type) -> Result<Value, String> {
    let wanted = || format!("{ty}");
    let value = match (ty, json) {
        (Type::Any, json) => Value::from_json(json),
        (Type::Bool, Json::Bool(value)) => Some(Value::Bool(*value)),
        (Type::Int, Json::Number(number)) => number.as_i64().map(Value::Int),
        (Type::Number, Json::Number(number)) => number.as_f64().map(Value::Number),
        (Type::String, Json::String(text)) => Some(Value::str(text)),
        (Type::Datetime, Json::String(text)) => text.parse().ok().map(Value::Datetime),
        (Type::Duration, Json::String(text)) => crate::config::parse_duration(text)
            .and_then(|span| jiff::SignedDuration::try_from(span).ok())
            .map(Value::Duration),
        (Type::Enum(words), Json::String(text)) => {
            let word = words.canonical(text).ok_or_else(|| format!("one of {}", words.values.join(", ")))?;
            Some(Value::String(Arc::clone(word)))
        }
        (Type::List(item), Json::Array(items)) => {
            Some(Value::list(items.iter().map(|json| read(json, item)).collect::<Result<_, _>>()?))
        }
        (Type::Map(item), Json::Object(members)) => {
            let members = members.iter().map(|(key, json)| Ok((Arc::from(key.as_str()), read(json, item)?)));
            Some(Value::map(members.collect::<Result<_, String>>()?))
        }
        _ => None,
    };
    value.ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, ty: Type, required: bool) -> InputDecl {
        InputDecl { name: name.into(), ty, required, default: None, doc: "".into() }
    }

    #[test]
    fn declared_fields_are_kept_and_typed() {
        let declared = [field("alertId", Type::String, true), field("count", Type::Int, false)];
        let given = serde_json::json!({"alertId": "a", "count": 3, "token": "hunter2"});
        let value = fill(&declared, given.as_object().unwrap()).unwrap();
        assert_eq!(value.to_json(), serde_json::json!({"alertId": "a", "count": 3}));
        let wrong = serde_json::json!({"alertId": "a", "count": "3"});
        assert_eq!(fill(&declared, wrong.as_object().unwrap()), Err("`count` wants int".into()));
        let missing = serde_json::json!({"alertId": null});
        assert_eq!(fill(&declared, missing.as_object().unwrap()), Err("`alertId` is missing".into()));
    }

    #[test]
    fn depth_is_bounded() {
        let mut json = serde_json::json!(1);
        for _ in 0..70 {
            json = serde_json::json!({ "$": json });
        }
        for ty in [Type::Any, Type::map(Type::Any), Type::list(Type::Any)] {
            let given = serde_json::json!({ "body": json });
            let error = fill(&[field("body", ty, true)], given.as_object().unwrap()).unwrap_err();
            assert!(error.contains("64 levels"), "{error}");
        }
    }
}
