//! `call`: another flow inside this run, with a scope of its own.

use std::sync::Arc;

use crate::check::program::{CheckedFlow, Dyn, Step};
use crate::engine::apply::{frame_of, poll_flow};
use crate::engine::context::{Cx, Poll};
use crate::engine::observe::Event;
use crate::engine::state::{Active, BlockState, End, FlowPhase, FlowState};
use crate::value::Value;

pub(in crate::engine) fn poll(
    cx: &mut Cx<'_>,
    step: &Step,
    called: &CheckedFlow,
    with: &[(Arc<str>, Dyn)],
    active: &mut Active,
) -> Poll {
    if let Active::New = active {
        let mut inputs = match cx.render_map(with) {
            Ok(inputs) => inputs,
            Err(error) => return Poll::Failed(cx.eval_error(&error)),
        };
        for input in &called.inputs {
            if let (false, Some(default)) = (inputs.contains_key(&input.name), &input.default) {
                inputs.insert(Arc::clone(&input.name), default.clone());
            }
        }
        let frame = frame_of(cx, called, Value::map(inputs));
        let phase = FlowPhase::Steps(BlockState::default());
        *active = Active::Call(Box::new(FlowState { frame, phase, failed: None }));
    }
    let Active::Call(state) = active else { return Poll::Done };
    match poll_flow(cx, called, state) {
        None => Poll::Pending,
        Some((End::Failed(error), _)) => Poll::Failed(error),
        Some((End::Stopped { status, reason }, _)) => Poll::Stopped(End::Stopped { status, reason }),
        Some((End::Succeeded, outputs)) => {
            let outputs = outputs.unwrap_or_else(Value::empty);
            cx.tell(Event::Done { output: Some(&outputs) });
            match step.id.as_ref().map(|id| cx.bind(id, outputs)) {
                Some(Err(error)) => Poll::Failed(error),
                _ => Poll::Done,
            }
        }
    }
}
