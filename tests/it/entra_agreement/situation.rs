//! A workload that requests a token: assertion, credentials and documents, valid without a fault.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::Response;
use base64ct::{Base64UrlUnpadded, Encoding as _};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use serde_json::{Value, json};

pub(super) const HOST: &str = "oidc.example";
pub(super) const AUDIENCE: &str = "api://AzureADTokenExchange";
pub(super) const SUBJECT: &str = "system:serviceaccount:team:app";
pub(super) const KID: &str = "the-key-that-signs";
pub(super) const CLIENT: &str = "11111111-1111-4111-8111-111111111111";
pub(super) const GITHUB: &str = "https://token.actions.githubusercontent.com";
/// Entra's issuers: of the tenant that is asked, of another one, of version 1, of another cloud.
pub(super) const ENTRA: &str = "https://login.microsoftonline.com/5f6c0b9e-7d3a-4f0e-9f0e-2b1f6d1c9a10/v2.0";
pub(super) const ENTRA_ELSEWHERE: &str =
    "https://login.microsoftonline.com/bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb/v2.0";
pub(super) const ENTRA_V1: &str = "https://sts.windows.net/5f6c0b9e-7d3a-4f0e-9f0e-2b1f6d1c9a10/";
pub(super) const ENTRA_USGOV: &str =
    "https://login.microsoftonline.us/cccccccc-cccc-4ccc-8ccc-cccccccccccc/v2.0";
/// What Entra's tokens for the token exchange have as their audience.
pub(super) const EXCHANGE: &str = "fb60f99c-7a34-4190-8149-302f77469936";
/// The issuers that situations share, and the hosts of all.
const SHARED: [&str; 5] = [GITHUB, ENTRA, ENTRA_ELSEWHERE, ENTRA_V1, ENTRA_USGOV];
pub(super) const HOSTS: [&str; 5] = [
    HOST,
    "token.actions.githubusercontent.com",
    "login.microsoftonline.com",
    "sts.windows.net",
    "login.microsoftonline.us",
];
const DISCOVERY: &str = "/.well-known/openid-configuration";
const JWKS: &str = "/openid/v1/jwks";
const ELSEWHERE: &str = "/elsewhere";

/// Keys shared by all situations: generating them takes most of the time.
pub(super) struct Keys {
    signing: PKey<Private>,
    stranger: PKey<Private>,
    weak: PKey<Private>,
}

impl Keys {
    pub(super) fn generate() -> Self {
        let rsa = |bits| Rsa::generate(bits).and_then(PKey::from_rsa).expect("OpenSSL makes RSA keys");
        Self { signing: rsa(2048), stranger: rsa(2048), weak: rsa(1024) }
    }
}

/// The parts that a fault can change.
pub(super) struct Situation<'a> {
    keys: &'a Keys,
    pub(super) now: i64,
    /// The client ID that is asked for.
    pub(super) client: String,
    pub(super) issuer: String,
    pub(super) header: Value,
    pub(super) claims: Value,
    /// Changes the JSON of each before it is encoded.
    pub(super) header_text: Option<fn(String) -> String>,
    pub(super) claims_text: Option<fn(String) -> String>,
    signer: &'a PKey<Private>,
    /// Changes the signed token.
    pub(super) damage: Option<fn(String) -> String>,
    pub(super) credentials: Vec<Trust>,
    pub(super) discovery: Value,
    pub(super) jwks: Value,
    pub(super) serving_discovery: Serving,
    pub(super) serving_jwks: Serving,
    /// Receives the changes to a part that another fault has removed.
    gone: (Value, Trust),
}

/// A federated identity credential.
#[derive(Clone, Default)]
pub(super) struct Trust {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) audience: String,
    /// In place of the subject.
    pub(super) expression: Option<String>,
}

/// How a document is served.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) redirect: Option<Redirect>,
    /// Replaces the document.
    pub(super) body: Option<fn(String) -> Vec<u8>>,
}

#[derive(Clone, Copy)]
pub(super) enum Redirect {
    /// To the document itself, at another path.
    ToTheDocument,
    /// In a loop.
    Round,
}

impl<'a> Situation<'a> {
    /// A situation without faults, for an issuer of this name.
    pub(super) fn right(keys: &'a Keys, name: &str, now: i64) -> Self {
        let issuer = format!("https://{HOST}/{name}");
        let serving = Serving { status: 200, content_type: "application/json", redirect: None, body: None };
        Self {
            keys,
            now,
            client: CLIENT.to_owned(),
            header: json!({"alg": "RS256", "kid": KID}),
            claims: json!({
                "iss": issuer, "sub": SUBJECT, "aud": [AUDIENCE],
                "iat": now - 600, "nbf": now - 600, "exp": now + 3000, "jti": "5d3c",
            }),
            header_text: None,
            claims_text: None,
            signer: &keys.signing,
            damage: None,
            credentials: vec![Trust {
                issuer: issuer.clone(),
                subject: SUBJECT.to_owned(),
                audience: AUDIENCE.to_owned(),
                expression: None,
            }],
            discovery: discovery(&issuer),
            jwks: jwks(keys),
            serving_discovery: serving.clone(),
            serving_jwks: serving,
            gone: (json!({}), Trust::default()),
            issuer,
        }
    }

    /// The published key that signs.
    pub(super) fn key(&mut self) -> &mut Value {
        let keys = self.jwks["keys"].as_array_mut().expect("no fault takes the list");
        keys.iter_mut().find(|key| key["kid"] == KID).unwrap_or(&mut self.gone.0)
    }

