//! The service: store, client, worker, pollers, scheduler, webhooks and pages, put together for `run` and `demo`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::deploy::{Activations, Pinned, deploy};
use super::load::Loaded;
use super::{control, runs};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::Config;
use crate::connector::client::Client;
use crate::console;
use crate::error::Error;
use crate::guard::{Guard, limits};
use crate::journal::sqlite::SqliteStore;
use crate::journal::{self, Store};
use crate::trigger::alert_poll::{Fetch, Pollers};
use crate::trigger::{Flows, Gate, Intake, Phase, schedule, sweep, webhook};
use crate::worker::{Deps, Registry, RunEvent, Worker};

/// How often the backlog is counted on disk.
const RECOUNT: Duration = Duration::from_secs(60);

/// What is to run.
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) catalog: Arc<Catalog>,
    pub(super) flows: Loaded,
    /// Where polls begin, instead of the stored watermarks.
    pub(super) from: Option<Timestamp>,
    pub(super) clock: Clock,
}

/// What control and tests reach into.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) intake: Arc<Intake>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) fetch: Arc<dyn Fetch>,
    pub(super) worker: Worker,
}

/// A service that runs.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    pub(super) handle: Handle,
    pub(super) store: Arc<dyn Store>,
    stop: CancellationToken,
    tasks: TaskTracker,
    published: control::Published,
}

/// Starts everything; returns when webhooks are answered and polls have begun.
pub(super) async fn start(plan: Plan) -> Result<Service, Error> {
    let Plan { config, catalog, flows, from, clock } = plan;
    let unknown = config.poll.keys().find(|name| !catalog.triggers.contains_key(name.as_str()));
    if let Some(name) = unknown {
        return Err(Error::config(format!("poll.{name}: there is no such trigger type")));
    }
    let listener = TcpListener::bind(config.listen).await.map_err(|error| {
        Error::unavailable(format!("listening on {}: {error}", config.listen))
            .help("is another watchfloor running? `server.listen` sets another port")
    })?;
    let address = listener.local_addr().map_err(|error| Error::unavailable(format!("listening: {error}")))?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&config.store).map_err(runs::failed)?);
    let client = Client::open(&config, Arc::clone(&catalog), clock.clone())?;
    let horizon = limits::horizon(&config.limits, flows.flows.iter().flat_map(|(card, _)| &card.limits));
    let before = Activations::read(&*store, &flows.flows)?;
    let times = (from, clock.now());
    let (deployment, activations) = deploy(flows, &config, &catalog, Arc::default(), before.clone(), times);
    if activations != before {
        journal::commit(&*store, vec![activations.op()?]).await.map_err(runs::failed)?;
    }
    let deployed = Flows::new(deployment);
    let open = open_runs(&*store).map_err(runs::failed)?;
    let gate = Arc::new(Gate::new(open, config.max_backlog));
    let since = clock.now().checked_sub(horizon).unwrap_or(Timestamp::UNIX_EPOCH);
    let recent = store.reservations(since).map_err(runs::failed)?;
    let pinned = Arc::new(Pinned::new(Arc::clone(&store), deployed.clone(), Arc::clone(&catalog)));
    let worker = Worker::start(Deps {
        store: Arc::clone(&store),
        client: Arc::new(client.clone()),
        guard: Guard::new(&config, recent),
        registry: Arc::clone(&pinned) as Arc<dyn Registry>,
        clock: clock.clone(),
        public_url: config.public_url.clone(),
        in_flight: config.in_flight,
    })
    .await?;
    let hand_over = {
        let worker = worker.clone();
        Box::new(move |rows| worker.accepted(rows))
    };
    let intake = Arc::new(Intake::new(Arc::clone(&store), deployed, clock.clone(), Arc::clone(&gate), hand_over));
    // Before anything else is begun, so that few ends are missed; `count_ends` makes up for those.
    let ends = worker.subscribe();
    let fetch: Arc<dyn Fetch> = Arc::new(client);
    let handle = Handle { intake: Arc::clone(&intake), catalog, fetch, worker: worker.clone() };
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (published, token) = control::publish(&config.store, &format!("http://{address}"))?;
    let router = router(&config, &handle, token, Arc::clone(&store), pinned)?;
    let stopped = stop.clone();
    tasks.spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(async move { stopped.cancelled().await });
        if let Err(error) = served.await {
            tracing::error!(%error, "serving HTTP ended");
        }
    });
    tasks.spawn(count_ends(ends, Arc::clone(&store), gate, stop.clone()));
    let (catalog, fetch) = (Arc::clone(&handle.catalog), Arc::clone(&handle.fetch));
    let pollers = Pollers::start(Arc::clone(&intake), catalog, fetch, from, tasks.clone(), stop.clone());
    tasks.spawn(pollers.map_err(runs::failed)?.run());
    let (catalog, fetch) = (Arc::clone(&handle.catalog), Arc::clone(&handle.fetch));
    tasks.spawn(sweep::run(Arc::clone(&intake), catalog, fetch, stop.clone()));
    tasks.spawn(schedule::run(Arc::clone(&intake), stop.clone()));
    intake.gate.enter(Phase::Serving);
    Ok(Service { address, handle, store, stop, tasks, published })
}

