use std::collections::BTreeSet;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use openssl::{hash::MessageDigest, sign::Verifier};
use proptest::prelude::*;
use serde_json::json;

use super::{
    Certainty, Check, DocumentEvidence, Expectation, Level, Party, Question, Unanswered, VerificationOutcome,
    checks, credentials, judge,
};
use crate::core::jose::{
    jwk::tests::{KUBERNETES_EC, KUBERNETES_RSA},
    token::UnverifiedToken,
};

mod pairs;
mod pods;
mod requests;
mod scene;
mod shown;

use pairs::pairs;
use scene::{AUDIENCE, ISSUER, KEY, NOW, SUBJECT, Scene, credential, seconds};

fn broken(deed: fn(&mut Scene)) -> Scene {
    let mut scene = Scene::good();
    deed(&mut scene);
    scene
}

#[test]
fn every_check_has_a_pair_and_an_id_of_its_own() {
    let ids: BTreeSet<_> = checks().map(|check| check.id).collect();
    assert_eq!(checks().count(), ids.len(), "an id stands twice");
    assert_eq!(ids, pairs().map(|pair| pair.id).collect());
}

#[test]
fn a_token_that_is_right_in_everything_violates_nothing() {
    for party in Party::ALL {
        let mut scene = Scene::good();
        scene.party = party;
        scene.with_pod(|_| {});
        scene.with_sidecar(|_| {});
        let report = scene.judged();
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        assert_eq!(VerificationOutcome::Accepted, report.outcome);
    }
}

#[test]
fn every_rule_can_be_violated_and_is_then_told_with_a_fix() {
    for pair in pairs() {
        let report = broken(pair.trips).judged();
        let (id, seen) = (pair.id, pair.seen);
        let finding = report.findings.iter().find(|finding| finding.id == id);
        let finding = finding.unwrap_or_else(|| panic!("{id} does not see: {seen}\n{report:#?}"));
        assert!(finding.seen.contains(seen), "{id}: {}, expected {seen}", finding.seen);
        assert!(!finding.fix.is_empty() && !finding.expected.is_empty(), "{id}: {finding:?}");
        let check = checks().find(|check| check.id == id).expect("every pair has a check");
        assert_eq!(check.level, finding.level, "{id}");
        if check.level == Level::Error {
            assert_ne!(VerificationOutcome::Accepted, report.outcome, "{id}: {report:#?}");
        }
    }
}

#[test]
fn every_rule_spares_what_just_does_not_violate_it() {
    for pair in pairs() {
        let report = broken(pair.spares).judged();
        let finding = report.findings.iter().find(|finding| finding.id == pair.id);
        assert_eq!(None, finding, "before `{}`", pair.seen);
    }
}

/// A case without a violation is useful only if the rule could see it: with the same evidence, and for a
/// relying party that the rule concerns.
#[test]
fn every_rule_has_a_case_on_the_same_evidence_that_it_spares() {
    let spares = |check: &&Check| {
        pairs().filter(|pair| pair.id == check.id).any(|pair| {
            let (tripped, spared) = (broken(pair.trips), broken(pair.spares));
            check.parties.contains(&spared.party) && tripped.kinds_of_evidence() == spared.kinds_of_evidence()
        })
    };
    let unspared: Vec<_> = checks().filter(|check| !spares(check)).map(|check| check.id).collect();
    assert!(unspared.is_empty(), "{unspared:?}");
}

