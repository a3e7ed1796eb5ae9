//! What a turn carries through the tree of steps: the time, the input, the names in scope, the commands so far.

use std::sync::Arc;

use jiff::Timestamp;

use super::command::{Command, StepError};
use super::input::{InputKind, Outcome};
use super::observe::{Event, Observer};
use super::state::{Frame, Orphan, Seed, Unsettled};
use crate::check::program::{CheckedFlow, Dyn};
use crate::expr::{Env, EvalError, Template};
use crate::id::OpId;
use crate::value::{Map, Value};

/// Bytes of names in scope, at most: a step that would bind more fails and says so.
pub(super) const STATE_LIMIT: usize = 256 * 1024;
/// Steps taken in one turn, at most: a loop without a wait must end.
pub(super) const TURN_FUEL: u32 = 100_000;

/// What became of a block or a step in this turn.
#[derive(Debug)]
pub(super) enum Poll {
    Pending,
    Done,
    Failed(StepError),
    /// A `stop:` step.
    Stopped(super::state::End),
}

pub(super) struct Cx<'a> {
    pub(super) seed: &'a Seed,
    pub(super) url: Option<&'a str>,
    pub(super) at: Timestamp,
    /// The input of this turn, until the operation that it is for takes it.
    pub(super) inbox: Option<(OpId, InputKind)>,
    pub(super) out: Vec<Command>,
    pub(super) next_op: &'a mut u32,
    pub(super) env: Scope,
    pub(super) path: String,
    /// How many handlers stand around this step: with none, a passing failure is tried again later (S8).
    pub(super) handlers: u32,
    /// Calls that are no reads, sent in this turn.
    pub(super) sent: u32,
    pub(super) effects: &'a mut std::collections::BTreeMap<String, u64>,
    pub(super) orphans: &'a mut std::collections::BTreeMap<OpId, Orphan>,
    pub(super) unsettled: &'a mut Vec<Unsettled>,
    pub(super) late: &'a mut std::collections::BTreeMap<Arc<str>, Outcome>,
    pub(super) observer: &'a mut dyn Observer,
    pub(super) fuel: u32,
}

impl<'a> Cx<'a> {
    pub(super) fn op(&mut self) -> OpId {
        *self.next_op += 1;
        OpId(*self.next_op)
    }

    /// Sends a command that will be answered, and gives its number.
    pub(super) fn ask(&mut self, command: impl FnOnce(OpId) -> Command) -> OpId {
        let op = self.op();
        self.out.push(command(op));
        op
    }

    pub(super) fn timer(&mut self, at: Timestamp) -> OpId {
        self.ask(|op| Command::Timer { op, at })
    }

    /// The answer to an operation, if this turn brought it.
    pub(super) fn answer(&mut self, op: OpId) -> Option<InputKind> {
        match &self.inbox {
            Some((to, _)) if *to == op => self.inbox.take().map(|(_, kind)| kind),
            _ => None,
        }
    }

    pub(super) fn tell(&mut self, event: Event<'_>) {
        self.observer.event(self.at, &self.path, event);
    }

    /// Runs `inner` one level below in the path.
    pub(super) fn below<T>(&mut self, segment: &str, inner: impl FnOnce(&mut Self) -> T) -> T {
        let mark = self.path.len();
        self.path.push('/');
        self.path.push_str(segment);
        let result = inner(self);
        self.path.truncate(mark);
        result
    }

    /// An error of the current step. `step` is what people call it: the path without its leading slash.
    pub(super) fn error(&self, code: &str, message: impl Into<String>) -> StepError {
        StepError {
            step: self.path.trim_start_matches('/').into(),
            code: code.into(),
            status: 0,
            message: message.into(),
            transient: false,
        }
    }

    pub(super) fn eval_error(&self, error: &EvalError) -> StepError {
        self.error("evaluation", error.message.clone())
    }

    /// Takes one step's worth of fuel; `false` when the turn has run too long without a wait.
    pub(super) fn burn(&mut self) -> bool {
        self.fuel = self.fuel.saturating_sub(1);
        self.fuel > 0
    }

