// Gets tokens from Entra with a library that Microsoft gives to Node programs: azure_clients.py says how it is asked.
//
//     azure_clients.mjs CLIENT
//
// CLIENT is `@azure/identity` or `@azure/msal-node`. Which certificates are trusted says NODE_EXTRA_CA_CERTS.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const client = process.argv[2];
const library = await import(client);
const { version } = createRequire(import.meta.url)(`./node_modules/${client}/package.json`);
const authority = process.env.AZURE_AUTHORITY_HOST.replace(/\/$/, "");
const EXCHANGE = ["api://AzureADTokenExchange/.default"];

const read = (file) => readFileSync(file, "utf8");

async function withIdentity({ flow, tenant, client_id, scope, token_file }) {
  if (flow !== "workload") {
    throw new Error("@azure/identity has no such flow");
  }
  const options = { tenantId: tenant, clientId: client_id, tokenFilePath: token_file };
  return (await new library.WorkloadIdentityCredential(options).getToken(scope)).token;
}

async function withMsal({ flow, tenant, client_id, scope, token_file, agent, user_token_file, username, user_id }) {
  const application = (clientId, clientAssertion) =>
    new library.ConfidentialClientApplication({
      auth: {
        clientId,
        clientAssertion,
        authority: `${authority}/${tenant}`,
        // Else it asks login.microsoftonline.com, without a proxy.
        knownAuthorities: [new URL(authority).host],
      },
    });
  const own = application(client_id, async () => read(token_file));
  const token = async (answer) => (await answer).accessToken;
  const scopes = [scope];
  if (flow === "workload") {
    return token(own.acquireTokenByClientCredential({ scopes }));
  }
  const t1 = await token(own.acquireTokenByClientCredential({ scopes: EXCHANGE, fmiPath: agent }));
  const asAgent = application(agent, async () => t1);
  if (flow === "agent") {
    return token(asAgent.acquireTokenByClientCredential({ scopes }));
  }
  if (flow === "on-behalf-of") {
    return token(asAgent.acquireTokenOnBehalfOf({ scopes, oboAssertion: read(user_token_file) }));
  }
  const assertion = await token(asAgent.acquireTokenByClientCredential({ scopes: EXCHANGE }));
  const user = username === undefined ? { userObjectId: user_id } : { username };
  return token(asAgent.acquireTokenByUserFederatedIdentityCredential({ scopes, assertion, ...user }));
}

const acquire = { "@azure/identity": withIdentity, "@azure/msal-node": withMsal }[client];

async function ask(request) {
  try {
    if (!(await acquire(request))) {
      throw new Error("an empty token");
    }
    return { outcome: "accepted" };
  } catch (error) {
    const code = /AADSTS(\d+)/.exec(error);
    return code ? { outcome: "refused", code: Number(code[1]) } : { outcome: "failed", why: String(error) };
  }
}

console.log(JSON.stringify({ client, version }));
for await (const line of createInterface({ input: process.stdin })) {
  const begun = performance.now();
  const answer = await ask(JSON.parse(line));
  console.log(JSON.stringify({ ...answer, seconds: Math.round(performance.now() - begun) / 1000 }));
}
