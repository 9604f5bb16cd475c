//! Chooses what issues the probe tokens of the service.

use std::sync::Arc;

use super::{
    evidence::{LIFETIME, shown_keys},
    tokens,
};
use crate::{
    config::{ExchangeConfig, IssuerConfig, SourceConfig, VerifyConfig},
    control::TokenRequest,
    core::{
        entra::{Exchange, Flow},
        jose::{issuer::Issuer, token::UnverifiedToken},
        service_account::ServiceAccount,
        text::{ErrorReport, redaction::error_line},
        verification::{ApiServerView, Expectation, Question},
    },
    http_client::Trust,
    kubernetes::Access,
    reconcile::{
        exchange_probe::ExchangeProber,
        probe::{ProbeToken, Prober, Tokens},
    },
    relying_party::Reach,
    signer::Node,
    source::api_server::ApiServer,
    token_endpoint::TokenEndpoint,
};

/// Namespace and name of the probe's service account; it need not exist in a cluster.
const OWN_ACCOUNT: &str = "signpost";

/// The network reach for reading what relying parties of an issuer read.
pub(super) fn reach(config: &IssuerConfig) -> Reach {
    Reach::of(&config.issuer, config.verify.as_ref().is_some_and(|verify| verify.allow_private))
}

/// The settings of a probe, before the signing node is known.
pub(super) struct Probing {
    issuer: Issuer,
    config: VerifyConfig,
    reach: Reach,
    /// The API server, and the service account to request tokens for; `None` where there is none.
    cluster: Option<(Access, Option<ServiceAccount>)>,
}

impl Probing {
    pub(super) fn of(config: &IssuerConfig) -> Option<Self> {
        let verify = config.verify.clone()?;
        let cluster = config.sources.iter().find_map(|source| match source {
            SourceConfig::ApiServer(source) => {
                let account = verify.service_account.clone().or_else(|| source.probe.clone());
                Some((Access::new(source.kubeconfig.clone(), source.context.clone()), account))
            }
            _ => None,
        });
        Some(Self { issuer: config.issuer.clone(), config: verify, reach: reach(config), cluster })
    }

    /// Adds the node that signs in this process, if there is one.
    pub(super) fn prober(self, node: Option<&Arc<Node>>) -> Option<Prober> {
        let tokens = self.tokens(node)?;
        let Self { issuer, config, reach, cluster: _ } = self;
        let (party, cloud) = (config.party(), config.cloud());
        let VerifyConfig { every, audience, ca_file, .. } = config;
        let expected =
            Expectation { issuer: Some(issuer.to_string()), subject: None, audience: Some(audience) };
        Some(Prober {
            tokens,
            question: Question { party, cloud, expected },
            reach,
            ca_file: ca_file.map(Into::into),
            every: every.get(),
        })
    }

    /// What asks Microsoft Entra, if it is to be asked.
    pub(super) fn exchange_prober(&self, node: Option<&Arc<Node>>) -> Option<ExchangeProber> {
        let VerifyConfig { every, ca_file, exchange, .. } = &self.config;
        let ExchangeConfig { tenant, client_id, authority, scope } = &**exchange.as_ref()?;
        let cloud = self.config.cloud();
        let usual = format!("https://{}", cloud.login_hosts()[0]);
        let authority = authority.as_deref().unwrap_or(&usual).trim_end_matches('/');
        let exchange = Exchange {
            cloud,
            authority: authority.to_owned(),
            tenant: tenant.to_string(),
            client_id: client_id.to_string(),
            scope: scope.as_deref().unwrap_or(cloud.graph_scope()).to_owned(),
            flow: Flow::Workload,
        };
        let trust = ca_file.clone().map_or(Trust::System, |path| Trust::Also(path.into()));
        let endpoint =
            TokenEndpoint::new(&exchange.endpoint(), trust).expect("the configuration was checked");
        Some(ExchangeProber { tokens: self.tokens(node)?, exchange, endpoint, every: every.get() })
    }

    fn tokens(&self, node: Option<&Arc<Node>>) -> Option<Tokens> {
        let VerifyConfig { audience, service_account, .. } = &self.config;
        match (node, &self.cluster) {
            (Some(node), _) => Some(of_node(Arc::clone(node), service_account.as_ref(), audience.clone())),
            (None, Some((access, account))) => {
                Some(of_cluster(access.clone(), account.clone(), audience.clone()))
            }
            (None, None) => None,
        }
    }
}

fn of_node(node: Arc<Node>, account: Option<&ServiceAccount>, audience: String) -> Tokens {
    let named = |part: fn(&ServiceAccount) -> &str| account.map_or(OWN_ACCOUNT, part).to_owned();
    let request = Arc::new(TokenRequest {
        issuer: None,
        namespace: named(ServiceAccount::namespace),
        service_account: named(ServiceAccount::name),
        audiences: vec![audience],
        lifetime: None,
    });
    Box::new(move || {
        let (node, request) = (Arc::clone(&node), Arc::clone(&request));
        Box::pin(async move {
            let token = tokens::signed(&node, &request).await;
            let token = token.map_err(|error| ErrorReport { error: error_line(&error), hint: None })?;
            Ok(ProbeToken { token, api_server: None })
        })
    })
}

fn of_cluster(access: Access, account: Option<ServiceAccount>, audience: String) -> Tokens {
    let cluster = Arc::new((ApiServer::new("kubernetes".to_owned(), access), account, [audience]));
    Box::new(move || {
        let cluster = Arc::clone(&cluster);
        Box::pin(async move {
            let (server, account, audiences) = &*cluster;
            minted(server, account.as_ref(), audiences).await
        })
    })
}

async fn minted(
    server: &ApiServer,
    account: Option<&ServiceAccount>,
    audiences: &[String],
) -> Result<ProbeToken, ErrorReport> {
    let account = match account {
        Some(account) => account.clone(),
        None => server.service_account().await?.ok_or_else(nobody)?,
    };
    let token = server.mint(&account, audiences, Some(LIFETIME)).await?;
    let read = UnverifiedToken::parse(token.as_str());
    let kids = shown_keys(server, read.as_ref().ok().as_slice()).await?;
    let view = ApiServerView { kids, minted: true, takes_for_its_own: None };
    Ok(ProbeToken { token, api_server: Some(view) })
}

/// A kubeconfig user has no service account of their own.
fn nobody() -> ErrorReport {
    ErrorReport {
        error: "this process does not run as a service account of the cluster".to_owned(),
        hint: Some("set `verify.service_account`".to_owned()),
    }
}
