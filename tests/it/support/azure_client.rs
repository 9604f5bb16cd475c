//! The libraries with which programs get tokens from Entra, as Microsoft makes them. Their programs are
//! `tests/components/relying_parties/azure_clients.*` and `tests/components/go-azidentity`.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::components;
use super::entra_twin::{EntraTwin, PUBLIC_CLOUD};
use super::reader::Runtime;
use super::session::Session;
use super::tunnel::Tunnel;

/// A library, the language of its users, and the flows that it has.
pub(crate) struct Library {
    pub(crate) name: &'static str,
    runtime: Runtime,
    pub(crate) flows: &'static [&'static str],
}

const OF_WORKLOADS: [&str; 1] = ["workload"];
const ALL: [&str; 4] = ["workload", "agent", "on-behalf-of", "agent-user"];

pub(crate) const LIBRARIES: [Library; 6] = [
    Library { name: "azure-identity", runtime: Runtime::Python, flows: &OF_WORKLOADS },
    Library { name: "msal", runtime: Runtime::Python, flows: &ALL },
    Library { name: "@azure/identity", runtime: Runtime::Node, flows: &OF_WORKLOADS },
    Library { name: "@azure/msal-node", runtime: Runtime::Node, flows: &ALL },
    Library { name: "azidentity", runtime: Runtime::Go, flows: &OF_WORKLOADS },
    Library { name: "msal-go", runtime: Runtime::Go, flows: &ALL },
];

/// With which an identity's federated credentials are managed. Its flows are not those of tokens.
pub(crate) static MANAGEMENT: Library =
    Library { name: "azure-mgmt-msi", runtime: Runtime::Python, flows: &[] };

/// A program that uses a library. Each of its requests begins with an empty cache.
pub(crate) struct AzureClient {
    pub(crate) library: &'static Library,
    pub(crate) version: String,
    /// How long it took to start.
    pub(crate) started: Duration,
    session: Session,
    _folder: TempDir,
}

impl AzureClient {
    /// A client that takes the twin for the public cloud: `tunnel` leads there whatever it connects to.
    pub(crate) fn start(library: &'static Library, twin: &EntraTwin, tunnel: &Tunnel) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut command = match library.runtime {
            Runtime::Python => components::python("azure_clients.py", "azure_python"),
            Runtime::Node => components::node("azure_clients.mjs", "azure_node", folder.path()),
            Runtime::Go => Command::new(components::path("go_azidentity")),
        };
        // It knows no proxy.
        let direct = library.name == "@azure/msal-node";
        let authority =
            if direct { twin.address().replace("127.0.0.1", "localhost") } else { PUBLIC_CLOUD.to_owned() };
        // Excludes the machine's proxies and added certificates.
        command.arg(library.name).env_clear();
        command.env("AZURE_AUTHORITY_HOST", format!("https://{authority}/"));
        command.env("HTTPS_PROXY", format!("http://{}", tunnel.address()));
        let begun = Instant::now();
        let mut session = Session::start(library.name, command, twin.ca_file());
        let hello: Value = serde_json::from_str(&session.next_line()).expect("JSON");
        let version = hello["version"].as_str().expect("a version").to_owned();
        Self { library, version, started: begun.elapsed(), session, _folder: folder }
    }

    /// Requests a token. Returns the AADSTS code of a refusal, and the seconds that it took.
    ///
    /// # Panics
    ///
    /// Panics when there is neither a token nor a code.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &Value) -> (Option<u64>, f64) {
        let answer = self.answer(request);
        let code = match answer["outcome"].as_str() {
            Some("accepted") => None,
            Some("refused") => answer["code"].as_u64(),
            _ => panic!("{}: {request}: {answer}", self.library.name),
        };
        (code, answer["seconds"].as_f64().expect("a number"))
    }

    /// Reads or writes a federated credential. Returns what the library returns, or the text of its error.
    pub(crate) fn manage(&mut self, request: &Value) -> Result<Value, String> {
        let mut answer = self.answer(request);
        match answer["outcome"].as_str() {
            Some("accepted") => Ok(answer["value"].take()),
            _ => Err(answer.to_string()),
        }
    }

    fn answer(&mut self, request: &Value) -> Value {
        serde_json::from_str(&self.session.ask(&request.to_string())).expect("JSON")
    }
}
