//! A store that forgets everything when it is dropped: for tests and for trying things out.
//!
//! Answers are given on the thread that wrote, after the write.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::chain::{self, AuditLine};
use super::{
    Answer, Batch, Blob, Gather, Gathering, GatheringNo, Letter, LetterQuery, Offer, Op, Prune, Queued, Reservation,
    RunNo, RunQuery, RunRow, RunStatus, Sleep, Store, StoreError, Taken, Whole,
};
use crate::id::{RunId, digest16};
use crate::value::Value;

/// The store trait over maps.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    runs: BTreeMap<RunNo, RunRow>,
    by_id: BTreeMap<RunId, RunNo>,
    asleep: BTreeMap<RunNo, Sleep>,
    by_event: BTreeMap<[u8; 16], Event>,
    /// Number of the last run.
    last: RunNo,
    gatherings: BTreeMap<GatheringNo, (Gathering, Vec<Offer>)>,
    /// Number of the last gathering.
    last_gathering: GatheringNo,
    turns: BTreeMap<(RunNo, u32), Vec<u8>>,
    blobs: BTreeMap<(RunNo, String, u32), Vec<u8>>,
    bundles: BTreeMap<String, Vec<u8>>,
    named: BTreeMap<String, Vec<u8>>,
    reservations: BTreeMap<(String, String), Timestamp>,
    claims: BTreeMap<String, (RunNo, Timestamp)>,
    skipped: BTreeMap<(String, String), (Timestamp, Vec<u8>)>,
    /// By id; dropped or not.
    letters: BTreeMap<String, (Letter, bool)>,
    audit: Vec<AuditLine>,
    commits: u64,
}

/// What an event became.
#[derive(Clone, Copy)]
enum Event {
    Run(RunNo),
    Gathering(GatheringNo),
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Lines of the audit log.
    #[cfg(test)]
    pub(crate) fn audit(&self) -> Vec<String> {
        self.state().audit.iter().map(|line| String::from_utf8_lossy(&line.body).into_owned()).collect()
    }

    /// Something of a run's row can't be read any more.
    #[cfg(test)]
    pub(crate) fn damage(&self, run: RunNo) {
        if let Some(row) = self.state().runs.get_mut(&run) {
            row.damaged = Some("its payload cannot be read".into());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn write(&self, batch: Batch) {
        let result = self.state().commit(batch.ops);
        if let Some(done) = batch.done {
            done(result);
        }
    }

    fn run(&self, id: &RunId) -> Result<Option<RunRow>, StoreError> {
        let state = self.state();
        Ok(state.by_id.get(id).and_then(|no| state.runs.get(no)).cloned())
    }

    fn runs(&self, query: &RunQuery) -> Result<Vec<RunRow>, StoreError> {
        let limit = if query.limit == 0 { usize::MAX } else { query.limit };
        let state = self.state();
        Ok(state.runs.values().rev().filter(|row| query.fits(row)).take(limit).cloned().collect())
    }

    fn whole(&self, runs: &[RunNo]) -> Result<Vec<Whole>, StoreError> {
        let row = |no: &RunNo| self.state().runs.get(no).cloned();
        Ok(runs.iter().filter_map(row).map(|row| Whole { turns: self.turns(row.no), row }).collect())
    }

    fn queued(&self, after: RunNo, limit: usize) -> Result<Queued, StoreError> {
        let state = self.state();
        let queued = state.runs.range(after + 1..).map(|(_, row)| row).filter(|row| row.status == RunStatus::Queued);
        let rows: Vec<RunRow> = queued.take(limit).cloned().collect();
        let last = state.runs.last_key_value().map_or(0, |(last, _)| *last);
        let more = rows.len() >= limit;
        let horizon = rows.last().filter(|_| more).map_or(last, |row| row.no);
        Ok(Queued { rows, horizon, more })
    }

    fn awake(&self) -> Result<Vec<RunNo>, StoreError> {
        let state = self.state();
        let begun = state.runs.values().filter(|row| !row.status.is_final() && row.status != RunStatus::Queued);
        Ok(begun.map(|row| row.no).filter(|no| !state.asleep.contains_key(no)).collect())
    }

    fn sleepers(&self) -> Result<Vec<(RunNo, Timestamp)>, StoreError> {
        let state = self.state();
        let until = |(no, sleep): (&RunNo, &Sleep)| match sleep {
            Sleep::Until(at) => Some((*no, *at)),
            Sleep::Awake | Sleep::ForPerson => None,
        };
        let mut found: Vec<_> = state.asleep.iter().filter_map(until).collect();
        found.sort_by_key(|(no, at)| (*at, *no));
        Ok(found)
    }

    fn turns(&self, run: RunNo) -> Result<Vec<Vec<u8>>, StoreError> {
        Ok(self.state().turns.range((run, 0)..=(run, u32::MAX)).map(|(_, body)| body.clone()).collect())
    }

    fn blobs(&self, run: RunNo) -> Result<Vec<Blob>, StoreError> {
        let state = self.state();
        let from = state.blobs.range((run, String::new(), 0)..).take_while(|((no, ..), _)| *no == run);
        Ok(from
            .map(|((_, path, attempt), body)| Blob { path: path.clone(), attempt: *attempt, body: body.clone() })
            .collect())
    }

    fn bundle(&self, version: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().bundles.get(version).cloned())
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().named.get(name).cloned())
    }

