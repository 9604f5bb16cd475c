//! Describes evidence as a situation, without a name, an id, a host or a key of anybody.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    Answer, Document, Evidenced, Request, Situation, Token, Trust, Unreachable,
    words::{CLIENT, OBJECT, TENANT, Words},
};
use crate::core::{
    entra::{Credential, IdentityKind, TokenRequest},
    jose::token::UnverifiedToken,
    verification::{
        Cloud, DocumentEvidence, Evidence, Question, Unanswered,
        checks::{fulfils, names_unusual_claim},
        context::{Context, PublishedKey},
    },
};

/// The fields of a form that decide something.
const FIELDS: [&str; 22] = [
    "grant_type",
    "client_id",
    "scope",
    "resource",
    "client_assertion_type",
    "client_assertion",
    "client_secret",
    "fmi_path",
    "assertion",
    "requested_token_use",
    "refresh_token",
    "username",
    "password",
    "user_id",
    "user_federated_identity_credential",
    "device_code",
    "code",
    "response_type",
    "prompt",
    "redirect_uri",
    "client_info",
    "subject_token",
];
/// The values that those have which name a kind.
const VALUES: [&str; 22] = [
    "client_credentials",
    "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "urn:ietf:params:oauth:grant-type:device_code",
    "urn:ietf:params:oauth:grant-type:token-exchange",
    "urn:ietf:params:oauth:grant-type:saml2-bearer",
    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    "device_code",
    "authorization_code",
    "refresh_token",
    "password",
    "user_fic",
    "on_behalf_of",
    "code",
    "none",
    "token",
    "id_token",
    "login",
    "consent",
    "admin_consent",
    "select_account",
    "code id_token",
    "id_token token",
];
const ALGORITHMS: [&str; 13] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256",
    "none", "",
];

/// The claims that decide something.
const CLAIMS: [&str; 19] = [
    "azpacr",
    "appidacr",
    "iss",
    "sub",
    "aud",
    "iat",
    "nbf",
    "exp",
    "idtyp",
    "ver",
    "tid",
    "oid",
    "azp",
    "appid",
    "scp",
    "roles",
    "xms_mirid",
    "xms_ficinfo",
    "xms_az_rid",
];
/// Describes the evidence that `verify --report` was given, and the answer.
#[must_use]
pub fn situation(evidence: &Evidence, question: &Question, answer: Answer) -> Situation {
    let case = Context::new(evidence, question);
    let mut words = Words::default();
    let request = evidence.request.as_ref();
    let identity = evidence.identity.as_ref();
    words.name(
        identity.and_then(|it| it.client_id.as_deref()).or(request.and_then(|it| it.field("client_id"))),
        CLIENT,
    );
    words.name(identity.and_then(|it| it.object_id.as_deref()), OBJECT);
    words.name(
        identity.and_then(|it| it.tenant.as_deref()).or(request.and_then(|it| it.tenant.as_deref())),
        TENANT,
    );
    let token = case.token();
    let (jwks, signed_by) = keys(&case, &mut words);
    Situation {
        situation: "What happened, in one sentence.".to_owned(),
        answer,
        date: evidence.now.strftime("%Y-%m").to_string(),
        certainty: Evidenced::Observed,
        request: Some(requested(request, question.cloud, &mut words)),
        identity: identity_of(&case, &mut words),
        credentials: Some(credentials(&case, &mut words)),
        token: described(evidence, token, signed_by, &mut words),
        user_token: request.and_then(|it| it.user_token.as_ref()).map(|it| Token {
            claims: members(json!({
                "iss": it.issuer.as_ref().map(|it| words.anonymous(it)),
                "aud": it.audience.as_ref().map(|it| words.anonymous(it)),
                "exp": it.expires_at.map(|it| seconds(evidence.now, it)),
                "scp": (it.has_scope && !it.is_app_only).then_some("access_as_user"),
                "roles": it.is_app_only.then(|| json!(["role"])),
                "idtyp": it.is_app_only.then_some("app"),
            })),
            ..Token::default()
        }),
        discovery: Some(discovery(&case, &mut words)),
        jwks: Some(jwks),
        notes: unknown(&case),
        ..Situation::default()
    }
}

