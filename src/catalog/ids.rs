//! Ids in every form that people have: bare, with the prefix of another API, or inside a portal's address. What comes out is
//! what the service wants, by shape; anything else is refused, so that no `../` ever reaches a path.

/// The id that the service wants, in its own spelling.
pub fn normal(form: &str, text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.len() > 512 || text.chars().any(char::is_control) {
        return Err("it is too long for an id, or holds control characters".into());
    }
    let shape: fn(&str) -> Option<String> = match form {
        "machine" => machine,
        "mde_alert" => mde_alert,
        "graph_alert" => graph_alert,
        "cloud_alert" => cloud_alert,
        "incident" => incident,
        "guid" => guid,
        "sentinel_incident" => sentinel_incident,
        "segment" => segment,
        "user" => user,
        "hash" => |text| sha1(text).or_else(|| sha256(text)),
        "sha1" => sha1,
        "domain" => domain,
        "ip" => ip,
        "account" => account,
        "software" => software,
        "recommendation" => software,
        "cve" => cve,
        "number" => incident,
        "index" => |text| incident(text).filter(|text| text.len() <= 4),
        "instant" => |text| text.parse::<jiff::Timestamp>().ok().map(|at| at.to_string()),
        "file_name" => file_name,
        "detection" => detection,
        "rule" => rule,
        _ => return Err(format!("there is no id form {form}")),
    };
    let found = match text.starts_with("https://") {
        // The first part of a portal's address that has the shape is the id.
        true => text.split(['/', '?', '#', '&', '=']).skip(3).find_map(shape),
        false => shape(text),
    };
    found.ok_or_else(|| refusal(form, text))
}

/// A mail address that can't break out of a header or a list.
pub fn address(text: &str) -> Result<String, String> {
    let text = text.trim();
    let bad = |c: char| c.is_control() || c.is_whitespace() || "<>,;:\"()[]\\".contains(c);
    match text.split_once('@') {
        Some((local, domain))
            if !local.is_empty() && !domain.is_empty() && !text.contains(bad) && text.len() <= 320 =>
        {
            Ok(text.to_owned())
        }
        _ => Err(format!("{} is no mail address", quoted(text))),
    }
}

fn refusal(form: &str, text: &str) -> String {
    let want = match form {
        "machine" => "a device's id: 40 hex digits",
        "mde_alert" if graph_alert(text).is_some() => {
            return format!("{} is an alert of another product; use xdr.get_alert and its like", quoted(text));
        }
        "mde_alert" => "an alert of Defender for Endpoint, such as da637472900382838869_1364969609",
        "graph_alert" => "an alert's id: two letters that name the product, and the rest",
        "cloud_alert" if graph_alert(text).is_some() => {
            return format!("{} is an alert of another API; Defender for Cloud Apps wants 24 hex digits", quoted(text));
        }
        "cloud_alert" => "an alert of Defender for Cloud Apps: 24 hex digits",
        "incident" => "an incident's number",
        "hash" => "a file's SHA-1 or SHA-256: 40 or 64 hex digits",
        "sha1" => "a file's SHA-1: 40 hex digits",
        "domain" => "a domain, such as contoso.example",
        "ip" => "an IP address",
        "account" => "an account name without its domain, such as user1",
        "software" => "a product's id, such as microsoft-_-edge",
        "recommendation" => "a recommendation's id, such as va-_-google-_-chrome",
        "sentinel_incident" => "an incident's name, such as 73e01a99-5cd7-4139-a149-9f2736ff2ab5, or its resource id",
        "segment" => "one part of a path: from 1 to 200 characters, and not dots alone",
        "cve" => "a weakness's id, such as CVE-2026-12345",
        "number" | "index" => "a number",
        "instant" => "an instant, such as 2026-11-20T07:20:00Z",
        "file_name" => "a file's name without a folder",
        "detection" => "a risk detection's id: a GUID or 64 hex digits",
        "rule" => "a rule's id, as exchange.list_inbox_rules gives it",
        "guid" => "an id of the form 5382f7ea-7557-4ab7-9782-d50480024a4e",
        _ => "a user's object id or user principal name",
    };
    format!("{} is not {want}", quoted(text))
}

fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn machine(text: &str) -> Option<String> {
    is_hex(text, 40).then(|| text.to_ascii_lowercase())
}

