//! The only reader of time and of randomness.

use std::sync::Arc;

use jiff::Timestamp;

/// A source of time that tests can replace. Cloning shares the source.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's wall clock.
    pub fn system() -> Self {
        Clock(Arc::new(system_now))
    }

    /// A clock that a test drives.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Clock(Arc::new(now))
    }

    pub fn now(&self) -> Timestamp {
        (self.0)()
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
