//! Rules of the token, independent of relying party and publication.

use super::{
    BEFORE_THE_OTHER, BESIDE_THE_OTHER, Basis, Check, CheckResult, CheckStage, Context, ENTRA, EVERYBODY,
    Error, NOT_KUBERNETES, OUTSIDE, Warning, differs, holds, quoted, violated,
};

use super::entra_token::is_of_entra;
use crate::core::{
    jose::token::{NotAToken, UnverifiedToken},
    service_account::ServiceAccount,
    verification::{Party, address::is_default_issuer},
};

/// Longest issuer, subject and audience of a federated credential, in characters.
pub(super) const MAX_TEXT: usize = 600;
/// The audience of Azure's identity bindings.
const BINDING_AUDIENCE: &str = "api://AKSIdentityBinding";
/// The issuer of legacy tokens from Secrets.
/// Source: `LegacyIssuer` in `kubernetes/pkg/serviceaccount/legacy.go`.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "TOK-JWS",
        rule: "the token is a JWT: header, claims and signature in base64url, no member twice, no other characters",
        level: Error,
        parties: EVERYBODY,
        codes: &[50_027],
        basis: Basis::observed("MSAL test constants"),
        step: CheckStage::Form,
        judge: is_jws,
    },
    Check {
        id: "TOK-FILE",
        rule: "its file contains only the token: some clients send a final line break and anything else in it",
        level: Warning,
        parties: OUTSIDE,
        codes: &[],
        basis: Basis::observed(
            "azure-identity for Python 1.27.0, azidentity 1.15.0, boto3 1.44.8, google-auth 2.63.0",
        ),
        step: CheckStage::Form,
        judge: stands_alone_in_its_file,
    },
    Check {
        id: "TOK-ALG",
        rule: "it is signed with RS256, the only algorithm that Entra supports for federation",
        level: Error,
        parties: ENTRA,
        codes: &[5_002_738],
        basis: Basis::documented("workload identity federation considerations"),
        step: CheckStage::Algorithm,
        judge: is_signed_with_rs256,
    },
    Check {
        id: "TOK-TYP",
        rule: "header `typ` is `JWT` or absent, as in tokens of Kubernetes",
        level: Error,
        parties: ENTRA,
        codes: &[5_002_727],
        basis: Basis::observed("answer of the token endpoint"),
        step: CheckStage::Type,
        judge: has_a_known_type,
    },
    Check {
        id: "TOK-KID",
        rule: "the header names a key",
        level: Error,
        parties: NOT_KUBERNETES,
        codes: &[5_002_723],
        basis: Basis::observed("MSAL test constants"),
        step: CheckStage::KeyName,
        judge: names_a_key,
    },
    Check {
        id: "TOK-LEGACY",
        rule: "it is no legacy token from a Secret, which has no expiry and no audience",
        level: Error,
        parties: EVERYBODY,
        codes: &[90_014, 700_211],
        basis: Basis::inferred("Kubernetes, legacy tokens"),
        step: CheckStage::Claims,
        judge: is_not_legacy,
    },
    Check {
        id: "TOK-CLAIMS",
        rule: "`iss`, `sub`, `aud` and `exp` are there and of their type; `iat` too, except for Entra and kube-apiserver",
        level: Error,
        parties: EVERYBODY,
        codes: &[90_014],
        basis: Basis::documented("Entra error codes"),
        step: CheckStage::Claims,
        judge: has_its_claims,
    },
    Check {
        id: "TOK-ISS-WS",
        rule: "`iss` has no white space around it and at most 600 characters",
        level: Error,
        parties: NOT_KUBERNETES,
        codes: &[700_211],
        basis: Basis::documented("federated credential considerations"),
        step: CheckStage::Issuer,
        judge: has_a_tidy_issuer,
    },
    Check {
        id: "TOK-ISS-DEFAULT",
        rule: "`iss` is not what kube-apiserver writes by default",
        level: Error,
        parties: OUTSIDE,
        codes: &[700_211, 501_661, 50_166],
        basis: Basis::observed("azure-workload-identity #616"),
        step: CheckStage::Issuer,
        judge: has_an_issuer_of_its_own,
    },
    Check {
        id: "TOK-AUD-IB",
        rule: "it is not made for an identity binding of AKS",
        level: Error,
        parties: ENTRA,
        codes: &[700_212],
        basis: Basis::observed("AKS identity bindings"),
        step: CheckStage::Audience,
        judge: is_not_for_a_binding,
    },
    Check {
        id: "TOK-AUD",
        rule: "unless `--audience` says otherwise, `aud` is what the Entra of this cloud recommends",
        level: Error,
        parties: ENTRA,
        codes: &[700_212],
        basis: Basis::documented("workload identity federation, sovereign clouds"),
        step: CheckStage::Audience,
        judge: is_for_entra,
    },
    Check {
        id: "TOK-AUD-MANY",
        rule: "`aud` has one value; how Entra takes several is not documented",
        level: Warning,
        parties: ENTRA,
        codes: &[700_212],
        basis: Basis::inferred("not documented"),
        step: CheckStage::Audience,
        judge: is_for_one,
    },
    Check {
        id: "TOK-SUB",
        rule: "unless `--subject` says otherwise, `sub` names a service account of Kubernetes",
        level: Error,
        parties: OUTSIDE,
        codes: &[700_213],
        basis: Basis::inferred("Kubernetes, service accounts"),
        step: CheckStage::Subject,
        judge: is_of_a_service_account,
    },
];

