//! Mail servers that refuse, break off or fall silent at every stage: what a failure proves depends on how far it came.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::client_tests::{ask, call, connection, open};
use crate::catalog::ConnectionKind;
use crate::config::{Connection, Credential, Email, Tls};
use crate::engine::{Call, Outcome};
use crate::value::Value;

/// The stages of a conversation, in order; `content` is the answer to the whole mail.
const STAGES: [&str; 6] = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "content"];

#[derive(Clone, Copy, Debug)]
enum Act {
    Say(u16),
    BreakOff,
    Silence,
}

/// A server that does `act` at one stage, and all right at the others.
async fn server(stage: &'static str, act: Act) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, stage, act));
        }
    });
    address
}

async fn serve(stream: TcpStream, stage: &str, act: Act) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut at = "greeting".to_owned();
    loop {
        let well = match at.as_str() {
            "greeting" => 220,
            "DATA" => 354,
            _ => 250,
        };
        let code = match act {
            _ if at != stage => well,
            Act::Say(code) => code,
            Act::BreakOff => return Ok(()),
            Act::Silence => std::future::pending().await,
        };
        write.write_all(format!("{code} as it is\r\n").as_bytes()).await?;
        if at == "DATA" && code == 354 {
            while lines.next_line().await?.is_some_and(|line| line != ".") {}
            at = "content".into();
            continue;
        }
        let Some(line) = lines.next_line().await? else { return Ok(()) };
        at = line.split([' ', ':']).next().unwrap_or_default().to_uppercase();
    }
}

async fn sent(stage: &'static str, act: Act) -> Outcome {
    let address = server(stage, act).await;
    let email = Email {
        host: address.ip().to_string(),
        port: address.port(),
        tls: Tls::None,
        from: "soc@contoso.example".into(),
    };
    let mail = connection(ConnectionKind::Email, String::new(), Credential::None);
    let client = open(Connection { base_url: None, email: Some(email), allow_private: true, ..mail }).unwrap();
    let to = Value::list(vec![Value::str("a@b.example")]);
    let inputs = [("to", to), ("subject", Value::str("s")), ("text", Value::str("t"))];
    let timeout_ms = if matches!(act, Act::Silence) { 300 } else { 20_000 };
    ask(&client, Call { timeout_ms, ..call("email.send", &inputs) }).await
}

#[tokio::test]
async fn a_mail_server_that_refuses_at_any_stage_did_nothing() {
    for stage in STAGES {
        for (code, passing) in [(450, true), (550, false)] {
            let outcome = sent(stage, Act::Say(code)).await;
            let transient = match &outcome {
                Outcome::Refused { transient, .. } | Outcome::NotSent { transient, .. } => *transient,
                other => panic!("{stage} {code}: {other:?}"),
            };
            // Who does not even greet may do so later, whatever he says.
            let early = matches!(stage, "greeting" | "EHLO");
            assert!(transient == passing || early, "{stage} {code}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_mail_is_only_doubtful_once_its_content_is_on_the_way() {
    for act in [Act::BreakOff, Act::Silence] {
        for stage in STAGES {
            let outcome = sent(stage, act).await;
            let fits = match stage {
                "content" => matches!(outcome, Outcome::Unknown { .. }),
                _ => matches!(outcome, Outcome::NotSent { transient: true, .. }),
            };
            assert!(fits, "{act:?} at {stage}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_broke_while_it_was_idle_costs_no_mail() {
    // Each connection takes one mail and is gone.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let limit = Duration::from_millis(200);
                drop(tokio::time::timeout(limit, serve(stream, "none", Act::BreakOff)).await);
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            });
        }
    });
    let email = Email {
        host: address.ip().to_string(),
        port: address.port(),
        tls: Tls::None,
        from: "soc@contoso.example".into(),
    };
    let mail = connection(ConnectionKind::Email, String::new(), Credential::None);
    let client = open(Connection { base_url: None, email: Some(email), allow_private: true, ..mail }).unwrap();
    let to = Value::list(vec![Value::str("a@b.example")]);
    let inputs = [("to", to), ("subject", Value::str("s")), ("text", Value::str("t"))];
    for round in 1..=2 {
        let outcome = ask(&client, call("email.send", &inputs)).await;
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        while taken.load(std::sync::atomic::Ordering::SeqCst) < round {
            tokio::task::yield_now().await;
        }
    }
}
