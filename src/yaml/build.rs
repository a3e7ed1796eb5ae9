//! Events to a tree, without recursion: depth is bounded by a stack that lives on the heap.

use std::collections::BTreeMap;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Span as Place, StructureStyle};

use super::{EXPRESSION_KEYS, Entry, Kind, MAX_DEPTH, MAX_FAULTS, MAX_NODES, Node, Scalar, Style, syntax};
use crate::diag::{Diagnostic, Source, Span};

/// A list or map that is not closed yet.
struct Open {
    span: Span,
    flow: bool,
    /// It stands where a key should: reported when it opened, dropped when it closes.
    as_key: bool,
    /// Inside an expression or template: helps are worded for it, and inner faults say nothing new.
    expression: bool,
    template: bool,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: BTreeMap<String, Span>, key: Option<(String, Span)> },
}

pub(super) struct Builder<'s> {
    source: &'s Arc<Source>,
    faults: Vec<Diagnostic>,
    stack: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
}

enum Step {
    Go,
    Stop,
}

impl<'s> Builder<'s> {
    pub(super) fn new(source: &'s Arc<Source>) -> Self {
        Builder { source, faults: vec![], stack: vec![], root: None, nodes: 0 }
    }

    pub(super) fn run(mut self) -> (Option<Node>, Vec<Diagnostic>) {
        let mut options = granit_parser::options! {
            emit_unresolved_aliases: true,
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
        };
        options.set_emit_comments(false);
        let mut complete = false;
        for event in Parser::new_from_str_with_options(&self.source.text, options) {
            match event {
                Ok((Event::StreamEnd, _)) => complete = true,
                Ok((event, place)) => {
                    if let Step::Stop = self.event(event, &place) {
                        break;
                    }
                }
                Err(error) => {
                    self.broken(syntax::fault(self.source, &error));
                    break;
                }
            }
            if self.faults.len() >= MAX_FAULTS {
                break;
            }
        }
        if self.root.is_none() && self.faults.is_empty() {
            let fault = Diagnostic::error("WF0113", self.source, Span::new(0, 0), "this file is empty");
            self.faults.push(fault.help("a flow has `flow:`, `trigger:` and `steps:`"));
        }
        (self.root.filter(|_| complete), self.faults)
    }

    /// The fault that ends reading. Where it says to quote the line, what was found on the line before says nothing more.
    fn broken(&mut self, fault: Diagnostic) {
        let line = |fault: &Diagnostic| self.source.line_col(fault.span.start).0;
        if matches!(fault.code, "WF0112" | "WF0114") {
            let at = line(&fault);
            let same =
                |old: &Diagnostic| matches!(old.code, "WF0105" | "WF0106" | "WF0112" | "WF0114") && line(old) == at;
            let kept = std::mem::take(&mut self.faults).into_iter().filter(|old| !same(old)).collect();
            self.faults = kept;
        }
        self.faults.push(fault);
    }

