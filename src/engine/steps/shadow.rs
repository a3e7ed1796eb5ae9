//! The stand-in output of a call that was recorded and not sent, or that a person knows to have been done: plausible
//! values of the right types, so that the rest of the flow goes on.

use jiff::{SignedDuration, Timestamp};

use crate::catalog::Type;
use crate::check::program::Keep;
use crate::value::{Map, Value};

pub(super) fn output(ty: &Type, keep: &Keep, inputs: &Map, at: Timestamp) -> Value {
    let made = stand_in(ty, keep, inputs, at, "(shadow)");
    let Some(members) = made.as_map().filter(|members| members.contains_key("shadow")) else { return made };
    let mut members = members.clone();
    members.insert("shadow".into(), Value::Bool(true));
    Value::map(members)
}

/// Values of the right types, the inputs' own where they are known; texts that nobody knows are `word`.
pub(super) fn stand_in(ty: &Type, keep: &Keep, inputs: &Map, at: Timestamp, word: &str) -> Value {
    let made = make(ty, keep, (at, word), 0);
    let Some(members) = made.as_map() else { return made };
    let mut members = members.clone();
    for (name, value) in inputs {
        if let Some(made) = members.get_mut(name)
            && made.kind() == value.kind()
        {
            *made = value.clone();
        }
    }
    Value::map(members)
}

fn make(ty: &Type, keep: &Keep, (at, word): (Timestamp, &str), depth: u32) -> Value {
    match ty {
        Type::Any | Type::String => Value::str(word),
        Type::Bool => Value::Bool(false),
        Type::Int => Value::Int(0),
        Type::Number => Value::Number(0.0),
        Type::Datetime => Value::Datetime(at),
        Type::Duration => Value::Duration(SignedDuration::ZERO),
        Type::Enum(words) => words.values.first().map_or_else(|| Value::str(word), |word| Value::String(word.clone())),
        Type::List(_) => Value::list(Vec::new()),
        Type::Map(_) => Value::empty(),
        Type::Object(object) if depth < 8 => Value::map(
            object
                .fields
                .iter()
                .filter_map(|(name, field)| {
                    let keep = match keep {
                        Keep::Nothing => return None,
                        Keep::All => &Keep::All,
                        Keep::Fields(fields) => fields.get(name)?,
                    };
                    Some((name.clone(), make(&field.ty, keep, (at, word), depth + 1)))
                })
                .collect(),
        ),
        Type::Object(_) => Value::empty(),
    }
}
