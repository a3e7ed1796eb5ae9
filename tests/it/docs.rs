//! What the pages show is true: every YAML block passes the checker of its kind, every command exists, and every path
//! and test that is named is there.
//!
//! The word after ```` ```yaml ```` says the kind: nothing for a whole flow file or configuration, `steps` for steps
//! after those of `BEFORE`, `card` for a card in a file, `trigger` for a trigger, `wrong CODE` for a flow whose first fault has that code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use watchfloor::catalog::{Catalog, ConnectionKind};
use watchfloor::check::{World, check};
use watchfloor::config::Config;
use watchfloor::diag::{self, Diagnostic, Severity, Source};

/// Steps that come before the excerpts.
const BEFORE: &str = "flow: excerpt
owner: soc@contoso.example
trigger: { type: mde.alert.new, connection: mde }
steps:
  - { id: alert, action: mde.get_alert, with: { alert_id: '{{ trigger.alert_id }}' } }
  - { id: machine, action: mde.get_machine, with: { machine_id: '{{ trigger.machine_id }}' } }
  - { id: user, action: entra.get_user, with: { user: '{{ alert.user.upn }}' } }
";

const CONNECTIONS: [(&str, ConnectionKind); 8] = [
    ("sentinel", ConnectionKind::Azure),
    ("logs", ConnectionKind::LogAnalytics),
    ("lookup", ConnectionKind::Http),
    ("mde", ConnectionKind::Mde),
    ("graph", ConnectionKind::Graph),
    ("mdca", ConnectionKind::CloudApps),
    ("mail", ConnectionKind::Email),
    ("soc-triage", ConnectionKind::Teams),
];

/// Commands of others that a page may show.
const OTHERS: [&str; 5] = ["cp", "chmod", "export", "cd", "git"];

