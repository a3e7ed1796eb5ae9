//! `if` and `switch`.

use std::sync::Arc;

use crate::check::program::{Block, CheckedFlow, Step};
use crate::engine::block::poll_block;
use crate::engine::context::{Cx, Poll};
use crate::engine::observe::Event;
use crate::engine::state::{Active, BlockState};
use crate::expr::{Cond, Expr, Trace};
use crate::value::Value;

pub(in crate::engine) fn poll_if(
    cx: &mut Cx<'_>,
    flow: &CheckedFlow,
    step: &Step,
    (cond, then, otherwise): (&Cond, &Block, &Block),
    active: &mut Active,
) -> Poll {
    if let Active::New = active {
        let (result, trace) = cond.eval(&cx.env);
        cx.tell(Event::Decided { trace: &trace });
        let result = match result {
            Ok(result) => result,
            Err(error) => return Poll::Failed(cx.eval_error(&error)),
        };
        if let Some(id) = &step.id
            && let Err(error) = decide(cx, flow, id, result, &trace)
        {
            return Poll::Failed(error);
        }
        *active = Active::Branch { taken: usize::from(!result), block: BlockState::default() };
    }
    let Active::Branch { taken, block } = active else { return Poll::Done };
    let (segment, branch) = if *taken == 0 { ("then", then) } else { ("else", otherwise) };
    cx.below(segment, |cx| poll_block(cx, flow, branch, block))
}

/// Binds `{result, taken}` before the branches run, and keeps the explanation where a template prints it.
fn decide(
    cx: &mut Cx<'_>,
    flow: &CheckedFlow,
    id: &Arc<str>,
    result: bool,
    trace: &Trace,
) -> Result<(), crate::engine::StepError> {
    let taken = if result { "then" } else { "else" };
    cx.bind(id, Value::object([("result", Value::Bool(result)), ("taken", Value::str(taken))]))?;
    if flow.explained.contains(id)
        && let Some(frame) = cx.env.frames.last_mut()
    {
        frame.explanations.insert(Arc::clone(id), trace.sentence());
    }
    Ok(())
}

pub(in crate::engine) fn poll_switch(
    cx: &mut Cx<'_>,
    flow: &CheckedFlow,
    (on, cases, default): (&Expr, &[(Value, Block)], Option<&Block>),
    active: &mut Active,
) -> Poll {
    if let Active::New = active {
        let value = match on.eval(&cx.env) {
            Ok(value) => value,
            Err(error) => return Poll::Failed(cx.eval_error(&error)),
        };
        let taken = cases.iter().position(|(case, _)| *case == value).unwrap_or(cases.len());
        if taken == cases.len() && default.is_none() {
            let shown = value.to_json();
            return Poll::Failed(cx.error("no_case", format!("no case for {shown}, and there is no `default`")));
        }
        *active = Active::Branch { taken, block: BlockState::default() };
    }
    let Active::Branch { taken, block } = active else { return Poll::Done };
    match (cases.get(*taken), default) {
        (Some((_, case)), _) => cx.below(&format!("case[{taken}]"), |cx| poll_block(cx, flow, case, block)),
        (None, Some(case)) => cx.below("default", |cx| poll_block(cx, flow, case, block)),
        (None, None) => Poll::Done,
    }
}
