#!/usr/bin/env python3
"""Answers token requests as documents and public reports say that Microsoft Entra does, and speaks as Graph and ARM.

    entra_twin.py PORT DIRECTORY [CERTIFICATE KEY]

DIRECTORY is a JSON file. `PUT /directory` replaces it, `PUT /now` sets the clock. `GET /directory` gives what has become
of it, `GET /log` the requests since it was put: method, host, path, status (null for an answer that was not sent).
`GET /requests` gives the requests for tokens and metadata since the last call, with their forms, tokens left out. With
a certificate the port answers TLS as well.

    now           seconds since 1970
    jwks_seconds  how long metadata is kept
    internet      host -> `http://127.0.0.1:PORT` that stands for it
    documents     URL -> {"status", "body", "location", "age"} or {"unreachable": why}, answered without HTTP;
                  `age` in seconds since the document was changed
    tenants       tenant -> client id -> list of federated credentials, or an identity (`Identity`)
    cloud         `public`, `usgov` or `china`: where all tenants are; absent, where they are asked for
    resources     the resources that the tenants have; absent, see `resource` below

An identity may have `secrets` (by default one, the word `secret`), `expired_secrets` and `certificates` (key ids).

What Microsoft Graph and Azure Resource Manager (entra_graph.py, entra_arm.py) need besides:

    distinct_tokens     true: a token is known by Graph and ARM for whom it stands; else it is a word
    tokens              word -> {"audience": "graph" or "arm", "grants", "tenant", "client_id", "expires"}, to be used
                        as bearer tokens; all but `audience` may be absent
    propagation_seconds how long the token endpoint does not know of a change, by the clock that `PUT /now` sets
    faults              list of {"method", "path_contains", "status", "retry_after", "after", "times"}, each used up by
                        the first requests that it fits. Without `status` the connection is closed; with `after` it is
                        closed too, but when all is done
    page_size           100
    blueprints_on_v1    false: blueprints are for Graph's beta only
    resource_apps       client id -> {"display_name", "object_id", "identifier_uris", "scopes"}; Microsoft Graph is one
    oauth2_permission_grants  as Graph has them
    subscriptions       those that ARM knows besides those of identities
    write_seconds       how long ARM takes for a write, and refuses others to the same identity
    writes_per_second   how many of an identity ARM allows; absent, all

    Identities: `object_id` (of the service principal), `application_id` (object id of the application), `display_name`,
    `identifier_uris`, `oauth2_permission_scopes` (words or Graph's objects), `owners` (client ids), `created`; a managed
    identity `resource_id`, `location` and `federation` (false: its region has none). Credentials: `name`, `id`,
    `description`. Ids that are absent are made of the client id.

The authority is the Host header, and so is what speaks; by a Host that is neither's, /v1.0 and /beta are Graph's and
/subscriptions is ARM's. A form with `response_type` and no grant is what a browser would be sent with.

Entra itself cannot be had. This was written from the documents and reports that entra_basis.py lists, without
what it is to be compared with, and verifies by PyJWT. Every answer names in the header `rests-on` the statements
that it follows. Where a report contradicts a document, the report wins. Where nothing speaks, or witnesses
contradict one another, it does what is said here, and the header `undocumented` names the question:

Assertions
- order     Observed: form, kid, typ, alg; life before audience; issuer before audience and subject; credential
            before documents; a missing service principal last. Chosen: request, tenant, client before the assertion;
            claims before life; documents, key, signature, time in that sequence.
- narrowing With several credentials each step goes on with those that the step before left.
- status    Only some codes have a documented HTTP status and `error`. The others get 401 `invalid_client` if they
            speak of the credential, else 400 `invalid_request`. No answer names this question.
- claims    90014 is documented for iss and aud. It is given for sub and exp as well.
- alg       RS384 and RS512 are refused like all but RS256: they "may work". No alg at all is a malformed token,
            since RFC 7515 demands one. An empty kid is no kid.
- header    A `crit` is what 5002726 means by an unsupported header.
- audiences One of several audiences is enough.
- twice     Of two members of one name the last counts; RFC 7515, 4 allows that, and to refuse.
- skew      Five minutes; none for the token of a user, as observed.
- empty-assertion  An assertion that is the empty text is malformed; a report guesses that it was sent.
- self-audiences   Of an assertion that the application signs itself a list of two audiences is malformed, as one tells.
- assertion-type   An assertion without its type is none.
- life      A missing iat counts as 0. More than 25 hours are refused, 25 are not. No answer names this question.

Documents
- fetch     90061, 50166 and 501661 have one text. Here what cannot be reached or is not found is 90061, a
            forbidden document 50166; a private network, bad content and what is not https 501661. No answer names
            this question.
- issuer    That the document's issuer is the token's is OpenID Connect's rule; nobody says that Entra checks it.
- document  Each of the five members of the smallest document that is known to work must be there. That one is
            empty, or that `id_token_signing_alg_values_supported` lacks RS256, is not looked at. (501661 for empty
            members is a guess of its reporter; another has such a document accepted.)
- keys      An RSA key that cannot be read and that the token does not name is skipped (RFC 7517, 5). Of two keys
            with one kid the first counts, whatever its size or alg. A key of another kind than RSA: 5002730. A `use`
            other than `sig` is like none: 700027.
            A modulus of less than 512 bits is unreadable.
- fresh     Keys that were changed less than half an hour ago are not known; 20 to 30 minutes were met.
- redirect  Followed, at most five times.
- refetch   A kid that the cached set lacks is answered from the cache. No answer names this question.
- bom       A byte order mark before a document is skipped.

Credentials
- age       A credential younger than ten minutes does not count. Witnesses: 20 s and 60 s; it ends after about two
            minutes or "several". All are new: 70025. A new one alone fits: 70021.
- flexible  7002131 wants a flexible credential of the issuer; one of another issuer is enough here. The codes 7002241,
            700233, 700235 and 700237 are second-hand, and which claims are allowed is not listed anywhere.

Tokens of Entra
- signature Not verified, nor are documents and key: nobody has Entra's keys. The time is checked.
- entra-issuer     700222 is left for issuers that are no tenant's v2.0 issuer, and for managed identities as clients.
- entra-audience   700214 is met where the credential has another audience than the exchange, and the token has that of
            the exchange. It is given whatever the token has.
- managed-identity An app-only token is a managed identity's if the directory or `xms_mirid` says so, an ordinary
            application's if the directory or `azpacr` 0 or 1 says so. Else it is taken for a managed identity's.

Request
- tenant    An unknown GUID is 90002, which the error list has; 900023 was met as well. `organizations` and
            `consumers` are like `common`, where the tenant is the application's own.
- form      A missing field other than grant_type, client_id and scope is 900144; username goes before user_id.
- authority A host that is none of Entra's is the public cloud's.
- resource  Without `resources`, an https resource outside Microsoft's domains is unknown to the tenant.
- case      Tenant and client id are compared without regard to case.
- scope     Two resources in one scope are 70011.
- user-grants      Codes, device codes, passwords, and refresh tokens that are not the twin's own, are always right.

Agents and users
- agents    What refuses an agent for its kind comes after its assertion. A blueprint may use no user grant (82002).
- fmi-path  An empty fmi_path is none (82008). A path that the directory has no agent identity for, or another
            blueprint's, is accepted.
- blueprint Without `blueprint` an agent identity takes T1 of any blueprint of its tenant.
- agent-subject    T1 for another agent identity: 7002137. A platform's assertion to a blueprint is bound to the
            agent identity that ends its subject: 7002142. The form of that subject is a guess of the report.
- agent-users      Without `agent_users` every user is one. With an empty list, and for a user of another agent
            identity, 7002203; for all others 7002200.
- user-credential  Words that are no token stand for a fitting T2. A token for another agent identity is 7002203, one
            with another audience 7002121, an old one 700024.
- obo-order Issuer, audience, kind, time, tenant of the user's token. Only audience before kind is observed.
- obo-app   An app-only token is 7000114; 7000113 was met as well. A token without scp is app-only if it has roles,
            `idtyp` app or one value as oid and sub, else an ID token.
- user-tenant      A user's token of another tenant is 90072, for all that its user may be a guest.

Graph and ARM: see entra_graph.py and entra_arm.py, and
- propagation      Removed credentials, too, are known for the time of propagation.
- fault            A fault that the directory asks for.
"""

