//! Reading a service's list page by page: what a page is asked with, and whether the next one follows without a gap.
//!
//! Not here: what becomes of the items (see `alert_poll`, `sweep`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::entity::{self, Seen};
use crate::catalog::{Action, Catalog, Paging, TriggerSpec, Type};
use crate::connector::client::Client;
use crate::engine::Outcome;
use crate::guard::hold::HELD;
use crate::journal::StoreError;
use crate::value::{Map, Value};

/// Pages of one reading, against a service that never ends.
pub(super) const MAX_PAGES: usize = 1_000;

/// Reads lists; the client does, and tests do.
pub trait Fetch: Send + Sync {
    fn fetch(
        &self,
        connection: &str,
        action: &str,
        inputs: Map,
    ) -> futures_util::future::BoxFuture<'static, Result<Value, Outcome>>;

    /// As `fetch`, with an answer of a type that says more than the action's own: the columns of a query.
    fn fetch_as(
        &self,
        connection: &str,
        action: &str,
        inputs: Map,
        _output: &Type,
    ) -> futures_util::future::BoxFuture<'static, Result<Value, Outcome>> {
        self.fetch(connection, action, inputs)
    }
}

impl Fetch for Client {
    fn fetch(
        &self,
        connection: &str,
        action: &str,
        inputs: Map,
    ) -> futures_util::future::BoxFuture<'static, Result<Value, Outcome>> {
        Client::fetch(self, connection, action, inputs)
    }

    fn fetch_as(
        &self,
        connection: &str,
        action: &str,
        inputs: Map,
        output: &Type,
    ) -> futures_util::future::BoxFuture<'static, Result<Value, Outcome>> {
        Client::fetch_as(self, connection, action, inputs, Some(output.clone()))
    }
}

/// Why a list could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    #[error("{0}")]
    Service(String, Option<Duration>),
    /// A pause, or a connection that fails: nothing was asked.
    #[error("held: {0}")]
    Held(String),
    #[error("storing what was polled: {0}")]
    Store(#[from] StoreError),
    #[error("the list did not end after {MAX_PAGES} pages")]
    Endless,
    /// The service said that there is more than one reading may take.
    #[error("{0}")]
    TooMuch(String),
    #[error("the list moved while it was read: the next page does not join the one before")]
    Moved,
}

/// The list behind one trigger type on one connection.
#[derive(Clone)]
pub(super) struct Listing {
    pub(super) kind: Arc<str>,
    pub(super) connection: Arc<str>,
    pub(super) action: Arc<Action>,
    /// The entity's field that the watermark follows.
    pub(super) since: Arc<str>,
    /// The inputs that bound that field: at or after, and before (where the list has such an input).
    pub(super) from: Arc<str>,
    pub(super) until: Option<Arc<str>>,
    pub(super) client: Arc<dyn Fetch>,
}

/// From when to when a list is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from: Timestamp,
    pub(super) until: Option<Timestamp>,
}

/// Where a reading stands between two pages.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    skip: i64,
    /// Ids of the page before.
    before: HashSet<String>,
}

/// One page.
pub(super) struct Page {
    pub(super) items: Vec<Value>,
    pub(super) is_last: bool,
}

impl Listing {
    pub(super) fn of(
        spec: &TriggerSpec,
        catalog: &Catalog,
        connection: &Arc<str>,
        client: &Arc<dyn Fetch>,
    ) -> Option<Listing> {
        let action = Arc::clone(catalog.action(spec.list.as_ref()?)?);
        let until: Arc<str> = if &*spec.input == "since" { "until".into() } else { "updated_until".into() };
        Some(Listing {
            kind: Arc::clone(&spec.name),
            connection: Arc::clone(connection),
            since: Arc::clone(spec.since.as_ref()?),
            from: Arc::clone(&spec.input),
            until: action.input(&until).is_some().then_some(until),
            action,
            client: Arc::clone(client),
        })
    }

