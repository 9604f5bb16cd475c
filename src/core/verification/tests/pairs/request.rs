use serde_json::json;

use super::{Pair, pair};
use crate::core::verification::tests::scene::{
    AUDIENCE, CLIENT, ISSUER, NOW, SUBJECT, TENANT, credential, seconds,
};

const OTHER: &str = "33333333-3333-4333-8333-333333333333";
const EXCHANGE: &str = "api://AzureADTokenExchange/.default";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const BLUEPRINT: &str = "#microsoft.graph.agentIdentityBlueprint";
const AGENT: &str = "#microsoft.graph.agentIdentity";
const GRANTS: &str = "https://graph.microsoft.com/v1.0/$metadata#oauth2PermissionGrants";

pub(super) const PAIRS: &[Pair] = &[
    pair(
        "TENANT-CLOUD",
        |it| it.asks_at("https://login.microsoftonline.com/team.onmschina.cn", &[]),
        "a tenant of the cloud `china`",
        |it| it.asks_at("https://login.microsoftonline.com/team.onmicrosoft.com", &[]),
    ),
    pair(
        "TENANT-ID",
        |it| it.asks_at("https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000", &[]),
        "the tenant of the request is `00000000",
        |it| it.asks(&[]),
    ),
    pair(
        "CLIENT-ID",
        |it| {
            it.asks(&[("client_id", OTHER)]);
            it.is(json!({"appId": CLIENT, "id": OTHER}));
        },
        "the object ID of the identity",
        |it| {
            it.asks(&[]);
            it.is(json!({"appId": CLIENT, "id": OTHER}));
        },
    ),
    pair(
        "CLIENT-ID",
        |it| {
            it.asks(&[("client_id", OTHER)]);
            it.is(json!({"clientId": CLIENT, "principalId": TENANT}));
        },
        "the client ID of the request is",
        |it| {
            it.asks(&[]);
            it.is(json!({"clientId": CLIENT, "principalId": TENANT}));
        },
    ),
    pair("REQ-FIELDS", |it| it.asks(&[("client_id", "")]), "the form has no `client_id`", |it| it.asks(&[])),
    pair(
        "REQ-TWO",
        |it| it.asks(&[("client_secret", "x")]),
        "a client assertion and a client secret",
        |it| it.asks(&[("client_secret", "")]),
    ),
    pair(
        "ID-THERE",
        |it| it.is(json!({"error": {"code": "Request_ResourceNotFound"}})),
        "there is no such identity",
        |it| it.is(json!({"appId": CLIENT})),
    ),
    pair(
        "ID-ENABLED",
        |it| it.is(json!({"appId": CLIENT, "accountEnabled": false})),
        "the identity is disabled",
        |it| it.is(json!({"appId": CLIENT, "accountEnabled": true})),
    ),
    pair(
        "REQ-GRANT",
        |it| it.asks(&[("grant_type", "client_credential")]),
        "`grant_type` is `client_credential`",
        |it| it.asks(&[]),
    ),
    pair(
        "REQ-SCOPE",
        |it| it.asks(&[("scope", "https://graph.microsoft.com/User.Read")]),
        "`scope` is",
        |it| it.asks(&[("scope", "https://graph.microsoft.com/.default")]),
    ),
    pair(
        "REQ-RESOURCE",
        |it| it.asks(&[("scope", "https://management.chinacloudapi.cn/.default")]),
        "a resource of the cloud `china`",
        |it| it.asks(&[("scope", "https://management.azure.com/.default")]),
    ),
    pair(
        "REQ-PROOF",
        |it| it.asks(&[("client_assertion", "")]),
        "neither `client_assertion` nor",
        |it| it.asks(&[]),
    ),
    pair(
        "REQ-PUBLIC",
        |it| {
            it.asks(&[]);
            it.is(json!({"appId": CLIENT, "isFallbackPublicClient": true}));
        },
        "is a public client",
        |it| {
            it.asks(&[]);
            it.is(json!({"appId": CLIENT, "isFallbackPublicClient": false}));
        },
    ),
    pair(
        "REQ-SECRET",
        |it| it.asks(&[("client_assertion", ""), ("client_secret", "x")]),
        "it has a client secret",
        |it| it.asks(&[]),
    ),
    pair(
        "ID-PRINCIPAL",
        |it| {
            it.is(json!({"appId": CLIENT}));
            it.is(json!({"error": {"code": "Request_ResourceNotFound"}}));
        },
        "has no service principal",
        |it| {
            it.is(json!({"appId": CLIENT}));
            it.is(json!({"appId": CLIENT, "servicePrincipalType": "Application"}));
        },
    ),
    pair(
        "ID-TENANT",
        |it| {
            it.asks(&[]);
            it.is(json!({"clientId": CLIENT, "principalId": OTHER, "tenantId": OTHER}));
        },
        "the tenant of the request is",
        |it| {
            it.asks(&[]);
            it.is(json!({"clientId": CLIENT, "principalId": OTHER, "tenantId": TENANT}));
        },
    ),
    pair(
        "ISS-OWN",
        |it| {
            it.asks(&[]);
            it.claims["iss"] = json!(CLIENT);
            it.claims["sub"] = json!(CLIENT);
            it.claims["aud"] = json!("https://login.microsoftonline.com/common/oauth2/v2.0/token");
        },
        "`iss` is the client ID",
        |it| {
            it.asks(&[]);
            it.claims["iss"] = json!(OTHER);
        },
    ),
    pair(
        "ISS-ENTRA",
        |it| {
            it.asks(&[]);
            it.entra("managed");
            it.claims["xms_ficinfo"] = json!("x");
        },
        "itself obtained by a federated credential",
        |it| {
            it.asks(&[]);
            it.entra("managed");
        },
    ),
    pair(
        "AGENT-PARENT",
        |it| {
            it.asks(&[]);
            it.is(json!({"@odata.type": AGENT, "id": CLIENT, "agentIdentityBlueprintId": OTHER}));
            it.entra("/eid1/c/pub/t/qqqqqqqqqkqKqqqqqqqqqg/a/VVVVVVVVVUWFVVVVVVVVVQ/85075aa5-1d73-42de-812a-95348218e4b2");
        },
        "it is of another blueprint",
        |it| {
            it.asks(&[]);
            it.is(json!({"@odata.type": AGENT, "id": CLIENT, "agentIdentityBlueprintId": OTHER}));
            it.entra("/eid1/c/pub/t/qqqqqqqqqkqKqqqqqqqqqg/a/MzMzMzMzM0ODMzMzMzMzMw/85075aa5-1d73-42de-812a-95348218e4b2");
        },
    ),
    pair(
        "FIC-EXPR",
        |it| it.trusts_expression("claims['sub'] matches 'system:serviceaccount:other:*'"),
        "asks for claims['sub']",
        |it| it.trusts_expression("claims['sub'] matches 'system:serviceaccount:team:*'"),
    ),
    pair(
        "FIC-AGE",
        |it| {
            let mut new = credential(ISSUER, SUBJECT, AUDIENCE);
            new.created = Some(seconds(NOW - 599));
            it.credentials = Some(vec![new]);
        },
        "was created 9m 59s ago",
        |it| {
            let mut new = credential(ISSUER, SUBJECT, AUDIENCE);
            new.created = Some(seconds(NOW - 600));
            it.credentials = Some(vec![new]);
        },
    ),
    pair(
        "AGENT-LOGIN",
        |it| {
            it.asks(&[("grant_type", ""), ("response_type", "code")]);
            it.is(json!({"@odata.type": BLUEPRINT, "appId": CLIENT}));
        },
        "an agent is the client of a sign-in",
        |it| {
            it.asks(&[("grant_type", ""), ("response_type", "code")]);
            it.is(json!({"appId": CLIENT}));
        },
    ),
    pair(
        "AGENT-GRANT",
        |it| {
            it.asks(&[("grant_type", JWT_BEARER)]);
            it.is(json!({"@odata.type": BLUEPRINT, "appId": CLIENT}));
        },
        "a blueprint uses `grant_type`",
        |it| {
            it.asks(&[("scope", EXCHANGE)]);
            it.is(json!({"@odata.type": BLUEPRINT, "appId": CLIENT}));
        },
    ),
    pair(
        "AGENT-PATH",
        |it| {
            it.asks(&[("scope", EXCHANGE)]);
            it.is(json!({"@odata.type": BLUEPRINT, "appId": CLIENT}));
        },
        "there is no `fmi_path`",
        |it| {
            it.asks(&[("scope", EXCHANGE), ("fmi_path", OTHER)]);
            it.is(json!({"@odata.type": BLUEPRINT, "appId": CLIENT}));
        },
    ),
    pair(
        "AGENT-RESOURCE",
        |it| {
            it.asks(&[("scope", "https://vault.azure.net/.default")]);
            it.is(json!({"@odata.type": BLUEPRINT, "appId": CLIENT}));
        },
        "a blueprint asks for `https://vault.azure.net/.default`",
        |it| {
            it.asks(&[("scope", "https://graph.microsoft.com/.default")]);
            it.is(json!({"@odata.type": BLUEPRINT, "appId": CLIENT}));
        },
    ),
    pair(
        "AGENT-USER",
        |it| it.asks(&[("grant_type", "user_fic"), ("user_id", "agent@team.example")]),
        "`user_id` is `agent@team.example`",
        |it| it.asks(&[("grant_type", "user_fic"), ("user_id", OTHER)]),
    ),
    pair(
        "AGENT-CHILD",
        |it| {
            it.asks(&[("grant_type", "user_fic"), ("user_id", OTHER)]);
            it.is(json!({"id": OTHER, "userPrincipalName": "agent@team.example", "identityParentId": OTHER}));
        },
        "belongs to the agent identity",
        |it| {
            it.asks(&[("grant_type", "user_fic"), ("user_id", OTHER)]);
            it.is(
                json!({"id": OTHER, "userPrincipalName": "agent@team.example", "identityParentId": CLIENT}),
            );
        },
    ),
    pair(
        "AGENT-CONSENT",
        |it| {
            it.asks(&[("grant_type", "user_fic"), ("user_id", OTHER)]);
            it.is(json!({"@odata.context": GRANTS, "value": []}));
        },
        "nobody has granted it anything",
        |it| {
            it.asks(&[("grant_type", "user_fic"), ("user_id", OTHER)]);
            it.is(json!({"@odata.context": GRANTS, "value": [{"consentType": "AllPrincipals"}]}));
        },
    ),
    pair(
        "AGENT-RESOURCES",
        |it| {
            it.asks(&[("grant_type", "user_fic"), ("user_id", OTHER)]);
            it.is(json!({"value": [{"consentType": "AllPrincipals"}]}));
        },
        "it has 1 grant",
        |it| {
            it.asks(&[("grant_type", "user_fic"), ("user_id", OTHER), ("scope", "openid")]);
            it.is(json!({"value": [{"consentType": "AllPrincipals"}]}));
        },
    ),
    pair(
        "OBO-TOKEN",
        |it| {
            it.asks(&[("grant_type", JWT_BEARER), ("assertion", "opaque")]);
            it.is(json!({"value": [{"consentType": "AllPrincipals"}]}));
        },
        "`assertion` is no JWT",
        |it| it.asks_for_a_user(&json!({})),
    ),
    pair(
        "OBO-ISS",
        |it| it.asks_for_a_user(&json!({"iss": "https://team.b2clogin.com/x/v2.0/"})),
        "`iss` of the user's token is",
        |it| it.asks_for_a_user(&json!({"iss": "https://sts.windows.net/x/"})),
    ),
    pair(
        "OBO-ID",
        |it| it.asks_for_a_user(&json!({"scp": null})),
        "an ID token",
        |it| it.asks_for_a_user(&json!({"scp": null, "roles": ["Mail.Read"]})),
    ),
    pair(
        "OBO-AUD",
        |it| it.asks_for_a_user(&json!({"aud": OTHER})),
        "`aud` of the user's token is `33333333",
        |it| it.asks_for_a_user(&json!({"aud": format!("api://{CLIENT}")})),
    ),
    pair(
        "OBO-TIME",
        |it| it.asks_for_a_user(&json!({"exp": NOW})),
        "the user's token expired at",
        |it| it.asks_for_a_user(&json!({"exp": NOW + 1})),
    ),
    pair(
        "OBO-APP",
        |it| it.asks_for_a_user(&json!({"scp": null, "idtyp": "app"})),
        "the user's token is of an application",
        |it| it.asks_for_a_user(&json!({"idtyp": "user"})),
    ),
    pair(
        "CACHE-NEW",
        |it| it.remembered(&json!("listed"), NOW - 3599, false),
        "for only 59m 59s",
        |it| it.remembered(&json!("listed"), NOW - 3600, false),
    ),
    pair(
        "CACHE-FIRST",
        |it| it.first_published(NOW - 1799),
        "first published 29m 59s ago",
        |it| it.first_published(NOW - 1800),
    ),
];
