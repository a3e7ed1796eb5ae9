//! The flows of now: found by name, and by what starts them. A flow is compiled when it is first needed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::Event;
use crate::catalog::ConnectionKind;
use crate::check::program::CheckedTrigger;
use crate::check::{Card, CheckedFlow};
use crate::flow::model::Mode;

/// Gives the compiled form of a flow, checked in full. The error is a sentence.
pub trait Compile: Send + Sync {
    fn compile(&self, card: &Card) -> Result<Arc<CheckedFlow>, String>;
}

/// A flow that starts runs.
#[derive(Clone)]
pub struct Deployed {
    pub card: Arc<Card>,
    /// The effective mode: what the installation gives, tightened by the flow's file.
    pub mode: Mode,
    /// Events of before start nothing.
    pub activated: Timestamp,
    compile: Arc<dyn Compile>,
    /// Kept once it was needed: every event is judged by it, while the steps are needed by the runs alone.
    trigger: Arc<OnceLock<Arc<CheckedTrigger>>>,
}

impl Deployed {
    pub fn new(card: Card, mode: Mode, activated: Timestamp, compile: Arc<dyn Compile>) -> Self {
        Deployed { card: Arc::new(card), mode, activated, compile, trigger: Arc::default() }
    }

    /// A flow that is compiled already.
    pub fn of(flow: Arc<CheckedFlow>, mode: Mode, activated: Timestamp) -> Self {
        Deployed::new(Card::of(&flow, 0), mode, activated, Arc::new(Compiled(flow)))
    }

    pub fn name(&self) -> &Arc<str> {
        &self.card.name
    }

    /// The compiled flow. The error is a sentence: the flow must not run.
    pub fn flow(&self) -> Result<Arc<CheckedFlow>, String> {
        self.compile.compile(&self.card)
    }

    pub fn trigger(&self) -> Result<Arc<CheckedTrigger>, String> {
        if let Some(trigger) = self.trigger.get() {
            return Ok(Arc::clone(trigger));
        }
        let trigger = Arc::new(self.flow()?.trigger.clone());
        Ok(Arc::clone(self.trigger.get_or_init(|| trigger)))
    }
}

impl std::fmt::Debug for Deployed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deployed").field("card", &self.card).field("mode", &self.mode).finish_non_exhaustive()
    }
}

struct Compiled(Arc<CheckedFlow>);

impl Compile for Compiled {
    fn compile(&self, _: &Card) -> Result<Arc<CheckedFlow>, String> {
        Ok(Arc::clone(&self.0))
    }
}

/// What the configuration says to the flows.
#[derive(Clone, Debug)]
pub struct Given {
    pub mode: Mode,
    /// The mode of single flows, over `mode`.
    pub modes: BTreeMap<String, Mode>,
    /// Poll intervals by trigger type, over the catalogue's defaults.
    pub poll: BTreeMap<String, Duration>,
    pub connections: BTreeMap<Arc<str>, ConnectionKind>,
    pub webhooks: Vec<Arc<str>>,
}

impl Default for Given {
    fn default() -> Self {
        Given {
            mode: Mode::Shadow,
            modes: BTreeMap::new(),
            poll: BTreeMap::new(),
            connections: BTreeMap::new(),
            webhooks: vec![],
        }
    }
}

impl Given {
    /// How far a flow's effects go by the installation's word alone.
    pub fn mode(&self, flow: &str) -> Mode {
        self.modes.get(flow).copied().unwrap_or(self.mode)
    }
}

/// What an event comes from: the trigger type, and the connection or the webhook.
type Origin = (Arc<str>, Option<Arc<str>>);

/// The flows of one moment; a reload makes another.
#[derive(Debug, Default)]
pub struct Deployment {
    pub given: Given,
    flows: Vec<Deployed>,
    by_name: HashMap<Arc<str>, usize>,
    by_origin: HashMap<Origin, Vec<usize>>,
    /// The flows that are started by the ends of another one, by that one's name.
    by_followed: HashMap<Arc<str>, Vec<usize>>,
}

impl Deployment {
    pub fn new(flows: Vec<Deployed>, given: Given) -> Self {
        let mut by_name = HashMap::with_capacity(flows.len());
        let mut by_origin: HashMap<Origin, Vec<usize>> = HashMap::new();
        let mut by_followed: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
        for (index, deployed) in flows.iter().enumerate() {
            let card = &deployed.card;
            by_name.insert(Arc::clone(&card.name), index);
            by_origin.entry((Arc::clone(&card.trigger), card.source.clone())).or_default().push(index);
            if let Some(follows) = &card.follows {
                by_followed.entry(Arc::clone(&follows.flow)).or_default().push(index);
            }
        }
        Deployment { given, flows, by_name, by_origin, by_followed }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Deployed> {
        self.flows.iter()
    }

    pub fn find(&self, name: &str) -> Option<&Deployed> {
        self.by_name.get(name).and_then(|index| self.flows.get(*index))
    }

    /// The flows that an event is for. Their filters are still to be asked.
    pub fn wanting<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = &'a Deployed> {
        let named = event.flow.as_ref().or(event.only.as_ref()).and_then(|name| self.find(name));
        let many = match (&event.flow, &event.only) {
            (None, None) => self.from(&event.kind, event.connection.as_ref()),
            _ => &[],
        };
        let many = many.iter().filter_map(|index| self.flows.get(*index));
        named.into_iter().chain(many).filter(move |deployed| wants(deployed, event))
    }

