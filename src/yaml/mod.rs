//! Bytes of a flow file to a tree of nodes with spans. The only user of the YAML event parser; all limits live here.
//!
//! Refused with a position: more than 1 MiB, more than 64 levels, more than 50,000 nodes, anchors, aliases, tags, merge
//! keys, duplicate keys, several documents, NUL bytes. A scalar keeps its raw text and style: typing happens when lowering.

mod build;
mod syntax;

use std::sync::Arc;

use crate::diag::{Diagnostic, Source, Span};

/// Bytes of one file.
pub const MAX_BYTES: usize = 1 << 20;
/// Lists and maps inside each other.
pub const MAX_DEPTH: usize = 64;
/// Scalars, lists and maps of one file.
pub const MAX_NODES: usize = 50_000;
/// Faults of one file that are reported; a person mends the first ones first.
pub const MAX_FAULTS: usize = 200;

/// Keys whose values are expressions, read as they stand on the line. They need quotes where YAML would read a part of
/// them as its own.
pub const EXPRESSION_KEYS: [&str; 17] = [
    "if", "where", "when", "until", "foreach", "switch", "key", "set", "collect", "carry", "next", "ready", "dedupe",
    "split", "all", "any", "none",
];

/// A YAML value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub span: Span,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Scalar(Scalar),
    List(Vec<Node>),
    /// Entries in the order of the file; keys are unique.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// The text after YAML's own unescaping and folding.
    pub text: String,
    pub style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    /// `|` or `>`.
    Block,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Node,
}

impl Node {
    /// The scalar, if it is one.
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// Whether nothing was written: an empty plain scalar, `~` or `null`.
    pub fn is_null(&self) -> bool {
        self.scalar().is_some_and(|scalar| {
            scalar.style == Style::Plain && matches!(scalar.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
        })
    }

    /// The word for what this is in messages.
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            _ if self.is_null() => "nothing",
            Kind::Scalar(_) => "a scalar",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}

/// Reads a file's text. On any fault every fault found is returned and there is no tree.
pub fn parse(source: &Arc<Source>) -> Result<Node, Vec<Diagnostic>> {
    match parse_lenient(source) {
        (Some(node), faults) if faults.is_empty() => Ok(node),
        (_, faults) => Err(faults),
    }
}

/// As `parse`, but a file with faults that leave its shape readable gives its tree too, so that the faults of its shape
/// can be reported in the same run. Such a tree is good for nothing else.
pub fn parse_lenient(source: &Arc<Source>) -> (Option<Node>, Vec<Diagnostic>) {
    if source.text.len() > MAX_BYTES {
        let message = format!("this file has {} bytes, more than the 1 MiB a flow may have", source.text.len());
        let fault = Diagnostic::error("WF0101", source, Span::new(0, 0), message);
        return (None, vec![fault.help("split it into several flows, or put data into a service")]);
    }
    if let Some(at) = source.text.find('\0') {
        let fault = Diagnostic::error("WF0110", source, Span::new(at, at + 1), "this file has a NUL byte");
        return (None, vec![fault.help("save it as UTF-8 text")]);
    }
    build::Builder::new(source).run()
}

#[cfg(test)]
mod tests;
