//! The HTTP client of the binary: user agent, proxy, trust and content codings.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::USER_AGENT;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api_server::ADMIN_TOKEN;
use crate::support::azurite::Azurite;
use crate::support::cluster::{Cluster, ISSUER};
use crate::support::installation::{DOCUMENTS, Installation, azure_target, directory_target, files};
use crate::support::nginx::{Location, Nginx};
use crate::support::pki::KeyFiles;
use crate::support::port::Port;
use crate::support::scripted::Scripted;
use crate::support::signpost::{Finished, Signpost};
use crate::support::tunnel::Tunnel;

const WITHIN: Duration = Duration::from_mins(1);
const OWN: &str = concat!("signpost/", env!("CARGO_PKG_VERSION"));

fn text(path: &Path) -> &str {
    path.to_str().expect("it is text")
}

#[test]
fn every_client_says_who_it_is() {
    let folder = TempDir::new().expect("a temporary folder");
    let key = KeyFiles::rsa(folder.path(), "sa");
    let documents = folder.path().join("documents");
    let jwks = ["jwks", "--issuer", ISSUER, "--source", text(&key.public), "--output-dir", text(&documents)];
    Signpost::new(jwks).finish(WITHIN).expect_code(0);
    let shown = documents.clone();
    let world = Scripted::start(move |seen| {
        let document = seen.path.trim_start_matches("/world/");
        fs::read_to_string(shown.join(document)).map_or((404, String::new()), |text| (200, text))
    });
    let source = json!({"kind": "url", "url": format!("{}/world/{}", world.url(), DOCUMENTS[0])});
    let mut target = directory_target(&folder.path().join("public"));
    target["public_url"] = json!(format!("{}/world", world.url()));
    let told = Installation::new(ISSUER, &json!({"sources": [source], "targets": [target]})).sync();
    // Issuer and keys from the source, both documents from the public URL.
    assert_eq!(4, world.seen().len(), "{}{}", told.stdout, told.stderr);
    for seen in world.seen() {
        assert_eq!(seen.headers[USER_AGENT], OWN, "{}", seen.path);
    }

    let cluster = Cluster::shared();
    let proxy = cluster.proxy();
    let kubeconfig = cluster.kubeconfig_through(&proxy, folder.path());
    jwks_of_cluster(|it| it.env("KUBECONFIG", &kubeconfig)).expect_code(0);
    assert!(!proxy.seen().is_empty());
    for seen in proxy.seen() {
        assert_eq!(seen.headers[USER_AGENT], OWN, "{}", seen.path);
    }
}

/// A document stored with `Content-Encoding: gzip` is served with it to every client, requested or not.
#[test]
fn documents_that_are_stored_compressed_are_read_by_everybody_and_remarked_on() {
    let folder = TempDir::new().expect("a temporary folder");
    let key = KeyFiles::rsa(folder.path(), "sa");
    let plain = folder.path().join("plain");
    let jwks = ["jwks", "--issuer", ISSUER, "--source", text(&key.public), "--output-dir", text(&plain)];
    Signpost::new(jwks).finish(WITHIN).expect_code(0);
    let compressed = folder.path().join("compressed");
    for document in DOCUMENTS {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&fs::read(plain.join(document)).expect("it was written")).expect("in memory");
        fs::create_dir_all(compressed.join(document).parent().expect("a folder")).expect("it is ours");
        fs::write(compressed.join(document), gzip.finish().expect("in memory")).expect("it is ours");
    }
    let nginx = Nginx::start_as("oidc.example", &[("/cluster/", Location::Compressed(compressed))]);
    let (address, ca) = (nginx.address(), text(nginx.ca_file()).to_owned());

    let arguments =
        ["verify", "--issuer", ISSUER, "--allow-private", "--connect-to", &address, "--ca-file", &ca];
    let told = Signpost::new(arguments).finish(WITHIN).expect_code(0);
    let says = |words: &str| assert!(told.stdout.contains(words), "no `{words}` in\n{}", told.stdout);
    says("`Content-Encoding: gzip` although it was not requested");
    says("trusting the CAs of");

    let url = format!("{}/cluster", nginx.url());
    let source = json!({"kind": "url", "url": format!("{url}/{}", DOCUMENTS[0]), "ca_file": ca});
    let mut target = directory_target(&folder.path().join("public"));
    target["public_url"] = json!(url);
    target["ca_file"] = json!(ca);
    let told = Installation::new(ISSUER, &json!({"sources": [source], "targets": [target]})).sync();
    assert_eq!(Some(0), told.code, "{}{}", told.stdout, told.stderr);
}

