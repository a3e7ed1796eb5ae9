//! `apply`: one input on a run's state gives the commands that follow.

use super::again;
use super::block::{cancel_block, poll_block};
use super::command::{Command, Finish, FinishStatus};
use super::context::{Cx, Poll, Scope, TURN_FUEL};
use super::input::{Input, InputKind, Outcome, Said};
use super::observe::{Event, Observer, Unobserved};
use super::state::{BlockState, End, Failed, FlowPhase, FlowState, Frame, RunState, Top, Unsettled};
use crate::check::program::CheckedFlow;
use crate::id::OpId;
use crate::value::{Map, Value};

/// Applies one input. The same input on the same state gives the same commands, always.
pub fn apply(flow: &CheckedFlow, state: &mut RunState, input: Input) -> Vec<Command> {
    apply_observed(flow, state, input, &mut Unobserved)
}

/// As `apply`, telling an observer what happens on the way.
pub fn apply_observed(
    flow: &CheckedFlow,
    state: &mut RunState,
    input: Input,
    observer: &mut dyn Observer,
) -> Vec<Command> {
    if let InputKind::Started { url } = &input.kind
        && state.top == Top::New
    {
        state.url.clone_from(url);
    }
    let RunState { seed, url, next_op, top, effects, orphans, unsettled, failed, late, retries, .. } = state;
    let mut cx = Cx {
        seed,
        url: url.as_deref(),
        at: input.at,
        inbox: None,
        out: Vec::new(),
        next_op,
        env: Scope { frames: Vec::new(), now: input.at },
        path: String::new(),
        handlers: 0,
        sent: 0,
        effects,
        orphans,
        unsettled,
        late,
        observer,
        fuel: TURN_FUEL,
    };
    match input.kind {
        InputKind::Started { .. } => start(&mut cx, flow, top),
        InputKind::Cancel { by, reason } => {
            // What a person ended stays ended.
            *failed = None;
            cancel(&mut cx, flow, top, &by, &reason);
        }
        InputKind::Entered { op, entered } => enter(&mut cx, flow, (top, failed), op, entered),
        InputKind::Retry { nth, by, reason } if *top == Top::Finished && failed.is_some() && nth == *retries => {
            *retries += 1;
            cx.tell(Event::Retried { by: &by, reason: &reason });
            *top = take_place(&mut cx, flow).unwrap_or_else(|| again::reenter(&mut cx, flow, failed));
        }
        InputKind::Retry { .. } => {}
        InputKind::Settle { op, step, said, by, reason } => {
            cx.tell(Event::Settled { said: &said, by: &by, reason: &reason });
            if !settle_cut_off(&mut cx, top, op, step.as_deref(), &said) {
                cx.inbox = Some((op, InputKind::Settle { op, step, said, by, reason }));
            }
        }
        InputKind::Outcome { op, outcome } => {
            settle_orphan(&mut cx, op, &outcome);
            cx.inbox = Some((op, InputKind::Outcome { op, outcome }));
        }
        InputKind::Checked { op, verdict } => cx.inbox = Some((op, InputKind::Checked { op, verdict })),
        InputKind::Locked { op } => cx.inbox = Some((op, InputKind::Locked { op })),
        InputKind::Fired { op } => cx.inbox = Some((op, InputKind::Fired { op })),
        InputKind::Once { op, claimed } => cx.inbox = Some((op, InputKind::Once { op, claimed })),
    }
    advance(&mut cx, flow, top, failed);
    cx.out
}

fn start(cx: &mut Cx<'_>, flow: &CheckedFlow, top: &mut Top) {
    if *top == Top::New {
        *top = take_place(cx, flow).unwrap_or_else(|| begin(cx, flow));
    }
}

/// Asks for a place in the flow's concurrency group; `None` where it has none.
fn take_place(cx: &mut Cx<'_>, flow: &CheckedFlow) -> Option<Top> {
    let (concurrency, key) = flow.trigger.concurrency.as_ref()?;
    let key = match key {
        Some(expr) => with_frame(cx, base_frame(cx, flow), |cx| expr.eval(&cx.env)),
        None => Ok(Value::str("")),
    };
    Some(match key {
        Ok(key) => {
            let key = format!("{}/{}", flow.name, key.to_json());
            let (max, on_full) = (concurrency.max, concurrency.on_full);
            Top::Entering(cx.ask(|op| Command::Enter { op, key: key.into(), max, on_full }))
        }
        Err(error) => {
            let error = cx.error("evaluation", format!("the key of `concurrency`: {}", error.message));
            Top::Ending(End::Failed(error))
        }
    })
}