    fn event(&mut self, event: Event<'_>, place: &Place) -> Step {
        let span = span_of(place);
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                self.fault("WF0109", span, "a flow file has one document; this begins another")
                    .help("remove the `---`, or put the second flow into a file of its own");
                return Step::Stop;
            }
            Event::Scalar(text, style, anchor, tag) => {
                if tag.is_some() || anchor > 0 {
                    self.properties(place, span, tag.is_some());
                }
                // A tag at the start of an expression swallows it: what is left says nothing about the shape.
                if tag.is_some() && text.is_empty() {
                    return self.scalar("!".to_owned(), Style::DoubleQuoted, span);
                }
                return self.scalar(text.into_owned(), style_of(style), span);
            }
            Event::SequenceStart(style, anchor, tag) => {
                if tag.is_some() || anchor > 0 {
                    self.properties(place, span, tag.is_some());
                }
                return self.open(span, style == StructureStyle::Flow, Items::List(vec![]));
            }
            Event::MappingStart(style, anchor, tag) => {
                if tag.is_some() || anchor > 0 {
                    self.properties(place, span, tag.is_some());
                }
                let items = Items::Map { entries: vec![], seen: BTreeMap::new(), key: None };
                return self.open(span, style == StructureStyle::Flow, items);
            }
            Event::SequenceEnd | Event::MappingEnd => return self.close(span),
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.fault("WF0105", span, "aliases are not part of the flow language")
                    .help("write the value out; a text that begins with `*` wants quotes");
                let text = self.source.text.get(span.start..span.end).unwrap_or("*").to_owned();
                return self.scalar(text, Style::DoubleQuoted, span);
            }
            _ => {}
        }
        Step::Go
    }

    /// Reports a tag or, where there is none, an anchor of the node at `span`.
    fn properties(&mut self, place: &Place, span: Span, tagged: bool) {
        if self.in_template() {
            return;
        }
        if !tagged {
            let start = anchor_start(&self.source.text, span.start);
            self.fault(
                "WF0105",
                Span::new(start, span.start.max(start + 1)),
                "anchors are not part of the flow language",
            )
            .help("write the value out where it is needed; a text that begins with `&` wants quotes");
            return;
        }
        let start = place.tag_start().map_or(span.start, |mark| mark.byte_offset().unwrap_or(span.start));
        let end = place.tag_span().and_then(|tag| tag.end.byte_offset()).unwrap_or(start + 1);
        if self.in_expression() {
            self.fault("WF0114", Span::new(start, end), "YAML reads this `!` as a tag, not as CEL's \"not\"")
                .help("quote the whole condition");
        } else {
            self.fault("WF0106", Span::new(start, end), "tags are not part of the flow language")
                .help("leave the tag out; a text that begins with `!` wants quotes");
        }
    }

    fn scalar(&mut self, text: String, style: Style, span: Span) -> Step {
        if let Some(Open { items: Items::Map { key, seen, .. }, template, .. }) = self.stack.last_mut()
            && key.is_none()
        {
            let first = seen.get(&text).copied();
            let template = *template;
            if first.is_none() {
                seen.insert(text.clone(), span);
            }
            *key = Some((text.clone(), span));
            if !template {
                self.key(&text, style, span, first);
            }
            return self.count(span);
        }
        self.place(Node { span, kind: Kind::Scalar(Scalar { text, style }) });
        self.count(span)
    }

    fn key(&mut self, text: &str, style: Style, span: Span, first: Option<Span>) {
        if text == "<<" && style == Style::Plain {
            self.fault("WF0107", span, "merge keys are not part of the flow language")
                .help("write the keys out where they are needed");
        } else if let Some(first) = first {
            let (line, again) = (self.source.line_col(first.start).0, self.source.line_col(span.start).0);
            let lines = if line == again { format!("line {line}") } else { format!("lines {line} and {again}") };
            self.fault("WF0108", span, format!("`{text}` stands twice in one map, on {lines}"))
                .help("keep one of them")
                .note(first, "the first one");
        }
    }

    fn open(&mut self, span: Span, flow: bool, items: Items) -> Step {
        let parent = self.stack.last();
        let as_key = matches!(parent, Some(Open { items: Items::Map { key: None, .. }, .. }));
        let doubled = parent.is_some_and(|outer| outer.flow && flow && outer.span.start + 1 == span.start);
        let braces = self.source.text.get(span.start..span.start + 1) == Some("{");
        let mut template = self.in_template();
        if as_key && !template {
            if doubled && braces {
                template = true;
                let start = span.start - 1;
                if let Some(outer) = self.stack.last_mut() {
                    outer.template = true;
                }
                let end = template_end(&self.source.text, start);
                let text = self.source.text.get(start..end).unwrap_or("{{ … }}").to_owned();
                self.fault("WF0112", Span::new(start, end), "YAML reads this unquoted template as a map")
                    .help(format!("quote it: {}", quoted(&text)));
            } else {
                self.fault("WF0111", span, "a key must be a word, not a list or a map");
            }
        }
        let expression = self.in_expression();
        self.stack.push(Open { span, flow, as_key, expression, template, items });
        if self.stack.len() > MAX_DEPTH {
            self.fault("WF0103", span, format!("lists and maps stand more than {MAX_DEPTH} deep here"))
                .help("nest less; in a flow, move the inner steps into one of their own and `call:` it");
            return Step::Stop;
        }
        self.count(span)
    }

    fn close(&mut self, end: Span) -> Step {
        let Some(open) = self.stack.pop() else { return Step::Stop };
        let mut last = open.span.end;
        let kind = match open.items {
            Items::List(items) => {
                last = last.max(items.last().map_or(0, |item| item.span.end));
                Kind::List(items)
            }
            Items::Map { entries, .. } => {
                last = last.max(entries.last().map_or(0, |entry| entry.value.span.end.max(entry.key_span.end)));
                Kind::Map(entries)
            }
        };
        // The end event of a block collection stands at the next token; its last child says where it really ends.
        let span = Span::new(open.span.start, if open.flow { end.end } else { last });
        if open.as_key {
            if let Some(Open { items: Items::Map { key, .. }, .. }) = self.stack.last_mut() {
                *key = Some((String::new(), span));
            }
            return Step::Go;
        }
        let kind = if open.template {
            let text = self.source.text.get(span.start..span.end).unwrap_or("").to_owned();
            Kind::Scalar(Scalar { text, style: Style::DoubleQuoted })
        } else {
            kind
        };
        self.place(Node { span, kind });
        Step::Go
    }

    /// Puts a finished node where it belongs. The second value of a duplicate key is dropped: its fault is reported.
    fn place(&mut self, node: Node) {
        match self.stack.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::List(items)) => items.push(node),
            Some(Items::Map { entries, seen, key }) => {
                let Some((key, key_span)) = key.take() else { return };
                if seen.get(&key) == Some(&key_span) && key != "<<" {
                    entries.push(Entry { key, key_span, value: node });
                }
            }
        }
    }

    fn count(&mut self, span: Span) -> Step {
        self.nodes += 1;
        if self.nodes <= MAX_NODES {
            return Step::Go;
        }
        self.fault("WF0104", span, format!("this file has more than {MAX_NODES} values"))
            .help("split it into several flows, or put data into a service");
        Step::Stop
    }

    fn in_template(&self) -> bool {
        self.stack.last().is_some_and(|open| open.template)
    }

    fn in_expression(&self) -> bool {
        let Some(open) = self.stack.last() else { return false };
        match &open.items {
            Items::Map { key: Some((key, _)), .. } if key != "with" && key != "then" && key != "do" => {
                open.expression || EXPRESSION_KEYS.contains(&key.as_str())
            }
            Items::Map { .. } => false,
            Items::List(_) => open.expression,
        }
    }

    fn fault(&mut self, code: &'static str, span: Span, message: impl Into<String>) -> Pushed<'_> {
        self.faults.push(Diagnostic::error(code, self.source, span, message));
        Pushed(self.faults.last_mut())
    }
}

