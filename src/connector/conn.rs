//! One opened connection: where it leads, who we are there, how fast we may go; and one exchange over it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Url};

use super::auth::{Auth, Ticket};
use super::mail::Mailer;
use super::rate::Limits;
use super::redact::Scrubber;
use super::wire::{self, ReadError, Stage};
use super::{address, answer};
use crate::catalog::ConnectionKind;
use crate::clock::Clock;
use crate::config::{Config, Connection, Credential, Proof, Tls};
use crate::engine::Outcome;
use crate::error::Error;

pub(super) struct Conn {
    pub(super) name: Arc<str>,
    pub(super) kind: ConnectionKind,
    /// Scheme, host and perhaps a path; for Teams the whole secret address. `None` for mail.
    base: Option<Url>,
    http: reqwest::Client,
    auth: Auth,
    pub(super) limits: Arc<Limits>,
    pub(super) mailer: Option<Mailer>,
    /// Fixed headers of an `http` connection.
    headers: HeaderMap,
    pub(super) scrubber: Scrubber,
    clock: Clock,
}

/// What ends at a time that is known.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Expiry {
    pub what: String,
    pub at: jiff::Timestamp,
}

/// One request below a connection's base.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
}

/// A service's answer, read whole, whatever its status; our own secrets are masked in it. Of its headers there are those that
/// anybody gets to see.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Raw {
    /// The outcome of an answer that is not 2xx.
    pub(super) fn failed(&self, clock: &Clock) -> Outcome {
        let wait = self.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        answer::failed(self.status, wait, &self.body, clock.now())
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Conn {
    pub(super) fn open(
        connection: &Connection,
        config: &Config,
        plain: &reqwest::Client,
        clock: &Clock,
        limits: Option<Arc<Limits>>,
    ) -> Result<Self, Error> {
        let name = &connection.name;
        let mut scrubber = Scrubber::default();
        let base = base(connection, &mut scrubber)?;
        let plain = match &connection.ca_file {
            Some(file) => build(wire::with_roots(wire::builder(), file, name)?, name)?,
            None => plain.clone(),
        };
        let http = match &base {
            // Flows choose what is asked of an `http` connection, so neither names nor addresses lead into the own network.
            Some(url) if connection.kind.is_foreign() && !connection.allow_private && is_private(url) => {
                return Err(Error::config(format!(
                    "connection {name}: the base_url is an address of the host itself or of a private network"
                ))
                .help("add allow_private: true if that is meant"));
            }
            Some(url) if connection.kind.is_foreign() && !connection.allow_private && url.domain().is_some() => {
                let mut builder = wire::builder().dns_resolver(address::Public);
                if let Some(file) = &connection.ca_file {
                    builder = wire::with_roots(builder, file, name)?;
                }
                build(builder, name)?
            }
            _ => plain.clone(),
        };
        let auth = Auth::open(connection, &plain, clock, &mut |secret| scrubber.add(secret))?;
        let mailer = match connection.kind {
            ConnectionKind::Email => Some(Mailer::open(connection, config.in_flight, &auth, &mut scrubber)?),
            _ => None,
        };
        let mut headers = HeaderMap::new();
        for (key, reference) in &connection.headers {
            let value = reference.resolve().map_err(|error| {
                Error::config(format!("connection {name}: the header {key} can't be read: {error}"))
            })?;
            scrubber.add(value.expose());
            let bad = || Error::config(format!("connection {name}: the header {key} is none that HTTP can carry"));
            let mut value = HeaderValue::try_from(value.expose()).map_err(|_| bad())?;
            value.set_sensitive(true);
            headers.insert(HeaderName::try_from(key.as_str()).map_err(|_| bad())?, value);
        }
        Ok(Conn {
            name: Arc::clone(name),
            kind: connection.kind,
            base,
            http,
            auth,
            limits: limits.unwrap_or_else(|| Arc::new(Limits::new(connection.kind, connection.rate))),
            mailer,
            headers,
            scrubber,
            clock: clock.clone(),
        })
    }

    pub(super) fn base(&self) -> Result<&Url, Outcome> {
        self.base.as_ref().ok_or_else(|| refuse("no_base_url", format!("the connection {} has no base_url", self.name)))
    }

    pub(super) fn auth(&self) -> &Auth {
        &self.auth
    }

    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Host and port.
    pub(super) fn place(&self) -> (String, u16) {
        match (&self.mailer, &self.base) {
            (Some(mailer), _) => mailer.place(),
            (None, Some(url)) => {
                let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                (host, url.port_or_known_default().unwrap_or(443))
            }
            (None, None) => (String::new(), 0),
        }
    }

    /// What of its credential ends some day, and when.
    pub(super) fn expiries(&self) -> Vec<Expiry> {
        let certificate =
            self.auth.not_after().map(|at| Expiry { what: format!("the certificate of {}", self.name), at });
        certificate.into_iter().collect()
    }

    /// Headers that a flow may not set, because the connection does.
    pub(super) fn owns_header(&self, name: &HeaderName) -> bool {
        const OURS: [&str; 11] = [
            "authorization",
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "upgrade",
            "te",
            "trailer",
            "expect",
            "proxy-authorization",
            "cookie",
        ];
        OURS.contains(&name.as_str()) || self.headers.contains_key(name)
    }

    /// The URL of a path below the base. The path begins with a slash and may hold a query.
    pub(super) fn url(&self, path: &str) -> Result<Url, Outcome> {
        let base = self.base()?;
        joined(base, path).filter(|_| !climbs(path)).ok_or_else(|| {
            refuse(
                "bad_input",
                format!("the path {:?} leads out of the connection {}", answer::clean(path, 200), self.name),
            )
        })
    }

    /// A whole URL that a flow gave: below the base like any path.
    pub(super) fn within(&self, text: &str) -> Result<Url, Outcome> {
        let base = self.base()?;
        let url = Url::parse(text).ok().filter(|url| !climbs(text) && below(base, url));
        url.ok_or_else(|| {
            let shown = answer::clean(text, 200);
            refuse(
                "address_refused",
                format!("the url {shown:?} is not below the base_url of the connection {}", self.name),
            )
        })
    }

    /// The URL of a link that the service gave: the same origin only.
    pub(super) fn follow(&self, link: &str) -> Result<Url, Outcome> {
        let base = self.base()?;
        let url = Url::parse(link).ok().filter(|url| same_origin(base, url));
        url.ok_or_else(|| {
            wire::unknown(
                200,
                "foreign_link",
                format!(
                    "the service's link to the next page leads elsewhere ({}); it is not followed",
                    answer::clean(link, 200)
                ),
            )
        })
    }

    /// Sends a request and reads its answer. After a 401 it goes out once more with a new token: a 401 did nothing.
    pub(super) async fn exchange(
        &self,
        out: &Outgoing,
        class: &Arc<str>,
        cap: usize,
        stage: &Stage,
    ) -> Result<Raw, Outcome> {
        stage.enter()?;
        let ticket = self.auth.ticket().await.map_err(|outcome| self.scrub(outcome))?;
        let raw = self.once(out, &ticket, cap, stage).await?;
        let raw = match raw.status {
            401 => match self.auth.renewed(&ticket).await {
                Some(Ok(ticket)) => self.once(out, &ticket, cap, stage).await?,
                _ => raw,
            },
            _ => raw,
        };
        if raw.status == 429 {
            let wait = raw.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let pause = answer::wait(wait, self.clock.now()).unwrap_or(Duration::from_secs(1));
            self.limits.cool_down(class, pause);
        }
        Ok(raw)
    }

    /// Whether the service is there: a request for the root of its host, which changes nothing. A secret path is not told.
    pub(super) async fn reach(&self, stage: &Stage) -> Result<(), Outcome> {
        if let Some(mailer) = &self.mailer {
            return mailer.reach(stage).await.map_err(|outcome| self.scrub(outcome));
        }
        let mut url = self.base()?.clone();
        url.set_path("/");
        url.set_query(None);
        let raw = self.exchange(&Outgoing::json(Method::HEAD, url, None), &"default".into(), 1 << 16, stage).await?;
        match raw.status {
            // 501 is an answer about HEAD.
            500.. if raw.status != 501 => Err(raw.failed(&self.clock)),
            _ => Ok(()),
        }
    }

    async fn once(&self, out: &Outgoing, ticket: &Ticket, cap: usize, stage: &Stage) -> Result<Raw, Outcome> {
        let mut request = self.http.request(out.method.clone(), out.url.clone());
        let mut headers = out.headers.clone();
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        if let Some((name, value)) = &ticket.header {
            headers.insert(name.clone(), value.clone());
        }
        request = request.headers(headers);
        if let Some(body) = &out.body {
            request = request.body(body.clone());
        }
        stage.go()?;
        let host = out.url.host_str().unwrap_or("the service").to_owned();
        let response = request.send().await.map_err(|error| self.scrub(wire::failure(&error, &host)))?;
        let status = response.status().as_u16();
        let headers = self.told(response.headers(), ticket);
        let body = match wire::read(response, cap).await {
            Ok(body) => body,
            // The status alone says what was done; what was said about it is lost.
            Err(_) if !(200..300).contains(&status) => Vec::new(),
            Err(ReadError::TooLarge) => {
                let message = format!("the answer of {host} is longer than {} MiB; ask for less", cap >> 20);
                return Err(wire::unknown(status, "answer_too_large", message));
            }
            Err(ReadError::Broken(why)) => {
                return Err(wire::unknown(status, "truncated", format!("the answer of {host} broke off: {why}")));
            }
        };
        Ok(Raw { status, headers, body: self.scrubber.body(body, ticket.token.as_deref()) })
    }

    /// The headers of an answer that anybody gets to see: flows those of their own requests, with our secrets masked, and
    /// otherwise we the wait that a service asks for.
    fn told(&self, given: &HeaderMap, ticket: &Ticket) -> HeaderMap {
        if self.kind != ConnectionKind::Http {
            return given.get(RETRY_AFTER).map(|wait| (RETRY_AFTER, wait.clone())).into_iter().collect();
        }
        let mut headers = given.clone();
        for value in headers.values_mut() {
            let masked = self.scrubber.body(value.as_bytes().to_vec(), ticket.token.as_deref());
            if masked != value.as_bytes() {
                *value = HeaderValue::from_bytes(&masked).unwrap_or(HeaderValue::from_static("[redacted]"));
            }
        }
        headers
    }

    pub(super) fn scrub(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Refused { status, code, message, transient, retry_after_ms } => {
                Outcome::Refused { status, code, message: self.scrubber.text(message), transient, retry_after_ms }
            }
            Outcome::NotSent { code, message, transient } => {
                Outcome::NotSent { code, message: self.scrubber.text(message), transient }
            }
            Outcome::Unknown { status, code, message } => {
                Outcome::Unknown { status, code, message: self.scrubber.text(message) }
            }
            done @ Outcome::Done { .. } => done,
        }
    }
}

