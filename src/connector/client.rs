//! The one place that sends: a permitted call goes out, an outcome comes back.
//!
//! Not here: what is sent (`request`, `native`), over what (`conn`), what an answer means (`answer`), when to try again
//! (the engine).

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, Shared, WeakShared};
use tokio::time::Instant;

pub use super::conn::Expiry;
use super::conn::{self, Conn, refuse};
use super::examine::{self, Examined};
use super::leave::Leave;
use super::native::{Answer, Attempt, Got};
use super::wire::{self, Stage};
use super::{answer, entity, pages, redact, request};
use crate::catalog::{Action, Catalog, Effect, Paging, Type};
use crate::clock::Clock;
use crate::config::{Config, SecretRef};
use crate::engine::{Call, Outcome, Purpose};
use crate::error::Error;
use crate::guard::breaker::Heard;
use crate::guard::{Holds, Permit};
use crate::id::{self, RunId};
use crate::value::{Map, Value};

/// The time limit of a read that no step made.
pub(super) const FETCH: Duration = Duration::from_secs(120);
/// The time limit of asking whether a connection is there.
const PROBE: Duration = Duration::from_secs(30);
/// The most answers kept for reuse, and reads in flight whose answers may be shared.
const KEPT: usize = 4096;

/// How one attempt ended, and what people may see of it.
#[derive(Clone, Debug)]
pub struct Reply {
    pub outcome: Outcome,
    /// The full redacted answer for people: JSON text of at most 1 MiB; a longer one is cut and says so.
    pub blob: Option<Vec<u8>>,
    /// From the moment it might go out to its end; the wait for the rate limit is not in it.
    pub took: Duration,
}

/// The worker's way out: the client, or the tenant of a simulation.
pub trait Sends: Send + Sync {
    fn send(&self, permit: Permit, run: &RunId, call: Arc<Call>) -> BoxFuture<'static, Reply>;
    fn fetch(&self, connection: &str, action: &str, inputs: Map) -> BoxFuture<'static, Result<Value, Outcome>>;
    /// Asks whether a connection that failed is there again; its breaker hears the answer. A way out that never fails has
    /// nothing to ask.
    fn probe(&self, _connection: &str) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl Sends for Client {
    fn send(&self, permit: Permit, run: &RunId, call: Arc<Call>) -> BoxFuture<'static, Reply> {
        Client::send(self, permit, run, call)
    }

    fn fetch(&self, connection: &str, action: &str, inputs: Map) -> BoxFuture<'static, Result<Value, Outcome>> {
        Client::fetch(self, connection, action, inputs)
    }

    fn probe(&self, connection: &str) -> BoxFuture<'static, ()> {
        Client::probe(self, connection)
    }
}

/// All connections of a configuration, opened. Cloning shares them, and a reload changes them for all clones at once.
#[derive(Clone)]
pub struct Client {
    inner: Arc<RwLock<Arc<Inner>>>,
}

struct Inner {
    catalog: Arc<Catalog>,
    clock: Clock,
    holds: Arc<Holds>,
    connections: BTreeMap<Arc<str>, Arc<Conn>>,
    /// Secrets from a vault that end.
    vaulted: Vec<Expiry>,
    shared: Mutex<HashMap<String, Pending>>,
    kept: Mutex<HashMap<String, (Instant, Arc<Done>)>>,
}

/// One attempt, over.
struct Done {
    got: Got,
    took: Duration,
}

type Pending = WeakShared<BoxFuture<'static, Arc<Done>>>;

impl Client {
    /// Opens every connection: resolves its secrets, reads its roots of trust, parses its addresses. Nothing is sent.
    pub fn open(config: &Config, catalog: Arc<Catalog>, clock: Clock) -> Result<Client, Error> {
        Inner::open(config, catalog, clock, None)
            .map_err(|mut faults| faults.swap_remove(0))
            .map(|inner| Client { inner: Arc::new(RwLock::new(Arc::new(inner))) })
    }

    /// Opens the connections of another configuration. How fast a connection was asked until now still counts
    /// there, and so do pauses and breakers. The
    /// errors are all that are wrong.
    pub fn reopen(&self, config: &Config) -> Result<Client, Vec<Error>> {
        let now = self.now();
        Inner::open(config, Arc::clone(&now.catalog), now.clock.clone(), Some(&now))
            .map(|inner| Client { inner: Arc::new(RwLock::new(Arc::new(inner))) })
    }

    /// Takes over the connections of another client. Calls in flight end on those that they began with.
    pub fn adopt(&self, other: &Client) {
        let other = other.now();
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = other;
    }

