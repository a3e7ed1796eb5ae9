//! An OpenAPI 3 document as a connector: operations to actions. What it could not express is told, and nothing of an operation
//! that must be given is dropped: such an operation is left out whole.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::names::{line, snake, unique};
use super::types::{Types, kind};
use super::write;
use crate::catalog::OwnKind;
use crate::error::Error;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
const OTHERS: [&str; 3] = ["head", "options", "trace"];
/// Headers that the client and the connection set.
const NOT_INPUTS: [&str; 4] = ["accept", "content-type", "authorization", "content-length"];

pub(super) struct Wanted<'a> {
    pub(super) connector: Option<&'a str>,
    pub(super) only: &'a [String],
    /// The document's name, for `source`.
    pub(super) file: &'a str,
}

pub(super) struct Made {
    pub(super) connector: String,
    pub(super) text: String,
    pub(super) actions: usize,
    /// Actions whose effect is a guess.
    pub(super) review: usize,
    /// Operations that are no action, and why.
    pub(super) left_out: Vec<(String, String)>,
    /// What an action can't do of its operation.
    pub(super) notes: Vec<(String, String)>,
}

/// One input of an action, in the words of the file that is written.
pub(super) struct Input {
    pub(super) name: String,
    pub(super) ty: String,
    pub(super) required: bool,
    /// `path`, `query`, `header` or `body`.
    pub(super) place: &'static str,
    pub(super) wire: String,
    pub(super) doc: String,
    pub(super) example: Option<Json>,
}

/// One action, in the words of the file that is written.
pub(super) struct Action {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) doc: String,
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) inputs: Vec<Input>,
    /// `None` where nothing comes back.
    pub(super) output: Option<String>,
    pub(super) permission: String,
    pub(super) source: String,
}

/// Makes a connector of a document.
///
/// # Errors
/// Where its name can't be a connector's, or it has no paths.
pub(super) fn import(document: &Json, wanted: &Wanted<'_>) -> Result<Made, Error> {
    let info = |key: &str| document.pointer(&format!("/info/{key}")).and_then(Json::as_str).unwrap_or("");
    let connector = match wanted.connector {
        Some(name) => name.to_owned(),
        None => snake(info("title"), OwnKind::LONGEST, "service"),
    };
    if OwnKind::new(&connector).is_none() {
        return Err(Error::usage(format!("{connector:?} is no name of a connector"))
            .help("small letters, digits and `_`, a letter first, 31 at most"));
    }
    let Some(paths) = document.get("paths").and_then(Json::as_object) else {
        return Err(Error::config(format!("{}: the document has no paths", wanted.file)));
    };
    let mut reader = Reader {
        types: Types::new(document),
        connector: connector.clone(),
        source: source(document, wanted.file),
        taken: BTreeSet::new(),
        actions: vec![],
        left_out: vec![],
        notes: vec![],
    };
    for (path, item) in paths {
        reader.path(path, item, wanted.only);
    }
    let Reader { types, actions, left_out, mut notes, .. } = reader;
    notes.extend(types.lost.iter().map(|what| ("types".to_owned(), what.clone())));
    let review = actions.iter().filter(|action| action.method != "GET").count();
    let text = write::file(&connector, document, &actions, &types.entities);
    Ok(Made { connector, text, actions: actions.len(), review, left_out, notes })
}

/// `/a~1b` and `%7B` of a reference's pointer.
pub(super) fn unescaped(pointer: &str) -> String {
    let text = pointer.replace("%7B", "{").replace("%7D", "}").replace("%7b", "{").replace("%7d", "}");
    text.replace("%20", " ").replace("%24", "$")
}

fn source(document: &Json, file: &str) -> String {
    let text = |pointer: &str| document.pointer(pointer).and_then(Json::as_str);
    match text("/externalDocs/url").filter(|url| url.starts_with("https://")) {
        Some(url) => line(url, 300),
        None => {
            let (title, version) = (text("/info/title").unwrap_or("a service"), text("/info/version").unwrap_or("?"));
            let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
            line(&format!("the OpenAPI document of {title} {version} ({name})"), 300)
        }
    }
}

struct Reader<'a> {
    types: Types<'a>,
    connector: String,
    source: String,
    taken: BTreeSet<String>,
    actions: Vec<Action>,
    left_out: Vec<(String, String)>,
    notes: Vec<(String, String)>,
}

