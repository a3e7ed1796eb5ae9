//! Events that could not be judged for a flow: dead letters, kept with all that it takes to offer them again.
//!
//! One flow's fault is that flow's: for the others the event counts as ever.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::offer::{self, Decided};
use super::{Event, Intake};
use crate::expr::Trace;
use crate::id::RunId;
use crate::journal::{self, Answer, Letter, Op, StoreError};
use crate::value::Value;

/// The event behind a dead letter, and why it is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Undelivered {
    pub trigger: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Arc<str>>,
    /// Of the event, whole; that of the letter may be its hash.
    pub key: String,
    pub occurred: Timestamp,
    pub payload: Value,
    pub inputs: Value,
    pub error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
}

/// What became of an event that was offered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    Started(RunId),
    /// It is on disk, and starts a run with others.
    Gathered,
    /// Its key had started a run before.
    Duplicate,
    /// `where` is false.
    Filtered,
}

impl Undelivered {
    pub(super) fn new(event: &Event, error: String, trace: Option<Trace>) -> Self {
        Undelivered {
            trigger: Arc::clone(&event.kind),
            connection: event.connection.clone(),
            key: event.key.clone(),
            occurred: event.occurred,
            payload: event.payload.clone(),
            inputs: event.inputs.clone(),
            error,
            trace,
        }
    }

    /// Reads a letter's body; the error is a sentence.
    pub fn read(letter: &Letter) -> Result<Self, String> {
        serde_json::from_slice(&letter.body).map_err(|error| format!("reading the dead letter {}: {error}", letter.key))
    }
}

impl Intake {
    /// Offers the event of a dead letter to its flow as that is now; `audit` is written with what comes of it. The letter
    /// goes unless the event still can't be judged. The error is a sentence.
    pub async fn again(&self, letter: &Letter, audit: Op) -> Result<Again, String> {
        let Undelivered { trigger, connection, key, occurred, payload, inputs, .. } = Undelivered::read(letter)?;
        let only = Some(Arc::from(letter.flow.as_str()));
        let event = Event { kind: trigger, connection, flow: None, only, key, occurred, payload, inputs };
        let flows = self.flows.now();
        let deployed = flows.wanting(&event).next().ok_or_else(|| {
            format!("no flow {} takes this event any more; `watchfloor dlq drop` ends it", letter.flow)
        })?;
        let done = Op::LetterDone { flow: letter.flow.clone(), key: letter.key.clone(), dropped: false };
        // A part of an event carries its item, and is not split again.
        let now = self.clock.now();
        let part = event.payload.get("item").is_some();
        let decided =
            if part { vec![offer::judge(deployed, &event, now)?] } else { offer::decide(deployed, &event, now)? };
        let judged = decided.iter().any(|it| !matches!(it, Decided::Letter { .. }));
        if let (Some(Decided::Letter { error, .. }), false) = (decided.first(), judged) {
            return Err(format!("it still can't be judged: {error}"));
        }
        let filtered = decided.iter().all(|it| matches!(it, Decided::Skip(_)));
        let offered = self.start(deployed, decided, vec![done, audit]).await.map_err(|error| error.to_string())?;
        Ok(match offered.started.into_iter().next() {
            Some(run) => Again::Started(run),
            None if offered.gathered > 0 => Again::Gathered,
            None if filtered => Again::Filtered,
            None => Again::Duplicate,
        })
    }

    /// Takes a dead letter off the list for good: the same event offered once more does not bring it back.
    pub async fn drop_letter(&self, letter: &Letter, audit: Op) -> Result<(), StoreError> {
        let done = Op::LetterDone { flow: letter.flow.clone(), key: letter.key.clone(), dropped: true };
        journal::commit(&*self.store, vec![done, audit]).await.map(|_: Vec<Answer>| ())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, Untyped, event, flow};
    use super::*;
    use crate::check::CheckedFlow;
    use crate::expr::Cond;
    use crate::journal::LetterQuery;

    fn audit() -> Op {
        Op::Audit { at: super::super::testing::now(), body: b"{}".to_vec() }
    }

    /// Judges an event by a member that it may lack.
    fn picky(name: &str, condition: &str) -> CheckedFlow {
        let mut picky = flow(name, "mde.alert.new", "mde");
        picky.trigger.filter = Some(Cond::compile(condition, &Untyped).unwrap().0);
        picky
    }

    #[tokio::test]
    async fn an_event_that_one_flow_cannot_judge_is_a_dead_letter_of_that_flow_alone() {
        let mut desk = Desk::new(vec![flow("plain", "mde.alert.new", "mde"), picky("picky", "trigger.score > 3")]);
        let offered = desk.intake.offer(vec![event("mde:1")], vec![]).await.unwrap();
        assert_eq!((offered.started.len(), offered.skipped), (1, 1));
        assert_eq!(&*desk.taken()[0].flow, "plain");
        let letters = desk.intake.store.letters(&LetterQuery::default()).unwrap();
        let letter = &letters[0];
        assert_eq!((letters.len(), letter.flow.as_str(), letter.key.as_str()), (1, "picky", "mde:1"));
        let kept = Undelivered::read(letter).unwrap();
        assert_eq!(kept.payload, event("mde:1").payload);
        assert!(kept.error.starts_with("where: ") && kept.trace.is_some(), "{kept:?}");
        // As the flow is now, it still can't be judged.
        let still = desk.intake.again(letter, audit()).await.unwrap_err();
        assert!(still.contains("still can't be judged"), "{still}");
        // Mended, it starts one run, and no second one.
        desk.deploy(vec![picky("picky", "trigger.alert_id == 'mde:1'")]);
        assert!(matches!(desk.intake.again(letter, audit()).await, Ok(Again::Started(_))));
        assert_eq!(desk.intake.again(letter, audit()).await, Ok(Again::Duplicate));
        assert_eq!(desk.taken().len(), 1);
        assert!(desk.intake.store.letters(&LetterQuery::default()).unwrap().is_empty());
        desk.deploy(vec![]);
        assert!(desk.intake.again(letter, audit()).await.unwrap_err().contains("dlq drop"));
    }

    #[tokio::test]
    async fn what_a_person_dropped_does_not_come_back_with_the_next_poll() {
        let desk = Desk::new(vec![picky("picky", "trigger.score > 3")]);
        desk.intake.offer(vec![event("mde:1"), event("mde:2")], vec![]).await.unwrap();
        let letters = || desk.intake.store.letters(&LetterQuery::default()).unwrap();
        let first = letters().into_iter().find(|letter| letter.key == "mde:1").unwrap();
        desk.intake.drop_letter(&first, audit()).await.unwrap();
        desk.intake.offer(vec![event("mde:1"), event("mde:2")], vec![]).await.unwrap();
        assert_eq!(letters().iter().map(|letter| letter.key.as_str()).collect::<Vec<_>>(), ["mde:2"]);
    }
}
