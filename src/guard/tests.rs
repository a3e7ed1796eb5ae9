//! The guard as the worker meets it: every rule, and the order among them.

use std::path::Path;
use std::sync::LazyLock;

use super::*;
use crate::catalog::{Catalog, Type};
use crate::check::program::Keep;
use crate::engine::Purpose;
use crate::id::RunId;

const HEAD: &str = "store: { path: ./data }\nflows: [./flows]\n";
const OPEN: &str = "limits: { destructive: [{ max: 2, per: 10m }] }\n";

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + minute * 60).unwrap()
}

fn guard(yaml: &str) -> Guard {
    Guard::new(&config(yaml), vec![])
}

fn config(yaml: &str) -> Config {
    Config::parse(&format!("{HEAD}{yaml}"), "config.yaml", Path::new(".")).unwrap()
}

fn asker() -> Asker {
    let run = RunId::new(at(0), "isolate", "mde:a");
    Asker { run, flow: "isolate".into(), mode: Mode::Live, occurred: at(0), now: at(1) }
}

fn call(action: &str, target: Option<(&str, &str)>) -> Call {
    static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::builtin().unwrap());
    let action = Arc::clone(CATALOG.action(action).unwrap());
    let target = target.map(|(kind, id)| Target { kind: kind.into(), id: id.into() });
    Call {
        path: "/isolation".into(),
        attempt: 1,
        purpose: Purpose::Main,
        action,
        connection: "mde".into(),
        inputs: crate::value::Map::new(),
        keep: Keep::Nothing.into(),
        target,
        timeout_ms: 120_000,
        secure: false,
        output: Type::Any,
        maybe_sent: false,
        handled: false,
    }
}

fn isolate() -> Call {
    call("mde.isolate_machine", Some(("device", "aa")))
}

fn device(name: &str, tags: &[&str]) -> Facts {
    let tags = tags.iter().map(Value::str).collect();
    Facts::Device(Value::object([("id", Value::str("AA")), ("name", Value::str(name)), ("tags", Value::list(tags))]))
}

#[track_caller]
fn decided(check: Check) -> Decision {
    match check {
        Check::Decided(decision) => decision,
        other => panic!("not decided: {other:?}"),
    }
}

fn audit(decision: &Decision) -> serde_json::Value {
    let lines = decision.reserve.iter().filter_map(|op| match op {
        Op::Audit { body, .. } => Some(serde_json::from_slice(body).unwrap()),
        _ => None,
    });
    let lines: Vec<serde_json::Value> = lines.collect();
    assert_eq!(lines.len(), 1);
    lines.into_iter().next().unwrap()
}

#[test]
fn a_permitted_call_takes_its_places_and_is_on_record() {
    let decision = decided(guard(OPEN).check(&asker(), &isolate(), &[]));
    assert_eq!(decision.verdict, Verdict::Go);
    assert!(decision.permit.is_some());
    let key = call_key(&asker().run, "/isolation");
    let place = |scope: &str| Op::Reserve { scope: scope.into(), key: key.clone(), at: at(1) };
    assert_eq!(decision.reserve[..2], [place("mde/destructive"), place("*/destructive")]);
    let line = audit(&decision);
    assert_eq!((line["verdict"].as_str(), line["target"].as_str()), (Some("go"), Some("device:aa")));
}

#[test]
fn shadow_sends_nothing_and_takes_no_place() {
    let mut guard = guard(OPEN);
    let shadow = Asker { mode: Mode::Shadow, ..asker() };
    for action in ["mde.isolate_machine", "email.send", "mde.update_alert", "http.request"] {
        let decision = decided(guard.check(&shadow, &call(action, None), &[]));
        assert_eq!((&decision.verdict, decision.permit.is_none()), (&Verdict::Shadow, true), "{action}");
        assert_eq!(decision.reserve.len(), 1);
        assert_eq!(audit(&decision)["verdict"], "shadow");
    }
    let read = decided(guard.check(&shadow, &call("mde.get_alert", None), &[]));
    assert!(read.verdict == Verdict::Go && read.permit.is_some() && read.reserve.is_empty());
}

