//! The configuration file: model, reading and checking. `config.example.yaml` documents every key.
//!
//! Unknown keys are errors with "did you mean". Secrets are references, resolved when a connection is opened.

pub mod certificate;
pub mod cloud;
mod raw;
mod read;
mod scalar;
pub mod secret;
pub mod vault;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use cloud::Cloud;
#[allow(unused_imports, reason = "durations on the command line")]
pub(crate) use scalar::parse_duration;
pub use secret::{Secret, SecretRef};

use crate::catalog::{ConnectionKind, Effect};
use crate::error::Error;
use crate::flow::model::Mode;

#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the store; created when missing.
    pub store: PathBuf,
    /// Files or folders with flow files.
    pub flows: Vec<PathBuf>,
    /// Files or folders with the user's own connectors.
    pub catalogues: Vec<PathBuf>,
    /// Files or folders with suppression rules.
    pub suppressions: Vec<PathBuf>,
    /// Rules that may hold for users alone: who can write the configuration decides it.
    pub user_scoped_suppressions: Vec<String>,
    /// The installation's mode; `shadow` unless the file says `live`.
    pub mode: Mode,
    pub flow_modes: BTreeMap<String, Mode>,
    pub listen: std::net::SocketAddr,
    /// Without it `run.url` is not available.
    pub public_url: Option<String>,
    /// Whether a change of the files is a reload by itself.
    pub watch: bool,
    pub connections: BTreeMap<Arc<str>, Connection>,
    pub webhooks: BTreeMap<Arc<str>, WebhookAuth>,
    /// Where secrets may be.
    pub key_vaults: BTreeMap<Arc<str>, vault::KeyVault>,
    pub limits: Limits,
    pub protected: Protected,
    pub retention: Retention,
    /// A destructive step whose event is older asks; `None` is `off`.
    pub fresh_for: Option<Duration>,
    /// Runs on disk that are not final, at which polling pauses and webhooks answer 503.
    pub max_backlog: u64,
    /// Runs that make calls at the same time.
    pub in_flight: usize,
    /// Poll intervals by trigger type, over the catalogue's defaults.
    pub poll: BTreeMap<String, Duration>,
}

#[derive(Clone, Debug)]
pub struct Connection {
    pub name: Arc<str>,
    pub kind: ConnectionKind,
    /// No slash at the end. Services have a default where one host serves all tenants.
    pub base_url: Option<String>,
    pub credential: Credential,
    pub rate: Rate,
    /// More roots of trust (PEM), for services behind a private authority.
    pub ca_file: Option<PathBuf>,
    pub email: Option<Email>,
    /// Teams: the Workflows URL, a secret.
    pub webhook_url: Option<SecretRef>,
    /// `http`: methods and paths that are read (`GET /v1/lookup/*`); all else is destructive.
    pub read: Vec<(String, String)>,
    /// Fixed headers of an `http` connection; a value may be a secret.
    pub headers: BTreeMap<String, SecretRef>,
    /// `http`: loopback and private addresses are refused unless this is set.
    pub allow_private: bool,
}

#[derive(Clone, Debug)]
pub enum Credential {
    None,
    Entra(Entra),
    /// `email`: XOAUTH2, as the mailbox that sends unless another is named.
    Mailbox {
        username: Option<String>,
        entra: Entra,
    },
    /// Defender for Cloud Apps: `Authorization: Token …`.
    ApiToken(SecretRef),
    Password {
        username: String,
        password: SecretRef,
    },
    /// `http`: `Authorization: Bearer …`.
    Bearer(SecretRef),
}

/// An application or identity of Entra.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entra {
    /// Empty with a managed identity, whose tenant is that of its machine.
    pub tenant_id: String,
    /// Empty with the machine's own managed identity.
    pub client_id: String,
    pub proof: Proof,
    pub cloud: Cloud,
    /// The cloud's own by default; no slash at the end.
    pub authority: String,
    /// The resource's scope; the service's own in the cloud by default.
    pub scope: Option<String>,
}

/// How an identity proves that it is who it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    Secret(SecretRef),
    /// PEM. Without `key`, the key is in the same text.
    Certificate {
        certificate: SecretRef,
        key: Option<SecretRef>,
    },
    /// The machine proves it. Without an endpoint the environment says which kind of machine this is.
    ManagedIdentity {
        endpoint: Option<String>,
    },
    /// A token of another identity provider. Without a file, `AZURE_FEDERATED_TOKEN_FILE` names it.
    Federated {
        token_file: Option<PathBuf>,
    },
}

#[derive(Clone, Debug)]
pub struct Email {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    pub from: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    Starttls,
    Tls,
    None,
}

/// Requests a minute and an hour; `None` is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rate {
    /// The service's documented limits.
    #[default]
    Documented,
    Off,
    Per {
        minute: Option<u32>,
        hour: Option<u32>,
    },
}

