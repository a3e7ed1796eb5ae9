//! Schemas of an OpenAPI document as types of ours. What has no type of ours is `any`, and is said.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::names::{line, pascal, unique};

/// Objects within objects that become types; deeper ones are `any`.
const MAX_DEPTH: usize = 8;
const MAX_ENTITIES: usize = 2_000;
/// Words of an enum that are written out, and the longest of them.
const MAX_WORDS: usize = 60;

/// A type of the file that is written: fields with their types and sentences.
pub(super) type Fields = BTreeMap<String, (String, String)>;

pub(super) struct Types<'a> {
    pub(super) document: &'a Json,
    /// Types by name, with the sentence that describes each.
    pub(super) entities: BTreeMap<String, (String, Fields)>,
    /// Types by the reference that they were made of; those that are being made are there already.
    by_reference: BTreeMap<String, Option<String>>,
    taken: BTreeSet<String>,
    /// What was lost on the way, once each.
    pub(super) lost: BTreeSet<String>,
}

impl<'a> Types<'a> {
    pub(super) fn new(document: &'a Json) -> Self {
        Types {
            document,
            entities: BTreeMap::new(),
            by_reference: BTreeMap::new(),
            taken: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    /// What a reference leads to, within the document alone.
    ///
    /// # Errors
    /// One sentence where it leads elsewhere, nowhere, or in a circle.
    pub(super) fn resolved(&self, json: &'a Json) -> Result<&'a Json, String> {
        let mut found = json;
        for _ in 0..32 {
            let Some(reference) = found.get("$ref") else { return Ok(found) };
            let reference = reference.as_str().unwrap_or("");
            let Some(pointer) = reference.strip_prefix('#') else {
                return Err(format!("{} is outside of the document", line(reference, 100)));
            };
            found = self
                .document
                .pointer(&super::openapi::unescaped(pointer))
                .ok_or_else(|| format!("{} leads nowhere", line(reference, 100)))?;
        }
        Err("its references go in a circle".into())
    }

    /// The type of a schema, and `near` for the name of one that has none of its own.
    pub(super) fn of(&mut self, schema: &'a Json, near: &str, depth: usize) -> String {
        if depth > MAX_DEPTH {
            self.lost.insert("objects lie deeper than 8 levels: those are any".into());
            return "any".into();
        }
        let reference = schema.get("$ref").and_then(Json::as_str).map(str::to_owned);
        if let Some(known) = reference.as_ref().and_then(|reference| self.by_reference.get(reference)) {
            return known.clone().unwrap_or_else(|| {
                self.lost.insert("an object holds one of its own kind: that one is any".into());
                "any".into()
            });
        }
        let found = match self.resolved(schema) {
            Ok(found) => found,
            Err(why) => {
                self.lost.insert(why);
                return "any".into();
            }
        };
        let near = match &reference {
            Some(reference) => pascal(reference.rsplit('/').next().unwrap_or(near)),
            None => near.to_owned(),
        };
        if let Some(reference) = &reference {
            self.by_reference.insert(reference.clone(), None);
        }
        let ty = self.plain(found, &near, depth);
        if let Some(reference) = reference {
            self.by_reference.insert(reference, Some(ty.clone()));
        }
        ty
    }

    fn plain(&mut self, schema: &'a Json, near: &str, depth: usize) -> String {
        if let Some(words) = schema.get("enum").and_then(Json::as_array)
            && let Some(ty) = self.words(words)
        {
            return ty;
        }
        if schema.get("oneOf").or_else(|| schema.get("anyOf")).is_some() {
            return self.choice(schema, near, depth);
        }
        match kind(schema) {
            "string" if schema.get("format").and_then(Json::as_str) == Some("date-time") => "datetime".into(),
            "string" => "string".into(),
            "integer" => "int".into(),
            "number" => "number".into(),
            "boolean" => "bool".into(),
            "array" => match schema.get("items") {
                Some(items) => format!("list<{}>", self.of(items, &format!("{near}Item"), depth + 1)),
                None => "list<any>".into(),
            },
            "object" => self.object(schema, near, depth),
            _ => "any".into(),
        }
    }

    /// One of several is `any`, but for one that may be null.
    fn choice(&mut self, schema: &'a Json, near: &str, depth: usize) -> String {
        let list = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Json::as_array);
        let real: Vec<&Json> = list.into_iter().flatten().filter(|one| kind(one) != "null").collect();
        match real.as_slice() {
            [only] => self.of(only, near, depth + 1),
            _ => {
                self.lost.insert(format!("{near} is one of several kinds: it is any"));
                "any".into()
            }
        }
    }

    fn words(&mut self, words: &[Json]) -> Option<String> {
        let texts: Vec<&str> = words.iter().filter_map(Json::as_str).collect();
        let real = words.iter().filter(|word| !word.is_null()).count();
        let plain = |word: &&str| {
            !word.is_empty()
                && word.len() <= 60
                && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:/ ".contains(c))
        };
        let fits = texts.len() == real && (1..=MAX_WORDS).contains(&real) && texts.iter().all(plain);
        let length: usize = texts.iter().map(|word| word.len() + 1).sum();
        if !fits || length > 1500 {
            if real > 0 && texts.len() == real {
                self.lost.insert("a long or unusual list of words is a plain string".into());
                return Some("string".into());
            }
            return None;
        }
        Some(format!("enum<{}>", texts.join("|")))
    }

    fn object(&mut self, schema: &'a Json, near: &str, depth: usize) -> String {
        let mut properties: Vec<(&'a String, &'a Json)> = vec![];
        self.properties(schema, &mut properties, 0);
        if properties.is_empty() {
            return match schema.get("additionalProperties") {
                Some(Json::Object(values)) if !values.is_empty() => {
                    let values = schema.get("additionalProperties").unwrap_or(schema);
                    format!("map<{}>", self.of(values, &format!("{near}Value"), depth + 1))
                }
                _ => "map<any>".into(),
            };
        }
        if self.entities.len() >= MAX_ENTITIES {
            self.lost.insert("there are more than 2,000 kinds of objects: the others are maps".into());
            return "map<any>".into();
        }
        let name = unique(pascal(near), &mut self.taken);
        let doc =
            schema.get("description").and_then(Json::as_str).map_or_else(|| format!("{name}."), |text| line(text, 300));
        // There before its fields are, so that their number is bounded on the way down too.
        self.entities.insert(name.clone(), (doc, Fields::new()));
        let mut fields = Fields::new();
        for (key, value) in properties {
            let ty = self.of(value, &format!("{name}_{key}"), depth + 1);
            let doc = self.resolved(value).ok().and_then(|found| found.get("description")).and_then(Json::as_str);
            fields.insert(key.clone(), (ty, doc.map_or_else(|| format!("{key}."), |text| line(text, 200))));
        }
        if let Some((_, known)) = self.entities.get_mut(&name) {
            *known = fields;
        }
        name
    }

    /// The properties of an object and of all that it is made of.
    pub(super) fn properties(&self, schema: &'a Json, found: &mut Vec<(&'a String, &'a Json)>, depth: usize) {
        let Ok(schema) = self.resolved(schema) else { return };
        if depth > MAX_DEPTH {
            return;
        }
        for part in schema.get("allOf").and_then(Json::as_array).into_iter().flatten() {
            self.properties(part, found, depth + 1);
        }
        for (key, value) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            found.retain(|(known, _)| *known != key);
            found.push((key, value));
        }
    }
}

/// `type`, which in OpenAPI 3.1 may be a list with null; told by its members where it is not said.
pub(super) fn kind(schema: &Json) -> &str {
    let said = match schema.get("type") {
        Some(Json::String(kind)) => Some(kind.as_str()),
        Some(Json::Array(kinds)) => kinds.iter().filter_map(Json::as_str).find(|kind| *kind != "null"),
        _ => None,
    };
    said.unwrap_or_else(|| {
        let has = |key: &str| schema.get(key).is_some();
        match () {
            () if has("properties") || has("allOf") || has("additionalProperties") => "object",
            () if has("items") => "array",
            () => "",
        }
    })
}
