//! Users' own connectors: files in the catalogue's format, read beside what the program brings along.
//!
//! Such a file describes one service over HTTP. It can't redefine what is shipped, and has no say over code of ours: no native
//! handlers, and no mappings but the plain one.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value as Json;

use super::load::{self, ActionEntry, EntityEntry, LookKindEntry, Names, Resolver};
use super::{Catalog, ConnectionKind, Effect, EnumType, OwnKind};
use crate::error::Error;

/// Actions in all of a user's files together.
const MAX_ACTIONS: usize = 5_000;
const MAX_INPUTS: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    connector: String,
    doc: String,
    #[serde(default)]
    enums: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    entities: BTreeMap<String, EntityEntry>,
    /// Each is read by itself, so that a fault is told with its name.
    actions: Vec<Json>,
}

/// A fault, and what it is about: the text of a line that is looked for.
struct Fault {
    near: String,
    message: String,
}

impl Catalog {
    /// The program's catalogue with a user's own connectors: files by name, with their texts.
    ///
    /// # Errors
    /// The first fault, with its file and, where it can be told, the line.
    pub fn with_own(files: &[(String, String)]) -> Result<Self, Error> {
        let mut catalog = load::builtin()?;
        for (name, text) in files {
            add(&mut catalog, name, text).map_err(|fault| {
                let line = line_of(text, &fault.near).map_or_else(String::new, |line| format!(":{line}"));
                Error::config(format!("{name}{line}: {}", fault.message))
            })?;
        }
        Ok(catalog)
    }
}

fn add(catalog: &mut Catalog, name: &str, text: &str) -> Result<(), Fault> {
    let bare = |message: String| Fault { near: String::new(), message };
    let tree = load::tree(text).map_err(bare)?;
    let file = File::deserialize(tree).map_err(|error| bare(error.to_string()))?;
    let near = |near: &str, message: String| Fault { near: near.to_owned(), message };
    let kind = connector(catalog, &file).map_err(|message| near("connector:", message))?;
    let own = types(catalog, file.enums, file.entities)?;
    let mut added = Vec::with_capacity(file.actions.len());
    for (index, json) in file.actions.into_iter().enumerate() {
        let called = json.get("name").and_then(Json::as_str).map_or_else(String::new, str::to_owned);
        let title = if called.is_empty() { format!("action {}", index + 1) } else { called.clone() };
        let fault = |message: String| near(&format!("name: {called}"), format!("{title}: {message}"));
        let entry = ActionEntry::deserialize(json).map_err(|error| fault(error.to_string()))?;
        fits(&entry, &file.connector).map_err(fault)?;
        let names = Names { catalog, own: &own };
        let action = load::action(entry, &names, Some(kind)).map_err(fault)?;
        if catalog.actions.len() >= MAX_ACTIONS {
            return Err(fault(format!("there are more than {MAX_ACTIONS} actions")));
        }
        if catalog.actions.insert(Arc::clone(&action.name), Arc::new(action)).is_some() {
            return Err(fault("it is there twice".to_owned()));
        }
        added.push(called);
    }
    for called in added {
        let Some(action) = catalog.action(&called) else { continue };
        let fault = |message: String| near(&format!("name: {called}"), format!("{called}: {message}"));
        load::cross_check(action, catalog).map_err(fault)?;
        let borrowed = [action.look.as_ref().map(|it| &it.action), action.confirm.as_ref().map(|it| &it.action)];
        if borrowed.into_iter().flatten().any(|name| catalog.action(name).is_none_or(|other| other.kind != kind)) {
            return Err(fault("a look-up or a confirmation calls an action of the same connector".to_owned()));
        }
    }
    catalog.own.insert(file.connector.into(), (Arc::from(name), Arc::from(file.doc)));
    Ok(())
}

