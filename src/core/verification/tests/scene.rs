//! Evidence in which everything is right; a case breaks one thing of it.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use jiff::Timestamp;
use openssl::{
    hash::MessageDigest,
    pkey::{PKey, Private},
    rsa::Rsa,
    sign::Signer,
};
use serde_json::{Value, json};

use crate::core::{
    entra::{Identity, TokenRequest},
    freshness::CacheFields,
    jose::{jwk::Jwk, public_key::PublicKey, token::UnverifiedToken},
    ledger::Ledger,
    verification::{
        ApiServerView, Cloud, Credential, DocumentEvidence, Evidence, Expectation, HttpResponse, NoAnswer,
        Party, Question, Unanswered, VerificationReport, judge,
    },
    workload::{Pod, Workload},
};

pub(super) const ISSUER: &str = "https://k8s.example/cluster-a";
pub(super) const AUDIENCE: &str = "api://AzureADTokenExchange";
pub(super) const SUBJECT: &str = "system:serviceaccount:team:app";
pub(super) const CLIENT: &str = "85075aa5-1d73-42de-812a-95348218e4b2";
pub(super) const TENANT: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
pub(super) const NOW: i64 = 1_800_000_000;
/// The path at which the scene's pod reads its token.
pub(super) const TOKEN_FILE: &str = "/var/run/secrets/tokens/azure-identity-token";

pub(super) static KEY: LazyLock<PKey<Private>> =
    LazyLock::new(|| Rsa::generate(2048).and_then(PKey::from_rsa).expect("OpenSSL makes RSA keys"));

pub(super) fn published_key() -> Jwk {
    let spki = KEY.public_key_to_der().expect("a public key has DER");
    Jwk::of_public_key(PublicKey::from_spki(&spki).expect("a supported key"))
}

pub(super) fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("near now")
}

pub(super) struct Scene {
    pub(super) header: Value,
    pub(super) claims: Value,
    /// Replaces the token made of header and claims.
    pub(super) token: Option<String>,
    /// What surrounds the token in its file.
    pub(super) token_file: Option<&'static str>,
    pub(super) tampered: bool,
    pub(super) discovery: Value,
    pub(super) jwks: Value,
    /// Replaces the text of the discovery document.
    pub(super) text: Option<&'static [u8]>,
    /// The responses for discovery and JWKS.
    pub(super) answers: [HttpResponse; 2],
    pub(super) unanswered: Option<Unanswered>,
    pub(super) party: Party,
    pub(super) cloud: Cloud,
    pub(super) expected: Expectation,
    /// What Microsoft's tools print of the identity.
    pub(super) identity: Vec<Value>,
    pub(super) credentials: Option<Vec<Credential>>,
    /// The request, as it was sent.
    pub(super) request: Option<String>,
    pub(super) workload: Option<Workload>,
    pub(super) api_server: Option<ApiServerView>,
    /// The ledger entry of the signing key.
    pub(super) entry: Option<Value>,
    pub(super) published_issuer: &'static str,
    pub(super) max_token_lifetime: Option<Duration>,
    /// The documents come from files.
    pub(super) offline: bool,
}

