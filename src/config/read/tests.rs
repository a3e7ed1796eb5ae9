//! What is read, what is refused, and with which words.

use super::*;

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(text, "config.yaml", Path::new("/etc/watchfloor"))
}

fn refused(text: &str) -> String {
    let error = parse(text).expect_err(text);
    assert_eq!(error.code, crate::error::ExitCode::Config, "{text}");
    error.to_string()
}

#[test]
fn an_alias_is_refused_with_its_place_and_the_way_out() {
    let told = refused("store: &x { path: ./d }\nflows: *x\n");
    assert_eq!(told, "config.yaml:2:8: aliases (`*name`) are not taken; write the value out");
}

#[test]
fn the_example_documents_every_key_and_parses() {
    let text = include_str!("../../../config.example.yaml");
    let config = parse(text).unwrap();
    assert_eq!(config.mode, Mode::Shadow);
    assert_eq!(config.connections.len(), 8);
    assert_eq!(config.store, Path::new("/etc/watchfloor/./data"));
    assert_eq!(config.connections["mail"].email.as_ref().unwrap().port, 587);
    assert_eq!(config.limits.windows[&Effect::Destructive].len(), 2);
    for key in [
        "store",
        "flows",
        "mode",
        "flow_modes",
        "server",
        "connections",
        "key_vaults",
        "webhooks",
        "limits",
        "protected",
        "retention",
        "fresh_for",
        "max_backlog",
        "in_flight",
        "poll",
        "approvers",
        "notify",
        "telemetry",
        "suppressions",
        "user_scoped_suppressions",
        "catalogues",
        "proxy",
        "sign_in",
        "trusted_proxies",
    ] {
        assert!(text.contains(key), "{key} is not documented");
    }
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.fresh_for, Some(Duration::from_secs(3600)));
    assert_eq!(config.listen.to_string(), "127.0.0.1:8730");
    assert_eq!(parse("fresh_for: off").unwrap().fresh_for, None);
    assert!(parse("limits: { destructive: off }").unwrap().limits.windows[&Effect::Destructive].is_empty());
}

#[test]
fn faults_name_the_place_and_the_mend() {
    let text = refused("mode: live\nlimits:\n  destructiv: off\n");
    assert!(text.contains("config.yaml:3:3") && text.contains("did you mean `destructive`?"), "{text}");
    let text = refused("mode: live\nmode: shadow\n");
    assert!(text.contains("mode"), "{text}");
    let text = refused("mode: on\n");
    assert!(text.contains("config.yaml:1"), "{text}");
    let text = refused("fresh_for: 3600\n");
    assert!(text.contains("1h"), "{text}");
    assert!(refused("sign_in: { oidc: x }").contains("not in this version"));
    assert!(refused("server: { listen: 0.0.0.0:8730 }").contains("loopback"));
    assert!(refused("a: &a [1]\nb: *a\n").contains("config.yaml"));
    assert!(refused("store: !include /etc/passwd\n").contains("config.yaml"));
}

#[test]
fn an_inline_secret_is_refused_and_not_repeated() {
    for text in [
        "connections: { m: { kind: teams, webhook_url: \"https://hunter2\" } }",
        "webhooks: { w: { auth: { bearer: hunter2 } } }",
        "webhooks: { w: { auth: hunter2 } }",
        "connections: { m: { kind: cloud_apps, base_url: https://x, credential: { api_token: hunter2 } } }",
    ] {
        let message = refused(text);
        assert!(message.contains("env: NAME") && !message.contains("hunter2"), "{message}");
    }
    let traversal = "webhooks: { w: { auth: { bearer: { credential: ../../etc/passwd } } } }";
    assert!(refused(traversal).contains("no name of a credential"));
}

#[test]
fn a_webhook_without_authentication_stays_on_the_machine() {
    let hook = "webhooks: { w: { auth: none } }";
    assert!(parse(hook).is_ok());
    assert!(parse(&format!("server: {{ public_url: \"http://localhost:8730\" }}\n{hook}")).is_ok());
    let text = refused(&format!("server: {{ public_url: \"https://watchfloor.contoso.example\" }}\n{hook}"));
    assert!(text.contains("webhooks.w") && text.contains("public_url"), "{text}");
}

