//! What went wrong, ended by a person: a dead run goes on or is dropped, an unknown effect is settled.
//!
//! Each is a row in the audit log that stands or falls with what it does.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::RunEvent;
use super::live::{Live, Open};
use super::poison::Stuck;
use super::reading::Wanted;
use super::recover::Replayed;
use super::run_loop::{CancelAnswer, Loop, ended};
use crate::catalog::{Type, decode};
use crate::engine::{InputKind, Said};
use crate::id::{OpId, RunId};
use crate::journal::{Answer, Batch, Op, RunNo, RunRow, RunStatus, StoreError};

/// What a person decides about one run.
#[derive(Clone, Debug)]
pub enum Word {
    /// A dead run goes on at the step that failed.
    Retry,
    /// Nothing more is to be done for a dead run.
    Drop,
    /// What became of an effect whose outcome is unknown; of the one at `step`, a path, where there are several.
    Settle { step: Option<String>, said: Told },
}

/// What a person found out, as it was typed.
#[derive(Clone, Debug)]
pub enum Told {
    Done { output: Option<Json> },
    NotDone,
    Failed,
}

/// A person's word, and who gave it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) run: RunId,
    pub(crate) word: Word,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) answer: CancelAnswer,
}

impl Loop {
    pub(super) fn asked(&mut self, asked: Asked) {
        if self.draining.is_some() {
            return Wanted::Word(asked).refuse("the service is stopping");
        }
        match self.runs.values().find(|live| live.row.id == asked.run && !live.stale).map(|live| live.row.no) {
            Some(no) => self.heard(no, asked),
            // Retries take their turn as what is queued does, however many there are.
            None if matches!(asked.word, Word::Retry) && !self.has_room() => self.again.push_back(asked),
            None => self.want(asked.run.clone(), Wanted::Word(asked)),
        }
    }

    /// Retries that waited for room.
    pub(super) fn begin_again(&mut self) {
        while self.draining.is_none() && self.has_room() {
            let Some(asked) = self.again.pop_front() else { return };
            self.want(asked.run.clone(), Wanted::Word(asked));
        }
    }

    fn has_room(&self) -> bool {
        self.busy + self.wants.len() < self.deps.in_flight
    }

    /// A word about a run in memory.
    pub(super) fn heard(&mut self, no: RunNo, asked: Asked) {
        match &asked.word {
            Word::Retry | Word::Drop => Wanted::Word(asked).refuse("the run has not ended"),
            Word::Settle { step, said } => {
                let (step, said) = (step.clone(), said.clone());
                self.settle_effect(no, asked, step.as_deref(), &said);
            }
        }
    }

    /// A dead run was read. The first word about it is followed; what else is wanted of it comes after that.
    pub(super) fn dead_was_read(
        &mut self,
        row: &RunRow,
        stood: Result<Option<Box<Replayed>>, Stuck>,
        wanted: Vec<Wanted>,
    ) {
        let mut stood = Some(stood);
        for wanted in wanted {
            match (wanted, stood.take()) {
                (Wanted::Word(asked), Some(stood)) if matches!(asked.word, Word::Retry) => {
                    self.retry(row, stood, asked)
                }
                (Wanted::Word(asked), Some(_)) if matches!(asked.word, Word::Drop) => {
                    self.drop_letter(row.clone(), asked)
                }
                (wanted, still) => {
                    stood = still;
                    wanted.refuse(&ended(row));
                }
            }
            self.settle();
        }
    }

    fn retry(&mut self, row: &RunRow, stood: Result<Option<Box<Replayed>>, Stuck>, asked: Asked) {
        let run = &asked.run;
        let stood = match stood {
            Ok(stood) => stood.map(|stood| *stood),
            Err(why) => return Wanted::Word(asked).refuse(&format!("the run can't go on: {why}")),
        };
        match stood {
            Some(Replayed { mut live, finish: Some(_) }) if live.state.can_retry() => {
                let Asked { by, reason, answer, .. } = asked;
                live.blobs.push(self.audit(row, "retry", &by, &reason, json!({})));
                live.row.ended = None;
                let (no, nth) = (live.row.no, live.state.retries);
                self.runs.insert(no, live);
                self.turn_for(no, vec![InputKind::Retry { nth, by, reason }], Some(answer));
            }
            Some(Replayed { finish: Some(_), .. }) => {
                let why = format!("run {run} has ended, and its rows name no step to go on from");
                Wanted::Word(asked).refuse(&why);
            }
            // It was given up in the middle: it goes on where its rows end.
            stood => self.take_up(row.clone(), stood, asked),
        }
    }

    fn take_up(&mut self, mut row: RunRow, stood: Option<Replayed>, asked: Asked) {
        let audit = self.audit(&row, "retry", &asked.by, &asked.reason, json!({}));
        let pardon = self.pardon(&row);
        let status = if stood.is_some() { RunStatus::Running } else { RunStatus::Queued };
        let status = Op::Status { run: row.no, status, reason: None };
        self.write_for(vec![status, pardon, audit], asked.answer);
        row.ended = None;
        match stood {
            None => self.queue.again(row),
            Some(mut stood) => {
                // As it stands on disk: the next turn says that it runs.
                stood.live.row.ended = None;
                if let Some(no) = self.restore(stood) {
                    self.reopen(no);
                }
            }
        }
    }

