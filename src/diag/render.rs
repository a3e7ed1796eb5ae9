//! Diagnostics as text for people and as JSON for tools.
//!
//! Flow files and their names are untrusted: control characters, escape sequences and direction marks are shown, never sent.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Diagnostic, Severity, Span};

/// Text of one window of a file that is shown at most, in bytes; a longer one is named by its position only.
const MAX_WINDOW: usize = 16 << 10;

/// All diagnostics as text for a terminal, each with the lines it speaks of.
pub fn render(diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for diagnostic in diagnostics {
        let text = one(&renderer, diagnostic);
        out.push_str(text.trim_end());
        out.push_str("\n\n");
    }
    out
}

/// One diagnostic as the JSON shape of `check -o json`.
pub fn json(diagnostic: &Diagnostic) -> serde_json::Value {
    let (line, column) = diagnostic.source.line_col(diagnostic.span.start);
    serde_json::json!({
        "file": diagnostic.source.name, "line": line, "column": column, "code": diagnostic.code,
        "severity": match diagnostic.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "message": diagnostic.message, "help": diagnostic.help,
    })
}

/// Text with everything that a terminal would act on written as `\u{…}`: control characters, direction marks, separators.
pub fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, letter| {
        if acts(letter) {
            out.extend(letter.escape_unicode())
        } else {
            out.push(letter)
        }
        out
    })
}

/// Whether a terminal, or whoever reads along, acts on a letter instead of showing it. The one list for all that is printed.
pub fn acts(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

fn one(renderer: &Renderer, diagnostic: &Diagnostic) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let source = &diagnostic.source;
    let (line, column) = source.line_col(diagnostic.span.start);
    let title = level.primary_title(escaped(&diagnostic.message)).id(diagnostic.code);
    let path = escaped(&source.name);
    let mut group = Group::with_title(title);
    let note = diagnostic.note.as_ref();
    let both = note.and_then(|(span, _)| Window::over(diagnostic, &[diagnostic.span, *span]));
    let in_window = both.is_some();
    match both.or_else(|| Window::over(diagnostic, &[diagnostic.span])) {
        Some(window) => {
            let mut snippet = Snippet::source(window.text.clone())
                .path(path)
                .line_start(window.line)
                .annotation(AnnotationKind::Primary.span(window.range(diagnostic.span)));
            if let (true, Some((span, text))) = (in_window, note) {
                snippet = snippet.annotation(AnnotationKind::Context.span(window.range(*span)).label(escaped(text)));
            }
            group = group.element(snippet);
        }
        None => {
            group = group.element(annotate_snippets::Origin::path(path).line(line).char_column(column));
        }
    }
    if let (false, Some((span, text))) = (in_window, note) {
        let (line, column) = source.line_col(span.start);
        group = group.element(Level::NOTE.message(format!("{line}:{column}: {}", escaped(text))));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(escaped(help)));
    }
    renderer.render(&[group])
}

/// The whole lines of a file that hold some places, escaped, with the map from the file's bytes to the window's.
struct Window {
    line: usize,
    text: String,
    /// Byte of the file → byte of the escaped text, for every character and the end.
    map: Vec<(usize, usize)>,
}

impl Window {
    fn over(diagnostic: &Diagnostic, spans: &[Span]) -> Option<Window> {
        let source = &diagnostic.source;
        let lines = || spans.iter().map(|span| source.line_col(span.start).0);
        let (first, last) = (lines().min()?, lines().max()?);
        let (start, end) = (source.line_bounds(first).0, source.line_bounds(last).1);
        let raw = source.text.get(start..end).filter(|text| text.len() <= MAX_WINDOW)?;
        let mut text = String::with_capacity(raw.len());
        let mut map = Vec::with_capacity(raw.len() + 1);
        for (at, letter) in raw.char_indices() {
            map.push((start + at, text.len()));
            match letter {
                '\n' => text.push('\n'),
                '\t' => text.push_str("    "),
                '\r' if raw.as_bytes().get(at + 1) == Some(&b'\n') => {}
                letter if acts(letter) => text.extend(letter.escape_unicode()),
                letter => text.push(letter),
            }
        }
        map.push((end, text.len()));
        Some(Window { line: first, text, map })
    }

    /// A place as bytes of the window, cut at the end of its first line.
    fn range(&self, span: Span) -> Range<usize> {
        let at = |offset: usize| {
            let index = self.map.partition_point(|(from, _)| *from < offset).min(self.map.len().saturating_sub(1));
            self.map.get(index).map_or(0, |(_, to)| *to)
        };
        let (start, end) = (at(span.start), at(span.end));
        let line_end = self.text.get(start..).and_then(|rest| rest.find('\n')).map_or(self.text.len(), |to| start + to);
        start..end.clamp(start, line_end)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Diagnostic, Source};
    use super::*;

    #[test]
    fn a_diagnostic_shows_its_line_its_note_and_its_help() {
        let source = Source::new("flows/a.yaml", "flow: a\nmode: live\nflow: b\n");
        let fault = Diagnostic::error("WF0108", &source, Span::new(19, 23), "`flow` stands twice")
            .note(Span::new(0, 4), "the first one")
            .help("keep one");
        let text = render(&[fault], false);
        for part in
            ["error[WF0108]: `flow` stands twice", "--> flows/a.yaml:3:1", "the first one", "^^^^", "help: keep one"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn hostile_text_is_shown_and_not_sent() {
        let bad = "a: \u{1b}]52;c;aGk=\u{7} \u{202e}x\u{9b}2J\n";
        let source = Source::new("\u{1b}[2Jname.yaml", bad);
        let fault = Diagnostic::error("WF0102", &source, Span::new(3, 9), format!("odd {bad}")).help(bad);
        let text = render(&[fault], false);
        assert!(text.chars().all(|c| c == '\n' || !acts(c)), "{text:?}");
        assert!(text.contains("\\u{1b}]52"), "{text}");
    }

    #[test]
    fn odd_places_do_not_panic() {
        let source = Source::new("a", "é\r\nb\t\u{0}");
        for start in 0..9 {
            for end in 0..12 {
                let fault =
                    Diagnostic::error("WF0102", &source, Span::new(start, end), "m").note(Span::new(end, start), "n");
                assert!(render(&[fault], true).contains("WF0102"));
            }
        }
        let long = Source::new("a", "x".repeat(1 << 20));
        let text = render(&[Diagnostic::error("WF0102", &long, Span::new(9, 10), "m")], false);
        assert!(text.len() < 500 && text.contains("a:1:10"), "{text}");
    }
}