impl Outgoing {
    pub(super) fn json(method: Method, url: Url, body: Option<&serde_json::Value>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Outgoing { method, url, headers, body: body.map(|json| Bytes::from(json.to_string())) }
    }
}

/// A request that we refuse ourselves, before anything is sent.
pub(super) fn refuse(code: &str, message: String) -> Outcome {
    Outcome::Refused { status: 0, code: code.into(), message, transient: false, retry_after_ms: None }
}

/// The client that all connections share which need nothing of their own. Where nothing speaks TLS, the system's roots of
/// trust stay unread: they cost a demo more time and memory than all else.
pub(super) fn plain(config: &Config) -> Result<reqwest::Client, Error> {
    let tls = config.connections.values().any(|connection| {
        let local = |url: &str| url.starts_with("http://");
        let entra = match &connection.credential {
            Credential::Entra(entra) | Credential::Mailbox { entra, .. } => {
                !local(&entra.authority) && !matches!(entra.proof, Proof::ManagedIdentity { .. })
            }
            _ => false,
        };
        let mail = connection.email.as_ref().is_some_and(|email| email.tls != Tls::None);
        let web = connection.kind != ConnectionKind::Email && !connection.base_url.as_deref().is_some_and(local);
        entra || (web && !mail)
    });
    client(tls, "all")
}

