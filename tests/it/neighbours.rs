//! Hostile neighbours on the same machine and network: files that hang, held locks, an unread log, idle
//! connections. Each has a limited effect, is reported, and does not prevent the end of a process.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::eventually::eventually;
use crate::support::http_client::Request;
use crate::support::hung_mount::hangs;
use crate::support::installation::{Installation, JWKS, Service, files};
use crate::support::pki::KeyFiles;
use crate::support::port::Port;
use crate::support::signpost::{Finished, Running, Signpost};

const ISSUER: &str = "https://oidc.example/cluster";
/// Longest time until a process has ended, whatever hangs.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

struct Scene {
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { folder: TempDir::new().expect("a temporary folder") };
        for name in ["hung", "keys", "good", "other"] {
            fs::create_dir(scene.path(name)).expect("the folder is ours");
        }
        scene.add_key("first");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn add_key(&self, name: &str) {
        let made = KeyFiles::rsa(self.folder.path(), name).public;
        fs::rename(made, self.path("keys").join(format!("{name}.pub"))).expect("the folder is ours");
    }

    fn settings(&self) -> Value {
        let target =
            |name: &str| json!({"name": name, "url": format!("file://{}", self.path(name).display())});
        json!({"sources": [files(&[&self.path("keys")])], "targets": [target("public"), target("other")]})
    }

    /// Points the link `name` to another folder.
    fn point(&self, name: &str, to: &str) {
        let staged = self.path("staged");
        symlink(self.path(to), &staged).expect("the folder is ours");
        fs::rename(staged, self.path(name)).expect("the folder is ours");
    }

    /// The service, for which the folder `hung` hangs.
    fn run(&self, installation: &Installation) -> Service {
        let command = Signpost::within(hangs(&self.path("hung")), ["run"]);
        installation.run_as(command.env("SIGNPOST_CONFIG", installation.config_file()))
    }
}

/// Ends a process and returns the time that took.
#[track_caller]
fn end(mut running: Running) -> (Finished, Duration) {
    let started = Instant::now();
    running.terminate();
    let finished = running.finish(ENDS_WITHIN);
    (finished, started.elapsed())
}

/// Number of keys in a target.
fn keys_in(folder: &Path) -> usize {
    let jwks =
        fs::read(folder.join(JWKS)).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    jwks.map_or(0, |jwks| jwks["keys"].as_array().map_or(0, Vec::len))
}

#[test]
fn a_target_and_a_source_that_hang_are_told_and_hold_up_nobody_and_no_end() {
    let scene = Scene::new();
    scene.point("public", "good");
    let installation = Installation::new(ISSUER, &scene.settings());
    let mut service = scene.run(&installation);
    service.until("both targets are true", |service| {
        ["public", "other"].iter().all(|name| service.metric("signpost_target_up", name) == Some(1.0))
    });

    scene.point("public", "hung");
    scene.add_key("second");
    service.until("the other target has the new key", |_| keys_in(&scene.path("other")) == 2);
    service.until("it is told", |service| service.metric("signpost_target_up", "\"public\"") == Some(0.0));
    let error = service.target("public")["error"].take();
    let error = error.as_str().expect("words");
    assert!(error.ends_with("the file system did not answer within 10 s"), "{error}");
    assert_eq!(service.metric("signpost_target_up", "\"other\""), Some(1.0));

    fs::rename(scene.path("keys"), scene.path("keys.before")).expect("the folder is ours");
    scene.point("keys", "hung");
    let good = service.served();
    service.until("the source is told", |service| service.metric("signpost_source_up", "files") == Some(0.0));
    assert_eq!(service.served(), good, "its last keys stay");
    assert_eq!(service.admin("/healthz").status, 200);

    let threads = fs::read_dir(format!("/proc/{}/task", service.running.id())).expect("it runs").count();
    assert!(threads < 64, "{threads} threads");
    let log = service.running.stderr();
    assert_eq!(log.matches("did not answer within 10 s").count(), 2, "{log}");
    let (finished, took) = end(service.running);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains("some file system operations did not finish"), "{}", finished.stderr);
    assert!(took < ENDS_WITHIN, "{took:?}");
}

