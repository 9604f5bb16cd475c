//! Rules of tokens that Entra itself issued: those of managed identities, and those made for an exchange, may be
//! presented like the cluster's.

use serde_json::Value;
use url::Url;

use super::{
    Basis, Check, CheckResult, CheckStage, Context, ENTRA, Error, REPORTS,
    credential::{listed, nearest},
    violated,
};
use crate::core::{
    entra::{Credential, ExchangeSubject, encoded_guid, is_guid},
    jose::token::UnverifiedToken,
    verification::Cloud,
};

/// Hosts of Entra itself besides those of its clouds (workload identity federation considerations).
const HOSTS: [&str; 3] = ["login.windows.net", "login.microsoft.com", "sts.windows.net"];
const VERSION_1: &str = "https://sts.windows.net/";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "ISS-ENTRA",
        rule: "a token that Entra issued is of a managed identity of the same tenant, or made for an exchange",
        level: Error,
        parties: ENTRA,
        codes: &[700_222, 700_231, 700_227, 700_238, 700_236, 700_229, 700_226, 700_263, 70_052],
        basis: Basis::observed(REPORTS),
        step: CheckStage::EntraToken,
        judge: may_be_presented,
    },
    Check {
        id: "AGENT-PARENT",
        rule: "the assertion of an agent identity is a token that its blueprint got for it, in its tenant",
        level: Error,
        parties: ENTRA,
        codes: &[700_211, 7_002_134, 7_002_111, 7_002_137],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Issuer,
        judge: is_of_the_blueprint,
    },
];

/// Whether Entra issued the token, as its issuer says.
pub(super) fn is_of_entra(token: &UnverifiedToken) -> bool {
    token.issuer().is_some_and(is_issuer_of_entra)
}

fn host(issuer: &str) -> Option<String> {
    Some(Url::parse(issuer.trim()).ok()?.host_str()?.to_owned())
}

fn is_at(host: &str, of: &str) -> bool {
    host.strip_suffix(of).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The cloud of an issuer of Entra, if its host tells it.
fn cloud_of(issuer: &str) -> Option<Cloud> {
    let host = host(issuer)?;
    Cloud::ALL.into_iter().find(|cloud| cloud.login_hosts().iter().any(|of| is_at(&host, of)))
}

fn is_shared(issuer: &str) -> bool {
    host(issuer).is_some_and(|host| HOSTS.iter().any(|of| is_at(&host, of)))
}

/// The tenant in an issuer of Entra.
fn tenant_of(issuer: &str) -> Option<String> {
    let url = Url::parse(issuer).ok()?;
    url.path_segments()?.next().filter(|tenant| !tenant.is_empty()).map(str::to_owned)
}

/// Whether it was made for an exchange: by a blueprint, a service connection of Azure DevOps, a bot.
fn is_made_for_an_exchange(token: &UnverifiedToken) -> bool {
    token.subject().is_some_and(|subject| subject.starts_with("/eid1/"))
}

fn may_be_presented(case: &Context) -> CheckResult {
    let Some(token) = case.token().filter(|token| is_of_entra(token)) else {
        return CheckResult::NotApplicable;
    };
    let issuer = token.issuer().unwrap_or_default();
    let claim = |name: &str| token.claims().get(name).and_then(Value::as_str);
    let has = |name: &str| token.claims().contains_key(name);
    let refused = |seen: &str, codes: &'static [u32]| {
        violated(
            seen,
            "a token of the cluster, or of a managed identity of the same tenant",
            "pass the token that is projected into the pod, not one that was exchanged for it",
        )
        .with_codes(codes)
    };
    let home = case.home_tenant();
    let other_tenant =
        tenant_of(issuer).zip(home).filter(|(of, home)| is_guid(of) && is_guid(home) && of != home);
    let other_cloud = cloud_of(issuer).filter(|cloud| *cloud != case.question.cloud);
    if has("xms_ficinfo") && !is_made_for_an_exchange(token) {
        return refused(
            "the token was itself obtained by a federated credential: it has `xms_ficinfo`",
            &[700_231],
        );
    }
    if issuer.starts_with(VERSION_1) {
        return refused(
            "a token of Entra of version 1: its issuer is `sts.windows.net`",
            &[700_227, 700_222],
        );
    }
    if let Some(cloud) = other_cloud.filter(|_| has("xms_mirid")) {
        return refused(&format!("a managed identity of the cloud `{}`", cloud.word()), &[700_238]);
    }
    if let Some((of, home)) = other_tenant.filter(|_| other_cloud.is_none()) {
        return refused(
            &format!("a token of Entra in tenant `{of}`; the identity is in `{home}`"),
            &[700_236, 700_222],
        );
    }
    if claim("idtyp") == Some("user") || has("scp") {
        return refused("a token of a user", &[700_229]);
    }
    // How the client proved itself: a managed identity by a certificate (2).
    let proof = claim("azpacr").or(claim("appidacr"));
    if !has("xms_mirid") && !is_made_for_an_exchange(token) && matches!(proof, Some("0" | "1")) {
        return refused(
            "a token of an ordinary application: it proved itself with a secret",
            &[700_226, 700_222],
        );
    }
    let is_twin = |one: &Credential, other: &Credential| {
        one.subject == other.subject
            && one.issuer.starts_with(VERSION_1) != other.issuer.starts_with(VERSION_1)
    };
    let is_named_twice = nearest(case).filter(|it| it.issuer == issuer).is_some_and(|it| {
        listed(case).iter().any(|other| is_twin(it, other) && is_issuer_of_entra(&other.issuer))
    });
    if case.identity().is_some_and(|it| it.is_multi_tenant)
        && is_made_for_an_exchange(token)
        && !case.is_agent_identity()
    {
        return violated(
            "the application is for several tenants",
            "one tenant",
            "use a managed identity, or a single-tenant application",
        )
        .with_codes(&[70_052]);
    }
    if is_named_twice {
        return refused("two credentials name its subject, under both issuers of the tenant", &[700_263]);
    }
    if case.is_managed_identity() && !is_made_for_an_exchange(token) {
        return refused(
            "the identity is a managed one: Microsoft supports no credential for Entra's tokens on it",
            &[700_222],
        )
        .unless("Entra takes it all the same");
    }
    let is_trusted = case.evidence.credentials.is_some() || case.question.expected.issuer.is_some();
    if !is_trusted && !case.is_agent_identity() {
        return refused(
            &format!("the issuer is `{issuer}`: a token of Entra itself"),
            &[700_222, 700_226, 700_236],
        )
        .unless("the identity has a credential for it");
    }
    match tenant_of(issuer).filter(|of| home.is_none() && is_guid(of)) {
        Some(of) => refused(&format!("a token of Entra in tenant `{of}`"), &[700_236, 700_222])
            .unless("the identity is in that tenant"),
        None => CheckResult::NotApplicable,
    }
}

