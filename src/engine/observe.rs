//! What happened inside a turn, for people: `runs show` and the run page replay the journal with an observer.

use jiff::Timestamp;

use super::command::{Call, StepError};
use super::input::{Outcome, Said, Verdict};
use crate::expr::Trace;
use crate::value::Value;

/// One thing worth telling.
#[derive(Debug)]
pub enum Event<'a> {
    StepStarted {
        label: &'a str,
        line: u32,
        kind: &'static str,
        /// Its inputs and outputs are hidden in history.
        secure: bool,
    },
    /// A condition was decided.
    Decided {
        trace: &'a Trace,
    },
    Called {
        call: &'a Call,
    },
    Answered {
        outcome: &'a Outcome,
    },
    Guarded {
        verdict: &'a Verdict,
    },
    /// It waits: for a retry, a time, a lock, a person.
    Waits {
        reason: &'a str,
        until: Option<Timestamp>,
    },
    Skipped {
        reason: &'a str,
    },
    Done {
        output: Option<&'a Value>,
    },
    Failed {
        error: &'a StepError,
    },
    /// A person had the dead run go on.
    Retried {
        by: &'a str,
        reason: &'a str,
    },
    /// A person said what became of an effect.
    Settled {
        said: &'a Said,
        by: &'a str,
        reason: &'a str,
    },
}

pub trait Observer {
    fn event(&mut self, at: Timestamp, path: &str, event: Event<'_>);
}

/// Nobody watches.
#[derive(Debug)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn event(&mut self, _at: Timestamp, _path: &str, _event: Event<'_>) {}
}
