use super::program::{ActionStep, Keep, StepKind};
use super::*;
use crate::value::{Map, Value};

const HUNT: &str = r#"
flow: hunt
trigger: { type: schedule, cron: "15 6 * * *", timezone: Europe/Paris }
steps:
  - id: hunt
    action: xdr.run_hunting_query
    with:
      query_file: kql/a.kql
      params: { since: "{{ trigger.window_start }}" }
      columns: { DeviceId: string, DeviceName: string, CommandHash: string, Timestamp: datetime }
  - foreach: hunt.rows
    as: row
    key: row.DeviceId + '|' + row.CommandHash
    max_items: 100
    do:
      - { id: machine, action: mde.get_machine, with: { machine_id: "{{ row.DeviceId }}" } }
      - if: machine.risk_score in ['High', 'Medium']
        then: [ { action: mde.run_antivirus_scan, with: { machine_id: "{{ row.DeviceId }}", scan_type: quick, comment: c } } ]
    collect: { device: row.DeviceName }
"#;

const CALLED: &str = r#"
flow: enrich
trigger: { type: manual }
inputs: { machine_id: string, deep: { type: bool, default: false } }
steps:
  - { id: machine, action: mde.get_machine, with: { machine_id: "{{ inputs.machine_id }}" } }
  - if: inputs.deep
    then: [ { action: mde.run_antivirus_scan, with: { machine_id: "{{ machine.id }}", scan_type: Full, comment: c } } ]
outputs: { name: "{{ default machine.name 'unknown' }}" }
"#;

const CALLER: &str = r#"
flow: caller
trigger: { type: mde.alert.new }
steps:
  - { id: sub, call: enrich, with: { machine_id: "{{ trigger.machine_id }}" } }
  - { action: email.send, with: { to: [a@contoso.example], subject: "{{ sub.name }}", text: t }, on_error: continue }
"#;

fn catalog() -> &'static Catalog {
    static CATALOG: std::sync::OnceLock<Catalog> = std::sync::OnceLock::new();
    CATALOG.get_or_init(|| Catalog::builtin().unwrap())
}

fn world_check(text: &str, query: &str) -> (Option<CheckedFlow>, Vec<Diagnostic>) {
    let include = |_: &str| Ok(query.to_owned());
    let called = |name: &str| (name == "enrich").then(|| Source::new("enrich.yaml", CALLED));
    let world = World { catalog: catalog(), connections: None, webhooks: None, include: &include, called: &called };
    check(&Source::new("f.yaml", text), &world, true)
}

fn checked(text: &str, query: &str) -> CheckedFlow {
    let (flow, found) = world_check(text, query);
    assert!(found.is_empty(), "{found:?}");
    flow.unwrap()
}

