//! Rules of the pods' settings: authority, tenant and client.

use url::Url;

use super::{
    Basis, Check, CheckResult, CheckStage, Context, ENTRA, Error, REPORTS, Warning, holds,
    pod::{CLIENT_ID, annotations, has_label},
    presenter::{Presenter, presenters},
    violated,
};
use crate::core::{entra::is_guid, verification::Cloud};

/// A placeholder that people leave in.
const NO_GUID: &str = "00000000-0000-0000-0000-000000000000";
/// Names that stand for the tenant of the application.
const SHARED_TENANTS: [&str; 3] = ["common", "organizations", "consumers"];
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
        codes: &[900_023, 90_002, 900_021, 90_013],
        basis: Basis::documented("Entra error codes"),
        step: CheckStage::Tenant,
        judge: names_a_tenant,
    },
    Check {
        id: "TENANT-CLOUD",
        rule: "the tenant's domain is one of the cloud that is asked",
        level: Error,
        parties: ENTRA,
        codes: &[90_002, 900_382],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Tenant,
        judge: is_of_this_cloud,
    },
    Check {
        id: "CLIENT-ID",
        rule: "the client ID is a GUID; that of the application, not of its service principal",
        level: Error,
        parties: ENTRA,
        codes: &[700_016, 700_038, 90_013, 70_025],
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

/// A setting that the request itself has.
fn requested(place: &str, value: Option<&str>) -> Option<Setting> {
    value.map(|value| Setting { place: format!("{place} of the request"), value: value.to_owned() })
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
    let named = variable(case, ["AZURE_AUTHORITY_HOST", "AzureAd__Instance"]).into_iter();
    let named =
        named.chain(requested("the authority", case.request().and_then(|it| it.authority.as_deref())));
    let wrong = named.into_iter().find(|it| !is_right(it));
    let Some(wrong) = wrong else { return is_asked_by_default(case) };
    let is_of = |cloud: &Cloud| cloud.login_hosts().iter().any(|host| wrong.value.contains(host));
    let is_of_microsoft = wrong.value.contains("microsoft") || wrong.value.contains(".windows");
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
    .with_codes(match () {
        () if Cloud::ALL.iter().any(is_of) => &[900_382, 90_002],
        () if is_of_microsoft => &[90_002, 50_049],
        () => &[50_049, 90_002],
    })
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
    let mut named = named(case, TENANT_ID, ["AZURE_TENANT_ID", "AzureAd__TenantId"]);
    named.extend(requested("the tenant", case.request().and_then(|it| it.tenant.as_deref())));
    let is_shared = |text: &str| SHARED_TENANTS.contains(&text);
    // The last label of a domain has a letter.
    let ends_in_digits =
        |text: &str| text.rsplit('.').next().is_some_and(|label| label.bytes().all(|c| c.is_ascii_digit()));
    let fault = |it: &Setting| -> Option<&'static [u32]> {
        match it.value.as_str() {
            NO_GUID => Some(&[900_021, 90_002]),
            text if is_shared(text) && names_own_api(case) => Some(&[900_023]),
            text if is_guid(text) || is_shared(text) => None,
            text if is_domain(text) && ends_in_digits(text) => Some(&[90_002, 900_023]),
            text if is_domain(text) => None,
            text if text.bytes().any(|c| b"<>%{}$ ".contains(&c)) => Some(&[90_013, 900_023]),
            _ => Some(&[900_023, 90_002]),
        }
    };
    match named.iter().find_map(|it| Some((it, fault(it)?))) {
        Some((wrong, codes)) => violated(
            wrong.in_words(),
            "a GUID or a domain",
            "take it from `az account show --query tenantId`",
        )
        .with_codes(codes),
        None => CheckResult::NotApplicable,
    }
}

/// Whether the scope names an API by its application id: its tenant has to be asked.
fn names_own_api(case: &Context) -> bool {
    let scope = case.request().and_then(|it| it.field("scope"));
    scope.is_some_and(|scope| scope.starts_with("api://") && !scope.starts_with("api://AzureADTokenExchange"))
}

/// The tenant that is asked is one of the cloud of its authority, as far as its name tells.
fn is_of_this_cloud(case: &Context) -> CheckResult {
    let ends = [
        ("onmschina.cn", Cloud::China),
        ("onmicrosoft.us", Cloud::UsGov),
        ("onmicrosoft.com", Cloud::Public),
    ];
    let mut named = named(case, TENANT_ID, ["AZURE_TENANT_ID", "AzureAd__TenantId"]);
    named.extend(requested("the tenant", case.request().and_then(|it| it.tenant.as_deref())));
    let foreign = named.iter().find_map(|it| {
        let cloud = ends.iter().find(|(end, _)| it.value.to_lowercase().ends_with(end))?.1;
        (cloud != case.question.cloud).then_some((it, cloud))
    });
    foreign.map_or(CheckResult::NotApplicable, |(it, cloud)| {
        violated(
            format!("{}, a tenant of the cloud `{}`", it.in_words(), cloud.word()),
            format!("a tenant of the cloud `{}`", case.question.cloud.word()),
            "set `AZURE_AUTHORITY_HOST` to the Entra of that cloud, and pass it with `--cloud`",
        )
    })
}

fn names_a_client(case: &Context) -> CheckResult {
    let mut named = named(case, CLIENT_ID, ["AZURE_CLIENT_ID", "AzureAd__ClientId"]);
    named.extend(requested("the client ID", case.request().and_then(|it| it.field("client_id"))));
    let known = case.identity();
    let is_object = |it: &Setting| {
        known.is_some_and(|known| {
            known.object_id.as_deref() == Some(&it.value) && known.client_id.as_deref() != Some(&it.value)
        })
    };
    let is_other =
        |it: &Setting| known.and_then(|it| it.client_id.as_ref()).is_some_and(|id| *id != it.value);
    if let Some(zeros) = named.iter().find(|it| it.value == NO_GUID) {
        return violated(zeros.in_words(), "a GUID", "take it from `az identity show --query clientId`")
            .with_codes(&[700_038]);
    }
    if let Some(wrong) = named.iter().find(|it| !is_guid(&it.value)) {
        let is_markup = wrong.value.bytes().any(|c| b"<>{}$".contains(&c));
        return violated(
            wrong.in_words(),
            "a GUID",
            "take the application (client) ID, not the object ID nor a name",
        )
        .with_codes(if is_markup { &[90_013] } else { &[700_016] });
    }
    if let Some(wrong) = named.iter().find(|it| is_object(it)) {
        return violated(
            format!("{}: the object ID of the identity", wrong.in_words()),
            format!("its client ID, `{}`", known.and_then(|it| it.client_id.as_deref()).unwrap_or_default()),
            "take the client ID from `az identity show --query clientId` or `az ad app show --query appId`",
        )
        .with_codes(&[700_016]);
    }
    if let Some(wrong) = named.iter().find(|it| is_other(it)) {
        let id = known.and_then(|it| it.client_id.as_deref()).unwrap_or_default();
        return super::differs(
            &wrong.place,
            &wrong.value,
            id,
            "use the client ID of the identity that is there now: one that was made anew has another",
        )
        .with_codes(&[700_016, 70_025]);
    }
    match named.first() {
        Some(first) => holds(format!("client ID `{}`", first.value)),
        None => CheckResult::NotApplicable,
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
