//! What checking gives: a flow compiled, typed and resolved. The engine takes nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{Action, ObjectType, Type};
use crate::expr::{Cond, Expr, Template};
use crate::flow::model::{Concurrency, Join, Mode, OnTimeout, StopStatus};
use crate::value::{Map, Value};

/// Revision of the engine's behaviour: raised whenever the commands derived from the same inputs change. It stands here,
/// below the engine, because it is part of what a flow's version is a hash of.
pub const ENGINE_REVISION: u32 = 1;

/// A flow that can run.
#[derive(Debug)]
pub struct CheckedFlow {
    pub name: Arc<str>,
    pub description: Arc<str>,
    pub owner: Arc<str>,
    /// Hash of everything a run is pinned to, as 32 hex digits.
    pub version: Arc<str>,
    pub trigger: CheckedTrigger,
    pub inputs: Vec<InputDecl>,
    /// The file's own `mode:`, which can only tighten.
    pub mode: Option<Mode>,
    pub limits: Vec<FlowLimit>,
    pub root: Block,
    pub on_failure: Block,
    pub finally: Block,
    pub outputs: Vec<(Arc<str>, Dyn)>,
    pub output_type: Type,
    /// Called flows by name, compiled; cycles are refused.
    pub called: BTreeMap<Arc<str>, Arc<CheckedFlow>>,
    /// Step ids whose facts (`steps.x.status`) are read.
    pub facts: BTreeSet<Arc<str>>,
    /// Ids of `if` steps that a template explains.
    pub explained: BTreeSet<Arc<str>>,
    /// The most severe effect that it can have, for warnings and lists.
    pub effect: crate::catalog::Effect,
    /// Every action that it can call, with the connection: for `permissions`, `actions`, and the pages.
    pub uses: BTreeSet<(Arc<str>, Arc<str>)>,
    /// All texts that its version is a hash of, by name: its file, included files, called flows.
    pub bundle: Bundle,
}

/// The texts that a run is pinned to; enough to compile the flow again after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Bundle {
    pub flow: String,
    /// Name of the flow's own file, and of each flow's file that it calls.
    pub file: String,
    pub called: BTreeMap<String, (String, String)>,
    /// Included files (`query_file`, `text_file`, …) by the path written in the flow.
    pub included: BTreeMap<String, String>,
    /// Hash of the catalogue entries used, and the revision of the engine.
    pub catalog: String,
    pub engine: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FlowLimit {
    pub effect: crate::catalog::Effect,
    pub max: u32,
    pub per: Duration,
}

#[derive(Clone, Debug)]
pub struct InputDecl {
    pub name: Arc<str>,
    pub ty: Type,
    pub required: bool,
    pub default: Option<Value>,
    pub doc: Arc<str>,
}

#[derive(Clone, Debug)]
pub struct CheckedTrigger {
    pub kind: Arc<str>,
    pub connection: Option<Arc<str>>,
    pub filter: Option<Cond>,
    pub dedupe: Option<Expr>,
    pub concurrency: Option<(Concurrency, Option<Expr>)>,
    pub schedule: Option<Schedule>,
    /// The name under `webhooks:` and the fields that are kept.
    pub webhook: Option<(Arc<str>, Vec<InputDecl>)>,
    /// One run for each item of this list, as `trigger.item`.
    pub split: Option<Expr>,
    pub ready: Option<Ready>,
    pub batch: Option<Batch>,
    pub hunt: Option<Hunt>,
    pub follows: Option<Follows>,
}

/// Until when an event is read again before it starts a run.
#[derive(Clone, Debug)]
pub struct Ready {
    pub cond: Cond,
    pub timeout: Duration,
    /// An event that is not ready in time starts nothing, and is told as one that could not be judged.
    pub or_fail: bool,
}

/// Which events start a run together.
#[derive(Clone, Debug)]
pub struct Batch {
    pub max: u32,
    /// From the first event on.
    pub within: Duration,
    pub key: Option<Expr>,
}

/// A hunting query whose rows start runs.
#[derive(Clone, Debug)]
pub struct Hunt {
    pub every: Duration,
    /// What the query is called with, but for its window.
    pub inputs: Map,
    /// The type of the query's whole answer, with rows as they are declared.
    pub output: Type,
    /// New rows of one evaluation, at most.
    pub max_rows: usize,
    pub key: Option<Expr>,
}

