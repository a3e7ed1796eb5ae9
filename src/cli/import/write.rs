//! The catalogue file as text. Every text of the document is written in double quotes, as JSON has it, which YAML reads alike:
//! nothing that a document says becomes structure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::names::line;
use super::openapi::{Action, Input};
use super::types::Fields;

pub(super) fn file(
    connector: &str,
    document: &Json,
    actions: &[Action],
    entities: &BTreeMap<String, (String, Fields)>,
) -> String {
    let text = |pointer: &str| document.pointer(pointer).and_then(Json::as_str).unwrap_or("");
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "# Written by `watchfloor import` from {}.",
        comment(&format!("{} {}", text("/info/title"), text("/info/version")))
    );
    out.push_str("# Review each effect: what is no GET counts as a write until you say read, notify or destructive.\n");
    let _ = writeln!(out, "#\n# A connection for it, in config.yaml:\n#   {connector}:\n#     kind: {connector}");
    let server = text("/servers/0/url");
    let server = if server.starts_with("https://") { server } else { "https://service.contoso.example" };
    let _ = writeln!(out, "#     base_url: {}", comment(server.trim_end_matches('/')));
    for hint in credentials(document) {
        let _ = writeln!(out, "#     {}", comment(&hint));
    }
    let about = line(text("/info/description").split("\n\n").next().unwrap_or(""), 300);
    let about = if about.is_empty() { line(text("/info/title"), 200) } else { about };
    let about = if about.is_empty() { connector.to_owned() } else { about };
    let _ = writeln!(out, "\nconnector: {connector}\ndoc: {}", quoted(&about));
    if !entities.is_empty() {
        out.push_str("\nentities:\n");
    }
    for (name, (doc, fields)) in entities {
        let _ = writeln!(out, "  {name}:\n    doc: {}\n    open: true\n    fields:", quoted(doc));
        for (key, (ty, doc)) in fields {
            let untrusted = if ty.contains("string") || ty.contains("any") { "untrusted: true, " } else { "" };
            let ty = quoted(&format!("{ty}?"));
            let _ = writeln!(out, "      {}: {{ type: {ty}, {untrusted}doc: {} }}", quoted(key), quoted(doc));
        }
    }
    out.push_str("\nactions:\n");
    for action in actions {
        entry(&mut out, action);
    }
    out
}

fn entry(out: &mut String, action: &Action) {
    let _ = writeln!(
        out,
        "  - name: {}\n    title: {}\n    doc: {}",
        action.name,
        quoted(&action.title),
        quoted(&action.doc)
    );
    match action.method {
        "GET" => out.push_str("    effect: read\n"),
        // A second call would make a second one, as far as anybody can tell: after a lost answer a person decides.
        "POST" => out.push_str("    effect: write                          # review\n    creates: true\n"),
        _ => out.push_str("    effect: write                          # review\n"),
    }
    let _ = writeln!(out, "    method: {}\n    path: {}", action.method, quoted(&action.path));
    if action.inputs.is_empty() {
        out.push_str("    inputs: []\n");
    } else {
        out.push_str("    inputs:\n");
    }
    for input in &action.inputs {
        let ty = if input.ty == "guid" { "string" } else { &input.ty };
        let _ = write!(out, "      - {{ name: {}, type: {}, ", input.name, quoted(ty));
        if input.required {
            out.push_str("required: true, ");
        }
        match input.place {
            "path" => {
                let form = if input.ty == "guid" { "guid" } else { "segment" };
                let _ = write!(out, "in: path, id: {form}, ");
            }
            place => {
                let _ = write!(out, "in: {place}, ");
            }
        }
        if input.wire != input.name {
            let _ = write!(out, "wire: {}, ", quoted(&input.wire));
        }
        let _ = writeln!(out, "doc: {} }}", quoted(&input.doc));
    }
    let (output, mapping) = match &action.output {
        Some(output) => (output.as_str(), "plain"),
        None => ("Done", "accepted"),
    };
    let _ = writeln!(
        out,
        "    output: {}\n    mapping: {mapping}\n    permission: {}",
        quoted(output),
        quoted(&action.permission)
    );
    let example: Map<String, Json> =
        action.inputs.iter().filter(|input| input.required).map(|input| (input.name.clone(), example(input))).collect();
    let example = quoted(&Json::Object(example).to_string());
    let _ = writeln!(out, "    example: {example}\n    source: {}\n", quoted(&action.source));
}

/// The document's own example where it has the type, or a value of the type.
fn example(input: &Input) -> Json {
    let given = input.example.as_ref();
    match input.ty.as_str() {
        "guid" => json!("3b7d1c52-0c44-4d8e-9a37-5f2b6c81d904"),
        "int" => json!(given.and_then(Json::as_i64).unwrap_or(1)),
        "number" => json!(given.and_then(Json::as_f64).unwrap_or(1.5)),
        "bool" => json!(given.and_then(Json::as_bool).unwrap_or(true)),
        "datetime" => json!("2026-11-20T07:20:00Z"),
        "string" => {
            let plain = given
                .and_then(Json::as_str)
                .filter(|text| !text.is_empty() && text.len() < 100 && !text.contains(['{', '/', '\\']));
            json!(plain.map_or_else(|| "text".to_owned(), |text| line(text, 100)))
        }
        "any" => json!({}),
        ty if ty.starts_with("list<") => json!([]),
        ty => match ty.strip_prefix("enum<").and_then(|rest| rest.strip_suffix('>')) {
            Some(words) => json!(words.split('|').next().unwrap_or("")),
            None => json!({}),
        },
    }
}

/// How a caller proves itself, as keys of a connection; what there is no key for is said.
fn credentials(document: &Json) -> Vec<String> {
    let schemes = document.pointer("/components/securitySchemes").and_then(Json::as_object);
    let mut out = vec![];
    for (name, scheme) in schemes.into_iter().flatten() {
        let text = |key: &str| scheme.get(key).and_then(Json::as_str).unwrap_or("");
        out.push(match (text("type"), text("in"), text("scheme").to_ascii_lowercase().as_str()) {
            ("apiKey", "header", _) if text("name").eq_ignore_ascii_case("authorization") => {
                format!("credential: {{ bearer: {{ env: TOKEN }} }}   # {name}, if it wants `Bearer` before it")
            }
            ("apiKey", "header", _) => format!("headers: {{ {}: {{ env: API_KEY }} }}   # {name}", text("name")),
            ("http", _, "bearer") => format!("credential: {{ bearer: {{ env: TOKEN }} }}   # {name}"),
            ("http", _, "basic") => {
                format!("credential: {{ username: NAME, password: {{ env: PASSWORD }} }}   # {name}")
            }
            (kind, place, _) => {
                format!("# {name}: {kind} {place} is not expressed; a connection has headers, bearer, basic and entra")
            }
        });
    }
    out
}

fn quoted(text: &str) -> String {
    // YAML forbids a few characters that JSON lets through as they are.
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}') { ' ' } else { c })
        .collect();
    Json::from(clean).to_string()
}

fn comment(text: &str) -> String {
    line(text, 300)
}
