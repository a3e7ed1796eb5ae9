//! `try` and `catch`.

use crate::check::program::{Block, CheckedFlow};
use crate::engine::apply::handled;
use crate::engine::block::poll_block;
use crate::engine::context::{Cx, Poll};
use crate::engine::observe::Event;
use crate::engine::state::{Active, BlockState};
use crate::expr::Cond;

pub(in crate::engine) fn poll(
    cx: &mut Cx<'_>,
    flow: &CheckedFlow,
    body: &Block,
    catch: &[(Option<Cond>, Block)],
    active: &mut Active,
) -> Poll {
    if let Active::New = active {
        *active = Active::Try { block: BlockState::default(), caught: None };
    }
    let Active::Try { block, caught } = active else { return Poll::Done };
    if caught.is_none() {
        let error = match handled(cx, |cx| cx.below("try", |cx| poll_block(cx, flow, body, block))) {
            Poll::Failed(error) => error,
            other => return other,
        };
        let found = cx.with_error(&error, |cx| {
            catch.iter().position(|(when, _)| {
                when.as_ref().is_none_or(|when| {
                    let (result, trace) = when.eval(&cx.env);
                    cx.tell(Event::Decided { trace: &trace });
                    result == Ok(true)
                })
            })
        });
        let Some(index) = found else { return Poll::Failed(error) };
        *caught = Some((index, error));
        *block = BlockState::default();
    }
    let Some((index, error)) = caught.as_ref() else { return Poll::Done };
    let Some((_, handler)) = catch.get(*index) else { return Poll::Failed(error.clone()) };
    let segment = format!("catch[{index}]");
    cx.below(&segment, |cx| cx.with_error(error, |cx| poll_block(cx, flow, handler, block)))
}
