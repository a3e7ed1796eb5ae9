//! Diagnostics as text for people and as JSON for tools.

use super::Diagnostic;

/// All diagnostics as text for a terminal.
pub fn render(diagnostics: &[Diagnostic], _color: bool) -> String {
    diagnostics
        .iter()
        .map(|d| {
            let (line, column) = d.source.line_col(d.span.start);
            format!("{}:{line}:{column}: {} {}\n", d.source.name, d.code, d.message)
        })
        .collect()
}

/// One diagnostic as the JSON shape of `check -o json`.
pub fn json(diagnostic: &Diagnostic) -> serde_json::Value {
    let (line, column) = diagnostic.source.line_col(diagnostic.span.start);
    serde_json::json!({
        "file": diagnostic.source.name, "line": line, "column": column, "code": diagnostic.code,
        "severity": match diagnostic.severity { super::Severity::Error => "error", super::Severity::Warning => "warning" },
        "message": diagnostic.message, "help": diagnostic.help,
    })
}
