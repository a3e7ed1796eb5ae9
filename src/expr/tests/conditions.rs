use super::{EvalError, World};
use crate::expr::functions;
use crate::value::Value;

#[test]
fn the_conditions_of_the_shipped_flows_hold() {
    let world = World::new();
    assert_eq!(world.holds("alert.severity == 'High'").0, Ok(true));
    assert_eq!(world.holds("risk.level in ['None', 'Low', 'Medium']").0, Ok(false));
    assert_eq!(world.holds("size(alert.evidence) < 100").0, Ok(true));
    assert_eq!(world.eval("skip + 100"), Ok(Value::Int(200)));
    assert_eq!(world.eval("alert.device.name + '|' + alert.id"), Ok(Value::str("dc-01|a1")));
    assert_eq!(world.eval("now - alert.created > duration('30m')"), Ok(Value::Bool(true)));
    assert_eq!(world.eval("alert.score * 2"), Ok(Value::Number(15.0)));
    assert_eq!(world.holds("alert.ips.exists(ip, in_cidr(ip, '10.0.0.0/8'))").0, Ok(true));
    assert_eq!(world.eval("alert.raw.?owner.orValue('soc')").unwrap_err().message, "alert.raw is absent");
    assert_eq!(world.eval("alert.?raw.?owner.orValue('soc')"), Ok(Value::str("soc")));
    assert_eq!(
        world.eval("alert.evidence.sort_by(e, -e.size).map(e, e.kind)"),
        Ok(Value::list(vec![Value::str("process"), Value::str("file")]))
    );
}

#[test]
fn every_example_of_the_table_is_true() {
    let world = World::new();
    for function in functions::table() {
        assert_eq!(world.eval(function.example), Ok(Value::Bool(true)), "{}", function.name);
        assert!(function.example.contains(function.name), "{} is not in its example", function.name);
        assert!(!function.signature().is_empty() && !function.doc.is_empty());
    }
}

/// A condition, its fault and its help.
const FAULTS: &[(&str, &str, &str)] = &[
    ("alert.severity == 'high'", "WF0411 «'high'»: 'high' is not a value of AlertSeverity", "write 'High'"),
    (
        "alert.severity in ['Low', 'Hihg']",
        "WF0411 «'Hihg'»: 'Hihg' is not a value of AlertSeverity",
        "did you mean 'High'?",
    ),
    ("alert.severty == 'High'", "WF0312 «severty»: alert (Alert) has no member `severty`", "did you mean `severity`?"),
    ("alrt.severity == 'High'", "WF0311 «alrt»: unknown name `alrt`", "did you mean `alert`?"),
    (
        "alert.device == null",
        "WF0503 «alert.device == null»: there is no null to compare with: absence is a missing member",
        "write `!has(alert.device)`",
    ),
    (
        "null != alert.device.name",
        "WF0503 «null != alert.device.name»: there is no null to compare with: absence is a missing member",
        "write `has(alert.device.name)`",
    ),
    ("alert.title == 5", "WF0412 «alert.title == 5»: `==` compares string with int", "put the value in quotes"),
    (
        "alert.created > '2026-11-20T00:00:00Z'",
        "WF0412 «alert.created > '2026-11-20T00:00:00Z'»: `>` compares datetime with string",
        "write `timestamp('2026-11-20T00:00:00Z')`",
    ),
    (
        "alert.title",
        "WF0414 «alert.title»: the condition is string, where true or false is wanted",
        "compare it: `alert.title == '…'`",
    ),
    (
        "alert.severity > 'Low'",
        "WF0412 «alert.severity > 'Low'»: the values of AlertSeverity have no order",
        "list the values that you mean: `in [ … ]` of Informational, Low, Medium, High",
    ),
    (
        "isolation.id == 'x'",
        "WF0313 «isolation»: `isolation` may have no value here: it is in a branch",
        "guard it: `has(isolation.id) && …`, or give a default: `isolation.?id.orValue(…)`",
    ),
    ("has(gone.id)", "WF0314 «gone»: `gone` has no value here: it is in `try`", ""),
    (
        "has(isolation)",
        "WF0506 «has(isolation)»: `has` asks for a member, such as `has(a.b)`",
        "write `has(isolation.field)` with the member that you need",
    ),
    ("skip == 5u", "WF0503 «5u»: unsigned numbers are not in the language", "write `5`"),
    ("alert.title == b'x'", "WF0503 «b'x'»: bytes are not in the language", "write text: 'abc'"),
    (
        "type(skip) == int",
        "WF0504 «type»: `type` is not in the language",
        "there are no type values; types are checked when the flow is loaded",
    ),
    ("alert.title.contians('x')", "WF0504 «contians»: unknown function `contians`", "did you mean `contains`?"),
    (
        "contains(alert.title, 'x')",
        "WF0504 «contains»: `contains` is called differently",
        "write `string.contains(string) → bool`",
    ),
    (
        "alert.evidence.kind == 'x'",
        "WF0415 «kind»: alert.evidence is a list, which has no member `kind`",
        "take an item (`alert.evidence[0].kind`) or ask for any: `alert.evidence.exists(x, x.kind == …)`",
    ),
    (
        "took > duration('4 hours')",
        "WF0508 «'4 hours'»: '4 hours' is no duration; write '30m', '4h' or '7d'",
        "for example `duration('90m') == duration('1h30m')`",
    ),
    ("alert.score + skip > 1.0", "WF0413 «alert.score + skip»: `+` mixes int and number", "write `double(skip)`"),
    (
        "alert.title + skip == ''",
        "WF0413 «alert.title + skip»: `+` does not work on string and int",
        "write `string(skip)`",
    ),
    (
        "alert.?title == 'x'",
        "WF0416 «alert.?title»: alert.title is optional here",
        "give a default: `alert.title.orValue(…)`",
    ),
    (
        "alert.evidence.exists(alert, true)",
        "WF0315 «true»: `alert` is a name already; an item can't have the same",
        "choose another name for the item, such as `x`",
    ),
];

