//! Routes of the catalogue that have no handler of their own: each is answered with a sample of its output type, so that
//! an action that was only declared can be tried at once.

use serde_json::{Map, Value as Json, json};

use super::auth::Service;
use super::call::{Answer, Call};
use crate::catalog::{Action, Catalog, ConnectionKind, Mapping, Paging, Type};

/// The sample for the action whose method and path fit, the one with the fewest parameters where several do; `None` where
/// no action does.
pub(super) fn answer(catalog: &Catalog, call: &Call, service: Service, rest: &[&str]) -> Option<Answer> {
    let kind = match service {
        Service::Mde => ConnectionKind::Mde,
        Service::Graph => ConnectionKind::Graph,
        Service::CloudApps => ConnectionKind::CloudApps,
        Service::Azure => ConnectionKind::Azure,
        Service::Logs => ConnectionKind::LogAnalytics,
    };
    let fitting = catalog.actions.values().filter(|action| {
        action.kind == kind
            && action.method.as_deref() == Some(call.method.as_str())
            && action.path.as_deref().is_some_and(|path| fits(path, rest))
    });
    let action = fitting.min_by_key(|action| action.path.as_deref().map_or(0, |path| path.matches('{').count()))?;
    Some(sample_of(action))
}

/// Whether the end of a declared path (`/api/alerts/{alert_id}`) is this path; what comes before it is the version.
fn fits(declared: &str, rest: &[&str]) -> bool {
    let parts: Vec<&str> = declared.split('/').filter(|part| !part.is_empty()).collect();
    let version = parts.iter().take_while(|part| **part == "api" || **part == "v1" || **part == "v1.0").count();
    let parts = parts.get(version..).unwrap_or_default();
    // A parameter may fill a segment, or stand within one: `…Link(index={index})`.
    let same = |want: &str, have: &str| match want.split_once('{') {
        Some((before, _)) => have.starts_with(before),
        None => want == have,
    };
    parts.len() == rest.len() && parts.iter().zip(rest).all(|(want, have)| same(want, have))
}

fn sample_of(action: &Action) -> Answer {
    if action.mapping == Mapping::Entity("accepted".into()) {
        return Answer::empty(204);
    }
    let body = sample(&action.output, 0);
    let status = if action.method.as_deref() == Some("GET") { 200 } else { 201 };
    match action.paging {
        // A page is `value` in our form; this service calls it `data`.
        Paging::HasNext => Answer::new(200, json!({"data": body.get("value"), "hasNext": false})),
        _ => Answer::new(status, body),
    }
}

/// One value of a type; the same one each time.
fn sample(ty: &Type, depth: u8) -> Json {
    if depth > 6 {
        return Json::Null;
    }
    match ty {
        Type::Bool => json!(true),
        Type::Int => json!(1),
        Type::Number => json!(1.5),
        Type::Any | Type::String => json!("sample"),
        Type::Datetime => json!("2026-11-20T07:20:00Z"),
        Type::Duration => json!("PT1H"),
        Type::Enum(words) => json!(words.values.first().map(|word| word.to_string())),
        Type::List(item) => json!([sample(item, depth + 1)]),
        Type::Map(value) => json!({"sample": sample(value, depth + 1)}),
        Type::Object(object) => Json::Object(
            object
                .fields
                .iter()
                .map(|(key, field)| (key.to_string(), sample(&field.ty, depth + 1)))
                .collect::<Map<_, _>>(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fit_below_their_version_and_not_beside_it() {
        assert!(fits("/api/alerts/{alert_id}", &["alerts", "da1"]));
        assert!(fits("/api/v1/alerts/{id}/", &["alerts", "691f"]));
        assert!(!fits("/api/alerts/{alert_id}", &["alerts"]));
        assert!(!fits("/v1.0/users/{user}", &["groups", "x"]));
    }

    #[test]
    fn a_declared_action_without_a_handler_gets_a_sample_of_its_output() {
        let mut catalog = Catalog::builtin().unwrap();
        let mut action = Action::clone(catalog.action("mde.get_machine").unwrap());
        action.path = Some("/api/machines/{machine_id}/weather".into());
        action.output =
            Type::object("Weather", [("rain", Type::Bool, false), ("degrees", Type::list(Type::Int), true)]);
        catalog.actions.insert("mde.get_weather".into(), action.into());
        let call = Call { method: "GET".into(), ..Call::default() };
        let answer = answer(&catalog, &call, Service::Mde, &["machines", "x", "weather"]).unwrap();
        assert_eq!(answer.body, Some(json!({"rain": true, "degrees": [1]})));
    }
}
