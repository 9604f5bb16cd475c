//! Rules of the federated credential: one given by flags, or all of an identity.

use jiff::SignedDuration;
use url::Url;

use super::{
    BEFORE_THE_OTHER, Basis, Check, CheckResult, CheckStage, Context, ENTRA, EVERYBODY, Error, REPORTS,
    differs, holds, quoted, violated,
};

use super::entra_token::is_of_entra;
use crate::core::{
    entra::{Expression, TOKEN_EXCHANGE},
    jose::token::UnverifiedToken,
    service_account::ServiceAccount,
    verification::{Credential, Difference, Kind},
};

/// How long parts of Entra may not know a credential. Microsoft says several minutes.
const SPREADS_WITHIN: SignedDuration = SignedDuration::from_mins(10);
/// Smallest similarity of two hosts that may be meant to be the same, of 1.
const ALIKE: f64 = 0.7;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "FIC-NONE",
        rule: "the identity has a federated credential; often it is on another application",
        level: Error,
        parties: ENTRA,
        codes: &[70_025],
        basis: Basis::documented("Azure DevOps, AADSTS errors of workload identity"),
        step: CheckStage::Credential,
        judge: there_is_one,
    },
    Check {
        id: "FIC-SLASH",
        rule: "`iss` and the issuer of the credential do not differ in a final `/`",
        level: Error,
        parties: EVERYBODY,
        codes: &[700_211],
        basis: Basis::documented("azure-workload-identity, troubleshooting"),
        step: CheckStage::Issuer,
        judge: issuer_has_the_slash,
    },
    Check {
        id: "FIC-ISS",
        rule: "`iss` is the issuer of the credential, byte for byte",
        level: Error,
        parties: EVERYBODY,
        codes: &[700_211],
        basis: Basis::documented("Azure DevOps, AADSTS errors of workload identity"),
        step: CheckStage::Issuer,
        judge: issuer_is_the_same,
    },
    Check {
        id: "FIC-AUD",
        rule: "`aud` is the audience of the credential, byte for byte",
        level: Error,
        parties: EVERYBODY,
        codes: &[700_212, 7_002_121, 700_214],
        basis: Basis::observed("answer of the token endpoint"),
        step: CheckStage::Audience,
        judge: audience_is_the_same,
    },
    Check {
        id: "FIC-CASE",
        rule: "`sub` and the subject of the credential do not differ in case",
        level: Error,
        parties: EVERYBODY,
        codes: &[7_002_138, 700_213],
        basis: Basis::observed("Azure/login #515, #517"),
        step: CheckStage::Subject,
        judge: subject_has_the_case,
    },
    Check {
        id: "FIC-SUB",
        rule: "`sub` is the subject of the credential, byte for byte",
        level: Error,
        parties: EVERYBODY,
        codes: &[700_213, 7_002_131, 7_002_137],
        basis: Basis::documented("Azure DevOps, AADSTS errors of workload identity"),
        step: CheckStage::Subject,
        judge: subject_is_the_same,
    },
    Check {
        id: "FIC-EXPR",
        rule: "the token fulfils `claimsMatchingExpression`, if no plain credential is for it",
        level: Error,
        parties: ENTRA,
        codes: &[7_002_131, 7_002_241, 700_235, 700_237, 700_233],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Subject,
        judge: the_expression_is_fulfilled,
    },
    Check {
        id: "FIC-AGE",
        rule: "the credential is older than ten minutes: parts of Entra learn of it later",
        level: Error,
        parties: ENTRA,
        codes: &[70_021, 70_025],
        basis: Basis::documented("workload identity federation considerations"),
        step: CheckStage::Credential,
        judge: is_known_everywhere,
    },
];

/// The values that the token is compared with: from flags, else the nearest credential.
struct Expected<'a> {
    issuer: Option<&'a str>,
    subject: Option<&'a str>,
    audience: Option<&'a str>,
    /// The name of their origin.
    of: String,
}

