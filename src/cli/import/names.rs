//! Names of others in our form: small letters, digits and `_`, the first a letter.

use std::collections::BTreeSet;

/// `listPets`, `pets/list`, `X-Request-Id` → `list_pets`, `pets_list`, `x_request_id`. Cut at `longest`; `fallback` where
/// nothing of it is left.
pub(super) fn snake(text: &str, longest: usize, fallback: &str) -> String {
    let mut out = String::new();
    let chars: Vec<char> = text.chars().collect();
    for (index, c) in chars.iter().enumerate() {
        if !c.is_ascii_alphanumeric() {
            if !out.is_empty() && !out.ends_with('_') {
                out.push('_');
            }
            continue;
        }
        let before = index.checked_sub(1).and_then(|at| chars.get(at));
        let after = chars.get(index + 1);
        // A new word: `listPets`, and the last letter of `HTTPServer`'s first word.
        let begins = c.is_ascii_uppercase()
            && before.is_some_and(|b| {
                b.is_ascii_lowercase()
                    || b.is_ascii_digit()
                    || (b.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase))
            });
        if begins && !out.ends_with('_') {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    let out = out.trim_matches('_');
    let out: String = out.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_').chars().take(longest).collect();
    let out = out.trim_end_matches('_');
    if out.is_empty() { fallback.to_owned() } else { out.to_owned() }
}

/// The name of a type: `PetOwner`.
pub(super) fn pascal(text: &str) -> String {
    let words = snake(text, 60, "thing");
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
    };
    words.split('_').map(word).collect()
}

/// The name, with a number where it is taken.
pub(super) fn unique(name: String, taken: &mut BTreeSet<String>) -> String {
    let mut found = name.clone();
    let mut number = 2;
    while !taken.insert(found.clone()) {
        found = format!("{name}_{number}");
        number += 1;
    }
    found
}

/// Text of others as one line, cut at a character.
pub(super) fn line(text: &str, longest: usize) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let whole = words.join(" ");
    if whole.chars().count() <= longest {
        return whole;
    }
    whole.chars().take(longest.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_get_our_form() {
        for (theirs, ours) in [
            ("listPets", "list_pets"),
            ("pets/list-all", "pets_list_all"),
            ("GetHTTPServer", "get_http_server"),
            ("X-Request-Id", "x_request_id"),
            ("3dModels", "d_models"),
            ("__", "x"),
            ("größe", "gr_e"),
        ] {
            assert_eq!(snake(theirs, 60, "x"), ours, "{theirs}");
        }
        assert_eq!(pascal("pet-owner"), "PetOwner");
        let mut taken = BTreeSet::new();
        let names: Vec<String> = ["a", "a", "a"].map(|name| unique(name.into(), &mut taken)).into();
        assert_eq!(names, ["a", "a_2", "a_3"]);
        assert_eq!(line("a\n\u{1b}[2J  b", 60), "a [2J b");
    }
}
