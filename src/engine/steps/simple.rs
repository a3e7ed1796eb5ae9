//! Steps without a body: `set`, `wait`, `stop`.

use std::sync::Arc;
use std::time::Duration;

use crate::check::program::Dyn;
use crate::engine::context::{Cx, Poll};
use crate::engine::observe::Event;
use crate::engine::retry::later;
use crate::engine::state::{Active, End};
use crate::expr::Expr;
use crate::flow::model::StopStatus;
use crate::value::Value;

/// All values are evaluated before the first is bound.
pub(in crate::engine) fn set(cx: &mut Cx<'_>, values: &[(Arc<str>, Expr)]) -> Poll {
    let mut bound = Vec::with_capacity(values.len());
    for (name, expr) in values {
        match expr.eval(&cx.env) {
            Ok(value) => bound.push((name, value)),
            Err(error) => return Poll::Failed(cx.error("evaluation", format!("`{name}`: {}", error.message))),
        }
    }
    for (name, value) in bound {
        cx.tell(Event::Done { output: Some(&value) });
        if let Err(error) = cx.bind(name, value) {
            return Poll::Failed(error);
        }
    }
    Poll::Done
}

pub(in crate::engine) fn wait_for(cx: &mut Cx<'_>, time: Duration, active: &mut Active) -> Poll {
    let until = later(cx.at, time);
    wait(cx, active, |_| Ok(until))
}

pub(in crate::engine) fn wait_until(cx: &mut Cx<'_>, expr: &Expr, active: &mut Active) -> Poll {
    wait(cx, active, |cx| match expr.eval(&cx.env) {
        Ok(Value::Datetime(until)) => Ok(until),
        Ok(other) => Err(format!("`until` gives {} where a datetime is wanted", other.kind())),
        Err(error) => Err(error.message),
    })
}

fn wait(cx: &mut Cx<'_>, active: &mut Active, until: impl FnOnce(&Cx<'_>) -> Result<jiff::Timestamp, String>) -> Poll {
    if let Active::Wait(op) = active {
        return if cx.answer(*op).is_some() { Poll::Done } else { Poll::Pending };
    }
    match until(cx) {
        Ok(until) if until <= cx.at => Poll::Done,
        Ok(until) => {
            cx.tell(Event::Waits { reason: "a wait of the flow", until: Some(until) });
            *active = Active::Wait(cx.timer(until));
            Poll::Pending
        }
        Err(message) => Poll::Failed(cx.error("evaluation", message)),
    }
}

pub(in crate::engine) fn stop(cx: &mut Cx<'_>, status: StopStatus, reason: Option<&Dyn>) -> Poll {
    let reason = match reason.map(|reason| cx.render(reason)) {
        None => None,
        Some(Ok(Value::String(text))) => Some(text.to_string()),
        Some(Ok(other)) => Some(other.to_json().to_string()),
        Some(Err(error)) => return Poll::Failed(cx.eval_error(&error)),
    };
    Poll::Stopped(match status {
        StopStatus::Succeeded if reason.is_none() => End::Succeeded,
        StopStatus::Failed => {
            End::Failed(cx.error("stopped", reason.unwrap_or_else(|| "the flow says `stop: failed`".to_owned())))
        }
        status => End::Stopped { status: status.into(), reason },
    })
}
