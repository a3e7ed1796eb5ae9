//! `doctor`: is everything that the flows need there? Each connection's name, answer, clock, token and permissions; secrets
//! and back ends that end. It asks and changes nothing, and sends neither mail nor card.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::load::Site;
use super::needs::{self, Needs};
use super::out::{Out, safe};
use super::{Global, catalogues, endings, load};
use crate::catalog::{Catalog, ConnectionKind};
use crate::clock::Clock;
use crate::config::{Config, Connection, Credential, Proof, SecretRef};
use crate::connector::examine::{Examined, Held};
use crate::connector::{Client, vault};
use crate::error::{Error, ExitCode};

/// Entra forgives five minutes; what is more than one is told.
const SKEW: (i64, i64) = (60, 300);
/// What ends within this time is told.
const SOON: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only these connections
    connections: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    /// Nothing fails today.
    Note,
    Fail,
}

/// What one question came to.
#[derive(Debug, Serialize)]
struct Finding {
    /// The connection, or what else it is about.
    about: String,
    check: &'static str,
    level: Level,
    text: String,
    /// What somebody does about it.
    todo: Option<String>,
}

pub(super) fn run(args: &Args, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let config = global.config()?;
    if let Some(unknown) = args.connections.iter().find(|name| !config.connections.contains_key(name.as_str())) {
        return Err(Error::new(ExitCode::NothingMatched, format!("there is no connection {unknown}")));
    }
    let catalog = Arc::new(catalogues::open(Some(&config))?);
    let flows = load::load(&config.flows, &catalog, &Site::of(&config), None)?;
    let mut found = vec![];
    if flows.errors() > 0 {
        let text = format!("{} errors: what these flows need is not looked at", flows.errors());
        found.push(Finding::new("flows", "check", Level::Fail, text).todo("`watchfloor check` shows them"));
    }
    let cards = || flows.flows.iter().map(|(card, _)| card);
    let needs = needs::of(cards(), &catalog, &config);
    let wanted = |name: &str| args.connections.is_empty() || args.connections.iter().any(|it| it == name);
    found.extend(super::runtime()?.block_on(ask(&config, &catalog, &needs, wanted)));
    for ending in endings::of(cards(), &catalog, Some(&config))? {
        found.push(Finding::new("back ends", "date", Level::Note, ending.sentence()));
    }
    let failed = found.iter().filter(|it| it.level == Level::Fail).count();
    let notes = found.iter().filter(|it| it.level == Level::Note).count();
    if out.is_human() {
        print(&found, out);
        out.say(&format!("{} checks, {failed} failed, {notes} notes", found.len()));
    } else {
        out.json(&json!({ "ok": failed == 0, "findings": found }));
    }
    Ok(if failed == 0 { ExitCode::Ok } else { ExitCode::Findings })
}

fn print(found: &[Finding], out: &Out) {
    let mut about = "";
    for it in found {
        if it.about != about {
            about = &it.about;
            out.line(&safe(about));
        }
        let level = match it.level {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Fail => "FAIL",
        };
        out.line(&safe(&format!("  {level:<5} {:<11} {}", it.check, it.text)));
        if let Some(todo) = &it.todo {
            out.line(&safe(&format!("                    to do: {todo}")));
        }
    }
}

/// Everything that takes the network: vaults first, since what opens a connection may be in one.
async fn ask(
    config: &Config,
    catalog: &Arc<Catalog>,
    needs: &BTreeMap<Arc<str>, Needs>,
    wanted: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let clock = Clock::system();
    let mut found = vec![];
    if !config.key_vaults.is_empty() {
        match vault::read(config, &clock).await {
            Ok(()) => {
                let text = "every secret that is in one was read".to_owned();
                found.push(Finding::new("key vaults", "secrets", Level::Ok, text));
            }
            Err(faults) => found.extend(faults.into_iter().map(|it| Finding::error("key vaults", "secrets", it))),
        }
    }
    found.extend(webhooks(config, &clock));
    let judge_of = |connection: &Connection| Judge {
        needs: needs.get(&connection.name),
        elsewhere: elsewhere(config, needs, connection),
        catalog: Arc::clone(catalog),
    };
    let each = config.connections.values().filter(|connection| wanted(&connection.name)).map(|connection| {
        let (connections, webhooks) = ([(Arc::clone(&connection.name), connection.clone())].into(), BTreeMap::new());
        let alone = Config { connections, webhooks, ..config.clone() };
        let (catalog, clock, judge) = (Arc::clone(catalog), clock.clone(), judge_of(connection));
        async move {
            match Client::open(&alone, catalog, clock.clone()) {
                Err(error) => vec![Finding::error(&connection.name, "credential", error)],
                Ok(client) => {
                    let mut found = expiries(&client, connection, &clock);
                    if let Some(examined) = client.examine(&connection.name).await {
                        found.extend(judge.judge(connection, examined));
                    }
                    found
                }
            }
        }
    });
    found.extend(join_all(each).await.into_iter().flatten());
    found
}

