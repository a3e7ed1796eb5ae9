//! A real mail server (PyPI's aiosmtpd) takes our mail over STARTTLS with a password: headers and both bodies intact,
//! whatever subject, body and recipients hold.
//!
//! `WATCHFLOOR_SMTP_PYTHON` names a Python that has aiosmtpd; `scripts/test` makes one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use base64::Engine as _;
use watchfloor::catalog::{Catalog, ConnectionKind};
use watchfloor::check::program::Keep;
use watchfloor::clock::Clock;
use watchfloor::config::{
    Cloud, Config, Connection, Credential, Email, Entra, Limits, OnMatch, Proof, Protected, Rate, Retention, SecretRef,
    Tls,
};
use watchfloor::connector::Client;
use watchfloor::engine::{Call, Outcome, Purpose};
use watchfloor::flow::model::Mode;
use watchfloor::guard::{Asker, Check, Guard};
use watchfloor::id::RunId;
use watchfloor::sandbox::{CLIENT_ID, CLIENT_SECRET, CLIENT_WITHOUT_ROLES, Options, Sandbox, TENANT};
use watchfloor::value::Value;

const SERVER: &str = r#"
import asyncio, base64, json, logging, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult

# Connections that break are what is tested: its log would tell of them as of faults.
logging.disable()

class Handler:
    async def handle_DATA(self, server, session, envelope):
        print(json.dumps({"tls": session.ssl is not None, "login": session.authenticated, "from": envelope.mail_from,
            "to": envelope.rcpt_tos, "content": base64.b64encode(envelope.content).decode()}), flush=True)
        return "250 taken"

    tokens = []

    # As Exchange does it: what is wrong with a token is said in a challenge, which wants an empty answer, and then refused.
    async def auth_XOAUTH2(self, server, args):
        blob = await server.challenge_auth("")
        user, bearer = [part.split(b"=", 1)[1].decode() for part in blob.split(b"\1")[:2]]
        token = bearer.removeprefix("Bearer ")
        claims = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        self.tokens.append(token)
        good = claims["aud"] == "https://outlook.office365.com" and "SMTP.SendAsApp" in claims.get("roles", [])
        revoked = user.startswith("revoked@") and len(set(self.tokens)) == 1
        if good and not revoked and user.startswith(("soc@", "revoked@")):
            return AuthResult(success=True, auth_data=user)
        answer = await server.challenge_auth(json.dumps({"status": "401", "schemes": "Bearer"}))
        assert answer == b"", answer
        if user.startswith("echo@"):
            return AuthResult(success=False, handled=False, message="535 5.7.3 no: " + base64.b64encode(blob).decode()[:300] + " " + token[:300])
        code = "5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox" if user.startswith("disabled@") else "5.7.3 Authentication unsuccessful"
        return AuthResult(success=False, handled=False, message="535 " + code)

class Server(SMTP):
    line_length_limit = 12288

def sign_in(server, session, envelope, mechanism, data):
    # "handled" says that the answer was given here; it was not.
    return AuthResult(success=(data.login == b"soc" and data.password == b"p\xc3\xa4ss word"), handled=False)

async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    make = lambda: Server(Handler(), tls_context=context, require_starttls=True, auth_required=True, authenticator=sign_in)
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"#;

