//! Rules of the service account and its pods: whether the workload comes as far as asking Entra at all.

use super::{Basis, Case, Check, ENTRA, Error, Step, Verdict, holds, quoted, violated};
use crate::core::workload::{Container, Pod, Texts, Workload};

const LABEL: &str = "azure.workload.identity/use";
pub(super) const CLIENT_ID: &str = "azure.workload.identity/client-id";
const EXPIRATION: &str = "azure.workload.identity/service-account-token-expiration";
const SKIPPED: &str = "azure.workload.identity/skip-containers";
pub(super) const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "POD-LABEL",
        rule: "a pod of an annotated service account has the label `azure.workload.identity/use: \"true\"`, or projects its own token",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_218],
        basis: Basis::documented("azure-workload-identity, troubleshooting"),
        step: Step::Request,
        judge: is_labelled,
    },
    Check {
        id: "POD-ENV",
        rule: "the webhook has given the pod its variables, and the file they name is there",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_218],
        basis: Basis::observed("azure-workload-identity #461, #525, #540"),
        step: Step::Request,
        judge: finds_its_token,
    },
    Check {
        id: "POD-EXP",
        rule: "a token life in annotations is between 3600 s and 86400 s",
        level: Error,
        parties: ENTRA,
        codes: &[],
        basis: Basis::documented("azure-workload-identity, webhook"),
        step: Step::Request,
        judge: asks_for_a_possible_life,
    },
    Check {
        id: "POD-AUD",
        rule: "the token that the pod is pointed to is projected for the expected audience",
        level: Error,
        parties: ENTRA,
        codes: &[700_212],
        basis: Basis::inferred("azure-workload-identity, webhook"),
        step: Step::Audience,
        judge: projects_for_the_audience,
    },
];

pub(super) fn workload<'a>(case: &Case<'a>) -> Option<&'a Workload> {
    case.evidence.workload.as_ref()
}

pub(super) fn annotations<'a>(case: &Case<'a>) -> Option<&'a Texts> {
    workload(case)?.annotations.as_ref()
}

/// The audience that tokens must be for.
pub(super) fn audience<'a>(case: &Case<'a>) -> &'a str {
    case.question.expected.audience.as_deref().unwrap_or(case.question.cloud.audience())
}

fn has_label(pod: &Pod) -> bool {
    pod.metadata.labels.get(LABEL).is_some_and(|value| value == "true")
}

/// The containers that the webhook looks after, each with its pod.
pub(super) fn looked_after<'a>(case: &Case<'a>) -> impl Iterator<Item = (&'a Pod, &'a Container)> {
    let pods = workload(case).into_iter().flat_map(|workload| &workload.pods).filter(|pod| has_label(pod));
    pods.flat_map(|pod| {
        let skipped = pod.metadata.annotations.get(SKIPPED).map_or("", String::as_str);
        let is_skipped = move |name: &str| skipped.split(';').any(|skipped| skipped.trim() == name);
        pod.spec.containers.iter().filter(move |it| !is_skipped(&it.name)).map(move |it| (pod, it))
    })
}

fn is_labelled(case: &Case) -> Verdict {
    if annotations(case).is_none_or(|annotations| !annotations.contains_key(CLIENT_ID)) {
        return Verdict::NotApplicable;
    }
    let projects = |pod: &Pod| {
        pod.spec.containers.iter().any(|it| pod.tokens(it).any(|(_, token)| token.audience == audience(case)))
    };
    let pods = &workload(case).expect("it has annotations").pods;
    match pods.iter().find(|pod| !has_label(pod) && !projects(pod)) {
        Some(pod) => violated(
            match pod.metadata.labels.get(LABEL) {
                Some(value) => format!("pod `{}` has the label `{LABEL}: \"{value}\"`", pod.metadata.name),
                None => format!("pod `{}` has no label `{LABEL}`", pod.metadata.name),
            },
            "\"true\": without it the webhook leaves the pod as it is",
            "set the label in the pod template, not on the Deployment, and have the pods made anew",
        ),
        None if pods.is_empty() => Verdict::NotApplicable,
        None => holds("every pod is labelled, or projects its own token"),
    }
}

fn finds_its_token(case: &Case) -> Verdict {
    let workload = workload(case);
    let problem = looked_after(case).find_map(|(pod, container)| {
        let of = format!("container `{}` of pod `{}`", container.name, pod.metadata.name);
        let environment = container.environment(&workload?.config_maps);
        let needed = [TOKEN_FILE, "AZURE_TENANT_ID", "AZURE_AUTHORITY_HOST"];
        let missing: Vec<_> = needed.iter().filter(|name| !environment.contains_key(**name)).collect();
        if !missing.is_empty() {
            let fix = match workload?.webhook {
                Some(false) => "install azure-workload-identity, or project the token in the pod itself",
                _ => "have the pod made anew while the webhook runs: it changes pods when they are made",
            };
            return Some(violated(format!("{of} has no {}", quoted(missing)), "what the webhook gives", fix));
        }
        let file = environment[TOKEN_FILE].as_deref()?;
        let fix = "take the path from the variable, and leave the variable to the webhook";
        pod.token_at(container, file).is_none().then(|| {
            violated(
                format!("{of} looks for its token at `{file}`, where none is projected"),
                projected(pod, container),
                fix,
            )
        })
    });
    problem.unwrap_or(Verdict::NotApplicable)
}

/// Where a container finds projected tokens.
pub(super) fn projected(pod: &Pod, container: &Container) -> String {
    match &pod.tokens(container).map(|(path, _)| path).collect::<Vec<_>>()[..] {
        [] => "a projected token, mounted into this container".to_owned(),
        there => quoted(there),
    }
}

fn asks_for_a_possible_life(case: &Case) -> Verdict {
    let pods = workload(case).into_iter().flat_map(|workload| &workload.pods);
    let texts = annotations(case).into_iter().chain(pods.map(|pod| &pod.metadata.annotations));
    let wrong = texts
        .filter_map(|texts| texts.get(EXPIRATION))
        .find(|life| !life.parse::<u32>().is_ok_and(|seconds| (3600..=86_400).contains(&seconds)));
    wrong.map_or(Verdict::NotApplicable, |life| {
        violated(
            format!("annotation `{EXPIRATION}` is `{life}`"),
            "3600 to 86400",
            "correct it: the webhook refuses the pod",
        )
    })
}

fn projects_for_the_audience(case: &Case) -> Verdict {
    let expected = audience(case);
    let Some(workload) = workload(case) else { return Verdict::NotApplicable };
    let pods = workload.pods.iter().flat_map(|pod| pod.spec.containers.iter().map(move |it| (pod, it)));
    let wrong = pods.filter_map(|(pod, container)| {
        let file = container.environment(&workload.config_maps).remove(TOKEN_FILE).flatten()?;
        let token = pod.token_at(container, &file)?;
        (token.audience != expected).then_some((pod, &token.audience))
    });
    wrong
        .map(|(pod, audience)| {
            violated(
                format!("pod `{}` is given a token for `{audience}`", pod.metadata.name),
                format!("`{expected}`"),
                "set that audience in the projected volume, or in the webhook's configuration",
            )
        })
        .next()
        .unwrap_or(Verdict::NotApplicable)
}
