//! The table of checks and the rules behind it.

use std::time::Duration;

use jiff::Timestamp;
use josekit::jws::{ES256, ES384, ES512, JwsVerifier, RS256, RS384, RS512};

use super::{
    Certainty::{Documented, Inferred, Observed},
    Check, Evidence, Exhibit,
    Level::{Error, Note, Warning},
    Verdict,
};
use crate::core::{
    issuer::{Issuer, is_readable_url},
    jwk::{Algorithm, Jwk},
    jwk_set::InvalidJwks,
    publication::MEDIA_TYPE,
    token::{NotAToken, UnverifiedToken},
};

/// Longest life of a token that is not remarked on: what Azure Kubernetes Service allows.
const LONG_LIFE: Duration = Duration::from_hours(24);

/// The check without which nothing is accepted.
pub(super) const SIGNATURE: &str = "SIG";

/// All checks, in the order in which a relying party can make them.
pub const CHECKS: &[Check] = &[
    Check { id: "TOK-JWS", level: Error, codes: &[50_027], certainty: Observed, judge: is_jws },
    Check {
        id: "TOK-ALG",
        level: Error,
        codes: &[5_002_738],
        certainty: Documented,
        judge: signs_with_rs256,
    },
    Check { id: "TOK-TYP", level: Error, codes: &[5_002_727], certainty: Observed, judge: has_a_known_type },
    Check { id: "TOK-KID", level: Error, codes: &[5_002_723], certainty: Observed, judge: names_a_key },
    Check { id: "TOK-CLAIMS", level: Error, codes: &[90_014], certainty: Documented, judge: has_its_claims },
    Check { id: "TOK-ISS", level: Error, codes: &[700_211], certainty: Documented, judge: has_the_issuer },
    Check { id: "TOK-SUB", level: Error, codes: &[700_213], certainty: Documented, judge: has_the_subject },
    Check { id: "TOK-AUD", level: Error, codes: &[700_212], certainty: Documented, judge: has_the_audience },
    Check { id: "TOK-TIME", level: Error, codes: &[700_024], certainty: Documented, judge: is_alive },
    Check { id: "TOK-LIFE", level: Warning, codes: &[], certainty: Inferred, judge: does_not_live_long },
    Check { id: "ISS-SYNTAX", level: Error, codes: &[501_661], certainty: Inferred, judge: issuer_is_usable },
    Check {
        id: "ISS-PUBLIC",
        level: Note,
        codes: &[501_661, 90_061],
        certainty: Observed,
        judge: issuer_is_public,
    },
    Check {
        id: "PUB-DISCOVERY",
        level: Error,
        codes: &[501_661, 90_061],
        certainty: Observed,
        judge: discovery_is_there,
    },
    Check {
        id: "DISC-PARSE",
        level: Error,
        codes: &[501_661],
        certainty: Observed,
        judge: discovery_can_be_read,
    },
    Check {
        id: "DISC-ISS",
        level: Error,
        codes: &[501_661],
        certainty: Inferred,
        judge: discovery_names_the_issuer,
    },
    Check {
        id: "DISC-FIELDS",
        level: Error,
        codes: &[501_661],
        certainty: Observed,
        judge: discovery_is_complete,
    },
    Check {
        id: "DISC-JWKSURI",
        level: Error,
        codes: &[501_661],
        certainty: Inferred,
        judge: jwks_uri_is_usable,
    },
    Check {
        id: "PUB-JWKS",
        level: Error,
        codes: &[501_661, 90_061],
        certainty: Observed,
        judge: jwks_is_there,
    },
    Check { id: "PUB-CTYPE", level: Warning, codes: &[], certainty: Inferred, judge: documents_are_json },
    Check { id: "JWKS-PARSE", level: Error, codes: &[900_612], certainty: Observed, judge: jwks_can_be_read },
    Check {
        id: "JWKS-USE",
        level: Error,
        codes: &[7_000_272],
        certainty: Inferred,
        judge: key_is_for_signatures,
    },
    Check { id: "JWKS-KID", level: Error, codes: &[7_000_272], certainty: Observed, judge: key_is_published },
    Check {
        id: SIGNATURE,
        level: Error,
        codes: &[7_000_274],
        certainty: Observed,
        judge: signature_verifies,
    },
];