/// Reserved consecutive ports.
fn row<const N: usize>() -> [Port; N] {
    loop {
        let ports = [(); N].map(|()| Port::free());
        if ports.windows(2).all(|two| two[0].number() + 1 == two[1].number()) {
            return ports;
        }
    }
}

/// The command that an error message suggests.
#[track_caller]
fn line_that_works(refused: &str) -> Vec<String> {
    let (_, line) = refused.split_once("start this one next to it: `").unwrap_or_else(|| panic!("{refused}"));
    let (line, _) = line.split_once('`').expect("it ends");
    line.split(' ').skip(1).map(str::to_owned).collect()
}

#[test]
fn a_first_look_beside_others_is_told_who_is_in_its_way_and_a_line_that_works() {
    let folder = TempDir::new().expect("a temporary folder");
    // The first two are in use, the next ones are free.
    let [listen, admin, next, next_admin, last, last_admin] = &row();
    let first_look = |arguments: &[String]| Signpost::new(arguments).current_dir(folder.path());
    let default =
        ["run", "--listen", &listen.address(), "--admin-listen", &admin.address()].map(str::to_owned);
    let taken = [listen, admin].map(|port| TcpListener::bind(port.address()).expect("it is free"));
    let refused = first_look(&default).finish(ENDS_WITHIN).expect_code(2).stderr;
    let name = fs::read_to_string("/proc/self/comm").expect("it has a name");
    let holder = format!("(process {}, `{}`)", std::process::id(), name.trim());
    let both = format!("cannot listen on `{}` {holder} and `{}` {holder}", listen.address(), admin.address());
    assert!(refused.contains(&both), "{refused}");
    assert!(!folder.path().join("signpost-data").exists(), "it cannot start");

    let line = line_that_works(&refused);
    let [data_dir, other] = ["signpost-data", "signpost-data-2"].map(|name| folder.path().join(name));
    let expected = |listen: &Port, admin: &Port, data_dir: &Path| {
        let (listen, admin) = (listen.address(), admin.address());
        format!("run --listen {listen} --admin-listen {admin} --data-dir {}", data_dir.display())
    };
    assert_eq!(line.join(" "), expected(next, next_admin, &data_dir));
    let mut running = first_look(&line).start();
    running.wait_for(&format!("http://{}/readyz", next_admin.address()));

    // The first one again, although the second has its directory.
    let refused = first_look(&default).finish(ENDS_WITHIN).expect_code(2).stderr;
    assert!(refused.contains("another signpost runs on data directory"), "{refused}");
    let line = line_that_works(&refused);
    assert_eq!(line.join(" "), expected(last, last_admin, &other));
    let mut second = first_look(&line).start();
    second.wait_for(&format!("http://{}/readyz", last_admin.address()));
    drop(taken);
}

/// Waits until a process handles SIGTERM itself.
fn handles_sigterm(id: u32) {
    eventually("it handles SIGTERM", || {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"))?;
        // Bit 14 is signal 15.
        ((u64::from_str_radix(caught, 16).ok()? >> 14) & 1 == 1).then_some(())
    });
}

#[test]
fn a_data_directory_that_hangs_is_named_and_whoever_waits_for_it_can_be_ended() {
    let scene = Scene::new();
    let installation = Installation::new(ISSUER, &scene.settings());
    symlink(scene.path("hung"), installation.data_dir()).expect("the folder is ours");
    let data = installation.data_dir().display().to_string();
    let socket = scene.path("signer.sock").display().to_string();
    let service = vec!["run"];
    let signer = vec!["signer", "--issuer", ISSUER, "--data-dir", &data, "--socket", &socket, "--node", "a"];
    for (verb, within) in [(service, 10), (signer, 30)] {
        let start = || {
            let command = Signpost::within(hangs(&scene.path("hung")), &verb);
            if verb[0] == "run" {
                command.env("SIGNPOST_CONFIG", installation.config_file())
            } else {
                command
            }
            .start()
        };
        let refused = start().finish(Duration::from_secs(within + 15)).expect_code(2);
        let cause = format!("the file system did not answer within {within} s");
        assert!(refused.stderr.contains(&cause), "{}", refused.stderr);
        assert!(refused.stderr.contains("mounted from"), "{}", refused.stderr);

        let running = start();
        handles_sigterm(running.id());
        let (_, took) = end(running);
        assert!(took < Duration::from_secs(8), "{took:?}");
    }
}

