//! `kind/up` and `kind/down`, in all steps that need no container engine.
//!
//! kind's own code shows what it would make of the rendered configuration, and a real kube-apiserver is
//! started with exactly that.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use signpost::core::jose::publication::{Document, Paths};
use tempfile::TempDir;

use crate::support::{
    api_server::{ApiServer, Options},
    azurite::{self, Azurite},
    components::{self, variable},
    etcd::Etcd,
    nginx::{Location, Nginx},
    pki::KeyFiles,
    relying_party::RelyingParty,
    signpost::Finished,
};

const AUDIENCE: &str = "api://AzureADTokenExchange";
const ISSUER: &str = "https://issuer.example/kind";
const DISCOVERY: &str = ".well-known/openid-configuration";
const JWKS: &str = "openid/v1/jwks";

#[test]
fn what_is_published_before_the_cluster_exists_verifies_its_first_token() {
    let kind = Kind::new();
    let public = kind.folder.path().join("public");
    fs::create_dir(&public).expect("the folder can be written");
    let nginx = Nginx::start(&[("/kind/", Location::Folder(public.clone()))]);
    // In the form of an Azure static website, and exactly as in every token.
    let issuer = format!("{}/kind/", nginx.url());
    let target = public.to_str().expect("a temporary folder is UTF-8");
    let arguments = ["--issuer", &issuer, "--target", target, "--only"];
    let up = |steps: &str| kind.run("up", arguments.into_iter().chain([steps]));

    up("keys,publish,config").expect_code(0);
    let published = |name: &str| fs::read(public.join(name)).expect("it is published");
    let before_the_cluster = (published(DISCOVERY), published(JWKS));
    let etcd = Etcd::start();
    let server = ApiServer::start(&etcd, kind.plan("v1.37.0").api_server_options());

    // The cluster's own documents equal byte by byte those published without it.
    assert_eq!(server.discovery().expect_status(200).body, before_the_cluster.0);
    assert_eq!(server.jwks().expect_status(200).body, before_the_cluster.1);
    server.create_service_account("default", "default");
    let token = server.token("default", "default", &[AUDIENCE], 600);
    for party in RelyingParty::ALL {
        let claims = party.verify(&issuer, AUDIENCE, Some(nginx.ca_file()), &token).expect("a valid token");
        assert_eq!(claims["sub"], "system:serviceaccount:default:default", "{party:?}");
    }
    let review = server.review(&server.token("default", "default", &[], 600), &[]);
    assert_eq!(review["authenticated"], true, "{review}");
    let review = server.review(&token, &[]);
    assert_eq!(review["authenticated"], Value::Null, "an exchange token is let in: {review}");

    // The last step of `up`, which finds the cluster under the context that kind would have created.
    let kubeconfig = kind.kubeconfig(&server);
    let mut verify = kind.command("up", arguments.into_iter().chain(["verify"]));
    verify.env("KUBECONFIG", &kubeconfig).env("SSL_CERT_FILE", nginx.ca_file());
    let verified = finish(&mut verify).expect_code(0);
    assert!(verified.stdout.contains("accepted"), "{verified:?}");

    // The printed next step works when pasted.
    let advice = verified.stderr.lines().last().expect("advice").trim();
    let sync = finish(kind.clean("bash").args(["-c", advice]).env("KUBECONFIG", &kubeconfig)).expect_code(0);
    assert!(sync.stdout.contains("unchanged"), "{sync:?}");
    assert_eq!((published(DISCOVERY), published(JWKS)), before_the_cluster);
}

