#!/usr/bin/env python3
"""Answers token requests as the documents say that Microsoft Entra does.

    entra_twin.py PORT DIRECTORY

DIRECTORY is a JSON file: `now` (seconds since 1970), `jwks_seconds` (how long metadata is kept),
`internet` (host -> `http://127.0.0.1:PORT` that stands for it) and `tenants` (tenant -> client id ->
list of federated identity credentials). `PUT /now` sets the clock.

Entra itself cannot be had. This was written from the documents that are listed under BASIS, before and
without what it is to be compared with, and verifies by PyJWT. Every answer names in the header `rests-on`
the statements that it follows. Where no document speaks, it does what is said here, and the header
`undocumented` names the question:

- order     No document has the order of the checks. Request, tenant, client, then the assertion as text
            (form, alg, typ, kid, claims, its life), then the credential (any, issuer, audience, subject), then
            what must be fetched (discovery, keys), then the key, its signature and last the time. What
            costs nothing comes before what costs a request; nobody makes a server fetch with a token
            that no credential speaks of; a time is only to be believed when it is signed.
- narrowing With several credentials each step goes on with those that the step before left.
- fetch     90061, 50166 and 501661 have one text; here it is always 501661.
- status    Only some codes have a documented HTTP status and `error`. The others get 401
            `invalid_client` if they speak of the credential, else 400 `invalid_request`.
- claims    90014 is documented for iss and aud. It is given for sub and exp as well.
- alg       RS384 and RS512 are refused like all but RS256: they "may work". No alg at all is a malformed
            token, since RFC 7515 demands one. An empty kid is no kid.
- issuer    That the document's issuer is the token's is OpenID Connect's rule; nobody says that Entra
            checks it. Here it does.
- audiences One of several audiences is enough.
- document  Each of the five members of the smallest document that is known to work must be there, but
            that `id_token_signing_alg_values_supported` has RS256 is not looked at.
- keys      A key of a kind other than RSA is skipped, and so is an RSA key that cannot be read and that the
            token does not name (RFC 7517, 5). Of two keys with one kid the first counts. A key is used if
            `use` is `sig`, whatever its size or alg.
- redirect  Followed, at most five times.
- refetch   A kid that the cached set lacks is answered from the cache.
- twice     Of two members of one name the last counts; RFC 7515, 4 allows that, and to refuse.
- bom       A byte order mark before a document is skipped.
- skew      Five minutes.
- life      What people met: more than 25 hours from iat to exp are refused, 25 are not, before the audience is
            looked at. A missing iat counts as 0.
"""

import base64
import datetime
import json
import re
import sys
import threading
import urllib.parse
import uuid
from codecs import BOM_UTF8
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DISCOVERY = "/.well-known/openid-configuration"
NEEDED_MEMBERS = [
    "issuer",
    "jwks_uri",
    "response_types_supported",
    "subject_types_supported",
    "id_token_signing_alg_values_supported",
]
ENTRA_HOSTS = ("login.microsoftonline.com", "login.windows.net", "login.microsoft.com")
KEYS_STORED = 100
SKEW_SECONDS = 300
LONGEST_LIFE = 25 * 3600
FETCH_SECONDS = 5
LONGEST_DOCUMENT = 1 << 20
REDIRECTS = 5

