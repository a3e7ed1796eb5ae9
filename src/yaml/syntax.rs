//! What the scanner refuses, in words for people who write flows.

use std::sync::Arc;

use granit_parser::{ErrorKind, ScanError};

use super::build::quoted;
use super::{EXPRESSION_KEYS, MAX_DEPTH};
use crate::diag::{Diagnostic, Source, Span};

/// The one fault at which scanning ends.
pub(super) fn fault(source: &Arc<Source>, error: &ScanError) -> Diagnostic {
    let at = error.marker().byte_offset().unwrap_or(source.text.len()).min(source.text.len());
    if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
        let message = format!("lists and maps stand more than {MAX_DEPTH} deep here");
        return Diagnostic::error("WF0103", source, Span::new(at, at + 1), message)
            .help("nest less; in a flow, move the inner steps into one of their own and `call:` it");
    }
    let (line, _) = source.line_col(at);
    let (start, end) = source.line_bounds(line);
    let text = source.text.get(start..end).unwrap_or("");
    if let Some((key, offset, value)) = unquoted_expression(text) {
        let span = Span::new(start + offset, end);
        return Diagnostic::error("WF0114", source, span, format!("YAML cannot read this `{key}` as one text"))
            .help(format!("quote the whole condition: `{key}: {}`", quoted(value)));
    }
    if let Some((offset, value)) = unquoted_template(text) {
        let span = Span::new(start + offset, start + offset + value.len());
        return Diagnostic::error("WF0112", source, span, "YAML reads this unquoted template as a map")
            .help(format!("quote it: {}", quoted(value)));
    }
    let (message, help) = words(error.kind());
    Diagnostic::error("WF0102", source, Span::new(at, (at + 1).min(end.max(at))), message)
        .help_opt(help.map(str::to_owned))
}

/// A line `key: value` with a key that takes an expression, whose value is not in quotes or brackets of its own.
fn unquoted_expression(line: &str) -> Option<(&str, usize, &str)> {
    let content = line.trim_start_matches([' ', '-', '{', '[']);
    let (key, rest) = content.split_once(':')?;
    let value = rest.trim();
    let expression = EXPRESSION_KEYS.contains(&key) && rest.starts_with(' ');
    if !expression || value.is_empty() || value.starts_with(['"', '\'', '|', '>', '{']) {
        return None;
    }
    let offset = line.len() - rest.trim_start().len();
    Some((key, offset, value))
}

/// A value on the line that begins with `{{` outside quotes, up to the end of the value.
fn unquoted_template(line: &str) -> Option<(usize, &str)> {
    let at = line.find("{{")?;
    let before = line.get(..at)?;
    let begins_value = before.trim_end().ends_with([':', '-', ',', '[']);
    let quotes = before.matches(['"', '\'']).count();
    let value = line.get(at..)?.trim_end();
    let value = if before.contains(['{', '[']) { value.get(..value.find("}}")? + 2)? } else { value };
    (begins_value && quotes % 2 == 0).then_some((at, value))
}

fn words(kind: &ErrorKind) -> (String, Option<&'static str>) {
    const QUOTE: &str = "quote the text";
    let (message, help) = match kind {
        ErrorKind::TabInIndentation
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabInPlainScalar
        | ErrorKind::InvalidBlockEntryWhitespace
        | ErrorKind::InvalidMappingValueWhitespace
        | ErrorKind::TabAtBlockScalarStart => ("a tab stands where YAML wants spaces", Some("indent with spaces")),
        ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => {
            ("this quote is never closed", Some("close it on the line where the text ends"))
        }
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            ("something follows the closing quote", Some("put the whole text into one pair of quotes"))
        }
        ErrorKind::UnclosedFlowCollection { open } => {
            return (
                format!("this `{open}` is never closed"),
                Some("close it, or write the entries on lines of their own"),
            );
        }
        ErrorKind::UnexpectedEofFlowSequence => ("a `[` is never closed", Some("close it with `]`")),
        ErrorKind::UnexpectedEofFlowMapping | ErrorKind::UnexpectedEofImplicitFlowMapping => {
            ("a `{` is never closed", Some("close it with `}`"))
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            return (format!("`{open}` is closed by `{close}`"), None);
        }
        ErrorKind::MisplacedFlowCollectionEnd => ("this bracket closes nothing", Some(QUOTE)),
        ErrorKind::ExpectedFlowMappingSeparator => (
            "a `,` or `}` is missing before this",
            Some("separate the entries with commas; a text with brackets or commas wants quotes"),
        ),
        ErrorKind::ExpectedFlowSequenceSeparator => (
            "a `,` or `]` is missing before this",
            Some("separate the entries with commas; a text with brackets or commas wants quotes"),
        ),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            ("a `: ` cannot stand inside an unquoted text", Some("quote the text, or indent this line as a key"))
        }
        ErrorKind::InvalidIndentation
        | ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::BlockSequenceEntryNotAllowed
        | ErrorKind::InvalidFlowScalarIndent
        | ErrorKind::InvalidQuotedScalarIndent
        | ErrorKind::InvalidBlockScalarIndent
        | ErrorKind::MappingKeyNotAllowed => (
            "this line is not indented like the lines it belongs to",
            Some("give the keys of one map, and the items of one list, the same column"),
        ),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            ("a key without a `:`", Some("write `key: value`"))
        }
        ErrorKind::UnexpectedCharacter { character } => {
            return (format!("an unquoted text cannot begin with `{}`", character.escape_default()), Some(QUOTE));
        }
        ErrorKind::UnknownQuotedScalarEscape | ErrorKind::InvalidQuotedScalarHexEscape => {
            ("an unknown escape in double quotes", Some("use single quotes, or write `\\\\` for a backslash"))
        }
        ErrorKind::BlockEntryInFlowCollection => ("`- ` inside brackets", Some("separate the items with commas")),
        other => return (format!("this is not YAML: {}", other.to_string().to_lowercase()), None),
    };
    (message.to_owned(), help)
}
