//! One request as the handlers see it, and one answer. Bytes and sockets are in `server`.

use serde_json::{Value as Json, json};

/// A request, decoded. Handlers are plain functions of it and of the state.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    pub(super) method: String,
    /// Decoded segments of the path, without empty ones.
    pub(super) path: Vec<String>,
    /// `http://host/raw/path`, for links to the next page.
    pub(super) url: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) authorization: Option<String>,
    /// The header `Metadata: true` of the managed identity endpoint.
    pub(super) metadata: bool,
    /// The header `X-IDENTITY-HEADER` of the one of App Service.
    pub(super) identity: Option<String>,
    pub(super) body: Vec<u8>,
}

/// What goes back.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `None` is an empty body.
    pub(super) body: Option<Json>,
    pub(super) retry_after: Option<i64>,
}

impl Answer {
    pub(super) fn new(status: u16, body: Json) -> Self {
        Answer { status, body: Some(body), retry_after: None }
    }

    pub(super) fn ok(body: Json) -> Self {
        Answer::new(200, body)
    }

    pub(super) fn empty(status: u16) -> Self {
        Answer { status, body: None, retry_after: None }
    }

    /// An error in the shape that Defender for Endpoint and Graph share.
    pub(super) fn error(status: u16, code: &str, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Answer::new(
            status,
            json!({"error": {"code": code, "message": message, "target": "00000000-0000-4000-a000-000000000000"}}),
        )
    }
}

impl Call {
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<usize>, String> {
        self.param(name)
            .map(|text| text.parse().map_err(|_| format!("'{text}' is not a number for {name}")))
            .transpose()
    }

    /// The body as a JSON object.
    pub(super) fn object(&self) -> Result<serde_json::Map<String, Json>, String> {
        match serde_json::from_slice(&self.body) {
            Ok(Json::Object(members)) => Ok(members),
            Ok(_) => Err("the body is no JSON object".into()),
            Err(error) => Err(format!("the body is no JSON: {error}")),
        }
    }

    /// The body as a form.
    pub(super) fn form(&self) -> Vec<(String, String)> {
        pairs(&String::from_utf8_lossy(&self.body))
    }
}

/// `a=b&c=d`, decoded.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key, true), decode(value, true))
        })
        .collect()
}

/// Percent-decoding; bytes that are no UTF-8 become the replacement character.
pub(super) fn decode(text: &str, plus: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' if plus => out.push(b' '),
            b'%' => {
                let mut ahead = bytes.clone();
                let digits = [ahead.next(), ahead.next()].map(|byte| byte.and_then(|b| char::from(b).to_digit(16)));
                if let [Some(high), Some(low)] = digits {
                    out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                    bytes = ahead;
                } else {
                    out.push(b'%');
                }
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_keeps_what_is_not_encoded() {
        assert_eq!(decode("a%40b+c%zz%4", true), "a@b c%zz%4");
        assert_eq!(decode("a+b", false), "a+b");
        assert_eq!(
            pairs("$filter=a+eq+'b%26c'&x"),
            [("$filter".to_owned(), "a eq 'b&c'".to_owned()), ("x".to_owned(), String::new())]
        );
    }
}
