//! The syntax of templates: text and tags, with spans. Size and depth are bounded before anything is built.

use super::super::Fault;
use super::super::lex::fault;
use super::{MAX_DEPTH, MAX_TEXT};
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
    if text.len() > MAX_TEXT {
        let message = format!("the template has {} bytes; the limit is {MAX_TEXT}", text.len());
        return Err(fault("WF0605", 0, text.len(), message, "shorten it"));
    }
    let mut parser = Parser { text, at: 0, file, depth: 0, trim_next: false };
    let (tags, end) = parser.block(None)?;
    match end {
        None => Ok(tags),
        Some(close) => {
            Err(fault("WF0601", close.start, close.end, format!("`{}` closes nothing", close.shown()), "remove it"))
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    file: bool,
    depth: usize,
    trim_next: bool,
}

/// What ended a block: `{{else}}` or `{{/name}}`.
struct Close {
    start: usize,
    end: usize,
    name: String,
}

impl Close {
    fn shown(&self) -> String {
        if self.name == "else" { "{{else}}".into() } else { format!("{{{{/{}}}}}", self.name) }
    }
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn block(&mut self, open: Option<(&str, usize)>) -> Result<(Vec<Tag>, Option<Close>), Fault> {
        let mut tags = Vec::new();
        loop {
            let rest = self.rest();
            let next = rest.find("{{").unwrap_or(rest.len());
            self.push_text(&mut tags, rest.get(..next).unwrap_or(""));
            self.at += next;
            if self.rest().is_empty() {
                return match open {
                    None => Ok((tags, None)),
                    Some((name, start)) => {
                        let message = format!("`{{{{#{name}}}}}` is not closed");
                        Err(fault(
                            "WF0601",
                            start,
                            start + 3 + name.len(),
                            message,
                            format!("end it with `{{{{/{name}}}}}`"),
                        ))
                    }
                };
            }
            if let Some(close) = self.tag(&mut tags)? {
                return Ok((tags, Some(close)));
            }
        }
    }

    fn push_text(&mut self, tags: &mut Vec<Tag>, text: &str) {
        let trimmed = std::mem::take(&mut self.trim_next);
        let text = if trimmed { text.trim_start() } else { text };
        // A backslash before the braces writes them literally.
        if !text.is_empty() {
            tags.push(Tag::Text(text.to_owned()));
        }
    }

    /// One `{{ … }}`; returns what closes the block around it.
    fn tag(&mut self, tags: &mut Vec<Tag>) -> Result<Option<Close>, Fault> {
        let start = self.at;
        let rest = self.rest();
        let refuse = |len: usize, message: &str, help: &str| Err(fault("WF0602", start, start + len, message, help));
        if rest.starts_with("{{{{") {
            return refuse(4, "raw blocks are not in the language", "write the text as it is, or `{{ path }}`");
        }
        if rest.starts_with("{{{") {
            return refuse(
                3,
                "`{{{ }}}` is not in the language: values are always escaped for where they go",
                "write `{{ path }}`",
            );
        }
        if let Some(Tag::Text(text)) = tags.last_mut()
            && text.ends_with('\\')
        {
            let len = rest.find("}}").map_or(rest.len(), |at| at + 2);
            text.pop();
            text.push_str(rest.get(..len).unwrap_or(""));
            self.at += len;
            return Ok(None);
        }
        if rest.starts_with("{{!") {
            return self.comment(rest, start);
        }
        let inner_at = start + 2;
        let trim_before = rest.get(2..).is_some_and(|inner| inner.starts_with('~'));
        if trim_before && let Some(Tag::Text(text)) = tags.last_mut() {
            text.truncate(text.trim_end().len());
        }
        let Some(len) = tag_end(rest.get(2..).unwrap_or("")) else {
            return Err(fault(
                "WF0601",
                start,
                self.text.len().min(start + 40),
                "`{{` is not closed",
                "end it with `}}`; for literal braces write `\\{{`",
            ));
        };
        let inner = rest.get(2..2 + len).unwrap_or("");
        let end = inner_at + len + 2;
        self.at = end;
        let (inner, at) = if trim_before { (inner.get(1..).unwrap_or(""), inner_at + 1) } else { (inner, inner_at) };
        let trim_after = inner.ends_with('~');
        let inner = inner.strip_suffix('~').unwrap_or(inner);
        self.trim_next = trim_after;
        self.inner(tags, inner, at, (start, end))
    }

    fn comment(&mut self, rest: &str, start: usize) -> Result<Option<Close>, Fault> {
        let mark = if rest.starts_with("{{!--") { "--}}" } else { "}}" };
        match rest.find(mark) {
            Some(len) => {
                self.at += len + mark.len();
                Ok(None)
            }
            None => {
                Err(fault("WF0601", start, start + 3, "the comment is not closed", format!("end it with `{mark}`")))
            }
        }
    }

    fn inner(
        &mut self,
        tags: &mut Vec<Tag>,
        inner: &str,
        at: usize,
        span: (usize, usize),
    ) -> Result<Option<Close>, Fault> {
        let (start, end) = span;
        let lead = inner.len() - inner.trim_start().len();
        let body = inner.trim();
        let refuse = |message: &str, help: &str| Err(fault("WF0602", start, end, message, help));
        let first = body.chars().next();
        match first {
            None => Err(fault("WF0601", start, end, "the braces are empty", "write a path: `{{ alert.title }}`")),
            Some('=') => {
                let text = inner.get(lead + 1..).unwrap_or("").to_owned();
                tags.push(Tag::Cel { text, at: at + lead + 1 });
                Ok(None)
            }
            Some('&') => refuse(
                "`{{&` is not in the language: values are always escaped for where they go",
                "write `{{ path }}`",
            ),
            Some('>') => refuse("partials are not in the language", "put the text into this file"),
            Some('*') => refuse("decorators are not in the language", "remove it"),
            Some('^') => refuse("inverted blocks are not in the language", "write `{{#if path}}…{{else}}…{{/if}}`"),
            Some('/') => Ok(Some(Close { start, end, name: body.get(1..).unwrap_or("").trim().to_owned() })),
            Some('#') => self.open(tags, body.get(1..).unwrap_or(""), at + lead + 1, span).map(|()| None),
            _ if body == "else" => Ok(Some(Close { start, end, name: "else".into() })),
            _ if body.starts_with("else ") => {
                refuse("`{{else if}}` is not in the language", "nest an `{{#if}}` in the `{{else}}`")
            }
            _ => {
                let words = words(inner, at)?;
                tags.push(Tag::Value { words, start, end });
                Ok(None)
            }
        }
    }

    fn open(&mut self, tags: &mut Vec<Tag>, body: &str, at: usize, span: (usize, usize)) -> Result<(), Fault> {
        let (start, end) = span;
        if body.starts_with(['>', '*']) {
            return Err(fault("WF0602", start, end, "partials and decorators are not in the language", "remove it"));
        }
        let name_len = body.find(char::is_whitespace).unwrap_or(body.len());
        let name = body.get(..name_len).unwrap_or("").to_owned();
        if !matches!(name.as_str(), "if" | "each") {
            let help = "template files have `{{#if path}}` and `{{#each list}}`";
            return Err(fault(
                "WF0602",
                start,
                end,
                format!("the block `{{{{#{name}}}}}` is not in the language"),
                help,
            ));
        }
        if !self.file {
            let help =
                "put the text into a file (`text_file`, `html_file`, `card_file`), or use a helper such as `join`";
            return Err(fault("WF0602", start, end, "blocks work in template files only", help));
        }
        if self.depth >= MAX_DEPTH {
            return Err(fault(
                "WF0605",
                start,
                end,
                format!("blocks are nested deeper than {MAX_DEPTH}"),
                "flatten the template",
            ));
        }
        let words = words(body.get(name_len..).unwrap_or(""), at + name_len)?;
        self.depth += 1;
        let (then, close) = self.block(Some((&name, start)))?;
        let mut other = Vec::new();
        let mut close = close;
        if close.as_ref().is_some_and(|close| close.name == "else") {
            (other, close) = self.block(Some((&name, start)))?;
        }
        self.depth -= 1;
        match close {
            Some(close) if close.name == name => {}
            Some(close) => {
                let message = format!("`{{{{#{name}}}}}` is closed by `{}`", close.shown());
                return Err(fault("WF0601", close.start, close.end, message, format!("write `{{{{/{name}}}}}`")));
            }
            None => return Err(fault("WF0601", start, end, format!("`{{{{#{name}}}}}` is not closed"), "")),
        }
        tags.push(match name.as_str() {
            "if" => Tag::If { words, start, end, then, other },
            _ => Tag::Each { words, start, end, body: then, other },
        });
        Ok(())
    }
}

/// The length up to the `}}` that closes a tag, past quoted text.
fn tag_end(inner: &str) -> Option<usize> {
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(mark) if c == mark => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if inner.get(at..).is_some_and(|rest| rest.starts_with("}}")) => {
                // `{{= {'a': {'b': 1}} }}`: braces of a map close before the tag does.
                let opened = inner.get(..at).map_or(0, braces);
                if opened <= 0 {
                    return Some(at);
                }
            }
            None => {}
        }
    }
    // An apostrophe in a tag that was never meant as a quote.
    quote.and_then(|_| inner.find("}}"))
}

