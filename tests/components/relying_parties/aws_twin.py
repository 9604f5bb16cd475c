#!/usr/bin/env python3
"""Answers `AssumeRoleWithWebIdentity` as the API reference of AWS STS and public reports say that it does.

    aws_twin.py PORT WORLD

WORLD is a JSON file. `PUT /world` replaces it, `GET /world` shows it.

    now        seconds since 1970; absent, the clock of this machine
    providers  issuer -> client ids: the OIDC providers of the account
    roles      ARN -> {"issuer", "sub", "aud"}: what its trust policy demands
    documents  URL -> text, what AWS reads on the internet; every other URL cannot be reached

AWS itself cannot be had, and moto, the mock that is widely used, verifies no token. Here PyJWT does. Every answer names
in the header `rests-on` what it follows, and in `undocumented` the choices that it depends on:

- order  Provider, audience, keys, signature, time, policy.
- text   Messages other than the reported ones.
- keys   That unreachable documents are `InvalidIdentityToken` with the reported text, not `IDPCommunicationError`.
"""

import json
import re
import sys
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

import jwt

API = "https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html"
COMMON = "https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html"
NO_PROVIDER = "reported: https://github.com/aws-actions/configure-aws-credentials/issues/280"
AUDIENCE = "reported: https://github.com/awslabs/amazon-eks-irsa-cfn/pull/18"
NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]


class Refused(Exception):
    def __init__(self, code, text, rests_on, *undocumented, status=400):
        super().__init__(text)
        self.code, self.text, self.rests_on = code, text, rests_on
        self.undocumented, self.status = ("order", *undocumented), status


def assumed(world, form):
    """The content of the answer's result."""
    if form.get("Action") != "AssumeRoleWithWebIdentity" or form.get("Version") != "2011-06-15":
        raise Refused("InvalidAction", "Could not find operation for this version", COMMON, "text")
    arn, session, token = (form.get(name, "") for name in ("RoleArn", "RoleSessionName", "WebIdentityToken"))
    role = re.fullmatch(r"arn:aws[\w-]*:iam::(\d{12}):role/(?:.*/)?([\w+=,.@-]+)", arn)
    if not role or not re.fullmatch(r"[\w+=,.@-]{2,64}", session) or not 4 <= len(token) <= 20000:
        raise Refused("ValidationError", "1 validation error detected", API, "text")
    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
        issuer, audiences = claims["iss"], claims["aud"]
    except (jwt.InvalidTokenError, KeyError):
        raise Refused("InvalidIdentityToken", "The ID Token provided is not a valid JWT.", API, "text") from None
    if issuer not in world["providers"]:
        text = f"No OpenIDConnect provider found in your account for {issuer}"
        raise Refused("InvalidIdentityToken", text, NO_PROVIDER)
    audiences = [audiences] if isinstance(audiences, str) else audiences
    if not set(audiences) & set(world["providers"][issuer]):
        raise Refused("InvalidIdentityToken", "Incorrect token audience", AUDIENCE)
    try:
        discovery = json.loads(world["documents"][f"{issuer.removesuffix('/')}/.well-known/openid-configuration"])
        keys = json.loads(world["documents"][discovery["jwks_uri"]])["keys"]
        key = next(key for key in keys if key["kid"] == header["kid"])
    except (KeyError, ValueError, StopIteration):
        text = "Couldn't retrieve verification key from your identity provider"
        raise Refused("InvalidIdentityToken", text, API, "keys", "text") from None
    options = {"verify_aud": False, "verify_exp": False, "verify_iat": False, "require": ["exp", "iat", "sub"]}
    try:
        jwt.decode(token, jwt.PyJWK(key).key, algorithms=ALGORITHMS, options=options)
    except (jwt.InvalidTokenError, jwt.PyJWKError):
        raise Refused("InvalidIdentityToken", "The token could not be validated", API, "text") from None
    if claims["exp"] <= world.get("now", time.time()):
        raise Refused("ExpiredTokenException", "Token expired", API, "text")
    policy = world["roles"].get(arn)
    if not policy or policy["issuer"] != issuer or policy["sub"] != claims["sub"] or policy["aud"] not in audiences:
        text = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
        raise Refused("AccessDenied", text, COMMON, "text", status=403)
    account, name = role[1], role[2]
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    return {
        "SubjectFromWebIdentityToken": claims["sub"],
        "Audience": policy["aud"],
        "AssumedRoleUser": {
            "AssumedRoleId": f"AROATWIN:{session}",
            "Arn": f"arn:aws:sts::{account}:assumed-role/{name}/{session}",
        },
        "Provider": f"arn:aws:iam::{account}:oidc-provider/{issuer.removeprefix('https://')}",
        "Credentials": {
            "AccessKeyId": "ASIAOFTHETWIN0000000",
            "SecretAccessKey": "secret-of-the-twin",
            "SessionToken": "session-of-the-twin",
            "Expiration": ends,
        },
    }


def xml(name, content):
    inner = "".join(xml(*it) for it in content.items()) if isinstance(content, dict) else escape(content)
    return f"<{name}>{inner}</{name}>"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is two writes; without this each waits for the other side's delayed acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer(200, json.dumps(self.server.world))

    def do_PUT(self):
        self.server.world = json.loads(self.body())
        self.answer(200, "{}")

    def do_POST(self):
        form = dict(urllib.parse.parse_qsl(self.body().decode(), keep_blank_values=True))
        operation, request = form.get("Action", ""), {"RequestId": str(uuid.uuid4())}
        try:
            result = {f"{operation}Result": assumed(self.server.world, form), "ResponseMetadata": request}
            body, status, rests_on, undocumented = xml(f"{operation}Response", result), 200, API, ["order"]
        except Refused as refused:
            error = {"Type": "Sender", "Code": refused.code, "Message": refused.text}
            body = xml("ErrorResponse", {"Error": error, **request})
            status, rests_on, undocumented = refused.status, refused.rests_on, refused.undocumented
        self.answer(status, body.replace(">", f' xmlns="{NAMESPACE}">', 1), rests_on, undocumented)

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def answer(self, status, text, rests_on="", undocumented=()):
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", "text/xml" if text.startswith("<") else "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("rests-on", rests_on)
        self.send_header("undocumented", " ".join(sorted(undocumented)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: aws_twin.py PORT WORLD")
    with open(sys.argv[2]) as world:
        world = json.load(world)
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.daemon_threads = True
    server.world = world
    server.serve_forever()


main()
