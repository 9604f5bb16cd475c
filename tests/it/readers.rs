//! Checks what `docs/relying-parties.md` says about readers: each line of its table that says `run` is run
//! here, against the documents that Signpost serves while a key is revoked and another one is added, and
//! against documents that some readers reject.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Path as UrlPath, State},
    response::Redirect,
    routing::get,
};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use openssl::{
    hash::MessageDigest,
    pkey::{PKey, Private},
    sign::Signer,
};
use serde_json::{Value, json};
use signpost::{
    clock,
    core::jose::{jwk::Jwk, public_key::PublicKey},
};
use tempfile::TempDir;

use crate::support::{
    components,
    etcd::Etcd,
    eventually::eventually,
    in_process::InProcess,
    installation::{Installation, JWKS},
    nginx::{Location, Nginx},
    pki::KeyFiles,
    reader::{Reader, Runtime},
    relying_cluster::{RelyingCluster, Trust},
    signpost::Signpost,
};

const AUDIENCE: &str = "https://readers.example";
/// The `max-age` of the served documents. kube-apiserver refreshes 30 s before its end.
const MAX_AGE: Duration = Duration::from_mins(1);
/// A reader that refuses a new key for longer than this does not only wait for the last 30 s.
const LATE: Duration = Duration::from_secs(38);
/// The times after which a withdrawn key is tried again, and the table's wording for a refusal then.
const TIMES: [(u32, &str); 5] =
    [(65, "a minute"), (131, "2 min"), (301, "5 min"), (601, "10 min"), (86_401, "a day")];
const WITH_A_NEW_KEY: &str = "with the first token of a key that it has not read yet";
const BY_MAX_AGE: &str = "towards the end of `max-age`";

const LIBRARIES: [(Runtime, &str); 15] = [
    (Runtime::Go, "go-oidc"),
    (Runtime::Go, "cap"),
    (Runtime::Go, "zitadel-oidc"),
    (Runtime::Go, "keyfunc"),
    (Runtime::Go, "go-jwt-middleware"),
    (Runtime::Node, "jose"),
    (Runtime::Node, "jwks-rsa"),
    (Runtime::Node, "get-jwks"),
    (Runtime::Node, "aws-jwt-verify"),
    (Runtime::Node, "express-oauth2-jwt-bearer"),
    (Runtime::Python, "PyJWT"),
    (Runtime::Python, "google-auth"),
    (Runtime::Python, "Authlib"),
    (Runtime::Python, "joserfc"),
    (Runtime::Python, "python-jose"),
];
const KUBE_APISERVER: &str = "kube-apiserver";

/// Documents that some readers reject, and the table's wording for them.
const ODD: [(&str, &str); 5] = [
    ("twice", "the same key twice"),
    ("unknown", "a key of a type that it does not know"),
    ("moved", "a redirect"),
    ("ec", "an EC key before the RSA key"),
    ("no-alg", "a key without `alg`"),
];

/// A key that the test signs with.
struct Key {
    files: KeyFiles,
    private: PKey<Private>,
    jwk: Value,
    kid: String,
}

impl Key {
    fn new(files: KeyFiles) -> Self {
        let pem = fs::read(&files.private).expect("it was written");
        let key = PKey::private_key_from_pem(&pem).expect("it is PEM");
        let spki = key.public_key_to_der().expect("a public key has DER");
        let jwk = Jwk::of_public_key(PublicKey::from_spki(&spki).expect("it is supported"));
        Self {
            files,
            private: key,
            kid: jwk.kid().to_string(),
            jwk: serde_json::to_value(&jwk).expect("JSON"),
        }
    }

    /// Adds the public key to the source.
    fn list_in(&self, source: &Path) {
        let name = self.files.public.file_name().expect("it is a file");
        fs::copy(&self.files.public, source.join(name)).expect("the folder can be written");
    }

