//! Gathers what a relying party would have before it, for core to judge.

use crate::{
    clock,
    core::{
        issuer::{Issuer, is_readable_url},
        token::UnverifiedToken,
        verification::{Evidence, Exhibit},
    },
    relying_party::{ReadError, RelyingParty},
};

/// What the operator says about a token.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    pub issuer: Option<Issuer>,
    pub audience: Option<String>,
    pub subject: Option<String>,
}

/// Reads the documents from the issuer, as every relying party does: discovery first, the JWKS where
/// that says it is.
///
/// # Errors
///
/// Fails when one of them cannot be asked for at all.
pub async fn gather(
    text: &str,
    expected: Expectation,
    relying_party: &RelyingParty,
) -> Result<Evidence, ReadError> {
    let mut evidence = offline(text, expected, Exhibit::NotSought, Exhibit::NotSought);
    let named = evidence.token.as_ref().ok().and_then(UnverifiedToken::issuer).map(str::to_owned);
    let issuer = evidence.issuer.clone().or_else(|| Issuer::parse(&named?).ok());
    let Some(issuer) = issuer else { return Ok(evidence) };
    evidence.discovery = relying_party.read(&issuer.discovery_url()).await?;
    if let Some(Ok(document)) = evidence.discovery()
        && is_readable_url(&document.jwks_uri)
    {
        evidence.jwks = relying_party.read(&document.jwks_uri).await?;
    }
    Ok(evidence)
}

/// Takes the documents from the operator instead.
#[must_use]
pub fn offline(text: &str, expected: Expectation, discovery: Exhibit, jwks: Exhibit) -> Evidence {
    Evidence {
        token: UnverifiedToken::parse(text),
        issuer: expected.issuer,
        audience: expected.audience,
        subject: expected.subject,
        discovery,
        jwks,
        now: clock::now(),
    }
}
