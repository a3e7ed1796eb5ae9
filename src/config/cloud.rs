//! The national clouds: where each signs in and where its services are. A table with its sources.
//!
//! Not here: what a service does in a cloud; not every action exists in every one.

use crate::catalog::ConnectionKind;

/// A cloud of Microsoft's, as a connection's `cloud:` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cloud {
    #[default]
    Global,
    /// US Government Community Cloud: identity and Graph of the global cloud, Defender for Endpoint of its own.
    Gcc,
    GccHigh,
    Dod,
    /// Operated by 21Vianet.
    China,
}

/// Where the services of one cloud are. A scope is the resource that tokens are for, without `/.default`.
#[derive(Debug)]
pub struct Endpoints {
    pub cloud: Cloud,
    pub name: &'static str,
    pub authority: &'static str,
    pub graph: &'static str,
    /// Base URL and resource; `None` where no public API is documented.
    pub mde: Option<(&'static str, &'static str)>,
    pub azure: &'static str,
    /// The resource of Azure Monitor's query API.
    pub logs: &'static str,
    /// The resource of mail over SMTP.
    pub outlook: &'static str,
    /// What a vault's name is followed by, and the resource.
    pub vault: (&'static str, &'static str),
}

/// The app of Defender for Cloud Apps is one in all clouds
/// (learn.microsoft.com/defender-cloud-apps/api-authentication-application).
const CLOUD_APPS: &str = "05a65629-4c1b-48c1-a78b-804c4abdd4af";

/// Sources: learn.microsoft.com/graph/deployments (authorities and Graph, and that GCC uses the global ones);
/// learn.microsoft.com/defender-endpoint/gov#api (hosts of Defender for Endpoint in GCC, GCC High and DoD; that each is its own
/// resource is what public guides do, and so it is assumed of mail); learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure and
/// learn.microsoft.com/azure/china/resources-developer-guide (Resource Manager, vaults);
/// learn.microsoft.com/azure/azure-monitor/logs/api/access-api and docs.azure.cn/azure-monitor/logs/api/request-format (queries);
/// learn.microsoft.com/powershell/module/exchange/connect-exchangeonline (mail).
pub const CLOUDS: [Endpoints; 5] = [
    Endpoints {
        cloud: Cloud::Global,
        name: "global",
        authority: "https://login.microsoftonline.com",
        graph: "https://graph.microsoft.com",
        mde: Some(("https://api.security.microsoft.com", "https://api.securitycenter.microsoft.com")),
        azure: "https://management.azure.com",
        logs: "https://api.loganalytics.io",
        outlook: "https://outlook.office365.com",
        vault: ("vault.azure.net", "https://vault.azure.net"),
    },
    Endpoints {
        cloud: Cloud::Gcc,
        name: "gcc",
        authority: "https://login.microsoftonline.com",
        graph: "https://graph.microsoft.com",
        mde: Some(("https://api-gcc.securitycenter.microsoft.us", "https://api-gcc.securitycenter.microsoft.us")),
        azure: "https://management.azure.com",
        logs: "https://api.loganalytics.io",
        outlook: "https://outlook.office365.com",
        vault: ("vault.azure.net", "https://vault.azure.net"),
    },
    Endpoints {
        cloud: Cloud::GccHigh,
        name: "gcc_high",
        authority: "https://login.microsoftonline.us",
        graph: "https://graph.microsoft.us",
        mde: Some(("https://api-gov.securitycenter.microsoft.us", "https://api-gov.securitycenter.microsoft.us")),
        azure: "https://management.usgovcloudapi.net",
        logs: "https://api.loganalytics.us",
        outlook: "https://outlook.office365.us",
        vault: ("vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net"),
    },
    Endpoints {
        cloud: Cloud::Dod,
        name: "dod",
        authority: "https://login.microsoftonline.us",
        graph: "https://dod-graph.microsoft.us",
        mde: Some(("https://api-gov.securitycenter.microsoft.us", "https://api-gov.securitycenter.microsoft.us")),
        azure: "https://management.usgovcloudapi.net",
        logs: "https://api.loganalytics.us",
        outlook: "https://webmail.apps.mil",
        vault: ("vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net"),
    },
    Endpoints {
        cloud: Cloud::China,
        name: "china",
        authority: "https://login.chinacloudapi.cn",
        graph: "https://microsoftgraph.chinacloudapi.cn",
        mde: None,
        azure: "https://management.chinacloudapi.cn",
        logs: "https://api.loganalytics.azure.cn",
        outlook: "https://partner.outlook.cn",
        vault: ("vault.azure.cn", "https://vault.azure.cn"),
    },
];

