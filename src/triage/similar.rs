//! Which alerts are alike: of the same kind, and what they have in common.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::Alert;

/// Whether two alerts are of the same kind: raised by the same rule, or, where one of them does not say which, with the
/// same title, by the same product.
pub fn same_kind(a: Alert<'_>, b: Alert<'_>) -> bool {
    if !same(&a.source().service, &b.source().service) {
        return false;
    }
    match (a.detector(), b.detector()) {
        (Some(a), Some(b)) => same(a, b),
        _ => a.text("title").zip(b.text("title")).is_some_and(|(a, b)| same(a, b)),
    }
}

/// What two alerts have in common, such as `device pc-1`, in order.
pub fn shared(a: Alert<'_>, b: Alert<'_>) -> Vec<String> {
    let (a, b) = (entities(a), entities(b));
    a.intersection(&b).map(|(kind, key)| format!("{kind} {key}")).collect()
}

/// Those of `others` that are of the same kind as `alert`, with what they share with it: who shares most comes first, then
/// the newest.
pub fn among<'a>(alert: Alert<'_>, others: &'a [Json]) -> Vec<(Alert<'a>, Vec<String>)> {
    let of_kind = others.iter().map(Alert).filter(|other| other.id() != alert.id() && same_kind(alert, *other));
    let mut found: Vec<_> = of_kind.map(|other| (other, shared(alert, other))).collect();
    found.sort_by(|(a, shared_a), (b, shared_b)| {
        shared_b.len().cmp(&shared_a.len()).then(b.created().cmp(&a.created())).then(a.id().cmp(b.id()))
    });
    found
}

type Key = (&'static str, String);

/// What identifies the entities of an alert.
fn entities(alert: Alert<'_>) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    let mut add = |kind: &'static str, item: &Json, names: &[&str]| {
        let text = |name: &&str| item.get(*name).and_then(Json::as_str).filter(|text| !text.is_empty());
        if let Some(key) = names.iter().find_map(text) {
            keys.insert((kind, key.to_lowercase()));
        }
    };
    alert.list("devices").for_each(|item| add("device", item, &["name", "id"]));
    alert.list("users").for_each(|item| add("user", item, &["upn", "id", "sid", "account_name"]));
    alert.list("files").for_each(|item| add("file", item, &["sha256", "sha1", "md5"]));
    alert.list("mailboxes").for_each(|item| add("mailbox", item, &["address", "upn"]));
    for (kind, name) in [("ip", "ips"), ("url", "urls")] {
        keys.extend(alert.list(name).filter_map(|item| Some((kind, item.as_str()?.to_lowercase()))));
    }
    keys
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn alert(id: &str, title: &str, detector: Option<&str>, device: &str, created: &str) -> Json {
        json!({"id": id, "source": "MicrosoftDefenderForEndpoint", "title": title, "created": created,
            "devices": [{"name": device}], "ips": ["10.0.0.1"], "raw": {"detectorId": detector}})
    }

    #[test]
    fn the_rule_decides_where_both_name_it_and_the_title_where_not() {
        let all = [
            alert("da1_1", "A", Some("d"), "pc-1", "2026-11-20T07:00:00Z"),
            alert("da2_1", "B", Some("D"), "pc-2", "2026-11-20T08:00:00Z"),
            alert("da3_1", "a", None, "PC-1", "2026-11-19T07:00:00Z"),
            alert("da4_1", "A", Some("other"), "pc-1", "2026-11-20T07:00:00Z"),
        ];
        let found = among(Alert(&all[0]), &all);
        let ids: Vec<_> = found.iter().map(|(alert, _)| alert.id()).collect();
        assert_eq!(ids, ["da3_1", "da2_1"], "who shares more comes first, whatever its age");
        assert_eq!(found[0].1, ["device pc-1", "ip 10.0.0.1"]);
    }

    #[test]
    fn another_product_s_alert_of_the_same_title_is_of_another_kind() {
        let a = alert("da1_1", "A", None, "pc-1", "2026-11-20T07:00:00Z");
        let mut b = alert("fa2", "A", None, "pc-1", "2026-11-20T07:00:00Z");
        b["source"] = json!("MicrosoftDefenderForOffice365");
        assert!(!same_kind(Alert(&a), Alert(&b)));
    }
}
