"""Tokens of users: on behalf of a person, or for the user account of an agent."""

import jwt

from entra_assertion import audiences_of, decode, refused, times
from entra_basis import Refused, iso
from entra_directory import cloud_of, is_guid
from entra_documents import split
from entra_match import is_exchange

# How refresh tokens of the twin begin.
REFRESH = "0.refresh-of-the-twin."
# How audiences begin whose tokens are sealed: nobody else can check their signature. The last is Work IQ's.
SEALED = ("https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000", "fdcc1f02-")


def check_user_token(request):
    """The user's token of an on-behalf-of request; its signature is not verified. Gives open questions."""
    try:
        claims = decode(request.form["assertion"])[1]
    except (jwt.InvalidTokenError, RecursionError) as error:
        raise Refused(50013, f"Assertion is invalid. {error}", ["50013"]) from error
    faults = [fault for fault in user_token_faults(request, claims) if fault]
    if faults:
        if len(faults) > 1 and faults[0].code != 500131:
            faults[0].open_questions = [*faults[0].open_questions, "obo-order"]
        raise faults[0]
    return ["signature"]


def user_token_faults(request, claims):
    yield wrong_user_issuer(request, claims)
    yield wrong_user_audience(request.identity, claims)
    yield wrong_user_kind(request.identity, claims)
    yield wrong_user_time(request, claims)
    yield wrong_user_tenant(request, claims)


def wrong_user_issuer(request, claims):
    if "iss" not in claims:
        return None
    cloud = cloud_of(split(str(claims["iss"])).hostname or "")
    if cloud is None:
        return bad_user_token("Assertion failed signature validation.", ["50013-issuer"])
    if cloud != request.cloud:
        return Refused(900382, "Confidential Client is not supported in Cross Cloud request.", ["900382"])
    return None


def wrong_user_audience(identity, claims):
    audience = str((audiences_of(claims) or [""])[0])
    if audience.startswith(SEALED):
        return bad_user_token("Assertion failed signature validation.", ["50013-graph"])
    client = identity.blueprint if identity.kind == "agent-identity" else identity.client_id
    if client is None or audience in (client, f"api://{client}"):
        return None
    own_uri = audience.startswith(f"api://{client}/")
    text = f"Assertion audience does not match the Client app presenting the assertion. The audience was '{audience}'."
    return None if own_uri else bad_user_token(text, ["500131"], 500131)


def wrong_user_kind(identity, claims):
    # Entra also takes an ID token of its own that has this claim.
    if "scp" in claims or "uti" in claims:
        return None
    own_object = "oid" in claims and claims["oid"] == claims.get("sub")
    if claims.get("idtyp") == "app" or "roles" in claims or own_object:
        text = f"Application '{identity.client_id}' is not allowed to make application on-behalf-of calls."
        return Refused(7000114, text, ["7000114"], ["obo-app"], error="invalid_grant")
    return bad_user_token("Input id_token cannot be used as 'urn:ietf:params:oauth:grant-type:jwt-bearer' grant.", ["240002"], 240002)


def wrong_user_time(request, claims):
    try:
        begin, end = times(claims, request.now)
    except Refused:
        return bad_user_token("Assertion is invalid. nbf or exp", ["50013"])
    if begin <= request.now < end:
        return None
    text = f"Assertion is not within its valid time range. Current time: {iso(request.now)}, expiry time {iso(end)}."
    return bad_user_token(text, ["500133", "no-leeway"], 500133)


def wrong_user_tenant(request, claims):
    tenant = claims.get("tid")
    if not is_guid(request.tenant) or tenant in (None, request.tenant):
        return None
    text = f"User account does not exist in tenant '{request.tenant}'."
    return Refused(90072, text, ["90072"], ["user-tenant"])


def bad_user_token(text, rests_on, code=50013):
    return Refused(code, text, rests_on)


