//! What a trigger may say beyond its type: `split`, `ready`, `batch`, the query of `hunt.rows`, the flow of `flow.finished`.

use std::sync::Arc;
use std::time::Duration;

use super::cx::Checker;
use super::fields::{constant, field, scalar, type_word};
use super::program::{Batch, Follows, Hunt, Ready};
use crate::catalog::{Field, ObjectType, TriggerSpec, Type};
use crate::diag::suggestion;
use crate::expr::Expr;
use crate::flow::model::{self, Name, Text, Trigger};
use crate::flow::words;
use crate::value::{Map, Value};
use crate::yaml::{Kind, Node};

/// Options that go with `ready:`.
pub(super) const READY_OPTIONS: [&str; 2] = ["ready_timeout", "on_not_ready"];
const READY_TIMEOUT: Duration = Duration::from_secs(600);
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// Hunting is metered: no query is asked more often.
const SHORTEST_HUNT: Duration = Duration::from_secs(10);
/// The action behind `hunt.rows`.
const HUNTING: &str = "xdr.run_hunting_query";
/// What every query of `hunt.rows` is given.
const WINDOW: [&str; 2] = ["window_start", "window_end"];
const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "dead"];
const MOST_ROWS: usize = 10_000;
/// Triggers whose events are for one run each.
const UNGATHERED: [&str; 2] = ["schedule", "manual"];
const SHORTEST_BATCH: Duration = Duration::from_secs(1);
const BATCH_MAX: u32 = 100;

fn option<'a>(trigger: &'a Trigger, name: &str) -> Option<&'a (Name, Node)> {
    trigger.options.iter().find(|(key, _)| &*key.text == name)
}

