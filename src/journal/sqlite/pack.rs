//! Compression of what is kept: LZ4, against a *model* where there is one.
//!
//! Runs of one flow look alike: the same answers with other ids. So the first run of an origin that ends becomes the
//! model for those after it, and they cost what is theirs alone. A model is used for a day, so that it can be forgotten
//! together with the runs that were packed against it.

use std::collections::HashMap;

use jiff::SignedDuration;
use rusqlite::{Connection, OptionalExtension, params};

use super::record::{put_unsigned, unsigned};
use crate::journal::StoreError;

/// Longest part of a run that others are packed against.
const MODEL: usize = 16 << 10;

/// How long one model serves, in nanoseconds.
pub(super) const MODEL_SERVES: i64 = SignedDuration::from_hours(24).as_nanos() as i64;

/// What one body may unpack into; nothing larger is ever packed.
const LARGEST: usize = 256 << 20;

/// Models kept in memory.
const KEPT: usize = 32;

/// Packs by itself.
pub(super) fn pack(raw: &[u8]) -> Vec<u8> {
    pack_with(raw, 0, &[])
}

pub(super) fn pack_with(raw: &[u8], model: i64, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() / 2 + 16);
    put_unsigned(&mut out, model.unsigned_abs());
    put_unsigned(&mut out, raw.len() as u64);
    out.extend(match text {
        [] => lz4_flex::block::compress(raw),
        text => lz4_flex::block::compress_with_dict(raw, text),
    });
    out
}

/// Unpacks a body; `model` is asked for the text of the model that it was packed against.
///
/// # Errors
/// A body that is damaged, or whose model is gone.
pub(super) fn unpack(
    mut body: &[u8],
    model: impl FnOnce(i64) -> Result<Option<Vec<u8>>, StoreError>,
) -> Result<Vec<u8>, StoreError> {
    let damaged = || StoreError::Damaged("a packed body cannot be read".into());
    let number = unsigned(&mut body).and_then(|it| i64::try_from(it).ok()).ok_or_else(damaged)?;
    let length = unsigned(&mut body).and_then(|it| usize::try_from(it).ok()).filter(|it| *it <= LARGEST);
    let length = length.ok_or_else(damaged)?;
    let raw = match number {
        0 => lz4_flex::block::decompress(body, length),
        _ => lz4_flex::block::decompress_with_dict(body, length, &model(number)?.ok_or_else(damaged)?),
    };
    raw.ok().filter(|raw| raw.len() == length).ok_or_else(damaged)
}

/// The text of a model.
pub(super) fn model_text(connection: &Connection, no: i64) -> Result<Option<Vec<u8>>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT body FROM models WHERE no = ?1")?;
    let body: Option<Vec<u8>> = statement.query_row([no], |row| row.get(0)).optional()?;
    body.map(|body| unpack(&body, |_| Ok(None))).transpose()
}

/// What lines of the audit log have in common. Never changed: lines that were packed against it are kept for years.
const LINE: &[u8] = br#"{"action":"mde.isolate_machine","attempt":0,"connection":"mde","effect":"destructive","flow":"isolate-high-severity","path":"/steps[1]/then/steps[0]","reason":"","run":"01","target":"device:","verdict":"ask"}{"action":"email.send","attempt":0,"connection":"mail","effect":"notify","flow":"","path":"/steps[1]/then/steps[1]","run":"01","target":"user:","verdict":"shadow"}{"action":"teams.post","attempt":0,"connection":"soc-triage","effect":"write","verdict":"refuse"}{"action":"cloud_apps.close_benign","attempt":0,"connection":"mdca","effect":"write","path":"/verdict/then/steps[0]","verdict":"go"}"#;

/// Packs a line of the audit log.
pub(super) fn pack_line(line: &[u8]) -> Vec<u8> {
    pack_with(line, 1, LINE)
}

pub(super) fn unpack_line(body: &[u8]) -> Result<Vec<u8>, StoreError> {
    unpack(body, |no| Ok((no == 1).then(|| LINE.to_vec())))
}

/// The models in use, by origin.
#[derive(Default)]
pub(super) struct Models {
    by_origin: HashMap<i64, Model>,
    /// Whose model was used last: what is being written now is likely of that kind.
    last: i64,
}

struct Model {
    no: i64,
    made: i64,
    text: Vec<u8>,
}

impl Models {
    /// Packs a part of a run. `ended` gives all of a run that has ended, from which a new model can be made.
    pub(super) fn pack(
        &mut self,
        connection: &Connection,
        origin: i64,
        at: i64,
        raw: &[u8],
        ended: Option<impl FnOnce() -> Result<Vec<u8>, StoreError>>,
    ) -> Result<Vec<u8>, StoreError> {
        if !self.by_origin.contains_key(&origin) {
            if self.by_origin.len() >= KEPT {
                self.by_origin.clear();
            }
            if let Some(model) = latest(connection, origin)? {
                self.by_origin.insert(origin, model);
            }
        }
        let fresh = |model: &Model| at.saturating_sub(model.made).saturating_abs() < MODEL_SERVES;
        if let Some(ended) = ended
            && !self.by_origin.get(&origin).is_some_and(fresh)
        {
            let mut text = ended()?;
            text.truncate(MODEL);
            let mut statement =
                connection.prepare_cached("INSERT INTO models (origin, made, body) VALUES (?1, ?2, ?3)")?;
            statement.execute(params![origin, at, pack(&text)])?;
            let no = connection.last_insert_rowid();
            self.by_origin.insert(origin, Model { no, made: at, text });
        }
        self.last = origin;
        Ok(match self.by_origin.get(&origin).filter(|model| fresh(model)) {
            Some(model) => pack_with(raw, model.no, &model.text),
            None => pack(raw),
        })
    }

    /// Packs for the log, which is soon gone: any model will do.
    pub(super) fn pack_log(&self, raw: &[u8]) -> Vec<u8> {
        match self.by_origin.get(&self.last) {
            Some(model) => pack_with(raw, model.no, &model.text),
            None => pack(raw),
        }
    }
}

fn latest(connection: &Connection, origin: i64) -> Result<Option<Model>, StoreError> {
    let sql = "SELECT no, made FROM models WHERE origin = ?1 ORDER BY no DESC LIMIT 1";
    let found: Option<(i64, i64)> =
        connection.prepare_cached(sql)?.query_row([origin], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((no, made)) = found else { return Ok(None) };
    Ok(model_text(connection, no)?.map(|text| Model { no, made, text }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_and_damage_is_an_error() {
        let raw = b"{\"severity\":\"High\",\"title\":\"Low-reputation arbitrary code\"}".repeat(3);
        let model = b"{\"severity\":\"Low\",\"title\":\"Low-reputation arbitrary code\"}".to_vec();
        let none = |_| Ok(None);
        assert_eq!(unpack(&pack(&raw), none).unwrap(), raw);
        let packed = pack_with(&raw, 7, &model);
        assert!(packed.len() < pack(&raw).len());
        assert_eq!(unpack(&packed, |no| Ok((no == 7).then(|| model.clone()))).unwrap(), raw);
        assert!(unpack(&packed, none).is_err());
        for cut in 0..packed.len() {
            assert!(unpack(&packed[..cut], |_| Ok(Some(model.clone()))).is_err());
        }
        assert_eq!(unpack(&pack(&[]), none).unwrap(), b"");
        // A length beyond all measure is refused before anything is allocated.
        let mut bomb = vec![0];
        put_unsigned(&mut bomb, u64::MAX);
        assert!(unpack(&bomb, none).is_err());
    }
}
