//! The credential chains of `docs/targets.md`, from the environment to an accepting store.
//!
//! Token and metadata services of clouds are not available: a scripted endpoint replaces them, following the
//! document that each test names. The stores are the real ones, except Google's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};
use signpost::clock;
use tempfile::TempDir;
use url::form_urlencoded;

use crate::support::azurite::{self, Azurite};
use crate::support::fault_proxy::Seen;
use crate::support::gcs::{Gcs, Role, ServiceAccount};
use crate::support::installation::{
    DOCUMENTS, Installation, JWKS, Service, azure_target, files, gcs_target, s3_target,
};
use crate::support::nginx::{Location, Nginx};
use crate::support::pki::KeyFiles;
use crate::support::s3::{self, S3};
use crate::support::scripted::Scripted;
use crate::support::signpost::Signpost;

const WITHIN: Duration = Duration::from_secs(90);
const ISSUER: &str = "https://oidc.example/credentials";
/// Those of AWS are never empty; versitygw rejects any other, because it supports only sessions of its own.
const SESSION: &str = "";
const ROLE: &str = "arn:aws:iam::123456789012:role/publisher";

/// An installation that publishes to one target, with a folder of keys.
struct Scene {
    folder: TempDir,
    installation: Installation,
}

impl Scene {
    fn new(target: &Value) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let keys = folder.path().join("keys");
        fs::create_dir(&keys).expect("the folder is ours");
        KeyFiles::rsa(&keys, "first");
        let keys = files(&[&keys.join("*.pub")]);
        let installation = Installation::new(ISSUER, &json!({"sources": [keys], "targets": [target]}));
        Self { folder, installation }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), content).expect("the folder is ours");
        self.path(name)
    }

    fn verb(&self, verb: &str, environment: &[(&str, &str)]) -> Signpost {
        let verb = self.installation.verb_without_credentials([verb]);
        environment.iter().fold(verb, |verb, (name, value)| verb.env(name, value))
    }

    /// Publishes with only this environment.
    #[track_caller]
    fn publishes(&self, environment: &[(&str, &str)]) {
        let told = self.verb("sync", environment).finish(WITHIN).expect_code(0);
        assert!(told.stdout.contains("wrote jwks and discovery"), "{}", told.stdout);
    }

    fn run(&self, environment: &[(&str, &str)]) -> Service {
        let mut service = self.installation.run_as(self.verb("run", environment));
        service.until("it is published", |service| writes(service) == 2);
        service
    }

    /// Adds a key and waits until it is published.
    #[track_caller]
    fn publishes_another_key(&self, service: &mut Service) {
        let before = writes(service);
        KeyFiles::rsa(&self.path("keys"), &format!("key-{before}"));
        service.until("the new key is published", |service| writes(service) > before);
    }
}

fn writes(service: &Service) -> u64 {
    let targets = service.status()["targets"].take();
    targets.as_object().and_then(|targets| targets.values().next()?["writes"].as_u64()).unwrap_or_default()
}

/// An https endpoint, which some requests require, and the file with its certificates.
struct Encrypted {
    nginx: Nginx,
    bundle: PathBuf,
}

impl Encrypted {
    fn in_front_of(twin: &Scripted, folder: &Path, others: &[&Path]) -> Self {
        let nginx = Nginx::start(&[("/", Location::Proxy(format!("{}/", twin.url())))]);
        let files = others.iter().copied().chain([nginx.ca_file()]);
        let pem: Vec<u8> = files.flat_map(|file| fs::read(file).expect("it can be read")).collect();
        let bundle = folder.join("bundle.crt");
        fs::write(&bundle, pem).expect("the folder is ours");
        Self { nginx, bundle }
    }

    fn bundle(&self) -> &str {
        text(&self.bundle)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("it is text")
}

fn form(body: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(body).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn query(seen: &Seen, name: &str) -> Option<String> {
    form(seen.query.as_deref().unwrap_or_default().as_bytes(), name)
}

fn header<'a>(seen: &'a Seen, name: &str) -> Option<&'a str> {
    seen.headers.get(name)?.to_str().ok()
}