impl Cloud {
    pub fn endpoints(self) -> &'static Endpoints {
        let [global, ..] = &CLOUDS;
        CLOUDS.iter().find(|row| row.cloud == self).unwrap_or(global)
    }

    /// The cloud of a host, by the services that only it has; `None` for a host that tells nothing.
    pub fn of(host: &str) -> Option<Cloud> {
        let host = host.to_ascii_lowercase();
        let ends = |suffix: &str| host == suffix || host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
        // GCC first: its Defender for Endpoint is below the suffix of GCC High.
        [
            (Cloud::Gcc, "api-gcc.securitycenter.microsoft.us"),
            (Cloud::Dod, "dod-graph.microsoft.us"),
            (Cloud::Dod, "apps.mil"),
            (Cloud::GccHigh, "securitycenter.microsoft.us"),
            (Cloud::GccHigh, "graph.microsoft.us"),
            (Cloud::GccHigh, "usgovcloudapi.net"),
            (Cloud::GccHigh, "office365.us"),
            (Cloud::China, "chinacloudapi.cn"),
            (Cloud::China, "azure.cn"),
            (Cloud::China, "outlook.cn"),
        ]
        .iter()
        .find(|(_, suffix)| ends(suffix))
        .map(|(cloud, _)| *cloud)
    }

    /// Where a service is, if one host serves all tenants of the cloud.
    pub fn base_url(self, kind: ConnectionKind) -> Option<&'static str> {
        match kind {
            ConnectionKind::Mde => self.endpoints().mde.map(|(base, _)| base),
            ConnectionKind::Graph => Some(self.endpoints().graph),
            _ => None,
        }
    }

    /// What tokens for a service are asked for; `None` where only the configuration can tell.
    pub fn scope(self, kind: ConnectionKind) -> Option<String> {
        let row = self.endpoints();
        let resource = match kind {
            ConnectionKind::Mde => row.mde?.1,
            ConnectionKind::Graph => row.graph,
            ConnectionKind::CloudApps => CLOUD_APPS,
            ConnectionKind::Azure => row.azure,
            ConnectionKind::Email => row.outlook,
            ConnectionKind::LogAnalytics => row.logs,
            ConnectionKind::Teams | ConnectionKind::Http | ConnectionKind::Own(_) => return None,
        };
        Some(format!("{resource}/.default"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cloud_is_known_by_the_hosts_that_only_it_has() {
        for row in &CLOUDS {
            let host = |url: &str| url.trim_start_matches("https://").to_owned();
            let own = [Some(row.graph), row.mde.map(|(base, _)| base), Some(row.outlook)];
            for url in own.into_iter().flatten() {
                let shared = CLOUDS
                    .iter()
                    .filter(|it| it.graph == url || it.outlook == url || it.mde.is_some_and(|(base, _)| base == url));
                if shared.count() == 1 && row.cloud != Cloud::Global {
                    assert_eq!(Cloud::of(&host(url)), Some(row.cloud), "{url}");
                }
            }
        }
        for neutral in ["graph.microsoft.com", "127.0.0.1", "evil-graph.microsoft.us.example", "xgraph.microsoft.us"] {
            assert_eq!(Cloud::of(neutral), None, "{neutral}");
        }
        assert_eq!(Cloud::of("contoso.vault.azure.cn"), Some(Cloud::China));
    }
}
