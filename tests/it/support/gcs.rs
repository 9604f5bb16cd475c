//! A substitute for Google Cloud Storage: the five requests of its XML API that a target sends, with
//! generations, preconditions and permissions.
//!
//! The only store here that is not an existing program: no available one rejects a write because of its
//! generation (`tests/components/README.md`).
//!
//! Sources: "PUT Object", "GET Object", "HEAD Object", "DELETE Object", "HTTP headers", "Request
//! preconditions" and "HTTP status and error codes for XML" in the reference of the XML API; AIP-4111 for the
//! tokens. Anything else is answered with 501.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use jiff::fmt::strtime;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Verifier;
use serde_json::{Value, json};
use signpost::clock;

use super::in_process::InProcess;

/// The scope that a service account requests to use Cloud Storage.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The generation of the first object; later ones are higher.
const FIRST_GENERATION: i64 = 1_760_000_000_000_000;

/// A service account with its key, in the format of Google's file.
#[derive(Clone)]
pub(crate) struct ServiceAccount {
    json: String,
}

impl ServiceAccount {
    pub(crate) fn generate(name: &str) -> Self {
        let key = Rsa::generate(2048).and_then(PKey::from_rsa).expect("OpenSSL makes RSA keys");
        let pem = key.private_key_to_pem_pkcs8().expect("a key has PEM");
        let email = format!("{name}@project.iam.gserviceaccount.com");
        let json = json!({
            "type": "service_account",
            "client_email": email,
            "private_key": String::from_utf8(pem).expect("PEM is text"),
            "private_key_id": name,
        });
        Self { json: json.to_string() }
    }

    /// For `GOOGLE_SERVICE_ACCOUNT_KEY`, or as the content of the file that `GOOGLE_APPLICATION_CREDENTIALS`
    /// names.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    pub(crate) fn of_json(json: &str) -> Self {
        Self { json: json.to_owned() }
    }

    pub(crate) fn email(&self) -> String {
        self.member("client_email")
    }

    pub(crate) fn public_key(&self) -> String {
        let pem = self.key().public_key_to_pem().expect("a key has PEM");
        String::from_utf8(pem).expect("PEM is text")
    }

    fn member(&self, name: &str) -> String {
        let json: Value = serde_json::from_str(&self.json).expect("it is JSON");
        json[name].as_str().expect("it is text").to_owned()
    }

    fn key(&self) -> PKey<Private> {
        PKey::private_key_from_pem(self.member("private_key").as_bytes()).expect("it is a key")
    }
}

/// The role of a caller on every bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `roles/storage.objectUser`.
    User,
    /// `roles/storage.objectViewer`.
    Viewer,
}

pub(crate) struct Gcs {
    server: InProcess,
    state: Arc<Mutex<World>>,
}

#[derive(Default)]
struct World {
    buckets: BTreeMap<String, Bucket>,
    accounts: Vec<(ServiceAccount, Role)>,
    tokens: BTreeMap<String, Role>,
    writes: i64,
}

/// A caller with an invalid token.
struct Stranger;

#[derive(Default)]
struct Bucket {
    public: bool,
    objects: BTreeMap<String, Object>,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    generation: i64,
    /// The headers that are returned unchanged.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether its own access control list permits anonymous reads; a new generation has a new list.
    public: bool,
}

impl Gcs {
    pub(crate) fn start() -> Self {
        let state = Arc::<Mutex<World>>::default();
        let router = Router::new()
            .route("/{bucket}/{*object}", axum::routing::any(answer))
            .with_state(Arc::clone(&state));
        Self { server: InProcess::serve(router), state }
    }

    /// The endpoint, `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// Accepts the tokens that this account signs itself.
    pub(crate) fn allow(&self, account: &ServiceAccount, role: Role) {
        self.lock().accounts.push((account.clone(), role));
    }

    /// Accepts this access token.
    pub(crate) fn allow_token(&self, token: &str, role: Role) {
        self.lock().tokens.insert(token.to_owned(), role);
    }

    /// `public` permits anonymous reads of the objects, as `allUsers` with
    /// `roles/storage.legacyObjectReader`.
    pub(crate) fn create_bucket(&self, name: &str, public: bool) {
        self.lock().buckets.insert(name.to_owned(), Bucket { public, ..Bucket::default() });
    }