impl Service {
    /// Takes nothing new, lets what was sent be answered, and ends within the time limit.
    pub(super) async fn drain(self, limit: Duration) {
        self.handle.intake.gate.enter(Phase::Stopping);
        self.stop.cancel();
        self.tasks.close();
        let quiet = async {
            self.handle.worker.drain().await;
            self.tasks.wait().await;
        };
        if tokio::time::timeout(limit, quiet).await.is_err() {
            tracing::warn!("not all was answered in time; the rest is in the journal and is settled at the next start");
        }
        drop(self.published);
    }
}

/// Runs that end make room in the backlog. Runs that ended while the service started, or that the worker gave up, were not
/// heard of: without counting again the backlog would fill up with runs that are long over.
async fn count_ends(
    mut ends: mpsc::UnboundedReceiver<RunEvent>,
    store: Arc<dyn Store>,
    gate: Arc<Gate>,
    stop: CancellationToken,
) {
    let mut again = tokio::time::interval(RECOUNT);
    loop {
        tokio::select! {
            event = ends.recv() => match event {
                Some(RunEvent::Ended(_)) => gate.finished(1),
                Some(RunEvent::Waiting(_)) => {}
                None => return,
            },
            _ = again.tick() => {
                let store = Arc::clone(&store);
                match tokio::task::spawn_blocking(move || open_runs(&*store)).await {
                    Ok(Ok(open)) => gate.recount(open),
                    Ok(Err(error)) => tracing::warn!(%error, "counting the backlog"),
                    Err(_) => {}
                }
            }
            () = stop.cancelled() => return,
        }
    }
}

fn open_runs(store: &dyn Store) -> Result<u64, journal::StoreError> {
    Ok(store.counts()?.iter().filter(|(status, _)| !status.is_final()).map(|(_, n)| n).sum())
}

fn router(
    config: &Config,
    handle: &Handle,
    token: String,
    store: Arc<dyn Store>,
    pinned: Arc<Pinned>,
) -> Result<Router, Error> {
    let flow = move |name: &str, version: &str| pinned.flow(name, version);
    let pages = console::routes(console::Pages { store, flow: Arc::new(flow) });
    let router = pages
        .merge(webhook::routes(Arc::clone(&handle.intake), &config.webhooks)?)
        .merge(control::routes(token, handle.clone()));
    let public = config.public_url.as_deref().and_then(|url| reqwest::Url::parse(url).ok());
    let public = public.and_then(|url| url.host_str().map(str::to_owned));
    Ok(console::guarded(router, public))
}
