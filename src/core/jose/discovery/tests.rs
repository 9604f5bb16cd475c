use super::{DiscoveryDocument, ReceivedDiscovery};
use crate::core::jose::{
    issuer::Issuer,
    jwk::tests::{KUBERNETES_EC, KUBERNETES_RSA, read},
    jwk_set::JwkSet,
};

/// The output of `kube-apiserver`, from Kubernetes' own tests (`openidmetadata_test.go`).
const KUBERNETES: &str = r#"{"issuer":"https://issuer.example.com","jwks_uri":"https://issuer.example.com/openid/v1/jwks","response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256","RS256"]}"#;

fn document(keys: &[&str]) -> String {
    let issuer = Issuer::parse("https://issuer.example.com").expect("an issuer");
    let keys = JwkSet::new(keys.iter().map(|key| read(key))).expect("a set");
    let bytes = DiscoveryDocument::new(&issuer, &issuer.jwks_uri(), &keys).to_json();
    String::from_utf8(bytes).expect("JSON is text")
}

#[test]
fn the_document_has_the_bytes_that_kubernetes_serves() {
    assert_eq!(KUBERNETES, document(&[KUBERNETES_RSA, KUBERNETES_EC]));
}

#[test]
fn the_algorithms_are_those_of_the_keys() {
    let document = document(&[KUBERNETES_RSA]);
    assert!(document.ends_with(r#""id_token_signing_alg_values_supported":["RS256"]}"#), "{document}");
}

#[test]
fn a_document_of_others_keeps_what_matters_byte_for_byte() {
    let received = ReceivedDiscovery::parse(KUBERNETES.as_bytes()).expect("a document");
    assert_eq!("https://issuer.example.com", received.issuer);
    assert_eq!("https://issuer.example.com/openid/v1/jwks", received.jwks_uri);
    assert_eq!(["ES256", "RS256"].as_slice(), received.id_token_signing_alg_values_supported);
    assert_eq!(None, received.authorization_endpoint);
    let minimal = r#"{"issuer":"https://X.example/","jwks_uri":"j","authorization_endpoint":"","more":1}"#;
    let received = ReceivedDiscovery::parse(minimal.as_bytes()).expect("a document");
    assert_eq!("https://X.example/", received.issuer);
    assert_eq!(Some(String::new()), received.authorization_endpoint);
}

#[test]
fn what_lacks_issuer_or_jwks_uri_is_no_discovery_document() {
    for (text, reason) in [
        ("<html>", "not a discovery document: expected value at line 1 column 1"),
        (r#"{"issuer":"x"}"#, "not a discovery document: missing field `jwks_uri` at line 1 column 14"),
        (
            r#"{"a":[{"b":1,"b":2}]}"#,
            "not a discovery document: member `b` is duplicated at line 1 column 19",
        ),
        (r#"{"jwks_uri":"x"}"#, "not a discovery document: missing field `issuer` at line 1 column 16"),
    ] {
        let refusal = ReceivedDiscovery::parse(text.as_bytes()).expect_err(text);
        assert_eq!(reason, refusal.to_string());
    }
}
