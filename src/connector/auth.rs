//! Who we are to a service: an Entra token (by secret, certificate, federation or the machine), an API token, a bearer.
//!
//! Tokens are kept, fetched once however many calls wait for one, renewed ahead of their end in the background, and
//! fetched anew after a 401. A refusal is remembered for a while, so that a wrong secret does not become a storm.
//! Not here: what is asked with (`source`), what a refusal means (`aadsts`).

mod source;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value as Json;
use source::Source;
use tokio::time::Instant;

use super::aadsts::{self, Kind};
use super::{answer, wire};
use crate::clock::Clock;
use crate::config::{Connection, Credential, Entra, Secret};
use crate::engine::Outcome;
use crate::error::Error;

/// A token is renewed when less than this is left of it (or a fifth of its life, for short-lived ones).
const AHEAD: Duration = Duration::from_secs(300);
/// How long a refusal by the authority stands before we ask again, and a failure to reach it.
const REFUSED: Duration = Duration::from_secs(30);
const FAILED: Duration = Duration::from_secs(1);
/// A difference between two clocks that is told, in seconds. Entra itself forgives five minutes.
const SKEW: i64 = 60;
const TOKEN_CAP: usize = 256 << 10;

/// The credential of one connection.
#[derive(Clone)]
pub(super) enum Auth {
    None,
    Fixed(HeaderValue),
    Entra(Arc<Tokens>),
}

/// What one request carries.
#[derive(Clone)]
pub(super) struct Ticket {
    pub(super) header: Option<(HeaderName, HeaderValue)>,
    /// The token, to recognise it in what comes back.
    pub(super) token: Option<Arc<str>>,
}

impl Auth {
    /// Reads the secrets of a connection; each is told to `secret`, so that it can be masked.
    pub(super) fn open(
        connection: &Connection,
        http: &reqwest::Client,
        clock: &Clock,
        secret: &mut dyn FnMut(&str),
    ) -> Result<Self, Error> {
        let name = &connection.name;
        let mut read = |reference: &crate::config::SecretRef| {
            let found = reference
                .resolve()
                .map_err(|error| Error::config(format!("connection {name}: its credential can't be read: {error}")))?;
            secret(found.expose());
            Ok::<Secret, Error>(found)
        };
        let fixed = |scheme: &str, secret: &Secret| {
            let mut value = HeaderValue::try_from(format!("{scheme} {}", secret.expose())).map_err(|_| {
                Error::config(format!("connection {name}: its credential holds characters that no header can carry"))
            })?;
            value.set_sensitive(true);
            Ok::<Auth, Error>(Auth::Fixed(value))
        };
        match &connection.credential {
            Credential::Password { username, password } if connection.kind.is_foreign() => {
                if username.contains(':') {
                    return Err(Error::config(format!("connection {name}: its username holds a colon")));
                }
                let password = read(password)?;
                let pair = format!("{username}:{}", password.expose());
                secret(&pair);
                fixed("Basic", &Secret::new(STANDARD.encode(pair)))
            }
            // Mail signs in by itself.
            Credential::None | Credential::Password { .. } => Ok(Auth::None),
            Credential::ApiToken(reference) => fixed("Token", &read(reference)?),
            Credential::Bearer(reference) => fixed("Bearer", &read(reference)?),
            Credential::Entra(entra) | Credential::Mailbox { entra, .. } => {
                let scope = entra.scope.clone().or_else(|| entra.cloud.scope(connection.kind));
                let scope = scope.ok_or_else(|| {
                    Error::config(format!("connection {name}: its entra credential needs a scope"))
                        .help("name the resource it is for, such as scope: api://my-service/.default")
                })?;
                Auth::entra(name, entra, scope, http, clock, secret)
            }
        }
    }

    /// An application or identity of Entra; `name` is what messages call whom it is for.
    pub(super) fn entra(
        name: &Arc<str>,
        entra: &Entra,
        scope: String,
        http: &reqwest::Client,
        clock: &Clock,
        secret: &mut dyn FnMut(&str),
    ) -> Result<Self, Error> {
        Ok(Auth::Entra(Arc::new(Tokens::open(name, entra, scope, http, clock, secret)?)))
    }

    pub(super) async fn ticket(&self) -> Result<Ticket, Outcome> {
        match self {
            Auth::None => Ok(Ticket { header: None, token: None }),
            Auth::Fixed(value) => Ok(Ticket { header: Some((AUTHORIZATION, value.clone())), token: None }),
            Auth::Entra(tokens) => Ok(tokens.get().await?.ticket()),
        }
    }

