//! What happened around an alert, in the order of time: what was seen, what was found, what people and services did.

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::{Alert, evidence};

/// One moment of the story.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    pub at: Timestamp,
    /// `activity`, `evidence`, `alert`, `comment` or `machine_action`.
    pub what: &'static str,
    pub text: String,
}

impl Moment {
    pub fn json(&self) -> Json {
        json!({"at": self.at.to_string(), "what": self.what, "text": self.text})
    }
}

/// The story of an alert, with the actions that were taken on its devices: the oldest first. At the same instant what was
/// seen comes before what was made of it.
pub fn story(alert: Alert<'_>, machine_actions: &[Json]) -> Vec<Moment> {
    let mut moments = vec![];
    let mut add = |at: Option<Timestamp>, what: &'static str, text: String| {
        moments.extend(at.map(|at| Moment { at, what, text }));
    };
    let time = |name: &str| alert.text(name).and_then(|at| at.parse().ok());
    let (first, last) = (time("first_activity"), time("last_activity"));
    add(first, "activity", "the first activity".into());
    if last != first {
        add(last, "activity", "the last activity".into());
    }
    for fact in evidence::facts(alert) {
        let roles = if fact.roles.is_empty() { String::new() } else { format!(" ({})", fact.roles.join(", ")) };
        add(fact.created, "evidence", format!("{}{roles}", fact.words()));
    }
    add(alert.created(), "alert", format!("the alert is raised: {}", alert.text("title").unwrap_or("")));
    for comment in alert.comments() {
        add(comment.at, "comment", format!("{}: {}", comment.by.unwrap_or("somebody"), comment.text));
    }
    for action in machine_actions {
        let said = |name: &str| action.get(name).and_then(Json::as_str).unwrap_or("");
        let by =
            if said("requestor").is_empty() { String::new() } else { format!(", asked for by {}", said("requestor")) };
        let text = format!("{} is {}{by}", said("type"), said("status"));
        add(said("created").parse().ok(), "machine_action", text);
    }
    if let Some(closed) = alert.closed() {
        let verdict: Vec<&str> =
            ["classification", "determination"].iter().filter_map(|name| alert.text(name)).collect();
        let by = alert.closed_by().map(|by| format!(" by {by}")).unwrap_or_default();
        let verdict = if verdict.is_empty() { String::new() } else { format!(" as {}", verdict.join(", ")) };
        add(Some(closed), "alert", format!("the alert is closed{by}{verdict}"));
    }
    // Stable: what was pushed first stays first.
    moments.sort_by_key(|moment| moment.at);
    moments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_stand_in_the_order_of_time_whatever_service_tells_them() {
        let alert = json!({
            "id": "da1_1", "title": "T", "status": "Resolved", "classification": "FalsePositive",
            "created": "2026-11-20T07:10:00Z", "first_activity": "2026-11-20T07:00:00Z", "last_activity": "2026-11-20T07:05:00Z",
            "evidence": [
                {"type": "File", "roles": ["malicious"], "created": "2026-11-20T09:00:00Z", "raw": {"fileName": "late.exe"}},
                {"type": "Ip", "roles": [], "created": "2026-11-20T07:05:00Z", "raw": {"ipAddress": "10.0.0.1"}},
            ],
            "raw": {"resolvedTime": "2026-11-20T10:00:00Z", "comments": [
                {"comment": "mine", "createdBy": "ana", "createdTime": "2026-11-20T08:00:00Z"},
            ]},
        });
        let actions =
            [json!({"type": "Isolate", "status": "Succeeded", "requestor": "bo", "created": "2026-11-20T07:30:00Z"})];
        let story = story(Alert(&alert), &actions);
        let whats: Vec<_> = story.iter().map(|moment| moment.what).collect();
        assert_eq!(
            whats,
            ["activity", "activity", "evidence", "alert", "machine_action", "comment", "evidence", "alert"]
        );
        assert_eq!(story[4].text, "Isolate is Succeeded, asked for by bo");
        assert_eq!(story[6].text, "file name late.exe (malicious)");
        assert_eq!(story[7].text, "the alert is closed by ana as FalsePositive");
    }

    #[test]
    fn what_has_no_time_has_no_place() {
        assert_eq!(story(Alert(&json!({"id": "x", "evidence": [{"type": "Ip", "raw": {}}]})), &[]), []);
    }
}
