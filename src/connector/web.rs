//! `http.request`: a flow's own request below a connection's base URL. Where it may lead is decided in `conn` and
//! `address`; here it is put together and its answer is given the shape of `HttpAnswer`.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value as Json, json};

use super::conn::{Conn, Outgoing, Raw, refuse};
use crate::engine::Outcome;
use crate::value::{Map, Value};

/// The longest body that a flow may send.
const LARGEST: usize = 8 << 20;

/// Headers of a request by which some servers take another method or path than the one that was looked at.
const MISLEADING: [&str; 6] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-original-method",
    "x-rewrite-url",
];
/// Headers of an answer that may hold credentials.
const WITHHELD: [&str; 4] = ["authorization", "proxy-authorization", "set-cookie", "set-cookie2"];

pub(super) fn request(conn: &Conn, inputs: &Map) -> Result<Outgoing, Outcome> {
    let bad = |why: String| refuse("bad_input", why);
    let text = |key: &str| inputs.get(key).and_then(Value::as_str);
    let method = text("method").unwrap_or("GET").to_ascii_uppercase();
    let method = match method.as_str() {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" => Method::try_from(method.as_str()).unwrap_or_default(),
        _ => {
            return Err(bad(format!(
                "method: {:?} is none of GET, HEAD, POST, PUT, PATCH, DELETE",
                super::answer::clean(&method, 40)
            )));
        }
    };
    let mut url = match (text("path"), text("url")) {
        (Some(path), _) if path.is_empty() || path.starts_with('/') => conn.url(path)?,
        (Some(path), _) => {
            return Err(bad(format!("path: {:?} must begin with a slash", super::answer::clean(path, 200))));
        }
        (None, Some(url)) => conn.within(url)?,
        (None, None) => conn.url("")?,
    };
    if let Some(query) = inputs.get("query").and_then(Value::as_map).filter(|query| !query.is_empty()) {
        let mut pairs = url.query_pairs_mut();
        for (key, value) in query {
            match value {
                Value::List(items) => items.iter().for_each(|item| {
                    pairs.append_pair(key, &plain(item));
                }),
                one => {
                    pairs.append_pair(key, &plain(one));
                }
            }
        }
    }
    let (body, kind) = match (inputs.get("body"), text("text")) {
        (Some(_), Some(_)) => return Err(bad("give body or text, not both".into())),
        (Some(body), None) => (Some(Bytes::from(body.to_json().to_string())), "application/json"),
        (None, Some(text)) => (Some(Bytes::from(text.to_owned())), "text/plain; charset=utf-8"),
        (None, None) => (None, ""),
    };
    if body.as_ref().is_some_and(|body| body.len() > LARGEST) {
        return Err(bad(format!("the body is longer than {} MiB", LARGEST >> 20)));
    }
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
    if body.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::try_from(kind).unwrap_or(HeaderValue::from_static("text/plain")));
    }
    for (key, value) in inputs.get("headers").and_then(Value::as_map).into_iter().flatten() {
        let name = HeaderName::try_from(&**key).map_err(|_| bad(format!("headers: {key:?} is no header name")))?;
        if conn.owns_header(&name) {
            return Err(bad(format!("headers: {name} belongs to the connection {}, a flow can't set it", conn.name)));
        }
        if MISLEADING.contains(&name.as_str()) {
            return Err(bad(format!("headers: {name} would make another request of this one; give method and path")));
        }
        let value = HeaderValue::try_from(plain(value))
            .map_err(|_| bad(format!("headers: the value of {name} holds characters that no header can carry")))?;
        headers.insert(name, value);
    }
    Ok(Outgoing { method, url, headers, body })
}

/// `{status, headers, body?, text?}`.
pub(super) fn answer(raw: &Raw) -> Json {
    let headers: serde_json::Map<String, Json> = raw
        .headers
        .iter()
        .filter(|(name, _)| !WITHHELD.contains(&name.as_str()))
        .map(|(name, value)| (name.as_str().to_owned(), Json::from(String::from_utf8_lossy(value.as_bytes()))))
        .collect();
    let mut out = json!({"status": raw.status, "headers": headers});
    let Some(members) = out.as_object_mut() else { return out };
    if let Ok(body) = serde_json::from_slice::<Json>(&raw.body) {
        members.insert("body".into(), body);
    } else if !raw.body.is_empty() {
        members.insert("text".into(), Json::from(String::from_utf8_lossy(&raw.body)));
    }
    out
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        other => match other.to_json() {
            Json::String(text) => text,
            json => json.to_string(),
        },
    }
}
