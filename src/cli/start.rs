//! `start FLOW`: a person starts a flow in the running service.

use serde_json::{Value as Json, json};

use super::out::{Out, safe};
use super::{Global, control};
use crate::error::{Error, ExitCode};
use crate::trigger::manual::Start;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    flow: String,
    /// An input of the flow; may be given several times
    #[arg(long = "input", short = 'i', value_name = "NAME=VALUE", value_parser = pair)]
    inputs: Vec<(String, String)>,
    /// Start it for this alert, which is read first
    #[arg(long, value_name = "ID", conflicts_with = "incident")]
    alert: Option<String>,
    /// Start it for this incident, which is read first
    #[arg(long, value_name = "ID")]
    incident: Option<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("wanted NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn run(args: Args, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let config = global.config()?;
    let start = Start {
        flow: args.flow,
        inputs: args.inputs.into_iter().collect(),
        event: args.alert.or(args.incident),
        token: crate::clock::secret_token().chars().take(12).collect(),
    };
    let answer = control::call(&config.store, "start", &json!(start))?;
    let run = answer.get("run").and_then(Json::as_str).unwrap_or("");
    if out.is_human() {
        out.say("started:");
        out.line(&safe(run));
    } else {
        out.json(&json!({ "run": run }));
    }
    Ok(ExitCode::Ok)
}