/// Applies a rule to a token that could be parsed.
fn token(case: &Context, rule: impl FnOnce(&UnverifiedToken) -> CheckResult) -> CheckResult {
    case.token().map_or(CheckResult::NotApplicable, rule)
}

fn is_jws(case: &Context) -> CheckResult {
    match &case.evidence.token {
        None => CheckResult::NotApplicable,
        Some(Ok(token)) if token.signature().is_empty() => violated(
            "its signature is empty",
            "a signed JWT",
            "pass a whole token, as `kubectl create token` and `signpost token` print it",
        ),
        Some(Ok(_)) => holds("a JWT with header, claims and signature"),
        Some(Err(error)) => violated(
            error.to_string(),
            "a complete JWT",
            match error {
                NotAToken::Surrounded { .. } => "pass the token as it is, with no other characters",
                _ => "pass a whole token, as `kubectl create token` and `signpost token` print it",
            },
        ),
    }
}

fn stands_alone_in_its_file(case: &Context) -> CheckResult {
    case.evidence.token_file.as_ref().map_or(CheckResult::NotApplicable, |around| {
        violated(
            format!("the file contains more than the token: {around}"),
            "the token and nothing else, as a kubelet writes it",
            "write it again: `signpost token > FILE` adds nothing, nor does `printf %s \"$TOKEN\" > FILE`; Python and \
             Go clients send the file as it is",
        )
    })
}

fn is_signed_with_rs256(case: &Context) -> CheckResult {
    token(case, |token| match token.header().alg.as_str() {
        "RS256" => holds("signed with RS256"),
        other => violated(
            format!("signed with `{other}`"),
            "`RS256`, the only algorithm that Microsoft Entra supports",
            format!(
                "give kube-apiserver an RSA key to sign with, {BESIDE_THE_OTHER}; AWS and Google take ES256 too"
            ),
        ),
    })
}

fn has_a_known_type(case: &Context) -> CheckResult {
    token(case, |token| match token.header().typ.as_deref() {
        None | Some("JWT" | "http://openid.net/specs/jwt/1.0") => CheckResult::NotApplicable,
        Some(other) => violated(
            format!("header `typ` is `{other}`"),
            "`JWT` or none",
            "have the signer leave `typ` out, or write `JWT`",
        ),
    })
}

fn names_a_key(case: &Context) -> CheckResult {
    token(case, |token| match &token.header().kid {
        Some(kid) => holds(format!("kid `{kid}`")),
        // For an assertion of an application its certificate is named.
        None if token.header().x5t.is_some() || token.header().x5t_s256.is_some() => {
            CheckResult::NotApplicable
        }
        None => violated(
            "the header has no `kid`",
            "the ID of the key that signed",
            "use a token of Kubernetes 1.20 or later",
        ),
    })
}

fn is_legacy(token: &UnverifiedToken) -> bool {
    token.issuer() == Some(LEGACY_ISSUER)
}

fn is_not_legacy(case: &Context) -> CheckResult {
    token(case, |token| {
        if !is_legacy(token) {
            return CheckResult::NotApplicable;
        }
        violated(
            format!("a legacy token from a Secret: `iss` is `{LEGACY_ISSUER}`"),
            "a projected token",
            "use a projected token or `kubectl create token`, and delete the Secret once it is unused",
        )
    })
}

fn has_its_claims(case: &Context) -> CheckResult {
    token(case, |token| {
        if is_legacy(token) {
            return CheckResult::NotApplicable;
        }
        let claims = [
            ("iss", token.issuer().is_some()),
            ("sub", token.subject().is_some()),
            ("aud", !token.audiences().is_empty()),
            ("exp", token.expires_at().is_some()),
            ("iat", token.issued_at().is_some()),
        ];
        // AWS and OpenID Connect require `iat`, kube-apiserver does not; for Entra a token without it has
        // lived too long.
        let is_needed =
            |name: &str| name != "iat" || !matches!(case.question.party, Party::Entra | Party::Kubernetes);
        let names =
            |wanted: bool| claims.iter().filter(move |(_, there)| *there == wanted).map(|(name, _)| *name);
        let missing: Vec<_> = names(false).filter(|name| is_needed(name)).collect();
        if missing.is_empty() {
            return holds(format!("has {}", quoted(names(true))));
        }
        let needed = claims.iter().map(|(name, _)| *name).filter(|name| is_needed(name));
        violated(
            format!("has no usable {}", quoted(missing)),
            quoted(needed),
            "use a projected token or `kubectl create token`",
        )
    })
}

