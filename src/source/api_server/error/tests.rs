use http::StatusCode;

use super::{ApiServerError, KubernetesError, hint_for_status};
use crate::core::{service_account::ServiceAccount, text::Hint};

fn refused(user: &str) -> String {
    format!("forbidden: User \"{user}\" cannot get path \"/openid/v1/jwks\"")
}

#[track_caller]
fn hint(status: StatusCode, account: Option<&ServiceAccount>, message: Option<&str>) -> String {
    hint_for_status(status, account.is_none(), account, message).expect("there is something to do")
}

#[test]
fn a_refused_reader_is_told_the_binding_that_it_lacks() {
    let expect = |subject: &str| {
        format!(
            "bind ClusterRole `system:service-account-issuer-discovery` to it: `kubectl create \
             clusterrolebinding signpost-discovery --clusterrole=system:service-account-issuer-discovery {subject}`"
        )
    };
    let forbidden = |message: Option<&str>| hint(StatusCode::FORBIDDEN, None, message);
    let account = refused("system:serviceaccount:infra:signpost");
    assert_eq!(expect("--serviceaccount=infra:signpost"), forbidden(Some(&account)));
    assert_eq!(expect("--user='alice@example.com'"), forbidden(Some(&refused("alice@example.com"))));
    assert_eq!(expect("--serviceaccount=NAMESPACE:NAME"), forbidden(None));
    assert_eq!(expect("--serviceaccount=NAMESPACE:NAME"), forbidden(Some(&refused("'; reboot"))));
}

#[test]
fn nobody_is_told_to_give_rights_to_anonymous() {
    let hint = hint(StatusCode::FORBIDDEN, None, Some(&refused("system:anonymous")));
    assert_eq!("the request carried no credential: give the kubeconfig one", hint);
}

#[test]
fn a_refused_token_request_names_what_is_missing() {
    let account = ServiceAccount::new("team-a", "builder").expect("a service account");
    let message = "serviceaccounts \"builder\" is forbidden: User \"system:serviceaccount:infra:signpost\" \
                   cannot create resource \"serviceaccounts/token\"";
    let forbidden = hint(StatusCode::FORBIDDEN, Some(&account), Some(message));
    assert!(forbidden.contains("--resource-name=builder"), "{forbidden}");
    assert!(forbidden.contains("--namespace=team-a"), "{forbidden}");
    assert!(forbidden.contains("--serviceaccount=infra:signpost"), "{forbidden}");
    assert_eq!(
        "create it: `kubectl create serviceaccount builder --namespace=team-a`",
        hint(StatusCode::NOT_FOUND, Some(&account), None)
    );
}

#[test]
fn an_api_server_without_documents_is_asked_for_its_issuer_flag() {
    assert!(hint(StatusCode::NOT_FOUND, None, None).contains("--service-account-issuer"));
}

/// An API server whose signer is down answers everything except token requests.
#[test]
fn where_no_token_is_made_the_signer_is_named() {
    let account = ServiceAccount::new("team-a", "builder").expect("a service account");
    let names_the_signer = |hint: Option<String>| hint.is_some_and(|hint| hint.contains("signing-endpoint"));
    for status in [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::GATEWAY_TIMEOUT] {
        assert!(names_the_signer(hint_for_status(status, false, Some(&account), None)), "{status}");
        assert!(!names_the_signer(hint_for_status(status, true, None, None)), "{status}");
    }
    let timed_out = |request: &str| {
        let limit = std::time::Duration::from_secs(10);
        ApiServerError::Call(KubernetesError::TimedOut { request: request.to_owned(), limit }).hint()
    };
    let path = "/api/v1/namespaces/team-a/serviceaccounts/builder/token";
    assert!(names_the_signer(timed_out(&format!("POST {path}"))));
    assert!(!names_the_signer(timed_out("GET /openid/v1/jwks")));
}
