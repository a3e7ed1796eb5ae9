//! A dead run again: how it stood at the failed step, before any handler ran, is made ready to go on from there.
//!
//! What is done stays done: outputs are there, effects are not repeated. What was cut off beside the failed step goes on
//! from where it stood, told what became of its call (`late`). Every attempt begins with a fresh budget.

use super::apply::begin;
use super::context::Cx;
use super::retry::later;
use super::state::{Active, BlockState, BranchState, End, Failed, FlowPhase, FlowState, StepState, Top};
use super::steps;
use crate::check::program::{Block, CheckedFlow, OnError, Step, StepKind};

/// The top of a run that goes on, once it has its place in its concurrency group.
pub(super) fn reenter(cx: &mut Cx<'_>, flow: &CheckedFlow, failed: &mut Option<Box<Failed>>) -> Top {
    let Some(failed) = failed.take() else { return begin(cx, flow) };
    let Failed { frame, block: mut stood, .. } = *failed;
    block(cx, &flow.root, &mut stood);
    cx.late.clear();
    Top::Running(FlowState { frame, phase: FlowPhase::Steps(stood), failed: None })
}

/// The place in the group was not had (`on_full: skip`): it is a dead letter as before.
pub(super) fn refused(failed: &Failed) -> Top {
    Top::Ending(End::Failed(failed.error.clone()))
}

pub(super) fn block(cx: &mut Cx<'_>, block: &Block, state: &mut BlockState) {
    if let (Some(step), Some(current)) = (block.steps.get(state.pc), &mut state.step) {
        cx.below(&step.key, |cx| self::step(cx, step, current));
    }
}

fn step(cx: &mut Cx<'_>, step: &Step, state: &mut StepState) {
    state.timer = None;
    match (&step.kind, &mut state.active) {
        (_, Active::New) => return,
        // It begins anew: the time that it was to wait for is not known here.
        (_, active @ Active::Wait(_)) => {
            *active = Active::New;
            return;
        }
        (_, Active::Handling { block, .. }) => {
            if let OnError::Steps(handler) = &step.on_error {
                cx.below("on_error", |cx| self::block(cx, handler, block));
            }
            return;
        }
        (StepKind::Action(action), Active::Action(state)) => return steps::action::again(cx, action, state),
        _ => {}
    }
    if let Some(limit) = step.timeout {
        state.timer = Some(cx.timer(later(cx.at, limit)));
    }
    within(cx, &step.kind, &mut state.active);
}

/// The blocks inside of a step.
fn within(cx: &mut Cx<'_>, kind: &StepKind, active: &mut Active) {
    match (kind, active) {
        (StepKind::If { then, otherwise, .. }, Active::Branch { taken, block }) => {
            let (segment, branch) = if *taken == 0 { ("then", then) } else { ("else", otherwise) };
            cx.below(segment, |cx| self::block(cx, branch, block));
        }
        (StepKind::Switch { cases, default, .. }, Active::Branch { taken, block }) => {
            match (cases.get(*taken), default) {
                (Some((_, case)), _) => cx.below(&format!("case[{taken}]"), |cx| self::block(cx, case, block)),
                (None, Some(case)) => cx.below("default", |cx| self::block(cx, case, block)),
                (None, None) => {}
            }
        }
        (StepKind::Foreach(foreach), Active::Foreach(state)) => steps::foreach::again(cx, foreach, state),
        (StepKind::Until(until), Active::Until(state)) => {
            if let (Some(_), Some(every)) = (state.pause, until.every) {
                state.pause = Some(cx.timer(later(cx.at, every)));
            }
            cx.below(&format!("pass[{}]", state.pass), |cx| self::block(cx, &until.body, &mut state.block));
        }
        (StepKind::Try { body, catch }, Active::Try { block, caught }) => match caught {
            None => cx.below("try", |cx| self::block(cx, body, block)),
            Some((index, _)) => {
                if let Some((_, handler)) = catch.get(*index) {
                    cx.below(&format!("catch[{index}]"), |cx| self::block(cx, handler, block));
                }
            }
        },
        (StepKind::Parallel { branches, .. }, Active::Parallel(states)) => {
            for (index, (branch, state)) in branches.iter().zip(states).enumerate() {
                if let BranchState::Running(block) | BranchState::Failed(_, block) = state {
                    let mut block = std::mem::take(block);
                    cx.below(&format!("branch[{index}]"), |cx| self::block(cx, branch, &mut block));
                    *state = BranchState::Running(block);
                }
            }
        }
        (StepKind::Call { flow, .. }, Active::Call(state)) => called(cx, flow, state),
        _ => {}
    }
}

fn called(cx: &mut Cx<'_>, flow: &CheckedFlow, state: &mut FlowState) {
    if let Some(failed) = state.failed.take() {
        (state.frame, state.phase) = (failed.frame, FlowPhase::Steps(failed.block));
    }
    match &mut state.phase {
        FlowPhase::Steps(block) => self::block(cx, &flow.root, block),
        FlowPhase::OnFailure(block, _) => cx.below("on_failure", |cx| self::block(cx, &flow.on_failure, block)),
        FlowPhase::Finally(block, _) => cx.below("finally", |cx| self::block(cx, &flow.finally, block)),
    }
}
