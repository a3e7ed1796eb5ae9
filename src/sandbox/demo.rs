//! The demo's own files and configuration: the shipped flows, written out of the binary, and connections that point at
//! the simulated tenant. Live, limits off, no rates: nothing real is in reach.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::auth::{API_TOKEN, CLIENT_ID, CLIENT_SECRET};
use super::world::TENANT;
use crate::catalog::ConnectionKind;
use crate::config::{
    Cloud, Config, Connection, Credential, Email, Entra, Limits, OnLimit, OnMatch, Proof, Protected, Rate, Retention,
    SecretRef, Tls,
};
use crate::error::Error;
use crate::flow::model::Mode;

/// The shipped files that the binary carries, for the demo and for alike tenants, by their path below `flows/`.
pub const SHIPPED: [(&str, &str); 7] = [
    ("isolate-high-severity.yaml", include_str!("../../flows/isolate-high-severity.yaml")),
    ("resolve-legitimate-travel.yaml", include_str!("../../flows/resolve-legitimate-travel.yaml")),
    ("resolve-legitimate-travel-guarded.yaml", include_str!("../../flows/resolve-legitimate-travel-guarded.yaml")),
    ("resolve-travel-risk-detection.yaml", include_str!("../../flows/resolve-travel-risk-detection.yaml")),
    ("hunt-encoded-powershell.yaml", include_str!("../../flows/hunt-encoded-powershell.yaml")),
    ("kql/encoded-powershell.kql", include_str!("../../flows/kql/encoded-powershell.kql")),
    ("kql/mailbox-tampering.kql", include_str!("../../flows/kql/mailbox-tampering.kql")),
];

/// Flow files that make sense beside each other: the other travel flows would act on the same alerts.
const TOGETHER: [&str; 3] =
    ["isolate-high-severity.yaml", "resolve-legitimate-travel.yaml", "hunt-encoded-powershell.yaml"];

/// The workspace of Microsoft Sentinel, below Resource Manager.
const WORKSPACE: &str = "/subscriptions/0f9d1e6e-3c0c-4a6b-9b47-5a8c7d2e1f00/resourceGroups/soc/providers/Microsoft.OperationalInsights/workspaces/soc";

/// Writes flows and secrets below `folder` (which should be private and new) and configures everything for the tenant at
/// these addresses. The console listens on a free port of loopback unless `listen` is changed.
pub fn demo_config(http: SocketAddr, smtp: SocketAddr, folder: &Path) -> Result<Config, Error> {
    let flows = folder.join("flows");
    for (path, text) in SHIPPED {
        if path.starts_with("kql/") || TOGETHER.contains(&path) {
            write(&flows.join(path), text)?;
        }
    }
    let secret = |name: &str, text: &str| -> Result<SecretRef, Error> {
        let path = folder.join("secrets").join(name);
        write(&path, text)?;
        private(&path)?;
        Ok(SecretRef::File(path))
    };
    let base = format!("http://{http}");
    let client_secret = secret("client", CLIENT_SECRET)?;
    let api_token = secret("mdca", API_TOKEN)?;
    let webhook = secret("teams", &format!("{base}/workflows/soc-triage"))?;
    let entra = || {
        Credential::Entra(Entra {
            tenant_id: TENANT.to_owned(),
            client_id: CLIENT_ID.to_owned(),
            proof: Proof::Secret(client_secret.clone()),
            cloud: Cloud::Global,
            authority: base.clone(),
            scope: None,
        })
    };
    let to = |name: &str, kind, credential| connection(name, kind, &base, credential);
    let mut mail = to("mail", ConnectionKind::Email, Credential::None);
    let email = Email {
        host: smtp.ip().to_string(),
        port: smtp.port(),
        tls: Tls::None,
        from: "soc@contoso.example".to_owned(),
    };
    mail.email = Some(email);
    mail.base_url = None;
    let mut teams = to("soc-triage", ConnectionKind::Teams, Credential::None);
    teams.webhook_url = Some(webhook);
    teams.base_url = None;
    let connections = [
        to("mde", ConnectionKind::Mde, entra()),
        to("graph", ConnectionKind::Graph, entra()),
        to("mdca", ConnectionKind::CloudApps, Credential::ApiToken(api_token)),
        Connection { base_url: Some(format!("{base}{WORKSPACE}")), ..to("sentinel", ConnectionKind::Azure, entra()) },
        Connection {
            base_url: Some(format!("{base}/v1/workspaces/9c2f5d1e-5a1b-4b7e-8f53-2f0f6a1f7c11")),
            ..to("logs", ConnectionKind::LogAnalytics, entra())
        },
        mail,
        teams,
    ];
    Ok(configuration(folder.join("data"), flows, connections))
}

fn configuration(store: PathBuf, flows: PathBuf, connections: impl IntoIterator<Item = Connection>) -> Config {
    let connections = connections.into_iter().map(|connection| (Arc::clone(&connection.name), connection)).collect();
    // A demo shows something within its first second; the real intervals are the catalogue's.
    let soon = Duration::from_millis(250);
    let polled =
        ["mde.alert.new", "cloud_apps.alert.new", "xdr.alert.new", "xdr.incident.new", "entra.risk_detection.new"];
    Config {
        store,
        flows: vec![flows],
        catalogues: Vec::new(),
        suppressions: vec![],
        user_scoped_suppressions: vec![],
        mode: Mode::Live,
        flow_modes: BTreeMap::new(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        watch: false,
        public_url: None,
        connections,
        webhooks: BTreeMap::new(),
        key_vaults: BTreeMap::new(),
        limits: Limits { windows: BTreeMap::new(), on_limit: OnLimit::Ask },
        protected: Protected { devices: Vec::new(), users: Vec::new(), on_match: OnMatch::Ask },
        retention: Retention::default(),
        fresh_for: None,
        max_backlog: 100_000,
        in_flight: 32,
        poll: polled.into_iter().map(|name| (name.to_owned(), soon)).collect(),
    }
}

fn connection(name: &str, kind: ConnectionKind, base: &str, credential: Credential) -> Connection {
    Connection {
        name: Arc::from(name),
        kind,
        base_url: Some(base.to_owned()),
        credential,
        rate: Rate::Off,
        ca_file: None,
        email: None,
        webhook_url: None,
        read: Vec::new(),
        headers: BTreeMap::new(),
        allow_private: true,
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::unavailable(format!("writing the demo's {}: {error}", path.display()));
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}

/// For the owner alone, as a secret should be.
#[cfg(unix)]
fn private(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|error| Error::unavailable(format!("closing the demo's {} to others: {error}", path.display())))
}

#[cfg(not(unix))]
fn private(_path: &Path) -> Result<(), Error> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_knows_no_address_but_the_tenants() {
        let folder = tempfile::tempdir().unwrap();
        let http: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let config = demo_config(http, "127.0.0.1:2".parse().unwrap(), folder.path()).unwrap();
        for connection in config.connections.values() {
            let ours = |url: &str| url == "http://127.0.0.1:1" || url.starts_with("http://127.0.0.1:1/");
            assert!(connection.base_url.as_deref().is_none_or(ours), "{connection:?}");
        }
        assert_eq!(config.mode, Mode::Live);
        assert!(folder.path().join("flows/kql/encoded-powershell.kql").exists());
        assert!(!folder.path().join("flows/resolve-legitimate-travel-guarded.yaml").exists());
    }
}
