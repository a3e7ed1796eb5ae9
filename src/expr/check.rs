//! Typing of a tree: names, members, operators and functions against what the checker knows, with what `has(…)` proves.

use std::sync::Arc;

use super::ast::{Each, Kind, Node, Op};
use super::functions::{Function, K, Style};
use super::lex::fault;
use super::narrow::{proves, refutes};
use super::{Binding, Fault, Presence, Reference, TypeEnv};
use crate::catalog::{EnumType, Field, ObjectType, Type};
use crate::diag::did_you_mean;
use crate::value::Value;

/// Items that a list of unknown length is assumed to have.
const ASSUMED_ITEMS: u64 = 1_000;
/// Highest estimated number of steps of one evaluation.
const MAX_COST: u64 = 20_000_000;

/// A type while checking: plain, or an optional of it.
#[derive(Clone, Debug)]
pub(super) struct Ty {
    pub ty: Type,
    pub optional: bool,
}

impl From<Type> for Ty {
    fn from(ty: Type) -> Self {
        Ty { ty, optional: false }
    }
}

pub(super) struct Checker<'a> {
    env: &'a dyn TypeEnv,
    locals: Vec<(Arc<str>, Type)>,
    proven: Vec<Arc<str>>,
    strict: bool,
    pub faults: Vec<Fault>,
    pub references: Vec<Reference>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(env: &'a dyn TypeEnv) -> Self {
        let strict = env.strict();
        Checker { env, locals: vec![], proven: vec![], strict, faults: vec![], references: vec![] }
    }

    /// Types a whole expression and bounds its cost; the result must not be optional.
    pub(super) fn whole(&mut self, node: &mut Node) -> Type {
        let ty = self.plain(node);
        if cost(node) > MAX_COST {
            let message = "the expression may take too many steps";
            let help = format!("lists of unknown length count as {ASSUMED_ITEMS} items: filter them in a step before");
            self.faults.push(fault("WF0505", node.start, node.end, message, help));
        }
        ty
    }

    fn report(&mut self, code: &'static str, node: &Node, message: impl Into<String>, help: impl Into<String>) {
        if self.strict || !(code.starts_with("WF04") || code == "WF0312") {
            self.faults.push(fault(code, node.start, node.end, message, help));
        }
    }

    fn plain(&mut self, node: &mut Node) -> Type {
        let ty = self.node(node);
        if ty.optional {
            let shown = node.describe();
            self.report(
                "WF0416",
                node,
                format!("{shown} is optional here"),
                format!("give a default: `{shown}.orValue(…)`"),
            );
        }
        ty.ty
    }

    fn boolean(&mut self, node: &mut Node) {
        let ty = self.plain(node);
        if !Type::Bool.accepts(&ty) {
            let help = bool_help(&ty, node);
            self.report("WF0414", node, format!("this is {}, where true or false is wanted", named(&ty)), help);
        }
    }

    fn node(&mut self, node: &mut Node) -> Ty {
        self.infer(node, true, false)
    }

    /// `record`: whether a plain path ends here and is a read. `tested`: below `has(…)`, where a step may not have run.
    fn infer(&mut self, node: &mut Node, record: bool, tested: bool) -> Ty {
        if record {
            self.record(node);
        }
        let whole = node.clone_span();
        match &mut node.kind {
            Kind::Literal(value) => literal_type(value).into(),
            Kind::Name(name) => {
                let name = Arc::clone(name);
                self.name(&name, &whole, tested).into()
            }
            Kind::Select { of, field, optional } => {
                let (field, optional) = (Arc::clone(field), *optional);
                let below = of.static_path().is_none();
                let of_ty = self.infer(of, below, tested || optional);
                let ty = self.member(&of_ty.ty, &field, of, &whole).ty;
                Ty { ty, optional: optional || of_ty.optional }
            }
            Kind::Has { of, field } => {
                let field = Arc::clone(field);
                let below = of.static_path().is_none();
                let of_ty = self.infer(of, below, true);
                self.member(&of_ty.ty, &field, of, &whole);
                Type::Bool.into()
            }
            Kind::Index { of, index, optional } => {
                let optional = *optional;
                let of_ty = self.node(of);
                let index_ty = self.plain(index);
                let ty = self.indexed(&of_ty.ty, of, index, &index_ty);
                Ty { ty, optional: optional || of_ty.optional }
            }
            Kind::Not(operand) => {
                self.boolean(operand);
                Type::Bool.into()
            }
            Kind::Negate(operand) => self.negated(operand, &whole).into(),
            Kind::And(parts) => self.narrowed(parts, proves),
            Kind::Or(parts) => self.narrowed(parts, refutes),
            Kind::If(parts) => self.conditional(parts, &whole),
            Kind::Binary { op, left, right, number } => {
                let (l, r) = (self.node(left), self.node(right));
                if !(l.optional && r.optional && matches!(op, Op::Eq | Op::Ne)) {
                    self.not_optional(left, &l);
                    self.not_optional(right, &r);
                }
                *number = matches!(l.ty, Type::Number) || matches!(r.ty, Type::Number);
                self.binary(*op, (left, &l.ty), (right, &r.ty), &whole).into()
            }
            Kind::Call { function, args, .. } => {
                let function = *function;
                let types: Vec<Ty> = args.iter_mut().map(|arg| self.node(arg)).collect();
                self.call(function, args, &types, &whole)
            }
            Kind::List(items) => {
                let mut item_type: Option<Type> = None;
                for (item, optional) in items {
                    let ty = if *optional { self.node(item).ty } else { self.plain(item) };
                    item_type = Some(item_type.map_or(ty.clone(), |so_far| so_far.join(&ty).unwrap_or(Type::Any)));
                }
                Type::list(item_type.unwrap_or(Type::Any)).into()
            }
            Kind::Map(entries) => self.map(entries).into(),
            Kind::Each { kind, range, var, body, filter } => {
                let (kind, var) = (*kind, Arc::clone(var));
                self.each(kind, range, &var, body, filter.as_deref_mut())
            }
        }
    }

    fn negated(&mut self, operand: &mut Node, whole: &Node) -> Type {
        let ty = self.plain(operand);
        if !matches!(ty, Type::Int | Type::Number | Type::Duration | Type::Any) {
            self.report("WF0413", whole, format!("`-` does not work on {}", named(&ty)), "");
        }
        ty
    }

    fn not_optional(&mut self, side: &Node, ty: &Ty) {
        if ty.optional {
            let shown = side.describe();
            let help = format!("give a default: `{shown}.orValue(…)`");
            self.report("WF0416", side, format!("{shown} is optional here"), help);
        }
    }

    fn record(&mut self, node: &Node) {
        let Some((root, mut path)) = node.static_path() else { return };
        if matches!(node.kind, Kind::Has { .. }) && path.len() == 1 {
            // `has(step.field)` reads that field only.
            path.truncate(1);
        }
        if !self.locals.iter().any(|(name, _)| name == root) {
            self.references.push(Reference { root: Arc::clone(root), path });
        }
    }

    fn name(&mut self, name: &Arc<str>, node: &Node, tested: bool) -> Type {
        if let Some((_, ty)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            return ty.clone();
        }
        match self.env.lookup(name) {
            Some(Binding { ty, presence: Presence::Always }) => ty,
            Some(Binding { ty, presence: Presence::Maybe(why) }) => {
                if !tested && !self.proven.contains(name) {
                    let field = some_field(&ty);
                    let help = format!(
                        "guard it: `has({name}.{field}) && …`, or give a default: `{name}.?{field}.orValue(…)`"
                    );
                    self.report("WF0313", node, format!("`{name}` may have no value here: {why}"), help);
                }
                ty
            }
            Some(Binding { ty, presence: Presence::Never(why) }) => {
                self.report("WF0314", node, format!("`{name}` has no value here: {why}"), "");
                ty
            }
            None if &**name == "now" => Type::Datetime,
            None => {
                let names = self.env.names();
                let known = names.iter().map(|n| &**n).chain(self.locals.iter().map(|(n, _)| &**n));
                let help = match did_you_mean(name, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if names.is_empty() => format!("text goes in quotes: '{name}'"),
                    None => {
                        let shown: Vec<&str> = names.iter().take(8).map(|n| &**n).collect();
                        format!("known here: {}; text goes in quotes: '{name}'", shown.join(", "))
                    }
                };
                self.report("WF0311", node, format!("unknown name `{name}`"), help);
                Type::Any
            }
        }
    }

    fn member(&mut self, of: &Type, field: &Arc<str>, of_node: &Node, node: &Node) -> Field {
        if let Some(found) = of.field(field) {
            return found;
        }
        let any = Field { ty: Type::Any, optional: true, doc: Arc::from(""), untrusted: true };
        let shown = of_node.describe();
        let end_of_name = Node {
            start: node.end.saturating_sub(field.len()).max(node.start),
            end: node.end,
            kind: Kind::List(vec![]),
        };
        match of {
            Type::Object(object) => {
                let known = object.fields.keys().map(|name| &**name);
                let help = match did_you_mean(field, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => list_some("it has", object.fields.keys()),
                };
                self.report("WF0312", &end_of_name, format!("{shown} ({}) has no member `{field}`", object.name), help);
            }
            Type::List(_) => {
                let help =
                    format!("take an item (`{shown}[0].{field}`) or ask for any: `{shown}.exists(x, x.{field} == …)`");
                self.report("WF0415", &end_of_name, format!("{shown} is a list, which has no member `{field}`"), help);
            }
            other => {
                let message = format!("{shown} is {}, which has no member `{field}`", named(other));
                self.report("WF0415", &end_of_name, message, "");
            }
        }
        any
    }

    fn indexed(&mut self, of: &Type, of_node: &Node, index: &Node, index_ty: &Type) -> Type {
        match of {
            Type::List(item) => {
                if !matches!(index_ty, Type::Int | Type::Any) {
                    self.report("WF0415", index, format!("a list is indexed by int, not by {index_ty}"), "");
                }
                (**item).clone()
            }
            Type::Map(_) | Type::Object(_) => {
                if let Kind::Literal(Value::String(key)) = &index.kind {
                    let name_node = index.clone_span();
                    return self.member(of, key, of_node, &name_node).ty;
                }
                if !index_ty.is_text() && *index_ty != Type::Any {
                    self.report("WF0415", index, format!("a map is indexed by text, not by {index_ty}"), "");
                }
                if let Type::Map(value) = of { (**value).clone() } else { Type::Any }
            }
            Type::Any => Type::Any,
            other => {
                let message = format!("{} is {}, which has no items", of_node.describe(), named(other));
                self.report("WF0415", of_node, message, "");
                Type::Any
            }
        }
    }

    /// Types the parts of `&&` (or `||`), each under what the others prove (or refute): where another operand decides,
    /// an error here is absorbed, so the order does not matter.
    fn narrowed(&mut self, parts: &mut [Node], known: fn(&Node) -> Vec<Arc<str>>) -> Ty {
        let knowledge: Vec<Vec<Arc<str>>> = parts.iter().map(known).collect();
        for (at, part) in parts.iter_mut().enumerate() {
            let others =
                knowledge.iter().enumerate().filter(|(other, _)| *other != at).flat_map(|(_, names)| names.clone());
            self.under(others.collect(), |checker| checker.boolean(part));
        }
        Type::Bool.into()
    }

    fn under<T>(&mut self, names: Vec<Arc<str>>, run: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.proven.len();
        // A comprehension variable proves nothing about a root of the same name.
        let outer = names.into_iter().filter(|name| !self.locals.iter().any(|(local, _)| local == name));
        let outer: Vec<_> = outer.collect();
        self.proven.extend(outer);
        let result = run(self);
        self.proven.truncate(before);
        result
    }

    fn conditional(&mut self, parts: &mut [Node; 3], whole: &Node) -> Ty {
        let [test, then, other] = parts;
        self.boolean(test);
        let then_ty = self.under(proves(test), |checker| checker.node(then));
        let other_ty = self.under(refutes(test), |checker| checker.node(other));
        let ty = then_ty.ty.join(&other_ty.ty).unwrap_or_else(|| {
            let message = format!("the branches have unlike types: {} and {}", then_ty.ty, other_ty.ty);
            self.report("WF0413", whole, message, "make both the same type, for example with `string(x)`");
            Type::Any
        });
        Ty { ty, optional: then_ty.optional || other_ty.optional }
    }

    fn binary(&mut self, op: Op, left: (&Node, &Type), right: (&Node, &Type), whole: &Node) -> Type {
        match op {
            Op::Eq | Op::Ne => {
                self.comparable(left, right, whole, op);
                Type::Bool
            }
            Op::In => {
                self.within(left, right, whole);
                Type::Bool
            }
            Op::Lt | Op::Le | Op::Gt | Op::Ge => {
                self.ordered(left, right, whole, op);
                Type::Bool
            }
            _ => self.arithmetic(op, left, right, whole),
        }
    }

    fn comparable(&mut self, left: (&Node, &Type), right: (&Node, &Type), whole: &Node, op: Op) {
        for ((one, ty), (_, other)) in [(left, right), (right, left)] {
            if let (Type::Enum(words), Some(text)) = (other, literal_text(one)) {
                self.enum_value(words, text, one);
                return;
            }
            let _ = ty;
        }
        if let (Type::Enum(l), Type::Enum(r)) = (left.1, right.1) {
            if !l.values.iter().any(|value| r.values.contains(value)) {
                let message = format!("{} and {} have no value in common", l.name, r.name);
                self.report("WF0412", whole, message, "");
            }
            return;
        }
        if !alike(left.1, right.1) {
            self.unlike(left, right, whole, op);
        }
    }

    fn unlike(&mut self, left: (&Node, &Type), right: (&Node, &Type), whole: &Node, op: Op) {
        let help = compare_help(left, right).or_else(|| compare_help(right, left)).unwrap_or_default();
        let message = format!("`{}` compares {} with {}", op.as_str(), named(left.1), named(right.1));
        self.report("WF0412", whole, message, help);
    }

    fn enum_value(&mut self, words: &Arc<EnumType>, text: &str, node: &Node) {
        if words.values.iter().any(|value| &**value == text) {
            return;
        }
        let help = match words.canonical(text) {
            Some(value) => format!("write '{value}'"),
            None => match did_you_mean(text, words.values.iter().map(|v| &**v)) {
                Some(near) => format!("did you mean '{near}'?"),
                None => list_some("it has", words.values.iter()),
            },
        };
        self.report("WF0411", node, format!("'{text}' is not a value of {}", words.name), help);
    }

    fn within(&mut self, left: (&Node, &Type), right: (&Node, &Type), whole: &Node) {
        match right.1 {
            Type::List(item) => {
                if let (Kind::List(items), Type::Enum(words)) = (&right.0.kind, left.1) {
                    for (item, _) in items {
                        if let Some(text) = literal_text(item) {
                            self.enum_value(words, text, item);
                        }
                    }
                    if item.is_text() || **item == Type::Any {
                        return;
                    }
                }
                if let (Some(text), Type::Enum(words)) = (literal_text(left.0), &**item) {
                    self.enum_value(words, text, left.0);
                } else if !alike(left.1, item) {
                    let message = format!("`in` looks for {} in a list of {item}", named(left.1));
                    self.report("WF0412", whole, message, "");
                }
            }
            Type::Map(_) | Type::Object(_) if left.1.is_text() || *left.1 == Type::Any => {}
            Type::Any => {}
            Type::String | Type::Enum(_) => {
                self.report(
                    "WF0413",
                    whole,
                    "`in` wants a list, not text",
                    "write `text.contains('…')`, or put the values in a list: ['a', 'b']",
                );
            }
            other => self.report("WF0413", whole, format!("`in` wants a list or a map, not {}", named(other)), ""),
        }
    }

    fn ordered(&mut self, left: (&Node, &Type), right: (&Node, &Type), whole: &Node, op: Op) {
        if let Type::Enum(words) = if matches!(left.1, Type::Enum(_)) { left.1 } else { right.1 } {
            let help = list_some("list the values that you mean: `in [ … ]` of", words.values.iter());
            self.report("WF0412", whole, format!("the values of {} have no order", words.name), help);
            return;
        }
        let orderable = |ty: &Type| {
            matches!(
                ty,
                Type::Bool | Type::Int | Type::Number | Type::String | Type::Datetime | Type::Duration | Type::Any
            )
        };
        if !alike(left.1, right.1) {
            self.unlike(left, right, whole, op);
        } else if !orderable(left.1) || !orderable(right.1) {
            self.report("WF0412", whole, format!("{} has no order", named(left.1)), "");
        }
    }

    fn arithmetic(&mut self, op: Op, left: (&Node, &Type), right: (&Node, &Type), whole: &Node) -> Type {
        use Type::{Any, Datetime, Duration, Int, List, Number};
        let literal = |node: &Node| matches!(node.kind, Kind::Literal(_));
        match (op, left.1, right.1) {
            (_, Any, other) | (_, other, Any) => {
                if op == Op::Add && (matches!(other, List(_)) || other.is_text()) {
                    return if other.is_text() { Type::String } else { Any };
                }
                Any
            }
            (_, Int, Int) => Int,
            (Op::Add | Op::Sub | Op::Mul | Op::Div, Number, Number) => Number,
            (Op::Add | Op::Sub | Op::Mul | Op::Div, Int, Number)
            | (Op::Add | Op::Sub | Op::Mul | Op::Div, Number, Int) => {
                let int = if *left.1 == Int { left.0 } else { right.0 };
                if !literal(int) {
                    let help = format!("write `double({})`", int.describe());
                    self.report("WF0413", whole, format!("`{}` mixes int and number", op.as_str()), help);
                }
                Number
            }
            (Op::Add, l, r) if l.is_text() && r.is_text() => Type::String,
            (Op::Add, List(l), List(r)) => Type::list(l.join(r).unwrap_or(Any)),
            (Op::Add, Datetime, Duration) | (Op::Add, Duration, Datetime) | (Op::Sub, Datetime, Duration) => Datetime,
            (Op::Sub, Datetime, Datetime) | (Op::Add | Op::Sub, Duration, Duration) => Duration,
            (_, l, r) => {
                let help = if op == Op::Add && (l.is_text() || r.is_text()) {
                    let other = if l.is_text() { right.0 } else { left.0 };
                    format!("write `string({})`", other.describe())
                } else if matches!((l, r), (Datetime, Type::String) | (Type::String, Datetime)) {
                    "write a duration: `duration('4h')`".into()
                } else {
                    String::new()
                };
                self.report(
                    "WF0413",
                    whole,
                    format!("`{}` does not work on {} and {}", op.as_str(), named(l), named(r)),
                    help,
                );
                Any
            }
        }
    }

    fn call(&mut self, function: &'static Function, args: &[Node], types: &[Ty], whole: &Node) -> Ty {
        for (at, (arg, ty)) in args.iter().zip(types).enumerate() {
            let takes = |k: K| matches!(k, K::Optional) || (k == K::Any && function.lazy);
            if ty.optional && !function.signatures.iter().any(|s| s.0.get(at).is_some_and(|k| takes(*k))) {
                let shown = arg.describe();
                self.report(
                    "WF0416",
                    arg,
                    format!("{shown} is optional here"),
                    format!("give a default: `{shown}.orValue(…)`"),
                );
            }
        }
        let fits = |params: &&super::functions::Signature| {
            params.0.len() == types.len()
                && params.0.iter().zip(types).all(|(k, ty)| match k {
                    K::Optional => ty.optional || ty.ty == Type::Any,
                    k => k.accepts(&ty.ty),
                })
        };
        let mut fitting = function.signatures.iter().filter(fits);
        let Some(signature) = fitting.next() else {
            let given: Vec<String> = types.iter().map(|ty| named(&ty.ty)).collect();
            let given = match (function.style, given.split_first()) {
                (Style::Method, Some((of, rest))) if !rest.is_empty() => format!("{of} with {}", rest.join(", ")),
                _ => given.join(", "),
            };
            let shown = function.signature();
            let help = format!("write `{}`", shown.lines().next().unwrap_or(""));
            self.report("WF0413", whole, format!("`{}` does not work on {given}", function.name), help);
            return Ty { ty: Type::Any, optional: false };
        };
        // With an operand of unknown type several forms may fit: then the result is unknown too, unless they agree.
        let agreed = fitting.all(|other| other.1 == signature.1);
        if agreed { result_type(signature.1, types) } else { Type::Any.into() }
    }

    fn map(&mut self, entries: &mut [(Node, Node, bool)]) -> Type {
        let mut fields = std::collections::BTreeMap::new();
        let mut joined: Option<Type> = None;
        let mut closed = true;
        for (key, value, optional) in entries {
            let key_ty = self.plain(key);
            if !key_ty.is_text() && key_ty != Type::Any {
                self.report(
                    "WF0413",
                    key,
                    format!("a key of a map is text, not {}", named(&key_ty)),
                    "put it in quotes",
                );
            }
            let ty = if *optional { self.node(value).ty } else { self.plain(value) };
            joined = Some(joined.map_or(ty.clone(), |so_far| so_far.join(&ty).unwrap_or(Type::Any)));
            match literal_text(key) {
                Some(name) => {
                    let field = Field { ty, optional: *optional, doc: Arc::from(""), untrusted: true };
                    if fields.insert(Arc::from(name), field).is_some() {
                        self.report("WF0413", key, format!("the key '{name}' is given twice"), "");
                    }
                }
                None => closed = false,
            }
        }
        if closed {
            return Type::Object(Arc::new(ObjectType { name: "map".into(), fields, open: false }));
        }
        Type::map(joined.unwrap_or(Type::Any))
    }

    fn each(&mut self, kind: Each, range: &mut Node, var: &Arc<str>, body: &mut Node, filter: Option<&mut Node>) -> Ty {
        let of = self.node(range);
        let over_optional = matches!(kind, Each::OptMap | Each::OptFlatMap);
        if of.optional != over_optional && of.ty != Type::Any {
            let shown = range.describe();
            let (message, help) = if over_optional {
                (format!("{shown} is not optional"), format!("write `{shown}.map(x, …)` for a list"))
            } else {
                (format!("{shown} is optional here"), format!("give a default: `{shown}.orValue([])`"))
            };
            self.report("WF0416", range, message, help);
        }
        let item = match &of.ty {
            ty if over_optional => ty.clone(),
            Type::List(item) => (**item).clone(),
            Type::Map(_) | Type::Object(_) => Type::String,
            Type::Any => Type::Any,
            other => {
                self.report("WF0413", range, format!("{} is {}, not a list", range.describe(), named(other)), "");
                Type::Any
            }
        };
        if self.strict && (self.env.lookup(var).is_some() || self.locals.iter().any(|(name, _)| name == var)) {
            self.report(
                "WF0315",
                body,
                format!("`{var}` is a name already; an item can't have the same"),
                "choose another name for the item, such as `x`",
            );
        }
        self.locals.push((Arc::clone(var), item.clone()));
        if let Some(filter) = filter {
            self.boolean(filter);
        }
        let ty = match kind {
            Each::All | Each::Exists | Each::ExistsOne => {
                self.boolean(body);
                Type::Bool.into()
            }
            Each::Filter => {
                self.boolean(body);
                Type::list(item).into()
            }
            Each::Map => Type::list(self.plain(body)).into(),
            Each::SortBy => {
                let key = self.plain(body);
                if !matches!(
                    key,
                    Type::Bool
                        | Type::Int
                        | Type::Number
                        | Type::String
                        | Type::Enum(_)
                        | Type::Datetime
                        | Type::Duration
                        | Type::Any
                ) {
                    self.report("WF0413", body, format!("{} has no order to sort by", named(&key)), "");
                }
                Type::list(item).into()
            }
            Each::OptMap => Ty { ty: self.plain(body), optional: true },
            Each::OptFlatMap => Ty { ty: self.node(body).ty, optional: true },
        };
        self.locals.pop();
        ty
    }
}

