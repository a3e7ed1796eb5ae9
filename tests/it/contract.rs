//! What we send and what comes back, against the OpenAPI facts in `tests/contract`: each documented example becomes a request
//! whose path, query names and body fit the operation; each sample answer fits its schema and decodes without a note.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value as Json, json};
use watchfloor::catalog::{Action, Catalog, decode};
use watchfloor::connector::request::{self, Request};
use watchfloor::value::Map;

/// Documented, but not part of the facts that were copied.
const NOT_IN_THE_FACTS: [&str; 9] = [
    "xdr.comment_incident",
    "xdr.move_alerts",
    "xdr.merge_incidents",
    "entra.get_manager",
    "entra.list_user_groups",
    "exchange.list_inbox_rules",
    "exchange.disable_inbox_rule",
    "exchange.enable_inbox_rule",
    "mde.find_machines_by_ip",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract")
}

/// OpenAPI documents by the prefix of our paths below which they hold.
pub(crate) fn facts() -> BTreeMap<&'static str, Json> {
    [("/api", "mde-openapi.json"), ("/v1.0", "graph-openapi.json")]
        .into_iter()
        .map(|(prefix, file)| {
            let mut document = serde_json::from_slice(&std::fs::read(folder().join(file)).unwrap()).unwrap();
            null_as_a_type(&mut document);
            (prefix, document)
        })
        .collect()
}

/// OpenAPI 3.0 says `nullable`, JSON Schema says so in `type` and `enum`.
fn null_as_a_type(json: &mut Json) {
    if let Json::Object(members) = json {
        if members.get("nullable") == Some(&Json::Bool(true)) {
            if let Some(Json::String(name)) = members.get("type").cloned() {
                members.insert("type".into(), json!([name, "null"]));
            }
            if let Some(Json::Array(words)) = members.get_mut("enum") {
                words.push(Json::Null);
            }
        }
        members.values_mut().for_each(null_as_a_type);
    } else if let Json::Array(items) = json {
        items.iter_mut().for_each(null_as_a_type);
    }
}

pub(crate) fn document_of<'a>(
    facts: &'a BTreeMap<&'static str, Json>,
    action: &Action,
) -> Option<(&'static str, &'a Json)> {
    let prefix = match action.connector() {
        "mde" => "/api",
        "xdr" | "entra" | "exchange" => "/v1.0",
        _ => return None,
    };
    Some((prefix, &facts[prefix]))
}

pub(crate) fn example(action: &Action) -> Map {
    let read: BTreeMap<String, Json> = serde_yaml::from_str(&action.example).unwrap();
    read.iter()
        .map(|(key, json)| (Arc::from(key.as_str()), decode::decode(&action.input(key).unwrap().ty, json).unwrap()))
        .collect()
}

pub(crate) fn operation<'a>(document: &'a Json, prefix: &str, request: &Request) -> Option<&'a Json> {
    let (_, methods) = template(document, prefix, request)?;
    methods.get(request.method.to_lowercase())
}

/// The documented path that a request's fits, and what is documented for it.
fn template<'a>(document: &'a Json, prefix: &str, request: &Request) -> Option<(&'a String, &'a Json)> {
    let path = request.path.split('?').next()?.strip_prefix(prefix)?;
    // A parameter may fill a segment, or stand within one: `…Link(index={index})`.
    let same = |one: &str, other: &str| match other.split_once('{') {
        Some((before, rest)) => {
            let after = rest.split_once('}').map_or("", |(_, after)| after);
            let whole = before.is_empty() && after.is_empty();
            one.starts_with(before) && one.ends_with(after) && !(whole && one.contains('('))
        }
        None => one == other,
    };
    let fits = |template: &str| {
        let (ours, theirs): (Vec<_>, Vec<_>) = (path.split('/').collect(), template.split('/').collect());
        ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(one, other)| same(one, other))
    };
    let paths = document["paths"].as_object()?;
    let exact = paths.iter().find(|(template, _)| *template == path);
    exact.or_else(|| paths.iter().find(|(template, _)| fits(template)))
}

pub(crate) fn resolved<'a>(document: &'a Json, json: &'a Json) -> &'a Json {
    match json.get("$ref").and_then(Json::as_str) {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => json,
    }
}

