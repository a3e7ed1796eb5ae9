//! What we wrote to alerts and incidents: so that our own change, when a service lists it, is told from other people's.
//!
//! An edit is a reservation under a scope of its own, committed with the intent as the uses of limits are, and so known
//! before the call is sent and after a crash. It counts against no limit.

use jiff::Timestamp;

use crate::catalog::{Effect, ids};
use crate::engine::Call;
use crate::id::{digest16, hex};
use crate::journal::{Op, Reservation};
use crate::value::Value;

const SCOPE: &str = "edit/";

/// The fields of an entity that an action can set, under the names that the entity has for them too.
const FIELDS: [&str; 5] = ["status", "classification", "determination", "assigned_to", "tags"];

/// Fields that we set on one entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// `alert:ID` or `incident:ID`, in lower case.
    pub target: String,
    pub at: Timestamp,
    /// Name and mark of each.
    pub fields: Vec<(String, String)>,
}

/// The mark that every value has: set, and not known to what.
const ANY: &str = "*";

/// A short mark of a value, the same for equal values; enum words are equal in any case.
pub fn mark(value: &Value) -> String {
    let mut mark = hex(&digest16(&[&value.to_json().to_string().to_lowercase()]));
    mark.truncate(8);
    mark
}

impl Edit {
    /// Whether this set a field to the value with that mark.
    pub fn set(&self, field: &str, mark: &str) -> bool {
        self.fields.iter().any(|(name, set)| name == field && (set == mark || set == ANY))
    }
}

/// The name of an entity in edits. An alert has one name, whichever service was told to change it.
pub fn target(kind: &str, id: &str) -> String {
    let id =
        if kind == "alert" { ids::normal("graph_alert", id).unwrap_or_else(|_| id.to_owned()) } else { id.to_owned() };
    format!("{kind}:{}", id.to_lowercase())
}

/// Whether a reservation is an edit and so counts against no limit.
pub fn is_edit(scope: &str) -> bool {
    scope.starts_with(SCOPE)
}

/// What a call that is about to go sets on alerts or on an incident.
pub(super) fn of(call: &Call, key: &str, at: Timestamp) -> Vec<Op> {
    let fields = FIELDS.iter().filter_map(|name| Some(format!("{name}={}", mark(call.inputs.get(*name)?))));
    let mut fields: Vec<String> = fields.collect();
    // Closing is a setting of all three, in the other service's words.
    if call.action.name.contains(".close_") {
        fields = ["status", "classification", "determination"].map(|name| format!("{name}={ANY}")).to_vec();
    }
    if fields.is_empty() || call.effect() != Effect::Write {
        return vec![];
    }
    let key = format!("{key} {}", fields.join(","));
    let on = on(call).into_iter();
    on.map(|target| Op::Reserve { scope: format!("{SCOPE}{target}"), key: key.clone(), at }).collect()
}

fn on(call: &Call) -> Vec<String> {
    match &call.target {
        Some(on) if matches!(&*on.kind, "alert" | "incident") => vec![target(&on.kind, &on.id)],
        Some(_) => vec![],
        // One call for many alerts names them in a list.
        None => {
            let of_alerts = |form: &str| form.ends_with("alert");
            let lists = call.action.inputs.iter().filter(|param| param.id_form.as_deref().is_some_and(of_alerts));
            let ids = lists.filter_map(|param| call.inputs.get(&param.name)?.as_list()).flatten();
            ids.filter_map(|id| Some(target("alert", id.as_str()?))).collect()
        }
    }
}

/// The edit that a reservation stands for.
pub fn read(reservation: &Reservation) -> Option<Edit> {
    let target = reservation.scope.strip_prefix(SCOPE)?.to_owned();
    let (_, fields) = reservation.key.rsplit_once(' ')?;
    let fields = fields.split(',').filter_map(|field| field.split_once('='));
    let fields = fields.map(|(name, mark)| (name.to_owned(), mark.to_owned())).collect();
    Some(Edit { target, at: reservation.at, fields })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_comes_back_from_its_reservation() {
        let at: Timestamp = "2026-11-20T07:20:00Z".parse().unwrap();
        let key = format!("wf:run/steps[1] status={},tags={ANY}", mark(&Value::str("Resolved")));
        let edit = read(&Reservation { scope: format!("{SCOPE}{}", target("alert", "DA1_1")), key, at }).unwrap();
        assert_eq!((edit.target.as_str(), edit.at), ("alert:da1_1", at));
        assert!(edit.set("status", &mark(&Value::str("resolved"))) && edit.set("tags", "anything"));
        assert!(!edit.set("status", &mark(&Value::str("New"))) && !edit.set("severity", "anything"));
        let limit = Reservation { scope: "mde/write".into(), key: "wf:run/steps[1]".into(), at };
        assert!(read(&limit).is_none() && !is_edit(&limit.scope));
    }

    #[test]
    fn an_alert_has_one_name_in_both_services() {
        let id = "691f0c3e41a6d052df84d974";
        assert_eq!(target("alert", id), target("alert", &format!("ca{id}")));
    }
}
