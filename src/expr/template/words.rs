//! The words of a tag, with spans: paths, literals, and calls in brackets. What can't be a word is refused here, before
//! anything is parsed; what the parser would read in another way than we do is marked, to be hidden from it.

use super::super::Fault;
use super::super::lex::fault;
use super::MAX_DEPTH;

/// A word as it was written.
#[derive(Debug)]
pub(super) struct Word {
    pub start: usize,
    pub end: usize,
    pub kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A path or a number that the parser reads as we do.
    Bare,
    /// A path that it does not, or that is none; typing says what is wrong with it.
    Odd,
    /// Quoted text, unescaped. The parser's own literals are JSON: it takes neither a line break nor `\"` between
    /// single quotes, and says not where.
    Quoted(String),
    Call(Vec<Word>),
}

/// The words of a tag, at least one. `head`: the first one is a path or a helper, not an operand of a block.
pub(super) fn words(text: &str, at: usize, head: bool) -> Result<Vec<Word>, Fault> {
    let mut scanner = Words { text, base: at, at: 0, depth: 0 };
    let mut words = scanner.list(false)?;
    if words.is_empty() {
        return Err(fault(
            "WF0601",
            at,
            at + text.len(),
            "a path is missing here",
            "write a path such as `alert.title`",
        ));
    }
    mark(&mut words, head, false, text, at)?;
    Ok(words)
}

/// Marks words that the parser would not take as they stand.
fn mark(words: &mut [Word], head: bool, nested: bool, text: &str, base: usize) -> Result<(), Fault> {
    let alone = words.len() == 1;
    for (at, word) in words.iter_mut().enumerate() {
        let head = head && at == 0;
        let shown = text.get(word.start - base..word.end - base).unwrap_or("");
        match &mut word.kind {
            Kind::Quoted(_) if head && !alone => return Err(head_fault(word)),
            Kind::Call(_) if head && (nested || !alone) => return Err(head_fault(word)),
            Kind::Call(inner) => mark(inner, true, true, text, base)?,
            Kind::Bare if !readable(shown, head, alone) => word.kind = Kind::Odd,
            _ => {}
        }
    }
    Ok(())
}

fn head_fault(word: &Word) -> Fault {
    fault("WF0601", word.start, word.end, "a path or a helper comes first", "write `{{ helper path }}`")
}

/// Whether the parser reads a bare word as one path or number.
fn readable(word: &str, head: bool, alone: bool) -> bool {
    let first = word.split('.').next().unwrap_or("");
    if head {
        // `{{elsewhere}}` would be an `{{else}}` with operands.
        return if alone { (is_path(word) && !word.starts_with("else")) || is_number(word) } else { is_name(word) }
            && !word.starts_with("else");
    }
    let reserved = match first {
        "as" | "else" | "null" => true,
        "true" | "false" => first.len() < word.len(),
        _ => false,
    };
    !reserved && (is_path(word) || is_number(word))
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Names with dots between them.
pub(super) fn is_path(path: &str) -> bool {
    path.split('.').all(is_name)
}

/// A number as JSON writes it, without an exponent.
fn is_number(word: &str) -> bool {
    let word = word.strip_prefix('-').unwrap_or(word);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = word.split_once('.').map_or((word, None), |(whole, fraction)| (whole, Some(fraction)));
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits)
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

    fn call(&mut self) -> Result<Kind, Fault> {
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
        Ok(Kind::Call(inner))
    }

    fn quoted(&mut self, mark: char) -> Result<Kind, Fault> {
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
                return Ok(Kind::Quoted(text));
            } else {
                text.push(c);
            }
        }
        Err(self.fail(self.rest().len(), "the quoted text is not closed", format!("end it with {mark}")))
    }

    fn bare(&mut self, rest: &str) -> Result<Kind, Fault> {
        let len =
            rest.find(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '\'' | '"')).unwrap_or(rest.len()).max(1);
        let word = rest.get(..len).unwrap_or(rest);
        if word.contains('=') || word.contains('|') || word.contains('<') || word.contains('>') || word.contains('+') {
            let help = format!("an expression goes after `=`: `{{{{= {} }}}}`", self.text.trim());
            return Err(self.fail(len, format!("`{word}` is not part of a path"), help));
        }
        self.at += len;
        Ok(Kind::Bare)
    }
}
