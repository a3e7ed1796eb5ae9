//! Instants and durations.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use super::{Function, K, Signature, Style, plain, text};
use crate::expr::eval::Val;
use crate::expr::ops;
use crate::value::Value;

const OF_DATE: &[Signature] = &[Signature(&[K::Datetime], K::Int), Signature(&[K::Datetime, K::String], K::Int)];
const OF_EITHER: &[Signature] = &[
    Signature(&[K::Datetime], K::Int),
    Signature(&[K::Datetime, K::String], K::Int),
    Signature(&[K::Duration], K::Int),
];

pub(super) static TABLE: &[Function] = &[
    Function::new(
        "duration",
        Style::Function,
        &[Signature(&[K::String], K::Duration), Signature(&[K::Duration], K::Duration)],
        to_duration,
        "a duration: '7d', '4h', '30m', '1h30m', '90s', '500ms'",
        "duration('90m') == duration('1h30m')",
    ),
    Function::new(
        "timestamp",
        Style::Function,
        &[
            Signature(&[K::String], K::Datetime),
            Signature(&[K::Datetime], K::Datetime),
            Signature(&[K::Int], K::Datetime),
        ],
        to_timestamp,
        "an instant from RFC 3339 text or from seconds since 1970",
        "timestamp('2026-11-20T07:20:00Z') > timestamp('2026-11-19T00:00:00Z')",
    ),
    Function::new(
        "getFullYear",
        Style::Method,
        OF_DATE,
        |args| date(args, |z| i64::from(z.year())),
        "the year, in UTC or in a zone",
        "timestamp('2026-11-20T07:20:00Z').getFullYear() == 2026",
    ),
    Function::new(
        "getMonth",
        Style::Method,
        OF_DATE,
        |args| date(args, |z| i64::from(z.month()) - 1),
        "the month from 0",
        "timestamp('2026-11-20T07:20:00Z').getMonth() == 10",
    ),
    Function::new(
        "getDate",
        Style::Method,
        OF_DATE,
        |args| date(args, |z| i64::from(z.day())),
        "the day of the month from 1",
        "timestamp('2026-11-20T07:20:00Z').getDate() == 20",
    ),
    Function::new(
        "getDayOfMonth",
        Style::Method,
        OF_DATE,
        |args| date(args, |z| i64::from(z.day()) - 1),
        "the day of the month from 0",
        "timestamp('2026-11-20T07:20:00Z').getDayOfMonth() == 19",
    ),
    Function::new(
        "getDayOfWeek",
        Style::Method,
        OF_DATE,
        |args| date(args, |z| i64::from(z.weekday().to_sunday_zero_offset())),
        "the day of the week, 0 is Sunday",
        "timestamp('2026-11-20T07:20:00Z').getDayOfWeek('Europe/Paris') == 5",
    ),
    Function::new(
        "getDayOfYear",
        Style::Method,
        OF_DATE,
        |args| date(args, |z| i64::from(z.day_of_year()) - 1),
        "the day of the year from 0",
        "timestamp('2026-01-01T07:20:00Z').getDayOfYear() == 0",
    ),
    Function::new(
        "getHours",
        Style::Method,
        OF_EITHER,
        |args| part(args, |z| i64::from(z.hour()), |span| span.as_secs() / 3600),
        "the hour of an instant in UTC or in a zone; of a duration all its hours",
        "timestamp('2026-11-20T07:20:00Z').getHours('Europe/Paris') == 8",
    ),
    Function::new(
        "getMinutes",
        Style::Method,
        OF_EITHER,
        |args| part(args, |z| i64::from(z.minute()), |span| span.as_secs() / 60),
        "the minute of an instant; of a duration all its minutes",
        "duration('2h').getMinutes() == 120",
    ),
    Function::new(
        "getSeconds",
        Style::Method,
        OF_EITHER,
        |args| part(args, |z| i64::from(z.second()), |span| span.as_secs()),
        "the second of an instant; of a duration all its seconds",
        "duration('2m').getSeconds() == 120",
    ),
    Function::new(
        "getMilliseconds",
        Style::Method,
        OF_EITHER,
        |args| part(args, |z| i64::from(z.millisecond()), |span| i64::from(span.subsec_millis())),
        "the milliseconds within the second",
        "duration('1500ms').getMilliseconds() == 500",
    ),
];

fn to_duration(args: &[Val]) -> Result<Val, String> {
    match plain(args, 0)? {
        Value::Duration(span) => Ok(Value::Duration(*span).into()),
        Value::String(text) => Ok(Value::Duration(parse_duration(text)?).into()),
        other => Err(format!("can't read {}", other.kind())),
    }
}

