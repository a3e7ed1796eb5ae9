//! Mail over SMTP: one message from the inputs of `email.send`, one conversation that knows how far it came.
//!
//! The conversation is led here and not by a ready-made transport, because only its steps tell what a failure proves:
//! before the content nothing was sent; once the content is on its way a lost connection leaves the outcome unknown.
//! Where the server offers PIPELINING (RFC 2920), what goes before the content is one message, answered line by line.

mod sign_in;

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use lettre::address::{Address, Envelope};
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, Message, MultiPart, SinglePart};
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Ehlo, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use sign_in::SignIn;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::auth::Auth;
use super::wire::{self, Stage};
use super::{answer, redact::Scrubber};
use crate::config::{Connection, Tls};
use crate::engine::Outcome;
use crate::error::Error;
use crate::value::{Map, Value};

/// The largest message, attachments included; most servers refuse more.
const LARGEST: usize = 24 << 20;
/// A kept connection is thrown away after this; servers close idle ones after minutes.
const IDLE: Duration = Duration::from_secs(30);

/// A message, ready to go.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) message_id: String,
    envelope: Envelope,
    content: String,
}

/// One connection to the server, and whether commands may follow each other without waiting.
struct Line {
    smtp: AsyncSmtpConnection,
    pipelining: bool,
}

/// The SMTP server of one connection.
pub(super) struct Mailer {
    host: String,
    port: u16,
    tls: Tls,
    parameters: Option<TlsParameters>,
    sign_in: SignIn,
    pub(super) from: Address,
    idle: Mutex<Vec<(Line, Instant)>>,
    slots: Semaphore,
}

impl Mailer {
    pub(super) fn open(
        connection: &Connection,
        in_flight: usize,
        auth: &Auth,
        scrubber: &mut Scrubber,
    ) -> Result<Self, Error> {
        let name = &connection.name;
        let email = connection
            .email
            .as_ref()
            .ok_or_else(|| Error::config(format!("connection {name}: an email connection needs server and from")))?;
        let from = address(&email.from).map_err(|why| Error::config(format!("connection {name}: from: {why}")))?;
        let parameters = match email.tls {
            Tls::None => None,
            Tls::Starttls | Tls::Tls => {
                let mut builder = TlsParameters::builder(email.host.clone());
                if let Some(file) = &connection.ca_file {
                    let pem = wire::read_pem(file, name)?;
                    let root = Certificate::from_pem(&pem).map_err(|error| {
                        Error::config(format!("connection {name}: the ca_file {} is no PEM: {error}", file.display()))
                    })?;
                    builder = builder.add_root_certificate(root);
                }
                let built = builder.build_rustls();
                Some(built.map_err(|error| Error::config(format!("connection {name}: setting up TLS: {error}")))?)
            }
        };
        Ok(Mailer {
            host: email.host.clone(),
            port: email.port,
            tls: email.tls,
            parameters,
            sign_in: SignIn::open(connection, auth, scrubber)?,
            from,
            idle: Mutex::default(),
            slots: Semaphore::new(in_flight.clamp(1, 64)),
        })
    }

    /// Sends one letter and returns the server's last words.
    pub(super) async fn send(&self, letter: &Letter, stage: &Stage) -> Result<String, Outcome> {
        let Ok(_slot) = self.slots.acquire().await else { return Err(not_sent("smtp", "the client is closing", true)) };
        stage.enter()?;
        // A kept connection may have been closed meanwhile; nothing was sent then, so a new one may try at once.
        if let Some(mut kept) = self.kept() {
            match self.talk(&mut kept, letter, stage).await {
                Err(Outcome::NotSent { transient: true, .. }) => {}
                Ok(said) => {
                    self.keep(kept);
                    return Ok(said);
                }
                Err(outcome) => return Err(outcome),
            }
        }
        let mut fresh = self.connect().await?;
        let said = self.talk(&mut fresh, letter, stage).await?;
        self.keep(fresh);
        Ok(said)
    }

