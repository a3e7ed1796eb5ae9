//! `check`: flow files against the catalogue and the configuration, without any network.

use std::path::PathBuf;

use serde_json::json;

use super::load::Site;
use super::out::{Out, safe};
use super::{Format, Global, catalogues, endings, load, suppressions};
use crate::diag::{self, Diagnostic, Severity};
use crate::error::{Error, ExitCode};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Flow files or folders of them [default: `flows` of the configuration, else ./flows]
    paths: Vec<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let config = global.config_if_any()?;
    let catalog = catalogues::open(config.as_ref())?;
    let paths = match (&*args.paths, &config) {
        ([], Some(config)) => config.flows.clone(),
        ([], None) => vec![PathBuf::from("flows")],
        (paths, _) => paths.to_vec(),
    };
    let site = config.as_ref().map(Site::of).unwrap_or_default();
    let mut loaded = load::load(&paths, &catalog, &site, None)?;
    let endings = endings::of(loaded.flows.iter().map(|(card, _)| card), &catalog, config.as_ref())?;
    let endings: Vec<_> = endings.into_iter().filter(|ending| ending.end.is_some()).collect();
    let mut files = loaded.files();
    if let ([], Some(config)) = (&*args.paths, &config) {
        let rules = suppressions::load(config, crate::clock::Clock::system().now())?;
        files += rules.files;
        loaded.diagnostics.extend(rules.diagnostics);
    }
    match out.format() {
        Format::Human => {
            let text = diag::render(&loaded.diagnostics, out.colors());
            if !text.is_empty() {
                out.line(text.trim_end());
            }
        }
        Format::Json => {
            let diagnostics: Vec<_> = loaded.diagnostics.iter().map(diag::json).collect();
            out.json(&json!({ "files": files, "diagnostics": diagnostics, "notes": endings }));
        }
        Format::Jsonl => loaded.diagnostics.iter().for_each(|fault| out.json(&diag::json(fault))),
        Format::Github => {
            loaded.diagnostics.iter().for_each(|fault| out.line(&annotation(fault)));
            let notice = |text: String| format!("::notice title=end::{}", safe(&text).replace('%', "%25"));
            endings.iter().for_each(|ending| out.line(&notice(ending.sentence())));
        }
    }
    let errors = loaded.errors();
    let warnings = loaded.diagnostics.len() - errors;
    if out.is_human() {
        endings.iter().for_each(|ending| out.say(&safe(&format!("note: {}", ending.sentence()))));
        out.say(&format!("{files} files, {errors} errors, {warnings} warnings"));
    }
    if files == 0 && errors == 0 {
        return Err(
            Error::new(ExitCode::NothingMatched, "no flow file was found").help("flow files end in .yaml or .yml")
        );
    }
    Ok(if errors == 0 { ExitCode::Ok } else { ExitCode::Findings })
}

/// A workflow command of GitHub Actions; `%`, line breaks and the separators are encoded so that no text ends it.
fn annotation(fault: &Diagnostic) -> String {
    let (line, column) = fault.source.line_col(fault.span.start);
    let level = match fault.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let encode = |text: &str| safe(text).replace('%', "%25").replace(',', "%2C").replace(':', "%3A");
    let file = encode(&fault.source.name);
    let help = fault.help.as_deref().map_or_else(String::new, |help| format!(" ({help})"));
    let message = safe(&format!("{}{help}", fault.message)).replace('%', "%25");
    format!("::{level} file={file},line={line},col={column},title={}::{message}", fault.code)
}
