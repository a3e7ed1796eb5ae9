//! One event as several: each item of a list that the flow names starts a run of its own.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::offer::TriggerEnv;
use super::{Deployed, Event};
use crate::id::{digest16, hex};
use crate::value::Value;

/// Runs of one event, at most: more than this is no list of devices or users but a mistake.
const MOST: usize = 1_000;

/// The parts of an event for a flow: itself where the flow splits nothing. The inner error says why its list can't be
/// told, the outer one why the flow can't be asked.
pub(super) fn parts(deployed: &Deployed, event: &Event, now: Timestamp) -> Result<Result<Vec<Event>, String>, String> {
    let trigger = deployed.trigger()?;
    let Some(split) = &trigger.split else { return Ok(Ok(vec![event.clone()])) };
    let env = TriggerEnv { trigger: &event.payload, inputs: &event.inputs, now };
    let list = match split.eval(&env) {
        Ok(list) => list,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let Some(items) = list.as_list() else { return Ok(Err(format!("this is a {} and no list", list.kind()))) };
    if items.len() > MOST {
        return Ok(Err(format!("{} items are more than {MOST}", items.len())));
    }
    let mut keys = BTreeSet::new();
    // An item that stands there twice is one item.
    let parts = items.iter().filter_map(|item| {
        let key = format!("{}/{}", item_key(item), event.key);
        let mut payload = event.payload.as_map().cloned().unwrap_or_default();
        payload.insert("item".into(), item.clone());
        keys.insert(key.clone()).then(|| Event { key, payload: Value::map(payload), ..event.clone() })
    });
    Ok(Ok(parts.collect()))
}

/// What makes an item the same item when its event is read again: its id, itself where it is plain, else all of it.
fn item_key(item: &Value) -> String {
    match (item, item.get("id")) {
        (Value::String(text), _) if text.len() <= 100 => text.to_string(),
        (Value::Int(number), _) => number.to_string(),
        (_, Some(Value::String(id))) if id.len() <= 100 => id.to_string(),
        (_, Some(Value::Int(id))) => id.to_string(),
        _ => hex(&digest16(&[&item.to_json().to_string()])),
    }
}