    fn drop_letter(&mut self, mut row: RunRow, asked: Asked) {
        let Asked { by, reason, answer, .. } = asked;
        let before = row.reason.take().map(|before| format!("; it was dead: {before}")).unwrap_or_default();
        let now = self.deps.clock.now();
        row.status = RunStatus::Cancelled;
        row.reason = Some(format!("dropped by {by}: {reason}{before}"));
        row.ended = Some(now);
        let finish = Op::Finish {
            run: row.no,
            status: row.status,
            reason: row.reason.clone(),
            ended: now,
            effects: row.effects.clone(),
        };
        let audit = self.audit(&row, "drop", &by, &reason, json!({}));
        self.write_for(vec![finish, audit], answer);
        self.publish(|| RunEvent::Ended(Arc::new(row)));
    }

    fn settle_effect(&mut self, no: RunNo, asked: Asked, step: Option<&str>, said: &Told) {
        let Some(live) = self.runs.get(&no) else { return };
        let (row, found) = (live.row.clone(), uncertain(live, step, said));
        let (op, step, told) = match found {
            Ok(found) => found,
            Err(why) => return Wanted::Word(asked).refuse(&why),
        };
        let Asked { by, reason, answer, .. } = asked;
        let word = match &told {
            Said::Done { .. } => "done",
            Said::NotDone => "not-done",
            Said::Failed => "failed",
        };
        let audit = self.audit(&row, "settle", &by, &reason, json!({ "said": word, "step": step, "of": row.reason }));
        if let Some(live) = self.runs.get_mut(&no) {
            live.blobs.push(audit);
        }
        self.turn_for(no, vec![InputKind::Settle { op, step, said: told, by, reason }], Some(answer));
    }

    /// One line of the audit log: who decided what about a run, and why.
    fn audit(&self, row: &RunRow, what: &str, by: &str, reason: &str, more: Json) -> Op {
        let at = self.deps.clock.now();
        let mut line = json!({
            "at": at.to_string(), "run": row.id.as_str(), "flow": &*row.flow, "what": what, "by": by, "reason": reason,
        });
        if let (Some(line), Json::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        Op::Audit { at, body: line.to_string().into_bytes() }
    }

    /// Writes, and tells a person when it is on disk.
    fn write_for(&mut self, ops: Vec<Op>, answer: CancelAnswer) {
        let done = move |result: Result<Vec<Answer>, StoreError>| {
            drop(answer.send(result.map(drop).map_err(|error| error.to_string())));
        };
        self.submit(Batch { ops, urgent: true, done: Some(Box::new(done)) });
    }
}

/// What a person's word is about: the operation that waits, the step where several were cut off, and the word as the
/// engine takes it. The error says what to do instead.
fn uncertain(live: &Live, step: Option<&str>, said: &Told) -> Result<(OpId, Option<String>, Said), String> {
    let run = &live.row.id;
    let parked = live.open.iter().filter_map(|(op, open)| match open {
        Open::Park { uncertain, reason, output } => Some((*op, *uncertain, reason.as_str(), output.as_ref())),
        _ => None,
    });
    let (unknown, asking): (Vec<_>, Vec<_>) = parked.partition(|(_, uncertain, ..)| *uncertain);
    if let Some((op, _, _, None)) = unknown.first() {
        return cut_off(live, *op, step, said);
    }
    let name = |reason: &str| reason.split_once(": ").map_or(reason, |(path, _)| path).to_owned();
    let wanted: Vec<_> = unknown.iter().filter(|(_, _, why, _)| step.is_none_or(|step| step == name(why))).collect();
    let names = || unknown.iter().map(|(_, _, why, _)| name(why)).collect::<Vec<_>>().join(", ");
    match (&*wanted, &*asking) {
        ([(op, _, _, output)], _) => Ok((*op, None, typed(*output, said)?)),
        ([_, ..], _) => Err(format!("several calls of run {run} are uncertain: {}; name one with --step", names())),
        ([], [(_, _, why, _), ..]) if unknown.is_empty() => Err(format!(
            "run {run} waits for a decision, and nothing about it is unknown: {why}; settling approves nothing, \
             `watchfloor runs cancel` ends it"
        )),
        ([], _) if unknown.is_empty() => Err(format!("nothing about run {run} is uncertain")),
        ([], _) => Err(format!("no such step of run {run} is uncertain; these are: {}", names())),
    }
}

/// The run has ended but for what it cut off: there is no step any more that could fail, or read an output.
fn cut_off(live: &Live, op: OpId, step: Option<&str>, said: &Told) -> Result<(OpId, Option<String>, Said), String> {
    let steps = live.state.cut_off();
    if let Some(step) = step.filter(|step| !steps.iter().any(|known| known == step)) {
        return Err(format!("{step} is not among what was cut off: {}", steps.join(", ")));
    }
    let said = match said {
        Told::Done { output: None } => Said::Done { output: None },
        Told::NotDone => Said::NotDone,
        Told::Failed => return Err("its steps are over: say `done` or `not-done`".to_owned()),
        Told::Done { output: Some(_) } => return Err("its steps are over, so nothing reads an output".to_owned()),
    };
    Ok((op, step.map(str::to_owned), said))
}

fn typed(output: Option<&Type>, said: &Told) -> Result<Said, String> {
    Ok(match (said, output) {
        (Told::NotDone, _) => Said::NotDone,
        (Told::Failed, _) => Said::Failed,
        (Told::Done { output: Some(json) }, Some(ty)) => {
            let output = decode::decode(ty, json).map_err(|error| format!("the output: {error}"))?;
            Said::Done { output: Some(output) }
        }
        (Told::Done { .. }, _) => Said::Done { output: None },
    })
}
