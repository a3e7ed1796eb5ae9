//! From CEL text to our own tree: the `cel` crate parses, this lowers its syntax tree and refuses what the language
//! leaves out (null, uint, bytes, messages).
//!
//! The crate's tree has one token's place per node; the token list gives whole spans. Its macros are switched off, so
//! that comprehensions arrive as they were written.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use cel::common::ast::{EntryExpr, Expr as Cel, IdedExpr, LiteralValue, SourceInfo, operators};
use regex::RegexBuilder;

use super::Fault;
use super::ast::{Each, Kind, Node, Op};
use super::functions;
use super::lex::{self, Token, TokenKind, fault};
use crate::value::Value;

/// Deepest nesting of expressions for the crate's parser.
const MAX_RECURSION: u16 = 48;
/// Comprehensions within comprehensions.
const MAX_EACH: usize = 2;
/// Size of one compiled pattern, in bytes.
const MAX_REGEX: usize = 256 * 1024;

/// Depth that the crate's parser takes on any thread's stack; it uses a good part of 200 KiB a level without optimisation.
const SHALLOW: usize = 4;
/// Stack for a deeper text, in bytes.
const STACK: usize = 64 * 1024 * 1024;

/// Parses a text into a tree, or says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Node, Vec<Fault>> {
    let (tokens, depth) = lex::scan(text).map_err(|fault| vec![fault])?;
    if depth <= SHALLOW {
        return lower(text, &tokens);
    }
    // A reader that ended is replaced once.
    let node = read_apart(text).or_else(|| read_apart(text));
    node.unwrap_or_else(|| {
        let message = "the expression is too deep to be read now";
        Err(vec![fault("WF0505", 0, text.len(), message, "split it with `set`, or into `all` / `any`")])
    })
}

/// A text to be read on the deep stack, and where its tree goes.
type Job = (String, mpsc::Sender<Result<Node, Vec<Fault>>>);

/// The one thread with a deep stack: ordinary conditions are deeper than [`SHALLOW`], and a thread for each of them costs
/// more than reading it.
static READER: Mutex<Option<mpsc::Sender<Job>>> = Mutex::new(None);