fn connector(catalog: &Catalog, file: &File) -> Result<ConnectionKind, String> {
    let name = &file.connector;
    let Some(own) = OwnKind::new(name) else {
        return Err(format!(
            "a connector's name is a small letter, then small letters, digits and `_`, {} at most; {name:?} is none",
            OwnKind::LONGEST
        ));
    };
    let shipped = |known: &str| known == name;
    let kinds = ConnectionKind::SHIPPED.iter().any(|kind| shipped(kind.as_str()));
    if kinds || catalog.actions.values().any(|action| shipped(action.connector())) {
        let of = catalog.own.get(name.as_str()).map_or("watchfloor's own", |(file, _)| file);
        return Err(format!("the connector {name} is {of} already, and can't be defined again"));
    }
    if file.doc.trim().is_empty() {
        return Err(format!("the connector {name} wants a doc: one sentence that says what the service is"));
    }
    Ok(ConnectionKind::Own(own))
}

/// The types of the file. They hold within it and come before shipped ones of the same name: a type that a later version
/// ships breaks no file.
fn types(
    catalog: &Catalog,
    words: BTreeMap<String, Vec<String>>,
    entries: BTreeMap<String, EntityEntry>,
) -> Result<BTreeMap<Arc<str>, super::Type>, Fault> {
    let fault = |near: &str, message: String| Fault { near: format!("{near}:"), message: format!("{near}: {message}") };
    let mut enums = BTreeMap::new();
    for (name, values) in words {
        if values.is_empty() || values.len() > 2_000 {
            return Err(fault(&name, "an enum has from 1 to 2,000 words".to_owned()));
        }
        let name: Arc<str> = name.into();
        let values = values.into_iter().map(Arc::from).collect();
        enums.insert(Arc::clone(&name), Arc::new(EnumType { name, values }));
    }
    let names: Vec<String> = entries.keys().cloned().collect();
    let mut resolver = Resolver { enums: &enums, outer: catalog, entries, done: BTreeMap::new(), open: vec![] };
    for name in &names {
        resolver.named(name).map_err(|message| fault(name, message))?;
    }
    let mut own = std::mem::take(&mut resolver.done);
    own.extend(enums.iter().map(|(name, words)| (Arc::clone(name), super::Type::Enum(Arc::clone(words)))));
    Ok(own)
}

