//! Reload: flows and configuration are read again while the service runs, on SIGHUP and when files change (S11).
//!
//! All or nothing: everything is read, checked, opened and written down before the first thing changes, and any fault leaves
//! all as it was. What changes, changes between two turns of the worker's loop.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::cache::Cache;
use super::catalogues;
use super::deploy::{Activations, Stock, deploy};
use super::load::{self, Loaded, Site};
use super::retention::Retained;
use super::suppressions::{self, Found};
use super::watch::{Watch, Watched};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::{Config, Permissions};
use crate::connector::client::Client;
use crate::connector::vault;
use crate::console::PublicHost;
use crate::diag::{Diagnostic, Severity};
use crate::error::Error;
use crate::guard::limits;
use crate::id;
use crate::journal::{self, Op, Reservation, Store};
use crate::suppress::Rules;
use crate::trigger::suppress::Suppressor;
use crate::trigger::webhook::Keys;
use crate::trigger::{Deployment, Flows, Gate};
use crate::worker::Worker;

/// How often files that change while they are read are read again, and after what pause.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(200);
/// Names in one line of the log, and entries in one row of the audit log.
const NAMED: usize = 20;
const AUDITED: usize = 1_000;
/// Faults that are kept for `status`; the log has all of them.
const KEPT: usize = 20;

/// SIGHUP, from the moment on at which this is made: before, it would end the process.
pub(super) struct Hangup(#[cfg(unix)] tokio::signal::unix::Signal);

impl Hangup {
    pub(super) fn listen() -> Result<Self, Error> {
        #[cfg(unix)]
        {
            let signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
            signal.map(Hangup).map_err(|error| Error::unavailable(format!("listening for SIGHUP: {error}")))
        }
        #[cfg(not(unix))]
        Ok(Hangup())
    }

    async fn heard(&mut self) {
        #[cfg(unix)]
        if self.0.recv().await.is_some() {
            return;
        }
        std::future::pending().await
    }
}

/// Where the configuration is read from, and what says that it is time.
pub(super) struct Origin {
    pub(super) file: PathBuf,
    pub(super) permissions: Permissions,
    pub(super) hangup: Hangup,
    pub(super) watch: Watch,
}

/// How the last reload ended, for `status`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Last {
    at: Timestamp,
    pub(super) ok: bool,
    /// What changed, or how many faults there are.
    pub(super) text: String,
    pub(super) faults: Vec<String>,
}

/// Told by the service to whoever asks for its status.
#[derive(Default)]
pub(super) struct History(Mutex<Option<Last>>);

impl History {
    pub(super) fn last(&self) -> Option<Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, last: Last) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }
}

/// Everything that a reload changes, as it is now.
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) activations: Activations,
    pub(super) stock: Stock,
    pub(super) store: Arc<dyn Store>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) client: Client,
    /// What the connections were opened with; where nothing of it has changed, they and their tokens stay.
    pub(super) opened: Option<String>,
    pub(super) worker: Worker,
    pub(super) flows: Flows,
    pub(super) keys: Keys,
    pub(super) gate: Arc<Gate>,
    pub(super) retained: Retained,
    pub(super) host: PublicHost,
    pub(super) clock: Clock,
    pub(super) history: Arc<History>,
    pub(super) suppressor: Arc<Suppressor>,
}

/// Reloads until the token is cancelled.
pub(super) async fn run(mut running: Running, mut origin: Origin, stop: CancellationToken) {
    let mut opened = running.opened.take();
    loop {
        let doubted = tokio::select! {
            () = stop.cancelled() => return,
            () = origin.hangup.heard() => false,
            () = origin.watch.changed() => false,
            () = running.stock.doubt.notified() => true,
        };
        let (done, tried) = running.reload(&origin, doubted, &mut opened).await;
        running.tell(done);
        let configs: Vec<&Config> = std::iter::once(&running.config).chain(&tried).collect();
        origin.watch.follow(Watched::of(&origin.file, &configs));
    }
}

/// What was read, and is not taken over yet.
struct Read {
    config: Config,
    flows: Result<Loaded, Error>,
    rules: Result<Found, Error>,
    /// The user's own connectors are others now. Runs, polls and connections share one catalogue, so a restart takes them.
    other_catalogue: bool,
}

impl Running {
    /// One reload; with it the configuration that was read, where it could be. Where what is known of the flows is in doubt,
    /// all of them are checked.
    async fn reload(
        &mut self,
        origin: &Origin,
        doubted: bool,
        opened: &mut Option<String>,
    ) -> (Result<Changes, Vec<String>>, Option<Config>) {
        let read = match self.read(origin, doubted).await {
            Ok(read) => read,
            Err(fault) => return (Err(vec![fault]), None),
        };
        let tried = read.config.clone();
        (self.take(read, opened).await, Some(tried))
    }

