//! How often something may be done: windows per connection, over all flows, and per flow where it tightens.
//!
//! A use is a reservation in the journal, committed with the intent; so a restart frees nothing. Time only moves forward
//! here: a clock that was set back frees nothing either.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::catalog::Effect;
use crate::check::program::FlowLimit;
use crate::config::{self, Window};
use crate::journal::{Op, Reservation};

/// The uses that still count, by what they count against.
#[derive(Debug)]
pub struct Limits {
    config: config::Limits,
    /// By scope: `mde/destructive`, `*/destructive`, `flow:NAME/destructive`.
    uses: BTreeMap<String, Uses>,
    /// The latest time ever seen.
    seen: Timestamp,
}

/// Uses in the order of their times, and the time of each key.
#[derive(Debug, Default)]
struct Uses {
    order: VecDeque<(Timestamp, String)>,
    keys: BTreeMap<String, Timestamp>,
}

/// A window without a free place.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitHit {
    pub scope: String,
    pub per: Duration,
    pub max: u32,
    /// For people: what is full, and when a place is free again.
    pub message: String,
}

/// What one use counts against.
struct Scope {
    name: String,
    windows: Vec<Window>,
}

/// The longest window of the configuration and of the flows: how far back reservations must be read at start.
pub fn horizon<'a>(config: &config::Limits, flows: impl IntoIterator<Item = &'a FlowLimit>) -> Duration {
    let configured = config.windows.values().flatten().map(|window| window.per);
    configured.chain(flows.into_iter().map(|limit| limit.per)).max().unwrap_or_default()
}

impl Limits {
    /// `recent` are the reservations of at least the last `horizon`.
    pub fn new(config: config::Limits, mut recent: Vec<Reservation>) -> Self {
        recent.sort_by_key(|reservation| reservation.at);
        let seen = recent.last().map_or(Timestamp::MIN, |reservation| reservation.at);
        let mut limits = Limits { config, uses: BTreeMap::new(), seen };
        for Reservation { scope, key, at } in recent.into_iter().filter(|it| !super::edits::is_edit(&it.scope)) {
            limits.uses.entry(scope).or_default().add(key, at);
        }
        limits
    }

    /// Replaces the windows and keeps what was used. `recent` are the reservations of at least the last `horizon` of the new
    /// windows: a longer window counts what the shorter one had let go.
    pub fn reload(&mut self, config: config::Limits, recent: Vec<Reservation>) {
        let before = std::mem::take(&mut self.uses);
        let held = before.into_iter().flat_map(|(scope, uses)| {
            uses.order.into_iter().map(move |(at, key)| Reservation { scope: scope.clone(), key, at })
        });
        // What was reserved a moment ago may not be on disk yet; a use that is in both counts once, at its first time.
        let next = Limits::new(config, held.chain(recent).collect());
        *self = Limits { seen: self.seen.max(next.seen), ..next };
    }

    /// Takes a place for each key in every window that a call counts against, or none at all. What is returned must be
    /// committed together with the intent. A key that has its places keeps them: a retry takes no more. A call on many
    /// things at once has a key for each of them.
    ///
    /// # Errors
    /// The first window that has too few places left.
    pub fn reserve(
        &mut self,
        connection: &str,
        effect: Effect,
        keys: &[String],
        flow: &str,
        flow_limits: &[FlowLimit],
        now: Timestamp,
    ) -> Result<Vec<Op>, LimitHit> {
        self.seen = self.seen.max(now);
        let now = self.seen;
        let scopes = self.scopes(connection, effect, flow, flow_limits);
        for scope in &scopes {
            let uses = self.uses.entry(scope.name.clone()).or_default();
            uses.forget_before(now, scope.windows.iter().map(|window| window.per).max().unwrap_or_default());
            let wanted = keys.iter().filter(|key| !uses.keys.contains_key(*key)).count();
            if wanted > 0
                && let Some(hit) = uses.full(scope, now, effect, wanted)
            {
                return Err(hit);
            }
        }
        let mut ops = Vec::with_capacity(scopes.len() * keys.len());
        for scope in scopes {
            let uses = self.uses.entry(scope.name.clone()).or_default();
            for key in keys {
                // A key that is known is written again: the commit that first carried it may have failed.
                let at = uses.keys.get(key).copied().unwrap_or_else(|| {
                    uses.add(key.clone(), now);
                    now
                });
                ops.push(Op::Reserve { scope: scope.name.clone(), key: key.clone(), at });
            }
        }
        Ok(ops)
    }

