//! The answers of Entra's token endpoint that workloads, agents and their users meet, with cause and fix.
//!
//! Microsoft may change codes and texts. A newer code adds a digit to the older one that it refines: 7002138 is a
//! kind of 700213. Sources: Microsoft's error code reference and the pages that `docs/entra.md` lists for
//! what is documented; the reports in `tests/ground_truth/` for what is observed.

use schemars::JsonSchema;
use serde::Serialize;

use super::Leg;
use Certainty::{Documented, Observed, Weak};

/// How certain the behaviour of a relying party is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// Its vendor documents it.
    Documented,
    /// Users have reported it.
    Observed,
    /// It follows from documented and observed behaviour.
    Inferred,
    /// It is told at second hand, or the cause is a guess.
    Weak,
}

impl Certainty {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Documented => "documented",
            Self::Observed => "observed",
            Self::Inferred => "inferred",
            Self::Weak => "weak",
        }
    }
}

/// What an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Request,
    Identity,
    Token,
    Credential,
    EntraToken,
    Documents,
    Agent,
    User,
    Policy,
}

impl Subject {
    pub const ALL: [Self; 9] = [
        Self::Request,
        Self::Identity,
        Self::Token,
        Self::Credential,
        Self::EntraToken,
        Self::Documents,
        Self::Agent,
        Self::User,
        Self::Policy,
    ];
}

/// An answer, what it means here, and what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntraError {
    /// The number after `AADSTS`.
    pub code: u32,
    pub subject: Subject,
    pub certainty: Certainty,
    /// The steps of the flows in which it is met; empty: in any.
    pub legs: &'static [Leg],
    pub meaning: &'static str,
    pub fix: &'static str,
}

/// The row of this code, or of the longest code that it refines.
#[must_use]
pub fn explain(code: u32) -> Option<&'static EntraError> {
    let mut prefix = code;
    while prefix >= SHORTEST {
        if let Some(row) = ERRORS.iter().find(|row| row.code == prefix) {
            return Some(row);
        }
        prefix /= 10;
    }
    None
}

/// Shorter numbers are no codes of this family.
const SHORTEST: u32 = 16_000;

