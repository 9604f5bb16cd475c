//! Keys change under load, whatever fails meanwhile, and not one live token is refused.
//!
//! Two API servers ask one Signpost for signatures; it publishes to a store, a directory and over HTTP. A token
//! is checked again and again as long as it lives: by both API servers, and with every copy of the JWKS that a
//! relying party may still have, from each place. `make soak` runs it for long.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use openssl::{
    bn::BigNum,
    hash::MessageDigest,
    pkey::{PKey, Public},
    rsa::Rsa,
    sign::Verifier,
};
use serde_json::{Value, json};

use crate::support::{
    api_server::{ADMIN_TOKEN, ApiServer, Bearer, Options, write_kubeconfig},
    azurite::{self, Azurite},
    components::variable,
    etcd::Etcd,
    eventually::eventually,
    fault_proxy::{Action, FaultProxy, Rule},
    http_client::Request,
    installation::{Installation, JWKS},
};

const ISSUER: &str = "https://issuer.example/soak";
const AUDIENCE: &str = "api://AzureADTokenExchange";
/// How long a relying party keeps a JWKS: as long as the configuration promises that it may.
const CACHED: Duration = Duration::from_secs(4);
/// Time between two tokens.
const MINT_EVERY: Duration = Duration::from_millis(20);
/// The places that relying parties read.
const PLACES: [&str; 3] = ["blob", "directory", "http"];
/// How long it takes unless the environment says otherwise.
const SECONDS: u64 = 100;

type Keys = Arc<BTreeMap<String, PKey<Public>>>;

/// A token, taken apart.
struct Token {
    text: String,
    kid: String,
    signed: String,
    signature: Vec<u8>,
}

/// An API server on connections that are kept.
struct Api {
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    url: String,
}

impl Api {
    fn of(server: &ApiServer) -> Self {
        let ca = reqwest::Certificate::from_pem(&fs::read(server.ca_file()).expect("a file")).expect("a CA");
        let client =
            reqwest::Client::builder().add_root_certificate(ca).no_proxy().timeout(Duration::from_secs(30));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { client: client.build().expect("a client"), runtime, url: server.url() }
    }

    /// `None`: there is no answer.
    fn post(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(ADMIN_TOKEN);
        let request = request.header("content-type", "application/json").body(body.to_string());
        self.runtime.block_on(async {
            let answer = request.send().await.ok()?;
            let status = answer.status().as_u16();
            Some((status, serde_json::from_slice(&answer.bytes().await.ok()?).ok()?))
        })
    }
}

/// Everything that runs, for all threads.
struct World {
    folder: tempfile::TempDir,
    installation: Installation,
    azurite: Azurite,
    proxy: FaultProxy,
    #[expect(dead_code, reason = "it runs until it is dropped")]
    etcd: Etcd,
    servers: [Mutex<ApiServer>; 2],
    /// For each place, what it showed and when it was last seen to.
    copies: [Mutex<Vec<(Instant, Keys)>>; 3],
    tokens: Mutex<Vec<Arc<Token>>>,
    refused: Mutex<Vec<String>>,
    checks: AtomicUsize,
    reviews: AtomicUsize,
    unminted: AtomicUsize,
    over: AtomicBool,
}

fn decode(text: &str) -> Vec<u8> {
    Base64UrlUnpadded::decode_vec(text).expect("base64url")
}

impl Token {
    fn parse(text: &str) -> Self {
        let (signed, signature) = text.rsplit_once('.').expect("three parts");
        let header: Value =
            serde_json::from_slice(&decode(signed.split('.').next().expect("a header"))).expect("JSON");
        let kid = header["kid"].as_str().expect("a kid").to_owned();
        Self { kid, signed: signed.to_owned(), signature: decode(signature), text: text.to_owned() }
    }

    fn is_verified_by(&self, key: &PKey<Public>) -> bool {
        let mut verifier = Verifier::new(MessageDigest::sha256(), key).expect("a key");
        verifier.verify_oneshot(&self.signature, self.signed.as_bytes()).unwrap_or(false)
    }
}

