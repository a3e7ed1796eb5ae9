//! Expected errors and the exit code of each. A message says what was being done, to what, and what to do next.

use std::fmt;

/// Exit codes of the command line (product contract; 69, 75, 77 and 78 are those of sysexits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    Ok = 0,
    /// Findings, a failed test or a failed run.
    Findings = 1,
    Usage = 2,
    NothingMatched = 3,
    Unavailable = 69,
    Temporary = 75,
    Permission = 77,
    Config = 78,
}

/// An expected error: its exit code, one sentence, and what to do next.
#[derive(Debug)]
pub struct Error {
    pub code: ExitCode,
    pub message: String,
    pub help: Option<String>,
}

impl Error {
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Error { code, message: message.into(), help: None }
    }

    pub fn config(message: impl Into<String>) -> Self {
        Error::new(ExitCode::Config, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Error::new(ExitCode::Usage, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Error::new(ExitCode::Unavailable, message)
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
