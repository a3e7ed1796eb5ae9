//! Which product an alert is of, read from the letters before its id and from what detected it.
//!
//! The letters are only put before the provider's own id. Source of the table: "Investigate alerts in Microsoft Defender
//! XDR" (learn.microsoft.com/defender-xdr/investigate-alerts).

/// The letters, the product as the portal calls it, the service source that Graph answers, and whether a customer's own
/// rule raised it.
pub const PREFIXES: [(&str, &str, &str, bool); 16] = [
    ("ra", "Microsoft Defender XDR", "Microsoft365Defender", false),
    ("ta", "Microsoft Defender Experts", "Microsoft365Defender", false),
    ("ea", "Microsoft Defender XDR, custom detection", "Microsoft365Defender", true),
    ("fa", "Microsoft Defender for Office 365", "MicrosoftDefenderForOffice365", false),
    ("da", "Microsoft Defender for Endpoint", "MicrosoftDefenderForEndpoint", false),
    ("ed", "Microsoft Defender for Endpoint, custom detection", "MicrosoftDefenderForEndpoint", true),
    ("aa", "Microsoft Defender for Identity", "MicrosoftDefenderForIdentity", false),
    ("ri", "Microsoft Defender for Identity, XDR detection engine", "MicrosoftDefenderForIdentity", false),
    ("ca", "Microsoft Defender for Cloud Apps", "MicrosoftDefenderForCloudApps", false),
    ("rm", "Microsoft Defender for Cloud Apps, XDR detection engine", "MicrosoftDefenderForCloudApps", false),
    ("ma", "App governance", "MicrosoftAppGovernance", false),
    ("ad", "Microsoft Entra ID Protection", "AzureAdIdentityProtection", false),
    ("dl", "Microsoft Purview Data Loss Prevention", "DataLossPrevention", false),
    ("dc", "Microsoft Defender for Cloud", "MicrosoftDefenderForCloud", false),
    ("sn", "Microsoft Sentinel", "MicrosoftSentinel", false),
    ("ir", "Microsoft Purview Insider Risk Management", "MicrosoftInsiderRiskManagement", false),
];

/// Service sources that have no letters of their own.
const OTHERS: [(&str, &str); 2] = [
    ("MicrosoftThreatIntelligence", "Microsoft Threat Intelligence"),
    ("MicrosoftSecurityForAI", "Microsoft Security for AI"),
];

/// What detected an alert: the service's word, and as people say it.
pub const DETECTIONS: [(&str, &str); 39] = [
    ("microsoftDefenderForEndpoint", "endpoint detection and response"),
    ("antivirus", "antivirus"),
    ("smartScreen", "SmartScreen"),
    ("customTi", "an indicator of yours"),
    ("microsoftDefenderForOffice365", "Defender for Office 365"),
    ("automatedInvestigation", "automated investigation"),
    ("microsoftThreatExperts", "Defender Experts"),
    ("customDetection", "a custom detection rule"),
    ("microsoftDefenderForIdentity", "Defender for Identity"),
    ("cloudAppSecurity", "Defender for Cloud Apps"),
    ("microsoft365Defender", "Defender XDR"),
    ("azureAdIdentityProtection", "Entra ID Protection"),
    ("manual", "a person"),
    ("microsoftDataLossPrevention", "Purview Data Loss Prevention"),
    ("appGovernancePolicy", "an app governance policy"),
    ("appGovernanceDetection", "app governance"),
    ("microsoftDefenderForCloud", "Defender for Cloud"),
    ("microsoftDefenderForIoT", "Defender for IoT"),
    ("microsoftDefenderForServers", "Defender for Servers"),
    ("microsoftDefenderForStorage", "Defender for Storage"),
    ("microsoftDefenderForDNS", "Defender for DNS"),
    ("microsoftDefenderForDatabases", "Defender for Databases"),
    ("microsoftDefenderForContainers", "Defender for Containers"),
    ("microsoftDefenderForNetwork", "Defender for the Azure network layer"),
    ("microsoftDefenderForAppService", "Defender for App Service"),
    ("microsoftDefenderForKeyVault", "Defender for Key Vault"),
    ("microsoftDefenderForResourceManager", "Defender for Resource Manager"),
    ("microsoftDefenderForApiManagement", "Defender for APIs"),
    ("nrtAlerts", "a near-real-time rule of Sentinel"),
    ("scheduledAlerts", "a scheduled rule of Sentinel"),
    ("microsoftDefenderThreatIntelligenceAnalytics", "threat intelligence analytics of Sentinel"),
    ("builtInMl", "machine learning of Sentinel"),
    ("microsoftInsiderRiskManagement", "Insider Risk Management"),
    ("microsoftThreatIntelligence", "Microsoft Threat Intelligence"),
    ("microsoftDefenderForAIServices", "Defender for AI services"),
    ("securityCopilot", "Security Copilot"),
    ("microsoftSentinel", "Sentinel"),
    // Defender for Endpoint's own API has words of its own.
    ("WindowsDefenderAtp", "endpoint detection and response"),
    ("WindowsDefenderAv", "antivirus"),
];

