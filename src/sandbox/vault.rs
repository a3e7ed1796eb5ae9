//! A key vault: secrets with versions, who may read them, and the documented refusals.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::auth::VAULT;
use super::call::{Answer, Call};
use super::seed::Seed;
use super::state::{State, World};

/// What `POST /_sandbox/secret` sets: a new version of a secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Version {
    name: String,
    value: String,
    #[serde(default)]
    expires: Option<Timestamp>,
    #[serde(default)]
    disabled: bool,
    #[serde(skip)]
    id: String,
    #[serde(skip)]
    created: Timestamp,
}

/// Versions by the secret's name in lower case, the newest last.
pub(super) type Secrets = BTreeMap<String, Vec<Version>>;

pub(super) fn set(world: &World, body: &[u8]) -> Result<(), String> {
    let mut version: Version = serde_json::from_slice(body).map_err(|error| format!("reading the secret: {error}"))?;
    let mut state = world.state();
    let before = state.secrets.entry(version.name.to_lowercase()).or_default();
    version.id = Seed::new(before.len() as u64, &version.name).hex(32);
    version.created = world.clock.now();
    before.push(version);
    Ok(())
}

/// `GET /secrets/{name}[/{version}]?api-version=7.4`
pub(super) fn answer(world: &World, state: &State, call: &Call, path: &[&str]) -> Answer {
    let now = world.clock.now();
    let token = call.authorization.as_deref().and_then(|header| header.strip_prefix("Bearer "));
    let Some(token) = token.and_then(|token| state.tokens.get(token)) else {
        return refuse(401, "Unauthorized", None, "[BearerReadAccessTokenFailed] Error validating token");
    };
    if token.audience.trim_end_matches('/') != VAULT || token.expires <= now {
        return refuse(401, "Unauthorized", None, "AKV10022: Invalid audience, or the token has ended");
    }
    if !token.reads_vaults {
        let text = "Caller is not authorized to perform action on resource. Action: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'";
        return refuse(403, "Forbidden", Some("ForbiddenByRbac"), text);
    }
    if call.param("api-version").is_none() {
        return refuse(400, "BadParameter", None, "api-version is missing");
    }
    let (name, version) = match path {
        [name] => (*name, None),
        [name, version] => (*name, Some(*version)),
        _ => return refuse(404, "NotFound", None, "no such route"),
    };
    let versions = state.secrets.get(&name.to_lowercase()).map_or(&[][..], Vec::as_slice);
    let found = match version {
        Some(id) => versions.iter().find(|version| version.id == id),
        None => versions.last(),
    };
    let Some(found) = found else {
        let text = format!("A secret with (name/id) {name} was not found in this key vault.");
        return refuse(404, "SecretNotFound", None, &text);
    };
    if found.disabled {
        let text = "Operation get is not allowed on a disabled secret.";
        return refuse(403, "Forbidden", Some("SecretDisabled"), text);
    }
    let created = found.created.as_second();
    let mut attributes = json!({
        "enabled": true, "created": created, "updated": created, "recoveryLevel": "Recoverable+Purgeable",
    });
    if let (Some(expires), Some(members)) = (found.expires, attributes.as_object_mut()) {
        members.insert("exp".to_owned(), json!(expires.as_second()));
    }
    let id = format!("{VAULT}/secrets/{}/{}", found.name, found.id);
    Answer::ok(json!({ "value": found.value, "id": id, "attributes": attributes }))
}

fn refuse(status: u16, code: &str, inner: Option<&str>, text: &str) -> Answer {
    let mut error = json!({ "code": code, "message": text });
    if let (Some(inner), Json::Object(members)) = (inner, &mut error) {
        members.insert("innererror".to_owned(), json!({ "code": inner }));
    }
    Answer::new(status, json!({ "error": error }))
}
