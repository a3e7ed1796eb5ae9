//! The only maker of a `Permit`: modes, freshness, limits, protected assets, target locks.
//!
//! Everything here stands below the flows, at the one place that sends: no flow can go round it.

pub mod limits;
pub mod locks;
pub mod protected;

use std::sync::Arc;

use jiff::Timestamp;

use crate::engine::{Call, Verdict};
use crate::flow::model::Mode;
use crate::journal::Op;

/// Leave to send one call. Only `guard` makes one; `connector::client::send` consumes it.
#[derive(Debug)]
pub struct Permit {
    _private: (),
}

/// What the guard must know about the run that asks.
#[derive(Clone, Debug)]
pub struct Asker {
    pub run: crate::id::RunId,
    pub flow: Arc<str>,
    pub mode: Mode,
    /// When the event happened at its source.
    pub occurred: Timestamp,
    pub now: Timestamp,
}

/// The guard's answer: the verdict for the engine, and what must be committed together with the intent.
#[derive(Debug)]
pub struct Decision {
    pub verdict: Verdict,
    pub permit: Option<Permit>,
    pub reserve: Vec<Op>,
}

/// A read needs no more than this.
pub fn read_permit(call: &Call) -> Option<Permit> {
    (call.effect() == crate::catalog::Effect::Read).then_some(Permit { _private: () })
}
