//! Rules of the service account and its pods: whether the workload sends a request to Entra at all.

use std::time::Duration;

use super::{
    Basis, Check, CheckResult, CheckStage, Context, ENTRA, Error, Warning, holds,
    presenter::{Presenter, TOKEN_FILE, TokenPath, candidates, in_words, others, presenters},
    quoted, violated,
};
use crate::core::verification::ENTRA_LIFE;
use crate::core::workload::{Container, Pod, ProjectedToken, Texts, Workload};

const LABEL: &str = "azure.workload.identity/use";
pub(super) const CLIENT_ID: &str = "azure.workload.identity/client-id";
const BINDING: &str = "azure.workload.identity/use-identity-binding";
const EXPIRATION: &str = "azure.workload.identity/service-account-token-expiration";
const SKIPPED: &str = "azure.workload.identity/skip-containers";
/// The kubelet replaces a token after four fifths of its lifetime, and SDKs cache it for up to ten minutes: a
/// fifth of the lifetime must be as long.
/// Source: azure-identity 1.27.0 (Python) and azidentity 1.15.0 (Go), ten minutes; @azure/identity 4.13.1,
/// five.
const BRIEF_LIFE: Duration = Duration::from_mins(50);
/// Default lifetime of a projected token.
/// Source: `defaultExpirationSeconds` in `kubernetes/pkg/apis/core/v1/defaults.go`.
const DEFAULT_LIFE: Duration = Duration::from_hours(1);

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "POD-LABEL",
        rule: "a pod of an annotated service account has the label `azure.workload.identity/use: \"true\"`, or projects its own token",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_218],
        basis: Basis::documented("azure-workload-identity, troubleshooting"),
        step: CheckStage::Request,
        judge: is_labelled,
    },
    Check {
        id: "POD-ENV",
        rule: "one container of each pod has the path of its token, and the token is there",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_218],
        basis: Basis::observed("azure-workload-identity #461, #525, #540"),
        step: CheckStage::Request,
        judge: finds_its_token,
    },
    Check {
        id: "POD-TENANT",
        rule: "that container knows its tenant: without one, SDKs fail before they ask Entra",
        level: Error,
        parties: ENTRA,
        codes: &[],
        basis: Basis::inferred("azure-identity 1.27.0"),
        step: CheckStage::Request,
        judge: knows_its_tenant,
    },
    Check {
        id: "POD-EXP",
        rule: "a token lifetime in annotations is between 3600 s and 86400 s",
        level: Error,
        parties: ENTRA,
        codes: &[],
        basis: Basis::documented("azure-workload-identity, webhook"),
        step: CheckStage::Request,
        judge: asks_for_a_possible_life,
    },
    Check {
        id: "POD-LONG",
        rule: "the token of that container is projected for 25 hours at most",
        level: Error,
        parties: ENTRA,
        codes: &[70_023],
        basis: Basis::observed("answers of the token endpoint"),
        step: CheckStage::Lifetime,
        judge: projects_for_a_day,
    },
    Check {
        id: "POD-AUD",
        rule: "the token of that container is projected for the expected audience",
        level: Error,
        parties: ENTRA,
        codes: &[700_212],
        basis: Basis::inferred("azure-workload-identity, webhook"),
        step: CheckStage::Audience,
        judge: projects_for_the_audience,
    },
    Check {
        id: "POD-SHORT",
        rule: "it is projected for 50 minutes at least: SDKs keep what they have read for up to ten, and the kubelet replaces it after four fifths",
        level: Warning,
        parties: ENTRA,
        codes: &[700_024],
        basis: Basis::inferred("azure-identity 1.27.0, azidentity 1.15.0"),
        step: CheckStage::Time,
        judge: projects_for_long_enough,
    },
    Check {
        id: "POD-SUBPATH",
        rule: "it is not mounted by `subPath`: the kubelet never replaces such a file",
        level: Warning,
        parties: ENTRA,
        codes: &[700_024],
        basis: Basis::documented("Kubernetes, volumes"),
        step: CheckStage::Time,
        judge: is_replaced_in_time,
    },
    Check {
        id: "POD-OTHER",
        rule: "no other container of the pod has a wrong token path",
        level: Warning,
        parties: ENTRA,
        codes: &[],
        basis: Basis::inferred("azure-workload-identity 1.6.0"),
        step: CheckStage::Request,
        judge: others_find_theirs,
    },
];

