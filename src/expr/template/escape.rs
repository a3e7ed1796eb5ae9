//! How an interpolated value is written for where it goes. The author's own text is never touched.

use crate::catalog::Context;

/// Escapes one value's text for a context.
pub(super) fn escape(text: &str, context: Context) -> String {
    match context {
        Context::Plain => text.to_owned(),
        Context::Html => html(text),
        Context::Markdown => markdown(text),
        Context::UrlSegment => percent(text),
        Context::Kql => kql(text),
        Context::Json => json(text),
        Context::Card => card(text),
        Context::CardJson => json(&card(text)),
    }
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '`' => out.push_str("&#96;"),
            '\0' => {}
            c => out.push(c),
        }
    }
    out
}

fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            // A line break of a value must not begin a heading, a list or a quote.
            '\n' | '\r' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '+' | '!' | '|' | '~' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// Everything but RFC 3986's unreserved characters; a segment of dots alone must not climb.
pub(super) fn percent(text: &str) -> String {
    let only_dots = !text.is_empty() && text.chars().all(|c| c == '.');
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        match byte {
            b'.' if only_dots => out.push_str("%2E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The content of a quoted KQL text, with either quote.
fn kql(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\'' => out.push_str("\\'"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// The content of a JSON string.
fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or("").to_owned()
}

/// The Markdown of adaptive cards, without mentions and without characters that hide or turn text.
fn card(text: &str) -> String {
    let visible: String = text.chars().filter(|c| !hidden(*c)).collect();
    markdown(&visible)
}

/// Bidirectional controls, zero-width characters and other invisible formatting.
fn hidden(c: char) -> bool {
    matches!(c,
        '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}'
        | '\u{061C}' | '\u{180E}' | '\u{FEFF}' | '\u{00AD}' | '\u{E0000}'..='\u{E007F}')
        || (c.is_control() && c != '\n' && c != '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_context_confines_a_hostile_value() {
        let hostile = "<b>\"x\" & 'y'</b>";
        assert_eq!(escape(hostile, Context::Html), "&lt;b&gt;&quot;x&quot; &amp; &#39;y&#39;&lt;/b&gt;");
        assert_eq!(escape(hostile, Context::Plain), hostile);
        assert_eq!(escape("a/../b?c#d é", Context::UrlSegment), "a%2F..%2Fb%3Fc%23d%20%C3%A9");
        assert_eq!(escape("..", Context::UrlSegment), "%2E%2E");
        assert_eq!(escape("x' or 1==1 //\n\\", Context::Kql), "x\\' or 1==1 //\\n\\\\");
        assert_eq!(escape("x\",\"comment\":\"pwn\n", Context::Json), "x\\\",\\\"comment\\\":\\\"pwn\\n");
        assert_eq!(escape("[a](http://evil) *b*\n# c", Context::Markdown), "\\[a\\]\\(http://evil\\) \\*b\\* \\# c");
    }

    #[test]
    fn a_value_stays_inside_its_text_of_a_card_file() {
        for hostile in ["x\",\"url\":\"https://evil.example", "a_b (c)", "\\\",", "a\nb\u{1}", "\\u0022"] {
            let file = format!(r#"{{"text": "{}"}}"#, escape(hostile, Context::CardJson));
            let card: serde_json::Value = serde_json::from_str(&file).unwrap();
            assert_eq!(card, serde_json::json!({"text": escape(hostile, Context::Card)}), "{hostile}");
        }
    }

    #[test]
    fn a_card_shows_no_mention_and_no_hidden_text() {
        assert_eq!(escape("<at>everyone</at>\u{202E}gpj\u{200B}", Context::Card), "&lt;at&gt;everyone&lt;/at&gt;gpj");
    }
}
