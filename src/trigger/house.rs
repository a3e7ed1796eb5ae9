//! Flows of our own: what a person does with alerts on the command line, and what a suppression rule does with one, are
//! runs of small flows that are made here. So they go the way of every other run: intent on disk, guard, limits, audit.
//!
//! Their text is made from a closed order: words of enums stand in it, and everything that somebody wrote is an input.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::{Deployed, Event, Intake, form, offer};
use crate::catalog::{Catalog, ConnectionKind};
use crate::check::{self, CheckedFlow, World};
use crate::diag::Source;
use crate::error::{Error, ExitCode};
use crate::flow::model::Mode;
use crate::id::RunId;
use crate::journal::Op;
use crate::suppress::Rule;
use crate::triage::verdict;
use crate::value::Value;

/// Alerts of one order.
pub const MOST: usize = 100;
/// Letters of a text, and of an id.
const LONGEST: usize = 2_000;
const LONGEST_ID: usize = 300;

/// The flow that acts for people at the command line, and the one that acts for suppression rules. No file of the
/// installation can have these names.
pub const ALERTS: &str = "watchfloor-alerts";
pub const SUPPRESSIONS: &str = "watchfloor-suppressions";

/// Whether a name belongs to the program.
pub fn is_ours(flow: &str) -> bool {
    flow == ALERTS || flow == SUPPRESSIONS
}

/// What is to be done with some alerts. What is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub connection: String,
    pub alert_ids: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub determination: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_id: Option<String>,
    /// Who asks.
    pub by: String,
    /// Tells one order from another; the same token is one run.
    pub token: String,
}

const STATUSES: [&str; 3] = ["New", "InProgress", "Resolved"];

impl Order {
    /// Whether it can be carried out, before anything is made of it.
    ///
    /// # Errors
    /// What is wrong with it, as a usage error.
    fn sound(&self) -> Result<(), Error> {
        let long = |text: &Option<String>| text.as_ref().is_some_and(|text| text.chars().count() > LONGEST);
        if self.alert_ids.is_empty() || self.alert_ids.len() > MOST {
            return Err(Error::usage(format!("{} alerts: wanted 1 to {MOST}", self.alert_ids.len())));
        }
        if self.alert_ids.iter().any(|id| id.is_empty() || id.len() > LONGEST_ID) || self.token.len() > 64 {
            return Err(Error::usage("an id is empty or longer than 300 letters"));
        }
        if long(&self.comment) || long(&self.assigned_to) || long(&self.incident_id) || self.by.len() > LONGEST {
            return Err(Error::usage(format!("a text is longer than {LONGEST} letters")));
        }
        if self.status.as_ref().is_some_and(|status| !STATUSES.contains(&status.as_str())) {
            return Err(Error::usage(format!("a status is one of {}", STATUSES.join(", "))));
        }
        let sets = [&self.status, &self.classification, &self.determination, &self.assigned_to];
        if sets.iter().all(|it| it.is_none()) && self.comment.is_none() && self.incident_id.is_none() {
            return Err(Error::usage("there is nothing to do with these alerts"));
        }
        let class = self.classification.as_deref().map(|word| (word, verdict::classification(word)));
        let reason = self.determination.as_deref().map(|word| (word, verdict::determination(word)));
        if let Some((word, None)) = class {
            return Err(Error::usage(format!("{word} is no classification")));
        }
        if let Some((word, None)) = reason {
            return Err(Error::usage(format!("{word} is no determination")));
        }
        if let (Some((_, Some(class))), Some((_, Some(reason)))) = (class, reason) {
            verdict::pair(class, reason.word).map_err(Error::usage)?;
        }
        Ok(())
    }

    fn inputs(&self) -> Json {
        let given =
            [("assigned_to", &self.assigned_to), ("comment", &self.comment), ("incident_id", &self.incident_id)];
        let mut inputs = json!({ "alert_ids": self.alert_ids, "by": self.by });
        for (name, value) in given {
            if let Some(value) = value {
                inputs[name] = json!(value);
            }
        }
        inputs
    }

