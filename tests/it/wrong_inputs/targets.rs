use serde_json::json;

use super::{COULD_NOT, Transcript};
use crate::support::gcs::ServiceAccount;
use crate::support::pki::KeyFiles;
use crate::support::port::Port;
use crate::support::scripted::Scripted;

fn config(target: &str) -> String {
    format!(
        "data_dir: /nowhere\nissuers:\n  - issuer: https://k8s.example\n    sources: [{{kind: files, paths: \
         [/sa.pub]}}]\n    targets:\n      - {target}\n"
    )
}

#[test]
fn a_target_and_its_options_are_checked_before_anything_is_asked() {
    let mut it = Transcript::new();
    for (number, (what, target)) in [
        ("a bucket in capitals", "url: gs://Issuers/kind"),
        ("a bucket whose name is too short", "url: gs://ab"),
        ("a bucket that ends with a hyphen", "url: gs://issuers-/kind"),
        ("a prefix that leads out of the bucket", "url: gs://issuers/../other"),
        ("a credential in the URL", "url: \"gs://issuers/kind?access_token=secret\""),
        ("an endpoint with a path", "{url: gs://issuers, endpoint: \"http://127.0.0.1:4443/storage/v1/\"}"),
        ("an endpoint of a directory", "{url: \"file:///srv/oidc\", endpoint: \"http://127.0.0.1:4443\"}"),
        ("a requirement that is neither true nor false", "{url: gs://issuers, required_for_rotation: ajar}"),
        ("a requirement that is a number", "{url: gs://issuers, required_for_rotation: 0}"),
        ("a misspelt option", "{url: gs://issuers, require_for_rotation: false}"),
        ("anonymous readers of a directory", "{url: \"file:///srv/oidc\", anonymous: true}"),
        ("anonymous readers of a static website", "{url: \"az://account/$web\", anonymous: true}"),
        ("anonymous as text", "{url: gs://issuers, anonymous: \"yes\"}"),
        ("one place twice", "{url: gs://issuers/kind}\n      - {url: gs://issuers/kind/, name: again}"),
    ]
    .into_iter()
    .enumerate()
    {
        let file = format!("{number}.yaml");
        it.write(&file, config(target));
        it.refuses(what, &format!("config check --config {file}"), COULD_NOT);
    }
    it.compare("targets");
}

#[test]
fn credentials_that_make_no_sense_are_named_and_not_shown() {
    let mut it = Transcript::new();
    KeyFiles::rsa(it.folder.path(), "sa");
    let sync = "sync --issuer https://k8s.example --source sa.pub --target gs://issuers/kind --data-dir data";
    let key = ServiceAccount::generate("writer");
    let broken = json!({"client_email": "a@b", "private_key": "hunter2", "private_key_id": "1"}).to_string();
    it.write("broken.json", &broken);
    it.write("user.json", r#"{"type": "authorized_user", "client_id": "hunter2"}"#);
    it.write("text.json", "hunter2");
    it.write("aws.json", r#"{"type": "external_account", "audience": "a", "subject_token_type": "t",
        "token_url": "https://sts.googleapis.com/v1/token", "credential_source": {"environment_id": "aws1"}}"#);
    for (what, variables) in [
        ("credentials that are not there", &[("GOOGLE_APPLICATION_CREDENTIALS", "gone.json")][..]),
        ("credentials that are no JSON", &[("GOOGLE_APPLICATION_CREDENTIALS", "text.json")]),
        ("credentials without their secret", &[("GOOGLE_APPLICATION_CREDENTIALS", "user.json")]),
        ("a federation with another cloud", &[("GOOGLE_APPLICATION_CREDENTIALS", "aws.json")]),
        ("a key that is none", &[("GOOGLE_SERVICE_ACCOUNT", "broken.json")]),
        (
            "two keys",
            &[("GOOGLE_SERVICE_ACCOUNT", "broken.json"), ("GOOGLE_SERVICE_ACCOUNT_KEY", key.json())],
        ),
    ] {
        it.refuses_with(what, sync, COULD_NOT, |signpost| {
            variables.iter().fold(signpost, |signpost, (name, value)| signpost.env(name, value))
        });
    }
    // There is no credential service, or it has no credentials.
    let nobody = Port::free();
    let none = Scripted::start(|_| (404, String::new()));
    it.replace(nobody.address(), "ADDRESS");
    let metadata = format!("http://{}/metadata/identity/oauth2/token", nobody.address());
    let (aws, empty) = (format!("http://{}", nobody.address()), none.url());
    for (what, target, variables) in [
        ("no credentials for Azure", "az://account/$web", [("AZURE_MSI_ENDPOINT", metadata.as_str())]),
        ("no credentials for S3", "s3://issuers/kind", [("AWS_METADATA_ENDPOINT", aws.as_str())]),
        ("a machine without a role", "s3://issuers/kind", [("AWS_METADATA_ENDPOINT", empty.as_str())]),
    ] {
        let sync = sync.replace("gs://issuers/kind", target).replace("sync ", "sync --dry-run ");
        it.refuses_with(what, &sync, COULD_NOT, |signpost| {
            variables.iter().fold(signpost, |signpost, (name, value)| signpost.env(name, value))
        });
    }
    assert!(!it.text.contains("hunter2"), "{}", it.text);
    it.compare("credentials");
}
