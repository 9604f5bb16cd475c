"""The federated credential that an assertion matches: of another issuer, of Entra itself, of an agent's blueprint."""

import base64
import re
import uuid

from entra_assertion import audiences_of, mismatch, refused
from entra_basis import Refused
from entra_directory import cloud_of, is_guid
from entra_documents import split

NEW_CREDENTIAL_SECONDS = 600
EXCHANGE = {
    "public": "api://AzureADTokenExchange",
    "usgov": "api://AzureADTokenExchangeUSGov",
    "china": "api://AzureADTokenExchangeChina",
}
EXCHANGE_GUID = "fb60f99c-7a34-4190-8149-302f77469936"
ISSUER_HOSTS = {
    "public": "login.microsoftonline.com",
    "usgov": "login.microsoftonline.us",
    "china": "login.partner.microsoftonline.cn",
}
FMI_SUBJECT = "/eid1/"
FLEXIBLE_ISSUER = (
    r"https://token\.actions\.githubusercontent\.com|https://gitlab\.com|https://gitlab\.[^./]+\.[^./]+"
    r"|https://app\.(eu\.)?terraform\.io"
)
FLEXIBLE_CLAIMS = ("sub", "job_workflow_ref", "repository_id", "project_id", "namespace_id", "user_id")


def match(identity, claims, cloud, directory):
    """Gives the open questions of a match, new credentials left aside."""
    if not identity.credentials:
        text = "The client has no configured federated identity credentials."
        raise refused(70025, text, ["70025"])
    old = [one for one in identity.credentials if one.age is None or one.age >= NEW_CREDENTIAL_SECONDS]
    if not old:
        text = "The client has no configured federated identity credentials."
        raise refused(70025, text, ["70025-new"], ["age"])
    try:
        return match_with(old, identity, claims, cloud, directory)
    except Refused:
        if len(old) < len(identity.credentials) and matches(identity.credentials, identity, claims, cloud, directory):
            text = "No matching federated identity record found for presented assertion."
            raise refused(70021, text, ["70021"], ["age"]) from None
        raise


def matches(*arguments):
    try:
        match_with(*arguments)
    except Refused:
        return False
    return True


def match_with(credentials, identity, claims, cloud, directory):
    if issued_by_entra(claims["iss"]):
        return match_entra(credentials, identity, claims, cloud, directory)
    return match_external(credentials, identity, claims)


# Of another issuer --------------------------------------------------------------------------------


def match_external(credentials, identity, claims):
    audiences = audiences_of(claims)
    of_issuer = matching_issuer(credentials, claims["iss"])
    several = ["narrowing"] if len(of_issuer) > 1 else []
    of_audience = [one for one in of_issuer if one.audience in audiences]
    if not of_audience:
        raise mismatch(700212, "audience", audiences[0], ["700212", "exact", "order"], several)
    if not any(one.subject == claims["sub"] for one in of_audience):
        match_flexible(credentials, of_audience, identity, claims, several)
    return ["audiences"] if len(audiences) > 1 else []


def matching_issuer(credentials, issuer):
    if issuer != issuer.strip():
        raise mismatch(700211, "issuer", issuer, ["700211", "issuer-space"])
    of_issuer = [one for one in credentials if one.issuer == issuer]
    if not of_issuer:
        raise mismatch(700211, "issuer", issuer, ["700211", "exact", "order"])
    return of_issuer


def match_flexible(credentials, of_audience, identity, claims, several):
    """Refuses when no flexible credential matches either."""
    flexible = [one for one in of_audience if one.flexible]
    results = [evaluate(one.expression, claims) for one in flexible]
    if flexible:
        check_flexible(identity, claims["iss"], results)
    if True in results:
        return
    if any(one.flexible for one in credentials):
        text = f"No matching federated identity record found for presented assertion subject '{claims['sub']}' by expression."
        raise refused(7002131, text, ["7002131", "flexible"], several if flexible else ["flexible"])
    raise wrong_subject(of_audience, claims["sub"], ["700213", "exact"], several)


def check_flexible(identity, issuer, results):
    """What somebody has listed of codes for flexible credentials that the directory does not let one make."""
    if not re.fullmatch(FLEXIBLE_ISSUER, issuer):
        text = f"Flexible federated identity credentials do not support the issuer '{issuer}'."
        raise refused(7002241, text, ["7002241", "flexible"], ["flexible"])
    if identity.kind == "managed-identity":
        text = "Flexible federated identity credentials are not for managed identities."
        raise refused(700235, text, ["700235", "flexible"], ["flexible"])
    if True not in results and BROKEN in results:
        raise refused(700233, "The expression cannot be parsed.", ["700233"], ["flexible"])
    if True not in results and NOT_ALLOWED in results:
        raise refused(700237, "The expression names a claim that is not allowed.", ["700237"], ["flexible"])


