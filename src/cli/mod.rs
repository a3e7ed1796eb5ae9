//! The command line: one file per command.

/// Runs the whole program; the exit code is that of the command.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
