//! Users' own connectors: the shipped example as its user would have it, against an answer of its service.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};

use crate::bin::{Site, Tenant, command, wait_for};

/// A service that answers every request with the same JSON and keeps their first lines and API keys. It ends with the test.
struct Service {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<(String, String)>>>,
}

impl Service {
    fn new(answer: &Json) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = Service { address: listener.local_addr().unwrap(), heard: Arc::default() };
        let (heard, body) = (Arc::clone(&service.heard), answer.to_string());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let first = lines.next().unwrap_or_default();
                let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let key = headers.iter().find_map(|line| line.strip_prefix("x-api-key: ")).unwrap_or("").to_owned();
                heard.lock().unwrap().push((first, key));
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                drop(stream.write_all(format!("{head}{body}").as_bytes()));
            }
        });
        service
    }
}

fn example(path: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/ip-reputation");
    std::fs::read_to_string(folder.join(path)).unwrap()
}

/// A site with the example's connector and flow.
fn site(tenant: &Tenant, service: SocketAddr) -> Site {
    let site = Site::new(tenant);
    std::fs::create_dir(site.path().join("catalogues")).unwrap();
    site.write("catalogues/ip_reputation.yaml", &example("catalogues/ip_reputation.yaml"));
    site.write("secret-key", "shade-4711");
    let connections = connections(&site);
    let ours = format!(
        "{}, reputation: {{ kind: ip_reputation, base_url: \"http://{service}\", allow_private: true, \
         headers: {{ X-Api-Key: {{ file: secret-key }} }}, rate: off }} }}",
        connections.trim_end().strip_suffix('}').unwrap().trim_end()
    );
    site.set("connections", &ours)
        .set("catalogues", "[./catalogues]")
        .flow("enrich-travel-alert", &example("flows/enrich-travel-alert.yaml"))
}

fn connections(site: &Site) -> String {
    let text = std::fs::read_to_string(site.path().join("config.yaml")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("connections: ")).unwrap().to_owned()
}

#[test]
fn the_example_of_a_users_connector_checks_as_it_is_shipped() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/ip-reputation");
    let said = command(&folder, &["--allow-insecure-permissions", "check", "-o", "json"]);
    assert_eq!((said.code, &said.json()["diagnostics"]), (0, &json!([])), "{said:?}");
    let said = command(&folder, &["--allow-insecure-permissions", "actions", "list", "ip_reputation", "-o", "json"]);
    assert_eq!(said.json()[0]["name"], "ip_reputation.look_up");
    assert_eq!(said.json()[1]["effect"], "write");
}

#[test]
fn a_flow_uses_a_users_connector_like_a_shipped_one() {
    let tenant = Tenant::new(33, 40, |_| {});
    let service = Service::new(&json!({
        "ip": "203.0.113.77", "score": 91, "reputation": "BAD", "last_seen": "2026-11-20T07:00:00Z", "more": [1]
    }));
    let site = site(&tenant, service.address);
    let running = site.start(&[]);
    tenant.feed(40);
    let run = wait_for("a run has ended", 60, || {
        site.runs().into_iter().find(|run| run["status"] == "succeeded" && run["flow"] == "enrich-travel-alert")
    });
    assert_eq!(run["effects"], json!({"teams.post": 1}), "{run}");
    let heard = service.heard.lock().unwrap().clone();
    assert!(heard.iter().all(|(_, key)| key == "shade-4711"), "{heard:?}");
    let asked = "GET /v1/addresses/203.0.113.77?max_age_in_days=30 HTTP/1.1";
    assert!(heard.iter().any(|(line, _)| line == asked), "{heard:?}");
    // What the service's file says is part of the version: another file is another version, from the next start on.
    let was = run["version"].as_str().unwrap().to_owned();
    let changed = example("catalogues/ip_reputation.yaml").replace("default: 30", "default: 7");
    site.write("catalogues/ip_reputation.yaml", &changed);
    running.hangup();
    running.says("catalogues changes with a restart only");
    assert!(running.stop().success());
    let running = site.start(&[]);
    let shown = site.json(&["actions", "show", "ip_reputation.look_up"]);
    assert_eq!(shown["inputs"][1]["default"], 7);
    assert!(running.stop().success());
    let row = site.json(&["runs", "show", run["id"].as_str().unwrap()]);
    assert_eq!(row["version"], was.as_str());
}

#[test]
fn a_faulty_file_of_a_user_is_refused_with_its_place() {
    let tenant = Tenant::new(33, 2, |_| {});
    let site = site(&tenant, "127.0.0.1:9".parse().unwrap());
    let faulty = example("catalogues/ip_reputation.yaml").replacen("effect: read", "efect: read", 1);
    site.write("catalogues/ip_reputation.yaml", &faulty);
    let said = site.cli(&["check"]);
    assert_eq!(said.code, 78);
    let line = faulty.lines().position(|line| line.contains("name: ip_reputation.look_up")).unwrap() + 1;
    assert!(
        said.err.contains(&format!("ip_reputation.yaml:{line}: ip_reputation.look_up: unknown field `efect`")),
        "{said:?}"
    );
    let log = site.try_start(&[]).err().unwrap();
    assert!(log.contains("unknown field `efect`"), "{log}");
    site.write("catalogues/ip_reputation.yaml", "connector: other\ndoc: Other.\nactions: []\n");
    let said = site.cli(&["check"]);
    assert!(
        said.err.contains("connections.reputation.kind: no file below `catalogues` has a connector ip_reputation"),
        "{said:?}"
    );
}

#[test]
fn the_schema_for_editors_names_the_actions_of_this_installation() {
    let tenant = Tenant::new(3, 1, |_| {});
    let site = site(&tenant, SocketAddr::from(([127, 0, 0, 1], 1)));
    let schema = site.cli(&["schema"]).json();
    let actions = &schema["definitions"]["action_step"]["properties"]["action"];
    let names = actions["enum"].as_array().unwrap();
    let listed = site.json(&["actions", "list"]);
    let listed: Vec<&Json> = listed.as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names.iter().collect::<Vec<_>>(), listed);
    let at = names.iter().position(|name| name == "mde.isolate_machine").unwrap();
    assert_eq!(actions["enumDescriptions"][at], "Isolate a device");
    let checks = jsonschema::draft7::new(&schema).unwrap();
    let flow = |action: &str| json!({ "flow": "a", "trigger": { "type": "manual" }, "steps": [{ "action": action }] });
    let own = names.iter().find(|name| name.as_str().unwrap().starts_with("ip_reputation.")).unwrap();
    assert!(checks.is_valid(&flow(own.as_str().unwrap())) && checks.is_valid(&flow("mde.isolate_machine")));
    assert!(!checks.is_valid(&flow("mde.isolate_machin")));
    // Without a configuration there are those of the program.
    let folder = tempfile::tempdir().unwrap();
    let shipped = command(folder.path(), &["schema"]).json();
    let shipped = shipped["definitions"]["action_step"]["properties"]["action"]["enum"].as_array().unwrap().len();
    assert!(shipped > 100 && shipped < names.len(), "{shipped}");
}
