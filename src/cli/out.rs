//! Printing: data as a table, JSON or lines of JSON; talk and errors on stderr. Nothing that a service or a file wrote
//! reaches a terminal unescaped.

use std::io::{IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value as Json;

use super::{Color, Format, Global};
use crate::diag;
use crate::error::Error;

pub(super) struct Out {
    format: Format,
}

impl Out {
    pub(super) fn new(global: &Global) -> Self {
        let choice = match global.color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        Out { format: global.output }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    pub(super) fn is_human(&self) -> bool {
        self.format == Format::Human
    }

    /// Whether what goes to stdout may be coloured.
    pub(super) fn colors(&self) -> bool {
        anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
    }

    pub(super) fn colors_err(&self) -> bool {
        anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
    }

    /// A line of data. A closed pipe (`| head`) ends the reader's interest, not the program with an error.
    pub(super) fn line(&self, text: &str) {
        drop(writeln!(anstream::stdout().lock(), "{text}"));
    }

    /// A line of talk.
    pub(super) fn say(&self, text: &str) {
        drop(writeln!(anstream::stderr().lock(), "{text}"));
    }

    /// A question; the answer stands behind it.
    pub(super) fn ask(&self, text: &str) {
        let mut to = anstream::stderr().lock();
        drop(write!(to, "{text}"));
        drop(to.flush());
    }

    pub(super) fn error(&self, error: &Error) {
        let mut lines = vec![format!("error: {}", safe(&error.message))];
        lines.extend(error.help.iter().map(|help| format!("  help: {}", safe(help))));
        self.say(&lines.join("\n"));
    }

    /// One document.
    pub(super) fn json(&self, value: &Json) {
        let text = match self.format {
            Format::Jsonl => serde_json::to_string(value),
            _ => serde_json::to_string_pretty(value),
        };
        self.line(&safe_json(&text.unwrap_or_default()));
    }

    /// A list: a table, one document, or one line each.
    pub(super) fn list(&self, items: &[Json], header: &[&str], row: impl Fn(&Json) -> Vec<String>) {
        match self.format {
            Format::Json => self.json(&Json::Array(items.to_vec())),
            Format::Jsonl => items.iter().for_each(|item| self.json(item)),
            Format::Human | Format::Github => self.table(header, items.iter().map(row)),
        }
    }

    pub(super) fn table(&self, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        if !std::io::stdout().is_terminal() {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        table.set_header(header.iter().map(|name| name.to_uppercase()));
        for row in rows {
            table.add_row(row.iter().map(|cell| safe(cell)));
        }
        let text = table.to_string();
        for line in text.lines() {
            self.line(line.trim_end());
        }
    }
}

/// Text of a service or a file for a terminal: what a terminal would act on is written as an escape.
pub(super) fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => safe.push(' '),
            c if diag::acts(c) => safe.push_str(&format!("\\x{{{:x}}}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

/// The text of a JSON document for a terminal: JSON itself escapes only what lies below U+0020. Beyond ASCII such letters
/// stand inside of strings alone, where an escape means the same.
fn safe_json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c >= '\u{7f}' && diag::acts(c) {
            let mut units = [0u16; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| safe.push_str(&format!("\\u{unit:04x}")));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A member of a JSON object as the text of a cell.
pub(super) fn cell(item: &Json, name: &str) -> String {
    match item.get(name) {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(text)) => to_the_second(text),
        Some(Json::Object(members)) => {
            let pairs: Vec<_> = members.iter().map(|(key, value)| format!("{key} {value}")).collect();
            pairs.join(", ")
        }
        Some(other) => other.to_string(),
    }
}

/// Text for a person; of an instant nobody reads the fraction of a second, which JSON keeps.
fn to_the_second(text: &str) -> String {
    let instant = text.ends_with('Z') && text.contains('.') && text.starts_with(|first: char| first.is_ascii_digit());
    let parsed = instant.then(|| text.parse::<jiff::Timestamp>().ok()).flatten();
    parsed.map_or_else(|| text.to_owned(), |at| format!("{at:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_shown_to_the_second_and_other_text_as_it_is() {
        for (text, shown) in [
            ("2026-11-24T11:40:15.999948688Z", "2026-11-24T11:40:15Z"),
            ("2026-11-24T11:40:15Z", "2026-11-24T11:40:15Z"),
            ("3.5 Z", "3.5 Z"),
            ("Archive 1.2.Z", "Archive 1.2.Z"),
        ] {
            assert_eq!(cell(&serde_json::json!({ "at": text }), "at"), shown);
        }
    }

    #[test]
    fn terminals_are_not_driven_by_titles() {
        assert_eq!(safe("a\x1b]52;c;x\x07b"), "a\\x{1b}]52;c;x\\x{7}b");
        assert_eq!(safe("\u{206a}\u{fff9}"), "\\x{206a}\\x{fff9}");
        assert_eq!(safe("x\u{202e}y\nz é"), "x\\x{202e}y z é");
    }

    #[test]
    fn json_drives_no_terminal_and_means_the_same() {
        let value = serde_json::json!({ "title\u{202e}": "a\u{9b}2J\u{7f}\u{1b}[2J é\u{2066}" });
        let text = safe_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.chars().all(|c| c == '\n' || !diag::acts(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), value);
    }
}