def check_consent(identity, scopes, consented=()):
    """Each scope needs a grant of the client itself: of its `grants`, or `consented`."""
    if "*" in identity.grants:
        return
    consented = set(consented)
    for scope in scopes:
        resource, _, name = scope.rpartition("/")
        of_resource = [grant for grant in identity.grants if grant.rpartition("/")[0] == resource]
        granted = of_resource if name == ".default" else scope in identity.grants or name in identity.grants
        # A scope without a resource is one of Microsoft Graph.
        full = f"{(resource or SEALED[0]).rstrip('/')}/"
        granted = granted or any(one == full + name or (name == ".default" and one.startswith(full)) for one in consented)
        if not granted:
            text = f"The user or administrator has not consented to use the application with ID '{identity.client_id}'."
            raise Refused(65001, text, ["65001"])


def user_of(request):
    """The object id of the user, as far as the request says it."""
    if request.form.get("user_id"):
        return request.form["user_id"]
    if request.form.get("refresh_token", "").startswith(REFRESH):
        return request.form["refresh_token"].rpartition(".")[2] or None
    try:
        return decode(request.form.get("assertion", ""))[1].get("oid")
    except (jwt.InvalidTokenError, RecursionError):
        return None


def refresh_token(request):
    """What comes with the token of a user if `offline_access` was asked for: it names client and user."""
    if "offline_access" not in request.form.get("scope", "").split():
        return None
    return f"{REFRESH}{request.identity.client_id}.{user_of(request) or ''}"


def check_refresh_token(request):
    """The twin's own are for the client that got them. Any other word stands for one that fits."""
    token = request.form["refresh_token"]
    if token.startswith(REFRESH) and not token.startswith(f"{REFRESH}{request.identity.client_id}."):
        raise Refused(70000, "The provided value for the refresh token is not valid.", ["70000"])
    return [] if token.startswith(REFRESH) else ["user-grants"]


def check_agent_user(request):
    """The user of a user_fic request, and the token of the agent identity that stands for it."""
    form, identity = request.form, request.identity
    user = form.get("username") or form.get("user_id")
    if not user:
        text = "The request body must contain the following parameter: 'username' or 'user_id'."
        raise Refused(900144, text, ["error-list"], ["form"])
    open_questions = ["form"] if form.get("username") and form.get("user_id") else []
    if not form.get("username") and not is_guid(user):
        raise Refused(50000, "There was an error issuing a token or an issue with our sign-in service.", ["50000"])
    open_questions += check_user_credential(request, form["user_federated_identity_credential"])
    if identity.agent_users is None:
        return open_questions + ["agent-users"]
    if user.casefold() in map(str.casefold, identity.agent_users):
        return open_questions
    if not identity.agent_users or is_agent_user(request.directory, user):
        raise no_record(identity)
    text = f"The user '{user}' has no federated identity credential."
    raise refused(7002200, text, ["7002200"])


def check_user_credential(request, credential):
    """The exchange token of the agent identity. Words that are no token stand for one that fits."""
    try:
        claims = decode(credential)[1]
    except (jwt.InvalidTokenError, RecursionError):
        return ["user-credential"]
    begin, end = times(claims, request.now)
    if not any(is_exchange(audience, request.cloud) for audience in audiences_of(claims)):
        raise refused(7002121, "No matching record for the audience of the user's credential.", ["7002121"], ["user-credential"])
    if claims.get("sub") != request.identity.client_id:
        raise no_record(request.identity, ["user-credential"])
    if not begin <= request.now < end:
        raise refused(700024, "The user's credential is not within its valid time range.", ["700024"], ["user-credential"])
    return ["signature"]


def is_agent_user(directory, user):
    agents = [one.agent_users or [] for one in directory.identities("agent-identity")]
    accounts = [{one.client_id, one.object_id} for one in directory.identities("agent-user")]
    return any(user.casefold() == known.casefold() for users in agents + accounts for known in users if known)


def no_record(identity, open_questions=()):
    text = f"No matching federated identity record found for presented assertion subject '{identity.client_id}'."
    return refused(7002203, text, ["7002203"], open_questions)
