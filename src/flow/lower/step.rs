//! Steps: exactly one key names the kind; the rest comes from that kind's table and the keys of every step.

use std::sync::Arc;

use super::super::keys::{KINDS, Place, kind_key};
use super::super::model::{
    Catch, Collect, ConfirmSpec, Join, Name, OnError, OnMore, OnTimeout, Payload, Retry, Step, StepKind, StopStatus,
    Text, Wait,
};
use super::reader::{Fields, shortened};
use super::{Lowering, nameless};
use crate::diag::{Span, did_you_mean, suggestion};
use crate::yaml::{Entry, Kind, Node};

impl Lowering<'_> {
    /// The list of steps under a key; empty where there is none.
    pub(super) fn steps(&mut self, fields: &Fields<'_>, name: &str) -> Vec<Step> {
        match fields.get(name) {
            Some(entry) => self.steps_of(entry),
            None => vec![],
        }
    }

    fn steps_of(&mut self, entry: &Entry) -> Vec<Step> {
        match &entry.value.kind {
            Kind::List(items) if items.is_empty() => {
                self.empty(entry);
                vec![]
            }
            Kind::List(items) => items.iter().filter_map(|item| self.step(item)).collect(),
            _ => {
                let help = "begin each step with `- `".to_owned();
                self.wrong_kind(&entry.value, &format!("`{}` is a list of steps", shortened(&entry.key)), Some(help));
                vec![]
            }
        }
    }

    fn step(&mut self, node: &Node) -> Option<Step> {
        let Kind::Map(entries) = &node.kind else {
            self.wrong_kind(node, "a step is a map", Some("write `- action: …`, `- if: …` and so on".to_owned()));
            return None;
        };
        let (kind, at) = self.kind_of(node, entries)?;
        let fields = self.open(node, kind, Some(at));
        let id = self.step_id(&fields);
        let label = self.plain(&fields, "name");
        let timeout = self.duration(&fields, "timeout");
        let secure = self.flag(&fields, "secure").unwrap_or(false);
        let body = self.body(&fields);
        let on_error = self.on_error(&fields);
        Some(Step { span: node.span, id, label, timeout, on_error, secure, kind: body? })
    }

    /// Which kind a step is of, and the key that says so.
    fn kind_of(&mut self, node: &Node, entries: &[Entry]) -> Option<(&'static Place, Span)> {
        let named = |kind: &&Place| entries.iter().find(|entry| entry.key == kind_key(kind));
        let found: Vec<(&'static Place, &Entry)> =
            KINDS.iter().filter_map(|kind| Some((kind, named(&kind)?))).collect();
        let extra = match found.as_slice() {
            [] => {
                self.no_kind(node, entries);
                return None;
            }
            [only] => return Some((only.0, only.1.key_span)),
            [(action, entry), (_, second)] if kind_key(action) == "action" && second.key == "if" => {
                return Some((action, entry.key_span));
            }
            [first, second, ..] => (first.1, second.1),
        };
        let (first, second) = if extra.0.key_span.start <= extra.1.key_span.start { extra } else { (extra.1, extra.0) };
        let message = format!("this step is of two kinds, `{}` and `{}`", first.key, second.key);
        let help = match first.key.as_str() {
            "if" => format!("put the `{}` under `then:`", second.key),
            "foreach" | "until" => format!("put the `{}` under `do:`", second.key),
            _ => format!("make `{}` a step of its own", second.key),
        };
        let fault = self.error("WF0208", second.key_span, message).note(first.key_span, "the first kind").help(help);
        self.push(fault);
        None
    }

    fn no_kind(&mut self, node: &Node, entries: &[Entry]) {
        let kinds = || KINDS.iter().map(kind_key);
        let common: Vec<&str> = super::super::keys::COMMON.iter().map(|key| key.name).collect();
        let odd = entries.iter().filter(|entry| !common.contains(&entry.key.as_str()));
        let near = odd.clone().find_map(|entry| Some((entry, did_you_mean(&entry.key, kinds())?)));
        let dotted = odd.clone().find(|entry| entry.key.contains('.'));
        let at = near.map(|(entry, _)| entry).or(dotted).or(entries.first()).map_or(node.span, |entry| entry.key_span);
        let help = match (near, dotted) {
            (Some((_, kind)), _) => format!("did you mean `{kind}`?"),
            (None, Some(entry)) => format!("write `action: {}`, and its inputs under `with:`", shortened(&entry.key)),
            (None, None) => format!("one of: {}", kinds().collect::<Vec<_>>().join(", ")),
        };
        let fault = self.error("WF0207", at, "no key of this step says what it does").help(help);
        self.push(fault);
    }

    fn step_id(&mut self, fields: &Fields<'_>) -> Option<Name> {
        let id = self.id(fields, "id")?;
        if let Some(first) = self.ids.get(&id.text).copied() {
            let line = self.source.line_col(first.start).0;
            let fault =
                self.error("WF0205", id.span, format!("the id `{}` is taken by the step of line {line}", id.text));
            self.push(fault.note(first, "the first one").help("ids are unique in a flow, across all its branches"));
        } else {
            self.ids.insert(Arc::clone(&id.text), id.span);
        }
        Some(id)
    }

    fn on_error(&mut self, fields: &Fields<'_>) -> OnError {
        match fields.get("on_error") {
            Some(entry) if entry.value.scalar().is_none() => OnError::Steps(self.steps_of(entry)),
            _ => match self.one_of(fields, "on_error") {
                Some("continue") => OnError::Continue,
                _ => OnError::Fail,
            },
        }
    }

    fn body(&mut self, fields: &Fields<'_>) -> Option<StepKind> {
        Some(match kind_key(fields.place) {
            "action" => self.action(fields),
            "if" => {
                let condition = self.condition(fields, "if");
                let (then, otherwise) = (self.steps(fields, "then"), self.steps(fields, "else"));
                StepKind::If { condition: condition?, then, otherwise }
            }
            "switch" => {
                let on = self.cel(fields, "switch");
                let (cases, default) = (self.cases(fields), fields.get("default").map(|entry| self.steps_of(entry)));
                StepKind::Switch { on: on?, cases, default }
            }
            "foreach" => return self.foreach(fields),
            "until" => return self.until(fields),
            "try" => StepKind::Try { body: self.steps(fields, "try"), catch: self.catch(fields) },
            "parallel" => StepKind::Parallel {
                branches: self.branches(fields),
                join: if self.one_of(fields, "join") == Some("any") { Join::Any } else { Join::All },
            },
            "set" => StepKind::Set(self.cel_map(fields, "set")),
            "wait" => StepKind::Wait(self.wait(fields)?),
            "call" => StepKind::Call {
                flow: self.flow_name(fields, "call").unwrap_or_else(nameless),
                with: self.payload_map(fields, "with"),
            },
            "stop" => {
                let status = match self.one_of(fields, "stop") {
                    Some("failed") => StopStatus::Failed,
                    Some("cancelled") => StopStatus::Cancelled,
                    _ => StopStatus::Succeeded,
                };
                StepKind::Stop { status, reason: self.template(fields, "reason") }
            }
            _ => return self.waiting(fields),
        })
    }

    fn action(&mut self, fields: &Fields<'_>) -> StepKind {
        StepKind::Action {
            action: self.word(fields, "action").unwrap_or_else(nameless),
            connection: self.word(fields, "connection"),
            with: self.payload_map(fields, "with"),
            condition: self.condition(fields, "if"),
            retry: self.retry(fields),
            confirm: self.confirm(fields),
            approval: fields.get("approval").map(|entry| entry.key_span),
        }
    }

    fn retry(&mut self, fields: &Fields<'_>) -> Option<Retry> {
        let span = fields.get("retry")?.value.span;
        let inner = self.inner(fields, "retry")?;
        let on = self.words(&inner, "on");
        for class in on.iter().flatten() {
            let status = class.text.parse::<u16>().is_ok_and(|code| (400..=599).contains(&code));
            if !status && !matches!(&*class.text, "5xx" | "timeout" | "network") {
                let known = suggestion(&class.text, ["5xx", "timeout", "network"]);
                let help =
                    known.unwrap_or_else(|| "a status from 400 to 599, `5xx`, `timeout` or `network`".to_owned());
                let message = format!("`{}` is nothing that a call is tried again for", shortened(&class.text));
                let fault = self.error("WF0209", class.span, message).help(help);
                self.push(fault);
            }
        }
        let first = self.duration(&inner, "first").map(|(span, _)| span);
        let cap = self.duration(&inner, "cap").map(|(span, _)| span);
        Some(Retry { max: self.count(&inner, "max"), first, cap, on, span })
    }

    fn confirm(&mut self, fields: &Fields<'_>) -> Option<ConfirmSpec> {
        let span = fields.get("confirm")?.value.span;
        let inner = self.inner(fields, "confirm")?;
        let on_timeout = self.on_timeout(&inner, OnTimeout::Fail);
        let (timeout, _) = self.duration(&inner, "timeout")?;
        Some(ConfirmSpec { timeout, on_timeout, span })
    }

    fn on_timeout(&mut self, fields: &Fields<'_>, silent: OnTimeout) -> OnTimeout {
        match self.one_of(fields, "on_timeout") {
            Some("continue") => OnTimeout::Continue,
            Some("fail") => OnTimeout::Fail,
            Some("deny") => OnTimeout::Deny,
            Some("approve") => OnTimeout::Approve,
            _ => silent,
        }
    }

    fn cases(&mut self, fields: &Fields<'_>) -> Vec<(Name, Vec<Step>)> {
        let Some(entry) = fields.get("cases") else { return vec![] };
        let Kind::Map(cases) = &entry.value.kind else {
            let help = "write `cases: { Value: [ … ] }`".to_owned();
            self.wrong_kind(&entry.value, "`cases` is a map from values to steps", Some(help));
            return vec![];
        };
        if cases.is_empty() {
            self.empty(entry);
        }
        let mut out = Vec::with_capacity(cases.len());
        for case in cases {
            let steps = self.steps_of(case);
            out.push((Name { text: case.key.as_str().into(), span: case.key_span }, steps));
        }
        out
    }

    fn foreach(&mut self, fields: &Fields<'_>) -> Option<StepKind> {
        let list = self.cel(fields, "foreach");
        let once_per = self.duration(fields, "once_per");
        if let (Some((_, span)), None) = (once_per, fields.get("key")) {
            let fault = self.error("WF0217", span, "`once_per` needs `key`");
            self.push(fault.help("`key` says what makes an item the same item in another run"));
        }
        let item = self.id(fields, "as");
        let on_more = match self.one_of(fields, "on_more") {
            Some("first") => OnMore::First,
            Some("ask") => OnMore::Ask,
            _ => OnMore::Fail,
        };
        Some(StepKind::Foreach {
            item,
            key: self.cel(fields, "key"),
            once_per: once_per.map(|(span, _)| span),
            at_once: self.count(fields, "at_once").unwrap_or(1),
            max_items: self.count(fields, "max_items"),
            on_more,
            gather: self.one_of(fields, "on_item_error") == Some("gather"),
            body: self.steps(fields, "do"),
            collect: self.collect(fields),
            list: list?,
        })
    }

    fn collect(&mut self, fields: &Fields<'_>) -> Option<Collect> {
        let entry = fields.get("collect")?;
        match &entry.value.kind {
            Kind::Map(members) => Some(Collect::Map(self.cel_members("collect", members))),
            _ => self.cel(fields, "collect").map(Collect::One),
        }
    }

    fn until(&mut self, fields: &Fields<'_>) -> Option<StepKind> {
        let condition = self.condition(fields, "until");
        if fields.get("max").is_none() && fields.get("timeout").is_none() {
            let fault = self.error("WF0216", fields.at, "this loop has no end of its own");
            self.push(fault.help("add `max:` (passes) or `timeout:`"));
        }
        let (carry, next) = (self.cel_map(fields, "carry"), self.cel_map(fields, "next"));
        for (name, _) in next.iter().filter(|(name, _)| !carry.iter().any(|(known, _)| known.text == name.text)) {
            let help = suggestion(&name.text, carry.iter().map(|(known, _)| &*known.text));
            let message = format!("`next` gives `{}` a value, and `carry` does not have it", name.text);
            let fault = self.error("WF0217", name.span, message);
            self.push(fault.help(help.unwrap_or_else(|| "give its first value under `carry:`".to_owned())));
        }
        Some(StepKind::Until {
            every: self.duration(fields, "every").map(|(span, _)| span),
            max: self.count(fields, "max"),
            carry,
            next,
            body: self.steps(fields, "do"),
            condition: condition?,
        })
    }

    fn catch(&mut self, fields: &Fields<'_>) -> Vec<Catch> {
        let spans: Vec<Span> = match fields.get("catch").map(|entry| &entry.value.kind) {
            Some(Kind::List(items)) => items.iter().map(|item| item.span).collect(),
            _ => vec![],
        };
        let handlers = self.inner_list(fields, "catch");
        let lower = handlers.iter().zip(spans).map(|(handler, span)| Catch {
            when: self.condition(handler, "when"),
            body: self.steps(handler, "do"),
            span,
        });
        lower.collect()
    }

    fn branches(&mut self, fields: &Fields<'_>) -> Vec<Vec<Step>> {
        let Some(entry) = fields.get("parallel") else { return vec![] };
        let Kind::List(items) = &entry.value.kind else {
            self.wrong_kind(
                &entry.value,
                "`parallel` is a list of branches",
                Some("begin each branch with `- - `".to_owned()),
            );
            return vec![];
        };
        if items.is_empty() {
            self.empty(entry);
        }
        let mut out = Vec::with_capacity(items.len());
        for branch in items {
            match &branch.kind {
                Kind::List(steps) if !steps.is_empty() => {
                    out.push(steps.iter().filter_map(|step| self.step(step)).collect())
                }
                Kind::List(_) => {
                    let fault = self.error("WF0213", branch.span, "this branch is empty").help("leave it out");
                    self.push(fault);
                }
                _ => {
                    let help = "begin the first step of a branch with `- - ` and the others with `  - `".to_owned();
                    self.wrong_kind(branch, "a branch is a list of steps", Some(help));
                }
            }
        }
        out
    }

    fn wait(&mut self, fields: &Fields<'_>) -> Option<Wait> {
        let entry = fields.get("wait")?;
        match &entry.value.kind {
            Kind::Map(_) => {
                let inner = self.inner(fields, "wait")?;
                self.cel(&inner, "until").map(Wait::Until)
            }
            _ => self.duration_of("wait", &entry.value).map(|(span, _)| Wait::For(span)),
        }
    }

    /// The kinds that wait for a person or a signal.
    fn waiting(&mut self, fields: &Fields<'_>) -> Option<StepKind> {
        let kind = kind_key(fields.place);
        if kind == "respond" {
            let status = self.count(fields, kind).and_then(|status| u16::try_from(status).ok());
            return Some(StepKind::Respond { status: status.unwrap_or(200), body: self.payload(fields, "body") });
        }
        if fields.get("timeout").is_none() {
            let fault = self.error("WF0216", fields.at, format!("{} needs `timeout`", fields.place.name));
            self.push(
                fault.help("say how long to wait, such as `timeout: 8h`, and what silence means with `on_timeout:`"),
            );
        }
        if kind == "wait_for" {
            let on_timeout = self.on_timeout(fields, OnTimeout::Fail);
            return Some(StepKind::WaitFor {
                name: self.id(fields, kind)?,
                fields: self.declared(fields, "fields"),
                on_timeout,
            });
        }
        let to: Vec<Payload> = self.payloads(fields, "to");
        let question: Option<Text> = self.template(fields, kind);
        if kind == "approve" {
            let on_timeout = self.on_timeout(fields, OnTimeout::Deny);
            return Some(StepKind::Approve { question: question?, to, on_timeout });
        }
        let options = self.words(fields, "options").unwrap_or_default();
        Some(StepKind::Ask {
            question: question?,
            to,
            options: options.into_iter().map(|option| option.text.to_string()).collect(),
            fields: self.declared(fields, "fields"),
            on_timeout: self.on_timeout(fields, OnTimeout::Fail),
        })
    }
}
