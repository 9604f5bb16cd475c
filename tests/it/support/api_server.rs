//! `kube-apiserver` on loopback, and requests of an administrator or a pod to it.
//!
//! No controller runs beside it: service accounts exist once they are created, and nothing else happens by
//! itself. The built-in roles exist, so every service account may read discovery.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::components;
use super::control_plane::Host;
use super::etcd::Etcd;
use super::http_client::{Request, Response};
use super::pki::{ClientTls, KeyFiles, ServerTls};
use super::port::Port;
use super::process::Process;

/// The bearer token of a user in `system:masters`, the same on every instance.
pub(crate) const ADMIN_TOKEN: &str = "signpost-test-admin";

#[derive(Clone)]
pub(crate) struct Options {
    /// `--service-account-issuer`, once for each; tokens are signed as the first, all are accepted.
    pub(crate) issuers: Vec<String>,
    /// `--service-account-signing-key-file`.
    pub(crate) signing_key: Option<PathBuf>,
    /// `--service-account-key-file`, once for each.
    pub(crate) verification_keys: Vec<PathBuf>,
    /// Set when an issuer or a flag must contain the port before the start.
    pub(crate) port: Option<Port>,
    /// Further flags, appended unchanged, such as `--service-account-jwks-uri=…`.
    pub(crate) extra_flags: Vec<String>,
    /// The host that it runs on; by default loopback, not advertised.
    pub(crate) host: Option<Arc<Host>>,
}

impl Options {
    /// One issuer and one key, enough for most tests.
    pub(crate) fn new(issuer: impl Into<String>, key: &KeyFiles) -> Self {
        Self {
            issuers: vec![issuer.into()],
            signing_key: Some(key.private.clone()),
            verification_keys: vec![key.public.clone()],
            port: None,
            extra_flags: Vec::new(),
            host: None,
        }
    }
}