fn expected<'a>(case: &Context<'a>) -> Expected<'a> {
    let flags = &case.question.expected;
    let nearest = nearest(case).filter(|_| !is_without_credentials(case));
    Expected {
        issuer: flags.issuer.as_deref().or_else(|| nearest.map(|it| it.issuer.as_str())),
        subject: flags.subject.as_deref().or_else(|| nearest.and_then(|it| it.subject.as_deref())),
        audience: flags.audience.as_deref().or_else(|| nearest?.audiences.first().map(String::as_str)),
        of: nearest.map_or_else(
            || "the federated credential".to_owned(),
            |it| format!("the federated credential `{}`", it.name),
        ),
    }
}

pub(super) fn listed<'a>(case: &Context<'a>) -> &'a [Credential] {
    case.evidence.credentials.as_deref().unwrap_or_default()
}

/// The credential that the token is compared with last, as Entra narrows them down: those of its issuer, of
/// these those of its audience, then the most similar one.
pub(super) fn nearest<'a>(case: &Context<'a>) -> Option<&'a Credential> {
    let token = case.token()?;
    let alike = |seen: Option<&str>, expected: &str| {
        let Some(seen) = seen else { return 0 };
        match Difference::between(seen, expected).map(|difference| difference.kind()) {
            None => 4,
            Some(Kind::FinalSlash | Kind::Case | Kind::WhiteSpace | Kind::Unusual) => 2,
            Some(Kind::Other) => 0,
        }
    };
    let score = |it: &&'a Credential| {
        let is_of_issuer = token.issuer() == Some(&it.issuer);
        let is_of_audience = is_of_issuer && names_audience(case, it);
        let subject = match &it.subject {
            Some(subject) => alike(token.subject(), subject),
            None => 4 * u32::from(fulfils(token, it) == Some(true)),
        };
        let audience = it.audiences.first().map_or(0, |it| alike(token.audiences().first().copied(), it));
        (is_of_issuer, is_of_audience, 2 * (alike(token.issuer(), &it.issuer) + subject) + audience)
    };
    // `max_by_key` takes the last of equals; people expect the first.
    listed(case).iter().rev().max_by_key(score)
}

/// Whether an audience of the token is that of the credential. To tokens of Entra the token exchange is known
/// by two names.
fn names_audience(case: &Context, credential: &Credential) -> bool {
    let Some(wanted) = credential.audiences.first() else { return false };
    case.token().is_some_and(|token| {
        let found = token.audiences();
        found.contains(&wanted.as_str())
            || (is_of_entra(token)
                && wanted == case.question.cloud.audience()
                && found.contains(&TOKEN_EXCHANGE))
    })
}

/// Whether the token fulfils the expression of a flexible credential; `None`: it cannot be read.
pub(in crate::core::verification) fn fulfils(
    token: &UnverifiedToken,
    credential: &Credential,
) -> Option<bool> {
    let expression = credential.expression()?;
    Some(Expression::parse(expression)?.holds(token.claims()))
}

/// Whether Entra compares with no credential: an agent identity is trusted by what its blueprint got, an
/// application signs its own assertions, and a request may have none.
fn is_without_credentials(case: &Context) -> bool {
    let has_none = case.request().is_some_and(|request| request.field("client_assertion").is_none());
    case.is_agent_identity() || case.has_own_assertion() || has_none
}

fn there_is_one(case: &Context) -> CheckResult {
    match &case.evidence.credentials {
        Some(listed) if listed.is_empty() && !is_without_credentials(case) => violated(
            "the identity has no federated credential",
            "one for this issuer, subject and audience",
            "create it on the identity whose client ID the workload uses",
        ),
        _ => CheckResult::NotApplicable,
    }
}

fn compared<'a>(
    case: &Context<'a>,
    seen: impl Fn(&'a UnverifiedToken) -> Option<&'a str>,
    expected: impl Fn(&Expected<'a>) -> Option<&'a str>,
) -> Option<(&'a str, &'a str, Option<Kind>)> {
    let seen = seen(case.token()?)?;
    let expected = expected(&self::expected(case))?;
    Some((seen, expected, Difference::between(seen, expected).map(|difference| difference.kind())))
}

fn issuers<'a>(case: &Context<'a>) -> Option<(&'a str, &'a str, Option<Kind>)> {
    compared(case, UnverifiedToken::issuer, |expected| expected.issuer)
}

