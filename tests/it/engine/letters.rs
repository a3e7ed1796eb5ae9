//! Dead runs that go on, and effects of which a person says what became of them: on a host that knows a run only as text
//! between any two messages.

use serde_json::json;
use watchfloor::engine::{Call, Outcome, Purpose, Said, Verdict};
use watchfloor::value::Value;

use super::host::{Host, Story, Trouble, done, flow, refused, unknown};
use super::outcomes::{ISOLATE, tenant, trigger};

const TWICE: Trouble = Trouble { twice: true, reversed: false, cancelled: false, crash: None, lazy: false };

/// Runs a flow under both: each message once, and each twice. The calls must be the same.
fn both(
    text: &str,
    host: impl for<'a> Fn(Host<'a>) -> Host<'a>,
    other: impl Fn(&Call, usize) -> Option<Outcome>,
) -> Story {
    let checked = flow(text);
    let calm = host(Host::new(&checked, trigger())).run(&mut tenant(&other));
    let twice = host(Host::new(&checked, trigger())).trouble(TWICE).run(&mut tenant(&other));
    assert_eq!((&twice.calls, &twice.effects), (&calm.calls, &calm.effects));
    calm
}

fn count(story: &Story, action: &str) -> usize {
    story.calls.iter().filter(|call| *call == action).count()
}

/// A destructive call is done, then a mail goes three rounds without success: the retry sends the mail and no more.
#[test]
fn a_dead_run_goes_on_at_the_failed_step_and_repeats_nothing_before_it() {
    let out = |call: &Call, nth: usize| (&*call.action.name == "email.send" && nth < 9).then(|| refused(503, true));
    let story = both(ISOLATE, |host| host.retries(1), out);
    assert_eq!((story.status().as_str(), story.retried), ("succeeded", 1));
    assert_eq!((count(&story, "mde.get_alert"), count(&story, "mde.isolate_machine")), (1, 1));
    assert_eq!(count(&story, "email.send"), 10);
    assert_eq!(story.input("email.send", "subject"), "Pending: Bad thing", "the output of before is there");
    assert_eq!(story.effects, [("email.send".into(), 1), ("mde.isolate_machine".into(), 1)].into());
}

#[test]
fn every_retry_has_three_rounds_of_its_own() {
    let out = |call: &Call, _: usize| (&*call.action.name == "mde.get_alert").then(|| refused(503, true));
    let story = both(ISOLATE, |host| host.retries(2), out);
    assert_eq!((story.status().as_str(), story.retried), ("dead", 2));
    assert_eq!(story.calls.len(), 36);
}

/// The destructive step itself fails: it is looked at and asked about again before it is sent again.
#[test]
fn a_destructive_step_that_failed_is_looked_up_again_before_it_is_sent() {
    let out = |call: &Call, nth: usize| match (&*call.action.name, call.purpose) {
        ("mde.isolate_machine", _) if nth < 12 => Some(refused(429, true)),
        _ => None,
    };
    let story = both(ISOLATE, |host| host.retries(1), out);
    assert_eq!(story.status(), "succeeded");
    let sent = story.calls.iter().rposition(|call| call == "mde.isolate_machine").unwrap();
    assert_eq!(story.calls[sent - 1], "look:mde.list_machine_actions", "{:?}", story.calls);
    assert_eq!(story.effects["mde.isolate_machine"], 1);
}

