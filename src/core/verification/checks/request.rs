//! Rules of the token request itself, and of the identity that it is for.

use super::{Basis, Check, CheckResult, CheckStage, Context, ENTRA, Error, REPORTS, quoted, violated};
use crate::core::entra::{ASSERTION_TYPE, IdentityKind, JWT_BEARER, Leg, TokenRequest, is_guid};

const GRANTS: [&str; 8] = [
    "client_credentials",
    JWT_BEARER,
    "refresh_token",
    "authorization_code",
    "password",
    "urn:ietf:params:oauth:grant-type:device_code",
    "device_code",
    "user_fic",
];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "REQ-FIELDS",
        rule: "the form has `grant_type`, `client_id` and `scope`",
        level: Error,
        parties: ENTRA,
        codes: &[900_144, 90_014],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Request,
        judge: has_its_fields,
    },
    Check {
        id: "REQ-TWO",
        rule: "it has an assertion or a secret, not both",
        level: Error,
        parties: ENTRA,
        codes: &[9_002_324],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Request,
        judge: proves_itself_once,
    },
    Check {
        id: "ID-THERE",
        rule: "the identity exists",
        level: Error,
        parties: ENTRA,
        codes: &[700_016],
        basis: Basis::documented("Entra error codes"),
        step: CheckStage::Client,
        judge: the_identity_exists,
    },
    Check {
        id: "ID-ENABLED",
        rule: "the identity is enabled",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_112],
        basis: Basis::documented("Entra error codes"),
        step: CheckStage::Client,
        judge: the_identity_is_enabled,
    },
    Check {
        id: "REQ-GRANT",
        rule: "the `grant_type` is one that Entra knows",
        level: Error,
        parties: ENTRA,
        codes: &[70_003, 50_107],
        basis: Basis::documented("Entra error codes"),
        step: CheckStage::Grant,
        judge: the_grant_is_known,
    },
    Check {
        id: "REQ-SCOPE",
        rule: "the scope of client credentials names a resource and `/.default`",
        level: Error,
        parties: ENTRA,
        codes: &[1_002_012, 70_011],
        basis: Basis::documented("client credentials grant"),
        step: CheckStage::Grant,
        judge: the_scope_is_a_default,
    },
    Check {
        id: "REQ-RESOURCE",
        rule: "the resource in the scope is of the cloud that is asked",
        level: Error,
        parties: ENTRA,
        codes: &[500_011],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Grants,
        judge: the_resource_is_of_this_cloud,
    },
    Check {
        id: "REQ-PROOF",
        rule: "it has a client assertion",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_216, 7_000_218, 50_027, 900_144],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Grant,
        judge: there_is_a_proof,
    },
    Check {
        id: "REQ-PUBLIC",
        rule: "an application that proves itself is no public client",
        level: Error,
        parties: ENTRA,
        codes: &[700_025],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Grant,
        judge: a_public_client_proves_nothing,
    },
    Check {
        id: "REQ-SECRET",
        rule: "it has the token, and no client secret: whether that is right cannot be known here",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_215, 7_000_222, 7_000_232],
        basis: Basis::documented("Entra error codes"),
        step: CheckStage::Form,
        judge: no_secret_is_sent,
    },
    Check {
        id: "ID-PRINCIPAL",
        rule: "the tenant that is asked has a service principal of the application",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_229, 700_016],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Principal,
        judge: the_tenant_has_its_principal,
    },
    Check {
        id: "ID-TENANT",
        rule: "the tenant that is asked is that of the identity, or has a service principal of it",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_229, 700_016, 90_002, 900_023],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Principal,
        judge: the_tenant_is_its_home,
    },
];

/// Applies a rule to the request, if there is one.
pub(super) fn request(
    case: &Context,
    rule: impl FnOnce(&TokenRequest) -> Option<CheckResult>,
) -> CheckResult {
    case.request().and_then(rule).unwrap_or(CheckResult::NotApplicable)
}

/// Whether a token is asked for, and not a sign-in.
fn is_token_request(request: &TokenRequest) -> bool {
    request.field("response_type").is_none()
}

