//! `AssumeRoleWithWebIdentity` of AWS STS.
//!
//! Source: its API reference; that of `credential_process` in the AWS CLI.

use serde_json::json;

use super::{Explanation, Issued, Refusal, StsAnswer, UNREADABLE};
use crate::core::{
    entra::errors::Certainty::{Documented, Inferred, Observed},
    jose::token::Token,
    text::redaction::{brief, printable, redact_tokens},
};

/// A role that is to be assumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssumeRole {
    pub role_arn: String,
    pub session_name: String,
}

impl AssumeRole {
    #[must_use]
    pub fn form<'a>(&'a self, token: &'a str) -> [(&'a str, &'a str); 5] {
        [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", &self.role_arn),
            ("RoleSessionName", &self.session_name),
            ("WebIdentityToken", token),
        ]
    }
}

/// The endpoint of a region; without one, the global one.
#[must_use]
pub fn endpoint(region: Option<&str>) -> String {
    match region {
        None => "https://sts.amazonaws.com/".to_owned(),
        Some(region) if region.starts_with("cn-") => format!("https://sts.{region}.amazonaws.com.cn/"),
        Some(region) => format!("https://sts.{region}.amazonaws.com/"),
    }
}

/// Whether a host is one of AWS STS.
#[must_use]
pub fn is_host(host: &str) -> bool {
    let host = host.strip_suffix(".cn").unwrap_or(host);
    let region = host
        .strip_prefix("sts.")
        .or_else(|| host.strip_prefix("sts-fips."))
        .and_then(|it| it.strip_suffix(".amazonaws.com"));
    let is_label = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-')
    };
    host == "sts.amazonaws.com" || region.is_some_and(is_label)
}

/// Parses an answer; `None` if it is not one of AWS STS.
#[must_use]
pub fn parse(body: &[u8]) -> Option<StsAnswer> {
    let xml = str::from_utf8(body).ok()?;
    let text = |name| element(xml, name).map(|text| redact_tokens(&printable(&text)).into_owned());
    if let Some(error) = element(xml, "Error") {
        let code = brief(&element(&error, "Code")?).into_owned();
        let message = text("Message").unwrap_or_default();
        return Some(StsAnswer::Refused(Refusal::new(
            code,
            brief(&message).into_owned(),
            text("RequestId").unwrap_or_default(),
            ERRORS,
        )));
    }
    let credentials = element(xml, "Credentials")?;
    let secret = |name| element(&credentials, name);
    let expiration = secret("Expiration")?;
    let process = json!({
        "Version": 1,
        "AccessKeyId": secret("AccessKeyId")?,
        "SecretAccessKey": secret("SecretAccessKey")?,
        "SessionToken": secret("SessionToken")?,
        "Expiration": expiration,
    });
    let names = [
        ("role", "Arn"),
        ("subject", "SubjectFromWebIdentityToken"),
        ("audience", "Audience"),
        ("provider", "Provider"),
    ];
    Some(StsAnswer::Issued(Issued {
        credentials: Token::new(process.to_string()),
        expires_at: expiration.parse().ok(),
        facts: names.into_iter().filter_map(|(name, of)| Some((name, text(of)?))).collect(),
    }))
}

/// The content of the first element with this name. The answers have neither attributes nor comments below their root.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let text = text.trim().replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    // Last, so that nothing is unescaped twice.
    Some(text.replace("&apos;", "'").replace("&amp;", "&"))
}

/// A more special text of a code stands before the code itself.
pub const ERRORS: &[Explanation] = &[
    Explanation {
        code: "InvalidIdentityToken",
        // Observed: aws-actions/configure-aws-credentials#280.
        says: "No OpenIDConnect provider found",
        meaning: "the account of the role has no OIDC identity provider for exactly this issuer",
        fix: "`aws iam create-open-id-connect-provider --url ISSUER --client-id-list sts.amazonaws.com` in that account",
        checks: &[],
        certainty: Observed,
    },
    Explanation {
        code: "InvalidIdentityToken",
        // Observed: awslabs/amazon-eks-irsa-cfn#18.
        says: "Incorrect token audience",
        meaning: "the token's audience is no client id of the identity provider",
        fix: "project the token with `audience: sts.amazonaws.com`, or add its audience with `aws iam \
              add-client-id-to-open-id-connect-provider`",
        checks: &["AWS-AUD"],
        certainty: Observed,
    },
    Explanation {
        code: "InvalidIdentityToken",
        says: "retrieve verification key",
        meaning: "AWS found no key for the token at the issuer: a document cannot be read, or the key is not in the JWKS",
        fix: "`signpost verify --for aws` with the token names what AWS finds there",
        checks: &["JWKS-KID", "JWKS-ODD", "DISC-ISS", "DISC-FIELDS", "DISC-JWKSURI", "PUB-PATH", "PUB-ANON"],
        certainty: Inferred,
    },
    Explanation {
        code: "InvalidIdentityToken",
        says: "",
        meaning: "AWS could not validate the token",
        fix: "`signpost verify --for aws` with the token names what is wrong with it",
        checks: &[
            "JWKS-MATCH",
            "TOK-JWS",
            "TOK-CLAIMS",
            "TOK-ALG",
            "TOK-KID",
            "AWS-ALG",
            "AWS-ISS",
            "JWKS-KID",
        ],
        certainty: Documented,
    },
    Explanation {
        code: "IDPCommunicationError",
        says: "",
        meaning: "AWS could not reach the issuer",
        fix: "try again; if it stays, make both documents readable from the internet",
        checks: UNREADABLE,
        certainty: Documented,
    },
    Explanation {
        code: "IDPRejectedClaim",
        says: "",
        meaning: "a claim of the token is invalid, or was revoked",
        fix: "`signpost verify --for aws` with the token names its claims",
        checks: &["TOK-CLAIMS"],
        certainty: Documented,
    },
    Explanation {
        code: "ExpiredTokenException",
        says: "",
        meaning: "the token has expired, or is not valid yet",
        fix: "read the token's file again for each request; check the clocks of the control plane",
        checks: &["TOK-TIME"],
        certainty: Documented,
    },
    Explanation {
        code: "AccessDenied",
        says: "",
        meaning: "the trust policy of the role does not let this token assume it, or there is no such role",
        fix: "let the policy allow `sts:AssumeRoleWithWebIdentity` to the provider's ARN as `Federated`, on condition \
              that `ISSUER:sub` is the token's subject and `ISSUER:aud` its audience, with the issuer without `https://`",
        checks: &[],
        certainty: Inferred,
    },
    Explanation {
        code: "ValidationError",
        says: "",
        meaning: "a field of the request has a form that AWS does not accept",
        fix: "check `--role-arn` (`arn:aws:iam::ACCOUNT:role/NAME`) and `--session-name`",
        checks: &[],
        certainty: Documented,
    },
    Explanation {
        code: "MalformedPolicyDocument",
        says: "",
        meaning: "a session policy is malformed; Signpost sends none",
        fix: "check what stands between Signpost and AWS",
        checks: &[],
        certainty: Documented,
    },
    Explanation {
        code: "RegionDisabledException",
        says: "",
        meaning: "STS is not activated in this region for the account",
        fix: "activate it in the account settings of IAM, or use another region",
        checks: &[],
        certainty: Documented,
    },
    Explanation {
        code: "Throttling",
        says: "",
        meaning: "too many requests",
        fix: "try again in a minute",
        checks: &[],
        certainty: Documented,
    },
];
