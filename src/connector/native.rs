//! Actions that are no single documented request: mail, cards, a user's risk, a flow's own HTTP request.

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Value as Json, json};

use super::conn::{Conn, Outgoing, Raw, refuse};
use super::request::{self, Request};
use super::wire::{self, Stage};
use super::{mail, multipart, teams, web};
use crate::catalog::{Action, Catalog};
use crate::clock::Clock;
use crate::engine::Outcome;
use crate::value::{Map, Value};

/// Everything that one attempt needs.
pub(super) struct Attempt {
    pub(super) conn: Arc<Conn>,
    pub(super) action: Arc<Action>,
    pub(super) inputs: Map,
    pub(super) tag: String,
    pub(super) catalog: Arc<Catalog>,
    pub(super) clock: Clock,
    pub(super) stage: Stage,
}

/// An answer as JSON, whole, with the text that people get to see.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) json: Json,
    pub(super) body: Vec<u8>,
    /// Whether the body was read as JSON.
    pub(super) parsed: bool,
}

impl Answer {
    fn made(status: u16, json: Json) -> Self {
        let body = json.to_string().into_bytes();
        Answer { status, json, body, parsed: true }
    }
}

/// What came of an attempt; a refusal brings the body that said so.
pub(super) type Got = Result<Answer, (Outcome, Vec<u8>)>;

impl Attempt {
    pub(super) async fn run(&self) -> Got {
        match self.action.native.as_deref() {
            None => self.plain(&self.action, &self.inputs).await,
            Some("user_risk") => self.user_risk().await,
            Some("library_upload") => self.library_upload().await,
            Some("sentinel_update") => self.sentinel_update().await,
            Some("email_send") => self.email().await.map_err(bare),
            Some("teams_post") => self.post().await,
            Some("http_request") => self.web().await,
            Some(other) => {
                Err(bare(refuse("not_supported", format!("there is no handler {other} for {}", self.action.name))))
            }
        }
    }

    /// One request of the catalogue, answered in JSON.
    async fn plain(&self, action: &Action, inputs: &Map) -> Got {
        let request = self.built(action, inputs).map_err(bare)?;
        let out = self.outgoing(&request).map_err(bare)?;
        self.page(action, &out).await
    }

    pub(super) fn built(&self, action: &Action, inputs: &Map) -> Result<Request, Outcome> {
        request::build(action, inputs, &self.tag).map_err(|bad| refuse("bad_input", bad.to_string()))
    }

