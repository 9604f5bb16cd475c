//! The servers of the conformance suite, and what each fault means for them.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use http::header::CACHE_CONTROL;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use signpost::{
    core::{
        jose::publication::{Document, Paths},
        location::Location,
    },
    target::{Connections, PublicAddress, Target},
};

use tempfile::TempDir;

use super::{owner, publication};
use crate::support::{
    azurite::{self, Azurite},
    child::with_environment,
    components::variable,
    fault_proxy::{Action, FaultProxy, Rule},
    gcs::{Gcs, Role, ServiceAccount},
    google_twin::{self, GoogleTwin},
    s3::{self, S3},
};

const CONTAINER: &str = "oidc";
const PREFIX: &str = "some/prefix";
const READER: (&str, &str) = ("signpost-test-reader", "signpost-test-reader-secret");
/// Longer than any time limit of the product.
const FOR_EVER: Duration = Duration::from_mins(10);
/// A write of this length ends in the middle of a JWKS.
const BREAKS_OFF_AFTER: usize = 100;

/// A change of a document by another writer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edit {
    /// Overwrites it with these bytes, without owner and headers.
    Overwrite(&'static [u8]),
    /// Changes only this header.
    CacheControl(&'static str),
    Delete,
}

/// A fault that lasts until the server recovers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    BusyForAWhile,
    NoAnswerToWrites,
    WritesBreakOff,
    AnswersBreakOff,
}

/// Whether a target can keep headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeps {
    Headers,
    ContentOnly,
    /// One document, and no owner.
    JwksOnly,
}

/// The permissions of the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    Writer,
    /// Only reading; there is a document to read.
    Reader,
}

/// An empty target, and a server behind it that can be made to fail.
pub(super) struct Scene {
    pub(super) target: Target,
    pub(super) keeps: Keeps,
    /// The error for a missing permission, and its hint.
    pub(super) denied: (&'static str, &'static str),
    /// The error when there was no answer in time.
    pub(super) late: &'static str,
    server: Box<dyn Server>,
}

impl Scene {
    /// Changes a document independently of the product.
    pub(super) fn edit(&self, document: Document, edit: Edit) {
        self.server.edit(document, edit);
    }

    pub(super) fn suffer(&self, fault: Fault) {
        self.server.suffer(fault);
    }

    pub(super) fn recover(&self) {
        self.server.recover();
    }
}

pub(super) trait Server {
    fn location(&self) -> Location;
    fn edit(&self, document: Document, edit: Edit);
    fn suffer(&self, fault: Fault);
    fn recover(&self);
    /// Called by the thread that will use the target, before it does.
    fn enter(&self, _rights: Rights) {}
}

