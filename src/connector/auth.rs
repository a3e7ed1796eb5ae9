//! Who we are to a service: an Entra token (client secret or managed identity), an API token, a bearer.
//!
//! Tokens are kept, fetched once however many calls wait for one, renewed ahead of their end in the background, and
//! fetched anew after a 401. A refusal is remembered for a while, so that a wrong secret does not become a storm.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde_json::Value as Json;
use tokio::time::Instant;

use super::{answer, wire};
use crate::catalog::ConnectionKind;
use crate::config::{Connection, Credential, Entra, Secret};
use crate::engine::Outcome;
use crate::error::Error;

/// A token is renewed when less than this is left of it (or a fifth of its life, for short-lived ones).
const AHEAD: Duration = Duration::from_secs(300);
/// How long a refusal by the authority stands before we ask again, and a failure to reach it.
const REFUSED: Duration = Duration::from_secs(30);
const FAILED: Duration = Duration::from_secs(1);
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
            Credential::Password { username, password } if connection.kind == ConnectionKind::Http => {
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
            Credential::Entra(entra) => {
                let secret = entra.client_secret.as_ref().map(&mut read).transpose()?;
                let scope = entra.scope.clone().or_else(|| scope(connection.kind).map(str::to_owned));
                let scope = scope.ok_or_else(|| {
                    Error::config(format!("connection {name}: its entra credential needs a scope"))
                        .help("name the resource it is for, such as scope: api://my-service/.default")
                })?;
                if secret.is_none() && !entra.managed_identity {
                    return Err(Error::config(format!(
                        "connection {name}: its entra credential has nothing to prove itself with"
                    ))
                    .help("give client_secret, or managed_identity: true on a machine that has one"));
                }
                Ok(Auth::Entra(Arc::new(Tokens::new(name, entra, secret, scope, http))))
            }
        }
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
}

/// The service's own scope (authentication pages of the services).
fn scope(kind: ConnectionKind) -> Option<&'static str> {
    match kind {
        ConnectionKind::Mde => Some("https://api.securitycenter.microsoft.com/.default"),
        ConnectionKind::Graph => Some("https://graph.microsoft.com/.default"),
        ConnectionKind::CloudApps => Some("05a65629-4c1b-48c1-a78b-804c4abdd4af/.default"),
        ConnectionKind::Azure => Some("https://management.azure.com/.default"),
        ConnectionKind::Email | ConnectionKind::Teams | ConnectionKind::Http => None,
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
}

enum Source {
    Secret { url: String, client_id: String, secret: Secret, scope: String },
    Identity { url: String },
}

impl Tokens {
    fn new(
        connection: &Arc<str>,
        entra: &Entra,
        secret: Option<Secret>,
        scope: String,
        http: &reqwest::Client,
    ) -> Self {
        let source = match secret {
            Some(secret) if !entra.managed_identity => Source::Secret {
                url: format!("{}/{}/oauth2/v2.0/token", entra.authority.trim_end_matches('/'), entra.tenant_id),
                client_id: entra.client_id.clone(),
                secret,
                scope,
            },
            _ => {
                let base = entra.identity_endpoint.trim_end_matches('/');
                let resource = scope.strip_suffix("/.default").unwrap_or(&scope);
                let query = [("api-version", "2018-02-01"), ("resource", resource), ("client_id", &entra.client_id)];
                let query = query.iter().filter(|(_, value)| !value.is_empty());
                let url = reqwest::Url::parse_with_params(&format!("{base}/metadata/identity/oauth2/token"), query);
                Source::Identity { url: url.map(String::from).unwrap_or_default() }
            }
        };
        Tokens {
            connection: Arc::clone(connection),
            http: http.clone(),
            source,
            current: RwLock::new(None),
            gate: tokio::sync::Mutex::new(None),
            renewing: AtomicBool::new(false),
        }
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
            Err(refusal) => {
                let pause = if matches!(refusal, Outcome::NotSent { transient: false, .. }) { REFUSED } else { FAILED };
                *gate = Some((Instant::now() + pause, refusal.clone()));
                Err(refusal)
            }
        }
    }

    async fn ask(&self) -> Result<Token, Outcome> {
        let name = &self.connection;
        let request = match &self.source {
            Source::Secret { url, client_id, secret, scope } => self.http.post(url).form(&[
                ("grant_type", "client_credentials"),
                ("client_id", client_id),
                ("client_secret", secret.expose()),
                ("scope", scope),
            ]),
            Source::Identity { url } => self.http.get(url).header("Metadata", "true"),
        };
        let asked = Instant::now();
        let response = request.timeout(Duration::from_secs(30)).send().await.map_err(|error| {
            let (Outcome::NotSent { message, .. } | Outcome::Unknown { message, .. }) =
                wire::failure(&error, "the token endpoint")
            else {
                return not_sent("token", "the token endpoint can't be reached", true);
            };
            not_sent("token", &format!("connection {name}: {message}"), true)
        })?;
        let status = response.status().as_u16();
        let body = wire::read(response, TOKEN_CAP).await.map_err(|_| {
            not_sent("token", &format!("connection {name}: the token endpoint's answer broke off"), true)
        })?;
        if status != 200 {
            return Err(self.refused(status, &body));
        }
        let token = serde_json::from_slice::<Json>(&body).ok().and_then(|json| read_token(&json, asked));
        token.ok_or_else(|| {
            not_sent(
                "token",
                &format!("connection {name}: the token endpoint answered something that is no token; check authority"),
                true,
            )
        })
    }

    fn refused(&self, status: u16, body: &[u8]) -> Outcome {
        let name = &self.connection;
        if let Source::Identity { .. } = self.source {
            let said = answer::said(body).message.unwrap_or_default();
            let transient = matches!(status, 404 | 410 | 429 | 500..);
            let todo =
                if transient { "it is asked again" } else { "assign the identity to this machine, or check client_id" };
            return not_sent(
                "token",
                &format!("connection {name}: the managed identity gave no token ({status} {said}); {todo}"),
                transient,
            );
        }
        let json = serde_json::from_slice::<Json>(body).unwrap_or_default();
        let (code, transient, todo) = explain(status, &json);
        not_sent(&code, &format!("connection {name}: Entra gave no token: {todo}"), transient)
    }
}

