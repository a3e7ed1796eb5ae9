//! The folder, its lock, the connections and the tables.
//!
//! Instants are whole nanoseconds since 1970 in UTC, so that they sort and come back exactly as they were given.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::migrate;
use crate::clock::Clock;
use crate::journal::StoreError;

/// The database's name in the store's folder.
pub(super) const FILE: &str = "watchfloor.db";

/// The format that this version writes; kept in `user_version`.
pub(super) const VERSION: i64 = 3;

/// How long to wait for another connection's lock: only recovery after a crash takes one that blocks.
const BUSY: Duration = Duration::from_secs(10);

/// Runs whose times of acceptance are kept together, so that a search by time need not look at each.
pub(super) const BLOCK: i64 = 1024;

/// A part's number: the run's, and below it the part's own.
pub(super) const PART_BITS: u32 = 20;

/// `log` is what was committed and is not yet sorted into `runs`, `parts` and `audit`. What runs have in common is in
/// `origins`; their status is a number and so is when they wake (see `record`), `seen` holds the hashes of their keys, `tallies` how many have which
/// status, `blocks` the first and last acceptance of each block of numbers.
pub(super) const RUN_TABLES: &str = "
CREATE TABLE log (no INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE flows (no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE origins (
    no INTEGER PRIMARY KEY,
    flow INTEGER NOT NULL,
    version TEXT NOT NULL,
    trigger_type TEXT NOT NULL,
    prefix TEXT NOT NULL,
    whole INTEGER NOT NULL,
    UNIQUE (flow, version, trigger_type, prefix, whole)
) STRICT;
CREATE TABLE runs (
    no INTEGER PRIMARY KEY,
    flow INTEGER NOT NULL,
    origin INTEGER NOT NULL,
    key TEXT NOT NULL,
    status INTEGER NOT NULL,
    reason TEXT,
    accepted INTEGER NOT NULL,
    occurred INTEGER NOT NULL,
    ended INTEGER,
    wake INTEGER,
    effects TEXT,
    turns INTEGER NOT NULL,
    parts INTEGER NOT NULL
) STRICT;
CREATE INDEX runs_by_status ON runs (status);
CREATE INDEX runs_by_flow ON runs (flow, status);
CREATE INDEX runs_asleep ON runs (wake) WHERE wake IS NOT NULL;
CREATE TABLE parts (no INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE models (
    no INTEGER PRIMARY KEY,
    origin INTEGER NOT NULL,
    made INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX models_by_origin ON models (origin);
CREATE TABLE seen (hash BLOB NOT NULL PRIMARY KEY, run INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE tallies (status INTEGER PRIMARY KEY, n INTEGER NOT NULL) STRICT;
CREATE TABLE blocks (no INTEGER PRIMARY KEY, low INTEGER NOT NULL, high INTEGER NOT NULL) STRICT;
CREATE TABLE marks (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE audit (no INTEGER PRIMARY KEY, at INTEGER NOT NULL, hash BLOB NOT NULL, body BLOB NOT NULL) STRICT;
";

/// Small things with names of their own.
const TABLES: &str = "
CREATE TABLE bundles (version TEXT NOT NULL PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE named (name TEXT NOT NULL PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE reservations (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX reservations_by_time ON reservations (at);
CREATE TABLE claims (
    key TEXT NOT NULL PRIMARY KEY,
    run INTEGER NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE skipped (
    flow TEXT NOT NULL,
    key TEXT NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (flow, key)
) STRICT;
";

/// Came after the first stores of this format: made where missing. Only who prunes needs the index; a reader takes the tables
/// for empty where they are not there. Numbers of gatherings are never given twice.
const KEPT: &str = "
CREATE INDEX IF NOT EXISTS runs_kept ON runs (accepted) WHERE parts > 0;
CREATE TABLE IF NOT EXISTS gatherings (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    flow TEXT NOT NULL,
    version TEXT NOT NULL,
    slot TEXT NOT NULL,
    opened INTEGER NOT NULL,
    due INTEGER NOT NULL,
    events INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    full INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS gatherings_open ON gatherings (flow, version, slot) WHERE full = 0;
CREATE TABLE IF NOT EXISTS gathered (
    gathering INTEGER NOT NULL,
    no INTEGER NOT NULL,
    trigger_type TEXT NOT NULL,
    key TEXT NOT NULL,
    accepted INTEGER NOT NULL,
    occurred INTEGER NOT NULL,
    payload TEXT NOT NULL,
    inputs TEXT NOT NULL,
    PRIMARY KEY (gathering, no)
) STRICT, WITHOUT ROWID;
";

/// Came while format 2 was written: some of its stores have it.
pub(super) const LETTERS: &str = "
CREATE TABLE IF NOT EXISTS letters (
    id TEXT NOT NULL PRIMARY KEY,
    flow TEXT NOT NULL,
    key TEXT NOT NULL,
    at INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
";

/// Makes the folder where missing and takes the lock that only one service can have.
pub(super) fn lock_folder(dir: &Path) -> Result<File, StoreError> {
    let failed = |what: &str, error: &std::io::Error| {
        let message = format!("{what} {}: {error}", dir.display());
        match error.kind() {
            std::io::ErrorKind::StorageFull => StoreError::Full(message),
            _ => StoreError::Failed(message),
        }
    };
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|error| failed("making the store's folder", &error))?;
    refuse_shared(dir)?;
    let lock = private_file(&dir.join("lock")).map_err(|error| failed("opening the lock of the store in", &error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(dir.display().to_string())),
        Err(TryLockError::Error(error)) => return Err(failed("locking the store in", &error)),
    }
    // SQLite gives its side files the permissions of the file that it finds.
    private_file(&dir.join(FILE)).map_err(|error| failed("making the store in", &error))?;
    Ok(lock)
}

/// A store that others can change says what they want it to: which effects were made, and which are still to come.
#[cfg(unix)]
fn refuse_shared(dir: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    let refused = |message: String| Err(StoreError::Failed(message));
    let mode = |meta: &std::fs::Metadata| meta.permissions().mode();
    if std::fs::metadata(dir).is_ok_and(|meta| mode(&meta) & 0o022 != 0) {
        let dir = dir.display();
        return refused(format!("other users of this machine can change the store's folder {dir}; `chmod go-w {dir}`"));
    }
    let file = dir.join(FILE);
    match std::fs::symlink_metadata(&file) {
        Ok(meta) if !meta.is_file() => {
            refused(format!("{} is a link or no regular file; a store is the file itself", file.display()))
        }
        Ok(meta) if mode(&meta) & 0o077 != 0 => {
            let file = file.display();
            refused(format!("other users of this machine can read or change the store {file}; `chmod 600 {file}`"))
        }
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn refuse_shared(_: &Path) -> Result<(), StoreError> {
    Ok(())
}

/// A file that only its owner may read, made where missing and never emptied.
pub(super) fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The one connection that writes, with the tables of this version.
pub(super) fn open_writer(file: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE | no_mutex())?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    let found = version(&connection)?;
    if found > VERSION {
        return Err(StoreError::Newer { found, known: VERSION });
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let message =
            format!("{}: this file system cannot hold a write-ahead log; choose a local disk", file.display());
        return Err(StoreError::Failed(message));
    }
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 4000;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    if found == 0 {
        let create =
            format!("BEGIN IMMEDIATE; {RUN_TABLES} {LETTERS} {TABLES} PRAGMA user_version = {VERSION}; COMMIT;");
        connection.execute_batch(&create)?;
    } else if found < VERSION {
        migrate::forward(&connection, file, found, Clock::system().now())?;
    }
    connection.execute_batch(KEPT)?;
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn open_reader(file: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY | no_mutex())?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Whether a reader of this version understands the store.
pub(super) fn check_version(connection: &Connection) -> Result<(), StoreError> {
    match version(connection)? {
        found if found > VERSION => Err(StoreError::Newer { found, known: VERSION }),
        VERSION => Ok(()),
        found => {
            Err(StoreError::Failed(format!("the store has format {found}; `watchfloor run` brings it to {VERSION}")))
        }
    }
}

fn version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Each connection is used by one thread at a time: SQLite's own mutexes would only cost.
fn no_mutex() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_NO_MUTEX
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let full = match error.sqlite_error() {
            // Growing the shared index of the WAL reports a full disk as a failed size change.
            Some(inner) => inner.code == ErrorCode::DiskFull || inner.extended_code == ffi::SQLITE_IOERR_SHMSIZE,
            None => false,
        };
        if full { StoreError::Full(error.to_string()) } else { StoreError::Failed(format!("the store: {error}")) }
    }
}

/// Nanoseconds since 1970; instants beyond 64 bits (after the year 2262) become the last one.
pub(super) fn nanos(at: Timestamp) -> i64 {
    let nanos = at.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// The instant of a row.
pub(super) fn instant(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}
