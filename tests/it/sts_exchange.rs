//! `signpost exchange aws` and `signpost exchange gcp` against the twins, with tokens of a real cluster.
//!
//! The twins verify tokens with `PyJWT` and name what they follow; AWS and Google themselves were not asked.

use std::{fs, process::Command, sync::Arc, time::Duration};

use serde_json::{Value, json};
use signpost::core::sts::{aws, google};
use tempfile::TempDir;

use crate::support::{
    cluster::{Cluster, ISSUER},
    components,
    google_twin::{AUDIENCE, GoogleTwin, PROVIDER},
    signpost::{Finished, Signpost},
    sts_twin::StsTwin,
};

const WITHIN: Duration = Duration::from_mins(1);
const ROLE: &str = "arn:aws:iam::123456789012:role/app";
const SUBJECT: &str = "system:serviceaccount:default:signpost";
const ACCOUNT: &str = "app@project.iam.gserviceaccount.com";

/// A cluster, and its documents as files.
struct Stage {
    cluster: Arc<Cluster>,
    folder: TempDir,
}

impl Stage {
    fn set() -> Self {
        let cluster = Cluster::shared();
        let folder = TempDir::new().expect("a temporary folder");
        let keys = cluster.keys.iter().flat_map(|key| ["--source".as_ref(), key.public.as_os_str()]);
        let arguments = ["jwks".as_ref(), "--issuer".as_ref(), ISSUER.as_ref(), "--output-dir".as_ref()];
        Signpost::new(arguments.into_iter().chain([folder.path().as_os_str()]).chain(keys))
            .finish(WITHIN)
            .expect_code(0);
        Self { cluster, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a name of ours").to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).expect("the folder can be written");
        self.path(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("it was written")
    }

    /// Writes a token into the file that programs of the pod read.
    fn token(&self, audience: &str) -> String {
        self.write("token", &self.cluster.server.token("default", "signpost", &[audience], 600))
    }

    fn exchange(&self, arguments: &[&str]) -> Signpost {
        let [discovery, jwks] =
            [".well-known/openid-configuration", "openid/v1/jwks"].map(|name| self.path(name));
        let documents = ["--discovery", &discovery, "--jwks", &jwks];
        Signpost::new(["exchange"].iter().chain(arguments).chain(&documents))
    }

    fn documents(&self) -> Value {
        json!({
            (format!("{ISSUER}/.well-known/openid-configuration")): self.read(".well-known/openid-configuration"),
            (format!("{ISSUER}/openid/v1/jwks")): self.read("openid/v1/jwks"),
        })
    }

    fn aws(&self) -> StsTwin {
        StsTwin::start(
            "aws_twin.py",
            &json!({
                "providers": {ISSUER: ["sts.amazonaws.com"]},
                "roles": {ROLE: {"issuer": ISSUER, "sub": SUBJECT, "aud": "sts.amazonaws.com"}},
                "documents": self.documents(),
            }),
        )
    }

    /// The command with the environment that the webhook of EKS sets.
    fn at_aws(&self, twin: &StsTwin, arguments: &[&str]) -> Finished {
        self.exchange(&[&["aws"], arguments].concat())
            .env("AWS_ROLE_ARN", ROLE)
            .env("AWS_WEB_IDENTITY_TOKEN_FILE", self.path("token"))
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_ENDPOINT_URL_STS", twin.url())
            .finish(WITHIN)
    }

    fn google(&self) -> GoogleTwin {
        let twin = GoogleTwin::start(ISSUER);
        twin.edit(|provider| provider["oidc"]["jwksJson"] = json!(self.read("openid/v1/jwks")));
        twin.change(|world| world["bindings"] = json!({ACCOUNT: [SUBJECT]}));
        twin
    }

    fn at_google(&self, twin: &GoogleTwin, arguments: &[&str]) -> Finished {
        let token = self.path("token");
        let url = twin.url();
        let fixed = ["gcp", "--token", &token, "--provider", PROVIDER, "--endpoint", &url];
        self.exchange(&[&fixed, arguments].concat()).finish(WITHIN)
    }

    /// The file of `gcloud iam workload-identity-pools create-cred-config`.
    fn credential_file(&self, twin: &GoogleTwin, account: Option<&str>) -> String {
        let mut file = json!({
            "universe_domain": "googleapis.com", "type": "external_account", "audience": AUDIENCE,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/v1/token", twin.url()),
            "credential_source": {"file": self.path("token"), "format": {"type": "text"}},
        });
        if let Some(account) = account {
            let url = google::impersonation_url(&twin.url(), account);
            file["service_account_impersonation_url"] = json!(url);
        }
        self.write("google.json", &file.to_string())
    }
}

#[track_caller]
fn says(told: &Finished, parts: &[&str]) {
    let text = format!("{}{}", told.stdout, told.stderr);
    for part in parts {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn a_pod_assumes_its_role_by_its_own_environment() {
    let (stage, twin) = (Stage::set(), Stage::set().aws());
    stage.token("sts.amazonaws.com");
    let told = stage.at_aws(&twin, &[]).expect_code(0);
    says(
        &told,
        &[
            "accepted: AWS issued credentials",
            "arn:aws:sts::123456789012:assumed-role/app/signpost",
            SUBJECT,
            "predicted: accepted; as predicted",
        ],
    );
    let told = stage.at_aws(&twin, &["--output", "json"]).expect_code(0);
    let json: Value = serde_json::from_str(&told.stdout).expect("it is JSON");
    assert_eq!(json["steps"][0]["facts"]["audience"], "sts.amazonaws.com");
    assert_eq!(json["agreement"], "as predicted");
    for told in [told.stdout.as_str(), told.stderr.as_str()] {
        assert!(!told.contains("secret-of-the-twin") && !told.contains("session-of-the-twin"), "{told}");
    }
    let told = stage.at_aws(&twin, &["--print-token"]).expect_code(0);
    let process: Value = serde_json::from_str(&told.stdout).expect("what `credential_process` expects");
    assert_eq!((&process["Version"], &process["SecretAccessKey"]), (&json!(1), &json!("secret-of-the-twin")));
}

#[test]
fn each_refusal_of_aws_is_explained_beside_its_prediction() {
    let stage = Stage::set();
    let twin = stage.aws();
    let good = stage.token("sts.amazonaws.com");
    let refused = |change: &dyn Fn(&mut Value), parts: &[&str]| {
        let before = twin.world();
        twin.change(|world| change(world));
        says(&stage.at_aws(&twin, &[]).expect_code(1), parts);
        twin.change(|world| *world = before);
    };
    refused(
        &|world| world["providers"] = json!({}),
        &[
            "InvalidIdentityToken: No OpenIDConnect provider",
            "create-open-id-connect-provider",
            "cannot be predicted",
        ],
    );
    refused(
        &|world| world["roles"] = json!({}),
        &["answered AccessDenied", "trust policy", "cannot be predicted"],
    );
    refused(
        &|world| world["documents"] = json!({}),
        &["retrieve verification key", "means: AWS found no key", "not predicted: it was to be accepted"],
    );
    refused(
        &|world| world["now"] = json!(4_000_000_000_u32),
        &["answered ExpiredTokenException", "not predicted: it was to be accepted"],
    );
    fs::rename(good, stage.path("kept")).expect("the folder is ours");
    stage.token("api://AzureADTokenExchange");
    refused(
        &|_| {},
        &["Incorrect token audience", "fix: project the token with `audience: sts.amazonaws.com`"],
    );
}

#[test]
fn a_token_leaves_for_no_other_host() {
    let stage = Stage::set();
    let token = stage.token("sts.amazonaws.com");
    for url in [
        "https://sts.example",
        "http://sts.amazonaws.com",
        "https://sts.amazonaws.com:444",
        "https://sts.googleapis.com",
    ] {
        let told =
            stage.exchange(&["aws", "--token", &token, "--role-arn", ROLE, "--endpoint", url]).finish(WITHIN);
        says(
            &told.expect_code(2),
            &["is no token endpoint of AWS", "pass one of `https://sts.amazonaws.com`"],
        );
    }
    let fixed = ["gcp", "--token", &token, "--provider", PROVIDER, "--endpoint", "https://sts.example"];
    says(&stage.exchange(&fixed).finish(WITHIN).expect_code(2), &["is no token endpoint of Google Cloud"]);
    let twin = stage.google();
    let file = stage.credential_file(&twin, None).clone();
    let text = stage.read("google.json").replace(
        "\"audience\"",
        "\"service_account_impersonation_url\": \"https://evil.example/x\", \"audience\"",
    );
    fs::write(&file, text).expect("the folder is ours");
    says(
        &stage.exchange(&["gcp", "--config", &file]).finish(WITHIN).expect_code(2),
        &["`https://evil.example/x` is no"],
    );
}

#[test]
fn a_pod_gets_a_token_of_google_and_of_its_service_account() {
    let stage = Stage::set();
    let twin = stage.google();
    stage.token(AUDIENCE);
    says(
        &stage.at_google(&twin, &[]).expect_code(0),
        &["accepted: Google Cloud issued credentials", AUDIENCE, "predicted: accepted; as predicted"],
    );
    let told = stage.at_google(&twin, &["--service-account", ACCOUNT, "--print-token"]).expect_code(0);
    assert!(told.stdout.starts_with("impersonated-"), "{}", told.stdout);
    says(&told, &[ACCOUNT]);
    let file = stage.credential_file(&twin, Some(ACCOUNT));
    let told =
        stage.exchange(&["gcp", "--print-token"]).env("GOOGLE_APPLICATION_CREDENTIALS", &file).finish(WITHIN);
    assert!(told.expect_code(0).stdout.starts_with("impersonated-"));

    let other = stage.write("key.json", r#"{"type": "service_account"}"#);
    let told =
        stage.exchange(&["gcp"]).env("GOOGLE_APPLICATION_CREDENTIALS", other).finish(WITHIN).expect_code(2);
    says(&told, &["is of type `service_account`, expected `external_account`", "create-cred-config"]);
}

#[test]
fn each_refusal_of_google_is_explained_beside_its_prediction() {
    let stage = Stage::set();
    let twin = stage.google();
    stage.token(AUDIENCE);
    let refused = |change: &dyn Fn(&mut Value), arguments: &[&str], parts: &[&str]| {
        let before = twin.world();
        twin.change(|world| change(world));
        says(&stage.at_google(&twin, arguments).expect_code(1), parts);
        twin.change(|world| *world = before);
    };
    refused(
        &|world| world["providers"] = json!({}),
        &[],
        &["answered invalid_target", "cannot be predicted"],
    );
    refused(
        &|world| world["providers"][PROVIDER]["oidc"]["jwksJson"] = json!(""),
        &[],
        &["Error connecting to the given credential's issuer", "a target `gcp-wif://…` keeps them in step"],
    );
    refused(
        &|world| world["providers"][PROVIDER]["attributeCondition"] = json!("system:serviceaccount:a:b"),
        &[],
        &["unauthorized_client", "attribute condition", "cannot be predicted"],
    );
    refused(
        &|world| world["now"] = json!(4_000_000_000_u32),
        &[],
        &["is stale to sign-in", "means: the token has expired"],
    );
    refused(
        &|world| world["bindings"] = json!({}),
        &["--service-account", ACCOUNT],
        &["refused: Google Cloud answered PERMISSION_DENIED", "roles/iam.workloadIdentityUser"],
    );
    stage.token("sts.amazonaws.com");
    refused(&|_| {}, &[], &["invalid_grant", "issuerUri"]);
}

/// google-auth is what Google's own clients in Python use.
#[test]
fn the_client_of_google_gets_the_same_token_from_the_uploaded_keys() {
    let stage = Stage::set();
    let twin = stage.google();
    stage.token(AUDIENCE);
    let file = stage.credential_file(&twin, Some(ACCOUNT));
    // `google.auth.default` asks Google for the project besides.
    let program = "import sys, google.auth.identity_pool as pool, google.auth.transport.requests as r\n\
                   c = pool.Credentials.from_file(sys.argv[1], \
                   scopes=['https://www.googleapis.com/auth/cloud-platform'])\n\
                   c.refresh(r.Request())\nprint(c.token)";
    let told = Command::new(components::path("python"))
        .env_clear()
        .args(["-c", program, &file])
        .output()
        .expect("Python starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(stdout.starts_with("impersonated-"), "{stdout}\n{stderr}");
}

/// boto3 assumes the role by the same environment, and takes what `--print-token` prints as `credential_process`.
#[test]
fn the_client_of_aws_gets_the_same_credentials() {
    let stage = Stage::set();
    let twin = stage.aws();
    stage.token("sts.amazonaws.com");
    let python = |program: &str, environment: &[(&str, &str)]| {
        let told = Command::new(components::path("python_aws"))
            .env_clear()
            .envs(environment.iter().copied())
            .env("HOME", stage.folder.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .args(["-c", program])
            .output()
            .expect("Python starts");
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        String::from_utf8_lossy(&told.stdout).into_owned()
    };
    let (token, url) = (stage.path("token"), twin.url());
    let environment = [
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("AWS_ENDPOINT_URL_STS", &url),
    ];
    let program = "import boto3; c = boto3.Session().get_credentials().get_frozen_credentials(); print(c.access_key, c.token)";
    assert_eq!(python(program, &environment).trim(), "ASIAOFTHETWIN0000000 session-of-the-twin");

    let printed = stage.at_aws(&twin, &["--print-token"]).expect_code(0).stdout;
    let printed = stage.write("printed", &printed);
    let config = stage.write("config", &format!("[default]\ncredential_process = cat {printed}\n"));
    let environment = [("AWS_CONFIG_FILE", config.as_str()), ("PATH", "/usr/bin:/bin")];
    assert_eq!(python(program, &environment).trim(), "ASIAOFTHETWIN0000000 session-of-the-twin");
}

#[test]
fn every_answer_that_is_explained_is_in_the_documentation() {
    let page = fs::read_to_string("docs/verify.md").expect("the tests run in the root");
    for row in aws::ERRORS.iter().chain(google::ERRORS) {
        let line = page.lines().find(|line| {
            line.starts_with(&format!("| `{}` |", row.code))
                && line.contains(row.says)
                && line.contains(row.meaning)
        });
        assert!(line.is_some_and(|line| line.contains(row.certainty.name())), "{row:?}");
    }
}