    /// Writes an object independently of the product; `path` is `BUCKET/OBJECT`.
    pub(crate) fn put(&self, path: &str, content_type: &'static str, body: &[u8]) {
        let headers = vec![(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type))];
        let (bucket, object) = path.split_once('/').expect("a bucket and an object");
        let mut world = self.lock();
        let generation = world.next_generation();
        let bucket = world.buckets.get_mut(bucket).expect("the bucket was created");
        let bytes = Bytes::copy_from_slice(body);
        bucket.objects.insert(object.to_owned(), Object { bytes, generation, headers, public: false });
    }

    /// Changes a header of an object, and so only its metageneration.
    pub(crate) fn set_header(&self, path: &str, name: HeaderName, value: &'static str) {
        let (bucket, object) = path.split_once('/').expect("a bucket and an object");
        let mut world = self.lock();
        let bucket = world.buckets.get_mut(bucket).expect("the bucket was created");
        let object = bucket.objects.get_mut(object).expect("it was written");
        object.headers.retain(|(other, _)| *other != name);
        object.headers.push((name, HeaderValue::from_static(value)));
    }

    /// Permits anonymous reads of an object by its own access control list.
    pub(crate) fn make_public(&self, path: &str) {
        let (bucket, object) = path.split_once('/').expect("a bucket and an object");
        let mut world = self.lock();
        let bucket = world.buckets.get_mut(bucket).expect("the bucket was created");
        bucket.objects.get_mut(object).expect("it was written").public = true;
    }

    /// Permits anonymous reads of all objects of a bucket.
    pub(crate) fn make_bucket_public(&self, name: &str) {
        self.lock().buckets.get_mut(name).expect("the bucket was created").public = true;
    }

    /// The names of all objects of a bucket.
    pub(crate) fn objects(&self, bucket: &str) -> Vec<String> {
        self.lock().buckets[bucket].objects.keys().cloned().collect()
    }

    pub(crate) fn delete(&self, path: &str) {
        let (bucket, object) = path.split_once('/').expect("a bucket and an object");
        let mut world = self.lock();
        let bucket = world.buckets.get_mut(bucket).expect("the bucket was created");
        bucket.objects.remove(object).expect("it was written");
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.state.lock().expect("no request panicked")
    }
}

