//! A second host of the engine, without our journal: a keyed object that takes a message, applies it, keeps its state
//! as text, and turns each command into a message. Time is virtual: it moves only when nothing else is left.
//!
//! Between any two messages nothing of a run is in memory but that text, so every message is also a crash test.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use watchfloor::catalog::{Catalog, ConnectionKind, Effect};
use watchfloor::check::{CheckedFlow, World, check};
use watchfloor::diag::{Source, render};
use watchfloor::engine::{
    Call, Command, Finish, FinishStatus, Input, InputKind, Outcome, Purpose, RunState, Said, Seed, Target, Verdict,
    apply,
};
use watchfloor::id::{OpId, RunId};
use watchfloor::value::{Map, Value};

pub(crate) const START: &str = "2026-11-20T08:00:00Z";

/// The tenant that a test scripts: an outcome for each call, by how often that action was called before.
pub(crate) type Tenant<'a> = dyn FnMut(&Call, usize) -> Outcome + 'a;

pub(crate) fn flow(text: &str) -> CheckedFlow {
    try_flow(text).unwrap_or_else(|found| panic!("{found}"))
}

pub(crate) fn try_flow(text: &str) -> Result<CheckedFlow, String> {
    // Read once: it takes longer than all that is done with it here.
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    let catalog = CATALOG.get_or_init(|| Catalog::builtin().unwrap());
    let connections = [
        ("mde", ConnectionKind::Mde),
        ("graph", ConnectionKind::Graph),
        ("mdca", ConnectionKind::CloudApps),
        ("mail", ConnectionKind::Email),
        ("soc-triage", ConnectionKind::Teams),
        ("web", ConnectionKind::Http),
    ];
    let connections = BTreeMap::from(connections.map(|(name, kind)| (Arc::from(name), kind)));
    let called = |name: &str| {
        let text = "flow: double\ntrigger: { type: manual }\ninputs: { n: int }\nsteps: [ { set: { twice: inputs.n * 2 } } ]\noutputs: { twice: \"{{ twice }}\" }\n";
        let fetch = "flow: fetch\ntrigger: { type: manual }\nsteps:\n  - { id: one, action: mde.get_alert, with: { alert_id: da1_1 } }\n  \
                     - try: [ { id: two, action: mde.get_alert, with: { alert_id: da1_2 }, retry: { max: 1 } }, { set: { both: \"one.title + ' ' + two.title\" } } ]\n    \
                     catch: [ { when: error.status == 404, do: [ { set: { both: \"'none'\" } } ] } ]\noutputs: { titles: \"{{ both }}\" }\n";
        match name {
            "double" => Some(Source::new("double.yaml", text)),
            "fetch" => Some(Source::new("fetch.yaml", fetch)),
            _ => None,
        }
    };
    let world = World {
        catalog,
        connections: Some(&connections),
        webhooks: None,
        include: &|_| Err("no files here".into()),
        called: &called,
    };
    let (flow, found) = check(&Source::new("test.yaml", text), &world, true);
    flow.ok_or_else(|| render(&found, false))
}

/// What a run did, for asserts.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// `action` of every main call and `look:action` or `confirm:action` of the others, in order.
    pub(crate) calls: Vec<String>,
    pub(crate) inputs: Vec<Map>,
    pub(crate) finish: Option<Finish>,
    pub(crate) parked: Option<(bool, String)>,
    /// How often it ended as a dead letter and went on.
    pub(crate) retried: u32,
    pub(crate) effects: BTreeMap<String, u64>,
    pub(crate) ended: Option<Timestamp>,
    /// Every message with the commands that it gave, to compare two executions.
    pub(crate) transcript: Vec<String>,
    /// Every message with its time, and the state that it left: what a journal holds, and what it must lead to.
    pub(crate) journal: Vec<(Input, String)>,
}

impl Story {
    pub(crate) fn status(&self) -> String {
        self.finish.as_ref().map_or("open".into(), |finish| format!("{:?}", finish.status).to_lowercase())
    }

    pub(crate) fn input(&self, action: &str, name: &str) -> String {
        let at = self
            .calls
            .iter()
            .position(|call| call == action)
            .unwrap_or_else(|| panic!("no {action}: {:?}", self.calls));
        self.inputs[at].get(name).map_or("absent".into(), |value| match value.as_str() {
            Some(text) => text.to_owned(),
            None => value.to_json().to_string(),
        })
    }
}

