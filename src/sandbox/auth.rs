//! Tokens: what they are for and what is in them, the endpoints of managed identities, and what each service says to a bad
//! token. Not here: the token endpoint of Entra (`token`).

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
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
/// What the identity endpoint of App Service wants in its header.
pub const IDENTITY_HEADER: &str = "sandbox-identity-header";

/// Who asks for a token: decides what a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Mde,
    Graph,
    CloudApps,
    /// Resource Manager.
    Azure,
    /// The query API of Azure Monitor.
    Logs,
}

/// Mail over SMTP, and vaults.
const MAIL: &str = "https://outlook.office365.com";
pub(super) const VAULT: &str = "https://vault.azure.net";
const CLOUD_APPS: &str = "05a65629-4c1b-48c1-a78b-804c4abdd4af";

/// The service of a resource or scope.
fn service_of(resource: &str) -> Option<Service> {
    Some(match resource.trim_end_matches('/') {
        "https://api.securitycenter.microsoft.com"
        | "https://api.security.microsoft.com"
        | "https://securitycenter.onmicrosoft.com/windowsatpservice" => Service::Mde,
        "https://graph.microsoft.com" => Service::Graph,
        CLOUD_APPS => Service::CloudApps,
        "https://management.azure.com" => Service::Azure,
        "https://api.loganalytics.io" => Service::Logs,
        _ => return None,
    })
}

/// What there are tokens for.
pub(super) fn is_resource(resource: &str) -> bool {
    service_of(resource).is_some() || matches!(resource.trim_end_matches('/'), MAIL | VAULT)
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
    if !is_resource(resource) {
        return refuse("invalid_resource", "AADSTS500011: the resource was not found; it carries no '/.default' here");
    }
    if call.param("client_id").is_some_and(|client| client != CLIENT_ID) {
        return refuse("invalid_request", "Identity not found");
    }
    let now = world.clock.now();
    let access = mint(world, state, resource, CLIENT_ID, now);
    let seconds = world.settings.token_lifetime.as_secs();
    let expires = now.as_second() + seconds;
    Answer::ok(json!({
        "access_token": access, "refresh_token": "", "expires_in": seconds.to_string(),
        "expires_on": expires.to_string(), "not_before": now.as_second().to_string(), "resource": resource,
        "token_type": "Bearer"
    }))
}

/// `GET /msi/token`: the endpoint of App Service, Functions and Container Apps. It tells only when a token ends.
pub(super) fn app_service_identity(world: &World, state: &mut State, call: &Call) -> Answer {
    let refuse = |status, text: &str| Answer::new(status, json!({"statusCode": status, "message": text}));
    if call.identity.as_deref() != Some(IDENTITY_HEADER) {
        return refuse(401, "the header X-IDENTITY-HEADER is missing or wrong");
    }
    let resource = call.param("resource").unwrap_or("");
    if call.param("api-version") != Some("2019-08-01") || !is_resource(resource) {
        return refuse(400, "the resource or the api-version is not known");
    }
    if call.param("client_id").is_some_and(|client| client != CLIENT_ID) {
        return refuse(400, "No User Assigned or Delegated Managed Identity found for specified ClientId");
    }
    let now = world.clock.now();
    let expires = now.as_second() + world.settings.token_lifetime.as_secs();
    let access = mint(world, state, resource, CLIENT_ID, now);
    Answer::ok(json!({
        "access_token": access, "expires_on": expires.to_string(), "resource": resource, "token_type": "Bearer",
        "client_id": CLIENT_ID
    }))
}

/// A token as Entra makes them: a JWT whose claims anybody can read.
pub(super) fn mint(world: &World, state: &mut State, resource: &str, client: &str, now: Timestamp) -> String {
    let mut draw = Seed::new(world.plan.seed ^ state.tokens.len() as u64, "token");
    let expires = now.checked_add(world.settings.token_lifetime).unwrap_or(now);
    let roles = roles(world, state, resource, client);
    let mut claims = json!({
        "aud": resource, "iss": format!("https://sts.windows.net/{TENANT}/"), "tid": TENANT, "appid": client,
        "iat": now.as_second(), "nbf": now.as_second(), "exp": expires.as_second(), "uti": draw.hex(22), "ver": "1.0",
    });
    // What an application may do in Azure is a role on the workspace, which the service asks and no token tells.
    let azure = matches!(service_of(resource), Some(Service::Azure | Service::Logs));
    let some = if azure { client != CLIENT_WITHOUT_ROLES } else { !roles.is_empty() };
    if let (false, Some(members)) = (roles.is_empty(), claims.as_object_mut()) {
        members.insert("roles".to_owned(), json!(roles));
    }
    let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
    let header = encode(json!({"typ": "JWT", "alg": "RS256"}).to_string());
    let access = format!("{header}.{}.{}", encode(claims.to_string()), draw.hex(64));
    state.tokens.insert(
        access.clone(),
        Token { audience: resource.to_owned(), expires, roles: some, reads_vaults: client != CLIENT_WITHOUT_ROLES },
    );
    access
}

/// The application permissions that were granted: those of all actions of the service, unless somebody set others.
fn roles(world: &World, state: &State, resource: &str, client: &str) -> BTreeSet<String> {
    if client == CLIENT_WITHOUT_ROLES {
        return BTreeSet::new();
    }
    let azure = matches!(service_of(resource), Some(Service::Azure | Service::Logs));
    if let (Some(roles), false) = (&state.roles, azure) {
        return roles.clone();
    }
    let connectors: &[&str] = match service_of(resource) {
        Some(Service::Mde) => &["mde"],
        Some(Service::Graph) => &["xdr", "entra", "exchange"],
        Some(Service::CloudApps) => &["cloud_apps"],
        Some(Service::Azure | Service::Logs) => return BTreeSet::new(),
        None if resource == MAIL => return BTreeSet::from(["SMTP.SendAsApp".to_owned()]),
        // A vault asks its own policies, not the token.
        None => return BTreeSet::new(),
    };
    let actions = world.catalog.actions.values().filter(|action| connectors.contains(&action.connector()));
    actions.map(|action| action.permission.to_string()).collect()
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