    /// The flow: for each alert what is to be set, then the comment, then the incident. One that fails keeps no other from
    /// being done, and fails the run in the end.
    fn text(&self, name: &str, kind: ConnectionKind) -> Result<String, Error> {
        let word = |known: Option<&'static str>| known.map(|word| json!(word));
        let class = word(self.classification.as_deref().and_then(verdict::classification));
        let reason = word(self.determination.as_deref().and_then(verdict::determination).map(|it| it.word));
        let input = |name: &str, given: bool| given.then(|| json!(format!("{{{{ inputs.{name} }}}}")));
        let owner = input("assigned_to", self.assigned_to.is_some());
        let comment = input("comment", self.comment.is_some());
        let mut sets = vec![("status", self.status.as_ref().map(|it| json!(it))), ("classification", class.clone())];
        sets.extend([("determination", reason), ("assigned_to", owner)]);
        let mut steps = vec![];
        let mut step = |action: &str, with: Vec<(&str, Option<Json>)>| {
            let with = with.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            let with: serde_json::Map<String, Json> = with.collect();
            steps.push(json!({ "action": action, "connection": self.connection, "with": with }));
        };
        let id = || Some(json!("{{ alert_id }}"));
        match kind {
            ConnectionKind::Graph => {
                if sets.iter().any(|(_, value)| value.is_some()) {
                    step("xdr.update_alert", [vec![("alert_id", id())], sets].concat());
                }
                if let (Some(comment), None) = (&comment, &self.incident_id) {
                    step("xdr.comment_alert", vec![("alert_id", id()), ("comment", Some(comment.clone()))]);
                }
                if let Some(incident) = input("incident_id", self.incident_id.is_some()) {
                    let ids = Some(json!(["{{ alert_id }}"]));
                    step(
                        "xdr.move_alerts",
                        vec![("alert_ids", ids), ("incident_id", Some(incident)), ("comment", comment)],
                    );
                }
            }
            ConnectionKind::Mde if self.incident_id.is_none() => {
                sets.push(("comment", comment));
                step("mde.update_alert", [vec![("alert_id", id())], sets].concat());
            }
            ConnectionKind::Mde => {
                return Err(Error::usage("Defender for Endpoint's own API links no alerts to incidents")
                    .help("a connection of kind graph does"));
            }
            ConnectionKind::CloudApps if self.status.as_deref() == Some("Resolved") => {
                let action = match class.as_ref().and_then(|word| word.as_str()) {
                    Some("TruePositive") => "cloud_apps.close_true_positive",
                    Some("FalsePositive") => "cloud_apps.close_false_positive",
                    _ => "cloud_apps.close_benign",
                };
                step(action, vec![("alert_id", id()), ("comment", comment)]);
            }
            _ => return Err(Error::usage("alerts are handled over a connection of kind graph or mde")),
        }
        let types: serde_json::Map<String, Json> = self
            .inputs()
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| (name.clone(), json!(if name == "alert_ids" { "list of string" } else { "string" })))
            .collect();
        let failed = json!({ "stop": "failed", "reason": "{{= string(size(done.errors)) }} of {{= string(size(inputs.alert_ids)) }} alerts failed" });
        let flow = json!({
            "flow": name, "owner": "watchfloor", "trigger": { "type": "manual" },
            "description": "Made by the program itself for an order of a person or of a suppression rule.",
            "inputs": types,
            "steps": [
                { "id": "done", "foreach": "inputs.alert_ids", "as": "alert_id", "max_items": MOST, "on_item_error": "gather", "do": steps },
                { "if": "size(done.errors) > 0", "then": [failed] },
            ],
        });
        // JSON is YAML, and quotes whatever needs it.
        serde_json::to_string_pretty(&flow).map_err(|error| Error::new(ExitCode::Temporary, error.to_string()))
    }

    /// The compiled flow of this order.
    ///
    /// # Errors
    /// What is wrong with the order, or why the installation can't carry it out.
    fn compile(&self, name: &str, intake: &Intake, catalog: &Catalog) -> Result<CheckedFlow, Error> {
        self.sound()?;
        let kind = kind_of(&self.connection, intake)?;
        checked(self.text(name, kind)?, intake, catalog)
    }
}

