//! Lists and optionals.

use super::{Function, K, Signature, Style, int, items, plain, text};
use crate::expr::ast::Op;
use crate::expr::eval::{MAX_BUILT, Val};
use crate::expr::ops;
use crate::value::Value;

pub(super) static TABLE: &[Function] = &[
    Function::new(
        "join",
        Style::Method,
        &[Signature(&[K::Strings], K::String), Signature(&[K::Strings, K::String], K::String)],
        join,
        "the texts of a list with a separator between them",
        "['a', 'b'].join(', ') == 'a, b'",
    ),
    Function::new(
        "sum",
        Style::Both,
        &[Signature(&[K::List], K::Item)],
        sum,
        "the sum of a list of numbers or durations; 0 for an empty list",
        "sum([1, 2, 3]) == 6",
    ),
    Function::new(
        "min",
        Style::Both,
        &[Signature(&[K::List], K::Item)],
        |args| extreme(args, Op::Lt),
        "the smallest item; an empty list is an error",
        "min([3, 1, 2]) == 1",
    ),
    Function::new(
        "max",
        Style::Both,
        &[Signature(&[K::List], K::Item)],
        |args| extreme(args, Op::Gt),
        "the largest item; an empty list is an error",
        "max([3, 1, 2]) == 3",
    ),
    Function::new(
        "distinct",
        Style::Both,
        &[Signature(&[K::List], K::SameList)],
        distinct,
        "the items without repetitions, in order of first appearance",
        "distinct([1, 2, 1]) == [1, 2]",
    ),
    Function::new(
        "flatten",
        Style::Both,
        &[Signature(&[K::Nested], K::Nested), Signature(&[K::Nested, K::Int], K::List)],
        flatten,
        "the items of lists within a list, one level (or n levels) deep",
        "flatten([[1], [2, 3]]) == [1, 2, 3]",
    ),
    Function::new(
        "sort",
        Style::Both,
        &[Signature(&[K::List], K::SameList)],
        sort,
        "the items in ascending order",
        "[3, 1, 2].sort() == [1, 2, 3]",
    ),
    Function::new(
        "slice",
        Style::Method,
        &[Signature(&[K::List, K::Int, K::Int], K::SameList)],
        slice,
        "the items from a position to an end that is not included",
        "[1, 2, 3, 4].slice(1, 3) == [2, 3]",
    ),
    Function::new(
        "first",
        Style::Both,
        &[Signature(&[K::List], K::Item)],
        |args| items(args, 0)?.first().cloned().map(Val::Plain).ok_or_else(|| "the list is empty".into()),
        "the first item; an empty list is an error (`list[?0].orValue(x)` gives a default)",
        "first([1, 2]) == 1",
    ),
    Function::new(
        "last",
        Style::Both,
        &[Signature(&[K::List], K::Item)],
        |args| items(args, 0)?.last().cloned().map(Val::Plain).ok_or_else(|| "the list is empty".into()),
        "the last item; an empty list is an error",
        "last([1, 2]) == 2",
    ),
    Function::new(
        "optional.of",
        Style::Function,
        &[Signature(&[K::Any], K::ToOptional)],
        |args| Ok(Val::Optional(Some(plain(args, 0)?.clone()))),
        "an optional that has a value",
        "optional.of(1).hasValue()",
    ),
    Function::new(
        "optional.none",
        Style::Function,
        &[Signature(&[], K::ToOptional)],
        |_| Ok(Val::Optional(None)),
        "an optional without a value",
        "!optional.none().hasValue()",
    ),
    Function::new(
        "optional.ofNonZeroValue",
        Style::Function,
        &[Signature(&[K::Any], K::ToOptional)],
        |args| Ok(Val::Optional(Some(plain(args, 0)?.clone()).filter(|value| !is_zero(value)))),
        "an optional that has a value unless it is empty, zero or false",
        "!optional.ofNonZeroValue('').hasValue()",
    ),
    Function::new(
        "hasValue",
        Style::Method,
        &[Signature(&[K::Optional], K::Bool)],
        |args| optional(args).map(|value| Value::Bool(value.is_some()).into()),
        "whether an optional has a value",
        "{'a': 1}.?a.hasValue()",
    ),
    Function::new(
        "value",
        Style::Method,
        &[Signature(&[K::Optional], K::Inner)],
        |args| optional(args)?.clone().map(Val::Plain).ok_or_else(|| "the optional has no value".into()),
        "the value of an optional; an error where it has none",
        "{'a': 1}.?a.value() == 1",
    ),
    Function {
        lazy: true,
        ..Function::new(
            "orValue",
            Style::Method,
            &[Signature(&[K::Optional, K::Any], K::Inner)],
            |_| Err("wants an optional".into()),
            "the value of an optional, or a default",
            "optional.none().orValue(2) == 2",
        )
    },
    Function {
        lazy: true,
        ..Function::new(
            "or",
            Style::Method,
            &[Signature(&[K::Optional, K::Optional], K::Optional)],
            |_| Err("wants optionals".into()),
            "the first of two optionals that has a value",
            "optional.none().or(optional.of(1)).value() == 1",
        )
    },
];

fn optional(args: &[Val]) -> Result<&Option<Value>, String> {
    match args.first() {
        Some(Val::Optional(value)) => Ok(value),
        Some(Val::Plain(value)) => Err(format!("wants an optional value, not {}", value.kind())),
        None => Err("an operand is missing".into()),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Int(value) => *value == 0,
        Value::Number(value) => *value == 0.0,
        Value::String(text) => text.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(members) => members.is_empty(),
        Value::Duration(span) => span.is_zero(),
        Value::Datetime(_) => false,
    }
}

