//! The keys of every place of a flow file: name, what it is, what it takes. Lowering, its suggestions and the JSON
//! Schema all read these tables, and nothing else says which keys there are.

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want {
    /// Text for people, without templates.
    Plain,
    /// A flow's name.
    FlowName,
    /// An identifier that expressions can read: a step id, a loop variable.
    Id,
    /// The name of something that is looked up elsewhere: an action, a trigger, a connection.
    Word,
    Bool,
    /// A whole number from..=to.
    Count(u32, u32),
    Duration,
    /// CEL that is true or false, or a tree of `all`, `any`, `none`.
    Condition,
    Cel,
    CelMap,
    CelOrMap,
    /// Text with templates.
    Template,
    Payload,
    PayloadMap,
    Payloads,
    OneOf(&'static [&'static str]),
    OneOfOrSteps(&'static [&'static str]),
    /// A list of short texts.
    Words,
    Steps,
    /// A list of lists of steps.
    Branches,
    /// A map from values to lists of steps.
    Cases,
    /// Names with declared types.
    Fields,
    In(&'static Place),
    ListOf(&'static Place),
    DurationOr(&'static Place),
    /// Read by the trigger type it belongs to.
    Any,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) want: Want,
    pub(crate) required: bool,
    pub(crate) doc: &'static str,
}

/// A kind of map in a flow file.
#[derive(Debug)]
pub(crate) struct Place {
    /// With its article, for messages: `a flow`, `a foreach step`.
    pub(crate) name: &'static str,
    pub(crate) keys: &'static [Key],
    /// Whether `COMMON` stands here too.
    pub(crate) step: bool,
}

impl Place {
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        let common: &'static [Key] = if self.step { COMMON } else { &[] };
        self.keys.iter().chain(common)
    }

    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }
}

const fn opt(name: &'static str, want: Want, doc: &'static str) -> Key {
    Key { name, want, required: false, doc }
}

const fn req(name: &'static str, want: Want, doc: &'static str) -> Key {
    Key { name, want, required: true, doc }
}

pub(crate) static FLOW: Place = Place {
    name: "a flow",
    step: false,
    keys: &[
        req("flow", Want::FlowName, "the flow's name: small letters, digits, `-` and `_`"),
        opt("description", Want::Plain, "what it does, in a sentence"),
        opt("owner", Want::Plain, "who answers for it: a mail address or a team"),
        req("trigger", Want::In(&TRIGGER), "what starts a run"),
        opt("inputs", Want::Fields, "the typed form of a manual start, and what callers pass"),
        opt("limits", Want::In(&LIMITS), "caps on effects that are tighter than the installation's"),
        opt(
            "mode",
            Want::OneOf(&["shadow", "live"]),
            "how far effects go; can only tighten what the installation gives",
        ),
        req("steps", Want::Steps, "what a run does, in order"),
        opt("outputs", Want::PayloadMap, "what a calling flow gets"),
        opt("on_failure", Want::Steps, "steps that run when the run fails; `error` says why"),
        opt("finally", Want::Steps, "steps that run at the end of every run"),
    ],
};

pub(crate) static TRIGGER: Place = Place {
    name: "a trigger",
    step: false,
    keys: &[
        req("type", Want::Word, "the trigger type, such as `mde.alert.new` or `schedule`"),
        opt("connection", Want::Word, "the connection that is polled; may be left out where exactly one can serve"),
        opt("where", Want::Condition, "starts a run only where this is true of `trigger`"),
        opt("dedupe", Want::Cel, "the event's key: equal keys start one run"),
        opt("concurrency", Want::In(&CONCURRENCY), "how many runs of the flow may be going at once"),
        opt("cron", Want::Any, "schedule: five fields of cron"),
        opt("timezone", Want::Any, "schedule: the IANA zone of `cron`"),
        opt("every", Want::Any, "schedule: a fixed distance instead of `cron`"),
        opt("missed", Want::Any, "schedule: what happens to times that passed while nothing ran"),
        opt("overlap", Want::Any, "schedule: what happens when the last run is still going"),
        opt("name", Want::Any, "webhook: its name under `webhooks:` of the configuration"),
        opt("fields", Want::Fields, "webhook: the members of the body that are kept, with their types"),
        opt("batch", Want::In(&BATCH), "gathers several events into one run, as `trigger.items`"),
        opt("split", Want::Cel, "a list of the event; each item starts a run of its own, as `trigger.item`"),
        opt("ready", Want::Condition, "says when the evidence is complete; until then the event is read again"),
        opt("ready_timeout", Want::Any, "how long to wait for `ready`; default 10m"),
        opt("on_not_ready", Want::Any, "what an event does that is not ready in time: run or fail; default run"),
        opt("query", Want::Any, "hunt.rows: the KQL text"),
        opt("query_file", Want::Any, "hunt.rows: a file with the KQL text"),
        opt("params", Want::Any, "hunt.rows: fixed values bound in the query, beside `window_start` and `window_end`"),
        opt("columns", Want::Any, "hunt.rows: the columns of a row and their types"),
        opt("key", Want::Cel, "hunt.rows: CEL that makes a row the same row in another window; default the whole row"),
        opt(
            "max_rows",
            Want::Any,
            "hunt.rows: new rows that start runs at one time; the others follow at the next; default 1000",
        ),
        opt("flow", Want::Any, "flow.finished: the flow that is followed"),
        opt(
            "status",
            Want::Any,
            "flow.finished: how it ended: one or several of succeeded, failed, cancelled, dead; default all",
        ),
    ],
};

