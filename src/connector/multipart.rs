//! A form with a file in it, as browsers send one (RFC 7578).

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value as Json};

use crate::id::{digest16, hex};

pub(super) struct Form {
    pub(super) kind: String,
    pub(super) body: Vec<u8>,
}

/// A file is an object with a `name`, and its content as `text` or `base64`; everything else is text. Whether there are
/// parameters follows from what is said of them.
///
/// # Errors
/// One sentence where the file has no name that a header can carry, or no content.
pub(super) fn form(fields: &Map<String, Json>) -> Result<Form, String> {
    let mut parts: Vec<(String, Vec<u8>)> = vec![];
    for (key, value) in fields {
        match value {
            Json::Object(file) => parts.push(part(key, file)?),
            Json::String(text) => parts.push((disposition(key), text.clone().into_bytes())),
            other => parts.push((disposition(key), other.to_string().into_bytes())),
        }
    }
    if fields.contains_key("ParametersDescription") {
        parts.push((disposition("HasParameters"), b"true".to_vec()));
    }
    let mut boundary = hex(&digest16(&["boundary"]));
    // What stands in no part can't end one.
    while parts.iter().any(|(_, body)| body.windows(boundary.len()).any(|window| window == boundary.as_bytes())) {
        boundary = hex(&digest16(&["boundary", &boundary]));
    }
    let mut body = vec![];
    for (head, content) in parts {
        body.extend_from_slice(format!("--{boundary}\r\n{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(&content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Ok(Form { kind: format!("multipart/form-data; boundary={boundary}"), body })
}

fn disposition(key: &str) -> String {
    format!("Content-Disposition: form-data; name=\"{key}\"")
}

fn part(key: &str, file: &Map<String, Json>) -> Result<(String, Vec<u8>), String> {
    let text = |name: &str| file.get(name).and_then(Json::as_str);
    let name = text("name").unwrap_or("");
    let bad = |c: char| c.is_control() || "/\\\"".contains(c);
    if name.is_empty() || name.len() > 255 || name.starts_with('.') || name.contains(bad) {
        return Err(format!("{name:?} is no file name: no folder, no quotes, no dot in front"));
    }
    let content = match (text("text"), text("base64")) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(coded)) => STANDARD.decode(coded).map_err(|_| format!("the content of {name} is no base64"))?,
        _ => return Err(format!("the file {name} wants one of text and base64")),
    };
    let mut head = disposition(key);
    // Writing to a string does not fail.
    let _ = write!(head, "; filename=\"{name}\"\r\nContent-Type: application/octet-stream");
    Ok((head, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(file: Json) -> Map<String, Json> {
        Map::from_iter([("file".to_owned(), file), ("OverrideIfExists".to_owned(), Json::Bool(true))])
    }

    #[test]
    fn a_file_and_its_fields_are_parts_that_content_can_not_end() {
        let boundary = hex(&digest16(&["boundary"]));
        let hostile = format!("x\r\n--{boundary}--\r\n");
        let mut fields = fields(serde_json::json!({"name": "collect.ps1", "text": hostile}));
        fields.insert("ParametersDescription".into(), Json::from("-All"));
        let form = form(&fields).unwrap();
        let text = String::from_utf8(form.body).unwrap();
        let boundary = form.kind.split_once("boundary=").unwrap().1;
        assert!(!hostile.contains(boundary));
        let parts: Vec<&str> = text.split(&format!("--{boundary}")).collect();
        assert_eq!(parts.len(), 6, "{text}");
        assert!(text.contains("name=\"file\"; filename=\"collect.ps1\"") && text.contains(&hostile));
        assert!(text.contains("name=\"HasParameters\"\r\n\r\ntrue\r\n"));
        assert!(text.contains("name=\"OverrideIfExists\"\r\n\r\ntrue\r\n"));
    }

    #[test]
    fn a_name_that_would_break_out_is_refused() {
        for name in ["", "../a", "a\"; filename=\"b", "a\r\nX: y", ".hidden"] {
            assert!(form(&fields(serde_json::json!({"name": name, "text": "x"}))).is_err(), "{name:?}");
        }
        assert!(form(&fields(serde_json::json!({"name": "a", "base64": "%"}))).is_err());
        assert!(form(&fields(serde_json::json!({"name": "a"}))).is_err());
    }
}
