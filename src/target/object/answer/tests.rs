use object_store::Error;

use super::*;
use crate::target::error::Failure;

fn azure() -> Service {
    Service::Azure { account: "acme".to_owned(), container: "$web".to_owned() }
}

fn s3(prefix: &str) -> Service {
    Service::S3 { bucket: "issuers".to_owned(), prefix: prefix.to_owned() }
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
    assert!(hint(&s3(""), &denied("SignatureDoesNotMatch")).starts_with("check `AWS_ROLE_ARN`"));
    assert_eq!(hint(&s3(""), &denied("RequestTimeTooSkewed")), "set the clock of this machine");
}

#[test]
fn the_permissions_that_s3_needs_name_bucket_and_prefix() {
    assert_eq!(
        hint(&s3("/clusters/a/"), &denied("AccessDenied")),
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
