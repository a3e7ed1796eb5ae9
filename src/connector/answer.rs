//! What a service's answer means: refused, or unknown; how long to wait; and its own words, bounded and cleaned.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value as Json;

use super::wire::unknown;
use crate::engine::Outcome;

/// The longest message of a service that we keep.
const MESSAGE: usize = 2048;
/// A wait that a service asks for is at least this and at most `LONGEST`, whatever it says.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);

/// An answer that is not 2xx. A 4xx did nothing, as did a redirect that we don't follow; a 5xx may have acted.
pub(super) fn failed(status: u16, retry_after: Option<&str>, body: &[u8], now: Timestamp) -> Outcome {
    let said = said(body);
    let message = |fallback: &str| said.message.clone().unwrap_or_else(|| fallback.to_owned());
    let code = said.code.as_deref().map_or_else(|| format!("http_{status}"), foreign);
    match status {
        500.. => unknown(status, &code, message("the service failed and may have acted")),
        429 => Outcome::Refused {
            status,
            code: "throttled".into(),
            message: message("too many requests"),
            transient: true,
            retry_after_ms: wait(retry_after, now).map(millis),
        },
        300..=399 => Outcome::Refused {
            status,
            code: "redirect".into(),
            message: "the service answered with a redirect, which is never followed; correct base_url".into(),
            transient: false,
            retry_after_ms: None,
        },
        _ => Outcome::Refused {
            status,
            code,
            message: message("the service refused the request"),
            // A 401 is about who we are, which can be mended, and not about what was asked.
            transient: matches!(status, 401 | 408 | 425),
            retry_after_ms: None,
        },
    }
}

/// Codes that we give ourselves, and on which flows and the engine decide.
#[rustfmt::skip]
const OURS: [&str; 40] = [
    "aborted", "address_refused", "answer_too_large", "bad_connection", "bad_input", "bad_request", "cancelled", "connect",
    "credentials", "denied", "dns", "endless_list", "expired", "foreign_link", "held", "internal", "invalid_answer", "limit",
    "network", "no_action", "no_base_url", "no_connection", "no_permit", "not_a_read", "not_supported", "protected",
    "redirect", "refuse", "refused", "reset", "restart", "shadow", "smtp", "throttled", "timeout", "tls", "token",
    "truncated", "unavailable", "user_not_found",
];

/// A service's own code, which must never pass for one of ours.
fn foreign(code: &str) -> String {
    let ours = OURS.iter().any(|known| known.eq_ignore_ascii_case(code.trim()));
    if ours { format!("service:{}", code.trim()) } else { code.to_owned() }
}

/// What enters the journal: no code and no message without bound, none with control characters.
pub(super) fn bounded(outcome: Outcome) -> Outcome {
    let (short, long) = (|code: String| clean(&code, 128), |message: String| clean(&message, MESSAGE));
    match outcome {
        Outcome::Refused { status, code, message, transient, retry_after_ms } => {
            Outcome::Refused { status, code: short(code), message: long(message), transient, retry_after_ms }
        }
        Outcome::NotSent { code, message, transient } => {
            Outcome::NotSent { code: short(code), message: long(message), transient }
        }
        Outcome::Unknown { status, code, message } => {
            Outcome::Unknown { status, code: short(code), message: long(message) }
        }
        done @ Outcome::Done { .. } => done,
    }
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Reads `Retry-After`, in seconds or as a date, and bounds it. `None` where there is none that can be read.
pub(super) fn wait(header: Option<&str>, now: Timestamp) -> Option<Duration> {
    let text = header?.trim();
    let seconds = match text.parse::<f64>() {
        Ok(seconds) => (!seconds.is_nan()).then_some(seconds)?,
        Err(_) => {
            let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            date.duration_since(now).as_secs_f64()
        }
    };
    Some(Duration::from_secs_f64(seconds.clamp(SHORTEST.as_secs_f64(), LONGEST.as_secs_f64())))
}

/// A service's own code and message.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Said {
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
}

