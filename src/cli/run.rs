//! `run`: the service, until SIGTERM or ctrl-c.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::cache::Cache;
use super::load::Site;
use super::out::Out;
use super::reload::{Hangup, Origin};
use super::service::{self, Plan};
use super::watch::{Watch, Watched};
use super::{Global, catalogues, load, log_to_stderr, since, suppressions};
use crate::clock::Clock;
use crate::config::Config;
use crate::diag;
use crate::error::{Error, ExitCode};
use crate::suppress::Rules;

/// S10: what is in flight is finished or journaled within this time.
pub(super) const DRAIN: Duration = Duration::from_secs(25);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Poll from this time on, instead of where the last service left off
    #[arg(long, value_parser = since, value_name = "TIME")]
    from: Option<Timestamp>,
}

pub(super) fn run(args: &Args, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    log_to_stderr(out);
    super::runtime()?.block_on(serve(args, global, out))
}

async fn serve(args: &Args, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    // First of all: without a listener, SIGHUP ends the process.
    let hangup = Hangup::listen()?;
    let config = global.config()?;
    let (file, permissions) = (global.config_file().to_path_buf(), global.permissions());
    // Before the files are read, so that no change in between is missed.
    let watch = Watch::new(Watched::of(&file, &[&config]));
    let catalog = Arc::new(catalogues::open(Some(&config))?);
    let site = Site::with(&config, &catalog);
    let cache = Cache::open(&config.store, &site);
    let mut loaded = load::load(&config.flows, &catalog, &site, Some(&cache))?;
    if loaded.errors() > 0 {
        out.say(diag::render(&loaded.diagnostics, out.colors_err()).trim_end());
        let message = format!("{} errors in the flow files: nothing is started", loaded.errors());
        return Err(Error::config(message).help("`watchfloor check` shows them alone"));
    }
    let rules = rules(&config, out)?;
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        if std::env::var_os(name).is_some() {
            tracing::warn!(
                "{name} is set: it changes whom every connection trusts; use a connection's `ca_file` instead"
            );
        }
    }
    let entries = std::mem::take(&mut loaded.entries);
    let origin = Some(Origin { file, permissions, hangup, watch });
    let plan = Plan { config, catalog, flows: loaded, rules, from: args.from, clock: Clock::system(), origin };
    let service = service::start(plan).await?;
    let stopped = stopped();
    out.say(&format!("ready on http://{}", service.address));
    if !cache.holds(&entries) {
        // The start has not waited for it; the next one need not check what stays.
        drop(tokio::task::spawn_blocking(move || cache.leave(entries)));
    }
    stopped.await;
    out.say("stopping");
    service.drain(DRAIN).await;
    Ok(ExitCode::Ok)
}

/// The suppression rules of the configuration; a fault in one starts nothing, as one in a flow.
fn rules(config: &Config, out: &Out) -> Result<Rules, Error> {
    let found = suppressions::load(config, Clock::system().now())?;
    if found.errors() > 0 {
        out.say(diag::render(&found.diagnostics, out.colors_err()).trim_end());
        let message = format!("{} errors in the suppression rules: nothing is started", found.errors());
        return Err(Error::config(message).help("`watchfloor suppress list` shows them"));
    }
    Ok(found.rules())
}

/// Waits for ctrl-c or SIGTERM. Both are listened to from the call on, not from the first wait: a service that says that it is
/// ready and is stopped at once must end well.
#[cfg(unix)]
pub(super) fn stopped() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    async move {
        let [terminate, interrupt] = signals;
        match (terminate, interrupt) {
            (Ok(mut terminate), Ok(mut interrupt)) => tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            },
            _ => drop(tokio::signal::ctrl_c().await),
        }
    }
}

#[cfg(not(unix))]
pub(super) async fn stopped() {
    drop(tokio::signal::ctrl_c().await);
}