fn has_its_fields(case: &Context) -> CheckResult {
    request(case, |it| {
        // The older endpoint takes a resource.
        let needs_scope =
            it.field("grant_type") == Some("client_credentials") && it.field("resource").is_none();
        let needed =
            ["grant_type", "client_id", "scope"].into_iter().filter(|name| *name != "scope" || needs_scope);
        let missing: Vec<_> = needed.filter(|name| it.field(name).is_none()).collect();
        let first = *missing.first().filter(|_| is_token_request(it))?;
        let fix = "use a library of Microsoft, or send the fields as a form, not as JSON";
        let found = violated(format!("the form has no {}", quoted(&missing)), "all of them", fix);
        Some(found.with_codes(if first == "scope" { &[90_014] } else { &[900_144] }))
    })
}

fn proves_itself_once(case: &Context) -> CheckResult {
    request(case, |it| {
        let both = it.field("client_assertion").and(it.field("client_secret"));
        both.map(|_| {
            violated("it has a client assertion and a client secret", "one of them", "remove the secret")
        })
    })
}

fn the_identity_exists(case: &Context) -> CheckResult {
    match case.identity() {
        // A managed identity is known in its own tenant only.
        Some(identity)
            if identity.kind == Some(IdentityKind::Missing)
                || (case.is_managed_identity() && identity.has_principal == Some(false)) =>
        {
            violated(
                "Microsoft's answer says that there is no such identity in this tenant",
                "an application or a managed identity",
                "make it, or take the client ID of the one that replaced it",
            )
        }
        _ => CheckResult::NotApplicable,
    }
}

fn the_identity_is_enabled(case: &Context) -> CheckResult {
    match case.identity() {
        Some(identity) if !identity.is_enabled => violated(
            "the identity is disabled",
            "`accountEnabled`: true",
            "have an administrator enable it; that takes up to five minutes",
        ),
        _ => CheckResult::NotApplicable,
    }
}

fn the_grant_is_known(case: &Context) -> CheckResult {
    request(case, |it| {
        // A blueprint is told what it may not do first.
        let grant = it.field("grant_type").filter(|grant| !GRANTS.contains(grant) && !case.is_blueprint())?;
        let is_saml = grant.ends_with("saml2-bearer");
        // Something else may stand there by mistake: a secret, a token.
        let is_name =
            grant.len() <= 80 && grant.bytes().all(|it| it.is_ascii_lowercase() || b"_:-2".contains(&it));
        let seen = if is_name {
            format!("`grant_type` is `{grant}`")
        } else {
            "`grant_type` is no grant".to_owned()
        };
        let found = violated(seen, quoted(GRANTS), "use a library of Microsoft");
        Some(found.with_codes(if is_saml { &[50_107] } else { &[70_003] }))
    })
}

fn the_scope_is_a_default(case: &Context) -> CheckResult {
    request(case, |it| {
        let scope = it.field("scope").filter(|_| it.field("grant_type") == Some("client_credentials"))?;
        let scopes: Vec<_> = it.resource_scopes().collect();
        if scopes.len() > 1 && scopes.iter().all(|it| it.ends_with("/.default")) {
            let found = violated(
                format!("`scope` names {} resources", scopes.len()),
                "one",
                "request a token for each",
            );
            return Some(found.with_codes(&[70_011]));
        }
        (scopes.is_empty() || !scopes.iter().all(|it| it.ends_with("/.default"))).then(|| {
            violated(
                format!("`scope` is `{scope}`"),
                "a resource and `/.default`",
                "name the resource, followed by `/.default`",
            )
        })
    })
}