/// The credential of a user in a kubeconfig.
pub(crate) enum Bearer<'a> {
    Token(&'a str),
    TokenFile(&'a Path),
    Certificate(&'a ClientTls),
}

pub(crate) struct ApiServer {
    folder: TempDir,
    tls: ServerTls,
    port: Port,
    etcd_url: String,
    options: Options,
    /// The component to start.
    program: &'static str,
    process: Option<Process>,
}

impl ApiServer {
    /// Several servers may share one etcd, as in a cluster with several control-plane nodes.
    pub(crate) fn start(etcd: &Etcd, options: Options) -> Self {
        let mut server = Self::stopped(etcd, options);
        server.restart();
        server
    }

    /// Constructs a server without starting it; see [`ApiServer::restart`] and [`ApiServer::begin`].
    pub(crate) fn stopped(etcd: &Etcd, options: Options) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let tls = match &options.host {
            Some(host) => host.certificate(folder.path()),
            None => ServerTls::create(folder.path()),
        };
        let port = options.port.clone().unwrap_or_else(Port::free);
        Self { tls, folder, port, etcd_url: etcd.url(), options, program: "kube_apiserver", process: None }
    }

    /// Uses another version of kube-apiserver, by the name of its component.
    pub(crate) fn of_version(self, program: &'static str) -> Self {
        Self { program, ..self }
    }

    pub(crate) fn url(&self) -> String {
        match &self.options.host {
            Some(host) => host.url(),
            None => format!("https://{}", self.port.address()),
        }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn ca_file(&self) -> &Path {
        &self.tls.ca
    }

    /// Kills it; the port stays for [`ApiServer::restart`].
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Restarts on the same port, with the current contents of the key files.
    pub(crate) fn restart(&mut self) {
        self.restart_with(self.options.clone());
    }

    /// Restarts on the same port, whatever port `options` names.
    pub(crate) fn restart_with(&mut self, options: Options) {
        self.begin(options);
        self.wait_until_ready();
    }

    /// Waits until a server started with [`ApiServer::begin`] answers.
    pub(crate) fn wait_until_ready(&mut self) {
        let mut process = self.process.take().expect("it was begun");
        process.wait_until_ready(|| self.admin_request("GET", "/readyz").send()?.is_ok());
        self.process = Some(process);
    }

    /// The process ID.
    pub(crate) fn id(&mut self) -> u32 {
        let process = self.process.as_mut().expect("it runs");
        assert!(process.exit_status().is_none(), "it has ended");
        process.id()
    }

    /// As [`ApiServer::restart_with`], without waiting for an answer.
    pub(crate) fn begin(&mut self, options: Options) {
        self.stop();
        self.options = options;
        let log = self.folder.path().join("kube-apiserver.log");
        self.process = Some(Process::start("kube-apiserver", self.command(), &log));
    }

    fn command(&self) -> Command {
        let tokens = self.folder.path().join("tokens.csv");
        fs::write(&tokens, format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))
            .expect("the folder can be written");
        let program = components::path(self.program);
        let mut command = match &self.options.host {
            Some(host) => host.command(program),
            None => Command::new(program),
        };
        let mut flag = |name: &str, value: &Path| {
            let mut flag = std::ffi::OsString::from(format!("--{name}="));
            flag.push(value);
            command.arg(flag);
        };
        flag("cert-dir", self.folder.path());
        flag("tls-cert-file", &self.tls.certificate);
        flag("tls-private-key-file", &self.tls.key);
        flag("token-auth-file", &tokens);
        for file in &self.options.verification_keys {
            flag("service-account-key-file", file);
        }
        if let Some(file) = &self.options.signing_key {
            flag("service-account-signing-key-file", file);
        }
        command
            .args(self.options.issuers.iter().map(|issuer| format!("--service-account-issuer={issuer}")))
            .args(match &self.options.host {
                Some(host) => host.flags(),
                None => vec![
                    format!("--secure-port={}", self.port.number()),
                    "--bind-address=127.0.0.1".to_owned(),
                    // The host of the default `jwks_uri`, which would be the machine's own address.
                    "--external-hostname=127.0.0.1".to_owned(),
                    // Not reachable; without the flag, a machine that has only loopback is rejected.
                    "--advertise-address=192.0.2.1".to_owned(),
                    "--endpoint-reconciler-type=none".to_owned(),
                ],
            })
            .args([
                &format!("--etcd-servers={}", self.etcd_url),
                "--service-cluster-ip-range=10.0.0.0/24",
                "--authorization-mode=RBAC",
                // The plugin would wait for objects that only controllers create.
                "--disable-admission-plugins=ServiceAccount",
            ])
            .args(&self.options.extra_flags);
        command
    }

    /// An anonymous request.
    pub(crate) fn request(&self, method: &str, path: &str) -> Request {
        Request::new(method, &format!("{}{path}", self.url())).ca_file(self.ca_file())
    }

    pub(crate) fn admin_request(&self, method: &str, path: &str) -> Request {
        self.request_as(ADMIN_TOKEN, method, path)
    }

    pub(crate) fn request_as(&self, token: &str, method: &str, path: &str) -> Request {
        self.request(method, path).header("authorization", format!("Bearer {token}"))
    }

    /// Creates an object, such as a Role, by posting it to its collection's path.
    #[track_caller]
    pub(crate) fn create(&self, collection: &str, object: &Value) -> Value {
        self.admin_request("POST", collection).json(object).answer().expect_status(201).json()
    }

    #[track_caller]
    pub(crate) fn create_namespace(&self, name: &str) {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.create("/api/v1/namespaces", &object);
    }

    #[track_caller]
    pub(crate) fn create_service_account(&self, namespace: &str, name: &str) {
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        self.create(&format!("/api/v1/namespaces/{namespace}/serviceaccounts"), &object);
    }

    /// Requests a token of a service account; Kubernetes rejects fewer than 600 seconds.
    ///
    /// Without `audiences` it is a token for the API server itself.
    #[track_caller]
    pub(crate) fn token(&self, namespace: &str, account: &str, audiences: &[&str], seconds: u32) -> String {
        let answer = self.create(
            &format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"),
            &json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"audiences": audiences, "expirationSeconds": seconds},
            }),
        );
        answer["status"]["token"].as_str().expect("a TokenRequest is answered with a token").to_owned()
    }

    /// The `status` of a `TokenReview`.
    #[track_caller]
    pub(crate) fn review(&self, token: &str, audiences: &[&str]) -> Value {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": audiences},
        });
        self.create("/apis/authentication.k8s.io/v1/tokenreviews", &review)["status"].take()
    }

    pub(crate) fn discovery(&self) -> Response {
        self.admin_request("GET", "/.well-known/openid-configuration").answer()
    }

    pub(crate) fn jwks(&self) -> Response {
        self.admin_request("GET", "/openid/v1/jwks").answer()
    }

    pub(crate) fn admin_kubeconfig(&self, file: &Path) {
        self.kubeconfig(file, &Bearer::Token(ADMIN_TOKEN));
    }

    pub(crate) fn kubeconfig(&self, file: &Path, bearer: &Bearer) {
        write_kubeconfig(file, &self.url(), self.ca_file(), bearer);
    }
}

/// Written as JSON, which is YAML; `url` may be that of a proxy.
pub(crate) fn write_kubeconfig(file: &Path, url: &str, ca_file: &Path, bearer: &Bearer) {
    let user = match bearer {
        Bearer::Token(token) => json!({"token": token}),
        Bearer::TokenFile(file) => json!({"tokenFile": file}),
        Bearer::Certificate(ClientTls { certificate, key }) => {
            json!({"client-certificate": certificate, "client-key": key})
        }
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": ca_file}}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    });
    fs::write(file, config.to_string()).expect("the kubeconfig can be written");
}
