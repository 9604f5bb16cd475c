"""Microsoft Graph, as far as federated credentials and the consent of agents need it.

Chosen where nothing speaks; the header `undocumented` has the name:

- graph-token     The texts for a token that is missing, unknown or too old. Only that of a wrong audience is observed.
- graph-path      What is not known here is 400 `BadRequest`, as is a credential of a managed identity at its principal.
- graph-invalid   The code for a name, an audience, a length or a number that the rules forbid. Observed is the code for
                  issuer and subject that are there already.
- flexible-create An expression is refused for issuers that the documents do not name.
- beta-only       `claimsMatchingExpression` on v1.0 is an unknown property, unless it is null.
- filter          Two properties, another operator, an unknown property: `Request_UnsupportedQuery`.
- paging          `$top` counts, up to the page size; a page's token is where it starts.
- owners          `Application.ReadWrite.OwnedBy` is enough where the directory has no `owners`.
- agent-permissions  With `Directory.AccessAsUser.All` or `Directory.ReadWrite.All` those for agents do not count, and
                  those for applications do not stand for them. Who may change credentials of blueprints may read
                  credentials.
- blueprint-version  Where blueprints are not for v1.0, all that touches one is refused, a filter that finds one included.
- cast            The cast of what is no blueprint is not found.
- scopes          An enabled scope cannot be left out of a new list.
- consent         A permission grant for a client or resource that is not there: 400.
"""

import re
import uuid