fn join(args: &[Val]) -> Result<Val, String> {
    let separator = if args.len() > 1 { text(args, 1)? } else { "" };
    let mut joined = String::new();
    for (at, item) in items(args, 0)?.iter().enumerate() {
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(item.as_str().ok_or_else(|| format!("wants a list of text, not of {}", item.kind()))?);
        if joined.len() > MAX_BUILT {
            return Err(format!("the result has more than {MAX_BUILT} bytes"));
        }
    }
    Ok(Value::str(joined).into())
}

fn sum(args: &[Val]) -> Result<Val, String> {
    let mut items = items(args, 0)?.iter();
    let Some(first) = items.next() else { return Ok(Value::Int(0).into()) };
    if !matches!(first, Value::Int(_) | Value::Number(_) | Value::Duration(_)) {
        return Err(format!("wants numbers or durations, not {}", first.kind()));
    }
    items.try_fold(first.clone(), |total, item| ops::binary(Op::Add, &total, item, false)).map(Val::Plain)
}

fn extreme(args: &[Val], op: Op) -> Result<Val, String> {
    let mut items = items(args, 0)?.iter();
    let mut best = items.next().ok_or("the list is empty")?;
    for item in items {
        if ops::binary(op, item, best, false)? == Value::Bool(true) {
            best = item;
        }
    }
    Ok(best.clone().into())
}

/// Most items of a list that is compared item by item.
const MAX_DISTINCT: usize = 5_000;

fn distinct(args: &[Val]) -> Result<Val, String> {
    let given = items(args, 0)?;
    if given.len() > MAX_DISTINCT {
        return Err(format!("wants at most {MAX_DISTINCT} items, not {}", given.len()));
    }
    let mut kept: Vec<Value> = Vec::new();
    for item in given {
        if !kept.iter().any(|other| ops::equal(other, item)) {
            kept.push(item.clone());
        }
    }
    Ok(Value::list(kept).into())
}

fn flatten(args: &[Val]) -> Result<Val, String> {
    let depth = if args.len() > 1 { int(args, 1)? } else { 1 };
    let depth = usize::try_from(depth).map_err(|_| "the depth is negative")?;
    let mut flat = Vec::new();
    flatten_into(items(args, 0)?, depth.min(32), &mut flat);
    Ok(Value::list(flat).into())
}

fn flatten_into(given: &[Value], depth: usize, flat: &mut Vec<Value>) {
    for item in given {
        match item {
            Value::List(inner) if depth > 0 => flatten_into(inner, depth - 1, flat),
            _ => flat.push(item.clone()),
        }
    }
}

fn sort(args: &[Val]) -> Result<Val, String> {
    sort_keyed(items(args, 0)?.iter().map(|item| (item.clone(), item.clone())).collect()).map(Val::Plain)
}

/// Sorts items by their keys, stably; keys of unlike kinds have no order.
pub(in crate::expr) fn sort_keyed(mut keyed: Vec<(Value, Value)>) -> Result<Value, String> {
    if let Some((first, _)) = keyed.first()
        && let Some((other, _)) = keyed.iter().find(|(key, _)| ops::order(first, key).is_none())
    {
        return Err(format!("can't order {} and {}", first.kind(), other.kind()));
    }
    // Ints are compared exactly, an int and a number by the nearest double: two ints that differ can both equal one number.
    // A list with both has an order only when all of it is compared as doubles.
    if keyed.iter().any(|(key, _)| matches!(key, Value::Number(_))) {
        keyed.sort_by(|(left, _), (right, _)| double(left).total_cmp(&double(right)));
    } else {
        keyed.sort_by(|(left, _), (right, _)| ops::order(left, right).unwrap_or(std::cmp::Ordering::Equal));
    }
    Ok(Value::list(keyed.into_iter().map(|(_, item)| item).collect()))
}

fn double(value: &Value) -> f64 {
    match value {
        Value::Int(int) => *int as f64,
        // Zero has one place, whatever its sign.
        Value::Number(number) => *number + 0.0,
        _ => f64::NAN,
    }
}

fn slice(args: &[Val]) -> Result<Val, String> {
    let given = items(args, 0)?;
    let at = |index: usize| int(args, index).map(|at| usize::try_from(at).ok());
    let (start, end) = (at(1)?, at(2)?);
    let part = start.zip(end).and_then(|(start, end)| given.get(start..end));
    let part = part.ok_or_else(|| format!("the range is outside of the list, which has {} items", given.len()))?;
    Ok(Value::list(part.to_vec()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ints_and_numbers_have_one_order() {
        let big = 9_007_199_254_740_992i64;
        let mut keys: Vec<Value> = (0..64).map(|n| Value::Int(big + 1 - n % 2)).collect();
        keys.extend((0..64).map(|_| Value::Number(big as f64)));
        keys.extend([Value::Number(-0.0), Value::Int(0), Value::Int(-1)]);
        let given = keys.len();
        let sorted = sort_keyed(keys.into_iter().map(|key| (key.clone(), key)).collect()).unwrap();
        let sorted = sorted.as_list().unwrap().to_vec();
        assert_eq!(sorted.len(), given);
        assert!(sorted.windows(2).all(|pair| double(&pair[0]) <= double(&pair[1])));
        // Equal ones keep their places.
        assert_eq!(sorted.get(..3), Some([Value::Int(-1), Value::Number(-0.0), Value::Int(0)].as_slice()));
    }
}
