//! Which announced ends of back ends concern the flows and connections of an installation.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use crate::catalog::Catalog;
use crate::catalog::backends::Backend;
use crate::check::Card;
use crate::config::{Config, Connection, Credential};
use crate::error::Error;

/// A back end that ends or is on its way out, and what uses it.
#[derive(Debug, Serialize)]
pub(super) struct Ending {
    backend: String,
    title: String,
    /// The day, where one is announced.
    pub(super) end: Option<String>,
    replacement: Option<String>,
    flows: BTreeSet<Arc<str>>,
    actions: BTreeSet<Arc<str>>,
    connections: BTreeSet<Arc<str>>,
    note: Option<String>,
    source: String,
    #[serde(skip)]
    fate: String,
}

/// What concerns these flows and connections, in the order of the table.
pub(super) fn of<'a>(
    cards: impl IntoIterator<Item = &'a Card>,
    catalog: &Catalog,
    config: Option<&Config>,
) -> Result<Vec<Ending>, Error> {
    let all = Backend::all()?;
    let mut endings: Vec<Ending> = all.iter().map(Ending::of).collect();
    for card in cards {
        let polled = catalog.trigger(&card.trigger).and_then(|trigger| trigger.list.clone());
        for action in card.uses.iter().map(|(action, _)| Arc::clone(action)).chain(polled) {
            let Some(at) = all.iter().position(|backend| backend.serves(&action)) else { continue };
            let Some(ending) = endings.get_mut(at) else { continue };
            ending.flows.insert(Arc::clone(&card.name));
            ending.actions.insert(action);
        }
    }
    for connection in config.into_iter().flat_map(|config| config.connections.values()) {
        for (backend, ending) in all.iter().zip(&mut endings) {
            if backend.credential.as_deref().is_some_and(|kind| signs_in(connection, kind)) {
                ending.connections.insert(Arc::clone(&connection.name));
            }
        }
    }
    endings.retain(|it| {
        let used = !it.flows.is_empty() || !it.connections.is_empty();
        used && (it.end.is_some() || !it.connections.is_empty())
    });
    Ok(endings)
}

/// Whether a connection signs in as a row of the table means it.
fn signs_in(connection: &Connection, kind: &str) -> bool {
    match (&connection.credential, kind) {
        (Credential::ApiToken(_), "api_token") => true,
        (Credential::Password { .. }, "exchange_password") => connection.email.as_ref().is_some_and(|email| {
            let host = email.host.to_ascii_lowercase();
            host.ends_with(".office365.com") || host.ends_with(".outlook.com")
        }),
        _ => false,
    }
}

impl Ending {
    fn of(backend: &Backend) -> Self {
        Ending {
            backend: backend.name.clone(),
            title: backend.title.clone(),
            end: backend.end.map(|end| end.to_string()),
            replacement: backend.replacement.clone(),
            flows: BTreeSet::new(),
            actions: BTreeSet::new(),
            connections: BTreeSet::new(),
            note: backend.note.clone(),
            source: backend.source.clone(),
            fate: backend.fate(),
        }
    }

    /// One sentence for people.
    pub(super) fn sentence(&self) -> String {
        let names = |names: &BTreeSet<Arc<str>>| names.iter().map(|name| &**name).collect::<Vec<_>>().join(", ");
        let who = match (self.flows.len(), self.connections.is_empty()) {
            (1, true) => format!("{} uses {}", names(&self.flows), names(&self.actions)),
            (n, true) => format!("{n} flows use {}", names(&self.actions)),
            (_, false) => format!("connection {}", names(&self.connections)),
        };
        let note = self.note.as_ref().map_or_else(String::new, |note| format!(" {note}"));
        format!("{} ({who}): {}.{note} Source: {}", self.title, self.fate, self.source)
    }
}