    fn token(&self, issuer: &str) -> String {
        let encode = |value: Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
        let now = clock::now().as_second();
        let header = encode(json!({"alg": "RS256", "kid": self.kid, "typ": "JWT"}));
        let claims = encode(json!({
            "iss": issuer, "sub": "system:serviceaccount:shop:till", "aud": [AUDIENCE],
            "iat": now, "nbf": now, "exp": now + 3 * 86_400,
        }));
        let input = format!("{header}.{claims}");
        let mut signer = Signer::new(MessageDigest::sha256(), &self.private).expect("RS256");
        let signature = signer.sign_oneshot_to_vec(input.as_bytes()).expect("a signature");
        format!("{input}.{}", Base64UrlUnpadded::encode_string(&signature))
    }
}

/// The observed behaviour of one reader, in the words of the table.
#[derive(Debug, Default)]
struct Seen {
    new_key: String,
    withdrawn: String,
    breaks: Vec<&'static str>,
}

/// Serves invalid documents below `/odd/NAME`.
struct Odd {
    server: InProcess,
    issuers: String,
    asked: Arc<Mutex<BTreeSet<String>>>,
}

impl Odd {
    fn start(issuers: &str, rsa: &Value, ec: &Value) -> Self {
        type Shared = (Arc<Mutex<BTreeSet<String>>>, String, BTreeMap<&'static str, Value>);
        let without_alg: Value =
            rsa.as_object().expect("an object").iter().filter(|(name, _)| *name != "alg").map(pair).collect();
        let unknown = json!({"kty": "AKP", "kid": "post-quantum", "use": "sig", "alg": "ML-DSA-44", "pub": "A".repeat(1750)});
        let sets = BTreeMap::from([
            ("plain", json!([rsa])),
            ("twice", json!([rsa, rsa])),
            ("unknown", json!([rsa, unknown])),
            ("moved", json!([rsa])),
            ("ec", json!([ec, rsa])),
            ("no-alg", json!([without_alg])),
        ]);
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let discovery = async |UrlPath(name): UrlPath<String>, State((_, issuers, _)): State<Shared>| {
            let issuer = format!("{issuers}/{name}");
            Json(json!({
                "issuer": issuer,
                "jwks_uri": format!("{issuer}/{}", if name == "moved" { "old" } else { "keys" }),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            }))
        };
        let keys = async |UrlPath(name): UrlPath<String>, State((asked, _, sets)): State<Shared>| {
            asked.lock().expect("no panic").insert(name.clone());
            Json(json!({"keys": sets[name.as_str()]}))
        };
        let old = async || Redirect::temporary("keys");
        let router = Router::new()
            .route("/odd/{name}/.well-known/openid-configuration", get(discovery))
            .route("/odd/{name}/keys", get(keys))
            .route("/odd/{name}/old", get(old))
            .with_state((Arc::clone(&asked), issuers.to_owned(), sets));
        Self { server: InProcess::serve(router), issuers: issuers.to_owned(), asked }
    }

    /// The documents that a reader rejects, in the words of the table. It must accept the valid ones.
    fn broken(&self, mut refuses: impl FnMut(&str) -> bool) -> Vec<&'static str> {
        let mut refuses = |name: &str| refuses(&format!("{}/{name}", self.issuers));
        assert!(!refuses("plain"), "it takes nothing at all");
        ODD.into_iter().filter(|(name, _)| refuses(name)).map(|(_, words)| words).collect()
    }

    /// Whether the JWKS of this issuer was read since the last call.
    fn was_asked(&self, issuer: &str) -> bool {
        let (_, name) = issuer.rsplit_once('/').expect("it is a URL");
        self.asked.lock().expect("no panic").remove(name)
    }
}

