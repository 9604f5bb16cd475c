//! The clouds of Microsoft.

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// A Microsoft cloud; each has its own Entra.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    #[default]
    Public,
    UsGov,
    China,
}

impl Cloud {
    pub const ALL: [Self; 3] = [Self::Public, Self::UsGov, Self::China];

    /// The name in flags and files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::UsGov => "usgov",
            Self::China => "china",
        }
    }

    /// The audience that its Entra recommends for federated tokens.
    #[must_use]
    pub fn audience(self) -> &'static str {
        match self {
            Self::Public => "api://AzureADTokenExchange",
            Self::UsGov => "api://AzureADTokenExchangeUSGov",
            Self::China => "api://AzureADTokenExchangeChina",
        }
    }

    /// The hosts of its token endpoint.
    #[must_use]
    pub fn login_hosts(self) -> &'static [&'static str] {
        match self {
            Self::Public => &["login.microsoftonline.com"],
            Self::UsGov => &["login.microsoftonline.us"],
            Self::China => &["login.partner.microsoftonline.cn", "login.chinacloudapi.cn"],
        }
    }

    /// The scope of its Microsoft Graph.
    #[must_use]
    pub fn graph_scope(self) -> &'static str {
        match self {
            Self::Public => "https://graph.microsoft.com/.default",
            Self::UsGov => "https://graph.microsoft.us/.default",
            Self::China => "https://microsoftgraph.chinacloudapi.cn/.default",
        }
    }

    /// The host of its Microsoft Graph.
    #[must_use]
    pub fn graph_host(self) -> &'static str {
        self.graph_scope().trim_start_matches("https://").trim_end_matches("/.default")
    }

    /// The host of its Azure Resource Manager. Source: the cloud constants of the Azure SDKs.
    #[must_use]
    pub fn resource_manager_host(self) -> &'static str {
        match self {
            Self::Public => "management.azure.com",
            Self::UsGov => "management.usgovcloudapi.net",
            Self::China => "management.chinacloudapi.cn",
        }
    }

    /// The cloud whose Entra has this host.
    #[must_use]
    pub fn of_host(host: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cloud| cloud.login_hosts().contains(&host))
    }
}

/// Whether a URL is an address of this machine, as a test has it. A name may lead anywhere.
#[must_use]
pub fn is_on_this_machine(url: &Url) -> bool {
    let is_local = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        _ => false,
    };
    is_local && matches!(url.scheme(), "http" | "https")
}

/// Whether tokens may be sent to this URL: to Entra by https, or to an address of this machine.
#[must_use]
pub fn may_receive_tokens(url: &Url) -> bool {
    let is_entra = url.scheme() == "https"
        && url.port().is_none()
        && url.host_str().is_some_and(|host| Cloud::of_host(host).is_some());
    let has_user = !url.username().is_empty() || url.password().is_some();
    !has_user && (is_entra || is_on_this_machine(url))
}