pub(super) fn workload<'a>(case: &Context<'a>) -> Option<&'a Workload> {
    case.evidence.workload.as_ref()
}

pub(super) fn annotations<'a>(case: &Context<'a>) -> Option<&'a Texts> {
    Some(&workload(case)?.annotations)
}

/// The expected audience of tokens.
pub(super) fn audience<'a>(case: &Context<'a>) -> &'a str {
    case.question.expected.audience.as_deref().unwrap_or(case.question.cloud.audience())
}

pub(super) fn has_label(pod: &Pod) -> bool {
    pod.metadata.labels.get(LABEL).is_some_and(|value| value == "true")
}

/// The containers of a labelled pod that the webhook mutates.
fn looked_after(pod: &Pod) -> impl Iterator<Item = &Container> {
    let skipped = pod.metadata.annotations.get(SKIPPED).map_or("", String::as_str);
    let is_skipped = move |name: &str| skipped.split(';').any(|skipped| skipped.trim() == name);
    pod.all_containers().filter(move |it| has_label(pod) && !is_skipped(&it.name))
}

/// Whether some container has the token, or may get its path from unknown variables.
fn may_find_it_by_itself(case: &Context, pod: &Pod) -> bool {
    let Some(workload) = workload(case) else { return false };
    pod.all_containers().any(|it| {
        it.has_unknown_variables(&workload.config_maps)
            || pod.tokens(it).any(|found| found.token.audience == audience(case))
    })
}

fn is_labelled(case: &Context) -> CheckResult {
    if annotations(case).is_none_or(|annotations| !annotations.contains_key(CLIENT_ID)) {
        return CheckResult::NotApplicable;
    }
    let pods = &workload(case).expect("it has annotations").pods;
    let is_left_alone =
        |pod: &&Pod| !has_label(pod) && candidates(case, pod).is_empty() && !may_find_it_by_itself(case, pod);
    match pods.iter().find(is_left_alone) {
        Some(pod) => violated(
            match pod.metadata.labels.get(LABEL) {
                Some(value) => format!("pod `{}` has the label `{LABEL}: \"{value}\"`", pod.metadata.name),
                None => format!("pod `{}` has no label `{LABEL}`", pod.metadata.name),
            },
            "\"true\": without it the webhook leaves the pod as it is",
            "set the label in the pod template, not on the Deployment, and recreate the pods",
        ),
        None if pods.is_empty() => CheckResult::NotApplicable,
        None => holds("every pod is labelled, or projects its own token"),
    }
}

fn finds_its_token(case: &Context) -> CheckResult {
    let pods = || workload(case).into_iter().flat_map(|workload| &workload.pods);
    if let Some((pod, container)) = pods().find_map(|pod| Some((pod, left_without(case, pod)?))) {
        let fix = match workload(case).and_then(|workload| workload.webhook) {
            Some(false) => "install azure-workload-identity, or project the token in the pod itself",
            _ => "recreate the pod while the webhook runs: it changes pods when they are created",
        };
        let seen = format!("{} has no `{TOKEN_FILE}`", in_words(pod, container));
        return violated(seen, "what the webhook sets", fix);
    }
    let presenters = presenters(case);
    match presenters.iter().find(|it| !it.is_sidecar && it.has_no_token()) {
        Some(it) => looks_in_vain(it),
        // The path of the sidecar has its own rule.
        None if presenters.iter().any(Presenter::has_no_token) => CheckResult::NotApplicable,
        None => match &presenters[..] {
            [] => CheckResult::NotApplicable,
            [first, ..] => holds(format!("{} finds its token", first.in_words())),
        },
    }
}

