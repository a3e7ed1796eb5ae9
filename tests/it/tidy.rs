//! The house rules that the compiler and clippy cannot see: which layer may use which, what the pure layers keep away
//! from, who may send, how long a file is.
//!
//! Code under test is exempt where a rule says so: files and modules named `tests`, `testing`, and what follows
//! `#[cfg(test)]` in a file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each layer may use, besides itself. A new edge is a decision: it needs a word here and a reason in the change.
const EDGES: [(&str, &str); 23] = [
    ("value", ""),
    ("id", ""),
    ("error", ""),
    ("fail", ""),
    ("clock", "fail"),
    ("diag", ""),
    ("yaml", "diag"),
    ("triage", ""),
    ("suppress", "diag triage yaml"),
    ("catalog", "error value"),
    ("expr", "catalog diag value"),
    ("flow", "catalog diag yaml"),
    ("check", "catalog diag expr flow id triage value yaml"),
    ("engine", "catalog check expr flow id value"),
    ("journal", "clock fail id value"),
    ("config", "catalog diag error flow"),
    ("guard", "catalog check config engine flow id journal value"),
    ("connector", "catalog check clock config engine error flow guard id value"),
    (
        "trigger",
        "catalog check clock config connector diag engine error expr fail flow guard id journal suppress triage value",
    ),
    ("sandbox", "catalog clock config error flow"),
    ("worker", "catalog check clock connector engine error fail flow guard id journal value"),
    ("console", "check engine expr id journal trigger value worker"),
    (
        "cli",
        "catalog check clock config connector console diag engine error expr flow guard id journal sandbox suppress triage \
         trigger value worker",
    ),
];

/// Language and engine: the same input gives the same output, so nothing in them reads the world.
const PURE: [&str; 11] =
    ["value", "id", "diag", "yaml", "triage", "suppress", "catalog", "expr", "flow", "check", "engine"];

/// What reads the world.
const WORLD: [&str; 14] = [
    "tokio",
    "reqwest",
    "rusqlite",
    "std::fs",
    "std::env",
    "std::process",
    "std::io::",
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "Timestamp::now",
];

/// The files that may put a request on the wire, and why.
const SENDERS: [(&str, &str); 6] = [
    ("connector/conn.rs", "an action's request, after the guard's permit"),
    ("connector/auth.rs", "a token request, which is part of sending"),
    ("connector/examine.rs", "a HEAD for the root of a service, for people who ask"),
    ("connector/vault.rs", "the read of a secret, before anything is opened"),
    ("connector/mail.rs", "a mail, after the guard's permit"),
    ("cli/control.rs", "a command asks the service on this machine"),
];

/// Files longer than this have a seam that was not cut.
const LONGEST_FILE: usize = 800;
const LONGEST_MAIN: usize = 30;
const LONGEST_FUNCTION: usize = 70;

#[test]
fn layers_use_only_the_layers_below_them() {
    let mut wrong = vec![];
    for file in sources().iter().filter(|it| !it.for_tests && it.layer() != "lib" && it.layer() != "main") {
        let Some((_, allowed)) = EDGES.iter().find(|(layer, _)| *layer == file.layer()) else {
            wrong.push(format!("{}: the layer {} has no line in EDGES", file.name, file.layer()));
            continue;
        };
        for used in layers_used(file.production()) {
            if used != file.layer() && !allowed.split(' ').any(|it| it == used) {
                wrong.push(format!("{}: {} may not use crate::{used}", file.name, file.layer()));
            }
        }
    }
    report(&wrong);
}

#[test]
fn the_table_of_layers_has_no_circle() {
    // Peel off the layers whose edges all lead to peeled ones; what remains is a circle.
    let mut done: BTreeSet<&str> = BTreeSet::new();
    while let Some((layer, _)) =
        EDGES.iter().find(|(layer, uses)| !done.contains(layer) && uses.split_whitespace().all(|it| done.contains(it)))
    {
        done.insert(layer);
    }
    let left: Vec<_> = EDGES.iter().map(|(layer, _)| *layer).filter(|layer| !done.contains(layer)).collect();
    assert!(left.is_empty(), "layers in a circle: {left:?}");
}

