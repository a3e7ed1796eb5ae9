use super::*;
use crate::catalog::Catalog;

fn inputs(members: &[(&str, Value)]) -> Map {
    members.iter().map(|(key, value)| ((*key).into(), value.clone())).collect()
}

fn built(action: &str, members: &[(&str, Value)], tag: &str) -> Result<Request, BadInput> {
    build(Catalog::builtin().unwrap().action(action).unwrap(), &inputs(members), tag)
}

const MACHINE: &str = "1e5bc9d7e413ddd7902c2932e418702b84d0cc07";

#[test]
fn an_isolation_carries_its_tag_in_the_comment_and_nothing_that_the_service_forbids() {
    let request = built(
        "mde.isolate_machine",
        &[("machine_id", Value::str(MACHINE)), ("comment", Value::str("why"))],
        "0123456789abcdef",
    );
    let request = request.unwrap();
    assert_eq!(request.path, format!("/api/machines/{MACHINE}/isolate"));
    assert_eq!(request.body, Some(json!({"Comment": "why [wf:0123456789abcdef]", "IsolationType": "Full"})));
}

#[test]
fn a_hostile_id_reaches_no_path() {
    for hostile in ["../../users", "x", &format!("{MACHINE}/../..")] {
        let error = built("mde.get_machine", &[("machine_id", Value::str(hostile))], "").unwrap_err();
        assert_eq!(error.param, "machine_id");
    }
    let user = built("entra.get_manager", &[("user", Value::str("o'neil#EXT#@contoso.example"))], "").unwrap();
    assert_eq!(user.path, "/v1.0/users/o%27neil%23EXT%23%40contoso.example/manager");
}

#[test]
fn filters_quote_and_use_the_service_s_own_words() {
    let since = Value::Datetime("2026-11-20T07:00:00Z".parse().unwrap());
    let both = Value::list(vec![Value::str("high"), Value::str("Unknown")]);
    let request = built("mde.list_alerts", &[("since", since.clone()), ("severity", both)], "").unwrap();
    let filter = "alertCreationTime ge 2026-11-20T07:00:00Z and (severity eq 'High' or severity eq 'UnSpecified')";
    assert_eq!(query_member(&request.path, "$filter"), Some(percent(filter).as_str()));
    let request = built("mde.list_machines", &[("name", Value::str("x' or 'a' eq 'a"))], "").unwrap();
    assert!(request.path.contains(&percent("computerDnsName eq 'x'' or ''a'' eq ''a'")), "{}", request.path);
    let one = built("xdr.list_alerts", &[("status", Value::list(vec![Value::str("InProgress")]))], "").unwrap();
    assert!(one.path.ends_with(&percent("status eq 'inProgress'")), "{}", one.path);
    let millis = built("cloud_apps.list_alerts", &[("since", since), ("open", Value::Bool(true))], "").unwrap();
    assert_eq!(
        millis.body.unwrap()["filters"],
        json!({"date": {"gte": 1_795_158_000_000i64}, "alertOpen": {"eq": true}})
    );
}

#[test]
fn a_reason_becomes_the_number_that_the_service_knows() {
    let id = ("alert_id", Value::str("691f0c3caf7417985bbf3b22"));
    let request = built("cloud_apps.close_benign", &[id.clone(), ("reason", Value::str("confirmed_with_user"))], "");
    let want = json!({"filters": {"id": {"eq": ["691f0c3caf7417985bbf3b22"]}}, "reasonId": 5});
    assert_eq!(request.unwrap().body, Some(want));
    let wrong = built("cloud_apps.close_benign", &[id, ("reason", Value::str("because"))], "").unwrap_err();
    assert!(wrong.message.contains("severity_lower"), "{wrong}");
}

#[test]
fn an_update_that_sets_nothing_is_refused() {
    let error = built("xdr.update_incident", &[("incident_id", Value::Int(7))], "").unwrap_err();
    assert!(error.to_string().contains("at least one"), "{error}");
}

