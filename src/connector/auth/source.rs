//! Where a token comes from: the request that asks for one, by each kind of proof. Nothing is sent here.
//!
//! Machines: learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token (the instance
//! metadata service), learn.microsoft.com/azure/app-service/overview-managed-identity (App Service, Functions, Container
//! Apps). Federation: learn.microsoft.com/entra/workload-id/workload-identity-federation.

use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use reqwest::{Client, RequestBuilder, Url};
use tokio::io::AsyncReadExt as _;

use super::not_sent;
use crate::config::{Entra, Proof, Secret, SecretRef};
use crate::connector::assertion::Signer;
use crate::engine::Outcome;
use crate::error::Error;

const METADATA: &str = "http://169.254.169.254";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// A federated token is a few kilobytes.
const LARGEST: u64 = 64 << 10;

/// The token endpoint of a tenant, or of a machine.
pub(super) struct Source {
    url: String,
    client_id: String,
    scope: String,
    proof: Proven,
}

enum Proven {
    Secret(Secret),
    Certificate(Box<Signer>),
    /// Read again for each request: whoever issues it renews the file.
    Federated(PathBuf),
    Metadata,
    /// The secret header of App Service and its kin.
    Service(Secret),
}

impl Source {
    /// Reads the secrets; `secret` is told those that go over the wire.
    pub(super) fn open(
        name: &str,
        entra: &Entra,
        scope: String,
        secret: &mut dyn FnMut(&str),
    ) -> Result<Source, Error> {
        let config = |why: String| Error::config(format!("connection {name}: {why}"));
        let read = |reference: &SecretRef| {
            reference.resolve().map_err(|error| config(format!("its credential can't be read: {error}")))
        };
        let authority = format!("{}/{}/oauth2/v2.0/token", entra.authority.trim_end_matches('/'), entra.tenant_id);
        let (url, proof) = match &entra.proof {
            Proof::Secret(reference) => {
                let found = read(reference)?;
                secret(found.expose());
                (authority, Proven::Secret(found))
            }
            Proof::Certificate { certificate, key } => {
                let text = read(certificate)?;
                let key = key.as_ref().map(read).transpose()?;
                let key = key.as_ref().unwrap_or(&text);
                let signer = Signer::from_pem(text.expose(), key.expose());
                let signer = signer.map_err(|why| config(format!("its certificate can't be used: {why}")))?;
                (authority, Proven::Certificate(Box::new(signer)))
            }
            Proof::Federated { token_file } => {
                let named =
                    token_file.clone().or_else(|| std::env::var_os("AZURE_FEDERATED_TOKEN_FILE").map(Into::into));
                let file = named.ok_or_else(|| {
                    config("AZURE_FEDERATED_TOKEN_FILE is not set".into()).help(
                        "the webhook of workload identity sets it in pods with the label azure.workload.identity/use: \"true\"; \
                         elsewhere name the file with token_file",
                    )
                })?;
                (authority, Proven::Federated(file))
            }
            Proof::ManagedIdentity { endpoint } => {
                let resource = scope.strip_suffix("/.default").unwrap_or(&scope);
                let (url, proof) = machine(endpoint.as_deref(), resource, &entra.client_id).map_err(config)?;
                if let Proven::Service(header) = &proof {
                    secret(header.expose());
                }
                (url, proof)
            }
        };
        Ok(Source { url, client_id: entra.client_id.clone(), scope, proof })
    }

    /// Whether the machine answers, and not Entra.
    pub(super) fn is_machine(&self) -> bool {
        matches!(self.proof, Proven::Metadata | Proven::Service(_))
    }

    /// When the certificate ends.
    pub(super) fn not_after(&self) -> Option<Timestamp> {
        match &self.proof {
            Proven::Certificate(signer) => Some(signer.not_after),
            _ => None,
        }
    }

