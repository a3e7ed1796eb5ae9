//! What an outcome means by effect (S2, S6, S8), on the isolation flow.

use serde_json::json;
use watchfloor::engine::{Call, Outcome, Purpose, Verdict};
use watchfloor::value::Value;

use super::host::{Host, START, Story, Trouble, done, flow, refused, unknown};

pub(super) const ISOLATE: &str = r#"
flow: isolate
owner: soc@contoso.example
trigger: { type: mde.alert.new, connection: mde }
steps:
  - id: alert
    action: mde.get_alert
    with: { alert_id: "{{ trigger.alert_id }}" }
  - if: alert.severity == 'High'
    then:
      - id: isolation
        action: mde.isolate_machine
        with: { machine_id: "{{ trigger.machine_id }}", isolation_type: Full, comment: "{{ alert.title }}" }
      - action: email.send
        with: { to: [soc@contoso.example], subject: "{{ isolation.status }}: {{ alert.title }}", text: "{{ alert.id }}" }
"#;

pub(super) fn trigger() -> Value {
    Value::object([
        ("alert_id", Value::str("da1_1")),
        ("machine_id", Value::str("1e5bc9d7e413ddd7902c2932e418702b84d0cc07")),
    ])
}

/// A tenant in which all goes well, but for what `other` says.
pub(super) fn tenant(mut other: impl FnMut(&Call, usize) -> Option<Outcome>) -> impl FnMut(&Call, usize) -> Outcome {
    move |call, nth| {
        if let Some(outcome) = other(call, nth) {
            return outcome;
        }
        match (&*call.action.name, call.purpose) {
            ("mde.get_alert", _) => done(json!({"id": "da1_1", "severity": "High", "title": "Bad thing"})),
            ("mde.list_machine_actions", _) => done(json!({"value": []})),
            ("mde.isolate_machine", _) => done(json!({"id": "5382f7ea", "status": "Pending", "type": "Isolate"})),
            _ => done(json!({})),
        }
    }
}

fn run(other: impl FnMut(&Call, usize) -> Option<Outcome>) -> Story {
    Host::new(&flow(ISOLATE), trigger()).run(&mut tenant(other))
}

const CALM: [&str; 4] = ["mde.get_alert", "look:mde.list_machine_actions", "mde.isolate_machine", "email.send"];

#[test]
fn a_high_alert_is_isolated_and_mailed_after_a_look() {
    let story = run(|_, _| None);
    assert_eq!(story.calls, CALM);
    assert_eq!(story.status(), "succeeded");
    assert_eq!(story.input("email.send", "subject"), "Pending: Bad thing");
    assert_eq!(story.effects, [("email.send".into(), 1), ("mde.isolate_machine".into(), 1)].into());
}

#[test]
fn a_medium_alert_is_only_read() {
    let story = run(|call, _| {
        (&*call.action.name == "mde.get_alert")
            .then(|| done(json!({"id": "da1_1", "severity": "Medium", "title": "Odd thing"})))
    });
    assert_eq!(story.calls, ["mde.get_alert"]);
    assert_eq!(story.status(), "succeeded");
}

#[test]
fn an_isolated_device_is_left_as_it_is_and_the_mail_still_goes() {
    let story = run(|call, _| {
        (call.purpose == Purpose::Look).then(|| {
            done(json!({"value": [{"id": "old", "type": "Isolate", "status": "Succeeded", "created": START, "comment": "by hand"}]}))
        })
    });
    assert_eq!(story.calls, ["mde.get_alert", "look:mde.list_machine_actions", "email.send"]);
    assert_eq!(story.input("email.send", "subject"), "Succeeded: Bad thing");
    assert_eq!(story.effects, [("email.send".into(), 1)].into());
}

#[test]
fn what_a_person_released_within_a_day_waits_for_a_person() {
    let story = run(|call, _| {
        (call.purpose == Purpose::Look).then(|| {
            done(json!({"value": [{"id": "x", "type": "Unisolate", "status": "Succeeded", "created": "2026-11-20T07:00:00Z", "requestor": "ana@contoso.example"}]}))
        })
    });
    assert_eq!(story.status(), "open");
    let (uncertain, reason) = story.parked.unwrap();
    assert!(!uncertain && reason.contains("ana@contoso.example released"), "{reason}");
}

