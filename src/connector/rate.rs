//! How fast we may ask: a token bucket per connection and rate class, and the pause after a 429.
//!
//! Waiting is first come, first served. A bucket holds back a tenth of its limit as burst, so that no window of the
//! documented length ever sees more than the limit. Not here: when to try again (the engine), what a 429 is (`answer`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::catalog::ConnectionKind;
use crate::config::Rate;

/// So many requests in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Limit {
    max: u32,
    seconds: u32,
}

/// The documented limits of the services (reference pages of Defender for Endpoint, Graph throttling, Cloud Apps).
fn documented(kind: ConnectionKind, class: &str) -> &'static [Limit] {
    const HUNTING: &[Limit] = &[Limit { max: 45, seconds: 60 }, Limit { max: 1500, seconds: 3600 }];
    const SECURITY: &[Limit] = &[Limit { max: 150, seconds: 60 }];
    // One a second over all applications of the tenant, and a 429 says not how long: leave a little air.
    const PROTECTION: &[Limit] = &[Limit { max: 19, seconds: 20 }];
    match (kind, class) {
        (ConnectionKind::Mde | ConnectionKind::Graph, "hunting") => HUNTING,
        (ConnectionKind::Mde, "batch_update") => &[Limit { max: 10, seconds: 60 }, Limit { max: 500, seconds: 3600 }],
        (ConnectionKind::Mde, "create_alert") => &[Limit { max: 15, seconds: 60 }],
        (ConnectionKind::Mde, "live_response") => &[Limit { max: 10, seconds: 60 }],
        (ConnectionKind::Mde, "start_investigation") => &[Limit { max: 50, seconds: 3600 }],
        (ConnectionKind::Mde, "package_uri") => &[Limit { max: 2, seconds: 60 }, Limit { max: 120, seconds: 3600 }],
        (ConnectionKind::Mde, "indicators_bulk") => {
            &[Limit { max: 30, seconds: 60 }, Limit { max: 1500, seconds: 3600 }]
        }
        (ConnectionKind::Mde, "machine_vulnerabilities") => {
            &[Limit { max: 50, seconds: 60 }, Limit { max: 1500, seconds: 3600 }]
        }
        (ConnectionKind::Mde, "assessment") => &[Limit { max: 30, seconds: 60 }, Limit { max: 1000, seconds: 3600 }],
        (ConnectionKind::Mde, "assessment_files") => &[Limit { max: 5, seconds: 60 }, Limit { max: 20, seconds: 3600 }],
        (ConnectionKind::Mde, _) => &[Limit { max: 100, seconds: 60 }, Limit { max: 1500, seconds: 3600 }],
        (ConnectionKind::Graph, "identity_protection") => PROTECTION,
        (ConnectionKind::Graph, "security") => SECURITY,
        (ConnectionKind::Graph, "outlook") => &[Limit { max: 10_000, seconds: 600 }],
        (ConnectionKind::Graph, _) => &[Limit { max: 3000, seconds: 60 }],
        (ConnectionKind::CloudApps, _) => &[Limit { max: 30, seconds: 60 }],
        (ConnectionKind::Teams, _) => &[Limit { max: 60, seconds: 30 }],
        (ConnectionKind::LogAnalytics, _) => &[Limit { max: 200, seconds: 30 }],
        (ConnectionKind::Email | ConnectionKind::Http | ConnectionKind::Azure | ConnectionKind::Own(_), _) => &[],
    }
}

/// The documented limits in words; `None` where there are none.
pub fn told(kind: ConnectionKind, class: &str) -> Option<String> {
    let limits = documented(kind, class).iter().map(|limit| match limit.seconds {
        60 => format!("{} a minute", limit.max),
        3600 => format!("{} an hour", limit.max),
        seconds => format!("{} in {seconds} s", limit.max),
    });
    let limits: Vec<String> = limits.collect();
    (!limits.is_empty()).then(|| limits.join(", "))
}

/// Requests at the same time; Outlook allows four an application.
fn concurrent(kind: ConnectionKind, class: &str) -> Option<usize> {
    (kind == ConnectionKind::Graph && class == "outlook").then_some(4)
}

