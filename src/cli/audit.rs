//! `audit verify`, `audit export`: the log of every decision about an effect, and whether anybody changed it.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::out::Out;
use super::{Global, runs};
use crate::error::{Error, ExitCode};
use crate::id::hex;
use crate::journal::chain::{Anchor, Walk};
use crate::journal::{AuditLine, Store};

/// Lines that are read at a time.
const SLICE: usize = 4096;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Whether the log is whole: every line chained to the one before it
    Verify(Verify),
    /// The log as JSON lines, with numbers and hashes
    Export(Export),
}

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The log must still hold what this file says: lines that were cut off at the end are found by nothing else
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Where the log is whole, write its last number and hash to this file; keep it out of reach of this machine
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// Only lines with a number above this one
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    after: i64,
}

pub(super) fn run(command: &Command, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let store = runs::open(global)?;
    match command {
        Command::Verify(args) => verify(&store, args, out),
        Command::Export(args) => {
            each(&store, args.after, |line| {
                out.line(&exported(line).to_string());
                Ok(true)
            })?;
            Ok(ExitCode::Ok)
        }
    }
}

fn verify(store: &dyn Store, args: &Verify, out: &Out) -> Result<ExitCode, Error> {
    let wanted = args.against.as_deref().map(read_checkpoint).transpose()?;
    let mut walk = Walk::new(Anchor::read(store).map_err(runs::failed)?);
    let mut fault = None;
    let mut met = wanted.as_ref().is_none_or(|wanted| *wanted == walk.last());
    each(store, walk.last().no, |line| {
        fault = walk.step(line).err();
        met |= wanted.as_ref().is_some_and(|wanted| *wanted == walk.last());
        Ok(fault.is_none())
    })?;
    let last = walk.last();
    if let (None, Some(wanted), false) = (&fault, &wanted, met) {
        fault = Some(if wanted.no > last.no {
            format!("the log ends at line {}, and once had line {}: lines were cut off", last.no, wanted.no)
        } else if wanted.no <= walk.first().no {
            format!("line {} of the checkpoint is older than the log; its time is over", wanted.no)
        } else {
            format!("line {} is not the one of the checkpoint: the log was written anew", wanted.no)
        });
    }
    let answer = json!({
        "ok": fault.is_none(), "lines": last.no - walk.first().no, "first": walk.first().no + 1, "last": last.no,
        "hash": hex(&last.hash), "fault": fault,
    });
    if let Some(fault) = &fault {
        if out.is_human() {
            out.line(&format!("the audit log is not whole: {fault}"));
        } else {
            out.json(&answer);
        }
        return Ok(ExitCode::Findings);
    }
    if let Some(file) = &args.checkpoint {
        let text = format!("{}\n", json!({ "no": last.no, "hash": hex(&last.hash) }));
        std::fs::write(file, text)
            .map_err(|error| Error::new(ExitCode::Temporary, format!("writing {}: {error}", file.display())))?;
    }
    if out.is_human() {
        let pruned =
            if walk.first().no > 0 { format!(", {} before them were pruned", walk.first().no) } else { String::new() };
        out.line(&format!(
            "{} lines are whole{pruned}; the last is {} {}",
            last.no - walk.first().no,
            last.no,
            hex(&last.hash)
        ));
    } else {
        out.json(&answer);
    }
    Ok(ExitCode::Ok)
}

/// Calls `each` with the lines after a number, until it answers `false`.
fn each(
    store: &dyn Store,
    mut after: i64,
    mut each: impl FnMut(&AuditLine) -> Result<bool, Error>,
) -> Result<(), Error> {
    loop {
        let lines = store.audit(after, SLICE).map_err(runs::failed)?;
        let Some(last) = lines.last() else { return Ok(()) };
        after = last.no;
        for line in &lines {
            if !each(line)? {
                return Ok(());
            }
        }
    }
}

/// The body stays a text: its bytes are what was hashed.
fn exported(line: &AuditLine) -> Json {
    json!({ "no": line.no, "at": line.at, "hash": hex(&line.hash), "body": String::from_utf8_lossy(&line.body) })
}

fn read_checkpoint(file: &Path) -> Result<Anchor, Error> {
    let fault = |what: String| Error::usage(format!("reading the checkpoint {}: {what}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| fault(error.to_string()))?;
    let json: Json = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
    let (no, hash) = (json.get("no").and_then(Json::as_i64), json.get("hash").and_then(Json::as_str));
    no.zip(hash)
        .and_then(|(no, hash)| Anchor::parse(&format!("{no} {hash}")))
        .ok_or_else(|| fault("wanted what `watchfloor audit verify --checkpoint` writes".into()))
}
