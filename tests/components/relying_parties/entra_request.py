"""One token request: the form, the tenant, the client and how it proves itself, then what it asks for."""

import re

from entra_assertion import (
    check_life,
    check_self_signed,
    check_signature,
    check_time,
    malformed,
    read_assertion,
    refused,
    twice,
)
from entra_basis import Refused
from entra_directory import NO_TENANT, cloud_of, is_guid
from entra_documents import split
from entra_match import EXCHANGE, EXCHANGE_GUID, check_bound_agent, issued_by_entra, match, match_agent
from entra_user import check_agent_user, check_consent, check_refresh_token, check_user_token, user_of

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CLIENT_CREDENTIALS = "client_credentials"
ON_BEHALF_OF = "urn:ietf:params:oauth:grant-type:jwt-bearer"
USER_FIC = "user_fic"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
# What the form of each grant must hold besides `client_id`.
GRANTS = {
    CLIENT_CREDENTIALS: ("scope",),
    ON_BEHALF_OF: ("scope", "assertion", "requested_token_use"),
    USER_FIC: ("scope", "user_federated_identity_credential"),
    DEVICE_CODE: ("device_code",),
    "refresh_token": ("refresh_token",),
    "authorization_code": ("code",),
    "password": ("username", "password"),
    TOKEN_EXCHANGE: (),
}
ZEROS = "00000000-0000-0000-0000-000000000000"
OIDC_SCOPES = ("openid", "offline_access", "profile", "email")
GRAPH = ("https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000")
MICROSOFT = (
    "microsoft.com microsoft.us azure.com azure.net azure.us azure.cn windows.net usgovcloudapi.net chinacloudapi.cn"
    " microsoftonline.com botframework.com dynamics.com office.com office365.com sharepoint.com powerbi.com"
    " visualstudio.com azuredatabricks.net"
).split()


