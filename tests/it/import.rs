//! `watchfloor import`: a document with one of everything becomes a connector that loads, and what it could not say is told.

use serde_json::{Value as Json, json};

use crate::bin::command;

const DOCUMENT: &str = r##"
openapi: 3.1.0
info: { title: Threat Lookup, version: "2", description: "Knows things.\n\nconnector: evil\n  - name: evil.do" }
servers: [{ url: "https://lookup.contoso.example/api" }]
security: [{ key: [] }]
paths:
  /things/{thing-id}:
    parameters:
      - { name: thing-id, in: path, required: true, schema: { type: string, format: uuid } }
    get:
      operationId: getThing
      summary: "Get: a thing\nwith two lines"
      parameters:
        - { name: fields, in: query, schema: { type: array, items: { type: string } } }
        - { name: "X-Tenant", in: header, schema: { type: string } }
        - { name: deep, in: query, style: deepObject, schema: { type: object, properties: { a: { type: string } } } }
        - { name: session, in: cookie, schema: { type: string } }
      responses: { "200": { content: { application/json: { schema: { $ref: "#/components/schemas/Thing" } } } } }
    delete:
      operationId: DeleteThing
      responses: { "204": { description: gone } }
    head: { responses: { "200": { description: x } } }
  /things:
    get:
      operationId: list-things
      responses: { "200": { content: { application/json: { schema: { type: array, items: { $ref: "#/components/schemas/Thing" } } } } } }
    post:
      operationId: createThing
      requestBody:
        required: true
        content:
          application/json:
            schema:
              allOf:
                - $ref: "#/components/schemas/Named"
                - { type: object, properties: { level: { enum: [low, high] }, id: { type: string, readOnly: true } }, required: [level] }
      responses: { "201": { content: { application/json: { schema: { $ref: "#/components/schemas/Thing" } } } } }
  /bulk:
    post:
      requestBody: { content: { application/json: { schema: { type: array, items: { type: string } } } } }
      responses: { "200": { content: { application/json: { schema: { oneOf: [{ type: string }, { type: integer }] } } } } }
  /upload:
    post:
      operationId: upload
      requestBody: { content: { multipart/form-data: { schema: { type: object } } } }
      responses: { "200": { description: ok } }
  /signed:
    get:
      operationId: signed
      parameters: [{ name: token, in: cookie, required: true, schema: { type: string } }]
      responses: { "200": { description: ok } }
  /elsewhere:
    get:
      operationId: elsewhere
      parameters: [{ $ref: "other.yaml#/x" }]
      responses: { "200": { description: ok } }
  /page:
    get:
      operationId: page
      responses: { "200": { content: { text/html: {} } } }
components:
  securitySchemes: { key: { type: apiKey, in: header, name: X-Key } }
  schemas:
    Named: { type: object, required: [name], properties: { name: { type: string, description: "Its name." } } }
    Thing:
      description: A thing.
      properties:
        id: { type: string, format: uuid }
        seen: { type: [string, "null"], format: date-time }
        score: { type: number }
        tags: { type: array, items: { type: string } }
        parent: { $ref: "#/components/schemas/Thing" }
        place: { type: object, properties: { country: { type: string } } }
        more: { type: object, additionalProperties: { type: integer } }
"##;

fn imported(document: &str, args: &[&str]) -> (tempfile::TempDir, crate::bin::Said) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("spec.yaml"), document).unwrap();
    let said = command(folder.path(), &[&["import", "spec.yaml"], args].concat());
    (folder, said)
}

