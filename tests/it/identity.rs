//! Every kind of Entra credential against the simulated token service: what proves an application, what does not, and what
//! an administrator is told.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use jiff::SignedDuration;
use serde_json::{Value as Json, json};
use watchfloor::catalog::Catalog;
use watchfloor::clock::{Clock, stopwatch};
use watchfloor::config::Config;
use watchfloor::config::certificate::blocks;
use watchfloor::connector::Client;
use watchfloor::connector::aadsts::{Kind, REFUSALS};
use watchfloor::engine::Outcome;
use watchfloor::error::Error;
use watchfloor::sandbox::{CLIENT_ID, CLIENT_SECRET, Options, Sandbox, TENANT, client_refused_with};
use watchfloor::value::{Map, Value};

struct Site {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
}

impl Site {
    async fn new() -> Site {
        Site::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> Site {
        let clock = Clock::system();
        let mut options = Options::new(5, 4, clock.now());
        change(&mut options);
        let sandbox = Sandbox::start(options, clock).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), CLIENT_SECRET).unwrap();
        std::fs::write(folder.path().join("wrong"), "wrong").unwrap();
        std::fs::write(folder.path().join("old"), "sandbox-expired-secret").unwrap();
        Site { sandbox, folder }
    }

    fn base(&self) -> String {
        format!("http://{}", self.sandbox.http_addr())
    }

    fn open(&self, entra: &str) -> Result<Client, Error> {
        self.open_at(entra, Clock::system())
    }

    fn open_at(&self, entra: &str, clock: Clock) -> Result<Client, Error> {
        let base = self.base();
        let text = format!(
            "connections: {{ graph: {{ kind: graph, base_url: \"{base}\", rate: off, credential: {{ entra: {{ {entra} }} }} }} }}"
        );
        let config = Config::parse(&text, "config.yaml", self.folder.path())?;
        Client::open(&config, Arc::new(Catalog::builtin()?), clock)
    }

    /// The application of the tenant, with a proof.
    fn app(&self, proof: &str) -> String {
        format!("tenant_id: {TENANT}, client_id: {CLIENT_ID}, authority: \"{}\", {proof}", self.base())
    }

    /// Reads somebody, which takes a token.
    async fn ask(&self, client: &Client) -> Result<Value, Outcome> {
        let user = self.sandbox.world().plan.users[0].id.clone();
        client.fetch("graph", "entra.get_user", Map::from([("user".into(), Value::str(&user))])).await
    }

    async fn refused(&self, entra: &str) -> (String, String, bool) {
        refusal(self.ask(&self.open(entra).unwrap()).await)
    }

    async fn set(&self, what: &str, body: impl Into<String>) {
        let url = format!("{}/_sandbox/{what}", self.base());
        let answer = reqwest::Client::new().post(url).body(body.into()).send().await.unwrap();
        assert_eq!(answer.status(), 204, "{what}: {}", answer.text().await.unwrap());
    }

    /// How often a token was asked for.
    fn token_requests(&self) -> u64 {
        let calls = self.sandbox.ledger(&[]).calls;
        calls.iter().filter(|(route, _)| route.ends_with("/token")).map(|(_, n)| n).sum()
    }

    /// A certificate with its key in `NAME.pem` and `NAME.key`, and both in `NAME.both`.
    fn certificate(&self, name: &str) {
        let folder = self.folder.path();
        openssl(
            folder,
            &format!("req -x509 -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}"),
        );
        let both = self.text(&format!("{name}.key")) + &self.text(&format!("{name}.pem"));
        std::fs::write(folder.join(format!("{name}.both")), both).unwrap();
    }

    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).unwrap()
    }

    /// Writes a token of another identity provider, signed with the key in `idp.key`.
    fn federated(&self, claims: &Json) {
        let (_, der) = blocks(&self.text("idp.key")).unwrap().remove(0);
        let key = RsaKeyPair::from_pkcs8(&der).unwrap();
        let encode = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", encode(&json!({"alg": "RS256", "typ": "JWT"})), encode(claims));
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        let token = format!("{signed}.{}\n", URL_SAFE_NO_PAD.encode(signature));
        std::fs::write(self.folder.path().join("federated"), token).unwrap();
    }
}

fn openssl(folder: &Path, args: &str) {
    let out = Command::new("openssl").args(args.split(' ')).current_dir(folder).output().expect("the command openssl");
    assert!(out.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&out.stderr));
}

fn refusal(asked: Result<Value, Outcome>) -> (String, String, bool) {
    match asked {
        Err(Outcome::NotSent { code, message, transient }) => (code, message, transient),
        other => panic!("{other:?}"),
    }
}

