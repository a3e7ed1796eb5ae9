//! Web pages over the journal: the list of runs and one run. Read-only, loopback only, no script.
//!
//! Every text is a text node; a strict policy stands behind that. The host of every request is checked, so that no name
//! that resolves to this machine carries a page of somebody else here.

mod pages;
pub mod timeline;

use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

use crate::check::CheckedFlow;
use crate::id::RunId;
use crate::journal::{RunQuery, RunStatus, Store, StoreError};
use crate::trigger::origin;

/// Finds the flow that a run is pinned to, by name and version.
pub type FlowOf = Arc<dyn Fn(&str, &str) -> Result<Arc<CheckedFlow>, String> + Send + Sync>;

/// What the pages read.
#[derive(Clone)]
pub struct Pages {
    pub store: Arc<dyn Store>,
    pub flow: FlowOf,
    /// What holds work back now, one sentence each: pauses, connections that fail.
    pub notices: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
}

const STYLE: &str = include_str!("style.css");
const PAGE_SIZE: usize = 100;
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

pub fn routes(pages: Pages) -> Router {
    Router::new().route("/", get(list)).route("/runs/{run}", get(one)).route("/style.css", get(style)).with_state(pages)
}

/// The host name of `server.public_url`, which a reload may change. Cloning shares it.
#[derive(Clone, Default)]
pub struct PublicHost(Arc<RwLock<Option<Arc<str>>>>);

impl PublicHost {
    pub fn set(&self, host: Option<&str>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = host.map(Arc::from);
    }

    fn now(&self) -> Option<Arc<str>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Adds what holds for every route: the check of the host, and the headers.
pub fn guarded(router: Router, public_host: PublicHost) -> Router {
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let public_host = public_host.now();
        async move {
            if !is_health(&request) && !known_host(&request, public_host.as_deref()) {
                return (StatusCode::MISDIRECTED_REQUEST, "this host name is not served here").into_response();
            }
            if !open_to(&request) {
                let message = "only /hooks, /healthz and /readyz are served through a proxy: the pages have no sign-in in this version";
                return (StatusCode::MISDIRECTED_REQUEST, message).into_response();
            }
            let mut response = next.run(request).await;
            let headers = response.headers_mut();
            for (name, value) in [
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::X_FRAME_OPTIONS, "DENY"),
                (header::REFERRER_POLICY, "no-referrer"),
                (header::CACHE_CONTROL, "no-store"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            response
        }
    }))
}

/// Loopback names and the public one; a name of somebody else that resolves here is refused.
fn known_host(request: &Request, public_host: Option<&str>) -> bool {
    let given = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let Some(given) = given.or_else(|| authority(request)) else {
        return false;
    };
    let host = origin::host(given);
    origin::is_loopback(host) || public_host.is_some_and(|public| host.eq_ignore_ascii_case(public))
}

fn authority(request: &Request) -> Option<&str> {
    request.uri().authority().map(axum::http::uri::Authority::as_str)
}

/// What a supervisor or a balancer asks, by whatever name: it tells nothing but whether we are there.
fn is_health(request: &Request) -> bool {
    matches!(request.uri().path(), "/healthz" | "/readyz")
}

/// Whoever can open a page can read every run: what comes through a proxy reaches the webhooks and the health alone.
fn open_to(request: &Request) -> bool {
    let public = request.uri().path().starts_with("/hooks/") || is_health(request);
    public || origin::is_local(request.headers(), authority(request))
}

/// Filters of the list, as they stand in the URL.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Filters {
    #[serde(default)]
    pub(crate) flow: String,
    #[serde(default)]
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) key: String,
    pub(crate) before: Option<i64>,
}

async fn list(State(pages): State<Pages>, Query(filters): Query<Filters>) -> Response {
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let query = RunQuery {
        flow: given(&filters.flow),
        status: RunStatus::ALL.into_iter().find(|status| status.as_str() == filters.status),
        key: given(&filters.key),
        before: filters.before,
        since: None,
        limit: PAGE_SIZE,
    };
    let notices = (pages.notices)();
    let read = blocking(move || Ok((pages.store.runs(&query)?, pages.store.counts()?))).await;
    match read {
        Ok((rows, counts)) => Html(pages::list(&rows, &counts, &notices, &filters, PAGE_SIZE)).into_response(),
        Err(error) => failed(&error),
    }
}

async fn one(State(pages): State<Pages>, Path(run): Path<String>) -> Response {
    let Some(run) = RunId::parse(&run) else {
        return (StatusCode::BAD_REQUEST, "this is no run id").into_response();
    };
    let read = blocking(move || {
        let Some(row) = pages.store.run(&run)? else { return Ok(None) };
        let blobs = pages.store.blobs(row.no)?;
        let turns = pages.store.turns(row.no)?;
        let steps = match (pages.flow)(&row.flow, &row.version) {
            Ok(flow) => timeline::read(&row, flow, &turns),
            Err(error) => Err(error),
        };
        Ok(Some((row, steps, blobs)))
    });
    match read.await {
        Ok(Some((row, steps, blobs))) => Html(pages::run(&row, &steps, &blobs)).into_response(),
        Ok(None) => (StatusCode::NOT_FOUND, "there is no such run").into_response(),
        Err(error) => failed(&error),
    }
}

async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

/// Reads of the store may wait for a disk: off the threads that serve.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(read).await.unwrap_or(Err(StoreError::Closed))
}

fn failed(error: &StoreError) -> Response {
    tracing::warn!(%error, "reading for a page");
    (StatusCode::SERVICE_UNAVAILABLE, "the store can't be read now").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(host: &str) -> bool {
        let request = Request::builder().header("host", host).body(axum::body::Body::empty()).unwrap();
        known_host(&request, Some("watchfloor.contoso.example"))
    }

    #[test]
    fn only_our_own_names_are_served() {
        for fine in ["127.0.0.1:8730", "localhost", "[::1]:8730", "watchfloor.contoso.example"] {
            assert!(host(fine), "{fine}");
        }
        for foreign in ["evil.test", "127.0.0.1.evil.test", "10.0.0.1", "", "localhost.evil.test:8730"] {
            assert!(!host(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_proxy_reaches_the_webhooks_alone() {
        let open = |path: &str, name: &str, value: &str| {
            let request = Request::builder().uri(path).header("host", "127.0.0.1:8730").header(name, value);
            open_to(&request.body(axum::body::Body::empty()).unwrap())
        };
        assert!(open("/runs/x", "accept", "*/*"));
        assert!(open("/hooks/w", "x-forwarded-for", "203.0.113.9"));
        for path in ["/healthz", "/readyz"] {
            assert!(open(path, "x-forwarded-for", "203.0.113.9"), "{path}");
        }
        for path in ["/", "/runs/x", "/control/start", "/hooks", "/healthz/x"] {
            assert!(!open(path, "x-forwarded-for", "203.0.113.9"), "{path}");
        }
        let request = Request::builder().uri("/").header("host", "watchfloor.contoso.example");
        assert!(!open_to(&request.body(axum::body::Body::empty()).unwrap()));
    }
}
