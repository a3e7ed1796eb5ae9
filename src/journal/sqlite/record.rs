//! The bytes of the log and of a run's parts. Not here: how they are compressed (see `pack`) and what they mean together
//! (see `tail`).
//!
//! A log entry is a tag and its fields; numbers are varints, texts and bodies are prefixed with their length. A *part* is
//! what belongs to one run and is read only with it: what it was given, a turn, an answer for people. The parts of a run
//! are kept exactly as they stand in the log.

use crate::journal::{RunNo, RunStatus};

/// One thing that was written, in the order of commit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Entry<'a> {
    /// A run was accepted. `key` is what follows the prefix of its origin.
    Start {
        run: RunNo,
        origin: i64,
        key: &'a str,
        accepted: i64,
        occurred: i64,
    },
    Part {
        run: RunNo,
        part: Part<'a>,
    },
    Status {
        run: RunNo,
        status: RunStatus,
        reason: Option<&'a str>,
    },
    /// When the run wakes: an instant, `AWAKE` or `FOR_PERSON`.
    Sleep {
        run: RunNo,
        wake: i64,
    },
    /// `effects` is JSON, empty for none.
    Finish {
        run: RunNo,
        status: RunStatus,
        reason: Option<&'a str>,
        ended: i64,
        effects: &'a str,
    },
    Audit {
        no: i64,
        at: i64,
        hash: &'a [u8],
        body: &'a [u8],
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part<'a> {
    /// `trigger.*` and `inputs.*`, as JSON.
    Given {
        payload: &'a [u8],
        inputs: &'a [u8],
    },
    Turn {
        seq: u32,
        body: &'a [u8],
    },
    Answer {
        path: &'a str,
        attempt: u32,
        body: &'a [u8],
    },
}

/// Of a run that does not sleep; NULL in `runs.wake`.
pub(super) const AWAKE: i64 = i64::MIN;

/// Of a run that only a person makes go on.
pub(super) const FOR_PERSON: i64 = i64::MAX;

/// The number that a status has in the store; never changed.
pub(super) fn status_number(status: RunStatus) -> i64 {
    match status {
        RunStatus::Queued => 0,
        RunStatus::Running => 1,
        RunStatus::Waiting => 2,
        RunStatus::Succeeded => 3,
        RunStatus::Failed => 4,
        RunStatus::Cancelled => 5,
        RunStatus::Uncertain => 6,
        RunStatus::Dead => 7,
    }
}

pub(super) fn status_of(number: i64) -> Option<RunStatus> {
    RunStatus::ALL.into_iter().find(|status| status_number(*status) == number)
}

impl Entry<'_> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Entry::Start { run, origin, key, accepted, occurred } => {
                out.push(0);
                put_signed(out, run);
                put_signed(out, origin);
                put_bytes(out, key.as_bytes());
                put_signed(out, accepted);
                put_signed(out, occurred);
            }
            Entry::Part { run, part } => {
                out.push(1);
                put_signed(out, run);
                part.write(out);
            }
            Entry::Status { run, status, reason } => {
                out.push(2);
                put_signed(out, run);
                put_signed(out, status_number(status));
                put_reason(out, reason);
            }
            Entry::Finish { run, status, reason, ended, effects } => {
                out.push(3);
                put_signed(out, run);
                put_signed(out, status_number(status));
                put_reason(out, reason);
                put_signed(out, ended);
                put_bytes(out, effects.as_bytes());
            }
            Entry::Sleep { run, wake } => {
                out.push(5);
                put_signed(out, run);
                put_signed(out, wake);
            }
            Entry::Audit { no, at, hash, body } => {
                out.push(4);
                put_signed(out, no);
                put_signed(out, at);
                put_bytes(out, hash);
                put_bytes(out, body);
            }
        }
    }

    /// The next entry; `None` where what is left is none.
    pub(super) fn read<'a>(from: &mut &'a [u8]) -> Option<Entry<'a>> {
        Some(match take(from)? {
            0 => Entry::Start {
                run: signed(from)?,
                origin: signed(from)?,
                key: text(from)?,
                accepted: signed(from)?,
                occurred: signed(from)?,
            },
            1 => Entry::Part { run: signed(from)?, part: Part::read(from)? },
            2 => Entry::Status { run: signed(from)?, status: status_of(signed(from)?)?, reason: reason(from)? },
            3 => Entry::Finish {
                run: signed(from)?,
                status: status_of(signed(from)?)?,
                reason: reason(from)?,
                ended: signed(from)?,
                effects: text(from)?,
            },
            4 => Entry::Audit { no: signed(from)?, at: signed(from)?, hash: bytes(from)?, body: bytes(from)? },
            5 => Entry::Sleep { run: signed(from)?, wake: signed(from)? },
            _ => return None,
        })
    }
}

