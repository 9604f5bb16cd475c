//! What the answer of a store means, and what the operator can do about it.
//!
//! `object_store` keeps statuses and error codes in texts only, and those hold whole answers and
//! URLs. The code is picked out of the text; the rest is shown as little as possible.

use object_store::{
    Error,
    client::{HttpError, HttpErrorKind},
};

use crate::target::{
    connections::innermost,
    error::{Cause, Failure},
};

use super::Service;

/// The codes under which the services refuse a conditional write because of its condition.
///
/// Others come with the same statuses (409, 412) and do not go away by reading again, such as
/// `LeaseIdMissing` and `BlobImmutableDueToPolicy`.
/// Sources: "Blob Storage error codes" of Azure; "Error responses" of the Amazon S3 API.
const LOST_RACE: [&str; 6] = [
    "BlobAlreadyExists",
    "ConditionNotMet",
    "ConditionalRequestConflict",
    "NoSuchKey",
    "OperationAborted",
    "PreconditionFailed",
];

/// The code of Azure for a storage firewall, and of its emulator for a wrong key.
const FIREWALL_OR_KEY: &str = "AuthorizationFailure";

/// The codes that speak of the credentials rather than of what they are allowed to do.
const WRONG_CREDENTIALS: [&str; 7] = [
    "AuthenticationFailed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidAuthenticationInfo",
    "InvalidToken",
    "NoAuthenticationInformation",
    "SignatureDoesNotMatch",
];

/// Where clouds hand out the credentials of a machine; asked when the environment has none.
const METADATA_SERVICES: [&str; 2] = ["//169.254.169.254", "//169.254.170.2"];

/// Longest text of an unknown failure that is shown, in characters.
const MAX_TEXT: usize = 500;

impl Service {
    /// `Ok` when the error says that the object alone is missing.
    pub(super) fn absent(&self, error: &Error) -> Result<(), Cause> {
        match (error, self.cause(error)) {
            (_, cause @ Cause::NoContainer { .. }) => Err(cause),
            (Error::NotFound { .. }, _) => Ok(()),
            (_, cause) => Err(cause),
        }
    }

    /// Why an object was not written.
    pub(super) fn not_written(&self, error: &Error) -> Failure {
        let lost = matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. })
            && service_code(&error.to_string()).is_none_or(|code| LOST_RACE.contains(&code.as_str()));
        if lost { Failure::LostRace } else { Failure::Cause(self.cause(error)) }
    }

    /// Why there is no store: it takes all but its address from the environment.
    pub(super) fn not_built(&self, error: &Error) -> Cause {
        Cause::Environment { reason: bounded(&innermost(error)), variables: self.credentials() }
    }

    pub(super) fn cause(&self, error: &Error) -> Cause {
        let text = error.to_string();
        match (service_code(&text), error) {
            (Some(code), _) if code == "NoSuchBucket" || code == "ContainerNotFound" => self.no_container(),
            (Some(code), _) if code == "PermanentRedirect" || code == "AuthorizationHeaderMalformed" => {
                Cause::OtherRegion
            }
            (code, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) => {
                Cause::AccessDenied { code }
            }
            (Some(code), _) => Cause::Answer { code },
            (None, _) if text.contains("redirect without LOCATION") => Cause::OtherRegion,
            (None, _) if METADATA_SERVICES.iter().any(|service| text.contains(service)) => {
                Cause::NoCredentials(bounded(&innermost(error)))
            }
            (None, _) => match http_error(error).map(HttpError::kind) {
                Some(HttpErrorKind::Timeout) => Cause::TimedOut,
                Some(HttpErrorKind::Connect) => Cause::Unreachable(bounded(&innermost(error))),
                _ => Cause::Other(bounded(&innermost(error))),
            },
        }
    }

    fn no_container(&self) -> Cause {
        match self {
            Self::Azure { container, .. } => {
                Cause::NoContainer { kind: "container", name: container.clone() }
            }
            Self::S3 { bucket, .. } => Cause::NoContainer { kind: "bucket", name: bucket.clone() },
        }
    }

    /// What the operator can do about a failure.
    pub(super) fn hint(&self, cause: &Cause) -> Option<String> {
        match cause {
            Cause::AccessDenied { code: Some(code) } if code == "RequestTimeTooSkewed" => {
                Some("set the clock of this machine".to_owned())
            }
            Cause::AccessDenied { code: Some(code) } if WRONG_CREDENTIALS.contains(&code.as_str()) => {
                Some(format!("check {}", self.credentials()))
            }
            Cause::AccessDenied { code: Some(code) } if code != FIREWALL_OR_KEY => Some(self.permission()),
            // The answer to `HEAD` has no body, and so no code.
            Cause::AccessDenied { .. } => {
                Some(format!("{}; if it has them, check {}", self.permission(), self.credentials()))
            }
            Cause::NoCredentials(_) => Some(format!("set {}", self.credentials())),
            Cause::NoContainer { .. } => Some(self.creation()),
            Cause::OtherRegion => Some("set `AWS_REGION` to the region of the bucket".to_owned()),
            _ => None,
        }
    }

    fn permission(&self) -> String {
        match self {
            Self::Azure { account, container } => format!(
                "give the writer the role `Storage Blob Data Contributor` on container `{container}` of \
                 storage account `{account}`"
            ),
            Self::S3 { bucket, prefix } => {
                let below = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
                // Without the permission to list, S3 answers 403 where 404 would be true.
                format!(
                    "give the writer `s3:GetObject` and `s3:PutObject` on `arn:aws:s3:::{bucket}/{below}*` \
                     and `s3:ListBucket` on `arn:aws:s3:::{bucket}`"
                )
            }
        }
    }

    fn credentials(&self) -> &'static str {
        match self {
            Self::Azure { .. } => {
                "`AZURE_CLIENT_ID`, `AZURE_TENANT_ID` and `AZURE_FEDERATED_TOKEN_FILE` (workload identity), \
                 or `AZURE_STORAGE_ACCOUNT_KEY`, or `AZURE_USE_AZURE_CLI=true` after `az login`"
            }
            Self::S3 { .. } => {
                "`AWS_ROLE_ARN` and `AWS_WEB_IDENTITY_TOKEN_FILE`, or `AWS_ACCESS_KEY_ID` and \
                 `AWS_SECRET_ACCESS_KEY`"
            }
        }
    }

    fn creation(&self) -> String {
        match self {
            Self::Azure { account, container } => format!(
                "create it: `az storage container create --account-name {account} --name '{container}'`"
            ),
            Self::S3 { bucket, .. } => format!("create it: `aws s3 mb s3://{bucket}`"),
        }
    }
}

/// The `<Code>` of an error answer; both services write the same element.
fn service_code(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let sane = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (sane && !code.is_empty()).then(|| code.to_owned())
}

fn http_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a HttpError> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

/// The beginning of a text, without the queries of URLs: a shared access signature is one.
fn bounded(text: &str) -> String {
    let words = text.split_whitespace().map(|word| match word.split_once('?') {
        Some((url, _)) if url.contains("://") => url,
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ").chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests;