impl<'a> Reader<'a> {
    fn path(&mut self, path: &str, item: &'a Json, only: &[String]) {
        let item = self.types.resolved(item).unwrap_or(item);
        for method in METHODS.into_iter().chain(OTHERS) {
            let Some(operation) = item.get(method) else { continue };
            let id = operation.get("operationId").and_then(Json::as_str).unwrap_or("");
            if !only.is_empty() && !only.iter().any(|text| path.contains(text.as_str()) || id.contains(text.as_str())) {
                continue;
            }
            let shown = format!("{} {}", method.to_uppercase(), line(path, 200));
            let made = match METHODS.iter().find(|known| **known == method) {
                Some(method) => self.operation(path, method, item, operation, &shown),
                None => Err("the method is none that an action has".to_owned()),
            };
            match made {
                Ok(action) => self.actions.push(action),
                Err(why) => self.left_out.push((shown, why)),
            }
        }
    }

    fn operation(
        &mut self,
        path: &str,
        method: &'static str,
        item: &'a Json,
        operation: &'a Json,
        shown: &str,
    ) -> Result<Action, String> {
        let path = plain_path(path)?;
        let id = operation.get("operationId").and_then(Json::as_str);
        let verb = snake(&id.map_or_else(|| format!("{method}_{path}"), str::to_owned), 80, "call");
        let near = super::names::pascal(&verb);
        let mut inputs = self.parameters(&path, item, operation, shown)?;
        if method != "get" && method != "delete" {
            self.body(operation, &near, &mut inputs, shown)?;
        } else if let Some(body) = operation.get("requestBody") {
            if self.types.resolved(body)?.get("required") == Some(&Json::Bool(true)) {
                return Err(format!("it must have a body, which no {} of ours has", method.to_uppercase()));
            }
            self.notes.push((shown.to_owned(), format!("a body of a {} is not sent", method.to_uppercase())));
        }
        if inputs.len() > 100 {
            return Err("it has more than 100 inputs".into());
        }
        let output = self.output(operation, &near)?;
        let said = |key: &str| operation.get(key).and_then(Json::as_str).filter(|text| !text.trim().is_empty());
        let title = line(said("summary").unwrap_or(&verb.replace('_', " ")), 100);
        let mut doc = said("description")
            .map_or_else(|| title.clone(), |text| line(text.split("\n\n").next().unwrap_or(text), 300));
        if operation.get("deprecated") == Some(&Json::Bool(true)) {
            doc = format!("Deprecated by the service. {doc}");
        }
        let name = format!("{}.{}", self.connector, unique(verb, &mut self.taken));
        let permission = permission(operation.get("security").or_else(|| self.types.document.get("security")));
        let method = METHODS.iter().zip(["GET", "POST", "PUT", "PATCH", "DELETE"]).find(|(known, _)| **known == method);
        let method = method.map_or("GET", |(_, upper)| upper);
        Ok(Action { name, title, doc, method, path, inputs, output, permission, source: self.source.clone() })
    }

    fn parameters(
        &mut self,
        path: &str,
        item: &'a Json,
        operation: &'a Json,
        shown: &str,
    ) -> Result<Vec<Input>, String> {
        let of = |json: &'a Json| json.get("parameters").and_then(Json::as_array).into_iter().flatten();
        let mut found: Vec<&'a Json> = vec![];
        for parameter in of(item).chain(of(operation)) {
            let parameter = self.types.resolved(parameter)?;
            // Those of the operation come after those of the path, and in their place.
            let key = |json: &Json| (json.get("name").cloned(), json.get("in").cloned());
            found.retain(|known| key(known) != key(parameter));
            found.push(parameter);
        }
        let mut names = BTreeSet::new();
        let mut inputs = vec![];
        for parameter in found {
            match self.parameter(path, parameter, &mut names) {
                Ok(Some(input)) => inputs.push(input),
                Ok(None) => {}
                Err((_, why)) if parameter.get("required") == Some(&Json::Bool(true)) => return Err(why),
                Err((name, why)) => self.notes.push((shown.to_owned(), format!("{name} is no input: {why}"))),
            }
        }
        let missing = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        for wire in missing {
            if !inputs.iter().any(|input| input.place == "path" && input.wire == wire) {
                return Err(format!("its path has {{{wire}}}, which no parameter describes"));
            }
        }
        Ok(inputs)
    }

