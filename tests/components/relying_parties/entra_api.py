"""What Microsoft Graph and Azure Resource Manager have in common: who asks, what a credential may be, and answers."""

import re
import urllib.parse
from dataclasses import dataclass, field

from entra_directory import GRAPH_HOSTS, MICROSOFT_GRAPH, Credential

ARM_HOSTS = {
    "management.azure.com": "public",
    "management.core.windows.net": "public",
    "management.usgovcloudapi.net": "usgov",
    "management.core.usgovcloudapi.net": "usgov",
    "management.chinacloudapi.cn": "china",
    "management.core.chinacloudapi.cn": "china",
}
AUDIENCES = {
    "graph": [MICROSOFT_GRAPH, *(f"https://{host}" for host in GRAPH_HOSTS)],
    "arm": [f"https://{host}" for host in ARM_HOSTS],
}
MOST_CREDENTIALS = 20
LONGEST_VALUE = 600
NAME = r"[a-zA-Z0-9][a-zA-Z0-9_-]{2,119}"
EXPRESSION = "claimsMatchingExpression"
# How one object of Microsoft Graph is addressed.
KEY = r"(?:/(?P<key>[^/()]+)|\((?P<property>appId|uniqueName|name|id)='(?P<value>[^']*)'\))"
READ = ("Application.Read.All", "Application.ReadWrite.All", "Application.ReadWrite.OwnedBy")
READ += ("Directory.Read.All", "Directory.ReadWrite.All")


@dataclass
class Answer:
    """Without a status the connection is closed instead."""

    status: int | None
    content: object = None
    rests_on: list = field(default_factory=list)
    open_questions: list = field(default_factory=list)
    headers: dict = field(default_factory=dict)


class Refusal(Exception):
    """An answer that Graph and Azure Resource Manager each put into an envelope of their own."""

    def __init__(self, status, code, text, rests_on, open_questions=(), headers=None):
        super().__init__(text)
        self.status, self.code, self.text = status, code, text
        self.rests_on, self.open_questions, self.headers = rests_on, list(open_questions), headers or {}


@dataclass
class Caller:
    """Whom a bearer token stands for."""

    audience: str
    tenant: str
    client_id: str | None
    grants: list
    expires: int | None = None

    def may(self, *permissions):
        return "*" in self.grants or any(one in self.grants for one in permissions)


@dataclass
class ApiRequest:
    method: str
    host: str
    # How a link to another page begins.
    base: str
    path: str
    query: dict
    headers: object
    body: object
    fallback_id: str
    open_questions: list = field(default_factory=list)


def audience_api(audience):
    """The API that an audience is of, if it is one of the two."""
    plain = audience.rstrip("/").casefold()
    return next((api for api, known in AUDIENCES.items() if plain in known), None)


def cloud_differs(request, caller):
    """Whether the token is for the same API of another cloud."""
    hosts = {**GRAPH_HOSTS, **ARM_HOSTS}
    audience = urllib.parse.urlsplit(caller.audience).hostname
    return request.host in hosts and audience in hosts and hosts[request.host] != hosts[audience]


def bearer(request):
    scheme, _, token = (request.headers.get("authorization") or "").partition(" ")
    return token.strip() if scheme.casefold() == "bearer" else ""


def query_of(text):
    """The query of a URL; the last of two parameters counts."""
    return dict(urllib.parse.parse_qsl(text, keep_blank_values=True))


# Pages -------------------------------------------------------------------------------------------------------


def page(request, found, size):
    """The part of a list that is asked for, and the link to the next one. Where a page starts is its token."""
    start = int(request.query.get("$skiptoken") or 0) if (request.query.get("$skiptoken") or "0").isdigit() else 0
    top = request.query.get("$top", "")
    size = min(size, int(top)) if top.isdigit() and int(top) else size
    end = start + size
    if end >= len(found):
        return found[start:], None
    query = {**request.query, "$skiptoken": str(end)}
    path = re.sub("/+", "/", request.path)
    link = f"{request.base}{path}?{urllib.parse.urlencode(query, safe='$', quote_via=urllib.parse.quote)}"
    return found[start:end], link


