//! What we send and what comes back, against the OpenAPI facts in `tests/contract`: each documented example becomes a request
//! whose path, query names and body fit the operation; each sample answer fits its schema and decodes without a note.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value as Json, json};
use watchfloor::catalog::{Action, Catalog, decode};
use watchfloor::connector::request::{self, Request};
use watchfloor::value::Map;

/// What the facts describe and no action does, and why. The aliases of Graph's actions (`microsoft.graph.dismiss`) are the
/// operations without the prefix.
const NOT_ACTIONS: [(&str, &str); 6] = [
    ("/subscriptions", "no push exists for modern alerts; they are polled"),
    ("/chats/", "an application can't post to chats; cards go through a Workflows webhook"),
    ("/teams/", "an application can't post to channels; cards go through a Workflows webhook"),
    ("/security/alerts_v2/$count", "lists are counted by reading them"),
    ("/history/{riskyUserHistoryItem-id}", "the history is read whole"),
    ("/users/{user-id}/mailboxSettings", "automatic replies are read by their own path, and not ours to set"),
];

/// The facts by the prefix of our paths below which they hold: descriptions, and what else was gathered by hand.
const FACTS: [(&str, &str, Option<&str>); 4] = [
    ("/api", "mde-openapi.json", Some("mde-more.yaml")),
    ("/v1.0", "graph-openapi.json", Some("graph-more.yaml")),
    ("/api/v1", "cloud-apps-openapi.yaml", None),
    ("", "azure-openapi.yaml", None),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract")
}

fn document(file: &str) -> Json {
    let text = std::fs::read_to_string(folder().join(file)).unwrap();
    if file.ends_with(".json") { serde_json::from_str(&text).unwrap() } else { serde_yaml::from_str(&text).unwrap() }
}

/// OpenAPI documents by the prefix of our paths below which they hold.
pub(crate) fn facts() -> BTreeMap<&'static str, Json> {
    let merged = |(prefix, file, more): (&'static str, &str, Option<&str>)| {
        let mut whole = document(file);
        if let Some(more) = more.map(document) {
            for part in ["/paths", "/components/schemas", "/components/responses"] {
                let (Some(added), at) = (more.pointer(part), part.rsplit('/').next().unwrap()) else { continue };
                let inside = if part == "/paths" { &mut whole } else { &mut whole["components"] };
                if inside.get(at).is_none() {
                    inside[at] = json!({});
                }
                let into = inside[at].as_object_mut().unwrap();
                for (key, value) in added.as_object().unwrap() {
                    match into.get_mut(key) {
                        // Another method of a path that is there.
                        Some(Json::Object(known)) if part == "/paths" => {
                            known.extend(value.as_object().unwrap().clone());
                        }
                        _ => drop(into.insert(key.clone(), value.clone())),
                    }
                }
            }
        }
        null_as_a_type(&mut whole);
        (prefix, whole)
    };
    FACTS.into_iter().map(merged).collect()
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
        "cloud_apps" => "/api/v1",
        "azure" => "",
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
    let fits = |template: &str| {
        let (ours, theirs): (Vec<_>, Vec<_>) = (path.split('/').collect(), template.split('/').collect());
        ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(one, other)| segment(other, one))
    };
    let paths = document["paths"].as_object()?;
    let exact = paths.iter().find(|(template, _)| *template == path);
    exact.or_else(|| paths.iter().find(|(template, _)| fits(template)))
}

