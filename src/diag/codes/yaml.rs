//! WF01: the file and its YAML.

use super::{Page, page_of as page};

pub(super) const PAGES: &[Page] = &[
    page(
        "WF0101",
        "the file is too large",
        "A flow file has at most 1 MiB. A flow is meant to fit on a screen: split it, or keep data in a service and read it with a step.",
        "",
    ),
    page(
        "WF0102",
        "this is not YAML",
        "The text cannot be read as YAML. Reading stops here, so that later faults of the file show only when this one is mended.",
        "steps:\n\t- wait: 1m   # a tab indents this line",
    ),
    page(
        "WF0103",
        "nested too deep",
        "Lists and maps may stand 64 levels inside each other. Deeper nesting is unreadable in a review; a called flow begins at the top again.",
        "",
    ),
    page(
        "WF0104",
        "too many values",
        "A flow file has at most 50,000 scalars, lists and maps, so that reading it is bounded in time and memory.",
        "",
    ),
    page(
        "WF0105",
        "an anchor or an alias",
        "Anchors (`&name`) and aliases (`*name`) make a file mean something other than what stands at the place one reads, and small files can grow without bound through them. They are refused.",
        "a: &x 1\nb: *x   # write 1 here",
    ),
    page(
        "WF0106",
        "a tag",
        "YAML tags (`!include`, `!!python/object`) ask the reader to build objects or to read files. Flows have none. A text that begins with `!` wants quotes.",
        "comment: \"!important\"",
    ),
    page(
        "WF0107",
        "a merge key",
        "A merge key (`<<`) lets a value far away override what stands here, such as an approval. It is refused.",
        "",
    ),
    page(
        "WF0108",
        "a key stands twice",
        "One of two equal keys of a map would silently win. Both lines are named: keep one.",
        "approval: required\napproval: none",
    ),
    page(
        "WF0109",
        "several documents",
        "A flow file is one flow. A second document would be a flow without a name of its own in git.",
        "",
    ),
    page(
        "WF0110",
        "a NUL byte",
        "A NUL byte means that the file is not text, or that it is saved as UTF-16. Flow files are UTF-8.",
        "",
    ),
    page(
        "WF0111",
        "a key that is no word",
        "The keys of maps are single words or texts. A list or map as a key has no meaning in a flow.",
        "",
    ),
    page(
        "WF0112",
        "an unquoted template",
        "Without quotes `{{ path }}` is a YAML map inside a map. Put the whole text into quotes.",
        "with: { alert_id: \"{{ trigger.alert_id }}\" }",
    ),
    page("WF0113", "the file is empty", "A flow file has at least `flow:`, `trigger:` and `steps:`.", ""),
    page(
        "WF0114",
        "a condition wants quotes",
        "A condition stands in YAML as it is. Where YAML would read a part of it as its own (a `!` at its start is a tag, ` #` begins a comment, `: ` begins a value), the whole condition goes into quotes, and the texts inside it into the other kind of quotes.",
        "if: \"!has(alert.device)\"\nif: \"alert.title == 'ticket #7'\"",
    ),
    page(
        "WF0197",
        "the file cannot be read",
        "The file is missing, too large, no regular file, a link that leads out of its folder, or not text; or every user of the machine can change it or its folder. Nothing of it was looked at.",
        "",
    ),
    page(
        "WF0198",
        "two flows with one name",
        "A flow's name is what its runs, keys and limits belong to. Two files with one name would share them, so neither is taken before one is renamed.",
        "flow: isolate-high-severity   # in two files",
    ),
    page(
        "WF0199",
        "checking stopped with a bug",
        "watchfloor itself failed while it checked the files, which must not look like a clean result. Please report it with the files.",
        "",
    ),
];
