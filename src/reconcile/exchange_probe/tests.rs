use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};

use super::*;
use crate::{
    core::{entra::Flow, jose::jwk::tests::KUBERNETES_RSA},
    http_client::Trust,
};

const SECOND: Duration = Duration::from_secs(1);

fn prober(authority: &str) -> ExchangeProber {
    let exchange = Exchange {
        cloud: Cloud::Public,
        authority: authority.to_owned(),
        tenant: "contoso.onmicrosoft.com".to_owned(),
        client_id: "85075aa5-1d73-42de-812a-95348218e4b2".to_owned(),
        scope: Cloud::Public.graph_scope().to_owned(),
        flow: Flow::Workload,
    };
    let endpoint = TokenEndpoint::new(&exchange.endpoint(), Trust::System).expect("an endpoint");
    ExchangeProber { tokens: Box::new(|| unreachable!()), exchange, endpoint, every: SECOND }
}

#[test]
fn entra_is_asked_once_a_minute_at_most_and_later_if_it_says_so() {
    let entra = prober("https://login.microsoftonline.com");
    let busy = |seconds| {
        let status = http::StatusCode::TOO_MANY_REQUESTS;
        Err(TokenEndpointError::Busy { status, retry_after: Some(seconds) }.into())
    };
    let accepted = Ok(ExchangeAnswer::Accepted);
    for (answer, every, wait) in [
        (&accepted, 1, 60),
        (&accepted, 540, 540),
        (&busy(1), 1, 60),
        (&busy(300), 60, 300),
        (&busy(300), 600, 600),
        (&busy(u64::MAX), 60, 3600),
    ] {
        assert_eq!(entra.wait_after(answer, Duration::from_secs(every)), Duration::from_secs(wait));
    }
    assert_eq!(
        prober("http://127.0.0.1:1").wait_after(&accepted, SECOND),
        SECOND,
        "this machine is not Entra"
    );
}

#[test]
fn a_refusal_that_a_new_key_explains_says_so() {
    let now = clock::now().as_second();
    let at = |age: i64| jiff::Timestamp::from_second(now - age).expect("a time");
    let jwk: Value = serde_json::from_str(KUBERNETES_RSA).expect("a key");
    let kid = jwk["kid"].as_str().expect("a kid").to_owned();
    let ledger = |age: i64| {
        let entry = json!({
            "jwk": jwk, "first_seen": at(1_000_000), "state": "listed", "shown": {"blob": at(age)},
            "present_from_start": false,
        });
        let text = json!({
            "version": 2, "lineage": "a", "sequence": 1, "issuer": "https://k8s.example",
            "keys": {kid.as_str(): entry},
        });
        Ledger::parse(text.to_string().as_bytes()).expect("a ledger")
    };
    let part = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    let claims = json!({"iss": "https://k8s.example", "sub": "a", "aud": "b", "iat": now, "exp": now + 600});
    let token = format!("{}.{}.AAAA", part(&json!({"alg": "RS256", "kid": kid})), part(&claims));
    let refusal = |code| Refusal {
        code,
        error: String::new(),
        text: String::new(),
        trace_id: String::new(),
        correlation_id: String::new(),
        timestamp: String::new(),
    };
    let wait = |code, age| may_pass(&refusal(code), &token, ledger(age), Cloud::Public);
    let told = wait(7_000_272, 60).expect("it is young");
    assert!(
        told.contains("wait and retry: Entra still answers from an older JWKS") && told.contains(&kid),
        "{told}"
    );
    assert!(wait(7_000_272, 80_000).is_some(), "within a day");
    assert_eq!(wait(7_000_272, 90_000), None, "another cause");
    assert_eq!(wait(700_213, 60), None, "a key does not explain a subject");
}
