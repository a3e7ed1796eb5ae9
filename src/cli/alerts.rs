//! `alerts list|show|assign|classify|comment|resolve|link`: the queue of alerts of every product, one alert with all that
//! is known around it, and what a person does with alerts. Reading needs no service; what changes something goes through the
//! running one.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value as Json, json};

use super::alerts_act::{self, Act};
use super::alerts_read::{Filter, Reader};
use super::alerts_show;
use super::out::{Out, cell};
use super::{Global, since};
use crate::error::{Error, ExitCode};
use crate::triage::{Alert, source};
use crate::trigger::suppressed;

/// How far back alerts are listed.
const BACK: SignedDuration = SignedDuration::from_hours(30 * 24);

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Alerts of every Defender product, the newest first: new and in progress, of the last 30 days
    List(List),
    /// One alert: entities, story, similar alerts, and what was done about them
    Show(alerts_show::Args),
    /// Give alerts to somebody; needs the running service
    Assign(alerts_act::Assign),
    /// Say what alerts turned out to be; needs the running service
    Classify(alerts_act::Classify),
    /// Write a comment on alerts; needs the running service
    Comment(alerts_act::Comment),
    /// Close alerts, with a verdict and a comment where they are given; needs the running service
    Resolve(alerts_act::Resolve),
    /// Move alerts to another incident; needs the running service
    Link(alerts_act::Link),
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// informational low medium high; may be given several times
    #[arg(long, value_name = "SEVERITY")]
    severity: Vec<String>,
    /// new in-progress resolved all; may be given several times [default: new and in-progress]
    #[arg(long, value_name = "STATUS")]
    status: Vec<String>,
    /// The product: endpoint identity cloud-apps office365 xdr entra sentinel …, or the service's word
    #[arg(long, value_name = "PRODUCT")]
    source: Vec<String>,
    /// Only those whose evidence has this text: a device, a user, an address, a hash, a URL
    #[arg(long, value_name = "TEXT")]
    entity: Option<String>,
    /// Only those whose automated investigation stands so, such as running or pending-approval
    #[arg(long, value_name = "STATE")]
    investigation: Vec<String>,
    /// Made at or after an instant, or within the last 7d [default: 30d]
    #[arg(long, value_parser = since, value_name = "TIME")]
    since: Option<Timestamp>,
    /// At most so many, 1000 at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// The connection to ask, of kind graph or mde
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
}

pub(super) fn run(command: Command, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    match command {
        Command::List(args) => list(&args, global, out),
        Command::Show(args) => alerts_show::run(&args, global, out),
        Command::Assign(args) => alerts_act::run(Act::Assign(args), global, out),
        Command::Classify(args) => alerts_act::run(Act::Classify(args), global, out),
        Command::Comment(args) => alerts_act::run(Act::Comment(args), global, out),
        Command::Resolve(args) => alerts_act::run(Act::Resolve(args), global, out),
        Command::Link(args) => alerts_act::run(Act::Link(args), global, out),
    }
}

fn list(args: &List, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let filter = args.filter()?;
    let reader = Reader::open(global, args.connection.as_deref())?;
    let limit = usize::try_from(args.limit).unwrap_or(50);
    let (alerts, more) = super::runtime()?.block_on(reader.list(&filter, limit))?;
    let store = reader.store();
    let items: Vec<Json> = alerts.iter().map(|alert| summary(Alert(alert), store.as_ref())).collect();
    let header = ["id", "created", "severity", "status", "source", "title", "entities", "assigned_to", "suppressed"];
    out.list(&items, &header, |item| header.map(|key| shown(item, key)).to_vec());
    if more {
        out.say(&format!("there are more: `--limit` takes up to 1000, `--since` and the other filters narrow the list to less than {limit}"));
    }
    Ok(if items.is_empty() { ExitCode::NothingMatched } else { ExitCode::Ok })
}

/// A cell of the table: what is long or many is cut there, and whole in JSON.
fn shown(item: &Json, key: &str) -> String {
    match key {
        "entities" => {
            let names = ["devices", "users"].iter().flat_map(|key| item.get(*key).and_then(Json::as_array)).flatten();
            let names: Vec<&str> = names.filter_map(Json::as_str).take(3).collect();
            names.join(" ")
        }
        "suppressed" => item.get("suppressed").map(|by| cell(by, "rule")).unwrap_or_default(),
        "title" => cell(item, key).chars().take(60).collect(),
        _ => cell(item, key),
    }
}

