//! Random flows, all of them valid: every kind of step, nested, of bounded size; and the tenant that answers them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;
use watchfloor::catalog::Effect;
use watchfloor::engine::{Call, Outcome, Purpose};
use watchfloor::id::{RunId, call_key, tag};
use watchfloor::value::Value;

use super::host::{START, done, refused, unknown};

/// One step.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Act(usize),
    Set,
    Wait(u8),
    Call,
    If(usize, Vec<Node>, Vec<Node>, bool),
    Switch(usize, Vec<Node>, Vec<Node>),
    Each {
        at_once: u8,
        gather: bool,
        once: bool,
        body: Vec<Node>,
    },
    Until {
        passes: u8,
        body: Vec<Node>,
    },
    Try(Vec<Node>, Vec<Node>, Vec<Node>),
    All(Vec<Vec<Node>>),
    Any(Vec<Vec<u8>>),
    /// An action whose failure runs steps, or is passed over.
    OnError(usize, Vec<Node>),
    Limited(u8, Vec<Vec<Node>>),
}

const ACTIONS: [&str; 8] = [
    "action: mde.get_alert, with: { alert_id: da637472900382838869_1364969609 }",
    "action: entra.get_user, with: { user: u@contoso.example }",
    "action: email.send, with: { to: [soc@contoso.example], subject: s, text: t }",
    "action: teams.post, connection: soc-triage, with: { title: s, text: t }",
    "action: mde.update_alert, with: { alert_id: da637472900382838869_1364969609, comment: c }",
    "action: mde.run_antivirus_scan, with: { machine_id: DEVICE, comment: c }",
    "action: mde.isolate_machine, with: { machine_id: DEVICE, comment: c }",
    "action: mde.isolate_machine, with: { machine_id: DEVICE, comment: c }, confirm: { timeout: 15m, on_timeout: continue }",
];

/// One goes by the time, and the last one is an error where it is evaluated.
const CONDITIONS: [&str; 5] = [
    "1 == 1",
    "1 == 2",
    "now.getSeconds() % 2 == 0",
    "trigger.alert_id.endsWith('1')",
    "trigger.alert_id.charAt(99) == 'x'",
];

/// What rendering a flow goes by.
struct Names {
    given: u32,
    /// Whether what it does may depend on when it is answered: limits of its own, conditions on `now`, an end or a failure in
    /// one branch that cuts off another.
    racy: bool,
}

pub(crate) fn program(racy: bool) -> impl Strategy<Value = String> {
    let block = prop::collection::vec(node(), 1..5);
    let maybe = || prop::option::of(prop::collection::vec(leaf(), 1..3));
    (block, maybe(), maybe()).prop_map(move |(steps, on_failure, finally)| {
        let mut names = Names { given: 0, racy };
        let steps = list(&steps, &mut names);
        let mut text = format!(
            "flow: random\nowner: soc@contoso.example\ntrigger: {{ type: mde.alert.new, connection: mde }}\nsteps: {steps}\n"
        );
        for (key, block) in [("on_failure", on_failure), ("finally", finally)] {
            if let Some(block) = block {
                text.push_str(&format!("{key}: {}\n", list(&block, &mut names)));
            }
        }
        text
    })
}

fn leaf() -> impl Strategy<Value = Node> {
    prop_oneof![
        6 => (0..ACTIONS.len()).prop_map(Node::Act),
        1 => Just(Node::Set),
        1 => (1..30u8).prop_map(Node::Wait),
        1 => Just(Node::Call),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    leaf().prop_recursive(3, 20, 3, |inner| {
        let block = move || prop::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            (0..CONDITIONS.len(), block(), block(), any::<bool>()).prop_map(|(c, a, b, stop)| Node::If(c, a, b, stop)),
            (0..3usize, block(), block()).prop_map(|(on, a, b)| Node::Switch(on, a, b)),
            (1..4u8, any::<bool>(), any::<bool>(), block()).prop_map(|(at_once, gather, once, body)| Node::Each {
                at_once,
                gather,
                once,
                body
            }),
            (1..5u8, block()).prop_map(|(passes, body)| Node::Until { passes, body }),
            (block(), block(), block()).prop_map(|(a, b, c)| Node::Try(a, b, c)),
            prop::collection::vec(block(), 2..4).prop_map(Node::All),
            prop::collection::vec(prop::collection::vec(0..5u8, 1..3), 2..4).prop_map(Node::Any),
            (0..ACTIONS.len(), block()).prop_map(|(action, handler)| Node::OnError(action, handler)),
            (1..90u8, prop::collection::vec(block(), 2..3)).prop_map(|(limit, all)| Node::Limited(limit, all)),
        ]
    })
}