#[test]
fn every_yaml_block_passes_the_checker_of_its_kind() {
    let catalog = Catalog::builtin().unwrap();
    let mut wrong = vec![];
    let mut count = 0;
    for (page, text) in pages() {
        for block in blocks(&text).into_iter().filter(|block| block.kind.starts_with("yaml")) {
            count += 1;
            let place = format!("{page}:{}", block.line);
            if let Err(fault) = yaml(&block, &place, &catalog) {
                wrong.push(format!("{place}: {fault}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(count >= 10, "only {count} blocks were found: the reading of pages is broken");
}

fn yaml(block: &Block, place: &str, catalog: &Catalog) -> Result<(), String> {
    let words: Vec<&str> = block.kind.split_whitespace().collect();
    let indented = |text: &str| -> String { text.lines().map(|line| format!("  {line}\n")).collect() };
    match words[1..] {
        [] if block.text.lines().any(|line| line.starts_with("flow:")) => clean(place, block.text.clone(), catalog),
        [] => Config::parse(&block.text, place, Path::new(".")).map(drop).map_err(|error| error.to_string()),
        ["steps"] => clean(place, format!("{BEFORE}{}", indented(&block.text)), catalog),
        ["trigger"] => {
            let flow = format!("flow: excerpt\ntrigger:\n{}steps: [ {{ wait: 1s }} ]\n", indented(&block.text));
            clean(place, flow, catalog)
        }
        ["card"] => {
            let step = "- { action: teams.post, with: { title: t, card_file: the.card.yaml } }";
            let found = found_beside(place, format!("{BEFORE}  {step}\n"), catalog, &block.text);
            if found.is_empty() { Ok(()) } else { Err(diag::render(&found, false)) }
        }
        ["suppression"] => {
            let given = watchfloor::suppress::Given { now: "2026-11-24T00:00:00Z".parse().unwrap(), user_scoped: None };
            let (rule, found) = watchfloor::suppress::read(&Source::new(place, block.text.clone()), given);
            if rule.is_some() && found.is_empty() { Ok(()) } else { Err(diag::render(&found, false)) }
        }
        ["wrong", code] => {
            let found = found(place, block.text.clone(), catalog);
            match found.first() {
                Some(first) if first.code == code => Ok(()),
                _ => Err(format!("wanted {code}, found\n{}", diag::render(&found, false))),
            }
        }
        _ => Err(format!("unknown kind of block `{}`", block.kind)),
    }
}

fn clean(place: &str, flow: String, catalog: &Catalog) -> Result<(), String> {
    let found = found(place, flow, catalog);
    let errors = found.iter().filter(|it| it.severity == Severity::Error).count();
    if errors == 0 { Ok(()) } else { Err(diag::render(&found, false)) }
}

fn found(place: &str, flow: String, catalog: &Catalog) -> Vec<Diagnostic> {
    found_beside(place, flow, catalog, "")
}

/// As `found`, where the flow's file `the.card.yaml` has this text.
fn found_beside(place: &str, flow: String, catalog: &Catalog, card: &str) -> Vec<Diagnostic> {
    let connections: BTreeMap<Arc<str>, _> = CONNECTIONS.map(|(name, kind)| (Arc::from(name), kind)).into();
    let webhooks = [Arc::from("w")];
    let include = |file: &str| {
        if file == "the.card.yaml" {
            return Ok(card.to_owned());
        }
        std::fs::read_to_string(root().join("flows").join(file)).map_err(|_| format!("there is no flows/{file}"))
    };
    let called = |flow: &str| -> Option<Arc<Source>> {
        let path = root().join("tests/cases/check/called").join(format!("{flow}.yaml"));
        Some(Source::new(flow, std::fs::read_to_string(path).ok()?))
    };
    let world = World {
        catalog,
        connections: Some(&connections),
        webhooks: Some(&webhooks),
        include: &include,
        called: &called,
    };
    check(&Source::new(place, flow), &world, true).1
}

#[test]
fn every_command_that_is_shown_exists() {
    let mut wrong = vec![];
    for (page, text) in pages() {
        for line in commands(&text) {
            if let Err(fault) = command(&line) {
                wrong.push(format!("{page}: `{line}`: {fault}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Lines after `$ ` in `console` blocks, and `watchfloor …` in running text.
pub(crate) fn commands(text: &str) -> Vec<String> {
    let mut out = vec![];
    for block in blocks(text).into_iter().filter(|block| block.kind == "console") {
        out.extend(block.text.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned));
    }
    out.extend(inline(text).into_iter().filter(|code| code.starts_with("watchfloor ") || code.starts_with("cargo ")));
    out
}

fn command(line: &str) -> Result<(), String> {
    let line = line.split(" #").next().unwrap_or_default();
    let mut words: Vec<&str> =
        line.split_whitespace().skip_while(|word| word.contains('=') && !word.starts_with('-')).collect();
    if let Some(at) = words.iter().position(|word| ["|", ">", "&&"].contains(word)) {
        words.truncate(at);
    }
    match words[..] {
        ["watchfloor", ref rest @ ..] | ["target/dist/watchfloor", ref rest @ ..] => ours(rest),
        ["cargo", "run", "--release", "--", ref rest @ ..] => ours(rest),
        ["cargo", "build" | "test" | "bench" | "clippy" | "doc" | "fmt" | "deny" | "install", ..] => Ok(()),
        [first, ..] if first.starts_with("scripts/") => {
            if root().join(first).is_file() {
                Ok(())
            } else {
                Err("there is no such file".into())
            }
        }
        [first, ..] if OTHERS.contains(&first) => Ok(()),
        _ => Err("a command that this test does not know".into()),
    }
}

/// Whether the binary has this command with these flags: its own help is asked.
fn ours(words: &[&str]) -> Result<(), String> {
    let named: Vec<&str> = words.iter().copied().take_while(|word| !word.starts_with('-')).collect();
    // What follows the command's name are its arguments; two words name one of a group.
    let groups = ["runs", "actions", "triggers", "dlq", "alerts", "suppress"];
    let depth = if named.first().is_some_and(|first| groups.contains(first)) { 2 } else { 1 };
    let name: Vec<&str> = named.into_iter().take(depth).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_watchfloor")).args(&name).arg("--help").output().unwrap();
    if !output.status.success() {
        return Err(format!("there is no command `{}`", name.join(" ")));
    }
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    for flag in words.iter().filter(|word| word.starts_with('-') && **word != "-") {
        let flag = flag.split('=').next().unwrap_or_default();
        let known = help.lines().any(|line| line.split([' ', ',']).any(|word| word == flag));
        if !known {
            return Err(format!("`{}` has no {flag}", name.join(" ")));
        }
    }
    Ok(())
}

#[test]
fn every_path_and_test_that_is_named_exists() {
    let code = sources();
    let mut wrong = vec![];
    for (page, text) in pages() {
        for name in inline(&text) {
            let path_like = name.contains('/') && !name.contains([' ', ':', '*', '{', '$', '…']);
            let ours = ["src/", "tests/", "docs/", "flows/", "scripts/", "benches/", ".ci/"];
            if path_like && ours.iter().any(|folder| name.starts_with(folder)) && !root().join(&name).exists() {
                wrong.push(format!("{page}: there is no {name}"));
            }
            // A name of four words and more in snake case is a test's.
            let words = name.matches('_').count() >= 3;
            if words
                && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                && !code.contains(&format!("fn {name}("))
            {
                wrong.push(format!("{page}: there is no test {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reference_names_every_trigger_and_every_key_of_a_file() {
    let page = std::fs::read_to_string(root().join("docs/flow-language.md")).unwrap();
    let catalog = Catalog::builtin().unwrap();
    let mut names: Vec<String> = catalog.triggers.keys().map(ToString::to_string).collect();
    let schema = watchfloor::flow::schema::json_schema();
    names.extend(schema["properties"].as_object().unwrap().keys().cloned());
    let missing: Vec<_> = names.iter().filter(|name| !inline(&page).iter().any(|code| names_it(code, name))).collect();
    assert!(missing.is_empty(), "docs/flow-language.md does not name {missing:?}");
}

#[test]
fn the_reference_shows_the_table_of_functions() {
    let path = root().join("docs/flow-language.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("<!-- functions: ").unwrap();
    let (note, rest) = rest.split_once("-->\n").unwrap();
    let (shown, after) = rest.split_once("<!-- end of functions -->").unwrap();
    let cell = |text: &str| text.replace('|', "\\|");
    let mut table = "| function | | for example |\n|---|---|---|\n".to_owned();
    for function in watchfloor::expr::functions::table() {
        let signatures =
            function.signature().lines().map(|it| format!("`{}`", cell(it))).collect::<Vec<_>>().join("<br>");
        table.push_str(&format!("| {signatures} | {} | `{}` |\n", cell(function.doc), cell(function.example)));
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, format!("{before}<!-- functions: {note}-->\n{table}<!-- end of functions -->{after}"))
            .unwrap();
    } else {
        assert!(shown == table, "the table is out of date: BLESS=1 cargo test --test it docs");
    }
}

/// The pages of actions and triggers are what the command writes from the catalogue.
#[test]
fn the_pages_of_actions_are_those_of_the_catalogue() {
    let folder = tempfile::tempdir().unwrap();
    let said = crate::bin::command(folder.path(), &["actions", "docs", "--dir", "pages"]);
    assert_eq!(said.code, 0, "{said:?}");
    let shown = root().join("docs/actions");
    let bless = std::env::var_os("BLESS").is_some();
    let mut names = vec![];
    for entry in std::fs::read_dir(folder.path().join("pages")).unwrap() {
        let (name, text) =
            (entry.as_ref().unwrap().file_name(), std::fs::read_to_string(entry.unwrap().path()).unwrap());
        if bless {
            std::fs::write(shown.join(&name), &text).unwrap();
        }
        let same = std::fs::read_to_string(shown.join(&name)).is_ok_and(|known| known == text);
        assert!(same, "{} is out of date: BLESS=1 cargo test --test it docs", name.display());
        names.push(name);
    }
    let stray = std::fs::read_dir(&shown).unwrap().map(|it| it.unwrap().file_name()).find(|name| !names.contains(name));
    assert_eq!(stray, None, "no action stands behind it");
}

fn names_it(code: &str, name: &str) -> bool {
    code == name || code.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name)
}

struct Block {
    line: usize,
    kind: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The pages for people, by name.
fn pages() -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|it| root().join(it)).into();
    for folder in ["docs", "docs/actions"] {
        files.extend(std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    files.retain(|path| path.extension().is_some_and(|it| it == "md"));
    let name = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// The fenced blocks of a page.
fn blocks(text: &str) -> Vec<Block> {
    let mut out: Vec<Block> = vec![];
    let mut open = false;
    for (at, line) in text.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(kind) if !open => {
                open = true;
                out.push(Block { line: at + 1, kind: kind.trim().to_owned(), text: String::new() });
            }
            Some(_) => open = false,
            None if open => out.last_mut().unwrap().text.push_str(&format!("{line}\n")),
            None => {}
        }
    }
    assert!(!open, "a block is not closed");
    out
}

/// What stands between single backticks outside blocks.
fn inline(text: &str) -> Vec<String> {
    let mut out = vec![];
    let mut open = false;
    for line in text.lines() {
        if line.starts_with("```") {
            open = !open;
        } else if !open {
            out.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    out
}

/// All Rust code, to look for names in.
fn sources() -> String {
    let mut out = String::new();
    let mut folders = vec![root().join("src"), root().join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                out.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    out
}
