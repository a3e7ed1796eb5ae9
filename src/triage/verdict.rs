//! Which determinations go with which classification, in the spellings of both services, and what replaces an old word.
//!
//! Source: the update pages of the alert APIs of Defender for Endpoint and Microsoft Graph. Defender for Endpoint calls two
//! of these words otherwise (CompromisedUser, InsufficientData); the catalogue writes them in its dialect.

/// A classification and the determinations that go with it, in the catalogue's spelling.
pub const PAIRS: [(&str, &[&str]); 3] = [
    (
        "TruePositive",
        &[
            "MultiStagedAttack",
            "MaliciousUserActivity",
            "CompromisedAccount",
            "Malware",
            "Phishing",
            "UnwantedSoftware",
            "Apt",
            "Other",
        ],
    ),
    (
        "InformationalExpectedActivity",
        &["SecurityTesting", "LineOfBusinessApplication", "ConfirmedActivity", "SecurityPersonnel", "Other"],
    ),
    ("FalsePositive", &["NotMalicious", "NotEnoughDataToValidate", "Other"]),
];

/// Another spelling of a determination, the catalogue's, and whether the other one is out of use.
const SPELLINGS: [(&str, &str, bool); 4] = [
    ("CompromisedUser", "CompromisedAccount", false),
    ("InsufficientData", "NotEnoughDataToValidate", false),
    ("Clean", "NotMalicious", true),
    ("ConfirmedUserActivity", "ConfirmedActivity", true),
];

/// Determinations that Defender for Endpoint takes no more since August 2022; the nearest of today is our reading.
const OLD: [(&str, &str); 2] = [("Apt", "MultiStagedAttack"), ("SecurityPersonnel", "SecurityTesting")];

/// A word as the catalogue spells it, and what to write instead where it is out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    pub word: &'static str,
    pub instead: Option<&'static str>,
}

/// A determination in any spelling, in any case.
pub fn determination(text: &str) -> Option<Word> {
    let same = |word: &str| same(word, text);
    if let Some((_, word, old)) = SPELLINGS.iter().find(|(other, ..)| same(other)) {
        return Some(Word { word, instead: old.then_some(*word) });
    }
    let mut all = PAIRS.iter().flat_map(|(_, words)| words.iter());
    let word = all.find(|word| same(word))?;
    Some(Word { word, instead: OLD.iter().find(|(old, _)| old == word).map(|(_, new)| *new) })
}

/// A classification in any case.
pub fn classification(text: &str) -> Option<&'static str> {
    PAIRS.iter().map(|(word, _)| *word).find(|word| same(word, text))
}

/// The determinations that go with a classification, those out of use left out.
pub fn fitting(classification: &str) -> impl Iterator<Item = &'static str> + use<> {
    let words = PAIRS.iter().find(|(word, _)| same(word, classification)).map_or(&[][..], |(_, words)| *words);
    words.iter().copied().filter(|word| !OLD.iter().any(|(old, _)| old == word))
}

/// Whether a determination goes with a classification. The error says what does.
///
/// # Errors
/// One sentence for a pair that contradicts itself.
pub fn pair(classification: &str, determination: &str) -> Result<(), String> {
    let fits =
        PAIRS.iter().find(|(word, _)| *word == classification).is_some_and(|(_, words)| words.contains(&determination));
    if fits {
        return Ok(());
    }
    let words: Vec<&str> = fitting(classification).collect();
    Err(format!("{determination} does not go with {classification}, which takes {}", words.join(", ")))
}

/// People write the portal's words too: "Not malicious", "security testing".
fn same(word: &str, text: &str) -> bool {
    let letters = text.chars().filter(|c| c.is_ascii_alphanumeric());
    let mut word = word.chars();
    letters.clone().count() == word.clone().count()
        && letters.into_iter().all(|c| word.next().is_some_and(|w| w.eq_ignore_ascii_case(&c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_dialects_are_read_and_old_words_name_what_replaces_them() {
        let read = |text| determination(text).map(|it| (it.word, it.instead));
        assert_eq!(read("compromisedAccount"), Some(("CompromisedAccount", None)));
        assert_eq!(read("CompromisedUser"), Some(("CompromisedAccount", None)));
        assert_eq!(read("InsufficientData"), Some(("NotEnoughDataToValidate", None)));
        assert_eq!(read("clean"), Some(("NotMalicious", Some("NotMalicious"))));
        assert_eq!(read("ConfirmedUserActivity"), Some(("ConfirmedActivity", Some("ConfirmedActivity"))));
        assert_eq!(read("Apt"), Some(("Apt", Some("MultiStagedAttack"))));
        assert_eq!(read("Not malicious"), Some(("NotMalicious", None)));
        assert_eq!(read("Nothing"), None);
        assert_eq!(classification("truePositive"), Some("TruePositive"));
    }

    #[test]
    fn every_pair_of_the_reference_is_taken_and_no_other() {
        for (class, words) in PAIRS {
            for word in words {
                assert_eq!(pair(class, word), Ok(()));
            }
        }
        let wrong = pair("FalsePositive", "Malware").unwrap_err();
        assert_eq!(
            wrong,
            "Malware does not go with FalsePositive, which takes NotMalicious, NotEnoughDataToValidate, Other"
        );
        assert!(
            pair("TruePositive", "NotMalicious").is_err() && pair("InformationalExpectedActivity", "Phishing").is_err()
        );
        assert!(!fitting("TruePositive").any(|word| word == "Apt"));
    }
}
