//! The simulated tenant from outside: its answers against the services' descriptions, and its awkward habits.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde_json::{Value as Json, json};
use watchfloor::clock::Clock;
use watchfloor::connector::request;
use watchfloor::sandbox::{
    API_TOKEN, CLIENT_ID, CLIENT_SECRET, CLIENT_WITHOUT_ROLES, DEMO_FLOWS, Faults, Options, Sandbox, Source, TENANT,
};
use watchfloor::value::Value;

use crate::contract;

/// A tenant whose clock the test moves, and a client with a token for each service.
struct Tenant {
    sandbox: Sandbox,
    now: Arc<Mutex<Timestamp>>,
    http: reqwest::Client,
    mde: String,
    graph: String,
    azure: String,
    logs: String,
}

fn start() -> Timestamp {
    "2026-11-20T07:00:00Z".parse().unwrap()
}

impl Tenant {
    async fn new(change: impl FnOnce(&mut Options)) -> Tenant {
        let now = Arc::new(Mutex::new(start()));
        let shared = Arc::clone(&now);
        let mut options = Options::new(7, 60, start());
        options.action_delay = Duration::from_secs(60);
        change(&mut options);
        let sandbox = Sandbox::start(options, Clock::from_fn(move || *shared.lock().unwrap())).await.unwrap();
        let http = reqwest::Client::new();
        let (azure, logs) = (String::new(), String::new());
        let mut tenant = Tenant { sandbox, now, http, mde: String::new(), graph: String::new(), azure, logs };
        tenant.mde = tenant.token(CLIENT_ID, "https://api.securitycenter.microsoft.com").await;
        tenant.graph = tenant.token(CLIENT_ID, "https://graph.microsoft.com").await;
        tenant.azure = tenant.token(CLIENT_ID, "https://management.azure.com").await;
        tenant.logs = tenant.token(CLIENT_ID, "https://api.loganalytics.io").await;
        tenant.sandbox.feed(usize::MAX);
        tenant
    }

