//! Which requests of `http.request` only read: those whose method and path the connection lists.
//!
//! All else counts as destructive, and so does a path that a server could read in another way than it is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::protected::wildcard;
use crate::catalog::ConnectionKind;
use crate::config::Connection;
use crate::engine::Call;
use crate::value::Value;

/// Methods and path patterns by connection.
#[derive(Debug, Default)]
pub(super) struct Reads(BTreeMap<Arc<str>, Vec<(String, String)>>);

impl Reads {
    pub(super) fn new<'a>(connections: impl IntoIterator<Item = &'a Connection>) -> Self {
        let http = connections.into_iter().filter(|connection| connection.kind == ConnectionKind::Http);
        Reads(http.map(|connection| (Arc::clone(&connection.name), connection.read.clone())).collect())
    }

    /// Whether a call is a request that its connection lists as read.
    pub(super) fn allow(&self, call: &Call) -> bool {
        if call.action.native.as_deref() != Some("http_request") {
            return false;
        }
        let Some(listed) = self.0.get(&call.connection) else { return false };
        let Some(path) = call.inputs.get("path").and_then(Value::as_str) else { return false };
        let method = call.inputs.get("method").and_then(Value::as_str).unwrap_or("GET");
        // Some servers take the body of a read for an order.
        let bodied = ["body", "text"].iter().any(|name| call.inputs.contains_key(*name));
        if bodied && ["GET", "HEAD"].iter().any(|bare| bare.eq_ignore_ascii_case(method)) {
            return false;
        }
        listed.iter().any(|(wanted, pattern)| wanted.eq_ignore_ascii_case(method) && fits(pattern, path))
    }
}

/// `*` stands for any characters inside one segment, `**` as the last segment for all that follows. Case matters.
fn fits(pattern: &str, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path);
    if !is_plain(path) {
        return false;
    }
    let mut segments = path.split('/');
    let mut patterns = pattern.split('/').peekable();
    while let Some(wanted) = patterns.next() {
        if wanted == "**" && patterns.peek().is_none() {
            return segments.next().is_some();
        }
        if !segments.next().is_some_and(|segment| wildcard(wanted, segment)) {
            return false;
        }
    }
    segments.next().is_none()
}

/// Whether a path means the same to everybody: no dot segments, empty segments, other slashes or escapes of them.
fn is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let tricks = ["//", "\\", "#", ";", "%2e", "%2f", "%5c", "%25", "%00"];
    path.starts_with('/')
        && !path.split('/').any(|segment| segment == "." || segment == "..")
        && !tricks.iter().any(|trick| lower.contains(trick))
        && !path.chars().any(|c| c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stay_inside_a_segment() {
        for (pattern, path) in [
            ("/v1/lookup/*", "/v1/lookup/198.51.100.14"),
            ("/v1/lookup/*", "/v1/lookup/a?full=true&x=../y"),
            ("/v1/**", "/v1/a/b/c"),
            ("/v1/*/state", "/v1/x/state"),
        ] {
            assert!(fits(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/v1/lookup/*", "/v1/lookup/a/delete"),
            ("/v1/lookup/*", "/v1/lookup/../users"),
            ("/v1/lookup/*", "/v1/lookup/..%2fusers"),
            ("/v1/lookup/*", "/v1/lookup/%252e%252e"),
            ("/v1/lookup/*", "/v1/lookup/a\\..\\b"),
            ("/v1/**", "/v1/./x"),
            ("/v1/**", "/v1//evil"),
            ("/v1/**", "/v2/x"),
            ("/v1/**", "v1/x"),
            ("/v1/lookup", "/V1/lookup"),
        ] {
            assert!(!fits(pattern, path), "{pattern} {path}");
        }
    }
}
