//! `foreach`: a body for each item, some at once, each in a scope of its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::check::program::{CheckedFlow, Collect, Foreach, Step};
use crate::engine::again;
use crate::engine::apply::handled;
use crate::engine::block::{cancel_block, poll_block};
use crate::engine::command::{Command, StepError};
use crate::engine::context::{Cx, Poll};
use crate::engine::input::InputKind;
use crate::engine::observe::Event;
use crate::engine::retry::later;
use crate::engine::state::{Active, BlockState, ForeachState, Frame, ItemState, Once};
use crate::value::{Map, Value};

/// Where a block stands whose item `once_per` skips.
const SKIPPED: usize = usize::MAX;

pub(in crate::engine) fn poll(
    cx: &mut Cx<'_>,
    flow: &CheckedFlow,
    step: &Step,
    foreach: &Foreach,
    active: &mut Active,
) -> Poll {
    if let Active::New = active {
        match begin(cx, foreach) {
            Ok(state) => *active = Active::Foreach(Box::new(state)),
            Err(error) => return Poll::Failed(error),
        }
    }
    let Active::Foreach(state) = active else { return Poll::Done };
    loop {
        // Items in the order of their index, so that a replay polls them in the same order.
        let mut index = 0;
        while index < state.running.len() {
            let Some(item) = state.running.get_mut(index) else { break };
            let polled = poll_item(cx, flow, foreach, item);
            match polled {
                Poll::Pending => index += 1,
                Poll::Done => {
                    let mut item = state.running.remove(index);
                    if let Err(error) = collect(cx, foreach, state, &mut item) {
                        cut_off(cx, foreach, state, Some(item));
                        return Poll::Failed(error);
                    }
                }
                Poll::Failed(error) => {
                    let item = state.running.remove(index);
                    release(cx, &item);
                    if !foreach.gather {
                        cut_off(cx, foreach, state, Some(item));
                        return Poll::Failed(error);
                    }
                    state.errors.insert(item.index, error);
                }
                Poll::Stopped(end) => {
                    cancel(cx, foreach, state);
                    return Poll::Stopped(end);
                }
            }
        }
        let room = usize::try_from(foreach.at_once).unwrap_or(usize::MAX).max(1) > state.running.len();
        match state.items.get(state.next).cloned() {
            Some(value) if room => {
                let index = state.next;
                state.next += 1;
                match open(cx, foreach, &mut state.keys, index, value) {
                    Ok(item) => state.running.push(item),
                    Err(error) if foreach.gather => drop(state.errors.insert(index, error)),
                    Err(error) => {
                        state.next = index;
                        cut_off(cx, foreach, state, None);
                        return Poll::Failed(error);
                    }
                }
            }
            Some(_) => return Poll::Pending,
            None if state.running.is_empty() => return finish(cx, step, state),
            None => return Poll::Pending,
        }
    }
}

fn begin(cx: &mut Cx<'_>, foreach: &Foreach) -> Result<ForeachState, StepError> {
    let value = foreach.list.eval(&cx.env).map_err(|error| cx.eval_error(&error))?;
    let Value::List(items) = value else {
        return Err(cx.error("evaluation", format!("`foreach` gives {} where a list is wanted", value.kind())));
    };
    let max = usize::try_from(foreach.max_items).unwrap_or(usize::MAX);
    if items.len() > max && !foreach.cut {
        let message = format!("{} items, more than `max_items: {max}`; nothing was done for any of them", items.len());
        return Err(cx.error("max_items", message));
    }
    let items = items.iter().take(max).cloned().collect();
    Ok(ForeachState {
        items,
        next: 0,
        running: Vec::new(),
        results: Default::default(),
        errors: Default::default(),
        keys: BTreeSet::new(),
        kept: Vec::new(),
    })
}

fn open(
    cx: &mut Cx<'_>,
    foreach: &Foreach,
    keys: &mut BTreeSet<Arc<str>>,
    index: usize,
    value: Value,
) -> Result<ItemState, StepError> {
    let mut frame = Frame { weight: value.weight(), ..Frame::default() };
    frame.vars.insert(Arc::clone(&foreach.item), value);
    frame.vars.insert(Arc::from("index"), Value::Int(i64::try_from(index).unwrap_or(i64::MAX)));
    let mut item = ItemState { index, frame, block: BlockState::default(), once: Once::None, sent: false };
    if let (Some(key), Some(span)) = (&foreach.key, foreach.once_per) {
        cx.env.frames.push(std::mem::take(&mut item.frame));
        let key = key.eval(&cx.env);
        item.frame = cx.env.frames.pop().unwrap_or_default();
        let key = key.map_err(|error| cx.error("evaluation", format!("`key` of item {index}: {}", error.message)))?;
        let flow = cx.env.frames.iter().rev().find_map(|frame| frame.vars.get("flow")?.get("name")?.as_str());
        let key: Arc<str> = format!("{}{}:{}", flow.unwrap_or_default(), cx.path, key.to_json()).into();
        if !keys.insert(Arc::clone(&key)) {
            item.block.pc = SKIPPED;
            return Ok(item);
        }
        let until = later(cx.at, span);
        let op = cx.ask(|op| Command::Once { op, key: Arc::clone(&key), until });
        item.once = Once::Claiming(op, key);
    }
    Ok(item)
}