    /// Reads and checks everything, again and again while somebody writes.
    async fn read(&self, origin: &Origin, doubted: bool) -> Result<Read, String> {
        for _ in 0..TRIES {
            let (file, permissions, catalog) = (origin.file.clone(), origin.permissions, Arc::clone(&self.catalog));
            let (store, now) = (self.config.store.clone(), self.clock.now());
            let work = move || {
                let config = Config::read_with(&file, permissions)?;
                let asked = !config.catalogues.is_empty() || !catalog.own.is_empty();
                let other_catalogue = asked && catalogues::open(Some(&config))?.own_digest != catalog.own_digest;
                let site = Site::with(&config, &catalog);
                let cache = if doubted { Cache::none(&store, &site) } else { Cache::open(&store, &site) };
                let mut flows = load::load(&config.flows, &catalog, &site, Some(&cache));
                if let Ok(flows) = &mut flows {
                    let entries = std::mem::take(&mut flows.entries);
                    if !cache.holds(&entries) {
                        cache.leave(entries);
                    }
                }
                let rules = suppressions::load(&config, now);
                let settled = flows.as_ref().map_or(true, |flows| flows.texts.settled());
                Ok::<_, Error>((Read { config, flows, rules, other_catalogue }, settled))
            };
            match tokio::task::spawn_blocking(work).await {
                Ok(Ok((read, true))) => return Ok(read),
                Ok(Ok((_, false))) => tokio::time::sleep(PAUSE).await,
                Ok(Err(error)) => return Err(one_line(&error)),
                Err(_) => return Err("reading stopped with a bug in watchfloor; please report the files".into()),
            }
        }
        Err("the files keep changing while they are read".into())
    }

    /// Opens what is to be opened, writes down what changes, and changes it. The faults are all that there are.
    async fn take(&mut self, read: Read, opened: &mut Option<String>) -> Result<Changes, Vec<String>> {
        let Read { config, flows, rules, other_catalogue } = read;
        let mut faults = unknown_triggers(&config, &self.catalog);
        let flows = match flows {
            Ok(flows) => {
                let errors = flows.diagnostics.iter().filter(|fault| fault.severity == Severity::Error);
                faults.extend(errors.map(place));
                Some(flows)
            }
            Err(error) => {
                faults.push(one_line(&error));
                None
            }
        };
        let rules = ruled(rules, &mut faults);
        if let Err(unread) = vault::read(&config, &self.clock).await {
            faults.extend(unread.iter().map(one_line));
            return Err(faults);
        }
        let secrets = fingerprint(&config);
        let same = secrets.as_ref().is_ok_and(|now| opened.as_ref() == Some(now));
        let client = if same { Ok(self.client.clone()) } else { self.client.reopen(&config) };
        let keys = Keys::open(&config.webhooks);
        faults.extend(client.as_ref().err().into_iter().chain(keys.as_ref().err()).flatten().map(one_line));
        let (Some(flows), Ok(client), Ok(keys), true) = (flows, client, keys, faults.is_empty()) else {
            return Err(faults);
        };
        // The same flows under other connections are compiled in another way.
        let stays = Site::of(&config) == Site::of(&self.config);
        let stock =
            Stock { shelf: if stays { Arc::clone(&self.stock.shelf) } else { Arc::default() }, ..self.stock.clone() };
        let horizon = limits::horizon(&config.limits, flows.flows.iter().flat_map(|(card, _)| &card.limits));
        let times = (None, self.clock.now());
        let (deployment, activations) =
            deploy(flows, &config, &self.catalog, stock.clone(), self.activations.clone(), times);
        let mut changes = Changes::between(&self.flows.now(), &deployment, &self.config, &config);
        changes.restart.extend(other_catalogue.then_some("catalogues"));
        if opened.is_some() && !same && !changes.settings.contains(&"connections") {
            changes.settings.push("secrets");
        }
        if rules != *self.suppressor.rules() && !changes.settings.contains(&"suppressions") {
            changes.settings.push("suppressions");
        }
        let recent = self.write(&changes, &activations, horizon).await.map_err(|fault| vec![fault])?;
        let retention = config.retention;
        self.change(config, deployment, client, keys, (recent, rules)).await?;
        self.retained.set(retention, horizon);
        self.stock = stock;
        self.activations = activations;
        *opened = secrets.ok();
        Ok(changes)
    }

