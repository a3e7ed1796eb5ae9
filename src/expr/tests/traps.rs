//! The leaks and bombs that were found in the crates, each with its case.

use super::World;
use crate::catalog::Context;
use crate::expr::{Cond, Expr, Template};
use crate::value::Value;

#[test]
fn integers_from_json_are_int_and_add_up() {
    let json = serde_json::json!({"n": 3});
    let world = World::new().with("any", Value::from_json(&json).unwrap());
    assert_eq!(world.eval("any.n + 1"), Ok(Value::Int(4)));
}

#[test]
fn comprehension_variables_are_no_references() {
    let world = World::new();
    let references = world.cond("alert.evidence.exists(e, e.kind == 'file')").references();
    assert_eq!(references.len(), 1);
    assert_eq!(&*references[0].root, "alert");
}

#[test]
fn a_pattern_is_compiled_once_bounded_and_literal() {
    let world = World::new();
    let expr = world.cond("alert.title.matches('(?i)^odd')");
    assert!(format!("{expr:?}").contains("regex: Some"));
    assert!(world.fault("alert.title.matches(alert.id)").0.starts_with("WF0507"));
    assert!(world.fault("alert.title.matches('(a{1000}){1000}')").0.starts_with("WF0507"));
    assert!(world.fault("alert.title.matches('(a')").0.starts_with("WF0507"));
    let long = World::new().with("any", Value::object([("t", Value::str("a".repeat(50_000)))]));
    assert_eq!(long.eval("any.t.matches('(a+)+$')"), Ok(Value::Bool(true)));
}

#[test]
fn parse_bombs_end_with_a_fault() {
    let world = World::new();
    let deep = format!("{}true{}", "(".repeat(3_000), ")".repeat(3_000));
    let bombs = [
        deep,
        format!("{}true{}", "(".repeat(1_000), ")".repeat(1_000)),
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[".to_owned(),
        "!".repeat(3_000) + "true",
        "-".repeat(3_000) + "1",
        format!("1{}", "+1".repeat(2_000)),
        format!("any{}", ".a".repeat(2_000)),
        format!("any{}", "[0]".repeat(1_300)),
        format!("any{}", ".f()".repeat(1_000)),
        "true ? true : ".repeat(250) + "true",
        "{'a':".repeat(700),
        "a".repeat(5_000),
        "'".to_owned() + &"x".repeat(4_000),
        ".?.?.?.?[?[?[?".repeat(40),
        "\u{0}\u{1}".to_owned(),
    ];
    for bomb in bombs {
        let shown: String = bomb.chars().take(30).collect();
        assert!(Cond::compile(&bomb, &world).is_err(), "{shown}");
    }
    // What is just within the bounds fits on the stack of a test's thread, unoptimised.
    world.cond(&format!("{}true{}", "(".repeat(32), ")".repeat(32)));
    world.cond(&format!("{}alert.ips{} != []", "[".repeat(31), "]".repeat(31)));
    world.cond(&format!("skip{} == 1", "+1".repeat(90)));
    let calls = format!("string({}skip{}) == ''", "(string(".repeat(14), "))".repeat(14));
    world.cond(&calls);
    world.cond(&("true ? true : ".repeat(40) + "true"));
    // Wide is fine: only depth is bounded.
    world.cond(&vec!["alert.id == 'x'"; 150].join(" || "));
    world.cond(&format!("alert.id in [{}]", vec!["'abcdef'"; 300].join(", ")));
}

#[test]
fn comprehensions_are_bounded_when_loaded() {
    let world = World::new();
    world.cond("alert.evidence.exists(a, alert.ips.exists(b, a.kind == b))");
    let (fault, _) = world.fault("alert.ips.exists(a, alert.ips.exists(b, alert.ips.exists(c, a == c)))");
    assert!(fault.contains("nested deeper than 2"), "{fault}");
    let costly = format!("alert.ips.map(a, alert.ips.map(b, {})) == []", vec!["a + b"; 20].join(" + "));
    assert!(world.fault(&costly).0.contains("too many steps"));
}

#[test]
fn work_is_bounded_at_run_time() {
    let many = Value::list((0..5_000).map(Value::Int).collect());
    let world = World::new().with("any", Value::object([("l", many)]));
    let error = world.eval("any.l.all(a, any.l.all(b, a + b >= 0))").unwrap_err();
    assert!(error.message.contains("steps"), "{error}");
}

#[test]
fn a_missing_path_in_if_is_a_fault() {
    let world = World::new();
    for template in ["{{#if alert.nope}}x{{/if}}", "{{#if missing}}x{{/if}}", "{{#each alert.nope}}x{{/each}}"] {
        assert!(Template::compile(template, &world, Context::Html, true).is_err(), "{template}");
    }
}

#[test]
fn an_object_in_text_is_a_fault() {
    let world = World::new();
    assert!(Template::compile("x {{ alert }}", &world, Context::Plain, false).is_err());
    assert!(Template::compile("x {{ any }}", &world, Context::Plain, false).unwrap().0.eval(&world).is_err());
}

#[test]
fn a_helper_is_no_value() {
    let world = World::new();
    for helper in crate::expr::template::helpers::TABLE {
        let template = format!("x {{{{ {} }}}}", helper.name);
        assert!(Template::compile(&template, &world, Context::Plain, false).is_err(), "{template}");
    }
}

#[test]
fn deep_and_large_templates_are_refused_before_they_are_built() {
    let world = World::new();
    let deep = "{{#if alert.id}}".repeat(2_000);
    assert!(Template::compile(&deep, &world, Context::Html, true).is_err());
    let large = "x".repeat(70_000);
    assert!(Template::compile(&large, &world, Context::Html, true).is_err());
    let calls = format!("{{{{ upper {}alert.id }}}}", "(upper ".repeat(500));
    assert!(Template::compile(&calls, &world, Context::Html, true).is_err());
}

#[test]
fn output_is_bounded() {
    let items = Value::list(vec![Value::str("x".repeat(1_000)); 3_000]);
    let world = World::new().with("alert", Value::object([("ips", items)]));
    let template = Template::compile("{{#each alert.ips}}{{ item }}{{/each}}", &world, Context::Html, true).unwrap().0;
    assert!(template.eval(&world).unwrap_err().message.contains("bytes"));
}

#[test]
fn rendered_text_is_never_rendered_again() {
    let world = World::new();
    let template = Template::compile("{{ alert.title }}", &world, Context::Plain, false).unwrap().0;
    assert_eq!(template.eval(&world), Ok(Value::str("Odd {{ secrets.graph }} <b>")));
}

#[test]
fn text_is_no_number() {
    let world = World::new().with("any", Value::object([("n", Value::str("12"))]));
    assert!(world.eval("any.n + 1").is_err());
    assert_eq!(world.eval("any.n == 12"), Ok(Value::Bool(false)));
}

#[test]
fn compiled_things_travel_between_threads() {
    fn check<T: Send + Sync + Clone + std::fmt::Debug>() {}
    check::<Expr>();
    check::<Cond>();
    check::<Template>();
}
