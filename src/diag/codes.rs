//! The page of every diagnostic code: what it means, why it is refused, and an example. `explain CODE` prints it.
//!
//! A code never changes its meaning. The tables are kept by the layer that raises the code.

mod actions;
mod conditions;
mod safety;
mod scope;
mod shape;
mod suppressions;
mod templates;
mod types;
mod yaml;

/// What is known about one code.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// `WF` and four digits.
    pub code: &'static str,
    pub title: &'static str,
    /// One paragraph.
    pub text: &'static str,
    /// Lines that raise it, or the mend; may be empty.
    pub example: &'static str,
}

const fn page_of(code: &'static str, title: &'static str, text: &'static str, example: &'static str) -> Page {
    Page { code, title, text, example }
}

/// All pages, by layer. A layer with codes of its own adds its table here.
const TABLES: &[&[Page]] = &[
    yaml::PAGES,
    shape::PAGES,
    scope::PAGES,
    types::PAGES,
    conditions::PAGES,
    templates::PAGES,
    actions::PAGES,
    safety::PAGES,
    suppressions::PAGES,
];

/// Every page, in the order of the codes.
pub fn pages() -> impl Iterator<Item = &'static Page> {
    TABLES.iter().flat_map(|table| table.iter())
}

/// The page of a code, in any case of its letters.
pub fn page(code: &str) -> Option<&'static Page> {
    pages().find(|page| page.code.eq_ignore_ascii_case(code.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_page_and_they_are_in_order() {
        for table in TABLES {
            assert!(table.windows(2).all(|pair| pair[0].code < pair[1].code));
        }
        for page in pages() {
            let digits = page.code.strip_prefix("WF").unwrap();
            assert!(digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit()), "{}", page.code);
            assert_eq!(pages().filter(|other| other.code == page.code).count(), 1, "{}", page.code);
            assert!(page.text.ends_with('.') && !page.title.ends_with('.'), "{}", page.code);
        }
        assert_eq!(page("wf0108").map(|page| page.code), Some("WF0108"));
        assert!(page("WF9999").is_none());
    }
}
