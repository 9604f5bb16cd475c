//! An S3 server (`versitygw`) that enforces conditional writes and bucket policies.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use jiff::Timestamp;
use jiff::fmt::{rfc2822, strtime};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sha::sha256;
use openssl::sign::Signer;
use serde_json::json;
use tempfile::TempDir;

use super::components;
use super::http_client::{Request, Response};
use super::port::Port;
use super::process::Process;

pub(crate) const ACCESS_KEY: &str = "signpost-test-owner";
pub(crate) const SECRET_KEY: &str = "signpost-test-owner-secret";
pub(crate) const REGION: &str = "us-east-1";

pub(crate) struct S3 {
    folder: TempDir,
    port: Port,
    process: Option<Process>,
}

impl S3 {
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for part in ["data", "metadata", "users"] {
            fs::create_dir(folder.path().join(part)).expect("the folder can be written");
        }
        let mut s3 = Self { folder, port: Port::free(), process: None };
        s3.restart();
        s3
    }

    /// The endpoint for path-style requests, `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// Kills it; data, users and port stay for [`S3::restart`].
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        let folder = self.folder.path();
        let mut command = Command::new(components::path("s3"));
        command
            .env("ROOT_ACCESS_KEY", ACCESS_KEY)
            .env("ROOT_SECRET_KEY", SECRET_KEY)
            .args(["--port", &self.port.address(), "--region", REGION])
            .args(["--health", "/health", "--keep-alive"])
            .arg("--iam-dir")
            .arg(folder.join("users"))
            // A new user is valid at once.
            .arg("--iam-cache-disable")
            // In files and not in extended attributes, which not every /tmp has.
            .args(["posix", "--sidecar"])
            .arg(folder.join("metadata"))
            .arg(folder.join("data"));
        let mut process = Process::start("versitygw", command, &folder.join("versitygw.log"));
        process.wait_until_ready(|| self.health().send()?.is_ok());
        self.process = Some(process);
    }

    #[track_caller]
    pub(crate) fn create_bucket(&self, name: &str) {
        self.owner_request("PUT", &format!("/{name}"), "", &[], b"").answer().expect_status(200);
    }

    /// Permits anonymous reads of a bucket's objects, but not listing.
    #[track_caller]
    pub(crate) fn allow_anonymous_read(&self, bucket: &str) {
        self.allow_anonymous_read_of(bucket, &["*"]);
    }

    /// The same for only these objects of the bucket.
    #[track_caller]
    pub(crate) fn allow_anonymous_read_of(&self, bucket: &str, objects: &[&str]) {
        let objects: Vec<_> =
            objects.iter().map(|object| format!("arn:aws:s3:::{bucket}/{object}")).collect();
        let policy = json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": "*",
                "Action": ["s3:GetObject"],
                "Resource": objects,
            }],
        });
        self.owner_request("PUT", &format!("/{bucket}"), "policy=", &[], policy.to_string().as_bytes())
            .answer()
            .expect_status(204);
    }

    /// Creates a user without permissions beyond the bucket policies.
    #[track_caller]
    pub(crate) fn create_user(&self, access_key: &str, secret_key: &str) {
        let output = Command::new(components::path("s3"))
            .args(["admin", "--endpoint-url", &self.url()])
            .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION])
            .args(["create-user", "--access", access_key, "--secret", secret_key, "--role", "user"])
            .output()
            .expect("versitygw runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Writes an object independently of the product; `path` is `/BUCKET/KEY`.
    #[track_caller]
    pub(crate) fn put(&self, path: &str, content_type: &str, body: &[u8]) {
        self.owner_request("PUT", path, "", &[("content-type", content_type)], body)
            .answer()
            .expect_status(200);
    }

    /// Writes the same bytes with another header: the entity tag stays.
    #[track_caller]
    pub(crate) fn set_cache_control(&self, path: &str, value: &str) {
        let before = self.get(path).expect_status(200);
        let is_kept = |name: &str| name == "content-type" || name.starts_with("x-amz-meta-");
        let kept = before.headers.iter().filter(|(name, _)| is_kept(name.as_str()));
        let kept = kept.map(|(name, value)| (name.as_str(), value.to_str().expect("it is text")));
        let headers: Vec<_> = kept.chain([("cache-control", value)]).collect();
        self.owner_request("PUT", path, "", &headers, &before.body).answer().expect_status(200);
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) {
        self.owner_request("DELETE", path, "", &[], b"").answer().expect_status(204);
    }

    /// Reads as the owner, with all headers.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.owner_request("GET", path, "", &[], b"").answer()
    }

    pub(crate) fn owner_request(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Request {
        self.request_as((ACCESS_KEY, SECRET_KEY), method, path, query, headers, body)
    }

    /// A signed request; `query` as in the canonical request, so `policy=`.
    ///
    /// Source: "Signature Version 4 signing process" in the S3 API reference.
    #[track_caller]
    pub(crate) fn request_as(
        &self,
        (access_key, secret_key): (&str, &str),
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Request {
        let time = strtime::format("%Y%m%dT%H%M%SZ", self.now()).expect("a time has these fields");
        let body_hash = hex(&sha256(body));
        let mut signed = vec![
            ("host", self.port.address()),
            ("x-amz-content-sha256", body_hash.clone()),
            ("x-amz-date", time.clone()),
        ];
        signed.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
        signed.sort();

        let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines = signed.iter().fold(String::new(), |mut lines, (name, value)| {
            writeln!(lines, "{name}:{value}").expect("a string can be written");
            lines
        });
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{body_hash}");
        let day = &time[..8];
        let scope = format!("{day}/{REGION}/s3/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&sha256(canonical.as_bytes())));
        let secret = format!("AWS4{secret_key}").into_bytes();
        let signature =
            [day, REGION, "s3", "aws4_request", &text].iter().fold(secret, |key, text| hmac(&key, text));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={access_key}/{scope},SignedHeaders={names},Signature={}",
            hex(&signature)
        );

        let url = format!("{}{path}{}{query}", self.url(), if query.is_empty() { "" } else { "?" });
        let request = Request::new(method, &url).header("authorization", authorization).body(body);
        signed.into_iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    fn health(&self) -> Request {
        Request::get(&format!("{}/health", self.url()))
    }

    /// The time of the server's clock, which it checks signatures with.
    fn now(&self) -> Timestamp {
        let answer = self.health().answer();
        let date = answer.header("date").expect("an answer has a date");
        // HTTP uses GMT, which RFC 2822 calls obsolete.
        rfc2822::parse(&date.replace("GMT", "+0000")).expect("a date of HTTP").timestamp()
    }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let key = PKey::hmac(key).expect("any bytes are a key");
    let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("HMAC-SHA256 is built in");
    signer.sign_oneshot_to_vec(text.as_bytes()).expect("HMAC does not fail")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string can be written");
        text
    })
}
