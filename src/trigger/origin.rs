//! Where a request came from: this machine, or beyond it through a proxy.
//!
//! The service listens on loopback alone, so that every other caller comes through a proxy. Not here: the host names that
//! are served at all (see `console`).

use axum::http::{HeaderMap, header};

/// What proxies add to a request.
const ADDED: [&str; 6] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"];

/// Whether a request names this machine as its host and no proxy left a mark on it. A proxy that leaves none and sends a
/// loopback host cannot be told from a local caller: this is a second line, and the proxy's own rules are the first.
pub fn is_local(headers: &HeaderMap, authority: Option<&str>) -> bool {
    let given = headers.get(header::HOST).and_then(|value| value.to_str().ok()).or(authority);
    given.is_some_and(|given| is_loopback(host(given))) && !ADDED.iter().any(|name| headers.contains_key(*name))
}

/// The host of `host:port`, without the brackets of an IPv6 address.
pub fn host(given: &str) -> &str {
    match given.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => given.split(':').next().unwrap_or(""),
    }
}

pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_seen_by_what_it_adds() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
        };
        assert!(is_local(&headers(&[("host", "127.0.0.1:8730")]), None));
        assert!(is_local(&headers(&[("host", "[::1]:8730")]), None));
        assert!(is_local(&headers(&[]), Some("localhost:8730")));
        assert!(!is_local(&headers(&[]), None));
        assert!(!is_local(&headers(&[("host", "watchfloor.contoso.example")]), None));
        for name in ADDED {
            assert!(!is_local(&headers(&[("host", "localhost"), (name, "203.0.113.9")]), None), "{name}");
        }
    }
}