fn list(nodes: &[Node], names: &mut Names) -> String {
    let steps: Vec<_> = nodes.iter().map(|node| step(node, names)).collect();
    format!("[ {} ]", steps.join(", "))
}

fn step(node: &Node, names: &mut Names) -> String {
    names.given += 1;
    let n = names.given;
    let device = |text: &str| text.replace("DEVICE", &format!("0123456789abcdef0123456789abcdef012345{:02}", n % 3));
    let branches = |all: &[Vec<Node>], names: &mut Names| {
        all.iter().map(|block| list(block, names)).collect::<Vec<_>>().join(", ")
    };
    match node {
        Node::Act(action) => format!("{{ {} }}", device(ACTIONS[*action])),
        Node::Set => format!("{{ set: {{ v{n}: '{n}' }} }}"),
        Node::Wait(minutes) => format!("{{ wait: {minutes}m }}"),
        Node::Call => format!("{{ id: s{n}, call: double, with: {{ n: {n} }} }}"),
        Node::If(condition, then, otherwise, stop) => {
            let mut then = list(then, names);
            if *stop && names.racy {
                then.truncate(then.len() - 2);
                then.push_str(", { stop: succeeded, reason: enough } ]");
            }
            format!(
                "{{ if: \"{}\", then: {then}, else: {} }}",
                CONDITIONS[if names.racy { *condition } else { [0, 1, 0, 3, 1][*condition] }],
                list(otherwise, names)
            )
        }
        Node::Switch(on, case, default) => format!(
            "{{ switch: \"{}\", cases: {{ a: {} }}, default: {} }}",
            ["'a'", "'b'", "trigger.alert_id"][*on],
            list(case, names),
            list(default, names)
        ),
        Node::Each { at_once, gather, once, body } => {
            let once = if *once { format!("key: x{n}, once_per: 7d, ") } else { String::new() };
            let gather = if *gather { "gather" } else { "fail" };
            format!(
                "{{ foreach: \"['a', 'b', 'a']\", as: x{n}, max_items: 9, at_once: {at_once}, on_item_error: {gather}, {once}do: {} }}",
                list(body, names)
            )
        }
        Node::Until { passes, body } => {
            let passes = if names.racy { *passes } else { 1 + passes % 2 };
            format!(
                "{{ until: n{n} >= {passes}, every: 7s, max: 3, carry: {{ n{n}: '0' }}, next: {{ n{n}: n{n} + 1 }}, do: {} }}",
                list(body, names)
            )
        }
        Node::Try(body, one, other) => format!(
            "{{ try: {}, catch: [ {{ when: error.status == 404, do: {} }}, {{ do: {} }} ] }}",
            list(body, names),
            list(one, names),
            list(other, names)
        ),
        Node::All(all) => format!("{{ parallel: [ {} ] }}", branches(all, names)),
        Node::Any(any) => first(any),
        Node::OnError(action, handler) => {
            let handled = if handler.len() > 1 { list(handler, names) } else { "continue".to_owned() };
            format!("{{ {}, on_error: {handled} }}", device(ACTIONS[*action]))
        }
        Node::Limited(_, all) if !names.racy => format!("{{ parallel: [ {} ] }}", branches(all, names)),
        Node::Limited(limit, all) => {
            format!("{{ parallel: [ {} ], timeout: {limit}s, on_error: continue }}", branches(all, names))
        }
    }
}

/// Reads and waits, of which the first that is over counts.
fn first(branches: &[Vec<u8>]) -> String {
    let branch = |reads: &Vec<u8>| {
        let steps = reads.iter().map(|read| match read {
            0 => "{ wait: 2m }".to_owned(),
            read => format!("{{ {} }}", ACTIONS[usize::from(read % 2)]),
        });
        format!("[ {} ]", steps.collect::<Vec<_>>().join(", "))
    };
    format!("{{ parallel: [ {} ], join: any }}", branches.iter().map(branch).collect::<Vec<_>>().join(", "))
}

