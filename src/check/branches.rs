//! Steps that choose or split: `if`, `switch`, `try`, `parallel`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::cx::Checker;
use super::payload::shown;
use super::program::{Block, StepKind};
use super::scope::{Branch, Kind};
use super::steps::{Compiled, Output};
use crate::catalog::Type;
use crate::expr::Reference;
use crate::flow::model::{Catch, Condition, Join, Name, Step, Text};
use crate::value::Value;

impl Checker<'_> {
    pub(super) fn decide(&mut self, step: &Step, condition: &Condition, then: &[Step], otherwise: &[Step]) -> Compiled {
        let cond = self.condition(condition);
        if let Some(id) = &step.id {
            let ty = Type::object("a decision", [("result", Type::Bool, false), ("taken", Type::String, false)]);
            self.define(id, ty, Kind::Decision);
        }
        let references = cond.as_ref().map(crate::expr::Cond::references).unwrap_or_default();
        self.deciding.push(roots(&references));
        let mark = self.scope.mark();
        if let Some(cond) = &cond {
            self.narrow(cond);
        }
        let (then, diverges) = self.block(then);
        let first = self.scope.end_branch(mark, diverges);
        let ((otherwise, second), _) =
            self.with_hidden(&first, "it runs only in the `then` branch", |this| this.branch(otherwise));
        self.deciding.pop();
        let diverges = first.diverges && second.diverges;
        self.scope.join_one(&[first, second], "it runs in one branch of an `if` only");
        let kind = cond.map(|cond| StepKind::If { cond, then, otherwise });
        Compiled { kind, output: None, diverges }
    }

    pub(super) fn switch(&mut self, on: &Text, cases: &[(Name, Vec<Step>)], default: Option<&[Step]>) -> Compiled {
        let on_expr = self.expr(on);
        let ty = on_expr.as_ref().map_or(Type::Any, |expr| expr.ty.clone());
        let references = on_expr.as_ref().map(|expr| expr.references.clone()).unwrap_or_default();
        self.deciding.push(roots(&references));
        let mut covered: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut done: Vec<(Value, Block)> = Vec::with_capacity(cases.len());
        let mut ways: Vec<Branch> = Vec::with_capacity(cases.len() + 1);
        for (name, steps) in cases {
            let value = self.case_value(name, &on.text, &ty, &mut covered);
            let block = self.next_way(&mut ways, steps);
            done.extend(value.map(|value| (value, block)));
        }
        let default = default.map(|steps| self.next_way(&mut ways, steps));
        self.deciding.pop();
        if default.is_none() && on_expr.is_some() {
            self.coverage(on, &ty, &covered);
        }
        let diverges = !ways.is_empty() && ways.iter().all(|way| way.diverges);
        self.scope.join_one(&ways, "it runs in one case of a `switch` only");
        let kind = on_expr.map(|on| StepKind::Switch { on, cases: done, default });
        Compiled { kind, output: Output::nothing(), diverges }
    }

    /// The next of several ways on; what the ones before it define can't be read in it.
    fn next_way(&mut self, ways: &mut Vec<Branch>, steps: &[Step]) -> Block {
        let mark = self.scope.mark();
        for way in ways.iter() {
            self.scope.hide(way, "it runs in another branch of the same step");
        }
        let inner = self.scope.mark();
        let (block, diverges) = self.block(steps);
        let way = self.scope.end_branch(inner, diverges);
        self.scope.end_branch(mark, false);
        ways.push(way);
        block
    }

    fn case_value(&mut self, name: &Name, on: &str, ty: &Type, covered: &mut BTreeSet<Arc<str>>) -> Option<Value> {
        let value = match ty {
            Type::Enum(words) => Value::String(self.word(&name.text, name.span, words, &format!("`{}`", on.trim()))?),
            Type::Bool => name.text.parse().ok().map(Value::Bool).or_else(|| self.bad_case(name, ty))?,
            Type::Int => name.text.parse().ok().map(Value::Int).or_else(|| self.bad_case(name, ty))?,
            Type::String | Type::Any => Value::String(Arc::clone(&name.text)),
            _ => return self.bad_case(name, ty),
        };
        let word = value.as_str().map_or_else(|| Arc::clone(&name.text), Arc::from);
        if !covered.insert(word) {
            self.error("WF0406", name.span, format!("the case `{}` is there already", name.text))
                .help("words are compared without regard to case; join the two cases");
        }
        Some(value)
    }

    fn bad_case<T>(&mut self, name: &Name, ty: &Type) -> Option<T> {
        self.error("WF0406", name.span, format!("`{}` is no case of {ty}", name.text))
            .help("cases are whole values of an enum, a string, an int or a bool");
        None
    }

    fn coverage(&mut self, on: &Text, ty: &Type, covered: &BTreeSet<Arc<str>>) {
        let all: Vec<Arc<str>> = match ty {
            Type::Enum(words) => words.values.clone(),
            Type::Bool => vec!["true".into(), "false".into()],
            _ => {
                self.error("WF0406", on.span, "the cases can't cover every value").help("add `default:`");
                return;
            }
        };
        let open: Vec<&str> = all.iter().filter(|word| !covered.contains(*word)).map(|word| &**word).collect();
        if !open.is_empty() {
            self.error("WF0406", on.span, format!("no case for {}", open.join(", ")))
                .help("add the missing cases, or `default:`");
        }
    }

    pub(super) fn try_catch(&mut self, body: &[Step], catch: &[Catch]) -> Compiled {
        let (body, first) = self.branch(body);
        let mut ways = vec![first];
        let mut handlers = Vec::with_capacity(catch.len());
        let mut last: Option<crate::diag::Span> = None;
        for handler in catch {
            if let Some(all) = last {
                self.warning("WF0306", handler.span, "this handler never runs: the one before it takes every error")
                    .note(all, "it has no `when:`")
                    .help("put it before that one");
            }
            let mark = self.scope.mark();
            for way in &ways {
                self.scope.hide(way, "the `try` failed, so its steps have no output in `catch`");
            }
            let inner = self.scope.mark();
            let (cond, (block, diverges)) = self.with_error(|this| {
                let cond = handler.when.as_ref().map(|when| this.condition(when));
                (cond, this.block(&handler.body))
            });
            let way = self.scope.end_branch(inner, diverges);
            self.scope.end_branch(mark, false);
            ways.push(way);
            last = last.or(handler.when.is_none().then_some(handler.span));
            match cond {
                None => handlers.push((None, block)),
                Some(Some(cond)) => handlers.push((Some(cond), block)),
                Some(None) => {}
            }
        }
        let diverges = ways.iter().all(|way| way.diverges);
        self.scope.join_one(&ways, "its `try` may have failed");
        Compiled { kind: Some(StepKind::Try { body, catch: handlers }), output: Output::nothing(), diverges }
    }

    pub(super) fn parallel(&mut self, step: &Step, branches: &[Vec<Step>], join: Join) -> Compiled {
        let race = join == Join::Any;
        let floor = self.scope.raise_floor();
        let racing = self.racing;
        self.racing |= race;
        let mut ways = Vec::with_capacity(branches.len());
        let blocks = branches.iter().map(|steps| self.next_way(&mut ways, steps)).collect();
        self.racing = racing;
        self.scope.lower_floor(floor);
        let diverges = match join {
            Join::All => ways.iter().any(|way| way.diverges),
            Join::Any => ways.iter().all(|way| way.diverges),
        };
        if race {
            if branches.len() < 2 {
                self.warning("WF0310", step.span, "`join: any` has one branch only: there is nothing to choose from");
            }
            self.scope.join_maybe(&ways, "another branch of `join: any` may have won");
        } else {
            self.scope.join_all(&ways);
        }
        Compiled { kind: Some(StepKind::Parallel { branches: blocks, join }), output: Output::nothing(), diverges }
    }

    pub(super) fn set(&mut self, values: &[(Name, Text)]) -> Compiled {
        let mut done = Vec::with_capacity(values.len());
        for (name, text) in values {
            let Some(expr) = self.expr(text) else {
                self.set_one(name, Type::Any);
                continue;
            };
            self.set_one(name, expr.ty.clone());
            done.push((Arc::clone(&name.text), expr));
        }
        Compiled { kind: Some(StepKind::Set(done)), output: Output::nothing(), diverges: false }
    }

    fn set_one(&mut self, name: &Name, ty: Type) {
        let known = self.scope.entry(&name.text).filter(|entry| entry.kind == Kind::Set);
        let Some((known, first)) = known.map(|entry| (entry.ty.clone(), entry.span)) else {
            return self.define(name, ty, Kind::Set);
        };
        let Some(joined) = known.join(&ty) else {
            self.error(
                "WF0304",
                name.span,
                format!("`{}` is {} elsewhere, and {} here", name.text, shown(&known), shown(&ty)),
            )
            .note(first, format!("it is {} here", shown(&known)))
            .help("give it the same type wherever it is set");
            return;
        };
        if !self.scope.assignable(&name.text) {
            self.error("WF0305", name.span, format!("`{}` belongs to the steps around this loop or branch", name.text))
                .note(first, "it is set here")
                .help("items and parallel branches run side by side; use `collect:` or another name");
            return;
        }
        if let Some(entry) = self.scope.entry_mut(&name.text) {
            entry.ty = joined;
        }
        self.scope.assign(&name.text);
    }
}

fn roots(references: &[Reference]) -> BTreeSet<Arc<str>> {
    references.iter().map(|reference| Arc::clone(&reference.root)).collect()
}
