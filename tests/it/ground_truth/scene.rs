//! Makes of a situation what `verify` judges and what the twin of Entra knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use jiff::Timestamp;
use openssl::{
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    hash::{MessageDigest, hash},
    nid::Nid,
    pkey::{PKey, Private},
    rsa::Rsa,
    sign::Signer,
};
use serde_json::{Map, Value, json};
use signpost::core::{
    freshness::CacheFields,
    jose::issuer::Issuer,
    ledger::Ledger,
    verification::{
        Cloud, DocumentEvidence, HttpResponse, NoAnswer, Unanswered, is_public_url,
        situation::{Document, Situation, Token, Trust, Unreachable},
    },
};

pub(super) const ISSUER: &str = "https://oidc.example/cluster";
pub(super) const TENANT: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
pub(super) const CLIENT: &str = "11111111-1111-4111-8111-111111111111";
const BLUEPRINT: &str = "44444444-4444-4444-8444-444444444444";
const USER: &str = "agent@tenant.example";
const OBJECT: &str = "22222222-2222-4222-8222-222222222222";
const AUDIENCE: &str = "api://AzureADTokenExchange";
const SUBJECT: &str = "system:serviceaccount:team:app";
const KEY: &str = "key-1";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Members of a key in a situation that are none of its JWK.
const OURS: [&str; 2] = ["key", "bits"];

/// The keys that situations name, made once.
#[derive(Default)]
pub(super) struct Keys(BTreeMap<(String, u64), PKey<Private>>);

impl Keys {
    /// The RSA key of that name and size, or the P-256 key where `bits` is 256.
    fn get(&mut self, name: &str, bits: u64) -> &PKey<Private> {
        self.0.entry((name.to_owned(), bits)).or_insert_with(|| {
            if bits == 256 {
                let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("OpenSSL has it");
                return EcKey::generate(&group).and_then(PKey::from_ec_key).expect("OpenSSL makes EC keys");
            }
            let bits = u32::try_from(bits).expect("a size of a key");
            Rsa::generate(bits).and_then(PKey::from_rsa).expect("OpenSSL makes RSA keys")
        })
    }
}

/// A situation in full.
pub(super) struct Scene {
    pub(super) now: Timestamp,
    pub(super) authority: String,
    pub(super) tenant: String,
    pub(super) form: BTreeMap<String, String>,
    pub(super) identity: Map<String, Value>,
    pub(super) credentials: Vec<Trust>,
    pub(super) discovery: DocumentEvidence,
    pub(super) jwks: DocumentEvidence,
    /// The ledger of a publisher whose keys were changed lately.
    pub(super) ledger: Option<Ledger>,
    /// Seconds since the keys were changed, if recent.
    jwks_age: Option<u64>,
    /// The tenants that know the identity.
    tenants: BTreeSet<String>,
}

