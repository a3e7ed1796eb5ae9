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

use super::deploy::{Activations, Pinned, Stock, deploy};
use super::front::{self, Front};
use super::load::Loaded;
use super::reload::{History, Running};
use super::retention::{self, Retained};
use super::{control, reload, runs};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::Config;
use crate::connector::client::Client;
use crate::connector::vault;
use crate::console::{self, PublicHost};
use crate::error::Error;
use crate::flow::model::Mode;
use crate::guard::{Guard, Holds, limits};
use crate::journal::sqlite::SqliteStore;
use crate::journal::{self, Store};
use crate::suppress::Rules;
use crate::trigger::alert_poll::{Fetch, Pollers};
use crate::trigger::offer::Accepted;
use crate::trigger::suppress::Suppressor;
use crate::trigger::webhook::Keys;
use crate::trigger::{Flows, Gate, Intake, Phase, batch, hunts, ready, schedule, sweep, webhook};
use crate::worker::{Deps, Registry, RunEvent, Worker};

/// How often the backlog is counted on disk.
const RECOUNT: Duration = Duration::from_secs(60);

/// How long callers may take to end, once everything else has ended.
const CALLERS: Duration = Duration::from_secs(3);

/// What is to run.
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) catalog: Arc<Catalog>,
    pub(super) flows: Loaded,
    pub(super) rules: Rules,
    /// Where polls begin, instead of the stored watermarks.
    pub(super) from: Option<Timestamp>,
    pub(super) clock: Clock,
    /// Where it is read again from while it runs, if it is.
    pub(super) origin: Option<reload::Origin>,
}

/// What control and tests reach into.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) intake: Arc<Intake>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) fetch: Arc<dyn Fetch>,
    pub(super) client: Client,
    pub(super) holds: Arc<Holds>,
    pub(super) worker: Worker,
    pub(super) history: Arc<History>,
    pub(super) since: Timestamp,
}

/// A service that runs.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    pub(super) handle: Handle,
    pub(super) store: Arc<dyn Store>,
    stop: CancellationToken,
    tasks: TaskTracker,
    front: Front,
    published: control::Published,
}

/// Starts everything; returns when webhooks are answered and polls have begun.
pub(super) async fn start(plan: Plan) -> Result<Service, Error> {
    let Plan { config, catalog, flows, rules, from, clock, origin } = plan;
    if let Some(fault) = reload::unknown_triggers(&config, &catalog).into_iter().next() {
        return Err(Error::config(fault));
    }
    let host = PublicHost::default();
    host.set(reload::public_host(&config).as_deref());
    let (listener, address) = listen(config.listen).await?;
    tracing::info!(%address, "listening; starting");
    let front = Front::open(listener, host.clone())?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&config.store).map_err(runs::failed)?);
    let (client, opened) = open(&config, &catalog, &clock).await?;
    let keys = Keys::open(&config.webhooks).map_err(|mut faults| faults.swap_remove(0))?;
    let now = clock.now();
    let horizon = limits::horizon(&config.limits, flows.flows.iter().flat_map(|(card, _)| &card.limits));
    let recent = store.reservations(now.checked_sub(horizon).unwrap_or(Timestamp::UNIX_EPOCH)).map_err(runs::failed)?;
    let stock = Stock::default();
    let (flows, activations) = begin(&*store, flows, &config, &catalog, stock.clone(), (from, now)).await?;
    let open = open_runs(&*store).map_err(runs::failed)?;
    let holds = client.holds();
    holds.take_over(&*store, now).await.map_err(runs::failed)?;
    let gate = Arc::new(Gate::new(open, config.max_backlog).holding(Arc::clone(&holds)));
    let pinned = Arc::new(Pinned::new(Arc::clone(&store), flows.clone(), Arc::clone(&catalog)));
    let worker = Worker::start(Deps {
        store: Arc::clone(&store),
        client: Arc::new(client.clone()),
        guard: Guard::new(&config, recent).holding(Arc::clone(&holds)),
        registry: Arc::clone(&pinned) as Arc<dyn Registry>,
        clock: clock.clone(),
        public_url: config.public_url.clone(),
        in_flight: config.in_flight,
    })
    .await?;
    let hand_over = hand_over(worker.clone());
    let suppressor = suppressor(rules, &catalog, &client, &*store)?;
    let intake = Intake::new(Arc::clone(&store), flows.clone(), clock.clone(), Arc::clone(&gate), hand_over);
    let intake = Arc::new(intake.suppressing(Arc::clone(&suppressor)));
    // Before anything else is begun, so that few ends are missed; `count_ends` makes up for those.
    let (ends, history) = (worker.subscribe(), Arc::new(History::default()));
    let handle = Handle {
        intake: Arc::clone(&intake),
        catalog: Arc::clone(&catalog),
        fetch: Arc::new(client.clone()),
        client: client.clone(),
        holds,
        worker: worker.clone(),
        history: Arc::clone(&history),
        since: now,
    };
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (published, token) = control::publish(&config.store, &format!("http://{address}"))?;
    let router = router(&handle, token, Arc::clone(&store), pinned, (keys.clone(), host.clone()));
    let retained = Retained::new(config.retention, horizon);
    tasks.spawn(retention::run(Arc::clone(&store), retained.clone(), clock.clone(), stop.clone()));
    tasks.spawn(count_ends(ends, Arc::clone(&store), Arc::clone(&intake), stop.clone()));
    trigger(&handle, from, &tasks, &stop)?;
    if let Some(origin) = origin {
        let store = Arc::clone(&store);
        #[rustfmt::skip]
        let running = Running {
            config, activations, stock, store, catalog, client, opened, worker, flows, keys, gate, retained, host, clock, history, suppressor,
        };
        tasks.spawn(reload::run(running, origin, stop.clone()));
    }
    intake.gate.enter(Phase::Serving);
    let front = front.serve(router).await?;
    Ok(Service { address, handle, store, stop, tasks, front, published })
}