# What an answer may rest on: a statement and who makes it.
BASIS = {
    "https": "Kubernetes openidmetadata.go: issuer and jwks_uri are https",
    "public": "azure-workload-identity troubleshooting: 90061 not exposed to the internet or inaccessible",
    "path": "OpenID Connect Discovery 1.0, 4: issuer without final / and the well-known path",
    "discovery-issuer": "OpenID Connect Discovery 1.0, 4.3: the issuer is exactly the one asked for",
    "empty-members": "observed with SPIRE: 501661 for an empty member of the discovery document",
    "members": "Microsoft, AKS OIDC issuer: the five members of a document that works",
    "rs256": "Microsoft, federation considerations: only RS256",
    "5002738": "observed: 5002738 not a supported signature algorithm",
    "5002727": "observed: 5002727 header type must be JWT or http://openid.net/specs/jwt/1.0",
    "5002723": "MSAL.NET TestConstants: 5002723 no keyId in token header",
    "50027": "MSAL.NET TestConstants: 50027 malformed",
    "90014": "MSAL.NET TestConstants: 90014 required field is missing from the credential",
    "70023": "observed: 70023 exp - iat above 1.01:00:00",
    "700021": "MSAL.NET TestConstants: 700021 issuer that is no URL is a self-signed assertion",
    "700222": "Microsoft, federation considerations: 700222 tokens of Entra",
    "70025": "Microsoft, DevOps AADSTS errors: 70025 no configured credentials",
    "700211": "Microsoft, DevOps AADSTS errors: 700211 issuer",
    "700212": "observed: 700212 audience",
    "700213": "Microsoft, DevOps AADSTS errors: 700213 subject, case-sensitive",
    "7002138": "observed: 7002138 subject matches but for case",
    "exact": "Microsoft, breaking changes of August 2024: exact and case-sensitive",
    "issuer-space": "Microsoft, federated credential considerations: space around the issuer blocks",
    "use": "Microsoft, SPIFFE and SPIRE: use is sig",
    "100-keys": "Microsoft, workload identity federation: the first 100 keys are stored",
    "900612": "observed: 900612 for a bad public key",
    "7000272": "observed: 7000272 key not found in the metadata",
    "7000274": "observed: 7000274 found the key but could not verify the signature",
    "700024": "Microsoft, DevOps AADSTS errors: 700024 valid time range",
    "request": "Microsoft, client credentials grant: the form and its answer",
    "error-list": "Microsoft, error code reference",
}


class Refused(Exception):
    """An answer that is no token. `open_questions` are those of the list above that it depends on."""

    def __init__(self, code, text, rests_on, open_questions=(), error=None):
        super().__init__(text)
        self.code, self.text = code, text
        self.rests_on, self.open_questions = rests_on, open_questions
        about_credential = re.match(r"7000|7002|50027", str(code))
        self.error = error or ("invalid_client" if about_credential else "invalid_request")

    @property
    def status(self):
        return 401 if self.error == "invalid_client" else 400


class Entra:
    def __init__(self, directory):
        self.now = directory["now"]
        self.tenants = directory["tenants"]
        self.internet = Internet(directory["internet"])
        self.jwks_seconds = directory["jwks_seconds"]
        self.metadata = {}
        self.lock = threading.Lock()

    def token(self, tenant, form):
        """Gives the open questions that a success depends on, or raises `Refused`."""
        credentials = self.credentials(tenant, form)
        assertion = form["client_assertion"]
        twice = ["twice"] if any(map(has_a_member_twice, parts(assertion))) else []
        try:
            header, claims = read_assertion(assertion)
            open_questions = twice + match(credentials, claims)
            open_questions += self.verify(assertion, header, claims["iss"])
            return open_questions + check_time(claims, self.now)
        except Refused as refused:
            refused.open_questions = [*refused.open_questions, *twice]
            raise

    def credentials(self, tenant, form):
        for name in ("grant_type", "client_id", "scope"):
            if not form.get(name):
                raise Refused(900144, f"The request body must contain the following parameter: '{name}'.", ["error-list"])
        if form["grant_type"] != "client_credentials":
            raise Refused(70003, "The app requested an unsupported grant type.", ["error-list"], error="unsupported_grant_type")
        if tenant not in self.tenants:
            if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", tenant):
                text = f"Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid external domain."
                raise Refused(900023, text, ["request"])
            raise Refused(90002, f"Tenant '{tenant}' not found.", ["error-list"])
        if form["client_id"] not in self.tenants[tenant]:
            text = f"Application with identifier '{form['client_id']}' was not found in the directory '{tenant}'."
            raise Refused(700016, text, ["error-list"], error="unauthorized_client")
        if not form["scope"].endswith("/.default"):
            text = "Client credential flows must have a scope value with /.default suffixed to the resource identifier."
            raise Refused(1002012, text, ["request"], error="invalid_scope")
        if form.get("client_assertion_type") != ASSERTION_TYPE or not form.get("client_assertion"):
            text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."
            raise Refused(7000218, text, ["error-list"], error="invalid_client")
        return self.tenants[tenant][form["client_id"]]

    def verify(self, assertion, header, issuer):
        open_questions, keys = self.keys_of(issuer)
        key = keys.get(header["kid"])
        if key is None and header["kid"] in keys:
            raise Refused(900612, "Failed to parse provider signing keys.", ["900612"], open_questions)
        if None in keys.values():
            open_questions = [*open_questions, "keys"]
        if key is None:
            text = (
                f"The certificate with identifier '{header['kid']}' used to sign the federated credential could not be"
                f" found in the metadata of identity provider {issuer}. Please validate that your Identity Provider's"
                " metadata exposes the key used to sign the incoming token."
            )
            raise Refused(7000272, text, ["7000272", "use", "100-keys"], open_questions)
        try:
            nothing_else = {"verify_signature": True, **dict.fromkeys(CLAIM_CHECKS, False)}
            jwt.decode(assertion, key, algorithms=["RS256"], options=nothing_else)
        except jwt.InvalidTokenError as error:
            text = f"Client assertion contains an invalid signature. {error}"
            raise Refused(7000274, text, ["7000274"], open_questions) from error
        return open_questions

    def keys_of(self, issuer):
        """Reads the keys of `issuer`, or takes them from the cache, faults not included."""
        with self.lock:
            read_at, found = self.metadata.get(issuer, (None, None))
            if read_at is not None and self.now < read_at + self.jwks_seconds:
                return found
        found = read_keys(self.internet, issuer)
        with self.lock:
            self.metadata[issuer] = (self.now, found)
        return found


