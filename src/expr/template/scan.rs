//! What comes before parsing: the tags of a template with their places, bounds on size, number and depth, and a friendly
//! refusal of what is not in the language. It leaves a source that the `handlebars` crate reads as we mean it.

use super::super::Fault;
use super::super::lex::fault;
use super::words::{Kind, Word, words};
use super::{MAX_DEPTH, MAX_TAGS, MAX_TEXT};

/// A template that may be parsed.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The text, byte for byte of the same length, with everything hidden that is not Handlebars: CEL, comments, quoted
    /// text and odd words. It has no construct that the language refuses.
    pub source: String,
    /// Expressions and opened blocks in the order of the text; what ends a block is not kept.
    pub tags: Vec<Scanned>,
}

#[derive(Debug)]
pub(super) struct Scanned {
    pub start: usize,
    pub end: usize,
    pub kind: ScannedKind,
}

#[derive(Debug)]
pub(super) enum ScannedKind {
    /// `{{= CEL }}`: the text and where it starts.
    Cel {
        text: String,
        at: usize,
    },
    Value(Vec<Word>),
    Block(Vec<Word>),
}

/// Scans a template; the first fault ends it.
pub(super) fn scan(text: &str, file: bool) -> Result<Scan, Fault> {
    let mut scanner = Scanner { text, at: 0, file, open: vec![], seen: 0, tags: vec![], hidden: vec![] };
    while scanner.next_tag() {
        scanner.seen += 1;
        if scanner.seen > MAX_TAGS {
            let message = format!("the template has more than {MAX_TAGS} tags");
            return Err(fault("WF0605", scanner.at, scanner.at + 2, message, "shorten it"));
        }
        scanner.tag()?;
    }
    if let Some(open) = scanner.open.last() {
        let (start, name) = (open.start, open.name);
        let message = format!("`{{{{#{name}}}}}` is not closed");
        let help = format!("end it with `{{{{/{name}}}}}`");
        return Err(fault("WF0601", start, start + 3 + name.len(), message, help));
    }
    Ok(Scan { source: hide(text, &scanner.hidden), tags: scanner.tags })
}

/// Refuses a text that is too long to be looked at.
pub(super) fn bounded(text: &str) -> Result<(), Fault> {
    if text.len() <= MAX_TEXT {
        return Ok(());
    }
    let message = format!("the template has {} bytes; the limit is {MAX_TEXT}", text.len());
    Err(fault("WF0605", 0, text.len(), message, "shorten it"))
}

/// Writes over ranges, in order and apart, each with its byte.
fn hide(text: &str, ranges: &[(usize, usize, char)]) -> String {
    let mut source = String::with_capacity(text.len());
    let mut at = 0;
    for (start, end, mark) in ranges {
        source.push_str(text.get(at..*start).unwrap_or(""));
        source.extend(std::iter::repeat_n(*mark, end - start));
        at = *end;
    }
    source.push_str(text.get(at..).unwrap_or(""));
    source
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    file: bool,
    open: Vec<Open>,
    seen: usize,
    tags: Vec<Scanned>,
    hidden: Vec<(usize, usize, char)>,
}

/// A block that is not closed yet.
struct Open {
    name: &'static str,
    start: usize,
    other: bool,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    /// Goes to the next `{{`. One backslash before it writes it literally; more of them are backslashes before a tag.
    fn next_tag(&mut self) -> bool {
        loop {
            let rest = self.rest();
            let Some(next) = rest.find("{{") else { return false };
            let before = rest.get(..next).unwrap_or("");
            let slashes = before.len() - before.trim_end_matches('\\').len();
            self.at += next;
            if slashes != 1 {
                return true;
            }
            self.at += if self.rest().starts_with("{{{{") { 4 } else { 2 };
        }
    }

    /// One `{{ … }}`.
    fn tag(&mut self) -> Result<(), Fault> {
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
        if rest.starts_with("{{!") {
            return self.comment(rest, start);
        }
        let whole = rest.get(2..).unwrap_or("");
        let Some(len) = tag_end(whole) else {
            return Err(fault(
                "WF0601",
                start,
                self.text.len().min(start + 40),
                "`{{` is not closed",
                "end it with `}}`; for literal braces write `\\{{`",
            ));
        };
        let inner = whole.get(..len).unwrap_or("");
        let end = start + 2 + len + 2;
        self.at = end;
        let trimmed = inner.strip_prefix('~').unwrap_or(inner);
        let at = start + 2 + inner.len() - trimmed.len();
        self.inner(trimmed.strip_suffix('~').unwrap_or(trimmed), at, (start, end))
    }

    fn comment(&mut self, rest: &str, start: usize) -> Result<(), Fault> {
        let mark = if rest.starts_with("{{!--") { "--}}" } else { "}}" };
        let Some(len) = rest.find(mark) else {
            return Err(fault(
                "WF0601",
                start,
                start + 3,
                "the comment is not closed",
                format!("end it with `{mark}`"),
            ));
        };
        self.at += len + mark.len();
        self.hidden.push((start + 3, self.at - 2, ' '));
        Ok(())
    }

