//! Posts to Teams through a Workflows webhook: the adaptive card, and what its odd answers mean.
//!
//! A 2xx says that the workflow took it, not that anyone saw it. The old connectors answer 200 and put the 429 in the
//! text. Escaping of what is interpolated into text happened in the template; here text never becomes structure.

use serde_json::{Value as Json, json};

use super::answer;
use crate::value::{Map, Value};

/// Teams drops larger messages (28 KB with its own wrapping); the contract says 20 KB.
const LARGEST: usize = 20_000;
const NOTE: &str = "… (cut: the whole text is on the run's page)";
/// A card shows no more rows than a person reads.
const FACTS: usize = 30;

/// The message for the webhook, under 20 KB. `Err` says which input is wrong.
pub(super) fn message(inputs: &Map) -> Result<Json, String> {
    if let Some(file) = inputs.get("card_file") {
        let card: Json = match file.as_str() {
            Some(text) => serde_json::from_str(text)
                .map_err(|error| format!("card_file: the rendered card is no JSON: {error}"))?,
            // A card that was written as YAML has its shape from the check.
            None => file.to_json(),
        };
        if card.get("type").and_then(Json::as_str) != Some("AdaptiveCard") {
            return Err("card_file: the rendered card has no \"type\": \"AdaptiveCard\"".into());
        }
        let message = wrap(card);
        let size = message.to_string().len();
        if size >= LARGEST {
            return Err(format!("card_file: the rendered card has {size} bytes; Teams takes less than {LARGEST}"));
        }
        return Ok(message);
    }
    let title = visible(inputs.get("title").and_then(Value::as_str).unwrap_or(""), 500);
    let text = inputs.get("text").and_then(Value::as_str).unwrap_or("");
    let facts = facts(inputs);
    let link = link(inputs)?;
    // Escapes make the size of the JSON differ from that of the text, so the text shrinks until the whole fits.
    let mut room = LARGEST / 2;
    loop {
        let message = wrap(card(&title, &visible(text, room), &facts, link.as_deref()));
        if message.to_string().len() < LARGEST || room == 0 {
            return Ok(message);
        }
        room /= 2;
    }
}

fn card(title: &str, text: &str, facts: &[(String, String)], link: Option<&str>) -> Json {
    let mut body = Vec::new();
    if !title.is_empty() {
        body.push(json!({"type": "TextBlock", "text": title, "weight": "Bolder", "size": "Medium", "wrap": true}));
    }
    if !text.is_empty() {
        body.push(json!({"type": "TextBlock", "text": text, "wrap": true}));
    }
    if !facts.is_empty() {
        let rows: Vec<_> = facts.iter().map(|(title, value)| json!({"title": title, "value": value})).collect();
        body.push(json!({"type": "FactSet", "facts": rows}));
    }
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
        "msteams": {"width": "Full"},
    });
    if let (Some(url), Some(card)) = (link, card.as_object_mut()) {
        card.insert("actions".into(), json!([{"type": "Action.OpenUrl", "title": "Open", "url": url}]));
    }
    card
}

fn wrap(card: Json) -> Json {
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": card,
        }],
    })
}

fn facts(inputs: &Map) -> Vec<(String, String)> {
    let Some(members) = inputs.get("facts").and_then(Value::as_map) else { return Vec::new() };
    let plain = |value: &Value| match value {
        Value::String(text) => text.to_string(),
        other => other.to_json().to_string(),
    };
    members.iter().take(FACTS).map(|(key, value)| (visible(key, 60), visible(&plain(value), 250))).collect()
}

/// Only a web address may become a button.
fn link(inputs: &Map) -> Result<Option<String>, String> {
    let Some(text) = inputs.get("link").and_then(Value::as_str).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match reqwest::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "https" | "http") && text.len() <= 2000 => Ok(Some(url.into())),
        _ => Err(format!("link: {:?} is no https address", answer::clean(text, 120))),
    }
}

/// Text cut at `max` bytes with a note, without the characters that hide or reorder what a person reads.
fn visible(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        if out.len() + c.len_utf8() > max {
            out.push_str(NOTE);
            break;
        }
        match c {
            '\u{200b}'..='\u{200c}'
            | '\u{200e}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}' => {}
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A throttled post that says so inside a 200.
pub(super) fn is_throttled(body: &[u8]) -> bool {
    let head = body.get(..body.len().min(4096)).unwrap_or_default();
    String::from_utf8_lossy(head).contains("HTTP error 429")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn inputs(members: &[(&str, &str)]) -> Map {
        members.iter().map(|(key, text)| (Arc::from(*key), Value::str(text))).collect()
    }

    #[test]
    fn a_long_text_is_cut_under_the_limit_and_says_so() {
        for text in ["é\"\\\u{1}".repeat(20_000), "x".repeat(100_000), "💥".repeat(30_000)] {
            let message = message(&inputs(&[("title", "t"), ("text", &text)])).unwrap().to_string();
            assert!(message.len() < LARGEST && message.contains("cut: the whole text"), "{}", message.len());
        }
    }

    #[test]
    fn text_never_becomes_structure() {
        let hostile = "x\",\"type\":\"Image\",\"url\":\"http://evil\u{202e}\u{200b}";
        let message = message(&inputs(&[("title", hostile), ("text", "<at>everyone</at>")])).unwrap();
        let card = &message["attachments"][0]["content"];
        assert_eq!(card["body"].as_array().unwrap().len(), 2);
        assert!(card.get("msteams").unwrap().get("entities").is_none(), "no mention without an entity");
        assert!(!card["body"][0]["text"].as_str().unwrap().contains('\u{202e}'));
    }

    #[test]
    fn only_web_addresses_are_buttons() {
        assert!(message(&inputs(&[("title", "t"), ("link", "javascript:alert(1)")])).is_err());
        assert!(message(&inputs(&[("title", "t"), ("link", "file:///etc/passwd")])).is_err());
        let good = message(&inputs(&[("title", "t"), ("link", "https://security.microsoft.com/alerts/da1")])).unwrap();
        assert_eq!(good["attachments"][0]["content"]["actions"][0]["type"], "Action.OpenUrl");
    }

    #[test]
    fn a_card_file_is_a_card() {
        assert!(message(&inputs(&[("card_file", "{")])).is_err());
        assert!(message(&inputs(&[("card_file", r#"{"type":"Container"}"#)])).is_err());
        assert!(message(&inputs(&[("card_file", r#"{"type":"AdaptiveCard","body":[]}"#)])).is_ok());
    }

    #[test]
    fn a_card_with_a_shape_of_its_own_is_bounded_like_text() {
        let card = |text: &str| {
            let block =
                Value::map(Map::from([("type".into(), Value::str("TextBlock")), ("text".into(), Value::str(text))]));
            let card = [("type", Value::str("AdaptiveCard")), ("body", Value::list(vec![block]))];
            let card = Value::map(card.into_iter().map(|(key, value)| (Arc::from(key), value)).collect());
            message(&Map::from([("card_file".into(), card)]))
        };
        let hostile = "x\"},{\"type\":\"Image\"";
        let made = card(hostile).unwrap();
        assert_eq!(made["attachments"][0]["content"]["body"], json!([{"type": "TextBlock", "text": hostile}]));
        let refused = card(&"x".repeat(LARGEST)).unwrap_err();
        assert!(refused.contains("Teams takes less than"), "{refused}");
        let none = Map::from([("card_file".into(), Value::map(Map::new()))]);
        assert!(message(&none).unwrap_err().contains("AdaptiveCard"));
    }
}
