//! The command line: one file per command. Data goes to stdout, talk to stderr.

mod actions;
mod alerts;
mod alerts_act;
mod alerts_read;
mod alerts_show;
mod audit;
mod backup;
mod cache;
mod catalogues;
mod check;
mod completions;
mod control;
mod demo;
mod deploy;
mod dlq;
mod doctor;
mod endings;
mod explain;
mod front;
mod import;
mod load;
mod needs;
mod out;
mod pause;
mod permissions;
mod reference;
mod reload;
mod retention;
mod run;
mod runs;
mod sandbox;
mod schema;
mod service;
mod start;
mod status;
mod suppress;
mod suppressions;
mod triggers;
mod watch;
mod why;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{Config, Permissions};
use crate::error::{Error, ExitCode};
use out::Out;

/// Runs security-operations flows: YAML files in git that say when, if and then.
#[derive(Debug, Parser)]
#[command(name = "watchfloor", version, propagate_version = true, max_term_width = 110)]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Args)]
struct Global {
    /// The configuration file [default: ./config.yaml]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How data is printed
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "human")]
    output: Format,
    /// Colours: auto looks at the terminal and at NO_COLOR
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Color,
    /// Never ask; a question is answered with no
    #[arg(long, global = true)]
    no_input: bool,
    /// Accept configuration and secrets that other users of this machine can change or read
    #[arg(long, global = true)]
    allow_insecure_permissions: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Json,
    Jsonl,
    /// `check` only
    Github,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: a simulated tenant, the shipped flows, and a page in the browser
    Demo(demo::Args),
    /// Check flow files, without any network
    Check(check::Args),
    /// Run the service
    Run(run::Args),
    /// Start a flow by hand, in the running service
    Start(start::Args),
    /// List, show, settle and cancel runs
    #[command(subcommand)]
    Runs(runs::Command),
    /// Dead letters: what failed again and again, and events that could not be judged
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Why a flow did or did not run for an alert
    Why(why::Args),
    /// Alerts of every product: list, show, and handle them
    #[command(subcommand)]
    Alerts(alerts::Command),
    /// Rules for alerts that are known to be harmless: write one from an alert, test, list
    #[command(subcommand)]
    Suppress(suppress::Command),
    /// What flows can do
    #[command(subcommand)]
    Actions(actions::Command),
    /// What starts flows
    #[command(subcommand)]
    Triggers(triggers::Command),
    /// Hold work back before it is sent: all of it, or a part
    Pause(pause::Pause),
    /// Lift a pause: what was held goes on
    Resume(pause::Resume),
    /// The JSON Schema of flow files or of suppression rules, for editors
    Schema(schema::Args),
    /// Write a connector of your own from a service's OpenAPI 3 document
    Import(import::Args),
    /// The simulated tenant alone
    Sandbox(sandbox::Args),
    /// What the service has done and is doing
    Status,
    /// Copy the store, while the service may run
    Backup(backup::Args),
    /// The log of every decision about an effect
    #[command(subcommand)]
    Audit(audit::Command),
    /// Completions for a shell
    Completions(completions::Args),
    /// Is everything that the flows need there: connections, permissions, secrets, dates
    Doctor(doctor::Args),
    /// The least permissions that the flows need, by connection
    Permissions(permissions::Args),
    /// What a diagnostic's code means
    Explain(explain::Args),
}

/// Runs the whole program; the exit code is that of the command.
pub fn run() -> std::process::ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no faults; a closed pipe is no reason to fail.
            drop(error.print());
            return std::process::ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let out = Out::new(&args.global);
    let code = match dispatch(args, &out) {
        Ok(code) => code,
        Err(error) => {
            out.error(&error);
            error.code
        }
    };
    std::process::ExitCode::from(code as u8)
}

fn dispatch(args: Args, out: &Out) -> Result<ExitCode, Error> {
    let global = &args.global;
    if global.output == Format::Github && !matches!(args.command, Command::Check(_)) {
        return Err(Error::usage("`-o github` is for `check` only"));
    }
    match args.command {
        Command::Demo(args) => demo::run(&args, out),
        Command::Check(args) => check::run(&args, global, out),
        Command::Run(args) => run::run(&args, global, out),
        Command::Start(args) => start::run(args, global, out),
        Command::Runs(command) => runs::run(command, global, out),
        Command::Dlq(command) => dlq::run(command, global, out),
        Command::Why(args) => why::run(&args, global, out),
        Command::Suppress(command) => suppress::run(command, global, out),
        Command::Alerts(command) => alerts::run(command, global, out),
        Command::Actions(command) => actions::run(&command, global, out),
        Command::Triggers(command) => triggers::run(&command, out),
        Command::Pause(args) => pause::pause(args, global, out),
        Command::Resume(args) => pause::resume(args, global, out),
        Command::Schema(args) => schema::run(&args, global, out),
        Command::Import(args) => import::run(&args, out),
        Command::Sandbox(args) => sandbox::run(&args, out),
        Command::Status => status::run(global, out),
        Command::Backup(args) => backup::run(args, global, out),
        Command::Audit(command) => audit::run(&command, global, out),
        Command::Completions(args) => completions::run(&args),
        Command::Doctor(args) => doctor::run(&args, global, out),
        Command::Permissions(args) => permissions::run(&args, global, out),
        Command::Explain(args) => explain::run(&args, out),
    }
}

impl Global {
    fn permissions(&self) -> Permissions {
        if self.allow_insecure_permissions { Permissions::Any } else { Permissions::Strict }
    }

    /// The configuration; it must exist.
    fn config(&self) -> Result<Config, Error> {
        Config::read_with(self.config_file(), self.permissions())
    }

    fn config_file(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new("config.yaml"))
    }

    /// The configuration where one was named or lies in the folder.
    fn config_if_any(&self) -> Result<Option<Config>, Error> {
        if self.config.is_none() && !Path::new("config.yaml").exists() {
            return Ok(None);
        }
        self.config().map(Some)
    }
}

/// Reads an instant (`2026-11-20T00:00:00Z`, `2026-11-20`) or how long ago (`7d`).
fn since(text: &str) -> Result<jiff::Timestamp, String> {
    if let Some(span) = crate::config::parse_duration(text) {
        let now = crate::clock::Clock::system().now();
        return now.checked_sub(span).map_err(|_| "that is too long ago".to_owned());
    }
    let midnight = format!("{text}T00:00:00Z");
    let at = text.parse::<jiff::Timestamp>().or_else(|_| midnight.parse::<jiff::Timestamp>());
    at.map_err(|_| "wanted an instant such as 2026-11-20T00:00:00Z, or how long ago, such as 7d".to_owned())
}

/// Lines of the service for its operators, on stderr; `WATCHFLOOR_LOG` chooses the level.
fn log_to_stderr(out: &Out) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WATCHFLOOR_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,watchfloor=info"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(out.colors_err());
    // A second subscriber is refused, which a test that runs two commands may live with.
    let started = match out.format() {
        Format::Human | Format::Github => builder.with_target(false).try_init(),
        Format::Json | Format::Jsonl => builder.json().try_init(),
    };
    drop(started);
}

/// What commands with a network work on: one thread. The loop, the calls and the webhooks hand each other small things all
/// the time, and waking another thread for each of them costs more than the work itself. What takes long, the store above
/// all, has threads of its own.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::unavailable(format!("starting the threads: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn instants_are_given_in_two_ways() {
        assert_eq!(since("2026-11-20"), since("2026-11-20T00:00:00Z"));
        assert!(since("7d").is_ok() && since("yesterday").is_err());
    }
}