impl Node {
    /// A node of the same place, for faults while the node itself is borrowed.
    fn clone_span(&self) -> Node {
        Node { start: self.start, end: self.end, kind: Kind::List(vec![]) }
    }
}

/// An estimate of the steps of an evaluation.
fn cost(node: &Node) -> u64 {
    let sum = |nodes: &mut dyn Iterator<Item = &Node>| nodes.fold(1u64, |total, node| total.saturating_add(cost(node)));
    match &node.kind {
        Kind::Literal(_) | Kind::Name(_) => 1,
        Kind::Select { of, .. } | Kind::Has { of, .. } | Kind::Not(of) | Kind::Negate(of) => cost(of).saturating_add(1),
        Kind::Index { of, index, .. } => sum(&mut [&**of, &**index].into_iter()),
        Kind::And(parts) | Kind::Or(parts) => sum(&mut parts.iter()),
        Kind::If(parts) => sum(&mut parts.iter()),
        Kind::Binary { left, right, .. } => sum(&mut [&**left, &**right].into_iter()),
        Kind::Call { args, .. } => sum(&mut args.iter()),
        Kind::List(items) => sum(&mut items.iter().map(|(item, _)| item)),
        Kind::Map(entries) => sum(&mut entries.iter().flat_map(|(key, value, _)| [key, value])),
        Kind::Each { range, body, filter, .. } => {
            let items = match &range.kind {
                Kind::List(items) => items.len() as u64,
                _ => ASSUMED_ITEMS,
            };
            let inner = cost(body).saturating_add(filter.as_deref().map_or(0, cost));
            cost(range).saturating_add(items.saturating_mul(inner))
        }
    }
}