    /// After a 401: a new ticket where there can be one. A 401 did nothing, so the request may go again.
    pub(super) async fn renewed(&self, used: &Ticket) -> Option<Result<Ticket, Outcome>> {
        let (Auth::Entra(tokens), Some(stale)) = (self, &used.token) else { return None };
        Some(tokens.fetch(Some(stale)).await.map(|token| token.ticket()))
    }

    /// When the certificate that proves us ends.
    pub(super) fn not_after(&self) -> Option<Timestamp> {
        let Auth::Entra(tokens) = self else { return None };
        tokens.source.not_after()
    }
}

struct Token {
    text: Arc<str>,
    header: HeaderValue,
    renew: Instant,
    end: Instant,
}

impl Token {
    fn ticket(&self) -> Ticket {
        Ticket { header: Some((AUTHORIZATION, self.header.clone())), token: Some(Arc::clone(&self.text)) }
    }
}

/// The tokens of one connection.
pub(super) struct Tokens {
    connection: Arc<str>,
    http: reqwest::Client,
    source: Source,
    current: RwLock<Option<Arc<Token>>>,
    /// Whoever holds it fetches; the value is the last refusal and when it may be asked again.
    gate: tokio::sync::Mutex<Option<(Instant, Outcome)>>,
    renewing: AtomicBool,
    clock: Clock,
    /// How far the authority's clock is ahead of ours, in seconds.
    skew: AtomicI64,
}

impl Tokens {
    fn open(
        connection: &Arc<str>,
        entra: &Entra,
        scope: String,
        http: &reqwest::Client,
        clock: &Clock,
        secret: &mut dyn FnMut(&str),
    ) -> Result<Self, Error> {
        Ok(Tokens {
            connection: Arc::clone(connection),
            http: http.clone(),
            source: Source::open(connection, entra, scope, secret)?,
            current: RwLock::new(None),
            gate: tokio::sync::Mutex::new(None),
            renewing: AtomicBool::new(false),
            clock: clock.clone(),
            skew: AtomicI64::new(0),
        })
    }

    async fn get(self: &Arc<Self>) -> Result<Arc<Token>, Outcome> {
        if let Some(token) = self.current() {
            let now = Instant::now();
            if now < token.renew {
                return Ok(token);
            }
            if now < token.end {
                if !self.renewing.swap(true, Ordering::Relaxed) {
                    let tokens = Arc::clone(self);
                    tokio::spawn(async move {
                        // The words of the authority may repeat a secret; the call that needs the token tells them masked.
                        if let Err(Outcome::NotSent { code, .. }) = tokens.fetch(Some(&token.text)).await {
                            tracing::warn!(
                                connection = &*tokens.connection,
                                code,
                                "renewing the token ahead of its end"
                            );
                        }
                        tokens.renewing.store(false, Ordering::Relaxed);
                    });
                    // The old one is good for this call.
                    return self.current().ok_or_else(|| not_sent("token", "no token", true));
                }
                return Ok(token);
            }
        }
        self.fetch(None).await
    }

