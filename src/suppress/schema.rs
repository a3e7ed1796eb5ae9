//! JSON Schema (draft-07) of suppression rules, from the tables that reading uses.

use serde_json::{Map, Value as Json, json};

use super::pattern::LONGEST;
use super::read::{ALLOW, INDICATORS, KEYS, KIND, RESOLVE, ROLES, SCOPE};
use crate::triage::{evidence, source, verdict};

/// The schema that `watchfloor schema suppression` prints.
pub fn json_schema() -> Json {
    let text = json!({ "type": "string", "minLength": 1, "maxLength": LONGEST });
    let patterns = json!({ "anyOf": [text, { "type": "array", "items": text }], "description": "values, in any case; `*` stands for any text" });
    let object = |names: &[&str], of: &dyn Fn(&str) -> Json| {
        let members: Map<String, Json> = names.iter().map(|name| ((*name).to_owned(), of(name))).collect();
        json!({ "type": "object", "properties": members, "additionalProperties": false })
    };
    let listed = json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/definitions/condition" } });
    let mut kinds = Map::from_iter([("all".to_owned(), listed.clone()), ("any".to_owned(), listed)]);
    for kind in evidence::KINDS {
        let names: Vec<&str> = kind.fields.iter().map(|field| field.name).chain(["role"]).collect();
        let role = json!({ "anyOf": [{ "enum": ROLES }, patterns], "description": "its part in the alert's story" });
        let of = |name: &str| if name == "role" { role.clone() } else { patterns.clone() };
        kinds.insert(kind.name.to_owned(), object(&names, &of));
    }
    let condition = json!({
        "type": "object", "properties": kinds, "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
        "description": "one piece of evidence, or a group of conditions",
    });
    let classes: Vec<&str> = verdict::PAIRS.iter().map(|(word, _)| *word).collect();
    let sources: Vec<&str> = source::PREFIXES.iter().map(|(_, _, word, _)| *word).chain(source::names()).collect();
    let kind = object(&KIND, &|name| {
        if name == "source" { json!({ "anyOf": [{ "enum": sources }, patterns] }) } else { patterns.clone() }
    });
    let resolve =
        object(&RESOLVE, &|name| if name == "classification" { json!({ "enum": classes }) } else { text.clone() });
    let allow = object(&ALLOW, &|name| match name {
        "type" => json!({ "enum": INDICATORS }),
        "groups" => patterns.clone(),
        _ => text.clone(),
    });
    let of = |name: &str| match name {
        "suppression" => json!({ "type": "string", "pattern": "^[a-z0-9-]{1,64}$", "description": "the rule's name" }),
        "comment" => json!({ "type": "string", "maxLength": LONGEST, "description": "why these alerts are harmless" }),
        "owner" => json!({ "type": "string", "description": "who answers for it" }),
        "expires" => json!({ "type": "string", "description": "when it ends: a date, or an instant" }),
        "alert" => json!({ "anyOf": [{ "const": "any" }, kind], "description": "which type of alert" }),
        "scope" => {
            json!({ "anyOf": [{ "const": "organisation" }, object(&SCOPE, &|_| patterns.clone())], "description": "where it holds; the organisation by default" })
        }
        "evidence" => {
            json!({ "allOf": [{ "$ref": "#/definitions/condition" }], "description": "what the alert's evidence must say" })
        }
        "action" => {
            json!({ "anyOf": [{ "const": "ignore" }, { "type": "object", "properties": { "resolve": resolve }, "required": ["resolve"], "additionalProperties": false }] })
        }
        _ => json!({ "type": "array", "items": allow, "description": "indicators to allow with it" }),
    };
    let mut root = object(&KEYS, &of);
    root["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    root["title"] = json!("watchfloor suppression rule");
    root["required"] = json!(["suppression", "comment", "owner", "expires", "alert", "action"]);
    root["definitions"] = json!({ "condition": condition });
    root
}
