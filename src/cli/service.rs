//! The service: store, client, worker, pollers, scheduler, webhooks and pages, put together for `run` and `demo`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{control, load, runs};
use crate::catalog::Catalog;
use crate::check::{self, CheckedFlow, World};
use crate::clock::Clock;
use crate::config::Config;
use crate::connector::client::Client;
use crate::console;
use crate::diag::Source;
use crate::error::Error;
use crate::flow::model::Mode;
use crate::guard::{Guard, limits};
use crate::journal::sqlite::SqliteStore;
use crate::journal::{self, Op, Store};
use crate::trigger::alert_poll::{self, Fetch};
use crate::trigger::{Deployed, Flows, Gate, Intake, Phase, schedule, webhook};
use crate::worker::{Deps, Registry, RunEvent, Worker};

/// How often the backlog is counted on disk.
const RECOUNT: Duration = Duration::from_secs(60);

/// What is to run.
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) catalog: Catalog,
    pub(super) flows: Vec<Arc<CheckedFlow>>,
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
    let catalog = Arc::new(catalog);
    let client = Client::open(&config, Arc::clone(&catalog), clock.clone())?;
    let horizon = limits::horizon(&config.limits, flows.iter().flat_map(|flow| &flow.limits));
    let deployed = Flows::new(deploy(&*store, &config, flows, from, clock.now()).await?);
    let open = open_runs(&*store).map_err(runs::failed)?;
    let gate = Arc::new(Gate::new(open, config.max_backlog));
    let (sender, accepted) = mpsc::unbounded_channel();
    let intake = Arc::new(Intake::new(Arc::clone(&store), deployed.clone(), clock.clone(), Arc::clone(&gate), sender));
    let since = clock.now().checked_sub(horizon).unwrap_or(Timestamp::UNIX_EPOCH);
    let recent = store.reservations(since).map_err(runs::failed)?;
    let pinned = Arc::new(Pinned::new(Arc::clone(&store), deployed, Arc::clone(&catalog), &config));
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
    tasks.spawn(pass_on(accepted, worker.clone(), stop.clone()));
    tasks.spawn(count_ends(ends, Arc::clone(&store), gate, stop.clone()));
    for poller in
        alert_poll::pollers(&intake, &handle.catalog, &handle.fetch, &config.poll, from).map_err(runs::failed)?
    {
        tasks.spawn(poller.run(stop.clone()));
    }
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

/// Accepted runs go to the worker.
async fn pass_on(
    mut accepted: mpsc::UnboundedReceiver<Vec<crate::journal::RunRow>>,
    worker: Worker,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            rows = accepted.recv() => match rows {
                Some(rows) => worker.accepted(rows),
                None => return,
            },
            () = stop.cancelled() => return,
        }
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

/// The flows with their modes and when each began; a new one begins now, or where polls begin.
async fn deploy(
    store: &dyn Store,
    config: &Config,
    flows: Vec<Arc<CheckedFlow>>,
    from: Option<Timestamp>,
    now: Timestamp,
) -> Result<Vec<Deployed>, Error> {
    let mut deployed = vec![];
    let mut ops = vec![];
    for flow in flows {
        let name = format!("flow/{}/activated", flow.name);
        let stored = store.get(&name).map_err(runs::failed)?;
        let stored = stored.and_then(|body| std::str::from_utf8(&body).ok()?.parse::<Timestamp>().ok());
        // An earlier beginning is for what is polled: no schedule makes up for time before the installation.
        let begin = from.filter(|_| flow.trigger.connection.is_some()).unwrap_or(now);
        let activated = match stored {
            Some(stored) if stored <= begin => stored,
            _ => {
                ops.push(Op::Put { name, body: begin.to_string().into_bytes() });
                begin
            }
        };
        let mode = load::mode(config, &flow);
        tracing::info!(flow = %flow.name, ?mode, trigger = %flow.trigger.kind, "deployed");
        deployed.push(Deployed { flow, mode, activated });
    }
    if !ops.is_empty() {
        journal::commit(store, ops).await.map_err(runs::failed)?;
    }
    Ok(deployed)
}

/// The flows that runs are pinned to: those of now, and earlier versions compiled again from their bundles.
pub(super) struct Pinned {
    store: Arc<dyn Store>,
    flows: Flows,
    catalog: Arc<Catalog>,
    connections: BTreeMap<Arc<str>, crate::catalog::ConnectionKind>,
    webhooks: Vec<Arc<str>>,
    modes: BTreeMap<String, Mode>,
    mode: Mode,
    earlier: Mutex<BTreeMap<String, Arc<CheckedFlow>>>,
}

impl Pinned {
    pub(super) fn new(store: Arc<dyn Store>, flows: Flows, catalog: Arc<Catalog>, config: &Config) -> Self {
        Pinned {
            store,
            flows,
            catalog,
            connections: config.connections.values().map(|c| (Arc::clone(&c.name), c.kind)).collect(),
            webhooks: config.webhooks.keys().cloned().collect(),
            modes: config.flow_modes.clone(),
            mode: config.mode,
            earlier: Mutex::default(),
        }
    }

    fn compile(&self, name: &str, version: &str) -> Result<Arc<CheckedFlow>, String> {
        let body = self.store.bundle(version).map_err(|error| error.to_string())?;
        let body = body.ok_or_else(|| format!("the store has no texts of {name} {version}"))?;
        let bundle: check::program::Bundle =
            serde_json::from_slice(&body).map_err(|error| format!("reading the texts of {name} {version}: {error}"))?;
        let include = |path: &str| {
            bundle.included.get(path).cloned().ok_or_else(|| format!("`{path}` is not among the stored texts"))
        };
        let called = |name: &str| bundle.called.get(name).map(|(file, text)| Source::new(file.clone(), text.clone()));
        let world = World {
            catalog: &self.catalog,
            connections: Some(&self.connections),
            webhooks: Some(&self.webhooks),
            include: &include,
            called: &called,
        };
        let (flow, faults) = check::check(&Source::new(bundle.file.clone(), bundle.flow.clone()), &world, true);
        let flow = flow.ok_or_else(|| {
            let why = faults.first().map_or_else(String::new, |fault| format!(": {}", fault.message));
            format!("{name} {version} no longer checks against the catalogue and the connections{why}")
        })?;
        if &*flow.version != version {
            return Err(format!(
                "{name} was started as {version}; with this catalogue and engine it is {}",
                flow.version
            ));
        }
        Ok(Arc::new(flow))
    }
}

impl Registry for Pinned {
    fn flow(&self, name: &str, version: &str) -> Result<Arc<CheckedFlow>, String> {
        if let Some(deployed) = self.flows.find(name).filter(|deployed| &*deployed.flow.version == version) {
            return Ok(deployed.flow);
        }
        let earlier = || self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flow) = earlier().get(version) {
            return Ok(Arc::clone(flow));
        }
        let flow = self.compile(name, version)?;
        earlier().insert(version.to_owned(), Arc::clone(&flow));
        Ok(flow)
    }

    fn mode(&self, name: &str) -> Mode {
        match self.flows.find(name) {
            Some(deployed) => deployed.mode,
            // A flow that is gone keeps what the installation gives it.
            None => self.modes.get(name).copied().unwrap_or(self.mode),
        }
    }
}
