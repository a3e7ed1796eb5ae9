//! Secrets: a type that can't be printed, serialised or templated.

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::vault::Vaulted;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    Env(String),
    File(PathBuf),
    /// A systemd credential: a file below `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// Azure Key Vault.
    Vault(Arc<Vaulted>),
}

/// A resolved secret. `Debug` prints `Secret(…)`; there is no `Display` and no `Serialize`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    pub fn new(text: String) -> Self {
        Secret(SecretString::from(text))
    }

    /// For the one place that puts it on the wire.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl SecretRef {
    /// Reads it now; of a vault, what was read when the service opened. A file's last line break is not part of the secret.
    pub fn resolve(&self) -> Result<Secret, String> {
        let (what, text) = match self {
            SecretRef::Env(name) => {
                let text = std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))?;
                (format!("the environment variable {name}"), text)
            }
            SecretRef::File(path) => (path.display().to_string(), read(path)?),
            SecretRef::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| format!("no systemd credential {name}: CREDENTIALS_DIRECTORY is not set"))?;
                (format!("the credential {name}"), read(&PathBuf::from(folder).join(name))?)
            }
            SecretRef::Vault(vaulted) => {
                let read = vaulted.secret().cloned();
                return read.ok_or_else(|| format!("the secret {vaulted} was not read from its key vault"));
            }
        };
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            return Err(format!("{what} is empty"));
        }
        Ok(Secret::new(text.to_owned()))
    }
}

fn read(path: &std::path::Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("reading the secret in {}: {error}", path.display()))
}