    fn inner(&mut self, inner: &str, at: usize, span: (usize, usize)) -> Result<(), Fault> {
        let (start, end) = span;
        let lead = inner.len() - inner.trim_start().len();
        let body = inner.trim();
        let refuse = |message: &str, help: &str| Err(fault("WF0602", start, end, message, help));
        match body.chars().next() {
            None => Err(fault("WF0601", start, end, "the braces are empty", "write a path: `{{ alert.title }}`")),
            Some('=') => {
                let text = inner.get(lead + 1..).unwrap_or("").to_owned();
                self.hidden.push((at + lead, at + inner.len(), '_'));
                self.tags.push(Scanned { start, end, kind: ScannedKind::Cel { text, at: at + lead + 1 } });
                Ok(())
            }
            Some('&') => refuse(
                "`{{&` is not in the language: values are always escaped for where they go",
                "write `{{ path }}`",
            ),
            Some('>') => refuse("partials are not in the language", "put the text into this file"),
            Some('*') => refuse("decorators are not in the language", "remove it"),
            Some('^') => refuse("inverted blocks are not in the language", "write `{{#if path}}…{{else}}…{{/if}}`"),
            Some('/') => self.close(body.get(1..).unwrap_or("").trim(), span),
            Some('#') => self.block(body.get(1..).unwrap_or(""), at + lead + 1, span),
            _ if body == "else" => self.close("else", span),
            _ if body.starts_with("else ") => {
                refuse("`{{else if}}` is not in the language", "nest an `{{#if}}` in the `{{else}}`")
            }
            _ => {
                let words = words(inner, at, true)?;
                self.hide_words(&words, true);
                self.tags.push(Scanned { start, end, kind: ScannedKind::Value(words) });
                Ok(())
            }
        }
    }

    /// `{{else}}` or `{{/name}}`.
    fn close(&mut self, name: &str, (start, end): (usize, usize)) -> Result<(), Fault> {
        let shown = if name == "else" { "{{else}}".to_owned() } else { format!("{{{{/{name}}}}}") };
        let Some(open) = self.open.last_mut() else {
            return Err(fault("WF0601", start, end, format!("`{shown}` closes nothing"), "remove it"));
        };
        if name == "else" && !open.other {
            open.other = true;
            return Ok(());
        }
        if open.name == name {
            self.open.pop();
            return Ok(());
        }
        let name = open.name;
        let message = format!("`{{{{#{name}}}}}` is closed by `{shown}`");
        Err(fault("WF0601", start, end, message, format!("write `{{{{/{name}}}}}`")))
    }

    fn block(&mut self, body: &str, at: usize, (start, end): (usize, usize)) -> Result<(), Fault> {
        let refuse = |message: String, help: &str| Err(fault("WF0602", start, end, message, help));
        if body.starts_with(['>', '*']) {
            return refuse("partials and decorators are not in the language".into(), "remove it");
        }
        let len = body.find(char::is_whitespace).unwrap_or(body.len());
        let name = match body.get(..len).unwrap_or("") {
            "if" => "if",
            "each" => "each",
            name => {
                let help = "template files have `{{#if path}}` and `{{#each list}}`";
                return refuse(format!("the block `{{{{#{name}}}}}` is not in the language"), help);
            }
        };
        if !self.file {
            let help =
                "put the text into a file (`text_file`, `html_file`, `card_file`), or use a helper such as `join`";
            return refuse("blocks work in template files only".into(), help);
        }
        if self.open.len() >= MAX_DEPTH {
            let message = format!("blocks are nested deeper than {MAX_DEPTH}");
            return Err(fault("WF0605", start, end, message, "flatten the template"));
        }
        let words = words(body.get(len..).unwrap_or(""), at + len, false)?;
        self.hide_words(&words, false);
        self.open.push(Open { name, start, other: false });
        self.tags.push(Scanned { start, end, kind: ScannedKind::Block(words) });
        Ok(())
    }

    fn hide_words(&mut self, words: &[Word], head: bool) {
        for (at, word) in words.iter().enumerate() {
            match &word.kind {
                Kind::Bare => {}
                // Quoted text can't stand first for the parser.
                Kind::Quoted(_) if !(head && at == 0) => self.hidden.push((word.start + 1, word.end - 1, '_')),
                Kind::Odd | Kind::Quoted(_) => self.hidden.push((word.start, word.end, '_')),
                Kind::Call(inner) => self.hide_words(inner, true),
            }
        }
    }
}

/// The length up to the `}}` that closes a tag, past quoted text and past the braces of a map.
fn tag_end(inner: &str) -> Option<usize> {
    let mut quote: Option<char> = None;
    let mut escaped = false;
    let mut opened = 0usize;
    for (at, c) in inner.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(mark), c) if c == mark => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '{') => opened += 1,
            (None, '}') if opened == 0 && inner.get(at..).is_some_and(|rest| rest.starts_with("}}")) => {
                return Some(at);
            }
            (None, '}') => opened = opened.saturating_sub(1),
            (None, _) => {}
        }
    }
    // An apostrophe in a tag that was never meant as a quote.
    quote.and_then(|_| inner.find("}}"))
}
