//! A mail's conversation against a scripted server that offers PIPELINING.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::Client;
use super::client_tests::{ask, call, connection, open};
use crate::catalog::ConnectionKind;
use crate::config::{Credential, Email, Tls};
use crate::engine::Outcome;
use crate::value::Value;

type Heard = Arc<Mutex<Vec<String>>>;

/// Takes mail for anybody but `nobody@…`, and says 354 to DATA whatever was said to RCPT, as RFC 2920 allows.
async fn converse(stream: TcpStream, heard: Heard) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 here\r\n").await?;
    let (mut line, mut content) = (String::new(), false);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        heard.lock().unwrap().push(line.trim_end().to_owned());
        let answer = match (content, line.get(..4).unwrap_or(&line)) {
            (true, _) if line == ".\r\n" => "250 taken\r\n",
            (true, _) => continue,
            (_, "EHLO") => "250-here\r\n250 PIPELINING\r\n",
            (_, "DATA") => "354 go on\r\n",
            (_, "QUIT") => "221 bye\r\n",
            (_, "RCPT") if line.contains("nobody@") => "550 no such mailbox\r\n",
            _ => "250 fine\r\n",
        };
        content = answer.starts_with('3');
        stream.write_all(answer.as_bytes()).await?;
    }
}

async fn server() -> (Client, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Heard::default();
    let told = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, Arc::clone(&told)));
        }
    });
    let mut mail = connection(ConnectionKind::Email, String::new(), Credential::None);
    mail.base_url = None;
    mail.email = Some(Email { host: "127.0.0.1".into(), port, tls: Tls::None, from: "soc@contoso.example".into() });
    (open(mail).unwrap(), heard)
}

async fn send(client: &Client, to: &[&str]) -> Outcome {
    let to = Value::list(to.iter().map(Value::str).collect());
    ask(client, call("email.send", &[("to", to), ("subject", Value::str("s")), ("text", Value::str(".\r\nt"))])).await
}

#[tokio::test]
async fn a_server_that_takes_commands_together_gets_them_together_and_each_mail_once() {
    let (client, heard) = server().await;
    for _ in 0..2 {
        let outcome = send(&client, &["a@b.example", "c@d.example"]).await;
        assert!(matches!(outcome, Outcome::Done { status: 250, .. }), "{outcome:?}");
    }
    let heard = heard.lock().unwrap();
    let count = |what: &str| heard.iter().filter(|line| line.starts_with(what)).count();
    assert_eq!((count("MAIL"), count("RCPT"), count("DATA"), count("Subject: s")), (2, 4, 2, 2), "{heard:?}");
    assert_eq!((heard.iter().filter(|line| *line == ".").count(), count("..")), (2, 2), "{heard:?}");
    // One greeting of the library and one of ours: the second mail went over the same connection.
    assert_eq!(count("EHLO"), 2);
}

#[tokio::test]
async fn one_refused_recipient_among_pipelined_commands_stops_the_mail() {
    let (client, heard) = server().await;
    let outcome = send(&client, &["a@b.example", "nobody@b.example"]).await;
    let Outcome::Refused { code, message, .. } = &outcome else { panic!("{outcome:?}") };
    assert_eq!(code, "smtp_550");
    assert!(message.contains("the recipient nobody@b.example") && message.contains("no such mailbox"), "{message}");
    assert!(!heard.lock().unwrap().iter().any(|line| line.starts_with("Subject") || line == "."), "no content left");
    // The connection is in an unknown state and is not used again.
    let outcome = send(&client, &["a@b.example"]).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert_eq!(heard.lock().unwrap().iter().filter(|line| line.starts_with("EHLO")).count(), 4);
}