#[test]
fn a_certificate_that_nobody_trusts_is_told_in_plain_words_until_its_authority_is_named() {
    let folder = TempDir::new().expect("a temporary folder");
    let key = KeyFiles::rsa(folder.path(), "sa");
    let azurite = Azurite::start_with_oauth();
    azurite.create_private_container("oidc");
    let endpoint = azurite.url();
    let endpoint = endpoint.rsplit_once('/').expect("it has an account").0;
    let mut target = azure_target(endpoint, "oidc");
    let settings = |target: &Value| json!({"sources": [files(&[&key.public])], "targets": [target]});
    let installation = Installation::new(ISSUER, &settings(&target));
    let refused = |told: &Finished, words: &[&str]| {
        assert_eq!(Some(2), told.code, "{}{}", told.stdout, told.stderr);
        for words in words {
            assert!(told.stderr.contains(words), "no `{words}` in\n{}", told.stderr);
        }
        assert!(!told.stderr.contains("SSL routines"), "{}", told.stderr);
    };
    let unknown =
        ["no TLS connection: certificate: unable to get local issuer certificate", "`ca_file` of the target"];
    refused(&installation.sync(), &unknown);
    target["ca_file"] = json!(azurite.ca_file());
    installation.configure(&settings(&target));
    installation.sync().expect_code(0);
    target["ca_file"] = json!(folder.path().join("gone.crt"));
    installation.configure(&settings(&target));
    refused(&installation.sync(), &["gone.crt", "name a file that this process can read"]);

    let old = Nginx::start_expired(&[("/", Location::Folder(folder.path().to_owned()))]);
    let source = json!({"kind": "url", "url": format!("{}/jwks", old.url()), "ca_file": old.ca_file()});
    let installation = Installation::new(ISSUER, &json!({"sources": [source]}));
    let told = installation.finish(["jwks", "--output-dir", "out"]);
    refused(
        &told,
        &["no TLS connection to", "certificate: certificate has expired", "hint: renew the certificate"],
    );

    let cluster = Cluster::shared();
    let kubeconfig = folder.path().join("kubeconfig");
    write_kubeconfig(
        &kubeconfig,
        &json!({"server": cluster.server.url(), "certificate-authority": old.ca_file()}),
    );
    let told = jwks_of_cluster(|it| it.env("KUBECONFIG", &kubeconfig));
    refused(&told, &["no TLS connection to", "certificate: ", "`certificate-authority` of the cluster"]);
}

fn write_kubeconfig(file: &Path, cluster: &Value) {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": ADMIN_TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    });
    fs::write(file, config.to_string()).expect("the folder is ours");
}

fn jwks_of_cluster(set_up: impl FnOnce(Signpost) -> Signpost) -> Finished {
    set_up(Signpost::new(["jwks", "--issuer", ISSUER, "--source", "kubernetes:test"])).finish(WITHIN)
}

/// A kubeconfig whose server has a name that only the proxy can resolve.
struct BehindProxy {
    tunnel: Tunnel,
    folder: TempDir,
    cluster: Value,
}

const INNER: &str = "k8s.inner.example:6443";

