//! Rules of the federated credential: one given by flags, or all of an identity.

use url::Url;

use super::{
    BEFORE_THE_OTHER, Basis, Check, CheckResult, CheckStage, Context, ENTRA, EVERYBODY, Error, differs,
    holds, quoted, violated,
};

use crate::core::{
    jose::token::UnverifiedToken,
    service_account::ServiceAccount,
    verification::{Credential, Difference, Kind},
};

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
        codes: &[700_212],
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
        codes: &[700_213],
        basis: Basis::documented("Azure DevOps, AADSTS errors of workload identity"),
        step: CheckStage::Subject,
        judge: subject_is_the_same,
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
    let listed = case.evidence.credentials.as_deref().unwrap_or_default();
    let nearest = case.token().and_then(|token| nearest(token, listed));
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

/// The credential that matches the token best: in all three values first, then in subject and issuer only.
fn nearest<'a>(token: &UnverifiedToken, listed: &'a [Credential]) -> Option<&'a Credential> {
    let alike = |seen: Option<&str>, expected: &str| {
        let Some(seen) = seen else { return 0 };
        match Difference::between(seen, expected).map(|difference| difference.kind()) {
            None => 4,
            Some(Kind::FinalSlash | Kind::Case | Kind::WhiteSpace | Kind::Unusual) => 2,
            Some(Kind::Other) => 0,
        }
    };
    let score = |it: &&Credential| {
        let audience = it.audiences.first().map_or(0, |it| alike(token.audiences().first().copied(), it));
        let subject = it.subject.as_deref().map_or(0, |it| alike(token.subject(), it));
        2 * (alike(token.issuer(), &it.issuer) + subject) + audience
    };
    // `max_by_key` takes the last of equals; people expect the first.
    listed.iter().rev().filter(|it| it.subject.is_some()).max_by_key(score)
}

fn there_is_one(case: &Context) -> CheckResult {
    match &case.evidence.credentials {
        Some(listed) if listed.is_empty() => violated(
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
    match token.audiences()[..] {
        [] => CheckResult::NotApplicable,
        ref found if found.contains(&wanted) => holds(format!("audience {}", quoted(found))),
        [one] => differs("`aud`", one, wanted, fix),
        ref found => violated(format!("`aud` is {}", quoted(found)), format!("`{wanted}`"), fix),
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
            differs("`sub`", seen, expected, subject_fix(case))
        }
        _ => CheckResult::NotApplicable,
    }
}
