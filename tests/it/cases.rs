//! Text cases: every `tests/cases/**/*.yaml` is a flow file whose first lines state all of its diagnostics.
//!
//! `# error: LINE:COL CODE message` or `# warning: …`, each followed by `# help: …` where there is one. A file without
//! such lines is right. Under `cases/check` the whole check runs, with the connections below and the webhook `w`; elsewhere
//! the reading of the file alone. Called flows lie in `called/`, included files in `files/`.
//! With `BLESS=1` the lines are rewritten from what is found: read the difference before it is committed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use watchfloor::catalog::{Catalog, ConnectionKind};
use watchfloor::check::{World, check};
use watchfloor::diag::{Diagnostic, Severity, Source};
use watchfloor::flow;

/// What is configured where the cases under `check` run: two of a kind for Teams, none for `http`.
const CONNECTIONS: [(&str, ConnectionKind); 6] = [
    ("mde", ConnectionKind::Mde),
    ("graph", ConnectionKind::Graph),
    ("mdca", ConnectionKind::CloudApps),
    ("mail", ConnectionKind::Email),
    ("soc-triage", ConnectionKind::Teams),
    ("soc-leads", ConnectionKind::Teams),
];

#[test]
fn every_case_has_exactly_its_diagnostics() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let catalog = Catalog::builtin().unwrap();
    let mut wrong = vec![];
    let mut count = 0;
    for path in files(&root) {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        let (expected, body) = split(&text);
        if std::env::var_os("BLESS").is_some() {
            let lines = found(&path, &name, body.to_owned(), &catalog).lines().count();
            let header = found(&path, &name, "#\n".repeat(lines) + body, &catalog);
            std::fs::write(&path, header + body).unwrap();
            continue;
        }
        let found = found(&path, &name, text.clone(), &catalog);
        count += 1;
        if found != expected {
            wrong.push(format!("{name}\nexpected:\n{expected}found:\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {count} cases differ\n\n{}", wrong.len(), wrong.join("\n"));
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut out = vec![];
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                // Called flows and included files are read by the cases that name them.
                true if path.ends_with("called") || path.ends_with("files") => {}
                true => folders.push(path),
                false if path.extension().is_some_and(|it| it == "yaml") => out.push(path),
                false => {}
            }
        }
    }
    out.sort();
    out
}

/// The lines that state diagnostics, and the rest of the file.
fn split(text: &str) -> (String, &str) {
    let states = |line: &str| ["# error: ", "# warning: ", "# help: "].iter().any(|it| line.starts_with(it));
    let length: usize = text.split_inclusive('\n').take_while(|line| states(line)).map(str::len).sum();
    let (header, body) = text.split_at(length);
    (header.to_owned(), body)
}

fn found(path: &Path, name: &str, text: String, catalog: &Catalog) -> String {
    let source = Source::new(name, text);
    if !name.starts_with("check") {
        return flow::read(&source).1.iter().map(|it| stated(it, name)).collect();
    }
    let folder = path.parent().unwrap();
    let include =
        |file: &str| std::fs::read_to_string(folder.join(file)).map_err(|_| format!("there is no file {file}"));
    let called = |flow: &str| -> Option<Arc<Source>> {
        let file = folder.join("called").join(format!("{flow}.yaml"));
        Some(Source::new(flow, std::fs::read_to_string(file).ok()?))
    };
    let connections = BTreeMap::from(CONNECTIONS.map(|(name, kind)| (Arc::from(name), kind)));
    let webhooks = [Arc::from("w")];
    let world = World {
        catalog,
        connections: Some(&connections),
        webhooks: Some(&webhooks),
        include: &include,
        called: &called,
    };
    let (flow, found) = check(&source, &world, true);
    let failed = found.iter().any(|it| it.severity == Severity::Error);
    assert!(flow.is_some() != failed, "{name}: a flow is given exactly where there is no error");
    found.iter().map(|it| stated(it, name)).collect()
}

/// A place in an included file is stated with that file's name.
fn stated(diagnostic: &Diagnostic, name: &str) -> String {
    let (line, column) = diagnostic.source.line_col(diagnostic.span.start);
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let file = match &diagnostic.source.name {
        own if own == name => String::new(),
        other => format!("{other}:"),
    };
    let mut out = format!("# {severity}: {file}{line}:{column} {} {}\n", diagnostic.code, diagnostic.message);
    if let Some(help) = &diagnostic.help {
        out.push_str(&format!("# help: {help}\n"));
    }
    out
}
