//! Alerts for commands: read over Microsoft Graph, which has those of every product, or over the API of Defender for
//! Endpoint where no connection of kind graph is configured. Every filter is applied here too, whatever the service did.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value as Json;

use super::{Global, runs};
use crate::catalog::{Catalog, ConnectionKind};
use crate::clock::Clock;
use crate::config::Config;
use crate::connector::{Client, vault};
use crate::engine::Outcome;
use crate::error::{Error, ExitCode};
use crate::journal::sqlite::SqliteStore;
use crate::triage::{Alert, evidence};
use crate::value::{Map, Value};

/// Alerts in a page, and pages of one list: what lies behind them must be asked for more narrowly.
const PAGE: usize = 100;
const PAGES: usize = 50;
/// Two pages have so many places in common: an alert that comes or goes meanwhile hides none.
const SHARED: usize = 5;

/// Which alerts are wanted; an empty list means all.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) since: Timestamp,
    pub(super) severities: Vec<String>,
    pub(super) statuses: Vec<String>,
    pub(super) sources: Vec<String>,
    /// In lower case.
    pub(super) entity: Option<String>,
    pub(super) investigations: Vec<String>,
}

impl Filter {
    pub(super) fn all_since(since: Timestamp) -> Self {
        Filter { since, ..Filter::default() }
    }

    pub(super) fn matches(&self, alert: Alert<'_>) -> bool {
        let one_of = |words: &[String], have: Option<&str>| {
            words.is_empty() || have.is_some_and(|have| words.iter().any(|word| word.eq_ignore_ascii_case(have)))
        };
        alert.created().is_none_or(|created| created >= self.since)
            && one_of(&self.severities, alert.text("severity"))
            && one_of(&self.statuses, alert.text("status"))
            && one_of(&self.sources, Some(&alert.source().service))
            && one_of(&self.investigations, alert.investigation_state())
            && self.entity.as_ref().is_none_or(|text| names(alert, text))
    }
}

/// Whether the evidence of an alert has this text, which is in lower case.
fn names(alert: Alert<'_>, text: &str) -> bool {
    let facts = evidence::facts(alert);
    let mut values = facts.iter().flat_map(|fact| fact.fields.iter().map(|(_, value)| value));
    values.any(|value| value.to_lowercase().contains(text))
}

/// The way to the alerts of a tenant.
pub(super) struct Reader {
    pub(super) config: Config,
    pub(super) connection: Arc<str>,
    pub(super) kind: ConnectionKind,
    client: Client,
}

impl Reader {
    /// Opens the connections that alerts are read over; `named` is the one that a person wants.
    ///
    /// # Errors
    /// Where there is none, or several and none is named.
    pub(super) fn open(global: &Global, named: Option<&str>) -> Result<Reader, Error> {
        let mut config = global.config()?;
        let (connection, kind) = choose(&config, named)?;
        // A secret of another service that is missing here is nothing to this command.
        config.connections.retain(|name, it| {
            *name == connection
                || matches!(it.kind, ConnectionKind::Graph | ConnectionKind::Mde | ConnectionKind::CloudApps)
        });
        if !config.key_vaults.is_empty() {
            let read = super::runtime()?.block_on(vault::read(&config, &Clock::system()));
            read.map_err(|mut faults| faults.swap_remove(0))?;
        }
        let client = Client::open(&config, Arc::new(Catalog::builtin()?), Clock::system())?;
        Ok(Reader { config, connection, kind, client })
    }

    /// The store, where there is one: alerts can be read without a service ever having run.
    pub(super) fn store(&self) -> Option<SqliteStore> {
        SqliteStore::open_read(&self.config.store).ok()
    }

    /// Alerts by a filter, the newest first, and whether there are more.
    pub(super) async fn list(&self, filter: &Filter, limit: usize) -> Result<(Vec<Json>, bool), Error> {
        let mut found: Vec<Json> = vec![];
        let mut skip = 0;
        for _ in 0..PAGES {
            let page = self.page(filter, skip).await?;
            let whole = page.len() >= PAGE;
            for alert in page.into_iter().filter(|alert| filter.matches(Alert(alert))) {
                if !found.iter().any(|known| Alert(known).id() == Alert(&alert).id()) {
                    found.push(alert);
                }
            }
            let enough = found.len() > limit && self.kind == ConnectionKind::Graph;
            if !whole || enough {
                found.sort_by_key(|alert| std::cmp::Reverse(Alert(alert).created()));
                let more = found.len() > limit;
                found.truncate(limit);
                return Ok((found, more));
            }
            skip += PAGE - SHARED;
        }
        found.sort_by_key(|alert| std::cmp::Reverse(Alert(alert).created()));
        found.truncate(limit);
        Ok((found, true))
    }