fn issuer_has_the_slash(case: &Context) -> CheckResult {
    match issuers(case) {
        Some((seen, expected, Some(Kind::FinalSlash))) => differs(
            "`iss`",
            seen,
            expected,
            format!(
                "make {} name `{seen}`; or give kube-apiserver the other {BEFORE_THE_OTHER}",
                self::expected(case).of
            ),
        ),
        _ => CheckResult::NotApplicable,
    }
}

fn issuer_is_the_same(case: &Context) -> CheckResult {
    match issuers(case) {
        Some((seen, _, None)) => holds(format!("issuer `{seen}`")),
        // A comparison by character is useless then.
        Some((seen, expected, Some(_))) if is_elsewhere(seen, expected) => violated(
            format!("`iss` is `{seen}`, another issuer altogether"),
            format!("`{expected}`"),
            format!(
                "pass a token of the cluster that {} is for, or create one for this issuer: both can exist",
                self::expected(case).of
            ),
        ),
        Some((seen, expected, Some(kind))) if kind != Kind::FinalSlash => differs(
            "`iss`",
            seen,
            expected,
            format!(
                "make {} name `{seen}`, byte for byte; or give kube-apiserver the other {BEFORE_THE_OTHER}",
                self::expected(case).of
            ),
        ),
        _ => CheckResult::NotApplicable,
    }
}

/// Whether the hosts of two issuers are too different for a typing error.
fn is_elsewhere(seen: &str, expected: &str) -> bool {
    let host = |issuer: &str| Some(Url::parse(issuer).ok()?.host_str()?.to_owned());
    let hosts = host(seen).zip(host(expected));
    hosts.is_some_and(|(seen, expected)| strsim::normalized_levenshtein(&seen, &expected) < ALIKE)
}

fn audience_is_the_same(case: &Context) -> CheckResult {
    let (Some(token), expected) = (case.token(), expected(case)) else { return CheckResult::NotApplicable };
    let Some(wanted) = expected.audience else { return CheckResult::NotApplicable };
    let fix = format!("project the token with `audience: {wanted}`, as {} has it", expected.of);
    let is_exchange = is_of_entra(token) && wanted == case.question.cloud.audience();
    let codes: &[u32] = if is_of_entra(token) { &[7_002_121] } else { &[700_212] };
    match token.audiences()[..] {
        [] => CheckResult::NotApplicable,
        // For tokens of Entra the name of the exchange is the only audience that a credential can have.
        ref found if is_of_entra(token) && !is_exchange => violated(
            format!("the credential names `{wanted}`"),
            quoted([case.question.cloud.audience()]),
            "set the audience of the credential to that",
        )
        .with_codes(if found.contains(&TOKEN_EXCHANGE) { &[700_214] } else { &[7_002_121, 700_214] }),
        ref found if found.contains(&wanted) || (is_exchange && found.contains(&TOKEN_EXCHANGE)) => {
            holds(format!("audience {}", quoted(found)))
        }
        [one] => differs("`aud`", one, wanted, fix).with_codes(codes),
        ref found => {
            violated(format!("`aud` is {}", quoted(found)), format!("`{wanted}`"), fix).with_codes(codes)
        }
    }
}

fn subjects<'a>(case: &Context<'a>) -> Option<(&'a str, &'a str, Option<Kind>)> {
    compared(case, UnverifiedToken::subject, |expected| expected.subject)
}

fn subject_fix(case: &Context) -> String {
    let account = case.token().and_then(UnverifiedToken::subject).and_then(ServiceAccount::of_subject);
    if account.is_some_and(|account| account.name() == "default") {
        return "set `serviceAccountName` in the pod template: without it a pod runs as `default`".to_owned();
    }
    format!(
        "correct namespace and name of the service account, in the pod or in {}; case counts",
        expected(case).of
    )
}

fn subject_has_the_case(case: &Context) -> CheckResult {
    match subjects(case) {
        Some((seen, expected, Some(Kind::Case))) => differs("`sub`", seen, expected, subject_fix(case)),
        _ => CheckResult::NotApplicable,
    }
}

