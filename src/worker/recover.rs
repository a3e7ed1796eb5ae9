//! After a start: unfinished runs are replayed from their rows, and what they waited for is asked for again.

use std::sync::Arc;

use super::live::Live;
use super::poison::{Stuck, guarded};
use super::turn::{Turn, short};
use crate::check::CheckedFlow;
use crate::engine::observe::{Observer, Unobserved};
use crate::engine::{Command, Finish, Input, RunState, Seed, apply_observed};
use crate::journal::RunRow;

/// What a run begins with.
pub(super) fn seed(row: &RunRow) -> Seed {
    Seed { run: row.id.clone(), trigger: row.payload.clone(), inputs: row.inputs.clone(), accepted: row.accepted }
}

/// A replayed run, and its end if the rows already hold one.
pub(super) struct Replayed {
    pub(super) live: Box<Live>,
    pub(super) finish: Option<Finish>,
}

/// Applies a run's rows. The error says why the run can't go on by itself.
pub(super) fn replay(
    row: RunRow,
    flow: Arc<CheckedFlow>,
    turns: &[Vec<u8>],
    observer: &mut dyn Observer,
) -> Result<Replayed, String> {
    let state = RunState::new(seed(&row));
    let mut live = Box::new(Live::new(row, flow, state));
    let mut finish = None;
    for (seq, body) in turns.iter().enumerate() {
        let turn = Turn::decode(body)?;
        let mut derived = Vec::new();
        for kind in turn.inputs {
            live.note_input(&kind);
            let commands = apply_observed(&live.flow, &mut live.state, Input { at: turn.at, kind }, observer);
            commands.iter().for_each(|command| live.note_command(command));
            derived.extend(commands);
        }
        let shorts: Vec<String> = derived.iter().map(short).collect();
        if shorts != turn.commands {
            let (was, is) = first_difference(&turn.commands, &shorts);
            return Err(format!("replay of turn {seq} derives `{is}` where `{was}` is recorded"));
        }
        // A run that was dead may have gone on since.
        finish = match derived.pop() {
            Some(Command::Finish(end)) => Some(end),
            _ => finish.filter(|_| live.state.is_finished()),
        };
        live.seq = u32::try_from(seq + 1).unwrap_or(u32::MAX);
    }
    Ok(Replayed { live, finish })
}

/// Tells an observer all that happened in a run, from its rows: for `runs show` and the run page.
pub fn tell(row: RunRow, flow: Arc<CheckedFlow>, turns: &[Vec<u8>], observer: &mut dyn Observer) -> Result<(), String> {
    match guarded(|| replay(row, flow, turns, observer)) {
        Ok(_) => Ok(()),
        Err(Stuck::Because(error)) => Err(error),
        Err(Stuck::Panicked(what)) => Err(format!("the engine panicked, which is a bug, please report it: {what}")),
    }
}

pub(super) fn silent() -> Unobserved {
    Unobserved
}

fn first_difference<'a>(was: &'a [String], is: &'a [String]) -> (&'a str, &'a str) {
    let at = was.iter().zip(is).position(|(was, is)| was != is).unwrap_or(was.len().min(is.len()));
    (was.get(at).map_or("nothing", String::as_str), is.get(at).map_or("nothing", String::as_str))
}
