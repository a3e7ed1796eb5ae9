//! HTTP below the actions: clients that follow nothing and trust no environment, bodies read with a bound, and what a
//! failed exchange proves about the request.
//!
//! Not here: which request (`request`), whose answer means what (`answer`).

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::leave::Leave;
use crate::catalog::{Action, Context, Effect, Paging};
use crate::engine::Outcome;
use crate::error::Error;
use crate::guard::breaker::Heard;

/// The longest answer of a list or a hunt, in decoded bytes. Hunting may answer with 124 MB; nobody wants that in a run.
const LIST_CAP: usize = 32 << 20;
/// The longest answer of any other read.
const READ_CAP: usize = 8 << 20;
/// The longest answer to anything else.
const ACT_CAP: usize = 4 << 20;
/// A connection is made within this or not at all.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

pub(super) fn cap(action: &Action) -> usize {
    let hunts = || action.inputs.iter().any(|input| input.context == Context::Kql);
    match action.effect {
        Effect::Read if action.paging != Paging::None || hunts() => LIST_CAP,
        Effect::Read => READ_CAP,
        _ => ACT_CAP,
    }
}

/// How far an attempt has come: whether it may go, and whether a byte of the request may have left, which decides between
/// `NotSent` and `Unknown`.
#[derive(Debug)]
pub(super) struct Stage {
    sent: AtomicBool,
    leave: Leave,
}

impl Stage {
    pub(super) fn new(leave: Leave) -> Self {
        Stage { sent: AtomicBool::new(false), leave }
    }

    /// Whether it makes sense to wait for a place in the rate limit.
    pub(super) fn look(&self) -> Result<(), Outcome> {
        self.leave.look()
    }

    /// Asked before anything goes out for the attempt, a token request too.
    pub(super) fn enter(&self) -> Result<(), Outcome> {
        self.leave.go()
    }

    /// Asked right before the request goes out; from then on it may have acted.
    pub(super) fn go(&self) -> Result<(), Outcome> {
        self.leave.go()?;
        self.sent.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn heard(&self, heard: &Heard, real: bool) {
        self.leave.heard(heard, real);
    }
}

/// The common ground of all our HTTP clients. No redirect, no proxy of the environment, no retry, HTTP/1.1 only: whatever
/// is sent is sent once, by us, to the host that the configuration names.
pub(super) fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("watchfloor/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .http1_only()
        .tcp_nodelay(true)
        .connect_timeout(CONNECT)
        .pool_max_idle_per_host(256)
        // Shorter than any server's own idle limit, so that a request rarely meets a connection that is being closed.
        .pool_idle_timeout(Duration::from_secs(30))
}

/// Adds the roots of trust of a PEM file.
pub(super) fn with_roots(
    builder: reqwest::ClientBuilder,
    file: &Path,
    connection: &str,
) -> Result<reqwest::ClientBuilder, Error> {
    let pem = read_pem(file, connection)?;
    let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| {
        Error::config(format!("connection {connection}: the ca_file {} is no PEM: {error}", file.display()))
    })?;
    if roots.is_empty() {
        return Err(Error::config(format!(
            "connection {connection}: the ca_file {} has no certificate",
            file.display()
        )));
    }
    Ok(builder.tls_certs_merge(roots))
}

pub(super) fn read_pem(file: &Path, connection: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| {
        Error::config(format!("connection {connection}: reading the ca_file {}: {error}", file.display()))
    })
}

/// Why a body was not had.
#[derive(Debug)]
pub(super) enum ReadError {
    TooLarge,
    Broken(String),
}

/// Reads a body to its end, counting decoded bytes, so that a small compressed answer can't become a large one.
pub(super) async fn read(mut response: reqwest::Response, cap: usize) -> Result<Vec<u8>, ReadError> {
    let hint = usize::try_from(response.content_length().unwrap_or(0)).unwrap_or(0);
    if hint > cap {
        return Err(ReadError::TooLarge);
    }
    let mut body = Vec::with_capacity(hint.min(1 << 20));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > cap => return Err(ReadError::TooLarge),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(ReadError::Broken(cause(&error))),
        }
    }
}

/// What a failed exchange proves: a request that never found a connection was not sent, anything later may have acted.
pub(super) fn failure(error: &reqwest::Error, host: &str) -> Outcome {
    let cause = cause(error);
    if error.is_builder() {
        return Outcome::NotSent {
            code: "bad_request".into(),
            message: format!("the request to {host} can't be built: {cause}"),
            transient: false,
        };
    }
    if !error.is_connect() {
        let code = if error.is_timeout() { "timeout" } else { "reset" };
        return unknown(0, code, format!("no answer from {host}: {cause}"));
    }
    if let Some(refused) = find::<super::address::Refused>(error) {
        return Outcome::NotSent { code: "address_refused".into(), message: refused.to_string(), transient: false };
    }
    let lower = cause.to_ascii_lowercase();
    let (code, message) = if error.is_dns() {
        ("dns", format!("the name {host} does not resolve: {cause}"))
    } else if error.is_timeout() {
        ("connect", format!("no connection to {host} within {} s; check the network", CONNECT.as_secs()))
    } else if ["certificate", "tls", "handshake"].iter().any(|word| lower.contains(word)) {
        ("tls", format!("no trusted connection to {host}: {cause}; a private authority goes into ca_file"))
    } else {
        ("connect", format!("no connection to {host}: {cause}"))
    };
    Outcome::NotSent { code: code.into(), message, transient: true }
}

pub(super) fn unknown(status: u16, code: &str, message: impl Into<String>) -> Outcome {
    Outcome::Unknown { status, code: code.into(), message: message.into() }
}

/// The innermost cause, which says the most and never holds the URL (a URL can be a secret).
fn cause(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(next) = last.source() {
        last = next;
    }
    if std::ptr::addr_eq(last, std::ptr::from_ref(error)) {
        return "the exchange failed".into();
    }
    super::answer::clean(&last.to_string(), 300)
}

fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
