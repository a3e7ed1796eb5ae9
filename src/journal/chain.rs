//! The audit log as a chain: each line carries a hash over the hash of the line before it and over itself, so that whoever
//! changes, drops or moves a line must change every one after it.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

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