fn to_timestamp(args: &[Val]) -> Result<Val, String> {
    match plain(args, 0)? {
        Value::Datetime(at) => Ok(Value::Datetime(*at).into()),
        Value::String(text) => Ok(Value::Datetime(parse_timestamp(text)?).into()),
        Value::Int(seconds) => {
            let at = Timestamp::from_second(*seconds).ok().filter(|at| ops::in_range(*at));
            Ok(Value::Datetime(at.ok_or("the instant is outside of the years 1 to 9999")?).into())
        }
        other => Err(format!("can't read {}", other.kind())),
    }
}

pub(super) fn parse_timestamp(text: &str) -> Result<Timestamp, String> {
    let at: Option<Timestamp> = text.parse().ok();
    at.filter(|at| ops::in_range(*at)).ok_or_else(|| format!("'{text}' is no instant; write '2026-11-20T07:20:00Z'"))
}

/// Reads `7d`, `1h30m`, `-1.5s`; units d h m s ms us ns.
pub(in crate::expr) fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("'{text}' is no duration; write '30m', '4h' or '7d'");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() || rest.len() > 64 {
        return Err(wrong());
    }
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at_checked(digits).ok_or_else(wrong)?;
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_len).ok_or_else(wrong)?;
        let scale: i128 = match unit {
            "d" => 86_400_000_000_000,
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" => 1_000,
            "ns" => 1,
            _ => return Err(wrong()),
        };
        nanos = scaled(number, scale).and_then(|part| nanos.checked_add(part)).ok_or_else(wrong)?;
        rest = tail;
    }
    let nanos = if negative { -nanos } else { nanos };
    let span = SignedDuration::try_from_nanos_i128(nanos).ok_or_else(wrong)?;
    ops::bounded(span).map(|_| span)
}

fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(scale)?;
    let mut unit = scale;
    for digit in fraction.chars().take(18) {
        unit /= 10;
        total += i128::from(digit.to_digit(10)?) * unit;
    }
    Some(total)
}

/// A duration as people write it: `4h`, `1h30m`, `7d`; fractions of a second as `1.5s`.
pub(in crate::expr) fn short_duration(span: SignedDuration) -> String {
    let total = span.as_secs().unsigned_abs();
    if span.subsec_nanos() != 0 || total == 0 {
        return crate::value::duration_text(span);
    }
    let mut text = String::from(if span.is_negative() { "-" } else { "" });
    for (size, unit) in [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')] {
        let count = match unit {
            'd' => total / size,
            'h' => total % 86_400 / size,
            'm' => total % 3_600 / size,
            _ => total % 60,
        };
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    text
}

/// A zone by IANA name, or an offset such as `+02:00`.
pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    let unknown = || format!("'{name}' is no time zone; write 'Europe/Paris' or '+02:00'");
    let (sign, rest) = match name.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, name.strip_prefix('+').unwrap_or(name)),
    };
    if let Some((hours, minutes)) = rest.split_once(':')
        && let (Ok(hours), Ok(minutes)) = (hours.parse::<i32>(), minutes.parse::<i32>())
    {
        let seconds = hours.checked_mul(3600).zip(minutes.checked_mul(60)).and_then(|(h, m)| h.checked_add(m));
        let seconds = sign * seconds.filter(|seconds| *seconds >= 0).ok_or_else(unknown)?;
        return jiff::tz::Offset::from_seconds(seconds).map(TimeZone::fixed).map_err(|_| unknown());
    }
    TimeZone::get(name).map_err(|_| unknown())
}

fn zoned(args: &[Val]) -> Result<Zoned, String> {
    let value = plain(args, 0)?;
    let at = value.as_datetime().ok_or_else(|| format!("wants a datetime, not {}", value.kind()))?;
    let zone = if args.len() > 1 { zone(text(args, 1)?)? } else { TimeZone::UTC };
    Ok(at.to_zoned(zone))
}

fn date(args: &[Val], read: fn(&Zoned) -> i64) -> Result<Val, String> {
    Ok(Value::Int(read(&zoned(args)?)).into())
}

fn part(args: &[Val], of_date: fn(&Zoned) -> i64, of_span: fn(&SignedDuration) -> i64) -> Result<Val, String> {
    match plain(args, 0)? {
        Value::Duration(span) => Ok(Value::Int(of_span(span)).into()),
        _ => date(args, of_date),
    }
}
