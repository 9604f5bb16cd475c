use super::*;

fn words(texts: &[&str]) -> Vec<String> {
    let mut words = Words::default();
    texts.iter().map(|text| words.anonymous(text)).collect()
}

#[test]
fn what_matters_of_a_text_stays() {
    let issuer = "https://oidc.contoso.com/Live/";
    assert_eq!(
        words(&[
            issuer,
            "https://oidc.contoso.com/live",
            " https://OIDC.contoso.com/Live/",
            "https://oidc.contoso.com/Live"
        ]),
        [
            "https://name1.name2.com/name3/",
            "https://name1.name2.com/Name3",
            " https://Name1.name2.com/name3/",
            "https://name1.name2.com/name3",
        ]
    );
    assert_eq!(
        words(&["system:serviceaccount:payments:api-server", "system:serviceaccount:payments:*"]),
        ["system:serviceaccount:name1:api-name2", "system:serviceaccount:name1:*"]
    );
    assert_eq!(
        words(&["repo:acme@12345/app:ref:refs/heads/x"]),
        ["repo:name1@1000/app:ref:refs/heads/name2"]
    );
}

#[test]
fn ids_are_replaced_and_stay_the_same_id() {
    let guid = "85075aa5-1d73-42de-812a-95348218e4b2";
    let subject =
        "/eid1/c/pub/t/pVoHhXMd3kKBKpU0ghjksg/a/pVoHhXMd3kKBKpU0ghjksg/85075aa5-1d73-42de-812a-95348218e4b2";
    let [one, upper, subject] = words(&[guid, &guid.to_uppercase(), subject]).try_into().expect("three");
    assert!(is_guid(&one) && one != guid);
    assert_eq!(upper, one.to_uppercase());
    let encoded = encoded_guid(&one).expect("a GUID");
    assert_eq!(subject, format!("/eid1/c/pub/t/{encoded}/a/{encoded}/{one}"));
    assert_eq!(words(&[TOKEN_EXCHANGE, ZEROS]), [TOKEN_EXCHANGE, ZEROS]);
}

#[test]
fn addresses_stay_private_or_public_and_the_same() {
    let texts = [
        "https://10.7.3.9:6443/a",
        "https://198.51.100.7",
        "https://198.51.100.7/",
        "https://198.51.100.8",
        "https://[fd00::9]/x",
        "https://127.0.0.1/Ab",
    ];
    assert_eq!(
        words(&texts),
        [
            "https://10.0.0.1:1000/a",
            "https://203.0.113.2",
            "https://203.0.113.2/",
            "https://203.0.113.3",
            "https://10.0.0.4/name1",
            "https://127.0.0.1/name2",
        ]
    );
}
