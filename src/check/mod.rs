//! Checking: a flow and the catalogue give a `CheckedFlow`, or every fault with its place and its mend.

pub mod program;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use program::CheckedFlow;

use crate::catalog::{Catalog, ConnectionKind};
use crate::diag::{Diagnostic, Source};

/// What checking may know beside the flow: nothing here touches a network.
pub struct World<'a> {
    pub catalog: &'a Catalog,
    /// Connections by name; `None` where no configuration is at hand (then any name will do).
    pub connections: Option<&'a BTreeMap<Arc<str>, ConnectionKind>>,
    /// Names under `webhooks:`; `None` where no configuration is at hand.
    pub webhooks: Option<&'a [Arc<str>]>,
    /// Reads a file that a flow includes, by the path written in it; the error is a sentence.
    pub include: &'a dyn Fn(&str) -> Result<String, String>,
    /// Reads the flow that a `call:` names: its file.
    pub called: &'a dyn Fn(&str) -> Option<Arc<Source>>,
}

/// Checks one flow file. Errors mean there is no checked flow; warnings ride with one.
/// `runnable` adds the refusals of what parses and checks but is not in this version.
pub fn check(_source: &Arc<Source>, _world: &World<'_>, _runnable: bool) -> (Option<CheckedFlow>, Vec<Diagnostic>) {
    (None, vec![])
}