/// Whether a segment fits a documented one. A parameter may fill it, or stand within it: `…Link(index={index})`.
fn segment(documented: &str, ours: &str) -> bool {
    let Some((before, rest)) = documented.split_once('{') else { return documented == ours };
    let after = rest.split_once('}').map_or("", |(_, after)| after);
    if before.is_empty() && after.is_empty() {
        return !ours.is_empty() && !ours.contains('(');
    }
    let Some(ours) = ours.strip_prefix(before) else { return false };
    let next = after.split('{').next().unwrap();
    !next.is_empty() && ours.find(next).and_then(|at| ours.get(at..)).is_some_and(|rest| segment(after, rest))
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
fn a_mail_with_all_that_it_can_carry_fits_the_documented_operation() {
    let (catalog, facts) = (Catalog::builtin().unwrap(), facts());
    let action = catalog.action("exchange.send_mail").unwrap();
    let (prefix, document) = document_of(&facts, action).unwrap();
    let whole = json!({
        "from": "soc@contoso.example", "to": ["a@contoso.example"], "cc": ["b@contoso.example"], "subject": "s", "html": "<p>h</p>",
        "importance": "High", "save": true, "attachments": [{ "name": "a.txt", "text": "x", "content_type": "text/plain" }],
    });
    let inputs = whole.as_object().unwrap().iter();
    let inputs: Map = inputs
        .map(|(key, json)| (Arc::from(key.as_str()), decode::decode(&action.input(key).unwrap().ty, json).unwrap()))
        .collect();
    let request = request::build(action, &inputs, "0123456789abcdef").unwrap();
    let found = operation(document, prefix, &request).unwrap();
    let schema = &resolved(document, &found["requestBody"])["content"]["application/json"]["schema"];
    assert_eq!(faults(document, schema, request.body.as_ref().unwrap()), Vec::<String>::new());
}

#[test]
fn requests_fit_the_documented_operations() {
    let (catalog, facts) = (Catalog::builtin().unwrap(), facts());
    let mut checked = 0;
    for action in catalog.actions.values() {
        let Some((prefix, document)) = document_of(&facts, action) else { continue };
        let request = request::build(action, &example(action), "0123456789abcdef").unwrap();
        let found = operation(document, prefix, &request);
        let found = found.unwrap_or_else(|| panic!("no fact of {}: {} {}", action.name, request.method, request.path));
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
        let content = &resolved(document, &found["requestBody"])["content"];
        // A form: its parts are named as documented, and the file is one of them.
        if let (Some(body), Some(form)) =
            (&request.body, content["multipart/form-data"]["schema"]["properties"].as_object())
        {
            let stray: Vec<_> = body.as_object().unwrap().keys().filter(|key| !form.contains_key(*key)).collect();
            assert!(stray.is_empty() && body["file"].is_object(), "{}: {stray:?}", action.name);
            checked += 1;
            continue;
        }
        let schema = &content["application/json"]["schema"];
        match &request.body {
            Some(body) => {
                assert!(schema.is_object(), "{} sends a body that is not documented", action.name);
                assert_eq!(faults(document, schema, body), [""; 0], "{} {body}", action.name);
            }
            None => assert!(schema.is_null(), "{} sends no body", action.name),
        }
        checked += 1;
    }
    let with_requests = |action: &&Arc<Action>| action.method.is_some();
    assert_eq!(checked, catalog.actions.values().filter(with_requests).count());
}

/// Names what the facts describe and no action does: nothing, but for what is left out on purpose.
#[test]
fn every_documented_operation_is_an_action() {
    let (catalog, facts) = (Catalog::builtin().unwrap(), facts());
    let mut missing: Vec<String> = vec![];
    let mut documented = 0;
    for (prefix, document) in &facts {
        let mut open: Vec<String> = vec![];
        for (path, methods) in document["paths"].as_object().unwrap() {
            let verbs =
                ["get", "post", "patch", "put", "delete"].into_iter().filter(|verb| methods.get(*verb).is_some());
            open.extend(verbs.map(|verb| format!("{} {path}", verb.to_uppercase())));
        }
        documented += open.len();
        for action in catalog.actions.values() {
            let Some((own, _)) = document_of(&facts, action).filter(|(own, _)| own == prefix) else { continue };
            let request = request::build(action, &example(action), "").unwrap();
            if let Some((path, _)) = template(document, own, &request) {
                open.retain(|known| *known != format!("{} {path}", request.method));
            }
        }
        missing.extend(open);
    }
    missing
        .retain(|line| !line.contains("microsoft.graph.") && !NOT_ACTIONS.iter().any(|(part, _)| line.contains(part)));
    assert_eq!(missing, [""; 0], "no action does these");
    assert!(documented > 160, "{documented}");
    // What has no description of its own: mail, cards, any web service.
    for native in ["email.send", "teams.post", "http.request"] {
        assert!(catalog.action(native).is_some_and(|action| action.native.is_some()), "{native}");
    }
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

/// The published words of Graph: what detected an alert, and the product that it is of.
#[test]
fn every_detection_source_and_every_product_has_a_name_for_people() {
    use watchfloor::triage::source;
    let facts = facts();
    let words = |name: &str| -> Vec<String> {
        let schema = &facts["/v1.0"]["components"]["schemas"][&format!("microsoft.graph.security.{name}")]["enum"];
        let words = schema.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned());
        words.filter(|word| !word.starts_with("unknown")).collect()
    };
    let (detections, products) = (words("detectionSource"), words("serviceSource"));
    assert!(detections.len() > 30 && products.len() > 10);
    for word in detections {
        assert!(source::DETECTIONS.iter().any(|(known, _)| *known == word), "{word} has no name");
    }
    for word in products {
        assert!(source::title(&word) != word && source::meant(&word).is_some(), "{word}");
    }
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