/// Reads a text on the deep stack; `None` where there is no such thread.
fn read_apart(text: &str) -> Option<Result<Node, Vec<Fault>>> {
    let (answer, result) = mpsc::channel();
    let reader = {
        let mut reader = READER.lock().unwrap_or_else(PoisonError::into_inner);
        if reader.is_none() {
            *reader = start_reader();
        }
        reader.clone()?
    };
    let found = reader.send((text.to_owned(), answer)).ok().and_then(|()| result.recv().ok());
    if found.is_none() {
        *READER.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
    found
}

fn start_reader() -> Option<mpsc::Sender<Job>> {
    let (jobs, queue) = mpsc::channel::<Job>();
    let read = move || {
        for (text, answer) in queue {
            let node = lex::scan(&text).map_err(|fault| vec![fault]).and_then(|(tokens, _)| lower(&text, &tokens));
            // Whoever asked may have gone; the next one has not.
            let _ = answer.send(node);
        }
    };
    std::thread::Builder::new().name("parse".into()).stack_size(STACK).spawn(read).ok().map(|_| jobs)
}

fn lower(text: &str, tokens: &[Token<'_>]) -> Result<Node, Vec<Fault>> {
    let parser = cel::Env::default().parser().max_recursion_depth(MAX_RECURSION);
    let parser = parser.enable_optional_syntax(true).enable_ident_escape_syntax(true);
    let (tree, info) = parser.parse_with_source_info(text).map_err(|errors| translate(text, &errors))?;
    let mut lowering = Lowering { tokens, info: &info, faults: Vec::new(), each: 0 };
    let node = lowering.node(&tree);
    if lowering.faults.is_empty() { Ok(node) } else { Err(lowering.faults) }
}

/// What remains after our own scan: the crate's message, without its grammar-speak.
fn translate(text: &str, errors: &cel::ParseErrors) -> Vec<Fault> {
    let Some(first) = errors.errors.first() else {
        return vec![fault("WF0501", 0, text.len(), "the expression can't be read", "")];
    };
    let (line, column) = (first.pos.0.max(1), first.pos.1.max(1));
    let lines_before: usize =
        text.split_inclusive('\n').take(usize::try_from(line - 1).unwrap_or(0)).map(str::len).sum();
    let at = (lines_before + usize::try_from(column - 1).unwrap_or(0)).min(text.len());
    let message = first.msg.trim_start_matches("Syntax error: ");
    let (code, message, help) = if let Some(word) = message.strip_prefix("reserved identifier: ") {
        ("WF0501", format!("`{word}` is a reserved word of CEL"), format!("as a member name write `x['{word}']`"))
    } else if message.contains("Recursion limit") {
        (
            "WF0505",
            "the expression is nested too deeply".to_owned(),
            "split it with `set`, or into `all` / `any`".to_owned(),
        )
    } else if message.starts_with("invalid int") {
        ("WF0501", "the number does not fit into 64 bits".to_owned(), String::new())
    } else if message.starts_with("invalid double") {
        ("WF0501", "the number is too large".to_owned(), String::new())
    } else if message.starts_with("invalid string") {
        (
            "WF0501",
            "the text has an escape that CEL does not know".to_owned(),
            "write `\\\\` for a backslash, or a raw text: r'…'".to_owned(),
        )
    } else if message.starts_with("invalid bytes") || message.starts_with("invalid uint") {
        ("WF0503", "bytes and unsigned numbers are not in the language".to_owned(), String::new())
    } else {
        (
            "WF0501",
            "the expression can't be read from here".to_owned(),
            "compare it with the examples of `watchfloor explain WF0501`".to_owned(),
        )
    };
    let end = text.get(at..).and_then(|rest| rest.chars().next()).map_or(text.len(), |c| at + c.len_utf8());
    vec![fault(code, at, end, message, help)]
}

struct Lowering<'t, 'a> {
    tokens: &'t [Token<'a>],
    info: &'t SourceInfo,
    faults: Vec<Fault>,
    /// Comprehensions around this place.
    each: usize,
}

impl Lowering<'_, '_> {
    fn node(&mut self, ided: &IdedExpr) -> Node {
        let (start, end) = self.token_span(ided.id);
        let leaf = |kind| Node { start, end, kind };
        match &ided.expr {
            Cel::Literal(literal) => self.literal(literal, start, end),
            Cel::Ident(name) if name.starts_with('.') => {
                self.refuse(start, end, "a leading dot is not in the language", "write the bare name");
                leaf(Kind::Name(name.trim_start_matches('.').into()))
            }
            Cel::Ident(name) => leaf(Kind::Name(name.as_str().into())),
            Cel::Select(select) => {
                let of = self.node(&select.operand);
                let (start, end) = self.around(&of, self.member_end(end));
                Node {
                    start,
                    end,
                    kind: Kind::Select { of: Box::new(of), field: select.field.as_str().into(), optional: false },
                }
            }
            Cel::List(list) => {
                let items = list.elements.iter().enumerate();
                let items = items.map(|(at, item)| (self.node(item), list.optional_indices.contains(&at))).collect();
                let end = self.closed(start, end);
                Node { start, end, kind: Kind::List(items) }
            }
            Cel::Map(map) => {
                let mut entries = Vec::new();
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        entries.push((self.node(&entry.key), self.node(&entry.value), entry.optional));
                    }
                }
                let end = self.closed(start, end);
                Node { start, end, kind: Kind::Map(entries) }
            }
            Cel::Call(call) => self.call(&call.func_name, call.target.as_deref(), &call.args, (start, end)),
            Cel::Struct(_) => {
                self.refuse(start, end, "message values are not in the language", "write a map: `{'key': value}`");
                leaf(Kind::Literal(Value::empty()))
            }
            Cel::Comprehension(_) | Cel::Unspecified => {
                self.refuse(start, end, "the expression can't be read", "");
                leaf(Kind::Literal(Value::Bool(false)))
            }
        }
    }

    fn literal(&mut self, literal: &LiteralValue, start: usize, end: usize) -> Node {
        let mut start = start;
        let value = match literal {
            LiteralValue::Boolean(value) => Value::Bool(*value.inner()),
            LiteralValue::Int(value) => {
                start = self.signed(start, *value.inner() < 0);
                Value::Int(*value.inner())
            }
            LiteralValue::Double(value) => {
                start = self.signed(start, value.inner().is_sign_negative());
                Value::Number(*value.inner())
            }
            LiteralValue::String(text) => Value::str(text.inner()),
            LiteralValue::Null => {
                self.refuse(
                    start,
                    end,
                    "there is no null: absence is a missing member",
                    "write `!has(a.b)` for `a.b == null`",
                );
                Value::Bool(false)
            }
            LiteralValue::UInt(value) => {
                let help = format!("write `{}`", value.inner());
                self.refuse(start, end, "unsigned numbers are not in the language", help);
                Value::Int(0)
            }
            LiteralValue::Bytes(_) => {
                self.refuse(start, end, "bytes are not in the language", "write text: 'abc'");
                Value::str("")
            }
        };
        Node { start, end, kind: Kind::Literal(value) }
    }

    fn refuse(&mut self, start: usize, end: usize, message: impl Into<String>, help: impl Into<String>) {
        self.faults.push(fault("WF0503", start, end, message, help));
    }

    fn call(&mut self, name: &str, target: Option<&IdedExpr>, args: &[IdedExpr], at: (usize, usize)) -> Node {
        if target.is_none()
            && let Some(node) = self.operator(name, args, at)
        {
            return node;
        }
        let end = self.closed(at.0, at.1);
        let name_span = self.before(at.0);
        if let (None, "has", [arg]) = (target, name, args) {
            return self.has(arg, name_span.0, end);
        }
        if let (Some(range), Some(kind)) = (target, each_kind(name)) {
            return self.each(kind, range, args, name_span, end);
        }
        // `optional.of(x)` parses as a call on a name.
        let qualified = target.and_then(|target| match &target.expr {
            Cel::Ident(root) if functions::NAMESPACES.contains(&root.as_str()) => Some(format!("{root}.{name}")),
            _ => None,
        });
        let mut nodes = Vec::new();
        let mut start = name_span.0;
        if let (None, Some(target)) = (&qualified, target) {
            let target = self.node(target);
            start = self.around(&target, end).0;
            nodes.push(target);
        } else if let (Some(_), Some(target)) = (&qualified, target) {
            start = self.token_span(target.id).0;
        }
        nodes.extend(args.iter().map(|arg| self.node(arg)));
        let method = target.is_some() && qualified.is_none();
        let name = qualified.as_deref().unwrap_or(name);
        match functions::resolve(name, method, nodes.len()) {
            Ok(function) => {
                let regex = self.pattern(function, &nodes);
                self.literals(function, &nodes);
                Node { start, end, kind: Kind::Call { function, args: nodes, regex } }
            }
            Err((message, help)) => {
                let (start_name, end_name) = name_span;
                self.faults.push(fault("WF0504", start_name, end_name, message, help.unwrap_or_default()));
                Node { start, end, kind: Kind::Literal(Value::Bool(false)) }
            }
        }
    }

    fn operator(&mut self, name: &str, args: &[IdedExpr], at: (usize, usize)) -> Option<Node> {
        use operators as o;
        let binary = match name {
            o::ADD => Op::Add,
            o::SUBSTRACT => Op::Sub,
            o::MULTIPLY => Op::Mul,
            o::DIVIDE => Op::Div,
            o::MODULO => Op::Rem,
            o::EQUALS => Op::Eq,
            o::NOT_EQUALS => Op::Ne,
            o::LESS => Op::Lt,
            o::LESS_EQUALS => Op::Le,
            o::GREATER => Op::Gt,
            o::GREATER_EQUALS => Op::Ge,
            o::IN => Op::In,
            _ => return self.other_operator(name, args, at),
        };
        let [left, right] = args else { return None };
        if let Some(node) = self.null_comparison(binary, left, right) {
            return Some(node);
        }
        let (left, right) = (Box::new(self.node(left)), Box::new(self.node(right)));
        let (start, end) = (self.widen(&left).0, self.widen(&right).1);
        Some(Node { start, end, kind: Kind::Binary { op: binary, left, right, number: false } })
    }

    /// `a.b == null` has a fix of its own.
    fn null_comparison(&mut self, op: Op, left: &IdedExpr, right: &IdedExpr) -> Option<Node> {
        let null = |side: &IdedExpr| matches!(side.expr, Cel::Literal(LiteralValue::Null));
        let (other, mark) = match (op, null(left), null(right)) {
            (Op::Eq, _, true) => (left, "!"),
            (Op::Ne, _, true) => (left, ""),
            (Op::Eq, true, _) => (right, "!"),
            (Op::Ne, true, _) => (right, ""),
            _ => return None,
        };
        let (left_node, right_node) = (self.token_span(left.id), self.token_span(right.id));
        let other = self.node(other);
        let (start, end) = (other.start.min(left_node.0), other.end.max(right_node.1));
        let help = match other.static_path() {
            Some((root, path)) if !path.is_empty() => format!("write `{mark}has({root}.{})`", path.join(".")),
            _ => format!("write `{mark}has(a.b)`"),
        };
        // A fault of the operand itself says nothing new beside this one.
        self.faults.retain(|fault| fault.start < start || fault.end > end);
        self.refuse(start, end, "there is no null to compare with: absence is a missing member", help);
        Some(other)
    }

    fn other_operator(&mut self, name: &str, args: &[IdedExpr], at: (usize, usize)) -> Option<Node> {
        use operators as o;
        match (name, args) {
            (o::LOGICAL_NOT | o::NEGATE, [operand]) => {
                let operand = Box::new(self.node(operand));
                let end = self.widen(&operand).1;
                let kind = if name == o::NEGATE { Kind::Negate(operand) } else { Kind::Not(operand) };
                Some(Node { start: at.0, end, kind })
            }
            (o::LOGICAL_AND | o::LOGICAL_OR, [left, right]) => {
                let (left, right) = (self.node(left), self.node(right));
                let (start, end) = (self.widen(&left).0, self.widen(&right).1);
                let mut parts = Vec::new();
                for side in [left, right] {
                    match side.kind {
                        Kind::And(inner) if name == o::LOGICAL_AND => parts.extend(inner),
                        Kind::Or(inner) if name == o::LOGICAL_OR => parts.extend(inner),
                        kind => parts.push(Node { kind, ..side }),
                    }
                }
                let kind = if name == o::LOGICAL_AND { Kind::And(parts) } else { Kind::Or(parts) };
                Some(Node { start, end, kind })
            }
            (o::CONDITIONAL, [test, then, other]) => {
                let parts = [self.node(test), self.node(then), self.node(other)];
                let (start, end) = (self.widen(&parts[0]).0, self.widen(&parts[2]).1);
                Some(Node { start, end, kind: Kind::If(Box::new(parts)) })
            }
            (o::INDEX | o::OPT_INDEX, [of, index]) => {
                let (of, index) = (Box::new(self.node(of)), Box::new(self.node(index)));
                let (start, end) = self.around(&of, self.closed(at.0, at.1));
                Some(Node { start, end, kind: Kind::Index { of, index, optional: name == o::OPT_INDEX } })
            }
            (o::OPT_SELECT, [of, field]) => {
                let of = Box::new(self.node(of));
                let (start, end) = self.around(&of, self.member_end(at.1));
                let Cel::Literal(LiteralValue::String(field)) = &field.expr else { return None };
                Some(Node { start, end, kind: Kind::Select { of, field: field.inner().into(), optional: true } })
            }
            _ => None,
        }
    }

    fn has(&mut self, arg: &IdedExpr, start: usize, end: usize) -> Node {
        let inner = self.node(arg);
        let kind = match inner.kind {
            Kind::Select { of, field, optional: false } => Kind::Has { of, field },
            Kind::Index { of, index, optional: false } if matches!(index.kind, Kind::Literal(Value::String(_))) => {
                let Kind::Literal(Value::String(field)) = index.kind else {
                    return Node { start, end, kind: Kind::List(vec![]) };
                };
                Kind::Has { of, field }
            }
            kind => {
                let help = match &kind {
                    Kind::Name(name) => format!("write `has({name}.field)` with the member that you need"),
                    _ => "write `has(a.b)`".into(),
                };
                self.faults.push(fault("WF0506", start, end, "`has` asks for a member, such as `has(a.b)`", help));
                Kind::Literal(Value::Bool(false))
            }
        };
        Node { start, end, kind }
    }

    fn each(&mut self, kind: Each, range: &IdedExpr, args: &[IdedExpr], name: (usize, usize), end: usize) -> Node {
        let range = Box::new(self.node(range));
        let start = self.around(&range, end).0;
        let bad = Node { start, end, kind: Kind::Literal(Value::Bool(false)) };
        let (var, filter, body) = match args {
            [var, body] => (var, None, body),
            [var, filter, body] if kind == Each::Map => (var, Some(filter), body),
            _ => {
                let help = "write `list.exists(x, x.field == 'value')`";
                self.faults.push(fault("WF0504", name.0, name.1, "this wants a name and an expression", help));
                return bad;
            }
        };
        let Cel::Ident(var) = &var.expr else {
            let (start, end) = self.token_span(var.id);
            self.faults.push(fault(
                "WF0504",
                start,
                end,
                "the first argument is the name of an item",
                "write `list.exists(x, x.field == 'value')`",
            ));
            return bad;
        };
        self.each += 1;
        if self.each == MAX_EACH + 1 {
            let message = format!("comprehensions are nested deeper than {MAX_EACH}");
            self.faults.push(fault("WF0505", name.0, end, message, "compute the inner list with `set` first"));
        }
        let filter = filter.map(|filter| Box::new(self.node(filter)));
        let body = Box::new(self.node(body));
        self.each -= 1;
        Node { start, end, kind: Kind::Each { kind, range, var: var.as_str().into(), body, filter } }
    }

    /// Compiles the pattern of `matches` once: a literal, of bounded size.
    fn pattern(&mut self, function: &functions::Function, args: &[Node]) -> Option<Arc<regex::Regex>> {
        if function.name != "matches" {
            return None;
        }
        let pattern = args.get(1)?;
        let Kind::Literal(Value::String(text)) = &pattern.kind else {
            let help = "write the pattern as literal text; to search for a value use `contains`";
            self.faults.push(fault("WF0507", pattern.start, pattern.end, "a pattern must be literal text", help));
            return None;
        };
        match RegexBuilder::new(text).size_limit(MAX_REGEX).dfa_size_limit(MAX_REGEX).build() {
            Ok(regex) => Some(Arc::new(regex)),
            Err(regex::Error::CompiledTooBig(_)) => {
                self.faults.push(fault(
                    "WF0507",
                    pattern.start,
                    pattern.end,
                    "the pattern is too large",
                    "use smaller repetition counts",
                ));
                None
            }
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or("").trim_start_matches("error: ").to_owned();
                let message = format!("the pattern can't be compiled: {reason}");
                self.faults.push(fault(
                    "WF0507",
                    pattern.start,
                    pattern.end,
                    message,
                    "look-around and back-references are not supported",
                ));
                None
            }
        }
    }

    /// Literal arguments such as `duration('7d')` fail when the flow is loaded, not when it runs.
    fn literals(&mut self, function: &functions::Function, args: &[Node]) {
        for arg in args {
            let Kind::Literal(Value::String(text)) = &arg.kind else { continue };
            let Some(Err(message)) = functions::check_literal(function, text) else { continue };
            if function.name == "in_cidr" && std::ptr::eq(arg, &raw const args[0]) {
                continue;
            }
            self.faults.push(fault("WF0508", arg.start, arg.end, message, function.example_help()));
        }
    }

    fn token_at(&self, start: usize) -> Option<usize> {
        self.tokens.binary_search_by_key(&start, |token| token.start).ok()
    }

    fn token_span(&self, id: u64) -> (usize, usize) {
        let start = self.info.offset_for(id).map_or(0, |(start, _)| start as usize);
        match self.token_at(start).and_then(|at| self.tokens.get(at)) {
            Some(token) => (token.start, token.end),
            None => (start, start + 1),
        }
    }

    /// The token before the bracket of a call: its name.
    fn before(&self, start: usize) -> (usize, usize) {
        let token = self.token_at(start).and_then(|at| at.checked_sub(1)).and_then(|at| self.tokens.get(at));
        token.map_or((start, start + 1), |token| (token.start, token.end))
    }

    /// The end of the bracket that opens at `start`.
    fn closed(&self, start: usize, end: usize) -> usize {
        let open = self.token_at(start).and_then(|at| self.tokens.get(at));
        open.and_then(|open| self.tokens.get(open.mate)).map_or(end, |close| close.end)
    }

    /// The end of the member name after the dot that ends at `dot_end`.
    fn member_end(&self, dot_end: usize) -> usize {
        let next = self.tokens.partition_point(|token| token.start < dot_end);
        let word = self.tokens.iter().skip(next).take(2).find(|token| token.kind == TokenKind::Word);
        word.map_or(dot_end, |word| word.end)
    }

    fn signed(&self, start: usize, negative: bool) -> usize {
        let before = self.before(start);
        let minus = negative && self.tokens.iter().any(|token| token.start == before.0 && token.text == "-");
        if minus { before.0 } else { start }
    }

    /// A node's span with the brackets that only group it.
    fn widen(&self, node: &Node) -> (usize, usize) {
        let (mut start, mut end) = (node.start, node.end);
        loop {
            let next = self.tokens.partition_point(|token| token.start < end);
            let first = self.token_at(start).and_then(|at| at.checked_sub(1));
            match (first.and_then(|at| self.tokens.get(at)), self.tokens.get(next)) {
                (Some(open), Some(close)) if open.text == "(" && open.mate == next => {
                    (start, end) = (open.start, close.end);
                }
                _ => return (start, end),
            }
        }
    }

    fn around(&self, of: &Node, end: usize) -> (usize, usize) {
        (self.widen(of).0, end)
    }
}

fn each_kind(name: &str) -> Option<Each> {
    Some(match name {
        "all" => Each::All,
        "exists" => Each::Exists,
        "exists_one" | "existsOne" => Each::ExistsOne,
        "map" => Each::Map,
        "filter" => Each::Filter,
        "sort_by" | "sortBy" => Each::SortBy,
        "optMap" => Each::OptMap,
        "optFlatMap" => Each::OptFlatMap,
        _ => return None,
    })
}
