//! Action steps: parameters, connection, files, retries, confirmation, and the type of the output.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::adaptive::{is_card, is_yaml};
use super::cx::Checker;
use super::fields::given;
use super::program::{ActionStep, Dyn, RetryOn, RetryPolicy, StepKind};
use super::steps::{Compiled, Output};
use crate::catalog::{Action, ConnectionKind, Context, Effect, Field, Param, Type, ids};
use crate::diag::suggestion;
use crate::flow::model::{self, ConfirmSpec, Name, OnTimeout, Payload, Retry, Step};
use crate::triage::verdict;
use crate::value::Value;

/// The first pause between attempts, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Parameters that declare the shape of a member of the output, and whether it is a list of that shape.
const SHAPES: [(&str, &str, bool); 2] = [("columns", "rows", true), ("response", "body", false)];

type With = Vec<(Arc<str>, Dyn)>;

impl Checker<'_> {
    pub(super) fn action(&mut self, step: &Step) -> Compiled {
        let model::StepKind::Action { action: name, connection, with, condition, retry, confirm, approval } =
            &step.kind
        else {
            return Compiled { kind: None, output: Output::nothing(), diverges: false };
        };
        if let Some(span) = approval {
            self.not_yet(
                *span,
                "`approval:`",
                "leave it out; `protected:` and `limits:` of the configuration still ask",
            );
        }
        let mark = self.scope.mark();
        let cond = condition.as_ref().map(|condition| self.condition(condition));
        self.deciding.push(match &cond {
            Some(Some(cond)) => cond.references().into_iter().map(|reference| reference.root).collect(),
            _ => BTreeSet::new(),
        });
        if let Some(Some(cond)) = &cond {
            self.narrow(cond);
        }
        let entry = self.known_action(name);
        let done = match &entry {
            Some(entry) => self.params(entry, name, with),
            None => self.loose(with),
        };
        self.scope.end_branch(mark, false);
        let compiled = entry.map(|entry| {
            let connection = self.connection(connection.as_ref(), Some(entry.kind), name);
            self.note_use(&entry, &connection, name);
            let output = self.output_type(&entry, with);
            let step = ActionStep {
                connection,
                cond: None,
                with: Vec::new(),
                retry: self.retry(entry.effect, retry.as_ref()),
                confirm: self.confirm(&entry, confirm.as_ref()),
                keep: Arc::default(),
                output,
                look_action: entry.look.as_ref().and_then(|look| self.world.catalog.action(&look.action)).cloned(),
                confirm_action: entry.confirm.as_ref().and_then(|it| self.world.catalog.action(&it.action)).cloned(),
                action: entry,
            };
            self.replies_alone(&step.action, name.span);
            step
        });
        self.deciding.pop();
        let ty = compiled.as_ref().map_or(Type::Any, |step| step.output.clone());
        let output = Output { ty, action: Some(Arc::clone(&name.text)), guarded: condition.is_some() };
        let kind = match (compiled, done, cond) {
            (Some(_), _, Some(None)) | (None, ..) | (_, None, _) => None,
            (Some(step), Some(with), cond) => Some(StepKind::Action(ActionStep { cond: cond.flatten(), with, ..step })),
        };
        Compiled { kind, output: Some(output), diverges: false }
    }

    fn known_action(&mut self, name: &Name) -> Option<Arc<Action>> {
        let catalog = self.world.catalog;
        if let Some(action) = catalog.action(&name.text) {
            return Some(Arc::clone(action));
        }
        let known = catalog.actions.keys().map(|key| &**key);
        let connector = name.text.split('.').next().unwrap_or("");
        let help = suggestion(&name.text, known.clone()).unwrap_or_else(|| {
            let of: Vec<&str> = known.filter(|key| key.split('.').next() == Some(connector)).collect();
            match of.is_empty() {
                true => "`watchfloor actions list` shows them all".to_owned(),
                false => format!("the actions of {connector} are {}", of.join(", ")),
            }
        });
        self.error("WF0701", name.span, format!("there is no action `{}`", name.text)).help(help);
        None
    }

    /// The parameters of an action that is not known: only the texts themselves are checked.
    fn loose(&mut self, with: &[(Name, Payload)]) -> Option<With> {
        for (name, payload) in with {
            if !name.text.ends_with("_file") {
                self.payload(payload, &Type::Any, Context::Plain, &format!("`{}`", name.text));
            }
        }
        None
    }

    fn params(&mut self, entry: &Arc<Action>, name: &Name, with: &[(Name, Payload)]) -> Option<With> {
        let mut done = With::with_capacity(entry.inputs.len());
        let mut whole = true;
        for (key, payload) in with {
            let Some(param) = entry.input(&key.text) else {
                let help = suggestion(&key.text, entry.inputs.iter().map(|param| &*param.name));
                let help = help.unwrap_or_else(|| takes(entry));
                self.error("WF0404", key.span, format!("`{}` has no parameter `{}`", entry.name, key.text)).help(help);
                whole = false;
                continue;
            };
            let value = match param.file {
                true => self.file(entry, param, key, payload, with),
                false => self.param(param, payload).map(|value| (Arc::clone(&param.name), value)),
            };
            match value {
                Some((name, value)) if !done.iter().any(|(known, _)| *known == name) => done.push((name, value)),
                Some(_) => {}
                None => whole = false,
            }
        }
        for param in &entry.inputs {
            let file = format!("{}_file", param.name);
            if given(with, &param.name).is_some() || given(with, &file).is_some() {
                continue;
            }
            match &param.default {
                Some(value) => done.push((Arc::clone(&param.name), Dyn::Const(value.clone()))),
                None if param.required => {
                    let message = format!("`{}` needs its parameter `{}`", entry.name, param.name);
                    let wants = super::payload::wanted(&param.ty);
                    self.error("WF0403", name.span, message)
                        .help(format!("add `{}:` under `with:`, {wants}", param.name));
                    whole = false;
                }
                None => {}
            }
        }
        for group in &entry.any_of {
            if !group.iter().any(|param| given(with, param).is_some()) {
                let names: Vec<String> = group.iter().map(|param| format!("`{param}:`")).collect();
                self.error("WF0403", name.span, format!("`{}` needs one of its parameters", entry.name))
                    .help(format!("add one of {} under `with:`", names.join(", ")));
                whole = false;
            }
        }
        whole &= self.verdict(with, &done);
        whole.then_some(done)
    }

    /// A classification and a determination that contradict each other, where both are known now.
    fn verdict(&mut self, with: &[(Name, Payload)], done: &With) -> bool {
        let word = |name: &str| match done.iter().find(|(known, _)| **known == *name) {
            Some((_, Dyn::Const(Value::String(word)))) => Some(Arc::clone(word)),
            _ => None,
        };
        let (Some(class), Some(reason)) = (word("classification"), word("determination")) else { return true };
        let (Err(why), Some((_, payload))) = (verdict::pair(&class, &reason), given(with, "determination")) else {
            return true;
        };
        self.error("WF0718", payload.span(), why).help("one of the two is not what was meant");
        false
    }

    fn param(&mut self, param: &Param, payload: &Payload) -> Option<Dyn> {
        // A declared shape is read by `output_type`, which knows what may stand there.
        let shape = SHAPES.iter().any(|(name, ..)| **name == *param.name);
        let ty = if shape { &Type::Any } else { &param.ty };
        let (value, _) = self.payload(payload, ty, param.context, &format!("`{}`", param.name))?;
        if let (Some(form), Dyn::Const(Value::String(text))) = (&param.id_form, &value)
            && let Err(why) = ids::normal(form, text)
        {
            self.error("WF0409", payload.span(), format!("`{}`: {why}", param.name))
                .help("copy the id, or the address of its page, from the portal");
            return None;
        }
        Some(value)
    }

    /// `x_file` supplies `x`: the file is read now, and is part of the bundle.
    fn file(
        &mut self,
        entry: &Arc<Action>,
        param: &Param,
        key: &Name,
        payload: &Payload,
        with: &[(Name, Payload)],
    ) -> Option<(Arc<str>, Dyn)> {
        let Payload::Text(path) = payload else {
            self.error("WF0401", payload.span(), format!("`{}` wants the path of a file", param.name));
            return None;
        };
        if path.text.contains("{{") {
            self.error("WF0407", path.span, format!("the path of `{}` can't have a template in it", param.name))
                .help("files are read when the flow is loaded; choose between two files with `if:`");
            return None;
        }
        let target = param.name.strip_suffix("_file").and_then(|target| entry.input(target)).unwrap_or(param);
        if target.name != param.name && given(with, &target.name).is_some() {
            self.error("WF0407", key.span, format!("`{}` and `{}` are both given", target.name, param.name))
                .help("keep one of them");
            return None;
        }
        if target.context == Context::CardJson && is_yaml(&path.text) && !is_card(&path.text) {
            self.error("WF0408", path.span, format!("`{}` would be taken for a flow", path.text))
                .help("a card in YAML is named `NAME.card.yaml`");
            return None;
        }
        let text = match (self.world.include)(&path.text) {
            Ok(text) => text,
            Err(reason) => {
                self.error("WF0408", path.span, format!("can't read `{}`: {reason}", path.text))
                    .help("the path is relative to the flow's file");
                return None;
            }
        };
        self.bundle.included.insert(path.text.clone(), text.clone());
        let value = match target.context {
            // A query takes its values as bound parameters; its text is never a template.
            Context::Kql => Dyn::Const(Value::str(text)),
            Context::CardJson if is_yaml(&path.text) => self.card_file(&path.text, &text)?,
            context => Dyn::Text(self.file_template(&path.text, &text, context)?),
        };
        Some((Arc::clone(&target.name), value))
    }

    /// Declared columns and response schemas say more than the action's own output.
    fn output_type(&mut self, entry: &Action, with: &[(Name, Payload)]) -> Type {
        let Type::Object(object) = &entry.output else { return entry.output.clone() };
        for (param, member, listed) in SHAPES {
            let (Some((_, shape)), Some(field)) = (given(with, param), object.fields.get(member)) else { continue };
            if entry.input(param).is_none() {
                continue;
            }
            let Some(ty) = self.shape(shape, if listed { "a row" } else { "the body" }) else { continue };
            let ty = if listed { Type::list(ty) } else { ty };
            let mut object = (**object).clone();
            object.fields.insert(Arc::from(member), Field { ty, ..field.clone() });
            return Type::Object(Arc::new(object));
        }
        entry.output.clone()
    }

    fn note_use(&mut self, entry: &Arc<Action>, connection: &Arc<str>, name: &Name) {
        if self.racing && entry.effect != Effect::Read {
            self.race_error(name.span, &entry.name, entry.effect);
        }
        self.effect = self.effect.max(entry.effect);
        let look = entry.look.as_ref().map(|look| &look.action);
        let confirm = entry.confirm.as_ref().map(|confirm| &confirm.action);
        for action in [Some(&entry.name), look, confirm].into_iter().flatten() {
            self.uses.insert((Arc::clone(action), Arc::clone(connection)));
        }
    }

    /// The connection that serves a step or a trigger: the one named, or the only one that can.
    pub(super) fn connection(&mut self, named: Option<&Name>, kind: Option<ConnectionKind>, what: &Name) -> Arc<str> {
        let Some(kind) = kind else {
            if let Some(name) = named {
                self.error("WF0706", name.span, format!("`{}` uses no connection", what.text)).help("remove it");
            }
            return Arc::from("");
        };
        let Some(known) = self.world.connections else {
            return named.map_or_else(|| Arc::from(kind.as_str()), |name| Arc::clone(&name.text));
        };
        let fit: Vec<Arc<str>> =
            known.iter().filter(|(_, it)| **it == kind).map(|(name, _)| Arc::clone(name)).collect();
        let list = fit.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let Some(name) = named else {
            match fit.as_slice() {
                [only] => return Arc::clone(only),
                [] => {
                    let message =
                        format!("`{}` needs a connection of kind {}, and none is configured", what.text, kind.as_str());
                    self.error("WF0707", what.span, message).help("add one under `connections:` of the configuration");
                }
                _ => {
                    let message = format!("`{}` can use several connections: {list}", what.text);
                    self.error("WF0707", what.span, message).help("name one of them with `connection:`");
                }
            }
            return Arc::from("");
        };
        match known.get(&name.text) {
            Some(found) if *found == kind => {}
            Some(found) => {
                let message = format!(
                    "`{}` is a connection of kind {}, and `{}` needs {}",
                    name.text,
                    found.as_str(),
                    what.text,
                    kind.as_str()
                );
                let help =
                    if fit.is_empty() { "none of that kind is configured".to_owned() } else { format!("use {list}") };
                self.error("WF0706", name.span, message).help(help);
            }
            None => {
                let help = suggestion(&name.text, fit.iter().map(|name| &**name))
                    .or_else(|| (!fit.is_empty()).then(|| format!("of kind {} there is {list}", kind.as_str())))
                    .unwrap_or_else(|| format!("none of kind {} is configured", kind.as_str()));
                self.error("WF0705", name.span, format!("there is no connection `{}`", name.text)).help(help);
            }
        }
        Arc::clone(&name.text)
    }

    fn confirm(&mut self, entry: &Action, confirm: Option<&ConfirmSpec>) -> Option<(Duration, OnTimeout)> {
        let confirm = confirm?;
        if entry.confirm.is_none() {
            self.error(
                "WF0711",
                confirm.span,
                format!("`{}` is done when it is answered: nothing to confirm", entry.name),
            )
            .help("remove `confirm:`");
            return None;
        }
        if !matches!(confirm.on_timeout, OnTimeout::Continue | OnTimeout::Fail) {
            self.error("WF0711", confirm.span, "`confirm:` ends with `on_timeout: continue` or `on_timeout: fail`");
        }
        Some((confirm.timeout, confirm.on_timeout))
    }

    fn retry(&mut self, effect: Effect, retry: Option<&Retry>) -> RetryPolicy {
        let attempts = match effect {
            Effect::Notify => 3,
            Effect::Read | Effect::Write | Effect::Destructive => 4,
        };
        let mut policy = RetryPolicy { max: attempts, first: FIRST_PAUSE, cap: LONGEST_PAUSE, on: None };
        let Some(retry) = retry else { return policy };
        policy.max = retry.max.unwrap_or(policy.max).max(1);
        policy.first = retry.first.unwrap_or(policy.first);
        policy.cap = retry.cap.unwrap_or(policy.cap.max(policy.first));
        if policy.cap < policy.first {
            self.error("WF0713", retry.span, "`cap:` is shorter than `first:`").help("the first pause is the shortest");
        }
        policy.on = retry.on.as_ref().map(|words| words.iter().filter_map(|word| retry_on(&word.text)).collect());
        policy
    }
}

/// What lowering has let through: a status, or a class of failures.
fn retry_on(word: &str) -> Option<RetryOn> {
    match word {
        "5xx" => Some(RetryOn::ServerError),
        "timeout" => Some(RetryOn::Timeout),
        "network" => Some(RetryOn::Network),
        status => status.parse().ok().map(RetryOn::Status),
    }
}

fn takes(entry: &Action) -> String {
    let names: Vec<&str> = entry.inputs.iter().map(|param| &*param.name).collect();
    if names.is_empty() { "it takes none".to_owned() } else { format!("it takes {}", names.join(", ")) }
}
