//! `POST /hooks/NAME`: authenticated calls from outside. An answer of 202 means that the run is on disk.
//!
//! Only declared fields are kept. A call's credential never reaches the journal.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value as Json, json};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{Event, Intake, form, origin};
use crate::config::{Secret, WebhookAuth};
use crate::error::Error;
use crate::value::Value;

/// Largest body, in bytes.
const MAX_BODY: usize = 256 * 1024;
/// How far a signed call's timestamp may be from our clock, in seconds.
const MAX_SKEW: u64 = 300;
/// How long a caller may take to send its body.
const BODY_TIME: Duration = Duration::from_secs(10);
/// What a refused caller is told to wait, in seconds.
const RETRY_AFTER: &str = "5";

enum Auth {
    Bearer(Secret),
    Hmac(Secret),
    None,
}

/// How each webhook tells its callers, with its secret resolved. Cloning shares them.
#[derive(Clone)]
pub struct Keys(Arc<RwLock<Arc<ByName>>>);

type ByName = BTreeMap<Arc<str>, Auth>;

impl Keys {
    /// Resolves the secrets. The errors are all that are wrong.
    pub fn open(configured: &BTreeMap<Arc<str>, WebhookAuth>) -> Result<Keys, Vec<Error>> {
        let resolve = |name: &str, secret: &crate::config::SecretRef| {
            secret.resolve().map_err(|error| Error::config(format!("opening the webhook {name}: {error}")))
        };
        let (mut auth, mut faults) = (BTreeMap::new(), vec![]);
        for (name, how) in configured {
            let how = match how {
                WebhookAuth::Bearer(secret) => resolve(name, secret).map(Auth::Bearer),
                WebhookAuth::Hmac(secret) => resolve(name, secret).map(Auth::Hmac),
                WebhookAuth::None => Ok(Auth::None),
            };
            match how {
                Ok(how) => drop(auth.insert(Arc::clone(name), how)),
                Err(error) => faults.push(error),
            }
        }
        if faults.is_empty() { Ok(Keys::from(auth)) } else { Err(faults) }
    }

    /// Takes over other keys; a call that is being read is judged by those it came in under.
    pub fn adopt(&self, other: &Keys) {
        let other = other.now();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = other;
    }

    fn now(&self) -> Arc<ByName> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl From<ByName> for Keys {
    fn from(auth: ByName) -> Self {
        Keys(Arc::new(RwLock::new(Arc::new(auth))))
    }
}

struct Hooks {
    intake: Arc<Intake>,
    keys: Keys,
    /// Tells deliveries of one instant apart.
    count: AtomicU64,
    /// Tells this process from the one before it.
    session: String,
}

pub fn routes(intake: Arc<Intake>, keys: Keys) -> Router {
    let session = intake.clock.now().as_nanosecond().to_string();
    let hooks = Arc::new(Hooks { intake, keys, count: AtomicU64::new(0), session });
    Router::new().route("/hooks/{name}", post(deliver)).with_state(hooks)
}

/// A refusal: status and one sentence.
struct Refusal(StatusCode, String);

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Refusal(status, message.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = answer(self.0, &json!({ "error": self.1 }));
        if self.0 == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER));
        }
        if self.0 == StatusCode::UNAUTHORIZED {
            let scheme = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

fn answer(status: StatusCode, body: &Json) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn deliver(
    State(hooks): State<Arc<Hooks>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let keys = hooks.keys.now();
    let (name, auth) = keys
        .get_key_value(name.as_str())
        .ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "there is no such webhook"))?;
    // A wrong token is refused before the body is read.
    match auth {
        Auth::Bearer(secret) => bearer(&headers, secret)?,
        Auth::None if !origin::is_local(&headers, None) => {
            let message = "this webhook takes no calls through a proxy: it has no authentication";
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, message));
        }
        Auth::Hmac(_) | Auth::None => {}
    }
    if let Some(why) = hooks.intake.gate.closed() {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why));
    }
    is_json(&headers)?;
    let body = tokio::time::timeout(BODY_TIME, to_bytes(body, MAX_BODY))
        .await
        .map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 10 seconds"))?
        .map_err(|_| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 256 KiB, or broke off"))?;
    let signature = match auth {
        Auth::Hmac(secret) => Some(signed(&headers, &body, secret, hooks.intake.clock.now().as_second())?),
        Auth::Bearer(_) | Auth::None => None,
    };
    let json: Json = serde_json::from_slice(&body)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}")))?;
    let Json::Object(given) = json else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "the body is no JSON object"));
    };
    let key = hooks.key(signature, &headers)?;
    offer(&hooks, name, &given, key).await
}