def wrong_subject(credentials, subject, rests_on, open_questions=()):
    if any((one.subject or "").casefold() == subject.casefold() for one in credentials):
        text = "The subject matches with case-insensitive comparison, but not with case-sensitive comparison."
        return refused(7002138, text, ["7002138", "exact"], open_questions)
    return mismatch(700213, "subject", subject, rests_on, open_questions)


BROKEN = "broken"
NOT_ALLOWED = "not allowed"
TERM = re.compile(r"\s*claims\['([^']+)'\]\s+(eq|matches)\s+'([^']*)'\s*")


def evaluate(expression, claims):
    """Whether claims match an expression, or why that cannot be told."""
    if not isinstance(expression, dict) or expression.get("languageVersion", 1) != 1:
        return BROKEN
    text, place, result, allowed = str(expression.get("value", "")), 0, True, True
    while True:
        term = TERM.match(text, place)
        if not term:
            return BROKEN
        allowed = allowed and term[1] in FLEXIBLE_CLAIMS
        result = compare(claims.get(term[1]), term[2], term[3]) and result
        place = term.end()
        if place == len(text):
            return result if allowed else NOT_ALLOWED
        if not re.match(r"and\s", text[place:]):
            return BROKEN
        place += len("and")


def compare(value, operator, wanted):
    if not isinstance(value, str):
        return False
    if operator == "eq":
        return value == wanted
    pattern = "".join({"*": ".*", "?": "."}.get(letter) or re.escape(letter) for letter in wanted)
    return re.fullmatch(pattern, value, re.DOTALL) is not None


# Of Entra -----------------------------------------------------------------------------------------


def issued_by_entra(issuer):
    return cloud_of(split(issuer.strip()).hostname or "") is not None


def match_entra(credentials, identity, claims, cloud, directory):
    if identity.kind == "blueprint" and claims["sub"].startswith(FMI_SUBJECT):
        if not any(one.issuer == claims["iss"] for one in credentials):
            raise mismatch(7002111, "issuer", claims["iss"], ["7002111"])
    of_issuer = matching_issuer(credentials, claims["iss"])
    of_subject = [one for one in of_issuer if one.subject == claims["sub"]]
    if not of_subject:
        raise wrong_entra_subject(credentials, of_issuer, claims["sub"])
    check_entra_audience(of_subject[0], claims, cloud)
    open_questions = check_entra_token(identity, claims, cloud, directory)
    of_subject = [one.issuer for one in credentials if one.subject == claims["sub"]]
    if len({split(issuer).hostname for issuer in of_subject if issued_by_entra(issuer)}) > 1:
        text = "Several federated credentials match the subject, with issuers of both versions."
        raise entra_refusal(700263, text)
    return open_questions


def wrong_entra_subject(credentials, of_issuer, subject):
    if subject.startswith(FMI_SUBJECT):
        return mismatch(7002137, "subject", subject, ["7002137", "entra-order"])
    if any(one.flexible for one in credentials):
        text = f"No matching federated identity record found for presented assertion subject '{subject}' by expression."
        return refused(7002131, text, ["7002131"], ["flexible"])
    return wrong_subject(of_issuer, subject, ["700213", "entra-order"])


def check_entra_audience(credential, claims, cloud):
    """Issuer and subject match; from here on the most specific rule comes first."""
    if "xms_ficinfo" in claims and not claims["sub"].startswith(FMI_SUBJECT):
        raise second_hand()
    audiences, usual = audiences_of(claims), credential.audience == EXCHANGE[cloud]
    if usual and not any(is_exchange(audience, cloud) for audience in audiences):
        raise mismatch(7002121, "audience", audiences[0], ["7002121", "entra-order"])
    if split(claims["iss"]).hostname == "sts.windows.net":
        raise entra_refusal(700227, f"Entra ID tokens of issuer '{claims['iss']}' may not be used.")
    if not usual:
        text = f"The audience '{credential.audience}' of the federated credential is not '{EXCHANGE[cloud]}'."
        known = any(is_exchange(audience, cloud) for audience in audiences)
        raise entra_refusal(700214, text, [] if known else ["entra-audience"])


