//! Interprets the answers of a store, and suggests remedies.
//!
//! `object_store` keeps statuses and error codes only in texts, which contain whole answers and URLs. The
//! code is extracted from the text; as little as possible of the rest is shown.

use object_store::{
    Error,
    client::{HttpError, HttpErrorKind},
};

use crate::{
    core::tls_fault::TlsFault,
    http_client::innermost,
    target::{
        connections::NoMetadata,
        error::{Cause, Failure},
    },
};

use super::{Service, federation::NoToken};

/// The codes that refuse a conditional write because of its condition.
///
/// Others have the same statuses (409, 412) and do not go away after another read, such as `LeaseIdMissing`
/// and `BlobImmutableDueToPolicy`.
/// Sources: "Blob Storage error codes" of Azure; "Error responses" of the Amazon S3 API; "HTTP status and
/// error codes for XML" of Google Cloud Storage.
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

/// The codes that mean invalid credentials rather than missing permissions.
const WRONG_CREDENTIALS: [&str; 8] = [
    "AuthenticationFailed",
    "AuthenticationRequired",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidAuthenticationInfo",
    "InvalidToken",
    "NoAuthenticationInformation",
    "SignatureDoesNotMatch",
];

/// Longest text of an unknown failure that is shown, in characters.
const MAX_TEXT: usize = 500;

impl Service {
    /// `Ok` when the error means that only the object is missing.
    pub(super) fn absent(&self, error: &Error) -> Result<(), Cause> {
        match (error, self.cause(error)) {
            (_, cause @ Cause::NoContainer { .. }) => Err(cause),
            (Error::NotFound { .. }, _) => Ok(()),
            (_, cause) => Err(cause),
        }
    }

    pub(super) fn not_written(&self, error: &Error) -> Failure {
        let lost = matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. })
            && service_code(&error.to_string()).is_none_or(|code| LOST_RACE.contains(&code.as_str()));
        if lost { Failure::LostRace } else { Failure::Cause(self.cause(error)) }
    }

    /// Why no store could be built: everything but its address comes from the environment.
    pub(super) fn not_built(&self, error: &Error) -> Cause {
        // Skips the outermost error, which only names the type of store.
        let reason = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        Cause::Environment { reason: bounded(&reason), variables: self.credentials() }
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
            (None, _) if let Some(NoToken(reason)) = in_chain(error) => Cause::NoToken(reason.clone()),
            (None, _) if text.contains("redirect without LOCATION") => Cause::OtherRegion,
            (None, _) if let Some(fault) = TlsFault::of(error) => Cause::Tls(fault),
            (None, _) if let Some(none) = in_chain::<NoMetadata>(error) => Cause::NoCredentials(none.clone()),
            (None, _) => match in_chain(error).map(HttpError::kind) {
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
            Self::S3 { bucket, .. } | Self::Gcs { bucket } => {
                Cause::NoContainer { kind: "bucket", name: bucket.clone() }
            }
        }
    }

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
            Cause::NoCredentials(_) => Some(format!("set {}{}", self.credentials(), self.unread())),
            Cause::NoToken(_) => Some(
                "check the file of `GOOGLE_APPLICATION_CREDENTIALS`, and what its workload identity pool accepts"
                    .to_owned(),
            ),
            Cause::NoContainer { .. } => Some(self.creation()),
            Cause::OtherRegion => Some("set `AWS_REGION` to the region of the bucket".to_owned()),
            Cause::NotPublic { code, .. } => Some(self.publicity(code.as_deref())),
            _ => None,
        }
    }

    /// How to permit anonymous reads, but not anonymous listing.
    pub(super) fn publicity(&self, code: Option<&str>) -> String {
        match self {
            Self::Azure { account, .. } if code == Some("PublicAccessNotPermitted") => format!(
                "let the account have public containers: `az storage account update --name {account} \
                 --allow-blob-public-access true`"
            ),
            Self::Azure { account, container } => format!(
                "allow public reads: `az storage container set-permission --account-name {account} --name \
                 '{container}' --public-access blob`"
            ),
            Self::S3 { bucket, prefix } => format!(
                "allow public reads: allow `s3:GetObject` on `{}` to `*` in the policy of the bucket, and lift \
                 its block of public access",
                objects(bucket, prefix)
            ),
            Self::Gcs { bucket } => format!(
                "allow public reads: `gcloud storage buckets add-iam-policy-binding gs://{bucket} \
                 --member=allUsers --role=roles/storage.legacyObjectReader`, and lift its public access \
                 prevention"
            ),
        }
    }

    fn permission(&self) -> String {
        match self {
            Self::Azure { account, container } => format!(
                "give the writer the role `Storage Blob Data Contributor` on container `{container}` of \
                 storage account `{account}`"
            ),
            // Without the permission to list, S3 answers 403 in place of 404; so does the next.
            Self::S3 { bucket, prefix } => format!(
                "give the writer `s3:GetObject` and `s3:PutObject` on `{}` and `s3:ListBucket` on \
                 `arn:aws:s3:::{bucket}`",
                objects(bucket, prefix)
            ),
            // Of the narrower roles, one cannot replace an object and the other cannot list.
            Self::Gcs { bucket } => {
                format!("give the writer the role `roles/storage.objectUser` on bucket `{bucket}`")
            }
        }
    }

    pub(super) fn credentials(&self) -> &'static str {
        match self {
            Self::Azure { .. } => {
                "`AZURE_CLIENT_ID`, `AZURE_TENANT_ID` and `AZURE_FEDERATED_TOKEN_FILE` (workload identity), \
                 or `AZURE_STORAGE_ACCOUNT_KEY`, or `AZURE_USE_AZURE_CLI=true` after `az login`"
            }
            Self::S3 { .. } => {
                "`AWS_ROLE_ARN` and `AWS_WEB_IDENTITY_TOKEN_FILE`, or `AWS_ACCESS_KEY_ID` and \
                 `AWS_SECRET_ACCESS_KEY`"
            }
            Self::Gcs { .. } => "`GOOGLE_APPLICATION_CREDENTIALS` or `GOOGLE_SERVICE_ACCOUNT_KEY`",
        }
    }

    /// The configuration of other tools that is not read, and how to provide it.
    fn unread(&self) -> &'static str {
        match self {
            Self::Azure { .. } => {
                "; a connection string is not read: set its `AccountKey` as `AZURE_STORAGE_ACCOUNT_KEY`"
            }
            Self::S3 { .. } => {
                "; profiles (`AWS_PROFILE`, `~/.aws`) are not read: take one up with `eval \"$(aws configure \
                 export-credentials --format env)\"`"
            }
            Self::Gcs { .. } => {
                "; the login of `gcloud auth login` is not read: `gcloud auth application-default login` makes one \
                 that is"
            }
        }
    }

    fn creation(&self) -> String {
        match self {
            Self::Azure { account, container } => format!(
                "create it: `az storage container create --account-name {account} --name '{container}'`"
            ),
            Self::S3 { bucket, .. } => format!("create it: `aws s3 mb s3://{bucket}`"),
            Self::Gcs { bucket } => format!("create it: `gcloud storage buckets create gs://{bucket}`"),
        }
    }
}

/// The resource name in S3 policies for the objects below a prefix.
fn objects(bucket: &str, prefix: &str) -> String {
    let below = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    format!("arn:aws:s3:::{bucket}/{below}*")
}

/// The `<Code>` of an error answer; all services use the same element.
pub(in crate::target) fn service_code(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let sane = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (sane && !code.is_empty()).then(|| code.to_owned())
}

/// The first error of this type in the chain of causes.
fn in_chain<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
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