    fn now(&self) -> Arc<Inner> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The pauses and breakers that everything asks before it is sent.
    pub fn holds(&self) -> Arc<Holds> {
        Arc::clone(&self.now().holds)
    }

    /// What can be found out about a connection, for people; `None` where there is no such one.
    pub fn examine(&self, connection: &str) -> BoxFuture<'static, Option<Examined>> {
        let inner = self.now();
        let connection = connection.to_owned();
        Box::pin(async move {
            let conn = inner.connections.get(connection.as_str())?;
            let stage = Stage::new(Leave::new(&inner.holds, &inner.clock, None, &conn.name, Effect::Read));
            Some(Box::pin(examine::examine(conn, &stage, &inner.clock)).await)
        })
    }

    /// What of the credentials ends at a time that is known, the next first.
    pub fn expiries(&self) -> Vec<Expiry> {
        let now = self.now();
        let mut all: Vec<Expiry> = now.connections.values().flat_map(|conn| conn.expiries()).collect();
        all.extend(now.vaulted.iter().cloned());
        all.sort_by_key(|expiry| expiry.at);
        all
    }

    /// Sends one attempt. Never panics; ends within the call's time limit once it has its rate token.
    /// The permit is taken, since it is for this one attempt.
    pub fn send(&self, permit: Permit, run: &RunId, call: Arc<Call>) -> BoxFuture<'static, Reply> {
        // A read leaves nothing behind that could be looked for.
        let tag = if call.effect() == Effect::Read { String::new() } else { id::tag(&id::call_key(run, &call.path)) };
        self.go(permit.flow().cloned(), permit.effect(), tag, call)
    }

    pub(super) fn go(
        &self,
        flow: Option<Arc<str>>,
        effect: Effect,
        tag: String,
        call: Arc<Call>,
    ) -> BoxFuture<'static, Reply> {
        let inner = self.now();
        Box::pin(async move {
            let leave = Leave::new(&inner.holds, &inner.clock, flow, &call.connection, effect);
            let done = match AssertUnwindSafe(inner.attempt(&call, leave, tag)).catch_unwind().await {
                Ok(done) => done,
                Err(_) => crashed(),
            };
            let blob = if call.secure { None } else { blob(&done.got) };
            Reply { outcome: inner.outcome(&call, &done.got), blob, took: done.took }
        })
    }

    /// Reads for pollers and for look-ups of protected assets; always asks afresh. Refuses every action whose effect is
    /// not `read`. A list is read to its end, over all its pages, unless the caller gives `skip` and so pages by itself.
    pub fn fetch(&self, connection: &str, action: &str, inputs: Map) -> BoxFuture<'static, Result<Value, Outcome>> {
        self.fetch_as(connection, action, inputs, None)
    }

    /// As `fetch`, typed by `output` where it is given instead of the action's own.
    pub fn fetch_as(
        &self,
        connection: &str,
        action: &str,
        inputs: Map,
        output: Option<Type>,
    ) -> BoxFuture<'static, Result<Value, Outcome>> {
        let inner = self.now();
        let found = inner
            .catalog
            .action(action)
            .cloned()
            .ok_or_else(|| refuse("no_action", format!("the catalogue has no action {action}")));
        let connection = connection.to_owned();
        Box::pin(async move {
            let action = found?;
            if action.effect != Effect::Read {
                return Err(refuse(
                    "not_a_read",
                    format!("{} is no read, so it is sent for no poller and no look-up", action.name),
                ));
            }
            let conn = inner.conn(&connection, &action)?;
            let leave = Leave::new(&inner.holds, &inner.clock, None, &conn.name, Effect::Read);
            let attempt = inner.attempt_of(conn, &action, inputs.clone(), leave, String::new());
            let whole = action.native.is_none() && action.paging != Paging::None && !inputs.contains_key("skip");
            let work = async {
                if whole {
                    let got = pages::all(&attempt).await;
                    heard(&attempt, &got);
                    Arc::new(Done { got, took: Duration::ZERO })
                } else {
                    run(attempt, FETCH).await
                }
            };
            let done = AssertUnwindSafe(Box::pin(work)).catch_unwind().await.unwrap_or_else(|_| crashed());
            match &done.got {
                Ok(answer) => inner.typed(&action, output.as_ref().unwrap_or(&action.output), answer, &inputs),
                Err((outcome, _)) => Err(outcome.clone()),
            }
            .map_err(answer::bounded)
        })
    }

    /// Asks whether a connection is there, with a request that changes nothing: a mail server is greeted and signed in to;
    /// of any other service the root is asked for, and every answer below 500 will do. Its breaker hears what came of it.
    pub fn probe(&self, connection: &str) -> BoxFuture<'static, ()> {
        let inner = self.now();
        let connection = connection.to_owned();
        Box::pin(async move {
            let Some(conn) = inner.connections.get(connection.as_str()) else { return };
            let leave = Leave::new(&inner.holds, &inner.clock, None, &conn.name, Effect::Read);
            let stage = Stage::new(leave);
            let reached = match tokio::time::timeout(PROBE, Box::pin(conn.reach(&stage))).await {
                Ok(reached) => reached,
                Err(_) => Err(wire::unknown(0, "timeout", format!("no answer within {} s", PROBE.as_secs()))),
            };
            stage.heard(&reached.map_or_else(|outcome| Heard::of(&outcome), |()| Heard::Answered), false);
        })
    }
}