/// A call on many devices at once shows none of them to the rules, and counts as many.
#[test]
fn a_call_on_many_asks_where_some_are_protected_and_counts_each() {
    let ids = |n: usize| Value::list((0..n).map(|i| Value::str(format!("{i:040x}"))).collect());
    let tag = |n| {
        let mut call = call("mde.tag_machines", None);
        call.inputs.insert("machine_ids".into(), ids(n));
        call
    };
    let mut protected = guard("protected: { devices: [{ tag: no-automation }] }\n");
    let Verdict::Ask { reason } = decided(protected.check(&asker(), &tag(2), &[])).verdict else { panic!("not asked") };
    assert!(reason.contains("one at a time"), "{reason}");
    let mut capped = guard("limits: { write: [{ max: 3, per: 10m }] }\n");
    assert_eq!(decided(capped.check(&asker(), &tag(3), &[])).verdict, Verdict::Go);
    let mut capped = guard("limits: { write: [{ max: 3, per: 10m }] }\n");
    assert!(matches!(decided(capped.check(&asker(), &tag(4), &[])).verdict, Verdict::Ask { .. }));
}

#[test]
fn a_stale_event_destroys_nothing_by_itself() {
    let late = |minute| Asker { now: at(minute), ..asker() };
    let mut guard = guard(OPEN);
    assert_eq!(decided(guard.check(&late(60), &isolate(), &[])).verdict, Verdict::Go);
    let decision = decided(guard.check(&late(61), &isolate(), &[]));
    assert!(decision.permit.is_none());
    let Verdict::Ask { reason } = &decision.verdict else { panic!("{decision:?}") };
    for part in [second(at(0)).to_string(), second(at(61)).to_string(), "1h".into()] {
        assert!(reason.contains(&part), "{reason}");
    }
    let write = call("mde.update_alert", Some(("alert", "x")));
    assert_eq!(decided(guard.check(&late(61), &write, &[])).verdict, Verdict::Go);
    let mut off = self::guard("fresh_for: off\n");
    assert_eq!(decided(off.check(&late(100_000), &isolate(), &[])).verdict, Verdict::Go);
}

