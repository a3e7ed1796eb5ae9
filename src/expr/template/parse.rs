//! The syntax of templates: the `handlebars` crate parses what the scan let through; this lowers its tree to our own,
//! with the places that its tree does not carry.
//!
//! Two things are not the crate's: the spans of words (its elements have a line and a column, its parameters nothing),
//! and quoted text (see [`super::words`]). Both come from the scan, tag by tag and word by word in the same order.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use handlebars::template::{HelperTemplate, Parameter, Template, TemplateElement};
use handlebars::{JsonValue, Path, TemplateError};

use super::super::Fault;
use super::super::lex::fault;
use super::scan::{self, Scan, Scanned, ScannedKind};
use super::words::{self, Kind};
use crate::value::Value;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tag {
    Text(String),
    /// `{{= CEL }}`: the text and where it starts.
    Cel {
        text: String,
        at: usize,
    },
    Value {
        words: Vec<Word>,
        start: usize,
        end: usize,
    },
    If {
        words: Vec<Word>,
        start: usize,
        end: usize,
        then: Vec<Tag>,
        other: Vec<Tag>,
    },
    Each {
        words: Vec<Word>,
        start: usize,
        end: usize,
        body: Vec<Tag>,
        other: Vec<Tag>,
    },
}

/// A word of a tag: a path, a literal, or a call in brackets.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Word {
    pub start: usize,
    pub end: usize,
    pub kind: WordKind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum WordKind {
    Path(String),
    Literal(Value),
    Call(Vec<Word>),
}

/// Parses a template; the first fault ends it.
pub(super) fn parse(text: &str, file: bool) -> Result<Vec<Tag>, Fault> {
    scan::bounded(text)?;
    if !text.contains("{{") {
        // Most texts of a flow have no tag.
        return Ok(if text.is_empty() { vec![] } else { vec![Tag::Text(text.to_owned())] });
    }
    let Scan { source, tags } = scan::scan(text, file)?;
    let template = read(source)?;
    let mut lowering = Lowering { text, tags: tags.into_iter() };
    let lowered = lowering.elements(&template);
    // A tag that only one of the two readers saw would be a hole in the bounds: such a template is not taken.
    match (lowered, lowering.tags.next()) {
        (Some(tags), None) => Ok(tags),
        (_, tag) => {
            let (start, end) = tag.map_or((0, text.len()), |tag| (tag.start, tag.end));
            Err(unreadable(start, end))
        }
    }
}

/// Trees that a thread keeps, and the longest text of one in bytes.
const MAX_KEPT: usize = 128;
const MAX_KEPT_TEXT: usize = 4096;

thread_local! {
    /// What was read lately. The crate takes some 4 µs a tag, a third of the time to check a flow, and the flows of one
    /// house repeat their texts: `{{ trigger.alert_id }}` is in each.
    static KEPT: RefCell<HashMap<String, Rc<Template>>> = RefCell::new(HashMap::new());
}

fn read(source: String) -> Result<Rc<Template>, Fault> {
    if let Some(template) = KEPT.with_borrow(|kept| kept.get(&source).cloned()) {
        return Ok(template);
    }
    let template = Template::compile(&source).map_err(|error| translate(&source, &error))?;
    let template = Rc::new(template);
    if source.len() <= MAX_KEPT_TEXT {
        KEPT.with_borrow_mut(|kept| {
            if kept.len() >= MAX_KEPT {
                kept.clear();
            }
            kept.insert(source, Rc::clone(&template));
        });
    }
    Ok(template)
}

fn unreadable(start: usize, end: usize) -> Fault {
    fault("WF0601", start, end, "the template can't be read here", "a tag is `{{ path }}` or `{{ helper path }}`")
}

/// The crate's place, without its grammar-speak. Its columns count characters from 1.
fn translate(source: &str, error: &TemplateError) -> Fault {
    let (line, column) = error.pos().unwrap_or((1, 1));
    let before: usize = source.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let rest = source.get(before..).unwrap_or("");
    let at = before + rest.chars().take(column.saturating_sub(1)).map(char::len_utf8).sum::<usize>();
    unreadable(at, source.len().min(at + 40))
}