    async fn page(&self, filter: &Filter, skip: usize) -> Result<Vec<Json>, Error> {
        let number = |n: usize| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        let texts = |words: &[String]| Value::list(words.iter().map(Value::str).collect());
        let mut inputs = Map::from([
            ("since".into(), Value::Datetime(filter.since)),
            ("top".into(), number(PAGE)),
            ("skip".into(), number(skip)),
        ]);
        let mut lists = vec![("severity", &filter.severities), ("status", &filter.statuses)];
        let action = if self.kind == ConnectionKind::Graph {
            lists.push(("sources", &filter.sources));
            "xdr.list_alerts"
        } else {
            "mde.list_alerts"
        };
        inputs.extend(
            lists.into_iter().filter(|(_, words)| !words.is_empty()).map(|(name, words)| (name.into(), texts(words))),
        );
        let answer = self.fetch(&self.connection, action, inputs).await?;
        Ok(answer.get("value").and_then(Json::as_array).cloned().unwrap_or_default())
    }

    /// One alert, by its id in any form.
    pub(super) async fn alert(&self, id: &str) -> Result<Json, Error> {
        let action = if self.kind == ConnectionKind::Graph { "xdr.get_alert" } else { "mde.get_alert" };
        let inputs = Map::from([("alert_id".into(), Value::str(id))]);
        self.fetch(&self.connection, action, inputs).await
    }

    /// The alerts that are like one of this tenant, of the last days.
    pub(super) async fn others(&self, alert: Alert<'_>, days: u32) -> Result<(Vec<Json>, bool), Error> {
        let back = SignedDuration::from_hours(i64::from(days) * 24);
        let since = Clock::system().now().checked_sub(back).unwrap_or(Timestamp::UNIX_EPOCH);
        let source = alert.source().service;
        let sources = if source == "Unknown" { vec![] } else { vec![source] };
        self.list(&Filter { sources, ..Filter::all_since(since) }, PAGE * PAGES).await
    }

    /// The only connection of a kind, if there is one.
    pub(super) fn of_kind(&self, kind: ConnectionKind) -> Option<&Arc<str>> {
        let mut fit = self.config.connections.iter().filter(|(_, it)| it.kind == kind).map(|(name, _)| name);
        fit.next().filter(|_| fit.next().is_none())
    }

    pub(super) async fn fetch(&self, connection: &str, action: &str, inputs: Map) -> Result<Json, Error> {
        let answer = self.client.fetch(connection, action, inputs).await;
        answer.map(|value| value.to_json()).map_err(|outcome| failed(connection, action, outcome))
    }
}

fn failed(connection: &str, action: &str, outcome: Outcome) -> Error {
    match outcome {
        Outcome::Refused { status: 404, .. } => {
            Error::new(ExitCode::NothingMatched, format!("{action} over {connection}: the service knows no such id"))
        }
        Outcome::Refused { status: status @ (401 | 403), message, .. } => {
            Error::new(ExitCode::Permission, format!("{action} over {connection}: {status} {message}"))
                .help(format!("`watchfloor actions show {action}` names the permission"))
        }
        Outcome::Refused { message, .. } | Outcome::NotSent { message, .. } | Outcome::Unknown { message, .. } => {
            Error::new(ExitCode::Temporary, format!("{action} over {connection}: {message}"))
        }
        Outcome::Done { .. } => Error::new(ExitCode::Temporary, format!("{action} over {connection}")),
    }
}

/// The connection that alerts are handled over.
fn choose(config: &Config, named: Option<&str>) -> Result<(Arc<str>, ConnectionKind), Error> {
    let fit = |kind| config.connections.values().filter(move |it| it.kind == kind).map(|it| Arc::clone(&it.name));
    if let Some(named) = named {
        let found = config.connections.get(named);
        let found = found.ok_or_else(|| Error::usage(format!("there is no connection {named}")))?;
        return match found.kind {
            kind @ (ConnectionKind::Graph | ConnectionKind::Mde) => Ok((Arc::clone(&found.name), kind)),
            other => {
                Err(Error::usage(format!("{named} is of kind {}: alerts are read over graph or mde", other.as_str())))
            }
        };
    }
    for kind in [ConnectionKind::Graph, ConnectionKind::Mde] {
        let names: Vec<_> = fit(kind).collect();
        match names.as_slice() {
            [] => {}
            [only] => return Ok((Arc::clone(only), kind)),
            several => {
                let names: Vec<&str> = several.iter().map(|name| &**name).collect();
                return Err(Error::usage(format!("several connections have alerts: {}", names.join(", ")))
                    .help("name one with `--connection`"));
            }
        }
    }
    Err(Error::config("alerts are read over a connection of kind graph or mde, and none is configured")
        .help("add one under `connections:`"))
}

/// The store that the service writes; it must be there.
pub(super) fn store(global: &Global) -> Result<SqliteStore, Error> {
    runs::open(global)
}