/// What a user's entry may say, beyond what every entry must.
fn fits(entry: &ActionEntry, connector: &str) -> Result<(), String> {
    let verb = entry.name.strip_prefix(connector).and_then(|rest| rest.strip_prefix('.'));
    let plain = |verb: &str| {
        verb.len() <= 100
            && verb.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
            && verb.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    if !verb.is_some_and(plain) {
        return Err(format!("an action of this file is named {connector}.verb, of small letters, digits and `_`"));
    }
    if entry.native.is_some() || !matches!(entry.mapping.as_str(), "plain" | "accepted") {
        return Err("native handlers and mappings other than plain and accepted belong to the shipped actions".into());
    }
    match entry.method.as_deref() {
        Some("GET" | "POST" | "PUT" | "PATCH") => {}
        Some("DELETE") if entry.effect >= Effect::Write => {}
        Some("DELETE") => return Err("a DELETE is at least a write".into()),
        _ => return Err("`method` is one of GET, POST, PUT, PATCH and DELETE".into()),
    }
    let path = entry.path.as_deref().unwrap_or("");
    let dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
    if !path.starts_with('/') || path.contains(['?', '#', '\\', ' ']) || path.contains("//") || dots {
        return Err(
            "`path` begins with a slash and is plain: parameters of the query are inputs, or under `query:`".into()
        );
    }
    if entry.inputs.len() > MAX_INPUTS {
        return Err(format!("it has more than {MAX_INPUTS} inputs"));
    }
    if let Some(file) = entry.inputs.iter().find(|input| input.file) {
        return Err(format!("{}: only shipped actions read files beside the flow", file.name));
    }
    if entry.look.as_ref().is_some_and(|look| look.kind != LookKindEntry::State) {
        return Err("a look-up of a user's own action is of the kind state".into());
    }
    Ok(())
}

/// The first line that holds a text, from 1. Not found for an empty text.
fn line_of(text: &str, near: &str) -> Option<usize> {
    let ends = |rest: &str| rest.chars().next().is_none_or(|next| next.is_whitespace() || ",}".contains(next));
    let holds = |line: &str| line.split_once(near).is_some_and(|(_, rest)| near.ends_with(':') || ends(rest));
    (near.len() > 1).then(|| text.lines().position(holds)).flatten().map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
connector: shade
doc: Says how shady an address is.
enums: { Shade: [light, dark] }
entities:
  Verdict:
    doc: What is known of an address.
    fields:
      shade: { type: Shade, doc: How it looks. }
      seen: { type: \"datetime?\", doc: When it was last seen. }
actions:
  - name: shade.look_up
    title: Look an address up
    doc: What is known of an address.
    effect: read
    method: GET
    path: /v1/addresses/{ip}
    inputs:
      - { name: ip, type: string, required: true, in: path, id: ip, doc: The address. }
    output: Verdict
    mapping: plain
    permission: an API key
    example: |
      { ip: 198.51.100.14 }
    source: https://shade.example/docs
";

    fn read(text: &str) -> Result<Catalog, Error> {
        Catalog::with_own(&[("catalogues/shade.yaml".to_owned(), text.to_owned())])
    }

    #[test]
    fn a_users_connector_is_as_good_as_a_shipped_one() {
        let catalog = read(GOOD).unwrap();
        let action = catalog.action("shade.look_up").unwrap();
        assert_eq!(action.kind.as_str(), "shade");
        assert_eq!(action.output.field("shade").unwrap().ty.to_string(), "Shade");
        assert!(catalog.action("mde.isolate_machine").is_some());
        assert!(catalog.own.contains_key("shade"));
    }

    #[test]
    fn faults_of_a_users_file_name_file_line_and_action() {
        let cases = [
            ("connector: shade", "connector: mde", "shade.yaml:1: the connector mde is watchfloor's own already"),
            ("connector: shade", "connector: Shade", "shade.yaml:1: a connector's name"),
            ("effect: read\n", "efect: read\n", "shade.yaml:11: shade.look_up: unknown field `efect`"),
            ("    effect: read\n", "", "shade.yaml:11: shade.look_up: missing field `effect`"),
            (
                "name: shade.look_up",
                "name: mde.get_alert",
                "shade.yaml:11: mde.get_alert: an action of this file is named",
            ),
            ("mapping: plain", "mapping: mde_alert", "shade.look_up: native handlers and mappings"),
            ("method: GET", "method: DELETE", "shade.look_up: a DELETE is at least a write"),
            ("path: /v1/", "path: /v1/../", "shade.look_up: `path` begins with a slash"),
            ("output: Verdict", "output: Verdikt", "shade.look_up: there is no type Verdikt"),
            ("type: Shade,", "type: Shady,", "Verdict: Verdict.shade: there is no type Shady"),
            ("in: path, id: ip", "in: path", "ip wants a place in the path, an id form"),
            ("doc: Says", "doc: Says\ndoc: Says", "shade.yaml: "),
        ];
        for (from, to, said) in cases {
            let error = read(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert_eq!(error.code, crate::error::ExitCode::Config);
            assert!(error.to_string().contains(said), "{from} -> {to}: {error}");
        }
        let twice = ("catalogues/other.yaml".to_owned(), GOOD.to_owned());
        let error = Catalog::with_own(&[("catalogues/shade.yaml".to_owned(), GOOD.to_owned()), twice]).unwrap_err();
        assert!(error.to_string().contains("is catalogues/shade.yaml already"), "{error}");
    }

    #[test]
    fn a_hostile_file_ends_with_a_fault() {
        for text in [
            "[".repeat(20_000),
            format!("{GOOD}    look: {}", "{a: ".repeat(500)),
            GOOD.replace("type: Shade,", &format!("type: \"{}int{}\",", "list<".repeat(5000), ">".repeat(5000))),
            "a: &a [1]\nb: *a\n".to_owned(),
        ] {
            assert!(read(&text).is_err());
        }
    }
}
