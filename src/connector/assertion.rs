//! An assertion that a certificate signs: who we are, to the token endpoint of Entra.
//!
//! Format: learn.microsoft.com/entra/identity-platform/certificate-credentials.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{KeyPair as _, RSA_PSS_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use crate::clock;
use crate::config::certificate::{Certificate, blocks};

/// How long an assertion is good for, in seconds: the page asks for ten minutes at most.
const LIFE: i64 = 300;

/// A certificate with its key.
pub(super) struct Signer {
    key: RsaKeyPair,
    /// SHA-256 of the certificate, base64url: the name under which Entra knows it.
    thumbprint: String,
    pub(super) not_after: Timestamp,
}

impl Signer {
    /// Reads the certificate of one PEM text and the key of another, which may be the same.
    pub(super) fn from_pem(certificate: &str, key: &str) -> Result<Self, String> {
        let certificate = Certificate::from_pem(certificate)?;
        let key = read_key(key)?;
        if key.public_key().as_ref() != certificate.public_key.as_slice() {
            return Err("the key is not the certificate's; check which two belong together".into());
        }
        let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate.der));
        Ok(Signer { key, thumbprint, not_after: certificate.not_after })
    }

    /// An assertion for one token request, good for five minutes. `None` where the key can't sign.
    pub(super) fn assertion(&self, client_id: &str, audience: &str, now: Timestamp) -> Option<String> {
        let now = now.as_second();
        let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": self.thumbprint });
        let claims = json!({
            "aud": audience, "iss": client_id, "sub": client_id, "jti": clock::secret_token(),
            "nbf": now, "iat": now, "exp": now + LIFE,
        });
        let encode = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn read_key(text: &str) -> Result<RsaKeyPair, String> {
    let blocks = blocks(text)?;
    let found = blocks.iter().find(|(label, _)| label.ends_with("PRIVATE KEY"));
    let (label, der) =
        found.ok_or("there is no PRIVATE KEY in the PEM text; append the key, or set certificate_key")?;
    let key = match label.as_str() {
        "PRIVATE KEY" => RsaKeyPair::from_pkcs8(der),
        "RSA PRIVATE KEY" => RsaKeyPair::from_der(der),
        "ENCRYPTED PRIVATE KEY" => {
            return Err(
                "the key is encrypted; `openssl pkey -in KEY -out PLAIN` writes it without, to be kept like any secret"
                    .into(),
            );
        }
        other => return Err(format!("the key is a {other}; Entra takes RSA keys")),
    };
    key.map_err(|_| "the key is no RSA key of 2048 to 8192 bits".to_owned())
}
