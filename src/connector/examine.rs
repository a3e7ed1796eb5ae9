//! What can be found out about a connection without changing anything: its name, its answer and its clock, its token and
//! what the token allows. For people; flows go on without it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use reqwest::header::DATE;
use serde_json::Value as Json;

use super::auth::Auth;
use super::conn::Conn;
use super::wire::{self, Stage};
use crate::clock::Clock;
use crate::engine::Outcome;

/// The longest that one question takes.
const LIMIT: Duration = Duration::from_secs(20);

/// What was found; an error says why not.
#[derive(Clone, Debug)]
pub struct Examined {
    /// Host and port; an address that is a secret is told without its path.
    pub place: String,
    pub addresses: Result<Vec<IpAddr>, String>,
    /// How far its clock is ahead of ours, in seconds, where it tells; it answered.
    pub answers: Result<Option<i64>, String>,
    /// `None` where it is no token of Entra that opens it.
    pub token: Option<Result<Held, String>>,
}

/// What is in a token of Entra.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    pub application: String,
    pub audience: String,
    pub roles: BTreeSet<String>,
    pub ends: Option<Timestamp>,
}

/// Asks the name service, the service and the authority. A mail server is greeted and signed in to; of any other service the
/// root is asked for, without a credential. Nothing is sent that changes anything.
pub(super) async fn examine(conn: &Conn, stage: &Stage, clock: &Clock) -> Examined {
    let (host, port) = conn.place();
    let found = tokio::time::timeout(LIMIT, tokio::net::lookup_host((host.as_str(), port))).await;
    let addresses = match found {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect::<BTreeSet<_>>().into_iter().collect()),
        Ok(Err(error)) => Err(format!("the name {host} does not resolve: {error}")),
        Err(_) => Err(format!("the name {host} is not answered within {} s", LIMIT.as_secs())),
    };
    let token = match conn.auth() {
        Auth::Entra(_) => Some(
            conn.auth()
                .ticket()
                .await
                .map_err(|outcome| said(conn, outcome))
                .map(|ticket| ticket.token.as_deref().and_then(read).unwrap_or_default()),
        ),
        Auth::None | Auth::Fixed(_) => None,
    };
    let answers = match (&addresses, &token) {
        (Err(_), _) => Err("it was not asked, since its name does not resolve".to_owned()),
        // A mail server is signed in to, which takes the token.
        (_, Some(Err(_))) if conn.mailer.is_some() => Err("it was not asked, since there is no token".to_owned()),
        _ => answers(conn, stage, clock).await,
    };
    Examined { place: format!("{host}:{port}"), addresses, answers, token }
}

async fn answers(conn: &Conn, stage: &Stage, clock: &Clock) -> Result<Option<i64>, String> {
    if let Some(mailer) = &conn.mailer {
        let reached = tokio::time::timeout(LIMIT, mailer.reach(stage)).await;
        return match reached {
            Ok(reached) => reached.map(|()| None).map_err(|outcome| said(conn, outcome)),
            Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
        };
    }
    let mut url = conn.base().map_err(|outcome| said(conn, outcome))?.clone();
    url.set_path("/");
    url.set_query(None);
    let host = url.host_str().unwrap_or("the service").to_owned();
    let response = conn.http().head(url).timeout(LIMIT).send().await;
    let response = response.map_err(|error| said(conn, wire::failure(&error, &host)))?;
    let date = response.headers().get(DATE).and_then(|value| value.to_str().ok());
    let date = date.and_then(|text| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok());
    Ok(date.map(|date| date.duration_since(clock.now()).as_secs()))
}

fn said(conn: &Conn, outcome: Outcome) -> String {
    match conn.scrub(outcome) {
        Outcome::NotSent { message, .. } | Outcome::Unknown { message, .. } | Outcome::Refused { message, .. } => {
            message
        }
        Outcome::Done { .. } => String::new(),
    }
}

/// Reads the claims of a token. Nobody but the service that it is for can tell whether they are true, and it is not for us to
/// judge: it tells people what was granted.
fn read(token: &str) -> Option<Held> {
    let claims = token.split('.').nth(1)?;
    let claims: Json = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let text = |key: &str| claims.get(key).and_then(Json::as_str).map(|text| super::answer::clean(text, 200));
    let roles = claims.get("roles").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    Some(Held {
        application: text("appid").or_else(|| text("azp")).unwrap_or_default(),
        audience: text("aud").unwrap_or_default(),
        roles: roles.iter().filter_map(|role| Some(super::answer::clean(role.as_str()?, 100))).collect(),
        ends: claims.get("exp").and_then(Json::as_i64).and_then(|second| Timestamp::from_second(second).ok()),
    })
}