fn pair((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

#[test]
fn what_the_documentation_says_of_relying_parties_is_what_they_do() {
    let rows = rows();
    let mut seen = observe();
    for (name, version, told) in rows {
        let Some(found) = seen.remove(name.as_str()) else {
            panic!("`{name}` is not run, and its row says so");
        };
        assert_eq!(version, pinned(&name), "the version of {name}");
        let breaks = if found.breaks.is_empty() { "–".to_owned() } else { found.breaks.join("; ") };
        assert_eq!(told, [found.new_key, found.withdrawn, breaks], "{name}");
    }
    assert!(seen.is_empty(), "no row of the table says `run` of these: {seen:#?}");
}

/// The rows of the table that are run: reader, version, and the other cells.
fn rows() -> Vec<(String, String, [String; 3])> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/relying-parties.md");
    let page = fs::read_to_string(page).expect("it is there");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells = rows.map(|row| row.split(" | ").map(str::to_owned).collect::<Vec<_>>());
    let rows = cells.filter_map(|cells| {
        let [name, version, new_key, withdrawn, breaks, known] = cells.try_into().ok()?;
        assert!(["run", "source", "known"].contains(&known.as_str()), "{name}: {known}");
        let name = name.trim_matches('`').to_owned();
        (known == "run").then_some((name, version, [new_key, withdrawn, breaks]))
    });
    rows.collect()
}

/// The version that `tests/components/install` installs.
fn pinned(name: &str) -> String {
    let read = |file: &str| fs::read_to_string(components::sources().join(file)).expect("a list of pins");
    let after = |file: &str, start: &str| {
        let text = format!("\n{}", read(file));
        let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("{file} has no {start}"));
        rest.split(|c: char| c.is_whitespace() || c == '"').next().expect("a word").to_owned()
    };
    match name {
        KUBE_APISERVER => after("kubernetes/go.mod", "k8s.io/kubernetes v"),
        "go-oidc" => after("go-oidc/go.mod", "github.com/coreos/go-oidc/v3 v"),
        "cap" => after("go-readers/go.mod", "github.com/hashicorp/cap v"),
        "zitadel-oidc" => after("go-readers/go.mod", "github.com/zitadel/oidc/v3 v"),
        "keyfunc" => after("go-readers/go.mod", "github.com/MicahParks/keyfunc/v3 v"),
        "go-jwt-middleware" => after("go-readers/go.mod", "github.com/auth0/go-jwt-middleware/v3 v"),
        "PyJWT" | "google-auth" | "Authlib" | "python-jose" => {
            after("python/relying_party.txt", &format!("\n{}==", name.to_lowercase()))
        }
        // The older one is for an older Python.
        "joserfc" => read("python/relying_party.txt")
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("joserfc==")?.split_once(' '))
            .map(|(version, _)| version.to_owned())
            .expect("a pin"),
        _ => after("node/package.json", &format!("\"{name}\": \"")),
    }
}