    fn current(&self) -> Option<Arc<Token>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gets a token other than `stale`; those who wait meanwhile share it.
    async fn fetch(&self, stale: Option<&str>) -> Result<Arc<Token>, Outcome> {
        let mut gate = self.gate.lock().await;
        if let Some(token) = self.current()
            && Some(&*token.text) != stale
            && Instant::now() < token.end
        {
            return Ok(token);
        }
        if let Some((until, refusal)) = &*gate
            && Instant::now() < *until
        {
            return Err(refusal.clone());
        }
        match self.ask().await {
            Ok(token) => {
                let token = Arc::new(token);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&token));
                *gate = None;
                Ok(token)
            }
            Err((refusal, pause)) => {
                *gate = Some((Instant::now() + pause, refusal.clone()));
                Err(refusal)
            }
        }
    }

    /// Asks; once more where the only fault was our clock, which the authority's answer has told.
    async fn ask(&self) -> Result<Token, (Outcome, Duration)> {
        let before = self.skew.load(Ordering::Relaxed);
        match self.ask_once().await {
            Err((Kind::Clock, ..)) if (self.skew.load(Ordering::Relaxed) - before).abs() >= SKEW => {
                self.ask_once().await.map_err(|(_, outcome, pause)| (outcome, pause))
            }
            asked => asked.map_err(|(_, outcome, pause)| (outcome, pause)),
        }
    }

    async fn ask_once(&self) -> Result<Token, (Kind, Outcome, Duration)> {
        let name = &self.connection;
        let passing = |message: &str| (Kind::Passing, not_sent("token", message, true), FAILED);
        let skew = SignedDuration::from_secs(self.skew.load(Ordering::Relaxed));
        let theirs = self.clock.now().checked_add(skew).unwrap_or(Timestamp::MAX);
        let request = self.source.request(&self.http, theirs).await.map_err(|outcome| match outcome {
            Outcome::NotSent { message, .. } => passing(&format!("connection {name}: {message}")),
            other => (Kind::Passing, other, FAILED),
        })?;
        let asked = Instant::now();
        let response = request.timeout(Duration::from_secs(30)).send().await.map_err(|error| {
            match wire::failure(&error, "the token endpoint") {
                Outcome::NotSent { message, .. } | Outcome::Unknown { message, .. } => {
                    passing(&format!("connection {name}: {message}"))
                }
                _ => passing("the token endpoint can't be reached"),
            }
        })?;
        let status = response.status().as_u16();
        let skew = self.compare(response.headers());
        let body = wire::read(response, TOKEN_CAP)
            .await
            .map_err(|_| passing(&format!("connection {name}: the token endpoint's answer broke off")))?;
        if status != 200 {
            return Err(self.refused(status, &body, skew));
        }
        let token = serde_json::from_slice::<Json>(&body).ok();
        token.and_then(|json| read_token(&json, asked, self.clock.now())).ok_or_else(|| {
            passing(&format!(
                "connection {name}: the token endpoint answered something that is no token; check authority"
            ))
        })
    }

    /// How far the authority's clock is ahead of ours, by the date of its answer; a difference that matters is told.
    fn compare(&self, headers: &HeaderMap) -> i64 {
        let date = headers.get(DATE).and_then(|value| value.to_str().ok());
        let date = date.and_then(|text| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok());
        let Some(date) = date else { return self.skew.load(Ordering::Relaxed) };
        let ahead = date.duration_since(self.clock.now()).as_secs();
        let before = self.skew.swap(ahead, Ordering::Relaxed);
        if ahead.abs() >= SKEW && before.abs() < SKEW {
            tracing::warn!(
                connection = &*self.connection,
                seconds = ahead,
                "this machine's clock is not that of the token endpoint; set it (timedatectl)"
            );
        }
        ahead
    }

    fn refused(&self, status: u16, body: &[u8], skew: i64) -> (Kind, Outcome, Duration) {
        let name = &self.connection;
        if self.source.is_machine() {
            let said = answer::said(body).message.unwrap_or_default();
            // Documented: come again after 404, 410, 429 and 5xx, and after nothing else.
            let transient = matches!(status, 404 | 410 | 429 | 500..);
            let todo = if transient {
                "it is asked again"
            } else {
                "assign the identity to this machine (its Identity page in the portal), or check client_id"
            };
            let message = format!("connection {name}: the managed identity gave no token ({status} {said}); {todo}");
            let (kind, pause) = if transient { (Kind::Passing, FAILED) } else { (Kind::Lasting, REFUSED) };
            return (kind, not_sent("token", &message, transient), pause);
        }
        let json = serde_json::from_slice::<Json>(body).unwrap_or_default();
        let read = aadsts::read(status, &json);
        let clock = match skew.abs() {
            SKEW.. if read.kind == Kind::Clock => {
                let way = if skew > 0 { "behind" } else { "ahead of" };
                format!("; this machine's clock is {} s {way} Entra's", skew.abs())
            }
            _ => String::new(),
        };
        let message = format!("connection {name}: Entra gave no token: {}{clock}", read.text);
        let pause = if read.kind == Kind::Passing { FAILED } else { REFUSED };
        (read.kind, not_sent(&read.code, &message, read.kind != Kind::Lasting), pause)
    }
}

fn read_token(json: &Json, asked: Instant, now: Timestamp) -> Option<Token> {
    let text = json.get("access_token")?.as_str().filter(|text| !text.is_empty())?;
    // Entra gives seconds as a number, a managed identity as text.
    let number = |key: &str| json.get(key).and_then(|value| value.as_i64().or_else(|| value.as_str()?.parse().ok()));
    // App Service and its kin tell only the second at which it ends.
    let life = number("expires_in").or_else(|| Some(number("expires_on")? - now.as_second()));
    let life = u64::try_from(life.unwrap_or(3599)).unwrap_or(1);
    let life = Duration::from_secs(life.clamp(1, 86_400 * 2));
    let mut header = HeaderValue::try_from(format!("Bearer {text}")).ok()?;
    header.set_sensitive(true);
    let end = asked + life;
    let ahead = AHEAD.min(life / 5);
    Some(Token { text: text.into(), header, renew: asked + (life - ahead), end })
}

fn not_sent(code: &str, message: &str, transient: bool) -> Outcome {
    Outcome::NotSent { code: code.into(), message: message.into(), transient }
}
