//! `parallel`: branches side by side. `join: all` waits for every branch, also when one failed, so that nothing is cut
//! off half done; `join: any` takes the first success and cancels the others.

use crate::check::program::{Block, CheckedFlow};
use crate::engine::apply::handled;
use crate::engine::block::{cancel_block, poll_block};
use crate::engine::context::{Cx, Poll};
use crate::engine::state::{Active, BlockState, BranchState};
use crate::flow::model::Join;

pub(in crate::engine) fn poll(
    cx: &mut Cx<'_>,
    flow: &CheckedFlow,
    branches: &[Block],
    join: Join,
    active: &mut Active,
) -> Poll {
    if let Active::New = active {
        *active = Active::Parallel(branches.iter().map(|_| BranchState::Running(BlockState::default())).collect());
    }
    let Active::Parallel(states) = active else { return Poll::Done };
    for (index, branch) in branches.iter().enumerate() {
        let Some(state) = states.get_mut(index) else { continue };
        let BranchState::Running(block) = state else { continue };
        let segment = format!("branch[{index}]");
        let polled = if join == Join::Any {
            handled(cx, |cx| cx.below(&segment, |cx| poll_block(cx, flow, branch, block)))
        } else {
            cx.below(&segment, |cx| poll_block(cx, flow, branch, block))
        };
        match polled {
            Poll::Pending => {}
            Poll::Done => *state = BranchState::Done,
            Poll::Failed(error) => *state = BranchState::Failed(error, std::mem::take(block)),
            Poll::Stopped(end) => {
                cancel(cx, branches, states);
                return Poll::Stopped(end);
            }
        }
        if join == Join::Any && matches!(states.get(index), Some(BranchState::Done)) {
            cancel(cx, branches, states);
            return Poll::Done;
        }
    }
    if states.iter().any(|state| matches!(state, BranchState::Running(_))) {
        return Poll::Pending;
    }
    let failed = states.iter().find_map(|state| match state {
        BranchState::Failed(error, _) => Some(error.clone()),
        _ => None,
    });
    failed.map_or(Poll::Done, Poll::Failed)
}

pub(in crate::engine) fn cancel(cx: &mut Cx<'_>, branches: &[Block], states: &mut [BranchState]) {
    for (index, (branch, state)) in branches.iter().zip(states).enumerate() {
        if let BranchState::Running(block) = state {
            cx.below(&format!("branch[{index}]"), |cx| cancel_block(cx, branch, block));
            *state = BranchState::Done;
        }
    }
}
