#!/usr/bin/env python3
"""Verifies a token as a stranger would: PyJWT, and nothing known but the issuer.

    pyjwt_verify.py ISSUER AUDIENCE CA_FILE < token

CA_FILE holds the only certificates that are trusted; `-` stands for an issuer on plain http.
Prints the claims as one line of JSON and exits 0, or says why not on stderr and exits 1.
"""

import json
import ssl
import sys
import urllib.request

import jwt

# What Kubernetes can sign with, less what a relying party must never take from a document.
ALGORITHMS = {"RS256", "ES256", "ES384", "ES512"}
TIMEOUT_SECONDS = 10


def verify(issuer, audience, ca_file, token):
    tls = None if ca_file == "-" else ssl.create_default_context(cafile=ca_file)
    discovery_url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    with urllib.request.urlopen(discovery_url, timeout=TIMEOUT_SECONDS, context=tls) as answer:
        discovery = json.load(answer)

    # OpenID Connect Discovery 1.0, section 4.3: exactly equal, not equal after tidying.
    if discovery["issuer"] != issuer:
        raise ValueError(f"the document names issuer {discovery['issuer']!r}, expected {issuer!r}")
    algorithms = sorted(ALGORITHMS & set(discovery["id_token_signing_alg_values_supported"]))

    keys = jwt.PyJWKClient(discovery["jwks_uri"], timeout=TIMEOUT_SECONDS, ssl_context=tls)
    return jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token),
        algorithms=algorithms,
        audience=audience,
        issuer=issuer,
        options={"require": ["exp", "iat", "iss", "aud", "sub"]},
    )


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: pyjwt_verify.py ISSUER AUDIENCE CA_FILE < token")
    try:
        claims = verify(*sys.argv[1:], sys.stdin.read().strip())
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(json.dumps(claims))


main()