impl Part<'_> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Part::Given { payload, inputs } => {
                out.push(0);
                put_bytes(out, payload);
                put_bytes(out, inputs);
            }
            Part::Turn { seq, body } => {
                out.push(1);
                put_unsigned(out, u64::from(seq));
                put_bytes(out, body);
            }
            Part::Answer { path, attempt, body } => {
                out.push(2);
                put_bytes(out, path.as_bytes());
                put_unsigned(out, u64::from(attempt));
                put_bytes(out, body);
            }
        }
    }

    /// The next part; `None` where what is left is none.
    pub(super) fn read<'a>(from: &mut &'a [u8]) -> Option<Part<'a>> {
        Some(match take(from)? {
            0 => Part::Given { payload: bytes(from)?, inputs: bytes(from)? },
            1 => Part::Turn { seq: u32::try_from(unsigned(from)?).ok()?, body: bytes(from)? },
            2 => Part::Answer { path: text(from)?, attempt: u32::try_from(unsigned(from)?).ok()?, body: bytes(from)? },
            _ => return None,
        })
    }
}

pub(super) fn put_unsigned(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

pub(super) fn unsigned(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(from)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_unsigned(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

fn signed(from: &mut &[u8]) -> Option<i64> {
    let number = unsigned(from)?;
    Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_unsigned(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(unsigned(from)?).ok()?;
    let (taken, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(taken)
}

fn text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(bytes(from)?).ok()
}

/// No reason and an empty one are different.
fn put_reason(out: &mut Vec<u8>, reason: Option<&str>) {
    match reason {
        None => out.push(0),
        Some(reason) => {
            out.push(1);
            put_bytes(out, reason.as_bytes());
        }
    }
}

fn reason<'a>(from: &mut &'a [u8]) -> Option<Option<&'a str>> {
    match take(from)? {
        0 => Some(None),
        _ => Some(Some(text(from)?)),
    }
}

fn take(from: &mut &[u8]) -> Option<u8> {
    let (first, rest) = from.split_first()?;
    *from = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_as_they_were_written() {
        let entries = [
            Entry::Start { run: 7, origin: 1, key: "da1_1", accepted: i64::MAX, occurred: -1 },
            Entry::Part { run: 7, part: Part::Given { payload: b"{\"a\":1}", inputs: b"{}" } },
            Entry::Part { run: 7, part: Part::Turn { seq: 300, body: &[0, 255] } },
            Entry::Part { run: 7, part: Part::Answer { path: "/alert", attempt: 2, body: &[] } },
            Entry::Status { run: i64::MAX, status: RunStatus::Waiting, reason: Some("") },
            Entry::Sleep { run: 7, wake: FOR_PERSON },
            Entry::Finish { run: 7, status: RunStatus::Dead, reason: None, ended: i64::MIN, effects: "" },
            Entry::Audit { no: 1, at: 0, hash: &[9; 32], body: b"{}" },
        ];
        let mut log = Vec::new();
        entries.iter().for_each(|entry| entry.write(&mut log));
        let mut rest = log.as_slice();
        for entry in entries {
            assert_eq!(Entry::read(&mut rest), Some(entry));
        }
        assert!(rest.is_empty());
        // No cut of it panics, and none is taken for whole.
        for cut in 0..log.len() {
            let mut rest = &log[..cut];
            let whole = std::iter::from_fn(|| Entry::read(&mut rest)).count();
            assert!(whole < entries.len());
        }
    }

    #[test]
    fn every_status_has_a_number_of_its_own() {
        for status in RunStatus::ALL {
            assert_eq!(status_of(status_number(status)), Some(status));
        }
        assert_eq!(status_of(99), None);
    }
}
