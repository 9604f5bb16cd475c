"""An assertion as text, its key, and what is right or wrong whatever credential it matches."""

import base64

import jwt

from entra_basis import Refused, iso
from entra_documents import FOR_NO_SIGNATURES, OTHER_KIND, UNREADABLE, has_a_member_twice, parse

SKEW_SECONDS = 300
LONGEST_LIFE = 25 * 3600
THUMBPRINTS = {"x5t", "x5t#S256"}
TYPES = ("JWT", "http://openid.net/specs/jwt/1.0")
CLAIM_CHECKS = ["verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub", "verify_jti"]


def decode(token):
    """Header and claims, nothing verified."""
    claims = jwt.decode(token, options={"verify_signature": False, **dict.fromkeys(CLAIM_CHECKS, False)})
    return jwt.get_unverified_header(token), claims


def read_assertion(assertion):
    try:
        header, claims = decode(assertion)
    except (jwt.InvalidTokenError, RecursionError) as error:
        if isinstance(error, jwt.InvalidTokenError) and "Key ID" in str(error):
            raise no_kid(["alg"]) from error
        if has_crit(assertion):
            raise refused(5002726, "Invalid JWT token. Unsupported token header.", ["5002726"], ["header"]) from error
        raise malformed(str(error)) from error
    if assertion.endswith("."):
        raise malformed("no signature", ["empty-signature"])
    if "://" not in str(claims.get("iss", "://")) and len(audiences_of(claims)) > 1:
        raise malformed("several audiences", ["self-audiences"], ["self-audiences"])
    check_header(header)
    check_claims(claims)
    return header, claims


def check_header(header):
    if not isinstance(header.get("alg"), str):
        raise malformed("no alg", open_questions=["alg"])
    if "kid" not in header and not THUMBPRINTS & header.keys():
        raise no_kid()
    if header.get("kid") == "":
        raise no_kid(["alg"])
    if header.get("typ", "JWT") not in TYPES:
        text = "Invalid JWT header type specified, must be 'JWT' or 'http://openid.net/specs/jwt/1.0'."
        raise refused(5002727, text, ["5002727"])
    if header["alg"] != "RS256":
        text = f"'{header['alg']}' is not a supported signature algorithm. Supported signing algorithms are: 'RS256'"
        may_work = ["alg"] if header["alg"] in ("RS384", "RS512") else []
        raise refused(5002738, text, ["5002738", "rs256"], may_work)


def check_claims(claims):
    for claim in ("iss", "aud", "sub", "exp"):
        if claims.get(claim) in (None, "", []):
            documented = claim in ("iss", "aud") and claim not in claims
            text = f"The required field '{claim}' is missing from the credential."
            raise Refused(90014, text, ["90014"], [] if documented else ["claims"])
    if not (isinstance(claims["iss"], str) and isinstance(claims["sub"], str)):
        raise malformed("iss or sub", open_questions=["claims"])


def check_life(claims):
    try:
        life = int(claims["exp"]) - int(claims.get("iat", 0))
    except (TypeError, ValueError, OverflowError):
        return
    if life > LONGEST_LIFE:
        raise refused(70023, f"The assertion's lifetime of {life} seconds is longer than 1.01:00:00.", ["70023"])


def check_time(claims, now):
    begin, end = times(claims, now)
    if not begin - SKEW_SECONDS <= now <= end + SKEW_SECONDS:
        text = (
            f"Client assertion is not within its valid time range. Current time: {iso(now)},"
            f" assertion valid from {iso(begin)}, expiry time of assertion {iso(end)}."
        )
        raise refused(700024, text, ["700024"])
    return [] if begin <= now < end else ["skew"]


def times(claims, now):
    try:
        return int(claims.get("nbf", now)), int(claims["exp"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise malformed("nbf or exp", open_questions=["claims"]) from error


def check_signature(assertion, header, issuer, found):
    """`found`: the open questions on the way to the keys, and the keys."""
    open_questions, keys = found
    key = keys.get(header.get("kid"))
    if key == UNREADABLE:
        raise Refused(900612, "Failed to parse provider signing keys.", ["900612"], open_questions)
    if key == OTHER_KIND:
        text = "Invalid JWT token. Unsupported key for the signing algorithm."
        raise refused(5002730, text, ["5002730"], open_questions)
    if key == FOR_NO_SIGNATURES:
        text = "The key used to sign the assertion is not registered for signatures."
        raise refused(700027, text, ["700027-use", "use"], open_questions)
    if UNREADABLE in keys.values():
        open_questions = [*open_questions, "keys"]
    if key is None:
        text = (
            f"The certificate with identifier '{header.get('kid')}' used to sign the federated credential could not be"
            f" found in the metadata of identity provider {issuer}. Please validate that your Identity Provider's"
            " metadata exposes the key used to sign the incoming token."
        )
        rests_on = ["7000272", "fresh"] if "fresh" in open_questions else ["7000272", "100-keys"]
        raise refused(7000272, text, rests_on, open_questions)
    try:
        nothing_else = {"verify_signature": True, **dict.fromkeys(CLAIM_CHECKS, False)}
        jwt.decode(assertion, key, algorithms=["RS256"], options=nothing_else)
    except jwt.InvalidTokenError as error:
        text = f"Client assertion contains an invalid signature. {error}"
        raise refused(7000274, text, ["7000274"], open_questions) from error
    return open_questions


def twice(assertion):
    """Whether a member of header or claims is there twice."""
    return ["twice"] if any(map(has_a_member_twice, parts(assertion))) else []


def has_crit(assertion):
    header = parse(next(parts(assertion), b""))
    return isinstance(header, dict) and "crit" in header


def parts(assertion):
    """Header and claims as JSON, as far as they can be decoded."""
    for part in assertion.split(".")[:2]:
        try:
            yield base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        except ValueError:
            yield b""


def refused(code, text, rests_on, open_questions=()):
    """A refusal of the client's credential."""
    return Refused(code, text, rests_on, open_questions, error="invalid_client")


def malformed(why, rests_on=(), open_questions=()):
    return Refused(50027, f"JWT token is invalid or malformed. {why}", rests_on or ["50027"], open_questions)


def no_kid(open_questions=()):
    text = "Invalid JWT token. No certificate SHA-1 thumbprint, certificate SHA-256 thumbprint, nor keyId specified in token header."
    return refused(5002723, text, ["5002723", "kid-first"], open_questions)


def mismatch(code, what, value, rests_on, open_questions=()):
    text = f"No matching federated identity record found for presented assertion {what} '{value}'."
    return refused(code, text, rests_on, open_questions)


def check_self_signed(identity, header, claims, endpoints, now):
    """Whether the application signed the assertion itself; refuses one that speaks of no other issuer."""
    if claims["iss"].casefold() == identity.client_id.casefold():
        if claims["sub"] != claims["iss"]:
            text = "Subject and issuer of the client assertion are not the same."
            raise refused(50048, text, ["50048"])
        if not any(audience in endpoints for audience in audiences_of(claims)):
            text = "Client assertion audience claim does not match Realm issuer."
            raise refused(700023, text, ["700023"])
        check_time(claims, now)
        if header.get("kid") in identity.certificates:
            return True
        text = "The certificate used to sign the client assertion is not registered on application."
        raise refused(700027, text, ["700027"])
    if "://" not in claims["iss"]:
        text = "Client assertion application identifier doesn't match 'client_id' parameter."
        raise refused(700021, text, ["700021"], ["order"])
    return False


def audiences_of(claims):
    audience = claims.get("aud", [])
    return audience if isinstance(audience, list) else [audience]
