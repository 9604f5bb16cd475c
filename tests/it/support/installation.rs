//! One installation of the product: a configuration file, a data directory and two ports.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::azurite;
use super::http_client::{Request, Response};
use super::port::Port;
use super::s3;
use super::signpost::{Finished, Running, Signpost};

/// The paths below an issuer, in order of publication.
pub(crate) const DOCUMENTS: [&str; 2] = [JWKS, DISCOVERY];
pub(crate) const JWKS: &str = "openid/v1/jwks";
pub(crate) const DISCOVERY: &str = ".well-known/openid-configuration";

// A poll every second is seen within two, and the shortest schedule ticks once a minute; the machine may be
// busy with a build.
const SEEN_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const VERB_WITHIN: Duration = Duration::from_secs(90);

pub(crate) struct Installation {
    folder: TempDir,
    issuer: String,
    public: Port,
    admin: Port,
    /// Further keys of the top level.
    listener: Value,
}

impl Installation {
    /// `settings` is the mapping of its only issuer, without the issuer itself.
    pub(crate) fn new(issuer: &str, settings: &Value) -> Self {
        Self::with_listener(issuer, settings, json!({}))
    }

    /// The same with further keys of the top level, such as `tls`.
    pub(crate) fn with_listener(issuer: &str, settings: &Value, listener: Value) -> Self {
        let installation = Self {
            listener,
            folder: TempDir::new().expect("a temporary folder"),
            issuer: issuer.to_owned(),
            public: Port::free(),
            admin: Port::free(),
        };
        installation.configure(settings);
        installation
    }

    /// Replaces the configuration; a running process keeps the one it has read.
    pub(crate) fn configure(&self, settings: &Value) {
        let mut issuer = settings.clone();
        issuer["issuer"] = json!(self.issuer);
        self.configure_issuers(&[issuer]);
    }

    /// The same with many issuers, each with its `issuer`.
    pub(crate) fn configure_issuers(&self, issuers: &[Value]) {
        let mut config = self.listener.clone();
        config["listen"] = json!(self.public.address());
        config["admin_listen"] = json!(self.admin.address());
        config["data_dir"] = json!(self.data_dir());
        config["issuers"] = json!(issuers);
        fs::write(self.config_file(), config.to_string()).expect("the folder can be written");
    }

    /// Renames the issuer, effective with the next [`Installation::configure`].
    pub(crate) fn rename(&mut self, issuer: &str) {
        issuer.clone_into(&mut self.issuer);
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The ledger file, which must exist.
    pub(crate) fn ledger_file(&self) -> PathBuf {
        let ledgers = fs::read_dir(self.data_dir().join("issuers")).expect("a ledger was written");
        let directory = ledgers.map(|entry| entry.expect("it can be read").path()).next();
        directory.expect("it has an issuer").join("ledger.json")
    }

    pub(crate) fn ledger(&self) -> Value {
        serde_json::from_slice(&fs::read(self.ledger_file()).expect("a ledger")).expect("it is JSON")
    }

    /// A command with this configuration and the credentials of the tests' stores.
    pub(crate) fn verb<A: AsRef<OsStr>>(&self, verb: impl IntoIterator<Item = A>) -> Signpost {
        self.verb_without_credentials(verb)
            .env("AZURE_STORAGE_ACCOUNT_KEY", azurite::ACCOUNT_KEY)
            .env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY)
            .env("AWS_REGION", s3::REGION)
    }

    /// A command with this configuration.
    pub(crate) fn verb_without_credentials<A: AsRef<OsStr>>(
        &self,
        verb: impl IntoIterator<Item = A>,
    ) -> Signpost {
        Signpost::new(verb).env("SIGNPOST_CONFIG", self.config_file())
    }

    #[track_caller]
    pub(crate) fn sync(&self) -> Finished {
        self.finish(["sync"])
    }

    #[track_caller]
    pub(crate) fn finish<A: AsRef<OsStr>>(&self, verb: impl IntoIterator<Item = A>) -> Finished {
        self.verb(verb).finish(VERB_WITHIN)
    }

    /// Starts `signpost run` and waits until it listens, whatever it answers.
    pub(crate) fn run(&self) -> Service {
        self.run_as(self.verb(["run"]))
    }

    /// As [`Installation::run`], and waits until it is ready.
    #[track_caller]
    pub(crate) fn run_until_ready(&self) -> Service {
        let mut service = self.run();
        service.until("it is ready", |service| service.admin("/readyz").status == 200);
        service
    }

    pub(crate) fn run_as(&self, command: Signpost) -> Service {
        let mut running = command.start();
        let admin = format!("http://{}", self.admin.address());
        running.wait_for(&format!("{admin}/healthz"));
        let path = self.issuer.splitn(4, '/').nth(3).map_or(String::new(), |path| format!("/{path}"));
        let public = format!("http://{}{path}", self.public.address());
        Service { running, issuer: self.issuer.clone(), public, admin }
    }
}