struct Server {
    child: Child,
    port: u16,
    lines: mpsc::Receiver<String>,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let python = std::env::var_os("WATCHFLOOR_SMTP_PYTHON").expect(
            "WATCHFLOOR_SMTP_PYTHON is not set: run scripts/test, or point it at a Python that has aiosmtpd (pip install aiosmtpd)",
        );
        certificates(folder);
        let script = folder.join("server.py");
        std::fs::write(&script, SERVER).unwrap();
        let mut child = Command::new(python)
            .arg(script)
            .args([folder.join("leaf.pem"), folder.join("leaf.key")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting the Python that WATCHFLOOR_SMTP_PYTHON names");
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| send.send(line).is_ok()));
        let port = lines.recv_timeout(Duration::from_secs(30)).expect("the mail server starts").parse().unwrap();
        Server { child, port, lines }
    }

    fn message(&self) -> Message {
        let line = self.lines.recv_timeout(Duration::from_secs(30)).expect("a message arrives");
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&json["tls"], &json["login"]), (&true.into(), &true.into()));
        let content = base64::engine::general_purpose::STANDARD.decode(json["content"].as_str().unwrap()).unwrap();
        let to = json["to"].as_array().unwrap().iter().map(|to| to.as_str().unwrap().to_owned()).collect();
        Message { from: json["from"].as_str().unwrap().into(), to, content: String::from_utf8(content).unwrap() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Message {
    from: String,
    to: Vec<String>,
    content: String,
}

/// A root and a leaf for 127.0.0.1, made by the `openssl` command.
fn certificates(folder: &Path) {
    std::fs::write(folder.join("leaf.ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    let steps = [
        "req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -days 2 -subj /CN=watchfloor-test-root",
        "req -newkey rsa:2048 -nodes -keyout leaf.key -out leaf.csr -subj /CN=127.0.0.1",
        "x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -out leaf.pem -days 2 -extfile leaf.ext",
    ];
    for step in steps {
        let out =
            Command::new("openssl").args(step.split(' ')).current_dir(folder).output().expect("the command openssl");
        assert!(out.status.success(), "openssl {step}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

fn config(folder: &Path, port: u16, password: &str, trusted: bool) -> Config {
    let secret = folder.join(format!("password-{}", password.len()));
    std::fs::write(&secret, password).unwrap();
    let mail = Connection {
        name: "mail".into(),
        kind: ConnectionKind::Email,
        base_url: None,
        credential: Credential::Password { username: "soc".into(), password: SecretRef::File(secret) },
        rate: Rate::Documented,
        ca_file: trusted.then(|| folder.join("root.pem")),
        email: Some(Email { host: "127.0.0.1".into(), port, tls: Tls::Starttls, from: "soc@contoso.example".into() }),
        webhook_url: None,
        read: Vec::new(),
        headers: BTreeMap::new(),
        allow_private: false,
    };
    Config {
        store: folder.join("data"),
        catalogues: vec![],
        suppressions: vec![],
        user_scoped_suppressions: vec![],
        flows: Vec::new(),
        mode: Mode::Live,
        flow_modes: BTreeMap::new(),
        listen: "127.0.0.1:0".parse().unwrap(),
        watch: false,
        public_url: None,
        connections: BTreeMap::from([("mail".into(), mail)]),
        webhooks: BTreeMap::new(),
        key_vaults: BTreeMap::new(),
        limits: Limits::default(),
        protected: Protected { devices: Vec::new(), users: Vec::new(), on_match: OnMatch::Ask },
        retention: Retention::default(),
        fresh_for: None,
        max_backlog: 1000,
        in_flight: 8,
        poll: BTreeMap::new(),
    }
}

async fn send(config: &Config, inputs: &[(&str, Value)]) -> Outcome {
    let catalog = Arc::new(Catalog::builtin().unwrap());
    let action = Arc::clone(catalog.action("email.send").unwrap());
    let clock = Clock::system();
    let client = Client::open(config, catalog, clock.clone()).unwrap();
    let call = Call {
        path: "/steps[1]".into(),
        attempt: 1,
        purpose: Purpose::Main,
        output: action.output.clone(),
        action,
        connection: "mail".into(),
        inputs: inputs.iter().map(|(key, value)| (Arc::from(*key), value.clone())).collect(),
        keep: Keep::All.into(),
        target: None,
        timeout_ms: 30_000,
        secure: false,
        maybe_sent: false,
        handled: false,
    };
    let (now, flow) = (clock.now(), Arc::from("f"));
    let asker = Asker { run: RunId::new(now, "f", "k"), flow, mode: Mode::Live, occurred: now, now };
    let Check::Decided(decision) = Guard::new(config, Vec::new()).check(&asker, &call, &[]) else { panic!() };
    client.send(decision.permit.expect("a mail needs no more"), &asker.run, call.into()).await.outcome
}

/// The same, signed in as an application of the simulated tenant.
fn app(folder: &Path, port: u16, tenant: &Sandbox, client: &str, mailbox: Option<&str>) -> Config {
    let secret = folder.join("client-secret");
    std::fs::write(&secret, CLIENT_SECRET).unwrap();
    let mut config = config(folder, port, "", true);
    let entra = Entra {
        tenant_id: TENANT.into(),
        client_id: client.into(),
        proof: Proof::Secret(SecretRef::File(secret)),
        cloud: Cloud::Global,
        authority: format!("http://{}", tenant.http_addr()),
        scope: None,
    };
    let username = mailbox.map(str::to_owned);
    config.connections.get_mut("mail").unwrap().credential = Credential::Mailbox { username, entra };
    config
}

fn to(addresses: &[&str]) -> (&'static str, Value) {
    ("to", Value::list(addresses.iter().map(Value::str).collect()))
}

/// What a mail reader shows of a part: quoted-printable or base64 undone by Python's own mail parser.
fn read(folder: &Path, content: &str) -> serde_json::Value {
    const READER: &str = r#"
import sys, json, email, email.policy
m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
parts = [[p.get_content_type(), p.get_content()] for p in m.walk() if not p.is_multipart() and p.get_content_maintype() == "text"]
print(json.dumps({"subject": str(m["Subject"]), "headers": [k.lower() for k in m.keys()], "id": m["Message-ID"], "parts": parts}))
"#;
    let file = folder.join("message.eml");
    std::fs::write(&file, content).unwrap();
    let python = std::env::var_os("WATCHFLOOR_SMTP_PYTHON").unwrap();
    let input = std::fs::File::open(file).unwrap();
    let out = Command::new(python).args(["-c", READER]).stdin(input).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_mail_arrives_as_exactly_one_intact_message() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let config = config(folder.path(), server.port, "päss word", true);
    let subjects = [
        "Isolation Succeeded: fin-lap-014: été 💥",
        "x\r\nBcc: evil@evil.example",
        "\r\n\r\nMAIL FROM:<evil@evil.example>",
    ];
    let bodies = [
        "plain",
        "\r\n.\r\nMAIL FROM:<evil@evil.example>\r\nRCPT TO:<evil@evil.example>\r\nDATA\r\nspoof\r\n.\r\n",
        "a\r\n\r\n.\r\n\r\nb\n.\n.. é 💥 =20 \n\n",
    ];
    for subject in subjects {
        for body in bodies {
            let html = format!("<p>{body}</p>");
            let inputs = [
                to(&["soc@contoso.example"]),
                ("cc", Value::list(vec![Value::str("lead@contoso.example")])),
                ("subject", Value::str(subject)),
                ("text", Value::str(body)),
                ("html", Value::str(&html)),
            ];
            let outcome = send(&config, &inputs).await;
            assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
            let message = server.message();
            assert_eq!(message.from, "soc@contoso.example");
            assert_eq!(message.to, ["soc@contoso.example", "lead@contoso.example"]);
            let seen = read(folder.path(), &message.content);
            assert!(!seen["headers"].as_array().unwrap().contains(&"bcc".into()), "{seen}");
            let one_line: String = subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            assert_eq!(seen["subject"].as_str().unwrap().trim(), one_line.trim());
            let same = |text: &str| text.replace("\r\n", "\n").trim_end().to_owned();
            let parts = seen["parts"].as_array().unwrap();
            assert_eq!(parts.len(), 2, "{seen}");
            assert_eq!((parts[0][0].as_str(), same(parts[0][1].as_str().unwrap())), (Some("text/plain"), same(body)));
            assert_eq!((parts[1][0].as_str(), same(parts[1][1].as_str().unwrap())), (Some("text/html"), same(&html)));
        }
    }
    assert!(server.lines.try_recv().is_err(), "one message a call, no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_signs_in_with_its_token_and_a_refusal_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let clock = Clock::system();
    let tenant = Sandbox::start(Options::new(3, 1, clock.now()), clock).await.unwrap();
    let mail = [to(&["lead@contoso.example"]), ("subject", Value::str("s")), ("text", Value::str("t"))];
    let as_mailbox = |client: &str, mailbox| app(folder.path(), server.port, &tenant, client, mailbox);
    for mailbox in [None, Some("revoked@contoso.example")] {
        let outcome = send(&as_mailbox(CLIENT_ID, mailbox), &mail).await;
        assert!(matches!(outcome, Outcome::Done { .. }), "{mailbox:?}: {outcome:?}");
        assert_eq!(server.message().from, "soc@contoso.example");
    }
    for (client, mailbox, why, todo) in [
        (CLIENT_WITHOUT_ROLES, None, "5.7.3", "grant the application SMTP.SendAsApp"),
        (CLIENT_ID, Some("echo@contoso.example"), "no: [redacted] [redacted]", "Add-MailboxPermission echo@"),
        (CLIENT_ID, Some("other@contoso.example"), "status 401", "Add-MailboxPermission other@contoso.example"),
        (CLIENT_ID, Some("disabled@contoso.example"), "5.7.139", "Set-CASMailbox disabled@contoso.example"),
    ] {
        let outcome = send(&as_mailbox(client, mailbox), &mail).await;
        let Outcome::NotSent { code, message, transient: false } = &outcome else { panic!("{outcome:?}") };
        assert_eq!(code, "credentials");
        assert!(
            message.contains(why) && message.contains(todo) && !message.contains("eyJ") && !message.contains("dXNlcj"),
            "{message}"
        );
    }
    assert!(server.lines.try_recv().is_err(), "nothing more arrived");
    let unknown = as_mailbox("99999999-0000-0000-0000-000000000000", None);
    let outcome = send(&unknown, &mail).await;
    assert!(
        matches!(&outcome, Outcome::NotSent { code, transient: false, .. } if code == "AADSTS700016"),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_without_trust_a_password_and_plain_recipients() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let mail = |address: &str| [to(&[address]), ("subject", Value::str("s")), ("text", Value::str("t"))];
    let good = config(folder.path(), server.port, "päss word", true);
    for hostile in ["a@b.example>\r\nRCPT TO:<evil@evil.example", "a@b.example, c@d.example"] {
        let outcome = send(&good, &mail(hostile)).await;
        assert!(matches!(&outcome, Outcome::Refused { code, .. } if code == "bad_input"), "{outcome:?}");
    }
    let untrusted = config(folder.path(), server.port, "päss word", false);
    let outcome = send(&untrusted, &mail("soc@contoso.example")).await;
    assert!(matches!(&outcome, Outcome::NotSent { .. }), "{outcome:?}");
    let stranger = config(folder.path(), server.port, "wrong password", true);
    let outcome = send(&stranger, &mail("soc@contoso.example")).await;
    assert!(
        matches!(&outcome, Outcome::NotSent { code, transient: false, .. } if code == "credentials"),
        "{outcome:?}"
    );
    assert!(server.lines.try_recv().is_err(), "nothing arrived");
}
