//! A twin of Microsoft Entra's token endpoint: it answers as the documents say.
//!
//! Entra itself is not available to tests. The twin is `tests/components/relying_parties/entra_twin.py` and the
//! files named `entra_*.py` beside it. It verifies with `PyJWT`, shares no code with the product, and names the
//! documents and reports behind each answer, and its own choices where there are none.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::components;
use super::http_client::{Request, Response};
use super::pki::{Authority, ServerTls};
use super::port::Port;
use super::process::Process;

pub(crate) const TENANT: &str = "5f6c0b9e-7d3a-4f0e-9f0e-2b1f6d1c9a10";

/// Entra has one text for each of these, and nothing says which code applies when.
const OF_ONE_TEXT: [&[u64]; 4] = [
    &[501_661, 90_061, 50_166],
    &[700_222, 700_226, 700_227, 700_229, 700_236],
    &[700_212, 7_002_121],
    &[700_213, 7_002_137],
];
/// The host of the public cloud.
pub(crate) const PUBLIC_CLOUD: &str = "login.microsoftonline.com";

pub(crate) struct EntraTwin {
    port: Port,
    tls: ServerTls,
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
    /// Client ids, each with a list of `{"issuer", "subject", "audience", "expression"}`, or an identity.
    pub(crate) applications: Vec<(String, Value)>,
}

/// Where a token is asked for.
pub(crate) struct Endpoint<'a> {
    /// The host of the authority.
    pub(crate) host: &'a str,
    pub(crate) tenant: &'a str,
    /// What follows the `?` of the URL.
    pub(crate) query: &'a str,
}

/// One code for all that share one text.
pub(crate) fn family(code: u64) -> u64 {
    OF_ONE_TEXT.iter().find(|codes| codes.contains(&code)).map_or(code, |codes| codes[0])
}

/// The form that requests a token as `client` with this assertion.
pub(crate) fn exchange_form<'a>(client: &'a str, assertion: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("client_id", client),
        ("grant_type", "client_credentials"),
        ("scope", "https://graph.microsoft.com/.default"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion),
    ]
}

impl Directory {
    fn json(self) -> Value {
        let object = |entries: Vec<(String, Value)>| Value::Object(entries.into_iter().collect());
        let internet = self.internet.into_iter().map(|(host, url)| (host, json!(url))).collect();
        json!({
            "now": self.now,
            "jwks_seconds": self.jwks_seconds,
            "internet": object(internet),
            "tenants": { TENANT: object(self.applications) },
        })
    }
}

impl EntraTwin {
    pub(crate) fn start(directory: Directory) -> Self {
        Self::start_with(&directory.json())
    }

    /// Starts with a directory as the head of the program describes it.
    pub(crate) fn start_with(directory: &Value) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let port = Port::free();
        let file = folder.path().join("directory.json");
        std::fs::write(&file, directory.to_string()).expect("the folder can be written");
        let names = ["localhost", PUBLIC_CLOUD, "management.azure.com"];
        let tls = ServerTls::issued_by(&Authority::create(), folder.path(), &names, &[]);
        let mut command = components::python("entra_twin.py", "python");
        // Excludes the machine's proxies and added certificates.
        command.env_clear().env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(port.number().to_string()).arg(file).args([&tls.certificate, &tls.key]);
        let mut process = Process::start("entra twin", command, &folder.path().join("log"));
        let url = format!("http://{}/", port.address());
        process.wait_until_ready(|| Request::get(&url).send()?.is_ok());
        Self { port, tls, _process: process, _folder: folder }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// `127.0.0.1:PORT`, where it answers TLS as well, with a certificate for the hosts of the public cloud.
    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    /// The certificate authority of its names.
    pub(crate) fn ca_file(&self) -> &Path {
        &self.tls.ca
    }

    /// The requests of clients since the last call: `method`, `path` and, for a token, `form`, tokens left out.
    #[track_caller]
    pub(crate) fn requests(&self) -> Vec<Value> {
        let told = Request::get(&format!("{}/requests", self.url())).answer().expect_status(200).json();
        told.as_array().expect("a list").clone()
    }

    /// Requests a token as `client` with this assertion.
    #[track_caller]
    pub(crate) fn exchange(&self, client: &str, assertion: &str) -> Answer {
        Answer::of(&self.request(TENANT, &exchange_form(client, assertion)))
    }

    /// The whole answer to any form.
    pub(crate) fn request(&self, tenant: &str, form: &[(&str, &str)]) -> Response {
        self.ask(&Endpoint { host: PUBLIC_CLOUD, tenant, query: "" }, form)
    }

    /// The same, at any endpoint.
    pub(crate) fn ask(&self, at: &Endpoint, form: &[(&str, &str)]) -> Response {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let Endpoint { host, tenant, query } = at;
        // A tenant is one segment of the path.
        let tenant = tenant.replace('/', "%2F");
        Request::new("POST", &format!("http://{}/{tenant}/oauth2/v2.0/token?{query}", self.port.address()))
            .header("host", *host)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .answer()
    }

    /// Sets the twin's clock, in seconds since 1970.
    pub(crate) fn set_time(&self, now: i64) {
        self.put("now", now.to_string());
    }

    /// Replaces all that the twin knows, and empties its cache.
    pub(crate) fn replace(&self, directory: &Value) {
        self.put("directory", directory.to_string());
    }

    /// All that the twin knows, as it is now.
    pub(crate) fn directory(&self) -> Value {
        self.get("directory")
    }

    /// The requests since its directory was replaced.
    pub(crate) fn log(&self) -> Value {
        self.get("log")
    }

    #[track_caller]
    fn get(&self, what: &str) -> Value {
        let url = format!("http://{}/{what}", self.port.address());
        Request::get(&url).answer().expect_status(200).json()
    }

    #[track_caller]
    fn put(&self, what: &str, body: String) {
        let url = format!("http://{}/{what}", self.port.address());
        Request::new("PUT", &url).body(body).answer().expect_status(200);
    }
}

impl Answer {
    /// Reads the twin's response.
    #[track_caller]
    pub(crate) fn of(response: &Response) -> Self {
        let header = |name| response.header(name).unwrap_or_default().to_owned();
        let code = (response.status != 200).then(|| {
            let code = response.json()["error_codes"][0].as_u64();
            code.unwrap_or_else(|| panic!("no code: {}", response.text()))
        });
        Self { code, rests_on: header("rests-on"), undocumented: header("undocumented") }
    }
}