/// A client that knows the system's roots of trust, or none.
pub(super) fn client(tls: bool, name: &str) -> Result<reqwest::Client, Error> {
    build(if tls { wire::builder() } else { wire::builder().tls_certs_only([]) }, name)
}

fn build(builder: reqwest::ClientBuilder, name: &str) -> Result<reqwest::Client, Error> {
    builder.build().map_err(|error| {
        Error::config(format!("connection {name}: setting up TLS: {error}"))
            .help("install the system's CA certificates (package ca-certificates), or give the connection a ca_file")
    })
}

fn base(connection: &Connection, scrubber: &mut Scrubber) -> Result<Option<Url>, Error> {
    let name = &connection.name;
    let text = match (connection.kind, &connection.base_url, &connection.webhook_url) {
        (ConnectionKind::Email, ..) => return Ok(None),
        (ConnectionKind::Teams, _, Some(reference)) => {
            let secret = reference
                .resolve()
                .map_err(|error| Error::config(format!("connection {name}: its webhook_url can't be read: {error}")))?;
            scrubber.add(secret.expose());
            secret.expose().to_owned()
        }
        (ConnectionKind::Teams, Some(url), None) => url.clone(),
        (_, Some(url), _) => url.clone(),
        (kind, None, _) => {
            let (key, example) = match kind {
                ConnectionKind::Teams => ("webhook_url", "{ env: TEAMS_WEBHOOK }"),
                ConnectionKind::CloudApps => ("base_url", "https://contoso.us2.portal.cloudappsecurity.com"),
                _ => ("base_url", "https://service.contoso.example"),
            };
            let error = Error::config(format!("connection {name}: a connection of kind {} needs {key}", kind.as_str()));
            return Err(error.help(format!("add {key}: {example}")));
        }
    };
    // Catalogue paths carry the version; people copy base URLs with it.
    let text = match connection.kind {
        ConnectionKind::Mde => text.trim_end_matches('/').strip_suffix("/api").unwrap_or(&text).to_owned(),
        ConnectionKind::Graph => text.trim_end_matches('/').strip_suffix("/v1.0").unwrap_or(&text).to_owned(),
        _ => text,
    };
    let secret = connection.webhook_url.is_some();
    let shown = if secret { "its webhook_url".to_owned() } else { format!("the base_url {text:?}") };
    let bad = |why: &str| Err(Error::config(format!("connection {name}: {shown} {why}")));
    let Ok(url) = Url::parse(&text) else { return bad("is no URL") };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return bad("is no http or https URL");
    }
    if connection.kind == ConnectionKind::Teams && url.scheme() == "http" && !is_loopback(&url) {
        return bad("is no https URL; what it holds is a secret");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("has a user name in it; give the credential under credential:");
    }
    if !secret && (url.query().is_some() || url.fragment().is_some()) {
        return bad("has a query or a fragment; leave that to the flows");
    }
    Ok(Some(url))
}

