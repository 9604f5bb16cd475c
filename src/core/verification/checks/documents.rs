//! Rules of the issuer, its two documents, and the key in them.

use super::{holds, slash, violated};
use crate::core::{
    issuer::{Issuer, is_readable_url},
    jwk::Jwk,
    jwk_set::InvalidJwks,
    publication::MEDIA_TYPE,
    token::UnverifiedToken,
    verification::{Evidence, Exhibit, Verdict},
};

/// The issuer to look for: what the operator says, else what the token says.
fn sought(evidence: &Evidence) -> Option<&str> {
    let named = evidence.token.as_ref().ok().and_then(UnverifiedToken::issuer);
    evidence.issuer.as_ref().map(Issuer::as_str).or(named)
}

pub(super) fn issuer_is_usable(evidence: &Evidence) -> Verdict {
    match sought(evidence).map(Issuer::parse) {
        Some(Err(error)) => {
            violated(error.to_string(), "start kube-apiserver with a usable `--service-account-issuer`")
        }
        Some(Ok(_)) | None => Verdict::NotApplicable,
    }
}

pub(super) fn issuer_is_public(evidence: &Evidence) -> Verdict {
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

pub(super) fn discovery_is_there(evidence: &Evidence) -> Verdict {
    is_there(&evidence.discovery, "discovery document")
}

pub(super) fn jwks_is_there(evidence: &Evidence) -> Verdict {
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

pub(super) fn discovery_can_be_read(evidence: &Evidence) -> Verdict {
    match evidence.discovery() {
        Some(Err(error)) => violated(error.to_string(), "publish it anew with `signpost sync`"),
        _ => Verdict::NotApplicable,
    }
}

pub(super) fn discovery_names_the_issuer(evidence: &Evidence) -> Verdict {
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

pub(super) fn discovery_is_complete(evidence: &Evidence) -> Verdict {
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

pub(super) fn jwks_uri_is_usable(evidence: &Evidence) -> Verdict {
    let Some(Ok(document)) = evidence.discovery() else { return Verdict::NotApplicable };
    if is_readable_url(&document.jwks_uri) {
        return Verdict::NotApplicable;
    }
    violated(
        format!("`jwks_uri` is `{}`, expected a public https URL", document.jwks_uri),
        "set `jwks_uri` to where the JWKS is published; what the API server says of itself is inside the cluster",
    )
}

pub(super) fn documents_are_json(evidence: &Evidence) -> Verdict {
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

pub(super) fn jwks_can_be_read(evidence: &Evidence) -> Verdict {
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

pub(super) fn key_is_for_signatures(evidence: &Evidence) -> Verdict {
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

pub(super) fn key_is_published(evidence: &Evidence) -> Verdict {
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

pub(super) fn signature_verifies(evidence: &Evidence) -> Verdict {
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
    if key.verifies(token.signing_input(), token.signature()) {
        return holds("the signature verifies with the published key");
    }
    violated(
        "the signature does not verify with the published key",
        "publish the key that signed this token; if it is published, the token was changed on its way",
    )
}
