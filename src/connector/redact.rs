//! Keeps secrets out of what people and the journal see: our own credentials when a service echoes them, and members of
//! an answer whose name says that they are secret.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value as Json;

use crate::config::Secret;

/// The most of an answer that people get to see, in bytes.
const PEOPLE: usize = 1 << 20;
const MASK: &str = "[redacted]";

/// Shorter secrets are not looked for: they would mask innocent text.
const SHORTEST: usize = 8;

/// The secrets of one connection in the forms in which they may come back.
#[derive(Clone)]
pub(super) struct Scrubber {
    needles: Vec<Secret>,
    /// The bytes with which one of them begins.
    begins: [bool; 256],
}

impl Default for Scrubber {
    fn default() -> Self {
        Scrubber { needles: Vec::new(), begins: [false; 256] }
    }
}

impl Scrubber {
    pub(super) fn add(&mut self, secret: &str) {
        if secret.len() < SHORTEST {
            return;
        }
        let json = Json::from(secret).to_string();
        let escaped = json.trim_matches('"').to_owned();
        let forms = [
            secret.to_owned(),
            STANDARD_NO_PAD.encode(secret),
            URL_SAFE_NO_PAD.encode(secret),
            secret.bytes().map(|b| format!("{b:02x}")).collect(),
            percent(secret),
            escaped,
        ];
        for form in forms {
            if let Some(first) = form.bytes().next() {
                self.begins[usize::from(first)] = true;
            }
            if !self.needles.iter().any(|known| known.expose() == form) {
                self.needles.push(Secret::new(form));
            }
        }
    }

    /// The body without our secrets; `token` is the one that this very request carried. One pass over the bytes, so that a
    /// byte that is no UTF-8 hides no secret beside it.
    pub(super) fn body(&self, body: Vec<u8>, token: Option<&str>) -> Vec<u8> {
        let token = token.filter(|token| token.len() >= SHORTEST);
        let mut begins = self.begins;
        if let Some(first) = token.and_then(|token| token.bytes().next()) {
            begins[usize::from(first)] = true;
        }
        // How long the secret is that begins at a place.
        let secret_at = |at: usize| {
            let rest = body.get(at..).filter(|rest| rest.first().is_some_and(|first| begins[usize::from(*first)]))?;
            let needles = self.needles.iter().map(Secret::expose).chain(token);
            needles.filter(|needle| rest.starts_with(needle.as_bytes())).map(str::len).max()
        };
        let Some(first) = (0..body.len()).find(|at| secret_at(*at).is_some()) else { return body };
        let mut out = Vec::with_capacity(body.len());
        let (mut at, mut clean) = (first, 0);
        while at < body.len() {
            match secret_at(at) {
                Some(len) => {
                    out.extend_from_slice(body.get(clean..at).unwrap_or_default());
                    out.extend_from_slice(MASK.as_bytes());
                    at += len;
                    clean = at;
                }
                None => at += 1,
            }
        }
        out.extend_from_slice(body.get(clean..).unwrap_or_default());
        out
    }

    pub(super) fn text(&self, text: String) -> String {
        // Secrets are text, so what is left of text is text.
        String::from_utf8(self.body(text.into_bytes(), None)).unwrap_or_default()
    }
}

fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The answer for people: JSON text, secret members masked, at most 1 MiB. What is longer becomes
/// `{"cut": true, "bytes": n, "text": "…"}` with its beginning. A body that was `parsed` before is known to be JSON and is
/// read again only where something in it may be secret.
pub(super) fn for_people(body: &[u8], parsed: bool) -> Vec<u8> {
    if parsed && body.len() <= PEOPLE && !names_secret(body) {
        return body.to_vec();
    }
    let text = String::from_utf8_lossy(body);
    let whole = match serde_json::from_str::<Json>(&text) {
        Ok(json) if holds_secret(&json) => mask(json).to_string().into_bytes(),
        Ok(_) => body.to_vec(),
        Err(_) => Json::from(text.as_ref()).to_string().into_bytes(),
    };
    if whole.len() <= PEOPLE {
        return whole;
    }
    // Escaping may double a text's length; half of the bound always fits.
    let head = String::from_utf8_lossy(whole.get(..PEOPLE / 2 - 128).unwrap_or_default()).into_owned();
    let cut = serde_json::json!({"cut": true, "bytes": body.len(), "text": head}).to_string().into_bytes();
    if cut.len() <= PEOPLE { cut } else { br#"{"cut": true}"#.to_vec() }
}

/// The ends of the names of secret members, in lower case.
const SECRET: [&str; 7] = ["password", "secret", "token", "authorization", "apikey", "api_key", "api-key"];

/// A quick look before the walk, which misses nothing: a member can be secret only where its word stands in the text, or
/// where letters of it are written as escapes. Each word is found by its rarest letter.
fn names_secret(text: &[u8]) -> bool {
    let word_at = |word: &str, letter: usize, at: usize| {
        let begin = at.checked_sub(letter);
        begin
            .and_then(|begin| text.get(begin..begin + word.len()))
            .is_some_and(|found| found.eq_ignore_ascii_case(word.as_bytes()))
    };
    text.iter().enumerate().any(|(at, byte)| match byte {
        b'w' | b'W' => word_at("password", 4, at),
        b'c' | b'C' => word_at("secret", 2, at),
        b'k' | b'K' => {
            let (token, one, two) = (word_at("token", 2, at), word_at("apikey", 3, at), word_at("api_key", 4, at));
            token || one || two || word_at("api-key", 4, at)
        }
        b'z' | b'Z' => word_at("authorization", 7, at),
        b'\\' => word_at("\\u00", 0, at),
        _ => false,
    })
}

fn mask(json: Json) -> Json {
    match json {
        Json::Object(members) => Json::Object(
            members
                .into_iter()
                .map(|(key, value)| {
                    let value = if is_secret(&key) && !value.is_null() { Json::from(MASK) } else { mask(value) };
                    (key, value)
                })
                .collect(),
        ),
        Json::Array(items) => Json::Array(items.into_iter().map(mask).collect()),
        other => other,
    }
}

fn holds_secret(json: &Json) -> bool {
    match json {
        Json::Object(members) => {
            members.iter().any(|(key, value)| (is_secret(key) && !value.is_null()) || holds_secret(value))
        }
        Json::Array(items) => items.iter().any(holds_secret),
        _ => false,
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET.iter().any(|word| key.ends_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_secrets_are_masked_in_every_form() {
        let secret = "s3cr3t/with \"quotes\" and more";
        let mut scrubber = Scrubber::default();
        scrubber.add(secret);
        for form in [secret.to_owned(), STANDARD_NO_PAD.encode(secret), percent(secret), Json::from(secret).to_string()]
        {
            let out = scrubber.text(format!("before {form} after"));
            assert!(out.contains(MASK) && !out.contains("s3cr3t") && out.ends_with("after"), "{out}");
        }
        let echoed = scrubber.body(b"Authorization: Bearer eyJ0eXAiOi".to_vec(), Some("eyJ0eXAiOi"));
        assert_eq!(String::from_utf8_lossy(&echoed), format!("Authorization: Bearer {MASK}"));
    }

    #[test]
    fn the_longest_secret_that_begins_at_a_place_is_masked_and_no_other_byte_changes() {
        let mut scrubber = Scrubber::default();
        scrubber.add("aaaaaaaa");
        scrubber.add("aaaaaaaabbbb");
        for (text, masked) in [
            ("xaaaaaaaabbbby", "x[redacted]y"),
            ("aaaaaaaaaaaaaaaa", "[redacted][redacted]"),
            ("aaaaaaaaaaaaaaaabbbb", "[redacted][redacted]"),
            ("aaaaaaa", "aaaaaaa"),
            ("", ""),
        ] {
            assert_eq!(scrubber.text(text.to_owned()), masked, "{text}");
        }
        assert_eq!(scrubber.body(b"a token of old".to_vec(), Some("token of")), b"a [redacted] old");
        assert_eq!(scrubber.body(b"a token".to_vec(), Some("token")), b"a token", "too short to be told from text");
    }

    #[test]
    fn the_quick_look_sees_every_word_in_any_case_and_place() {
        for word in SECRET {
            for text in [word.to_owned(), format!("{{\"x-{}\":1}}", word.to_uppercase()), format!("é{word}")] {
                assert!(names_secret(text.as_bytes()), "{text}");
            }
            let cut: String = word.chars().skip(1).collect();
            assert!(!names_secret(cut.as_bytes()) || SECRET.iter().any(|other| cut.contains(other)), "{cut}");
        }
        assert!(names_secret(br"\u0070assword") && !names_secret(br#"{"task":"wick","size":"k"}"#));
    }

    #[test]
    fn people_get_json_within_the_bound() {
        let masked = for_people(br#"{"a": 1, "access_token": "abc", "b": [{"Password": "x"}]}"#, true);
        let json: Json = serde_json::from_slice(&masked).unwrap();
        assert_eq!(json, serde_json::json!({"a": 1, "access_token": MASK, "b": [{"Password": MASK}]}));
        for huge in [format!("[\"{}\"]", "é".repeat(2 << 20)), "\"\\\u{1}<".repeat(1 << 19)] {
            let cut = for_people(huge.as_bytes(), true);
            assert!(cut.len() <= PEOPLE);
            let json: Json = serde_json::from_slice(&cut).unwrap();
            assert_eq!(json["cut"], true);
        }
        assert_eq!(for_people(br#"{"a": 1}"#, true), br#"{"a": 1}"#);
        assert_eq!(for_people(b"not json", false), b"\"not json\"");
    }

    #[test]
    fn what_is_odd_about_an_answer_hides_no_secret() {
        let mut scrubber = Scrubber::default();
        scrubber.add("s3cr3t-in-full");
        let out = scrubber.body(b"\xff s3cr3t-in-full".to_vec(), None);
        assert!(!String::from_utf8_lossy(&out).contains("s3cr3t"));
        assert_eq!(scrubber.body(vec![0xff, 1], None), [0xff, 1], "what holds none is left as it is");
        for body in [
            r#"{"Secret" : 12345}"#,
            r#"{"x-api_key": ["a"]}"#,
            r#"[{"TOKEN": {"v": "a"}}]"#,
            r#"{"\u0070assword": "a"}"#,
        ] {
            let masked = String::from_utf8(for_people(body.as_bytes(), true)).unwrap();
            assert!(masked.contains(MASK) && !masked.contains("12345") && !masked.contains("\"a\""), "{masked}");
        }
    }
}