    /// What must be on disk before the flows start anything, and the uses that the new limits count.
    async fn write(
        &self,
        changes: &Changes,
        activations: &Activations,
        horizon: Duration,
    ) -> Result<Vec<Reservation>, String> {
        let now = self.clock.now();
        let mut ops = vec![];
        if *activations != self.activations {
            ops.push(activations.op().map_err(|error| one_line(&error))?);
        }
        if !changes.is_empty() {
            ops.push(Op::Audit { at: now, body: changes.audit(now).into_bytes() });
        }
        let failed = |error: journal::StoreError| format!("the store: {error}");
        if !ops.is_empty() {
            journal::commit(&*self.store, ops).await.map_err(failed)?;
        }
        let (store, since) = (Arc::clone(&self.store), now.checked_sub(horizon).unwrap_or(Timestamp::UNIX_EPOCH));
        let recent = tokio::task::spawn_blocking(move || store.reservations(since)).await;
        recent.map_err(|_| "reading the uses of limits stopped".to_owned())?.map_err(failed)
    }

    /// The one moment at which all of it changes.
    async fn change(
        &mut self,
        config: Config,
        deployment: Deployment,
        client: Client,
        keys: Keys,
        (recent, rules): (Vec<Reservation>, Rules),
    ) -> Result<(), Vec<String>> {
        let (ours, our_keys, flows) = (self.client.clone(), self.keys.clone(), self.flows.clone());
        let (gate, host, given) = (Arc::clone(&self.gate), self.host.clone(), config.clone());
        let suppressor = Arc::clone(&self.suppressor);
        let changed = self.worker.change(Box::new(move |deps| {
            deps.guard.reload(&given, recent);
            deps.public_url.clone_from(&given.public_url);
            deps.in_flight = given.in_flight;
            ours.adopt(&client);
            our_keys.adopt(&keys);
            gate.set_max(given.max_backlog);
            host.set(public_host(&given).as_deref());
            suppressor.replace(rules);
            flows.replace(deployment);
        }));
        if !changed.await {
            return Err(vec!["the service is stopping".into()]);
        }
        // Only a restart changes these; until then they are as they were.
        let Config { store, listen, .. } = self.config.clone();
        self.config = Config { store, listen, ..config };
        Ok(())
    }

    fn tell(&self, done: Result<Changes, Vec<String>>) {
        let at = self.clock.now();
        match done {
            Ok(changes) if changes.is_empty() && changes.restart.is_empty() => {
                tracing::info!("reloaded: nothing changed");
                self.history.note(Last { at, ok: true, text: "nothing changed".into(), faults: vec![] });
            }
            Ok(changes) => {
                let text = changes.to_string();
                tracing::info!("reloaded: {text}");
                if !changes.restart.is_empty() {
                    tracing::warn!("{} changes with a restart only", changes.restart.join(", "));
                }
                self.history.note(Last { at, ok: true, text, faults: vec![] });
            }
            Err(mut faults) => {
                let text = format!("{} faults; all is as it was", faults.len());
                faults.iter().for_each(|fault| tracing::error!("the reload failed: {fault}"));
                tracing::error!("the reload failed: {text}");
                faults.truncate(KEPT);
                self.history.note(Last { at, ok: false, text, faults });
            }
        }
    }
}

/// The rules, where all of their files are sound.
fn ruled(found: Result<Found, Error>, faults: &mut Vec<String>) -> Rules {
    match found {
        Ok(found) => {
            let errors = found.diagnostics.iter().filter(|fault| fault.severity == Severity::Error);
            faults.extend(errors.map(place));
            found.rules()
        }
        Err(error) => {
            faults.push(one_line(&error));
            Rules::default()
        }
    }
}

/// The host of the address that links begin with.
pub(super) fn public_host(config: &Config) -> Option<String> {
    let url = reqwest::Url::parse(config.public_url.as_deref()?).ok()?;
    url.host_str().map(str::to_owned)
}

/// Intervals for trigger types that there are none of.
pub(super) fn unknown_triggers(config: &Config, catalog: &Catalog) -> Vec<String> {
    let unknown = config.poll.keys().filter(|name| !catalog.triggers.contains_key(name.as_str()));
    unknown.map(|name| format!("poll.{name}: there is no such trigger type")).collect()
}