/// How a test disturbs the run.
#[derive(Clone, Copy, Default)]
pub(crate) struct Trouble {
    /// Every message comes twice.
    pub(crate) twice: bool,
    /// Of messages that wait together the last comes first.
    pub(crate) reversed: bool,
    /// A person cancels as soon as the run waits for a time.
    pub(crate) cancelled: bool,
    /// After so many messages the host dies: what was not taken by then is lost, and what is open is asked for again.
    pub(crate) crash: Option<usize>,
    /// A call takes effect when its answer is taken, not when it is asked for: the crash comes before it is sent.
    pub(crate) lazy: bool,
}

pub(crate) struct Host<'a> {
    flow: &'a CheckedFlow,
    state: String,
    now: Timestamp,
    messages: VecDeque<Message>,
    /// What a run waits for, by the operation that will answer it.
    open: BTreeMap<OpId, Command>,
    timers: BTreeSet<(Timestamp, OpId)>,
    claimed: BTreeSet<Arc<str>>,
    /// Who has the lock on a target, and whether he has been told.
    held: BTreeMap<Target, (OpId, bool)>,
    waiting: VecDeque<(OpId, Target)>,
    counts: BTreeMap<String, usize>,
    verdict: Verdict,
    /// Verdicts that come before the constant one.
    first: VecDeque<Verdict>,
    trouble: Trouble,
    /// Whether it still waits for a person, and as which operation.
    waits: Option<OpId>,
    /// How often a person has a dead run go on.
    retries: u32,
    /// What a person says of effects whose outcome is unknown.
    said: VecDeque<(Option<String>, Said)>,
    story: Story,
}

impl<'a> Host<'a> {
    pub(crate) fn new(flow: &'a CheckedFlow, trigger: Value) -> Self {
        let now: Timestamp = START.parse().unwrap();
        let seed = Seed { run: RunId::new(now, "test", "1"), trigger, inputs: Value::empty(), accepted: now };
        Host {
            flow,
            state: serde_json::to_string(&RunState::new(seed)).unwrap(),
            now,
            messages: VecDeque::from([Message::Input(InputKind::Started { url: None })]),
            open: BTreeMap::new(),
            timers: BTreeSet::new(),
            claimed: BTreeSet::new(),
            held: BTreeMap::new(),
            waiting: VecDeque::new(),
            counts: BTreeMap::new(),
            verdict: Verdict::Go,
            first: VecDeque::new(),
            trouble: Trouble::default(),
            waits: None,
            retries: 0,
            said: VecDeque::new(),
            story: Story::default(),
        }
    }

    pub(crate) fn verdict(mut self, verdict: Verdict) -> Self {
        self.verdict = verdict;
        self
    }

    pub(crate) fn first(mut self, verdicts: impl IntoIterator<Item = Verdict>) -> Self {
        self.first.extend(verdicts);
        self
    }

    pub(crate) fn trouble(mut self, trouble: Trouble) -> Self {
        self.trouble = trouble;
        self
    }

    /// A person has it go on so often when it is dead.
    pub(crate) fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// A person says what became of what is uncertain; one word for each time that it waits for one.
    pub(crate) fn said(mut self, said: impl IntoIterator<Item = Said>) -> Self {
        self.said = said.into_iter().map(|said| (None, said)).collect();
        self
    }