    /// The published keys.
    pub(super) fn keys(&mut self) -> &mut Vec<Value> {
        self.jwks["keys"].as_array_mut().expect("no fault takes the list")
    }

    pub(super) fn trust(&mut self) -> &mut Trust {
        self.credentials.first_mut().unwrap_or(&mut self.gone.1)
    }

    /// Gives token and credential another issuer and subject.
    pub(super) fn come_from(&mut self, issuer: &str, subject: &str) {
        self.claims["iss"] = json!(issuer);
        self.claims["sub"] = json!(subject);
        issuer.clone_into(&mut self.trust().issuer);
        subject.clone_into(&mut self.trust().subject);
    }

    pub(super) fn sign_as_a_stranger(&mut self) {
        self.signer = &self.keys.stranger;
    }

    /// Signs with a key of 1024 bits, and publishes it.
    pub(super) fn sign_weakly(&mut self) {
        self.signer = &self.keys.weak;
        *self.key() = jwk(KID, &self.keys.weak);
    }

    pub(super) fn key_of_a_stranger(&self, kid: &str) -> Value {
        jwk(kid, &self.keys.stranger)
    }

    pub(super) fn token(&self) -> String {
        let encode = |value: &Value, change: Option<fn(String) -> String>| {
            let text = value.to_string();
            Base64UrlUnpadded::encode_string(change.map_or(text.clone(), |change| change(text)).as_bytes())
        };
        let header = encode(&self.header, self.header_text);
        let input = format!("{header}.{}", encode(&self.claims, self.claims_text));
        let mut signer = Signer::new(MessageDigest::sha256(), self.signer).expect("RS256");
        let signature = signer.sign_oneshot_to_vec(input.as_bytes()).expect("it is an RSA key");
        let token = format!("{input}.{}", Base64UrlUnpadded::encode_string(&signature));
        self.damage.map_or(token.clone(), |damage| damage(token))
    }

    /// The credential that would match the token.
    pub(super) fn credential_of_the_token(&self) -> Trust {
        let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
        let audience = &self.claims["aud"];
        Trust {
            issuer: text(&self.claims["iss"]),
            subject: text(&self.claims["sub"]),
            audience: text(audience.get(0).unwrap_or(audience)),
            expression: None,
        }
    }

    /// Whether the token's issuer is the application that asks.
    pub(super) fn is_of_the_application(&self) -> bool {
        self.claims["iss"] == self.client.as_str()
    }

    /// Adds the documents to the served ones, by their paths.
    pub(super) fn publish(&self, documents: &mut BTreeMap<String, Document>) {
        let base = self.issuer.strip_prefix("https://").and_then(|rest| rest.strip_prefix(HOST));
        let base = base.expect("an issuer of ours");
        for (path, document, serving) in
            [(DISCOVERY, &self.discovery, &self.serving_discovery), (JWKS, &self.jwks, &self.serving_jwks)]
        {
            let path = format!("{base}{path}");
            let text = document.to_string();
            let body = serving.body.map_or(text.clone().into_bytes(), |change| change(text));
            let as_it_is =
                Document { status: serving.status, content_type: serving.content_type, location: None, body };
            let location = match serving.redirect {
                None => {
                    documents.insert(path, as_it_is);
                    continue;
                }
                Some(Redirect::ToTheDocument) => format!("{path}{ELSEWHERE}"),
                Some(Redirect::Round) => path.clone(),
            };
            documents.insert(format!("{path}{ELSEWHERE}"), as_it_is);
            let location = Some(format!("https://{HOST}{location}"));
            documents.insert(
                path,
                Document { status: 302, content_type: "text/html", location, body: Vec::new() },
            );
        }
    }
}

/// Adds the documents of the shared issuers, which no fault changes.
pub(super) fn publish_shared(keys: &Keys, documents: &mut BTreeMap<String, Document>) {
    for issuer in SHARED {
        let url = url::Url::parse(issuer).expect("a URL");
        let base = url.path().trim_end_matches('/');
        for (path, document) in [(DISCOVERY, discovery(issuer)), (JWKS, jwks(keys))] {
            let body = document.to_string().into_bytes();
            let served = Document { status: 200, content_type: "application/json", location: None, body };
            documents.insert(format!("{base}{path}"), served);
        }
    }
}

fn discovery(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{}{JWKS}", issuer.trim_end_matches('/')),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    })
}

/// The key that signs, behind another one.
fn jwks(keys: &Keys) -> Value {
    json!({"keys": [jwk("another", &keys.stranger), jwk(KID, &keys.signing)]})
}

/// One answer of the web server.
pub(super) struct Document {
    status: u16,
    content_type: &'static str,
    location: Option<String>,
    body: Vec<u8>,
}

impl Document {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn response(&self) -> Response {
        let response = Response::builder().status(self.status).header("content-type", self.content_type);
        let response = match &self.location {
            Some(location) => response.header("location", location),
            None => response,
        };
        response.body(Body::from(self.body.clone())).expect("a response")
    }
}

/// A public key as `kube-apiserver` prints it.
fn jwk(kid: &str, key: &PKey<Private>) -> Value {
    let rsa = key.rsa().expect("it is an RSA key");
    let [n, e] = [rsa.n(), rsa.e()].map(|number| Base64UrlUnpadded::encode_string(&number.to_vec()));
    json!({"use": "sig", "kty": "RSA", "kid": kid, "alg": "RS256", "n": n, "e": e})
}
