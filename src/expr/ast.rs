//! The tree of a CEL expression: what typing walks and evaluation runs.

use std::sync::Arc;

use regex::Regex;

use super::functions::Function;
use crate::value::Value;

#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Byte offsets in the text.
    pub start: usize,
    pub end: usize,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Literal(Value),
    Name(Arc<str>),
    Select {
        of: Box<Node>,
        field: Arc<str>,
        /// `a.?b`: absence is an empty optional.
        optional: bool,
    },
    Has {
        of: Box<Node>,
        field: Arc<str>,
    },
    Index {
        of: Box<Node>,
        index: Box<Node>,
        optional: bool,
    },
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    If(Box<[Node; 3]>),
    Binary {
        op: Op,
        left: Box<Node>,
        right: Box<Node>,
        /// Typing found a `number` on a side: both are lifted.
        number: bool,
    },
    Call {
        function: &'static Function,
        args: Vec<Node>,
        /// The compiled literal pattern of `matches`.
        regex: Option<Arc<Regex>>,
    },
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Each {
        kind: Each,
        range: Box<Node>,
        var: Arc<str>,
        /// The predicate, the result of `map`, or the key of `sort_by`.
        body: Box<Node>,
        /// The condition of a three-part `map`.
        filter: Option<Box<Node>>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Each {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    SortBy,
    /// `optMap` and `optFlatMap` run over the value of an optional.
    OptMap,
    OptFlatMap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
}

impl Op {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Op::Add => "+",
            Op::Sub => "-",
            Op::Mul => "*",
            Op::Div => "/",
            Op::Rem => "%",
            Op::Eq => "==",
            Op::Ne => "!=",
            Op::Lt => "<",
            Op::Le => "<=",
            Op::Gt => ">",
            Op::Ge => ">=",
            Op::In => "in",
        }
    }
}

impl Node {
    /// The root and member names that this reads, where it is a plain path.
    pub(super) fn static_path(&self) -> Option<(&Arc<str>, Vec<Arc<str>>)> {
        let mut path = Vec::new();
        let mut node = self;
        loop {
            match &node.kind {
                Kind::Name(name) => {
                    path.reverse();
                    return Some((name, path));
                }
                Kind::Select { of, field, .. } | Kind::Has { of, field } => {
                    path.push(Arc::clone(field));
                    node = of;
                }
                _ => return None,
            }
        }
    }

    /// A readable name of what this is, for run-time messages.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            Kind::Name(name) => name.to_string(),
            Kind::Select { of, field, .. } | Kind::Has { of, field } => format!("{}.{field}", of.describe()),
            Kind::Index { of, index, .. } => match &index.kind {
                Kind::Literal(Value::String(key)) => format!("{}['{key}']", of.describe()),
                Kind::Literal(Value::Int(at)) => format!("{}[{at}]", of.describe()),
                _ => format!("{}[…]", of.describe()),
            },
            Kind::Call { function, .. } => format!("{}(…)", function.name),
            _ => "the value".into(),
        }
    }
}
