//! Blocks and steps: order, ids, handlers, and what stays in scope behind each.

use std::sync::Arc;
use std::time::Duration;

use super::cx::Checker;
use super::program::{self, Block, OnError, StepKind};
use super::scope::{Branch, Kind};
use crate::catalog::Type;
use crate::diag::Span;
use crate::flow::model::{self, Step};
use crate::flow::words;

/// Limit of one attempt of an action without `timeout:`.
const ACTION_TIMEOUT: Duration = Duration::from_secs(120);

/// A step's kind compiled, what it outputs, and whether nothing behind it runs.
pub(super) struct Compiled {
    pub(super) kind: Option<StepKind>,
    /// `None` where the id is bound already.
    pub(super) output: Option<Output>,
    pub(super) diverges: bool,
}

pub(super) struct Output {
    pub(super) ty: Type,
    pub(super) action: Option<Arc<str>>,
    /// The step may be passed over by its own `if:`.
    pub(super) guarded: bool,
}

impl Output {
    pub(super) fn of(ty: Type) -> Option<Self> {
        Some(Output { ty, action: None, guarded: false })
    }

    /// A step that outputs nothing: its id is there for `steps.<id>` only.
    pub(super) fn nothing() -> Option<Self> {
        Output::of(Type::object("a step without output", []))
    }
}