async fn offer(
    hooks: &Hooks,
    name: &Arc<str>,
    given: &serde_json::Map<String, Json>,
    key: Key,
) -> Result<Response, Refusal> {
    let intake = &hooks.intake;
    let mut events = vec![];
    for deployed in intake.flows.now().hooked(name) {
        let trigger = deployed.trigger().map_err(|error| {
            tracing::error!(%error, hook = %name, "a webhook's flow could not be compiled");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "a flow of this webhook could not be compiled")
        })?;
        let Some((_, fields)) = &trigger.webhook else { continue };
        // Each flow keeps the fields that it declares, whatever another one declares for the same webhook.
        let payload = form::fill(fields, given).map_err(|message| Refusal::new(StatusCode::BAD_REQUEST, message))?;
        events.push(Event {
            kind: "webhook".into(),
            connection: Some(Arc::clone(name)),
            flow: None,
            only: Some(Arc::clone(deployed.name())),
            key: format!("{name}:{}", key.text),
            occurred: intake.clock.now(),
            payload,
            inputs: Value::empty(),
        });
    }
    if events.is_empty() {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "no flow listens to this webhook"));
    }
    let offered = intake.offer_whole(events).await.map_err(|error| {
        tracing::error!(%error, hook = %name, "a webhook's call could not be stored");
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the call could not be stored")
    })?;
    let ids: Vec<&str> = offered.started.iter().map(crate::id::RunId::as_str).collect();
    let body = match (ids.as_slice(), offered.duplicates) {
        ([], 1..) if key.signed => return Err(Refusal::new(StatusCode::CONFLICT, "this call was made before")),
        ([], _) if offered.gathered > 0 => json!({ "run": null, "gathered": offered.gathered }),
        ([], duplicates) => json!({ "run": null, "duplicate": duplicates > 0, "skipped": offered.skipped > 0 }),
        ([one], _) => json!({ "run": one }),
        (many @ [first, ..], _) => json!({ "run": first, "runs": many }),
    };
    Ok(answer(StatusCode::ACCEPTED, &body))
}

/// What tells one delivery from another.
struct Key {
    text: String,
    signed: bool,
}

impl Hooks {
    fn key(&self, signature: Option<String>, headers: &HeaderMap) -> Result<Key, Refusal> {
        // A signed call is told by its signature: the header beside it is not signed, so a replay could change it.
        if let Some(signature) = signature {
            return Ok(Key { text: signature, signed: true });
        }
        if let Some(given) = headers.get("idempotency-key") {
            let text = given.to_str().ok().filter(|text| (1..=256).contains(&text.len()));
            let text =
                text.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "Idempotency-Key has 1 to 256 characters"))?;
            return Ok(Key { text: format!("key:{text}"), signed: false });
        }
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        Ok(Key { text: format!("{}-{count}", self.session), signed: false })
    }
}

fn bearer(headers: &HeaderMap, secret: &Secret) -> Result<(), Refusal> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    let token =
        given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map_or("", |(_, t)| t);
    if bool::from(token.trim().as_bytes().ct_eq(secret.expose().as_bytes())) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::UNAUTHORIZED, "wanted `Authorization: Bearer` with this webhook's token"))
}

fn is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "wanted `Content-Type: application/json`"))
}

