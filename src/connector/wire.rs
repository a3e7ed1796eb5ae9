//! What a failed exchange proves about the request, how long an answer may be, and whom a connection trusts.
//!
//! Not here: the client (`http`), which request (`request`), whose answer means what (`answer`).

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper_util::client::legacy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

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

/// The certificates of a PEM file.
pub(super) fn roots_of(file: &Path, connection: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read_pem(file, connection)?;
    let roots: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| {
        Error::config(format!("connection {connection}: the ca_file {} is no PEM: {error}", file.display()))
    })?;
    if roots.is_empty() {
        return Err(Error::config(format!(
            "connection {connection}: the ca_file {} has no certificate",
            file.display()
        )));
    }
    Ok(roots)
}

pub(super) fn read_pem(file: &Path, connection: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| {
        Error::config(format!("connection {connection}: reading the ca_file {}: {error}", file.display()))
    })
}

/// What a failed exchange proves: a request that never found a connection was not sent, anything later may have acted.
pub(super) fn failure(error: &legacy::Error, host: &str) -> Outcome {
    let cause = cause(error);
    let late = find::<super::http::Late>(error).is_some()
        || find::<std::io::Error>(error).is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut);
    if !error.is_connect() {
        let code = if late { "timeout" } else { "reset" };
        return unknown(0, code, format!("no answer from {host}: {cause}"));
    }
    if let Some(refused) = find::<super::address::Refused>(error) {
        return Outcome::NotSent { code: "address_refused".into(), message: refused.to_string(), transient: false };
    }
    let lower = cause.to_ascii_lowercase();
    let (code, message) = if find::<super::address::NoName>(error).is_some() {
        ("dns", format!("the name {host} does not resolve: {cause}"))
    } else if late {
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
pub(super) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
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
