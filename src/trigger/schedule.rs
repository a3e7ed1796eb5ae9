//! Schedules: cron in a time zone, or a fixed pace. One run per scheduled instant, whatever restarts in between (S5).
//!
//! A local time that daylight saving skips is run once, right after the gap; one that comes twice is run the first time.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cron::Cron;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Deployed, Deployment, Event, Intake, instant};
use crate::check::program::{Missed, Overlap, Schedule, When};
use crate::journal::{Op, RunQuery, RunStatus, StoreError};
use crate::value::Value;

/// Missed occurrences that `run_all` makes up for at once.
const MAX_MISSED: usize = 100;
/// What a window reaches back before the last one's end: evidence arrives late.
const WINDOW_OVERLAP: SignedDuration = SignedDuration::from_hours(2);
/// The longest sleep, so that a change of the wall clock is noticed.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// How long an occurrence waits for the run before it until it looks again without having been told.
const QUEUED: SignedDuration = SignedDuration::from_secs(60);
/// How often it is looked whether a pause of everything is over.
const PAUSED: Duration = Duration::from_secs(1);
/// After the store failed.
const RETRY: SignedDuration = SignedDuration::from_secs(1);

/// Runs the schedules of all flows until the token is cancelled. When each is due next is kept in memory; the store is read
/// for a flow when it is due, and for all of them when the flows change.
pub async fn run(intake: Arc<Intake>, stop: CancellationToken) {
    let mut flows = intake.flows.watch();
    loop {
        let deployment = Arc::clone(&flows.borrow_and_update());
        let now = intake.clock.now();
        let mut agenda = Agenda::new(&deployment, now);
        loop {
            let now = intake.clock.now();
            if agenda.went_back(now) {
                break;
            }
            // While everything is paused time stands still here: what is due meanwhile was missed, as after a stop.
            let paused = intake.gate.is_paused();
            while let Some((index, deployed)) = if paused { None } else { agenda.pop(now) } {
                let next = match tick(&intake, deployed, now).await {
                    Ok(next) => next,
                    Err(error) => {
                        tracing::warn!(flow = %deployed.name(), %error, "a schedule failed; it is tried again");
                        now.checked_add(RETRY).ok()
                    }
                };
                agenda.push(index, next);
            }
            let pause = agenda.next().map_or(MAX_SLEEP, |at| intake.clock.until(at));
            let pause = if paused { PAUSED } else { pause };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = flows.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = intake.queue.wake.notified() => agenda.bring_forward(&intake.queue.take(), intake.clock.now()),
                () = tokio::time::sleep(pause.clamp(Duration::from_millis(50), MAX_SLEEP)) => {}
            }
        }
    }
}

/// The flows of which an occurrence waits for the end of the run before it. Asked at the end of every run, so it is cheap
/// where nothing waits.
#[derive(Debug, Default)]
pub struct Queue {
    count: AtomicUsize,
    flows: Mutex<BTreeSet<Arc<str>>>,
    ended: Mutex<BTreeSet<Arc<str>>>,
    wake: Notify,
}

impl Queue {
    fn wait(&self, flow: &Arc<str>) {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        flows.insert(Arc::clone(flow));
        self.count.store(flows.len(), Ordering::Release);
    }

    /// A run of a flow has ended.
    pub fn ended(&self, flow: &str) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(flow) = flows.take(flow) else { return };
        self.count.store(flows.len(), Ordering::Release);
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(flow);
        self.wake.notify_one();
    }

    fn take(&self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// When each flow with a schedule is to be looked at next.
struct Agenda<'a> {
    flows: Vec<&'a Deployed>,
    due: BinaryHeap<Reverse<(Timestamp, usize)>>,
    /// The latest time that it was asked at.
    seen: Timestamp,
}

