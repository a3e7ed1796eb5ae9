//! Steps that repeat: `foreach`, `until`.

use std::sync::Arc;

use super::cx::Checker;
use super::keep::touch;
use super::program::{Collect, Foreach, StepKind, Until};
use super::scope::Kind;
use super::steps::{Compiled, Output};
use crate::catalog::{Field, ObjectType, Type, roots};
use crate::expr::{Expr, Presence};
use crate::flow::model::{self, Name, OnMore, Step, Text};

/// Items of a foreach without `max_items:`, at most.
const MAX_ITEMS: u32 = 1000;

type Fields = std::collections::BTreeMap<Arc<str>, Field>;

/// A step's output and the path below it.
type Place = (Arc<str>, Vec<Arc<str>>);

impl Checker<'_> {
    pub(super) fn foreach(&mut self, step: &Step) -> Compiled {
        let model::StepKind::Foreach { list, item, key, once_per, at_once, max_items, on_more, gather, body, collect } =
            &step.kind
        else {
            return Compiled { kind: None, output: Output::nothing(), diverges: false };
        };
        if max_items.is_none() {
            self.warning("WF0802", list.span, format!("no `max_items:`: this loop takes up to {MAX_ITEMS} items"))
                .help("write how many items are still reasonable, such as `max_items: 100`");
        }
        if *on_more == OnMore::Ask {
            self.not_yet(step.span, "`on_more: ask`", "use `on_more: fail` or `on_more: first`");
        }
        let (expr, item_ty, alias) = self.looped_list(list);
        let floor = self.scope.raise_floor();
        let mark = self.scope.mark();
        let name = item.clone().unwrap_or_else(|| Name { text: Arc::from("item"), span: list.span });
        self.define(&name, item_ty, Kind::Local);
        if let Some(entry) = self.scope.entry_mut(&name.text) {
            entry.alias = alias;
        }
        let outer_index = self.scope.entry("index").map(|entry| entry.presence.clone());
        match outer_index {
            None => self.root("index", Type::Int),
            Some(_) => self.scope.assign("index"),
        }
        let key = key.as_ref().map(|text| self.expr(text));
        let (body, _) = self.block(body);
        let (collect, collected) = self.collect(collect.as_ref());
        let branch = self.scope.end_branch(mark, false);
        self.scope.bury(&branch, "it lives within an item of a foreach; `collect:` carries values out");
        self.scope.lower_floor(floor);
        let key_ok = !matches!(key, Some(None));
        let kind = expr.filter(|_| key_ok).map(|list| {
            StepKind::Foreach(Foreach {
                list,
                item: Arc::clone(&name.text),
                key: key.flatten(),
                once_per: *once_per,
                at_once: (*at_once).max(1),
                max_items: max_items.unwrap_or(MAX_ITEMS),
                cut: *on_more == OnMore::First,
                gather: *gather,
                body,
                collect,
            })
        });
        Compiled { kind, output: Output::of(gathered(collected)), diverges: false }
    }

    /// The list, the type of its items, and the step's output that they are part of where the list is a plain path.
    fn looped_list(&mut self, list: &Text) -> (Option<Expr>, Type, Option<Place>) {
        let Some(expr) = self.expr_unread(list) else { return (None, Type::Any, None) };
        let item = match &expr.ty {
            Type::List(item) => (**item).clone(),
            Type::Any => Type::Any,
            other => {
                let message = format!("`foreach:` wants a list, and this is {}", super::payload::shown(other));
                self.error("WF0401", list.span, message);
                return (None, Type::Any, None);
            }
        };
        let alias = match expr.references.as_slice() {
            [only] if path_text(&only.root, &only.path) == list.text.trim() && !only.path.is_empty() => {
                let (root, path) = self.unalias(&only.root, &only.path);
                touch(self.keeps.entry(Arc::clone(&root)).or_default(), &path);
                Some((root, path))
            }
            _ => {
                self.read_all(&expr.references);
                None
            }
        };
        (Some(expr), item, alias)
    }

    fn collect(&mut self, collect: Option<&model::Collect>) -> (Option<Collect>, Type) {
        match collect {
            None => (None, Type::Any),
            Some(model::Collect::One(text)) => match self.expr(text) {
                Some(expr) => {
                    let ty = expr.ty.clone();
                    (Some(Collect::One(expr)), ty)
                }
                None => (None, Type::Any),
            },
            Some(model::Collect::Map(members)) => {
                let (done, fields) = self.members(members);
                let ty = ObjectType { name: Arc::from("a collected item"), fields, open: false };
                (Some(Collect::Map(done)), Type::Object(Arc::new(ty)))
            }
        }
    }

    fn members(&mut self, members: &[(Name, Text)]) -> (Vec<(Arc<str>, Expr)>, Fields) {
        let mut done = Vec::with_capacity(members.len());
        let mut fields = Fields::new();
        for (name, text) in members {
            let expr = self.expr(text);
            let ty = expr.as_ref().map_or(Type::Any, |expr| expr.ty.clone());
            fields.insert(Arc::clone(&name.text), super::fields::field(ty, false));
            done.extend(expr.map(|expr| (Arc::clone(&name.text), expr)));
        }
        (done, fields)
    }

    pub(super) fn until(&mut self, step: &Step) -> Compiled {
        let model::StepKind::Until { condition, every, max, carry, next, body } = &step.kind else {
            return Compiled { kind: None, output: Output::nothing(), diverges: false };
        };
        let (carried, _) = self.members(carry);
        for (name, _) in carry {
            let ty = carried.iter().find(|(key, _)| *key == name.text).map_or(Type::Any, |(_, expr)| expr.ty.clone());
            self.define(name, ty, Kind::Local);
        }
        let (body, diverges) = self.block(body);
        let cond = self.condition(condition);
        let mut following = Vec::with_capacity(next.len());
        for (name, text) in next {
            let want = carry
                .iter()
                .find(|(key, _)| key.text == name.text)
                .and_then(|_| self.scope.entry(&name.text))
                .map(|entry| entry.ty.clone());
            // Lowering has refused a name that is not carried.
            let Some(want) = want else { continue };
            let expr = self.expr_of(text, &want, &format!("`{}`", name.text));
            following.extend(expr.map(|expr| (Arc::clone(&name.text), expr)));
        }
        for (name, _) in carry {
            let why = "it is carried between the passes of an `until` only".to_owned();
            self.scope.mark_presence(&name.text, Presence::Never(why));
        }
        let kind = cond.map(|cond| {
            StepKind::Until(Until { cond, every: *every, max: *max, carry: carried, next: following, body })
        });
        Compiled { kind, output: Output::nothing(), diverges }
    }
}

/// What a foreach outputs: results and errors in the order of its input.
fn gathered(item: Type) -> Type {
    let mut error = roots::error();
    if let Type::Object(object) = &mut error {
        let object = Arc::make_mut(object);
        object.name = Arc::from("an item's error");
        object.fields.insert(Arc::from("index"), super::fields::field(Type::Int, false));
    }
    Type::object("a foreach", [("items", Type::list(item), false), ("errors", Type::list(error), false)])
}

fn path_text(root: &str, path: &[Arc<str>]) -> String {
    path.iter().fold(root.to_owned(), |text, member| text + "." + member)
}