#[test]
fn a_pipe_in_place_of_a_lock_is_named_and_not_waited_for() {
    let scene = Scene::new();
    let pipe = |path: &Path| {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("the folder is ours");
    };
    pipe(&scene.path("good").join(".signpost.lock"));
    scene.point("public", "good");
    let installation = Installation::new(ISSUER, &scene.settings());
    let mut service = installation.run_until_ready();
    service.until("it is told", |service| service.metric("signpost_target_up", "\"public\"") == Some(0.0));
    let error = service.target("public")["error"].take();
    let expected = format!(
        "cannot lock `{}`: a pipe, a socket or a device, expected a regular file",
        scene.path("public").join(".signpost.lock").display()
    );
    assert!(error.as_str().is_some_and(|error| error.ends_with(&expected)), "{error}");
    assert!(service.running.stderr().contains("Signpost creates it again"), "{}", service.running.stderr());
    fs::remove_file(scene.path("good").join(".signpost.lock")).expect("the folder is ours");
    service.until("it is true", |service| service.metric("signpost_target_up", "\"public\"") == Some(1.0));
    let (finished, _) = end(service.running);
    finished.expect_code(0);

    let lock = installation.data_dir().join("signpost.lock");
    fs::remove_file(&lock).expect("it is ours");
    pipe(&lock);
    let refused = installation.verb(["run"]).finish(ENDS_WITHIN).expect_code(2).stderr;
    assert!(refused.contains("a pipe, a socket or a device") && refused.contains("remove `"), "{refused}");
}

#[test]
fn a_ledger_whose_lock_somebody_holds_is_told_and_holds_up_no_end() {
    let scene = Scene::new();
    let installation = Installation::new(ISSUER, &scene.settings());
    let mut service = installation.run_until_ready();
    let lock = File::options().write(true).open(installation.ledger_file().with_file_name("ledger.lock"));
    let lock = lock.expect("it is there");
    flock(&lock, FlockOperation::LockExclusive).expect("it is free");
    scene.add_key("second");
    service.until("it is told", |service| service.metric("signpost_ledger_up", "") == Some(0.0));
    assert_eq!(service.get(JWKS).status, 200);
    flock(&lock, FlockOperation::Unlock).expect("it is ours");
    service.until("the new key is stored", |service| service.metric("signpost_ledger_up", "") == Some(1.0));
    service.until("it is public", |service| service.metric("signpost_published_keys", "") == Some(2.0));
    flock(&lock, FlockOperation::LockExclusive).expect("it is free");
    scene.add_key("third");
    service.until("it is told", |service| service.metric("signpost_ledger_up", "") == Some(0.0));
    let (finished, took) = end(service.running);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(took < ENDS_WITHIN, "{took:?}");
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing_and_what_is_lost_is_counted() {
    let scene = Scene::new();
    let pipe = scene.path("log");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("the folder is ours");
    // Open, and not read.
    let unread = File::options().read(true).write(true).open(&pipe).expect("it is there");
    let installation = Installation::new(ISSUER, &scene.settings());
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec 2>\"$0\" && exec \"$@\""]).arg(&pipe);
    let command = Signpost::within(shell, ["run", "--log", "trace"]);
    let mut service = installation.run_as(command.env("SIGNPOST_CONFIG", installation.config_file()));
    // A configuration with many faults produces a long line.
    let faults = (0..3000).map(|number| format!("unknown_{number}: a\n")).collect::<Vec<_>>().concat();
    fs::write(installation.config_file(), faults).expect("the folder is ours");
    let lose = |service: &mut Service| {
        let before = service.metric("signpost_log_lines_dropped_total", "");
        service.until("lines are lost", |service| {
            kill_process(service.running.pid(), Signal::HUP).expect("it runs");
            service.metric("signpost_log_lines_dropped_total", "") > before
        });
    };
    lose(&mut service);
    assert!(service.admin("/status.json").json()["log_lines_dropped"].as_u64() > Some(0));
    scene.add_key("second");
    service
        .until("a new key is public", |service| service.metric("signpost_published_keys", "") == Some(2.0));

    // A reader that resumes gets a message about dropped lines.
    let mut reader = unread.try_clone().expect("it is open");
    let read = thread::spawn(move || {
        let (mut seen, mut some) = (String::new(), vec![0; 65536]);
        while !seen.contains("log lines were dropped") {
            let count = reader.read(&mut some).expect("it is open");
            seen = seen.split_off(seen.floor_char_boundary(seen.len().saturating_sub(100)));
            seen += &String::from_utf8_lossy(&some[..count]);
        }
    });
    eventually("it is told", || read.is_finished().then_some(()));
    lose(&mut service);
    let (finished, took) = end(service.running);
    finished.expect_code(0);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Connections, each with some bytes sent.
