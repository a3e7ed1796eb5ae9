//! From a polled entity to an event's key, time and `trigger.*`.

use jiff::Timestamp;

use crate::value::Value;

/// What an entity means to the triggers of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub id: String,
    pub occurred: Timestamp,
    pub payload: Value,
}

/// Reads an entity that the list action of a trigger type answered; `since` is the field that its watermark follows.
/// `None` where it lacks an id or a time: such an entity can't be told from another.
pub fn read(kind: &str, since: &str, entity: &Value) -> Option<Seen> {
    let id = id(entity)?;
    let occurred = entity.get(since)?.as_datetime()?;
    Some(Seen { payload: payload(kind, &id, entity), id, occurred })
}

/// The id of an entity, `None` where it has none.
pub fn id(entity: &Value) -> Option<String> {
    match entity.get("id")? {
        Value::String(text) if !text.is_empty() => Some(text.to_string()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

fn payload(kind: &str, id: &str, entity: &Value) -> Value {
    let noun = kind.split('.').nth(1).unwrap_or("");
    let from = |path: &[&str]| entity.at(path).cloned();
    let members: Vec<(&str, Option<Value>)> = match noun {
        "alert" => vec![
            ("alert_id", Some(Value::str(id))),
            ("machine_id", from(&["device", "id"])),
            ("incident_id", from(&["incident_id"])),
            ("policy", from(&["policy"])),
            ("alert", Some(entity.clone())),
        ],
        "incident" => vec![("incident_id", Some(Value::str(id))), ("incident", Some(entity.clone()))],
        _ => vec![
            ("detection_id", Some(Value::str(id))),
            ("user_id", from(&["user", "id"])),
            ("upn", from(&["user", "upn"])),
            ("event_type", from(&["event_type"])),
            ("level", from(&["level"])),
            ("detection", Some(entity.clone())),
        ],
    };
    Value::object(members.into_iter().filter_map(|(key, value)| Some((key, value?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_gives_the_ids_that_flows_read() {
        let created: Timestamp = "2026-11-20T07:20:00Z".parse().unwrap();
        let alert = Value::object([
            ("id", Value::str("da1_1")),
            ("created", Value::Datetime(created)),
            ("device", Value::object([("id", Value::str("m1"))])),
        ]);
        let seen = read("mde.alert.new", "created", &alert).unwrap();
        assert_eq!((seen.id.as_str(), seen.occurred), ("da1_1", created));
        assert_eq!(seen.payload.get("machine_id"), Some(&Value::str("m1")));
        assert_eq!(seen.payload.get("policy"), None);
        assert_eq!(read("mde.alert.new", "created", &Value::object([("id", Value::str("x"))])), None);
    }
}
