//! What was seen of each alert or incident, so that a change can be told: which fields, and whether it was ours.
//!
//! Kept is a mark of each field, in 256 named values of the store by a hash of the entity's id, written in the batch of the
//! events. Each holds a bounded number of entities, and forgets those that nothing has changed for a month.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::alert_poll::{OVERLAP, polled};
use super::entity::Seen;
use super::listing::Listing;
use super::{Event, Intake};
use crate::catalog::{Catalog, Type};
use crate::guard::edits::{self, Edit};
use crate::id::digest16;
use crate::journal::{Op, StoreError};
use crate::value::Value;

/// How far back entities are learnt before the first change is looked for.
pub(super) const LEARNT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// An entity that has not changed for so long is forgotten.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Entities in one part; there are 256 parts.
const PART: usize = 400;
/// How far apart our clock, the service's clock and the moment of sending may lie.
const SLACK: SignedDuration = SignedDuration::from_mins(5);
/// The oldest of our edits that are looked at.
const EDITS: SignedDuration = SignedDuration::from_hours(24);
/// Fields that say nothing by themselves: they change with every change, or never.
const SILENT: [&str; 4] = ["id", "created", "updated", "raw"];

/// The memory of one poller.
pub(super) struct Changes {
    listing: Listing,
    intake: Arc<Intake>,
    /// `alert` or `incident`: its name in the payload, and what edits call it.
    noun: Arc<str>,
    fields: Vec<Arc<str>>,
}

/// One of the 256 parts.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Part {
    /// The fields that the marks are of, in order. A version with other fields begins anew.
    #[serde(default)]
    fields: String,
    /// Everything that was ever forgotten here had been created by then.
    #[serde(default)]
    forgotten: Option<Timestamp>,
    entities: BTreeMap<String, Known>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    created: Timestamp,
    updated: Timestamp,
    /// Eight hex digits for each field; eight dashes for one that is absent.
    marks: String,
}

impl Changes {
    pub(super) fn new(listing: &Listing, catalog: &Catalog, intake: &Arc<Intake>) -> Changes {
        let noun = listing.kind.split('.').nth(1).unwrap_or("");
        let payload = catalog.trigger(&listing.kind).and_then(|spec| spec.output.field(noun)).map(|field| field.ty);
        let fields = match payload {
            Some(Type::Object(entity)) => entity.fields.keys().cloned().collect(),
            _ => vec![],
        };
        let fields = fields.into_iter().filter(|name: &Arc<str>| !SILENT.contains(&&**name)).collect();
        Changes { listing: listing.clone(), intake: Arc::clone(intake), noun: noun.into(), fields }
    }

    /// The changes among what a page listed, as events, and what is to be kept in the same batch.
    #[expect(clippy::type_complexity, reason = "what the poller does with a page")]
    pub(super) fn judge(&self, seen: Vec<(String, Seen)>) -> Result<(Vec<(String, Event)>, Vec<Op>), StoreError> {
        let mut parts: BTreeMap<u8, Part> = BTreeMap::new();
        let (began, mut also) = self.began()?;
        let mut candidates = vec![];
        for (key, seen) in seen {
            let Some(entity) = seen.payload.get(&self.noun).cloned() else { continue };
            let number = digest16(&[&seen.id])[0];
            let part = match parts.entry(number) {
                std::collections::btree_map::Entry::Occupied(part) => part.into_mut(),
                std::collections::btree_map::Entry::Vacant(free) => free.insert(self.part(number)?),
            };
            let created = entity.get("created").and_then(Value::as_datetime).unwrap_or(seen.occurred);
            let now = Known { created, updated: seen.occurred, marks: self.marks(&entity) };
            // Later pages and later polls may hold an older state than one that was seen already.
            let before = part.entities.get(&seen.id).cloned();
            if before.as_ref().is_some_and(|before| before.updated >= now.updated) {
                continue;
            }
            let is_new = created >= began && part.forgotten.is_none_or(|edge| created > edge);
            part.entities.insert(seen.id.clone(), now.clone());
            if before.is_some() || !is_new {
                candidates.push((key, seen, before, now));
            }
        }
        let ours = self.edits(candidates.iter().map(|(_, _, before, now)| before.as_ref().unwrap_or(now).updated))?;
        let events = candidates.into_iter().filter_map(|(key, seen, before, now)| {
            let changed = self.changed(&seen.id, before.as_ref(), &now, &ours)?;
            Some((key, self.event(seen, &changed)))
        });
        let events = events.collect();
        for (number, mut part) in parts {
            self.forget(&mut part);
            also.push(Op::Put { name: self.part_name(number), body: serde_json::to_vec(&part).unwrap_or_default() });
        }
        Ok((events, also))
    }