/// The connections, and what they were made of: read before, so that a secret which changes in between is opened again by
/// the next reload.
async fn open(config: &Config, catalog: &Arc<Catalog>, clock: &Clock) -> Result<(Client, Option<String>), Error> {
    vault::read(config, clock).await.map_err(|mut faults| faults.swap_remove(0))?;
    let opened = reload::fingerprint(config).ok();
    Ok((Client::open(config, Arc::clone(catalog), clock.clone())?, opened))
}

fn hand_over(worker: Worker) -> Accepted {
    Box::new(move |rows| worker.accepted(rows))
}

fn suppressor(
    rules: Rules,
    catalog: &Arc<Catalog>,
    client: &Client,
    store: &dyn Store,
) -> Result<Arc<Suppressor>, Error> {
    let suppressor = Suppressor::new(rules, Arc::clone(catalog), Arc::new(client.clone()), store);
    suppressor.map(Arc::new).map_err(runs::failed)
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Error::unavailable(format!("listening on {address}: {error}"))
            .help("is another watchfloor running? `server.listen` sets another port")
    })?;
    let address = listener.local_addr().map_err(|error| Error::unavailable(format!("listening: {error}")))?;
    Ok((listener, address))
}

/// Begins what starts runs by itself.
fn trigger(
    handle: &Handle,
    from: Option<Timestamp>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let shared = || (Arc::clone(&handle.intake), Arc::clone(&handle.catalog), Arc::clone(&handle.fetch));
    let (intake, catalog, fetch) = shared();
    let pollers = Pollers::start(intake, catalog, fetch, from, tasks.clone(), stop.clone());
    tasks.spawn(pollers.map_err(runs::failed)?.run());
    let (intake, catalog, fetch) = shared();
    tasks.spawn(sweep::run(intake, catalog, fetch, stop.clone()));
    let (intake, catalog, fetch) = shared();
    tasks.spawn(ready::run(intake, catalog, fetch, stop.clone()));
    let (intake, catalog, fetch) = shared();
    tasks.spawn(hunts::run(Arc::clone(&intake), catalog, fetch, stop.clone()));
    tasks.spawn(batch::run(Arc::clone(&intake), stop.clone()));
    tasks.spawn(schedule::run(intake, stop.clone()));
    Ok(())
}

/// The flows of the start, with when each began on disk.
async fn begin(
    store: &dyn Store,
    flows: Loaded,
    config: &Config,
    catalog: &Arc<Catalog>,
    stock: Stock,
    times: (Option<Timestamp>, Timestamp),
) -> Result<(Flows, Activations), Error> {
    let before = Activations::read(store, &flows.flows)?;
    let (deployment, activations) = deploy(flows, config, catalog, stock, before.clone(), times);
    if activations != before {
        journal::commit(store, vec![activations.op()?]).await.map_err(runs::failed)?;
    }
    for deployed in deployment.iter() {
        tracing::debug!(flow = %deployed.name(), mode = ?deployed.mode, trigger = %deployed.card.trigger, "deployed");
    }
    let (flows, live) = (deployment.iter().len(), deployment.iter().filter(|it| it.mode == Mode::Live).count());
    tracing::info!(flows, live, "deployed");
    Ok((Flows::new(deployment), activations))
}

impl Service {
    /// Takes nothing new, lets what was sent be answered, and ends within the time limit. Until then webhooks are told to
    /// come again.
    pub(super) async fn drain(self, limit: Duration) {
        let Service { handle, stop, tasks, front, published, .. } = self;
        handle.intake.gate.enter(Phase::Stopping);
        stop.cancel();
        tasks.close();
        let quiet = async {
            handle.worker.drain().await;
            tasks.wait().await;
            // Callers that never end what they began are not waited for; who is owed an answer has it in a moment.
            drop(tokio::time::timeout(CALLERS, front.close()).await);
        };
        if tokio::time::timeout(limit, quiet).await.is_err() {
            tracing::warn!("not all was answered in time; the rest is in the journal and is settled at the next start");
        }
        drop(published);
    }
}

/// Runs that end make room in the backlog. Runs that ended while the service started, or that the worker gave up, were not
/// heard of: without counting again the backlog would fill up with runs that are long over.
async fn count_ends(
    mut ends: mpsc::UnboundedReceiver<RunEvent>,
    store: Arc<dyn Store>,
    intake: Arc<Intake>,
    stop: CancellationToken,
) {
    let gate = &intake.gate;
    let mut again = tokio::time::interval(RECOUNT);
    loop {
        tokio::select! {
            event = ends.recv() => match event {
                Some(RunEvent::Ended(row)) => {
                    gate.finished(1);
                    intake.queue.ended(&row.flow);
                }
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
    handle: &Handle,
    token: String,
    store: Arc<dyn Store>,
    pinned: Arc<Pinned>,
    (keys, host): (Keys, PublicHost),
) -> Router {
    let flow = move |name: &str, version: &str| pinned.flow(name, version);
    let holds = Arc::clone(&handle.holds);
    let pages = console::Pages { store, flow: Arc::new(flow), notices: Arc::new(move || holds.sentences()) };
    let router = console::routes(pages)
        .merge(front::health(Some(Arc::clone(&handle.intake.gate))))
        .merge(webhook::routes(Arc::clone(&handle.intake), keys))
        .merge(control::routes(token, handle.clone()));
    console::guarded(router, host)
}
