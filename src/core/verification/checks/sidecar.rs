//! Rules of the Entra auth sidecar: which credential it tries, and whether the file exists.

use super::pod::{CLIENT_ID, annotations, audience, projected};
use super::presenter::{CREDENTIALS, FILE, Presenter, TOKEN_FILE, TokenPath, presenters};
use super::{Basis, Check, CheckResult, CheckStage, Context, ENTRA, Error, quoted, violated};

/// Source: the settings of Microsoft.Identity.Web.
const KINDS: [&str; 6] =
    ["ClientSecret", "KeyVault", "Path", "StoreWithThumbprint", FILE, "SignedAssertionFromManagedIdentity"];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "SIDE-CFG",
        rule: "the sidecar's credentials are numbered from 0 without a gap, and each has a `SourceType` that exists",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_218],
        basis: Basis::documented("Entra auth sidecar, settings"),
        step: CheckStage::Request,
        judge: credentials_are_numbered_and_spelt,
    },
    Check {
        id: "SIDE-SECRET",
        rule: "no secret is tried before the projected token",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_215, 7_000_222],
        basis: Basis::documented("Entra auth sidecar, settings"),
        step: CheckStage::Request,
        judge: no_secret_comes_first,
    },
    Check {
        id: "SIDE-PATH",
        rule: "the file that the sidecar reads is a projected token for the expected audience",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_218],
        basis: Basis::inferred("azure-workload-identity 1.6.0, another path"),
        step: CheckStage::Request,
        judge: the_file_is_there,
    },
    Check {
        id: "SIDE-ID",
        rule: "the sidecar's client ID, that of the blueprint, is the one that the service account is annotated with",
        level: Error,
        parties: ENTRA,
        codes: &[700_016, 70_025],
        basis: Basis::inferred("Entra auth sidecar, settings"),
        step: CheckStage::Client,
        judge: the_client_is_the_same,
    },
];

/// The first violation of a rule by a sidecar that gets furthest in its pod.
fn first(case: &Context, rule: impl Fn(&Presenter) -> Option<CheckResult>) -> CheckResult {
    let presenters = presenters(case);
    presenters.iter().filter(|it| it.is_sidecar).find_map(rule).unwrap_or(CheckResult::NotApplicable)
}

fn credentials_are_numbered_and_spelt(case: &Context) -> CheckResult {
    first(case, |it| {
        let gap = it.indices().into_iter().enumerate().find(|(place, index)| *index != Some(*place));
        let misspelt = it.kinds().into_iter().find(|(_, kind)| !KINDS.contains(kind));
        let (seen, expected) = match (gap, misspelt) {
            (Some((place, _)), _) => (
                format!("{} has no `{CREDENTIALS}{place}__…` before the next one", it.in_words()),
                "credentials numbered from 0".to_owned(),
            ),
            (None, Some((index, kind))) => (
                format!("{} has `{CREDENTIALS}{index}__SourceType` `{kind}`", it.in_words()),
                format!("one of {}", quoted(KINDS)),
            ),
            (None, None) => return None,
        };
        Some(violated(seen, expected, "correct the ConfigMap, and recreate the pod"))
    })
}

fn no_secret_comes_first(case: &Context) -> CheckResult {
    first(case, |it| {
        let (index, kind) = it.kinds().into_iter().next()?;
        (kind == "ClientSecret").then(|| {
            violated(
                format!("{} tries a `ClientSecret` first, as credential {index}", it.in_words()),
                format!("`{FILE}` as credential 0"),
                "make the projected token credential 0 and the secret credential 1; remove the secret once the token is accepted",
            )
        })
    })
}

fn the_file_is_there(case: &Context) -> CheckResult {
    let expected = audience(case);
    first(case, |it| {
        let index = it.file_credential()?;
        let fix = "set `SignedAssertionFileDiskPath` to the mount path and the path of the projected token";
        match (it.place(), it.token()) {
            (TokenPath::Unnamed, _) => {
                let seen =
                    format!("{} has neither a path for credential {index} nor `{TOKEN_FILE}`", it.in_words());
                Some(violated(seen, "the path of a projected token", fix))
            }
            (_, Some(found)) if found.token.audience != expected => {
                let (file, audience) = (found.path, &found.token.audience);
                Some(violated(
                    format!("{} reads `{file}`, a token for `{audience}`", it.in_words()),
                    format!("`{expected}`"),
                    "set that audience in the projected volume",
                ))
            }
            (TokenPath::At(file), None) if it.has_no_token() => Some(violated(
                format!("{} reads `{file}`, where no token is projected", it.in_words()),
                projected(it.pod, it.container),
                fix,
            )),
            _ => None,
        }
    })
}

fn the_client_is_the_same(case: &Context) -> CheckResult {
    let annotated = annotations(case).and_then(|texts| texts.get(CLIENT_ID)).filter(|id| !id.is_empty());
    let Some(annotated) = annotated else { return CheckResult::NotApplicable };
    first(case, |it| {
        let named = it.variable("AzureAd__ClientId")?;
        (named != annotated).then(|| {
            super::differs(
                &format!("`AzureAd__ClientId` of {}", it.in_words()),
                named,
                annotated,
                "use the client ID of the identity that has the federated credential in both",
            )
        })
    })
}
