//! The trigger: its type, options, filter and keys. Nothing here computes times (see the `trigger` layer).

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::cx::Checker;
use super::fields::scalar;
use super::options::READY_OPTIONS;
use super::program::{CheckedTrigger, InputDecl, Missed, Overlap, Schedule, When};
use crate::catalog::{TriggerSpec, Type};
use crate::diag::{Span, suggestion};
use crate::expr::Expr;
use crate::flow::model::{Concurrency, Name, Text, Trigger};
use crate::flow::words;
use crate::yaml::Node;

const FIELDS: &str = "it has five fields, which are minute, hour, day of month, month, day of week";

impl Checker<'_> {
    /// Checks the trigger with `trigger` as the only root beside `now`; its type stays in scope.
    pub(super) fn trigger(&mut self, trigger: &Trigger, inputs: &[InputDecl]) -> Option<CheckedTrigger> {
        let fields = self.declared(&trigger.fields);
        let spec = self.trigger_spec(&trigger.kind);
        let output = match &spec {
            Some(spec) if &*spec.name == "webhook" => with_fields(&spec.output, &fields),
            Some(spec) if &*spec.name == "manual" => with_fields(&spec.output, inputs),
            Some(spec) if &*spec.name == "hunt.rows" => self.row_output(&spec.output, trigger),
            Some(spec) => spec.output.clone(),
            None => Type::Any,
        };
        self.root("trigger", output.clone());
        let split = trigger.split.as_ref().map(|text| self.split(text, &output));
        let filter = trigger.filter.as_ref().map(|filter| self.condition(filter));
        let dedupe = trigger.dedupe.as_ref().map(|text| self.key(text, "`dedupe:`"));
        let Some(spec) = spec else {
            self.concurrency(trigger);
            return None;
        };
        self.unknown_options(trigger, &spec);
        let connection = match (spec.connection, &trigger.connection) {
            (None, None) => None,
            (kind, named) => Some(self.connection(named.as_ref(), kind, &trigger.kind)),
        };
        let ready = self.ready(trigger, &spec);
        let hunt = (&*spec.name == "hunt.rows").then(|| self.hunt(trigger, connection.as_ref()));
        let follows = (&*spec.name == "flow.finished").then(|| self.follows(trigger));
        let schedule = (&*spec.name == "schedule").then(|| self.schedule(trigger));
        let webhook = (&*spec.name == "webhook").then(|| self.webhook(trigger, fields));
        // From here on `trigger` is what a run gets, not what an event has.
        let batch = trigger.batch.as_ref().map(|batch| self.batch(batch, &spec));
        let concurrency = self.concurrency(trigger);
        Some(CheckedTrigger {
            kind: Arc::clone(&spec.name),
            connection,
            filter: filter.flatten(),
            dedupe: dedupe.flatten(),
            concurrency,
            schedule: schedule.flatten(),
            webhook: webhook.flatten(),
            split: split.flatten(),
            ready: ready?,
            batch: batch.flatten(),
            hunt: hunt.flatten(),
            follows: follows.flatten(),
        })
    }

    fn concurrency(&mut self, trigger: &Trigger) -> Option<(Concurrency, Option<Expr>)> {
        let concurrency = trigger.concurrency.clone()?;
        let key = concurrency.key.as_ref().and_then(|text| self.key(text, "the `key:` of `concurrency:`"));
        Some((concurrency, key))
    }

    fn trigger_spec(&mut self, kind: &Name) -> Option<Arc<TriggerSpec>> {
        let catalog = self.world.catalog;
        if let Some(spec) = catalog.triggers.get(&kind.text) {
            if spec.later {
                let what = format!("the trigger `{}`", kind.text);
                self.not_yet(kind.span, &what, "`watchfloor triggers list` shows those that are");
            }
            return Some(Arc::clone(spec));
        }
        let known: Vec<&str> = catalog.triggers.keys().map(|key| &**key).collect();
        let help =
            suggestion(&kind.text, known.iter().copied()).unwrap_or_else(|| format!("one of {}", known.join(", ")));
        self.error("WF0702", kind.span, format!("there is no trigger `{}`", kind.text)).help(help);
        None
    }

    fn unknown_options(&mut self, trigger: &Trigger, spec: &TriggerSpec) {
        if let Some(key) = trigger.key.as_ref().filter(|_| spec.keys.iter().all(|known| &**known != "key")) {
            let message = format!("the trigger `{}` has no option `key`", spec.name);
            self.error("WF0703", key.span, message).help("`dedupe:` gives the key of an event");
        }
        for (name, _) in &trigger.options {
            let known = spec.keys.contains(&name.text) || READY_OPTIONS.contains(&&*name.text);
            if !known {
                let common = ["type", "connection", "where", "dedupe", "concurrency", "batch", "split", "ready"];
                let help = suggestion(&name.text, spec.keys.iter().map(|key| &**key).chain(common));
                let message = format!("the trigger `{}` has no option `{}`", spec.name, name.text);
                self.error("WF0703", name.span, message).help_opt(help);
            }
        }
    }

    /// An expression that gives a key: text or an int.
    pub(super) fn key(&mut self, text: &Text, what: &str) -> Option<Expr> {
        let expr = self.expr(text)?;
        if expr.ty.is_text() || matches!(expr.ty, Type::Int | Type::Any) {
            return Some(expr);
        }
        self.error("WF0401", text.span, format!("{what} wants text, and this is {}", super::payload::shown(&expr.ty)))
            .help("name one of its members, or make text of it with `string(…)`");
        None
    }

    fn schedule(&mut self, trigger: &Trigger) -> Option<Schedule> {
        let option = |name: &str| trigger.options.iter().find(|(key, _)| &*key.text == name);
        let when = match (option("cron"), option("every")) {
            (Some((_, cron)), None) => self.cron(cron, option("timezone").map(|(_, node)| node)),
            (None, Some((_, every))) => {
                if let Some((name, _)) = option("timezone") {
                    self.error(
                        "WF0704",
                        name.span,
                        "`timezone:` belongs to `cron:`: `every:` counts seconds, not days",
                    )
                    .help("remove it");
                }
                self.every(every)
            }
            (Some(_), Some((name, _))) => {
                self.error("WF0704", name.span, "`cron:` and `every:` are both given").help("keep one of them");
                None
            }
            (None, None) => {
                self.error("WF0704", trigger.kind.span, "a schedule needs `cron:` or `every:`")
                    .help("for example cron: \"15 6 * * *\", or every: 15m");
                None
            }
        };
        let missed = self.choice(
            option("missed"),
            &[("run_once", Missed::RunOnce), ("run_all", Missed::RunAll), ("skip", Missed::Skip)],
        );
        let overlap = self.choice(
            option("overlap"),
            &[("skip", Overlap::Skip), ("queue", Overlap::Queue), ("allow", Overlap::Allow)],
        );
        Some(Schedule { when: when?, missed: missed?, overlap: overlap? })
    }

    fn cron(&mut self, node: &Node, zone: Option<&Node>) -> Option<When> {
        let timezone = zone.and_then(scalar).unwrap_or("UTC");
        if let Some(zone) = zone {
            self.zone(timezone, zone.span);
        }
        let pattern = scalar(node).unwrap_or("").trim();
        if pattern.split_whitespace().count() != 5 && !pattern.starts_with('@') {
            self.cron_error(node.span, pattern, FIELDS);
            return None;
        }
        if let Err(reason) = cron::Cron::from_str(pattern) {
            self.cron_error(node.span, pattern, &format!("{}; {FIELDS}", reason.to_string().trim_end_matches('.')));
            return None;
        }
        Some(When::Cron { pattern: pattern.to_owned(), timezone: timezone.to_owned() })
    }

    fn cron_error(&mut self, span: Span, pattern: &str, reason: &str) {
        let reason: String = reason.chars().take(200).collect();
        // The parser's own words for a place are of no use to people: what is wrong stands last.
        let reason = reason.rsplit(": ").next().unwrap_or("");
        self.error("WF0704", span, format!("`{pattern}` is not a cron pattern")).help(lower_first(reason));
    }

    pub(super) fn every(&mut self, node: &Node) -> Option<When> {
        match scalar(node).and_then(words::duration) {
            Some(every) if every >= Duration::from_secs(1) => Some(When::Every(every)),
            _ => {
                self.error("WF0704", node.span, "`every:` wants a duration of at least 1s").help("such as 15m or 4h");
                None
            }
        }
    }

    /// One of a few words; the first is the default.
    pub(super) fn choice<T: Copy>(&mut self, given: Option<&(Name, Node)>, words: &[(&str, T)]) -> Option<T> {
        let Some((name, node)) = given else { return words.first().map(|(_, value)| *value) };
        let text = scalar(node).unwrap_or("");
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let help = suggestion(text, known.iter().copied()).unwrap_or_else(|| format!("one of {}", known.join(", ")));
        self.error("WF0703", node.span, format!("`{text}` is not a value of `{}:`", name.text)).help(help);
        None
    }

    fn webhook(&mut self, trigger: &Trigger, fields: Vec<InputDecl>) -> Option<(Arc<str>, Vec<InputDecl>)> {
        let named = trigger.options.iter().find(|(key, _)| &*key.text == "name");
        let Some((_, node)) = named else {
            self.error("WF0714", trigger.kind.span, "a webhook needs `name:`")
                .help("the name under `webhooks:` of the configuration: POST /hooks/NAME starts the flow");
            return None;
        };
        let name = scalar(node).unwrap_or("");
        if let Some(known) = self.world.webhooks
            && !known.iter().any(|it| &**it == name)
        {
            let help = suggestion(name, known.iter().map(|it| &**it))
                .unwrap_or_else(|| "add it under `webhooks:` of the configuration, with its `auth:`".to_owned());
            self.error("WF0714", node.span, format!("there is no webhook `{name}`")).help(help);
        }
        Some((Arc::from(name), fields))
    }
}

fn with_fields(output: &Type, fields: &[InputDecl]) -> Type {
    let Type::Object(own) = super::fields::object_of("Trigger", fields) else { return output.clone() };
    let mut own = (*own).clone();
    if let Type::Object(base) = output {
        for (key, field) in &base.fields {
            own.fields.entry(Arc::clone(key)).or_insert_with(|| field.clone());
        }
    }
    Type::Object(Arc::new(own))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