fn holds(observed: impl Into<String>) -> Verdict {
    Verdict::Holds(observed.into())
}

fn violated(observed: impl Into<String>, fix: impl Into<String>) -> Verdict {
    Verdict::Violated { observed: observed.into(), fix: fix.into() }
}

/// Applies a rule to a token that could be taken apart.
fn token(evidence: &Evidence, rule: impl FnOnce(&UnverifiedToken) -> Verdict) -> Verdict {
    evidence.token.as_ref().map_or(Verdict::NotApplicable, rule)
}

fn is_jws(evidence: &Evidence) -> Verdict {
    match &evidence.token {
        Ok(_) => holds("a JWT with header, claims and signature"),
        Err(error) => violated(
            error.to_string(),
            match error {
                NotAToken::Surrounded { .. } => "pass the token as it is, with nothing around it",
                _ => "pass a whole token, as `kubectl create token` and `signpost token` print it",
            },
        ),
    }
}

fn signs_with_rs256(evidence: &Evidence) -> Verdict {
    token(evidence, |token| match token.header().alg.as_str() {
        "RS256" => holds("signed with RS256"),
        other => violated(
            format!("signed with `{other}`, Microsoft Entra supports `RS256` alone"),
            "give kube-apiserver an RSA key to sign with; AWS and Google take ES256 too",
        ),
    })
}

fn has_a_known_type(evidence: &Evidence) -> Verdict {
    token(evidence, |token| match token.header().typ.as_deref() {
        None | Some("JWT" | "http://openid.net/specs/jwt/1.0") => Verdict::NotApplicable,
        Some(other) => violated(
            format!("header `typ` is `{other}`, expected `JWT` or none"),
            "have the signer leave `typ` out",
        ),
    })
}

fn names_a_key(evidence: &Evidence) -> Verdict {
    token(evidence, |token| match &token.header().kid {
        Some(kid) => holds(format!("kid `{kid}`")),
        None => violated("the header has no `kid`", "use a token of Kubernetes 1.20 or later"),
    })
}

fn has_its_claims(evidence: &Evidence) -> Verdict {
    token(evidence, |token| {
        let times = [("exp", token.expires_at().is_some()), ("iat", token.issued_at().is_some())];
        let texts = [
            ("iss", token.issuer().is_some()),
            ("sub", token.subject().is_some()),
            ("aud", !token.audiences().is_empty()),
        ];
        let missing: Vec<_> = texts
            .into_iter()
            .chain(times)
            .filter(|(_, there)| !there)
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        if missing.is_empty() {
            holds("has `iss`, `sub`, `aud`, `exp` and `iat`")
        } else {
            violated(
                format!("has no {}", missing.join(", ")),
                "use a projected token or `kubectl create token`; tokens from Secrets have no expiry and no audience",
            )
        }
    })
}

fn has_the_issuer(evidence: &Evidence) -> Verdict {
    token(evidence, |token| match (token.issuer(), &evidence.issuer) {
        (Some("kubernetes/serviceaccount"), _) => violated(
            "a legacy token from a Secret: its issuer is `kubernetes/serviceaccount`",
            "use a projected token or `kubectl create token`",
        ),
        (Some(found), Some(expected)) if found != expected.as_str() => violated(
            format!("`iss` is `{found}`, expected `{expected}`{}", slash(found, expected.as_str())),
            "make `--service-account-issuer` and the federated credential the same, byte for byte",
        ),
        (Some(found), _) => holds(format!("issuer `{found}`")),
        (None, _) => Verdict::NotApplicable,
    })
}

/// The commonest difference deserves words.
fn slash(found: &str, expected: &str) -> &'static str {
    if found.trim_end_matches('/') == expected.trim_end_matches('/') {
        ": they differ in the final `/` alone"
    } else {
        ""
    }
}