# Credentials ---------------------------------------------------------------------------------------------------


class BadCredential(Exception):
    """A rule that a credential breaks: its name among those below, and what to say."""

    def __init__(self, rule, text):
        super().__init__(text)
        self.rule, self.text = rule, text


def check_name(name):
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise BadCredential("name", f"The name '{name}' of the federated identity credential is not valid.")


def credential_of(name, members, credential_id=None):
    """A credential from what Graph has as members and Azure Resource Manager as properties."""
    issuer, subject, audiences = (members.get(one) for one in ("issuer", "subject", "audiences"))
    expression = members.get(EXPRESSION)
    if not issuer or not audiences or not (subject or expression):
        raise BadCredential("empty", "Federated Identity Credential must specify 'issuer', 'subject' and 'audience'.")
    if subject and expression:
        raise BadCredential("expression", f"'subject' and '{EXPRESSION}' are mutually exclusive.")
    if not isinstance(audiences, list) or len(audiences) != 1:
        raise BadCredential("audiences", "Federated Identity Credential must have exactly one audience.")
    for value in (issuer, subject, audiences[0], members.get("description")):
        if value is not None and not isinstance(value, str):
            raise BadCredential("empty", "A value of the Federated Identity Credential is no text.")
        if value is not None and len(value) > LONGEST_VALUE:
            text = f"A value of the Federated Identity Credential has more than {LONGEST_VALUE} characters."
            raise BadCredential("length", text)
    if expression:
        check_expression(expression)
    entry = {"issuer": issuer, "subject": subject or None, "audience": audiences[0], "expression": expression or None}
    return Credential({**entry, "name": name, "id": credential_id, "description": members.get("description")})


def check_expression(expression):
    if not isinstance(expression, dict) or not expression.get("value") or expression.get("languageVersion") != 1:
        raise BadCredential("expression", f"'{EXPRESSION}' has a value, and 1 as languageVersion.")


def with_credential(stored, credential, replaced=None):
    """The credentials of an identity with one more, or with one in another's place."""
    others = [one for one in stored if one is not replaced]
    same = (credential.issuer, credential.subject)
    if credential.subject and any((one.issuer, one.subject) == same for one in others):
        raise BadCredential("unique", "Issuer and subject combination already exists.")
    if replaced is None and len(stored) >= MOST_CREDENTIALS:
        raise BadCredential("limit", f"More than {MOST_CREDENTIALS} federated identity credentials are not allowed.")
    if replaced is None:
        return [*stored, credential]
    return [credential if one is replaced else one for one in stored]


# Faults that a test asks for ------------------------------------------------------------------------------------


class Faults:
    """The first fault that fits a request is used up by it, `times` times."""

    def __init__(self, faults):
        self.left = [{"times": 1, **fault} for fault in faults]

    def take(self, method, path):
        for fault in self.left:
            of_method = fault.get("method", method).upper() == method
            if of_method and fault.get("path_contains", "").casefold() in path.casefold():
                fault["times"] -= 1
                self.left = [one for one in self.left if one["times"] > 0]
                return fault
        return None


def faulty(fault, api):
    status = fault.get("status")
    if status is None:
        return Answer(None)
    headers = {"Retry-After": str(fault["retry_after"])} if fault.get("retry_after") is not None else {}
    code = {429: "TooManyRequests", 503: "ServiceUnavailable", 504: "GatewayTimeout"}.get(status, "InternalServerError")
    content = {"error": {"code": code, "message": "A fault that the directory asks for."}}
    if api == "token":
        content = {"error": "temporarily_unavailable", "error_description": code, "error_codes": []}
    return Answer(status, content, [], ["fault"], headers)
