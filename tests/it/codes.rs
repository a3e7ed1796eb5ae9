//! Every diagnostic code that the source raises has a page, and every page is of a code that is raised.

use std::collections::BTreeSet;
use std::path::Path;

use watchfloor::diag::codes;

#[test]
fn codes_and_pages_are_the_same_set() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut raised = BTreeSet::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.to_string_lossy().contains("/diag/") && !path.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                raised.extend(text.split('"').filter(|it| is_code(it)).map(str::to_owned));
            }
        }
    }
    let pages: BTreeSet<String> = codes::pages().map(|page| page.code.to_owned()).collect();
    let missing: Vec<_> = raised.difference(&pages).collect();
    let unused: Vec<_> = pages.difference(&raised).collect();
    assert!(missing.is_empty(), "codes without a page in src/diag/codes: {missing:?}");
    assert!(unused.is_empty(), "pages of codes that nothing raises: {unused:?}");
}

fn is_code(text: &str) -> bool {
    text.strip_prefix("WF").is_some_and(|digits| digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}
