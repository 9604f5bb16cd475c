//! A ledger that is deleted, truncated, restored from an old backup or edited by hand, in a file and in a
//! `ConfigMap`, under a running service and across a restart: no key wrongly leaves the publication, and the
//! operator is informed.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    cluster::Cluster,
    config_map::ConfigMap,
    http_client::Request,
    installation::{Installation, JWKS, Service, directory_target, s3_target},
    pki::KeyFiles,
    s3::S3,
};

const ISSUER: &str = "https://oidc.example/damaged";

/// Damage by an operator or a disk.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Deleted,
    CutOff,
    /// The state before the second key was added.
    Yesterdays,
    /// An entry is missing.
    Shortened,
    /// An entry is replaced by a forged tombstone.
    Buried,
}

use Damage::{Buried, CutOff, Deleted, Shortened, Yesterdays};

/// The location of the ledger.
enum Home<'a> {
    File,
    ConfigMap(ConfigMap<'a>),
}

/// An installation with a key that every source lists, and one that is only retained.
struct Scene<'a> {
    folder: TempDir,
    s3: S3,
    home: Home<'a>,
    installation: Installation,
    kids: [String; 2],
    /// The ledger before the second key was added.
    yesterday: String,
}

impl<'a> Scene<'a> {
    fn new(home: Home<'a>, kubeconfig: &Path) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let s3 = S3::start();
        s3.create_bucket("oidc");
        let keys = folder.path().join("keys");
        fs::create_dir(&keys).expect("the folder can be written");
        let mut settings = json!({
            "sources": [{"kind": "files", "name": "files", "paths": [keys], "every": "1s"}],
            "targets": [s3_target(&s3.url(), "oidc/c1"), directory_target(&folder.path().join("public"))],
        });
        if let Home::ConfigMap(map) = &home {
            settings["ledger"] = json!({"config_map": map.reference(), "kubeconfig": kubeconfig});
        }
        let installation = Installation::new(ISSUER, &settings);
        let mut scene =
            Self { folder, s3, home, installation, kids: Default::default(), yesterday: String::new() };
        scene.kids[0] = scene.add("stays");
        scene.installation.sync().expect_code(0);
        scene.yesterday = scene.ledger_text();
        scene.kids[1] = scene.add("leaves");
        scene.installation.sync().expect_code(0);
        fs::remove_file(scene.key("leaves")).expect("it is there");
        scene.installation.sync().expect_code(0);
        scene
    }

    fn key(&self, name: &str) -> PathBuf {
        self.folder.path().join("keys").join(name)
    }

    /// Adds a key to the source; returns its kid.
    fn add(&self, name: &str) -> String {
        let public = KeyFiles::rsa(self.folder.path(), name).public;
        fs::copy(&public, self.key(name)).expect("the folder can be written");
        let jwks = self.installation.finish(["jwks".as_ref(), "--source".as_ref(), public.as_os_str()]);
        kids(&jwks.expect_code(0).stdout).remove(0)
    }

    fn ledger_text(&self) -> String {
        match &self.home {
            Home::File => fs::read_to_string(self.installation.ledger_file()).expect("stored"),
            Home::ConfigMap(map) => map.ledger_text(),
        }
    }

    fn ledger(&self) -> Value {
        serde_json::from_str(&self.ledger_text()).expect("a ledger")
    }

    /// The contents of the targets.
    fn published(&self) -> [Vec<String>; 2] {
        let directory = fs::read_to_string(self.folder.path().join("public").join(JWKS)).unwrap_or_default();
        [kids(&self.s3.get(&format!("/oidc/c1/{JWKS}")).text()), kids(&directory)]
    }

    fn incidents(&self) -> usize {
        self.ledger()["incidents"].as_array().map_or(0, Vec::len)
    }

    fn damage(&self, damage: Damage) {
        let good = self.ledger_text();
        let edited = |edit: &dyn Fn(&mut Value)| {
            let mut ledger = serde_json::from_str(&good).expect("a ledger");
            edit(&mut ledger);
            serde_json::to_string_pretty(&ledger).expect("JSON")
        };
        let owed = &self.kids[1];
        let text = match damage {
            Deleted => return self.delete(),
            CutOff => good[..good.len() / 2].to_owned(),
            Yesterdays => self.yesterday.clone(),
            Shortened => edited(&|ledger| drop(ledger["keys"].as_object_mut().expect("keys").remove(owed))),
            Buried => edited(&|ledger| {
                ledger["keys"][owed]["state"] = json!({"removed": {"at": "2026-01-01T00:00:00Z"}});
            }),
        };
        match &self.home {
            Home::File => {
                // Atomically: a partial write would be another kind of damage.
                let (file, staged) = (self.installation.ledger_file(), self.folder.path().join("staged"));
                fs::write(&staged, text).expect("the folder is ours");
                fs::rename(&staged, &file).expect("both are on one file system");
            }
            Home::ConfigMap(map) => map.replace_data(&json!({"ledger.json": text})),
        }
    }

