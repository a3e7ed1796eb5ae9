//! The shape of the file as it is written, before anything is resolved or checked against anything else.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::scalar::{OrOff, Reference, Span};
use super::{Cloud, DeviceRule, OnLimit, OnMatch, Tls, UserRule};
use crate::catalog::ConnectionKind;
use crate::flow::model::Mode;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) store: Option<Store>,
    pub(super) flows: Option<Vec<PathBuf>>,
    #[serde(default)]
    pub(super) catalogues: Vec<PathBuf>,
    #[serde(default)]
    pub(super) suppressions: Vec<PathBuf>,
    #[serde(default)]
    pub(super) user_scoped_suppressions: Vec<String>,
    pub(super) mode: Option<Mode>,
    #[serde(default)]
    pub(super) flow_modes: BTreeMap<String, Mode>,
    pub(super) server: Option<Server>,
    #[serde(default)]
    pub(super) connections: BTreeMap<String, Connection>,
    #[serde(default)]
    pub(super) webhooks: BTreeMap<String, Webhook>,
    #[serde(default)]
    pub(super) key_vaults: BTreeMap<String, KeyVault>,
    pub(super) limits: Option<Limits>,
    pub(super) protected: Option<Protected>,
    pub(super) retention: Option<Retention>,
    pub(super) fresh_for: Option<OrOff<Span>>,
    pub(super) max_backlog: Option<u64>,
    pub(super) in_flight: Option<usize>,
    #[serde(default)]
    pub(super) poll: BTreeMap<String, Span>,
    // Known, and not in this version: naming one is an error that says so, never silence.
    pub(super) approvers: Option<IgnoredAny>,
    pub(super) notify: Option<IgnoredAny>,
    pub(super) telemetry: Option<IgnoredAny>,
    pub(super) proxy: Option<IgnoredAny>,
    pub(super) sign_in: Option<IgnoredAny>,
    pub(super) trusted_proxies: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    pub(super) path: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    pub(super) listen: Option<String>,
    pub(super) public_url: Option<String>,
    pub(super) watch: Option<OnOff>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnOff {
    On,
    Off,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Connection {
    pub(super) kind: ConnectionKind,
    pub(super) base_url: Option<String>,
    pub(super) cloud: Option<Cloud>,
    pub(super) credential: Option<Credential>,
    pub(super) rate: Option<Rate>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) server: Option<String>,
    pub(super) tls: Option<Tls>,
    pub(super) from: Option<String>,
    pub(super) webhook_url: Option<Reference>,
    pub(super) read: Option<Vec<String>>,
    pub(super) headers: Option<BTreeMap<String, Reference>>,
    pub(super) allow_private: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    pub(super) entra: Option<Entra>,
    pub(super) api_token: Option<Reference>,
    pub(super) username: Option<String>,
    pub(super) password: Option<Reference>,
    pub(super) bearer: Option<Reference>,
    pub(super) xoauth2: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entra {
    pub(super) tenant_id: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<Reference>,
    pub(super) certificate: Option<Reference>,
    pub(super) certificate_key: Option<Reference>,
    #[serde(default)]
    pub(super) managed_identity: bool,
    pub(super) identity_endpoint: Option<String>,
    #[serde(default)]
    pub(super) workload_identity: bool,
    pub(super) token_file: Option<PathBuf>,
    pub(super) authority: Option<String>,
    pub(super) scope: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyVault {
    pub(super) vault: String,
    pub(super) cloud: Option<Cloud>,
    pub(super) entra: Entra,
}

#[derive(Debug)]
pub(super) enum Rate {
    Off,
    Per { minute: Option<u32>, hour: Option<u32> },
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> serde::de::Visitor<'de> for Shape {
            type Value = Rate;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`off` or `{ per_minute: 100, per_hour: 1500 }`")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Rate, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
                (text == "off").then_some(Rate::Off).ok_or_else(wrong)
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Rate, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Per {
                    per_minute: Option<u32>,
                    per_hour: Option<u32>,
                }
                let per = Per::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(Rate::Per { minute: per.per_minute, hour: per.per_hour })
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    pub(super) auth: Auth,
}

#[derive(Debug)]
pub(super) enum Auth {
    Bearer(Reference),
    Hmac(Reference),
    None,
}

impl<'de> Deserialize<'de> for Auth {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> serde::de::Visitor<'de> for Shape {
            type Value = Auth;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`{ bearer: { env: NAME } }`, `{ hmac: { env: NAME } }` or `none`")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Auth, E> {
                // What was written may be a token: it is not repeated.
                let wrong = || E::custom("wanted `{ bearer: { env: NAME } }`, `{ hmac: { env: NAME } }` or `none`");
                (text == "none").then_some(Auth::None).ok_or_else(wrong)
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Auth, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct One {
                    bearer: Option<Reference>,
                    hmac: Option<Reference>,
                }
                match One::deserialize(serde::de::value::MapAccessDeserializer::new(map))? {
                    One { bearer: Some(secret), hmac: None } => Ok(Auth::Bearer(secret)),
                    One { bearer: None, hmac: Some(secret) } => Ok(Auth::Hmac(secret)),
                    _ => Err(serde::de::Error::custom("`auth` wants exactly one of `bearer` and `hmac`")),
                }
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) destructive: Option<OrOff<Vec<Window>>>,
    pub(super) write: Option<OrOff<Vec<Window>>>,
    pub(super) on_limit: Option<OnLimit>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    pub(super) max: u32,
    pub(super) per: Span,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Protected {
    #[serde(default)]
    pub(super) devices: Vec<DeviceRule>,
    #[serde(default)]
    pub(super) users: Vec<UserRule>,
    pub(super) on_match: Option<OnMatch>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retention {
    pub(super) runs: Option<Span>,
    pub(super) payloads: Option<Span>,
    pub(super) dead_letters: Option<Span>,
    pub(super) audit: Option<Span>,
}
