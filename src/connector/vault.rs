//! Reads the secrets that are in Azure Key Vault, before anything is opened that needs them.
//!
//! Facts: learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret, …/azure/key-vault/general/rest-error-codes,
//! …/azure/key-vault/secrets/about-secrets (an expired secret is still answered; its end is for people to know).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use reqwest::StatusCode;
use serde_json::Value as Json;

use super::auth::Auth;
use super::redact::Scrubber;
use super::{answer, conn, wire};
use crate::clock::Clock;
use crate::config::vault::{KeyVault, Vaulted};
use crate::config::{Config, Secret, SecretRef};
use crate::engine::Outcome;
use crate::error::Error;

const API_VERSION: &str = "7.4";
/// A secret has 25 kB at most.
const LARGEST: usize = 128 << 10;
/// What passes is tried again so often, after a pause that grows.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(30);

/// Why a secret was not had; what passes may be tried again.
struct Fault {
    message: String,
    passing: bool,
}

/// Reads every secret of the configuration that is in a vault and was not read yet. The errors are all that are wrong.
/// Reading changes nothing, so it needs no permit.
pub async fn read(config: &Config, clock: &Clock) -> Result<(), Vec<Error>> {
    let places = config.secrets();
    let wanted: Vec<&Arc<Vaulted>> = places
        .iter()
        .filter_map(|(_, secret)| match secret {
            SecretRef::Vault(vaulted) if vaulted.secret().is_none() => Some(vaulted),
            _ => None,
        })
        .collect();
    let vaults = config.key_vaults.iter().filter(|(name, _)| wanted.iter().any(|it| it.vault == **name));
    let each = vaults.map(|(name, vault)| {
        let wanted: Vec<&Vaulted> = wanted.iter().filter(|it| it.vault == *name).map(|it| &***it).collect();
        Box::pin(read_vault(name, vault, wanted, clock))
    });
    let faults: Vec<Error> = join_all(each).await.into_iter().flatten().collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

async fn read_vault(name: &Arc<str>, vault: &KeyVault, wanted: Vec<&Vaulted>, clock: &Clock) -> Vec<Error> {
    let scope = vault.entra.scope.clone().unwrap_or_else(|| {
        let (_, resource) = vault.entra.cloud.endpoints().vault;
        format!("{resource}/.default")
    });
    let local = vault.url.starts_with("http://") && vault.entra.authority.starts_with("http://");
    let opened = conn::client(!local, name).and_then(|http| {
        let mut scrubber = Scrubber::default();
        let (name, secret) = (format!("key vault {name}").into(), &mut |secret: &str| scrubber.add(secret));
        let auth = Auth::entra(&name, &vault.entra, scope, &http, clock, secret)?;
        Ok((http, auth, scrubber))
    });
    let (http, auth, scrubber) = match opened {
        Ok(opened) => opened,
        Err(error) => return vec![error],
    };
    let mut faults = vec![];
    for vaulted in wanted {
        if let Err(fault) = again(&http, &auth, vault, vaulted).await {
            let message = format!(
                "reading the secret {vaulted} from the key vault {}: {}",
                vault.url,
                scrubber.text(fault.message)
            );
            faults.push(if fault.passing { Error::unavailable(message) } else { Error::config(message) });
        }
    }
    faults
}

async fn again(http: &reqwest::Client, auth: &Auth, vault: &KeyVault, vaulted: &Vaulted) -> Result<(), Fault> {
    let mut tried = 1;
    loop {
        match once(http, auth, vault, vaulted).await {
            Err(fault) if fault.passing && tried < TRIES => tokio::time::sleep(PAUSE * tried).await,
            done => return done,
        }
        tried += 1;
    }
}

async fn once(http: &reqwest::Client, auth: &Auth, vault: &KeyVault, vaulted: &Vaulted) -> Result<(), Fault> {
    let ticket = auth.ticket().await.map_err(|outcome| told(&outcome))?;
    let mut url = format!("{}/secrets/{}", vault.url, vaulted.name);
    if let Some(version) = &vaulted.version {
        url = format!("{url}/{version}");
    }
    let mut request = http.get(url).query(&[("api-version", API_VERSION)]).timeout(LIMIT);
    if let Some((name, value)) = &ticket.header {
        request = request.header(name, value);
    }
    let response = request.send().await.map_err(|error| told(&wire::failure(&error, &vault.url)))?;
    let status = response.status();
    let body = wire::read(response, LARGEST).await;
    let body = body.map_err(|_| Fault { message: "its answer broke off".into(), passing: true })?;
    if status != StatusCode::OK {
        return Err(refused(status, &body));
    }
    let json = serde_json::from_slice::<Json>(&body).unwrap_or_default();
    let Some(value) = json.get("value").and_then(Json::as_str).filter(|value| !value.is_empty()) else {
        return Err(Fault { message: "it answered without a value".into(), passing: false });
    };
    let expires = json.pointer("/attributes/exp").and_then(Json::as_i64);
    let expires = expires.and_then(|second| Timestamp::from_second(second).ok());
    vaulted.keep(Secret::new(value.trim_end_matches(['\n', '\r']).to_owned()), expires);
    Ok(())
}

fn told(outcome: &Outcome) -> Fault {
    match outcome {
        Outcome::NotSent { message, transient, .. } => Fault { message: message.clone(), passing: *transient },
        Outcome::Unknown { message, .. } | Outcome::Refused { message, .. } => {
            Fault { message: message.clone(), passing: true }
        }
        Outcome::Done { .. } => Fault { message: "no answer".into(), passing: true },
    }
}

/// What an administrator must do about a refusal.
fn refused(status: StatusCode, body: &[u8]) -> Fault {
    let json = serde_json::from_slice::<Json>(body).unwrap_or_default();
    let inner = json.pointer("/error/innererror/code").and_then(Json::as_str).unwrap_or("");
    let todo = match (status.as_u16(), inner) {
        (401, _) => "the token is not for this vault: check that the identity is of the vault's tenant, and cloud",
        (403, "SecretDisabled") => "enable the secret: Secrets > the secret > its version > Enabled",
        (403, "ForbiddenByFirewall" | "ForbiddenByConnection") => {
            "let this machine's address in: Networking of the vault, or a private endpoint"
        }
        (403, _) => {
            "give the identity the role Key Vault Secrets User on the vault (Access control), or Get for secrets in its access \
             policies"
        }
        (404, _) => "there is no such secret, or no such version; check the name",
        (429, _) => "the vault is throttled; it is asked again",
        (500.., _) => "the vault failed; it is asked again",
        _ => "see its message",
    };
    let said = answer::said(body);
    let said = [said.code, said.message].into_iter().flatten().collect::<Vec<_>>().join(": ");
    let passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    Fault { message: format!("{todo} ({} {})", status.as_u16(), answer::clean(&said, 300)), passing }
}