#[derive(Clone, Debug)]
pub enum WebhookAuth {
    Bearer(SecretRef),
    /// `X-Watchfloor-Signature: sha256=<hex>` over `<timestamp>.<body>`, `X-Watchfloor-Timestamp` within 5 minutes.
    Hmac(SecretRef),
    /// Only where the server listens on loopback.
    None,
}

#[derive(Clone, Debug)]
pub struct Limits {
    /// Windows by effect; an empty list is `off`.
    pub windows: BTreeMap<Effect, Vec<Window>>,
    pub on_limit: OnLimit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub max: u32,
    pub per: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLimit {
    Ask,
    Stop,
}

#[derive(Clone, Debug)]
pub struct Protected {
    pub devices: Vec<DeviceRule>,
    pub users: Vec<UserRule>,
    pub on_match: OnMatch,
}

/// Every member that is given must match; patterns have `*` and ignore case.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRule {
    pub name: Option<String>,
    pub tag: Option<String>,
    pub group: Option<String>,
    pub os_platform: Option<String>,
    pub device_value: Option<String>,
    pub id: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRule {
    pub upn: Option<String>,
    pub directory_role: Option<String>,
    pub group: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMatch {
    Refuse,
    Ask,
}

#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub runs: Duration,
    pub payloads: Duration,
    pub dead_letters: Duration,
    pub audit: Duration,
}

/// Whether files that other users of the machine can read or change are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permissions {
    Strict,
    /// `--allow-insecure-permissions`.
    Any,
}

impl Config {
    /// Reads the file. Relative paths in it are below its own folder.
    /// Every fault is an error with exit code 78 that names the file, the place and the mend.
    pub fn read(path: &std::path::Path) -> Result<Config, Error> {
        read::file(path, Permissions::Strict)
    }

    pub fn read_with(path: &std::path::Path, permissions: Permissions) -> Result<Config, Error> {
        read::file(path, permissions)
    }

    /// Reads a text; `name` is what messages call it, relative paths are below `folder`.
    pub fn parse(text: &str, name: &str, folder: &std::path::Path) -> Result<Config, Error> {
        read::text(text, name, folder)
    }

    /// Every reference to a secret, with where it is written.
    pub fn secrets(&self) -> Vec<(String, &SecretRef)> {
        let mut found = vec![];
        for (name, connection) in &self.connections {
            let mut add = |key: &str, secret| found.push((format!("connections.{name}.{key}"), secret));
            match &connection.credential {
                Credential::None => {}
                Credential::Entra(entra) | Credential::Mailbox { entra, .. } => entra.secrets("credential.", &mut add),
                Credential::ApiToken(secret) => add("credential.api_token", secret),
                Credential::Password { password, .. } => add("credential.password", password),
                Credential::Bearer(secret) => add("credential.bearer", secret),
            }
            connection.webhook_url.iter().for_each(|s| add("webhook_url", s));
            connection.headers.values().for_each(|s| add("headers", s));
        }
        for (name, auth) in &self.webhooks {
            match auth {
                WebhookAuth::Bearer(secret) => found.push((format!("webhooks.{name}.auth.bearer"), secret)),
                WebhookAuth::Hmac(secret) => found.push((format!("webhooks.{name}.auth.hmac"), secret)),
                WebhookAuth::None => {}
            }
        }
        for (name, vault) in &self.key_vaults {
            vault.entra.secrets("", &mut |key, secret| found.push((format!("key_vaults.{name}.{key}"), secret)));
        }
        found
    }
}

impl Entra {
    /// The secrets that prove it, each with its key. A federated token is none of ours: it is short-lived, and whoever
    /// writes it sets who can read it.
    fn secrets<'a>(&'a self, place: &str, add: &mut dyn FnMut(&str, &'a SecretRef)) {
        let mut add = |key: &str, secret| add(&format!("{place}entra.{key}"), secret);
        match &self.proof {
            Proof::Secret(secret) => add("client_secret", secret),
            Proof::Certificate { certificate, key } => {
                add("certificate", certificate);
                key.iter().for_each(|key| add("certificate_key", key));
            }
            Proof::ManagedIdentity { .. } | Proof::Federated { .. } => {}
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Limits {
            windows: BTreeMap::from([
                (
                    Effect::Destructive,
                    vec![Window { max: 5, per: minutes(10) }, Window { max: 20, per: minutes(24 * 60) }],
                ),
                (Effect::Write, vec![Window { max: 200, per: minutes(10) }]),
            ]),
            on_limit: OnLimit::Ask,
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        let days = |n: u64| Duration::from_secs(n * 86_400);
        Retention { runs: days(90), payloads: days(30), dead_letters: days(90), audit: days(400) }
    }
}
