//! Every way in which a service can answer, fail or cheat, against a scripted server on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Client;
use crate::catalog::{Catalog, ConnectionKind, Effect};
use crate::check::program::Keep;
use crate::clock::Clock;
use crate::config::{
    Cloud, Config, Connection, Credential, Entra, Limits, OnMatch, Proof, Protected, Rate, Retention, SecretRef,
};
use crate::engine::{Call, Outcome, Purpose};
use crate::flow::model::Mode;
use crate::value::{Map, Value};

/// What the server does with one request.
pub(super) enum Act {
    Say(Vec<u8>),
    /// Closes with a reset.
    Reset,
    /// Keeps the connection open and says no more.
    Hang(Vec<u8>),
}

type Script = dyn Fn(&str) -> Act + Send + Sync;

/// A server that answers each request by script and keeps what it was asked.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) async fn start(script: impl Fn(&str) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, seen): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Server { address, asked }
    }

    pub(super) fn asked(&self, what: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|request| request.contains(what)).count()
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, seen: Arc<Mutex<Vec<String>>>) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let whole = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        (body.len() >= length.unwrap_or(0)).then_some(text)
    };
    let request = loop {
        match stream.read(&mut chunk).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
            _ => return,
        }
        if let Some(text) = whole(&bytes) {
            break text;
        }
    };
    seen.lock().unwrap().push(request.clone());
    match script(&request) {
        Act::Say(answer) => {
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
        Act::Reset => stream.set_zero_linger().unwrap(),
        Act::Hang(answer) => {
            let _ = stream.write_all(&answer).await;
            let _ = stream.read(&mut chunk).await;
        }
    }
}

pub(super) fn say(status: &str, headers: &str, body: &str) -> Act {
    let length = body.len();
    Act::Say(
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
            .into_bytes(),
    )
}

pub(super) fn connection(kind: ConnectionKind, base_url: String, credential: Credential) -> Connection {
    let allow_private = base_url.starts_with("http://127.");
    Connection {
        name: "c".into(),
        kind,
        base_url: Some(base_url),
        credential,
        rate: Rate::Documented,
        ca_file: None,
        email: None,
        webhook_url: None,
        read: Vec::new(),
        headers: BTreeMap::new(),
        allow_private,
    }
}

pub(super) fn open(connection: Connection) -> Result<Client, crate::error::Error> {
    open_at(connection, Clock::system())
}

pub(super) fn open_at(connection: Connection, clock: Clock) -> Result<Client, crate::error::Error> {
    let config = Config {
        store: "/nowhere".into(),
        flows: Vec::new(),
        catalogues: Vec::new(),
        suppressions: vec![],
        user_scoped_suppressions: vec![],
        mode: Mode::Live,
        flow_modes: BTreeMap::new(),
        listen: "127.0.0.1:0".parse().unwrap(),
        watch: false,
        public_url: None,
        connections: BTreeMap::from([("c".into(), connection)]),
        webhooks: BTreeMap::new(),
        key_vaults: BTreeMap::new(),
        limits: Limits::default(),
        protected: Protected { devices: Vec::new(), users: Vec::new(), on_match: OnMatch::Ask },
        retention: Retention::default(),
        fresh_for: None,
        max_backlog: 1000,
        in_flight: 8,
        poll: BTreeMap::new(),
    };
    Client::open(&config, Arc::new(Catalog::builtin().unwrap()), clock)
}

pub(super) fn call(action: &str, inputs: &[(&str, Value)]) -> Call {
    let catalog = Catalog::builtin().unwrap();
    let action = Arc::clone(catalog.action(action).unwrap());
    Call {
        path: "/steps[1]".into(),
        attempt: 1,
        purpose: Purpose::Main,
        output: action.output.clone(),
        action,
        connection: "c".into(),
        inputs: inputs.iter().map(|(key, value)| (Arc::from(*key), value.clone())).collect::<Map>(),
        keep: Keep::All.into(),
        target: None,
        timeout_ms: 20_000,
        secure: false,
        maybe_sent: false,
        handled: false,
    }
}

fn web(path: &str) -> Call {
    call("http.request", &[("method", Value::str("GET")), ("path", Value::str(path))])
}

pub(super) async fn ask(client: &Client, call: Call) -> Outcome {
    client.go(None, call.effect(), "0123456789abcdef".into(), call.into()).await.outcome
}

/// Asks an `http` connection whose server answers every request alike.
async fn answered(script: impl Fn(&str) -> Act + Send + Sync + 'static) -> Outcome {
    let server = Server::start(script).await;
    let client =
        open(connection(ConnectionKind::Http, format!("http://{}", server.address), Credential::None)).unwrap();
    ask(&client, web("/x")).await
}

