use super::Issuer;

#[test]
fn an_issuer_is_an_https_url_in_normal_form_without_query_or_fragment() {
    accepts("https://k8s.example/cluster-a");
    accepts("https://k8s.example/cluster-a/");
    accepts("https://k8s.example");
    accepts("https://k8s.example/");
    accepts("https://k8s.example:8443/a");
    accepts("http://127.0.0.1:8080");
    accepts("http://localhost:8080/a");
    accepts("http://[::1]:8080");
    refuses("http://k8s.example", "has scheme `http`, expected `https`");
    refuses("ftp://k8s.example", "has scheme `ftp`, expected `https`");
    refuses("https://k8s.example?x=1", "has a query");
    refuses("https://k8s.example#x", "has a fragment");
    refuses("https://user@k8s.example", "has a user name");
    refuses(" https://k8s.example", "has white space around it");
    refuses("https://K8S.example", "not in normal form, expected `https://k8s.example/`");
    refuses("https://k8s.example:443/a", "not in normal form, expected `https://k8s.example/a`");
    refuses("https://k8s.example/a/../b", "not in normal form, expected `https://k8s.example/b`");
    refuses("https://k8s.example//a", "empty path segment");
    refuses("k8s.example", "is not a URL");
    refuses("https://", "is not a URL");
}

#[test]
fn one_trailing_slash_is_dropped_only_to_find_the_documents() {
    let with = Issuer::parse("https://k8s.example/a/").expect("valid");
    let without = Issuer::parse("https://k8s.example/a").expect("valid");
    assert_eq!("https://k8s.example/a/.well-known/openid-configuration", with.discovery_url());
    assert_eq!(with.discovery_url(), without.discovery_url());
    assert_eq!(with.jwks_uri(), without.jwks_uri());
    assert_ne!(with, without, "`iss` is compared byte for byte");
}

#[test]
fn host_and_path_are_those_of_the_request_for_its_documents() {
    let issuer = Issuer::parse("https://k8s.example:8443/a/b/").expect("valid");
    assert_eq!(("k8s.example:8443", "/a/b"), (issuer.authority(), issuer.path()));
    let root = Issuer::parse("http://127.0.0.1:8080").expect("valid");
    assert_eq!(("127.0.0.1:8080", ""), (root.authority(), root.path()));
}

fn accepts(text: &str) {
    assert_eq!(text, Issuer::parse(text).expect(text).as_str());
}

#[track_caller]
fn refuses(text: &str, reason: &str) {
    let refusal = Issuer::parse(text).expect_err(text).to_string();
    assert!(refusal.contains(reason), "{refusal}");
}
