//! Compiled expressions and conditions: the public face of CEL.

use std::sync::Arc;

use super::ast::{Kind, Node};
use super::check::{self, Checker};
use super::lex::fault;
use super::{Env, EvalError, Fault, Reference, Trace, TraceResult, TypeEnv, eval, narrow, parse, trace};
use crate::catalog::Type;
use crate::value::Value;

/// A compiled CEL expression.
#[derive(Clone, Debug)]
pub struct Expr {
    pub text: Arc<str>,
    pub ty: Type,
    /// In the order of the text; each path once.
    pub references: Vec<Reference>,
    node: Arc<Node>,
}

impl Expr {
    /// Parses and types a text. Warnings ride with success.
    pub fn compile(text: &str, env: &dyn TypeEnv) -> Result<(Expr, Vec<Fault>), Vec<Fault>> {
        let mut node = parse::parse(text)?;
        let mut checker = Checker::new(env);
        let ty = checker.whole(&mut node);
        let (references, faults) = (checker.references, checker.faults);
        if faults.iter().any(|fault| !fault.warning) {
            return Err(faults);
        }
        let expr = Expr { text: Arc::from(text.trim()), ty, references: unique(references), node: Arc::new(node) };
        Ok((expr, faults))
    }

    pub fn eval(&self, env: &dyn Env) -> Result<Value, EvalError> {
        eval::evaluate(&self.node, env)
    }
}

fn unique(references: Vec<Reference>) -> Vec<Reference> {
    let mut kept: Vec<Reference> = Vec::with_capacity(references.len());
    for reference in references {
        if !kept.contains(&reference) {
            kept.push(reference);
        }
    }
    kept
}

/// A boolean tree; the same whether it was written as CEL or as `all` / `any` / `none`.
#[derive(Clone, Debug)]
pub enum Cond {
    Leaf(Expr),
    All(Vec<Cond>),
    Any(Vec<Cond>),
    None(Vec<Cond>),
}

impl Cond {
    /// Compiles CEL text that must be boolean; its top-level `&&`, `||` and `!` become branches of the tree, so that
    /// every operand is a leaf of the explanation.
    pub fn compile(text: &str, env: &dyn TypeEnv) -> Result<(Cond, Vec<Fault>), Vec<Fault>> {
        let mut node = parse::parse(text)?;
        let mut checker = Checker::new(env);
        let ty = checker.whole(&mut node);
        let mut faults = checker.faults;
        if !Type::Bool.accepts(&ty) && faults.is_empty() {
            let help = check::bool_help(&ty, &node);
            let message = format!("the condition is {ty}, where true or false is wanted");
            faults.push(fault("WF0414", node.start, node.end, message, help));
        }
        if faults.iter().any(|fault| !fault.warning) {
            return Err(faults);
        }
        Ok((split(text, node, env), faults))
    }

    /// Evaluates every leaf. An error yields to a deciding operand, as CEL says; an error that decides is returned.
    pub fn eval(&self, env: &dyn Env) -> (Result<bool, EvalError>, Trace) {
        let (result, text, reads, parts) = match self {
            Cond::Leaf(expr) => {
                let value = expr.eval(env).and_then(|value| {
                    let wrong = || EvalError::new(format!("{} is {}, not bool", expr.text, value.kind()));
                    value.as_bool().ok_or_else(wrong)
                });
                (value, expr.text.to_string(), trace::reads(&expr.references, env), vec![])
            }
            Cond::All(parts) => branch("all", parts, env, false, false),
            Cond::Any(parts) => branch("any", parts, env, true, false),
            Cond::None(parts) => branch("none", parts, env, true, true),
        };
        let shown = match &result {
            Ok(true) => TraceResult::True,
            Ok(false) => TraceResult::False,
            Err(error) => TraceResult::Error(error.message.clone()),
        };
        (result, Trace { text, result: shown, reads, parts })
    }

    pub fn references(&self) -> Vec<Reference> {
        match self {
            Cond::Leaf(expr) => expr.references.clone(),
            Cond::All(parts) | Cond::Any(parts) | Cond::None(parts) => {
                unique(parts.iter().flat_map(Cond::references).collect())
            }
        }
    }

    /// Roots that are known to have run where this is true (`has(isolation.id)` among the operands of an `all`).
    pub fn proves(&self) -> Vec<Arc<str>> {
        match self {
            Cond::Leaf(expr) => narrow::proves(&expr.node),
            Cond::All(parts) => narrow::union(parts.iter().map(Cond::proves)),
            Cond::Any(parts) => narrow::common(parts.iter().map(Cond::proves)),
            Cond::None(parts) => narrow::union(parts.iter().map(Cond::refutes)),
        }
    }

    /// Roots that are known to have run where this is false: what an `else` branch may read.
    pub fn refutes(&self) -> Vec<Arc<str>> {
        match self {
            Cond::Leaf(expr) => narrow::refutes(&expr.node),
            Cond::All(parts) => narrow::common(parts.iter().map(Cond::refutes)),
            Cond::Any(parts) => narrow::union(parts.iter().map(Cond::refutes)),
            Cond::None(parts) => narrow::common(parts.iter().map(Cond::proves)),
        }
    }

    /// The leaves in the order of the text.
    pub fn leaves(&self) -> Vec<&Expr> {
        match self {
            Cond::Leaf(expr) => vec![expr],
            Cond::All(parts) | Cond::Any(parts) | Cond::None(parts) => parts.iter().flat_map(Cond::leaves).collect(),
        }
    }
}

type Outcome = (Result<bool, EvalError>, String, Vec<(String, String)>, Vec<Trace>);

fn branch(name: &str, parts: &[Cond], env: &dyn Env, decides: bool, negated: bool) -> Outcome {
    let (results, traces): (Vec<_>, Vec<_>) = parts.iter().map(|part| part.eval(env)).unzip();
    let decided = results.contains(&Ok(decides));
    let error = results.into_iter().find_map(Result::err);
    let result = match (decided, error) {
        (true, _) => Ok(decides != negated),
        (false, Some(error)) => Err(error),
        (false, None) => Ok(decides == negated),
    };
    (result, name.to_owned(), vec![], traces)
}

/// Makes the top-level operators branches. The whole text is typed already; each leaf keeps its own slice of it.
fn split(text: &str, node: Node, env: &dyn TypeEnv) -> Cond {
    match node.kind {
        Kind::And(parts) => Cond::All(parts.into_iter().map(|part| split(text, part, env)).collect()),
        Kind::Or(parts) => Cond::Any(parts.into_iter().map(|part| split(text, part, env)).collect()),
        Kind::Not(operand) => Cond::None(vec![split(text, *operand, env)]),
        kind => {
            let mut node = Node { kind, ..node };
            // References of this leaf alone; its faults were reported with the whole.
            let mut checker = Checker::new(env);
            checker.whole(&mut node);
            let own = text.get(node.start..node.end).unwrap_or(text);
            // A leaf is one line of an explanation.
            let lines: Vec<&str> = own.lines().map(str::trim).collect();
            let references = unique(checker.references);
            Cond::Leaf(Expr { text: lines.join(" ").into(), ty: Type::Bool, references, node: Arc::new(node) })
        }
    }
}
