//! A rule's file to a rule, every fault at once: unknown keys, wrong words, patterns that say nothing, what may not be
//! suppressed.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::pattern::{LONGEST, Pattern};
use super::{Action, Cond, Indicator, Kind, Piece, Rule, Scope};
use crate::diag::{Diagnostic, Severity, Source, Span, suggestion};
use crate::triage::{evidence, source, verdict};
use crate::yaml::{self, Entry, Node};

/// Conditions inside each other, and pieces of evidence in one rule.
const DEEPEST: usize = 5;
const MOST: usize = 200;
/// A rule that lives longer is warned about.
const YEAR: SignedDuration = SignedDuration::from_hours(366 * 24);

pub(super) const KEYS: [&str; 9] =
    ["suppression", "comment", "owner", "expires", "alert", "scope", "evidence", "action", "allow"];
pub(super) const KIND: [&str; 4] = ["title", "source", "detector_id", "category"];
pub(super) const SCOPE: [&str; 3] = ["devices", "device_groups", "users"];
pub(super) const RESOLVE: [&str; 3] = ["classification", "determination", "comment"];
pub(super) const ALLOW: [&str; 3] = ["type", "value", "groups"];
pub(super) const INDICATORS: [&str; 7] =
    ["FileSha1", "FileSha256", "FileMd5", "CertificateThumbprint", "IpAddress", "DomainName", "Url"];
/// Graph's roles; a role that is not here is compared as it stands, since the services add some.
pub(super) const ROLES: [&str; 15] = [
    "unknown",
    "contextual",
    "scanned",
    "source",
    "destination",
    "created",
    "added",
    "compromised",
    "edited",
    "attacked",
    "attacker",
    "commandAndControl",
    "loaded",
    "suspicious",
    "policyViolator",
];

/// What a file is checked against, besides itself.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    pub now: Timestamp,
    /// Rules that the configuration lets hold for users alone; `None` where no configuration is at hand.
    pub user_scoped: Option<&'a [String]>,
}

/// Reads one rule. With an error there is none; warnings ride with one.
pub fn read(source: &Arc<Source>, given: Given<'_>) -> (Option<Rule>, Vec<Diagnostic>) {
    let (node, faults) = yaml::parse_lenient(source);
    let mut reader = Reader { source, faults, pieces: 0 };
    let rule = node.and_then(|node| reader.rule(&node, given));
    let failed = reader.faults.iter().any(|fault| fault.severity == Severity::Error);
    (rule.filter(|_| !failed), reader.faults)
}

struct Reader<'s> {
    source: &'s Arc<Source>,
    faults: Vec<Diagnostic>,
    pieces: usize,
}

