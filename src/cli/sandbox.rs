//! `sandbox`: the simulated tenant alone, for flow authors and for trying a configuration.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;

use super::log_to_stderr;
use super::out::Out;
use super::run::stopped;
use crate::clock::Clock;
use crate::error::{Error, ExitCode};
use crate::sandbox::{self, DEMO_FLOWS, Sandbox};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Port of the HTTP services
    #[arg(long, default_value_t = 18_080)]
    port: u16,
    /// Port of the mail sink
    #[arg(long, default_value_t = 18_025)]
    smtp_port: u16,
    #[arg(long, default_value_t = 200)]
    alerts: usize,
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Added to every answer
    #[arg(long, default_value_t = 0, value_name = "MS")]
    latency: u64,
    /// From a machine action's request to its end
    #[arg(long, default_value_t = 300, value_name = "MS")]
    action_delay: u64,
    /// Alerts that can be seen from the start; `POST /_sandbox/feed` shows more [default: all]
    #[arg(long, value_name = "N")]
    visible: Option<usize>,
}

pub(super) fn run(args: &Args, out: &Out) -> Result<ExitCode, Error> {
    log_to_stderr(out);
    super::runtime()?.block_on(async {
        let clock = Clock::system();
        let mut options = sandbox::Options::new(args.seed, args.alerts, clock.now());
        options.http = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
        options.smtp = SocketAddr::from((Ipv4Addr::LOCALHOST, args.smtp_port));
        options.latency = std::time::Duration::from_millis(args.latency);
        options.action_delay = std::time::Duration::from_millis(args.action_delay);
        let tenant = Sandbox::start(options, clock).await?;
        tenant.feed(args.visible.unwrap_or(args.alerts));
        let (http, smtp) = (tenant.http_addr(), tenant.smtp_addr());
        if out.is_human() {
            out.say(&format!(
                "the simulated tenant {} serves http://{http} and mail on {smtp}\n  client {} with the secret {}\n  \
                 end it with ctrl-c: then the ledger is printed",
                sandbox::TENANT,
                sandbox::CLIENT_ID,
                sandbox::CLIENT_SECRET
            ));
        }
        stopped().await;
        out.json(&json!(tenant.ledger(&DEMO_FLOWS)));
        Ok(ExitCode::Ok)
    })
}
