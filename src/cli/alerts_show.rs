//! `alerts show ID`: one alert with its entities and their roles, the story in the order of time, similar alerts and how
//! they were closed, tags, and what was done on its devices. What can't be read is said, and the rest is shown.

use serde_json::{Value as Json, json};

use super::Global;
use super::alerts::summary;
use super::alerts_read::Reader;
use super::out::{Out, cell, safe};
use crate::catalog::ConnectionKind;
use crate::error::{Error, ExitCode};
use crate::triage::{Alert, evidence, similar, story};
use crate::value::{Map, Value};

/// Devices whose history is read, and entries of each.
const DEVICES: usize = 3;
const ACTIONS: i64 = 50;
/// Similar alerts that are shown.
const SIMILAR: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The alert: its id in any form, or its page in the portal
    id: String,
    /// How many days back similar alerts are looked for
    #[arg(long, default_value_t = 30, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=180))]
    days: u32,
    /// The connection to ask, of kind graph or mde
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
}

pub(super) fn run(args: &Args, global: &Global, out: &Out) -> Result<ExitCode, Error> {
    let reader = Reader::open(global, args.connection.as_deref())?;
    let item = super::runtime()?.block_on(whole(&reader, args))?;
    if out.is_human() {
        print(&item, out)
    } else {
        out.json(&item)
    }
    Ok(ExitCode::Ok)
}

/// Everything about an alert, in the shape of `alerts show -o json`.
async fn whole(reader: &Reader, args: &Args) -> Result<Json, Error> {
    let alert = reader.alert(&args.id).await?;
    let alert = Alert(&alert);
    let mut missing = vec![];
    let others = match reader.others(alert, args.days).await {
        Ok((others, cut)) => {
            if cut {
                missing.push(format!("there are more alerts of the last {} days than were compared", args.days));
            }
            others
        }
        Err(error) => {
            missing.push(error.message);
            vec![]
        }
    };
    let actions = history(reader, alert, &mut missing).await;
    let incident_tags = incident_tags(reader, alert, &mut missing).await;
    let store = reader.store();
    let mut item = summary(alert, store.as_ref());
    let facts = evidence::facts(alert);
    let facts: Vec<Json> = facts.iter().map(fact).collect();
    let like = similar::among(alert, &others);
    let alike = like.len();
    let closed = closures(&like);
    let like: Vec<Json> = like.iter().take(SIMILAR).map(|(other, shared)| like_json(*other, shared)).collect();
    let lists = ["devices", "users", "ips", "files", "urls", "mailboxes"];
    let entities = lists.map(|name| (name.to_owned(), Json::Array(alert.list(name).cloned().collect())));
    let comments = alert.comments().into_iter();
    let comments: Vec<Json> =
        comments.map(|it| json!({ "text": it.text, "by": it.by, "at": it.at.map(|at| at.to_string()) })).collect();
    for (name, value) in [
        ("description", json!(alert.text("description"))),
        ("detection", json!(alert.source().detection)),
        ("entities", Json::Object(entities.into_iter().collect())),
        ("evidence", Json::Array(facts)),
        ("story", json!(story::story(alert, &actions).iter().map(story::Moment::json).collect::<Vec<_>>())),
        ("comments", Json::Array(comments)),
        ("recommended_actions", json!(alert.raw(&["recommendedActions", "recommendedAction"]))),
        ("system_tags", json!(alert.list("tags").collect::<Vec<_>>())),
        ("custom_tags", json!(custom_tags(alert, incident_tags))),
        ("machine_actions", Json::Array(actions)),
        ("similar", json!({ "count": alike, "closed_as": closed, "alerts": like })),
        ("missing", json!(missing)),
    ] {
        item[name] = value;
    }
    Ok(item)
}

/// What was done on the alert's devices, newest first, over Defender for Endpoint.
async fn history(reader: &Reader, alert: Alert<'_>, missing: &mut Vec<String>) -> Vec<Json> {
    let devices: Vec<&str> = alert.list("devices").filter_map(|device| device.get("id")?.as_str()).collect();
    if devices.is_empty() {
        return vec![];
    }
    let Some(mde) = reader.of_kind(ConnectionKind::Mde) else {
        missing.push("what was done on its devices: needs a connection of kind mde".to_owned());
        return vec![];
    };
    if devices.len() > DEVICES {
        missing.push(format!("what was done on {} more devices", devices.len() - DEVICES));
    }
    let mut actions = vec![];
    for id in devices.into_iter().take(DEVICES) {
        let inputs = Map::from([
            ("machine_id".into(), Value::str(id)),
            ("top".into(), Value::Int(ACTIONS)),
            ("skip".into(), Value::Int(0)),
        ]);
        match reader.fetch(mde, "mde.list_machine_actions", inputs).await {
            Ok(page) => actions.extend(page.get("value").and_then(Json::as_array).into_iter().flatten().cloned()),
            Err(error) => missing.push(error.message),
        }
    }
    actions.sort_by_key(|action| std::cmp::Reverse(cell(action, "created")));
    actions
}

/// The tags that people and the system gave its incident.
async fn incident_tags(reader: &Reader, alert: Alert<'_>, missing: &mut Vec<String>) -> Vec<Json> {
    let (Some(incident), ConnectionKind::Graph) = (alert.text("incident_id"), reader.kind) else { return vec![] };
    let inputs = Map::from([("incident_id".into(), Value::str(incident))]);
    match reader.fetch(&reader.connection, "xdr.get_incident", inputs).await {
        Ok(incident) => {
            let custom = incident.get("raw").and_then(|raw| raw.get("customTags")).and_then(Json::as_array);
            custom.cloned().unwrap_or_default()
        }
        Err(error) => {
            missing.push(error.message);
            vec![]
        }
    }
}

