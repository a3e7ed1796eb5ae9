//! A Workflows webhook: accepts adaptive cards with a 202 and says nothing about what becomes of them.

use serde_json::Value as Json;

use super::call::{Answer, Call};
use super::state::{State, World};

/// The size beyond which Teams drops a message.
const MAX_CARD: usize = 28 * 1024;

pub(super) fn answer(world: &World, state: &mut State, call: &Call) -> Answer {
    let refuse = |message: &str| Answer::error(400, "TriggerInputSchemaMismatch", message);
    if call.method != "POST" {
        return Answer::error(405, "MethodNotAllowed", "a workflow is started by POST");
    }
    if call.body.len() > MAX_CARD {
        return Answer::error(413, "RequestEntityTooLarge", "the card is too big for Teams");
    }
    let Ok(body) = call.object() else { return refuse("the body is no JSON object") };
    let cards = body.get("attachments").and_then(Json::as_array).cloned().unwrap_or_default();
    let adaptive = |card: &Json| {
        card.get("contentType").and_then(Json::as_str) == Some("application/vnd.microsoft.card.adaptive")
            && card.pointer("/content/type").and_then(Json::as_str) == Some("AdaptiveCard")
    };
    if body.get("type").and_then(Json::as_str) != Some("message") || cards.is_empty() || !cards.iter().all(adaptive) {
        return refuse("the body must be a message with adaptive cards");
    }
    let mut text = String::new();
    collect(&Json::Array(cards), &mut text, 0);
    match world.alert_in(&text) {
        Some(index) => state.marks.alert(index, "teams.post"),
        None => state.marks.stray("teams.post"),
    }
    Answer::empty(202)
}

/// All text of the card, so that an id is found whatever element carries it.
fn collect(json: &Json, into: &mut String, depth: u8) {
    match json {
        Json::String(text) => {
            into.push_str(text);
            into.push('\n');
        }
        Json::Array(items) if depth < 32 => items.iter().for_each(|item| collect(item, into, depth + 1)),
        Json::Object(members) if depth < 32 => members.values().for_each(|item| collect(item, into, depth + 1)),
        _ => {}
    }
}
