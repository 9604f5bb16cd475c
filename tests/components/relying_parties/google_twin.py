#!/usr/bin/env python3
"""Answers as the documents of Google Cloud say that two of its APIs do: workload identity pool providers, and tokens.

    google_twin.py PORT WORLD

WORLD is a JSON file. `PUT /world` replaces it, `GET /world` shows it.

    now         seconds since 1970; absent, the clock of this machine
    providers   resource name -> provider, as the IAM API shows one; `attributeCondition` is the subject, or none
    accounts    list of {"email", "public_key" (PEM), "permissions"}: service accounts that sign their own tokens
    tokens      access token -> list of permissions, or "subject" of a federated one
    bindings    service account -> subjects that may act as it (`roles/iam.workloadIdentityUser`)
    documents   URL -> text, what Google reads on the internet; every other URL cannot be reached
    polls       how often an operation has to be asked for before it is done
    fails       {"code", "message"}: what the next operation ends with instead of taking effect
    another     the JWKS that somebody else writes right after the next operation
    stale       how many reads after an operation still show the provider as it was

Google itself cannot be had. This was written from its documents and from reports, without what it is to be compared
with; tokens are verified by PyJWT. Every answer names in the header `rests-on` what it follows, and in `undocumented`
the choices below that it depends on:

- jwks-text   That a JWKS is shown as it was uploaded.
- jwks-check  That an upload is refused if a member has another name than those listed. The text is documented.
- operation   That a write takes effect when its operation is done, and that `operations.get` needs the permission of
              `get`: its reference names none.
- concurrent  That there is no condition on a write: the last one wins.
- order       Audience of the request, form of the token, issuer, audience, key, signature, time, condition.
- text        Texts of `error_description` other than the documented and the reported ones.
- alg         RS256 and ES256 are accepted; the documents say "RSA and EC".
- skew        None.
- life        A federated token lives for an hour, whatever the token has left.
"""

import json
import re
import sys
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

IAM = "https://cloud.google.com/iam/docs/reference/rest/v1/projects.locations.workloadIdentityPools.providers"
BASIS = {
    "get": f"{IAM}/get",
    "patch": f"{IAM}/patch",
    "provider": IAM,
    "operation": f"{IAM}.operations/get",
    "errors": "https://google.aip.dev/193",
    "self-signed": "https://google.aip.dev/auth/4111",
    "exchange": "https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token",
    "impersonate": "https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/"
    "generateAccessToken",
    "trouble": "https://cloud.google.com/iam/docs/troubleshooting-workload-identity-federation",
    "target": "reported: https://github.com/google-github-actions/auth/issues/334",
    "audience-form": "reported: https://github.com/google-github-actions/auth/issues/211",
    "stale-token": "reported: https://github.com/googleapis/google-cloud-go/issues/12440",
    "condition": "reported: https://github.com/terraform-google-modules/terraform-example-foundation/issues/1362",
    "denied": "reported: https://github.com/google-github-actions/auth/issues/340",
}
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT_TYPES = ("urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token")
NAME = r"projects/[^/]+/locations/global/workloadIdentityPools/[^/]+/providers/[^/]+"
MEMBERS = {"kty", "alg", "use", "kid", "n", "e", "x", "y", "crv"}
LIFE = 3600


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status, code, text, *rests_on, undocumented=()):
        super().__init__(text)
        self.status, self.code, self.text = status, code, text
        self.rests_on, self.undocumented = rests_on, undocumented