#[test]
fn every_kubeadm_gets_the_flags_and_the_directory_of_the_keys() {
    let kind = Kind::new();
    kind.up(["--only", "keys,config"]).expect_code(0);
    for (kubernetes, kubeadm) in [("v1.31.4", "v1beta3"), ("v1.35.0", "v1beta3"), ("v1.37.0", "v1beta4")] {
        let plan = kind.plan(kubernetes);
        assert_eq!(plan.0["clusterConfiguration"]["apiVersion"], format!("kubeadm.k8s.io/{kubeadm}"));
        let mount = &plan.0["mounts"][0];
        assert_eq!(mount["hostPath"].as_str().map(Path::new), Some(kind.keys().as_path()));
        assert_eq!(mount["readOnly"], true);
        let mut api_server = plan.arguments("apiServer");
        // Kind's default; empty unless configured.
        assert_eq!(api_server.remove("runtime-config").as_deref(), Some(""));
        let expected = [
            ("service-account-issuer", ISSUER),
            ("service-account-jwks-uri", "https://issuer.example/kind/openid/v1/jwks"),
            ("service-account-key-file", "/etc/kubernetes/pki/signpost/sa.pub"),
            ("service-account-signing-key-file", "/etc/kubernetes/pki/signpost/sa.key"),
        ];
        assert_eq!(api_server, BTreeMap::from(expected.map(|(name, value)| (name.into(), value.into()))));
        assert_eq!(
            plan.arguments("controllerManager")["service-account-private-key-file"],
            "/etc/kubernetes/pki/signpost/sa.key"
        );
    }
}

#[test]
fn up_again_changes_nothing_and_never_shows_the_key() {
    let kind = Kind::new();
    let first = kind.up(["--only", "keys,publish,config"]).expect_code(0);
    let contents = || {
        let files = ["keys/sa.key", "keys/sa.pub", "cluster.yaml", "documents/openid/v1/jwks"];
        files.map(|file| fs::read(kind.state().join(file)).expect("it was made"))
    };
    let before = contents();
    let key = kind.keys().join("sa.key");
    assert_eq!(mode(&key), 0o600);
    // A copy has lost its mode.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("it is ours");
    fs::set_permissions(kind.keys(), fs::Permissions::from_mode(0o755)).expect("it is ours");

    let second = kind.up(["--only", "keys,publish,config"]).expect_code(0);

    assert_eq!(contents(), before);
    assert_eq!(mode(&key), 0o600);
    assert_eq!(mode(&kind.keys()), 0o700);
    // A web server must be able to read it.
    assert_eq!(mode(&kind.folder.path().join("home/public").join(JWKS)), 0o644);
    assert!(second.stdout.contains("unchanged"), "{second:?}");
    // The first six lines are the modulus, which is public; the private exponent follows.
    let pem = String::from_utf8(before[0].clone()).expect("PEM is text");
    let secret = pem.lines().nth(9).expect("a key has 28 lines");
    for said in [&first.stdout, &first.stderr, &second.stdout, &second.stderr] {
        assert!(!said.contains(secret), "{said}");
    }
    for file in walk(kind.folder.path()) {
        let text = String::from_utf8_lossy(&fs::read(&file).expect("it can be read")).into_owned();
        assert!(file == key || !text.contains(secret), "{} holds the key", file.display());
    }
}

#[test]
fn a_key_that_the_cluster_could_not_verify_is_not_published() {
    let kind = Kind::new();
    kind.up(["--only", "keys"]).expect_code(0);
    let other = KeyFiles::rsa(kind.folder.path(), "other");
    fs::copy(&other.public, kind.keys().join("sa.pub")).expect("it can be copied");
    let refused = kind.up(["--only", "publish"]).expect_code(2);
    assert!(refused.stderr.contains("lacks the public half of `sa.key`"), "{refused:?}");
    assert!(!kind.folder.path().join("home/public").exists());
}

#[test]
fn a_cluster_keeps_the_issuer_that_it_was_created_with() {
    let kind = Kind::new();
    kind.up(["--only", "keys,publish,config"]).expect_code(0);
    // The result of the step `cluster`.
    fs::copy(kind.state().join("cluster.yaml"), kind.state().join("cluster.created.yaml")).expect("a copy");
    kind.up(["--only", "keys,publish,config"]).expect_code(0);
    let refused = kind.run("up", ["--issuer", "https://other.example", "--target", "public"]).expect_code(2);
    assert!(refused.stderr.contains("created with another issuer"), "{refused:?}");
}