fn has_the_subject(evidence: &Evidence) -> Verdict {
    token(evidence, |token| match (token.subject(), &evidence.subject) {
        (Some(found), Some(expected)) if found != expected => violated(
            format!("`sub` is `{found}`, expected `{expected}`"),
            "correct the namespace and name of the service account in the federated credential; case counts",
        ),
        (Some(found), _) => holds(format!("subject `{found}`")),
        (None, _) => Verdict::NotApplicable,
    })
}

fn has_the_audience(evidence: &Evidence) -> Verdict {
    token(evidence, |token| {
        let found = token.audiences();
        let quoted = found.iter().map(|audience| format!("`{audience}`")).collect::<Vec<_>>().join(", ");
        match &evidence.audience {
            None if found.is_empty() => Verdict::NotApplicable,
            Some(expected) if found != [expected] => violated(
                format!("`aud` is {quoted}, expected `{expected}` alone"),
                format!("project the token with `audience: {expected}`"),
            ),
            _ => holds(format!("audience {quoted}")),
        }
    })
}

fn is_alive(evidence: &Evidence) -> Verdict {
    token(evidence, |token| {
        let Some(expiry) = token.expires_at() else { return Verdict::NotApplicable };
        let start = token.not_before().or(token.issued_at());
        if expiry <= evidence.now {
            let ago = between(expiry, evidence.now);
            return violated(
                format!("expired {ago} ago"),
                "read the token file anew; the kubelet replaces it in time",
            );
        }
        match start.filter(|start| *start > evidence.now) {
            Some(start) => violated(
                format!("not valid for another {}", between(evidence.now, start)),
                "set the clocks right, here and on the node that signed",
            ),
            None => holds(format!("valid for another {}", between(evidence.now, expiry))),
        }
    })
}

fn between(from: Timestamp, to: Timestamp) -> String {
    format!("{:#}", to.duration_since(from))
}

fn does_not_live_long(evidence: &Evidence) -> Verdict {
    token(evidence, |token| {
        let (Some(issued), Some(expiry)) = (token.issued_at(), token.expires_at()) else {
            return Verdict::NotApplicable;
        };
        if !Duration::try_from(expiry.duration_since(issued)).is_ok_and(|life| life > LONG_LIFE) {
            return Verdict::NotApplicable;
        }
        violated(
            format!("lives for {}, more than a day", between(issued, expiry)),
            "lower `expirationSeconds`: its key must stay published as long as it lives",
        )
    })
}

/// The issuer to look for: what the operator says, else what the token says.
fn sought(evidence: &Evidence) -> Option<&str> {
    let named = evidence.token.as_ref().ok().and_then(UnverifiedToken::issuer);
    evidence.issuer.as_ref().map(Issuer::as_str).or(named)
}

fn issuer_is_usable(evidence: &Evidence) -> Verdict {
    match sought(evidence).map(Issuer::parse) {
        Some(Err(error)) => {
            violated(error.to_string(), "start kube-apiserver with a usable `--service-account-issuer`")
        }
        Some(Ok(_)) | None => Verdict::NotApplicable,
    }
}

fn issuer_is_public(evidence: &Evidence) -> Verdict {
    let Some(issuer) = sought(evidence).and_then(|issuer| Issuer::parse(issuer).ok()) else {
        return Verdict::NotApplicable;
    };
    let host = issuer.authority().rsplit_once(':').map_or(issuer.authority(), |(host, _)| host);
    let inside =
        [".svc", ".cluster.local", ".local", ".internal"].iter().any(|suffix| host.ends_with(suffix));
    if issuer.is_loopback() || inside {
        violated(
            format!(
                "`{issuer}` can be reached from inside alone; Microsoft Entra, AWS and Google would refuse it"
            ),
            "publish under a public https URL and make that the issuer",
        )
    } else {
        Verdict::NotApplicable
    }
}

fn discovery_is_there(evidence: &Evidence) -> Verdict {
    is_there(&evidence.discovery, "discovery document")
}

fn jwks_is_there(evidence: &Evidence) -> Verdict {
    is_there(&evidence.jwks, "JWKS")
}

