"""Presents tokens to a library that keeps what it has read, as a service does that runs for long.

    readers.py LIBRARY AUDIENCE

Reads lines from stdin: an issuer and a token of it, answered with a line `accepted` or `refused` and why; or `+` and a
number of seconds by which the clocks that Python reads are put forward, answered with `later`. Which certificates are trusted say
SSL_CERT_FILE and REQUESTS_CA_BUNDLE.
"""

import json
import sys
import time
import urllib.request

# Before the libraries are read, which may take the functions away.
ahead = 0
for clock in ("time", "monotonic"):
    now = getattr(time, clock)
    setattr(time, clock, lambda now=now: now() + ahead)

library, audience = sys.argv[1:]


def read(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def jwks_uri(issuer):
    """For libraries that leave the discovery document to the program: all of these."""
    return read(issuer + "/.well-known/openid-configuration")["jwks_uri"]


def with_pyjwt(issuer):
    import jwt

    keys = jwt.PyJWKClient(jwks_uri(issuer))

    def present(token):
        key = keys.get_signing_key_from_jwt(token)
        jwt.decode(token, key, algorithms=["RS256"], audience=audience, issuer=issuer)

    return present


def with_google_auth(issuer):
    import google.auth.transport.requests
    from google.oauth2 import id_token

    request = google.auth.transport.requests.Request()
    certs_url = jwks_uri(issuer)
    return lambda token: id_token.verify_token(token, request, audience, certs_url=certs_url)


# The rest is given a JWKS and reads none; the program here reads it for each token.


def with_authlib(issuer):
    import warnings

    # It says that joserfc comes after it, which is here too.
    warnings.simplefilter("ignore")
    from authlib.jose import JsonWebKey, JsonWebToken

    claims = {"iss": {"value": issuer}, "aud": {"value": audience}}

    def present(token):
        keys = JsonWebKey.import_key_set(read(jwks_uri(issuer)))
        JsonWebToken(["RS256"]).decode(token, keys, claims_options=claims).validate()

    return present


def with_joserfc(issuer):
    from joserfc import jwt
    from joserfc.jwk import KeySet

    claims = jwt.JWTClaimsRegistry(iss={"value": issuer}, aud={"value": audience})

    def present(token):
        keys = KeySet.import_key_set(read(jwks_uri(issuer)))
        claims.validate(jwt.decode(token, keys, algorithms=["RS256"]).claims)

    return present


def with_python_jose(issuer):
    from jose import jwt

    def present(token):
        jwt.decode(token, read(jwks_uri(issuer)), algorithms=["RS256"], audience=audience, issuer=issuer)

    return present


libraries = {
    "PyJWT": with_pyjwt,
    "google-auth": with_google_auth,
    "Authlib": with_authlib,
    "joserfc": with_joserfc,
    "python-jose": with_python_jose,
}


# Each is set up when the first token of an issuer comes, and again with the next one as long as that fails.
known = {}
for line in sys.stdin:
    line = line.strip()
    if line.startswith("+"):
        ahead += int(line)
        answer = "later"
    else:
        try:
            issuer, token = line.split()
            if issuer not in known:
                known[issuer] = libraries[library](issuer)
            known[issuer](token)
            answer = "accepted"
        except Exception as error:
            answer = " ".join(f"refused {type(error).__name__}: {error}".split())
    print(answer, flush=True)