/// The name alone, or the last part of a whole resource id.
fn sentinel_incident(text: &str) -> Option<String> {
    let name = text.rsplit('/').next().unwrap_or(text);
    let whole = text.to_ascii_lowercase();
    let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let ours = name == text || (whole.starts_with("/subscriptions/") && whole.contains("/incidents/"));
    (ours && fits && (8..=64).contains(&name.len())).then(|| name.to_owned())
}

/// Whatever a service calls its things; it is encoded where it enters a path.
fn segment(text: &str) -> Option<String> {
    let dots = text.bytes().all(|byte| byte == b'.');
    (!dots && text.chars().count() <= 200 && !text.contains(['/', '\\'])).then(|| text.to_owned())
}

fn sha1(text: &str) -> Option<String> {
    is_hex(text, 40).then(|| text.to_ascii_lowercase())
}

fn sha256(text: &str) -> Option<String> {
    is_hex(text, 64).then(|| text.to_ascii_lowercase())
}

fn domain(text: &str) -> Option<String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (text.len() <= 253 && text.contains('.') && text.split('.').all(label)).then(|| text.to_ascii_lowercase())
}

fn ip(text: &str) -> Option<String> {
    text.parse::<std::net::IpAddr>().ok().map(|ip| ip.to_string())
}

fn account(text: &str) -> Option<String> {
    let fits = text.chars().all(|c| c.is_alphanumeric() || "-_.$".contains(c)) && !text.chars().all(|c| c == '.');
    (!text.is_empty() && text.len() <= 104 && fits).then(|| text.to_owned())
}

/// `vendor-_-product`, and what a recommendation's id is made of.
fn software(text: &str) -> Option<String> {
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b)) && !text.starts_with('.');
    (text.contains("-_-") && text.len() <= 256 && fits).then(|| text.to_owned())
}

fn cve(text: &str) -> Option<String> {
    let upper = text.to_ascii_uppercase();
    let (kind, rest) = upper.split_once('-')?;
    let (year, number) = rest.split_once('-')?;
    let digits = |text: &str, range: std::ops::RangeInclusive<usize>| {
        range.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    // Weaknesses without a CVE have ids of Microsoft's own, `TVM-2020-0002`.
    let fits = matches!(kind, "CVE" | "TVM") && digits(year, 4..=4) && digits(number, 4..=9);
    fits.then(|| upper.clone())
}

fn detection(text: &str) -> Option<String> {
    guid(text).or_else(|| sha256(text))
}

/// Base64 in either alphabet.
fn rule(text: &str) -> Option<String> {
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-_=".contains(&b));
    ((4..=256).contains(&text.len()) && fits).then(|| text.to_owned())
}

fn file_name(text: &str) -> Option<String> {
    let fits = text.chars().all(|c| c.is_alphanumeric() || "-_. ()".contains(c)) && !text.starts_with('.');
    (!text.is_empty() && text.len() <= 255 && fits && !text.contains("..")).then(|| text.to_owned())
}

fn cloud_alert(text: &str) -> Option<String> {
    let bare = text.strip_prefix("ca").filter(|rest| rest.len() == 24).unwrap_or(text);
    is_hex(bare, 24).then(|| bare.to_ascii_lowercase())
}

fn guid(text: &str) -> Option<String> {
    let mut parts = text.split('-');
    let fits = [8, 4, 4, 4, 12].iter().all(|length| parts.next().is_some_and(|part| is_hex(part, *length)));
    (fits && parts.next().is_none()).then(|| text.to_ascii_lowercase())
}

fn incident(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= 19 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.to_owned())
}

/// `da` or `ed`, ticks or a GUID, an underscore and a signed number. People also have them without the prefix, as old ids
/// were written; the same alert is always spelled with it, so that one lock and one guard stand for it.
fn mde_alert(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (head, tail) = text.split_once('_')?;
    let digits = tail.strip_prefix('-').unwrap_or(tail);
    let tail_fits = !digits.is_empty() && digits.len() <= 20 && digits.bytes().all(|b| b.is_ascii_digit());
    let core = |head: &str| {
        guid(head).is_some() || (head.len() <= 40 && !head.is_empty() && head.bytes().all(|b| b.is_ascii_digit()))
    };
    if !tail_fits {
        return None;
    }
    if core(head) {
        return Some(format!("da{text}"));
    }
    let rest = head.strip_prefix("da").or_else(|| head.strip_prefix("ed"))?;
    let rest_fits = !rest.is_empty() && rest.len() <= 40 && rest.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    rest_fits.then_some(text)
}

