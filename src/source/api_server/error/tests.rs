use http::StatusCode;

use super::hint_for_status;
use crate::core::service_account::ServiceAccount;

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