    pub(super) fn place(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    /// Whether the server is there and takes our sign-in; the connection is kept for the next letter.
    pub(super) async fn reach(&self, stage: &Stage) -> Result<(), Outcome> {
        stage.enter()?;
        self.keep(self.connect().await?);
        Ok(())
    }

    fn kept(&self) -> Option<Line> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        idle.retain(|(_, since)| now.duration_since(*since) < IDLE);
        idle.pop().map(|(line, _)| line)
    }

    fn keep(&self, line: Line) {
        if !line.smtp.has_broken() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((line, Instant::now()));
        }
    }

    async fn connect(&self) -> Result<Line, Outcome> {
        let server = format!("{}:{}", self.host, self.port);
        let failed = |error: &SmtpError, doing: &str| {
            let said = answer::clean(&chain(error), 300);
            not_sent(if error.is_tls() { "tls" } else { "connect" }, &format!("{doing} {server}: {said}"), true)
        };
        let hello = ClientId::default();
        let wrap = if self.tls == Tls::Tls { self.parameters.clone() } else { None };
        let address = (self.host.as_str(), self.port);
        let mut connection = AsyncSmtpConnection::connect_tokio1(address, Some(wire::CONNECT), &hello, wrap, None)
            .await
            .map_err(|error| failed(&error, "connecting to the mail server"))?;
        if self.tls == Tls::Starttls {
            if !connection.can_starttls() {
                let why = format!(
                    "the mail server {server} offers no STARTTLS, so the mail stays here; set tls: tls, or tls: none if that is meant"
                );
                return Err(not_sent("tls", &why, false));
            }
            if let Some(parameters) = self.parameters.clone() {
                let upgraded = connection.starttls(parameters, &hello).await;
                upgraded.map_err(|error| failed(&error, "starting TLS with the mail server"))?;
            }
        }
        // The library keeps of the server's offers only those that it uses itself: they are asked for once more.
        let offers: Vec<String> = match connection.command(Ehlo::new(hello)).await {
            Ok(offers) => offers.message().map(|offer| offer.trim().to_ascii_uppercase()).collect(),
            Err(error) if error.status().is_some() => Vec::new(),
            Err(error) => return Err(failed(&error, "greeting the mail server")),
        };
        let pipelining = offers.iter().any(|offer| offer == "PIPELINING");
        let mechanisms = offers.iter().find_map(|offer| offer.strip_prefix("AUTH ")).unwrap_or("");
        self.sign_in.go(&mut connection, mechanisms, &server).await?;
        Ok(Line { smtp: connection, pipelining })
    }

    /// MAIL, RCPT, DATA, and then the content: nothing of it leaves before all of them are answered.
    async fn talk(&self, line: &mut Line, letter: &Letter, stage: &Stage) -> Result<String, Outcome> {
        if let Err((error, what)) = self.open_letter(line, letter).await {
            line.smtp.abort().await;
            return Err(self.refused(&error, &what, false));
        }
        if let Err(held) = stage.go() {
            line.smtp.abort().await;
            return Err(held);
        }
        // In one write: the closing dot in a packet of its own would wait for the answer to the one before it.
        match line.smtp.command(Content(&letter.content)).await {
            Ok(response) => Ok(response.message().collect::<Vec<_>>().join(" ")),
            Err(error) => {
                line.smtp.abort().await;
                Err(self.refused(&error, "the mail", true))
            }
        }
    }

    /// The commands before the content. An error comes with what was refused, and ends the connection: a server that took
    /// some of several pipelined commands may be waiting for the content, and without it delivers nothing.
    async fn open_letter(&self, line: &mut Line, letter: &Letter) -> Result<(), (SmtpError, String)> {
        let to = letter.envelope.to();
        let sender = |error| (error, format!("the sender {}", self.from));
        let recipient = |error, to: &Address| (error, format!("the recipient {to}"));
        let data = |error| (error, "the mail".to_owned());
        let smtp = &mut line.smtp;
        if line.pipelining {
            smtp.command(Opening { from: &self.from, to }).await.map_err(sender)?;
            for to in to {
                smtp.read_response().await.map_err(|error| recipient(error, to))?;
            }
            smtp.read_response().await.map_err(data)?;
        } else {
            smtp.command(Mail::new(Some(self.from.clone()), Vec::new())).await.map_err(sender)?;
            for to in to {
                smtp.command(Rcpt::new(to.clone(), Vec::new())).await.map_err(|error| recipient(error, to))?;
            }
            smtp.command(Data).await.map_err(data)?;
        }
        Ok(())
    }

    fn refused(&self, error: &SmtpError, what: &str, sent: bool) -> Outcome {
        let said = answer::clean(&chain(error), 500);
        match error.status() {
            Some(code) => Outcome::Refused {
                status: code.to_string().parse().unwrap_or(0),
                code: format!("smtp_{code}"),
                message: format!("the mail server {} refuses {what}: {said}", self.host),
                transient: error.is_transient(),
                retry_after_ms: None,
            },
            None if sent => wire::unknown(
                0,
                "reset",
                format!(
                    "the mail server {} broke off while it took the mail, which may have gone out: {said}",
                    self.host
                ),
            ),
            None => {
                not_sent("connect", &format!("the mail server {} broke off before the mail: {said}", self.host), true)
            }
        }
    }
}

