//! Random bytes and random soups of tokens: they compile or are refused, and what compiles never panics on any value.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use crate::catalog::{Context, Type};
use crate::expr::{Binding, Cond, Env, Expr, Presence, Template, TypeEnv, functions};
use crate::value::Value;

/// Every name has a value of any kind.
#[derive(Debug)]
struct Anything(BTreeMap<&'static str, Value>);

const NAMES: [&str; 3] = ["a", "b", "item_list"];

impl TypeEnv for Anything {
    fn lookup(&self, name: &str) -> Option<Binding> {
        NAMES.contains(&name).then_some(Binding { ty: Type::Any, presence: Presence::Always })
    }

    fn names(&self) -> Vec<Arc<str>> {
        NAMES.iter().map(|name| Arc::from(*name)).collect()
    }

    fn explainable(&self, id: &str) -> bool {
        id == "a"
    }
}

impl Env for Anything {
    fn lookup(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    fn now(&self) -> Timestamp {
        Timestamp::MAX
    }
}

fn values() -> impl Strategy<Value = Anything> {
    let text = prop_oneof![
        "[a-z0-9 .:/é…-]{0,12}",
        Just("2026-11-20T07:20:00Z".into()),
        Just("10.1.2.3".into()),
        Just("4h".into())
    ];
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        prop_oneof![any::<i64>(), Just(i64::MIN), -3i64..4].prop_map(Value::Int),
        any::<f64>().prop_map(Value::Number),
        text.prop_map(Value::str),
        prop_oneof![Just(Timestamp::MIN), Just(Timestamp::MAX), Just(Timestamp::UNIX_EPOCH)].prop_map(Value::Datetime),
        prop_oneof![Just(SignedDuration::MIN), Just(SignedDuration::MAX), Just(SignedDuration::from_secs(90))]
            .prop_map(Value::Duration),
    ];
    let value = leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::list),
            prop::collection::btree_map(prop::sample::select(vec!["a", "b", "name"]), inner, 0..3)
                .prop_map(|map| Value::map(map.into_iter().map(|(key, value)| (Arc::from(key), value)).collect())),
        ]
    });
    prop::collection::vec(value, NAMES.len()).prop_map(|values| Anything(NAMES.into_iter().zip(values).collect()))
}

fn bytes() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn soup(tokens: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    let token = prop::sample::select(tokens);
    (prop::collection::vec(token, 0..most), any::<bool>())
        .prop_map(|(tokens, apart)| tokens.join(if apart { " " } else { "" }))
}

const CEL: &[&str] = &[
    "a",
    "b",
    "a.b",
    "x",
    "1",
    "0",
    "-1",
    "2.5",
    "9223372036854775807",
    "'t'",
    "\"u\"",
    "r'\\d'",
    "true",
    "null",
    "now",
    "==",
    "!=",
    "<",
    ">=",
    "&&",
    "||",
    "!",
    "+",
    "-",
    "*",
    "/",
    "%",
    "in",
    "?",
    ":",
    ",",
    ".",
    ".?",
    "[",
    "]",
    "[?",
    "(",
    ")",
    "{",
    "}",
    "a[0]",
    "a.size()",
    "size(",
    "has(a.b)",
    ".exists(x, ",
    ".map(x, ",
    ".orValue(",
    "timestamp(",
    "duration('4h')",
    ".matches('",
    "`",
    "\\",
    "{{",
    "}}",
    "//",
    "\n",
    "é",
    ".substring(",
    "string(",
    "int(",
    ".sort_by(x, ",
    ".join(",
    ".format([",
    "double(",
];

