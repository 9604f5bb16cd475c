//! Evidence and question, parsed once for all checks.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Map, Value};

use super::{DocumentEvidence, Evidence, Expectation, Party, Question};
use crate::core::{
    entra::{Identity, IdentityKind, Leg, TokenRequest, is_guid},
    jose::{
        json,
        jwk::{InvalidJwk, Jwk},
        kid::Kid,
        public_key::InvalidPublicKey,
        token::UnverifiedToken,
    },
};

/// The members that define a key; each other member is judged separately.
const KEY_MEMBERS: [&str; 8] = ["kty", "kid", "alg", "crv", "x", "y", "n", "e"];

pub(super) struct Context<'a> {
    pub(super) evidence: &'a Evidence,
    pub(super) question: &'a Question,
    /// The members of the discovery document, or why it has none; `None` if it was not found.
    pub(super) discovery: Option<Result<Map<String, Value>, String>>,
    /// The keys of the JWKS, or why it has none; `None` if it was not found.
    pub(super) jwks: Option<Result<Vec<PublishedKey>, String>>,
}

/// One member of a published JWKS.
pub(super) struct PublishedKey {
    pub(super) members: Map<String, Value>,
    /// The public key, without regard to other members.
    pub(super) jwk: Result<Jwk, InvalidJwk>,
}

impl<'a> Context<'a> {
    pub(super) fn new(evidence: &'a Evidence, question: &'a Question) -> Self {
        let read = |document: &DocumentEvidence| document.bytes().map(object);
        let jwks = read(&evidence.jwks).map(|document| document.and_then(|members| keys(&members)));
        Self { evidence, question, discovery: read(&evidence.discovery), jwks }
    }

    /// The token, if it could be parsed.
    pub(super) fn token(&self) -> Option<&'a UnverifiedToken> {
        self.evidence.token.as_ref()?.as_ref().ok()
    }

    /// Whether the question concerns a token, and not only an issuer: then nothing is accepted without one.
    pub(super) fn is_about_a_token(&self) -> bool {
        let Expectation { issuer: _, subject, audience } = &self.question.expected;
        self.evidence.token.is_some()
            || self.evidence.workload.is_some()
            || self.evidence.credentials.is_some()
            || subject.is_some()
            || audience.is_some()
    }

    /// The identity that the request is for.
    pub(super) fn identity(&self) -> Option<&'a Identity> {
        self.evidence.identity.as_ref()
    }

    fn is_kind(&self, kind: IdentityKind) -> bool {
        self.identity().is_some_and(|it| it.kind == Some(kind))
    }

    pub(super) fn is_blueprint(&self) -> bool {
        self.is_kind(IdentityKind::Blueprint)
    }

    pub(super) fn is_agent_identity(&self) -> bool {
        self.is_kind(IdentityKind::AgentIdentity)
    }

    pub(super) fn is_managed_identity(&self) -> bool {
        self.is_kind(IdentityKind::ManagedIdentity)
    }

    pub(super) fn request(&self) -> Option<&'a TokenRequest> {
        self.evidence.request.as_ref()
    }

    /// The step of a flow; that of a workload, if no request says otherwise.
    pub(super) fn leg(&self) -> Leg {
        let is_agent = self.is_agent_identity();
        let usual = if is_agent { Leg::Agent } else { Leg::Workload };
        self.request().map_or(usual, |request| request.leg(is_agent))
    }

    /// The client id that is asked for.
    pub(super) fn client_id(&self) -> Option<&'a str> {
        let requested = self.request().and_then(|request| request.field("client_id"));
        requested.or_else(|| self.identity()?.client_id.as_deref())
    }

    /// The blueprint of the agent identity that is asked for.
    pub(super) fn blueprint(&self) -> Option<&'a str> {
        self.identity()?.blueprint.as_deref()
    }

    /// Whether the token is an assertion that an application signs itself: its issuer is the client id.
    pub(super) fn has_own_assertion(&self) -> bool {
        let issuer = self.token().and_then(UnverifiedToken::issuer);
        issuer.is_some_and(|issuer| is_guid(issuer) && self.client_id() == Some(issuer))
    }

    /// The tenant of the identity, else the one that is asked.
    pub(super) fn home_tenant(&self) -> Option<&'a str> {
        let home = self.identity().and_then(|it| it.tenant.as_deref());
        home.or_else(|| self.request()?.tenant.as_deref())
    }

    /// The expected issuer, else that of the token.
    pub(super) fn issuer(&self) -> Option<&'a str> {
        let expected = self.question.expected.issuer.as_deref();
        expected.or_else(|| self.token().and_then(UnverifiedToken::issuer))
    }

    /// A string member of the discovery document.
    pub(super) fn discovery_text(&self, member: &str) -> Option<&str> {
        self.discovery.as_ref()?.as_ref().ok()?.get(member)?.as_str()
    }

    /// Both documents, with their names.
    pub(super) fn documents(&self) -> impl Iterator<Item = (&'static str, &'a DocumentEvidence)> {
        [("discovery document", &self.evidence.discovery), ("JWKS", &self.evidence.jwks)].into_iter()
    }

    /// The published keys.
    pub(super) fn keys(&self) -> Option<&[PublishedKey]> {
        self.jwks.as_ref()?.as_deref().ok()
    }

    /// The published key that the token names.
    pub(super) fn signing_key(&self) -> Option<&PublishedKey> {
        let token = self.token()?;
        let kid = token.header().kid.as_ref().map(Kid::as_str);
        if self.question.party == Party::Kubernetes {
            // kube-apiserver tries every key that the token may mean.
            let mut meant = self.keys()?.iter().filter(|key| kid.is_none() || key.kid() == kid);
            let first = meant.clone().next();
            return meant.find(|key| key.verifies(token)).or(first);
        }
        kid.and_then(|kid| self.keys()?.iter().find(|key| key.kid() == Some(kid)))
    }
}

