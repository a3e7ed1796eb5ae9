//! Declared fields: `inputs:`, `fields:`.

use std::sync::Arc;

use super::super::keys::FIELD;
use super::super::model::{FieldDecl, Name};
use super::super::words;
use super::Lowering;
use super::reader::{Fields, shortened};
use crate::catalog::{EnumType, Type};
use crate::diag::{Span, did_you_mean};
use crate::yaml::{Entry, Kind};

impl Lowering<'_> {
    pub(super) fn declared(&mut self, fields: &Fields<'_>, name: &str) -> Vec<FieldDecl> {
        let Some(entry) = fields.get(name) else { return vec![] };
        let Kind::Map(members) = &entry.value.kind else {
            let help = format!("write `{name}: {{ name: string }}`");
            self.wrong_kind(&entry.value, &format!("`{name}` is a map of names and types"), Some(help));
            return vec![];
        };
        members.iter().filter_map(|member| self.declaration(member)).collect()
    }

    fn declaration(&mut self, member: &Entry) -> Option<FieldDecl> {
        if !words::is_member(&member.key) {
            let message = format!("`{}` cannot be read as a field", shortened(&member.key));
            let fault =
                self.error("WF0204", member.key_span, message).help("a letter or `_`, then letters, digits and `_`");
            self.push(fault);
        }
        let name = Name { text: member.key.as_str().into(), span: member.key_span };
        if member.value.is_null() {
            let fault = self.error("WF0213", member.key_span, format!("`{}` has no type", shortened(&member.key)));
            self.push(fault.help("write its type, such as `string`"));
            return None;
        }
        if let Some(scalar) = member.value.scalar() {
            let ty = self.declared_type(&scalar.text, member.value.span)?;
            return Some(FieldDecl { name, ty, required: true, default: None, doc: None, timezone: None });
        }
        let fields = self.open(&member.value, &FIELD, Some(member.key_span));
        let ty = match self.plain(&fields, "type") {
            Some(text) => {
                self.declared_type(&text, fields.get("type").map_or(member.value.span, |entry| entry.value.span))
            }
            None => None,
        };
        let values = self.words(&fields, "enum");
        let default = fields.get("default");
        let required = self.flag(&fields, "required");
        if let (Some(true), Some(default)) = (required, default) {
            let fault = self.error(
                "WF0217",
                default.key_span,
                format!("`{}` is required, so its default is never used", member.key),
            );
            self.push(fault.help("leave out one of the two"));
        }
        let doc = self.plain(&fields, "description");
        let timezone = self.word(&fields, "timezone").map(|zone| zone.text.to_string());
        let ty = match (ty?, values) {
            (Type::String, Some(values)) => Type::Enum(Arc::new(EnumType {
                name: Arc::clone(&name.text),
                values: values.into_iter().map(|value| value.text).collect(),
            })),
            (other, Some(_)) => {
                let at = fields.get("enum").map_or(member.key_span, |entry| entry.key_span);
                let fault = self.error("WF0217", at, format!("`enum` is for strings, and `{}` is {other}", member.key));
                self.push(fault.help("write `type: string`, or leave `enum` out"));
                return None;
            }
            (ty, None) => ty,
        };
        let required = required.unwrap_or(default.is_none());
        Some(FieldDecl { name, ty, required, default: default.map(|entry| entry.value.clone()), doc, timezone })
    }

    fn declared_type(&mut self, text: &str, span: Span) -> Option<Type> {
        let found = words::declared_type(text);
        if found.is_none() {
            let habits = [
                ("str", "string"),
                ("text", "string"),
                ("integer", "int"),
                ("boolean", "bool"),
                ("float", "number"),
                ("double", "number"),
                ("date", "datetime"),
                ("timestamp", "datetime"),
                ("array", "list of any"),
                ("object", "map of any"),
            ];
            let lower = text.to_lowercase();
            let meant = habits.iter().find(|(habit, _)| *habit == lower).map(|(_, ty)| *ty);
            let meant = meant.or_else(|| did_you_mean(text, words::SCALAR_TYPES));
            let help = match meant {
                Some(ty) => format!("did you mean `{ty}`?"),
                None => format!("one of: {}, or `list of` or `map of` one of them", words::SCALAR_TYPES.join(", ")),
            };
            let fault = self.error("WF0215", span, format!("`{}` is not a type", shortened(text))).help(help);
            self.push(fault);
        }
        found
    }
}