#[test]
fn down_keeps_the_keys_unless_told_otherwise() {
    let kind = Kind::new();
    kind.up(["--only", "keys,publish"]).expect_code(0);
    let kept = kind.run("down", []).expect_code(0);
    assert!(kept.stderr.contains("--delete-keys"), "{kept:?}");
    assert!(kind.keys().join("sa.key").exists());
    kind.run("down", ["--delete-keys"]).expect_code(0);
    assert!(!kind.keys().exists());

    // The ledger stayed: tokens of the old key may still be valid, so it is still published beside the new
    // one.
    kind.up(["--only", "keys,publish"]).expect_code(0);
    let jwks = fs::read(kind.folder.path().join("home/public").join(JWKS)).expect("it is published");
    let jwks: Value = serde_json::from_slice(&jwks).expect("JSON");
    assert_eq!(jwks["keys"].as_array().map(Vec::len), Some(2), "{jwks}");
}

#[test]
fn all_that_is_missing_is_named_before_anything_happens() {
    let kind = Kind::new();
    let tools = kind.folder.path().join("tools");
    fs::create_dir(&tools).expect("the folder can be written");
    for tool in ["bash", "dirname", "cat"] {
        let path = variable("PATH").expect("PATH is set");
        let found = std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|file| file.exists());
        symlink(found.expect("every machine has it"), tools.join(tool)).expect("a new name");
    }
    let arguments = ["--issuer", ISSUER, "--target", "public"];
    let refused = finish(kind.command("up", arguments).env("PATH", &tools).env("SIGNPOST", "signpost"));
    let refused = refused.expect_code(2);
    for tool in ["signpost", "openssl", "kind", "docker", "kubectl"] {
        assert!(refused.stderr.contains(&format!("\n  {tool} (")), "{refused:?}");
    }
    assert!(!kind.state().exists());
}

#[test]
fn wrong_arguments_of_up_are_refused_with_a_hint() {
    let kind = Kind::new();
    for (arguments, reason) in [
        (&["--target", "public"][..], "there is no issuer"),
        (&["--issuer", ISSUER], "there is no target"),
        (&["--issuer", "http://issuer.example", "--target", "public"], "is no https URL"),
        (&["--issuer", "https://a.example/\"x", "--target", "public"], "has a character"),
        (&["--issuer", ISSUER, "--target", "public", "--only", "key"], "unknown step `key`"),
        (&["--issuer", ISSUER, "--target", "public", "--name", "../up"], "no name of a cluster"),
        (&["--issuer", ISSUER, "--target"], "has no value"),
        (&["--isuer", ISSUER], "unknown argument `--isuer`"),
    ] {
        let refused = kind.run("up", arguments.iter().copied()).expect_code(2);
        assert!(refused.stderr.contains(reason), "{refused:?}");
    }
}

