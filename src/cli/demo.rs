//! `demo`: the simulated tenant, the shipped flows and the service in one process. No file, no token, no network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;

use super::load::Site;
use super::out::{Out, safe};
use super::run::{DRAIN, stopped};
use super::service::{self, Plan, Service};
use super::{load, runs};
use crate::catalog::Catalog;
use crate::clock::{self, Clock};
use crate::diag;
use crate::error::{Error, ExitCode};
use crate::journal::{RunQuery, RunRow};
use crate::sandbox::{self, DEMO_FLOWS, Ledger, Sandbox};
use crate::suppress::Rules;
use crate::worker::RunEvent;

/// How long nothing may happen before `--exit` gives up on what is missing.
const STILL: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Alerts of all products
    #[arg(long, default_value_t = 60)]
    alerts: usize,
    /// Makes another tenant
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// End when every alert is handled, and print what was done and what should have been
    #[arg(long)]
    exit: bool,
    /// Port of the page in the browser; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
}

pub(super) fn run(args: &Args, out: &Out) -> Result<ExitCode, Error> {
    // Warnings only: the demo's own lines are its story.
    drop(tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_writer(std::io::stderr).try_init());
    let folder = Folder::make()?;
    super::runtime()?.block_on(play(args, &folder.0, out))
}

async fn play(args: &Args, folder: &Path, out: &Out) -> Result<ExitCode, Error> {
    let watch = clock::stopwatch();
    let clock = Clock::system();
    let tenant = Sandbox::start(sandbox::Options::new(args.seed, args.alerts, clock.now()), clock.clone()).await?;
    let mut config = sandbox::demo_config(tenant.http_addr(), tenant.smtp_addr(), folder)?;
    config.listen.set_port(args.port);
    // Nobody watches a demo for half a minute before the first alert.
    for kind in ["mde.alert.new", "cloud_apps.alert.new"] {
        config.poll.insert(kind.to_owned(), Duration::from_millis(300));
    }
    let catalog = Arc::new(Catalog::builtin()?);
    let mut flows = load::load(&config.flows, &catalog, &Site::of(&config), None)?;
    if flows.errors() > 0 {
        out.say(&diag::render(&flows.diagnostics, out.colors_err()));
        return Err(Error::config("the shipped flows do not check; this is a bug, please report it"));
    }
    // A flow on a schedule would fire, or not, by the hour at which somebody tries the demo.
    flows.flows.retain(|(card, _)| card.schedule.is_none());
    // Alerts of the simulated past start runs too: the world's clock began before ours.
    let from = clock.now().checked_sub(jiff::SignedDuration::from_hours(24 * 30)).ok();
    let service =
        service::start(Plan { config, catalog, flows, rules: Rules::default(), from, clock, origin: None }).await?;
    let mut events = service.handle.worker.subscribe();
    if out.is_human() {
        out.say(&format!("ready on http://{}", service.address));
        out.say(&format!("a simulated tenant with {} alerts; every device and user is invented\n", args.alerts));
    }
    feed(&tenant, args, &mut events, out).await;
    if !args.exit {
        out.say("\nall alerts were handled; the page stays until ctrl-c");
        stopped().await;
    }
    let rows = rows(&service)?;
    let ledger = tenant.ledger(&DEMO_FLOWS);
    service.drain(DRAIN).await;
    let wall = watch.elapsed().as_secs_f64();
    report(args, &rows, &ledger, wall, out);
    let clean = ledger.duplicates + ledger.losses + ledger.wrong == 0;
    Ok(if clean { ExitCode::Ok } else { ExitCode::Findings })
}

/// Makes alerts visible a few at a time, prints the runs as they end, and returns when all that is due is done.
async fn feed(tenant: &Sandbox, args: &Args, events: &mut UnboundedReceiver<RunEvent>, out: &Out) {
    let portion = (args.alerts / 8).max(1);
    let mut left = args.alerts;
    let mut still = Duration::ZERO;
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            event = events.recv() => {
                still = Duration::ZERO;
                match event {
                    Some(RunEvent::Ended(row) | RunEvent::Waiting(row)) if out.is_human() => out.line(&story(&row)),
                    Some(_) => {}
                    None => return,
                }
            }
            _ = tick.tick() => {
                still += Duration::from_millis(250);
                if left > 0 {
                    left -= tenant.feed(portion.min(left)).min(left);
                    still = Duration::ZERO;
                } else if still >= Duration::from_secs(1) && (tenant.ledger(&DEMO_FLOWS).losses == 0 || still >= STILL) {
                    return;
                }
            }
            () = stopped() => return,
        }
    }
}

/// One run as one line.
fn story(row: &RunRow) -> String {
    let effects: Vec<_> = row.effects.iter().map(|(action, n)| format!("{action} ×{n}")).collect();
    let did = if effects.is_empty() { "nothing to do".to_owned() } else { effects.join(", ") };
    let why = row.reason.as_deref().map_or_else(String::new, |why| format!(" ({why})"));
    safe(&format!("{:<10} {:<26} {}  {did}{why}", row.status.as_str(), row.flow, row.key))
}

fn rows(service: &Service) -> Result<Vec<RunRow>, Error> {
    service.store.runs(&RunQuery { limit: 1_000_000, ..RunQuery::default() }).map_err(runs::failed)
}

fn report(args: &Args, rows: &[RunRow], ledger: &Ledger, wall: f64, out: &Out) {
    let mut outcomes: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for row in rows {
        *outcomes.entry(&row.flow).or_default().entry(row.status.as_str()).or_default() += 1;
    }
    let cpu = cpu_seconds();
    if !out.is_human() {
        return out.json(&json!({
            "alerts": args.alerts, "runs": outcomes, "effects": ledger.effects, "expected": ledger.expected,
            "duplicates": ledger.duplicates, "losses": ledger.losses, "wrong": ledger.wrong,
            "wall_s": round(wall), "cpu_s": cpu.map(round),
        }));
    }
    out.line("");
    out.table(
        &["action", "done", "expected"],
        ledger.expected.iter().map(|(action, due)| {
            let done = ledger.effects.get(action).copied().unwrap_or(0);
            vec![action.clone(), done.to_string(), due.to_string()]
        }),
    );
    let (alerts, runs) = (args.alerts, rows.len());
    let (doubles, losses, wrong) = (ledger.duplicates, ledger.losses, ledger.wrong);
    out.line(&format!(
        "{alerts} alerts, {runs} runs in {wall:.1} s: {doubles} done twice, {losses} missing, {wrong} wrong"
    ));
    ledger.findings.iter().for_each(|finding| out.line(&format!("  {}", safe(finding))));
}

fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// User and system time of this process; `None` where the system does not tell in the way of Linux.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name may hold anything; fields are counted after it. Ticks are 100 a second on every Linux we know.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}

/// A folder of the demo's own; it goes with the demo.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self, Error> {
        let path =
            std::env::temp_dir().join(format!("watchfloor-demo-{}", &clock::secret_token().get(..16).unwrap_or("x")));
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt;
            builder.mode(0o700);
        }
        builder
            .create(&path)
            .map_err(|error| Error::unavailable(format!("making the folder {}: {error}", path.display())))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
