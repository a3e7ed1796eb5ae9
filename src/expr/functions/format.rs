//! `'%.1f of %s'.format([x, y])`: clauses as the strings extension of CEL has them, of bounded precision and length.

use super::{items, text};
use crate::expr::eval::{MAX_BUILT, Val};
use crate::value::{Value, duration_text};

/// Most digits after the point.
const MAX_PRECISION: usize = 100;

pub(super) fn format(args: &[Val]) -> Result<Val, String> {
    let (mut rest, mut values) = (text(args, 0)?, items(args, 1)?.iter());
    let mut out = String::new();
    while let Some((before, clause)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = clause.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (precision, after) = precision(clause)?;
        let mut chars = after.chars();
        let letter = chars.next().ok_or("a clause such as `%s` is cut off")?;
        let value = values.next().ok_or_else(|| format!("there is no value for `%{letter}`"))?;
        substitute(&mut out, letter, precision, value)?;
        if out.len() > MAX_BUILT {
            return Err(format!("the text has more than {MAX_BUILT} bytes"));
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    Ok(Value::str(out).into())
}

/// `.3` before a letter.
fn precision(clause: &str) -> Result<(usize, &str), String> {
    let Some(digits) = clause.strip_prefix('.') else { return Ok((6, clause)) };
    let after = digits.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = digits.strip_suffix(after).and_then(|number| number.parse().ok());
    match number.filter(|number| *number <= MAX_PRECISION) {
        Some(number) => Ok((number, after)),
        None => Err(format!("a precision is a number up to {MAX_PRECISION}")),
    }
}

fn substitute(out: &mut String, letter: char, precision: usize, value: &Value) -> Result<(), String> {
    let text = match (letter, value) {
        ('s', value) => return write(out, value),
        ('d' | 'f' | 'e', Value::Number(number)) if !number.is_finite() => infinite(*number),
        ('d', Value::Int(int)) => int.to_string(),
        ('d', Value::Number(number)) => number.to_string(),
        ('f', Value::Int(int)) => format!("{:.precision$}", *int as f64),
        ('f', Value::Number(number)) => format!("{number:.precision$}"),
        ('e', Value::Int(int)) => scientific(*int as f64, precision),
        ('e', Value::Number(number)) => scientific(*number, precision),
        ('b', Value::Bool(value)) => u8::from(*value).to_string(),
        ('b' | 'o' | 'x' | 'X', Value::Int(int)) => based(letter, *int),
        ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('X', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02X}")).collect(),
        ('d' | 'f' | 'e' | 'b' | 'o' | 'x' | 'X', other) => {
            return Err(format!("`%{letter}` does not write {}", other.kind()));
        }
        _ => return Err(format!("there is no clause `%{letter}`: write one of %s %d %f %e %b %o %x %X")),
    };
    out.push_str(&text);
    Ok(())
}

fn infinite(number: f64) -> String {
    match (number.is_nan(), number > 0.0) {
        (true, _) => "NaN".into(),
        (false, true) => "Infinity".into(),
        (false, false) => "-Infinity".into(),
    }
}

/// `1.052033e+03`: the exponent has a sign and two digits at least.
fn scientific(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

fn based(letter: char, int: i64) -> String {
    let (sign, size) = (if int < 0 { "-" } else { "" }, int.unsigned_abs());
    match letter {
        'b' => format!("{sign}{size:b}"),
        'o' => format!("{sign}{size:o}"),
        'x' => format!("{sign}{size:x}"),
        _ => format!("{sign}{size:X}"),
    }
}

/// A value as `%s` writes it, lists and maps with their items.
fn write(out: &mut String, value: &Value) -> Result<(), String> {
    if out.len() > MAX_BUILT {
        return Err(format!("the text has more than {MAX_BUILT} bytes"));
    }
    match value {
        Value::String(text) => out.push_str(text),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(int) => out.push_str(&int.to_string()),
        Value::Number(number) if !number.is_finite() => out.push_str(&infinite(*number)),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::Datetime(at) => out.push_str(&at.to_string()),
        Value::Duration(span) => out.push_str(&duration_text(*span)),
        Value::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                write(out, item)?;
            }
            out.push(']');
        }
        Value::Map(members) => {
            out.push('{');
            for (at, (name, member)) in members.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                out.push_str(name);
                out.push_str(": ");
                write(out, member)?;
            }
            out.push('}');
        }
    }
    Ok(())
}