/// Short names of products for people who type.
const SHORT: [(&str, &str); 15] = [
    ("endpoint", "MicrosoftDefenderForEndpoint"),
    ("identity", "MicrosoftDefenderForIdentity"),
    ("cloud-apps", "MicrosoftDefenderForCloudApps"),
    ("office365", "MicrosoftDefenderForOffice365"),
    ("office", "MicrosoftDefenderForOffice365"),
    ("xdr", "Microsoft365Defender"),
    ("entra", "AzureAdIdentityProtection"),
    ("app-governance", "MicrosoftAppGovernance"),
    ("dlp", "DataLossPrevention"),
    ("cloud", "MicrosoftDefenderForCloud"),
    ("sentinel", "MicrosoftSentinel"),
    ("insider-risk", "MicrosoftInsiderRiskManagement"),
    ("threat-intelligence", "MicrosoftThreatIntelligence"),
    ("ai", "MicrosoftSecurityForAI"),
    ("mde", "MicrosoftDefenderForEndpoint"),
];

/// Where an alert comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// As the portal calls the product.
    pub product: String,
    /// The service source in the catalogue's spelling; `Unknown` where nothing tells.
    pub service: String,
    /// What detected it, as people say it.
    pub detection: Option<String>,
    /// A rule of the customer's own raised it.
    pub custom: bool,
}

/// Reads a source from the id's letters, the service source and the detection source: each may be absent or unknown to us.
pub fn read(id: &str, service: Option<&str>, detection: Option<&str>) -> Source {
    let prefix = prefix(id).and_then(|letters| PREFIXES.iter().find(|(known, ..)| *known == letters));
    let said = service.filter(|word| !word.eq_ignore_ascii_case("unknown"));
    // The service's own word decides; the letters say more where both agree, and stand in where it says nothing.
    let by_letters = prefix.filter(|(_, _, word, _)| said.is_none_or(|said| said.eq_ignore_ascii_case(word)));
    let (product, word) = match (by_letters, said) {
        (Some((_, product, word, _)), _) => ((*product).to_owned(), (*word).to_owned()),
        (None, Some(said)) => (title(said).to_owned(), said.to_owned()),
        (None, None) => ("an unknown product".to_owned(), "Unknown".to_owned()),
    };
    let custom = by_letters.is_some_and(|(.., custom)| *custom)
        || detection.is_some_and(|word| word.eq_ignore_ascii_case("customDetection"));
    let known = |word: &str| DETECTIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, say)| *say);
    let detection = detection.map(|word| known(word).map_or_else(|| word.to_owned(), str::to_owned));
    Source { product, service: word, detection, custom }
}

/// The product behind a service source; a word that is not known stays as it is.
pub fn title(service: &str) -> &str {
    let of_letters = PREFIXES.iter().map(|(_, title, word, _)| (*word, *title));
    let mut all = of_letters.chain(OTHERS);
    all.find(|(word, _)| word.eq_ignore_ascii_case(service)).map_or(service, |(_, title)| title)
}

/// The service source that a person means: the service's word in any case, or a short name.
pub fn meant(text: &str) -> Option<&'static str> {
    let words = PREFIXES.iter().map(|(_, _, word, _)| *word).chain(OTHERS.iter().map(|(word, _)| *word));
    let mut words = words.map(|word| (word, word)).chain(SHORT);
    words.find(|(name, _)| name.eq_ignore_ascii_case(text.trim())).map(|(_, word)| word)
}

/// The names that [`meant`] knows, for messages.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHORT.iter().map(|(name, _)| *name)
}

/// The two letters before an id. A bare GUID or a bare id of Defender for Cloud Apps has none, though it may begin with
/// two such letters.
fn prefix(id: &str) -> Option<&str> {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let bare = hex(id) && (id.len() == 24 || (id.len() == 36 && id.bytes().filter(|byte| *byte == b'-').count() == 4));
    let letters = id.get(..2).filter(|letters| letters.bytes().all(|byte| byte.is_ascii_lowercase()));
    letters.filter(|_| !bare && id.len() > 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_of_the_table_names_its_product() {
        for (letters, product, word, custom) in PREFIXES {
            let id = format!("{letters}3f0b2a61-7c1d-5e44-9b20-8d7f1e6a2c35");
            let found = read(&id, None, None);
            assert_eq!((&*found.product, &*found.service, found.custom), (product, word, custom), "{id}");
            assert!(meant(word) == Some(word) && title(word) != word, "{word}");
        }
        assert_eq!(
            read("da637308392288907382_-880718168", None, Some("antivirus")).detection.as_deref(),
            Some("antivirus")
        );
    }

    #[test]
    fn an_id_without_letters_is_not_read_as_one_with_them() {
        // Both begin with letters of the table.
        for bare in ["ad3f0b2a-7c1d-5e44-9b20-8d7f1e6a2c35", "da1f0c3e41a6d052df84d974", "637308392288907382_1", ""] {
            assert_eq!(read(bare, None, None).service, "Unknown", "{bare}");
        }
        assert_eq!(
            read("da1f0c3e41a6d052df84d974", Some("MicrosoftDefenderForCloudApps"), None).product,
            "Microsoft Defender for Cloud Apps"
        );
    }

    #[test]
    fn the_service_s_own_word_decides_and_an_unknown_one_is_kept() {
        let found = read("daabc", Some("microsoftSentinel"), None);
        assert_eq!((&*found.product, &*found.service), ("Microsoft Sentinel", "microsoftSentinel"));
        assert_eq!(read("xx1", Some("BrandNew"), Some("newEngine")).product, "BrandNew");
        assert_eq!(read("xx1", None, Some("newEngine")).detection.as_deref(), Some("newEngine"));
        assert!(read("da1_1", Some("MicrosoftDefenderForEndpoint"), Some("CustomDetection")).custom);
        assert_eq!((meant("Endpoint"), meant("nothing")), (Some("MicrosoftDefenderForEndpoint"), None));
    }
}
