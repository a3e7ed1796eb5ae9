//! Tokens of CEL text: finds the slips that people make and says what to write instead, bounds the text before it is
//! parsed, and gives brackets and spans that the parser's tree does not carry.
//!
//! Not here: the grammar proper (the `cel` crate's parser has it).

use super::Fault;

/// Longest text of one condition, in bytes.
pub(super) const MAX_TEXT: usize = 4096;
/// Deepest nesting of brackets.
const MAX_DEPTH: usize = 32;
/// Most levels of the tree. Each operator, dot and bracket between commas, `&&` and `||` is one.
const MAX_LEVELS: usize = 96;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum TokenKind {
    Word,
    Number,
    Text,
    /// An opening bracket; `call` where it follows a name.
    Open {
        call: bool,
    },
    Close,
    Op,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub kind: TokenKind,
    pub text: &'a str,
    pub start: usize,
    pub end: usize,
    /// Index of the other bracket.
    pub mate: usize,
}

/// Scans and validates; gives the tokens and the depth of their tree. The first fault ends it, since what follows would be noise.
pub(super) fn scan(text: &str) -> Result<(Vec<Token<'_>>, usize), Fault> {
    if text.len() > MAX_TEXT {
        let message = format!("the expression has {} bytes; the limit is {MAX_TEXT}", text.len());
        return Err(fault("WF0505", 0, text.len(), message, "split it with `set`, or into `all` / `any`"));
    }
    if let Some(at) = text.find("{{").filter(|at| outside_quotes(text, *at)) {
        return Err(mustache(text, at));
    }
    let mut scanner = Scanner { text, at: 0, tokens: Vec::new() };
    while scanner.next()? {}
    let mut tokens = scanner.tokens;
    match_brackets(text, &mut tokens)?;
    Validator { text, tokens: &tokens }.run()?;
    let depth = depth(&tokens)?;
    Ok((tokens, depth))
}

pub(super) fn fault(
    code: &'static str,
    start: usize,
    end: usize,
    message: impl Into<String>,
    help: impl Into<String>,
) -> Fault {
    let help = help.into();
    let help = (!help.is_empty()).then_some(help);
    Fault { code, start, end: end.max(start), message: message.into(), help, warning: false }
}

fn outside_quotes(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or("");
    let quotes = |mark: char| before.chars().filter(|c| *c == mark).count() % 2 == 0;
    quotes('\'') && quotes('"')
}

fn mustache(text: &str, at: usize) -> Fault {
    let bare = text.replace("{{=", " ").replace("{{", " ").replace("}}", " ");
    let bare = bare.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = text.get(at..).and_then(|rest| rest.find("}}")).map_or(text.len(), |len| at + len + 2);
    fault("WF0502", at, end, "a condition is CEL already, without `{{ }}`", format!("write `{bare}`"))
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token<'a>>,
}

