//! A flow as written: the tree that lowering makes and the checker reads. Nothing is typed or resolved yet.

use std::sync::Arc;
use std::time::Duration;

use crate::diag::{Source, Span};
use crate::yaml::Node;

/// A piece of text with its place. `raw` conditions keep what was between the quotes or on the plain line.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    pub text: String,
    pub span: Span,
    /// Whether byte n of `text` is byte `span.start + n` of the file (a plain or quoted scalar without escapes on one
    /// line): then a place inside the text is a place in the file.
    pub exact: bool,
}

/// A name with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub text: Arc<str>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct Flow {
    pub source: Arc<Source>,
    pub name: Name,
    pub description: Option<String>,
    pub owner: Option<String>,
    pub trigger: Trigger,
    /// Typed form of a manual start, and what callers pass.
    pub inputs: Vec<FieldDecl>,
    pub limits: Option<Node>,
    pub mode: Option<(Mode, Span)>,
    pub steps: Vec<Step>,
    pub outputs: Vec<(Name, Payload)>,
    pub on_failure: Vec<Step>,
    pub finally: Vec<Step>,
}

/// How far effects go. Later ones do more; a flow's file can only tighten what the installation gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Shadow,
    Live,
}

/// `inputs:`, `fields:`, `columns:`: a name and a declared type (`string`, or `{ type: string, required: false, … }`).
#[derive(Clone, Debug)]
pub struct FieldDecl {
    pub name: Name,
    pub ty: crate::catalog::Type,
    pub required: bool,
    pub default: Option<Node>,
    pub doc: Option<String>,
    /// The zone of zone-less instants.
    pub timezone: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Trigger {
    pub span: Span,
    pub kind: Name,
    pub connection: Option<Name>,
    pub filter: Option<Condition>,
    /// CEL that gives the event's key.
    pub dedupe: Option<Text>,
    pub concurrency: Option<Concurrency>,
    /// Several events in one run.
    pub batch: Option<Batch>,
    /// CEL that gives the list whose items each start a run.
    pub split: Option<Text>,
    /// What holds of an event whose evidence is complete.
    pub ready: Option<Condition>,
    /// CEL that gives the key of a row.
    pub key: Option<Text>,
    /// Keys of this trigger type alone (`cron`, `timezone`, `every`, `missed`, `overlap`, `name`, `fields`, …), as written.
    pub options: Vec<(Name, Node)>,
    /// `fields:` of a webhook.
    pub fields: Vec<FieldDecl>,
}

/// Which events a run gathers.
#[derive(Clone, Debug)]
pub struct Batch {
    pub span: Span,
    /// Events with equal keys belong together.
    pub key: Option<Text>,
    pub max: Option<u32>,
    /// From the first event on.
    pub within: Option<(Duration, Span)>,
}

#[derive(Clone, Debug)]
pub struct Concurrency {
    pub key: Option<Text>,
    pub max: u32,
    pub on_full: OnFull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    Queue,
    Skip,
    CancelRunning,
}

/// A boolean expression, or a tree of them.
#[derive(Clone, Debug)]
pub enum Condition {
    Cel(Text),
    All(Vec<Condition>, Span),
    Any(Vec<Condition>, Span),
    /// None of them.
    None(Vec<Condition>, Span),
}

impl Condition {
    pub fn span(&self) -> Span {
        match self {
            Condition::Cel(text) => text.span,
            Condition::All(_, span) | Condition::Any(_, span) | Condition::None(_, span) => *span,
        }
    }
}

/// A value with templates in its string leaves: `with:`, `body:`, `outputs:`.
#[derive(Clone, Debug)]
pub enum Payload {
    Text(Text),
    /// A plain scalar that YAML reads as a bool, an int or a number.
    Bool(bool, Span),
    Int(i64, Span),
    Number(f64, Span),
    List(Vec<Payload>, Span),
    Map(Vec<(Name, Payload)>, Span),
}

#[derive(Clone, Debug)]
pub struct Step {
    pub span: Span,
    pub id: Option<Name>,
    /// `name:`, for people.
    pub label: Option<String>,
    /// `timeout:`; of an attempt for actions, of the whole step for others.
    pub timeout: Option<(Duration, Span)>,
    pub on_error: OnError,
    pub secure: bool,
    pub kind: StepKind,
}

#[derive(Clone, Debug)]
pub enum OnError {
    Fail,
    Continue,
    Steps(Vec<Step>),
}

#[derive(Clone, Debug)]
pub struct Retry {
    pub max: Option<u32>,
    pub first: Option<Duration>,
    pub cap: Option<Duration>,
    /// Status codes (`429`, `503`) or classes (`5xx`, `timeout`, `network`) that are tried again.
    pub on: Option<Vec<Name>>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct ConfirmSpec {
    pub timeout: Duration,
    pub on_timeout: OnTimeout,
    pub span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    Continue,
    Fail,
    Deny,
    Approve,
}

#[derive(Clone, Debug)]
pub enum StepKind {
    Action {
        action: Name,
        connection: Option<Name>,
        with: Vec<(Name, Payload)>,
        condition: Option<Condition>,
        retry: Option<Retry>,
        confirm: Option<ConfirmSpec>,
        /// Present and refused at load until approvals exist.
        approval: Option<Span>,
    },
    If {
        condition: Condition,
        then: Vec<Step>,
        otherwise: Vec<Step>,
    },
    Switch {
        on: Text,
        cases: Vec<(Name, Vec<Step>)>,
        default: Option<Vec<Step>>,
    },
    Foreach {
        list: Text,
        item: Option<Name>,
        key: Option<Text>,
        once_per: Option<Duration>,
        at_once: u32,
        max_items: Option<u32>,
        on_more: OnMore,
        gather: bool,
        body: Vec<Step>,
        collect: Option<Collect>,
    },
    Until {
        condition: Condition,
        every: Option<Duration>,
        max: Option<u32>,
        carry: Vec<(Name, Text)>,
        next: Vec<(Name, Text)>,
        body: Vec<Step>,
    },
    Try {
        body: Vec<Step>,
        catch: Vec<Catch>,
    },
    Parallel {
        branches: Vec<Vec<Step>>,
        join: Join,
    },
    /// Values are CEL.
    Set(Vec<(Name, Text)>),
    Wait(Wait),
    Call {
        flow: Name,
        with: Vec<(Name, Payload)>,
    },
    Stop {
        status: StopStatus,
        reason: Option<Text>,
    },
    /// Parsed and checked, refused at load as not in this version.
    Approve {
        question: Text,
        to: Vec<Payload>,
        on_timeout: OnTimeout,
    },
    Ask {
        question: Text,
        to: Vec<Payload>,
        options: Vec<String>,
        fields: Vec<FieldDecl>,
        on_timeout: OnTimeout,
    },
    WaitFor {
        name: Name,
        fields: Vec<FieldDecl>,
        on_timeout: OnTimeout,
    },
    Respond {
        status: u16,
        body: Option<Payload>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMore {
    Fail,
    First,
    /// Refused at load until approvals exist.
    Ask,
}

/// `collect:` of a foreach: one CEL value, or a map of them.
#[derive(Clone, Debug)]
pub enum Collect {
    One(Text),
    Map(Vec<(Name, Text)>),
}

#[derive(Clone, Debug)]
pub struct Catch {
    pub when: Option<Condition>,
    pub body: Vec<Step>,
    pub span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    All,
    Any,
}

#[derive(Clone, Debug)]
pub enum Wait {
    For(Duration),
    Until(Text),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopStatus {
    Succeeded,
    Failed,
    Cancelled,
}
