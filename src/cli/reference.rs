//! `actions docs`: one page for each service and one for the triggers, written from the catalogue. Nothing of them is written by
//! hand, and a test compares.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use crate::catalog::{Action, Catalog, Field, Type};
use crate::connector::rate;
use crate::error::Error;

/// Every page by its file's name.
pub(super) fn pages(catalog: &Catalog) -> Vec<(String, String)> {
    let connectors: BTreeSet<&str> = catalog.actions.values().map(|action| action.connector()).collect();
    let mut pages: Vec<(String, String)> =
        connectors.iter().map(|connector| (format!("{connector}.md"), page(catalog, connector))).collect();
    pages.push(("triggers.md".to_owned(), triggers(catalog)));
    pages.push(("README.md".to_owned(), index(catalog, &connectors)));
    pages
}

pub(super) fn write(catalog: &Catalog, folder: &Path) -> Result<usize, Error> {
    let fault = |path: &Path, error: &std::io::Error| Error::config(format!("writing {}: {error}", path.display()));
    std::fs::create_dir_all(folder).map_err(|error| fault(folder, &error))?;
    let pages = pages(catalog);
    for (name, text) in &pages {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| fault(&path, &error))?;
    }
    Ok(pages.len())
}

const NOTE: &str = "<!-- Written from the catalogue by `watchfloor actions docs`; changes by hand are lost. -->\n";

fn index(catalog: &Catalog, connectors: &BTreeSet<&str>) -> String {
    let mut out = format!("{NOTE}# Actions and triggers\n\n| page | kind of connection | actions |\n|---|---|---|\n");
    for connector in connectors {
        let of: Vec<&Action> = actions(catalog, connector).collect();
        let kinds: BTreeSet<&str> = of.iter().map(|action| action.kind.as_str()).collect();
        let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "| [{connector}]({connector}.md) | {kinds} | {} |", of.len());
    }
    let _ = writeln!(out, "| [triggers](triggers.md) | | {} |", catalog.triggers.len());
    out.push_str(
        "\nEffects: `read` changes nothing; `notify` tells people; `write` sets something; `destructive` is containment, and goes by\n\
         the guard's limits. Types of a page are at its end; a `?` after a type says that the service may leave it out.\n",
    );
    out
}

fn actions<'a>(catalog: &'a Catalog, connector: &'a str) -> impl Iterator<Item = &'a Action> {
    catalog.actions.values().map(|action| &**action).filter(move |action| action.connector() == connector)
}

fn page(catalog: &Catalog, connector: &str) -> String {
    let mut out = format!("{NOTE}# {connector}\n\n");
    if let Some((_, doc)) = catalog.own.get(connector) {
        let _ = writeln!(out, "{}\n", cell(doc));
    }
    out.push_str("| action | effect | what |\n|---|---|---|\n");
    for action in actions(catalog, connector) {
        let (name, anchor) = (&action.name, action.name.replace('.', ""));
        let _ = writeln!(out, "| [`{name}`](#{anchor}) | {} | {} |", action.effect.as_str(), cell(&action.title));
    }
    let mut types = BTreeSet::new();
    for action in actions(catalog, connector) {
        entry(&mut out, action, &mut types);
    }
    types_of(&mut out, catalog, types);
    out
}

fn entry(out: &mut String, action: &Action, types: &mut BTreeSet<String>) {
    let _ = writeln!(out, "\n## {}\n\n{}\n", action.name, action.doc);
    let mut facts = vec![format!("effect `{}`", action.effect.as_str())];
    if let Some(undo) = &action.undo {
        facts.push(format!("undone by `{undo}`"));
    }
    if let (Some(method), Some(path)) = (&action.method, &action.path) {
        facts.push(format!("`{method} {path}`"));
    }
    facts.push(format!("permission {}", action.permission));
    if let Some(limits) = rate::told(action.kind, &action.rate_class) {
        facts.push(limits);
    }
    if action.confirm.is_some() {
        facts.push("`confirm:` waits for its end".to_owned());
    }
    let source = &action.source;
    facts.push(if source.starts_with("https://") {
        format!("[source]({source})")
    } else {
        format!("source: {source}")
    });
    let _ = writeln!(out, "{}.\n", facts.join(" · "));
    if !action.inputs.is_empty() {
        out.push_str("| input | type | | what |\n|---|---|---|---|\n");
    }
    for input in &action.inputs {
        let default = input.default.as_ref().map(|value| format!("default `{}`", value.to_json()));
        let need = if input.required { "required".to_owned() } else { default.unwrap_or_default() };
        names_in(&input.ty, types);
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            input.name,
            cell(&input.ty.to_string()),
            cell(&need),
            cell(&input.doc)
        );
    }
    names_in(&action.output, types);
    let _ = writeln!(out, "\nOutput: {}.\n", cell(&action.output.to_string()));
    let example: Vec<String> = action.example.lines().map(|line| format!("    {line}\n")).collect();
    let (named, steps) = (example.concat(), connection(action));
    let _ = writeln!(out, "```yaml steps\n- id: step\n  action: {}\n{steps}  with:\n{named}```", action.name);
}

