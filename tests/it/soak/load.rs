//! Continuous token requests, and the parties that verify each token during its lifetime.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Public};
use openssl::rsa::Rsa;
use openssl::sign::Verifier;
use serde_json::{Value, json};
use signpost::clock;

use super::{AUDIENCE, CACHED, ISSUER};
use crate::support::api_server::{ADMIN_TOKEN, ApiServer};
use crate::support::http_client::Request;

/// Interval between two tokens of an API server.
const MINT_EVERY: Duration = Duration::from_millis(20);
/// A token that expires within this many seconds is no longer checked: it may be expired on arrival.
const DYING: i64 = 3;

type Keys = Arc<BTreeMap<String, PKey<Public>>>;

/// A parsed token.
struct Token {
    text: String,
    kid: String,
    signed: String,
    signature: Vec<u8>,
    /// Its `exp`, in seconds.
    dies: i64,
    /// Whether it is for an external audience.
    outside: bool,
}

/// Where relying parties read the JWKS.
pub(super) enum Place {
    Url(String),
    File(PathBuf),
}

/// The load: token requests, verifications, and their results.
#[derive(Default)]
pub(super) struct Load {
    places: Vec<(&'static str, Place)>,
    /// For each target, its copies and when each was last seen.
    copies: Vec<Mutex<Vec<(Instant, Keys)>>>,
    /// The valid tokens, the oldest first.
    tokens: Mutex<VecDeque<Arc<Token>>>,
    /// Every kid of a token for an external audience.
    kids: Mutex<BTreeSet<String>>,
    refused: Mutex<Vec<String>>,
    minted: AtomicUsize,
    /// Number of expired tokens.
    dead: AtomicUsize,
    checks: AtomicUsize,
    reviews: AtomicUsize,
    unminted: AtomicUsize,
    over: AtomicBool,
}

/// An API server with persistent connections.
pub(super) struct Api {
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    url: String,
}

impl Api {
    pub(super) fn of(server: &ApiServer) -> Self {
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

fn decode(text: &str) -> Vec<u8> {
    Base64UrlUnpadded::decode_vec(text).expect("base64url")
}

impl Token {
    fn parse(text: &str, outside: bool) -> Self {
        let (signed, signature) = text.rsplit_once('.').expect("three parts");
        let mut parts = signed
            .split('.')
            .map(|part| serde_json::from_slice::<Value>(&decode(part)).expect("a part is JSON"));
        let (header, claims) = (parts.next().expect("a header"), parts.next().expect("claims"));
        Self {
            kid: header["kid"].as_str().expect("a kid").to_owned(),
            signed: signed.to_owned(),
            signature: decode(signature),
            text: text.to_owned(),
            dies: claims["exp"].as_i64().expect("a number"),
            outside,
        }
    }

    fn lives(&self) -> bool {
        clock::now().as_second() + DYING < self.dies
    }

    fn is_verified_by(&self, key: &PKey<Public>) -> bool {
        let mut verifier = Verifier::new(MessageDigest::sha256(), key).expect("a key");
        verifier.verify_oneshot(&self.signature, self.signed.as_bytes()).unwrap_or(false)
    }

    fn audience(&self) -> &'static str {
        if self.outside { AUDIENCE } else { ISSUER }
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

impl Place {
    /// The JWKS that it currently serves; `None` if it cannot be read.
    fn read(&self) -> Option<Vec<u8>> {
        match self {
            Self::Url(url) => {
                let answer = Request::get(url).send().ok()?;
                (answer.status == 200).then_some(answer.body)
            }
            Self::File(file) => fs::read(file).ok(),
        }
    }
}

impl Load {
    pub(super) fn on(places: Vec<(&'static str, Place)>) -> Self {
        let copies = places.iter().map(|_| Mutex::default()).collect();
        Self { places, copies, ..Self::default() }
    }

    /// Runs until [`Load::stop`], beside everything else in the scope. Each API server has two connections.
    pub(super) fn spawn<'scope>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, '_>,
        servers: [[Api; 2]; 2],
    ) {
        for ((_, place), copies) in self.places.iter().zip(&self.copies) {
            scope.spawn(move || self.watch(place, copies));
        }
        for [minting, reviewing] in servers {
            scope.spawn(move || self.mint(&minting));
            scope.spawn(move || self.review(&reviewing));
        }
        scope.spawn(|| self.check());
    }

    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Reads a target repeatedly and records the copies that a relying party may still have.
    fn watch(&self, place: &Place, copies: &Mutex<Vec<(Instant, Keys)>>) {
        let mut parsed: Option<(Vec<u8>, Keys)> = None;
        while self.goes_on() {
            let asked = Instant::now();
            if let Some(bytes) = place.read() {
                if parsed.as_ref().is_none_or(|(known, _)| *known != bytes) {
                    parsed = keys(&bytes).map(|keys| (bytes, keys));
                }
                let keys = Arc::clone(&parsed.as_ref().expect("no half document is ever shown").1);
                let mut copies = copies.lock().expect("unpoisoned");
                copies.retain(|(read, _)| read.elapsed() < CACHED);
                copies.push((asked, keys));
            }
            thread::sleep(Duration::from_millis(50).saturating_sub(asked.elapsed()));
        }
    }

    /// Requests tokens from an API server: most for external audiences, some for itself.
    fn mint(&self, api: &Api) {
        let path = "/api/v1/namespaces/shop/serviceaccounts/till/token";
        for turn in 0_usize.. {
            if !self.goes_on() {
                return;
            }
            let (asked, outside) = (Instant::now(), !turn.is_multiple_of(8));
            let body = json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"audiences": [if outside { AUDIENCE } else { ISSUER }], "expirationSeconds": 600},
            });
            match api.post(path, &body) {
                Some((201, answer)) => {
                    let text = answer["status"]["token"].as_str().expect("a token");
                    self.keep(Token::parse(text, outside));
                }
                // The signer is down. A token that was not signed cannot be refused.
                _ => drop(self.unminted.fetch_add(1, Ordering::Relaxed)),
            }
            thread::sleep(MINT_EVERY.saturating_sub(asked.elapsed()));
        }
    }

