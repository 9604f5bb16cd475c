//! The token that is periodically verified.

use super::Reported;
use crate::{
    config::{
        SourceConfig, VerifyConfig,
        problem::{Fault, Problems},
        reader::Mapping,
        value,
    },
    core::{
        jose::issuer::Issuer,
        verification::{Cloud, Party},
    },
};

/// The default audience of AWS.
const AWS_AUDIENCE: &str = "sts.amazonaws.com";

pub(super) fn read(
    mapping: &Mapping<'_>,
    issuer: Option<&Issuer>,
    sources: Option<&[SourceConfig]>,
    problems: &mut Problems,
) -> Result<Option<VerifyConfig>, Reported> {
    if mapping.get("verify").is_none() {
        return Ok(None);
    }
    let gives_tokens =
        |source: &SourceConfig| matches!(source, SourceConfig::ApiServer { .. } | SourceConfig::Embedded);
    if sources.is_some_and(|sources| !sources.iter().any(gives_tokens)) {
        let fault =
            Fault::new("no source issues tokens, expected `api-server` or `embedded` among `sources`");
        let hint = "remove `verify`, and run `signpost verify` where tokens are";
        mapping.refuse("verify", fault.hint(hint), problems);
    }
    let verify = mapping.mapping("verify", problems).ok_or(Reported)?;
    let every = verify.duration("every", problems);
    let written = verify.get("for").is_some();
    let party = verify.choice("for", problems, &Party::ALL, Party::word);
    let usual = if issuer.is_some_and(Issuer::is_loopback) { Party::Local } else { Party::Entra };
    let party = if written { party } else { Some(usual) };
    let cloud = verify.choice("cloud", problems, &Cloud::ALL, Cloud::word);
    if let Some(party) = party.filter(|party| *party != Party::Entra)
        && verify.get("cloud").is_some()
    {
        let fault = Fault::new(format!("is given for `{}`, expected only for `entra`", party.word()));
        verify.refuse("cloud", fault, problems);
    }
    let has_audience = verify.get("audience").is_some();
    let audience = verify.text("audience", problems);
    let missing = match party {
        Some(Party::Gcp) => Some((
            "is missing, expected one that the provider of the pool allows",
            "for example `audience: //iam.googleapis.com/projects/1/locations/global/\
             workloadIdentityPools/POOL/providers/PROVIDER`",
        )),
        Some(Party::Kubernetes) => Some((
            "is missing, expected one that the other cluster allows",
            "write one of `audiences` in its AuthenticationConfiguration",
        )),
        _ => None,
    };
    if let Some((fault, hint)) = missing.filter(|_| !has_audience) {
        let fault = Fault::new(fault);
        verify.refuse("audience", fault.hint(hint), problems);
    }
    let service_account = verify.parsed("service_account", problems, value::service_account);
    let allow_private = verify.bool("allow_private", problems);
    let ca_file = verify.path("ca_file", problems);
    let (party, cloud) = (party.ok_or(Reported)?, cloud.ok_or(Reported)?);
    let usual = if party == Party::Aws { AWS_AUDIENCE } else { cloud.audience() };
    Ok(Some(VerifyConfig {
        every: every.ok_or(Reported)?,
        party,
        cloud,
        audience: audience.unwrap_or_else(|| usual.to_owned()),
        service_account,
        allow_private: allow_private.ok_or(Reported)?,
        ca_file,
    }))
}
