"""Gets tokens from Entra with a library that Microsoft gives to Python programs.

    azure_clients.py CLIENT

CLIENT is `azure-identity`, `msal` or `azure-mgmt-msi`. Prints what it is, then reads requests from stdin, a JSON object a line, and
answers each with one:

    flow        workload, agent, on-behalf-of or agent-user
    tenant, client_id, scope, token_file
    agent       the agent identity, for all flows but the first
    user_token_file, username, user_id

The flows of `azure-mgmt-msi` are create, list, get and delete, of the federated credential `name` of a managed identity;
the answer has its `value`:

    subscription, resource_group, identity, name, properties

The answer has `outcome` (`accepted`, `refused` with a `code`, `failed` with the reason), `seconds`, and never a token.
Where Entra is says AZURE_AUTHORITY_HOST; which certificates are trusted, REQUESTS_CA_BUNDLE. Each request begins with
an empty cache.
"""

import importlib.metadata
import json
import logging
import os
import re
import sys
import time

# What goes wrong is in the answer.
logging.disable()
client = sys.argv[1]
EXCHANGE = ["api://AzureADTokenExchange/.default"]


class Refused(Exception):
    pass


def with_azure_identity(request):
    from azure.identity import WorkloadIdentityCredential

    if request["flow"] != "workload":
        raise ValueError("azure-identity has no such flow")
    credential = WorkloadIdentityCredential(
        tenant_id=request["tenant"], client_id=request["client_id"], token_file_path=request["token_file"]
    )
    return credential.get_token(request["scope"]).token


def with_msal(request):
    import msal

    def application(client_id, assertion):
        authority = f"{os.environ['AZURE_AUTHORITY_HOST'].rstrip('/')}/{request['tenant']}"
        return msal.ConfidentialClientApplication(
            client_id, client_credential={"client_assertion": assertion}, authority=authority
        )

    own = application(request["client_id"], lambda: read(request["token_file"]))
    scopes = [request["scope"]]
    if request["flow"] == "workload":
        return token_of(own.acquire_token_for_client(scopes))
    t1 = token_of(own.acquire_token_for_client(EXCHANGE, fmi_path=request["agent"]))
    agent = application(request["agent"], lambda: t1)
    if request["flow"] == "agent":
        return token_of(agent.acquire_token_for_client(scopes))
    if request["flow"] == "on-behalf-of":
        return token_of(agent.acquire_token_on_behalf_of(read(request["user_token_file"]), scopes))
    t2 = token_of(agent.acquire_token_for_client(EXCHANGE))
    user = {"username": request.get("username"), "user_object_id": request.get("user_id")}
    return token_of(agent.acquire_token_by_user_federated_identity_credential(scopes, t2, **user))


def with_azure_mgmt_msi(request):
    from azure.identity import WorkloadIdentityCredential
    from azure.mgmt.msi import ManagedServiceIdentityClient

    credential = WorkloadIdentityCredential(
        tenant_id=request["tenant"], client_id=request["client_id"], token_file_path=request["token_file"]
    )
    credentials = ManagedServiceIdentityClient(credential, request["subscription"]).federated_identity_credentials
    identity = request["resource_group"], request["identity"]
    if request["flow"] == "list":
        return [one.serialize(keep_readonly=True) for one in credentials.list(*identity)]
    if request["flow"] == "create":
        body = {"properties": request["properties"]}
        return credentials.create_or_update(*identity, request["name"], body).serialize(keep_readonly=True)
    if request["flow"] == "get":
        return credentials.get(*identity, request["name"]).serialize(keep_readonly=True)
    return credentials.delete(*identity, request["name"])


def token_of(answer):
    if "access_token" in answer:
        return answer["access_token"]
    raise Refused(answer.get("error_description", str(answer)))


def read(file):
    with open(file) as opened:
        return opened.read()


def ask(request):
    begun = time.monotonic()
    answer = {}
    try:
        result = WITH[client](request)
        if result == "":
            raise ValueError("an empty token")
        answer["outcome"] = "accepted"
        # Text is a token.
        if not isinstance(result, str):
            answer["value"] = result
    except Exception as error:
        code = re.search(r"AADSTS(\d+)", str(error))
        answer = {"outcome": "refused", "code": int(code[1])} if code else {"outcome": "failed", "why": repr(error)}
    return answer | {"seconds": round(time.monotonic() - begun, 3)}


WITH = {"azure-identity": with_azure_identity, "msal": with_msal, "azure-mgmt-msi": with_azure_mgmt_msi}
print(json.dumps({"client": client, "version": importlib.metadata.version(client)}), flush=True)
for line in sys.stdin:
    print(json.dumps(ask(json.loads(line))), flush=True)
