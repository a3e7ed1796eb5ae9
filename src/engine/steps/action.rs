//! An action step on its way: condition, inputs, lock, look-up, guard, attempts, confirmation.
//!
//! What an outcome means depends on the effect (S2, S6). A read is repeated freely. A notification is repeated when its
//! reply was lost, and says so. A write is repeated with the same key. A destructive call is never blindly repeated: it
//! is looked up, adopted when it took effect, sent once more when it did not within 30 s, and else left to a person.

use std::sync::Arc;
use std::time::Duration;

use super::look::{self, Found};
use super::shadow;
use crate::catalog::{Effect, LookInput, ids};
use crate::check::program::{ActionStep, RetryOn, Step};
use crate::engine::command::{Call, Command, Purpose, StepError, Target};
use crate::engine::context::{Cx, Poll};
use crate::engine::input::{InputKind, Outcome, Said, Verdict};
use crate::engine::observe::Event;
use crate::engine::retry::{self, later};
use crate::engine::state::{ActionPhase, ActionState, Active, Orphan, Unsettled};
use crate::flow::model::OnTimeout;
use crate::id::{OpId, call_key, tag};
use crate::value::{Map, Value};

/// How long after an intent "nothing found" means that nothing was done.
const SETTLE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_secs(6);
/// Looks without a trace that it takes, some seconds apart.
const CLEAN_LOOKS: u32 = 6;
/// Rounds of attempts before a passing failure ends the run on the dead-letter list (S8).
const ROUNDS: u32 = 3;
/// What a text of an output is where nobody knows it.
const UNKNOWN: &str = "(unknown)";
/// Look-ups that fail in a row before a person is asked, or the step fails.
const LOOKS: u32 = 12;

pub(in crate::engine) fn poll(cx: &mut Cx<'_>, step: &Step, action: &ActionStep, active: &mut Active) -> Poll {
    let mut walk = Walk { cx, step, action };
    if let Active::New = active {
        match walk.begin() {
            Ok(Some(state)) => *active = Active::Action(Box::new(state)),
            Ok(None) => return Poll::Done,
            Err(error) => return Poll::Failed(error),
        }
    }
    let Active::Action(state) = active else { return Poll::Done };
    walk.advance(state)
}

/// Ends an action in the middle. What was sent becomes an orphan that keeps its lock until it is answered.
pub(in crate::engine) fn cancel(cx: &mut Cx<'_>, step: &ActionStep, state: &mut ActionState) {
    let risky = step.action.effect == Effect::Destructive || step.action.look.is_some();
    match state.phase {
        ActionPhase::Calling(op) if step.action.effect != Effect::Read => {
            let target = state.locked.then(|| state.target.clone()).flatten();
            let path = cx.path.as_str().into();
            cx.orphans.insert(op, Orphan { action: step.action.name.clone(), target, path, risky });
            // Not sent yet, it never will be: the answer says so.
            cx.out.push(Command::Cancel { op });
            return;
        }
        _ if state.unknowns > 0 => {
            cx.unsettled.push(Unsettled { path: cx.path.as_str().into(), action: step.action.name.clone() });
        }
        _ => {}
    }
    if let Some(op) = open_op(&state.phase) {
        cx.out.push(Command::Cancel { op });
    }
    unlock(cx, state);
}

/// After a retry: a fresh budget, and the word of what became of a call that was cut off beside the failed step. The next
/// attempt begins with the lock, the look-up and the guard as any other.
pub(in crate::engine) fn again(cx: &mut Cx<'_>, step: &ActionStep, state: &mut ActionState) {
    (state.tries, state.round, state.looks, state.locked) = (0, 0, 0, false);
    (state.uncertain, state.said, state.phase) = (false, None, ActionPhase::Ready);
    let late = cx.late.remove(cx.path.as_str());
    if let (Some(_), Some(spec)) = (&state.accepted, &step.action.confirm) {
        // The service has it: only its end is still to be seen.
        let at = later(cx.at, spec.every);
        state.phase = ActionPhase::ConfirmPause { op: cx.timer(at), since: cx.at };
        return;
    }
    match late {
        // A person's word carries no output.
        Some(Outcome::Done { status: 0, .. }) => {
            state.late = Some(shadow::stand_in(&step.output, &step.keep, &state.inputs, cx.at, UNKNOWN));
        }
        Some(Outcome::Done { output, .. }) => state.late = Some(output),
        Some(Outcome::NotSent { code, .. }) if code == "settled" => {
            (state.unknowns, state.clean_looks, state.lost) = (0, 0, false);
        }
        Some(Outcome::Unknown { .. }) if step.action.look.is_some() => {
            (state.unknowns, state.clean_looks, state.intent_at) = (state.unknowns + 1, 0, Some(cx.at));
        }
        Some(Outcome::Unknown { .. }) => {
            state.maybe_sent = true;
            state.lost = step.action.effect == Effect::Destructive || step.action.creates;
        }
        Some(Outcome::Refused { .. } | Outcome::NotSent { .. }) | None => {}
    }
}

