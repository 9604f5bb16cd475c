//! `signpost signer` beside an API server, with a ledger that a test controls.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::api_server::{ApiServer, Options};
use super::etcd::Etcd;
use super::eventually::eventually;
use super::http_client::Response;
use super::signpost::{Finished, Running, Signpost};

pub(crate) const NODE: &str = "node-1";
/// The node reads no source; the value must only be valid.
const SOURCES: &str = "profile: all, sources: [{kind: api-server}]";

pub(crate) struct ExternalSigner {
    folder: TempDir,
    issuer: String,
    node: String,
    /// Further settings of the issuer, in YAML's flow style.
    issuer_settings: String,
    /// Further settings of `signer`.
    settings: String,
    /// The log filter.
    log: &'static str,
    /// Further environment variables.
    environment: Vec<(&'static str, OsString)>,
    running: Option<Running>,
}

impl ExternalSigner {
    /// Constructs a signer without starting it.
    pub(crate) fn stopped(issuer: &str, settings: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        Self {
            folder,
            issuer: issuer.to_owned(),
            node: NODE.to_owned(),
            issuer_settings: format!("{SOURCES}, margin: 1s, rotate_after: 720h"),
            settings: settings.to_owned(),
            // So that a logged secret would be found.
            log: "trace",
            environment: Vec::new(),
            running: None,
        }
    }

    /// One of several nodes, with further settings of its issuer, such as its waits and its ledger; not
    /// started yet.
    pub(crate) fn of_several(issuer: &str, node: &str, issuer_settings: &str) -> Self {
        let mut signer = Self::stopped(issuer, "");
        node.clone_into(&mut signer.node);
        signer.issuer_settings = format!("{SOURCES}, {issuer_settings}");
        signer
    }

    pub(crate) fn start(issuer: &str, settings: &str) -> Self {
        let mut signer = Self::stopped(issuer, settings);
        signer.restart();
        signer
    }

    /// Starts it, and waits until it signs.
    pub(crate) fn restart(&mut self) {
        self.running = None;
        let mut running = self.command().start();
        running.wait_for_output("signing for");
        self.running = Some(running);
    }

    /// The command that would start it, for tests in which it fails.
    pub(crate) fn command(&self) -> Signpost {
        self.verb(&["signer", "--log", self.log])
    }

    pub(crate) fn verb(&self, verb: &[&str]) -> Signpost {
        let config = self.folder.path().join("signpost.yaml");
        let text = format!(
            "data_dir: {}\nissuers: [{{issuer: '{}', {}, \
             signer: {{socket: '{}', node: {}, refresh_hint: 1s, {}}}}}]\n",
            self.data_dir().display(),
            self.issuer,
            self.issuer_settings,
            self.socket().display(),
            self.node,
            self.settings
        );
        fs::write(&config, text).expect("the folder can be written");
        // A file that exceeds the size limit is an error and does not end the process.
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
        let config = config.to_str().expect("UTF-8");
        let arguments = verb.iter().copied().chain(["--config", config]);
        let set = |signpost: Signpost, (name, value): &(&str, OsString)| signpost.env(name, value);
        self.environment.iter().fold(Signpost::within(shell, arguments), set)
    }

    /// Imports an existing key.
    pub(crate) fn import(&self, key: &Path) -> Signpost {
        self.verb(&["signer", "import", key.to_str().expect("UTF-8")])
    }

    pub(crate) fn set(&mut self, settings: &str) {
        settings.clone_into(&mut self.settings);
    }

    pub(crate) fn set_environment(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.environment.push((name, value.into()));
    }

    /// Uses the default log level from its next start on.
    pub(crate) fn log_little(&mut self) {
        self.log = "info";
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Sends SIGTERM, as kubelet does, and waits until it has ended.
    pub(crate) fn terminate(&mut self) -> Finished {
        let mut running = self.running.take().expect("it runs");
        running.terminate();
        running.finish(Duration::from_secs(20))
    }

    pub(crate) fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("it runs")
    }

    /// The folder with its socket, configuration and data directory.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.data_dir().join("keys")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("signer.sock")
    }

    /// The options of an API server that uses this signer.
    pub(crate) fn options(&self) -> Options {
        Options {
            issuers: vec![self.issuer.clone()],
            signing_key: None,
            verification_keys: Vec::new(),
            port: None,
            extra_flags: vec![format!("--service-account-signing-endpoint={}", self.socket().display())],
            host: None,
        }
    }

    pub(crate) fn journal(&self) -> Value {
        read(&self.keys().join("signer.json"))
    }

