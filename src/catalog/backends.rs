//! The APIs behind the actions, with their announced ends: a table that only commands read.

use jiff::civil::Date;
use serde_json::Value as Json;

use super::load;
use crate::error::Error;

const TEXT: &str = include_str!("backends.yaml");

/// One API family, or one way to sign in.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub name: String,
    pub title: String,
    /// Names of actions; `mde.*` stands for all of a connector.
    actions: Vec<String>,
    /// The kind of credential that the row is about, instead of actions.
    pub credential: Option<String>,
    /// The day on which it ends, where one was announced.
    pub end: Option<Date>,
    /// What takes its place, where something is known.
    pub replacement: Option<String>,
    pub note: Option<String>,
    pub source: String,
}

impl Backend {
    /// All of them, in the order of the file.
    ///
    /// # Errors
    /// A fault of the file that the program carries.
    pub fn all() -> Result<Vec<Backend>, Error> {
        let wrong = |what: &str| Error::config(format!("reading the table of back ends: {what}"));
        let tree = load::tree(TEXT).map_err(|error| wrong(&error))?;
        let rows = tree.get("backends").and_then(Json::as_array).ok_or_else(|| wrong("no rows"))?;
        rows.iter().map(|row| read(row).ok_or_else(|| wrong(&row.to_string()))).collect()
    }

    pub fn serves(&self, action: &str) -> bool {
        self.actions.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => action.starts_with(start),
            None => action == pattern,
        })
    }

    /// The row of an action; the user's own connectors have none.
    pub fn of<'a>(all: &'a [Backend], action: &str) -> Option<&'a Backend> {
        all.iter().find(|backend| backend.serves(action))
    }

    /// What becomes of it, as half a sentence.
    pub fn fate(&self) -> String {
        let end = self.end.map_or_else(
            || "no day of its end is announced".to_owned(),
            |end| format!("its end is announced for {end}"),
        );
        format!("{end}; in its place: {}", self.replacement.as_deref().unwrap_or("none known"))
    }
}

fn read(row: &Json) -> Option<Backend> {
    let text = |key: &str| row.get(key).and_then(Json::as_str).map(str::to_owned);
    let names = row.get("actions").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let end = text("end");
    Some(Backend {
        name: text("name")?,
        title: text("title")?,
        actions: names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<_>>()?,
        credential: text("credential"),
        end: match end {
            Some(day) => Some(day.parse().ok()?),
            None => None,
        },
        replacement: text("replacement"),
        note: text("note"),
        source: text("source")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn every_action_has_a_back_end_and_every_row_an_action() {
        let all = Backend::all().unwrap();
        let catalog = Catalog::builtin().unwrap();
        for name in catalog.actions.keys() {
            assert!(Backend::of(&all, name).is_some(), "{name}");
        }
        for row in &all {
            assert!(row.credential.is_some() == row.actions.is_empty(), "{}", row.name);
            for pattern in row.actions.iter().filter(|pattern| !pattern.ends_with('*')) {
                assert!(catalog.action(pattern).is_some(), "{}: {pattern}", row.name);
            }
        }
        let hunting = Backend::of(&all, "mde.run_hunting_query").unwrap();
        assert_eq!(
            hunting.fate(),
            "its end is announced for 2027-02-01; in its place: xdr.run_hunting_query (Microsoft Graph)"
        );
        let isolation = Backend::of(&all, "mde.isolate_machine").unwrap();
        assert!(isolation.fate().ends_with("in its place: none known"));
        assert_eq!(Backend::of(&all, "entra.get_user").unwrap().end, None);
    }
}
