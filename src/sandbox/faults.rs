//! What goes wrong on purpose, and the services' documented throttles. Which call is hit is a hash of the seed and the
//! call's number, so that a run of a simulation can be repeated.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::seed::mix;

/// Chances per mille of each fault; the sum should stay below 1000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// 401, as when a token was revoked early.
    pub unauthorized: u16,
    /// 404 on a read by id that succeeds when asked again: replication has not caught up.
    pub not_found: u16,
    /// 429 with `Retry-After: retry_after_s`.
    pub throttled: u16,
    /// 429 without `Retry-After`.
    pub throttled_bare: u16,
    /// 500 or 503; every other one only after the effect took place.
    pub server_error: u16,
    /// The connection breaks before the effect.
    pub reset_before: u16,
    /// The connection breaks after the effect.
    pub reset_after: u16,
    /// The answer comes after `slow_ms`.
    pub slow: u16,
    /// The effect takes place; the JSON of the answer ends in the middle.
    pub truncated: u16,
    pub retry_after_s: u16,
    pub slow_ms: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Unauthorized,
    NotFound,
    Throttled,
    ThrottledBare,
    ErrorBefore,
    ErrorAfter,
    ResetBefore,
    ResetAfter,
    Slow,
    Truncated,
}

impl Faults {
    /// The fault of call number `n`.
    pub(super) fn pick(&self, seed: u64, n: u64) -> Option<Fault> {
        let hash = mix(mix(seed ^ 0x5eed).wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let error = if hash & (1 << 40) == 0 { Fault::ErrorBefore } else { Fault::ErrorAfter };
        let table = [
            (self.unauthorized, Fault::Unauthorized),
            (self.not_found, Fault::NotFound),
            (self.throttled, Fault::Throttled),
            (self.throttled_bare, Fault::ThrottledBare),
            (self.server_error, error),
            (self.reset_before, Fault::ResetBefore),
            (self.reset_after, Fault::ResetAfter),
            (self.slow, Fault::Slow),
            (self.truncated, Fault::Truncated),
        ];
        let mut draw = hash % 1000;
        for (chance, fault) in table {
            match draw.checked_sub(u64::from(chance)) {
                None => return Some(fault),
                Some(rest) => draw = rest,
            }
        }
        None
    }
}

/// A documented limit: so many calls in so many seconds, and whether a refusal says when to come back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) calls: u32,
    pub(super) seconds: i64,
    pub(super) says_when: bool,
}

/// Fixed windows by bucket. The services do not document their window; a fixed one is the simplest that they could have.
#[derive(Debug, Default)]
pub(super) struct Throttle(HashMap<String, (Timestamp, u32)>);

impl Throttle {
    /// Counts one call. `Err` carries the seconds until the window ends.
    pub(super) fn take(&mut self, bucket: &str, limit: Limit, now: Timestamp) -> Result<(), i64> {
        let window = self.0.entry(bucket.to_owned()).or_insert((now, 0));
        let age = now.duration_since(window.0);
        if age >= SignedDuration::from_secs(limit.seconds) || age.is_negative() {
            *window = (now, 0);
        }
        if window.1 >= limit.calls {
            return Err((limit.seconds - now.duration_since(window.0).as_secs()).max(1));
        }
        window.1 += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_as_often_as_asked_and_at_the_same_calls() {
        let faults = Faults { throttled: 100, reset_after: 50, ..Faults::default() };
        let draw = |seed| (0..10_000).map(move |n| faults.pick(seed, n)).collect::<Vec<_>>();
        let first = draw(1);
        assert_eq!(first, draw(1));
        let count = |fault| first.iter().filter(|picked| **picked == Some(fault)).count();
        assert!((800..1200).contains(&count(Fault::Throttled)), "{}", count(Fault::Throttled));
        assert!((400..600).contains(&count(Fault::ResetAfter)), "{}", count(Fault::ResetAfter));
        assert_eq!(count(Fault::Truncated), 0);
    }

    #[test]
    fn a_window_that_is_full_says_how_long() {
        let limit = Limit { calls: 2, seconds: 60, says_when: true };
        let mut throttle = Throttle::default();
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        assert_eq!(throttle.take("a", limit, at(0)), Ok(()));
        assert_eq!(throttle.take("a", limit, at(10)), Ok(()));
        assert_eq!(throttle.take("a", limit, at(20)), Err(40));
        assert_eq!(throttle.take("b", limit, at(20)), Ok(()));
        assert_eq!(throttle.take("a", limit, at(60)), Ok(()));
    }
}