fn kind_of(connection: &str, intake: &Intake) -> Result<ConnectionKind, Error> {
    intake.flows.now().given.connections.get(connection).cloned().ok_or_else(|| {
        Error::usage(format!("there is no connection {connection}")).help("`connections:` of the configuration")
    })
}

fn checked(text: String, intake: &Intake, catalog: &Catalog) -> Result<CheckedFlow, Error> {
    let flows = intake.flows.now();
    let world = World {
        catalog,
        connections: Some(&flows.given.connections),
        webhooks: None,
        include: &|path| Err(format!("there is no {path}")),
        called: &|_| None,
    };
    let (flow, faults) = check::check(&Source::new("<order>", text), &world, true);
    flow.ok_or_else(|| {
        let why = faults.first().map_or_else(String::new, |fault| fault.message.clone());
        Error::new(ExitCode::Temporary, format!("an order that does not check, which is a bug: {why}"))
    })
}

/// The indicators that a suppression rule puts on the allow-list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    pub connection: String,
    pub rule: String,
    /// They end with the rule.
    pub expires: Timestamp,
    pub comment: String,
    pub indicators: Vec<Allowed>,
    pub by: String,
    pub token: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    #[serde(rename = "type")]
    pub kind: String,
    pub value: String,
    /// Device groups; empty is the whole organisation.
    #[serde(default)]
    pub groups: Vec<String>,
}

impl Allowance {
    pub fn of(rule: &Rule, connection: String, by: String, token: String) -> Allowance {
        let one = |it: &crate::suppress::Indicator| Allowed {
            kind: it.kind.to_owned(),
            value: it.value.clone(),
            groups: it.groups.clone(),
        };
        Allowance {
            connection,
            rule: rule.name.to_string(),
            expires: rule.expires,
            comment: rule.comment.clone(),
            indicators: rule.allow.iter().map(one).collect(),
            by,
            token,
        }
    }

    /// The flow: a step for each indicator, so that each is a call of its own for the limits.
    fn compile(&self, intake: &Intake, catalog: &Catalog) -> Result<CheckedFlow, Error> {
        if self.indicators.is_empty() || self.indicators.len() > MOST || self.token.len() > 64 {
            return Err(Error::usage(format!("{} indicators: wanted 1 to {MOST}", self.indicators.len())));
        }
        if kind_of(&self.connection, intake)? != ConnectionKind::Mde {
            return Err(Error::usage("indicators are set over a connection of kind mde"));
        }
        let step = |(at, it): (usize, &Allowed)| {
            let mut with = json!({
                "value": format!("{{{{ inputs.value{at} }}}}"), "type": it.kind, "action": "Allowed",
                "title": "Suppression {{ inputs.rule }}", "description": "{{ inputs.comment }}",
                "expires": "{{ inputs.expires }}",
            });
            if !it.groups.is_empty() {
                with["groups"] = json!(format!("{{{{ inputs.groups{at} }}}}"));
            }
            json!({ "action": "mde.submit_indicator", "connection": self.connection, "with": with })
        };
        let steps: Vec<Json> = self.indicators.iter().enumerate().map(step).collect();
        let types = self.inputs().into_iter().map(|(name, value)| {
            let ty = if name == "expires" {
                "datetime"
            } else if value.is_array() {
                "list of string"
            } else {
                "string"
            };
            (name, json!(ty))
        });
        let types: serde_json::Map<String, Json> = types.collect();
        let flow = json!({
            "flow": SUPPRESSIONS, "owner": "watchfloor", "trigger": { "type": "manual" },
            "description": "Made by the program itself for the indicators of a suppression rule.",
            "inputs": types, "steps": steps,
        });
        checked(flow.to_string(), intake, catalog)
    }

