//! An action and its inputs to one HTTP request, and its answer to the step's output. Pure: sending is `client`'s.
//!
//! How a body member is written, after `@` in its wire name: `@ms` an instant as milliseconds of the epoch, `@int` words and
//! digits as numbers, `@recipients`, `@files`, `@text` and `@html` as Microsoft Graph's messages have them, `@labels` as Sentinel's. A `[]` at the end
//! puts one value in a list; a dot alone is the whole body.

mod hunting;

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Map as JsonMap, Value as Json, json};

use super::entity;
use crate::catalog::{Action, Mapping, Paging, Param, Place, Type, decode, ids};
use crate::value::{Map, Value};

/// One HTTP request, relative to the connection's base URL.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub method: String,
    /// Begins with a slash; the query is encoded.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Json>,
}

/// An input that can't be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{param}: {message}")]
pub struct BadInput {
    pub param: String,
    pub message: String,
}

/// An answer that is not what the service documents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadAnswer {
    pub message: String,
}

/// Where the next page is.
#[derive(Clone, Debug, PartialEq)]
pub enum NextPage {
    /// An address that the service gave, to be followed as it is and only on the connection's own host.
    Link(String),
    Request(Request),
}

/// Builds the request. `tag` is what a later look-up finds our effect by; an empty one is left out.
///
/// # Errors
/// Where an input is missing, has the wrong shape, or is an id of something else: nothing of the kind reaches a path.
pub fn build(action: &Action, inputs: &Map, tag: &str) -> Result<Request, BadInput> {
    let (Some(method), Some(path)) = (&action.method, &action.path) else {
        return Err(bad("action", format!("{} is native: it has no single request", action.name)));
    };
    let mut parts = Parts { path: path.to_string(), ..Parts::default() };
    for group in &action.any_of {
        if !group.iter().any(|name| inputs.contains_key(name)) {
            return Err(bad(&group.join(" or "), "none is given, and at least one must be"));
        }
    }
    for param in &action.inputs {
        let Some(value) = inputs.get(&param.name).or(param.default.as_ref()) else {
            if param.required {
                return Err(bad(&param.name, "it is required"));
            }
            continue;
        };
        let mut value = normal(param, value)?;
        if action.tag_input.as_ref() == Some(&param.name) && !tag.is_empty() {
            value = Value::str(tagged(value.as_str().unwrap_or(""), tag));
        }
        parts.add(param, &value)?;
    }
    if let (Some(wire), false) = (&action.tag_wire, tag.is_empty()) {
        nest(&mut parts.body, wire, Json::from(tag)).map_err(|message| bad(wire, message))?;
    }
    if let Mapping::Entity(name) = &action.mapping
        && &**name == "hunting"
    {
        hunting::finish(&mut parts.body, inputs)?;
    }
    let mut headers = std::mem::take(&mut parts.headers);
    if action.connector() == "xdr" {
        // Without it, Graph shows the newest products and states as `unknownFutureValue`.
        headers.push(("Prefer".to_owned(), "include-unknown-enum-members".to_owned()));
    }
    // Where the entry names no member of a body, the operation takes none.
    let takes_body = !action.body.is_null() || action.inputs.iter().any(|param| param.place == Place::Body);
    let has_body = takes_body && !matches!(&**method, "GET" | "HEAD" | "DELETE");
    // What is made under a name of ours is made once, however often it is sent.
    if path.contains("{tag}") {
        parts.path = parts.path.replace("{tag}", &guid_of(tag));
    }
    let path = parts.path_and_query(action);
    let body = has_body.then(|| {
        if let Some(whole) = parts.whole {
            return whole;
        }
        let mut body = parts.body;
        for (key, value) in action.body.as_object().into_iter().flatten() {
            body.entry(key.clone()).or_insert_with(|| value.clone());
        }
        Json::Object(body)
    });
    Ok(Request { method: method.to_string(), path, headers, body })
}

/// Whether a status is an answer of this action, to be read by [`output`]: any 2xx, and the 404 with which Defender for
/// Endpoint says that no device reported lately.
pub fn is_answer(action: &Action, status: u16) -> bool {
    (200..300).contains(&status) || (status == 404 && action.mapping == Mapping::Entity("mde_machines".into()))
}