fn is_there(exhibit: &Exhibit, what: &str) -> Verdict {
    match exhibit {
        Exhibit::NotSought => Verdict::NotApplicable,
        Exhibit::File { path, .. } => holds(format!("{what} from `{path}`")),
        Exhibit::Answer { url, status: 200, .. } => holds(format!("{what} at {url}")),
        Exhibit::Answer { url, status, bytes, .. } => violated(
            format!("{what} at {url}: status {status}, expected 200{}", reason(bytes)),
            match status {
                300..=399 => "serve it without a redirect",
                401 | 403 => "allow anonymous reading, or use a static website",
                _ => "publish it there with `signpost sync`",
            },
        ),
    }
}

/// What the body of a refusal of the common stores says.
fn reason(bytes: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(bytes);
    if text.contains("PublicAccessNotPermitted") {
        ": the storage account forbids anonymous reading"
    } else if text.contains("AccessDenied") {
        ": the bucket forbids anonymous reading"
    } else if text.contains("AuthorizationFailure") {
        ": the firewall of the storage account forbids it"
    } else {
        ""
    }
}

fn discovery_can_be_read(evidence: &Evidence) -> Verdict {
    match evidence.discovery() {
        Some(Err(error)) => violated(error.to_string(), "publish it anew with `signpost sync`"),
        _ => Verdict::NotApplicable,
    }
}

fn discovery_names_the_issuer(evidence: &Evidence) -> Verdict {
    let (Some(Ok(document)), Some(expected)) = (evidence.discovery(), sought(evidence)) else {
        return Verdict::NotApplicable;
    };
    if document.issuer == expected {
        return holds("discovery names the same issuer");
    }
    violated(
        format!(
            "discovery names issuer `{}`, expected `{expected}`{}",
            document.issuer,
            slash(&document.issuer, expected)
        ),
        "publish the discovery document of this very issuer with `signpost sync`",
    )
}

fn discovery_is_complete(evidence: &Evidence) -> Verdict {
    let Some(Ok(document)) = evidence.discovery() else { return Verdict::NotApplicable };
    let empty = [
        ("response_types_supported", document.response_types_supported.is_empty()),
        ("subject_types_supported", document.subject_types_supported.is_empty()),
        ("id_token_signing_alg_values_supported", document.id_token_signing_alg_values_supported.is_empty()),
        ("authorization_endpoint", document.authorization_endpoint.as_deref() == Some("")),
    ];
    let named: Vec<_> =
        empty.into_iter().filter(|(_, empty)| *empty).map(|(name, _)| format!("`{name}`")).collect();
    if named.is_empty() {
        return holds("discovery has all that Microsoft Entra reads");
    }
    violated(
        format!("discovery has nothing in {}", named.join(", ")),
        "publish the five members that Kubernetes has, with `signpost sync`",
    )
}

fn jwks_uri_is_usable(evidence: &Evidence) -> Verdict {
    let Some(Ok(document)) = evidence.discovery() else { return Verdict::NotApplicable };
    if is_readable_url(&document.jwks_uri) {
        return Verdict::NotApplicable;
    }
    violated(
        format!("`jwks_uri` is `{}`, expected a public https URL", document.jwks_uri),
        "set `jwks_uri` to where the JWKS is published; what the API server says of itself is inside the cluster",
    )
}

fn documents_are_json(evidence: &Evidence) -> Verdict {
    for exhibit in [&evidence.discovery, &evidence.jwks] {
        if let Exhibit::Answer { url, status: 200, content_type, .. } = exhibit {
            let found = content_type.as_deref().unwrap_or("none");
            let base = found.split(';').next().unwrap_or(found).trim();
            if base != MEDIA_TYPE && base != "application/jwk-set+json" {
                return violated(
                    format!("{url} has content type `{found}`, expected `{MEDIA_TYPE}`"),
                    "publish it with `signpost sync`, which sets it",
                );
            }
        }
    }
    Verdict::NotApplicable
}

