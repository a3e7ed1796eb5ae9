//! Texts with exact places, and the traps of expressions that stand in YAML as they are.

use super::super::model::{Name, Text};
use super::Lowering;
use super::reader::Fields;
use crate::diag::Span;
use crate::yaml::{Entry, Kind, Node, Style};

impl Lowering<'_> {
    /// A scalar's text and place; `exact` where every byte of the text is the file's byte at the same distance.
    pub(super) fn text(&self, node: &Node) -> Option<Text> {
        let scalar = node.scalar()?;
        let span = self.inside(node);
        let file = &self.source.text;
        if file.get(span.start..span.start + scalar.text.len()) == Some(&scalar.text) && scalar.style != Style::Block {
            let span = Span::new(span.start, span.start + scalar.text.len());
            return Some(Text { text: scalar.text.clone(), span, exact: true });
        }
        let line = scalar.text.trim_end_matches('\n');
        if scalar.style == Style::Block && !line.is_empty() && !line.contains('\n') {
            let within = file.get(node.span.start..).unwrap_or("");
            if let Some(at) = within.find(line).filter(|at| node.span.start + at <= node.span.end) {
                let start = node.span.start + at;
                return Some(Text {
                    text: scalar.text.clone(),
                    span: Span::new(start, start + line.len()),
                    exact: true,
                });
            }
        }
        Some(Text { text: scalar.text.clone(), span, exact: false })
    }

    /// The place between the quotes of a quoted scalar, else the node's own.
    pub(super) fn inside(&self, node: &Node) -> Span {
        match node.scalar().map(|scalar| scalar.style) {
            Some(Style::SingleQuoted | Style::DoubleQuoted) if node.span.end >= node.span.start + 2 => {
                Span::new(node.span.start + 1, node.span.end - 1)
            }
            _ => node.span,
        }
    }

    pub(super) fn template(&mut self, fields: &Fields<'_>, name: &str) -> Option<Text> {
        let entry = fields.get(name)?;
        self.scalar_text(name, &entry.value)?;
        self.text(&entry.value)
    }

    pub(super) fn cel(&mut self, fields: &Fields<'_>, name: &str) -> Option<Text> {
        let entry = fields.get(name)?;
        self.cel_of(name, &entry.value)
    }

    /// An expression as it stands: the traps of YAML and of template habits are reported, CEL itself is not read.
    pub(super) fn cel_of(&mut self, key: &str, node: &Node) -> Option<Text> {
        if node.is_null() {
            let fault = self.error("WF0213", node.span, format!("an expression of `{key}` is empty"));
            self.push(fault);
            return None;
        }
        if node.scalar().is_none() {
            let help = "an expression is a text: quote the whole of it".to_owned();
            self.wrong_kind(node, &format!("`{key}` takes an expression"), Some(help));
            return None;
        }
        let text = self.text(node)?;
        let plain = node.scalar().is_some_and(|scalar| scalar.style == Style::Plain);
        if let Some(at) = template_in(&text.text) {
            let start = if text.exact { text.span.start + at } else { text.span.start };
            let end = if text.exact { start + 2 } else { text.span.end };
            let fault =
                self.error("WF0214", Span::new(start, end), "this is an expression already; it takes no `{{ }}`");
            self.push(fault.help(format!("write `{}`", without_templates(&text.text))));
            return None;
        }
        if plain && ends_inside(&text.text) {
            let after = self.source.text.get(node.span.end..).unwrap_or("").trim_start_matches(' ');
            let cut = match after.chars().next() {
                Some('#') => Some("` #` begins a comment in YAML and cuts this expression"),
                Some(',' | '}' | ']' | '{' | '[') => Some("YAML ends this unquoted expression at a bracket or comma"),
                _ => None,
            };
            if let Some(message) = cut {
                let fault = self.error("WF0114", node.span, message).help("quote the whole condition");
                self.push(fault);
                return None;
            }
        }
        Some(text)
    }

    /// `set:`, `carry:`, `next:`: names and expressions.
    pub(super) fn cel_map(&mut self, fields: &Fields<'_>, name: &str) -> Vec<(Name, Text)> {
        let Some(entry) = fields.get(name) else { return vec![] };
        let Kind::Map(members) = &entry.value.kind else {
            self.wrong_kind(&entry.value, &format!("`{name}` is a map of names and expressions"), None);
            return vec![];
        };
        if members.is_empty() {
            self.empty(entry);
        }
        for member in members {
            self.check_id(&member.key, member.key_span);
        }
        self.cel_members(name, members)
    }

    pub(super) fn cel_members(&mut self, name: &str, members: &[Entry]) -> Vec<(Name, Text)> {
        let mut out = Vec::with_capacity(members.len());
        for member in members {
            if let Some(text) = self.cel_of(name, &member.value) {
                out.push((Name { text: member.key.as_str().into(), span: member.key_span }, text));
            }
        }
        out
    }
}

/// Whether a text ends within a quote or a bracket that it opened.
pub(super) fn ends_inside(text: &str) -> bool {
    let mut depth = 0i32;
    let mut quote: Option<char> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match quote {
            Some(_) if letter == '\\' => {
                letters.next();
            }
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None => match letter {
                '\'' | '"' => quote = Some(letter),
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                _ => {}
            },
        }
    }
    quote.is_some() || depth > 0
}

/// Where a `{{ … }}` begins; braces in a string of CEL that never close are text.
fn template_in(text: &str) -> Option<usize> {
    let at = text.find("{{")?;
    let closes = text.get(at..).is_some_and(|rest| rest.contains("}}"));
    (closes || !ends_inside(text.get(..at)?)).then_some(at)
}

/// The expression that was meant: what stands between the braces, without quotes around them.
fn without_templates(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inner, after) = after.split_once("}}").unwrap_or((after, ""));
        let quote = before.chars().next_back().filter(|c| matches!(c, '\'' | '"') && after.starts_with(*c));
        out.push_str(match quote {
            Some(quote) => before.strip_suffix(quote).unwrap_or(before),
            None => before,
        });
        out.push_str(inner.trim_start_matches('=').trim());
        rest = match quote {
            Some(quote) => after.strip_prefix(quote).unwrap_or(after),
            None => after,
        };
    }
    out.push_str(rest);
    out.trim().to_owned()
}
