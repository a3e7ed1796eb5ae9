//! An `entra:` block: whose identity, and how it is proved. And the vaults in which secrets are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{Checker, fine_name, raw};
use crate::config::vault::KeyVault;
use crate::config::{Cloud, Config, Entra, Proof, SecretRef};
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

    pub(super) fn key_vaults(
        &self,
        raw: BTreeMap<String, raw::KeyVault>,
    ) -> Result<BTreeMap<Arc<str>, KeyVault>, Error> {
        let each = raw.into_iter().map(|(name, raw)| {
            let place = format!("key_vaults.{name}");
            if !fine_name(&name) {
                return Err(self.fault(&place, "a vault's name here is letters, digits, `-` and `_`, at most 64"));
            }
            let cloud = raw.cloud.or_else(|| Cloud::of(raw.vault.strip_prefix("https://")?.split(['/', ':']).next()?));
            let cloud = cloud.unwrap_or_default();
            let named = raw.vault.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            let url = match named && !raw.vault.is_empty() {
                true => format!("https://{}.{}", raw.vault, cloud.endpoints().vault.0),
                false => self.url(&format!("{place}.vault"), &raw.vault, false)?,
            };
            let entra = self.entra(&place, raw.entra, cloud)?;
            let mut circular = false;
            entra.secrets("", &mut |_, secret| circular |= matches!(secret, SecretRef::Vault(_)));
            if circular {
                let message =
                    "what opens a vault can't be in a vault; use a managed identity, a file or the environment";
                return Err(self.fault(&place, message));
            }
            Ok((Arc::from(name), KeyVault { url, entra }))
        });
        each.collect()
    }

    /// Each secret is in a vault that there is.
    pub(super) fn vaults_exist(&self, config: &Config) -> Result<(), Error> {
        for (place, secret) in config.secrets() {
            let SecretRef::Vault(vaulted) = secret else { continue };
            if !config.key_vaults.contains_key(&vaulted.vault) {
                let message = format!("there is no `{}` under `key_vaults`", vaulted.vault);
                let help = format!(
                    "add key_vaults: {{ {}: {{ vault: NAME, entra: {{ managed_identity: true }} }} }}",
                    vaulted.vault
                );
                return Err(self.fault(&place, message).help(help));
            }
        }
        Ok(())
    }
}
