//! WF02: the shape of a flow.

use super::{Page, page_of as page};

pub(super) const PAGES: &[Page] = &[
    page(
        "WF0201",
        "an unknown key",
        "Only the keys of its place may stand in a map: a misspelt key that is ignored would be an approval or a limit that is not there.",
        "aproval: required   # did you mean `approval`?",
    ),
    page(
        "WF0202",
        "a missing key",
        "The place needs this key; without it the flow has no meaning that can be run.",
        "",
    ),
    page(
        "WF0203",
        "another kind of value",
        "A list, a map or a text stands where something else is wanted.",
        "steps: { wait: 10m }   # `steps:` is a list",
    ),
    page(
        "WF0204",
        "not a name",
        "Flow names are small letters, digits, hyphens and underscores; step ids match `[a-z][a-z0-9_]*`, since conditions and templates read them as roots; fields of forms and payloads are identifiers.",
        "id: out_of_office",
    ),
    page(
        "WF0205",
        "a step id stands twice",
        "A step's output is a root named by its id, and ids are unique in a flow, so that a name means one thing from its step to the end.",
        "",
    ),
    page(
        "WF0206",
        "a reserved name",
        "A step cannot be called like a word, type or function of conditions, a helper of templates, or a root that the engine binds (`trigger inputs run flow steps item index error now`): expressions could not tell them apart.",
        "id: filter   # a function of conditions",
    ),
    page(
        "WF0207",
        "a step without a kind",
        "Exactly one key says what a step does: `action`, `if`, `foreach` and so on.",
        "",
    ),
    page(
        "WF0208",
        "a step with several kinds",
        "Exactly one key says what a step does. Put the second under `then:` or `do:` of the first, or make it a step of its own. An action may carry an `if:` of its own.",
        "",
    ),
    page(
        "WF0209",
        "not one of the words",
        "The key takes one of a few words, and this is none of them.",
        "join: any   # all | any",
    ),
    page(
        "WF0210",
        "not a duration",
        "A duration is a whole number and a unit: `ms`, `s`, `m`, `h` or `d`, more than zero and at most ten years.",
        "timeout: 30m",
    ),
    page(
        "WF0211",
        "not a whole number in range",
        "The key takes a whole number in plain decimal digits. `010`, `1_000` and `0x10` are texts, not numbers.",
        "max: 50",
    ),
    page(
        "WF0212",
        "not true or false",
        "A yes-or-no key takes `true` or `false`. `yes`, `no`, `on` and `off` are texts.",
        "secure: true",
    ),
    page(
        "WF0213",
        "nothing in it",
        "The list or map is empty, or the key has no value. Leave the key out, or say what belongs there.",
        "",
    ),
    page(
        "WF0214",
        "a template in a condition",
        "A condition is an expression already: names stand in it without braces. Templates belong into texts.",
        "if: alert.severity == 'High'",
    ),
    page(
        "WF0215",
        "not a declared type",
        "A field's type is one of `any bool int number string datetime duration`, `list of` or `map of` one of them, or a map `{ type: …, required: …, enum: […], default: …, description: …, timezone: … }`.",
        "fields: { alertId: string, tags: list of string }",
    ),
    page(
        "WF0216",
        "a step that may never end",
        "A loop and a question to a person need an end: `max` or `timeout` for `until`, `timeout` for `approve`, `ask` and `wait_for`.",
        "",
    ),
    page(
        "WF0217",
        "keys that do not go together",
        "The keys contradict each other, or one is of no use without another.",
        "",
    ),
];
