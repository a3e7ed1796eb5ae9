//! `schema`: the JSON Schema of flow files or of suppression rules, for editors.

use serde_json::{Value as Json, json};

use super::out::Out;
use super::{Global, catalogues};
use crate::catalog::Catalog;
use crate::error::{Error, ExitCode};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Of which files
    #[arg(default_value = "flow", value_parser = ["flow", "suppression"])]
    of: String,
}

pub(super) fn run(args: &Args, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let schema = match args.of.as_str() {
        "suppression" => crate::suppress::json_schema(),
        _ => {
            let catalog = catalogues::open(global.config_if_any()?.as_ref())?;
            with_actions(crate::flow::schema::json_schema(), &catalog)
        }
    };
    out.json(&schema);
    Ok(ExitCode::Ok)
}

/// The names of this installation's actions, its own connectors' included, where the grammar has any word.
fn with_actions(mut schema: Json, catalog: &Catalog) -> Json {
    let (names, titles): (Vec<&str>, Vec<&str>) =
        catalog.actions.values().map(|action| (&*action.name, &*action.title)).unzip();
    let place = schema.pointer_mut("/definitions/action_step/properties/action").and_then(Json::as_object_mut);
    if let Some(place) = place {
        place.insert("enum".into(), json!(names));
        // Not of draft-07, which lets it pass: editors show it beside each name.
        place.insert("enumDescriptions".into(), json!(titles));
    }
    schema
}
