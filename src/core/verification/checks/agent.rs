//! Rules of Microsoft Entra Agent ID and of on-behalf-of requests.

use super::{
    Basis, Check, CheckResult, CheckStage, Context, ENTRA, Error, REPORTS, Warning,
    entra_token::is_issuer_of_entra, request::request, violated,
};
use crate::core::entra::{IdentityKind, JWT_BEARER, Leg, TokenRequest, UserToken, is_guid};

/// Resources whose tokens are in a form of their own: presented elsewhere, their signature does not verify.
const GRAPH: [&str; 2] = ["https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000"];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "AGENT-LOGIN",
        rule: "no blueprint or agent identity is the client of a sign-in",
        level: Error,
        parties: ENTRA,
        codes: &[82_018, 82_006, 82_014, 82_007],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Grant,
        judge: no_agent_signs_in,
    },
    Check {
        id: "AGENT-GRANT",
        rule: "a blueprint asks only by client credentials; its agent identities act for users",
        level: Error,
        parties: ENTRA,
        codes: &[82_002, 82_001],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Principal,
        judge: a_blueprint_uses_its_grant,
    },
    Check {
        id: "AGENT-PATH",
        rule: "a blueprint names the agent identity in `fmi_path`, in the form",
        level: Error,
        parties: ENTRA,
        codes: &[82_008],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Principal,
        judge: a_blueprint_names_its_agent,
    },
    Check {
        id: "AGENT-RESOURCE",
        rule: "a blueprint asks for the token exchange, not for a resource itself",
        level: Error,
        parties: ENTRA,
        codes: &[82_001],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Principal,
        judge: a_blueprint_asks_for_the_exchange,
    },
    Check {
        id: "AGENT-USER",
        rule: "the agent user is named by `username`, or by its object ID in `user_id`",
        level: Error,
        parties: ENTRA,
        codes: &[50_000],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Grants,
        judge: the_agent_user_is_named,
    },
    Check {
        id: "AGENT-CHILD",
        rule: "the agent user belongs to the agent identity",
        level: Error,
        parties: ENTRA,
        codes: &[7_002_203, 7_002_200],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Principal,
        judge: the_agent_user_is_its_own,
    },
    Check {
        id: "AGENT-CONSENT",
        rule: "somebody has consented to what is requested for a user",
        level: Error,
        parties: ENTRA,
        codes: &[65_001],
        basis: Basis::documented("Entra error codes"),
        step: CheckStage::Grants,
        judge: somebody_has_consented,
    },
    Check {
        id: "AGENT-RESOURCES",
        rule: "one of its grants is for the resource that is requested: a list of grants does not name resources",
        level: Warning,
        parties: ENTRA,
        codes: &[65_001],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Grants,
        judge: a_grant_is_for_the_resource,
    },
    Check {
        id: "OBO-TOKEN",
        rule: "the user's token can be read: a JWT",
        level: Error,
        parties: ENTRA,
        codes: &[50_013, 50_027],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Grants,
        judge: the_users_token_can_be_read,
    },
    Check {
        id: "OBO-ISS",
        rule: "the user's token is one that Entra issued",
        level: Error,
        parties: ENTRA,
        codes: &[50_013],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Grants,
        judge: the_users_token_is_of_entra,
    },
    Check {
        id: "OBO-ID",
        rule: "the user's token is an access token",
        level: Error,
        parties: ENTRA,
        codes: &[240_002],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Grants,
        judge: the_users_token_has_a_scope,
    },
    Check {
        id: "OBO-AUD",
        rule: "the user's token is for the client that presents it; for an agent identity, for its blueprint",
        level: Error,
        parties: ENTRA,
        codes: &[500_131, 50_013],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Grants,
        judge: the_users_token_is_for_the_client,
    },
    Check {
        id: "OBO-TIME",
        rule: "the user's token has not expired",
        level: Error,
        parties: ENTRA,
        codes: &[500_133, 50_013],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Grants,
        judge: the_users_token_is_alive,
    },
    Check {
        id: "OBO-APP",
        rule: "the user's token is of a user",
        level: Error,
        parties: ENTRA,
        codes: &[7_000_114, 7_000_113],
        basis: Basis::observed(REPORTS),
        step: CheckStage::Grants,
        judge: the_users_token_is_of_a_user,
    },
];

fn is_agent(case: &Context) -> bool {
    case.identity().and_then(|it| it.kind).is_some_and(IdentityKind::is_of_an_agent)
}

