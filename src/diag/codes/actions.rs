//! WF07: actions, triggers and connections.

use super::{Page, page_of as page};

pub(super) const PAGES: &[Page] = &[
    page(
        "WF0701",
        "an unknown action",
        "The catalogue has no such action. `watchfloor actions list` shows them all.",
        "",
    ),
    page(
        "WF0702",
        "an unknown trigger",
        "The catalogue has no such trigger type. `watchfloor triggers list` shows them all.",
        "",
    ),
    page(
        "WF0703",
        "an option of another trigger",
        "The key belongs to another trigger type, or has none of the values that this one knows.",
        "",
    ),
    page(
        "WF0704",
        "a schedule that makes no sense",
        "A schedule has `cron:` (five fields, with an IANA `timezone:`) or `every:` (at least a second), not both.",
        "trigger: { type: schedule, cron: \"15 6 * * *\", timezone: Europe/Paris }",
    ),
    page("WF0705", "an unknown connection", "The configuration has no connection of this name.", ""),
    page(
        "WF0706",
        "a connection of another kind",
        "The connection cannot serve this action or trigger, or none is used at all.",
        "",
    ),
    page(
        "WF0707",
        "which connection",
        "No connection can serve this, or several can. With exactly one, `connection:` may be left out.",
        "",
    ),
    page(
        "WF0708",
        "an unknown flow",
        "`call:` names a flow of this installation by what stands after its `flow:`.",
        "",
    ),
    page(
        "WF0709",
        "calls in a circle",
        "A called flow is part of the run that calls it, so that calls have an end: no flow calls itself, and nesting is bounded.",
        "",
    ),
    page(
        "WF0710",
        "a flow that cannot be called",
        "The called flow has errors of its own, or is started by events that a call does not have.",
        "",
    ),
    page(
        "WF0711",
        "nothing to confirm",
        "`confirm:` follows an action that the service carries out later; others are done when they are answered.",
        "",
    ),
    page(
        "WF0712",
        "an effect in a race",
        "In `join: any` the branches that lose are cut off; what they had sent stays sent. Only reads may race.",
        "",
    ),
    page(
        "WF0713",
        "a retry that makes no sense",
        "The pauses are in the wrong order, or what is tried again is neither a status nor a known class.",
        "retry: { max: 4, first: 1s, cap: 1m, on: [429, 5xx] }",
    ),
    page(
        "WF0714",
        "an unknown webhook",
        "A webhook trigger has a `name:` that stands under `webhooks:` of the configuration.",
        "",
    ),
    page(
        "WF0715",
        "a hunt that can't run",
        "A trigger `hunt.rows` names one query without templates, how often it is asked (at least every 10s), and the types of its columns.",
        "trigger: { type: hunt.rows, query_file: kql/new-persistence.kql, every: 15m, columns: { DeviceId: string } }",
    ),
    page(
        "WF0716",
        "flows that start each other",
        "A flow that follows another one starts when that one ends. A circle of them would never come to rest, so it is refused, as is a chain of more than eight.",
        "trigger: { type: flow.finished, flow: isolate-high-severity, status: [failed, dead] }",
    ),
    page(
        "WF0717",
        "an event that can't be split, gathered or waited for",
        "`split:` wants a list of the event. `ready:` wants an event that can be read again by its id, waits at most a day, and does not go with `split:`. `batch:` wants events that come by themselves, and gathers them for one second to a day.",
        "trigger: { type: mde.alert.new, ready: size(trigger.alert.evidence) > 0, ready_timeout: 15m, on_not_ready: run }",
    ),
    page(
        "WF0718",
        "a classification and a determination that contradict each other",
        "Each classification takes some determinations: a false positive is not malware. The portal offers only those that go together, and so does this.",
        "with: { alert_id: da637472900382838869_1364969609, classification: FalsePositive, determination: NotMalicious }",
    ),
    page(
        "WF0720",
        "not in this version",
        "The step parses and is checked, and this version cannot run it yet. It is refused when the flow is loaded, not in the middle of a run.",
        "",
    ),
];