/// MAIL, RCPT for everyone and DATA, one after the other without waiting.
struct Opening<'a> {
    from: &'a Address,
    to: &'a [Address],
}

impl Display for Opening<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Mail::new(Some(self.from.clone()), Vec::new()).fmt(f)?;
        self.to.iter().try_for_each(|to| Rcpt::new(to.clone(), Vec::new()).fmt(f))?;
        Data.fmt(f)
    }
}

/// A message as it goes over the wire: a dot that begins a line is doubled (RFC 5321, 4.5.2), a dot alone ends it.
struct Content<'a>(&'a str);

impl Display for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.starts_with('.') {
            f.write_str(".")?;
        }
        let mut lines = self.0.split("\r\n.");
        f.write_str(lines.next().unwrap_or_default())?;
        for line in lines {
            f.write_str("\r\n..")?;
            f.write_str(line)?;
        }
        f.write_str("\r\n.\r\n")
    }
}

fn not_sent(code: &str, message: &str, transient: bool) -> Outcome {
    Outcome::NotSent { code: code.into(), message: message.into(), transient }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

/// Builds the message. `Err` says which input is wrong.
pub(super) fn letter(inputs: &Map, from: &Address, tag: &str, now: jiff::Timestamp) -> Result<Letter, String> {
    let to = addresses(inputs, "to")?;
    let cc = addresses(inputs, "cc")?;
    let bcc = addresses(inputs, "bcc")?;
    if to.is_empty() {
        return Err("to: there is no recipient".into());
    }
    let message_id = format!("<wf.{tag}@{}>", from.domain());
    let mut builder = Message::builder()
        .from(Mailbox::new(None, from.clone()))
        .subject(one_line(text(inputs, &["subject"]).unwrap_or_default()))
        .date(now.into())
        .message_id(Some(message_id.clone()));
    for (name, value) in text(inputs, &["importance"]).map(importance).unwrap_or_default() {
        builder = builder.raw_header(HeaderValue::new(HeaderName::new_from_ascii_str(name), (*value).to_owned()));
    }
    builder = to.iter().fold(builder, |builder, to| builder.to(Mailbox::new(None, to.clone())));
    builder = cc.iter().fold(builder, |builder, cc| builder.cc(Mailbox::new(None, cc.clone())));
    // Tells vacation responders to keep still: an answer to us would be read by nobody.
    builder = builder
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()));
    let recipients = to.into_iter().chain(cc).chain(bcc).collect();
    let envelope = Envelope::new(Some(from.clone()), recipients).map_err(|error| format!("to: {error}"))?;
    // Given, it is not read again out of the headers.
    builder = builder.envelope(envelope.clone());
    let built = match (body(inputs), attachments(inputs)?) {
        (Body::One(part), attached) if attached.is_empty() => builder.singlepart(part),
        (Body::Both(part), attached) if attached.is_empty() => builder.multipart(part),
        (body, attached) => {
            let mixed = match body {
                Body::One(part) => MultiPart::mixed().singlepart(part),
                Body::Both(part) => MultiPart::mixed().multipart(part),
            };
            builder.multipart(attached.into_iter().fold(mixed, MultiPart::singlepart))
        }
    };
    let content = built.map_err(|error| format!("the mail can't be built: {error}"))?.formatted();
    if content.len() > LARGEST {
        return Err(format!("the mail has {} MiB; {} MiB is the most", content.len() >> 20, LARGEST >> 20));
    }
    let content = String::from_utf8(content).map_err(|_| "the mail can't be built: it is no text".to_owned())?;
    Ok(Letter { message_id, envelope, content })
}

