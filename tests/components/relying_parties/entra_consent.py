"""Microsoft Graph: service principals, and the delegated scopes that a client has consent for."""

import re
import uuid

from entra_api import KEY, READ, Answer, Refusal

READ_GRANTS = ("DelegatedPermissionGrant.Read.All", "Directory.Read.All", "Directory.ReadWrite.All")
WRITE_GRANTS = "DelegatedPermissionGrant.ReadWrite.All"
AGENT_IDENTITY = "#microsoft.graph.agentIdentity"


def known_principals(graph):
    clients = graph.directory.tenants.get(graph.caller.tenant.casefold(), {}).values()
    return [*(one for one in clients if one.exists and one.service_principal), *graph.directory.resource_apps]


def service_principals(graph, rest):
    graph.need(*READ)
    if graph.request.method != "GET":
        raise graph.no_path()
    cast = re.fullmatch(r"/(?:microsoft\.)?graph\.agentIdentity", rest, re.IGNORECASE)
    if not rest or cast:
        found = [principal_json(one) for one in known_principals(graph) if not cast or one.kind == "agent-identity"]
        return graph.listed("servicePrincipals", found, ("appId", "displayName", "id"), ["graph-principals"])
    found = re.fullmatch(KEY, rest, re.IGNORECASE)
    by_app = found and (found["property"] or "").casefold() == "appid"
    wanted = (found["key"] or found["value"]).casefold() if found else None
    for one in known_principals(graph):
        if (one.client_id if by_app else one.principal_id).casefold() == wanted:
            members = {"@odata.context": graph.context("servicePrincipals/$entity"), **principal_json(one)}
            return Answer(200, graph.selected(members), ["graph-principals"])
    text = f"Resource '{wanted}' does not exist or one of its queried reference-property objects are not present."
    raise Refusal(404, "Request_ResourceNotFound", text, ["graph-404"])


def principal_json(one):
    members = {"@odata.type": AGENT_IDENTITY} if one.kind == "agent-identity" else {}
    if one.kind == "agent-identity":
        members["agentIdentityBlueprintId"] = one.blueprint
    if one.kind == "managed-identity":
        members["alternativeNames"] = [f"isExplicit={bool(one.resource_id)}", *filter(None, [one.resource_id])]
    return {
        **members,
        "id": one.principal_id,
        "appId": one.client_id,
        "displayName": one.display_name,
        "servicePrincipalType": "ManagedIdentity" if one.kind == "managed-identity" else "Application",
        "servicePrincipalNames": [one.client_id, *one.identifier_uris],
        "oauth2PermissionScopes": one.scopes,
    }


def permission_grants(graph, rest):
    method, known = graph.request.method, graph.directory.permission_grants
    graph.need(WRITE_GRANTS, *(READ_GRANTS if method == "GET" else ()))
    if not rest and method == "GET":
        names = ("clientId", "consentType", "principalId", "resourceId", "scope")
        return graph.listed("oauth2PermissionGrants", known, names, ["graph-consent"])
    if not rest and method == "POST":
        return consent(graph, graph.members())
    grant = next((one for one in known if rest == f"/{one['id']}"), None)
    if grant is None:
        raise Refusal(404, "Request_ResourceNotFound", f"Resource '{rest[1:]}' does not exist.", ["graph-404"])
    if method == "GET":
        return Answer(200, grant, ["graph-consent"])
    if method == "PATCH":
        body = graph.members()
        for name in set(body) - {"scope"}:
            raise Refusal(400, "Request_BadRequest", f"Property cannot be updated: {name}", ["graph-consent-update"])
        grant["scope"] = body.get("scope", grant["scope"])
        return Answer(204, None, ["graph-consent"])
    if method == "DELETE":
        known.remove(grant)
        return Answer(204, None, ["graph-consent"])
    raise graph.no_path()


def consent(graph, body):
    principals = {one.principal_id for one in known_principals(graph)}
    for name in ("clientId", "resourceId"):
        if body.get(name) not in principals:
            text = f"Object with id {body.get(name)} not found."
            raise Refusal(400, "Request_BadRequest", text, ["graph-consent"], ["consent"])
    kinds = {"AllPrincipals": False, "Principal": True}
    if kinds.get(body.get("consentType")) is not bool(body.get("principalId")) or not isinstance(body.get("scope"), str):
        raise Refusal(400, "Request_BadRequest", "The permission grant is not valid.", ["graph-consent"], ["consent"])
    names = ("clientId", "consentType", "principalId", "resourceId", "scope")
    grant = {"id": uuid.uuid4().hex, **{name: body.get(name) for name in names}}
    for other in graph.directory.permission_grants:
        if all(other.get(name) == grant[name] for name in names[:4]):
            text = "Permission entry already exists."
            raise Refusal(409, "Request_MultipleObjectsWithSameKeyValue", text, ["graph-consent-409"])
    graph.directory.permission_grants.append(grant)
    return Answer(201, grant, ["graph-consent"])