    /// As `said`, of one step each time.
    pub(crate) fn said_of(mut self, said: impl IntoIterator<Item = (&'static str, Said)>) -> Self {
        self.said = said.into_iter().map(|(step, said)| (Some(step.to_owned()), said)).collect();
        self
    }

    /// What a person does when nothing happens by itself any more.
    fn person(&mut self) -> Option<InputKind> {
        let (by, reason) = ("ana".to_owned(), "looked at it".to_owned());
        if self.story.finish.as_ref().is_some_and(|end| end.status == FinishStatus::Dead) && self.retries > 0 {
            self.retries -= 1;
            self.story.finish = None;
            self.story.retried += 1;
            return Some(InputKind::Retry { nth: self.story.retried - 1, by, reason });
        }
        let op = self.waits?;
        let (step, said) = self.said.pop_front()?;
        self.waits = None;
        Some(InputKind::Settle { op, step, said, by, reason })
    }

    pub(crate) fn claimed(mut self, key: &str) -> Self {
        self.claimed.insert(key.into());
        self
    }

    /// Runs until it ends or only a person can go on.
    pub(crate) fn run(mut self, tenant: &mut Tenant<'_>) -> Story {
        for _ in 0..100_000 {
            if self.trouble.crash == Some(self.story.journal.len()) {
                self.trouble.crash = None;
                self.restart();
            }
            let next = if self.trouble.reversed { self.messages.pop_back() } else { self.messages.pop_front() };
            let message = match next {
                Some(Message::Input(message)) => message,
                Some(Message::Perform(op, call)) => self.perform(op, &call, tenant),
                None if std::mem::take(&mut self.trouble.cancelled) => {
                    InputKind::Cancel { by: "ana".into(), reason: String::new() }
                }
                None => match self.timers.pop_first() {
                    Some((at, op)) => {
                        self.now = self.now.max(at);
                        InputKind::Fired { op }
                    }
                    None => match self.person() {
                        Some(message) => message,
                        None => return self.story,
                    },
                },
            };
            let again = self.trouble.twice.then(|| message.clone());
            self.take(message, tenant);
            if let Some(message) = again {
                self.take(message, tenant);
            }
        }
        panic!("the run does not end");
    }

    /// A new life: the state from the journal alone, and everything that was open asked for again.
    fn restart(&mut self) {
        let mut state = self.fresh();
        for (input, _) in &self.story.journal {
            apply(self.flow, &mut state, input.clone());
        }
        let replayed = serde_json::to_string(&state).unwrap();
        assert_eq!(replayed, self.state, "the journal leads to the state that was lost");
        self.messages.clear();
        self.timers.clear();
        self.waiting.clear();
        self.held.retain(|_, (_, told)| *told);
        if self.story.journal.is_empty() {
            self.messages.push_back(Message::Input(InputKind::Started { url: None }));
        }
        for (op, command) in std::mem::take(&mut self.open) {
            let message = match &command {
                Command::Call { .. } => {
                    let message = "restarted".to_owned();
                    InputKind::Outcome { op, outcome: Outcome::Unknown { status: 0, code: "restart".into(), message } }
                }
                Command::Lock { target, .. } => {
                    let target = target.clone();
                    self.open.insert(op, command);
                    self.lock(op, target);
                    continue;
                }
                Command::Check { .. } => InputKind::Checked { op, verdict: self.verdict.clone() },
                Command::Once { .. } => InputKind::Once { op, claimed: true },
                Command::Enter { .. } => InputKind::Entered { op, entered: true },
                Command::Timer { at, .. } => {
                    self.timers.insert((*at, op));
                    self.open.insert(op, command);
                    continue;
                }
                _ => {
                    self.open.insert(op, command);
                    continue;
                }
            };
            self.open.insert(op, command);
            self.messages.push_back(Message::Input(message));
        }
    }

    /// One operation at a time on a target, as in the worker.
    fn lock(&mut self, op: OpId, target: Target) {
        match self.held.entry(target) {
            Entry::Occupied(held) => self.waiting.push_back((op, held.key().clone())),
            Entry::Vacant(free) => {
                free.insert((op, false));
                self.messages.push_back(Message::Input(InputKind::Locked { op }));
            }
        }
    }

    fn unlock(&mut self, target: &Target) {
        self.held.remove(target);
        if let Some(at) = self.waiting.iter().position(|(_, wanted)| wanted == target)
            && let Some((op, target)) = self.waiting.remove(at)
        {
            self.lock(op, target);
        }
    }

    fn fresh(&self) -> RunState {
        let state: RunState = serde_json::from_str(&self.state).unwrap();
        RunState::new(state.seed)
    }

    fn perform(&mut self, op: OpId, call: &Call, tenant: &mut Tenant<'_>) -> InputKind {
        let name = match call.purpose {
            Purpose::Main => call.action.name.to_string(),
            Purpose::Look => format!("look:{}", call.action.name),
            Purpose::Confirm => format!("confirm:{}", call.action.name),
        };
        let count = self.counts.entry(name.clone()).or_default();
        let mut outcome = tenant(call, *count);
        if let Outcome::Done { output, .. } = &mut outcome {
            *output = call.keep.project(output);
        }
        *count += 1;
        self.story.calls.push(name);
        self.story.inputs.push(call.inputs.clone());
        InputKind::Outcome { op, outcome }
    }

    fn take(&mut self, kind: InputKind, tenant: &mut Tenant<'_>) {
        if let Some(op) = op_of(&kind) {
            self.open.remove(&op);
            self.held.values_mut().filter(|(holder, _)| *holder == op).for_each(|(_, told)| *told = true);
        }
        let input = Input { at: self.now, kind: kind.clone() };
        let mut state: RunState = serde_json::from_str(&self.state).unwrap();
        let shown = format!("{kind:?}");
        let commands = apply(self.flow, &mut state, Input { at: self.now, kind });
        self.state = serde_json::to_string(&state).unwrap();
        self.story.journal.push((input, self.state.clone()));
        self.story.effects = state.effects;
        let commands_shown: Vec<String> = commands.iter().map(watchfloor::worker::turn::short).collect();
        self.story.transcript.push(format!("{shown} -> {commands_shown:?}"));
        for command in commands {
            self.carry_out(command, tenant);
        }
    }

    fn carry_out(&mut self, command: Command, tenant: &mut Tenant<'_>) {
        let mut push = |op: OpId, kind: InputKind| {
            self.open.insert(op, command.clone());
            self.messages.push_back(Message::Input(kind));
        };
        match command.clone() {
            Command::Enter { op, .. } => push(op, InputKind::Entered { op, entered: true }),
            Command::Lock { op, target, .. } => {
                self.open.insert(op, command);
                self.lock(op, target);
            }
            Command::Check { op, .. } => {
                let verdict = self.first.pop_front().unwrap_or_else(|| self.verdict.clone());
                push(op, InputKind::Checked { op, verdict });
            }
            Command::Call { op, call } => {
                self.open.insert(op, command);
                let message = if self.trouble.lazy {
                    Message::Perform(op, call)
                } else {
                    Message::Input(self.perform(op, &call, tenant))
                };
                self.messages.push_back(message);
            }
            Command::Timer { op, at } => {
                self.open.insert(op, command);
                self.timers.insert((at, op));
            }
            Command::Cancel { op } => {
                self.timers.retain(|(_, timer)| *timer != op);
                self.waiting.retain(|(waiting, _)| *waiting != op);
                let untold =
                    self.held.iter().find(|(_, holder)| **holder == (op, false)).map(|(target, _)| target.clone());
                if let Some(target) = untold {
                    self.unlock(&target);
                }
                // A call that is no read keeps its place: its answer settles it.
                let effect =
                    |command: &Command| matches!(command, Command::Call { call, .. } if call.effect() != Effect::Read);
                if !self.open.get(&op).is_some_and(effect) {
                    self.open.remove(&op);
                }
            }
            Command::Once { op, key, .. } => {
                let claimed = self.claimed.insert(key);
                push(op, InputKind::Once { op, claimed });
            }
            Command::OnceRelease { key } => {
                self.claimed.remove(&key);
            }
            Command::Park { op, uncertain, reason, .. } => {
                self.story.parked = Some((uncertain, reason));
                self.waits = Some(op);
            }
            Command::Finish(finish) => {
                assert!(self.story.finish.is_none(), "a run ends once");
                self.story.finish = Some(finish);
                self.story.ended = Some(self.now);
            }
            Command::Unlock { target } => self.unlock(&target),
        }
    }
}

/// What is on its way to the run.
#[derive(Clone, Debug)]
enum Message {
    Input(InputKind),
    Perform(OpId, Arc<Call>),
}

fn op_of(kind: &InputKind) -> Option<OpId> {
    match kind {
        InputKind::Entered { op, .. }
        | InputKind::Outcome { op, .. }
        | InputKind::Checked { op, .. }
        | InputKind::Locked { op }
        | InputKind::Fired { op }
        | InputKind::Once { op, .. }
        | InputKind::Settle { op, .. } => Some(*op),
        InputKind::Started { .. } | InputKind::Cancel { .. } | InputKind::Retry { .. } => None,
    }
}

pub(crate) fn done(output: serde_json::Value) -> Outcome {
    Outcome::Done { status: 200, output: typed(&output) }
}

/// JSON to values, with text that looks like an instant as a datetime.
fn typed(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::String(text) => text.parse::<Timestamp>().map_or_else(|_| Value::str(text), Value::Datetime),
        serde_json::Value::Array(items) => Value::list(items.iter().map(typed).collect()),
        serde_json::Value::Object(members) => Value::object(members.iter().map(|(key, value)| (key, typed(value)))),
        other => Value::from_json(other).unwrap(),
    }
}

pub(crate) fn unknown() -> Outcome {
    Outcome::Unknown { status: 0, code: "reset".into(), message: "the connection was reset".into() }
}

pub(crate) fn refused(status: u16, transient: bool) -> Outcome {
    Outcome::Refused {
        status,
        code: format!("http_{status}"),
        message: format!("answered {status}"),
        transient,
        retry_after_ms: None,
    }
}
