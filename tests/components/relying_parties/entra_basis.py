"""What an answer of the twin rests on, and an answer that is no token."""

import datetime
import re

# A statement and who makes it. `observed` is a public report in which the code of Entra's answer is quoted,
# `second-hand` one that repeats what somebody else met.
BASIS = {
    # The request, the tenant, the client.
    "request": "Microsoft, client credentials grant: the form and its answer",
    "error-list": "Microsoft, error code reference",
    "oidc-scopes": "observed: clients send openid offline_access profile behind /.default",
    "900382": "Microsoft, DevOps AADSTS errors: 900382 not supported across clouds; observed: before anything else",
    "900023": "MSAL.NET TestConstants: 900023 neither a valid DNS name nor a valid external domain",
    "900021": "observed: 900021 for a tenant of zeros",
    "scope-missing": "observed: 90014 for client credentials without a scope",
    "90013": "observed: 90013 for a tenant with markup",
    "common": "observed: client credentials at common give a token of the home tenant",
    "900023-common": "observed: 900023 at common for an API named by its id",
    "test-cloud": "observed: 90002 at the authority of Microsoft's test cloud",
    "700038": "observed: 700038 for a client id of zeros",
    "500011": "observed: 500011 for a resource that the tenant does not have",
    "650052": "observed: 650052 on behalf of a user for a resource without a service principal",
    "7000215": "observed: 7000215 for a wrong secret",
    "7000222": "observed: 7000222 for an expired secret",
    "9002324": "observed: 9002324 for a secret and an assertion together",
    "managed-identity-tenant": "observed: 700016 for a managed identity in another tenant",
    "70000": "observed: 70000 for a refresh token with the application's URI as client id",
    "90002": "observed: 90002 for a domain whose last label is digits",
    "china-name": "observed: 90002 for the name of a Chinese tenant at the public authority",
    "object-id": "observed: 700016 for an object id, or the client id of an identity that was made anew",
    "7000216": "observed: 7000216 for client credentials without an assertion",
    "7000218": "observed: 7000218 on device code and public client flows",
    "7000232": "observed: 7000232 for the client id of a managed identity with a secret",
    "700025": "observed: 700025 for a public client",
    "7000229": "observed: 7000229 no service principal, after the credential has matched",
    "7000112": "observed: 7000112 for a disabled agent identity",
    # The assertion as text.
    "50027": "MSAL.NET TestConstants: 50027 malformed",
    "empty-signature": "observed: 50027 for an empty signature",
    "5002723": "MSAL.NET TestConstants: 5002723 no keyId in token header",
    "kid-first": "observed: 5002723 before 5002738",
    "5002726": "observed: 5002726 unsupported token header",
    "5002727": "observed: 5002727 header type must be JWT or http://openid.net/specs/jwt/1.0",
    "5002738": "observed: 5002738 not a supported signature algorithm",
    "rs256": "Microsoft, federation considerations: only RS256",
    "90014": "MSAL.NET TestConstants: 90014 required field is missing from the credential",
    "70023": "observed: 70023 exp - iat above 1.01:00:00, before the audience",
    # An assertion of the application itself.
    "700021": "MSAL.NET TestConstants: 700021 issuer that is no URL is a self-signed assertion",
    "700023": "observed: 700023 iss is the client id and aud is not the tenant's endpoint",
    "self-audiences": "second-hand: 50027 for an assertion of the application itself with two audiences",
    "50048": "Microsoft, error code reference: 50048 subject and issuer differ",
    "700027": "observed: 700027 iss is the client id",
    # The federated credential.
    "70025": "Microsoft, DevOps AADSTS errors: 70025 no configured credentials",
    "70021": "Microsoft, federation considerations: 70021 minutes after the credential was made",
    "70025-new": "observed: 70025 for a credential that is minutes old",
    "700211": "Microsoft, DevOps AADSTS errors: 700211 issuer",
    "700212": "observed: 700212 audience",
    "700213": "Microsoft, DevOps AADSTS errors: 700213 subject, case-sensitive",
    "7002138": "observed: 7002138 subject matches but for case",
    "exact": "Microsoft, breaking changes of August 2024: exact and case-sensitive",
    "issuer-space": "Microsoft, federated credential considerations: space around the issuer blocks",
    "order": "observed: issuer before audience and subject, credential before documents",
    "flexible": "Microsoft, flexible federated identity credentials: eq, matches, and",
    "7002131": "observed: 7002131 no flexible credential matches",
    "700233": "second-hand: 700233 expression that cannot be parsed",
    "700235": "second-hand: 700235 flexible credential of a managed identity",
    "700237": "second-hand: 700237 claim that is not allowed",
    "7002241": "second-hand: 7002241 issuer that flexible credentials do not support",
    # Assertions that Entra issued.
    "entra-accepted": "observed: a token of Entra is accepted where issuer, subject and audience match",
    "exchange-guid": "observed: fb60f99c-7a34-4190-8149-302f77469936 is api://AzureADTokenExchange",
    "entra-order": "observed: issuer and subject are matched before other rules for tokens of Entra",
    "700222": "Microsoft, federation considerations: 700222 tokens of Entra",
    "700231": "observed: 700231 a token that was had by a federated credential is no federated credential",
    "7002121": "observed, weak: 7002121 token of Entra whose audience is not the token exchange",
    "700214": "observed: 700214 credential for Entra's tokens whose audience is the GUID or another",
    "700227": "observed, weak: 700227 issuer sts.windows.net",
    "700238": "observed: 700238 issuer of another cloud",
    "700236": "observed: 700236 issuer of another tenant",
    "700226": "observed: 700226 token of an application that is no managed identity",
    "700229": "Microsoft, error code reference: 700229 only app-only tokens; observed for users' tokens",
    "70052": "Microsoft, Azure DevOps troubleshooting: 70052 an application of several tenants",
    "700263": "observed: 700263 credentials for one subject with the issuers of both versions",
    "7002137": "observed: 7002137 no record for a subject /eid1/...",
    # Documents and keys.
    "https": "Kubernetes openidmetadata.go: issuer and jwks_uri are https",
    "90061": "azure-workload-identity troubleshooting: 90061 not exposed to the internet or inaccessible; observed",
    "90061-path": "observed: 90061 for a wrong path",
    "content": "observed: 501661, 90061 or 50166 for a discovery document with invalid content",
    "50166": "observed: 50166 for documents behind a storage account's network rules",
    "path": "OpenID Connect Discovery 1.0, 4: issuer without final / and the well-known path",
    "discovery-issuer": "OpenID Connect Discovery 1.0, 4.3: the issuer is exactly the one asked for",
    "501661": "observed: 501661 for an issuer inside a private network",
    "members": "Microsoft, AKS OIDC issuer: the five members of a document that works",
    "700027-use": "observed: 700027 for a published key without use",
    "use": "Microsoft, SPIFFE and SPIRE: use is sig",
    "100-keys": "Microsoft, workload identity federation: the first 100 keys are stored",
    "900612": "observed: 900612 for a bad public key",
    "fresh": "observed: 7000272 in the first 20 to 30 minutes of an issuer",
    "5002730": "observed: 5002730 the key does not fit the algorithm",
    "7000272": "observed: 7000272 key not found in the metadata",
    "7000274": "observed: 7000274 found the key but could not verify the signature",
    "700024": "Microsoft, DevOps AADSTS errors: 700024 valid time range",
    # Agents.
    "agent-flow": "Microsoft, agent autonomous app flow: fmi_path and the agent's assertion",
    "agent-user-flow": "Microsoft, agent user flow: user_fic",
    "t1-subject": "observed: subject /eid1/c/pub/t/TENANT/a/BLUEPRINT/AGENT",
    "blueprint-direct": "observed: a blueprint takes a service account's token itself",
    "blueprint-graph": "observed: a blueprint gets a token for Microsoft Graph",
    "82008": "observed: 82008 agentic applications that ask for a token exchange token must send fmi_path",
    "82001": "observed: 82001 app-only token of a blueprint for another resource",
    "82001-grant": "observed: 82001 for the token exchange grant of RFC 8693",
    "82001-scope": "observed: 1002012 before 82001",
    "82002": "observed: 82002 a blueprint uses the on-behalf-of grant",
    "82006": "observed: 82006 agent applications do not sign in interactively",
    "82007": "second-hand: 82007 for the consent of an administrator to a blueprint",
    "82014": "Microsoft, agent identities: 82014 child agents take no interactive consent",
    "82018": "observed: 82018 response types other than none are not allowed for agents",
    "90009": "observed: 90009 an application asks for a token for itself by its URI",
    "fmi-path-itself": "observed: a blueprint may name itself as fmi_path",
    "fmi-path-application": "observed: an ordinary application may send fmi_path",
    "7002111": "observed: 7002111 no record for the issuer of a subject /eid1/...",
    "7002134": "observed: 7002134 T1 is of another blueprint than the agent identity's",
    "7002142": "observed: 7002142 another agent identity is requested than the one that the assertion is bound to",
    "t2-tenant": "observed: 700211 agent identity in another tenant than T1",
    "7002200": "observed: 7002200 a user without a user_fic binding",
    "7002203": "observed: 7002203 no record for the agent's subject",
    "50000": "observed: 50000 a UPN sent as user_id",
    # On behalf of users.
    "obo": "Microsoft, agent on-behalf-of flow: the form",
    "50107": "observed: 50107 a SAML assertion of Entra's own",
    "50013": "Microsoft, error code reference: 50013 the assertion is invalid",
    "50013-graph": "observed: 50013 the user's token is for Microsoft Graph",
    "500131": "observed: 500131 the user's token is for another API than the client",
    "500133": "observed: 500133 the user's token is not within its time",
    "240002": "observed: 240002 an ID token is no assertion",
    "7000114": "observed: 7000114 or 7000113 for an app-only token",
    "obo-order": "observed: 500131 for an app-only token for another application",
    "no-leeway": "observed: no leeway for the user's token",
    "90072": "second-hand: 90072 the user is not in the tenant",
    "50013-issuer": "observed: 50013 the user's token is of B2C",
    "65001": "observed: 65001 no grant of the agent identity itself for the scope",
    # Microsoft Graph.
    "graph-error": "observed: error with code, message and innerError of date, request-id and client-request-id",
    "graph-401": "observed: 401 InvalidAuthenticationToken",
    "graph-audience": "observed: 401 InvalidAuthenticationToken, Access token validation failure. Invalid audience.",
    "graph-permissions": "Microsoft Graph, create federatedIdentityCredential: permissions",
    "graph-find": "Microsoft Graph, list applications: $filter by appId",
    "graph-application": "Microsoft Graph, get application: by id, or by appId in parentheses",
    "graph-credentials": "Microsoft Graph, federatedIdentityCredential: list, get, create, update, delete by id or name",
    "graph-upsert": "Microsoft Graph, upsert federatedIdentityCredential: by name, Prefer: create-if-missing",
    "graph-filter": "Microsoft Graph, federatedIdentityCredential: $filter eq on name or subject, one property",
    "graph-beta": "Microsoft Graph, beta federatedIdentityCredential: claimsMatchingExpression",
    "graph-404": "azure-workload-identity errors.go: Request_ResourceNotFound; observed: its text",
    "graph-409": "observed: 409 Request_MultipleObjectsWithSameKeyValue for a name that is there already",
    "graph-unique": "observed: 400 InvalidFederatedIdentityCredentialValue for issuer and subject that are there already",
    "graph-blueprint-properties": "Microsoft, create a blueprint: PATCH of identifierUris and oauth2PermissionScopes, 204",
    "graph-principals": "Microsoft, agent identities: service principals, of type agentIdentity with their blueprint",
    "graph-consent": "Microsoft Graph, oauth2PermissionGrant: list, create, update, delete",
    "graph-consent-409": "observed: 409 Request_MultipleObjectsWithSameKeyValue, Permission entry already exists.",
    "graph-consent-update": "observed: 400 Request_BadRequest, Property cannot be updated: principalId",
    "agent-permissions": "Microsoft, agent identities: permissions for agents, ignored with Directory.AccessAsUser.All",
    "blueprint-version": "Microsoft, agent error codes: AgentBlueprint_NotSupportedOnApiVersion; observed: its text",
    "credential-rules": "Microsoft, federated credential considerations: name, lengths, one audience, unique, at most 20",
    # Azure Resource Manager.
    "arm-error": "Azure REST API specifications, ManagedIdentity: CloudError",
    "arm-versions": "Azure REST API specifications, ManagedIdentity: the versions",
    "arm-version": "observed: 400 InvalidApiVersionParameter with the supported versions",
    "arm-audience": "observed: 401 InvalidAuthenticationTokenAudience",
    "arm-rbac": "azure-workload-identity FAQ: the actions read, write and delete; Owner and Contributor",
    "arm-identity": "Azure REST API, userAssignedIdentities: clientId, principalId, tenantId",
    "arm-credentials": "Azure REST API, federatedIdentityCredentials: 201 created, 200 updated, pages by nextLink",
    "arm-delete": "Azure REST API, delete federatedIdentityCredentials: 200, or 204 where there is none",
    "arm-parent": "Microsoft, federation considerations: 404 the parent identity does not exist",
    "arm-empty": "observed: 400 BadRequest, must specify 'issuer', 'subject' and 'audience'",
    "arm-unique": "observed: Issuer and subject combination already exists for this Managed Identity.",
    "arm-405": "Microsoft, federation considerations: 405 in a region without federated credentials",
    "arm-409": "observed: 409 ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity",
    "arm-429": "Microsoft, federation considerations: 429 beyond one write in four seconds of one identity",
}

# The `error` of those codes for which a report or a document has one.
ERRORS = {
    70003: "unsupported_grant_type",
    1002012: "invalid_scope",
    70011: "invalid_scope",
    700016: "unauthorized_client",
    7000112: "unauthorized_client",
    7000229: "unauthorized_client",
    82001: "unauthorized_client",
    65001: "invalid_grant",
    50013: "invalid_grant",
    500131: "invalid_grant",
    500133: "invalid_grant",
    240002: "invalid_grant",
    50000: "server_error",
    70000: "invalid_grant",
    90072: "invalid_grant",
}


class Refused(Exception):
    """An answer that is no token. `open_questions` are those of entra_twin.py that it depends on."""

    def __init__(self, code, text, rests_on, open_questions=(), error=None):
        super().__init__(text)
        self.code, self.text = code, text
        self.rests_on, self.open_questions = rests_on, open_questions
        about_credential = re.match(r"7000|7002|50027", str(code))
        self.error = error or ERRORS.get(code) or ("invalid_client" if about_credential else "invalid_request")

    @property
    def status(self):
        return 401 if self.error == "invalid_client" else 400


def iso(seconds):
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return str(seconds)
