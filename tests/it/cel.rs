//! Conditions against the conformance cases of the CEL specification.
//!
//! The cases come with the npm package `@bufbuild/cel-spec`; `scripts/test` installs it and sets `WATCHFLOOR_CEL_SPEC`
//! to its folder. What the language leaves out on purpose is listed here with the reason; everything else must pass.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value as Json;
use watchfloor::catalog::Type;
use watchfloor::expr::{Binding, Env, Expr, Presence, TypeEnv};
use watchfloor::value::Value;

/// Sections that the language accepts.
const SECTIONS: [&str; 15] = [
    "basic",
    "comparisons",
    "conversions",
    "fields",
    "fp_math",
    "integer_math",
    "lists",
    "logic",
    "macros",
    "optionals",
    "parse",
    "plumbing",
    "string",
    "string_ext",
    "timestamps",
];

/// Sections that are out, and why.
const SECTIONS_OUT: [(&str, &str); 14] = [
    ("bindings_ext", "no `cel.bind`: a `set` step names a value"),
    ("block_ext", "an optimiser's internal form"),
    ("dynamic", "protobuf wrapper messages"),
    ("encoders_ext", "bytes are not in the language; the helper `base64` writes text"),
    ("enums", "protobuf enums"),
    ("macros2", "no comprehensions over two variables"),
    ("math_ext", "no mathematics beyond the operators, `min`, `max` and `sum`"),
    ("namespace", "names are single words"),
    ("proto2", "protobuf messages"),
    ("proto2_ext", "protobuf messages"),
    ("proto3", "protobuf messages"),
    ("type_deductions", "CEL's own types; ours come from the catalogue"),
    ("unknowns", "no partial evaluation"),
    ("wrappers", "protobuf wrapper messages"),
];

/// What is out by design: a group of cases, or the refusal that the language gives, and why.
const OUT: &[(&str, &str)] = &[
    ("WF0503: unsigned numbers", "no unsigned numbers"),
    ("WF0503: bytes", "no bytes"),
    ("WF0503: there is no null", "null is absence"),
    ("WF0503: message values", "no protobuf messages"),
    ("WF0504: `type`", "no type values"),
    ("WF0504: `uint`", "no unsigned numbers"),
    ("WF0504: `bytes`", "no bytes"),
    ("a key of a map is text", "keys of maps are text, as in JSON"),
    ("basic/variables/unbound_is_runtime_error", "an unknown name is a fault when the flow is loaded"),
    ("basic/functions/unbound_is_runtime_error", "an unknown function is a fault when the flow is loaded"),
    ("fields/qualified_identifier_resolution/", "names are single words"),
    ("optionals/optionals/map_optional_has", "no optionals within maps"),
    ("optionals/optionals/map_optional_select_has", "no optionals within maps"),
    ("parse/comments/new_line_terminated", "protobuf messages, named with a leading dot"),
    ("timestamps/timestamp_conversions/toString_timestamp_nanos", "our instants end on 9999-12-30, as jiff's do"),
    ("parse/whitespace/", "protobuf messages, named with a leading dot"),
    ("parse/receiver_function_names/", "an unknown function is a fault when the flow is loaded"),
];

struct Names(BTreeMap<String, Value>);

impl TypeEnv for Names {
    fn lookup(&self, name: &str) -> Option<Binding> {
        self.0.contains_key(name).then_some(Binding { ty: Type::Any, presence: Presence::Always })
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.0.keys().map(|name| Arc::from(name.as_str())).collect()
    }

    /// The cases expect what happens at run time; ours would be refused when they are loaded.
    fn strict(&self) -> bool {
        false
    }
}

impl Env for Names {
    fn lookup(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }
}

struct Case {
    /// `section/group/name`.
    path: String,
    body: Json,
}

impl Case {
    fn text(&self) -> &str {
        self.body["expr"].as_str().unwrap_or("")
    }
}