fn enter(
    cx: &mut Cx<'_>,
    flow: &CheckedFlow,
    (top, failed): (&mut Top, &mut Option<Box<Failed>>),
    op: OpId,
    entered: bool,
) {
    if *top != Top::Entering(op) {
        return;
    }
    *top = match (entered, &*failed) {
        (true, _) => again::reenter(cx, flow, failed),
        (false, Some(failed)) => again::refused(failed),
        (false, None) => {
            let reason = Some("another run of its concurrency group was going (`on_full: skip`)".to_owned());
            Top::Ending(End::Stopped { status: FinishStatus::Cancelled, reason })
        }
    };
}

pub(super) fn begin(cx: &mut Cx<'_>, flow: &CheckedFlow) -> Top {
    let frame = base_frame(cx, flow);
    Top::Running(FlowState { frame, phase: FlowPhase::Steps(BlockState::default()), failed: None })
}

/// `trigger`, `inputs`, `run` and `flow` of a run.
fn base_frame(cx: &Cx<'_>, flow: &CheckedFlow) -> Frame {
    let mut frame = frame_of(cx, flow, cx.seed.inputs.clone());
    frame.vars.insert("trigger".into(), cx.seed.trigger.clone());
    frame.barrier = false;
    frame
}

/// The names that every flow has, with the inputs it was given.
pub(super) fn frame_of(cx: &Cx<'_>, flow: &CheckedFlow, inputs: Value) -> Frame {
    let mut run = Map::new();
    run.insert("id".into(), Value::str(cx.seed.run.as_str()));
    run.insert("started".into(), Value::Datetime(cx.seed.accepted));
    if let Some(url) = cx.url {
        run.insert("url".into(), Value::str(url));
    }
    let mut frame = Frame { barrier: true, ..Frame::default() };
    frame.vars.insert("run".into(), Value::map(run));
    frame.vars.insert(
        "flow".into(),
        Value::object([("name", Value::String(flow.name.clone())), ("version", Value::String(flow.version.clone()))]),
    );
    frame.vars.insert("inputs".into(), inputs);
    frame
}

fn with_frame<T>(cx: &mut Cx<'_>, frame: Frame, inner: impl FnOnce(&mut Cx<'_>) -> T) -> T {
    cx.env.frames.push(frame);
    let result = inner(cx);
    cx.env.frames.pop();
    result
}

/// An answer to a call whose step is gone: count what it did, free its target.
fn settle_orphan(cx: &mut Cx<'_>, op: OpId, outcome: &Outcome) {
    if let Some(orphan) = cx.orphans.remove(&op) {
        if matches!(outcome, Outcome::Done { .. } | Outcome::Unknown { .. }) {
            cx.late.insert(orphan.path.clone(), outcome.clone());
        }
        match outcome {
            Outcome::Done { .. } => *cx.effects.entry(orphan.action.to_string()).or_default() += 1,
            Outcome::Unknown { .. } if orphan.risky => {
                cx.unsettled.push(Unsettled { path: orphan.path, action: orphan.action });
            }
            _ => {}
        }
        if let Some(target) = orphan.target {
            cx.out.push(Command::Unlock { target });
        }
    }
}

/// A person says what became of effects that were cut off; with the last of them the run ends. Whether the run waited for
/// that, as against a call that waits within a step.
fn settle_cut_off(cx: &mut Cx<'_>, top: &mut Top, op: OpId, step: Option<&str>, said: &Said) -> bool {
    let Top::Uncertain(end, parked) = top else { return false };
    if *parked != op {
        return true;
    }
    for unsettled in std::mem::take(cx.unsettled) {
        if step.is_some_and(|step| step != unsettled.path.trim_start_matches('/')) {
            cx.unsettled.push(unsettled);
            continue;
        }
        let outcome = if matches!(said, Said::Done { .. }) {
            *cx.effects.entry(unsettled.action.to_string()).or_default() += 1;
            Outcome::Done { status: 0, output: Value::empty() }
        } else {
            let message = "a person says that it was not done".to_owned();
            Outcome::NotSent { code: "settled".into(), message, transient: false }
        };
        cx.late.insert(unsettled.path, outcome);
    }
    *top = Top::Ending(std::mem::replace(end, End::Succeeded));
    true
}

fn cancel(cx: &mut Cx<'_>, flow: &CheckedFlow, top: &mut Top, by: &str, reason: &str) {
    let reason =
        Some(if reason.is_empty() { format!("cancelled by {by}") } else { format!("cancelled by {by}: {reason}") });
    match top {
        Top::Finished | Top::Ending(_) => return,
        // A person has seen it: now it ends.
        Top::Uncertain(..) => cx.unsettled.clear(),
        Top::Running(state) => cancel_flow(cx, flow, state),
        Top::Entering(op) => cx.out.push(Command::Cancel { op: *op }),
        Top::New => {}
    }
    *top = Top::Ending(End::Stopped { status: FinishStatus::Cancelled, reason });
}

