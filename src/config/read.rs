//! From the file's text to a checked `Config`: defaults, addresses, credentials, permissions.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod entra;

use super::raw;
use super::scalar::{OrOff, Reference, Span};
use super::{
    Cloud, Config, Connection, Credential, Email, Limits, OnMatch, Permissions, Protected, Rate, Retention, SecretRef,
    Tls, WebhookAuth, Window,
};
use crate::catalog::{ConnectionKind, Effect};
use crate::diag::suggestion;
use crate::error::Error;
use crate::flow::model::Mode;

/// A configuration is a page or two; more than this is a mistake or an attack.
const MAX_BYTES: u64 = 1024 * 1024;
const DEFAULT_LISTEN: &str = "127.0.0.1:8730";

pub(super) fn file(path: &Path, permissions: Permissions) -> Result<Config, Error> {
    let name = path.display().to_string();
    let meta = std::fs::metadata(path).map_err(|error| {
        Error::config(format!("reading the configuration {name}: {error}"))
            .help("give its path with `-c FILE`, or copy `config.example.yaml` to `config.yaml`")
    })?;
    if !meta.is_file() {
        return Err(Error::config(format!("the configuration {name} is not a regular file")));
    }
    if meta.len() > MAX_BYTES {
        return Err(Error::config(format!("the configuration {name} is larger than 1 MiB")));
    }
    if permissions == Permissions::Strict {
        refuse_writable(&name, &meta)?;
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::config(format!("reading the configuration {name}: {error}")))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let config = self::text(&text, &name, folder)?;
    if permissions == Permissions::Strict {
        let secrets = config.secrets();
        for (place, secret) in &secrets {
            // Beside a key of its own, a certificate is public.
            let public = secrets.iter().any(|(other, _)| other.strip_suffix("_key") == Some(place));
            if !public {
                refuse_readable(&name, place, secret)?;
            }
        }
    }
    Ok(config)
}

pub(super) fn text(text: &str, name: &str, folder: &Path) -> Result<Config, Error> {
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! { max_depth: 32, max_nodes: 20_000, max_aliases: 0 },
        duplicate_keys: serde_yaml::DuplicateKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    let text = if text.trim().is_empty() { "{}" } else { text };
    let raw: raw::File = serde_yaml::from_str_with_options(text, options).map_err(|error| located(name, &error))?;
    let checker = Checker { name, folder };
    let config = checker.config(raw)?;
    checker.vaults_exist(&config)?;
    Ok(config)
}

/// The parser's error as one line with its place, and the key that was meant.
fn located(name: &str, error: &serde_yaml::Error) -> Error {
    let place = error.location().map_or_else(String::new, |at| format!(":{}:{}", at.line(), at.column()));
    let full = crate::catalog::in_words(&error.to_string());
    // The parser adds its own words for the place to the first line.
    let shown = strip_place(full.lines().next().unwrap_or("").trim().trim_start_matches("error: "));
    let answer = Error::config(format!("{name}{place}: {shown}"));
    let help = match error.without_snippet() {
        serde_yaml::Error::SerdeUnknownField { field: written, expected, .. }
        | serde_yaml::Error::SerdeUnknownVariant { variant: written, expected, .. } => {
            suggestion(written, expected.iter().copied())
                .or_else(|| Some(format!("known here: {}", expected.join(", "))))
        }
        _ => None,
    };
    match help {
        Some(help) => answer.help(help),
        None => answer,
    }
}

fn strip_place(line: &str) -> &str {
    let cut = line
        .rfind(" at line ")
        .filter(|at| line.get(at + 9..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())));
    let line = cut.and_then(|at| line.get(..at)).unwrap_or(line);
    // `line 3 column 5: message`
    match line.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, message)) => message,
        None => line,
    }
}

#[cfg(unix)]
fn refuse_writable(name: &str, meta: &std::fs::Metadata) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    if meta.permissions().mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(Error::config(format!("the configuration {name} can be changed by other users of this machine"))
        .help(format!("`chmod go-w {name}`, or start with --allow-insecure-permissions")))
}

