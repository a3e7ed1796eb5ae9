//! What is read, and what is refused without running out of stack or time.

use super::*;

fn codes(text: &str) -> Vec<(&'static str, usize, usize)> {
    let source = Source::new("t.yaml", text);
    let faults = match parse(&source) {
        Ok(_) => vec![],
        Err(faults) => faults,
    };
    faults
        .iter()
        .map(|fault| {
            let (line, column) = source.line_col(fault.span.start);
            (fault.code, line, column)
        })
        .collect()
}

fn tree(text: &str) -> Node {
    parse(&Source::new("t.yaml", text)).unwrap()
}

fn get<'n>(node: &'n Node, key: &str) -> &'n Node {
    let Kind::Map(entries) = &node.kind else { panic!("no map") };
    &entries.iter().find(|entry| entry.key == key).unwrap().value
}

#[test]
fn spans_are_bytes_of_the_file() {
    let text = "a: é plain # c\nb: 'it''s'\nc: [x, \"y\"]\nd:\n  e: 1\n  f: |\n    text\n\ng: last\n";
    let root = tree(text);
    let slice = |node: &Node| text.get(node.span.start..node.span.end).unwrap();
    assert_eq!(slice(get(&root, "a")), "é plain");
    assert_eq!(slice(get(&root, "b")), "'it''s'");
    assert_eq!(slice(get(&root, "c")), "[x, \"y\"]");
    assert_eq!(slice(get(get(&root, "d"), "e")), "1");
    assert!(slice(get(get(&root, "d"), "f")).contains("text"), "{:?}", slice(get(get(&root, "d"), "f")));
    assert!(slice(get(&root, "d")).starts_with("e: 1"), "{:?}", slice(get(&root, "d")));
    assert_eq!(get(&root, "b").scalar().unwrap().text, "it's");
}

#[test]
fn a_byte_order_mark_is_tolerated_and_no_column() {
    let root = tree("\u{feff}a: 1\n");
    assert_eq!(get(&root, "a").scalar().unwrap().text, "1");
    assert_eq!(codes("\u{feff}!t a: 1\n"), [("WF0106", 1, 1)]);
}

#[test]
fn what_flows_do_not_have_is_refused_where_it_stands() {
    assert_eq!(codes("a: &x 1\nb: *x\n"), [("WF0105", 1, 4), ("WF0105", 2, 4)]);
    assert_eq!(codes("a: *nope\n"), [("WF0105", 1, 4)]);
    assert_eq!(codes("a: !!python/object x\n"), [("WF0106", 1, 4)]);
    assert_eq!(codes("b:\n  <<: {a: 1}\n"), [("WF0107", 2, 3)]);
    assert_eq!(codes("a: 1\nb: 2\na: 3\n"), [("WF0108", 3, 1)]);
    assert_eq!(codes("a: 1\n---\nb: 2\n"), [("WF0109", 2, 1)]);
    assert_eq!(codes("a: \0\n"), [("WF0110", 1, 4)]);
    assert_eq!(codes("[a]: 1\n? {b: 1}\n: 2\n"), [("WF0111", 1, 1), ("WF0111", 2, 3)]);
    assert_eq!(codes(""), [("WF0113", 1, 1)]);
    assert_eq!(codes("a:\n\tb: 1\n"), [("WF0102", 2, 2)]);
}

#[test]
fn an_unquoted_template_says_so() {
    for text in ["a: {{ b }}\n", "a: {{ b.c }} and more\n", "a: {{ default b 'c' }}\n", "a: {{= b + 1 }}\n"] {
        assert_eq!(codes(text), [("WF0112", 1, 4)], "{text}");
    }
    assert_eq!(codes("a: [{{ b }}, x]\n"), [("WF0112", 1, 5)]);
    assert_eq!(codes("a: { to: {{ b }} }\n"), [("WF0112", 1, 10)]);
}

#[test]
fn a_condition_that_yaml_splits_says_quote() {
    assert_eq!(codes("if: !has(a.b)\n"), [("WF0114", 1, 5)]);
    assert_eq!(codes("if: !a[0].b\n"), [("WF0114", 1, 5)]);
    assert_eq!(codes("if: !a && !b\n"), [("WF0114", 1, 5)]);
    assert_eq!(codes("x:\n  - if: a == 'b: c' && d\n"), [("WF0114", 2, 9)]);
    assert_eq!(codes("set: { a: !b }\n"), [("WF0114", 1, 11)]);
}

#[test]
fn hostile_files_end_quickly() {
    let bomb: String = (1..9).map(|n| format!("a{n}: &a{n} [{}]\n", format!("*a{},", n - 1).repeat(9))).collect();
    assert!(codes(&bomb).iter().all(|(code, ..)| *code == "WF0105"));
    assert_eq!(codes(&"[".repeat(20_000)).first().map(|fault| fault.0), Some("WF0103"));
    let deep: String = (0..3_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    let found = codes(deep.get(..1 << 20).unwrap_or(&deep));
    assert!(matches!(found.first().map(|fault| fault.0), Some("WF0103" | "WF0101")), "{found:?}");
    assert_eq!(codes(&"{a: ".repeat(3_000)).first().map(|fault| fault.0), Some("WF0103"));
    assert_eq!(codes(&"- 1\n".repeat(60_000)).first().map(|fault| fault.0), Some("WF0104"));
    assert_eq!(codes(&"x".repeat(MAX_BYTES + 1)).first().map(|fault| fault.0), Some("WF0101"));
    assert!(codes(&"a: 1\n".repeat(50_000)).len() <= MAX_FAULTS);
    assert_eq!(codes(&"{{".repeat(20_000)).last().map(|fault| fault.0), Some("WF0103"));
}
