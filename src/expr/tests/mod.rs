//! Conditions and templates over the entities of the three flows that the product ships.

mod conditions;
mod hostile;
mod templates;
mod traps;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Binding, Cond, Env, EvalError, Expr, Fault, Presence, Trace, TypeEnv};
use crate::catalog::{EnumType, Type};
use crate::value::Value;

pub(super) struct World {
    types: BTreeMap<&'static str, Binding>,
    values: BTreeMap<String, Value>,
}

fn words(name: &str, values: &[&str]) -> Type {
    Type::Enum(Arc::new(EnumType { name: name.into(), values: values.iter().map(|v| Arc::from(*v)).collect() }))
}

impl World {
    pub(super) fn new() -> Self {
        let severity = words("AlertSeverity", &["Informational", "Low", "Medium", "High"]);
        let level = words("RiskLevel", &["None", "Low", "Medium", "High", "Hidden"]);
        let device = Type::object("Device", [("id", Type::String, false), ("name", Type::String, false)]);
        let evidence = Type::object(
            "Evidence",
            [("kind", Type::String, false), ("sha256", Type::String, true), ("size", Type::Int, true)],
        );
        let alert = Type::object(
            "Alert",
            [
                ("id", Type::String, false),
                ("title", Type::String, false),
                ("severity", severity, false),
                ("created", Type::Datetime, false),
                ("score", Type::Number, true),
                ("device", device, true),
                ("ips", Type::list(Type::String), false),
                ("evidence", Type::list(evidence), false),
                ("raw", Type::Any, true),
            ],
        );
        let replies = Type::object("AutomaticReplies", [("active", Type::Bool, false)]);
        let risk = Type::object("UserRisk", [("level", level, false)]);
        let isolation = Type::object("MachineAction", [("id", Type::String, false), ("status", Type::String, true)]);
        let always = |ty: Type| Binding { ty, presence: Presence::Always };
        let types = BTreeMap::from([
            ("alert", always(alert)),
            ("out_of_office", always(replies)),
            ("risk", always(risk)),
            ("skip", always(Type::Int)),
            ("took", always(Type::Duration)),
            ("any", always(Type::Any)),
            ("isolation", Binding { ty: isolation.clone(), presence: Presence::Maybe("it is in a branch".into()) }),
            ("gone", Binding { ty: isolation, presence: Presence::Never("it is in `try`".into()) }),
        ]);
        let device = Value::object([("id", Value::str("d1")), ("name", Value::str("dc-01"))]);
        let item = |kind: &str, size: i64| Value::object([("kind", Value::str(kind)), ("size", Value::Int(size))]);
        let alert = Value::object([
            ("id", Value::str("a1")),
            ("title", Value::str("Odd {{ secrets.graph }} <b>")),
            ("severity", Value::str("High")),
            ("created", Value::Datetime("2026-11-20T07:20:00Z".parse().unwrap())),
            ("score", Value::Number(7.5)),
            ("device", device),
            ("ips", Value::list(vec![Value::str("10.1.2.3"), Value::str("192.0.2.1")])),
            ("evidence", Value::list(vec![item("file", 3), item("process", 5)])),
        ]);
        let values = BTreeMap::from([
            ("alert".to_owned(), alert),
            ("out_of_office".to_owned(), Value::object([("active", Value::Bool(false))])),
            ("risk".to_owned(), Value::object([("level", Value::str("High"))])),
            ("skip".to_owned(), Value::Int(100)),
            ("took".to_owned(), Value::Duration(jiff::SignedDuration::from_secs(14_400))),
            ("any".to_owned(), Value::object([("n", Value::Int(1))])),
        ]);
        World { types, values }
    }

    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.values.insert(name.to_owned(), value);
        self
    }

    pub(super) fn cond(&self, text: &str) -> Cond {
        Cond::compile(text, self).unwrap_or_else(|faults| panic!("{text}: {faults:?}")).0
    }

    pub(super) fn eval(&self, text: &str) -> Result<Value, EvalError> {
        Expr::compile(text, self).unwrap_or_else(|faults| panic!("{text}: {faults:?}")).0.eval(self)
    }

    pub(super) fn holds(&self, text: &str) -> (Result<bool, EvalError>, Trace) {
        self.cond(text).eval(self)
    }

    /// The one fault of a condition: code, the text it points at, message and help.
    pub(super) fn fault(&self, text: &str) -> (String, String) {
        let faults = Cond::compile(text, self).expect_err(text);
        one_fault(text, &faults)
    }
}

/// `CODE «text»: message` and the help.
pub(super) fn one_fault(text: &str, faults: &[Fault]) -> (String, String) {
    assert_eq!(faults.len(), 1, "{text}: {faults:#?}");
    let fault = &faults[0];
    let at = text.get(fault.start..fault.end).unwrap_or("?");
    (format!("{} «{at}»: {}", fault.code, fault.message), fault.help.clone().unwrap_or_default())
}

impl TypeEnv for World {
    fn lookup(&self, name: &str) -> Option<Binding> {
        self.types.get(name).cloned()
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.types.keys().map(|name| Arc::from(*name)).collect()
    }

    fn explainable(&self, id: &str) -> bool {
        id == "verdict"
    }
}

impl Env for World {
    fn lookup(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    fn now(&self) -> Timestamp {
        "2026-11-20T08:00:00Z".parse().unwrap()
    }

    fn explanation(&self, id: &str) -> Option<&str> {
        (id == "verdict").then_some("risk.level is 'High'")
    }
}
