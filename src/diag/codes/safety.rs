//! WF08: safety, as warnings.

use super::{Page, page_of as page};

pub(super) const PAGES: &[Page] = &[
    page(
        "WF0801",
        "automatic replies alone decide",
        "Whoever controls a mailbox can switch automatic replies on, also after taking it over. They are evidence only together with something that the attacker does not control.",
        "if: { all: [ out_of_office.active, \"risk.level in ['None', 'Low']\" ] }",
    ),
    page(
        "WF0802",
        "a loop without a bound of its own",
        "Without `max_items` the loop takes as many items as the built-in bound allows. Say how many are still reasonable: more are a sign of a wrong filter.",
        "max_items: 100",
    ),
    page(
        "WF0803",
        "containment without an owner",
        "A flow that can isolate devices or disable users should name who answers for it.",
        "owner: soc-tier2@contoso.example",
    ),
];