    fn keep(&self, token: Token) {
        self.minted.fetch_add(1, Ordering::Relaxed);
        if token.outside {
            self.kids.lock().expect("unpoisoned").insert(token.kid.clone());
        }
        let mut tokens = self.tokens.lock().expect("unpoisoned");
        tokens.push_back(Arc::new(token));
        while tokens.front().is_some_and(|oldest| !oldest.lives()) {
            tokens.pop_front();
            self.dead.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn some_token(&self, turn: usize) -> Option<Arc<Token>> {
        let tokens = self.tokens.lock().expect("unpoisoned");
        // Every other one is young, which reveals a key that is not public yet; half of the rest are about to
        // expire, which reveals one that was removed too early.
        let count = tokens.len().max(1);
        let index = match turn % 4 {
            0 | 2 => count - 1 - (turn % 16).min(count - 1),
            1 => turn.wrapping_mul(7919) % count,
            _ => turn.wrapping_mul(7919) % count.div_ceil(16),
        };
        tokens.get(index).filter(|token| token.lives()).cloned()
    }

    /// Checks tokens of any age with every copy that a relying party may have.
    fn check(&self) {
        for turn in 0.. {
            if !self.goes_on() {
                return;
            }
            if let Some(token) = self.some_token(turn).filter(|token| token.outside) {
                for ((place, _), copies) in self.places.iter().zip(&self.copies) {
                    self.check_at(place, copies, &token);
                }
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn check_at(&self, place: &str, copies: &Mutex<Vec<(Instant, Keys)>>, token: &Token) {
        let copies: Vec<_> = copies.lock().expect("unpoisoned").clone();
        let mut distinct: Vec<Keys> = Vec::new();
        for (_, keys) in copies.into_iter().filter(|(read, _)| read.elapsed() < CACHED) {
            if !distinct.iter().any(|known| Arc::ptr_eq(known, &keys)) {
                distinct.push(keys);
            }
        }
        for keys in distinct {
            self.checks.fetch_add(1, Ordering::Relaxed);
            if !keys.get(&token.kid).is_some_and(|key| token.is_verified_by(key)) && token.lives() {
                let known: Vec<_> = keys.keys().collect();
                self.refuse(&format!("a copy of {place} with {known:?} refuses a token of {}", token.kid));
            }
        }
    }

    /// Requests a `TokenReview` from an API server.
    fn review(&self, api: &Api) {
        for turn in 0.. {
            if !self.goes_on() {
                return;
            }
            if let Some(token) = self.some_token(turn) {
                let body = json!({
                    "apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenReview",
                    "spec": {"token": token.text, "audiences": [token.audience()]},
                });
                if let Some((201, answer)) = api.post("/apis/authentication.k8s.io/v1/tokenreviews", &body) {
                    self.reviews.fetch_add(1, Ordering::Relaxed);
                    let status = &answer["status"];
                    if status["authenticated"] != true && token.lives() {
                        self.refuse(&format!("{} refuses a token of {}: {status}", api.url, token.kid));
                    }
                }
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn refuse(&self, what: &str) {
        let mut refused = self.refused.lock().expect("unpoisoned");
        if refused.len() < 20 {
            refused.push(format!("{}: {what}", clock::now()));
        }
    }

    /// The kids of all tokens for external audiences so far.
    pub(super) fn kids(&self) -> BTreeSet<String> {
        self.kids.lock().expect("unpoisoned").clone()
    }

    /// The first twenty refusals.
    pub(super) fn refused(&self) -> Vec<String> {
        self.refused.lock().expect("unpoisoned").clone()
    }

    /// Tokens, expired tokens, checks with a copy, reviews, requests without a token.
    pub(super) fn counts(&self) -> [usize; 5] {
        [&self.minted, &self.dead, &self.checks, &self.reviews, &self.unminted]
            .map(|counter| counter.load(Ordering::Relaxed))
    }
}