#[test]
fn codes_are_predicted_for_entra_alone_and_by_the_table() {
    for pair in pairs() {
        let report = broken(pair.trips).judged();
        for finding in &report.findings {
            let check = checks().find(|check| check.id == finding.id).expect("it is of the table");
            let codes = if report.party == Party::Entra { check.codes } else { &[] };
            assert_eq!(codes.is_empty(), finding.predicted_codes.is_empty(), "{}", finding.id);
            assert!(finding.predicted_codes.iter().all(|code| codes.contains(code)), "{}", finding.id);
        }
    }
    // Errors that Entra does not report itself: the pod sends no request, or anyone can sign.
    let silent = checks().filter(|check| check.level == Level::Error && check.codes.is_empty());
    let silent = silent.filter(|check| check.parties.contains(&Party::Entra)).map(|check| check.id);
    assert_eq!(vec!["POD-TENANT", "POD-EXP", "JWKS-PRIVATE"], silent.collect::<Vec<_>>());
}

#[test]
fn exactly_one_answer_is_the_likely_first_and_stands_first() {
    for pair in pairs() {
        let report = broken(pair.trips).judged();
        let marked = report.findings.iter().filter(|finding| finding.likely_first).count();
        let predicts = match report.party {
            Party::Entra
                if report.findings.first().is_some_and(|it| ["POD-TENANT", "POD-EXP"].contains(&it.id)) =>
            {
                false
            }
            Party::Entra => report.findings.iter().any(|finding| !finding.predicted_codes.is_empty()),
            _ => report.findings.iter().any(|finding| finding.level == Level::Error),
        };
        assert_eq!(usize::from(predicts), marked, "{}", pair.id);
        assert!(report.findings.first().is_none_or(|first| first.likely_first == predicts), "{}", pair.id);
    }
}

#[track_caller]
fn answers_first(deed: fn(&mut Scene), id: &str, code: u32) {
    let report = broken(deed).judged();
    let first = report.likely_first().expect("it is refused");
    assert_eq!((id, Some(&code)), (first.id, first.predicted_codes.first()), "{report:#?}");
}

/// The order of `docs/decisions/0008`.
#[test]
fn the_form_of_a_token_is_answered_before_its_credential_its_documents_its_key_and_its_time() {
    let wrong_in_all = |it: &mut Scene| {
        it.claims["exp"] = json!(NOW - 1);
        it.claims["sub"] = json!("somebody");
        it.claims["iss"] = json!("https://other.example");
        it.header["kid"] = json!("other");
        it.answers[0].status = 404;
    };
    let report = broken(wrong_in_all).judged();
    let ids: Vec<_> = report.findings.iter().map(|finding| finding.id).collect();
    assert_eq!(vec!["FIC-ISS", "FIC-SUB", "PUB-PATH", "JWKS-KID", "TOK-TIME", "TOK-LIFE"], ids);
    assert_eq!(VerificationOutcome::Refused, report.outcome);
    let too_long = |it: &mut Scene| {
        it.claims["exp"] = json!(NOW + 90_000);
        it.claims["aud"] = json!("other");
    };
    answers_first(too_long, "TOK-LONG", 70_023);

    answers_first(
        |it| (it.header["alg"], it.header["kid"]) = (json!("ES256"), json!(null)),
        "TOK-KID",
        5_002_723,
    );
    answers_first(|it| (it.claims["sub"], it.tampered) = (json!("a"), true), "FIC-SUB", 700_213);
    answers_first(|it| (it.claims["exp"], it.tampered) = (json!(NOW), true), "SIG", 7_000_274);
    answers_first(|it| it.claims["exp"] = json!(NOW), "TOK-TIME", 700_024);
}

#[test]
fn the_nearest_of_many_credentials_is_compared() {
    let mut scene = Scene::good();
    scene.expected = super::Expectation::default();
    let other = credential("https://other.example", "system:serviceaccount:other:app", "other");
    let near = credential(&format!("{ISSUER}/"), SUBJECT, AUDIENCE);
    scene.credentials = Some(vec![other, near]);
    let report = scene.judged();
    assert_eq!(vec!["FIC-SLASH"], report.findings.iter().map(|it| it.id).collect::<Vec<_>>());
}