/// The cluster of the guides: key and documents were created and uploaded by hand.
#[test]
fn documents_that_were_uploaded_by_hand_are_taken_over_with_their_keys() {
    let folder = TempDir::new().expect("a temporary folder");
    let azurite = Azurite::start();
    azurite.create_public_container("oidc");
    let store = format!("{}/oidc/", azurite.url());
    let nginx = Nginx::start(&[("/oidc/", Location::Proxy(store))]);
    let issuer = format!("{}/oidc", nginx.url());
    // One file is both the signing key and the verification key.
    let key = KeyFiles::rsa(folder.path(), "sa-signer").private;
    let etcd = Etcd::start();
    let options = Options {
        issuers: vec![issuer.clone()],
        signing_key: Some(key.clone()),
        verification_keys: vec![key.clone()],
        port: None,
        extra_flags: vec![format!("--api-audiences={AUDIENCE},https://kubernetes.default.svc")],
        host: None,
    };
    let server = ApiServer::start(&etcd, options);
    let by_hand = format!(
        "{{\n  \"issuer\": \"{issuer}\",\n  \"jwks_uri\": \"{issuer}/{JWKS}\",\n  \
         \"response_types_supported\": [\"id_token\"],\n  \"subject_types_supported\": [\"public\"],\n  \
         \"id_token_signing_alg_values_supported\": [\"RS256\"]\n}}\n"
    );
    azurite.put(&format!("oidc/{DISCOVERY}"), "application/json", by_hand);
    // A key of the previous cluster, whose tokens may still be valid: only the target has it.
    let mut jwks = server.jwks().expect_status(200).json();
    let earlier = KeyFiles::rsa(folder.path(), "earlier");
    let kind = Kind::new();
    let listed =
        finish(kind.clean(env!("CARGO_BIN_EXE_signpost")).arg("jwks").arg("--source").arg(earlier.public));
    let listed: Value = serde_json::from_str(&listed.expect_code(0).stdout).expect("JSON");
    let signs = jwks["keys"][0].clone();
    jwks["keys"].as_array_mut().expect("a list").push(listed["keys"][0].clone());
    azurite.put(&format!("oidc/{JWKS}"), "application/json", jwks.to_string());
    let config = folder.path().join("signpost.yaml");
    fs::write(
        &config,
        format!(
            "issuers:\n  - targets:\n      - url: az://{}/oidc\n        endpoint: {}\n        public_url: {issuer}\n",
            azurite::ACCOUNT,
            azurite.url()
        ),
    )
    .expect("the folder can be written");

    let sync = || {
        let mut command = kind.clean(env!("CARGO_BIN_EXE_signpost"));
        command
            .args(["sync", "--issuer", &issuer, "--source", "kubernetes:kind-signpost", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(folder.path().join("ledger"))
            .env("KUBECONFIG", kind.kubeconfig(&server))
            .env("SSL_CERT_FILE", nginx.ca_file())
            .env("AZURE_STORAGE_ACCOUNT_KEY", azurite::ACCOUNT_KEY);
        finish(&mut command)
    };
    let taken = sync().expect_code(0);

    assert!(taken.stdout.contains("unmanaged key"), "{taken:?}");
    let jwks = azurite.get(&format!("oidc/{JWKS}")).expect_status(200);
    let kids: Vec<_> =
        jwks.json()["keys"].as_array().expect("a list").iter().map(|key| key["kid"].clone()).collect();
    assert_eq!(kids.len(), 2, "{kids:?}");
    assert!(kids.contains(&signs["kid"]) && kids.contains(&listed["keys"][0]["kid"]), "{kids:?}");
    for document in Document::IN_WRITE_ORDER {
        let blob = azurite.get(&format!("oidc/{}", Paths::default().of(document))).expect_status(200);
        assert_eq!(blob.header("content-type"), Some("application/json"));
        assert_eq!(blob.header("cache-control"), Some("public, max-age=300"));
        assert!(
            blob.headers.keys().any(|name| name.as_str().starts_with("x-ms-meta-")),
            "{:?}",
            blob.headers
        );
    }
    server.create_service_account("default", "default");
    let token = server.token("default", "default", &[AUDIENCE], 600);
    for party in RelyingParty::ALL {
        party.verify(&issuer, AUDIENCE, Some(nginx.ca_file()), &token).expect("a valid token");
    }
    let again = sync().expect_code(0);
    assert!(again.stdout.contains("unchanged"), "{again:?}");

    // `kind/up` creates the next cluster, with the same key and ledger. It no longer accepts tokens for
    // Microsoft's audience.
    assert_eq!(server.review(&token, &[])["authenticated"], true);
    fs::create_dir_all(kind.keys()).expect("the folder can be written");
    fs::copy(&key, kind.keys().join("sa.key")).expect("it can be copied");
    let ledger = kind.state().join("ledger");
    finish(kind.clean("cp").arg("-r").arg(folder.path().join("ledger")).arg(ledger)).expect_code(0);
    let mut up = kind.command("up", ["--issuer", &issuer, "--only", "keys,publish,config", "--config"]);
    up.arg(&config).env("SSL_CERT_FILE", nginx.ca_file());
    let moved = finish(up.env("AZURE_STORAGE_ACCOUNT_KEY", azurite::ACCOUNT_KEY)).expect_code(0);
    assert!(moved.stdout.contains("unchanged"), "{moved:?}");
    let server = ApiServer::start(&etcd, kind.plan("v1.37.0").api_server_options());
    assert_eq!(server.review(&token, &[])["authenticated"], Value::Null);
    let token = server.token("default", "default", &[AUDIENCE], 600);
    for party in RelyingParty::ALL {
        party.verify(&issuer, AUDIENCE, Some(nginx.ca_file()), &token).expect("a valid token");
    }
}

/// A home with the state of clusters, for scripts that run as a user would run them.
struct Kind {
    folder: TempDir,
}

impl Kind {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        fs::create_dir(folder.path().join("home")).expect("the folder can be written");
        Self { folder }
    }

    /// `kind/up` for [`ISSUER`] and a directory.
    #[track_caller]
    fn up<const N: usize>(&self, arguments: [&str; N]) -> Finished {
        let usual = ["--issuer", ISSUER, "--target", "public"];
        self.run("up", usual.into_iter().chain(arguments))
    }

    #[track_caller]
    fn run<'a>(&self, script: &str, arguments: impl IntoIterator<Item = &'a str>) -> Finished {
        finish(&mut self.command(script, arguments))
    }

    fn command<'a>(&self, script: &str, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kind").join(script);
        let mut command = self.clean(script);
        command
            .args(arguments)
            .env("SIGNPOST", env!("CARGO_BIN_EXE_signpost"))
            .env("SIGNPOST_KIND_DIR", self.folder.path().join("clusters"));
        command
    }

    fn clean(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let home = self.folder.path().join("home");
        let mut command = Command::new(program);
        command.env_clear().env("PATH", variable("PATH").expect("PATH is set"));
        command.env("HOME", &home).current_dir(home);
        command
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("clusters/signpost")
    }

    fn keys(&self) -> PathBuf {
        self.state().join("keys")
    }

    fn plan(&self, kubernetes: &str) -> Plan {
        let mut command = Command::new(components::path("kind_plan"));
        command.arg(self.state().join("cluster.yaml")).arg(kubernetes);
        Plan(serde_json::from_str(&finish(&mut command).expect_code(0).stdout).expect("it prints JSON"))
    }

    /// The kubeconfig that kind would have written for the cluster.
    fn kubeconfig(&self, server: &ApiServer) -> PathBuf {
        let file = self.folder.path().join("kubeconfig");
        server.admin_kubeconfig(&file);
        let text = fs::read_to_string(&file).expect("it was written");
        fs::write(&file, text.replace("\"test\"", "\"kind-signpost\"")).expect("it can be written");
        file
    }
}