    /// The request for a token; `now` is the authority's time, as far as it is known.
    pub(super) async fn request(&self, http: &Client, now: Timestamp) -> Result<RequestBuilder, Outcome> {
        let asserted = |assertion: &str| {
            self.form(http, &[("client_assertion_type", JWT_BEARER), ("client_assertion", assertion)])
        };
        Ok(match &self.proof {
            Proven::Secret(secret) => self.form(http, &[("client_secret", secret.expose())]),
            Proven::Certificate(signer) => {
                let assertion = signer.assertion(&self.client_id, &self.url, now);
                let failed = || not_sent("token", "signing the assertion with the certificate's key failed", false);
                asserted(&assertion.ok_or_else(failed)?)
            }
            Proven::Federated(file) => {
                let token = federated(file).await.map_err(|why| {
                    let message = format!("reading the federated token in {}: {why}", file.display());
                    not_sent("token", &message, true)
                })?;
                asserted(&token)
            }
            Proven::Metadata => http.get(&self.url).header("Metadata", "true"),
            Proven::Service(header) => http.get(&self.url).header("X-IDENTITY-HEADER", header.expose()),
        })
    }

    fn form(&self, http: &Client, proof: &[(&str, &str)]) -> RequestBuilder {
        let known = [("grant_type", "client_credentials"), ("client_id", &self.client_id), ("scope", &self.scope)];
        let form: Vec<(&str, &str)> = known.into_iter().chain(proof.iter().copied()).collect();
        http.post(&self.url).form(&form)
    }
}

async fn federated(file: &std::path::Path) -> Result<String, String> {
    let mut text = String::new();
    let opened = tokio::fs::File::open(file).await.map_err(|error| error.to_string())?;
    opened.take(LARGEST).read_to_string(&mut text).await.map_err(|error| error.to_string())?;
    let token = text.trim();
    if token.split('.').count() != 3 {
        return Err("it holds no JWT".into());
    }
    Ok(token.to_owned())
}

/// The endpoint of the machine that this is. Where the environment names one, as in App Service, it wins over the instance
/// metadata service; what the configuration names wins over both.
fn machine(configured: Option<&str>, resource: &str, client_id: &str) -> Result<(String, Proven), String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let service = match configured {
        Some(_) => None,
        None => variable("IDENTITY_ENDPOINT"),
    };
    let (base, version, proof) = match (service, variable("IDENTITY_HEADER")) {
        (Some(endpoint), Some(header)) => (local(&endpoint)?, "2019-08-01", Proven::Service(Secret::new(header))),
        (Some(_), None) => {
            return Err(
                "IDENTITY_ENDPOINT is set without IDENTITY_HEADER, as on Azure Arc, whose identities are not supported; \
                 use a certificate"
                    .into(),
            );
        }
        (None, _) => {
            let base = configured.unwrap_or(METADATA).trim_end_matches('/');
            (format!("{base}/metadata/identity/oauth2/token"), "2018-02-01", Proven::Metadata)
        }
    };
    let query = [("api-version", version), ("resource", resource), ("client_id", client_id)];
    let query = query.iter().filter(|(_, value)| !value.is_empty());
    let url = Url::parse_with_params(&base, query).map_err(|error| format!("the identity endpoint {base}: {error}"))?;
    Ok((url.into(), proof))
}

/// The platform's endpoint is on this machine; a secret header goes nowhere else.
fn local(endpoint: &str) -> Result<String, String> {
    let url = Url::parse(endpoint).map_err(|_| "IDENTITY_ENDPOINT is no URL".to_owned())?;
    let host = url.host_str().unwrap_or("").trim_matches(['[', ']']);
    let near = host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|ip| match ip {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_loopback(),
        });
    if !near {
        return Err(format!("IDENTITY_ENDPOINT leads to {host}, which is not on this machine; it is not asked"));
    }
    Ok(endpoint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platforms_identity_is_on_this_machine() {
        for near in [
            "http://localhost:4141/msi/token",
            "http://127.0.0.1:42356/msi/token",
            "http://169.254.129.2:8081/msi/token",
        ] {
            assert_eq!(local(near).as_deref(), Ok(near));
        }
        for far in
            ["http://10.0.0.4/msi/token", "https://evil.example/msi/token", "http://localhost.evil.example/", "x"]
        {
            assert!(local(far).is_err(), "{far}");
        }
    }
}
