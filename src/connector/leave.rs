//! The last question before anything goes on the wire: may this attempt go, now? And what was heard of it, for the
//! connection's breaker.

use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::Effect;
use crate::clock::Clock;
use crate::engine::Outcome;
use crate::guard::breaker::{Heard, Ticket};
use crate::guard::hold::{Ask, HELD, Holds};

/// One attempt's leave to go.
#[derive(Debug)]
pub(super) struct Leave {
    holds: Arc<Holds>,
    clock: Clock,
    flow: Option<Arc<str>>,
    connection: Arc<str>,
    effect: Effect,
    /// Had once, it lasts for the attempt: the pages of a list, and the request after a new token, are part of it.
    ticket: Mutex<Option<Ticket>>,
}

impl Leave {
    pub(super) fn new(
        holds: &Arc<Holds>,
        clock: &Clock,
        flow: Option<Arc<str>>,
        connection: &Arc<str>,
        effect: Effect,
    ) -> Self {
        let (holds, clock, connection) = (Arc::clone(holds), clock.clone(), Arc::clone(connection));
        Leave { holds, clock, flow, connection, effect, ticket: Mutex::default() }
    }

    fn ask(&self) -> Ask<'_> {
        Ask { flow: self.flow.as_deref(), connection: Some(&self.connection), effect: self.effect }
    }

    /// Whether it makes sense to wait for a place in the rate limit.
    pub(super) fn look(&self) -> Result<(), Outcome> {
        self.holds.stops(&self.ask(), self.clock.now()).map_or(Ok(()), |stop| match stop {
            crate::guard::hold::Stop::Paused(reason) => Err(held(reason)),
            // While a connection recovers, what was let go is let go; the breaker itself has the last word.
            crate::guard::hold::Stop::Fails(reason) if self.holds.is_open(&self.connection) => Err(held(reason)),
            crate::guard::hold::Stop::Fails(_) => Ok(()),
        })
    }

    /// Asked right before each request. A pause counts at once, also in the middle of an attempt.
    pub(super) fn go(&self) -> Result<(), Outcome> {
        let mut ticket = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        if ticket.is_some() {
            return self.holds.paused(&self.ask()).map_or(Ok(()), |reason| Err(held(reason)));
        }
        *ticket = Some(self.holds.leave(&self.ask(), self.clock.now()).map_err(held)?);
        Ok(())
    }

    /// What came of the attempt. One that never had its leave says nothing.
    pub(super) fn heard(&self, outcome: &Heard, real: bool) {
        let ticket = *self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ticket) = ticket {
            self.holds.heard(&self.connection, outcome, ticket, real, self.clock.now());
        }
    }
}

fn held(reason: String) -> Outcome {
    Outcome::NotSent { code: HELD.into(), message: reason, transient: true }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    use futures_util::FutureExt;
    use jiff::Timestamp;

    use super::super::Client;
    use super::super::client_tests::{Server, call, connection, entra, open, open_at, say};
    use super::*;
    use crate::catalog::ConnectionKind;
    use crate::config::Credential;
    use crate::guard::hold::{Pause, Scope};
    use crate::journal::memory::MemoryStore;
    use crate::value::Value;

    fn web(client: &Client, flow: &str, effect: Effect) -> impl Future<Output = Outcome> {
        let call = call("http.request", &[("method", Value::str("POST")), ("path", Value::str("/x"))]);
        let sent = client.go(Some(flow.into()), effect, "0123456789abcdef".into(), call.into());
        async move { sent.await.outcome }
    }

    fn is_held(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::NotSent { code, transient: true, .. } if code == HELD)
    }

    /// The pause comes while the call has its permit and its place in the rate limit, and waits for its token.
    #[tokio::test]
    async fn a_paused_flow_is_stopped_right_before_the_request() {
        let holds: Arc<OnceLock<Arc<Holds>>> = Arc::default();
        let paused = Arc::clone(&holds);
        let server = Server::start(move |request| {
            if !request.contains("oauth2") {
                return say("200 OK", "", "{}");
            }
            let at = crate::clock::Clock::system().now();
            let pause = Pause { scope: Scope::Flow("f".into()), reason: "stop".into(), by: "kim".into(), at };
            paused.get().unwrap().pause(&MemoryStore::new(), pause).now_or_never().unwrap().unwrap();
            say("200 OK", "", r#"{"token_type":"Bearer","expires_in":3599,"access_token":"t"}"#)
        })
        .await;
        let url = format!("http://{}", server.address);
        let client = open(connection(ConnectionKind::Http, url, entra(&server))).unwrap();
        holds.set(client.holds()).unwrap();
        let outcome = web(&client, "f", Effect::Destructive).await;
        assert!(is_held(&outcome) && format!("{outcome:?}").contains("the flow f is paused by kim"), "{outcome:?}");
        assert_eq!((server.asked("oauth2"), server.asked("POST /x")), (1, 0));
        assert!(matches!(web(&client, "f", Effect::Read).await, Outcome::Done { .. }), "its reads go on");
        assert!(matches!(web(&client, "g", Effect::Destructive).await, Outcome::Done { .. }), "another flow goes on");
        assert_eq!(server.asked("POST /x"), 2);
    }

    #[tokio::test]
    async fn failures_shut_the_connection_and_a_probe_opens_it() {
        let server = Server::start(|request| match request.starts_with("HEAD / ") {
            true => say("404 Not Found", "", ""),
            false => say("503 Service Unavailable", "", "{}"),
        })
        .await;
        let mut connection = connection(ConnectionKind::Http, format!("http://{}", server.address), Credential::None);
        connection.rate = crate::config::Rate::Off;
        let passed = Arc::new(AtomicI64::new(0));
        let seconds = Arc::clone(&passed);
        let clock =
            Clock::from_fn(move || Timestamp::from_second(1_790_000_000 + seconds.load(Ordering::Relaxed)).unwrap());
        let client = open_at(connection, clock).unwrap();
        for _ in 0..5 {
            assert!(matches!(web(&client, "f", Effect::Destructive).await, Outcome::Unknown { status: 503, .. }));
        }
        for _ in 0..5 {
            assert!(is_held(&web(&client, "f", Effect::Destructive).await));
        }
        assert_eq!(server.asked("POST /x"), 5);
        assert!(client.holds().is_open("c"));
        client.probe("c").await;
        assert_eq!(server.asked("HEAD / "), 0, "the pause is not over");
        passed.store(5, Ordering::Relaxed);
        assert!(is_held(&web(&client, "f", Effect::Destructive).await), "what is no read never probes");
        client.probe("c").await;
        assert_eq!((server.asked("HEAD / "), server.asked("POST /x")), (1, 5));
        assert!(!client.holds().is_open("c"));
        // It only seemed to be there: one failure shuts it again, for twice as long.
        assert!(matches!(web(&client, "f", Effect::Destructive).await, Outcome::Unknown { status: 503, .. }));
        passed.store(14, Ordering::Relaxed);
        client.probe("c").await;
        assert!(client.holds().is_open("c") && server.asked("HEAD / ") == 1);
    }
}
