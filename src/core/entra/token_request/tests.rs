use proptest::prelude::*;

use super::*;

const URL: &str =
    "POST https://login.microsoftonline.com/aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa/oauth2/v2.0/token";

#[test]
fn a_form_in_one_line_and_one_in_many_are_the_same() {
    let one = "client_id=app&grant_type=client_credentials&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default&client_assertion=a.b.c";
    let many = "client_id=app\ngrant_type=client_credentials\n\nscope=https://graph.microsoft.com/.default\nclient_assertion=a.b.c\n";
    let parse = |form: &str| TokenRequest::parse(&format!("{URL}\n{form}")).expect("a request");
    assert_eq!(parse(one), parse(many));
    let (request, assertion) = parse(one);
    assert_eq!(request.authority.as_deref(), Some("https://login.microsoftonline.com"));
    assert_eq!(request.tenant.as_deref(), Some("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"));
    assert_eq!(request.field("client_id"), Some("app"));
    assert_eq!(assertion.as_deref(), Some("a.b.c"));
    assert_eq!(request.leg(false), Leg::Workload);
}

#[test]
fn what_people_paste_is_read_too() {
    let curl = "curl -X POST 'https://login.microsoftonline.com/aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa/oauth2/v2.0/token' \\\n  -d 'client_id=app' \\\n  -d \"grant_type=client_credentials\" \\\n  --data-urlencode 'scope=https://graph.microsoft.com/.default' \\\n  -d client_assertion=a.b.c\n";
    let plain = "# as sent\nclient_id = app\ngrant_type = client_credentials\nscope=https://graph.microsoft.com/.default\r\nclient_assertion=a.b.c";
    let plain = TokenRequest::parse(&format!("{URL}\n{plain}")).expect("a request");
    assert_eq!(TokenRequest::parse(curl).expect("a request"), plain);
}

#[test]
fn credentials_are_not_kept() {
    for name in CREDENTIALS {
        let (request, _) =
            TokenRequest::parse(&format!("{name}=hidden-value\nclient_id=app")).expect("a request");
        assert_eq!(request.field(name), Some("…"));
        assert!(!format!("{request:?}").contains("hidden"), "{name}");
        let (request, _) = TokenRequest::parse(&format!("{name}=\nclient_id=app")).expect("a request");
        assert_eq!(request.field(name), None, "{name} is empty");
    }
}

#[test]
fn what_stands_in_the_url_is_no_field() {
    let (request, _) = TokenRequest::parse(&format!("{URL}?fmi_path=agent\ngrant_type=client_credentials"))
        .expect("a request");
    assert_eq!(request.field("fmi_path"), None);
    assert_eq!(request.in_url, ["fmi_path"]);
}

/// A line of an address bar.
#[test]
fn the_url_of_a_browser_has_the_fields() {
    let url = URL.replace("POST ", "").replace("/token", "/authorize");
    let query = "client_id=app&response_type=code&scope=openid&id_token_hint=hidden-value&client_assertion=";
    let (request, _) = TokenRequest::parse(&format!("{url}?{query}")).expect("a request");
    assert_eq!(request, TokenRequest::parse(&format!("GET {url}?{query}")).expect("a request").0);
    assert_eq!((request.field("response_type"), request.field("client_id")), (Some("code"), Some("app")));
    assert_eq!((request.field("id_token_hint"), request.in_url.len()), (Some("…"), 0));
    let twice = TokenRequest::parse(&format!("{url}?a=1&a=2")).expect_err("a fault");
    assert_eq!(twice, InvalidTokenRequest::Twice { name: "a".to_owned() });
}

#[test]
fn faults_are_told_without_a_value() {
    let parse = |text: &str| TokenRequest::parse(text).expect_err("a fault");
    assert_eq!(parse(""), InvalidTokenRequest::Empty);
    assert_eq!(parse("hidden"), InvalidTokenRequest::Field { line: 1 });
    assert_eq!(parse("scope=x\n{\"client_secret\": \"hid=den\"}"), InvalidTokenRequest::Field { line: 2 });
    assert_eq!(parse("https://\nscope=x"), InvalidTokenRequest::Url);
    assert_eq!(parse("a=1\na=2"), InvalidTokenRequest::Twice { name: "a".to_owned() });
}

#[test]
fn each_leg_is_known_by_its_form() {
    let leg = |form: &str, is_agent| TokenRequest::parse(form).expect("a request").0.leg(is_agent);
    let exchange = "grant_type=client_credentials&scope=api://AzureADTokenExchange/.default";
    assert_eq!(leg(&format!("{exchange}&fmi_path=agent"), false), Leg::Blueprint);
    assert_eq!(leg(exchange, false), Leg::Blueprint);
    assert_eq!(leg("grant_type=client_credentials&scope=x/.default", true), Leg::Agent);
    assert_eq!(leg("grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer", true), Leg::OnBehalfOf);
    assert_eq!(leg("grant_type=user_fic", true), Leg::AgentUser);
    assert_eq!(leg("grant_type=password", false), Leg::SignIn);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        drop(TokenRequest::parse(&text));
    }
}
