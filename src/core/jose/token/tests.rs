use base64ct::{Base64UrlUnpadded, Encoding as _};
use jiff::Timestamp;

use super::{NotAToken, Token, UnverifiedToken};

const HEADER: &str = r#"{"alg":"RS256","kid":"key-1"}"#;
const CLAIMS: &str = r#"{"iss":"https://k8s.example","sub":"system:serviceaccount:a:b","aud":["x","y"],
    "exp":1800000600,"nbf":1800000000.75,"iat":1800000000,"other":{"deep":[1]}}"#;

fn token(header: &str, claims: &str) -> String {
    let encode = |text: &str| Base64UrlUnpadded::encode_string(text.as_bytes());
    format!("{}.{}.{}", encode(header), encode(claims), encode("signature"))
}

#[track_caller]
fn refuses(text: &str, reason: &NotAToken) {
    assert_eq!(Some(reason), UnverifiedToken::parse(text).err().as_ref());
}

#[test]
fn an_empty_key_id_names_no_key() {
    let read = UnverifiedToken::parse(&token(r#"{"alg":"RS256","kid":""}"#, CLAIMS)).map_err(|_| ());
    assert_eq!(read.map(|it| it.header().kid.clone()), Ok(None));
}

#[test]
fn a_token_is_read_in_full_without_being_believed() {
    let text = token(HEADER, CLAIMS);
    let read = UnverifiedToken::parse(&text).expect("well formed");
    assert_eq!("RS256", read.header().alg);
    assert_eq!(Some("key-1"), read.header().kid.as_ref().map(super::Kid::as_str));
    assert_eq!(None, read.header().typ);
    assert_eq!(Some("https://k8s.example"), read.issuer());
    assert_eq!(Some("a/b".to_owned()), read.service_account().map(|account| account.to_string()));
    assert_eq!(vec!["x", "y"], read.audiences());
    assert_eq!(Timestamp::from_second(1_800_000_600).ok(), read.expires_at());
    assert_eq!(Timestamp::from_second(1_800_000_000).ok(), read.not_before());
    assert_eq!(Timestamp::from_second(1_800_000_000).ok(), read.issued_at());
    assert!(read.claims().contains_key("other"));
    assert_eq!(b"signature", read.signature());
    assert_eq!(text.rsplit_once('.').expect("three parts").0.as_bytes(), read.signing_input());
}

#[test]
fn an_audience_may_stand_alone() {
    let read = UnverifiedToken::parse(&token(HEADER, r#"{"aud":"x"}"#)).expect("well formed");
    assert_eq!(vec!["x"], read.audiences());
}

#[test]
fn a_claim_of_the_wrong_type_is_absent() {
    let claims = r#"{"iss":1,"sub":null,"aud":{"a":1},"exp":"soon","nbf":1e300}"#;
    let read = UnverifiedToken::parse(&token(HEADER, claims)).expect("well formed");
    assert_eq!((None, None), (read.issuer(), read.subject()));
    assert!(read.audiences().is_empty());
    assert_eq!((None, None), (read.expires_at(), read.not_before()));
}

#[test]
fn what_is_not_a_token_is_refused_with_the_reason() {
    let good = token(HEADER, CLAIMS);
    refuses("", &NotAToken::Empty);
    refuses(&format!("{good}\n"), &NotAToken::Surrounded { by: "white space" });
    refuses(&format!("\"{good}\""), &NotAToken::Surrounded { by: "quotation marks" });
    refuses(&format!("Bearer {good}"), &NotAToken::Surrounded { by: "the word `Bearer`" });
    refuses("a.b", &NotAToken::Parts { count: 2 });
    refuses("a.b.c.d.e", &NotAToken::Parts { count: 5 });
    refuses("!.e30.e30", &NotAToken::NotBase64Url { part: "header" });
    refuses(&format!("{good}="), &NotAToken::NotBase64Url { part: "signature" });
    refuses(&token("{", CLAIMS), &NotAToken::NotJson { part: "header" });
    refuses(&token(HEADER, "text"), &NotAToken::NotJson { part: "claims" });
    refuses(&token(HEADER, "[]"), &NotAToken::WrongMembers { part: "claims" });
    refuses(&token(r#"{"kid":"x"}"#, CLAIMS), &NotAToken::WrongMembers { part: "header" });
    refuses(&"a".repeat(20_001), &NotAToken::TooLong { length: 20_001 });
}

#[test]
fn a_token_does_not_show_in_debug_output() {
    assert_eq!("Token(<redacted>)", format!("{:?}", Token::new("secret".to_owned())));
}