#[test]
fn language_and_engine_read_nothing_of_the_world() {
    let mut wrong = vec![];
    for file in sources().iter().filter(|it| PURE.contains(&it.layer()) && !it.for_tests) {
        for (number, line) in code_lines(file.production()) {
            for word in WORLD.iter().filter(|word| has_word(line, word)) {
                wrong.push(format!("{}:{number}: {word} in a pure layer", file.name));
            }
            // The order of a hash map differs from run to run, and a replay must not.
            if file.layer() == "engine" && (line.contains("HashMap") || line.contains("HashSet")) {
                wrong.push(format!("{}:{number}: a hash map in the engine; use a BTreeMap", file.name));
            }
        }
    }
    report(&wrong);
}

#[test]
fn only_the_named_files_put_a_request_on_the_wire() {
    let mut wrong = vec![];
    let mut senders = BTreeSet::new();
    for file in sources().iter().filter(|it| !it.for_tests) {
        let sends = |line: &str| {
            line.contains(".send().await")
                || line.contains("reqwest::get")
                || line.contains(".execute(request")
                || line.contains("AsyncSmtpConnection::connect")
                || line.contains("AsyncSmtpTransport")
        };
        for (number, line) in code_lines(file.production()).filter(|(_, line)| sends(line)) {
            match SENDERS.iter().find(|(name, _)| *name == file.name) {
                Some((name, _)) => _ = senders.insert(*name),
                None => wrong.push(format!("{}:{number}: sends ({})", file.name, line.trim())),
            }
        }
        if file.name != "connector/wire.rs" && file.name.starts_with("connector/") {
            let builds = file.production().contains("Client::builder()") || file.production().contains("Client::new()");
            if builds && file.production().contains("reqwest") {
                wrong.push(format!(
                    "{}: builds a client of its own; wire.rs holds what every client keeps to",
                    file.name
                ));
            }
        }
    }
    for (name, _) in SENDERS.iter().filter(|(name, _)| !senders.contains(name)) {
        wrong.push(format!("{name}: is in SENDERS and sends nothing"));
    }
    report(&wrong);
}

#[test]
fn files_and_functions_stay_short() {
    let mut wrong = vec![];
    let (ours, tests) = (sources(), integration_tests());
    for (file, is_ours) in ours.iter().map(|file| (file, true)).chain(tests.iter().map(|file| (file, false))) {
        let lines = file.text.lines().count();
        let longest = if is_ours && file.name == "main.rs" { LONGEST_MAIN } else { LONGEST_FILE };
        if lines > longest {
            wrong.push(format!("{}: {lines} lines, at most {longest}", file.name));
        }
        // Tests may be tables, which are long and still easy to read.
        let code = if file.for_tests { "" } else { file.production() };
        for (name, lines) in functions(code).into_iter().filter(|(_, lines)| *lines > LONGEST_FUNCTION) {
            wrong.push(format!("{}: fn {name} has {lines} lines, at most {LONGEST_FUNCTION}", file.name));
        }
    }
    report(&wrong);
}

#[test]
fn nothing_is_left_undone_or_panics_by_itself() {
    const WORDS: [(&str, &str); 9] = [
        ("todo!", "finish it or leave it out"),
        ("unimplemented!", "finish it or leave it out"),
        ("dbg!", "left over"),
        (".unwrap()", "answer the other case"),
        (".expect(", "answer the other case"),
        ("panic!(", "answer with an error"),
        ("#[serde(flatten", "it swallows unknown keys"),
        ("#[serde(untagged", "its errors say nothing"),
        ("danger_accept", "TLS is never weakened"),
    ];
    let mut wrong = vec![];
    for file in sources().iter().filter(|it| !it.for_tests) {
        for (number, line) in code_lines(file.production()) {
            for (word, why) in WORDS.iter().filter(|(word, _)| line.contains(word)) {
                wrong.push(format!("{}:{number}: {word} ({why})", file.name));
            }
        }
    }
    report(&wrong);
}

#[test]
fn tests_wait_for_conditions_and_are_all_run() {
    let mut wrong = vec![];
    let files = integration_tests();
    let main = &files.iter().find(|it| it.name == "main.rs").unwrap().text;
    for file in &files {
        let module = file.name.split(['/', '.']).next().unwrap();
        if module != "main" && !main.contains(&format!("mod {module};")) {
            wrong.push(format!("tests/it/{}: not named in tests/it/main.rs, so it never runs", file.name));
        }
        if file.text.contains("#[ignore") && file.name != "tidy.rs" {
            wrong.push(format!("tests/it/{}: an ignored test", file.name));
        }
    }
    report(&wrong);
}