    fn pass(&self, seconds: i64) {
        let mut now = self.now.lock().unwrap();
        *now = now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.sandbox.http_addr())
    }

    async fn ask_token(&self, client: &str, secret: &str, resource: &str) -> (StatusCode, Json) {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("client_secret", secret),
            ("scope", &format!("{resource}/.default")),
        ];
        let url = self.url(&format!("/{TENANT}/oauth2/v2.0/token"));
        let answer = self.http.post(url).form(&form).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    async fn token(&self, client: &str, resource: &str) -> String {
        let (status, body) = self.ask_token(client, CLIENT_SECRET, resource).await;
        assert_eq!(status, 200, "{body}");
        format!("Bearer {}", body["access_token"].as_str().unwrap())
    }

    async fn call(&self, method: Method, path: &str, auth: &str, body: Option<Json>) -> (StatusCode, Json) {
        let mut request = self.http.request(method, self.url(path)).header("authorization", auth);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Json::String(text)))
    }

    async fn get(&self, path: &str) -> Json {
        let auth = if path.starts_with("/v1.0") { &self.graph } else { &self.mde };
        let (status, body) = self.call(Method::GET, path, auth, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: Json) -> (StatusCode, Json) {
        self.call(Method::POST, path, &self.mde, Some(body)).await
    }

    async fn cloud(&self, path: &str, body: Json) -> Json {
        let (status, body) = self.call(Method::POST, path, &format!("Token {API_TOKEN}"), Some(body)).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// The first device with a High alert.
    fn victim(&self) -> String {
        let world = self.sandbox.world();
        let device = world.plan.alerts.iter().find_map(|alert| match alert.source {
            Source::Endpoint { device } if alert.severity == "High" => Some(device),
            _ => None,
        });
        world.plan.devices[device.unwrap()].id.clone()
    }
}

/// A schema of one of the OpenAPI files, with what OpenAPI 3.0 calls nullable made a JSON Schema type.
fn validator(file: &str, path: &str, method: &str, status: &str) -> jsonschema::Validator {
    let text = std::fs::read_to_string(format!("tests/contract/{file}")).unwrap();
    let mut document: Json = serde_yaml::from_str(&text).unwrap();
    nullable(&mut document);
    let mut response = &document["paths"][path][method]["responses"][status];
    if let Some(reference) = response["$ref"].as_str() {
        response = document.pointer(reference.trim_start_matches('#')).unwrap();
    }
    let content = &response["content"]["application/json"]["schema"];
    assert!(content.is_object(), "{file} has no {method} {path} {status}");
    let schema = json!({"allOf": [content.clone()], "components": document["components"].clone()});
    jsonschema::validator_for(&schema).unwrap()
}

fn nullable(json: &mut Json) {
    match json {
        Json::Array(items) => items.iter_mut().for_each(nullable),
        Json::Object(members) => {
            members.values_mut().for_each(nullable);
            if members.remove("nullable") == Some(json!(true)) {
                if let Some(ty) = members.get("type").cloned().filter(Json::is_string) {
                    members.insert("type".into(), json!([ty, "null"]));
                }
                if let Some(Json::Array(values)) = members.get_mut("enum") {
                    values.push(Json::Null);
                    values.dedup();
                }
            }
        }
        _ => {}
    }
}

fn conforms(file: &str, path: &str, method: &str, status: &str, body: &Json) {
    let faults: Vec<String> = validator(file, path, method, status)
        .iter_errors(body)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .take(5)
        .collect();
    assert!(faults.is_empty(), "{method} {path}: {faults:#?}");
}

const MDE: &str = "mde-openapi.yaml";
const GRAPH: &str = "graph-openapi-slice.strict.yaml";

#[tokio::test]
async fn endpoint_answers_conform_to_the_description() {
    let tenant = Tenant::new(|_| {}).await;
    let list = tenant.get("/api/alerts?$expand=evidence&$top=5").await;
    assert_eq!(list["value"].as_array().unwrap().len(), 5);
    conforms(MDE, "/alerts", "get", "200", &list);
    let id = list["value"][0]["id"].as_str().unwrap();
    let path = format!("/api/alerts/{id}");
    conforms(MDE, "/alerts/{id}", "get", "200", &tenant.get(&path).await);
    let body = json!({"status": "InProgress", "comment": "looked at"});
    let (status, patched) = tenant.call(Method::PATCH, &path, &tenant.mde, Some(body)).await;
    assert_eq!((status.as_u16(), &patched["status"]), (200, &json!("InProgress")));
    conforms(MDE, "/alerts/{id}", "patch", "200", &patched);
    conforms(MDE, "/machines", "get", "200", &tenant.get("/api/machines?$filter=healthStatus eq 'Active'").await);
    let victim = tenant.victim();
    conforms(MDE, "/machines/{id}", "get", "200", &tenant.get(&format!("/api/machines/{victim}")).await);
    let request = json!({"Comment": "c", "IsolationType": "Full"});
    let (status, action) = tenant.post(&format!("/api/machines/{victim}/isolate"), request).await;
    assert_eq!(status, 201);
    conforms(MDE, "/machines/{id}/isolate", "post", "201", &action);
    let (status, action) = tenant.post(&format!("/api/machines/{victim}/unisolate"), json!({"Comment": "c"})).await;
    assert_eq!(status, 201);
    conforms(MDE, "/machines/{id}/unisolate", "post", "201", &action);
    let request = json!({"Comment": "c", "ScanType": "Quick"});
    let (_, action) = tenant.post(&format!("/api/machines/{victim}/runAntiVirusScan"), request).await;
    conforms(MDE, "/machines/{id}/runAntiVirusScan", "post", "201", &action);
    conforms(MDE, "/machineactions", "get", "200", &tenant.get("/api/machineactions").await);
    let path = format!("/api/machineactions/{}", action["id"].as_str().unwrap());
    conforms(MDE, "/machineactions/{id}", "get", "200", &tenant.get(&path).await);
}

/// Every action with its documented example, on things that are there: the status and the answer are documented ones, and
/// become the step's output without a note.
#[tokio::test]
async fn every_action_is_answered_as_documented_and_understood() {
    let tenant = Tenant::new(|_| {}).await;
    let (catalog, facts) = (watchfloor::catalog::Catalog::builtin().unwrap(), contract::facts());
    let mut checked = 0;
    for action in catalog.actions.values().filter(|action| action.method.is_some()) {
        let inputs = Subjects::of(&tenant, checked).await.given(action);
        let request = request::build(action, &inputs, "").unwrap();
        let mut body = request.body.clone();
        // The handler reads first, and writes the whole.
        if action.native.as_deref() == Some("sentinel_update") {
            let whole = tenant.at(&catalog, "azure.get_incident", &inputs).await;
            let members = body.as_mut().unwrap()["properties"].as_object_mut().unwrap();
            for key in ["title", "severity", "status"] {
                members.entry(key).or_insert_with(|| whole["properties"][key].clone());
            }
            let document = contract::document_of(&facts, action).unwrap().1;
            let schema = json!({"$ref": "#/components/schemas/WrittenIncident"});
            assert_eq!(contract::faults(document, &schema, body.as_ref().unwrap()), [""; 0]);
        }
        if action.native.as_deref() == Some("library_upload") {
            let kept = tenant.upload(&request).await;
            let value = request::output_noting(action, &action.output, 200, &kept, &inputs, start(), &mut vec![]);
            assert_eq!(value.unwrap().get("fileName"), Some(&Value::str("collect.ps1")));
            checked += 1;
            continue;
        }
        let method = Method::from_bytes(request.method.as_bytes()).unwrap();
        let (status, body) =
            tenant.call(method, &tenant.below(action, &request.path), &tenant.auth(action), body).await;
        let (prefix, document) = contract::document_of(&facts, action).unwrap();
        let operation = contract::operation(document, prefix, &request).unwrap();
        let answers = &operation["responses"];
        let class = format!("{}XX", status.as_u16() / 100);
        let answer = if answers[status.as_str()].is_object() { &answers[status.as_str()] } else { &answers[&class] };
        assert!(answer.is_object(), "{} is answered {status}: {body}", action.name);
        let answer = contract::resolved(document, answer);
        let schema = &answer["content"]["application/json"]["schema"];
        // The class of an answer is documented with a body, also where 204 has none.
        if schema.is_object() && status != StatusCode::NO_CONTENT {
            let body = as_documented(&body);
            assert_eq!(contract::faults(document, schema, &body), [""; 0], "{}: {body}", action.name);
        }
        let body = if body.is_string() { Json::Null } else { body };
        let mut notes = vec![];
        let value =
            request::output_noting(action, &action.output, status.as_u16(), &body, &inputs, start(), &mut notes);
        assert!(status.is_success() && value.is_ok(), "{}: {status} {value:?} {body}", action.name);
        assert_eq!(notes, [""; 0], "{}", action.name);
        tenant.pass(20);
        checked += 1;
    }
    assert!(checked >= 140, "{checked}");
}

/// Graph breaks the case of its words here, and the tenant does so on purpose.
fn as_documented(body: &Json) -> Json {
    let mut body = body.clone();
    if body["externalAudience"].is_string() {
        body["status"] = json!(body["status"].as_str().unwrap().replacen('S', "s", 1).replacen('A', "a", 1));
    }
    body
}

/// Things that are there, for the inputs that name one.
struct Subjects(Vec<(&'static str, String)>);

impl Subjects {
    /// Each time on a device and an alert of their own, so that no action is in the way of the next.
    async fn of(tenant: &Tenant, turn: usize) -> Subjects {
        let world = tenant.sandbox.world();
        let machine = world.plan.devices[turn % 10].id.clone();
        let collect = format!("/api/machines/{machine}/collectInvestigationPackage");
        let (_, open) = tenant.post(&collect, json!({"Comment": "c"})).await;
        let indicator = json!({"indicatorValue": "203.0.113.9", "indicatorType": "IpAddress", "action": "Block", "title": "t", "description": "d"});
        let (_, indicator) = tenant.post("/api/indicators", indicator).await;
        let with = |prefix: &str| {
            world.plan.alerts.iter().filter(|alert| alert.graph_id.starts_with(prefix)).collect::<Vec<_>>()
        };
        let (endpoint, cloud) = (with("da"), with("ca"));
        let user = world.plan.users.iter().find(|user| user.manager.is_some()).unwrap();
        let risky = world.plan.alerts.iter().find_map(|alert| alert.detection.clone()).unwrap();
        let text = |json: &Json| json.as_str().unwrap_or("").to_owned();
        Subjects(vec![
            ("machine_id", machine),
            ("action_id", text(&open["id"])),
            ("indicator_id", text(&indicator["id"])),
            ("mde:alert_id", endpoint[0].id.clone()),
            ("cloud_apps:alert_id", cloud[turn % cloud.len()].id.clone()),
            ("alert_id", endpoint[0].graph_id.clone()),
            ("azure:incident_id", format!("73e01a99-5cd7-4139-a149-{:012x}", endpoint[0].incident)),
            ("incident_id", endpoint[0].incident.to_string()),
            ("mde:user", "user1".to_owned()),
            ("user", user.id.clone()),
            ("from", user.upn.clone()),
            ("detection_id", risky),
            ("rule_id", "AQAAAJ5dZqA=".to_owned()),
        ])
    }

    /// The documented example, with these in it; lists of ids have one.
    fn given(&self, action: &watchfloor::catalog::Action) -> watchfloor::value::Map {
        let mut inputs = contract::example(action);
        let of = |name: &str| {
            let own = format!("{}:{name}", action.connector());
            self.0.iter().find(|(key, _)| *key == own || *key == name).map(|(_, id)| Value::str(id))
        };
        let names: Vec<_> = inputs.keys().cloned().collect();
        for name in names {
            let (one, many) = (name.strip_suffix('s').filter(|one| one.ends_with("_id")), &name);
            match one {
                Some(one) => drop(of(one).map(|id| inputs.insert(many.clone(), Value::list(vec![id])))),
                None => drop(of(&name).map(|id| inputs.insert(name.clone(), id))),
            }
        }
        inputs
    }
}

const WORKSPACE: &str = "/subscriptions/0f9d1e6e-3c0c-4a6b-9b47-5a8c7d2e1f00/resourceGroups/soc/providers/Microsoft.OperationalInsights/workspaces/soc";

impl Tenant {
    /// The path below the base URL of the connection that would carry it.
    fn below(&self, action: &watchfloor::catalog::Action, path: &str) -> String {
        match action.kind.as_str() {
            "azure" => format!("{WORKSPACE}{path}"),
            "log_analytics" => format!("/v1/workspaces/9c2f5d1e-5a1b-4b7e-8f53-2f0f6a1f7c11{path}"),
            _ => path.to_owned(),
        }
    }

    fn auth(&self, action: &watchfloor::catalog::Action) -> String {
        match action.kind.as_str() {
            "mde" => self.mde.clone(),
            "graph" => self.graph.clone(),
            "azure" => self.azure.clone(),
            "log_analytics" => self.logs.clone(),
            _ => format!("Token {API_TOKEN}"),
        }
    }

    /// What the handler makes of the request: a form.
    async fn upload(&self, request: &request::Request) -> Json {
        let file = &request.body.as_ref().unwrap()["file"];
        let form = format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename={}\r\n\r\n{}\r\n\
             --b\r\nContent-Disposition: form-data; name=\"OverrideIfExists\"\r\n\r\ntrue\r\n--b--\r\n",
            file["name"],
            file["text"].as_str().unwrap()
        );
        let post = self.http.post(self.url(&request.path)).header("authorization", &self.mde);
        post.header("content-type", "multipart/form-data; boundary=b")
            .body(form)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    async fn at(&self, catalog: &watchfloor::catalog::Catalog, name: &str, inputs: &watchfloor::value::Map) -> Json {
        let action = catalog.action(name).unwrap();
        let request = request::build(action, inputs, "").unwrap();
        let (status, body) = self.call(Method::GET, &self.below(action, &request.path), &self.auth(action), None).await;
        assert_eq!(status, 200, "{body}");
        body
    }
}

#[tokio::test]
async fn graph_answers_conform_to_the_description() {
    let tenant = Tenant::new(|_| {}).await;
    let list = tenant.get("/v1.0/security/alerts_v2?$top=50").await;
    conforms(GRAPH, "/security/alerts_v2", "get", "2XX", &list);
    let id = list["value"][0]["id"].as_str().unwrap();
    let path = format!("/v1.0/security/alerts_v2/{id}");
    conforms(GRAPH, "/security/alerts_v2/{alert-id}", "get", "2XX", &tenant.get(&path).await);
    let body = json!({"status": "resolved", "classification": "informationalExpectedActivity", "determination": "confirmedActivity"});
    let (status, patched) = tenant.call(Method::PATCH, &path, &tenant.graph, Some(body)).await;
    assert_eq!(status, 200, "{patched}");
    conforms(GRAPH, "/security/alerts_v2/{alert-id}", "patch", "2XX", &patched);
    let body = json!({"@odata.type": "microsoft.graph.security.alertComment", "comment": "seen"});
    let (status, comments) = tenant.call(Method::POST, &format!("{path}/comments"), &tenant.graph, Some(body)).await;
    assert_eq!((status.as_u16(), comments["value"].as_array().map(Vec::len)), (200, Some(1)));
    conforms(GRAPH, "/security/incidents", "get", "2XX", &tenant.get("/v1.0/security/incidents").await);
    let query = json!({"Query": "DeviceProcessEvents | where FileName == 'powershell.exe'"});
    let (_, rows) = tenant.call(Method::POST, "/v1.0/security/runHuntingQuery", &tenant.graph, Some(query)).await;
    conforms(GRAPH, "/security/runHuntingQuery", "post", "2XX", &rows);
    assert!(!rows["results"].as_array().unwrap().is_empty());
    let detections = tenant.get("/v1.0/identityProtection/riskDetections").await;
    conforms(GRAPH, "/identityProtection/riskDetections", "get", "2XX", &detections);
    let user = detections["value"][0]["userId"].as_str().unwrap();
    let replies = tenant.get(&format!("/v1.0/users/{user}/mailboxSettings/automaticRepliesSetting")).await;
    // The service itself breaks the case of its words here, and the tenant does so on purpose.
    let mut lower = replies.clone();
    lower["status"] = json!(replies["status"].as_str().unwrap().replacen('S', "s", 1).replacen('A', "a", 1));
    conforms(GRAPH, "/users/{user-id}/mailboxSettings/automaticRepliesSetting", "get", "2XX", &lower);
    conforms(GRAPH, "/users/{user-id}", "get", "2XX", &tenant.get(&format!("/v1.0/users/{user}")).await);
    conforms(
        GRAPH,
        "/identityProtection/riskyUsers",
        "get",
        "2XX",
        &tenant.get("/v1.0/identityProtection/riskyUsers").await,
    );
}

#[tokio::test]
async fn pages_follow_the_next_link_to_every_alert_once() {
    let tenant = Tenant::new(|_| {}).await;
    let mut next = Some(tenant.url("/v1.0/security/alerts_v2?$top=7&$filter=createdDateTime ge 2026-11-19T00:00:00Z"));
    let mut ids = Vec::new();
    while let Some(url) = next {
        let answer = tenant.http.get(url).header("authorization", &tenant.graph).send().await.unwrap();
        let body: Json = answer.json().await.unwrap();
        ids.extend(body["value"].as_array().unwrap().iter().map(|alert| alert["id"].to_string()));
        next = body["@odata.nextLink"].as_str().map(str::to_owned);
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!((count, ids.len()), (60, 60));
}

#[tokio::test]
async fn tokens_are_for_one_service_end_and_need_roles() {
    let tenant = Tenant::new(|_| {}).await;
    let (status, body) = tenant.ask_token(CLIENT_ID, "wrong", "https://graph.microsoft.com").await;
    assert_eq!((status.as_u16(), &body["error_codes"]), (401, &json!([7_000_215])));
    let (status, _) = tenant.call(Method::GET, "/api/alerts", &tenant.graph, None).await;
    assert_eq!(status, 401);
    let bare = tenant.token(CLIENT_WITHOUT_ROLES, "https://api.securitycenter.microsoft.com").await;
    let (status, body) = tenant.call(Method::GET, "/api/alerts", &bare, None).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (403, &json!("Forbidden")));
    tenant.pass(3600);
    let (status, _) = tenant.call(Method::GET, "/api/alerts", &tenant.mde, None).await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn a_second_isolation_is_the_same_action_or_a_400_and_one_on_top_strikes_after_the_release() {
    let tenant = Tenant::new(|_| {}).await;
    let victim = tenant.victim();
    let isolate = format!("/api/machines/{victim}/isolate");
    let body = json!({"Comment": "first", "IsolationType": "Full"});
    let (status, first) = tenant.post(&isolate, body.clone()).await;
    assert_eq!((status.as_u16(), &first["status"]), (201, &json!("Pending")));
    let (status, again) = tenant.post(&isolate, body.clone()).await;
    assert_eq!((status.as_u16(), &again["id"]), (201, &first["id"]));
    let (status, refused) = tenant.post(&isolate, body.clone()).await;
    assert_eq!((status.as_u16(), &refused["error"]["code"]), (400, &json!("ActiveRequestAlreadyExists")));
    tenant.pass(61);
    let of = |id: &Json| format!("/api/machineactions/{}", id.as_str().unwrap());
    assert_eq!(tenant.get(&of(&first["id"])).await["status"], "Succeeded");
    let (_, on_top) = tenant.post(&isolate, body).await;
    assert_ne!(on_top["id"], first["id"]);
    tenant.pass(3600);
    let token = tenant.token(CLIENT_ID, "https://api.securitycenter.microsoft.com").await;
    let (_, waiting) = tenant.call(Method::GET, &of(&on_top["id"]), &token, None).await;
    assert_eq!(waiting["status"], "Pending");
    let release = format!("/api/machines/{victim}/unisolate");
    tenant.call(Method::POST, &release, &token, Some(json!({"Comment": "clean"}))).await;
    tenant.pass(61);
    let (_, struck) = tenant.call(Method::GET, &of(&on_top["id"]), &token, None).await;
    assert_eq!(struck["status"], "Succeeded");
    let ledger = tenant.sandbox.ledger(&DEMO_FLOWS);
    assert_eq!(ledger.effects["mde.isolate_machine"], 2);
    assert_eq!(ledger.duplicates, 1);
}

#[tokio::test]
async fn what_the_service_would_refuse_is_refused() {
    let tenant = Tenant::new(|_| {}).await;
    let isolate = format!("/api/machines/{}/isolate", tenant.victim());
    for (body, code) in [
        (json!({"IsolationType": "Full"}), "MissingRequiredParameter"),
        (json!({"comment": "x"}), "InvalidRequestBody"),
        (json!({"Comment": "x", "IsolationType": "full"}), "InvalidInput"),
    ] {
        let (status, answer) = tenant.post(&isolate, body).await;
        assert_eq!((status.as_u16(), answer["error"]["code"].as_str()), (400, Some(code)));
    }
    let (status, _) = tenant.call(Method::GET, "/api/alerts?$filter=title eq 'x'", &tenant.mde, None).await;
    assert_eq!(status, 400);
    let (status, _) = tenant.call(Method::GET, "/api/alerts/da1_1", &tenant.mde, None).await;
    assert_eq!(status, 404);
    assert_eq!(tenant.sandbox.ledger(&DEMO_FLOWS).effects.len(), 0);
}

#[tokio::test]
async fn cloud_apps_close_counts_and_names_what_it_did_not_find() {
    let tenant = Tenant::new(|_| {}).await;
    let list = tenant.cloud("/api/v1/alerts/", json!({"filters": {"alertOpen": {"eq": true}}, "limit": 2})).await;
    assert_eq!((list["data"].as_array().map(Vec::len), &list["hasNext"]), (Some(2), &json!(true)));
    let id = list["data"][0]["_id"].as_str().unwrap();
    let body = json!({"filters": {"id": {"eq": [id]}}, "reasonId": 4, "comment": "travel"});
    let closed = tenant.cloud("/api/v1/alerts/close_benign/", body.clone()).await;
    assert_eq!(closed, json!({"closed_benign": 1}));
    let again = tenant.cloud("/api/v1/alerts/close_benign/", body).await;
    assert_eq!(again, json!({"closed_benign": 0, "alertsNotFound": [id]}));
}

#[tokio::test]
async fn throttles_hold_and_identity_protection_does_not_say_when() {
    let tenant = Tenant::new(|options| options.throttles = true).await;
    let url = tenant.url("/v1.0/identityProtection/riskyUsers");
    let ask = || tenant.http.get(&url).header("authorization", &tenant.graph).send();
    assert_eq!(ask().await.unwrap().status(), 200);
    let refused = ask().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers().get("retry-after")), (429, None));
    tenant.pass(1);
    assert_eq!(ask().await.unwrap().status(), 200);
    for _ in 0..100 {
        tenant.get("/api/alerts?$top=1").await;
    }
    let url = tenant.url("/api/alerts?$top=1");
    let refused = tenant.http.get(url).header("authorization", &tenant.mde).send().await.unwrap();
    assert_eq!(refused.headers().get("retry-after").unwrap(), "60");
}

#[tokio::test]
async fn a_reset_after_the_effect_leaves_the_effect_and_one_before_does_not() {
    for (faults, effects) in [
        (Faults { reset_after: 1000, ..Faults::default() }, 1),
        (Faults { reset_before: 1000, ..Faults::default() }, 0),
    ] {
        let tenant = Tenant::new(|_| {}).await;
        let set = tenant.http.post(tenant.url("/_sandbox/faults")).json(&faults).send().await.unwrap();
        assert_eq!(set.status(), 200);
        let url = tenant.url(&format!("/api/machines/{}/isolate", tenant.victim()));
        let request = tenant.http.post(url).header("authorization", &tenant.mde).json(&json!({"Comment": "c"}));
        let outcome = match request.send().await {
            Ok(answer) => answer.bytes().await.map(|_| ()),
            Err(error) => Err(error),
        };
        assert!(outcome.is_err());
        let ledger =
            tenant.http.get(tenant.url("/_sandbox/ledger")).send().await.unwrap().json::<Json>().await.unwrap();
        assert_eq!(ledger["effects"]["mde.isolate_machine"].as_u64().unwrap_or(0), effects);
    }
}

#[tokio::test]
async fn mails_are_booked_on_the_alert_that_they_name() {
    use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
    let tenant = Tenant::new(|_| {}).await;
    let world = tenant.sandbox.world();
    let high = world.plan.alerts.iter().find(|alert| alert.severity == "High" && alert.id.starts_with("da")).unwrap();
    let mail = Message::builder()
        .from("soc@contoso.example".parse().unwrap())
        .to("lead@contoso.example".parse().unwrap())
        .subject(format!("Isolation Überwachung {}", high.title))
        .body(format!("a line\n.\n..\nalert {} ä {}", high.id, "x".repeat(200)))
        .unwrap();
    let address = tenant.sandbox.smtp_addr();
    let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(address.ip().to_string());
    transport.port(address.port()).build().send(mail).await.unwrap();
    let ledger = tenant.sandbox.ledger(&DEMO_FLOWS);
    assert_eq!(ledger.alerts[&high.id].done["email.send"], 1);
    assert_eq!(ledger.wrong, 0, "{:?}", ledger.findings);
}

#[tokio::test]
async fn late_alerts_carry_a_time_before_they_could_be_seen_and_the_same_seed_is_the_same_world() {
    let tenant = Tenant::new(|options| options.lateness = Duration::from_secs(1800)).await;
    let list = tenant.get("/api/alerts").await;
    let times: Vec<Timestamp> = list["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|alert| alert["alertCreationTime"].as_str().unwrap().parse().unwrap())
        .collect();
    let late = times.iter().filter(|at| start().duration_since(**at) >= SignedDuration::from_mins(29)).count();
    assert!(late > 0 && late < times.len(), "{late} of {}", times.len());
    let twin = Tenant::new(|_| {}).await;
    assert_eq!(tenant.sandbox.world().plan, twin.sandbox.world().plan);
}

#[tokio::test]
async fn every_route_of_the_catalogue_is_served() {
    let tenant = Tenant::new(|_| {}).await;
    let world = tenant.sandbox.world();
    let isolate = format!("/api/machines/{}/isolate", tenant.victim());
    let (_, action) = tenant.post(&isolate, json!({"Comment": "c"})).await;
    let of = |prefix: &str| world.plan.alerts.iter().find(|alert| alert.graph_id.starts_with(prefix)).unwrap();
    let catalog = watchfloor::catalog::Catalog::builtin().unwrap();
    let mut served = 0;
    for entry in catalog.actions.values() {
        let (Some(method), Some(path)) = (&entry.method, &entry.path) else { continue };
        let alert = match entry.connector() {
            "mde" => &of("da").id,
            "cloud_apps" => &of("ca").id,
            _ => &of("da").graph_id,
        };
        let auth = tenant.auth(entry);
        let user = world.plan.users.iter().find(|user| user.manager.is_some()).unwrap();
        let incident = match entry.connector() {
            "azure" => format!("73e01a99-5cd7-4139-a149-{:012x}", of("da").incident),
            _ => of("da").incident.to_string(),
        };
        let path = tenant
            .below(entry, path)
            .replace("{tag}", "3f0c1a52-0000-4000-8000-000000000000")
            .replace("{alert_id}", alert)
            .replace("{machine_id}", &tenant.victim())
            .replace("{action_id}", action["id"].as_str().unwrap())
            .replace("{incident_id}", &incident)
            .replace("{user}", &user.id)
            .replace("{from}", &user.id)
            .replace("{indicator_id}", "995")
            .replace("{detection_id}", of("ca").detection.as_deref().unwrap_or("none"))
            .replace("{rule_id}", "AQAAAJ5dZqA=")
            .replace("{investigation_id}", "63017")
            .replace("{file_name}", "collect.ps1")
            .replace("{index}", "0")
            .replace("{file}", "87662bc3d60e4200ceaf7aae249d1c343f4b83c9")
            .replace("{domain}", "contoso.example")
            .replace("{ip}", "203.0.113.77")
            .replace("{timestamp}", "2026-11-20T07:20:00Z")
            .replace("{software_id}", "microsoft-_-edge")
            .replace("{cve}", "CVE-2026-12345")
            .replace("{recommendation_id}", "va-_-google-_-chrome")
            .replace("{task_id}", "03942ef5-aecb-4c6e-b555-d6a97013844c");
        assert!(!path.contains('{'), "{}: {path}", entry.name);
        let body = (&**method != "GET").then(|| json!({}));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let (status, answer) = tenant.call(method, &path, &auth, body).await;
        let unknown = answer.to_string().contains("the simulated tenant has no");
        assert!(!unknown && status.as_u16() != 401, "{} {path}: {status} {answer}", entry.name);
        served += 1;
    }
    assert!(served > 90, "{served}");
}
