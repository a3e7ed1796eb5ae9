//! What all rules share: the world, the names in scope, the findings so far, and the compiling of texts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::World;
use super::calls::Calls;
use super::payload::{shown, wanted};
use super::program::{Bundle, CheckedFlow, Keep};
use super::scope::{Kind, Scope};
use crate::catalog::{Context, Effect, Type};
use crate::diag::{Diagnostic, Source, Span};
use crate::expr::{Cond, Expr, Fault, Presence, Reference, Template};
use crate::flow::model::{Condition, Text};

pub(super) struct Checker<'a> {
    pub(super) world: &'a World<'a>,
    pub(super) runnable: bool,
    pub(super) source: &'a Arc<Source>,
    pub(super) calls: &'a Calls,
    pub(super) scope: Scope,
    pub(super) found: Vec<Diagnostic>,
    /// What is read of each root.
    pub(super) keeps: BTreeMap<Arc<str>, Keep>,
    pub(super) facts: BTreeSet<Arc<str>>,
    pub(super) explained: BTreeSet<Arc<str>>,
    pub(super) effect: Effect,
    pub(super) uses: BTreeSet<(Arc<str>, Arc<str>)>,
    pub(super) called: BTreeMap<Arc<str>, Arc<CheckedFlow>>,
    pub(super) bundle: Bundle,
    /// Roots read by the conditions around the current step, innermost last.
    pub(super) deciding: Vec<BTreeSet<Arc<str>>>,
    /// Within `join: any`, where only reads are allowed.
    pub(super) racing: bool,
    /// A part did not compile: there is no checked flow, whether or not a finding says so.
    pub(super) failed: bool,
}

impl<'a> Checker<'a> {
    pub(super) fn new(world: &'a World<'a>, calls: &'a Calls, source: &'a Arc<Source>, runnable: bool) -> Self {
        Checker {
            world,
            runnable,
            source,
            calls,
            scope: Scope::default(),
            found: Vec::new(),
            keeps: BTreeMap::new(),
            facts: BTreeSet::new(),
            explained: BTreeSet::new(),
            effect: Effect::Read,
            uses: BTreeSet::new(),
            called: BTreeMap::new(),
            bundle: Bundle::default(),
            deciding: Vec::new(),
            racing: false,
            failed: false,
        }
    }