async fn answer(
    State(state): State<Arc<Mutex<World>>>,
    method: Method,
    Path((bucket, object)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut world = state.lock().expect("no request panicked");
    let Ok(role) = world.caller(&headers) else {
        return error(StatusCode::UNAUTHORIZED, "AuthenticationRequired");
    };
    if !world.buckets.contains_key(&bucket) {
        return error(StatusCode::NOT_FOUND, "NoSuchBucket");
    }
    match method {
        Method::GET | Method::HEAD => world.read(role, &bucket, &object, &headers),
        Method::PUT => world.write(role, &bucket, object, &headers, body),
        Method::DELETE => world.remove(role, &bucket, &object),
        _ => StatusCode::NOT_IMPLEMENTED.into_response(),
    }
}

impl World {
    /// `None` is an anonymous caller.
    fn caller(&self, headers: &HeaderMap) -> Result<Option<Role>, Stranger> {
        let Some(authorization) = headers.get(http::header::AUTHORIZATION) else { return Ok(None) };
        let token = authorization.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        let known = token.and_then(|token| {
            let signed = self.accounts.iter().find(|(account, _)| is_signed_by(token, account));
            self.tokens.get(token).copied().or(signed.map(|(_, role)| *role))
        });
        known.map(Some).ok_or(Stranger)
    }

    fn read(&self, role: Option<Role>, bucket: &str, name: &str, headers: &HeaderMap) -> Response {
        let bucket = &self.buckets[bucket];
        let is_public = bucket.public || bucket.objects.get(name).is_some_and(|object| object.public);
        if role.is_none() && !is_public {
            return error(StatusCode::FORBIDDEN, "AccessDenied");
        }
        let Some(object) = bucket.objects.get(name) else {
            // Without the permission to list, a missing object looks forbidden.
            let denied = (StatusCode::FORBIDDEN, "AccessDenied");
            let (status, code) = if role.is_none() { denied } else { (StatusCode::NOT_FOUND, "NoSuchKey") };
            return error(status, code);
        };
        let e_tag = object.e_tag();
        if headers.get(http::header::IF_NONE_MATCH) == Some(&e_tag) {
            return (StatusCode::NOT_MODIFIED, [(http::header::ETAG, e_tag)]).into_response();
        }
        let mut response = Response::new(Body::from(object.bytes.clone()));
        let modified = (http::header::LAST_MODIFIED, object.last_modified());
        let headers = object.versions().into_iter().chain([modified]).chain(object.headers.iter().cloned());
        response.headers_mut().extend(headers);
        response
    }

    fn write(
        &mut self,
        role: Option<Role>,
        bucket: &str,
        name: String,
        headers: &HeaderMap,
        bytes: Bytes,
    ) -> Response {
        if role != Some(Role::User) {
            return error(StatusCode::FORBIDDEN, "AccessDenied");
        }
        // No object has the generation 0.
        let there = self.buckets[bucket].objects.get(&name).map_or(0, |object| object.generation);
        let expected =
            headers.get("x-goog-if-generation-match").map(|value| value.to_str().unwrap_or_default());
        if expected.is_some_and(|expected| expected != there.to_string()) {
            return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let is_kept = |name: &HeaderName| {
            [http::header::CONTENT_TYPE, http::header::CACHE_CONTROL].contains(name)
                || name.as_str().starts_with("x-goog-meta-")
        };
        let headers = headers.iter().filter(|(name, _)| is_kept(name));
        let headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
        let object = Object { bytes, generation: self.next_generation(), headers, public: false };
        let versions = object.versions();
        let bucket = self.buckets.get_mut(bucket).expect("it was looked up");
        bucket.objects.insert(name, object);
        let mut response = StatusCode::OK.into_response();
        response.headers_mut().extend(versions);
        response
    }

    fn remove(&mut self, role: Option<Role>, bucket: &str, name: &str) -> Response {
        if role != Some(Role::User) {
            return error(StatusCode::FORBIDDEN, "AccessDenied");
        }
        match self.buckets.get_mut(bucket).expect("it was looked up").objects.remove(name) {
            Some(_) => StatusCode::NO_CONTENT.into_response(),
            None => error(StatusCode::NOT_FOUND, "NoSuchKey"),
        }
    }

    fn next_generation(&mut self) -> i64 {
        self.writes += 1;
        FIRST_GENERATION + self.writes
    }
}

impl Object {
    /// Derived only from the bytes, as for every object that was not composed.
    fn e_tag(&self) -> HeaderValue {
        let digest = openssl::hash::hash(MessageDigest::md5(), &self.bytes).expect("MD5 is built in");
        let hex = digest.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        HeaderValue::try_from(format!("\"{hex}\"")).expect("hexadecimal digits")
    }

    fn last_modified(&self) -> HeaderValue {
        let time = Timestamp::from_microsecond(self.generation).expect("it is in range");
        let text = strtime::format("%a, %d %b %Y %H:%M:%S GMT", time).expect("a time has these fields");
        HeaderValue::try_from(text).expect("it is ASCII")
    }

    fn versions(&self) -> [(HeaderName, HeaderValue); 3] {
        [
            (http::header::ETAG, self.e_tag()),
            (HeaderName::from_static("x-goog-generation"), self.generation.into()),
            (HeaderName::from_static("x-goog-metageneration"), HeaderValue::from_static("1")),
        ]
    }
}

/// Whether it is a JSON Web Token that the account has signed to use Cloud Storage now.
fn is_signed_by(token: &str, account: &ServiceAccount) -> bool {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { return false };
    let json = |part: &str| {
        let bytes = Base64UrlUnpadded::decode_vec(part).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok()
    };
    let (Some(header_json), Some(claims_json)) = (json(header), json(claims)) else { return false };
    let Ok(signature) = Base64UrlUnpadded::decode_vec(signature) else { return false };
    let (key, email, now) = (account.key(), account.member("client_email"), clock::now().as_second());
    let mut verifier = Verifier::new(MessageDigest::sha256(), &key).expect("SHA-256 is built in");
    let is_signed = verifier.verify_oneshot(&signature, format!("{header}.{claims}").as_bytes());
    let valid_from = claims_json["iat"].as_i64().expect("a time");
    let valid_until = claims_json["exp"].as_i64().expect("a time");
    is_signed.unwrap_or(false)
        && header_json == json!({"alg": "RS256", "typ": "JWT", "kid": account.member("private_key_id")})
        && claims_json["iss"] == email
        && claims_json["sub"] == email
        && claims_json["scope"] == SCOPE
        && (valid_from - 60..=valid_until).contains(&now)
        && valid_until - valid_from <= 3600
}

fn error(status: StatusCode, code: &str) -> Response {
    let body = format!("<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>");
    (status, [(http::header::CONTENT_TYPE, "application/xml; charset=UTF-8")], body).into_response()
}
