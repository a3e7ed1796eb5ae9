//! Values with templates in their texts: `with:`, `body:`, `outputs:`, `to:`.

use super::super::model::{Name, Payload};
use super::Lowering;
use super::reader::Fields;
use crate::yaml::{Entry, Kind, Node, Style};

impl Lowering<'_> {
    pub(super) fn payload(&mut self, fields: &Fields<'_>, name: &str) -> Option<Payload> {
        let entry = fields.get(name)?;
        self.value(&entry.value)
    }

    pub(super) fn payload_map(&mut self, fields: &Fields<'_>, name: &str) -> Vec<(Name, Payload)> {
        let Some(entry) = fields.get(name) else { return vec![] };
        let Kind::Map(members) = &entry.value.kind else {
            self.wrong_kind(&entry.value, &format!("`{name}` is a map of names and values"), None);
            return vec![];
        };
        self.members(members)
    }

    pub(super) fn payloads(&mut self, fields: &Fields<'_>, name: &str) -> Vec<Payload> {
        let Some(entry) = fields.get(name) else { return vec![] };
        let Kind::List(items) = &entry.value.kind else {
            let help = entry.value.scalar().map(|_| format!("put it into brackets: `{name}: [ … ]`"));
            self.wrong_kind(&entry.value, &format!("`{name}` is a list"), help);
            return vec![];
        };
        if items.is_empty() {
            self.empty(entry);
        }
        items.iter().filter_map(|item| self.value(item)).collect()
    }

    fn members(&mut self, members: &[Entry]) -> Vec<(Name, Payload)> {
        let mut out = Vec::with_capacity(members.len());
        for member in members {
            if member.value.is_null() {
                let fault = self.error(
                    "WF0213",
                    member.key_span,
                    format!("`{}` has no value", super::reader::shortened(&member.key)),
                );
                self.push(fault.help("there is no null: leave the key out, or write `\"\"` for an empty text"));
            } else if let Some(value) = self.value(&member.value) {
                out.push((Name { text: member.key.as_str().into(), span: member.key_span }, value));
            }
        }
        out
    }

    pub(super) fn value(&mut self, node: &Node) -> Option<Payload> {
        let span = node.span;
        match &node.kind {
            Kind::List(items) => Some(Payload::List(items.iter().filter_map(|item| self.value(item)).collect(), span)),
            Kind::Map(members) => Some(Payload::Map(self.members(members), span)),
            Kind::Scalar(_) if node.is_null() => {
                let fault = self.error("WF0213", span, "this item has no value");
                self.push(fault.help("there is no null: leave the item out"));
                None
            }
            Kind::Scalar(scalar) if scalar.style == Style::Plain => match plain(&scalar.text) {
                Plain::Bool(value) => Some(Payload::Bool(value, span)),
                Plain::Int(value) => Some(Payload::Int(value, span)),
                Plain::Number(value) => Some(Payload::Number(value, span)),
                Plain::TooBig => {
                    let fault = self.error("WF0211", span, "this number does not fit into 64 bits");
                    self.push(fault.help("quote it if it is an id"));
                    None
                }
                Plain::Text => self.text(node).map(Payload::Text),
            },
            Kind::Scalar(_) => self.text(node).map(Payload::Text),
        }
    }
}

#[derive(Debug, PartialEq)]
enum Plain {
    Bool(bool),
    Int(i64),
    Number(f64),
    TooBig,
    Text,
}

/// What an unquoted scalar is. Only `true`, `false` and plain decimal numbers are typed: `no`, `010`, `12:30:45` and
/// `1e5` stay texts, as ids and times that people write must.
fn plain(text: &str) -> Plain {
    match text {
        "true" => return Plain::Bool(true),
        "false" => return Plain::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let decimal = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let whole = |part: &str| decimal(part) && (part == "0" || !part.starts_with('0'));
    match digits.split_once('.') {
        None if whole(digits) => text.parse().map_or(Plain::TooBig, Plain::Int),
        Some((before, after)) if whole(before) && decimal(after) => text.parse().map_or(Plain::Text, Plain::Number),
        _ => Plain::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_and_decimals_are_typed() {
        assert_eq!(plain("true"), Plain::Bool(true));
        assert_eq!(plain("-3"), Plain::Int(-3));
        assert_eq!(plain("1.50"), Plain::Number(1.5));
        assert_eq!(plain("99999999999999999999"), Plain::TooBig);
        for text in [
            "no",
            "on",
            "True",
            "010",
            "0x1f",
            "1e5",
            "12:30:45",
            "1_000",
            "+5",
            ".5",
            "5.",
            "1.2.3",
            "-",
            ".inf",
            "2026-11-20",
        ] {
            assert_eq!(plain(text), Plain::Text, "{text}");
        }
    }
}
