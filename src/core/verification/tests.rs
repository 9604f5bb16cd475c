use std::{collections::BTreeSet, sync::LazyLock};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use jiff::Timestamp;
use openssl::{
    hash::MessageDigest,
    pkey::{PKey, Private},
    rsa::Rsa,
    sign::{Signer, Verifier},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{CHECKS, Certainty, Evidence, Exhibit, Finding, Level, accepted, judge};
use crate::core::{
    issuer::Issuer,
    jwk::{
        Jwk,
        tests::{KUBERNETES_EC, KUBERNETES_RSA},
    },
    public_key::PublicKey,
    token::UnverifiedToken,
};

const ISSUER: &str = "https://k8s.example/cluster-a";
const AUDIENCE: &str = "api://AzureADTokenExchange";
const SUBJECT: &str = "system:serviceaccount:team:app";
const NOW: i64 = 1_800_000_000;

static KEY: LazyLock<PKey<Private>> =
    LazyLock::new(|| Rsa::generate(2048).and_then(PKey::from_rsa).expect("OpenSSL makes RSA keys"));

fn published_key() -> Jwk {
    let spki = KEY.public_key_to_der().expect("a public key has DER");
    Jwk::of_public_key(PublicKey::from_spki(&spki).expect("a supported key"))
}

/// What a relying party meets, as it should be; a case breaks one thing of it.
struct Scene {
    header: Value,
    claims: Value,
    /// In place of the token that header and claims make.
    token: Option<String>,
    issuer: Option<&'static str>,
    discovery: Value,
    jwks: Value,
    /// Of the answers for discovery and JWKS.
    status: [u16; 2],
    content_type: Option<&'static str>,
    tampered: bool,
}

impl Scene {
    fn good() -> Self {
        let key = published_key();
        Self {
            header: json!({"alg": "RS256", "kid": key.kid()}),
            claims: json!({
                "iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE],
                "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 3540,
            }),
            token: None,
            issuer: Some(ISSUER),
            discovery: json!({
                "issuer": ISSUER,
                "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }),
            jwks: json!({"keys": [key]}),
            status: [200, 200],
            content_type: Some("application/json; charset=utf-8"),
            tampered: false,
        }
    }

    fn token(&self) -> String {
        if let Some(token) = &self.token {
            return token.clone();
        }
        let encode = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
        let input = format!("{}.{}", encode(&self.header), encode(&self.claims));
        let mut signer = Signer::new(MessageDigest::sha256(), &KEY).expect("RS256");
        let mut signature = signer.sign_oneshot_to_vec(input.as_bytes()).expect("it is an RSA key");
        signature[0] ^= u8::from(self.tampered);
        format!("{input}.{}", Base64UrlUnpadded::encode_string(&signature))
    }

    fn evidence(&self) -> Evidence {
        let answer = |name: &str, status, document: &Value| Exhibit::Answer {
            url: format!("{ISSUER}/{name}"),
            status,
            content_type: self.content_type.map(str::to_owned),
            bytes: document.as_str().map_or_else(|| document.to_string(), str::to_owned).into_bytes(),
        };
        Evidence {
            token: UnverifiedToken::parse(&self.token()),
            issuer: self.issuer.map(|issuer| Issuer::parse(issuer).expect("an issuer")),
            audience: Some(AUDIENCE.to_owned()),
            subject: Some(SUBJECT.to_owned()),
            discovery: answer("discovery", self.status[0], &self.discovery),
            jwks: answer("jwks", self.status[1], &self.jwks),
            now: Timestamp::from_second(NOW).expect("a time"),
        }
    }

    fn judged(&self) -> Vec<Finding> {
        judge(&self.evidence())
    }
}

/// A way to break one rule: the check that must see it, the deed, and what is said of it.
type Case = (&'static str, fn(&mut Scene), &'static str);

const CASES: &[Case] = &[
    ("TOK-JWS", |it| it.token = Some(String::new()), "the token is empty"),
    ("TOK-JWS", |it| it.token = Some("a".to_owned()), "has 1 part, expected 3"),
    ("TOK-JWS", |it| it.token = Some(format!("\"{}\"", it.token())), "has quotation marks around it"),
    ("TOK-JWS", |it| it.token = Some(format!("Bearer {}", it.token())), "the word `Bearer` around it"),
    ("TOK-JWS", |it| it.token = Some(format!("{}\n", it.token())), "has white space around it"),
    ("TOK-JWS", |it| it.token = Some("a+b.c.d".to_owned()), "is not base64url without padding"),
    ("TOK-ALG", |it| it.header["alg"] = json!("ES256"), "signed with `ES256`"),
    ("TOK-ALG", |it| it.header["alg"] = json!("none"), "signed with `none`"),
    ("TOK-TYP", |it| it.header["typ"] = json!("at+jwt"), "header `typ` is `at+jwt`"),
    ("TOK-KID", |it| it.header["kid"] = Value::Null, "the header has no `kid`"),
    ("TOK-CLAIMS", |it| it.claims["exp"] = Value::Null, "has no `exp`"),
    ("TOK-CLAIMS", |it| it.claims["aud"] = json!([]), "has no `aud`"),
    (
        "TOK-ISS",
        |it| it.claims["iss"] = json!("https://other.example"),
        "expected `https://k8s.example/cluster-a`",
    ),
    ("TOK-ISS", |it| it.claims["iss"] = json!(format!("{ISSUER}/")), "differ in the final `/` alone"),
    ("TOK-ISS", |it| it.claims["iss"] = json!("kubernetes/serviceaccount"), "a legacy token from a Secret"),
    (
        "TOK-SUB",
        |it| it.claims["sub"] = json!("system:serviceaccount:Team:app"),
        "expected `system:serviceaccount:team:app`",
    ),
    (
        "TOK-AUD",
        |it| it.claims["aud"] = json!([AUDIENCE, "x"]),
        "expected `api://AzureADTokenExchange` alone",
    ),
    ("TOK-TIME", |it| it.claims["exp"] = json!(NOW), "expired"),
    ("TOK-TIME", |it| it.claims["nbf"] = json!(NOW + 60), "not valid for another"),
    ("TOK-LIFE", |it| it.claims["exp"] = json!(NOW + 86_400), "more than a day"),
    (
        "ISS-SYNTAX",
        |it| (it.issuer, it.claims["iss"]) = (None, json!("http://k8s.example")),
        "has scheme `http`",
    ),
    ("ISS-PUBLIC", |it| move_to(it, "https://kubernetes.default.svc"), "from inside alone"),
    ("ISS-PUBLIC", |it| move_to(it, "http://127.0.0.1:8080"), "from inside alone"),
    ("PUB-DISCOVERY", |it| it.status[0] = 404, "status 404, expected 200"),
    ("PUB-DISCOVERY", |it| it.status[0] = 301, "status 301, expected 200"),
    ("DISC-PARSE", |it| it.discovery = json!("<html>"), "not a discovery document"),
    (
        "DISC-ISS",
        |it| it.discovery["issuer"] = json!("https://other.example"),
        "names issuer `https://other.example`",
    ),
    (
        "DISC-FIELDS",
        |it| it.discovery["subject_types_supported"] = json!([]),
        "nothing in `subject_types_supported`",
    ),
    (
        "DISC-JWKSURI",
        |it| it.discovery["jwks_uri"] = json!("http://10.0.0.1/jwks"),
        "expected a public https URL",
    ),
    (
        "PUB-JWKS",
        |it| (it.status[1], it.jwks) = (409, json!("PublicAccessNotPermitted")),
        "forbids anonymous reading",
    ),
    ("PUB-CTYPE", |it| it.content_type = Some("text/html"), "has content type `text/html`"),
    ("JWKS-PARSE", |it| it.jwks = json!({"keys": []}), "an empty JWKS"),
    ("JWKS-PARSE", |it| it.jwks["keys"][0]["d"] = json!("AQ"), "private member `d`"),
    ("JWKS-USE", |it| it.jwks["keys"][0]["use"] = Value::Null, "has no `use`"),
    ("JWKS-KID", |it| it.header["kid"] = json!("other"), "kid `other` is not published"),
    ("SIG", |it| it.tampered = true, "does not verify"),
    (
        "SIG",
        |it| it.jwks["keys"][0]["alg"] = json!("RS512"),
        "the token says `RS256`, the published key is for `RS512`",
    ),
];

/// Takes away the members that a case has set to null.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// The same scene at another issuer, all the way through.
fn move_to(scene: &mut Scene, issuer: &'static str) {
    scene.issuer = Some(issuer);
    scene.claims["iss"] = json!(issuer);
    scene.discovery["issuer"] = json!(issuer);
}

fn broken(deed: fn(&mut Scene)) -> Scene {
    let mut scene = Scene::good();
    deed(&mut scene);
    for value in [&mut scene.header, &mut scene.claims, &mut scene.jwks] {
        without_nulls(value);
    }
    scene
}

#[test]
fn every_check_has_a_case_and_an_id_of_its_own() {
    let ids: BTreeSet<_> = CHECKS.iter().map(|check| check.id).collect();
    assert_eq!(CHECKS.len(), ids.len(), "an id stands twice");
    assert_eq!(ids, CASES.iter().map(|(id, ..)| *id).collect());
}

#[test]
fn a_token_that_is_right_in_everything_violates_nothing() {
    let findings = Scene::good().judged();
    let violated: Vec<_> = findings.iter().filter(|finding| !finding.holds).collect();
    assert!(violated.is_empty(), "{violated:#?}");
    assert!(accepted(&findings));
}

#[test]
fn every_rule_can_be_violated_and_is_then_told_with_a_fix() {
    for (id, deed, observed) in CASES {
        let findings = broken(*deed).judged();
        let finding = findings.iter().find(|finding| finding.id == *id && !finding.holds);
        let finding = finding.unwrap_or_else(|| panic!("{id} does not see: {observed}\n{findings:#?}"));
        assert!(finding.observed.contains(observed), "{id}: {}, expected {observed}", finding.observed);
        assert!(finding.fix.as_ref().is_some_and(|fix| !fix.is_empty()), "{id} has no fix");
        let check = CHECKS.iter().find(|check| check.id == *id).expect("every case has a check");
        assert_eq!((check.level, check.codes), (finding.level, finding.predicted_codes), "{id}");
        assert_eq!(check.level != Level::Error, accepted(&findings), "{id}: {findings:#?}");
    }
}

#[test]
fn codes_are_given_with_how_sure_they_are() {
    for check in CHECKS {
        assert!(check.level != Level::Error || !check.codes.is_empty(), "{} predicts nothing", check.id);
    }
    let findings = broken(|it| it.claims["exp"] = json!(NOW)).judged();
    let expired = findings.iter().find(|finding| finding.id == "TOK-TIME").expect("it applies");
    assert_eq!((&[700_024][..], Some(Certainty::Documented)), (expired.predicted_codes, expired.certainty));
}

#[test]
fn all_violations_are_told_at_once() {
    let findings = broken(|it| {
        it.claims["exp"] = json!(NOW - 1);
        it.claims["sub"] = json!("somebody");
        it.tampered = true;
        it.status[0] = 500;
    })
    .judged();
    let violated: Vec<_> = findings.iter().filter(|it| !it.holds).map(|it| it.id).collect();
    assert_eq!(vec!["TOK-SUB", "TOK-TIME", "PUB-DISCOVERY", "SIG"], violated);
}

#[test]
fn without_a_published_key_nothing_is_accepted() {
    let mut evidence = Scene::good().evidence();
    evidence.discovery = Exhibit::NotSought;
    assert!(accepted(&judge(&evidence)), "offline the JWKS is enough");
    evidence.jwks = Exhibit::NotSought;
    assert!(!accepted(&judge(&evidence)), "nobody has verified the signature");
}

/// Whether OpenSSL, asked directly, finds our key's signature on the token.
fn signed_by_us(token: &str) -> bool {
    let Some((input, signature)) = token.rsplit_once('.') else { return false };
    let Ok(signature) = Base64UrlUnpadded::decode_vec(signature) else { return false };
    let mut verifier = Verifier::new(MessageDigest::sha256(), &KEY).expect("RS256");
    verifier.verify_oneshot(&signature, input.as_bytes()).unwrap_or(false)
}

/// Mostly the right text, else one byte of it changed, or something else altogether.
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

fn exhibit(text: String) -> impl Strategy<Value = Exhibit> {
    let answer = |(bytes, status, content_type)| Exhibit::Answer {
        url: "https://k8s.example/x".to_owned(),
        status,
        content_type,
        bytes,
    };
    prop_oneof![
        6 => (near(text.clone()), prop_oneof![4 => Just(200), 1 => any::<u16>()], any::<Option<String>>())
            .prop_map(answer),
        2 => near(text).prop_map(|bytes| Exhibit::File { path: "x".to_owned(), bytes }),
        1 => Just(Exhibit::NotSought),
    ]
}

proptest! {
    #[test]
    fn only_what_our_key_signed_is_accepted(
        token in near(Scene::good().token()),
        discovery in exhibit(Scene::good().discovery.to_string()),
        jwks in exhibit(Scene::good().jwks.to_string()),
        seconds in prop_oneof![3 => Just(0_i64), 1 => -10_000_i64..10_000],
    ) {
        let text = String::from_utf8_lossy(&token);
        let now = Timestamp::from_second(NOW + seconds).expect("near now");
        let evidence = Evidence { token: UnverifiedToken::parse(&text), discovery, jwks, now, ..Scene::good().evidence() };
        if accepted(&judge(&evidence)) {
            prop_assert!(signed_by_us(&text));
            prop_assert!((-60..3540).contains(&seconds));
        }
    }
}