fn vaulted(config: &Config) -> Vec<Expiry> {
    let each = config.secrets().into_iter().filter_map(|(place, secret)| match secret {
        SecretRef::Vault(vaulted) => {
            Some(Expiry { what: format!("the secret {vaulted} ({place})"), at: vaulted.expires()? })
        }
        _ => None,
    });
    each.collect()
}

impl Inner {
    fn open(config: &Config, catalog: Arc<Catalog>, clock: Clock, before: Option<&Inner>) -> Result<Inner, Vec<Error>> {
        let plain = conn::plain(config).map_err(|error| vec![error])?;
        let (mut connections, mut faults) = (BTreeMap::new(), vec![]);
        for (name, connection) in &config.connections {
            let limits = before
                .and_then(|before| before.connections.get(name))
                .map(|conn| &conn.limits)
                .filter(|it| it.fit(connection.kind, connection.rate));
            match Conn::open(connection, config, &plain, &clock, limits.cloned()) {
                Ok(conn) => drop(connections.insert(Arc::clone(name), Arc::new(conn))),
                Err(error) => faults.push(error),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let (shared, kept) = (Mutex::default(), Mutex::default());
        let holds = before.map(|before| Arc::clone(&before.holds)).unwrap_or_default();
        Ok(Inner { catalog, clock, holds, connections, vaulted: vaulted(config), shared, kept })
    }

    async fn attempt(self: &Arc<Self>, call: &Call, leave: Leave, tag: String) -> Arc<Done> {
        let conn = match self.conn(&call.connection, &call.action) {
            Ok(conn) => conn,
            Err(outcome) => return Arc::new(Done { got: Err((outcome, Vec::new())), took: Duration::ZERO }),
        };
        let limit = Duration::from_millis(call.timeout_ms);
        let attempt = self.attempt_of(conn, &call.action, call.inputs.clone(), leave, tag);
        match share_key(call) {
            Some(key) => self.shared(key, call.action.reuse, attempt, limit).await,
            None => run(attempt, limit).await,
        }
    }

    fn attempt_of(&self, conn: Arc<Conn>, action: &Arc<Action>, inputs: Map, leave: Leave, tag: String) -> Attempt {
        Attempt {
            conn,
            action: Arc::clone(action),
            inputs,
            tag,
            catalog: Arc::clone(&self.catalog),
            clock: self.clock.clone(),
            stage: Stage::new(leave),
        }
    }

    fn conn(&self, name: &str, action: &Action) -> Result<Arc<Conn>, Outcome> {
        let Some(conn) = self.connections.get(name) else {
            return Err(refuse("no_connection", format!("there is no connection {name} in the configuration")));
        };
        if action.kind != conn.kind {
            let (wanted, kind) = (action.kind.as_str(), conn.kind.as_str());
            let message = format!("{} needs a connection of kind {wanted}, {name} is of kind {kind}", action.name);
            return Err(refuse("bad_connection", message));
        }
        Ok(Arc::clone(conn))
    }

    /// Joins an identical read in flight, or takes an answer that is still good, or sends.
    async fn shared(
        self: &Arc<Self>,
        key: String,
        reuse: Option<Duration>,
        attempt: Attempt,
        limit: Duration,
    ) -> Arc<Done> {
        if reuse.is_some()
            && let Some(done) = self.still_good(&key)
        {
            return done;
        }
        let future = {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            match shared.get(&key).and_then(WeakShared::upgrade) {
                Some(future) => future,
                None => {
                    if shared.len() >= KEPT {
                        shared.retain(|_, pending| pending.upgrade().is_some());
                    }
                    let future = Arc::clone(self).lead(key.clone(), reuse, attempt, limit);
                    if let Some(weak) = future.downgrade() {
                        shared.insert(key, weak);
                    }
                    future
                }
            }
        };
        future.await
    }

    fn lead(
        self: Arc<Self>,
        key: String,
        reuse: Option<Duration>,
        attempt: Attempt,
        limit: Duration,
    ) -> Shared<BoxFuture<'static, Arc<Done>>> {
        let work: BoxFuture<'static, Arc<Done>> = Box::pin(async move {
            let done = AssertUnwindSafe(run(attempt, limit)).catch_unwind().await.unwrap_or_else(|_| crashed());
            if let (Some(reuse), Ok(_)) = (reuse, &done.got) {
                let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                if kept.len() >= KEPT {
                    kept.retain(|_, (until, _)| *until > now);
                }
                if kept.len() < KEPT {
                    kept.insert(key.clone(), (now + reuse, Arc::clone(&done)));
                }
            }
            self.shared.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            done
        });
        work.shared()
    }

    fn still_good(&self, key: &str) -> Option<Arc<Done>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, done) = kept.get(key)?;
        if *until > Instant::now() {
            return Some(Arc::clone(done));
        }
        kept.remove(key);
        None
    }

    fn outcome(&self, call: &Call, got: &Got) -> Outcome {
        answer::bounded(match got {
            Ok(answer) => match self.typed(&call.action, &call.output, answer, &call.inputs) {
                Ok(value) => Outcome::Done { status: answer.status, output: call.keep.project(&value) },
                // The answer to an earlier attempt was lost, and now nothing is left to do: that attempt did it.
                Err(_) if call.maybe_sent && entity::nothing_left(&call.action.mapping, &answer.json) => {
                    let output = Value::object([("closed", Value::Int(0))]);
                    Outcome::Done { status: answer.status, output: call.keep.project(&output) }
                }
                Err(outcome) => outcome,
            },
            Err((outcome, _)) => outcome.clone(),
        })
    }

    fn typed(&self, action: &Action, ty: &Type, answer: &Answer, inputs: &Map) -> Result<Value, Outcome> {
        request::output(action, ty, answer.status, &answer.json, inputs, self.clock.now())
            .map_err(|bad| wire::unknown(answer.status, "invalid_answer", bad.to_string()))
    }
}

