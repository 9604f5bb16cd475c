"""Azure Resource Manager: the federated credentials of managed identities.

Chosen where nothing speaks; the header `undocumented` has the name:

- arm-token       Codes and texts for a token that is missing, unknown or too old. Only that of a wrong audience is
                  observed.
- arm-access      The code and text of a refusal; built-in roles count by name.
- api-version     The codes are observed for other types of resources.
- arm-code        The code for a rule that a credential breaks. Observed is `BadRequest` for one that lacks something.
- arm-404         The code for a credential, an identity or a subscription that is not there. `ParentResourceNotFound`
                  is Azure's usual one for a write below what is not there.
- arm-path        What is not known here is 404.
- arm-paging      `$top` counts, up to the page size; a page's token is where it starts.
- rate            One write is allowed in each 1/`writes_per_second` of one identity; a refused one does not count. Time
                  goes by both really and by the twin's clock.
- concurrency     What a write finds is looked at when its time is over.
- arm-flexible    Expressions are taken of all issuers in preview versions, as an example has them, else ignored.
"""

import math
import re
import time

from entra_api import (
    EXPRESSION,
    Answer,
    BadCredential,
    Refusal,
    audience_api,
    bearer,
    check_name,
    cloud_differs,
    credential_of,
    page,
    with_credential,
)
from entra_directory import stable_id

VERSIONS = [
    "2022-01-31-preview",
    "2023-01-31",
    "2023-07-31-preview",
    "2024-11-30",
    "2025-01-31-preview",
    "2025-05-31-preview",
    "2026-04-30",
    "2026-05-31",
]
FLEXIBLE_VERSIONS = ("2025-01-31-preview", "2025-05-31-preview")
TYPE = "Microsoft.ManagedIdentity/userAssignedIdentities"
IN_SUBSCRIPTION = rf"(?P<subscription>/subscriptions/[^/]+)/providers/{TYPE}"
IN_GROUP = rf"(?P<group>(?P<subscription>/subscriptions/[^/]+)/resourceGroups/[^/]+)/providers/{TYPE}"
IDENTITY = rf"(?P<id>{IN_GROUP}/(?P<identity>[^/]+))"
CREDENTIALS = rf"{IDENTITY}/federatedIdentityCredentials"
ROLES = {"read": ("Reader", "Contributor", "Owner"), "write": ("Contributor", "Owner"), "delete": ("Contributor", "Owner")}


class Writes:
    """Which identities are being written, and when each was written last."""

    def __init__(self):
        self.busy, self.last = set(), {}