static BATCH: Place = Place {
    name: "`batch`",
    step: false,
    keys: &[
        req("within", Want::Duration, "how long after its first event a run starts; at most 24h"),
        opt("max", Want::Count(1, 1_000), "events at which a run starts at once; default 100"),
        opt("key", Want::Cel, "events with equal keys start a run together; reads `trigger.*` of each"),
    ],
};

static CONCURRENCY: Place = Place {
    name: "`concurrency`",
    step: false,
    keys: &[
        opt("key", Want::Cel, "runs with equal keys count together; reads `trigger.*`"),
        req("max", Want::Count(1, 10_000), "runs that may be going at once"),
        opt(
            "on_full",
            Want::OneOf(&["queue", "skip", "cancel_running"]),
            "what happens to an event above `max`; default queue",
        ),
    ],
};

static LIMITS: Place = Place {
    name: "`limits`",
    step: false,
    keys: &[
        opt("destructive", Want::ListOf(&LIMIT), "caps on destructive actions"),
        opt("write", Want::ListOf(&LIMIT), "caps on write actions"),
    ],
};

static LIMIT: Place = Place {
    name: "a limit",
    step: false,
    keys: &[
        req("max", Want::Count(0, 1_000_000), "actions in the window"),
        req("per", Want::Duration, "the length of the window"),
    ],
};

/// Keys of every step.
pub(crate) const COMMON: &[Key] = &[
    opt("id", Want::Id, "the root under which later text reads the step's output"),
    opt("name", Want::Plain, "the step's title for people"),
    opt(
        "timeout",
        Want::Duration,
        "how long an attempt of an action, or all of another step, may take; 2m for actions",
    ),
    opt("on_error", Want::OneOfOrSteps(&["fail", "continue"]), "what a failure of the step does; default fail"),
    opt("secure", Want::Bool, "keeps the step's values out of logs and pages"),
];

/// One kind of step; the first of its keys names it.
macro_rules! kind {
    ($name:literal: $($key:expr),+ $(,)?) => { Place { name: $name, step: true, keys: &[$($key),+] } };
}

const DO: Key = req("do", Want::Steps, "the steps of the body");
const WITH: Key = opt("with", Want::PayloadMap, "the inputs");

/// The kinds of step. `action` stands before `if`, since an action may carry an `if:` of its own.
pub(crate) static KINDS: &[Place] = &[
    kind!("an action step":
        req("action", Want::Word, "calls an action of the catalogue"),
        WITH,
        opt("connection", Want::Word, "the connection; may be left out where exactly one can serve"),
        opt("if", Want::Condition, "skips the action unless this is true"),
        opt("retry", Want::In(&RETRY), "how often a failed attempt is made again"),
        opt("confirm", Want::In(&CONFIRM), "follows the accepted action to its end"),
        opt("approval", Want::Any, "asks a person before the action")),
    kind!("an if step":
        req("if", Want::Condition, "decides between `then` and `else`"),
        req("then", Want::Steps, "steps where it is true"),
        opt("else", Want::Steps, "steps where it is false")),
    kind!("a switch step":
        req("switch", Want::Cel, "the value that is compared"),
        req("cases", Want::Cases, "steps by whole value"),
        opt("default", Want::Steps, "steps for every other value")),
    kind!("a foreach step":
        req("foreach", Want::Cel, "the list"),
        DO,
        opt("as", Want::Id, "the name of the current item; default item"),
        opt("key", Want::Cel, "what makes an item the same item in another run"),
        opt("once_per", Want::Duration, "an item with the same key is handled once in this time"),
        opt("at_once", Want::Count(1, 100), "items that are worked on at the same time; default 1"),
        opt("max_items", Want::Count(1, 10_000), "more items than this are handled by `on_more`"),
        opt("on_more", Want::OneOf(&["fail", "first", "ask"]), "what happens above `max_items`; default fail"),
        opt("on_item_error", Want::OneOf(&["fail", "gather"]), "whether one item's failure fails the step; default fail"),
        opt("collect", Want::CelOrMap, "what each item leaves in `items`")),
    kind!("an until step":
        req("until", Want::Condition, "ends the loop when it is true; sees the ids of the body"),
        DO,
        opt("every", Want::Duration, "pause between passes"),
        opt("max", Want::Count(1, 10_000), "passes at most"),
        opt("carry", Want::CelMap, "variables of the loop and their first values"),
        opt("next", Want::CelMap, "the variables' values for the next pass")),
    kind!("a try step":
        req("try", Want::Steps, "steps whose failure is caught"),
        req("catch", Want::ListOf(&CATCH), "handlers; the first whose `when` is true runs")),
    kind!("a parallel step":
        req("parallel", Want::Branches, "branches: a list of lists of steps"),
        opt("join", Want::OneOf(&["all", "any"]), "whether all branches must succeed or the first success wins; default all")),
    kind!("a set step": req("set", Want::CelMap, "names and the values they get")),
    kind!("a wait step": req("wait", Want::DurationOr(&WAIT), "pauses the run")),
    kind!("a call step": req("call", Want::FlowName, "runs another flow and takes its `outputs`"), WITH),
    kind!("a stop step":
        req("stop", Want::OneOf(&["succeeded", "failed", "cancelled"]), "ends the run"),
        opt("reason", Want::Template, "why, for people")),
    kind!("an approve step":
        req("approve", Want::Template, "the question that people answer with yes or no"),
        req("to", Want::Payloads, "who is asked: roles, groups or addresses"),
        opt("on_timeout", Want::OneOf(&["deny", "approve", "fail"]), "what silence means; default deny")),
    kind!("an ask step":
        req("ask", Want::Template, "the question"),
        req("to", Want::Payloads, "who is asked"),
        opt("options", Want::Words, "the choices"),
        opt("fields", Want::Fields, "a form"),
        opt("on_timeout", Want::OneOf(&["fail", "continue"]), "what silence means; default fail")),
    kind!("a wait_for step":
        req("wait_for", Want::Id, "the name of the signal"),
        opt("fields", Want::Fields, "what the signal carries"),
        opt("on_timeout", Want::OneOf(&["fail", "continue"]), "what silence means; default fail")),
    kind!("a respond step":
        req("respond", Want::Count(200, 599), "the HTTP status that a synchronous webhook answers"),
        opt("body", Want::Payload, "the body of the answer")),
];

