//! The one place that sends: a permitted call goes out, an outcome comes back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::Config;
use crate::engine::{Call, Outcome};
use crate::error::Error;
use crate::guard::Permit;
use crate::id::RunId;
use crate::value::{Map, Value};

/// How one attempt ended, and what people may see of it.
#[derive(Clone, Debug)]
pub struct Reply {
    pub outcome: Outcome,
    /// The full redacted answer for people: JSON text of at most 1 MiB; a longer one is cut and says so.
    pub blob: Option<Vec<u8>>,
    /// From the moment it might go out to its end; the wait for the rate limit is not in it.
    pub took: Duration,
}

/// All connections of a configuration, opened. Cloning shares them.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    _catalog: Arc<Catalog>,
    _clock: Clock,
}

impl Client {
    /// Opens every connection: resolves its secrets, reads its roots of trust, parses its addresses. Nothing is sent.
    pub fn open(_config: &Config, catalog: Arc<Catalog>, clock: Clock) -> Result<Client, Error> {
        Ok(Client { inner: Arc::new(Inner { _catalog: catalog, _clock: clock }) })
    }

    /// Sends one attempt. Never panics; ends within the call's time limit once it has its rate token.
    pub fn send(&self, _permit: Permit, _run: &RunId, _call: Call) -> BoxFuture<'static, Reply> {
        let _ = &self.inner;
        Box::pin(async { Reply { outcome: unsent(), blob: None, took: Duration::ZERO } })
    }

    /// Reads for pollers and for look-ups of protected assets. Refuses every action whose effect is not `read`.
    pub fn fetch(&self, _connection: &str, _action: &str, _inputs: Map) -> BoxFuture<'static, Result<Value, Outcome>> {
        Box::pin(async { Err(unsent()) })
    }
}

fn unsent() -> Outcome {
    Outcome::NotSent { code: "not_ready".into(), message: "the client can't send yet".into(), transient: true }
}
