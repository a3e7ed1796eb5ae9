//! `explain CODE`: the page of a diagnostic, or what Entra means by a refused token.

use serde_json::json;

use super::out::Out;
use crate::connector::aadsts::{self, Kind};
use crate::diag::codes;
use crate::error::{Error, ExitCode};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Such as WF0108, or AADSTS7000222
    code: String,
}

pub(super) fn run(args: &Args, out: &Out) -> Result<ExitCode, Error> {
    let number = args.code.to_ascii_uppercase().strip_prefix("AADSTS").and_then(|digits| digits.parse().ok());
    if let Some(row) = number.and_then(aadsts::find) {
        let (code, passes) = (format!("AADSTS{}", row.number), row.kind != Kind::Lasting);
        match out.is_human() {
            true => out.line(&format!("{code}: {}\n\n{}\n\nsource: {}", row.means, row.todo, row.source)),
            false => out.json(&json!({
                "code": code, "title": row.means, "text": row.todo, "passes": passes, "source": row.source,
            })),
        }
        return Ok(ExitCode::Ok);
    }
    let page = codes::page(&args.code).ok_or_else(|| {
        Error::new(ExitCode::NothingMatched, format!("there is no code {}", args.code)).help(
            "a code is WF and four digits, as `watchfloor check` prints it, or AADSTS and a number, as Entra does",
        )
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