/// The flow whose ends start runs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Follows {
    pub flow: Arc<str>,
    /// How it ended: words of `runs list`.
    pub statuses: Vec<Arc<str>>,
    /// Where the flow is named, in bytes of the file.
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Schedule {
    pub when: When,
    pub missed: Missed,
    /// Whether an occurrence is skipped while the last one's run is still going.
    pub overlap: Overlap,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum When {
    Cron { pattern: String, timezone: String },
    Every(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Missed {
    RunOnce,
    RunAll,
    Skip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Overlap {
    Skip,
    Queue,
    Allow,
}

#[derive(Debug, Default)]
pub struct Block {
    pub steps: Vec<Step>,
}

#[derive(Debug)]
pub struct Step {
    /// Its segment of an operation's path: its id, else `steps[i]` with the index in its list.
    pub key: Arc<str>,
    pub id: Option<Arc<str>>,
    pub label: Arc<str>,
    /// Line of the file where it begins, from 1.
    pub line: u32,
    pub timeout: Option<Duration>,
    pub on_error: OnError,
    pub secure: bool,
    pub kind: StepKind,
}

#[derive(Debug)]
pub enum OnError {
    Fail,
    Continue,
    Steps(Block),
}

#[derive(Debug)]
pub enum StepKind {
    Action(ActionStep),
    If {
        cond: Cond,
        then: Block,
        otherwise: Block,
    },
    /// A case without a match goes to `default`.
    Switch {
        on: Expr,
        cases: Vec<(Value, Block)>,
        default: Option<Block>,
    },
    Foreach(Foreach),
    Until(Until),
    Try {
        body: Block,
        catch: Vec<(Option<Cond>, Block)>,
    },
    Parallel {
        branches: Vec<Block>,
        join: Join,
    },
    Set(Vec<(Arc<str>, Expr)>),
    WaitFor(Duration),
    WaitUntil(Expr),
    Call {
        flow: Arc<CheckedFlow>,
        with: Vec<(Arc<str>, Dyn)>,
    },
    Stop {
        status: StopStatus,
        reason: Option<Dyn>,
    },
}

#[derive(Debug)]
pub struct ActionStep {
    pub action: Arc<Action>,
    pub connection: Arc<str>,
    pub cond: Option<Cond>,
    pub with: Vec<(Arc<str>, Dyn)>,
    pub retry: RetryPolicy,
    pub confirm: Option<(Duration, OnTimeout)>,
    /// The parts of its output that later text reads.
    pub keep: Arc<Keep>,
    /// What the output's declared columns or response schema add to the action's own output type.
    pub output: Type,
    /// The read that `action.look` names, resolved.
    pub look_action: Option<Arc<Action>>,
    /// The read that `action.confirm` names, resolved.
    pub confirm_action: Option<Arc<Action>>,
}

/// Which members of an output enter the run's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    #[default]
    Nothing,
    /// All of it.
    All,
    Fields(BTreeMap<Arc<str>, Keep>),
}

impl Keep {
    /// Adds the member at `path` (all of it where the path ends).
    pub fn add(&mut self, path: &[Arc<str>]) {
        match (path.split_first(), &mut *self) {
            (_, Keep::All) => {}
            (None, _) => *self = Keep::All,
            (Some((first, rest)), Keep::Fields(fields)) => fields.entry(Arc::clone(first)).or_default().add(rest),
            (Some((first, rest)), Keep::Nothing) => {
                let mut inner = Keep::Nothing;
                inner.add(rest);
                *self = Keep::Fields(BTreeMap::from([(Arc::clone(first), inner)]));
            }
        }
    }

    /// The type with only the kept members: what is not read is not decoded either.
    pub fn narrow(&self, ty: &Type) -> Type {
        match (self, ty) {
            (Keep::Fields(fields), Type::Object(object)) => {
                let kept = |(name, field): (&Arc<str>, &crate::catalog::Field)| {
                    let keep = fields.get(name)?;
                    Some((Arc::clone(name), crate::catalog::Field { ty: keep.narrow(&field.ty), ..field.clone() }))
                };
                let open = object.open && fields.keys().any(|name| !object.fields.contains_key(name));
                let fields = object.fields.iter().filter_map(kept).collect();
                Type::Object(Arc::new(ObjectType { name: Arc::clone(&object.name), fields, open }))
            }
            (Keep::Fields(_), Type::List(item)) => Type::list(self.narrow(item)),
            (_, ty) => ty.clone(),
        }
    }

    /// The value with only the kept members. Lists keep the kept members of every item.
    pub fn project(&self, value: &Value) -> Value {
        match (self, value) {
            (Keep::All, _) => value.clone(),
            (Keep::Nothing, Value::Map(_)) => Value::empty(),
            (Keep::Fields(fields), Value::Map(members)) => Value::map(
                fields
                    .iter()
                    .filter_map(|(key, keep)| Some((Arc::clone(key), keep.project(members.get(key)?))))
                    .collect(),
            ),
            (Keep::Fields(_), Value::List(items)) => Value::list(items.iter().map(|item| self.project(item)).collect()),
            (_, value) => value.clone(),
        }
    }
}

/// How often and how far apart. Defaults go by effect (S6): read 4, notify 3, write 4; destructive by S2.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Attempts in all.
    pub max: u32,
    pub first: Duration,
    pub cap: Duration,
    /// What is tried again, where the flow says so; `None` is what is transient by nature.
    pub on: Option<Vec<RetryOn>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryOn {
    Status(u16),
    ServerError,
    Timeout,
    Network,
}

/// A value with expressions in its leaves.
#[derive(Clone, Debug)]
pub enum Dyn {
    Const(Value),
    Text(Template),
    List(Vec<Dyn>),
    Map(Vec<(Arc<str>, Dyn)>),
}

#[derive(Debug)]
pub struct Foreach {
    pub list: Expr,
    /// The name of the current item (`item` by default); `index` is bound too.
    pub item: Arc<str>,
    pub key: Option<Expr>,
    pub once_per: Option<Duration>,
    pub at_once: u32,
    pub max_items: u32,
    /// `on_more: first` cuts; otherwise more items fail the step.
    pub cut: bool,
    pub gather: bool,
    pub body: Block,
    pub collect: Option<Collect>,
}

#[derive(Debug)]
pub enum Collect {
    One(Expr),
    Map(Vec<(Arc<str>, Expr)>),
}

#[derive(Debug)]
pub struct Until {
    pub cond: Cond,
    pub every: Option<Duration>,
    pub max: Option<u32>,
    pub carry: Vec<(Arc<str>, Expr)>,
    pub next: Vec<(Arc<str>, Expr)>,
    pub body: Block,
}
