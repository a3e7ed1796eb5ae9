//! The stand-in output of a call that was recorded and not sent: plausible values of the right types, so that the rest
//! of the flow shows what it would do.

use jiff::{SignedDuration, Timestamp};

use crate::catalog::Type;
use crate::check::program::Keep;
use crate::value::{Map, Value};

pub(super) fn output(ty: &Type, keep: &Keep, inputs: &Map, at: Timestamp) -> Value {
    let made = make(ty, keep, at, 0);
    let Some(members) = made.as_map() else { return made };
    let mut members = members.clone();
    for (name, value) in inputs {
        if let Some(made) = members.get_mut(name)
            && made.kind() == value.kind()
        {
            *made = value.clone();
        }
    }
    if members.contains_key("shadow") {
        members.insert("shadow".into(), Value::Bool(true));
    }
    Value::map(members)
}

fn make(ty: &Type, keep: &Keep, at: Timestamp, depth: u32) -> Value {
    match ty {
        Type::Any | Type::String => Value::str("(shadow)"),
        Type::Bool => Value::Bool(false),
        Type::Int => Value::Int(0),
        Type::Number => Value::Number(0.0),
        Type::Datetime => Value::Datetime(at),
        Type::Duration => Value::Duration(SignedDuration::ZERO),
        Type::Enum(words) => {
            words.values.first().map_or_else(|| Value::str("(shadow)"), |word| Value::String(word.clone()))
        }
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
                    Some((name.clone(), make(&field.ty, keep, at, depth + 1)))
                })
                .collect(),
        ),
        Type::Object(_) => Value::empty(),
    }
}
