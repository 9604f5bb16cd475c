//! The evidence for a verdict on a token, as a relying party would find it.

use crate::{
    core::verification::Evidence,
    relying_party::{ReadError, RelyingParty},
    workflow::verifying::{Expectation, gather},
};

/// Reads the documents from the issuer that is expected, or else the one that the token names.
///
/// # Errors
///
/// Fails when there is no answer; what an answer says is evidence, whatever it is.
pub async fn from_issuer(token: &str, expected: Expectation) -> Result<Evidence, ReadError> {
    gather(token, expected, &RelyingParty::new()?).await
}
