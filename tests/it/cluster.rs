//! The main workflow, from a real API server to relying parties that share no code with the product.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    api_server::{ADMIN_TOKEN, ApiServer, Options},
    azurite::{self, Azurite},
    etcd::Etcd,
    eventually::eventually,
    http_client::Request,
    nginx::{Location, Nginx},
    pki::KeyFiles,
    port::Port,
    relying_cluster::{RelyingCluster, Trust},
    relying_party::RelyingParty,
    s3::{self, S3},
    signpost::{Running, Signpost},
};

const AUDIENCE: &str = "api://AzureADTokenExchange";
const JWKS: &str = "openid/v1/jwks";
/// The subject of the only workload.
const TILL: &str = "system:serviceaccount:shop:till";

/// A cluster, three stores, and one URL that leads to any of them.
struct World {
    folder: TempDir,
    nginx: Nginx,
    etcd: Etcd,
    azurite: Azurite,
    s3: S3,
    listen: Port,
    admin: Port,
}

impl World {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let (azurite, s3) = (Azurite::start(), S3::start());
        azurite.create_public_container("oidc");
        s3.create_bucket("oidc");
        s3.allow_anonymous_read("oidc");
        fs::create_dir(folder.path().join("public")).expect("the folder can be written");
        let nginx = Nginx::start(&[]);
        Self { folder, nginx, etcd: Etcd::start(), azurite, s3, listen: Port::free(), admin: Port::free() }
    }

    fn issuer(&self) -> String {
        format!("{}/c1", self.nginx.url())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn key(&self, name: &str) -> KeyFiles {
        KeyFiles::rsa(self.folder.path(), name)
    }

    /// An API server whose issuer is the public URL, with a workload in it.
    fn api_server(&self, options: Options) -> ApiServer {
        let jwks_uri = format!("--service-account-jwks-uri={}/{JWKS}", self.issuer());
        let extra_flags = vec![jwks_uri];
        ApiServer::start(&self.etcd, Options { extra_flags, ..options })
    }

    /// The locations of the documents, by the name of the target.
    fn places(&self) -> [(&'static str, Location); 4] {
        [
            ("azure blob", Location::Proxy(format!("{}/oidc/c1/", self.azurite.url()))),
            ("s3", Location::Proxy(format!("{}/oidc/c1/", self.s3.url()))),
            ("directory", Location::Folder(self.path("public"))),
            ("served", Location::Proxy(format!("http://{}/c1/", self.listen.address()))),
        ]
    }

    /// The configuration with all three targets; `sources` is YAML below `sources:`.
    fn configure(&self, sources: &str) {
        self.configure_for(sources, 300);
    }

    /// As [`World::configure`], with this `max-age` in seconds.
    fn configure_for(&self, sources: &str, jwks_max_age: u32) {
        let config = format!(
            "
listen: {listen}
admin_listen: {admin}
data_dir: {data}
issuers:
  - issuer: {issuer}
    jwks_max_age: {jwks_max_age}s
    sources:
{sources}
    targets:
      - {{name: blob, url: az://{account}/oidc/c1, endpoint: {azurite}, public_url: {issuer}}}
      - {{name: bucket, url: s3://oidc/c1, endpoint: {s3}}}
      - {{name: directory, url: file://{directory}}}
",
            listen = self.listen.address(),
            admin = self.admin.address(),
            data = self.path("data").display(),
            issuer = self.issuer(),
            account = azurite::ACCOUNT,
            azurite = self.azurite.url(),
            s3 = self.s3.url(),
            directory = self.path("public").display(),
        );
        fs::write(self.path("config.yaml"), config).expect("the folder can be written");
    }

    fn signpost(&self, arguments: &[&str]) -> Signpost {
        let config = self.path("config.yaml").display().to_string();
        let all = arguments.iter().copied().chain(["--config", &config]);
        self.with_credentials(Signpost::new(all))
    }

    fn with_credentials(&self, signpost: Signpost) -> Signpost {
        signpost
            .env("SSL_CERT_FILE", self.nginx.ca_file())
            .env("AZURE_STORAGE_ACCOUNT_KEY", azurite::ACCOUNT_KEY)
            .env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY)
            .env("AWS_REGION", s3::REGION)
    }

    fn run(&self) -> Running {
        let mut running = self.signpost(&["run"]).start();
        running.wait_for(&format!("http://{}/healthz", self.admin.address()));
        running
    }

    /// The only issuer in `/status.json`.
    fn status(&self) -> Option<Value> {
        let answer = Request::get(&format!("http://{}/status.json", self.admin.address())).send().ok()?;
        Some(answer.json()["issuers"][self.issuer()].clone())
    }

    fn served(&self) -> Option<Vec<u8>> {
        let answer = Request::get(&format!("http://{}/c1/{JWKS}", self.listen.address())).send().ok()?;
        (answer.status == 200).then_some(answer.body)
    }

    fn serves(&self, kid: &str) -> Option<()> {
        let served = self.served()?;
        String::from_utf8_lossy(&served).contains(kid).then_some(())
    }

    fn wait_until_all_targets_are_true(&self) {
        eventually("all targets are true", || {
            let status = self.status()?;
            let targets = status["targets"].as_object()?;
            (targets.len() == 3 && targets.values().all(|target| target["up"] == true)).then_some(())
        });
    }

    /// A second cluster, which accepts tokens of this one's issuer.
    fn relying_cluster(&self) -> RelyingCluster {
        RelyingCluster::start(&self.etcd, &self.trust(&self.issuer(), None))
    }

    fn trust<'a>(&'a self, issuer: &'a str, discovery_url: Option<&'a str>) -> Trust<'a> {
        Trust { issuer, discovery_url, audience: AUDIENCE, ca_file: self.nginx.ca_file() }
    }

    /// The independent relying parties and `signpost verify` accept the token, whichever target the issuer's
    /// URL leads to.
    #[track_caller]
    fn expect_accepted_everywhere(&mut self, token: &str) {
        let issuer = self.issuer();
        for (place, location) in self.places() {
            self.nginx.point(&[("/c1/", location)]);
            for party in RelyingParty::ALL {
                let claims = party
                    .verify(&issuer, AUDIENCE, Some(self.nginx.ca_file()), token)
                    .unwrap_or_else(|reason| panic!("{party:?} refuses with {place}: {reason}"));
                assert_eq!(claims["iss"], issuer);
            }
            let verify =
                Signpost::new(["verify", "--token", "-", "--issuer", &issuer, "--audience", AUDIENCE]);
            self.with_credentials(verify).stdin(token).finish(Duration::from_secs(20)).expect_code(0);
        }
    }
}

/// YAML of one API-server source.
fn source(kubeconfig: &Path, more: &str) -> String {
    format!("      - {{kind: api-server, kubeconfig: {}{more}}}", kubeconfig.display())
}

/// Waits until the end of the connection to the API server is significant: the default interval is 30 s, and
/// a restart is detected by the lost connection.
fn connection_lasts() {
    let start = Instant::now();
    eventually("the connection has lasted", || (start.elapsed() > Duration::from_secs(1)).then_some(()));
}

/// The kid of a public key file, computed by OpenSSL.
fn kid(key: &KeyFiles) -> String {
    let out = Signpost::new(["jwks", "--source", &key.public.display().to_string()])
        .finish(Duration::from_secs(20))
        .expect_code(0);
    let jwks: Value = serde_json::from_str(&out.stdout).expect("a JWKS");
    jwks["keys"][0]["kid"].as_str().expect("a kid").to_owned()
}

#[test]
fn a_token_is_accepted_whichever_place_is_read_and_no_order_of_restarts_loses_anything() {
    let mut world = World::new();
    let key = world.key("sa");
    let mut server = world.api_server(Options::new(world.issuer(), &key));
    server.create_namespace("shop");
    server.create_service_account("shop", "till");
    let kubeconfig = world.path("kubeconfig");
    server.admin_kubeconfig(&kubeconfig);
    world.configure(&source(&kubeconfig, ""));
    // The public URL of the blob target must lead there before it is read back.
    let [(_, blob), ..] = world.places();
    world.nginx.point(&[("/c1/", blob)]);

    let mut running = world.run();
    world.wait_until_all_targets_are_true();
    let token = server.token("shop", "till", &[AUDIENCE], 3600);
    world.expect_accepted_everywhere(&token);
    assert_eq!(world.status().expect("running")["targets"]["blob"]["public_url"], "in_sync");

    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        for part in order {
            match part {
                0 => server.stop(),
                1 => world.azurite.stop(),
                2 => world.s3.stop(),
                _ => running.kill(),
            }
        }
        for part in order {
            match part {
                0 => server.restart(),
                1 => world.azurite.restart(),
                2 => world.s3.restart(),
                _ => running = world.run(),
            }
        }
        world.wait_until_all_targets_are_true();
        eventually("readiness", || world.serves(&kid(&key)));
        world.expect_accepted_everywhere(&token);
    }

    let issuer = world.issuer();
    let mut cluster = world.relying_cluster();
    for (place, location) in world.places() {
        world.nginx.point(&[("/c1/", location)]);
        cluster.restart_trusting(&world.trust(&issuer, None));
        let (user, _) = eventually(&format!("another cluster reads {place}"), || cluster.user(&token));
        assert_eq!(user, TILL);
    }
    // The discovery document may lie elsewhere than below the issuer.
    let elsewhere = |folder: &str| Location::Folder(world.path("public").join(folder));
    let locations = [("/c1/openid/", elsewhere("openid")), ("/elsewhere/", elsewhere(""))];
    world.nginx.point(&locations);
    let discovery = format!("{}/elsewhere/.well-known/openid-configuration", world.nginx.url());
    cluster.restart_trusting(&world.trust(&issuer, Some(&discovery)));
    eventually("another cluster reads the discovery URL", || cluster.user(&token));
    assert_eq!(cluster.user(&server.token("shop", "till", &["somebody else"], 600)), None);

    running.terminate();
    running.finish(Duration::from_secs(20)).expect_code(0);
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are wanted, and a timed assertion is not")]
fn another_cluster_lets_in_the_tokens_of_a_new_key_without_a_restart_and_none_of_a_foreign_one() {
    let mut world = World::new();
    let (old, new, foreign) = (world.key("old"), world.key("new"), world.key("foreign"));
    let options = Options::new(world.issuer(), &old);
    let mut server = world.api_server(options.clone());
    server.create_namespace("shop");
    server.create_service_account("shop", "till");
    let kubeconfig = world.path("kubeconfig");
    server.admin_kubeconfig(&kubeconfig);
    // Relying clusters do not look for an unknown kid before the JWKS has less than 30 s to live.
    world.configure_for(&source(&kubeconfig, ""), 45);
    let _running = world.run();
    eventually("the old key is public", || world.serves(&kid(&old)));
    let served = Location::Proxy(format!("http://{}/c1/", world.listen.address()));
    world.nginx.point(&[("/c1/", served)]);
    let mut cluster = world.relying_cluster();
    let of_old = server.token("shop", "till", &[AUDIENCE], 3600);
    eventually("the other cluster knows the issuer", || cluster.user(&of_old));
    let read = Instant::now();

    let both = Options { verification_keys: vec![old.public.clone(), new.public.clone()], ..options };
    server.restart_with(Options { signing_key: Some(new.private.clone()), ..both.clone() });
    eventually("the new key is public", || world.serves(&kid(&new)));
    let of_new = server.token("shop", "till", &[AUDIENCE], 3600);
    let at_first = cluster.user(&of_new);
    println!("at first, {:?} after it had read the JWKS: {at_first:?}", read.elapsed());
    let (user, _) = eventually("the other cluster lets the new key's token in", || cluster.user(&of_new));
    println!("{user} let in {:?} after it had read the JWKS, which it may keep for 45 s", read.elapsed());
    assert_eq!(cluster.user(&of_old).as_deref(), Some(TILL), "the old key's token");

    // No source lists the key, so it is not published; the API server still signs with it.
    server.restart_with(Options { signing_key: Some(foreign.private), ..both });
    let of_foreign = server.token("shop", "till", &[AUDIENCE], 3600);
    cluster.restart_trusting(&world.trust(&world.issuer(), None));
    eventually("it has read the documents again", || cluster.user(&of_new));
    assert_eq!(cluster.user(&of_foreign), None);
}

#[test]
fn two_api_servers_that_know_different_keys_are_united_at_every_moment() {
    let world = World::new();
    let (first, second) = (world.key("first"), world.key("second"));
    let both = || {
        let mut options = Options::new(world.issuer(), &first);
        options.verification_keys.push(second.public.clone());
        options
    };
    let (mut a, mut b) = (world.api_server(both()), world.api_server(Options::new(world.issuer(), &first)));
    let kubeconfig = world.path("kubeconfig");
    write_kubeconfig(&kubeconfig, &[&a, &b]);
    let instances = format!(", every: 1s, instances: [{{url: \"{}\"}}, {{url: \"{}\"}}]", a.url(), b.url());
    world.configure(&source(&kubeconfig, &instances));
    let kids = [kid(&first), kid(&second)];

    let _running = world.run();
    for kid in &kids {
        eventually("both keys are public", || world.serves(kid));
    }
    let stop = AtomicBool::new(false);
    let looks = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looks = 0;
            while !stop.load(Ordering::Relaxed) {
                for kid in &kids {
                    assert!(world.serves(kid).is_some(), "{kid} was away for a moment");
                }
                looks += 1;
            }
            looks
        });
        // The server with both keys restarts; then the other; then A drops the second key.
        a.restart();
        b.restart();
        a.restart_with(Options { extra_flags: Vec::new(), ..Options::new(world.issuer(), &first) });
        eventually("the key that left its last source is noticed", || {
            let status = world.status()?;
            let keys = status["keys"].as_array()?.clone();
            keys.iter().find(|key| key["kid"] == kids[1].as_str() && key["state"] == "missing").map(drop)
        });
        stop.store(true, Ordering::Relaxed);
        watcher.join().expect("both keys all the time")
    });
    assert!(looks > 10, "{looks} looks prove little");
}