    /// The fields that others than us have changed; `None` where there is none. Empty where the entity was not known.
    fn changed(&self, id: &str, before: Option<&Known>, now: &Known, ours: &[Edit]) -> Option<Vec<Arc<str>>> {
        let Some(before) = before else { return Some(vec![]) };
        let target = edits::target(&self.noun, id);
        let early = before.updated.checked_sub(SLACK).unwrap_or(before.updated);
        let late = now.updated.checked_add(SLACK).unwrap_or(now.updated);
        // An edit of before the last change is told by that one: the same value set again since then is somebody else's.
        let is_ours = |field: &str, mark: &str| {
            let mut edits = ours.iter().filter(|edit| edit.target == target && edit.at >= early && edit.at <= late);
            edits.any(|edit| edit.set(field, mark))
        };
        let changed = self.fields.iter().enumerate().filter(|(index, field)| {
            let mark = |known: &Known| known.marks.get(index * 8..index * 8 + 8).unwrap_or("").to_owned();
            let (was, is) = (mark(before), mark(now));
            was != is && !is_ours(field, &is)
        });
        let changed: Vec<_> = changed.map(|(_, field)| Arc::clone(field)).collect();
        (!changed.is_empty()).then_some(changed)
    }

    fn event(&self, seen: Seen, changed: &[Arc<str>]) -> Event {
        let key = format!("{}@{}:{}", seen.occurred, self.listing.connection, seen.id);
        let mut payload = seen.payload.as_map().cloned().unwrap_or_default();
        let changed = changed.iter().map(|field| Value::String(Arc::clone(field))).collect();
        payload.insert("changed".into(), Value::list(changed));
        polled(&self.listing, key, seen.occurred, Value::map(payload))
    }

    fn marks(&self, entity: &Value) -> String {
        let mark = |field: &Arc<str>| entity.get(field).map_or_else(|| "--------".to_owned(), edits::mark);
        self.fields.iter().map(mark).collect()
    }

    /// Our edits from shortly before the earliest of these instants on.
    fn edits(&self, since: impl Iterator<Item = Timestamp>) -> Result<Vec<Edit>, StoreError> {
        let Some(since) = since.min() else { return Ok(vec![]) };
        let now = self.intake.clock.now();
        let since = since.checked_sub(SLACK).unwrap_or(since);
        let since = since.max(now.checked_sub(EDITS).unwrap_or(since));
        Ok(self.intake.store.reservations(since)?.iter().filter_map(edits::read).collect())
    }

    /// From when on whatever is created is seen at its beginning.
    fn began(&self) -> Result<(Timestamp, Vec<Op>), StoreError> {
        let name = self.name("began");
        let stored = super::instant(&*self.intake.store, &name)?;
        let began = stored.unwrap_or_else(|| self.intake.clock.now());
        let put = Op::Put { name, body: began.to_string().into_bytes() };
        let also = if stored.is_none() { vec![put] } else { vec![] };
        Ok((began.checked_sub(OVERLAP).unwrap_or(began), also))
    }

    fn part(&self, number: u8) -> Result<Part, StoreError> {
        let fields = self.fields.join(",");
        let stored = self.intake.store.get(&self.part_name(number))?;
        let stored = stored.and_then(|body| serde_json::from_slice::<Part>(&body).ok());
        Ok(match stored {
            Some(part) if part.fields == fields => part,
            // Other fields: nothing can be compared, and what was known counts as forgotten.
            Some(part) => {
                let newest = part.entities.values().map(|known| known.created).chain(part.forgotten).max();
                Part { fields, forgotten: newest, entities: BTreeMap::new() }
            }
            None => Part { fields, ..Part::default() },
        })
    }

    fn forget(&self, part: &mut Part) {
        let now = self.intake.clock.now();
        let edge = now.checked_sub(KEPT).unwrap_or(now);
        let mut old: BTreeSet<(Timestamp, String)> =
            part.entities.iter().map(|(id, known)| (known.updated, id.clone())).collect();
        while let Some((updated, id)) = old.pop_first() {
            if updated >= edge && part.entities.len() <= PART {
                return;
            }
            if let Some(known) = part.entities.remove(&id) {
                part.forgotten = Some(part.forgotten.map_or(known.created, |before| before.max(known.created)));
            }
        }
    }

    fn part_name(&self, number: u8) -> String {
        self.name(&format!("{number:02x}"))
    }