/// A tenant that remembers what was done to it. What it answers is a hash of its seed and of the operation's path and
/// number, so that the order in which operations come changes nothing.
pub(crate) struct World {
    seed: u64,
    /// Answers go wrong, as often as not.
    pub(crate) rough: bool,
    nth: BTreeMap<String, u64>,
    /// By (action, path): how often it took effect.
    pub(crate) done: BTreeMap<(String, String), u32>,
    /// The same by what it was done to: of two steps that isolate one device, either may be the one that does.
    pub(crate) did: BTreeSet<(String, String)>,
    /// What stands in the list of machine actions.
    actions: Vec<serde_json::Value>,
    pub(crate) not_reads: u32,
}

impl World {
    pub(crate) fn new(seed: u64, rough: bool) -> Self {
        World {
            seed,
            rough,
            nth: BTreeMap::new(),
            done: BTreeMap::new(),
            did: BTreeSet::new(),
            actions: Vec::new(),
            not_reads: 0,
        }
    }

    pub(crate) fn answer(&mut self, call: &Call, now: &str) -> Outcome {
        let what = format!("{:?}{}{}", call.purpose, call.action.name, call.path);
        let nth = self.nth.entry(what.clone()).or_default();
        *nth += 1;
        let draw = if self.rough { hash(&format!("{}/{what}/{nth}", self.seed)) % 20 } else { 19 };
        let read = call.effect() == Effect::Read;
        self.not_reads += u32::from(!read);
        let acts = !read && matches!(draw, 0 | 1 | 8..);
        if acts {
            self.act(call, now);
        }
        match draw {
            0..4 => unknown(),
            4 | 5 => refused(429, true),
            6 => refused(404, false),
            7 => Outcome::NotSent { code: "connect".into(), message: "no connection".into(), transient: true },
            _ => self.good(call),
        }
    }

    fn act(&mut self, call: &Call, now: &str) {
        let key = (call.action.name.to_string(), call.path.to_string());
        self.did.insert(key.clone());
        *self.done.entry(key).or_default() += 1;
        let kind = match &*call.action.name {
            "mde.isolate_machine" => "Isolate",
            "mde.run_antivirus_scan" => "RunAntiVirusScan",
            _ => return,
        };
        let run = RunId::new(START.parse().unwrap(), "test", "1");
        let ours = tag(&call_key(&run, &call.path));
        let machine = call.inputs.get("machine_id").and_then(Value::as_str).unwrap_or_default();
        if kind == "Isolate" {
            self.did.remove(&(call.action.name.to_string(), call.path.to_string()));
            self.did.insert((call.action.name.to_string(), machine.to_owned()));
        }
        self.actions.push(json!({
            "id": "5382f7ea-7557-4ab7-9782-d50480024a4e", "type": kind, "status": "Succeeded", "created": now,
            "comment": format!("c [wf:{ours}]"), "machine_id": machine,
        }));
    }

    fn good(&self, call: &Call) -> Outcome {
        if call.purpose == Purpose::Look {
            let machine = call.inputs.get("machine_id").and_then(Value::as_str).unwrap_or_default();
            let wanted = format!("{:?}", call.inputs.get("types"));
            let listed = self.actions.iter().filter(|action| {
                action["machine_id"] == machine && wanted.contains(action["type"].as_str().unwrap_or_default())
            });
            return done(json!({ "value": listed.collect::<Vec<_>>() }));
        }
        match &*call.action.name {
            "mde.isolate_machine" | "mde.run_antivirus_scan" => {
                done(json!({ "id": "5382f7ea-7557-4ab7-9782-d50480024a4e", "status": "Pending" }))
            }
            "mde.get_machine_action" => done(json!({ "status": "Succeeded" })),
            _ => done(json!({ "id": "x", "severity": "High" })),
        }
    }
}

fn hash(text: &str) -> u64 {
    let digest = watchfloor::id::digest16(&[text]);
    u64::from_le_bytes(digest[..8].try_into().unwrap())
}
