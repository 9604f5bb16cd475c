//! Azurite, Microsoft's emulator of Azure Blob Storage, with its data on disk.

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
use super::port::Port;
use super::process::Process;

/// The account that Azurite documents and knows without being told.
pub(crate) const ACCOUNT: &str = "devstoreaccount1";
pub(crate) const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Permissions of [`Azurite::sas`] that allow everything the tests do.
const ALL: &str = "rwdlac";

pub(crate) struct Azurite {
    folder: TempDir,
    port: Port,
    process: Option<Process>,
}

impl Azurite {
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut azurite = Self { folder, port: Port::free(), process: None };
        azurite.restart();
        azurite
    }

    /// The endpoint of the account, `http://127.0.0.1:PORT/devstoreaccount1`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/{ACCOUNT}", self.port.address())
    }

    /// Stops it; data and port stay for [`Azurite::restart`].
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It keeps its index in memory and writes it down only when asked to end.
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
                // A client may speak a newer version of the API than this Azurite knows.
                "--skipApiVersionCheck",
            ],
        );
        let mut process = Process::start("Azurite", command, &self.folder.path().join("azurite.log"));
        // It refuses this request, which shows that it is there.
        process.wait_until_ready(|| Request::get(&self.url()).send().map(drop));
        self.process = Some(process);
    }

    /// Creates a container whose blobs anybody may read but not list.
    ///
    /// `$web` gets it too: Azurite has no static-website endpoint that would serve it otherwise.
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
        let url = format!("{}/{name}?restype=container&{}", self.url(), self.sas(ALL));
        let request = Request::new("PUT", &url);
        headers
            .iter()
            .fold(request, |request, (name, value)| request.header(name, *value))
            .answer()
            .expect_status(201);
    }

    /// Writes a blob behind the back of the product; `path` starts with the container.
    #[track_caller]
    pub(crate) fn put(&self, path: &str, content_type: &str, body: impl Into<Vec<u8>>) {
        self.owner_request("PUT", path)
            .header("x-ms-blob-type", "BlockBlob")
            .header("x-ms-blob-content-type", content_type)
            .body(body)
            .answer()
            .expect_status(201);
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) {
        self.owner_request("DELETE", path).answer().expect_status(202);
    }

    /// What the owner reads, with all headers.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.owner_request("GET", path).answer()
    }

    pub(crate) fn owner_request(&self, method: &str, path: &str) -> Request {
        Request::new(method, &format!("{}/{path}?{}", self.url(), self.sas(ALL)))
    }

    /// An account SAS, as a query string, that never ends; `permissions` such as `rl`.
    ///
    /// Source: "Create an account SAS" in the REST reference of Azure Storage.
    #[expect(clippy::unused_self, reason = "other accounts would have other keys")]
    pub(crate) fn sas(&self, permissions: &str) -> String {
        let (services, resource_types, expiry, version) = ("b", "sco", "2099-01-01T00:00:00Z", "2020-08-04");
        // The empty lines are start, addresses and protocols, which are not limited.
        let text =
            format!("{ACCOUNT}\n{permissions}\n{services}\n{resource_types}\n\n{expiry}\n\n\n{version}\n");
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
}
