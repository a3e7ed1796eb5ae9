//! WF04: types.

use super::{Page, page_of as page};

pub(super) const PAGES: &[Page] = &[
    page(
        "WF0401",
        "another type",
        "A value of one type stands where another is wanted. Types come from the catalogue, from `inputs:` and from declared columns. \"12\" is not an integer.",
        "with: { top: \"{{ page.count }}\" }   # an int, since the text is exactly one expression",
    ),
    page(
        "WF0402",
        "not a value of the enum",
        "The parameter takes one of a closed set of words.",
        "isolation_type: Full   # Full | Selective",
    ),
    page("WF0403", "a missing parameter", "The action, the flow or the object needs this member.", ""),
    page(
        "WF0404",
        "an unknown parameter",
        "The action, the flow or the object has no such member. `watchfloor actions show NAME` lists them.",
        "",
    ),
    page(
        "WF0405",
        "a wrong declaration",
        "A type or a limit is declared in a way that has no meaning.",
        "limits: { destructive: [{ max: 5, per: 10m }] }",
    ),
    page(
        "WF0406",
        "cases that do not fit",
        "The cases of a `switch` are whole values of its expression, each once, and together they cover every value of an enum, or there is a `default`.",
        "",
    ),
    page(
        "WF0407",
        "a path or a query that is not fixed",
        "Files are read when the flow is loaded, so that a run is pinned to their text: their paths have no templates. A hunting query has none either: its values are bound with `params:`, so that no text of an alert becomes KQL.",
        "",
    ),
    page(
        "WF0408",
        "a file that cannot be read",
        "The flow includes a file that is not there or that may not be read. Paths are relative to the flow, and stay below it.",
        "",
    ),
    page(
        "WF0409",
        "an id of another shape",
        "A fixed id does not have the shape of its service's ids. Ids are taken bare, with the prefix of another API, or inside the address of a portal's page.",
        "with: { machine_id: 1e5bc9d7e413ddd7902c2932e418702b84d0cc07 }",
    ),
    page(
        "WF0411",
        "a value that never occurs",
        "The enum has no such value, so that the comparison would always come out the same. Enums keep the spelling of the portal.",
        "if: alert.severity == 'High'   # not 'high'",
    ),
    page("WF0412", "a comparison that makes no sense", "The two sides can never be equal, or have no order.", ""),
    page(
        "WF0413",
        "an operator on the wrong types",
        "The operator does not work on values of these types. Nothing is converted behind your back: use `string(x)`, `int(x)` or `double(x)`.",
        "",
    ),
    page(
        "WF0414",
        "not true or false",
        "A condition, or an operand of `&&`, `||` and `!`, must be true or false.",
        "if: size(alert.users) > 0",
    ),
    page(
        "WF0415",
        "no such access",
        "The value has no members, or is indexed by the wrong type.",
        "alert.devices.exists(d, d.os_platform == 'Linux')",
    ),
    page(
        "WF0416",
        "an optional without an answer",
        "`a.?b` gives an optional; say what absence means before it is used.",
        "a.?b.orValue('none')",
    ),
    page(
        "WF0417",
        "a word that is out of use",
        "The services renamed this determination, or take it no more. It is written in the spelling of today where there is one; the help names it.",
        "determination: NotMalicious   # was Clean",
    ),
];
