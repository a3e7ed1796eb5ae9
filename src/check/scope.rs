//! Names in scope while a flow is checked: what each is, and whether it has a value at this place.
//!
//! A name is entered once and never leaves the table; branches change only its presence, and every change is logged so
//! that the branches of a step can be compared and undone. Not here: what steps do with names (see `steps`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::{ObjectType, Type, roots};
use crate::diag::Span;
use crate::expr::{Binding, Presence, TypeEnv};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A reserved root: `trigger`, `run`, `now`, …
    Root,
    /// The output of a step.
    Step,
    /// The output of an `if` with an id, which `explain` can print.
    Decision,
    /// Given by `set:`.
    Set,
    /// The current item of a foreach, or what `carry:` passes from one pass to the next.
    Local,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    pub(super) ty: Type,
    pub(super) kind: Kind,
    pub(super) presence: Presence,
    /// Where it is defined, for notes.
    pub(super) span: Span,
    /// The action whose output it is.
    pub(super) action: Option<Arc<str>>,
    /// For an item: the list that it comes from, so that reads of the item are reads of the list.
    pub(super) alias: Option<(Arc<str>, Vec<Arc<str>>)>,
    /// Lives within one pass of a foreach and is gone for good behind it.
    local: bool,
}

/// What one branch did to the names: their presence at its end.
#[derive(Debug)]
pub(super) struct Branch {
    touched: BTreeMap<usize, Presence>,
    /// It ends in `stop:`, so nothing behind it runs.
    pub(super) diverges: bool,
}

/// A place in the log to which a branch is undone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(usize);

#[derive(Debug, Default)]
pub(super) struct Scope {
    entries: Vec<Entry>,
    index: BTreeMap<Arc<str>, usize>,
    log: Vec<(usize, Presence)>,
    /// Entries below this belong to the flow around a foreach or a parallel: `set:` can't change them.
    floor: usize,
}

impl Scope {
    /// Gives a root another type.
    pub(super) fn retype(&mut self, name: &str, ty: Type) {
        if let Some(entry) = self.index.get(name).copied().and_then(|at| self.entries.get_mut(at)) {
            entry.ty = ty;
        }
    }

