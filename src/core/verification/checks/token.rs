//! Rules of the token itself.

use std::time::Duration;

use jiff::Timestamp;

use super::{holds, slash, violated};
use crate::core::{
    token::{NotAToken, UnverifiedToken},
    verification::{Evidence, Verdict},
};

/// Longest life of a token that is not remarked on: what Azure Kubernetes Service allows.
const LONG_LIFE: Duration = Duration::from_hours(24);

/// Applies a rule to a token that could be taken apart.
fn token(evidence: &Evidence, rule: impl FnOnce(&UnverifiedToken) -> Verdict) -> Verdict {
    evidence.token.as_ref().map_or(Verdict::NotApplicable, rule)
}

pub(super) fn is_jws(evidence: &Evidence) -> Verdict {
    match &evidence.token {
        Ok(_) => holds("a JWT with header, claims and signature"),
        Err(error) => violated(
            error.to_string(),
            match error {
                NotAToken::Surrounded { .. } => "pass the token as it is, with nothing around it",
                _ => "pass a whole token, as `kubectl create token` and `signpost token` print it",
            },
        ),
    }
}

pub(super) fn signs_with_rs256(evidence: &Evidence) -> Verdict {
    token(evidence, |token| match token.header().alg.as_str() {
        "RS256" => holds("signed with RS256"),
        other => violated(
            format!("signed with `{other}`, Microsoft Entra supports `RS256` alone"),
            "give kube-apiserver an RSA key to sign with; AWS and Google take ES256 too",
        ),
    })
}

pub(super) fn has_a_known_type(evidence: &Evidence) -> Verdict {
    token(evidence, |token| match token.header().typ.as_deref() {
        None | Some("JWT" | "http://openid.net/specs/jwt/1.0") => Verdict::NotApplicable,
        Some(other) => violated(
            format!("header `typ` is `{other}`, expected `JWT` or none"),
            "have the signer leave `typ` out",
        ),
    })
}

pub(super) fn names_a_key(evidence: &Evidence) -> Verdict {
    token(evidence, |token| match &token.header().kid {
        Some(kid) => holds(format!("kid `{kid}`")),
        None => violated("the header has no `kid`", "use a token of Kubernetes 1.20 or later"),
    })
}

pub(super) fn has_its_claims(evidence: &Evidence) -> Verdict {
    token(evidence, |token| {
        let times = [("exp", token.expires_at().is_some()), ("iat", token.issued_at().is_some())];
        let texts = [
            ("iss", token.issuer().is_some()),
            ("sub", token.subject().is_some()),
            ("aud", !token.audiences().is_empty()),
        ];
        let missing: Vec<_> = texts
            .into_iter()
            .chain(times)
            .filter(|(_, there)| !there)
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        if missing.is_empty() {
            holds("has `iss`, `sub`, `aud`, `exp` and `iat`")
        } else {
            violated(
                format!("has no {}", missing.join(", ")),
                "use a projected token or `kubectl create token`; tokens from Secrets have no expiry and no audience",
            )
        }
    })
}

pub(super) fn has_the_issuer(evidence: &Evidence) -> Verdict {
    token(evidence, |token| match (token.issuer(), &evidence.issuer) {
        (Some("kubernetes/serviceaccount"), _) => violated(
            "a legacy token from a Secret: its issuer is `kubernetes/serviceaccount`",
            "use a projected token or `kubectl create token`",
        ),
        (Some(found), Some(expected)) if found != expected.as_str() => violated(
            format!("`iss` is `{found}`, expected `{expected}`{}", slash(found, expected.as_str())),
            "make `--service-account-issuer` and the federated credential the same, byte for byte",
        ),
        (Some(found), _) => holds(format!("issuer `{found}`")),
        (None, _) => Verdict::NotApplicable,
    })
}

pub(super) fn has_the_subject(evidence: &Evidence) -> Verdict {
    token(evidence, |token| match (token.subject(), &evidence.subject) {
        (Some(found), Some(expected)) if found != expected => violated(
            format!("`sub` is `{found}`, expected `{expected}`"),
            "correct the namespace and name of the service account in the federated credential; case counts",
        ),
        (Some(found), _) => holds(format!("subject `{found}`")),
        (None, _) => Verdict::NotApplicable,
    })
}

pub(super) fn has_the_audience(evidence: &Evidence) -> Verdict {
    token(evidence, |token| {
        let found = token.audiences();
        let quoted = found.iter().map(|audience| format!("`{audience}`")).collect::<Vec<_>>().join(", ");
        match &evidence.audience {
            None if found.is_empty() => Verdict::NotApplicable,
            Some(expected) if found != [expected] => violated(
                format!("`aud` is {quoted}, expected `{expected}` alone"),
                format!("project the token with `audience: {expected}`"),
            ),
            _ => holds(format!("audience {quoted}")),
        }
    })
}

pub(super) fn is_alive(evidence: &Evidence) -> Verdict {
    token(evidence, |token| {
        let Some(expiry) = token.expires_at() else { return Verdict::NotApplicable };
        let start = token.not_before().or(token.issued_at());
        if expiry <= evidence.now {
            let ago = between(expiry, evidence.now);
            return violated(
                format!("expired {ago} ago"),
                "read the token file anew; the kubelet replaces it in time",
            );
        }
        match start.filter(|start| *start > evidence.now) {
            Some(start) => violated(
                format!("not valid for another {}", between(evidence.now, start)),
                "set the clocks right, here and on the node that signed",
            ),
            None => holds(format!("valid for another {}", between(evidence.now, expiry))),
        }
    })
}

fn between(from: Timestamp, to: Timestamp) -> String {
    format!("{:#}", to.duration_since(from))
}

pub(super) fn does_not_live_long(evidence: &Evidence) -> Verdict {
    token(evidence, |token| {
        let (Some(issued), Some(expiry)) = (token.issued_at(), token.expires_at()) else {
            return Verdict::NotApplicable;
        };
        if !Duration::try_from(expiry.duration_since(issued)).is_ok_and(|life| life > LONG_LIFE) {
            return Verdict::NotApplicable;
        }
        violated(
            format!("lives for {}, more than a day", between(issued, expiry)),
            "lower `expirationSeconds`: its key must stay published as long as it lives",
        )
    })
}