/// A `signpost run` that listens.
pub(crate) struct Service {
    pub(crate) running: Running,
    issuer: String,
    public: String,
    admin: String,
}

/// Both documents as served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served(Vec<(String, Option<String>)>);

impl Served {
    /// The text of the JWKS.
    pub(crate) fn jwks(&self) -> &str {
        &self.0[0].0
    }
}

impl Service {
    /// The URL of a served document.
    pub(crate) fn url(&self, document: &str) -> String {
        format!("{}/{document}", self.public)
    }

    /// `HOST:PORT` of the public listener.
    pub(crate) fn address(&self) -> &str {
        self.public.split('/').nth(2).expect("it is a URL")
    }

    pub(crate) fn get(&self, document: &str) -> Response {
        Request::get(&self.url(document)).answer()
    }

    /// Both documents with their entity tags.
    #[track_caller]
    pub(crate) fn served(&self) -> Served {
        Served(
            DOCUMENTS
                .iter()
                .map(|document| {
                    let answer = self.get(document).expect_status(200);
                    (answer.text(), answer.header("etag").map(str::to_owned))
                })
                .collect(),
        )
    }

    pub(crate) fn admin(&self, path: &str) -> Response {
        Request::get(&self.admin_url(path)).answer()
    }

    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("{}{path}", self.admin)
    }

    /// The issuer in `/status.json`.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.admin("/status.json").expect_status(200).json()["issuers"][&self.issuer].take()
    }

    #[track_caller]
    pub(crate) fn source_is_up(&self, name: &str) -> bool {
        self.status()["sources"][name]["up"] == true
    }

    /// The status of the only source.
    #[track_caller]
    pub(crate) fn source(&self) -> Value {
        let mut status = self.status();
        let sources = status["sources"].as_object_mut().expect("sources are known once they were asked");
        assert_eq!(sources.len(), 1, "{sources:?}");
        sources.values_mut().next().expect("there is one").take()
    }

    /// The status of a target; null before its first observation.
    #[track_caller]
    pub(crate) fn target(&self, name: &str) -> Value {
        self.status()["targets"][name].take()
    }

    /// The value of the first sample with this name whose labels, if it has any, contain `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> Option<f64> {
        let page = self.admin("/metrics").expect_status(200).text();
        let sample = page.lines().find(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']));
            rest.is_some_and(|rest| rest.contains(label))
        })?;
        sample.rsplit(' ').next()?.parse().ok()
    }

    /// Waits until `check` holds.
    ///
    /// # Panics
    ///
    /// Panics with the log and the status when the process ends or it takes too long.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut check: impl FnMut(&Self) -> bool) {
        let started = Instant::now();
        while !check(self) {
            let log = self.running.stderr();
            assert!(self.running.is_running(), "signpost ended before {what}\n{log}");
            if started.elapsed() > SEEN_WITHIN {
                let status = self.admin("/status.json").text();
                panic!("not within {SEEN_WITHIN:?}: {what}\n{status}\n{log}");
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Sends SIGTERM and waits until it has ended.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Finished {
        self.running.terminate();
        self.running.finish(Duration::from_secs(30))
    }
}

/// A source that is polled every second.
pub(crate) fn api_server(kubeconfig: &Path) -> Value {
    json!({"kind": "api-server", "kubeconfig": kubeconfig, "every": "1s"})
}

/// A source of key files that is polled every second.
pub(crate) fn files(paths: &[&Path]) -> Value {
    json!({"kind": "files", "name": "files", "paths": paths, "every": "1s"})
}

/// A target on Azurite, or on a proxy in front of it; `place` is `CONTAINER` or `CONTAINER/PREFIX`.
pub(crate) fn azure_target(endpoint: &str, place: &str) -> Value {
    let account = azurite::ACCOUNT;
    let url = format!("az://{account}/{place}");
    json!({"name": "azure", "url": url, "endpoint": format!("{endpoint}/{account}")})
}

/// A target on the S3 server, or on a proxy in front of it; `place` is `BUCKET` or `BUCKET/PREFIX`.
pub(crate) fn s3_target(endpoint: &str, place: &str) -> Value {
    json!({"name": "s3", "url": format!("s3://{place}"), "endpoint": endpoint})
}

/// A target on the GCS server; `place` is `BUCKET` or `BUCKET/PREFIX`.
pub(crate) fn gcs_target(endpoint: &str, place: &str) -> Value {
    json!({"name": "gcs", "url": format!("gs://{place}"), "endpoint": endpoint})
}

pub(crate) fn directory_target(path: &Path) -> Value {
    json!({"name": "directory", "url": format!("file://{}", path.display())})
}
