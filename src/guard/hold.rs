//! What holds work back before it is sent: pauses that a person made, and the breakers of connections that fail.
//!
//! Shared by all that send and all that would take new work: whoever is about to send asks here last. Pauses are in the
//! store and outlive the process; breakers are not, since a new process finds out for itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::breaker::{Breaker, Heard, Ticket};
use crate::catalog::Effect;
use crate::journal::{self, Op, Store, StoreError};

/// The name under which the store keeps the pauses.
const NAME: &str = "pauses";
/// Code of the outcome of a call that was held back at the last moment: nothing was sent, and nothing is used up.
pub const HELD: &str = "held";

/// What a pause is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything: nothing is sent and nothing is taken in.
    All,
    /// Containment, of all flows.
    Destructive,
    /// What a flow would do to the world; its reads go on.
    Flow(Arc<str>),
    /// All that goes over a connection, polls too.
    Connection(Arc<str>),
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scope::All => f.write_str("everything"),
            Scope::Destructive => f.write_str("containment"),
            Scope::Flow(name) => write!(f, "the flow {name}"),
            Scope::Connection(name) => write!(f, "the connection {name}"),
        }
    }
}

/// A pause, and who answers for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub scope: Scope,
    pub reason: String,
    pub by: String,
    pub at: Timestamp,
}

impl Pause {
    /// The pause as a sentence for people.
    pub fn sentence(&self) -> String {
        let at = self.at.strftime("%Y-%m-%d %H:%M:%SZ");
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        format!("{} is paused by {} since {at}{reason}", self.scope, self.by)
    }

    fn stops(&self, ask: &Ask<'_>) -> bool {
        match &self.scope {
            Scope::All => true,
            Scope::Destructive => ask.effect == Effect::Destructive,
            Scope::Flow(name) => ask.effect != Effect::Read && ask.flow == Some(name),
            Scope::Connection(name) => ask.connection == Some(name),
        }
    }
}

/// Who would send, and what.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub flow: Option<&'a str>,
    pub connection: Option<&'a str>,
    pub effect: Effect,
}

/// Why a call waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    Paused(String),
    /// Its connection fails.
    Fails(String),
}

impl Stop {
    pub fn reason(&self) -> &str {
        match self {
            Stop::Paused(reason) | Stop::Fails(reason) => reason,
        }
    }
}

/// A connection that does not let everything through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    pub connection: Arc<str>,
    pub reason: String,
}

/// All that holds work back. Shared.
#[derive(Debug, Default)]
pub struct Holds {
    state: Mutex<State>,
    /// Something was lifted, opened or closed: whoever holds calls looks again.
    changed: Notify,
    /// One change of the pauses at a time, from reading them to the disk.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    pauses: Vec<Pause>,
    breakers: BTreeMap<Arc<str>, Breaker>,
    /// Counts the changes of the pauses.
    version: u64,
}

impl Holds {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a service begins with: the pauses that the store has, and one more where it is a restored copy.
    ///
    /// # Errors
    /// As `load` and `restored`.
    pub async fn take_over(&self, store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
        self.load(store)?;
        self.restored(store, now).await
    }

    /// Takes the pauses over that the store has. Call it before anything is sent.
    ///
    /// # Errors
    /// Where they can't be read: nothing may be sent then, since what was paused is not known.
    pub fn load(&self, store: &dyn Store) -> Result<(), StoreError> {
        let pauses = stored(store)?;
        for pause in &pauses {
            tracing::warn!(scope = %pause.scope, by = pause.by, reason = pause.reason, "paused");
        }
        self.set(pauses);
        Ok(())
    }

    /// Pauses: it holds from now on, and when this returns well, after a restart too.
    ///
    /// # Errors
    /// Where it could not be written: it holds now all the same, but a restart would forget it.
    pub async fn pause(&self, store: &dyn Store, pause: Pause) -> Result<(), StoreError> {
        self.pause_with(store, pause, Vec::new()).await
    }

