//! kube-apiserver signs with keys in a PKCS#11 token.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;

use crate::support::{
    api_server::ApiServer,
    components,
    etcd::Etcd,
    eventually::eventually,
    external_signer::ExternalSigner,
    http_client::Response,
    pki::KeyFiles,
    softhsm::{LABEL, PIN, SoftHsm},
};

const ISSUER: &str = "https://issuer.example";
const OTHERS: &str = "api://AzureADTokenExchange";
const AT_MOST: Duration = Duration::from_mins(1);

fn signer(hsm: &SoftHsm, more: &str) -> ExternalSigner {
    let mut signer = ExternalSigner::stopped(ISSUER, &format!("{}, {more}", hsm.settings()));
    signer.set_environment("SOFTHSM2_CONF", hsm.config());
    signer
}

fn started(signer: &ExternalSigner, etcd: &Etcd) -> ApiServer {
    let server = ApiServer::start(etcd, signer.options());
    server.create_namespace("shop");
    server.create_service_account("shop", "till");
    server
}

fn token(server: &ApiServer) -> String {
    server.token("shop", "till", &[OTHERS], 600)
}

fn request(server: &ApiServer) -> Response {
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [OTHERS], "expirationSeconds": 600},
    });
    server.admin_request("POST", "/api/v1/namespaces/shop/serviceaccounts/till/token").json(&body).answer()
}

fn is_accepted(server: &ApiServer, token: &str) -> bool {
    server.review(token, &[OTHERS])["authenticated"] == true
}

fn private_files(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("readable").path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "pem")).collect()
}

#[track_caller]
fn are_locked_in(hsm: &SoftHsm, count: usize) {
    let keys = hsm.private_keys();
    assert_eq!(keys.len(), count, "{keys:#?}");
    for key in keys {
        for (attribute, value) in [
            ("CKA_SENSITIVE", "TRUE"),
            ("CKA_ALWAYS_SENSITIVE", "TRUE"),
            ("CKA_EXTRACTABLE", "FALSE"),
            ("CKA_NEVER_EXTRACTABLE", "TRUE"),
            ("CKA_PRIVATE", "TRUE"),
        ] {
            let after = key.split(attribute).nth(1).unwrap_or_default();
            let said = after.split("CKA_").next().unwrap_or_default();
            assert!(said.contains(value), "{attribute} is not {value} in\n{key}");
        }
    }
}

#[test]
fn keys_are_made_and_replaced_in_the_token_and_never_leave_it() {
    for key_type in ["rs256-2048", "es256"] {
        let (hsm, etcd) = (SoftHsm::start(), Etcd::start());
        let mut signer = signer(&hsm, &format!("key_type: {key_type}"));
        signer.restart();
        let server = started(&signer, &etcd);
        let (first, second) = (signer.signing(), signer.standby());
        signer.order(&first);
        let mut tokens = vec![token(&server)];
        signer.order(&second);
        tokens.push(token(&server));
        let third = signer.standby();
        are_locked_in(&hsm, 3);

        signer.kill();
        signer.restart();
        assert_eq!((signer.signing(), signer.standby()), (second.clone(), third), "it has the same keys");
        tokens.push(token(&server));
        for token in &tokens {
            assert!(is_accepted(&server, token));
        }
        assert_eq!(private_files(&signer.keys()), [] as [PathBuf; 0]);

        signer.revoke(&first);
        eventually("it is destroyed in the token", || (hsm.private_keys().len() == 2).then_some(()));
        assert!(!signer.running().stderr().contains(PIN));
    }
}

#[test]
fn a_token_that_is_taken_out_stops_signatures_alone_and_is_used_again_when_it_is_back() {
    let (hsm, etcd) = (SoftHsm::start(), Etcd::start());
    let mut signer = signer(&hsm, "");
    signer.restart();
    let server = started(&signer, &etcd);
    let first = signer.signing();
    signer.standby();
    signer.order(&first);
    let before = token(&server);

    hsm.take_out();
    let refused = request(&server).expect_status(500).text();
    assert!(refused.contains("cannot sign"), "{refused}");
    for secret in ["PKCS", "CKR", LABEL, "pin", first.as_str()] {
        assert!(!refused.contains(secret), "{refused} says `{secret}`");
    }
    assert!(is_accepted(&server, &before), "public keys are in memory");
    hsm.put_back();
    let (after, _) = eventually("it signs again, with no restart", || {
        let answer = request(&server);
        (answer.status == 201).then(|| answer.json()["status"]["token"].as_str().expect("a token").to_owned())
    });
    assert!(is_accepted(&server, &after));
    let log = signer.running().stderr();
    assert_eq!(log.matches("token not signed").count(), 1, "{log}");
    assert!(log.contains("tokens are signed again") && !log.contains(PIN), "{log}");
}