    pub(super) fn outgoing(&self, request: &Request) -> Result<Outgoing, Outcome> {
        let bad = |what: &str| refuse("bad_input", format!("{}: {what} can't be sent", self.action.name));
        let method = Method::try_from(&*request.method).map_err(|_| bad("its method"))?;
        let path = request.path.split('?').next().unwrap_or("");
        // Inputs are checked by shape before they enter a path; dots would still lead elsewhere without a trace.
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(bad("a path with dots for segments"));
        }
        let mut out = Outgoing::json(method, self.conn.url(&request.path)?, request.body.as_ref());
        for (name, value) in &request.headers {
            let name = HeaderName::try_from(&**name).map_err(|_| bad("the name of a header"))?;
            out.headers.insert(name, HeaderValue::try_from(&**value).map_err(|_| bad("the value of a header"))?);
        }
        Ok(out)
    }

    /// Sends one request of an action and decodes its answer.
    pub(super) async fn page(&self, action: &Action, out: &Outgoing) -> Got {
        let cap = wire::cap(action);
        let raw = self.conn.exchange(out, &action.rate_class, cap, &self.stage).await.map_err(bare)?;
        self.decode(action, raw).await
    }

    async fn decode(&self, action: &Action, raw: Raw) -> Got {
        if !request::is_answer(action, raw.status) {
            return Err((raw.failed(&self.clock), raw.body));
        }
        let Raw { status, body, .. } = raw;
        let empty = body.iter().all(u8::is_ascii_whitespace);
        if empty || !(200..300).contains(&status) {
            return Ok(Answer { status, json: Json::Null, body, parsed: false });
        }
        // A large answer takes long to parse; the other runs go on meanwhile.
        let (json, body) = if body.len() > 1 << 20 {
            let parsed = tokio::task::spawn_blocking(move || (serde_json::from_slice::<Json>(&body), body)).await;
            parsed.map_err(|_| bare(wire::unknown(status, "invalid_answer", "the answer could not be read")))?
        } else {
            (serde_json::from_slice::<Json>(&body), body)
        };
        match json {
            Ok(json) => Ok(Answer { status, json, body, parsed: true }),
            Err(error) => {
                let why = format!("{} answered {status} with something that is no JSON: {error}", self.conn.name);
                Err((wire::unknown(status, "invalid_answer", why), body))
            }
        }
    }

    /// A 404 means that the user was never at risk, or that there is no such user; only the directory tells which.
    async fn user_risk(&self) -> Got {
        let first = self.plain(&self.action, &self.inputs).await;
        let Err((Outcome::Refused { status: 404, .. }, _)) = &first else { return first };
        let Some(get_user) = self.catalog.action("entra.get_user").cloned() else { return first };
        let asked = self.inputs.get("user").and_then(Value::as_str).unwrap_or("").to_owned();
        self.stay_slow(&get_user.rate_class).await;
        let user = Map::from([(Arc::from("user"), Value::str(&asked))]);
        let found = match self.plain(&get_user, &user).await {
            Ok(found) => found,
            Err((Outcome::Refused { status: 404, .. }, body)) => {
                let message = format!("there is no user {asked}");
                let code = "user_not_found".into();
                return Err((
                    Outcome::Refused { status: 404, code, message, transient: false, retry_after_ms: None },
                    body,
                ));
            }
            Err(other) => return Err(other),
        };
        let id = found.json.get("id").and_then(Json::as_str).unwrap_or("").to_owned();
        // Identity Protection knows object ids only: asked with another name of the user, its 404 says nothing yet.
        if !id.is_empty() && !id.eq_ignore_ascii_case(&asked) {
            self.stay_slow(&self.action.rate_class).await;
            let again = Map::from([(Arc::from("user"), Value::str(&id))]);
            match self.plain(&self.action, &again).await {
                Err((Outcome::Refused { status: 404, .. }, _)) => {}
                other => return other,
            }
        }
        Ok(Answer::made(
            200,
            json!({
                "id": id,
                "userPrincipalName": found.json.get("userPrincipalName"),
                "userDisplayName": found.json.get("displayName"),
                "riskLevel": "none",
                "riskState": "none",
            }),
        ))
    }

    /// The one operation that takes a form with a file and no JSON.
    async fn library_upload(&self) -> Got {
        let request = self.built(&self.action, &self.inputs).map_err(bare)?;
        let fields = request.body.as_ref().and_then(Json::as_object).cloned().unwrap_or_default();
        let form = multipart::form(&fields).map_err(|why| bare(refuse("bad_input", why)))?;
        let mut out = self.outgoing(&Request { body: None, ..request }).map_err(bare)?;
        let kind = HeaderValue::try_from(form.kind).map_err(|_| bare(refuse("bad_input", "the form".into())))?;
        out.headers.insert(reqwest::header::CONTENT_TYPE, kind);
        out.body = Some(form.body.into());
        self.page(&self.action, &out).await
    }

    /// A PUT replaces the whole incident, so it is read first, and written only as long as nobody else has written it: each
    /// attempt that is refused for that did nothing.
    async fn sentinel_update(&self) -> Got {
        let Some(get) = self.catalog.action("azure.get_incident").cloned() else {
            return Err(bare(refuse("not_supported", "there is no azure.get_incident".into())));
        };
        let id = self.inputs.get("incident_id").cloned().unwrap_or(Value::str(""));
        let mut request = self.built(&self.action, &self.inputs).map_err(bare)?;
        let asked = request.body.take().unwrap_or(Json::Null);
        let mut tries = 0;
        loop {
            let found = self.plain(&get, &Map::from([(Arc::from("incident_id"), id.clone())])).await?;
            request.body = Some(sentinel_body(&found.json, &asked));
            self.stay_slow(&self.action.rate_class).await;
            let out = self.outgoing(&request).map_err(bare)?;
            match self.page(&self.action, &out).await {
                Err((Outcome::Refused { status: 409 | 412, .. }, _)) if tries < 3 => tries += 1,
                other => return other,
            }
        }
    }

    /// Follow-up requests keep to the limits as well.
    async fn stay_slow(&self, class: &Arc<str>) {
        let _slot = self.conn.limits.take(class).await;
    }

    async fn email(&self) -> Result<Answer, Outcome> {
        let Some(mailer) = &self.conn.mailer else {
            return Err(refuse("bad_connection", format!("the connection {} sends no mail", self.conn.name)));
        };
        let letter = mail::letter(&self.inputs, &mailer.from, &self.tag, self.clock.now());
        let letter = letter.map_err(|why| refuse("bad_input", why))?;
        let said = mailer.send(&letter, &self.stage).await.map_err(|outcome| self.conn.scrub(outcome))?;
        let said = self.conn.scrubber.text(said);
        let mut answer = Answer::made(250, json!({"message_id": letter.message_id}));
        answer.body = json!({"message_id": letter.message_id, "server": said}).to_string().into_bytes();
        Ok(answer)
    }

    async fn post(&self) -> Got {
        let message = teams::message(&self.inputs).map_err(|why| bare(refuse("bad_input", why)))?;
        let url = self.conn.base().map_err(bare)?.clone();
        let out = Outgoing::json(Method::POST, url, Some(&message));
        let cap = wire::cap(&self.action);
        let raw = self.conn.exchange(&out, &self.action.rate_class, cap, &self.stage).await.map_err(bare)?;
        if !raw.is_success() {
            return Err((raw.failed(&self.clock), raw.body));
        }
        if teams::is_throttled(&raw.body) {
            let refused = Outcome::Refused {
                status: 429,
                code: "throttled".into(),
                message: "Teams takes no more posts for now".into(),
                transient: true,
                retry_after_ms: None,
            };
            return Err((refused, raw.body));
        }
        Ok(Answer::made(raw.status, json!({"status": raw.status})))
    }

    async fn web(&self) -> Got {
        let out = web::request(&self.conn, &self.inputs).map_err(bare)?;
        let cap = wire::cap(&self.action);
        let raw = self.conn.exchange(&out, &self.action.rate_class, cap, &self.stage).await.map_err(bare)?;
        if !raw.is_success() {
            return Err((raw.failed(&self.clock), raw.body));
        }
        Ok(Answer { status: raw.status, json: web::answer(&raw), body: raw.body, parsed: false })
    }
}

/// What stays of an incident, with what is to be set over it.
fn sentinel_body(found: &Json, asked: &Json) -> Json {
    const STAYS: [&str; 11] = [
        "title",
        "description",
        "severity",
        "status",
        "owner",
        "labels",
        "classification",
        "classificationReason",
        "classificationComment",
        "firstActivityTimeUtc",
        "lastActivityTimeUtc",
    ];
    let there = |key: &str| found.pointer(&format!("/properties/{key}")).filter(|value| !value.is_null()).cloned();
    let mut properties: serde_json::Map<String, Json> =
        STAYS.into_iter().filter_map(|key| Some((key.to_owned(), there(key)?))).collect();
    for (key, value) in asked.get("properties").and_then(Json::as_object).into_iter().flatten() {
        properties.insert(key.clone(), value.clone());
    }
    json!({"etag": found.get("etag"), "properties": properties})
}

fn bare(outcome: Outcome) -> (Outcome, Vec<u8>) {
    (outcome, Vec::new())
}