    /// A store that is a restored copy starts paused (S13): what was done since it was taken is not in it. Once: lifted, it
    /// is a store like any other.
    ///
    /// # Errors
    /// Where the store can't be read or written: nothing may be sent then.
    pub async fn restored(&self, store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
        let Some(copied) = journal::restored(store)? else { return Ok(()) };
        let reason = format!("the store is a copy of {copied} that was restored: what happened since is not in it");
        let pause = Pause { scope: Scope::All, reason, by: "watchfloor".to_owned(), at: now };
        self.pause_with(store, pause, vec![journal::settled()]).await
    }

    async fn pause_with(&self, store: &dyn Store, pause: Pause, also: Vec<Op>) -> Result<(), StoreError> {
        let _one = self.changing.lock().await;
        let pauses = with(self.pauses(), pause.clone());
        self.set(pauses.clone());
        tracing::warn!(scope = %pause.scope, by = pause.by, reason = pause.reason, "paused");
        let ops = ops(&pauses, "pause", &pause).into_iter().chain(also).collect();
        journal::commit(store, ops).await.map(drop)
    }

    /// Lifts a pause, when that is on disk; `None` where there is none of this scope.
    pub async fn resume(
        &self,
        store: &dyn Store,
        scope: &Scope,
        by: &str,
        now: Timestamp,
    ) -> Result<Option<Pause>, StoreError> {
        let _one = self.changing.lock().await;
        let (lifted, left): (Vec<Pause>, Vec<Pause>) =
            self.pauses().into_iter().partition(|pause| pause.scope == *scope);
        let Some(pause) = lifted.into_iter().next() else { return Ok(None) };
        let resumed = Pause { by: by.to_owned(), at: now, ..pause.clone() };
        journal::commit(store, ops(&left, "resume", &resumed)).await?;
        self.set(left);
        tracing::warn!(scope = %scope, by, "resumed");
        Ok(Some(pause))
    }

    fn set(&self, pauses: Vec<Pause>) {
        let mut state = self.state();
        state.pauses = pauses;
        state.version += 1;
        drop(state);
        self.changed.notify_one();
    }

    pub fn pauses(&self) -> Vec<Pause> {
        self.state().pauses.clone()
    }

    /// Counts the changes of the pauses: where it is the same, so are they.
    pub fn version(&self) -> u64 {
        self.state().version
    }

    /// Why nothing is taken in; `None` where it is.
    pub fn all_paused(&self) -> Option<String> {
        self.state().pauses.iter().find(|pause| pause.scope == Scope::All).map(Pause::sentence)
    }

    /// The pause that a call stands under, in a sentence.
    pub fn paused(&self, ask: &Ask<'_>) -> Option<String> {
        self.state().paused(ask)
    }

    /// Why a call must wait. What is held already and has its turn looks at the pauses alone (`paused`).
    pub fn stops(&self, ask: &Ask<'_>, now: Timestamp) -> Option<Stop> {
        let state = self.state();
        if let Some(reason) = state.paused(ask) {
            return Some(Stop::Paused(reason));
        }
        let (name, breaker) = state.breakers.get_key_value(ask.connection?)?;
        let why = breaker.stops(ask.effect == Effect::Read, now)?;
        Some(Stop::Fails(format!("the connection {name} is held back: {why}")))
    }