/// Observes every reader during a rotation and with the invalid documents.
fn observe() -> BTreeMap<&'static str, Seen> {
    let folder = TempDir::new().expect("a temporary folder");
    let public = folder.path().join("public");
    fs::create_dir(&public).expect("the folder can be written");
    let [old, standby, new] =
        ["old", "standby", "new"].map(|name| Key::new(KeyFiles::rsa(folder.path(), name)));
    let ec = Key::new(KeyFiles::ec(folder.path(), "ec"));
    old.list_in(&public);
    standby.list_in(&public);
    let mut nginx = Nginx::start(&[]);
    let (issuer, odd_issuers) = (format!("{}/c1", nginx.url()), format!("{}/odd", nginx.url()));
    let odd = Odd::start(&odd_issuers, &old.jwk, &ec.jwk);
    let settings = json!({
        "jwks_max_age": format!("{}s", MAX_AGE.as_secs()),
        "sources": [{"kind": "files", "name": "files", "paths": [public], "every": "1s"}],
    });
    let installation = Installation::new(&issuer, &settings);
    let mut service = installation.run_until_ready();
    nginx.point(&[
        ("/c1/", Location::Proxy(format!("http://{}/c1/", service.address()))),
        ("/odd/", Location::Proxy(format!("{}/odd/", odd.server.url()))),
    ]);

    let names = ["plain"].into_iter().chain(ODD.map(|(name, _)| name));
    let urls: Vec<_> = names.map(|name| format!("{odd_issuers}/{name}")).chain([issuer.clone()]).collect();
    let trust = |issuer| Trust { issuer, discovery_url: None, audience: AUDIENCE, ca_file: nginx.ca_file() };
    let trusts: Vec<_> = urls.iter().map(|url| trust(url)).collect();
    let etcd = Etcd::start();
    let cluster = RelyingCluster::start_trusting_all(&etcd, &trusts);
    let start = |(runtime, name)| Reader::start(runtime, name, AUDIENCE, nginx.ca_file());
    let mut readers: Vec<_> = LIBRARIES.into_iter().map(start).collect();
    let seconds: Vec<_> = LIBRARIES.into_iter().map(start).collect();
    let mut seen: BTreeMap<_, _> = readers
        .iter_mut()
        .map(|reader| {
            let name = reader.name();
            let refuses = |url: &str| reader.present(url, &old.token(url)).is_err();
            (name, Seen { breaks: odd.broken(refuses), ..Seen::default() })
        })
        .collect();
    let refuses = |url: &str| {
        let token = old.token(url);
        // Other readers have read it before.
        odd.was_asked(url);
        // It reads a discovery document at any time, and a JWKS with the first token after that.
        let asked = || cluster.user(&token).is_some() || odd.was_asked(url);
        eventually("kube-apiserver has read the documents", || asked().then_some(()));
        let refuses = cluster.user(&token).is_none();
        let rules = ["--for", "kubernetes", "--audience", AUDIENCE, "--allow-private"];
        let verify = Signpost::new(["verify", "--token", "-"].iter().chain(&rules));
        let verify = verify.env("SSL_CERT_FILE", nginx.ca_file()).stdin(&token);
        verify.finish(Duration::from_mins(1)).expect_code(i32::from(refuses));
        refuses
    };
    seen.insert(KUBE_APISERVER, Seen { breaks: odd.broken(refuses), ..Seen::default() });

    let mut rotation = Rotation { issuer: &issuer, cluster, readers, seconds, seen };
    rotation.read_by_all(&old);
    let read = Instant::now();
    new.list_in(&public);
    installation.finish(["rotate", "revoke", "--yes", "--", &old.kid]).expect_code(0);
    service.until("the new key is public and the old one is not", |service| {
        let jwks = service.get(JWKS).text();
        jwks.contains(&new.kid) && !jwks.contains(&old.kid)
    });
    rotation.observe([&old, &standby, &new], read);
    rotation.seen
}

/// The readers that have read the documents of an issuer before its keys changed.
struct Rotation<'a> {
    issuer: &'a str,
    cluster: RelyingCluster,
    readers: Vec<Reader>,
    /// Second instances, which never see the new key: only time removes the old one from their cache.
    seconds: Vec<Reader>,
    seen: BTreeMap<&'static str, Seen>,
}