/// Asks until something holds.
async fn until(what: &str, site: &Site, client: &Client, holds: impl Fn(&Result<Value, Outcome>) -> bool) {
    let watch = stopwatch();
    loop {
        let asked = site.ask(client).await;
        if holds(&asked) {
            return;
        }
        assert!(watch.elapsed() < Duration::from_secs(20), "not within 20 s: {what}: {asked:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn every_refusal_of_the_table_says_what_an_admin_must_do() {
    let site = Site::new().await;
    let each = REFUSALS.iter().map(|row| {
        let site = &site;
        async move {
            let app = format!(
                "tenant_id: {TENANT}, client_id: {}, authority: \"{}\", client_secret: {{ file: secret }}",
                client_refused_with(row.number),
                site.base()
            );
            let client = site.open(&app).unwrap();
            let (code, message, transient) = refusal(site.ask(&client).await);
            assert_eq!((code, transient), (format!("AADSTS{}", row.number), row.kind != Kind::Lasting), "{message}");
            assert!(message.contains(row.means) && message.contains(row.todo), "{message}");
            assert!(row.source.contains("Entra") || row.source.contains("learn.microsoft.com"));
            if matches!(row.kind, Kind::Passing | Kind::Throttled) {
                assert!(site.ask(&site.open(&app).unwrap()).await.is_err());
                assert!(site.ask(&site.open(&app).unwrap()).await.is_ok(), "it has passed");
            }
        }
    });
    join_all(each).await;
    let numbers: std::collections::BTreeSet<_> = REFUSALS.iter().map(|row| row.number).collect();
    assert_eq!(numbers.len(), REFUSALS.len(), "a number twice");
}

#[tokio::test]
async fn a_passing_refusal_is_asked_about_again() {
    let site = Site::new().await;
    let app = site.app("client_secret: { file: secret }").replace(CLIENT_ID, &client_refused_with(90_033));
    let client = site.open(&app).unwrap();
    assert!(refusal(site.ask(&client).await).2);
    until("the failure passes", &site, &client, Result::is_ok).await;
    assert_eq!(site.token_requests(), 3);
}

#[tokio::test]
async fn a_token_is_renewed_once_before_its_end_however_many_ask() {
    let site = Site::with(|options| options.token_lifetime = Duration::from_secs(6)).await;
    let client = site.open(&site.app("client_secret: { file: secret }")).unwrap();
    let watch = stopwatch();
    while site.token_requests() < 2 {
        for asked in join_all((0..8).map(|_| site.ask(&client))).await {
            asked.unwrap();
        }
    }
    let took = watch.elapsed();
    assert!(took >= Duration::from_secs(4), "a fifth of its life before its end, not after {took:?}");
    assert_eq!(site.token_requests(), 2);
}

#[tokio::test]
async fn a_lasting_refusal_is_asked_about_once() {
    let site = Site::new().await;
    let client = site.open(&site.app("client_secret: { file: wrong }")).unwrap();
    for _ in 0..10 {
        let (_, message, _) = refusal(site.ask(&client).await);
        assert!(message.contains("the client secret is wrong"), "{message}");
    }
    assert_eq!(site.token_requests(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_credential_is_told_by_its_number() {
    let site = Site::new().await;
    let (app, base) = (site.app("client_secret: { file: secret }"), site.base());
    let cases = [
        (site.app("client_secret: { file: wrong }"), 7_000_215),
        (site.app("client_secret: { file: old }"), 7_000_222),
        (app.replace(CLIENT_ID, "99999999-0000-0000-0000-000000000000"), 700_016),
        (app.replace(TENANT, "99999999-0000-0000-0000-000000000000"), 90_002),
        (app.replace(TENANT, "common"), 90_130),
        (format!("{app}, scope: \"https://nowhere.example/.default\""), 500_011),
        (format!("{app}, scope: \"https://graph.microsoft.com/User.Read\""), 70_011),
    ];
    for (entra, number) in cases {
        let (code, message, transient) = site.refused(&entra).await;
        assert_eq!((code, transient), (format!("AADSTS{number}"), false), "{base} {entra}: {message}");
    }
    assert!(site.ask(&site.open(&app).unwrap()).await.is_ok());
}

#[tokio::test]
async fn a_certificate_proves_the_application_and_a_strange_one_does_not() {
    let site = Site::new().await;
    ["app", "strange"].iter().for_each(|name| site.certificate(name));
    let folder = site.folder.path();
    openssl(folder, "rsa -in app.key -traditional -out app.pkcs1");
    openssl(folder, "ecparam -name prime256v1 -genkey -noout -out ec.key");
    openssl(folder, "pkey -in app.key -aes256 -passout pass:x -out app.locked");
    site.set("certificate", site.text("app.pem")).await;
    for proof in [
        "certificate: { file: app.both }",
        "certificate: { file: app.pem }, certificate_key: { file: app.key }",
        "certificate: { file: app.pem }, certificate_key: { file: app.pkcs1 }",
    ] {
        let asked = site.ask(&site.open(&site.app(proof)).unwrap()).await;
        assert!(asked.is_ok(), "{proof}: {asked:?}");
    }
    let (code, message, transient) = site.refused(&site.app("certificate: { file: strange.both }")).await;
    assert_eq!((code.as_str(), transient), ("AADSTS700027", false), "{message}");
    assert!(message.contains("Certificates of the app registration"), "{message}");
    for (key, why) in [
        ("strange.key", "the key is not the certificate's"),
        ("ec.key", "Entra takes RSA keys"),
        ("app.locked", "the key is encrypted"),
        ("app.pem", "no PRIVATE KEY"),
    ] {
        let proof = format!("certificate: {{ file: app.pem }}, certificate_key: {{ file: {key} }}");
        let error = site.open(&site.app(&proof)).err().expect(key).to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_set_right_by_the_authoritys() {
    let site = Site::new().await;
    site.certificate("app");
    site.set("certificate", site.text("app.pem")).await;
    for minutes in [-40, 40] {
        let wrong =
            Clock::from_fn(move || Clock::system().now().checked_add(SignedDuration::from_mins(minutes)).unwrap());
        let before = site.token_requests();
        let client = site.open_at(&site.app("certificate: { file: app.both }"), wrong).unwrap();
        assert!(site.ask(&client).await.is_ok(), "{minutes}");
        assert_eq!(site.token_requests() - before, 2, "one refusal, then with the authority's time");
    }
}

#[tokio::test]
async fn a_federated_token_is_read_again_for_each_request() {
    let site = Site::with(|options| options.token_lifetime = Duration::from_secs(1)).await;
    openssl(site.folder.path(), "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out idp.key");
    openssl(site.folder.path(), "pkey -in idp.key -pubout -out idp.pub");
    let until_second = Clock::system().now().as_second() + 600;
    let claims = |issuer: &str, subject: &str, audience: &str| json!({ "iss": issuer, "sub": subject, "aud": audience, "exp": until_second, "nbf": until_second - 1200 });
    let good = claims("https://oidc.example/", "system:serviceaccount:soc:watchfloor", "api://AzureADTokenExchange");
    let entra = site.app("workload_identity: true, token_file: federated");
    site.federated(&good);
    assert_eq!(site.refused(&entra).await.0, "AADSTS70021");
    let mut trusted = json!({ "public_key": site.text("idp.pub") });
    for (key, claim) in [("issuer", "iss"), ("subject", "sub"), ("audience", "aud")] {
        trusted[key] = good[claim].clone();
    }
    site.set("federated", trusted.to_string()).await;
    for (claim, number) in [("iss", 700_211), ("aud", 700_212), ("sub", 700_213)] {
        let mut other = good.clone();
        other[claim] = json!("other");
        site.federated(&other);
        let (code, message, transient) = site.refused(&entra).await;
        assert_eq!((code, transient), (format!("AADSTS{number}"), false), "{message}");
        assert!(message.contains("Federated credentials"), "{message}");
    }
    let mut old = good.clone();
    old["exp"] = json!(until_second - 1100);
    site.federated(&old);
    let (code, _, transient) = site.refused(&entra).await;
    assert_eq!((code.as_str(), transient), ("AADSTS700024", true), "its file may be renewed");
    site.federated(&good);
    let client = site.open(&entra).unwrap();
    assert!(site.ask(&client).await.is_ok());
    let mut other = good.clone();
    other["sub"] = json!("other");
    site.federated(&other);
    let stranger =
        |asked: &Result<Value, Outcome>| matches!(asked, Err(Outcome::NotSent { code, .. }) if code == "AADSTS700213");
    until("the new file is read when the token ends", &site, &client, stranger).await;
    std::fs::remove_file(site.folder.path().join("federated")).unwrap();
    let (code, message, transient) = site.refused(&entra).await;
    assert_eq!((code.as_str(), transient), ("token", true), "{message}");
    assert!(message.contains("reading the federated token in"), "{message}");
}

#[tokio::test]
async fn a_machines_identity_is_its_own_or_one_that_was_assigned_to_it() {
    let site = Site::new().await;
    let machine = format!("managed_identity: true, identity_endpoint: \"{}\"", site.base());
    for ids in ["", &format!(", client_id: {CLIENT_ID}"), &format!(", client_id: {CLIENT_ID}, tenant_id: {TENANT}")] {
        let asked = site.ask(&site.open(&format!("{machine}{ids}")).unwrap()).await;
        assert!(asked.is_ok(), "{ids}: {asked:?}");
    }
    let strange = format!("{machine}, client_id: 99999999-0000-0000-0000-000000000000");
    let (code, message, transient) = site.refused(&strange).await;
    assert_eq!((code.as_str(), transient), ("token", false));
    assert!(
        message.contains("assign the identity to this machine") && message.contains("Identity not found"),
        "{message}"
    );
}