/// A container that the webhook should have mutated, of a pod in which none has the path of its token.
fn left_without<'a>(case: &Context, pod: &'a Pod) -> Option<&'a Container> {
    if !candidates(case, pod).is_empty() || may_find_it_by_itself(case, pod) {
        return None;
    }
    looked_after(pod).next()
}

fn looks_in_vain(it: &Presenter) -> CheckResult {
    let fix = if has_label(it.pod) {
        "leave the variable to the webhook, which keeps one that the pod template has: remove it there, and recreate the pod"
    } else {
        "set the variable to the mount path followed by the path of the projected token"
    };
    let seen = match it.place() {
        TokenPath::At(path) => {
            format!("{} looks for its token at `{path}`, where none is projected", it.in_words())
        }
        _ => format!("{} has an empty `{TOKEN_FILE}`", it.in_words()),
    };
    violated(seen, projected(it.pod, it.container), fix)
}

/// The paths of the projected tokens of a container.
pub(super) fn projected(pod: &Pod, container: &Container) -> String {
    match &pod.tokens(container).map(|found| found.path).collect::<Vec<_>>()[..] {
        [] => "a projected token, mounted into this container".to_owned(),
        there => quoted(there),
    }
}

fn knows_its_tenant(case: &Context) -> CheckResult {
    let lacking = |it: &Presenter| {
        let name = if it.is_sidecar { "AzureAd__TenantId" } else { "AZURE_TENANT_ID" };
        it.lacks(name).then_some(name)
    };
    let presenters = presenters(case);
    let Some((it, name)) = presenters.iter().find_map(|it| Some((it, lacking(it)?))) else {
        return CheckResult::NotApplicable;
    };
    let annotation = annotations(case).and_then(|texts| texts.get(super::settings::TENANT_ID));
    let fix = if it.is_sidecar {
        "set it in the ConfigMap of the sidecar, and recreate the pod"
    } else if it.environment.contains_key(name) {
        "set the variable in the pod template, or remove it there: the webhook keeps what a container has"
    } else if annotation.is_some_and(String::is_empty) {
        "remove the annotation `azure.workload.identity/tenant-id` from the service account, or set it: the webhook uses the empty value instead of its own tenant; then recreate the pods"
    } else if has_label(it.pod) {
        "set `AZURE_TENANT_ID` in the webhook's configuration, or annotate the service account with `azure.workload.identity/tenant-id`; then recreate the pods"
    } else {
        "set it in the pod template"
    };
    violated(format!("{} has no `{name}`", it.in_words()), "the tenant of the identity", fix)
}

fn asks_for_a_possible_life(case: &Context) -> CheckResult {
    let life_in = |texts: &'_ Texts| texts.get(EXPIRATION).filter(|life| !life.is_empty()).cloned();
    let of_account = annotations(case).and_then(life_in);
    // The webhook mutates labelled pods only, and uses the account's annotation if the pod has none.
    // Source: `getServiceAccountTokenExpiration` in azure-workload-identity 1.6.0.
    let pods: Vec<_> = workload(case).into_iter().flat_map(|workload| &workload.pods).collect();
    let lives: Vec<String> = if pods.is_empty() {
        of_account.into_iter().collect()
    } else {
        let labelled = pods.into_iter().filter(|pod| has_label(pod));
        labelled.filter_map(|pod| life_in(&pod.metadata.annotations).or_else(|| of_account.clone())).collect()
    };
    let wrong =
        lives.iter().find(|life| !life.parse::<u32>().is_ok_and(|life| (3600..=86_400).contains(&life)));
    wrong.map_or(CheckResult::NotApplicable, |life| {
        violated(
            format!("annotation `{EXPIRATION}` is `{life}`"),
            "3600 to 86400",
            "correct it: the webhook refuses the pod",
        )
    })
}