impl Rotation<'_> {
    fn read_by_all(&mut self, key: &Key) {
        let token = key.token(self.issuer);
        // Those whose clock cannot be advanced come last.
        for has_a_clock in [true, false] {
            let all = self.readers.iter_mut().chain(&mut self.seconds);
            for reader in all.filter(|reader| reader.has_a_clock() == has_a_clock) {
                let read = reader.present(self.issuer, &token);
                read.unwrap_or_else(|why| panic!("{}: {why}", reader.name()));
            }
        }
        eventually("kube-apiserver knows the issuer", || self.cluster.user(&token));
    }

    fn observe(&mut self, keys: [&Key; 3], read: Instant) {
        let [old, standby, new] = keys.map(|key| key.token(self.issuer));
        // Readers whose clock cannot be advanced see the new key last, so they have kept their copy for
        // longest.
        // longest.
        let mut refused = BTreeMap::new();
        if self.cluster.user(&new).is_none() {
            refused.insert(KUBE_APISERVER, Instant::now());
        }
        assert!(read.elapsed() < MAX_AGE / 2, "too slow a machine: nobody keeps what was read for so long");
        assert!(self.cluster.user(&standby).is_some(), "its key was read");
        assert!(self.cluster.user(&old).is_some(), "it has not looked again");
        for reader in &mut self.readers {
            let name = reader.name();
            let found = self.seen.get_mut(name).expect("it is there");
            reader.present(self.issuer, &standby).unwrap_or_else(|why| panic!("{name}: {why}"));
            // The token of the standby key did not make it look for the old one again.
            if reader.present(self.issuer, &old).is_err() {
                "at once".clone_into(&mut found.withdrawn);
            }
            if reader.present(self.issuer, &new).is_ok() {
                "at once".clone_into(&mut found.new_key);
            } else if reader.has_a_clock() {
                reader.later(31);
                reader.present(self.issuer, &new).unwrap_or_else(|why| panic!("{name}: {why}"));
                "30 s after its last look".clone_into(&mut found.new_key);
            } else {
                refused.insert(name, Instant::now());
            }
        }
        self.wait_for_the_new_key(&new, &mut refused, read);

        let mut by_time = BTreeMap::new();
        for second in &mut self.seconds {
            let name = second.name();
            if second.has_a_clock() {
                by_time.extend(first_refusal(second, self.issuer, &old).map(|words| (name, words)));
            } else if refused.contains_key(name) {
                let dropped = || second.present(self.issuer, &old).is_err().then_some(());
                eventually(&format!("{name} looks again"), dropped);
                by_time.insert(name, BY_MAX_AGE);
            }
        }
        let mut still_takes: Vec<_> = self
            .readers
            .iter_mut()
            .map(|reader| (reader.name(), reader.present(self.issuer, &old).is_ok()))
            .collect();
        still_takes.push((KUBE_APISERVER, self.cluster.user(&old).is_some()));
        for (name, still_takes) in still_takes {
            let found = self.seen.get_mut(name).expect("it is there");
            let by_time = by_time.get(name).copied();
            if found.withdrawn.is_empty() {
                let by_new_key = (!still_takes && by_time != Some(BY_MAX_AGE)).then_some(WITH_A_NEW_KEY);
                let words: Vec<_> = by_time.into_iter().chain(by_new_key).collect();
                found.withdrawn = words.join(", or ");
            }
        }
    }

    /// Waits for readers whose clock cannot be advanced, and returns when they last refused the new key.
    fn wait_for_the_new_key(
        &mut self,
        new: &str,
        refused: &mut BTreeMap<&'static str, Instant>,
        read: Instant,
    ) {
        let mut waiting: BTreeSet<_> = refused.keys().copied().collect();
        while !waiting.is_empty() {
            assert!(read.elapsed() < MAX_AGE * 2, "these never see the new key: {waiting:?}");
            thread::sleep(Duration::from_millis(500));
            let cluster = &self.cluster;
            let mut tell = |name, takes: bool| {
                if takes {
                    waiting.remove(name);
                } else if waiting.contains(name) {
                    refused.insert(name, Instant::now());
                }
            };
            tell(KUBE_APISERVER, cluster.user(new).is_some());
            for reader in self.readers.iter_mut().filter(|reader| !reader.has_a_clock()) {
                tell(reader.name(), reader.present(self.issuer, new).is_ok());
            }
        }
        for (name, refused) in refused {
            let is_late = refused.duration_since(read) > LATE;
            let words = if is_late { BY_MAX_AGE } else { "in the last 30 s of `max-age`" };
            words.clone_into(&mut self.seen.get_mut(name).expect("it is there").new_key);
        }
    }
}

/// The time after which a reader refuses a previously accepted token.
fn first_refusal(reader: &mut Reader, issuer: &str, token: &str) -> Option<&'static str> {
    let mut passed = 0;
    let refusal = TIMES.into_iter().find(|(time, _)| {
        reader.later(time - passed);
        passed = *time;
        reader.present(issuer, token).is_err()
    });
    refusal.map(|(_, words)| words)
}