/// The buckets of one connection, by rate class.
#[derive(Debug)]
pub(super) struct Limits {
    kind: ConnectionKind,
    rate: Rate,
    classes: std::sync::Mutex<BTreeMap<Arc<str>, Arc<Limiter>>>,
    /// What the configuration allows for the connection as a whole.
    whole: Option<Arc<Limiter>>,
}

impl Limits {
    pub(super) fn new(kind: ConnectionKind, rate: Rate) -> Self {
        let whole = match rate {
            Rate::Per { minute, hour } => {
                let minute = minute.map(|max| Limit { max, seconds: 60 });
                let limits: Vec<_> = minute.into_iter().chain(hour.map(|max| Limit { max, seconds: 3600 })).collect();
                Some(Arc::new(Limiter::new(&limits, None)))
            }
            Rate::Documented | Rate::Off => None,
        };
        Limits { kind, rate, classes: std::sync::Mutex::default(), whole }
    }

    /// Whether these are the limits of such a connection.
    pub(super) fn fit(&self, kind: ConnectionKind, rate: Rate) -> bool {
        self.kind == kind && self.rate == rate
    }

    /// The bucket of a class; `None` with `rate: off`.
    pub(super) fn class(&self, class: &Arc<str>) -> Option<Arc<Limiter>> {
        // What a person wrote replaces the documented limits of the connection, but not those of narrower classes.
        if self.rate == Rate::Off {
            return None;
        }
        if let (Some(whole), "default" | "") = (&self.whole, &**class) {
            return Some(Arc::clone(whole));
        }
        let mut classes = self.classes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let limiter = classes
            .entry(Arc::clone(class))
            .or_insert_with(|| Arc::new(Limiter::new(documented(self.kind, class), concurrent(self.kind, class))));
        Some(Arc::clone(limiter))
    }

    /// Waits for leave to send one request of a class.
    pub(super) async fn take(&self, class: &Arc<str>) -> Slot {
        let Some(limiter) = self.class(class) else { return Slot(None) };
        if let Some(whole) = &self.whole
            && !Arc::ptr_eq(whole, &limiter)
        {
            whole.take().await;
        }
        limiter.take().await
    }

    /// The service asked for a pause: nothing of this class goes out before it is over.
    pub(super) fn cool_down(&self, class: &Arc<str>, pause: Duration) {
        if let Some(limiter) = self.class(class) {
            limiter.cool_down(pause);
        }
    }
}