class Arm:
    """One request. `answer` gives an `Answer`."""

    def __init__(self, directory, tokens, now, request, writes):
        self.directory, self.tokens, self.now, self.request = directory, tokens, now, request
        self.writes, self.version = writes, None
        self.caller = None

    def answer(self):
        try:
            answer = self.dispatch()
        except BadCredential as bad:
            answer = render(bad_credential(bad))
        except Refusal as refusal:
            answer = render(refusal)
        answer.open_questions += self.request.open_questions
        answer.headers["x-ms-request-id"] = self.request.fallback_id
        return answer

    def dispatch(self):
        self.caller = self.authenticate()
        self.check_version()
        path = re.sub("/+", "/", self.request.path).rstrip("/")
        handlers = {
            rf"{CREDENTIALS}/(?P<name>[^/]+)": self.one_credential,
            CREDENTIALS: self.list_credentials,
            IDENTITY: self.one_identity,
            IN_GROUP: self.list_identities,
            IN_SUBSCRIPTION: self.list_identities,
        }
        for pattern, handler in handlers.items():
            found = re.fullmatch(pattern, path, re.IGNORECASE)
            if found:
                return handler(found)
        raise Refusal(404, "NotFound", "Nothing is at this path.", [], ["arm-path"])

    # Who asks -------------------------------------------------------------------------------------------------

    def authenticate(self):
        token = bearer(self.request)
        caller = self.tokens.get(token)
        if not token:
            text = "Authentication failed. The 'Authorization' header is missing."
            raise Refusal(401, "AuthenticationFailed", text, [], ["arm-token"])
        if caller is None:
            raise Refusal(401, "InvalidAuthenticationToken", "The access token is invalid.", [], ["arm-token"])
        if audience_api(caller.audience) != "arm" or cloud_differs(self.request, caller):
            text = f"The access token has been obtained for wrong audience or resource '{caller.audience}'."
            raise Refusal(401, "InvalidAuthenticationTokenAudience", text, ["arm-audience"])
        if caller.expires is not None and caller.expires <= self.now:
            text = "The access token expiry UTC time is earlier than current UTC time."
            raise Refusal(401, "ExpiredAuthenticationToken", text, [], ["arm-token"])
        return caller

    def need(self, action, scope, type_of=f"{TYPE}/federatedIdentityCredentials"):
        full = f"{type_of}/{action}"
        wildcards = (f"{TYPE}/*", f"{type_of}/*", "Microsoft.ManagedIdentity/*", "Managed Identity Contributor")
        if not self.caller.may(full, *wildcards, *ROLES[action]):
            text = (
                f"The client '{self.caller.client_id}' does not have authorization to perform action '{full}' over scope"
                f" '{scope}' or the scope is invalid. If access was recently granted, please refresh your credentials."
            )
            raise Refusal(403, "AuthorizationFailed", text, ["arm-rbac"], ["arm-access"])

    def check_version(self):
        given = [value for name, value in self.request.query.items() if name.casefold() == "api-version"]
        if not given or not given[0]:
            text = "The api-version query parameter (?api-version=) is required for all requests."
            raise Refusal(400, "MissingApiVersionParameter", text, ["arm-versions"], ["api-version"])
        self.version = given[0].casefold()
        if self.version not in VERSIONS:
            text = f"The api-version '{given[0]}' is invalid. The supported versions are '{','.join(reversed(VERSIONS))}'."
            raise Refusal(400, "InvalidApiVersionParameter", text, ["arm-versions", "arm-version"], ["api-version"])

    # Identities -----------------------------------------------------------------------------------------------

    def known_identities(self):
        """The user-assigned ones; one that a system assigned is no resource of its own."""
        found = self.directory.tenants.get(self.caller.tenant.casefold(), {}).values()
        return [one for one in found if one.kind == "managed-identity" and one.resource_id and one.exists]

    def check_subscription(self, found):
        subscription = found["subscription"]
        listed = [f"/subscriptions/{one}" for one in self.directory.content.get("subscriptions", [])]
        known = listed + [one.resource_id for one in self.known_identities()]
        if not any(f"{one}/".casefold().startswith(f"{subscription}/".casefold()) for one in known):
            text = f"The subscription '{subscription.rpartition('/')[2]}' could not be found."
            raise Refusal(404, "SubscriptionNotFound", text, ["arm-error"], ["arm-404"])

    def find(self, found):
        self.check_subscription(found)
        wanted = found["id"].casefold()
        return next((one for one in self.known_identities() if one.resource_id.casefold() == wanted), None)

    def one_identity(self, found):
        self.need("read", found["id"], TYPE)
        self.only("GET")
        identity = self.find(found)
        if identity is None:
            raise no_identity(found)
        return Answer(200, identity_json(identity), ["arm-identity"])

    def list_identities(self, found):
        scope = found["group"] if "group" in found.groupdict() else found["subscription"]
        self.need("read", scope, TYPE)
        self.only("GET")
        self.check_subscription(found)
        inside = [one for one in self.known_identities() if one.resource_id.casefold().startswith(f"{scope}/".casefold())]
        return self.listed([identity_json(one) for one in inside], ["arm-identity"])

    def only(self, *methods):
        if self.request.method not in methods:
            raise Refusal(405, "MethodNotAllowed", "The method is not for this resource.", [], ["arm-path"])

    def listed(self, found, rests_on):
        part, link = page(self.request, found, self.directory.content.get("page_size", 100))
        content = {"value": part, **({"nextLink": link} if link else {})}
        return Answer(200, content, rests_on, ["arm-paging"] if link or "$top" in self.request.query else [])

    # Credentials ----------------------------------------------------------------------------------------------

    def list_credentials(self, found):
        self.need("read", found["id"])
        self.only("GET")
        identity = self.find(found)
        if identity is None:
            raise no_identity(found)
        return self.listed([self.credential_json(identity, one) for one in identity.stored], ["arm-credentials"])

    def one_credential(self, found):
        self.only("GET", "PUT", "DELETE")
        action = {"GET": "read", "PUT": "write", "DELETE": "delete"}[self.request.method]
        self.need(action, found["id"])
        identity = self.find(found)
        if identity is None:
            raise no_parent(found, action)
        if action == "read":
            credential = named(identity, found["name"])
            if credential is None:
                text = f"The federated identity credential '{found['name']}' was not found."
                raise Refusal(404, "NotFound", text, ["arm-credentials"], ["arm-404"])
            return Answer(200, self.credential_json(identity, credential), ["arm-credentials"])
        return self.write(identity, found["name"])

    def write(self, identity, name):
        if not identity.federation:
            text = "Support for federated identity credentials not enabled"
            raise Refusal(405, "MethodNotAllowed", text, ["arm-405"], ["arm-code"])
        self.begin(identity)
        try:
            time.sleep(self.directory.content.get("write_seconds", 0))
            with self.directory.state_lock:
                return self.remove(identity, name) if self.request.method == "DELETE" else self.put(identity, name)
        finally:
            self.writes.busy.discard(identity)

    def begin(self, identity):
        """Lets one writer at a time have the identity."""
        with self.directory.state_lock:
            if identity in self.writes.busy:
                text = (
                    "Too many Federated Identity Credentials are written concurrently for the managed identity"
                    f" '{identity.resource_id}'. Concurrent Federated Identity Credentials writes under the same managed"
                    " identity are not supported."
                )
                code = "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity"
                raise Refusal(409, code, text, ["arm-409"], ["concurrency"])
            self.check_rate(identity)
            self.writes.busy.add(identity)

    def check_rate(self, identity):
        rate = self.directory.content.get("writes_per_second")
        if not rate:
            return
        now = time.monotonic() + self.now
        wait = self.writes.last.get(identity, -math.inf) + 1 / rate - now
        if wait > 0:
            headers = {"Retry-After": str(math.ceil(wait))}
            text = "The request was throttled. Please wait and try again."
            raise Refusal(429, "TooManyRequests", text, ["arm-429"], ["rate"], headers)
        self.writes.last[identity] = now

    def put(self, identity, name):
        check_name(name)
        body = self.request.body
        properties = body.get("properties") if isinstance(body, dict) else None
        if not isinstance(properties, dict) or not properties:
            raise BadCredential("empty", "Federated Identity Credential must specify 'issuer', 'subject' and 'audience'.")
        if self.version not in FLEXIBLE_VERSIONS and EXPRESSION in properties:
            self.request.open_questions.append("arm-flexible")
            properties = {key: value for key, value in properties.items() if key != EXPRESSION}
        known = named(identity, name)
        credential_id = known.id if known else stable_id(identity.resource_id, name)
        credential = credential_of(known.name if known else name, properties, credential_id)
        self.store(identity, with_credential(identity.stored, credential, known))
        return Answer(200 if known else 201, self.credential_json(identity, credential), ["arm-credentials"])

    def remove(self, identity, name):
        known = named(identity, name)
        if known is None:
            return Answer(204, None, ["arm-delete"])
        self.store(identity, [one for one in identity.stored if one is not known])
        return Answer(200, None, ["arm-delete"])

    def store(self, identity, credentials):
        identity.store(credentials, self.now + self.directory.propagation_seconds)

    def credential_json(self, identity, credential):
        properties = {"issuer": credential.issuer, "audiences": [credential.audience]}
        if credential.subject:
            properties["subject"] = credential.subject
        if credential.expression and self.version in FLEXIBLE_VERSIONS:
            properties[EXPRESSION] = credential.expression
        kind = f"{TYPE}/federatedIdentityCredentials"
        own_id = f"{identity.resource_id}/federatedIdentityCredentials/{credential.name}"
        return {"id": own_id, "name": credential.name, "type": kind, "properties": properties}