#[test]
fn a_lost_answer_is_looked_up_and_our_own_isolation_adopted() {
    let mut tag = String::new();
    let story = run(|call, nth| match (&*call.action.name, call.purpose) {
        ("mde.isolate_machine", _) => {
            let run = watchfloor::id::RunId::new(START.parse().unwrap(), "test", "1");
            tag = watchfloor::id::tag(&watchfloor::id::call_key(&run, &call.path));
            Some(unknown())
        }
        (_, Purpose::Look) if nth > 0 => Some(done(json!({"value": [
            {"id": "ours", "type": "Isolate", "status": "Pending", "created": START, "comment": format!("x [wf:{tag}]")}]}))),
        _ => None,
    });
    let looked = [
        "mde.get_alert",
        "look:mde.list_machine_actions",
        "mde.isolate_machine",
        "look:mde.list_machine_actions",
        "email.send",
    ];
    assert_eq!(story.calls, looked);
    assert_eq!(story.status(), "succeeded");
    assert_eq!(story.effects["mde.isolate_machine"], 1);
}

#[test]
fn nothing_found_after_thirty_seconds_is_sent_once_more_and_no_sooner() {
    let story = run(|call, nth| (&*call.action.name == "mde.isolate_machine" && nth == 0).then(unknown));
    assert_eq!(story.calls.iter().filter(|call| *call == "mde.isolate_machine").count(), 2);
    assert_eq!(story.status(), "succeeded");
    let took = story.ended.unwrap().duration_since(START.parse().unwrap());
    assert!(took.as_secs() >= 30, "sent again after {took:?}");
}

#[test]
fn two_lost_answers_without_a_trace_are_for_a_person() {
    let story = run(|call, _| (&*call.action.name == "mde.isolate_machine").then(unknown));
    assert_eq!(story.calls.iter().filter(|call| *call == "mde.isolate_machine").count(), 2);
    assert_eq!(story.status(), "open");
    assert!(story.parked.unwrap().0, "uncertain");
}

/// What is made anew each time can't be told from a first one: a lost answer is not followed by a second call.
#[test]
fn what_creates_is_not_made_twice_after_a_lost_answer() {
    let raise = flow(
        r#"
flow: raise
owner: soc@contoso.example
trigger: { type: manual }
steps:
  - action: mde.start_investigation
    with: { machine_id: 1e5bc9d7e413ddd7902c2932e418702b84d0cc07, comment: "See the ticket." }
"#,
    );
    let story = Host::new(&raise, Value::empty()).run(&mut |_, _| unknown());
    assert_eq!(story.calls, ["mde.start_investigation"]);
    assert!(story.parked.is_some_and(|(uncertain, _)| uncertain), "{}", story.transcript.join("\n"));
    // A throttled one did nothing, and is tried again.
    let story = Host::new(&raise, Value::empty())
        .run(&mut |_, nth| if nth == 0 { refused(429, true) } else { done(json!({"id": "63017"})) });
    assert_eq!((story.calls.len(), story.status().as_str()), (2, "succeeded"));
}

#[test]
fn a_throttled_isolation_is_tried_again_under_a_new_look() {
    let story = run(|call, nth| (&*call.action.name == "mde.isolate_machine" && nth == 0).then(|| refused(429, true)));
    assert_eq!(story.status(), "succeeded");
    assert_eq!(story.calls.iter().filter(|call| *call == "look:mde.list_machine_actions").count(), 2);
}

#[test]
fn a_refused_isolation_fails_the_run_without_a_second_try() {
    let story = run(|call, _| (&*call.action.name == "mde.isolate_machine").then(|| refused(403, false)));
    assert_eq!(story.status(), "failed");
    assert_eq!(story.calls.iter().filter(|call| *call == "mde.isolate_machine").count(), 1);
}

