//! What a person does with alerts at the command line: an order to the running service, which makes a run of it. Modes,
//! limits, pauses and the audit log hold for it as for any flow; nothing is sent from here.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::alerts_read::{self, Reader};
use super::out::{Out, safe};
use super::{Global, control, dlq, runs};
use crate::error::{Error, ExitCode};
use crate::id::RunId;
use crate::journal::{RunRow, RunStatus, Store};
use crate::triage::{Alert, similar, verdict};
use crate::trigger::house::{self, Order};

/// How long a command waits for its run, and how often it looks.
const LOOKS: u32 = 300;
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The alerts: ids in any form, or their pages in the portal
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// And all open alerts of the same kind as these: they are listed first, and asked about; 100 at most
    #[arg(long)]
    similar: bool,
    /// Of the similar ones, only those that share a device, a user, a file, an address, a URL or a mailbox with it
    #[arg(long, requires = "similar")]
    sharing: bool,
    /// How many days back similar alerts are looked for
    #[arg(long, default_value_t = 30, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=180))]
    days: u32,
    /// Do not ask back
    #[arg(long, short)]
    yes: bool,
    /// The connection that they are handled over, of kind graph or mde
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Verdict {
    /// TruePositive InformationalExpectedActivity FalsePositive
    #[arg(long = "as", value_name = "CLASSIFICATION")]
    classification: Option<String>,
    /// Why, such as Malware, SecurityTesting, NotMalicious; must go with the classification
    #[arg(long, value_name = "DETERMINATION", requires = "classification")]
    determination: Option<String>,
    /// Written on each alert
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Assign {
    #[command(flatten)]
    which: Which,
    /// The new owner: a user principal name
    #[arg(long, value_name = "USER")]
    to: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct Classify {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    verdict: Verdict,
}

#[derive(Debug, clap::Args)]
pub(super) struct Comment {
    #[command(flatten)]
    which: Which,
    /// What to write
    #[arg(long, value_name = "TEXT")]
    text: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct Resolve {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    verdict: Verdict,
}

#[derive(Debug, clap::Args)]
pub(super) struct Link {
    #[command(flatten)]
    which: Which,
    /// The incident that they belong to: its number, or its page in the portal
    #[arg(long, value_name = "ID")]
    incident: String,
    /// Why; written on each alert
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

pub(super) enum Act {
    Assign(Assign),
    Classify(Classify),
    Comment(Comment),
    Resolve(Resolve),
    Link(Link),
}

impl Act {
    /// Which alerts, and the order without them.
    fn order(self, out: &Out) -> Result<(Which, Order, &'static str), Error> {
        let order = Order { by: runs::whoami(), token: token(), ..Order::default() };
        Ok(match self {
            Act::Assign(it) => (it.which, Order { assigned_to: Some(it.to), ..order }, "assign"),
            Act::Comment(it) => (it.which, Order { comment: Some(it.text), ..order }, "comment on"),
            Act::Link(it) => (it.which, Order { incident_id: Some(it.incident), comment: it.comment, ..order }, "link"),
            Act::Classify(it) => {
                if it.verdict.classification.is_none() {
                    return Err(Error::usage("say what they are: `--as CLASSIFICATION`"));
                }
                (it.which, it.verdict.into(order, out)?, "classify")
            }
            Act::Resolve(it) => {
                let order = it.verdict.into(order, out)?;
                (it.which, Order { status: Some("Resolved".into()), ..order }, "resolve")
            }
        })
    }
}

impl Verdict {
    /// The order with the verdict in the spelling of today; a pair that contradicts itself is refused, and a word out of
    /// use is said.
    fn into(self, order: Order, out: &Out) -> Result<Order, Error> {
        let class = self.classification.as_deref().map(|text| {
            let names: Vec<&str> = verdict::PAIRS.iter().map(|(word, _)| *word).collect();
            verdict::classification(text).ok_or_else(|| {
                Error::usage(format!("`{text}` is no classification")).help(format!("one of {}", names.join(", ")))
            })
        });
        let class = class.transpose()?;
        let reason = self.determination.as_deref().map(|text| {
            let names: Vec<&str> = class.map(|class| verdict::fitting(class).collect()).unwrap_or_default();
            verdict::determination(text).ok_or_else(|| {
                Error::usage(format!("`{text}` is no determination")).help(format!("one of {}", names.join(", ")))
            })
        });
        let reason = reason.transpose()?;
        if let Some((reason, instead)) = reason.and_then(|it| Some((it, it.instead?))) {
            let given = self.determination.as_deref().unwrap_or(reason.word);
            out.say(&safe(&format!("warning: `{given}` is out of use: write `{instead}`")));
        }
        if let (Some(class), Some(reason)) = (class, reason) {
            verdict::pair(class, reason.word).map_err(Error::usage)?;
        }
        Ok(Order {
            classification: class.map(str::to_owned),
            determination: reason.map(|it| it.word.to_owned()),
            comment: self.comment,
            ..order
        })
    }
}

pub(super) fn run(act: Act, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let (which, mut order, verb) = act.order(out)?;
    let config = global.config()?;
    // Before anything is read: without a service nothing can be done.
    control::call(&config.store, "status", &json!({}))?;
    let reader = Reader::open(global, which.connection.as_deref())?;
    order.connection = reader.connection.to_string();
    let alerts = super::runtime()?.block_on(gather(&reader, &which))?;
    if alerts.len() > house::MOST {
        let message = format!("{} alerts: one order takes {} at most", alerts.len(), house::MOST);
        return Err(Error::usage(message).help("narrow it with `--days` or `--sharing`"));
    }
    if which.similar {
        out.say(&format!("{verb} these {} alerts:", alerts.len()));
        for alert in &alerts {
            let alert = Alert(alert);
            let text = |name| alert.text(name).unwrap_or("");
            out.say(&safe(&format!("  {}  {}  {}  {}", alert.id(), text("severity"), text("status"), text("title"))));
        }
        if !which.yes && !dlq::confirm(&format!("{verb} {} alerts?", alerts.len()), global, out)? {
            out.say("nothing is done");
            return Ok(ExitCode::Findings);
        }
    }
    order.alert_ids = alerts.iter().map(|alert| Alert(alert).id().to_owned()).collect();
    let begun = control::call(&config.store, "alerts", &json!(order))?;
    told(&begun, house::ALERTS, &order.alert_ids, global, out)
}

/// The alerts that are named, read afresh, and those that are like them.
async fn gather(reader: &Reader, which: &Which) -> Result<Vec<Json>, Error> {
    let mut alerts = vec![];
    for id in &which.ids {
        alerts.push(reader.alert(id).await?);
    }
    if which.similar {
        let mut more = vec![];
        for alert in &alerts {
            let (others, cut) = reader.others(Alert(alert), which.days).await?;
            if cut {
                return Err(Error::usage("more alerts than can be compared at once").help("look back fewer `--days`"));
            }
            let like = similar::among(Alert(alert), &others).into_iter();
            let like = like.filter(|(other, shared)| other.is_open() && !(which.sharing && shared.is_empty()));
            more.extend(like.map(|(other, _)| other.0.clone()));
        }
        alerts.extend(more);
    }
    let mut seen = std::collections::HashSet::new();
    alerts.retain(|alert| seen.insert(Alert(alert).id().to_owned()));
    Ok(alerts)
}

/// Waits for the run of an order and says what became of it.
pub(super) fn told(begun: &Json, flow: &str, ids: &[String], global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let text = |name: &str| begun.get(name).and_then(Json::as_str).unwrap_or("");
    let run = RunId::parse(text("run")).ok_or_else(|| Error::new(ExitCode::Temporary, "the service named no run"))?;
    let live = begun.get("live").and_then(Json::as_bool).unwrap_or(false);
    let row = ended(&run, global)?;
    let status = row.as_ref().map_or("running", |row| row.status.as_str());
    let reason = row.as_ref().and_then(|row| row.reason.clone());
    if out.is_human() {
        let why = reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        out.line(&safe(&format!("{run} {status}{why}")));
        if !live {
            out.say(&format!(
                "shadow: it is recorded, and nothing is sent; `flow_modes: {{ {flow}: live }}` of the configuration lets it be done"
            ));
        }
        if !row.as_ref().is_some_and(|row| row.status.is_final()) {
            out.say("`watchfloor runs show` tells how it goes on");
        }
    } else {
        let effects = row.as_ref().map(|row| json!(row.effects));
        out.json(&json!({ "run": run.as_str(), "status": status, "reason": reason, "live": live, "alerts": ids, "effects": effects }));
    }
    Ok(match row.map(|row| row.status) {
        Some(RunStatus::Succeeded) => ExitCode::Ok,
        Some(status) if status.is_final() => ExitCode::Findings,
        _ => ExitCode::Temporary,
    })
}

/// The run when it has ended, or when it waits for something, or as it is after a minute.
fn ended(run: &RunId, global: &Global) -> Result<Option<RunRow>, Error> {
    let store = alerts_read::store(global)?;
    let mut row = None;
    let mut waited = 0;
    for _ in 0..LOOKS {
        row = store.run(run).map_err(runs::failed)?;
        waited = if row.as_ref().is_some_and(|row| row.status == RunStatus::Waiting) { waited + 1 } else { 0 };
        // A lock or a rate limit is a short wait; a person is a long one.
        if row.as_ref().is_some_and(|row| row.status.is_final()) || waited > 10 {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(row)
}

fn token() -> String {
    crate::clock::secret_token().chars().take(12).collect()
}
