//! Hunting answers: no query is executed. A query is recognised by the words in it, and the world says what it finds.

use jiff::SignedDuration;
use serde_json::{Value as Json, json};

use super::mde::time;
use super::state::{State, World};

/// Columns (name and type) and rows.
pub(super) type Answer = (Vec<(String, String)>, Vec<Json>);

/// The answer to a query: the latest that somebody set for it, else one of the built-in scenarios, else no rows.
pub(super) fn hunt(world: &World, state: &State, query: &str) -> Answer {
    if let Some(set) = state.hunts.iter().rev().find(|hunt| hunt.words.iter().all(|word| query.contains(word))) {
        let columns = set.schema.as_array().into_iter().flatten().filter_map(|column| {
            Some((column.get("name")?.as_str()?.to_owned(), column.get("type")?.as_str()?.to_owned()))
        });
        return (columns.collect(), set.rows.clone());
    }
    let lower = query.to_lowercase();
    if lower.contains("encodedcommand") || lower.contains("powershell") {
        return encoded_powershell(world);
    }
    if lower.contains("inboxrule") || lower.contains("autoreply") {
        return mailbox_tampering(world, &lower);
    }
    (columns(&[("Timestamp", "DateTime")]), Vec::new())
}

fn columns(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, ty)| ((*name).to_owned(), (*ty).to_owned())).collect()
}

/// Devices on which an encoded command line was seen, and the hash of the command.
pub(super) fn encoded_devices(world: &World) -> impl Iterator<Item = usize> + '_ {
    (0..world.plan.devices.len()).filter(|index| index % 4 == 1)
}

fn encoded_powershell(world: &World) -> Answer {
    let mut rows = Vec::new();
    for index in encoded_devices(world) {
        let Some(device) = world.plan.devices.get(index) else { continue };
        let hash = format!("{:064x}", super::seed::mix(world.plan.seed ^ (index as u64 % 3)));
        let at = world.plan.start.checked_sub(SignedDuration::from_mins(90)).unwrap_or(world.plan.start);
        let row = json!({
            "DeviceId": device.id, "DeviceName": device.name, "CommandHash": hash, "Timestamp": time(at)
        });
        // The same finding twice: one of them must be handled.
        if index % 3 == 0 {
            rows.push(row.clone());
        }
        rows.push(row);
    }
    let names =
        [("DeviceId", "String"), ("DeviceName", "String"), ("CommandHash", "String"), ("Timestamp", "DateTime")];
    (columns(&names), rows)
}

/// Changes to replies or inbox rules of the users whom the query names.
fn mailbox_tampering(world: &World, query: &str) -> Answer {
    let at = world.plan.start.checked_sub(SignedDuration::from_mins(20)).unwrap_or(world.plan.start);
    let rows = world
        .plan
        .users
        .iter()
        .filter(|user| user.tampered && (query.contains(&user.id) || query.contains(&user.upn)))
        .map(|_| {
            json!({
                "Timestamp": time(at), "ActionType": "Set-MailboxAutoReplyConfiguration",
                "IPAddress": "203.0.113.77"
            })
        })
        .collect();
    let names = [("Timestamp", "DateTime"), ("ActionType", "String"), ("IPAddress", "String")];
    (columns(&names), rows)
}
