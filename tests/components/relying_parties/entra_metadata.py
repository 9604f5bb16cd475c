"""What clients ask Entra for besides tokens: where its endpoints and keys are, and who a user is."""

import base64
import json
import re
import urllib.parse

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from entra_request import ON_BEHALF_OF, USER_FIC

KID = "of-the-twin"
LIFE = 3599
# The fields of a form that are not to be told.
SECRET = (
    "client_assertion", "assertion", "user_federated_identity_credential", "client_secret", "password", "refresh_token",
    "code",
)


class Metadata:
    def __init__(self):
        self.made = None

    def key(self):
        # Most tests need none.
        self.made = self.made or rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return self.made

    def document(self, base, url):
        """The document at this path and query, or None. `base` is the scheme and host that the client uses."""
        parts = urllib.parse.urlsplit(url)
        if parts.path == "/common/discovery/instance":
            return instance(base, dict(urllib.parse.parse_qsl(parts.query)))
        found = re.fullmatch(r"/([^/]+)/(v2\.0/\.well-known/openid-configuration|discovery/v2\.0/keys)", parts.path)
        if not found:
            return None
        if found[2].startswith("v2.0"):
            return configuration(base, found[1])
        key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key().public_key()))
        return {"keys": [{**key, "kid": KID, "use": "sig"}]}

    def about_user(self, base, request):
        """The members of an answer that name the user whose token it is, as far as the form asks for them."""
        form = request.form
        if form.get("grant_type") not in (ON_BEHALF_OF, USER_FIC):
            return {}
        members = {}
        object_id = form.get("user_id") or "00000000-0000-4000-8000-000000000001"
        if form.get("client_info") == "1":
            about = json.dumps({"uid": object_id, "utid": request.tenant}).encode()
            members["client_info"] = base64.urlsafe_b64encode(about).decode().rstrip("=")
        if "openid" in form["scope"].split():
            claims = {
                "iss": configuration(base, request.tenant)["issuer"],
                "aud": form["client_id"],
                "sub": object_id,
                "oid": object_id,
                "tid": request.tenant,
                "preferred_username": form.get("username", "person@team.example"),
                "ver": "2.0",
                "iat": request.now,
                "nbf": request.now,
                "exp": request.now + LIFE,
            }
            members["id_token"] = jwt.encode(claims, self.key(), algorithm="RS256", headers={"kid": KID})
        return members


def instance(base, query):
    """The answer to "is this host one of yours": it is, and has no other name."""
    host = urllib.parse.urlsplit(base).netloc
    tenant = urllib.parse.urlsplit(query.get("authorization_endpoint", "")).path.split("/")[1:2] or ["common"]
    return {
        "tenant_discovery_endpoint": f"{base}/{tenant[0]}/v2.0/.well-known/openid-configuration",
        "api-version": "1.1",
        "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
    }


def configuration(base, tenant):
    """The four members that Microsoft's libraries need."""
    return {
        "issuer": f"{base}/{tenant}/v2.0",
        "authorization_endpoint": f"{base}/{tenant}/oauth2/v2.0/authorize",
        "token_endpoint": f"{base}/{tenant}/oauth2/v2.0/token",
        "jwks_uri": f"{base}/{tenant}/discovery/v2.0/keys",
    }


def without_secrets(form):
    return {name: None if name in SECRET else value for name, value in form.items()}
