//! The walk-through for agent blueprints on kind, as its author published it, from the signing key to the
//! token that Entra accepts. A folder behind nginx and a kube-apiserver with the same flags replace `az` and
//! `kind`; no controller runs, so the pod of the Deployment is created from its template.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use signpost::clock;
use tempfile::TempDir;

use super::{AUDIENCE, DISCOVERY, JWKS, WITHIN};
use crate::support::api_server::{ApiServer, Options};
use crate::support::entra_twin::{Directory, EntraTwin};
use crate::support::etcd::Etcd;
use crate::support::nginx::{Location, Nginx};
use crate::support::pki::KeyFiles;
use crate::support::scripted::Scripted;
use crate::support::signpost::{Finished, Signpost};

const HOST: &str = "oidc7f3a21c9.blob.core.windows.net";
const ISSUER: &str = "https://oidc7f3a21c9.blob.core.windows.net/oidc";
const TENANT: &str = "5f6c0b9e-7d3a-4f0e-9f0e-2b1f6d1c9a10";
const BLUEPRINT: &str = "85075aa5-1d73-42de-812a-95348218e4b2";

#[test]
fn the_walk_through_for_agent_blueprints_ends_in_accepted() {
    let folder = TempDir::new().expect("a temporary folder");
    let container = folder.path().join("oidc");
    // Generate service account signing keys; create the container; upload the discovery document.
    let key = KeyFiles::rsa(folder.path(), "sa-signer");
    let discovery = format!(
        r#"{{
"issuer": "{ISSUER}",
"jwks_uri": "{ISSUER}/openid/v1/jwks",
"response_types_supported": ["id_token"],
"subject_types_supported": ["public"],
"id_token_signing_alg_values_supported": ["RS256"]
}}
"#
    );
    upload(&container, DISCOVERY, &discovery);
    let nginx = Nginx::start_as(HOST, &[("/oidc/", Location::Folder(container.clone()))]);

    // Create the cluster with the issuer.
    let etcd = Etcd::start();
    let server = ApiServer::start(
        &etcd,
        Options {
            verification_keys: vec![key.private.clone()],
            extra_flags: vec![
                "--api-audiences=api://AzureADTokenExchange,https://kubernetes.default.svc".to_owned(),
            ],
            ..Options::new(ISSUER, &key)
        },
    );
    // Create the namespace; deploy.
    deploy(&server);
    // Configure the federated credential; list it as Graph does.
    let trusted = json!({
        "issuer": ISSUER, "subject": "system:serviceaccount:entra-demo:sidecar-sa", "audiences": [AUDIENCE],
        "name": "kind-workload-identity", "description": "Workload identity for Kind cluster sidecar",
        "id": "7d6f3d8a-0000-4000-8000-000000000000",
    });
    let credentials = folder.path().join("credentials.json");
    fs::write(&credentials, json!({"value": [trusted]}).to_string()).expect("the folder can be written");

    let config = folder.path().join("kubeconfig");
    server.admin_kubeconfig(&config);
    let address = nginx.address();
    let verify = |arguments: &[&str]| -> Finished {
        let fixed = ["verify", "--allow-private", "--connect-to", &address, "--source", "kubernetes:test"];
        let credentials = ["--credentials", credentials.to_str().expect("a name of ours")];
        let all = fixed.iter().chain(&credentials).chain(arguments).map(|it| (*it).to_owned());
        Signpost::new(all).env("SSL_CERT_FILE", nginx.ca_file()).env("KUBECONFIG", &config).finish(WITHIN)
    };
    let told = verify(&["--service-account", "entra-demo/sidecar-sa"]).expect_code(1);
    assert!(told.stdout.contains("PUB-PATH  JWKS at"), "the JWKS is not there yet: {}", told.stdout);

    // Extract the JWKS from the API server and upload it.
    upload(&container, JWKS, &server.jwks().expect_status(200).text());
    for whose in
        [["--service-account", "entra-demo/sidecar-sa"], ["--pod", "entra-demo/demo-app-5d9c7b6f4-x2k8p"]]
    {
        let told = verify(&whose).expect_code(0);
        let first = "accepted: Microsoft Entra would accept the token of `entra-demo/sidecar-sa`\n";
        assert!(told.stdout.starts_with(first), "{}", told.stdout);
        assert!(!told.stdout.contains("error    "), "{}", told.stdout);
        // The one step that should be omitted.
        assert!(told.stdout.contains("warning  K8S-APIAUD"), "{}", told.stdout);
        assert_eq!(told.stdout.matches("warning  ").count(), 1, "{}", told.stdout);
    }
    // Decode and inspect the token: the twin's answer to the one that the kubelet would project.
    let token = server.token("entra-demo", "sidecar-sa", &[AUDIENCE], 3600);
    let stand_in = Scripted::start(move |seen| {
        let document = container.join(seen.path.trim_start_matches("/oidc/"));
        fs::read_to_string(document).map_or((404, String::new()), |text| (200, text))
    });
    let mut trusted = trusted;
    trusted["audience"] = json!(AUDIENCE);
    let twin = EntraTwin::start(Directory {
        now: clock::now().as_second(),
        jwks_seconds: 0,
        internet: vec![(HOST.to_owned(), stand_in.url())],
        applications: vec![(BLUEPRINT.to_owned(), json!([trusted]))],
    });
    assert_eq!(twin.exchange(BLUEPRINT, &token).code, None);
    let pod = verify(&["--service-account", "entra-demo/sidecar-sa", "--output", "json"]).expect_code(0);
    let report: Value = serde_json::from_str(&pod.stdout).expect("it prints JSON");
    assert_eq!(report["outcome"], "accepted");
}

