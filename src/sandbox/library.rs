//! The live response library of Defender for Endpoint: files by name, put there as a form.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::call::{Answer, Call};
use super::mde::time;
use super::state::{State, World};

/// `None` where there is no handler for this route.
pub(super) fn answer(world: &World, state: &mut State, call: &Call, path: &[&str]) -> Option<Answer> {
    let first =
        || BTreeMap::from([("collect.ps1".to_owned(), json!({"fileName": "collect.ps1", "hasParameters": false}))]);
    Some(match (call.method.as_str(), path) {
        ("GET", ["libraryfiles"]) => {
            let files: Vec<Json> = state.library.get_or_insert_with(first).values().cloned().collect();
            Answer::ok(json!({"value": files}))
        }
        ("POST", ["libraryfiles"]) => {
            let text = String::from_utf8_lossy(&call.body);
            let field = |name: &str| -> Option<String> {
                let part = text.split(&format!("name=\"{name}\"")).nth(1)?;
                Some(part.split("\r\n\r\n").nth(1)?.split("\r\n--").next()?.to_owned())
            };
            let name = text.split("name=\"file\"; filename=\"").nth(1).and_then(|rest| rest.split('"').next());
            let Some(name) = name.filter(|name| !name.is_empty()) else {
                return Some(Answer::error(400, "MissingRequiredParameter", "the form has no file"));
            };
            let files = state.library.get_or_insert_with(first);
            if files.contains_key(name) && field("OverrideIfExists").as_deref() != Some("true") {
                return Some(Answer::error(400, "BadRequest", format!("the file {name} exists already")));
            }
            let file = json!({
                "fileName": name, "description": field("Description"), "creationTime": time(world.clock.now()),
                "lastUpdatedTime": time(world.clock.now()), "createdBy": "watchfloor",
                "hasParameters": field("HasParameters").as_deref() == Some("true"),
                "parametersDescription": field("ParametersDescription"),
            });
            files.insert(name.to_owned(), file.clone());
            state.marks.stray("mde.upload_library_file");
            Answer::ok(file)
        }
        ("DELETE", ["libraryfiles", name]) => match state.library.get_or_insert_with(first).remove(*name) {
            Some(_) => {
                state.marks.stray("mde.delete_library_file");
                Answer::empty(204)
            }
            None => Answer::error(404, "ResourceNotFound", format!("File {name} was not found")),
        },
        _ => return None,
    })
}
