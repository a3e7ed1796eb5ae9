//! What Entra means by a refused token, and what an administrator must do: one table, by AADSTS number.
//!
//! Microsoft warns that numbers may change, so an unknown one is judged by its HTTP status and told in Entra's words.

use serde_json::Value as Json;

use super::answer;

/// Whether a refusal passes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing changes until somebody does something.
    Lasting,
    /// A failure of Entra's that passes.
    Passing,
    /// Too many requests: it passes, but not at once.
    Throttled,
    /// Two clocks differ, or what was issued elsewhere is too old.
    Clock,
}

/// One number.
#[derive(Debug)]
pub struct Refusal {
    pub number: u64,
    pub kind: Kind,
    pub means: &'static str,
    pub todo: &'static str,
    pub source: &'static str,
}

/// The page of all numbers.
const PAGE: &str = "learn.microsoft.com/entra/identity-platform/reference-error-codes";
/// Numbers that the page does not list: as Entra's messages have them, in public issues and guides.
const SEEN: &str = "messages of Entra quoted in public issues, 2021 to 2026";

const FEDERATED: &str = "in Certificates & secrets > Federated credentials of the app registration, make issuer, subject and \
                         audience exactly those of the token";

macro_rules! refusals {
    ($($number:literal $kind:ident $source:ident: $means:expr, $todo:expr;)*) => {
        &[$(Refusal { number: $number, kind: Kind::$kind, means: $means, todo: $todo, source: $source }),*]
    };
}

pub const REFUSALS: &[Refusal] = refusals![
    7_000_215 Lasting PAGE: "the client secret is wrong",
        "put the secret's value, not its id, where the configuration reads it; if it is lost, make a new one in Certificates & secrets of the app registration";
    7_000_222 Lasting PAGE: "the client secret has expired",
        "make a new one in Certificates & secrets of the app registration and put it where the configuration reads it";
    7_000_218 Lasting PAGE: "no proof was sent", "check client_secret or certificate of the credential";
    70_002 Lasting PAGE: "the credential was not accepted", "check client_secret against Certificates & secrets of the app registration";
    700_016 Lasting PAGE: "the application is not known in this tenant",
        "check client_id and tenant_id against the Overview of the app registration; an app of another tenant needs an admin's consent in this one";
    70_001 Lasting PAGE: "the application is not known or is disabled", "check client_id, and Enterprise applications > the app > Properties";
    7_000_112 Lasting SEEN: "the application is disabled",
        "enable it: Enterprise applications > the app > Properties > Enabled for users to sign in";
    700_027 Lasting PAGE: "the certificate is not accepted",
        "upload it, without its key, in Certificates & secrets > Certificates of the app registration; one that has expired there needs a successor";
    50_013 Lasting PAGE: "the federated token is not accepted", "check that its issuer publishes the key that signs it";
    50_012 Lasting PAGE: "the certificate or the signature is not accepted", "check the certificate in Certificates & secrets of the app registration";
    700_030 Lasting PAGE: "the certificate's subject is not authorised", "check which subjects the app registration trusts";
    50_027 Lasting SEEN: "the assertion is no JWT that Entra can read", "check what writes the federated token";
    700_021 Lasting SEEN: "the assertion is for another application", "check client_id";
    700_024 Clock SEEN: "the assertion is outside its time",
        "set this machine's clock (timedatectl); if the token is federated, whatever writes its file has stopped renewing it";
    500_133 Clock PAGE: "the assertion is outside its time",
        "set this machine's clock (timedatectl); if the token is federated, whatever writes its file has stopped renewing it";
    70_021 Lasting SEEN: "no federated credential matches the token", FEDERATED;
    700_211 Lasting SEEN: "no federated credential matches the token's issuer", FEDERATED;
    700_212 Lasting SEEN: "no federated credential matches the token's audience", FEDERATED;
    700_213 Lasting SEEN: "no federated credential matches the token's subject", FEDERATED;
    90_002 Lasting PAGE: "the tenant does not exist",
        "check tenant_id against the Overview of Entra ID, and cloud: a tenant of a national cloud signs in there";
    90_038 Lasting PAGE: "the tenant belongs to another cloud", "set cloud of the connection to the tenant's own";
    900_382 Lasting PAGE: "the tenant belongs to another cloud", "set cloud of the connection to the tenant's own";
    900_432 Lasting PAGE: "the tenant belongs to another cloud", "set cloud of the connection to the tenant's own";
    9_001_023 Lasting PAGE: "the tenant must be named", "set tenant_id to one tenant, not 'common' or 'organizations'";
    90_130 Lasting PAGE: "the tenant must be named", "set tenant_id to one tenant, not 'common' or 'organizations'";
    500_011 Lasting PAGE: "the service is not set up in this tenant",
        "in API permissions of the app registration, add the permissions that the flows need and grant admin consent; or check scope and cloud";
    50_001 Lasting PAGE: "the service is disabled or does not exist in this tenant", "enable its service principal in Enterprise applications, or check scope";
    650_057 Lasting PAGE: "the service is not among those that the application may ask for",
        "in API permissions of the app registration, add an application permission of that service and grant admin consent";
    65_001 Lasting PAGE: "nobody has consented to what the application asks for",
        "grant admin consent in API permissions of the app registration";
    90_094 Lasting PAGE: "an administrator must consent", "grant admin consent in API permissions of the app registration";
    70_011 Lasting PAGE: "the scope is wrong", "make scope one resource followed by /.default";
    28_002 Lasting PAGE: "the scope is wrong", "make scope one resource followed by /.default";
    700_022 Lasting PAGE: "the scope names several resources", "make scope one resource followed by /.default";
    // Listed as a scope without a resource; in practice also said of an assertion for another audience.
    700_023 Lasting PAGE: "the scope, or the assertion's audience, is not accepted", "check scope, and that authority and tenant_id are the tenant's own";
    900_144 Lasting PAGE: "the request lacks a parameter", "report this: it is a fault of watchfloor";
    50_034 Lasting PAGE: "the account is not in this tenant", "check tenant_id and which identity the connection names";
    53_003 Lasting PAGE: "a Conditional Access policy blocks it",
        "see Sign-in logs > Service principal sign-ins, and exclude the application from the policy or sign in from an address that it allows";
    50_196 Throttled PAGE: "the same request came too often", "it is asked again later; check that no other program uses this application in a loop";
    90_055 Throttled PAGE: "the tenant is throttled", "it is asked again later";
    90_006 Passing PAGE: "Entra has a passing failure", "it is asked again";
    90_012 Passing PAGE: "Entra took too long", "it is asked again";
    90_024 Passing PAGE: "Entra has a passing failure", "it is asked again";
    90_033 Passing PAGE: "Entra's directory is not available", "it is asked again";
    90_090 Passing PAGE: "Entra has a passing failure", "it is asked again";
];