/// A token for Azure Storage as Microsoft Entra issues it, except for its signature, which Azurite does not
/// check. Source: "Access tokens in the Microsoft identity platform".
fn entra_token() -> String {
    let now = clock::now().as_second();
    let claims = json!({
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/72f988bf-0000-0000-0000-2d7cd011db47/",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + 3600,
        "sub": "publisher",
    });
    let part = |json: Value| Base64UrlUnpadded::encode_string(json.to_string().as_bytes());
    format!("{}.{}.{}", part(json!({"alg": "RS256", "typ": "JWT"})), part(claims), "c2lnbmF0dXJl")
}

/// Source: "Microsoft identity platform and the OAuth 2.0 client credentials flow", third case.
#[test]
fn workload_identity_reads_its_token_again_when_it_rotates() {
    let azurite = Azurite::start_with_oauth();
    azurite.create_private_container("oidc");
    let entra = Scripted::start(|seen| {
        assert_eq!(seen.path, "/tenant/oauth2/v2.0/token");
        // A token that is about to expire is replaced before the next request.
        let answer = json!({"token_type": "Bearer", "expires_in": 1, "access_token": entra_token()});
        (200, answer.to_string())
    });
    let endpoint = azurite.url();
    let scene = Scene::new(&azure_target(endpoint.trim_end_matches("/devstoreaccount1"), "oidc"));
    let ca = azurite.ca_file().expect("it speaks TLS");
    let encrypted = Encrypted::in_front_of(&entra, scene.folder.path(), &[ca]);
    let token = scene.write("token", "projected-1");
    let mut service = scene.run(&[
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_FEDERATED_TOKEN_FILE", text(&token)),
        ("AZURE_AUTHORITY_HOST", &encrypted.nginx.url()),
        ("SSL_CERT_FILE", encrypted.bundle()),
    ]);
    let first = entra.seen().pop().expect("it was asked");
    for (name, value) in [
        ("grant_type", "client_credentials"),
        ("client_id", "client"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", "projected-1"),
        ("scope", "https://storage.azure.com/.default"),
    ] {
        assert_eq!(form(&first.body, name).as_deref(), Some(value), "{name}");
    }
    // The kubelet replaces a projected token an hour before it expires.
    scene.write("token", "projected-2");
    scene.publishes_another_key(&mut service);
    let last = entra.seen().pop().expect("it was asked");
    assert_eq!(form(&last.body, "client_assertion").as_deref(), Some("projected-2"));
    for document in DOCUMENTS {
        azurite.get(&format!("oidc/{document}")).expect_status(200);
    }
    assert!(!service.running.stderr().contains("projected-"), "a token in the log");
}

/// Source: "How to use managed identities for App Service", REST endpoint reference; that of a virtual
/// machine differs in its address and lacks the header.
#[test]
fn a_managed_identity_gives_the_token() {
    let azurite = Azurite::start_with_oauth();
    azurite.create_private_container("oidc");
    let identity = Scripted::start(|_| {
        let until = (clock::now().as_second() + 3600).to_string();
        (200, json!({"access_token": entra_token(), "expires_on": until, "token_type": "Bearer"}).to_string())
    });
    let endpoint = azurite.url();
    let scene = Scene::new(&azure_target(endpoint.trim_end_matches("/devstoreaccount1"), "oidc"));
    scene.publishes(&[
        ("IDENTITY_ENDPOINT", &format!("{}/msi/token", identity.url())),
        ("IDENTITY_HEADER", "of-this-app"),
        ("AZURE_CLIENT_ID", "which"),
        ("SSL_CERT_FILE", text(azurite.ca_file().expect("it speaks TLS"))),
    ]);
    let [asked] = &identity.seen()[..] else { panic!("one token is enough: {:?}", identity.seen()) };
    assert_eq!(asked.path, "/msi/token");
    assert_eq!(query(asked, "resource").as_deref(), Some("https://storage.azure.com"));
    assert_eq!(query(asked, "client_id").as_deref(), Some("which"));
    assert_eq!(
        (header(asked, "metadata"), header(asked, "x-identity-header")),
        (Some("true"), Some("of-this-app"))
    );
}

#[test]
fn a_shared_access_signature_needs_reading_creating_and_writing() {
    let azurite = Azurite::start();
    azurite.create_private_container("oidc");
    let url = azurite.url();
    let scene = Scene::new(&azure_target(url.trim_end_matches("/devstoreaccount1"), "oidc"));
    let sync = |permissions| {
        let sas = azurite::sas(permissions);
        let told = scene.verb("sync", &[("AZURE_STORAGE_SAS_KEY", &sas)]).finish(WITHIN);
        let signature = form(sas.as_bytes(), "sig").expect("it is signed");
        assert!(!told.stderr.contains(&signature) && !told.stdout.contains(&signature), "{}", told.stderr);
        told
    };
    let denied = sync("r").expect_code(2);
    assert!(denied.stderr.contains("AuthorizationPermissionMismatch"), "{}", denied.stderr);
    sync("rcw").expect_code(0);
}

/// Source: `AssumeRoleWithWebIdentity` in the API reference of AWS STS.
#[test]
fn web_identity_reads_its_token_again_when_it_rotates() {
    let s3 = S3::start();
    s3.create_bucket("oidc");
    let sts = Scripted::start(|_| {
        let (access_key, secret_key) = (s3::ACCESS_KEY, s3::SECRET_KEY);
        let credentials = format!(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
             <SessionToken>{SESSION}</SessionToken><SecretAccessKey>{secret_key}</SecretAccessKey>\
             <Expiration>{}</Expiration><AccessKeyId>{access_key}</AccessKeyId>\
             </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
            clock::now()
        );
        (200, credentials)
    });
    let scene = Scene::new(&s3_target(&s3.url(), "oidc"));
    let encrypted = Encrypted::in_front_of(&sts, scene.folder.path(), &[]);
    let token = scene.write("token", "projected-1");
    let mut service = scene.run(&[
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&token)),
        ("AWS_ENDPOINT_URL_STS", &encrypted.nginx.url()),
        ("AWS_REGION", s3::REGION),
        ("SSL_CERT_FILE", encrypted.bundle()),
    ]);
    let first = sts.seen().pop().expect("it was asked");
    for (name, value) in [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("RoleArn", ROLE),
        ("WebIdentityToken", "projected-1"),
        ("Version", "2011-06-15"),
    ] {
        assert_eq!(query(&first, name).as_deref(), Some(value), "{name}");
    }
    scene.write("token", "projected-2");
    scene.publishes_another_key(&mut service);
    let last = sts.seen().pop().expect("it was asked");
    assert_eq!(query(&last, "WebIdentityToken").as_deref(), Some("projected-2"));
    s3.get(&format!("/oidc/{JWKS}")).expect_status(200);
    assert!(!service.running.stderr().contains("projected-"), "a token in the log");
}