    /// One parameter; `None` where the client sets it by itself.
    fn parameter(
        &mut self,
        path: &str,
        parameter: &'a Json,
        names: &mut BTreeSet<String>,
    ) -> Result<Option<Input>, (String, String)> {
        let text = |key: &str| parameter.get(key).and_then(Json::as_str);
        let wire = text("name").unwrap_or("");
        let fault = |why: &str| (line(wire, 60), why.to_owned());
        let place = match text("in") {
            Some("path") => "path",
            Some("query") => "query",
            Some("header") if NOT_INPUTS.contains(&wire.to_lowercase().as_str()) => return Ok(None),
            Some("header") => "header",
            _ => return Err(fault("a cookie is not sent")),
        };
        // These words mean something in a wire name.
        if wire.is_empty() || wire.len() > 200 || wire.contains(char::is_control) || wire.starts_with("$filter ") {
            return Err(fault("its name can't be written"));
        }
        if place == "path" && !path.contains(&format!("{{{wire}}}")) {
            return Err(fault("the path has no place for it"));
        }
        let Some(schema) = parameter.get("schema") else {
            return Err(fault("it has a form of its own (`content`)"));
        };
        let ty = self.types.of(schema, &format!("{wire}Param"), 6);
        let simple =
            |ty: &str| matches!(ty, "string" | "int" | "number" | "bool" | "datetime") || ty.starts_with("enum<");
        let listed = ty.strip_prefix("list<").and_then(|rest| rest.strip_suffix('>')).is_some_and(simple);
        // Lists of a query are sent as the name once for each; other forms are not.
        let repeated =
            parameter.get("explode") != Some(&Json::Bool(false)) && matches!(text("style"), None | Some("form"));
        match place {
            _ if simple(&ty) => {}
            "query" if listed && repeated => {}
            "query" if listed => return Err(fault("a list in one value is not sent")),
            _ => return Err(fault("it is neither a plain value nor a list of them")),
        }
        let required = place == "path" || parameter.get("required") == Some(&Json::Bool(true));
        let doc = text("description").map_or_else(|| format!("{}.", line(wire, 100)), |text| line(text, 200));
        let name = unique(snake(wire, 60, "value"), names);
        let guid =
            self.types.resolved(schema).ok().and_then(|it| it.get("format")).and_then(Json::as_str) == Some("uuid");
        let ty = if place == "path" && guid { "guid".into() } else { ty };
        let example =
            parameter.get("example").or_else(|| schema.get("example")).or_else(|| schema.get("default")).cloned();
        Ok(Some(Input { name, ty, required, place, wire: wire.to_owned(), doc, example }))
    }

    /// The members of a JSON body as inputs, or the body as one.
    fn body(&mut self, operation: &'a Json, near: &str, inputs: &mut Vec<Input>, shown: &str) -> Result<(), String> {
        let Some(body) = operation.get("requestBody") else { return Ok(()) };
        let body = self.types.resolved(body)?;
        let Some(schema) = json_of(body.get("content")) else {
            return Err(format!("its body is {}, not JSON", kinds_of(body.get("content"))));
        };
        let needed = body.get("required") == Some(&Json::Bool(true));
        let found = self.types.resolved(schema)?;
        let mut properties = vec![];
        self.types.properties(found, &mut properties, 0);
        let splits = |key: &str| {
            key.is_empty() || key.contains(['/', '@']) || key.ends_with("[]") || key == "." || key.len() > 200
        };
        let mut names: BTreeSet<String> = inputs.iter().map(|input| input.name.clone()).collect();
        let whole = found.get("oneOf").or_else(|| found.get("anyOf")).is_some()
            || properties.iter().any(|(key, _)| splits(key));
        if kind(found) != "object" || properties.is_empty() || whole || properties.len() > 90 {
            let ty = self.types.of(schema, &format!("{near}Body"), 1);
            let ty = if ty.starts_with("list<") { ty } else { "any".to_owned() };
            let name = unique("body".into(), &mut names);
            let doc = "The whole body, as the service describes it.".to_owned();
            inputs.push(Input { name, ty, required: needed, place: "body", wire: ".".into(), doc, example: None });
            self.notes.push((shown.to_owned(), "its body is one input: its members have no names of their own".into()));
            return Ok(());
        }
        let mut must: BTreeSet<&str> = BTreeSet::new();
        required(&self.types, found, &mut must, 0);
        for (key, value) in properties {
            let about = self.types.resolved(value).unwrap_or(value);
            if about.get("readOnly") == Some(&Json::Bool(true)) {
                continue;
            }
            let ty = self.types.of(value, &format!("{near}_{key}"), 2);
            let doc = about.get("description").and_then(Json::as_str);
            let doc = doc.map_or_else(|| format!("{}.", line(key, 100)), |text| line(text, 200));
            let example = about.get("example").or_else(|| about.get("default")).cloned();
            let name = unique(snake(key, 60, "value"), &mut names);
            let required = needed && must.contains(key.as_str());
            inputs.push(Input { name, ty, required, place: "body", wire: key.clone(), doc, example });
        }
        Ok(())
    }

