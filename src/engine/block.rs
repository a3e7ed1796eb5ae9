//! Blocks and steps: one after the other, each with its error handling and its time limit.

use std::sync::Arc;

use super::apply::handled;
use super::command::{Command, StepError};
use super::context::{Cx, Poll};
use super::observe::Event;
use super::retry::later;
use super::state::{Active, BlockState, StepState};
use super::steps;
use crate::check::program::{Block, CheckedFlow, OnError, Step, StepKind};
use crate::value::Value;

/// Runs steps from where the block stands until one waits, fails or stops, or the block is done.
pub(super) fn poll_block(cx: &mut Cx<'_>, flow: &CheckedFlow, block: &Block, state: &mut BlockState) -> Poll {
    while let Some(step) = block.steps.get(state.pc) {
        if !cx.burn() {
            return Poll::Failed(
                cx.error("turn_limit", "more than 100,000 steps without a wait; add `every:` or a `wait`"),
            );
        }
        let at = cx.at;
        let current =
            state.step.get_or_insert_with(|| Box::new(StepState { since: at, timer: None, active: Active::New }));
        match cx.below(&step.key, |cx| poll_step(cx, flow, step, current)) {
            Poll::Done => {
                state.step = None;
                state.pc += 1;
            }
            other => return other,
        }
    }
    Poll::Done
}

fn poll_step(cx: &mut Cx<'_>, flow: &CheckedFlow, step: &Step, state: &mut StepState) -> Poll {
    if let Active::New = state.active {
        let kind = kind_word(&step.kind);
        cx.tell(Event::StepStarted { label: &step.label, line: step.line, kind, secure: step.secure });
        if let (Some(limit), false) = (step.timeout, matches!(step.kind, StepKind::Action(_))) {
            state.timer = Some(cx.timer(later(cx.at, limit)));
        }
    }
    if let Active::Handling { error, block } = &mut state.active {
        let OnError::Steps(handler) = &step.on_error else { return Poll::Failed(error.clone()) };
        let error = error.clone();
        return handled(cx, |cx| {
            cx.below("on_error", |cx| cx.with_error(&error, |cx| poll_block(cx, flow, handler, block)))
        });
    }
    let timed_out = state.timer.is_some_and(|op| cx.answer(op).is_some());
    let polled = if timed_out {
        state.timer = None;
        // A retry goes on from how it stood.
        cancel_active(cx, &step.kind, &mut state.active.clone());
        Poll::Failed(cx.error("timeout", "the step took longer than its `timeout`"))
    } else if matches!(step.on_error, OnError::Fail) {
        poll_active(cx, flow, step, state)
    } else {
        handled(cx, |cx| poll_active(cx, flow, step, state))
    };
    settle(cx, flow, step, state, polled)
}

/// What a step's end means for it: facts, the timer, `on_error`.
fn settle(cx: &mut Cx<'_>, flow: &CheckedFlow, step: &Step, state: &mut StepState, polled: Poll) -> Poll {
    if matches!(polled, Poll::Pending) {
        return polled;
    }
    if let Some(op) = state.timer.take() {
        cx.out.push(Command::Cancel { op });
    }
    match polled {
        Poll::Failed(error) => {
            cx.tell(Event::Failed { error: &error });
            cx.fact(flow, step.id.as_ref(), facts(cx, state, "failed", Some(&error)));
            match &step.on_error {
                OnError::Fail => Poll::Failed(error),
                OnError::Continue => Poll::Done,
                OnError::Steps(_) => {
                    state.active = Active::Handling { error, block: BlockState::default() };
                    poll_step(cx, flow, step, state)
                }
            }
        }
        other => {
            if step.id.is_some() && matches!(other, Poll::Done) {
                cx.fact(flow, step.id.as_ref(), facts(cx, state, "succeeded", None));
            }
            other
        }
    }
}

fn facts(cx: &Cx<'_>, state: &StepState, status: &str, error: Option<&StepError>) -> Value {
    let attempts = match &state.active {
        Active::Action(action) => i64::from(action.attempt),
        _ => 1,
    };
    let took = cx.at.duration_since(state.since);
    let mut members =
        vec![("status", Value::str(status)), ("attempts", Value::Int(attempts)), ("took", Value::Duration(took))];
    if let Some(error) = error {
        members.push(("error", Value::str(&error.message)));
    }
    Value::object(members)
}

fn poll_active(cx: &mut Cx<'_>, flow: &CheckedFlow, step: &Step, state: &mut StepState) -> Poll {
    match &step.kind {
        StepKind::Action(action) => steps::action::poll(cx, step, action, &mut state.active),
        StepKind::If { cond, then, otherwise } => {
            steps::branch::poll_if(cx, flow, step, (cond, then, otherwise), &mut state.active)
        }
        StepKind::Switch { on, cases, default } => {
            steps::branch::poll_switch(cx, flow, (on, cases, default.as_ref()), &mut state.active)
        }
        StepKind::Foreach(foreach) => steps::foreach::poll(cx, flow, step, foreach, &mut state.active),
        StepKind::Until(until) => steps::until::poll(cx, flow, until, &mut state.active),
        StepKind::Try { body, catch } => steps::attempt::poll(cx, flow, body, catch, &mut state.active),
        StepKind::Parallel { branches, join } => steps::parallel::poll(cx, flow, branches, *join, &mut state.active),
        StepKind::Set(values) => steps::simple::set(cx, values),
        StepKind::WaitFor(time) => steps::simple::wait_for(cx, *time, &mut state.active),
        StepKind::WaitUntil(expr) => steps::simple::wait_until(cx, expr, &mut state.active),
        StepKind::Call { flow: called, with } => steps::call::poll(cx, step, called, with, &mut state.active),
        StepKind::Stop { status, reason } => steps::simple::stop(cx, *status, reason.as_ref()),
    }
}