fn no_agent_signs_in(case: &Context) -> CheckResult {
    request(case, |it| {
        let response = it.field("response_type");
        let is_by_device = matches!(it.field("grant_type"), Some(grant) if grant.ends_with("device_code"));
        if !is_agent(case) || (response.is_none() && !is_by_device && it.field("prompt").is_none()) {
            return None;
        }
        let found = violated(
            "an agent is the client of a sign-in",
            "an application that is no agent",
            "sign the user in with an application of its own, and ask for `api://BLUEPRINT/access_as_user`; grant consent with `oauth2PermissionGrants` of Microsoft Graph",
        );
        let is_consent = it.field("prompt").is_some_and(|prompt| prompt.contains("consent"));
        Some(found.with_codes(match response {
            _ if is_by_device => &[82_006],
            _ if is_consent => &[82_014, 82_007],
            _ => &[82_018],
        }))
    })
}

fn a_blueprint_uses_its_grant(case: &Context) -> CheckResult {
    request(case, |it| {
        let grant = it.field("grant_type").filter(|_| case.is_blueprint())?;
        let codes: &[u32] = match grant {
            "client_credentials" => return None,
            JWT_BEARER | "user_fic" | "refresh_token" => &[82_002],
            grant if grant.ends_with("token-exchange") => &[82_001],
            _ => return None,
        };
        let fix = "ask as the agent identity, with the blueprint's token as the client assertion";
        Some(
            violated(format!("a blueprint uses `grant_type` `{grant}`"), "`client_credentials`", fix)
                .with_codes(codes),
        )
    })
}

fn a_blueprint_names_its_agent(case: &Context) -> CheckResult {
    request(case, |it| {
        let is_asked = case.is_blueprint() && it.is_for_the_exchange() && it.field("fmi_path").is_none();
        is_asked.then(|| {
            let seen = if it.in_url.iter().any(|name| name == "fmi_path") {
                "`fmi_path` is in the URL, where Entra does not read it"
            } else {
                "there is no `fmi_path`"
            };
            violated(
                seen,
                "the client ID of the agent identity, in the form",
                "send it in the form; a library that drops it needs a newer version",
            )
        })
    })
}

fn a_blueprint_asks_for_the_exchange(case: &Context) -> CheckResult {
    request(case, |it| {
        let scope = it.field("scope").filter(|_| case.is_blueprint() && !it.is_for_the_exchange())?;
        let is_plain = it.field("grant_type") == Some("client_credentials");
        // A token of Microsoft Graph is granted, to make agent identities with.
        let is_graph = GRAPH.iter().any(|graph| scope.starts_with(graph));
        (is_plain && !is_graph).then(|| {
            violated(
                format!("a blueprint asks for `{scope}`"),
                "`api://AzureADTokenExchange/.default` with `fmi_path`",
                "ask for that, and with its answer for the resource, as the agent identity",
            )
        })
    })
}

fn the_agent_user_is_named(case: &Context) -> CheckResult {
    request(case, |it| {
        let id = it.field("user_id").filter(|_| it.field("grant_type") == Some("user_fic"))?;
        (!is_guid(id))
            .then(|| violated(format!("`user_id` is `{id}`"), "an object ID", "send a name as `username`"))
    })
}

fn the_agent_user_is_its_own(case: &Context) -> CheckResult {
    request(case, |it| {
        let user = case.identity()?.user.as_ref().filter(|_| it.field("grant_type") == Some("user_fic"))?;
        let client = case.client_id()?;
        let named = user.name.as_deref().or(user.object_id.as_deref()).unwrap_or("the user");
        let fix = "name the agent user that was made for this agent identity, or ask as its agent identity";
        match user.parent.as_deref() {
            Some(parent) if parent == client => None,
            Some(parent) => Some(
                violated(
                    format!("`{named}` belongs to the agent identity `{parent}`"),
                    format!("`{client}`"),
                    fix,
                )
                .with_codes(&[7_002_203]),
            ),
            None => Some(
                violated(format!("`{named}` is no agent user"), "an agent user of this agent identity", fix)
                    .with_codes(&[7_002_200]),
            ),
        }
    })
}

/// Whether a request is for a user and a resource: it needs consent.
fn needs_consent(case: &Context) -> bool {
    let names_one = case.request().is_some_and(|it| it.resource_scopes().next().is_some());
    matches!(case.leg(), Leg::OnBehalfOf | Leg::AgentUser) && names_one && !case.is_blueprint()
}

fn somebody_has_consented(case: &Context) -> CheckResult {
    if !needs_consent(case) {
        return CheckResult::NotApplicable;
    }
    let fix = "have an administrator grant it to the client itself: `oauth2PermissionGrants` of Microsoft Graph; a grant to the blueprint does not count";
    match case.identity().and_then(|it| it.grants) {
        Some(0) => violated("nobody has granted it anything for users", "a grant of the scope", fix),
        Some(_) => CheckResult::NotApplicable,
        None => violated("its grants are not known", "a grant of the scope", fix)
            .unless("somebody has consented: pass its `oauth2PermissionGrants` with `--credentials`"),
    }
}