impl<'a> Agenda<'a> {
    /// Everything is due at once: what was missed is known to the store alone.
    fn new(deployment: &'a Deployment, now: Timestamp) -> Self {
        let flows: Vec<_> = deployment.iter().filter(|deployed| deployed.card.schedule.is_some()).collect();
        let due = (0..flows.len()).map(|index| Reverse((now, index))).collect();
        Agenda { flows, due, seen: now }
    }

    /// Whether the wall clock was set back: what was due later may be due sooner now.
    fn went_back(&mut self, now: Timestamp) -> bool {
        let back = now < self.seen;
        self.seen = now;
        back
    }

    fn pop(&mut self, now: Timestamp) -> Option<(usize, &'a Deployed)> {
        let Reverse((at, index)) = *self.due.peek()?;
        if at > now {
            return None;
        }
        self.due.pop();
        self.flows.get(index).map(|deployed| (index, *deployed))
    }

    /// Looks at these flows now, and at the others when they are due.
    fn bring_forward(&mut self, names: &BTreeSet<Arc<str>>, now: Timestamp) {
        let named = self.flows.iter().enumerate().filter(|(_, deployed)| names.contains(deployed.name()));
        let named: BTreeSet<usize> = named.map(|(index, _)| index).collect();
        self.due.retain(|Reverse((_, index))| !named.contains(index));
        self.due.extend(named.into_iter().map(|index| Reverse((now, index))));
    }

    /// A flow that is never due again is not looked at before the flows change.
    fn push(&mut self, index: usize, next: Option<Timestamp>) {
        self.due.extend(next.map(|next| Reverse((next, index))));
    }

