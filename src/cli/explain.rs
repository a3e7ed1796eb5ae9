//! `explain CODE`: the page of a diagnostic.

use serde_json::json;

use super::out::Out;
use crate::diag::codes;
use crate::error::{Error, ExitCode};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Such as WF0108
    code: String,
}

pub(super) fn run(args: &Args, out: &Out) -> Result<ExitCode, Error> {
    let page = codes::page(&args.code).ok_or_else(|| {
        Error::new(ExitCode::NothingMatched, format!("there is no code {}", args.code))
            .help("a code is WF and four digits, as `watchfloor check` prints it")
    })?;
    if !out.is_human() {
        out.json(&json!({ "code": page.code, "title": page.title, "text": page.text, "example": page.example }));
        return Ok(ExitCode::Ok);
    }
    out.line(&format!("{}: {}\n\n{}", page.code, page.title, page.text));
    if !page.example.is_empty() {
        out.line("");
        page.example.lines().for_each(|line| out.line(&format!("  {line}")));
    }
    Ok(ExitCode::Ok)
}
