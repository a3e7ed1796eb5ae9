//! JSON Schema (draft-07) of flow files, from the same tables of keys that lowering uses.
//!
//! Editors use it for completion and first faults; `check` alone knows types, names and scope.

use serde_json::{Map, Value, json};

use super::keys::{FIELD, FLOW, KINDS, Place, TREE, Want, kind_key};
use super::words;

/// The schema that `watchfloor schema` prints.
pub fn json_schema() -> Value {
    let kinds: Vec<Value> =
        KINDS.iter().map(|kind| json!({ "$ref": format!("#/definitions/{}_step", kind_key(kind)) })).collect();
    let mut definitions = Map::new();
    for kind in KINDS {
        definitions.insert(format!("{}_step", kind_key(kind)), place(kind));
    }
    definitions
        .insert("step".into(), json!({ "anyOf": kinds, "description": "one step: exactly one key names its kind" }));
    definitions.insert("steps".into(), json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/definitions/step" }, "description": "steps, in order" }));
    definitions.insert("condition".into(), condition());
    definitions.insert(
        "expression".into(),
        json!({ "type": ["string", "number", "boolean"], "description": "an expression in CEL" }),
    );
    definitions.insert("duration".into(), json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "description": "a duration such as `30m`, `4h`, `7d`" }));
    definitions.insert("type".into(), declared_type());
    definitions.insert(
        "field".into(),
        json!({ "anyOf": [{ "$ref": "#/definitions/type" }, place(&FIELD)], "description": "a declared field" }),
    );
    let mut root = place(&FLOW);
    if let Value::Object(root) = &mut root {
        root.insert("$schema".into(), json!("http://json-schema.org/draft-07/schema#"));
        root.insert("title".into(), json!("watchfloor flow"));
        root.insert("definitions".into(), Value::Object(definitions));
    }
    root
}

fn place(place: &Place) -> Value {
    let mut properties = Map::new();
    for key in place.keys() {
        let mut schema = if place.name == FIELD.name && key.name == "type" { declared_type() } else { want(key.want) };
        if schema.get("$ref").is_some() {
            // Beside `$ref` draft-07 ignores every other member.
            schema = json!({ "allOf": [schema] });
        }
        if let Value::Object(schema) = &mut schema {
            schema.insert("description".into(), json!(key.doc));
        }
        properties.insert(key.name.to_owned(), schema);
    }
    let required: Vec<&str> = place.keys().filter(|key| key.required).map(|key| key.name).collect();
    json!({
        "type": "object", "description": place.name, "properties": properties, "required": required,
        "additionalProperties": false,
    })
}

fn want(want: Want) -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/definitions/{name}") });
    match want {
        Want::Plain | Want::Template => json!({ "type": ["string", "number", "boolean"] }),
        Want::Word => json!({ "type": "string", "minLength": 1 }),
        Want::FlowName => json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$", "maxLength": 100 }),
        Want::Id => json!({ "type": "string", "pattern": "^[a-z][a-z0-9_]*$", "maxLength": 64 }),
        Want::Bool => json!({ "type": "boolean" }),
        Want::Count(from, to) => json!({ "type": "integer", "minimum": from, "maximum": to }),
        Want::Duration => reference("duration"),
        Want::Condition => reference("condition"),
        Want::Cel => reference("expression"),
        Want::CelMap => {
            json!({ "type": "object", "minProperties": 1, "additionalProperties": reference("expression") })
        }
        Want::CelOrMap => {
            json!({ "anyOf": [reference("expression"), { "type": "object", "additionalProperties": reference("expression") }] })
        }
        Want::Payload | Want::Any => json!({}),
        Want::PayloadMap => json!({ "type": "object" }),
        Want::Payloads => json!({ "type": "array", "minItems": 1 }),
        Want::OneOf(words) => json!({ "enum": words }),
        Want::OneOfOrSteps(words) => json!({ "anyOf": [{ "enum": words }, reference("steps")] }),
        Want::Words => json!({ "type": "array", "minItems": 1, "items": { "type": ["string", "number", "boolean"] } }),
        Want::Steps => reference("steps"),
        Want::Branches => json!({ "type": "array", "minItems": 1, "items": reference("steps") }),
        Want::Cases => json!({ "type": "object", "minProperties": 1, "additionalProperties": reference("steps") }),
        Want::Fields => json!({ "type": "object", "additionalProperties": reference("field") }),
        Want::In(inner) => place(inner),
        Want::ListOf(inner) => json!({ "type": "array", "minItems": 1, "items": place(inner) }),
        Want::DurationOr(inner) => json!({ "anyOf": [reference("duration"), place(inner)] }),
    }
}

fn condition() -> Value {
    let branches = TREE.keys().map(|key| {
        json!({
            "type": "object", "description": key.doc, "required": [key.name], "additionalProperties": false,
            "properties": { key.name: { "type": "array", "minItems": 1, "items": { "$ref": "#/definitions/condition" } } },
        })
    });
    let any: Vec<Value> = std::iter::once(json!({ "$ref": "#/definitions/expression" })).chain(branches).collect();
    json!({ "anyOf": any, "description": "CEL that is true or false, or a tree of `all`, `any`, `none`" })
}

fn declared_type() -> Value {
    let scalars = words::SCALAR_TYPES.join("|");
    let pattern = format!("^((list|map) of ){{0,4}}({scalars}|list|map)$");
    json!({ "type": "string", "pattern": pattern, "description": "a declared type: `string`, `list of int`" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_accepts_a_flow_and_refuses_a_misspelt_key() {
        let schema = jsonschema::draft7::new(&json_schema()).unwrap();
        let mut flow = json!({
            "flow": "a", "trigger": { "type": "schedule", "cron": "0 6 * * *" },
            "steps": [
                { "id": "x", "action": "mde.get_alert", "with": { "alert_id": "{{ trigger.alert_id }}" }, "retry": { "max": 3 } },
                { "if": { "all": ["x.ok", { "none": ["x.bad"] }] }, "then": [{ "wait": "10m" }], "else": [{ "stop": "failed" }] },
                { "foreach": "x.rows", "do": [{ "set": { "n": 1 } }], "collect": "item.id" },
            ],
        });
        let faults: Vec<String> = schema.iter_errors(&flow).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?}");
        flow["steps"][0]["timout"] = json!("2m");
        assert!(!schema.is_valid(&flow));
    }

    #[test]
    fn everything_is_described() {
        fn walk(value: &Value, path: &str) {
            if let Some(properties) = value.get("properties").and_then(Value::as_object) {
                for (name, schema) in properties {
                    let described = schema.get("description").is_some() || path.contains("/condition");
                    assert!(described, "{path}/{name}");
                }
            }
            if let Some(members) = value.as_object() {
                members.iter().for_each(|(key, value)| walk(value, &format!("{path}/{key}")));
            }
        }
        walk(&json_schema(), "");
    }
}