/// Waits for the rate limit, then gives the attempt its time.
async fn run(attempt: Attempt, limit: Duration) -> Arc<Done> {
    if let Err(held) = attempt.stage.look() {
        return Arc::new(Done { got: Err((held, Vec::new())), took: Duration::ZERO });
    }
    let _slot = attempt.conn.limits.take(&attempt.action.rate_class).await;
    let began = Instant::now();
    let got = match tokio::time::timeout(limit, Box::pin(attempt.run())).await {
        Ok(got) => got,
        Err(_) => Err((late(&attempt, limit), Vec::new())),
    };
    heard(&attempt, &got);
    Arc::new(Done { got, took: began.elapsed() })
}

/// Tells the connection's breaker what came of an attempt.
fn heard(attempt: &Attempt, got: &Got) {
    let heard = match got {
        Ok(_) => Heard::Answered,
        Err((outcome, _)) => Heard::of(outcome),
    };
    attempt.stage.heard(&heard, true);
}

fn late(attempt: &Attempt, limit: Duration) -> Outcome {
    let seconds = limit.as_secs_f32();
    if attempt.stage.sent() {
        return wire::unknown(0, "timeout", format!("{} did not answer within {seconds} s", attempt.conn.name));
    }
    let message = format!("{} could not be asked within {seconds} s", attempt.conn.name);
    Outcome::NotSent { code: "timeout".into(), message, transient: true }
}

/// A bug of ours ends one attempt, not the process; whether something was sent is not known.
fn crashed() -> Arc<Done> {
    let outcome =
        wire::unknown(0, "internal", "sending failed by a fault of this program; please report it with its log");
    Arc::new(Done { got: Err((outcome, Vec::new())), took: Duration::ZERO })
}

fn blob(got: &Got) -> Option<Vec<u8>> {
    let (body, parsed) = match got {
        Ok(answer) => (&answer.body, answer.parsed),
        Err((_, body)) => (body, false),
    };
    (!body.is_empty()).then(|| redact::for_people(body, parsed))
}

/// What makes two reads identical. Look-ups, confirmations, retries and the passes of a loop have none: they ask afresh.
fn share_key(call: &Call) -> Option<String> {
    let first = call.purpose == Purpose::Main && call.attempt <= 1 && !call.path.contains("/pass[");
    if call.effect() != Effect::Read || !first {
        return None;
    }
    let inputs = serde_json::to_string(&call.inputs).ok()?;
    Some(format!("{}\n{}\n{inputs}", call.connection, call.action.name))
}