/// Resources of one cloud, by a part of their names.
fn the_resource_is_of_this_cloud(case: &Context) -> CheckResult {
    use crate::core::verification::Cloud;
    let hosts = [
        ("management.core.windows.net", Cloud::Public),
        ("management.azure.com", Cloud::Public),
        ("graph.microsoft.com", Cloud::Public),
        ("vault.azure.net", Cloud::Public),
        ("management.usgovcloudapi.net", Cloud::UsGov),
        ("graph.microsoft.us", Cloud::UsGov),
        ("management.chinacloudapi.cn", Cloud::China),
        ("microsoftgraph.chinacloudapi.cn", Cloud::China),
    ];
    request(case, |it| {
        let scope = it.field("scope")?;
        let cloud = hosts.iter().find(|(host, _)| scope.contains(host))?.1;
        let is_named = it.authority.is_some() && cloud != case.question.cloud;
        is_named.then(|| {
            violated(
                format!("`scope` is `{scope}`, a resource of the cloud `{}`", cloud.word()),
                format!("one of the cloud `{}`", case.question.cloud.word()),
                "name the resource as that cloud does",
            )
        })
    })
}

fn there_is_a_proof(case: &Context) -> CheckResult {
    request(case, |it| {
        let identity = case.identity();
        // An agent is told that it cannot sign in.
        let needs_none = identity.is_some_and(|identity| identity.is_public_client)
            || (identity.and_then(|it| it.kind).is_some_and(IdentityKind::is_of_an_agent)
                && case.leg() == Leg::SignIn);
        let is_typed = it.field("client_assertion_type") == Some(ASSERTION_TYPE);
        let proof = it.field("client_assertion").filter(|_| is_typed).or(it.field("client_secret"));
        let grant = it.field("grant_type").filter(|_| proof.is_none() && !needs_none)?;
        if it.field("client_assertion").is_some() {
            let found = violated(
                "`client_assertion_type` is missing, or another",
                format!("`{ASSERTION_TYPE}`"),
                "send it beside the assertion",
            );
            return Some(found.with_codes(&[7_000_216, 900_144]));
        }
        let found = violated(
            "it has neither `client_assertion` nor `client_secret`",
            "the service-account token as `client_assertion`",
            "let the webhook set the pod's variables and volume, or project the token in the pod: the program found none",
        );
        Some(found.with_codes(match grant {
            _ if it.has("client_assertion") => &[50_027, 7_000_216],
            "client_credentials" => &[7_000_216],
            _ => &[7_000_218],
        }))
    })
}

fn a_public_client_proves_nothing(case: &Context) -> CheckResult {
    request(case, |it| {
        let identity = case.identity().filter(|identity| identity.is_public_client)?;
        it.field("client_assertion").or(it.field("client_secret"))?;
        Some(violated(
            format!(
                "`{}` is a public client, and proves itself",
                identity.client_id.as_deref().unwrap_or("it")
            ),
            "a confidential client",
            "set `isFallbackPublicClient` of the application to false",
        ))
    })
}

fn no_secret_is_sent(case: &Context) -> CheckResult {
    request(case, |it| {
        it.field("client_secret").filter(|_| it.field("client_assertion").is_none())?;
        let found = violated(
            "it has a client secret",
            "the service-account token as `client_assertion`",
            "remove the secret from the configuration, so that the token is sent",
        );
        Some(if case.is_managed_identity() {
            found.with_codes(&[7_000_232])
        } else {
            found.with_codes(&[7_000_215, 7_000_222]).unless("the secret is right and has not expired")
        })
    })
}

fn the_tenant_has_its_principal(case: &Context) -> CheckResult {
    match case.identity() {
        Some(identity) if identity.has_principal == Some(false) && !case.is_managed_identity() => violated(
            "the tenant that is asked has no service principal of the application",
            "one",
            "create it: `az ad sp create --id CLIENT_ID`, in that tenant",
        )
        .with_codes(&[7_000_229]),
        _ => CheckResult::NotApplicable,
    }
}

fn the_tenant_is_its_home(case: &Context) -> CheckResult {
    request(case, |it| {
        let identity = case.identity().filter(|identity| identity.has_principal.is_none())?;
        let (home, asked) = (identity.tenant.as_deref()?, it.tenant.as_deref()?);
        (home != asked && is_guid(home) && is_guid(asked) && case.leg() == Leg::Workload).then(|| {
            super::differs(
                "the tenant of the request",
                asked,
                home,
                "compare the annotation `azure.workload.identity/tenant-id` with the tenant of the identity",
            )
            .unless("that tenant has a service principal of the application")
        })
    })
}
