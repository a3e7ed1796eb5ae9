//! `permissions`: the least permissions that the flows need, by connection. No network.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::load::Site;
use super::out::{Out, cell};
use super::{Global, catalogues, load, needs};
use crate::error::{Error, ExitCode};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Flow files or folders of them [default: `flows` of the configuration]
    paths: Vec<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let config = global.config()?;
    let catalog = catalogues::open(Some(&config))?;
    let paths = if args.paths.is_empty() { &config.flows } else { &args.paths };
    let loaded = load::load(paths, &catalog, &Site::of(&config), None)?;
    let needs = needs::of(loaded.flows.iter().map(|(card, _)| card), &catalog, &config);
    let mut items: Vec<Json> = vec![];
    for (name, needs) in &needs {
        let kind = config.connections.get(name).map(|connection| connection.kind);
        let api = kind.and_then(needs::api);
        let granted = needs.roles.iter().chain(&needs.others).map(|it| (it, api));
        let assigned = needs.azure.iter().map(|it| (it, Some("Azure role on the workspace")));
        for ((permission, actions), api) in granted.chain(assigned) {
            let flows: std::collections::BTreeSet<_> =
                actions.iter().filter_map(|action| needs.actions.get(action)).flatten().collect();
            items.push(json!({
                "connection": name, "kind": kind.map(|kind| kind.as_str().to_owned()), "api": api,
                "permission": permission, "actions": actions, "flows": flows,
            }));
        }
    }
    out.list(&items, &["connection", "permission", "of", "for"], |item| {
        let list = |key: &str| {
            let words = item.get(key).and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
            words.collect::<Vec<_>>().join(", ")
        };
        vec![cell(item, "connection"), cell(item, "permission"), cell(item, "api"), list("actions")]
    });
    if loaded.errors() > 0 {
        out.say(&format!("{} errors in the flow files: what those flows need is missing here", loaded.errors()));
        return Ok(ExitCode::Findings);
    }
    Ok(if items.is_empty() { ExitCode::NothingMatched } else { ExitCode::Ok })
}