/// Reads an answer. `ty` is the action's output, or what the step declares beyond it; `now` the instant of reading.
///
/// # Errors
/// Where the answer lacks what the output must have, or says that nothing was done.
pub fn output(
    action: &Action,
    ty: &Type,
    status: u16,
    body: &Json,
    inputs: &Map,
    now: Timestamp,
) -> Result<Value, BadAnswer> {
    output_noting(action, ty, status, body, inputs, now, &mut Vec::new())
}

/// As [`output`], and notes one sentence for each enum word that is not known.
///
/// # Errors
/// As [`output`].
pub fn output_noting(
    action: &Action,
    ty: &Type,
    status: u16,
    body: &Json,
    inputs: &Map,
    now: Timestamp,
    warnings: &mut Vec<String>,
) -> Result<Value, BadAnswer> {
    let Mapping::Entity(name) = &action.mapping else {
        let empty = json!({});
        // A page of a service that answers with a bare list.
        if let (Json::Array(_), Type::Object(page)) = (body, ty)
            && page.name.starts_with("page of ")
        {
            return typed(action, ty, &json!({"value": body}), warnings);
        }
        return typed(action, ty, if body.is_null() { &empty } else { body }, warnings);
    };
    if status == 404 && is_answer(action, status) {
        return typed(action, ty, &json!({"value": []}), warnings);
    }
    if &**name == "hunting" {
        return hunting::result(ty, body, inputs).map_err(|message| wrong(action, message));
    }
    let ours = entity::normal(name, ty, body, now).map_err(|message| wrong(action, message))?;
    typed(action, ty, &ours, warnings)
}

/// The page after this one, `None` after the last.
pub fn next_page(action: &Action, request: &Request, body: &Json) -> Option<NextPage> {
    match action.paging {
        Paging::None => None,
        // Resource Manager leaves the prefix out.
        Paging::NextLink => body
            .get("@odata.nextLink")
            .or_else(|| body.get("nextLink"))?
            .as_str()
            .map(|link| NextPage::Link(link.to_owned())),
        Paging::TopSkip => {
            let count = body.get("value")?.as_array()?.len();
            let top: usize = query_member(&request.path, "$top")?.parse().ok()?;
            let skip: usize = query_member(&request.path, "$skip").and_then(|skip| skip.parse().ok()).unwrap_or(0);
            if count == 0 || count < top {
                return None;
            }
            let (path, query) = request.path.split_once('?')?;
            let kept: Vec<_> = query.split('&').filter(|pair| !pair.starts_with("$skip=")).collect();
            let path = format!("{path}?{}&$skip={}", kept.join("&"), skip.checked_add(count)?);
            Some(NextPage::Request(Request { path, ..request.clone() }))
        }
        Paging::HasNext => {
            let count = body.get("data")?.as_array()?.len();
            if count == 0 || !body.get("hasNext")?.as_bool()? {
                return None;
            }
            let mut next = request.clone();
            let members = next.body.as_mut()?.as_object_mut()?;
            let skip = members.get("skip").and_then(Json::as_u64).unwrap_or(0);
            members.insert("skip".into(), Json::from(skip.checked_add(u64::try_from(count).ok()?)?));
            Some(NextPage::Request(next))
        }
    }
}

/// Text with every byte that is not plainly safe in one path segment or query value written as `%XX`.
pub fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// What a comment ends with, so that a look-up tells our effect from others.
pub fn tagged(comment: &str, tag: &str) -> String {
    let mark = format!("[wf:{tag}]");
    if comment.is_empty() { mark } else { format!("{comment} {mark}") }
}

