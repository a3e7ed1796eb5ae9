//! From tags to typed parts: paths are known, helpers exist, objects and lists do not slip into text.

use std::sync::Arc;

use super::super::ast::{Kind, Node};
use super::super::check::Checker;
use super::super::lex::fault;
use super::super::{Binding, Fault, Presence, Reference, TypeEnv, parse as cel};
use super::helpers::{self, Helper, Takes};
use super::parse::{self, Tag, Word, WordKind};
use super::words::is_path;
use super::{Part, Piece, Template};
use crate::catalog::{Context, Type};

pub(super) fn compile(
    text: &str,
    env: &dyn TypeEnv,
    context: Context,
    file: bool,
) -> Result<(Template, Vec<Fault>), Vec<Fault>> {
    let tags = parse::parse(text, file).map_err(|fault| vec![fault])?;
    let single = !file && matches!(tags.as_slice(), [Tag::Value { .. } | Tag::Cel { .. }]);
    let mut compiler =
        Compiler { env, items: vec![], faults: vec![], references: vec![], explains: vec![], text_types: !single };
    let (parts, ty) = match tags.as_slice() {
        [Tag::Value { words, start, end }] if single => {
            let (piece, ty) = compiler.value(words, (*start, *end));
            (vec![Part::Value(piece)], ty)
        }
        [Tag::Cel { text, at }] if single => {
            let (piece, ty) = compiler.cel(text, *at);
            (vec![Part::Value(piece)], ty)
        }
        _ => (compiler.parts(&tags), Type::String),
    };
    if compiler.faults.iter().any(|fault| !fault.warning) {
        return Err(compiler.faults);
    }
    let Compiler { faults, references, explains, .. } = compiler;
    Ok((Template { ty, references, parts: Arc::new(parts), context, single, explains }, faults))
}

struct Compiler<'a> {
    env: &'a dyn TypeEnv,
    /// The item types of the `{{#each}}` blocks around, innermost last.
    items: Vec<Type>,
    faults: Vec<Fault>,
    references: Vec<Reference>,
    explains: Vec<Arc<str>>,
    /// The value goes into text: objects and lists are faults.
    text_types: bool,
}