CLAIM_CHECKS = ["verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub", "verify_jti"]


def read_assertion(assertion):
    try:
        header = jwt.get_unverified_header(assertion)
        claims = jwt.decode(assertion, options={"verify_signature": False, **dict.fromkeys(CLAIM_CHECKS, False)})
    except (jwt.InvalidTokenError, RecursionError) as error:
        if isinstance(error, jwt.InvalidTokenError) and "Key ID" in str(error):
            raise no_kid(["alg"]) from error
        raise Refused(50027, f"JWT token is invalid or malformed. {error}", ["50027"]) from error

    if not isinstance(header.get("alg"), str):
        raise Refused(50027, "JWT token is invalid or malformed.", ["50027"], ["alg"])
    if header["alg"] != "RS256":
        text = f"'{header['alg']}' is not a supported signature algorithm. Supported signing algorithms are: 'RS256'"
        may_work = ["alg"] if header["alg"] in ("RS384", "RS512") else []
        raise Refused(5002738, text, ["5002738", "rs256"], may_work, error="invalid_client")
    if header.get("typ", "JWT") not in ("JWT", "http://openid.net/specs/jwt/1.0"):
        text = "Invalid JWT header type specified, must be 'JWT' or 'http://openid.net/specs/jwt/1.0'."
        raise Refused(5002727, text, ["5002727"], error="invalid_client")
    if "kid" not in header:
        raise no_kid()
    if not header["kid"]:
        raise no_kid(["alg"])

    for claim in ("iss", "aud", "sub", "exp"):
        if claims.get(claim) in (None, "", []):
            documented = claim in ("iss", "aud") and claim not in claims
            text = f"The required field '{claim}' is missing from the credential."
            raise Refused(90014, text, ["90014"], [] if documented else ["claims"])
    if not (isinstance(claims["iss"], str) and isinstance(claims["sub"], str)):
        raise Refused(50027, "JWT token is invalid or malformed.", ["50027"], ["claims"])
    check_life(claims)
    return header, claims


def no_kid(open_questions=()):
    text = "Invalid JWT token. No certificate SHA-1 thumbprint, certificate SHA-256 thumbprint, nor keyId specified in token header."
    return Refused(5002723, text, ["5002723"], open_questions, error="invalid_client")


