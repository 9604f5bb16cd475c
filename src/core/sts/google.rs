//! The Security Token Service of Google Cloud, and the tokens of service accounts.
//!
//! Sources: "Method: token" of the Security Token Service API; `generateAccessToken` of the IAM Service Account
//! Credentials API; AIP-4117 (the file of the client).

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Explanation, Issued, Refusal, StsAnswer, UNREADABLE};
use crate::core::{
    entra::errors::Certainty::{Documented, Inferred, Observed},
    jose::token::Token,
    text::redaction::{brief, printable, redact_tokens},
};

/// The scope of all services of Google Cloud.
pub const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The type of a service-account token.
pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const HOSTS: [&str; 2] = ["sts.googleapis.com", "iamcredentials.googleapis.com"];

/// The file that `gcloud iam workload-identity-pools create-cred-config` writes.
#[derive(Clone, Debug, Deserialize)]
pub struct ExternalAccount {
    pub audience: String,
    pub subject_token_type: String,
    pub token_url: String,
    /// With it, the token is exchanged for one of a service account.
    pub service_account_impersonation_url: Option<String>,
    pub credential_source: TokenSource,
}

/// The path of the projected token; the other kinds of source are for other clouds.
#[derive(Clone, Debug, Deserialize)]
pub struct TokenSource {
    pub file: PathBuf,
    #[serde(default)]
    pub format: TokenFormat,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum TokenFormat {
    #[default]
    Text,
    Json {
        subject_token_field_name: String,
    },
}

impl TokenFormat {
    /// The token in the text of its file.
    ///
    /// # Errors
    ///
    /// Fails with the name of the field that it lacks.
    pub fn token_in(&self, text: &str) -> Result<String, &str> {
        match self {
            Self::Text => Ok(text.trim().to_owned()),
            Self::Json { subject_token_field_name: name } => {
                let json: Option<Value> = serde_json::from_str(text).ok();
                let token = json.as_ref().and_then(|json| json[name].as_str());
                token.map(str::to_owned).ok_or(name)
            }
        }
    }
}

/// Whether a host is one of Google's that tokens are sent to.
#[must_use]
pub fn is_host(host: &str) -> bool {
    HOSTS.contains(&host)
}

/// The exchange of a token for one of Google's.
#[must_use]
pub fn form<'a>(audience: &'a str, token_type: &'a str, token: &'a str) -> [(&'static str, &'a str); 6] {
    [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("audience", audience),
        ("scope", SCOPE),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("subject_token_type", token_type),
        ("subject_token", token),
    ]
}

/// What is asked for the token of a service account.
#[must_use]
pub fn impersonation() -> Value {
    json!({"scope": [SCOPE], "lifetime": "3600s"})
}

/// Where it is asked for.
#[must_use]
pub fn impersonation_url(service: &str, account: &str) -> String {
    format!("{service}/v1/projects/-/serviceAccounts/{account}:generateAccessToken")
}

/// Parses an answer of the token service; `None` if it is none.
#[must_use]
pub fn parse(body: &[u8], now: Timestamp) -> Option<StsAnswer> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    if let Some(token) = answer["access_token"].as_str() {
        let life = answer["expires_in"].as_i64().map(SignedDuration::from_secs);
        return Some(StsAnswer::Issued(Issued {
            credentials: Token::new(token.to_owned()),
            expires_at: life.and_then(|life| now.checked_add(life).ok()),
            facts: Vec::new(),
        }));
    }
    Some(refusal(answer["error"].as_str()?, &answer["error_description"]))
}

/// Parses an answer about a service account; `None` if it is none.
#[must_use]
pub fn parse_impersonation(body: &[u8]) -> Option<StsAnswer> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    if let Some(token) = answer["accessToken"].as_str() {
        return Some(StsAnswer::Issued(Issued {
            credentials: Token::new(token.to_owned()),
            expires_at: answer["expireTime"].as_str().and_then(|time| time.parse().ok()),
            facts: Vec::new(),
        }));
    }
    Some(refusal(answer["error"]["status"].as_str()?, &answer["error"]["message"]))
}

fn refusal(code: &str, text: &Value) -> StsAnswer {
    let text = redact_tokens(&printable(text.as_str().unwrap_or_default())).into_owned();
    let refusal = Refusal::new(brief(code).into_owned(), brief(&text).into_owned(), String::new(), ERRORS);
    StsAnswer::Refused(refusal)
}

/// A more special text of a code stands before the code itself.
pub const ERRORS: &[Explanation] = &[
    Explanation {
        code: "invalid_target",
        // Observed: google-github-actions/auth#334.
        says: "",
        meaning: "there is no such provider, or it or its pool is disabled or deleted",
        fix: "`gcloud iam workload-identity-pools providers describe` the provider; name its project by number",
        checks: &[],
        certainty: Observed,
    },
    Explanation {
        code: "invalid_request",
        // Observed: google-github-actions/auth#211.
        says: "audience",
        meaning: "the provider is not named by its full resource name",
        fix: "pass `//iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`",
        checks: &[],
        certainty: Observed,
    },
    Explanation {
        code: "invalid_grant",
        // Documented: "Troubleshoot Workload Identity Federation".
        says: "connecting to the given credential's issuer",
        meaning: "Google cannot read the documents of the issuer",
        fix: "make both readable from the internet, or upload the keys: a target `gcp-wif://…` keeps them in step",
        checks: UNREADABLE,
        certainty: Documented,
    },
    Explanation {
        code: "invalid_grant",
        // Observed: googleapis/google-cloud-go#12440.
        says: "stale to sign-in",
        meaning: "the token has expired",
        fix: "read the token's file again for each request",
        checks: &["TOK-TIME"],
        certainty: Observed,
    },
    Explanation {
        code: "invalid_grant",
        says: "",
        meaning: "Google does not accept the token: its issuer, audience, key, signature or time",
        fix: "compare `iss` and `aud` with the provider's `issuerUri` and `allowedAudiences`; `signpost verify --for \
              gcp` judges the rest, with the uploaded keys as `--jwks`",
        checks: &[
            "JWKS-MATCH",
            "TOK-JWS",
            "TOK-CLAIMS",
            "GCP-ALG",
            "TOK-TIME",
            "TOK-KID",
            "TOK-AUD",
            "JWKS-KID",
        ],
        certainty: Inferred,
    },
    Explanation {
        code: "unauthorized_client",
        // Observed: terraform-google-modules/terraform-example-foundation#1362.
        says: "attribute condition",
        meaning: "the attribute condition of the provider excludes this token",
        fix: "compare the condition with the token's claims: `signpost verify` prints them",
        checks: &[],
        certainty: Observed,
    },
    Explanation {
        code: "PERMISSION_DENIED",
        // Observed: google-github-actions/auth#340.
        says: "iam.serviceAccounts.getAccessToken",
        meaning: "the service account does not exist, or does not let this subject act as it",
        fix: "`gcloud iam service-accounts add-iam-policy-binding EMAIL --role=roles/iam.workloadIdentityUser \
              --member=principal://iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/\
              subject/SUBJECT`",
        checks: &[],
        certainty: Observed,
    },
];
