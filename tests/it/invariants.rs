//! The ten invariants that every suite with faults ends with: what the store, the audit log and the tenant's books say
//! about each other.
//!
//! 1 each event one run per flow · 2 no effect without an intent on disk · 3 no effect twice · 4 nothing protected was a
//! target · 5 no more in a window than allowed · 6 no secret in what is kept · 7 every intent is in the audit log ·
//! 8 no watermark ahead of its runs · 9 nothing but reads in shadow · 10 every open run waits with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value as Json;
use watchfloor::catalog::{Catalog, Effect};
use watchfloor::id::{RunId, call_key, tag};
use watchfloor::journal::sqlite::SqliteStore;
use watchfloor::journal::{RunQuery, RunRow, RunStatus, Store, Taken, chain};
use watchfloor::sandbox::{API_TOKEN, Acted, CLIENT_SECRET, Ledger};
use watchfloor::value::Value;
use watchfloor::worker::turn::Turn;

use crate::bin::{HOOK_TOKEN, Site, Tenant};

/// A call that is no read, as the journal recorded it before it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Intent {
    pub(crate) run: RunId,
    pub(crate) flow: String,
    pub(crate) action: String,
    pub(crate) path: String,
    pub(crate) attempt: u32,
    pub(crate) tag: String,
}

/// What a store says.
pub(crate) struct Record {
    pub(crate) rows: Vec<RunRow>,
    pub(crate) intents: Vec<Intent>,
    pub(crate) audit: Vec<Json>,
    /// Where the chain of the audit log breaks.
    chain: Option<String>,
    store: SqliteStore,
}

