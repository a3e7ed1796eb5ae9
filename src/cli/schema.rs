//! `schema`: the JSON Schema of flow files or of suppression rules, for editors.

use super::out::Out;
use crate::error::{Error, ExitCode};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Of which files
    #[arg(default_value = "flow", value_parser = ["flow", "suppression"])]
    of: String,
}

pub(super) fn run(args: &Args, out: &Out) -> Result<ExitCode, Error> {
    match args.of.as_str() {
        "suppression" => out.json(&crate::suppress::json_schema()),
        _ => out.json(&crate::flow::schema::json_schema()),
    }
    Ok(ExitCode::Ok)
}