const OPERATORS: [&str; 20] =
    ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ",", ".", "=", "&"];

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn push(&mut self, kind: TokenKind, len: usize) {
        let end = (self.at + len).min(self.text.len());
        let text = self.text.get(self.at..end).unwrap_or("");
        self.tokens.push(Token { kind, text, start: self.at, end, mate: usize::MAX });
        self.at = end;
    }

    fn next(&mut self) -> Result<bool, Fault> {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{c}']);
        self.at += rest.len() - trimmed.len();
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(false) };
        if rest.starts_with("//") {
            self.at += rest.find('\n').unwrap_or(rest.len());
            return Ok(true);
        }
        if let Some(len) = text_prefix(rest) {
            return self.quoted(len).map(|()| true);
        }
        match first {
            'a'..='z' | 'A'..='Z' | '_' => {
                let len = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                self.push(TokenKind::Word, len);
            }
            '`' => {
                let Some(len) = rest.get(1..).and_then(|inner| inner.find('`')) else {
                    return Err(self.here(rest.len(), "the backtick is not closed", "close it, or use `a['name']`"));
                };
                self.push(TokenKind::Word, len + 2);
            }
            '0'..='9' => self.number(rest),
            '.' if rest.get(1..).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
                && !self.tokens.last().is_some_and(|t| t.ends_operand()) =>
            {
                self.number(rest);
            }
            '(' | '[' | '{' => {
                let call =
                    first == '(' && self.tokens.last().is_some_and(|t| t.kind == TokenKind::Word && t.text != "in");
                self.push(TokenKind::Open { call }, 1);
            }
            ')' | ']' | '}' => self.push(TokenKind::Close, 1),
            _ => self.operator(rest, first)?,
        }
        Ok(true)
    }

    fn number(&mut self, rest: &str) {
        let bytes = rest.as_bytes();
        let digits = |mut at: usize, hex: bool| {
            while bytes.get(at).is_some_and(|b| if hex { b.is_ascii_hexdigit() } else { b.is_ascii_digit() }) {
                at += 1;
            }
            at
        };
        let mut len;
        if rest.starts_with("0x") || rest.starts_with("0X") {
            len = digits(2, true);
        } else {
            len = digits(0, false);
            if bytes.get(len) == Some(&b'.') && bytes.get(len + 1).is_some_and(u8::is_ascii_digit) {
                len = digits(len + 1, false);
            }
            if matches!(bytes.get(len), Some(b'e' | b'E')) {
                let sign = usize::from(matches!(bytes.get(len + 1), Some(b'+' | b'-')));
                if bytes.get(len + 1 + sign).is_some_and(u8::is_ascii_digit) {
                    len = digits(len + 1 + sign, false);
                }
            }
        }
        if matches!(bytes.get(len), Some(b'u' | b'U')) {
            len += 1;
        }
        self.push(TokenKind::Number, len.max(1));
    }

    fn quoted(&mut self, prefix: usize) -> Result<(), Fault> {
        let rest = self.rest();
        let raw = rest.get(..prefix).is_some_and(|p| p.contains(['r', 'R']));
        let body = rest.get(prefix..).unwrap_or("");
        let quote = if body.starts_with('"') { '"' } else { '\'' };
        let triple: String = std::iter::repeat_n(quote, 3).collect();
        let width = if body.starts_with(&triple) { 3 } else { 1 };
        let mark: String = std::iter::repeat_n(quote, width).collect();
        let mut at = prefix + width;
        while let Some(tail) = rest.get(at..).filter(|tail| !tail.is_empty()) {
            if tail.starts_with(&mark) {
                self.push(TokenKind::Text, at + width);
                return Ok(());
            }
            let Some(first) = tail.chars().next() else { break };
            if width == 1 && (first == '\n' || first == '\r') {
                break;
            }
            at += first.len_utf8();
            if first == '\\' && !raw {
                at += rest.get(at..).and_then(|t| t.chars().next()).map_or(0, char::len_utf8);
            }
        }
        Err(self.here(rest.len(), format!("the text is not closed: {mark} is missing"), format!("end it with {mark}")))
    }

    fn operator(&mut self, rest: &str, first: char) -> Result<(), Fault> {
        match OPERATORS.iter().find(|op| rest.starts_with(**op)) {
            Some(&"=") => {
                let help = match rest.get(1..2) {
                    Some("~") => "write `text.matches('pattern')`",
                    Some(">") => "write `>=`",
                    _ => "write `==`",
                };
                Err(self.here(1, "`=` does not compare", help))
            }
            Some(&"&") => Err(self.here(1, "`&` is no operator", "write `&&`")),
            Some(&"<") if rest.starts_with("<>") => Err(self.here(2, "`<>` is no operator", "write `!=`")),
            Some(op) => {
                self.push(TokenKind::Op, op.len());
                Ok(())
            }
            None if first == '|' => Err(self.here(1, "`|` is no operator", "write `||`")),
            None if matches!(first, '‘' | '’' | '“' | '”') => {
                Err(self.here(first.len_utf8(), "a typographic quote does not delimit text", "write ' or \""))
            }
            None if first == '$' || first == '@' => Err(self.here(
                1,
                format!("`{first}` does not belong in a condition"),
                "write the bare path, such as `alert.severity`",
            )),
            None => Err(self.here(
                first.len_utf8(),
                format!("unexpected character {first:?}"),
                "text goes in quotes: 'text'",
            )),
        }
    }

    fn here(&self, len: usize, message: impl Into<String>, help: impl Into<String>) -> Fault {
        fault("WF0501", self.at, (self.at + len).min(self.text.len()), message, help)
    }
}

/// The length of the prefix (`r`, `b`, `br`) where a quoted text begins here.
fn text_prefix(rest: &str) -> Option<usize> {
    let len = rest.find(['\'', '"'])?;
    let prefix = rest.get(..len)?;
    (len <= 2 && prefix.chars().all(|c| matches!(c, 'r' | 'R' | 'b' | 'B'))).then_some(len)
}