fn braces(text: &str) -> i32 {
    text.chars().fold(0, |depth, c| match c {
        '{' => depth + 1,
        '}' => depth - 1,
        _ => depth,
    })
}

/// The words of a tag.
fn words(text: &str, at: usize) -> Result<Vec<Word>, Fault> {
    let mut scanner = Words { text, base: at, at: 0, depth: 0 };
    let words = scanner.list(false)?;
    if words.is_empty() {
        return Err(fault(
            "WF0601",
            at,
            at + text.len(),
            "a path is missing here",
            "write a path such as `alert.title`",
        ));
    }
    Ok(words)
}

struct Words<'a> {
    text: &'a str,
    base: usize,
    at: usize,
    depth: usize,
}

impl<'a> Words<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn fail(&self, len: usize, message: impl Into<String>, help: impl Into<String>) -> Fault {
        let start = self.base + self.at;
        fault("WF0601", start, start + len, message, help)
    }

    fn list(&mut self, nested: bool) -> Result<Vec<Word>, Fault> {
        let mut words = Vec::new();
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            let rest = self.rest();
            let start = self.at;
            let kind = match rest.chars().next() {
                None if nested => return Err(self.fail(1, "`(` is not closed", "add `)`")),
                None => return Ok(words),
                Some(')') if nested => {
                    self.at += 1;
                    return Ok(words);
                }
                Some(')') => return Err(self.fail(1, "`)` was never opened", "remove it")),
                Some('(') => self.call()?,
                Some(mark @ ('\'' | '"')) => self.quoted(mark)?,
                Some(_) => self.bare(rest)?,
            };
            words.push(Word { start: self.base + start, end: self.base + self.at, kind });
        }
    }

    fn call(&mut self) -> Result<WordKind, Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(fault(
                "WF0605",
                self.base + self.at,
                self.base + self.at + 1,
                format!("calls are nested deeper than {MAX_DEPTH}"),
                "use `{{= … }}`",
            ));
        }
        self.at += 1;
        let inner = self.list(true)?;
        self.depth -= 1;
        if inner.is_empty() {
            return Err(self.fail(1, "the brackets are empty", "write `(helper path)`"));
        }
        Ok(WordKind::Call(inner))
    }

    fn quoted(&mut self, mark: char) -> Result<WordKind, Fault> {
        let body = self.rest().get(1..).unwrap_or("");
        let mut text = String::new();
        let mut escaped = false;
        for (at, c) in body.char_indices() {
            if escaped {
                text.push(match c {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                });
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == mark {
                self.at += 1 + at + 1;
                return Ok(WordKind::Literal(Value::str(text)));
            } else {
                text.push(c);
            }
        }
        Err(self.fail(self.rest().len(), "the quoted text is not closed", format!("end it with {mark}")))
    }

    fn bare(&mut self, rest: &str) -> Result<WordKind, Fault> {
        let len =
            rest.find(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '\'' | '"')).unwrap_or(rest.len()).max(1);
        let word = rest.get(..len).unwrap_or(rest);
        if word.contains('=') || word.contains('|') || word.contains('<') || word.contains('>') || word.contains('+') {
            let help = format!("an expression goes after `=`: `{{{{= {} }}}}`", self.text.trim());
            return Err(self.fail(len, format!("`{word}` is not part of a path"), help));
        }
        self.at += len;
        Ok(match word {
            "true" => WordKind::Literal(Value::Bool(true)),
            "false" => WordKind::Literal(Value::Bool(false)),
            _ => match word.parse::<i64>() {
                Ok(int) => WordKind::Literal(Value::Int(int)),
                Err(_) => match word.parse::<f64>() {
                    Ok(number) if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                        WordKind::Literal(Value::Number(number))
                    }
                    _ => WordKind::Path(word.to_owned()),
                },
            },
        })
    }
}