/// A refusal, read.
#[derive(Debug)]
pub(super) struct Read {
    /// `AADSTS…`, or `token` where there is no number.
    pub(super) code: String,
    pub(super) kind: Kind,
    /// What it means, what to do, and Entra's own words.
    pub(super) text: String,
}

/// The row of a number.
pub fn find(number: u64) -> Option<&'static Refusal> {
    REFUSALS.iter().find(|row| row.number == number)
}

/// Reads the answer of a token endpoint that gave no token.
pub(super) fn read(status: u16, json: &Json) -> Read {
    let description = json.get("error_description").and_then(Json::as_str).unwrap_or("");
    let listed = json.get("error_codes").and_then(|codes| codes.get(0)).and_then(Json::as_u64);
    let written = description.split_once("AADSTS").map(|(_, rest)| rest);
    let written = written.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    let number: Option<u64> = listed.or(written);
    let code = number.map_or_else(|| "token".to_owned(), |number| format!("AADSTS{number}"));
    let failed = status >= 500 || status == 429;
    let (kind, told) = match number.and_then(find) {
        Some(row) => (row.kind, format!("{}; {}", row.means, row.todo)),
        None if status == 429 => (Kind::Throttled, "it asks for patience; it is asked again later".to_owned()),
        None if failed => (Kind::Passing, "the token endpoint failed; it is asked again".to_owned()),
        None => (Kind::Lasting, format!("see what {PAGE} says of {code}")),
    };
    let said = answer::clean(description.lines().next().unwrap_or(""), 300);
    let said = if said.is_empty() { &code } else { &said };
    Read { text: format!("{told} ({said})"), code, kind }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_table_does_not_know_is_judged_by_its_status() {
        let unknown = json!({ "error": "x", "error_description": "AADSTS1234567: Something.\r\nTrace", "error_codes": [1_234_567] });
        for (status, json, kind, code) in [
            (503, json!({}), Kind::Passing, "token"),
            (502, json!("<html>"), Kind::Passing, "token"),
            (429, json!({}), Kind::Throttled, "token"),
            (500, unknown.clone(), Kind::Passing, "AADSTS1234567"),
            (400, unknown.clone(), Kind::Lasting, "AADSTS1234567"),
            (404, json!({}), Kind::Lasting, "token"),
            // The number is in the text alone.
            (400, json!({ "error_description": "AADSTS90033: A transient error." }), Kind::Passing, "AADSTS90033"),
        ] {
            let read = read(status, &json);
            assert_eq!((read.kind, read.code.as_str()), (kind, code), "{status} {json}");
        }
        assert!(read(400, &unknown).text.contains("AADSTS1234567: Something."));
    }
}
