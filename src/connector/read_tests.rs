//! Reads over the catalogue's requests: pages, shared answers, a user's risk, and answers that are none.

use std::sync::Arc;

use super::client_tests::{Act, Server, ask, call, connection, is_refused, is_unknown, open, say};
use crate::catalog::ConnectionKind;
use crate::config::Credential;
use crate::engine::{Outcome, Purpose};
use crate::value::{Map, Value};

const USER: &str = "3b7d1c52-0c44-4d8e-9a37-5f2b6c81d904";

async fn graph(script: impl Fn(&str) -> Act + Send + Sync + 'static) -> (Server, super::Client) {
    let server = Server::start(script).await;
    let client =
        open(connection(ConnectionKind::Graph, format!("http://{}", server.address), Credential::None)).unwrap();
    (server, client)
}

fn risk_of(user: &str) -> crate::engine::Call {
    call("entra.get_user_risk", &[("user", Value::str(user))])
}

fn no_such() -> Act {
    say("404 Not Found", "", r#"{"error":{"code":"Request_ResourceNotFound","message":"does not exist"}}"#)
}

#[tokio::test]
async fn no_risk_is_believed_only_of_a_user_who_exists() {
    let user = format!(r#"{{"id":"{USER}","userPrincipalName":"lena@contoso.example","displayName":"Lena"}}"#);
    let (server, client) = graph(move |request| match request.starts_with("GET /v1.0/users/") {
        true => say("200 OK", "", &user),
        false => no_such(),
    })
    .await;
    let outcome = ask(&client, risk_of(USER)).await;
    let Outcome::Done { output, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(output.get("level"), Some(&Value::str("None")));
    // Asked again within a minute, nobody is bothered; a look-up or a retry asks afresh.
    assert!(matches!(ask(&client, risk_of(USER)).await, Outcome::Done { .. }));
    assert_eq!(server.asked("riskyUsers"), 1);
    let look = crate::engine::Call { purpose: Purpose::Look, ..risk_of(USER) };
    assert!(matches!(ask(&client, look).await, Outcome::Done { .. }));
    assert_eq!(server.asked("riskyUsers"), 2);

    let (_, client) = graph(|_| no_such()).await;
    let outcome = ask(&client, risk_of(USER)).await;
    assert!(is_refused(&outcome, "user_not_found"), "{outcome:?}");
    let (_, client) = graph(|request| match request.starts_with("GET /v1.0/users/") {
        true => say("500 Oops", "", "{}"),
        false => no_such(),
    })
    .await;
    assert!(matches!(ask(&client, risk_of(USER)).await, Outcome::Unknown { .. }), "an outage is no low risk");
}

#[tokio::test]
async fn identical_reads_in_flight_share_one_call() {
    let (server, client) = graph(|_| say("200 OK", "", r#"{"id":"1","userPrincipalName":"a@b.example"}"#)).await;
    let same = || ask(&client, call("entra.get_user", &[("user", Value::str("a@b.example"))]));
    let other = ask(&client, call("entra.get_user", &[("user", Value::str("c@b.example"))]));
    let (a, b, c, d) = tokio::join!(same(), same(), same(), other);
    for outcome in [a, b, c, d] {
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    }
    assert_eq!(server.asked("GET /v1.0/users/"), 2);
    same().await;
    assert_eq!(server.asked("GET /v1.0/users/"), 3, "an answer that is in is not reused");
}

#[tokio::test]
async fn answers_that_are_no_json_leave_the_outcome_unknown() {
    for body in ["<html>Sign in</html>", "{\"id\":", &"[".repeat(10_000)] {
        let body = body.to_owned();
        let (_, client) = graph(move |_| say("200 OK", "", &body)).await;
        let outcome = ask(&client, call("entra.get_user", &[("user", Value::str("a@b.example"))])).await;
        assert!(is_unknown(&outcome, "invalid_answer"), "{outcome:?}");
    }
}

#[tokio::test]
async fn pages_are_followed_on_the_same_origin_and_never_in_a_circle() {
    let page = |next: &str| format!(r#"{{"value":[],"@odata.nextLink":"{next}"}}"#);
    let list = |client: super::Client| async move { client.fetch("c", "xdr.list_alerts", Map::new()).await };
    let elsewhere = page("http://evil.example/v1.0/security/alerts_v2?$skip=1");
    let (server, client) = graph(move |_| say("200 OK", "", &elsewhere)).await;
    let outcome = list(client).await.unwrap_err();
    assert!(is_unknown(&outcome, "foreign_link"), "{outcome:?}");
    assert_eq!(server.asked(""), 1);

    let host = Arc::new(std::sync::OnceLock::<String>::new());
    let known = Arc::clone(&host);
    let (server, client) = graph(move |request| {
        let base = known.get().map_or("", String::as_str);
        let next = if request.contains("skiptoken=a") { "b" } else { "a" };
        say("200 OK", "", &page(&format!("http://{base}/v1.0/security/alerts_v2?$skiptoken={next}")))
    })
    .await;
    host.set(server.address.to_string()).unwrap();
    let outcome = list(client).await.unwrap_err();
    assert!(is_unknown(&outcome, "endless_list"), "{outcome:?}");
    assert_eq!(server.asked(""), 3);
}

#[tokio::test]
async fn a_404_on_the_list_of_machines_is_an_empty_list() {
    let server = Server::start(|_| no_such()).await;
    let client = open(connection(ConnectionKind::Mde, format!("http://{}/api", server.address), Credential::None));
    let client = client.unwrap();
    let outcome = ask(&client, call("mde.list_machines", &[])).await;
    let Outcome::Done { output, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(output.get("value"), Some(&Value::list(vec![])));
    let machine = "9c1e5bc9d7e413ddd7902c2932e418702b84d0cc";
    let outcome = ask(&client, call("mde.get_machine", &[("machine_id", Value::str(machine))])).await;
    assert!(is_refused(&outcome, "Request_ResourceNotFound"), "{outcome:?}");
    assert_eq!(server.asked("GET /api/machines"), 2);
}
