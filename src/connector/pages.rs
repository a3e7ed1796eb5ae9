//! A list read to its end: page after page, bounded in pages and bytes, never to another host, never in a circle.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::Value as Json;

use super::client::FETCH;
use super::conn::Outgoing;
use super::native::{Attempt, Got};
use super::request::{self, NextPage, Request};
use super::wire;
use crate::engine::Outcome;

/// More pages than this are a service that does not end, or a question that should be narrower.
const PAGES: usize = 100;
/// All pages together, in bytes.
const BYTES: usize = 64 << 20;

/// All pages of a list as one answer. It fails as a whole: a list with a hole in it would let a watermark pass what was
/// never seen.
pub(super) async fn all(attempt: &Attempt) -> Got {
    let first = attempt.built(&attempt.action, &attempt.inputs).map_err(bare)?;
    let mut out = attempt.outgoing(&first).map_err(bare)?;
    let mut request = first;
    let mut seen = HashSet::from([key(&out)]);
    let mut whole = read(attempt, &out).await?;
    let mut bytes = whole.body.len();
    let mut next = request::next_page(&attempt.action, &request, &whole.json);
    while let Some(page) = next {
        (out, request) = follow(attempt, page, request).map_err(bare)?;
        if !seen.insert(key(&out)) {
            return Err(bare(endless(attempt, "leads back to a page that was read already")));
        }
        if seen.len() > PAGES {
            return Err(bare(endless(attempt, "has more than 100 pages")));
        }
        let answer = read(attempt, &out).await?;
        bytes += answer.body.len();
        if bytes > BYTES {
            return Err(bare(endless(attempt, "has more than 64 MiB")));
        }
        next = request::next_page(&attempt.action, &request, &answer.json);
        append(&mut whole.json, answer.json);
    }
    Ok(whole)
}

async fn read(attempt: &Attempt, out: &Outgoing) -> Got {
    let _slot = attempt.conn.limits.take(&attempt.action.rate_class).await;
    match tokio::time::timeout(FETCH, Box::pin(attempt.page(&attempt.action, out))).await {
        Ok(got) => got,
        Err(_) => {
            let why = format!("{} did not answer within {} s", attempt.conn.name, FETCH.as_secs());
            Err(bare(wire::unknown(0, "timeout", why)))
        }
    }
}

fn follow(attempt: &Attempt, page: NextPage, last: Request) -> Result<(Outgoing, Request), Outcome> {
    match page {
        NextPage::Request(request) => Ok((attempt.outgoing(&request)?, request)),
        NextPage::Link(link) => {
            let url = attempt.conn.follow(&link)?;
            let mut out = Outgoing::json(Method::GET, url, None);
            out.headers.extend(attempt.outgoing(&last)?.headers);
            Ok((out, last))
        }
    }
}

/// Adds the items of a later page to the first, under whichever name the service lists them.
fn append(whole: &mut Json, page: Json) {
    let Json::Object(members) = page else { return };
    for (key, value) in members {
        if let (Some(Json::Array(items)), Json::Array(more)) = (whole.get_mut(&key), value) {
            items.extend(more);
        }
    }
}

fn key(out: &Outgoing) -> (String, Option<bytes::Bytes>) {
    (out.url.to_string(), out.body.clone())
}

fn endless(attempt: &Attempt, what: &str) -> Outcome {
    wire::unknown(200, "endless_list", format!("the list of {} {what}; ask for less", attempt.action.name))
}

fn bare(outcome: Outcome) -> (Outcome, Vec<u8>) {
    (outcome, Vec::new())
}
