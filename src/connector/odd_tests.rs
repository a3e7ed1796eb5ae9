//! The documented refusals of each service, word by word, and the odd ways in which they say yes.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value as Json, json};

use super::answer::failed;
use super::client_tests::{Server, ask, call, connection, is_refused, open, say};
use crate::catalog::ConnectionKind;
use crate::config::Credential;
use crate::engine::Outcome;
use crate::value::Value;

const INCIDENT: &str = "73e01a99-5cd7-4139-a149-9f2736ff2ab5";

fn refused(status: u16, wait: Option<&str>, body: &str) -> (String, String, bool, Option<u64>) {
    match failed(status, wait, body.as_bytes(), "2026-11-20T07:00:00Z".parse().unwrap()) {
        Outcome::Refused { code, message, transient, retry_after_ms, .. } => (code, message, transient, retry_after_ms),
        Outcome::Unknown { code, message, .. } => (format!("unknown {code}"), message, true, None),
        other => panic!("{other:?}"),
    }
}

/// Every error code that the reference pages list, in the shape in which each service sends it.
#[test]
fn the_documented_errors_of_each_service_keep_their_code_and_their_words() {
    let endpoint: [(u16, &[&str]); 6] = [
        (
            400,
            &[
                "BadRequest",
                "ODataError",
                "InvalidInput",
                "InvalidRequestBody",
                "InvalidHashValue",
                "InvalidDomainName",
                "InvalidIpAddress",
                "InvalidUrl",
                "MaximumBatchSizeExceeded",
                "MissingRequiredParameter",
                "OsPlatformNotSupported",
                "ClientVersionNotSupported",
                "ActiveRequestAlreadyExists",
            ],
        ),
        (401, &["Unauthorized"]),
        (403, &["Forbidden", "DisabledFeature", "DisallowedOperation"]),
        (404, &["NotFound", "ResourceNotFound"]),
        (409, &["Conflict"]),
        (412, &["PreconditionFailed"]),
    ];
    for (status, codes) in endpoint {
        for code in codes {
            let body = json!({"error": {"code": code, "message": "why", "target": "3f0c"}}).to_string();
            assert_eq!(refused(status, None, &body), ((*code).to_owned(), "why".to_owned(), status == 401, None));
        }
    }
    let server = json!({"error": {"code": "InternalServerError", "message": "later"}}).to_string();
    assert_eq!(refused(500, None, &server).0, "unknown InternalServerError");
    let others = [
        // Graph: `innerError` and `innererror`, nested or not.
        (
            403,
            r#"{"error":{"code":"Authorization_RequestDenied","message":"Insufficient privileges","innerError":{"date":"2026-11-20T07:15:00","request-id":"a","client-request-id":"b"}}}"#,
            "Authorization_RequestDenied",
            "Insufficient privileges",
        ),
        (
            404,
            r#"{"error":{"code":"ErrorItemNotFound","message":"The rule was not found.","innererror":{"request-id":"a"}}}"#,
            "ErrorItemNotFound",
            "The rule was not found.",
        ),
        // Defender for Cloud Apps: no code.
        (404, r#"{"detail":"Alert x was not found"}"#, "http_404", "Alert x was not found"),
        // Resource Manager.
        (
            409,
            r#"{"error":{"code":"Conflict","message":"Newer instance of Incident exists. Incident etag does not match."}}"#,
            "Conflict",
            "Newer instance",
        ),
        // Azure Monitor: what is wrong with the query is inside.
        (
            400,
            r#"{"error":{"message":"The request had some invalid properties","code":"BadArgumentError","innererror":{"code":"SyntaxError","message":"A recognition error occurred in the query.","innererror":{"code":"SYN0002","message":"Query could not be parsed at 'x' on line [1,1]"}}}}"#,
            "BadArgumentError",
            "Query could not be parsed at 'x'",
        ),
        // A gateway before any of them.
        (502, "<html><h1>Bad Gateway</h1></html>", "unknown http_502", "the service failed"),
    ];
    for (status, body, code, words) in others {
        let (found, message, ..) = refused(status, None, body);
        assert!(found == code && message.contains(words), "{body}: {found} {message}");
    }
}

#[test]
fn each_service_throttles_in_its_own_way() {
    for (wait, body, ms) in [
        (
            Some("21"),
            r#"{"error":{"code":"TooManyRequests","message":"Too many requests. Wait 21 seconds."}}"#,
            Some(21_000),
        ),
        // Identity Protection sends no Retry-After.
        (
            None,
            r#"{"error":{"code":"TooManyRequests","message":"Too many requests","innerError":{"code":"429"}}}"#,
            None,
        ),
        (None, "", None),
        (
            Some("Fri, 20 Nov 2026 07:00:30 GMT"),
            r#"{"error":{"code":"ThrottledError","message":"Rate limit is exceeded"}}"#,
            Some(30_000),
        ),
    ] {
        let (code, _, transient, wait) = refused(429, wait, body);
        assert_eq!((code.as_str(), transient, wait), ("throttled", true, ms), "{body}");
    }
}

#[tokio::test]
async fn a_machine_action_is_accepted_with_201_and_with_200() {
    let machine = "9c1e5bc9d7e413ddd7902c2932e418702b84d0cc";
    for status in ["201 Created", "200 OK"] {
        let action = json!({"id": "5382f7ea-7557-4ab7-9782-d50480024a4e", "type": "Isolate", "status": "pending", "machineId": machine,
            "creationDateTimeUtc": "2026-11-20T07:20:00.1234567Z", "lastUpdateTimeUtc": "2026-11-20T07:20:00Z"});
        let server = Server::start(move |_| say(status, "", &action.to_string())).await;
        let client =
            open(connection(ConnectionKind::Mde, format!("http://{}", server.address), Credential::None)).unwrap();
        let inputs = [("machine_id", Value::str(machine)), ("comment", Value::str("c"))];
        let outcome = ask(&client, call("mde.isolate_machine", &inputs)).await;
        let Outcome::Done { output, .. } = outcome else { panic!("{outcome:?}") };
        // The word in another case than the pages have it, and the time under its other name.
        assert_eq!(output.get("status"), Some(&Value::str("Pending")));
        assert!(output.get("updated").is_some());
    }
}

fn incident(etag: &str) -> String {
    json!({
        "id": "/x", "name": INCIDENT, "etag": etag,
        "properties": {"title": "Spray", "severity": "High", "status": "New", "incidentNumber": 7, "description": "d",
            "createdTimeUtc": "2026-11-20T07:00:00Z", "labels": [{"labelName": "a", "labelType": "User"}],
            "owner": {"objectId": null, "userPrincipalName": "lena@contoso.example"}, "classification": null},
    })
    .to_string()
}

#[tokio::test]
async fn a_sentinel_incident_is_written_whole_and_again_where_somebody_was_faster() {
    let reads = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        if request.starts_with("GET ") {
            return say("200 OK", "", &incident(&format!("\"{}\"", reads.fetch_add(1, Ordering::SeqCst))));
        }
        let body: Json = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
        match body["etag"].as_str() {
            Some("\"0\"") => say("409 Conflict", "", r#"{"error":{"code":"Conflict","message":"etag"}}"#),
            _ => say("200 OK", "", &incident("\"2\"")),
        }
    })
    .await;
    let base = format!(
        "http://{}/subscriptions/s/resourceGroups/g/providers/Microsoft.OperationalInsights/workspaces/w",
        server.address
    );
    let client = open(connection(ConnectionKind::Azure, base, Credential::None)).unwrap();
    let inputs =
        [("incident_id", Value::str(INCIDENT)), ("status", Value::str("Active")), ("severity", Value::str("Low"))];
    let outcome = ask(&client, call("azure.update_incident", &inputs)).await;
    assert!(
        matches!(&outcome, Outcome::Done { output, .. } if output.get("number") == Some(&Value::Int(7))),
        "{outcome:?}"
    );
    assert_eq!((server.asked("GET /subscriptions/s/"), server.asked("PUT /subscriptions/s/")), (2, 2));
    // What was not given is sent back as it was; what was null is not sent.
    assert_eq!(server.asked(r#""title":"Spray""#), 2);
    assert_eq!(server.asked(r#""userPrincipalName":"lena@contoso.example""#), 2);
    assert_eq!((server.asked(r#""status":"Active""#), server.asked(r#""classification""#)), (2, 0));
    assert_eq!(server.asked("api-version=2023-11-01"), 4);
}

#[tokio::test]
async fn who_never_gets_a_word_in_is_told() {
    let server = Server::start(|request| match request.starts_with("GET ") {
        true => say("200 OK", "", &incident("\"0\"")),
        false => say("412 Precondition Failed", "", r#"{"error":{"code":"PreconditionFailed","message":"etag"}}"#),
    })
    .await;
    let client =
        open(connection(ConnectionKind::Azure, format!("http://{}", server.address), Credential::None)).unwrap();
    let inputs = [("incident_id", Value::str(INCIDENT)), ("status", Value::str("Active"))];
    let outcome = ask(&client, call("azure.update_incident", &inputs)).await;
    assert!(is_refused(&outcome, "PreconditionFailed"), "{outcome:?}");
    assert_eq!(server.asked("PUT "), 4);
}

#[tokio::test]
async fn rows_of_log_analytics_are_named_and_a_part_of_them_is_none() {
    let whole = json!({"tables": [{"name": "PrimaryResult", "columns": [{"name": "User", "type": "string"}, {"name": "Hits", "type": "long"}],
        "rows": [["lena", 3], ["omar", null]]}]});
    let mut part = whole.clone();
    part["error"] = json!({"code": "PartialError", "message": "There were some errors when processing your query.",
        "details": [{"code": "EngineError", "message": "The results of this query exceed the set limit of 64 MB."}]});
    let server = Server::start(move |request| match request.contains("partial") {
        true => say("200 OK", "", &part.to_string()),
        false => say("200 OK", "", &whole.to_string()),
    })
    .await;
    let base = format!("http://{}/v1/workspaces/w", server.address);
    let client = open(connection(ConnectionKind::LogAnalytics, base, Credential::None)).unwrap();
    let params = Value::object([("since", Value::Int(1))]);
    let inputs = [("query", Value::str("SigninLogs")), ("params", params), ("timespan", Value::str("12h"))];
    let outcome = ask(&client, call("azure.query_logs", &inputs)).await;
    let Outcome::Done { output, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(output.get("count"), Some(&Value::Int(2)));
    let rows = output.get("rows").and_then(Value::as_list).unwrap();
    assert_eq!((rows[0].get("User"), rows[1].get("Hits")), (Some(&Value::str("lena")), None));
    assert_eq!(server.asked(r#""timespan":"PT43200S""#), 1);
    assert_eq!(server.asked(r#""query":"let since = long(1);\nSigninLogs""#), 1);
    let outcome = ask(&client, call("azure.query_logs", &[("query", Value::str("partial"))])).await;
    let said = matches!(&outcome, Outcome::Unknown { message, .. } if message.contains("in part only: The results of this query exceed"));
    assert!(said, "{outcome:?}");
}

#[tokio::test]
async fn a_file_for_the_library_goes_out_as_a_form() {
    let server = Server::start(|_| say("200 OK", "", r#"{"fileName":"collect.ps1"}"#)).await;
    let client = open(connection(ConnectionKind::Mde, format!("http://{}", server.address), Credential::None)).unwrap();
    let file = Value::object([("name", Value::str("collect.ps1")), ("text", Value::str("Get-Process"))]);
    let outcome =
        ask(&client, call("mde.upload_library_file", &[("file", file), ("parameters", Value::str("-All"))])).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    for part in [
        "content-type: multipart/form-data; boundary=",
        "name=\"file\"; filename=\"collect.ps1\"",
        "\r\n\r\nGet-Process\r\n--",
        "name=\"OverrideIfExists\"\r\n\r\ntrue\r\n",
        "name=\"HasParameters\"\r\n\r\ntrue\r\n",
    ] {
        assert_eq!(server.asked(part), 1, "{part}");
    }
}
