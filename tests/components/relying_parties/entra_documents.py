"""The documents that issuers publish, and the keys in them."""

import json
import urllib.parse
from codecs import BOM_UTF8
from http.client import HTTPConnection, HTTPException

import jwt

from entra_basis import Refused

DISCOVERY = "/.well-known/openid-configuration"
NEEDED_MEMBERS = [
    "issuer",
    "jwks_uri",
    "response_types_supported",
    "subject_types_supported",
    "id_token_signing_alg_values_supported",
]
KEYS_STORED = 100
# A smaller modulus is no key at all.
FEWEST_BITS = 512
UNKNOWN_SECONDS = 1800
FETCH_SECONDS = 5
LONGEST_DOCUMENT = 1 << 20
REDIRECTS = 5


def read_keys(internet, issuer):
    """Gives the open questions on the way, and the keys by kid: one that is usable, or why it is not."""
    discovery_url = issuer.removesuffix("/") + DISCOVERY
    redirected, body = internet.get(discovery_url)
    open_questions = about_document(redirected, body)
    discovery = parse(body)
    if not isinstance(discovery, dict):
        raise bad_document(discovery_url, "no JSON object", ["content"])
    for name in NEEDED_MEMBERS:
        if name not in discovery:
            # `issuer` and `jwks_uri` are what a reader cannot do without.
            known = name == "jwks_uri"
            raise bad_document(discovery_url, f"no {name}", ["members"], [] if known else ["document"])
    if discovery["issuer"] != issuer:
        raise bad_document(discovery_url, "another issuer", ["discovery-issuer"], ["issuer"])
    if any(value in ("", []) and name != "jwks_uri" for name, value in discovery.items()):
        open_questions.append("document")
    if "RS256" not in discovery["id_token_signing_alg_values_supported"]:
        open_questions.append("document")

    redirected, body = internet.get(discovery["jwks_uri"])
    open_questions += about_document(redirected, body)
    jwks = parse(body)
    if not isinstance(jwks, dict) or not isinstance(jwks.get("keys"), list):
        raise Refused(900612, "Failed to parse provider signing keys.", ["900612"], open_questions)
    if internet.age(discovery["jwks_uri"]) < UNKNOWN_SECONDS:
        return [*open_questions, "fresh"], {}
    return open_questions, usable_keys(jwks["keys"], open_questions)


UNREADABLE = "unreadable"
OTHER_KIND = "of another kind"
FOR_NO_SIGNATURES = "for no signatures"


def usable_keys(members, open_questions):
    """The keys by kid. In place of a key that cannot be used it has the reason."""
    keys = {}
    for place, member in enumerate(members):
        if not isinstance(member, dict):
            raise Refused(900612, "Failed to parse provider signing keys.", ["900612"], open_questions)
        kid = member.get("kid")
        if member.get("kty") != "RSA":
            open_questions.append("keys")
            if isinstance(kid, str):
                keys.setdefault(kid, OTHER_KIND)
            continue
        key = read_key(member)
        if key is None:
            if isinstance(kid, str):
                keys.setdefault(kid, UNREADABLE)
            else:
                open_questions.append("keys")
            continue
        if member.get("alg") not in (None, "RS256") or key.key.key_size < 2048 or kid in keys or kid is None:
            open_questions.append("keys")
        if member.get("use", "sig") != "sig":
            open_questions.append("keys")
        if place < KEYS_STORED and kid is not None:
            keys.setdefault(kid, key if member.get("use") == "sig" else FOR_NO_SIGNATURES)
    return keys


def read_key(member):
    try:
        # The public key alone: PyJWT would take more for a private key or another algorithm.
        public = {name: member[name] for name in ("kty", "n", "e") if name in member}
        key = jwt.PyJWK(public, algorithm="RS256")
        return key if key.key.key_size >= FEWEST_BITS else None
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None


def about_document(redirected, body):
    open_questions = ["redirect"] if redirected else []
    open_questions += ["bom"] if body.startswith(BOM_UTF8) else []
    return open_questions + (["twice"] if has_a_member_twice(body) else [])


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


FAILED = "Request to External OIDC endpoint failed."


def no_answer(url, reason, rests_on, open_questions=()):
    return Refused(90061, f"{FAILED} {url}: {reason}", rests_on, open_questions)


def bad_document(url, reason, rests_on, open_questions=()):
    return Refused(501661, f"{FAILED} {url}: {reason}", rests_on, open_questions)


class Internet:
    """What can be reached: documents, and servers on loopback that stand for names, TLS left out."""

    def __init__(self, hosts, documents):
        self.hosts, self.documents = hosts, documents

    def get(self, url):
        """Whether there was a redirect, and the body."""
        for redirects in range(REDIRECTS + 1):
            status, location, body = self.get_once(url)
            if status in (301, 302, 303, 307, 308) and location:
                url = urllib.parse.urljoin(url, location)
            elif status == 200:
                return redirects > 0, body
            elif status == 403:
                text = f"{FAILED} {url}: HTTP status {status}"
                raise Refused(50166, text, ["50166"])
            else:
                raise no_answer(url, f"HTTP status {status}", ["90061-path", "path"])
        raise no_answer(url, "too many redirects", ["90061"], ["redirect"])

    def get_once(self, url):
        if not isinstance(url, str) or split(url).scheme != "https":
            raise bad_document(url, "not https", ["https"])
        if url in self.documents:
            return self.stored(url)
        return self.ask(url)

    def stored(self, url):
        document = self.documents[url]
        if document.get("unreachable") == "private":
            raise bad_document(url, "private", ["501661"])
        if "unreachable" in document:
            raise no_answer(url, document["unreachable"], ["90061"])
        return document.get("status", 200), document.get("location"), document.get("body", "").encode()

    def age(self, url):
        """Seconds since the document was changed, if the directory says so."""
        return self.documents.get(url, {}).get("age", UNKNOWN_SECONDS)

    def ask(self, url):
        parts = split(url)
        if parts.netloc not in self.hosts:
            raise no_answer(url, "cannot be reached", ["90061"])
        stand_in = urllib.parse.urlsplit(self.hosts[parts.netloc])
        connection = HTTPConnection(stand_in.hostname, stand_in.port, timeout=FETCH_SECONDS)
        try:
            connection.request("GET", urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, "")))
            answer = connection.getresponse()
            return answer.status, answer.getheader("location"), answer.read(LONGEST_DOCUMENT)
        except (OSError, HTTPException) as error:
            raise no_answer(url, str(error), ["90061"]) from error
        finally:
            connection.close()


def split(url):
    try:
        return urllib.parse.urlsplit(url)
    except ValueError:
        return urllib.parse.urlsplit("")