pub(super) fn is_unknown(outcome: &Outcome, wanted: &str) -> bool {
    matches!(outcome, Outcome::Unknown { code, .. } if code == wanted)
}

pub(super) fn is_refused(outcome: &Outcome, wanted: &str) -> bool {
    matches!(outcome, Outcome::Refused { code, .. } if code == wanted)
}

fn is_not_sent(outcome: &Outcome, wanted: &str, wants_transient: bool) -> bool {
    matches!(outcome, Outcome::NotSent { code, transient, .. } if code == wanted && *transient == wants_transient)
}

#[tokio::test]
async fn a_throttled_request_says_how_long_to_wait() {
    for (header, expected) in
        [("Retry-After: 7\r\n", Some(7000)), ("Retry-After: 99999999\r\n", Some(3_600_000)), ("", None)]
    {
        let outcome = answered(move |_| say("429 Too Many Requests", header, "")).await;
        let Outcome::Refused { transient, retry_after_ms, code, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!((code.as_str(), transient, retry_after_ms), ("throttled", true, expected));
    }
}

#[tokio::test]
async fn statuses_become_outcomes_with_the_services_own_words() {
    let body = r#"{"error":{"code":"ResourceNotFound","message":"Machine 1 was not found"}}"#;
    let outcome = answered(move |_| say("404 Not Found", "", body)).await;
    assert!(is_refused(&outcome, "ResourceNotFound"), "{outcome:?}");
    let outcome = answered(move |_| say("500 Oops", "", body)).await;
    assert!(is_unknown(&outcome, "ResourceNotFound"), "{outcome:?}");
    let outcome = answered(|_| say("200 OK", "X-A: b\r\n", "{\"a\": 1}")).await;
    let Outcome::Done { status: 200, output } = outcome else { panic!("{outcome:?}") };
    assert_eq!(output.at(&["body", "a"]), Some(&Value::Int(1)));
    assert_eq!(output.at(&["headers", "x-a"]), Some(&Value::str("b")));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = Server::start(|request| match request.starts_with("GET /x") {
        true => say("302 Found", "Location: /stolen\r\n", ""),
        false => say("200 OK", "", "{}"),
    })
    .await;
    let client =
        open(connection(ConnectionKind::Http, format!("http://{}", server.address), Credential::None)).unwrap();
    assert!(is_refused(&ask(&client, web("/x")).await, "redirect"));
    assert_eq!(server.asked("/stolen"), 0);
}

#[tokio::test]
async fn what_breaks_after_the_request_is_unknown() {
    assert!(is_unknown(&answered(|_| Act::Reset).await, "reset"));
    assert!(is_unknown(&answered(|_| Act::Say(Vec::new())).await, "reset"));
    let outcome = answered(|_| Act::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\":".to_vec())).await;
    assert!(is_unknown(&outcome, "truncated"), "{outcome:?}");
    for part in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"] {
        let server = Server::start(move |_| Act::Hang(part.to_vec())).await;
        let client =
            open(connection(ConnectionKind::Http, format!("http://{}", server.address), Credential::None)).unwrap();
        let slow = Call { timeout_ms: 50, ..web("/x") };
        assert!(is_unknown(&ask(&client, slow).await, "timeout"));
    }
}

#[tokio::test]
async fn what_finds_no_service_is_not_sent() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = open(connection(ConnectionKind::Http, format!("http://{gone}"), Credential::None)).unwrap();
    let outcome = ask(&client, web("/x")).await;
    assert!(is_not_sent(&outcome, "connect", true), "{outcome:?}");
    let client = open(connection(ConnectionKind::Http, "http://nowhere.invalid".into(), Credential::None)).unwrap();
    let outcome = ask(&client, web("/x")).await;
    assert!(matches!(outcome, Outcome::NotSent { transient: true, .. }), "{outcome:?}");
}

#[tokio::test]
async fn names_do_not_lead_into_the_own_network() {
    let server = Server::start(|_| say("200 OK", "", "{}")).await;
    let url = format!("http://localhost:{}", server.address.port());
    let client = open(connection(ConnectionKind::Http, url.clone(), Credential::None)).unwrap();
    let outcome = ask(&client, web("/x")).await;
    assert!(is_not_sent(&outcome, "address_refused", false), "{outcome:?}");
    assert_eq!(server.asked(""), 0);
    let literal = connection(ConnectionKind::Http, format!("http://{}", server.address), Credential::None);
    assert!(open(Connection { allow_private: false, ..literal }).is_err(), "an address is no way round it");
    let allowed = Connection { allow_private: true, ..connection(ConnectionKind::Http, url, Credential::None) };
    assert!(matches!(ask(&open(allowed).unwrap(), web("/x")).await, Outcome::Done { .. }));
    for path in ["/../secret", "/%2e%2e%2fsecret", "@169.254.169.254/", "//u@evil.example/x"] {
        let client =
            open(connection(ConnectionKind::Http, format!("http://{}/base", server.address), Credential::None))
                .unwrap();
        let before = server.asked("");
        let outcome = ask(&client, web(path)).await;
        if !matches!(outcome, Outcome::Done { .. }) {
            assert!(is_refused(&outcome, "bad_input"), "{path}: {outcome:?}");
            assert_eq!(server.asked(""), before);
        } else {
            assert_eq!(server.asked("GET /base//u@evil"), 1, "{path} stayed below the base");
        }
    }
}