impl Scene {
    pub(super) fn good() -> Self {
        let key = published_key();
        Self {
            header: json!({"alg": "RS256", "kid": key.kid()}),
            claims: json!({
                "iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE],
                "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 3540,
            }),
            token: None,
            token_file: None,
            tampered: false,
            discovery: json!({
                "issuer": ISSUER,
                "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }),
            jwks: json!({"keys": [key]}),
            text: None,
            answers: ["discovery", "jwks"].map(answer),
            unanswered: None,
            party: Party::Entra,
            cloud: Cloud::Public,
            expected: Expectation {
                issuer: Some(ISSUER.to_owned()),
                subject: Some(SUBJECT.to_owned()),
                audience: Some(AUDIENCE.to_owned()),
            },
            identity: Vec::new(),
            credentials: None,
            request: None,
            workload: None,
            api_server: None,
            entry: None,
            published_issuer: ISSUER,
            max_token_lifetime: None,
            offline: false,
        }
    }

    pub(super) fn token(&self) -> String {
        if let Some(token) = &self.token {
            return token.clone();
        }
        let encode = |value: &Value| {
            let mut value = value.clone();
            without_nulls(&mut value);
            Base64UrlUnpadded::encode_string(value.to_string().as_bytes())
        };
        let input = format!("{}.{}", encode(&self.header), encode(&self.claims));
        let mut signer = Signer::new(MessageDigest::sha256(), &KEY).expect("RS256");
        let mut signature = signer.sign_oneshot_to_vec(input.as_bytes()).expect("it is an RSA key");
        signature[0] ^= u8::from(self.tampered);
        format!("{input}.{}", Base64UrlUnpadded::encode_string(&signature))
    }

    pub(super) fn evidence(&self) -> Evidence {
        let [discovery, jwks] = [0, 1].map(|place| {
            let document = if place == 0 { &self.discovery } else { &self.jwks };
            let mut document = document.clone();
            without_nulls(&mut document);
            let given = self.text.filter(|_| place == 0).map(<[u8]>::to_vec);
            let bytes = given.unwrap_or_else(|| {
                document.as_str().map_or_else(|| document.to_string(), str::to_owned).into_bytes()
            });
            if self.offline {
                return DocumentEvidence::File { path: "file".to_owned(), bytes };
            }
            DocumentEvidence::Answer(Box::new(HttpResponse { bytes, ..self.answers[place].clone() }))
        });
        let (discovery, jwks) = match &self.unanswered {
            None => (discovery, jwks),
            Some(why) => {
                let url = format!("{ISSUER}/discovery");
                (DocumentEvidence::NoAnswer(NoAnswer { url, why: why.clone() }), DocumentEvidence::NotSought)
            }
        };
        Evidence {
            token: Some(UnverifiedToken::parse(&self.token())),
            token_file: self.token_file.map(str::to_owned),
            discovery,
            jwks,
            api_server: self.api_server.clone(),
            workload: self.workload.clone(),
            identity: self.identity.iter().filter_map(Identity::of_json).reduce(Identity::and),
            credentials: self.credentials.clone(),
            request: self.request.as_deref().map(|text| TokenRequest::parse(text).expect("a request").0),
            ledger: self.ledger(),
            max_token_lifetime: self.max_token_lifetime,
            now: seconds(NOW),
        }
    }

    /// Adds what Microsoft's tools print of the identity.
    pub(super) fn is(&mut self, printed: Value) {
        self.identity.push(printed);
    }

    /// Has a client ask with this form; an empty value removes a field.
    pub(super) fn asks(&mut self, changes: &[(&str, &str)]) {
        self.asks_at(&format!("https://login.microsoftonline.com/{TENANT}"), changes);
    }

    pub(super) fn asks_at(&mut self, tenant: &str, changes: &[(&str, &str)]) {
        let mut form: BTreeMap<&str, &str> = [
            ("grant_type", "client_credentials"),
            ("client_id", CLIENT),
            ("scope", "https://graph.microsoft.com/.default"),
            ("client_assertion", "token"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ]
        .into();
        form.extend(changes.iter().copied());
        let fields: Vec<_> = form
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let fields = fields.join("\n");
        self.request = Some(format!("POST {tenant}/oauth2/v2.0/token\n{fields}"));
    }

    /// Has a client ask on behalf of a user, whose token has these claims; null removes one.
    pub(super) fn asks_for_a_user(&mut self, changes: &Value) {
        let mut claims = json!({
            "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "aud": CLIENT, "scp": "access_as_user",
            "exp": NOW + 3540,
        });
        let changes = changes.as_object().expect("an object").clone();
        claims.as_object_mut().expect("an object").extend(changes);
        let user = Self { claims, ..Self::good() }.token();
        self.is(json!({"value": [{"consentType": "AllPrincipals"}]}));
        self.asks(&[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &user)]);
    }

    /// Makes the token one of Entra: of a managed identity, or for an exchange, with this subject.
    pub(super) fn entra(&mut self, subject: &str) {
        let issuer = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
        self.move_to(&issuer);
        self.claims["sub"] = json!(subject);
        self.expected.subject = Some(subject.to_owned());
    }

    /// Has the identity trust what fulfils this expression.
    pub(super) fn trusts_expression(&mut self, expression: &str) {
        let issuer = "https://gitlab.example.com";
        self.move_to(issuer);
        let mut flexible = credential(issuer, SUBJECT, AUDIENCE);
        flexible.subject = None;
        flexible.expression = Some(json!({"value": expression, "languageVersion": 1}));
        self.expected = Expectation::default();
        self.credentials = Some(vec![flexible]);
    }

    /// Which kinds of evidence there are, whatever their contents.
    pub(super) fn kinds_of_evidence(&self) -> [bool; 9] {
        let pods = self.workload.as_ref().map_or(0, |workload| workload.pods.len());
        [
            self.unanswered.is_none(),
            self.workload.is_some(),
            pods > 0,
            self.credentials.is_some(),
            !self.identity.is_empty(),
            self.request.is_some(),
            self.api_server.is_some(),
            self.entry.is_some(),
            self.max_token_lifetime.is_some(),
        ]
    }

    fn ledger(&self) -> Option<Ledger> {
        let entry = self.entry.clone()?;
        let key = published_key();
        let text = json!({
            "version": 2, "lineage": "a", "sequence": 1, "issuer": self.published_issuer,
            "keys": {key.kid().as_str(): entry},
        });
        Some(Ledger::parse(text.to_string().as_bytes()).expect("a ledger"))
    }

    pub(super) fn question(&self) -> Question {
        Question { party: self.party, cloud: self.cloud, expected: self.expected.clone() }
    }

    pub(super) fn judged(&self) -> VerificationReport {
        judge(&self.evidence(), &self.question())
    }

    /// Moves the whole scene to another issuer.
    pub(super) fn move_to(&mut self, issuer: &str) {
        self.expected.issuer = Some(issuer.to_owned());
        self.claims["iss"] = json!(issuer);
        self.discovery["issuer"] = json!(issuer);
        self.discovery["jwks_uri"] = json!(format!("{issuer}/openid/v1/jwks"));
    }

    /// Sets the response for the JWKS.
    pub(super) fn answered(&mut self, status: u16, body: &str) {
        self.answers[1].status = status;
        self.jwks = json!(body);
    }

    /// Sets the annotations of the service account.
    pub(super) fn annotated(&mut self, annotations: &Value) -> &mut Workload {
        let workload = self.workload.get_or_insert_default();
        workload.annotations = serde_json::from_value(annotations.clone()).expect("texts");
        workload
    }

    /// Adds a pod that the webhook has mutated, for an annotated service account.
    pub(super) fn with_pod(&mut self, change: impl FnOnce(&mut Value)) {
        let mut pod = json!({
            "metadata": {"name": "app-0", "labels": {"azure.workload.identity/use": "true"}},
            "spec": {
                "serviceAccountName": "app",
                "containers": [{
                    "name": "main",
                    "env": [
                        {"name": "AZURE_CLIENT_ID", "value": CLIENT},
                        {"name": "AZURE_TENANT_ID", "value": CLIENT},
                        {"name": "AZURE_AUTHORITY_HOST", "value": "https://login.microsoftonline.com/"},
                        {"name": "AZURE_FEDERATED_TOKEN_FILE", "value": TOKEN_FILE},
                    ],
                    "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/tokens"}],
                }],
                "volumes": [{"name": "token", "projected": {"sources": [{"serviceAccountToken": {
                    "audience": AUDIENCE, "expirationSeconds": 3600, "path": "azure-identity-token",
                }}]}}],
            },
        });
        change(&mut pod);
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        self.annotated(&json!({"azure.workload.identity/client-id": CLIENT})).pods.push(pod);
    }

