//! `signpost signer` in directories that others may write: the entries of `announcements/`, its socket, a
//! full disk, and the modes of its files.

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::json;
use tempfile::TempDir;

use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::external_signer::{ExternalSigner, started};
use crate::support::http_client::{Request, Response};
use crate::support::port::Port;
use crate::support::signpost::Signpost;
use crate::support::user::{as_member_of, as_nobody, not_root};

const ISSUER: &str = "https://issuer.example";
const AT_MOST: Duration = Duration::from_mins(1);

fn metric(admin: &Port, name: &str) -> String {
    let page =
        Request::get(&format!("http://{}/metrics", admin.address())).answer().expect_status(200).text();
    let line = page.lines().find(|line| line.starts_with(&format!("signpost_signer_{name}{{")));
    line.and_then(|line| line.rsplit(' ').next()).expect("a value").to_owned()
}

fn readiness(admin: &Port) -> Response {
    Request::get(&format!("http://{}/readyz", admin.address())).answer()
}

/// Hostile entries in a writable directory: under every name that the signer has ever written to, links to a
/// file of another user; and as announcements irregular and endless files.
fn plant(announcements: &Path, precious: &Path) {
    let path = |name: &str| announcements.join(name);
    for name in [".node-1.json.tmp", ".cp-2.json.carried", ".node-1.json.carried"] {
        symlink(precious, path(name)).expect("the folder is ours");
    }
    mkfifoat(CWD, path("cp-2.json"), Mode::RWXU).expect("the folder is ours");
    symlink(path("cp-2.json"), path("cp-3.json")).expect("the folder is ours");
    for (name, device) in [("cp-4.json", "/dev/zero"), ("cp-5.json", "/proc/kmsg"), ("cp-6.json", "/dev/tty")]
    {
        symlink(device, path(name)).expect("the folder is ours");
    }
    fs::create_dir(path("cp-7.json")).expect("the folder is ours");
    let large = fs::File::create(path("cp-8.json")).expect("the folder is ours");
    large.set_len(64 * 1024 * 1024 * 1024).expect("it has no blocks");
    for number in 0..2_000 {
        fs::write(path(&format!("x{number}.json")), "{").expect("the folder is ours");
    }
}

#[test]
fn whoever_may_write_announcements_overwrites_nothing_and_stops_no_signature_no_revocation_and_no_end() {
    let mut signer = ExternalSigner::start(ISSUER, "");
    let (first, second) = (signer.signing(), signer.standby());
    let announcements = signer.data_dir().join("announcements");
    let own = announcements.join("node-1.json");
    let precious = signer.folder().join("precious");
    fs::write(&precious, "precious").expect("the folder is ours");
    plant(&announcements, &precious);
    signer.order(&second);

    // In place of its own announcement: everything that could block or redirect its writes.
    let in_place: [(&str, &dyn Fn()); 3] = [
        ("a pipe", &|| mkfifoat(CWD, &own, Mode::RWXU).expect("the folder is ours")),
        ("a link", &|| symlink(&precious, &own).expect("the folder is ours")),
        ("a directory", &|| fs::create_dir_all(own.join("full")).expect("the folder is ours")),
    ];
    for (what, put) in in_place {
        let kid = signer.standby();
        fs::remove_file(&own).expect("it is there");
        put();
        signer.order_without_waiting(&kid);
        eventually(what, || (signer.journal()["signing"] == kid.as_str()).then_some(()));
        eventually(what, || {
            fs::symlink_metadata(&own).ok().filter(fs::Metadata::is_file)?;
            signer.announcement()["keys"][&kid]["stage"].get("active").map(drop)
        });
        // It also starts with these entries.
        signer.kill();
        fs::remove_file(&own).expect("it is there");
        put();
        signer.restart();
        eventually(what, || fs::symlink_metadata(&own).ok().filter(fs::Metadata::is_file));
    }
    signer.revoke(&first);
    assert_eq!(fs::read(&precious).expect("it is there"), b"precious");
    let peak = fs::read_to_string(format!("/proc/{}/status", signer.running().id())).expect("it runs");
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak").trim();
    let kilobytes: u64 = peak.trim_end_matches(" kB").parse().expect("a number");
    assert!(kilobytes < 200 * 1024, "it took {peak}");
    signer.running().wait_for_output("expected a regular file");
    signer.terminate().expect_code(0);
}

#[test]
fn what_others_cannot_read_or_write_has_that_mode_whatever_the_umask() {
    for umask in ["0", "077"] {
        let folder = TempDir::new().expect("a folder");
        let (data, config) = (folder.path().join("made/data"), folder.path().join("signpost.yaml"));
        let issuer = json!({
            "issuer": ISSUER, "sources": [{"kind": "embedded"}],
            "targets": [{"url": format!("file://{}", folder.path().join("public").display())}],
        });
        fs::write(&config, json!({"data_dir": data, "issuers": [issuer]}).to_string()).expect("ours");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]);
        let config = config.to_str().expect("UTF-8");
        let sync = Signpost::within(shell, ["sync", "--config", config]);
        sync.finish(AT_MOST).expect_code(0);
        let mut found = Vec::new();
        walk(&data, &mut found);
        assert!(found.len() > 8, "{found:?}");
        for path in found {
            let mode = fs::symlink_metadata(&path).expect("it is there").mode() & 0o777;
            let inside = path.strip_prefix(&data).expect("it is in there");
            let is_public =
                inside.starts_with("announcements") || inside.extension().is_some_and(|e| e == "pub");
            let expected = match (path.is_dir(), is_public) {
                (true, false) => 0o700,
                (true, true) => 0o755,
                (false, false) => 0o600,
                (false, true) => 0o644,
            };
            assert_eq!(mode, expected, "umask {umask}: {}: {mode:o}", path.display());
        }
    }
}