/// By subject, then by code.
#[rustfmt::skip]
pub const ERRORS: &[EntraError] = &[
    row(50_049, Subject::Request, Documented, &[], "the request went to an authority that is not Entra", "correct `AZURE_AUTHORITY_HOST`: `https://login.microsoftonline.com/` in the public cloud"),
    row(70_003, Subject::Request, Documented, &[], "Entra does not know this `grant_type`", "use a library of Microsoft, or correct the field: `client_credentials`, `urn:ietf:params:oauth:grant-type:jwt-bearer`, `user_fic`"),
    row(70_011, Subject::Request, Documented, &[], "the scope is not valid", "name the resource followed by `/.default`"),
    row(90_002, Subject::Request, Documented, &[], "there is no such tenant in this cloud", "take the tenant from `az account show --query tenantId`; compare the authority with its cloud"),
    row(90_013, Subject::Request, Documented, &[], "a field of the request is not valid", "compare the request with Microsoft's client credentials grant"),
    row(500_011, Subject::Request, Documented, &[], "the tenant has no service principal of the resource in `scope`", "correct the scope, or have an administrator add the resource's service principal"),
    row(900_021, Subject::Request, Observed, &[], "the tenant is all zeros: a placeholder", "set the tenant: `az account show --query tenantId`"),
    row(900_023, Subject::Request, Documented, &[], "the tenant is neither a GUID nor a domain", "set the tenant: `az account show --query tenantId`"),
    row(900_144, Subject::Request, Documented, &[], "a field of the form is missing", "use a library of Microsoft, or add the field that the text names"),
    row(900_382, Subject::Request, Documented, &[], "the tenant is in another cloud than the authority", "set `AZURE_AUTHORITY_HOST` to the Entra of the tenant's cloud"),
    row(900_384, Subject::Request, Weak, &[], "the assertion of the request is not valid in this cloud", "compare authority and tenant"),
    row(900_432, Subject::Request, Documented, &[], "the tenant is in another cloud than the authority", "set `AZURE_AUTHORITY_HOST` to the Entra of the tenant's cloud"),
    row(900_439, Subject::Request, Documented, &[], "an application of the US government cloud asked the public cloud", "set `AZURE_AUTHORITY_HOST` to `https://login.microsoftonline.us/`"),
    row(1_002_012, Subject::Request, Documented, &[Leg::Workload, Leg::Blueprint, Leg::Agent], "the scope does not end in `/.default`, as client credentials demand", "name the resource followed by `/.default`"),
    row(7_000_215, Subject::Request, Documented, &[], "a client secret was sent, and it is wrong", "remove the secret from the configuration, so that the token is sent"),
    row(7_000_216, Subject::Request, Observed, &[], "the request has neither assertion nor secret: the workload found no token", "let the webhook set the pod's variables and volume, or project the token in the pod"),
    row(7_000_218, Subject::Request, Documented, &[], "the request has neither assertion nor secret", "use the client credentials grant with the token; where a person signs in, make the application a public client"),
    row(7_000_222, Subject::Request, Documented, &[], "a client secret was sent, and it has expired", "remove the secret from the configuration, so that the token is sent"),
    row(9_002_313, Subject::Request, Documented, &[], "the request is malformed", "use a library of Microsoft, or compare with its client credentials grant"),
    row(9_002_324, Subject::Request, Observed, &[], "the request has both a client secret and a client assertion", "remove the secret"),
    row(50_020, Subject::Identity, Documented, &[], "the identity is in another tenant than the request names", "compare the annotation `azure.workload.identity/tenant-id` with `az account show --query tenantId`"),
    row(700_011, Subject::Identity, Documented, &[], "the application is not in this tenant", "compare the tenant with that of the application"),
    row(700_016, Subject::Identity, Documented, &[], "there is no application of this client id in the tenant: an object id, a name, a deleted identity, or one that was made anew", "take the client id from `az identity show --query clientId` or `az ad app show --query appId`"),
    row(700_025, Subject::Identity, Observed, &[], "the application is a public client, and must send no assertion", "set `isFallbackPublicClient` of the application to false"),
    row(700_038, Subject::Identity, Observed, &[], "the client id is all zeros: a placeholder", "take the client id from `az identity show --query clientId`"),
    row(5_000_224, Subject::Identity, Observed, &[], "the tenant is disabled or deleted", "contact the administrator of the tenant"),
    row(7_000_112, Subject::Identity, Observed, &[], "the application or its service principal is disabled", "have an administrator enable it; that takes up to five minutes"),
    row(7_000_229, Subject::Identity, Observed, &[], "the application has no service principal in the tenant that is asked", "create it: `az ad sp create --id CLIENT_ID`"),
    row(7_000_232, Subject::Identity, Observed, &[], "a client secret was sent for a managed identity", "send the token as the client assertion"),
    row(50_027, Subject::Token, Observed, &[], "it is not a JWT: truncated, quoted, with a line break, without a signature", "send the token as `kubectl create token` prints it, with nothing around it"),
    row(50_048, Subject::Token, Documented, &[], "it is an assertion of the application itself, and its subject is not the client id", "send the cluster's token; or set `iss` and `sub` to the client id"),
    row(70_023, Subject::Token, Observed, &[], "its lifetime is more than 25 hours, or it has no `iat`", "request a day at most: `expirationSeconds` of the projected volume"),
    row(90_014, Subject::Token, Documented, &[], "a claim is missing: most often a legacy token from a Secret", "use a projected token or `kubectl create token`"),
    row(700_021, Subject::Token, Observed, &[], "Entra read it as an assertion signed by an application: its issuer is no URL", "give kube-apiserver the public URL of its keys as `--service-account-issuer`"),
    row(700_023, Subject::Token, Observed, &[], "it is an assertion of the application itself, for another audience than the tenant's endpoint", "send the cluster's token; or set `aud` to the token endpoint of the tenant"),
    row(700_024, Subject::Token, Documented, &[], "it is expired, not valid yet, or a copy that was kept too long", "read the token file again for every request; correct the clocks"),
    row(700_027, Subject::Token, Documented, &[], "it is an assertion of the application itself, whose certificate or signature does not fit", "send the cluster's token; or register the certificate with the application"),
    row(5_002_723, Subject::Token, Observed, &[], "its header names no key", "use a token of Kubernetes 1.20 or later"),
    row(5_002_726, Subject::Token, Observed, &[], "its header is not supported", "have the signer write `alg` and `kid` only"),
    row(5_002_727, Subject::Token, Observed, &[], "its `typ` is not `JWT`", "have the signer leave `typ` out, or write `JWT`"),
    row(5_002_730, Subject::Token, Observed, &[], "the key does not fit the algorithm of its header", "sign with an RSA key and RS256"),
    row(5_002_738, Subject::Token, Observed, &[], "it is not signed with RS256", "give kube-apiserver an RSA key to sign with"),
    row(70_021, Subject::Credential, Documented, &[], "no credential matches (an older text); or it was created minutes ago", "compare issuer, subject and audience; if all are equal, wait ten minutes"),
    row(70_025, Subject::Credential, Documented, &[], "the identity has no credential: it is on another application, identity or tenant, or was created minutes ago", "create it on the identity whose client id the workload uses"),
    row(700_211, Subject::Credential, Documented, &[], "the issuer differs, most often in a final `/`", "make the credential name the token's `iss`, byte for byte"),
    row(700_212, Subject::Credential, Observed, &[], "the audience differs: a token for the API server, for another cloud, for an identity binding", "project the token for the credential's audience"),
    row(700_213, Subject::Credential, Documented, &[], "the subject differs: another namespace or service account", "make the credential name the token's `sub`, byte for byte"),
    row(700_233, Subject::Credential, Weak, &[], "the expression of a flexible credential cannot be read", "write it with `eq`, `matches` and `and`"),
    row(700_235, Subject::Credential, Weak, &[], "a managed identity has a flexible credential, and cannot", "name the subject of the token"),
    row(700_237, Subject::Credential, Weak, &[], "the expression of a flexible credential names a claim that Entra does not compare", "name `sub`, or for GitHub `job_workflow_ref`"),
    row(7_002_131, Subject::Credential, Observed, &[], "no credential matches, and one of them is flexible: its expression is not fulfilled", "correct `claimsMatchingExpression`; a service account is named better by a plain subject"),
    row(7_002_137, Subject::Credential, Observed, &[], "the subject differs, of a token that Entra issued for an exchange", "name the `/eid1/…` subject in the credential, or send the token of the right blueprint and agent identity"),
    row(7_002_138, Subject::Credential, Observed, &[], "the subject differs only in case", "correct the case of the credential's subject"),
    row(7_002_241, Subject::Credential, Weak, &[], "a flexible credential is for an issuer that Entra supports none for", "name one service account per credential, by a plain subject"),
    row(700_214, Subject::EntraToken, Observed, &[], "a credential for a token of Entra names another audience than the token exchange", "set the credential's audience to `api://AzureADTokenExchange`"),
    row(700_222, Subject::EntraToken, Documented, &[], "a token of Entra was passed in place of the cluster's", "pass the token that is projected into the pod, not one that was exchanged for it"),
    row(700_226, Subject::EntraToken, Observed, &[], "the token is of an application: of Entra's own, only those of managed identities are taken", "send the token of a managed identity, or of the cluster"),
    row(700_227, Subject::EntraToken, Observed, &[], "the token of Entra is of version 1 (issuer `sts.windows.net`)", "request it for `api://AzureADTokenExchange`, which makes it version 2"),
    row(700_229, Subject::EntraToken, Documented, &[], "the token is of a user", "send the token of a managed identity, or of the cluster"),
    row(700_231, Subject::EntraToken, Observed, &[], "the token was itself obtained by a federated credential: it has `xms_ficinfo`", "put a credential for the cluster's token on this identity, and send that token"),
    row(700_236, Subject::EntraToken, Observed, &[], "the token is of another tenant", "use a managed identity of the same tenant, or the token of the cluster"),
    row(700_263, Subject::EntraToken, Observed, &[], "two credentials name one subject under both issuers of a tenant", "remove the one whose issuer is `sts.windows.net`"),
    row(7_000_226, Subject::EntraToken, Weak, &[], "the token of a managed identity was presented for an application that does not trust it", "put a credential for the managed identity on the application"),
    row(7_002_121, Subject::EntraToken, Observed, &[], "the token of Entra is not for the token exchange", "request it for `api://AzureADTokenExchange/.default`"),
    row(50_166, Subject::Documents, Observed, &[], "Entra could not read the documents of the issuer", "publish them without sign-in, network rules or redirects"),
    row(90_061, Subject::Documents, Documented, &[], "Entra could not read the documents of the issuer", "publish them without sign-in, network rules or redirects"),
    row(501_661, Subject::Documents, Observed, &[], "Entra could not read the documents of the issuer, or could not parse the discovery document", "publish both anew with `signpost sync`"),
    row(900_612, Subject::Documents, Observed, &[], "the JWKS cannot be read", "publish it anew with `signpost sync`"),
    row(7_000_272, Subject::Documents, Observed, &[], "the key that signed is not in the JWKS that Entra has: not published, or not for long", "publish the keys of the cluster with `signpost sync`; if they are, wait up to an hour"),
    row(7_000_274, Subject::Documents, Observed, &[], "the signature is of another key, or the token was changed", "publish the key that signed this token"),
    row(82_001, Subject::Agent, Observed, &[Leg::Blueprint], "a blueprint asked for a token of a resource itself; that of Microsoft Graph is granted", "ask for `api://AzureADTokenExchange/.default` with `fmi_path`, and with its answer as the agent identity"),
    row(82_002, Subject::Agent, Observed, &[Leg::OnBehalfOf], "a blueprint used a grant that only its agent identities may use", "ask as the agent identity, with the blueprint's token as the client assertion"),
    row(82_006, Subject::Agent, Observed, &[Leg::SignIn], "an agent cannot sign in interactively", "sign the user in with an application that is no agent"),
    row(82_007, Subject::Agent, Observed, &[Leg::SignIn], "this consent is not possible for an agent in this tenant", "grant with `oauth2PermissionGrants` of Microsoft Graph"),
    row(82_008, Subject::Agent, Observed, &[Leg::Blueprint], "the blueprint named no agent identity", "send `fmi_path` with the client id of the agent identity, in the form"),
    row(82_014, Subject::Agent, Documented, &[Leg::SignIn], "an agent identity takes no interactive consent", "grant with `oauth2PermissionGrants` of Microsoft Graph, or let the agent identity inherit the blueprint's"),
    row(82_018, Subject::Agent, Observed, &[Leg::SignIn], "an agent cannot be the client of a sign-in: only `response_type=none` is allowed", "sign the user in with an application that is no agent"),
    row(7_002_111, Subject::Agent, Observed, &[Leg::Agent], "the token that a blueprint got for its agent identity was presented as the blueprint", "ask as the agent identity: its client id"),
    row(7_002_134, Subject::Agent, Observed, &[Leg::Agent], "the token is of another blueprint than that of the agent identity", "ask as the blueprint that the agent identity was made from"),
    row(7_002_142, Subject::Agent, Observed, &[Leg::Blueprint], "`fmi_path` names another agent identity than this workload may act for", "name the agent identity that the workload is bound to"),
    row(7_002_200, Subject::Agent, Observed, &[Leg::AgentUser], "the user is not the agent user of this agent identity", "name the agent user that was made for this agent identity"),
    row(7_002_203, Subject::Agent, Observed, &[Leg::AgentUser], "the agent identity has no agent user", "use the agent identity that the agent user was made for"),
    row(50_000, Subject::User, Observed, &[Leg::AgentUser], "Entra failed: met where a user's name was sent as `user_id`", "send the name as `username`, or the object id as `user_id`"),
    row(50_013, Subject::User, Documented, &[Leg::OnBehalfOf], "the user's token is not valid here: expired, or for Microsoft Graph", "request one for the blueprint or application: `api://CLIENT_ID/access_as_user`"),
    row(50_107, Subject::User, Observed, &[Leg::OnBehalfOf], "a SAML assertion that Entra itself issued was sent in the grant for those of other providers", "send an access token in an on-behalf-of request"),
    row(50_173, Subject::User, Documented, &[Leg::OnBehalfOf], "the user's refresh token was revoked", "have the user sign in again"),
    row(65_001, Subject::User, Documented, &[Leg::Agent, Leg::OnBehalfOf, Leg::AgentUser], "nobody has consented to what is requested", "have an administrator grant it to the agent identity or application itself; a grant to the blueprint does not count"),
    row(65_005, Subject::User, Documented, &[], "the application does not list what it requests", "add the permission to the application, and consent"),
    row(70_000, Subject::User, Observed, &[Leg::OnBehalfOf], "the refresh token or code is not for this client", "send the client id that it was issued for"),
    row(70_008, Subject::User, Documented, &[Leg::OnBehalfOf], "the user's refresh token has expired", "have the user sign in again"),
    row(70_043, Subject::User, Documented, &[Leg::OnBehalfOf], "the user's refresh token has expired", "have the user sign in again"),
    row(90_009, Subject::User, Observed, &[Leg::SignIn], "an application asks for a token of itself, named by its URI", "name it by its client id: `CLIENT_ID/.default`"),
    row(90_072, Subject::User, Observed, &[Leg::OnBehalfOf], "the user is not in the tenant that is asked", "ask in the user's tenant, or invite the user"),
    row(240_002, Subject::User, Observed, &[Leg::OnBehalfOf], "the user's token is an ID token", "send an access token for the application"),
    row(500_131, Subject::User, Observed, &[Leg::OnBehalfOf], "the user's token is for another API than the client that presents it", "request one for the blueprint or application: `api://CLIENT_ID/access_as_user`"),
    row(500_133, Subject::User, Observed, &[Leg::OnBehalfOf], "the user's token has expired, or is not valid yet", "send a new token of the user"),
    row(650_052, Subject::User, Observed, &[Leg::OnBehalfOf], "the tenant has no service principal of the resource", "have an administrator add it"),
    row(650_057, Subject::User, Documented, &[], "the application does not list the resource that it requests", "add the permission to the application, and consent"),
    row(700_082, Subject::User, Documented, &[Leg::OnBehalfOf], "the user's refresh token has expired", "have the user sign in again"),
    row(7_000_113, Subject::User, Documented, &[Leg::OnBehalfOf], "a token of an application was passed in place of a user's", "pass the user's"),
    row(7_000_114, Subject::User, Documented, &[Leg::OnBehalfOf], "a token of an application was passed in place of a user's", "pass the user's"),
    row(9_002_327, Subject::User, Observed, &[Leg::SignIn], "the code of a single-page application was redeemed by a server", "register the redirect URI as one of the platform that redeems the code"),
    row(50_005, Subject::Policy, Documented, &[], "Conditional Access blocks you while you set it up", "sign in as it demands"),
    row(50_076, Subject::Policy, Documented, &[Leg::OnBehalfOf], "Conditional Access demands a second factor of the user", "pass the claims challenge on to the user's sign-in"),
    row(50_079, Subject::Policy, Documented, &[Leg::OnBehalfOf], "the user has to register a second factor", "have the user sign in interactively"),
    row(50_196, Subject::Policy, Documented, &[], "too many attempts", "wait a few minutes, and find what loops"),
    row(53_003, Subject::Policy, Documented, &[], "Conditional Access blocks the workload", "contact the administrator of the tenant"),
    row(70_052, Subject::Policy, Documented, &[], "a multi-tenant application cannot be federated in this way", "use a managed identity, or a single-tenant application"),
    row(501_051, Subject::Policy, Documented, &[], "the resource demands an assignment, and the client has none of its roles", "have an administrator assign a role of the resource to the client"),
    row(530_003, Subject::Policy, Observed, &[Leg::OnBehalfOf], "Conditional Access demands a compliant device of the user", "pass the claims challenge on to the user's sign-in"),
    row(530_032, Subject::Policy, Documented, &[], "the tenant's security policy blocks the sign-in", "contact the administrator of the tenant"),
    row(530_035, Subject::Policy, Observed, &[Leg::SignIn], "the tenant's security defaults forbid this way of signing in", "sign in as they demand"),
    row(700_223, Subject::Policy, Documented, &[], "the tenant restricts workload identity federation", "contact its administrator; a managed identity may be allowed where an application is not"),
    row(700_238, Subject::Policy, Documented, &[], "the tenant does not allow this issuer, or the token is of Entra in another cloud", "contact its administrator; a managed identity may be allowed where an application is not"),
    row(7_002_381, Subject::Policy, Observed, &[], "the tenant demands a claim of an enterprise that the token lacks", "contact its administrator"),
];

const fn row(
    code: u32,
    subject: Subject,
    certainty: Certainty,
    legs: &'static [Leg],
    meaning: &'static str,
    fix: &'static str,
) -> EntraError {
    EntraError { code, subject, certainty, legs, meaning, fix }
}

#[cfg(test)]
mod tests;