import base64
import copy
import json
import re
import socket
import ssl
import sys
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# The modules beside this file are not to leave a __pycache__ there.
sys.dont_write_bytecode = True

from entra_api import ARM_HOSTS, Answer, ApiRequest, Caller, Faults, audience_api, faulty, query_of
from entra_arm import Arm, Writes
from entra_basis import BASIS, Refused, iso
from entra_directory import GRAPH_HOSTS, Directory
from entra_graph import Graph
from entra_match import EXCHANGE_GUID, ISSUER_HOSTS, t1_subject
from entra_metadata import Metadata, without_secrets
from entra_request import CLIENT_CREDENTIALS, ON_BEHALF_OF, Request
from entra_user import refresh_token

LIFE = 3599
USUAL_AUDIENCES = {"graph": "https://graph.microsoft.com", "arm": "https://management.azure.com"}
WORD = "of-the-twin"
TOKEN_PATH = r"/([^/]+)/oauth2/v2\.0/token"


class Entra:
    def __init__(self, directory):
        self.now = directory["now"]
        self.directory = Directory(directory)
        self.faults, self.writes, self.log = Faults(directory.get("faults", [])), Writes(), []
        first = next(iter(directory["tenants"]), None)
        self.tokens = {word: configured_caller(entry, first) for word, entry in directory.get("tokens", {}).items()}

    def state(self):
        """The directory as it is now."""
        with self.directory.state_lock:
            content = copy.deepcopy(self.directory.content)
            content["now"], content["faults"] = self.now, copy.deepcopy(self.faults.left)
            for tenant, clients in content["tenants"].items():
                known = self.directory.tenants[tenant.casefold()]
                content["tenants"][tenant] = {name: known[name.casefold()].state() for name in clients}
            content["oauth2_permission_grants"] = copy.deepcopy(self.directory.permission_grants)
            return content