#[test]
fn a_retry_in_the_middle_of_nested_steps_goes_on_inside_of_them() {
    let text = r#"
flow: nested
owner: soc@contoso.example
trigger: { type: mde.alert.new, connection: mde }
steps:
  - set: { items: "['a', 'b', 'c', 'd']" }
  - id: each_one
    foreach: items
    at_once: 2
    do:
      - try:
          - action: email.send
            with: { to: [soc@contoso.example], subject: "first {{ item }}", text: x }
          - action: email.send
            with: { to: [soc@contoso.example], subject: "second {{ item }}", text: x }
            retry: { max: 1 }
        catch:
          - when: error.status == 404
            do: [ { set: { never: "1" } } ]
    collect: item
  - action: email.send
    with: { to: [soc@contoso.example], subject: "all {{ join each_one.items ' ' }}", text: x }
on_failure:
  - action: email.send
    with: { to: [soc@contoso.example], subject: "failed at {{ error.step }}", text: x }
"#;
    let checked = flow(text);
    let run = |trouble: Trouble| {
        let mut failed = false;
        let mut out = |call: &Call, _: usize| match call.inputs["subject"].as_str() {
            Some("second b") if !std::mem::replace(&mut failed, true) => refused(503, true),
            _ => done(json!({})),
        };
        Host::new(&checked, Value::empty()).trouble(trouble).retries(1).run(&mut out)
    };
    let (story, twice) = (run(Trouble::default()), run(TWICE));
    assert_eq!(story.inputs, twice.inputs);
    assert_eq!((story.status().as_str(), story.retried), ("succeeded", 1));
    let subjects: Vec<_> = story.inputs.iter().map(|inputs| inputs["subject"].as_str().unwrap()).collect();
    let sent = |subject: &str| subjects.iter().filter(|it| **it == subject).count();
    for item in ["a", "b", "c", "d"] {
        assert_eq!(sent(&format!("first {item}")), 1, "{subjects:?}");
        assert_eq!(sent(&format!("second {item}")), if item == "b" { 2 } else { 1 }, "{subjects:?}");
    }
    assert_eq!(sent("failed at each_one/each[1]/steps[0]/try/steps[1]"), 1, "{subjects:?}");
    assert_eq!(subjects.last(), Some(&"all a b c d"));
}

/// What was cut off beside the failed step, and was answered later, is not sent again.
#[test]
fn a_call_that_was_cut_off_and_answered_later_is_not_repeated() {
    let text = r#"
flow: both
owner: soc@contoso.example
trigger: { type: mde.alert.new, connection: mde }
steps:
  - set: { items: "['slow', 'bad']" }
  - foreach: items
    at_once: 2
    do:
      - if: item == 'bad'
        then:
          - try: [ { action: mde.get_alert, with: { alert_id: "{{ trigger.alert_id }}" }, retry: { max: 1 } } ]
            catch: [ { when: error.status == 404, do: [ { set: { never: "1" } } ] } ]
        else:
          - id: isolation
            action: mde.isolate_machine
            with: { machine_id: "{{ trigger.machine_id }}", comment: "{{ item }}" }
          - action: email.send
            with: { to: [soc@contoso.example], subject: "{{ isolation.id }}", text: x }
"#;
    let checked = flow(text);
    // Of what waits the last comes first: the failure overtakes the answer to the isolation, which is cut off then.
    let trouble = Trouble { reversed: true, ..Trouble::default() };
    let alone =
        |call: &Call, nth: usize| (&*call.action.name == "mde.get_alert" && nth == 0).then(|| refused(503, true));
    let cut = Host::new(&checked, trigger()).trouble(trouble).run(&mut tenant(alone));
    assert_eq!((cut.status().as_str(), count(&cut, "email.send")), ("dead", 0), "{:?}", cut.calls);
    let story = Host::new(&checked, trigger()).trouble(trouble).retries(1).run(&mut tenant(alone));
    assert_eq!(story.status(), "succeeded");
    assert_eq!(count(&story, "mde.isolate_machine"), 1, "{:?}", story.calls);
    assert_eq!(story.input("email.send", "subject"), "5382f7ea", "its output came later and is there");
    assert_eq!(story.effects["mde.isolate_machine"], 1);
}

#[test]
fn on_failure_runs_again_when_a_retry_fails_again() {
    let text = ISOLATE.to_owned()
        + "on_failure:\n  - { action: teams.post, connection: soc-triage, with: { title: \"{{ error.step }}\", text: x } }\n";
    let out = |call: &Call, _: usize| (&*call.action.name == "mde.get_alert").then(|| refused(503, true));
    let story = both(&text, |host| host.retries(1), out);
    assert_eq!((story.status().as_str(), count(&story, "teams.post")), ("dead", 2));
}