    fn name(&self, what: &str) -> String {
        format!("changes/{}/{}/{what}", self.listing.connection, self.listing.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, flow, now};
    use super::*;
    use crate::engine::Outcome;
    use crate::trigger::listing::Fetch;

    struct Nobody;

    impl Fetch for Nobody {
        fn fetch(
            &self,
            _: &str,
            _: &str,
            _: crate::value::Map,
        ) -> futures_util::future::BoxFuture<'static, Result<Value, Outcome>> {
            Box::pin(async { Ok(Value::empty()) })
        }
    }

    fn changes() -> (Desk, Changes) {
        let desk = Desk::new(vec![flow("a", "xdr.alert.changed", "graph")]);
        let catalog = Catalog::builtin().unwrap();
        let client: Arc<dyn Fetch> = Arc::new(Nobody);
        let spec = catalog.trigger("xdr.alert.changed").unwrap();
        let listing = Listing::of(spec, &catalog, &"graph".into(), &client).unwrap();
        let changes = Changes::new(&listing, &catalog, &desk.intake);
        (desk, changes)
    }

    fn minute(minute: i64) -> Timestamp {
        now().checked_add(SignedDuration::from_mins(minute)).unwrap()
    }

    fn seen(id: &str, updated: i64, status: &str) -> (String, Seen) {
        let created = Value::Datetime(minute(-600));
        let alert = [("id", Value::str(id)), ("status", Value::str(status)), ("created", created)];
        let payload = Value::object([("alert", Value::object(alert))]);
        (format!("{updated}@{id}"), Seen { id: id.into(), occurred: minute(updated), payload })
    }

    async fn step(desk: &Desk, changes: &Changes, seen: Vec<(String, Seen)>) -> Vec<Option<Value>> {
        let (events, ops) = changes.judge(seen).unwrap();
        desk.intake.offer(vec![], ops).await.unwrap();
        events.into_iter().map(|(_, event)| event.payload.get("changed").cloned()).collect()
    }

    async fn we_set(desk: &Desk, id: &str, at: i64, status: &str) {
        let key = format!("wf:run/{at} status={}", edits::mark(&Value::str(status)));
        let scope = format!("edit/{}", edits::target("alert", id));
        desk.intake.offer(vec![], vec![Op::Reserve { scope, key, at: minute(at) }]).await.unwrap();
    }

    fn status() -> Vec<Option<Value>> {
        vec![Some(Value::list(vec![Value::str("status")]))]
    }

    #[tokio::test]
    async fn our_edit_is_told_from_the_same_value_set_by_a_person_later() {
        let (desk, changes) = changes();
        let id = "da1234567_1";
        step(&desk, &changes, vec![seen(id, -400, "New")]).await;
        we_set(&desk, id, -30, "Resolved").await;
        assert_eq!(step(&desk, &changes, vec![seen(id, -30, "Resolved")]).await, []);
        assert_eq!(step(&desk, &changes, vec![seen(id, -20, "New")]).await, status());
        assert_eq!(step(&desk, &changes, vec![seen(id, -10, "Resolved")]).await, status());
        // A page that is older than what is known changes nothing back.
        assert_eq!(step(&desk, &changes, vec![seen(id, -20, "New")]).await, []);
        // Ours on another alert, or to another value, is not ours here.
        we_set(&desk, "da7654321_1", -5, "New").await;
        we_set(&desk, id, -5, "InProgress").await;
        assert_eq!(step(&desk, &changes, vec![seen(id, -5, "New")]).await, status());
    }

    #[tokio::test]
    async fn memory_is_bounded_and_what_was_forgotten_still_counts_as_changed() {
        let (desk, changes) = changes();
        let mut part = Part::default();
        for n in 0..PART + 10 {
            let n = i64::try_from(n).unwrap();
            let known = Known { created: minute(-60_000 + n), updated: minute(n), marks: String::new() };
            part.entities.insert(n.to_string(), known);
        }
        let old = Known { created: minute(-90_000), updated: minute(-60_000), marks: String::new() };
        part.entities.insert("old".into(), old);
        changes.forget(&mut part);
        assert_eq!(part.entities.len(), PART);
        assert!(!part.entities.contains_key("old") && !part.entities.contains_key("9"));
        assert_eq!(part.forgotten, Some(minute(-60_000 + 9)));
        // Created before the memory began, and not in it: something changed, and nobody knows what.
        let first = step(&desk, &changes, vec![seen("da1234567_1", 0, "New")]).await;
        assert_eq!(first, [Some(Value::list(vec![]))]);
    }
}
