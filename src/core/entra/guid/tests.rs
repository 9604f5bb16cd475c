use proptest::prelude::*;

use super::*;

/// A subject that was seen, and the id that its owner named.
#[test]
fn the_application_in_a_subject_is_its_guid() {
    let guid = "85075aa5-1d73-42de-812a-95348218e4b2";
    assert_eq!(encoded_guid(guid).as_deref(), Some("pVoHhXMd3kKBKpU0ghjksg"));
    assert_eq!(decoded_guid("pVoHhXMd3kKBKpU0ghjksg").as_deref(), Some(guid));
}

#[test]
fn a_subject_has_three_parts() {
    let subject = "/eid1/c/pub/t/qqqqqqqqqkqKqqqqqqqqqg/a/pVoHhXMd3kKBKpU0ghjksg/sc/one/two";
    let parsed = ExchangeSubject::parse(subject).expect("a subject of an exchange");
    assert_eq!(parsed.tenant, "qqqqqqqqqkqKqqqqqqqqqg");
    assert_eq!(parsed.application, "pVoHhXMd3kKBKpU0ghjksg");
    assert_eq!(parsed.path, "sc/one/two");
    assert_eq!(ExchangeSubject::parse("system:serviceaccount:team:app"), None);
    assert_eq!(ExchangeSubject::parse("/eid1/c/pub/t/x/a/y"), None);
}

proptest! {
    #[test]
    fn encoding_is_undone(bytes: [u8; 16]) {
        let text = Base64UrlUnpadded::encode_string(&bytes);
        let guid = decoded_guid(&text).expect("16 bytes");
        prop_assert!(is_guid(&guid));
        prop_assert_eq!(encoded_guid(&guid), Some(text));
    }

    #[test]
    fn other_texts_are_no_guids(text in "\\PC{0,40}") {
        prop_assert_eq!(encoded_guid(&text).is_some(), is_guid(&text));
    }
}