class World:
    def __init__(self, world):
        self.world = world
        self.operations = {}
        self.stale_reads = {}
        self.federated = {}

    def now(self):
        return self.world.get("now", time.time())

    def permissions(self, authorization):
        """What the caller may do; a federated token and none of Google's may do nothing."""
        token = (authorization or "").removeprefix("Bearer ")
        if token in self.world.get("tokens", {}):
            return self.world["tokens"][token]
        for account in self.world.get("accounts", []):
            try:
                claims = jwt.decode(token, account["public_key"], algorithms=["RS256"])
            except jwt.InvalidTokenError:
                continue
            if claims["iss"] == claims["sub"] == account["email"] and SCOPE in claims["scope"].split():
                return account["permissions"]
        text = "Request had invalid authentication credentials."
        raise Refused(401, "UNAUTHENTICATED", text, "errors", "self-signed")

    def provider(self, name, permission, authorization):
        if permission not in self.permissions(authorization):
            text = f"Permission '{permission}' denied on resource '//iam.googleapis.com/{name}' (or it may not exist)."
            raise Refused(403, "PERMISSION_DENIED", text, "errors", "denied")
        try:
            return self.world["providers"][name]
        except KeyError:
            raise Refused(404, "NOT_FOUND", "Requested entity was not found.", "errors") from None

    def get(self, name, authorization):
        provider = self.provider(name, "iam.workloadIdentityPoolProviders.get", authorization)
        left, before = self.stale_reads.get(name, (0, None))
        if left:
            self.stale_reads[name] = (left - 1, before)
            provider = before
        return {"name": name, "state": "ACTIVE", **provider}, ["get", "provider"], ["jwks-text"]

    def patch(self, name, query, body, authorization):
        provider = self.provider(name, "iam.workloadIdentityPoolProviders.update", authorization)
        if query.get("updateMask") != "oidc.jwksJson":
            raise Refused(400, "INVALID_ARGUMENT", "Request contains an invalid argument.", "patch", "errors")
        try:
            jwks = json.loads(body)["oidc"]["jwksJson"]
            check(jwks)
        except (ValueError, KeyError, TypeError, AttributeError):
            text = "Input JWK is not in a valid json format."
            undocumented = ["jwks-check"]
            raise Refused(400, "INVALID_ARGUMENT", text, "trouble", "provider", undocumented=undocumented) from None
        if "oidc" not in provider:
            raise Refused(400, "INVALID_ARGUMENT", "Request contains an invalid argument.", "patch", "errors")
        operation = {"name": f"{name}/operations/{uuid.uuid4().hex}", "polls": self.world.get("polls", 0), "jwks": jwks}
        self.operations[operation["name"]] = operation
        return self.progress(name, operation), ["patch"], ["operation", "concurrent"]

    def operation(self, name, operation, authorization):
        self.provider(name, "iam.workloadIdentityPoolProviders.get", authorization)
        if operation not in self.operations:
            raise Refused(404, "NOT_FOUND", "Requested entity was not found.", "errors")
        return self.progress(name, self.operations[operation]), ["operation"], ["operation"]

    def progress(self, name, operation):
        if operation["polls"] > 0:
            operation["polls"] -= 1
            return {"name": operation["name"]}
        provider, fails = self.world["providers"][name], self.world.pop("fails", None)
        if fails:
            operation["error"] = fails
        if "error" in operation:
            return {"name": operation["name"], "done": True, "error": operation["error"]}
        if "jwks" in operation:
            before = json.loads(json.dumps(provider))
            mine = operation.pop("jwks")
            provider["oidc"]["jwksJson"] = self.world.pop("another", mine)
            self.stale_reads[name] = (self.world.get("stale", 0), before)
        return {"name": operation["name"], "done": True, "response": {"name": name, **provider}}

    def token(self, form):
        """The exchange of RFC 8693."""
        wanted = {"grant_type": EXCHANGE, "requested_token_type": ACCESS_TOKEN}
        for field, value in wanted.items():
            if form.get(field) != value:
                raise Refused(400, "invalid_request", f'Invalid value for "{field}".', "exchange", undocumented=["text"])
        if form.get("subject_token_type") not in JWT_TYPES:
            raise Refused(400, "invalid_request", 'Invalid value for "subject_token_type".', "exchange")
        if not form.get("scope"):
            raise Refused(400, "invalid_scope", "Scope is required.", "exchange", undocumented=["text"])
        found = re.fullmatch(rf"//iam\.googleapis\.com/({NAME})", form.get("audience", ""))
        if not found:
            text = 'Invalid value for "audience". This value should be the full resource name of the Identity Provider.'
            raise Refused(400, "invalid_request", text, "audience-form")
        provider = self.world["providers"].get(found[1])
        if not provider or provider.get("disabled") or provider.get("state") == "DELETED" or "oidc" not in provider:
            text = (
                'The target service indicated by the "audience" parameters is invalid. This might either be because the'
                " pool or provider is disabled or deleted or because it doesn't exist."
            )
            raise Refused(400, "invalid_target", text, "target")
        claims = self.verified(found[1], provider, form.get("subject_token", ""))
        if provider.get("attributeCondition", claims["sub"]) != claims["sub"]:
            text = "The given credential is rejected by the attribute condition."
            raise Refused(400, "unauthorized_client", text, "condition")
        token = f"federated-{uuid.uuid4().hex}"
        self.federated[token] = claims["sub"]
        content = {"access_token": token, "issued_token_type": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": LIFE}
        return content, ["exchange"], ["order", "alg", "life"]

    def verified(self, name, provider, token):
        def refused(text, *rests_on):
            undocumented = ["order"] if rests_on else ["order", "text"]
            return Refused(400, "invalid_grant", text, *(rests_on or ("exchange",)), undocumented=undocumented)

        oidc = provider["oidc"]
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(token, options={"verify_signature": False})
        except jwt.InvalidTokenError:
            raise refused("Unable to parse the ID Token.") from None
        if claims.get("iss") != oidc["issuerUri"]:
            raise refused(f"The issuer in ID Token {claims.get('iss')} does not match the expected issuer.")
        audiences = claims.get("aud")
        audiences = [audiences] if isinstance(audiences, str) else audiences or []
        allowed = oidc.get("allowedAudiences") or [f"//iam.googleapis.com/{name}", f"https://iam.googleapis.com/{name}"]
        if not set(audiences) & set(allowed):
            raise refused(f"The audience in ID Token {audiences} does not match the expected audience.")
        jwks = json.loads(oidc.get("jwksJson") or self.read(oidc["issuerUri"], refused))
        keys = [key for key in jwks["keys"] if key.get("kid") == header.get("kid")]
        if not keys:
            raise refused("The key of the ID Token is not in the JWKS.")
        try:
            key = jwt.PyJWK(keys[0]).key
            options = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
            jwt.decode(token, key, algorithms=["RS256", "ES256"], options={**options, "require": ["exp", "iat", "sub"]})
        except (jwt.InvalidTokenError, jwt.PyJWKError):
            raise refused("Invalid signature.") from None
        if claims["exp"] <= self.now():
            raise refused(f"ID Token issued at {claims['iat']} is stale to sign-in.", "stale-token")
        return claims

    def read(self, issuer, refused):
        documents = self.world.get("documents", {})
        try:
            discovery = json.loads(documents[f"{issuer.removesuffix('/')}/.well-known/openid-configuration"])
            return documents[discovery["jwks_uri"]]
        except (KeyError, ValueError):
            raise refused("Error connecting to the given credential's issuer.", "trouble") from None

    def impersonate(self, account, body, authorization):
        subject = self.federated.get((authorization or "").removeprefix("Bearer "))
        if subject is None:
            text = "Request had invalid authentication credentials."
            raise Refused(401, "UNAUTHENTICATED", text, "errors")
        if subject not in self.world.get("bindings", {}).get(account, []):
            text = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist)."
            raise Refused(403, "PERMISSION_DENIED", text, "denied")
        life = int(json.loads(body).get("lifetime", "3600s").removesuffix("s"))
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.now() + life))
        return {"accessToken": f"impersonated-{uuid.uuid4().hex}", "expireTime": ends}, ["impersonate"], []


