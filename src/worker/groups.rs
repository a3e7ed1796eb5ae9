//! Concurrency groups: at most so many runs of one key at a time; the others queue, skip, or cancel those that run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::flow::model::OnFull;
use crate::id::OpId;
use crate::journal::RunNo;

#[derive(Debug, Default)]
struct Group {
    running: Vec<RunNo>,
    waiting: VecDeque<(RunNo, OpId, u32)>,
}

#[derive(Debug, Default)]
pub(super) struct Groups(BTreeMap<Arc<str>, Group>);

/// What asking for a place gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Had,
    Skipped,
    /// The run waits; these are to be cancelled for it.
    Waits {
        cancel: Vec<RunNo>,
    },
}

impl Groups {
    pub(super) fn ask(&mut self, key: &Arc<str>, run: RunNo, op: OpId, max: u32, on_full: OnFull) -> Place {
        let group = self.0.entry(Arc::clone(key)).or_default();
        if group.running.len() < usize::try_from(max).unwrap_or(usize::MAX) {
            group.running.push(run);
            return Place::Had;
        }
        if on_full == OnFull::Skip {
            return Place::Skipped;
        }
        group.waiting.push_back((run, op, max));
        let cancel = if on_full == OnFull::CancelRunning { group.running.clone() } else { Vec::new() };
        Place::Waits { cancel }
    }

    /// A run of the last life that had its place.
    pub(super) fn restore(&mut self, key: &Arc<str>, run: RunNo) {
        let running = &mut self.0.entry(Arc::clone(key)).or_default().running;
        if !running.contains(&run) {
            running.push(run);
        }
    }

    /// A run leaves; the next that has its place now.
    pub(super) fn leave(&mut self, key: &Arc<str>, run: RunNo) -> Option<(RunNo, OpId)> {
        let group = self.0.get_mut(key)?;
        match group.running.iter().position(|other| *other == run) {
            Some(place) => drop(group.running.remove(place)),
            // Looked through only where it can be there: many may wait.
            None => group.waiting.retain(|(other, _, _)| *other != run),
        }
        let room = group
            .waiting
            .front()
            .is_some_and(|(_, _, max)| group.running.len() < usize::try_from(*max).unwrap_or(usize::MAX));
        let next = if room { group.waiting.pop_front() } else { None };
        match next {
            Some((run, op, _)) => {
                group.running.push(run);
                Some((run, op))
            }
            None => {
                if group.running.is_empty() && group.waiting.is_empty() {
                    self.0.remove(key);
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_group_queues_in_order_and_skips_on_request() {
        let key: Arc<str> = "f/device".into();
        let mut groups = Groups::default();
        assert_eq!(groups.ask(&key, 1, OpId(1), 1, OnFull::Queue), Place::Had);
        assert_eq!(groups.ask(&key, 2, OpId(1), 1, OnFull::Queue), Place::Waits { cancel: vec![] });
        assert_eq!(groups.ask(&key, 3, OpId(1), 1, OnFull::Skip), Place::Skipped);
        assert_eq!(groups.ask(&key, 4, OpId(1), 1, OnFull::CancelRunning), Place::Waits { cancel: vec![1] });
        assert_eq!(groups.leave(&key, 1), Some((2, OpId(1))));
        assert_eq!(groups.leave(&key, 2), Some((4, OpId(1))));
        assert_eq!(groups.leave(&key, 4), None);
    }
}