fn upload(container: &Path, name: &str, text: &str) {
    let blob = container.join(name);
    fs::create_dir_all(blob.parent().expect("it has a folder")).expect("the folder can be written");
    fs::write(blob, text).expect("the folder can be written");
}

/// `serviceaccount.yaml`, `sidecar-config.yaml` and the pod template of `deployment.yaml`.
fn deploy(server: &ApiServer) {
    server.create_namespace("entra-demo");
    let create = |kind: &str, object: Value| {
        server.create(&format!("/api/v1/namespaces/entra-demo/{kind}"), &object);
    };
    create(
        "serviceaccounts",
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {
                "name": "sidecar-sa",
                "annotations": {"azure.workload.identity/client-id": BLUEPRINT},
                "labels": {"azure.workload.identity/use": "true"},
            },
        }),
    );
    create(
        "configmaps",
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sidecar-config"},
            "data": {
                "AzureAd__Instance": "https://login.microsoftonline.com/",
                "AzureAd__TenantId": TENANT,
                "AzureAd__ClientId": BLUEPRINT,
                "AzureAd__ClientCredentials__0__SourceType": "SignedAssertionFilePath",
                "AzureAd__ClientCredentials__0__SignedAssertionFileDiskPath":
                    "/var/run/secrets/tokens/azure-identity-token",
                "DownstreamApis__graph__BaseUrl": "https://graph.microsoft.com/v1.0/",
                "DownstreamApis__graph__Scopes__0": "https://graph.microsoft.com/.default",
                "DownstreamApis__graph__RequestAppToken": "true",
                "ASPNETCORE_ENVIRONMENT": "Production",
                "ASPNETCORE_URLS": "http://+:5000",
            },
        }),
    );
    create(
        "pods",
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "demo-app-5d9c7b6f4-x2k8p",
                "labels": {"app": "demo-app", "azure.workload.identity/use": "true"},
            },
            "spec": {
                "serviceAccountName": "sidecar-sa",
                "containers": [
                    {
                        "name": "app",
                        "image": "curlimages/curl:latest",
                        "command": ["sleep", "infinity"],
                        "env": [{"name": "SIDECAR_URL", "value": "http://localhost:5000"}],
                    },
                    {
                        "name": "sidecar",
                        "image": "mcr.microsoft.com/entra-sdk/auth-sidecar:1.0.0-azurelinux3.0-distroless",
                        "ports": [{"containerPort": 5000}],
                        "envFrom": [{"configMapRef": {"name": "sidecar-config"}}],
                        "volumeMounts": [
                            {"name": "azure-identity-token", "mountPath": "/var/run/secrets/tokens", "readOnly": true},
                        ],
                    },
                ],
                "volumes": [{"name": "azure-identity-token", "projected": {"sources": [{"serviceAccountToken": {
                    "path": "azure-identity-token", "expirationSeconds": 3600, "audience": AUDIENCE,
                }}]}}],
            },
        }),
    );
}
