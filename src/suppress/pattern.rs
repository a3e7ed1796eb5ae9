//! Patterns of values: letters in any case, and `*` for any number of any. Matching takes time in proportion to the text,
//! whatever the pattern.

/// Letters of a pattern.
pub const LONGEST: usize = 1_000;
/// Letters of a text that are looked at; what lies behind them is taken for nothing.
pub const SEEN: usize = 32 * 1024;

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// What stands between the stars, in lower case; empty parts stand where a star is at an end.
    parts: Vec<String>,
    text: String,
}

impl Pattern {
    pub fn new(text: &str) -> Pattern {
        let parts = text.to_lowercase().split('*').map(str::to_owned).collect();
        Pattern { parts, text: text.to_owned() }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it matches everything, and so says nothing.
    pub fn is_everything(&self) -> bool {
        self.parts.len() > 1 && self.parts.iter().all(String::is_empty)
    }

    /// Whether it matches a text that is in lower case already.
    pub fn matches_lower(&self, text: &str) -> bool {
        let [first, middle @ .., last] = self.parts.as_slice() else {
            return self.parts.first().is_some_and(|only| only == text);
        };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
        // The leftmost place of each part leaves the most for those behind it, so that none has to be tried again.
        for part in middle {
            let Some((_, after)) = rest.split_once(part.as_str()) else { return false };
            rest = after;
        }
        rest.ends_with(last.as_str())
    }

    pub fn matches(&self, text: &str) -> bool {
        self.matches_lower(&lower(text))
    }
}

/// A text as patterns want it: in lower case, cut where it is endless.
pub fn lower(text: &str) -> String {
    let end = text.char_indices().nth(SEEN).map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or("").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_cases_are_what_people_expect() {
        for (pattern, text, want) in [
            ("setup.exe", "SETUP.EXE", true),
            ("setup*.exe", "setup-1.2.exe", true),
            ("setup*.exe", "setup.exe", true),
            ("setup*.exe", "my-setup.exe", false),
            ("*\\deploy\\*", r"C:\Tools\Deploy\run.ps1", true),
            ("*a*a", "a", false),
            ("*a*a", "aa", true),
            ("a*", "", false),
            ("", "", true),
            ("", "x", false),
            ("*", "anything", true),
            ("STRASSE*", "strasse 1", true),
            ("*.contoso.example", "pc.CONTOSO.example", true),
            ("x*y*z", "x-z-y", false),
            ("[a].*", "[A].(b)", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), want, "{pattern} on {text}");
        }
        assert!(
            Pattern::new("**").is_everything()
                && !Pattern::new("").is_everything()
                && !Pattern::new("a*").is_everything()
        );
    }

    /// What makes a matcher that tries everything try for years.
    #[test]
    fn no_pattern_takes_long_on_any_text() {
        let pattern = Pattern::new(&"*a".repeat(LONGEST / 2));
        let text = "a".repeat(SEEN / 2) + "b";
        let clock = crate::clock::Clock::system();
        let before = clock.now();
        for _ in 0..20 {
            assert!(!pattern.matches(&text));
        }
        assert!(clock.now().duration_since(before) < jiff::SignedDuration::from_secs(5));
        assert_eq!(lower(&"é".repeat(SEEN + 10)).chars().count(), SEEN);
    }
}