/// Several kinds of Teams connections make an example name one.
fn connection(action: &Action) -> String {
    if action.connector() == "teams" { "  connection: soc-triage\n".to_owned() } else { String::new() }
}

/// The names of the objects in a type, and of those within them.
fn names_in(ty: &Type, found: &mut BTreeSet<String>) {
    match ty {
        Type::List(item) | Type::Map(item) => names_in(item, found),
        Type::Enum(words) if !words.name.contains(' ') => drop(found.insert(words.name.to_string())),
        Type::Object(object) if object.name.starts_with("page of ") || found.insert(object.name.to_string()) => {
            object.fields.values().for_each(|field| names_in(&field.ty, found));
        }
        _ => {}
    }
}

fn types_of(out: &mut String, catalog: &Catalog, names: BTreeSet<String>) {
    let known: Vec<(&String, Type)> = names.iter().filter_map(|name| Some((name, catalog.type_named(name)?))).collect();
    if known.is_empty() {
        return;
    }
    out.push_str("\n## Types\n");
    for (name, ty) in known {
        match ty {
            Type::Enum(words) => {
                let words: Vec<String> = words.values.iter().map(|word| format!("`{word}`")).collect();
                let _ = writeln!(out, "\n**{name}**: {}.", words.join(" · "));
            }
            Type::Object(object) => {
                let more = if object.open { " Other members of the service may be read, as `any`." } else { "" };
                let _ = writeln!(out, "\n**{name}**{more}\n\n| field | type | what |\n|---|---|---|");
                object.fields.iter().for_each(|(key, field)| row(out, key, field));
            }
            _ => {}
        }
    }
}

fn row(out: &mut String, key: &str, field: &Field) {
    let optional = if field.optional { "?" } else { "" };
    let _ = writeln!(out, "| `{key}` | {}{optional} | {} |", cell(&field.ty.to_string()), cell(&field.doc));
}

fn triggers(catalog: &Catalog) -> String {
    let mut out = format!("{NOTE}# Triggers\n");
    let mut types = BTreeSet::new();
    for spec in catalog.triggers.values() {
        let _ = writeln!(out, "\n## {}\n\n{}: {}\n", spec.name, spec.title, spec.doc);
        let mut facts = vec![];
        facts.extend(spec.connection.map(|kind| format!("connection of kind {}", kind.as_str())));
        facts.extend(spec.poll.map(|every| format!("polled every {} s", every.as_secs())));
        if !spec.keys.is_empty() {
            facts.push(format!("keys `{}`", spec.keys.join("` `")));
        }
        if spec.later {
            facts.push("not in this version".to_owned());
        }
        if !facts.is_empty() {
            let _ = writeln!(out, "{}.\n", facts.join(" · "));
        }
        if let Type::Object(object) = &spec.output
            && !object.fields.is_empty()
        {
            out.push_str("| `trigger.…` | type | what |\n|---|---|---|\n");
            for (key, field) in &object.fields {
                names_in(&field.ty, &mut types);
                row(&mut out, key, field);
            }
            out.push('\n');
        }
        let example: Vec<String> = spec.example.lines().map(|line| format!("{line}\n")).collect();
        let kind = if spec.later { "text" } else { "yaml trigger" };
        let _ = write!(out, "```{kind}\n{}```\n", example.concat());
    }
    types_of(&mut out, catalog, types);
    out
}

/// Text inside a table: no bar ends a cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('<', "&lt;")
}
