//! `actions list` and `actions show`: what flows can do, from the catalogue.

use serde_json::{Value as Json, json};

use super::out::{Out, cell};
use super::{Global, catalogues, reference};
use crate::catalog::{Action, Type};
use crate::diag::suggestion;
use crate::error::{Error, ExitCode};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// All actions
    List {
        /// Only those of a connector, such as mde
        connector: Option<String>,
    },
    /// One action: inputs, output, permission, example
    Show {
        /// Such as mde.isolate_machine
        name: String,
    },
    /// Write a page for each service, with its actions, into a folder
    Docs {
        /// The folder
        #[arg(long, default_value = "docs/actions")]
        dir: std::path::PathBuf,
    },
}

pub(super) fn run(command: &Command, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let catalog = catalogues::open(global.config_if_any()?.as_ref())?;
    match command {
        Command::List { connector } => {
            let wanted = |action: &Action| connector.as_deref().is_none_or(|name| name == action.connector());
            let items: Vec<Json> =
                catalog.actions.values().filter(|action| wanted(action)).map(|a| summary(a)).collect();
            out.list(&items, &["name", "effect", "undo", "permission"], |item| {
                ["name", "effect", "undo", "permission"].map(|key| cell(item, key)).to_vec()
            });
            Ok(if items.is_empty() { ExitCode::NothingMatched } else { ExitCode::Ok })
        }
        Command::Docs { dir } => {
            let count = reference::write(&catalog, dir)?;
            out.say(&format!("{count} pages in {}", dir.display()));
            Ok(ExitCode::Ok)
        }
        Command::Show { name } => {
            let action = catalog.action(name).ok_or_else(|| {
                let error = Error::new(ExitCode::NothingMatched, format!("there is no action {name}"));
                match suggestion(name, catalog.actions.keys().map(|key| &**key)) {
                    Some(help) => error.help(help),
                    None => error.help("`watchfloor actions list` names all"),
                }
            })?;
            show(action, out);
            Ok(ExitCode::Ok)
        }
    }
}

fn summary(action: &Action) -> Json {
    json!({
        "name": action.name, "connector": action.connector(), "effect": action.effect, "undo": action.undo,
        "method": action.method, "path": action.path, "permission": action.permission,
    })
}

fn show(action: &Action, out: &Out) {
    if !out.is_human() {
        let mut item = summary(action);
        if let Some(members) = item.as_object_mut() {
            let inputs: Vec<Json> = action
                .inputs
                .iter()
                .map(|input| {
                    json!({
                        "name": input.name, "type": input.ty.to_string(), "required": input.required,
                        "default": input.default.as_ref().map(crate::value::Value::to_json), "doc": input.doc,
                    })
                })
                .collect();
            members.insert("title".into(), json!(action.title));
            members.insert("doc".into(), json!(action.doc));
            members.insert("inputs".into(), Json::Array(inputs));
            members.insert("output".into(), fields(&action.output));
            members.insert("example".into(), json!(action.example));
            members.insert("source".into(), json!(action.source));
        }
        return out.json(&item);
    }
    out.line(&format!("{}: {}", action.name, action.title));
    out.line(&action.doc);
    out.line("");
    out.line(&format!("effect      {}", action.effect.as_str()));
    for (label, text) in [("undone by", &action.undo), ("source", &Some(action.source.clone()))] {
        if let Some(text) = text {
            out.line(&format!("{label:<11} {text}"));
        }
    }
    out.line(&format!("permission  {}", action.permission));
    out.line("\nwith:");
    out.table(
        &["input", "type", "", "what"],
        action.inputs.iter().map(|input| {
            let need = if input.required { "required".to_owned() } else { String::new() };
            let default = input.default.as_ref().map(|value| format!("default {}", value.to_json()));
            vec![input.name.to_string(), input.ty.to_string(), default.unwrap_or(need), input.doc.to_string()]
        }),
    );
    out.line("\noutput:");
    output(&action.output, out);
    out.line("\nexample:");
    for line in action.example.lines() {
        out.line(&format!("  {line}"));
    }
}

/// The members of an output type as a table.
pub(super) fn output(ty: &Type, out: &Out) {
    match ty {
        Type::Object(object) => out.table(
            &["field", "type", "what"],
            object.fields.iter().map(|(name, field)| {
                let optional = if field.optional { "?" } else { "" };
                vec![name.to_string(), format!("{}{optional}", field.ty), field.doc.to_string()]
            }),
        ),
        other => out.line(&format!("  {other}")),
    }
}

/// The members of an output type as JSON.
pub(super) fn fields(ty: &Type) -> Json {
    let Type::Object(object) = ty else { return json!({ "type": ty.to_string() }) };
    let fields = object.fields.iter().map(|(name, field)| {
        (name.to_string(), json!({ "type": field.ty.to_string(), "optional": field.optional, "doc": field.doc }))
    });
    json!({ "type": ty.to_string(), "fields": fields.collect::<serde_json::Map<String, Json>>() })
}
