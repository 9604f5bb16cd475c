#!/usr/bin/env python3
"""Answers token requests as documents and public reports say that Microsoft Entra does.

    entra_twin.py PORT DIRECTORY

DIRECTORY is a JSON file. `PUT /directory` replaces it, `PUT /now` sets the clock.

    now           seconds since 1970
    jwks_seconds  how long metadata is kept
    internet      host -> `http://127.0.0.1:PORT` that stands for it
    documents     URL -> {"status", "body", "location", "age"} or {"unreachable": why}, answered without HTTP;
                  `age` in seconds since the document was changed
    tenants       tenant -> client id -> list of federated credentials, or an identity (`Identity`)
    cloud         `public`, `usgov` or `china`: where all tenants are; absent, where they are asked for
    resources     the resources that the tenants have; absent, see `resource` below

An identity may have `secrets` (by default one, the word `secret`), `expired_secrets` and `certificates` (key ids).
The authority is the Host header. A form with `response_type` and no grant is what a browser would be sent with.

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
- user-grants      Codes, refresh tokens, device codes and passwords are always right.

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
"""

import base64
import json
import re
import sys
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# The modules beside this file are not to leave a __pycache__ there.
sys.dont_write_bytecode = True

from entra_basis import BASIS, Refused, iso
from entra_directory import Directory
from entra_match import EXCHANGE_GUID, ISSUER_HOSTS, t1_subject
from entra_request import Request

LIFE = 3599


class Entra:
    def __init__(self, directory):
        self.now = directory["now"]
        self.directory = Directory(directory)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is two writes; without this each waits for the other side's delayed acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer(200, {})

    def do_PUT(self):
        body = self.body()
        try:
            if self.path == "/directory":
                self.server.entra = Entra(json.loads(body))
            else:
                self.server.entra.now = int(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.answer(400, {"error": repr(error)})
            return
        self.answer(200, {})

    def do_POST(self):
        entra, body = self.server.entra, self.body()
        found = re.fullmatch(r"/([^/]+)/oauth2/v2\.0/token", self.path.partition("?")[0])
        if not found:
            self.answer(404, {})
            return
        tenant = urllib.parse.unquote(found[1])
        form = dict(urllib.parse.parse_qsl(body, keep_blank_values=True))
        request = Request(entra.directory, entra.now, self.authority(), tenant, form)
        try:
            rests_on = request.answer()
        except Refused as refused:
            open_questions = [*refused.open_questions, *request.open_questions]
            self.answer(refused.status, refusal(refused, entra.now), refused.rests_on, open_questions)
            return
        content = {"token_type": "Bearer", "expires_in": LIFE, "ext_expires_in": LIFE, "access_token": token(request)}
        self.answer(200, content, rests_on or ["request"], request.open_questions)

    def authority(self):
        return re.sub(r":\d+$", "", self.headers.get("host", "")).lower()

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length", 0))).decode(errors="replace")

    def answer(self, status, content, rests_on=(), open_questions=()):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.send_header("rests-on", "; ".join(BASIS[name] for name in dict.fromkeys(rests_on)))
        self.send_header("undocumented", " ".join(sorted(set(open_questions))))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


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
        return "of-the-twin"
    tenant = request.tenant
    subject = identity.client_id
    if identity.kind == "blueprint":
        subject = t1_subject(tenant, identity.client_id, request.form.get("fmi_path"))
    times = {"iat": request.now, "nbf": request.now, "exp": request.now + LIFE}
    issuer = f"https://{ISSUER_HOSTS[request.cloud]}/{tenant}/v2.0"
    claims = {"iss": issuer, "sub": subject, "aud": EXCHANGE_GUID, "azp": identity.client_id, "idtyp": "app", **times}
    parts = [{"typ": "JWT", "alg": "RS256", "kid": "of-the-twin"}, claims, "of-the-twin"]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: entra_twin.py PORT DIRECTORY")
    with open(sys.argv[2]) as directory:
        entra = Entra(json.load(directory))
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.daemon_threads = True
    server.entra = entra
    server.serve_forever()


main()