    fn delete(&self) {
        match &self.home {
            Home::File => fs::remove_file(self.installation.ledger_file()).expect("it is there"),
            Home::ConfigMap(map) => map.delete(),
        }
    }

    /// Waits until the damage is repaired and reported; `incidents` is the previous number of incidents.
    #[track_caller]
    fn expect_repaired(&self, service: &mut Service, damage: Damage, incidents: usize) {
        let what = match damage {
            Deleted => "the ledger was ",
            CutOff => "the ledger was damaged",
            Yesterdays => "was it restored from a backup?",
            Shortened | Buried => "the ledger was edited by hand",
        };
        service.until("it is told", |service| {
            let status = service.status();
            let (alarms, told) = (status["alarms"].to_string(), &status["ledger"]["incidents"]);
            let is_new = told.as_array().expect("incidents").len() > incidents;
            is_new && alarms.contains(what) && alarms.contains("no key is removed before")
        });
        assert!(service.metric("signpost_alarms", ISSUER) >= Some(1.0));
        assert!(service.metric("signpost_ledger_hold_until_timestamp_seconds", ISSUER).is_some());
        let lines =
            |log: &str| log.lines().filter(|line| line.contains("WARN") && line.contains(what)).count();
        service.until("it is logged", |service| lines(&service.running.stderr()) > 0);
        let log = service.running.stderr();
        assert_eq!(lines(&log), 1, "{damage:?}\n{log}");
        let ledger = self.ledger();
        for kid in &self.kids {
            assert!(ledger["keys"][kid]["state"]["removed"].is_null(), "{damage:?}: {ledger}");
            assert!(ledger["keys"][kid].is_object(), "{damage:?}: {ledger}");
        }
        let shown = self.installation.finish(["ledger", "show"]).expect_code(0).stdout;
        assert!(shown.contains(what), "{shown}");
    }
}

fn kids(jwks: &str) -> Vec<String> {
    let jwks: Value = serde_json::from_str(jwks).unwrap_or_default();
    let keys = jwks["keys"].as_array().cloned().unwrap_or_default();
    keys.iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}

/// Reads the served documents as fast as possible, and records whether a key was ever missing.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Watcher {
    fn start(url: String, kids: [String; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut looks = 0;
            while !stopped.load(Ordering::Relaxed) {
                let jwks = Request::get(&url).answer().expect_status(200).text();
                for kid in &kids {
                    assert!(jwks.contains(kid), "{kid} was gone at look {looks}: {jwks}");
                }
                looks += 1;
                thread::sleep(Duration::from_millis(10));
            }
            looks
        });
        Self { stop, thread }
    }

    #[track_caller]
    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.thread.join().expect("no key was ever gone") > 0);
    }
}

fn under_a_running_service(scene: &Scene, damages: &[Damage]) {
    for damage in damages {
        let mut service = scene.installation.run_until_ready();
        let watcher = Watcher::start(service.url(JWKS), scene.kids.clone());
        service.until("it has stored all that it sees, and writes no more", |service| {
            let (ledger, source) = (scene.ledger(), service.source_is_up("files"));
            let shown =
                |kid: &String| ledger["keys"][kid]["shown"].as_object().map_or(0, serde_json::Map::len);
            source && scene.kids.iter().all(|kid| shown(kid) == 3)
        });
        let incidents = scene.incidents();
        scene.damage(*damage);
        scene.expect_repaired(&mut service, *damage, incidents);
        for published in scene.published() {
            assert!(scene.kids.iter().all(|kid| published.contains(kid)), "{damage:?}: {published:?}");
        }
        watcher.finish();
        assert_eq!(service.stop().code, Some(0));
    }
}

fn across_a_restart(scene: &Scene, damages: &[Damage]) {
    for damage in damages {
        let incidents = scene.incidents();
        scene.damage(*damage);
        let mut service = scene.installation.run_until_ready();
        let watcher = Watcher::start(service.url(JWKS), scene.kids.clone());
        scene.expect_repaired(&mut service, *damage, incidents);
        service.until("the targets are true", |service| {
            ["s3", "directory"].iter().all(|target| service.target(target)["up"] == true)
        });
        for published in scene.published() {
            assert!(scene.kids.iter().all(|kid| published.contains(kid)), "{damage:?}: {published:?}");
        }
        watcher.finish();
        assert_eq!(service.stop().code, Some(0));
    }
}

#[test]
fn a_file_that_is_damaged_under_a_running_service_takes_no_key_away() {
    let scene = Scene::new(Home::File, Path::new("/nowhere"));
    under_a_running_service(&scene, &[Deleted, CutOff, Yesterdays, Shortened, Buried, Deleted]);
}