def named(identity, name):
    return next((one for one in identity.stored if one.name.casefold() == name.casefold()), None)


def identity_json(identity):
    ids = {"tenantId": identity.tenant, "principalId": identity.principal_id, "clientId": identity.client_id}
    name = identity.resource_id.rpartition("/")[2]
    members = {"id": identity.resource_id, "name": name, "type": TYPE, "location": identity.location, "tags": {}}
    return {**members, "properties": ids}


def no_identity(found):
    group = found["group"].rpartition("/")[2]
    text = f"The Resource '{TYPE}/{found['identity']}' under resource group '{group}' was not found."
    return Refusal(404, "ResourceNotFound", text, ["arm-error"], ["arm-404"])


def no_parent(found, action):
    text = (
        f"Failed to perform '{action}' on resource(s) of type 'userAssignedIdentities/federatedIdentityCredentials', because"
        f" the parent resource '{found['id']}' could not be found."
    )
    return Refusal(404, "ParentResourceNotFound", text, ["arm-parent"], ["arm-404"])


def bad_credential(bad):
    text = bad.text
    if bad.rule == "empty":
        return Refusal(400, "BadRequest", f"The request format was unexpected. {text}", ["arm-empty", "credential-rules"])
    if bad.rule == "unique":
        text = "Issuer and subject combination already exists for this Managed Identity."
        return Refusal(400, "BadRequest", text, ["arm-unique", "credential-rules"], ["arm-code"])
    return Refusal(400, "BadRequest", text, ["credential-rules"], ["arm-code"])


def render(refusal):
    content = {"error": {"code": refusal.code, "message": refusal.text}}
    return Answer(refusal.status, content, [*refusal.rests_on, "arm-error"], refusal.open_questions, refusal.headers)