#[test]
fn a_read_that_fails_for_a_passing_reason_ends_as_a_dead_letter_after_three_rounds() {
    let story = run(|call, _| (&*call.action.name == "mde.get_alert").then(|| refused(503, true)));
    assert_eq!(story.calls.len(), 12, "three rounds of four");
    assert_eq!(story.status(), "dead");
}

#[test]
fn what_is_not_there_yet_is_asked_for_again_before_the_run_fails() {
    let missing = |times: usize| {
        move |call: &Call, nth: usize| {
            (&*call.action.name == "mde.get_alert" && nth < times).then(|| refused(404, false))
        }
    };
    assert_eq!(run(missing(1)).status(), "succeeded");
    let story = run(missing(usize::MAX));
    assert_eq!(story.calls.len(), 4, "one round: it may never have been there");
    assert_eq!(story.status(), "failed");
    // One 404 after three passing failures says little: another round follows.
    let story = run(|call, nth| {
        let alert = &*call.action.name == "mde.get_alert";
        (alert && nth < 4).then(|| if nth == 3 { refused(404, false) } else { refused(503, true) })
    });
    assert_eq!(
        (story.status().as_str(), story.calls.iter().filter(|call| *call == "mde.get_alert").count()),
        ("succeeded", 5)
    );
    // Nothing but reads: what a service did not find it did not change, and will not.
    let story = run(|call, _| (&*call.action.name == "mde.isolate_machine").then(|| refused(404, false)));
    assert_eq!(story.calls.iter().filter(|call| *call == "mde.isolate_machine").count(), 1);
}

#[test]
fn a_mail_whose_answer_was_lost_is_sent_again_and_says_so() {
    let mut maybe = Vec::new();
    let story = run(|call, nth| {
        (&*call.action.name == "email.send").then(|| {
            maybe.push(call.maybe_sent);
            if nth == 0 { unknown() } else { done(json!({})) }
        })
    });
    assert_eq!(story.status(), "succeeded");
    assert_eq!(maybe, [false, true]);
}

#[test]
fn in_shadow_nothing_but_reads_is_sent_and_the_flow_goes_on() {
    let checked = flow(ISOLATE);
    let story = Host::new(&checked, trigger()).verdict(Verdict::Shadow).run(&mut tenant(|_, _| None));
    assert_eq!(story.calls, ["mde.get_alert", "look:mde.list_machine_actions"]);
    assert_eq!(story.status(), "succeeded");
    assert!(story.effects.is_empty());
}

#[test]
fn a_question_parks_the_run_and_a_refusal_fails_it() {
    let checked = flow(ISOLATE);
    let ask = Verdict::Ask { reason: "server".into() };
    let story = Host::new(&checked, trigger()).verdict(ask).run(&mut tenant(|_, _| None));
    assert_eq!((story.status().as_str(), story.parked.map(|(uncertain, _)| uncertain)), ("open", Some(false)));
    let refuse = Verdict::Refuse { code: "protected".into(), message: "a domain controller".into() };
    let story = Host::new(&checked, trigger()).verdict(refuse).run(&mut tenant(|_, _| None));
    assert_eq!(story.status(), "failed");
}

#[test]
fn what_was_held_back_uses_up_nothing_and_is_asked_again_from_the_lock_on() {
    let checked = flow(ISOLATE);
    // Held by the guard before it was ever sent: the target is let go, and looked at again when the turn comes.
    let story = Host::new(&checked, trigger()).first([Verdict::Again, Verdict::Again]).run(&mut tenant(|_, _| None));
    let look = "look:mde.list_machine_actions";
    assert_eq!(story.calls, ["mde.get_alert", look, look, look, "mde.isolate_machine", "email.send"]);
    let text = story.transcript.concat();
    let (unlocks, locks) = (text.matches("\"unlock").count(), text.matches("\"lock").count());
    assert_eq!((unlocks, locks), (3, 3), "{text}");
    // Held at the last moment, many times more often than there are tries: no time passes and nothing fails.
    let held = |_: &Call, nth: usize| {
        let code = "held".to_owned();
        (nth < 30).then(|| Outcome::NotSent { code, message: "everything is paused".into(), transient: true })
    };
    let story = run(|call, nth| if call.purpose == Purpose::Main { held(call, nth) } else { None });
    assert_eq!(story.status(), "succeeded");
    assert_eq!(story.ended.unwrap().to_string(), START);
    assert_eq!(story.effects, [("email.send".into(), 1), ("mde.isolate_machine".into(), 1)].into());
}

