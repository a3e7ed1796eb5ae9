//! One lock per target, so that no two operations act on one device, user or alert at once.
//!
//! Destructive operations are served first, then the longest wait. Nothing here is durable: after a restart the engine
//! asks again for what it held.

use std::collections::{BTreeMap, VecDeque};

use crate::engine::Target;
use crate::id::OpId;
use crate::journal::RunNo;

/// Who holds or wants a lock: one operation of one run.
pub type Owner = (RunNo, OpId);

/// All locks that are held or wanted.
#[derive(Debug, Default)]
pub struct Locks {
    targets: BTreeMap<Target, Held>,
    /// What each operation holds or waits for: an operation has one target.
    wants: BTreeMap<Owner, Target>,
}

#[derive(Debug)]
struct Held {
    owner: Owner,
    destructive: VecDeque<Owner>,
    others: VecDeque<Owner>,
}

impl Held {
    fn next(&mut self) -> Option<Owner> {
        self.destructive.pop_front().or_else(|| self.others.pop_front())
    }

    fn forget(&mut self, who: Owner) {
        self.destructive.retain(|waiting| *waiting != who);
        self.others.retain(|waiting| *waiting != who);
    }
}

impl Locks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the lock is had at once. Else the operation waits, and becomes the owner when `release`, `cancel` or
    /// `release_all` names it. Asking again for what is held or waited for changes nothing.
    pub fn acquire(&mut self, run: RunNo, op: OpId, target: &Target, destructive: bool) -> bool {
        let who = (run, op);
        let Some(held) = self.targets.get_mut(target) else {
            let held = Held { owner: who, destructive: VecDeque::new(), others: VecDeque::new() };
            self.targets.insert(target.clone(), held);
            self.wants.insert(who, target.clone());
            return true;
        };
        if held.owner == who {
            return true;
        }
        if self.wants.insert(who, target.clone()).as_ref() != Some(target) {
            if destructive { held.destructive.push_back(who) } else { held.others.push_back(who) }
        }
        false
    }

    /// Gives up the lock that a run holds on a target; the next owner, who now holds it. Nothing where it holds none.
    pub fn release(&mut self, run: RunNo, target: &Target) -> Option<Owner> {
        let held = self.targets.get_mut(target).filter(|held| held.owner.0 == run)?;
        self.wants.remove(&held.owner);
        match held.next() {
            Some(next) => {
                held.owner = next;
                Some(next)
            }
            None => {
                self.targets.remove(target);
                None
            }
        }
    }

    /// Ends an operation's wait. Where it had become the owner meanwhile, the lock goes on to the next one, who is named.
    pub fn cancel(&mut self, run: RunNo, op: OpId) -> Option<Owner> {
        let who = (run, op);
        let target = self.wants.get(&who)?.clone();
        let held = self.targets.get_mut(&target)?;
        if held.owner == who {
            return self.release(run, &target);
        }
        held.forget(who);
        self.wants.remove(&who);
        None
    }

    /// Ends all that a run holds and waits for; the owners that follow, none of them of this run.
    pub fn release_all(&mut self, run: RunNo) -> Vec<Owner> {
        let own: Vec<Owner> = self.wants.range((run, OpId(0))..=(run, OpId(u32::MAX))).map(|(who, _)| *who).collect();
        let (held, waiting): (Vec<Owner>, Vec<Owner>) = own.into_iter().partition(|who| self.owns(*who));
        // Waits first, so that no lock of this run passes to another operation of this run.
        for (run, op) in waiting {
            self.cancel(run, op);
        }
        held.into_iter().filter_map(|(run, op)| self.cancel(run, op)).collect()
    }

    /// Who holds the lock on a target.
    pub fn owner(&self, target: &Target) -> Option<Owner> {
        self.targets.get(target).map(|held| held.owner)
    }

    fn owns(&self, who: Owner) -> bool {
        self.wants.get(&who).and_then(|target| self.owner(target)) == Some(who)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn device(n: u32) -> Target {
        Target { kind: "device".into(), id: format!("d{n}").into() }
    }

    #[test]
    fn the_destructive_go_first_then_the_longest_wait() {
        let (mut locks, d) = (Locks::new(), device(1));
        assert!(locks.acquire(1, OpId(1), &d, false));
        assert!(locks.acquire(1, OpId(1), &d, false), "re-entrant");
        for (run, destructive) in [(2, false), (3, true), (4, false), (5, true)] {
            assert!(!locks.acquire(run, OpId(1), &d, destructive));
            assert!(!locks.acquire(run, OpId(1), &d, destructive), "asking again queues nobody twice");
        }
        assert_eq!(locks.release(9, &d), None, "not its owner");
        let order: Vec<_> = [1, 3, 5, 2].into_iter().map(|run| locks.release(run, &d).map(|next| next.0)).collect();
        assert_eq!(order, [Some(3), Some(5), Some(2), Some(4)]);
        assert_eq!(locks.release(4, &d), None);
        assert!(locks.acquire(6, OpId(1), &d, false) && locks.acquire(6, OpId(2), &device(2), true));
    }

    #[test]
    fn two_operations_of_one_run_exclude_each_other() {
        let (mut locks, d) = (Locks::new(), device(1));
        assert!(locks.acquire(1, OpId(1), &d, true));
        assert!(!locks.acquire(1, OpId(2), &d, true));
        assert_eq!(locks.release(1, &d), Some((1, OpId(2))));
    }

    #[test]
    fn what_is_cancelled_is_never_owned() {
        let (mut locks, d) = (Locks::new(), device(1));
        locks.acquire(1, OpId(1), &d, true);
        locks.acquire(2, OpId(1), &d, true);
        locks.acquire(3, OpId(1), &d, true);
        assert_eq!(locks.cancel(2, OpId(1)), None);
        assert_eq!(locks.cancel(7, OpId(7)), None);
        assert_eq!(locks.release(1, &d), Some((3, OpId(1))));
        locks.acquire(4, OpId(1), &d, true);
        assert_eq!(locks.cancel(3, OpId(1)), Some((4, OpId(1))), "the owner passes it on");
    }

    #[test]
    fn a_run_that_ends_gives_up_everything() {
        let mut locks = Locks::new();
        locks.acquire(1, OpId(1), &device(1), true);
        locks.acquire(1, OpId(2), &device(1), true);
        locks.acquire(2, OpId(1), &device(1), false);
        locks.acquire(2, OpId(2), &device(2), false);
        locks.acquire(1, OpId(3), &device(2), false);
        assert_eq!(locks.release_all(1), [(2, OpId(1))]);
        assert_eq!(locks.owner(&device(2)), Some((2, OpId(2))));
        assert!(locks.release_all(2).is_empty());
        assert!(locks.targets.is_empty() && locks.wants.is_empty());
    }

    proptest! {
        /// Whatever is asked in whatever order: whoever was told that it owns a target is its only owner until it gives
        /// it up, nobody is forgotten, and nothing is left at the end.
        #[test]
        fn no_target_has_two_owners(steps in proptest::collection::vec((0u8..4, 1i64..5, 1u32..4, any::<bool>()), 1..200)) {
            let mut locks = Locks::new();
            let mut told: BTreeMap<Target, Owner> = BTreeMap::new();
            let mut asked: BTreeSet<Owner> = BTreeSet::new();
            for (what, run, op, destructive) in steps {
                let target = device(op);
                let mut passed = vec![];
                match what {
                    0 | 1 => {
                        asked.insert((run, OpId(op)));
                        if locks.acquire(run, OpId(op), &target, destructive) {
                            prop_assert!(told.get(&target).is_none_or(|owner| *owner == (run, OpId(op))));
                            told.insert(target, (run, OpId(op)));
                        }
                    }
                    2 => {
                        if told.get(&target).is_some_and(|owner| owner.0 == run) {
                            told.remove(&target);
                            asked.remove(&(run, OpId(op)));
                        }
                        passed.extend(locks.release(run, &target));
                    }
                    _ => {
                        told.retain(|_, owner| owner.0 != run);
                        asked.retain(|who| who.0 != run);
                        passed.extend(locks.release_all(run));
                    }
                }
                for next in passed {
                    prop_assert!(asked.contains(&next) && told.insert(device(next.1.0), next).is_none());
                }
            }
            for _ in 0..200 {
                let Some((target, owner)) = told.pop_first() else { break };
                asked.remove(&owner);
                if let Some(next) = locks.release(owner.0, &target) {
                    told.insert(target, next);
                }
            }
            prop_assert!(asked.is_empty() && locks.targets.is_empty() && locks.wants.is_empty());
        }
    }
}