/// The secrets that callers of webhooks prove themselves with.
fn webhooks(config: &Config, clock: &Clock) -> Vec<Finding> {
    let mut found = vec![];
    for (place, secret) in config.secrets() {
        let Some((name, _)) = place.strip_prefix("webhooks.").and_then(|rest| rest.split_once('.')) else { continue };
        let about = format!("webhook {name}");
        match (secret.resolve(), secret) {
            (Err(why), _) => {
                let todo = "put the secret where the configuration reads it";
                found.push(Finding::new(&about, "secret", Level::Fail, why).todo(todo));
            }
            (Ok(_), SecretRef::Vault(vaulted)) => {
                found.extend(vaulted.expires().map(|at| expiry(&about, &format!("the secret {vaulted}"), at, clock)));
            }
            (Ok(_), _) => {}
        }
    }
    found
}

fn expiries(client: &Client, connection: &Connection, clock: &Clock) -> Vec<Finding> {
    client.expiries().iter().map(|it| expiry(&connection.name, &it.what, it.at, clock)).collect()
}

fn expiry(about: &str, what: &str, at: Timestamp, clock: &Clock) -> Finding {
    let left = at.duration_since(clock.now());
    let (level, todo) = match left {
        left if left.is_negative() => (Level::Fail, Some("renew it: it has ended")),
        left if left < SOON => (Level::Note, Some("renew it before that")),
        _ => (Level::Ok, None),
    };
    Finding { todo: todo.map(str::to_owned), ..Finding::new(about, "expiry", level, format!("{what} ends on {at}")) }
}

/// The permissions that other connections need of the same application, which share its tokens.
fn elsewhere(config: &Config, needs: &BTreeMap<Arc<str>, Needs>, connection: &Connection) -> BTreeSet<String> {
    let application = |it: &Connection| match &it.credential {
        Credential::Entra(entra) | Credential::Mailbox { entra, .. } => {
            Some((it.kind, entra.tenant_id.clone(), entra.client_id.clone()))
        }
        _ => None,
    };
    let own = application(connection);
    let others = config.connections.values().filter(|it| it.name != connection.name && application(it) == own);
    others.filter_map(|it| needs.get(&it.name)).flat_map(|needs| needs.roles.keys().cloned()).collect()
}

/// What one connection is held against.
struct Judge<'a> {
    needs: Option<&'a Needs>,
    elsewhere: BTreeSet<String>,
    catalog: Arc<Catalog>,
}

impl Judge<'_> {
    fn judge(&self, connection: &Connection, examined: Examined) -> Vec<Finding> {
        let finding = |check, level, text: String| Finding::new(&connection.name, check, level, text);
        let mut found = vec![];
        match examined.addresses {
        Ok(addresses) => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            found.push(finding("name", Level::Ok, format!("{} is {}", examined.place, addresses.join(", "))));
        }
        Err(why) => found.push(finding("name", Level::Fail, why).todo(
            "check base_url, server or webhook_url of the connection, and this machine's name service (/etc/resolv.conf)",
        )),
    }
        match examined.answers {
        Ok(skew) => {
            let signs_in = connection.kind == ConnectionKind::Email && !matches!(connection.credential, Credential::None);
            let signed_in = if signs_in { ", and takes our sign-in" } else { "" };
            found.push(finding("answer", Level::Ok, format!("{} answers{signed_in}", examined.place)));
            found.extend(skew.map(|skew| clock(connection, skew)));
        }
        Err(why) => found.push(finding("answer", Level::Fail, why).todo(
            "let this machine reach it: firewall, proxy, ca_file for a private authority; what the message names otherwise",
        )),
    }
        match examined.token {
            None => found.extend(unseen(connection)),
            Some(Err(why)) => found.push(finding("token", Level::Fail, why)),
            Some(Ok(held)) => {
                let ends = held.ends.map_or_else(String::new, |ends| format!(", until {ends}"));
                let text = format!("the application {} for {}{ends}", held.application, held.audience);
                found.push(finding("token", Level::Ok, text));
                found.extend(self.roles(connection, &held));
            }
        }
        if self.needs.is_none() {
            let todo = "take it out of the configuration, and its permissions with it";
            found.push(finding("use", Level::Note, "no flow uses this connection".into()).todo(todo));
        }
        found
    }

    /// What is granted against what the flows need.
    fn roles(&self, connection: &Connection, held: &Held) -> Vec<Finding> {
        let Some(needs) = self.needs else { return vec![] };
        let finding = |level, text: String| Finding::new(&connection.name, "permissions", level, text);
        let where_to = Grant::of(connection);
        let (missing, mut excess) = (needs.missing(&held.roles), needs.excess(&held.roles));
        excess.retain(|(role, _)| !self.elsewhere.contains(*role));
        let mut found = vec![];
        for (role, actions) in &missing {
            let flows: BTreeSet<&str> =
                actions.iter().filter_map(|action| needs.actions.get(action)).flatten().map(|flow| &**flow).collect();
            let (actions, flows) = (join(actions.iter().map(|it| &**it)), join(flows));
            let text = format!("{role} is missing: {actions} of {flows} can't work");
            found.push(finding(Level::Fail, text).todo(&where_to.add(role)));
        }
        for (role, narrower) in &excess {
            let mut text = match narrower {
                Some(narrow) => format!("{role} is granted where {narrow} would do"),
                None => format!("{role} is granted, and no flow needs it"),
            };
            if needs::by_people(role, connection.kind, &self.catalog) {
                text.push_str("; people use it through `watchfloor alerts`");
                found.push(finding(Level::Note, text));
                continue;
            }
            found.push(finding(Level::Fail, text).todo(&where_to.remove(role, *narrower)));
        }
        if missing.is_empty() && excess.is_empty() && (needs.azure.is_empty() || !held.roles.is_empty()) {
            let list = join(held.roles.iter().map(String::as_str));
            found.push(finding(Level::Ok, if list.is_empty() { "none is needed".into() } else { list }));
        }
        for (role, actions) in &needs.azure {
            let actions = join(actions.iter().map(|it| &**it));
            let text = format!(
                "{actions} needs the Azure role {role} on the workspace; no token tells whether it is assigned"
            );
            found.push(finding(Level::Note, text).todo(&where_to.assign(role)));
        }
        for (other, actions) in &needs.others {
            let text = format!("{} needs {other}, which no token tells", join(actions.iter().map(|it| &**it)));
            found.push(finding(Level::Note, text));
        }
        found
    }
}