impl BehindProxy {
    fn new(cluster: &Cluster) -> Self {
        let server = cluster.server.url();
        let tunnel = Tunnel::to(server.strip_prefix("https://").expect("TLS"));
        let cluster = json!({
            "server": format!("https://{INNER}"),
            "tls-server-name": "localhost",
            "certificate-authority": cluster.server.ca_file(),
        });
        Self { tunnel, folder: TempDir::new().expect("a temporary folder"), cluster }
    }

    fn kubeconfig(&self) -> PathBuf {
        let file = self.folder.path().join("kubeconfig");
        write_kubeconfig(&file, &self.cluster);
        file
    }

    fn asked(&self, environment: &[(&str, &str)]) -> Finished {
        let file = self.kubeconfig();
        jwks_of_cluster(|it| {
            environment.iter().fold(it.env("KUBECONFIG", &file), |it, (name, value)| it.env(name, value))
        })
    }

    /// The request goes through the proxy.
    #[track_caller]
    fn succeeds(&self, environment: &[(&str, &str)]) {
        let told = self.asked(environment);
        assert_eq!(Some(0), told.code, "{environment:?}: {}", told.stderr);
        let seen = self.tunnel.seen();
        assert!(!seen.is_empty(), "{environment:?}");
        assert!(seen.iter().all(|head| head.starts_with(&format!("CONNECT {INNER} "))), "{seen:?}");
    }
}

#[test]
fn an_api_server_behind_a_proxy_is_asked_as_kubectl_asks_it() {
    let cluster = Cluster::shared();
    let mut behind = BehindProxy::new(&cluster);
    let proxy = format!("http://{}", behind.tunnel.address());
    behind.succeeds(&[("HTTPS_PROXY", &proxy)]);
    behind.succeeds(&[("https_proxy", behind.tunnel.address())]);
    // `NO_PROXY` names the server, not the proxy.
    behind.succeeds(&[("HTTPS_PROXY", &proxy), ("NO_PROXY", "127.0.0.1,.other.example")]);
    let told = behind.asked(&[("HTTPS_PROXY", &proxy), ("NO_PROXY", ".inner.example")]);
    assert!(told.stderr.contains("no answer from") && !told.stderr.contains("proxy"), "{}", told.stderr);
    assert_eq!(Vec::<String>::new(), behind.tunnel.seen());

    let nobody = Port::free();
    let dead = format!("http://user:hunter2@{}", nobody.address());
    let told = behind.asked(&[("HTTPS_PROXY", &dead)]);
    assert!(told.stderr.contains(&format!("through proxy `http://{}`", nobody.address())), "{}", told.stderr);
    assert!(!told.stderr.contains("hunter2"), "{}", told.stderr);

    behind.cluster["proxy-url"] = json!(proxy);
    behind.succeeds(&[]);
    behind.succeeds(&[("HTTPS_PROXY", &dead), ("NO_PROXY", "*")]);

    // An API server on this machine is contacted without the environment's proxy.
    let file = behind.folder.path().join("local");
    cluster.server.admin_kubeconfig(&file);
    let told = jwks_of_cluster(|it| it.env("KUBECONFIG", &file).env("HTTPS_PROXY", &dead));
    assert_eq!(Some(0), told.code, "{}", told.stderr);
}

#[test]
fn files_of_the_list_in_kubeconfig_that_do_not_exist_are_passed_over() {
    let cluster = Cluster::shared();
    let folder = TempDir::new().expect("a temporary folder");
    let [gone, good] = ["gone", "kubeconfig"].map(|name| folder.path().join(name));
    cluster.server.admin_kubeconfig(&good);
    for list in [[&gone, &good], [&good, &gone]] {
        let list = std::env::join_paths(list).expect("paths without a colon");
        let told = jwks_of_cluster(|it| it.env("KUBECONFIG", &list));
        assert_eq!(Some(0), told.code, "{list:?}: {}", told.stderr);
    }
}
