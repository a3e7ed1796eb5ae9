//! Steps that do one thing and are no action: `wait`, `stop`, `call`, and those that wait for people.

use std::sync::Arc;

use super::cx::Checker;
use super::program::{Dyn, InputDecl, StepKind};
use super::steps::{Compiled, Output};
use crate::catalog::{Context, Effect, Type};
use crate::diag::{Span, suggestion};
use crate::flow::model::{FieldDecl, Name, Payload, Step, StopStatus, Text, Wait};

impl Checker<'_> {
    pub(super) fn wait(&mut self, wait: &Wait) -> Compiled {
        let kind = match wait {
            Wait::For(span) => Some(StepKind::WaitFor(*span)),
            Wait::Until(text) => self.expr_of(text, &Type::Datetime, "`until:`").map(StepKind::WaitUntil),
        };
        Compiled { kind, output: Output::nothing(), diverges: false }
    }

    pub(super) fn stop(&mut self, status: StopStatus, reason: Option<&Text>) -> Compiled {
        let given = reason.map(|text| {
            self.payload(&Payload::Text(text.clone()), &Type::String, Context::Plain, "`reason:`")
                .map(|(value, _)| value)
        });
        let kind = match given {
            Some(None) => None,
            other => Some(StepKind::Stop { status, reason: other.flatten() }),
        };
        Compiled { kind, output: None, diverges: true }
    }

    pub(super) fn call(&mut self, flow: &Name, with: &[(Name, Payload)]) -> Compiled {
        let Some(called) = self.called_flow(flow) else {
            // Its inputs can't be known, so only the texts themselves are checked.
            for (name, payload) in with {
                self.payload(payload, &Type::Any, Context::Plain, &format!("`{}`", name.text));
            }
            return Compiled { kind: None, output: Output::of(Type::Any), diverges: false };
        };
        if self.racing && called.effect > Effect::Read {
            self.race_error(flow.span, &flow.text, called.effect);
        }
        let with = self.call_inputs(flow, with, &called.inputs);
        self.effect = self.effect.max(called.effect);
        self.uses.extend(called.uses.iter().cloned());
        let output = Output::of(called.output_type.clone());
        let kind = with.map(|with| StepKind::Call { flow: Arc::clone(&called), with });
        self.called.insert(Arc::clone(&flow.text), called);
        Compiled { kind, output, diverges: false }
    }

    fn call_inputs(
        &mut self,
        flow: &Name,
        with: &[(Name, Payload)],
        inputs: &[InputDecl],
    ) -> Option<Vec<(Arc<str>, Dyn)>> {
        let mut done = Vec::with_capacity(inputs.len());
        let mut whole = true;
        for (name, payload) in with {
            let Some(decl) = inputs.iter().find(|decl| decl.name == name.text) else {
                let help = suggestion(&name.text, inputs.iter().map(|decl| &*decl.name));
                self.error("WF0404", name.span, format!("the flow `{}` has no input `{}`", flow.text, name.text))
                    .help_opt(help);
                whole = false;
                continue;
            };
            match self.payload(payload, &decl.ty, Context::Plain, &format!("`{}`", name.text)) {
                Some((value, _)) => done.push((Arc::clone(&name.text), value)),
                None => whole = false,
            }
        }
        for decl in inputs.iter().filter(|decl| !with.iter().any(|(name, _)| name.text == decl.name)) {
            match &decl.default {
                Some(value) => done.push((Arc::clone(&decl.name), Dyn::Const(value.clone()))),
                None if decl.required => {
                    let message = format!("the flow `{}` needs its input `{}` ({})", flow.text, decl.name, decl.ty);
                    self.error("WF0403", flow.span, message).help(format!("add `{}:` under `with:`", decl.name));
                    whole = false;
                }
                None => {}
            }
        }
        whole.then_some(done)
    }

    pub(super) fn race_error(&mut self, span: Span, what: &str, effect: Effect) {
        let effect = effect.as_str();
        self.error("WF0712", span, format!("`{what}` has the effect {effect}, and `join: any` allows reads only"))
            .help("a branch that loses is cut off in the middle; put the effect behind the `parallel`");
    }

    /// The people that a question goes to.
    fn people(&mut self, to: &[Payload]) {
        for person in to {
            self.payload(person, &Type::String, Context::Plain, "`to:`");
        }
    }

    fn question(&mut self, question: &Text, to: &[Payload]) {
        self.payload(&Payload::Text(question.clone()), &Type::String, Context::Plain, "the question");
        self.people(to);
    }

    pub(super) fn approve(&mut self, step: &Step, question: &Text, to: &[Payload]) -> Compiled {
        self.question(question, to);
        self.not_yet(step.span, "`approve:`", "let the flow post to people, and let them act in the portal");
        self.later(answer_type("an approval", [("approved", Type::Bool, false)]))
    }

    pub(super) fn ask(&mut self, step: &Step, question: &Text, to: &[Payload], fields: &[FieldDecl]) -> Compiled {
        self.question(question, to);
        let fields = self.declared(fields);
        self.not_yet(step.span, "`ask:`", "let the flow post to people, and let them act in the portal");
        let fields = super::fields::object_of("the answer's fields", &fields);
        self.later(answer_type("an answer", [("choice", Type::String, true), ("fields", fields, true)]))
    }

    pub(super) fn wait_for(&mut self, step: &Step, fields: &[FieldDecl]) -> Compiled {
        let fields = self.declared(fields);
        self.not_yet(step.span, "`wait_for:`", "poll with `until:`, or start another flow by a webhook");
        self.later(super::fields::object_of("a signal", &fields))
    }

    pub(super) fn respond(&mut self, step: &Step, body: Option<&Payload>) -> Compiled {
        if let Some(body) = body {
            self.payload(body, &Type::Any, Context::Json, "`body:`");
        }
        self.not_yet(step.span, "`respond:`", "webhooks are answered with 202 and the run's id");
        self.later(Type::object("a step without output", []))
    }

    /// A step that checks and cannot run: it stands in the program as one that does nothing.
    fn later(&mut self, output: Type) -> Compiled {
        Compiled { kind: Some(StepKind::Set(Vec::new())), output: Output::of(output), diverges: false }
    }
}

fn answer_type<const N: usize>(name: &str, own: [(&'static str, Type, bool); N]) -> Type {
    let common = [("by", Type::String, true), ("at", Type::Datetime, true), ("timed_out", Type::Bool, false)];
    Type::object(name, own.into_iter().chain(common))
}
