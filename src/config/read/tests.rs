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
fn the_example_documents_every_key_and_parses() {
    let text = include_str!("../../../config.example.yaml");
    let config = parse(text).unwrap();
    assert_eq!(config.mode, Mode::Shadow);
    assert_eq!(config.connections.len(), 6);
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
}