impl Compiler<'_> {
    fn report(&mut self, code: &'static str, at: (usize, usize), message: impl Into<String>, help: impl Into<String>) {
        self.faults.push(fault(code, at.0, at.1, message, help));
    }

    fn parts(&mut self, tags: &[Tag]) -> Vec<Part> {
        tags.iter().map(|tag| self.part(tag)).collect()
    }

    fn part(&mut self, tag: &Tag) -> Part {
        match tag {
            Tag::Text(text) => Part::Text(text.as_str().into()),
            Tag::Cel { text, at } => {
                let (piece, ty) = self.cel(text, *at);
                self.printable(&ty, (*at, at + text.len()), text.trim());
                Part::Value(piece)
            }
            Tag::Value { words, start, end } => {
                let (piece, ty) = self.value(words, (*start, *end));
                let shown = words.first().map_or("the value", |word| match &word.kind {
                    WordKind::Path(path) => path,
                    _ => "the value",
                });
                self.printable(&ty, (*start, *end), shown);
                Part::Value(piece)
            }
            Tag::If { words, start, end, then, other } => {
                let (test, _) = self.path_of_block(words, (*start, *end), "if");
                Part::If { test, then: self.parts(then), other: self.parts(other) }
            }
            Tag::Each { words, start, end, body, other } => {
                let (list, ty) = self.path_of_block(words, (*start, *end), "each");
                let item = match &ty {
                    Type::List(item) => (**item).clone(),
                    Type::Any => Type::Any,
                    other => {
                        self.report("WF0604", (*start, *end), format!("`{{{{#each}}}}` wants a list, not {other}"), "");
                        Type::Any
                    }
                };
                self.items.push(item);
                let body = self.parts(body);
                self.items.pop();
                Part::Each { list, body, other: self.parts(other) }
            }
        }
    }

    fn path_of_block(&mut self, words: &[Word], at: (usize, usize), name: &str) -> (Piece, Type) {
        match words {
            [Word { kind: WordKind::Path(path), start, end }] => self.path(path, (*start, *end), name == "if"),
            [Word { kind: WordKind::Call(words), start, end }] => self.value(words, (*start, *end)),
            _ => {
                let help = if words.iter().any(|w| matches!(&w.kind, WordKind::Path(p) if p == "as")) {
                    "inside the block read the members of the item directly: `{{ name }}`".to_owned()
                } else {
                    format!("write `{{{{#{name} alert.devices}}}}`")
                };
                self.report("WF0607", at, format!("`{{{{#{name}}}}}` takes one path"), help);
                (Piece::Literal(crate::value::Value::empty()), Type::Any)
            }
        }
    }

    fn printable(&mut self, ty: &Type, at: (usize, usize), shown: &str) {
        if !self.text_types || ty.is_scalar() {
            return;
        }
        let help = match ty {
            Type::List(item) if item.is_scalar() => {
                format!("write `{{{{ join {shown} }}}}` or `{{{{ count {shown} }}}}`")
            }
            Type::List(_) => {
                format!("write `{{{{ table {shown} }}}}`, `{{{{ count {shown} }}}}` or `{{{{ json {shown} }}}}`")
            }
            Type::Object(object) => match object
                .fields
                .iter()
                .find(|(name, field)| matches!(&***name, "name" | "title" | "upn" | "id") && field.ty.is_scalar())
            {
                Some((name, _)) => {
                    format!("print a member: `{{{{ {shown}.{name} }}}}`, or all of it: `{{{{ json {shown} }}}}`")
                }
                None => format!("print a member, or all of it: `{{{{ json {shown} }}}}`"),
            },
            _ => format!("write `{{{{ json {shown} }}}}`"),
        };
        self.report("WF0604", at, format!("{shown} is {ty}, which can't be printed in text"), help);
    }

    /// `{{ path }}` or `{{ helper args }}`.
    fn value(&mut self, words: &[Word], at: (usize, usize)) -> (Piece, Type) {
        let nothing = (Piece::Literal(crate::value::Value::empty()), Type::Any);
        let Some((first, args)) = words.split_first() else { return nothing };
        let name = match &first.kind {
            WordKind::Path(name) => name,
            WordKind::Literal(value) if args.is_empty() => {
                return (Piece::Literal(value.clone()), literal_type(value));
            }
            WordKind::Call(inner) if args.is_empty() => return self.value(inner, (first.start, first.end)),
            _ => {
                self.report(
                    "WF0601",
                    (first.start, first.end),
                    "a path or a helper comes first",
                    "write `{{ helper path }}`",
                );
                return nothing;
            }
        };
        if args.is_empty() {
            if let Some(helper) = helpers::known(name) {
                self.report(
                    "WF0606",
                    at,
                    format!("`{name}` is a helper and wants operands"),
                    format!("write `{{{{ {} }}}}`", helper.usage),
                );
                return nothing;
            }
            return self.path(name, (first.start, first.end), false);
        }
        match helpers::find(name) {
            Ok(helper) => self.call(helper, args, at),
            Err(help) => {
                self.report(
                    "WF0603",
                    (first.start, first.end),
                    format!("unknown helper `{name}`"),
                    help.unwrap_or_default(),
                );
                nothing
            }
        }
    }

    fn call(&mut self, helper: &'static Helper, args: &[Word], at: (usize, usize)) -> (Piece, Type) {
        let nothing = (Piece::Literal(crate::value::Value::empty()), Type::Any);
        if args.len() < helper.min || args.len() > helper.max {
            self.report(
                "WF0606",
                at,
                format!("`{}` does not take {} operands", helper.name, args.len()),
                format!("write `{{{{ {} }}}}`", helper.usage),
            );
            return nothing;
        }
        if helper.takes == Takes::Step {
            return self.explain(args, at);
        }
        let tolerant = helper.name == "default";
        let mut pieces = Vec::new();
        let mut types = Vec::new();
        for (index, arg) in args.iter().enumerate() {
            let (piece, ty) = match &arg.kind {
                WordKind::Literal(value) => (Piece::Literal(value.clone()), literal_type(value)),
                WordKind::Path(path) => self.path(path, (arg.start, arg.end), tolerant && index == 0),
                WordKind::Call(inner) => self.value(inner, (arg.start, arg.end)),
            };
            if index == 0 && !helper.takes.accepts(&ty) {
                let message = format!("`{}` does not work on {ty}", helper.name);
                self.report(
                    "WF0606",
                    (arg.start, arg.end),
                    message,
                    format!("write `{{{{ {} }}}}`: {}", helper.usage, helper.doc),
                );
            }
            pieces.push(piece);
            types.push(ty);
        }
        let ty = match (tolerant, types.as_slice()) {
            (true, [first, second]) => first.join(second).unwrap_or(Type::Any),
            _ => helper.gives.clone(),
        };
        (Piece::Call { helper, args: pieces }, ty)
    }

    fn explain(&mut self, args: &[Word], at: (usize, usize)) -> (Piece, Type) {
        let id = match args {
            [Word { kind: WordKind::Path(id), .. }] => id.as_str(),
            _ => "",
        };
        if !self.env.explainable(id) {
            let message = format!("`explain` wants the id of an `if` step before this place, not `{id}`");
            self.report("WF0606", at, message, "give the `if` step an id: `- id: verdict`");
        }
        let id: Arc<str> = id.into();
        if !self.explains.contains(&id) {
            self.explains.push(Arc::clone(&id));
        }
        (Piece::Explain(id), Type::String)
    }

    fn cel(&mut self, text: &str, at: usize) -> (Piece, Type) {
        match cel::parse(text) {
            Ok(node) => {
                if !self.items.is_empty() {
                    self.report(
                        "WF0607",
                        (at, at + text.len()),
                        "`{{= … }}` does not work inside `{{#each}}`",
                        "read members of the item: `{{ name }}`",
                    );
                }
                self.typed(node, at)
            }
            Err(faults) => {
                self.take(faults, at);
                (Piece::Literal(crate::value::Value::empty()), Type::Any)
            }
        }
    }

    fn take(&mut self, faults: Vec<Fault>, at: usize) {
        self.faults.extend(faults.into_iter().map(|fault| Fault {
            start: fault.start + at,
            end: fault.end + at,
            ..fault
        }));
    }

    fn typed(&mut self, mut node: Node, at: usize) -> (Piece, Type) {
        let mut checker = Checker::new(self.env);
        let ty = checker.whole(&mut node);
        let (references, faults) = (checker.references, checker.faults);
        self.take(faults, at);
        for reference in references {
            if !self.references.contains(&reference) {
                self.references.push(reference);
            }
        }
        (Piece::Expr(Arc::new(node)), ty)
    }

    /// A path: a member of the item where one is in reach, else a root. `tolerant`: absence is an answer here.
    fn path(&mut self, path: &str, at: (usize, usize), tolerant: bool) -> (Piece, Type) {
        let nothing = (Piece::Literal(crate::value::Value::empty()), Type::Any);
        if let Some((message, help)) = refused(path) {
            self.report("WF0602", at, message, help);
            return nothing;
        }
        let names: Vec<&str> = path.split('.').collect();
        if !is_path(path) {
            let help = "a path is names with dots: `alert.title`; for anything else write `{{= … }}`";
            self.report("WF0601", at, format!("`{path}` is no path"), help);
            return nothing;
        }
        if let Some(found) = self.item(&names, at) {
            return found;
        }
        let mut node = Node {
            start: 0,
            end: names.first().map_or(0, |n| n.len()),
            kind: Kind::Name(names.first().copied().unwrap_or("").into()),
        };
        for name in names.iter().skip(1) {
            let end = node.end + 1 + name.len();
            node = Node {
                start: 0,
                end,
                kind: Kind::Select { of: Box::new(node), field: (*name).into(), optional: false },
            };
        }
        if !tolerant {
            return self.typed(node, at.0);
        }
        let tolerant = Tolerant(self.env);
        let inner = Compiler {
            env: &tolerant,
            items: vec![],
            faults: vec![],
            references: vec![],
            explains: vec![],
            text_types: false,
        };
        let mut inner = inner;
        let (piece, ty) = inner.typed(node, at.0);
        self.faults.extend(inner.faults);
        self.references.extend(inner.references);
        (piece, ty)
    }

    /// The member of the nearest item that has it; `item` names the innermost item itself.
    fn item(&mut self, names: &[&str], at: (usize, usize)) -> Option<(Piece, Type)> {
        let first = names.first()?;
        let shown: Arc<str> = names.join(".").into();
        for (up, item) in self.items.iter().rev().enumerate() {
            let rest = if *first == "item" { names.get(1..)? } else { names };
            let known = *first == "item"
                || item.field(first).is_some() && (*item != Type::Any || self.env.lookup(first).is_none());
            if !known {
                continue;
            }
            let mut ty = item.clone();
            for name in rest {
                match ty.field(name) {
                    Some(field) => ty = field.ty,
                    None => {
                        let message = format!("the item has no member `{}`", rest.join("."));
                        let help = match &ty {
                            Type::Object(object) => crate::diag::suggestion(name, object.fields.keys().map(|k| &**k)),
                            _ => None,
                        };
                        self.report("WF0312", at, message, help.unwrap_or_default());
                        return Some((Piece::Literal(crate::value::Value::empty()), Type::Any));
                    }
                }
            }
            let path = rest.iter().map(|name| Arc::from(*name)).collect();
            return Some((Piece::Item { up, path, shown }, ty));
        }
        None
    }
}

