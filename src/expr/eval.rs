//! Evaluation of the tree over our values. Errors are absorbed by a deciding operand as CEL says; a counter bounds the work.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::{Each, Kind, Node};
use super::{Env, EvalError, ops};
use crate::value::Value;

/// Most nodes that one evaluation visits.
const MAX_STEPS: usize = 4_000_000;
/// Most bytes of one text or items of one list that an evaluation builds.
pub(super) const MAX_BUILT: usize = 1_000_000;

/// A value while evaluating: plain, or an optional that a default will resolve.
#[derive(Clone, Debug)]
pub(super) enum Val {
    Plain(Value),
    Optional(Option<Value>),
}

impl Val {
    pub(super) fn plain(self, what: &Node) -> Result<Value, EvalError> {
        match self {
            Val::Plain(value) => Ok(value),
            Val::Optional(_) => {
                Err(EvalError::new(format!("{} is optional: give a default with `.orValue(…)`", what.describe())))
            }
        }
    }
}

impl From<Value> for Val {
    fn from(value: Value) -> Self {
        Val::Plain(value)
    }
}

pub(super) struct Eval<'e> {
    env: &'e dyn Env,
    locals: Vec<(Arc<str>, Value)>,
    steps: usize,
}

/// The plain value of a tree.
pub(super) fn evaluate(node: &Node, env: &dyn Env) -> Result<Value, EvalError> {
    let mut eval = Eval { env, locals: Vec::new(), steps: 0 };
    match eval.node(node)? {
        Val::Plain(value) => Ok(value),
        Val::Optional(Some(value)) => Ok(value),
        Val::Optional(None) => Err(EvalError::new(format!("{} is absent", node.describe()))),
    }
}

