use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::{Statement, claims};
use crate::core::{jose::issuer::Issuer, service_account::ServiceAccount};

#[test]
fn claims_have_the_shape_that_kubernetes_gives_them() {
    let statement = Statement {
        issuer: &Issuer::parse("https://k8s.example").expect("an issuer"),
        subject: &ServiceAccount::new("team-a", "builder").expect("a service account"),
        uid: "2c3b",
        audiences: &["api://AzureADTokenExchange".to_owned()],
        now: Timestamp::from_second(1_800_000_000).expect("in range"),
        lifetime: Duration::from_secs(30),
        jti: "7f",
    };
    let expected = json!({
        "aud": ["api://AzureADTokenExchange"],
        "exp": 1_800_000_030,
        "iat": 1_800_000_000,
        "iss": "https://k8s.example",
        "jti": "7f",
        "kubernetes.io": {
            "namespace": "team-a",
            "serviceaccount": { "name": "builder", "uid": "2c3b" },
        },
        "nbf": 1_800_000_000,
        "sub": "system:serviceaccount:team-a:builder",
    });
    assert_eq!(expected, claims(&statement));
}