fn open_op(phase: &ActionPhase) -> Option<OpId> {
    match phase {
        ActionPhase::Ready => None,
        ActionPhase::Locking(op)
        | ActionPhase::Looking { op, .. }
        | ActionPhase::LookPause { op, .. }
        | ActionPhase::Checking(op)
        | ActionPhase::Calling(op)
        | ActionPhase::Backoff(op)
        | ActionPhase::RoundPause(op)
        | ActionPhase::ConfirmPause { op, .. }
        | ActionPhase::Confirming { op, .. }
        | ActionPhase::Parked(op) => Some(*op),
    }
}

fn unlock(cx: &mut Cx<'_>, state: &mut ActionState) {
    if let (true, Some(target)) = (std::mem::take(&mut state.locked), state.target.clone()) {
        cx.out.push(Command::Unlock { target });
    }
}

/// One step's walk through its phases in one turn.
struct Walk<'w, 'a> {
    cx: &'w mut Cx<'a>,
    step: &'w Step,
    action: &'w ActionStep,
}

impl Walk<'_, '_> {
    fn effect(&self) -> Effect {
        self.action.action.effect
    }

    fn begin(&mut self) -> Result<Option<ActionState>, StepError> {
        if let Some(cond) = &self.action.cond {
            let (result, trace) = cond.eval(&self.cx.env);
            self.cx.tell(Event::Decided { trace: &trace });
            if !result.map_err(|error| self.cx.eval_error(&error))? {
                self.cx.tell(Event::Skipped { reason: "its `if` is false" });
                return Ok(None);
            }
        }
        let mut inputs = self.cx.render_map(&self.action.with).map_err(|error| self.cx.eval_error(&error))?;
        for param in &self.action.action.inputs {
            if let (false, Some(default)) = (inputs.contains_key(&param.name), &param.default) {
                inputs.insert(param.name.clone(), default.clone());
            }
        }
        // One spelling before anything looks at an id: locks, rules and look-ups must mean the same device.
        for param in &self.action.action.inputs {
            let (Some(form), Some(given)) = (&param.id_form, inputs.get(&param.name)) else { continue };
            let one = |value: &Value| match value {
                Value::String(text) => ids::normal(form, text).map(Value::str),
                other => Ok(other.clone()),
            };
            let ours = match given {
                Value::List(items) => items.iter().map(one).collect::<Result<_, _>>().map(Value::list),
                value => one(value),
            };
            let ours = ours.map_err(|why| self.cx.error("bad_input", format!("`{}`: {why}", param.name)))?;
            inputs.insert(param.name.clone(), ours);
        }
        let target = self.action.action.target.as_ref().and_then(|spec| {
            let id = inputs.get(&spec.input)?;
            let id = id.as_str().map_or_else(|| id.to_json().to_string(), str::to_owned);
            Some(Target { kind: spec.kind.clone(), id: id.to_lowercase().into() })
        });
        Ok(Some(ActionState {
            inputs,
            target,
            locked: false,
            phase: ActionPhase::Ready,
            attempt: 0,
            tries: 0,
            absent: 0,
            round: 0,
            unknowns: 0,
            looks: 0,
            clean_looks: 0,
            intent_at: None,
            maybe_sent: false,
            as_read: false,
            accepted: None,
            error: None,
            uncertain: false,
            lost: false,
            said: None,
            late: None,
        }))
    }

