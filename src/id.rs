//! Identifiers: runs, operations inside a run, and the keys and tags derived from them.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A run's id: a ULID whose time is that of acceptance and whose other 80 bits are a hash of (flow, event key).
/// So the same event offered twice in one millisecond gives the same id, and ids sort by age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Arc<str>);

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl RunId {
    pub fn new(accepted: Timestamp, flow: &str, event_key: &str) -> Self {
        let digest = digest16(&[flow, event_key]);
        let millis = u128::try_from(accepted.as_millisecond()).unwrap_or(0) & ((1 << 48) - 1);
        let mut random = 0u128;
        for byte in &digest[..10] {
            random = (random << 8) | u128::from(*byte);
        }
        let number = (millis << 80) | random;
        let text: String = (0..26)
            .rev()
            .map(|i| char::from(CROCKFORD[usize::try_from((number >> (i * 5)) & 31).unwrap_or(0)]))
            .collect();
        RunId(text.into())
    }

    /// Reads an id that a person typed: 26 letters and digits of Crockford's alphabet, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let upper = text.to_ascii_uppercase();
        (upper.len() == 26 && upper.bytes().all(|b| CROCKFORD.contains(&b))).then(|| RunId(upper.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When it was accepted, to the millisecond below.
    pub fn accepted(&self) -> Timestamp {
        let digit = |byte: u8| CROCKFORD.iter().position(|it| *it == byte).and_then(|it| i64::try_from(it).ok());
        let millis = self.0.bytes().take(10).fold(0i64, |sum, byte| (sum << 5) | digit(byte).unwrap_or(0));
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An operation that a run waits for: a call, a check, a timer, a lock. Numbered from 1 in the order of their commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(pub u32);

/// The stable key of an operation, the same on every attempt: `wf:<run><path>`, e.g. `wf:01J…/steps[1]/then/isolation`.
pub fn call_key(run: &RunId, path: &str) -> String {
    format!("wf:{run}{path}")
}

/// What we write into a service's comment or external id, so that a later look-up finds our own effect:
/// the first 16 hex digits of the key's SHA-256.
pub fn tag(call_key: &str) -> String {
    hex(&Sha256::digest(call_key.as_bytes())[..8])
}

/// The first 16 bytes of the SHA-256 over parts, each with its length, so that no two lists of parts collide.
pub fn digest16(parts: &[&str]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize()[..16]);
    out
}

/// Sixteen bytes as 32 lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_stable_and_sort_by_time() {
        let early: Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
        let late: Timestamp = "2026-11-20T00:00:00.001Z".parse().unwrap();
        let a = RunId::new(early, "isolate", "k");
        assert_eq!(a, RunId::new(early, "isolate", "k"));
        assert_ne!(a, RunId::new(early, "isolate", "l"));
        assert!(a < RunId::new(late, "isolate", "a"));
        assert_eq!((a.accepted(), RunId::new(late, "f", "k").accepted()), (early, late));
        assert_eq!(RunId::parse(&a.as_str().to_lowercase()), Some(a));
        assert_eq!(RunId::parse("../../etc/passwd"), None);
    }

    #[test]
    fn tags_are_sixteen_hex_digits() {
        let run = RunId::new("2026-11-20T00:00:00Z".parse().unwrap(), "f", "k");
        let tag = tag(&call_key(&run, "/steps[1]/then/isolation"));
        assert!(tag.len() == 16 && tag.bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
