//! What the tests of triggers share: a desk with a store in memory and flows without steps.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::catalog::{Effect, Type};
use crate::check::CheckedFlow;
use crate::check::program::{Block, Bundle, CheckedTrigger};
use crate::clock::Clock;
use crate::expr::{Binding, Presence, TypeEnv};
use crate::flow::model::Mode;
use crate::journal::RunRow;
use crate::journal::memory::MemoryStore;

pub(crate) struct Desk {
    pub(crate) intake: Arc<Intake>,
    accepted: UnboundedReceiver<Vec<RunRow>>,
}

impl Desk {
    pub(crate) fn new(flows: Vec<CheckedFlow>) -> Self {
        Desk::on(Arc::new(MemoryStore::new()), flows, Clock::from_fn(now))
    }

    /// Over a store that may hold something already, with a clock of its own.
    pub(crate) fn on(store: Arc<MemoryStore>, flows: Vec<CheckedFlow>, clock: Clock) -> Self {
        let (sender, accepted) = tokio::sync::mpsc::unbounded_channel();
        let flows = flows.into_iter().map(|flow| Deployed::of(Arc::new(flow), Mode::Live, now()));
        let gate = Arc::new(Gate::new(0, 1000));
        gate.enter(Phase::Serving);
        let intake = Intake::new(
            store,
            Flows::new(Deployment::new(flows.collect(), Given::default())),
            clock,
            gate,
            Box::new(move |rows| drop(sender.send(rows))),
        );
        Desk { intake: Arc::new(intake), accepted }
    }

    /// The same, with suppression rules at the door.
    pub(crate) fn suppressing(self, suppressor: Arc<suppress::Suppressor>) -> Self {
        let Ok(intake) = Arc::try_unwrap(self.intake) else { unreachable!("nobody else holds it") };
        Desk { intake: Arc::new(intake.suppressing(suppressor)), accepted: self.accepted }
    }

    /// Moves the beginning of all flows.
    pub(crate) fn activate(&self, at: &str) {
        let flows = self.intake.flows.now();
        let at = at.parse().unwrap();
        let flows = flows.iter().map(|it| Deployed::of(it.flow().unwrap(), Mode::Live, at)).collect();
        self.intake.flows.replace(Deployment::new(flows, Given::default()));
    }

    /// Other flows from now on.
    pub(crate) fn deploy(&self, flows: Vec<CheckedFlow>) {
        let flows = flows.into_iter().map(|flow| Deployed::of(Arc::new(flow), Mode::Live, now()));
        self.intake.flows.replace(Deployment::new(flows.collect(), Given::default()));
    }

    /// All rows that were handed over so far.
    pub(crate) fn taken(&mut self) -> Vec<RunRow> {
        std::iter::from_fn(|| self.accepted.try_recv().ok()).flatten().collect()
    }
}

pub(crate) fn now() -> Timestamp {
    "2026-11-20T00:00:00Z".parse().unwrap()
}

pub(crate) fn event(key: &str) -> Event {
    Event {
        kind: "mde.alert.new".into(),
        connection: Some("mde".into()),
        flow: None,
        only: None,
        key: key.into(),
        occurred: now(),
        payload: Value::object([("alert_id", Value::str(key))]),
        inputs: Value::empty(),
    }
}

pub(crate) fn flow(name: &str, kind: &str, connection: &str) -> CheckedFlow {
    CheckedFlow {
        name: name.into(),
        description: "".into(),
        owner: "".into(),
        version: format!("v-{name}").into(),
        trigger: CheckedTrigger {
            kind: kind.into(),
            connection: (!connection.is_empty()).then(|| connection.into()),
            filter: None,
            dedupe: None,
            concurrency: None,
            schedule: None,
            webhook: None,
            split: None,
            ready: None,
            batch: None,
            hunt: None,
            follows: None,
        },
        inputs: vec![],
        mode: None,
        limits: vec![],
        root: Block::default(),
        on_failure: Block::default(),
        finally: Block::default(),
        outputs: vec![],
        output_type: Type::Any,
        called: BTreeMap::new(),
        facts: BTreeSet::new(),
        explained: BTreeSet::new(),
        effect: Effect::Read,
        uses: BTreeSet::new(),
        bundle: Bundle::default(),
    }
}

/// What an expression of a test may name: `trigger`, of any type.
pub(crate) struct Untyped;

impl TypeEnv for Untyped {
    fn lookup(&self, name: &str) -> Option<Binding> {
        (name == "trigger").then_some(Binding { ty: Type::Any, presence: Presence::Always })
    }

    fn names(&self) -> Vec<Arc<str>> {
        vec!["trigger".into()]
    }
}
