//! Rules of what the pods are told: at which authority, in which tenant, as which client they ask.

use url::Url;

use super::{
    Basis, Case, Check, ENTRA, Error, Step, Verdict, Warning, holds,
    pod::{CLIENT_ID, annotations, looked_after, workload},
    violated,
};
use crate::core::verification::Cloud;

const TENANT_ID: &str = "azure.workload.identity/tenant-id";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "AUTH-HOST",
        rule: "`AZURE_AUTHORITY_HOST` is the https URL of the Entra of this cloud",
        level: Error,
        parties: ENTRA,
        codes: &[50_049, 900_382, 90_002],
        basis: Basis::observed("azure-workload-identity #611"),
        step: Step::Request,
        judge: asks_the_right_host,
    },
    Check {
        id: "TENANT-ID",
        rule: "the tenant is named by a GUID or a domain",
        level: Error,
        parties: ENTRA,
        codes: &[900_023, 90_002],
        basis: Basis::documented("Entra error codes"),
        step: Step::Tenant,
        judge: names_a_tenant,
    },
    Check {
        id: "CLIENT-ID",
        rule: "the client ID is a GUID; that of the application, not of its service principal",
        level: Error,
        parties: ENTRA,
        codes: &[700_016],
        basis: Basis::documented("Entra error codes"),
        step: Step::Client,
        judge: names_a_client,
    },
    Check {
        id: "SA-ANNOT",
        rule: "the service account, not a Service or the pod, has the annotation `azure.workload.identity/client-id`",
        level: Warning,
        parties: ENTRA,
        codes: &[700_016],
        basis: Basis::observed("azure-workload-identity #1357"),
        step: Step::Client,
        judge: is_annotated,
    },
];

/// What somebody has set, and where.
struct Setting {
    place: String,
    value: String,
}

impl Setting {
    fn in_words(&self) -> String {
        match self.value.as_str() {
            "" => format!("{} is empty", self.place),
            value => format!("{} is `{value}`", self.place),
        }
    }
}

/// A variable in all pods, as far as it can be read.
fn variable(case: &Case, name: &str) -> Vec<Setting> {
    let Some(workload) = workload(case) else { return Vec::new() };
    let containers = workload.pods.iter().flat_map(|pod| pod.spec.containers.iter().map(move |it| (pod, it)));
    let read = containers.filter_map(|(pod, container)| {
        let value = container.environment(&workload.config_maps).remove(name).flatten()?;
        let place = format!("`{name}` of container `{}` of pod `{}`", container.name, pod.metadata.name);
        Some(Setting { place, value })
    });
    read.collect()
}

fn asks_the_right_host(case: &Case) -> Verdict {
    let cloud = case.question.cloud;
    let is_right = |it: &Setting| {
        Url::parse(&it.value).is_ok_and(|url| {
            url.scheme() == "https" && url.host_str().is_some_and(|host| cloud.login_hosts().contains(&host))
        })
    };
    let mut named = ["AZURE_AUTHORITY_HOST", "AzureAd__Instance"].iter().flat_map(|it| variable(case, it));
    let Some(wrong) = named.find(|it| !is_right(it)) else { return Verdict::NotApplicable };
    let is_of = |cloud: &Cloud| cloud.login_hosts().iter().any(|host| wrong.value.contains(host));
    violated(
        wrong.in_words(),
        format!("`https://{}/`", cloud.login_hosts()[0]),
        if wrong.value.is_empty() {
            "have the pod made anew while the webhook runs, or set the variable in the pod"
        } else if wrong.value.starts_with("https:") && Cloud::ALL.iter().any(is_of) {
            "correct it, or say with `--cloud` which cloud of Microsoft it is"
        } else {
            "correct it, in the pod or in the configuration of the webhook"
        },
    )
}

fn is_guid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// What stands in an annotation, and in the variables of the pods and their sidecars.
fn named(case: &Case, annotation: &str, variables: [&str; 2]) -> Vec<Setting> {
    let annotated = annotations(case).and_then(|texts| texts.get(annotation)).cloned();
    let annotated = annotated.map(|value| Setting { place: format!("annotation `{annotation}`"), value });
    annotated.into_iter().chain(variables.into_iter().flat_map(|name| variable(case, name))).collect()
}

fn names_a_tenant(case: &Case) -> Verdict {
    let is_domain = |text: &str| {
        text.contains('.')
            && text.split('.').all(|label| {
                !label.is_empty() && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            })
    };
    let named = named(case, TENANT_ID, ["AZURE_TENANT_ID", "AzureAd__TenantId"]);
    match named.iter().find(|it| !is_guid(&it.value) && !is_domain(&it.value)) {
        Some(wrong) => violated(
            wrong.in_words(),
            "a GUID or a domain",
            "take it from `az account show --query tenantId`",
        ),
        None => Verdict::NotApplicable,
    }
}

fn names_a_client(case: &Case) -> Verdict {
    let named = named(case, CLIENT_ID, ["AZURE_CLIENT_ID", "AzureAd__ClientId"]);
    match named.iter().find(|it| !is_guid(&it.value)) {
        Some(wrong) => violated(
            wrong.in_words(),
            "a GUID",
            "take the application (client) ID, not the object ID nor a name",
        ),
        None => match named.first() {
            Some(first) => holds(format!("client ID `{}`", first.value)),
            None => Verdict::NotApplicable,
        },
    }
}

fn is_annotated(case: &Case) -> Verdict {
    let Some(texts) = annotations(case) else { return Verdict::NotApplicable };
    let asks = looked_after(case).next().is_some() && variable(case, "AZURE_CLIENT_ID").is_empty();
    if texts.contains_key(CLIENT_ID) || !asks {
        return Verdict::NotApplicable;
    }
    violated(
        format!("the service account has no annotation `{CLIENT_ID}`, so the pods have no `AZURE_CLIENT_ID`"),
        "the client ID of the application or managed identity",
        "annotate the service account, and have the pods made anew; or set the variable in the pod",
    )
}