/// Leave to send; where a service bounds the requests at the same time, held until the answer is in.
#[derive(Debug)]
pub(super) struct Slot(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

#[derive(Debug)]
pub(super) struct Limiter {
    epoch: Instant,
    /// The lock is the queue: tokio's mutex is fair, and whoever leaves it early has taken nothing.
    levels: Mutex<Vec<Level>>,
    /// Milliseconds after the epoch until which the service asked us to pause.
    blocked: AtomicU64,
    slots: Option<Arc<Semaphore>>,
}

impl Limiter {
    fn new(limits: &[Limit], concurrent: Option<usize>) -> Self {
        Limiter {
            epoch: Instant::now(),
            levels: Mutex::new(limits.iter().map(Level::new).collect()),
            blocked: AtomicU64::new(0),
            slots: concurrent.map(|n| Arc::new(Semaphore::new(n))),
        }
    }

    async fn take(&self) -> Slot {
        let slot = match &self.slots {
            Some(slots) => Arc::clone(slots).acquire_owned().await.ok(),
            None => None,
        };
        let mut levels = self.levels.lock().await;
        loop {
            let now = self.epoch.elapsed();
            let until = Duration::from_millis(self.blocked.load(Ordering::Relaxed));
            let wait = levels.iter_mut().map(|level| level.wait(now)).max().unwrap_or_default();
            let wait = wait.max(until.saturating_sub(now));
            if wait.is_zero() {
                levels.iter_mut().for_each(Level::take);
                return Slot(slot);
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn cool_down(&self, pause: Duration) {
        let until = self.epoch.elapsed() + pause;
        self.blocked.fetch_max(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// One bucket: `burst` at once, then `per_second`.
#[derive(Debug)]
struct Level {
    burst: f64,
    per_second: f64,
    tokens: f64,
    at: Duration,
}

impl Level {
    fn new(limit: &Limit) -> Self {
        let max = f64::from(limit.max.max(1));
        let burst = (max / 10.0).floor().max(1.0);
        // A limit of one has no burst to hold back.
        let sustained = if max > burst { max - burst } else { max };
        Level { burst, per_second: sustained / f64::from(limit.seconds.max(1)), tokens: burst, at: Duration::ZERO }
    }

    /// Fills up to `now` and tells how long until one token is there.
    fn wait(&mut self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.at = self.at.max(now);
        if self.tokens >= 1.0 {
            return Duration::ZERO;
        }
        // A timer fires on whole milliseconds: round up, or the last wait is a busy loop.
        Duration::from_secs_f64((1.0 - self.tokens) / self.per_second) + Duration::from_millis(1)
    }

    fn take(&mut self) {
        self.tokens -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as fast as allowed for `span` and returns the instants.
    fn drain(levels: &mut [Level], span: Duration) -> Vec<Duration> {
        let mut now = Duration::ZERO;
        let mut sent = Vec::new();
        while now < span {
            let wait = levels.iter_mut().map(|level| level.wait(now)).max().unwrap_or_default();
            if wait.is_zero() {
                levels.iter_mut().for_each(Level::take);
                sent.push(now);
            }
            now += wait;
        }
        sent
    }

    #[test]
    fn no_window_sees_more_than_the_documented_limit() {
        for (kind, class) in [
            (ConnectionKind::Mde, "default"),
            (ConnectionKind::Graph, "identity_protection"),
            (ConnectionKind::Graph, "hunting"),
            (ConnectionKind::CloudApps, "default"),
        ] {
            let limits = documented(kind, class);
            let mut levels: Vec<_> = limits.iter().map(Level::new).collect();
            let sent = drain(&mut levels, Duration::from_secs(7200));
            for limit in limits {
                let window = Duration::from_secs(limit.seconds.into());
                for (i, start) in sent.iter().enumerate() {
                    let inside = sent[i..].iter().take_while(|at| **at < *start + window).count();
                    assert!(inside <= limit.max as usize, "{kind:?} {class}: {inside} in {window:?}");
                }
                assert!(sent.len() >= 7200 / 3600 * 20, "{kind:?} {class}: stalls");
            }
        }
    }

    #[test]
    fn identity_protection_is_one_a_second() {
        let mut levels: Vec<_> =
            documented(ConnectionKind::Graph, "identity_protection").iter().map(Level::new).collect();
        let sent = drain(&mut levels, Duration::from_secs(60));
        assert!(sent.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(1)), "{sent:?}");
    }

    #[tokio::test]
    async fn a_pause_holds_back_and_off_holds_nothing() {
        let class: Arc<str> = "default".into();
        let limits = Limits::new(ConnectionKind::Mde, Rate::Documented);
        limits.cool_down(&class, Duration::from_secs(3600));
        let early = tokio::time::timeout(Duration::from_millis(5), limits.take(&class)).await;
        assert!(early.is_err());
        let off = Limits::new(ConnectionKind::Mde, Rate::Off);
        off.cool_down(&class, Duration::from_secs(3600));
        assert!(tokio::time::timeout(Duration::from_secs(5), off.take(&class)).await.is_ok());
    }

    #[tokio::test]
    async fn what_leaves_the_queue_early_takes_nothing() {
        let limiter = Limiter::new(&[Limit { max: 1, seconds: 3600 }], None);
        limiter.take().await;
        for _ in 0..3 {
            assert!(tokio::time::timeout(Duration::from_millis(1), limiter.take()).await.is_err());
        }
        let mut levels = limiter.levels.lock().await;
        assert!(levels[0].wait(limiter.epoch.elapsed()) < Duration::from_secs(3601));
    }
}
