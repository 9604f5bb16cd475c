//! The question: by whose rules, and what the operator expects.

use serde::{Deserialize, Serialize};

use crate::core::entra::Cloud;

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