/// Prefixes by which Microsoft Graph tells the products apart.
const PREFIXES: [&str; 14] = ["aa", "ad", "ca", "da", "dc", "dl", "ea", "ed", "fa", "ir", "ma", "ra", "ri", "rm"];
const NEWER: [&str; 2] = ["sn", "ta"];

fn graph_alert(text: &str) -> Option<String> {
    let safe = |rest: &str| {
        (8..=128).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if is_hex(text, 24) {
        // An id of Defender for Cloud Apps, which Graph knows with its prefix.
        return Some(format!("ca{}", text.to_ascii_lowercase()));
    }
    if let (true, Some(id)) = (text.bytes().next().is_some_and(|b| b.is_ascii_digit()), mde_alert(text)) {
        return Some(id);
    }
    let prefixed = PREFIXES.iter().chain(&NEWER).any(|prefix| text.strip_prefix(prefix).is_some_and(safe));
    (prefixed && text.bytes().any(|b| b.is_ascii_digit())).then(|| text.to_owned())
}

fn user(text: &str) -> Option<String> {
    if let Some(id) = guid(text) {
        return Some(id);
    }
    let (local, domain) = text.split_once('@')?;
    let local_fits = !local.is_empty()
        && !local.chars().all(|c| c == '.')
        && local.chars().all(|c| c.is_alphanumeric() || "'.-_!#^~+&*$=`{|}".contains(c));
    let domain_fits = domain.contains(|c: char| c.is_alphanumeric())
        && !domain.contains("..")
        && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    (local_fits && domain_fits && text.len() <= 256).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_id_comes_out_as_the_service_wants_it() {
        let machine = "1E5BC9D7E413DDD7902C2932E418702B84D0CC07";
        let page = format!("https://security.microsoft.com/machines/v2/{machine}/overview?tid=1");
        for (form, given, want) in [
            ("machine", machine, "1e5bc9d7e413ddd7902c2932e418702b84d0cc07"),
            ("machine", page.as_str(), "1e5bc9d7e413ddd7902c2932e418702b84d0cc07"),
            ("mde_alert", " da637472900382838869_-1364969609 ", "da637472900382838869_-1364969609"),
            ("mde_alert", "637472900382838869_1", "da637472900382838869_1"),
            ("mde_alert", "DA637472900382838869_1", "da637472900382838869_1"),
            (
                "mde_alert",
                "https://security.microsoft.com/alerts/da637472900382838869_1?tid=a",
                "da637472900382838869_1",
            ),
            ("graph_alert", "637472900382838869_1", "da637472900382838869_1"),
            ("graph_alert", "691f0c3caf7417985bbf3b22", "ca691f0c3caf7417985bbf3b22"),
            ("graph_alert", "ca3f0b2a61-7c1d-5e44-9b20-8d7f1e6a2c35", "ca3f0b2a61-7c1d-5e44-9b20-8d7f1e6a2c35"),
            ("cloud_alert", "ca691f0c3caf7417985bbf3b22", "691f0c3caf7417985bbf3b22"),
            (
                "cloud_alert",
                "https://contoso.us2.portal.cloudappsecurity.com/#/alerts/691F0C3CAF7417985BBF3B22",
                "691f0c3caf7417985bbf3b22",
            ),
            ("incident", "https://security.microsoft.com/incident2/4182/overview", "4182"),
            ("user", "guest_example.org#EXT#@contoso.example", "guest_example.org#EXT#@contoso.example"),
        ] {
            assert_eq!(normal(form, given).as_deref(), Ok(want), "{form} {given}");
        }
    }

    #[test]
    fn what_is_no_id_is_refused_by_shape() {
        for form in ["machine", "mde_alert", "graph_alert", "cloud_alert", "incident", "guid", "user"] {
            for hostile in ["../../x", "", "a/b", "x'y or 1 eq 1", "..", "%2e%2e", "a\nb", "..@..", "https://a/../.."] {
                assert!(normal(form, hostile).is_err(), "{form} {hostile}");
            }
        }
        let other = normal("mde_alert", "ca3f0b2a61-7c1d-5e44-9b20-8d7f1e6a2c35").unwrap_err();
        assert!(other.contains("xdr.get_alert"), "{other}");
    }

    #[test]
    fn addresses_hold_no_second_address() {
        assert_eq!(address(" soc@contoso.example ").as_deref(), Ok("soc@contoso.example"));
        for hostile in ["a@b.example, c@d.example", "a@b\r\nBcc: c@d", "nobody", "@b", "<a@b>"] {
            assert!(address(hostile).is_err(), "{hostile}");
        }
    }
}