#[test]
fn what_is_wrong_with_a_token_is_said_at_the_start() {
    let hsm = SoftHsm::start();
    let mut signer = signer(&hsm, "");
    let refused = |signer: &ExternalSigner, expected: &str, hint: &str| {
        let finished = signer.command().finish(AT_MOST).expect_code(2);
        assert!(finished.stderr.contains(expected), "{}", finished.stderr);
        assert!(finished.stderr.contains(&format!("hint: {hint}")), "{}", finished.stderr);
        assert!(!finished.stderr.contains(PIN), "{}", finished.stderr);
    };
    let softhsm = components::path("softhsm");
    let settings = |module: &Path, label: &str| SoftHsm::settings_with(module, label, &hsm.pin_file());

    signer.set(&settings(Path::new("/nowhere/library.so"), LABEL));
    refused(&signer, "cannot load the PKCS#11 module `/nowhere/library.so`", "install the library");
    signer.set(&settings(&softhsm, "other"));
    refused(&signer, "no PKCS#11 token has the label `other`, found `signpost`", "initialise the token");
    signer.set(&settings(&softhsm, LABEL));
    hsm.initialise(LABEL);
    refused(&signer, "2 PKCS#11 tokens have the label `signpost`, expected one", "give each token a label");

    let hsm = SoftHsm::start();
    signer.set(&hsm.settings());
    signer.set_environment("SOFTHSM2_CONF", hsm.config());
    hsm.write_pin("wrong");
    refused(&signer, "PKCS#11 token `signpost` refuses the PIN in `", "correct the file");
    hsm.write_pin("");
    refused(&signer, "holds no PIN", "write the PIN");
    hsm.write_pin(PIN);
    fs::set_permissions(hsm.pin_file(), Permissions::from_mode(0o644)).expect("it is ours");
    refused(&signer, "has mode 0644, expected 0600", "another user could have read");
    hsm.write_pin(PIN);
    signer.restart();
    assert_eq!(hsm.private_keys().len(), 2);
}

#[test]
fn a_pin_that_was_refused_is_not_tried_again() {
    let (hsm, etcd) = (SoftHsm::start(), Etcd::start());
    let mut signer = signer(&hsm, "");
    signer.restart();
    let server = started(&signer, &etcd);
    let first = signer.signing();
    signer.order(&first);
    hsm.take_out();
    hsm.write_pin("wrong");
    request(&server).expect_status(500);
    hsm.put_back();
    request(&server).expect_status(500);
    // Another attempt would succeed now; after a few wrong PINs a token locks itself.
    hsm.write_pin(PIN);
    for _ in 0..3 {
        request(&server).expect_status(500);
    }
    signer.kill();
    signer.restart();
    assert!(is_accepted(&server, &token(&server)));
}

#[test]
fn keys_in_files_go_on_until_keys_in_the_token_have_replaced_them() {
    let (hsm, etcd) = (SoftHsm::start(), Etcd::start());
    let mut signer = signer(&hsm, "");
    signer.set("");
    signer.restart();
    let server = started(&signer, &etcd);
    let (first, second) = (signer.signing(), signer.standby());
    signer.order(&first);
    let before = token(&server);

    signer.kill();
    signer.set(&hsm.settings());
    signer.restart();
    assert_eq!((signer.signing(), signer.standby()), (first, second.clone()));
    signer.order(&second);
    let third = signer.standby();
    are_locked_in(&hsm, 1);
    signer.order(&third);
    let after = token(&server);
    assert!(is_accepted(&server, &before) && is_accepted(&server, &after));
    assert_eq!(
        private_files(&signer.keys()).len(),
        2,
        "those that sign no more, until their last token is dead"
    );

    signer.kill();
    let key = KeyFiles::rsa(&signer.data_dir(), "sa");
    let finished = signer.import(&key.private).finish(AT_MOST).expect_code(2);
    assert!(finished.stderr.contains("generates its own keys"), "{}", finished.stderr);
}