impl Reader<'_> {
    fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.faults.push(Diagnostic::error(code, self.source, span, message).help(help));
    }

    fn rule(&mut self, node: &Node, given: Given<'_>) -> Option<Rule> {
        let entries = self.map(node, "a suppression rule", &KEYS)?;
        let name = self.needed(entries, node, "suppression", "the rule's name").and_then(|node| self.name(node));
        let comment =
            self.needed(entries, node, "comment", "why these alerts are harmless").and_then(|it| self.text(it));
        let owner = self.needed(entries, node, "owner", "who answers for it").and_then(|node| self.text(node));
        let expires = self.needed(entries, node, "expires", "when it ends, such as 2027-02-01");
        let expires = expires.and_then(|node| self.expires(node, given.now));
        let alert = self.needed(entries, node, "alert", "which type of alert, or `any`");
        let kind = alert.and_then(|node| self.kind(node));
        let scope = get(entries, "scope").map_or_else(Scope::default, |node| self.scope(node));
        let evidence = get(entries, "evidence").map(|node| self.cond(node, 0));
        let action = self.needed(entries, node, "action", "`ignore`, or `resolve` with a verdict");
        let action = action.and_then(|node| self.action(node));
        let allow = get(entries, "allow").map_or_else(Vec::new, |node| self.allow(node));
        let at = get(entries, "alert").map_or(node.span, |node| node.span);
        if kind.as_ref().is_some_and(Kind::is_any) && evidence.is_none() {
            self.error("WF0905", at, "a rule for any type of alert needs a condition on evidence", "add `evidence:`");
        }
        if let (true, Some(name), Some(scoped)) = (scope.is_users_only(), &name, given.user_scoped)
            && !scoped.iter().any(|it| **it == **name)
        {
            let at = get(entries, "scope").map_or(node.span, |node| node.span);
            let help = format!(
                "whoever administers the installation adds `{name}` to `user_scoped_suppressions:` of the configuration, or narrow it to devices too"
            );
            self.error("WF0907", at, "a rule that is narrowed to users alone is for an administrator to allow", help);
        }
        Some(Rule {
            name: name?,
            comment: comment?,
            owner: owner?,
            expires: expires?,
            kind: kind?,
            scope,
            evidence: evidence.flatten_cond()?,
            action: action?,
            allow,
        })
    }

    /// The entries of a map with known keys.
    fn map<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> Option<&'n [Entry]> {
        let yaml::Kind::Map(entries) = &node.kind else {
            self.error("WF0903", node.span, format!("{what} is a map, not {}", node.describe()), list_of(known));
            return None;
        };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let help = suggestion(&entry.key, known.iter().copied()).unwrap_or_else(|| list_of(known));
            let key: String = entry.key.chars().take(60).collect();
            self.error("WF0901", entry.key_span, format!("`{key}` is not a key of {what}"), help);
        }
        Some(entries)
    }

    fn needed<'n>(&mut self, entries: &'n [Entry], whole: &Node, name: &str, what: &str) -> Option<&'n Node> {
        let found = get(entries, name);
        if found.is_none() {
            let start = whole.span.start;
            self.error(
                "WF0902",
                Span::new(start, start + 1),
                format!("the rule has no `{name}`"),
                format!("`{name}:` says {what}"),
            );
        }
        found
    }

    fn text(&mut self, node: &Node) -> Option<String> {
        let text = node.scalar().map(|scalar| scalar.text.trim()).filter(|text| !text.is_empty());
        match text {
            Some(text) if text.chars().count() <= LONGEST => Some(text.to_owned()),
            Some(_) => {
                self.error(
                    "WF0903",
                    node.span,
                    format!("this text is longer than {LONGEST} letters"),
                    "make it shorter",
                );
                None
            }
            None => {
                self.error(
                    "WF0903",
                    node.span,
                    format!("wanted a text, not {}", node.describe()),
                    "write it in quotes",
                );
                None
            }
        }
    }

    fn name(&mut self, node: &Node) -> Option<Arc<str>> {
        let text = self.text(node)?;
        let fits =
            text.len() <= 64 && text.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-');
        if !fits {
            self.error("WF0903", node.span, "this is no name of a rule", "small letters, digits and `-`, 64 at most");
            return None;
        }
        Some(text.into())
    }

    fn expires(&mut self, node: &Node, now: Timestamp) -> Option<Timestamp> {
        let text = self.text(node)?;
        let at = text.parse::<Timestamp>().or_else(|_| format!("{text}T00:00:00Z").parse());
        let Ok(at) = at else {
            self.error("WF0903", node.span, format!("`{text}` is no date"), "write one such as 2027-02-01");
            return None;
        };
        if at <= now {
            let fault =
                Diagnostic::warning("WF0904", self.source, node.span, "this rule has expired and suppresses nothing");
            self.faults.push(fault.help("delete it, or look at it again and give it a later date"));
        } else if at.duration_since(now) > YEAR {
            let fault = Diagnostic::warning("WF0909", self.source, node.span, "this rule lives for more than a year");
            self.faults.push(fault.help("what is harmless today may not be then: look at it again within a year"));
        }
        Some(at)
    }

    fn kind(&mut self, node: &Node) -> Option<Kind> {
        if node.scalar().is_some_and(|scalar| scalar.text.trim() == "any") {
            return Some(Kind::default());
        }
        let entries = self.map(node, "`alert:`", &KIND)?;
        let mut kind = Kind::default();
        for entry in entries {
            match entry.key.as_str() {
                "title" => kind.title = self.patterns(&entry.value),
                "detector_id" => kind.detector_id = self.patterns(&entry.value),
                "category" => kind.category = self.patterns(&entry.value),
                "source" => {
                    kind.source =
                        self.words(&entry.value, "a product", source::meant, &source::names().collect::<Vec<_>>())
                }
                _ => {}
            }
        }
        if entries.is_empty() {
            self.error("WF0903", node.span, "`alert:` is empty", "name a type of alert, or write `alert: any`");
        }
        Some(kind)
    }

    fn scope(&mut self, node: &Node) -> Scope {
        if node.scalar().is_some_and(|scalar| scalar.text.trim() == "organisation") {
            return Scope::default();
        }
        let Some(entries) = self.map(node, "`scope:`", &SCOPE) else { return Scope::default() };
        let mut scope = Scope::default();
        for entry in entries {
            let patterns = self.patterns(&entry.value);
            match entry.key.as_str() {
                "devices" => scope.devices = patterns,
                "device_groups" => scope.device_groups = patterns,
                "users" => scope.users = patterns,
                _ => {}
            }
        }
        scope
    }

    fn cond(&mut self, node: &Node, depth: usize) -> Option<Cond> {
        let kinds: Vec<&str> = evidence::KINDS.iter().map(|kind| kind.name).collect();
        let known: Vec<&str> = ["all", "any"].into_iter().chain(kinds).collect();
        let entries = self.map(node, "a condition", &known)?;
        let [entry] = entries else {
            let help = "several conditions stand in a list under `all:` or `any:`";
            self.error("WF0903", node.span, "a condition has exactly one of `all`, `any` and a kind of evidence", help);
            return None;
        };
        if depth >= DEEPEST {
            self.error(
                "WF0903",
                node.span,
                format!("conditions lie more than {DEEPEST} deep"),
                "make the rule simpler",
            );
            return None;
        }
        let group: fn(Vec<Cond>) -> Cond = match entry.key.as_str() {
            "all" => Cond::All,
            "any" => Cond::Any,
            kind => return evidence::kind_named(kind).and_then(|kind| self.piece(kind, entry)).map(Cond::Piece),
        };
        let yaml::Kind::List(items) = &entry.value.kind else {
            self.error(
                "WF0903",
                entry.value.span,
                format!("`{}` is a list of conditions", entry.key),
                "begin each with `- `",
            );
            return None;
        };
        if items.is_empty() {
            self.error(
                "WF0903",
                entry.key_span,
                format!("`{}` is empty", entry.key),
                "leave it out, or add conditions",
            );
        }
        let parts: Vec<Option<Cond>> = items.iter().map(|item| self.cond(item, depth + 1)).collect();
        parts.into_iter().collect::<Option<_>>().map(group)
    }

    fn piece(&mut self, kind: &'static evidence::Kind, entry: &Entry) -> Option<Piece> {
        self.pieces += 1;
        if self.pieces == MOST + 1 {
            self.error(
                "WF0903",
                entry.key_span,
                format!("more than {MOST} pieces of evidence"),
                "make several rules of it",
            );
        }
        let known: Vec<&str> = kind.fields.iter().map(|field| field.name).chain(["role"]).collect();
        let entries = self.map(&entry.value, &format!("`{}`", kind.name), &known)?;
        let mut piece = Piece { kind: kind.name, fields: vec![], roles: vec![] };
        for entry in entries {
            if entry.key == "role" {
                piece.roles = self.texts(&entry.value).into_iter().map(|(text, _)| text).collect();
            } else if let Some(field) = kind.fields.iter().find(|field| field.name == entry.key) {
                piece.fields.push((field.name, self.patterns(&entry.value)));
            }
        }
        let says = |(_, patterns): &(&str, Vec<Pattern>)| patterns.iter().any(|pattern| !pattern.is_everything());
        if !piece.fields.iter().any(says) {
            let help = format!("give one of {} a value", known.join(", "));
            self.error(
                "WF0908",
                entry.key_span,
                format!("this is true of every {}", kind.name.replace('_', " ")),
                help,
            );
        }
        Some(piece)
    }

    fn action(&mut self, node: &Node) -> Option<Action> {
        if node.scalar().is_some_and(|scalar| scalar.text.trim() == "ignore") {
            return Some(Action::Ignore);
        }
        let entries = self.map(node, "`action:`", &["resolve"])?;
        let Some(inner) = get(entries, "resolve") else {
            self.error(
                "WF0903",
                node.span,
                "`action:` is `ignore` or `resolve`",
                "`action: { resolve: { classification: … } }`",
            );
            return None;
        };
        let entries = self.map(inner, "`resolve:`", &RESOLVE)?;
        let class = self.needed(entries, inner, "classification", "what these alerts are")?;
        let classes: Vec<&str> = verdict::PAIRS.iter().map(|(word, _)| *word).collect();
        let classification =
            self.words(class, "a classification", verdict::classification, &classes).first().copied()?;
        let determination = match get(entries, "determination") {
            None => None,
            Some(node) => Some(self.determination(node, classification)?),
        };
        let comment = get(entries, "comment").and_then(|node| self.text(node));
        Some(Action::Resolve { classification, determination, comment })
    }

    fn determination(&mut self, node: &Node, class: &'static str) -> Option<&'static str> {
        let text = self.text(node)?;
        let Some(word) = verdict::determination(&text) else {
            let fitting: Vec<&str> = verdict::fitting(class).collect();
            self.error("WF0903", node.span, format!("`{text}` is no determination"), list_of(&fitting));
            return None;
        };
        if let Some(instead) = word.instead {
            let fault = Diagnostic::warning("WF0417", self.source, node.span, format!("`{text}` is out of use"));
            self.faults.push(fault.help(format!("write `{instead}`")));
        }
        if let Err(why) = verdict::pair(class, word.word) {
            self.error("WF0718", node.span, why, "one of the two is not what was meant");
        }
        Some(word.word)
    }

    fn allow(&mut self, node: &Node) -> Vec<Indicator> {
        let yaml::Kind::List(items) = &node.kind else {
            self.error("WF0903", node.span, "`allow:` is a list of indicators", "begin each with `- `");
            return vec![];
        };
        if items.len() > 50 {
            self.error("WF0903", node.span, "more than 50 indicators", "make several rules of it");
        }
        let mut found = vec![];
        for item in items.iter().take(50) {
            let Some(entries) = self.map(item, "an indicator", &ALLOW) else { continue };
            let word = |text: &str| INDICATORS.into_iter().find(|word| word.eq_ignore_ascii_case(text.trim()));
            let kind = self.needed(entries, item, "type", "what the value is");
            let kind =
                kind.and_then(|node| self.words(node, "a type of indicator", word, &INDICATORS).first().copied());
            let value = self.needed(entries, item, "value", "what is allowed").and_then(|node| self.text(node));
            let groups = get(entries, "groups").map_or_else(Vec::new, |node| self.texts(node));
            if let (Some(kind), Some(value)) = (kind, value) {
                if value.contains('*') {
                    self.error("WF0903", item.span, "an indicator is one value, without `*`", "name each value");
                }
                found.push(Indicator { kind, value, groups: groups.into_iter().map(|(text, _)| text).collect() });
            }
        }
        found
    }

    /// A text, or a list of them, with their places.
    fn texts(&mut self, node: &Node) -> Vec<(String, Span)> {
        match &node.kind {
            yaml::Kind::List(items) if items.len() > MOST => {
                self.error("WF0903", node.span, format!("more than {MOST} values"), "make several rules of it");
                vec![]
            }
            yaml::Kind::List(items) => items.iter().filter_map(|item| Some((self.text(item)?, item.span))).collect(),
            _ => self.text(node).map(|text| (text, node.span)).into_iter().collect(),
        }
    }

    fn patterns(&mut self, node: &Node) -> Vec<Pattern> {
        let texts = self.texts(node);
        for (text, span) in texts.iter().filter(|(text, _)| Pattern::new(text).is_everything()) {
            let message = format!("`{text}` matches everything");
            self.error("WF0908", *span, message, "leave it out, or say more");
        }
        texts.iter().map(|(text, _)| Pattern::new(text)).collect()
    }

    fn words(
        &mut self,
        node: &Node,
        what: &str,
        word: impl Fn(&str) -> Option<&'static str>,
        known: &[&str],
    ) -> Vec<&'static str> {
        let mut found = vec![];
        for (text, span) in self.texts(node) {
            match word(&text) {
                Some(word) => found.push(word),
                None => {
                    let help = suggestion(&text, known.iter().copied()).unwrap_or_else(|| list_of(known));
                    self.error("WF0903", span, format!("`{text}` is not {what}"), help);
                }
            }
        }
        found
    }
}

/// A condition that is wanted and could not be read is no condition that is not wanted.
trait FlattenCond {
    fn flatten_cond(self) -> Option<Option<Cond>>;
}

impl FlattenCond for Option<Option<Cond>> {
    fn flatten_cond(self) -> Option<Option<Cond>> {
        match self {
            None => Some(None),
            Some(Some(cond)) => Some(Some(cond)),
            Some(None) => None,
        }
    }
}

fn get<'n>(entries: &'n [Entry], name: &str) -> Option<&'n Node> {
    entries.iter().find(|entry| entry.key == name && !entry.value.is_null()).map(|entry| &entry.value)
}

fn list_of(words: &[&str]) -> String {
    format!("one of {}", words.join(", "))
}
