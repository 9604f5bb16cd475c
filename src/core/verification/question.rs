//! What is asked: by whose rules, and what the operator says that should be.

use serde::Serialize;

/// By whose rules a token is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Party {
    /// Microsoft Entra.
    Entra,
    /// IAM of Amazon Web Services.
    Aws,
    /// Workload identity federation of Google Cloud.
    Gcp,
    /// The API server of another cluster that lets in whom the issuer vouches for.
    Kubernetes,
    /// Whoever is on this machine or in this cluster and follows OpenID Connect.
    Local,
}

impl Party {
    pub const ALL: [Self; 5] = [Self::Entra, Self::Aws, Self::Gcp, Self::Kubernetes, Self::Local];
    /// Those that read the issuer from the internet.
    pub const OUTSIDE: [Self; 3] = [Self::Entra, Self::Aws, Self::Gcp];

    /// As flags and files write it.
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

    /// As people know it.
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

/// A cloud of Microsoft, each with its own Entra.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    #[default]
    Public,
    UsGov,
    China,
}

impl Cloud {
    pub const ALL: [Self; 3] = [Self::Public, Self::UsGov, Self::China];

    /// As flags and files write it.
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

    /// The hosts under which it gives tokens.
    #[must_use]
    pub fn login_hosts(self) -> &'static [&'static str] {
        match self {
            Self::Public => &["login.microsoftonline.com"],
            Self::UsGov => &["login.microsoftonline.us"],
            Self::China => &["login.partner.microsoftonline.cn", "login.chinacloudapi.cn"],
        }
    }
}

/// What the operator says that stands in the federated credential, byte for byte.
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
