//! When to try again: a hash of (run, path, attempt) in place of randomness, so that a replay waits the same time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::check::program::RetryPolicy;
use crate::id::{RunId, digest16};

/// The longest wait that a service's Retry-After can ask for.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(3600);

/// Full jitter: between an eighth of the step and all of it, `first * 2^(n-1)` up to the cap, for the n-th failure.
pub(super) fn backoff(policy: &RetryPolicy, run: &RunId, path: &str, failures: u32) -> Duration {
    let exponent = failures.saturating_sub(1).min(20);
    let step = policy.first.saturating_mul(1 << exponent).min(policy.cap);
    let digest = digest16(&[run.as_str(), path, &failures.to_string()]);
    let fraction = 0.125 + 0.875 * f64::from(u16::from_le_bytes([digest[0], digest[1]])) / f64::from(u16::MAX);
    step.mul_f64(fraction)
}

/// The service's own word where it gave one, else the back-off; never past the caps.
pub(super) fn wait(policy: &RetryPolicy, run: &RunId, path: &str, failures: u32, retry_after: Option<u64>) -> Duration {
    match retry_after {
        // A little jitter on top, so that runs that were throttled together do not come back together.
        Some(ms) => Duration::from_millis(ms).min(RETRY_AFTER_CAP) + backoff(policy, run, path, failures) / 4,
        None => backoff(policy, run, path, failures),
    }
}

/// An instant that much later, at the end of time if need be.
pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_cap_and_are_the_same_on_replay() {
        let policy = RetryPolicy { max: 4, first: Duration::from_secs(1), cap: Duration::from_secs(10), on: None };
        let run = RunId::new(Timestamp::UNIX_EPOCH, "f", "k");
        for failures in 1..40 {
            let wait = backoff(&policy, &run, "/a", failures);
            assert_eq!(wait, backoff(&policy, &run, "/a", failures));
            assert!(wait <= policy.cap && wait >= Duration::from_millis(125));
        }
        assert!(super::wait(&policy, &run, "/a", 1, Some(u64::MAX)) <= RETRY_AFTER_CAP + policy.cap);
    }
}
