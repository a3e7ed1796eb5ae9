//! `suppress new|test|list|allow`: a rule made from an alert, what a rule would have matched, the rules there are, and the
//! indicators that go on the allow-list with one.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value as Json, json};

use super::alerts_act::told;
use super::alerts_read::{Filter, Reader};
use super::out::{Out, cell, safe};
use super::suppressions::{self, Found};
use super::{Global, control, runs, since};
use crate::clock::Clock;
use crate::diag;
use crate::error::{Error, ExitCode};
use crate::suppress::{Draft, Given, Judged, Rule, draft};
use crate::triage::{Alert, verdict};
use crate::trigger::house::{self, Allowance};

/// Alerts that one test looks at.
const LOOKED_AT: usize = 5_000;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write a rule from an alert: its type, and conditions filled from its evidence with their roles
    New(New),
    /// Which alerts of the last days rules would have matched; nothing is changed
    Test(Test),
    /// The rules of the configuration
    List,
    /// Put the indicators of a rule on the allow-list; needs the running service
    Allow {
        /// The rule's name
        rule: String,
        /// The connection of kind mde, where there are several
        #[arg(long, value_name = "NAME")]
        connection: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// The alert: its id in any form, or its page in the portal
    #[arg(long, value_name = "ID")]
    from_alert: String,
    /// Conditions from all of its evidence, not from what is suspicious alone
    #[arg(long)]
    all_evidence: bool,
    /// The rule's name [default: made from the alert's title]
    #[arg(long)]
    name: Option<String>,
    /// Why such alerts are harmless; needed to write it
    #[arg(long)]
    comment: Option<String>,
    /// Who answers for it [default: you]
    #[arg(long)]
    owner: Option<String>,
    /// How long it holds, in days
    #[arg(long, default_value_t = 90, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=366))]
    days: u32,
    /// For any type of alert with this evidence
    #[arg(long)]
    any_type: bool,
    /// On the alert's devices alone, not in the whole organisation
    #[arg(long)]
    on_devices: bool,
    /// Close such alerts as this, instead of ignoring them: TruePositive InformationalExpectedActivity FalsePositive
    #[arg(long, value_name = "CLASSIFICATION")]
    resolve_as: Option<String>,
    /// Why, such as NotMalicious; must go with the classification
    #[arg(long, value_name = "DETERMINATION", requires = "resolve_as")]
    determination: Option<String>,
    /// Write it into the first folder of `suppressions`, as NAME.yaml; a file that is there is left
    #[arg(long, requires = "comment")]
    write: bool,
    /// The connection to ask, of kind graph or mde
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Test {
    /// Files or folders of rules, or a rule's name [default: all of the configuration]
    #[arg(value_name = "RULE")]
    rules: Vec<String>,
    /// Alerts made at or after an instant, or within the last 7d
    #[arg(long, value_parser = since, value_name = "TIME", default_value = "7d")]
    since: Timestamp,
    /// The connection to ask, of kind graph or mde
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
}

pub(super) fn run(command: Command, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    match command {
        Command::New(args) => new(&args, global, out),
        Command::Test(args) => test(&args, global, out),
        Command::List => list(global, out),
        Command::Allow { rule, connection } => allow(&rule, connection.as_deref(), global, out),
    }
}

fn new(args: &New, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let reader = Reader::open(global, args.connection.as_deref())?;
    let alert = super::runtime()?.block_on(reader.alert(&args.from_alert))?;
    let alert = Alert(&alert);
    let name = args.name.clone().unwrap_or_else(|| named(alert.text("title").unwrap_or("")));
    let owner = args.owner.clone().unwrap_or_else(runs::whoami);
    let now = Clock::system().now();
    let lives = SignedDuration::from_hours(24 * (i64::from(args.days) + 1));
    let resolve = match &args.resolve_as {
        None => None,
        Some(text) => {
            let class =
                verdict::classification(text).ok_or_else(|| Error::usage(format!("`{text}` is no classification")))?;
            let reason = args.determination.as_deref().map(|text| {
                verdict::determination(text).ok_or_else(|| Error::usage(format!("`{text}` is no determination")))
            });
            Some((class, reason.transpose()?.map(|word| word.word)))
        }
    };
    let said = Draft {
        name: &name,
        comment: args.comment.as_deref().unwrap_or("say why these alerts are harmless"),
        owner: &owner,
        expires: now.checked_add(lives).unwrap_or(now),
        all_evidence: args.all_evidence,
        any_type: args.any_type,
        on_devices: args.on_devices,
        resolve,
    };
    let text = draft(alert, &said).map_err(Error::usage)?;
    // What is written is what the service takes, or it is not written.
    let source = diag::Source::new(format!("{name}.yaml"), text.clone());
    let given = Given { now, user_scoped: Some(&reader.config.user_scoped_suppressions) };
    let (rule, faults) = crate::suppress::read(&source, given);
    if rule.is_none() {
        let why = faults.first().map_or_else(String::new, |fault| fault.message.clone());
        return Err(Error::usage(format!("this makes no rule: {why}")));
    }
    if !args.write {
        text.lines().for_each(|line| out.line(&safe(line)));
        out.say("put it into a folder of `suppressions:`, or add --write; `watchfloor suppress test FILE` shows what it matches");
        return Ok(ExitCode::Ok);
    }
    let folder = reader.config.suppressions.first().ok_or_else(|| {
        Error::config("the configuration has no `suppressions:` to write into")
            .help("add `suppressions: [./suppressions]`")
    })?;
    let path = folder.join(format!("{name}.yaml"));
    store(&path, &text)?;
    if out.is_human() {
        out.line(&safe(&path.display().to_string()));
    } else {
        out.json(&json!({ "rule": name, "file": path.display().to_string() }));
    }
    Ok(ExitCode::Ok)
}

fn store(path: &std::path::Path, text: &str) -> Result<(), Error> {
    use std::io::Write;
    let failed =
        |error: std::io::Error| Error::new(ExitCode::Temporary, format!("writing {}: {error}", path.display()));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// A rule's name from an alert's title.
fn named(title: &str) -> String {
    let words = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name = words.take(6).collect::<Vec<_>>().join("-").to_ascii_lowercase();
    let name: String = name.chars().take(60).collect();
    if name.is_empty() { "suppressed".to_owned() } else { name.trim_matches('-').to_owned() }
}

/// The rules that are named, from files or from the configuration.
fn wanted(names: &[String], global: &Global) -> Result<Found, Error> {
    let config = global.config()?;
    let now = Clock::system().now();
    let all = || suppressions::load(&config, now);
    if names.is_empty() {
        return all();
    }
    let mut found = Found::default();
    for name in names {
        let path = PathBuf::from(name);
        let more = if path.exists() {
            suppressions::of(&[path], Given { now, user_scoped: Some(&config.user_scoped_suppressions) })?
        } else {
            let mut of_name = all()?;
            of_name.rules.retain(|(rule, _)| *rule.name == **name);
            of_name
        };
        found.rules.extend(more.rules);
        found.files += more.files;
        found.diagnostics.extend(more.diagnostics);
    }
    Ok(found)
}

/// The rules, where all of their files are sound.
fn sound(found: Found, out: &Out) -> Result<Vec<(Rule, PathBuf)>, Error> {
    if found.errors() > 0 {
        out.say(diag::render(&found.diagnostics, out.colors_err()).trim_end());
        return Err(Error::new(
            ExitCode::Findings,
            format!("{} errors in the files of suppression rules", found.errors()),
        ));
    }
    if found.rules.is_empty() {
        return Err(Error::new(ExitCode::NothingMatched, "there is no such suppression rule")
            .help("`suppressions:` of the configuration names folders of them"));
    }
    Ok(found.rules)
}

fn test(args: &Test, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let rules = sound(wanted(&args.rules, global)?, out)?;
    let reader = Reader::open(global, args.connection.as_deref())?;
    let filter = Filter::all_since(args.since);
    let (alerts, more) = super::runtime()?.block_on(reader.list(&filter, LOOKED_AT))?;
    let mut items = vec![];
    for alert in &alerts {
        let judged = Judged::new(Alert(alert));
        for (rule, _) in rules.iter().filter(|(rule, _)| rule.matches(&judged)) {
            let alert = Alert(alert);
            items.push(json!({
                "rule": &*rule.name, "action": rule.action.as_str(), "active": rule.is_active(Clock::system().now()),
                "alert": alert.id(), "created": alert.text("created"), "severity": alert.text("severity"),
                "status": alert.text("status"), "classification": alert.text("classification"), "title": alert.text("title"),
            }));
        }
    }
    let header = ["rule", "alert", "created", "severity", "status", "classification", "title"];
    out.list(&items, &header, |item| header.map(|key| cell(item, key)).to_vec());
    out.say(&format!("rules: {}, alerts looked at: {}, matches: {}", rules.len(), alerts.len(), items.len()));
    if more {
        out.say(&format!("only the newest {LOOKED_AT} alerts were looked at; `--since` narrows it"));
    }
    Ok(if items.is_empty() { ExitCode::NothingMatched } else { ExitCode::Ok })
}

fn list(global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let now = Clock::system().now();
    let found = suppressions::load(&global.config()?, now)?;
    if found.files > 0 && out.is_human() {
        let text = diag::render(&found.diagnostics, out.colors_err());
        if !text.is_empty() {
            out.say(text.trim_end());
        }
    }
    let faults = found.errors();
    let items: Vec<Json> = found
        .rules
        .iter()
        .map(|(rule, path)| {
            json!({
                "rule": &*rule.name, "state": if rule.is_active(now) { "active" } else { "expired" },
                "action": rule.action.as_str(), "scope": rule.scope.words(), "any_type": rule.kind.is_any(),
                "owner": rule.owner, "expires": rule.expires, "comment": rule.comment, "indicators": rule.allow.len(),
                "file": path.display().to_string(),
            })
        })
        .collect();
    let header = ["rule", "state", "action", "scope", "owner", "expires", "comment"];
    out.list(&items, &header, |item| header.map(|key| cell(item, key)).to_vec());
    Ok(if faults > 0 {
        ExitCode::Findings
    } else if items.is_empty() {
        ExitCode::NothingMatched
    } else {
        ExitCode::Ok
    })
}

fn allow(name: &str, connection: Option<&str>, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let rules = sound(wanted(&[name.to_owned()], global)?, out)?;
    let Some((rule, _)) = rules.into_iter().next() else {
        return Err(Error::new(ExitCode::NothingMatched, format!("there is no rule {name}")));
    };
    if rule.allow.is_empty() {
        return Err(Error::usage(format!("the rule {name} has no indicators")).help("`allow:` of its file names them"));
    }
    let config = global.config()?;
    let connection = match connection {
        Some(named) => named.to_owned(),
        None => only_mde(&config)?,
    };
    let allowance =
        Allowance::of(&rule, connection, runs::whoami(), crate::clock::secret_token().chars().take(12).collect());
    let begun = control::call(&config.store, "allow", &json!(allowance))?;
    told(&begun, house::SUPPRESSIONS, &[], global, out)
}

fn only_mde(config: &crate::config::Config) -> Result<String, Error> {
    let mut fit = config.connections.values().filter(|it| it.kind == crate::catalog::ConnectionKind::Mde);
    match (fit.next(), fit.next()) {
        (Some(one), None) => Ok(one.name.to_string()),
        (None, _) => Err(Error::config("indicators are set over a connection of kind mde, and none is configured")),
        (Some(_), Some(_)) => {
            Err(Error::usage("several connections are of kind mde").help("name one with `--connection`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_titles() {
        assert_eq!(named("Suspicious PowerShell: (encoded)!"), "suspicious-powershell-encoded");
        assert_eq!(named("<<>>"), "suppressed");
    }
}