fn keys(jwks: &[u8]) -> Option<Keys> {
    let jwks: Value = serde_json::from_slice(jwks).ok()?;
    let number = |text: &Value| BigNum::from_slice(&decode(text.as_str().expect("text"))).expect("a number");
    let key = |jwk: &Value| {
        let rsa = Rsa::from_public_components(number(&jwk["n"]), number(&jwk["e"])).expect("a key");
        (jwk["kid"].as_str().expect("a kid").to_owned(), PKey::from_rsa(rsa).expect("a key"))
    };
    Some(Arc::new(jwks["keys"].as_array()?.iter().map(key).collect()))
}

impl World {
    fn new() -> Self {
        let folder = tempfile::TempDir::new().expect("a folder");
        let (azurite, etcd) = (Azurite::start(), Etcd::start());
        azurite.create_public_container("oidc");
        let proxy = FaultProxy::start(azurite.url().trim_end_matches(azurite::ACCOUNT));
        let socket = folder.path().join("signer.sock");
        let options = Options {
            issuers: vec![ISSUER.to_owned()],
            signing_key: None,
            verification_keys: Vec::new(),
            port: None,
            extra_flags: vec![format!("--service-account-signing-endpoint={}", socket.display())],
            host: None,
        };
        let [mut one, mut two] = [(); 2].map(|()| ApiServer::stopped(&etcd, options.clone()));
        let kubeconfig = folder.path().join("kubeconfig");
        one.begin(options.clone());
        write_kubeconfig(&kubeconfig, &one.url(), one.ca_file(), &Bearer::Token(ADMIN_TOKEN));
        let other = folder.path().join("other-kubeconfig");
        two.begin(options);
        write_kubeconfig(&other, &two.url(), two.ca_file(), &Bearer::Token(ADMIN_TOKEN));
        let source = |name: &str, file: &PathBuf| json!({"kind": "api-server", "name": name, "kubeconfig": file, "discover": false, "every": "1s"});
        let installation = Installation::new(
            ISSUER,
            &json!({
                "jwks_max_age": "2s", "propagation": "4s", "rotate_after": "12s", "margin": "1s",
                "max_token_lifetime": "10m",
                "sources": [{"kind": "embedded"}, source("one", &kubeconfig), source("two", &other)],
                "signer": {"socket": socket, "refresh_hint": "1s", "node": "node-1"},
                "targets": [
                    {"name": "blob", "url": format!("az://{}/oidc", azurite::ACCOUNT), "endpoint": format!("{}/{}", proxy.url(), azurite::ACCOUNT)},
                    {"name": "directory", "url": format!("file://{}", folder.path().join("public").display())},
                ],
            }),
        );
        Self {
            folder,
            installation,
            azurite,
            proxy,
            etcd,
            servers: [Mutex::new(one), Mutex::new(two)],
            copies: Default::default(),
            tokens: Mutex::default(),
            refused: Mutex::default(),
            checks: AtomicUsize::new(0),
            reviews: AtomicUsize::new(0),
            unminted: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// The JWKS that a place shows now; `None` where nobody can read one.
    fn read(&self, place: usize, served: &str) -> Option<Vec<u8>> {
        let get = |url: &str| Some(Request::get(url).send().ok()?).filter(|answer| answer.status == 200);
        match PLACES[place] {
            "blob" => Some(get(&format!("{}/oidc/{JWKS}", self.azurite.url()))?.body),
            "directory" => fs::read(self.folder.path().join("public").join(JWKS)).ok(),
            _ => Some(get(served)?.body),
        }
    }

    /// Reads a place for ever and remembers the copies that somebody may still have.
    fn watch(&self, place: usize, served: &str) {
        let mut parsed: Option<(Vec<u8>, Keys)> = None;
        while !self.over.load(Ordering::Relaxed) {
            let asked = Instant::now();
            if let Some(bytes) = self.read(place, served) {
                if parsed.as_ref().is_none_or(|(known, _)| *known != bytes) {
                    parsed = keys(&bytes).map(|keys| (bytes, keys));
                }
                let keys = Arc::clone(&parsed.as_ref().expect("no half document is ever shown").1);
                let mut copies = self.copies[place].lock().expect("unpoisoned");
                copies.retain(|(read, _)| read.elapsed() < CACHED);
                copies.push((asked, keys));
            }
            thread::sleep(Duration::from_millis(50).saturating_sub(asked.elapsed()));
        }
    }

    /// Has tokens signed by one API server after the other.
    fn mint(&self, apis: &[Api; 2]) {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [AUDIENCE], "expirationSeconds": 600},
        });
        let path = "/api/v1/namespaces/shop/serviceaccounts/till/token";
        for turn in 0.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let asked = Instant::now();
            match apis[turn % 2].post(path, &body) {
                Some((201, answer)) => {
                    let token = answer["status"]["token"].as_str().expect("a token");
                    self.tokens.lock().expect("unpoisoned").push(Arc::new(Token::parse(token)));
                }
                // Who signs is away. What was not signed is refused by nobody.
                _ => drop(self.unminted.fetch_add(1, Ordering::Relaxed)),
            }
            thread::sleep(MINT_EVERY.saturating_sub(asked.elapsed()));
        }
    }

    fn some_token(&self, turn: usize) -> Option<Arc<Token>> {
        let tokens = self.tokens.lock().expect("unpoisoned");
        // Every other one is young, where a key that is not public yet would show.
        let back =
            if turn.is_multiple_of(2) { turn % 16 } else { turn.wrapping_mul(7919) % tokens.len().max(1) };
        tokens.iter().rev().nth(back).cloned()
    }

    /// Checks tokens of any age with every copy that a relying party may have.
    fn check(&self) {
        for turn in 0.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let Some(token) = self.some_token(turn) else { continue };
            for (place, copies) in PLACES.iter().zip(&self.copies) {
                let copies: Vec<_> = copies.lock().expect("unpoisoned").clone();
                let copies = copies.into_iter().filter(|(read, _)| read.elapsed() < CACHED);
                let distinct: Vec<Keys> = copies.fold(Vec::new(), |mut distinct: Vec<Keys>, (_, keys)| {
                    if !distinct.iter().any(|known| Arc::ptr_eq(known, &keys)) {
                        distinct.push(keys);
                    }
                    distinct
                });
                for keys in distinct {
                    self.checks.fetch_add(1, Ordering::Relaxed);
                    if !keys.get(&token.kid).is_some_and(|key| token.is_verified_by(key)) {
                        let known: Vec<_> = keys.keys().collect();
                        self.refuse(format!(
                            "a copy of {place} with {known:?} refuses a token of {}",
                            token.kid
                        ));
                    }
                }
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks both API servers for their verdict.
    fn review(&self, apis: &[Api; 2]) {
        let body = |token: &str| {
            json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [AUDIENCE]},
            })
        };
        for turn in 0.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let Some(token) = self.some_token(turn) else { continue };
            for (name, api) in ["one", "two"].iter().zip(apis) {
                let Some((201, answer)) =
                    api.post("/apis/authentication.k8s.io/v1/tokenreviews", &body(&token.text))
                else {
                    continue;
                };
                self.reviews.fetch_add(1, Ordering::Relaxed);
                let status = &answer["status"];
                if status["authenticated"] != true {
                    self.refuse(format!("API server {name} refuses a token of {}: {status}", token.kid));
                }
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn refuse(&self, what: String) {
        let mut refused = self.refused.lock().expect("unpoisoned");
        if refused.len() < 20 {
            refused.push(what);
        }
    }

    fn kids(&self) -> BTreeSet<String> {
        self.tokens.lock().expect("unpoisoned").iter().map(|token| token.kid.clone()).collect()
    }
}

