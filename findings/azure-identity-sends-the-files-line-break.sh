#!/usr/bin/env bash
# One would guess: a credential that reads a token from a file strips the line break at its end, and reads the file
#   again when a token in it has expired.
# What happens: azure-identity for Python sends the text as it is, line break and all, and sends what it has read for
#   ten minutes, whatever the file holds by now.
# Why it matters: `kubectl create token … > file` and an editor end the file with a line break, and a token that a
#   kubelet replaces every ten minutes is sent when it has been dead for minutes. The JavaScript SDK strips.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"

python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check azure-identity==1.27.0
cat > run.py <<'PY'
import importlib.metadata
import json
import time
import urllib.parse

ahead, now = 0, time.time
time.time = lambda: now() + ahead

from azure.core.pipeline.transport import HttpTransport
from azure.core.rest import HttpResponse
from azure.identity import WorkloadIdentityCredential

print("azure-identity", importlib.metadata.version("azure-identity"))


class Recorder(HttpTransport):
    """Answers every request for a token, and shows the assertion."""

    def send(self, request, **kwargs):
        body = request.body if isinstance(request.body, str) else urllib.parse.urlencode(request.body)
        print("sends", repr(urllib.parse.parse_qs(body)["client_assertion"][0]))
        return Answer(request)

    def open(self): ...
    def close(self): ...
    def __exit__(self, *_): ...


class Answer:
    status_code, reason, content_type = 200, "OK", "application/json"
    headers = {"Content-Type": "application/json"}

    def __init__(self, request):
        self.request = self.http_request = request

    def text(self, encoding=None):
        return json.dumps({"token_type": "Bearer", "expires_in": 3600, "access_token": "x"})

    def body(self):
        return self.text().encode()

    content = property(body)


with open("token", "w") as file:
    file.write("header.claims.first\n")
credential = WorkloadIdentityCredential(
    tenant_id="t", client_id="c", token_file_path="token", transport=Recorder(), disable_instance_discovery=True
)
credential.get_token("https://one.example/.default")
with open("token", "w") as file:
    file.write("header.claims.second\n")
for ahead in (9 * 60, 11 * 60):
    credential.get_token(f"https://{ahead}.example/.default")
PY
v/bin/python run.py | tee seen
diff - seen <<'SEEN'
azure-identity 1.27.0
sends 'header.claims.first\n'
sends 'header.claims.first\n'
sends 'header.claims.second\n'
SEEN
