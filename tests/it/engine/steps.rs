//! What each kind of step does.

use serde_json::json;
use watchfloor::engine::{Call, Outcome};
use watchfloor::value::Value;

use super::host::{Host, Story, Trouble, done, flow, refused};

const HEAD: &str = "flow: test\nowner: soc@contoso.example\ntrigger: { type: manual }\n";

fn run_with(steps: &str, trouble: Trouble, tenant: &mut dyn FnMut(&Call, usize) -> Outcome) -> Story {
    let checked = flow(&format!("{HEAD}{steps}"));
    Host::new(&checked, Value::empty()).trouble(trouble).run(tenant)
}

fn run(steps: &str, mut tenant: impl FnMut(&Call, usize) -> Outcome) -> Story {
    run_with(steps, Trouble::default(), &mut tenant)
}

fn quiet(_: &Call, _: usize) -> Outcome {
    done(json!({}))
}

const MAIL: &str = "{ action: email.send, with: { to: [a@b.example], subject: \"{{= SUBJECT }}\", text: x } }";

fn mail(subject: &str) -> String {
    MAIL.replace("SUBJECT", subject)
}

#[test]
fn switch_takes_the_matching_case_or_the_default() {
    let steps = format!(
        "steps:\n  - {{ set: {{ kind: \"'b'\" }} }}\n  - switch: kind\n    cases: {{ a: [ {{ set: {{ x: '1' }} }} ], b: [ {{ set: {{ x: '2' }} }} ] }}\n    default: [ {{ set: {{ x: '3' }} }} ]\n  - {}\n",
        mail("'x is ' + string(x)")
    );
    assert_eq!(run(&steps, quiet).input("email.send", "subject"), "x is 2");
}

#[test]
fn until_passes_until_true_and_keeps_the_last_values() {
    let steps = format!(
        "steps:\n  - id: pages\n    until: skip >= 200\n    every: 1s\n    max: 9\n    carry: {{ skip: 0 }}\n    next: {{ skip: skip + 100 }}\n    do: [ {{ set: {{ seen: skip + 1 }} }} ]\n  - {}\n",
        mail("string(seen)")
    );
    let story = run(&steps, quiet);
    assert_eq!(story.input("email.send", "subject"), "201");
    assert_eq!(story.ended.unwrap().duration_since(super::host::START.parse().unwrap()).as_secs(), 2);
}

#[test]
fn until_gives_up_after_max_passes() {
    let steps = "steps:\n  - until: n < 0\n    max: 3\n    carry: { n: 0 }\n    next: { n: n + 1 }\n    do: [ { set: { seen: n } } ]\n";
    let story = run(steps, quiet);
    assert_eq!(story.status(), "failed");
    assert_eq!(story.finish.unwrap().error.unwrap().code, "until_max");
}

#[test]
fn catch_takes_the_first_that_matches_and_names_are_defined_afterwards() {
    let steps = format!(
        "steps:\n  - try: [ {{ id: boss, action: entra.get_manager, with: {{ user: u@c.example }} }}, {{ set: {{ to: \"'boss'\" }} }} ]\n    catch:\n      - when: error.status == 500\n        do: [ {{ set: {{ to: \"'no'\" }} }} ]\n      - when: error.status == 404\n        do: [ {{ set: {{ to: \"'soc'\" }} }} ]\n  - {}\n",
        mail("to")
    );
    let story = run(&steps, |call, _| match &*call.action.name {
        "entra.get_manager" => refused(404, false),
        _ => done(json!({})),
    });
    assert_eq!(story.input("email.send", "subject"), "soc");
    assert_eq!(story.status(), "succeeded");
}

#[test]
fn a_failure_runs_on_failure_with_the_error_and_then_finally() {
    let steps = format!(
        "steps:\n  - {{ id: user, action: entra.get_user, with: {{ user: u@c.example }} }}\non_failure:\n  - {}\nfinally:\n  - {}\n",
        mail("'failed at ' + error.step"),
        mail("'finally'")
    );
    let story = run(&steps, |call, _| match &*call.action.name {
        "entra.get_user" => refused(403, false),
        _ => done(json!({})),
    });
    assert_eq!(story.status(), "failed");
    assert_eq!(story.input("email.send", "subject"), "failed at user");
    assert_eq!(story.calls, ["entra.get_user", "email.send", "email.send"]);
}

#[test]
fn on_error_continue_and_on_error_steps_let_the_run_go_on() {
    let steps = format!(
        "steps:\n  - {{ action: entra.get_user, with: {{ user: u@c.example }}, on_error: continue }}\n  - {{ action: entra.get_user, with: {{ user: v@c.example }}, on_error: [ {} ] }}\n  - {{ stop: succeeded, reason: done }}\n",
        mail("error.code")
    );
    let story = run(&steps, |call, _| match &*call.action.name {
        "entra.get_user" => refused(403, false),
        _ => done(json!({})),
    });
    assert_eq!(story.status(), "succeeded");
    assert_eq!(story.input("email.send", "subject"), "http_403");
}