/// Ends a block in the middle.
pub(super) fn cancel_block(cx: &mut Cx<'_>, block: &Block, state: &mut BlockState) {
    let Some(mut current) = state.step.take() else { return };
    let Some(step) = block.steps.get(state.pc) else { return };
    if let Some(op) = current.timer {
        cx.out.push(Command::Cancel { op });
    }
    cx.below(&step.key, |cx| match (&mut current.active, &step.on_error) {
        (Active::Handling { block, .. }, OnError::Steps(handler)) => {
            cx.below("on_error", |cx| cancel_block(cx, handler, block));
        }
        (active, _) => cancel_active(cx, &step.kind, active),
    });
}

pub(super) fn cancel_active(cx: &mut Cx<'_>, kind: &StepKind, active: &mut Active) {
    match (kind, active) {
        (StepKind::Action(step), Active::Action(state)) => steps::action::cancel(cx, step, state),
        (StepKind::If { then, otherwise, .. }, Active::Branch { taken, block }) => {
            let (segment, branch) = if *taken == 0 { ("then", then) } else { ("else", otherwise) };
            cx.below(segment, |cx| cancel_block(cx, branch, block));
        }
        (StepKind::Switch { cases, default, .. }, Active::Branch { taken, block }) => {
            if let Some(case) = cases.get(*taken).map(|(_, case)| case).or(default.as_ref()) {
                cx.below(&format!("case[{taken}]"), |cx| cancel_block(cx, case, block));
            }
        }
        (StepKind::Foreach(foreach), Active::Foreach(state)) => steps::foreach::cancel(cx, foreach, state),
        (StepKind::Until(until), Active::Until(state)) => {
            if let Some(op) = state.pause.take() {
                cx.out.push(Command::Cancel { op });
            }
            cx.below(&format!("pass[{}]", state.pass), |cx| cancel_block(cx, &until.body, &mut state.block));
        }
        (StepKind::Try { body, catch }, Active::Try { block, caught }) => {
            let running = caught.as_ref().and_then(|(index, _)| catch.get(*index)).map_or(body, |(_, block)| block);
            let segment = caught.as_ref().map_or("try".to_owned(), |(index, _)| format!("catch[{index}]"));
            cx.below(&segment, |cx| cancel_block(cx, running, block));
        }
        (StepKind::Parallel { branches, .. }, Active::Parallel(states)) => {
            steps::parallel::cancel(cx, branches, states);
        }
        (_, Active::Wait(op)) => cx.out.push(Command::Cancel { op: *op }),
        (StepKind::Call { flow, .. }, Active::Call(state)) => super::apply::cancel_flow(cx, flow, state),
        _ => {}
    }
}

/// Ids and names that a block binds, for a loop that begins again without them.
pub(super) fn bound_names(block: &Block, names: &mut Vec<Arc<str>>) {
    for step in &block.steps {
        names.extend(step.id.clone());
        if let OnError::Steps(handler) = &step.on_error {
            bound_names(handler, names);
        }
        match &step.kind {
            StepKind::If { then, otherwise, .. } => {
                bound_names(then, names);
                bound_names(otherwise, names);
            }
            StepKind::Switch { cases, default, .. } => {
                cases.iter().for_each(|(_, case)| bound_names(case, names));
                default.iter().for_each(|case| bound_names(case, names));
            }
            StepKind::Until(until) => bound_names(&until.body, names),
            StepKind::Try { body, catch } => {
                bound_names(body, names);
                catch.iter().for_each(|(_, block)| bound_names(block, names));
            }
            StepKind::Parallel { branches, .. } => branches.iter().for_each(|branch| bound_names(branch, names)),
            StepKind::Set(values) => names.extend(values.iter().map(|(name, _)| Arc::clone(name))),
            StepKind::Action(_)
            | StepKind::Foreach(_)
            | StepKind::WaitFor(_)
            | StepKind::WaitUntil(_)
            | StepKind::Call { .. }
            | StepKind::Stop { .. } => {}
        }
    }
}

fn kind_word(kind: &StepKind) -> &'static str {
    match kind {
        StepKind::Action(_) => "action",
        StepKind::If { .. } => "if",
        StepKind::Switch { .. } => "switch",
        StepKind::Foreach(_) => "foreach",
        StepKind::Until(_) => "until",
        StepKind::Try { .. } => "try",
        StepKind::Parallel { .. } => "parallel",
        StepKind::Set(_) => "set",
        StepKind::WaitFor(_) | StepKind::WaitUntil(_) => "wait",
        StepKind::Call { .. } => "call",
        StepKind::Stop { .. } => "stop",
    }
}