    fn advance(&mut self, state: &mut ActionState) -> Poll {
        let answer = match open_op(&state.phase) {
            None => return self.next_attempt(state),
            Some(op) => match self.cx.answer(op) {
                Some(answer) => answer,
                None => return Poll::Pending,
            },
        };
        match (state.phase.clone(), answer) {
            (ActionPhase::Locking(_), InputKind::Locked { .. }) => {
                state.locked = true;
                self.after_lock(state)
            }
            (ActionPhase::Looking { settle, .. }, InputKind::Outcome { outcome, .. }) => {
                self.cx.tell(Event::Answered { outcome: &outcome });
                self.looked(state, settle, outcome)
            }
            (ActionPhase::LookPause { settle, .. }, InputKind::Fired { .. }) => self.look(state, settle),
            (ActionPhase::Checking(_), InputKind::Checked { verdict, .. }) => self.checked(state, verdict),
            (ActionPhase::Calling(_), InputKind::Outcome { outcome, .. }) => {
                self.cx.tell(Event::Answered { outcome: &outcome });
                self.answered(state, outcome)
            }
            (ActionPhase::Backoff(_) | ActionPhase::RoundPause(_), InputKind::Fired { .. }) => self.next_attempt(state),
            (ActionPhase::ConfirmPause { since, .. }, InputKind::Fired { .. }) => self.confirm(state, since),
            (ActionPhase::Confirming { since, .. }, InputKind::Outcome { outcome, .. }) => {
                self.confirmed(state, since, outcome)
            }
            (ActionPhase::Parked(_), InputKind::Settle { said, reason, .. }) if state.uncertain => {
                self.settled_by_person(state, said, &reason)
            }
            _ => Poll::Pending,
        }
    }

    /// Lock, then look, then ask the guard, then call: each only where it is due.
    fn next_attempt(&mut self, state: &mut ActionState) -> Poll {
        if let Some(output) = state.late.take() {
            return self.accepted(state, output, "adopted");
        }
        if state.lost {
            return self.park(state, true, "the answer was lost and can't be looked up".into());
        }
        let destructive = self.effect() == Effect::Destructive;
        match state.target.clone() {
            Some(target) if self.effect() >= Effect::Write && !state.locked => {
                state.phase = ActionPhase::Locking(self.cx.ask(|op| Command::Lock { op, target, destructive }));
                Poll::Pending
            }
            _ => self.after_lock(state),
        }
    }

    fn after_lock(&mut self, state: &mut ActionState) -> Poll {
        if self.action.action.look.is_some() {
            return self.look(state, state.unknowns > 0);
        }
        self.check(state)
    }

    fn look(&mut self, state: &mut ActionState, settle: bool) -> Poll {
        let Some(call) = self.look_call(state) else { return self.check(state) };
        state.looks += 1;
        self.cx.tell(Event::Called { call: &call });
        state.phase = ActionPhase::Looking { op: self.cx.ask(|op| Command::Call { op, call: Arc::new(call) }), settle };
        Poll::Pending
    }

