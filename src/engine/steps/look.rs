//! What a look-up finds: our own call by its tag, something that stands in the way, or nothing.
//!
//! Isolating an isolated or pending device can leave it isolated after a release, so an open or finished isolation means
//! `already`; and what a person released within a day is not isolated again without a person.

use std::sync::{Arc, LazyLock};

use jiff::{SignedDuration, Timestamp};

use crate::catalog::{Look, LookKind};
use crate::check::program::Keep;
use crate::value::Value;

/// A person's release counts for this long.
const RELEASED: SignedDuration = SignedDuration::from_hours(24);

#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// Our call took effect: this is its action.
    Ours(Value),
    /// The target is already as the step wants it.
    Already(Value),
    /// A person must decide, for this reason.
    Ask(String),
    Nothing,
}

/// The fields of the answer that matter here: those of a machine action, or the state.
pub(super) fn keep(look: &Look) -> Arc<Keep> {
    static MACHINE_ACTION: LazyLock<Arc<Keep>> = LazyLock::new(|| {
        let mut keep = Keep::Nothing;
        for field in ["id", "type", "status", "scope", "requestor", "comment", "external_id", "created", "machine_id"] {
            keep.add(&[Arc::from("value"), Arc::from(field)]);
        }
        Arc::new(keep)
    });
    let Some((field, _)) = &look.state else { return Arc::clone(&MACHINE_ACTION) };
    let mut keep = Keep::Nothing;
    keep.add(&[Arc::clone(field)]);
    Arc::new(keep)
}

/// `sent` says that a call of ours went out and was not answered.
pub(super) fn interpret(look: &Look, output: &Value, tag: &str, sent: bool, now: Timestamp) -> Found {
    if let Some((field, is)) = &look.state {
        return match (output.get(field) == Some(is), sent) {
            (true, true) => Found::Ours(Value::empty()),
            (true, false) => Found::Already(Value::empty()),
            (false, _) => Found::Nothing,
        };
    }
    let actions = output.get("value").and_then(Value::as_list).unwrap_or_default();
    if let Some(ours) = actions.iter().find(|action| carries(action, tag)) {
        return Found::Ours(ours.clone());
    }
    match look.kind {
        LookKind::MachineAction | LookKind::State => Found::Nothing,
        LookKind::Isolation => isolation(actions, now),
        LookKind::Release => match latest(actions) {
            Some(action) if text(action, "type") == "Unisolate" => Found::Already(action.clone()),
            _ => Found::Nothing,
        },
    }
}

fn isolation(actions: &[Value], now: Timestamp) -> Found {
    let Some(action) = latest(actions) else { return Found::Nothing };
    if text(action, "type") == "Isolate" {
        return Found::Already(action.clone());
    }
    let ours = text(action, "comment").contains("[wf:");
    let recent = action.get("created").and_then(Value::as_datetime).is_none_or(|at| now.duration_since(at) < RELEASED);
    if recent && !ours {
        let who = match text(action, "requestor") {
            "" => "a person",
            who => who,
        };
        return Found::Ask(format!("{who} released this device from isolation within the last 24 hours"));
    }
    Found::Nothing
}

/// The latest isolation or release that is open or took effect. Failed, cancelled and timed-out ones changed nothing.
/// Of two with the same time the one that comes later in the list of the service, newest last, does not matter: an
/// isolation wins, since isolating twice is the worse mistake.
fn latest(actions: &[Value]) -> Option<&Value> {
    actions
        .iter()
        .filter(|action| matches!(text(action, "type"), "Isolate" | "Unisolate"))
        .filter(|action| matches!(text(action, "status"), "Pending" | "InProgress" | "Succeeded"))
        .max_by_key(|action| (action.get("created").and_then(Value::as_datetime), text(action, "type") == "Isolate"))
}

fn carries(action: &Value, tag: &str) -> bool {
    text(action, "external_id") == tag || text(action, "comment").contains(&format!("[wf:{tag}]"))
}

fn text<'a>(action: &'a Value, field: &str) -> &'a str {
    action.get(field).and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(kind: &str, status: &str, created: &str, comment: &str) -> Value {
        Value::object([
            ("type", Value::str(kind)),
            ("status", Value::str(status)),
            ("created", Value::Datetime(created.parse().unwrap())),
            ("comment", Value::str(comment)),
            ("requestor", Value::str("ana@contoso.example")),
        ])
    }

    fn look(actions: Vec<Value>) -> Found {
        let output = Value::object([("value", Value::list(actions))]);
        let action = "mde.list_machine_actions".into();
        let spec = Look { kind: LookKind::Isolation, action, with: vec![], state: None };
        interpret(&spec, &output, "0123456789abcdef", false, "2026-11-20T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn our_own_is_adopted_in_any_status() {
        let ours = action("Isolate", "Failed", "2026-11-20T11:00:00Z", "x [wf:0123456789abcdef]");
        assert_eq!(look(vec![ours.clone()]), Found::Ours(ours));
    }

    #[test]
    fn an_isolated_or_pending_device_is_already_isolated() {
        for status in ["Pending", "InProgress", "Succeeded"] {
            assert!(matches!(look(vec![action("Isolate", status, "2026-11-20T11:00:00Z", "")]), Found::Already(_)));
        }
        assert_eq!(look(vec![action("Isolate", "Failed", "2026-11-20T11:00:00Z", "")]), Found::Nothing);
    }

    #[test]
    fn a_state_that_is_set_is_ours_where_we_asked_for_it() {
        let state = Some((Arc::from("enabled"), Value::Bool(false)));
        let spec = Look { kind: LookKind::State, action: "entra.get_user".into(), with: vec![], state };
        let found = |enabled, sent| {
            let output = Value::object([("enabled", Value::Bool(enabled))]);
            interpret(&spec, &output, "0123456789abcdef", sent, "2026-11-20T12:00:00Z".parse().unwrap())
        };
        assert_eq!(found(true, false), Found::Nothing);
        assert_eq!(found(true, true), Found::Nothing);
        assert_eq!(found(false, false), Found::Already(Value::empty()));
        assert_eq!(found(false, true), Found::Ours(Value::empty()));
    }

    #[test]
    fn a_release_by_a_person_holds_for_a_day() {
        let isolate = action("Isolate", "Succeeded", "2026-11-18T00:00:00Z", "");
        let recent = action("Unisolate", "Succeeded", "2026-11-20T00:00:00Z", "user is back");
        let old = action("Unisolate", "Succeeded", "2026-11-19T00:00:00Z", "user is back");
        let ours = action("Unisolate", "Succeeded", "2026-11-20T00:00:00Z", "undo [wf:ffffffffffffffff]");
        assert!(matches!(look(vec![isolate.clone(), recent]), Found::Ask(_)));
        assert_eq!(look(vec![isolate.clone(), old]), Found::Nothing);
        assert_eq!(look(vec![isolate, ours]), Found::Nothing);
    }
}