impl PublishedKey {
    pub(super) fn kid(&self) -> Option<&str> {
        self.members.get("kid")?.as_str()
    }

    pub(super) fn text(&self, member: &str) -> Option<&str> {
        self.members.get(member)?.as_str()
    }

    /// Why the key is malformed. An unknown kind of key is no error, and a weak key has its own rule.
    pub(super) fn malformation(&self) -> Option<&InvalidJwk> {
        self.jwk.as_ref().err().filter(|error| {
            !matches!(error, InvalidJwk::Unknown { .. } | InvalidJwk::Key(InvalidPublicKey::Weak { .. }))
        })
    }

    /// The size of an RSA key.
    pub(super) fn bits(&self) -> Option<u64> {
        let modulus = Base64UrlUnpadded::decode_vec(self.text("n")?).ok()?;
        let zeros = modulus.iter().position(|byte| *byte != 0)?;
        let first = modulus[zeros].leading_zeros();
        Some(8 * (modulus.len() - zeros) as u64 - u64::from(first))
    }

    /// Whether this key verifies the token.
    pub(super) fn verifies(&self, token: &UnverifiedToken) -> bool {
        self.jwk.as_ref().is_ok_and(|jwk| jwk.verifies(token.signing_input(), token.signature()))
    }
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    match json::parse(bytes) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err("it is JSON, but no object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn keys(document: &Map<String, Value>) -> Result<Vec<PublishedKey>, String> {
    let Some(Value::Array(members)) = document.get("keys") else {
        return Err("it has no `keys` array".to_owned());
    };
    let key = |(index, member): (usize, &Value)| match member {
        Value::Object(members) => {
            let known = members.iter().filter(|(name, _)| KEY_MEMBERS.contains(&name.as_str()));
            let known = known.map(|(name, value)| (name.clone(), value.clone())).collect();
            Ok(PublishedKey { members: members.clone(), jwk: Jwk::from_json(&Value::Object(known)) })
        }
        _ => Err(format!("key {} is no object", index + 1)),
    };
    members.iter().enumerate().map(key).collect()
}
