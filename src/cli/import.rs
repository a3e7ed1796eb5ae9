//! `import FILE`: what others have described, as files of ours. The front door: it reads, bounds and tells kinds apart; each
//! kind is a file of its own below `import`.

mod names;
mod openapi;
mod types;
mod write;

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::out::Out;
use crate::catalog::Catalog;
use crate::error::{Error, ExitCode};

/// The largest document, in bytes.
const MAX_BYTES: u64 = 32 * 1024 * 1024;
/// The largest file that is read as a catalogue, in bytes.
const MAX_WRITTEN: usize = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An OpenAPI 3 document, in JSON or YAML
    file: PathBuf,
    /// The connector's name: the word before the dot of its actions [default: from the document's title]
    #[arg(long, value_name = "NAME")]
    connector: Option<String>,
    /// Only operations whose path or id has this in it; may be given several times
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Write the catalogue into this file, which must not exist [default: print it]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args, out: &Out) -> Result<ExitCode, Error> {
    let name = args.file.display().to_string();
    let document = read(&args.file, &name)?;
    let wanted = openapi::Wanted { connector: args.connector.as_deref(), only: &args.only, file: &name };
    let made = openapi::import(&document, &wanted)?;
    if made.actions == 0 {
        let message = format!("{name}: none of its operations became an action");
        return Err(Error::new(ExitCode::NothingMatched, message).help(made.left_out.first().map_or_else(
            || "no operation has the text of `--only` in its path or id".to_owned(),
            |(operation, why)| format!("{operation}: {why}"),
        )));
    }
    if made.text.len() > MAX_WRITTEN {
        let message = format!("{name}: its {} actions make a catalogue of more than 1 MiB", made.actions);
        return Err(Error::usage(message).help("choose what you need with `--only TEXT`"));
    }
    // What is written is read as it would be later: a file that does not load is never handed out.
    let place = args.out.as_deref().map_or_else(|| "the catalogue".to_owned(), |path| path.display().to_string());
    Catalog::with_own(&[(place, made.text.clone())])?;
    match &args.out {
        Some(path) => write_new(path, &made.text)?,
        None if out.is_human() => out.line(made.text.trim_end()),
        None => {}
    }
    report(&made, args, out);
    Ok(ExitCode::Ok)
}

fn report(made: &openapi::Made, args: &Args, out: &Out) {
    if !out.is_human() {
        let pairs = |list: &[(String, String)]| -> Vec<Json> {
            list.iter().map(|(operation, why)| json!({ "operation": operation, "why": why })).collect()
        };
        let text = args.out.is_none().then_some(&made.text);
        return out.json(&json!({
            "connector": made.connector, "actions": made.actions, "catalogue": text,
            "left_out": pairs(&made.left_out), "notes": pairs(&made.notes), "review": made.review,
        }));
    }
    for (operation, why) in &made.left_out {
        out.say(&format!("left out: {operation}: {why}"));
    }
    for (operation, what) in &made.notes {
        out.say(&format!("note: {operation}: {what}"));
    }
    out.say(&format!(
        "{} actions of {}, {} operations left out, {} effects to review: what is no GET counts as a write until you say otherwise",
        made.actions,
        made.connector,
        made.left_out.len(),
        made.review
    ));
}

/// The document as a tree, whatever it is written in; a kind that is not read says so.
fn read(path: &Path, name: &str) -> Result<Json, Error> {
    let fault = |why: String| Error::config(format!("reading {name}: {why}"));
    let meta = std::fs::metadata(path).map_err(|error| fault(error.to_string()))?;
    if !meta.is_file() || meta.len() > MAX_BYTES {
        return Err(fault("it is no regular file of at most 32 MiB".into()));
    }
    let bytes = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
    if bytes.starts_with(b"PK\x03\x04") {
        return Err(fault("it is a package; only OpenAPI 3 documents are read in this version".into()));
    }
    let text = String::from_utf8(bytes).map_err(|_| fault("it is no UTF-8 text".into()))?;
    let document = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?
    } else {
        crate::catalog::large_tree(&text).map_err(fault)?
    };
    if document.get("openapi").and_then(Json::as_str).is_some_and(|version| version.starts_with("3.")) {
        return Ok(document);
    }
    Err(match document.get("swagger") {
        Some(_) => fault("it is OpenAPI 2 (Swagger)".into()).help("convert it to OpenAPI 3 first"),
        None => fault("it is no OpenAPI 3 document: it has no `openapi: 3.…`".into()),
    })
}

fn write_new(path: &Path, text: &str) -> Result<(), Error> {
    use std::io::Write as _;
    let fault = |error: std::io::Error| {
        Error::config(format!("writing {}: {error}", path.display())).help("an existing file is never overwritten")
    };
    let mut file = std::fs::File::create_new(path).map_err(fault)?;
    file.write_all(text.as_bytes()).map_err(fault)
}