impl Eval<'_> {
    fn node(&mut self, node: &Node) -> Result<Val, EvalError> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(EvalError::new(format!("the expression takes more than {MAX_STEPS} steps: narrow its lists")));
        }
        match &node.kind {
            Kind::Literal(value) => Ok(value.clone().into()),
            Kind::Name(name) => self.name(name).map(Val::Plain),
            Kind::Select { of, field, optional } => self.select(of, field, *optional, node),
            Kind::Has { of, field } => self.has(of, field),
            Kind::Index { of, index, optional } => self.index(of, index, *optional, node),
            Kind::Not(operand) => self.truth(operand).map(|value| Value::Bool(!value).into()),
            Kind::Negate(operand) => {
                let value = self.plain(operand)?;
                ops::negate(&value).map(Val::Plain).map_err(EvalError::new)
            }
            Kind::And(parts) => self.absorb(parts, false),
            Kind::Or(parts) => self.absorb(parts, true),
            Kind::If(parts) => {
                let [test, then, other] = &**parts;
                if self.truth(test)? { self.node(then) } else { self.node(other) }
            }
            Kind::Binary { op, left, right, number } => {
                let (left, right) = (self.node(left)?, self.node(right)?);
                if let (super::ast::Op::Eq | super::ast::Op::Ne, Val::Optional(l), Val::Optional(r)) =
                    (op, &left, &right)
                {
                    let same = match (l, r) {
                        (Some(l), Some(r)) => ops::equal(l, r),
                        (None, None) => true,
                        _ => false,
                    };
                    return Ok(Value::Bool(same == (*op == super::ast::Op::Eq)).into());
                }
                let (left, right) = (left.plain(node)?, right.plain(node)?);
                let value = ops::binary(*op, &left, &right, *number).map_err(EvalError::new)?;
                small_enough(&value)?;
                Ok(value.into())
            }
            Kind::Call { function, args, regex } => {
                if let (Some(regex), Some(subject)) = (regex, args.first()) {
                    let value = self.plain(subject)?;
                    let text = value
                        .as_str()
                        .ok_or_else(|| EvalError::new(format!("`matches` wants text, not {}", value.kind())))?;
                    return Ok(Value::Bool(regex.is_match(text)).into());
                }
                if function.lazy {
                    return self.lazy(function.name, args);
                }
                let values = args.iter().map(|arg| self.node(arg)).collect::<Result<Vec<_>, _>>()?;
                self.steps += values.iter().map(cost).sum::<usize>();
                let value =
                    (function.run)(&values).map_err(|reason| EvalError::new(format!("{}: {reason}", function.name)))?;
                if let Val::Plain(value) = &value {
                    small_enough(value)?;
                }
                Ok(value)
            }
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Each { kind, range, var, body, filter } => self.each(*kind, range, var, body, filter.as_deref()),
        }
    }

    fn plain(&mut self, node: &Node) -> Result<Value, EvalError> {
        self.node(node)?.plain(node)
    }

    fn truth(&mut self, node: &Node) -> Result<bool, EvalError> {
        let value = self.plain(node)?;
        value.as_bool().ok_or_else(|| EvalError::new(format!("{} is {}, not bool", node.describe(), value.kind())))
    }

    fn name(&mut self, name: &Arc<str>) -> Result<Value, EvalError> {
        if let Some((_, value)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            return Ok(value.clone());
        }
        match self.env.lookup(name) {
            Some(value) => Ok(value.clone()),
            None if &**name == "now" => Ok(Value::Datetime(self.env.now())),
            // A step that did not run: reads below it say which member is absent.
            None => Ok(Value::empty()),
        }
    }

    fn select(&mut self, of: &Node, field: &str, optional: bool, node: &Node) -> Result<Val, EvalError> {
        let value = match self.node(of)? {
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(value)) => {
                let found = member(&value, field, of)?;
                return Ok(Val::Optional(found.cloned()));
            }
            Val::Plain(value) => value,
        };
        let found = member(&value, field, of)?.cloned();
        match found {
            found if optional => Ok(Val::Optional(found)),
            Some(found) => Ok(found.into()),
            None => Err(absent(node)),
        }
    }

    /// False too where something on the way is absent: an absent device has no name.
    fn has(&mut self, of: &Node, field: &str) -> Result<Val, EvalError> {
        let Some(value) = self.reach(of)? else { return Ok(Value::Bool(false).into()) };
        Ok(Value::Bool(member(&value, field, of)?.is_some()).into())
    }

    fn reach(&mut self, node: &Node) -> Result<Option<Value>, EvalError> {
        match &node.kind {
            Kind::Select { of, field, optional: false } => {
                let Some(value) = self.reach(of)? else { return Ok(None) };
                Ok(member(&value, field, of)?.cloned())
            }
            _ => Ok(match self.node(node)? {
                Val::Plain(value) => Some(value),
                Val::Optional(value) => value,
            }),
        }
    }

    fn index(&mut self, of: &Node, index: &Node, optional: bool, node: &Node) -> Result<Val, EvalError> {
        let (of_value, index) = (self.node(of)?, self.plain(index)?);
        let (value, chained) = match of_value {
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(value)) => (value, true),
            Val::Plain(value) => (value, false),
        };
        let found = match (&value, &index) {
            (Value::List(items), Value::Int(_) | Value::Number(_)) => {
                let at = match index {
                    Value::Int(at) => Some(at),
                    Value::Number(at) if at.fract() == 0.0 && at.abs() < 1e15 => Some(at as i64),
                    _ => None,
                };
                let at = at.ok_or_else(|| EvalError::new("a list is indexed by whole numbers"))?;
                usize::try_from(at).ok().and_then(|at| items.get(at)).cloned()
            }
            (Value::Map(members), Value::String(key)) => members.get(key).cloned(),
            (Value::List(_) | Value::Map(_), key) => {
                return Err(EvalError::new(format!("{} can't be indexed by {}", value.kind(), key.kind())));
            }
            (other, _) => {
                return Err(EvalError::new(format!("{} is {}, which has no items", of.describe(), other.kind())));
            }
        };
        match (found, optional || chained) {
            (found, true) => Ok(Val::Optional(found)),
            (Some(found), false) => Ok(found.into()),
            (None, false) => match (&value, &index) {
                (Value::List(items), Value::Int(at)) => {
                    Err(EvalError::new(format!("{} has {} items, none at {at}", of.describe(), items.len())))
                }
                (_, Value::String(key)) => Err(EvalError::new(format!("{}['{key}'] is absent", of.describe()))),
                _ => Err(absent(node)),
            },
        }
    }

    /// `&&` and `||`: an operand that decides outweighs errors, wherever it stands.
    fn absorb(&mut self, parts: &[Node], decides: bool) -> Result<Val, EvalError> {
        let mut error = None;
        for part in parts {
            match self.truth(part) {
                Ok(value) if value == decides => return Ok(Value::Bool(decides).into()),
                Ok(_) => {}
                Err(found) => error = error.or(Some(found)),
            }
        }
        error.map_or(Ok(Value::Bool(!decides).into()), Err)
    }

    fn list(&mut self, items: &[(Node, bool)]) -> Result<Val, EvalError> {
        let mut list = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.node(item)?, optional) {
                (Val::Optional(value), true) => list.extend(value),
                (_, true) => return Err(EvalError::new("`[?x]` wants an optional value")),
                (value, false) => list.push(value.plain(item)?),
            }
        }
        Ok(Value::list(list).into())
    }

    fn map(&mut self, entries: &[(Node, Node, bool)]) -> Result<Val, EvalError> {
        let mut map = BTreeMap::new();
        for (key, value, optional) in entries {
            let key_value = self.plain(key)?;
            let Some(name) = key_value.as_str() else {
                return Err(EvalError::new(format!("a key of a map is text, not {}", key_value.kind())));
            };
            let value = match (self.node(value)?, optional) {
                (Val::Optional(value), true) => value,
                (_, true) => return Err(EvalError::new("`{?k: v}` wants an optional value")),
                (plain, false) => Some(plain.plain(value)?),
            };
            if let Some(value) = value
                && map.insert(Arc::from(name), value).is_some()
            {
                return Err(EvalError::new(format!("the key '{name}' is given twice")));
            }
        }
        Ok(Value::map(map).into())
    }

    /// Functions that evaluate their second operand only when it is needed.
    fn lazy(&mut self, name: &str, args: &[Node]) -> Result<Val, EvalError> {
        let [first, second] = args else { return Err(EvalError::new(format!("{name} wants two operands"))) };
        match self.node(first)? {
            Val::Optional(Some(value)) if name == "orValue" => Ok(value.into()),
            Val::Optional(None) if name == "orValue" => self.plain(second).map(Val::Plain),
            Val::Optional(Some(value)) => Ok(Val::Optional(Some(value))),
            Val::Optional(None) => self.node(second),
            Val::Plain(value) => Err(EvalError::new(format!("{name} wants an optional value, not {}", value.kind()))),
        }
    }

    fn each(
        &mut self,
        kind: Each,
        range: &Node,
        var: &Arc<str>,
        body: &Node,
        filter: Option<&Node>,
    ) -> Result<Val, EvalError> {
        let range_value = self.node(range)?;
        if matches!(kind, Each::OptMap | Each::OptFlatMap) {
            return self.opt_map(kind, range_value, var, body);
        }
        let items = match range_value.plain(range)? {
            Value::List(items) => items,
            Value::Map(members) => Arc::new(members.keys().map(|key| Value::String(Arc::clone(key))).collect()),
            other => return Err(EvalError::new(format!("{} is {}, not a list", range.describe(), other.kind()))),
        };
        match kind {
            Each::All | Each::Exists => {
                let decides = kind == Each::Exists;
                let mut error = None;
                for item in items.iter() {
                    match self.with(var, item, |eval| eval.truth(body)) {
                        Ok(value) if value == decides => return Ok(Value::Bool(decides).into()),
                        Ok(_) => {}
                        Err(found) => error = error.or(Some(found)),
                    }
                }
                error.map_or(Ok(Value::Bool(!decides).into()), Err)
            }
            Each::ExistsOne => {
                let mut count = 0usize;
                for item in items.iter() {
                    count += usize::from(self.with(var, item, |eval| eval.truth(body))?);
                }
                Ok(Value::Bool(count == 1).into())
            }
            Each::Map | Each::Filter => {
                let mut results = Vec::new();
                for item in items.iter() {
                    let test = if kind == Each::Filter { Some(body) } else { filter };
                    let keep = test.map_or(Ok(true), |test| self.with(var, item, |eval| eval.truth(test)))?;
                    if keep && kind == Each::Filter {
                        results.push(item.clone());
                    } else if keep {
                        results.push(self.with(var, item, |eval| eval.plain(body))?);
                    }
                }
                Ok(Value::list(results).into())
            }
            _ => {
                let mut keyed = Vec::with_capacity(items.len());
                for item in items.iter() {
                    keyed.push((self.with(var, item, |eval| eval.plain(body))?, item.clone()));
                }
                super::functions::sort_keyed(keyed)
                    .map(Val::Plain)
                    .map_err(|reason| EvalError::new(format!("sort_by: {reason}")))
            }
        }
    }

    fn opt_map(&mut self, kind: Each, of: Val, var: &Arc<str>, body: &Node) -> Result<Val, EvalError> {
        match of {
            Val::Optional(None) => Ok(Val::Optional(None)),
            Val::Optional(Some(value)) => match (kind, self.with(var, &value, |eval| eval.node(body))?) {
                (Each::OptFlatMap, Val::Plain(_)) => Err(EvalError::new("optFlatMap wants an optional result")),
                (Each::OptFlatMap, found) => Ok(found),
                (_, found) => Ok(Val::Optional(Some(found.plain(body)?))),
            },
            Val::Plain(value) => Err(EvalError::new(format!("optMap wants an optional value, not {}", value.kind()))),
        }
    }

    fn with<T>(&mut self, var: &Arc<str>, item: &Value, run: impl FnOnce(&mut Self) -> T) -> T {
        self.locals.push((Arc::clone(var), item.clone()));
        let result = run(self);
        self.locals.pop();
        result
    }
}

fn member<'v>(value: &'v Value, field: &str, of: &Node) -> Result<Option<&'v Value>, EvalError> {
    match value {
        Value::Map(members) => Ok(members.get(field)),
        other => Err(EvalError::new(format!("{} is {}, which has no member `{field}`", of.describe(), other.kind()))),
    }
}

/// Names the first absent part of the path: what a person has to look at.
fn absent(node: &Node) -> EvalError {
    EvalError::new(format!("{} is absent", node.describe()))
}

fn cost(value: &Val) -> usize {
    match value {
        Val::Plain(Value::List(items)) | Val::Optional(Some(Value::List(items))) => items.len(),
        Val::Plain(Value::String(text)) => text.len() / 64,
        _ => 0,
    }
}

fn small_enough(value: &Value) -> Result<(), EvalError> {
    let size = match value {
        Value::String(text) => text.len(),
        Value::List(items) => items.len(),
        _ => 0,
    };
    if size > MAX_BUILT {
        return Err(EvalError::new(format!("the expression builds more than {MAX_BUILT} bytes or items")));
    }
    Ok(())
}
