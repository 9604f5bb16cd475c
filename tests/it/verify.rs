//! `signpost verify` in typical situations, with real components.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cluster::{Cluster, ISSUER};
use crate::support::nginx::{Location, Nginx};
use crate::support::pki::KeyFiles;
use crate::support::signpost::{Finished, Signpost};

mod answers;
mod hostile;
mod published;
mod schema;
mod silence;
mod walkthrough;
mod workloads;

const AUDIENCE: &str = "api://AzureADTokenExchange";
const SUBJECT: &str = "system:serviceaccount:default:signpost";
const HOST: &str = "oidc.example";
const DISCOVERY: &str = ".well-known/openid-configuration";
const JWKS: &str = "openid/v1/jwks";
/// A read without an answer takes 10 s, and there are two documents.
const WITHIN: Duration = Duration::from_mins(1);

/// A real cluster, and its documents on a web server at the issuer's URL.
struct Stage {
    cluster: Arc<Cluster>,
    folder: TempDir,
    nginx: Nginx,
}

impl Stage {
    fn set() -> Self {
        let cluster = Cluster::shared();
        let folder = TempDir::new().expect("a temporary folder");
        publish(ISSUER, &[&cluster.keys[0], &cluster.keys[1]], folder.path());
        let nginx = Nginx::start_as(HOST, &[("/cluster/", Location::Folder(folder.path().to_owned()))]);
        Self { cluster, folder, nginx }
    }

    /// A token of the cluster as a pod gets it.
    fn token(&self) -> String {
        self.cluster.server.token("default", "signpost", &[AUDIENCE], 600)
    }

    /// The command with the documents of this stage.
    fn verify<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Signpost {
        let address = self.nginx.address();
        let fixed = ["verify", "--allow-private", "--connect-to", &address].map(str::to_owned);
        let arguments = fixed.into_iter().chain(arguments.into_iter().map(str::to_owned));
        Signpost::new(arguments).env("SSL_CERT_FILE", self.nginx.ca_file())
    }

    /// Changes a document independently of the product.
    fn edit(&self, document: &str, change: impl FnOnce(&mut Value)) {
        let file = self.folder.path().join(document);
        let mut value = serde_json::from_slice(&fs::read(&file).expect("it is ours")).expect("it is JSON");
        change(&mut value);
        fs::write(&file, value.to_string()).expect("it is ours");
    }

    /// Publishes the correct documents.
    fn restore(&self) {
        publish(ISSUER, &[&self.cluster.keys[0], &self.cluster.keys[1]], self.folder.path());
    }
}

fn publish(issuer: &str, keys: &[&KeyFiles], folder: &Path) {
    let sources = keys.iter().flat_map(|key| ["--source".as_ref(), key.public.as_os_str()]);
    let arguments = ["jwks".as_ref(), "--issuer".as_ref(), issuer.as_ref(), "--output-dir".as_ref()];
    let arguments = arguments.into_iter().chain([folder.as_os_str()]).chain(sources);
    Signpost::new(arguments).finish(WITHIN).expect_code(0);
}

/// A token that no API server would issue, signed with a separate key.
fn signed(key: &KeyFiles, header: &Value, claims: &Value) -> String {
    let pem = fs::read(&key.private).expect("the key is ours");
    let key = PKey::private_key_from_pem(&pem).expect("it is PEM");
    let encode = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    let input = format!("{}.{}", encode(header), encode(claims));
    let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("RS256");
    let signature = signer.sign_oneshot_to_vec(input.as_bytes()).expect("it is an RSA key");
    format!("{input}.{}", Base64UrlUnpadded::encode_string(&signature))
}

/// Header and claims of a token.
fn parts(token: &str) -> [Value; 2] {
    let mut parts = token.split('.').map(|part| Base64UrlUnpadded::decode_vec(part).expect("base64url"));
    [(); 2].map(|()| serde_json::from_slice(&parts.next().expect("three parts")).expect("it is JSON"))
}

/// The reports of many situations, for a snapshot.
#[derive(Default)]
struct Page {
    text: String,
    replaced: Vec<(String, &'static str)>,
}

impl Page {
    fn replace(&mut self, text: impl Into<String>, word: &'static str) {
        self.replaced.push((text.into(), word));
    }

    /// Adds a report, in which this rule must come first, with this code.
    #[track_caller]
    fn note(&mut self, what: &str, said: &Finished, first: &str, code: Option<u32>, exit: i32) {
        let told = &said.stdout;
        assert_eq!(said.code, Some(exit), "{what}\n{told}{}", said.stderr);
        let id = told.lines().nth(2).and_then(|line| line.split_whitespace().nth(1));
        assert_eq!(id, Some(first), "{what}\n{told}");
        let likely = code.map_or(String::new(), |code| format!("likely first: AADSTS{code} "));
        assert!(told.contains(likely.trim_end()), "{what}: no {likely}\n{told}");
        let shown = self.replaced.iter().fold(told.clone(), |told, (text, word)| told.replace(text, word));
        let shown: Vec<_> = shown.lines().map(without_times).collect();
        self.text += &format!("# {what}\n{}\n[{exit}]\n\n", shown.join("\n"));
    }

    fn compare(self, name: &str) {
        snapshot(name, &self.text);
    }
}

fn snapshot(name: &str, text: &str) {
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(format!("verify_{name}"), text.trim_end());
    });
}

/// Ages, lifetimes and dates depend on when the test runs.
fn without_times(line: &str) -> String {
    let starts = [
        ("expired ", ""),
        ("TOK-FRESH  ", " old"),
        ("this clock is ", " behind"),
        ("valid for another ", ""),
        ("every target for only ", ""),
        ("that is until ", ""),
        ("first published ", " ago"),
        ("has signed ", ""),
        (" at 20", ""),
        ("has a lifetime of ", ""),
    ];
    starts.iter().fold(line.to_owned(), |line, (start, end)| {
        let Some((before, rest)) = line.split_once(start) else { return line };
        let Some(at) = rest.find(end) else { return line };
        let after = if end.is_empty() { "" } else { &rest[at..] };
        format!("{before}{start}TIME{after}")
    })
}

/// Claims that are valid now.
fn claims() -> Value {
    let now = signpost::clock::now().as_second();
    json!({"iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE], "iat": now - 60, "nbf": now - 60, "exp": now + 3540})
}
