//! Rules of all federated credentials of an identity, independent of the token.

use std::collections::BTreeSet;

use super::{
    Basis, Check, CheckResult, CheckStage, Context, ENTRA, Warning,
    credential::{is_flexible_for, listed},
    token::MAX_TEXT,
    violated,
};

/// Most credentials of one identity, and the number that causes a finding.
const MAX_CREDENTIALS: usize = 20;
const MANY_CREDENTIALS: usize = 18;
pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "FIC-FLEX",
        rule: "no flexible credential is for this issuer: they are supported only for GitHub, GitLab and Terraform",
        level: Warning,
        parties: ENTRA,
        codes: &[700_211],
        basis: Basis::documented("flexible federated identity credentials"),
        step: CheckStage::Issuer,
        judge: none_is_flexible,
    },
    Check {
        id: "FIC-LIMITS",
        rule: "each has a name of 3 to 120 letters, digits, `-` and `_`, one audience, texts of 600 characters at most, and a pair of issuer and subject of its own",
        level: Warning,
        parties: ENTRA,
        codes: &[],
        basis: Basis::documented("federated credential considerations"),
        step: CheckStage::Credential,
        judge: each_is_within_limits,
    },
    Check {
        id: "FIC-COUNT",
        rule: "an identity has fewer than 18 of the 20 that it may have",
        level: Warning,
        parties: ENTRA,
        codes: &[],
        basis: Basis::documented("federated credential considerations"),
        step: CheckStage::Credential,
        judge: there_is_room,
    },
];

fn none_is_flexible(case: &Context) -> CheckResult {
    let flexible = listed(case).iter().find(|it| it.expression().is_some() && !is_flexible_for(&it.issuer));
    match flexible {
        Some(it) => violated(
            format!("the credential `{}` has a `claimsMatchingExpression` for `{}`", it.name, it.issuer),
            "a plain `subject`",
            "name one service account per credential",
        ),
        None => CheckResult::NotApplicable,
    }
}

fn each_is_within_limits(case: &Context) -> CheckResult {
    let mut pairs = BTreeSet::new();
    for it in listed(case) {
        let ends = it.name.chars().next().is_some_and(|first| first.is_ascii_alphanumeric());
        let plain = it.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        let texts = [Some(&it.issuer), it.subject.as_ref(), it.audiences.first()];
        let seen = if !(3..=120).contains(&it.name.chars().count()) || !ends || !plain {
            format!("the name `{}`", it.name)
        } else if it.audiences.len() != 1 {
            format!("the credential `{}` has {} audiences", it.name, it.audiences.len())
        } else if texts.into_iter().flatten().any(|text| text.chars().count() > MAX_TEXT) {
            format!("the credential `{}` has a text of more than {MAX_TEXT} characters", it.name)
        } else if !pairs.insert((&it.issuer, &it.subject)) {
            format!("the credential `{}` has issuer and subject of another", it.name)
        } else {
            continue;
        };
        return violated(
            seen,
            "what Microsoft accepts",
            "correct it before it is applied: it would be refused",
        );
    }
    CheckResult::NotApplicable
}

fn there_is_room(case: &Context) -> CheckResult {
    match listed(case).len() {
        count if count >= MANY_CREDENTIALS => violated(
            format!("the identity has {count} federated credentials"),
            format!("fewer than {MANY_CREDENTIALS}, of the {MAX_CREDENTIALS} that it may have"),
            "remove those whose service account is gone, or use a second identity",
        ),
        _ => CheckResult::NotApplicable,
    }
}