fn crowd(address: &str, count: usize, said: &[u8]) -> Vec<TcpStream> {
    let connect = |_| {
        let mut stream = TcpStream::connect(address).expect("the kernel accepts");
        // The connection may already be closed.
        let _ = stream.write_all(said);
        stream
    };
    (0..count).map(connect).collect()
}

#[test]
fn nobody_who_holds_connections_keeps_a_probe_out() {
    let scene = Scene::new();
    let installation = Installation::new(ISSUER, &scene.settings());
    let service = installation.run_until_ready();
    let address = service.admin_url("").trim_start_matches("http://").to_owned();
    let reading = "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".repeat(200);
    let crowds: [(&str, &[u8]); 4] = [
        ("silent", b""),
        ("half a request", b"GET /healthz HTTP/1.1\r\nhost: a\r\n"),
        ("idle after a request", b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("asks and does not read", reading.as_bytes()),
    ];
    let mut held = Vec::new();
    for (what, said) in crowds {
        held.extend(crowd(&address, 256, said));
        for _ in 0..10 {
            let started = Instant::now();
            let answer = Request::get(&service.admin_url("/healthz")).send();
            let answered = answer.as_ref().is_ok_and(|answer| answer.status == 200);
            let took = started.elapsed();
            // kubelet waits for a second by default; this machine may be busy.
            assert!(answered && took < Duration::from_secs(5), "{what}: {took:?} {:?}", answer.err());
        }
    }
    let files = fs::read_dir(format!("/proc/{}/fd", service.running.id())).expect("it runs").count();
    assert!(files < 256, "{files} open files for {} connections", held.len());
    let (finished, took) = end(service.running);
    finished.expect_code(0);
    assert!(took < ENDS_WITHIN, "{took:?}");
}

#[test]
fn few_open_files_are_told_at_the_start_and_strangers_leave_what_the_service_needs() {
    let scene = Scene::new();
    scene.point("public", "good");
    let installation = Installation::new(ISSUER, &scene.settings());
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]);
    let command = Signpost::within(shell, ["run"]).env("SIGNPOST_CONFIG", installation.config_file());
    let mut service = installation.run_as(command);
    let log = service.running.stderr();
    assert!(log.contains("limit of open files is too low") && log.contains("ulimit -n"), "{log}");
    service.until("it is ready", |service| service.admin("/readyz").status == 200);

    let held = crowd(service.address(), 1000, b"GET / HTTP/1.1\r\n");
    for _ in 0..5 {
        assert_eq!(service.admin("/healthz").status, 200);
    }
    // Files are read and written as before.
    scene.add_key("second");
    service.until("a new key is everywhere", |service| {
        service.metric("signpost_published_keys", "") == Some(2.0)
            && ["good", "other"].iter().all(|name| keys_in(&scene.path(name)) == 2)
    });
    let log = service.running.stderr();
    assert!(!log.contains("cannot accept connections") && !log.contains("os error 24"), "{log}");
    drop(held);
    service.until("documents are served", |service| {
        Request::get(&service.url(JWKS)).send().is_ok_and(|answer| answer.status == 200)
    });
}