    pub(crate) fn announcement(&self) -> Value {
        let posted = read(&self.data_dir().join(format!("announcements/{}.json", self.node)));
        let payload = posted["payload"].as_str().expect("a JWS in JSON serialization");
        let payload = Base64UrlUnpadded::decode_vec(payload).expect("base64url");
        serde_json::from_slice(&payload).expect("JSON")
    }

    /// The kid of the active key.
    pub(crate) fn signing(&self) -> String {
        self.journal()["signing"].as_str().expect("one signs").to_owned()
    }

    /// The kid of the standby key.
    pub(crate) fn standby(&self) -> String {
        let (kid, _) = eventually("there is a standby", || {
            let announcement = self.announcement();
            let keys = announcement["keys"].as_object().expect("keys").iter();
            let mut standby = keys.filter(|(_, key)| key["stage"].get("standby").is_some());
            standby.next().map(|(kid, _)| kid.clone())
        });
        kid
    }

    /// Orders the node to sign with a key, and waits until it does.
    pub(crate) fn order(&self, kid: &str) {
        self.order_without_waiting(kid);
        eventually("the order is obeyed", || {
            let journal = self.journal();
            let is_ordered = journal["keys"][kid]["external_audiences"] == true && journal["signing"] == kid;
            // It takes effect when it is announced, after it is recorded.
            let announced = self.announcement();
            let is_announced = announced["keys"][kid]["stage"].get("active").is_some()
                && announced["statement"]["observed_order"] == journal["observed_order"];
            (is_ordered && is_announced).then_some(())
        });
    }

    pub(crate) fn order_without_waiting(&self, kid: &str) {
        self.edit_ledger(|ledger| {
            // Each is later than the previous one, which the journal records.
            let last = self.journal()["observed_order"].as_str().map(str::parse::<jiff::Timestamp>);
            let first = || "2026-01-01T00:00:00Z".parse();
            let at = last.unwrap_or_else(first).expect("a time") + Duration::from_secs(1);
            let order = json!({"sign": kid, "at": at, "reason": "asked"});
            ledger["orders"] = json!({ &self.node: order });
        });
    }

    /// Revokes a key, and waits until the node has destroyed it.
    pub(crate) fn revoke(&self, kid: &str) {
        self.edit_ledger(|ledger| {
            ledger["keys"][kid]["state"] = json!({"revoked": {"at": "2026-01-01T00:00:00Z"}});
            ledger.as_object_mut().expect("an object").remove("orders");
        });
        eventually("the key is destroyed", || {
            (!self.keys().join(format!("{kid}.pem")).exists()).then_some(())
        });
    }

    /// Changes the ledger of this issuer in the data directory, as a publisher would write it: with every key
    /// that the node has ever announced.
    fn edit_ledger(&self, edit: impl FnOnce(&mut Value)) {
        let source = self.keys().join("*.pub");
        let arguments = ["sync", "--profile", "all", "--issuer", &self.issuer, "--source"];
        let arguments = arguments.into_iter().chain([source.to_str().expect("UTF-8")]);
        let (data, target) = (self.data_dir(), self.folder.path().join("public"));
        let places =
            ["--data-dir", data.to_str().expect("UTF-8"), "--target", target.to_str().expect("UTF-8")];
        let within = std::time::Duration::from_mins(1);
        Signpost::new(arguments.chain(places)).finish(within).expect_code(0);
        let mut issuers = fs::read_dir(data.join("issuers")).expect("it was just made");
        let folder = issuers.next().expect("one issuer").expect("readable").path();
        let file = folder.join("ledger.json");
        let mut ledger = read(&file);
        edit(&mut ledger);
        ledger["sequence"] = (ledger["sequence"].as_u64().expect("a number") + 1).into();
        let staged = folder.join("staged");
        fs::write(&staged, ledger.to_string()).expect("the folder can be written");
        fs::rename(&staged, &file).expect("the folder can be written");
    }
}

fn read(file: &Path) -> Value {
    let text = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_slice(&text).expect("JSON")
}

/// An API server that uses this signer, with a service account `till` in the namespace `shop`.
pub(crate) fn started(signer: &ExternalSigner, etcd: &Etcd) -> ApiServer {
    let server = ApiServer::start(etcd, signer.options());
    server.create_namespace("shop");
    server.create_service_account("shop", "till");
    server
}

/// Requests a token of that service account.
pub(crate) fn request(server: &ApiServer, audience: &str) -> Response {
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [audience], "expirationSeconds": 600},
    });
    let path = "/api/v1/namespaces/shop/serviceaccounts/till/token";
    server.admin_request("POST", path).json(&body).answer()
}
