//! 09: suppression rules.

use super::{Page, page_of as page};

pub(super) const PAGES: &[Page] = &[
    page(
        "WF0901",
        "an unknown key of a suppression rule",
        "The place has no such key. A misspelled key would make a rule that suppresses more than was meant, so it is an error.",
        "evidence: { file: { name: \"setup*.exe\" } }",
    ),
    page(
        "WF0902",
        "a rule that lacks something",
        "Each rule has a name, a comment, an owner, an end, a type of alert and an action: whoever meets it in a year must know why it is there and whom to ask.",
        "expires: 2027-02-01",
    ),
    page(
        "WF0903",
        "a value of a rule that can't be meant",
        "The value has the wrong shape, or is no word of its place. `watchfloor schema suppression` prints all of them.",
        "alert: { source: endpoint, title: \"Suspicious PowerShell*\" }",
    ),
    page(
        "WF0904",
        "an expired rule",
        "The rule's end has passed: it suppresses nothing any more. Delete it, or look at it again and give it a later end.",
        "",
    ),
    page(
        "WF0905",
        "any alert, and no condition",
        "A rule for any type of alert without a condition on evidence would suppress every alert there is.",
        "alert: any\nevidence: { file: { sha256: 220e7d15b0b3d7fac48f2bd61114db1022197f7f4e2a0e1e1a5e0c4b2f6d7a90 } }",
    ),
    page(
        "WF0907",
        "a rule for users alone",
        "What hides alerts of a person, wherever it happens, is decided by whoever administers the installation: the configuration names such rules under `user_scoped_suppressions:`. Narrowed to devices or device groups too, a rule needs no leave.",
        "user_scoped_suppressions: [travelling-sales]",
    ),
    page(
        "WF0908",
        "a condition that is always true",
        "The pattern matches everything, or the condition names no value: it says nothing about the alert.",
        "file: { name: \"setup*.exe\" }   # not { name: \"*\" }",
    ),
    page(
        "WF0909",
        "a rule that lives long",
        "The rule ends in more than a year. What is harmless today may not be then; give it an end at which somebody looks again.",
        "",
    ),
    page(
        "WF0910",
        "two rules of one name",
        "Lists, the audit log and `why` name rules; two of one name could not be told apart, so neither is taken.",
        "",
    ),
];