/// The default issuer has a better fix than a comparison by character, and so has another host.
#[test]
fn an_issuer_that_is_another_altogether_is_not_compared_by_letters() {
    let issuer = |seen: &'static str| {
        let mut scene = Scene::good();
        scene.claims["iss"] = json!(seen);
        scene.judged()
    };
    let of =
        |report: &super::VerificationReport, id: &str| report.findings.iter().find(|it| it.id == id).cloned();
    let report = issuer("https://kubernetes.default.svc.cluster.local");
    assert_eq!(Some("TOK-ISS-DEFAULT"), report.likely_first().map(|first| first.id));
    assert_eq!(None, of(&report, "FIC-ISS").expect("it differs").difference);
    let report = issuer("https://oidc.eks.eu-west-1.amazonaws.com/id/ABC");
    let finding = report.likely_first().expect("it is refused");
    assert_eq!(("FIC-ISS", &None), (finding.id, &finding.difference));
    assert!(finding.seen.ends_with("another issuer altogether"), "{}", finding.seen);
    for near in
        ["https://k8s.exemple/cluster-a", "https://k8.example/cluster-a", "https://k8s.example/cluster-b"]
    {
        let finding = of(&issuer(near), "FIC-ISS").expect("it differs");
        assert!(finding.difference.is_some(), "{near}: {}", finding.seen);
    }
}

#[test]
fn credentials_are_read_as_every_tool_of_microsoft_prints_them() {
    let plain = json!({"name": "a", "issuer": ISSUER, "subject": SUBJECT, "audiences": [AUDIENCE]});
    let flexible = json!({"name": "f", "issuer": ISSUER, "subject": null, "audiences": [AUDIENCE],
        "claimsMatchingExpression": {"value": "x", "languageVersion": 1}});
    let graph = json!({"@odata.context": "x", "value": [plain, flexible]});
    let resource_manager = json!({"value": [{"id": "/x", "name": "a", "type": "y",
        "properties": {"issuer": ISSUER, "subject": SUBJECT, "audiences": [AUDIENCE]}}]});
    let read = |value: &serde_json::Value| credentials(value.to_string().as_bytes()).expect("credentials");
    assert_eq!(read(&json!([plain, flexible])), read(&graph));
    assert_eq!(read(&graph)[..1], read(&resource_manager)[..]);
    for one in [&plain, &resource_manager["value"][0]] {
        assert_eq!(read(&graph)[..1], read(one)[..], "as `az … show` prints it");
    }
    assert!(read(&graph)[1].expression.is_some());
    for wrong in ["{}", "[1]", "[", r#"[{"issuer":"x"}]"#] {
        credentials(wrong.as_bytes()).expect_err(wrong);
    }
}

#[test]
fn without_the_published_key_nothing_is_accepted_and_nothing_is_refused() {
    let scene = Scene::good();
    let (mut evidence, question) = (scene.evidence(), scene.question());
    evidence.discovery = DocumentEvidence::NotSought;
    assert_eq!(
        VerificationOutcome::Accepted,
        judge(&evidence, &question).outcome,
        "offline the JWKS is enough"
    );
    evidence.jwks = DocumentEvidence::NotSought;
    assert_eq!(
        VerificationOutcome::Unknown,
        judge(&evidence, &question).outcome,
        "nobody has verified the signature"
    );
}

#[test]
fn an_issuer_is_judged_without_a_token() {
    let mut scene = Scene::good();
    scene.expected = Expectation { issuer: scene.expected.issuer, ..Expectation::default() };
    let mut evidence = scene.evidence();
    evidence.token = None;
    let report = judge(&evidence, &scene.question());
    assert_eq!((VerificationOutcome::Accepted, 0), (report.outcome, report.findings.len()), "{report:#?}");
    scene.jwks = json!({"keys": []});
    let mut evidence = scene.evidence();
    evidence.token = None;
    assert_eq!(VerificationOutcome::Refused, judge(&evidence, &scene.question()).outcome, "without any key");
}