impl Checker<'_> {
    /// A list of steps, and whether it ends the run.
    pub(super) fn block(&mut self, steps: &[Step]) -> (Block, bool) {
        let mut block = Block { steps: Vec::with_capacity(steps.len()) };
        let mut ended: Option<Span> = None;
        for (at, step) in steps.iter().enumerate() {
            if let Some(stop) = ended.take() {
                self.warning("WF0306", step.span, "this step never runs: the one before it ends the run")
                    .note(stop, "the run ends here")
                    .help("remove it, or put the `stop:` into a branch");
            }
            let (done, diverges) = self.step(step, at);
            block.steps.extend(done);
            ended = diverges.then_some(step.span);
        }
        (block, ended.is_some())
    }

    /// A block that is one of several ways on: its names are taken out of scope again, and told.
    pub(super) fn branch(&mut self, steps: &[Step]) -> (Block, Branch) {
        let mark = self.scope.mark();
        let (block, diverges) = self.block(steps);
        (block, self.scope.end_branch(mark, diverges))
    }

    fn step(&mut self, step: &Step, at: usize) -> (Option<program::Step>, bool) {
        let mark = self.scope.mark();
        let compiled = self.kind(step);
        if let Some(output) = compiled.output {
            self.output(step, output);
        }
        let (on_error, diverges) = match &step.on_error {
            model::OnError::Fail => (OnError::Fail, compiled.diverges),
            model::OnError::Continue => {
                let branches = [self.scope.end_branch(mark, compiled.diverges), self.nothing_done()];
                self.scope.join_one(&branches, "`on_error: continue` may have gone on without it");
                (OnError::Continue, false)
            }
            model::OnError::Steps(steps) => {
                let done = self.scope.end_branch(mark, compiled.diverges);
                let ((block, handled), _) =
                    self.with_hidden(&done, "its step failed", |this| this.with_error(|this| this.branch(steps)));
                let diverges = done.diverges && handled.diverges;
                self.scope.join_one(&[done, handled], "the step may have failed and its `on_error` steps run");
                (OnError::Steps(block), diverges)
            }
        };
        let Some(kind) = compiled.kind else {
            self.failed = true;
            return (None, diverges);
        };
        let default = matches!(kind, StepKind::Action(_)).then_some(ACTION_TIMEOUT);
        let id = step.id.as_ref().map(|id| Arc::clone(&id.text));
        let line = self.source.line_col(step.span.start).0;
        let done = program::Step {
            key: id.clone().unwrap_or_else(|| Arc::from(format!("steps[{at}]"))),
            label: step.label.as_deref().map_or_else(|| Arc::from(label(&step.kind)), Arc::from),
            id,
            line: u32::try_from(line).unwrap_or(u32::MAX),
            timeout: step.timeout.map(|(limit, _)| limit).or(default),
            on_error,
            secure: step.secure,
            kind,
        };
        (Some(done), diverges)
    }

    /// Runs `inner` while what another branch defined is hidden. The second value is what hiding changed, undone.
    pub(super) fn with_hidden<T>(
        &mut self,
        done: &Branch,
        why: &str,
        inner: impl FnOnce(&mut Self) -> T,
    ) -> (T, Branch) {
        let mark = self.scope.mark();
        self.scope.hide(done, why);
        let result = inner(self);
        (result, self.scope.end_branch(mark, false))
    }

    /// The way on which nothing happened.
    pub(super) fn nothing_done(&mut self) -> Branch {
        let mark = self.scope.mark();
        self.scope.end_branch(mark, false)
    }

    fn kind(&mut self, step: &Step) -> Compiled {
        use crate::flow::model::StepKind as K;
        match &step.kind {
            K::Action { .. } => self.action(step),
            K::If { condition, then, otherwise } => self.decide(step, condition, then, otherwise),
            K::Switch { on, cases, default } => self.switch(on, cases, default.as_deref()),
            K::Foreach { .. } => self.foreach(step),
            K::Until { .. } => self.until(step),
            K::Try { body, catch } => self.try_catch(body, catch),
            K::Parallel { branches, join } => self.parallel(step, branches, *join),
            K::Set(values) => self.set(values),
            K::Wait(wait) => self.wait(wait),
            K::Call { flow, with } => self.call(flow, with),
            K::Stop { status, reason } => self.stop(*status, reason.as_ref()),
            K::Approve { question, to, .. } => self.approve(step, question, to),
            K::Ask { question, to, fields, .. } => self.ask(step, question, to, fields),
            K::WaitFor { fields, .. } => self.wait_for(step, fields),
            K::Respond { body, .. } => self.respond(step, body.as_ref()),
        }
    }

    /// Binds a step's id.
    pub(super) fn output(&mut self, step: &Step, output: Output) {
        let Some(id) = &step.id else { return };
        let mark = self.scope.mark();
        self.define(id, output.ty, Kind::Step);
        if let Some(entry) = self.scope.entry_mut(&id.text) {
            entry.action = output.action;
        }
        if output.guarded {
            let branches = [self.scope.end_branch(mark, false), self.nothing_done()];
            self.scope.join_one(&branches, "its own `if:` may have been false");
        }
    }

    /// Enters a name that the flow gives.
    pub(super) fn define(&mut self, name: &model::Name, ty: Type, kind: Kind) {
        let own_item = kind == Kind::Local && &*name.text == "item";
        if let Some(what) = words::taken(&name.text).filter(|_| !own_item) {
            self.error("WF0303", name.span, format!("`{}` is a name already: {what}", name.text))
                .help("choose another name");
            return;
        }
        if let Err(first) = self.scope.define(&name.text, ty, kind, name.span) {
            self.error("WF0302", name.span, format!("the name `{}` is taken already", name.text))
                .note(first, "it is defined here")
                .help(match &*name.text {
                    "item" => "name the item of the inner loop with `as:`",
                    _ => "names are unique in a flow; choose another one",
                });
        }
    }
}

/// What people call a step that has no `name:`.
fn label(kind: &model::StepKind) -> &str {
    use crate::flow::model::StepKind as K;
    match kind {
        K::Action { action, .. } => &action.text,
        K::If { .. } => "if",
        K::Switch { .. } => "switch",
        K::Foreach { .. } => "foreach",
        K::Until { .. } => "until",
        K::Try { .. } => "try",
        K::Parallel { .. } => "parallel",
        K::Set(_) => "set",
        K::Wait(_) => "wait",
        K::Call { flow, .. } => &flow.text,
        K::Stop { .. } => "stop",
        K::Approve { .. } => "approve",
        K::Ask { .. } => "ask",
        K::WaitFor { .. } => "wait_for",
        K::Respond { .. } => "respond",
    }
}