const TEMPLATE: &[&str] = &[
    "{{",
    "}}",
    "{{=",
    "{{~",
    "~}}",
    "{{#if",
    "{{#each",
    "{{/if}}",
    "{{/each}}",
    "{{else}}",
    "{{!--",
    "--}}",
    "{{!",
    "{{{",
    "\\",
    "\\{{",
    "(",
    ")",
    "'t'",
    "\"",
    "'",
    "a",
    "a.b",
    "item",
    "this",
    "elsewhere",
    "as",
    "null",
    "true.x",
    "5",
    "-2.5",
    "007",
    "1e5",
    "x=1",
    "|x|",
    "upper",
    "join",
    "default",
    "json",
    "table",
    "count",
    "explain",
    "date",
    "truncate",
    "[0]",
    "text",
    "\n",
    "é",
    "@root",
    "../",
    "&",
    "^",
    "{",
    "}",
    "{{ a }}",
    "{{ default a 'x' }}",
    "{{ upper (json a) }}",
    "{{#each a}}",
    "{{#if a}}",
    "{{= a }}",
    "{{= {'k': {'l': a}} }}",
    "{{elsewhere}}",
    "{{ true }}",
    "{{ (json a) }}",
];

/// Expressions that are typed as they stand, so that evaluation is reached often.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "a",
        "b",
        "a.b",
        "a.?b.orValue(1)",
        "1",
        "-1",
        "2.5",
        "0",
        "'t'",
        "true",
        "[1, 2]",
        "{'k': 1}",
        "now",
        "duration('4h')",
        "9223372036854775807",
        "has(a.b)",
        "item_list",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(3, 12, 3, |inner| {
        let operators = vec!["==", "!=", "<", ">=", "&&", "||", "+", "-", "*", "/", "%", "in"];
        let functions: Vec<&str> = functions::table().map(|function| function.name).collect();
        let each = vec!["all", "exists", "exists_one", "map", "filter", "sort_by"];
        prop_oneof![
            (inner.clone(), prop::sample::select(operators), inner.clone())
                .prop_map(|(l, op, r)| format!("({l} {op} {r})")),
            (inner.clone(), prop::sample::select(functions.clone())).prop_map(|(of, name)| format!("{name}({of})")),
            (inner.clone(), prop::sample::select(functions.clone())).prop_map(|(of, name)| format!("({of}).{name}()")),
            (inner.clone(), prop::sample::select(functions), inner.clone())
                .prop_map(|(of, name, with)| format!("({of}).{name}({with})")),
            (inner.clone(), prop::sample::select(each), inner.clone())
                .prop_map(|(of, name, body)| format!("({of}).{name}(x, {body} == x)")),
            (inner.clone(), inner.clone()).prop_map(|(of, at)| format!("({of})[{at}]")),
            (inner.clone(), inner.clone(), inner).prop_map(|(test, l, r)| format!("({test} ? {l} : {r})")),
        ]
    })
}

fn conditions(text: &str, world: &Anything) {
    if let Ok((expr, _)) = Expr::compile(text, world) {
        let _ = expr.eval(world);
    }
    if let Ok((cond, _)) = Cond::compile(text, world) {
        let _ = cond.eval(world);
    }
}

fn templates(text: &str, world: &Anything) {
    for (context, file) in [(Context::Plain, false), (Context::Html, true)] {
        match Template::compile(text, world, context, file) {
            Ok((template, _)) => drop(template.eval(world)),
            // The scan and the parser have read every text in the same way.
            Err(faults) => {
                assert!(
                    !faults.iter().any(|fault| fault.message.contains("can't be read here")),
                    "{text:?}: {faults:?}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_read_or_refused(text in bytes(), world in values()) {
        conditions(&text, &world);
        templates(&text, &world);
    }

    #[test]
    fn soups_of_cel_are_read_or_refused(text in soup(CEL, 14), world in values()) {
        conditions(&text, &world);
    }

    #[test]
    fn expressions_end_on_any_value(text in expression(), world in values()) {
        conditions(&text, &world);
    }

    #[test]
    fn soups_of_tags_are_read_or_refused(text in soup(TEMPLATE, 14), world in values()) {
        templates(&text, &world);
    }
}
