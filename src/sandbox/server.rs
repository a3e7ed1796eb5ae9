//! Sockets: bytes to a `Call`, an `Answer` to bytes, with latency and faults in between.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::stream;
use tokio::net::TcpListener;

use super::call::{Answer, Call, decode, pairs};
use super::faults::{Fault, Faults};
use super::route;
use super::state::World;

/// Four MiB: the services take less.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// Sets the dice of mails apart from those of calls.
const MAILS: u64 = 0x6d61_696c;

pub(super) async fn serve(listener: TcpListener, world: Arc<World>) {
    let app = Router::new().fallback(handle).with_state(world);
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "the simulated tenant stopped");
    }
}

async fn handle(Extract(world): Extract<Arc<World>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return respond(Answer::error(413, "RequestEntityTooLarge", "the body is too big"));
    };
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let path = parts.uri.path();
    let call = Call {
        method: parts.method.as_str().to_owned(),
        path: path.split('/').filter(|part| !part.is_empty()).map(|part| decode(part, false)).collect(),
        url: format!("http://{}{path}", text("host").unwrap_or_default()),
        query: pairs(parts.uri.query().unwrap_or("")),
        authorization: text("authorization"),
        identity: text("x-identity-header"),
        metadata: text("metadata").is_some_and(|value| value == "true"),
        body: body.to_vec(),
    };
    if call.path.first().is_some_and(|first| first == "_sandbox") {
        return respond(route::control(&world, &call));
    }
    let mut response = simulate(&world, &call).await;
    // Its own clock, which need not be that of this machine.
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&world.clock.now());
    if let Some(date) = date.ok().and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

/// Latency, then the fault of this call's number, then the service itself.
async fn simulate(world: &World, call: &Call) -> Response {
    let (fault, faults) = {
        let mut state = world.state();
        state.calls += 1;
        let fault = state.faults.pick(world.plan.seed, state.calls).filter(|fault| applies(*fault, call));
        if let Some(fault) = fault {
            *state.injected.entry(label(fault)).or_default() += 1;
        }
        (fault, state.faults)
    };
    let (there, back) = world.delays(fault, faults);
    pause(there).await;
    let response = act(world, call, fault, faults);
    pause(back).await;
    response
}

pub(super) async fn pause(span: Duration) {
    if !span.is_zero() {
        tokio::time::sleep(span).await;
    }
}

impl World {
    /// The fault of the next mail, and how long its answer takes before and after the effect. Mails are counted apart, so
    /// that they change nothing about which calls are hit.
    pub(super) fn next_mail(&self) -> (Option<Fault>, Duration, Duration) {
        let mut state = self.state();
        state.mails += 1;
        let picked = state.faults.pick(self.plan.seed ^ MAILS, state.mails);
        // A mail server knows nothing of the others.
        let fault = picked.filter(|fault| !matches!(fault, Fault::Unauthorized | Fault::NotFound | Fault::Truncated));
        if let Some(fault) = fault {
            *state.injected.entry(mail_label(fault)).or_default() += 1;
        }
        let (there, back) = self.delays(fault, state.faults);
        (fault, there, back)
    }

    /// Half of the latency before the effect and half after, as on a real line: a caller that dies meanwhile may or may
    /// not have acted.
    fn delays(&self, fault: Option<Fault>, faults: Faults) -> (Duration, Duration) {
        let slow = if fault == Some(Fault::Slow) { u64::from(faults.slow_ms) } else { 0 };
        (self.settings.latency / 2 + Duration::from_millis(slow), self.settings.latency / 2)
    }
}

fn act(world: &World, call: &Call, fault: Option<Fault>, faults: Faults) -> Response {
    let error = || Answer::error(503, "ServiceUnavailable", "injected: try again later");
    match fault {
        Some(Fault::Unauthorized) => {
            respond(Answer::error(401, "Unauthorized", "injected: the token is no longer valid"))
        }
        Some(Fault::NotFound) => respond(Answer::error(404, "ResourceNotFound", "injected: not here yet")),
        Some(Fault::ThrottledBare) => respond(Answer::error(429, "TooManyRequests", "injected: slow down")),
        Some(Fault::Throttled) => {
            let answer = Answer::error(429, "TooManyRequests", "injected: slow down");
            respond(Answer { retry_after: Some(i64::from(faults.retry_after_s)), ..answer })
        }
        Some(Fault::ErrorBefore) => respond(error()),
        Some(Fault::ResetBefore) => reset(),
        Some(Fault::ResetAfter) => {
            route::answer(world, call);
            reset()
        }
        Some(Fault::ErrorAfter) => {
            route::answer(world, call);
            respond(Answer::error(500, "InternalServerError", "injected: something broke afterwards"))
        }
        Some(Fault::Truncated) => truncated(route::answer(world, call)),
        Some(Fault::Slow) | None => respond(route::answer(world, call)),
    }
}

/// A token endpoint never says 401 for a revoked token, and only a read by id can be "not here yet".
fn applies(fault: Fault, call: &Call) -> bool {
    let token = call.path.iter().any(|part| part == "token");
    let by_id = call.method == "GET" && call.path.len() > 2 && !token;
    match fault {
        Fault::Unauthorized => !token,
        Fault::NotFound => by_id,
        _ => true,
    }
}

fn label(fault: Fault) -> &'static str {
    match fault {
        Fault::Unauthorized => "unauthorized",
        Fault::NotFound => "not_found",
        Fault::Throttled => "throttled",
        Fault::ThrottledBare => "throttled_bare",
        Fault::ErrorBefore => "server_error_before",
        Fault::ErrorAfter => "server_error_after",
        Fault::ResetBefore => "reset_before",
        Fault::ResetAfter => "reset_after",
        Fault::Slow => "slow",
        Fault::Truncated => "truncated",
    }
}

fn mail_label(fault: Fault) -> &'static str {
    match fault {
        Fault::Throttled | Fault::ThrottledBare => "mail_throttled",
        Fault::ErrorBefore => "mail_refused",
        Fault::ResetBefore => "mail_reset_before",
        Fault::ErrorAfter | Fault::ResetAfter => "mail_reset_after",
        _ => "mail_slow",
    }
}

fn respond(answer: Answer) -> Response {
    let body = answer.body.map(|json| json.to_string());
    let mut response = Response::new(Body::from(body.clone().unwrap_or_default()));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if body.is_some() {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The head promises a body that breaks off at once: the server drops the connection.
fn reset() -> Response {
    let broken = stream::iter([Err::<Bytes, _>(std::io::Error::other("injected reset"))]);
    let mut response = Response::new(Body::from_stream(broken));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(4096));
    response
}

/// A complete HTTP answer whose JSON ends in the middle.
fn truncated(answer: Answer) -> Response {
    let status = answer.status;
    let text = answer.body.map(|json| json.to_string()).unwrap_or_default();
    let half: String = text.chars().take(text.chars().count() / 2).collect();
    let mut response = Response::new(Body::from(half));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
