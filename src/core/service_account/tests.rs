use super::ServiceAccount;

#[test]
fn a_subject_names_its_service_account_and_the_other_way_round() {
    let subject = "system:serviceaccount:team-a:builder.v2";
    let account = ServiceAccount::of_subject(subject).expect(subject);
    assert_eq!(("team-a", "builder.v2"), (account.namespace(), account.name()));
    assert_eq!(subject, account.subject());
    assert_eq!("team-a/builder.v2", account.to_string());
}

#[test]
fn other_users_are_no_service_accounts() {
    for subject in ["system:admin", "system:serviceaccount:only", "system:serviceaccount:a:b:c", "alice", ""]
    {
        assert_eq!(None, ServiceAccount::of_subject(subject), "{subject}");
    }
}

#[test]
fn a_name_that_would_change_a_url_path_is_refused() {
    for (namespace, name) in [
        ("a/b", "c"),
        ("..", "c"),
        ("a.b", "c"),
        ("A", "c"),
        ("", "c"),
        ("a", ".."),
        ("a", "b?c"),
        ("a", "-b"),
    ] {
        assert!(ServiceAccount::new(namespace, name).is_err(), "{namespace}/{name}");
    }
    assert!(ServiceAccount::new(&"a".repeat(64), "c").is_err());
    assert!(ServiceAccount::new("a", &"c".repeat(254)).is_err());
}