/// The address that stands in a URL where a name could.
fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

fn is_private(url: &Url) -> bool {
    literal(url).is_some_and(|ip| !address::is_public(ip))
}

fn is_loopback(url: &Url) -> bool {
    url.host_str() == Some("localhost") || literal(url).is_some_and(|ip| ip.is_loopback())
}

/// Whether a path has a segment of dots, in any spelling that a parser would resolve. Looked at before parsing, since what
/// was listed or shown to people is the text as it stands.
fn climbs(path: &str) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or("");
    // Most segments hold a byte that no disguise of dots has.
    let disguise =
        |byte: u8| matches!(byte, b'.' | b'%' | b'2' | b'e' | b'E') || byte.is_ascii_control() || !byte.is_ascii();
    path.split(['/', '\\']).filter(|segment| segment.bytes().all(disguise)).any(|segment| {
        let seen: String = segment.chars().filter(|c| !c.is_control()).collect();
        matches!(&*seen.to_ascii_lowercase().replace("%2e", "."), "." | "..")
    })
}

/// A path below the base. Joined, the base's host is not read once more; what would name another host is not below.
fn joined(base: &Url, path: &str) -> Option<Url> {
    let path_from_root = format!("{}{path}", base.path().trim_end_matches('/'));
    base.join(&path_from_root).ok().filter(|url| below(base, url))
}