/// Tags that people set: on the incident, on pieces of evidence, and what a custom detection says of itself.
fn custom_tags(alert: Alert<'_>, mut tags: Vec<Json>) -> Vec<Json> {
    for item in alert.list("evidence") {
        let of = item.get("raw").and_then(|raw| raw.get("tags")).and_then(Json::as_array);
        for tag in of.into_iter().flatten() {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
    }
    tags
}

fn fact(fact: &evidence::Fact) -> Json {
    let mut fields = serde_json::Map::new();
    for (name, value) in &fact.fields {
        fields.entry((*name).to_owned()).or_insert_with(|| json!(value));
    }
    json!({
        "type": fact.kind, "fields": fields, "roles": fact.roles, "verdict": fact.verdict,
        "created": fact.created.map(|at| at.to_string()),
    })
}

fn like_json(other: Alert<'_>, shared: &[String]) -> Json {
    json!({
        "id": other.id(), "title": other.text("title"), "severity": other.text("severity"), "status": other.text("status"),
        "created": other.text("created"), "classification": other.text("classification"),
        "determination": other.text("determination"), "closed_by": other.closed_by(),
        "closed": other.closed().map(|at| at.to_string()), "shared": shared,
    })
}

/// How similar alerts were closed, and by whom: the most frequent first.
fn closures(like: &[(Alert<'_>, Vec<String>)]) -> Vec<Json> {
    let mut found: Vec<(Json, u32)> = vec![];
    for (other, _) in like.iter().filter(|(other, _)| !other.is_open()) {
        let how = json!({
            "classification": other.text("classification"), "determination": other.text("determination"),
            "by": other.closed_by(),
        });
        match found.iter_mut().find(|(known, _)| *known == how) {
            Some((_, count)) => *count += 1,
            None => found.push((how, 1)),
        }
    }
    found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let counted = |(mut how, count): (Json, u32)| {
        how["count"] = json!(count);
        how
    };
    found.into_iter().map(counted).collect()
}

fn print(item: &Json, out: &Out) {
    for name in [
        "id",
        "title",
        "product",
        "detection",
        "severity",
        "status",
        "classification",
        "determination",
        "category",
        "assigned_to",
        "incident_id",
        "investigation_state",
        "created",
        "updated",
        "url",
    ] {
        let text = cell(item, name);
        if !text.is_empty() {
            out.line(&safe(&format!("{name:<19} {text}")));
        }
    }
    if let Some(by) = item.get("suppressed").filter(|by| !by.is_null()) {
        out.line(&safe(&format!("{:<19} {} at {}", "suppressed by", cell(by, "rule"), cell(by, "at"))));
    }
    for name in ["system_tags", "custom_tags"] {
        let tags: Vec<&str> = listed(item, name).filter_map(Json::as_str).collect();
        if !tags.is_empty() {
            out.line(&safe(&format!("{name:<19} {}", tags.join(", "))));
        }
    }
    section(out, "evidence", listed(item, "evidence"), |fact| {
        let fields = fact.get("fields").and_then(Json::as_object).into_iter().flatten();
        let fields: Vec<String> =
            fields.map(|(name, value)| format!("{name} {}", value.as_str().unwrap_or(""))).collect();
        let roles: Vec<&str> = listed(fact, "roles").filter_map(Json::as_str).collect();
        let roles = if roles.is_empty() { String::new() } else { format!(" ({})", roles.join(", ")) };
        format!("{:<12}{} {}", cell(fact, "type"), roles, fields.join(", "))
    });
    section(out, "story", listed(item, "story"), |moment| {
        format!("{}  {:<14} {}", cell(moment, "at"), cell(moment, "what"), cell(moment, "text"))
    });
    if let Some(text) = item.get("recommended_actions").and_then(Json::as_str) {
        section(out, "recommended actions", text.lines(), |line| line.to_owned());
    }
    section(out, "machine actions", listed(item, "machine_actions"), |action| {
        let by = cell(action, "requestor");
        format!(
            "{}  {} {}  {by}  {}",
            cell(action, "created"),
            cell(action, "type"),
            cell(action, "status"),
            cell(action, "comment")
        )
    });
    print_similar(item, out);
    for what in listed(item, "missing").filter_map(Json::as_str) {
        out.say(&safe(&format!("not shown: {what}")));
    }
}

fn print_similar(item: &Json, out: &Out) {
    if let Some(similar) = item.get("similar") {
        section(out, "similar alerts were closed", listed(similar, "closed_as"), |how| {
            let by = Some(cell(how, "by")).filter(|by| !by.is_empty()).unwrap_or_else(|| "somebody".into());
            let verdict = Some(cell(how, "classification"))
                .filter(|it| !it.is_empty())
                .unwrap_or_else(|| "without a verdict".into());
            format!("{} × {verdict} {} by {by}", cell(how, "count"), cell(how, "determination"))
        });
        section(out, "similar alerts", listed(similar, "alerts"), |other| {
            let shared: Vec<&str> = listed(other, "shared").filter_map(Json::as_str).collect();
            format!(
                "{}  {}  {}  {}  {}",
                cell(other, "id"),
                cell(other, "created"),
                cell(other, "status"),
                cell(other, "title"),
                shared.join(", ")
            )
        });
    }
}

fn listed<'a>(item: &'a Json, name: &str) -> impl Iterator<Item = &'a Json> + use<'a> {
    item.get(name).and_then(Json::as_array).into_iter().flatten()
}

fn section<T>(out: &Out, title: &str, items: impl Iterator<Item = T>, line: impl Fn(T) -> String) {
    let mut items = items.peekable();
    if items.peek().is_some() {
        out.line(&format!("\n{title}"));
        items.for_each(|item| out.line(&safe(&format!("  {}", line(item).trim_end()))));
    }
}