/// A tag in the form of a GUID: the same one for the same tag.
fn guid_of(tag: &str) -> String {
    let hex = crate::id::hex(&crate::id::digest16(&["guid", tag]));
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or("0");
    format!("{}-{}-4{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

#[derive(Default)]
struct Parts {
    path: String,
    query: Vec<(String, String)>,
    filters: Vec<String>,
    headers: Vec<(String, String)>,
    body: JsonMap<String, Json>,
    /// An input that is the whole body: its wire name is a dot.
    whole: Option<Json>,
}

impl Parts {
    fn add(&mut self, param: &Param, value: &Value) -> Result<(), BadInput> {
        let wire = &*param.wire;
        match param.place {
            Place::None => {}
            Place::Header => self.headers.push((wire.to_owned(), scalar(param, value)?)),
            Place::Path => {
                let text = scalar(param, value)?;
                self.path = self.path.replace(&format!("{{{wire}}}"), &percent(&text));
            }
            Place::Query => match (wire.strip_prefix("$filter "), value) {
                (Some(term), _) => self.filters.extend(filter(param, term, value)?),
                // The name once for each, as forms do.
                (None, Value::List(items)) => {
                    for item in items.iter() {
                        self.query.push((wire.to_owned(), scalar(param, item)?));
                    }
                }
                (None, _) => self.query.push((wire.to_owned(), scalar(param, value)?)),
            },
            Place::Body => {
                let (wire, many) = wire.strip_suffix("[]").map_or((wire, false), |wire| (wire, true));
                let (wire, form) = wire.split_once('@').unwrap_or((wire, ""));
                let written = written(param, form, value).map_err(|message| bad(&param.name, message))?;
                let written = if many { json!([written]) } else { written };
                if wire == "." {
                    self.whole = Some(written);
                    return Ok(());
                }
                nest(&mut self.body, wire, written).map_err(|message| bad(&param.name, message))?;
            }
        }
        Ok(())
    }

    fn path_and_query(&self, action: &Action) -> String {
        let constant = action.query.iter().map(|(key, value)| (&**key, value.to_string()));
        let filter = (!self.filters.is_empty()).then(|| ("$filter", self.filters.join(" and ")));
        let given = self.query.iter().map(|(key, value)| (key.as_str(), value.clone()));
        let pairs: Vec<_> = filter
            .into_iter()
            .chain(constant)
            .chain(given)
            .map(|(key, value)| format!("{key}={}", percent(&value)))
            .collect();
        if pairs.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, pairs.join("&")) }
    }
}

/// The value in our own spelling: ids normalised, enum words canonical.
fn normal(param: &Param, value: &Value) -> Result<Value, BadInput> {
    if let Some(form) = &param.id_form {
        let one = |value: &Value| {
            let text = match value {
                Value::String(text) => text.to_string(),
                Value::Int(number) => number.to_string(),
                Value::Datetime(at) => at.to_string(),
                other => return Err(bad(&param.name, format!("it is {}, not the text of an id", other.kind()))),
            };
            ids::normal(form, &text).map(Value::str).map_err(|message| bad(&param.name, message))
        };
        return match value {
            Value::List(items) => items.iter().map(one).collect::<Result<_, _>>().map(Value::list),
            value => one(value),
        };
    }
    // Text as text needs no second reading; anything else that the checker typed is looked at once more, since values come
    // from services and templates.
    if let (Type::String, Value::String(_)) = (&param.ty, value) {
        return Ok(value.clone());
    }
    let read = decode::decode(&param.ty, &value.to_json()).map_err(|e| bad(&param.name, e.message))?;
    check_words(param, &param.ty, &read)?;
    Ok(read)
}

/// A word that is none of the enum's is refused here: a service would answer 400, or worse, ignore it.
fn check_words(param: &Param, ty: &Type, value: &Value) -> Result<(), BadInput> {
    match (ty, value) {
        (Type::Enum(words), Value::String(word)) if !words.values.contains(word) => {
            let known = words.values.iter().take(12).map(|word| &**word).collect::<Vec<_>>().join(", ");
            Err(bad(&param.name, format!("{word:?} is none of {known}")))
        }
        (Type::List(item), Value::List(items)) => items.iter().try_for_each(|value| check_words(param, item, value)),
        _ => Ok(()),
    }
}

/// The word as the service writes it.
fn dialect<'a>(param: &'a Param, word: &'a str) -> &'a str {
    param.dialect.get(word).map_or(word, |theirs| theirs)
}

fn scalar(param: &Param, value: &Value) -> Result<String, BadInput> {
    Ok(match value {
        Value::String(text) => dialect(param, text).to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Datetime(at) => at.to_string(),
        other => return Err(bad(&param.name, format!("a {} has no place in an address", other.kind()))),
    })
}

/// One term of an OData filter: `severity eq 'High'`, or several joined by `or`.
fn filter(param: &Param, term: &str, value: &Value) -> Result<Option<String>, BadInput> {
    let literal = |value: &Value| match value {
        // A quote inside an OData string is written twice.
        Value::String(text) => Ok(format!("'{}'", dialect(param, text).replace('\'', "''"))),
        other => scalar(param, other),
    };
    let Value::List(items) = value else { return Ok(Some(format!("{term} {}", literal(value)?))) };
    let terms = items.iter().map(|item| Ok(format!("{term} {}", literal(item)?)));
    let terms = terms.collect::<Result<Vec<_>, BadInput>>()?;
    Ok(match terms.len() {
        0 => return Err(bad(&param.name, "the list is empty, which would match nothing; leave it out to match all")),
        1 => terms.into_iter().next(),
        _ => Some(format!("({})", terms.join(" or "))),
    })
}

