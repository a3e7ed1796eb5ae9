//! Text, addresses and conversions. Positions count code points.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Function, K, Signature, Style, int, plain, text};
use crate::expr::eval::{MAX_BUILT, Val};
use crate::value::Value;

pub(super) static TABLE: &[Function] = &[
    Function::new(
        "contains",
        Style::Method,
        &[Signature(&[K::String, K::String], K::Bool)],
        |args| test(args, |a, b| a.contains(b)),
        "whether a text has another within it",
        "'T1059.001'.contains('1059')",
    ),
    Function::new(
        "startsWith",
        Style::Method,
        &[Signature(&[K::String, K::String], K::Bool)],
        |args| test(args, |a, b| a.starts_with(b)),
        "whether a text begins with another",
        "'dc-01'.startsWith('dc')",
    ),
    Function::new(
        "endsWith",
        Style::Method,
        &[Signature(&[K::String, K::String], K::Bool)],
        |args| test(args, |a, b| a.ends_with(b)),
        "whether a text ends with another",
        "'a.exe'.endsWith('.exe')",
    ),
    Function::new(
        "matches",
        Style::Both,
        &[Signature(&[K::String, K::String], K::Bool)],
        |_| Err("wants a literal pattern".into()),
        "whether a regular expression, given as literal text, matches somewhere in a text",
        "'svc-backup'.matches('^svc-')",
    ),
    Function::new(
        "size",
        Style::Both,
        &[Signature(&[K::String], K::Int), Signature(&[K::List], K::Int), Signature(&[K::Map], K::Int)],
        size,
        "the number of characters, items or members",
        "size([1, 2]) == 2 && 'ab'.size() == 2",
    ),
    Function::new(
        "charAt",
        Style::Method,
        &[Signature(&[K::String, K::Int], K::String)],
        char_at,
        "the character at a position from 0; empty at the very end",
        "'abc'.charAt(1) == 'b'",
    ),
    Function::new(
        "indexOf",
        Style::Method,
        &[Signature(&[K::String, K::String], K::Int), Signature(&[K::String, K::String, K::Int], K::Int)],
        index_of,
        "the first position of a text, from an optional position on; -1 where it is not found",
        "'a-b-c'.indexOf('-') == 1",
    ),
    Function::new(
        "lastIndexOf",
        Style::Method,
        &[Signature(&[K::String, K::String], K::Int), Signature(&[K::String, K::String, K::Int], K::Int)],
        last_index_of,
        "the last position of a text; -1 where it is not found",
        "'a-b-c'.lastIndexOf('-') == 3",
    ),
    Function::new(
        "lowerAscii",
        Style::Method,
        &[Signature(&[K::String], K::String)],
        |args| text(args, 0).map(|t| string(t.to_ascii_lowercase())),
        "the text in lower case (ASCII letters)",
        "'ABC'.lowerAscii() == 'abc'",
    ),
    Function::new(
        "upperAscii",
        Style::Method,
        &[Signature(&[K::String], K::String)],
        |args| text(args, 0).map(|t| string(t.to_ascii_uppercase())),
        "the text in upper case (ASCII letters)",
        "'abc'.upperAscii() == 'ABC'",
    ),
    Function::new(
        "replace",
        Style::Method,
        &[
            Signature(&[K::String, K::String, K::String], K::String),
            Signature(&[K::String, K::String, K::String, K::Int], K::String),
        ],
        replace,
        "the text with every (or the first n) occurrences replaced",
        "'a.b.c'.replace('.', '-') == 'a-b-c'",
    ),
    Function::new(
        "split",
        Style::Method,
        &[Signature(&[K::String, K::String], K::Strings), Signature(&[K::String, K::String, K::Int], K::Strings)],
        split,
        "the parts between a separator, at most n of them",
        "'a,b'.split(',') == ['a', 'b']",
    ),
    Function::new(
        "substring",
        Style::Method,
        &[Signature(&[K::String, K::Int], K::String), Signature(&[K::String, K::Int, K::Int], K::String)],
        substring,
        "the characters from a position to an end that is not included",
        "'abcdef'.substring(1, 3) == 'bc'",
    ),
    Function::new(
        "trim",
        Style::Method,
        &[Signature(&[K::String], K::String)],
        |args| text(args, 0).map(|t| string(t.trim_matches(white).to_owned())),
        "the text without white space around it",
        "' a '.trim() == 'a'",
    ),
    Function::new(
        "reverse",
        Style::Method,
        &[Signature(&[K::String], K::String), Signature(&[K::List], K::SameList)],
        reverse,
        "the characters or items in reverse",
        "'abc'.reverse() == 'cba'",
    ),
    Function::new(
        "in_cidr",
        Style::Function,
        &[Signature(&[K::String, K::String], K::Bool), Signature(&[K::String, K::Strings], K::Bool)],
        in_cidr,
        "whether an address is in a network, or in one of several",
        "in_cidr('10.1.2.3', '10.0.0.0/8')",
    ),
    Function::new(
        "int",
        Style::Function,
        &[
            Signature(&[K::Int], K::Int),
            Signature(&[K::Number], K::Int),
            Signature(&[K::String], K::Int),
            Signature(&[K::Datetime], K::Int),
        ],
        to_int,
        "a whole number: text is parsed, a fraction is cut, a datetime is seconds since 1970",
        "int('12') == 12",
    ),
    Function::new(
        "double",
        Style::Function,
        &[Signature(&[K::Number], K::Number), Signature(&[K::Int], K::Number), Signature(&[K::String], K::Number)],
        to_double,
        "a number from an int or from text",
        "double(1) / 2.0 == 0.5",
    ),
    Function::new(
        "format",
        Style::Method,
        &[Signature(&[K::String, K::List], K::String)],
        super::format::format,
        "a text with values in the places of %s (any), %d, %.2f, %e, %b, %o and %x; %% is a percent sign",
        "'%s: %.1f %%'.format(['cpu', 97.25]) == 'cpu: 97.2 %'",
    ),
    Function::new(
        "strings.quote",
        Style::Function,
        &[Signature(&[K::String], K::String)],
        quote,
        "the text in double quotes, with its quotes, backslashes and control characters escaped",
        r#"strings.quote('a "b"') == '"a \\"b\\""'"#,
    ),
    Function::new(
        "string",
        Style::Function,
        &[
            Signature(&[K::Bool], K::String),
            Signature(&[K::Int], K::String),
            Signature(&[K::Number], K::String),
            Signature(&[K::String], K::String),
            Signature(&[K::Datetime], K::String),
            Signature(&[K::Duration], K::String),
        ],
        to_string,
        "the value as text",
        "string(12) == '12'",
    ),
    Function::new(
        "bool",
        Style::Function,
        &[Signature(&[K::Bool], K::Bool), Signature(&[K::String], K::Bool)],
        to_bool,
        "true or false from text",
        "bool('true')",
    ),
];