    /// Adds a pod with the Entra auth sidecar, as in the walk-through for blueprints: no webhook.
    pub(super) fn with_sidecar(&mut self, change: impl FnOnce(&mut Value)) {
        let mut settings = json!({
            "AzureAd__Instance": "https://login.microsoftonline.com/",
            "AzureAd__TenantId": CLIENT,
            "AzureAd__ClientId": CLIENT,
            "AzureAd__ClientCredentials__0__SourceType": "SignedAssertionFilePath",
            "AzureAd__ClientCredentials__0__SignedAssertionFileDiskPath": TOKEN_FILE,
        });
        change(&mut settings);
        without_nulls(&mut settings);
        self.with_pod(|pod| {
            pod["metadata"]["labels"] = json!({});
            pod["spec"]["containers"][0]["env"] = json!([]);
            pod["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "sidecar"}}]);
        });
        let settings = serde_json::from_value(settings).expect("texts");
        self.workload.as_mut().expect("it has a pod").config_maps.insert("sidecar".to_owned(), settings);
    }

    /// Has the ledger know the signing key from the first publication.
    pub(super) fn first_published(&mut self, at: i64) {
        self.remembered(&json!("listed"), at, true);
        self.entry.as_mut().expect("it is set")["first_seen"] = json!(seconds(at));
    }

    /// Sets the ledger entry of the signing key.
    pub(super) fn remembered(&mut self, state: &Value, shown_since: i64, original: bool) {
        self.entry = Some(json!({
            "jwk": published_key(), "first_seen": seconds(0), "state": state,
            "shown": {"blob": seconds(shown_since)}, "present_from_start": original,
        }));
    }
}

fn answer(name: &str) -> HttpResponse {
    HttpResponse {
        url: format!("{ISSUER}/{name}"),
        redirects: Vec::new(),
        private: Vec::new(),
        status: 200,
        content_type: Some("application/json; charset=utf-8".to_owned()),
        content_coding: None,
        cache: CacheFields {
            cache_control: Some("public, max-age=300".to_owned()),
            ..CacheFields::default()
        },
        age: None,
        clock_difference: Some(jiff::SignedDuration::ZERO),
        took: Duration::from_millis(20),
        ca_file: None,
        bytes: Vec::new(),
        again: None,
    }
}

pub(super) fn credential(issuer: &str, subject: &str, audience: &str) -> Credential {
    Credential {
        name: "kind".to_owned(),
        issuer: issuer.to_owned(),
        subject: Some(subject.to_owned()),
        audiences: vec![audience.to_owned()],
        expression: None,
        created: None,
    }
}

/// Removes the members that a case has set to null.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}