/// The first of the presenters whose token breaks a rule.
fn first_token(
    case: &Context,
    rule: impl Fn(&Presenter, &ProjectedToken) -> Option<CheckResult>,
) -> CheckResult {
    let presenters = presenters(case);
    let broken = presenters.iter().find_map(|it| rule(it, it.token()?.token));
    broken.unwrap_or(CheckResult::NotApplicable)
}

fn life(token: &ProjectedToken) -> Duration {
    let seconds = token.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(DEFAULT_LIFE, Duration::from_secs)
}

fn projects_for_a_day(case: &Context) -> CheckResult {
    first_token(case, |it, token| {
        (life(token) > ENTRA_LIFE).then(|| {
            violated(
                format!("{} is given a token with a lifetime of {} s", it.in_words(), life(token).as_secs()),
                format!("{} s at most", ENTRA_LIFE.as_secs()),
                "set `expirationSeconds` of the projected volume to 86400 at most; an API server that caps lifetimes (`--service-account-max-token-expiration`) may give less than requested",
            )
        })
    })
}

fn projects_for_long_enough(case: &Context) -> CheckResult {
    first_token(case, |it, token| {
        (life(token) < BRIEF_LIFE).then(|| {
            violated(
                format!("{} is given a token with a lifetime of {} s", it.in_words(), life(token).as_secs()),
                format!("{} s at least", BRIEF_LIFE.as_secs()),
                "set `expirationSeconds` of the projected volume to 3600, unless the program reads the file for every request",
            )
        })
    })
}

fn is_replaced_in_time(case: &Context) -> CheckResult {
    let presenters = presenters(case);
    let stale = presenters.iter().find_map(|it| Some((it, it.token().filter(|it| !it.is_refreshed)?)));
    stale.map_or(CheckResult::NotApplicable, |(it, found)| {
        violated(
            format!("{} has `{}` by `subPath`", it.in_words(), found.path),
            "the whole volume, mounted as a folder",
            "remove `subPath` and mount the volume as a folder: the kubelet never updates a file that is mounted by `subPath`, so the token expires an hour after the pod starts",
        )
    })
}

fn projects_for_the_audience(case: &Context) -> CheckResult {
    let expected = audience(case);
    first_token(case, |it, token| {
        if it.is_sidecar || token.audience == expected {
            return None;
        }
        let is_bound = it.pod.metadata.annotations.contains_key(BINDING);
        let seen = match token.audience.as_str() {
            "" => format!("{} is given a token for the API server itself", it.in_words()),
            other => format!("{} is given a token for `{other}`", it.in_words()),
        };
        let fix = if is_bound {
            format!("remove the annotation `{BINDING}` from the pod template, and recreate the pod")
        } else if token.audience.is_empty() {
            "project a token for that audience, beside the one that is there, and name its path in the variable".to_owned()
        } else {
            "set that audience in the projected volume, or in the webhook's configuration where the webhook has made it".to_owned()
        };
        let verdict = violated(seen, format!("`{expected}`"), fix);
        Some(if is_bound {
            verdict.unless(
                "the program uses the identity binding's proxy (`enable_azure_proxy`, `EnableAzureProxy`)",
            )
        } else {
            verdict
        })
    })
}

fn others_find_theirs(case: &Context) -> CheckResult {
    let others = others(case);
    let told = others.iter().find_map(|it| match it.place() {
        TokenPath::At(path) => Some((it, path)),
        TokenPath::Unreadable | TokenPath::Unnamed => None,
    });
    let Some((it, path)) = told else { return CheckResult::NotApplicable };
    let seen = match it.token() {
        Some(found) => {
            format!("{} looks for its token at `{path}`: one for `{}`", it.in_words(), found.token.audience)
        }
        None => format!("{} looks for its token at `{path}`, where none is projected", it.in_words()),
    };
    violated(
        seen,
        projected(it.pod, it.container),
        "correct its variables, or leave them out, if it asks Entra; another container of the pod finds its token",
    )
}
