//! Signing in to a mail server: with a password, or as an application of Entra (XOAUTH2).
//!
//! The conversation of XOAUTH2 is led here, since a server refuses a token in two steps: a challenge that says what is wrong
//! with it, which wants an empty answer, and only then the refusal. Format and set-up:
//! learn.microsoft.com/exchange/client-developer/legacy-protocols/how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth.

use std::fmt::{self, Display};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use serde_json::Value as Json;

use super::{chain, not_sent};
use crate::config::{Connection, Credential};
use crate::connector::answer;
use crate::connector::auth::{Auth, Ticket};
use crate::connector::redact::Scrubber;
use crate::engine::Outcome;
use crate::error::Error;

/// The longest word of a server's answer that is told.
const WORD: usize = 60;

pub(super) enum SignIn {
    /// The server takes mail from anybody who reaches it.
    None,
    Password(Credentials),
    Token {
        mailbox: String,
        auth: Auth,
    },
}

impl SignIn {
    pub(super) fn open(connection: &Connection, auth: &Auth, scrubber: &mut Scrubber) -> Result<Self, Error> {
        let name = &connection.name;
        Ok(match &connection.credential {
            Credential::Password { username, password } => {
                let password = password.resolve().map_err(|error| {
                    Error::config(format!("connection {name}: its credential can't be read: {error}"))
                })?;
                scrubber.add(password.expose());
                // What the sign-in sends, which servers like to repeat.
                scrubber.add(&format!("\0{username}\0{}", password.expose()));
                SignIn::Password(Credentials::new(username.clone(), password.expose().to_owned()))
            }
            Credential::Mailbox { username, .. } => {
                let from = connection.email.as_ref().map(|email| email.from.clone());
                SignIn::Token { mailbox: username.clone().or(from).unwrap_or_default(), auth: auth.clone() }
            }
            _ => SignIn::None,
        })
    }

    /// Signs in; `offers` are the mechanisms that the server named.
    pub(super) async fn go(&self, smtp: &mut AsyncSmtpConnection, offers: &str, server: &str) -> Result<(), Outcome> {
        match self {
            SignIn::None => Ok(()),
            SignIn::Password(credentials) => {
                let done = smtp.auth(&[Mechanism::Plain, Mechanism::Login], credentials).await;
                done.map(drop).map_err(|error| {
                    let said = answer::clean(&chain(&error), 300);
                    let why =
                        format!("the mail server {server} refuses the sign-in: {said}; check username and password");
                    not_sent("credentials", &why, !(error.is_permanent() || error.is_client()))
                })
            }
            SignIn::Token { mailbox, auth } => {
                if !offers.split(' ').any(|word| word.eq_ignore_ascii_case("XOAUTH2")) {
                    let why = format!(
                        "the mail server {server} does not offer XOAUTH2; use username and password, or another server"
                    );
                    return Err(not_sent("credentials", &why, false));
                }
                let ticket = auth.ticket().await?;
                let Err(refused) = present(smtp, mailbox, &ticket).await else { return Ok(()) };
                // A token may have been revoked early; a new one tells. A server that hung up is not asked twice.
                let refused = match auth.renewed(&ticket).await {
                    Some(Ok(fresh)) if fresh.token != ticket.token && refused.certain => {
                        match present(smtp, mailbox, &fresh).await {
                            Ok(()) => return Ok(()),
                            Err(again) => again,
                        }
                    }
                    _ => refused,
                };
                Err(refused.told(server, mailbox))
            }
        }
    }
}

/// Why a token was not taken.
struct Refused {
    /// What the server said, without the token.
    said: String,
    /// Whether it answered that it does not take it, and did not break off.
    certain: bool,
}

/// Presents a token. It follows the command in a line of its own, as it is longer than a command may be.
async fn present(smtp: &mut AsyncSmtpConnection, mailbox: &str, ticket: &Ticket) -> Result<(), Refused> {
    let token = ticket.token.as_deref().unwrap_or("");
    let proof = STANDARD.encode(format!("user={mailbox}\u{1}auth=Bearer {token}\u{1}\u{1}"));
    let refused = |error: SmtpError| {
        // Servers like to repeat what they did not take, or a part of it; nothing else that they say is so long a word.
        let said = chain(&error);
        let words: Vec<&str> =
            said.split(' ').map(|word| if word.len() > WORD { "[redacted]" } else { word }).collect();
        let said = words.join(" ");
        Refused { said: answer::clean(&said, 300), certain: error.is_permanent() || error.is_client() }
    };
    smtp.command(Line("AUTH XOAUTH2")).await.map_err(refused)?;
    let response = smtp.command(Line(&proof)).await.map_err(refused)?;
    if !response.has_code(334) {
        return Ok(());
    }
    let challenge = response.first_line().and_then(|text| STANDARD.decode(text.trim()).ok());
    let json = challenge.and_then(|json| serde_json::from_slice::<Json>(&json).ok());
    let status = json.and_then(|json| Some(answer::clean(json.get("status")?.as_str()?, 60)));
    let Err(error) = smtp.command(Line("")).await else { return Ok(()) };
    let mut refused = refused(error);
    if let Some(status) = status {
        refused.said = format!("{}, status {status}", refused.said);
    }
    Err(refused)
}

impl Refused {
    /// What an administrator must do; Exchange tells its reasons apart by the code after the number.
    fn told(&self, server: &str, mailbox: &str) -> Outcome {
        let said = &self.said;
        let todo = if said.contains("5.7.139") {
            format!(
                "switch authenticated SMTP on for the mailbox: Set-CASMailbox {mailbox} -SmtpClientAuthenticationDisabled $false"
            )
        } else {
            format!(
                "grant the application SMTP.SendAsApp of Office 365 Exchange Online with admin consent, register its service \
                 principal in Exchange (New-ServicePrincipal) and give it the mailbox (Add-MailboxPermission {mailbox} \
                 -AccessRights FullAccess)"
            )
        };
        let why = format!("the mail server {server} refuses the token for {mailbox}: {said}; {todo}");
        not_sent("credentials", &why, !self.certain)
    }
}

/// One line to the server.
struct Line<'a>(&'a str);

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\r\n", self.0)
    }
}