/// The headers that mail readers look at: RFC 2156 has the first, and the second is older and everywhere.
fn importance(text: &str) -> &'static [(&'static str, &'static str)] {
    match text {
        "High" => &[("Importance", "high"), ("X-Priority", "1")],
        "Low" => &[("Importance", "low"), ("X-Priority", "5")],
        _ => &[],
    }
}

enum Body {
    One(SinglePart),
    Both(MultiPart),
}

fn body(inputs: &Map) -> Body {
    let plain = text(inputs, &["text", "text_file"]).map(str::to_owned);
    match (plain, text(inputs, &["html", "html_file"]).map(str::to_owned)) {
        (Some(plain), Some(html)) => Body::Both(MultiPart::alternative_plain_html(plain, html)),
        (None, Some(html)) => Body::One(SinglePart::html(html)),
        (plain, None) => Body::One(SinglePart::plain(plain.unwrap_or_default())),
    }
}

fn attachments(inputs: &Map) -> Result<Vec<SinglePart>, String> {
    let Some(list) = inputs.get("attachments").and_then(Value::as_list) else { return Ok(Vec::new()) };
    list.iter()
        .enumerate()
        .map(|(i, item)| attachment(item).map_err(|why| format!("attachments[{i}]: {why}")))
        .collect()
}

fn attachment(item: &Value) -> Result<SinglePart, String> {
    let member = |key: &str| item.get(key).and_then(Value::as_str);
    let name = member("name").ok_or("it has no name")?;
    // A name is no path, wherever it came from.
    let name: String = one_line(name).chars().filter(|c| !matches!(c, '/' | '\\' | '"' | ':')).take(150).collect();
    let (content, default) = match (member("text").or_else(|| member("content")), member("base64")) {
        (Some(text), _) => (text.as_bytes().to_vec(), "text/plain; charset=utf-8"),
        (None, Some(encoded)) => {
            let encoded: String = encoded.split_ascii_whitespace().collect();
            let content = base64::engine::general_purpose::STANDARD.decode(encoded);
            (content.map_err(|error| format!("base64: {error}"))?, "application/octet-stream")
        }
        (None, None) => return Err("it has no content; give text or base64".into()),
    };
    let kind = ContentType::parse(member("content_type").unwrap_or(default))
        .map_err(|_| "content_type is no media type".to_owned())?;
    Ok(Attachment::new(name).body(content, kind))
}

fn text<'a>(inputs: &'a Map, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| inputs.get(*key)?.as_str())
}

/// Text for a header: control characters, line breaks above all, become spaces.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(900).collect()
}

fn addresses(inputs: &Map, key: &str) -> Result<Vec<Address>, String> {
    let list = match inputs.get(key) {
        None => return Ok(Vec::new()),
        Some(Value::List(items)) => items.iter().map(|item| item.as_str().unwrap_or("")).collect(),
        Some(one) => vec![one.as_str().unwrap_or("")],
    };
    if list.len() > 500 {
        return Err(format!("{key}: {} recipients; 500 is the most", list.len()));
    }
    list.into_iter().map(|text| address(text).map_err(|why| format!("{key}: {why}"))).collect()
}

