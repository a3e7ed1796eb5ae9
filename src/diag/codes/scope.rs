//! WF03: names and scope.

use super::{Page, page_of as page};

pub(super) const PAGES: &[Page] = &[
    page(
        "WF0302",
        "a name is taken",
        "A step, variable or item has the name of something else in scope. Names are unique, so that a name means one thing wherever it is read.",
        "",
    ),
    page(
        "WF0303",
        "a reserved name",
        "`trigger inputs run flow steps item index error now` are bound by the engine and cannot be given to something else.",
        "",
    ),
    page(
        "WF0304",
        "one name, two types",
        "A name that several branches set is defined after them only if it has one type in all of them.",
        "then: [ { set: { queue: \"'malware'\" } } ]\nelse: [ { set: { queue: 3 } } ]",
    ),
    page(
        "WF0305",
        "a name of the steps around",
        "Items of a loop and branches of a parallel run side by side. If they set a name of the steps around them, the last one to finish would win. Use `collect:` or a name of their own.",
        "",
    ),
    page(
        "WF0306",
        "a step that never runs",
        "The step or handler before it always ends the run or takes every error.",
        "",
    ),
    page(
        "WF0310",
        "a race with one runner",
        "`join: any` takes the first branch that succeeds; with one branch there is nothing to choose from.",
        "",
    ),
    page(
        "WF0311",
        "an unknown name",
        "Nothing in scope has this name. Roots are `trigger inputs run flow steps now`, the ids of earlier steps, and variables that were set.",
        "",
    ),
    page("WF0312", "an unknown member", "The value has a declared type, and the type has no such member.", ""),
    page(
        "WF0313",
        "a step that may not have run",
        "The step stands in a branch, so that its output may be absent here. Guard the read, or give a default.",
        "if: has(isolation.id) && isolation.status == 'Succeeded'",
    ),
    page(
        "WF0314",
        "a step that cannot have run",
        "At this place the step has never run: it stands in another branch, in the body of a `try` whose handler this is, or later in the flow.",
        "",
    ),
    page(
        "WF0315",
        "an item with the name of something else",
        "The variable of `exists`, `all`, `map` or `filter` would hide a name in scope.",
        "alert.devices.exists(d, d.name == machine.name)",
    ),
];
