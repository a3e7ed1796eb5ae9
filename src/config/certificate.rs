//! What is read of a PEM text with a certificate and its key: bytes, the public key, from when to when it is valid.
//!
//! Only as much of X.509 as that takes (RFC 5280, 4.1): whom a certificate belongs to is for the service that it is
//! registered with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::civil::DateTime;

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub der: Vec<u8>,
    /// The key as PKCS#1 has it (`RSAPublicKey`), for RSA.
    pub public_key: Vec<u8>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// The blocks of a PEM text: label and bytes. What stands between blocks is skipped.
pub fn blocks(text: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut found = vec![];
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let label = line.trim().strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        let Some(label) = label else { continue };
        let end = format!("-----END {label}-----");
        let mut body = String::new();
        loop {
            let line = lines.next().ok_or_else(|| format!("the PEM block {label} has no end"))?.trim();
            if line == end {
                break;
            }
            body.push_str(line);
        }
        let bytes = STANDARD.decode(body).map_err(|_| format!("the PEM block {label} is no base64"))?;
        found.push((label.to_owned(), bytes));
    }
    Ok(found)
}

impl Certificate {
    /// The first certificate of a PEM text; what follows it is its chain.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        let found = blocks(text)?.into_iter().find(|(label, _)| label == "CERTIFICATE");
        let (_, der) = found.ok_or("there is no CERTIFICATE in the PEM text")?;
        Self::from_der(der)
    }

    pub fn from_der(der: Vec<u8>) -> Result<Self, String> {
        let read = || {
            let mut outer = Reader(&der);
            let mut certificate = Reader(outer.value(0x30)?);
            let mut signed = Reader(certificate.value(0x30)?);
            // The version is written only where it is not 1.
            if signed.0.first() == Some(&0xa0) {
                signed.value(0xa0)?;
            }
            signed.value(0x02)?; // serial number
            signed.value(0x30)?; // signature algorithm
            signed.value(0x30)?; // issuer
            let mut validity = Reader(signed.value(0x30)?);
            let (not_before, not_after) = (validity.time()?, validity.time()?);
            signed.value(0x30)?; // subject
            let mut info = Reader(signed.value(0x30)?);
            info.value(0x30)?; // algorithm of the key
            let key = info.value(0x03)?.split_first()?.1.to_vec();
            Some((key, not_before, not_after))
        };
        let (public_key, not_before, not_after) = read().ok_or("the certificate is damaged")?;
        Ok(Certificate { der, public_key, not_before, not_after })
    }
}

/// The bits of a public key in a PEM text (`PUBLIC KEY`).
pub fn public_key(text: &str) -> Result<Vec<u8>, String> {
    let found = blocks(text)?.into_iter().find(|(label, _)| label == "PUBLIC KEY");
    let (_, der) = found.ok_or("there is no PUBLIC KEY in the PEM text")?;
    let read = || {
        let mut outer = Reader(&der);
        let mut info = Reader(outer.value(0x30)?);
        info.value(0x30)?;
        Some(info.value(0x03)?.split_first()?.1.to_vec())
    };
    read().ok_or_else(|| "the public key is damaged".to_owned())
}

/// Walks over DER: one value after the other, never beyond the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn value(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_first()?;
        if *first != tag {
            return None;
        }
        let (length, mut rest) = rest.split_first()?;
        let mut size = usize::from(*length);
        if size >= 0x80 {
            let digits;
            (digits, rest) = rest.split_at_checked(size - 0x80).filter(|(digits, _)| digits.len() <= 4)?;
            size = digits.iter().fold(0, |size, digit| size << 8 | usize::from(*digit));
        }
        let (value, rest) = rest.split_at_checked(size)?;
        self.0 = rest;
        Some(value)
    }

    /// A UTCTime (two digits of year: from 1950 on) or a GeneralizedTime.
    fn time(&mut self) -> Option<Timestamp> {
        let short = self.0.first() == Some(&0x17);
        let text = std::str::from_utf8(self.value(if short { 0x17 } else { 0x18 })?).ok()?;
        let text = if short {
            let century = if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
            format!("{century}{text}")
        } else {
            text.to_owned()
        };
        let time = DateTime::strptime("%Y%m%d%H%M%S", text.strip_suffix('Z')?).ok()?;
        Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    }
}
