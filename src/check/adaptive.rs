//! A card as a YAML file: its shape is the author's and is fixed when the flow is loaded. Templates stand in its texts
//! alone, so that no value can become shape, whatever is in it.

use std::sync::Arc;

use super::cx::Checker;
use super::payload::{fold_list, fold_map};
use super::program::Dyn;
use crate::catalog::Context;
use crate::diag::{Diagnostic, Source, Span};
use crate::flow;
use crate::flow::model::{Name, Payload};
use crate::value::Value;

/// Whether a card file is YAML; any other is a template of JSON text.
pub(super) fn is_yaml(path: &str) -> bool {
    path.ends_with(".yaml") || path.ends_with(".yml")
}

/// Whether a file among flows is a card by its name. Every other YAML file there is a flow.
pub fn is_card(name: &str) -> bool {
    name.ends_with(".card.yaml") || name.ends_with(".card.yml")
}

impl Checker<'_> {
    /// Faults are told in the card's own file.
    pub(super) fn card_file(&mut self, path: &str, text: &str) -> Option<Dyn> {
        let source = Source::new(path, text);
        let (card, faults) = flow::read_value(&source);
        self.failed |= card.is_none();
        self.found.extend(faults);
        let card = card?;
        let Payload::Map(members, span) = &card else {
            return self.no_card(&source, card.span(), "a card is a map");
        };
        let member = |name: &str| members.iter().find(|(known, _)| &*known.text == name).map(|(_, value)| value);
        if !matches!(member("type"), Some(Payload::Text(text)) if text.text == "AdaptiveCard") {
            let span = member("type").map_or(Span::new(span.start, span.start), Payload::span);
            return self.no_card(&source, span, "a card has `type: AdaptiveCard` at its top");
        }
        if let Some(Payload::Int(_, span) | Payload::Number(_, span)) = member("version") {
            return self.no_card(&source, *span, "the `version` of a card is text: write it in quotes");
        }
        self.card_part(&source, &card)
    }

    fn no_card(&mut self, source: &Arc<Source>, span: Span, why: &str) -> Option<Dyn> {
        self.failed = true;
        let fault = Diagnostic::error("WF0401", source, span, why);
        self.found.push(fault.help("adaptivecards.io/explorer shows what a card is made of"));
        None
    }

    fn card_part(&mut self, source: &Arc<Source>, part: &Payload) -> Option<Dyn> {
        match part {
            Payload::Bool(value, _) => Some(Dyn::Const(Value::Bool(*value))),
            Payload::Int(value, _) => Some(Dyn::Const(Value::Int(*value))),
            Payload::Number(value, _) => Some(Dyn::Const(Value::Number(*value))),
            Payload::Text(text) => {
                let template = self.text_of_file(source, text, Context::Card)?;
                Some(if template.is_plain() { Dyn::Const(Value::str(&text.text)) } else { Dyn::Text(template) })
            }
            // Every part is looked at, so that all faults are told at once.
            Payload::List(items, _) => {
                let items: Vec<Option<Dyn>> = items.iter().map(|item| self.card_part(source, item)).collect();
                items.into_iter().collect::<Option<_>>().map(fold_list)
            }
            Payload::Map(members, _) => {
                let one =
                    |(name, value): &(Name, Payload)| Some((Arc::clone(&name.text), self.card_part(source, value)?));
                let members: Vec<Option<(Arc<str>, Dyn)>> = members.iter().map(one).collect();
                members.into_iter().collect::<Option<_>>().map(fold_map)
            }
        }
    }
}
