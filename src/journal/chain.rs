//! The audit log as a chain: each line carries a hash over the hash of the line before it and over itself, so that whoever
//! changes, drops or moves a line must change every one after it.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Store, StoreError};

/// SHA-256.
pub type Hash = [u8; 32];

/// What the first line has for a predecessor.
pub const ROOT: Hash = [0; 32];

/// A line of the audit log as it stands in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// Counted from 1, without a gap.
    pub no: i64,
    pub at: Timestamp,
    pub hash: Hash,
    /// JSON.
    pub body: Vec<u8>,
}

impl AuditLine {
    /// The hash that the line must have after `previous`.
    pub fn expected(&self, previous: &Hash) -> Hash {
        link(previous, self.no, self.at, &self.body)
    }
}

/// A line's number and hash: where a log that was pruned begins, how far one was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    pub no: i64,
    pub hash: Hash,
}

/// The named value with the last line that was pruned.
pub const ANCHOR: &str = "audit/anchor";

impl Anchor {
    /// What the first line that a store still has is chained to.
    ///
    /// # Errors
    /// The store can't be read, or what it says is none.
    pub fn read(store: &dyn Store) -> Result<Anchor, StoreError> {
        let Some(body) = store.get(ANCHOR)? else { return Ok(Anchor { no: 0, hash: ROOT }) };
        let anchor = std::str::from_utf8(&body).ok().and_then(Anchor::parse);
        anchor.ok_or_else(|| StoreError::Damaged("the anchor of the audit log cannot be read".into()))
    }

    /// A number and 64 hex digits.
    pub fn parse(text: &str) -> Option<Anchor> {
        let (no, digits) = text.trim().split_once(' ')?;
        let mut hash = ROOT;
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Anchor { no: no.parse().ok()?, hash })
    }
}

impl std::fmt::Display for Anchor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.no, crate::id::hex(&self.hash))
    }
}

/// A walk along the chain.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    first: Anchor,
    last: Anchor,
}

impl Walk {
    pub fn new(from: Anchor) -> Self {
        Walk { first: from, last: from }
    }

    /// What the first line was to be chained to.
    pub fn first(&self) -> Anchor {
        self.first
    }

    /// The last line that was right.
    pub fn last(&self) -> Anchor {
        self.last
    }

    /// Goes on to the next line.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence that names its number.
    pub fn step(&mut self, line: &AuditLine) -> Result<(), String> {
        let wanted = self.last.no + 1;
        if line.no != wanted {
            return Err(format!("line {wanted} is missing: after line {} comes line {}", self.last.no, line.no));
        }
        if line.hash != line.expected(&self.last.hash) {
            return Err(format!(
                "line {wanted} is not what was written: it, or the hash of the line before it, was changed"
            ));
        }
        self.last = Anchor { no: line.no, hash: line.hash };
        Ok(())
    }
}

/// The hash of a line: over its predecessor's hash, its number, its time (nanoseconds since 1970, 16 bytes) and its body;
/// numbers are little-endian.
pub fn link(previous: &Hash, no: i64, at: Timestamp, body: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    hasher.update(no.to_le_bytes());
    hasher.update(at.as_nanosecond().to_le_bytes());
    hasher.update(body);
    hasher.finalize().into()
}
