//! `completions SHELL`: a script that a shell sources.

use clap::CommandFactory;

use crate::error::{Error, ExitCode};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Error> {
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut super::Args::command(), "watchfloor", &mut script);
    drop(std::io::Write::write_all(&mut anstream::stdout().lock(), &script));
    Ok(ExitCode::Ok)
}
