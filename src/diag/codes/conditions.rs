//! WF05: conditions.

use super::{Page, page_of as page};

pub(super) const PAGES: &[Page] = &[
    page(
        "WF0501",
        "the expression cannot be read",
        "Conditions are CEL: `==`, `&&`, `||`, `!`, texts in quotes. A single `=`, words such as `and` and `not`, a missing operand or an open quote end here.",
        "if: alert.severity == 'High' && !alert.closed",
    ),
    page(
        "WF0502",
        "a template in a condition",
        "A condition is an expression already: names stand in it without braces.",
        "if: alert.severity == 'High'",
    ),
    page(
        "WF0503",
        "not in the language",
        "Bytes, unsigned numbers, message values and a few other parts of CEL are not offered. There is no null either: absence is asked for with `has`.",
        "if: \"!has(alert.device)\"",
    ),
    page(
        "WF0504",
        "an unknown function",
        "The function does not exist, or is called in another form or with another number of operands.",
        "",
    ),
    page(
        "WF0505",
        "too long or too deep",
        "Length, nesting and cost of an expression are bounded before it runs. Split it into `all` / `any`, or compute a part with `set`.",
        "",
    ),
    page(
        "WF0506",
        "`has` without a member",
        "`has(a.b)` asks whether `a` has a member `b`; it cannot ask about a bare name or a call.",
        "if: has(alert.device)",
    ),
    page(
        "WF0507",
        "a pattern that cannot be used",
        "Regular expressions are literal texts, compiled when the flow is loaded. They have no look-around and no back-references, so that matching takes linear time.",
        "if: alert.title.matches('(?i)powershell')",
    ),
    page(
        "WF0508",
        "a literal that cannot be read",
        "The text of a `duration`, `timestamp` or network is wrong, which is known before the flow runs.",
        "duration('7d')\nin_cidr(ip, '10.0.0.0/8')",
    ),
];
