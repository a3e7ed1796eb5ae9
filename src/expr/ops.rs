//! Operators over values: equality, order, arithmetic. Whole numbers never wrap; a fault is a sentence.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};

use super::ast::Op;
use crate::value::Value;

/// Deep equality; an int equals a number of the same size.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Int(_) | Value::Number(_), Value::Int(_) | Value::Number(_)) => {
            order_numbers(left, right) == Some(Ordering::Equal)
        }
        (Value::List(left), Value::List(right)) => {
            left.len() == right.len() && left.iter().zip(right.iter()).all(|(l, r)| equal(l, r))
        }
        (Value::Map(left), Value::Map(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| equal(value, other)))
        }
        _ => left == right,
    }
}

/// The order of two values of one kind; `None` where they have none (NaN included).
pub(super) fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Bool(l), Value::Bool(r)) => Some(l.cmp(r)),
        (Value::String(l), Value::String(r)) => Some(l.cmp(r)),
        (Value::Datetime(l), Value::Datetime(r)) => Some(l.cmp(r)),
        (Value::Duration(l), Value::Duration(r)) => Some(l.cmp(r)),
        _ => order_numbers(left, right),
    }
}

fn order_numbers(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(l), Value::Int(r)) => Some(l.cmp(r)),
        (Value::Number(l), Value::Number(r)) => l.partial_cmp(r),
        (Value::Int(l), Value::Number(r)) => order_mixed(*l, *r),
        (Value::Number(l), Value::Int(r)) => order_mixed(*r, *l).map(Ordering::reverse),
        _ => None,
    }
}

/// As CEL says: by the double nearest to the int; a double beyond all ints is ordered by its side.
fn order_mixed(int: i64, number: f64) -> Option<Ordering> {
    if number.is_nan() {
        return None;
    }
    if number > 9_223_372_036_854_775_808.0 {
        return Some(Ordering::Less);
    }
    if number < -9_223_372_036_854_775_808.0 {
        return Some(Ordering::Greater);
    }
    (int as f64).partial_cmp(&number)
}

/// Applies a binary operator; the error is a sentence without the operands' names.
pub(super) fn binary(op: Op, left: &Value, right: &Value, lift: bool) -> Result<Value, String> {
    match op {
        Op::Eq => Ok(Value::Bool(equal(left, right))),
        Op::Ne => Ok(Value::Bool(!equal(left, right))),
        Op::In => contains(left, right),
        Op::Lt | Op::Le | Op::Gt | Op::Ge => compare(op, left, right),
        _ => arithmetic(op, left, right, lift),
    }
}

fn contains(item: &Value, within: &Value) -> Result<Value, String> {
    match within {
        Value::List(items) => Ok(Value::Bool(items.iter().any(|other| equal(item, other)))),
        Value::Map(members) => Ok(Value::Bool(item.as_str().is_some_and(|key| members.contains_key(key)))),
        other => Err(format!("`in` wants a list or a map, not {}", other.kind())),
    }
}

fn compare(op: Op, left: &Value, right: &Value) -> Result<Value, String> {
    let not_a_number = |value: &Value| matches!(value, Value::Number(number) if number.is_nan());
    let Some(order) = order(left, right) else {
        if not_a_number(left) || not_a_number(right) {
            return Ok(Value::Bool(false));
        }
        return Err(format!("can't order {} and {} by `{}`", left.kind(), right.kind(), op.as_str()));
    };
    Ok(Value::Bool(match op {
        Op::Lt => order.is_lt(),
        Op::Le => order.is_le(),
        Op::Gt => order.is_gt(),
        _ => order.is_ge(),
    }))
}

fn arithmetic(op: Op, left: &Value, right: &Value, lift: bool) -> Result<Value, String> {
    let overflow = || format!("`{}` leaves the range of 64 bits", op.as_str());
    match (left, right) {
        (Value::Int(l), Value::Int(r)) if !lift => whole(op, *l, *r),
        (Value::Int(_) | Value::Number(_), Value::Int(_) | Value::Number(_)) => {
            let number = |value: &Value| match value {
                Value::Int(int) => *int as f64,
                Value::Number(number) => *number,
                _ => f64::NAN,
            };
            fraction(op, number(left), number(right))
        }
        (Value::String(l), Value::String(r)) if op == Op::Add => Ok(Value::str(format!("{l}{r}"))),
        (Value::List(l), Value::List(r)) if op == Op::Add => {
            Ok(Value::list(l.iter().chain(r.iter()).cloned().collect()))
        }
        (Value::Datetime(at), Value::Duration(span)) | (Value::Duration(span), Value::Datetime(at))
            if op == Op::Add =>
        {
            shift(*at, Some(*span))
        }
        (Value::Datetime(at), Value::Duration(span)) if op == Op::Sub => shift(*at, span.checked_neg()),
        (Value::Datetime(l), Value::Datetime(r)) if op == Op::Sub => bounded(l.duration_since(*r)),
        (Value::Duration(l), Value::Duration(r)) if op == Op::Add => bounded(l.checked_add(*r).ok_or_else(overflow)?),
        (Value::Duration(l), Value::Duration(r)) if op == Op::Sub => bounded(l.checked_sub(*r).ok_or_else(overflow)?),
        _ => Err(format!("`{}` does not work on {} and {}", op.as_str(), left.kind(), right.kind())),
    }
}

fn whole(op: Op, left: i64, right: i64) -> Result<Value, String> {
    if right == 0 && matches!(op, Op::Div | Op::Rem) {
        return Err("division by zero".into());
    }
    let result = match op {
        Op::Add => left.checked_add(right),
        Op::Sub => left.checked_sub(right),
        Op::Mul => left.checked_mul(right),
        Op::Div => left.checked_div(right),
        _ => left.checked_rem(right),
    };
    result.map(Value::Int).ok_or_else(|| format!("`{}` leaves the range of 64 bits", op.as_str()))
}

fn fraction(op: Op, left: f64, right: f64) -> Result<Value, String> {
    Ok(Value::Number(match op {
        Op::Add => left + right,
        Op::Sub => left - right,
        Op::Mul => left * right,
        Op::Div => left / right,
        _ => return Err("`%` works on whole numbers only".into()),
    }))
}

/// The years 1 to 9999: what RFC 3339 can write.
pub(super) fn in_range(at: Timestamp) -> bool {
    at.as_nanosecond() >= -62_135_596_800_000_000_000 && at.as_second() <= 253_402_300_799
}

fn shift(at: Timestamp, span: Option<SignedDuration>) -> Result<Value, String> {
    let moved = span.and_then(|span| at.checked_add(span).ok()).filter(|at| in_range(*at));
    moved.map(Value::Datetime).ok_or_else(|| "the result is outside of the years 1 to 9999".into())
}

/// Ten thousand years, as CEL bounds durations.
pub(super) fn bounded(span: SignedDuration) -> Result<Value, String> {
    if span.as_secs().unsigned_abs() > 315_576_000_000 {
        return Err("the duration is longer than 10,000 years".into());
    }
    Ok(Value::Duration(span))
}

pub(super) fn negate(value: &Value) -> Result<Value, String> {
    match value {
        Value::Int(int) => int.checked_neg().map(Value::Int).ok_or_else(|| "`-` leaves the range of 64 bits".into()),
        Value::Number(number) => Ok(Value::Number(-number)),
        Value::Duration(span) => {
            span.checked_neg().map(Value::Duration).ok_or_else(|| "the duration is too long".into())
        }
        other => Err(format!("`-` does not work on {}", other.kind())),
    }
}