struct Lowering<'a> {
    text: &'a str,
    tags: std::vec::IntoIter<Scanned>,
}

impl Lowering<'_> {
    fn elements(&mut self, template: &Template) -> Option<Vec<Tag>> {
        let mut tags = Vec::with_capacity(template.elements.len());
        for element in &template.elements {
            match element {
                TemplateElement::RawString(text) if text.is_empty() => {}
                TemplateElement::RawString(text) => tags.push(Tag::Text(text.clone())),
                TemplateElement::Comment(_) => {}
                TemplateElement::Expression(expression) => tags.push(self.expression(expression)?),
                TemplateElement::HelperBlock(block) => tags.push(self.block(block)?),
                _ => return None,
            }
        }
        Some(tags)
    }

    fn expression(&mut self, parsed: &HelperTemplate) -> Option<Tag> {
        let Scanned { start, end, kind } = self.tags.next()?;
        Some(match kind {
            ScannedKind::Cel { text, at } => Tag::Cel { text, at },
            ScannedKind::Value(scanned) => Tag::Value { words: self.words(&scanned, parsed)?, start, end },
            ScannedKind::Block(_) => return None,
        })
    }

    fn block(&mut self, parsed: &HelperTemplate) -> Option<Tag> {
        let Scanned { start, end, kind: ScannedKind::Block(scanned) } = self.tags.next()? else { return None };
        let words = self.operands(&scanned, &parsed.params)?;
        let mut part = |template: &Option<Template>| template.as_ref().map_or(Some(vec![]), |it| self.elements(it));
        let (then, other) = (part(&parsed.template)?, part(&parsed.inverse)?);
        match parsed.name.as_name()? {
            "if" => Some(Tag::If { words, start, end, then, other }),
            "each" => Some(Tag::Each { words, start, end, body: then, other }),
            _ => None,
        }
    }

    /// A head and its operands.
    fn words(&self, scanned: &[words::Word], parsed: &HelperTemplate) -> Option<Vec<Word>> {
        let (first, rest) = scanned.split_first()?;
        let mut words = vec![self.word(first, &parsed.name)?];
        words.extend(self.operands(rest, &parsed.params)?);
        Some(words)
    }

    fn operands(&self, scanned: &[words::Word], parsed: &[Parameter]) -> Option<Vec<Word>> {
        if scanned.len() != parsed.len() {
            return None;
        }
        scanned.iter().zip(parsed).map(|(scanned, parsed)| self.word(scanned, parsed)).collect()
    }

    fn word(&self, scanned: &words::Word, parsed: &Parameter) -> Option<Word> {
        let (start, end) = (scanned.start, scanned.end);
        let kind = match (&scanned.kind, parsed) {
            (Kind::Call(inner), Parameter::Subexpression(call)) => match call.as_element() {
                TemplateElement::Expression(call) => WordKind::Call(self.words(inner, call)?),
                _ => return None,
            },
            (Kind::Call(_), _) | (_, Parameter::Subexpression(_)) => return None,
            (Kind::Quoted(text), _) => WordKind::Literal(Value::str(text)),
            (Kind::Odd, _) => WordKind::Path(self.text.get(start..end)?.to_owned()),
            (Kind::Bare, Parameter::Literal(literal)) => WordKind::Literal(value(literal)?),
            (Kind::Bare, Parameter::Name(name) | Parameter::Path(Path::Relative((_, name)))) => head(name),
            _ => return None,
        };
        Some(Word { start, end, kind })
    }
}

/// The crate reads every first word as a path; a number or a truth value may stand alone too.
fn head(name: &str) -> WordKind {
    let literal = matches!(name, "true" | "false") || name.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    match literal.then(|| Parameter::parse(name)) {
        Some(Ok(Parameter::Literal(literal))) => value(&literal).map(WordKind::Literal),
        _ => None,
    }
    .unwrap_or_else(|| WordKind::Path(name.to_owned()))
}

fn value(literal: &JsonValue) -> Option<Value> {
    match literal {
        JsonValue::Bool(value) => Some(Value::Bool(*value)),
        JsonValue::Number(number) => number.as_i64().map(Value::Int).or_else(|| number.as_f64().map(Value::Number)),
        _ => None,
    }
}