impl List {
    fn filter(&self) -> Result<Filter, Error> {
        let back = || crate::clock::Clock::system().now().checked_sub(BACK).unwrap_or(Timestamp::UNIX_EPOCH);
        Ok(Filter {
            since: self.since.unwrap_or_else(back),
            severities: words(&self.severity, "a severity", &["Informational", "Low", "Medium", "High", "Unknown"])?,
            statuses: statuses(&self.status)?,
            sources: sources(&self.source)?,
            entity: self.entity.as_ref().map(|text| text.to_lowercase()),
            investigations: self.investigation.iter().map(|word| plain(word)).collect(),
        })
    }
}

/// A word without the strokes and spaces that people put into it.
fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

/// The words of a list that may also be separated by commas, in their own spelling.
fn words(given: &[String], what: &str, known: &[&str]) -> Result<Vec<String>, Error> {
    let given = given.iter().flat_map(|text| text.split(',')).filter(|text| !text.trim().is_empty());
    let word = |text: &str| {
        let word = known.iter().find(|word| plain(word) == plain(text));
        word.map(|word| (*word).to_owned()).ok_or_else(|| {
            Error::usage(format!("`{}` is not {what}", text.trim())).help(format!("one of {}", known.join(", ")))
        })
    };
    given.map(word).collect()
}

/// The statuses that a list has: what is open, where nothing is said.
fn statuses(given: &[String]) -> Result<Vec<String>, Error> {
    let found = words(given, "a status", &["New", "InProgress", "Resolved", "Unknown", "all"])?;
    Ok(match found.as_slice() {
        [] => vec!["New".to_owned(), "InProgress".to_owned()],
        some if some.iter().any(|word| word == "all") => vec![],
        some => some.to_vec(),
    })
}

fn sources(given: &[String]) -> Result<Vec<String>, Error> {
    let given = given.iter().flat_map(|text| text.split(',')).filter(|text| !text.trim().is_empty());
    let word = |text: &str| {
        source::meant(text).map(str::to_owned).ok_or_else(|| {
            let names: Vec<&str> = source::names().collect();
            Error::usage(format!("`{}` is no product", text.trim())).help(format!("one of {}", names.join(", ")))
        })
    };
    given.map(word).collect()
}

/// The shape of `alerts list -o json`.
pub(super) fn summary(alert: Alert<'_>, store: Option<&crate::journal::sqlite::SqliteStore>) -> Json {
    let name = |item: &Json| {
        let names = ["upn", "name", "account_name", "display_name", "id"];
        names.iter().find_map(|name| item.get(*name)?.as_str().map(str::to_owned))
    };
    let named = |list: &str| alert.list(list).filter_map(name).collect::<Vec<_>>();
    let source = alert.source();
    let suppressed = store.and_then(|store| suppressed::of(store, alert.id()));
    json!({
        "id": alert.id(), "source": source.service, "product": source.product, "detection_source": alert.detection_source(),
        "custom_detection": source.custom, "title": alert.text("title"), "severity": alert.text("severity"),
        "status": alert.text("status"), "classification": alert.text("classification"),
        "determination": alert.text("determination"), "category": alert.text("category"), "created": alert.text("created"),
        "updated": alert.text("updated"), "assigned_to": alert.text("assigned_to"), "incident_id": alert.text("incident_id"),
        "investigation_state": alert.investigation_state(), "devices": named("devices"), "users": named("users"),
        "tags": alert.list("tags").collect::<Vec<_>>(), "url": alert.text("url"), "suppressed": suppressed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_as_people_write_them() {
        let given = |text: &str| vec![text.to_owned()];
        assert_eq!(statuses(&[]).unwrap(), ["New", "InProgress"]);
        assert_eq!(statuses(&given("in-progress,RESOLVED")).unwrap(), ["InProgress", "Resolved"]);
        assert_eq!(statuses(&given("all")).unwrap(), [] as [&str; 0]);
        assert_eq!(
            sources(&given("office365,MicrosoftSentinel")).unwrap(),
            ["MicrosoftDefenderForOffice365", "MicrosoftSentinel"]
        );
        assert!(sources(&given("nothing")).is_err() && statuses(&given("gone")).is_err());
    }
}