def match(credentials, claims):
    issuer, subject = claims["iss"], claims["sub"]
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]

    if "://" not in issuer:
        text = "Client assertion application identifier doesn't match 'client_id' parameter."
        raise Refused(700021, text, ["700021"], ["order"], error="invalid_client")
    host = urllib.parse.urlsplit(issuer.strip()).hostname or ""
    if host.endswith("sts.windows.net") or host.endswith(ENTRA_HOSTS):
        raise Refused(700222, "Entra-issued tokens may not be used.", ["700222"], ["order"], error="invalid_client")

    if not credentials:
        raise Refused(70025, "The client has no configured federated identity credentials.", ["70025"], error="invalid_client")
    if issuer != issuer.strip():
        raise mismatch(700211, "issuer", issuer, ["700211", "issuer-space"])
    of_issuer = [one for one in credentials if one["issuer"] == issuer]
    if not of_issuer:
        raise mismatch(700211, "issuer", issuer, ["700211", "exact"])
    of_audience = [one for one in of_issuer if one["audience"] in audiences]
    if not of_audience:
        several = ["narrowing"] if len(of_issuer) > 1 else []
        raise mismatch(700212, "audience", audiences[0], ["700212", "exact"], several)
    several = ["narrowing"] if len(of_issuer) > 1 else []
    if not any(one["subject"] == subject for one in of_audience):
        if any(one["subject"].casefold() == subject.casefold() for one in of_audience):
            text = "The subject matches with case-insensitive comparison, but not with case-sensitive comparison."
            raise Refused(7002138, text, ["7002138", "exact"], several, error="invalid_client")
        raise mismatch(700213, "subject", subject, ["700213", "exact"], several)
    return ["audiences"] if len(audiences) > 1 else []


def mismatch(code, what, value, rests_on, open_questions=()):
    text = f"No matching federated identity record found for presented assertion {what} '{value}'."
    return Refused(code, text, rests_on, open_questions, error="invalid_client")


def check_life(claims):
    try:
        life = int(claims["exp"]) - int(claims.get("iat", 0))
    except (TypeError, ValueError, OverflowError):
        return
    if life > LONGEST_LIFE:
        text = f"The assertion's lifetime of {life} seconds is longer than 1.01:00:00."
        raise Refused(70023, text, ["70023"], error="invalid_client")


def check_time(claims, now):
    try:
        begin, end = int(claims.get("nbf", now)), int(claims["exp"])
    except (TypeError, ValueError) as error:
        raise Refused(50027, "JWT token is invalid or malformed.", ["50027"], ["claims"]) from error
    if not begin - SKEW_SECONDS <= now <= end + SKEW_SECONDS:
        text = (
            f"Client assertion is not within its valid time range. Current time: {iso(now)},"
            f" assertion valid from {iso(begin)}, expiry time of assertion {iso(end)}."
        )
        raise Refused(700024, text, ["700024"], error="invalid_client")
    return [] if begin <= now < end else ["skew"]


def read_keys(internet, issuer):
    """Gives the open questions on the way, and the usable keys by kid."""
    discovery_url = issuer.removesuffix("/") + DISCOVERY
    redirected, body = internet.get(discovery_url)
    open_questions = ["redirect"] if redirected else []
    open_questions += ["bom"] if body.startswith(BOM_UTF8) else []
    open_questions += ["twice"] if has_a_member_twice(body) else []
    discovery = parse(body)
    if not isinstance(discovery, dict):
        raise no_answer(discovery_url, "no JSON object", ["public"])
    for name in NEEDED_MEMBERS:
        if name not in discovery:
            # `issuer` and `jwks_uri` are what a reader cannot do without.
            known = name == "jwks_uri"
            raise no_answer(discovery_url, f"no {name}", ["members"], [] if known else ["document"])
    if discovery["issuer"] != issuer:
        raise no_answer(discovery_url, "another issuer", ["discovery-issuer"], ["issuer"])
    for name, value in discovery.items():
        if value in ("", []):
            known = name in ("authorization_endpoint", "subject_types_supported", "jwks_uri")
            raise no_answer(discovery_url, f"empty {name}", ["empty-members"], [] if known else ["document"])
    if "RS256" not in discovery["id_token_signing_alg_values_supported"]:
        open_questions.append("document")

    redirected, body = internet.get(discovery["jwks_uri"])
    open_questions += ["redirect"] if redirected else []
    open_questions += ["bom"] if body.startswith(BOM_UTF8) else []
    open_questions += ["twice"] if has_a_member_twice(body) else []
    jwks = parse(body)
    if not isinstance(jwks, dict) or not isinstance(jwks.get("keys"), list):
        raise Refused(900612, "Failed to parse provider signing keys.", ["900612"], open_questions)

    keys = {}
    for place, member in enumerate(jwks["keys"]):
        if not isinstance(member, dict):
            raise Refused(900612, "Failed to parse provider signing keys.", ["900612"], open_questions)
        if member.get("kty") != "RSA":
            open_questions.append("keys")
            continue
        try:
            # The public key alone: PyJWT would take more for a private key or another algorithm.
            public = {name: member[name] for name in ("kty", "n", "e") if name in member}
            key = jwt.PyJWK(public, algorithm="RS256")
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
            key = None
        kid = member.get("kid")
        if key is None:
            if isinstance(kid, str):
                keys.setdefault(kid, None)
            else:
                open_questions.append("keys")
            continue
        if member.get("alg") not in (None, "RS256") or key.key.key_size < 2048 or kid in keys or kid is None:
            open_questions.append("keys")
        if place < KEYS_STORED and member.get("use") == "sig" and kid is not None:
            keys.setdefault(kid, key)
    return open_questions, keys


