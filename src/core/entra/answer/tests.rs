use proptest::prelude::*;
use serde_json::json;

use super::*;

fn refusal(body: &serde_json::Value) -> Refusal {
    match TokenAnswer::parse(body.to_string().as_bytes()) {
        Some(TokenAnswer::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_is_read_and_never_shown() {
    let body = json!({"token_type": "Bearer", "expires_in": 3599, "access_token": "hidden", "refresh_token": "hidden"});
    let Some(answer @ TokenAnswer::Issued(Issued { refresh_token: Some(_), .. })) =
        TokenAnswer::parse(body.to_string().as_bytes())
    else {
        panic!("it is a token");
    };
    assert!(!format!("{answer:?}").contains("hidden"));
}

#[test]
fn an_error_is_read_without_its_ids_in_the_text() {
    let body = json!({
        "error": "invalid_client",
        "error_description": "AADSTS700213: No matching federated identity record found for presented assertion subject 'x'. Trace ID: t Correlation ID: c Timestamp: 2026-11-30 10:00:00Z",
        "error_codes": [700_213], "timestamp": "2026-11-30 10:00:00Z", "trace_id": "t", "correlation_id": "c",
        "error_uri": "https://login.microsoftonline.com/error?code=700213",
    });
    let refusal = refusal(&body);
    assert_eq!((refusal.code, refusal.error.as_str()), (700_213, "invalid_client"));
    assert_eq!(
        refusal.text,
        "No matching federated identity record found for presented assertion subject 'x'."
    );
    assert_eq!((refusal.trace_id.as_str(), refusal.correlation_id.as_str()), ("t", "c"));
}

#[test]
fn an_answer_of_somebody_else_is_none() {
    for body in [
        &json!({"message": "Forbidden"}),
        &json!({"error": "invalid_request", "error_description": "of another server"}),
        &json!({"access_token": ""}),
        &json!([]),
    ] {
        assert!(TokenAnswer::parse(body.to_string().as_bytes()).is_none(), "{body}");
    }
    assert!(TokenAnswer::parse(b"<html>").is_none());
}

#[test]
fn what_draws_on_a_terminal_is_spelt_out() {
    let body =
        json!({"error": "x", "error_description": "AADSTS50027: \u{1b}[31mred", "error_codes": [50_027]});
    assert!(!refusal(&body).text.contains('\u{1b}'));
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(TokenAnswer::parse(&body));
    }
}

/// A refusal with this code.
pub(crate) fn refused_by_entra(code: u32) -> ExchangeAnswer {
    let refusal = Refusal {
        code,
        error: "invalid_client".to_owned(),
        text: "words of Entra".to_owned(),
        trace_id: "t".to_owned(),
        correlation_id: "c".to_owned(),
        timestamp: "now".to_owned(),
    };
    ExchangeAnswer::Refused { refusal: Box::new(refusal.into()), wait: None }
}

#[test]
fn an_answer_is_news_when_its_code_is_another() {
    let refused = refused_by_entra;
    let (accepted, subject, unknown) = (ExchangeAnswer::Accepted, refused(700_213), refused(12_345_678));
    assert!(!accepted.is_news_after(None) && subject.is_news_after(None));
    assert!(!subject.is_news_after(Some(&refused(700_213))) && unknown.is_news_after(Some(&subject)));
    assert!(accepted.is_news_after(Some(&subject)));
    assert_eq!(subject.known_code().as_deref(), Some("AADSTS700213"));
    assert_eq!(
        refused(7_002_139).known_code().as_deref(),
        Some("AADSTS700213"),
        "labels are those of the table"
    );
    assert_eq!((unknown.known_code().as_deref(), accepted.known_code()), (Some("other"), None));
    assert_eq!(
        unknown.in_words(),
        "Microsoft Entra refuses its tokens with AADSTS12345678: words of Entra (trace t)"
    );
    let told = subject.in_words();
    assert!(told.contains("AADSTS700213: the subject differs") && told.contains("; fix: make the"), "{told}");
}
