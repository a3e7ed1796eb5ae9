//! Keeps secrets out of what people and the journal see: our own credentials when a service echoes them, and members of
//! an answer whose name says that they are secret.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value as Json;

use crate::config::Secret;

/// The most of an answer that people get to see, in bytes.
const PEOPLE: usize = 1 << 20;
const MASK: &str = "[redacted]";

/// The secrets of one connection in the forms in which they may come back.
#[derive(Clone, Default)]
pub(super) struct Scrubber {
    needles: Vec<Secret>,
}

impl Scrubber {
    pub(super) fn add(&mut self, secret: &str) {
        // Shorter ones would mask innocent text.
        if secret.len() < 8 {
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
            if !self.needles.iter().any(|known| known.expose() == form) {
                self.needles.push(Secret::new(form));
            }
        }
    }

    /// The body without our secrets; `token` is the one that this very request carried.
    pub(super) fn body(&self, body: Vec<u8>, token: Option<&str>) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(&body) else { return body };
        let needles = self.needles.iter().map(Secret::expose).chain(token.filter(|token| token.len() >= 8));
        let mut out: Option<String> = None;
        for needle in needles {
            if out.as_deref().unwrap_or(text).contains(needle) {
                out = Some(out.as_deref().unwrap_or(text).replace(needle, MASK));
            }
        }
        match out {
            Some(out) => out.into_bytes(),
            None => body,
        }
    }

    pub(super) fn text(&self, text: String) -> String {
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
    let text = String::from_utf8_lossy(body);
    if parsed && body.len() <= PEOPLE && !names_secret(&text) {
        return body.to_vec();
    }
    let whole = match serde_json::from_str::<Json>(&text) {
        Ok(json) if names_secret(&text) => mask(json).to_string().into_bytes(),
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

/// A quick look before the walk: most answers name nothing secret.
fn names_secret(text: &str) -> bool {
    [
        "assword\"",
        "ecret\"",
        "oken\"",
        "uthorization\"",
        "PASSWORD\"",
        "SECRET\"",
        "TOKEN\"",
        "pikey\"",
        "piKey\"",
        "ApiKey\"",
    ]
    .iter()
    .any(|key| text.contains(key))
}

fn mask(json: Json) -> Json {
    match json {
        Json::Object(members) => Json::Object(
            members
                .into_iter()
                .map(|(key, value)| {
                    let value = if is_secret(&key) && value.is_string() { Json::from(MASK) } else { mask(value) };
                    (key, value)
                })
                .collect(),
        ),
        Json::Array(items) => Json::Array(items.into_iter().map(mask).collect()),
        other => other,
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "secret", "token", "authorization", "apikey"].iter().any(|word| key.ends_with(word))
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
}
