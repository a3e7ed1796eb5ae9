//! `pause` and `resume`: in the running service, or in the store of one that does not run, for its next start.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::out::{Out, safe};
use super::{Global, control, runs};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::{Error, ExitCode};
use crate::guard::Holds;
use crate::guard::hold::{self, Scope};
use crate::journal::Store;
use crate::journal::sqlite::SqliteStore;
use crate::trigger::Intake;

/// The longest reason that is kept.
const LONGEST: usize = 500;

/// What is paused; without a flag everything.
#[derive(Clone, Debug, clap::Args)]
#[group(multiple = false)]
struct What {
    /// What this flow would do to the world; its reads go on
    #[arg(long, value_name = "NAME")]
    flow: Option<String>,
    /// All that goes over this connection, reads and polls too
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
    /// Containment, of all flows
    #[arg(long)]
    destructive: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Pause {
    #[command(flatten)]
    what: What,
    /// Told to everybody who asks why something waits
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct Resume {
    #[command(flatten)]
    what: What,
}

impl What {
    fn scope(self) -> Scope {
        match (self.flow, self.connection, self.destructive) {
            (Some(flow), ..) => Scope::Flow(flow.into()),
            (_, Some(connection), _) => Scope::Connection(connection.into()),
            (.., true) => Scope::Destructive,
            _ => Scope::All,
        }
    }

    /// The flags as they were given.
    fn flags(scope: &Scope) -> String {
        match scope {
            Scope::All => String::new(),
            Scope::Destructive => " --destructive".to_owned(),
            Scope::Flow(name) => format!(" --flow {name}"),
            Scope::Connection(name) => format!(" --connection {name}"),
        }
    }
}

/// A pause to be made or lifted, as it is sent to the service.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Change {
    scope: Scope,
    by: String,
    #[serde(default)]
    reason: String,
}

impl Change {
    /// Pauses in the running service; a name that nothing has is refused, since it would hold nothing back.
    pub(super) async fn pause(self, holds: &Holds, intake: &Intake) -> Result<(), Error> {
        if let Scope::Flow(name) = &self.scope
            && intake.flows.find(name).is_none()
        {
            return Err(Error::new(ExitCode::NothingMatched, format!("there is no flow {name}")));
        }
        self.apply(holds, &*intake.store, &intake.clock).await
    }

    pub(super) async fn resume(self, holds: &Holds, intake: &Intake) -> Result<(), Error> {
        self.lift(holds, &*intake.store, &intake.clock).await
    }

    async fn apply(self, holds: &Holds, store: &dyn Store, clock: &Clock) -> Result<(), Error> {
        let reason: String = self.reason.chars().take(LONGEST).collect();
        let pause = hold::Pause { scope: self.scope, reason, by: self.by, at: clock.now() };
        holds.pause(store, pause).await.map_err(|error| {
            let error = runs::failed(error);
            let message = format!("it is paused now, but that could not be written: {}", error.message);
            Error::new(error.code, message).help("a restart would forget it; pause again when the store can be written")
        })
    }

    async fn lift(self, holds: &Holds, store: &dyn Store, clock: &Clock) -> Result<(), Error> {
        let lifted = holds.resume(store, &self.scope, &self.by, clock.now()).await.map_err(runs::failed)?;
        if lifted.is_some() {
            return Ok(());
        }
        let error = Error::new(ExitCode::NothingMatched, format!("{} is not paused", self.scope));
        let others: Vec<_> =
            holds.pauses().iter().map(|pause| format!("`watchfloor resume{}`", What::flags(&pause.scope))).collect();
        Err(if others.is_empty() { error } else { error.help(format!("what is paused: {}", others.join(", "))) })
    }
}

pub(super) fn pause(args: Pause, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let config = global.config()?;
    let scope = args.what.scope();
    if let Scope::Connection(name) = &scope
        && !config.connections.contains_key(name)
    {
        return Err(Error::new(ExitCode::NothingMatched, format!("the configuration has no connection {name}")));
    }
    let change = Change { scope: scope.clone(), by: runs::whoami(), reason: args.reason };
    let running = change_it(&config, "pause", change, |change, holds, store| {
        super::runtime()?.block_on(change.apply(holds, store, &Clock::system()))
    })?;
    let when = if running { "" } else { " from the next start on: no service is running" };
    out.say(&safe(&format!("{scope} is paused{when}; `watchfloor resume{}` lifts it", What::flags(&scope))));
    Ok(ExitCode::Ok)
}

pub(super) fn resume(args: Resume, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let config = global.config()?;
    let scope = args.what.scope();
    let change = Change { scope: scope.clone(), by: runs::whoami(), reason: String::new() };
    change_it(&config, "resume", change, |change, holds, store| {
        super::runtime()?.block_on(change.lift(holds, store, &Clock::system()))
    })?;
    out.say(&safe(&format!("{scope} is no longer paused")));
    let store = SqliteStore::open_read(&config.store).map_err(runs::failed)?;
    for pause in hold::stored(&store).map_err(runs::failed)? {
        out.say(&safe(&format!("still so: {}", pause.sentence())));
    }
    Ok(ExitCode::Ok)
}

/// Asks the running service, or writes into the store where none runs. Answers whether one does.
fn change_it(
    config: &Config,
    what: &str,
    change: Change,
    alone: impl FnOnce(Change, &Holds, &dyn Store) -> Result<(), Error>,
) -> Result<bool, Error> {
    match control::call(&config.store, what, &json!(change)) {
        Ok(_) => return Ok(true),
        // Nobody is there. Whoever holds the store all the same is starting, or hangs: opening it tells.
        Err(error) if error.code == ExitCode::Unavailable => {}
        Err(error) => return Err(error),
    }
    let store = SqliteStore::open(&config.store).map_err(runs::failed)?;
    let holds = Holds::default();
    holds.load(&store).map_err(runs::failed)?;
    alone(change, &holds, &store)?;
    Ok(false)
}