    /// Asked right before a call is sent, the last word: it may go, or why not.
    pub fn leave(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Ticket, String> {
        let mut state = self.state();
        if let Some(reason) = state.paused(ask) {
            return Err(reason);
        }
        match ask.connection.and_then(|name| state.breakers.get_mut(name)) {
            Some(breaker) => breaker.leave(ask.effect == Effect::Read, now),
            None => Ok(0),
        }
    }

    /// What was heard of a call over a connection. `real` is false for a mere "are you there".
    pub fn heard(&self, connection: &Arc<str>, heard: &Heard, ticket: Ticket, real: bool, now: Timestamp) {
        let mut state = self.state();
        // A connection that never failed needs no breaker.
        if *heard != Heard::Nothing
            && !matches!(heard, Heard::Failed { .. })
            && !state.breakers.contains_key(connection)
        {
            return;
        }
        let breaker = state.breakers.entry(Arc::clone(connection)).or_default();
        let was = (breaker.is_open(), breaker.is_closed());
        if !breaker.heard(heard, ticket, real, now) {
            return;
        }
        let (is, why) = (breaker.is_open(), breaker.explain());
        drop(state);
        match (was.0, is) {
            (false, true) => tracing::warn!(connection = &**connection, why, "the connection fails: its work waits"),
            (true, true) => tracing::warn!(connection = &**connection, why, "the connection still fails"),
            (true, false) => tracing::info!(connection = &**connection, "the connection answers again"),
            (false, false) => {}
        }
        self.changed.notify_one();
    }

    /// Whether nothing goes over a connection but a probe.
    pub fn is_open(&self, connection: &str) -> bool {
        self.state().breakers.get(connection).is_some_and(Breaker::is_open)
    }

    /// Whether one more call that waited for a connection may go on; `false` while it fails.
    pub fn take(&self, connection: &str, now: Timestamp) -> bool {
        self.state().breakers.get_mut(connection).is_none_or(|breaker| breaker.is_closed() || breaker.take(now))
    }

    /// Nothing waits for the connection any more.
    pub fn settle(&self, connection: &str) {
        if let Some(breaker) = self.state().breakers.get_mut(connection) {
            breaker.settle();
        }
    }

    /// Connections behind which nothing waits let everything through again, once they have answered.
    pub fn settle_all_but(&self, waits: &dyn Fn(&str) -> bool) {
        let mut state = self.state();
        state.breakers.iter_mut().filter(|(name, _)| !waits(name)).for_each(|(_, breaker)| breaker.settle());
    }

    /// Whether a connection wants to be asked if it is there.
    pub fn wants_probe(&self, connection: &str, now: Timestamp) -> bool {
        self.state().breakers.get(connection).is_some_and(|breaker| breaker.wants_probe(now))
    }

    /// When a connection is to be looked at next; `None` where it lets everything through.
    pub fn due(&self, connection: &str) -> Option<Timestamp> {
        self.state().breakers.get(connection)?.due()
    }

    /// The connections that do not let everything through.
    pub fn broken(&self) -> Vec<Broken> {
        let state = self.state();
        let broken = state.breakers.iter().filter(|(_, breaker)| !breaker.is_closed());
        broken.map(|(name, breaker)| Broken { connection: Arc::clone(name), reason: breaker.explain() }).collect()
    }

    /// What people should know of, one sentence each.
    pub fn sentences(&self) -> Vec<String> {
        let pauses = self.pauses().iter().map(Pause::sentence).collect::<Vec<_>>();
        let broken =
            self.broken().into_iter().map(|it| format!("the connection {} is held back: {}", it.connection, it.reason));
        pauses.into_iter().chain(broken).collect()
    }

    /// Waits until something was lifted, opened or closed. For one waiter.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl State {
    fn paused(&self, ask: &Ask<'_>) -> Option<String> {
        self.pauses.iter().find(|pause| pause.stops(ask)).map(Pause::sentence)
    }
}

/// The pauses that a store has.
pub fn stored(store: &dyn Store) -> Result<Vec<Pause>, StoreError> {
    let Some(body) = store.get(NAME)? else { return Ok(Vec::new()) };
    serde_json::from_slice(&body)
        .map_err(|error| StoreError::Failed(format!("reading the pauses of the store: {error}")))
}

/// The list with one more pause; the earlier one of the same scope is replaced.
fn with(mut pauses: Vec<Pause>, pause: Pause) -> Vec<Pause> {
    pauses.retain(|other| other.scope != pause.scope);
    pauses.push(pause);
    pauses
}

/// What is written when a pause comes or goes: the list, and a line of the audit log.
fn ops(pauses: &[Pause], what: &str, pause: &Pause) -> Vec<Op> {
    let line = serde_json::json!({
        "at": pause.at.to_string(),
        "event": what,
        "scope": pause.scope,
        "by": pause.by,
        "reason": pause.reason,
    });
    vec![
        Op::Put { name: NAME.to_owned(), body: serde_json::to_vec(pauses).unwrap_or_default() },
        Op::Audit { at: pause.at, body: line.to_string().into_bytes() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::memory::MemoryStore;

    fn pause(scope: Scope) -> Pause {
        Pause { scope, reason: "maintenance".into(), by: "kim".into(), at: Timestamp::UNIX_EPOCH }
    }

    fn ask(flow: &'static str, connection: &'static str, effect: Effect) -> Ask<'static> {
        Ask { flow: Some(flow), connection: Some(connection), effect }
    }

    #[test]
    fn each_scope_stops_what_it_says_and_nothing_else() {
        let (read, notify, destroy) = (Effect::Read, Effect::Notify, Effect::Destructive);
        let calls =
            [ask("f", "mde", read), ask("f", "mail", notify), ask("f", "mde", destroy), ask("g", "mde", destroy)];
        for (scope, stopped) in [
            (Scope::All, [true, true, true, true]),
            (Scope::Destructive, [false, false, true, true]),
            (Scope::Flow("f".into()), [false, true, true, false]),
            (Scope::Connection("mde".into()), [true, false, true, true]),
        ] {
            let pause = pause(scope);
            assert_eq!(calls.map(|call| pause.stops(&call)), stopped, "{}", pause.sentence());
        }
    }

    #[tokio::test]
    async fn a_pause_is_in_the_store_and_stays_until_it_is_lifted() {
        let store = MemoryStore::new();
        let holds = Holds::default();
        holds.pause(&store, pause(Scope::All)).await.unwrap();
        holds.pause(&store, pause(Scope::Flow("f".into()))).await.unwrap();
        let again = Pause { reason: "again".into(), ..pause(Scope::All) };
        holds.pause(&store, again).await.unwrap();
        // Another process.
        let holds = Holds::default();
        holds.load(&store).unwrap();
        assert_eq!(holds.pauses().len(), 2);
        assert!(holds.all_paused().unwrap().contains("everything is paused by kim"));
        let now = Timestamp::UNIX_EPOCH;
        let left = holds.leave(&ask("x", "mde", Effect::Read), now);
        assert!(left.unwrap_err().ends_with(": again"));
        assert!(holds.resume(&store, &Scope::Destructive, "kim", now).await.unwrap().is_none());
        assert!(holds.resume(&store, &Scope::All, "kim", now).await.unwrap().is_some());
        assert!(holds.leave(&ask("f", "mde", Effect::Read), now).is_ok());
        assert!(holds.leave(&ask("f", "mde", Effect::Write), now).is_err());
        assert_eq!(stored(&store).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_restored_store_starts_paused_and_once() {
        let store = MemoryStore::new();
        let (now, holds) = (Timestamp::UNIX_EPOCH, Holds::default());
        holds.restored(&store, now).await.unwrap();
        assert_eq!(holds.all_paused(), None, "it is no copy");
        let mark = Op::Put { name: journal::BACKUP.into(), body: b"2026-11-20T00:00:00Z".to_vec() };
        journal::commit(&store, vec![mark]).await.unwrap();
        holds.restored(&store, now).await.unwrap();
        assert!(holds.all_paused().unwrap().contains("a copy of 2026-11-20T00:00:00Z"));
        assert_eq!(stored(&store).unwrap().len(), 1);
        holds.resume(&store, &Scope::All, "kim", now).await.unwrap();
        let holds = Holds::default();
        holds.load(&store).unwrap();
        holds.restored(&store, now).await.unwrap();
        assert_eq!(holds.all_paused(), None, "a person has lifted it");
    }

    #[test]
    fn a_store_whose_pauses_can_not_be_read_starts_nothing() {
        let store = MemoryStore::new();
        store.write(journal::Batch {
            ops: vec![Op::Put { name: NAME.into(), body: b"[{".to_vec() }],
            urgent: true,
            done: None,
        });
        assert!(Holds::default().load(&store).is_err());
    }

    #[test]
    fn a_connection_that_fails_stops_its_calls_and_no_others() {
        let holds = Holds::default();
        let now = Timestamp::UNIX_EPOCH;
        let down = Heard::Failed { why: "down".into(), certain: true };
        holds.heard(&"mail".into(), &down, 0, true, now);
        assert!(
            matches!(holds.stops(&ask("f", "mail", Effect::Notify), now), Some(Stop::Fails(why)) if why.contains("down"))
        );
        assert_eq!(holds.stops(&ask("f", "mde", Effect::Notify), now), None);
        assert_eq!(holds.broken().len(), 1);
        holds.heard(&"mail".into(), &Heard::Answered, 1, true, now);
        assert!(!holds.is_open("mail") && holds.take("mail", now));
        holds.settle("mail");
        assert_eq!(holds.broken(), []);
    }
}