/// A plain address: no name, no comment, no quotes, ASCII only, so that nothing in it can end a header or a command.
fn address(text: &str) -> Result<Address, String> {
    let text = text.trim();
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !b"<>()[]\\,;:\"".contains(&b));
    let parsed = Address::from_str(text).ok().filter(|_| plain && text.len() <= 254);
    parsed.ok_or_else(|| format!("{:?} is no plain mail address such as soc@contoso.example", answer::clean(text, 120)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn inputs(members: &[(&str, Value)]) -> Map {
        members.iter().map(|(key, value)| (Arc::from(*key), value.clone())).collect()
    }

    fn build(members: &[(&str, Value)]) -> Result<(Letter, String), String> {
        let from = "soc@contoso.example".parse().unwrap();
        let now = "2026-11-20T08:00:00Z".parse().unwrap();
        let letter = letter(&inputs(members), &from, "0123456789abcdef", now)?;
        let content = letter.content.clone();
        Ok((letter, content))
    }

    fn to(address: &str) -> (&'static str, Value) {
        ("to", Value::list(vec![Value::str(address)]))
    }

    #[test]
    fn a_hostile_subject_stays_one_header() {
        for subject in
            ["x\r\nBcc: evil@x.example", "x\nBcc: evil@x.example", "é\r\nBcc: evil@x.example\r\n\r\nbody", "\0\u{b}"]
        {
            let (letter, content) =
                build(&[to("a@b.example"), ("subject", Value::str(subject)), ("text", Value::str("t"))]).unwrap();
            assert!(!content.lines().any(|line| line.to_lowercase().starts_with("bcc")), "{content}");
            assert_eq!(letter.envelope.to().len(), 1);
            assert!(content.contains("Message-ID: <wf.0123456789abcdef@contoso.example>"), "{content}");
        }
    }

    #[test]
    fn recipients_are_plain_addresses() {
        for bad in [
            "",
            "nobody",
            "a@b.example, c@d.example",
            "Name <a@b.example>",
            "a@b.example\r\nRCPT TO:<x@y.example>",
            "\"a b\"@c.example",
            "a@b.example>",
            "a@[127.0.0.1]",
            "ü@b.example",
        ] {
            assert!(build(&[to(bad), ("text", Value::str("t"))]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn importance_is_a_header() {
        for (given, header) in [("High", "Importance: high"), ("Low", "Importance: low"), ("Normal", "Subject: ")] {
            let (_, content) =
                build(&[to("a@b.example"), ("text", Value::str("t")), ("importance", Value::str(given))]).unwrap();
            assert!(content.contains(header) && content.contains("Importance") == (given != "Normal"), "{content}");
        }
    }

    #[test]
    fn a_dot_never_ends_a_message_early() {
        for (text, wire) in [
            ("a\r\n.\r\nMAIL FROM:<x@y.example>", "a\r\n..\r\nMAIL FROM:<x@y.example>\r\n.\r\n"),
            (".a.\r\n..b\r\n", "..a.\r\n...b\r\n\r\n.\r\n"),
            ("\r\n.\r\n.\r\n", "\r\n..\r\n..\r\n\r\n.\r\n"),
            ("", "\r\n.\r\n"),
        ] {
            assert_eq!(Content(text).to_string(), wire, "{text:?}");
        }
    }

    #[test]
    fn attachments_carry_their_content_and_no_path() {
        let attached = Value::object([
            ("name", Value::str("../../x\r\n\"evil.txt")),
            ("base64", Value::str("aGVsbG8=")),
            ("content_type", Value::str("application/pdf")),
        ]);
        let (_, content) =
            build(&[to("a@b.example"), ("html", Value::str("<b>é</b>")), ("attachments", Value::list(vec![attached]))])
                .unwrap();
        assert!(content.contains("multipart/mixed") && content.contains("filename=\"....x"), "{content}");
        let broken = Value::object([("name", Value::str("a")), ("base64", Value::str("%%"))]);
        assert!(build(&[to("a@b.example"), ("attachments", Value::list(vec![broken]))]).is_err());
    }
}