    fn inputs(&self) -> serde_json::Map<String, Json> {
        let mut inputs = serde_json::Map::new();
        for (name, value) in [("rule", &self.rule), ("comment", &self.comment), ("by", &self.by)] {
            inputs.insert(name.to_owned(), json!(value));
        }
        inputs.insert("expires".to_owned(), json!(self.expires.to_string()));
        for (at, it) in self.indicators.iter().enumerate() {
            inputs.insert(format!("value{at}"), json!(it.value));
            if !it.groups.is_empty() {
                inputs.insert(format!("groups{at}"), json!(it.groups));
            }
        }
        inputs
    }
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    pub run: String,
    /// In shadow it is recorded, and nothing is sent.
    pub live: bool,
}

/// Starts the run of an order, with a line in the audit log that says who asked, in one batch.
///
/// # Errors
/// A usage error where the order is not sound, a temporary one where it can't be stored.
pub async fn begin(intake: &Intake, catalog: &Catalog, order: &Order) -> Result<Begun, Error> {
    let made = made(ALERTS, intake, catalog, order, format!("manual:{}", order.token))?;
    start(intake, made, json!({ "event": "alerts", "by": order.by, "order": order })).await
}

/// As [`begin`], for the indicators of a suppression rule.
///
/// # Errors
/// As [`begin`].
pub async fn allow(intake: &Intake, catalog: &Catalog, allowance: &Allowance) -> Result<Begun, Error> {
    let flow = allowance.compile(intake, catalog)?;
    let key = format!("manual:{}", allowance.token);
    let made = event_of(flow, &allowance.inputs(), key, intake)?;
    start(intake, made, json!({ "event": "allowed", "by": allowance.by, "rule": allowance.rule, "allow": allowance }))
        .await
}

async fn start(intake: &Intake, (deployed, event): (Deployed, Event), mut line: Json) -> Result<Begun, Error> {
    let now = intake.clock.now();
    let decided = offer::decide(&deployed, &event, now).map_err(|error| Error::new(ExitCode::Temporary, error))?;
    line["at"] = json!(now.to_string());
    line["key"] = json!(event.key);
    let audit = Op::Audit { at: now, body: line.to_string().into_bytes() };
    let offered = intake
        .start(&deployed, decided, vec![audit])
        .await
        .map_err(|error| Error::new(ExitCode::Temporary, format!("storing the order: {error}")))?;
    let run: Option<RunId> = offered.started.into_iter().next();
    let run = run.ok_or_else(|| Error::new(ExitCode::NothingMatched, "this order was given before"))?;
    Ok(Begun { run: run.as_str().to_owned(), live: deployed.mode == Mode::Live })
}

/// The flow of an order, and the event that starts it under this key.
pub(super) fn made(
    name: &str,
    intake: &Intake,
    catalog: &Catalog,
    order: &Order,
    key: String,
) -> Result<(Deployed, Event), Error> {
    let flow = order.compile(name, intake, catalog)?;
    let given = order.inputs().as_object().cloned().unwrap_or_default();
    event_of(flow, &given, key, intake)
}

