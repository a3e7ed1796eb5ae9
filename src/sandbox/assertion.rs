//! Assertions at the token endpoint: a certificate's or another identity provider's, checked as Entra checks them.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use sha2::{Digest as _, Sha256};

use crate::config::certificate::{self, Certificate};

/// How far the two clocks may be apart, in seconds.
const FORGIVEN: i64 = 300;

/// What the app registration trusts besides its secrets.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// By thumbprint.
    certificates: BTreeMap<String, Certificate>,
    federated: Vec<Federated>,
}

/// A federated credential of the app registration, with the issuer's key, which Entra would fetch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Federated {
    issuer: String,
    subject: String,
    audience: String,
    /// PEM.
    public_key: String,
}

/// A number of AADSTS and what is said with it.
pub(super) type Refused = (u64, String);

impl Trust {
    /// Uploads a certificate (PEM).
    pub(super) fn certificate(&mut self, pem: &str) -> Result<(), String> {
        let certificate = Certificate::from_pem(pem)?;
        let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate.der));
        self.certificates.insert(thumbprint, certificate);
        Ok(())
    }

    /// Adds a federated credential: `{"issuer", "subject", "audience", "public_key"}`.
    pub(super) fn federate(&mut self, body: &[u8]) -> Result<(), String> {
        let federated: Federated = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        certificate::public_key(&federated.public_key)?;
        self.federated.push(federated);
        Ok(())
    }

    /// Whether an assertion proves the client; `url` is the token endpoint that it was sent to.
    pub(super) fn check(&self, assertion: &str, client: &str, url: &str, now: Timestamp) -> Result<(), Refused> {
        let jwt = Jwt::read(assertion).ok_or((50_027, "JWT token is invalid or malformed.".to_owned()))?;
        if jwt.text("iss") == client || jwt.header.contains_key("x5t#S256") {
            self.certified(&jwt, client, url)?;
        } else {
            self.known(&jwt)?;
        }
        let (now, from, until) = (now.as_second(), jwt.second("nbf").or(jwt.second("iat")), jwt.second("exp"));
        if from.is_some_and(|from| from > now + FORGIVEN) || until.is_none_or(|until| until < now - FORGIVEN) {
            let text = format!(
                "Client assertion is not within its valid time range. Current time: {now}, assertion valid from {from:?}, \
                 expiry time of assertion {until:?}."
            );
            return Err((700_024, text));
        }
        Ok(())
    }

    fn certified(&self, jwt: &Jwt, client: &str, url: &str) -> Result<(), Refused> {
        let invalid =
            |reason: &str| Err((700_027, format!("Client assertion failed signature validation. [Reason - {reason}]")));
        let named = jwt.header.get("x5t#S256").and_then(Json::as_str).unwrap_or("");
        let Some(certificate) = self.certificates.get(named) else {
            return invalid(&format!("The key was not found., Thumbprint of key used by client: '{named}'"));
        };
        if jwt.verify(&certificate.public_key).is_none() {
            return invalid("The signature does not fit");
        }
        if jwt.text("iss") != client || jwt.text("sub") != client || jwt.text("jti").is_empty() {
            let text = "Client assertion application identifier doesn't match 'client_id' parameter.";
            return Err((700_021, text.to_owned()));
        }
        if jwt.text("aud") != url {
            return Err((700_023, "Client assertion audience claim does not match Realm issuer.".to_owned()));
        }
        let until = jwt.second("exp").unwrap_or(0);
        if until > certificate.not_after.as_second() {
            return invalid("The key used is expired.");
        }
        Ok(())
    }

    fn known(&self, jwt: &Jwt) -> Result<(), Refused> {
        let none = |number, what: &str, value: &str| {
            let text = format!(
                "No matching federated identity record found for presented assertion {what} '{value}'. Please check your \
                 federated identity credential Subject, Audience and Issuer against the presented assertion."
            );
            Err((number, text))
        };
        if self.federated.is_empty() {
            return none(70_021, "of the issuer", jwt.text("iss"));
        }
        let mut left: Vec<&Federated> = self.federated.iter().collect();
        left.retain(|it| it.issuer == jwt.text("iss"));
        if left.is_empty() {
            return none(700_211, "issuer", jwt.text("iss"));
        }
        left.retain(|it| it.subject == jwt.text("sub"));
        if left.is_empty() {
            return none(700_213, "subject", jwt.text("sub"));
        }
        left.retain(|it| it.audience == jwt.text("aud"));
        let Some(federated) = left.first() else { return none(700_212, "audience", jwt.text("aud")) };
        let key = certificate::public_key(&federated.public_key).unwrap_or_default();
        jwt.verify(&key).ok_or((50_013, "Assertion failed signature validation.".to_owned()))
    }
}

/// A token as it came: nothing of it is believed before `verify`.
struct Jwt<'a> {
    header: Map<String, Json>,
    claims: Map<String, Json>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jwt<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let object = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        Some(Jwt { header: object(header)?, claims: object(claims)?, signed, signature })
    }

    fn text(&self, claim: &str) -> &str {
        self.claims.get(claim).and_then(Json::as_str).unwrap_or("")
    }

    fn second(&self, claim: &str) -> Option<i64> {
        self.claims.get(claim)?.as_i64()
    }

    fn verify(&self, key: &[u8]) -> Option<()> {
        let how: &'static RsaParameters = match self.header.get("alg")?.as_str()? {
            "PS256" => &RSA_PSS_2048_8192_SHA256,
            "RS256" => &RSA_PKCS1_2048_8192_SHA256,
            _ => return None,
        };
        UnparsedPublicKey::new(how, key).verify(self.signed.as_bytes(), &self.signature).ok()
    }
}