#[test]
fn hunting_parameters_are_literals_before_the_query() {
    let params = Value::object([
        ("since", Value::Datetime("2026-11-20T07:00:00Z".parse().unwrap())),
        ("name", Value::str("\"; drop | where \\")),
        ("hashes", Value::list(vec![Value::str("a\"b"), Value::Int(1)])),
    ]);
    let query = ("query", Value::str("DeviceInfo"));
    let request =
        built("xdr.run_hunting_query", &[query.clone(), ("params", params), ("timespan", Value::str("7d"))], "");
    let body = request.unwrap().body.unwrap();
    let want = "let hashes = dynamic([\"a\\\"b\",1]);\nlet name = \"\\\"; drop | where \\\\\";\nlet since = datetime(2026-11-20T07:00:00Z);\nDeviceInfo";
    assert_eq!((body["Query"].as_str(), body["Timespan"].as_str()), (Some(want), Some("PT604800S")));
    let evil = Value::object([("x = 1; T", Value::Int(1))]);
    assert!(built("xdr.run_hunting_query", &[query, ("params", evil)], "").is_err());
}

#[test]
fn rows_are_typed_by_the_declared_columns_in_both_spellings() {
    let catalog = Catalog::builtin().unwrap();
    let action = catalog.action("xdr.run_hunting_query").unwrap();
    let row = Type::object(
        "Row",
        [("DeviceId", Type::String, true), ("At", Type::Datetime, true), ("Hits", Type::Int, true)],
    );
    let ty = Type::object("H", [("rows", Type::list(row), false)]);
    let now = "2026-11-20T07:00:00Z".parse().unwrap();
    let read = |body: Json, members: &[(&str, Value)]| output(action, &ty, 200, &body, &inputs(members), now);
    let body = json!({
        "Schema": [{"Name": "DeviceId", "Type": "String"}, {"Name": "At", "Type": "DateTime"}, {"Name": "Hits", "Type": "Int64"}],
        "Results": [{"DeviceId": "m", "At": "2026-11-20T06:00:00Z", "Hits": null, "Other": 1}],
    });
    let found = read(body.clone(), &[]).unwrap();
    let first = &found.get("rows").unwrap().as_list().unwrap()[0];
    assert_eq!(first.get("At"), Some(&Value::Datetime("2026-11-20T06:00:00Z".parse().unwrap())));
    assert_eq!((first.get("Hits"), first.get("Other")), (None, None));
    assert!(read(body, &[("max_rows", Value::Int(0))]).unwrap_err().message.contains("max_rows"));
    let missing = json!({"schema": [{"name": "DeviceId", "type": "String"}], "results": []});
    assert!(read(missing, &[]).unwrap_err().message.contains("no column At"));
}

#[test]
fn pages_follow_each_other_as_each_service_has_it() {
    let catalog = Catalog::builtin().unwrap();
    let machines = catalog.action("mde.list_machines").unwrap();
    let first = build(machines, &inputs(&[("top", Value::Int(2))]), "").unwrap();
    let Some(NextPage::Request(second)) = next_page(machines, &first, &json!({"value": [1, 2]})) else { panic!() };
    assert_eq!(second.path, "/api/machines?$top=2&$skip=2");
    assert_eq!(next_page(machines, &second, &json!({"value": [1]})), None);
    let apps = catalog.action("cloud_apps.list_alerts").unwrap();
    let first = build(apps, &Map::new(), "").unwrap();
    let Some(NextPage::Request(second)) = next_page(apps, &first, &json!({"data": [1, 2], "hasNext": true})) else {
        panic!()
    };
    assert_eq!(second.body.unwrap()["skip"], json!(2));
    let graph = catalog.action("xdr.list_alerts").unwrap();
    let first = build(graph, &Map::new(), "").unwrap();
    let link = json!({"value": [], "@odata.nextLink": "https://graph.microsoft.com/x?$skiptoken=1"});
    assert_eq!(
        next_page(graph, &first, &link),
        Some(NextPage::Link("https://graph.microsoft.com/x?$skiptoken=1".into()))
    );
}