class Request:
    """`answer` gives what a token rests on, or raises `Refused`; `open_questions` grows on the way."""

    def __init__(self, directory, now, authority, tenant, form):
        self.directory, self.now, self.tenant, self.form = directory, now, tenant, form
        self.open_questions = []
        self.authority = authority
        self.cloud = self.cloud_of_authority()
        self.identity = None

    def answer(self):
        if not self.form.get("grant_type") and self.form.get("response_type"):
            return self.sign_in()
        self.check_cloud()
        self.check_form()
        self.check_tenant()
        self.identity = self.client()
        grant = self.form["grant_type"]
        if grant == CLIENT_CREDENTIALS:
            self.check_app_scope()
        if grant == DEVICE_CODE and self.identity.kind == "blueprint":
            text = "AI agent applications do not support interactive authentication."
            raise Refused(82006, text, ["82006"])
        later = self.refusal_of_agent(grant)
        try:
            rests_on = self.authenticate()
        except Refused:
            self.open_questions += (["agents"] if later else []) + ([] if self.identity.enabled else ["order"])
            raise
        self.check_principal()
        if later:
            raise later
        return rests_on + self.grant(grant)

    def grant(self, grant):
        """What the grants differ in, once the client has proved itself. Gives what the answer rests on."""
        if grant == CLIENT_CREDENTIALS:
            self.check_resource(500011, "500011")
            added = any(scope in OIDC_SCOPES for scope in self.form["scope"].split())
            return self.rests_on_of_app_token() + (["oidc-scopes"] if added else [])
        if grant == ON_BEHALF_OF:
            self.open_questions += check_user_token(self)
            self.check_resource(650052, "650052")
            check_consent(self.identity, self.scopes(), self.consented())
            return ["obo"]
        if grant == USER_FIC:
            self.open_questions += check_agent_user(self)
            check_consent(self.identity, self.scopes(), self.consented())
            return ["agent-user-flow"]
        if grant == "refresh_token":
            self.open_questions += check_refresh_token(self)
            check_consent(self.identity, self.scopes(), self.consented())
            return ["request"]
        self.open_questions.append("user-grants")
        return ["request"]

    def consented(self):
        return self.directory.consented(self.identity, user_of(self))

    # The form, the tenant and the client ----------------------------------------------------------

    def cloud_of_authority(self):
        cloud = cloud_of(self.authority)
        if cloud is None and not re.fullmatch(r"localhost|[\d.]*|\[.*", self.authority):
            self.open_questions.append("authority")
        return cloud or self.directory.cloud or "public"

    def check_cloud(self):
        if self.cloud == "test":
            raise Refused(90002, f"Tenant '{self.tenant}' not found.", ["test-cloud"])
        if self.directory.cloud and self.directory.cloud != self.cloud:
            raise Refused(900382, "Confidential Client is not supported in Cross Cloud request.", ["900382"])

    def check_form(self):
        for name in ("grant_type", "client_id"):
            if not self.form.get(name):
                raise missing(name)
        grant = self.form["grant_type"]
        if grant not in GRANTS:
            raise unsupported_grant(grant)
        for name in GRANTS[grant]:
            if not self.form.get(name):
                if name == "scope" and grant == CLIENT_CREDENTIALS:
                    text = "The required field 'scope' is missing from the credential."
                    raise Refused(90014, text, ["scope-missing"])
                raise missing(name, ["form"])

    def check_tenant(self):
        tenant = self.tenant
        if re.search(r"[<>]", tenant):
            raise Refused(90013, "Invalid input received from the user.", ["90013"])
        if tenant == ZEROS:
            raise Refused(900021, f"Requested tenant identifier '{tenant}' is not valid.", ["900021"])
        if tenant in NO_TENANT:
            self.check_common()
        elif tenant.casefold() not in self.directory.tenants:
            self.refuse_tenant()
        elif tenant.casefold().endswith(".onmschina.cn") and self.cloud != "china":
            raise Refused(90002, f"Tenant '{tenant}' not found.", ["china-name"])

    def refuse_tenant(self):
        tenant = self.tenant
        if not is_guid(tenant) and not re.fullmatch(r"[\w-]+(\.[\w-]+)+", tenant):
            text = f"Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid external domain."
            raise Refused(900023, text, ["900023"])
        digits = tenant.rpartition(".")[2].isdigit()
        rests_on = ["90002"] if digits and not is_guid(tenant) else ["error-list"]
        raise Refused(90002, f"Tenant '{tenant}' not found.", rests_on, ["tenant"] if is_guid(tenant) else [])

    def check_common(self):
        if self.tenant != "common":
            self.open_questions.append("tenant")
        resource = self.resource().removeprefix("api://")
        if self.form["grant_type"] == CLIENT_CREDENTIALS and is_guid(resource) and resource != self.resource():
            text = f"Specified tenant identifier '{resource}' is neither a valid DNS name, nor a valid external domain."
            raise Refused(900023, text, ["900023-common"])

    def client(self):
        client_id = self.form["client_id"]
        if client_id == ZEROS:
            raise Refused(700038, f"'{client_id}' is not a valid application identifier.", ["700038"])
        if self.form["grant_type"] == "refresh_token" and client_id.startswith("api://"):
            raise Refused(70000, "The provided value for the refresh token is not valid.", ["70000"])
        identity = self.directory.find(self.tenant, client_id)
        if identity is None or not identity.exists:
            raise self.no_client(["error-list", "object-id"])
        if identity.kind == "managed-identity" and not identity.service_principal:
            raise self.no_client(["managed-identity-tenant"])
        if identity.kind == "agent-user":
            raise self.no_client(["error-list"], ["agents"])
        if client_id != identity.client_id or self.tenant not in (*NO_TENANT, *self.directory.names):
            self.open_questions.append("case")
        return identity

    def no_client(self, rests_on, open_questions=()):
        text = f"Application with identifier '{self.form['client_id']}' was not found in the directory '{self.tenant}'."
        return Refused(700016, text, rests_on, open_questions)

    def check_principal(self):
        client_id = self.identity.client_id
        if not self.identity.service_principal:
            text = f"The client application {client_id} is missing service principal in the tenant {self.tenant}."
            raise Refused(7000229, text, ["7000229"])
        if not self.identity.enabled:
            raise Refused(7000112, f"Application '{client_id}' is disabled.", ["7000112"])

    # The scope ------------------------------------------------------------------------------------

    def scopes(self):
        """The scopes without those of OpenID Connect, which libraries add to every request."""
        return [scope for scope in self.form.get("scope", "").split() if scope not in OIDC_SCOPES]

    def resource(self):
        scopes = self.scopes()
        return scopes[0].removesuffix("/.default").rstrip("/") if scopes else ""

    def check_app_scope(self):
        scopes = self.scopes()
        if not scopes or not all(scope.endswith("/.default") for scope in scopes):
            text = "Client credential flows must have a scope value with /.default suffixed to the resource identifier."
            raise Refused(1002012, text, ["request"])
        if len(scopes) > 1:
            text = f"The provided request must include a single resource. The scope '{self.form['scope']}' is not valid."
            raise Refused(70011, text, ["error-list"], ["scope"])

    def asks_for_exchange(self):
        guid = self.resource().removeprefix("api://") == EXCHANGE_GUID
        return self.resource() == EXCHANGE[self.cloud] or guid

    def check_resource(self, code, rests_on):
        resource = self.resource()
        if self.directory.resources is not None:
            own = [uri for identity in self.directory.identities() for uri in identity.identifier_uris]
            known = [one.rstrip("/").casefold() for one in [*self.directory.resources, *own]]
            if resource and self.scopes()[0].endswith("/.default") and resource.casefold() not in known:
                raise self.no_resource(code, rests_on)
        elif code == 500011 and resource.startswith("https://") and not of_microsoft(resource):
            raise self.no_resource(code, rests_on, ["resource"])
        elif self.cloud == "china" and resource in PUBLIC_RESOURCES:
            raise self.no_resource(code, rests_on)

    def no_resource(self, code, rests_on, open_questions=()):
        text = f"The resource principal named {self.resource()} was not found in the tenant named {self.tenant}."
        return Refused(code, text, [rests_on], open_questions)

    # How the client proves itself -----------------------------------------------------------------

    def authenticate(self):
        form = self.form
        secret, assertion = form.get("client_secret"), form.get("client_assertion")
        presented = secret or assertion
        if self.identity.public_client and presented:
            text = "Client is public so neither 'client_assertion' nor 'client_secret' should be presented."
            raise refused(700025, text, ["700025"])
        if secret and assertion:
            text = "A client secret and a client assertion must not be sent together."
            raise Refused(9002324, text, ["9002324"])
        if secret:
            return self.check_secret(secret)
        if assertion == "" and form.get("client_assertion_type") == ASSERTION_TYPE:
            raise malformed("empty", ["50027"], ["empty-assertion"])
        if not assertion or form.get("client_assertion_type") != ASSERTION_TYPE:
            return self.without_proof(["assertion-type"] if assertion else [])
        return self.check_assertion(assertion)

    def without_proof(self, open_questions):
        if self.form["grant_type"] == CLIENT_CREDENTIALS:
            text = "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type."
            raise refused(7000216, text, ["7000216"], open_questions)
        if self.identity.public_client:
            return ["request"]
        text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."
        raise refused(7000218, text, ["7000218"], open_questions)

    def check_secret(self, secret):
        if self.identity.kind == "managed-identity":
            raise refused(7000232, "A managed identity may not use a client secret.", ["7000232"])
        if secret in self.identity.expired_secrets:
            raise refused(7000222, "The provided client secret keys are expired.", ["7000222"])
        if secret not in self.identity.secrets:
            raise refused(7000215, "Invalid client secret provided.", ["7000215"])
        return ["request"]

    def check_assertion(self, assertion):
        self.open_questions += twice(assertion)
        header, claims = read_assertion(assertion)
        if check_self_signed(self.identity, header, claims, self.endpoints(), self.now):
            self.open_questions.append("signature")
            return ["request"]
        check_life(claims)
        if self.identity.kind == "agent-identity" and not self.identity.credentials:
            self.open_questions += match_agent(self.identity, claims, self.cloud)
        else:
            if self.identity.kind == "blueprint":
                check_bound_agent(self.identity, claims, self.form.get("fmi_path"))
            self.open_questions += match(self.identity, claims, self.cloud, self.directory)
        return self.verify(assertion, header, claims)

    def verify(self, assertion, header, claims):
        if issued_by_entra(claims["iss"]):
            self.open_questions.append("signature")
            of_agent = self.identity.kind == "agent-identity"
            rests_on = ["t1-subject"] if of_agent else ["entra-accepted", "exchange-guid"]
        else:
            found = self.directory.keys_of(claims["iss"], self.now)
            self.open_questions += check_signature(assertion, header, claims["iss"], found)
            rests_on = ["blueprint-direct"] if self.identity.kind == "blueprint" else ["request"]
        self.open_questions += check_time(claims, self.now)
        return rests_on

    def endpoints(self):
        """The audiences that an application's own assertion may have."""
        for host in {self.authority, "login.microsoftonline.com"}:
            for tenant in {self.tenant, self.identity.tenant}:
                for path in ("oauth2/v2.0/token", "oauth2/token", "v2.0", ""):
                    yield f"https://{host}/{tenant}/{path}"

    # Agents ---------------------------------------------------------------------------------------

    def refusal_of_agent(self, grant):
        """What refuses a client that has proved itself, because of its kind."""
        kind, client_id = self.identity.kind, self.identity.client_id
        if grant == TOKEN_EXCHANGE and kind != "blueprint":
            return unsupported_grant(grant)
        if kind != "blueprint":
            return None
        if grant == TOKEN_EXCHANGE:
            return app_only_refused(client_id, self.form.get("resource", ""), "82001-grant")
        if grant == ON_BEHALF_OF:
            return Refused(82002, f"Agentic application '{client_id}' may not use this grant.", ["82002"])
        if grant != CLIENT_CREDENTIALS:
            return Refused(82002, f"Agentic application '{client_id}' may not use this grant.", ["82002"], ["agents"])
        if self.asks_for_exchange():
            return None if self.form.get("fmi_path") else self.no_fmi_path()
        if self.resource() in GRAPH:
            return None
        return app_only_refused(client_id, self.resource(), "82001")

    def no_fmi_path(self):
        text = "All agentic applications that ask for a token exchange token must send fmi_path."
        return Refused(82008, text, ["82008"], ["fmi-path"] if "fmi_path" in self.form else [])

    def rests_on_of_app_token(self):
        kind, fmi_path = self.identity.kind, self.form.get("fmi_path")
        if kind == "blueprint" and not self.asks_for_exchange():
            return ["blueprint-graph"]
        if kind == "blueprint":
            return self.check_agent_of_path(fmi_path)
        if kind == "agent-identity":
            return ["agent-flow"]
        return ["fmi-path-application"] if fmi_path else []

    def check_agent_of_path(self, fmi_path):
        if fmi_path == self.identity.client_id:
            return ["agent-flow", "fmi-path-itself"]
        agents = [one for one in self.directory.identities("agent-identity") if one.client_id == fmi_path]
        if not agents or any(one.blueprint not in (None, self.identity.client_id) for one in agents):
            self.open_questions.append("fmi-path")
        return ["agent-flow"]

    # What a browser would be sent to --------------------------------------------------------------

    def sign_in(self):
        """A form with `response_type` and no grant says what the authorization endpoint is asked for."""
        self.identity = self.directory.find(self.tenant, self.form.get("client_id", ""))
        if self.identity is None:
            raise self.no_client(["error-list"])
        if self.identity.kind in ("blueprint", "agent-identity"):
            self.sign_in_of_agent()
        if self.resource() == f"api://{self.identity.client_id}":
            text = "Application is requesting a token for itself. Use the application's GUID."
            raise Refused(90009, text, ["90009"])
        self.open_questions.append("user-grants")
        return ["request"]

    def sign_in_of_agent(self):
        if self.form["response_type"] != "none":
            raise Refused(82018, "Response types other than 'none' are not allowed for agents.", ["82018"])
        if self.identity.kind == "agent-identity":
            raise Refused(82014, "Child agents do not support interactive consent.", ["82014"])
        raise Refused(82007, "Consent to an agentic application is not possible here.", ["82007"], ["agents"])


PUBLIC_RESOURCES = ["https://management.core.windows.net", "https://graph.microsoft.com"]


def of_microsoft(resource):
    host = split(resource).hostname or ""
    return any(host == known or host.endswith("." + known) for known in MICROSOFT)


def missing(name, open_questions=()):
    text = f"The request body must contain the following parameter: '{name}'."
    return Refused(900144, text, ["error-list"], open_questions)


def unsupported_grant(grant):
    if grant.endswith("saml2-bearer"):
        return Refused(50107, "The requested federation realm object does not exist.", ["50107"])
    return Refused(70003, "The app requested an unsupported grant type.", ["error-list"])


def app_only_refused(client_id, resource, rests_on):
    text = f"Agentic application '{client_id}' is not permitted to request app-only tokens for resource '{resource}'."
    return Refused(82001, text, [rests_on, "82001-scope"])
