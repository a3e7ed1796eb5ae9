//! Secrets in a key vault: what is read of it, what its refusals tell, and that a service takes them at start and at reload.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value as Json, json};
use watchfloor::catalog::Catalog;
use watchfloor::clock::Clock;
use watchfloor::config::Config;
use watchfloor::connector::{Client, vault};
use watchfloor::error::ExitCode;
use watchfloor::sandbox::{CLIENT_ID, CLIENT_SECRET, CLIENT_WITHOUT_ROLES, Options, Sandbox, TENANT};
use watchfloor::value::{Map, Value};

use crate::bin::{HOOK_TOKEN, Site, Tenant, wait_for};

async fn set(sandbox: &Sandbox, secret: Json) {
    let url = format!("http://{}/_sandbox/secret", sandbox.http_addr());
    let answer = reqwest::Client::new().post(url).body(secret.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 204);
}

/// A configuration whose client secret is in a vault that `client` reads.
fn config(sandbox: &Sandbox, folder: &std::path::Path, client: &str, secret: &str) -> Config {
    std::fs::write(folder.join("own"), CLIENT_SECRET).unwrap();
    let base = format!("http://{}", sandbox.http_addr());
    let ids = format!("tenant_id: {TENANT}, authority: \"{base}\"");
    let text = format!(
        "key_vaults: {{ soc: {{ vault: \"{base}\", entra: {{ {ids}, client_id: {client}, client_secret: {{ file: own }} }} }} }}\n\
         connections: {{ graph: {{ kind: graph, base_url: \"{base}\", credential: {{ entra: {{ {ids}, client_id: {CLIENT_ID}, \
         client_secret: {{ key_vault: {secret} }} }} }} }} }}\n"
    );
    Config::parse(&text, "config.yaml", folder).unwrap()
}

async fn tenant() -> (Sandbox, tempfile::TempDir, Clock) {
    let clock = Clock::system();
    let sandbox = Sandbox::start(Options::new(4, 2, clock.now()), clock.clone()).await.unwrap();
    (sandbox, tempfile::tempdir().unwrap(), clock)
}

#[tokio::test]
async fn a_secret_is_read_from_its_vault_and_its_end_is_known() {
    let (sandbox, folder, clock) = tenant().await;
    let ends = clock.now().checked_add(SignedDuration::from_hours(240)).unwrap();
    set(&sandbox, json!({ "name": "graph", "value": CLIENT_SECRET, "expires": ends })).await;
    let config = config(&sandbox, folder.path(), CLIENT_ID, "soc/graph");
    let open = || Client::open(&config, Arc::new(Catalog::builtin().unwrap()), clock.clone());
    let unread = open().err().expect("nothing was read yet").to_string();
    assert!(unread.contains("soc/graph was not read from its key vault"), "{unread}");
    vault::read(&config, &clock).await.unwrap();
    let client = open().unwrap();
    let user = sandbox.world().plan.users[0].id.clone();
    client.fetch("graph", "entra.get_user", Map::from([("user".into(), Value::str(&user))])).await.unwrap();
    let expiries = client.expiries();
    assert_eq!(expiries.len(), 1);
    assert_eq!(expiries[0].at.as_second(), ends.as_second());
    assert!(expiries[0].what.contains("soc/graph") && !format!("{config:?}").contains(CLIENT_SECRET));
    // It is not asked for again.
    let before = sandbox.ledger(&[]).calls.values().sum::<u64>();
    vault::read(&config, &clock).await.unwrap();
    assert_eq!(sandbox.ledger(&[]).calls.values().sum::<u64>(), before);
}

