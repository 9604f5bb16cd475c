//! Rules of the pods' settings: authority, tenant and client.

use url::Url;

use super::{
    Basis, Check, CheckResult, CheckStage, Context, ENTRA, Error, Warning, holds,
    pod::{CLIENT_ID, annotations, has_label},
    presenter::{Presenter, presenters},
    violated,
};
use crate::core::verification::Cloud;

pub(super) const TENANT_ID: &str = "azure.workload.identity/tenant-id";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "AUTH-HOST",
        rule: "`AZURE_AUTHORITY_HOST` is the https URL of the Entra of this cloud",
        level: Error,
        parties: ENTRA,
        codes: &[50_049, 900_382, 90_002],
        basis: Basis::observed("azure-workload-identity #611"),
        step: CheckStage::Request,
        judge: asks_the_right_host,
    },
    Check {
        id: "TENANT-ID",
        rule: "the tenant is named by a GUID or a domain",
        level: Error,
        parties: ENTRA,
        codes: &[900_023, 90_002],
        basis: Basis::documented("Entra error codes"),
        step: CheckStage::Tenant,
        judge: names_a_tenant,
    },
    Check {
        id: "CLIENT-ID",
        rule: "the client ID is a GUID; that of the application, not of its service principal",
        level: Error,
        parties: ENTRA,
        codes: &[700_016],
        basis: Basis::documented("Entra error codes"),
        step: CheckStage::Client,
        judge: names_a_client,
    },
    Check {
        id: "SA-ANNOT",
        rule: "the service account, not a Service or the pod, has the annotation `azure.workload.identity/client-id`, or the pod names its client ID itself: without one, SDKs fail before they ask Entra",
        level: Warning,
        parties: ENTRA,
        codes: &[],
        basis: Basis::observed("azure-workload-identity #1357"),
        step: CheckStage::Client,
        judge: knows_its_client,
    },
];

/// A setting and its place.
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

/// The readable values of a variable in the containers that get furthest: one name for Azure SDKs, one for
/// the sidecar.
fn variable(case: &Context, [sdk, sidecar]: [&str; 2]) -> Vec<Setting> {
    let read = presenters(case).into_iter().filter_map(|it| {
        let name = if it.is_sidecar { sidecar } else { sdk };
        let value = it.environment.get(name)?.clone()?;
        Some(Setting { place: format!("`{name}` of {}", it.in_words()), value })
    });
    read.collect()
}

fn asks_the_right_host(case: &Context) -> CheckResult {
    let cloud = case.question.cloud;
    let is_right = |it: &Setting| {
        Url::parse(&it.value).is_ok_and(|url| {
            let is_host = url.host_str().is_some_and(|host| cloud.login_hosts().contains(&host));
            // Only a host, and perhaps a path.
            let is_bare = url.port().is_none()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().or(url.fragment()).is_none();
            url.scheme() == "https" && is_host && is_bare && it.value.trim() == it.value
        })
    };
    let named = variable(case, ["AZURE_AUTHORITY_HOST", "AzureAd__Instance"]);
    let Some(wrong) = named.into_iter().find(|it| !is_right(it)) else { return is_asked_by_default(case) };
    let is_of = |cloud: &Cloud| cloud.login_hosts().iter().any(|host| wrong.value.contains(host));
    violated(
        wrong.in_words(),
        format!("`https://{}/`", cloud.login_hosts()[0]),
        if wrong.value.is_empty() {
            "set the variable in the pod template, or remove it there: the webhook keeps what a container has"
        } else if wrong.value.starts_with("https:") && Cloud::ALL.iter().any(is_of) {
            "correct it, or pass the Microsoft cloud with `--cloud`"
        } else {
            "correct it, in the pod or in the configuration of the webhook"
        },
    )
}

/// Without the variable, requests go to the Entra of the public cloud.
fn is_asked_by_default(case: &Context) -> CheckResult {
    let host = case.question.cloud.login_hosts()[0];
    let name = |it: &Presenter| if it.is_sidecar { "AzureAd__Instance" } else { "AZURE_AUTHORITY_HOST" };
    let presenters = presenters(case);
    let lacks = |it: &&Presenter| case.question.cloud != Cloud::Public && it.lacks(name(it));
    presenters.iter().find(lacks).map_or(CheckResult::NotApplicable, |it| {
        violated(
            format!("{} has no `{}`, and asks the public cloud", it.in_words(), name(it)),
            format!("`https://{host}/`"),
            "set the variable in the pod template, or `AZURE_ENVIRONMENT` in the webhook's configuration",
        )
    })
}

fn is_guid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// The values of an annotation, and of variables of the pods and their sidecars; a missing value has its own
/// rules.
fn named(case: &Context, annotation: &str, variables: [&str; 2]) -> Vec<Setting> {
    let annotated = annotations(case).and_then(|texts| texts.get(annotation)).cloned();
    let annotated = annotated.map(|value| Setting { place: format!("annotation `{annotation}`"), value });
    let named = annotated.into_iter().chain(variable(case, variables));
    named.filter(|it| !it.value.is_empty()).collect()
}

fn names_a_tenant(case: &Context) -> CheckResult {
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
        None => CheckResult::NotApplicable,
    }
}

fn names_a_client(case: &Context) -> CheckResult {
    let named = named(case, CLIENT_ID, ["AZURE_CLIENT_ID", "AzureAd__ClientId"]);
    match named.iter().find(|it| !is_guid(&it.value)) {
        Some(wrong) => violated(
            wrong.in_words(),
            "a GUID",
            "take the application (client) ID, not the object ID nor a name",
        ),
        None => match named.first() {
            Some(first) => holds(format!("client ID `{}`", first.value)),
            None => CheckResult::NotApplicable,
        },
    }
}

fn knows_its_client(case: &Context) -> CheckResult {
    let Some(texts) = annotations(case) else { return CheckResult::NotApplicable };
    let lacking = |it: &Presenter| {
        let name = if it.is_sidecar { "AzureAd__ClientId" } else { "AZURE_CLIENT_ID" };
        it.lacks(name).then_some(name)
    };
    let presenters = presenters(case);
    let Some((it, name)) = presenters.iter().find_map(|it| Some((it, lacking(it)?))) else {
        return CheckResult::NotApplicable;
    };
    let (why, fix) = match texts.get(CLIENT_ID).map(String::as_str) {
        _ if it.is_sidecar => ("", "set it in the ConfigMap of the sidecar, and recreate the pod"),
        _ if !has_label(it.pod) => ("", "set the variable in the pod template"),
        None => (
            ": the service account has no annotation `azure.workload.identity/client-id`",
            "annotate the service account, and recreate the pods; or set the variable in the pod template",
        ),
        Some("") => (
            ": the annotation `azure.workload.identity/client-id` of the service account is empty",
            "set the annotation, and recreate the pods; or set the variable in the pod template",
        ),
        Some(_) => (
            ", and the service account has the annotation",
            "recreate the pods: they are older than the annotation, or set the variable to an empty value themselves",
        ),
    };
    violated(
        format!(
            "{} has no `{name}`{why}; an SDK fails before it asks, unless the program names the client ID",
            it.in_words()
        ),
        "the client ID of the application or managed identity",
        fix,
    )
}
