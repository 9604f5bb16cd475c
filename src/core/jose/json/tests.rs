use proptest::prelude::*;
use serde_json::Value;

use super::parse;

#[test]
fn a_member_that_stands_twice_is_named_however_deep() {
    for text in [r#"{"a":1,"a":2}"#, r#"[{"b":{"a":1,"c":2,"a":1}}]"#, r#"{"a":1,"\u0061":2}"#] {
        let error = parse(text.as_bytes()).expect_err(text).to_string();
        assert!(error.starts_with("member `a` is duplicated at line 1"), "{error}");
    }
    parse(br#"{"a":{"a":1},"b":{"a":1}}"#).expect("one of each object");
}

#[test]
fn what_is_nested_too_deeply_too_large_or_no_text_is_refused() {
    let nested = "[".repeat(100_000);
    for bytes in [nested.as_bytes(), b"1e999", b"\"\xff\"", b"", b"{} {}"] {
        assert!(parse(bytes).is_err());
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{0,3}", inner, 0..4)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn what_has_no_member_twice_is_read_as_ever(value in any_value()) {
        let text = value.to_string();
        let usual: Value = serde_json::from_str(&text).expect("it was just written");
        prop_assert_eq!(parse(text.as_bytes()).expect("it is JSON"), usual);
    }
}
