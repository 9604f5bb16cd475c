"""The tenants and their identities."""

import re
import threading
import uuid

from entra_documents import Internet, read_keys

GUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
ALL_GRANTS = ["*"]

MICROSOFT_GRAPH = "00000003-0000-0000-c000-000000000000"
GRAPH_HOSTS = {
    "graph.microsoft.com": "public",
    "graph.microsoft.us": "usgov",
    "dod-graph.microsoft.us": "usgov",
    "microsoftgraph.chinacloudapi.cn": "china",
}
MICROSOFT_GRAPH_APP = {
    "display_name": "Microsoft Graph",
    "identifier_uris": [f"https://{host}" for host in GRAPH_HOSTS],
    "scopes": ["openid", "profile", "offline_access", "User.Read", "User.Read.All", "Mail.Read", "Mail.Send", "Files.Read"],
}

# The hosts of each cloud: where tokens are asked for, and who issues them.
CLOUDS = {
    "public": ("login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"),
    "usgov": ("login.microsoftonline.us",),
    "china": ("login.partner.microsoftonline.cn", "login.chinacloudapi.cn"),
    "test": ("login.windows-ppe.net",),
}
NO_TENANT = ("common", "organizations", "consumers")


def cloud_of(host):
    """The cloud that a host of Entra belongs to, or None."""
    for cloud, hosts in CLOUDS.items():
        if any(host == known or host.endswith("." + known) for known in hosts):
            return cloud
    return None


class Identity:
    """What a client id stands for. Members that the directory leaves out have the values below."""

    def __init__(self, tenant, client_id, entry):
        entry = {"credentials": entry} if isinstance(entry, list) else entry
        self.kind = entry.get("kind", "application")
        self.client_id = entry.get("client_id", client_id)
        self.object_id = entry.get("object_id")
        self.tenant = entry.get("tenant", tenant)
        self.exists = entry.get("exists", True)
        self.service_principal = entry.get("service_principal", True)
        self.enabled = entry.get("enabled", True)
        self.public_client = entry.get("public_client", False)
        self.multi_tenant = entry.get("multi_tenant", False)
        self.credentials = [Credential(one) for one in entry.get("credentials", [])]
        self.blueprint = entry.get("blueprint")
        self.agent_users = entry.get("agent_users")
        self.secrets = entry.get("secrets", ["secret"] if self.kind in ("application", "blueprint") else [])
        self.expired_secrets = entry.get("expired_secrets", [])
        self.certificates = entry.get("certificates", [])
        self.grants = entry.get("grants", ALL_GRANTS)
        self.grants = [self.grants] if isinstance(self.grants, str) else self.grants
        self.describe(entry)

    def describe(self, entry):
        """What only Microsoft Graph and Azure Resource Manager show and change."""
        self.entry = entry
        self.display_name = entry.get("display_name", self.client_id)
        self.principal_id = self.object_id or self.usual_principal_id()
        # In every example the two ids of a blueprint are one.
        usual = self.client_id if self.kind == "blueprint" else stable_id("application", self.tenant, self.client_id)
        self.application_id = entry.get("application_id", usual)
        self.identifier_uris = list(entry.get("identifier_uris", []))
        self.scopes = scope_objects(entry.get("oauth2_permission_scopes", []))
        self.created = entry.get("created", "2026-01-01T00:00:00Z")
        self.owners = entry.get("owners")
        self.resource_id = entry.get("resource_id")
        self.location = entry.get("location", "westeurope")
        self.federation = entry.get("federation", True)
        for number, credential in enumerate(self.credentials, start=1):
            credential.name = credential.name or f"credential-{number}"
            credential.id = credential.id or stable_id(self.client_id, credential.name)
        # `credentials` are those that the token endpoint knows.
        self.stored, self.pending = list(self.credentials), []

    def usual_principal_id(self):
        return self.client_id if self.kind == "agent-identity" else stable_id("principal", self.tenant, self.client_id)

    def store(self, credentials, known_at):
        """The token endpoint knows of a change from the time `known_at`."""
        self.stored = credentials
        self.pending = [*self.pending, (known_at, credentials)]

    def settle(self, now):
        while self.pending and self.pending[0][0] <= now:
            self.credentials = self.pending[0][1]
            self.pending = self.pending[1:]

    def state(self):
        """The identity as an entry of the directory."""
        entry = {**self.entry, "credentials": [one.entry() for one in self.stored]}
        if self.display_name != self.client_id:
            entry["display_name"] = self.display_name
        if self.identifier_uris:
            entry["identifier_uris"] = self.identifier_uris
        if self.scopes:
            entry["oauth2_permission_scopes"] = self.scopes
        return entry


