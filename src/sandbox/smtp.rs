//! A mail server that takes everything: plain ESMTP without TLS, for loopback. Each accepted message is booked on the
//! alert whose id is in its subject, else in its body. The answer to a message is late and fails as answers over HTTP do.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::faults::Fault;
use super::server;
use super::state::World;

const MAX_LINE: u64 = 64 * 1024;
const MAX_MESSAGE: usize = 26 * 1024 * 1024;

/// Serves until the listener's task is aborted.
pub(super) async fn serve(listener: TcpListener, world: Arc<World>) {
    loop {
        if let Ok((socket, _)) = listener.accept().await {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let _ = converse(socket, world).await;
            });
        }
    }
}

async fn converse(socket: TcpStream, world: Arc<World>) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let (read, mut write) = socket.into_split();
    let mut read = BufReader::new(read);
    let mut envelope = Envelope::default();
    say(&mut write, "220 sandbox.contoso.example ESMTP").await?;
    while let Some(line) = line(&mut read).await? {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word.to_ascii_uppercase().as_str() {
            "EHLO" => {
                say(&mut write, "250-sandbox.contoso.example\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 PIPELINING").await?
            }
            "HELO" => say(&mut write, "250 sandbox.contoso.example").await?,
            "RSET" => {
                envelope = Envelope::default();
                say(&mut write, "250 2.0.0 flushed").await?;
            }
            "NOOP" => say(&mut write, "250 2.0.0 well").await?,
            "QUIT" => return say(&mut write, "221 2.0.0 bye").await,
            "MAIL" if rest.to_ascii_uppercase().starts_with("FROM:") => {
                envelope = Envelope { from: true, recipients: 0 };
                say(&mut write, "250 2.1.0 sender ok").await?;
            }
            "RCPT" if envelope.from && rest.to_ascii_uppercase().starts_with("TO:") => {
                envelope.recipients += 1;
                say(&mut write, "250 2.1.5 recipient ok").await?;
            }
            "DATA" if envelope.recipients > 0 => {
                say(&mut write, "354 end with a dot").await?;
                let Some(message) = data(&mut read).await? else {
                    return say(&mut write, "552 5.3.4 message too big").await;
                };
                envelope = Envelope::default();
                match take(&world, &text_of(&message)).await {
                    Some(answer) => say(&mut write, answer).await?,
                    None => return Ok(()),
                }
            }
            "MAIL" | "RCPT" | "DATA" => say(&mut write, "503 5.5.1 bad sequence of commands").await?,
            _ => say(&mut write, "502 5.5.2 command not known").await?,
        }
    }
    Ok(())
}

/// Takes a message, unless a fault keeps it from that; `None` breaks the connection off instead of an answer.
async fn take(world: &World, text: &str) -> Option<&'static str> {
    let (fault, there, back) = world.next_mail();
    server::pause(there).await;
    let answer = match fault {
        Some(Fault::Throttled | Fault::ThrottledBare) => Some("450 4.7.1 injected: too many messages"),
        Some(Fault::ErrorBefore) => Some("451 4.3.0 injected: try again later"),
        Some(Fault::ResetBefore) => None,
        Some(Fault::ErrorAfter | Fault::ResetAfter) => {
            world.mail(text);
            None
        }
        _ => {
            world.mail(text);
            Some("250 2.0.0 queued")
        }
    };
    server::pause(back).await;
    answer
}

#[derive(Default)]
struct Envelope {
    from: bool,
    recipients: u32,
}

async fn say(write: &mut (impl AsyncWrite + Unpin), text: &str) -> std::io::Result<()> {
    write.write_all(format!("{text}\r\n").as_bytes()).await?;
    write.flush().await
}

/// One line with its end; `None` at the end of the stream.
async fn line(read: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let count = read.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    Ok((count > 0).then_some(line))
}

/// The message up to the lone dot, with doubled dots at line starts made single; `None` where it is too big or cut.
async fn data(read: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut message = Vec::new();
    let mut fresh = true;
    while let Some(line) = line(read).await? {
        if fresh && (line == b".\r\n" || line == b".\n") {
            return Ok(Some(message));
        }
        let body = if fresh { line.strip_prefix(b".").unwrap_or(&line) } else { &line };
        message.extend_from_slice(body);
        fresh = line.ends_with(b"\n");
        if message.len() > MAX_MESSAGE {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Subject and bodies of a message as text, decoded far enough to find an id in them.
fn text_of(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message).replace("\r\n", "\n");
    let unfolded = text.replace("\n ", " ").replace("\n\t", " ");
    let subject = unfolded.lines().find(|line| line.to_ascii_lowercase().starts_with("subject:")).unwrap_or("");
    let mut out = encoded_words(subject);
    let mut encoding = String::new();
    let mut in_header = true;
    let mut part = String::new();
    for line in text.lines().chain(["--"]) {
        let lower = line.to_ascii_lowercase();
        if line.starts_with("--") {
            out.push('\n');
            out.push_str(&decode(&part, &encoding));
            part.clear();
            encoding.clear();
            in_header = true;
        } else if in_header && line.is_empty() {
            in_header = false;
        } else if in_header {
            if let Some(value) = lower.strip_prefix("content-transfer-encoding:") {
                encoding = value.trim().to_owned();
            }
        } else {
            part.push_str(line);
            part.push('\n');
        }
    }
    out
}

fn decode(part: &str, encoding: &str) -> String {
    match encoding {
        "quoted-printable" => quoted(&part.replace("=\n", "")),
        "base64" => {
            let packed: String = part.chars().filter(|c| !c.is_whitespace()).collect();
            BASE64.decode(packed).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => part.to_owned(),
    }
}

/// `=C3=A4`: the same as percent-encoding with another sign.
fn quoted(text: &str) -> String {
    super::call::decode(&text.replace('%', "=25").replace('=', "%"), false)
}

/// `=?utf-8?B?…?=` and `=?utf-8?Q?…?=` in a header.
fn encoded_words(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("=?") {
        let mut parts = after.splitn(4, '?');
        let (Some(_), Some(kind), Some(word), Some(tail)) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            break;
        };
        // Between two encoded words, white space does not count.
        if !before.trim().is_empty() {
            out.push_str(before);
        }
        let encoding = if kind.eq_ignore_ascii_case("b") { "base64" } else { "quoted-printable" };
        out.push_str(&decode(&word.replace('_', if encoding == "base64" { "_" } else { " " }), encoding));
        rest = tail.strip_prefix('=').unwrap_or(tail);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_encoded_subjects_and_bodies() {
        let message = "Subject: =?utf-8?b?w5xiZXJ3YWNodW5n?=\r\n =?utf-8?b?IDEyMw==?=\r\nMIME-Version: 1.0\r\n\
            Content-Type: multipart/alternative; boundary=\"x\"\r\n\r\n--x\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
            alert da638990000012345678_-=\r\n1187342205 =C3=A4\r\n--x\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+aGk8L2I+\r\n--x--\r\n";
        let text = text_of(message.as_bytes());
        assert!(text.contains("Überwachung 123"), "{text}");
        assert!(text.contains("da638990000012345678_-1187342205 ä"), "{text}");
        assert!(text.contains("<b>hi</b>"), "{text}");
    }

    #[tokio::test]
    async fn dots_are_unstuffed_and_a_lone_dot_ends() {
        let mut input = BufReader::new(&b"a\r\n..b\r\n.\r\nQUIT\r\n"[..]);
        assert_eq!(data(&mut input).await.unwrap().unwrap(), b"a\r\n.b\r\n");
    }
}
