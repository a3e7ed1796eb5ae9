//! The files of suppression rules: found below the folders of the configuration as flows are, read and checked all at once.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::load;
use crate::config::Config;
use crate::diag::{Diagnostic, Severity, Source, Span};
use crate::error::Error;
use crate::suppress::{self, Given, Rule, Rules};

/// Rules of one installation: each alert is compared with all of them.
const MOST: usize = 1_000;

/// What was found in the files.
#[derive(Default)]
pub(super) struct Found {
    /// Each rule with its file.
    pub(super) rules: Vec<(Rule, PathBuf)>,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) files: usize,
}

impl Found {
    pub(super) fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|fault| fault.severity == Severity::Error).count()
    }

    pub(super) fn rules(&self) -> Rules {
        Rules::new(self.rules.iter().map(|(rule, _)| rule.clone()).collect())
    }
}

/// Reads the rules of a configuration.
///
/// # Errors
/// Where a folder that is named can't be read. What is wrong in a file is a diagnostic.
pub(super) fn load(config: &Config, now: Timestamp) -> Result<Found, Error> {
    of(&config.suppressions, Given { now, user_scoped: Some(&config.user_scoped_suppressions) })
}

/// Reads the rules of files and folders.
pub(super) fn of(paths: &[PathBuf], given: Given<'_>) -> Result<Found, Error> {
    let (mut files, mut found) = (vec![], Found::default());
    for path in paths {
        load::find(path, &mut files, &mut found.diagnostics)?;
    }
    files.sort();
    files.dedup();
    if files.len() > MOST {
        return Err(Error::config(format!("{} files of suppression rules, at most {MOST}", files.len())));
    }
    found.files = files.len();
    for path in files {
        match load::read(&path) {
            Ok(text) => {
                let source = Source::new(path.display().to_string(), text);
                let (rule, faults) = suppress::read(&source, given);
                found.diagnostics.extend(faults);
                if let Some(rule) = rule {
                    take(rule, path, &source, &mut found);
                }
            }
            Err(message) => found.diagnostics.push(load::unreadable(&path, message)),
        }
    }
    Ok(found)
}

/// Two rules with one name would tell nobody which of them it was.
fn take(rule: Rule, path: PathBuf, source: &std::sync::Arc<Source>, found: &mut Found) {
    match found.rules.iter().find(|(known, _)| known.name == rule.name) {
        None => found.rules.push((rule, path)),
        Some((_, other)) => {
            let message = format!("the rule {} is also in {}", rule.name, shown(other));
            let fault = Diagnostic::error("WF0910", source, Span::new(0, 1), message);
            found.diagnostics.push(fault.help("give one of the two another name"));
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