from entra_api import (
    EXPRESSION,
    KEY,
    READ,
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
from entra_basis import iso
from entra_consent import permission_grants, service_principals
from entra_directory import scope_objects
from entra_match import FLEXIBLE_ISSUER

AGENT_CREDENTIALS = "AgentIdentityBlueprint.AddRemoveCreds.All"
AGENT_PROPERTIES = "AgentIdentityBlueprint.UpdateAuthProperties.All"
NOT_WITH_AGENTS = ("Directory.AccessAsUser.All", "Directory.ReadWrite.All")
BLUEPRINT = "#microsoft.graph.agentIdentityBlueprint"
CAST = r"(?:/(?:microsoft\.)?graph\.agentIdentityBlueprint)?"
CREDENTIALS = r"/federatedIdentityCredentials(?:/(?P<credential>[^/()]+)|\((?:name|id)='(?P<named>[^']*)'\))?"


class Graph:
    """One request. `answer` gives an `Answer`."""

    def __init__(self, directory, tokens, now, request):
        self.directory, self.tokens, self.now, self.request = directory, tokens, now, request
        self.version = "beta" if request.path.startswith("/beta") else "v1.0"
        self.caller = None

    def answer(self):
        with self.directory.state_lock:
            try:
                answer = self.dispatch()
            except BadCredential as bad:
                answer = self.render(bad_credential(bad, self.request))
            except Refusal as refusal:
                answer = self.render(refusal)
        answer.open_questions += self.request.open_questions
        answer.headers["request-id"] = self.request_id()
        return answer

    def request_id(self):
        return self.request.headers.get("client-request-id") or self.request.fallback_id

    def render(self, refusal):
        ids = {"request-id": self.request_id(), "client-request-id": self.request_id()}
        inner = {"date": iso(self.now).removesuffix("Z"), **ids}
        content = {"error": {"code": refusal.code, "message": refusal.text, "innerError": inner}}
        rests_on = [*refusal.rests_on, "graph-error"]
        return Answer(refusal.status, content, rests_on, refusal.open_questions, refusal.headers)

    def dispatch(self):
        self.caller = self.authenticate()
        path = re.sub("/+", "/", self.request.path)
        found = re.fullmatch(r"/(?:v1\.0|beta)/(?P<set>\w+)(?P<rest>.*)", path)
        rest, of = (found["rest"].rstrip("/"), found["set"].casefold()) if found else ("", "")
        handlers = {
            "applications": self.applications,
            "serviceprincipals": lambda rest: service_principals(self, rest),
            "oauth2permissiongrants": lambda rest: permission_grants(self, rest),
        }
        if of not in handlers:
            raise self.no_path()
        return handlers[of](rest)

    def no_path(self):
        text = "Resource not found for the segment, or the method is not for it."
        return Refusal(400, "BadRequest", text, [], ["graph-path"])

    # Who asks -------------------------------------------------------------------------------------------------

    def authenticate(self):
        token = bearer(self.request)
        caller = self.tokens.get(token)
        if not token or caller is None:
            text = "IDX14100: JWT is not well formed." if token else "Access token is empty."
            raise Refusal(401, "InvalidAuthenticationToken", text, ["graph-401"], ["graph-token"])
        if audience_api(caller.audience) != "graph" or cloud_differs(self.request, caller):
            text = "Access token validation failure. Invalid audience."
            raise Refusal(401, "InvalidAuthenticationToken", text, ["graph-audience"])
        if caller.expires is not None and caller.expires <= self.now:
            text = "Lifetime validation failed, the token is expired."
            raise Refusal(401, "InvalidAuthenticationToken", text, ["graph-401"], ["graph-token"])
        return caller

    def need(self, *permissions):
        if not self.caller.may(*permissions):
            raise self.denied(["graph-permissions"])

    def denied(self, rests_on, open_questions=()):
        text = "Insufficient privileges to complete the operation."
        return Refusal(403, "Authorization_RequestDenied", text, rests_on, open_questions)

    def need_read(self, rest):
        """Who may change the credentials of blueprints may read them."""
        reads_credentials = "/federatedidentitycredentials" in rest.casefold()
        if reads_credentials and not self.caller.may(*READ) and AGENT_CREDENTIALS in self.caller.grants:
            self.request.open_questions.append("agent-permissions")
            return
        self.need(*READ)

    def need_write(self, app, agent_permission):
        if app.kind == "blueprint":
            if any(one in self.caller.grants for one in NOT_WITH_AGENTS):
                raise self.denied(["agent-permissions"], ["agent-permissions"])
            if not self.caller.may(agent_permission):
                raise self.denied(["agent-permissions"], ["agent-permissions"])
            return
        if self.caller.may("Application.ReadWrite.All"):
            return
        self.need("Application.ReadWrite.OwnedBy")
        if app.owners is None:
            self.request.open_questions.append("owners")
        elif self.caller.client_id not in app.owners:
            raise self.denied(["graph-permissions"])

    # Applications ---------------------------------------------------------------------------------------------

    def known_applications(self):
        clients = self.directory.tenants.get(self.caller.tenant.casefold(), {}).values()
        at_home = [one for one in clients if one.tenant.casefold() == self.caller.tenant.casefold() and one.exists]
        return [one for one in at_home if one.kind in ("application", "blueprint")]

    def applications(self, rest):
        if self.request.method == "GET":
            self.need_read(rest)
        cast = re.fullmatch(r"/(?:microsoft\.)?graph\.agentIdentityBlueprint", rest, re.IGNORECASE)
        if not rest or cast:
            return self.list_applications(cast)
        found = re.fullmatch(KEY + r"(?P<cast>" + CAST + r")(?:" + CREDENTIALS + ")?", rest, re.IGNORECASE)
        if not found:
            raise self.no_path()
        app = self.application(found)
        if "/federatedIdentityCredentials".casefold() in rest.casefold():
            return self.credentials(app, found["credential"] or found["named"], found["named"] is not None)
        if self.request.method == "GET":
            return Answer(200, self.selected(self.application_json(app, True)), ["graph-application"])
        if self.request.method == "PATCH":
            return self.change_application(app)
        raise self.no_path()

    def list_applications(self, cast):
        if self.request.method != "GET":
            raise self.no_path()
        found = [self.application_json(one) for one in self.known_applications() if not cast or one.kind == "blueprint"]
        answer = self.listed("applications", found, ("appId", "displayName", "id"), ["graph-find"])
        for one in answer.content["value"]:
            self.check_version("blueprint" if BLUEPRINT == one.get("@odata.type") else None)
        return answer

    def application(self, found):
        key, name, value = found["key"], found["property"], found["value"]
        wanted = (key or value or "").casefold()
        for app in self.known_applications():
            own = app.client_id if name and name.casefold() == "appid" else app.application_id
            if own.casefold() == wanted and (not name or name.casefold() != "name"):
                if found["cast"] and app.kind != "blueprint":
                    self.request.open_questions.append("cast")
                    break
                self.check_version(app.kind)
                return app
        text = f"Resource '{key or value}' does not exist or one of its queried reference-property objects are not present."
        raise Refusal(404, "Request_ResourceNotFound", text, ["graph-404"])

    def check_version(self, kind):
        if kind == "blueprint" and self.version == "v1.0" and not self.directory.content.get("blueprints_on_v1", True):
            text = "Agent Blueprints are not supported on the API version used in this request."
            open_questions = ["blueprint-version"]
            raise Refusal(400, "AgentBlueprint_NotSupportedOnApiVersion", text, ["blueprint-version"], open_questions)

    def application_json(self, app, alone=False):
        members = {"@odata.context": self.context("applications/$entity")} if alone else {}
        if app.kind == "blueprint":
            members["@odata.type"] = BLUEPRINT
        return {
            **members,
            "id": app.application_id,
            "appId": app.client_id,
            "displayName": app.display_name,
            "createdDateTime": app.created,
            "identifierUris": app.identifier_uris,
            "signInAudience": "AzureADMultipleOrgs" if app.multi_tenant else "AzureADMyOrg",
            "api": {"oauth2PermissionScopes": app.scopes},
        }

    def change_application(self, app):
        self.need_write(app, AGENT_PROPERTIES)
        body = self.members()
        if set(body) - {"identifierUris", "api", "displayName", "@odata.type"}:
            raise Refusal(400, "Request_BadRequest", "A property cannot be changed here.", [], ["graph-path"])
        uris = body.get("identifierUris", app.identifier_uris)
        scopes = (body.get("api") or {}).get("oauth2PermissionScopes", app.scopes)
        for other in self.known_applications():
            if other is not app and set(other.identifier_uris) & set(uris):
                text = "Another object with the same value for property identifierUris already exists."
                raise Refusal(400, "Request_BadRequest", text, [], ["graph-invalid"])
        if not all(isinstance(one, dict) and one.get("id") and one.get("value") for one in scopes):
            raise Refusal(400, "Request_BadRequest", "A scope has an id and a value.", [], ["graph-invalid"])
        left = {one["id"] for one in scopes}
        if any(one.get("isEnabled", True) and one["id"] not in left for one in app.scopes):
            text = "Permission (scope or role) cannot be deleted or updated unless disabled first."
            raise Refusal(400, "CannotDeleteOrUpdateEnabledEntitlement", text, [], ["scopes"])
        app.identifier_uris, app.scopes = list(uris), scope_objects(scopes)
        app.display_name = body.get("displayName", app.display_name)
        return Answer(204, None, ["graph-blueprint-properties"])

    # Credentials ----------------------------------------------------------------------------------------------

    def credentials(self, app, key, by_name):
        method = self.request.method
        if key is None and method == "GET":
            found = [self.credential_json(app, one) for one in app.stored]
            context = f"applications('{app.application_id}')/federatedIdentityCredentials"
            return self.listed(context, found, ("name", "subject"), ["graph-credentials"], only_one=True)
        if method != "GET":
            self.need_write(app, AGENT_CREDENTIALS)
        if key is None and method == "POST":
            return self.create(app, self.members())
        if key is None or method not in ("GET", "PATCH", "DELETE"):
            raise self.no_path()
        credential = next((one for one in app.stored if key in (one.id, one.name)), None)
        if credential is None and by_name and method == "PATCH" and self.creates_if_missing():
            return self.create(app, {**self.members(), "name": key}, ["graph-upsert"])
        if credential is None:
            text = f"Resource '{key}' does not exist or one of its queried reference-property objects are not present."
            raise Refusal(404, "Request_ResourceNotFound", text, ["graph-404"])
        if method == "GET":
            return Answer(200, self.selected(self.credential_json(app, credential, True)), ["graph-credentials"])
        if method == "DELETE":
            self.store(app, [one for one in app.stored if one is not credential])
            return Answer(204, None, ["graph-credentials"])
        return self.change(app, credential, self.members())

    def creates_if_missing(self):
        return "create-if-missing" in (self.request.headers.get("prefer") or "").casefold()

    def create(self, app, members, rests_on=()):
        check_name(members.get("name"))
        if any(one.name == members["name"] for one in app.stored):
            text = f"FederatedIdentityCredential with name {members['name']} already exists."
            raise Refusal(409, "Request_MultipleObjectsWithSameKeyValue", text, ["graph-409"])
        credential = self.credential(members["name"], members, str(uuid.uuid4()))
        self.store(app, with_credential(app.stored, credential))
        return Answer(201, self.credential_json(app, credential, True), [*rests_on, "graph-credentials"])

    def change(self, app, credential, members):
        if members.get("name", credential.name) != credential.name:
            raise BadCredential("name", "The name of a federated identity credential cannot be changed.")
        members = {**self.credential_json(app, credential, beta=True), **members}
        changed = self.credential(credential.name, members, credential.id)
        self.store(app, with_credential(app.stored, changed, credential))
        return Answer(204, None, ["graph-credentials"])

    def credential(self, name, members, credential_id):
        if members.get(EXPRESSION) is not None and self.version != "beta":
            text = f"The property '{EXPRESSION}' does not exist on type 'microsoft.graph.federatedIdentityCredential'."
            raise Refusal(400, "BadRequest", text, ["graph-beta"], ["beta-only"])
        credential = credential_of(name, members, credential_id)
        if credential.flexible and not re.fullmatch(FLEXIBLE_ISSUER, credential.issuer):
            raise BadCredential("flexible", f"An expression is not supported for the issuer '{credential.issuer}'.")
        return credential

    def store(self, app, credentials):
        app.store(credentials, self.now + self.directory.propagation_seconds)

    def credential_json(self, app, credential, alone=False, beta=False):
        path = f"applications('{app.application_id}')/federatedIdentityCredentials"
        members = {"@odata.context": self.context(f"{path}/$entity")} if alone else {}
        members["@odata.id"] = f"{self.request.base}/{self.version}/{path}('{credential.id}')"
        names = ("id", "name", "issuer", "subject", "description")
        members.update({name: getattr(credential, name) for name in names})
        members["audiences"] = [credential.audience]
        if beta or self.version == "beta":
            members[EXPRESSION] = credential.expression
        return members

    # Bodies and lists -------------------------------------------------------------------------------------------

    def members(self):
        if not isinstance(self.request.body, dict):
            raise Refusal(400, "BadRequest", "Unable to read JSON request payload.", [], ["graph-path"])
        return self.request.body

    def context(self, what):
        return f"{self.request.base}/{self.version}/$metadata#{what}"

    def selected(self, members):
        names = self.request.query.get("$select")
        wanted = names.split(",") if names else members
        return {name: value for name, value in members.items() if name in wanted or name.startswith("@")}

    def listed(self, context, found, properties, rests_on, only_one=False):
        found = self.filtered(found, properties, only_one)
        size = self.directory.content.get("page_size", 100)
        part, link = page(self.request, found, size)
        content = {"@odata.context": self.context(context), "value": [self.selected(one) for one in part]}
        if link:
            content["@odata.nextLink"] = link
        return Answer(200, content, rests_on, ["paging"] if link or "$top" in self.request.query else [])

    def filtered(self, found, properties, only_one):
        expression = self.request.query.get("$filter")
        if expression is None:
            return found
        terms = re.split(r"\s+and\s+", expression.strip())
        parsed = [re.fullmatch(r"(\w+)\s+eq\s+(?:'((?:[^']|'')*)'|(null))", term) for term in terms]
        if only_one and len(terms) > 1:
            text = "Filtering on more than one resource is currently not supported."
            raise Refusal(400, "Request_UnsupportedQuery", text, ["graph-filter"], ["filter"])
        if not all(one and one[1] in properties for one in parsed):
            text = "Unsupported or invalid query filter clause specified for property."
            raise Refusal(400, "Request_UnsupportedQuery", text, ["graph-filter"], ["filter"])
        for one in parsed:
            wanted = None if one[3] else one[2].replace("''", "'")
            ignores_case = one[1] in ("appId", "id")
            found = [entry for entry in found if equal(entry.get(one[1]), wanted, ignores_case)]
        return found


def equal(value, wanted, ignores_case):
    return value == wanted or (ignores_case and str(value).casefold() == str(wanted).casefold())


def bad_credential(bad, request):
    code = "InvalidFederatedIdentityCredentialValue"
    if bad.rule == "unique":
        body = request.body
        text = f"The combination of issuer and subject must be unique for the application. Issuer {body.get('issuer')}"
        text += f" and Subject: {body.get('subject')} already exist."
        return Refusal(400, code, text, ["graph-unique", "credential-rules"])
    rests_on = ["flexible"] if bad.rule in ("flexible", "expression") else ["credential-rules"]
    return Refusal(400, code, bad.text, rests_on, ["flexible-create" if bad.rule == "flexible" else "graph-invalid"])