fn string(text: String) -> Val {
    Value::str(text).into()
}

fn quote(args: &[Val]) -> Result<Val, String> {
    let text = text(args, 0)?;
    if text.len() > MAX_BUILT / 2 {
        return Err(format!("the result may have more than {MAX_BUILT} bytes"));
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\\' | '"' => quoted.extend(['\\', c]),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    Ok(string(quoted))
}

/// The white space of Unicode that CEL's `trim` removes.
fn white(c: char) -> bool {
    c.is_whitespace()
}

fn test(args: &[Val], check: fn(&str, &str) -> bool) -> Result<Val, String> {
    Ok(Value::Bool(check(text(args, 0)?, text(args, 1)?)).into())
}

fn count(size: usize) -> Val {
    Value::Int(i64::try_from(size).unwrap_or(i64::MAX)).into()
}

fn size(args: &[Val]) -> Result<Val, String> {
    match plain(args, 0)? {
        Value::String(text) => Ok(count(text.chars().count())),
        Value::List(items) => Ok(count(items.len())),
        Value::Map(members) => Ok(count(members.len())),
        other => Err(format!("wants text, a list or a map, not {}", other.kind())),
    }
}

/// A position within 0..=len.
fn position(at: i64, len: usize) -> Result<usize, String> {
    let at = usize::try_from(at).ok().filter(|at| *at <= len);
    at.ok_or_else(|| format!("the position is outside of the text, which has {len} characters"))
}

fn char_at(args: &[Val]) -> Result<Val, String> {
    let chars: Vec<char> = text(args, 0)?.chars().collect();
    let at = position(int(args, 1)?, chars.len())?;
    Ok(string(chars.get(at).map(char::to_string).unwrap_or_default()))
}

fn index_of(args: &[Val]) -> Result<Val, String> {
    let chars: Vec<char> = text(args, 0)?.chars().collect();
    let part: Vec<char> = text(args, 1)?.chars().collect();
    let from = if args.len() > 2 { position(int(args, 2)?, chars.len())? } else { 0 };
    let found = (from..=chars.len()).find(|at| chars.get(*at..).is_some_and(|rest| rest.starts_with(&part)));
    Ok(found.map_or(Value::Int(-1).into(), count))
}

fn last_index_of(args: &[Val]) -> Result<Val, String> {
    let chars: Vec<char> = text(args, 0)?.chars().collect();
    let part: Vec<char> = text(args, 1)?.chars().collect();
    let from = if args.len() > 2 { position(int(args, 2)?, chars.len())? } else { chars.len() };
    let found = (0..=from).rev().find(|at| chars.get(*at..).is_some_and(|rest| rest.starts_with(&part)));
    Ok(found.map_or(Value::Int(-1).into(), count))
}

fn replace(args: &[Val]) -> Result<Val, String> {
    let (of, from, to) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let limit = if args.len() > 3 { usize::try_from(int(args, 3)?).unwrap_or(usize::MAX) } else { usize::MAX };
    let times = of.matches(from).count().min(limit);
    if of.len().saturating_add(times.saturating_mul(to.len())) > MAX_BUILT {
        return Err(format!("the result has more than {MAX_BUILT} bytes"));
    }
    Ok(string(of.replacen(from, to, limit)))
}

fn split(args: &[Val]) -> Result<Val, String> {
    let (of, separator) = (text(args, 0)?, text(args, 1)?);
    let limit = if args.len() > 2 { int(args, 2)? } else { -1 };
    let parts: Vec<Value> = match usize::try_from(limit) {
        Ok(0) => vec![],
        // CEL splits by the empty text into characters; `str::split` would add empty ends.
        limit if separator.is_empty() => {
            let chars: Vec<char> = of.chars().collect();
            let singles = limit.map_or(chars.len(), |limit| limit.saturating_sub(1)).min(chars.len());
            let (head, tail) = chars.split_at(singles);
            let rest: String = tail.iter().collect();
            let rest = (!rest.is_empty()).then(|| Value::str(rest));
            head.iter().map(|c| Value::str(c.to_string())).chain(rest).collect()
        }
        Ok(limit) => of.splitn(limit, separator).map(Value::str).collect(),
        Err(_) => of.split(separator).map(Value::str).collect(),
    };
    Ok(Value::list(parts).into())
}

fn substring(args: &[Val]) -> Result<Val, String> {
    let chars: Vec<char> = text(args, 0)?.chars().collect();
    let start = position(int(args, 1)?, chars.len())?;
    let end = if args.len() > 2 { position(int(args, 2)?, chars.len())? } else { chars.len() };
    let part = chars.get(start..end).ok_or("the end is before the start")?;
    Ok(string(part.iter().collect()))
}

fn reverse(args: &[Val]) -> Result<Val, String> {
    match plain(args, 0)? {
        Value::String(text) => Ok(string(text.chars().rev().collect())),
        Value::List(items) => Ok(Value::list(items.iter().rev().cloned().collect()).into()),
        other => Err(format!("wants text or a list, not {}", other.kind())),
    }
}

/// A network such as `10.0.0.0/8`; a lone address is a network of one.
pub(super) fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| format!("'{text}' is no network; write '10.0.0.0/8' or '2001:db8::/32'"))
}

