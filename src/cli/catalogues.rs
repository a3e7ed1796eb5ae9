//! The catalogue of an installation: what the program brings along, and the files of the user's own connectors, found and
//! bounded here. What they say is checked in `catalog`.

use std::path::{Path, PathBuf};

use crate::catalog::{Catalog, ConnectionKind};
use crate::config::Config;
use crate::error::Error;
use crate::id::{digest16, hex};

/// Largest file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
const MAX_FILES: usize = 200;
const MAX_DEPTH: usize = 8;

/// The catalogue with the connectors of a configuration. Each kind of connection that it configures must be there.
///
/// # Errors
/// The first fault of a file, with its place.
pub(super) fn open(config: Option<&Config>) -> Result<Catalog, Error> {
    let Some(config) = config else { return Catalog::builtin() };
    let mut paths = vec![];
    for path in &config.catalogues {
        find(path, 0, &mut paths)?;
    }
    paths.sort();
    let files = paths.iter().map(|path| Ok((path.display().to_string(), text(path)?)));
    let files = files.collect::<Result<Vec<_>, Error>>()?;
    let mut catalog = Catalog::with_own(&files)?;
    if !files.is_empty() {
        let parts: Vec<&str> = files.iter().flat_map(|(name, text)| [name.as_str(), text.as_str()]).collect();
        catalog.own_digest = hex(&digest16(&parts)).into();
    }
    for connection in config.connections.values() {
        if let ConnectionKind::Own(kind) = connection.kind
            && !catalog.own.contains_key(kind.as_str())
        {
            let (name, kind) = (&connection.name, kind.as_str());
            let known =
                ConnectionKind::SHIPPED.iter().map(ConnectionKind::as_str).chain(catalog.own.keys().map(|key| &**key));
            let error =
                Error::config(format!("connections.{name}.kind: no file below `catalogues` has a connector {kind}"));
            return Err(match crate::diag::suggestion(kind, known) {
                Some(help) => error.help(help),
                None => error,
            });
        }
    }
    Ok(catalog)
}

fn find(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let fault = |what: &str| Error::config(format!("reading the catalogue {}: {what}", path.display()));
    let meta = std::fs::symlink_metadata(path).map_err(|error| fault(&error.to_string()))?;
    // Only what was named may be a link: one below a folder could lead anywhere.
    let meta = if depth == 0 { std::fs::metadata(path).map_err(|error| fault(&error.to_string()))? } else { meta };
    if meta.is_symlink() {
        return Err(fault("it is a link, which may lead out of the folder"));
    }
    if meta.is_dir() {
        if depth >= MAX_DEPTH {
            return Err(fault("the folders lie too deep"));
        }
        for entry in std::fs::read_dir(path).map_err(|error| fault(&error.to_string()))? {
            let entry = entry.map_err(|error| fault(&error.to_string()))?.path();
            let yaml = entry.extension().is_some_and(|end| end == "yaml" || end == "yml");
            let hidden = entry.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && (yaml || entry.is_dir()) {
                find(&entry, depth + 1, found)?;
            }
        }
        return Ok(());
    }
    if !meta.is_file() {
        return Err(fault("it is no regular file"));
    }
    if meta.len() > MAX_BYTES {
        return Err(fault("it is larger than 1 MiB"));
    }
    if found.len() >= MAX_FILES {
        return Err(fault("there are more than 200 files"));
    }
    found.push(path.to_path_buf());
    Ok(())
}

fn text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::config(format!("reading the catalogue {}: {error}", path.display())))
}
