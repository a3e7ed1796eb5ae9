//! `schema`: the JSON Schema of flow files, for editors.

use super::out::Out;
use crate::error::{Error, ExitCode};

pub(super) fn run(out: &Out) -> Result<ExitCode, Error> {
    out.json(&crate::flow::schema::json_schema());
    Ok(ExitCode::Ok)
}
