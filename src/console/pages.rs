//! The two pages as HTML.

use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, html};

use super::Filters;
use super::timeline::Entry;
use crate::expr::{Trace, TraceResult};
use crate::journal::{Blob, RunRow, RunStatus};

/// Longest answer that a page shows.
const MAX_ANSWER: usize = 20_000;

fn page(title: &str, body: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · watchfloor" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                header { a href="/" { "watchfloor" } }
                main { (body) }
            }
        }
    }
    .into_string()
}

pub(super) fn list(
    rows: &[RunRow],
    counts: &BTreeMap<RunStatus, u64>,
    notices: &[String],
    filters: &Filters,
    size: usize,
) -> String {
    let next = rows.last().filter(|_| rows.len() >= size).map(|row| link(filters, Some(row.no)));
    let body = html! {
        h1 { "Runs" }
        @for notice in notices { p.notice { (notice) } }
        form method="get" action="/" {
            label { "flow " input name="flow" value=(filters.flow); }
            label { "alert or key " input name="key" value=(filters.key); }
            label {
                "status "
                select name="status" {
                    option value="" { "any" }
                    @for status in RunStatus::ALL {
                        option value=(status.as_str()) selected[filters.status == status.as_str()] { (status.as_str()) }
                    }
                }
            }
            button { "show" }
        }
        p.counts {
            @for (status, n) in counts { span class=(status.as_str()) { (status.as_str()) " " (n) } " " }
        }
        @if rows.is_empty() {
            p { "No run matches." }
        } @else {
            table {
                thead { tr { th { "status" } th { "flow" } th { "for" } th { "started" } th { "did" } } }
                tbody {
                    @for row in rows {
                        tr {
                            td class=(row.status.as_str()) { (row.status.as_str()) }
                            td { a href={ "/runs/" (row.id) } { (row.flow) } }
                            td { (row.key) }
                            td { (time(row.accepted)) }
                            td { (effects(row)) @if let Some(why) = &row.reason { " " small { (why) } } }
                        }
                    }
                }
            }
        }
        @if let Some(next) = next { p { a href=(next) { "older" } } }
    };
    page("runs", &body)
}

/// The list with the same filters, from a run on.
fn link(filters: &Filters, before: Option<i64>) -> String {
    let pairs = [("flow", &filters.flow), ("status", &filters.status), ("key", &filters.key)];
    let mut url = reqwest::Url::parse("http://localhost/").ok();
    if let Some(url) = &mut url {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(pairs.iter().filter(|(_, text)| !text.is_empty()));
        if let Some(before) = before {
            query.append_pair("before", &before.to_string());
        }
    }
    format!("/?{}", url.as_ref().and_then(reqwest::Url::query).unwrap_or(""))
}

pub(super) fn run(row: &RunRow, steps: &Result<Vec<Entry>, String>, blobs: &[Blob]) -> String {
    let body = html! {
        h1 { (row.flow) " " span class=(row.status.as_str()) { (row.status.as_str()) } }
        @if let Some(why) = &row.reason { p.why { (why) } }
        dl {
            dt { "for" } dd { (row.trigger) " " (row.key) }
            dt { "did" } dd { (effects(row)) }
            dt { "happened" } dd { (time(row.occurred)) }
            dt { "started" } dd { (time(row.accepted)) }
            dt { "ended" } dd { @match row.ended { Some(at) => { (time(at)) } None => { "not yet" } } }
            dt { "run" } dd { (row.id) }
            dt { "version" } dd { (row.version) }
        }
        h2 { "Steps" }
        @match steps {
            Ok(entries) => { ol.steps { @for entry in entries { (step(entry)) } } }
            Err(error) => { p.failed { "The steps can't be told: " (error) } }
        }
        h2 { "What started it" }
        pre { (pretty(&row.payload.to_json())) }
        @if row.inputs.as_map().is_some_and(|inputs| !inputs.is_empty()) {
            h2 { "Inputs" }
            pre { (pretty(&row.inputs.to_json())) }
        }
        @if !blobs.is_empty() {
            h2 { "Full answers" }
            @for blob in blobs {
                details {
                    summary { (blob.path) " #" (blob.attempt) }
                    pre { (cut(&String::from_utf8_lossy(&blob.body))) }
                }
            }
        }
    };
    page(&row.flow, &body)
}

fn step(entry: &Entry) -> Markup {
    html! {
        li class=(entry.what) {
            span.time { (time(entry.at)) } " "
            span.what { (entry.what) } " "
            code { (entry.path) } " "
            @if entry.trace.is_none() { (entry.text) }
            @if let Some(line) = entry.line { small { " line " (line) } }
            @if let Some(trace) = &entry.trace { ul.trace { (tree(trace)) } }
            @if let Some(values) = &entry.values {
                details { summary { "values" } pre { (cut(&pretty(values))) } }
            }
        }
    }
}

/// A condition leaf by leaf, with the values that were read.
fn tree(trace: &Trace) -> Markup {
    let (class, mark) = match &trace.result {
        TraceResult::True => ("true", "true".to_owned()),
        TraceResult::False => ("false", "false".to_owned()),
        TraceResult::Error(error) => ("error", format!("error: {error}")),
    };
    html! {
        li {
            span class=(class) { (mark) } " " code { (trace.text) }
            @for (path, value) in &trace.reads { " " small { (path) " = " (value) } }
            @if !trace.parts.is_empty() { ul { @for part in &trace.parts { (tree(part)) } } }
        }
    }
}

fn effects(row: &RunRow) -> String {
    let each: Vec<_> = row.effects.iter().map(|(action, n)| format!("{action} ×{n}")).collect();
    if each.is_empty() { "–".to_owned() } else { each.join(", ") }
}

fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

fn pretty(json: &serde_json::Value) -> String {
    serde_json::to_string_pretty(json).unwrap_or_default()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_ANSWER) {
        Some((at, _)) => format!("{}\n… (cut)", text.get(..at).unwrap_or("")),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RunId;
    use crate::value::Value;

    #[test]
    fn hostile_text_stays_text() {
        let at: jiff::Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
        let hostile = "\"><svg onload=alert(1)></script>";
        let row = RunRow {
            no: 1,
            id: RunId::new(at, "f", "k"),
            flow: hostile.into(),
            version: "v".into(),
            trigger: "mde.alert.new".into(),
            key: hostile.into(),
            status: RunStatus::Failed,
            reason: Some(hostile.into()),
            accepted: at,
            occurred: at,
            ended: None,
            payload: Value::object([("title", Value::str(hostile))]),
            inputs: Value::empty(),
            effects: BTreeMap::new(),
            damaged: None,
        };
        let filters = Filters { flow: hostile.into(), ..Filters::default() };
        let list = list(std::slice::from_ref(&row), &BTreeMap::new(), &[hostile.to_owned()], &filters, 1);
        let blob = Blob { path: hostile.into(), attempt: 1, body: hostile.as_bytes().to_vec() };
        for html in [list, run(&row, &Err(hostile.into()), &[blob])] {
            assert!(!html.contains("<svg") && !html.contains("<script"), "{html}");
        }
    }
}