#[test]
fn clear_text_stays_on_the_machine() {
    let mde = |url: &str| {
        format!(
            "connections: {{ mde: {{ kind: mde, base_url: \"{url}\", credential: {{ entra: {{ tenant_id: t, client_id: c, client_secret: {{ env: X }} }} }} }} }}"
        )
    };
    assert!(refused(&mde("http://api.contoso.example")).contains("https"));
    assert!(refused(&mde("https://user:pw@host")).contains("credential"));
    let config = parse(&mde("http://127.0.0.1:18080/")).unwrap();
    assert_eq!(config.connections["mde"].base_url.as_deref(), Some("http://127.0.0.1:18080"));
    let mail = "connections: { m: { kind: email, server: \"smtp.contoso.example:25\", tls: none, from: a@b, credential: { username: u, password: { env: P } } } }";
    assert!(refused(mail).contains("clear text"));
}

#[test]
fn a_cloud_is_named_or_follows_from_the_address() {
    let entra = |config: &Config| match &config.connections["c"].credential {
        Credential::Entra(entra) => {
            let scope = entra.cloud.scope(config.connections["c"].kind).unwrap_or_default();
            (entra.authority.clone(), config.connections["c"].base_url.clone().unwrap_or_default(), scope)
        }
        _ => panic!(),
    };
    let text = |connection: &str| {
        format!(
            "connections: {{ c: {{ {connection}, credential: {{ entra: {{ tenant_id: t, client_id: c, client_secret: {{ env: X }} }} }} }} }}"
        )
    };
    for (connection, authority, base, scope) in [
        ("kind: mde", "login.microsoftonline.com", "api.security.microsoft.com", "api.securitycenter.microsoft.com"),
        ("kind: graph", "login.microsoftonline.com", "graph.microsoft.com", "graph.microsoft.com"),
        (
            "kind: mde, cloud: gcc",
            "login.microsoftonline.com",
            "api-gcc.securitycenter.microsoft.us",
            "api-gcc.securitycenter.microsoft.us",
        ),
        (
            "kind: mde, cloud: gcc_high",
            "login.microsoftonline.us",
            "api-gov.securitycenter.microsoft.us",
            "api-gov.securitycenter.microsoft.us",
        ),
        ("kind: graph, cloud: gcc_high", "login.microsoftonline.us", "graph.microsoft.us", "graph.microsoft.us"),
        ("kind: graph, cloud: dod", "login.microsoftonline.us", "dod-graph.microsoft.us", "dod-graph.microsoft.us"),
        (
            "kind: graph, base_url: \"https://dod-graph.microsoft.us\"",
            "login.microsoftonline.us",
            "dod-graph.microsoft.us",
            "dod-graph.microsoft.us",
        ),
        (
            "kind: graph, cloud: china",
            "login.chinacloudapi.cn",
            "microsoftgraph.chinacloudapi.cn",
            "microsoftgraph.chinacloudapi.cn",
        ),
        (
            "kind: mde, cloud: dod, base_url: \"https://api-gov.securitycenter.microsoft.us\"",
            "login.microsoftonline.us",
            "api-gov.securitycenter.microsoft.us",
            "api-gov.securitycenter.microsoft.us",
        ),
    ] {
        let seen = entra(&parse(&text(connection)).unwrap());
        let wanted = (format!("https://{authority}"), format!("https://{base}"), format!("https://{scope}/.default"));
        assert_eq!(seen, wanted, "{connection}");
    }
    let message = refused(&text("kind: graph, cloud: global, base_url: \"https://graph.microsoft.us\""));
    assert!(message.contains("of the cloud gcc_high"), "{message}");
    assert!(refused(&text("kind: mde, cloud: china")).contains("base_url"), "no public API is documented there");
}

