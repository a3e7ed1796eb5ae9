//! Secrets in Azure Key Vault: where they are, and what was read of them. Reading them takes the network, so the service
//! does it before it opens anything (see `connector::vault`); from then on they are secrets like any other.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use super::{Entra, Secret};

/// A vault, and who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVault {
    /// No slash at the end.
    pub url: String,
    pub entra: Entra,
}

/// A secret in a vault.
pub struct Vaulted {
    /// The vault's name in the configuration.
    pub vault: Arc<str>,
    pub name: String,
    /// The newest without it.
    pub version: Option<String>,
    kept: OnceLock<(Secret, Option<Timestamp>)>,
}

impl Vaulted {
    /// `VAULT/NAME` or `VAULT/NAME/VERSION`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (vault, name, version) = (parts.next()?, parts.next()?, parts.next());
        // They end up in a path; names of vaults in the configuration may hold an underscore.
        let fine = |part: &str| {
            (1..=127).contains(&part.len())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        let all = parts.next().is_none() && [Some(vault), Some(name), version].into_iter().flatten().all(fine);
        let (name, version) = (name.to_owned(), version.map(str::to_owned));
        all.then(|| Vaulted { vault: vault.into(), name, version, kept: OnceLock::new() })
    }

    /// Takes in what was read; the first that comes stays.
    pub fn keep(&self, secret: Secret, expires: Option<Timestamp>) {
        drop(self.kept.set((secret, expires)));
    }

    pub fn secret(&self) -> Option<&Secret> {
        self.kept.get().map(|(secret, _)| secret)
    }

    pub fn expires(&self) -> Option<Timestamp> {
        self.kept.get()?.1
    }
}

impl PartialEq for Vaulted {
    fn eq(&self, other: &Self) -> bool {
        (&self.vault, &self.name, &self.version) == (&other.vault, &other.name, &other.version)
    }
}

impl Eq for Vaulted {}

/// As it is written: what was read of it is no part of the configuration.
impl std::fmt::Display for Vaulted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.vault, self.name)?;
        self.version.as_ref().map_or(Ok(()), |version| write!(f, "/{version}"))
    }
}

impl std::fmt::Debug for Vaulted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}