fn in_cidr(args: &[Val]) -> Result<Val, String> {
    let given = text(args, 0)?;
    let address: IpAddr = given.parse().map_err(|_| format!("'{given}' is no IP address"))?;
    // A service may write an IPv4 address as `::ffff:10.0.0.1`.
    let address = address.to_canonical();
    let within = |network: &str| parse_network(network).map(|network| network.contains(&address));
    match plain(args, 1)? {
        Value::String(network) => Ok(Value::Bool(within(network)?).into()),
        Value::List(networks) => {
            for network in networks.iter() {
                let network = network.as_str().ok_or("wants networks as text")?;
                if within(network)? {
                    return Ok(Value::Bool(true).into());
                }
            }
            Ok(Value::Bool(false).into())
        }
        other => Err(format!("wants a network as text, not {}", other.kind())),
    }
}

fn to_int(args: &[Val]) -> Result<Val, String> {
    Ok(match plain(args, 0)? {
        Value::Int(value) => Value::Int(*value),
        Value::Number(value) if *value > -9_223_372_036_854_775_808.0 && *value < 9_223_372_036_854_775_807.0 => {
            Value::Int(*value as i64)
        }
        Value::Number(_) => return Err("the number does not fit into 64 bits".into()),
        Value::String(text) => Value::Int(text.parse().map_err(|_| format!("'{text}' is not a whole number"))?),
        Value::Datetime(at) => Value::Int(at.as_nanosecond().div_euclid(1_000_000_000).try_into().unwrap_or(0)),
        other => return Err(format!("can't read {}", other.kind())),
    }
    .into())
}

fn to_double(args: &[Val]) -> Result<Val, String> {
    Ok(match plain(args, 0)? {
        Value::Int(value) => Value::Number(*value as f64),
        Value::Number(value) => Value::Number(*value),
        Value::String(text) => Value::Number(text.parse().map_err(|_| format!("'{text}' is not a number"))?),
        other => return Err(format!("can't read {}", other.kind())),
    }
    .into())
}

fn to_string(args: &[Val]) -> Result<Val, String> {
    match plain(args, 0)? {
        Value::String(text) => Ok(string(text.to_string())),
        Value::Bool(value) => Ok(string(value.to_string())),
        Value::Int(value) => Ok(string(value.to_string())),
        Value::Number(value) => Ok(string(value.to_string())),
        Value::Datetime(at) => Ok(string(at.to_string())),
        Value::Duration(span) => Ok(string(crate::value::duration_text(*span))),
        other => Err(format!("can't write {} as text", other.kind())),
    }
}

fn to_bool(args: &[Val]) -> Result<Val, String> {
    match plain(args, 0)? {
        Value::Bool(value) => Ok(Value::Bool(*value).into()),
        Value::String(text) => match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true).into()),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false).into()),
            other => Err(format!("'{other}' is neither true nor false")),
        },
        other => Err(format!("can't read {}", other.kind())),
    }
}