#[cfg(unix)]
fn refuse_readable(name: &str, place: &str, secret: &SecretRef) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let SecretRef::File(path) = secret else { return Ok(()) };
    // A missing file is said when the connection is opened: `check` needs no secrets.
    let Ok(meta) = std::fs::metadata(path) else { return Ok(()) };
    if meta.permissions().mode() & 0o006 == 0 {
        return Ok(());
    }
    let path = path.display();
    Err(Error::config(format!("{name}: {place}: the secret in {path} can be read by every user of this machine"))
        .help(format!("`chmod o-rw {path}`, or start with --allow-insecure-permissions")))
}

#[cfg(not(unix))]
fn refuse_writable(_: &str, _: &std::fs::Metadata) -> Result<(), Error> {
    Ok(())
}

#[cfg(not(unix))]
fn refuse_readable(_: &str, _: &str, _: &SecretRef) -> Result<(), Error> {
    Ok(())
}

struct Checker<'a> {
    name: &'a str,
    folder: &'a Path,
}

impl Checker<'_> {
    fn fault(&self, place: &str, message: impl std::fmt::Display) -> Error {
        Error::config(format!("{}: {place}: {message}", self.name))
    }

    fn path(&self, path: &Path) -> PathBuf {
        let path = path.strip_prefix(".").unwrap_or(path);
        if self.folder == Path::new(".") && !path.as_os_str().is_empty() {
            path.to_path_buf()
        } else {
            self.folder.join(path)
        }
    }

    fn secret(&self, reference: Reference) -> SecretRef {
        match reference.0 {
            SecretRef::File(path) => SecretRef::File(self.path(&path)),
            other => other,
        }
    }

    fn config(&self, raw: raw::File) -> Result<Config, Error> {
        self.not_yet(&raw)?;
        let watch = raw.server.as_ref().and_then(|server| server.watch) != Some(raw::OnOff::Off);
        let (listen, public_url) = self.server(raw.server)?;
        let public = public_url.as_deref().is_some_and(beyond_this_machine);
        let own = !raw.catalogues.is_empty();
        let connections = raw.connections.into_iter().map(|(name, connection)| {
            let connection = self.connection(&name, connection, own)?;
            Ok((Arc::clone(&connection.name), connection))
        });
        let connections = connections.collect::<Result<_, Error>>()?;
        let store = raw.store.map_or_else(|| PathBuf::from("./data"), |store| store.path);
        let flows = raw.flows.unwrap_or_else(|| vec![PathBuf::from("./flows")]);
        let max_backlog = raw.max_backlog.unwrap_or(100_000);
        let in_flight = raw.in_flight.unwrap_or(256);
        if max_backlog == 0 || in_flight == 0 || in_flight > 10_000 {
            return Err(self.fault("max_backlog, in_flight", "wanted at least 1, and at most 10000 in flight"));
        }
        Ok(Config {
            store: self.path(&store),
            flows: flows.iter().map(|path| self.path(path)).collect(),
            catalogues: raw.catalogues.iter().map(|path| self.path(path)).collect(),
            suppressions: raw.suppressions.iter().map(|path| self.path(path)).collect(),
            user_scoped_suppressions: raw.user_scoped_suppressions,
            mode: raw.mode.unwrap_or(Mode::Shadow),
            flow_modes: raw.flow_modes,
            listen,
            public_url,
            watch,
            connections,
            webhooks: self.webhooks(raw.webhooks, public)?,
            key_vaults: self.key_vaults(raw.key_vaults)?,
            limits: self.limits(raw.limits)?,
            protected: self.protected(raw.protected)?,
            retention: retention(raw.retention),
            fresh_for: match raw.fresh_for {
                None => Some(Duration::from_secs(3_600)),
                Some(OrOff::Off) => None,
                Some(OrOff::On(Span(span))) => Some(span),
            },
            max_backlog,
            in_flight,
            poll: self.poll(raw.poll)?,
        })
    }

    /// Keys of the contract that this version does not act on: silence would be a promise.
    fn not_yet(&self, raw: &raw::File) -> Result<(), Error> {
        let named = [
            ("approvers", raw.approvers.is_some()),
            ("notify", raw.notify.is_some()),
            ("telemetry", raw.telemetry.is_some()),
            ("proxy", raw.proxy.is_some()),
            ("sign_in", raw.sign_in.is_some()),
            ("trusted_proxies", raw.trusted_proxies.is_some()),
        ];
        match named.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(self
                .fault(key, "this key is not in this version of watchfloor")
                .help("take it out; nothing would act on it")),
            None => Ok(()),
        }
    }

    fn server(&self, raw: Option<raw::Server>) -> Result<(SocketAddr, Option<String>), Error> {
        let raw = raw.unwrap_or(raw::Server { listen: None, public_url: None, watch: None });
        let text = raw.listen.as_deref().unwrap_or(DEFAULT_LISTEN);
        let listen: SocketAddr = text
            .replace("localhost", "127.0.0.1")
            .parse()
            .map_err(|_| self.fault("server.listen", "wanted an address and a port such as `127.0.0.1:8730`"))?;
        if !listen.ip().is_loopback() {
            return Err(self
                .fault("server.listen", format!("{listen} is not a loopback address, and this version has no sign-in"))
                .help("listen on 127.0.0.1 and let a reverse proxy carry /hooks to it"));
        }
        let public_url = match raw.public_url {
            None => None,
            Some(url) => Some(self.url("server.public_url", &url, false)?),
        };
        Ok((listen, public_url))
    }

    /// A base URL without its last slash. `http` only where the traffic can't leave the machine.
    fn url(&self, place: &str, text: &str, link_local: bool) -> Result<String, Error> {
        let wrong = |message: &str| self.fault(place, message);
        let url = reqwest::Url::parse(text).map_err(|_| wrong("this is no URL; wanted one such as `https://host`"))?;
        let host = url.host_str().ok_or_else(|| wrong("the URL has no host"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("a URL carries no user or password; use `credential:`"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("a base URL has neither `?` nor `#`"));
        }
        let fine = match url.scheme() {
            "https" => true,
            "http" => loopback(host) || (link_local && host == "169.254.169.254"),
            _ => false,
        };
        if !fine {
            return Err(wrong("wanted https (http is for loopback addresses only)"));
        }
        Ok(text.trim_end_matches('/').to_owned())
    }

    fn connection(&self, name: &str, raw: raw::Connection, own: bool) -> Result<Connection, Error> {
        let place = format!("connections.{name}");
        if !fine_name(name) {
            return Err(self.fault(&place, "a connection's name is letters, digits, `-` and `_`, at most 64"));
        }
        let kind = raw.kind;
        if matches!(kind, ConnectionKind::Own(_)) && !own {
            let known = ConnectionKind::SHIPPED.iter().map(ConnectionKind::as_str);
            let help = suggestion(kind.as_str(), known).unwrap_or_else(|| {
                "a connector of your own is described in a file of a folder under `catalogues:`".to_owned()
            });
            return Err(self.fault(&format!("{place}.kind"), format!("there is no kind {}", kind.as_str())).help(help));
        }
        self.only(&place, kind, "server", raw.server.is_some(), ConnectionKind::Email)?;
        self.only(&place, kind, "tls", raw.tls.is_some(), ConnectionKind::Email)?;
        self.only(&place, kind, "from", raw.from.is_some(), ConnectionKind::Email)?;
        self.only(&place, kind, "webhook_url", raw.webhook_url.is_some(), ConnectionKind::Teams)?;
        self.only(&place, kind, "read", raw.read.is_some(), ConnectionKind::Http)?;
        if !kind.is_foreign() {
            self.only(&place, kind, "headers", raw.headers.is_some(), ConnectionKind::Http)?;
            self.only(&place, kind, "allow_private", raw.allow_private.is_some(), ConnectionKind::Http)?;
        }
        let email = match kind {
            ConnectionKind::Email => Some(self.email(&place, &raw)?),
            _ => None,
        };
        if kind == ConnectionKind::Teams && raw.webhook_url.is_none() {
            return Err(self.fault(&place, "a teams connection wants `webhook_url: { env: NAME }`, the Workflows URL"));
        }
        let cloud = self.cloud(&place, &raw)?;
        let read = raw.read.unwrap_or_default();
        let read = read.iter().map(|rule| self.read_rule(&place, rule)).collect::<Result<_, _>>()?;
        let headers = raw.headers.unwrap_or_default().into_iter().map(|(key, value)| (key, self.secret(value)));
        Ok(Connection {
            name: Arc::from(name),
            kind,
            base_url: self.base_url(&place, kind, cloud, raw.base_url.as_deref())?,
            credential: self.credential(&place, kind, cloud, raw.credential)?,
            rate: match raw.rate {
                None => Rate::Documented,
                Some(raw::Rate::Off) => Rate::Off,
                Some(raw::Rate::Per { minute: Some(0), .. } | raw::Rate::Per { hour: Some(0), .. }) => {
                    return Err(self.fault(&place, "a rate of 0 would never send; write `off` for no bound"));
                }
                Some(raw::Rate::Per { minute, hour }) => Rate::Per { minute, hour },
            },
            ca_file: raw.ca_file.as_deref().map(|path| self.path(path)),
            email,
            webhook_url: raw.webhook_url.map(|secret| self.secret(secret)),
            read,
            headers: headers.collect(),
            allow_private: raw.allow_private.unwrap_or(false),
        })
    }

    fn only(
        &self,
        place: &str,
        kind: ConnectionKind,
        key: &str,
        given: bool,
        wants: ConnectionKind,
    ) -> Result<(), Error> {
        if given && kind != wants {
            let message =
                format!("`{key}` belongs to connections of kind {}, this is {}", wants.as_str(), kind.as_str());
            return Err(self.fault(place, message));
        }
        Ok(())
    }

    /// The cloud that is named, or the one that the address belongs to.
    fn cloud(&self, place: &str, raw: &raw::Connection) -> Result<Cloud, Error> {
        let url = raw.base_url.as_deref().and_then(|url| reqwest::Url::parse(url).ok());
        let host = url.as_ref().and_then(|url| url.host_str());
        let host = host.or_else(|| raw.server.as_deref()?.rsplit_once(':').map(|(host, _)| host));
        match (raw.cloud, host.and_then(Cloud::of)) {
            // GCC High and DoD share hosts.
            (Some(named), Some(seen)) if named != seen && named.endpoints().mde != seen.endpoints().mde => {
                let (named, seen) = (named.endpoints().name, seen.endpoints().name);
                let message = format!("`cloud: {named}` does not fit its address, which is of the cloud {seen}");
                Err(self.fault(place, message).help("take out one of the two; each follows from the other"))
            }
            (named, seen) => Ok(named.or(seen).unwrap_or_default()),
        }
    }

    fn base_url(
        &self,
        place: &str,
        kind: ConnectionKind,
        cloud: Cloud,
        given: Option<&str>,
    ) -> Result<Option<String>, Error> {
        let place = format!("{place}.base_url");
        match (kind, given.or(cloud.base_url(kind))) {
            (ConnectionKind::Email | ConnectionKind::Teams, Some(_)) => {
                Err(self.fault(&place, format!("a connection of kind {} has no base URL", kind.as_str())))
            }
            (ConnectionKind::Email | ConnectionKind::Teams, None) => Ok(None),
            (_, Some(url)) => Ok(Some(self.url(&place, url, false)?)),
            (ConnectionKind::CloudApps, None) => Err(self
                .fault(&place, "is missing")
                .help("the API URL of your tenant, such as `https://contoso.us2.portal.cloudappsecurity.com`")),
            (ConnectionKind::Azure, None) => Err(self.fault(&place, "is missing").help(
                "Resource Manager's address of the workspace: https://management.azure.com/subscriptions/…/resourceGroups/…/providers/Microsoft.OperationalInsights/workspaces/…",
            )),
            (ConnectionKind::LogAnalytics, None) => Err(self
                .fault(&place, "is missing")
                .help("the query API of the workspace: https://api.loganalytics.azure.com/v1/workspaces/…")),
            (_, None) => Err(self.fault(&place, "is missing")),
        }
    }

    fn email(&self, place: &str, raw: &raw::Connection) -> Result<Email, Error> {
        let server = raw.server.as_deref().ok_or_else(|| self.fault(place, "`server: host:port` is missing"))?;
        let (host, port) = server
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse::<u16>().ok()?)))
            .filter(|(host, port)| !host.is_empty() && *port != 0)
            .ok_or_else(|| self.fault(place, "`server` wants a host and a port such as `smtp.contoso.example:587`"))?;
        let from = raw.from.clone().ok_or_else(|| self.fault(place, "`from`, the sender's address, is missing"))?;
        if !from.contains('@') || from.chars().any(char::is_control) {
            return Err(self.fault(place, "`from` is no mail address"));
        }
        let tls = raw.tls.unwrap_or(Tls::Starttls);
        if tls == Tls::None && !loopback(host) && raw.credential.is_some() {
            return Err(self
                .fault(place, "a password would cross the network in clear text")
                .help("`tls: starttls` or `tls: tls`; `tls: none` with a password is for loopback only"));
        }
        Ok(Email { host: host.to_owned(), port, tls, from })
    }

    fn read_rule(&self, place: &str, rule: &str) -> Result<(String, String), Error> {
        let parts = rule.split_once(' ').map(|(method, path)| (method.trim().to_ascii_uppercase(), path.trim()));
        match parts {
            Some((method, path))
                if path.starts_with('/') && matches!(method.as_str(), "GET" | "HEAD" | "POST" | "PUT" | "PATCH") =>
            {
                Ok((method, path.to_owned()))
            }
            _ => Err(self.fault(place, "`read` lists a method and a path each, such as `GET /v1/lookup/*`")),
        }
    }

    fn credential(
        &self,
        place: &str,
        kind: ConnectionKind,
        cloud: Cloud,
        raw: Option<raw::Credential>,
    ) -> Result<Credential, Error> {
        let place = format!("{place}.credential");
        let Some(raw) = raw else {
            return match kind {
                ConnectionKind::Mde
                | ConnectionKind::Graph
                | ConnectionKind::CloudApps
                | ConnectionKind::Azure
                | ConnectionKind::LogAnalytics => {
                    Err(self.fault(&place, "is missing").help("`entra: { tenant_id, client_id, client_secret }`"))
                }
                _ => Ok(Credential::None),
            };
        };
        if raw.xoauth2.is_some() {
            let message = "`xoauth2` is how `entra` signs in to a mail server; write `entra: { … }` instead";
            return Err(self.fault(&place, message));
        }
        let wrong = |message: &str| Err(self.fault(&place, message));
        let credential = match (raw.entra, raw.api_token, raw.username, raw.password, raw.bearer) {
            (Some(entra), None, username, None, None) if kind == ConnectionKind::Email => {
                if username.as_ref().is_some_and(|name| !name.contains('@') || name.chars().any(char::is_control)) {
                    return wrong("`username` beside `entra` is the mailbox that signs in, a mail address");
                }
                Credential::Mailbox { username, entra: self.entra(&place, entra, cloud)? }
            }
            (Some(entra), None, None, None, None) => Credential::Entra(self.entra(&place, entra, cloud)?),
            (None, Some(token), None, None, None) => Credential::ApiToken(self.secret(token)),
            (None, None, Some(username), Some(password), None) => {
                Credential::Password { username, password: self.secret(password) }
            }
            (None, None, None, None, Some(token)) => Credential::Bearer(self.secret(token)),
            _ => return wrong("wanted exactly one of `entra`, `api_token`, `username` with `password`, and `bearer`"),
        };
        let fits = match &credential {
            Credential::None => true,
            Credential::Entra(_) => !matches!(kind, ConnectionKind::Email | ConnectionKind::Teams),
            Credential::Mailbox { .. } => true,
            Credential::ApiToken(_) => kind == ConnectionKind::CloudApps,
            Credential::Password { .. } => kind == ConnectionKind::Email || kind.is_foreign(),
            Credential::Bearer(_) => kind.is_foreign(),
        };
        if !fits {
            return wrong(&format!("this kind of credential does not fit a connection of kind {}", kind.as_str()));
        }
        Ok(credential)
    }

    fn webhooks(
        &self,
        raw: BTreeMap<String, raw::Webhook>,
        public: bool,
    ) -> Result<BTreeMap<Arc<str>, WebhookAuth>, Error> {
        let each = raw.into_iter().map(|(name, hook)| {
            if !fine_name(&name) {
                let message = "a webhook's name is letters, digits, `-` and `_`, at most 64";
                return Err(self.fault(&format!("webhooks.{name}"), message));
            }
            let auth = match hook.auth {
                raw::Auth::Bearer(secret) => WebhookAuth::Bearer(self.secret(secret)),
                raw::Auth::Hmac(secret) => WebhookAuth::Hmac(self.secret(secret)),
                raw::Auth::None if public => {
                    let message = "`auth: none` with a `server.public_url` would let anybody out there start flows";
                    return Err(self
                        .fault(&format!("webhooks.{name}"), message)
                        .help("use `bearer` or `hmac`, or take `server.public_url` out"));
                }
                // `server.listen` is loopback, or reading ended before.
                raw::Auth::None => WebhookAuth::None,
            };
            Ok((Arc::from(name), auth))
        });
        each.collect()
    }

    fn limits(&self, raw: Option<raw::Limits>) -> Result<Limits, Error> {
        let mut limits = Limits::default();
        let Some(raw) = raw else { return Ok(limits) };
        for (effect, given) in [(Effect::Destructive, raw.destructive), (Effect::Write, raw.write)] {
            let windows = match given {
                None => continue,
                Some(OrOff::Off) => vec![],
                Some(OrOff::On(windows)) => windows,
            };
            if windows.iter().any(|window| window.per.0 < Duration::from_secs(1)) {
                return Err(self.fault(&format!("limits.{}", effect.as_str()), "`per` is at least 1s"));
            }
            limits.windows.insert(effect, windows.iter().map(|w| Window { max: w.max, per: w.per.0 }).collect());
        }
        limits.on_limit = raw.on_limit.unwrap_or(limits.on_limit);
        Ok(limits)
    }

    fn protected(&self, raw: Option<raw::Protected>) -> Result<Protected, Error> {
        let Some(raw) = raw else {
            return Ok(Protected { devices: vec![], users: vec![], on_match: OnMatch::Ask });
        };
        // A rule without a member would protect everything, which nobody means by `{}`.
        if raw.devices.iter().any(|rule| *rule == super::DeviceRule::default())
            || raw.users.iter().any(|rule| *rule == super::UserRule::default())
        {
            return Err(self.fault("protected", "an empty rule; write what it matches, such as `{ name: \"dc*\" }`"));
        }
        Ok(Protected { devices: raw.devices, users: raw.users, on_match: raw.on_match.unwrap_or(OnMatch::Ask) })
    }

    fn poll(&self, raw: BTreeMap<String, Span>) -> Result<BTreeMap<String, Duration>, Error> {
        for (name, Span(every)) in &raw {
            if *every < Duration::from_secs(1) {
                return Err(self.fault(&format!("poll.{name}"), "an interval is at least 1s"));
            }
        }
        Ok(raw.into_iter().map(|(name, Span(every))| (name, every)).collect())
    }
}

fn retention(raw: Option<raw::Retention>) -> Retention {
    let default = Retention::default();
    let Some(raw) = raw else { return default };
    let or = |given: Option<Span>, default| given.map_or(default, |span| span.0);
    Retention {
        runs: or(raw.runs, default.runs),
        payloads: or(raw.payloads, default.payloads),
        dead_letters: or(raw.dead_letters, default.dead_letters),
        audit: or(raw.audit, default.audit),
    }
}

/// Names that stand in URLs, file names and messages.
fn fine_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Whether links to this URL lead away from this machine, so that something carries calls to it.
fn beyond_this_machine(url: &str) -> bool {
    reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(|host| !loopback(host))).unwrap_or(true)
}

/// Whether a host can only be this machine.
fn loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests;