impl Token<'_> {
    fn ends_operand(&self) -> bool {
        match self.kind {
            TokenKind::Word => self.text != "in",
            TokenKind::Number | TokenKind::Text | TokenKind::Close => true,
            TokenKind::Open { .. } | TokenKind::Op => false,
        }
    }
}

fn match_brackets(text: &str, tokens: &mut [Token<'_>]) -> Result<(), Fault> {
    let mut open: Vec<usize> = Vec::new();
    for index in 0..tokens.len() {
        let Some(token) = tokens.get(index).copied() else { break };
        match token.kind {
            TokenKind::Open { .. } => {
                open.push(index);
                if open.len() > MAX_DEPTH {
                    let message = format!("brackets are nested deeper than {MAX_DEPTH}");
                    return Err(fault("WF0505", token.start, token.end, message, "split it into `all` / `any`"));
                }
            }
            TokenKind::Close => {
                let mate = open.pop().and_then(|at| tokens.get(at).map(|t| (at, t.text)));
                let Some((at, mark)) = mate else {
                    return Err(fault(
                        "WF0501",
                        token.start,
                        token.end,
                        format!("`{}` was never opened", token.text),
                        "remove it",
                    ));
                };
                if closing(mark) != token.text {
                    let message = format!("`{mark}` is closed by `{}`", token.text);
                    return Err(fault("WF0501", token.start, token.end, message, format!("write `{}`", closing(mark))));
                }
                if let Some(first) = tokens.get_mut(at) {
                    first.mate = index;
                }
                if let Some(last) = tokens.get_mut(index) {
                    last.mate = at;
                }
            }
            _ => {}
        }
    }
    match open.pop().and_then(|at| tokens.get(at)) {
        None => Ok(()),
        Some(token) => {
            let help = format!("add `{}`", closing(token.text));
            Err(fault(
                "WF0501",
                token.start,
                text.len().max(token.end),
                format!("`{}` is not closed", token.text),
                help,
            ))
        }
    }
}

fn closing(open: &str) -> &'static str {
    match open {
        "(" => ")",
        "[" => "]",
        _ => "}",
    }
}

/// Walks the tokens as operand, operator, operand, so that the usual slips are named in people's words.
struct Validator<'t, 'a> {
    text: &'a str,
    tokens: &'t [Token<'a>],
}

impl Validator<'_, '_> {
    fn run(&self) -> Result<(), Fault> {
        if self.tokens.is_empty() {
            return Err(fault(
                "WF0501",
                0,
                self.text.len(),
                "the expression is empty",
                "write a condition such as `alert.severity == 'High'`",
            ));
        }
        let mut operand = false;
        for (index, token) in self.tokens.iter().enumerate() {
            let before = index.checked_sub(1).and_then(|at| self.tokens.get(at));
            operand = if operand { self.after_operand(token, before)? } else { self.before_operand(token, before)? };
        }
        let last = self.tokens.last().map_or("", |token| token.text);
        if !operand {
            let at = self.text.trim_end().len();
            return Err(fault("WF0501", at, at, format!("an operand is missing after `{last}`"), ""));
        }
        Ok(())
    }

    /// Returns whether an operand ends with this token.
    fn before_operand(&self, token: &Token<'_>, before: Option<&Token<'_>>) -> Result<bool, Fault> {
        let previous = before.map_or("", |t| t.text);
        match token.kind {
            TokenKind::Word if token.text == "in" && previous != "." => Err(self.missing_before(token)),
            TokenKind::Word if token.text == "not" && previous != "." => {
                Err(fault("WF0501", token.start, token.end, "`not` is no operator", "write `!`, as in `!(a == b)`"))
            }
            TokenKind::Word | TokenKind::Number | TokenKind::Text => Ok(true),
            TokenKind::Open { .. } => Ok(false),
            TokenKind::Close => match before.map(|t| t.kind) {
                Some(TokenKind::Open { call }) if call || token.text != ")" => Ok(true),
                Some(TokenKind::Open { .. }) => Err(fault(
                    "WF0501",
                    token.start,
                    token.end,
                    "the brackets are empty",
                    "write an operand between them",
                )),
                Some(TokenKind::Op) if previous == "," && token.text != ")" => Ok(true),
                _ => Err(fault(
                    "WF0501",
                    token.start,
                    token.end,
                    format!("an operand is missing after `{previous}`"),
                    "",
                )),
            },
            TokenKind::Op => match token.text {
                "!" | "-" => Ok(false),
                // `a.?b`, `a[?b]`, `[?x]` and `{?k: v}` mark optional parts.
                "?" if previous == "." || matches!(previous, "[" | "{" | ",") => Ok(false),
                _ => Err(self.missing_before(token)),
            },
        }
    }

