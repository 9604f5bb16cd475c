//! The question: by whose rules, and what the operator expects.

use serde::{Deserialize, Serialize};

/// The relying party whose rules apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Party {
    /// Microsoft Entra.
    Entra,
    /// IAM of Amazon Web Services.
    Aws,
    /// Workload identity federation of Google Cloud.
    Gcp,
    /// The API server of another cluster that trusts the issuer.
    Kubernetes,
    /// Any relying party on this machine or in this cluster that follows OpenID Connect.
    Local,
}

impl Party {
    pub const ALL: [Self; 5] = [Self::Entra, Self::Aws, Self::Gcp, Self::Kubernetes, Self::Local];
    /// The parties that read the issuer from the internet.
    pub const OUTSIDE: [Self; 3] = [Self::Entra, Self::Aws, Self::Gcp];

    /// The name in flags and files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Entra => "entra",
            Self::Aws => "aws",
            Self::Gcp => "gcp",
            Self::Kubernetes => "kubernetes",
            Self::Local => "local",
        }
    }

    /// The name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Entra => "Microsoft Entra",
            Self::Aws => "AWS",
            Self::Gcp => "Google Cloud",
            Self::Kubernetes => "the API server of another cluster",
            Self::Local => "a local relying party",
        }
    }
}

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
}

/// The values that the operator expects in the federated credential, byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    pub issuer: Option<String>,
    pub subject: Option<String>,
    pub audience: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Question {
    pub party: Party,
    pub cloud: Cloud,
    pub expected: Expectation,
}