#[test]
fn a_called_flow_goes_on_where_it_failed() {
    let text = "flow: caller\nowner: soc@contoso.example\ntrigger: { type: manual }\nsteps:\n  - { id: sub, call: fetch }\n  \
                - { action: email.send, with: { to: [a@b.example], subject: \"{{ sub.titles }}\", text: x } }\n";
    let checked = flow(text);
    let mut out = |call: &Call, nth: usize| match (&*call.action.name, nth) {
        ("mde.get_alert", 0) => done(json!({"id": "da1_1", "title": "High"})),
        ("mde.get_alert", 1) => refused(503, true),
        ("mde.get_alert", _) => done(json!({"id": "da1_2", "title": "Low"})),
        _ => done(json!({})),
    };
    let story = Host::new(&checked, Value::empty()).retries(1).run(&mut out);
    assert_eq!((story.status().as_str(), story.retried), ("succeeded", 1), "{:?}", story.finish);
    assert_eq!(story.input("email.send", "subject"), "High Low");
    assert_eq!(count(&story, "mde.get_alert"), 3);
}

fn lost(call: &Call, _: usize) -> Option<Outcome> {
    (&*call.action.name == "mde.isolate_machine").then(unknown)
}

#[test]
fn what_a_person_knows_to_be_done_is_looked_up_once_more_and_adopted() {
    let story = both(ISOLATE, |host| host.said([Said::Done { output: None }]), lost);
    assert_eq!(story.status(), "succeeded");
    assert_eq!(count(&story, "mde.isolate_machine"), 2, "the two of before");
    assert_eq!(story.effects["mde.isolate_machine"], 1);
    let last = story.calls.iter().rposition(|call| call.starts_with("look:")).unwrap();
    assert_eq!(story.calls[last + 1], "email.send");
    assert_eq!(story.input("email.send", "subject"), "Pending: Bad thing", "the minimal output");
    // What the look-up finds is the output.
    let found = |call: &Call, nth: usize| match call.purpose {
        Purpose::Look if nth > 12 => Some(done(json!({"value": [
            {"id": "x", "type": "Isolate", "status": "Succeeded", "created": "2026-11-20T08:00:01Z", "comment": "?"}]}))),
        _ => lost(call, nth),
    };
    let story = both(ISOLATE, |host| host.said([Said::Done { output: None }]), found);
    assert_eq!(story.input("email.send", "subject"), "Succeeded: Bad thing", "{:?}", story.calls);
    let output = Some(Value::object([("status", Value::str("InProgress"))]));
    let story = both(ISOLATE, |host| host.said([Said::Done { output: output.clone() }]), lost);
    assert_eq!(story.input("email.send", "subject"), "InProgress: Bad thing");
}

#[test]
fn what_a_person_knows_not_to_be_done_is_sent_again_under_all_guards() {
    let out = |call: &Call, nth: usize| (&*call.action.name == "mde.isolate_machine" && nth < 2).then(unknown);
    let story = both(ISOLATE, |host| host.said([Said::NotDone]), out);
    assert_eq!((story.status().as_str(), count(&story, "mde.isolate_machine")), ("succeeded", 3));
    let sent = story.calls.iter().rposition(|call| call == "mde.isolate_machine").unwrap();
    assert_eq!(story.calls[sent - 1], "look:mde.list_machine_actions");
    assert_eq!(story.effects["mde.isolate_machine"], 1);
    let asked = story.transcript.iter().filter(|line| line.contains("Checked")).count();
    assert_eq!(asked, 4, "three isolations and a mail, each after the guard's word");
}

#[test]
fn a_person_can_have_the_step_fail() {
    let story = both(ISOLATE, |host| host.said([Said::Failed]), lost);
    assert_eq!((story.status().as_str(), count(&story, "email.send")), ("failed", 0));
    assert_eq!(story.finish.unwrap().error.unwrap().code, "settled");
}