#[test]
fn unsafe_code_is_forbidden_and_no_file_knows_this_machine() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""), "Cargo.toml no longer forbids unsafe code");
    let homes = ["/home/", "/Users/"].map(str::to_owned);
    let here = [root().display().to_string()];
    let mut wrong = vec![];
    for folder in ["src", "tests", "flows", "docs", "scripts", "benches", ".ci"] {
        for path in files_below(&root().join(folder)) {
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let own = path.ends_with("tests/it/tidy.rs");
            for found in homes.iter().filter(|_| !own).chain(&here).filter(|it| text.contains(it.as_str())) {
                wrong.push(format!("{}: names {found}", path.display()));
            }
        }
    }
    report(&wrong);
}

/// A source file with its name below `src` or `tests/it`.
struct File {
    name: String,
    text: String,
    for_tests: bool,
}

impl File {
    /// The part of the file that is not under `#[cfg(test)]`; test modules come last in a file.
    fn production(&self) -> &str {
        self.text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default()
    }

    fn layer(&self) -> &str {
        self.name.split(['/', '.']).next().unwrap_or_default()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<File> {
    read_below(&root().join("src"))
}

fn integration_tests() -> Vec<File> {
    read_below(&root().join("tests/it"))
}

fn read_below(folder: &Path) -> Vec<File> {
    let rust = files_below(folder).into_iter().filter(|path| path.extension().is_some_and(|it| it == "rs"));
    let read = |path: PathBuf| {
        let name = path.strip_prefix(folder).unwrap().display().to_string();
        let tests = ["tests", "testing", "conformance"];
        let for_tests = name.split(['/', '.']).any(|part| tests.contains(&part) || part.ends_with("_tests"));
        File { text: std::fs::read_to_string(&path).unwrap(), name, for_tests }
    };
    rust.map(read).collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut out = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { out.push(path) }
        }
    }
    out.sort();
    out
}

/// The layers that paths such as `crate::x::y` and `use crate::{x, y::z}` name.
fn layers_used(text: &str) -> BTreeSet<String> {
    let code: String = code_lines(text).map(|(_, line)| format!("{line}\n")).collect();
    let mut used = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        match path.strip_prefix('{') {
            None => _ = used.insert(word(path)),
            Some(group) => {
                let mut depth = 0;
                let mut name = String::new();
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth > 0 => depth -= 1,
                        ',' | '}' if depth == 0 => {
                            used.insert(word(name.trim()));
                            name.clear();
                        }
                        _ if depth == 0 => name.push(c),
                        _ => {}
                    }
                    if c == '}' && depth == 0 && name.is_empty() {
                        break;
                    }
                }
            }
        }
    }
    used.remove("");
    used
}

fn word(text: &str) -> String {
    text.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect()
}

/// The lines of code with their numbers, from 1: without those that are comments.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether `line` has `word` outside a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut parts = line.split(word);
    let mut before = parts.next().unwrap_or_default();
    for after in parts {
        let longer = !word.ends_with(':') && after.starts_with(part_of_name);
        if !before.ends_with(part_of_name) && !longer {
            return true;
        }
        before = after;
    }
    false
}

/// Each function of a formatted file with its number of lines.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = vec![];
    for (start, line) in lines.iter().enumerate() {
        let head = line.trim_start();
        let Some((before, name)) = head.split_once("fn ") else { continue };
        let modifiers = ["pub", "pub(super)", "pub(crate)", "const", "async"];
        if !before.split_whitespace().all(|it| modifiers.contains(&it) || it.starts_with("pub(in"))
            || line.ends_with(['}', ';'])
        {
            continue;
        }
        let end = format!("{}}}", " ".repeat(line.len() - head.len()));
        if let Some(length) = lines[start..].iter().position(|it| *it == end) {
            out.push((word(name), length + 1));
        }
    }
    out
}

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} broken rules\n{}", wrong.len(), wrong.join("\n"));
}