/// One of the servers of the suite.
pub(super) struct Kind {
    credentials: fn(Rights) -> Vec<(&'static str, String)>,
    start: fn() -> Box<dyn Server>,
    keeps: Keeps,
    denied: (&'static str, &'static str),
    late: &'static str,
}

/// Runs a case in a separate process, because the credentials of a target come from the environment.
pub(super) fn run(test: &str, kind: fn() -> Kind, rights: Rights, case: impl AsyncFn(Scene)) {
    let Kind { credentials, start, keeps, denied, late } = kind();
    let credentials = credentials(rights);
    let credentials: Vec<_> = credentials.iter().map(|(name, value)| (*name, value.as_str())).collect();
    with_environment(test, &credentials, || {
        let server = start();
        if rights == Rights::Reader {
            server.edit(Document::Jwks, Edit::Overwrite(b"published by somebody else"));
        }
        server.enter(rights);
        let connections = Connections::default();
        let target =
            Target::new("target".to_owned(), server.location(), &PublicAddress::default(), &connections);
        let scene = Scene { target: target.expect("a target"), keeps, denied, late, server };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(case(scene));
    });
}

/// Scripts the proxy in front of a store, which answers itself or closes connections.
fn script(proxy: &FaultProxy, fault: Fault, busy: Action) {
    script_for(proxy, fault, busy, "PUT");
}

/// The same where writes have another method.
fn script_for(proxy: &FaultProxy, fault: Fault, busy: Action, write: &'static str) {
    proxy.script([match fault {
        Fault::BusyForAWhile => Rule::new(busy).times(2),
        Fault::NoAnswerToWrites => Rule::new(Action::Delay(FOR_EVER)).method(write),
        Fault::WritesBreakOff => Rule::new(Action::CutRequest(BREAKS_OFF_AFTER)).method(write),
        Fault::AnswersBreakOff => Rule::new(Action::CutAfter(BREAKS_OFF_AFTER)).method("GET"),
    }]);
}

fn busy(status: u16, body: &'static str) -> Action {
    Action::Answer { status, headers: vec![("content-type", "application/xml")], body }
}

fn path(document: Document) -> String {
    format!("{CONTAINER}/{PREFIX}/{}", Paths::default().of(document))
}

pub(super) fn azurite() -> Kind {
    struct OnAzurite(Azurite, FaultProxy);

    impl Server for OnAzurite {
        fn location(&self) -> Location {
            let endpoint = format!("{}/{}", self.1.url(), azurite::ACCOUNT);
            Location::Azure {
                account: azurite::ACCOUNT.to_owned(),
                container: CONTAINER.to_owned(),
                prefix: PREFIX.to_owned(),
                endpoint: Some(endpoint.parse().expect("it is a URL")),
            }
        }

        fn edit(&self, document: Document, edit: Edit) {
            match edit {
                Edit::Overwrite(bytes) => self.0.put(&path(document), "text/plain", bytes),
                Edit::CacheControl(value) => self.0.set_cache_control(&path(document), value),
                Edit::Delete => self.0.delete(&path(document)),
            }
        }

        fn suffer(&self, fault: Fault) {
            // Source: "Blob Storage error codes".
            script(&self.1, fault, busy(503, "<Error><Code>ServerBusy</Code></Error>"));
        }

        fn recover(&self) {
            self.1.script([]);
        }
    }

    Kind {
        credentials: |rights| match rights {
            Rights::Writer => vec![("AZURE_STORAGE_ACCOUNT_KEY", azurite::ACCOUNT_KEY.to_owned())],
            Rights::Reader => vec![("AZURE_STORAGE_SAS_KEY", azurite::sas("r"))],
        },
        start: || {
            let azurite = Azurite::start();
            azurite.create_private_container(CONTAINER);
            let proxy = FaultProxy::start(azurite.url().trim_end_matches(azurite::ACCOUNT));
            Box::new(OnAzurite(azurite, proxy))
        },
        keeps: Keeps::Headers,
        denied: ("access denied (`AuthorizationPermissionMismatch`)", "`Storage Blob Data Contributor`"),
        late: "no answer within 10 s",
    }
}

pub(super) fn s3() -> Kind {
    struct OnS3(S3, FaultProxy);

    impl Server for OnS3 {
        fn location(&self) -> Location {
            Location::S3 {
                bucket: CONTAINER.to_owned(),
                prefix: PREFIX.to_owned(),
                endpoint: Some(self.1.url().parse().expect("it is a URL")),
            }
        }

        fn edit(&self, document: Document, edit: Edit) {
            let path = format!("/{}", path(document));
            match edit {
                Edit::Overwrite(bytes) => self.0.put(&path, "text/plain", bytes),
                Edit::CacheControl(value) => self.0.set_cache_control(&path, value),
                Edit::Delete => self.0.delete(&path),
            }
        }

        fn suffer(&self, fault: Fault) {
            // Source: "Error responses" of the Amazon S3 API.
            script(&self.1, fault, busy(503, "<Error><Code>SlowDown</Code></Error>"));
        }

        fn recover(&self) {
            self.1.script([]);
        }
    }

    Kind {
        credentials: |rights| {
            let (access_key, secret_key) = match rights {
                Rights::Writer => (s3::ACCESS_KEY, s3::SECRET_KEY),
                Rights::Reader => READER,
            };
            vec![
                ("AWS_ACCESS_KEY_ID", access_key.to_owned()),
                ("AWS_SECRET_ACCESS_KEY", secret_key.to_owned()),
                ("AWS_REGION", s3::REGION.to_owned()),
            ]
        },
        start: || {
            let s3 = S3::start();
            s3.create_bucket(CONTAINER);
            s3.create_user(READER.0, READER.1);
            s3.allow_anonymous_read(CONTAINER);
            let proxy = FaultProxy::start(&s3.url());
            Box::new(OnS3(s3, proxy))
        },
        keeps: Keeps::Headers,
        denied: (
            "access denied (`AccessDenied`)",
            "`s3:GetObject` and `s3:PutObject` on `arn:aws:s3:::oidc/some/prefix/*`",
        ),
        late: "no answer within 10 s",
    }
}

pub(super) fn gcs() -> Kind {
    const KEY: &str = "GOOGLE_SERVICE_ACCOUNT_KEY";

    struct OnGcs(Gcs, FaultProxy);

    impl Server for OnGcs {
        fn location(&self) -> Location {
            Location::Gcs {
                bucket: CONTAINER.to_owned(),
                prefix: PREFIX.to_owned(),
                endpoint: Some(self.1.url().parse().expect("it is a URL")),
            }
        }

        fn edit(&self, document: Document, edit: Edit) {
            match edit {
                Edit::Overwrite(bytes) => self.0.put(&path(document), "text/plain", bytes),
                Edit::CacheControl(value) => self.0.set_header(&path(document), CACHE_CONTROL, value),
                Edit::Delete => self.0.delete(&path(document)),
            }
        }

        fn suffer(&self, fault: Fault) {
            // Source: "HTTP status and error codes for XML" of Google Cloud Storage.
            script(&self.1, fault, busy(429, "<Error><Code>SlowDown</Code></Error>"));
        }

        fn recover(&self) {
            self.1.script([]);
        }
    }

    Kind {
        credentials: |rights| {
            let name = match rights {
                Rights::Writer => "writer",
                Rights::Reader => "reader",
            };
            vec![(KEY, ServiceAccount::generate(name).json().to_owned())]
        },
        start: || {
            let key = variable(KEY).expect("it is in the environment of this process");
            let account = ServiceAccount::of_json(key.to_str().expect("it is text"));
            let gcs = Gcs::start();
            let role = if account.json().contains("writer@") { Role::User } else { Role::Viewer };
            gcs.allow(&account, role);
            gcs.create_bucket(CONTAINER, false);
            let proxy = FaultProxy::start(&gcs.url());
            Box::new(OnGcs(gcs, proxy))
        },
        keeps: Keeps::Headers,
        denied: ("access denied (`AccessDenied`)", "the role `roles/storage.objectUser` on bucket `oidc`"),
        late: "no answer within 10 s",
    }
}

pub(super) fn workload_identity() -> Kind {
    const KEY: &str = "GOOGLE_SERVICE_ACCOUNT_KEY";

    struct OnProvider(GoogleTwin, FaultProxy);

    impl Server for OnProvider {
        fn location(&self) -> Location {
            Location::WorkloadIdentityProvider {
                name: google_twin::PROVIDER.to_owned(),
                endpoint: Some(self.1.url().parse().expect("it is a URL")),
            }
        }

        fn edit(&self, _: Document, edit: Edit) {
            self.0.edit(|provider| match edit {
                Edit::Overwrite(bytes) => {
                    provider["oidc"]["jwksJson"] = str::from_utf8(bytes).expect("it is text").into();
                }
                Edit::Delete => provider["oidc"]["jwksJson"] = "".into(),
                Edit::CacheControl(_) => unreachable!("a provider keeps no headers"),
            });
        }

        fn suffer(&self, fault: Fault) {
            // Source: AIP-193.
            let body =
                r#"{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded."}}"#;
            script_for(&self.1, fault, busy(429, body), "PATCH");
        }

        fn recover(&self) {
            self.1.script([]);
        }
    }

    Kind {
        credentials: |rights| {
            let name = match rights {
                Rights::Writer => "writer",
                Rights::Reader => "reader",
            };
            vec![(KEY, ServiceAccount::generate(name).json().to_owned())]
        },
        start: || {
            let key = variable(KEY).expect("it is in the environment of this process");
            let account = ServiceAccount::of_json(key.to_str().expect("it is text"));
            let twin = GoogleTwin::start("https://issuer.example");
            twin.allow(
                &account,
                if account.json().contains("writer@") { &["get", "update"] } else { &["get"] },
            );
            let proxy = FaultProxy::start(&twin.url());
            Box::new(OnProvider(twin, proxy))
        },
        keeps: Keeps::JwksOnly,
        denied: (
            "access denied (`PERMISSION_DENIED`)",
            "`iam.workloadIdentityPoolProviders.update` in project",
        ),
        late: "no answer within 10 s",
    }
}

/// Here the service is the file system: it is busy while another writer holds the lock, gives no answer while
/// that one keeps it, and truncates a write at a limit.
pub(super) fn directory() -> Kind {
    struct InDirectory {
        folder: TempDir,
        lock: Arc<Mutex<Option<File>>>,
    }

    impl InDirectory {
        fn root(&self) -> PathBuf {
            self.folder.path().join("public")
        }

        fn take_lock(&self) {
            let lock = File::open(self.root().join(".signpost.lock")).expect("it was written to before");
            lock.lock().expect("nobody else has it");
            *self.lock.lock().expect("no thread panics with it") = Some(lock);
        }
    }

    impl Server for InDirectory {
        fn location(&self) -> Location {
            Location::Directory(self.root())
        }

        fn edit(&self, document: Document, edit: Edit) {
            let path = self.root().join(Paths::default().of(document));
            match edit {
                Edit::Overwrite(bytes) => {
                    fs::create_dir_all(path.parent().expect("it has one")).expect("the folder is ours");
                    fs::write(path, bytes).expect("it can be written");
                }
                Edit::CacheControl(_) => unreachable!("a directory keeps no headers"),
                Edit::Delete => fs::remove_file(path).expect("it can be removed"),
            }
        }

        fn suffer(&self, fault: Fault) {
            match fault {
                Fault::BusyForAWhile => {
                    self.take_lock();
                    let lock = Arc::clone(&self.lock);
                    thread::spawn(move || {
                        thread::sleep(Duration::from_millis(300));
                        *lock.lock().expect("no thread panics with it") = None;
                    });
                }
                Fault::NoAnswerToWrites => self.take_lock(),
                Fault::WritesBreakOff => limit_files(Some(BREAKS_OFF_AFTER)),
                Fault::AnswersBreakOff => unreachable!("nobody answers"),
            }
        }

        fn recover(&self) {
            *self.lock.lock().expect("no thread panics with it") = None;
            limit_files(None);
        }

        fn enter(&self, rights: Rights) {
            if rights == Rights::Reader {
                // This capability lets root write anywhere.
                let mut sets = capabilities(None).expect("they can be read");
                sets.effective.remove(CapabilitySet::DAC_OVERRIDE);
                set_capabilities(None, sets).expect("they can be given up");
                let root = self.root();
                fs::write(root.join(".signpost.lock"), "").expect("the folder is ours");
                for directory in [root.join("openid/v1"), root.join("openid"), root] {
                    fs::set_permissions(directory, Permissions::from_mode(0o555)).expect("it is ours");
                }
            }
        }
    }

    impl Drop for InDirectory {
        fn drop(&mut self) {
            for directory in ["public", "public/openid", "public/openid/v1"] {
                let directory = self.folder.path().join(directory);
                // The directory may not exist.
                let _ = fs::set_permissions(directory, Permissions::from_mode(0o755));
            }
        }
    }

    Kind {
        credentials: |_| Vec::new(),
        start: || {
            let folder = TempDir::new().expect("a temporary folder");
            Box::new(InDirectory { folder, lock: Arc::default() })
        },
        keeps: Keeps::ContentOnly,
        denied: ("Permission denied", "let user ID"),
        late: "locked by another process for 5s",
    }
}

/// Limits the size of files that this process writes.
fn limit_files(bytes: Option<usize>) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    let current = bytes.map_or(maximum, |bytes| Some(bytes as u64));
    setrlimit(Resource::Fsize, Rlimit { current, maximum }).expect("a soft limit can be moved");
}

/// The documents are long enough for the faults to truncate them.
#[test]
fn a_jwks_is_longer_than_what_is_written_before_it_breaks_off() {
    assert!(publication(1).bytes(Document::Jwks).len() > 2 * BREAKS_OFF_AFTER);
    assert_eq!(owner("ours", 1).sequence, 1);
}
