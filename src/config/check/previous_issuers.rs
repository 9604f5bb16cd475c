//! Previous issuers: tokens still have them as `iss`, so no other issuer may use them.

use super::{UsedNames, jwks_uri, target, unique_issuer};
use crate::{
    config::{
        PreviousIssuerConfig,
        problem::{Fault, Problems},
        reader::Mapping,
    },
    core::jose::{issuer::Issuer, jwk_set::Profile},
};

/// `names` are those of the targets of the issuer itself.
pub(super) fn read(
    issuer: &Mapping<'_>,
    profile: Option<Profile>,
    known: &mut UsedNames,
    names: &mut Vec<(String, String)>,
    problems: &mut Problems,
) -> Option<Vec<PreviousIssuerConfig>> {
    let mut former = Vec::new();
    for mapping in issuer.mappings("previous_issuers", problems)? {
        let issuer = mapping.parsed("issuer", problems, |text| {
            Issuer::parse(text).map_err(|error| Fault::new(error.to_string()))
        });
        if let Some(issuer) = &issuer {
            unique_issuer(issuer, &mapping, known, problems);
        }
        let jwks_uri = jwks_uri::read(&mapping, issuer.as_ref(), known, problems);
        let targets = target::read(&mapping, issuer.as_ref(), profile, known, names, problems);
        let (Some(issuer), Some(targets)) = (issuer, targets) else { continue };
        let jwks_uri = jwks_uri.unwrap_or_else(|| issuer.jwks_uri());
        former.push(PreviousIssuerConfig { issuer, jwks_uri, targets });
    }
    Some(former)
}
