//! Rules of the issuer itself: whether relying parties can use its URL.

use url::Url;

use super::{
    BEFORE_THE_OTHER, Basis, Check, CheckResult, CheckStage, Context, ENTRA, EVERYBODY, Error,
    NOT_KUBERNETES, Note, OUTSIDE, REPORTS, Warning, violated,
};

use crate::core::{
    jose::{issuer::Issuer, token::UnverifiedToken},
    verification::{
        Party,
        address::{is_default_issuer, is_public_url},
    },
};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "ISS-URL",
        rule: "`iss` is a URL: without one, Entra treats the token as signed by the application itself",
        level: Error,
        parties: EVERYBODY,
        codes: &[700_021],
        basis: Basis::inferred("MSAL test constants"),
        step: CheckStage::Claims,
        judge: is_a_url,
    },
    Check {
        id: "ISS-OWN",
        rule: "`iss` is not the client ID: then the application itself has signed, with a registered certificate",
        level: Error,
        parties: ENTRA,
        codes: &[700_027, 700_023, 50_048],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Claims,
        judge: is_its_own,
    },
    Check {
        id: "ISS-SYNTAX",
        rule: "the issuer is an https URL in normal form, without user, query and fragment",
        level: Error,
        parties: NOT_KUBERNETES,
        codes: &[501_661],
        basis: Basis::inferred("Kubernetes, openidmetadata.go"),
        step: CheckStage::Metadata,
        judge: is_usable,
    },
    Check {
        id: "ISS-PUBLIC",
        rule: "its host is public: no loopback, no private address, no name of a cluster",
        level: Error,
        parties: OUTSIDE,
        codes: &[501_661, 90_061, 50_166],
        basis: Basis::observed("azure-workload-identity #605, Azure/login #283"),
        step: CheckStage::Metadata,
        judge: is_public,
    },
    Check {
        id: "ISS-LOCAL",
        rule: "a non-public host is fine for local relying parties; the clouds refuse it",
        level: Note,
        parties: &[Party::Local],
        codes: &[],
        basis: Basis::inferred("workload identity federation"),
        step: CheckStage::Metadata,
        judge: is_public_anyway,
    },
    Check {
        id: "ISS-PORT",
        rule: "it has no port; whether Entra and Google accept one is not documented",
        level: Warning,
        parties: &[Party::Entra, Party::Gcp],
        codes: &[],
        basis: Basis::inferred("not documented; AWS forbids it"),
        step: CheckStage::Metadata,
        judge: has_no_port,
    },
];

/// The issuer of the token, if it is not a URL at all.
fn no_url<'a>(case: &Context<'a>) -> Option<&'a str> {
    let issuer = case.token().map_or_else(|| case.issuer(), UnverifiedToken::issuer)?;
    (!issuer.contains("://") && !case.has_own_assertion()).then_some(issuer)
}

fn is_a_url(case: &Context) -> CheckResult {
    no_url(case).map_or(CheckResult::NotApplicable, |issuer| {
        violated(
            format!("`iss` is `{issuer}`"),
            "an https URL",
            format!("give kube-apiserver the URL under which the keys are published {BEFORE_THE_OTHER}"),
        )
    })
}

/// An assertion that an application signs itself is taken if its certificate is registered.
fn is_its_own(case: &Context) -> CheckResult {
    let Some(token) = case.token().filter(|_| case.has_own_assertion()) else {
        return CheckResult::NotApplicable;
    };
    let is_endpoint = |audience: &&str| Url::parse(audience).is_ok_and(|it| it.path().contains("/v2.0"));
    let seen = "`iss` is the client ID: Entra takes it for an assertion that the application signed itself";
    let fix =
        "pass the token of the cluster; or register the certificate that signed it with the application";
    if token.subject() != token.issuer() {
        return violated("`sub` is not the client ID, as `iss` is", "the client ID in both", fix)
            .with_codes(&[50_048]);
    }
    if !token.audiences().iter().any(is_endpoint) {
        return violated(seen, "`aud` of the tenant's token endpoint", fix).with_codes(&[700_023]);
    }
    violated(seen, "a token of the cluster", fix)
        .with_codes(&[700_027])
        .unless("the certificate that signed it is registered with the application")
}

fn is_usable(case: &Context) -> CheckResult {
    let issuer = case.issuer().filter(|issuer| no_url(case) != Some(*issuer) && !case.has_own_assertion());
    match issuer.map(Issuer::parse) {
        Some(Err(error)) if case.issuer().is_some_and(|issuer| issuer.trim() == issuer) => violated(
            error.to_string(),
            "an https URL without user, query and fragment",
            format!("give kube-apiserver a usable issuer {BEFORE_THE_OTHER}"),
        ),
        _ => CheckResult::NotApplicable,
    }
}

/// The issuer, if it is private and not the default of kube-apiserver, which has its own rule.
fn inside<'a>(case: &Context<'a>) -> Option<&'a str> {
    let issuer = case.issuer().filter(|issuer| !is_default_issuer(issuer))?;
    (Issuer::parse(issuer).is_ok() && !is_public_url(issuer)).then_some(issuer)
}

fn is_public(case: &Context) -> CheckResult {
    inside(case).map_or(CheckResult::NotApplicable, |issuer| {
        violated(
            format!("`{issuer}` is not reachable from the internet"),
            "a public host name",
            format!("publish under a public https URL, and give kube-apiserver that {BEFORE_THE_OTHER}"),
        )
    })
}

fn is_public_anyway(case: &Context) -> CheckResult {
    inside(case).map_or(CheckResult::NotApplicable, |issuer| {
        // Only this machine has tokens of a loopback issuer.
        let fix = if Issuer::parse(issuer).is_ok_and(|issuer| issuer.is_loopback()) {
            "before you use it with a cloud, publish under a public https URL and make that the issuer".to_owned()
        } else {
            format!(
                "before you use it with a cloud, publish under a public https URL, and give kube-apiserver that {BEFORE_THE_OTHER}"
            )
        };
        violated(
            format!("`{issuer}` is not reachable from the internet"),
            "a public host name, for Microsoft Entra, AWS and Google",
            fix,
        )
    })
}

fn has_no_port(case: &Context) -> CheckResult {
    match case.issuer().and_then(|issuer| Url::parse(issuer).ok()).and_then(|url| url.port()) {
        Some(port) => violated(
            format!("the issuer names port {port}"),
            "no port (443)",
            format!(
                "serve it at port 443, and give kube-apiserver the URL without a port {BEFORE_THE_OTHER}"
            ),
        ),
        None => CheckResult::NotApplicable,
    }
}