#[test]
fn a_full_window_asks_or_stops() {
    for (word, asks) in [("ask", true), ("stop", false)] {
        let mut guard = guard(&format!("limits: {{ destructive: [{{ max: 1, per: 10m }}], on_limit: {word} }}\n"));
        assert_eq!(decided(guard.check(&asker(), &isolate(), &[])).verdict, Verdict::Go);
        let retry = Call { attempt: 2, ..isolate() };
        assert_eq!(decided(guard.check(&asker(), &retry, &[])).verdict, Verdict::Go, "a retry has its place");
        let second = Call { path: "/again".into(), ..isolate() };
        let decision = decided(guard.check(&asker(), &second, &[]));
        assert!(decision.permit.is_none() && decision.reserve.len() == 1);
        match decision.verdict {
            Verdict::Ask { reason } => assert!(asks && reason.contains("mde/destructive"), "{reason}"),
            Verdict::Refuse { code, message } => assert!(!asks && code == "limit", "{message}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn limits_outlive_a_restart_and_a_reload() {
    let mut first = guard(OPEN);
    let mut rows = vec![];
    for path in ["/a", "/b"] {
        let decision = decided(first.check(&asker(), &Call { path: path.into(), ..isolate() }, &[]));
        rows.extend(decision.reserve.into_iter().filter_map(|op| match op {
            Op::Reserve { scope, key, at } => Some(Reservation { scope, key, at }),
            _ => None,
        }));
    }
    let mut second = Guard::new(&config(OPEN), rows);
    second.reload(&config(OPEN), vec![]);
    for guard in [&mut first, &mut second] {
        let third = decided(guard.check(&asker(), &Call { path: "/c".into(), ..isolate() }, &[]));
        assert!(matches!(third.verdict, Verdict::Ask { .. }), "{third:?}");
    }
}

#[test]
fn the_facts_of_a_device_are_read_before_it_is_touched() {
    let rules = "protected: { devices: [{ tag: no-automation }, { name: 'dc*' }], on_match: refuse }\n";
    let mut guard = guard(rules);
    let Check::NeedsDevice { machine_id, connection } = guard.check(&asker(), &isolate(), &[]) else { panic!() };
    assert_eq!((&*machine_id, &*connection), ("aa", "mde"));
    let mut with = |facts: &Facts| guard.check_with(&asker(), &isolate(), &[], facts);
    assert_eq!(with(&device("pc-1.contoso.example", &[])).verdict, Verdict::Go);
    for facts in [device("DC01.contoso.example", &[]), device("pc", &["No-Automation"])] {
        let decision = with(&facts);
        assert!(matches!(&decision.verdict, Verdict::Refuse { code, .. } if code == "protected"), "{decision:?}");
        assert!(decision.permit.is_none());
    }
    let other = Facts::Device(Value::object([("id", Value::str("bb")), ("name", Value::str("pc"))]));
    let bare = Facts::Device(Value::object([("name", Value::str("pc"))]));
    for facts in [Facts::Missing("404".into()), other, bare, Facts::User(Value::empty())] {
        let decision = with(&facts);
        assert!(matches!(decision.verdict, Verdict::Ask { .. }), "{facts:?}: {decision:?}");
        assert!(decision.reserve.len() == 1 && decision.permit.is_none());
    }
    assert!(matches!(
        guard.check(&asker(), &call("mde.run_antivirus_scan", Some(("device", "aa"))), &[]),
        Check::NeedsDevice { .. }
    ));
}

#[test]
fn nothing_is_read_where_the_id_decides() {
    let mut guard = guard("protected: { devices: [{ id: 'AA' }], on_match: ask }\n");
    let decision = decided(guard.check(&asker(), &isolate(), &[]));
    assert!(matches!(&decision.verdict, Verdict::Ask { reason } if reason.contains("id: AA")), "{decision:?}");
    let other = call("mde.isolate_machine", Some(("device", "bb")));
    assert_eq!(decided(guard.check(&asker(), &other, &[])).verdict, Verdict::Go);
    let alert = call("mde.update_alert", Some(("alert", "aa")));
    assert_eq!(decided(guard.check(&asker(), &alert, &[])).verdict, Verdict::Go);
}

#[test]
fn users_are_protected_alike() {
    let mut guard = guard("protected: { users: [{ directory_role: '*Administrator*' }], on_match: ask }\n");
    let disable = call("mde.isolate_machine", Some(("user", "ann@contoso.example")));
    assert!(matches!(guard.check(&asker(), &disable, &[]), Check::NeedsUser { .. }));
    let user =
        |roles: Value| Facts::User(Value::object([("upn", Value::str("ann@contoso.example")), ("roles", roles)]));
    let admin = user(Value::list(vec![Value::str("Global Administrator")]));
    assert!(matches!(guard.check_with(&asker(), &disable, &[], &admin).verdict, Verdict::Ask { .. }));
    let nobody = user(Value::list(vec![]));
    assert_eq!(guard.check_with(&asker(), &disable, &[], &nobody).verdict, Verdict::Go);
    let unknown = Facts::User(Value::empty());
    assert!(matches!(guard.check_with(&asker(), &disable, &[], &unknown).verdict, Verdict::Ask { .. }));
}

#[test]
fn a_listed_http_request_reads_and_any_other_destroys() {
    let mut guard = guard(
        "connections:\n  ti:\n    kind: http\n    base_url: https://ti.contoso.example\n    read: ['GET /v1/lookup/*']\n",
    );
    let request = |method: &str, path: &str| {
        let inputs = [("method", method), ("path", path)].map(|(key, text)| (Arc::from(key), Value::str(text)));
        Call { connection: "ti".into(), inputs: inputs.into(), ..call("http.request", None) }
    };
    let shadow = Asker { mode: Mode::Shadow, ..asker() };
    let mut verdict = |call: &Call| decided(guard.check(&shadow, call, &[])).verdict;
    assert_eq!(verdict(&request("get", "/v1/lookup/a?b=c")), Verdict::GoRead);
    assert_eq!(verdict(&request("POST", "/v1/lookup/a")), Verdict::Shadow);
    assert_eq!(verdict(&request("GET", "/v1/lookup/../users")), Verdict::Shadow);
    let mut bodied = request("GET", "/v1/lookup/a");
    bodied.inputs.insert("body".into(), Value::Bool(true));
    assert_eq!(verdict(&bodied), Verdict::Shadow);
    let elsewhere = Call { connection: "mde".into(), ..request("GET", "/v1/lookup/a") };
    assert_eq!(verdict(&elsewhere), Verdict::Shadow);
}

#[test]
fn reads_need_no_decision_and_nothing_else_goes_without_one() {
    assert!(read_permit(&call("mde.get_alert", None)).is_some());
    for action in ["mde.isolate_machine", "email.send", "mde.update_alert", "http.request"] {
        assert!(read_permit(&call(action, None)).is_none(), "{action}");
    }
}
