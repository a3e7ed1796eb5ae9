//! Called flows: each is checked once, and a flow never calls itself, however indirectly.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::cx::Checker;
use super::program::CheckedFlow;
use crate::flow::model::Name;

/// Flows that call one another deeper than this were not meant.
const MAX_DEPTH: usize = 16;
const CYCLE_HELP: &str = "a call is part of the run that makes it; use `foreach:` or `until:` to repeat";

/// The flows being checked, outermost first, and those that are done.
#[derive(Debug, Default)]
pub(super) struct Calls {
    stack: RefCell<Vec<Arc<str>>>,
    done: RefCell<BTreeMap<Arc<str>, Option<Arc<CheckedFlow>>>>,
}

impl Calls {
    pub(super) fn enter(&self, name: &Arc<str>) {
        self.stack.borrow_mut().push(Arc::clone(name));
    }

    pub(super) fn leave(&self) {
        self.stack.borrow_mut().pop();
    }

    /// The flow that is being checked now.
    pub(super) fn innermost(&self) -> Option<Arc<str>> {
        self.stack.borrow().last().cloned()
    }

    /// The flows from the first `name` on, if it is being checked.
    fn cycle(&self, name: &str) -> Option<String> {
        let stack = self.stack.borrow();
        let at = stack.iter().position(|flow| &**flow == name)?;
        let names: Vec<&str> = stack.iter().skip(at).map(|flow| &**flow).chain([name]).collect();
        Some(names.join(" calls "))
    }
}

impl Checker<'_> {
    pub(super) fn called_flow(&mut self, flow: &Name) -> Option<Arc<CheckedFlow>> {
        if let Some(cycle) = self.calls.cycle(&flow.text) {
            self.error("WF0709", flow.span, format!("a flow can't call itself: {cycle}")).help(CYCLE_HELP);
            return None;
        }
        if self.calls.stack.borrow().len() >= MAX_DEPTH {
            self.error("WF0709", flow.span, format!("calls are nested more than {MAX_DEPTH} deep"));
            return None;
        }
        let done = self.calls.done.borrow().get(&flow.text).cloned();
        let called = match done {
            Some(called) => called,
            None => self.check_called(flow)?,
        };
        match called {
            None => {
                self.error("WF0710", flow.span, format!("the called flow `{}` has errors", flow.text))
                    .help("check its file first");
                None
            }
            Some(called) if &*called.trigger.kind != "manual" => {
                let kind = Arc::clone(&called.trigger.kind);
                let message = format!("`{}` starts by itself ({kind}), so it can't be called", flow.text);
                self.error("WF0710", flow.span, message)
                    .help("give it `trigger: { type: manual }` and `inputs:`; `trigger.*` is not there in a call");
                None
            }
            Some(called) => {
                self.bundle_called(&flow.text, &called);
                Some(called)
            }
        }
    }

    /// `None` where there is no such flow; inside, `None` where it has errors, which are told when its own file is checked.
    fn check_called(&mut self, flow: &Name) -> Option<Option<Arc<CheckedFlow>>> {
        let Some(source) = (self.world.called)(&flow.text) else {
            self.error("WF0708", flow.span, format!("there is no flow `{}`", flow.text))
                .help("`call:` takes the name that stands after `flow:` in another file");
            return None;
        };
        let (called, found) = super::check_one(&source, self.world, self.calls, self.runnable);
        if let Some(cycle) = found.iter().find(|it| it.code == "WF0709") {
            // Told at every call on the way, so that no file of the cycle looks right.
            let message = cycle.message.clone();
            self.error("WF0709", flow.span, message).help(CYCLE_HELP);
            return None;
        }
        let called = called.map(Arc::new);
        self.calls.done.borrow_mut().insert(Arc::clone(&flow.text), called.clone());
        Some(called)
    }

    fn bundle_called(&mut self, name: &Arc<str>, called: &CheckedFlow) {
        let theirs = &called.bundle;
        self.bundle.called.insert(name.to_string(), (theirs.file.clone(), theirs.flow.clone()));
        self.bundle.called.extend(theirs.called.clone());
        self.bundle.included.extend(theirs.included.clone());
    }
}