fn literal_type(value: &Value) -> Type {
    match value {
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Number(_) => Type::Number,
        Value::String(_) => Type::String,
        Value::Datetime(_) => Type::Datetime,
        Value::Duration(_) => Type::Duration,
        Value::List(_) => Type::list(Type::Any),
        Value::Map(_) => Type::map(Type::Any),
    }
}

fn literal_text(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Literal(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn alike(left: &Type, right: &Type) -> bool {
    let numeric = |ty: &Type| matches!(ty, Type::Int | Type::Number);
    let lists = |l: &Type, r: &Type| matches!((l, r), (Type::List(l), Type::List(r)) if alike(l, r));
    left.accepts(right)
        || right.accepts(left)
        || (numeric(left) && numeric(right))
        || (left.is_text() && right.is_text())
        || lists(left, right)
}

fn compare_help(one: (&Node, &Type), other: (&Node, &Type)) -> Option<String> {
    let text = literal_text(other.0);
    match (one.1, other.1, text) {
        (Type::Datetime, Type::String, Some(text)) => Some(format!("write `timestamp('{text}')`")),
        (Type::Duration, Type::String, Some(text)) => Some(format!("write `duration('{text}')`")),
        (Type::Int | Type::Number, Type::String, Some(text)) if text.parse::<f64>().is_ok() => {
            Some(format!("write {text} without quotes"))
        }
        (Type::Bool, Type::String, Some("true" | "false")) => Some("write it without quotes".into()),
        (Type::String | Type::Enum(_), Type::Int | Type::Number | Type::Bool, _) => {
            Some("put the value in quotes".into())
        }
        (Type::List(_), ty, _) if !matches!(ty, Type::List(_)) => {
            Some(format!("ask whether it is in the list: `x in {}`", one.0.describe()))
        }
        _ => None,
    }
}

pub(super) fn bool_help(ty: &Type, node: &Node) -> String {
    let shown = node.describe();
    match ty {
        Type::List(_) | Type::Map(_) => format!("write `size({shown}) > 0`"),
        Type::Enum(words) => {
            words.values.first().map_or(String::new(), |value| format!("compare it: `{shown} == '{value}'`"))
        }
        Type::Object(_) => format!("ask for a member: `has({shown}.{})`", some_field(ty)),
        Type::String => format!("compare it: `{shown} == '…'`"),
        _ => "compare it with a value".into(),
    }
}

/// The member that a `has(…)` would most likely name.
fn some_field(ty: &Type) -> String {
    match ty {
        Type::Object(object) if object.fields.contains_key("id") => "id".into(),
        Type::Object(object) => {
            let required =
                object.fields.iter().find(|(_, field)| !field.optional).or_else(|| object.fields.iter().next());
            required.map_or_else(|| "field".into(), |(name, _)| name.to_string())
        }
        _ => "field".into(),
    }
}

/// A type with its article where a sentence needs one.
fn named(ty: &Type) -> String {
    match ty {
        Type::List(_) => format!("a {ty}"),
        Type::Map(_) => format!("a {ty}"),
        Type::Object(object) if &*object.name == "map" => "a map".into(),
        Type::Object(_) | Type::Enum(_) => format!("{ty}"),
        _ => ty.to_string(),
    }
}

fn list_some<'s>(lead: &str, names: impl Iterator<Item = &'s Arc<str>>) -> String {
    let all: Vec<&str> = names.map(|name| &**name).collect();
    let shown = all.iter().take(8).copied().collect::<Vec<_>>().join(", ");
    let more = if all.len() > 8 { ", …" } else { "" };
    format!("{lead} {shown}{more}")
}

fn result_type(k: K, types: &[Ty]) -> Ty {
    let first = types.first().map_or(Type::Any, |ty| ty.ty.clone());
    let item = match &first {
        Type::List(item) => (**item).clone(),
        _ => Type::Any,
    };
    let ty = match k {
        K::Any => Type::Any,
        K::Bool => Type::Bool,
        K::Int => Type::Int,
        K::Number => Type::Number,
        K::String => Type::String,
        K::Datetime => Type::Datetime,
        K::Duration => Type::Duration,
        K::List => Type::list(Type::Any),
        K::Strings => Type::list(Type::String),
        K::Map => Type::map(Type::Any),
        K::Item => item,
        K::SameList => first,
        K::Nested => {
            if let Type::List(_) = item {
                item
            } else {
                Type::list(Type::Any)
            }
        }
        K::ToOptional => return Ty { ty: first, optional: true },
        K::Optional => {
            let second = types.get(1).map_or(Type::Any, |ty| ty.ty.clone());
            return Ty { ty: first.join(&second).unwrap_or(Type::Any), optional: true };
        }
        K::Inner => match types.get(1) {
            Some(default) => first.join(&default.ty).unwrap_or(Type::Any),
            None => first,
        },
    };
    ty.into()
}