/// What the members say although nobody has shown it.
fn unknown(case: &Context) -> String {
    let is_known = case.evidence.credentials.is_some() || case.question.expected.issuer.is_some();
    let notes = [
        (!is_known, "The credentials were not shown."),
        (case.token().is_some() && case.keys().is_none(), "Whether the signature fits was not seen."),
    ];
    notes.into_iter().filter(|(applies, _)| *applies).map(|(_, note)| note).collect::<Vec<_>>().join(" ")
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn seconds(now: Timestamp, at: Timestamp) -> i64 {
    at.as_second() - now.as_second()
}

/// A value that everybody uses, or that it is another.
fn known(value: &str, values: &[&str]) -> String {
    if values.contains(&value) { value } else { "another" }.to_owned()
}

fn requested(request: Option<&TokenRequest>, cloud: Cloud, words: &mut Words) -> Request {
    let default = format!("https://{}", cloud.login_hosts()[0]);
    let mut form = BTreeMap::new();
    if let Some(request) = request {
        for name in ["grant_type", "client_id", "scope", "client_assertion_type", "client_assertion"] {
            form.insert(name.to_owned(), None);
        }
        for (name, value) in request.fields() {
            let value = match name {
                _ if value.is_empty() => String::new(),
                "client_assertion" => "token".to_owned(),
                "assertion" => "user_token".to_owned(),
                "grant_type"
                | "client_assertion_type"
                | "requested_token_use"
                | "response_type"
                | "prompt" => known(value, &VALUES),
                _ if value == "…" => "secret".to_owned(),
                _ => words.anonymous(value),
            };
            let name =
                if FIELDS.contains(&name) { name.to_owned() } else { format!("another-{}", form.len()) };
            form.insert(name, Some(value));
        }
    }
    Request {
        authority: Some(
            request.and_then(|it| it.authority.as_deref()).map_or(default, |it| words.anonymous(it)),
        ),
        tenant: request.and_then(|it| it.tenant.as_deref()).map(|it| words.anonymous(it)),
        form,
    }
}

fn identity_of(case: &Context, words: &mut Words) -> Map<String, Value> {
    let Some(it) = case.identity() else { return Map::new() };
    let Some(kind) = it.kind else { return Map::new() };
    let kind = match kind {
        IdentityKind::Missing => return members(json!({"exists": false})),
        IdentityKind::Application => "application",
        IdentityKind::ManagedIdentity => "managed-identity",
        IdentityKind::Blueprint => "blueprint",
        IdentityKind::AgentIdentity => "agent-identity",
    };
    let mut name = |id: &Option<String>| id.as_ref().map(|id| words.anonymous(id));
    let user = it.user.as_ref().map(|user| {
        json!({"id": name(&user.object_id), "name": user.name.as_ref().map(|_| "user"), "parent": name(&user.parent)})
    });
    // Of a grant only that it exists.
    let grants = it.grants.map(|count| vec![json!({"consentType": "AllPrincipals"}); count.min(1)]);
    let mut identity = members(json!({
        "kind": kind, "client_id": name(&it.client_id), "object_id": name(&it.object_id), "tenant": name(&it.tenant),
        "enabled": it.is_enabled, "public_client": it.is_public_client, "multi_tenant": it.is_multi_tenant,
        "blueprint": name(&it.blueprint), "user": user,
    }));
    if let Some(has_principal) = it.has_principal {
        identity.insert("service_principal".to_owned(), json!(has_principal));
    }
    if let Some(grants) = grants {
        identity.insert("grants".to_owned(), json!(grants));
    }
    identity
}

fn credentials(case: &Context, words: &mut Words) -> Vec<Trust> {
    let expected = &case.question.expected;
    let Some(listed) = &case.evidence.credentials else {
        let mut name = |text: &Option<String>| text.as_ref().map(|text| words.anonymous(text));
        let token = case.token();
        let of_token = |text: Option<&str>| text.map(str::to_owned);
        let issuer = expected.issuer.clone().or_else(|| of_token(token.and_then(UnverifiedToken::issuer)));
        let subject = expected.subject.clone().or_else(|| of_token(token.and_then(UnverifiedToken::subject)));
        let audience = expected.audience.clone().or_else(|| Some(case.question.cloud.audience().to_owned()));
        let trust = Trust {
            issuer: name(&issuer),
            subject: name(&subject),
            audience: name(&audience),
            ..Trust::default()
        };
        return vec![trust];
    };
    let trust = |it: &Credential| {
        // Only whether the token fulfils it.
        let expression = it.expression().map(|_| match case.token().map(|token| fulfils(token, it)) {
            _ if names_unusual_claim(it) => "claims['another'] eq 'x'",
            Some(Some(true)) => "claims['sub'] matches '*'",
            Some(None) => "unreadable",
            _ => "claims['sub'] eq 'another'",
        });
        Trust {
            issuer: Some(words.anonymous(&it.issuer)),
            subject: it.subject.as_ref().map(|subject| words.anonymous(subject)),
            audience: it.audiences.first().map(|audience| words.anonymous(audience)),
            expression: expression.map(str::to_owned),
            age: it.created.and_then(|created| u64::try_from(-seconds(case.evidence.now, created)).ok()),
        }
    };
    listed.iter().map(trust).collect()
}

fn described(
    evidence: &Evidence,
    token: Option<&UnverifiedToken>,
    signed_by: String,
    words: &mut Words,
) -> Option<Token> {
    let Some(token) = token else {
        return evidence
            .token
            .as_ref()
            .map(|_| Token { text: Some("no token".to_owned()), ..Token::default() });
    };
    let header = token.header();
    let typ =
        header.typ.as_deref().map(|typ| known(typ, &["JWT", "at+jwt", "http://openid.net/specs/jwt/1.0"]));
    let alg = known(&header.alg, &ALGORITHMS);
    let mut claims: Map<String, Value> = ["iss", "sub", "aud", "iat", "nbf", "exp"]
        .map(|name| (name.to_owned(), Value::Null))
        .into_iter()
        .collect();
    for name in CLAIMS {
        let Some(value) = token.claims().get(name) else { continue };
        let value = match (name, value) {
            ("iat" | "nbf" | "exp", value) => {
                let at = value.as_i64().or_else(|| Some(token.time(name)?.as_second()));
                at.map_or(json!("no time"), |at| json!(at.saturating_sub(evidence.now.as_second())))
            }
            ("xms_mirid" | "xms_ficinfo" | "xms_az_rid", _) => json!("…"),
            ("scp", _) => json!("scope"),
            ("roles", _) => json!(["role"]),
            ("idtyp" | "ver" | "azpacr" | "appidacr", Value::String(text)) => {
                json!(known(text, &["app", "user", "1.0", "2.0", "0", "1", "2"]))
            }
            (_, Value::String(text)) => json!(words.anonymous(text)),
            (_, Value::Array(items)) => items
                .iter()
                .map(|it| match it {
                    Value::String(text) => json!(words.anonymous(text)),
                    _ => json!(0),
                })
                .collect(),
            _ => json!(0),
        };
        claims.insert(name.to_owned(), value);
    }
    let x5t = header.x5t.as_ref().or(header.x5t_s256.as_ref()).map(|_| "…");
    let kid = header.kid.as_ref().map(|kid| words.kid(kid.as_str()));
    Some(Token {
        header: members(json!({"alg": alg, "kid": kid, "typ": typ, "x5t": x5t})),
        claims,
        signed_by: Some(signed_by),
        text: None,
    })
}

fn document(evidence: &DocumentEvidence) -> Document {
    match evidence {
        DocumentEvidence::Answer(it) => Document { status: Some(it.status), ..Document::default() },
        DocumentEvidence::File { .. } | DocumentEvidence::NotSought => Document::default(),
        DocumentEvidence::NoAnswer(it) => {
            let unreachable = match it.why {
                Unanswered::NoAddress { .. } => Unreachable::NoAddress,
                Unanswered::Private { .. } => Unreachable::Private,
                Unanswered::Tls { .. } => Unreachable::Tls,
                Unanswered::TimedOut { .. } => Unreachable::Timeout,
                _ => Unreachable::Refused,
            };
            Document { unreachable: Some(unreachable), ..Document::default() }
        }
    }
}

/// A document that is no JSON, by its kind.
fn body(bytes: &[u8]) -> String {
    match bytes.trim_ascii().first() {
        None => String::new(),
        Some(b'<') => "<html></html>".to_owned(),
        Some(_) => "no JSON".to_owned(),
    }
}

fn discovery(case: &Context, words: &mut Words) -> Document {
    let evidence = &case.evidence.discovery;
    let mut document = document(evidence);
    match &case.discovery {
        Some(Ok(found)) => {
            let names = [
                "issuer",
                "jwks_uri",
                "response_types_supported",
                "subject_types_supported",
                "id_token_signing_alg_values_supported",
            ];
            document.members = names.map(|name| (name.to_owned(), Value::Null)).into_iter().collect();
            for (name, value) in
                found.iter().filter(|(name, _)| names.contains(&name.as_str()) || name.ends_with("_endpoint"))
            {
                let name = if names.contains(&name.as_str()) {
                    name.clone()
                } else {
                    "authorization_endpoint".to_owned()
                };
                let value = match value {
                    Value::String(text) => json!(words.anonymous(text)),
                    Value::Array(items) => items
                        .iter()
                        .map(|it| match it.as_str() {
                            Some(
                                text @ ("id_token" | "public" | "pairwise" | "RS256" | "ES256" | "code"
                                | "token"),
                            ) => json!(text),
                            Some("") => json!(""),
                            Some(_) => json!("another"),
                            None => json!(0),
                        })
                        .collect(),
                    _ => json!(0),
                };
                document.members.insert(name, value);
            }
        }
        Some(Err(_)) => document.body = Some(body(evidence.bytes().unwrap_or_default())),
        None => {}
    }
    document
}

/// The published keys, and the name of the one that signed.
fn keys(case: &Context, words: &mut Words) -> (Document, String) {
    let mut document = document(&case.evidence.jwks);
    document.age = first_published(case);
    let mut signed_by = "another-key".to_owned();
    match &case.jwks {
        Some(Ok(found)) => {
            let described = found.iter().enumerate().map(|(number, key)| {
                let name = format!("key-{}", number + 1);
                if case.token().is_some_and(|token| key.verifies(token)) {
                    signed_by.clone_from(&name);
                }
                described_key(key, &name, words)
            });
            document.keys = Some(described.collect());
        }
        Some(Err(_)) => document.body = Some(body(case.evidence.jwks.bytes().unwrap_or_default())),
        None => {}
    }
    (document, signed_by)
}

/// How long ago the issuer was first published, if its ledger says so.
fn first_published(case: &Context) -> Option<u64> {
    let entries = case.evidence.ledger.as_ref()?.entries();
    let first = entries.values().map(|entry| entry.first_seen).min()?;
    u64::try_from(-seconds(case.evidence.now, first)).ok()
}

fn described_key(key: &PublishedKey, name: &str, words: &mut Words) -> Map<String, Value> {
    let text = |name: &str| key.members.get(name).map(|value| value.as_str().unwrap_or("0"));
    let of = |name: &str, known: &[&str]| {
        text(name).map(|it| if known.contains(&it) { it } else { "another" }.to_owned())
    };
    let mut described = members(json!({
        "key": name, "kid": text("kid").map(|kid| words.kid(kid)),
        "kty": of("kty", &["RSA", "EC", "OKP"]), "use": of("use", &["sig", "enc"]),
        "alg": of("alg", &["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA"]),
    }));
    if let Some(bits) = key.bits() {
        described.insert("bits".to_owned(), json!(bits));
    }
    if key.malformation().is_some() {
        described.insert(
            "n".to_owned(),
            if key.members.contains_key("n") { json!("damaged") } else { Value::Null },
        );
    }
    described
}