    fn next(&self) -> Option<Timestamp> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    #[error("reading the schedule: {0}")]
    Schedule(String),
    #[error("storing an occurrence: {0}")]
    Store(#[from] StoreError),
}

/// Offers what is due for one flow; returns when it is due next.
async fn tick(intake: &Intake, deployed: &Deployed, now: Timestamp) -> Result<Option<Timestamp>, ScheduleError> {
    let (flow, Some(schedule)) = (deployed.name(), &deployed.card.schedule) else { return Ok(None) };
    let clock = Occurrences::new(schedule)?;
    let stored = instant(&*intake.store, &format!("schedule/{flow}/last"))?;
    // A flow that was away makes up for nothing of that time.
    let mut last = stored.map_or(deployed.activated, |last| last.max(deployed.activated));
    if last > now {
        // A clock that was ahead once: without this, nothing would be due until that time has come.
        intake.offer(vec![], vec![put(flow, now)]).await?;
        last = now;
    }
    let (due, skipped_to) = due(&clock, schedule.missed, last, now)?;
    // What is left out is left out for good.
    let passed = skipped_to.filter(|_| due.is_empty());
    for at in &due {
        if schedule.overlap != Overlap::Allow && going(intake, flow)? {
            match schedule.overlap {
                Overlap::Skip => {
                    tracing::warn!(%flow, %at, "the last run is still going: this occurrence is skipped");
                    let put = put(flow, *at);
                    intake.offer(vec![], vec![put]).await?;
                    continue;
                }
                // It waits here, on disk by its absence, until the run before it has ended, and looks again when it is told of
                // that end. One that it could not be told of, since it began to wait only then, shows at once.
                _ => {
                    intake.queue.wait(flow);
                    if going(intake, flow)? {
                        return Ok(now.checked_add(QUEUED).ok());
                    }
                }
            }
        }
        let event = occurrence(intake, flow, *at, deployed.activated)?;
        intake.offer(vec![event], vec![put(flow, *at)]).await?;
    }
    if let Some(at) = passed {
        intake.offer(vec![], vec![put(flow, at)]).await?;
    }
    clock.after(now)
}

fn put(flow: &str, at: Timestamp) -> Op {
    Op::Put { name: format!("schedule/{flow}/last"), body: at.to_string().into_bytes() }
}

fn going(intake: &Intake, flow: &str) -> Result<bool, StoreError> {
    // Not the newest run alone: one that a person started, or a quick one, may have ended while an older one still goes.
    for status in RunStatus::ALL.into_iter().filter(|status| !status.is_final()) {
        let query = RunQuery { flow: Some(flow.to_owned()), status: Some(status), limit: 1, ..RunQuery::default() };
        if !intake.store.runs(&query)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn occurrence(intake: &Intake, flow: &Arc<str>, at: Timestamp, activated: Timestamp) -> Result<Event, StoreError> {
    let query =
        RunQuery { flow: Some(flow.to_string()), status: Some(RunStatus::Succeeded), limit: 1, ..RunQuery::default() };
    let last = intake.store.runs(&query)?.first().and_then(|row| row.payload.get("window_end")?.as_datetime());
    let from = last.unwrap_or(activated).min(at);
    let start = from.checked_sub(WINDOW_OVERLAP).unwrap_or(from);
    let payload = Value::object([
        ("scheduled", Value::Datetime(at)),
        ("window_start", Value::Datetime(start)),
        ("window_end", Value::Datetime(at)),
    ]);
    Ok(Event {
        kind: "schedule".into(),
        connection: None,
        flow: Some(Arc::clone(flow)),
        only: None,
        key: format!("schedule:{at}"),
        occurred: at,
        payload,
        inputs: Value::empty(),
    })
}

/// The occurrences after `last` up to now that are to run, and up to where time has passed.
fn due(
    clock: &Occurrences,
    missed: Missed,
    last: Timestamp,
    now: Timestamp,
) -> Result<(Vec<Timestamp>, Option<Timestamp>), ScheduleError> {
    let mut due = vec![];
    let mut at = last;
    while let Some(next) = clock.after(at)? {
        if next > now {
            break;
        }
        due.push(next);
        at = next;
        // Only the newest ones can be wanted; a pace of a second over a year of absence must not fill memory.
        if due.len() > MAX_MISSED * 2 {
            due.drain(..MAX_MISSED);
            if let Some(near) = clock.near(now) {
                at = at.max(near);
            }
        }
    }
    let passed = due.last().copied();
    let on_time = |at: &Timestamp| now.duration_since(*at) <= SignedDuration::from_mins(1);
    let due = match missed {
        Missed::RunAll => due.split_off(due.len().saturating_sub(MAX_MISSED)),
        Missed::RunOnce => due.pop().into_iter().collect(),
        Missed::Skip => due.pop().into_iter().filter(on_time).collect(),
    };
    Ok((due, passed))
}

/// When a schedule is due.
enum Occurrences {
    Cron(Box<Cron>, TimeZone),
    Every(SignedDuration),
}

impl Occurrences {
    fn new(schedule: &Schedule) -> Result<Self, ScheduleError> {
        match &schedule.when {
            When::Cron { pattern, timezone } => {
                let cron = pattern.parse::<Cron>().map_err(|error| ScheduleError::Schedule(error.to_string()))?;
                let zone = TimeZone::get(timezone).map_err(|error| ScheduleError::Schedule(error.to_string()))?;
                Ok(Occurrences::Cron(Box::new(cron), zone))
            }
            When::Every(pace) => {
                let pace = SignedDuration::try_from(*pace).unwrap_or(SignedDuration::MAX);
                Ok(Occurrences::Every(pace.max(SignedDuration::from_secs(1))))
            }
        }
    }

    /// The first occurrence after an instant; `None` for a pattern that never comes (31 February).
    fn after(&self, at: Timestamp) -> Result<Option<Timestamp>, ScheduleError> {
        match self {
            Occurrences::Cron(cron, zone) => {
                let zoned = at.to_zoned(zone.clone());
                let next = cron.find_next_occurrence(&zoned, false).ok().map(|next| next.timestamp());
                Ok(next.filter(|next| *next > at))
            }
            // Multiples of the pace since the epoch, so that a restart does not move them.
            Occurrences::Every(pace) => {
                let step = pace.as_secs().max(1);
                let next = at.as_second().div_euclid(step).saturating_add(1).saturating_mul(step);
                Ok(Timestamp::from_second(next).ok())
            }
        }
    }

    /// An instant shortly before now from which a long absence is followed on.
    fn near(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Occurrences::Cron(..) => now.checked_sub(SignedDuration::from_hours(24)).ok(),
            Occurrences::Every(pace) => now.checked_sub(pace.checked_mul(i32::try_from(MAX_MISSED).ok()?)?).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, flow};
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(pattern: &str, zone: &str) -> Occurrences {
        let when = When::Cron { pattern: pattern.into(), timezone: zone.into() };
        Occurrences::new(&Schedule { when, missed: Missed::RunOnce, overlap: Overlap::Skip }).unwrap()
    }

    /// Due at every quarter of an hour.
    fn quarterly() -> crate::check::CheckedFlow {
        let mut hunt = flow("hunt", "schedule", "");
        let when = When::Every(Duration::from_secs(900));
        hunt.trigger.schedule = Some(Schedule { when, missed: Missed::RunOnce, overlap: Overlap::Skip });
        hunt
    }

    fn next(clock: &Occurrences, from: &str, count: usize) -> Vec<String> {
        let mut now = at(from);
        (0..count)
            .map(|_| {
                now = clock.after(now).unwrap().unwrap();
                now.to_string()
            })
            .collect()
    }

    #[test]
    fn a_local_time_runs_once_through_daylight_saving() {
        // Paris springs forward on 2026-03-29 at 02:00 and falls back on 2026-10-25 at 03:00.
        let spring = next(&cron("30 2 * * *", "Europe/Paris"), "2026-03-28T12:00:00Z", 2);
        assert_eq!(spring, ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        let autumn = next(&cron("30 2 * * *", "Europe/Paris"), "2026-10-24T12:00:00Z", 2);
        assert_eq!(autumn, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        assert_eq!(next(&cron("0 9 * * 1", "UTC"), "2026-11-20T00:00:00Z", 1), ["2026-11-23T09:00:00Z"]);
        assert_eq!(cron("0 0 31 2 *", "UTC").after(at("2026-11-20T00:00:00Z")).unwrap(), None);
    }

    /// The local times of a month at which a pattern runs, with the days on which each came.
    fn each_day_once(pattern: &str, zone: &str, from: &str, days: usize) {
        let clock = cron(pattern, zone);
        let tz = TimeZone::get(zone).unwrap();
        let mut now = at(from);
        let mut last = now.to_zoned(tz.clone()).date();
        for _ in 0..days {
            now = clock.after(now).unwrap().unwrap();
            let day = now.to_zoned(tz.clone()).date();
            assert_eq!(day, last.tomorrow().unwrap(), "{pattern} in {zone} at {now}");
            last = day;
        }
    }

    #[test]
    fn every_local_day_has_its_occurrence_in_zones_that_change_by_an_hour_by_half_an_hour_and_for_ramadan() {
        // Each from a noon before a change to one after the next, at times within the hour that is skipped or comes twice.
        for zone in ["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"] {
            for pattern in ["0 2 * * *", "15 2 * * *", "30 1 * * *", "45 1 * * *", "0 3 * * *", "30 2 * * *"] {
                each_day_once(pattern, zone, "2025-12-31T12:00:00Z", 700);
            }
        }
        // Lord Howe falls back by half an hour at 02:00 on 2026-04-05: 01:45 comes twice and runs the first time.
        let autumn = next(&cron("45 1 * * *", "Australia/Lord_Howe"), "2026-04-04T00:00:00Z", 2);
        assert_eq!(autumn, ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]);
        // It springs forward at 02:00 on 2026-10-04: 02:15 does not exist and runs after the gap.
        let spring = next(&cron("15 2 * * *", "Australia/Lord_Howe"), "2026-10-03T00:00:00Z", 2);
        assert_eq!(spring, ["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"]);
        // New York falls back at 02:00 on 2026-11-01.
        let autumn = next(&cron("30 1 * * *", "America/New_York"), "2026-10-31T12:00:00Z", 2);
        assert_eq!(autumn, ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]);
    }

    #[test]
    fn missed_occurrences_follow_the_flow() {
        let clock = Occurrences::Every(SignedDuration::from_mins(15));
        let run = |missed| due(&clock, missed, at("2026-11-20T00:00:00Z"), at("2026-11-20T01:10:00Z")).unwrap();
        assert_eq!(run(Missed::RunAll).0.len(), 4);
        assert_eq!(run(Missed::RunOnce).0, [at("2026-11-20T01:00:00Z")]);
        assert_eq!(run(Missed::Skip), (vec![], Some(at("2026-11-20T01:00:00Z"))));
        let year = due(&clock, Missed::RunAll, at("2025-11-20T00:00:00Z"), at("2026-11-20T01:10:00Z")).unwrap();
        assert_eq!(year.0.len(), MAX_MISSED);
    }

    #[tokio::test]
    async fn an_occurrence_starts_one_run_with_its_window() {
        let mut desk = Desk::new(vec![quarterly()]);
        let deployed = desk.intake.flows.find("hunt").unwrap();
        let now = at("2026-11-20T00:16:00Z");
        tick(&desk.intake, &deployed, now).await.unwrap();
        tick(&desk.intake, &deployed, now).await.unwrap();
        let rows = desk.taken();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].key, "schedule:2026-11-20T00:15:00Z");
        assert_eq!(rows[0].payload.get("window_start"), Some(&Value::Datetime(at("2026-11-19T22:00:00Z"))));
        // Still going: the next one is skipped, and not run later.
        tick(&desk.intake, &deployed, at("2026-11-20T00:31:00Z")).await.unwrap();
        assert_eq!(desk.taken(), []);
        assert_eq!(instant(&*desk.intake.store, "schedule/hunt/last").unwrap(), Some(at("2026-11-20T00:30:00Z")));
        // A newer run that has ended does not hide the one that goes on.
        let by_hand = Event { key: "manual:1".into(), ..occurrence(&desk.intake, &"hunt".into(), now, now).unwrap() };
        desk.intake.offer(vec![by_hand], vec![]).await.unwrap();
        let newest = desk.taken().pop().unwrap();
        let ended = Op::Finish {
            run: newest.no,
            status: RunStatus::Succeeded,
            reason: None,
            ended: now,
            effects: std::collections::BTreeMap::new(),
        };
        desk.intake.offer(vec![], vec![ended]).await.unwrap();
        assert!(going(&desk.intake, "hunt").unwrap());
    }

    #[test]
    fn a_flow_is_looked_at_when_it_is_due_and_all_are_when_the_clock_went_back() {
        let now = at("2026-11-20T00:00:00Z");
        let flows = ["a", "b"].map(|name| {
            let flow = crate::check::CheckedFlow { name: name.into(), ..quarterly() };
            Deployed::of(Arc::new(flow), crate::flow::model::Mode::Live, now)
        });
        let deployment = Deployment::new(flows.to_vec(), crate::trigger::Given::default());
        let mut agenda = Agenda::new(&deployment, now);
        let (a, first) = agenda.pop(now).unwrap();
        let (b, second) = agenda.pop(now).unwrap();
        assert_eq!([&**first.name(), &**second.name()], ["a", "b"]);
        assert!(agenda.pop(now).is_none() && agenda.next().is_none());
        agenda.push(a, Some(at("2026-11-20T00:30:00Z")));
        agenda.push(b, Some(at("2026-11-20T00:15:00Z")));
        assert_eq!(agenda.next(), Some(at("2026-11-20T00:15:00Z")));
        assert_eq!(agenda.pop(at("2026-11-20T00:20:00Z")).map(|(index, _)| index), Some(b));
        assert!(agenda.pop(at("2026-11-20T00:20:00Z")).is_none());
        assert!(!agenda.went_back(at("2026-11-20T00:20:00Z")));
        assert!(agenda.went_back(at("2026-11-19T00:20:00Z")));
    }

    #[tokio::test]
    async fn a_queued_occurrence_runs_when_it_is_told_that_the_run_before_has_ended() {
        let mut hunt = quarterly();
        if let Some(schedule) = &mut hunt.trigger.schedule {
            schedule.overlap = Overlap::Queue;
        }
        let mut desk = Desk::new(vec![hunt]);
        let deployed = desk.intake.flows.find("hunt").unwrap();
        tick(&desk.intake, &deployed, at("2026-11-20T00:16:00Z")).await.unwrap();
        let first = desk.taken().pop().unwrap();
        let later = at("2026-11-20T00:31:00Z");
        // Nobody asks the store again each second.
        assert_eq!(tick(&desk.intake, &deployed, later).await.unwrap(), later.checked_add(QUEUED).ok());
        assert_eq!(desk.taken(), []);
        desk.intake.queue.ended("another");
        assert!(desk.intake.queue.take().is_empty());
        let ended = Op::Finish {
            run: first.no,
            status: RunStatus::Succeeded,
            reason: None,
            ended: later,
            effects: std::collections::BTreeMap::new(),
        };
        desk.intake.offer(vec![], vec![ended]).await.unwrap();
        desk.intake.queue.ended("hunt");
        let told = desk.intake.queue.take();
        desk.intake.queue.wake.notified().await;
        let flows = desk.intake.flows.now();
        let mut agenda = Agenda::new(&flows, later);
        while agenda.pop(later).is_some() {}
        agenda.push(0, later.checked_add(QUEUED).ok());
        agenda.bring_forward(&told, later);
        assert!(agenda.pop(later).is_some() && agenda.pop(later).is_none());
        tick(&desk.intake, &deployed, later).await.unwrap();
        assert_eq!(desk.taken().pop().unwrap().key, "schedule:2026-11-20T00:30:00Z");
    }

    #[tokio::test]
    async fn an_occurrence_that_ran_while_the_clock_was_ahead_does_not_run_again() {
        let mut desk = Desk::new(vec![quarterly()]);
        let deployed = desk.intake.flows.find("hunt").unwrap();
        // Forward by two hours: what lies between is missed and made up for once. Back: it goes on from there.
        for now in ["2026-11-20T00:16:00Z", "2026-11-20T02:20:00Z", "2026-11-20T00:17:00Z", "2026-11-20T00:31:00Z"] {
            tick(&desk.intake, &deployed, at(now)).await.unwrap();
            for row in desk.taken() {
                let ended = Op::Finish {
                    run: row.no,
                    status: RunStatus::Succeeded,
                    reason: None,
                    ended: at(now),
                    effects: std::collections::BTreeMap::new(),
                };
                desk.intake.offer(vec![], vec![ended]).await.unwrap();
            }
        }
        let keys: Vec<_> =
            desk.intake.store.runs(&RunQuery::default()).unwrap().into_iter().map(|row| row.key).collect();
        let wanted = ["00:30:00Z", "02:15:00Z", "00:15:00Z"].map(|time| format!("schedule:2026-11-20T{time}"));
        assert_eq!(keys, wanted);
        tick(&desk.intake, &deployed, at("2026-11-20T02:16:00Z")).await.unwrap();
        assert_eq!(desk.taken(), [], "02:15 has run");
    }

    #[tokio::test]
    async fn a_clock_that_was_ahead_does_not_silence_a_schedule() {
        let mut desk = Desk::new(vec![quarterly()]);
        let deployed = desk.intake.flows.find("hunt").unwrap();
        desk.intake.offer(vec![], vec![put("hunt", at("2027-11-20T00:00:00Z"))]).await.unwrap();
        tick(&desk.intake, &deployed, at("2026-11-20T00:14:00Z")).await.unwrap();
        tick(&desk.intake, &deployed, at("2026-11-20T00:16:00Z")).await.unwrap();
        assert_eq!(desk.taken().len(), 1);
    }
}
