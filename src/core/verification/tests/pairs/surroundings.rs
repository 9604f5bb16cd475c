use serde_json::{Value, json};

use super::{Pair, pair};
use crate::core::{
    jose::kid::Kid,
    verification::{
        ApiServerView, Cloud,
        tests::scene::{AUDIENCE, CLIENT, NOW, Scene, TOKEN_FILE, published_key, seconds},
    },
};

const DAY: i64 = 86_400;

fn kid(text: &str) -> Kid {
    Kid::parse(text).expect("a kid")
}

fn server(scene: &mut Scene, kids: Vec<Kid>, taken: Option<bool>) {
    scene.api_server = Some(ApiServerView { kids, minted: true, takes_for_its_own: taken });
}

/// Sets or removes a variable in the scene's pod.
fn set_variable(pod: &mut Value, name: &str, value: &Value) {
    let variables = pod["spec"]["containers"][0]["env"].as_array_mut().expect("an array");
    variables.retain(|variable| variable["name"] != name);
    if !value.is_null() {
        variables.push(json!({"name": name, "value": value}));
    }
}

pub(super) const PAIRS: &[Pair] = &[
    pair(
        "JWKS-MATCH",
        |it| server(it, vec![published_key().kid().clone(), kid("new")], None),
        "are not published: `new`",
        |it| server(it, vec![published_key().kid().clone()], None),
    ),
    pair(
        "K8S-KEYPAIR",
        |it| server(it, vec![kid("old")], None),
        "has just signed with kid",
        |it| {
            server(it, vec![published_key().kid().clone()], None);
        },
    ),
    pair(
        "K8S-APIAUD",
        |it| server(it, vec![published_key().kid().clone()], Some(true)),
        "as its own",
        |it| server(it, vec![published_key().kid().clone()], Some(false)),
    ),
    pair(
        "ROT-OVERLAP",
        |it| it.remembered(&json!({"removed": {"at": seconds(NOW - 1)}}), NOW - 2 * DAY, false),
        "was taken out of the publication",
        |it| it.remembered(&json!({"missing": {"since": seconds(NOW - 1)}}), NOW - 2 * DAY, false),
    ),
    pair(
        "ROT-OVERLAP",
        |it| it.remembered(&json!({"revoked": {"at": seconds(NOW - 1)}}), NOW - 2 * DAY, false),
        "was revoked at",
        |it| it.remembered(&json!("listed"), NOW - 2 * DAY, false),
    ),
    pair(
        "CACHE-WAIT",
        |it| it.remembered(&json!("listed"), NOW - DAY + 1, false),
        "shown by every target for only 23h",
        |it| {
            it.remembered(&json!("listed"), NOW - DAY, false);
        },
    ),
    // A ledger may contain any time, such as the largest one.
    pair(
        "CACHE-WAIT",
        |it| it.remembered(&json!("listed"), 253_402_207_200, false),
        "shown by every target for only 0s",
        |_| {},
    ),
    pair(
        "CACHE-WAIT",
        |it| it.remembered(&json!("listed"), NOW - 720, false),
        "shown by every target for only 12m",
        |it| {
            it.remembered(&json!("listed"), NOW - 720, true);
        },
    ),
    pair(
        "ROT-EARLY",
        |it| it.remembered(&json!("listed"), NOW - 60 - DAY + 1, false),
        "has signed 23h",
        |it| {
            it.remembered(&json!("listed"), NOW - 60 - DAY, false);
        },
    ),
    pair(
        "ISS-CHANGE",
        |it| {
            it.remembered(&json!("listed"), 0, true);
            it.published_issuer = "https://old.example";
        },
        "the issuer is",
        |it| it.remembered(&json!("listed"), 0, true),
    ),
    pair(
        "POD-LABEL",
        |it| {
            it.with_pod(|pod| {
                pod["metadata"]["labels"] = json!({});
                as_its_author_wrote_it(pod);
            });
        },
        "pod `app-0` has no label",
        |it| it.with_pod(|pod| pod["metadata"]["labels"] = json!({})),
    ),
    pair(
        "POD-LABEL",
        |it| {
            it.with_pod(|pod| {
                pod["metadata"]["labels"] = json!({"azure.workload.identity/use": "True"});
                as_its_author_wrote_it(pod);
            });
        },
        "has the label `azure.workload.identity/use: \"True\"`",
        |it| it.with_pod(|_| {}),
    ),
    pair(
        "POD-ENV",
        |it| it.with_pod(as_its_author_wrote_it),
        "has no `AZURE_FEDERATED_TOKEN_FILE`",
        |it| {
            it.with_pod(|pod| {
                as_its_author_wrote_it(pod);
                pod["metadata"]["annotations"] =
                    json!({"azure.workload.identity/skip-containers": "a; main"});
            });
        },
    ),
    pair(
        "POD-ENV",
        |it| {
            let old = "/var/run/secrets/azure/tokens/azure-identity-token";
            it.with_pod(|pod| set_variable(pod, "AZURE_FEDERATED_TOKEN_FILE", &json!(old)));
        },
        "where none is projected",
        |it| it.with_pod(|_| {}),
    ),
    pair(
        "POD-EXP",
        |it| _ = it.annotated(&json!({"azure.workload.identity/service-account-token-expiration": "3599"})),
        "is `3599`",
        |it| _ = it.annotated(&json!({"azure.workload.identity/service-account-token-expiration": "3600"})),
    ),
    pair(
        "AUTH-HOST",
        |it| it.with_pod(|pod| set_variable(pod, "AZURE_AUTHORITY_HOST", &json!(""))),
        "`AZURE_AUTHORITY_HOST` of container `main` of pod `app-0` is empty",
        |it| {
            it.with_pod(|pod| {
                set_variable(pod, "AZURE_AUTHORITY_HOST", &json!("https://login.microsoftonline.com"));
            });
        },
    ),
    pair(
        "AUTH-HOST",
        |it| {
            it.cloud = Cloud::UsGov;
            it.with_pod(|_| {});
        },
        "is `https://login.microsoftonline.com/`",
        |it| {
            it.cloud = Cloud::UsGov;
            it.with_pod(|pod| {
                set_variable(pod, "AZURE_AUTHORITY_HOST", &json!("https://login.microsoftonline.us/"));
            });
        },
    ),
    pair(
        "TENANT-ID",
        |it| it.with_pod(|pod| set_variable(pod, "AZURE_TENANT_ID", &json!("<tenant>"))),
        "of pod `app-0` is `<tenant>`",
        |it| it.with_pod(|pod| set_variable(pod, "AZURE_TENANT_ID", &json!("contoso.onmicrosoft.com"))),
    ),
    pair(
        "CLIENT-ID",
        |it| it.with_pod(|pod| set_variable(pod, "AZURE_CLIENT_ID", &json!("my-identity"))),
        "`AZURE_CLIENT_ID` of container `main` of pod `app-0` is `my-identity`",
        |it| it.with_pod(|pod| set_variable(pod, "AZURE_CLIENT_ID", &json!(CLIENT))),
    ),
    pair(
        "SA-ANNOT",
        |it| {
            it.with_pod(|pod| set_variable(pod, "AZURE_CLIENT_ID", &Value::Null));
            _ = it.annotated(&json!({}));
        },
        "has no annotation `azure.workload.identity/client-id`",
        |it| {
            it.with_pod(|_| {});
            _ = it.annotated(&json!({}));
        },
    ),
    pair(
        "POD-TENANT",
        |it| it.with_pod(|pod| set_variable(pod, "AZURE_TENANT_ID", &Value::Null)),
        "container `main` of pod `app-0` has no `AZURE_TENANT_ID`",
        |it| it.with_pod(|_| {}),
    ),
    pair(
        "POD-TENANT",
        |it| it.with_sidecar(|it| it["AzureAd__TenantId"] = json!("")),
        "has no `AzureAd__TenantId`",
        |it| it.with_sidecar(|_| {}),
    ),
    pair(
        "AUTH-HOST",
        |it| {
            it.cloud = Cloud::China;
            it.with_pod(|pod| set_variable(pod, "AZURE_AUTHORITY_HOST", &Value::Null));
        },
        "has no `AZURE_AUTHORITY_HOST`, and asks the public cloud",
        |it| it.with_pod(|pod| set_variable(pod, "AZURE_AUTHORITY_HOST", &Value::Null)),
    ),
    pair(
        "SA-ANNOT",
        |it| {
            it.with_pod(|pod| set_variable(pod, "AZURE_CLIENT_ID", &Value::Null));
            _ = it.annotated(&json!({"azure.workload.identity/client-id": ""}));
        },
        "of the service account is empty",
        |it| {
            it.with_pod(|_| {});
            _ = it.annotated(&json!({"azure.workload.identity/client-id": ""}));
        },
    ),
    pair(
        "POD-LONG",
        |it| it.with_pod(|pod| token(pod)["expirationSeconds"] = json!(90_001)),
        "is given a token with a lifetime of 90001 s",
        |it| it.with_pod(|pod| token(pod)["expirationSeconds"] = json!(90_000)),
    ),
    pair(
        "POD-SHORT",
        |it| it.with_pod(|pod| token(pod)["expirationSeconds"] = json!(2999)),
        "is given a token with a lifetime of 2999 s",
        |it| it.with_pod(|pod| token(pod)["expirationSeconds"] = json!(3000)),
    ),
    pair(
        "POD-SUBPATH",
        |it| it.with_pod(|pod| mount_file(pod, "azure-identity-token")),
        "by `subPath`",
        |it| it.with_pod(|pod| mount_file(pod, "")),
    ),
    pair(
        "POD-OTHER",
        |it| it.with_pod(|pod| add_setup(pod, "/wrong")),
        "container `setup` of pod `app-0` looks for its token at `/wrong`",
        |it| it.with_pod(|pod| add_setup(pod, TOKEN_FILE)),
    ),
    pair(
        "POD-AUD",
        |it| it.with_pod(|pod| *token(pod) = json!({"audience": "vault", "path": "azure-identity-token"})),
        "is given a token for `vault`",
        |it| it.with_pod(|pod| *token(pod) = json!({"audience": AUDIENCE, "path": "azure-identity-token"})),
    ),
    pair(
        "SIDE-CFG",
        |it| it.with_sidecar(|it| it[SOURCE] = json!("SignedAssertionFile")),
        "`SignedAssertionFile`",
        |it| it.with_sidecar(|_| {}),
    ),
    pair(
        "SIDE-CFG",
        |it| {
            it.with_sidecar(|it| {
                it["AzureAd__ClientCredentials__2__SourceType"] = json!("SignedAssertionFilePath");
            });
        },
        "has no `AzureAd__ClientCredentials__1__…`",
        |it| {
            it.with_sidecar(|it| {
                it["AzureAd__ClientCredentials__1__SourceType"] = json!("SignedAssertionFilePath");
            });
        },
    ),
    pair(
        "SIDE-SECRET",
        |it| {
            it.with_sidecar(|it| {
                it[SOURCE] = json!("ClientSecret");
                it["AzureAd__ClientCredentials__1__SourceType"] = json!("SignedAssertionFilePath");
            });
        },
        "tries a `ClientSecret` first",
        |it| it.with_sidecar(|it| it["AzureAd__ClientCredentials__1__SourceType"] = json!("ClientSecret")),
    ),
    pair(
        "SIDE-PATH",
        |it| it.with_sidecar(|it| it[DISK_PATH] = json!("/var/run/secrets/tokens/token")),
        "where no token is projected",
        |it| it.with_sidecar(|_| {}),
    ),
    pair(
        "SIDE-PATH",
        |it| it.with_sidecar(|it| it[DISK_PATH] = Value::Null),
        "has neither a path for credential 0 nor",
        |_| {},
    ),
    pair(
        "SIDE-ID",
        |it| {
            let other = "00000000-0000-0000-0000-000000000000";
            it.with_sidecar(|it| it["AzureAd__ClientId"] = json!(other));
        },
        "`AzureAd__ClientId` of container `main` of pod `app-0`",
        |it| it.with_sidecar(|_| {}),
    ),
];

const SOURCE: &str = "AzureAd__ClientCredentials__0__SourceType";
const DISK_PATH: &str = "AzureAd__ClientCredentials__0__SignedAssertionFileDiskPath";

/// The pod before any webhook.
fn as_its_author_wrote_it(pod: &mut Value) {
    pod["spec"]["volumes"] = json!([]);
    pod["spec"]["containers"] = json!([{"name": "main"}]);
}

/// Mounts a part of the scene's token volume at the path where the pod reads its token.
fn mount_file(pod: &mut Value, part: &str) {
    let path = if part.is_empty() { "/var/run/secrets/tokens" } else { TOKEN_FILE };
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "token", "mountPath": path, "subPath": part}]);
}

/// Adds an init container like the first container, except for the path of its token.
fn add_setup(pod: &mut Value, file: &str) {
    let mut setup = pod["spec"]["containers"][0].clone();
    setup["name"] = json!("setup");
    setup["env"][3]["value"] = json!(file);
    pod["spec"]["initContainers"] = json!([setup]);
}

/// The projected token of the scene's pod.
fn token(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]
}
