//! Checking: a flow and the catalogue give a `CheckedFlow`, or every fault with its place and its mend.
//!
//! One file per rule or concern: `scope` and `cx` are shared by all; `steps`, `branches`, `loops`, `plain` and `action`
//! follow the kinds of steps; `trigger`, `fields`, `payload`, `calls`, `keep`, `bundle` and `safety` say what they check;
//! `card` is what is kept of a flow that is not compiled.

mod action;
mod adaptive;
mod branches;
pub mod bundle;
mod calls;
mod card;
mod cx;
mod fields;
pub mod follow;
mod keep;
mod loops;
mod options;
mod payload;
mod plain;
pub mod program;
mod safety;
mod scope;
mod steps;
mod trigger;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use bundle::recompile;
pub use card::Card;
pub use program::CheckedFlow;

use crate::catalog::{Catalog, ConnectionKind, Context, ObjectType, Type, roots};
use crate::diag::{Diagnostic, Severity, Source};
use crate::flow::Flow;
pub use adaptive::is_card;
use calls::Calls;
use cx::Checker;
use program::{Block, Dyn};

/// What checking may know beside the flow: nothing here touches a network.
pub struct World<'a> {
    pub catalog: &'a Catalog,
    /// Connections by name; `None` where no configuration is at hand (then any name will do).
    pub connections: Option<&'a BTreeMap<Arc<str>, ConnectionKind>>,
    /// Names under `webhooks:`; `None` where no configuration is at hand.
    pub webhooks: Option<&'a [Arc<str>]>,
    /// Reads a file that a flow includes, by the path written in it; the error is a sentence.
    pub include: &'a dyn Fn(&str) -> Result<String, String>,
    /// Reads the flow that a `call:` names: its file.
    pub called: &'a dyn Fn(&str) -> Option<Arc<Source>>,
}

/// Checks one flow file. Errors mean there is no checked flow; warnings ride with one.
/// `runnable` adds the refusals of what parses and checks but is not in this version.
pub fn check(source: &Arc<Source>, world: &World<'_>, runnable: bool) -> (Option<CheckedFlow>, Vec<Diagnostic>) {
    check_one(source, world, &Calls::default(), runnable)
}

fn check_one(
    source: &Arc<Source>,
    world: &World<'_>,
    calls: &Calls,
    runnable: bool,
) -> (Option<CheckedFlow>, Vec<Diagnostic>) {
    let (flow, found) = crate::flow::read(source);
    let Some(flow) = flow else { return (None, found) };
    let mut checker = Checker::new(world, calls, source, runnable);
    checker.found = found;
    calls.enter(&flow.name.text);
    let checked = checker.flow(&flow);
    calls.leave();
    let mut found = checker.found;
    // Findings in included files follow those in the flow's own, in the order of reading.
    found.sort_by_key(|it| (!Arc::ptr_eq(&it.source, source), it.span.start));
    let failed = checker.failed || found.iter().any(|it| it.severity == Severity::Error);
    (checked.filter(|_| !failed), found)
}

impl Checker<'_> {
    fn flow(&mut self, flow: &Flow) -> Option<CheckedFlow> {
        let limits = flow.limits.as_ref().map(fields::limits).unwrap_or_default();
        let inputs = self.declared(&flow.inputs);
        self.root("now", Type::Datetime);
        let trigger = self.trigger(&flow.trigger, &inputs);
        self.roots(fields::object_of("inputs", &inputs));
        let (root, _) = self.block(&flow.steps);
        let (outputs, output_type) = self.outputs(flow);
        let (on_failure, finally) = self.endings(flow);
        self.ownerless(flow);
        self.further_down(flow);
        let mut blocks = [root, on_failure, finally];
        blocks.iter_mut().for_each(|block| keep::give(block, &self.keeps));
        let [root, on_failure, finally] = blocks;
        let mut bundle = std::mem::take(&mut self.bundle);
        bundle.flow.clone_from(&self.source.text);
        bundle.file.clone_from(&self.source.name);
        let version = bundle::seal(&mut bundle, self.world.catalog, self.uses.iter().map(|(action, _)| &**action));
        Some(CheckedFlow {
            name: Arc::clone(&flow.name.text),
            description: Arc::from(flow.description.as_deref().unwrap_or("")),
            owner: Arc::from(flow.owner.as_deref().unwrap_or("")),
            version,
            trigger: trigger?,
            inputs,
            mode: flow.mode.map(|(mode, _)| mode),
            limits,
            root,
            on_failure,
            finally,
            outputs,
            output_type,
            called: std::mem::take(&mut self.called),
            facts: std::mem::take(&mut self.facts),
            explained: std::mem::take(&mut self.explained),
            effect: self.effect,
            uses: std::mem::take(&mut self.uses),
            bundle,
        })
    }

    /// A name that is not known at its place and defined behind it: the steps are in the wrong order.
    fn further_down(&mut self, flow: &Flow) {
        let trigger = flow.trigger.span;
        for fault in self.found.iter_mut().filter(|it| it.code == "WF0311") {
            let name = fault.message.split('`').nth(1).unwrap_or("");
            if let Some(entry) = self.scope.steps().find(|entry| &*entry.name == name) {
                let (line, _) = self.source.line_col(entry.span.start);
                fault.help = Some(if fault.span.start < trigger.end && fault.span.start >= trigger.start {
                    format!("a trigger reads `trigger.*` only: `{name}` is the step of line {line}; use an `if:` step")
                } else {
                    format!("`{name}` is the step of line {line}: this must stand behind it")
                });
            }
        }
    }

    /// The roots that every step can read.
    fn roots(&mut self, inputs: Type) {
        self.root("inputs", inputs);
        self.root("run", roots::run());
        self.root("flow", roots::flow());
        self.root("error", roots::error());
        self.scope.mark_presence("error", cx::no_error());
    }

    fn outputs(&mut self, flow: &Flow) -> (Vec<(Arc<str>, Dyn)>, Type) {
        let mut done = Vec::with_capacity(flow.outputs.len());
        let mut members = BTreeMap::new();
        for (name, payload) in &flow.outputs {
            let what = format!("the output `{}`", name.text);
            if let Some((value, ty)) = self.payload(payload, &Type::Any, Context::Plain, &what) {
                done.push((Arc::clone(&name.text), value));
                members.insert(Arc::clone(&name.text), fields::field(ty, false));
            }
        }
        let name: Arc<str> = Arc::from(format!("the outputs of {}", flow.name.text));
        (done, Type::Object(Arc::new(ObjectType { name, fields: members, open: false })))
    }

    fn endings(&mut self, flow: &Flow) -> (Block, Block) {
        let mark = self.scope.mark();
        self.scope.doubt_all("the flow may have failed before it");
        let (on_failure, _) = self.with_error(|this| this.block(&flow.on_failure));
        self.scope.end_branch(mark, false);
        self.scope.doubt_all("the flow may have ended before it");
        let (finally, _) = self.block(&flow.finally);
        (on_failure, finally)
    }
}

#[cfg(test)]
mod tests;
