use proptest::prelude::*;

use super::{brief, error_line, printable, redact, redact_json};

#[test]
fn the_query_of_a_url_is_not_shown() {
    shows("PUT https://a.example/c/jwks?sv=1&sig=abc%2F: 403", "PUT https://a.example/c/jwks?… 403");
    shows("cannot read `https://a.example/c?sig=abc`, twice", "cannot read `https://a.example/c?…`, twice");
    shows("GET https://a.example/c#access_token=abc: 403", "GET https://a.example/c#… 403");
    shows("https://a.example/c#a?b=c", "https://a.example/c#…");
    shows("(https://a.example?sig=abc) and http://b/?x", "(https://a.example?…) and http://b/?…");
}

#[test]
fn the_user_and_password_of_a_url_are_not_shown() {
    shows("https://user:secret@a.example/c", "https://…@a.example/c");
    shows("https://user:sec@ret@a.example/c?x=1", "https://…@a.example/c?…");
    shows("https://user:sec?ret@a.example/c", "https://…");
    shows("https://user:sec#ret@a.example/c", "https://…");
}

#[test]
fn everything_else_is_shown_as_it_is() {
    for text in ["", "what now?", "az://account/$web", "mail a@b.example?", "://", "a://b://c"] {
        shows(text, text);
    }
}

#[test]
fn what_would_draw_on_a_terminal_is_spelt_out() {
    assert_eq!("a<U+001B>[2Jb<U+000A><U+202E>é", printable("a\u{1b}[2Jb\n\u{202e}é"));
    assert_eq!("`kid` ␠ é …", printable("`kid` ␠ é …"));
}

#[test]
fn of_a_long_text_the_beginning_and_the_end_are_shown() {
    let long = format!("{}é{}", "a".repeat(209), "b".repeat(41));
    assert_eq!(format!("{}é…{}", "a".repeat(209), "b".repeat(40)), brief(&long));
    assert_eq!("é".repeat(250), brief(&"é".repeat(250)));
}

#[test]
fn of_a_secret_no_piece_is_shown() {
    let secret = "s".repeat(300);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----");
    for given in
        [format!("eyJhbGciOiJSUzI1NiJ9.{secret}.{secret}"), pem, format!("https://a.example?sig={secret}")]
    {
        assert!(!brief(&given).contains("ss"), "{}", brief(&given));
    }
}

proptest! {
    #[test]
    fn no_secret_of_a_url_is_ever_shown(
        before in ".{0,8}", host in "[a-z./]{1,8}", secret in "[A-Z0-9%&=+/]{4,20}", after in "[ `\"'>)].{0,8}",
        mark in "[?#]",
    ) {
        prop_assume!(!before.contains(&secret) && !after.contains(&secret));
        let query = format!("{before}https://{host}{mark}sig={secret}{after}");
        prop_assert!(!redact(&query).contains(&secret));
        let password = format!("{before}https://user:{secret}@{host}{after}");
        prop_assert!(!redact(&password).contains(&secret));
    }
}

#[test]
fn a_token_is_taken_out_wherever_it_stands() {
    let header = "eyJhbGciOiJSUzI1NiJ9";
    let token = format!("{header}.eyJpc3MiOiJodHRwczovL2EifQ.c2lnbmF0dXJl");
    shows(&token, "…");
    shows(&format!("cannot read `{token}`"), "cannot read `…`");
    shows(&format!("a={token}, b={token}."), "a=…, b=….");
    shows(&format!("https://h/?t={token} {}", &token[..42]), "https://h/?… …");
    // A header alone opens nothing, and a key ID may hold these letters.
    shows(header, header);
    shows(
        "kid `SM0Z7jj3qikh6eyJktlq48SktSlotH35M83yEbj2B-g`",
        "kid `SM0Z7jj3qikh6eyJktlq48SktSlotH35M83yEbj2B-g`",
    );
}

proptest! {
    #[test]
    fn json_stays_json_of_the_same_shape(before in ".{0,8}", host in "[a-z./]{1,8}", after in ".{0,8}", n in 0..9) {
        let text = format!("{before}https://{host}?sig=SECRET\"{after}");
        let json = serde_json::json!({"error": text, &text: [n, null, {"plain": after}]});
        let redacted: serde_json::Value = serde_json::from_str(&redact_json(&json.to_string())).expect("JSON");
        let shown = redact(&text).into_owned();
        prop_assert_eq!(&redacted["error"], &shown);
        prop_assert_eq!(&redacted[&shown], &serde_json::json!([n, null, {"plain": redact(&after)}]));
    }
}

#[test]
fn json_without_secrets_is_left_as_it_is() {
    for json in [r#"{"a": "b\"c", "d":[1,"\u0041"]}"#, "", "\"", r#"{"cut": "off\"#, "no JSON"] {
        assert!(matches!(redact_json(json), std::borrow::Cow::Borrowed(shown) if shown == json), "{json}");
    }
}

#[test]
fn an_error_and_its_causes_stand_in_one_line_without_secrets() {
    let cause = std::io::Error::other("https://a.example?sig=abc");
    let error = std::io::Error::other(cause);
    assert_eq!("https://a.example?…", error_line(&error));
}

#[track_caller]
fn shows(text: &str, expected: &str) {
    assert_eq!(expected, redact(text));
}

#[test]
fn pem_is_taken_out_from_the_first_block_to_the_last() {
    let cases = [
        ("is the text `-----BEGIN PRIVATE KEY----- MIIE -----END PRIVATE KEY-----`", "is the text `…`"),
        ("a -----BEGIN A-----\nx\n-----END A----- and -----BEGIN B-----\ny\n-----END B----- b", "a … b"),
        ("cut -----BEGIN PRIVATE KEY-----\nMIIE", "cut …"),
        ("cut -----BEGIN PRIVATE KEY-----\nMIIE -----END PRIV", "cut …"),
        (
            "https://h/?sig=s -----BEGIN A-----x-----END A----- https://h/?sig=s",
            "https://h/?… … https://h/?…",
        ),
    ];
    for (text, shown) in cases {
        assert_eq!(redact(text), shown, "{text}");
    }
}