#[tokio::test]
async fn flows_set_no_header_of_the_connection() {
    let server = Server::start(|_| say("200 OK", "", "{}")).await;
    let client =
        open(connection(ConnectionKind::Http, format!("http://{}", server.address), Credential::None)).unwrap();
    for (name, value) in [("Authorization", "Bearer x"), ("Host", "evil"), ("X-A", "b\r\nX-C: d"), ("X A", "b")] {
        let mut call = web("/x");
        call.inputs.insert("headers".into(), Value::object([(name, Value::str(value))]));
        let outcome = ask(&client, call).await;
        assert!(is_refused(&outcome, "bad_input"), "{name}: {outcome:?}");
    }
    assert_eq!(server.asked(""), 0);
}

/// Gzip that unpacks to `size` bytes: one literal, then matches of the longest length, at 13 bits for 258 bytes.
fn bomb(size: usize) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let (mut byte, mut used) = (0u8, 0);
    let mut bits = |text: &str| {
        for bit in text.bytes() {
            byte |= (bit - b'0') << used;
            used += 1;
            if used == 8 {
                out.push(byte);
                (byte, used) = (0, 0);
            }
        }
    };
    bits("110"); // the last block, fixed codes
    bits("00110000"); // the literal 0
    for _ in 0..size / 258 {
        bits("11000101"); // length 258
        bits("00000"); // distance 1
    }
    bits("00000000000000000000000"); // the end of the block, and what fills the byte
    out
}

#[tokio::test]
async fn a_small_answer_can_not_unpack_into_a_large_one() {
    let packed = bomb(64 << 20);
    assert!(packed.len() < 512 << 10);
    let outcome = answered(move |_| {
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", packed.len())
                .into_bytes();
        answer.extend_from_slice(&packed);
        Act::Say(answer)
    })
    .await;
    assert!(is_unknown(&outcome, "answer_too_large"), "{outcome:?}");
}

fn secret(text: &str) -> SecretRef {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("watchfloor-secret-{}-{number}", std::process::id()));
    std::fs::write(&file, text).unwrap();
    SecretRef::File(file)
}

pub(super) fn entra(server: &Server) -> Credential {
    Credential::Entra(Entra {
        tenant_id: "tenant".into(),
        client_id: "client".into(),
        proof: Proof::Secret(secret("hunter2-hunter2")),
        cloud: Cloud::Global,
        authority: format!("http://{}", server.address),
        scope: Some("api://x/.default".into()),
    })
}

fn token(number: usize) -> Act {
    say("200 OK", "", &format!(r#"{{"token_type":"Bearer","expires_in":3599,"access_token":"token-number-{number}"}}"#))
}

#[tokio::test]
async fn a_401_is_answered_with_a_new_token_once() {
    let tokens = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        if request.contains("oauth2/v2.0/token") {
            return token(tokens.fetch_add(1, Ordering::Relaxed));
        }
        if request.starts_with("GET /never") || request.contains("token-number-0") {
            return say(
                "401 Unauthorized",
                "",
                r#"{"error":{"code":"Unauthorized","message":"token-number-1 hunter2-hunter2"}}"#,
            );
        }
        say("200 OK", "", "{}")
    })
    .await;
    let url = format!("http://{}", server.address);
    let client = open(connection(ConnectionKind::Http, url, entra(&server))).unwrap();
    let outcome = ask(&client, web("/x")).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert_eq!((server.asked("POST /tenant/oauth2"), server.asked("GET /x")), (2, 2));
    assert_eq!(server.asked("client_secret=hunter2-hunter2"), 2);
    let reply = client.go(None, Effect::Destructive, String::new(), web("/never").into()).await;
    assert!(is_refused(&reply.outcome, "Unauthorized"), "{:?}", reply.outcome);
    assert_eq!(server.asked("GET /never"), 2);
    let shown = format!("{:?} {}", reply.outcome, String::from_utf8(reply.blob.unwrap()).unwrap());
    assert!(shown.contains("[redacted]") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn many_calls_wait_for_one_token() {
    let server = Server::start(|request| match request.contains("oauth2") {
        true => token(7),
        false => say("200 OK", "", "{}"),
    })
    .await;
    let url = format!("http://{}", server.address);
    let client = open(connection(ConnectionKind::Http, url, entra(&server))).unwrap();
    let calls = (0..16).map(|_| ask(&client, web("/x")));
    let outcomes = futures_util::future::join_all(calls).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done { .. })));
    assert_eq!((server.asked("oauth2"), server.asked("token-number-7")), (1, 16));
}