impl Scene {
    pub(super) fn of(it: &Situation, keys: &mut Keys, now: Timestamp) -> Self {
        let default = Token::default();
        let agents = text(&it.identity, "kind", "") == "agent-identity";
        let token = it.token.as_ref().unwrap_or(&default);
        let published = jwks(it.jwks.as_ref(), keys);
        let sizes = sizes(it.jwks.as_ref());
        let claims = changed(
            json!({"iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE], "iat": -600, "nbf": -600, "exp": 3000}),
            &token.claims,
        );
        let assertion = signed(token, &claims, keys, &sizes, now);
        let issuer = claims.get("iss").and_then(Value::as_str).map(str::to_owned);
        let user = it.user_token.as_ref().unwrap_or(&default);
        let user_token = signed(user, &changed(users_claims(agents), &user.claims), keys, &sizes, now);
        let mut form: BTreeMap<String, String> = [
            ("grant_type", "client_credentials"),
            ("client_id", CLIENT),
            ("scope", "https://graph.microsoft.com/.default"),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", "token"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let request = it.request.clone().unwrap_or_default();
        for (name, value) in request.form {
            match value {
                Some(value) => form.insert(name, value),
                None => form.remove(&name),
            };
        }
        for value in form.values_mut() {
            match value.as_str() {
                "token" => value.clone_from(&assertion),
                "user_token" => value.clone_from(&user_token),
                _ => {}
            }
        }
        let age = it.jwks.as_ref().and_then(|it| it.age);
        let ledger = age
            .zip(issuer.as_deref().filter(|issuer| Issuer::parse(issuer).is_ok()))
            .map(|(age, issuer)| ledger(&published, issuer, now, age));
        let (discovery, jwks) = documents(it, issuer.as_deref(), published);
        let tenant = request.tenant.unwrap_or_else(|| TENANT.to_owned());
        // Who tells the tenant of an identity means that the one that is asked knows it too.
        let asked = it.identity.contains_key("tenant").then(|| tenant.clone());
        let home = text(&it.identity, "tenant", TENANT).to_owned();
        Self {
            now,
            authority: request.authority.unwrap_or_else(|| "https://login.microsoftonline.com".to_owned()),
            tenants: [home].into_iter().chain(asked).collect(),
            tenant,
            form,
            identity: changed(
                json!({
                    "kind": "application", "client_id": CLIENT, "object_id": OBJECT, "tenant": TENANT,
                    "exists": true, "enabled": true, "public_client": false, "multi_tenant": false,
                    "blueprint": agents.then_some(BLUEPRINT),
                    "user": agents.then(|| json!({"name": USER, "parent": CLIENT})),
                }),
                &it.identity,
            ),
            credentials: it
                .credentials
                .clone()
                .unwrap_or_else(|| vec![Trust::default()])
                .into_iter()
                .map(whole)
                .collect(),
            discovery,
            jwks,
            ledger,
            jwks_age: age,
        }
    }

    /// The request, as `--request` reads it.
    pub(super) fn request(&self) -> String {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.form).finish();
        format!("POST {}/{}/oauth2/v2.0/token\n{form}\n", self.authority, self.tenant)
    }

    /// The cloud that is asked, as `--cloud` names it.
    pub(super) fn cloud(&self) -> Cloud {
        let is_of = |cloud: &Cloud| cloud.login_hosts().iter().any(|host| self.authority.contains(host));
        Cloud::ALL.into_iter().find(is_of).unwrap_or_default()
    }

    /// The identity, as Microsoft's tools print it: the object itself, and its service principal.
    pub(super) fn identity_as_printed(&self) -> Vec<Value> {
        let text = |name: &str| self.identity.get(name).and_then(Value::as_str);
        let is = |name: &str| self.identity.get(name).and_then(Value::as_bool) == Some(true);
        let not_found = json!({"error": {"code": "Request_ResourceNotFound", "message": "…"}});
        if !is("exists") {
            return vec![not_found];
        }
        let (client, object, tenant) = (text("client_id"), text("object_id"), text("tenant"));
        let kind = match text("kind").expect("it has a kind") {
            "managed-identity" => {
                let own = json!({"clientId": client, "principalId": object, "tenantId": tenant});
                let is_absent = self.identity.get("service_principal") == Some(&json!(false));
                return if is_absent { vec![own, not_found] } else { vec![own] };
            }
            "blueprint" => Some("#microsoft.graph.agentIdentityBlueprint"),
            "agent-identity" => Some("#microsoft.graph.agentIdentity"),
            "agent-user" => Some("#microsoft.graph.agentUser"),
            _ => None,
        };
        let audience = if is("multi_tenant") { "AzureADMultipleOrgs" } else { "AzureADMyOrg" };
        let own = json!({
            "@odata.type": kind, "appId": client, "id": object, "isFallbackPublicClient": is("public_client"),
            "agentIdentityBlueprintId": text("blueprint"), "signInAudience": audience,
        });
        let principal = json!({
            "servicePrincipalType": "Application", "appId": client, "id": "55555555-5555-4555-8555-000000000000",
            "appOwnerOrganizationId": tenant, "accountEnabled": is("enabled"),
        });
        let grants =
            self.identity.get("grants").cloned().unwrap_or_else(|| json!([{"consentType": "AllPrincipals"}]));
        let grants = json!({"@odata.context": "https://graph.microsoft.com/v1.0/$metadata#oauth2PermissionGrants", "value": grants});
        let user = self.identity.get("user").filter(|user| !user.is_null()).map(|user| {
            json!({"id": user["id"], "userPrincipalName": user["name"], "identityParentId": user["parent"]})
        });
        let of_tenant = json!({"appId": client, "tenantId": tenant});
        // An application has a principal at home, if nothing else is said.
        let has_principal = self.identity.get("service_principal").and_then(Value::as_bool);
        let is_home = tenant == Some(&self.tenant) || self.tenant == "common";
        match has_principal.or(is_home.then_some(true)) {
            Some(true) => vec![own, of_tenant, principal, grants],
            Some(false) => vec![own, of_tenant, not_found, grants],
            None => vec![own, of_tenant, grants],
        }
        .into_iter()
        .chain(user)
        .collect()
    }

    /// The credentials, as Microsoft's tools print them.
    pub(super) fn credentials_as_printed(&self) -> Value {
        let printed = self.credentials.iter().enumerate().map(|(number, it)| {
            let expression =
                it.expression.as_ref().map(|value| json!({"value": value, "languageVersion": 1}));
            let created = it.age.map(|age| {
                let age =
                    jiff::SignedDuration::from_secs(i64::try_from(age).expect("a time of this century"));
                json!({"createdAt": self.now - age})
            });
            json!({
                "name": format!("credential-{number}"), "issuer": it.issuer, "subject": it.subject,
                "audiences": [it.audience], "claimsMatchingExpression": expression, "systemData": created,
            })
        });
        printed.collect()
    }

    /// All that the twin knows in this situation.
    pub(super) fn directory(&self) -> Value {
        let clients: Map<_, _> = self
            .in_directory()
            .into_iter()
            .map(|identity| (text(&identity, "client_id", "").to_owned(), Value::Object(identity)))
            .collect();
        let tenants: Map<_, _> =
            self.tenants.iter().map(|tenant| (tenant.clone(), Value::Object(clients.clone()))).collect();
        json!({"now": self.now.as_second(), "documents": self.internet(), "tenants": tenants})
    }

    /// The documents by their URLs.
    fn internet(&self) -> Value {
        let entry = |document: &DocumentEvidence| match document {
            DocumentEvidence::Answer(it) => Some((
                it.url.clone(),
                json!({"status": it.status, "body": String::from_utf8_lossy(&it.bytes)}),
            )),
            DocumentEvidence::NoAnswer(it) => {
                let why = match it.why {
                    Unanswered::Private { .. } => "private",
                    _ => "refused",
                };
                Some((it.url.clone(), json!({"unreachable": why})))
            }
            DocumentEvidence::NotSought | DocumentEvidence::File { .. } => None,
        };
        let jwks = entry(&self.jwks).map(|(url, mut document)| {
            if let Some(age) = self.jwks_age {
                document["age"] = json!(age);
            }
            (url, document)
        });
        Value::Object(entry(&self.discovery).into_iter().chain(jwks).collect())
    }

    /// The identity, and another agent identity if the agent user is a child of that.
    fn in_directory(&self) -> Vec<Map<String, Value>> {
        let mut identity = self.identity.clone();
        let credentials = self.credentials.iter().map(|it| {
            let members = json!({
                "issuer": it.issuer, "subject": it.subject, "audience": it.audience,
                "expression": it.expression, "age": it.age,
            });
            let Value::Object(members) = members else { unreachable!("an object") };
            members.into_iter().filter(|(_, value)| !value.is_null()).collect()
        });
        identity.insert("credentials".to_owned(), credentials.map(Value::Object).collect());
        let Some(user) = identity.remove("user").filter(|user| !user.is_null()) else {
            return vec![identity];
        };
        let asked = self.form.get("username").or(self.form.get("user_id")).map(String::as_str);
        let asked = asked.or(user["name"].as_str()).expect("a user has a name");
        let (own, other) = match user["parent"].as_str() {
            Some(parent) if Some(parent) == identity["client_id"].as_str() => (json!([asked]), None),
            Some(parent) => (json!([]), Some(parent)),
            // A person; the agent user is somebody else.
            None => (json!([USER]), None),
        };
        identity.insert("agent_users".to_owned(), own);
        let other = other.map(|parent| {
            changed(
                json!({
                    "kind": "agent-identity", "client_id": parent, "tenant": identity["tenant"],
                    "blueprint": identity["blueprint"], "agent_users": [asked],
                }),
                &Map::new(),
            )
        });
        [identity].into_iter().chain(other).collect()
    }
}

fn whole(it: Trust) -> Trust {
    let subject = it.subject.or_else(|| it.expression.is_none().then(|| SUBJECT.to_owned()));
    Trust {
        issuer: it.issuer.or_else(|| Some(ISSUER.to_owned())),
        audience: it.audience.or_else(|| Some(AUDIENCE.to_owned())),
        subject,
        ..it
    }
}

fn changed(members: Value, changes: &Map<String, Value>) -> Map<String, Value> {
    let Value::Object(mut members) = members else { unreachable!("an object") };
    for (name, value) in changes {
        match value {
            Value::Null => members.remove(name),
            value => members.insert(name.clone(), value.clone()),
        };
    }
    members
}

/// An access token of Entra for a user of the application.
fn users_claims(of_an_agent: bool) -> Value {
    let audience = if of_an_agent { BLUEPRINT } else { CLIENT };
    json!({
        "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "aud": audience,
        "sub": "user", "oid": "44444444-4444-4444-8444-444444444444", "tid": TENANT, "idtyp": "user",
        "scp": "access_as_user", "ver": "2.0", "iat": -600, "nbf": -600, "exp": 3000,
    })
}

fn text<'a>(members: &'a Map<String, Value>, name: &str, default: &'a str) -> &'a str {
    members.get(name).and_then(Value::as_str).unwrap_or(default)
}

/// The ledger of an issuer whose first keys were published this many seconds ago.
fn ledger(jwks: &str, issuer: &str, now: Timestamp, age: u64) -> Ledger {
    let jwks: Value = serde_json::from_str(jwks).expect("JSON");
    let keys = jwks["keys"].as_array().expect("a list").iter().map(|jwk| {
        let since = now - jiff::SignedDuration::from_secs(i64::try_from(age).expect("a time of this century"));
        let entry = json!({
            "jwk": jwk, "first_seen": since, "state": "listed", "shown": {"blob": since}, "present_from_start": true,
        });
        (jwk["kid"].as_str().expect("a kid").to_owned(), entry)
    });
    let keys: Map<String, Value> = keys.collect();
    let ledger = json!({"version": 2, "lineage": "a", "sequence": 1, "issuer": issuer, "keys": keys});
    Ledger::parse(ledger.to_string().as_bytes()).expect("a ledger")
}

fn size(key: &Map<String, Value>) -> u64 {
    if text(key, "kty", "RSA") == "EC" {
        256
    } else {
        key.get("bits").and_then(Value::as_u64).unwrap_or(2048)
    }
}

/// The sizes of the published keys, by their names.
fn sizes(jwks: Option<&Document>) -> BTreeMap<String, u64> {
    let keys = jwks.and_then(|it| it.keys.as_ref()).into_iter().flatten();
    keys.map(|key| (text(key, "key", KEY).to_owned(), size(key))).collect()
}

fn jwks(document: Option<&Document>, keys: &mut Keys) -> String {
    let default = vec![Map::new()];
    let listed = document.and_then(|it| it.keys.as_ref()).unwrap_or(&default);
    let listed: Vec<_> = listed
        .iter()
        .map(|changes| {
            let key = keys.get(text(changes, "key", KEY), size(changes));
            let encode = |bytes: &[u8]| Base64UrlUnpadded::encode_string(bytes);
            let jwk = if let Ok(rsa) = key.rsa() {
                json!({"use": "sig", "kty": "RSA", "kid": KEY, "alg": "RS256",
                    "n": encode(&rsa.n().to_vec()), "e": encode(&rsa.e().to_vec())})
            } else {
                let spki = key.public_key_to_der().expect("a public key has DER");
                let (x, y) = spki[spki.len() - 64..].split_at(32);
                json!({"use": "sig", "kty": "EC", "kid": KEY, "alg": "ES256", "crv": "P-256",
                    "x": encode(x), "y": encode(y)})
            };
            let mut jwk = changed(jwk, changes);
            for name in OURS {
                jwk.remove(name);
            }
            Value::Object(jwk)
        })
        .collect();
    json!({"keys": listed}).to_string()
}

fn signed(
    token: &Token,
    claims: &Map<String, Value>,
    keys: &mut Keys,
    sizes: &BTreeMap<String, u64>,
    now: Timestamp,
) -> String {
    if let Some(text) = &token.text {
        return text.clone();
    }
    let header = changed(json!({"alg": "RS256", "kid": KEY}), &token.header);
    let mut claims = claims.clone();
    for name in ["iat", "nbf", "exp"] {
        if let Some(seconds) = claims.get(name).and_then(Value::as_i64) {
            claims.insert(name.to_owned(), json!(now.as_second() + seconds));
        }
    }
    let encode = |members: Map<String, Value>| {
        Base64UrlUnpadded::encode_string(Value::Object(members).to_string().as_bytes())
    };
    let is_ec = text(&header, "alg", "").starts_with("ES");
    let input = format!("{}.{}", encode(header), encode(claims));
    let by = token.signed_by.as_deref().unwrap_or(KEY);
    if by == "nobody" {
        return format!("{input}.");
    }
    let bits = sizes.get(by).copied().unwrap_or(if is_ec { 256 } else { 2048 });
    let key = keys.get(by, bits);
    let signature = if let Ok(key) = key.ec_key() {
        let digest = hash(MessageDigest::sha256(), input.as_bytes()).expect("SHA-256");
        let signature = EcdsaSig::sign(&digest, &key).expect("it is an EC key");
        [signature.r(), signature.s()].map(|it| it.to_vec_padded(32).expect("32 bytes")).concat()
    } else {
        let mut signer = Signer::new(MessageDigest::sha256(), key).expect("RS256");
        signer.sign_oneshot_to_vec(input.as_bytes()).expect("it is an RSA key")
    };
    format!("{input}.{}", Base64UrlUnpadded::encode_string(&signature))
}

/// Discovery document and JWKS, as they are found for this issuer.
fn documents(
    it: &Situation,
    issuer: Option<&str>,
    published: String,
) -> (DocumentEvidence, DocumentEvidence) {
    let default = Document::default();
    let [discovery, jwks] = [&it.discovery, &it.jwks].map(|it| it.as_ref().unwrap_or(&default));
    let Some(url) = issuer.and_then(|issuer| Issuer::parse(issuer).ok()).map(|it| it.discovery_url()) else {
        return (DocumentEvidence::NotSought, DocumentEvidence::NotSought);
    };
    let issuer = issuer.expect("it has a URL");
    let jwks_uri = format!("{}/openid/v1/jwks", issuer.trim_end_matches('/'));
    let members = changed(
        json!({
            "issuer": issuer, "jwks_uri": jwks_uri, "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256"],
        }),
        &discovery.members,
    );
    let jwks_uri = members.get("jwks_uri").and_then(Value::as_str).unwrap_or_default().to_owned();
    let discovery = read(discovery, url, Value::Object(members).to_string());
    let jwks = match &discovery {
        DocumentEvidence::Answer(it) if it.status == 200 && jwks_uri.starts_with("https://") => {
            read(jwks, jwks_uri, published)
        }
        _ => DocumentEvidence::NotSought,
    };
    (discovery, jwks)
}

fn read(document: &Document, url: String, body: String) -> DocumentEvidence {
    let host = || url.trim_start_matches("https://").split('/').next().unwrap_or_default().to_owned();
    let why = document.unreachable.map(|why| match why {
        Unreachable::NoAddress => Unanswered::NoAddress { host: host() },
        Unreachable::Private => Unanswered::Private { addresses: vec!["10.0.0.1".to_owned()] },
        Unreachable::Refused => Unanswered::NoConnection { reason: "Connection refused".to_owned() },
        Unreachable::Tls => {
            Unanswered::Tls { reason: "certificate verify failed".to_owned(), thumbprint: None }
        }
        Unreachable::Timeout => Unanswered::TimedOut { after: Duration::from_secs(10) },
    });
    let why = why.or_else(|| {
        (!is_public_url(&url)).then(|| Unanswered::Private { addresses: vec!["10.0.0.1".to_owned()] })
    });
    if let Some(why) = why {
        return DocumentEvidence::NoAnswer(NoAnswer { url, why });
    }
    let status = document.status.unwrap_or(200);
    let body = document.body.clone().unwrap_or(if status == 200 { body } else { String::new() });
    DocumentEvidence::Answer(Box::new(HttpResponse {
        url,
        redirects: Vec::new(),
        private: Vec::new(),
        status,
        content_type: Some("application/json".to_owned()),
        content_coding: None,
        cache: CacheFields {
            cache_control: Some("public, max-age=300".to_owned()),
            ..CacheFields::default()
        },
        age: None,
        clock_difference: Some(jiff::SignedDuration::ZERO),
        took: Duration::from_millis(20),
        ca_file: None,
        bytes: body.into_bytes(),
        again: None,
    }))
}
