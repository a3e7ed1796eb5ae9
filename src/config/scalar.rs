//! The small values of a configuration file: durations, `off`, and references to secrets.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::SecretRef;
use super::vault::Vaulted;

/// `30s`, `10m`, `4h`, `7d`, `2w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

/// A value that can be switched off with the word `off`.
#[derive(Clone, Debug)]
pub(super) enum OrOff<T> {
    Off,
    On(T),
}

/// A reference to a secret as written; never the secret itself.
#[derive(Clone, Debug)]
pub(super) struct Reference(pub(super) SecretRef);

/// Reads a duration: a whole number and one of `ms s m h d w`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(at)?;
    let number: u64 = digits.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        _ => return None,
    };
    // Ten years are more than any window or retention means, and far from every overflow.
    let total = number.checked_mul(millis)?;
    (total <= 3_660 * 86_400_000).then(|| Duration::from_millis(total))
}

impl<'de> de::Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Span).ok_or_else(|| {
            de::Error::custom(format!(
                "`{}` is no duration; write one such as `30s`, `10m`, `4h` or `7d`",
                short(&text)
            ))
        })
    }
}

impl<'de> de::Deserialize<'de> for OrOff<Span> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(OrOff::Off);
        }
        parse_duration(&text).map(|span| OrOff::On(Span(span))).ok_or_else(|| {
            de::Error::custom(format!("`{}` is neither `off` nor a duration such as `1h`", short(&text)))
        })
    }
}

impl<'de, T: de::Deserialize<'de>> de::Deserialize<'de> for OrOff<Vec<T>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Windows<T>(std::marker::PhantomData<T>);
        impl<'de, T: de::Deserialize<'de>> Visitor<'de> for Windows<T> {
            type Value = OrOff<Vec<T>>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`off` or a list of `{ max: 5, per: 10m }`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                (text == "off").then_some(OrOff::Off).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = vec![];
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(OrOff::On(items))
            }
        }
        deserializer.deserialize_any(Windows(std::marker::PhantomData))
    }
}

const HOW: &str = "refer to the secret instead: `{ env: NAME }`, `{ file: PATH }`, `{ credential: NAME }` (systemd) or `{ key_vault: VAULT/NAME }`";

impl<'de> de::Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Reference;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reference to a secret: `{ env: NAME }`, `{ file: PATH }` or `{ credential: NAME }`")
            }
            // The text may be the secret itself: it is not repeated in the message.
            fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
                Err(E::custom(format!("a secret is never written into this file; {HOW}")))
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
                self.visit_str("")
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
                self.visit_str("")
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
                self.visit_str("")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let Some(kind) = map.next_key::<String>()? else {
                    return Err(de::Error::custom(format!("an empty reference to a secret; {HOW}")));
                };
                let reference = match kind.as_str() {
                    "env" => SecretRef::Env(named(map.next_value()?, "environment variable")?),
                    "file" => SecretRef::File(PathBuf::from(map.next_value::<String>()?)),
                    "credential" => SecretRef::Credential(named(map.next_value()?, "credential")?),
                    "key_vault" => {
                        let text: String = map.next_value()?;
                        let wrong = || {
                            de::Error::custom(
                                "`key_vault` wants VAULT/NAME or VAULT/NAME/VERSION, VAULT as under `key_vaults`",
                            )
                        };
                        SecretRef::Vault(Arc::new(Vaulted::parse(&text).ok_or_else(wrong)?))
                    }
                    "keyring" => {
                        return Err(de::Error::custom(format!("`{kind}` is not in this version of watchfloor; {HOW}")));
                    }
                    other => {
                        return Err(de::Error::custom(format!("`{}` is no place for a secret; {HOW}", short(other))));
                    }
                };
                match map.next_key::<String>()? {
                    None => Ok(Reference(reference)),
                    Some(_) => Err(de::Error::custom("a reference to a secret has exactly one key")),
                }
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

/// A name that is looked up below a folder or in the environment: no path, no surprise.
fn named<E: de::Error>(name: String, what: &str) -> Result<String, E> {
    let fine = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if fine && !name.starts_with('.') {
        return Ok(name);
    }
    Err(E::custom(format!("this is no name of a {what}: letters, digits, `_`, `-` and `.` only")))
}

/// The beginning of something a person wrote, for a message.
fn short(text: &str) -> String {
    text.chars().take(40).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_duration("7d"), Some(Duration::from_secs(7 * 86_400)));
        for wrong in ["10", "m", "", "1.5h", "-1m", "10 m", "99999999999w", "18446744073709551615d", "5é"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