fn aws_credentials() -> String {
    json!({
        "AccessKeyId": s3::ACCESS_KEY,
        "SecretAccessKey": s3::SECRET_KEY,
        "Token": SESSION,
        "Expiration": clock::now().to_string(),
    })
    .to_string()
}

/// Source: "Learn how EKS Pod Identity grants pods access to AWS services".
#[test]
fn a_pod_identity_reads_its_token_again_when_it_rotates() {
    let s3 = S3::start();
    s3.create_bucket("oidc");
    let agent = Scripted::start(|_| (200, aws_credentials()));
    let scene = Scene::new(&s3_target(&s3.url(), "oidc"));
    let token = scene.write("token", "projected-1");
    let mut service = scene.run(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/v1/credentials", agent.url())),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", text(&token)),
        ("AWS_REGION", s3::REGION),
    ]);
    let authorization = || {
        let last = agent.seen().pop().expect("it was asked");
        (last.path.clone(), header(&last, "authorization").map(str::to_owned))
    };
    assert_eq!(authorization(), ("/v1/credentials".to_owned(), Some("projected-1".to_owned())));
    scene.write("token", "projected-2");
    scene.publishes_another_key(&mut service);
    assert_eq!(authorization().1.as_deref(), Some("projected-2"));
}

/// Source: "Use the Instance Metadata Service to access instance metadata", version 2.
#[test]
fn the_role_of_an_instance_gives_the_keys() {
    let s3 = S3::start();
    s3.create_bucket("oidc");
    let metadata = Scripted::start(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("PUT", "/latest/api/token") => (200, "session-of-imds".to_owned()),
        (_, _) if header(seen, "x-aws-ec2-metadata-token") != Some("session-of-imds") => (401, String::new()),
        ("GET", "/latest/meta-data/iam/security-credentials/") => (200, "publisher".to_owned()),
        ("GET", "/latest/meta-data/iam/security-credentials/publisher") => (200, aws_credentials()),
        _ => (404, String::new()),
    });
    let scene = Scene::new(&s3_target(&s3.url(), "oidc"));
    scene.publishes(&[("AWS_METADATA_ENDPOINT", &metadata.url()), ("AWS_REGION", s3::REGION)]);
    assert_eq!(metadata.seen()[0].method, "PUT");
}