/// Subject, audience, credentials and pods are compared with a token or with nothing.
#[test]
fn nothing_is_accepted_where_a_token_is_asked_about_and_there_is_none() {
    let mut scene = Scene::good();
    let only = Expectation { issuer: scene.expected.issuer, ..Expectation::default() };
    scene.expected = only.clone();
    let judged = |scene: &Scene| {
        let mut evidence = scene.evidence();
        evidence.token = None;
        judge(&evidence, &scene.question()).outcome
    };
    assert_eq!(VerificationOutcome::Accepted, judged(&scene));
    scene.expected = Expectation { subject: Some(SUBJECT.to_owned()), ..only.clone() };
    assert_eq!(VerificationOutcome::Unknown, judged(&scene));
    scene.expected = Expectation { audience: Some(AUDIENCE.to_owned()), ..only.clone() };
    assert_eq!(VerificationOutcome::Unknown, judged(&scene));
    scene.expected = only;
    scene.credentials = Some(vec![credential(ISSUER, SUBJECT, AUDIENCE)]);
    assert_eq!(VerificationOutcome::Unknown, judged(&scene));
    scene.credentials = None;
    _ = scene.annotated(&json!({}));
    assert_eq!(VerificationOutcome::Unknown, judged(&scene));
}

/// A provider of Google with an uploaded JWKS reads nothing from the issuer.
#[test]
fn google_takes_any_issuer_with_an_uploaded_jwks() {
    let inside = |it: &mut Scene| {
        it.party = Party::Gcp;
        it.move_to("https://kubernetes.default.svc.cluster.local");
    };
    let mut scene = broken(inside);
    scene.offline = true;
    assert_eq!((VerificationOutcome::Accepted, 0), (scene.judged().outcome, scene.judged().findings.len()));
    scene.party = Party::Entra;
    assert_eq!(VerificationOutcome::Refused, scene.judged().outcome);
    scene.party = Party::Gcp;
    scene.tampered = true;
    assert_eq!(VerificationOutcome::Refused, scene.judged().outcome, "it verifies with the uploaded one");
    scene.move_to("http://k8s.example");
    scene.tampered = false;
    assert_eq!(VerificationOutcome::Refused, scene.judged().outcome, "it takes https alone");

    for deed in [
        inside,
        |it: &mut Scene| {
            it.party = Party::Gcp;
            it.move_to("https://10.0.0.1");
        },
        |it: &mut Scene| {
            it.party = Party::Gcp;
            it.answers[0].status = 404;
        },
        |it: &mut Scene| {
            it.party = Party::Gcp;
            let tls = Unanswered::Tls { reason: "self-signed certificate".to_owned(), thumbprint: None };
            it.unanswered = Some(tls);
        },
    ] {
        let report = broken(deed).judged();
        assert_eq!(VerificationOutcome::Unknown, report.outcome, "{report:#?}");
        let errors = report.findings.iter().filter(|it| it.level == Level::Error);
        for finding in errors {
            let unless = finding.unless.as_deref();
            assert_eq!(Some("the provider has an uploaded JWKS"), unless, "{}", finding.id);
            assert!(finding.fix.contains("--jwk-json-path"), "{}: {}", finding.id, finding.fix);
        }
    }
}

#[test]
fn aws_may_know_an_authority_by_its_thumbprint() {
    let thumbprint = Some("9e99a48a9960b14926bb7f3b02e22da2b0ab7280".to_owned());
    let mut scene = Scene::good();
    scene.unanswered = Some(Unanswered::Tls { reason: "self-signed certificate".to_owned(), thumbprint });
    for (party, outcome) in [
        (Party::Aws, VerificationOutcome::Unknown),
        (Party::Entra, VerificationOutcome::Refused),
        (Party::Local, VerificationOutcome::Refused),
    ] {
        scene.party = party;
        let report = scene.judged();
        assert_eq!(outcome, report.outcome, "{report:#?}");
        let finding = report.findings.iter().find(|it| it.id == "PUB-TLS").expect("it is not trusted");
        let unless =
            (party == Party::Aws).then_some("IAM has thumbprint `9e99a48a9960b14926bb7f3b02e22da2b0ab7280`");
        assert_eq!(unless, finding.unless.as_deref());
    }
}