fn subject_is_the_same(case: &Context) -> CheckResult {
    match subjects(case) {
        Some((seen, _, None)) => holds(format!("subject `{seen}`")),
        Some((seen, expected, Some(kind))) if kind != Kind::Case => {
            let has_flexible = listed(case).iter().any(|it| it.expression().is_some());
            let is_of_exchange = seen.starts_with("/eid1/") && case.token().is_some_and(is_of_entra);
            differs("`sub`", seen, expected, subject_fix(case)).with_codes(match () {
                () if has_flexible => &[7_002_131],
                () if is_of_exchange => &[7_002_137],
                () => &[700_213],
            })
        }
        _ => CheckResult::NotApplicable,
    }
}

/// The claims that expressions are known to name.
/// Source: Microsoft, flexible federated identity credentials and mutable subjects; reports.
const FLEXIBLE_CLAIMS: [&str; 7] = [
    "sub",
    "job_workflow_ref",
    "repository_id",
    "repository_owner_id",
    "project_id",
    "namespace_id",
    "user_id",
];

/// The issuers for which flexible credentials are supported.
/// Source: Microsoft, flexible federated identity credentials.
pub(super) fn is_flexible_for(issuer: &str) -> bool {
    let issuers = [
        "https://token.actions.githubusercontent.com",
        "https://gitlab.",
        "https://app.terraform.io",
        "https://app.eu.terraform.io",
    ];
    issuers.iter().any(|supported| issuer.starts_with(supported))
}

/// Whether its expression looks at a claim that Entra is not known to compare.
pub(in crate::core::verification) fn names_unusual_claim(credential: &Credential) -> bool {
    let expression = credential.expression().and_then(Expression::parse);
    expression.is_some_and(|it| it.claims().any(|claim| !FLEXIBLE_CLAIMS.contains(&claim)))
}

fn the_expression_is_fulfilled(case: &Context) -> CheckResult {
    let nearest = nearest(case).filter(|_| case.question.expected.subject.is_none());
    let (Some(token), Some(it)) = (case.token(), nearest) else { return CheckResult::NotApplicable };
    let Some(expression) = it.expression() else {
        return match it.subject {
            Some(_) => CheckResult::NotApplicable,
            None => violated(
                format!("the credential `{}` is listed with neither a subject nor an expression", it.name),
                "one of them",
                "list it with Microsoft Graph (`/beta`), or a newer `az`: an older one does not show expressions",
            )
            .with_codes(&[7_002_131])
            .unless("its expression is fulfilled"),
        };
    };
    let is = |expected: &str, fix: &str| {
        violated(format!("the credential `{}` asks for {expression}", it.name), expected, fix)
    };
    if case.is_managed_identity() {
        return is(
            "an application: a managed identity takes no expressions",
            "name the subject of the token",
        )
        .with_codes(&[700_235]);
    }
    if names_unusual_claim(it) {
        return is("`sub` or `job_workflow_ref`", "name a claim that Entra compares")
            .with_codes(&[700_237])
            .unless("Entra compares that claim too");
    }
    match fulfils(token, it) {
        Some(true) if is_flexible_for(&it.issuer) => holds(format!("fulfils {expression}")),
        Some(true) => is(
            "a plain `subject`: Entra supports expressions for GitHub, GitLab and Terraform only",
            "name one service account per credential",
        )
        .with_codes(&[7_002_241])
        .unless("Entra takes expressions for this issuer by now"),
        Some(false) => is(
            "claims that fulfil it",
            "correct the expression, or name the subject of the token in a credential of its own",
        )
        .with_codes(&[7_002_131]),
        None => is(
            "an expression in the documented language",
            "write it with `eq`, `matches` and `and`, or name the subject of the token",
        )
        .with_codes(&[700_233, 7_002_131])
        .unless("Entra reads it, and the token fulfils it"),
    }
}

fn is_known_everywhere(case: &Context) -> CheckResult {
    let Some(it) = nearest(case) else { return CheckResult::NotApplicable };
    let age = it.created.map(|created| case.evidence.now.duration_since(created));
    match age.filter(|age| *age < SPREADS_WITHIN) {
        Some(age) => violated(
            format!("the credential `{}` was created {:#} ago", it.name, age.max(SignedDuration::ZERO)),
            "ten minutes at least",
            "wait, and retry each request: parts of Entra may not know it after a first success",
        )
        .with_codes(if listed(case).len() == 1 { &[70_025, 70_021] } else { &[70_021, 70_025] })
        .unless("every part of Entra knows it by now"),
        None => CheckResult::NotApplicable,
    }
}
