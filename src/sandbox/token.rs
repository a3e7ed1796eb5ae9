//! The token endpoint of Entra: who may have a token for what, and why not.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::auth::{self, CLIENT_ID, CLIENT_SECRET, CLIENT_WITHOUT_ROLES};
use super::call::{Answer, Call};
use super::state::{State, World};
use super::world::TENANT;

/// Applications in a state that the endpoint refuses: the id ends in the number of the refusal.
const REFUSED: &str = "66666666-7777-8888-9999-9";
/// A passing failure has passed after so many requests.
const PASSES: u32 = 2;
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An application that gets `AADSTS{number}`, always, or twice where the failure is a passing one.
pub fn client_refused_with(number: u64) -> String {
    format!("{REFUSED}{number:011}")
}

/// `POST /{tenant}/oauth2/v2.0/token`
pub(super) fn answer(world: &World, state: &mut State, call: &Call, tenant: &str) -> Answer {
    let now = world.clock.now();
    match grant(state, call, tenant, now) {
        Ok((client, resource)) => {
            let seconds = world.settings.token_lifetime.as_secs();
            let access = auth::mint(world, state, &resource, &client, now);
            Answer::ok(json!({
                "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": access
            }))
        }
        Err((number, text)) => refusal(now, number, &text),
    }
}

/// Checks in the order in which Entra does: the tenant, the form, the application, its proof, what it asks for.
fn grant(state: &mut State, call: &Call, tenant: &str, now: Timestamp) -> Result<(String, String), (u64, String)> {
    let refuse = |number: u64, text: &str| Err((number, text.to_owned()));
    let form = call.form();
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    if tenant == "common" || tenant == "organizations" {
        return refuse(90_130, "Application is not supported over the /common endpoint.");
    }
    if tenant != TENANT {
        return Err((
            90_002,
            format!("Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID."),
        ));
    }
    if let Some(name) = ["grant_type", "client_id", "scope"].into_iter().find(|name| field(name).is_empty()) {
        return Err((900_144, format!("The request body must contain the following parameter: '{name}'.")));
    }
    if field("grant_type") != "client_credentials" {
        return refuse(70_003, "The app requested an unsupported grant type.");
    }
    let client = field("client_id");
    if let Some(number) = client.strip_prefix(REFUSED).and_then(|digits| digits.parse::<u64>().ok()) {
        let times = state.refused.entry(number).or_default();
        *times += 1;
        if *times <= PASSES || !passes(number) {
            return refuse(number, "the application is in the state that this number tells of");
        }
    } else if client != CLIENT_ID && client != CLIENT_WITHOUT_ROLES {
        return Err((700_016, format!("Application with identifier '{client}' was not found in the directory.")));
    }
    match (field("client_secret"), field("client_assertion")) {
        ("", "") => {
            return refuse(
                7_000_218,
                "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
            );
        }
        ("", assertion) if field("client_assertion_type") == JWT_BEARER => {
            state.trust.check(assertion, client, &call.url, now)?;
        }
        ("sandbox-expired-secret", "") => return refuse(7_000_222, "The provided client secret keys are expired."),
        (CLIENT_SECRET, "") => {}
        _ => return refuse(7_000_215, "Invalid client secret provided."),
    }
    let scope = field("scope");
    if scope.contains(' ') {
        return refuse(700_022, "The provided value for scope contains more than one resource.");
    }
    let Some(resource) = scope.strip_suffix("/.default") else {
        return refuse(70_011, "The provided value for the input parameter 'scope' is not valid.");
    };
    if !auth::is_resource(resource) {
        return Err((500_011, format!("The resource principal named {resource} was not found in the tenant.")));
    }
    Ok((client.to_owned(), resource.to_owned()))
}

/// Failures of the service, not of the application.
fn passes(number: u64) -> bool {
    matches!(number, 90_006 | 90_012 | 90_024 | 90_033 | 90_055 | 90_090 | 50_196)
}

fn refusal(now: Timestamp, number: u64, text: &str) -> Answer {
    let (status, error) = match number {
        7_000_215 | 7_000_218 | 7_000_222 | 700_021 | 700_023 | 700_024 | 700_027 | 700_030 | 50_012 | 50_027 => {
            (401, "invalid_client")
        }
        700_016 | 7_000_112 | 70_001 => (400, "unauthorized_client"),
        500_011 | 50_001 | 650_057 => (400, "invalid_resource"),
        70_011 | 28_002 | 700_022 => (400, "invalid_scope"),
        70_003 => (400, "unsupported_grant_type"),
        65_001 | 53_003 | 90_094 => (400, "interaction_required"),
        number if passes(number) => (503, "temporarily_unavailable"),
        _ => (400, "invalid_request"),
    };
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