#[tokio::test]
async fn a_refused_token_says_what_to_do_and_is_not_asked_for_again_at_once() {
    let server = Server::start(|_| {
        say("401 Unauthorized", "", r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.\r\nTrace","error_codes":[7000215]}"#)
    })
    .await;
    let url = format!("http://{}", server.address);
    let client = open(connection(ConnectionKind::Http, url, entra(&server))).unwrap();
    // The first refusal holds for the whole connection: what comes after it waits, and hears why.
    for (code, transient) in [("AADSTS7000215", false), ("held", true), ("held", true)] {
        let outcome = ask(&client, web("/x")).await;
        assert!(is_not_sent(&outcome, code, transient), "{outcome:?}");
        assert!(format!("{outcome:?}").contains("the secret's value, not its id"));
    }
    assert_eq!(server.asked(""), 1);
}

#[tokio::test]
async fn a_managed_identity_is_asked_as_its_page_says() {
    let server = Server::start(|request| match request.starts_with("GET /metadata") {
        true => say("200 OK", "", r#"{"access_token":"from-the-machine","expires_in":"3599","token_type":"Bearer"}"#),
        false => say("200 OK", "", "{}"),
    })
    .await;
    let Credential::Entra(known) = entra(&server) else { panic!() };
    let identity =
        Credential::Entra(Entra { proof: Proof::ManagedIdentity { endpoint: Some(known.authority.clone()) }, ..known });
    let client = open(connection(ConnectionKind::Http, format!("http://{}", server.address), identity)).unwrap();
    assert!(matches!(ask(&client, web("/x")).await, Outcome::Done { .. }));
    let line = "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=api%3A%2F%2Fx&client_id=client";
    assert_eq!(
        (server.asked(line), server.asked("metadata: true"), server.asked("Bearer from-the-machine")),
        (1, 1, 1)
    );
}

#[tokio::test]
async fn a_post_that_is_throttled_inside_a_200_was_refused() {
    let server = Server::start(|_| say("200 OK", "", "Microsoft Teams endpoint returned HTTP error 429")).await;
    let webhook = secret(&format!("http://{}/workflow?sig=abcdefgh", server.address));
    let teams = Connection {
        webhook_url: Some(webhook),
        base_url: None,
        ..connection(ConnectionKind::Teams, String::new(), Credential::None)
    };
    let client = open(teams).unwrap();
    let outcome = ask(&client, call("teams.post", &[("title", Value::str("t")), ("text", Value::str("x"))])).await;
    assert!(is_refused(&outcome, "throttled"), "{outcome:?}");
    assert_eq!(server.asked("POST /workflow?sig=abcdefgh"), 1);
}

#[tokio::test]
async fn the_wait_for_the_rate_limit_is_not_the_calls_time() {
    let server = Server::start(|_| say("200 OK", "", "{}")).await;
    let slow = Connection {
        rate: Rate::Per { minute: Some(120), hour: None },
        ..connection(ConnectionKind::Http, format!("http://{}", server.address), Credential::None)
    };
    let client = open(slow).unwrap();
    // Twelve go at once, the thirteenth waits half a second, which is longer than its own limit.
    for _ in 0..13 {
        let reply = client.go(None, Effect::Read, String::new(), Call { timeout_ms: 450, ..web("/x") }.into()).await;
        assert!(matches!(reply.outcome, Outcome::Done { .. }), "{:?}", reply.outcome);
        assert!(reply.took < Duration::from_millis(450));
    }
}

#[tokio::test]
async fn fetch_sends_reads_only() {
    let server = Server::start(|_| say("200 OK", "", "{}")).await;
    let client =
        open(connection(ConnectionKind::Http, format!("http://{}", server.address), Credential::None)).unwrap();
    let outcome = client.fetch("c", "http.request", web("/x").inputs).await.unwrap_err();
    assert!(is_refused(&outcome, "not_a_read"), "{outcome:?}");
    assert!(client.fetch("nobody", "mde.get_alert", Map::new()).await.is_err());
    assert_eq!(server.asked(""), 0);
}
