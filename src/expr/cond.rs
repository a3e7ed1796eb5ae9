//! CEL: parse, type, evaluate.

use std::sync::Arc;

use super::{Env, EvalError, Fault, Reference, Trace, TypeEnv};
use crate::catalog::Type;
use crate::value::Value;

/// A compiled CEL expression.
#[derive(Clone, Debug)]
pub struct Expr {
    pub text: Arc<str>,
    pub ty: Type,
    pub references: Vec<Reference>,
}

impl Expr {
    /// Parses and types a text. Warnings ride with success.
    pub fn compile(_text: &str, _env: &dyn TypeEnv) -> Result<(Expr, Vec<Fault>), Vec<Fault>> {
        Err(vec![])
    }

    pub fn eval(&self, _env: &dyn Env) -> Result<Value, EvalError> {
        Err(EvalError::new("not built"))
    }
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
    pub fn compile(_text: &str, _env: &dyn TypeEnv) -> Result<(Cond, Vec<Fault>), Vec<Fault>> {
        Err(vec![])
    }

    /// Evaluates every leaf. An error yields to a deciding operand, as CEL says; an error that decides is returned.
    pub fn eval(&self, _env: &dyn Env) -> (Result<bool, EvalError>, Trace) {
        unreachable!()
    }

    pub fn references(&self) -> Vec<Reference> {
        vec![]
    }

    /// Roots that are known to have run where this is true (`has(isolation.id)` among the operands of an `all`).
    pub fn proves(&self) -> Vec<Arc<str>> {
        vec![]
    }
}