pub(super) fn is_issuer_of_entra(issuer: &str) -> bool {
    is_shared(issuer) || cloud_of(issuer).is_some()
}

/// An agent identity has no credentials of its own: Entra takes what its blueprint got for it.
fn is_of_the_blueprint(case: &Context) -> CheckResult {
    let (Some(token), Some(client)) = (case.token(), case.client_id()) else {
        return CheckResult::NotApplicable;
    };
    let refused = |seen: String, codes: &'static [u32]| {
        violated(
            seen,
            "a token for `api://AzureADTokenExchange` that the blueprint requested with `fmi_path` of this agent identity",
            "request it as the blueprint, in the tenant of the agent identity, with `fmi_path`",
        )
        .with_codes(codes)
    };
    let parts = token.subject().filter(|_| is_of_entra(token)).and_then(ExchangeSubject::parse);
    if case.is_blueprint() && parts.is_some_and(|it| encoded_guid(client).as_deref() == Some(it.application))
    {
        return refused(
            "a token that this blueprint got itself: it is for the agent identity".to_owned(),
            &[7_002_111],
        );
    }
    if !case.is_agent_identity() {
        return CheckResult::NotApplicable;
    }
    let issuer = token.issuer().unwrap_or_default();
    let is_elsewhere = match tenant_of(issuer).zip(case.home_tenant()) {
        Some((of, home)) => of != home,
        None => !is_of_entra(token),
    };
    if is_elsewhere || issuer.starts_with(VERSION_1) || !is_of_entra(token) {
        return refused(format!("`iss` is `{issuer}`"), &[700_211]);
    }
    match parts {
        Some(it) if it.path != client => {
            refused(format!("it is for the agent identity `{}`, not for `{client}`", it.path), &[7_002_137])
        }
        Some(it)
            if case
                .blueprint()
                .is_some_and(|known| encoded_guid(known).as_deref() != Some(it.application)) =>
        {
            refused("it is of another blueprint".to_owned(), &[7_002_134])
        }
        _ => CheckResult::NotApplicable,
    }
}