def parse(body):
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def has_a_member_twice(text):
    found = []

    def note(members):
        found.append(len(members) > len(dict(members)))
        return dict(members)

    try:
        json.loads(text, object_pairs_hook=note)
    except (ValueError, RecursionError):
        return False
    return any(found)


def parts(assertion):
    """Header and claims as JSON, as far as they can be decoded."""
    for part in assertion.split(".")[:2]:
        try:
            yield base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        except ValueError:
            yield b""


def no_answer(url, reason, rests_on, open_questions=()):
    text = f"Request to External OIDC endpoint failed. {url}: {reason}"
    return Refused(501661, text, rests_on, open_questions)


class Internet:
    """What can be reached: names and the servers on loopback that stand for them, TLS left out."""

    def __init__(self, hosts):
        self.hosts = hosts

    def get(self, url):
        """Whether there was a redirect, and the body."""
        for redirects in range(REDIRECTS + 1):
            status, location, body = self.get_once(url)
            if status in (301, 302, 303, 307, 308) and location:
                url = urllib.parse.urljoin(url, location)
            elif status == 200:
                return redirects > 0, body
            else:
                raise no_answer(url, f"HTTP status {status}", ["public", "path"])
        raise no_answer(url, "too many redirects", ["public"], ["redirect"])

    def get_once(self, url):
        parts = urllib.parse.urlsplit(url) if isinstance(url, str) else urllib.parse.urlsplit("")
        if parts.scheme != "https":
            raise no_answer(url, "not https", ["https"])
        if parts.netloc not in self.hosts:
            raise no_answer(url, "cannot be reached", ["public"])
        stand_in = urllib.parse.urlsplit(self.hosts[parts.netloc])
        connection = HTTPConnection(stand_in.hostname, stand_in.port, timeout=FETCH_SECONDS)
        try:
            connection.request("GET", urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, "")))
            answer = connection.getresponse()
            return answer.status, answer.getheader("location"), answer.read(LONGEST_DOCUMENT)
        except (OSError, HTTPException) as error:
            raise no_answer(url, str(error), ["public"]) from error
        finally:
            connection.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is two writes; without this each waits for the other side's delayed acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer(200, {})

    def do_PUT(self):
        self.server.entra.now = int(self.body())
        self.answer(200, {})

    def do_POST(self):
        body = self.body()
        found = re.fullmatch(r"/([^/]+)/oauth2/v2\.0/token", self.path)
        if not found:
            self.answer(404, {})
            return
        form = dict(urllib.parse.parse_qsl(body, keep_blank_values=True))
        try:
            open_questions = self.server.entra.token(urllib.parse.unquote(found[1]), form)
        except Refused as refused:
            self.answer(refused.status, self.refusal(refused), refused.rests_on, refused.open_questions)
            return
        token = {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": "of-the-twin"}
        self.answer(200, token, ["request"], open_questions)

    def refusal(self, refused):
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        time = iso(self.server.entra.now).replace("T", " ")
        ends = f"Trace ID: {trace} Correlation ID: {correlation} Timestamp: {time}"
        return {
            "error": refused.error,
            "error_description": f"AADSTS{refused.code}: {refused.text} {ends}",
            "error_codes": [refused.code],
            "timestamp": time,
            "trace_id": trace,
            "correlation_id": correlation,
        }

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length", 0))).decode(errors="replace")

    def answer(self, status, content, rests_on=(), open_questions=()):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.send_header("rests-on", "; ".join(BASIS[name] for name in rests_on))
        self.send_header("undocumented", " ".join(sorted(set(open_questions))))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def iso(seconds):
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return str(seconds)


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