/// No fix makes kube-apiserver drop the issuer or the key of tokens in running pods.
#[test]
fn no_advice_locks_running_pods_out() {
    for pair in pairs() {
        for finding in broken(pair.trips).judged().findings {
            let (id, fix) = (finding.id, &finding.fix);
            if fix.contains("key to sign with") || fix.contains("sign with a larger key") {
                assert!(fix.contains("keep the public half of the old one"), "{id}: {fix}");
            } else if fix.contains("give kube-apiserver") {
                assert!(fix.contains("keep the old one as the second"), "{id}: {fix}");
            }
            assert!(!fix.contains("start kube-apiserver"), "{id}: {fix}");
        }
    }
}

#[test]
fn an_issuer_that_does_not_answer_is_no_verdict_unless_something_else_is_one() {
    let mut scene = Scene::good();
    scene.unanswered = Some(Unanswered::NoConnection { reason: "refused".to_owned() });
    assert_eq!(VerificationOutcome::Unknown, scene.judged().outcome);
    scene.claims["exp"] = json!(NOW);
    assert_eq!(VerificationOutcome::Refused, scene.judged().outcome);
    let mut scene = Scene::good();
    scene.unanswered = Some(Unanswered::Tls { reason: "self-signed".to_owned(), thumbprint: None });
    assert_eq!(VerificationOutcome::Refused, scene.judged().outcome);
}

#[test]
fn time_alone_cures_what_is_on_its_way() {
    assert!(broken(|it| it.answers[0].status = 404).judged().is_retryable());
    assert!(broken(|it| it.header["kid"] = json!("new")).judged().is_retryable());
    assert!(!broken(|it| it.claims["exp"] = json!(NOW)).judged().is_retryable());
}

#[test]
fn every_code_is_in_one_row_of_certainty_with_its_source() {
    for check in checks() {
        assert!(!check.basis.source.is_empty() && !check.rule.is_empty(), "{}", check.id);
        assert!(!check.parties.is_empty(), "{}", check.id);
        assert!(check.rule.chars().next().is_some_and(|first| !first.is_uppercase()), "{}", check.id);
        assert!(!check.rule.contains('|'), "{}: a cell of a table", check.id);
    }
    let documented = checks().filter(|check| check.basis.certainty == Certainty::Documented).count();
    assert!(documented > 20, "{documented}");
}

/// Whether OpenSSL, used directly, verifies our key's signature on the token.
fn signed_by_us(token: &str) -> bool {
    let Some((input, signature)) = token.rsplit_once('.') else { return false };
    let Ok(signature) = Base64UrlUnpadded::decode_vec(signature) else { return false };
    let mut verifier = Verifier::new(MessageDigest::sha256(), &KEY).expect("RS256");
    verifier.verify_oneshot(&signature, input.as_bytes()).unwrap_or(false)
}

