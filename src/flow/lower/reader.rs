//! Maps with known keys, and the small values in them. Which keys a place has, and which words and numbers a key takes,
//! comes from `flow::keys` alone.

use std::sync::Arc;
use std::time::Duration;

use super::super::keys::{COMMON, FLOW, KINDS, Place, Want, kind_key};
use super::super::model::Name;
use super::super::words;
use super::Lowering;
use crate::diag::{Diagnostic, Span, did_you_mean, suggestion};
use crate::yaml::{Entry, Kind, Node, Style};

/// A map whose keys were looked at.
pub(super) struct Fields<'n> {
    pub(super) place: &'static Place,
    /// Where faults of the whole place are shown: the key that it stands under.
    pub(super) at: Span,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// The entry of a key that has a value.
    pub(super) fn get(&self, name: &str) -> Option<&'n Entry> {
        debug_assert!(self.place.key(name).is_some(), "{} has no key {name}", self.place.name);
        self.entries.iter().find(|entry| entry.key == name && !entry.value.is_null())
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &'n Entry> + use<'n> {
        self.entries.iter()
    }

    fn want(&self, name: &str) -> Option<Want> {
        self.place.key(name).map(|key| key.want)
    }
}

impl Lowering<'_> {
    pub(super) fn error(&self, code: &'static str, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, self.source, span, message)
    }

    pub(super) fn push(&mut self, fault: Diagnostic) {
        self.faults.push(fault);
    }

    pub(super) fn wrong_kind(&mut self, node: &Node, wanted: &str, help: Option<String>) {
        let span = self.first_line(node.span);
        let fault = self.error("WF0203", span, format!("{wanted}, not {}", node.describe())).help_opt(help);
        self.push(fault);
    }

    /// A span cut at the end of its first line: enough to show where a block begins.
    fn first_line(&self, span: Span) -> Span {
        let text = self.source.text.get(span.start..span.end).unwrap_or("");
        Span::new(span.start, span.start + text.lines().next().unwrap_or("").len())
    }

    /// Looks at a map: unknown, empty and missing keys are reported. What is no map gives an empty one.
    pub(super) fn open<'n>(&mut self, node: &'n Node, place: &'static Place, at: Option<Span>) -> Fields<'n> {
        let Kind::Map(entries) = &node.kind else {
            self.wrong_kind(node, &format!("{} is a map", place.name), None);
            return Fields { place, at: at.unwrap_or(node.span), entries: &[] };
        };
        let at = at.or(entries.first().map(|entry| entry.key_span)).unwrap_or(node.span);
        let mut cut = false;
        for entry in entries {
            match place.key(&entry.key) {
                None if cut && !words::is_member(&entry.key) => {}
                None => self.unknown_key(place, entry),
                Some(key) if entry.value.is_null() => {
                    let fault = self.error("WF0213", entry.key_span, format!("`{}` has no value", key.name));
                    let choice = if key.required { "" } else { "leave it out, or " };
                    let help = format!("{choice}give it {}", wanted(key.want));
                    self.push(fault.help(help));
                }
                Some(_) => {}
            }
            // The rest of a condition that YAML cut in two stands here as a key; the condition says so.
            cut = entry
                .value
                .scalar()
                .is_some_and(|value| value.style == Style::Plain && super::text::ends_inside(&value.text));
        }
        for key in place.keys().filter(|key| key.required) {
            if !entries.iter().any(|entry| entry.key == key.name) {
                let near = entries.iter().filter(|entry| place.key(&entry.key).is_none());
                let misspelt = near.into_iter().any(|entry| did_you_mean(&entry.key, [key.name]).is_some());
                if !misspelt {
                    let fault = self.error("WF0202", at, format!("{} needs `{}`", place.name, key.name));
                    self.push(fault.help(format!("`{}:` {}", key.name, key.doc)));
                }
            }
        }
        Fields { place, at, entries }
    }

    fn unknown_key(&mut self, place: &'static Place, entry: &Entry) {
        let known = || place.keys().map(|key| key.name);
        let help = suggestion(&entry.key, known()).or_else(|| {
            let elsewhere = KINDS.iter().find(|kind| kind.keys.iter().any(|key| key.name == entry.key));
            let step = COMMON.iter().any(|key| key.name == entry.key);
            match elsewhere {
                Some(kind) if kind_key(kind) == entry.key => {
                    Some(format!("`{}` is {}: it stands in a list of steps", entry.key, kind.name))
                }
                Some(kind) => Some(format!("`{}` belongs to {}", entry.key, kind.name)),
                None if step => Some(format!("`{}` belongs to a step", entry.key)),
                None if FLOW.key(&entry.key).is_some() => Some(format!("`{}` stands at the top of a flow", entry.key)),
                None => {
                    let all: Vec<&str> = known().collect();
                    (all.len() <= 14).then(|| format!("known keys: {}", all.join(", ")))
                }
            }
        });
        let message = format!("`{}` is not a key of {}", shortened(&entry.key), place.name);
        let fault = self.error("WF0201", entry.key_span, message).help_opt(help);
        self.push(fault);
    }

    /// The map under a key that takes one.
    pub(super) fn inner<'n>(&mut self, fields: &Fields<'n>, name: &str) -> Option<Fields<'n>> {
        let entry = fields.get(name)?;
        match fields.want(name) {
            Some(Want::In(place) | Want::DurationOr(place)) => {
                Some(self.open(&entry.value, place, Some(entry.key_span)))
            }
            _ => None,
        }
    }

    /// The maps of the list under a key that takes one.
    pub(super) fn inner_list<'n>(&mut self, fields: &Fields<'n>, name: &str) -> Vec<Fields<'n>> {
        let (Some(entry), Some(Want::ListOf(place))) = (fields.get(name), fields.want(name)) else { return vec![] };
        let Kind::List(items) = &entry.value.kind else {
            self.wrong_kind(&entry.value, &format!("`{name}` is a list"), None);
            return vec![];
        };
        if items.is_empty() {
            self.empty(entry);
        }
        items.iter().map(|item| self.open(item, place, None)).collect()
    }

    pub(super) fn empty(&mut self, entry: &Entry) {
        let fault = self.error("WF0213", entry.key_span, format!("`{}` is empty", entry.key));
        self.push(fault.help("leave it out, or say what belongs there"));
    }

    /// A scalar's text in any style.
    pub(super) fn scalar_text<'n>(&mut self, key: &str, node: &'n Node) -> Option<&'n str> {
        match node.scalar() {
            Some(scalar) => Some(&scalar.text),
            None => {
                self.wrong_kind(node, &format!("`{key}` is a text"), None);
                None
            }
        }
    }

    pub(super) fn plain(&mut self, fields: &Fields<'_>, name: &str) -> Option<String> {
        let entry = fields.get(name)?;
        self.scalar_text(name, &entry.value).map(str::to_owned)
    }

    pub(super) fn word(&mut self, fields: &Fields<'_>, name: &str) -> Option<Name> {
        let entry = fields.get(name)?;
        let text = self.scalar_text(name, &entry.value)?;
        if text.is_empty() || text.contains(char::is_whitespace) || text.contains("{{") {
            let fault =
                self.error("WF0204", entry.value.span, format!("`{name}` takes a name, without spaces or templates"));
            self.push(fault);
            return None;
        }
        Some(Name { text: text.into(), span: self.inside(&entry.value) })
    }

    pub(super) fn flow_name(&mut self, fields: &Fields<'_>, name: &str) -> Option<Name> {
        let entry = fields.get(name)?;
        let text = self.scalar_text(name, &entry.value)?;
        if !words::is_flow_name(text) {
            let message = format!("`{}` is not a flow's name", shortened(text));
            let fault = self.error("WF0204", entry.value.span, message);
            let mended = mend(text, '-');
            let help = if words::is_flow_name(&mended) {
                format!("write `{mended}`")
            } else {
                "small letters, digits, `-` and `_`".into()
            };
            self.push(fault.help(help));
        }
        Some(Name { text: text.into(), span: self.inside(&entry.value) })
    }

    /// A name that expressions read.
    pub(super) fn id(&mut self, fields: &Fields<'_>, name: &str) -> Option<Name> {
        let entry = fields.get(name)?;
        let text = self.scalar_text(name, &entry.value)?;
        self.check_id(text, entry.value.span);
        Some(Name { text: text.into(), span: self.inside(&entry.value) })
    }

    pub(super) fn check_id(&mut self, text: &str, span: Span) {
        if !words::is_id(text) {
            let mended = mend(text, '_');
            let help = match words::is_id(&mended) && words::taken(&mended).is_none() {
                true => format!("write `{mended}`: a small letter, then small letters, digits and `_`"),
                false => "a small letter, then small letters, digits and `_`".to_owned(),
            };
            let message = format!("`{}` cannot be read as a name by conditions and templates", shortened(text));
            let fault = self.error("WF0204", span, message).help(help);
            self.push(fault);
        } else if let Some(what) = words::taken(text) {
            let fault = self.error("WF0206", span, format!("`{text}` is {what}"));
            self.push(fault.help(format!("choose another name, such as `the_{text}`")));
        }
    }

    pub(super) fn flag(&mut self, fields: &Fields<'_>, name: &str) -> Option<bool> {
        let entry = fields.get(name)?;
        match entry.value.scalar() {
            Some(scalar) if scalar.style == Style::Plain && scalar.text == "true" => Some(true),
            Some(scalar) if scalar.style == Style::Plain && scalar.text == "false" => Some(false),
            _ => {
                let fault =
                    self.error("WF0212", self.first_line(entry.value.span), format!("`{name}` is `true` or `false`"));
                self.push(fault.help("`yes`, `no`, `on`, `off` and quoted words are texts here"));
                None
            }
        }
    }

    pub(super) fn count(&mut self, fields: &Fields<'_>, name: &str) -> Option<u32> {
        let entry = fields.get(name)?;
        let Some(Want::Count(from, to)) = fields.want(name) else { return None };
        let scalar = entry.value.scalar();
        let digits = scalar.filter(|s| s.style == Style::Plain).map(|s| s.text.as_str()).filter(|s| is_digits(s));
        let number = digits.and_then(|digits| digits.parse::<u32>().ok()).filter(|n| (from..=to).contains(n));
        if number.is_none() {
            let message = format!("`{name}` is a whole number from {from} to {to}");
            let fault = self.error("WF0211", self.first_line(entry.value.span), message);
            let quoted = scalar.is_some_and(|s| s.style != Style::Plain && is_digits(&s.text));
            self.push(fault.help_opt(quoted.then(|| "write it without quotes".to_owned())));
        }
        number
    }

    pub(super) fn duration(&mut self, fields: &Fields<'_>, name: &str) -> Option<(Duration, Span)> {
        let entry = fields.get(name)?;
        self.duration_of(name, &entry.value)
    }

    pub(super) fn duration_of(&mut self, name: &str, node: &Node) -> Option<(Duration, Span)> {
        let text = self.scalar_text(name, node)?;
        let found = words::duration(text.trim());
        if found.is_none() {
            let fault = self.error("WF0210", node.span, format!("`{}` is not a duration", shortened(text)));
            let help = match is_digits(text) && text != "0" {
                true => format!("say the unit: `{text}s`, `{text}m`, `{text}h` or `{text}d`"),
                false => "a whole number above zero and `ms`, `s`, `m`, `h` or `d`: `30m`, `4h`, `7d`".to_owned(),
            };
            self.push(fault.help(help));
        }
        Some((found?, node.span))
    }

    /// One of the words that the key's table gives.
    pub(super) fn one_of(&mut self, fields: &Fields<'_>, name: &str) -> Option<&'static str> {
        let entry = fields.get(name)?;
        let Some(Want::OneOf(choices) | Want::OneOfOrSteps(choices)) = fields.want(name) else { return None };
        let text = self.scalar_text(name, &entry.value)?;
        let found = choices.iter().copied().find(|word| *word == text);
        if found.is_none() {
            let message = format!("`{}` is not a value of `{name}`", shortened(text));
            let help =
                suggestion(text, choices.iter().copied()).unwrap_or_else(|| format!("one of: {}", choices.join(", ")));
            let fault = self.error("WF0209", entry.value.span, message).help(help);
            self.push(fault);
        }
        found
    }

    /// A list of short texts.
    pub(super) fn words(&mut self, fields: &Fields<'_>, name: &str) -> Option<Vec<Name>> {
        let entry = fields.get(name)?;
        let Kind::List(items) = &entry.value.kind else {
            let help = entry.value.scalar().map(|scalar| format!("write `{name}: [{}]`", scalar.text));
            self.wrong_kind(&entry.value, &format!("`{name}` is a list"), help);
            return None;
        };
        if items.is_empty() {
            self.empty(entry);
        }
        let texts = items.iter().filter_map(|item| {
            let text: Arc<str> = self.scalar_text(name, item)?.into();
            Some(Name { text, span: self.inside(item) })
        });
        Some(texts.collect())
    }
}

/// What a key takes, for help lines.
fn wanted(want: Want) -> &'static str {
    match want {
        Want::Steps => "a list of steps",
        Want::Duration => "a duration such as `30m`",
        Want::Bool => "`true` or `false`",
        Want::Count(..) => "a whole number",
        Want::Condition | Want::Cel => "an expression",
        Want::In(_) | Want::CelMap | Want::PayloadMap | Want::Fields | Want::Cases => "a map",
        Want::ListOf(_) | Want::Words | Want::Branches | Want::Payloads => "a list",
        _ => "a value",
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() && (text == "0" || !text.starts_with('0'))
}

/// A person's text in a message: not longer than a line bears.
pub(super) fn shortened(text: &str) -> String {
    if text.chars().count() <= 60 { text.to_owned() } else { text.chars().take(57).chain("…".chars()).collect() }
}

fn mend(text: &str, joint: char) -> String {
    let stem = text.trim().trim_end_matches(".yaml").trim_end_matches(".yml");
    let lower = stem.rsplit('/').next().unwrap_or(stem).to_lowercase();
    lower.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { joint }).collect()
}