class Credential:
    def __init__(self, entry):
        self.name, self.id, self.description = entry.get("name"), entry.get("id"), entry.get("description")
        self.issuer, self.audience = entry["issuer"], entry["audience"]
        self.subject = entry.get("subject")
        self.age = entry.get("age")
        expression = entry.get("expression")
        self.expression = {"value": expression, "languageVersion": 1} if isinstance(expression, str) else expression

    @property
    def flexible(self):
        return self.subject is None

    def entry(self):
        names = ("name", "id", "issuer", "subject", "audience", "description", "age", "expression")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class ResourceApp:
    """An API that tokens are for, with the service principal that consent names."""

    def __init__(self, app_id, entry):
        self.client_id, self.kind = app_id, "resource-app"
        self.display_name = entry.get("display_name", app_id)
        self.principal_id = entry.get("object_id") or stable_id("principal", app_id)
        self.identifier_uris = list(entry.get("identifier_uris", []))
        self.scopes = scope_objects(entry.get("scopes", []))


def scope_objects(scopes):
    return [one if isinstance(one, dict) else scope_object(one) for one in scopes]


def scope_object(value):
    return {"id": stable_id("scope", value), "value": value, "type": "User", "isEnabled": True}


def stable_id(*words):
    return str(uuid.uuid5(uuid.NAMESPACE_OID, " ".join(map(str, words)).casefold()))


class Directory:
    def __init__(self, content):
        self.content = content
        self.state_lock = threading.RLock()
        self.cloud = content.get("cloud")
        self.resources = content.get("resources")
        self.names = set(content["tenants"])
        self.tenants = {
            tenant.casefold(): {
                client_id.casefold(): Identity(tenant, client_id, entry) for client_id, entry in clients.items()
            }
            for tenant, clients in content["tenants"].items()
        }
        self.internet = Internet(content.get("internet", {}), content.get("documents", {}))
        self.jwks_seconds = content.get("jwks_seconds", 0)
        apps = {MICROSOFT_GRAPH: MICROSOFT_GRAPH_APP, **content.get("resource_apps", {})}
        self.resource_apps = [ResourceApp(app_id, entry) for app_id, entry in apps.items()]
        grants = content.get("oauth2_permission_grants", [])
        self.permission_grants = [{"id": stable_id("grant", number), **one} for number, one in enumerate(grants)]
        self.propagation_seconds = content.get("propagation_seconds", 0)
        self.metadata = {}
        self.lock = threading.Lock()

    def find(self, tenant, client_id):
        """The identity that a client id stands for in a tenant; under `common` in whichever has it."""
        tenants = self.tenants.values() if tenant in NO_TENANT else [self.tenants.get(tenant.casefold(), {})]
        found = [clients[client_id.casefold()] for clients in tenants if client_id.casefold() in clients]
        return found[0] if found else None

    def identities(self, kind=None):
        for clients in self.tenants.values():
            yield from (one for one in clients.values() if kind in (None, one.kind))

    def settle(self, now):
        with self.state_lock:
            for identity in self.identities():
                identity.settle(now)

    def consented(self, identity, user=None):
        """The delegated scopes, each behind its resource, that permission grants give to a client, or to it for a user."""
        resources = {one.principal_id: one for one in [*self.identities(), *self.resource_apps]}
        for grant in self.permission_grants:
            of_user = grant.get("consentType") != "Principal" or grant.get("principalId") == user
            resource = resources.get(grant.get("resourceId"))
            if grant.get("clientId") != identity.principal_id or not of_user or resource is None:
                continue
            for name in [*resource.identifier_uris, resource.client_id, f"api://{resource.client_id}"]:
                yield from (f"{name.rstrip('/')}/{scope}" for scope in grant.get("scope", "").split())

    def keys_of(self, issuer, now):
        """Reads the keys of `issuer`, or takes them from the cache, faults not included."""
        with self.lock:
            read_at, found = self.metadata.get(issuer, (None, None))
            if read_at is not None and now < read_at + self.jwks_seconds:
                return found
        found = read_keys(self.internet, issuer)
        with self.lock:
            self.metadata[issuer] = (now, found)
        return found


def is_guid(text):
    return re.fullmatch(GUID, text) is not None
