//! To be written.

use super::call::{Answer, Call};
use super::state::{State, World};

pub(super) fn answer(_world: &World, _state: &mut State, _call: &Call, _path: &[&str]) -> Option<Answer> {
    None
}