    /// Enters a name. Returns the span of the one that has the name already.
    pub(super) fn define(&mut self, name: &Arc<str>, ty: Type, kind: Kind, span: Span) -> Result<(), Span> {
        if let Some(at) = self.index.get(name).copied() {
            let Some(entry) = self.entries.get_mut(at) else { return Ok(()) };
            let gone = entry.kind == Kind::Local && kind == Kind::Local && entry.presence != Presence::Always;
            if !gone {
                return Err(entry.span);
            }
            (entry.ty, entry.span, entry.alias) = (ty, span, None);
            self.set_presence(at, Presence::Always);
            return Ok(());
        }
        let before = Presence::Never(format!("`{name}` is not known on this branch"));
        self.index.insert(Arc::clone(name), self.entries.len());
        self.log.push((self.entries.len(), before));
        self.entries.push(Entry {
            name: Arc::clone(name),
            ty,
            kind,
            presence: Presence::Always,
            span,
            action: None,
            alias: None,
            local: false,
        });
        Ok(())
    }

    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.index.get(name).and_then(|at| self.entries.get(*at))
    }

    pub(super) fn entry_mut(&mut self, name: &str) -> Option<&mut Entry> {
        self.index.get(name).and_then(|at| self.entries.get_mut(*at))
    }

    /// Whether `set:` may change the name here: not from within a foreach or a parallel around which it was set.
    pub(super) fn assignable(&self, name: &str) -> bool {
        self.index.get(name).is_none_or(|at| *at >= self.floor)
    }

    /// A name has a value from here on.
    pub(super) fn assign(&mut self, name: &str) {
        self.mark_presence(name, Presence::Always);
    }

    pub(super) fn mark_presence(&mut self, name: &str, presence: Presence) {
        if let Some(at) = self.index.get(name).copied() {
            self.set_presence(at, presence);
        }
    }

    fn set_presence(&mut self, at: usize, presence: Presence) {
        if let Some(entry) = self.entries.get_mut(at) {
            self.log.push((at, std::mem::replace(&mut entry.presence, presence)));
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.log.len())
    }

    /// A foreach or a parallel begins: outer names can't be set inside. Returns what `lower_floor` restores.
    pub(super) fn raise_floor(&mut self) -> usize {
        std::mem::replace(&mut self.floor, self.entries.len())
    }

    pub(super) fn lower_floor(&mut self, floor: usize) {
        self.floor = floor;
    }

    /// Ends a branch: everything since the mark is undone, and told.
    pub(super) fn end_branch(&mut self, mark: Mark, diverges: bool) -> Branch {
        let mut touched = BTreeMap::new();
        for (at, before) in self.log.drain(mark.0.min(self.log.len())..).rev() {
            if let Some(entry) = self.entries.get_mut(at) {
                let after = std::mem::replace(&mut entry.presence, before);
                touched.entry(at).or_insert(after);
            }
        }
        Branch { touched, diverges }
    }

    /// Behind branches of which exactly one ran: a name is there if every branch that goes on gives it.
    pub(super) fn join_one(&mut self, branches: &[Branch], why: &str) {
        let touched: BTreeSet<usize> = branches.iter().flat_map(|branch| branch.touched.keys().copied()).collect();
        let going: Vec<&Branch> = branches.iter().filter(|branch| !branch.diverges).collect();
        for at in touched {
            let Some(base) = self.entries.get(at).map(|entry| entry.presence.clone()) else { continue };
            let ends: Vec<&Presence> = going.iter().map(|branch| branch.touched.get(&at).unwrap_or(&base)).collect();
            let joined = if ends.is_empty() {
                base
            } else if ends.iter().all(|end| **end == Presence::Always) {
                Presence::Always
            } else if self.entries.get(at).is_some_and(|it| it.kind == Kind::Set && it.ty.is_scalar()) {
                // A scalar has no members, so there is no guard that could be written.
                Presence::Never("it is not set on every way to this place; set it before, or in every branch".into())
            } else if ends.iter().all(|end| matches!(end, Presence::Never(_))) {
                ends.first().map_or(base.clone(), |end| (*end).clone())
            } else {
                let inner = ends.iter().find(|end| matches!(end, Presence::Maybe(_)));
                inner.map_or_else(|| Presence::Maybe(why.to_owned()), |end| (*end).clone())
            };
            self.set_presence(at, joined);
        }
    }

    /// Behind branches that all ran.
    pub(super) fn join_all(&mut self, branches: &[Branch]) {
        for branch in branches {
            for (at, end) in &branch.touched {
                self.set_presence(*at, end.clone());
            }
        }
    }

    /// Behind branches any of which may have been cut off, or a body that may not have run to its end.
    pub(super) fn join_maybe(&mut self, branches: &[Branch], why: &str) {
        for (at, end) in branches.iter().flat_map(|branch| &branch.touched) {
            let end = match end {
                Presence::Always => Presence::Maybe(why.to_owned()),
                other => other.clone(),
            };
            self.set_presence(*at, end);
        }
    }

    /// While another branch of the same step runs: what a finished branch defined can't be read.
    pub(super) fn hide(&mut self, branch: &Branch, why: &str) {
        for at in branch.touched.keys() {
            if self.entries.get(*at).is_some_and(|entry| entry.presence != Presence::Always) {
                self.set_presence(*at, Presence::Never(why.to_owned()));
            }
        }
    }

    /// Behind a foreach: its names are gone for good.
    pub(super) fn bury(&mut self, branch: &Branch, why: &str) {
        for at in branch.touched.keys().copied() {
            if at < self.floor {
                continue;
            }
            if let Some(entry) = self.entries.get_mut(at) {
                entry.local = true;
            }
            self.set_presence(at, Presence::Never(why.to_owned()));
        }
    }

    /// In `on_failure` and `finally` every step may have run or not.
    pub(super) fn doubt_all(&mut self, why: &str) {
        for at in 0..self.entries.len() {
            let doubtful = self
                .entries
                .get(at)
                .is_some_and(|entry| !entry.local && matches!(entry.kind, Kind::Step | Kind::Decision | Kind::Set));
            if doubtful {
                self.set_presence(at, Presence::Maybe(why.to_owned()));
            }
        }
    }

    /// Every step of the flow with its output's type, once it is checked to its end.
    pub(super) fn steps(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| matches!(entry.kind, Kind::Step | Kind::Decision))
    }

    /// `steps.*`: the facts of every step that is known here.
    fn facts_type(&self) -> Type {
        let fact = roots::step_facts();
        let fields = self
            .steps()
            .filter(|entry| !(entry.local && matches!(entry.presence, Presence::Never(_))))
            .map(|entry| (Arc::clone(&entry.name), super::fields::field(fact.clone(), true)))
            .collect();
        Type::Object(Arc::new(ObjectType { name: "the steps so far".into(), fields, open: false }))
    }
}

impl TypeEnv for Scope {
    fn lookup(&self, name: &str) -> Option<Binding> {
        if name == "steps" && self.index.contains_key("run") {
            return Some(Binding { ty: self.facts_type(), presence: Presence::Always });
        }
        let entry = self.entry(name)?;
        Some(Binding { ty: entry.ty.clone(), presence: entry.presence.clone() })
    }

    fn names(&self) -> Vec<Arc<str>> {
        let known = self.entries.iter().filter(|entry| !matches!(entry.presence, Presence::Never(_)));
        let steps = self.index.contains_key("run").then(|| Arc::from("steps"));
        known.map(|entry| Arc::clone(&entry.name)).chain(steps).collect()
    }

    fn explainable(&self, id: &str) -> bool {
        self.entry(id).is_some_and(|entry| entry.kind == Kind::Decision && entry.presence == Presence::Always)
    }
}
