//! The grammar as a whole, and that odd input never panics. Single faults stand as text cases under `tests/cases/flow`.

use super::super::model::{Condition, Payload, Step, StepKind, Wait};
use super::super::read;
use crate::diag::Source;

const EVERY_KIND: &str = r#"flow: every-kind
description: One step of each kind.
owner: soc@contoso.example
trigger:
  type: mde.alert.new
  connection: mde
  where: { any: [trigger.severity == 'High', "!has(trigger.x)"] }
  concurrency: { key: trigger.machine_id, max: 2, on_full: skip }
inputs: { who: string, tags: { type: list of string, required: false }, level: { type: string, enum: [Low, High], default: Low } }
limits: { destructive: [{ max: 1, per: 1h }] }
mode: shadow
steps:
  - id: alert
    action: mde.get_alert
    if: trigger.alert_id != ''
    with: { alert_id: "{{ trigger.alert_id }}", top: 3, ratio: 1.5, deep: { yes: no, on: [true, 010] } }
    retry: { max: 3, first: 1s, cap: 1m, on: [429, 5xx, timeout] }
    confirm: { timeout: 15m, on_timeout: continue }
    on_error: [ { wait: 1s } ]
    timeout: 30s
    secure: true
  - if: alert.severity == 'High'
    then: [ { set: { queue: "'malware'" } } ]
    else: [ { stop: failed, reason: "no {{ alert.title }}" } ]
  - switch: alert.category
    cases: { Malware: [ { wait: 10m } ] }
    default: [ { wait: { until: "now + duration('4h')" } } ]
  - foreach: alert.devices
    as: device
    key: device.id
    once_per: 7d
    at_once: 4
    max_items: 100
    on_more: first
    on_item_error: gather
    do: [ { action: mde.get_machine, with: { machine_id: "{{ device.id }}" } } ]
    collect: { id: device.id }
  - until: { all: [ size(page.value) < 100 ] }
    every: 1s
    max: 50
    carry: { skip: 0 }
    next: { skip: skip + 100 }
    do: [ { id: page, action: mde.list_machines } ]
  - try: [ { id: manager, action: entra.get_manager } ]
    catch:
      - when: error.status == 404
        do: [ { wait: 1s } ]
  - parallel: [ [ { wait: 10m } ], [ { wait: 5m } ] ]
    join: any
  - approve: "Isolate {{ alert.title }}?"
    id: go
    to: [soc-leads]
    timeout: 30m
    on_timeout: deny
  - ask: "Keep this sharing?"
    to: ["{{ notify }}"]
    options: [keep, remove_links]
    fields: { reason: { type: string } }
    timeout: 8h
    on_timeout: continue
  - { id: callback, wait_for: ticket_closed, fields: { state: string }, timeout: 7d, on_timeout: fail }
  - { id: sub, call: enrich-device, with: { machine_id: "{{ alert.id }}" } }
  - { respond: 200, body: { ok: true } }
outputs: { id: "{{ alert.id }}" }
on_failure: [ { wait: 1s } ]
finally: [ { wait: 1s } ]
"#;

#[test]
fn every_kind_of_step_is_lowered() {
    let (flow, faults) = read(&Source::new("t.yaml", EVERY_KIND));
    let shown: Vec<_> =
        faults.iter().map(|f| format!("{:?} {} {}", f.source.line_col(f.span.start), f.code, f.message)).collect();
    assert!(shown.is_empty(), "{shown:#?}");
    let flow = flow.unwrap();
    assert_eq!(flow.steps.len(), 12);
    assert!(matches!(&flow.trigger.filter, Some(Condition::Any(parts, _)) if parts.len() == 2));
    let StepKind::Action { with, condition: Some(Condition::Cel(cel)), .. } = &flow.steps[0].kind else { panic!() };
    assert_eq!(EVERY_KIND.get(cel.span.start..cel.span.end), Some(cel.text.as_str()));
    let Payload::Text(text) = &with[0].1 else { panic!() };
    assert!(text.exact && EVERY_KIND.get(text.span.start..text.span.end) == Some("{{ trigger.alert_id }}"));
    assert!(matches!((&with[1].1, &with[2].1), (Payload::Int(3, _), Payload::Number(..))));
    let Payload::Map(deep, _) = &with[3].1 else { panic!() };
    assert!(matches!(&deep[0].1, Payload::Text(text) if text.text == "no"));
    assert!(
        matches!(&deep[1].1, Payload::List(items, _) if matches!(&items[1], Payload::Text(text) if text.text == "010"))
    );
    let StepKind::Until { carry, .. } = &flow.steps[4].kind else { panic!() };
    assert_eq!(carry[0].1.text, "0");
    let StepKind::Switch { default: Some(steps), .. } = &flow.steps[2].kind else { panic!() };
    assert!(matches!(&steps[..], [Step { kind: StepKind::Wait(Wait::Until(text)), .. }] if text.exact));
}

#[test]
fn texts_that_are_not_the_files_bytes_are_not_exact() {
    let text = "flow: a\ntrigger: { type: manual }\nsteps:\n  - if: 'a == ''b'''\n    then: [ { wait: 1s } ]\n  - action: x.y\n    with:\n      one: |\n        only {{ a }}\n      two: |\n        first\n        {{ b }}\n      esc: \"a\\tb\"\n";
    let (flow, faults) = read(&Source::new("t.yaml", text));
    assert_eq!(faults, []);
    let flow = flow.unwrap();
    let StepKind::If { condition: Condition::Cel(cel), .. } = &flow.steps[0].kind else { panic!() };
    assert!(!cel.exact && cel.text == "a == 'b'");
    let StepKind::Action { with, .. } = &flow.steps[1].kind else { panic!() };
    let exact: Vec<_> = with.iter().map(|(_, value)| matches!(value, Payload::Text(text) if text.exact)).collect();
    assert_eq!(exact, [true, false, false]);
    let Payload::Text(one) = &with[0].1 else { panic!() };
    assert!(text.get(one.span.start..).unwrap().starts_with("only {{ a }}"));
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Cutting and doubling pieces of a good file gives faults or a flow, never a panic, and faults within the file.
    #[test]
    fn damaged_files_are_read_without_panic(from in 0usize..3000, len in 0usize..80, junk in "[-:{}\\[\\]&*!#'\"| \\n\\ta-z<é]{0,12}") {
        let letters: Vec<char> = EVERY_KIND.chars().collect();
        let from = from.min(letters.len());
        let to = (from + len).min(letters.len());
        let text: String = letters[..from].iter().copied().chain(junk.chars()).chain(letters[to..].iter().copied()).collect();
        let source = Source::new("t.yaml", text);
        let (flow, faults) = read(&source);
        proptest::prop_assert!(flow.is_some() || !faults.is_empty());
        for fault in &faults {
            proptest::prop_assert!(fault.span.start <= source.text.len() + 1, "{fault:?}");
            proptest::prop_assert!(crate::diag::codes::page(fault.code).is_some(), "{}", fault.code);
        }
        crate::diag::render(&faults, false);
    }
}