    /// Binds a name in the innermost scope.
    pub(super) fn bind(&mut self, name: &Arc<str>, value: Value) -> Result<(), StepError> {
        let weight = value.weight();
        let total: usize = self.env.frames.iter().map(|frame| frame.weight).sum();
        let Some(frame) = self.env.frames.last_mut() else {
            return Err(self.error("internal", "no scope to bind in"));
        };
        let old = frame.vars.get(name).map_or(0, Value::weight);
        if total + weight > STATE_LIMIT + old {
            return Err(self.error(
                "state_limit",
                format!("`{name}` would make the run's state larger than 256 KiB; read fewer fields or fewer items"),
            ));
        }
        frame.weight = frame.weight + weight - old.min(frame.weight);
        frame.vars.insert(Arc::clone(name), value);
        Ok(())
    }

    /// Keeps `steps.<id>.*` where the flow reads it.
    pub(super) fn fact(&mut self, flow: &CheckedFlow, id: Option<&Arc<str>>, fact: Value) {
        let Some(id) = id.filter(|id| flow.facts.contains(*id)) else { return };
        let mut steps = self.env.lookup("steps").and_then(Value::as_map).cloned().unwrap_or_default();
        steps.insert(Arc::clone(id), fact);
        if let Some(frame) = self.env.frames.last_mut() {
            frame.vars.insert(Arc::from("steps"), Value::map(steps));
        }
    }

    /// Runs `inner` with `error.*` bound.
    pub(super) fn with_error<T>(&mut self, error: &StepError, inner: impl FnOnce(&mut Self) -> T) -> T {
        let value = Value::object([
            ("step", Value::String(Arc::clone(&error.step))),
            ("code", Value::str(&error.code)),
            ("status", Value::Int(i64::from(error.status))),
            ("message", Value::str(&error.message)),
        ]);
        let name: Arc<str> = Arc::from("error");
        let before = self.env.frames.last_mut().and_then(|frame| frame.vars.insert(Arc::clone(&name), value));
        let result = inner(self);
        if let Some(frame) = self.env.frames.last_mut() {
            match before {
                Some(value) => frame.vars.insert(name, value),
                None => frame.vars.remove(&name),
            };
        }
        result
    }

    pub(super) fn render(&self, value: &Dyn) -> Result<Value, EvalError> {
        match value {
            Dyn::Const(value) => Ok(value.clone()),
            Dyn::Text(template) => self.render_text(template),
            Dyn::List(items) => Ok(Value::list(items.iter().map(|item| self.render(item)).collect::<Result<_, _>>()?)),
            Dyn::Map(members) => Ok(Value::map(self.render_map(members)?)),
        }
    }

    pub(super) fn render_map(&self, members: &[(Arc<str>, Dyn)]) -> Result<Map, EvalError> {
        members
            .iter()
            .map(|(name, value)| {
                let value = self.render(value).map_err(|e| EvalError::new(format!("`{name}`: {}", e.message)))?;
                Ok((Arc::clone(name), value))
            })
            .collect()
    }

    fn render_text(&self, template: &Template) -> Result<Value, EvalError> {
        template.eval(&self.env)
    }
}

/// The names in scope, innermost last.
pub(super) struct Scope {
    pub(super) frames: Vec<Frame>,
    pub(super) now: Timestamp,
}

impl Scope {
    /// Frames from the innermost outwards, up to a called flow's boundary.
    fn visible(&self) -> impl Iterator<Item = &Frame> {
        let floor = self.frames.iter().rposition(|frame| frame.barrier).unwrap_or(0);
        self.frames.iter().skip(floor).rev()
    }
}

impl Env for Scope {
    fn lookup(&self, name: &str) -> Option<&Value> {
        self.visible().find_map(|frame| frame.vars.get(name))
    }

    fn now(&self) -> Timestamp {
        self.now
    }

    fn explanation(&self, id: &str) -> Option<&str> {
        self.visible().find_map(|frame| frame.explanations.get(id)).map(String::as_str)
    }
}
