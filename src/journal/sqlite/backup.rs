//! A copy of a store, consistent and complete, made while a service may be writing to it.

use std::fs::File;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, params};

use super::moments;
use super::schema::private_file;
use crate::journal::{BACKUP, StoreError};

/// Pages that are copied in one step.
const STEP: i32 = 1024;

/// Copies all that is committed now to a new file that only its owner may read; answers its size in bytes. The copy knows
/// that it is one, and since when.
///
/// # Errors
/// `Full` where there is no room for it; `Failed` where the file exists or cannot be written. What was half written is
/// taken away.
pub(super) fn copy(from: &Connection, to: &Path, at: Timestamp) -> Result<u64, StoreError> {
    if to.symlink_metadata().is_ok() {
        let message = format!("{} exists; a backup never replaces a file, name another one", to.display());
        return Err(StoreError::Failed(message));
    }
    let part = beside(to, "part");
    let copied = part_of(from, &part, at).and_then(|()| {
        moments::at("backup.before")?;
        let failed = |error: std::io::Error| StoreError::Failed(format!("writing {}: {error}", to.display()));
        let size =
            File::open(&part).and_then(|file| file.sync_all().and_then(|()| file.metadata())).map_err(failed)?.len();
        std::fs::rename(&part, to).map_err(failed)?;
        if let Some(folder) = to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        moments::at("backup.after")?;
        Ok(size)
    });
    if copied.is_err() {
        for left in [part.clone(), beside(&part, "journal")] {
            // It may not be there; what matters is the first error.
            drop(std::fs::remove_file(left));
        }
    }
    copied
}

fn part_of(from: &Connection, part: &Path, at: Timestamp) -> Result<(), StoreError> {
    drop(std::fs::remove_file(part));
    private_file(part).map_err(|error| StoreError::Failed(format!("making the backup {}: {error}", part.display())))?;
    let mut to = Connection::open_with_flags(part, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Synced once, when all of it is there.
    to.execute_batch("PRAGMA synchronous = OFF")?;
    // A snapshot of its own: whatever is written meanwhile does not begin the copy anew.
    from.execute_batch("BEGIN")?;
    let copied = from.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).and_then(|()| {
        let backup = Backup::new(from, &mut to)?;
        loop {
            match backup.step(STEP)? {
                StepResult::Done => return Ok(()),
                StepResult::More => {}
                // Only recovery after a crash takes a lock that blocks a reader.
                _ => std::thread::yield_now(),
            }
        }
    });
    from.execute_batch("ROLLBACK")?;
    copied?;
    // A copy is one file.
    to.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    let sql = "INSERT OR REPLACE INTO named (name, body) VALUES (?1, ?2)";
    to.execute(sql, params![BACKUP, at.to_string().into_bytes()])?;
    to.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(if ending == "journal" { "-journal" } else { ".part" });
    PathBuf::from(name)
}