    fn scopes(&self, connection: &str, effect: Effect, flow: &str, flow_limits: &[FlowLimit]) -> Vec<Scope> {
        let configured = self.config.windows.get(&effect).cloned().unwrap_or_default();
        let own = flow_limits.iter().filter(|limit| limit.effect == effect);
        let own = own.map(|limit| Window { max: limit.max, per: limit.per }).collect();
        let word = effect.as_str();
        let scopes = [
            Scope { name: format!("{connection}/{word}"), windows: configured.clone() },
            Scope { name: format!("*/{word}"), windows: configured },
            Scope { name: format!("flow:{flow}/{word}"), windows: own },
        ];
        scopes.into_iter().filter(|scope| !scope.windows.is_empty()).collect()
    }
}

impl Uses {
    /// `at` is never earlier than the last one.
    fn add(&mut self, key: String, at: Timestamp) {
        if let std::collections::btree_map::Entry::Vacant(free) = self.keys.entry(key.clone()) {
            free.insert(at);
            self.order.push_back((at, key));
        }
    }

    fn forget_before(&mut self, now: Timestamp, per: Duration) {
        let start = before(now, per);
        while let Some((at, _)) = self.order.front()
            && *at <= start
        {
            if let Some((_, key)) = self.order.pop_front() {
                self.keys.remove(&key);
            }
        }
    }

    /// The first of a scope's windows that has fewer places left than are wanted.
    fn full(&self, scope: &Scope, now: Timestamp, effect: Effect, wanted: usize) -> Option<LimitHit> {
        let narrow = |window: &&Window| self.within(before(now, window.per)) + wanted > window.max as usize;
        let window = scope.windows.iter().find(narrow)?;
        // The use that must be forgotten before all that is wanted has room; none where it never will.
        let room = (window.max as usize).checked_sub(wanted);
        let index = room.and_then(|room| self.order.len().checked_sub(room + 1));
        let free = index.and_then(|index| self.order.get(index)).filter(|_| window.max > 0);
        let free = free.and_then(|(at, _)| at.checked_add(signed(window.per)).ok());
        let when = free.map_or("never".to_owned(), |at| format!("at {}", at.strftime("%Y-%m-%d %H:%M:%SZ")));
        let (max, per, name) = (window.max, short(window.per), &scope.name);
        let word = effect.as_str();
        let wants = if wanted > 1 { format!(", and this call wants {wanted}") } else { String::new() };
        let message =
            format!("the limit {name} is reached: {max} {word} calls per {per}{wants}; the next place is free {when}");
        Some(LimitHit { scope: name.clone(), per: window.per, max, message })
    }

    fn within(&self, start: Timestamp) -> usize {
        self.order.len() - self.order.partition_point(|(at, _)| *at <= start)
    }
}

fn before(now: Timestamp, per: Duration) -> Timestamp {
    now.checked_sub(signed(per)).unwrap_or(Timestamp::MIN)
}

fn signed(span: Duration) -> SignedDuration {
    SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX)
}