/// Source: "Authenticate workloads to Google Cloud APIs using service accounts", tokens from the metadata
/// server; that of GKE answers alike for workload identity.
#[test]
fn the_metadata_server_gives_the_token() {
    let gcs = Gcs::start();
    gcs.create_bucket("oidc", false);
    gcs.allow_token("ya29.of-the-metadata-server", Role::User);
    let metadata = Scripted::start(|_| {
        let answer = json!({"access_token": "ya29.of-the-metadata-server", "expires_in": 3600, "token_type": "Bearer"});
        (200, answer.to_string())
    });
    let scene = Scene::new(&gcs_target(&gcs.url(), "oidc/c1"));
    let host = metadata.url();
    scene.publishes(&[("GCE_METADATA_HOST", host.trim_start_matches("http://"))]);
    let [asked] = &metadata.seen()[..] else { panic!("one token is enough: {:?}", metadata.seen()) };
    assert_eq!(asked.path, "/computeMetadata/v1/instance/service-accounts/default/token");
    assert_eq!(header(asked, "metadata-flavor"), Some("Google"));
}

/// The store checks the signature of the token that the key signs: AIP-4111.
#[test]
fn a_key_of_a_service_account_signs_its_own_tokens_wherever_it_is_given() {
    let gcs = Gcs::start();
    let (account, stranger) = (ServiceAccount::generate("writer"), ServiceAccount::generate("stranger"));
    gcs.allow(&account, Role::User);
    for (number, variable) in [
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_SERVICE_ACCOUNT",
        "SERVICE_ACCOUNT",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ]
    .into_iter()
    .enumerate()
    {
        let bucket = format!("bucket-{number}");
        gcs.create_bucket(&bucket, false);
        let scene = Scene::new(&gcs_target(&gcs.url(), &bucket));
        let value = |account: &ServiceAccount| match number {
            0 => account.json().to_owned(),
            _ => text(&scene.write("key.json", account.json())).to_owned(),
        };
        let refused = scene.verb("sync", &[(variable, &value(&stranger))]).finish(WITHIN).expect_code(2);
        assert!(refused.stderr.contains("access denied (`AuthenticationRequired`)"), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("hint: check `GOOGLE_APPLICATION_CREDENTIALS`"),
            "{}",
            refused.stderr
        );
        scene.publishes(&[(variable, &value(&account))]);
    }
}

