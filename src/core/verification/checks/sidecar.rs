//! Rules of the Entra auth sidecar: which credential it tries, and whether the file is there.

use std::collections::BTreeMap;

use super::pod::{CLIENT_ID, TOKEN_FILE, audience, projected, workload};
use super::{Basis, Case, Check, ENTRA, Error, Step, Verdict, quoted, violated};
use crate::core::workload::{Container, Pod};

/// How the variables of its credentials begin; an index and a name follow.
const CREDENTIALS: &str = "AzureAd__ClientCredentials__";
/// The kind of credential that is a projected token.
const FILE: &str = "SignedAssertionFilePath";
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
        step: Step::Request,
        judge: credentials_are_numbered_and_spelt,
    },
    Check {
        id: "SIDE-SECRET",
        rule: "no secret is tried before the projected token",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_215, 7_000_222],
        basis: Basis::documented("Entra auth sidecar, settings"),
        step: Step::Request,
        judge: no_secret_comes_first,
    },
    Check {
        id: "SIDE-PATH",
        rule: "the file that the sidecar reads is a projected token for the expected audience",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_218],
        basis: Basis::inferred("azure-workload-identity 1.6.0, another path"),
        step: Step::Request,
        judge: the_file_is_there,
    },
    Check {
        id: "SIDE-ID",
        rule: "the sidecar's client ID, that of the blueprint, is the one that the service account is annotated with",
        level: Error,
        parties: ENTRA,
        codes: &[700_016, 70_025],
        basis: Basis::inferred("Entra auth sidecar, settings"),
        step: Step::Client,
        judge: the_client_is_the_same,
    },
];

/// The settings of one sidecar.
struct Sidecar<'a> {
    pod: &'a Pod,
    container: &'a Container,
    environment: BTreeMap<String, Option<String>>,
}

fn sidecars<'a>(case: &Case<'a>) -> Vec<Sidecar<'a>> {
    let Some(workload) = workload(case) else { return Vec::new() };
    let containers = workload.pods.iter().flat_map(|pod| pod.spec.containers.iter().map(move |it| (pod, it)));
    let read = containers.map(|(pod, container)| {
        let environment = container.environment(&workload.config_maps);
        Sidecar { pod, container, environment }
    });
    read.filter(|it| it.environment.keys().any(|name| name.starts_with(CREDENTIALS))).collect()
}

impl Sidecar<'_> {
    fn of(&self) -> String {
        format!("container `{}` of pod `{}`", self.container.name, self.pod.metadata.name)
    }

    /// The indices in use, in their order, each once; a variable without a number is index `None`.
    fn indices(&self) -> Vec<Option<usize>> {
        let rest = self.environment.keys().filter_map(|name| name.strip_prefix(CREDENTIALS));
        let mut indices: Vec<_> =
            rest.map(|rest| rest.split("__").next().and_then(|index| index.parse().ok())).collect();
        indices.sort_unstable();
        indices.dedup();
        indices
    }

    /// A setting of one credential; `None` too when it comes from where it cannot be read.
    fn setting(&self, index: usize, name: &str) -> Option<&str> {
        self.environment.get(&format!("{CREDENTIALS}{index}__{name}"))?.as_deref()
    }

    /// The kinds of its credentials in the order in which they are tried.
    fn kinds(&self) -> Vec<(usize, &str)> {
        let indices = self.indices().into_iter().flatten();
        indices.filter_map(|index| Some((index, self.setting(index, "SourceType")?))).collect()
    }

    /// The first credential that is a file, and where that is.
    fn file(&self) -> Option<(usize, Option<&str>)> {
        let (index, _) = self.kinds().into_iter().find(|(_, kind)| *kind == FILE)?;
        let named = self.setting(index, "SignedAssertionFileDiskPath");
        Some((index, named.or_else(|| self.environment.get(TOKEN_FILE)?.as_deref())))
    }
}

fn first(case: &Case, rule: impl Fn(&Sidecar) -> Option<Verdict>) -> Verdict {
    sidecars(case).iter().find_map(rule).unwrap_or(Verdict::NotApplicable)
}

fn credentials_are_numbered_and_spelt(case: &Case) -> Verdict {
    first(case, |it| {
        let gap = it.indices().into_iter().enumerate().find(|(place, index)| *index != Some(*place));
        let misspelt = it.kinds().into_iter().find(|(_, kind)| !KINDS.contains(kind));
        let (seen, expected) = match (gap, misspelt) {
            (Some((place, _)), _) => (
                format!("{} has no `{CREDENTIALS}{place}__…` before the next one", it.of()),
                "credentials numbered from 0".to_owned(),
            ),
            (None, Some((index, kind))) => (
                format!("{} has `{CREDENTIALS}{index}__SourceType` `{kind}`", it.of()),
                format!("one of {}", quoted(KINDS)),
            ),
            (None, None) => return None,
        };
        Some(violated(seen, expected, "correct the ConfigMap, and have the pod made anew"))
    })
}

fn no_secret_comes_first(case: &Case) -> Verdict {
    first(case, |it| {
        let (index, kind) = it.kinds().into_iter().next()?;
        (kind == "ClientSecret").then(|| {
            violated(
                format!("{} tries a `ClientSecret` first, as credential {index}", it.of()),
                format!("`{FILE}` as credential 0"),
                "take the secret out of the ConfigMap, and number the credentials anew",
            )
        })
    })
}

fn the_file_is_there(case: &Case) -> Verdict {
    let expected = audience(case);
    first(case, |it| {
        let (index, file) = it.file()?;
        let fix = "set `SignedAssertionFileDiskPath` to the mount path and the path of the projected token";
        let Some(file) = file else {
            let seen = format!("{} has neither a path for credential {index} nor `{TOKEN_FILE}`", it.of());
            return Some(violated(seen, "the path of a projected token", fix));
        };
        match it.pod.token_at(it.container, file) {
            None => Some(violated(
                format!("{} reads `{file}`, where no token is projected", it.of()),
                projected(it.pod, it.container),
                fix,
            )),
            Some(token) if token.audience != expected => Some(violated(
                format!("{} reads `{file}`, a token for `{}`", it.of(), token.audience),
                format!("`{expected}`"),
                "set that audience in the projected volume",
            )),
            Some(_) => None,
        }
    })
}

fn the_client_is_the_same(case: &Case) -> Verdict {
    let annotated = workload(case).and_then(|it| it.annotations.as_ref()?.get(CLIENT_ID));
    let Some(annotated) = annotated else { return Verdict::NotApplicable };
    first(case, |it| {
        let named = it.environment.get("AzureAd__ClientId")?.as_ref()?;
        (named != annotated).then(|| {
            super::differs(
                &format!("`AzureAd__ClientId` of {}", it.of()),
                named,
                annotated,
                "use the client ID of the identity that has the federated credential in both",
            )
        })
    })
}
