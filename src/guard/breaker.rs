//! A circuit breaker for one connection (S7): what was heard of its calls goes in, whether a call may go comes out.
//!
//! Failures one after the other open it. It then lets one read through after each pause, and the pauses grow; an answer
//! closes it, and what waited follows by and by: two for each answer, so that a service that has just come back is not
//! run over. Pure: every method is told the time. Not here: which call waits where (see `worker::hold`).

use jiff::{SignedDuration, Timestamp};

use crate::engine::Outcome;

/// Failures in a row that open a breaker.
const THRESHOLD: u32 = 5;
/// The first pause; each further one is twice as long.
const FIRST: SignedDuration = SignedDuration::from_secs(5);
const LONGEST: SignedDuration = SignedDuration::from_secs(120);
/// A probe of which nothing was heard for so long is given up: longer than any read's time limit.
const LOST: SignedDuration = SignedDuration::from_secs(180);
/// How often one held call may go on without an answer to the one before it, while the service recovers.
const TRICKLE: SignedDuration = SignedDuration::from_secs(1);
/// The longest explanation that is kept.
const WHY: usize = 300;

/// What an outcome says about the connection, as against the one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The service is there and knows us.
    Answered,
    /// It can't be reached, does not answer, fails, or does not accept who we are.
    Failed { why: String, certain: bool },
    /// Nothing either way: throttled, refused by ourselves, held back.
    Nothing,
}

impl Heard {
    /// Reads an outcome. A 429 is no failure: the service is well, and its limit has a pause of its own.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Done { .. } => Heard::Answered,
            Outcome::Refused { status: 0 | 429, .. } => Heard::Nothing,
            Outcome::Refused { status: 401, message, .. } => failed(format!("401 {message}"), false),
            Outcome::Refused { code, message, .. } if code == "smtp_421" => failed(message.clone(), false),
            Outcome::Refused { .. } => Heard::Answered,
            Outcome::NotSent { code, message, transient } => match code.as_str() {
                "connect" | "dns" | "tls" | "timeout" => failed(message.clone(), false),
                // A refused credential holds for every call of the connection: nobody needs to run into it four times more.
                "token" | "credentials" => failed(message.clone(), !transient),
                code if code.starts_with("AADSTS") => failed(message.clone(), !transient),
                _ => Heard::Nothing,
            },
            Outcome::Unknown { status: 500.., message, .. } => failed(message.clone(), false),
            Outcome::Unknown { code, message, .. } if matches!(code.as_str(), "reset" | "timeout" | "truncated") => {
                failed(message.clone(), false)
            }
            Outcome::Unknown { .. } => Heard::Nothing,
        }
    }
}

fn failed(why: String, certain: bool) -> Heard {
    Heard::Failed { why, certain }
}

/// The breaker of one connection.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// Openings since a call was last answered: the pauses grow with them.
    streak: u32,
    /// Openings in all. What was sent before the latest one says nothing about the time after it.
    openings: u32,
    since: Timestamp,
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Timestamp,
    },
    /// One read is on its way.
    Probing {
        until: Timestamp,
    },
    /// What waited goes on by and by.
    Recovering {
        credit: u32,
        since: Timestamp,
    },
}

/// What a call was allowed under; it comes back with what was heard of it.
pub type Ticket = u32;

impl Default for Breaker {
    fn default() -> Self {
        let (since, why) = (Timestamp::UNIX_EPOCH, String::new());
        Breaker { state: State::Closed, failures: 0, streak: 0, openings: 0, since, why }
    }
}

impl Breaker {
    /// Whether a call must wait: why, for people. While the service recovers, what comes anew queues behind what waits.
    pub fn stops(&self, read: bool, now: Timestamp) -> Option<String> {
        match self.state {
            State::Closed => None,
            State::Open { until } if read && reached(until, now) => None,
            _ => Some(self.explain()),
        }
    }