    /// Adds an error and gives it back, for a note or a help line.
    pub(super) fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>) -> Found<'_> {
        self.failed = true;
        self.found.push(Diagnostic::error(code, self.source, span, message));
        Found(self.found.last_mut())
    }

    pub(super) fn warning(&mut self, code: &'static str, span: Span, message: impl Into<String>) -> Found<'_> {
        self.found.push(Diagnostic::warning(code, self.source, span, message));
        Found(self.found.last_mut())
    }

    /// Something that parses and checks, and cannot run yet.
    pub(super) fn not_yet(&mut self, span: Span, what: &str, help: &str) {
        if self.runnable {
            self.error("WF0720", span, format!("{what} is not in this version")).help(help);
        }
    }

    /// Enters a root that the engine binds.
    pub(super) fn root(&mut self, name: &str, ty: Type) {
        // Roots are entered first, so no name can be there already.
        let _ = self.scope.define(&Arc::from(name), ty, Kind::Root, Span::default());
    }

    /// Runs `inner` with `error.*` in scope.
    pub(super) fn with_error<T>(&mut self, inner: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.scope.entry("error").map(|entry| entry.presence.clone());
        self.scope.assign("error");
        let result = inner(self);
        self.scope.mark_presence("error", before.unwrap_or_else(no_error));
        result
    }

    pub(super) fn expr(&mut self, text: &Text) -> Option<Expr> {
        let expr = self.expr_unread(text)?;
        self.read_all(&expr.references);
        Some(expr)
    }

    /// As `expr`, but its reads are not noted yet: see `read_all`.
    pub(super) fn expr_unread(&mut self, text: &Text) -> Option<Expr> {
        match Expr::compile(&text.text, &self.scope) {
            Ok((expr, warnings)) => {
                self.faults(text, warnings);
                Some(expr)
            }
            Err(faults) => self.refused(text, faults),
        }
    }

    /// An expression whose value must be of a type.
    pub(super) fn expr_of(&mut self, text: &Text, want: &Type, what: &str) -> Option<Expr> {
        let expr = self.expr(text)?;
        if want.accepts(&expr.ty) {
            return Some(expr);
        }
        self.error("WF0401", text.span, format!("{what} wants {}, and this is {}", wanted(want), shown(&expr.ty)));
        None
    }

    pub(super) fn cond_text(&mut self, text: &Text) -> Option<Cond> {
        match Cond::compile(&text.text, &self.scope) {
            Ok((cond, warnings)) => {
                self.faults(text, warnings);
                self.read_all(&cond.references());
                Some(cond)
            }
            Err(faults) => self.refused(text, faults),
        }
    }

    /// A condition as written. What earlier operands of an `all` prove holds for the later ones.
    pub(super) fn condition(&mut self, condition: &Condition) -> Option<Cond> {
        let parts = |this: &mut Self, parts: &[Condition]| -> Option<Vec<Cond>> {
            let parts: Vec<Option<Cond>> = parts.iter().map(|part| this.condition(part)).collect();
            parts.into_iter().collect()
        };
        match condition {
            Condition::Cel(text) => self.cond_text(text),
            Condition::Any(any, _) => parts(self, any).map(Cond::Any),
            Condition::None(none, _) => parts(self, none).map(Cond::None),
            Condition::All(all, _) => {
                let mark = self.scope.mark();
                let mut conds = Vec::with_capacity(all.len());
                for part in all {
                    let cond = self.condition(part);
                    if let Some(cond) = &cond {
                        self.narrow(cond);
                    }
                    conds.push(cond);
                }
                self.scope.end_branch(mark, false);
                conds.into_iter().collect::<Option<Vec<_>>>().map(Cond::All)
            }
        }
    }

    /// Where `cond` is true, the steps that it proves have run.
    pub(super) fn narrow(&mut self, cond: &Cond) {
        for root in cond.proves() {
            let maybe = self.scope.entry(&root).is_some_and(|entry| matches!(entry.presence, Presence::Maybe(_)));
            if maybe {
                self.scope.assign(&root);
            }
        }
    }

    pub(super) fn template(&mut self, text: &Text, context: Context) -> Option<Template> {
        match Template::compile(&text.text, &self.scope, context, false) {
            Ok((template, warnings)) => {
                self.faults(text, warnings);
                self.keep_template(&template);
                Some(template)
            }
            Err(faults) => self.refused(text, faults),
        }
    }

    /// A template in a file of its own: faults are told in that file.
    pub(super) fn file_template(&mut self, name: &str, text: &str, context: Context) -> Option<Template> {
        let whole = Text { text: text.to_owned(), span: Span::new(0, text.len()), exact: true };
        self.text_of_file(&Source::new(name, text), &whole, context)
    }

    /// A text that stands in another file than the flow's.
    pub(super) fn text_of_file(&mut self, source: &Arc<Source>, text: &Text, context: Context) -> Option<Template> {
        let (template, faults) = match Template::compile(&text.text, &self.scope, context, true) {
            Ok((template, warnings)) => (Some(template), warnings),
            Err(faults) => (None, faults),
        };
        self.failed |= template.is_none();
        self.found.extend(faults.into_iter().map(|fault| finding(source, place(text, &fault), fault)));
        if let Some(template) = &template {
            self.keep_template(template);
        }
        template
    }

    fn keep_template(&mut self, template: &Template) {
        self.read_all(&template.references);
        self.explained.extend(template.explains());
    }

    fn refused<T>(&mut self, text: &Text, faults: Vec<Fault>) -> Option<T> {
        self.failed = true;
        self.faults(text, faults);
        None
    }

    fn faults(&mut self, text: &Text, faults: Vec<Fault>) {
        self.found.extend(faults.into_iter().map(|fault| finding(self.source, place(text, &fault), fault)));
    }

    /// Remembers what is read, so that only this enters the run's state.
    pub(super) fn read_all(&mut self, references: &[Reference]) {
        for reference in references {
            if &*reference.root == "steps" {
                match reference.path.first() {
                    Some(id) => drop(self.facts.insert(Arc::clone(id))),
                    None => self.facts.extend(self.scope.steps().map(|entry| Arc::clone(&entry.name))),
                }
                continue;
            }
            let (root, path) = self.unalias(&reference.root, &reference.path);
            self.keeps.entry(root).or_default().add(&path);
        }
    }

    /// The place in a step's output of a read of a foreach's item.
    pub(super) fn unalias(&self, root: &Arc<str>, path: &[Arc<str>]) -> (Arc<str>, Vec<Arc<str>>) {
        match self.scope.entry(root).and_then(|entry| entry.alias.as_ref()) {
            Some((list, prefix)) => (Arc::clone(list), prefix.iter().chain(path).cloned().collect()),
            None => (Arc::clone(root), path.to_vec()),
        }
    }
}

/// A finding that was just added; gone where nothing was.
pub(super) struct Found<'a>(Option<&'a mut Diagnostic>);

impl<'a> Found<'a> {
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        self.help_opt(Some(help.into()))
    }

    pub(super) fn help_opt(mut self, help: Option<String>) -> Self {
        if let (Some(found), Some(help)) = (&mut self.0, help) {
            found.help = Some(help);
        }
        self
    }

    pub(super) fn note(mut self, span: Span, note: impl Into<String>) -> Self {
        if let Some(found) = &mut self.0 {
            found.note = Some((span, note.into()));
        }
        self
    }
}

pub(super) fn no_error() -> Presence {
    Presence::Never("it is known only in `catch`, in the steps of `on_error` and in `on_failure`".into())
}

/// Where in its file a fault of a text is.
fn place(text: &Text, fault: &Fault) -> Span {
    match text.exact {
        true => Span::new(text.span.start + fault.start, text.span.start + fault.end),
        false => text.span,
    }
}

fn finding(source: &Arc<Source>, span: Span, fault: Fault) -> Diagnostic {
    let make = if fault.warning { Diagnostic::warning } else { Diagnostic::error };
    make(fault.code, source, span, fault.message).help_opt(fault.help)
}