/// A cluster outside Google Cloud. Sources: AIP-4117; "Method: token" of the Security Token Service API;
/// `generateAccessToken` of the IAM Service Account Credentials API.
#[test]
fn a_token_of_the_cluster_is_exchanged_for_one_of_google_and_read_again_when_it_rotates() {
    let gcs = Gcs::start();
    gcs.create_bucket("oidc", false);
    gcs.allow_token("of-the-service-account", Role::User);
    let sts = Scripted::start(|seen| {
        // A token that is about to expire is replaced before the next request.
        let federated = json!({"access_token": "federated", "expires_in": 1});
        let until = clock::now().to_string();
        let impersonated = json!({"accessToken": "of-the-service-account", "expireTime": until});
        let answer = if seen.path == "/v1/token" { federated } else { impersonated };
        (200, answer.to_string())
    });
    let scene = Scene::new(&gcs_target(&gcs.url(), "oidc"));
    let encrypted = Encrypted::in_front_of(&sts, scene.folder.path(), &[]);
    let token = scene.write("token", "projected-1\n");
    let mut file = external_account(&encrypted, &token);
    let credentials = scene.write("direct.json", file.to_string());
    gcs.allow_token("federated", Role::User);
    let environment = |credentials: &Path| {
        [
            ("GOOGLE_APPLICATION_CREDENTIALS", text(credentials).to_owned()),
            ("SSL_CERT_FILE", encrypted.bundle().to_owned()),
        ]
    };
    let direct = environment(&credentials);
    let mut service = scene.run(&direct.each_ref().map(|(name, value)| (*name, value.as_str())));
    let first = sts.seen().pop().expect("it was asked");
    for (name, value) in [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("audience", AUDIENCE),
        ("scope", "https://www.googleapis.com/auth/cloud-platform"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("subject_token", "projected-1"),
    ] {
        assert_eq!(form(&first.body, name).as_deref(), Some(value), "{name}");
    }
    scene.write("token", "projected-2");
    scene.publishes_another_key(&mut service);
    let last = sts.seen().pop().expect("it was asked");
    assert_eq!(form(&last.body, "subject_token").as_deref(), Some("projected-2"));
    assert!(!service.running.stderr().contains("projected-"), "a token in the log");
    service.stop();

    // Through a service account, from a token in JSON.
    let account =
        "/v1/projects/-/serviceAccounts/publisher@project.iam.gserviceaccount.com:generateAccessToken";
    file["service_account_impersonation_url"] = json!(format!("{}{account}", encrypted.nginx.url()));
    file["credential_source"]["format"] = json!({"type": "json", "subject_token_field_name": "jwt"});
    scene.write("token", json!({"jwt": "projected-3"}).to_string());
    let credentials = scene.write("impersonated.json", file.to_string());
    let impersonated = environment(&credentials);
    let impersonated = impersonated.each_ref().map(|(name, value)| (*name, value.as_str()));
    let told = scene.verb("sync", &impersonated).finish(WITHIN).expect_code(0);
    assert!(told.stdout.contains("unchanged"), "{}", told.stdout);
    let seen = sts.seen();
    let [.., exchanged, last] = &seen[..] else { panic!("two requests") };
    assert_eq!(form(&exchanged.body, "subject_token").as_deref(), Some("projected-3"));
    assert_eq!((last.path.as_str(), header(last, "authorization")), (account, Some("Bearer federated")));
}

const AUDIENCE: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/cluster";

fn external_account(encrypted: &Encrypted, token: &Path) -> Value {
    json!({
        "type": "external_account",
        "audience": AUDIENCE,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{}/v1/token", encrypted.nginx.url()),
        "credential_source": {"file": token},
    })
}

#[test]
fn a_refused_exchange_says_why_and_shows_no_token() {
    let gcs = Gcs::start();
    gcs.create_bucket("oidc", false);
    let sts = Scripted::start(|_| {
        let answer = json!({"error": "invalid_grant", "error_description": "projected-1 is not trusted"});
        (400, answer.to_string())
    });
    let scene = Scene::new(&gcs_target(&gcs.url(), "oidc"));
    let encrypted = Encrypted::in_front_of(&sts, scene.folder.path(), &[]);
    let token = scene.write("token", "projected-1");
    let file = scene.write("file.json", external_account(&encrypted, &token).to_string());
    let environment =
        [("GOOGLE_APPLICATION_CREDENTIALS", text(&file)), ("SSL_CERT_FILE", encrypted.bundle())];
    let told = scene.verb("sync", &environment).finish(WITHIN).expect_code(2);
    assert_eq!(
        told.stderr,
        format!(
            "error: cannot read `openid/v1/jwks` of target `gcs`\n  \
             cause: the token of the cluster was exchanged for none: `{}/v1/token` answered `400 Bad Request` \
             (`invalid_grant`), expected `200 OK`\n  \
             hint: check the file of `GOOGLE_APPLICATION_CREDENTIALS`, and what its workload identity pool \
             accepts\n",
            encrypted.nginx.url()
        )
    );
}