#[test]
fn no_devices_and_nothing_closed_are_told_apart_from_success() {
    let catalog = Catalog::builtin().unwrap();
    let now = "2026-11-20T07:00:00Z".parse().unwrap();
    let machines = catalog.action("mde.list_machines").unwrap();
    let error = json!({"error": {"code": "ResourceNotFound"}});
    assert!(is_answer(machines, 404) && !is_answer(catalog.action("mde.get_machine").unwrap(), 404));
    let none = output(machines, &machines.output, 404, &error, &Map::new(), now).unwrap();
    assert_eq!(none.get("value"), Some(&Value::list(vec![])));
    let close = catalog.action("cloud_apps.close_benign").unwrap();
    let read = |body: Json| output(close, &close.output, 200, &body, &Map::new(), now);
    assert_eq!(read(json!({"closed_benign": 1})).unwrap().get("closed"), Some(&Value::Int(1)));
    assert!(read(json!({"closed_benign": 0, "alertsNotFound": ["x"]})).is_err());
}

#[test]
fn a_mail_body_is_html_where_both_are_given() {
    let members = [
        ("from", Value::str("soc@contoso.example")),
        ("to", Value::list(vec![Value::str("a@contoso.example")])),
        ("subject", Value::str("s")),
        ("text", Value::str("t")),
        ("html", Value::str("<p>h</p>")),
    ];
    let body = built("exchange.send_mail", &members, "").unwrap().body.unwrap();
    assert_eq!(body["message"]["body"], json!({"contentType": "html", "content": "<p>h</p>"}));
    assert_eq!(body["message"]["toRecipients"][0]["emailAddress"]["address"], "a@contoso.example");
    assert_eq!(body["saveToSentItems"], false);
}

#[test]
fn a_mail_over_graph_carries_its_flag_its_copies_and_its_files() {
    let file =
        |name: &str, key: &str, content: &str| Value::object([("name", Value::str(name)), (key, Value::str(content))]);
    let mail = |files: Vec<Value>| {
        let list = |items: &[&str]| Value::list(items.iter().map(Value::str).collect());
        let members = [
            ("from", Value::str("soc@contoso.example")),
            ("to", list(&["a@contoso.example"])),
            ("cc", list(&["b@contoso.example"])),
            ("subject", Value::str("s")),
            ("text", Value::str("t")),
            ("importance", Value::str("High")),
            ("attachments", Value::list(files)),
        ];
        built("exchange.send_mail", &members, "")
    };
    let body = mail(vec![file("a.txt", "text", "é"), file("b.bin", "base64", "AAEC")]).unwrap().body.unwrap();
    let message = &body["message"];
    assert_eq!(
        (&message["importance"], &message["ccRecipients"][0]["emailAddress"]["address"]),
        (&json!("high"), &json!("b@contoso.example"))
    );
    assert_eq!(
        message["attachments"],
        json!([
            { "@odata.type": "#microsoft.graph.fileAttachment", "name": "a.txt", "contentType": "text/plain", "contentBytes": "w6k=" },
            { "@odata.type": "#microsoft.graph.fileAttachment", "name": "b.bin", "contentType": "application/octet-stream", "contentBytes": "AAEC" },
        ])
    );
    for (wrong, why) in [
        (file("", "text", "x"), "has no name"),
        (file("x", "base64", "%%"), "no base64"),
        (file("x", "other", "y"), "one of text and base64"),
        (file("large.bin", "text", &"x".repeat(3_100_000)), "larger than the 3 MB"),
    ] {
        let refused = format!("{:?}", mail(vec![wrong]).unwrap_err());
        assert!(refused.contains(why), "{refused}");
    }
}