    /// The next page. Pages that are asked for by position overlap: an item that leaves the list in front of the position
    /// moves the rest forward, and what stood at the border would be in neither page. Where two pages have nothing in common
    /// more has moved than that, and the reading fails as a whole.
    pub(super) async fn page(&self, span: Span, cursor: &mut Cursor) -> Result<Page, PollError> {
        let answer = self.fetch(span, cursor.skip).await?;
        let items = answer.get("value").and_then(Value::as_list).unwrap_or(&[]).to_vec();
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        let is_last = !self.is_paged() || self.is_short(count);
        if self.is_paged() {
            let ids: HashSet<String> = items.iter().filter_map(entity::id).collect();
            if cursor.skip > 0 && ids.is_disjoint(&cursor.before) {
                return Err(PollError::Moved);
            }
            if !is_last && !ids.is_empty() && ids == cursor.before {
                return Err(PollError::Endless);
            }
            cursor.skip += (count - self.overlap()).max(1);
            cursor.before = ids;
        }
        Ok(Page { items, is_last })
    }

    /// What an item is to this trigger type. The bound is checked again here: services have ignored it.
    pub(super) fn read(&self, item: &Value, span: Span) -> Option<Seen> {
        let Some(seen) = entity::read(&self.kind, &self.since, item) else {
            tracing::warn!(trigger = %self.kind, connection = %self.connection,
                "the service listed something without an id or a time; it is left out");
            return None;
        };
        (seen.occurred >= span.from && span.until.is_none_or(|until| seen.occurred < until)).then_some(seen)
    }

    async fn fetch(&self, span: Span, skip: i64) -> Result<Value, PollError> {
        let mut inputs = Map::from([(Arc::clone(&self.from), Value::Datetime(span.from))]);
        if let (Some(name), Some(until)) = (&self.until, span.until) {
            inputs.insert(Arc::clone(name), Value::Datetime(until));
        }
        if self.is_paged() {
            inputs.insert("top".into(), Value::Int(self.page_size()));
            inputs.insert("skip".into(), Value::Int(skip));
        }
        defaults(&self.action, &mut inputs);
        self.client.fetch(&self.connection, &self.action.name, inputs).await.map_err(|outcome| failure(&outcome))
    }

    fn is_paged(&self) -> bool {
        matches!(self.action.paging, Paging::TopSkip | Paging::HasNext)
    }

    fn page_size(&self) -> i64 {
        match self.action.paging {
            Paging::HasNext => 100,
            _ => 1_000,
        }
    }

    fn overlap(&self) -> i64 {
        self.page_size() / 20
    }

    /// Whether nothing can follow a page of so many items. A service that gives fewer than it was asked for stops at a
    /// round number, so that one is asked on.
    fn is_short(&self, count: i64) -> bool {
        count < self.page_size() && (count <= 2 * self.overlap() || count % 50 != 0)
    }
}

/// The client fills in nothing: what is not given is the catalogue's default.
pub(super) fn defaults(action: &Action, inputs: &mut Map) {
    for param in &action.inputs {
        if let Some(default) = &param.default {
            inputs.entry(Arc::clone(&param.name)).or_insert_with(|| default.clone());
        }
    }
}

pub(super) fn failure(outcome: &Outcome) -> PollError {
    match outcome {
        Outcome::Done { .. } => PollError::Service("an answer came as a failure".into(), None),
        Outcome::Refused { status, code, message, retry_after_ms, .. } => {
            PollError::Service(format!("{status} {code}: {message}"), retry_after_ms.map(Duration::from_millis))
        }
        Outcome::Unknown { code, message, .. } if code == "endless_list" => PollError::TooMuch(message.clone()),
        Outcome::NotSent { code, message, .. } if code == HELD => PollError::Held(message.clone()),
        Outcome::NotSent { code, message, .. } | Outcome::Unknown { code, message, .. } => {
            PollError::Service(format!("{code}: {message}"), None)
        }
    }
}
