//! Azurite, Microsoft's emulator of Azure Blob Storage, with its data on disk.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use rustix::process::Signal;
use tempfile::TempDir;
use url::form_urlencoded;

use super::components;
use super::http_client::{Request, Response};
use super::pki::ServerTls;
use super::port::Port;
use super::process::Process;

/// The well-known account of Azurite.
pub(crate) const ACCOUNT: &str = "devstoreaccount1";
pub(crate) const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Permissions of [`sas`] that allow everything the tests do.
const ALL: &str = "rwdlac";

pub(crate) struct Azurite {
    folder: TempDir,
    port: Port,
    /// TLS, which also enables tokens of Microsoft Entra.
    tls: Option<ServerTls>,
    process: Option<Process>,
}

impl Azurite {
    pub(crate) fn start() -> Self {
        Self::start_in(TempDir::new().expect("a temporary folder"), None)
    }

    /// Accepts tokens of Microsoft Entra, only over https: it checks issuer, audience and lifetime of a token
    /// and not its signature.
    pub(crate) fn start_with_oauth() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let tls = ServerTls::create(folder.path());
        Self::start_in(folder, Some(tls))
    }

    fn start_in(folder: TempDir, tls: Option<ServerTls>) -> Self {
        let mut azurite = Self { folder, port: Port::free(), tls, process: None };
        azurite.restart();
        azurite
    }

    /// The CA of its certificate, with TLS.
    pub(crate) fn ca_file(&self) -> Option<&Path> {
        self.tls.as_ref().map(|tls| tls.ca.as_path())
    }

    /// The endpoint of the account, such as `http://127.0.0.1:PORT/devstoreaccount1`.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/{ACCOUNT}", self.port.address())
    }

    /// Stops it; data and port stay for [`Azurite::restart`].
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It keeps its index in memory and writes it to disk only on SIGTERM.
            process.signal(Signal::TERM);
            process.wait_for_exit(Duration::from_secs(20));
        }
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        let mut command = Command::new(components::path("node"));
        command.arg(components::path("azurite")).arg("--location").arg(self.folder.path().join("data")).args(
            [
                "--blobHost=127.0.0.1",
                &format!("--blobPort={}", self.port.number()),
                "--disableTelemetry",
                // A client may use a newer version of the API than this Azurite supports.
                "--skipApiVersionCheck",
            ],
        );
        if let Some(ServerTls { certificate, key, .. }) = &self.tls {
            command.arg("--oauth=basic").arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        let mut process = Process::start("Azurite", command, &self.folder.path().join("azurite.log"));
        // It rejects this request, which shows that it is running.
        process.wait_until_ready(|| self.request("GET", &self.url()).send().map(drop));
        self.process = Some(process);
    }

    /// Creates a container with anonymous reads of blobs, but not of the list.
    ///
    /// `$web` gets them too: Azurite has no static-website endpoint that would serve it otherwise.
    #[track_caller]
    pub(crate) fn create_public_container(&self, name: &str) {
        self.create_container(name, &[("x-ms-blob-public-access", "blob")]);
    }

    #[track_caller]
    pub(crate) fn create_private_container(&self, name: &str) {
        self.create_container(name, &[]);
    }

    #[track_caller]
    fn create_container(&self, name: &str, headers: &[(&str, &str)]) {
        let url = format!("{}/{name}?restype=container&{}", self.url(), sas(ALL));
        let request = self.request("PUT", &url);
        headers
            .iter()
            .fold(request, |request, (name, value)| request.header(name, *value))
            .answer()
            .expect_status(201);
    }

    /// Writes a blob independently of the product; `path` starts with the container.
    #[track_caller]
    pub(crate) fn put(&self, path: &str, content_type: &str, body: impl Into<Vec<u8>>) {
        self.owner_request("PUT", path)
            .header("x-ms-blob-type", "BlockBlob")
            .header("x-ms-blob-content-type", content_type)
            .body(body)
            .answer()
            .expect_status(201);
    }

    /// Changes only headers of a blob.
    #[track_caller]
    pub(crate) fn set_cache_control(&self, path: &str, value: &str) {
        self.request("PUT", &format!("{}/{path}?comp=properties&{}", self.url(), sas(ALL)))
            .header("x-ms-blob-cache-control", value)
            .header("x-ms-blob-content-type", "application/json")
            .answer()
            .expect_status(200);
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) {
        self.owner_request("DELETE", path).answer().expect_status(202);
    }

    /// Reads as the owner, with all headers.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.owner_request("GET", path).answer()
    }

    pub(crate) fn owner_request(&self, method: &str, path: &str) -> Request {
        self.request(method, &format!("{}/{path}?{}", self.url(), sas(ALL)))
    }

    fn request(&self, method: &str, url: &str) -> Request {
        let request = Request::new(method, url);
        self.ca_file().into_iter().fold(request, Request::ca_file)
    }
}

/// An account SAS without expiry, as a query string; `permissions` such as `rl`.
///
/// Source: "Create an account SAS" in the REST reference of Azure Storage.
pub(crate) fn sas(permissions: &str) -> String {
    let (services, resource_types, expiry, version) = ("b", "sco", "2099-01-01T00:00:00Z", "2020-08-04");
    // The empty lines are start, addresses and protocols, which are not limited.
    let text = format!("{ACCOUNT}\n{permissions}\n{services}\n{resource_types}\n\n{expiry}\n\n\n{version}\n");
    let key = Base64::decode_vec(ACCOUNT_KEY).expect("the key is base64");
    let key = PKey::hmac(&key).expect("any bytes are a key");
    let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("HMAC-SHA256 is built in");
    let signature = signer.sign_oneshot_to_vec(text.as_bytes()).expect("HMAC does not fail");
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("sv", version),
            ("ss", services),
            ("srt", resource_types),
            ("sp", permissions),
            ("se", expiry),
            ("sig", &Base64::encode_string(&signature)),
        ])
        .finish()
}