def check(text):
    keys = json.loads(text)["keys"]
    if not keys or any(set(key) - MEMBERS for key in keys):
        raise ValueError("not as documented")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is two writes; without this each waits for the other side's delayed acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/world":
            self.answer(200, self.server.world.world)
        else:
            self.respond(b"")

    def do_PUT(self):
        self.server.world = World(json.loads(self.body()))
        self.answer(200, {})

    def do_POST(self):
        self.respond(self.body())

    def do_PATCH(self):
        self.respond(self.body())

    def respond(self, body):
        world, url = self.server.world, urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        authorization = self.headers.get("authorization")
        provider = re.fullmatch(rf"/v1/({NAME})", url.path)
        operation = re.fullmatch(rf"/v1/(({NAME})/operations/[^/]+)", url.path)
        account = re.fullmatch(r"/v1/projects/-/serviceAccounts/([^/]+):generateAccessToken", url.path)
        is_exchange = self.command == "POST" and url.path == "/v1/token"
        try:
            if is_exchange:
                answer = world.token(dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True)))
            elif account and self.command == "POST":
                answer = world.impersonate(account[1], body, authorization)
            elif provider and self.command == "GET":
                answer = world.get(provider[1], authorization)
            elif provider and self.command == "PATCH":
                answer = world.patch(provider[1], query, body, authorization)
            elif operation and self.command == "GET":
                answer = world.operation(operation[2], operation[1], authorization)
            else:
                raise Refused(404, "NOT_FOUND", "Requested entity was not found.", "errors")
        except Refused as refused:
            error = {"code": refused.status, "message": refused.text, "status": refused.code}
            if is_exchange:
                content = {"error": refused.code, "error_description": refused.text}
            else:
                content = {"error": error}
            self.answer(refused.status, content, refused.rests_on, refused.undocumented)
            return
        self.answer(200, *answer)

    def body(self):
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionError("the request broke off")
        return body

    def answer(self, status, content, rests_on=(), undocumented=()):
        body = json.dumps(content, indent=2).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json; charset=UTF-8")
        self.send_header("content-length", str(len(body)))
        self.send_header("rests-on", "; ".join(BASIS[name] for name in rests_on))
        self.send_header("undocumented", " ".join(sorted(undocumented)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: google_twin.py PORT WORLD")
    with open(sys.argv[2]) as world:
        world = World(json.load(world))
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.daemon_threads = True
    server.world = world
    server.serve_forever()


main()