fn action(block: &Block, at: usize) -> &ActionStep {
    match &block.steps[at].kind {
        StepKind::Action(step) => step,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_what_is_read_of_an_output_is_kept() {
    let flow = checked(HUNT, "DeviceInfo");
    let Keep::Fields(members) = &*action(&flow.root, 0).keep else { panic!() };
    assert_eq!(members.keys().map(|key| &**key).collect::<Vec<_>>(), ["rows"]);
    let Keep::Fields(row) = &members["rows"] else { panic!("{members:?}") };
    assert_eq!(row.keys().map(|key| &**key).collect::<Vec<_>>(), ["CommandHash", "DeviceId", "DeviceName"]);
    let StepKind::Foreach(each) = &flow.root.steps[1].kind else { panic!() };
    let Keep::Fields(machine) = &*action(&each.body, 0).keep else { panic!() };
    assert_eq!(machine.keys().map(|key| &**key).collect::<Vec<_>>(), ["risk_score"]);
}

#[test]
fn files_constants_and_defaults_become_inputs() {
    let flow = checked(HUNT, "DeviceInfo | take 1");
    let with: BTreeMap<&str, &Dyn> = action(&flow.root, 0).with.iter().map(|(key, value)| (&**key, value)).collect();
    assert!(matches!(with["query"], Dyn::Const(text) if text.as_str() == Some("DeviceInfo | take 1")));
    assert!(!with.contains_key("query_file") && with.contains_key("max_rows"));
    let StepKind::Foreach(each) = &flow.root.steps[1].kind else { panic!() };
    let StepKind::If { then, .. } = &each.body.steps[1].kind else { panic!() };
    let scan = action(then, 0);
    let kind = scan.with.iter().find(|(key, _)| &**key == "scan_type").unwrap();
    assert!(matches!(&kind.1, Dyn::Const(word) if word.as_str() == Some("Quick")), "canonical spelling");
}

#[test]
fn a_version_is_a_hash_of_all_that_a_run_is_pinned_to() {
    let flow = checked(HUNT, "DeviceInfo");
    assert_eq!(flow.version.len(), 32);
    assert_eq!(flow.version, checked(HUNT, "DeviceInfo").version);
    assert_ne!(flow.version, checked(HUNT, "DeviceInfo | take 1").version);
    assert_ne!(flow.version, checked(&HUNT.replace("max_items: 100", "max_items: 99"), "DeviceInfo").version);
    let again = recompile(&flow.bundle, catalog(), None).unwrap();
    assert_eq!((again.version, &again.bundle), (flow.version, &flow.bundle));
}

#[test]
fn a_called_flow_lends_its_effect_its_outputs_and_its_text() {
    let flow = checked(CALLER, "");
    assert_eq!(flow.effect, crate::catalog::Effect::Write);
    assert_eq!(flow.bundle.called.keys().collect::<Vec<_>>(), ["enrich"]);
    let StepKind::Call { with, .. } = &flow.root.steps[0].kind else { panic!() };
    let deep = with.iter().find(|(key, _)| &**key == "deep").unwrap();
    assert!(matches!(&deep.1, Dyn::Const(value) if value.as_bool() == Some(false)));
    let again = recompile(&flow.bundle, catalog(), None).unwrap();
    assert_eq!(again.version, flow.version);
}

#[test]
fn what_is_not_in_this_version_checks_where_nothing_is_to_run() {
    let text = "flow: f\ntrigger: { type: manual }\nsteps:\n  - { id: go, approve: \"Go?\", to: [soc], timeout: 5m }\n  \
                - if: go.approved\n    then: [ { wait: 1s } ]\n";
    let include = |_: &str| Err("no files here".to_owned());
    let world = World { catalog: catalog(), connections: None, webhooks: None, include: &include, called: &|_| None };
    let source = Source::new("f.yaml", text);
    assert!(check(&source, &world, false).0.is_some());
    let (flow, found) = check(&source, &world, true);
    assert!(flow.is_none() && found.iter().map(|it| it.code).eq(["WF0720"]));
}

#[test]
fn no_cut_of_a_flow_panics() {
    for text in [HUNT, CALLER] {
        for at in (0..text.len()).step_by(7) {
            world_check(text.get(..at).unwrap_or(""), "");
        }
    }
}

const CARD: &str = "flow: f\ntrigger: { type: manual }\ninputs: { said: string }\nsteps:\n  - action: teams.post\n    \
                    with: { title: t, card_file: seen.card.yaml }\n";

struct Said(Value);

impl crate::expr::Env for Said {
    fn lookup(&self, name: &str) -> Option<&Value> {
        (name == "inputs").then_some(&self.0)
    }

    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }
}

fn rendered(part: &Dyn, env: &Said) -> Value {
    match part {
        Dyn::Const(value) => value.clone(),
        Dyn::Text(template) => template.eval(env).unwrap(),
        Dyn::List(items) => Value::list(items.iter().map(|item| rendered(item, env)).collect()),
        Dyn::Map(members) => {
            Value::map(members.iter().map(|(name, it)| (Arc::clone(name), rendered(it, env))).collect())
        }
    }
}

#[test]
fn what_is_interpolated_into_a_card_in_yaml_stays_text() {
    let file = "type: AdaptiveCard\nversion: \"1.4\"\nbody:\n  - { type: TextBlock, text: '{{ inputs.said }}' }\n  \
                - type: TextBlock\n    wrap: true\n    text: |\n      said: {{= inputs.said }}\n";
    let flow = checked(CARD, file);
    let StepKind::Action(post) = &flow.root.steps[0].kind else { panic!("{flow:?}") };
    let (_, card) = post.with.iter().find(|(name, _)| &**name == "card_file").unwrap();
    for (said, shown) in [
        ("x\" }\n- { type: Image, url: y", "x\" \\} - \\{ type: Image, url: y"),
        ("a: b\n- c", "a: b - c"),
        ("<at>everyone</at>\u{202e}", "&lt;at&gt;everyone&lt;/at&gt;"),
        ("' &a", "' &amp;a"),
        ("{{ inputs.said }}", "\\{\\{ inputs.said \\}\\}"),
    ] {
        let env = Said(Value::map(Map::from([("said".into(), Value::str(said))])));
        let card = rendered(card, &env).to_json();
        let body = serde_json::json!([
            { "type": "TextBlock", "text": shown },
            { "type": "TextBlock", "wrap": true, "text": format!("said: {}\n", shown) },
        ]);
        let whole = serde_json::json!({ "type": "AdaptiveCard", "version": "1.4", "body": body });
        assert_eq!(card, whole);
    }
}

#[test]
fn a_card_in_yaml_is_part_of_the_version() {
    let card =
        |text: &str| format!("type: AdaptiveCard\nversion: \"1.4\"\nbody: [{{ type: TextBlock, text: {text} }}]\n");
    let flow = checked(CARD, &card("a"));
    assert_ne!(flow.version, checked(CARD, &card("b")).version);
    assert_eq!(flow.version, checked(CARD, &card("a")).version);
    let again = recompile(&flow.bundle, catalog(), None).unwrap();
    assert_eq!(again.version, flow.version);
}