    fn looked(&mut self, state: &mut ActionState, settle: bool, outcome: Outcome) -> Poll {
        let Some(spec) = self.action.action.look.as_ref() else { return self.check(state) };
        let output = match outcome {
            Outcome::Done { output, .. } => output,
            Outcome::Unknown { status: 0, code, .. } if code == "restart" => return self.look(state, settle),
            failed => match state.said.take() {
                Some(known) => return self.accept(state, known, "adopted"),
                None => return self.look_failed(state, settle, failed),
            },
        };
        state.looks = 0;
        state.clean_looks += u32::from(settle);
        let ours = tag(&call_key(&self.cx.seed.run, &self.cx.path));
        let found = look::interpret(spec, &output, &ours, settle, self.cx.at);
        if let Some(known) = state.said.take() {
            let found = match &found {
                Found::Ours(output) | Found::Already(output) => output.as_map(),
                Found::Ask(_) | Found::Nothing => None,
            };
            let mut members = known.as_map().cloned().unwrap_or_default();
            members.extend(found.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
            return self.accept(state, Value::map(members), "adopted");
        }
        match found {
            Found::Ours(output) => self.accept(state, output, "adopted"),
            Found::Already(_) if settle && !self.settled(state) => self.settle_pause(state),
            Found::Already(output) => self.accept(state, output, "already"),
            Found::Ask(reason) => self.park(state, state.unknowns > 0, reason),
            Found::Nothing if !settle => self.check(state),
            Found::Nothing if !self.settled(state) => self.settle_pause(state),
            Found::Nothing if state.unknowns < 2 => self.check(state),
            Found::Nothing => {
                self.park(state, true, "sent twice, each time without an answer and without a trace".into())
            }
        }
    }

    /// Nothing found counts only after a while, and after several looks: one step of the clock proves nothing.
    fn settled(&self, state: &ActionState) -> bool {
        state.clean_looks >= CLEAN_LOOKS && state.intent_at.is_none_or(|intent| later(intent, SETTLE) <= self.cx.at)
    }

    /// Waits a while before the next look; at the latest until nothing found means nothing done.
    fn settle_pause(&mut self, state: &mut ActionState) -> Poll {
        let at = later(self.cx.at, LOOK_EVERY);
        self.cx.tell(Event::Waits { reason: "the outcome is unknown; looking it up again", until: Some(at) });
        state.phase = ActionPhase::LookPause { op: self.cx.timer(at), settle: true };
        Poll::Pending
    }

    fn look_failed(&mut self, state: &mut ActionState, settle: bool, outcome: Outcome) -> Poll {
        let failure = self.failure(&outcome);
        let given_up = matches!(&outcome, Outcome::NotSent { code, .. } if code == "unavailable");
        if !failure.error.transient || state.looks >= LOOKS || (given_up && !settle) {
            if settle {
                let reason = format!("the outcome can't be looked up: {}", failure.error.message);
                return self.park(state, true, reason);
            }
            return self.fail(state, failure.error);
        }
        let wait = self.wait(state.looks, failure.retry_after);
        let at = later(self.cx.at, wait);
        self.cx.tell(Event::Waits { reason: "the look-up failed", until: Some(at) });
        state.phase = ActionPhase::LookPause { op: self.cx.timer(at), settle };
        Poll::Pending
    }

    fn check(&mut self, state: &mut ActionState) -> Poll {
        if self.effect() == Effect::Read {
            return self.call(state);
        }
        let call = self.main_call(state);
        state.phase = ActionPhase::Checking(self.cx.ask(|op| Command::Check { op, call: Arc::new(call) }));
        Poll::Pending
    }

    fn checked(&mut self, state: &mut ActionState, verdict: Verdict) -> Poll {
        self.cx.tell(Event::Guarded { verdict: &verdict });
        if let Verdict::Again = verdict {
            return self.again(state);
        }
        if state.unknowns > 0 && !matches!(verdict, Verdict::Go | Verdict::GoRead) {
            let now = match verdict {
                Verdict::Ask { reason } => reason,
                Verdict::Refuse { message, .. } | Verdict::Unavailable { message } => message,
                _ => "the flow is in shadow".to_owned(),
            };
            return self.park(state, true, format!("sent once without an answer and without a trace; now: {now}"));
        }
        match verdict {
            Verdict::Go => {
                state.as_read = false;
                self.call(state)
            }
            Verdict::GoRead => {
                state.as_read = true;
                self.call(state)
            }
            Verdict::Shadow => {
                let output = shadow::output(&self.action.output, &self.action.keep, &state.inputs, self.cx.at);
                unlock(self.cx, state);
                self.bind(output)
            }
            Verdict::Refuse { code, message } => {
                let error = self.cx.error(&code, message);
                unlock(self.cx, state);
                Poll::Failed(error)
            }
            Verdict::Ask { reason } => self.park(state, false, reason),
            Verdict::Again => self.again(state),
            Verdict::Unavailable { message } => {
                let mut error = self.cx.error("unavailable", message);
                error.transient = true;
                self.fail(state, error)
            }
        }
    }

    /// It was held back before it was sent: nothing is used up, and all is asked again, from the lock on, so that nothing
    /// else waits for a target that stands still.
    fn again(&mut self, state: &mut ActionState) -> Poll {
        if state.unknowns == 0 {
            unlock(self.cx, state);
        }
        self.next_attempt(state)
    }

    fn call(&mut self, state: &mut ActionState) -> Poll {
        state.attempt += 1;
        state.tries += 1;
        if self.effect() != Effect::Read {
            self.cx.sent += 1;
            state.intent_at = Some(self.cx.at);
        }
        let call = self.main_call(state);
        self.cx.tell(Event::Called { call: &call });
        state.phase = ActionPhase::Calling(self.cx.ask(|op| Command::Call { op, call: Arc::new(call) }));
        Poll::Pending
    }

    fn answered(&mut self, state: &mut ActionState, outcome: Outcome) -> Poll {
        if let Outcome::Done { output, .. } = outcome {
            return self.accept(state, output, "");
        }
        let failure = self.failure(&outcome);
        match &outcome {
            Outcome::NotSent { code, .. } if code == "held" => {
                state.tries = state.tries.saturating_sub(1);
                return self.again(state);
            }
            Outcome::NotSent { code, .. } if code == "unavailable" => return self.fail(state, failure.error),
            _ => {}
        }
        if let Outcome::Unknown { status, code, .. } = &outcome {
            let restarted = *status == 0 && code == "restart";
            let effect = if state.as_read { Effect::Read } else { self.effect() };
            match (effect, self.action.action.look.is_some()) {
                // A read that a restart cut off is simply read again.
                (Effect::Read, _) if restarted => {
                    return if state.as_read { self.check(state) } else { self.call(state) };
                }
                (Effect::Read, _) => {}
                (Effect::Notify, _) => state.maybe_sent = true,
                (_, true) => {
                    // The wait counts from the lost answer: the call may have left long after its intent.
                    state.unknowns += 1;
                    state.clean_looks = 0;
                    state.intent_at = Some(self.cx.at);
                    return self.look(state, true);
                }
                // A second one of what is made anew each time would be one too many, and nothing tells the two apart.
                (Effect::Write, false) if !self.action.action.creates => state.maybe_sent = true,
                (Effect::Write | Effect::Destructive, false) => {
                    state.lost = true;
                    let reason = format!("the answer was lost and can't be looked up: {}", failure.error.message);
                    return self.park(state, true, reason);
                }
            }
        }
        // The device has an open action of this kind: what it is decides.
        if failure.error.code == "ActiveRequestAlreadyExists" && self.action.action.look.is_some() && state.tries < 3 {
            return self.look(state, false);
        }
        self.try_again(state, failure)
    }

    fn try_again(&mut self, state: &mut ActionState, mut failure: Failure) -> Poll {
        let policy = &self.action.retry;
        let absent = self.not_there_yet(&failure.error);
        state.absent += u32::from(absent);
        let retry = match &policy.on {
            Some(on) => on.iter().any(|on| failure.matches(on)),
            None => failure.error.transient || absent,
        };
        if !retry || state.tries >= policy.max {
            // It was not looked for often enough where the other tries failed in passing.
            failure.error.transient |= absent && state.absent < state.tries;
            return self.fail(state, failure.error);
        }
        let wait = self.wait(state.tries, failure.retry_after);
        let at = later(self.cx.at, wait);
        self.cx.tell(Event::Waits { reason: &failure.error.message, until: Some(at) });
        unlock(self.cx, state);
        state.phase = ActionPhase::Backoff(self.cx.timer(at));
        Poll::Pending
    }

    /// What an event has just named may not be everywhere in the service yet. Where a handler waits for the 404 it is one.
    fn not_there_yet(&self, error: &StepError) -> bool {
        error.status == 404 && self.action.action.effect == Effect::Read && self.cx.handlers == 0
    }

    /// A passing failure that nobody handles is tried in rounds; then the run is a dead letter.
    fn fail(&mut self, state: &mut ActionState, error: StepError) -> Poll {
        unlock(self.cx, state);
        if error.transient && self.cx.handlers == 0 && state.round + 1 < ROUNDS {
            state.round += 1;
            state.tries = 0;
            state.absent = 0;
            state.looks = 0;
            let at = later(self.cx.at, Duration::from_secs(30) * 4u32.pow(state.round - 1));
            self.cx.tell(Event::Waits {
                reason: "it failed for a passing reason; another round follows",
                until: Some(at),
            });
            state.phase = ActionPhase::RoundPause(self.cx.timer(at));
            return Poll::Pending;
        }
        Poll::Failed(error)
    }

    fn park(&mut self, state: &mut ActionState, uncertain: bool, reason: String) -> Poll {
        unlock(self.cx, state);
        self.cx.tell(Event::Waits { reason: &reason, until: None });
        let path = self.cx.path.trim_start_matches('/').to_owned();
        let reason = format!("{path}: {reason}");
        let output = Some(self.action.keep.narrow(&self.action.output));
        state.uncertain = uncertain;
        state.phase = ActionPhase::Parked(self.cx.ask(|op| Command::Park { op, uncertain, reason, output }));
        Poll::Pending
    }

    /// A person knows what became of the call. Done: as if adopted, after one more look for what the service has of it.
    /// Not done: made again, with the lock, the look-up and the guard as any other.
    fn settled_by_person(&mut self, state: &mut ActionState, said: Said, reason: &str) -> Poll {
        (state.uncertain, state.lost) = (false, false);
        match said {
            Said::Done { output } => {
                let keep = Arc::clone(&self.action.keep);
                let known = match output {
                    Some(output) => keep.project(&output),
                    None => shadow::stand_in(&self.action.output, &keep, &state.inputs, self.cx.at, UNKNOWN),
                };
                if self.look_call(state).is_none() {
                    return self.accept(state, known, "adopted");
                }
                state.said = Some(known);
                self.look(state, true)
            }
            Said::NotDone => {
                (state.unknowns, state.clean_looks, state.looks, state.tries) = (0, 0, 0, 0);
                self.next_attempt(state)
            }
            Said::Failed => Poll::Failed(self.cx.error("settled", reason)),
        }
    }

    /// The service has done it (or had: `how`); its answer is the output, after confirmation where the flow wants it.
    fn accept(&mut self, state: &mut ActionState, output: Value, how: &str) -> Poll {
        unlock(self.cx, state);
        if self.effect() != Effect::Read && !state.as_read && how != "already" {
            *self.cx.effects.entry(self.action.action.name.to_string()).or_default() += 1;
        }
        self.accepted(state, output, how)
    }

    /// As `accept`, where the effect is counted already.
    fn accepted(&mut self, state: &mut ActionState, output: Value, how: &str) -> Poll {
        let output = if how.is_empty() { output } else { with_member(&output, how, Value::Bool(true)) };
        let output = if how.is_empty() { output } else { self.action.keep.project(&output) };
        if let (Some(_), Some(spec)) = (&self.action.confirm, &self.action.action.confirm)
            && !is_one_of(&output, &spec.field, &spec.succeeded)
            && output.get(&spec.from).is_some()
        {
            state.accepted = Some(output);
            return self.confirm_pause(state, self.cx.at, spec.every);
        }
        self.bind(output)
    }

    fn confirm_pause(&mut self, state: &mut ActionState, since: jiff::Timestamp, every: Duration) -> Poll {
        let at = later(self.cx.at, every);
        self.cx.tell(Event::Waits { reason: "the service has accepted it; waiting for its end", until: Some(at) });
        state.phase = ActionPhase::ConfirmPause { op: self.cx.timer(at), since };
        Poll::Pending
    }

    fn confirm(&mut self, state: &mut ActionState, since: jiff::Timestamp) -> Poll {
        let accepted = state.accepted.clone().unwrap_or_else(Value::empty);
        let call = self.action.action.confirm.as_ref().and_then(|spec| {
            let action = self.action.confirm_action.clone()?;
            let inputs = Map::from([(spec.input.clone(), accepted.get(&spec.from)?.clone())]);
            let output = action.output.clone();
            Some(Call { action, inputs, output, ..self.side_call(Purpose::Confirm, state) })
        });
        let Some(call) = call else { return self.bind(accepted) };
        state.phase =
            ActionPhase::Confirming { op: self.cx.ask(|op| Command::Call { op, call: Arc::new(call) }), since };
        Poll::Pending
    }

    fn confirmed(&mut self, state: &mut ActionState, since: jiff::Timestamp, outcome: Outcome) -> Poll {
        let (Some(spec), Some((timeout, on_timeout))) = (&self.action.action.confirm, &self.action.confirm) else {
            return Poll::Done;
        };
        let accepted = state.accepted.clone().unwrap_or_else(Value::empty);
        let mut latest = accepted;
        if let Outcome::Done { output, .. } = outcome {
            if let (Some(before), Some(now)) = (latest.as_map(), output.as_map()) {
                let mut merged = before.clone();
                merged.extend(now.iter().map(|(key, value)| (key.clone(), value.clone())));
                latest = Value::map(merged);
            }
            if is_one_of(&output, &spec.field, &spec.succeeded) {
                return self.bind(latest);
            }
            if is_one_of(&output, &spec.field, &spec.failed) {
                let status = output.get(&spec.field).and_then(Value::as_str).unwrap_or("failed").to_owned();
                return Poll::Failed(
                    self.cx.error("not_confirmed", format!("the service accepted it, then ended it as {status}")),
                );
            }
        }
        if later(since, *timeout) <= self.cx.at {
            return match on_timeout {
                OnTimeout::Fail => Poll::Failed(self.cx.error("confirm_timeout", "accepted, but not finished in time")),
                _ => self.bind(latest),
            };
        }
        let every = spec.every;
        state.accepted = Some(latest);
        self.confirm_pause(state, since, every)
    }

    fn bind(&mut self, output: Value) -> Poll {
        self.cx.tell(Event::Done { output: Some(&output) });
        match self.step.id.as_ref().map(|id| self.cx.bind(id, output)) {
            Some(Err(error)) => Poll::Failed(error),
            _ => Poll::Done,
        }
    }

    fn wait(&self, failures: u32, retry_after: Option<u64>) -> Duration {
        retry::wait(&self.action.retry, &self.cx.seed.run, &self.cx.path, failures, retry_after)
    }

    fn main_call(&self, state: &ActionState) -> Call {
        Call { inputs: state.inputs.clone(), target: state.target.clone(), ..self.side_call(Purpose::Main, state) }
    }

    fn look_call(&self, state: &ActionState) -> Option<Call> {
        let spec = self.action.action.look.as_ref()?;
        let action = self.action.look_action.clone()?;
        let mut inputs = Map::new();
        for (name, input) in &spec.with {
            let value = match input {
                LookInput::Const(value) => value.clone(),
                LookInput::Input(input) => state.inputs.get(input)?.clone(),
            };
            inputs.insert(name.clone(), value);
        }
        let output = action.output.clone();
        Some(Call { action, inputs, output, keep: look::keep(spec), ..self.side_call(Purpose::Look, state) })
    }

    fn side_call(&self, purpose: Purpose, state: &ActionState) -> Call {
        Call {
            path: self.cx.path.as_str().into(),
            attempt: state.attempt,
            purpose,
            action: self.action.action.clone(),
            connection: self.action.connection.clone(),
            inputs: Map::new(),
            keep: Arc::clone(&self.action.keep),
            target: None,
            timeout_ms: self.step.timeout.map_or(120_000, |t| u64::try_from(t.as_millis()).unwrap_or(120_000)),
            secure: self.step.secure,
            output: self.action.output.clone(),
            maybe_sent: state.maybe_sent,
            // An outcome that is not known is looked up for as long as it takes.
            handled: self.cx.handlers > 0 && state.unknowns == 0,
        }
    }

    fn failure(&self, outcome: &Outcome) -> Failure {
        let (status, code, message, transient, retry_after, kind) = match outcome {
            Outcome::Done { status, .. } => (*status, "", "", false, None, FailureKind::Refused),
            Outcome::Refused { status, code, message, transient, retry_after_ms } => {
                (*status, code.as_str(), message.as_str(), *transient, *retry_after_ms, FailureKind::Refused)
            }
            Outcome::NotSent { code, message, transient } => {
                (0, code.as_str(), message.as_str(), *transient, None, FailureKind::NotSent)
            }
            Outcome::Unknown { status, code, message } => {
                (*status, code.as_str(), message.as_str(), true, None, FailureKind::Unknown)
            }
        };
        let mut error = self.cx.error(code, message);
        error.status = status;
        error.transient = transient;
        Failure { error, retry_after, kind }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FailureKind {
    Refused,
    NotSent,
    Unknown,
}

struct Failure {
    error: StepError,
    retry_after: Option<u64>,
    kind: FailureKind,
}

impl Failure {
    fn matches(&self, on: &RetryOn) -> bool {
        match on {
            RetryOn::Status(status) => self.error.status == *status,
            RetryOn::ServerError => self.error.status >= 500,
            RetryOn::Timeout => self.error.code == "timeout",
            RetryOn::Network => self.error.status == 0 && self.kind != FailureKind::Refused,
        }
    }
}

fn with_member(output: &Value, name: &str, value: Value) -> Value {
    let mut members = output.as_map().cloned().unwrap_or_default();
    members.insert(name.into(), value);
    Value::map(members)
}

fn is_one_of(output: &Value, field: &str, values: &[Arc<str>]) -> bool {
    let status = output.get(field).and_then(Value::as_str);
    status.is_some_and(|status| values.iter().any(|value| value.eq_ignore_ascii_case(status)))
}
