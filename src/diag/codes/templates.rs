//! WF06: templates.

use super::{Page, page_of as page};

pub(super) const PAGES: &[Page] = &[
    page(
        "WF0601",
        "the template cannot be read",
        "Braces are empty or never closed, a block is not ended, or what stands in them is no path.",
        "{{ alert.title }}",
    ),
    page(
        "WF0602",
        "not in the language",
        "Of Handlebars there are paths, helpers and `{{= CEL }}`; in template files also `#each`, `#if` and `else`. Raw output, partials, `this`, `../` and the rest could defeat escaping or the check of names.",
        "",
    ),
    page(
        "WF0603",
        "an unknown helper",
        "The helpers are `json join table count date default upper lower truncate url_encode base64 explain`.",
        "{{ date alert.created \"%d %b %H:%M\" }}",
    ),
    page(
        "WF0604",
        "not printable",
        "An object or a list in text would print as something nobody wants to read. Choose a member, or a helper that renders it.",
        "{{ join alert.users ', ' }}",
    ),
    page("WF0605", "too long or too deep", "Size and nesting of a template are bounded before it is read.", ""),
    page(
        "WF0606",
        "wrong operands of a helper",
        "The helper takes other operands, or another number of them.",
        "{{ default alert.owner 'nobody' }}",
    ),
    page(
        "WF0607",
        "a block used wrongly",
        "`#each` and `#if` take one path, and `{{= CEL }}` does not stand inside `#each`.",
        "{{#each alert.users}}{{ name }}{{/each}}",
    ),
];