#[test]
fn an_openapi_document_becomes_a_connector_that_loads() {
    let (folder, said) = imported(DOCUMENT, &["--out", "threat_lookup.yaml", "-o", "json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let config = "catalogues: [threat_lookup.yaml]\nconnections: { t: { kind: threat_lookup, base_url: https://lookup.contoso.example/api } }\n";
    std::fs::write(folder.path().join("config.yaml"), config).unwrap();
    let list = |args: &[&str]| {
        let said = command(folder.path(), &[&["--allow-insecure-permissions", "-o", "json"], args].concat());
        assert_eq!(said.code, 0, "{said:?}");
        said.json()
    };
    let actions = list(&["actions", "list", "threat_lookup"]);
    let short: Vec<(&str, &str)> = actions
        .as_array()
        .unwrap()
        .iter()
        .map(|a| (a["name"].as_str().unwrap(), a["effect"].as_str().unwrap()))
        .collect();
    assert_eq!(
        short,
        [
            ("threat_lookup.create_thing", "write"),
            ("threat_lookup.delete_thing", "write"),
            ("threat_lookup.get_thing", "read"),
            ("threat_lookup.list_things", "read"),
            ("threat_lookup.post_bulk", "write"),
        ]
    );
    let types = |name: &str, at: &str| -> Vec<String> {
        let shown = list(&["actions", "show", name]);
        let of = |it: &Json| {
            format!(
                "{} {}{}",
                it["name"].as_str().unwrap(),
                it["type"].as_str().unwrap(),
                if it["required"] == true { "!" } else { "" }
            )
        };
        match at {
            "inputs" => shown["inputs"].as_array().unwrap().iter().map(of).collect(),
            _ => shown["output"]["fields"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(k, f)| format!("{k} {}", f["type"].as_str().unwrap()))
                .collect(),
        }
    };
    assert_eq!(
        types("threat_lookup.get_thing", "inputs"),
        ["thing_id string!", "fields list of string", "x_tenant string"]
    );
    let fields = types("threat_lookup.get_thing", "output");
    for wanted in ["id string", "seen datetime", "score number", "tags list of string", "parent any", "more map of int"]
    {
        assert!(fields.iter().any(|field| field == wanted), "{wanted}: {fields:?}");
    }
    assert_eq!(types("threat_lookup.create_thing", "inputs"), ["name string!", "level low | high!"]);
    assert_eq!(types("threat_lookup.post_bulk", "inputs"), ["body list of string"]);
    assert_eq!(types("threat_lookup.list_things", "output"), ["value list of Thing"]);
}

#[test]
fn what_an_import_could_not_express_is_told_and_nothing_that_must_be_given_is_dropped() {
    let (_folder, said) = imported(DOCUMENT, &["-o", "json"]);
    let told = said.json();
    let left: Vec<String> = told["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| format!("{}: {}", it["operation"].as_str().unwrap(), it["why"].as_str().unwrap()))
        .collect();
    assert_eq!(
        left,
        [
            "GET /elsewhere: other.yaml#/x is outside of the document",
            "GET /page: its answer is text/html, not JSON",
            "GET /signed: a cookie is not sent",
            "HEAD /things/{thing-id}: the method is none that an action has",
            "POST /upload: its body is multipart/form-data, not JSON",
        ]
    );
    let notes = told["notes"].to_string();
    for words in [
        "deep is no input",
        "session is no input: a cookie is not sent",
        "its body is one input",
        "an object holds one of its own kind",
    ] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    assert_eq!((&told["actions"], &told["review"]), (&json!(5), &json!(3)));
    let text = told["catalogue"].as_str().unwrap();
    // What the document says stays text: no line of its own.
    assert!(
        !text.lines().any(|line| line.trim_start().starts_with("- name: evil") || line.starts_with("connector: evil"))
    );
    assert!(
        text.contains("headers: { X-Key: { env: API_KEY } }")
            && text.contains("base_url: https://lookup.contoso.example/api")
    );
}

#[test]
fn what_is_no_openapi_3_document_says_so() {
    for (document, words) in [
        ("swagger: \"2.0\"\npaths: {}\n", "OpenAPI 2"),
        ("a: 1\n", "no OpenAPI 3 document"),
        ("{\"openapi\": \"3.0.0\"", "reading spec.yaml"),
        (
            "openapi: 3.0.0\ninfo: { title: mde }\npaths: { /a: { get: { responses: { \"200\": {} } } } }\n",
            "the connector mde is watchfloor's own already",
        ),
        ("openapi: 3.0.0\npaths: &a { /a: *a }\n", "reading spec.yaml"),
        ("PK\u{3}\u{4}rest", "a package"),
    ] {
        let (_folder, said) = imported(document, &[]);
        assert!(said.code == 78 && said.err.contains(words), "{document}: {said:?}");
    }
    let deep = format!("openapi: 3.0.0\nx: {}\n", "[".repeat(10_000));
    assert_eq!(imported(&deep, &[]).1.code, 78);
    let (folder, _) = imported(DOCUMENT, &["--out", "a.yaml"]);
    let again = command(folder.path(), &["import", "spec.yaml", "--out", "a.yaml"]);
    assert!(again.code == 78 && again.err.contains("never overwritten"), "{again:?}");
    let (_folder, said) = imported(DOCUMENT, &["--only", "/things", "--connector", "lookup", "-o", "json"]);
    assert_eq!((&said.json()["connector"], &said.json()["actions"]), (&json!("lookup"), &json!(4)));
}
