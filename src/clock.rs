//! The only reader of time and of randomness.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// A source of time that tests can replace. Cloning shares the source.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// How many seconds pass on it in a second of the machine.
    pace: u32,
}

impl Clock {
    /// The machine's wall clock.
    pub fn system() -> Self {
        match crate::fail::clock() {
            Some((from, pace)) => Clock::paced(Timestamp::from_second(from).unwrap_or_default(), pace),
            None => Clock::from_fn(system_now),
        }
    }

    /// A clock that a test drives.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Clock { now: Arc::new(now), pace: 1 }
    }

    /// The machine's wall clock, but `pace` times as fast from an instant on: for tests that wait for long times.
    pub fn paced(from: Timestamp, pace: u32) -> Self {
        let now = move || {
            let passed = system_now().duration_since(from);
            passed.checked_mul(i32::try_from(pace).unwrap_or(i32::MAX)).and_then(|it| from.checked_add(it).ok())
        };
        Clock { now: Arc::new(move || now().unwrap_or(Timestamp::MAX)), pace: pace.max(1) }
    }

    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// How many seconds pass on it in a second of the machine.
    pub fn pace(&self) -> u32 {
        self.pace
    }

    /// How long to sleep until an instant; nothing where it has passed.
    pub fn until(&self, at: Timestamp) -> Duration {
        Duration::try_from(at.duration_since(self.now())).unwrap_or_default() / self.pace
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
fn system_now() -> Timestamp {
    Timestamp::now()
}

/// A monotonic instant, for measuring how long something took; never stored.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
pub fn stopwatch() -> std::time::Instant {
    std::time::Instant::now()
}

/// A token that nobody can guess: 64 hex digits from the randomness that the standard library takes from the system.
pub fn secret_token() -> String {
    use std::hash::{BuildHasher, Hasher};

    use sha2::{Digest, Sha256};
    let mut digest = Sha256::new();
    for round in 0..4u64 {
        let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
        hasher.write_u64(round);
        digest.update(hasher.finish().to_le_bytes());
    }
    digest.update(system_now().as_nanosecond().to_le_bytes());
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