#[test]
fn a_flow_that_handles_errors_hears_once_of_a_connection_that_stays_away() {
    let text = ISOLATE.replace("      - action: email.send", "      - on_error: continue\n        action: email.send");
    let checked = flow(&text);
    let away = |call: &Call, _: usize| {
        assert_eq!(call.handled, &*call.action.name == "email.send", "{}", call.action.name);
        let code = "unavailable".to_owned();
        (call.handled).then(|| Outcome::NotSent { code, message: "it fails".into(), transient: true })
    };
    let story = Host::new(&checked, trigger()).run(&mut tenant(away));
    assert_eq!((story.status().as_str(), story.calls.len()), ("succeeded", 4), "it is not tried again");
    let unavailable = Verdict::Unavailable { message: "it fails".into() };
    let story = Host::new(&checked, trigger()).first([Verdict::Go, unavailable]).run(&mut tenant(|_, _| None));
    assert_eq!((story.status().as_str(), story.calls.len()), ("succeeded", 3));
}

#[test]
fn every_message_twice_changes_nothing() {
    let checked = flow(ISOLATE);
    let calm = run(|_, _| None);
    let story = Host::new(&checked, trigger())
        .trouble(Trouble { twice: true, ..Trouble::default() })
        .run(&mut tenant(|_, _| None));
    assert_eq!(story.calls, calm.calls);
    assert_eq!(story.effects, calm.effects);
}

#[test]
fn the_same_messages_give_the_same_commands() {
    let noisy = |call: &Call, nth: usize| match (&*call.action.name, nth) {
        ("mde.get_alert", 0) => Some(refused(503, true)),
        ("mde.isolate_machine", 0) => Some(unknown()),
        ("email.send", 0) => Some(unknown()),
        _ => None,
    };
    assert_eq!(run(noisy).transcript, run(noisy).transcript);
}

#[test]
fn what_is_cancelled_while_its_outcome_is_unknown_stays_uncertain_for_a_person() {
    let checked = flow(ISOLATE);
    let story = Host::new(&checked, trigger())
        .trouble(Trouble { cancelled: true, ..Trouble::default() })
        .run(&mut tenant(|call, _| (&*call.action.name == "mde.isolate_machine").then(unknown)));
    assert_eq!(story.status(), "open");
    let (uncertain, reason) = story.parked.unwrap();
    assert!(uncertain && reason.starts_with("steps[1]/then/isolation: cut off"), "{reason}");
}

#[test]
fn one_device_in_two_spellings_is_one_target() {
    let checked = flow(ISOLATE);
    let id = "1e5bc9d7e413ddd7902c2932e418702b84d0cc07";
    for spelling in [id.to_uppercase(), format!("https://security.microsoft.com/machines/v2/{id}/overview")] {
        let trigger = Value::object([("alert_id", Value::str("da1_1")), ("machine_id", Value::str(spelling))]);
        let story = Host::new(&checked, trigger).run(&mut tenant(|_, _| None));
        assert_eq!(story.input("mde.isolate_machine", "machine_id"), id);
    }
}

#[test]
fn a_service_that_says_restart_is_not_believed() {
    let mut calls = 0;
    let story = run(|call, _| {
        (&*call.action.name == "mde.get_alert").then(|| {
            calls += 1;
            Outcome::Unknown { status: 503, code: "restart".into(), message: "x".into() }
        })
    });
    assert_eq!((story.status().as_str(), calls), ("dead", 12));
}