#[tokio::test]
async fn a_vault_that_refuses_says_what_an_admin_must_do() {
    let (sandbox, folder, clock) = tenant().await;
    set(&sandbox, json!({ "name": "old", "value": "x", "disabled": true })).await;
    set(&sandbox, json!({ "name": "fine", "value": "x" })).await;
    for (client, secret, code, todo) in [
        (CLIENT_ID, "soc/nothing", ExitCode::Config, "there is no such secret"),
        (CLIENT_ID, "soc/fine/0123456789abcdef0123456789abcdef", ExitCode::Config, "no such version"),
        (CLIENT_ID, "soc/old", ExitCode::Config, "enable the secret"),
        (CLIENT_WITHOUT_ROLES, "soc/fine", ExitCode::Config, "Key Vault Secrets User"),
        ("99999999-0000-0000-0000-000000000000", "soc/fine", ExitCode::Config, "check client_id"),
    ] {
        let config = config(&sandbox, folder.path(), client, secret);
        let faults = vault::read(&config, &clock).await.expect_err(secret);
        let text = faults[0].to_string();
        assert!(faults.len() == 1 && faults[0].code == code && text.contains(todo) && text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn what_the_simulated_vault_says_is_what_is_documented() {
    let (sandbox, _folder, _) = tenant().await;
    set(&sandbox, json!({ "name": "fine", "value": "x", "expires": "2030-01-01T00:00:00Z" })).await;
    set(&sandbox, json!({ "name": "old", "value": "x", "disabled": true })).await;
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/key-vault.json");
    let facts: Json = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let validator = |schema: &str| {
        let mut whole = facts.clone();
        whole["$ref"] = json!(format!("#/components/schemas/{schema}"));
        jsonschema::validator_for(&whole).unwrap()
    };
    let http = reqwest::Client::new();
    let base = format!("http://{}", sandbox.http_addr());
    let identity =
        format!("{base}/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net");
    let token: Json = http.get(identity).header("Metadata", "true").send().await.unwrap().json().await.unwrap();
    let token = token["access_token"].as_str().unwrap();
    for (path, bearer, status, schema) in [
        ("secrets/fine?api-version=7.4", token, 200, "SecretBundle"),
        ("secrets/fine", token, 400, "KeyVaultError"),
        ("secrets/old?api-version=7.4", token, 403, "KeyVaultError"),
        ("secrets/none?api-version=7.4", token, 404, "KeyVaultError"),
        ("secrets/fine?api-version=7.4", "nothing", 401, "KeyVaultError"),
    ] {
        let answer = http.get(format!("{base}/{path}")).bearer_auth(bearer).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        let body: Json = answer.json().await.unwrap();
        assert!(validator(schema).is_valid(&body), "{path}: {body}");
    }
}

const FLOW: &str = "flow: hooked
description: Reads the user that a webhook names.
owner: soc@contoso.example
trigger: { type: webhook, name: w, fields: { user: string } }
steps:
  - { id: user, action: entra.get_user, with: { user: \"{{ trigger.user }}\" } }
";

#[test]
fn a_service_takes_secrets_of_a_vault_at_start_and_at_each_reload() {
    let tenant = Tenant::new(7, 2, |_| {});
    let base = format!("http://{}", tenant.http_addr());
    let put = |secret: Json| {
        assert_eq!(tenant.post(&format!("{base}/_sandbox/secret"), &[], secret.to_string()).0, 204);
    };
    let ends = Clock::system().now().checked_add(SignedDuration::from_hours(240)).unwrap();
    put(json!({ "name": "graph", "value": CLIENT_SECRET, "expires": ends }));
    put(json!({ "name": "hook", "value": HOOK_TOKEN }));
    let site = Site::new(&tenant)
        .flow("hooked", FLOW)
        .set("webhooks", "{ w: { auth: { bearer: { key_vault: soc/hook } } } }")
        .set("key_vaults", &format!("{{ soc: {{ vault: \"{base}\", entra: {{ managed_identity: true }} }} }}"))
        // As in App Service, where the environment says who tells who we are.
        .env("IDENTITY_ENDPOINT", &format!("{base}/msi/token"))
        .env("IDENTITY_HEADER", watchfloor::sandbox::IDENTITY_HEADER);
    let config = std::fs::read_to_string(site.path().join("config.yaml")).unwrap();
    site.write("config.yaml", &config.replace("{ file: secret-client }", "{ key_vault: soc/graph }"));
    let service = site.start(&[]);
    let knock = |token: &str| {
        let bearer = format!("Bearer {token}");
        let user = tenant.world().plan.users[0].id.clone();
        let body = json!({ "user": user }).to_string();
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        tenant.post(&format!("{}/hooks/w", service.url), &headers, body).0
    };
    assert_eq!(knock(HOOK_TOKEN), 202);
    let runs = site.settled(1, 30);
    assert_eq!(runs[0]["status"], "succeeded", "{runs:?}");
    let status = site.json(&["status"]);
    assert!(status["expires"][0]["what"].as_str().unwrap().contains("soc/graph"), "{status}");
    assert!(site.cli(&["status"]).out.contains("renew it before that"));
    put(json!({ "name": "hook", "value": "another-token" }));
    assert_eq!(knock(HOOK_TOKEN), 202, "until the reload the old one holds");
    service.hangup();
    service.says("reloaded: secrets changed");
    assert_eq!((knock(HOOK_TOKEN), knock("another-token")), (401, 202));
    put(json!({ "name": "hook", "value": "x", "disabled": true }));
    service.hangup();
    service.says("the reload failed");
    assert_eq!(knock("another-token"), 202, "all is as it was");
    wait_for("the fault is told", 10, || site.cli(&["status"]).out.contains("enable the secret").then_some(()));
}