    /// Whether nothing goes at all but a probe.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. } | State::Probing { .. })
    }

    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Asks to send. Once the pause is over one read may, and whoever asks first has it.
    pub fn leave(&mut self, read: bool, now: Timestamp) -> Result<Ticket, String> {
        match self.state {
            State::Closed | State::Recovering { .. } => Ok(self.openings),
            State::Open { until } | State::Probing { until } if read && reached(until, now) => {
                self.state = State::Probing { until: later(now, LOST) };
                Ok(self.openings)
            }
            State::Open { .. } | State::Probing { .. } => Err(self.explain()),
        }
    }

    /// Takes in what was heard of a call that left with a ticket. `real` is false for a mere "are you there". Answers
    /// whether it opened or let go.
    pub fn heard(&mut self, heard: &Heard, ticket: Ticket, real: bool, now: Timestamp) -> bool {
        match heard {
            Heard::Nothing if self.openings == ticket => self.give_back(now),
            Heard::Nothing => false,
            Heard::Answered => self.answered(real, now),
            Heard::Failed { .. } if ticket != self.openings => false,
            Heard::Failed { why, certain } => {
                self.failures = self.failures.saturating_add(1);
                self.why = why.chars().take(WHY).collect();
                let enough = *certain || self.streak > 0 || self.failures >= THRESHOLD;
                if enough {
                    self.open(now);
                }
                enough
            }
        }
    }

    /// In recovery: whether one more held call may go on now.
    pub fn take(&mut self, now: Timestamp) -> bool {
        let State::Recovering { credit, since } = &mut self.state else { return false };
        if *credit == 0 && reached(later(*since, TRICKLE), now) {
            *credit = 1;
        }
        if *credit == 0 {
            return false;
        }
        *credit -= 1;
        *since = now;
        true
    }

    /// Nothing waits any more: calls go as they come.
    pub fn settle(&mut self) {
        if matches!(self.state, State::Recovering { .. }) {
            self.state = State::Closed;
        }
    }

    /// When it is to be looked at next: a probe is due, or one more call may go.
    pub fn due(&self) -> Option<Timestamp> {
        match self.state {
            State::Closed => None,
            State::Open { until } | State::Probing { until } => Some(until),
            State::Recovering { credit: 0, since } => Some(later(since, TRICKLE)),
            State::Recovering { since, .. } => Some(since),
        }
    }

    /// Whether a probe may be sent.
    pub fn wants_probe(&self, now: Timestamp) -> bool {
        matches!(self.state, State::Open { until } | State::Probing { until } if reached(until, now))
    }

    /// Since when and why it does not let everything through, in a sentence.
    pub fn explain(&self) -> String {
        let since = self.since.strftime("%Y-%m-%d %H:%M:%SZ");
        match self.state {
            State::Recovering { .. } => "it answers again, and what waited goes on by and by".to_owned(),
            _ => format!("it fails since {since}: {}", self.why),
        }
    }

    fn answered(&mut self, real: bool, now: Timestamp) -> bool {
        self.failures = 0;
        if real {
            self.streak = 0;
        }
        match &mut self.state {
            State::Closed => false,
            State::Recovering { credit, .. } => {
                *credit = credit.saturating_add(2);
                true
            }
            State::Open { .. } | State::Probing { .. } => {
                self.state = State::Recovering { credit: 1, since: now };
                true
            }
        }
    }

    fn open(&mut self, now: Timestamp) {
        if self.streak == 0 {
            self.since = now;
        }
        self.streak = self.streak.saturating_add(1);
        self.openings = self.openings.saturating_add(1);
        let pause = FIRST.saturating_mul(1 << (self.streak - 1).min(10)).min(LONGEST);
        self.state = State::Open { until: later(now, pause) };
    }

    /// A probe told nothing: another one follows soon.
    fn give_back(&mut self, now: Timestamp) -> bool {
        if let State::Probing { .. } = self.state {
            self.state = State::Open { until: later(now, FIRST) };
            return true;
        }
        false
    }
}