impl Checker<'_> {
    /// `split:`, and `trigger.item` in scope for what follows.
    pub(super) fn split(&mut self, text: &Text, output: &Type) -> Option<Expr> {
        let expr = self.expr(text)?;
        let item = match &expr.ty {
            Type::List(item) => (**item).clone(),
            Type::Any => Type::Any,
            other => {
                let message = format!("`split:` wants a list, and this is {}", super::payload::shown(other));
                self.error("WF0717", text.span, message)
                    .help("name a list of the event, such as trigger.alert.devices");
                return None;
            }
        };
        if let Type::Object(object) = output {
            let mut object = (**object).clone();
            object.fields.insert(Arc::from("item"), field(item, false));
            self.scope.retype("trigger", Type::Object(Arc::new(object)));
        }
        Some(expr)
    }

    /// `batch:`, and `trigger` as its runs see it in scope for what follows.
    pub(super) fn batch(&mut self, batch: &model::Batch, spec: &TriggerSpec) -> Option<Batch> {
        if UNGATHERED.contains(&&*spec.name) {
            let message = format!("`batch:` gathers events, and `{}` has none that could wait", spec.name);
            self.error("WF0717", batch.span, message).help("remove it");
            return None;
        }
        let key = batch.key.as_ref().map(|text| self.key(text, "the `key:` of `batch:`"));
        let item = self.scope.entry("trigger").map_or(Type::Any, |entry| entry.ty.clone());
        let members = [
            ("items", Type::list(item)),
            ("count", Type::Int),
            ("key", Type::String),
            ("opened", Type::Datetime),
            ("closed", Type::Datetime),
        ];
        let untrusted = |name: &str, ty| Field { untrusted: name == "key", ..field(ty, false) };
        let fields = members.into_iter().map(|(name, ty)| (Arc::from(name), untrusted(name, ty))).collect();
        let object = ObjectType { name: "a batch".into(), fields, open: false };
        self.scope.retype("trigger", Type::Object(Arc::new(object)));
        let (within, span) = batch.within?;
        if within < SHORTEST_BATCH || within > LONGEST_WAIT {
            self.error("WF0717", span, "`within:` wants a duration from 1s to 24h").help("such as 5m");
            return None;
        }
        Some(Batch { max: batch.max.unwrap_or(BATCH_MAX), within, key: key.map_or(Some(None), |key| key.map(Some))? })
    }

    /// `Some(None)` where nothing waits.
    pub(super) fn ready(&mut self, trigger: &Trigger, spec: &TriggerSpec) -> Option<Option<Ready>> {
        let Some(ready) = &trigger.ready else {
            let needless = READY_OPTIONS.iter().find_map(|name| option(trigger, name));
            if let Some((name, _)) = needless {
                let message = format!("`{}:` belongs to `ready:`", name.text);
                self.error("WF0717", name.span, message).help("add `ready:`, or remove it");
                return None;
            }
            return Some(None);
        };
        let span = ready.span();
        if spec.reread(self.world.catalog).is_none() {
            let message = format!("an event of `{}` can't be read again, so `ready:` can't wait for it", spec.name);
            self.error("WF0717", span, message).help("remove it; use `wait:` and read what you need in a step");
            return None;
        }
        if let Some(split) = &trigger.split {
            self.error("WF0717", split.span, "`split:` and `ready:` don't go together")
                .help("keep one of them; a `foreach:` step goes over a list too");
            return None;
        }
        let cond = self.condition(ready);
        let timeout = match option(trigger, "ready_timeout") {
            None => Some(READY_TIMEOUT),
            Some((_, node)) => {
                let given = scalar(node).and_then(words::duration).filter(|it| !it.is_zero() && *it <= LONGEST_WAIT);
                if given.is_none() {
                    self.error("WF0717", node.span, "`ready_timeout:` wants a duration of at most 24h")
                        .help("such as 10m");
                }
                given
            }
        };
        let or_fail = self.choice(option(trigger, "on_not_ready"), &[("run", false), ("fail", true)]);
        Some(Some(Ready { cond: cond?, timeout: timeout?, or_fail: or_fail? }))
    }

    /// What `trigger.*` of a hunt is: the row has the columns that are declared.
    pub(super) fn row_output(&mut self, output: &Type, trigger: &Trigger) -> Type {
        let (Type::Object(object), Some(row)) = (output, self.row(trigger)) else { return output.clone() };
        let mut object = (**object).clone();
        object.fields.insert(Arc::from("row"), field(row, false));
        Type::Object(Arc::new(object))
    }

    fn row(&mut self, trigger: &Trigger) -> Option<Type> {
        let (_, node) = option(trigger, "columns")?;
        let Kind::Map(entries) = &node.kind else {
            self.error("WF0715", node.span, "`columns:` wants names with their types")
                .help("such as { DeviceId: string, Timestamp: datetime }");
            return None;
        };
        let mut object = ObjectType { name: "a row".into(), fields: std::collections::BTreeMap::new(), open: false };
        for entry in entries {
            let word = scalar(&entry.value).unwrap_or("").trim();
            let Some(ty) = type_word(word) else {
                let help = suggestion(word, words::SCALAR_TYPES)
                    .unwrap_or_else(|| format!("one of {}", words::SCALAR_TYPES.join(", ")));
                self.error("WF0405", entry.value.span, format!("`{word}` is not a type")).help(help);
                return None;
            };
            object.fields.insert(Arc::from(entry.key.as_str()), Field { untrusted: true, ..field(ty, true) });
        }
        Some(Type::Object(Arc::new(object)))
    }

    pub(super) fn hunt(&mut self, trigger: &Trigger, connection: Option<&Arc<str>>) -> Option<Hunt> {
        let query = self.hunting_query(trigger);
        let every = match option(trigger, "every") {
            Some((_, node)) => self.every(node).and_then(|when| match when {
                super::program::When::Every(every) if every >= SHORTEST_HUNT => Some(every),
                _ => {
                    self.error("WF0715", node.span, "hunting is metered: `every:` is at least 10s").help("such as 15m");
                    None
                }
            }),
            None => {
                self.error("WF0715", trigger.kind.span, "a hunt needs `every:`").help("such as every: 15m");
                None
            }
        };
        let max_rows = match option(trigger, "max_rows") {
            None => Some(1_000),
            Some((_, node)) => {
                let given = scalar(node).and_then(|text| text.parse().ok()).filter(|n| (1..=MOST_ROWS).contains(n));
                if given.is_none() {
                    self.error("WF0715", node.span, format!("`max_rows:` wants a number from 1 to {MOST_ROWS}"));
                }
                given
            }
        };
        let params = self.hunting_params(trigger);
        let key = trigger.key.as_ref().map(|text| self.key(text, "`key:`"));
        if key.as_ref().is_some_and(Option::is_none) {
            return None;
        }
        let action = self.world.catalog.action(HUNTING)?;
        let output = match (&action.output, self.scope_row()) {
            (Type::Object(object), Some(row)) if matches!(row, Type::Object(_)) => {
                let mut object = (**object).clone();
                object.fields.insert(Arc::from("rows"), field(Type::list(row), false));
                Type::Object(Arc::new(object))
            }
            (output, _) => output.clone(),
        };
        self.uses.insert((Arc::clone(&action.name), Arc::clone(connection?)));
        let inputs = Map::from([(Arc::from("query"), Value::str(query?)), (Arc::from("params"), Value::map(params?))]);
        Some(Hunt { every: every?, inputs, output, max_rows: max_rows?, key: key.flatten() })
    }

    fn scope_row(&self) -> Option<Type> {
        self.scope.entry("trigger").and_then(|entry| entry.ty.field("row")).map(|field| field.ty)
    }

    fn hunting_query(&mut self, trigger: &Trigger) -> Option<String> {
        let (text, span) = match (option(trigger, "query"), option(trigger, "query_file")) {
            (Some((_, node)), None) => (scalar(node).unwrap_or("").to_owned(), node.span),
            (None, Some((_, node))) => {
                let path = scalar(node).unwrap_or("");
                match (self.world.include)(path) {
                    Ok(text) => {
                        self.bundle.included.insert(path.to_owned(), text.clone());
                        (text, node.span)
                    }
                    Err(reason) => {
                        self.error("WF0408", node.span, format!("can't read `{path}`: {reason}"))
                            .help("the path is relative to the flow's file");
                        return None;
                    }
                }
            }
            (Some(_), Some((name, _))) => {
                self.error("WF0715", name.span, "`query:` and `query_file:` are both given").help("keep one of them");
                return None;
            }
            (None, None) => {
                self.error("WF0715", trigger.kind.span, "a hunt needs `query:` or `query_file:`")
                    .help("KQL; it may read `window_start` and `window_end`");
                return None;
            }
        };
        if text.trim().is_empty() || text.contains("{{") {
            self.error("WF0715", span, "a query is KQL without templates")
                .help("values go in by `params:`, and by `window_start` and `window_end`, which every hunt has");
            return None;
        }
        Some(text)
    }

    fn hunting_params(&mut self, trigger: &Trigger) -> Option<Map> {
        let Some((_, node)) = option(trigger, "params") else { return Some(Map::new()) };
        let given = match constant(node) {
            Some(Value::Map(given)) if given.keys().all(|name| !WINDOW.contains(&&**name)) => Some((*given).clone()),
            _ => None,
        };
        if given.is_none() {
            self.error("WF0715", node.span, "`params:` wants names and fixed values")
                .help("`window_start` and `window_end` are given to every hunt and can't be set");
        }
        given
    }

    pub(super) fn follows(&mut self, trigger: &Trigger) -> Option<Follows> {
        let Some((_, node)) = option(trigger, "flow") else {
            self.error("WF0716", trigger.kind.span, "`flow.finished` needs `flow:`")
                .help("the name that stands after `flow:` in another file");
            return None;
        };
        let flow = scalar(node).unwrap_or("").trim();
        if self.calls.innermost().as_deref() == Some(flow) {
            self.error("WF0716", node.span, "a flow can't be started by its own end").help("use a schedule, or a loop");
            return None;
        }
        let statuses = match option(trigger, "status").map(|(_, node)| node) {
            None => ENDS.map(Arc::from).to_vec(),
            Some(node) => {
                let given: Vec<&Node> = match &node.kind {
                    Kind::List(items) => items.iter().collect(),
                    _ => vec![node],
                };
                let mut statuses = vec![];
                for node in given {
                    let word = scalar(node).unwrap_or("");
                    if !ENDS.contains(&word) {
                        let help = suggestion(word, ENDS).unwrap_or_else(|| format!("one of {}", ENDS.join(", ")));
                        self.error("WF0703", node.span, format!("`{word}` is not a value of `status:`")).help(help);
                        return None;
                    }
                    statuses.push(Arc::from(word));
                }
                statuses
            }
        };
        Some(Follows { flow: Arc::from(flow), statuses, start: node.span.start, end: node.span.end })
    }
}