/// One kubeconfig that trusts several API servers.
fn write_kubeconfig(file: &Path, servers: &[&ApiServer]) {
    let ca: Vec<u8> = servers.iter().flat_map(|server| fs::read(server.ca_file()).expect("a CA")).collect();
    let bundle = file.with_extension("ca");
    fs::write(&bundle, ca).expect("the folder can be written");
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": servers[0].url(), "certificate-authority": bundle}}],
        "users": [{"name": "test", "user": {"token": ADMIN_TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    });
    fs::write(file, config.to_string()).expect("the folder can be written");
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure is wanted, and a timed assertion is not")]
fn a_new_signing_key_is_public_soon_after_the_restart_and_the_old_one_stays() {
    let world = World::new();
    let (old, new) = (world.key("old"), world.key("new"));
    let mut server = world.api_server(Options::new(world.issuer(), &old));
    let kubeconfig = world.path("kubeconfig");
    server.admin_kubeconfig(&kubeconfig);
    world.configure(&source(&kubeconfig, ""));
    let (old_kid, new_kid) = (kid(&old), kid(&new));
    let _running = world.run();
    eventually("the old key is public", || world.serves(&old_kid));
    connection_lasts();

    let (url, ca) = (format!("{}/{JWKS}", server.url()), server.ca_file().to_owned());
    let (answered, public) = thread::scope(|scope| {
        let answered = scope.spawn(|| {
            let look = || {
                let admin = format!("Bearer {ADMIN_TOKEN}");
                let answer = Request::get(&url).ca_file(&ca).header("authorization", admin).send().ok()?;
                answer.text().contains(&new_kid).then(Instant::now)
            };
            eventually("the API server answers with the new key", look).0
        });
        scope.spawn(|| server.restart_with(Options::new(world.issuer(), &new)));
        let look = || world.serves(&new_kid).map(|()| Instant::now());
        let public = eventually("the new key is public", look).0;
        (answered.join().expect("it answers"), public)
    });
    println!(
        "the new key was public {:?} after the first answer with it",
        public.saturating_duration_since(answered)
    );
    assert!(world.serves(&old_kid).is_some(), "tokens of the old key are still alive");
    let status = world.status().expect("running");
    let keys = status["keys"].as_array().expect("a list");
    assert!(keys.iter().any(|key| key["kid"] == old_kid.as_str() && key["state"] == "missing"), "{keys:?}");
}

#[test]
fn an_api_server_that_signs_with_a_key_that_is_not_public_trips_the_wire() {
    let world = World::new();
    let (known, secret) = (world.key("known"), world.key("secret"));
    let options = Options::new(world.issuer(), &known);
    let mut server = world.api_server(options.clone());
    server.create_namespace("shop");
    server.create_service_account("shop", "till");
    let kubeconfig = world.path("kubeconfig");
    server.admin_kubeconfig(&kubeconfig);
    world.configure(&source(&kubeconfig, ", probe: shop/till"));
    let mut running = world.run();
    let signs = |public: bool| {
        let status = world.status()?;
        (status["sources"]["kubernetes"]["signing_key_public"] == public).then_some(())
    };
    eventually("the key that signs is seen to be public", || signs(true));
    connection_lasts();

    // kube-apiserver publishes only its verification keys: the public half of the signing key must be among
    // them, but this is not checked.
    server.restart_with(Options { signing_key: Some(secret.private.clone()), ..options.clone() });
    eventually("the tripwire", || signs(false));
    connection_lasts();
    running.wait_for_output("an API server signs with a key that is not published");
    let metrics = Request::get(&format!("http://{}/metrics", world.admin.address())).answer().text();
    let gauge =
        metrics.lines().find(|line| line.starts_with("signpost_signing_key_public{")).expect("a gauge");
    assert!(gauge.ends_with(" 0.0"), "{gauge}");
    let ready = Request::get(&format!("http://{}/readyz", world.admin.address())).answer().expect_status(200);
    let warning = format!("source `kubernetes` signs with key `{}`, which is not published", kid(&secret));
    let told = format!("[-]{}: {warning}", world.issuer());
    assert!(ready.text().lines().any(|line| line == told), "{}", ready.text());
    assert_eq!(world.status().expect("running")["warnings"], serde_json::json!([warning]));

    server.restart_with(options);
    eventually("the alarm ends", || signs(true));
    running.wait_for_output("the signing key is published");
}

/// The key is public, but unknown to relying parties with an older copy of the JWKS.
#[test]
fn an_api_server_that_signs_with_a_key_as_soon_as_it_is_public_is_told_apart() {
    let world = World::new();
    let (known, hasty) = (world.key("known"), world.key("hasty"));
    let options = Options::new(world.issuer(), &known);
    let mut server = world.api_server(options.clone());
    server.create_namespace("shop");
    server.create_service_account("shop", "till");
    let kubeconfig = world.path("kubeconfig");
    server.admin_kubeconfig(&kubeconfig);
    world.configure(&source(&kubeconfig, ", probe: shop/till"));
    let mut running = world.run();
    let source_status = || Some(world.status()?["sources"]["kubernetes"].clone());
    let is_ready = |ready: bool| {
        let status = source_status()?;
        (status["signing_key_public"] == true && status["signing_key_ready"] == ready).then_some(status)
    };
    let status = eventually("the first key is known to everybody", || is_ready(true)).0;
    assert_eq!(status["signing_key_ready_at"], Value::Null);
    connection_lasts();

    let both = vec![known.public.clone(), hasty.public.clone()];
    server.restart_with(Options {
        signing_key: Some(hasty.private.clone()),
        verification_keys: both,
        ..options.clone()
    });
    let status = eventually("it is not ready", || is_ready(false)).0;
    assert_eq!(status["signs_with"], kid(&hasty).as_str());
    connection_lasts();
    running.wait_for_output("an API server signs with a key that is not ready");
    let metrics = Request::get(&format!("http://{}/metrics", world.admin.address())).answer().text();
    let gauge = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{"))).expect("a gauge");
        line.rsplit(' ').next().expect("a value").to_owned()
    };
    assert_eq!(["1.0", "0.0"], ["signpost_signing_key_public", "signpost_signing_key_ready"].map(gauge)[..]);
    let warnings = world.status().expect("running")["warnings"].clone();
    let warning = format!("source `kubernetes` signs with key `{}`, which ", kid(&hasty));
    assert!(warnings[0].as_str().is_some_and(|told| told.starts_with(&warning)), "{warnings}");

    server.restart_with(options);
    eventually("the key before it is known to everybody", || is_ready(true));
    running.wait_for_output("the signing key is ready");
}

#[test]
fn a_key_that_left_long_ago_is_removed_and_does_not_come_back() {
    let world = World::new();
    let (old, new) = (world.key("old"), world.key("new"));
    let files = |names: &[&KeyFiles]| {
        let paths: Vec<_> = names.iter().map(|key| key.public.display().to_string()).collect();
        format!("      - {{kind: files, paths: [{}], every: 1s}}", paths.join(", "))
    };
    let sync = || world.signpost(&["sync"]).finish(Duration::from_secs(30));
    let (old_kid, new_kid) = (kid(&old), kid(&new));
    let published = || fs::read_to_string(world.path("public").join(JWKS)).expect("published");
    // The blob target's public URL leads nowhere here; the two others matter.
    world.configure(&files(&[&old, &new]));
    sync();
    assert!(published().contains(&old_kid));

    world.configure(&files(&[&new]));
    sync();
    assert!(published().contains(&old_kid), "kept while its tokens may live");

    // Simulates more than a day.
    let ledger = ledger_file(&world.path("data"));
    let text = fs::read_to_string(&ledger).expect("stored");
    let aged = text.replace(&since(&text), "2026-01-01T00:00:00Z");
    assert_ne!(text, aged);
    fs::write(&ledger, aged).expect("stored");
    // It would reveal the simulated time.
    fs::remove_file(ledger.with_file_name("ledger.previous.json")).expect("it is there");
    let told = sync();
    assert!(!published().contains(&old_kid) && published().contains(&new_kid), "{}", told.stderr);

    world.configure(&files(&[&old, &new]));
    let told = sync();
    assert!(!published().contains(&old_kid), "a tombstone");
    assert!(told.stderr.contains(&old_kid), "{}", told.stderr);
}

fn ledger_file(data: &Path) -> PathBuf {
    let mut issuers = fs::read_dir(data.join("issuers")).expect("a directory");
    issuers.next().expect("one issuer").expect("readable").path().join("ledger.json")
}

/// The time since which the missing key of a ledger is missing.
fn since(ledger: &str) -> String {
    let (_, rest) = ledger.split_once("\"since\": \"").expect("a missing key");
    rest.split('"').next().expect("a time").to_owned()
}