    fn after_operand(&self, token: &Token<'_>, before: Option<&Token<'_>>) -> Result<bool, Fault> {
        let named = before.is_some_and(|t| t.kind == TokenKind::Word);
        match token.kind {
            TokenKind::Word if token.text == "in" => Ok(false),
            TokenKind::Word => Err(self.operator_word(token)),
            TokenKind::Close => Ok(true),
            TokenKind::Open { .. } if token.text == "[" => Ok(false),
            TokenKind::Open { call: true } if named => Ok(false),
            TokenKind::Open { .. } if token.text == "{" && named => Err(fault(
                "WF0503",
                token.start,
                token.end,
                "message values are not in the language",
                "write a map: `{'key': value}`",
            )),
            TokenKind::Op if token.text == "!" => Err(fault(
                "WF0501",
                token.start,
                token.end,
                "an operator is missing before `!`",
                "write `&& !…`, or `!=` to compare",
            )),
            TokenKind::Op => Ok(false),
            _ => {
                let message = format!("an operator is missing before `{}`", token.text);
                Err(fault("WF0501", token.start, token.end, message, "join the two with `&&`, `||`, `==`, …"))
            }
        }
    }

    fn missing_before(&self, token: &Token<'_>) -> Fault {
        fault("WF0501", token.start, token.end, format!("an operand is missing before `{}`", token.text), "")
    }

    fn operator_word(&self, token: &Token<'_>) -> Fault {
        let (message, help) = match token.text.to_ascii_lowercase().as_str() {
            "and" => ("`and` is no operator".to_owned(), "write `&&`".to_owned()),
            "or" => ("`or` is no operator".to_owned(), "write `||`".to_owned()),
            "not" => ("`not` is no operator".to_owned(), "write `!(a in b)`, or `!=` to compare".to_owned()),
            "is" | "eq" | "equals" => (format!("`{}` is no operator", token.text), "write `==`".to_owned()),
            "ne" => ("`ne` is no operator".to_owned(), "write `!=`".to_owned()),
            "contains" | "startswith" | "endswith" | "matches" | "like" => {
                let method = match token.text.to_ascii_lowercase().as_str() {
                    "startswith" => "startsWith",
                    "endswith" => "endsWith",
                    "matches" => "matches",
                    _ => "contains",
                };
                (format!("`{}` is no operator", token.text), format!("write `text.{method}('…')`"))
            }
            _ => (format!("an operator is missing before `{}`", token.text), "text goes in quotes: 'text'".to_owned()),
        };
        fault("WF0501", token.start, token.end, message, help)
    }
}

/// One bracket level while its depth is counted.
#[derive(Default)]
struct Level {
    operators: usize,
    deepest_child: usize,
    deepest: usize,
    map: bool,
}

impl Level {
    fn depth(&self) -> usize {
        self.deepest.max(self.operators + self.deepest_child)
    }

    fn restart(&mut self) {
        *self = Level { deepest: self.depth(), map: self.map, ..Level::default() };
    }
}

/// Bounds the depth of the tree: every operator of a run and every bracket is a level of it.
fn depth(tokens: &[Token<'_>]) -> Result<usize, Fault> {
    let mut levels = vec![Level::default()];
    for token in tokens {
        let Some(level) = levels.last_mut() else { break };
        match (token.kind, token.text) {
            (TokenKind::Open { .. }, mark) => {
                level.operators += 1;
                levels.push(Level { map: mark == "{", ..Level::default() });
            }
            (TokenKind::Close, _) => {
                let closed = levels.pop().map_or(0, |level| level.depth());
                if let Some(level) = levels.last_mut() {
                    level.deepest_child = level.deepest_child.max(closed);
                }
            }
            (TokenKind::Op, "," | "&&" | "||") => level.restart(),
            (TokenKind::Op, ":") if level.map => level.restart(),
            (TokenKind::Op, _) | (TokenKind::Word, "in") => level.operators += 1,
            _ => {}
        }
        if levels.last().is_some_and(|level| level.depth() > MAX_LEVELS) {
            let message = format!("the expression is deeper than {MAX_LEVELS} operators and brackets");
            return Err(fault("WF0505", token.start, token.end, message, "split it with `set`, or into `all` / `any`"));
        }
    }
    Ok(levels.first().map_or(0, Level::depth))
}