/// Mostly the right text, else one byte of it changed, or something else.
fn near(text: String) -> impl Strategy<Value = Vec<u8>> {
    let bytes = text.into_bytes();
    let changed = (Just(bytes.clone()), any::<prop::sample::Index>(), any::<u8>());
    prop_oneof![
        4 => Just(bytes),
        3 => changed.prop_map(|(mut bytes, index, byte)| {
            let index = index.index(bytes.len());
            bytes[index] = byte;
            bytes
        }),
        1 => prop::collection::vec(any::<u8>(), 0..64),
        1 => prop::sample::select(vec![KUBERNETES_RSA, KUBERNETES_EC, "{}", "[]", "null", r#"{"keys":[[]]}"#])
            .prop_map(|text| text.as_bytes().to_vec()),
    ]
}

fn document(text: String) -> impl Strategy<Value = DocumentEvidence> {
    let good = Scene::good().answers[0].clone();
    let answer = move |(bytes, status, content_type)| {
        DocumentEvidence::Answer(Box::new(super::HttpResponse {
            status,
            content_type,
            bytes,
            ..good.clone()
        }))
    };
    prop_oneof![
        6 => (near(text.clone()), prop_oneof![4 => Just(200), 1 => any::<u16>()], any::<Option<String>>())
            .prop_map(answer),
        2 => near(text).prop_map(|bytes| DocumentEvidence::File { path: "x".to_owned(), bytes }),
        1 => Just(DocumentEvidence::NotSought),
    ]
}

proptest! {
    #[test]
    fn only_what_our_key_signed_is_accepted(
        token in near(Scene::good().token()),
        discovery in document(Scene::good().discovery.to_string()),
        jwks in document(Scene::good().jwks.to_string()),
        late in prop_oneof![3 => Just(0_i64), 1 => -10_000_i64..10_000],
        party in prop::sample::select(Party::ALL.to_vec()),
    ) {
        let text = String::from_utf8_lossy(&token);
        let scene = Scene::good();
        let mut evidence = scene.evidence();
        evidence.token = Some(UnverifiedToken::parse(&text));
        (evidence.discovery, evidence.jwks, evidence.now) = (discovery, jwks, seconds(NOW + late));
        let question = Question { party, ..scene.question() };
        if judge(&evidence, &question).outcome == VerificationOutcome::Accepted {
            prop_assert!(signed_by_us(&text));
            prop_assert!((-360..3540).contains(&late));
        }
    }

    /// A user who may create pods and ConfigMaps controls their contents.
    #[test]
    fn whatever_a_pod_and_its_settings_say_is_judged(
        names in prop::collection::vec(setting(), 0..6),
        values in prop::collection::vec(value(), 6),
        labels in prop::collection::btree_map(label(), value(), 0..4),
        mounted in value(),
        party in prop::sample::select(Party::ALL.to_vec()),
    ) {
        let mut scene = Scene::good();
        scene.party = party;
        scene.with_pod(|pod| {
            let variables = names.iter().zip(&values);
            let variables: Vec<_> = variables.map(|(name, value)| json!({"name": name, "value": value})).collect();
            pod["spec"]["containers"][0]["env"] = json!(variables);
            pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] = json!(mounted);
            pod["metadata"]["labels"] = json!(labels);
            pod["metadata"]["annotations"] = json!(labels);
        });
        let report = scene.judged();
        let is_error = report.findings.iter().any(|finding| finding.level == Level::Error);
        prop_assert_eq!(is_error, report.outcome != VerificationOutcome::Accepted, "{:?}", report.findings);
    }
}

fn setting() -> impl Strategy<Value = String> {
    let known = ["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_AUTHORITY_HOST", "AZURE_FEDERATED_TOKEN_FILE"];
    let member = prop::sample::select(vec!["__SourceType", "__SignedAssertionFileDiskPath", "", "__"]);
    prop_oneof![
        prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        ("[0-2]|x|99999999999999999999", member)
            .prop_map(|(index, member)| format!("AzureAd__ClientCredentials__{index}{member}")),
    ]
}

fn label() -> impl Strategy<Value = String> {
    let known = ["use", "client-id", "skip-containers", "service-account-token-expiration"];
    prop::sample::select(known.to_vec()).prop_map(|name| format!("azure.workload.identity/{name}"))
}

fn value() -> impl Strategy<Value = String> {
    let known =
        ["true", "", "3600", "SignedAssertionFilePath", "ClientSecret", scene::TOKEN_FILE, scene::CLIENT];
    prop_oneof![3 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => ".{0,8}"]
}