#[test]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "its figures are the point of a long run")]
fn no_live_token_is_refused_while_keys_change_and_everything_fails_in_turn() {
    let number = |text: std::ffi::OsString| text.to_str().expect("a number").parse().expect("a number");
    let seconds = variable("SIGNPOST_SOAK_SECONDS").map_or(SECONDS, number);
    let world = World::new();
    let mut service = world.installation.run();
    for server in &world.servers {
        server.lock().expect("unpoisoned").wait_until_ready();
    }
    {
        let server = world.servers[0].lock().expect("unpoisoned");
        server.create_namespace("shop");
        server.create_service_account("shop", "till");
    }
    let ids = [0, 1].map(|index| world.servers[index].lock().expect("unpoisoned").id());
    let served = service.url(JWKS);
    let began = Instant::now();
    thread::scope(|scope| {
        let world = &world;
        for place in 0..PLACES.len() {
            let served = &served;
            scope.spawn(move || world.watch(place, served));
        }
        let apis = || [0, 1].map(|index| Api::of(&world.servers[index].lock().expect("unpoisoned")));
        let (minting, reviewing) = (apis(), apis());
        scope.spawn(move || world.mint(&minting));
        scope.spawn(|| world.check());
        scope.spawn(move || world.review(&reviewing));
        let chaos = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("a token for others is signed", || (!world.kids().is_empty()).then_some(()));
            let ledger = world.installation.ledger_file();
            let backup = fs::read(&ledger).expect("a ledger");
            for round in 0.. {
                if began.elapsed() >= Duration::from_secs(seconds) {
                    break;
                }
                let before = world.kids();
                match round % 4 {
                    0 => {}
                    1 => {
                        service.running.kill();
                        service = world.installation.run();
                    }
                    2 => {
                        // A store that refuses writes holds the switch, and nothing else.
                        let busy = Action::Answer { status: 503, headers: vec![], body: "" };
                        world.proxy.script([Rule::new(busy).method("PUT").times(12)]);
                    }
                    _ => {
                        service.running.kill();
                        // Longer than the API servers wait before they ask for the keys again.
                        thread::sleep(Duration::from_secs(3));
                        service = world.installation.run();
                    }
                }
                eventually("the next key signs", || (world.kids().len() > before.len()).then_some(()));
            }
            // A ledger from a backup switches nothing for a retention, which is ten minutes here.
            let unfinished = ledger.with_extension("backup");
            fs::write(&unfinished, &backup).expect("the folder is ours");
            fs::rename(&unfinished, &ledger).expect("the folder is ours");
            eventually("the backup is recognised", || {
                service.status()["ledger"]["hold_until"].is_string().then_some(())
            });
            let (kids, restored) = (world.kids(), Instant::now());
            eventually("it is old enough", || (restored.elapsed() > Duration::from_secs(15)).then_some(()));
            assert_eq!(world.kids(), kids, "a key was switched");
        }));
        world.over.store(true, Ordering::Relaxed);
        if let Err(panic) = chaos {
            let nodes = Request::get(&service.admin_url("/status.json")).send().map(|answer| answer.text());
            eprintln!("{nodes:?}\n{}", service.running.stderr());
            std::panic::resume_unwind(panic);
        }
    });
    let tokens = world.tokens.lock().expect("unpoisoned").len();
    let rotations = world.kids().len() - 1;
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let (checks, reviews, unminted) = (count(&world.checks), count(&world.reviews), count(&world.unminted));
    println!(
        "{tokens} tokens of {rotations} rotations, {checks} checks, {reviews} reviews, {unminted} not signed"
    );
    let refused = world.refused.lock().expect("unpoisoned");
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(rotations >= 3, "{rotations} rotations\n{}", service.running.stderr());
    assert!(tokens > 500 && checks > 1000 && reviews > 100, "{tokens} {checks} {reviews}");
    assert_eq!(ids, [0, 1].map(|index| world.servers[index].lock().expect("unpoisoned").id()), "no restart");
}
