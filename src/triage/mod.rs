//! What analysts know of alerts, as data and pure functions: which product an id is of, which verdicts go together, what its
//! evidence says, which alerts are alike, and what happened when.
//!
//! Works on the normalised alert as JSON, with the service's own fields under `raw`. Not here: reading alerts (see
//! `connector`), suppressing them (see `suppress`), printing (see `cli`).

pub mod evidence;
pub mod similar;
pub mod source;
pub mod story;
pub mod verdict;

use jiff::Timestamp;
use serde_json::Value as Json;

/// A normalised alert, of whatever product.
#[derive(Clone, Copy, Debug)]
pub struct Alert<'a>(pub &'a Json);

impl<'a> Alert<'a> {
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    pub fn id(self) -> &'a str {
        self.text("id").unwrap_or("")
    }

    /// One of the service's own fields; the services name some differently, the first that says something counts.
    pub fn raw(self, names: &[&str]) -> Option<&'a str> {
        let raw = self.0.get("raw")?;
        names.iter().find_map(|name| raw.get(*name)?.as_str().filter(|text| !text.is_empty()))
    }

    pub fn list(self, name: &str) -> impl Iterator<Item = &'a Json> + use<'a> {
        self.0.get(name).and_then(Json::as_array).into_iter().flatten()
    }

    /// What detected it, in the service's word.
    pub fn detection_source(self) -> Option<&'a str> {
        self.raw(&["detectionSource"]).filter(|word| !word.eq_ignore_ascii_case("unknown"))
    }

    /// The rule that raised it: alerts with the same one are of the same kind.
    pub fn detector(self) -> Option<&'a str> {
        self.raw(&["detectorId", "alertPolicyId"]).or_else(|| self.text("policy"))
    }

    pub fn investigation_state(self) -> Option<&'a str> {
        self.raw(&["investigationState"])
    }

    pub fn source(self) -> source::Source {
        source::read(self.id(), self.text("source"), self.detection_source())
    }

    pub fn is_open(self) -> bool {
        !self.text("status").is_some_and(|status| status.eq_ignore_ascii_case("Resolved"))
    }

    pub fn created(self) -> Option<Timestamp> {
        self.text("created")?.parse().ok()
    }

    /// Comments, the oldest first: what, by whom, when.
    pub fn comments(self) -> Vec<Comment<'a>> {
        let raw = self.0.get("raw").and_then(|raw| raw.get("comments")).and_then(Json::as_array);
        let said = |item: &'a Json, names: &[&str]| names.iter().find_map(|name| item.get(*name)?.as_str());
        let comment = |item: &'a Json| {
            let text = said(item, &["comment"]).filter(|text| !text.is_empty())?;
            let at = said(item, &["createdDateTime", "createdTime"]).and_then(|at| at.parse().ok());
            Some(Comment { text, by: said(item, &["createdByDisplayName", "createdBy"]), at })
        };
        let mut comments: Vec<_> = raw.into_iter().flatten().filter_map(comment).collect();
        comments.sort_by_key(|comment| comment.at);
        comments
    }

    /// Who closed it, as far as the services tell: they name the owner and who wrote comments, not who set the status.
    pub fn closed_by(self) -> Option<&'a str> {
        if self.is_open() {
            return None;
        }
        self.text("assigned_to").or_else(|| self.comments().last().and_then(|last| last.by))
    }

    /// When it was closed.
    pub fn closed(self) -> Option<Timestamp> {
        self.raw(&["resolvedDateTime", "resolvedTime", "resolveTime"])?.parse().ok()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comment<'a> {
    pub text: &'a str,
    pub by: Option<&'a str>,
    pub at: Option<Timestamp>,
}
