//! The service accounts of a real cluster beside what Entra has for them.

use super::*;

const NAMESPACE: &str = "federated";
const SOURCE: [&str; 3] = ["--cluster", "--source", "kubernetes:test"];

#[test]
fn a_cluster_and_its_identities_are_set_side_by_side_and_made_to_agree() {
    let stage = Stage::set(&json!({}));
    let server = &stage.cluster.server;
    server.create_namespace(NAMESPACE);
    for (name, client_id) in [("app", Some(WORKLOAD)), ("agent", Some(BLUEPRINT)), ("bare", None)] {
        let annotations = client_id.map(|id| json!({"azure.workload.identity/client-id": id}));
        let metadata = json!({"name": name, "annotations": annotations});
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        server.create(&format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"), &object);
    }
    let metadata =
        json!({"name": "named", "annotations": {"azure.workload.identity/client-id": "x')/y?z=('"}});
    let named = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
    server.create(&format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"), &named);
    let pod = |name: &str, account: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"azure.workload.identity/use": "true"}},
            "spec": {"serviceAccountName": account, "containers": [{"name": "app", "image": "app"}]},
        })
    };
    for (name, account) in [("app-0", "app"), ("bare-0", "bare")] {
        server.create(&format!("/api/v1/namespaces/{NAMESPACE}/pods"), &pod(name, account));
    }
    let list = [&["list"][..], &SOURCE].concat();
    let elsewhere =
        ["apply", "--cluster", "--source", "kubernetes:test", "--issuer", "https://other.example"];
    let told = stage.federate(&elsewhere).expect_code(2);
    assert!(told.stderr.contains(&format!("the issuer of this cluster is `{ISSUER}`")), "{}", told.stderr);
    let told = stage.federate(&list).expect_code(1);
    for part in [
        &format!("issuer {ISSUER}")[..],
        "federated/app",
        "no credential",
        "no annotation azure.workload.identity/client-id",
    ] {
        assert!(told.stdout.contains(part), "{part}: {}", told.stdout);
    }

    let apply = [&["apply"][..], &SOURCE].concat();
    let told = stage.federate(&apply).expect_code(2);
    assert!(told.stdout.contains("it is no client id, which is a GUID"), "{}", told.stdout);
    server
        .admin_request("DELETE", &format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/named"))
        .answer()
        .expect_status(200);
    let told = stage.federate(&apply).expect_code(0);
    assert!(
        told.stdout.contains("nothing was written"),
        "one fault stops no other identity: {}",
        told.stdout
    );
    assert!(told.stdout.contains(WORKLOAD) && told.stdout.contains("agent blueprint"), "{}", told.stdout);
    let told = stage.federate(&[&list[..], &["--output", "json"]].concat()).expect_code(1);
    let document: Value = serde_json::from_str(&told.stdout).expect("JSON");
    let trust = |name: &str| {
        let accounts = document["inventory"]["accounts"].as_array().expect("a list");
        let row = accounts.iter().find(|it| it["account"] == format!("{NAMESPACE}/{name}"));
        row.unwrap_or_else(|| panic!("{name}: {document}"))["trust"]["trust"].clone()
    };
    assert_eq!(["app", "agent", "bare"].map(trust), ["trusted", "trusted", "no_client_id"]);

    let mut directory = stage.twin.directory();
    let gone = json!({"name": "gone", "issuer": ISSUER, "subject": "system:serviceaccount:federated:gone", "audience": AUDIENCE});
    directory["tenants"][TENANT][WORKLOAD]["credentials"].as_array_mut().expect("a list").push(gone);
    stage.twin.replace(&directory);
    let told = stage.federate(&list).expect_code(1);
    assert!(told.stdout.contains("no service account for `gone`: whoever creates it"), "{}", told.stdout);
    stage.federate(&apply).expect_code(0);
    assert_eq!(stage.credentials(WORKLOAD).len(), 2, "removed only on demand");
    let elsewhere = [&list[..], &["--namespace", "default"]].concat();
    let told = stage.federate(&elsewhere).expect_code(0);
    assert!(!told.stdout.contains("`gone`"), "its namespace was not looked at: {}", told.stdout);
    stage.federate(&[&apply[..], &["--remove-dangling", "--yes"]].concat()).expect_code(0);
    assert_eq!(stage.credentials(WORKLOAD).len(), 1);
}
