//! Named points at which a test ends the process or fails the disk.
//!
//! `WATCHFLOOR_FAIL=intent.before:2:enospc` fails the second commit of an intent as a full disk would; several are
//! separated by commas. `WATCHFLOOR_CLOCK=1790000000:20` lets the wall clock of the process run twenty times as fast from
//! that second on. A build without debug assertions reads neither and has none of the points.

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Full,
    Io,
}

/// Passes a point: ends the process there, or says how the disk is to fail, where a test has asked for that.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn at(_point: &str) -> Option<Fault> {
    None
}

#[cfg(debug_assertions)]
pub use armed::{at, clock};

/// The instant in seconds since 1970 from which the wall clock runs so many times as fast.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn clock() -> Option<(i64, u32)> {
    None
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Fault;

    struct Trap {
        point: String,
        /// Passes that are left until it springs; 0 is sprung.
        left: AtomicU32,
        /// `None` ends the process.
        fault: Option<Fault>,
    }

    pub fn at(point: &str) -> Option<Fault> {
        static TRAPS: OnceLock<Vec<Trap>> = OnceLock::new();
        let traps = TRAPS.get_or_init(|| {
            let text = std::env::var("WATCHFLOOR_FAIL").unwrap_or_default();
            text.split(',').filter_map(parse).collect()
        });
        let less = |left: u32| left.checked_sub(1);
        let sprung = traps.iter().find(|trap| {
            trap.point == point && trap.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) == Ok(1)
        })?;
        // No destructor runs and nothing is flushed: for the disk and for the services this is a kill.
        let Some(fault) = sprung.fault else { std::process::abort() };
        tracing::warn!(point, ?fault, "the disk fails here, as WATCHFLOOR_FAIL asks");
        Some(fault)
    }

    fn parse(text: &str) -> Option<Trap> {
        let mut parts = text.split(':');
        let (point, nth, fault) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let fault = match fault {
            "kill" => None,
            "enospc" => Some(Fault::Full),
            "eio" => Some(Fault::Io),
            _ => return None,
        };
        Some(Trap { point: point.to_owned(), left: AtomicU32::new(nth), fault })
    }

    pub fn clock() -> Option<(i64, u32)> {
        let text = std::env::var("WATCHFLOOR_CLOCK").ok()?;
        let (from, pace) = text.split_once(':')?;
        Some((from.parse().ok()?, pace.parse().ok().filter(|pace| *pace > 0)?))
    }
}