    fn reservations(&self, since: Timestamp) -> Result<Vec<Reservation>, StoreError> {
        let state = self.state();
        let found = state.reservations.iter().filter(|(_, at)| **at >= since);
        let mut found: Vec<Reservation> =
            found.map(|((scope, key), at)| Reservation { scope: scope.clone(), key: key.clone(), at: *at }).collect();
        found.sort_by_key(|reservation| reservation.at);
        Ok(found)
    }

    fn is_known(&self, flow: &str, key: &str) -> Result<bool, StoreError> {
        Ok(self.state().by_event.contains_key(&digest16(&[flow, key])))
    }

    fn taken(&self, flow: &str, key: &str) -> Result<Option<Taken>, StoreError> {
        let state = self.state();
        Ok(state.by_event.get(&digest16(&[flow, key])).and_then(|event| match event {
            Event::Run(no) => Some(Taken::Run(*no)),
            Event::Gathering(no) => state.gatherings.get(no).map(|(it, _)| Taken::Gathering(it.clone())),
        }))
    }

    fn gatherings(&self) -> Result<Vec<Gathering>, StoreError> {
        Ok(self.state().gatherings.values().map(|(gathering, _)| gathering.clone()).collect())
    }

    fn gathered(&self, gathering: GatheringNo) -> Result<Vec<Offer>, StoreError> {
        Ok(self.state().gatherings.get(&gathering).map(|(_, events)| events.clone()).unwrap_or_default())
    }

    fn skipped(&self, flow: &str, key: &str) -> Result<Option<(Timestamp, Vec<u8>)>, StoreError> {
        Ok(self.state().skipped.get(&(flow.to_owned(), key.to_owned())).cloned())
    }

    fn letters(&self, query: &LetterQuery) -> Result<Vec<Letter>, StoreError> {
        let limit = if query.limit == 0 { usize::MAX } else { query.limit };
        let state = self.state();
        let open = state.letters.values().filter(|(_, dropped)| !dropped).map(|(letter, _)| letter);
        let open = open.filter(|letter| query.flow.as_ref().is_none_or(|flow| *flow == letter.flow));
        let mut found: Vec<_> =
            open.filter(|letter| query.since.is_none_or(|since| letter.at >= since)).cloned().collect();
        found.sort_by(|a, b| (b.at, &b.flow, &b.key).cmp(&(a.at, &a.flow, &a.key)));
        found.truncate(limit);
        Ok(found)
    }

    fn letter(&self, id: &str) -> Result<Option<Letter>, StoreError> {
        Ok(self.state().letters.get(id).filter(|(_, dropped)| !dropped).map(|(letter, _)| letter.clone()))
    }

    fn audit(&self, after: i64, limit: usize) -> Result<Vec<AuditLine>, StoreError> {
        Ok(self.state().audit.iter().filter(|line| line.no > after).take(limit).cloned().collect())
    }

    fn counts(&self) -> Result<BTreeMap<RunStatus, u64>, StoreError> {
        let mut counts = BTreeMap::new();
        for row in self.state().runs.values() {
            *counts.entry(row.status).or_default() += 1;
        }
        Ok(counts)
    }

    fn commits(&self) -> u64 {
        self.state().commits
    }

    fn blocks(&self) -> bool {
        false
    }
}

impl State {
    /// All of a batch or none of it: what can fail is looked at before anything is changed.
    fn commit(&mut self, ops: Vec<Op>) -> Result<Vec<Answer>, StoreError> {
        self.check(&ops)?;
        self.commits += 1;
        Ok(ops.into_iter().map(|op| self.apply(op)).collect())
    }