/// The key that names a kind of step.
pub(crate) fn kind_key(kind: &Place) -> &'static str {
    kind.keys.first().map_or("", |key| key.name)
}

static RETRY: Place = Place {
    name: "`retry`",
    step: false,
    keys: &[
        opt("max", Want::Count(1, 20), "attempts in all"),
        opt("first", Want::Duration, "the first pause"),
        opt("cap", Want::Duration, "the longest pause"),
        opt("on", Want::Words, "what is tried again: status codes, `5xx`, `timeout`, `network`"),
    ],
};

static CONFIRM: Place = Place {
    name: "`confirm`",
    step: false,
    keys: &[
        req("timeout", Want::Duration, "how long to follow it"),
        opt(
            "on_timeout",
            Want::OneOf(&["fail", "continue"]),
            "what happens when it has not ended by then; default fail",
        ),
    ],
};

static CATCH: Place = Place {
    name: "a handler",
    step: false,
    keys: &[opt("when", Want::Condition, "which errors it takes; reads `error`"), DO],
};

static WAIT: Place = Place { name: "`wait`", step: false, keys: &[req("until", Want::Cel, "an instant")] };

/// A field of `inputs:` and `fields:` that says more than its type.
pub(crate) static FIELD: Place = Place {
    name: "a field",
    step: false,
    keys: &[
        req(
            "type",
            Want::Word,
            "its type: any bool int number string datetime duration, `list of` or `map of` one of them",
        ),
        opt("required", Want::Bool, "whether it must be given; default true, or false with a `default`"),
        opt("enum", Want::Words, "the only values"),
        opt("default", Want::Any, "its value where none is given"),
        opt("description", Want::Plain, "what it is, for people"),
        opt("timezone", Want::Word, "the zone of instants that come without one"),
    ],
};

pub(crate) static TREE: Place = Place {
    name: "a condition",
    step: false,
    keys: &[
        opt("all", Want::Any, "true where every condition of the list is"),
        opt("any", Want::Any, "true where at least one condition of the list is"),
        opt("none", Want::Any, "true where no condition of the list is"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_expressions_are_known_to_the_yaml_layer() {
        for key in KINDS.iter().chain([&FLOW, &TRIGGER, &CONCURRENCY, &CATCH, &WAIT, &TREE]).flat_map(Place::keys) {
            if matches!(key.want, Want::Condition | Want::Cel | Want::CelMap | Want::CelOrMap) {
                assert!(crate::yaml::EXPRESSION_KEYS.contains(&key.name), "{}", key.name);
            }
        }
    }

    #[test]
    fn no_place_has_a_key_twice_and_every_key_is_described() {
        for place in KINDS.iter().chain([
            &FLOW,
            &TRIGGER,
            &CONCURRENCY,
            &LIMITS,
            &LIMIT,
            &RETRY,
            &CONFIRM,
            &CATCH,
            &WAIT,
            &FIELD,
            &TREE,
        ]) {
            for key in place.keys() {
                assert_eq!(
                    place.keys().filter(|other| other.name == key.name).count(),
                    1,
                    "{} in {}",
                    key.name,
                    place.name
                );
                assert!(!key.doc.is_empty() && !key.doc.ends_with('.'), "{}", key.name);
            }
        }
    }
}