fn poll_item(cx: &mut Cx<'_>, flow: &CheckedFlow, foreach: &Foreach, item: &mut ItemState) -> Poll {
    let segment = format!("each[{}]", item.index);
    cx.below(&segment, |cx| {
        if let Once::Claiming(op, key) = &item.once {
            match cx.answer(*op) {
                Some(InputKind::Once { claimed: true, .. }) => item.once = Once::Claimed(Arc::clone(key)),
                Some(_) => {
                    cx.tell(Event::Skipped { reason: "handled before (`once_per`)" });
                    item.once = Once::None;
                    item.block.pc = SKIPPED;
                }
                None => return Poll::Pending,
            }
        }
        let sent = cx.sent;
        cx.env.frames.push(std::mem::take(&mut item.frame));
        let polled = if foreach.gather {
            handled(cx, |cx| poll_block(cx, flow, &foreach.body, &mut item.block))
        } else {
            poll_block(cx, flow, &foreach.body, &mut item.block)
        };
        item.frame = cx.env.frames.pop().unwrap_or_default();
        item.sent |= cx.sent > sent;
        polled
    })
}

/// A failed item frees its `once_per` key, unless something other than a read was sent for it.
fn release(cx: &mut Cx<'_>, item: &ItemState) {
    if let (Once::Claimed(key), false) = (&item.once, item.sent) {
        cx.out.push(Command::OnceRelease { key: Arc::clone(key) });
    }
}

fn collect(
    cx: &mut Cx<'_>,
    foreach: &Foreach,
    state: &mut ForeachState,
    item: &mut ItemState,
) -> Result<(), StepError> {
    // An item that `once_per` skipped collects nothing.
    let skipped = item.block.pc == SKIPPED;
    let Some(collect) = foreach.collect.as_ref().filter(|_| !skipped) else { return Ok(()) };
    let index = item.index;
    cx.env.frames.push(std::mem::take(&mut item.frame));
    let value = match collect {
        Collect::One(expr) => expr.eval(&cx.env),
        Collect::Map(members) => members
            .iter()
            .map(|(name, expr)| Ok((Arc::clone(name), expr.eval(&cx.env)?)))
            .collect::<Result<Map, _>>()
            .map(Value::map),
    };
    item.frame = cx.env.frames.pop().unwrap_or_default();
    match value {
        Ok(value) => drop(state.results.insert(index, value)),
        Err(error) if foreach.gather => {
            let error = cx.error("evaluation", format!("`collect` of item {index}: {}", error.message));
            state.errors.insert(index, error);
        }
        Err(error) => return Err(cx.error("evaluation", format!("`collect` of item {index}: {}", error.message))),
    }
    Ok(())
}

/// `{items, errors}` in the order of the input.
fn finish(cx: &mut Cx<'_>, step: &Step, state: &mut ForeachState) -> Poll {
    let items = std::mem::take(&mut state.results).into_values().collect();
    let errors = std::mem::take(&mut state.errors).into_iter().map(|(index, error)| {
        Value::object([
            ("index", Value::Int(i64::try_from(index).unwrap_or(i64::MAX))),
            ("step", Value::String(error.step)),
            ("code", Value::str(error.code)),
            ("status", Value::Int(i64::from(error.status))),
            ("message", Value::str(error.message)),
        ])
    });
    let output = Value::object([("items", Value::list(items)), ("errors", Value::list(errors.collect()))]);
    cx.tell(Event::Done { output: Some(&output) });
    match step.id.as_ref().map(|id| cx.bind(id, output)) {
        Some(Err(error)) => Poll::Failed(error),
        _ => Poll::Done,
    }
}

/// Ends the items under way because one failed. How they stood is kept: a retry goes on from there.
fn cut_off(cx: &mut Cx<'_>, foreach: &Foreach, state: &mut ForeachState, failed: Option<ItemState>) {
    let kept = state.running.iter().cloned().chain(failed).collect();
    cancel(cx, foreach, state);
    state.kept = kept;
}

/// After a retry: the items that were under way go on. A claim that was freed is asked for again.
pub(in crate::engine) fn again(cx: &mut Cx<'_>, foreach: &Foreach, state: &mut ForeachState) {
    state.running.append(&mut state.kept);
    state.running.sort_by_key(|item| item.index);
    for item in &mut state.running {
        let freed = match &item.once {
            Once::Claiming(_, key) => Some(Arc::clone(key)),
            Once::Claimed(key) if !item.sent => Some(Arc::clone(key)),
            Once::Claimed(_) | Once::None => None,
        };
        if let (Some(key), Some(span)) = (freed, foreach.once_per) {
            let until = later(cx.at, span);
            let op = cx.ask(|op| Command::Once { op, key: Arc::clone(&key), until });
            item.once = Once::Claiming(op, key);
        }
        cx.below(&format!("each[{}]", item.index), |cx| again::block(cx, &foreach.body, &mut item.block));
    }
}

pub(in crate::engine) fn cancel(cx: &mut Cx<'_>, foreach: &Foreach, state: &mut ForeachState) {
    for mut item in std::mem::take(&mut state.running) {
        if let Once::Claiming(op, key) = &item.once {
            cx.out.push(Command::Cancel { op: *op });
            // The claim may be on its way: releases follow claims in the order of submission.
            cx.out.push(Command::OnceRelease { key: Arc::clone(key) });
        }
        release(cx, &item);
        cx.below(&format!("each[{}]", item.index), |cx| cancel_block(cx, &foreach.body, &mut item.block));
    }
}