#[test]
fn a_config_map_that_is_damaged_under_a_running_service_takes_no_key_away() {
    let cluster = Cluster::shared();
    let map = ConfigMap::in_new_namespace(&cluster.server, "damaged-running");
    let folder = TempDir::new().expect("a temporary folder");
    let kubeconfig = folder.path().join("kubeconfig");
    cluster.server.admin_kubeconfig(&kubeconfig);
    let scene = Scene::new(Home::ConfigMap(map), &kubeconfig);
    under_a_running_service(&scene, &[Deleted, CutOff, Yesterdays, Shortened, Buried]);
}

/// The previous version lies beside the file.
#[test]
fn a_file_that_is_damaged_between_two_runs_takes_no_key_away() {
    let scene = Scene::new(Home::File, Path::new("/nowhere"));
    across_a_restart(&scene, &[Deleted, CutOff, Yesterdays, Shortened, Buried]);
}

/// The data directory has a copy.
#[test]
fn a_config_map_that_is_damaged_between_two_runs_takes_no_key_away() {
    let cluster = Cluster::shared();
    let map = ConfigMap::in_new_namespace(&cluster.server, "damaged-between");
    let folder = TempDir::new().expect("a temporary folder");
    let kubeconfig = folder.path().join("kubeconfig");
    cluster.server.admin_kubeconfig(&kubeconfig);
    let scene = Scene::new(Home::ConfigMap(map), &kubeconfig);
    across_a_restart(&scene, &[Deleted, CutOff, Yesterdays, Shortened, Buried]);
}

/// The whole data directory is from a backup: only the targets are newer. Keys that only a target has stay
/// there, are not copied to others, and the operator is told how to adopt them.
#[test]
fn a_data_directory_from_yesterday_is_recognised_by_what_the_targets_show() {
    let scene = Scene::new(Home::File, Path::new("/nowhere"));
    let ledger = scene.installation.ledger_file();
    let [stays, leaves] = scene.kids.clone();
    let target_sequence = scene.ledger()["sequence"].as_u64().expect("a number");
    fs::write(&ledger, &scene.yesterday).expect("the folder is ours");
    let _ = fs::remove_file(ledger.with_file_name("ledger.previous.json"));
    let told = scene.installation.finish(["sync", "--dry-run"]);
    assert!(told.stderr.contains("was it restored from a backup?"), "{}", told.stderr);

    let mut service = scene.installation.run_until_ready();
    service.until("it is told", |service| {
        let alarms = service.status()["alarms"].to_string();
        alarms.contains("was it restored from a backup?") && alarms.contains("1 unmanaged key at a target")
    });
    assert!(scene.ledger()["sequence"].as_u64() > Some(target_sequence - 1), "below its own witness");
    assert_eq!(kids(service.served().jwks()), [stays], "a key that only targets know was spread");
    for published in scene.published() {
        assert!(published.contains(&leaves), "{published:?}");
    }
    scene.installation.finish(["ledger", "adopt", "--", &leaves]).expect_code(0);
    service.until("it is served again", |service| service.get(JWKS).text().contains(&leaves));
    assert_eq!(service.stop().code, Some(0));
}

/// Whoever may write to a target may forge anything there, including the sequence.
#[test]
fn a_sequence_that_somebody_forged_on_a_target_breaks_nothing() {
    let scene = Scene::new(Home::File, Path::new("/nowhere"));
    let owners = scene.folder.path().join("public/.signpost.json");
    let forge = |sequence: u64| {
        let mut json: Value = serde_json::from_slice(&fs::read(&owners).expect("owners")).expect("JSON");
        for document in ["jwks", "discovery"] {
            json["owners"][document]["sequence"] = sequence.into();
        }
        fs::write(&owners, json.to_string()).expect("the folder is ours");
    };
    for forged in [u64::MAX, 1 << 53, (1 << 52) + 1] {
        forge(forged);
        scene.installation.sync().expect_code(0);
        assert!(scene.ledger()["sequence"].as_u64() < Some(100), "{forged} was believed");
    }
    forge(1 << 52);
    let told = scene.installation.sync().expect_code(0).stderr;
    assert!(told.contains("warning: ") && told.contains("restored from a backup?"), "{told}");
    let believed = scene.ledger();
    assert_eq!(believed["sequence"].as_u64(), Some((1 << 52) + 1));
    forge(u64::MAX);
    scene.installation.sync().expect_code(0);
    assert_eq!(scene.ledger(), believed, "the hold was extended, or the sequence went on");
    let third = scene.add("third");
    scene.installation.sync().expect_code(0);
    assert!(scene.published().iter().all(|published| published.contains(&third)));
}