fn jwks_can_be_read(evidence: &Evidence) -> Verdict {
    match evidence.jwks() {
        Some(Err(error)) => {
            let text = match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            };
            let fix = match error {
                InvalidJwks::Key { source: crate::core::jwk::InvalidJwk::Private { .. }, .. } => {
                    "a private key is public: replace the signing key at once, then publish anew"
                }
                _ => "publish it anew with `signpost sync`",
            };
            violated(format!("the JWKS at {} cannot be used: {text}", evidence.jwks.origin()), fix)
        }
        Some(Ok(received)) => holds(match received.keys.len() {
            1 => "JWKS with 1 key".to_owned(),
            count => format!("JWKS with {count} keys"),
        }),
        None => Verdict::NotApplicable,
    }
}

/// The published key that the token names.
fn key(evidence: &Evidence) -> Option<Jwk> {
    let kid = evidence.token.as_ref().ok()?.header().kid.as_ref()?;
    evidence.jwks()?.ok()?.keys.into_iter().find(|key| key.kid() == kid)
}

fn key_is_for_signatures(evidence: &Evidence) -> Verdict {
    let Some(found) = key(evidence) else { return Verdict::NotApplicable };
    let document: Option<serde_json::Value> =
        evidence.jwks.bytes().and_then(|bytes| serde_json::from_slice(bytes).ok());
    let members = document.as_ref().and_then(|document| document["keys"].as_array());
    let member = members.and_then(|keys| keys.iter().find(|key| key["kid"] == found.kid().as_str()));
    match member {
        Some(member) if member.get("use").is_none() => violated(
            format!("key `{}` has no `use`, Microsoft Entra expects `sig`", found.kid()),
            "publish it anew with `signpost sync`",
        ),
        _ => Verdict::NotApplicable,
    }
}

fn key_is_published(evidence: &Evidence) -> Verdict {
    let (Ok(token), Some(Ok(received))) = (&evidence.token, evidence.jwks()) else {
        return Verdict::NotApplicable;
    };
    let Some(kid) = &token.header().kid else { return Verdict::NotApplicable };
    if received.keys.iter().any(|key| key.kid() == kid) {
        return holds("the key that signed is published");
    }
    let published: Vec<_> = received.keys.iter().map(|key| format!("`{}`", key.kid())).collect();
    violated(
        format!("kid `{kid}` is not published; published: {}", published.join(", ")),
        "publish the keys of the cluster that made this token with `signpost sync`, and keep them current with `signpost run`",
    )
}

fn signature_verifies(evidence: &Evidence) -> Verdict {
    let (Ok(token), Some(key)) = (&evidence.token, key(evidence)) else { return Verdict::NotApplicable };
    if token.header().alg != key.algorithm().name() {
        return violated(
            format!(
                "the token says `{}`, the published key is for `{}`",
                token.header().alg,
                key.algorithm().name()
            ),
            "publish the key that signed this token",
        );
    }
    if verifier(&key)
        .is_some_and(|verifier| verifier.verify(token.signing_input(), token.signature()).is_ok())
    {
        return holds("the signature verifies with the published key");
    }
    violated(
        "the signature does not verify with the published key",
        "publish the key that signed this token; if it is published, the token was changed on its way",
    )
}

fn verifier(key: &Jwk) -> Option<Box<dyn JwsVerifier>> {
    let spki = key.public_key().to_spki();
    let boxed: Result<Box<dyn JwsVerifier>, _> = match key.algorithm() {
        Algorithm::RS256 => RS256.verifier_from_der(spki).map(|verifier| Box::new(verifier) as _),
        Algorithm::RS384 => RS384.verifier_from_der(spki).map(|verifier| Box::new(verifier) as _),
        Algorithm::RS512 => RS512.verifier_from_der(spki).map(|verifier| Box::new(verifier) as _),
        Algorithm::ES256 => ES256.verifier_from_der(spki).map(|verifier| Box::new(verifier) as _),
        Algorithm::ES384 => ES384.verifier_from_der(spki).map(|verifier| Box::new(verifier) as _),
        Algorithm::ES512 => ES512.verifier_from_der(spki).map(|verifier| Box::new(verifier) as _),
    };
    boxed.ok()
}
