//! A twin of Microsoft Entra's token endpoint: it answers as the documents say.
//!
//! Entra itself is not available to tests. The twin is `tests/components/relying_parties/entra_twin.py`,
//! which verifies with `PyJWT`, shares no code with the product, and names the documents behind each answer
//! and its own choices where there are none.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::components;
use super::http_client::{Request, Response};
use super::port::Port;
use super::process::Process;

pub(crate) const TENANT: &str = "5f6c0b9e-7d3a-4f0e-9f0e-2b1f6d1c9a10";

pub(crate) struct EntraTwin {
    port: Port,
    _process: Process,
    _folder: TempDir,
}

/// The twin's answer to one assertion.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The AADSTS code; none means a token.
    pub(crate) code: Option<u64>,
    /// The documents that the answer follows.
    pub(crate) rests_on: String,
    /// The choices of the twin's own that the answer depends on, by their names in its documentation.
    pub(crate) undocumented: String,
}

/// What the twin knows besides the tokens.
pub(crate) struct Directory {
    /// The twin's clock, in seconds since 1970.
    pub(crate) now: i64,
    /// How long the twin caches the metadata of an issuer, in seconds.
    pub(crate) jwks_seconds: u32,
    /// Hosts of issuers, each with the `http://127.0.0.1:PORT` that stands for it.
    pub(crate) internet: Vec<(String, String)>,
    /// Client ids, each with a list of `{"issuer", "subject", "audience"}`.
    pub(crate) applications: Vec<(String, Value)>,
}

impl EntraTwin {
    pub(crate) fn start(directory: Directory) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let port = Port::free();
        let object = |entries: Vec<(String, Value)>| Value::Object(entries.into_iter().collect());
        let internet = directory.internet.into_iter().map(|(host, url)| (host, json!(url))).collect();
        let content = json!({
            "now": directory.now,
            "jwks_seconds": directory.jwks_seconds,
            "internet": object(internet),
            "tenants": { TENANT: object(directory.applications) },
        });
        let file = folder.path().join("directory.json");
        std::fs::write(&file, content.to_string()).expect("the folder can be written");
        let program = components::sources().join("relying_parties/entra_twin.py");
        let mut command = Command::new(components::path("python"));
        // Excludes the machine's proxies and added certificates.
        command.env_clear().arg(program).arg(port.number().to_string()).arg(file);
        let mut process = Process::start("entra twin", command, &folder.path().join("log"));
        let url = format!("http://{}/", port.address());
        process.wait_until_ready(|| Request::get(&url).send()?.is_ok());
        Self { port, _process: process, _folder: folder }
    }

    /// Requests a token as `client` with this assertion.
    #[track_caller]
    pub(crate) fn exchange(&self, client: &str, assertion: &str) -> Answer {
        let form = [
            ("client_id", client),
            ("grant_type", "client_credentials"),
            ("scope", "https://graph.microsoft.com/.default"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
        ];
        let response = self.request(TENANT, &form);
        let header = |name| response.header(name).unwrap_or_default().to_owned();
        let code = (response.status != 200).then(|| {
            let code = response.json()["error_codes"][0].as_u64();
            code.unwrap_or_else(|| panic!("no code: {}", response.text()))
        });
        Answer { code, rests_on: header("rests-on"), undocumented: header("undocumented") }
    }

    /// The whole answer to any form.
    pub(crate) fn request(&self, tenant: &str, form: &[(&str, &str)]) -> Response {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        Request::new("POST", &format!("http://{}/{tenant}/oauth2/v2.0/token", self.port.address()))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .answer()
    }

    /// Sets the twin's clock, in seconds since 1970.
    pub(crate) fn set_time(&self, now: i64) {
        let url = format!("http://{}/now", self.port.address());
        Request::new("PUT", &url).body(now.to_string()).answer().expect_status(200);
    }
}