/// A body member in the form that its wire name asks for.
fn written(param: &Param, form: &str, value: &Value) -> Result<Json, String> {
    let words = |value: &Value| match value {
        Value::String(text) => Json::from(dialect(param, text)),
        other => other.to_json(),
    };
    let plain = match value {
        Value::List(items) => Json::Array(items.iter().map(words).collect()),
        other => words(other),
    };
    Ok(match (form, value) {
        ("", _) => plain,
        ("ms", Value::Datetime(at)) => Json::from(at.as_millisecond()),
        ("int", _) => integers(&plain).ok_or("it has no number in the service's dialect")?,
        ("text", Value::String(text)) => json!({"contentType": "text", "content": &**text}),
        ("html", Value::String(text)) => json!({"contentType": "html", "content": &**text}),
        ("recipients", Value::List(items)) => {
            let address =
                |item: &Value| Ok(json!({"emailAddress": {"address": ids::address(item.as_str().unwrap_or(""))?}}));
            Json::Array(items.iter().map(address).collect::<Result<_, String>>()?)
        }
        ("labels", Value::List(items)) => {
            let label = |item: &Value| json!({"labelName": item.as_str().unwrap_or(""), "labelType": "User"});
            Json::Array(items.iter().map(label).collect())
        }
        ("files", Value::List(items)) => Json::Array(items.iter().map(file).collect::<Result<_, String>>()?),
        (form, value) => return Err(format!("a {} can't be written as {form}", value.kind())),
    })
}

fn integers(json: &Json) -> Option<Json> {
    match json {
        Json::String(text) => text.parse::<i64>().ok().map(Json::from),
        Json::Number(_) => Some(json.clone()),
        Json::Array(items) => items.iter().map(integers).collect::<Option<Vec<_>>>().map(Json::Array),
        _ => None,
    }
}

/// The largest file that a request carries, in letters of base64
/// (learn.microsoft.com/graph/outlook-large-attachments: what has 3 MB and more is uploaded in pieces).
const FILE_LIMIT: usize = 4_000_000;

fn file(item: &Value) -> Result<Json, String> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let text = |key: &str| item.get(key).and_then(Value::as_str);
    let name = text("name").filter(|name| !name.is_empty()).ok_or("an attachment has no name")?;
    let (bytes, kind) = match (text("text"), text("base64")) {
        (Some(content), None) => (STANDARD.encode(content), "text/plain"),
        (None, Some(content)) => {
            STANDARD.decode(content).map_err(|_| format!("the attachment {name} is no base64"))?;
            (content.to_owned(), "application/octet-stream")
        }
        _ => return Err(format!("the attachment {name} wants one of text and base64")),
    };
    let kind = text("content_type").unwrap_or(kind);
    if bytes.len() > FILE_LIMIT {
        return Err(format!(
            "the attachment {name} is larger than the 3 MB that Graph takes with a mail; email.send takes more over SMTP"
        ));
    }
    Ok(
        json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": name, "contentType": kind, "contentBytes": bytes}),
    )
}

/// Puts a member at a path of names; a later one of the same name wins, as HTML wins over text.
fn nest(body: &mut JsonMap<String, Json>, wire: &str, value: Json) -> Result<(), String> {
    match wire.split_once('/') {
        None => drop(body.insert(wire.to_owned(), value)),
        Some((first, rest)) => {
            let inner = body.entry(first.to_owned()).or_insert_with(|| json!({}));
            let inner = inner.as_object_mut().ok_or_else(|| format!("{first} is no object"))?;
            nest(inner, rest, value)?;
        }
    }
    Ok(())
}

fn query_member<'a>(path: &'a str, key: &str) -> Option<&'a str> {
    path.split_once('?')?.1.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

fn typed(action: &Action, ty: &Type, json: &Json, warnings: &mut Vec<String>) -> Result<Value, BadAnswer> {
    decode::decode_noting(ty, json, warnings).map_err(|e| wrong(action, e.to_string()))
}

fn wrong(action: &Action, message: impl std::fmt::Display) -> BadAnswer {
    BadAnswer { message: format!("the answer to {} can't be read: {message}", action.name) }
}

fn bad(param: &str, message: impl Into<String>) -> BadInput {
    BadInput { param: param.to_owned(), message: message.into() }
}

#[cfg(test)]
mod tests;
