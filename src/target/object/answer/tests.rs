use object_store::aws::AmazonS3Builder;

use super::*;
use crate::{core::text::Hint, target::TargetError};

fn azure() -> Service {
    Service::Azure { account: "acme".to_owned(), container: "$web".to_owned() }
}

fn s3(prefix: &str) -> Service {
    Service::S3 { bucket: "issuers".to_owned(), prefix: prefix.to_owned() }
}

fn gcs() -> Service {
    Service::Gcs { bucket: "issuers".to_owned() }
}

fn answer(code: &str) -> Box<dyn std::error::Error + Send + Sync> {
    format!("Server returned non-2xx status code: <Error><Code>{code}</Code><x>secret</x></Error>").into()
}

fn denied(code: &str) -> Error {
    Error::PermissionDenied { path: "p".to_owned(), source: answer(code) }
}

fn hint(service: &Service, error: &Error) -> String {
    service.hint(&service.cause(error)).expect("there is something to do about it")
}

#[test]
fn wrong_credentials_are_told_from_missing_permissions() {
    let hint_of = |code| hint(&azure(), &denied(code));
    assert!(hint_of("AuthenticationFailed").starts_with("check `AZURE_CLIENT_ID`"));
    assert_eq!(
        hint_of("AuthorizationPermissionMismatch"),
        "give the writer the role `Storage Blob Data Contributor` on container `$web` of storage account `acme`"
    );
    let both = hint_of("AuthorizationFailure");
    assert!(both.contains("`Storage Blob Data Contributor`") && both.contains("`AZURE_CLIENT_ID`"), "{both}");
    assert!(hint(&s3(""), &denied("SignatureDoesNotMatch")).starts_with("check `AWS_ROLE_ARN`"));
    assert_eq!(hint(&s3(""), &denied("RequestTimeTooSkewed")), "set the clock of this machine");
}

#[test]
fn the_permissions_that_s3_needs_name_bucket_and_prefix() {
    assert_eq!(
        hint(&s3("clusters/a"), &denied("AccessDenied")),
        "give the writer `s3:GetObject` and `s3:PutObject` on `arn:aws:s3:::issuers/clusters/a/*` and \
         `s3:ListBucket` on `arn:aws:s3:::issuers`"
    );
    assert!(hint(&s3(""), &denied("AccessDenied")).contains("`arn:aws:s3:::issuers/*`"));
}

#[test]
fn a_missing_container_is_not_a_missing_object() {
    let missing = |code| Error::NotFound { path: "p".to_owned(), source: answer(code) };
    assert!(azure().absent(&missing("BlobNotFound")).is_ok());
    assert!(s3("").absent(&missing("NoSuchKey")).is_ok());

    let cause = azure().absent(&missing("ContainerNotFound")).expect_err("the container is missing");
    assert_eq!(cause.to_string(), "there is no container `$web`");
    assert_eq!(
        azure().hint(&cause).as_deref(),
        Some("create it: `az storage container create --account-name acme --name '$web'`")
    );
    let cause = s3("").absent(&missing("NoSuchBucket")).expect_err("the bucket is missing");
    assert_eq!(s3("").hint(&cause).as_deref(), Some("create it: `aws s3 mb s3://issuers`"));
}

#[test]
fn a_bucket_of_google_is_told_in_the_words_of_gcloud() {
    assert_eq!(
        hint(&gcs(), &denied("AccessDenied")),
        "give the writer the role `roles/storage.objectUser` on bucket `issuers`"
    );
    assert!(hint(&gcs(), &denied("AuthenticationRequired")).starts_with("check `GOOGLE_APPLICATION"));
    let missing = Error::NotFound { path: "p".to_owned(), source: answer("NoSuchBucket") };
    assert_eq!(hint(&gcs(), &missing), "create it: `gcloud storage buckets create gs://issuers`");
    let unreachable = without_credentials("metadata.google.internal");
    assert!(hint(&gcs(), &unreachable).starts_with("set `GOOGLE_APPLICATION_CREDENTIALS`"));
}

