//! Node tree to flow: the whole grammar, every fault of the file at once.
//!
//! A fault leaves a placeholder and lowering goes on; a file with a fault gives no flow. Not here: whether names exist and
//! types fit (see `check`), and how expressions are written (see `expr`).

mod condition;
mod declare;
mod payload;
mod reader;
mod step;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys::{FLOW, TRIGGER, Want};
use super::model::{Batch, Concurrency, Flow, Mode, Name, OnFull, Payload, Trigger};
use crate::diag::{Diagnostic, Severity, Source, Span};
use crate::yaml::Node;
use reader::Fields;

/// What lowering knows while it goes through a file.
struct Lowering<'s> {
    source: &'s Arc<Source>,
    faults: Vec<Diagnostic>,
    /// Step ids and where they were given.
    ids: BTreeMap<Arc<str>, Span>,
}

pub(super) fn lower(source: &Arc<Source>, node: &Node) -> (Option<Flow>, Vec<Diagnostic>) {
    let mut lowering = Lowering { source, faults: vec![], ids: BTreeMap::new() };
    let flow = lowering.flow(node);
    let broken = lowering.faults.iter().any(|fault| fault.severity == Severity::Error);
    (Some(flow).filter(|_| !broken), lowering.faults)
}

/// A file that is one value, as `with:` takes them.
pub(super) fn value(source: &Arc<Source>, node: &Node) -> (Option<Payload>, Vec<Diagnostic>) {
    let mut lowering = Lowering { source, faults: vec![], ids: BTreeMap::new() };
    let value = lowering.value(node);
    let broken = lowering.faults.iter().any(|fault| fault.severity == Severity::Error);
    (value.filter(|_| !broken), lowering.faults)
}

impl Lowering<'_> {
    fn flow(&mut self, node: &Node) -> Flow {
        let fields = self.open(node, &FLOW, None);
        Flow {
            source: Arc::clone(self.source),
            name: self.flow_name(&fields, "flow").unwrap_or_else(nameless),
            description: self.plain(&fields, "description"),
            owner: self.plain(&fields, "owner"),
            trigger: self.trigger(&fields),
            inputs: self.declared(&fields, "inputs"),
            limits: self.limits(&fields),
            mode: self.mode(&fields),
            steps: self.steps(&fields, "steps"),
            outputs: self.payload_map(&fields, "outputs"),
            on_failure: self.steps(&fields, "on_failure"),
            finally: self.steps(&fields, "finally"),
        }
    }

    fn trigger(&mut self, flow: &Fields<'_>) -> Trigger {
        let Some(entry) = flow.get("trigger") else { return no_trigger(flow.at) };
        if let Some(scalar) = entry.value.scalar() {
            let help = format!("write `trigger: {{ type: {} }}`", scalar.text);
            self.wrong_kind(&entry.value, "a trigger is a map", Some(help));
            return no_trigger(flow.at);
        }
        let fields = self.open(&entry.value, &TRIGGER, Some(entry.key_span));
        let raw = |name: &str| TRIGGER.key(name).is_some_and(|key| matches!(key.want, Want::Any | Want::Fields));
        Trigger {
            span: entry.value.span,
            kind: self.word(&fields, "type").unwrap_or_else(nameless),
            connection: self.word(&fields, "connection"),
            filter: self.condition(&fields, "where"),
            dedupe: self.cel(&fields, "dedupe"),
            concurrency: self.concurrency(&fields),
            batch: self.batch(&fields),
            split: self.cel(&fields, "split"),
            ready: self.condition(&fields, "ready"),
            key: self.cel(&fields, "key"),
            options: fields
                .entries()
                .filter(|entry| raw(&entry.key))
                .map(|entry| (Name { text: entry.key.as_str().into(), span: entry.key_span }, entry.value.clone()))
                .collect(),
            fields: self.declared(&fields, "fields"),
        }
    }

    fn batch(&mut self, trigger: &Fields<'_>) -> Option<Batch> {
        let fields = self.inner(trigger, "batch")?;
        Some(Batch {
            span: trigger.get("batch").map_or(fields.at, |entry| entry.key_span),
            key: self.cel(&fields, "key"),
            max: self.count(&fields, "max"),
            within: self.duration(&fields, "within"),
        })
    }

    fn concurrency(&mut self, trigger: &Fields<'_>) -> Option<Concurrency> {
        let fields = self.inner(trigger, "concurrency")?;
        Some(Concurrency {
            key: self.cel(&fields, "key"),
            max: self.count(&fields, "max").unwrap_or(1),
            on_full: match self.one_of(&fields, "on_full") {
                Some("skip") => OnFull::Skip,
                Some("cancel_running") => OnFull::CancelRunning,
                _ => OnFull::Queue,
            },
        })
    }

    /// The block is kept as written; here only its shape is looked at.
    fn limits(&mut self, flow: &Fields<'_>) -> Option<Node> {
        let fields = self.inner(flow, "limits")?;
        for effect in ["destructive", "write"] {
            for limit in self.inner_list(&fields, effect) {
                self.count(&limit, "max");
                self.duration(&limit, "per");
            }
        }
        flow.get("limits").map(|entry| entry.value.clone())
    }

    fn mode(&mut self, flow: &Fields<'_>) -> Option<(Mode, Span)> {
        let mode = match self.one_of(flow, "mode")? {
            "live" => Mode::Live,
            _ => Mode::Shadow,
        };
        Some((mode, flow.get("mode")?.value.span))
    }
}

/// Stands for a name whose fault is reported.
fn nameless() -> Name {
    Name { text: "".into(), span: Span::default() }
}

fn no_trigger(span: Span) -> Trigger {
    Trigger {
        span,
        kind: nameless(),
        connection: None,
        filter: None,
        dedupe: None,
        concurrency: None,
        batch: None,
        split: None,
        ready: None,
        key: None,
        options: vec![],
        fields: vec![],
    }
}

#[cfg(test)]
mod tests;