fn same_origin(base: &Url, url: &Url) -> bool {
    base.scheme() == url.scheme()
        && base.host() == url.host()
        && base.port_or_known_default() == url.port_or_known_default()
        && url.username().is_empty()
        && url.password().is_none()
}

/// Whether a URL stays below the base: same origin, same leading path, and no dot or slash in disguise, which one server
/// reads as text and the next as a way up.
fn below(base: &Url, url: &Url) -> bool {
    let root = base.path().trim_end_matches('/');
    let rest = url.path().strip_prefix(root);
    let hides = |path: &str| {
        let lower = path.to_ascii_lowercase();
        ["%2e%2e", "%2f", "%5c", "%00"].iter().any(|hidden| lower.contains(hidden))
    };
    same_origin(base, url)
        && url.fragment().is_none()
        && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        && !(url.path().contains('%') && hides(url.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_not_leave_its_base() {
        let base = Url::parse("https://api.example/tenant").unwrap();
        let inside = |path: &str| joined(&base, path).is_some();
        for good in ["/v1/lookup/1.2.3.4", "", "/a?b=c%2Fd", "/x/../y", "/%C3%A9"] {
            assert!(inside(good), "{good}");
        }
        for bad in [
            "/../other",
            "/..%2fother",
            "/%2e%2e/other",
            "/a/%2e%2e%2fb",
            "/a%5c..%5cb",
            ".evil.example/",
            "@evil.example/",
            "-suffix/x",
            "/a#b",
            "/\\..\\other/../..",
        ] {
            assert!(!inside(bad), "{bad}");
        }
        let base = Url::parse("https://api.example").unwrap();
        for bad in ["//evil.example/x", "\\\\evil.example/x", "/\\evil.example", "https://evil.example/x"] {
            assert_eq!(joined(&base, bad), None, "{bad}");
        }
    }

    #[test]
    fn a_path_with_dots_for_segments_is_seen_before_it_is_parsed() {
        for bad in ["/x/../y", "/x/%2e%2E/y", "/x/.%2e", "/./x", "/x\\..\\y", "/x/.\t./y"] {
            assert!(climbs(bad), "{bad:?}");
        }
        for good in ["/x/..y", "/a.b/c", "/x?p=../y", "/..."] {
            assert!(!climbs(good), "{good}");
        }
    }

    #[test]
    fn addresses_of_the_own_network_are_known_in_every_spelling() {
        let url = |text: &str| Url::parse(text).unwrap();
        for private in ["http://127.0.0.1:1", "http://2130706433/", "http://[::1]/", "http://0x7f.1", "http://10.0.0.8"]
        {
            assert!(is_private(&url(private)), "{private}");
        }
        assert!(!is_private(&url("https://1.1.1.1")) && !is_private(&url("https://service.example")));
        assert!(is_loopback(&url("http://localhost:1")) && !is_loopback(&url("http://10.0.0.8")));
    }

    #[test]
    fn links_keep_scheme_host_and_port() {
        let base = Url::parse("https://graph.example").unwrap();
        let same = |link: &str| Url::parse(link).is_ok_and(|url| same_origin(&base, &url));
        assert!(same("https://graph.example:443/v1.0/x?$skiptoken=1"));
        for bad in [
            "http://graph.example/x",
            "https://graph.example:8443/x",
            "https://graph.example.evil/x",
            "https://u@graph.example/",
        ] {
            assert!(!same(bad), "{bad}");
        }
    }
}