/// A duration as flows write it, in the largest unit that divides it.
pub(super) fn short(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => "0s".into(),
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).unwrap()
    }

    fn windows(list: &[(u32, u64)]) -> Vec<Window> {
        list.iter().map(|(max, per)| Window { max: *max, per: Duration::from_secs(*per) }).collect()
    }

    fn config(list: &[(u32, u64)]) -> config::Limits {
        config::Limits {
            windows: BTreeMap::from([(Effect::Destructive, windows(list))]),
            on_limit: config::OnLimit::Ask,
        }
    }

    fn take(limits: &mut Limits, connection: &str, key: &str, second: i64) -> Result<Vec<Op>, LimitHit> {
        limits.reserve(connection, Effect::Destructive, &[key.to_owned()], "f", &[], at(second))
    }

    fn recent(ops: &[Op]) -> Vec<Reservation> {
        let rows = ops.iter().map(|op| match op {
            Op::Reserve { scope, key, at } => Reservation { scope: scope.clone(), key: key.clone(), at: *at },
            other => panic!("{other:?}"),
        });
        rows.collect()
    }

    #[test]
    fn the_defaults_are_five_in_ten_minutes_and_twenty_a_day() {
        let mut limits = Limits::new(config::Limits::default(), vec![]);
        let mut taken = 0;
        for second in (0..86_400).step_by(60) {
            taken += usize::from(take(&mut limits, "mde", &second.to_string(), second).is_ok());
            assert!(second >= 600 || taken <= 5);
        }
        assert_eq!(taken, 20);
    }

    #[test]
    fn a_full_window_says_when_a_place_is_free() {
        let mut limits = Limits::new(config(&[(2, 600)]), vec![]);
        take(&mut limits, "mde", "a", 0).unwrap();
        take(&mut limits, "mde", "b", 60).unwrap();
        let hit = take(&mut limits, "mde", "c", 61).unwrap_err();
        assert_eq!((hit.scope.as_str(), hit.max, hit.per.as_secs()), ("mde/destructive", 2, 600));
        let free = at(600).strftime("%H:%M:%SZ").to_string();
        assert!(hit.message.contains("per 10m") && hit.message.contains(&free), "{}", hit.message);
        assert!(take(&mut limits, "mde", "c", 599).is_err());
        assert!(take(&mut limits, "mde", "c", 600).is_ok());
    }

    #[test]
    fn a_key_counts_once_and_keeps_its_place() {
        let mut limits = Limits::new(config(&[(1, 600)]), vec![]);
        let first = take(&mut limits, "mde", "a", 0).unwrap();
        assert_eq!(take(&mut limits, "mde", "a", 30).unwrap(), first, "the same rows, at the first time");
        assert!(take(&mut limits, "mde", "b", 31).is_err());
    }

    #[test]
    fn a_call_on_many_things_takes_a_place_for_each_or_none() {
        let mut limits = Limits::new(config(&[(3, 600)]), vec![]);
        let keys = |n: usize| (0..n).map(|i| format!("k#{i}")).collect::<Vec<_>>();
        let mut many = |n, second| limits.reserve("mde", Effect::Destructive, &keys(n), "f", &[], at(second));
        assert_eq!(many(2, 0).unwrap().len(), 4, "two things in two scopes");
        let hit = many(4, 10).unwrap_err();
        assert!(hit.message.contains("this call wants 2") && hit.message.contains("free at"), "{}", hit.message);
        assert!(many(3, 20).is_ok(), "what was refused took nothing");
        assert!(many(4, 30).is_err());
        let never =
            Limits::new(config(&[(1, 600)]), vec![]).reserve("m", Effect::Destructive, &keys(2), "f", &[], at(0));
        assert!(never.unwrap_err().message.ends_with("never"));
    }

    #[test]
    fn connections_share_the_limit_over_all() {
        let mut limits = Limits::new(config(&[(1, 600)]), vec![]);
        take(&mut limits, "mde", "a", 0).unwrap();
        assert_eq!(take(&mut limits, "other", "b", 0).unwrap_err().scope, "*/destructive");
        // What was refused took no place on its own connection.
        assert!(!limits.uses.get("other/destructive").unwrap().keys.contains_key("b"));
    }

    #[test]
    fn a_restart_and_a_clock_set_back_free_nothing() {
        let mut limits = Limits::new(config(&[(2, 600)]), vec![]);
        let mut ops = take(&mut limits, "mde", "a", 0).unwrap();
        ops.extend(take(&mut limits, "mde", "b", 10).unwrap());
        let mut limits = Limits::new(config(&[(2, 600)]), recent(&ops));
        assert!(take(&mut limits, "mde", "c", 20).is_err());
        assert!(take(&mut limits, "mde", "c", -100_000).is_err());
        assert!(take(&mut limits, "mde", "b", -100_000).is_ok(), "its place is still its own");
    }

    #[test]
    fn a_longer_window_counts_what_the_shorter_one_had_let_go() {
        let mut limits = Limits::new(config(&[(1, 60)]), vec![]);
        let mut rows = recent(&take(&mut limits, "mde", "a", 0).unwrap());
        rows.extend(recent(&take(&mut limits, "mde", "b", 100).unwrap()));
        // The newest use is not on disk yet.
        limits.reload(config(&[(2, 600)]), rows.into_iter().filter(|row| row.key == "a").collect());
        assert!(take(&mut limits, "mde", "c", 110).is_err());
        assert!(take(&mut limits, "mde", "b", 111).is_ok(), "its place is its own");
        assert!(take(&mut limits, "mde", "c", 600).is_ok());
    }

    #[test]
    fn a_flow_can_only_tighten() {
        let own = |max| [FlowLimit { effect: Effect::Destructive, max, per: Duration::from_secs(600) }];
        let mut limits = Limits::new(config(&[(2, 600)]), vec![]);
        let mut reserve =
            |flow, max, key| limits.reserve("mde", Effect::Destructive, &[String::from(key)], flow, &own(max), at(0));
        assert!(reserve("tight", 1, "a").is_ok());
        assert_eq!(reserve("tight", 1, "b").unwrap_err().scope, "flow:tight/destructive");
        assert!(reserve("wide", 100, "c").is_ok());
        assert_eq!(reserve("wide", 100, "d").unwrap_err().scope, "mde/destructive");
    }

    #[test]
    fn what_has_no_window_is_free() {
        let mut limits = Limits::new(config(&[]), vec![]);
        assert_eq!(take(&mut limits, "mde", "a", 0).unwrap(), []);
        assert_eq!(limits.reserve("m", Effect::Notify, &["a".into()], "f", &[], at(0)).unwrap(), []);
        let mut closed = Limits::new(config(&[(0, 600)]), vec![]);
        assert!(take(&mut closed, "mde", "a", 0).unwrap_err().message.ends_with("never"));
    }

    #[test]
    fn the_horizon_is_the_longest_window() {
        let flow = [FlowLimit { effect: Effect::Write, max: 1, per: Duration::from_secs(172_800) }];
        assert_eq!(horizon(&config::Limits::default(), []), Duration::from_secs(86_400));
        assert_eq!(horizon(&config::Limits::default(), &flow), Duration::from_secs(172_800));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// However calls fall in time, with restarts between them: no window ever holds more than its maximum.
        #[test]
        fn no_window_is_ever_overfull(calls in proptest::collection::vec((-20i64..60, 0u8..3, 0u8..12, 0u8..20), 1..120)) {
            let list = [(3, 50), (5, 200)];
            let mut limits = Limits::new(config(&list), vec![]);
            let mut kept: BTreeMap<(String, String), Timestamp> = BTreeMap::new();
            let mut clock = 0;
            for (step, connection, key, restart) in calls {
                clock += step;
                if restart == 0 {
                    let rows = kept.iter().map(|((scope, key), at)| Reservation { scope: scope.clone(), key: key.clone(), at: *at });
                    limits = Limits::new(config(&list), rows.collect());
                }
                // A key belongs to one connection, as a call's key does.
                let (connection, key) = (format!("c{connection}"), format!("{connection}/{key}"));
                for row in recent(&take(&mut limits, &connection, &key, clock).unwrap_or_default()) {
                    kept.insert((row.scope, row.key), row.at);
                }
                for (max, per) in list {
                    for start in kept.values() {
                        let end = *start + SignedDuration::from_secs(i64::try_from(per).unwrap());
                        let mut by_scope: BTreeMap<&str, u32> = BTreeMap::new();
                        for ((scope, _), at) in &kept {
                            if start <= at && *at < end {
                                *by_scope.entry(scope).or_default() += 1;
                            }
                        }
                        prop_assert!(by_scope.values().all(|count| *count <= max), "{by_scope:?} in {per}s");
                    }
                }
            }
        }
    }
}