def check_entra_token(identity, claims, cloud, directory):
    """Gives the open questions of a token that may be used."""
    parts = split(claims["iss"])
    if cloud_of(parts.hostname) != cloud:
        # Only a managed identity was met with this; an application was accepted.
        if "xms_mirid" not in claims:
            return ["entra-issuer"]
        raise entra_refusal(700238, f"The issuer '{claims['iss']}' is of another cloud.")
    path = parts.path.strip("/").split("/")
    if len(path) != 2 or path[1] != "v2.0" or parts.hostname != ISSUER_HOSTS[cloud]:
        raise entra_refusal(700222, "Entra-issued tokens may not be used.", ["entra-issuer"])
    if path[0].casefold() != identity.tenant.casefold():
        raise entra_refusal(700236, f"Entra ID tokens issued by issuer '{claims['iss']}' may not be used.")
    if identity.kind == "managed-identity":
        raise entra_refusal(700222, "Entra-issued tokens may not be used.", ["entra-issuer"])
    if claims["sub"].startswith(FMI_SUBJECT):
        if identity.multi_tenant and identity.kind == "application":
            raise entra_refusal(70052, "The application is for several tenants.")
        return []
    if "scp" in claims or claims.get("idtyp") == "user":
        raise entra_refusal(700229, "Only app-only tokens can be used as federated credentials.")
    if known_managed_identity(claims, directory):
        return []
    if of_application(claims, directory):
        raise entra_refusal(700226, "Only tokens of managed identities can be used as federated credentials.")
    return ["managed-identity"]


def is_exchange(audience, cloud):
    return audience == EXCHANGE[cloud] or (cloud == "public" and audience == EXCHANGE_GUID)


def of_application(claims, directory):
    """Whether an app-only token is an ordinary application's; a managed identity has its own way to authenticate."""
    applications = {one.object_id for one in directory.identities("application")} - {None}
    proof = claims.get("azpacr", claims.get("appidacr", "2"))
    return claims["sub"] in applications or proof in ("0", "1")


def known_managed_identity(claims, directory):
    known = {one.object_id for one in directory.identities("managed-identity")} - {None}
    return "xms_mirid" in claims or claims["sub"] in known


def second_hand():
    text = "Entra ID tokens obtained by a federated identity credential may not be used as one."
    return entra_refusal(700231, text)


def entra_refusal(code, text, open_questions=()):
    return refused(code, text, [str(code), "entra-order"], open_questions)


# Of Entra, for an agent identity ------------------------------------------------------------------


def t1_subject(tenant, blueprint, agent):
    return f"/eid1/c/pub/t/{short(tenant)}/a/{short(blueprint)}/{agent}"


def short(guid):
    """base64url of a GUID's bytes, the first three fields with the least byte first."""
    try:
        return base64.urlsafe_b64encode(uuid.UUID(guid).bytes_le).decode().rstrip("=")
    except ValueError:
        return guid


def match_agent(identity, claims, cloud):
    """An agent identity takes T1: Entra's token of its tenant in which its blueprint names it."""
    if "xms_ficinfo" in claims and not claims["sub"].startswith(FMI_SUBJECT):
        raise second_hand()
    own_issuer = f"https://{ISSUER_HOSTS[cloud]}/{identity.tenant}/v2.0"
    if claims["iss"].casefold() != own_issuer.casefold():
        observed = issued_by_entra(claims["iss"])
        raise mismatch(700211, "issuer", claims["iss"], ["700211", "t2-tenant"], [] if observed else ["agents"])
    wanted = t1_subject(identity.tenant, identity.blueprint or "", identity.client_id)
    unknown_blueprint = not identity.blueprint and is_t1(claims["sub"], identity)
    if claims["sub"] != wanted and not unknown_blueprint:
        raise wrong_agent(identity, claims["sub"])
    if not any(is_exchange(audience, cloud) for audience in audiences_of(claims)):
        raise mismatch(7002121, "audience", audiences_of(claims)[0], ["7002121"], ["agents"])
    return ["blueprint"] if unknown_blueprint else []


def is_t1(subject, identity):
    return subject.startswith(f"/eid1/c/pub/t/{short(identity.tenant)}/a/") and subject.endswith("/" + identity.client_id)


def wrong_agent(identity, subject):
    if not subject.startswith(FMI_SUBJECT):
        return mismatch(700213, "subject", subject, ["700213", "t1-subject"], ["agents"])
    if is_t1(subject, identity):
        text = "The blueprint of the assertion is not the blueprint of the agent identity."
        return refused(7002134, text, ["7002134", "t1-subject"])
    return mismatch(7002137, "subject", subject, ["7002137", "t1-subject"], ["agent-subject"])


def check_bound_agent(identity, claims, fmi_path):
    """A platform's assertion may be bound to one agent identity: the last part of its subject."""
    subject = claims["sub"]
    agent = subject.rpartition("/")[2]
    if any(one.subject == subject for one in identity.credentials) or not subject.startswith(FMI_SUBJECT):
        return
    if is_guid(agent) and fmi_path and agent != fmi_path:
        text = f"The requested agent identity is '{fmi_path}'."
        raise refused(7002142, text, ["7002142"], ["agent-subject"])