pub(crate) fn faults(document: &Json, schema: &Json, instance: &Json) -> Vec<String> {
    let whole = json!({"components": document["components"], "allOf": [schema]});
    let validator = jsonschema::validator_for(&whole).unwrap();
    validator.iter_errors(instance).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn requests_fit_the_documented_operations() {
    let (catalog, facts) = (Catalog::builtin().unwrap(), facts());
    let mut checked = 0;
    for action in catalog.actions.values() {
        let Some((prefix, document)) = document_of(&facts, action) else { continue };
        let request = request::build(action, &example(action), "0123456789abcdef").unwrap();
        let found = operation(document, prefix, &request);
        assert_eq!(found.is_none(), NOT_IN_THE_FACTS.contains(&&*action.name), "{} {}", action.name, request.path);
        let Some(found) = found else { continue };
        let names: Vec<_> = found["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|parameter| resolved(document, parameter)["name"].as_str())
            .collect();
        for pair in request.path.split_once('?').into_iter().flat_map(|(_, query)| query.split('&')) {
            let name = pair.split('=').next().unwrap();
            assert!(names.contains(&name), "{} sends {name}", action.name);
        }
        let schema = &resolved(document, &found["requestBody"])["content"]["application/json"]["schema"];
        match &request.body {
            Some(body) => {
                assert!(schema.is_object(), "{} sends a body that is not documented", action.name);
                assert_eq!(faults(document, schema, body), [""; 0], "{} {body}", action.name);
            }
            None => assert!(schema.is_null(), "{} sends no body", action.name),
        }
        checked += 1;
    }
    assert_eq!(checked, 106);
}

#[test]
fn every_documented_operation_of_defender_for_endpoint_is_an_action() {
    let (catalog, facts) = (Catalog::builtin().unwrap(), facts());
    let document = &facts["/api"];
    let mut missing: Vec<String> = vec![];
    for (path, methods) in document["paths"].as_object().unwrap() {
        let verbs = methods
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| ["get", "post", "patch", "put", "delete"].contains(&key.as_str()));
        missing.extend(verbs.map(|verb| format!("{} {path}", verb.to_uppercase())));
    }
    let documented = missing.len();
    for action in catalog.actions.values().filter(|action| action.connector() == "mde") {
        let request = request::build(action, &example(action), "").unwrap();
        if let Some((path, _)) = template(document, "/api", &request) {
            missing.retain(|known| *known != format!("{} {path}", request.method));
        }
    }
    assert_eq!((documented, missing), (80, vec![]));
}

#[test]
fn sample_answers_fit_their_schemas_and_become_entities() {
    let (catalog, facts) = (Catalog::builtin().unwrap(), facts());
    let now = "2026-11-20T07:00:00Z".parse().unwrap();
    let mut read = 0;
    for entry in std::fs::read_dir(folder().join("samples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let body: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        // CONNECTOR.VERB, and what it is a sample of where there are several.
        let parts: Vec<&str> = name.split('.').collect();
        let action = catalog.action(&parts[..2].join(".")).unwrap_or_else(|| panic!("{name}"));
        let (prefix, document) = document_of(&facts, action).unwrap();
        let inputs = example(action);
        let request = request::build(action, &inputs, "").unwrap();
        let responses = operation(document, prefix, &request).unwrap()["responses"].as_object().unwrap();
        let success = responses.iter().find(|(status, _)| status.starts_with('2')).unwrap().1;
        let schema = &resolved(document, success)["content"]["application/json"]["schema"];
        assert_eq!(faults(document, schema, &body), [""; 0], "{name}");
        let mut notes = vec![];
        // Columns are declared by the step; the sample has others than the example.
        let value = request::output_noting(action, &action.output, 200, &body, &inputs, now, &mut notes);
        assert!(value.is_ok(), "{name}: {value:?}");
        assert_eq!(notes, [""; 0], "{name}");
        read += 1;
    }
    assert!(read >= 14, "{read}");
}

/// What the evidence of an alert names, whatever product raised it: devices and users by the first name that they have.
fn entities(body: &Json) -> String {
    let catalog = Catalog::builtin().unwrap();
    let action = catalog.action("xdr.get_alert").unwrap();
    let now = "2026-11-20T07:00:00Z".parse().unwrap();
    let alert = request::output(action, &action.output, 200, body, &example(action), now).unwrap().to_json();
    let one = |item: &Json| -> String {
        let names = ["name", "upn", "address", "account_name", "id", "sha256", "sha1"];
        let found = names.iter().find_map(|name| item.get(*name)).unwrap_or(item);
        found.as_str().unwrap().chars().take(24).collect()
    };
    let lists = ["devices", "users", "ips", "files", "urls", "mailboxes"].map(|name| {
        let items: Vec<String> = alert[name].as_array().unwrap().iter().map(one).collect();
        items.join(" ")
    });
    assert_eq!(alert["evidence"].as_array().map(Vec::len), body["evidence"].as_array().map(Vec::len));
    lists.join(" | ")
}

#[test]
fn the_entities_of_every_product_s_alerts_are_complete() {
    let sample = |name: &str| -> Json {
        let path = folder().join("samples").join(format!("xdr.get_alert{name}.json"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    // Devices, users, addresses, files, URLs, mailboxes.
    let wanted = [
        ("", " | l.brandt@example.com | 203.0.113.77 198.51.100.14 |  |  | "),
        (".endpoint", "fin-lap-014.example.com | k.ito | 198.51.100.77 192.0.2.9 | setup.exe |  | "),
        (".identity", "dc01.example.com | adm-lee |  |  |  | "),
        (
            ".office365",
            " | k.ito@example.com k.ito@example.com | 203.0.113.5 |  | https://pay.mail.example | k.ito@example.com k.ito@example.com",
        ),
        (".xdr", "byod-7 9c1e5bc9d7e413ddd7902c29 | r.vega@example.com |  | a.dll |  | "),
        (".custom-detection", " | r.vega@example.com |  |  |  | "),
        (".entra", " | l.brandt@example.com | 203.0.113.77 |  |  | "),
        (".app-governance", " | r.vega@example.com |  |  |  | "),
        (".dlp", "9c1e5bc9d7e413ddd7902c29 |  |  | salaries.xlsx |  | r.vega@example.com"),
        (".cloud", " |  | 10.2.0.4 | eeeeeeeeeeeeeeeeeeeeeeee | https://store.blob.examp | "),
        (".sentinel", " |  | 198.51.100.200 |  | https://bad.example/x | "),
        (".insider-risk", " | r.vega@example.com | 203.0.113.9 |  | https://drop.example/z | "),
        (".threat-intelligence", " |  |  | ffffffffffffffffffffffff |  | "),
        (".ai", " |  |  |  |  | "),
    ];
    let mut wrong = vec![];
    let mut sources = std::collections::BTreeSet::new();
    for (name, want) in wanted {
        let body = sample(name);
        sources.insert(body["serviceSource"].as_str().unwrap().to_owned());
        let found = entities(&body);
        if found != want {
            wrong.push(format!("{name}\n  wanted {want}\n  found  {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let products = Catalog::builtin().unwrap().enums["AlertSource"].values.len();
    assert_eq!(sources.len(), products - 1, "each product has a sample, `Unknown` is none: {sources:?}");
}

/// Evidence comes late: what a later read has more is in the entity, and an incident has what all of its alerts have.
#[test]
fn what_comes_late_and_what_nobody_knows_is_in_the_entities_of_a_later_read() {
    let path = folder().join("samples/xdr.get_alert.entra.json");
    let mut body: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let whole = body["evidence"].take();
    body["evidence"] = json!([]);
    assert_eq!(entities(&body), " |  |  |  |  | ");
    body["evidence"] = whole;
    let late = json!({"@odata.type": "#microsoft.graph.security.quantumGateEvidence", "createdDateTime": "2026-11-20T09:00:00Z",
        "gate": {"userAccount": {"userPrincipalName": "late@example.com"}, "ipAddress": "192.0.2.200"}});
    body["evidence"].as_array_mut().unwrap().push(late);
    assert_eq!(entities(&body), " | l.brandt@example.com late@example.com | 203.0.113.77 192.0.2.200 |  |  | ");
    let catalog = Catalog::builtin().unwrap();
    let action = catalog.action("xdr.get_incident").unwrap();
    let incident = json!({"id": "7", "displayName": "i", "createdDateTime": "2026-11-20T09:00:00Z", "status": "active", "severity": "low",
        "alerts": [body.clone(), body]});
    let now = "2026-11-20T09:30:00Z".parse().unwrap();
    let read = request::output(action, &action.output, 200, &incident, &example(action), now).unwrap().to_json();
    assert_eq!((read["users"].as_array().unwrap().len(), read["ips"].as_array().unwrap().len()), (2, 2), "each once");
}

#[test]
fn a_misspelled_member_would_be_found() {
    let facts = facts();
    let document = &facts["/api"];
    let schema =
        &document["paths"]["/machines/{id}/isolate"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert!(!faults(document, schema, &json!({"comment": "small letter"})).is_empty());
    assert!(!faults(document, schema, &json!({"Comment": "x", "IsolationType": "full"})).is_empty());
}