/// Checks a signed call; its signature is what a replay is told by.
fn signed(headers: &HeaderMap, body: &[u8], secret: &Secret, now: i64) -> Result<String, Refusal> {
    let refuse = |message: &str| Refusal::new(StatusCode::UNAUTHORIZED, message);
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").trim();
    let stamp = text("x-watchfloor-timestamp");
    let at: i64 = stamp.parse().map_err(|_| refuse("wanted X-Watchfloor-Timestamp in seconds since 1970"))?;
    let given = text("x-watchfloor-signature").strip_prefix("sha256=").and_then(unhex);
    let given = given.ok_or_else(|| refuse("wanted X-Watchfloor-Signature: sha256=<hex>"))?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).map_err(|_| refuse("no usable key"))?;
    mac.update(stamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    // Compares in constant time.
    mac.verify_slice(&given).map_err(|_| refuse("the signature does not fit"))?;
    if now.abs_diff(at) > MAX_SKEW {
        return Err(refuse("X-Watchfloor-Timestamp is more than 5 minutes off"));
    }
    Ok(crate::id::hex(&given))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    text.as_bytes().chunks(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::program::InputDecl;
    use crate::trigger::testing::{Desk, flow, now};

    fn hooks(auth: Auth) -> (Desk, Arc<Hooks>) {
        let mut hooked = flow("f", "webhook", "");
        let field = InputDecl {
            name: "alertId".into(),
            ty: crate::catalog::Type::String,
            required: true,
            default: None,
            doc: "".into(),
        };
        hooked.trigger.webhook = Some(("w".into(), vec![field]));
        let desk = Desk::new(vec![hooked]);
        let intake = Arc::clone(&desk.intake);
        let auth = BTreeMap::from([(Arc::from("w"), auth)]);
        (desk, Arc::new(Hooks { intake, keys: Keys::from(auth), count: AtomicU64::new(0), session: "s".into() }))
    }

    async fn call(hooks: &Arc<Hooks>, name: &str, headers: &[(&'static str, &str)], body: &str) -> StatusCode {
        let mut map = HeaderMap::new();
        map.insert("host", header::HeaderValue::from_static("127.0.0.1:8730"));
        map.insert("content-type", header::HeaderValue::from_static("application/json"));
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let body = Body::from(body.to_owned());
        deliver(State(Arc::clone(hooks)), Path(name.into()), map, body).await.into_response().status()
    }

    const BODY: &str = r#"{"alertId":"a","other":1}"#;

    #[tokio::test]
    async fn a_call_is_accepted_with_its_token_alone() {
        let (mut desk, hooks) = hooks(Auth::Bearer(Secret::new("fire".into())));
        let with = |token: &'static str| [("authorization", token)];
        assert_eq!(call(&hooks, "w", &with("Bearer fire"), BODY).await, 202);
        assert_eq!(call(&hooks, "w", &with("Bearer fir"), BODY).await, 401);
        assert_eq!(call(&hooks, "w", &[], BODY).await, 401);
        assert_eq!(call(&hooks, "x", &with("Bearer fire"), BODY).await, 404);
        assert_eq!(call(&hooks, "w", &with("Bearer fire"), "{}").await, 400);
        assert_eq!(call(&hooks, "w", &with("Bearer fire"), "[1]").await, 400);
        assert_eq!(call(&hooks, "w", &with("Bearer fire"), &"x".repeat(MAX_BODY + 1)).await, 413);
        let form = [("authorization", "Bearer fire"), ("content-type", "multipart/form-data")];
        assert_eq!(call(&hooks, "w", &form, BODY).await, 415);
        let rows = desk.taken();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].payload.to_json(), serde_json::json!({"alertId": "a"}));
        desk.intake.gate.enter(super::super::Phase::Stopping);
        assert_eq!(call(&hooks, "w", &with("Bearer fire"), BODY).await, 503);
    }

    #[tokio::test]
    async fn deliveries_are_events_of_their_own_unless_they_say_so() {
        let (mut desk, hooks) = hooks(Auth::None);
        for _ in 0..2 {
            assert_eq!(call(&hooks, "w", &[], BODY).await, 202);
            assert_eq!(call(&hooks, "w", &[("idempotency-key", "k")], BODY).await, 202);
        }
        assert_eq!(desk.taken().len(), 3);
        // Without authentication, what a proxy lets through is refused.
        for forwarded in [("x-forwarded-for", "203.0.113.9"), ("host", "watchfloor.contoso.example")] {
            assert_eq!(call(&hooks, "w", &[forwarded], BODY).await, 401);
        }
    }

    #[tokio::test]
    async fn flows_that_share_a_webhook_get_their_own_fields() {
        let hooked = |name: &str, field: &str| {
            let mut hooked = flow(name, "webhook", "");
            let ty = crate::catalog::Type::String;
            let field = InputDecl { name: field.into(), ty, required: true, default: None, doc: "".into() };
            hooked.trigger.webhook = Some(("w".into(), vec![field]));
            hooked
        };
        let mut desk = Desk::new(vec![hooked("a", "alertId"), hooked("b", "device")]);
        let intake = Arc::clone(&desk.intake);
        let auth = BTreeMap::from([(Arc::from("w"), Auth::None)]);
        let hooks = Arc::new(Hooks { intake, keys: Keys::from(auth), count: AtomicU64::new(0), session: "s".into() });
        assert_eq!(call(&hooks, "w", &[], r#"{"alertId":"a","device":"d"}"#).await, 202);
        let seen: Vec<_> = desk.taken().iter().map(|row| (row.flow.to_string(), row.payload.to_json())).collect();
        let wanted = [("a", serde_json::json!({"alertId": "a"})), ("b", serde_json::json!({"device": "d"}))];
        assert_eq!(seen, wanted.map(|(flow, payload)| (flow.to_owned(), payload)));
        // What one of them lacks starts neither: half a delivery would look like a whole one.
        assert_eq!(call(&hooks, "w", &[], BODY).await, 400);
        assert_eq!(desk.taken(), []);
    }

    #[tokio::test]
    async fn a_signed_call_holds_five_minutes_and_once() {
        let (_desk, hooks) = hooks(Auth::Hmac(Secret::new("key".into())));
        let sign = |at: i64| {
            let mut mac = Hmac::<Sha256>::new_from_slice(b"key").unwrap();
            mac.update(format!("{at}.{BODY}").as_bytes());
            let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
            (at.to_string(), format!("sha256={hex}"))
        };
        let (at, signature) = sign(now().as_second());
        let headers = [("x-watchfloor-timestamp", at.as_str()), ("x-watchfloor-signature", signature.as_str())];
        assert_eq!(call(&hooks, "w", &headers, BODY).await, 202);
        assert_eq!(call(&hooks, "w", &headers, BODY).await, 409);
        assert_eq!(call(&hooks, "w", &headers, r#"{"alertId":"b"}"#).await, 401);
        for far in [now().as_second() - 301, i64::MIN, i64::MAX] {
            let (at, signature) = sign(far);
            let headers = [("x-watchfloor-timestamp", at.as_str()), ("x-watchfloor-signature", signature.as_str())];
            assert_eq!(call(&hooks, "w", &headers, BODY).await, 401);
        }
    }
}