/// Finds code and message in the shapes that these services use: `{"error": {"code", "message"}}` (Graph, Defender for
/// Endpoint), `{"error", "error_description"}` (Entra), `{"message"}` or `{"detail"}` (Cloud Apps), else plain text.
pub(super) fn said(body: &[u8]) -> Said {
    let head = body.get(..body.len().min(64 << 10)).unwrap_or_default();
    let Ok(json) = serde_json::from_slice::<Json>(head) else {
        let text = String::from_utf8_lossy(head);
        let text = text.trim();
        let markup = text.starts_with('<');
        return Said { code: None, message: (!text.is_empty() && !markup).then(|| clean(text, MESSAGE)) };
    };
    let text = |json: &Json, keys: &[&str]| {
        let found = keys.iter().find_map(|key| json.get(key)?.as_str());
        found.filter(|text| !text.is_empty()).map(|text| clean(text, MESSAGE))
    };
    let error = json.get("error").or_else(|| json.get("Error")).unwrap_or(&json);
    let code = match error {
        Json::String(code) => Some(clean(code, 100)),
        _ => text(error, &["code", "Code"]).map(|code| clean(&code, 100)),
    };
    let message = innermost(error)
        .and_then(|inner| text(inner, &["message"]))
        .or_else(|| text(error, &["message", "Message"]))
        .or_else(|| text(&json, &["error_description", "message", "Message", "detail", "title"]));
    Said { code, message }
}

/// Azure Monitor says what is wrong with a query in the last of a chain of inner errors. Graph's have no message.
fn innermost(error: &Json) -> Option<&Json> {
    let inner = |error: &Json| error.get("innererror").is_some_and(|it| it.get("message").is_some_and(Json::is_string));
    let mut found = error;
    let mut depth = 0;
    while depth < 8 && inner(found) {
        found = found.get("innererror")?;
        depth += 1;
    }
    (depth > 0).then_some(found)
}

/// Text for one line of a message: control characters become spaces, and it is cut on a character at `max` bytes.
pub(super) fn clean(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        if out.len() + c.len_utf8() > max.saturating_sub('…'.len_utf8()) {
            out.push('…');
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(header: &str) -> Option<f64> {
        let now = "2026-11-20T08:00:00Z".parse().unwrap();
        wait(Some(header), now).map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn retry_after_is_read_in_every_form_and_bounded() {
        for (header, expected) in [
            ("7", Some(7.0)),
            (" 1.5 ", Some(1.5)),
            ("0", Some(1.0)),
            ("-5", Some(1.0)),
            ("99999999", Some(3600.0)),
            ("1e400", Some(3600.0)),
            ("NaN", None),
            ("soon", None),
            ("Fri, 20 Nov 2026 08:00:30 GMT", Some(30.0)),
            ("Fri, 20 Nov 2026 07:00:00 GMT", Some(1.0)),
            ("Sat, 20 Nov 2027 07:00:00 GMT", Some(3600.0)),
        ] {
            assert_eq!(seconds(header), expected, "{header}");
        }
        assert_eq!(wait(None, Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn codes_and_messages_are_found_in_every_shape() {
        for (body, code, message) in [
            (
                r#"{"error":{"code":"ResourceNotFound","message":"Machine 1"}}"#,
                Some("ResourceNotFound"),
                Some("Machine 1"),
            ),
            (r#"{"error":"invalid_client","error_description":"bad"}"#, Some("invalid_client"), Some("bad")),
            (r#"{"detail":"not found"}"#, None, Some("not found")),
            ("<html><title>502</title></html>", None, None),
            ("plain\nwords", None, Some("plain words")),
            ("", None, None),
        ] {
            let found = said(body.as_bytes());
            assert_eq!((found.code.as_deref(), found.message.as_deref()), (code, message), "{body}");
        }
        let long = "é".repeat(5000);
        assert!(said(long.as_bytes()).message.unwrap().len() <= MESSAGE);
    }

    #[test]
    fn statuses_say_what_was_done() {
        let now = Timestamp::UNIX_EPOCH;
        let refused = |status, transient| matches!(failed(status, None, b"", now), Outcome::Refused { transient: t, .. } if t == transient);
        assert!(refused(429, true) && refused(408, true));
        assert!(refused(400, false) && refused(404, false) && refused(302, false));
        for status in [500, 502, 503, 504, 599] {
            assert!(matches!(failed(status, Some("1"), b"{", now), Outcome::Unknown { .. }));
        }
        for own in ["restart", "Timeout", " internal", "throttled", "no_permit"] {
            let body = format!(r#"{{"error":{{"code":"{own}","message":"m"}}}}"#);
            for status in [400, 500] {
                let said = failed(status, None, body.as_bytes(), now);
                let (Outcome::Refused { code, .. } | Outcome::Unknown { code, .. }) = said else { panic!() };
                assert_eq!(code, format!("service:{}", own.trim()));
            }
        }
        let Outcome::Unknown { message, .. } = bounded(unknown(0, "x", "a\u{1b}[0m\n".repeat(9000))) else { panic!() };
        assert!(message.len() <= MESSAGE && !message.contains(char::is_control));
        let Outcome::Refused { retry_after_ms, .. } = failed(429, Some("2"), b"", now) else { panic!() };
        assert_eq!(retry_after_ms, Some(2000));
    }
}
