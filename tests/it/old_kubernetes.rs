//! Kubernetes 1.33, the last that calls an external signer through `v1alpha1`.

use serde_json::json;

use crate::support::{api_server::ApiServer, etcd::Etcd, external_signer::ExternalSigner};

const ISSUER: &str = "https://issuer.example";
const OTHERS: &str = "api://AzureADTokenExchange";

#[test]
fn kube_apiserver_1_33_asks_the_same_socket_and_goes_through_a_rotation() {
    let (etcd, signer) = (Etcd::start(), ExternalSigner::start(ISSUER, ""));
    let mut options = signer.options();
    options.extra_flags.push("--feature-gates=ExternalServiceAccountTokenSigner=true".to_owned());
    let mut old = ApiServer::stopped(&etcd, options).of_version("kube_apiserver_1_33");
    old.restart();
    let version = old.admin_request("GET", "/version").answer().expect_status(200).json();
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("33")));
    old.create_namespace("shop");
    old.create_service_account("shop", "till");

    let (first, second) = (signer.signing(), signer.standby());
    signer.order(&first);
    let before = old.token("shop", "till", &[OTHERS], 600);
    signer.order(&second);
    let after = old.token("shop", "till", &[OTHERS], 600);
    for token in [&before, &after] {
        assert_eq!(old.review(token, &[OTHERS])["authenticated"], true);
    }
    // Its documents contain only the keys of `--service-account-key-file`: it cannot be a source of Signpost.
    assert_eq!((old.jwks().status, old.discovery().status), (404, 404));
    // Both versions may use one signer, while a control plane is upgraded node by node.
    let new = ApiServer::start(&etcd, signer.options());
    assert_eq!(new.review(&before, &[OTHERS])["authenticated"], true);
    let token = new.token("shop", "till", &[OTHERS], 600);
    assert_eq!(old.review(&token, &[OTHERS])["authenticated"], true);
}