    /// What comes back, by the first success that is described.
    fn output(&mut self, operation: &'a Json, near: &str) -> Result<Option<String>, String> {
        let responses = operation.get("responses").and_then(Json::as_object);
        let mut successes: Vec<_> =
            responses.into_iter().flatten().filter(|(status, _)| status.starts_with('2')).collect();
        successes.sort_by_key(|(status, _)| status.as_str());
        let default = responses.and_then(|all| all.get("default"));
        let described = successes.into_iter().map(|(_, answer)| answer).chain(default);
        let mut other = String::new();
        for answer in described {
            let answer = self.types.resolved(answer)?;
            if let Some(schema) = json_of(answer.get("content")) {
                let ty = self.types.of(schema, &format!("{near}Answer"), 0);
                return Ok(Some(match ty.strip_prefix("list<").and_then(|rest| rest.strip_suffix('>')) {
                    Some(item) => format!("page<{item}>"),
                    None => ty,
                }));
            }
            if other.is_empty() && answer.get("content").and_then(Json::as_object).is_some_and(|it| !it.is_empty()) {
                other = kinds_of(answer.get("content"));
            }
        }
        if other.is_empty() { Ok(None) } else { Err(format!("its answer is {other}, not JSON")) }
    }
}

/// Names of members that must be given, of an object and of all that it is made of.
fn required<'a>(types: &Types<'a>, schema: &'a Json, found: &mut BTreeSet<&'a str>, depth: usize) {
    let Ok(schema) = types.resolved(schema) else { return };
    if depth > 8 {
        return;
    }
    found.extend(schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str));
    for part in schema.get("allOf").and_then(Json::as_array).into_iter().flatten() {
        required(types, part, found, depth + 1);
    }
}

/// The schema of JSON content, under any of its names.
fn json_of(content: Option<&Json>) -> Option<&Json> {
    let kinds = content?.as_object()?;
    let is_json = |name: &str| {
        let name = name.split(';').next().unwrap_or(name).trim().to_ascii_lowercase();
        name == "application/json" || name.ends_with("+json") || name == "*/*"
    };
    kinds.iter().find(|(name, _)| is_json(name))?.1.get("schema")
}

fn kinds_of(content: Option<&Json>) -> String {
    let kinds: Vec<&str> =
        content.and_then(Json::as_object).into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    if kinds.is_empty() { "not described".to_owned() } else { line(&kinds.join(" or "), 120) }
}

/// A path that an action can have. What follows `?` or `#` is no part of one.
fn plain_path(path: &str) -> Result<String, String> {
    let dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
    if !path.starts_with('/') || dots || path.contains(['?', '#', '\\', ' ']) || path.contains("//") || path.len() > 500
    {
        return Err("its path is no plain one".into());
    }
    Ok(path.to_owned())
}

/// What a caller needs, by the names of the security schemes and scopes.
fn permission(security: Option<&Json>) -> String {
    let mut words: Vec<String> = vec![];
    for (scheme, scopes) in
        security.and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_object).flatten()
    {
        let scopes: Vec<&str> = scopes.as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        words.push(if scopes.is_empty() { scheme.clone() } else { scopes.join(", ") });
    }
    words.dedup();
    if words.is_empty() { "as the service says".to_owned() } else { line(&words.join(" or "), 200) }
}