fn advance(cx: &mut Cx<'_>, flow: &CheckedFlow, top: &mut Top, failed: &mut Option<Box<Failed>>) {
    let mut outputs = None;
    if let Top::Running(state) = top
        && let Some((end, value)) = poll_flow(cx, flow, state)
    {
        outputs = value;
        *failed = state.failed.take().filter(|_| matches!(&end, End::Failed(error) if error.transient));
        *top = Top::Ending(end);
    }
    if let Top::Ending(end) = top
        && cx.orphans.is_empty()
    {
        if !cx.unsettled.is_empty() {
            let reason = cx.unsettled.iter().map(Unsettled::sentence).collect::<Vec<_>>().join("; ");
            let op = cx.ask(|op| Command::Park { op, uncertain: true, reason, output: None });
            *top = Top::Uncertain(std::mem::replace(end, End::Succeeded), op);
            return;
        }
        let finish = match std::mem::replace(end, End::Succeeded) {
            End::Succeeded => Finish { status: FinishStatus::Succeeded, reason: None, error: None, outputs },
            End::Stopped { status, reason } => Finish { status, reason, error: None, outputs: None },
            End::Failed(error) => Finish {
                status: if error.transient { FinishStatus::Dead } else { FinishStatus::Failed },
                reason: Some(format!("{}: {}", error.step, error.message)),
                error: Some(error),
                outputs: None,
            },
        };
        *top = Top::Finished;
        cx.out.push(Command::Finish(finish));
    }
}

/// Runs a flow's steps, then what its end asks for. `None` while it waits.
pub(super) fn poll_flow(cx: &mut Cx<'_>, flow: &CheckedFlow, state: &mut FlowState) -> Option<(End, Option<Value>)> {
    cx.env.frames.push(std::mem::take(&mut state.frame));
    let ended = loop {
        match &mut state.phase {
            FlowPhase::Steps(block) => {
                let end = match poll_block(cx, flow, &flow.root, block) {
                    Poll::Pending => break None,
                    Poll::Done => End::Succeeded,
                    Poll::Stopped(end) => end,
                    Poll::Failed(error) => {
                        let frame = cx.env.frames.last().cloned().unwrap_or_default();
                        let (block, error_then) = (std::mem::take(block), error.clone());
                        state.failed = Some(Box::new(Failed { frame, block, error: error_then }));
                        End::Failed(error)
                    }
                };
                state.phase = match end {
                    End::Failed(error) if !flow.on_failure.steps.is_empty() => {
                        FlowPhase::OnFailure(BlockState::default(), error)
                    }
                    end => FlowPhase::Finally(BlockState::default(), end),
                };
            }
            FlowPhase::OnFailure(block, error) => {
                let error = error.clone();
                let polled = handled(cx, |cx| {
                    cx.below("on_failure", |cx| {
                        cx.with_error(&error, |cx| poll_block(cx, flow, &flow.on_failure, block))
                    })
                });
                let end = match polled {
                    Poll::Pending => break None,
                    Poll::Done | Poll::Failed(_) => End::Failed(error),
                    Poll::Stopped(end) => end,
                };
                state.phase = FlowPhase::Finally(BlockState::default(), end);
            }
            FlowPhase::Finally(block, end) => {
                let polled = handled(cx, |cx| cx.below("finally", |cx| poll_block(cx, flow, &flow.finally, block)));
                if matches!(polled, Poll::Pending) {
                    break None;
                }
                break Some(outputs(cx, flow, std::mem::replace(end, End::Succeeded)));
            }
        }
    };
    state.frame = cx.env.frames.pop().unwrap_or_default();
    ended
}

fn outputs(cx: &Cx<'_>, flow: &CheckedFlow, end: End) -> (End, Option<Value>) {
    if end != End::Succeeded || flow.outputs.is_empty() {
        return (end, None);
    }
    match cx.render_map(&flow.outputs) {
        Ok(members) => (end, Some(Value::map(members))),
        Err(error) => (End::Failed(cx.error("evaluation", format!("outputs: {}", error.message))), None),
    }
}

/// Runs `inner` where a failure has somebody to handle it.
pub(super) fn handled<T>(cx: &mut Cx<'_>, inner: impl FnOnce(&mut Cx<'_>) -> T) -> T {
    cx.handlers += 1;
    let result = inner(cx);
    cx.handlers -= 1;
    result
}

/// Ends a flow in the middle: timers and reads are cancelled, sent calls become orphans.
pub(super) fn cancel_flow(cx: &mut Cx<'_>, flow: &CheckedFlow, state: &mut FlowState) {
    match &mut state.phase {
        FlowPhase::Steps(block) => cancel_block(cx, &flow.root, block),
        FlowPhase::OnFailure(block, _) => cancel_block(cx, &flow.on_failure, block),
        FlowPhase::Finally(block, _) => cancel_block(cx, &flow.finally, block),
    }
}
