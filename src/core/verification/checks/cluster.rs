//! Rules of the API server: its own view against the publication.

use super::{Basis, Check, CheckResult, CheckStage, Context, EVERYBODY, Warning, holds, quoted, violated};
use crate::core::verification::context::PublishedKey;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "JWKS-MATCH",
        rule: "every key that the API server shows is published: it may sign with any of them",
        level: Warning,
        parties: EVERYBODY,
        codes: &[7_000_272],
        basis: Basis::inferred("Kubernetes, openidmetadata.go"),
        step: CheckStage::Key,
        judge: every_key_is_published,
    },
    Check {
        id: "K8S-KEYPAIR",
        rule: "the API server verifies with the key it signs with; otherwise it refuses its own tokens, and publishers that copy its JWKS omit the signing key",
        level: Warning,
        parties: EVERYBODY,
        codes: &[7_000_272],
        basis: Basis::inferred("azure-workload-identity, self-managed clusters"),
        step: CheckStage::Key,
        judge: signs_with_a_key_of_its_own,
    },
    Check {
        id: "K8S-APIAUD",
        rule: "the API server does not accept tokens that are meant for others as its own (`--api-audiences`)",
        level: Warning,
        parties: EVERYBODY,
        codes: &[],
        basis: Basis::inferred("Kubernetes, --api-audiences"),
        step: CheckStage::Audience,
        judge: keeps_to_its_own_audience,
    },
];

fn every_key_is_published(case: &Context) -> CheckResult {
    let (Some(server), Some(keys)) = (&case.evidence.api_server, case.keys()) else {
        return CheckResult::NotApplicable;
    };
    let published: Vec<_> = keys.iter().filter_map(PublishedKey::kid).collect();
    let missing: Vec<_> = server.kids.iter().filter(|kid| !published.contains(&kid.as_str())).collect();
    if missing.is_empty() {
        return holds("every key of the API server is published");
    }
    violated(
        format!(
            "keys of the API server are not published: {}",
            quoted(missing.iter().map(|kid| kid.as_str()))
        ),
        "every key that it shows",
        "publish them with `signpost sync`, and keep them current with `signpost run`",
    )
}

fn signs_with_a_key_of_its_own(case: &Context) -> CheckResult {
    let Some(server) = case.evidence.api_server.as_ref().filter(|server| server.minted) else {
        return CheckResult::NotApplicable;
    };
    match case.token().and_then(|token| token.header().kid.as_ref()) {
        Some(kid) if !server.kids.contains(kid) => violated(
            format!("the API server has just signed with kid `{kid}`, which it does not show"),
            "the key that it signs with among those it verifies with",
            "give the public part of `--service-account-signing-key-file` in `--service-account-key-file` too; while a key rolls through several API servers behind one URL, wait",
        ),
        Some(_) => holds("the API server shows the key that it signs with"),
        None => CheckResult::NotApplicable,
    }
}

fn keeps_to_its_own_audience(case: &Context) -> CheckResult {
    let taken = case.evidence.api_server.as_ref().and_then(|server| server.takes_for_its_own);
    match (taken, case.token()) {
        (Some(true), Some(token)) => {
            // Without `--api-audiences` the issuer is the audience of the API server.
            let is_own = token.issuer().is_some_and(|issuer| token.audiences().contains(&issuer));
            violated(
                format!("the API server accepts a token for {} as its own", quoted(token.audiences())),
                "the token refused",
                if is_own {
                    "request tokens for others with an audience of theirs: this one is the API server's own, and anyone who receives the token can use it on the cluster"
                } else {
                    "remove that audience from `--api-audiences`, but keep the API server's own, or every pod is refused: anyone who receives the token can use it on the cluster"
                },
            )
        }
        _ => CheckResult::NotApplicable,
    }
}