fn walk(path: &Path, found: &mut Vec<PathBuf>) {
    found.push(path.to_owned());
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("readable") {
            walk(&entry.expect("readable").path(), found);
        }
    }
}

#[test]
fn a_disk_that_is_full_is_told_of_until_it_has_room_again() {
    let (etcd, admin) = (Etcd::start(), Port::free());
    let mut signer = ExternalSigner::start(ISSUER, &format!("admin_listen: '{}'", admin.address()));
    let server = started(&signer, &etcd);
    signer.standby();
    assert_eq!((readiness(&admin).status, metric(&admin, "up").as_str()), (200, "1.0"));
    let pid = signer.running().pid();
    let limit = |bytes| {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(pid), Resource::Fsize, limit).expect("the process is ours");
    };
    limit(Some(0));
    // A later expiry than any before, which must be recorded.
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [ISSUER], "expirationSeconds": 7200},
    });
    let path = "/api/v1/namespaces/shop/serviceaccounts/till/token";
    server.admin_request("POST", path).json(&body).answer().expect_status(500);
    let (said, _) = eventually("it says so", || Some(readiness(&admin)).filter(|said| said.status == 503));
    let said = said.text();
    assert!(said.contains("[-]node-1: cannot write `") && said.contains("signer.json"), "{said}");
    assert_eq!(metric(&admin, "up"), "0.0");
    limit(None);
    eventually("there is room again", || (readiness(&admin).status == 200).then_some(()));
    assert_eq!(metric(&admin, "up"), "1.0");
    server.admin_request("POST", path).json(&body).answer().expect_status(201);
}

#[test]
fn a_socket_that_was_removed_is_made_anew_and_until_then_the_signer_is_not_ready() {
    let admin = Port::free();
    let mut signer = ExternalSigner::start(ISSUER, &format!("admin_listen: '{}'", admin.address()));
    let socket = signer.socket();
    let is_there = || {
        let found = fs::symlink_metadata(&socket).is_ok_and(|found| found.file_type().is_socket());
        (found && UnixStream::connect(&socket).is_ok()).then_some(())
    };
    fs::remove_file(&socket).expect("it is there");
    eventually("it is made anew", is_there);
    eventually("it is ready", || (readiness(&admin).status == 200).then_some(()));

    fs::remove_file(&socket).expect("it is there");
    fs::write(&socket, "").expect("the folder is ours");
    let (said, _) = eventually("it says so", || Some(readiness(&admin)).filter(|said| said.status == 503));
    let said = said.text();
    assert!(said.contains("exists and is not a socket"), "{said}");
    assert_eq!(metric(&admin, "up"), "0.0");
    fs::remove_file(&socket).expect("it is there");
    eventually("it is made anew", is_there);
    eventually("it is ready", || (readiness(&admin).status == 200).then_some(()));
    let told = signer.running().stderr();
    assert_eq!(told.matches("API servers cannot connect to the signer").count(), 1, "{told}");
    assert_eq!(fs::read_dir(signer.folder()).expect("ours").count(), 3, "data, configuration and socket");
}

#[test]
fn connections_that_say_nothing_take_no_place_from_an_api_server() {
    let etcd = Etcd::start();
    let mut signer = ExternalSigner::start(ISSUER, "");
    let server = started(&signer, &etcd);
    let connect = |_| {
        let stream = UnixStream::connect(signer.socket()).expect("it listens");
        stream.set_read_timeout(Some(AT_MOST)).expect("a timeout");
        stream
    };
    let mut silent: Vec<UnixStream> = (0..300).map(connect).collect();
    // 64 may be open, the API server's is one.
    for stream in &mut silent[..300 - 63] {
        stream.read_to_end(&mut Vec::new()).expect("it is closed, and in order");
    }
    server.token("shop", "till", &[ISSUER], 600);
    let open = fs::read_dir(format!("/proc/{}/fd", signer.running().id())).expect("it runs").count();
    assert!(open < 150, "{open} open files");
}

#[test]
fn members_of_the_group_may_connect_whichever_of_their_groups_it_is() {
    const GROUP: u32 = 54_321;
    let mut signer = ExternalSigner::start(ISSUER, &format!("group: '{GROUP}', mode: '0660'"));
    if chown(signer.folder(), None, Some(GROUP)).is_err() {
        not_root("no other group can be had");
        return;
    }
    fs::set_permissions(signer.folder(), Permissions::from_mode(0o755)).expect("it is ours");
    let socket = signer.socket();
    let speak = || {
        let mut stream = UnixStream::connect(&socket)?;
        stream.set_read_timeout(Some(AT_MOST))?;
        // HTTP/2 begins with the settings of the server.
        let mut said = [0; 9];
        stream.read_exact(&mut said)
    };
    let said = as_member_of(GROUP, speak).expect("we are root");
    assert!(said.is_ok(), "{said:?}: {}", signer.running().stderr());
    let said = as_nobody(speak).expect("we are root");
    assert!(said.is_err(), "it is no member");
}