    /// The flows that follow a flow, whatever its run ended as.
    pub fn followers<'a>(&'a self, flow: &str) -> impl Iterator<Item = &'a Deployed> {
        let followers = self.by_followed.get(flow).map_or(&[][..], Vec::as_slice);
        followers.iter().filter_map(|index| self.flows.get(*index))
    }

    /// The flows that listen to a webhook.
    pub fn hooked<'a>(&'a self, hook: &Arc<str>) -> impl Iterator<Item = &'a Deployed> {
        self.from(&"webhook".into(), Some(hook)).iter().filter_map(|index| self.flows.get(*index))
    }

    /// The trigger types and connections that are polled for these flows.
    pub fn polled(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        let one = |index: &usize| self.flows.get(*index).is_some_and(|deployed| !deployed.card.hook);
        let used = self.by_origin.iter().filter(move |(_, flows)| flows.first().is_some_and(one));
        used.filter_map(|((kind, connection), _)| Some((kind, connection.as_ref()?)))
    }

    /// When the first of the flows began that a trigger type and a connection are polled for.
    pub fn activated(&self, kind: &Arc<str>, connection: &Arc<str>) -> Option<Timestamp> {
        let flows = self.from(kind, Some(connection)).iter().filter_map(|index| self.flows.get(*index));
        flows.map(|deployed| deployed.activated).min()
    }

    fn from(&self, kind: &Arc<str>, source: Option<&Arc<str>>) -> &[usize] {
        self.by_origin.get(&(Arc::clone(kind), source.cloned())).map_or(&[], Vec::as_slice)
    }
}

/// A person who names a flow has decided; all else must fit its trigger and have happened since it began.
fn wants(deployed: &Deployed, event: &Event) -> bool {
    let card = &deployed.card;
    event.flow.is_some()
        || (card.trigger == event.kind && card.source == event.connection && event.occurred >= deployed.activated)
}

/// The flows of now. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Flows(Arc<watch::Sender<Arc<Deployment>>>);

impl Default for Flows {
    fn default() -> Self {
        Flows::new(Deployment::default())
    }
}

impl Flows {
    pub fn new(deployment: Deployment) -> Self {
        Flows(Arc::new(watch::Sender::new(Arc::new(deployment))))
    }

    pub fn now(&self) -> Arc<Deployment> {
        Arc::clone(&self.0.borrow())
    }

    /// Takes another deployment; whoever watches hears of it.
    pub fn replace(&self, deployment: Deployment) {
        self.0.send_replace(Arc::new(deployment));
    }

    pub fn find(&self, name: &str) -> Option<Deployed> {
        self.now().find(name).cloned()
    }

    /// Hears of every later deployment.
    pub fn watch(&self) -> watch::Receiver<Arc<Deployment>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{event, flow, now};
    use super::*;

    fn deployment(flows: Vec<CheckedFlow>) -> Deployment {
        let flows = flows.into_iter().map(|flow| Deployed::of(Arc::new(flow), Mode::Live, now()));
        Deployment::new(flows.collect(), Given::default())
    }

    fn names(deployment: &Deployment, event: &Event) -> Vec<String> {
        deployment.wanting(event).map(|deployed| deployed.name().to_string()).collect()
    }

    #[test]
    fn an_event_finds_the_flows_of_its_origin_or_the_one_that_it_names() {
        let flows = [("a", "mde.alert.new", "mde"), ("b", "mde.alert.new", "other"), ("c", "xdr.alert.new", "mde")];
        let mut flows: Vec<_> = flows.iter().map(|(name, kind, connection)| flow(name, kind, connection)).collect();
        let mut hooked = flow("d", "webhook", "");
        hooked.trigger.webhook = Some(("mde".into(), vec![]));
        flows.push(hooked);
        let deployment = deployment(flows);
        assert_eq!(names(&deployment, &event("mde:1")), ["a"]);
        let named = Event { flow: Some("c".into()), ..event("mde:1") };
        assert_eq!(names(&deployment, &named), ["c"], "a person chose it");
        let only = |name: &str| Event { only: Some(name.into()), ..event("mde:1") };
        assert_eq!(names(&deployment, &only("a")), ["a"]);
        assert_eq!(names(&deployment, &only("c")), [] as [&str; 0], "its trigger is another one");
        let hook = Event { kind: "webhook".into(), ..event("mde:1") };
        assert_eq!(names(&deployment, &hook), ["d"]);
        let mut polled: Vec<_> = deployment.polled().map(|(kind, source)| format!("{kind} {source}")).collect();
        polled.sort();
        assert_eq!(polled, ["mde.alert.new mde", "mde.alert.new other", "xdr.alert.new mde"]);
        let early = Event { occurred: "2026-11-19T23:59:59Z".parse().unwrap(), ..event("mde:1") };
        assert_eq!(names(&deployment, &early), [] as [&str; 0]);
    }
}