/// What the connections are made of, their secrets and roots of trust included; never written anywhere.
pub(super) fn fingerprint(config: &Config) -> Result<String, String> {
    let mut parts = vec![format!("{:?} {}", config.connections, config.in_flight)];
    for (_, secret) in config.secrets() {
        parts.push(secret.resolve()?.expose().to_owned());
    }
    for file in config.connections.values().filter_map(|connection| connection.ca_file.as_ref()) {
        parts.push(std::fs::read_to_string(file).map_err(|error| error.to_string())?);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Ok(id::hex(&id::digest16(&parts)))
}

fn one_line(error: &Error) -> String {
    match &error.help {
        Some(help) => format!("{} ({help})", error.message),
        None => error.message.clone(),
    }
}

fn place(fault: &Diagnostic) -> String {
    let (line, column) = fault.source.line_col(fault.span.start);
    format!("{}:{line}:{column}: {} {}", fault.source.name, fault.code, fault.message)
}

/// What is not as before.
#[derive(Debug, Default)]
struct Changes {
    new: Vec<serde_json::Value>,
    changed: Vec<serde_json::Value>,
    gone: Vec<serde_json::Value>,
    settings: Vec<&'static str>,
    restart: Vec<&'static str>,
}

impl Changes {
    fn between(before: &Deployment, after: &Deployment, old: &Config, new: &Config) -> Self {
        let mut changes = Changes::default();
        for now in after.iter() {
            let entry = |was: serde_json::Value| json!({ "flow": now.name(), "version": now.card.version, "mode": now.mode, "was": was });
            match before.find(now.name()) {
                None => changes.new.push(entry(json!(null))),
                Some(was) if was.card != now.card || was.mode != now.mode => {
                    changes.changed.push(entry(json!({ "version": was.card.version, "mode": was.mode })));
                }
                Some(_) => {}
            }
        }
        let gone = before.iter().filter(|was| after.find(was.name()).is_none());
        changes.gone = gone.map(|was| json!({ "flow": was.name(), "version": was.card.version })).collect();
        let shown = |config: &Config| {
            [
                ("mode", format!("{:?}", config.mode)),
                ("flow_modes", format!("{:?}", config.flow_modes)),
                ("server.public_url", format!("{:?}", config.public_url)),
                ("server.watch", format!("{:?}", config.watch)),
                ("connections", format!("{:?}", config.connections)),
                ("webhooks", format!("{:?}", config.webhooks)),
                ("key_vaults", format!("{:?}", config.key_vaults)),
                ("limits", format!("{:?}", config.limits)),
                ("protected", format!("{:?}", config.protected)),
                ("retention", format!("{:?}", config.retention)),
                ("fresh_for", format!("{:?}", config.fresh_for)),
                ("max_backlog", format!("{:?}", config.max_backlog)),
                ("in_flight", format!("{:?}", config.in_flight)),
                ("suppressions", format!("{:?} {:?}", config.suppressions, config.user_scoped_suppressions)),
                ("poll", format!("{:?}", config.poll)),
            ]
        };
        let differing = shown(old).into_iter().zip(shown(new)).filter(|(was, is)| was != is);
        changes.settings = differing.map(|((key, _), _)| key).collect();
        changes.restart.extend((old.store != new.store).then_some("store"));
        changes.restart.extend((old.listen != new.listen).then_some("server.listen"));
        changes
    }

    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.changed.is_empty() && self.gone.is_empty() && self.settings.is_empty()
    }

    fn audit(&self, at: Timestamp) -> String {
        let some = |list: &[serde_json::Value]| list.iter().take(AUDITED).cloned().collect::<Vec<_>>();
        json!({
            "at": at.to_string(), "event": "reload", "settings": self.settings,
            "new": some(&self.new), "changed": some(&self.changed), "gone": some(&self.gone),
            "counts": { "new": self.new.len(), "changed": self.changed.len(), "gone": self.gone.len() },
        })
        .to_string()
    }
}

impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = vec![];
        for (list, word) in [(&self.new, "new"), (&self.changed, "changed"), (&self.gone, "gone")] {
            if list.is_empty() {
                continue;
            }
            let names = list.iter().take(NAMED).filter_map(|entry| entry.get("flow")?.as_str());
            let mut names = names.collect::<Vec<_>>().join(", ");
            if list.len() > NAMED {
                write!(names, " and {} more", list.len() - NAMED)?;
            }
            let flows = if list.len() == 1 { "flow" } else { "flows" };
            parts.push(format!("{} {flows} {word} ({names})", list.len()));
        }
        parts.extend(self.settings.iter().map(|key| format!("{key} changed")));
        parts.extend(self.restart.iter().map(|key| format!("{key} changes with a restart only")));
        f.write_str(&parts.join(", "))
    }
}