#[test]
fn an_identity_has_exactly_one_proof() {
    let graph =
        |entra: &str| format!("connections: {{ c: {{ kind: graph, credential: {{ entra: {{ {entra} }} }} }} }}");
    let ids = "tenant_id: t, client_id: c";
    for fine in [
        format!("{ids}, certificate: {{ file: a }}, certificate_key: {{ env: K }}"),
        format!("{ids}, workload_identity: true"),
        format!("{ids}, workload_identity: true, token_file: ./token"),
        "managed_identity: true".to_owned(),
        "managed_identity: true, client_id: c".to_owned(),
    ] {
        assert!(parse(&graph(&fine)).is_ok(), "{fine}");
    }
    for (wrong, why) in [
        (ids.to_owned(), "exactly one of"),
        (format!("{ids}, client_secret: {{ env: S }}, managed_identity: true"), "exactly one of"),
        (format!("{ids}, client_secret: {{ env: S }}, token_file: x"), "belongs to `workload_identity: true`"),
        (format!("{ids}, client_secret: {{ env: S }}, certificate_key: {{ env: K }}"), "belongs to `certificate`"),
        (format!("{ids}, client_secret: {{ env: S }}, identity_endpoint: \"http://localhost\""), "belongs to `managed"),
        ("client_id: c, client_secret: { env: S }".to_owned(), "`tenant_id` wants an id"),
        ("managed_identity: true, identity_endpoint: \"http://10.0.0.1\"".to_owned(), "https"),
    ] {
        assert!(refused(&graph(&wrong)).contains(why), "{wrong}");
    }
}

#[test]
fn a_secret_in_a_vault_names_a_vault_that_is_known() {
    let text = |vaults: &str, secret: &str| {
        format!("key_vaults: {{ {vaults} }}\nwebhooks: {{ w: {{ auth: {{ bearer: {{ key_vault: {secret} }} }} }} }}")
    };
    let soc = "soc: { vault: contoso-soc, entra: { managed_identity: true } }";
    let config = parse(&text(soc, "soc/hook/0123abcd")).unwrap();
    assert_eq!(config.key_vaults["soc"].url, "https://contoso-soc.vault.azure.net");
    assert_eq!(config.secrets().len(), 1);
    let high = "soc: { vault: \"https://contoso.vault.usgovcloudapi.net\", entra: { managed_identity: true } }";
    let config = parse(&text(high, "soc/hook")).unwrap();
    assert_eq!(config.key_vaults["soc"].entra.cloud, Cloud::GccHigh);
    assert!(refused(&text(soc, "other/hook")).contains("there is no `other` under `key_vaults`"));
    for wrong in ["hook", "soc/a/b/c", "soc/../x", "soc/"] {
        assert!(refused(&text(soc, wrong)).contains("VAULT/NAME"), "{wrong}");
    }
    let circle = "soc: { vault: v, entra: { tenant_id: t, client_id: c, client_secret: { key_vault: soc/x } } }";
    assert!(refused(&text(circle, "soc/hook")).contains("can't be in a vault"));
    let plain = "soc: { vault: \"http://vault.example\", entra: { managed_identity: true } }";
    assert!(refused(&text(plain, "soc/hook")).contains("https"));
}

#[cfg(unix)]
#[test]
fn files_that_others_can_change_or_read_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let secret = folder.path().join("token");
    std::fs::write(&path, "webhooks: { w: { auth: { bearer: { file: token } } } }").unwrap();
    std::fs::write(&secret, "x").unwrap();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(&path, 0o664);
    mode(&secret, 0o600);
    assert!(Config::read(&path).unwrap_err().to_string().contains("can be changed"));
    assert!(Config::read_with(&path, Permissions::Any).is_ok());
    mode(&path, 0o644);
    assert!(Config::read(&path).is_ok());
    mode(&secret, 0o644);
    assert!(Config::read(&path).unwrap_err().to_string().contains("chmod o-rw"));
    // A certificate beside its key is public; with the key in it, it is none of the others' business.
    let graph = |proof: &str| {
        let text = format!(
            "connections: {{ g: {{ kind: graph, credential: {{ entra: {{ tenant_id: t, client_id: c, {proof} }} }} }} }}"
        );
        std::fs::write(&path, text).unwrap();
        Config::read(&path)
    };
    assert!(graph("certificate: { file: token }").unwrap_err().to_string().contains("entra.certificate"));
    assert!(graph("certificate: { file: token }, certificate_key: { env: K }").is_ok());
    let exposed = graph("certificate: { env: C }, certificate_key: { file: token }").unwrap_err().to_string();
    assert!(exposed.contains("entra.certificate_key"), "{exposed}");
}