/// A question of the guard is a decision, not a fact: nobody settles it.
#[test]
fn a_question_is_not_settled() {
    let checked = flow(ISOLATE);
    let ask = Verdict::Ask { reason: "a domain controller".into() };
    let said = [Said::Done { output: None }, Said::NotDone];
    let story = Host::new(&checked, trigger()).verdict(ask).said(said).run(&mut tenant(|_, _| None));
    assert_eq!((story.status().as_str(), count(&story, "mde.isolate_machine")), ("open", 0));
    assert_eq!(count(&story, "email.send"), 0);
}

#[test]
fn a_run_that_was_cut_off_ends_when_a_person_has_settled_it() {
    for (said, effects) in [(Said::Done { output: None }, Some(&1)), (Said::NotDone, None)] {
        let checked = flow(ISOLATE);
        let trouble = Trouble { cancelled: true, ..Trouble::default() };
        let host = Host::new(&checked, trigger()).trouble(trouble).said([said]);
        let story = host.run(&mut tenant(lost));
        assert_eq!(story.status(), "cancelled");
        assert_eq!((story.effects.get("mde.isolate_machine"), count(&story, "mde.isolate_machine")), (effects, 1));
    }
}

const TWO: &str = r#"
flow: two
owner: soc@contoso.example
trigger: { type: mde.alert.new, connection: mde }
steps:
  - parallel:
      - - { id: one, action: mde.isolate_machine, with: { machine_id: "{{ trigger.machine_id }}", comment: "1" } }
      - - { id: two, action: mde.isolate_machine, with: { machine_id: "1e5bc9d7e413ddd7902c2932e418702b84d0cc08", comment: "2" } }
    timeout: 10s
"#;

#[test]
fn of_several_that_were_cut_off_each_is_settled_by_its_name() {
    let first = ("steps[0]/branch[0]/one", Said::Done { output: None });
    let second = ("steps[0]/branch[1]/two", Said::NotDone);
    let story = both(TWO, |host| host.said_of([first.clone()]), lost);
    assert_eq!(story.status(), "open");
    let (uncertain, reason) = story.parked.unwrap();
    assert!(uncertain && reason.contains("/two:") && !reason.contains("/one:"), "{reason}");
    let story = both(TWO, |host| host.said_of([first.clone(), second.clone()]), lost);
    assert_eq!((story.status().as_str(), story.effects.get("mde.isolate_machine")), ("failed", Some(&1)));
}

#[test]
fn a_dead_run_that_was_uncertain_keeps_what_a_person_said() {
    // Of two branches one is lost and cut off by its own limit, the other fails for a passing reason.
    let text = r#"
flow: mixed
owner: soc@contoso.example
trigger: { type: mde.alert.new, connection: mde }
steps:
  - parallel:
      - - try: [ { action: mde.get_alert, with: { alert_id: "{{ trigger.alert_id }}" }, retry: { max: 1 } } ]
          catch: [ { when: error.status == 404, do: [ { set: { never: "1" } } ] } ]
      - - parallel: [ [ { id: one, action: mde.isolate_machine, with: { machine_id: "{{ trigger.machine_id }}", comment: "1" } } ] ]
          timeout: 10s
  - { action: email.send, with: { to: [a@b.example], subject: done, text: x } }
"#;
    let out = |call: &Call, nth: usize| match &*call.action.name {
        "mde.get_alert" if nth == 0 => Some(refused(503, true)),
        "mde.isolate_machine" if nth == 0 => Some(unknown()),
        _ => None,
    };
    let story = both(text, |host| host.said([Said::Done { output: None }]).retries(1), out);
    assert_eq!((story.status().as_str(), story.retried), ("succeeded", 1), "{:?} {:?}", story.calls, story.finish);
    assert_eq!((count(&story, "mde.isolate_machine"), story.effects["mde.isolate_machine"]), (1, 1));
    let story = both(text, |host| host.said([Said::NotDone]).retries(1), out);
    assert_eq!((count(&story, "mde.isolate_machine"), story.effects["mde.isolate_machine"]), (2, 1));
}
