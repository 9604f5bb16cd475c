//! What surrounds a request decides which rules apply.

use serde_json::json;

use super::scene::{AUDIENCE, CLIENT, Scene, TENANT};
use crate::core::{
    entra::encoded_guid,
    verification::{Expectation, VerificationOutcome, VerificationReport},
};

const BLUEPRINT: &str = "44444444-4444-4444-8444-444444444444";
const SCOPES_OF_GO: &str = "https://graph.microsoft.com/.default openid offline_access profile";

fn ids(report: &VerificationReport) -> Vec<&'static str> {
    report.findings.iter().map(|finding| finding.id).filter(|id| *id != "JWKS-KIDHASH").collect()
}

/// The second step of an agent: the token that its blueprint got for it.
fn second_step() -> Scene {
    let mut scene = Scene::good();
    let [tenant, blueprint] = [TENANT, BLUEPRINT].map(|id| encoded_guid(id).expect("a GUID"));
    scene.entra(&format!("/eid1/c/pub/t/{tenant}/a/{blueprint}/{CLIENT}"));
    scene.claims["aud"] = json!(crate::core::entra::TOKEN_EXCHANGE);
    scene.expected = Expectation::default();
    scene.asks(&[]);
    scene.is(json!({"@odata.type": "#microsoft.graph.agentIdentity", "id": CLIENT, "agentIdentityBlueprintId": BLUEPRINT}));
    scene
}

#[test]
fn a_token_of_entra_need_not_be_of_a_service_account() {
    let report = second_step().judged();
    assert_eq!((ids(&report), report.outcome), (Vec::new(), VerificationOutcome::Accepted), "{report:#?}");
}

#[test]
fn an_agent_identity_has_no_credentials_and_needs_none() {
    let mut scene = second_step();
    scene.credentials = Some(Vec::new());
    assert_eq!(scene.judged().outcome, VerificationOutcome::Accepted);
}

/// azidentity 1.15.0, msal-go 1.10.1 and msal4j 1.26.1 send them for applications too.
#[test]
fn scopes_of_openid_behind_that_of_a_resource_are_fine() {
    let mut scene = Scene::good();
    scene.asks(&[("scope", SCOPES_OF_GO)]);
    assert_eq!(scene.judged().outcome, VerificationOutcome::Accepted);
    scene.asks(&[("scope", "https://graph.microsoft.com/.default https://vault.azure.net/.default")]);
    let report = scene.judged();
    assert_eq!(report.likely_first().map(|it| it.predicted_codes), Some(&[70_011][..]), "{report:#?}");
    scene.asks(&[("scope", "openid profile")]);
    assert_eq!(ids(&scene.judged()), ["REQ-SCOPE"], "they are of no resource");
}

#[test]
fn an_assertion_without_its_type_is_none() {
    let mut scene = Scene::good();
    scene.asks(&[("client_assertion_type", "")]);
    assert_eq!(ids(&scene.judged()), ["REQ-PROOF"]);
}

#[test]
fn a_secret_is_compared_with_no_credential() {
    let mut scene = Scene::good();
    scene.expected = Expectation::default();
    scene.credentials = Some(Vec::new());
    scene.asks(&[("client_assertion", ""), ("client_secret", "x")]);
    assert_eq!(ids(&scene.judged()), ["REQ-SECRET"]);
}

/// An older `az` shows neither the subject nor the expression of a flexible credential.
#[test]
fn a_credential_of_which_nothing_is_shown_is_no_acceptance() {
    let mut scene = Scene::good();
    let mut credential = super::scene::credential(super::scene::ISSUER, "", AUDIENCE);
    credential.subject = None;
    scene.expected = Expectation::default();
    scene.credentials = Some(vec![credential]);
    let report = scene.judged();
    assert_eq!(
        (ids(&report), report.outcome),
        (vec!["FIC-EXPR"], VerificationOutcome::Unknown),
        "{report:#?}"
    );
}

#[test]
fn what_stands_in_place_of_a_grant_by_mistake_is_not_repeated() {
    let mut scene = Scene::good();
    scene.asks(&[("grant_type", "Hidden~Secret.42")]);
    assert!(!format!("{:?}", scene.judged()).contains("Hidden"));
}