/// What should be true of one installation, beyond what is always true.
#[derive(Default)]
pub(crate) struct Rules<'a> {
    /// Each flow with the keys of the events that it must have one run of, and no other.
    pub(crate) events: Vec<(&'a str, BTreeSet<String>)>,
    /// Each flow that gathers, with the keys of its events: each must be in one run, and nothing else in any.
    pub(crate) batched: Vec<(&'a str, BTreeSet<String>)>,
    /// Devices that must not have been touched.
    pub(crate) protected: Vec<&'a str>,
    /// Isolations in any window of this length, at most.
    pub(crate) cap: Option<(usize, Duration)>,
    /// Flows in shadow.
    pub(crate) shadow: Vec<&'a str>,
    /// The poller's name in the store, and the alerts of the tenant that it lists, as event keys.
    pub(crate) watermark: Option<(&'a str, BTreeMap<String, Timestamp>)>,
}

pub(crate) fn read(site: &Site) -> Record {
    let folder = site.path().join("data");
    let store = SqliteStore::open_read(&folder).unwrap();
    let catalog = Catalog::builtin().unwrap();
    let rows = store.runs(&RunQuery::default()).unwrap();
    let mut intents = Vec::new();
    for row in &rows {
        for body in store.turns(row.no).unwrap() {
            let turn = Turn::decode(&body).unwrap();
            intents.extend(turn.commands.iter().filter_map(|command| intent(&catalog, row, command)));
        }
    }
    let (audit, chain) = audit(&store);
    Record { rows, intents, audit, chain, store }
}

impl Record {
    /// A poller's watermark, once it is stored.
    pub(crate) fn watermark(&self, name: &str) -> Option<Timestamp> {
        let body = self.store.get(name).unwrap()?;
        Some(std::str::from_utf8(&body).unwrap().parse().unwrap())
    }
}

/// `call OP main ACTION CONNECTION PATH ATTEMPT DIGEST`
fn intent(catalog: &Catalog, row: &RunRow, command: &str) -> Option<Intent> {
    let words: Vec<&str> = command.split(' ').collect();
    let ["call", _, "main", action, _, path, attempt, _] = words.as_slice() else { return None };
    (catalog.action(action)?.effect != Effect::Read).then(|| Intent {
        run: row.id.clone(),
        flow: row.flow.to_string(),
        action: (*action).to_owned(),
        path: (*path).to_owned(),
        attempt: attempt.parse().unwrap(),
        tag: tag(&call_key(&row.id, path)),
    })
}

/// The lines of an audit log, and where its chain breaks.
pub(crate) fn audit(store: &dyn Store) -> (Vec<Json>, Option<String>) {
    let lines = store.audit(0, 1_000_000).unwrap();
    let mut broken = None;
    let mut previous = chain::ROOT;
    for (index, line) in lines.iter().enumerate() {
        if line.no != i64::try_from(index).unwrap() + 1 || line.hash != line.expected(&previous) {
            broken = broken.or(Some(format!("I7: the audit log is broken at line {}", line.no)));
        }
        previous = line.hash;
    }
    (lines.iter().map(|line| serde_json::from_slice(&line.body).unwrap()).collect(), broken)
}

/// What is broken, as sentences; nothing when all is well.
pub(crate) fn broken(site: &Site, tenant: &Tenant, rules: &Rules<'_>) -> Vec<String> {
    let record = read(site);
    let ledger = tenant.ledger();
    let mut wrong = Vec::new();
    one_run_for_each_event(&record, rules, &mut wrong);
    one_batch_for_each_event(&record, rules, &mut wrong);
    effects_have_intents(&record, &ledger, &mut wrong);
    nothing_twice(&ledger, &mut wrong);
    for device in &rules.protected {
        if ledger.devices.get(*device).is_some_and(|entry| !entry.done.is_empty()) {
            wrong.push(format!("I4: the protected device {device} was a target"));
        }
    }
    windows_hold(&ledger, rules, &mut wrong);
    no_secret_is_kept(site.path(), &mut wrong);
    intents_are_audited(&record, &mut wrong);
    watermarks_trail(&record, rules, &mut wrong);
    for intent in record.intents.iter().filter(|intent| rules.shadow.contains(&&*intent.flow)) {
        wrong.push(format!("I9: {} of {} in shadow was to be sent", intent.action, intent.flow));
    }
    for row in record.rows.iter().filter(|row| !row.status.is_final()) {
        let waits = matches!(row.status, RunStatus::Waiting | RunStatus::Uncertain);
        if !waits || row.reason.as_ref().is_none_or(String::is_empty) {
            wrong.push(format!("I10: run {} of {} is {:?}: {:?}", row.id, row.flow, row.status, row.reason));
        }
    }
    wrong
}

/// As `broken`, for a test that ends with it.
pub(crate) fn hold(site: &Site, tenant: &Tenant, rules: &Rules<'_>) {
    let wrong = broken(site, tenant, rules);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn one_run_for_each_event(record: &Record, rules: &Rules<'_>, wrong: &mut Vec<String>) {
    let mut runs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for row in &record.rows {
        *runs.entry((&row.flow, &row.key)).or_default() += 1;
    }
    for ((flow, key), count) in runs.iter().filter(|(_, count)| **count > 1) {
        wrong.push(format!("I1: {count} runs of {flow} for {key}"));
    }
    for (flow, keys) in &rules.events {
        let have: BTreeSet<String> =
            runs.keys().filter(|(of, _)| of == flow).map(|(_, key)| (*key).to_owned()).collect();
        wrong.extend(keys.difference(&have).map(|key| format!("I1: {flow} has no run for {key}")));
        wrong.extend(have.difference(keys).map(|key| format!("I1: {flow} has a run for {key}, which was no event")));
    }
}

fn one_batch_for_each_event(record: &Record, rules: &Rules<'_>, wrong: &mut Vec<String>) {
    for (flow, keys) in &rules.batched {
        let mut items: BTreeMap<i64, usize> = BTreeMap::new();
        for row in record.rows.iter().filter(|row| *row.flow == **flow) {
            let listed = row.payload.get("items").and_then(Value::as_list);
            items.insert(row.no, listed.map_or(0, <[Value]>::len));
        }
        for key in keys {
            match record.store.taken(flow, key).unwrap() {
                Some(Taken::Run(no)) => match items.get_mut(&no) {
                    Some(left @ 1..) => *left -= 1,
                    _ => wrong.push(format!("I1: run number {no} of {flow} has no place for {key}")),
                },
                other => wrong.push(format!("I1: {key} of {flow} is in no run: {other:?}")),
            }
        }
        let more = items.iter().filter(|(_, left)| **left > 0);
        wrong.extend(more.map(|(no, left)| format!("I1: run number {no} of {flow} has {left} events that were none")));
    }
}

/// The tag of our own effect: only machine actions carry one. Other effects are counted.
fn our_tag(action: &Acted) -> Option<&str> {
    let comment = action.comment.split_once("[wf:").and_then(|(_, rest)| rest.split_once(']')).map(|(tag, _)| tag);
    comment.or(action.external.as_deref())
}

pub(crate) fn effects_have_intents(record: &Record, ledger: &Ledger, wrong: &mut Vec<String>) {
    let tags: BTreeSet<&str> = record.intents.iter().map(|intent| &*intent.tag).collect();
    for action in &ledger.actions {
        if our_tag(action).is_none_or(|tag| !tags.contains(tag)) {
            wrong.push(format!("I2: {} of {} has no intent: {}", action.kind, action.device, action.comment));
        }
    }
    let mut sent: BTreeMap<&str, u32> = BTreeMap::new();
    for intent in &record.intents {
        *sent.entry(&intent.action).or_default() += 1;
    }
    for (action, done) in &ledger.effects {
        let intents = sent.get(action.as_str()).copied().unwrap_or(0);
        if *done > intents {
            wrong.push(format!("I2: {action} took effect {done} times, with {intents} intents"));
        }
    }
}

fn nothing_twice(ledger: &Ledger, wrong: &mut Vec<String>) {
    let mut tags: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for action in &ledger.actions {
        if let Some(tag) = our_tag(action) {
            *tags.entry((&action.kind, tag)).or_default() += 1;
        }
    }
    for ((kind, tag), count) in tags.iter().filter(|(_, count)| **count > 1) {
        wrong.push(format!("I3: {kind} with the tag {tag} took effect {count} times"));
    }
}

fn windows_hold(ledger: &Ledger, rules: &Rules<'_>, wrong: &mut Vec<String>) {
    let Some((max, per)) = rules.cap else { return };
    let times: Vec<Timestamp> =
        ledger.actions.iter().filter(|action| action.kind == "Isolate").map(|action| action.created).collect();
    let per = SignedDuration::try_from(per).unwrap();
    for first in &times {
        let within = times.iter().filter(|at| **at >= *first && at.duration_since(*first) < per).count();
        if within > max {
            wrong.push(format!("I5: {within} isolations within {per:#} from {first}; {max} are allowed"));
            return;
        }
    }
}

fn no_secret_is_kept(folder: &Path, wrong: &mut Vec<String>) {
    use base64::Engine as _;
    let encoded = |text: &str| base64::engine::general_purpose::STANDARD_NO_PAD.encode(text);
    for path in files_below(folder) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("secret-") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        for secret in [CLIENT_SECRET, API_TOKEN, HOOK_TOKEN] {
            for form in [secret.to_owned(), encoded(secret)] {
                if bytes.windows(form.len()).any(|window| window == form.as_bytes()) {
                    wrong.push(format!("I6: {name} holds a secret as {form}"));
                }
            }
        }
    }
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

fn intents_are_audited(record: &Record, wrong: &mut Vec<String>) {
    wrong.extend(record.chain.clone());
    let lines: BTreeSet<(&str, &str)> = record
        .audit
        .iter()
        .filter(|line| line["verdict"] == "go")
        .filter_map(|line| Some((line["run"].as_str()?, line["path"].as_str()?)))
        .collect();
    for intent in &record.intents {
        if !lines.contains(&(intent.run.as_str(), &*intent.path)) {
            wrong.push(format!(
                "I7: attempt {} of {} in {} is not in the audit log",
                intent.attempt, intent.path, intent.run
            ));
        }
    }
}

fn watermarks_trail(record: &Record, rules: &Rules<'_>, wrong: &mut Vec<String>) {
    let Some((name, listed)) = &rules.watermark else { return };
    let Some(watermark) = record.watermark(name) else { return };
    let known: BTreeSet<&str> = record.rows.iter().map(|row| &*row.key).collect();
    for (key, created) in listed.iter().filter(|(key, created)| **created <= watermark && !known.contains(&***key)) {
        wrong.push(format!("I8: the watermark is {watermark}, and {key} of {created} was not read"));
    }
}