/// The fault just pushed, for its help and note.
struct Pushed<'f>(Option<&'f mut Diagnostic>);

impl Pushed<'_> {
    fn help(mut self, help: impl Into<String>) -> Self {
        if let Some(fault) = &mut self.0 {
            fault.help = Some(help.into());
        }
        self
    }

    fn note(self, span: Span, note: impl Into<String>) {
        if let Some(fault) = self.0 {
            fault.note = Some((span, note.into()));
        }
    }
}

pub(super) fn span_of(place: &Place) -> Span {
    let offset = |mark: granit_parser::Marker| mark.byte_offset().unwrap_or(0);
    Span::new(offset(place.start), offset(place.end))
}

fn style_of(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted => Style::SingleQuoted,
        ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
        ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
    }
}

fn anchor_start(text: &str, node: usize) -> usize {
    text.get(..node).and_then(|before| before.rfind('&')).unwrap_or(node)
}

/// The end of the `{{ … }}` that begins at `start`, at most the end of its line.
fn template_end(text: &str, start: usize) -> usize {
    let line = text.get(start..).unwrap_or("").lines().next().unwrap_or("");
    start + line.find("}}").map_or(line.len(), |at| at + 2)
}

/// A text as a YAML scalar in quotes.
pub(super) fn quoted(text: &str) -> String {
    if text.contains('"') { format!("'{}'", text.replace('\'', "''")) } else { format!("\"{text}\"") }
}