def configured_caller(entry, tenant):
    audience, grants = USUAL_AUDIENCES[entry["audience"]], entry.get("grants", ["*"])
    return Caller(audience, entry.get("tenant", tenant), entry.get("client_id"), grants, entry.get("expires"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is two writes; without this each waits for the other side's delayed acknowledgement.
    disable_nagle_algorithm = True

    def setup(self):
        # The first byte of a TLS handshake.
        if self.server.tls and self.request.recv(1, socket.MSG_PEEK) == b"\x16":
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self):
        super().finish()
        self.request.close()

    def do_GET(self):
        if self.path == "/directory":
            self.send(Answer(200, self.server.entra.state()))
        elif self.path == "/log":
            self.send(Answer(200, list(self.server.entra.log)))
        elif self.path == "/requests":
            seen, self.server.requests[:] = list(self.server.requests), []
            self.send(Answer(200, seen))
        else:
            self.serve()

    def do_PUT(self):
        if self.path not in ("/directory", "/now"):
            self.serve()
            return
        body = self.body()
        try:
            if self.path == "/directory":
                self.server.entra = Entra(json.loads(body))
            else:
                self.server.entra.now = int(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.send(Answer(400, {"error": repr(error)}))
            return
        self.send(Answer(200, {}))

    def do_POST(self):
        self.serve()

    do_PATCH = do_DELETE = do_POST

    def serve(self):
        entra, body = self.server.entra, self.body()
        api = self.api()
        with entra.directory.state_lock:
            fault = entra.faults.take(self.command, self.path) if api else None
        if fault and not fault.get("after"):
            answer = faulty(fault, api)
        else:
            answer = self.answer_of(api, entra, body)
            answer = Answer(None) if fault else answer
        if api:
            line = {"method": self.command, "host": self.headers.get("host", ""), "path": self.path}
            entra.log.append({**line, "status": answer.status})
        if answer.status is None:
            self.close_connection = True
        else:
            self.send(answer)

    def api(self):
        """What speaks: `token`, `graph`, `arm` or nothing."""
        host, path = self.authority(), self.path.partition("?")[0]
        if host in GRAPH_HOSTS or host in ARM_HOSTS:
            return "graph" if host in GRAPH_HOSTS else "arm"
        if re.match(r"/+(v1\.0|beta)/", path):
            return "graph"
        if re.match(r"/+subscriptions/", path, re.IGNORECASE):
            return "arm"
        return "token" if self.command == "POST" and re.fullmatch(TOKEN_PATH, path) else None

    def answer_of(self, api, entra, body):
        entra.directory.settle(entra.now)
        if api == "graph":
            return Graph(entra.directory, entra.tokens, entra.now, self.api_request(body)).answer()
        if api == "arm":
            return Arm(entra.directory, entra.tokens, entra.now, self.api_request(body), entra.writes).answer()
        if api == "token":
            return self.answer_with_token(entra, body)
        if self.command != "GET":
            return Answer(404, {})
        document = self.server.metadata.document(self.base(), self.path)
        if document:
            self.note()
        return Answer(200, document or {})

    def note(self, form=None):
        seen = {"method": self.command, "path": self.path, "form": form and without_secrets(form)}
        self.server.requests.append(seen)

    def api_request(self, body):
        host = self.headers.get("host", "")
        known = self.authority() in GRAPH_HOSTS or self.authority() in ARM_HOSTS
        path, _, query = self.path.partition("?")
        try:
            content = json.loads(body) if body else None
        except (ValueError, RecursionError):
            content = None
        base, path = f"{'https' if known else 'http'}://{host}", urllib.parse.unquote(path)
        return ApiRequest(
            self.command, self.authority(), base, path, query_of(query), self.headers, content, str(uuid.uuid4())
        )

    def answer_with_token(self, entra, body):
        tenant = urllib.parse.unquote(re.fullmatch(TOKEN_PATH, self.path.partition("?")[0])[1])
        form = dict(urllib.parse.parse_qsl(body, keep_blank_values=True))
        self.note(form)
        request = Request(entra.directory, entra.now, self.authority(), tenant, form)
        try:
            rests_on = request.answer()
        except Refused as refused:
            open_questions = [*refused.open_questions, *request.open_questions, *unsettled(request)]
            return Answer(refused.status, refusal(refused, entra.now), refused.rests_on, open_questions)
        access_token = token(request)
        if entra.directory.content.get("distinct_tokens") and access_token == WORD:
            access_token, caller = distinct_token(request)
            if caller:
                entra.tokens[access_token] = caller
        content = {"token_type": "Bearer", "expires_in": LIFE, "ext_expires_in": LIFE, "access_token": access_token}
        content |= self.server.metadata.about_user(self.base(), request)
        if form["grant_type"] in (ON_BEHALF_OF, "refresh_token") and refresh_token(request):
            content["refresh_token"] = refresh_token(request)
        open_questions = [*request.open_questions, *unsettled(request)]
        return Answer(200, content, list(rests_on) or ["request"], open_questions)

    def base(self):
        scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
        return f"{scheme}://{self.headers.get('host', '')}"

    def authority(self):
        return re.sub(r":\d+$", "", self.headers.get("host", "")).lower()

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length", 0))).decode(errors="replace")

    def send(self, answer):
        body = b"" if answer.content is None else json.dumps(answer.content).encode()
        self.send_response(answer.status)
        if body:
            self.send_header("content-type", "application/json; charset=utf-8")
        if answer.status != 204:
            self.send_header("content-length", str(len(body)))
        self.send_header("rests-on", "; ".join(BASIS[name] for name in dict.fromkeys(answer.rests_on)))
        self.send_header("undocumented", " ".join(sorted(set(answer.open_questions))))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Twin(ThreadingHTTPServer):
    daemon_threads = True
    # As many may connect at once as a test starts.
    request_queue_size = 128

    def __init__(self, port, entra, certificate):
        super().__init__(("127.0.0.1", port), Handler)
        self.entra, self.metadata, self.requests, self.tls = entra, Metadata(), [], None
        if certificate:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*certificate)


def unsettled(request):
    return ["propagation"] if request.identity is not None and request.identity.pending else []


def refusal(refused, now):
    trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
    time = iso(now).replace("T", " ")
    ends = f"Trace ID: {trace} Correlation ID: {correlation} Timestamp: {time}"
    return {
        "error": refused.error,
        "error_description": f"AADSTS{refused.code}: {refused.text} {ends}",
        "error_codes": [refused.code],
        "timestamp": time,
        "trace_id": trace,
        "correlation_id": correlation,
    }


def token(request):
    """A word, but for the token exchange what the next leg of an agent needs; its signature is none of Entra's."""
    identity = request.identity
    if identity.kind not in ("blueprint", "agent-identity") or not request.asks_for_exchange():
        return WORD
    tenant = request.tenant
    subject = identity.client_id
    if identity.kind == "blueprint":
        subject = t1_subject(tenant, identity.client_id, request.form.get("fmi_path"))
    times = {"iat": request.now, "nbf": request.now, "exp": request.now + LIFE}
    issuer = f"https://{ISSUER_HOSTS[request.cloud]}/{tenant}/v2.0"
    claims = {"iss": issuer, "sub": subject, "aud": EXCHANGE_GUID, "azp": identity.client_id, "idtyp": "app", **times}
    return unsigned(claims)


def distinct_token(request):
    """A token of its own for Graph or ARM, and whom it stands for. Its claims are those that clients may look at."""
    identity, app_only = request.identity, request.form["grant_type"] == CLIENT_CREDENTIALS
    scopes = request.scopes()
    resource = request.resource()
    if scopes and not scopes[0].endswith("/.default"):
        resource = scopes[0].rpartition("/")[0].rstrip("/") or USUAL_AUDIENCES["graph"]
    if audience_api(resource) is None:
        return WORD, None
    named = [scope.rpartition("/")[2] for scope in scopes]
    grants = identity.grants if app_only or ".default" in named else named
    tenant = identity.tenant if request.tenant.casefold() not in request.directory.tenants else request.tenant
    times = {"iat": request.now, "nbf": request.now, "exp": request.now + LIFE}
    claims = {"iss": f"https://{ISSUER_HOSTS[request.cloud]}/{tenant}/v2.0", "aud": resource, "tid": tenant}
    claims.update({"appid": identity.client_id, "azp": identity.client_id, "jti": str(uuid.uuid4()), **times})
    if app_only:
        claims.update({"idtyp": "app", "oid": identity.principal_id, "sub": identity.principal_id, "roles": grants})
    else:
        claims.update({"idtyp": "user", "scp": " ".join(grants)})
    return unsigned(claims), Caller(resource, tenant, identity.client_id, grants, times["exp"])


def unsigned(claims):
    parts = [{"typ": "JWT", "alg": "RS256", "kid": WORD}, claims, WORD]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


def main():
    if len(sys.argv) not in (3, 5):
        sys.exit("usage: entra_twin.py PORT DIRECTORY [CERTIFICATE KEY]")
    with open(sys.argv[2]) as directory:
        entra = Entra(json.load(directory))
    Twin(int(sys.argv[1]), entra, sys.argv[3:]).serve_forever()


main()
