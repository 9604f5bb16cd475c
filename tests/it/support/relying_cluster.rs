//! A second cluster as relying party: its `kube-apiserver` accepts tokens of the issuer.
//!
//! This is `kube-apiserver`'s own OIDC authenticator with a structured authentication configuration. It reads
//! the documents anonymously, caches the JWKS for its `max-age` less 30 s, and does not refresh it earlier,
//! even for an unknown kid.

use std::fs;
use std::path::Path;
use std::slice;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::api_server::{ApiServer, Options};
use super::etcd::Etcd;
use super::pki::KeyFiles;

/// The issuer that the cluster trusts.
pub(crate) struct Trust<'a> {
    pub(crate) issuer: &'a str,
    /// The URL of the discovery document, if it is not below the issuer.
    pub(crate) discovery_url: Option<&'a str>,
    pub(crate) audience: &'a str,
    pub(crate) ca_file: &'a Path,
}

pub(crate) struct RelyingCluster {
    server: ApiServer,
    folder: TempDir,
}

impl RelyingCluster {
    /// A separate cluster in the issuer's etcd, which shares no data with it.
    pub(crate) fn start(etcd: &Etcd, trust: &Trust) -> Self {
        Self::start_trusting_all(etcd, slice::from_ref(trust))
    }

    /// The same for several issuers.
    pub(crate) fn start_trusting_all(etcd: &Etcd, trusts: &[Trust]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let own = KeyFiles::rsa(folder.path(), "own");
        let config = folder.path().join(CONFIG);
        write(&config, trusts);
        let mut options = Options::new("https://relying.example", &own);
        options.extra_flags = vec![
            format!("--authentication-config={}", config.display()),
            "--etcd-prefix=/relying".to_owned(),
        ];
        Self { server: ApiServer::start(etcd, options), folder }
    }

    /// Restarts with another configuration and an empty cache. It would reload the configuration itself, but
    /// checks only every ten seconds.
    pub(crate) fn restart_trusting(&mut self, trust: &Trust) {
        write(&self.folder.path().join(CONFIG), slice::from_ref(trust));
        self.server.restart();
    }

    /// The user of an accepted token; `None` for a refused one.
    pub(crate) fn user(&self, token: &str) -> Option<String> {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let answer = self.server.request_as(token, "POST", path).json(&review).answer();
        match answer.status {
            201 => Some(answer.json()["status"]["userInfo"]["username"].as_str()?.to_owned()),
            401 => None,
            status => panic!("{status}: {}", answer.text()),
        }
    }
}

const CONFIG: &str = "authentication.json";

fn write(file: &Path, trusts: &[Trust]) {
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": trusts.iter().map(authenticator).collect::<Vec<_>>(),
    });
    fs::write(file, config.to_string()).expect("the folder can be written");
}

fn authenticator(trust: &Trust) -> Value {
    let mut issuer = json!({
        "url": trust.issuer,
        "audiences": [trust.audience],
        "certificateAuthority": fs::read_to_string(trust.ca_file).expect("a CA"),
    });
    if let Some(url) = trust.discovery_url {
        issuer["discoveryURL"] = Value::from(url);
    }
    json!({
        "issuer": issuer,
        "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
    })
}
