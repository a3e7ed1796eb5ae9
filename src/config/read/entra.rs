//! An `entra:` block: whose identity, and how it is proved.

use std::path::Path;

use super::{Checker, raw};
use crate::config::{Cloud, Entra, Proof};
use crate::error::Error;

impl Checker<'_> {
    pub(super) fn entra(&self, place: &str, raw: raw::Entra, cloud: Cloud) -> Result<Entra, Error> {
        let place = format!("{place}.entra");
        self.ids(&place, &raw)?;
        let authority = raw.authority.as_deref().unwrap_or(cloud.endpoints().authority);
        Ok(Entra {
            authority: self.url(&place, authority, false)?,
            cloud,
            scope: raw.scope.clone(),
            tenant_id: raw.tenant_id.clone().unwrap_or_default(),
            client_id: raw.client_id.clone().unwrap_or_default(),
            proof: self.proof(&place, raw)?,
        })
    }

    fn proof(&self, place: &str, raw: raw::Entra) -> Result<Proof, Error> {
        let belongs = |key: &str, to: &str| Err(self.fault(place, format!("`{key}` belongs to `{to}`")));
        match () {
            () if raw.certificate_key.is_some() && raw.certificate.is_none() => {
                return belongs("certificate_key", "certificate");
            }
            () if raw.identity_endpoint.is_some() && !raw.managed_identity => {
                return belongs("identity_endpoint", "managed_identity: true");
            }
            () if raw.token_file.is_some() && !raw.workload_identity => {
                return belongs("token_file", "workload_identity: true");
            }
            () => {}
        }
        match (raw.client_secret, raw.certificate, raw.managed_identity, raw.workload_identity) {
            (Some(secret), None, false, false) => Ok(Proof::Secret(self.secret(secret))),
            (None, Some(certificate), false, false) => Ok(Proof::Certificate {
                certificate: self.secret(certificate),
                key: raw.certificate_key.map(|key| self.secret(key)),
            }),
            (None, None, true, false) => {
                let endpoint = raw.identity_endpoint.as_deref().map(|url| self.url(place, url, true)).transpose()?;
                Ok(Proof::ManagedIdentity { endpoint })
            }
            (None, None, false, true) => {
                let token_file = raw.token_file.as_deref().map(|path: &Path| self.path(path));
                Ok(Proof::Federated { token_file })
            }
            _ => Err(self.fault(
                place,
                "wanted exactly one of `client_secret`, `certificate`, `managed_identity: true` and `workload_identity: true`",
            )),
        }
    }

    /// Both ids end up in a URL. A managed identity has the tenant of its machine, and may be the machine's own.
    fn ids(&self, place: &str, raw: &raw::Entra) -> Result<(), Error> {
        for (key, id) in [("tenant_id", &raw.tenant_id), ("client_id", &raw.client_id)] {
            let fine = match id {
                None => raw.managed_identity,
                Some(id) => !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')),
            };
            if !fine {
                let message = format!("`{key}` wants an id such as 11111111-2222-3333-4444-555555555555");
                return Err(self.fault(place, message));
            }
        }
        Ok(())
    }
}
