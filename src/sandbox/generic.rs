//! Routes without a handler: to be generated from the catalogue.

use super::auth::Service;
use super::call::{Answer, Call};

pub(super) fn answer(_call: &Call, _service: Service) -> Option<Answer> {
    None
}