#[test]
fn faults_say_what_to_write() {
    let world = World::new();
    for (text, message, help) in FAULTS {
        assert_eq!(world.fault(text), ((*message).to_owned(), (*help).to_owned()), "{text}");
    }
}

#[test]
fn slips_of_syntax_are_named_in_plain_words() {
    let world = World::new();
    let cases = [
        ("alert.severity = 'High'", "WF0501 «=»: `=` does not compare", "write `==`"),
        ("alert.severity == ", "WF0501 «»: an operand is missing after `==`", ""),
        ("alert.severity == 'High", "WF0501 «'High»: the text is not closed: ' is missing", "end it with '"),
        ("out_of_office.active and true", "WF0501 «and»: `and` is no operator", "write `&&`"),
        ("true or true", "WF0501 «or»: `or` is no operator", "write `||`"),
        ("not out_of_office.active", "WF0501 «not»: `not` is no operator", "write `!`, as in `!(a == b)`"),
        ("alert.title contains 'x'", "WF0501 «contains»: `contains` is no operator", "write `text.contains('…')`"),
        ("(alert.id == 'x'", "WF0501 «(alert.id == 'x'»: `(` is not closed", "add `)`"),
        ("alert.id == 'x')", "WF0501 «)»: `)` was never opened", "remove it"),
        (
            "{{ alert.id }} == 'x'",
            "WF0502 «{{ alert.id }}»: a condition is CEL already, without `{{ }}`",
            "write `alert.id == 'x'`",
        ),
        ("alert.severity & true", "WF0501 «&»: `&` is no operator", "write `&&`"),
        ("&& true", "WF0501 «&&»: an operand is missing before `&&`", ""),
        ("", "WF0501 «»: the expression is empty", "write a condition such as `alert.severity == 'High'`"),
        ("alert.id == “x”", "WF0501 «“»: a typographic quote does not delimit text", "write ' or \""),
        ("alert.id == 'é' & true", "WF0501 «&»: `&` is no operator", "write `&&`"),
        ("package.x == 1", "WF0501 «p»: `package` is a reserved word of CEL", "as a member name write `x['package']`"),
    ];
    for (text, message, help) in cases {
        assert_eq!(world.fault(text), (message.to_owned(), help.to_owned()), "{text}");
    }
}

