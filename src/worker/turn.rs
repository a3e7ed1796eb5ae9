//! A turn as it stands in the journal: the inputs that were applied and the commands that followed, as one row.
//!
//! Commands are kept in short form. On replay the derived ones must equal the recorded ones; a difference parks the run.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::engine::{Call, Command, InputKind, Purpose};
use crate::id::hex;

/// Version of the row's form.
const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    v: u32,
    /// The `now` of the turn, shared by its inputs.
    pub at: Timestamp,
    #[serde(rename = "i")]
    pub inputs: Vec<InputKind>,
    #[serde(rename = "o", default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
}

impl Turn {
    pub fn new(at: Timestamp, inputs: Vec<InputKind>, commands: &[Command]) -> Self {
        Turn { v: FORMAT, at, inputs, commands: commands.iter().map(short).collect() }
    }

    pub fn encode(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| format!("encoding a turn: {error}"))
    }

    pub fn decode(body: &[u8]) -> Result<Self, String> {
        let turn: Turn = serde_json::from_slice(body).map_err(|error| format!("decoding a turn: {error}"))?;
        match turn.v {
            FORMAT => Ok(turn),
            other => Err(format!("a turn of format {other}; this version knows {FORMAT}")),
        }
    }
}

/// A command in short form: what it is, and a digest of the inputs that it carries.
pub fn short(command: &Command) -> String {
    match command {
        Command::Enter { op, key, max, .. } => format!("enter {} {max} {key}", op.0),
        Command::Lock { op, target, .. } => format!("lock {} {}/{}", op.0, target.kind, target.id),
        Command::Unlock { target } => format!("unlock {}/{}", target.kind, target.id),
        Command::Check { op, call } => format!("check {} {}", op.0, call_text(call)),
        Command::Call { op, call } => format!("call {} {}", op.0, call_text(call)),
        Command::Timer { op, at } => format!("timer {} {at}", op.0),
        Command::Cancel { op } => format!("cancel {}", op.0),
        Command::Once { op, key, until } => format!("once {} {until} {key}", op.0),
        Command::OnceRelease { key } => format!("release {key}"),
        Command::Park { op, uncertain, .. } => format!("{} {}", if *uncertain { "uncertain" } else { "park" }, op.0),
        Command::Finish(finish) => format!("finish {:?}", finish.status).to_lowercase(),
    }
}

fn call_text(call: &Call) -> String {
    let purpose = match call.purpose {
        Purpose::Main => "main",
        Purpose::Look => "look",
        Purpose::Confirm => "confirm",
    };
    // Inputs serialise in key order, so equal inputs have equal digests.
    let inputs = serde_json::to_vec(&call.inputs).unwrap_or_default();
    let digest = hex(&Sha256::digest(inputs)[..6]);
    format!("{purpose} {} {} {} {} {digest}", call.action.name, call.connection, call.path, call.attempt)
}