fn a_grant_is_for_the_resource(case: &Context) -> CheckResult {
    let grants = case.identity().and_then(|it| it.grants).filter(|grants| *grants > 0 && needs_consent(case));
    grants.map_or(CheckResult::NotApplicable, |grants| {
        let one = if grants == 1 { "1 grant".to_owned() } else { format!("{grants} grants") };
        violated(
            format!("it has {one}"),
            "one for the resource in `scope`",
            "compare `resourceId` of each with the service principal of the resource",
        )
    })
}

/// Applies a rule to the user's token of an on-behalf-of request.
fn users_token(
    case: &Context,
    rule: impl FnOnce(&TokenRequest, &UserToken) -> Option<CheckResult>,
) -> CheckResult {
    request(case, |it| {
        let is_for_a_user = it.field("grant_type") == Some(JWT_BEARER) && case.leg() == Leg::OnBehalfOf;
        rule(it, it.user_token.as_ref().filter(|_| is_for_a_user && !case.is_blueprint())?)
    })
}

fn the_users_token_can_be_read(case: &Context) -> CheckResult {
    request(case, |it| {
        let is_unread = it.field("grant_type") == Some(JWT_BEARER)
            && it.field("assertion").is_some()
            && it.user_token.is_none();
        is_unread.then(|| {
            violated(
                "`assertion` is no JWT",
                "an access token of the user",
                "pass the token that the user's client sent, as it is",
            )
        })
    })
}

fn the_users_token_is_of_entra(case: &Context) -> CheckResult {
    users_token(case, |_, token| {
        let issuer = token.issuer.as_deref().filter(|issuer| !is_issuer_of_entra(issuer))?;
        Some(violated(
            format!("`iss` of the user's token is `{issuer}`"),
            "the tenant that is asked",
            "sign the user in at the same tenant",
        ))
    })
}

fn the_users_token_has_a_scope(case: &Context) -> CheckResult {
    users_token(case, |_, token| {
        (!token.has_scope).then(|| {
            violated(
                "`assertion` has neither `scp` nor `roles`: an ID token",
                "an access token",
                "have the user's client request `api://CLIENT_ID/access_as_user`, and send the access token",
            )
        })
    })
}

fn the_users_token_is_for_the_client(case: &Context) -> CheckResult {
    users_token(case, |_, token| {
        let audience = token.audience.as_deref()?;
        let blueprint = case.blueprint();
        let of = if case.is_agent_identity() { blueprint.or_else(|| parent(case)) } else { case.client_id() };
        let is_for = |id: &str| audience == id || audience == format!("api://{id}");
        let is_graph = GRAPH.iter().any(|graph| audience.trim_end_matches('/') == *graph);
        let fix = "have the user's client request `api://CLIENT_ID/access_as_user`, with the client ID of the application or blueprint";
        if is_graph {
            let found =
                violated("`aud` of the user's token is Microsoft Graph", "the application or blueprint", fix);
            return Some(found.with_codes(&[50_013]));
        }
        let of = of.filter(|of| !is_for(of))?;
        // An application may have other names for itself.
        let found = violated(
            format!("`aud` of the user's token is `{audience}`"),
            format!("`{of}` or `api://{of}`"),
            fix,
        );
        let found = found.with_codes(&[500_131, 50_013]);
        let is_own_name = audience.starts_with("api://") && !is_guid(audience.trim_start_matches("api://"));
        Some(if is_own_name { found.unless("it is an identifier URI of the application") } else { found })
    })
}

/// The blueprint that got the token of an agent identity.
fn parent<'a>(case: &Context<'a>) -> Option<&'a str> {
    case.token()?.claims().get("azp")?.as_str()
}

fn the_users_token_is_alive(case: &Context) -> CheckResult {
    users_token(case, |_, token| {
        let expiry = token.expires_at.filter(|expiry| *expiry <= case.evidence.now)?;
        Some(violated(
            format!("the user's token expired at {expiry}"),
            "one that has not",
            "pass a token that the user's client has just got",
        ))
    })
}

fn the_users_token_is_of_a_user(case: &Context) -> CheckResult {
    users_token(case, |_, token| {
        token.is_app_only.then(|| {
            violated(
                "the user's token is of an application",
                "of a user",
                "where no user is involved, ask by client credentials",
            )
        })
    })
}