#[test]
fn a_guard_narrows_and_proves() {
    let world = World::new();
    world.cond("has(isolation.id) && isolation.id == 'x'");
    world.cond("isolation.id == 'x' && has(isolation.id)");
    world.cond("!has(isolation.id) || isolation.id == 'x'");
    world.cond("has(isolation.id) ? isolation.id == 'x' : true");
    world.cond("!(!has(isolation.id)) && isolation.id == 'x'");
    assert!(world.fault("has(isolation.id) || isolation.id == 'x'").0.starts_with("WF0313"));
    assert!(world.fault("has(isolation.id) ? true : isolation.id == 'x'").0.starts_with("WF0313"));
    let proves = |text: &str| world.cond(text).proves().iter().map(|n| n.to_string()).collect::<Vec<_>>();
    let refutes = |text: &str| world.cond(text).refutes().iter().map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(proves("has(isolation.id) && out_of_office.active"), ["isolation"]);
    assert_eq!(proves("has(isolation.id) || out_of_office.active"), Vec::<String>::new());
    assert_eq!(refutes("!has(isolation.id)"), ["isolation"]);
    assert_eq!(refutes("!has(isolation.id) || out_of_office.active"), ["isolation"]);
}

#[test]
fn errors_yield_to_deciding_operands() {
    let world = World::new();
    let absent = Err(EvalError::new("alert.raw is absent"));
    assert_eq!(world.holds("false && alert.raw.x == 1").0, Ok(false));
    assert_eq!(world.holds("alert.raw.x == 1 && false").0, Ok(false));
    assert_eq!(world.holds("alert.raw.x == 1 && true").0, absent);
    assert_eq!(world.holds("alert.raw.x == 1 || true").0, Ok(true));
    assert_eq!(world.holds("!(alert.raw.x == 1)").0, absent);
    assert_eq!(world.holds("alert.evidence.all(e, e.sha256 == 'x' && e.size > 9)").0, Ok(false));
    assert_eq!(world.holds("alert.evidence.all(e, e.sha256 == 'x')").0, Err(EvalError::new("e.sha256 is absent")));
    assert_eq!(world.eval("1 / (skip - 100)"), Err(EvalError::new("division by zero")));
    assert_eq!(world.eval("skip * 9223372036854775807"), Err(EvalError::new("`*` leaves the range of 64 bits")));
}

#[test]
fn every_leaf_is_evaluated_and_explained() {
    let world = World::new();
    let (result, trace) = world.holds("out_of_office.active && risk.level in ['None','Low','Medium']");
    assert_eq!(result, Ok(false));
    assert_eq!(trace.parts.len(), 2);
    assert_eq!(
        trace.sentence(),
        "out_of_office.active is false; risk.level in ['None','Low','Medium'] (risk.level = 'High') is false"
    );
    let (_, trace) = world.holds("(alert.severity == 'High' || out_of_office.active) && !has(alert.raw)");
    assert_eq!(
        trace.sentence(),
        "alert.severity == 'High' (alert.severity = 'High') is true; has(alert.raw) (alert.raw = absent) is false"
    );
    let (_, trace) = world.holds("alert.raw.x == 1 && true");
    assert_eq!(trace.sentence(), "alert.raw.x == 1 (alert.raw.x = absent) could not be decided: alert.raw is absent");
    let (_, trace) = world.holds("(alert.device.name) == 'dc-01'");
    assert_eq!(trace.text, "(alert.device.name) == 'dc-01'");
}

#[test]
fn references_are_exact() {
    let world = World::new();
    let shown = |text: &str| {
        let references = world.cond(text).references();
        references
            .iter()
            .map(|r| std::iter::once(&r.root).chain(&r.path).map(|p| p.to_string()).collect::<Vec<_>>().join("."))
            .collect::<Vec<_>>()
    };
    assert_eq!(shown("alert.device.name.startsWith('dc') && alert.device.name != ''"), ["alert.device.name"]);
    assert_eq!(shown("alert.evidence.exists(e, e.kind == alert.title)"), ["alert.evidence", "alert.title"]);
    assert_eq!(shown("alert.evidence[0].kind == 'x'"), ["alert.evidence"]);
    assert_eq!(shown("has(alert.device.name)"), ["alert.device.name"]);
    assert_eq!(shown("now > alert.created"), ["now", "alert.created"]);
    assert_eq!(shown("any.n == 1"), ["any.n"]);
}