    fn check(&self, ops: &[Op]) -> Result<(), StoreError> {
        let mut new_turns = BTreeMap::new();
        for op in ops {
            if let Op::Turn { run, .. }
            | Op::Blob { run, .. }
            | Op::Status { run, .. }
            | Op::Sleep { run, .. }
            | Op::Finish { run, .. } = op
                && !self.runs.contains_key(run)
            {
                return Err(StoreError::Failed(format!("there is no run number {run}")));
            }
            if let Op::Turn { run, seq, .. } = op {
                let known = |seq: u32| self.turns.contains_key(&(*run, seq)) || new_turns.contains_key(&(*run, seq));
                if known(*seq) {
                    return Err(StoreError::Failed(format!("turn {seq} of run {run} exists")));
                }
                if seq.checked_sub(1).is_some_and(|previous| !known(previous)) {
                    return Err(StoreError::Failed(format!("turn {seq} of run {run} has no predecessor")));
                }
                new_turns.insert((*run, *seq), ());
            }
        }
        Ok(())
    }

    fn apply(&mut self, op: Op) -> Answer {
        match op {
            Op::Offer(offer) => return Answer::Offered(self.offer(&offer).map(Box::new)),
            Op::Gather(gather) => return Answer::Gathered(self.gather(*gather).map(Box::new)),
            Op::Close { gathering, events, offer } => {
                return Answer::Offered(self.close(gathering, events, &offer).map(Box::new));
            }
            Op::Claim { key, run, at, until } => return Answer::Claimed(self.claim(key, run, at, until)),
            Op::Turn { run, seq, body } => drop(self.turns.insert((run, seq), body)),
            Op::Status { run, status, reason } => {
                if let Some(row) = self.runs.get_mut(&run) {
                    (row.status, row.reason, row.ended) = (status, reason, None);
                }
            }
            Op::Sleep { run, sleep: Sleep::Awake } => drop(self.asleep.remove(&run)),
            Op::Sleep { run, sleep } => drop(self.asleep.insert(run, sleep)),
            Op::Finish { run, status, reason, ended, effects } => {
                self.asleep.remove(&run);
                if let Some(row) = self.runs.get_mut(&run) {
                    (row.status, row.reason, row.ended, row.effects) = (status, reason, Some(ended), effects);
                }
            }
            Op::Blob { run, path, attempt, body } => drop(self.blobs.insert((run, path, attempt), body)),
            Op::Bundle { version, body } => drop(self.bundles.entry(version).or_insert(body)),
            Op::Put { name, body } => drop(self.named.insert(name, body)),
            Op::Reserve { scope, key, at } => {
                let counted = self.reservations.entry((scope, key)).or_insert(at);
                *counted = at.max(*counted);
            }
            Op::Release { key, run } => {
                if self.claims.get(&key).is_some_and(|claim| claim.0 == run) {
                    self.claims.remove(&key);
                }
            }
            Op::Skipped { flow, key, at, body } => drop(self.skipped.insert((flow, key), (at, body))),
            Op::Letter { flow, key, at, body } => {
                let id = Letter::id(&flow, &key);
                let kept = self.letters.get(&id).is_some_and(|(_, dropped)| *dropped);
                if !kept {
                    self.letters.insert(id, (Letter { flow, key, at, body }, false));
                }
            }
            Op::LetterDone { flow, key, dropped } => {
                let id = Letter::id(&flow, &key);
                match self.letters.get_mut(&id) {
                    Some((letter, gone)) if dropped => {
                        letter.body.clear();
                        *gone = true;
                    }
                    _ => drop(self.letters.remove(&id)),
                }
            }
            Op::Prune(step) => return Answer::Pruned { next: self.prune(&step) },
            Op::Audit { at, body } => {
                let (no, previous) = self.audit.last().map_or((1, chain::ROOT), |line| (line.no + 1, line.hash));
                let hash = chain::link(&previous, no, at, &body);
                self.audit.push(AuditLine { no, at, hash, body });
            }
        }
        Answer::None
    }