/// Where absence is an answer, a step that may not have run may be read.
struct Tolerant<'a>(&'a dyn TypeEnv);

impl TypeEnv for Tolerant<'_> {
    fn lookup(&self, name: &str) -> Option<Binding> {
        self.0.lookup(name).map(|binding| match binding.presence {
            Presence::Maybe(_) => Binding { presence: Presence::Always, ..binding },
            _ => binding,
        })
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.0.names()
    }

    fn explainable(&self, id: &str) -> bool {
        self.0.explainable(id)
    }

    fn strict(&self) -> bool {
        self.0.strict()
    }
}

fn literal_type(value: &crate::value::Value) -> Type {
    match value {
        crate::value::Value::Bool(_) => Type::Bool,
        crate::value::Value::Int(_) => Type::Int,
        crate::value::Value::Number(_) => Type::Number,
        _ => Type::String,
    }
}

/// Names of Handlebars that lead out of the declared values.
fn refused(path: &str) -> Option<(&'static str, &'static str)> {
    let first = path.split(['.', '/']).next().unwrap_or("");
    if first == "this" || path == "." || path.starts_with("./") {
        return Some((
            "`this` is not in the language",
            "name the value: `{{ alert.title }}`; within `{{#each}}` write `{{ item }}` or a member's name",
        ));
    }
    if path.starts_with("../") || path == ".." {
        return Some(("`../` is not in the language", "names outside of the block are reached directly"));
    }
    if path.starts_with('@') {
        return Some(("`@` variables are not in the language", "use the names that `watchfloor check` lists"));
    }
    if path.split(['.', '/']).any(|name| matches!(name, "constructor" | "__proto__" | "prototype")) {
        return Some(("this name is not in the language", "name a member of the step's output"));
    }
    if path.contains('[') {
        return Some(("an index is not part of a path", "write `{{= list[0].name }}`"));
    }
    None
}