/// kind's plan for a configuration.
struct Plan(Value);

impl Plan {
    /// The arguments of a component, in either form of kubeadm.
    fn arguments(&self, component: &str) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().expect("an argument is text").to_owned();
        match &self.0["clusterConfiguration"][component]["extraArgs"] {
            Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            Value::Array(list) => list.iter().map(|one| (text(&one["name"]), text(&one["value"]))).collect(),
            other => panic!("{component} has no arguments: {other}"),
        }
    }

    /// All flags, with the paths of this machine for those of the node.
    fn api_server_options(&self) -> Options {
        let mount = |end: &str| self.0["mounts"][0][end].as_str().expect("a mount has two ends").to_owned();
        let (node, here) = (mount("containerPath"), mount("hostPath"));
        let flags =
            self.arguments("apiServer").into_iter().map(|(name, value)| match value.strip_prefix(&node) {
                Some(file) => format!("--{name}={here}{file}"),
                None => format!("--{name}={value}"),
            });
        Options {
            issuers: Vec::new(),
            signing_key: None,
            verification_keys: Vec::new(),
            port: None,
            extra_flags: flags.collect(),
            host: None,
        }
    }
}

#[track_caller]
fn finish(command: &mut Command) -> Finished {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("it can be listed");
    entries
        .flat_map(|entry| {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() { walk(&path) } else { vec![path] }
        })
        .collect()
}
