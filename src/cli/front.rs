//! What answers on the service's address: while it starts, only that it starts; then everything. It is open before the
//! store is read, so that a caller of a webhook hears "come again" and not nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::console::{self, PublicHost};
use crate::error::Error;
use crate::trigger::{Gate, Phase};

/// Seconds after which a caller may come again while the service starts.
const RETRY_AFTER: &str = "5";

/// The address, being served.
pub(super) struct Front {
    listener: std::net::TcpListener,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    /// Ends when no more connections are taken.
    deaf: oneshot::Receiver<()>,
}

/// A listener that says when it is gone.
struct Told {
    listener: TcpListener,
    _gone: oneshot::Sender<()>,
}

impl axum::serve::Listener for Told {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        axum::serve::Listener::accept(&mut self.listener).await
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Front {
    /// Serves that the service starts.
    pub(super) fn open(listener: TcpListener, public_host: PublicHost) -> Result<Front, Error> {
        let listener = listener.into_std().map_err(|error| failed(&error))?;
        let starting = || async { come_again("watchfloor is starting") };
        let router = health(None).fallback(starting);
        spawn(listener, console::guarded(router, public_host))
    }

    /// Serves everything from now on. Who is being answered is answered.
    pub(super) async fn serve(self, router: Router) -> Result<Front, Error> {
        // The same socket: nobody who connects meanwhile is turned away.
        let front = spawn(self.listener, router)?;
        self.stop.cancel();
        // From here on nobody is told that we are starting. Those who are just being told are not waited for: a slow caller
        // must not keep the service from its work.
        drop(self.deaf.await);
        Ok(front)
    }

    /// Takes no more connections and waits for those that are being answered.
    pub(super) async fn close(self) {
        self.stop.cancel();
        drop(self.serving.await);
    }
}

fn spawn(listener: std::net::TcpListener, router: Router) -> Result<Front, Error> {
    let served = listener.try_clone().and_then(TcpListener::from_std).map_err(|error| failed(&error))?;
    let (gone, deaf) = oneshot::channel();
    let served = Told { listener: served, _gone: gone };
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let serving = tokio::spawn(async move {
        let served = axum::serve(served, router).with_graceful_shutdown(async move { stopped.cancelled().await });
        if let Err(error) = served.await {
            tracing::error!(%error, "serving HTTP ended");
        }
    });
    Ok(Front { listener, stop, serving, deaf })
}

fn failed(error: &std::io::Error) -> Error {
    Error::unavailable(format!("listening: {error}"))
}

/// `/healthz`: the process is there. `/readyz`: it has read its store and is not stopping; where it takes nothing in all the
/// same, it says why.
pub(super) fn health(gate: Option<Arc<Gate>>) -> Router {
    let ready = move || {
        let gate = gate.clone();
        async move {
            match gate {
                Some(gate) if gate.phase() == Phase::Serving => gate.closed().unwrap_or("ready").into_response(),
                Some(gate) => come_again(gate.closed().unwrap_or("watchfloor is stopping")),
                None => come_again("watchfloor is starting"),
            }
        }
    };
    Router::new().route("/healthz", get(|| async { "ok" })).route("/readyz", get(ready))
}

fn come_again(why: &str) -> Response {
    let body = serde_json::json!({ "error": why }).to_string();
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::RETRY_AFTER, RETRY_AFTER)];
    (StatusCode::SERVICE_UNAVAILABLE, headers, body).into_response()
}
