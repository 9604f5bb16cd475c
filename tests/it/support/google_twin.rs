//! A twin of Google Cloud's workload identity federation: the providers of the IAM API, and the token exchange.
//!
//! Google itself is not available to tests. The twin is `tests/components/relying_parties/google_twin.py`: it verifies
//! with `PyJWT`, shares no code with the product, and names the documents and reports behind each answer.

use serde_json::{Value, json};

use super::gcs::ServiceAccount;
use super::http_client::{Request, Response};
use super::sts_twin::StsTwin;

/// The provider that the twin starts with.
pub(crate) const PROVIDER: &str =
    "projects/123456789/locations/global/workloadIdentityPools/clusters/providers/kind-1";
/// What its tokens are for, unless the provider says otherwise.
pub(crate) const AUDIENCE: &str = "//iam.googleapis.com/projects/123456789/locations/global/workloadIdentityPools/\
                                   clusters/providers/kind-1";
/// An access token with every permission that a target needs.
pub(crate) const WRITER: &str = "of-a-writer";

pub(crate) struct GoogleTwin(StsTwin);

impl GoogleTwin {
    /// Starts with one provider, which trusts this issuer and has no JWKS of its own.
    pub(crate) fn start(issuer: &str) -> Self {
        let permissions = ["get", "update"].map(|right| format!("iam.workloadIdentityPoolProviders.{right}"));
        Self(StsTwin::start(
            "google_twin.py",
            &json!({
                "providers": {PROVIDER: {"oidc": {"issuerUri": issuer}}},
                "tokens": {WRITER: permissions},
            }),
        ))
    }

    pub(crate) fn url(&self) -> String {
        self.0.url()
    }

    pub(crate) fn world(&self) -> Value {
        self.0.world()
    }

    /// Changes what the twin knows.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        self.0.change(change);
    }

    /// Changes the provider.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut Value)) {
        self.change(|world| change(&mut world["providers"][PROVIDER]));
    }

    /// The JWKS of the provider; null without one.
    pub(crate) fn jwks(&self) -> Value {
        self.world()["providers"][PROVIDER]["oidc"]["jwksJson"].take()
    }

    /// Lets a service account use the provider.
    pub(crate) fn allow(&self, account: &ServiceAccount, rights: &[&str]) {
        let permissions: Vec<_> =
            rights.iter().map(|right| format!("iam.workloadIdentityPoolProviders.{right}")).collect();
        let account =
            json!({"email": account.email(), "public_key": account.public_key(), "permissions": permissions});
        self.change(|world| world["accounts"] = json!([account]));
    }

    /// Exchanges a token.
    pub(crate) fn exchange(&self, token: &str) -> Response {
        let urn = |name: &str| format!("urn:ietf:params:oauth:{name}");
        let form = [
            ("grant_type", urn("grant-type:token-exchange")),
            ("audience", AUDIENCE.to_owned()),
            ("scope", "https://www.googleapis.com/auth/cloud-platform".to_owned()),
            ("requested_token_type", urn("token-type:access_token")),
            ("subject_token_type", urn("token-type:jwt")),
            ("subject_token", token.to_owned()),
        ];
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        Request::new("POST", &format!("{}/v1/token", self.url()))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .answer()
    }
}
