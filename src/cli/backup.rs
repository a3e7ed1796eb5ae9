//! `backup`: a copy of the store, made while the service runs.

use std::path::PathBuf;

use serde_json::json;

use super::out::Out;
use super::{Global, runs};
use crate::clock::{Clock, stopwatch};
use crate::error::{Error, ExitCode};
use crate::journal::sqlite::SqliteStore;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file that does not exist yet [default: watchfloor.backup.TIME.db in the store's folder]
    file: Option<PathBuf>,
}

pub(super) fn run(args: Args, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let config = global.config()?;
    let store = SqliteStore::open_read(&config.store).map_err(runs::failed)?;
    let (now, watch) = (Clock::system().now(), stopwatch());
    let name = || config.store.join(format!("watchfloor.backup.{}.db", now.strftime("%Y%m%dT%H%M%SZ")));
    let file = args.file.unwrap_or_else(name);
    let bytes = store.copy_to(&file, now).map_err(runs::failed)?;
    let seconds = watch.elapsed().as_secs_f64();
    if out.is_human() {
        let mib = bytes as f64 / f64::from(1 << 20);
        out.line(&format!("{}: {mib:.1} MiB in {seconds:.1} s", file.display()));
        out.say("to restore it: stop the service, put the file in the store's folder as watchfloor.db, and remove watchfloor.db-wal and -shm");
    } else {
        out.json(&json!({ "file": file, "bytes": bytes, "seconds": seconds, "at": now }));
    }
    Ok(ExitCode::Ok)
}