fn load() -> Vec<Case> {
    let folder = std::env::var("WATCHFLOOR_CEL_SPEC")
        .expect("WATCHFLOOR_CEL_SPEC is not set: run scripts/test, which installs the conformance cases");
    let file = Path::new(&folder).join("dist/cjs/testdata/conformance.js");
    let print = "process.stdout.write(JSON.stringify(require(process.argv[1]).tests))";
    let output = Command::new("node").args(["-e", print]).arg(&file).output().expect("node runs");
    assert!(output.status.success(), "reading {}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    let tests: Json = serde_json::from_slice(&output.stdout).expect("the cases are JSON");
    let mut cases = Vec::new();
    collect(&tests, "", &mut cases);
    cases
}

fn collect(suite: &Json, path: &str, cases: &mut Vec<Case>) {
    for case in suite["tests"].as_array().into_iter().flatten() {
        let body = case["original"].clone();
        cases.push(Case { path: format!("{path}/{}", body["name"].as_str().unwrap_or("")), body });
    }
    for inner in suite["suites"].as_array().into_iter().flatten() {
        let name = inner["name"].as_str().unwrap_or("");
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        collect(inner, &path, cases);
    }
}

/// A value of the cases; `None` for what our values can't be (null, bytes, uint, types, messages).
fn value(json: &Json) -> Option<Value> {
    let (kind, inner) = json.as_object()?.iter().next()?;
    Some(match kind.as_str() {
        "boolValue" => Value::Bool(inner.as_bool()?),
        "int64Value" => Value::Int(inner.as_str()?.parse().ok()?),
        "doubleValue" => Value::Number(match inner.as_str() {
            Some("NaN") => f64::NAN,
            Some("Infinity") => f64::INFINITY,
            Some("-Infinity") => f64::NEG_INFINITY,
            Some(text) => text.parse().ok()?,
            None => inner.as_f64()?,
        }),
        "stringValue" => Value::str(inner.as_str()?),
        "listValue" => {
            let items = inner["values"].as_array().map(Vec::as_slice).unwrap_or_default();
            Value::list(items.iter().map(value).collect::<Option<_>>()?)
        }
        "mapValue" => {
            let entries = inner["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
            let entries =
                entries.iter().map(|entry| Some((Arc::from(value(&entry["key"])?.as_str()?), value(&entry["value"])?)));
            Value::map(entries.collect::<Option<_>>()?)
        }
        "objectValue" => match inner["@type"].as_str()? {
            "type.googleapis.com/google.protobuf.Timestamp" => Value::Datetime(inner["value"].as_str()?.parse().ok()?),
            "type.googleapis.com/google.protobuf.Duration" => {
                let text = format!("duration('{}')", inner["value"].as_str()?);
                Expr::compile(&text, &Names(BTreeMap::new())).ok()?.0.eval(&Names(BTreeMap::new())).ok()?
            }
            _ => return None,
        },
        _ => return None,
    })
}

fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(l), Value::Number(r)) => l == r || (l.is_nan() && r.is_nan()),
        (Value::List(l), Value::List(r)) => l.len() == r.len() && l.iter().zip(r.iter()).all(|(l, r)| same(l, r)),
        _ => left == right,
    }
}

enum Outcome {
    Pass,
    Fail(String),
    /// The case has a value that ours can't be.
    Untold,
}

fn run(case: &Case) -> Outcome {
    let mut names = BTreeMap::new();
    for (name, bound) in case.body["bindings"].as_object().into_iter().flatten() {
        match value(&bound["value"]) {
            Some(value) => names.insert(name.clone(), value),
            None => return Outcome::Untold,
        };
    }
    let names = Names(names);
    let expected = match case.body.get("value") {
        Some(json) => match value(json) {
            Some(value) => Some(value),
            None => return Outcome::Untold,
        },
        None if case.body.get("evalError").is_some() => None,
        None => Some(Value::Bool(true)),
    };
    // `dyn` only switches off the specification's type checker, as `strict` does here.
    let text = case.text().replace("dyn(", "(");
    let result = match Expr::compile(&text, &names) {
        Ok((expr, _)) => expr.eval(&names).map_err(|error| error.message),
        Err(faults) => {
            Err(faults.first().map_or_else(String::new, |fault| format!("{}: {}", fault.code, fault.message)))
        }
    };
    match (expected, result) {
        (Some(wanted), Ok(found)) if same(&wanted, &found) => Outcome::Pass,
        (None, Err(_)) => Outcome::Pass,
        (Some(wanted), found) => Outcome::Fail(format!("wanted {wanted:?}, found {found:?}")),
        (None, Ok(found)) => Outcome::Fail(format!("wanted an error, found {found:?}")),
    }
}

/// Why a case is out by design, if it is.
fn out(case: &Case, reason: &str) -> Option<&'static str> {
    let refused = |mark: &str| mark.contains(' ') || mark.starts_with("WF");
    let meant = |mark: &str| if refused(mark) { reason.contains(mark) } else { case.path.starts_with(mark) };
    OUT.iter().find(|(mark, _)| meant(mark)).map(|(_, why)| *why)
}

/// What became of the cases of one section.
#[derive(Default)]
struct Count {
    passed: usize,
    out: usize,
    failed: usize,
}

#[test]
fn conditions_pass_the_conformance_cases() {
    let cases = load();
    let mut sections: BTreeMap<&str, Count> = BTreeMap::new();
    let (mut by_design, mut failed) = (BTreeMap::<&str, usize>::new(), Vec::new());
    for case in &cases {
        let section = case.path.split('/').next().unwrap_or("");
        let count = sections.entry(section).or_default();
        let why = if let Some((_, why)) = SECTIONS_OUT.iter().find(|(name, _)| *name == section) {
            why
        } else {
            assert!(SECTIONS.contains(&section), "the section {section} is neither accepted nor out");
            match run(case) {
                Outcome::Pass => {
                    count.passed += 1;
                    continue;
                }
                Outcome::Untold => "a value that flows can't have",
                Outcome::Fail(reason) => match out(case, &reason) {
                    Some(why) => why,
                    None => {
                        count.failed += 1;
                        failed.push(format!("{}: {}\n    {reason}", case.path, case.text()));
                        continue;
                    }
                },
            }
        };
        count.out += 1;
        *by_design.entry(why).or_default() += 1;
    }
    let passed: usize = sections.values().map(|count| count.passed).sum();
    let mut summary = format!("CEL conformance: {passed} of {} cases pass, {} fail", cases.len(), failed.len());
    for (name, Count { passed, out, failed }) in &sections {
        summary += &format!("\n  {name:15} {passed:4} pass {out:4} out {failed:4} fail");
    }
    for (why, count) in &by_design {
        summary += &format!("\n  {count:4} out: {why}");
    }
    std::io::Write::write_all(&mut std::io::stdout(), format!("{summary}\n").as_bytes()).expect("stdout is open");
    assert!(failed.is_empty(), "{summary}\n{}", failed.join("\n"));
    assert!(passed >= 940, "{summary}");
}
