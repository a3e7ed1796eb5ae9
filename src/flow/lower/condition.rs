//! Conditions: CEL, or a tree of `all`, `any` and `none`.

use super::super::keys::TREE;
use super::super::model::Condition;
use super::Lowering;
use super::reader::Fields;
use crate::diag::suggestion;
use crate::yaml::{Kind, Node};

impl Lowering<'_> {
    pub(super) fn condition(&mut self, fields: &Fields<'_>, name: &str) -> Option<Condition> {
        let entry = fields.get(name)?;
        self.condition_of(name, &entry.value)
    }

    fn condition_of(&mut self, name: &str, node: &Node) -> Option<Condition> {
        match &node.kind {
            Kind::Scalar(_) => self.cel_of(name, node).map(Condition::Cel),
            Kind::List(_) => {
                let help = "put `all:` or `any:` above the list".to_owned();
                self.wrong_kind(node, &format!("`{name}` takes an expression or a tree"), Some(help));
                None
            }
            Kind::Map(entries) => self.tree(name, node, entries),
        }
    }

    fn tree(&mut self, name: &str, node: &Node, entries: &[crate::yaml::Entry]) -> Option<Condition> {
        let [entry] = entries else {
            let at = entries.get(1).map_or(node.span, |entry| entry.key_span);
            let fault =
                self.error("WF0203", at, format!("a condition of `{name}` has exactly one of `all`, `any`, `none`"));
            self.push(fault.help("put one of them into the list of the other"));
            return None;
        };
        if TREE.key(&entry.key).is_none() {
            let near = suggestion(&entry.key, TREE.keys().map(|key| key.name));
            let fault = self.error(
                "WF0201",
                entry.key_span,
                format!("a condition of `{name}` is a text, or one of `all`, `any`, `none`"),
            );
            let help =
                near.unwrap_or_else(|| "YAML reads the `: ` in it as a key: quote the whole condition".to_owned());
            self.push(fault.help(help));
            return None;
        }
        let Kind::List(items) = &entry.value.kind else {
            self.wrong_kind(&entry.value, &format!("`{}` is a list of conditions", entry.key), None);
            return None;
        };
        if items.is_empty() {
            self.empty(entry);
        }
        let parts = items.iter().filter_map(|item| self.condition_of(&entry.key, item)).collect();
        Some(match entry.key.as_str() {
            "all" => Condition::All(parts, node.span),
            "any" => Condition::Any(parts, node.span),
            _ => Condition::None(parts, node.span),
        })
    }
}
