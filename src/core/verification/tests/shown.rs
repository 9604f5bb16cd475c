//! What a report shows of the evidence.

use serde_json::json;

use super::scene::Scene;
use crate::core::verification::{Credential, Expectation};

#[test]
fn no_password_of_the_evidence_is_shown_and_nothing_without_end() {
    let told = |change: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::good();
        change(&mut scene);
        serde_json::to_string(&scene.judged()).expect("JSON")
    };
    let secret = "https://user:hunter2@k8s.example/cluster-a";
    let long = format!("https://k8s.example/{}", "a".repeat(10_000));
    let credential = |issuer: &str| Credential {
        name: "credential".to_owned(),
        issuer: issuer.to_owned(),
        subject: Some(issuer.to_owned()),
        audiences: vec![issuer.to_owned()],
        expression: None,
        created: None,
    };
    for value in [secret, "https://user:hunter2@elsewhere.example", &long] {
        let changes: [&dyn Fn(&mut Scene); 5] = [
            &|scene| {
                scene.expected = Expectation::default();
                scene.credentials = Some(vec![credential(value)]);
            },
            &|scene| scene.expected.issuer = Some(value.to_owned()),
            &|scene| {
                (scene.claims["iss"], scene.claims["sub"]) = (json!(value), json!(value));
                scene.claims["aud"] = json!([value, value]);
            },
            &|scene| {
                (scene.discovery["issuer"], scene.discovery["jwks_uri"]) = (json!(value), json!(value));
            },
            &|scene| scene.asks(&[("scope", value), ("client_id", value), ("grant_type", value)]),
        ];
        for (number, change) in changes.iter().enumerate() {
            let told = told(*change);
            assert!(!told.contains("hunter2"), "{number}: {told}");
            assert!(!told.contains(&"a".repeat(1000)), "{number}: {} bytes", told.len());
        }
    }
}