    /// All of it in one step. Keys are never forgotten, and neither is the audit log.
    fn prune(&mut self, step: &Prune) -> Option<RunNo> {
        match step {
            Prune::Runs { after, ended, dead } => {
                let gone = |row: &RunRow| {
                    let before = if row.status == RunStatus::Dead { dead } else { ended };
                    row.status.is_final() && row.ended.is_some_and(|at| at < *before)
                };
                let gone: Vec<RunNo> =
                    self.runs.range(after + 1..).filter(|(_, row)| gone(row)).map(|(no, _)| *no).collect();
                for no in gone {
                    if let Some(row) = self.runs.remove(&no) {
                        self.by_id.remove(&row.id);
                    }
                    self.forget(no);
                }
            }
            Prune::Payloads { after, ended } => {
                let gone = |row: &RunRow| {
                    row.status.is_final() && row.status != RunStatus::Dead && row.ended.is_some_and(|at| at < *ended)
                };
                let gone: Vec<RunNo> =
                    self.runs.range(after + 1..).filter(|(_, row)| gone(row)).map(|(no, _)| *no).collect();
                for no in gone {
                    if let Some(row) = self.runs.get_mut(&no) {
                        (row.payload, row.inputs) = (Value::empty(), Value::empty());
                    }
                    self.forget(no);
                }
            }
            Prune::Letters { before } => self.letters.retain(|_, (letter, _)| letter.at >= *before),
            Prune::Skipped { before } => self.skipped.retain(|_, (at, _)| *at >= *before),
            Prune::Reservations { before } => self.reservations.retain(|_, at| *at >= *before),
            Prune::Claims { before } => self.claims.retain(|_, (_, until)| *until >= *before),
            Prune::Audit { .. } | Prune::Keys { .. } => {}
        }
        None
    }

    fn forget(&mut self, run: RunNo) {
        self.turns.retain(|(no, _), _| *no != run);
        self.blobs.retain(|(no, ..), _| *no != run);
    }

    fn offer(&mut self, offer: &Offer) -> Option<RunRow> {
        if self.by_event.contains_key(&digest16(&[&offer.flow, &offer.key])) {
            return None;
        }
        Some(self.begin(offer))
    }

    fn begin(&mut self, offer: &Offer) -> RunRow {
        self.last += 1;
        let no = self.last;
        self.by_event.insert(digest16(&[&offer.flow, &offer.key]), Event::Run(no));
        let id = RunId::new(offer.accepted, &offer.flow, &offer.key);
        self.by_id.insert(id.clone(), no);
        let row = RunRow::accepted(no, id, offer);
        self.runs.insert(no, row.clone());
        row
    }

    fn gather(&mut self, gather: Gather) -> Option<Gathering> {
        let Gather { event, slot, due, most, most_bytes } = gather;
        let Entry::Vacant(free) = self.by_event.entry(digest16(&[&event.flow, &event.key])) else { return None };
        let size = |event: &Offer| event.payload.to_json().to_string().len() as u64;
        let open = self
            .gatherings
            .iter()
            .find(|(_, (it, _))| !it.full && (&it.flow, &it.version, &it.slot) == (&event.flow, &event.version, &slot));
        let mut no = open.map(|(no, _)| *no);
        if let Some((it, events)) = no.and_then(|no| self.gatherings.get_mut(&no))
            && events.iter().chain([&event]).map(size).sum::<u64>() > most_bytes
        {
            it.full = true;
            no = None;
        }
        let no = no.unwrap_or_else(|| {
            self.last_gathering += 1;
            self.last_gathering
        });
        free.insert(Event::Gathering(no));
        let (it, events) = self.gatherings.entry(no).or_insert_with(|| {
            let (flow, version, opened) = (Arc::clone(&event.flow), Arc::clone(&event.version), event.accepted);
            (Gathering { no, flow, version, slot, opened, due, events: 0, full: false }, vec![])
        });
        events.push(event);
        it.events += 1;
        it.full = it.events >= most;
        Some(it.clone())
    }

    fn close(&mut self, gathering: GatheringNo, events: u32, offer: &Offer) -> Option<RunRow> {
        self.gatherings.get(&gathering).filter(|(it, _)| it.events == events)?;
        let (_, gathered) = self.gatherings.remove(&gathering)?;
        let row = self.begin(offer);
        for event in gathered {
            self.by_event.insert(digest16(&[&event.flow, &event.key]), Event::Run(row.no));
        }
        Some(row)
    }

    fn claim(&mut self, key: String, run: RunNo, at: Timestamp, until: Timestamp) -> bool {
        let taken = self.claims.get(&key).is_some_and(|claim| claim.1 > at && *claim != (run, until));
        if !taken {
            self.claims.insert(key, (run, until));
        }
        !taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::conformance;

    #[test]
    fn it_keeps_the_contract_of_a_store() {
        conformance::suite(&|| Arc::new(MemoryStore::new()));
    }
}
