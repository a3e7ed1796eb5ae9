//! `until`: a body again and again until its condition holds. The last pass's values stay.

use crate::check::program::{CheckedFlow, Until};
use crate::engine::block::{bound_names, poll_block};
use crate::engine::context::{Cx, Poll};
use crate::engine::observe::Event;
use crate::engine::retry::later;
use crate::engine::state::{Active, BlockState, UntilState};

pub(in crate::engine) fn poll(cx: &mut Cx<'_>, flow: &CheckedFlow, until: &Until, active: &mut Active) -> Poll {
    if let Active::New = active {
        if let Err(poll) = carry(cx, &until.carry) {
            return poll;
        }
        *active = Active::Until(Box::new(UntilState { pass: 0, block: BlockState::default(), pause: None }));
    }
    let Active::Until(state) = active else { return Poll::Done };
    loop {
        if let Some(op) = state.pause {
            if cx.answer(op).is_none() {
                return Poll::Pending;
            }
            state.pause = None;
        }
        let segment = format!("pass[{}]", state.pass);
        match cx.below(&segment, |cx| poll_block(cx, flow, &until.body, &mut state.block)) {
            Poll::Done => {}
            other => return other,
        }
        let (result, trace) = until.cond.eval(&cx.env);
        cx.tell(Event::Decided { trace: &trace });
        match result {
            Ok(true) => return Poll::Done,
            Ok(false) => {}
            Err(error) => return Poll::Failed(cx.eval_error(&error)),
        }
        state.pass += 1;
        if until.max.is_some_and(|max| state.pass >= max) {
            return Poll::Failed(cx.error("until_max", format!("not true after {} passes (`max`)", state.pass)));
        }
        if let Err(poll) = carry(cx, &until.next) {
            return poll;
        }
        forget(cx, until);
        state.block = BlockState::default();
        if let Some(every) = until.every {
            let at = later(cx.at, every);
            cx.tell(Event::Waits { reason: "the next pass", until: Some(at) });
            state.pause = Some(cx.timer(at));
        }
    }
}

/// Binds the carried values; all are evaluated before the first is bound.
fn carry(cx: &mut Cx<'_>, values: &[(std::sync::Arc<str>, crate::expr::Expr)]) -> Result<(), Poll> {
    match super::simple::set(cx, values) {
        Poll::Done => Ok(()),
        other => Err(other),
    }
}

/// A pass does not see what only an earlier pass has bound.
fn forget(cx: &mut Cx<'_>, until: &Until) {
    let mut names = Vec::new();
    bound_names(&until.body, &mut names);
    names.retain(|name| !until.carry.iter().any(|(carried, _)| carried == name));
    if let Some(frame) = cx.env.frames.last_mut() {
        for name in names {
            if let Some(value) = frame.vars.remove(&name) {
                frame.weight = frame.weight.saturating_sub(value.weight());
            }
        }
    }
}
