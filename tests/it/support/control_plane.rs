//! A control plane of several API servers, each with its own host name and address.
//!
//! They list themselves in the real `EndpointSlice` and hold the real identity Leases. Everything runs in
//! network and UTS namespaces of the test: [`inside`] runs a test in one, [`Host`] creates another below it.
//! The machine's own network is neither changed nor used.

use std::env;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use tempfile::TempDir;

use super::api_server::{ApiServer, Options};
use super::components::variable;
use super::etcd::Etcd;
use super::eventually::eventually;
use super::pki::{Authority, ServerTls};
use super::process::Process;

/// Set in the process that runs a test in a separate namespace.
const INSIDE: &str = "SIGNPOST_TEST_INSIDE";
/// The address of the namespace in which the test runs.
pub(crate) const HERE: &str = "10.77.0.1";
const PORT: u16 = 6443;

/// Runs a test in separate network and UTS namespaces, by starting this program again in them.
///
/// `name` is the full name of the calling test.
///
/// # Panics
///
/// Panics when the test does, and when this machine does not permit namespaces: a test that cannot run has
/// not passed.
#[track_caller]
pub(crate) fn inside(name: &str, test: impl FnOnce()) {
    if variable(INSIDE).is_some() {
        set_up();
        return test();
    }
    let root = rustix::process::geteuid().is_root();
    let unshare = || {
        let mut command = Command::new("unshare");
        // An unprivileged user is root within its own user namespace.
        command.args(if root { &["--net", "--uts"][..] } else { &["--net", "--uts", "--map-root-user"] });
        command
    };
    let may = unshare().arg("true").output();
    assert!(
        may.as_ref().is_ok_and(|tried| tried.status.success()),
        "this test needs network and UTS namespaces, and `unshare` (util-linux) may not make them here: run \
         it as root in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN, or allow unprivileged user \
         namespaces; it said {may:?}"
    );
    let program = env::current_exe().expect("this program has a path");
    let mut command = unshare();
    command.arg(program).args(["--exact", name, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let ran = command.stdin(Stdio::null()).output().expect("unshare runs");
    let said = [ran.stdout, ran.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    print(&said);
    assert!(ran.status.success(), "{name} failed in its namespace, see above");
    assert!(said.contains("1 passed"), "there is no test of the name {name}");
}

#[expect(clippy::print_stdout, reason = "it is what the test itself has printed")]
fn print(said: &str) {
    println!("{said}");
}

fn set_up() {
    run("ip link set lo up");
    run("ip link add br0 type bridge");
    run(&format!("ip address add {HERE}/24 dev br0"));
    run("ip link set br0 up");
}

/// Runs a system command without output.
#[track_caller]
fn run(command: &str) {
    let mut words = command.split(' ');
    let program = words.next().expect("a program");
    let ran = Command::new(program).args(words).output();
    let ran = ran.unwrap_or_else(|error| panic!("cannot run `{program}`, install it: {error}"));
    assert!(ran.status.success(), "`{command}`: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Namespaces with an address, which look like a separate machine to a program.
pub(crate) struct Host {
    number: u8,
    /// The address that an API server there advertises.
    advertised: String,
    authority: Authority,
    holder: Process,
    _folder: TempDir,
}

impl Host {
    /// Numbers are from 1 to 99, and unique in a test.
    pub(crate) fn new(number: u8, authority: &Authority) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut command = Command::new("unshare");
        command.args(["--net", "--uts", "sleep", "infinity"]);
        let holder = Process::start("sleep", command, &folder.path().join("log"));
        let process = holder.id();
        let namespace =
            |process: &str| std::fs::metadata(format!("/proc/{process}/ns/uts")).map(|it| it.ino());
        let own = namespace("self").expect("there is /proc");
        eventually("the namespaces are made", || {
            namespace(&process.to_string()).is_ok_and(|theirs| theirs != own).then_some(())
        });
        let host = Self {
            number,
            advertised: format!("10.77.0.{}", 100 + number),
            authority: authority.clone(),
            holder,
            _folder: folder,
        };
        let (address, outer) = (host.address(), format!("host{number}"));
        run(&format!("ip link add {outer} type veth peer name eth0 netns {process}"));
        run(&format!("ip link set {outer} master br0 up"));
        let there = format!("nsenter --target {process} --net --uts");
        run(&format!("{there} hostname control-plane-{number}"));
        run(&format!("{there} ip link set lo up"));
        run(&format!("{there} ip address add {address}/24 dev eth0"));
        run(&format!("{there} ip link set eth0 up"));
        host
    }

    /// Makes an API server there advertise another address than its own.
    pub(crate) fn advertising(self, address: &str) -> Self {
        Self { advertised: address.to_owned(), ..self }
    }

    pub(crate) fn address(&self) -> String {
        format!("10.77.0.{}", 100 + self.number)
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}:{PORT}", self.address())
    }

    /// The URL of its API server in the cluster's list.
    pub(crate) fn listed_url(&self) -> String {
        format!("https://{}:{PORT}", self.advertised)
    }

    /// A command that runs in these namespaces.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.holder.id())).args(["--net", "--uts", "--"]).arg(program);
        command
    }

    pub(super) fn flags(&self) -> Vec<String> {
        vec![
            format!("--secure-port={PORT}"),
            format!("--bind-address={}", self.address()),
            format!("--external-hostname={}", self.address()),
            format!("--advertise-address={}", self.advertised),
        ]
    }

    pub(super) fn certificate(&self, folder: &Path) -> ServerTls {
        let names = ["kubernetes.default.svc"];
        ServerTls::issued_by(&self.authority, folder, &names, &[&self.address(), HERE])
    }
}

/// One etcd, and the API servers on it.
pub(crate) struct ControlPlane {
    pub(crate) etcd: Etcd,
    authority: Authority,
}

impl ControlPlane {
    pub(crate) fn new() -> Self {
        Self { etcd: Etcd::start_at(HERE), authority: Authority::create() }
    }

    pub(crate) fn host(&self, number: u8) -> Host {
        Host::new(number, &self.authority)
    }

    /// Starts an API server on a separate host, and waits until it answers.
    pub(crate) fn start(&self, number: u8, options: &Options) -> ApiServer {
        ApiServer::start(&self.etcd, on(self.host(number), options))
    }
}

/// The same options on a host.
pub(crate) fn on(host: Host, options: &Options) -> Options {
    Options { host: Some(Arc::new(host)), ..options.clone() }
}

/// A load balancer in front of one server that keeps the client's side of a connection open when the server
/// is gone.
pub(crate) struct Balancer;

impl Balancer {
    /// Listens at an address that this namespace gets, and forwards to `backend`, `HOST:PORT`, for the life
    /// of this process.
    pub(crate) fn start(address: &str, backend: String) {
        Self::start_at(address, PORT, backend);
    }

    /// The same at another port.
    pub(crate) fn start_at(address: &str, port: u16, backend: String) {
        run(&format!("ip address add {address}/24 dev br0"));
        let listener = TcpListener::bind((address, port)).expect("the address is ours");
        thread::spawn(move || {
            for client in listener.incoming() {
                let backend = backend.clone();
                thread::spawn(move || forward(&client?, &backend));
            }
        });
    }
}

fn forward(client: &TcpStream, backend: &str) -> io::Result<()> {
    let server = TcpStream::connect(backend)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ = io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Both);
        });
        // When the server is gone, the client side stays open until the client closes it.
        let _ = io::copy(&mut &server, &mut &*client);
    });
    Ok(())
}