#[test]
fn a_private_place_is_told_how_to_become_public() {
    let hint = |service: Service, code: Option<&str>| {
        let status = reqwest::StatusCode::FORBIDDEN;
        service.hint(&Cause::NotPublic { status, code: code.map(str::to_owned) }).expect("it can be")
    };
    let account = hint(azure(), Some("PublicAccessNotPermitted"));
    assert!(account.contains("`az storage account update --name acme"), "{account}");
    let container = hint(azure(), Some("ResourceNotFound"));
    assert!(container.contains("--name '$web' --public-access blob`"), "{container}");
    assert!(hint(s3("c1"), None).contains("`s3:GetObject` on `arn:aws:s3:::issuers/c1/*` to `*`"));
    assert!(hint(gcs(), None).contains("gs://issuers --member=allUsers"));
}

#[test]
fn only_a_failed_condition_is_a_lost_race() {
    let refused = |code| Error::Precondition { path: "p".to_owned(), source: answer(code) };
    assert!(matches!(azure().not_written(&refused("ConditionNotMet")), Failure::LostRace));
    assert!(matches!(s3("").not_written(&refused("PreconditionFailed")), Failure::LostRace));
    match azure().not_written(&refused("LeaseIdMissing")) {
        Failure::Cause(cause) => assert_eq!(cause.to_string(), "the answer was `LeaseIdMissing`"),
        Failure::LostRace => panic!("a leased blob stays leased"),
    }
}

#[test]
fn an_answer_is_never_shown_whole() {
    for error in [denied("AuthenticationFailed"), Error::Generic { store: "S3", source: answer("Odd") }] {
        let shown = format!("{:?}", azure().cause(&error));
        assert!(!shown.contains("secret"), "{shown}");
    }
}

#[test]
fn a_shared_access_signature_is_never_shown() {
    let source = "error performing GET https://acme.example/c/p?sv=1&sig=secret in 3 s".into();
    let cause = azure().cause(&Error::Generic { store: "MicrosoftAzure", source });
    assert_eq!(cause.to_string(), "error performing GET https://acme.example/c/p in 3 s");
}

#[derive(Debug, thiserror::Error)]
#[error("error performing {url}: {source}")]
struct Performing {
    url: &'static str,
    source: HttpError,
}

fn transport(url: &'static str, kind: HttpErrorKind) -> Error {
    let source = HttpError::new(kind, std::io::Error::other("no route to host"));
    Error::Generic { store: "S3", source: Performing { url, source }.into() }
}

fn without_credentials(service: &str) -> Error {
    let none = NoMetadata { service: service.to_owned(), reason: "no route to host".to_owned() };
    let source = Performing { url: "GET REDACTED", source: HttpError::new(HttpErrorKind::Connect, none) };
    Error::Generic { store: "S3", source: source.into() }
}

#[test]
fn a_service_that_cannot_be_reached_says_why() {
    let cause = |kind| s3("").cause(&transport("GET https://store.example/k", kind)).to_string();
    assert_eq!(cause(HttpErrorKind::Connect), "cannot connect: no route to host");
    assert_eq!(cause(HttpErrorKind::Timeout), "no answer within 10 s");
}

#[test]
fn an_environment_without_credentials_is_told_which_variables_to_set() {
    let error = without_credentials("169.254.169.254");
    assert_eq!(
        s3("").cause(&error).to_string(),
        "the environment has no credentials, and the metadata service gave none: `169.254.169.254`: no route to host"
    );
    let hint = hint(&s3(""), &error);
    assert!(hint.starts_with("set `AWS_ROLE_ARN`") && hint.contains("`AWS_PROFILE`"), "{hint}");
}

#[test]
fn credentials_that_are_incomplete_are_told_with_their_variables() {
    let half = AmazonS3Builder::new().with_bucket_name("issuers").with_access_key_id("AKEXAMPLE");
    let cause = s3("").not_built(&half.build().expect_err("the secret is missing"));
    assert_eq!(cause.to_string(), "Missing SecretAccessKey");
    let error = TargetError::new("eu", "set up", None, cause);
    assert!(error.hint().expect("there is something to do about it").starts_with("check `AWS_ROLE_ARN`"));
}