/// A clock that was set back must not keep it shut for longer than any pause takes.
fn reached(until: Timestamp, now: Timestamp) -> bool {
    until <= now || until.duration_since(now) > LOST
}

fn later(at: Timestamp, span: SignedDuration) -> Timestamp {
    at.checked_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn down() -> Heard {
        failed("no connection".into(), false)
    }

    /// A breaker that five failures have opened at second 0.
    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for n in 0..THRESHOLD {
            assert!(breaker.stops(false, at(0)).is_none(), "open after {n} failures");
            let ticket = breaker.leave(false, at(0)).unwrap();
            assert_eq!(breaker.heard(&down(), ticket, true, at(0)), n + 1 == THRESHOLD);
        }
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_an_answer_between_them_does_not() {
        let mut breaker = Breaker::default();
        for _ in 0..20 {
            for heard in [down(), down(), down(), down(), Heard::Answered] {
                assert!(!breaker.heard(&heard, 0, true, at(0)));
            }
        }
        assert!(breaker.is_closed());
        for _ in 0..20 {
            breaker.heard(&Heard::Nothing, 0, true, at(0));
        }
        assert!(breaker.is_closed());
        let breaker = opened();
        let why = breaker.stops(true, at(4)).unwrap();
        assert!(why.contains("no connection"), "{why}");
        assert!(breaker.stops(false, at(1000)).is_some(), "what is no read never probes");
    }

    #[test]
    fn a_refused_credential_opens_it_at_once() {
        let mut breaker = Breaker::default();
        assert!(breaker.heard(&failed("the secret has expired".into(), true), 0, true, at(0)));
        assert!(breaker.is_open());
    }

    #[test]
    fn one_read_probes_after_a_pause_that_grows_to_two_minutes() {
        let mut breaker = opened();
        let mut now = 0;
        for pause in [5, 10, 20, 40, 80, 120, 120] {
            assert!(breaker.leave(true, at(now + pause - 1)).is_err(), "before {pause} s");
            assert!(!breaker.wants_probe(at(now + pause - 1)) && breaker.wants_probe(at(now + pause)));
            now += pause;
            assert!(breaker.leave(false, at(now)).is_err(), "only a read probes");
            let ticket = breaker.leave(true, at(now)).unwrap();
            assert!(breaker.leave(true, at(now)).is_err(), "one at a time");
            assert!(breaker.heard(&down(), ticket, true, at(now)));
        }
        // A probe of which nothing is heard does not shut it for ever.
        now += 120;
        breaker.leave(true, at(now)).unwrap();
        assert!(breaker.leave(true, at(now + 179)).is_err() && breaker.leave(true, at(now + 180)).is_ok());
    }

    #[test]
    fn an_answer_lets_go_one_then_two_for_each_answer() {
        let mut breaker = opened();
        let ticket = breaker.leave(true, at(5)).unwrap();
        assert!(breaker.heard(&Heard::Answered, ticket, true, at(5)));
        assert!(breaker.stops(true, at(5)).is_some(), "what is new queues behind what waits");
        let mut went = 0;
        for round in 0..6 {
            let mut now = 0;
            while breaker.take(at(5)) {
                now += 1;
            }
            assert_eq!(now, 1 << round);
            went += now;
            (0..now).for_each(|_| assert!(breaker.heard(&Heard::Answered, ticket, true, at(5))));
        }
        assert_eq!(went, 63);
        breaker.settle();
        assert!(breaker.is_closed());
        // It has answered: five failures are needed again.
        assert!(!breaker.heard(&down(), ticket, true, at(6)));
    }

    #[test]
    fn without_answers_one_a_second_goes_on_and_a_failure_shuts_it_for_longer() {
        let mut breaker = opened();
        let ticket = breaker.leave(true, at(5)).unwrap();
        assert!(breaker.heard(&Heard::Answered, ticket, false, at(5)));
        assert!(breaker.take(at(5)) && !breaker.take(at(5)) && breaker.take(at(6)) && !breaker.take(at(6)));
        assert!(breaker.heard(&down(), ticket, true, at(6)), "it only seemed to be there");
        assert!(breaker.leave(true, at(6 + 9)).is_err() && breaker.leave(true, at(6 + 10)).is_ok());
    }

    #[test]
    fn what_was_sent_before_it_opened_says_nothing_about_later() {
        let mut breaker = opened();
        let ticket = breaker.leave(true, at(5)).unwrap();
        breaker.heard(&Heard::Answered, ticket, true, at(5));
        for _ in 0..10 {
            assert!(!breaker.heard(&down(), 0, true, at(6)), "a late failure of before");
        }
        assert!(!breaker.is_open());
        let mut breaker = opened();
        assert!(breaker.heard(&Heard::Answered, 0, true, at(1)), "an answer is an answer");
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_clock_set_back_does_not_shut_it_for_ever() {
        let mut breaker = opened();
        assert!(breaker.leave(true, at(-100_000)).is_ok());
    }

    #[test]
    fn outcomes_say_who_is_at_fault() {
        let refused = |status, code: &str| Outcome::Refused {
            status,
            code: code.into(),
            message: "m".into(),
            transient: false,
            retry_after_ms: None,
        };
        let not_sent = |code: &str, transient| Outcome::NotSent { code: code.into(), message: "m".into(), transient };
        let unknown = |status, code: &str| Outcome::Unknown { status, code: code.into(), message: "m".into() };
        for outcome in [refused(429, "throttled"), refused(0, "bad_input"), not_sent("held", true)] {
            assert_eq!(Heard::of(&outcome), Heard::Nothing, "{outcome:?}");
        }
        for outcome in [refused(404, "http_404"), refused(403, "Forbidden"), refused(550, "smtp_550")] {
            assert_eq!(Heard::of(&outcome), Heard::Answered, "{outcome:?}");
        }
        for (outcome, sure) in [
            (refused(401, "Unauthorized"), false),
            (refused(421, "smtp_421"), false),
            (not_sent("connect", true), false),
            (not_sent("token", true), false),
            (not_sent("AADSTS7000222", false), true),
            (not_sent("credentials", false), true),
            (unknown(503, "http_503"), false),
            (unknown(0, "timeout"), false),
            (unknown(0, "reset"), false),
        ] {
            let Heard::Failed { certain, .. } = Heard::of(&outcome) else { panic!("{outcome:?}") };
            assert_eq!(certain, sure, "{outcome:?}");
        }
    }

    proptest! {
        /// Whatever happens in whatever order: while it is open one probe at most is out, and it can always be opened again.
        #[test]
        fn it_never_locks_up(steps in proptest::collection::vec((0u8..6, 0i64..30), 0..200)) {
            let mut breaker = Breaker::default();
            let (mut now, mut tickets) = (0, vec![]);
            for (what, wait) in steps {
                now += wait;
                match what {
                    0 => tickets.extend(breaker.leave(false, at(now)).ok()),
                    1 => tickets.extend(breaker.leave(true, at(now)).ok()),
                    2 => drop(tickets.pop().map(|ticket| breaker.heard(&down(), ticket, true, at(now)))),
                    3 => drop(tickets.pop().map(|ticket| breaker.heard(&Heard::Answered, ticket, true, at(now)))),
                    4 => drop(breaker.take(at(now))),
                    _ => breaker.settle(),
                }
            }
            let far = at(now + 1000);
            let ticket = breaker.leave(true, far);
            prop_assert!(ticket.is_ok());
            breaker.heard(&Heard::Answered, ticket.unwrap(), true, far);
            breaker.settle();
            prop_assert!(breaker.is_closed() && breaker.stops(false, far).is_none());
        }
    }
}