#[test]
fn parallel_waits_for_all_and_any_takes_the_first_success() {
    let all = "steps:\n  - parallel: [ [ { wait: 10m } ], [ { wait: 1m } ] ]\n";
    let story = run(all, quiet);
    assert_eq!(story.ended.unwrap().duration_since(super::host::START.parse().unwrap()).as_secs(), 600);
    let any = "steps:\n  - parallel: [ [ { wait: 10m } ], [ { wait: 1m } ] ]\n    join: any\n";
    let story = run(any, quiet);
    assert_eq!(story.ended.unwrap().duration_since(super::host::START.parse().unwrap()).as_secs(), 60);
    assert_eq!(story.status(), "succeeded");
}

#[test]
fn a_time_limit_ends_a_step_that_waits() {
    let steps = "steps:\n  - parallel: [ [ { wait: 10m } ], [ { wait: 1m } ] ]\n    timeout: 2m\n    on_error: continue\n  - { wait: 1s }\n";
    let story = run(steps, quiet);
    assert_eq!(story.ended.unwrap().duration_since(super::host::START.parse().unwrap()).as_secs(), 121);
}

fn each(options: &str) -> String {
    format!(
        "steps:\n  - id: named\n    foreach: \"['a', 'b', 'c']\"\n    as: name\n    max_items: 10\n{options}    do: [ {{ id: user, action: entra.get_user, with: {{ user: \"{{{{ name }}}}@c.example\" }} }} ]\n    collect: {{ name: name, id: user.id }}\n  - {}\n",
        mail("string(size(named.items)) + '/' + string(size(named.errors))")
    )
}

fn users(call: &Call, _: usize) -> Outcome {
    match call.inputs.get("user").and_then(Value::as_str) {
        Some("b@c.example") => refused(403, false),
        Some(user) => done(json!({"id": user, "upn": user})),
        None => done(json!({})),
    }
}

#[test]
fn foreach_gathers_errors_in_any_order_of_answers() {
    for reversed in [false, true] {
        let story = run_with(
            &each("    on_item_error: gather\n    at_once: 3\n"),
            Trouble { twice: reversed, reversed, ..Trouble::default() },
            &mut users,
        );
        assert_eq!(story.input("email.send", "subject"), "2/1");
        assert_eq!(story.status(), "succeeded");
    }
}

#[test]
fn foreach_fails_at_the_first_error_and_begins_no_more_items() {
    let story = run(&each(""), users);
    assert_eq!(story.status(), "failed");
    assert_eq!(story.calls, ["entra.get_user", "entra.get_user"]);
}

#[test]
fn once_per_skips_what_was_handled_before() {
    let checked = flow(&format!("{HEAD}{}", each("    key: name\n    once_per: 7d\n")));
    let story = Host::new(&checked, Value::empty()).claimed("test/named:\"b\"").run(&mut |call, nth| users(call, nth));
    assert_eq!(story.input("email.send", "subject"), "2/0");
    assert_eq!(story.calls.iter().filter(|call| *call == "entra.get_user").count(), 2);
}

#[test]
fn a_called_flow_gets_inputs_and_gives_outputs() {
    let steps =
        format!("steps:\n  - {{ id: sub, call: double, with: {{ n: 21 }} }}\n  - {}\n", mail("string(sub.twice)"));
    assert_eq!(run(&steps, quiet).input("email.send", "subject"), "42");
}

#[test]
fn stop_ends_the_run_with_its_status() {
    let story = run("steps:\n  - { stop: cancelled, reason: no owner }\n", quiet);
    assert_eq!(story.status(), "cancelled");
    assert_eq!(story.finish.unwrap().reason.as_deref(), Some("no owner"));
}

#[test]
fn too_large_an_output_fails_the_step_and_says_so() {
    let steps = format!(
        "steps:\n  - {{ id: user, action: entra.get_user, with: {{ user: u@c.example }} }}\n  - {}\n",
        mail("user.display_name")
    );
    let story = run(&steps, |call, _| match &*call.action.name {
        "entra.get_user" => done(json!({"id": "1", "display_name": "x".repeat(300_000)})),
        _ => done(json!({})),
    });
    assert_eq!(story.finish.unwrap().error.unwrap().code, "state_limit");
}

#[test]
fn one_key_twice_in_one_loop_is_handled_once() {
    let steps = each("    key: \"'same'\"\n    once_per: 7d\n    at_once: 3\n");
    let story = run(&steps, users);
    assert_eq!(story.calls.iter().filter(|call| *call == "entra.get_user").count(), 1);
}
