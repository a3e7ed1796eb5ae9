//! The simulated tenant: our own stand-in for Entra, Defender for Endpoint, Graph, Defender for Cloud Apps, a Teams
//! webhook and a mail server, over one seeded world, on loopback. It behaves as the services' documentation and public
//! issues say, the awkward parts first, and keeps books of what was done to it (see `ledger`).
//!
//! Not here: any knowledge of flows beyond the names of the shipped ones, which the ledger uses to say what was due.

mod assertion;
mod auth;
mod azure;
mod call;
mod cloud;
mod demo;
mod faults;
mod generic;
mod graph;
mod graph_people;
mod graph_users;
mod indicators;
mod ledger;
mod library;
mod machine_action;
mod mde;
mod mde_devices;
mod odata;
mod route;
mod scenario;
mod seed;
mod server;
mod smtp;
mod state;
mod teams;
mod token;
mod vault;
mod world;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use auth::{API_TOKEN, CLIENT_ID, CLIENT_SECRET, CLIENT_WITHOUT_ROLES, IDENTITY_HEADER};
pub use demo::{SHIPPED, demo_config};
pub use faults::Faults;
pub use ledger::{Acted, DEMO_FLOWS, Entry, Ledger};
pub use state::World;
pub use token::client_refused_with;
pub use world::{Alert, Device, Plan, Replies, Risk, Source, TENANT, TRAVEL, User};

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::error::Error;

/// How the tenant is made and served.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// Alerts of all products; none is visible until `feed`.
    pub alerts: usize,
    /// Port 0 takes any free one.
    pub http: SocketAddr,
    pub smtp: SocketAddr,
    /// Added to every answer.
    pub latency: Duration,
    pub faults: Faults,
    /// What the world's past and its mailboxes' schedules are relative to: the time at which the tenant is used.
    pub start: Timestamp,
    /// Unreachable devices per mille; what is asked of them stays `Pending`.
    pub offline: u16,
    /// From a machine action's request to its end.
    pub action_delay: Duration,
    /// Every seventh alert carries a creation time this long before it becomes visible.
    pub lateness: Duration,
    /// Whether the documented throttles hold.
    pub throttles: bool,
    pub token_lifetime: Duration,
    /// Changes the world before anybody sees it, for what a seed does not give.
    pub arrange: Option<fn(&mut Plan)>,
}

impl Options {
    /// A calm tenant on free loopback ports: no latency, no faults, no throttles.
    pub fn new(seed: u64, alerts: usize, start: Timestamp) -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Options {
            seed,
            alerts,
            http: loopback,
            smtp: loopback,
            latency: Duration::ZERO,
            faults: Faults::default(),
            start,
            offline: 0,
            action_delay: Duration::from_millis(300),
            lateness: Duration::ZERO,
            throttles: false,
            token_lifetime: Duration::from_secs(3599),
            arrange: None,
        }
    }
}

/// The part of the options that handlers read.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    latency: Duration,
    action_delay: SignedDuration,
    lateness: SignedDuration,
    token_lifetime: SignedDuration,
    throttles: bool,
}

/// A tenant that is being served; it stops when this is dropped.
#[derive(Debug)]
pub struct Sandbox {
    world: Arc<World>,
    http: SocketAddr,
    smtp: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Sandbox {
    /// Makes the world and serves it. Fails where an address can't be bound.
    pub async fn start(options: Options, clock: Clock) -> Result<Sandbox, Error> {
        let signed = |span: Duration| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
        let settings = Settings {
            latency: options.latency,
            action_delay: signed(options.action_delay),
            lateness: signed(options.lateness),
            token_lifetime: signed(options.token_lifetime),
            throttles: options.throttles,
        };
        let mut plan = Plan::generate(options.seed, options.alerts, options.offline, options.start);
        if let Some(arrange) = options.arrange {
            arrange(&mut plan);
        }
        let world = Arc::new(World::new(plan, settings, options.faults, clock, Catalog::builtin()?));
        let (http_listener, http) = bind(options.http).await?;
        let (smtp_listener, smtp) = bind(options.smtp).await?;
        let tasks = vec![
            tokio::spawn(server::serve(http_listener, Arc::clone(&world))),
            tokio::spawn(smtp::serve(smtp_listener, Arc::clone(&world))),
        ];
        Ok(Sandbox { world, http, smtp, tasks })
    }

    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    pub fn smtp_addr(&self) -> SocketAddr {
        self.smtp
    }

    pub fn world(&self) -> Arc<World> {
        Arc::clone(&self.world)
    }

    /// The books, with what these flows should have done (`DEMO_FLOWS` for the demo).
    pub fn ledger(&self, flows: &[&str]) -> Ledger {
        self.world.ledger(flows)
    }

    /// Makes the next `n` alerts visible; returns how many became so.
    pub fn feed(&self, n: usize) -> usize {
        self.world.feed(n)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn bind(wanted: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |error: std::io::Error| {
        Error::unavailable(format!("binding the simulated tenant to {wanted}: {error}"))
            .help("choose another port, or 0 for any free one")
    };
    let listener = TcpListener::bind(wanted).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
