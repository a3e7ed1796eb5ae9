//! A start by hand: `start FLOW` with inputs, or with the id of an alert or an incident that is read first.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::alert_poll::Fetch;
use super::{Event, Intake, entity, form, listing};
use crate::catalog::Catalog;
use crate::engine::Outcome;
use crate::error::{Error, ExitCode};
use crate::id::RunId;
use crate::value::{Map, Value};

/// What a person asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    pub flow: String,
    /// `inputs.*` as typed: text by name.
    #[serde(default)]
    pub inputs: std::collections::BTreeMap<String, String>,
    /// The id of an alert, an incident or a detection, by the flow's trigger type.
    #[serde(default)]
    pub event: Option<String>,
    /// Tells one start from another; the same token starts one run.
    pub token: String,
}

/// Starts a run and returns its id.
pub async fn start(intake: &Intake, catalog: &Catalog, client: &dyn Fetch, wanted: &Start) -> Result<RunId, Error> {
    let deployed = intake.flows.find(&wanted.flow).ok_or_else(|| {
        let flows = intake.flows.now();
        let help = crate::diag::suggestion(&wanted.flow, flows.iter().map(|deployed| &**deployed.name()));
        let error = Error::new(ExitCode::NothingMatched, format!("there is no flow {}", wanted.flow));
        match help {
            Some(help) => error.help(help),
            None => error,
        }
    })?;
    let flow = deployed.flow().map_err(|error| Error::new(ExitCode::Temporary, error))?;
    let given = wanted.inputs.iter().map(|(name, text)| {
        let declared = flow.inputs.iter().find(|input| *input.name == **name);
        let declared = declared.ok_or_else(|| Error::usage(format!("the flow {} has no input {name}", flow.name)))?;
        Ok((name.clone(), form::typed(text, &declared.ty)))
    });
    let given = given.collect::<Result<serde_json::Map<String, Json>, Error>>()?;
    let inputs = form::fill(&flow.inputs, &given).map_err(|message| {
        Error::usage(format!("the inputs of {}: {message}", flow.name)).help("give them with `--input NAME=VALUE`")
    })?;
    let now = intake.clock.now();
    let (payload, occurred, key) = match (&wanted.event, &flow.trigger.connection) {
        (Some(id), Some(connection)) => {
            let seen = read(catalog, client, &flow.trigger.kind, connection, id).await?;
            // A person decided now: the event's age is not what `fresh_for` is about.
            (chosen(&flow.trigger.kind, seen.payload), now, format!("manual:{}:{}", wanted.token, seen.id))
        }
        (Some(_), None) => {
            let message = format!("the flow {} is not started by alerts or incidents", flow.name);
            return Err(Error::usage(message).help("leave out --alert and --incident"));
        }
        (None, _) if matches!(&*flow.trigger.kind, "manual" | "schedule") => {
            (started_by_hand(&flow.trigger.kind, now), now, format!("manual:{}", wanted.token))
        }
        (None, _) if flow.trigger.webhook.is_some() => {
            let message = format!("the flow {} is started by a webhook", flow.name);
            return Err(Error::usage(message).help("POST to /hooks/NAME instead"));
        }
        (None, _) if matches!(&*flow.trigger.kind, "hunt.rows" | "flow.finished") => {
            let message = format!("the flow {} is started by {} alone", flow.name, flow.trigger.kind);
            return Err(
                Error::usage(message).help("put its steps into a flow with `trigger: { type: manual }` to start them")
            );
        }
        (None, _) => {
            let message = format!("the flow {} is started by {}", flow.name, flow.trigger.kind);
            return Err(Error::usage(message).help("say for which one: `--alert ID` or `--incident ID`"));
        }
    };
    let kind = Arc::clone(&flow.trigger.kind);
    let event = Event {
        kind,
        connection: None,
        flow: Some(Arc::clone(&flow.name)),
        only: None,
        key,
        occurred,
        payload,
        inputs,
    };
    let offered = intake
        .offer(vec![event], vec![])
        .await
        .map_err(|error| Error::new(ExitCode::Temporary, format!("storing the start: {error}")))?;
    offered.started.into_iter().next().ok_or_else(|| Error::new(ExitCode::NothingMatched, "this start was made before"))
}

/// Nothing is known to have changed of what a person chose.
fn chosen(kind: &str, payload: Value) -> Value {
    if !kind.ends_with(".changed") {
        return payload;
    }
    let mut members = payload.as_map().cloned().unwrap_or_default();
    members.insert("changed".into(), Value::list(vec![]));
    Value::map(members)
}

fn started_by_hand(kind: &str, now: jiff::Timestamp) -> Value {
    if kind != "schedule" {
        return Value::empty();
    }
    let start = now.checked_sub(jiff::SignedDuration::from_hours(26)).unwrap_or(now);
    Value::object([
        ("scheduled", Value::Datetime(now)),
        ("window_start", Value::Datetime(start)),
        ("window_end", Value::Datetime(now)),
    ])
}

/// Reads one entity by the `get` action beside the trigger type's list.
pub(super) async fn read(
    catalog: &Catalog,
    client: &dyn Fetch,
    kind: &str,
    connection: &str,
    id: &str,
) -> Result<entity::Seen, Error> {
    let unreadable = || Error::usage(format!("one event of {kind} can't be read by its id"));
    let spec = catalog.triggers.get(kind).ok_or_else(unreadable)?;
    let since = spec.since.as_deref().ok_or_else(unreadable)?;
    let (action, param) = spec.reread(catalog).ok_or_else(unreadable)?;
    let mut inputs = Map::from([(Arc::clone(param), Value::str(id))]);
    listing::defaults(action, &mut inputs);
    let value = client.fetch(connection, &action.name, inputs).await.map_err(|outcome| match outcome {
        Outcome::Refused { status: 404, .. } => {
            Error::new(ExitCode::NothingMatched, format!("{connection} knows no {id}"))
        }
        Outcome::Refused { message, .. } | Outcome::NotSent { message, .. } | Outcome::Unknown { message, .. } => {
            Error::new(ExitCode::Temporary, format!("reading {id} from {connection}: {message}"))
        }
        Outcome::Done { .. } => Error::new(ExitCode::Temporary, format!("reading {id} from {connection}")),
    })?;
    entity::read(kind, since, &value)
        .ok_or_else(|| Error::new(ExitCode::Temporary, format!("{connection} answered {id} without an id or a time")))
}
