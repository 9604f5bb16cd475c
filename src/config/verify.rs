//! The token that is periodically verified against the public documents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use super::{
    duration::{DAY, MINUTE, Seconds},
    issuer::IssuerConfig,
    problem::{Fault, Problems},
    section::Section,
    source::SourceConfig,
    value::{AbsolutePath, Authority, EntraId, Scope, Tenant},
};
use crate::core::{
    jose::issuer::Issuer,
    service_account::ServiceAccount,
    verification::{Cloud, Party},
};

/// The default audience of AWS.
const AWS_AUDIENCE: &str = "sts.amazonaws.com";

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VerifyConfig {
    /// Time between two verifications; at most a minute while tokens would not be accepted.
    #[schemars(example = "10m")]
    pub every: Seconds<1, DAY>,
    /// Relying party whose rules apply; by default `entra`, or `local` for an issuer on this machine.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"aws")]
    party: Option<Party>,
    /// Microsoft cloud, only for `entra`; by default `public`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"usgov")]
    cloud: Option<Cloud>,
    /// Audience of the token. By default: what Entra recommends, or `sts.amazonaws.com`; Google and `kubernetes`
    /// have no default.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(example = "api://AzureADTokenExchange")]
    pub audience: String,
    /// Service account of the token. By default: the `probe` of the source, else this process's own, and
    /// `signpost/signpost` if a node in this process signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "signpost/signpost")]
    pub service_account: Option<ServiceAccount>,
    /// Allow addresses that are not reachable from the internet, for test clusters.
    #[schemars(example = false)]
    pub allow_private: bool,
    /// PEM file of additional trusted certificate authorities, for test clusters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/etc/signpost/ca.crt")]
    pub ca_file: Option<AbsolutePath>,
    /// Exchange the token at Microsoft Entra too, as a workload does. Off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = json!({
        "tenant": "contoso.onmicrosoft.com", "client_id": "85075aa5-1d73-42de-812a-95348218e4b2",
    }))]
    pub exchange: Option<Box<ExchangeConfig>>,
}

/// Who asks Microsoft Entra for a token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExchangeConfig {
    /// Tenant: its id or a domain.
    #[schemars(example = "contoso.onmicrosoft.com")]
    pub tenant: Tenant,
    /// Client id of an application, managed identity or agent blueprint with a federated credential for the
    /// token. It needs no permissions.
    #[schemars(example = "85075aa5-1d73-42de-812a-95348218e4b2")]
    pub client_id: EntraId,
    /// Where the token is sent. By default: Entra of the `cloud`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "https://login.microsoftonline.com")]
    pub authority: Option<Authority>,
    /// Scope of the token that is asked for. By default: Microsoft Graph of the `cloud`, `/.default`, which every
    /// tenant has, and which gives nothing to an application without permissions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "https://graph.microsoft.com/.default")]
    pub scope: Option<Scope>,
}

impl Default for VerifyConfig {
    fn default() -> Self {
        Self {
            every: Seconds::new(10 * MINUTE),
            party: None,
            cloud: None,
            audience: String::new(),
            service_account: None,
            allow_private: false,
            ca_file: None,
            exchange: None,
        }
    }
}

impl VerifyConfig {
    #[must_use]
    pub fn party(&self) -> Party {
        self.party.unwrap_or(Party::Entra)
    }

    #[must_use]
    pub fn cloud(&self) -> Cloud {
        self.cloud.unwrap_or_default()
    }

    /// Derives what follows from the issuer.
    fn complete(&mut self, issuer: Option<&Issuer>) {
        let usual = if issuer.is_some_and(Issuer::is_loopback) { Party::Local } else { Party::Entra };
        let party = *self.party.get_or_insert(usual);
        if party == Party::Entra {
            self.cloud.get_or_insert_default();
        }
        if self.audience.is_empty() {
            let usual = if party == Party::Aws { AWS_AUDIENCE } else { self.cloud().audience() };
            usual.clone_into(&mut self.audience);
        }
    }
}

/// Derives what the file leaves out, and checks it against the sources.
pub(super) fn check(
    config: &mut IssuerConfig,
    named: Option<&Issuer>,
    issuer: &Section<'_>,
    problems: &mut Problems,
) {
    let (Some(verify), Some(at)) = (&mut config.verify, issuer.section("verify")) else { return };
    verify.complete(named);
    let issues_tokens =
        |source: &SourceConfig| matches!(source, SourceConfig::ApiServer(_) | SourceConfig::Embedded);
    if issuer.is_read("sources") && !config.sources.iter().any(issues_tokens) {
        let fault =
            Fault::new("no source issues tokens, expected `api-server` or `embedded` among `sources`");
        let hint = "remove `verify`, and run `signpost verify` where tokens are";
        issuer.refuse_key("verify", fault.hint(hint), problems);
    }
    if !problems.none_at(&at, &["for"]) {
        return;
    }
    let party = verify.party();
    if party != Party::Entra && at.has("cloud") {
        let fault = Fault::new(format!("is given for `{}`, expected only for `entra`", party.word()));
        at.refuse_key("cloud", fault, problems);
    }
    if let Some(exchange) = &verify.exchange {
        let asked = exchange
            .authority
            .as_deref()
            .and_then(|authority| Cloud::of_host(Url::parse(authority).ok()?.host_str()?));
        let fault = match asked {
            _ if !matches!(party, Party::Entra | Party::Local) => {
                let fault = format!("is given for `{}`, expected only for `entra`", party.word());
                Some(("exchange", Fault::new(fault)))
            }
            Some(asked) if asked != verify.cloud() => {
                let fault = format!(
                    "has the Entra of cloud `{}`, expected that of cloud `{}`",
                    asked.word(),
                    verify.cloud().word()
                );
                Some(("exchange", Fault::new(fault).hint("write the `cloud` of the tenant")))
            }
            _ => None,
        };
        if let Some((key, fault)) = fault {
            at.refuse_key(key, fault, problems);
        }
    }
    let missing = match party {
        Party::Gcp => Some((
            "is missing, expected one that the provider of the pool allows",
            "for example `audience: //iam.googleapis.com/projects/1/locations/global/\
             workloadIdentityPools/POOL/providers/PROVIDER`",
        )),
        Party::Kubernetes => Some((
            "is missing, expected one that the other cluster allows",
            "write one of `audiences` in its AuthenticationConfiguration",
        )),
        Party::Entra | Party::Aws | Party::Local => None,
    };
    if let Some((fault, hint)) = missing.filter(|_| !at.has("audience")) {
        at.refuse_key("audience", Fault::new(fault).hint(hint), problems);
    }
}