fn clock(connection: &Connection, skew: i64) -> Finding {
    let (told, forgiven) = SKEW;
    let level = match skew.abs() {
        off if off > forgiven => Level::Fail,
        off if off > told => Level::Note,
        _ => Level::Ok,
    };
    let way = if skew < 0 { "behind" } else { "ahead of" };
    let finding = Finding::new(&connection.name, "clock", level, format!("its clock is {} s {way} ours", skew.abs()));
    if level == Level::Ok { finding } else { finding.todo("set this machine's clock: timedatectl set-ntp true") }
}

/// A credential whose rights nobody can see from here.
fn unseen(connection: &Connection) -> Option<Finding> {
    let text = match connection.credential {
        Credential::ApiToken(_) => "an API token, which has the rights of the person who made it",
        Credential::Password { .. } => "a user name and a password",
        Credential::Bearer(_) => "a bearer token",
        Credential::None | Credential::Entra(_) | Credential::Mailbox { .. } => return None,
    };
    Some(Finding::new(&connection.name, "rights", Level::Note, format!("{text}: what it may do can't be seen")))
}

/// Where an administrator grants permissions.
struct Grant {
    api: &'static str,
    /// A managed identity has no app registration.
    machine: bool,
}

impl Grant {
    fn of(connection: &Connection) -> Self {
        let machine = match &connection.credential {
            Credential::Entra(entra) | Credential::Mailbox { entra, .. } => {
                matches!(entra.proof, Proof::ManagedIdentity { .. })
            }
            _ => false,
        };
        Grant { api: needs::api(connection.kind).unwrap_or("the service"), machine }
    }

    fn add(&self, role: &str) -> String {
        let api = self.api;
        match self.machine {
            true => format!(
                "give the managed identity the app role {role} of {api}: New-MgServicePrincipalAppRoleAssignment; tokens have it \
                 after some hours"
            ),
            false => format!(
                "App registrations > the app > API permissions > Add a permission > {api} > Application permissions > {role}, \
                 then Grant admin consent"
            ),
        }
    }

    /// A role in Azure, which is assigned where it counts.
    fn assign(&self, role: &str) -> String {
        let whom = if self.machine { "the managed identity" } else { "the app" };
        format!(
            "see that it is: the workspace in the Azure portal > Access control (IAM) > Role assignments; else Add role \
             assignment > {role} > {whom}"
        )
    }

    fn remove(&self, role: &str, narrower: Option<&str>) -> String {
        let first = narrower.map_or_else(String::new, |narrow| format!("{}; then ", self.add(narrow)));
        match self.machine {
            true => format!("{first}take the app role {role} away: Remove-MgServicePrincipalAppRoleAssignment"),
            false => format!(
                "{first}App registrations > the app > API permissions > {role} > Revoke admin consent, and remove it"
            ),
        }
    }
}

fn join<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().collect::<Vec<_>>().join(", ")
}

impl Finding {
    fn new(about: &str, check: &'static str, level: Level, text: String) -> Self {
        Finding { about: about.to_owned(), check, level, text, todo: None }
    }

    fn error(about: &str, check: &'static str, error: Error) -> Self {
        Finding { todo: error.help, ..Finding::new(about, check, Level::Fail, error.message) }
    }

    fn todo(self, todo: &str) -> Self {
        Finding { todo: Some(todo.to_owned()), ..self }
    }
}