fn event_of(
    flow: CheckedFlow,
    given: &serde_json::Map<String, Json>,
    key: String,
    intake: &Intake,
) -> Result<(Deployed, Event), Error> {
    let inputs = form::fill(&flow.inputs, given).map_err(|error| Error::new(ExitCode::Temporary, error))?;
    let now = intake.clock.now();
    let event = Event {
        kind: "manual".into(),
        connection: None,
        flow: Some(Arc::clone(&flow.name)),
        only: None,
        key,
        occurred: now,
        payload: Value::empty(),
        inputs,
    };
    let mode = intake.flows.now().given.mode(&flow.name);
    Ok((Deployed::of(Arc::new(flow), mode, now), event))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Desk;
    use super::*;
    use crate::trigger::{Deployment, Given};

    fn order() -> Order {
        Order {
            connection: "graph".into(),
            alert_ids: vec!["da1_1".into(), "fa2".into()],
            by: "ana".into(),
            token: "t".into(),
            ..Order::default()
        }
    }

    fn desk() -> Desk {
        let desk = Desk::new(vec![]);
        let connections = [("graph".into(), ConnectionKind::Graph), ("mde".into(), ConnectionKind::Mde)];
        let given = Given { connections: connections.into(), ..Given::default() };
        desk.intake.flows.replace(Deployment::new(vec![], given));
        desk
    }

    fn actions(order: &Order) -> Result<Vec<String>, String> {
        let catalog = Catalog::builtin().unwrap();
        let flow = order.compile(ALERTS, &desk().intake, &catalog).map_err(|error| error.message)?;
        Ok(flow.uses.iter().map(|(action, connection)| format!("{action} over {connection}")).collect())
    }

    #[test]
    fn every_order_is_a_flow_that_checks() {
        let some = |text: &str| Some(text.to_owned());
        let update = "xdr.update_alert over graph".to_owned();
        let comment = "xdr.comment_alert over graph".to_owned();
        assert_eq!(actions(&Order { assigned_to: some("bo"), ..order() }), Ok(vec![update.clone()]));
        assert_eq!(actions(&Order { comment: some("x\"}}: {{ y"), ..order() }), Ok(vec![comment.clone()]));
        let closed = Order {
            status: some("Resolved"),
            classification: some("falsePositive"),
            determination: some("Clean"),
            comment: some("c"),
            ..order()
        };
        assert_eq!(actions(&closed), Ok(vec![comment, update]));
        let mde = Order { connection: "mde".into(), ..closed };
        assert_eq!(actions(&mde), Ok(vec!["mde.update_alert over mde".to_owned()]));
        let linked = Order { incident_id: some("7"), comment: some("c"), ..order() };
        assert_eq!(actions(&linked), Ok(vec!["xdr.move_alerts over graph".to_owned()]));
        assert!(
            actions(&Order { connection: "mde".into(), ..linked }).is_err_and(|why| why.contains("links no alerts"))
        );
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        let some = |text: &str| Some(text.to_owned());
        for (wrong, why) in [
            (order(), "nothing to do"),
            (Order { alert_ids: vec![], comment: some("c"), ..order() }, "wanted 1 to 100"),
            (Order { alert_ids: vec!["x".into(); 101], comment: some("c"), ..order() }, "wanted 1 to 100"),
            (Order { status: some("Gone"), ..order() }, "a status is one of"),
            (
                Order { classification: some("FalsePositive"), determination: some("Malware"), ..order() },
                "does not go with",
            ),
            (Order { classification: some("Bad"), ..order() }, "no classification"),
            (Order { comment: some(&"x".repeat(3_000)), ..order() }, "longer than"),
            (Order { connection: "nowhere".into(), comment: some("c"), ..order() }, "no connection"),
        ] {
            let said = actions(&wrong).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[tokio::test]
    async fn an_order_is_one_run_with_a_line_in_the_audit_log_and_a_second_time_none() {
        let mut desk = desk();
        let catalog = Catalog::builtin().unwrap();
        let order = Order { comment: Some("c".into()), ..order() };
        let begun = begin(&desk.intake, &catalog, &order).await.unwrap();
        assert!(!begun.live, "shadow is the default");
        assert_eq!(desk.taken().len(), 1);
        assert!(begin(&desk.intake, &catalog, &order).await.is_err());
        let row = desk.intake.store.run(&RunId::parse(&begun.run).unwrap()).unwrap().unwrap();
        assert_eq!((&*row.flow, row.inputs.get("by")), (ALERTS, Some(&Value::str("ana"))));
    }
}