fn has_a_tidy_issuer(case: &Context) -> CheckResult {
    token(case, |token| {
        let Some(issuer) = token.issuer() else { return CheckResult::NotApplicable };
        let fix = format!("give kube-apiserver a usable issuer {BEFORE_THE_OTHER}");
        match issuer.chars().count() {
            _ if issuer.trim() != issuer => differs("`iss`", issuer, issuer.trim(), fix),
            length if length > MAX_TEXT => {
                violated(format!("`iss` has {length} characters"), format!("at most {MAX_TEXT}"), fix)
            }
            _ => CheckResult::NotApplicable,
        }
    })
}

fn has_an_issuer_of_its_own(case: &Context) -> CheckResult {
    let named = case.token().and_then(UnverifiedToken::issuer);
    match [named, case.issuer()].into_iter().flatten().find(|issuer| is_default_issuer(issuer)) {
        Some(issuer) => {
            let is_named = case.evidence.credentials.iter().flatten().any(|it| it.issuer == issuer);
            violated(
                format!("`iss` is `{issuer}`, the default of kube-apiserver"),
                "the public URL under which the keys are published",
                format!("give kube-apiserver that URL {BEFORE_THE_OTHER}; then get a new token"),
            )
            .with_codes(if is_named { &[50_166, 501_661] } else { &[700_211, 501_661] })
        }
        None => CheckResult::NotApplicable,
    }
}

fn is_not_for_a_binding(case: &Context) -> CheckResult {
    token(case, |token| {
        let listed = case.evidence.credentials.iter().flatten().flat_map(|it| &it.audiences);
        let mut expected = case.question.expected.audience.iter().chain(listed);
        let is_expected = expected.any(|audience| audience == BINDING_AUDIENCE);
        if is_expected || !token.audiences().contains(&BINDING_AUDIENCE) {
            return CheckResult::NotApplicable;
        }
        violated(
            format!("`aud` is `{BINDING_AUDIENCE}`: a token for an identity binding of AKS"),
            format!("`{}`", case.question.cloud.audience()),
            "remove the annotation `azure.workload.identity/use-identity-binding` from the pod template, or have the program use the binding's own proxy",
        )
    })
}

fn is_for_entra(case: &Context) -> CheckResult {
    token(case, |token| {
        let expected = case.question.cloud.audience();
        let found = token.audiences();
        if case.question.expected.audience.is_some()
            || case.evidence.credentials.is_some()
            || found.is_empty()
            || is_of_entra(token)
            || found.contains(&BINDING_AUDIENCE)
        {
            return CheckResult::NotApplicable;
        }
        if found.contains(&expected) {
            return holds(format!("audience {}", quoted(found)));
        }
        let fix = format!(
            "project the token with `audience: {expected}`, or pass the configured audience with `--audience`"
        );
        match found[..] {
            [one] => differs("`aud`", one, expected, fix),
            _ => violated(format!("`aud` is {}", quoted(found)), format!("`{expected}`"), fix),
        }
    })
}

fn is_for_one(case: &Context) -> CheckResult {
    token(case, |token| match token.audiences() {
        many if many.len() > 1 => violated(
            format!("`aud` is {}", quoted(many)),
            "one audience",
            "ask for a token with one audience",
        ),
        _ => CheckResult::NotApplicable,
    })
}

fn is_of_a_service_account(case: &Context) -> CheckResult {
    token(case, |token| match token.subject() {
        // A token of Entra has rules of its own, and so has an assertion of the application itself.
        Some(_) if is_of_entra(token) || case.has_own_assertion() => CheckResult::NotApplicable,
        Some(subject) if case.question.expected.subject.is_none() && case.evidence.credentials.is_none() => {
            match ServiceAccount::of_subject(subject) {
                Some(account) => holds(format!("service account `{account}`")),
                None if case.question.party == Party::Entra || subject.starts_with("system:") => violated(
                    format!("`sub` is `{subject}`"),
                    "`system:serviceaccount:NAMESPACE:NAME`",
                    "pass the configured subject with `--subject`",
                ),
                None => CheckResult::NotApplicable,
            }
        }
        _ => CheckResult::NotApplicable,
    })
}
