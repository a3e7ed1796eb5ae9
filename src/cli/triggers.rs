//! `triggers list` and `triggers show`: what starts flows, from the catalogue.

use serde_json::{Value as Json, json};

use super::actions;
use super::out::{Out, cell};
use crate::catalog::{Catalog, TriggerSpec};
use crate::diag::suggestion;
use crate::error::{Error, ExitCode};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// All trigger types
    List,
    /// One trigger type: its keys, what `trigger.*` is, an example
    Show {
        /// Such as mde.alert.new
        name: String,
    },
}

pub(super) fn run(command: &Command, out: &Out) -> Result<ExitCode, Error> {
    let catalog = Catalog::builtin()?;
    match command {
        Command::List => {
            let items: Vec<Json> = catalog.triggers.values().map(|spec| summary(spec)).collect();
            out.list(&items, &["name", "connection", "poll", "title"], |item| {
                ["name", "connection", "poll", "title"].map(|key| cell(item, key)).to_vec()
            });
        }
        Command::Show { name } => {
            let spec = catalog.triggers.get(name.as_str()).ok_or_else(|| {
                let error = Error::new(ExitCode::NothingMatched, format!("there is no trigger {name}"));
                match suggestion(name, catalog.triggers.keys().map(|key| &**key)) {
                    Some(help) => error.help(help),
                    None => error.help("`watchfloor triggers list` names all"),
                }
            })?;
            show(spec, &catalog, out);
        }
    }
    Ok(ExitCode::Ok)
}

fn summary(spec: &TriggerSpec) -> Json {
    json!({
        "name": spec.name, "title": spec.title, "connection": spec.connection,
        "poll": spec.poll.map(|every| format!("{}s", every.as_secs())), "in_this_version": !spec.later,
    })
}

fn show(spec: &TriggerSpec, catalog: &Catalog, out: &Out) {
    if !out.is_human() {
        let mut item = summary(spec);
        if let Some(members) = item.as_object_mut() {
            members.insert("doc".into(), json!(spec.doc));
            members.insert("keys".into(), json!(spec.keys));
            members.insert("output".into(), actions::fields(&spec.output));
            members.insert("example".into(), json!(spec.example));
        }
        return out.json(&item);
    }
    out.line(&format!("{}: {}", spec.name, spec.title));
    out.line(&spec.doc);
    if spec.later {
        out.line("Not in this version.");
    }
    if !spec.keys.is_empty() {
        out.line(&format!("\nkeys: {}", spec.keys.join(", ")));
    }
    let ready = if spec.reread(catalog).is_some() { ", ready, ready_timeout, on_not_ready" } else { "" };
    let batch = if ["schedule", "manual"].contains(&&*spec.name) { "" } else { ", batch" };
    out.line(&format!("keys of every trigger: where, dedupe, concurrency, split{batch}{ready}"));
    out.line("\ntrigger:");
    actions::output(&spec.output, out);
    out.line("\nexample:");
    for line in spec.example.lines() {
        out.line(&format!("  {line}"));
    }
}