fn read_token(json: &Json, asked: Instant) -> Option<Token> {
    let text = json.get("access_token")?.as_str().filter(|text| !text.is_empty())?;
    // Entra gives seconds as a number, a managed identity as text.
    let life = json.get("expires_in").and_then(|life| life.as_u64().or_else(|| life.as_str()?.parse().ok()));
    let life = Duration::from_secs(life.unwrap_or(3599).clamp(1, 86_400 * 2));
    let mut header = HeaderValue::try_from(format!("Bearer {text}")).ok()?;
    header.set_sensitive(true);
    let end = asked + life;
    let ahead = AHEAD.min(life / 5);
    Some(Token { text: text.into(), header, renew: asked + (life - ahead), end })
}

/// What an administrator must do about a refusal. The numbers are Entra's own; only the text is ours.
fn explain(status: u16, json: &Json) -> (String, bool, String) {
    let description = json.get("error_description").and_then(Json::as_str).unwrap_or("");
    let listed = json.get("error_codes").and_then(|codes| codes.get(0)).and_then(Json::as_u64);
    let written = description.split_once("AADSTS").map(|(_, rest)| rest);
    let written = written.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    let number: Option<u64> = listed.or(written);
    let todo = match number {
        Some(7_000_215) => "the client secret is wrong; give the secret's value, not its id",
        Some(7_000_222) => {
            "the client secret has expired; make a new one in the app registration and put it where the configuration reads it"
        }
        Some(7_000_218) => "no client secret was sent; check client_secret",
        Some(700_016) => "the application is not known in this tenant; check client_id and tenant_id",
        Some(90_002) => "the tenant does not exist; check tenant_id",
        Some(9_001_023 | 90_130) => "tenant_id must name one tenant, not 'common' or 'organizations'",
        Some(500_011) => {
            "the service is not set up in this tenant; grant the application its permissions and give consent, or check scope"
        }
        Some(70_011 | 28_002 | 700_022 | 700_023) => "the scope is wrong; it is one resource followed by /.default",
        Some(50_012) => "the assertion is not accepted; check the certificate registered with the application",
        Some(500_133) => "the assertion is outside its time; set this machine's clock",
        Some(90_006 | 90_012 | 90_024 | 90_033) => "Entra has a passing failure; it is asked again",
        Some(90_055) => "the tenant is throttled; it is asked again",
        _ if status >= 500 || status == 429 => "the token endpoint failed; it is asked again",
        _ => "see the message of Entra",
    };
    let transient = matches!(number, Some(90_006 | 90_012 | 90_024 | 90_033 | 90_055 | 500_133))
        || (number.is_none() && (status >= 500 || status == 429));
    let code = number.map_or_else(|| "token".to_owned(), |number| format!("AADSTS{number}"));
    let first = description.lines().next().unwrap_or("");
    let said = answer::clean(first, 300);
    let todo = if said.is_empty() { format!("{todo} ({code})") } else { format!("{todo} ({said})") };
    (code, transient, todo)
}

fn not_sent(code: &str, message: &str, transient: bool) -> Outcome {
    Outcome::NotSent { code: code.into(), message: message.into(), transient }
}
