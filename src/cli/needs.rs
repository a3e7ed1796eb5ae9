//! Which permissions the flows need, by connection: the least with which everything that they can do works.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::{Catalog, ConnectionKind, Effect};
use crate::check::Card;
use crate::config::Config;

/// What people do through `watchfloor alerts` and rules of suppression, whatever the flows do.
const BY_PEOPLE: [&str; 8] = [
    "xdr.list_alerts",
    "xdr.get_incident",
    "xdr.update_alert",
    "xdr.comment_alert",
    "xdr.move_alerts",
    "mde.list_alerts",
    "mde.list_machine_actions",
    "mde.update_alert",
];

/// How the catalogue says of an action's permission that it is an Azure role.
const ON_WORKSPACE: &str = " (a role on the workspace)";

/// What one connection is used for.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Every action with the flows that use it.
    pub(super) actions: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Application permissions, as a token has them, with the actions that need each.
    pub(super) roles: BTreeMap<String, BTreeSet<Arc<str>>>,
    /// Azure roles on the workspace: they are assigned there, and no token tells them.
    pub(super) azure: BTreeMap<String, BTreeSet<Arc<str>>>,
    /// What is granted in another place than the token: a webhook.
    pub(super) others: BTreeMap<String, BTreeSet<Arc<str>>>,
}

/// What flows use, by connection: their actions, what their triggers poll, and the facts that protection reads.
pub(super) fn of<'a>(
    cards: impl IntoIterator<Item = &'a Card>,
    catalog: &Catalog,
    config: &Config,
) -> BTreeMap<Arc<str>, Needs> {
    let mut all: BTreeMap<Arc<str>, Needs> = BTreeMap::new();
    for card in cards {
        let polled = catalog.trigger(&card.trigger).and_then(|trigger| trigger.list.clone());
        let polled = polled.zip(card.source.clone().filter(|_| !card.hook));
        for (action, connection) in card.uses.iter().cloned().chain(polled) {
            let needs = all.entry(connection).or_default();
            let facts = facts(&action, catalog, config);
            for action in std::iter::once(action).chain(facts) {
                needs.actions.entry(action).or_default().insert(Arc::clone(&card.name));
            }
        }
    }
    all.values_mut().for_each(|needs| needs.grant(catalog));
    all
}

/// What is read about the target of an effect before it is touched, where the configuration protects some.
fn facts(action: &str, catalog: &Catalog, config: &Config) -> Option<Arc<str>> {
    let action = catalog.action(action).filter(|action| action.effect != Effect::Read)?;
    let (kind, protected) = (&action.target.as_ref()?.kind, &config.protected);
    match (&**kind, action.kind) {
        ("device", ConnectionKind::Mde) if !protected.devices.is_empty() => Some("mde.get_machine".into()),
        ("user", ConnectionKind::Graph) if !protected.users.is_empty() => Some("entra.get_user".into()),
        _ => None,
    }
}

/// Whether a permission is one that commands of people take, over connections of this kind.
pub(super) fn by_people(role: &str, kind: ConnectionKind, catalog: &Catalog) -> bool {
    let actions = BY_PEOPLE.iter().filter_map(|name| catalog.action(name)).filter(|action| action.kind == kind);
    actions.flat_map(|action| words(&action.permission)).any(|needed| needed == role)
}

/// The application permissions that an action's text names.
fn words(permission: &str) -> impl Iterator<Item = &str> {
    permission.split([' ', ',']).filter(|word| is_role(word))
}

impl Needs {
    fn grant(&mut self, catalog: &Catalog) {
        for name in self.actions.keys() {
            let Some(action) = catalog.action(name) else { continue };
            let roles: Vec<&str> = words(&action.permission).collect();
            for role in &roles {
                self.roles.entry((*role).to_owned()).or_default().insert(Arc::clone(name));
            }
            if let Some(role) = action.permission.strip_suffix(ON_WORKSPACE) {
                self.azure.entry(role.to_owned()).or_default().insert(Arc::clone(name));
            } else if roles.is_empty() {
                self.others.entry(action.permission.to_string()).or_default().insert(Arc::clone(name));
            }
        }
        fold(&mut self.roles);
        fold(&mut self.azure);
    }

    /// Needed, and not among those granted.
    pub(super) fn missing(&self, granted: &BTreeSet<String>) -> Vec<(&str, &BTreeSet<Arc<str>>)> {
        let lacking = self.roles.iter().filter(|(role, _)| !granted.iter().any(|it| covers(it, role)));
        lacking.map(|(role, actions)| (role.as_str(), actions)).collect()
    }

    /// Granted, and not needed; with the narrower one that would do, where there is one.
    pub(super) fn excess<'a>(&'a self, granted: &'a BTreeSet<String>) -> Vec<(&'a str, Option<&'a str>)> {
        let more = granted.iter().filter(|role| !self.roles.contains_key(*role));
        let narrower = |wide: &str| self.roles.keys().find(|role| covers(wide, role) && !granted.contains(*role));
        more.map(|role| (role.as_str(), narrower(role).map(String::as_str))).collect()
    }
}

/// What another needed one covers is not needed.
fn fold(needed: &mut BTreeMap<String, BTreeSet<Arc<str>>>) {
    let names: Vec<String> = needed.keys().cloned().collect();
    for narrow in &names {
        let wide = names.iter().find(|wide| *wide != narrow && covers(wide, narrow));
        if let Some(wide) = wide
            && let Some(actions) = needed.remove(narrow)
        {
            needed.entry(wide.clone()).or_default().extend(actions);
        }
    }
}

/// Whether a word is an application permission: `Machine.Isolate`, `Alert.Read.All`.
fn is_role(word: &str) -> bool {
    let mut parts = word.split('.');
    word.contains('.')
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && parts.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
}

/// Whether one permission allows all that another allows (permission tables of the services).
fn covers(wide: &str, narrow: &str) -> bool {
    let read = |role: &str| role.replacen(".Read", ".ReadWrite", 1) == wide && !role.contains(".ReadWrite");
    wide == narrow
        || read(narrow)
        || (wide == "Investigation.manage" && narrow == "Investigation.read")
        || (wide == "Microsoft Sentinel Responder" && narrow == "Microsoft Sentinel Reader")
}

/// The name of the API among which a permission of a connection's kind is found.
pub(super) fn api(kind: ConnectionKind) -> Option<&'static str> {
    Some(match kind {
        ConnectionKind::Mde => "WindowsDefenderATP",
        ConnectionKind::Graph => "Microsoft Graph",
        ConnectionKind::CloudApps => "Microsoft Cloud App Security",
        ConnectionKind::Email => "Office 365 Exchange Online",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_permission_covers_the_narrower_one_and_nothing_else() {
        assert!(covers("Alert.ReadWrite.All", "Alert.Read.All") && covers("Machine.Isolate", "Machine.Isolate"));
        assert!(covers("MailboxSettings.ReadWrite", "MailboxSettings.Read"));
        assert!(covers("Investigation.manage", "Investigation.read"));
        for (wide, narrow) in [
            ("Alert.Read.All", "Alert.ReadWrite.All"),
            ("Machine.Isolate", "Machine.Read.All"),
            ("User.ReadWrite.All", "UserX.Read.All"),
            ("Mail.ReadWrite", "MailboxSettings.Read"),
        ] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
        assert!(is_role("Alert.Read.All") && is_role("SMTP.SendAsApp") && is_role("Investigation.read"));
        assert!(!is_role("Workflows") && !is_role("a.b") && !is_role("says."));
    }
}
