//! Tokens: the Entra token endpoint, the managed identity endpoint, and what each service says to a bad token.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::call::{Answer, Call};
use super::seed::Seed;
use super::state::{State, Token, World};
use super::world::TENANT;

/// The application that the tenant knows, and its secret.
pub const CLIENT_ID: &str = "66666666-7777-8888-9999-000000000000";
pub const CLIENT_SECRET: &str = "sandbox-client-secret";
/// An application without any permission: its tokens are good and every call answers 403.
pub const CLIENT_WITHOUT_ROLES: &str = "66666666-7777-8888-9999-000000000403";
/// The Cloud Apps API token.
pub const API_TOKEN: &str = "sandbox-api-token";

/// Who asks for a token: decides what a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Mde,
    Graph,
    CloudApps,
}

const CLOUD_APPS: &str = "05a65629-4c1b-48c1-a78b-804c4abdd4af";

/// The service of a resource or scope.
fn service_of(resource: &str) -> Option<Service> {
    Some(match resource.trim_end_matches('/') {
        "https://api.securitycenter.microsoft.com"
        | "https://api.security.microsoft.com"
        | "https://securitycenter.onmicrosoft.com/windowsatpservice" => Service::Mde,
        "https://graph.microsoft.com" => Service::Graph,
        CLOUD_APPS => Service::CloudApps,
        _ => return None,
    })
}

/// `POST /{tenant}/oauth2/v2.0/token`
pub(super) fn token(world: &World, state: &mut State, call: &Call, tenant: &str) -> Answer {
    let form = call.form();
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let now = world.clock.now();
    let refuse = |number, error: &str, text: &str| refusal(now, number, error, text);
    if tenant == "common" || tenant == "organizations" {
        return refuse(90_130, "invalid_request", "Application is not supported over the /common endpoint.");
    }
    for name in ["grant_type", "client_id", "scope"] {
        if field(name).is_none_or(str::is_empty) {
            let text = format!("The request body must contain the following parameter: '{name}'.");
            return refuse(900_144, "invalid_request", &text);
        }
    }
    if field("grant_type") != Some("client_credentials") {
        return refuse(70_003, "unsupported_grant_type", "The app requested an unsupported grant type.");
    }
    let client = field("client_id").unwrap_or("");
    if client != CLIENT_ID && client != CLIENT_WITHOUT_ROLES {
        return refuse(700_016, "unauthorized_client", "Application was not found in the directory.");
    }
    match field("client_secret") {
        None => {
            return refuse(
                7_000_218,
                "invalid_client",
                "The request body must contain client_assertion or client_secret.",
            );
        }
        Some("sandbox-expired-secret") => return refuse(7_000_222, "invalid_client", "The client secret is expired."),
        Some(CLIENT_SECRET) => {}
        Some(_) => return refuse(7_000_215, "invalid_client", "Invalid client secret provided."),
    }
    let scope = field("scope").unwrap_or("");
    let Some(resource) = scope.strip_suffix("/.default") else {
        return refuse(70_011, "invalid_scope", "The provided value for the input parameter 'scope' is not valid.");
    };
    if resource.contains(' ') {
        return refuse(28_002, "invalid_scope", "Several resources are named in 'scope'.");
    }
    if service_of(resource).is_none() {
        return refuse(500_011, "invalid_resource", "The resource principal was not found in the tenant.");
    }
    let seconds = world.settings.token_lifetime.as_secs();
    let access = mint(world, state, resource, client == CLIENT_ID, now);
    Answer::ok(json!({
        "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": access
    }))
}

/// `GET /metadata/identity/oauth2/token`: numbers come as text.
pub(super) fn managed_identity(world: &World, state: &mut State, call: &Call) -> Answer {
    let refuse = |code: &str, text: &str| Answer::new(400, json!({"error": code, "error_description": text}));
    if !call.metadata {
        return refuse("bad_request_102", "Required metadata header not specified");
    }
    if call.param("api-version").is_none() {
        return refuse("bad_request_103", "Required parameter api-version is missing");
    }
    let resource = call.param("resource").unwrap_or("");
    if service_of(resource).is_none() {
        return refuse("invalid_resource", "AADSTS500011: the resource was not found; it carries no '/.default' here");
    }
    let now = world.clock.now();
    let access = mint(world, state, resource, true, now);
    let seconds = world.settings.token_lifetime.as_secs();
    let expires = now.as_second() + seconds;
    Answer::ok(json!({
        "access_token": access, "refresh_token": "", "expires_in": seconds.to_string(),
        "expires_on": expires.to_string(), "not_before": now.as_second().to_string(), "resource": resource,
        "token_type": "Bearer"
    }))
}

fn mint(world: &World, state: &mut State, resource: &str, roles: bool, now: Timestamp) -> String {
    let mut draw = Seed::new(world.plan.seed ^ state.tokens.len() as u64, "token");
    let access = format!("eyJ0eXAiOiJKV1QifQ.{}.{}", draw.hex(64), draw.hex(32));
    let expires = now.checked_add(world.settings.token_lifetime).unwrap_or(now);
    state.tokens.insert(access.clone(), Token { audience: resource.to_owned(), expires, roles });
    access
}

/// What a call with these credentials gets before it is looked at; `None` lets it pass.
pub(super) fn gate(world: &World, state: &State, call: &Call, service: Service) -> Option<Answer> {
    let header = call.authorization.as_deref().unwrap_or("");
    if service == Service::CloudApps && header == format!("Token {API_TOKEN}") {
        return None;
    }
    let unauthorized = |text: &str| {
        let code = if service == Service::Graph { "InvalidAuthenticationToken" } else { "Unauthorized" };
        Some(Answer::error(401, code, text))
    };
    let Some(token) = header.strip_prefix("Bearer ").and_then(|token| state.tokens.get(token)) else {
        return unauthorized("the access token is missing or invalid");
    };
    if service_of(&token.audience) != Some(service) {
        return unauthorized("the access token was issued for another audience");
    }
    if token.expires <= world.clock.now() {
        return unauthorized("the lifetime of the access token has ended");
    }
    if !token.roles {
        return Some(Answer::error(403, "Forbidden", "the application has none of the permissions that this needs"));
    }
    None
}

fn refusal(now: Timestamp, number: u64, error: &str, text: &str) -> Answer {
    // Failed authentication of the client is a 401, everything else a 400.
    let status = if error == "invalid_client" { 401 } else { 400 };
    let stamp = now.checked_sub(SignedDuration::from_nanos(i64::from(now.subsec_nanosecond()))).unwrap_or(now);
    let trace = "0000aaaa-11bb-cccc-dd22-eeeeee333333";
    Answer::new(
        status,
        json!({
            "error": error,
            "error_description": format!("AADSTS{number}: {text}\r\nTrace ID: {trace}\r\nTimestamp: {stamp}"),
            "error_codes": [number],
            "timestamp": stamp.to_string(),
            "trace_id": trace,
            "correlation_id": TENANT,
            "error_uri": format!("https://login.microsoftonline.com/error?code={number}"),
        }),
    )
}
